"""What a monitor costs: forward and backward of a layer without one, with one, and with one that writes to a file. At most 1.1 of the time.

All take turns in one process, float32, and the medians count.

Run it with ``python tests/benchmarks/bench_monitor.py``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
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
    for kind in (nn.RNN, nn.LSTM, nn.GRU):
        for steps, batch, inputs, hidden in SIZES:
            layer = kind(inputs, hidden, dtype=np.float32, rng=0)
            x = np.random.default_rng(0).standard_normal((steps, batch, inputs)).astype(np.float32)
            plain, watched, written = [], [], []
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(60):
                    plain.append(turn(layer, x))
                    with flow.monitor(layer):
                        watched.append(turn(layer, x))
                    with flow.monitor(layer, f"{folder}/rows.jsonl"):
                        written.append(turn(layer, x))
            base = statistics.median(plain)
            ratios = [statistics.median(several) / base for several in (watched, written)]
            met &= max(ratios) <= LIMIT
            size = (steps, batch, inputs, hidden)
            print(f"{kind.__name__:4} {size!s:19} {1e3 * base:7.2f} ms; watched {ratios[0]:.3f} of it, written to a file {ratios[1]:.3f}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
