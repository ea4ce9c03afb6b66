"""What a monitor costs: forward and backward of a layer without one, with one, and with one that writes to a file. At most 1.1 of the time.

Each measurement is of some passes in a row, with all that the monitor does from beginning to end, also writing what is left. All take turns
in one process, float32, and the medians count.

Run it with ``python tests/benchmarks/bench_monitor.py``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from tinygrad_rnn import flow, nn

SIZES = [(200, 1, 16, 32), (100, 8, 32, 64), (400, 16, 32, 64), (100, 32, 64, 128)]  # T, B, I, H
LIMIT = 1.1


PASSES, TURNS = 20, 15


def passes(layer: Any, x: Any, watch: Callable[[], Any] = nullcontext) -> float:
    start = time.perf_counter()
    with watch():
        for _ in range(PASSES):
            outputs, _ = layer(x)
            outputs.sum().backward()
            layer.zero_grad()
    return time.perf_counter() - start


def main() -> int:
    met = True
    for kind in (nn.RNN, nn.LSTM, nn.GRU):
        for size in SIZES:
            steps, batch, inputs, hidden = size
            layer = kind(inputs, hidden, dtype=np.float32, rng=0)
            x = np.random.default_rng(0).standard_normal((steps, batch, inputs)).astype(np.float32)
            took: tuple[list[float], ...] = [], [], []
            with tempfile.TemporaryDirectory() as folder:
                ways = nullcontext, partial(flow.monitor, layer), partial(flow.monitor, layer, f"{folder}/rows.jsonl")
                for _ in range(TURNS):
                    for watch, several in zip(ways, took, strict=True):
                        several.append(passes(layer, x, watch))
            base, *others = (statistics.median(several) for several in took)
            ratios = [other / base for other in others]
            met &= max(ratios) <= LIMIT
            time_of_one = 1e3 * base / PASSES
            print(f"{kind.__name__:4} {size!s:19} {time_of_one:7.2f} ms; watched {ratios[0]:.3f} of it, written to a file {ratios[1]:.3f}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
