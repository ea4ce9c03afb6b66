"""Timescales: for how long each unit remembers by its gates, and which gates and units are saturated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..linear_maps import Scale
from ..report import Result, Table, aligned, number
from ..steps import NodeInfo
from ..tensor import Tensor
from ..trace import StateAt, States, Trace
from .edges import crosses
from .given import traced
from .product import vanishing_product

LEFT, RIGHT, FLAT = 0.1, 0.9, 0.9
"""A sigmoid gate below LEFT is left-saturated, above RIGHT right-saturated; a tanh beyond ±FLAT is saturated."""

CHOICE = "select"
"""The operation by which a padded batch keeps the states of sequences that have ended."""

_MEMORY = ("forget", "update")


@dataclass(frozen=True, eq=False)
class Timescales(Result):
    """How long units remember, and how saturated gates are. Arrays have one entry per unit, H of them.

    Means and fractions are over all steps and sequences; padded steps do not count.

    Attributes:
        layer: the recurrence's path; ``steps`` of it were traced.
        gate: the gate that a unit's memory is multiplied by, "forget" (LSTM) or "update" (GRU); None if there is none (RNN): then ``mean``,
            ``timescale`` and ``half_life`` are empty.
        mean: f̄, the mean of that gate.
        timescale: −1/ln f̄, the steps in which the direct memory of a unit falls to 1/e; inf for f̄ = 1, 0 for f̄ = 0, NaN for a NaN.
        half_life: the steps in which it halves, ln 2 times that.
        flow_timescale, flow_half_life: the same of the *total* state cotangent, from its mean rate; inf where it does not shrink.
        left, right: for each sigmoid gate by name, the fraction in which it is below 0.1, and above 0.9, per unit. Plotted one against the
            other they are the figure of Karpathy, Johnson & Fei-Fei: a unit at the right is a gate that is always open.
        flat: for each tanh by name, the fraction in which it is beyond ±0.9, per unit: "hidden" (RNN), "candidate", "tanh(cell)".
        slope: for each tanh the mean of its derivative 1 − tanh², per unit: 1 is linear, 0 saturated.
    """

    layer: str
    steps: int
    gate: str | None
    mean: Any
    timescale: Any
    half_life: Any
    flow_timescale: float
    flow_half_life: float
    left: dict[str, Any]
    right: dict[str, Any]
    flat: dict[str, Any]
    slope: dict[str, Any]

    @property
    def exists(self) -> bool:
        """Whether there is a gate that the memory is multiplied by."""
        return self.gate is not None

    def table(self) -> Table:
        """The spread over the units: smallest, quartiles and largest of each quantity."""
        rows = []
        if self.exists:
            rows += [_spread(f"{self.gate} gate, mean", self.mean), _spread("timescale −1/ln f̄", self.timescale)]
            rows += [_spread("half-life", self.half_life)]
        for name in self.left:
            rows += [_spread(f"{name}: share < 0.1", self.left[name]), _spread(f"{name}: share > 0.9", self.right[name])]
        for name in self.flat:
            rows += [_spread(f"{name}: share beyond ±0.9", self.flat[name]), _spread(f"{name}: mean slope", self.slope[name])]
        columns = ("over the units", "min", "25 %", "median", "75 %", "max")
        memory = (
            f"memory through the {self.gate} gate"
            if self.exists
            else "no gate multiplies its memory, so units have no timescale of their own"
        )
        total = f"total flow: half-life {number(self.flow_half_life)} steps"
        return aligned(columns, rows, f"{self.layer}: {memory}", f"timescales in steps; {total}")


def _spread(name: str, values: Any) -> tuple[str, ...]:
    with np.errstate(invalid="ignore"):  # between two infinities
        found = np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0))
    # where quantile has computed ∞ − ∞, both neighbours are infinite
    return name, *(number(math.inf if math.isnan(value) and not np.isnan(values).any() else float(value)) for value in found)


def timescales(trace: Trace | Tensor, layer: Any = None) -> Timescales:
    """For how long each unit remembers by its gates, and how saturated gates and units are.

        timescale = −1 / ln f̄,   half-life = ln 2 · timescale,   f̄ the mean of the unit's forget gate (LSTM) or update gate z (GRU)

    A gate that stays at f̄ multiplies a memory k steps old by f̄ᵏ. Gates that vary forget faster than their mean says, since the product of
    numbers is at most that of their mean.

    Args:
        trace: from ``tg.trace`` with keep="arrays", or a loss, which is traced.
        layer: the recurrence's path or module; None if there is only one.

    Raises:
        ArgumentError: if the trace kept no arrays, or no such recurrence was traced.

    Source:
        Karpathy, Johnson & Fei-Fei 2015, "Visualizing and understanding recurrent networks", section 4.2 and figure 3; Tallec & Ollivier
        2018 (timescales from gates).

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, forget_bias=4.0, rng=0)(np.zeros((20, 1, 2)))
        >>> found = flow.timescales(tg.trace(outputs[-1].sum()))
        >>> found.gate, found.half_life.round(), found.right["forget"]
        ('forget', array([34., 47., 41.]), array([1., 1., 1.]))
    """
    trace = traced("timescales", trace, arrays=True)
    states = trace.states(layer)
    sigmoids, tanhs = _values(states, _active(trace, states))
    gate = next((name for name in _MEMORY if name in sigmoids), None)
    mean = np.zeros(0) if gate is None else _mean(sigmoids[gate])
    with np.errstate(divide="ignore"):
        timescale = np.where(mean >= 1.0, math.inf, -1.0 / np.log(mean))
    reached = any(at.norm != 0 for at in states)
    rate = vanishing_product(trace, layer).rate if reached else math.nan
    flow_timescale = -1.0 / (rate * math.log(10.0)) if rate < 0 else math.nan if math.isnan(rate) else math.inf
    return Timescales(
        layer=states.path,
        steps=len(states),
        gate=gate,
        mean=mean,
        timescale=timescale,
        half_life=math.log(2.0) * timescale,
        flow_timescale=flow_timescale,
        flow_half_life=math.log(2.0) * flow_timescale,
        left={name: _share(v < LEFT, v) for name, v in sigmoids.items()},
        right={name: _share(v > RIGHT, v) for name, v in sigmoids.items()},
        flat={name: _share(np.abs(v) > FLAT, v) for name, v in tanhs.items()},
        slope={name: _mean(1.0 - v * v) for name, v in tanhs.items()},
    )


def _mean(values: Any) -> Any:
    """The mean per unit; NaN where there is no sequence."""
    return values.mean(axis=0) if len(values) else np.full(values.shape[1:], math.nan)


def _share(counts: Any, values: Any) -> Any:
    """The fraction per unit of what counts; NaN where a value is."""
    return np.where(np.isnan(values).any(axis=0), math.nan, _mean(counts))


def _values(states: States, active: dict[int, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of every gate and of every tanh by name: a row for each step and sequence that counts, a column for each unit."""
    rows: tuple[dict[str, list[Any]], dict[str, list[Any]]] = {}, {}

    def add(kind: int, name: str, at: StateAt, value: Any) -> None:
        value = value.reshape(-1, value.shape[-1])
        rows[kind].setdefault(name, []).append(value[active[at.time]] if at.time in active else value)

    for at in states:
        for name, gate in sorted(at.gates.items(), key=lambda item: item[1].node.order):
            add(int(gate.node.op == "tanh"), name, at, gate.value)
        if at.cell is not None and at.gates:
            add(1, "tanh(cell)", at, np.tanh(at.cell.value))
        if at.cell is None and at.hidden is not None and "tanh" in _made_by(at.hidden.node):
            add(1, "hidden", at, at.hidden.value)
    sigmoids, tanhs = ({name: np.concatenate(values) for name, values in kind.items()} for kind in rows)
    return sigmoids, tanhs


def _made_by(info: NodeInfo) -> tuple[str, ...]:
    """The operation that made a state; looking through the choice between it and the state before, where a batch is padded."""
    return (info.op, *(operand.op for operand in info.operands)) if info.op == CHOICE else (info.op,)


def _active(trace: Trace, states: States) -> dict[int, Any]:
    """For the steps of a padded batch: which sequences have not ended."""
    landmarks = {part.node.order: at.time for at in states for part in at.parts if part.node.op == CHOICE}
    found = {}
    for step in trace.steps if landmarks else ():
        if step.node.order in landmarks and isinstance(step.map, Scale):
            fresh = np.asarray(step.map.factor, dtype=bool)
            found[landmarks[step.node.order]] = (~fresh if crosses(step) else fresh).any(axis=-1).reshape(-1)
    return found
