"""The ledger as a graph, and its folding: chains that only move or pass on a cotangent disappear."""

from __future__ import annotations

import math
import re

from ..graph import Scope
from ..linear_maps import Kind
from ..steps import BackwardStep, NodeInfo
from ..trace import Trace

_STRENGTH: dict[Kind, int] = {"route": 0, "add": 1, "scale": 2, "matmul": 3}
_INTEGER = re.compile(r"\[(-?\d+)\]")
Place = tuple[int, int]
"""A layer's number and a step of it."""


class Edge:
    """A chain of backward steps, of which at most one scales or multiplies by a matrix.

    ``passed`` are steps that it also stands for, though their gain is not its own: what a stack hands to one of its entries.
    """

    __slots__ = ("alias", "passed", "source", "steps", "target")

    def __init__(self, source: int, target: int, steps: tuple[BackwardStep, ...], alias: str | None = None) -> None:
        self.source = source
        self.target = target
        self.steps = steps
        self.alias = alias
        self.passed: tuple[BackwardStep, ...] = ()

    @property
    def strongest(self) -> BackwardStep:
        """The step that names the chain: its one multiplication, or its sum, or its routing."""
        return max(self.steps, key=lambda step: _STRENGTH[step.kind])

    @property
    def kind(self) -> Kind:
        return self.strongest.kind

    @property
    def gain(self) -> float:
        """The product of the steps' gains."""
        return math.prod(step.gain for step in self.steps)


def step_of(place: Scope | None) -> tuple[Scope | str, int] | None:
    """The recurrence, by its layer's call or its path, and the step of it that a scope belongs to; None outside of time."""
    if place is None or place.time is None:
        return None
    while place.parent is not None and place.parent.time == place.time:
        place = place.parent
    assert place.time is not None
    return place.group or place.path, place.time


class Flow:
    """The nodes and edges of a trace, in the order in which the cotangent reaches them, and what folding leaves of them.

    Attributes:
        infos: of every node by its number.
        layers: what identifies each recurrence, by its number here: a layer's call, or a path of scopes.
        places: layer and time of the nodes that were recorded inside a step.
    """

    def __init__(self, trace: Trace) -> None:
        self.root = trace.root.order
        self.infos: dict[int, NodeInfo] = {self.root: trace.root}
        self.out: dict[int, dict[Edge, None]] = {self.root: {}}
        self.into: dict[int, dict[Edge, None]] = {self.root: {}}
        self._connect(trace.steps)
        self.layers: list[Scope | str] = []
        self.places: dict[int, Place] = {}
        self._locate()

    def _connect(self, steps: list[BackwardStep]) -> None:
        senders = {self.root: None}
        for step in steps:
            source, target = step.node.order, step.operand.order
            if source not in self.out:  # reached only by what was left out below
                continue
            if step.kind == "route" and step.norms[1] == 0.0 and step.norms[0] != 0.0:
                continue  # a part that nobody reads
            if target not in self.infos:
                self.infos[target] = step.operand
                self.out[target], self.into[target] = {}, {}
            edge = Edge(source, target, (step,))
            self.out[source][edge] = None
            self.into[target][edge] = None
            senders[source] = None
        self.infos = {number: self.infos[number] for number in senders | dict.fromkeys(self.infos)}

    def _locate(self) -> None:
        """Which step of which recurrence each node belongs to."""
        numbers: dict[Scope | str, int] = {}
        for number in sorted(self.infos):
            step = step_of(self.infos[number].place)
            if step is not None:
                self.places[number] = (numbers.setdefault(step[0], len(numbers)), step[1])
        self.layers = list(numbers)

    # -- folding --------------------------------------------------------------------------------------------------------------

    def fold(self, *, routes: bool) -> None:
        """Leave out what only moves a cotangent (routes), and inside of steps the nameless parts of sums."""
        if routes:
            self.unstack()
        changed = True
        while changed:
            changed = False
            for number in list(self.infos):  # each leaves out itself at most
                changed |= self._join_up(number, routes) or (routes and self._join_down(number))

    def unstack(self) -> None:
        """Let what picks one entry of a stack come from that entry alone."""
        for number in list(self.infos):
            if self.infos[number].op == "stack":
                self._unstack(number)

    def _unstack(self, number: int) -> None:
        """``stack(outputs)[2]`` is ``outputs[2]``."""
        info, parts = self.infos[number], {}
        for edge in self.out[number]:
            position = edge.steps[0].position
            if edge.steps[0].label != f"part {position}":  # along another axis than the first
                return
            parts[position] = edge
        for picking in list(self.into[number]):
            step = picking.steps[-1]
            index = _INTEGER.fullmatch(step.label) if step.op == "index" else None
            part_of = parts.get(int(index[1]) % info.shape[0]) if index else None
            if part_of is not None:
                del self.into[number][picking]
                picking.target = part_of.target
                picking.passed += part_of.steps
                self.into[part_of.target][picking] = None
        if not self.into[number]:
            for edge in self.out[number]:
                del self.into[edge.target][edge]
            self._forget(number)

    def _join_up(self, number: int, routes: bool) -> bool:
        """A nameless node that receives by one identity or route is where that comes from."""
        into, info = self.into[number], self.infos[number]
        named = info.name is not None and info.op != "stack"  # a layer's outputs are those of its steps
        if len(into) != 1 or number == self.root or not self.out[number] or info.role or named:
            return False
        (edge,) = into
        kind = edge.kind
        if kind not in ("add", "route") or (kind == "route" and not routes):
            return False
        if kind == "add" and number not in self.places and not self._in_sum(edge):
            return False
        source = edge.source
        place = self.places.get(number)  # what a step computed stays in it; what only moves entries may leave
        if self.places.get(source) != place and (kind == "add" or (place is not None and any(e.kind != "route" for e in self.out[number]))):
            return False
        del self.out[source][edge]
        for onward in self.out[number]:
            onward.source = source
            onward.steps = edge.steps + onward.steps
            onward.passed += edge.passed
            self.out[source][onward] = None
        self._forget(number)
        return True

    def _in_sum(self, edge: Edge) -> bool:
        """Whether an edge joins two sums, which then are one sum of more terms."""
        return all(e.kind in ("add", "route") for number in (edge.source, edge.target) for e in self.out[number])

    def _join_down(self, number: int) -> bool:
        """A node that only hands on by a route is where that goes to."""
        out, info = self.out[number], self.infos[number]
        if len(out) != 1 or number == self.root or info.role in ("hidden", "cell", "gate"):
            return False
        (edge,) = out
        if edge.kind != "route" or (info.name is not None and number not in self.places and self.infos[edge.target].op != "leaf"):
            return False
        alias = edge.alias or (info.symbol if info.name is not None else None)
        del self.into[edge.target][edge]
        for arriving in self.into[number]:
            arriving.target = edge.target
            arriving.steps += edge.steps
            arriving.passed += edge.passed
            arriving.alias = alias
            self.into[edge.target][arriving] = None
        self._forget(number)
        return True

    def _forget(self, number: int) -> None:
        del self.infos[number], self.out[number], self.into[number]
        self.places.pop(number, None)
