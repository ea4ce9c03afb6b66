"""State cotangents handed back from step to step, rescaled as they go, apart by the way they take and by the edges they pass.

A ledger's arrays hold nothing below 1e-308 or above 1e+308 (float32: 1e-38, 1e+38). Its maps do not depend on how large the cotangent is,
so where an array has left that range, what the step before hands on is followed instead, at a length of 1, with its logarithm beside it.
Only that waits for the step before: all else is done at once for steps that are alike, as one more axis of the arrays.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..linear_maps import LinearMap, MatMul
from ..report import Result, Table, aligned, number, power_of_ten
from ..steps import BackwardStep, norms_of, quiet_norm
from ..trace import StateAt, States, Trace
from .logs import log10, trusted_range
from .stacks import Slab, Stack, carry, pull
from .stretches import ROLES, Stretch, alike, joined, stretches

DIRECT = "direct"
"""What comes back through no gate's pre-activation: the highway."""

_ENTRIES = 1 << 18  # how many numbers of one value are worked on at a time


@dataclass(frozen=True, eq=False)
class EdgeGains(Result):
    """One multiplication on the way from a state to the one before it, over all steps.

    With c what passes the edge on its way from δ, the cotangent of a state, and δ′ what the step hands back in all,

        gain = ‖contribution‖ / ‖cotangent‖,   share = ⟨what of c arrives at the state before, δ′⟩ / ‖δ′‖²

    The share is the part of δ′ that has passed this edge: 1 for every edge of an RNN, where one stands behind the other; between the ways
    of an LSTM or GRU it is divided, and it is negative where a way works against the others. It is also the derivative of log ‖δ′‖ with
    respect to the logarithm of the edge's factor. So share · log₁₀ gain says, to first order, how much the edge takes from log₁₀ ‖δ′‖: an
    edge of small gain that hardly anything passes loses little. In an RNN these add up to the log₁₀ of the step's gain, exactly.

    Attributes:
        label, to, gate, op, kind: as at the last step, ``to`` being what the contribution goes to; there are ``count`` of them.
        log10_gain: the mean log₁₀ gain over the steps where it is known and not 0; −inf if it is 0 at all.
        share: the mean share.
        log10_effect: the mean of share · log₁₀ gain; negative where the edge loses. Where nothing is handed back, an edge of gain 0 has all
            of the effect, −inf.
        time, log10_gain_then: the step at which it loses most, and its log₁₀ gain there.
        source: file and line that recorded it; None where it was not recorded (see ``tg.record_sources``).
    """

    label: str
    to: str
    gate: str | None
    op: str
    kind: str
    count: int
    log10_gain: float
    share: float
    log10_effect: float
    time: int
    log10_gain_then: float
    source: str | None

    @property
    def place(self) -> str | None:
        """File and line, the file as seen from the folder that holds this package, or from the working directory."""
        if self.source is None:
            return None
        for folder in (_HOME, os.getcwd()):
            if self.source.startswith(folder + os.sep):
                return self.source[len(folder) + 1 :]
        return self.source

    def table(self) -> Table:
        """One row."""
        return edges_table((self,))


_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def edges_table(edges: Sequence[EdgeGains], title: str = "", caption: str = "") -> Table:
    """One row per edge: what it does to what passes it, how much passes it, and where it was recorded."""
    columns = ("edge", "to", "gate", "gain", "share", "effect", "worst step", "gain there", "recorded at")
    rows = [
        (e.label, e.to, e.gate or "–", power_of_ten(e.log10_gain), f"{100 * e.share:.3g} %", number(e.log10_effect), e.time,
         power_of_ten(e.log10_gain_then), e.place or "–")
        for e in edges
    ]  # fmt: skip
    return aligned(columns, rows, title, caption)


def edges_in_words(what: str, edges: Sequence[EdgeGains]) -> Iterator[str]:
    """A line for each edge: "most is lost at ⊙ f₉, gain 0.7 (…)", "then at …"."""
    for position, edge in enumerate(edges):
        gate = f" ({edge.gate} gate)" if edge.gate else ""
        gain = f"gain {power_of_ten(edge.log10_gain)}, {power_of_ten(edge.log10_gain_then)} at step {edge.time}"
        passed = f"{100 * edge.share:.0f} % of what is handed back passed it"
        yield f"{'then' if position else what} at {edge.label}{gate}: {gain}; {passed}" + (f"; {edge.place}" if edge.place else "")


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
    saturation: Any
    weight: Any
    handed: Any
    parts: dict[str, Any] = field(default_factory=dict)
    several: bool = False
    edges: tuple[EdgeGains, ...] = ()


def relay(trace: Trace, states: States, time: Any, norms: Any) -> Relayed:
    """Follow the state cotangents of one recurrence back through the maps that a trace kept.

    Args:
        time, norms: its steps from the last one with a gradient on, in the order of the walk, and ‖δ‖ there as the trace has it.
    """
    with np.errstate(all="ignore"):
        return _Relay(trace, states, time, np.asarray(norms)).found


def reliable(at: StateAt, norm: float) -> bool:
    """Whether a norm ‖δ‖ that the ledger has is neither so small nor so large that digits are lost."""
    smallest, largest = trusted_range(at.parts[0].node.dtype)
    return smallest < norm < largest


def accuracy(at: StateAt) -> float:
    """The relative difference up to which two ways to compute a state's cotangent agree."""
    return max(1e-9, 1e3 * float(np.finfo(at.parts[0].node.dtype).eps))


class _Relay:
    """The relay at work: goes through the steps, those at once that can be, and collects what they say in ``found``."""

    def __init__(self, trace: Trace, states: States, time: Any, norms: Any) -> None:
        self.time, self.norms = time, norms
        self.ats = [states[int(t)] for t in time]
        nothing = np.full(len(time), np.nan)
        self.found = Relayed(
            np.full(len(time), -math.inf),
            nothing.copy(),
            np.array([reliable(at, norm) for at, norm in zip(self.ats, norms, strict=True)]),
            nothing.copy(),
            nothing.copy(),
            nothing.copy(),
        )
        self.flowing: dict[str, Any] = {}  # what the step before has handed on, at a length of 1
        self.effects: dict[Any, list[_Effect]] = {}
        by_time = {stretch.here.time: stretch for stretch in stretches(trace.steps, states)}
        chain = [by_time[at.time] for at in self.ats[:-1]]
        if self.go(chain):
            self.arrive(trace)
        else:
            for part in self.found.parts.values():
                part[np.isnan(self.found.log10_norm)] = math.nan
        self.found.edges = tuple(sorted(map(_summed, self.effects.values()), key=lambda edge: edge.log10_effect))

    def go(self, chain: list[Stretch]) -> bool:
        """Through all steps; whether the end was reached."""
        widest = max((math.prod(step.operand.shape) for step in chain[0].path), default=1) if chain else 1
        for places in alike(chain, max(1, _ENTRIES // max(1, widest))):
            first = places[0]
            while first <= places[-1]:
                trusted, stop = self.found.trusted[first], first + 1
                while stop <= places[-1] and self.found.trusted[stop] == trusted:
                    stop += 1
                if not self.enter(first, stop if trusted else first + 1):
                    return False
                if not trusted:
                    stop = first + self.follow(first, chain[first:stop])
                if self.flowing and not self.cross(first, chain[first:stop]):
                    return False
                self.found.several |= not self.flowing and bool(self.norms[stop] > 0)
                first = stop
        return self.enter(len(self.time) - 1, len(self.time))

    def enter(self, first: int, stop: int) -> bool:
        """Take up the cotangents of some states: the ledger's, as far as they can be trusted. False where they were never finite."""
        found, norms = self.found, self.norms
        if not math.isfinite(norms[first]):
            fits = not found.log10_norm[first] > math.log10(trusted_range(self.ats[first].parts[0].node.dtype)[1])
            if first == 0 or (found.trusted[first - 1] and fits):  # it has not grown out of range
                found.log10_norm[first:] = math.nan
                return False
        if found.trusted[first] or (first == 0 and norms[0] > 0):
            found.log10_norm[first:stop] = log10(norms[first:stop])
            self.flowing = _carried(self.ats[first:stop], norms[first:stop])
        return True

    def follow(self, first: int, run: list[Stretch]) -> int:
        """Take up what flows into each of several steps, one handing to the next; to how many that is possible, one at least."""
        flows = [self.flowing]
        for k, stretch in enumerate(run[:-1], first):
            arrived = _handed(stretch, flows[-1])
            length = float(_lengths(list(arrived.values()), 1)[0])
            if not 0 < length < math.inf or arrived.keys() != self.flowing.keys():
                break
            flows.append({role: part / length for role, part in arrived.items()})
            self.found.log10_norm[k + 1] = self.found.log10_norm[k] + log10(length)
        self.flowing = {role: np.concatenate([flow[role] for flow in flows]) for role in self.flowing}
        return len(flows)

    def cross(self, first: int, run: list[Stretch]) -> bool:
        """Hand back what flows over one step, or over several that are alike. False where what arrives is not finite."""
        found, past, last = self.found, slice(first + 1, first + len(run) + 1), first + len(run)
        trusted = bool(found.trusted[first])
        step = _Crossing(run, self.flowing)
        found.log10_cell[first:last] = found.log10_norm[first:last] + log10(step.on_cell)
        for way, share in step.parts.items():
            found.parts.setdefault(way, np.zeros(len(self.time)))[past] = share
        found.handed[past] = step.length
        self.compare(first, run, step, accuracy(run[0].past) if trusted else 0.5)
        if not trusted and [edge.kind for edge, _, _ in step.edges] == ["scale", "matmul"]:
            (_, found.saturation[past], _), (_, found.weight[past], _) = step.edges
        seen: Counter[Any] = Counter()
        for edge, gain, share in step.edges:
            key = edge.op, edge.kind, edge.template, edge.node.name, edge.operand.name, edge.gate
            seen[key] += 1
            self.effects.setdefault((*key, seen[key]), []).append(_Effect(edge, self.time[first:last], gain, share))
        length = float(step.length[-1])
        if not math.isfinite(length):
            found.log10_norm[last:] = math.nan
            found.trusted[last:] = False
            return False
        self.flowing = {role: part[-1:] / length for role, part in step.arrived.items()} if length > 0 else {}
        found.log10_norm[last] = found.log10_norm[last - 1] + log10(length)
        return True

    def compare(self, first: int, run: list[Stretch], step: _Crossing, tolerance: float) -> None:
        """Look whether anything but what these steps hand back arrives at the states before."""
        known = np.flatnonzero(self.found.trusted[first + 1 : first + len(run) + 1])
        if self.found.several or not known.size:
            return
        norms = self.norms[first + 1 + known]
        scale = 10.0 ** (self.found.log10_norm[first + known] - log10(norms))
        held = _carried([run[k].past for k in known], norms)
        rest = [
            held.get(role, 0.0) - _beside(scale, step.arrived[role][known]) if role in step.arrived else held[role]
            for role in {**held, **step.arrived}
        ]
        self.found.several = bool((_lengths(rest, len(known)) > tolerance).any())

    def arrive(self, trace: Trace) -> None:
        """At the last state: all that comes to its cell, from outside its step and from the hidden state beside it."""
        at, last = self.ats[-1], len(self.time) - 1
        if not self.flowing or at.cell is None:
            return
        flowing = {role: part[-1] for role, part in self.flowing.items()}
        total, end = flowing.get("cell", 0.0), at.cell.node.order
        if at.hidden is not None and "hidden" in flowing:
            seed = Stack(flowing["hidden"].shape, {None: Slab(0, flowing["hidden"][None])})
            within = [step for step in trace.steps if step.time == at.time]
            arrived = carry(within, {at.hidden.node.order: seed}, [end]).get(end)
            total = total + (0.0 if arrived is None else arrived.array(1)[0])
        self.found.log10_cell[last] = self.found.log10_norm[last] + log10(quiet_norm(np.asarray(total)))


def _handed(stretch: Stretch, flowing: dict[str, Any]) -> dict[str, Any]:
    """What one step hands back, by part of the state before; (1, …)."""
    stacks = {stretch.starts[role]: Stack(part.shape[1:], {None: Slab(0, part)}) for role, part in flowing.items()}
    for step in stretch.path:
        stack = stacks.get(step.node.order)
        if stack is not None and stack.parts:
            assert step.map is not None
            pull(step.map, stack, stacks.setdefault(step.operand.order, Stack(step.operand.shape)))
    return {role: stacks[order].whole().values for role, order in stretch.ends.items() if order in stacks and stacks[order].parts}


def _carried(ats: Sequence[StateAt], norms: Any) -> dict[str, Any]:
    """What arrives at some states from outside their steps, by part of the state, at a length of 1 each; (steps, …)."""
    found = {}
    for role in ROLES:
        parts = [getattr(at, role) for at in ats]
        if any(part is not None and part.carried is not None for part in parts):
            shape = next(part.node.shape for part in parts if part is not None)
            arrays = [np.zeros(shape) if part is None or part.carried is None else part.carried for part in parts]
            stacked = np.stack(arrays).astype(np.float64, copy=False)
            found[role] = stacked / _along(norms, len(shape))  # one over a norm may be more than a float holds
    return found


def _beside(factors: Any, arrays: Any) -> Any:
    """Each entry of the first axis times its factor."""
    return arrays * _along(factors, arrays.ndim - 1)


def _along(numbers: Any, axes: int) -> Any:
    """Numbers along a first axis, with so many axes behind it."""
    return np.reshape(numbers, (-1,) + (1,) * axes)


def _norms(arrays: Any) -> Any:
    """The norm of each entry of the first axis."""
    return norms_of(arrays) if len(arrays) > 1 else np.array([quiet_norm(array) for array in arrays])


def _lengths(arrays: Sequence[Any], count: int) -> Any:
    """The norm of each entry of the first axis, over several arrays."""
    total = np.zeros(count)
    for array in arrays:
        total = np.hypot(total, _norms(array))
    return total


class _Crossing:
    """From a state to the one before it, over the edges between; of several stretches that are alike at once.

    Attributes:
        arrived: what is handed back, by part of the state before; (steps, …).
        length: ‖what is handed back‖.
        parts: the norm of what is handed back on each way, if there are gates. A way is the gate whose pre-activation is passed last.
        on_cell: the norm of all that comes to the cell of the first state, NaN if there is none.
        edges: for each multiplication its gain, and its share in what is handed back.
    """

    def __init__(self, run: Sequence[Stretch], flowing: dict[str, Any]) -> None:
        model, count = run[0], len(run)
        lead = () if count == 1 else (count,)
        maps: dict[int, LinearMap] = {}
        passed: list[tuple[int, Any, Any]] = []
        ways: dict[str, int] = {}
        stacks: dict[int, Stack] = {}
        for role, part in flowing.items():
            values = part if count == 1 else part[None]
            stacks[model.starts[role]] = Stack(values.shape[1:], {None: Slab(0, values)})
        for place, step in enumerate(model.path):
            stack = stacks.get(step.node.order)
            if stack is None or not stack.parts:
                continue
            if step.operand.role == "gate" and step.operand.gate is not None:
                number_of_bin = ways.setdefault(step.operand.gate, len(ways) + 1)
                stack = Stack(stack.shape, {None: Slab(number_of_bin, stack.whole().values.sum(0, keepdims=True))})
            linear_map = step.map if count == 1 else joined(run, place)
            assert linear_map is not None
            maps[place] = linear_map
            share = Stack((*lead, *step.operand.shape))
            pull(linear_map, stack, share)
            if step.kind in ("scale", "matmul"):
                arriving, leaving = (held.whole().values.sum(0).reshape(count, -1) for held in (stack, share))
                passed.append((place, _norms(leaving) / _norms(arriving), leaving))
            target = stacks.setdefault(step.operand.order, Stack(share.shape))
            for where, slab in share.parts.items():
                target.add(where, slab)
        slabs = {role: stacks[order].whole() for role, order in model.ends.items() if order in stacks and stacks[order].parts}
        self.arrived = {role: slab.values.sum(0).reshape(count, *model.past_shape(role)) for role, slab in slabs.items()}
        self.length = _lengths(list(self.arrived.values()), count)
        named = {DIRECT: 0, **ways} if ways else {}
        self.parts = {
            way: _lengths([slab.bin(number_of_bin).reshape(count, -1) for slab in slabs.values()], count)
            for way, number_of_bin in named.items()
        }
        cell = stacks.get(model.starts.get("cell", 0))
        self.on_cell = np.full(count, math.nan) if cell is None or not cell.parts else _norms(cell.whole().values.sum(0).reshape(count, -1))
        self.edges = [(model.path[place], gain, share) for place, gain, share in self.shares(model, maps, passed)]

    def shares(self, model: Stretch, maps: dict[int, LinearMap], passed: list[tuple[int, Any, Any]]) -> Iterator[tuple[int, Any, Any]]:
        """The share of each edge, by pushing the direction of what was handed back forward through the same maps: a dot product each."""
        count = len(self.length)
        scale = np.divide(1.0, self.length, out=np.zeros(count), where=self.length > 0)
        tangents: dict[int, Any] = {}
        for role, part in self.arrived.items():
            direction = _beside(scale, part)
            tangents[model.ends[role]] = direction[0] if count == 1 else direction
        for place in sorted(maps, reverse=True):
            step = model.path[place]
            here = tangents.get(step.operand.order)
            if here is not None:
                pushed, held = _pushed(maps[place], here), tangents.get(step.node.order)
                tangents[step.node.order] = pushed if held is None else held + pushed
        for place, gain, leaving in passed:
            here = tangents.get(model.path[place].operand.order)
            inner = 0.0 if here is None else np.einsum("ij,ij->i", leaving, here.reshape(count, -1)) * scale
            yield place, gain, np.where(self.length > 0, inner, gain == 0)


def _pushed(linear_map: LinearMap, tangent: Any) -> Any:
    """J u, with one product for all steps where the map is a matrix that they share."""
    if isinstance(linear_map, MatMul) and linear_map.side == "right" and linear_map.matrix.ndim == 2:
        rows = tangent.reshape(-1, tangent.shape[-1]) @ linear_map.matrix
        return rows.reshape(*tangent.shape[:-1], rows.shape[-1])
    return linear_map.pushforward(tangent)


@dataclass(slots=True)
class _Effect:
    """Gain and share of one edge at some steps, the latest first."""

    step: BackwardStep
    time: Any
    gain: Any
    share: Any


def _summed(effects: list[_Effect]) -> EdgeGains:
    step = effects[0].step
    time, gain, share = (np.concatenate([getattr(one, name) for one in effects]) for name in ("time", "gain", "share"))
    logs = log10(gain)
    effect = np.where(share == 0, 0.0, share * logs)
    known = ~np.isnan(effect)
    logs, share, effect, time = logs[known], share[known], effect[known], time[known]
    finite = np.isfinite(logs)
    worst = int(np.argmin(effect)) if effect.size else 0
    return EdgeGains(
        label=step.label,
        to=step.operand.symbol,
        gate=step.gate,
        op=step.op,
        kind=step.kind,
        count=len(effect),
        log10_gain=float(np.mean(logs[finite])) if finite.any() else -math.inf if effect.size else math.nan,
        share=float(np.mean(share)) if effect.size else math.nan,
        log10_effect=float(np.mean(effect)) if effect.size else math.nan,
        time=int(time[worst]) if effect.size else int(effects[0].time[0]),
        log10_gain_then=float(logs[worst]) if effect.size else math.nan,
        source=step.source,
    )
