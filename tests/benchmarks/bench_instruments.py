"""The instruments against PyTorch for the same answers, side by side in one process.

Each section is a function that yields cases: a name, our way, PyTorch's ways, and what makes their answers comparable. All ways of a
case take turns of three runs each, of which the best counts, and the medians of the turns are compared. PyTorch has one thread, and its
fastest way is the one that the limit is for. A case without a limit is there for information: what it costs to get to where the
instrument begins. Run it with ``python tests/benchmarks/bench_instruments.py [section …]``.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn

STEPS, INPUT, HIDDEN = 100, 32, 64
LIMIT = 0.5

torch.set_num_threads(1)


class Case(NamedTuple):
    """One comparison: every way is a function without arguments, and ``answer`` makes a list of arrays of what it returns."""

    name: str
    ours: Callable[[], Any]
    theirs: dict[str, Callable[[], Any]]
    answer: Callable[[Any], list[Any]]
    limit: float | None = LIMIT


# -- step Jacobians ---------------------------------------------------------------------------------------------------------------


def torch_rnn(x: Any, state: Any, weight_ih: Any, weight_hh: Any, bias: Any) -> Any:
    return torch.tanh(x @ weight_ih.T + state @ weight_hh.T + bias)


def torch_lstm(x: Any, state: Any, weight_ih: Any, weight_hh: Any, bias: Any) -> Any:
    hidden, cell = state.chunk(2, -1)
    i, f, g, o = (x @ weight_ih.T + hidden @ weight_hh.T + bias).chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat([torch.sigmoid(o) * torch.tanh(cell), cell], -1)


def jacobians() -> Iterator[Case]:
    """∂s_t/∂s_{t−1} for all steps but the first, batch 1, float64: ours reads a trace, PyTorch's is given the states."""
    for make, cell, width in ((nn.RNN, torch_rnn, HIDDEN), (nn.LSTM, torch_lstm, 2 * HIDDEN)):
        yield from jacobians_of(make, cell, width)


def jacobians_of(make: Any, cell: Any, width: int) -> Iterator[Case]:
    layer = make(INPUT, HIDDEN, rng=0)
    sequence = np.random.default_rng(1).standard_normal((STEPS, 1, INPUT))
    weights = [torch.tensor(p.numpy()) for p in (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_l0)]
    fed = torch.tensor(sequence[:, 0])

    def traced() -> tg.Trace:
        outputs, _ = layer(sequence)
        return tg.trace(outputs[-1].sum())

    def states() -> Any:
        with torch.no_grad():
            state, passed = torch.zeros(width, dtype=torch.float64), []
            for x in fed:
                passed.append(state)
                state = cell(x, state, *weights)
        return torch.stack(passed)

    one = torch.func.jacrev(lambda x, state: cell(x, state, *weights), argnums=1)

    def one_by_one(passed: Any) -> Any:
        return torch.stack([one(x, state) for x, state in zip(fed[1:], passed[1:], strict=True)])

    def together(passed: Any) -> Any:
        return torch.func.vmap(one)(fed[1:], passed[1:])

    ledger, passed = traced(), states()
    ledger.states()
    answer = lambda found: [np.asarray(getattr(found, "jacobian", found)).reshape(STEPS - 1, width, width)]  # noqa: E731
    theirs = {"jacrev": lambda: one_by_one(passed), "vmap of jacrev": lambda: together(passed)}
    yield Case(f"step Jacobians, {make.__name__}", lambda: flow.step_jacobians(ledger), theirs, answer)
    theirs = {"jacrev": lambda: one_by_one(states()), "vmap of jacrev": lambda: together(states())}
    yield Case(f"step Jacobians, {make.__name__}, from the sequence on", lambda: flow.step_jacobians(traced()), theirs, answer, None)


# -- state cotangents -------------------------------------------------------------------------------------------------------------


def cotangents() -> Iterator[Case]:
    """‖δ_t‖ for all t, batch 8, float64, from the sequence on: ours by a monitor, PyTorch's by a hook on every state of a cell loop."""
    for make, cell in ((nn.RNN, torch_rnn), (nn.LSTM, torch_lstm)):
        yield cotangents_of(make, cell)


def cotangents_of(make: Any, cell: Any) -> Case:
    layer = make(INPUT, HIDDEN, rng=0)
    sequence = np.random.default_rng(1).standard_normal((STEPS, 8, INPUT))
    weights = [torch.tensor(p.numpy(), requires_grad=True) for p in (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_l0)]
    fed = torch.tensor(sequence)
    width = HIDDEN if make is nn.RNN else 2 * HIDDEN

    def ours() -> Any:
        with flow.monitor(layer) as watching:
            outputs, _ = layer(sequence)
            outputs[-1].sum().backward()
        layer.zero_grad()
        return watching.rows[-1].norm[:STEPS]

    def hooked() -> Any:
        state, norms = torch.zeros(8, width, dtype=torch.float64), [0.0] * STEPS
        for t in range(STEPS):
            state = cell(fed[t], state, *weights)
            state.register_hook(lambda gradient, t=t: norms.__setitem__(t, gradient.norm().item()))
        state[:, :HIDDEN].sum().backward()
        for weight in weights:
            weight.grad = None
        return norms[::-1]

    return Case(f"state cotangents, {make.__name__}", ours, {"hooks": hooked}, lambda norms: [np.asarray(norms)])


# -- a long sequence --------------------------------------------------------------------------------------------------------------


def long(rounds: int) -> bool:
    """Ledger, product and highway of an LSTM, batch 1, hidden 64: under a second for 1,000 steps. No other tool gives these answers."""
    layer, kept = nn.LSTM(INPUT, HIDDEN, rng=0), True
    for steps, limit in ((500, None), (1000, 1.0), (2000, None)):
        outputs, _ = layer(np.random.default_rng(1).standard_normal((steps, 1, INPUT)))
        loss, took = outputs[-1].sum(), []
        for _ in range(rounds):
            marks = [time.perf_counter()]
            ledger = tg.trace(loss)
            for run in (flow.vanishing_product, flow.highway):
                marks.append(time.perf_counter())
                run(ledger)
            took.append(np.diff([*marks, time.perf_counter()]))
        parts = np.median(took, axis=0)
        said = ", ".join(f"{name} {part:.2f} s" for name, part in zip(("ledger", "product", "highway"), parts, strict=True))
        print(f"{steps} steps: {said}; together {parts.sum():.2f} s" + ("" if limit is None else f" (limit {limit:g} s)"))
        kept &= limit is None or parts.sum() <= limit
    return kept


# -- all of them ------------------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[], Iterator[Case]]] = {"jacobians": jacobians, "cotangents": cotangents}


def timed(run: Callable[[], Any]) -> float:
    """Without the garbage collector, as timeit does it: it would go through the million objects of everything that PyTorch has loaded."""
    gc.disable()
    start = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - start
    gc.enable()
    del result  # freeing what was asked for is not part of it
    return elapsed


def compare(case: Case, rounds: int) -> bool:
    """Print the medians of all ways; whether ours keeps to the limit."""
    expected = case.answer(case.ours())
    for name, run in case.theirs.items():
        for here, there in zip(expected, case.answer(run()), strict=True):
            if not np.allclose(here, there, rtol=1e-9, atol=1e-12):
                print(f"{case.name}: ours and torch's {name} disagree")
                return False
    times: dict[str, list[float]] = {"ours": [], **{name: [] for name in case.theirs}}
    for _ in range(rounds):
        gc.collect()
        for name, run in {"ours": case.ours, **case.theirs}.items():
            times[name].append(min(timed(run) for _ in range(3)))
    medians = {name: 1e3 * statistics.median(several) for name, several in times.items()}
    ratio = medians["ours"] / min(medians[name] for name in case.theirs)
    print(
        f"{case.name}: "
        + ", ".join(f"{name} {took:.2f} ms" for name, took in medians.items())
        + f"; ratio {ratio:.2f}{'' if case.limit is None else f' (limit {case.limit})'}"
    )
    return case.limit is None or ratio <= case.limit


def main(*sections: str, rounds: int = 15) -> int:
    chosen = sections or (*SECTIONS, "long")
    kept = [compare(case, rounds) for name in chosen if name != "long" for case in SECTIONS[name]()]
    if "long" in chosen:
        kept.append(long(rounds // 3))
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
