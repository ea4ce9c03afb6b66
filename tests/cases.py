"""One table that drives the tests of all primitives, and one for the functions composed of them.

A case says how to draw operands (away from kinks and poles) and statics, what the value must be by an oracle that shares no code
with the package, and whether the primitive's forward function continues to complex numbers.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn import ops
from tinygrad_rnn.primitive import Opaque
from tinygrad_rnn.tensor import apply_opaque
from tinygrad_rnn.testing.strategies import (
    LENGTHS,
    arrays,
    axes_of,
    between,
    broadcastable,
    index_expressions,
    nonzero,
    positive,
    real,
    shapes,
    spaced,
    stretchable,
)

Example = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """How to test one function.

    ``call`` is the function on Tensors, where it is not the primitive (or the exported function) itself.
    """

    examples: st.SearchStrategy[Example]
    oracle: Callable[..., Any]
    holomorphic: bool = False
    call: Callable[..., Any] | None = None


# -- how to draw ------------------------------------------------------------------------------------------------------------


def plain(operands: st.SearchStrategy[Any]) -> st.SearchStrategy[Example]:
    """Operands without statics."""
    return operands.map(lambda drawn: (drawn if isinstance(drawn, tuple) else (drawn,), {}))


@st.composite
def examples(draw: st.DrawFn, operands: st.SearchStrategy[Any], statics: Callable[..., dict[str, Any]]) -> Example:
    """Operands, and statics that are drawn to suit them."""
    drawn = draw(operands)
    group = drawn if isinstance(drawn, tuple) else (drawn,)
    return group, {name: draw(strategy) for name, strategy in statics(*group).items()}


def unary(domain: Any = real) -> st.SearchStrategy[Example]:
    return plain(arrays(shapes(), domain))


def binary(first: Any = real, second: Any = real) -> st.SearchStrategy[Example]:
    return plain(broadcastable(first, second))


def any_axis(ndim: int) -> st.SearchStrategy[Any]:
    """What NumPy takes for ``axis``: None, one axis (also counted from the end), or several."""
    single = [st.integers(-ndim, ndim - 1)] if ndim else []
    return st.one_of(st.none(), *single, axes_of(ndim))


def one_axis(x: Any) -> dict[str, Any]:
    return {"axis": st.integers(-x.ndim, x.ndim - 1)}


def reduction(domain: Any = real, min_side: int = 0, axis: Any = any_axis) -> st.SearchStrategy[Example]:
    return examples(arrays(shapes(min_side=min_side), domain), lambda x: {"axis": axis(x.ndim), "keepdims": st.booleans()})


def vectors(domain: Any = real, min_dims: int = 1, min_side: int = 1) -> Any:
    return arrays(shapes(min_dims=min_dims, min_side=min_side), domain)


def other_shapes(x: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([(x.size,), x.shape[::-1], (1, *x.shape), (*x.shape[::-1], 1)])


def stretched() -> st.SearchStrategy[tuple[tuple[int, ...], tuple[int, ...]]]:
    """A shape and one that it can be broadcast to."""
    return stretchable(2).map(lambda group: (group[0][0], group[1]))


def keys(x: Any) -> st.SearchStrategy[Any]:
    return index_expressions(x.shape)


@st.composite
def scattered(draw: st.DrawFn) -> Example:
    shape = draw(shapes())
    key = draw(keys(np.zeros(shape)))
    second = draw(keys(np.zeros(shape)))
    chosen = (key, second)[: draw(st.integers(1, 2))]
    return tuple(draw(arrays(np.shape(np.zeros(shape)[k]))) for k in chosen), {"shape": shape, "keys": chosen}


@st.composite
def joined(draw: st.DrawFn, min_dims: int = 1) -> Example:
    shape = draw(shapes(min_dims=min_dims))
    axis = draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(LENGTHS, min_size=1, max_size=3))
    return tuple(draw(arrays((*shape[:axis], n, *shape[axis + 1 :]))) for n in lengths), {"axis": axis}


@st.composite
def stacked(draw: st.DrawFn, min_axis: int = -1) -> Example:
    parts = draw(shapes().flatmap(lambda shape: st.tuples(*[arrays(shape)] * 2)))
    return parts, {"axis": draw(st.integers(min_axis, parts[0].ndim))}


@st.composite
def matrices(draw: st.DrawFn) -> Any:
    """Two stacks of matrices of equal length, or a stack and one matrix."""
    rows, inner, columns = (draw(LENGTHS) for _ in range(3))
    stack = draw(shapes(max_dims=2))
    shared = draw(st.booleans())
    return draw(arrays((*stack, rows, inner))), draw(arrays((inner, columns) if shared else (*stack, inner, columns)))


@st.composite
def factors(draw: st.DrawFn) -> Any:
    """Operands of ``@`` by NumPy's rules: vectors, matrices, and stacks that broadcast."""
    group = draw(
        hnp.mutually_broadcastable_shapes(
            signature=np.matmul.signature, max_dims=2, min_side=draw(st.sampled_from([1, 1, 1, 0])), max_side=3
        )
    )
    return tuple(draw(arrays(shape)) for shape in group.input_shapes)


@st.composite
def chosen(draw: st.DrawFn) -> Example:
    x, y = draw(broadcastable(real, real))
    return (x, y), {"condition": draw(hnp.arrays(bool, np.broadcast_shapes(x.shape, y.shape)))}


# -- oracles ----------------------------------------------------------------------------------------------------------------


def each(fn: Callable[..., float]) -> Callable[..., Any]:
    """An oracle that computes entry by entry, with Python's own floats."""

    def oracle(*operands: Any) -> Any:
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        entries = zip(*(np.broadcast_to(x, shape).ravel().tolist() for x in operands), strict=True)
        return np.array([fn(*numbers) for numbers in entries], dtype=float).reshape(shape)

    return oracle


def rearranged(places: Callable[..., Any]) -> Callable[..., Any]:
    """An oracle that looks every entry up at the place (in C order) from which it must come."""

    def oracle(x: Any, **statics: Any) -> Any:
        wanted = np.asarray(places(np.arange(x.size).reshape(x.shape), **statics))
        entries = x.ravel().tolist()
        return np.array([entries[i] for i in wanted.ravel()], dtype=float).reshape(wanted.shape)

    return oracle


def summed(x: Any, shape: tuple[int, ...], targets: Any) -> Any:
    """Every entry of x added into the place of ``shape`` that ``targets`` names."""
    total = [0.0] * math.prod(shape)
    for entry, target in zip(x.ravel().tolist(), np.ravel(targets).tolist(), strict=True):
        total[target] += entry
    return np.array(total).reshape(shape)


def reduced(fn: Callable[[list[float]], float]) -> Callable[..., Any]:
    """An oracle that gives the list of the numbers to be reduced to ``fn``, once per entry of the result."""

    def oracle(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        axes = tuple(range(x.ndim)) if axis is None else tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
        kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
        result = np.empty(kept)
        for place in np.ndindex(*kept):
            numbers = x[tuple(slice(None) if i in axes else j for i, j in enumerate(place))]
            result[place] = fn(numbers.ravel().tolist())
        return result if keepdims else result.reshape([n for i, n in enumerate(x.shape) if i not in axes])

    return oracle


def sum_to(x: Any, *, shape: tuple[int, ...]) -> Any:
    places = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), x.shape)
    return summed(x, shape, places)


def scatter(*parts: Any, shape: tuple[int, ...], keys: tuple[Any, ...]) -> Any:
    places = np.arange(math.prod(shape)).reshape(shape)
    return sum(summed(x, shape, places[key]) for x, key in zip(parts, keys, strict=True))


def peak(x: Any, *, axis: tuple[int, ...], sign: float) -> Any:
    extreme = reduced(lambda numbers: (max if sign > 0 else min)(numbers))(x, axis=axis, keepdims=True)
    return each(lambda entry, limit: entry if entry == limit else 0.0)(x, np.broadcast_to(extreme, x.shape))


def running(x: Any, *, axis: int) -> Any:
    result = np.moveaxis(np.zeros(x.shape), axis, 0)
    for i, j in itertools.product(range(len(result)), repeat=2):
        if j <= i:
            result[i] += np.moveaxis(x, axis, 0)[j]
    return np.moveaxis(result, 0, axis)


def joined_up(*parts: Any, axis: int) -> Any:
    rows = [row for part in parts for row in np.moveaxis(part, axis, 0)]
    result = np.zeros((len(rows), *np.moveaxis(parts[0], axis, 0).shape[1:]))
    for place, row in enumerate(rows):
        result[place] = row
    return np.moveaxis(result, 0, axis)


def beside(*parts: Any, axis: int) -> Any:
    return joined_up(*(part.reshape(*part.shape[:axis], 1, *part.shape[axis:]) for part in parts), axis=axis)


def product(a: Any, b: Any) -> Any:
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


PAIR = Opaque(
    lambda *arrays: (arrays, None),
    name="pair",
    definition=lambda *inside: tuple(ops.multiply(x, 1.0) for x in inside),
    joint_pullback=lambda cotangent, value, residual, needed, *arrays: tuple(cotangent),
)
"""The identity with several values: what ``item`` picks from."""


def picked(*parts: Any, index: int, count: int) -> Any:
    return apply_opaque(PAIR, parts, {})[index]


CASES: dict[str, Case] = {
    # operators
    "add": Case(binary(), each(operator.add), holomorphic=True),
    "subtract": Case(binary(), each(operator.sub), holomorphic=True),
    "multiply": Case(binary(), each(operator.mul), holomorphic=True),
    "divide": Case(binary(real, nonzero), each(operator.truediv), holomorphic=True),
    "negative": Case(unary(), each(operator.neg), holomorphic=True),
    "power": Case(binary(positive, real), each(math.pow), holomorphic=True),
    "square": Case(unary(), each(lambda x: x * x), holomorphic=True),
    # functions of one number
    "sqrt": Case(unary(positive), each(math.sqrt), holomorphic=True),
    "exp": Case(unary(), each(math.exp), holomorphic=True),
    "expm1": Case(unary(), each(math.expm1), holomorphic=True),
    "log": Case(unary(positive), each(math.log), holomorphic=True),
    "log1p": Case(unary(positive), each(math.log1p), holomorphic=True),
    "sin": Case(unary(), each(math.sin), holomorphic=True),
    "cos": Case(unary(), each(math.cos), holomorphic=True),
    "tanh": Case(unary(), each(math.tanh), holomorphic=True),
    "sigmoid": Case(unary(), each(lambda x: 1.0 / (1.0 + math.exp(-x)))),
    "relu": Case(unary(nonzero), each(lambda x: x if x > 0 else 0.0)),
    "softplus": Case(unary(), each(lambda x: math.log1p(math.exp(x)))),
    "abs": Case(unary(nonzero), each(math.fabs)),
    # choices between two
    "maximum": Case(binary(spaced, between), each(max)),
    "minimum": Case(binary(spaced, between), each(min)),
    "select": Case(chosen(), lambda x, y, condition: each(lambda c, a, b: a if c else b)(condition, x, y), holomorphic=True),
    # reductions
    "sum": Case(
        examples(arrays(shapes()), lambda x: {"axis": axes_of(x.ndim), "keepdims": st.booleans()}), reduced(math.fsum), holomorphic=True
    ),
    "peak": Case(
        examples(arrays(shapes(min_side=1), spaced), lambda x: {"axis": axes_of(x.ndim), "sign": st.sampled_from([1.0, -1.0])}), peak
    ),
    "cumsum": Case(examples(vectors(), lambda x: {"axis": st.integers(0, x.ndim - 1)}), running, holomorphic=True),
    # routing
    "reshape": Case(
        examples(arrays(shapes()), lambda x: {"shape": other_shapes(x)}), rearranged(lambda at, shape: at.reshape(shape)), holomorphic=True
    ),
    "transpose": Case(
        examples(arrays(shapes()), lambda x: {"axes": st.permutations(range(x.ndim)).map(tuple)}),
        lambda x, axes: np.einsum(x, list(range(x.ndim)), list(axes)),
        holomorphic=True,
    ),
    "astype": Case(examples(arrays(shapes()), lambda x: {"dtype": st.just(np.dtype(np.float64))}), lambda x, dtype: x),
    "broadcast_to": Case(
        stretched().flatmap(lambda pair: examples(arrays(pair[0]), lambda x: {"shape": st.just(pair[1])})),
        rearranged(lambda at, shape: at + np.zeros(shape, int)),
        holomorphic=True,
    ),
    "sum_to": Case(
        stretched().flatmap(lambda pair: examples(arrays(pair[1]), lambda x: {"shape": st.just(pair[0])})), sum_to, holomorphic=True
    ),
    "index": Case(examples(arrays(shapes()), lambda x: {"key": keys(x)}), rearranged(lambda at, key: at[key]), holomorphic=True),
    "scatter": Case(scattered(), scatter, holomorphic=True),
    "concatenate": Case(joined(), joined_up, holomorphic=True),
    "stack": Case(stacked(min_axis=0), beside, holomorphic=True),
    # products
    "matmul": Case(plain(matrices()), product, holomorphic=True),
    # for the engine
    "identity": Case(unary(), lambda x: x, holomorphic=True),
    "item": Case(
        examples(broadcastable(real, real).map(lambda pair: (pair,)), lambda pair: {"index": st.integers(0, 1), "count": st.just(2)}),
        lambda pair, index, count: pair[index],
        call=picked,
    ),
}
"""Every primitive."""


# -- functions composed of primitives -----------------------------------------------------------------------------------------


def listed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a list, as one of several operands."""
    return lambda *parts, **statics: function(parts, **statics)


def several(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with several results as one with the results side by side."""

    def joined(*operands: Any, **statics: Any) -> Any:
        join = tg.concatenate if any(isinstance(x, tg.Tensor) for x in operands) else np.concatenate
        return join([part.reshape(-1) * (i + 1.0) for i, part in enumerate(function(*operands, **statics))])

    return joined


def keyed(x: Any, key: Any) -> Any:
    return x[key]


def softmax(x: Any, axis: int = -1) -> Any:
    weights = np.exp(x)
    return weights / weights.sum(axis=axis, keepdims=True)


def cross_entropy(logits: Any, targets: Any) -> Any:
    chosen = softmax(logits)[(*np.indices(targets.shape), targets)]
    return np.mean(-np.log(chosen))


def log_sum(x: Any, **statics: Any) -> Any:
    return np.log(np.exp(x).sum(**statics))


def lengths(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    power = 2 if ord is None else ord
    if abs(power) == math.inf:
        return (np.max if power > 0 else np.min)(np.abs(x), axis=axis, keepdims=keepdims)
    return (np.abs(x) ** power).sum(axis=axis, keepdims=keepdims) ** (1 / power)


@st.composite
def padded(draw: st.DrawFn) -> Example:
    x = draw(vectors())
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "symmetric", "wrap"]))
    width = draw(st.one_of(st.integers(0, 2), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=x.ndim, max_size=x.ndim)))
    return (x,), {"pad_width": width, "mode": mode}


@st.composite
def labelled(draw: st.DrawFn) -> Example:
    logits = draw(vectors())
    return (logits,), {"targets": draw(hnp.arrays(int, logits.shape[:-1], elements=st.integers(0, logits.shape[-1] - 1)))}


@st.composite
def subscripted(draw: st.DrawFn) -> Example:
    subscripts = draw(
        st.sampled_from(
            [
                *("i->i", "ij->ji", "ij->", "ii->i", "ii", "iji->j", "i,i->"),
                *("i,j->ij", "ij,jk->ik", "ij,jk", "bij,bjk->bik", "bij,jk->bki", "...i,...i->...", "...ij,jk->...ik"),
                *("ij,jk,kl->il", "i,i,i->i", "ij,ij->ij", "ij,i->j", ",i->i", "ijk,kj->i", "ij,kl->"),
            ]
        )
    )
    length = {letter: draw(st.integers(1, 3)) for letter in "bijkl."}
    terms = subscripts.split("->")[0].split(",")
    shape_of = [tuple(length[c] for c in term.replace("...", ".")) for term in terms]
    return tuple(draw(arrays(shape)) for shape in shape_of), {"subscripts": subscripts}


def dotted(draw_from: Any = real) -> st.SearchStrategy[Any]:
    shapes_ = [
        ((), ()),
        ((), (2,)),
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((2, 3), (3, 2)),
        ((3,), (2, 3, 2)),
        ((2, 1, 3), (2, 3, 2)),
        ((2, 0), (0, 3)),
    ]
    return st.sampled_from(shapes_).flatmap(lambda pair: st.tuples(arrays(pair[0], draw_from), arrays(pair[1], draw_from)))


def some_axes(x: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, 0, -1, (0, x.ndim - 1) if x.ndim > 1 else (0,)])


COMPOSITES: dict[str, Case] = {
    # reductions
    "sum": Case(reduction(), np.sum),
    "mean": Case(reduction(min_side=1), np.mean),
    "var": Case(reduction(min_side=1).map(lambda e: (e[0], e[1] | {"ddof": 0})), np.var),
    "std": Case(reduction(spaced, min_side=2), np.std),
    "prod": Case(reduction(), np.prod),
    "max": Case(reduction(spaced, min_side=1), np.max),
    "min": Case(reduction(spaced, min_side=1), np.min),
    "logsumexp": Case(reduction(min_side=1), log_sum),
    "norm": Case(
        examples(
            vectors(lambda rng, shape: np.abs(spaced(rng, shape, 0.5)) * 1.0 + positive(rng, shape) * 1e-2),
            lambda x: {"ord": st.sampled_from([None, 1, 2, 3, 2.5]), "axis": st.integers(-x.ndim, x.ndim - 1), "keepdims": st.booleans()},
        ),
        lengths,
    ),
    "cumsum": Case(examples(vectors(), lambda x: {"axis": st.one_of(st.none(), *one_axis(x).values())}), np.cumsum),
    # shapes
    "reshape": Case(
        examples(vectors(), lambda x: {"shape": st.sampled_from([-1, (-1, x.shape[-1]), (x.size, 1)])}),
        rearranged(lambda at, shape: at.reshape(shape)),
    ),
    "ravel": Case(unary(), np.ravel),
    "transpose": Case(examples(arrays(shapes()), lambda x: {"axes": st.sampled_from([None, tuple(range(x.ndim))[::-1]])}), np.transpose),
    "swapaxes": Case(examples(vectors(), lambda x: {name: st.integers(-x.ndim, x.ndim - 1) for name in ("axis1", "axis2")}), np.swapaxes),
    "moveaxis": Case(
        examples(vectors(), lambda x: {name: st.integers(-x.ndim, x.ndim - 1) for name in ("source", "destination")}), np.moveaxis
    ),
    "expand_dims": Case(examples(arrays(shapes()), lambda x: {"axis": st.sampled_from([0, -1, x.ndim, (0, -1)])}), np.expand_dims),
    "squeeze": Case(
        examples(arrays(shapes()), lambda x: {"axis": st.sampled_from([None, tuple(i for i, n in enumerate(x.shape) if n == 1)])}),
        np.squeeze,
    ),
    "broadcast_to": Case(stretched().flatmap(lambda p: examples(arrays(p[0]), lambda x: {"shape": st.just(p[1])})), np.broadcast_to),
    # index and rearrange
    "getitem": Case(examples(arrays(shapes()), lambda x: {"key": keys(x)}), keyed, call=keyed),
    "take": Case(
        examples(
            vectors(), lambda x: {"indices": st.sampled_from([0, [0, 0, -1], [[0, 0], [-1, 0]]]), "axis": st.sampled_from([None, 0, -1])}
        ),
        np.take,
    ),
    "diagonal": Case(
        examples(
            vectors(min_dims=2), lambda x: {"offset": st.integers(-2, 2), "axis1": st.sampled_from([0, -1]), "axis2": st.just(1 - x.ndim)}
        ).filter(lambda e: e[1]["axis1"] % e[0][0].ndim != e[1]["axis2"] % e[0][0].ndim),
        np.diagonal,
    ),
    "flip": Case(examples(vectors(), lambda x: {"axis": some_axes(x)}), np.flip),
    "roll": Case(examples(vectors(), lambda x: {"shift": st.integers(-4, 4), "axis": some_axes(x)}), np.roll),
    "repeat": Case(
        examples(vectors(), lambda x: {"repeats": st.sampled_from([0, 2, [2]]), "axis": st.sampled_from([None, 0, -1])}), np.repeat
    ),
    "tile": Case(
        examples(arrays(shapes(max_dims=2)), lambda x: {"reps": st.sampled_from([2, (2, 1), (1, 2, 2), (0,)])}),
        lambda x, reps: np.tile(x, reps),
    ),
    "pad": Case(padded(), np.pad),
    "tril": Case(examples(vectors(min_dims=2), lambda x: {"k": st.integers(-2, 2)}), np.tril),
    "triu": Case(examples(vectors(min_dims=2), lambda x: {"k": st.integers(-2, 2)}), np.triu),
    # join and cut
    "concatenate": Case(joined(), listed(np.concatenate), call=listed(tg.concatenate)),
    "stack": Case(stacked(), listed(np.stack), call=listed(tg.stack)),
    "split": Case(
        examples(
            vectors(min_side=2),
            lambda x: {"indices_or_sections": st.sampled_from([1, [1], [0, 2]]), "axis": st.integers(-x.ndim, x.ndim - 1)},
        ),
        several(np.split),
        call=several(tg.split),
    ),
    # products
    "matmul": Case(plain(factors()), np.matmul),
    "dot": Case(plain(dotted()), np.dot),
    "outer": Case(plain(st.tuples(arrays(shapes(max_dims=2)), arrays(shapes(max_dims=2)))), np.outer),
    "einsum": Case(
        subscripted(),
        lambda *xs, subscripts: np.einsum(subscripts, *xs),
        call=lambda *xs, subscripts: tg.einsum(subscripts, *xs),
    ),
    # choices
    "where": Case(
        examples(broadcastable(real, real), lambda x, y: {"condition": stretched().map(lambda _: False) | hnp.arrays(bool, y.shape)}),
        lambda x, y, condition: np.where(condition, x, y),
        call=lambda x, y, condition: tg.where(condition, x, y),
    ),
    "clip": Case(
        plain(broadcastable(spaced, lambda rng, shape: between(rng, shape) * 0 - 0.45, lambda rng, shape: between(rng, shape) * 0 + 0.35)),
        lambda x, low, high: np.minimum(np.maximum(x, low), high),
    ),
    "xlogy": Case(binary(real, positive), lambda x, y: x * np.log(y)),
    "reciprocal": Case(unary(nonzero), np.reciprocal),
    # functions of scores, and losses
    "softmax": Case(examples(vectors(), one_axis), softmax),
    "log_softmax": Case(examples(vectors(), one_axis), lambda x, axis: np.log(softmax(x, axis))),
    "cross_entropy": Case(labelled(), cross_entropy),
    "mse": Case(
        plain(shapes(min_side=1).flatmap(lambda shape: st.tuples(arrays(shape), arrays(shape)))), lambda p, t: ((p - t) ** 2).mean()
    ),
    "bce_with_logits": Case(
        plain(shapes(min_side=1).flatmap(lambda shape: st.tuples(arrays(shape), arrays(shape)))),
        lambda x, y: (np.log1p(np.exp(x)) - x / (1.0 + np.exp(-y))).mean(),
        call=lambda x, y: tg.bce_with_logits(x, tg.sigmoid(y)),
    ),
    # transforms
    "checkpoint": Case(binary(), lambda x, y: np.tanh(x * y), call=lambda x, y: tg.checkpoint(lambda a, b: np.tanh(a * b), x, y)),
}
"""Every exported differentiable function that is not itself a primitive, and indexing."""


def call_of(name: str, case: Case) -> Callable[..., Any]:
    """The function on Tensors that a composite's case is about."""
    return case.call or getattr(tg, name)
