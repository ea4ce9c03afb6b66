"""What a monitor costs: forward and backward of an LSTM with and without one, in turns in one process. At most 1.1 of the time.

Run it with ``python tests/benchmarks/bench_monitor.py``.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np

from tinygrad_rnn import flow, nn

SIZES = [(200, 1, 16, 32), (100, 8, 32, 64), (400, 16, 32, 64), (100, 32, 64, 128)]  # T, B, I, H
LIMIT = 1.1


def turn(layer: Any, x: Any) -> float:
    start = time.perf_counter()
    outputs, _ = layer(x)
    outputs.sum().backward()
    elapsed = time.perf_counter() - start
    layer.zero_grad()
    return elapsed


def main() -> int:
    met = True
    for steps, batch, inputs, hidden in SIZES:
        layer = nn.LSTM(inputs, hidden, dtype=np.float32, rng=0)
        x = np.random.default_rng(0).standard_normal((steps, batch, inputs)).astype(np.float32)
        plain, watched = [], []
        for _ in range(60):
            plain.append(turn(layer, x))
            with flow.monitor(layer):
                watched.append(turn(layer, x))
        ratio = statistics.median(watched) / statistics.median(plain)
        met &= ratio <= LIMIT
        print(f"(T, B, I, H) = {(steps, batch, inputs, hidden)!s:19} {1e3 * statistics.median(plain):7.2f} ms, watched {ratio:.3f} of it")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
