"""The ledger with norms of a 100-step LSTM, against PyTorch with a hook on every intermediate tensor.

Both run forward and backward; ours lists every backward multiplication (2,500 of them) with the norms on both of its sides, PyTorch's
loop stores the norms of the gradients of its intermediate tensors. PyTorch has one thread and is asked three times: with a hook on what
has a name in the equations (1,100 tensors; the limit is for this one), with a hook on each and every intermediate tensor (1,800), and
tuned, with one x Wᵀ for all steps and the norms fetched together at the end. All take turns in one process; the medians count. Run it
with ``python tests/benchmarks/bench_ledger.py``.
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


def theirs(tuned: bool = False, every: bool = False) -> dict[tuple[str, int], float]:
    norms: dict[tuple[str, int], Any] = {}

    def watch(name: str, t: int, value: Any) -> Any:
        if tuned:
            value.register_hook(lambda gradient: norms.__setitem__((name, t), gradient.norm()))
        else:
            value.register_hook(lambda gradient: norms.__setitem__((name, t), gradient.norm().item()))
        return value

    def also(name: str, t: int, value: Any) -> Any:
        return watch(name, t, value) if every else value

    hidden = cell = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    fed = torch_sequence @ weight_ih.T + bias if tuned else None
    outputs = []
    for t in range(STEPS):
        from_input = fed[t] if fed is not None else also("x W + b", t, also("x W", t, torch_sequence[t] @ weight_ih.T) + bias)
        pre = watch("a", t, from_input + watch("h W", t, hidden @ weight_hh.T))
        a_i, a_f, a_g, a_o = (also(f"a{k}", t, part) for k, part in enumerate(pre.chunk(4, -1)))
        i, f = watch("i", t, torch.sigmoid(a_i)), watch("f", t, torch.sigmoid(a_f))
        g, o = watch("g", t, torch.tanh(a_g)), watch("o", t, torch.sigmoid(a_o))
        kept, written = watch("f c", t, f * cell), watch("i g", t, i * g)
        cell = watch("c", t, kept + written)
        shown = watch("tanh c", t, torch.tanh(cell))
        hidden = watch("h", t, o * shown)
        outputs.append(hidden)
    stacked = watch("outputs", 0, torch.stack(outputs))
    (stacked * stacked).sum().backward()
    weight_ih.grad = weight_hh.grad = bias.grad = None
    return dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True)) if tuned else norms


def everything() -> dict[tuple[str, int], float]:
    return theirs(every=True)


def tuned() -> dict[tuple[str, int], float]:
    return theirs(tuned=True)


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
    times: dict[Callable[[], Any], list[float]] = {ours: [], theirs: [], everything: [], tuned: []}
    for _ in range(rounds):
        for run in times:
            gc.collect()
            times[run].append(timed(run))
    mine, by_hand, by_all, by_expert = (1e3 * statistics.median(times[run]) for run in times)
    print(f"ours {mine:.2f} ms, torch {by_hand:.2f} ms, ratio {mine / by_hand:.2f} (limit {LIMIT})")
    print(f"torch, every tensor hooked {by_all:.2f} ms, ratio {mine / by_all:.2f}")
    print(f"torch, tuned {by_expert:.2f} ms, ratio {mine / by_expert:.2f}")
    return int(mine / by_hand > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
