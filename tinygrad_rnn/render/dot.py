"""A :class:`RenderGraph` as DOT text: the same bytes in every run.

Ranks run from right to left. Each step is a cluster between a way in on its right and a way out on its left, invisible points that
keep the steps in order. What goes from step to step passes through points like them, which keeps it straight and out of other boxes.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from itertools import groupby, pairwise

from ..linear_maps import KINDS
from .model import RenderCluster, RenderEdge, RenderGraph, RenderNode
from .style import FONT, LANE_WIDTH, LINES, MEANINGS, Theme, line_colour, width
from .text import cleaned, span, wrapped


class Raw(str):
    """DOT text that needs no quoting."""

    __slots__ = ()


def quoted(text: str) -> str:
    """A DOT string that shows this text, whatever it contains; line breaks stay."""
    lines = (cleaned(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'


def attributes(**values: object) -> str:
    """An attribute list: text is quoted, numbers and :class:`Raw` are not."""
    parts = (f"{name}={value if isinstance(value, (Raw, int, float)) else quoted(str(value))}" for name, value in values.items())
    return f"[{' '.join(parts)}]"


def dot_lines(graph: RenderGraph, theme: Theme) -> list[str]:
    """The lines between the braces."""
    return [f"\t{line}\n" for line in _Writer(graph, theme).lines()]


class _Writer:
    def __init__(self, graph: RenderGraph, theme: Theme) -> None:
        self.graph = graph
        self.theme = theme
        self.cluster_of = {node: number for number, cluster in enumerate(graph.clusters) for node in cluster.nodes}
        self.points: dict[int, list[str]] = {}
        going_on = {edge.source for edge in graph.edges if edge.lane is not None}
        self.arrivals = {node.key for node in graph.nodes if node.shape == "fold" and node.key not in going_on}
        self.crossing = [self._crosses(position, edge) for position, edge in enumerate(graph.edges)]
        self.trunks = {
            key: f"state{graph.clusters[self.cluster_of[edge.source]].layer}"
            for edge, crosses in zip(graph.edges, self.crossing, strict=True)
            for key in (edge.source, edge.target)
            if crosses and edge.lane is None
        }

    def lines(self) -> Iterator[str]:
        yield from self._head()
        several = len({cluster.layer for cluster in self.graph.clusters}) > 1
        for layer, clusters in groupby(enumerate(self.graph.clusters), key=lambda numbered: numbered[1].layer):
            if several:
                yield f"subgraph cluster_layer{layer} {{"
                yield "\tgraph " + attributes(
                    label=self.graph.layers[layer],
                    labelloc=Raw("t"),
                    labeljust=Raw("l"),
                    style="rounded",
                    color=self.theme.frame,
                    margin=12,
                )
            for number, cluster in clusters:
                yield from self._cluster(number, cluster)
            if several:
                yield "}"
        for node in self.graph.nodes:
            if node.key not in self.cluster_of:
                yield self._node(node)
        yield from self._order()
        for position, edge in enumerate(self.graph.edges):
            yield from self._edge(position, edge)

    def _head(self) -> Iterator[str]:
        theme = self.theme
        yield "graph " + attributes(
            rankdir=Raw("RL"),
            newrank=Raw("true"),
            nodesep=0.15,
            ranksep=0.08,
            fontname=FONT,
            fontsize=12,
            fontcolor=theme.text,
            bgcolor=theme.background,
            labelloc=Raw("b"),
            label=Raw(f"<{self._legend()}>"),
        )
        yield "node " + attributes(
            shape=Raw("box"),
            style="rounded,filled",
            fontname=FONT,
            fontsize=13,
            fontcolor=theme.text,
            color=theme.muted,
            fillcolor=theme.value,
            margin="0.07,0.03",
            height=0.3,
            width=0.3,
        )
        yield "edge " + attributes(fontname=FONT, fontsize=10, fontcolor=theme.text, arrowsize=0.7)

    # -- legend -----------------------------------------------------------------------------------------------------------------

    def _legend(self) -> str:
        theme, graph = self.theme, self.graph
        used = [kind for kind in KINDS if any(edge.kind == kind and edge.lane is None for edge in graph.edges)]
        cells = [_sample(theme.kinds[kind], LINES[kind].upper(), double=kind == "add") + _cell(MEANINGS[kind]) for kind in used]
        if any(graph.lanes):
            cells.append(_sample(theme.highway, "SOLID", weight=6) + _cell("highway: no matrix from state to state", bold=True))
        missing = [name for name, lane in zip(graph.layers, graph.lanes, strict=True) if lane is False]
        if missing:
            cells.append(_cell(f"{cleaned(', '.join(missing))}: no matmul-free path", bold=True))
        caption = f"{graph.count} backward multiplications, numbers are gains"
        table = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="{}" CELLPADDING="0">{}</TABLE>'
        rows = [table.format(5, "<TR>" + "".join(cells) + "</TR>")] if cells else []
        rows += [_coloured(line, theme.muted) for line in (caption, "from the loss on the right to the inputs on the left")]
        return table.format(0, "".join(f"<TR><TD>{row}</TD></TR>" for row in rows))

    # -- nodes ------------------------------------------------------------------------------------------------------------------

    def _cluster(self, number: int, cluster: RenderCluster) -> Iterator[str]:
        theme = self.theme
        yield f"subgraph cluster_{number} {{"
        yield "\tgraph " + attributes(
            label=cluster.label,
            labelloc=Raw("t"),
            style="rounded,filled",
            color=theme.frame,
            fillcolor=theme.step,
            fontcolor=theme.muted,
            margin=8,
        )
        for key in cluster.nodes:
            yield "\t" + self._node(self.graph.nodes[key])
        yield from self._ways(number, cluster)
        yield "}"

    def _ways(self, number: int, cluster: RenderCluster) -> Iterator[str]:
        """The way in on the right of a cluster and the way out on its left, and the points beside them."""
        inside, theme = set(cluster.nodes), self.theme
        edges = [edge for edge in self.graph.edges if edge.source in inside and edge.target in inside]
        yield f"\tin{number}, out{number} [shape=point style=invis width=0.01]"
        points = self.points.get(number, [])
        for point in points:
            group, side, _ = point.split("_")
            tip = side == "out" and inside & self.arrivals
            look: dict[str, object] = {"width": 0.01, "style": "invis"}
            if group.startswith("lane") and not tip:  # as wide as the line, so that its pieces meet without a seam
                look = {"width": round(LANE_WIDTH / 72, 3), "color": theme.highway, "fillcolor": theme.highway, "penwidth": 0}
            yield f"\t{point} {attributes(shape=Raw('point'), group=group, **look)}"
        for side in ("in", "out"):
            beside = [point for point in points if point.split("_")[1] == side]
            if beside:
                yield f"\t{{rank=same; {side}{number}; {'; '.join(beside)}}}"
        fed, feeding = {edge.target for edge in edges}, {edge.source for edge in edges}
        for key in cluster.nodes:
            if key not in fed:
                yield f"\tin{number} -> n{key} [style=invis minlen=0 weight=0]"
            if key not in feeding:
                yield f"\tn{key} -> out{number} [style=invis minlen=0 weight=0]"

    def _node(self, node: RenderNode) -> str:
        theme = self.theme
        look: dict[str, object] = {"label": self._label(node), "tooltip": node.tooltip}
        if node.shape == "root":
            look |= {"peripheries": 2, "style": "filled"}
        elif node.shape == "state":
            look |= {"fillcolor": theme.state, "color": theme.text}
        elif node.shape == "gate":
            look |= {
                "shape": Raw("ellipse"),
                "style": "filled",
                "fillcolor": theme.tints.get(node.gate or "", theme.gate),
                "margin": "0.02,0",
            }
        elif node.shape == "leaf":
            look |= {"style": "filled", "color": theme.frame, "fillcolor": theme.gate, "fontcolor": theme.muted, "fontsize": 11}
        elif node.shape == "operation":
            look |= {"shape": Raw("circle"), "style": "filled", "margin": "0,0"}
        elif node.shape == "fold":
            look |= {"style": "rounded,dashed", "fontsize": 14, "group": f"state{self.graph.clusters[self.cluster_of[node.key]].layer}"}
        if node.lane is not None and node.shape != "fold":
            look |= {"color": theme.highway, "penwidth": 2.5, "group": f"lane{node.lane}"}
        elif node.key in self.trunks:
            look["group"] = self.trunks[node.key]
        return f"n{node.key} {attributes(**look, **{'class': f'n{node.key}'})}"

    def _label(self, node: RenderNode) -> object:
        if not node.note:
            return node.label
        size = 12 if node.shape == "fold" else 9
        return Raw(f'<{_escaped(node.label)}<BR/><FONT POINT-SIZE="{size}">{_escaped(node.note)}</FONT>>')

    # -- edges ------------------------------------------------------------------------------------------------------------------

    def _order(self) -> Iterator[str]:
        """One step after the other, and the same step of all layers above each other."""
        clusters = list(enumerate(self.graph.clusters))
        for (earlier, before), (later, after) in pairwise(clusters):
            if before.layer == after.layer:
                yield f"out{later} -> in{earlier} [style=invis weight=0]"
        for first in sorted({cluster.first for _, cluster in clusters}):
            same = [f"in{number}" for number, cluster in clusters if cluster.first == first]
            if len(same) > 1:
                yield f"{{rank=same; {'; '.join(same)}}}"

    def _crosses(self, position: int, edge: RenderEdge) -> bool:
        """Whether an edge leads to an earlier step of its layer; if so, it gets points to pass through."""
        source, target = self.cluster_of.get(edge.source), self.cluster_of.get(edge.target)
        if source is None or target is None:
            return False
        one, other = self.graph.clusters[source], self.graph.clusters[target]
        if one.layer != other.layer or other.first >= one.first:
            return False
        sides = [(source, "out"), (target, "in")]
        if edge.lane is not None:  # the highway does not stop at a box but runs through it, from its way in to its way out
            sides += [(source, "in")] if self.graph.nodes[edge.source].shape == "fold" else []
            sides += [(target, "out")] if self.graph.nodes[edge.target].shape == "fold" else []
        for cluster, side in sides:
            point = self._point(position, edge, cluster, side)
            if point not in self.points.setdefault(cluster, []):
                self.points[cluster].append(point)
        return True

    def _point(self, position: int, edge: RenderEdge, cluster: int, side: str) -> str:
        return (
            f"lane{edge.lane}_{side}_{cluster}" if edge.lane is not None else f"state{self.graph.clusters[cluster].layer}_{side}_{position}"
        )

    def _edge(self, position: int, edge: RenderEdge) -> Iterator[str]:
        look: dict[str, object] = self._look(edge) | {"class": f"e{position}"}
        source, target = self.cluster_of.get(edge.source), self.cluster_of.get(edge.target)
        start, end = f"n{edge.source}", f"n{edge.target}"
        if not self.crossing[position]:
            if source is not None and source != target and self.graph.nodes[edge.target].shape != "leaf":
                look["constraint"] = Raw("false")
            elif source is None and target is not None and look["label"]:
                look["minlen"] = 2
            yield f"{start} -> {end} {attributes(**look)}"
            return
        assert source is not None and target is not None
        out, into = self._point(position, edge, source, "out"), self._point(position, edge, target, "in")
        look["weight"] = 100 if edge.lane is not None else 20
        label = look.pop("label")
        leaving, through = {"headclip": Raw("false"), "arrowhead": Raw("none")}, {"tailclip": Raw("false")}
        lane = edge.lane is not None
        if lane and self.graph.nodes[edge.source].shape == "fold":
            start, leaving = self._point(position, edge, source, "in"), leaving | through
        yield f"{start} -> {out} {attributes(label=label, **look, **leaving)}"
        yield f"{out} -> {into} {attributes(**(look | leaving | through))}"
        if not (lane and self.graph.nodes[edge.target].shape == "fold"):
            yield f"{into} -> {end} {attributes(**look, **through)}"
        elif edge.target in self.arrivals:  # the highway ends at the far side of the box
            yield f"{into} -> {self._point(position, edge, target, 'out')} {attributes(**look, **through)}"

    def _look(self, edge: RenderEdge) -> dict[str, object]:
        """Label, colour and line of an edge."""
        theme = self.theme
        gain = span(edge.low, edge.high)
        if (edge.kind in ("add", "route") and gain == "1") or (edge.label == "" and edge.count > 1):
            gain = ""
        many = edge.count > 1 and not self.graph.rolled
        gain += " each" if many and gain else ""
        loop = {1: "t → t−1", -1: "t → t+1"}.get(edge.back or 0, "") if self.graph.rolled else ""
        if edge.lane is not None:
            colour = theme.highway
            label = f"{edge.label}  {gain}    {loop}".rstrip() + "\n "  # the empty line lifts it off the bold one
            return {"label": label, "fontcolor": colour, "fontsize": 13, "color": colour, "penwidth": LANE_WIDTH}
        times = f"{edge.count} times" if many else ""
        return {
            "label": "\n".join(part for part in (wrapped(edge.label), gain, times, loop) if part),
            "color": Raw(f'"{line_colour(theme, edge.kind, edge.high)}"'),
            "style": Raw(LINES[edge.kind]),
            "penwidth": width(edge.kind, edge.high),
        }


def _escaped(text: str) -> str:
    return _literal(cleaned(text))


def _literal(text: str) -> str:
    """Text inside an HTML-like label, where a backslash still begins an escape."""
    return html.escape(text).replace("\\", "\\\\")


def _cell(text: str, *, bold: bool = False) -> str:
    inner = _literal(text)
    return f'<TD VALIGN="BOTTOM">{"<B>" + inner + "</B>" if bold else inner}</TD>'


def _coloured(text: str, colour: str) -> str:
    return f'<FONT COLOR="{colour}">{_literal(text)}</FONT>'


def _sample(colour: str, style: str, *, double: bool = False, weight: int = 3) -> str:
    """A piece of line for the legend: the lower border of an empty cell, or both borders of a flat one."""
    if double:
        cell = f'<TD WIDTH="34" HEIGHT="3" BORDER="1" SIDES="TB" COLOR="{colour}"></TD>'
        return f'<TD><TABLE BORDER="0" CELLSPACING="0"><TR>{cell}</TR></TABLE></TD>'
    return f'<TD WIDTH="34" HEIGHT="8" BORDER="{weight}" SIDES="B" COLOR="{colour}" STYLE="{style}"></TD>'
