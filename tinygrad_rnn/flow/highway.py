"""The highway: the way from a state to the one before it on which no matrix stands, found in the graph by the kinds of its edges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Table, aligned, number, power_of_ten
from ..steps import BackwardStep
from ..tensor import Tensor
from ..trace import States, Trace
from .given import traced
from .logs import log10, log10_norm
from .product import half_life, selected_lags, verdict
from .relay import relay, reliable
from .stacks import between

Steps = dict[int, tuple[BackwardStep, ...]]


@dataclass(frozen=True, eq=False)
class Highway(Result):
    """The direct, matmul-free part of the gradient of one recurrence, beside the total.

    "Additive" means that no matrix and no tanh stand on the highway; it still multiplies by a gate at every step. The *total* Jacobian
    also flows through h_{t−1} into the gates: direct and total are different numbers.

    Arrays have one entry per lag k = 0 … K from the last step T that has a gradient; entry 0 of ``factor`` is NaN. In a recurrence that
    read the sequence from its end, its last step is 1: there lag k is step 1 + k.

    Attributes:
        layer: the recurrence's path; ``steps`` of it were traced.
        role: which state has the highway: "cell" (LSTM), "hidden" (GRU), or None (RNN: there is none, and the arrays are empty).
        labels: the multiplications on it in one step, such as ("+", "⊙ f₃").
        lag, time: k, and the step T − k.
        factor: what step T − k + 1 multiplies by, for each sequence and unit, of shape (K + 1, …, H).
        log10_direct: log₁₀ ‖∏ factor ⊙ γ_T‖ / ‖γ_T‖, with γ the total cotangent of the state that has the highway.
        log10_total: log₁₀ ‖γ_{T−k}‖ / ‖γ_T‖.
        rate: the mean log₁₀ of the direct part per step; ``half_life`` in steps (inf if it does not shrink).
    """

    layer: str
    steps: int
    role: str | None
    labels: tuple[str, ...]
    lag: Any
    time: Any
    factor: Any
    log10_direct: Any
    log10_total: Any
    rate: float
    half_life: float

    @property
    def exists(self) -> bool:
        """Whether there is a matmul-free path from state to state."""
        return self.role is not None

    def table(self) -> Table:
        """Selected lags: the mean factor, the direct product, and the total beside it."""
        if not self.exists:
            why = "every way from a state to the one before it passes a matrix" if self.steps > 1 else "one step only: there is no way back"
            return aligned(("lag",), [], f"{self.layer}: no highway", why)
        rows = [
            (k, self.time[k], number(float(np.mean(self.factor[k]))), power_of_ten(self.log10_direct[k]), power_of_ten(self.log10_total[k]))
            for k in selected_lags(len(self.lag) - 1)
        ]
        title = f"{self.layer}: highway through {self.role}, {verdict(self.rate) if len(self.lag) > 1 else 'one step only'}"
        return aligned(("lag", "step", "mean factor", "direct ∏", "total"), rows, title, " then ".join(self.labels))


def highway_steps(trace: Trace | Tensor, layer: Any = None) -> Steps:
    """The backward steps of the matmul-free state-to-state path, by time; empty if there is none.

    Found by structure alone, so a trace with keep="norms" is enough.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.GRU(2, 3, rng=0)(np.ones((4, 1, 2)))
        >>> [step.label for step in flow.highway_steps(tg.trace(outputs[-1].sum()))[4]]
        ['+', '⊙ z₄']
    """
    trace = traced("highway_steps", trace)
    return _found(trace, trace.states(layer))[1]


def _found(trace: Trace, states: States) -> tuple[str | None, Steps]:
    """The state that has a highway, and its steps."""
    by_time: dict[int | None, list[BackwardStep]] = {}
    for step in trace.steps:
        if step.kind != "matmul":
            by_time.setdefault(step.time, []).append(step)
    for role in ("cell", "hidden"):
        found: Steps = {}
        for past, here in pairwise(states):
            start, end = getattr(here, role), getattr(past, role)
            if start is not None and end is not None:
                path = between(by_time.get(here.time, []), [start.node.order], [end.node.order])
                if path:
                    found[here.time] = tuple(path)
        if found:
            return role, found
    return None, {}


def highway(trace: Trace | Tensor, layer: Any = None) -> Highway:
    """Factor per step and unit of the matmul-free path, and its product per lag beside the total.

    Args:
        trace: from ``tg.trace`` with keep="arrays", or a loss, which is traced. (Norms are enough for :func:`highway_steps`.)
        layer: the recurrence's path or module; None if there is only one.

    Raises:
        ArgumentError: if the trace kept no arrays, or no such recurrence was traced.

    Source:
        Hochreiter & Schmidhuber 1997 (the constant error carousel), Gers, Schmidhuber & Cummins 2000 (its forget gate).

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((20, 1, 2)))
        >>> found = flow.highway(tg.trace(outputs[-1].sum()))
        >>> found.role, found.labels
        ('cell', ('+', '⊙ f₂₀'))
    """
    trace = traced("highway", trace, arrays=True)
    states = trace.states(layer)
    role, steps = _found(trace, states)
    if role is None:
        nothing = np.zeros(0)
        return Highway(states.path, len(states), None, (), nothing, nothing, nothing, nothing, nothing, math.nan, math.nan)
    landmarks = {at.time: getattr(at, role) for at in states}
    ran = states.times
    place = max((k for k, time in enumerate(ran) if landmarks[time] is not None and landmarks[time].norm != 0), default=None)
    if place is None:
        raise ArgumentError(f"highway: no gradient reached any {role} state of {states.path!r}; trace a loss that depends on it")
    last = ran[place]
    times = [last]
    while times[-1] in steps:
        place -= 1
        times.append(ran[place])
    factors = [np.full(landmarks[last].value.shape, np.nan)]
    factors += [_factor(steps[t], landmarks[t], landmarks[past]) for t, past in pairwise(times)]
    signal = log10(np.abs(landmarks[last].cotangent))
    start = log10_norm(signal)
    direct = [0.0]
    for factor in factors[1:]:
        signal = signal + log10(np.abs(factor))
        direct.append(log10_norm(signal) - start)
    total = _total(trace, states, role, times)
    rate = direct[-1] / (len(direct) - 1) if len(direct) > 1 else math.nan
    return Highway(
        layer=states.path,
        steps=len(states),
        role=role,
        labels=tuple(step.label for step in steps[last]) if last in steps else (),
        lag=np.arange(len(times)),
        time=np.array(times),
        factor=np.stack(factors),
        log10_direct=np.array(direct),
        log10_total=total - total[0],
        rate=rate,
        half_life=half_life(rate),
    )


def _total(trace: Trace, states: States, role: str, times: list[int]) -> Any:
    """log₁₀ of the norm of the state's total cotangent, also where it has left the range of the ledger's floats."""
    norms = np.array([getattr(states[t], role).norm for t in times])
    kept = np.array([reliable(states[t], norm) for t, norm in zip(times, norms, strict=True)])
    if kept.all():
        return log10(norms)
    relayed = relay(trace, states, np.array(times), np.array([states[t].norm for t in times]))
    followed = relayed.log10_cell if role == "cell" else relayed.log10_norm
    return np.where(kept | (np.isnan(followed) & np.isfinite(norms)), log10(norms), followed)


def _factor(steps: tuple[BackwardStep, ...], here: Any, past: Any) -> Any:
    """The Jacobian's diagonal of the direct path: ones, pulled back through its maps alone."""
    flowing = {here.node.order: np.ones_like(here.value)}
    for step in steps:
        assert step.map is not None
        share = step.map.pullback(flowing[step.node.order])
        held = flowing.get(step.operand.order)
        flowing[step.operand.order] = share if held is None else held + share
    return flowing[past.node.order]
