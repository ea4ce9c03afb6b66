"""The ledger with norms of a 100-step LSTM, against PyTorch with a hook on every intermediate tensor.

Both run forward and backward; ours lists every backward multiplication with the norms on both of its sides, PyTorch's loop stores
the norm of the gradient of each of its intermediate tensors (1,100 of them), kept on its side and fetched once at the end. PyTorch
has one thread. The two take turns in one process; the medians count. Run it with ``python tests/benchmarks/bench_ledger.py``.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import tinygrad_rnn as tg
from tinygrad_rnn import nn

STEPS, BATCH, INPUT, HIDDEN = 100, 8, 32, 64
LIMIT = 0.7

torch.set_num_threads(1)
layer = nn.LSTM(INPUT, HIDDEN, rng=0)
sequence = np.random.default_rng(1).standard_normal((STEPS, BATCH, INPUT))

weight_ih, weight_hh, bias = (torch.tensor(p.numpy(), requires_grad=True) for p in (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_l0))
torch_sequence = torch.tensor(sequence)


def ours() -> tg.Trace:
    outputs, _ = layer(sequence)
    return tg.trace((outputs * outputs).sum(), keep="norms")


def theirs() -> dict[tuple[str, int], float]:
    norms: dict[tuple[str, int], Any] = {}

    def watch(name: str, t: int, value: Any) -> Any:
        value.register_hook(lambda gradient: norms.__setitem__((name, t), gradient.norm()))
        return value

    hidden = cell = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    fed = torch_sequence @ weight_ih.T + bias  # for all steps at once
    outputs = []
    for t in range(STEPS):
        pre = watch("a", t, fed[t] + watch("h W", t, hidden @ weight_hh.T))
        a_i, a_f, a_g, a_o = pre.chunk(4, -1)
        i, f = watch("i", t, torch.sigmoid(a_i)), watch("f", t, torch.sigmoid(a_f))
        g, o = watch("g", t, torch.tanh(a_g)), watch("o", t, torch.sigmoid(a_o))
        kept, written = watch("f c", t, f * cell), watch("i g", t, i * g)
        cell = watch("c", t, kept + written)
        shown = watch("tanh c", t, torch.tanh(cell))
        hidden = watch("h", t, o * shown)
        outputs.append(hidden)
    stacked = watch("outputs", 0, torch.stack(outputs))
    (stacked * stacked).sum().backward()
    values = dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True))
    weight_ih.grad = weight_hh.grad = bias.grad = None
    return values


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - start
    del result  # freeing what was asked for is not part of it
    return elapsed


def main(rounds: int = 30) -> int:
    states, norms = ours().states("lstm"), theirs()
    for t in range(STEPS):
        pairs = [(states[t + 1].hidden.norm, norms["h", t]), (states[t + 1].cell.norm, norms["c", t])]
        pairs += [(states[t + 1].gates[gate.name].norm, norms[gate.symbol, t]) for gate in nn.LSTM_GATES]
        for here, there in pairs:
            if not np.isclose(here, there, rtol=1e-9, atol=1e-300):
                print(f"the two disagree at step {t + 1}: {here!r} here and {there!r} there")
                return 1
    times: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    for _ in range(rounds):
        for run in times:
            gc.collect()
            times[run].append(timed(run))
    mine, torchs = (statistics.median(times[run]) for run in (ours, theirs))
    ratio = mine / torchs
    print(f"ours {1e3 * mine:.2f} ms, torch {1e3 * torchs:.2f} ms, ratio {ratio:.2f} (limit {LIMIT})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
