"""A :class:`RenderGraph` as DOT text: the same bytes in every run.

Ranks run from right to left. Each step is a cluster between two invisible points, its way in and its way out; way out to way in, the
steps follow each other. A highway is drawn through these points, which keeps it straight.
"""

from __future__ import annotations

import html
from collections.abc import Iterator

from ..linear_maps import KINDS
from .model import RenderCluster, RenderEdge, RenderGraph, RenderNode
from .style import FONT, LANE_WIDTH, LINES, MEANINGS, Theme, shade, width
from .text import cleaned, span, wrapped


def quoted(text: str) -> str:
    """A DOT string that shows this text, whatever it contains; line breaks stay."""
    lines = (cleaned(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'


def attributes(**values: object) -> str:
    """An attribute list. Strings are quoted; those that are DOT text already come as :class:`Raw`."""
    parts = (f"{name}={value if isinstance(value, (Raw, int, float)) else quoted(str(value))}" for name, value in values.items())
    return f"[{' '.join(parts)}]"


class Raw(str):
    """DOT text that needs no quoting."""

    __slots__ = ()


def dot_lines(graph: RenderGraph, theme: Theme) -> list[str]:
    """The lines between the braces."""
    return [f"\t{line}\n" for line in _Writer(graph, theme).lines()]


class _Writer:
    def __init__(self, graph: RenderGraph, theme: Theme) -> None:
        self.graph = graph
        self.theme = theme
        self.cluster_of = {node: number for number, cluster in enumerate(graph.clusters) for node in cluster.nodes}

    def lines(self) -> Iterator[str]:
        yield from self._head()
        for number, cluster in enumerate(self.graph.clusters):
            yield from self._cluster(number, cluster)
        for node in self.graph.nodes:
            if node.key not in self.cluster_of:
                yield self._node(node)
        yield from self._order()
        for edge in self.graph.edges:
            yield from self._edge(edge)

    def _head(self) -> Iterator[str]:
        theme = self.theme
        yield "graph " + attributes(
            rankdir=Raw("RL"),
            newrank=Raw("true"),
            nodesep=0.14,
            ranksep=0.12,
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
        cells = [self._sample(theme.kinds[kind], LINES[kind].upper(), 3) + _cell(MEANINGS[kind]) for kind in used]
        if any(graph.lanes):
            cells.append(self._sample(theme.highway, "SOLID", 6) + _cell("highway: no matrix from state to state", bold=True))
        for name, lane in zip(graph.layers, graph.lanes, strict=True):
            if lane is False:
                cells.append(_cell(f"{name}: no matmul-free path", bold=True))
        cells.append(
            _cell(f"numbers are gains; {graph.count} multiplications, from the loss (right) to the inputs (left)", colour=theme.muted)
        )
        return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="4" CELLPADDING="1"><TR>{"".join(cells)}</TR></TABLE>'

    def _sample(self, colour: str, style: str, weight: int) -> str:
        return f'<TD WIDTH="34" HEIGHT="8" CELLPADDING="0" BORDER="{weight}" SIDES="B" COLOR="{colour}" STYLE="{style}"></TD>'

    # -- nodes ------------------------------------------------------------------------------------------------------------------

    def _cluster(self, number: int, cluster: RenderCluster) -> Iterator[str]:
        theme = self.theme
        yield f"subgraph cluster_{number} {{"
        label = cluster.label if len(self.graph.layers) < 2 else f"{self.graph.layers[cluster.layer]}  {cluster.label}"
        yield "\tgraph " + attributes(
            label=label, labelloc=Raw("t"), style="rounded,filled", color=theme.frame, fillcolor=theme.step, fontcolor=theme.muted, margin=8
        )
        nodes = [self.graph.nodes[key] for key in cluster.nodes]
        for node in nodes:
            yield "\t" + self._node(node)
        if not self.graph.rolled:
            yield from self._gates_of(number, cluster)
        yield "}"

    def _gates_of(self, number: int, cluster: RenderCluster) -> Iterator[str]:
        """The way in on the right of a cluster and the way out on its left."""
        inside = set(cluster.nodes)
        edges = [edge for edge in self.graph.edges if edge.source in inside and edge.target in inside]
        point = self._point(cluster.layer)
        yield f"\tin{number} {point}"
        yield f"\tout{number} {point}"
        fed, feeding = {edge.target for edge in edges}, {edge.source for edge in edges}
        for key in cluster.nodes:
            if key not in fed:
                yield f"\tin{number} -> n{key} [style=invis minlen=0 weight=0]"
            if key not in feeding:
                yield f"\tn{key} -> out{number} [style=invis minlen=0 weight=0]"

    def _point(self, layer: int) -> str:
        if not self.graph.lanes[layer]:
            return "[shape=point style=invis width=0.01 height=0.01]"
        return attributes(shape=Raw("point"), width=0.01, height=0.01, color=self.theme.highway, group=f"lane{layer}")

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
            look |= {"style": "rounded,dashed", "fontsize": 14}
        if node.lane is not None and node.shape != "fold":
            look |= {"color": theme.highway, "penwidth": 2.5, "group": f"lane{node.lane}"}
        return f"n{node.key} {attributes(**look)}"

    def _label(self, node: RenderNode) -> object:
        if not node.note:
            return node.label
        note = f'<FONT POINT-SIZE="9">{_escaped(node.note)}</FONT>'
        return Raw(f"<{_escaped(node.label)}<BR/>{note}>")

    # -- edges ------------------------------------------------------------------------------------------------------------------

    def _order(self) -> Iterator[str]:
        """One step after the other, and the same step of all layers above each other."""
        if self.graph.rolled:
            return
        clusters = list(enumerate(self.graph.clusters))
        for (earlier, before), (later, after) in zip(clusters, clusters[1:], strict=False):
            if before.layer == after.layer:
                yield f"out{later} -> in{earlier} [style=invis weight=0]"
        for first in sorted({cluster.first for _, cluster in clusters}):
            same = [f"in{number}" for number, cluster in clusters if cluster.first == first]
            if len(same) > 1:
                yield f"{{rank=same; {'; '.join(same)}}}"

    def _edge(self, edge: RenderEdge) -> Iterator[str]:
        theme = self.theme
        if edge.lane is not None:
            yield from self._lane(edge)
            return
        gain = "" if edge.kind == "add" and edge.low == edge.high == 1.0 else span(edge.low, edge.high)
        if edge.kind == "route" and gain == "1":
            gain = ""
        times = f"{edge.count} ×" if edge.count > 1 and not self.graph.rolled else ""
        loop = "t → t−1" if self.graph.rolled and edge.back else ""
        look: dict[str, object] = {
            "label": "\n".join(part for part in (wrapped(edge.label), gain, times, loop) if part),
            "color": shade(theme.kinds[edge.kind], theme.background, edge.high),
            "style": Raw(LINES[edge.kind]),
            "penwidth": width(edge.high),
        }
        source, target = self.cluster_of.get(edge.source), self.cluster_of.get(edge.target)
        if self.graph.rolled and edge.back:
            look["constraint"] = Raw("false")
        elif source is not None and target is not None and source != target:
            one, other = self.graph.clusters[source], self.graph.clusters[target]
            if one.layer != other.layer or other.first > one.first:
                look["constraint"] = Raw("false")
            else:
                look["weight"] = 3
        yield f"n{edge.source} -> n{edge.target} {attributes(**look)}"

    def _lane(self, edge: RenderEdge) -> Iterator[str]:
        """A piece of highway; between steps it runs through the ways out and in."""
        colour = self.theme.highway
        bold = {"color": colour, "penwidth": LANE_WIDTH, "weight": 100}
        label = f"{edge.label}  {span(edge.low, edge.high)}" if edge.label else ""
        named = bold | {"label": label, "fontcolor": colour, "fontsize": 12}
        source, target = self.cluster_of.get(edge.source), self.cluster_of.get(edge.target)
        if source is None or target is None or source == target:
            yield f"n{edge.source} -> n{edge.target} {attributes(**named)}"
            return
        start, end = f"n{edge.source}", f"n{edge.target}"
        if self.graph.nodes[edge.source].shape == "fold":
            start = ""
        if self.graph.nodes[edge.target].shape == "fold":
            end = ""
        headless = {"arrowhead": Raw("none")}
        if start:
            yield f"{start} -> out{source} {attributes(**(named | headless))}"
        else:
            yield f"in{source} -> out{source} {attributes(**(bold | headless))}"
        yield f"out{source} -> in{target} {attributes(**(bold | headless | ({} if start else {'label': label})))}"
        if end:
            yield f"in{target} -> {end} {attributes(**bold)}"


def _escaped(text: str) -> str:
    return html.escape(cleaned(text))


def _cell(text: str, *, bold: bool = False, colour: str | None = None) -> str:
    inner = f"<B>{_escaped(text)}</B>" if bold else _escaped(text)
    return f"<TD>{inner}</TD>" if colour is None else f'<TD><FONT COLOR="{colour}">{inner}</FONT></TD>'
