"""The mistakes that hand-written backward passes make, each as a computation: what the gradients would be with this one mistake.

Faults of a step alter edges of its :class:`~tinygrad_rnn.testing.tape.Tape`; faults in time alter the loop over the steps. They come
simplest first, since the simplest one that explains the numbers is named.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ..linear_maps import MatMul, Route, Scale
from .names import bracketed
from .tape import Alteration, Edge, Tape


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        text: what is wrong, as the end of a sentence.
        altered: by number of the edge, what it does instead.
        unused: the numbers of the results whose cotangent is not used.
        neighbour: by number of the edge, −1 or +1: it uses the values of the step before or after.
        loops: what is wrong with the loop over time, by the names of ``LOOPS``.
        simple: whether it may be combined with a second one.
        passes: whether it says itself which passes of a loop it means.
    """

    text: str
    altered: dict[int, Alteration] = field(default_factory=dict)
    unused: tuple[int, ...] = ()
    neighbour: dict[int, int] = field(default_factory=dict)
    loops: tuple[str, ...] = ()
    simple: bool = True
    passes: bool = False

    def with_another(self, other: Fault) -> Fault:
        """Both at once."""
        return Fault(
            f"{self.text}; and {other.text}",
            {**self.altered, **other.altered},
            self.unused + other.unused,
            {**self.neighbour, **other.neighbour},
            self.loops + other.loops,
        )

    @property
    def drops(self) -> bool:
        """Whether it leaves out a path."""
        return any(alteration is _dropped for alteration in self.altered.values())

    def excludes(self, other: Fault) -> bool:
        """Whether both alter the same place."""
        places = {name.split()[0] for name in self.loops} & {name.split()[0] for name in other.loops}
        return bool(self.altered.keys() & other.altered.keys()) or bool(places) or self.unused == other.unused != ()


# -- what an edge can do instead ----------------------------------------------------------------------------------------------


def _passed(edge: Edge, g: Any, tape: Tape) -> Any:
    return g


def _dropped(edge: Edge, g: Any, tape: Tape) -> Any:
    return None


def _negated(edge: Edge, g: Any, tape: Tape) -> Any:
    return -edge.map.pullback(g)


def _one_minus(edge: Edge, g: Any, tape: Tape) -> Any:
    return g * (1.0 - edge.map.factor)  # type: ignore[attr-defined]


def _untransposed(edge: Edge, g: Any, tape: Tape) -> Any:
    return edge.map.pushforward(g)


def _turned(edge: Edge, g: Any, tape: Tape) -> Any:
    return np.swapaxes(edge.map.pullback(g), -1, -2)


def _averaged(edge: Edge, g: Any, tape: Tape) -> Any:
    share = edge.map.pullback(g)
    return share * (np.size(share) / np.size(g))


def _one_row(row: int, edge: Edge, g: Any, tape: Tape) -> Any:
    share = edge.map.pullback(np.concatenate([g[row:][:1], np.zeros_like(g[1:])]) if row == 0 else g * _only_last(g))
    return share


def _only_last(g: Any) -> Any:
    mask = np.zeros_like(g)
    mask[-1] = 1.0
    return mask


def _other_matrix(node: int, turned: bool, edge: Edge, g: Any, tape: Tape) -> Any:
    matrix = tape.values[node]
    assert isinstance(edge.map, MatMul)
    return MatMul(matrix.T if turned else matrix, edge.map.side, flat=edge.map.flat).pullback(g)


_FORMS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("{0}", lambda v: v),
    ("(1 − {0})", lambda v: 1.0 - v),
    ("(1 − {0}²)", lambda v: 1.0 - v * v),
    ("{0}²", lambda v: v * v),
    ("(1 − {0})²", lambda v: (1.0 - v) ** 2),
    ("{0} (1 − {0})", lambda v: v * (1.0 - v)),
    ("(1 − tanh²({0}))", lambda v: 1.0 - np.tanh(v) ** 2),
    ("σ({0}) (1 − σ({0}))", lambda v: 0.25 * (1.0 - np.tanh(0.5 * v) ** 2)),
    ("{0} > 0", lambda v: 1.0 * (v > 0)),
)


def _other_factor(node: int, form: Callable[[Any], Any], edge: Edge, g: Any, tape: Tape) -> Any:
    return g * form(tape.values[node])


def _other_block(other: int, edge: Edge, g: Any, tape: Tape) -> Any:
    return tape.edges[other].map.pullback(g)


def _other_cotangent(node: int, edge: Edge, g: Any, tape: Tape) -> Any:
    return edge.map.pullback(tape.arrived.get(node, np.zeros_like(g)))


def _other_axis(axis: int, edge: Edge, g: Any, tape: Tape) -> Any:
    return np.sum(g, axis=axis)


def _one_of_repeated(edge: Edge, g: Any, tape: Tape) -> Any:
    share = np.zeros(np.shape(tape.values[edge.target]))
    share[tape.nodes[edge.source].statics["key"]] = g  # type: ignore[index]
    return share


# -- faults of a step ---------------------------------------------------------------------------------------------------------


def of_step(tape: Tape, results: Sequence[str]) -> list[Fault]:
    """Every single mistake in the backward pass of one step, the simplest first; of a program with a loop, in each of its passes."""
    found = [
        *_not_taken(tape, results),
        *_left_out(tape),
        *_turned_round(tape),
        *_sums(tape),
        *_signs(tape),
        *_blocks_exchanged(tape),
        *_all_derivatives(tape),
        *_other_cotangents(tape),
        *_other_values(tape),
    ]
    return [again for fault in found for again in _in_every_pass(fault, tape)] if tape.loop.count else found


def _in_every_pass(fault: Fault, tape: Tape) -> Iterator[Fault]:
    """The same mistake in every pass of the loop, and in every pass but the one that begins with an argument; it itself, if in none."""
    altered: dict[int, Alteration] = {}
    for k, alteration in fault.altered.items():
        for again, late in tape.in_every_pass(k):
            altered[again] = _later(alteration, late, tape)
    if fault.passes or len(altered) == len(fault.altered):
        yield fault
        return
    yield replace(fault, text=f"{fault.text}, in every pass of the loop", altered=altered)
    inner = {k: alteration for k, alteration in altered.items() if tape.edges[k].target not in tape.leaves}
    if fault.simple and 0 < len(inner) < len(altered):
        yield replace(fault, text=f"{fault.text}, in every pass of the loop but the first", altered=inner)


def _later(alteration: Alteration, passes: int, tape: Tape) -> Alteration:
    """The same in another pass: what it takes is taken there."""
    if not isinstance(alteration, partial) or alteration.func not in (_other_matrix, _other_factor, _other_cotangent, _other_block):
        return alteration
    first, *rest = alteration.args
    if alteration.func is _other_block:
        found = {late: k for k, late in tape.in_every_pass(first)}
        return partial(alteration.func, found.get(passes, first), *rest)
    return partial(alteration.func, tape.later(first, passes), *rest)


def _at(edge: Edge) -> str:
    return f" ({edge.place})" if edge.place else ""


def _way(tape: Tape, edge: Edge) -> str:
    return f"from {tape.names[edge.source]} to {tape.names[edge.target]}"


def _d(tape: Tape, node: int) -> str:
    """The cotangent of a node, as a reader writes it."""
    name = tape.names[node]
    return f"d({name})" if " " in name else f"d{name}"


def _is_derivative(edge: Edge, tape: Tape) -> bool:
    """Whether it is that of a function of one argument, and not a factor that is constant."""
    return edge.kind == "scale" and edge.siblings == 1 and _primitive(edge, tape) not in ("multiply", "divide")


def _primitive(edge: Edge, tape: Tape) -> str:
    return tape.nodes[edge.source].primitive.name  # type: ignore[union-attr]


def _factor(edge: Edge) -> str:
    """The factor as a reader writes it."""
    return edge.label.removeprefix("⊙").strip()


def _left_out(tape: Tape) -> Iterator[Fault]:
    for chain in tape.chains():
        first, last = tape.edges[chain[0]], tape.edges[chain[-1]]
        what = f"∂{bracketed(tape.names[first.source])}/∂{bracketed(tape.names[last.target])}"
        yield Fault(f"the derivative {what} is missing{_at(first)}", dict.fromkeys(chain, _passed))
    for k, edge in tape.told():
        if edge.kind == "scale" and not _is_minus_one(edge):
            way = _way(tape, edge)
            if _is_derivative(edge, tape) and np.size(edge.map.factor) > 1:  # type: ignore[attr-defined]
                what = f"the derivative of {_primitive(edge, tape)}, ⊙ {_factor(edge)}"
                yield Fault(f"{what}, is missing {way}{_at(edge)}", {k: _passed})
            else:
                yield Fault(f"the factor {_factor(edge)} is missing {way}{_at(edge)}", {k: _passed})
    for k, edge in tape.told():
        if edge.kind == "scale" and np.size(edge.map.factor) > 1:  # type: ignore[attr-defined]
            yield Fault(
                f"the factor is {_complement(_factor(edge))} where {_factor(edge)} belongs, {_way(tape, edge)}{_at(edge)}",
                {k: _one_minus},
            )


def _is_minus_one(edge: Edge) -> bool:
    """Whether it only changes the sign: if that is missing, the sign is wrong."""
    return np.size(edge.map.factor) == 1 and bool(edge.map.factor == -1.0)  # type: ignore[attr-defined]


def _complement(text: str) -> str:
    """One minus a factor, as a reader writes it."""
    inside = text[1:-1] if text.startswith("(") and text.endswith(")") and text.count("(") == 1 else text
    found = re.fullmatch(r"1 ?[−-] ?([^−+*/-]+)", inside)
    return found[1] if found else f"1 − {text}" if text.isidentifier() else f"1 − ({text})"


def _turned_round(tape: Tape) -> Iterator[Fault]:
    for k, edge in tape.told():
        if not isinstance(edge.map, MatMul):
            continue
        matrix = np.asarray(edge.map.matrix)
        name = _matrix_name(tape, edge)
        if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]:
            right = edge.map.side == "right"
            wrong, belongs = (f"@ {name}", f"@ {_transposed(name)}") if right else (f"{name} @", f"{_transposed(name)} @")
            yield Fault(f"the weight is transposed: {wrong} where {belongs} belongs, {_way(tape, edge)}{_at(edge)}", {k: _untransposed})
        shape = np.shape(tape.values[edge.target])
        if len(shape) == 2 and shape[0] == shape[1]:
            yield Fault(f"the product that gives {_d(tape, edge.target)} is transposed{_at(edge)}", {k: _turned})


def _transposed(name: str) -> str:
    return name.removesuffix(".T") if name.endswith(".T") else f"{name}.T"


def _matrix_name(tape: Tape, edge: Edge) -> str:
    """What is multiplied with: the other operand of the product."""
    node = tape.nodes[edge.source]
    matrix = edge.map.matrix  # type: ignore[attr-defined]
    for operand in node.operands:
        value = getattr(operand, "value", operand)
        if value is matrix or (np.shape(value) == np.shape(matrix) and np.array_equal(value, matrix)):
            for k, other in enumerate(tape.nodes):
                if other is operand:
                    return tape.names[k] + _of_other_pass(tape, k, edge)
    return "the matrix"


def _sums(tape: Tape) -> Iterator[Fault]:
    for k, edge in tape.told():
        small, large = np.shape(tape.values[edge.target]), np.shape(tape.values[edge.source])
        if isinstance(edge.map, Route) and np.prod(small) < np.prod(large) and large[-len(small) or None :] == small:
            name = _d(tape, edge.target)
            yield Fault(f"{name} is averaged over the broadcast axis where it must be summed{_at(edge)}", {k: _averaged})
            yield Fault(
                f"{name} takes only the first row of the broadcast axis where it must be summed{_at(edge)}", {k: partial(_one_row, 0)}
            )
            yield Fault(
                f"{name} takes only the last row of the broadcast axis where it must be summed{_at(edge)}", {k: partial(_one_row, -1)}
            )
            if len(large) == 2 and len(small) == 1:
                yield Fault(f"{name} is summed over axis 1 where axis 0 belongs{_at(edge)}", {k: partial(_other_axis, 1)})
        elif isinstance(edge.map, Route) and _primitive(edge, tape) == "index":
            text = f"an entry of {tape.names[edge.target]} that is picked more than once gets one share: np.add.at belongs where = or += is"
            yield Fault(f"{text}{_at(edge)}", {k: _one_of_repeated})


def _not_taken(tape: Tape, results: Sequence[str]) -> Iterator[Fault]:
    """Cotangents and paths that are left out."""
    for k, name in enumerate(results):
        if len(results) > 1:
            place = tape.outputs[k]
            known = name if place is None or not tape.names[place].isidentifier() else tape.names[place]
            yield Fault(f"the cotangent d{known} that comes in is not used", unused=(k,))
    for k, edge in tape.told():
        yield Fault(f"the path {_way(tape, edge)} is missing{_at(edge)}", {k: _dropped})
    into: dict[int, list[int]] = {}
    for k, edge in enumerate(tape.edges):
        into.setdefault(edge.target, []).append(k)
    for target, arriving in into.items():
        if len(arriving) > 2:
            for kept in arriving:
                share = f"only the share {_way(tape, tape.edges[kept])}{_of_pass(tape, kept)} is kept"
                yield Fault(
                    f"{share}: = where += belongs for {_d(tape, target)}", {k: _dropped for k in arriving if k != kept}, passes=True
                )


def _of_pass(tape: Tape, edge: int) -> str:
    now = tape.loop.passes.get(tape.edges[edge].source)
    return "" if now is None else f" of pass {now + 1} of {tape.loop.count} of the loop"


def _signs(tape: Tape) -> Iterator[Fault]:
    for k, edge in tape.told():
        yield Fault(f"the sign is wrong {_way(tape, edge)}{_at(edge)}", {k: _negated})


def _blocks_exchanged(tape: Tape) -> Iterator[Fault]:
    """Gates in the wrong order: slices of one array in each other's places."""
    into: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for k, edge in tape.told():
        if edge.kind == "route" and _primitive(edge, tape) == "index":
            into.setdefault((edge.target, np.shape(tape.values[edge.source])), []).append(k)
    for (target, _), slices in into.items():
        orders = itertools.permutations(slices) if len(slices) <= 4 else ()
        for order in sorted(orders, key=lambda order: sum(a != b for a, b in zip(order, slices, strict=True))):
            moved: dict[int, Alteration] = {k: partial(_other_block, other) for k, other in zip(slices, order, strict=True) if k != other}
            names = [tape.names[tape.edges[k].source] for k in moved]
            if len(moved) == 2:
                yield Fault(f"the blocks of {names[0]} and {names[1]} are exchanged", moved)
            elif moved:
                yield Fault(f"the blocks of {', '.join(names)} in {_d(tape, target)} are in another order", moved, simple=False)


def _all_derivatives(tape: Tape) -> Iterator[Fault]:
    """The same mistake at every function of one kind: all sigmoids without their derivative, say."""
    kinds: dict[str, list[int]] = {}
    for k, edge in enumerate(tape.edges):
        if _is_derivative(edge, tape) and np.size(edge.map.factor) > 1:  # type: ignore[attr-defined]
            kinds.setdefault(_primitive(edge, tape), []).append(k)
    for name, edges in kinds.items():
        if len(edges) > 1:
            yield Fault(f"the derivative of every {name} is missing", dict.fromkeys(edges, _passed), passes=True)
            for form, function in _FORMS:
                altered: dict[int, Alteration] = {k: partial(_other_factor, tape.edges[k].source, function) for k in edges}
                yield Fault(f"the derivative of every y = {name} is taken as {form.format('y')}", altered, simple=False, passes=True)
    if len(kinds) > 1:
        every: dict[int, Alteration] = {k: _passed for edges in kinds.values() for k in edges}
        yield Fault(f"the derivatives of {' and '.join(kinds)} are all missing", every, passes=True)


def _other_cotangents(tape: Tape) -> Iterator[Fault]:
    """The right formula with the wrong cotangent in it: the one from before the activation, say."""
    for k, edge in tape.told():
        shape = np.shape(tape.values[edge.source])
        for node in tape.near(edge.source):
            if node < edge.source and np.shape(tape.values[node]) == shape and shape:
                missing = _derivatives_between(tape, node, edge.source)
                here = f"the derivative of {missing} is missing here: " if missing else ""
                other = f"{_d(tape, node)}{_of_other_pass(tape, node, edge)}"
                text = f"it begins with {other} where {_d(tape, edge.source)} belongs, {_way(tape, edge)}{_at(edge)}"
                yield Fault(here + text, {k: partial(_other_cotangent, node)}, simple=False)


def _derivatives_between(tape: Tape, above: int, below: int) -> str:
    """The functions whose derivatives are on the only way from one node to another; "" if there are several ways, or none."""
    found: list[str] = []
    while below != above:
        arriving = [edge for edge in tape.edges if edge.target == below]
        if len(arriving) != 1:
            return ""
        if _is_derivative(arriving[0], tape):
            found.append(f"{_primitive(arriving[0], tape)}, ⊙ {_factor(arriving[0])},")
        below = arriving[0].source
    return " and of ".join(found)


def _of_other_pass(tape: Tape, node: int, edge: Edge) -> str:
    """Where a loop has the node, if not in the pass of the edge."""
    passes = tape.loop.passes
    late = passes.get(node, 0) - passes[edge.source] if node in passes and edge.source in passes else 0
    return " of the pass before" if late < 0 else " of the next pass" if late > 0 else ""


def _other_values(tape: Tape) -> Iterator[Fault]:
    """The right formula with the wrong array in it."""
    for chain in tape.chains():
        first, last = tape.edges[chain[0]], tape.edges[chain[-1]]
        what = f"∂{bracketed(tape.names[first.source])}/∂{bracketed(tape.names[last.target])}"
        for node in tape.near(first.source):
            if np.shape(tape.values[node]) == np.shape(tape.values[first.source]):
                for form, function in _FORMS:
                    altered: dict[int, Alteration] = dict.fromkeys(chain, _passed)
                    altered[chain[0]] = partial(_other_factor, node, function)
                    taken = form.format(tape.names[node]) + _of_other_pass(tape, node, first)
                    yield Fault(f"the derivative {what} is taken as {taken}{_at(first)}", altered, simple=False)
    for k, edge in tape.told():
        if isinstance(edge.map, MatMul):
            yield from _other_matrices(tape, k, edge)
        elif isinstance(edge.map, Scale) and np.size(edge.map.factor) > 1:
            factor = np.asarray(edge.map.factor)
            for node in tape.near(edge.source):
                value = tape.values[node]
                if np.shape(value) == factor.shape:
                    for form, function in _FORMS:
                        if not np.array_equal(function(value), factor):
                            wrong = form.format(tape.names[node]) + _of_other_pass(tape, node, edge)
                            text = f"the factor is {wrong} where {_factor(edge)} belongs, {_way(tape, edge)}{_at(edge)}"
                            yield Fault(text, {k: partial(_other_factor, node, function)}, simple=False)


def _other_matrices(tape: Tape, k: int, edge: Edge) -> Iterator[Fault]:
    matrix = np.asarray(edge.map.matrix)  # type: ignore[attr-defined]
    name = _matrix_name(tape, edge)
    for node in tape.near(edge.source):
        value = tape.values[node]
        for turned in (False, True):
            shown = np.swapaxes(value, -1, -2) if turned and np.ndim(value) == 2 else value
            if matrix.ndim == np.ndim(value) == 2 and shown.shape == matrix.shape and not np.array_equal(shown, matrix):
                other = _transposed(tape.names[node]) if turned else tape.names[node]
                text = f"{other}{_of_other_pass(tape, node, edge)} where {name} belongs, {_way(tape, edge)}{_at(edge)}"
                yield Fault(f"it multiplies by {text}", {k: partial(_other_matrix, node, turned)}, simple=False)


# -- faults in time -----------------------------------------------------------------------------------------------------------

LOOPS = {
    "dnext none": "the cotangent that the later step hands back (dnext_h) is not added to the one of the output",
    "dnext only": "the cotangents of the outputs are not added, but for the last step's",
    "last share": "the step's share is assigned (=) where it must be added (+=): only that of the first time step is left",
    "first share": "only the share of the last time step is kept; those of the others are not added",
    "forward": "the loop runs forward in time; it must go from the last step to the first",
    "not first": "the first time step is left out of the loop",
    "not last": "the last time step is left out of the loop",
    "output reversed": "the cotangents of the outputs are read in the wrong order: step t reads that of step T − 1 − t",
    "cache reversed": "the caches are read in the wrong order: step t uses the values of step T − 1 − t",
    "x reversed": "the gradient of x is in the wrong order: that of step t is written to step T − 1 − t",
    "output last": "every step reads the last output's cotangent",
    "output before": "the time index of the output's cotangent is off by one: step t reads that of step t − 1",
    "output after": "the time index of the output's cotangent is off by one: step t reads that of step t + 1",
    "cache before": "the time index of the cache is off by one: step t uses the values of step t − 1",
    "cache after": "the time index of the cache is off by one: step t uses the values of step t + 1",
    "x before": "the time index is off by one: the gradient of x at step t is written to step t − 1",
    "x after": "the time index is off by one: the gradient of x at step t is written to step t + 1",
    "initial total": "the initial state's gradient is the cotangent of the first state, not yet handed back through the first step",
    "initial output": "the initial state's gradient is the first output's cotangent, not handed back through the first step",
    "accumulated": "what is handed back from step to step is added up (+=) where it must be replaced (=)",
}
"""What is wrong with a loop over time."""


def in_time(tape: Tape, parts: Sequence[str]) -> list[Fault]:
    """Every single mistake in the loop over the steps, and at one multiplication its time index."""
    found = [Fault(text, loops=(loop,)) for loop, text in LOOPS.items()]
    if len(parts) > 1:
        for k, part in enumerate(parts):
            found.append(Fault(f"the cotangent d{part} that the later step hands back is not used", loops=(f"part{k} none",)))
    for k, edge in enumerate(tape.edges):
        for shift, words in ((-1, "before"), (1, "after")):
            text = f"the time index is off by one: the multiplication {_way(tape, edge)} uses the values of the step {words}"
            found.append(Fault(text, neighbour={k: shift}, simple=False))
    return found
