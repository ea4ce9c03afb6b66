"""The folded trace with what a picture asks of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..flow.highway import highway_steps
from ..steps import NodeInfo
from ..trace import States, Trace
from .fold import Edge, Flow, Place


class Ledger:
    """The folded trace: which highway an edge lies on, which step a node belongs to, what a run of steps leaves of a cotangent.

    Attributes:
        flow: nodes and edges.
        count: how many multiplications the trace has.
        layers: the names of the recurrences by their number.
        states: the landmarks of those that have any.
        highways: whether each of these has a highway; None if it has but one step.
        owners: the step that each node belongs to.
        times: all steps.
    """

    def __init__(self, trace: Trace, *, fold_routes: bool) -> None:
        self.flow = Flow(trace)
        self.count = len(trace.steps)
        self._position = {id(step): position for position, step in enumerate(trace.steps)}
        self.states: dict[int, States] = {}
        self.highways: dict[int, bool | None] = {}
        self._on_lane: dict[int, int] = {}
        names: dict[int, str] = {}
        for name in trace.layers:
            states = trace.states(name)
            place = next((p for at in states for part in at.parts if (p := self.flow.places.get(part.node.order))), None)
            if place is not None:
                self.states[place[0]] = states
                names[place[0]] = name
                found = highway_steps(trace, name)
                self.highways[place[0]] = bool(found) if len(states) > 1 else None
                self._on_lane |= {id(step): place[0] for steps in found.values() for step in steps}
        self._cotangents, self._numbers = cotangents(trace), trace.numbers
        self.flow.fold(routes=fold_routes)
        self.owners = _owners(self.flow)
        self.times = sorted({time for _, time in self.owners.values()})
        self.layers = tuple(
            names.get(position, layer if isinstance(layer, str) else layer.path) for position, layer in enumerate(self.flow.layers)
        )

    def lane(self, edge: Edge) -> int | None:
        """The highway that an edge is a part of: all of its steps lie on it."""
        lanes = {self._on_lane.get(id(step)) for step in edge.steps}
        return lanes.pop() if len(lanes) == 1 else None

    def positions(self, edges: Iterable[Edge]) -> tuple[int, ...]:
        """The places in the trace of all steps that some edges stand for, in order."""
        return tuple(sorted({self._position[id(step)] for edge in edges for step in edge.steps + edge.passed}))

    def numbers(self, info: NodeInfo) -> str:
        """Of a value of one entry: the value and ∂loss/∂value, if arrays were kept."""
        value, found = self._numbers.get(info), self._cotangents.get(info.order)
        return "" if value is None or found is None else f"{value:.4g} | ∂ {float(np.asarray(found).item()):.3g}"

    def gain_of_run(self, layer: int, run: tuple[int, int]) -> float:
        """What a run of steps leaves of the state cotangent: ‖δ‖ at the step before it over ‖δ‖ at its last step; NaN if unknown."""
        states = self.states.get(layer)
        if states is None:
            return math.nan
        ran = states.times
        if run[0] not in ran or run[1] not in ran:
            return math.nan
        first, last = sorted(map(ran.index, run))
        before = max(first - 1, 0)
        start: float = states[ran[last]].norm
        return states[ran[before]].norm / start if start and before < last else math.nan


def cotangents(trace: Trace) -> dict[int, Any]:
    """∂L/∂value by the number of the value's node, as far as arrays were kept."""
    return {step.node.order: step.cotangent for step in trace.steps} | {info.order: found for info, found in trace.gradients.items()}


def _owners(flow: Flow) -> dict[int, Place]:
    """The step that each node belongs to; of a node outside of time, the only step that it leads to, or else comes from."""
    owners = dict(flow.places)
    inner = [node for node in flow.infos if node != flow.root and flow.out[node]] if owners else []
    for node in reversed(inner):
        if node not in owners:
            places = {owners.get(edge.target) for edge in flow.out[node] if flow.out[edge.target]}
            if len(places) == 1 and (place := places.pop()) is not None:
                owners[node] = place
    for node in inner:
        if node not in owners:
            places = {owners.get(edge.source) for edge in flow.into[node]}
            if len(places) == 1 and (place := places.pop()) is not None:
                owners[node] = place
    return owners
