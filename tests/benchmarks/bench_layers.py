"""RNN, GRU and LSTM layers in training: forward and backward of ``outputs.sum()`` in float32, against PyTorch's, with two threads each.

The input is data and needs no gradient, the parameters do.

Both take turns in one process, with a pause between turns: after a NumPy product OpenBLAS's threads go on spinning for tens of
milliseconds and slow whatever runs next on two cores. The medians count. "products" is the time of the kernel's matrix products alone.
Peak memory is that of one training step in a fresh process each, above what the process held before it. Run it with
``python tests/benchmarks/bench_layers.py [NAME …]``, where a name is RNN, GRU, LSTM or memory.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tinygrad_rnn import nn, tensor

SIZES = [(200, 1, 16, 32), (100, 8, 32, 64), (400, 16, 32, 64), (100, 32, 64, 128), (50, 64, 128, 256)]  # T, B, I, H
LIMITS = {"RNN": [0.35, 0.35, 0.8, 0.8, 0.8], "GRU": [0.35, 0.35, 0.7, 0.7, 0.7], "LSTM": [2.5, 1.6, 1.6, 1.6, 1.6]}
PAUSE = 0.15
Turn = Callable[[], Any]


def training_step(layer: Any, x: Any) -> Turn:
    """Forward and backward; both libraries are asked in the same words."""

    def turn() -> Any:
        layer.zero_grad()
        outputs, _ = layer(x)
        outputs.sum().backward()
        return outputs

    return turn


def ours(name: str, size: tuple[int, ...]) -> Turn:
    steps, batch, inputs, hidden = size
    layer = getattr(nn, name)(inputs, hidden, dtype=np.float32, rng=0)
    return training_step(layer, tensor(np.random.default_rng(1).standard_normal((steps, batch, inputs)).astype(np.float32)))


def theirs(name: str, size: tuple[int, ...]) -> Turn:
    steps, batch, inputs, hidden = size
    return training_step(getattr(torch.nn, name)(inputs, hidden), torch.randn(steps, batch, inputs))


def products(name: str, size: tuple[int, ...]) -> Turn:
    """The matrix products that a training step needs, and nothing else."""
    steps, batch, inputs, hidden = size
    rows = {"RNN": 1, "GRU": 3, "LSTM": 4}[name] * hidden
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    x, h, wide = drawn(steps * batch, inputs), drawn(batch, hidden), drawn(batch, rows)
    every, every_wide = drawn(steps * batch, hidden), drawn(steps * batch, rows)
    ih, hh = drawn(rows, inputs), drawn(rows, hidden)
    turned = np.ascontiguousarray(hh.T)

    def turn() -> None:
        x @ ih.T
        for _ in range(steps):
            np.matmul(h, turned, out=wide)
        for _ in range(steps):
            np.matmul(wide, hh, out=h)
        h.fill(0.5)
        every_wide.T @ every, every_wide.T @ x

    return turn


def compare(name: str) -> bool:
    met = True
    for size, limit in zip(SIZES, LIMITS[name], strict=True):
        turns = [ours(name, size), theirs(name, size), products(name, size)]
        times: list[list[float]] = [[], [], []]
        for turn in turns:
            turn()
        for _ in range(15):
            for turn, taken in zip(turns, times, strict=True):
                time.sleep(PAUSE)
                start = time.perf_counter()
                turn()
                taken.append(time.perf_counter() - start)
        mine, peer, bare = (1e3 * statistics.median(taken) for taken in times)
        met &= mine / peer <= limit
        print(
            f"{name:4} (T, B, I, H) = {size!s:19} ours {mine:7.2f} ms, torch {peer:7.2f} ms, ratio {mine / peer:.2f} (limit {limit}); "
            f"products {bare:6.2f} ms",
            flush=True,
        )
    return met


def _status(field: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_of_one_step(who: str, name: str, size: tuple[int, ...]) -> None:
    """Print the peak in KiB of one training step, in a process that has done a tiny one before."""
    make = ours if who == "ours" else theirs
    make(name, (2, 1, 2, 2))()
    turn = make(name, size)
    gc.collect()
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")  # the peak begins anew
    before = _status("VmRSS")
    turn()
    print(_status("VmHWM") - before)


def memory(name: str) -> bool:
    met = True
    for size in SIZES[2:]:
        peaks = []
        for who in ("ours", "theirs"):
            command = [sys.executable, __file__, "--peak", who, name, *map(str, size)]
            peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024)
        met &= peaks[0] <= peaks[1]
        print(f"{name:4} {size!s:19} peak of a step: ours {peaks[0]:.1f} MiB, torch {peaks[1]:.1f} MiB, ratio {peaks[0] / peaks[1]:.2f}")
    return met


def main(names: list[str]) -> int:
    torch.set_num_threads(2)
    if names[:1] == ["--peak"]:
        peak_of_one_step(names[1], names[2], tuple(int(n) for n in names[3:]))
        return 0
    met = min([compare(name) for name in LIMITS if not names or name in names], default=True)
    if not names or "memory" in names:
        met &= min([memory(name) for name in LIMITS])
    return int(not met)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
