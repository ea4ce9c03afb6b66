"""From the folded ledger to a :class:`RenderGraph`: what is shown, what stands for many, and what it is called."""

from __future__ import annotations

import math
from itertools import takewhile
from operator import index
from typing import Any

from ..errors import ArgumentError
from ..graph import Scope
from ..steps import NodeInfo
from ..trace import Trace
from .fold import Edge, Place
from .ledger import Ledger
from .model import RenderCluster, RenderEdge, RenderGraph, RenderNode, RenderScope, Shape
from .text import formula, glyph, number, relative

Key = tuple[Any, ...]
"""What a drawn node is: ("node", number), ("leaf", number, place, alias), ("run", layer, first, last), ("box", scope), or rolled up
("class", signature) or ("past", signature, steps back)."""


def build(
    trace: Trace,
    *,
    rolled: bool,
    window: tuple[int, int] | None,
    ends: int,
    fold_routes: bool,
    max_nodes: int,
    closed: frozenset[str] = frozenset(),
) -> RenderGraph:
    """The picture of a trace, without layout."""
    ledger = Ledger(trace, fold_routes=fold_routes)
    sketch = RolledSketch(ledger) if rolled else UnrolledSketch(ledger, _shown(ledger.times, window, ends), closed)
    sketch.draw()
    if len(sketch.nodes) > max_nodes:
        raise ArgumentError(
            f"backward_graph: {len(sketch.nodes)} nodes are more than anyone can read; expected at most max_nodes={max_nodes}. "
            + (
                "Show fewer steps with window=(first, last) or ends=1, or one step for all with rolled=True"
                if ledger.times
                else "Say which part is which step of a sequence with tg.scope(time=t), draw scopes as boxes with closed=(names), "
                "trace a smaller part, or raise max_nodes"
            )
        )
    return sketch.finished()


def _shown(times: list[int], window: tuple[int, int] | None, ends: int) -> set[int]:
    """The steps that are drawn one by one."""
    if window is None:
        return set(times) if len(times) <= 2 * ends + 1 else {*times[:ends], *times[len(times) - ends :]}
    try:
        first, last = (index(bound) for bound in window)
    except (TypeError, ValueError):
        have = f"got {window!r}" if not times else f"of the steps {times[0]} to {times[-1]}, got {window!r}"
        raise ArgumentError(f"backward_graph: window must be (first, last), {have}") from None
    shown = {time for time in times if first <= time <= last}
    if not shown:
        have = f"steps {times[0]} to {times[-1]}" if times else "no steps: nothing was recorded under a time"
        raise ArgumentError(f"backward_graph: window={window!r} shows no step; the trace has {have}")
    return shown


class Sketch:
    """A picture in the making: each edge of the ledger is drawn between the nodes that stand for its ends."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.flow = ledger.flow
        self.nodes: dict[Key, Edge | None] = {}
        self.bundles: dict[tuple[Any, ...], list[Edge]] = {}
        self.hidden: dict[Key, list[Edge]] = {}

    # -- what the two kinds of picture decide -----------------------------------------------------------------------------------

    rolled = False

    def stands(self, node: int) -> Key:
        """The drawn node that stands for one of the ledger."""
        raise NotImplementedError

    def end(self, edge: Edge, start: Key) -> Key | None:
        """The drawn node that an edge leads to, from the one that stands for its source."""
        raise NotImplementedError

    def alone(self, edge: Edge, start: Key, end: Key) -> Key:
        """What tells an edge apart from others between the same drawn nodes; those that it does not are drawn as one."""
        raise NotImplementedError

    def describe(self, key: Key) -> tuple[Shape, str, str, NodeInfo | None]:
        """What a drawn node is, its label and note, and what is known of it."""
        raise NotImplementedError

    def label(self, edge: Edge) -> str:
        """The multiplication of an edge."""
        step = edge.strongest
        return "" if step.kind == "route" else formula(step)

    def sign(self, bundle: list[Edge]) -> str:
        """The multiplication of edges that are drawn as one."""
        return self.label(bundle[0])

    def clusters(self, numbers: dict[Key, int]) -> tuple[RenderCluster, ...]:
        raise NotImplementedError

    # -- drawing ------------------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Walk through the ledger from the loss on."""
        self.nodes[self.stands(self.flow.root)] = None
        for source in self.flow.infos:
            start = self.stands(source)
            for edge in self.flow.out[source]:
                end = self.end(edge, start)
                if end is None or (start == end and start[0] in ("run", "box")):
                    self.hidden.setdefault(start, []).append(edge)
                    continue
                self.nodes.setdefault(start, None)
                self.nodes.setdefault(end, edge)
                same = (start, end, edge.kind, self.ledger.lane(edge), self.back(edge), *self.alone(edge, start, end))
                self.bundles.setdefault(same, []).append(edge)

    def back(self, edge: Edge) -> int | None:
        """By how many steps of its recurrence an edge goes back in time."""
        source, target = (self.flow.places.get(node) for node in (edge.source, edge.target))
        if source is None or target is None or source[0] != target[0]:
            return None
        return (source[1] - target[1]) or None

    def finished(self) -> RenderGraph:
        """The frozen picture, its nodes numbered as they hand on the cotangent."""
        senders = dict.fromkeys(start for start, *_ in self.bundles)
        numbers = {key: position for position, key in enumerate(dict.fromkeys([*list(self.nodes)[:1], *senders, *self.nodes]))}
        edges = []
        for (start, end, kind, lane, back, *_), bundle in self.bundles.items():
            gains = [gain for edge in bundle if not math.isnan(gain := edge.gain)]
            low, high = (min(gains), max(gains)) if gains else (math.nan, math.nan)
            steps = self.ledger.positions(bundle)
            edges.append(RenderEdge(numbers[start], numbers[end], kind, self.sign(bundle), low, high, len(bundle), lane, back, steps))
        lanes = {key: edge.lane for edge in edges if edge.lane is not None for key in (edge.source, edge.target)}
        layers = self.ledger.layers
        return RenderGraph(
            nodes=tuple(self._node(key, position, lanes.get(position)) for key, position in numbers.items()),
            edges=tuple(edges),
            clusters=self.clusters(numbers),
            layers=layers,
            lanes=tuple(self.ledger.highways.get(layer) for layer in range(len(layers))),
            count=self.ledger.count,
            rolled=self.rolled,
            scopes=() if self.ledger.times else self._scopes(numbers, edges),
        )

    def _scopes(self, numbers: dict[Key, int], edges: list[RenderEdge]) -> tuple[RenderScope, ...]:
        places = {position: key[1].parent if key[0] == "box" else self.flow.infos[key[1]].place for key, position in numbers.items()}
        users: dict[int, set[int]] = {}
        for edge in edges:
            users.setdefault(edge.target, set()).add(edge.source)
        return scopes_of(places, users)

    def _node(self, key: Key, position: int, lane: int | None) -> RenderNode:
        shape, label, note, info = self.describe(key)
        if info is None:
            inside = self.ledger.positions(self.hidden.get(key, ()))
            return RenderNode(position, label, note, shape, None, lane, ", ".join(filter(None, (label, note))), inside)
        where = f" in {info.scope}" if info.scope else ""
        return RenderNode(position, label, note, shape, info.gate, lane, f"{info.op} {info.shape}{where}")

    def look(self, node: int) -> tuple[Shape, str, str, NodeInfo]:
        """What one node of the ledger looks like."""
        info = self.flow.infos[node]
        shape, label = looks(info, root=node == self.flow.root, leaf=not self.flow.out[node])
        note = (info.gate or "") if shape == "gate" else ""
        if not self.ledger.times:
            note = self.ledger.numbers(info) or (sides(info.shape) if shape in ("leaf", "value") else "")
        return shape, label, note, info


def looks(info: NodeInfo, *, root: bool = False, leaf: bool = False) -> tuple[Shape, str]:
    """How a node is drawn, and what stands in it."""
    sign = glyph(info)
    if root and info.role is None:
        return "root", info.symbol if info.name is not None else f"loss  {sign}"
    if leaf:
        return "leaf", sign
    if info.role in ("hidden", "cell"):
        return "state", sign
    if info.role == "gate":
        return "gate", sign
    return "operation" if info.name is None else "value", sign


def sides(shape: tuple[int, ...]) -> str:
    """5 × 8; nothing for a number."""
    return " × ".join(map(str, shape))


def scopes_of(places: dict[int, Scope | None], users: dict[int, set[int]]) -> tuple[RenderScope, ...]:
    """The scopes that hold some nodes but not all. A node without a scope belongs to the one that all its users are in."""
    numbers: dict[Scope, int] = {}
    homes: dict[int, tuple[int, ...]] = {}
    for key, place in sorted(places.items()):
        path = [scope for scope in _around(place) if scope.name]
        homes[key] = tuple(numbers.setdefault(scope, len(numbers)) for scope in path)
    names = [scope.name or "" for scope in numbers]
    for key in sorted(places):
        near = {homes[user] for user in users.get(key, ())}
        if not homes[key] and near:
            low, high = min(near), max(near)
            homes[key] = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
    members: dict[tuple[int, ...], list[int]] = {}
    for key, home in homes.items():
        for length in range(1, len(home) + 1):
            members.setdefault(home[:length], []).append(key)
    return tuple(
        RenderScope(tuple(names[number] for number in path), path, tuple(keys))
        for path, keys in sorted(members.items())
        if 1 < len(keys) < len(homes) - 1
    )


def _around(place: Scope | None) -> list[Scope]:
    """A scope and those that it is in, the outermost first."""
    found = []
    while place is not None:
        found.append(place)
        place = place.parent
    return found[::-1]


class UnrolledSketch(Sketch):
    """Every shown step is drawn; the runs of steps between them are one box each, and so are closed scopes outside of time."""

    def __init__(self, ledger: Ledger, shown: set[int], closed: frozenset[str]) -> None:
        super().__init__(ledger)
        self.closed = closed
        known = {scope.name for info in self.flow.infos.values() for scope in _around(info.place)} if closed else closed
        if closed - known:
            have = ", ".join(sorted(filter(None, known))) or "none"
            raise ArgumentError(
                f"backward_graph: no scope is called {sorted(closed - known)[0]!r}; expected closed= to name some of {have}"
            )
        self.given: dict[Key, dict[str, None]] = {}
        self.shown = shown
        self.run_of: dict[int, tuple[int, int]] = {}
        run: list[int] = []
        for time in [*ledger.times, None]:
            if time is not None and time not in shown:
                run.append(time)
            elif run:
                self.run_of |= dict.fromkeys(run, (run[0], run[-1]))
                run = []

    def stands(self, node: int) -> Key:
        owner = self.ledger.owners.get(node)
        if owner is None and self.closed and node != self.flow.root:
            for scope in _around(self.flow.infos[node].place):
                if scope.name in self.closed:
                    return "box", scope
        if owner is None or owner[1] in self.shown or node == self.flow.root:
            return "node", node
        return "run", owner[0], *self.run_of[owner[1]]

    def end(self, edge: Edge, start: Key) -> Key | None:
        if self.flow.out[edge.target]:
            return self.stands(edge.target)
        if start[0] == "run":
            return None  # what hidden steps hand to the parameters is not drawn
        if start[0] == "box" and {self.stands(each.source) for each in self.flow.into[edge.target]} == {start}:
            self.given.setdefault(start, {})[edge.alias or self.flow.infos[edge.target].symbol] = None
            return None  # the box says what is its own
        place = self.flow.places.get(edge.source)
        return "leaf", edge.target, place, edge.alias if place else None

    def alone(self, edge: Edge, start: Key, end: Key) -> Key:
        return () if {"run", "box"}.intersection((start[0], end[0])) else (edge.source, edge.strongest.position, id(edge))

    def draw(self) -> None:
        """The edge from a run to the step before it stands for the same edge of every step of the run."""
        super().draw()
        for (start, _, kind, lane, back, *_), bundle in self.bundles.items():
            if start[0] == "run" and back:
                shown = {self._timeless(edge) for edge in bundle}
                alike = (e for e in self.hidden.get(start, ()) if (e.kind, self.ledger.lane(e), self.back(e)) == (kind, lane, back))
                bundle += [edge for edge in alike if self._timeless(edge) in shown]

    def _timeless(self, edge: Edge) -> str:
        return relative(self.label(edge), self.flow.places[edge.source][1])

    def sign(self, bundle: list[Edge]) -> str:
        """Of many steps the first and the last: ⊙ f₃ … f₉₈."""
        if any(self.back(edge) is None for edge in bundle):
            return super().sign(bundle)
        alike: dict[str, list[str]] = {}
        for edge in sorted(bundle, key=lambda edge: self.flow.places[edge.source][1]):
            alike.setdefault(self._timeless(edge), []).append(self.label(edge))
        return ", ".join(ends[0] if ends[0] == ends[-1] else f"{ends[0]} … {ends[-1].removeprefix('⊙ ')}" for ends in alike.values())

    def describe(self, key: Key) -> tuple[Shape, str, str, NodeInfo | None]:
        if key[0] == "run":
            _, layer, first, last = key
            gain = self.ledger.gain_of_run(layer, (first, last))
            steps = sum(first <= time <= last for time in self.ledger.times)
            return "fold", f"{steps} step{'s' * (steps != 1)}", "" if math.isnan(gain) else f"state gain {number(gain)}", None
        if key[0] == "box":
            return "fold", key[1].name, ", ".join(self.given.get(key, ())), None
        shape, label, note, info = self.look(key[1])
        return shape, (key[3] or label) if key[0] == "leaf" else label, note, info

    def clusters(self, numbers: dict[Key, int]) -> tuple[RenderCluster, ...]:
        members: dict[tuple[int, int, int], list[int]] = {}
        for key, position in numbers.items():
            if key[0] == "run":
                members.setdefault(key[1:], []).append(position)
            elif key[0] != "box":
                place: Place | None = key[2] if key[0] == "leaf" else self.flow.places.get(key[1])
                if place is not None and place[1] in self.shown and (key[1] != self.flow.root or self.flow.infos[key[1]].role):
                    members.setdefault((place[0], place[1], place[1]), []).append(position)
        return tuple(
            RenderCluster(
                f"t = {first}" if first == last else f"t = {first} … {last}", layer, first, last, tuple(members[layer, first, last])
            )
            for layer, first, last in sorted(members)
        )


class RolledSketch(Sketch):
    """One step stands for all; nodes of different steps are one if they have the same name, or the same origin and operation."""

    rolled = True

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        if not ledger.times:
            raise ArgumentError("backward_graph: rolled=True needs steps; nothing in this trace was recorded under a time")
        self.signatures: dict[Key, int] = {}
        self.speaks: dict[int, int] = {}
        self.signature: dict[int, int] = {}
        for node, info in self.flow.infos.items():
            if (owner := ledger.owners.get(node)) is not None and (node != self.flow.root or info.role):
                sign = self.signatures.setdefault(self._described(node, info, owner), len(self.signatures))
                self.signature[node] = sign
                spoken = self.speaks.setdefault(sign, node)
                if owner[1] > ledger.owners[spoken][1]:
                    self.speaks[sign] = node

    def _described(self, node: int, info: NodeInfo, owner: Place) -> Key:
        if info.role in ("hidden", "cell"):  # one state, whether it was computed, kept or handed over
            return owner[0], info.name, info.role
        if info.name is not None:
            return owner[0], info.name, info.op, info.role
        parent = next(iter(self.flow.into[node]), None)
        if parent is None or parent.source not in self.signature:
            return owner[0], info.op
        return owner[0], info.op, self.signature[parent.source], parent.strongest.op, parent.strongest.position

    def stands(self, node: int) -> Key:
        sign = self.signature.get(node)
        return ("node", node) if sign is None else ("class", sign)

    def end(self, edge: Edge, start: Key) -> Key | None:
        if self.flow.out[edge.target]:
            end, back = self.stands(edge.target), self.back(edge)
            return end if back is None else ("past", end[1], back)
        layer = self.ledger.owners[edge.source][0] if start[0] == "class" else None
        return "leaf", edge.target, layer

    def alone(self, edge: Edge, start: Key, end: Key) -> Key:
        if end[0] == "past" and self.ledger.lane(edge) is not None:  # from state to state the highway is one line
            return ()
        if start[0] == "node" and end[0] != "leaf":  # what goes from one node to every step is one edge
            return (edge.strongest.op,)
        return edge.strongest.op, edge.strongest.position

    def sign(self, bundle: list[Edge]) -> str:
        said = list(dict.fromkeys(map(self.label, bundle)))
        return ", ".join(said) if len(said) <= 3 else f"{said[0]} … {said[-1]}"

    def label(self, edge: Edge) -> str:
        owner = self.ledger.owners.get(edge.source)
        return super().label(edge) if owner is None else relative(super().label(edge), owner[1])

    def describe(self, key: Key) -> tuple[Shape, str, str, NodeInfo | None]:
        node = key[1] if key[0] in ("node", "leaf") else self.speaks[key[1]]
        shape, label, note, info = self.look(node)
        owner = self.ledger.owners.get(node)
        later = key[2] if key[0] == "past" else 0
        return shape, relative(label, owner[1] + later) if owner else label, note, info

    def clusters(self, numbers: dict[Key, int]) -> tuple[RenderCluster, ...]:
        first, last = self.ledger.times[0], self.ledger.times[-1]
        members: dict[tuple[int, int, int, str], list[int]] = {}
        for key, position in numbers.items():
            layer = key[2] if key[0] == "leaf" else None if key[0] == "node" else self.ledger.owners[self.speaks[key[1]]][0]
            if layer is not None and key[0] == "past":
                label = f"t {'−' if key[2] > 0 else '+'} {abs(key[2])}"
                members.setdefault((layer, first - key[2], first - key[2], label), []).append(position)
            elif layer is not None:
                members.setdefault((layer, first, last, f"every t = {first} … {last}"), []).append(position)
        return tuple(RenderCluster(key[3], key[0], key[1], key[2], tuple(members[key])) for key in sorted(members))
