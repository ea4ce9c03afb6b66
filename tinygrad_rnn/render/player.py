"""``player``: one HTML page that plays a backward pass, one multiplication at a time."""

from __future__ import annotations

import base64
import html
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, RenderError, TinygradError
from ..files import write_atomically
from ..flow.logs import log10
from ..flow.product import vanishing_product
from ..flow.relay import EdgeGains
from ..linear_maps import Mask, MatMul, Scale
from ..report import plain
from ..steps import BackwardStep
from ..trace import Trace
from .build import build
from .dot import dot_lines
from .equation import System, Term, gathered
from .model import RenderGraph
from .notation import as_json, held, symbol_as_json
from .page import page, place_for
from .style import DARK, LIGHT, MEANINGS
from .text import cleaned

SIDE = 64
"""A heat map has at most so many rows and columns."""

_NUMBERS = 170_000
"""How many numbers a page holds at most; each takes 16/3 bytes."""

_DETAILED = 3_000
"""How many multiplications are shown with their arrays."""

_MOST = 100_000
_LONGEST = 40
_NODES = 700
_FEW = 6


def player(trace: Trace, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
    """Write a page that plays a backward pass: forward, back, on its own, to where most is lost, to a time step.

    At each multiplication it shows the edge in the graph, the cotangent, the factor and the contribution as heat maps with their
    numbers, the chain rule so far, what is left of the state cotangent (log₁₀ of ‖δ_t‖/‖δ_T‖), and the ledger as a table that filters.
    The page is one file, asks no network, and is worked with mouse, fingers or keys ("?" lists them).

    What is too much for a page is left out, and the page says what: of a long sequence the middle is one box and its multiplications have
    norms only, of a large array evenly spaced rows and columns are shown. With ``keep="norms"`` there are no heat maps.

    Args:
        trace: from ``tg.trace(loss)``.
        path: where the page goes, in a folder that exists.
        title: its heading.

    Returns:
        The path.

    Raises:
        ArgumentError: for something other than a trace or a text, or a trace with no multiplications or more than 100,000.
        OSError: if the file cannot be written.

    Example:
        >>> import numpy as np, tempfile, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn, render
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = render.player(tg.trace(outputs[-1].sum()), f"{folder}/player.html")
        ...     "Content-Security-Policy" in made.read_text(encoding="utf-8")
        True
    """
    if not isinstance(trace, Trace):
        raise ArgumentError(f"player: expected a trace, got {type(trace).__name__}. Write player(tg.trace(loss), path)")
    if not 0 < len(trace) <= _MOST:
        raise ArgumentError(
            f"player: {len(trace):,} multiplications are {'more than a page can play' if len(trace) else 'nothing to play'}; expected 1 to "
            f"{_MOST:,}. Trace {'fewer time steps' if len(trace) else 'what was computed from a Tensor, not the Tensor itself'}"
        )
    if title is not None and not isinstance(title, str):
        raise ArgumentError(f"player: expected a text as title, got {type(title).__name__}")
    target = place_for(path)
    reel = Reel(trace)
    here = Path(__file__)
    heading = cleaned(title, 120) if title is not None else reel.heading()
    told = {"title": html.escape(heading), "about": html.escape(reel.about()), "graph": reel.svg, "without": html.escape(reel.without)}
    body = here.with_suffix(".html").read_text(encoding="utf-8")
    return write_atomically(
        target,
        page(
            title=heading,
            body=re.sub(r"\{(\w+)\}", lambda match: told[match[1]], body),
            data=reel.data(),
            script=here.with_suffix(".js").read_text(encoding="utf-8"),
            style=reel.colours + here.with_suffix(".css").read_text(encoding="utf-8"),
        ),
    )


class Table:
    """Things by number, each once."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        return self.numbers.setdefault(thing, len(self.numbers))


class Reel:
    """What a page shows of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.steps = trace.steps
        self.system = System(trace)
        self.model, self.svg, self.colours, self.without = _picture(trace)
        shown = {cluster.first for cluster in self.model.clusters if cluster.first == cluster.last} if self.model else set()
        self.way = way_of_most(self.system)
        self.lost, self.measure = self._lost()
        times = {step.time for step in self.steps} - {None}
        wanted = [place for place, step in enumerate(self.steps) if step.time is None or step.time in shown or not shown]
        self.detailed = {*wanted[:_DETAILED], self.lost}
        self.cut = len(wanted) > _DETAILED
        self.hidden_times = len(times - shown) if shown else 0
        self.maps = HeatMaps()
        self._typeset: set[int] = set()

    def heading(self) -> str:
        """What it is the backward pass of."""
        names = [cleaned(name) for name in self.trace.layers]
        return f"The backward pass of {', '.join(names)}" if names else "A backward pass"

    def about(self) -> str:
        """What there is to see, and what there is not."""
        count = len(self.steps)
        said = [f"{count:,} multiplications, in the order in which they ran: from the loss back to what it was computed from."]
        if self.hidden_times:
            said.append(
                f"{self.hidden_times:,} of the time steps are one box in the graph; they have norms and gains here, but no heat maps."
            )
        if self.cut:
            said.append(f"The first {_DETAILED:,} of the multiplications that the graph shows have heat maps, the others norms and gains.")
        return " ".join(said)

    # -- the pieces -----------------------------------------------------------------------------------------------------------

    def data(self) -> dict[str, Any]:
        """Everything that the page's script reads."""
        steps, system, names = self.steps, self.system, self.system.names
        symbols, texts = Table(), Table()
        lines = system.lines()
        arrays = [self._arrays(step) if place in self.detailed else None for place, step in enumerate(steps)]
        formulas = [self._formula(step) if place in self.detailed else None for place, step in enumerate(steps)]
        chains = {step.operand.order for place, step in enumerate(steps) if place in self.detailed}
        chains |= {step.node.order for place, step in enumerate(steps) if place in self.detailed}
        norms = np.array([step.norms for step in steps], dtype="<f8").reshape(-1, 2)
        columns: dict[str, list[str]] = {
            "kind": [step.kind for step in steps],
            "label": [system.label(step) for step in steps],
            "op": [cleaned(step.op) for step in steps],
            "gate": [cleaned(step.gate or "") for step in steps],
            "scope": [cleaned(step.scope) for step in steps],
        }
        return {
            "count": len(steps),
            "keep": self.trace.keep,
            "texts": texts.numbers,
            "columns": {name: [texts(text) for text in column] for name, column in columns.items()},
            "time": [step.time for step in steps],
            "from": [symbols(names.value(step.node)) for step in steps],
            "to": [symbols(names.value(step.operand)) for step in steps],
            "target": [step.operand.order for step in steps],
            "norms": _encoded(norms),
            "arrays": arrays,
            "formulas": [None if formula is None else as_json(self._renumbered(formula, symbols)) for formula in formulas],
            "maps": self.maps.written(),
            "side": self.maps.side,
            "lines": {str(node): self._line(node, terms, symbols) for node, terms in lines.items() if node in chains},
            "edges": [list(edge.steps) for edge in self.model.edges] if self.model else [],
            "ends": [[edge.source, edge.target] for edge in self.model.edges] if self.model else [],
            "boxes": {str(node.key): list(node.steps) for node in self.model.nodes if node.steps} if self.model else {},
            "curves": self._curves(),
            "lost": self.lost,
            "measure": self.measure,
            "highway": self.model is not None and any(self.model.lanes),
            "meanings": {str(kind): said for kind, said in MEANINGS.items()},
            "symbols": [names.symbols[at] for at in symbols.numbers],
            "trees": {str(symbols.numbers[at]): symbol_as_json(names.symbols[at]) for at in sorted(self._typeset)},
            "notes": {str(number): names.notes[at] for at, number in symbols.numbers.items() if at in names.notes},
        }

    def _renumbered(self, formula: str, symbols: Table) -> str:
        self._typeset.update(map(int, re.findall("\ue000(\\d+)\ue001", formula)))
        return re.sub("\ue000(\\d+)\ue001", lambda match: held(symbols(int(match[1]))), formula)

    def _formula(self, step: BackwardStep) -> str:
        """One multiplication, on the cotangent as it is called."""
        own = held(self.system.names.cotangent(step.node))
        if step.kind == "add":
            return own
        return self.system.multiplied(own, step)

    def _line(self, node: int, terms: list[Any], symbols: Table) -> Any:
        """A value's cotangent as a sum: its symbol, each part as [formula, places of its last multiplications] or a list of them, …"""
        parts = gathered(terms)

        def unit(formula: str, several: Sequence[Term]) -> list[Any]:
            return [
                as_json(self._renumbered(formula, symbols)),
                sorted({steps[-1] for term in several for _, steps in term.paths if steps}),
            ]

        units = [[unit(*one) for one in part.parts] if part.parts else unit(part.formula, [part]) for part in parts]
        more = max(len(units) - _FEW, 0)
        sources = sorted({source for term in terms for source, _ in term.paths if source is not None}, reverse=True)
        named = self.system.names.cotangent(self.system.flow.infos[node])
        self._typeset.add(named)
        own = symbols(named)
        return [own, units[:_FEW], more, sources[-_FEW:], plain(self.system.norm(node))]

    def _arrays(self, step: BackwardStep) -> Any:
        """Cotangent, factor and contribution by number, what stands between them, and the factor's name."""
        if step.map is None or step.cotangent is None:
            return None
        linear_map, label = step.map, self.system.label(step)
        factor, name, form = None, "", str(step.kind)
        if isinstance(linear_map, Scale):
            factor, name = np.asarray(linear_map.factor), label.removeprefix("⊙ ")
            if isinstance(linear_map, Mask):
                factor = factor.astype(np.float64)
        elif isinstance(linear_map, MatMul):
            matrix = linear_map.matrix
            if linear_map.side == "right":
                name = label.removeprefix("· ")
                name, form = name.removesuffix("ᵀ") if name.endswith("ᵀ") else f"{name}ᵀ", "right"
            else:
                name, form = label.removesuffix(" ·").replace("ᵀᵀ", ""), "left"
                matrix = matrix.reshape(-1, matrix.shape[-1]) if linear_map.flat else matrix
            factor = np.swapaxes(matrix, -1, -2)
        maps = [None if array is None else self.maps(array) for array in (step.cotangent, factor, step.contribution)]
        return [*maps, form, cleaned(name)]

    def _lost(self) -> tuple[int, str]:
        """Where most is lost, and by which measure: as ``flow.vanishing_product`` has it, or else on the way that carries most."""
        found: list[tuple[float, int]] = []
        for layer in self.trace.layers if self.trace.keep == "arrays" else ():
            try:
                edges = vanishing_product(self.trace, layer).edges
            except TinygradError:  # nothing reaches this recurrence
                continue
            if edges and edges[0].log10_effect < 0 and (place := self._worst(edges[0], layer)) is not None:
                found.append((edges[0].log10_effect, place))
        if found:
            return min(found)[1], "the edge that takes most from the state cotangent (share × log gain), at its worst step"
        place = min(self.way, key=lambda place: self.steps[place].gain, default=0)
        return place, "the smallest gain on the way that carries most"

    def _worst(self, edge: EdgeGains, layer: str) -> int | None:
        """The place in the trace of an edge at the step where it loses most."""
        states = self.trace.states(layer)
        scope = states[edge.time].parts[0].node.scope
        alike = None
        for step in self.steps:
            if step.op == edge.op and step.scope == scope and step.label == edge.label and step.operand.symbol == edge.to:
                alike = _likeness(step)
        places = (
            place for place, step in enumerate(self.steps) if step.time == edge.time and step.scope == scope and _likeness(step) == alike
        )
        return next(places, None)

    def _curves(self) -> list[Any]:
        """log₁₀ of what is left of the state cotangent of each recurrence by time; without one, along the way that carries most."""
        first: dict[int, int] = {}
        for place, step in enumerate(self.steps):
            first.setdefault(step.node.order, place)
        curves = []
        for layer in self.trace.layers:
            states = self.trace.states(layer)
            logs = log10(np.array([at.norm for at in states]))
            reached = [min((first[p.node.order] for p in at.parts if p.node.order in first), default=len(self.steps) - 1) for at in states]
            curves.append(_curve(cleaned(layer), list(states.times), logs, reached, "time step t", last=True))
        if not curves and self.way:
            norms = [self.steps[self.way[0]].norms[0], *(self.steps[place].norms[1] for place in self.way)]
            curves.append(
                _curve("", list(range(len(norms))), log10(np.array(norms)), [0, *self.way], "multiplications from the loss", last=False)
            )
        return curves


def _curve(name: str, places: list[int], logs: Any, reached: list[int], axis: str, *, last: bool) -> dict[str, Any]:
    """A curve relative to where the gradient enters: the first finite point that is reached."""
    order = sorted(range(len(places)), key=lambda at: reached[at])
    start = next((at for at in order if np.isfinite(logs[at])), None)
    base = 0.0 if start is None else float(logs[start])
    values = [round(float(log) - base, 5) if np.isfinite(log) else None for log in logs]
    return {
        "name": name,
        "x": places,
        "y": values,
        "reached": reached,
        "axis": axis,
        "start": None if start is None else places[start],
        "state": last,
    }


def _likeness(step: BackwardStep) -> tuple[Any, ...]:
    """What the same edge of all time steps has in common."""
    return step.op, step.template, step.position, step.gate, step.operand.name, step.operand.op


def way_of_most(system: System) -> list[int]:
    """The multiplications on the way from the loss to the earliest state on which the product of the gains is largest.

    Of several recurrences the one that is reached last; without one, the way to the leaf that has most multiplications before it.
    """
    flow, position = system.flow, system.position
    best: dict[int, tuple[float, int, Any]] = {flow.root: (0.0, 0, None)}
    for node in sorted(flow.infos, reverse=True):
        if node not in best:
            continue
        carried, length, _ = best[node]
        for edge in flow.out[node]:
            gain = math.prod(step.gain for step in edge.steps if not (edge.passed and step.kind == "route"))
            if not gain > 0.0 or math.isinf(gain):
                continue
            held_before = best.get(edge.target)
            if held_before is None or carried + math.log(gain) > held_before[0]:
                best[edge.target] = carried + math.log(gain), length + len(edge.steps), edge
    states = [node for node in best if flow.infos[node].role in ("hidden", "cell")]
    ends = states or [node for node in best if not flow.out[node]]
    at = min(states) if states else max(ends, key=lambda node: (best[node][1], -node), default=flow.root)
    way: list[int] = []
    while (edge := best[at][2]) is not None:
        way += reversed([position[id(step)] for step in edge.steps])
        at = edge.source
    return way[::-1]


# -- heat maps ----------------------------------------------------------------------------------------------------------------


class HeatMaps:
    """Arrays as tables of at most :attr:`side` rows and columns, each once."""

    def __init__(self) -> None:
        self.side = SIDE
        self._numbers: dict[Any, int] = {}
        self._held: list[tuple[tuple[int, ...], Any, Any, Any]] = []

    def __call__(self, array: Any) -> int:
        """The number of an array's heat map."""
        array = np.asarray(array)
        table = array.reshape(-1, array.shape[-1]) if array.ndim > 1 and array.size else array.reshape(1, -1)
        rows, columns = (spaced(n, SIDE) for n in table.shape)
        entries = np.ascontiguousarray(table[np.ix_(rows, columns)], dtype=np.float64)
        key = array.shape, entries.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self._held)
            self._held.append((array.shape, rows, columns, entries))
        return self._numbers[key]

    def written(self) -> list[Any]:
        """Shape, rows and columns that are shown (null for all), scale, and the entries over the scale as float32."""
        while self.side > 4 and sum(min(self.side, len(r)) * min(self.side, len(c)) for _, r, c, _ in self._held) > _NUMBERS:
            self.side -= max(self.side // 4, 1)
        made = []
        for shape, rows, columns, entries in self._held:
            i, j = spaced(len(rows), self.side), spaced(len(columns), self.side)
            kept = entries[np.ix_(i, j)]
            finite = np.abs(kept[np.isfinite(kept)])
            scale = float(finite.max(initial=0.0)) or 1.0
            whole = math.prod(shape[:-1]), shape[-1] if shape else 1
            picked = [None if len(k) == n else chosen[k].tolist() for k, chosen, n in ((i, rows, whole[0]), (j, columns, whole[1]))]
            with np.errstate(all="ignore"):
                made.append([list(shape), *picked, scale, _encoded((kept / scale).astype("<f4"))])
        return made


def spaced(length: int, most: int) -> Any:
    """At most so many places in a range, evenly spaced, with both ends."""
    return np.arange(length) if length <= most else np.unique(np.linspace(0, length - 1, most).round().astype(int))


def _encoded(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


# -- the graph ----------------------------------------------------------------------------------------------------------------


def _picture(trace: Trace) -> tuple[RenderGraph | None, str, str, str]:
    """The graph as data and as SVG, the colours that the SVG uses by their variables, and why there is none."""
    times = {step.time for step in trace.steps} - {None}
    model = None
    for ends in [len(times)] * (len(times) <= _LONGEST) + [4, 2, 1]:
        try:
            model = build(trace, rolled=False, window=None, ends=max(ends, 1), fold_routes=True, max_nodes=_NODES)
            break
        except ArgumentError:
            continue
    if model is None:
        return None, "", "", f"The graph has more than {_NODES} nodes, which nobody can read; the ledger below has all of it."
    from .engine import BackwardGraph

    try:
        drawings = [BackwardGraph("backward", dot_lines(model, theme, legend=False), model) for theme in (LIGHT, DARK)]
        both = [drawing.pipe(encoding="utf-8") for drawing in drawings]
    except RenderError as error:
        return None, "", "", str(error)
    return model, *_themed(*both), ""


_COLOUR = re.compile(r"#[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?\b")


def _themed(light: str, dark: str) -> tuple[str, str]:
    """One SVG for both themes: each pair of colours is a variable."""
    pairs = Table()
    others = iter(_COLOUR.findall(dark))
    drawing = _COLOUR.sub(lambda match: f"var(--p{pairs((match[0], next(others, match[0])))})", light[light.index("<svg") :])
    drawing = re.sub(r"<title>.*?</title>\s*|<!--.*?-->\s*", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<(/?)a\b[^>]*>", "", drawing)
    drawing = re.sub(r' xmlns(?::\w+)?="[^"]*"| xlink:\w+="[^"]*"', "", drawing).replace(' id="graph0"', "")
    variables = [(f"--p{at}:{one}", f"--p{at}:{other}") for (one, other), at in pairs.numbers.items()]
    css = [";".join(pair[theme] for pair in variables) for theme in (0, 1)]
    return drawing, f":root{{{css[0]}}}@media (prefers-color-scheme:dark){{:root{{{css[1]}}}}}"


__all__: Sequence[str] = ["player"]
