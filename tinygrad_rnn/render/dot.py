"""A :class:`RenderGraph` as DOT text with a place for everything: the same bytes in every run, and the same picture from every program.

The text is drawn with ``neato -n2``, which takes all places as they are. Where another layout is asked for it is a graph like any other.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator

from ..linear_maps import KINDS
from .layout import Route, Size, laid_out, scope_title, title
from .model import RenderCluster, RenderEdge, RenderGraph, RenderNode
from .style import ARROW, FONT, LANE_WIDTH, LINES, MEANINGS, Theme, line_colour, width
from .text import cleaned, span, text_width, wrapped


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


def dot_lines(graph: RenderGraph, theme: Theme, *, legend: bool = True) -> list[str]:
    """The lines between the braces; a page has a legend of its own."""
    return [f"\t{line}\n" for line in Writer(graph, theme, legend=legend).lines()]


class Writer:
    """The sizes of everything, the layout, and the lines of DOT text."""

    def __init__(self, graph: RenderGraph, theme: Theme, *, legend: bool = True) -> None:
        self.graph = graph
        self.theme = theme
        self.legend = legend
        self.narrow = len({cluster.first for cluster in graph.clusters}) > _FEW
        self.cluster_of = {node: number for number, cluster in enumerate(graph.clusters) for node in cluster.nodes}
        self.sizes = [_node_size(node) for node in graph.nodes]
        self.labels = [self._label_of(edge) for edge in graph.edges]
        self.layout = laid_out(graph, self.sizes, [label_size(edge, said) for edge, said in zip(graph.edges, self.labels, strict=True)])

    def lines(self) -> Iterator[str]:
        yield from self._head()
        for number, cluster in enumerate(self.graph.clusters):
            yield from self._cluster(number, cluster)
        yield from self._outside()
        for number, edge in enumerate(self.graph.edges):
            yield self._edge(number, edge)

    def _head(self) -> Iterator[str]:
        theme = self.theme
        yield "graph " + attributes(
            rankdir=Raw("TB" if self.graph.clusters else "RL"),
            fontname=FONT,
            fontsize=12,
            fontcolor=theme.text,
            bgcolor=theme.background,
            pad=0.1,
            **({"labelloc": Raw("b"), "label": Raw(f"<{self._legend()}>")} if self.legend else {}),
        )
        yield "node " + attributes(
            shape=Raw("box"),
            style="rounded,filled",
            fontname=FONT,
            fontsize=NODE_FONT,
            fontcolor=theme.text,
            color=theme.muted,
            fillcolor=theme.value,
            margin="0.02,0.01",
        )
        yield "edge " + attributes(fontname=FONT, fontsize=EDGE_FONT, fontcolor=theme.text, arrowsize=ARROW / 10)

    # -- legend -----------------------------------------------------------------------------------------------------------------

    def _legend(self) -> str:
        theme, graph = self.theme, self.graph
        if graph.forward:
            said = [f"{graph.count} operations, from the inputs to the result"]
            said += ["a dashed box is a closed one"] * any(node.shape == "fold" for node in graph.nodes)
            said += ["in a node: its value | ∂result/∂value"] * any("| ∂" in node.note for node in graph.nodes)
            return _coloured("; ".join(said), theme.muted)
        used = [kind for kind in KINDS if any(edge.kind == kind and edge.lane is None for edge in graph.edges)]
        cells = [(_sample(theme.kinds[kind], LINES[kind].upper(), double=kind == "add"), MEANINGS[kind]) for kind in used]
        if any(graph.lanes):
            cells.append((_sample(theme.highway, "SOLID", weight=6), "highway: no matrix from state to state"))
        missing = [name for name, lane in zip(graph.layers, graph.lanes, strict=True) if lane is False]
        if missing:
            cells.append(("", f"{cleaned(', '.join(missing))}: no matmul-free path"))
        numbers = "; in a node: its value | ∂loss/∂value" if any("| ∂" in node.note for node in graph.nodes) else ""
        way = "time runs to the right, the gradient down: from the loss to the inputs" if graph.clusters else "from the loss to the inputs"
        many = f"{graph.count} backward multiplication{'s' * (graph.count != 1)}"
        lines = [f"{many}, numbers are gains{numbers}", way]
        if any(node.shape == "fold" and node.key not in self.cluster_of for node in graph.nodes):
            lines.append("a dashed box is a closed scope, with the leaves that get their gradient in it")
        row = "".join(sample + _cell(said, bold=said not in MEANINGS.values()) for sample, said in cells)
        taken = sum(text_width(said, 12) + 10 + (39 if sample else 0) for sample, said in cells)
        spare = (max(text_width(line, 12) for line in lines) - taken) / 2 - 8
        aside = f'<TD WIDTH="{spare:.0f}"></TD>' if spare > 1 else ""  # or Graphviz would stretch the samples to the width of the lines
        table = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="{}" CELLPADDING="0">{}</TABLE>'
        rows = [table.format(5, f"<TR>{aside}{row}{aside}</TR>")] if cells else []
        rows += [_coloured(line, theme.muted) for line in lines]
        return table.format(0, "".join(f"<TR><TD>{row}</TD></TR>" for row in rows))

    # -- nodes ------------------------------------------------------------------------------------------------------------------

    def _cluster(self, number: int, cluster: RenderCluster) -> Iterator[str]:
        theme = self.theme
        left, top, right, bottom = self.layout.boxes[number]
        name = title(self.graph, cluster)
        yield f"subgraph cluster_{number} {{"
        yield "\tgraph " + attributes(
            label=name,
            style="rounded,filled",
            color=theme.frame,
            fillcolor=theme.step,
            fontcolor=theme.muted,
            bb=Raw(f'"{_pair((left, bottom))},{_pair((right, top))}"'),
            lp=_at((left + 8 + text_width(name, 12) / 2, top + 11)),
        )
        nodes = [self.graph.nodes[key] for key in cluster.nodes]
        for node in sorted(nodes, key=lambda node: 0 if node.lane is None else 2 if node.shape == "state" else 1):
            yield "\t" + self._node(node)  # edges are drawn in the order of their sources: the highway on top
        yield "}"

    def _outside(self) -> Iterator[str]:
        """What is outside of time, in the boxes of its scopes."""
        boxes = self.layout.scopes
        depth: list[int] = []
        paths = {number: self.graph.scopes[number].path for number in boxes}
        inside: dict[int, int] = {}
        for number in sorted(boxes, key=paths.__getitem__):  # the innermost box of each node is the last
            inside |= dict.fromkeys(self.graph.scopes[number].nodes, number)
        for number in sorted(boxes, key=paths.__getitem__):
            while depth and paths[number][: len(paths[depth[-1]])] != paths[depth[-1]]:
                yield "\t" * (len(depth) - 1) + "}"
                depth.pop()
            indent = "\t" * len(depth)
            depth.append(number)
            left, top, right, bottom = boxes[number]
            name = scope_title(self.graph.scopes[number])
            look = attributes(
                label=name,
                style="rounded,filled",
                color=self.theme.frame,
                fillcolor=self.theme.step,
                fontcolor=self.theme.muted,
                fontsize=EDGE_FONT,
                bb=Raw(f'"{_pair((left, bottom))},{_pair((right, top))}"'),
                lp=_at((left + 5 + text_width(cleaned(name), EDGE_FONT) / 2, top + 8)),
            )
            yield f"{indent}subgraph cluster_scope{number} {{"
            yield f"{indent}\tgraph {look}"
            yield from (f"{indent}\t{self._node(self.graph.nodes[key])}" for key, home in sorted(inside.items()) if home == number)
        yield from ("\t" * level + "}" for level in reversed(range(len(depth))))
        yield from (self._node(node) for node in self.graph.nodes if node.key not in self.cluster_of and node.key not in inside)

    def _node(self, node: RenderNode) -> str:
        theme = self.theme
        look: dict[str, object] = {"label": self._node_label(node), "tooltip": node.tooltip, "class": f"n{node.key}"}
        if node.shape == "root":
            look |= {"peripheries": 2, "style": "filled"}
        elif node.shape == "state":
            look |= {"fillcolor": theme.state, "color": theme.text}
        elif node.shape == "gate":
            look |= {"shape": Raw("ellipse"), "style": "filled", "fillcolor": theme.tints.get(node.gate or "", theme.gate)}
        elif node.shape == "leaf":
            look |= {"style": "filled", "color": theme.frame, "fillcolor": theme.gate, "fontcolor": theme.muted, "fontsize": LEAF_FONT}
        elif node.shape == "operation":
            look |= {"shape": Raw("ellipse"), "style": "filled"}
        elif node.shape == "fold":
            look |= {"style": "rounded,dashed"}
        if node.lane is not None and node.shape != "fold":
            look |= {"color": theme.highway, "penwidth": 2.5}
        wide, high = self.sizes[node.key]
        look |= {"width": _inches(wide), "height": _inches(high), "pos": _at(self.layout.nodes[node.key])}
        return f"n{node.key} {attributes(**look)}"

    def _node_label(self, node: RenderNode) -> object:
        if not cleaned(node.note):  # Graphviz takes no empty pair of tags
            return node.label
        size = LEAF_FONT if node.shape == "fold" else NOTE_FONT
        return Raw(f'<{_escaped(node.label)}<BR/><FONT POINT-SIZE="{size}">{_escaped(node.note)}</FONT>>')

    # -- edges ------------------------------------------------------------------------------------------------------------------

    def _label_of(self, edge: RenderEdge) -> str:
        """What is written at an edge; lines end with a line feed."""
        if self.graph.forward:
            return ""
        gain = span(edge.low, edge.high)
        if (edge.kind in ("add", "route") and gain == "1") or (edge.label == "" and edge.count > 1):
            gain = ""
        many = edge.count > 1 and not self.graph.rolled
        loop = {1: "t → t−1", -1: "t → t+1"}.get(edge.back or 0, "") if self.graph.rolled else ""
        times = "" if not many else f"each of {edge.count}" if gain else f"{edge.count} times"
        said = ["" if edge.kind == "add" else wrapped(edge.label, narrow=self.narrow), gain]
        if edge.lane is not None and len(edge.label + gain) <= 16:
            said = [f"{edge.label}  {gain}".strip()]
        return "\n".join(part for part in (*said, times, loop) if part)

    def _edge(self, number: int, edge: RenderEdge) -> str:
        theme, route = self.theme, self.layout.routes[number]
        if self.graph.forward:
            way = _spline(Route(route.points[::-1]), ARROW)
            return f"n{edge.target} -> n{edge.source} {attributes(**{'class': f'e{number}'}, color=theme.muted, pos=way)}"
        lane = edge.lane is not None
        look: dict[str, object] = {"class": f"e{number}"}
        if self.labels[number]:
            look |= {"label": self._sign(number, edge), "lp": _at(route.label or route.points[0])}
        if lane:
            look |= {"color": theme.highway, "penwidth": LANE_WIDTH}
        else:
            look |= {
                "color": Raw(f'"{line_colour(theme, edge.kind, edge.high)}"'),
                "style": Raw(LINES[edge.kind]),
                "penwidth": width(edge.kind, edge.high),
            }
        look["pos"] = _spline(route, 1.2 * ARROW if lane else ARROW)
        return f"n{edge.source} -> n{edge.target} {attributes(**look)}"

    def _sign(self, number: int, edge: RenderEdge) -> object:
        """The label of an edge. What stands on the line itself has a ground of its own; on a highway it is a road sign."""
        theme, text = self.theme, self.labels[number]
        source, target = (self.cluster_of.get(end) for end in (edge.source, edge.target))
        if source is None or target is None or source == target:
            return text
        said = "<BR/>".join(_escaped(line) for line in text.split("\n"))
        if edge.lane is None:
            return Raw(f'<<TABLE BORDER="0" CELLPADDING="1" CELLSPACING="0" BGCOLOR="{theme.background}"><TR><TD>{said}</TD></TR></TABLE>>')
        bold = f'<FONT POINT-SIZE="{LANE_FONT}" COLOR="{theme.sign}"><B>{said}</B></FONT>'
        ground = f'BGCOLOR="{theme.highway}" STYLE="ROUNDED"'
        return Raw(f'<<TABLE BORDER="0" CELLPADDING="2" CELLSPACING="0" {ground}><TR><TD>{bold}</TD></TR></TABLE>>')


_FEW = 4
"""Where there are more columns than this, long labels are broken for them to be narrow."""

NODE_FONT, LEAF_FONT, NOTE_FONT, EDGE_FONT, LANE_FONT = 13, 11, 9, 10, 12


def _node_size(node: RenderNode) -> Size:
    """How large a node must be for what stands in it."""
    font = LEAF_FONT if node.shape == "leaf" else NODE_FONT
    wide, high = text_width(cleaned(node.label), font), 1.2 * font
    if node.note:
        note = LEAF_FONT if node.shape == "fold" else NOTE_FONT
        wide, high = max(wide, text_width(cleaned(node.note), note)), high + 1.2 * note
    if node.shape in ("gate", "operation"):
        around = wide + 10, high + 8
        return (max(around), max(around)) if node.shape == "operation" and around[0] < 30 else (around[0] * 1.12, around[1] * 1.12)
    if node.shape == "fold":
        return wide + 24, high + 24
    return max(wide + 12, 22.0), max(high + 7, 20.0)


def label_size(edge: RenderEdge, text: str) -> Size:
    """How much room the label of an edge needs; on a highway it is bold, with a rim."""
    if not text:
        return 0.0, 0.0
    lines = [cleaned(line) for line in text.split("\n")]
    if edge.lane is None:
        return max(text_width(line, EDGE_FONT) for line in lines), 1.2 * EDGE_FONT * len(lines)
    return 1.06 * max(text_width(line, LANE_FONT) for line in lines) + 8, 1.2 * LANE_FONT * len(lines) + 6


def _points(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # never -0


def _inches(value: float) -> float:
    return round(value / 72, 3)


def _at(point: tuple[float, float]) -> Raw:
    return Raw(f'"{_pair(point)}"')


def _pair(point: tuple[float, float]) -> str:
    return f"{_points(point[0])},{_points(-point[1])}"


def _spline(route: Route, arrow: float) -> Raw:
    """A way as DOT writes it: the tip, then the line up to the foot of the arrow's head."""
    *points, (x, y) = route.points
    before = next(((a, b) for a, b in reversed(points) if math.hypot(x - a, y - b) > 1e-6), (x, y - 1.0))
    length = math.hypot(x - before[0], y - before[1])
    part = min(arrow, 0.9 * math.hypot(x - points[-3][0], y - points[-3][1])) / length
    foot = x - part * (x - before[0]), y - part * (y - before[1])
    return Raw(f'"e,{_pair((x, y))} {" ".join(map(_pair, [*points, foot]))}"')


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
