"""State cotangents handed back from step to step, rescaled as they go, and apart by the way they take.

A ledger's arrays hold nothing below 1e-308 or above 1e+308 (float32: 1e-38, 1e+38). Its maps do not depend on how large the cotangent is,
so where an array has left that range, what the step before hands on is followed instead, at a length of 1, with its logarithm beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..report import Result, Table, aligned, number
from ..steps import BackwardStep, quiet_norm
from ..trace import StateAt, States, Trace
from .logs import log10, trusted_range
from .stacks import Slab, Stack, between, carry, pull

DIRECT = "direct"
"""What comes back through no gate's pre-activation: the highway."""


@dataclass(frozen=True, eq=False)
class EdgeGains(Result):
    """One multiplication of a step, over all steps.

    Attributes:
        label, to, op, kind: as at the last step, ``to`` being what the contribution goes to; there are ``count`` of them.
        log10_gain: the mean log₁₀ of ‖contribution‖ / ‖cotangent‖ over the steps where both are known.
        source: file and line that recorded it; None where it was not recorded (see ``tg.record_sources``).
    """

    label: str
    to: str
    op: str
    kind: str
    count: int
    log10_gain: float
    source: str | None

    def table(self) -> Table:
        """One row."""
        return aligned(("edge", "to", "kind", "gain"), [(self.label, self.to, self.kind, number(10.0**self.log10_gain))])


@dataclass
class Relayed:
    """What the steps of a recurrence hand back, from the last one with a gradient on; entry 0 of each is the start.

    Attributes:
        log10_norm: log₁₀ ‖δ‖, also of what no float can hold; NaN from the first step on whose cotangent is not finite by itself.
        log10_cell: log₁₀ of the norm of a cell state's total cotangent, NaN where there is no cell.
        trusted: where the ledger's own numbers have all their digits.
        parts: for each way, ‖what step k hands back on it‖ / ‖δ before the step‖.
        saturation, weight: the factors of an RNN's step where the ledger's own cannot be trusted, NaN elsewhere.
        handed: ‖all that step k hands back‖ / ‖δ before the step‖.
        several: whether anything but the step after arrives at a state before the last.
        edges: the multiplications on the way, those that lose most first.
    """

    log10_norm: Any
    log10_cell: Any
    trusted: Any
    parts: dict[str, Any]
    saturation: Any
    weight: Any
    handed: Any
    several: bool = False
    edges: tuple[EdgeGains, ...] = ()


def relay(trace: Trace, states: States, time: Any, norms: Any) -> Relayed:
    """Follow the state cotangents of one recurrence back through the maps that a trace kept.

    Args:
        time, norms: its steps from the last one with a gradient on, in the order of the walk, and ‖δ‖ there as the trace has it.
    """
    with np.errstate(all="ignore"):
        return _relayed(trace, states, time, norms)


def _relayed(trace: Trace, states: States, time: Any, norms: Any) -> Relayed:
    by_time: dict[int | None, list[BackwardStep]] = {}
    for step in trace.steps:
        by_time.setdefault(step.time, []).append(step)
    count = len(time)
    nothing = np.full(count, np.nan)
    found = Relayed(np.full(count, -math.inf), nothing.copy(), np.zeros(count, bool), {}, nothing.copy(), nothing.copy(), nothing.copy())
    gains: dict[tuple[str, str, str], list[tuple[BackwardStep, float]]] = {}
    flowing: dict[str, Any] = {}
    for k in range(count):
        here = states[int(time[k])]
        found.trusted[k] = reliable(here, norms[k])
        fits = not found.log10_norm[k] > math.log10(trusted_range(here.parts[0].node.dtype)[1])
        if not math.isfinite(norms[k]) and (k == 0 or (found.trusted[k - 1] and fits)):
            found.log10_norm[k:] = math.nan  # it has not grown out of range: it was never finite
            break
        if found.trusted[k] or (k == 0 and norms[k] > 0):
            flowing = {role: np.asarray(part, np.float64) / norms[k] for role, part in _carried(here)}
            found.log10_norm[k] = log10(norms[k])
        if not flowing:
            found.several |= k + 1 < count and bool(norms[k + 1] > 0)
            continue
        if k + 1 == count:
            found.log10_cell[k] = found.log10_norm[k] + log10(_on_cell(by_time.get(here.time, []), here, flowing))
            continue
        past = states[int(time[k + 1])]
        path = _way(by_time.get(here.time, []), here, past)
        arrived, ways, on_cell = _hand_back(path, here, past, flowing)
        found.log10_cell[k] = found.log10_norm[k] + log10(on_cell)
        for way, number_of_bin in ways.items():
            share = _length(slab.bin(number_of_bin) for slab in arrived.values())
            found.parts.setdefault(way, np.zeros(count))[k + 1] = share
        before, flowing = flowing, {role: slab.values.sum(0) for role, slab in arrived.items()}
        length = found.handed[k + 1] = _length(flowing.values())
        if reliable(past, norms[k + 1]):
            scale = 10.0 ** (found.log10_norm[k] - log10(norms[k + 1]))
            left = {role: np.asarray(part, np.float64) / norms[k + 1] for role, part in _carried(past)}
            rest = [left.get(role, 0.0) - scale * flowing.get(role, 0.0) for role in {**left, **flowing}]
            found.several |= _length(rest) > (accuracy(past) if found.trusted[k] else 0.5)
        multiplying = [step for step in path if step.kind in ("scale", "matmul")]
        if not found.trusted[k] and [step.kind for step in multiplying] == ["scale", "matmul"]:
            assert multiplying[0].map is not None
            found.saturation[k + 1] = _length([multiplying[0].map.pullback(before["hidden"])])
            found.weight[k + 1] = np.divide(length, found.saturation[k + 1])
        for step in multiplying if found.trusted[k] else ():
            gain = step.gain
            if 0 < gain < math.inf:
                gains.setdefault((step.op, step.kind, step.template), []).append((step, math.log10(gain)))
        if not math.isfinite(length):
            found.log10_norm[k + 1 :] = math.nan
            break
        flowing = {role: part / length for role, part in flowing.items()} if length > 0 else {}
        found.log10_norm[k + 1] = found.log10_norm[k] + (math.log10(length) if length > 0 else -math.inf)
    found.edges = _ranked(gains)
    return found


def reliable(at: StateAt, norm: float) -> bool:
    """Whether a norm ‖δ‖ that the ledger has is neither so small nor so large that digits are lost."""
    smallest, largest = trusted_range(at.parts[0].node.dtype)
    return smallest < norm < largest


def accuracy(at: StateAt) -> float:
    """The relative difference up to which two ways to compute a state's cotangent agree."""
    return max(1e-9, 1e3 * float(np.finfo(at.parts[0].node.dtype).eps))


def _carried(at: StateAt) -> list[tuple[str, Any]]:
    return [(role, part.carried) for role in ("hidden", "cell") if (part := getattr(at, role)) is not None and part.carried is not None]


def _orders(at: StateAt) -> dict[str, int]:
    return {role: part.node.order for role in ("hidden", "cell") if (part := getattr(at, role)) is not None}


def _way(steps: list[BackwardStep], here: StateAt, past: StateAt) -> list[BackwardStep]:
    return between(steps, list(_orders(here).values()), list(_orders(past).values()))


def _hand_back(
    path: list[BackwardStep], here: StateAt, past: StateAt, flowing: dict[str, Any]
) -> tuple[dict[str, Slab], dict[str, int], float]:
    """What arrives at the state before, by part of the state, one bin per way; the ways' bins; the norm of all that came to the cell.

    A way is the gate whose pre-activation is passed last.
    """
    ways: dict[str, int] = {}
    orders = _orders(here)
    stacks = {orders[role]: Stack(part.shape, {None: Slab(0, part[None])}) for role, part in flowing.items()}
    for step in path:
        stack = stacks.get(step.node.order)
        if stack is None or not stack.parts:
            continue
        if step.operand.role == "gate" and step.operand.gate is not None:
            number_of_bin = ways.setdefault(step.operand.gate, len(ways) + 1)
            stack = Stack(stack.shape, {None: Slab(number_of_bin, stack.whole().values.sum(0, keepdims=True))})
        assert step.map is not None
        pull(step.map, stack, stacks.setdefault(step.operand.order, Stack(step.operand.shape)))
    arrived = {role: stacks[order].whole() for role, order in _orders(past).items() if order in stacks and stacks[order].parts}
    cell = stacks.get(orders.get("cell", 0))
    return arrived, ({DIRECT: 0, **ways} if ways else {}), quiet_norm(cell.whole().values.sum(0)) if cell is not None else math.nan


def _on_cell(steps: list[BackwardStep], here: StateAt, flowing: dict[str, Any]) -> float:
    """The norm of all that comes to the cell of a state, from outside its step and from the hidden state beside it."""
    orders = _orders(here)
    if "cell" not in orders:
        return math.nan
    seeds = {orders[role]: Stack(part.shape, {None: Slab(0, part[None])}) for role, part in flowing.items() if role != "cell"}
    arrived = carry(steps, seeds, [orders["cell"]]).get(orders["cell"])
    total = flowing.get("cell", 0.0) + (0.0 if arrived is None else arrived.array(1)[0])
    return quiet_norm(np.asarray(total))


def _length(arrays: Any) -> float:
    return math.hypot(*(quiet_norm(array) for array in arrays))


def _ranked(gains: dict[tuple[str, str, str], list[tuple[BackwardStep, float]]]) -> tuple[EdgeGains, ...]:
    rows = []
    for found in gains.values():
        step = found[0][0]
        rows.append(
            EdgeGains(
                step.label, step.operand.symbol, step.op, step.kind, len(found), float(np.mean([gain for _, gain in found])), step.source
            )
        )
    return tuple(sorted(rows, key=lambda row: row.log10_gain))
