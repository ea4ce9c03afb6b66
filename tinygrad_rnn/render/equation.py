"""``equation``: the chain rule of one value, written out from the ledger itself."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..linear_maps import Scatter
from ..ops.routing import index_label
from ..report import number
from ..steps import BackwardStep, NodeInfo, norm_of, subscripted
from ..tensor import Tensor
from ..trace import Landmark, Trace
from .fold import Edge, Flow
from .notation import as_latex, as_mathml, as_text, escaped, held, symbol
from .text import cleaned

_LONGEST = 60
_LETTERS = "ᵃᵇᶜᵈᵉᶠᵍʰ"
_STATES = ("hidden", "cell")
_FEW = 6
_SUM, _DOT, _PRODUCT, _APPLIED, _ATOM = range(5)
"""How tightly a formula holds together: a sum, A · x, x ⊙ y, M x, and what needs no brackets."""

_INFIX = {"multiply": "⊙", "add": "+", "subtract": "−", "divide": "/", "matmul": "@"}
_CALLS = frozenset(("tanh", "sigmoid", "relu", "exp", "log", "sin", "cos", "sqrt", "square", "abs", "softplus", "sum"))
_PASSED_ON = frozenset(("broadcast_to", "reshape", "astype", "identity"))
_D = "<mi>∂</mi>"
_ENTRY = re.compile(r"\[-?\d+\]")
_SLICE = re.compile(r"\[…, (\d*):(\d*)\]")


@dataclass(frozen=True, eq=False)
class Path:
    """One way into a line: the multiplications at these places of ``trace.steps``, one after the other, on the cotangent ``source``.

    Attributes:
        source: the symbol of the value whose cotangent it begins with; None for the cotangent that enters at the loss.
        steps: places in the trace.
    """

    source: str | None
    steps: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Line:
    """The cotangent of one value, as a sum over the ways on which it comes.

    Attributes:
        name: the value's symbol, such as h₁.
        numbers: its norm, and that of each term as the product of what it is made of; signed numbers where all are scalars.
        paths: the same sum, term by term, as data. It is complete also where the text leaves out the middle of a long one.
        time: the step of the sequence that it belongs to.
        replaced: whether a hook put something else in its place, of which the sum knows nothing.
        formula, symbols: what :attr:`text`, :attr:`latex` and :attr:`mathml` are written from.
    """

    name: str
    numbers: str
    paths: tuple[Path, ...]
    time: int | None
    replaced: bool
    formula: tuple[str, str, bool] = field(repr=False)
    symbols: Sequence[str] = field(repr=False)

    @property
    def text(self) -> str:
        """Such as "δh₁ = W_hhᵀ δa₂"; of the target's own line, "∂L/∂h₁ = …"."""
        left, right, target = self.formula
        return f"{'∂L/∂' if target else 'δ'}{as_text(left, self.symbols)} = {as_text(right, self.symbols)}"

    @property
    def latex(self) -> str:
        """The same in LaTeX."""
        left, right, target = self.formula
        whose = as_latex(left, self.symbols)
        return (rf"\frac{{\partial L}}{{\partial {whose}}}" if target else rf"\delta {whose}") + f" = {as_latex(right, self.symbols)}"

    @property
    def mathml(self) -> str:
        """The same in MathML, the inside of a ``<math>`` element."""
        left, right, target = self.formula
        whose = as_mathml(left, self.symbols)
        top = f"<mfrac><mrow>{_D}<mi>L</mi></mrow><mrow>{_D}{whose}</mrow></mfrac>" if target else f"<mi>δ</mi>{whose}"
        return f"{top}<mo>=</mo>{as_mathml(right, self.symbols)}"


@dataclass(frozen=True, eq=False)
class Equation:
    """The chain rule of one value. Jupyter typesets it; ``str()`` has the numbers beside the symbols.

    Attributes:
        target: the symbol of the value.
        lines: from the target's own to the loss. All of them; the middle of a long sequence is left out where they are written.
        where: what the symbols stand for that are not named in the program, and how to read a product.
        shown: the places of the lines that are written; None stands for some that are not.
        folded: for each None in turn, what it stands for: "94 steps".
    """

    target: str
    lines: tuple[Line, ...]
    where: tuple[str, ...]
    shown: tuple[int | None, ...]
    folded: tuple[str, ...]

    def _written(self, attribute: str, gap: str) -> list[str]:
        folds = iter(self.folded)
        return [gap.format(next(folds)) if at is None else getattr(self.lines[at], attribute) for at in self.shown]

    @property
    def text(self) -> str:
        """The lines as plain text, in symbols."""
        return "\n".join(self._written("text", "… {} …"))

    @property
    def latex(self) -> str:
        """The same in LaTeX, for mathematical mode."""
        folds = (rf"& \ldots\ {escaped(fold)}\ \ldots" for fold in self.folded)
        lines = (next(folds) if at is None else self.lines[at].latex.replace(" = ", " &= ", 1) for at in self.shown)
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    @property
    def mathml(self) -> str:
        """The same as a MathML element."""
        rows = self._written("mathml", "<mtext>… {} …</mtext>")
        return f'<math display="block"><mtable columnalign="left">{"".join(f"<mtr><mtd>{row}</mtd></mtr>" for row in rows)}</mtable></math>'

    @property
    def numbers(self) -> str:
        """Each line's norm, and what it is the product of."""
        return "\n".join(self._written("numbers", "… {} …"))

    def __str__(self) -> str:
        symbols, numbers = self.text.split("\n"), self.numbers.split("\n")
        both = [
            line
            for pair in zip(symbols, numbers, strict=True)
            for line in ((pair[0], f"    {pair[1]}") if pair[0] != pair[1] else pair[:1])
        ]
        return "\n".join([*both, *(f"{'where' if not at else '     '} {note}" for at, note in enumerate(self.where))])

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex}\n$$"

    def _repr_html_(self) -> str:
        rows = zip(self._written("mathml", "<mtext>… {} …</mtext>"), self._written("numbers", ""), strict=True)
        cell = '<td style="text-align:left">{}</td>'
        body = "".join(f"<tr>{cell.format(f'<math>{row}</math>')}{cell.format(html.escape(said))}</tr>" for row, said in rows)
        return f"<table>{body}</table>" + (f"<div>where {html.escape('; '.join(self.where))}</div>" if self.where else "")


# -- what values are called ---------------------------------------------------------------------------------------------------


class Names:
    """A symbol of its own for every value, and notes on those that the program does not name."""

    def __init__(self, flow: Flow) -> None:
        self.symbols: list[str] = []
        self.notes: dict[int, str] = {}
        self._infos = flow.infos
        self._values: dict[int, int] = {}
        self._cotangents: dict[int, int] = {}
        self._constants: dict[int, tuple[int, NodeInfo]] = {}
        self._taken: dict[str, int] = {}
        self._nameless = 0
        self._chosen: dict[int, str] = {}
        alike: dict[str, list[int]] = {}
        for order in sorted(flow.infos):
            info = flow.infos[order]
            if info.symbol != info.op and not (info.name is None and info.op in _PASSED_ON):
                alike.setdefault(symbol(info.symbol), []).append(order)
        layers = [layer if isinstance(layer, str) else layer.path for layer in flow.layers]
        marks, self._marked = _marks(layers), dict[int, str]()
        for text, orders in alike.items():
            homes = [_home(flow, order, layers) for order in orders]
            by_layer = None not in homes and len(set(homes)) > 1 and max(map(homes.count, homes)) <= len(_LETTERS)
            for place, (order, home) in enumerate(zip(orders, homes, strict=True)):
                if len(orders) == 1:
                    self._chosen[order] = text
                elif by_layer and home is not None:
                    letter = _LETTERS[homes[:place].count(home)] if homes.count(home) > 1 else ""
                    self._chosen[order] = f"{text}⁽{marks[home]}{letter}⁾"
                    before = layers[:home].count(layers[home])
                    name = cleaned(layers[home]) + (f"#{before + 1}" if before else "")
                    self._marked[order] = f"⁽{marks[home]}⁾ marks what belongs to {name}"
                else:
                    self._chosen[order] = f"{text}⁽{_raised(place + 1)}⁾"
        picked = [edge for edges in flow.out.values() for edge in edges if edge.passed and len(edge.steps) == 1]
        self.entries = {edge.source: edge.target for edge in picked}  # outputs[2] is h₃
        self._picked = {edge.source: symbol(edge.steps[0].operand.symbol) + cleaned(edge.steps[0].label) for edge in picked}
        self._given = frozenset(self._chosen.values())
        if (root := flow.infos[flow.root]).symbol == root.op:
            self._chosen[flow.root] = self._free("L")

    def _new(self, text: str, note: str | None = None) -> int:
        self.symbols.append(text)
        if note is not None:
            self.notes[len(self.symbols) - 1] = note
        return len(self.symbols) - 1

    def value(self, info: NodeInfo) -> int:
        """The number of the symbol of a value."""
        if info.order == 0:
            return self._constant(info)
        if info.order not in self._values:
            self._values[info.order] = self._new(*self._called(info))
        return self._values[info.order]

    def _constant(self, info: NodeInfo) -> int:
        if id(info) not in self._constants:
            if info.name is None and info.symbol == "const":
                count = sum(self.symbols[at].startswith("k") for at, _ in self._constants.values()) + 1
                text = self._free(subscripted("k", count))
                at = self._new(text, f"{text} is a constant of shape {info.shape}")
            else:
                at = self._new(symbol(info.symbol) if info.name is not None else info.symbol.replace("-", "−"))
            self._constants[id(info)] = at, info
        return self._constants[id(info)][0]

    def _free(self, text: str) -> str:
        while text in self._given:
            text += "′"
        return text

    def _called(self, info: NodeInfo) -> tuple[str, str | None]:
        chosen = self._chosen.get(info.order)
        if chosen is not None:
            return chosen, self._marked.get(info.order)
        if info.name is None and info.op in _PASSED_ON and info.operands:
            return self.symbols[self.value(info.operands[0])], None
        if info.symbol != info.op:
            return symbol(info.symbol), None
        if info.order in self.entries:
            return self.symbols[self.value(self._infos[self.entries[info.order]])], None
        formula = self._forward(info, 3)
        if formula is not None and len(formula[0]) <= 24:
            return _bracketed(*formula, _ATOM), None
        self._nameless += 1
        text = self._free(subscripted("v", self._nameless))
        made = formula[0] if formula is not None and len(formula[0]) <= 90 else f"{info.op}({', '.join(self._briefly(info))})"
        return text, f"{text} = {made}, of shape {info.shape}"

    def _briefly(self, info: NodeInfo) -> Iterator[str]:
        for operand in info.operands:
            formula = self._forward(operand, 1)
            yield "…" if formula is None else formula[0]

    def _forward(self, info: NodeInfo, depth: int) -> tuple[str, int] | None:
        """How a nameless value was computed, if that is short."""
        known = self._values.get(info.order)
        if info.order == 0 or info.order in self._chosen or (known is not None and not self.symbols[known].startswith("(")):
            return self.symbols[self.value(info)], _ATOM
        if info.name is None and info.op in _PASSED_ON and info.operands:
            return self._forward(info.operands[0], depth)
        if depth == 0 or not info.operands or (info.op not in _INFIX and info.op not in _CALLS):
            return None
        parts = []
        for operand in info.operands:
            part = self._forward(operand, depth - 1)
            if part is None:
                return None
            parts.append(part)
        if info.op not in _INFIX:
            return f"{info.op}({parts[0][0]})", _ATOM
        level = _SUM if info.op in ("add", "subtract") else _PRODUCT
        left = _bracketed(*parts[0], level if info.op != "matmul" else _ATOM)
        right = _bracketed(*parts[1], _SUM if info.op == "add" else _PRODUCT if info.op in ("subtract", "multiply") else _ATOM)
        return f"{left} {_INFIX[info.op]} {right}", level

    def bare(self, at: int) -> int:
        """The number of what stands behind the δ of a cotangent's symbol."""
        return self._new(self.symbols[at].removeprefix("δ"))

    def share(self, info: NodeInfo, with_info: NodeInfo) -> None:
        """Let a value's cotangent be called as another's, since it is the same."""
        self._cotangents.setdefault(info.order, self.cotangent(with_info))

    def cotangent(self, info: NodeInfo) -> int:
        """The number of the symbol of a value's cotangent; each value has another."""
        if info.order not in self._cotangents:
            at = self.value(info)
            text = f"δ{self.symbols[at]}"
            if info.order in self._picked:  # h₃ as a value, but another cotangent: that on the way by which the entry was picked
                text = f"δ({self._picked[info.order]})"
            elif info.name is None and info.op in _PASSED_ON:
                text = f"δ{info.op.removesuffix('_to')}({self.symbols[at]})"
            elif text.endswith("ᵀ"):
                text = f"δ({self.symbols[at]})"
            while self._taken.setdefault(text, info.order) != info.order:
                self._nameless += 1
                v = self._free(subscripted("v", self._nameless))
                text = f"δ{v}"
                self.notes[len(self.symbols)] = f"{v} is the value of {info.op} at node {info.order}, of shape {info.shape}"
            self._cotangents[info.order] = self._new(text)
            if at in self.notes:
                self.notes.setdefault(self._cotangents[info.order], self.notes[at])
        return self._cotangents[info.order]


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _marks(layers: Sequence[str]) -> list[str]:
    """What tells values of one name in several recurrences apart: the layer's number, and an arrow where it has two directions."""
    bases = list(dict.fromkeys(layer.removesuffix("_reverse") for layer in layers))
    if len(set(layers)) < len(layers):  # one layer, called several times
        return [_raised(number) for number in range(1, len(layers) + 1)]
    marks = []
    for layer in layers:
        base = layer.removesuffix("_reverse")
        arrow = "" if not {base, f"{base}_reverse"}.issubset(layers) else "→" if layer == base else "←"
        marks.append(arrow if arrow and len(bases) == 1 else _raised(bases.index(base) + 1) + arrow)
    return marks


def _home(flow: Flow, order: int, layers: Sequence[str]) -> int | None:
    """The recurrence that a value belongs to."""
    if order in flow.places:
        return flow.places[order][0]
    scope = flow.infos[order].scope
    return layers.index(scope) if layers.count(scope) == 1 else None


# -- formulas -----------------------------------------------------------------------------------------------------------------


@dataclass
class Term:
    """A part of a sum.

    ``block`` says that it is placed at these columns of an array of this width; ``paths`` is what it consists of; ``plain`` whether
    that is one product; ``parts`` are those of [a; b], with the terms that each is the sum of.
    """

    formula: str
    level: int
    paths: tuple[tuple[int | None, tuple[int, ...]], ...]
    block: tuple[int, int, int] | None = None
    plain: bool = True
    parts: tuple[tuple[str, tuple[Term, ...]], ...] = ()


def _bracketed(formula: str, level: int, least: int) -> str:
    return formula if level >= least else f"({formula})"


def _summed(formulas: Sequence[str]) -> str:
    if len(formulas) > _FEW:
        formulas = [*formulas[:2], f"… {len(formulas) - 4} terms …", *formulas[-2:]]
    return " + ".join(formulas).replace("+ −", "− ")


def gathered(terms: Sequence[Term]) -> list[Term]:
    """Terms that fill columns of one array as one: [A; B; 0]."""
    blocks = [term for term in terms if term.block is not None]
    others = [term for term in terms if term.block is None]
    if not blocks:
        return others
    spans: dict[tuple[int, int], list[Term]] = {}
    for term in blocks:
        assert term.block is not None
        spans.setdefault(term.block[:2], []).append(term)
    at, parts = 0, list[tuple[str, tuple[Term, ...]]]()
    for (start, stop), several in sorted(spans.items()):
        if start < at:  # they overlap: each for itself
            return others + [_placed(term) for term in blocks]
        parts += [("0", ())] * (start > at) + [(_summed([term.formula for term in several]), tuple(several))]
        at = stop
    width = blocks[0].block[2] if blocks[0].block else 0
    parts += [("0", ())] * (at < width)
    if len(parts) == 1:
        return others + [Term(term.formula, term.level, term.paths, None, term.plain) for term in blocks]
    formula = f"[{'; '.join(part for part, _ in parts)}]"
    return [*others, Term(formula, _ATOM, tuple(path for term in blocks for path in term.paths), plain=False, parts=tuple(parts))]


def _placed(term: Term) -> Term:
    assert term.block is not None
    return Term(f"at[…, {term.block[0]}:{term.block[1]}]({term.formula})", _APPLIED, term.paths, plain=term.plain)


def together(terms: Sequence[Term]) -> tuple[str, int]:
    """A sum as one formula, and how tightly it holds together."""
    parts = gathered(terms)
    return _summed([term.formula for term in parts]), parts[0].level if len(parts) == 1 else _SUM


class System:
    """The chain rule of all values of a trace: what each cotangent is the sum of.

    A value's cotangent has a name where it is used more than once, where it is a state's, or where it would be long; elsewhere it stands
    where it is used.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.steps = trace.steps
        self.flow = Flow(trace)
        self.flow.unstack()
        self.position = {id(step): place for place, step in enumerate(self.steps)}
        self.names = Names(self.flow)
        self.arriving: dict[int, BackwardStep] = {}
        for step in self.steps:
            self.arriving.setdefault(step.node.order, step)

    def lines(self, target: int | None = None) -> dict[int, list[Term]]:
        """The terms of every value on the ways from the loss to a target, by its number, the target first; of all, if there is none."""
        flow, order = self.flow, sorted(self.flow.infos, reverse=True)
        chosen = set(order) if target is None else self._ways_to(target)
        uses: dict[int, int] = {}
        for node in reversed(order):
            if node in chosen:
                onward = [edge for edge in flow.out[node] if edge.target in chosen]
                uses[node] = sum(uses[edge.target] if edge.target != target and self._same(edge) else 1 for edge in onward)
        states = [node for node in order if node in chosen and node != target and flow.infos[node].role in _STATES]
        closed = target is not None and len(states) <= 3 and all(uses[node] == 1 for node in chosen if node not in (target, flow.root))
        first = states[:1]
        self.references: dict[int, list[Term]] = {flow.root: [self._start()]}
        made: dict[int, list[Term]] = {}
        for node in order:
            if node not in chosen or node == flow.root:
                continue
            info = flow.infos[node]
            edges = sorted((edge for edge in flow.into[node] if edge.source in chosen), key=lambda e: self.position[id(e.steps[-1])])
            terms = made[node] = [term for edge in edges for term in self._along(edge)]
            hooked = self.replaced(node)
            if len(edges) == 1 and self._same(edges[0]) and not hooked:
                self.references[node] = terms
                continue
            known = node in first or (info.role in _STATES and not closed) or hooked
            moved = all(edge.kind == "route" for edge in flow.out[node] if edge.target in chosen)  # W_hhᵀ, which is W_hh as well
            if known or uses[node] > 1 or (len(together(terms)[0]) > _LONGEST and not closed and not moved):
                if info.name is None and info.symbol == info.op:
                    self._borrow(node, target)
                self.references[node] = [Term(held(self.names.cotangent(info)), _ATOM, ((node, ()),))]
            else:
                self.references[node] = terms
        used = {source for terms in made.values() for term in terms for source, _ in term.paths}
        return {node: made[node] for node in reversed(made) if target is None or node == target or node in used}

    def _same(self, edge: Edge) -> bool:
        """Whether the cotangent at the end of an edge is that at its start: nothing else arrives there, and nothing is multiplied."""
        return edge.kind == "add" and len(edge.steps) == 1 and len(self.flow.into[edge.target]) == 1

    def _borrow(self, node: int, target: int | None) -> None:
        """Call a nameless value's cotangent as that of a named one, if they are the same."""
        for edge in self.flow.out[node]:
            info = self.flow.infos[edge.target]
            if edge.target != target and self._same(edge) and info.symbol != info.op:
                self.names.share(self.flow.infos[node], info)
                return

    def _ways_to(self, target: int) -> set[int]:
        found, todo = {target}, [target]
        while todo:
            for edge in self.flow.into[todo.pop()]:
                if edge.source not in found:
                    found.add(edge.source)
                    todo.append(edge.source)
        return found

    def _start(self) -> Term:
        """The cotangent that enters at the loss."""
        info = self.flow.infos[self.flow.root]
        step = self.arriving.get(info.order)
        entered = None if step is None else step.cotangent
        if (entered is not None and np.all(entered == 1.0)) or step is None:
            return Term("1" if math.prod(info.shape) == 1 else "𝟏", _ATOM, ((None, ()),))
        at = self.names.cotangent(info)
        self.names.notes[at] = f"{self.names.symbols[at]} is the cotangent that enters at the loss, of norm {number(step.norms[0])}"
        return Term(held(at), _ATOM, ((None, ()),))

    def _along(self, edge: Edge) -> list[Term]:
        """The terms that an edge hands on."""
        terms = self.references[edge.source]
        for step in edge.steps + edge.passed:
            terms = self._multiplied(terms, step, cancelled=bool(edge.passed))
        return terms

    def _multiplied(self, terms: list[Term], step: BackwardStep, *, cancelled: bool) -> list[Term]:
        place = self.position[id(step)]

        def extended(several: Iterable[Term]) -> tuple[tuple[int | None, tuple[int, ...]], ...]:
            return tuple((source, (*steps, place)) for term in several for source, steps in term.paths)

        if step.kind == "add" or (cancelled and step.kind == "route"):  # what is placed at an entry of a stack and picked there
            return [Term(term.formula, term.level, extended([term]), term.block, term.plain) for term in terms]
        formula, level = together(terms)
        plain = len(terms) == 1 and terms[0].plain
        where = _SLICE.fullmatch(step.label) if step.op == "index" else None
        if where and step.operand.shape:
            width = step.operand.shape[-1]
            return [Term(formula, level, extended(terms), (int(where[1] or 0), min(int(where[2] or width), width), width), plain)]
        formula, level = self._product(formula, level, step)
        return [Term(formula, level, extended(terms), None, plain)]

    def label(self, step: BackwardStep) -> str:
        """The multiplication of a step, with the symbols of the lines."""
        return as_text(self._label(step), self.names.symbols)

    def multiplied(self, formula: str, step: BackwardStep) -> str:
        """One formula, multiplied by one step of the ledger."""
        return self._product(formula, _ATOM, step)[0]

    def _label(self, step: BackwardStep) -> str:
        if "{" not in step.template:
            return cleaned(step.template)
        numbers = [held(self.names.value(operand)) for operand in step.node.operands]
        return step.template.format(*numbers, out=held(self.names.value(step.node)))

    def _product(self, formula: str, level: int, step: BackwardStep) -> tuple[str, int]:
        """A formula, multiplied."""
        label = self._label(step)
        if step.kind == "scale":
            factor = label.removeprefix("⊙ ") if label.startswith("⊙ ") else f"“{label}”"
            factor = re.sub("(\ue001)\\(", "\\1 ⊙ (", factor)
            if factor == "(−1)":
                return "−" + _bracketed(formula, level, _PRODUCT), _SUM
            return (factor, _PRODUCT) if formula == "1" else (f"{_bracketed(formula, level, _PRODUCT)} ⊙ {factor}", _PRODUCT)
        if step.kind == "matmul":
            if label.startswith("· "):
                return f"{label[2:]} {_bracketed(formula, level, _ATOM)}", _APPLIED
            return f"{label.removesuffix(' ·')} · {_bracketed(formula, level, _APPLIED)}", _DOT
        return self._routed(formula, level, step)

    def _routed(self, formula: str, level: int, step: BackwardStep) -> tuple[str, int]:
        """A formula whose entries are moved."""
        op, label = step.op, step.label
        if op == "sum":
            return ("𝟏", _ATOM) if formula == "1" else (f"broadcast({formula})", _ATOM)
        if op == "broadcast_to":
            return f"Σ({formula})", _ATOM
        if op == "transpose" and len(step.node.shape) == 2:
            return f"{_bracketed(formula, level, _ATOM)}ᵀ", _ATOM
        if op == "index":
            return f"at{label}({formula})", _ATOM
        if op in ("stack", "concatenate", "scatter"):
            key = getattr(step.map, "key", None)
            entry = index_label(key)[1:-1] if key is not None else label.removeprefix("place ").removeprefix("part ").strip("[]")
            return f"{_bracketed(formula, level, _ATOM)}[{entry}]", _ATOM
        return f"{op}ᵀ({formula})", _ATOM

    # -- written out ------------------------------------------------------------------------------------------------------------

    def line(self, node: int, terms: list[Term], *, target: bool = False) -> Line:
        """A value's line, written in three ways."""
        info, names = self.flow.infos[node], self.names
        at = names.cotangent(info)
        paths = (Path(None if source is None else self.called(source), steps) for term in terms for source, steps in term.paths)
        return Line(
            name=names.symbols[at].removeprefix("δ"),
            numbers=self.numbers(node, terms),
            paths=tuple(paths),
            time=self.time(node),
            replaced=self.replaced(node),
            formula=(held(names.bare(at)), together(terms)[0] if terms else "0", target),
            symbols=names.symbols,
        )

    def replaced(self, node: int) -> bool:
        """Whether a hook put another cotangent in the place of what arrived; not told where arrays were not kept."""
        step, edges = self.arriving.get(node), self.flow.into.get(node, {})
        if step is None or step.cotangent is None or not edges:
            return False
        into = [edge.steps[-1] for edge in edges]
        if any(edge.passed for edge in edges) or any(isinstance(one.map, Scatter) for one in into):
            return False
        with np.errstate(all="ignore"):
            arrived = sum(one.contribution for one in into)
            size = float(np.max(np.abs(arrived), initial=0.0))
            return math.isfinite(size) and not float(np.max(np.abs(arrived - step.cotangent), initial=0.0)) <= 1e-3 * size

    def called(self, node: int) -> str:
        """The symbol that stands for a value in the lines."""
        return self.names.symbols[self.names.cotangent(self.flow.infos[node])].removeprefix("δ")

    def time(self, node: int) -> int | None:
        """The step of the sequence that a value belongs to."""
        place = self.flow.places.get(node)
        return place[1] if place is not None else None

    def norm(self, node: int) -> float | None:
        """‖δ‖ of a value; None if it is not known."""
        step = self.arriving.get(node)
        if step is not None:
            return step.norms[0]
        gradient = self.trace.gradients.get(self.flow.infos[node])
        return None if gradient is None else norm_of(gradient)

    def numbers(self, node: int, terms: list[Term]) -> str:
        """A line in numbers."""
        if not terms:
            return "0"
        signed = self._signed(node, terms)
        if signed is not None:
            return signed
        parts = [self._factors(term) for term in terms[:_FEW]]
        known = self.norm(node)
        if known is None and len(terms) == 1:
            known = self._size(terms[0])
        said = f"‖δ{self.called(node)}‖ = {number(known)}" if known is not None else ""
        if len(terms) == 1:
            return said + (f" = {parts[0].partition(' = ')[2]}" if " = " in parts[0] else "")
        more = f" and {len(terms) - _FEW} more" if len(terms) > _FEW else ""
        return f"{said}, its terms: {', '.join(parts)}{more}".removeprefix(", ")

    def _factors(self, term: Term) -> str:
        """The norm of a term, and what it is the product of."""
        norm = self._size(term)
        kept = [self.steps[place] for place in self._kept(term.paths[0][1])]
        gains = [number(step.gain) for step in kept if step.kind not in ("add", "route") or not math.isclose(step.gain, 1.0)]
        if not (term.plain and gains and norm):
            return number(norm)
        return f"{number(norm)} = {' × '.join([number(kept[0].norms[0]), *gains])}"

    def _size(self, term: Term) -> float | None:
        """‖term‖, as far as the ledger has it: what arrived last, if it arrived on one way."""
        ends = {steps[-1] for _, steps in term.paths if steps}
        if len(ends) != 1:
            return None
        places = term.paths[0][1]
        if not self._kept(places[-2:]):  # put into a stack and picked there: as it was before
            return self.steps[places[-2]].norms[0]
        return self.steps[places[-1]].norms[1]

    def _kept(self, places: Sequence[int]) -> list[int]:
        """A way without what cancels: an entry of a stack that is picked is what was put there."""
        kept: list[int] = []
        for place in places:
            step, before = self.steps[place], self.steps[kept[-1]] if kept else None
            if before is not None and step.op == "stack" and before.op == "index" and _ENTRY.fullmatch(before.label):
                kept.pop()
            else:
                kept.append(place)
        return kept

    def _signed(self, node: int, terms: list[Term]) -> str | None:
        """A line of scalars, with their signs."""
        values: list[str] = []
        total = 0.0
        for term in terms[: 4 * _FEW]:
            for _, places in term.paths:
                steps = [self.steps[place] for place in places]
                if not steps or any(step.map is None or np.size(step.cotangent) != 1 or np.size(step.contribution) != 1 for step in steps):
                    return None
                factors = [steps[0].cotangent.item()] + [f for s in steps if s.kind != "add" and (f := _factor(s)) is not None]
                total += math.prod(factors)
                if len(factors) > 1 and factors[0] == 1.0:
                    del factors[0]
                values.append(" · ".join(f"({_short(f)})" if f < 0 and at else _short(f) for at, f in enumerate(factors)))
        if len(terms) > 4 * _FEW:
            return None
        said = _short(total)
        return f"= {' + '.join(values)}".replace("+ −", "− ") + ("" if values == [said] else f" = {said}")


def _factor(step: BackwardStep) -> float | None:
    arriving = step.cotangent.item()
    return step.contribution.item() / arriving if arriving and step.kind in ("scale", "matmul") else None


def _short(value: float) -> str:
    return number(value).replace("-", "−", 1) if value < 0 else number(value)


def equation(trace: Trace, target: Any, *, layer: Any = None, ends: int = 2) -> Equation:
    """Write out the chain rule for one value, from the ledger of the backward pass.

    δx stands for ∂L/∂x. A cotangent that is used more than once, and every state's, has a line of its own, so an LSTM's gradient stays as
    short as the textbook's; where there is one way only, as in a short RNN, all of it is one formula.

    ``M x`` is the matrix M times every vector (row) of x, in NumPy ``x @ M.T``; ``A · x`` is NumPy's ``A @ x``; ``[a; b]`` puts a before b
    along the last axis; ``at[k](x)`` has x at the places k and 0 elsewhere; ``Σ(x)`` adds up what a broadcast had repeated; ``𝟏`` is ones.

    Args:
        trace: from ``tg.trace(loss)``; with ``keep="norms"`` the numbers are norms as well.
        target: a Tensor on the way to the loss, a landmark (``trace.states("lstm")[1].hidden``), its (time, part) such as (1, "hidden"),
            (3, "forget"), or a symbol such as "h₁" or "W_hh".
        layer: for (time, part): which recurrence, as in ``trace.states``.
        ends: how many steps of a long sequence are written at either end.

    Raises:
        ArgumentError: if the target is not on the way to the loss, or several are called so.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn, render
        >>> outputs, _ = nn.RNN(2, 3, rng=0)(np.ones((3, 1, 2)))
        >>> print(render.equation(tg.trace(outputs[-1].sum()), (1, "hidden")).text)
        ∂L/∂h₁ = W_hhᵀ (W_hhᵀ (δh₃ ⊙ (1 − h₃²)) ⊙ (1 − h₂²))
        δh₃ = 𝟏
    """
    if not isinstance(trace, Trace):
        raise ArgumentError(f"equation: expected a trace, got {type(trace).__name__}. Write equation(tg.trace(loss), target)")
    if not isinstance(ends, int) or ends < 1:
        raise ArgumentError(f"equation: ends must be at least 1, got {ends!r}")
    system = System(trace)
    info = _meant(system, target, layer)
    if info.order == system.flow.root:
        made: dict[int, list[Term]] = {info.order: [system._start()]}
    elif info.order not in system.flow.infos:  # nothing arrives there
        system.flow.infos[info.order] = info
        made = {info.order: []}
    else:
        made = system.lines(info.order)
    lines = tuple(system.line(node, terms, target=node == info.order) for node, terms in made.items())
    shown, folded = _folded(lines, ends)
    return Equation(
        target=lines[0].name,
        lines=lines,
        where=_notes(system, [lines[at] for at in shown if at is not None]),
        shown=shown,
        folded=folded,
    )


def _folded(lines: Sequence[Line], ends: int) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """Which lines are written: of a long sequence the first and last steps."""
    times = list(dict.fromkeys(line.time for line in lines if line.time is not None))
    if len(times) <= 2 * ends + 1:
        return tuple(range(len(lines))), ()
    hidden = set(times[ends : len(times) - ends])
    shown: list[int | None] = []
    for at, line in enumerate(lines):
        if line.time not in hidden:
            shown.append(at)
        elif None not in shown:
            shown.append(None)
    return tuple(shown), (f"{len(hidden)} steps",)


def _notes(system: System, lines: Sequence[Line]) -> tuple[str, ...]:
    """What has to be said about the symbols and signs that are used."""
    names, text = system.names, "\n".join(line.text for line in lines)
    notes = []
    if "δ" in text:
        notes.append("δx stands for ∂L/∂x")
    if "𝟏" in text:
        notes.append("𝟏 is ones")
    places = [system.steps[place] for line in lines for path in line.paths for place in path.steps]
    if any(step.kind == "matmul" and step.template.startswith("· ") for step in places):
        notes.append("M x is the matrix M times every vector x, in NumPy x @ M.T")
    if " · " in text:
        notes.append("A · x is NumPy's A @ x")
    if re.search(r"\[[^\]…]*;", text):
        notes.append("[a; b] joins along the last axis")
    notes += [f"a hook replaced δ{line.name}, which is not what the sum gives" for line in lines if line.replaced]
    told = [
        note
        for at, note in names.notes.items()
        if re.search(rf"(?<![^\Wδ]){re.escape(names.symbols[at].removeprefix('δ'))}(?![^\W²ᵀ])", text)
    ]
    return tuple(notes + list(dict.fromkeys(told)))


def _meant(system: System, target: Any, layer: Any) -> NodeInfo:
    """The value that is asked for."""
    trace = system.trace
    if isinstance(target, Tensor):
        return trace.node(target)
    if isinstance(target, Landmark):
        return target.node
    if isinstance(target, NodeInfo):
        return target
    if isinstance(target, tuple) and len(target) == 2:
        time, part = target
        at = trace.states(layer)[time]
        landmark = at.gates.get(part) or (getattr(at, part) if part in _STATES else None)
        if not isinstance(landmark, Landmark):
            have = [p for p in _STATES if getattr(at, p) is not None] + list(at.gates)
            raise ArgumentError(f"equation: step {time} has no {part!r}; expected one of {have}")
        return landmark.node
    if isinstance(target, str):
        infos = [info for order, info in system.flow.infos.items() if order not in system.names.entries]
        fitting = [i for i in infos if target in (system.names.symbols[system.names.value(i)], i.symbol, i.name) and i.op not in _PASSED_ON]
        exact = [i for i in fitting if target == system.names.symbols[system.names.value(i)]]
        if len(fitting) == 1 or len(exact) == 1:
            return (exact or fitting)[0]
        said = [
            system.names.symbols[system.names.value(i)]
            for i in sorted(fitting or [i for i in infos if i.name or i.role], key=lambda i: i.order)
        ]
        raise ArgumentError(
            f"equation: {'several values are' if fitting else 'no value is'} called {target!r}; expected one of {', '.join(said[:20])}"
            + ("" if fitting else ", a Tensor, a landmark or (time, part)")
        )
    raise ArgumentError(f"equation: expected a Tensor, a landmark, (time, part) or a symbol as target, got {type(target).__name__}")


__all__ = ["Equation", "Line", "Path", "equation"]
