"""Where everything of a picture is: columns for the steps, rows for what the steps have in common.

The cotangent flows downward and time runs from left to right. Each step is a column; what has the same name in every step has the same
height, so that all steps look alike and a highway is one straight level line. What leads from step to step passes through the gap between
the columns, and has its label there. The layers of a network lie above each other, and what is outside of time lies above, between or
below them. A small graph without time flows from right to left, as one reads a formula. All numbers are points; y grows downward.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from .layers import GAP, Item, Link, Rows, apart, in_rows
from .model import RenderCluster, RenderEdge, RenderGraph, RenderScope
from .text import text_width, timeless

Point = tuple[float, float]
Size = tuple[float, float]
Box = tuple[float, float, float, float]

GATES = ("input", "reset", "forget", "update", "candidate", "output")
"""The gates of a step from left to right."""

PAD = 8.0
TITLE = 20.0
ROW = 8.0
"""The room above and below what stands in a row of labels."""
BETWEEN = 30.0
"""The room between two layers."""
TURN = 24.0
"""The height of the bend with which an edge turns from a node's side into a gap."""
RIM, RIM_TOP, RIM_BOTTOM = 5.0, 15.0, 4.0
"""What the box of a scope needs at its sides, above for its title, and below."""
DEEP = 17
"""A graph without time of more levels than this flows downward."""


@dataclass
class Route:
    """The way of an edge: a start and any number of cubic pieces (three more points each); and the middle of its label."""

    points: list[Point]
    label: Point | None = None


@dataclass
class Layout:
    """Middles of nodes, ways of edges, and the boxes (left, top, right, bottom) of clusters and scopes, by their numbers."""

    nodes: dict[int, Point] = field(default_factory=dict)
    routes: dict[int, Route] = field(default_factory=dict)
    boxes: dict[int, Box] = field(default_factory=dict)
    scopes: dict[int, Box] = field(default_factory=dict)


def laid_out(graph: RenderGraph, sizes: Sequence[Size], labels: Sequence[Size]) -> Layout:
    """The layout of a picture, given the sizes of its nodes and of the labels of its edges."""
    plan = _Plan(graph, sizes, labels)
    if graph.clusters or max(plan.depth_outside.values(), default=0) >= DEEP:
        found = plan.layout()
    else:
        turned = _Plan(graph, [size[::-1] for size in sizes], [size[::-1] for size in labels], turned=True).layout()
        found = Layout({key: _turned(at) for key, at in turned.nodes.items()})
        for number, route in turned.routes.items():
            found.routes[number] = Route([_turned(at) for at in route.points], None if route.label is None else _turned(route.label))
    found.scopes = _scope_boxes(graph, sizes, found)
    return found


def _scope_boxes(graph: RenderGraph, sizes: Sequence[Size], found: Layout) -> dict[int, Box]:
    """A box around each scope, inner ones first, unless something else would lie in it."""
    boxes: dict[int, Box] = {}
    around = {
        key: (x - sizes[key][0] / 2, y - sizes[key][1] / 2, x + sizes[key][0] / 2, y + sizes[key][1] / 2)
        for key, (x, y) in found.nodes.items()
    }
    for number in sorted(range(len(graph.scopes)), key=lambda number: -len(graph.scopes[number].path)):
        scope = graph.scopes[number]
        inner = [box for other, box in boxes.items() if graph.scopes[other].path[: len(scope.path)] == scope.path]
        for keys in (
            scope.nodes,
            [key for key in scope.nodes if graph.nodes[key].shape != "leaf"],
        ):  # if need be, what it is given is outside
            if len(keys) < 2:
                continue
            box = _around([around[key] for key in keys] + inner, text_width(scope_title(scope), 10))
            others = [around[key] for key in around if key not in set(keys)] + [other for other in boxes.values() if other not in inner]
            if not any(_meet(box, other) for other in others):
                boxes[number] = box
                break
    return boxes


def _around(parts: Sequence[Box], wide: float) -> Box:
    """A box around others, with a title of some width above them."""
    left, top, right, bottom = (pick(sides) for pick, sides in zip((min, min, max, max), zip(*parts, strict=True), strict=True))
    return left - RIM, top - RIM_TOP, max(right, left + wide) + RIM, bottom + RIM_BOTTOM


def scope_title(scope: RenderScope) -> str:
    """What stands above a scope: its name, or of one that is only numbered the one around it as well."""
    return "/".join(scope.names[-2:] if scope.names[-1].isdigit() else scope.names[-1:])


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def title(graph: RenderGraph, cluster: RenderCluster) -> str:
    """What stands above a step: its time, and its layer if there are several."""
    several = len({other.layer for other in graph.clusters}) > 1
    return f"{graph.layers[cluster.layer]}   {cluster.label}" if several else cluster.label


def _turned(point: Point) -> Point:
    return -point[1], -point[0]


class _Plan:
    def __init__(self, graph: RenderGraph, sizes: Sequence[Size], labels: Sequence[Size], *, turned: bool = False) -> None:
        self.graph = graph
        self.turned = turned
        self.sizes = sizes
        self.labels = labels
        self.column = {node: number for number, cluster in enumerate(graph.clusters) for node in cluster.nodes}
        self.layers = list(dict.fromkeys(graph.clusters[self.column[key]].layer for key in sorted(self.column)))
        self.inner: list[int] = []
        self.across: list[int] = []
        self.outer: list[int] = []
        for number, edge in enumerate(graph.edges):
            one, other = self.column.get(edge.source), self.column.get(edge.target)
            if one is None or other is None or graph.clusters[one].layer != graph.clusters[other].layer:
                self.outer.append(number)
            else:
                (self.inner if one == other else self.across).append(number)
        self.names = self._names()
        self.depth = self._depths(self.inner, self.column)
        self.block = self._blocks()
        self.depth_outside = self._depths(self.outer, [node.key for node in graph.nodes if node.key not in self.column])
        self.result = Layout()
        self.doors: dict[tuple[str, int], Point] = {}
        self.pieces: dict[tuple[str, int], tuple[list[Point], Point | None]] = {}
        self.walls: dict[int, tuple[float, float]] = {}

    # -- what belongs together --------------------------------------------------------------------------------------------------

    def _names(self) -> dict[int, Hashable]:
        """What a node shares its height with in the other columns: states and gates of one name, a highway and the boxes on it."""
        names: dict[int, Hashable] = {node.key: node.key for node in self.graph.nodes}
        for cluster in self.graph.clusters:
            alike: dict[Hashable, list[int]] = {}
            for key in cluster.nodes:
                node = self.graph.nodes[key]
                if node.shape != "fold":
                    alike.setdefault((cluster.layer, node.shape, timeless(node.label)), []).append(key)
            names |= {keys[0]: name for name, keys in alike.items() if len(keys) == 1}
        crossing = [self.graph.edges[number] for number in self.across]
        below = {self.graph.edges[number].target for number in self.inner if self.graph.edges[number].lane is not None}
        for edge in crossing:
            if edge.lane is not None:  # where the highway begins inside of a step, it runs down to there first
                names |= {end: ("lane", edge.lane, end in below) for end in (edge.source, edge.target)}
        for edge in crossing:
            for box, state in ((edge.source, edge.target), (edge.target, edge.source)):
                if self.graph.nodes[box].shape == "fold" and self.graph.nodes[state].shape == "state" and names[box] == box:
                    names[box] = names[state]
        return names

    def _depths(self, edges: Iterable[int], nodes: Iterable[int]) -> dict[int, int]:
        """By how many edges each node is below the top, where nodes of one name are as deep as the deepest of them."""
        edges = sorted(edges, key=lambda number: self.graph.edges[number].source)
        inside = set(nodes)
        depth = {self.names[node]: 0 for node in inside}
        pairs = [(self.names[edge.source], self.names[edge.target]) for edge in (self.graph.edges[number] for number in edges)]
        pairs = [(one, other) for one, other in pairs if one != other and one in depth and other in depth]
        scopes = [self._held(set(scope.nodes)) for scope in self.graph.scopes if inside.issuperset(scope.nodes)]
        for attempt in (scopes, []):  # what comes after a scope is below all of it, unless scopes take turns
            found = dict(depth)
            for _ in range(len(self.graph.clusters) + len(attempt) + 1):
                before = dict(found)
                for one, other in pairs:
                    found[other] = max(found[other], found[one] + 1)
                for held, after in attempt:
                    bottom = max((found[node] for node in held), default=-1)
                    found.update({node: max(found[node], bottom + 1) for node in after})
                if found == before:
                    break
            else:
                continue
            break
        depth = found
        levels = {level: place for place, level in enumerate(sorted(set(depth.values())))}
        return {node: levels[depth[self.names[node]]] for node in sorted(inside)}

    def _held(self, nodes: set[int]) -> tuple[list[Hashable], list[Hashable]]:
        """The nodes of a scope, and those that they lead to outside of it."""
        after = {edge.target for edge in self.graph.edges if edge.source in nodes and edge.target not in nodes}
        return [self.names[node] for node in sorted(nodes)], [self.names[node] for node in sorted(after)]

    def _blocks(self) -> dict[int, int]:
        """From top to bottom: 2k + 1 is layer k, and 2k what is outside of time and comes after k layers."""
        layers = [None if (at := self.column.get(node.key)) is None else self.graph.clusters[at].layer for node in self.graph.nodes]
        block = {key: 0 if layer is None else 2 * self.layers.index(layer) + 1 for key, layer in enumerate(layers)}
        for number in sorted(self.outer, key=lambda number: self.graph.edges[number].source):
            edge = self.graph.edges[number]
            if edge.target not in self.column:
                block[edge.target] = max(block[edge.target], (block[edge.source] + 1) // 2 * 2)
        return block

    # -- from top to bottom -----------------------------------------------------------------------------------------------------

    def layout(self) -> Layout:
        self._sides: tuple[set[Hashable], set[Hashable]] = set(), set()
        for edge in (self.graph.edges[number] for number in self.across):
            backward = self._first(edge.target) < self._first(edge.source)
            self._sides[not backward].add(self.names[edge.source])
            self._sides[backward].add(self.names[edge.target])
        self.rows = {number: self._column_rows(number) for number in range(len(self.graph.clusters))}
        self._set_columns()
        y = 0.0
        for block in range(2 * len(self.layers) + 1):
            nodes = [node.key for node in self.graph.nodes if self.block[node.key] == block]
            if nodes:
                y = (self._set_layer(block, y) if block % 2 else self._set_outside(nodes, y)) + BETWEEN
        gaps: dict[tuple[int, int], list[int]] = {}
        for number in self.across:
            gaps.setdefault((self.block[self.graph.edges[number].source], self._gap(number)), []).append(number)
        for (_, time), numbers in gaps.items():
            self._cross(time, numbers)
        for number in [*self.outer, *self.inner]:
            if number not in self.result.routes:
                self._connect(number)
        return self.result

    def _first(self, node: int) -> int:
        return self.graph.clusters[self.column[node]].first

    def _gap(self, number: int) -> int:
        """The gap through which an edge from step to step passes: it is left of the later step."""
        edge = self.graph.edges[number]
        return max(self._first(edge.source), self._first(edge.target))

    def _falls(self, number: int) -> bool:
        """Whether an edge leads downward."""
        edge = self.graph.edges[number]
        one, other = self.block[edge.source], self.block[edge.target]
        return one < other or (one == other and one % 2 == 1 and self.depth[edge.source] < self.depth[edge.target])

    def _place(self, key: int) -> tuple[int, int]:
        """Gates stand in their order; whatever else stands as it was met, on the left."""
        gate = self.graph.nodes[key].gate
        return GATES.index(gate) + 1 if gate in GATES else 0, key

    def _column_rows(self, column: int) -> Rows:
        """What stands beside what in a column. Edges to and from elsewhere have a door at its top or bottom."""
        graph, edges = self.graph, self.graph.edges
        cluster = graph.clusters[column]
        deepest = max(self.depth[key] for other in graph.clusters if other.layer == cluster.layer for key in other.nodes)
        levels: dict[Item, int] = {key: self.depth[key] + 1 for key in sorted(cluster.nodes, key=self._place)}
        links = [Link(e, edges[e].source, edges[e].target, self.labels[e][0]) for e in self.inner if self.column[edges[e].source] == column]
        links = [link for link in links if self._falls(link.name)]
        links.sort(key=lambda link: self._place(link.end))
        for number in filter(self._falls, self.outer):
            edge = edges[number]
            if self.column.get(edge.target) == column:
                levels["entry", number] = 0
                links.append(Link(("entry", number), ("entry", number), edge.target, self.labels[number][0]))
            if self.column.get(edge.source) == column:
                levels["exit", number] = deepest + 2
                label = 0.0 if edge.target in self.column else self.labels[number][0]
                links.append(Link(("exit", number), edge.source, ("exit", number), label))
        left, right = self._sides
        widths = {item: self.sizes[item][0] if isinstance(item, int) else 2.0 for item in levels}
        first, last = ([key for key in cluster.nodes if self.names[key] in side] for side in (left - right, right - left))
        return in_rows(levels, widths, links, first=first, last=last)

    def _set_columns(self) -> None:
        """From left to right: for each time a column as wide as the widest layer needs, and a gap for the labels in it."""
        self.gaps = dict.fromkeys(sorted({cluster.first for cluster in self.graph.clusters}), 2 * GAP)
        steep: dict[tuple[int, int], float] = {}
        for number in self.across:
            edge, time, wide = self.graph.edges[number], self._gap(number), self.labels[number][0]
            if self.depth[edge.source] != self.depth[edge.target]:
                at = self.block[edge.source], time
                wide = steep[at] = steep.get(at, -GAP) + wide + GAP
            self.gaps[time] = max(self.gaps[time], wide + 2 * GAP)
        self.slots: dict[int, tuple[float, float]] = {}
        x = 0.0
        for time in self.gaps:
            here = [number for number, cluster in enumerate(self.graph.clusters) if cluster.first == time]
            spans = {number: self.rows[number].span() for number in here}
            titles = [text_width(title(self.graph, self.graph.clusters[number]), 12) for number in here]
            width = max([high - low for low, high in spans.values()] + titles) + 2 * PAD
            x += self.gaps[time] if self.slots else 0.0
            self.slots[time] = x, x + width
            for number, (low, high) in spans.items():
                shift = x + width / 2 - (low + high) / 2
                self.rows[number].x = {item: at + shift for item, at in self.rows[number].x.items()}
            x += width

    def _set_layer(self, block: int, top: float) -> float:
        """Heights of the rows that the columns of a layer have in common, and what follows from them."""
        columns = [number for number, cluster in enumerate(self.graph.clusters) if cluster.layer == self.layers[block // 2]]
        heights, bottom = self._heights([self.rows[number] for number in columns], top + TITLE)
        bottom += PAD
        for number in columns:
            left, right = self.slots[self.graph.clusters[number].first]
            self.result.boxes[number] = left, top, right, bottom
            self._set_rows(self.rows[number], heights)
        self.walls[block] = top, bottom
        return bottom

    def _set_outside(self, nodes: list[int], top: float) -> float:
        """What is outside of time, in rows of its own."""
        inside, edges = set(nodes), self.graph.edges
        own = [number for number in self.outer if edges[number].source in inside and edges[number].target in inside]
        levels: dict[Item, int] = dict(self._depths(own, nodes))
        links = [Link(number, edges[number].source, edges[number].target, self.labels[number][0]) for number in own]
        widths = {item: self.sizes[item][0] for item in levels}
        wishes: dict[Item, list[float]] = {}
        deepest = max(levels.values())
        for number in set(self.outer) - set(own):
            edge = edges[number]
            if edge.source in inside and self._falls(number):
                door = ("exit", number)
                levels[door], widths[door] = deepest + 1, 2.0
                links.append(Link(door, edge.source, door, 0.0 if edge.target in self.column else self.labels[number][0]))
                if edge.target in self.column:
                    below = edge.target in self.column and self.block[edge.target] > self.block[edge.source] + 1
                    wishes[door] = [self._corridor(edge) if below else self.rows[self.column[edge.target]].x["entry", number]]
            elif edge.target in inside:
                column = self.column.get(edge.source)
                from_above = self.result.nodes[edge.source][0] if column is None else self.rows[column].x["exit", number]
                wishes.setdefault(edge.target, []).append(from_above)
        drawing = in_rows(levels, widths, links, wish={item: sum(goals) / len(goals) for item, goals in wishes.items()})
        heights, bottom = self._heights([drawing], top, self._rims(levels))
        self._set_rows(drawing, heights)
        return bottom

    def _rims(self, levels: dict[Item, int]) -> dict[int, float]:
        """The room between two levels that the titles and rims of the scopes need which begin or end there, by the row between them."""
        rims: dict[int, float] = {}
        over, under = (RIM, RIM) if self.turned else (RIM_TOP, RIM_BOTTOM)
        for side, row, room in ((min, -1, over), (max, 1, under)):
            found: dict[int, dict[int, int]] = {}
            for scope in self.graph.scopes:
                nested = found.setdefault(2 * side([levels[key] for key in scope.nodes]) + row, {})
                nested[len(scope.path)] = 1
            for at, nested in found.items():
                rims[at] = rims.get(at, 0.0) + room * len(nested)
        return rims

    def _heights(
        self, drawings: Iterable[Rows], top: float, rims: Mapping[int, float] = MappingProxyType({})
    ) -> tuple[dict[int, tuple[float, float]], float]:
        """Where each row begins and ends, and where the last one does."""
        tall: dict[int, float] = {}
        for drawing in drawings:
            for row, items in drawing.rows.items():
                tall[row] = max([tall.get(row, 0.0), *(self._height(item) for item in items)])
        rows = {}
        for row in range(max(tall, default=-1) + 1):
            room = ROW + rims.get(row, 0.0) / 2 if row % 2 else 0.0
            rows[row] = top + room, top + room + tall.get(row, 0.0)
            top = rows[row][1] + room
        return rows, top

    def _height(self, item: Item) -> float:
        if isinstance(item, int):
            return self.sizes[item][1]
        if item[0] != "label":
            return 0.0
        return self.labels[item[1] if isinstance(item[1], int) else item[1][1]][1]

    def _set_rows(self, drawing: Rows, heights: dict[int, tuple[float, float]]) -> None:
        """Nodes where the rows have them, and the edges between them, which run straight along the labels that they pass."""
        row_of = {item: row for row, items in drawing.rows.items() for item in items}
        middle = {item: sum(heights[row]) / 2 for item, row in row_of.items()}
        self.result.nodes |= {item: (drawing.line(item), y) for item, y in middle.items() if isinstance(item, int)}
        for name, chain in drawing.chains.items():
            way: list[Point] = []
            for item in chain:
                x, (top, bottom) = drawing.line(item), heights[row_of[item]]
                passing = item not in (chain[0], chain[-1]) and bottom > top
                way += [(x, top), (x, bottom)] if passing else [(x, middle[item])]
            label = None
            if name in drawing.labelled:
                sign = drawing.labelled[name]
                label = drawing.line(sign) + drawing.widths[sign] / 2 + 2, middle[sign]
            if isinstance(name, int):
                self.result.routes[name] = self._falling(name, way, label)
            else:
                self.pieces[name] = way, label

    # -- the ways of edges ------------------------------------------------------------------------------------------------------

    def _falling(self, number: int, way: list[Point], label: Point | None) -> Route:
        """From the lower side of the source to the upper side of the target through points below each other, as smooth as can be."""
        edge = self.graph.edges[number]
        way = [self._border(edge.source, way[1]), *way[1:-1], self._border(edge.target, way[-2])]
        return Route(_smooth(way), label)

    def _border(self, node: int, towards: Point) -> Point:
        """Where an edge touches a node that comes from a point above or below it."""
        x, y = self.result.nodes[node]
        width, height = self.sizes[node]
        aside = max(-0.32 * width, min(0.32 * width, (towards[0] - x) * 0.35))
        reach = height / 2
        if self.graph.nodes[node].shape in ("gate", "operation"):
            reach *= math.sqrt(1.0 - (2 * aside / width) ** 2)
        return x + aside, y + math.copysign(reach, towards[1] - y)

    def _side(self, node: int, x: float, towards: float | None = None) -> Point:
        """The middle of the left or right side of a node, whichever is nearer; a little higher or lower if that is taken."""
        at, y = self.result.nodes[node]
        wide, high = self.sizes[node]
        aside = 0.0 if towards is None else math.copysign(min(8.0, high / 4), towards - y)
        return at + math.copysign(wide / 2, x - at), y + aside

    def _cross(self, time: int, numbers: list[int]) -> None:
        """The edges through a gap: level where both ends have the same height, and otherwise up or down in the gap."""
        middle = self.slots[time][0] - self.gaps[time] / 2
        nodes, edges = self.result.nodes, self.graph.edges
        level = {number: nodes[edges[number].source][1] == nodes[edges[number].target][1] for number in numbers}
        wished = {number: (nodes[edges[number].source][1] + nodes[edges[number].target][1]) / 2 for number in numbers}
        order = sorted(numbers, key=lambda number: wished[number])
        spaces = [(self.labels[a][1] + self.labels[b][1]) / 2 + 4 for a, b in pairwise(order)]
        heights = apart([wished[n] for n in order], spaces, [1e9 if level[n] and edges[n].lane is not None else 1.0 for n in order])
        taken = {end for number in numbers if level[number] for end in (edges[number].source, edges[number].target)}
        steep = [number for number in numbers if not level[number]]
        x = middle - sum(self.labels[number][0] + GAP for number in steep) / 2
        lines = dict.fromkeys(numbers, middle)
        for number in sorted(steep, key=lambda number: wished[number]):
            lines[number] = x + (self.labels[number][0] + GAP) / 2
            x += self.labels[number][0] + GAP
        for number, height in zip(order, heights, strict=True):
            source, target = edges[number].source, edges[number].target
            if level[number] and abs(height - wished[number]) < 1.0:
                (x, y), (end, _) = self._side(source, middle), self._side(target, middle)
                self.result.routes[number] = Route([(x, y), ((2 * x + end) / 3, y), ((x + 2 * end) / 3, y), (end, y)], (middle, y))
                continue
            turn = lines[number], height
            start, end_at = (self._side(node, middle, height if node in taken else None) for node in (source, target))
            self.result.routes[number] = Route(_through(start, turn, end_at), turn)

    def _connect(self, number: int) -> None:
        """An edge between blocks: through the doors of columns, and beside the columns of the layers that it passes."""
        edge = self.graph.edges[number]
        nodes = self.result.nodes
        if not self._falls(number):  # what an upper layer handed to a lower one: up through the gap between their steps
            x = self.slots[self._gap(number)][0] - 7.0
            label = x, self.walls[self.block[edge.source]][0] - BETWEEN / 2
            start, end = (self._side(node, x, label[1]) for node in (edge.source, edge.target))
            below, above = (x, start[1] - TURN), (x, end[1] + TURN)
            way = [start, (start[0] + 0.85 * (x - start[0]), start[1]), (x, start[1]), below]
            way += [below, above, above, (x, end[1]), (end[0] + 0.85 * (x - end[0]), end[1]), end]
            self.result.routes[number] = Route(way, label)
            return
        leaving, said = self.pieces.get(("exit", number), ([nodes[edge.source]], None))
        entering, also = self.pieces.get(("entry", number), ([nodes[edge.target]], None))
        if edge.target in self.column:
            entering = [(entering[0][0], self.walls[self.block[edge.target]][0] - 4.0), *entering]
        between: list[Point] = []
        for block in range(self.block[edge.source] + 1, self.block[edge.target]):
            if block in self.walls:
                x, (top, bottom) = self._corridor(edge), self.walls[block]
                between += [(x, top - 6.0), (x, bottom + 6.0)]
        said = said or also
        if said is None:
            one, other = (between[0], between[1]) if between else (leaving[-1], entering[0])
            said = (one[0] + other[0]) / 2 + self.labels[number][0] / 2 + 4, (one[1] + other[1]) / 2
        self.result.routes[number] = self._falling(number, [*leaving, *between, *entering], said)

    def _corridor(self, edge: RenderEdge) -> float:
        """Beside which column an edge passes a layer: left of that of its target, or of its source."""
        for end in (edge.target, edge.source):
            if end in self.column:
                return self.slots[self._first(end)][0] - 7.0
        x = self.result.nodes[edge.source][0]
        walls = [left - 7.0 for left, _ in self.slots.values()] + [right + 7.0 for _, right in self.slots.values()]
        return min(walls, key=lambda wall: abs(wall - x), default=x)


def _smooth(way: Sequence[Point]) -> list[Point]:
    """A curve through points of which each is lower than the one before (Hermite's, as Bézier's pieces); straight where two are in line."""
    slopes = []
    for at, (x, _) in enumerate(way):
        (over, above), (under, below) = way[max(at - 1, 0)], way[min(at + 1, len(way) - 1)]
        level = x in (over, under) and 0 < at < len(way) - 1
        slopes.append(0.0 if level or below <= above else (under - over) / (below - above))
    points = [way[0]]
    for at, ((x, y), (onward, below)) in enumerate(pairwise(way)):
        third = (below - y) / 3
        points += [(x + slopes[at] * third, y + third), (onward - slopes[at + 1] * third, below - third), (onward, below)]
    return points


def _through(start: Point, middle: Point, end: Point) -> list[Point]:
    """Sideways out of a node, up or down through a point, and sideways into another."""
    (x, y), (at, height), (other, onward) = start, middle, end
    return [
        start,
        (x + 0.85 * (at - x), y),
        (at, height + 0.6 * (y - height)),
        middle,
        (at, height + 0.6 * (onward - height)),
        (other + 0.85 * (at - other), onward),
        end,
    ]
