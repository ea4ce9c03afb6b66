"""Value, gradient and second derivative of every operation against PyTorch, over broadcasting and edge cases.

One row per comparison: what we compute, what PyTorch computes, and the operands. Where an operation has a kink or a singular
point, the operands sit exactly on it: the convention is PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_rnn as tg

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

INF, NAN = math.inf, math.nan
RTOL = {np.float64: 1e-12, np.float32: 2e-5}


class Case(NamedTuple):
    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    operands: tuple[Any, ...]
    smooth: bool
    scale: float


CASES: list[Case] = []


def case(name: str, ours: Callable[..., Any], theirs: Callable[..., Any], *operands: Any, smooth: bool = False, scale: float = 1.0) -> None:
    """One comparison. ``smooth`` asks for second derivatives too; ``scale`` multiplies the cotangent."""
    CASES.append(Case(name, ours, theirs, tuple(np.asarray(x, np.float64) for x in operands), smooth, scale))


rng = np.random.default_rng(20240607)


def normal(*shape: int) -> Any:
    """Normal numbers that keep away from 0 by 0.1."""
    x = rng.normal(size=shape)
    return x + 0.1 * np.where(x < 0, -1.0, 1.0)


def positive(*shape: int) -> Any:
    return rng.uniform(0.3, 2.0, size=shape)


# -- two operands, broadcast ------------------------------------------------------------------------------------------------

BROADCASTS = [
    ((), ()), ((3,), ()), ((), (3,)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (1, 3)), ((2, 3), (1, 1)),
    ((4, 1, 3), (2, 1)), ((1,), (5,)), ((2, 3, 4), (2, 3, 4)), ((0, 3), (3,)), ((2, 0), (1, 1)), ((1, 0), (4, 1)), ((1, 1, 1), (2,)),
]  # fmt: skip

for one, two in BROADCASTS:
    for name in ("add", "subtract", "multiply", "divide"):
        case(f"{name}{one}{two}", getattr(tg, name), getattr(torch, name), normal(*one), normal(*two), smooth=True)
    case(f"power{one}{two}", tg.power, torch.pow, positive(*one), normal(*two), smooth=True)
    case(f"maximum{one}{two}", tg.maximum, torch.maximum, normal(*one), normal(*two))
    case(f"minimum{one}{two}", tg.minimum, torch.minimum, normal(*one), normal(*two))
    case(f"xlogy{one}{two}", tg.xlogy, torch.xlogy, normal(*one), positive(*two), smooth=True)
    mask = rng.random(np.broadcast_shapes(one, two)) < 0.5
    case(
        f"where{one}{two}",
        lambda a, b, m=mask: tg.where(m, a, b),
        lambda a, b, m=mask: torch.where(torch.tensor(m), a, b),
        normal(*one),
        normal(*two),
    )

case(
    "operators",
    lambda a, b: (a + b) * (a - b) / (a * a + 1.0) ** 2,
    lambda a, b: (a + b) * (a - b) / (a * a + 1.0) ** 2,
    normal(3),
    normal(2, 3),
    smooth=True,
)
case("the same operand twice", lambda a: a * a + a / a - a, lambda a: a * a + a / a - a, normal(4), smooth=True)
case("numbers on the left", lambda a: 2 / (1 - a) + 3**a - (-a), lambda a: 2 / (1 - a) + 3**a - (-a), normal(4) / 9, smooth=True)
case(
    "where condition wider",
    lambda a, b: tg.where(np.eye(3, dtype=bool), a, b),
    lambda a, b: torch.where(torch.eye(3, dtype=torch.bool), a, b),
    normal(3),
    normal(),
)
case("where with a number", lambda a: tg.where(a > 0, a, 7.0), lambda a: torch.where(a > 0, a, 7.0), normal(5))
case("divide by zero", tg.divide, torch.divide, [1.0, -1.0, 0.0, 2.0], [0.0, 0.0, 0.0, -0.0])
case("multiply infinities", tg.multiply, torch.multiply, [INF, -INF, 0.0, NAN], [2.0, 0.0, INF, 1.0])
ties = [0.0, 1.0, -1.0, 2.0, 0.0, INF, -INF], [0.0, 1.0, 0.0, 1.0, -0.0, INF, -INF]
case("maximum at ties", tg.maximum, torch.maximum, *ties)
case("minimum at ties", tg.minimum, torch.minimum, *ties)
case("maximum of NaN", tg.maximum, torch.maximum, [NAN, 1.0, NAN], [1.0, NAN, NAN])
case("minimum of NaN", tg.minimum, torch.minimum, [NAN, 1.0, NAN], [1.0, NAN, NAN])

# -- powers at singular points ----------------------------------------------------------------------------------------------

bases = np.repeat([0.0, -0.0, 1.0, -1.0, -2.0, 2.0, 1e-200], 9)
exponents = np.tile([0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 1.5], 7)
case("power at 0 and of negative bases", tg.power, torch.pow, bases, exponents)
for exponent in (0, 1, 2, 3, -1, -2, 0.5, 1.5, -0.5, 0.0, 2.0):
    case(f"x ** {exponent!r}", lambda a, n=exponent: a**n, lambda a, n=exponent: a**n, [0.0, 1.0, -1.0, 2.5, -2.5, 1e3])
    case(f"x ** {exponent!r} smooth", lambda a, n=exponent: a**n, lambda a, n=exponent: a**n, positive(4), smooth=True)
for base in (2, 0.5, 1, 0, 0.0, -2.0):
    case(f"{base!r} ** x", lambda a, b=base: b**a, lambda a, b=base: torch.pow(float(b), a), [0.0, 1.0, -1.0, 2.0, 0.5])

# -- one operand --------------------------------------------------------------------------------------------------------------

UNARY: list[tuple[str, Any, Any, Any]] = [
    ("negative", tg.negative, torch.negative, normal),
    ("square", tg.square, torch.square, normal),
    ("sqrt", tg.sqrt, torch.sqrt, positive),
    ("reciprocal", tg.reciprocal, torch.reciprocal, normal),
    ("exp", tg.exp, torch.exp, normal),
    ("expm1", tg.expm1, torch.expm1, normal),
    ("log", tg.log, torch.log, positive),
    ("log1p", tg.log1p, torch.log1p, positive),
    ("sin", tg.sin, torch.sin, normal),
    ("cos", tg.cos, torch.cos, normal),
    ("tanh", tg.tanh, torch.tanh, normal),
    ("sigmoid", tg.sigmoid, torch.sigmoid, normal),
    ("relu", tg.relu, torch.relu, normal),
    ("softplus", tg.softplus, lambda x: torch.nn.functional.softplus(x, threshold=40), normal),
    ("abs", tg.abs, torch.abs, normal),
]
EDGES: dict[str, list[float]] = {
    "negative": [0.0, INF, -INF, NAN],
    "square": [0.0, -0.0, 1e160, 1e-170, INF, -INF],
    "sqrt": [0.0, 1e-300, 4.0, INF, -1.0],
    "reciprocal": [0.0, -0.0, INF, -INF, 1e-300, 2.0],
    "exp": [0.0, 1000.0, -1000.0, INF, -INF, 1e-300],
    "expm1": [0.0, 1000.0, -1000.0, INF, -INF, 1e-12, -1e-12],
    "log": [0.0, 1e-300, 1.0, INF, -1.0],
    "log1p": [0.0, -1.0, 1e-12, -1e-12, INF, -2.0],
    "sin": [0.0, 1e-12, 100.0],
    "cos": [0.0, 1e-12, 100.0],
    "tanh": [0.0, 1000.0, -1000.0, 15.0, -15.0, 1e-12, INF, -INF],
    "sigmoid": [0.0, 1000.0, -1000.0, 40.0, -40.0, -700.0, INF, -INF],
    "relu": [0.0, -0.0, 1000.0, -1000.0, INF, -INF, 1e-300],
    "softplus": [0.0, 1000.0, -1000.0, 30.0, -30.0, 1e-12],
    "abs": [0.0, -0.0, 1000.0, -1000.0, INF, -INF, 1e-300],
}
for name, ours, theirs, sample in UNARY:
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        case(f"{name}{shape}", ours, theirs, sample(*shape), smooth=name not in ("relu", "abs"))
    case(f"{name} at its edges", ours, theirs, EDGES[name])
    case(f"{name} of the smallest", ours, theirs, [0.5, 0.25], scale=1e-12)

points = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, INF, -INF]
for low, high in ((-1.0, 1.0), (None, 0.5), (-0.5, None), (0.0, 0.0), (1.0, -1.0)):
    case(f"clip({low}, {high})", lambda a, i=low, j=high: tg.clip(a, i, j), lambda a, i=low, j=high: torch.clamp(a, i, j), points)
case("clip with bounds that learn", tg.clip, torch.clamp, [-2.0, -1.0, 0.0, 1.0, 2.0, 0.3], [-1.0] * 6, [1.0] * 6)
case("clip with bounds that broadcast", tg.clip, torch.clamp, normal(3, 4) * 2, -positive(4), positive(3, 1))
case("clip with crossed bounds", tg.clip, torch.clamp, [-2.0, -0.5, 0.0, 0.5, 2.0], [1.0] * 5, [-1.0] * 5)
case("xlogy at 0", tg.xlogy, torch.xlogy, [0.0, 1.0, 2.0, 0.0, -1.0], [2.0, 0.0, 3.0, -1.0, INF])

# -- products that sum ----------------------------------------------------------------------------------------------------------

MATMULS = [
    ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)),
    ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((6, 1, 2, 3), (5, 3, 4)), ((5, 2, 3), (6, 1, 3, 4)), ((6, 5, 2, 3), (3, 4)),
    ((1, 2, 3), (5, 3, 4)), ((5, 2, 3), (1, 3, 4)), ((1, 2, 3), (3, 4)), ((1, 1), (1, 1)), ((0, 3), (3, 4)), ((2, 0), (0, 4)),
    ((2, 3), (3, 0)), ((0, 2, 3), (3, 4)), ((0,), (0,)), ((0, 2, 3), (1, 3, 4)), ((6, 5, 2, 3), (3,)), ((3,), (6, 5, 3, 4)),
]  # fmt: skip
for one, two in MATMULS:
    case(f"matmul{one}{two}", tg.matmul, torch.matmul, normal(*one), normal(*two), smooth=True)
    case(f"{one} @ {two}", lambda a, b: a @ b, torch.matmul, normal(*one), normal(*two))
    fixed = normal(*one)
    case(
        f"matmul{one} of a constant",
        lambda b, a=fixed: tg.matmul(a.astype(b.dtype), b),
        lambda b, a=fixed: torch.matmul(torch.tensor(a).to(b.dtype), b),
        normal(*two),
    )
for one, two in (
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (6, 3, 4)),
    ((3,), (6, 3, 4)),
    ((2, 3), (7, 6, 3, 4)),
    ((), (3,)),
    ((2, 3), ()),
    ((), ()),
    ((2, 3), (0, 3, 4)),
    ((2, 0), (5, 0, 4)),
):
    case(
        f"dot{one}{two}",
        tg.dot,
        lambda a, b: a * b if 0 in (a.ndim, b.ndim) else torch.tensordot(a, b, dims=([a.ndim - 1], [max(b.ndim - 2, 0)])),
        normal(*one),
        normal(*two),
        smooth=True,
    )
for one, two in (((3,), (4,)), ((), (4,)), ((2, 3), (2, 2)), ((0,), (3,)), ((1,), (1,))):
    case(f"outer{one}{two}", tg.outer, lambda a, b: torch.outer(a.reshape(-1), b.reshape(-1)), normal(*one), normal(*two), smooth=True)

EINSUMS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (3, 4)]), ("ij,jk->ki", [(2, 3), (3, 4)]), ("i,i->", [(3,), (3,)]),
    ("i,j->ij", [(3,), (4,)]), ("ij->ji", [(2, 3)]), ("ij->", [(2, 3)]), ("ij->i", [(2, 3)]), ("ii->i", [(3, 3)]), ("ii->", [(3, 3)]),
    ("ii", [(3, 3)]), ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]), ("bij,bkj->bik", [(5, 2, 3), (5, 4, 3)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]), ("...ij,...jk->...ik", [(5, 2, 3), (5, 3, 4)]),
    ("...ij,jk->...ik", [(6, 5, 2, 3), (3, 4)]), ("...i,i->...", [(2, 3), (3,)]), ("...,...->...", [(2, 3), (3,)]),
    ("i...->...", [(2, 3, 4)]), ("i...j->j...", [(2, 3, 4)]), ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]), ("i,i,i->i", [(3,), (3,), (3,)]),
    ("ij,j,k->ik", [(2, 3), (3,), (4,)]),
    ("ijj->i", [(2, 3, 3)]), ("iij->j", [(3, 3, 2)]), ("iji->ij", [(3, 2, 3)]),
    ("ij,ij->", [(2, 3), (2, 3)]), ("ij,ij->j", [(2, 3), (2, 3)]), ("ab,cd->abcd", [(2, 3), (4, 5)]),
    ("ab,bc,ca->", [(2, 3), (3, 4), (4, 2)]),
    ("ij,ik->jk", [(0, 2), (0, 3)]), ("ij,jk->ik", [(2, 0), (0, 3)]), ("i,->i", [(3,), ()]), (",->", [(), ()]), ("->", [()]),
    ("ij,jk->k", [(2, 3), (3, 4)]), ("bn,anm,bm->ba", [(2, 3), (4, 3, 5), (2, 5)]), ("iii->i", [(3, 3, 3)]), ("ii,ii->i", [(3, 3), (3, 3)]),
]  # fmt: skip
for text, shapes in EINSUMS:
    case(
        f"einsum {text} {shapes}",
        lambda *x, s=text: tg.einsum(s, *x),
        lambda *x, s=text: torch.einsum(s, *x),
        *(normal(*shape) for shape in shapes),
        smooth=True,
    )

# -- reductions -------------------------------------------------------------------------------------------------------------------

AXES: list[tuple[tuple[int, ...], Any]] = [
    ((), None),
    ((3,), None),
    ((3,), 0),
    ((3,), -1),
    ((2, 3), None),
    ((2, 3), 0),
    ((2, 3), 1),
    ((2, 3), -1),
    ((2, 3), (0, 1)),
    ((2, 3, 4), (0, 2)),
    ((2, 3, 4), (-1, 0)),
    ((2, 3, 4), 1),
    ((2, 3, 4), None),
    ((1, 1), 0),
    ((2, 1, 3), 1),
]


def dims(x: Any, axis: Any) -> tuple[int, ...]:
    """NumPy's axis argument as PyTorch's dim."""
    return tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)


def flattened(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction over one dimension, on all the dimensions in ``dim`` at once."""

    def reduce(x: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
        dim = tuple(d % x.ndim for d in dim) if x.ndim else ()
        rest = [d for d in range(x.ndim) if d not in dim]
        out = theirs(x.permute([*rest, *dim]).reshape([*(x.shape[d] for d in rest), math.prod(x.shape[d] for d in dim)]))
        return out.reshape([1 if d in dim else n for d, n in enumerate(x.shape)]) if keepdim else out

    return reduce


def whole(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """PyTorch reads an empty tuple of dimensions as all of them; for a scalar operand both are the same."""
    return lambda x, dim, keepdim: theirs(x.reshape(1), dim=0, keepdim=False) if x.ndim == 0 else theirs(x, dim=dim, keepdim=keepdim)


REDUCTIONS: list[tuple[str, Any, Any, bool]] = [
    ("sum", tg.sum, whole(torch.sum), True),
    ("mean", tg.mean, whole(torch.mean), True),
    ("var", tg.var, whole(lambda x, dim, keepdim: torch.var(x, dim=dim, keepdim=keepdim, correction=0)), True),
    ("prod", tg.prod, flattened(lambda x: torch.prod(x, dim=-1)), True),
    ("max", tg.max, whole(torch.amax), False),
    ("min", tg.min, whole(torch.amin), False),
    ("logsumexp", tg.logsumexp, whole(torch.logsumexp), True),
    ("norm", tg.norm, whole(torch.linalg.vector_norm), True),
]
for name, ours, theirs, smooth in REDUCTIONS:
    for shape, axis in AXES:
        for keepdims in (False, True):
            case(
                f"{name}{shape} axis={axis} keepdims={keepdims}",
                lambda a, f=ours, i=axis, k=keepdims: f(a, axis=i, keepdims=k),
                lambda a, f=theirs, i=axis, k=keepdims: f(a, dims(a, i), k) if a.ndim else f(a, (), k).reshape(()),
                normal(*shape),
                smooth=smooth and math.prod(shape[i] for i in dims(np.empty(shape), axis)) != 1,
            )
for shape, axis in AXES:
    if math.prod(shape) > 1:
        for ddof in (0, 1):
            if ddof == 1 and shape == (2, 1, 3):
                continue
            case(
                f"std{shape} axis={axis} ddof={ddof}",
                lambda a, i=axis, d=ddof: tg.std(a, axis=i, ddof=d),
                lambda a, i=axis, d=ddof: torch.std(a, dim=dims(a, i), correction=d),
                normal(*shape),
                smooth=math.prod(shape[i] for i in dims(np.empty(shape), axis)) > 2,
            )
            case(
                f"var{shape} axis={axis} ddof={ddof}",
                lambda a, i=axis, d=ddof: tg.var(a, axis=i, ddof=d),
                lambda a, i=axis, d=ddof: torch.var(a, dim=dims(a, i), correction=d),
                normal(*shape),
                smooth=True,
            )
case("var with correction=1", lambda a: tg.var(a, correction=1), lambda a: torch.var(a, correction=1), normal(5), smooth=True)
case("std where nothing varies", tg.std, lambda a: torch.std(a, correction=0), [2.0, 2.0, 2.0])
case("std of one entry", tg.std, lambda a: torch.std(a, correction=0), [2.0])
case("std of rows, one constant", lambda a: tg.std(a, axis=1), lambda a: torch.std(a, dim=1, correction=0), [[1.0, 2.0], [3.0, 3.0]])
for zeros in ([0.0, 2.0, 3.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0], [1.0, 2.0, 3.0, 4.0, 0.0]):
    case(f"prod of {zeros}", tg.prod, torch.prod, zeros, smooth=True)
case(
    "prod of columns with zeros",
    lambda a: tg.prod(a, axis=0),
    lambda a: torch.prod(a, dim=0),
    [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]],
    smooth=True,
)
for ties_ in ([1.0, 3.0, 3.0], [3.0, 3.0, 3.0], [0.0, -0.0], [INF, 1.0, INF], [-INF, -INF], [1.0, 1.0, 2.0, 0.0, 0.0]):
    case(f"max of {ties_}", tg.max, lambda a: torch.amax(a), ties_)
    case(f"min of {ties_}", tg.min, lambda a: torch.amin(a), ties_)
tied = np.array([[1.0, 2.0, 2.0], [2.0, 0.0, 0.0]])
for axis in (0, 1, (0, 1)):
    case(f"max with ties over {axis}", lambda a, i=axis: tg.max(a, axis=i), lambda a, i=axis: torch.amax(a, dim=i), tied)
    case(f"min with ties over {axis}", lambda a, i=axis: tg.min(a, axis=i), lambda a, i=axis: torch.amin(a, dim=i), tied)
for logits in (
    [1000.0, 1000.0],
    [-1000.0, -1000.0],
    [1000.0, -1000.0],
    [-INF, 0.0],
    [-INF, -INF],
    [INF, 0.0],
    [0.0],
    [-INF, 1000.0, 999.0],
):
    # PyTorch's gradient is exp(x − out), which at float32 has lost the digits that out = 1000.69 could not hold: ask it in float64.
    case(f"logsumexp of {logits}", lambda a: tg.logsumexp(a, axis=0), lambda a: torch.logsumexp(a.double(), dim=0).to(a.dtype), logits)
for ord_ in (None, 1, 2, 3, 1.5, 0.5, INF, -INF, 0):
    number = 2 if ord_ is None else ord_
    for vector in ([3.0, -4.0, 1.0], [0.0, 0.0], [0.0, 2.0, -1.0], [2.0, -2.0, 2.0]):
        if number in (0.5, 1.5) and 0.0 in vector:
            continue  # below, where the slopes at 0 are told apart
        case(f"norm ord={ord_} of {vector}", lambda a, p=ord_: tg.norm(a, p), lambda a, p=number: torch.linalg.vector_norm(a, p), vector)
    case(
        f"norm ord={ord_} along an axis",
        lambda a, p=ord_: tg.norm(a, p, axis=1),
        lambda a, p=number: torch.linalg.vector_norm(a, p, dim=1),
        normal(3, 4),
        smooth=number in (2, 3, 1.5),
    )
case("norm ord=1.5 of [0, 2, -1]", lambda a: tg.norm(a, 1.5), lambda a: torch.linalg.vector_norm(a, 1.5), [0.0, 2.0, -1.0])
case("norm of a zero row", lambda a: tg.norm(a, axis=1), lambda a: torch.linalg.vector_norm(a, dim=1), [[0.0, 0.0], [3.0, 4.0]])
case(
    "norm of the huge and the tiny",
    lambda a: tg.norm(a, axis=1),
    lambda a: torch.linalg.vector_norm(a * 1e-30, dim=1) * 1e30,
    [[3e20, 4e20], [3e19, 4e19]],
    smooth=False,
)
for shape, axis in (((3,), 0), ((2, 3), 0), ((2, 3), -1), ((2, 3), None), ((0, 3), 0), ((2, 3, 4), 1), ((), None), ((1,), 0)):
    case(
        f"cumsum{shape} axis={axis}",
        lambda a, i=axis: tg.cumsum(a, i),
        lambda a, i=axis: torch.cumsum(a.reshape(-1) if i is None else a, 0 if i is None else i),
        normal(*shape),
        smooth=True,
    )
for shape, axis in (((3,), 0), ((2, 3), 0), ((2, 3), -1), ((2, 3, 4), 1), ((0, 3), -1), ((1,), 0)):
    case(
        f"softmax{shape} axis={axis}",
        lambda a, i=axis: tg.softmax(a, i),
        lambda a, i=axis: torch.softmax(a, i),
        normal(*shape),
        smooth=True,
    )
    case(
        f"log_softmax{shape} axis={axis}",
        lambda a, i=axis: tg.log_softmax(a, i),
        lambda a, i=axis: torch.log_softmax(a, i),
        normal(*shape),
        smooth=True,
    )
for logits in ([1000.0, 0.0, -1000.0], [-1000.0, -1000.0], [1000.0, 1000.0], [0.0, -INF, 1.0], [700.0, 710.0]):
    case(f"softmax of {logits}", tg.softmax, lambda a: torch.softmax(a, -1), logits)
    case(f"log_softmax of {logits}", tg.log_softmax, lambda a: torch.log_softmax(a, -1), logits)

# -- shapes and routes --------------------------------------------------------------------------------------------------------------

ROUTES: list[tuple[str, tuple[int, ...], Any, Any]] = [
    ("reshape", (2, 3), lambda a: tg.reshape(a, (3, 2)), lambda a: a.reshape(3, 2)),
    ("reshape -1", (2, 3), lambda a: tg.reshape(a, (-1, 2)), lambda a: a.reshape(-1, 2)),
    ("reshape int", (2, 3), lambda a: tg.reshape(a, -1), lambda a: a.reshape(-1)),
    ("reshape to a scalar", (1, 1), lambda a: tg.reshape(a, ()), lambda a: a.reshape(())),
    ("reshape of a scalar", (), lambda a: tg.reshape(a, (1, 1)), lambda a: a.reshape(1, 1)),
    ("reshape empty", (0, 3), lambda a: tg.reshape(a, (3, 0)), lambda a: a.reshape(3, 0)),
    ("method reshape", (2, 3), lambda a: a.reshape(3, -1), lambda a: a.reshape(3, -1)),
    ("ravel", (2, 3), tg.ravel, torch.ravel),
    ("ravel of a scalar", (), tg.ravel, torch.ravel),
    ("transpose", (2, 3, 4), tg.transpose, lambda a: a.permute(2, 1, 0)),
    ("transpose axes", (2, 3, 4), lambda a: tg.transpose(a, (1, -1, 0)), lambda a: a.permute(1, -1, 0)),
    ("T", (2, 3), lambda a: a.T, lambda a: a.T),
    ("method transpose", (2, 3, 4), lambda a: a.transpose(1, 2, 0), lambda a: a.permute(1, 2, 0)),
    ("swapaxes", (2, 3, 4), lambda a: tg.swapaxes(a, 0, -1), lambda a: a.swapaxes(0, -1)),
    ("moveaxis", (2, 3, 4), lambda a: tg.moveaxis(a, 0, -1), lambda a: a.moveaxis(0, -1)),
    ("moveaxis two", (2, 3, 4), lambda a: tg.moveaxis(a, (0, 1), (-1, 0)), lambda a: a.moveaxis((0, 1), (-1, 0))),
    ("expand_dims", (2, 3), lambda a: tg.expand_dims(a, 1), lambda a: a.unsqueeze(1)),
    ("expand_dims -1", (2, 3), lambda a: tg.expand_dims(a, -1), lambda a: a.unsqueeze(-1)),
    ("expand_dims two", (2,), lambda a: tg.expand_dims(a, (0, 2)), lambda a: a.unsqueeze(0).unsqueeze(2)),
    ("squeeze", (1, 2, 1), tg.squeeze, torch.squeeze),
    ("squeeze axis", (1, 2, 1), lambda a: tg.squeeze(a, -1), lambda a: a.squeeze(-1)),
    ("squeeze two", (1, 2, 1), lambda a: tg.squeeze(a, (0, 2)), lambda a: a.squeeze((0, 2))),
    ("broadcast_to", (3, 1), lambda a: tg.broadcast_to(a, (2, 3, 4)), lambda a: a.broadcast_to((2, 3, 4))),
    ("broadcast_to of a scalar", (), lambda a: tg.broadcast_to(a, (2, 3)), lambda a: a.broadcast_to((2, 3))),
    ("broadcast_to nothing", (1,), lambda a: tg.broadcast_to(a, (0,)), lambda a: a.broadcast_to((0,))),
    ("flip", (2, 3), tg.flip, lambda a: a.flip(0, 1)),
    ("flip axis", (2, 3), lambda a: tg.flip(a, -1), lambda a: a.flip(-1)),
    ("flip axes", (2, 3, 4), lambda a: tg.flip(a, (0, 2)), lambda a: a.flip(0, 2)),
    ("roll", (2, 3), lambda a: tg.roll(a, 2), lambda a: torch.roll(a, 2)),
    ("roll axis", (2, 3), lambda a: tg.roll(a, -1, 1), lambda a: torch.roll(a, -1, 1)),
    ("roll axes", (2, 3), lambda a: tg.roll(a, (1, 2), (0, 1)), lambda a: torch.roll(a, (1, 2), (0, 1))),
    ("roll far", (3,), lambda a: tg.roll(a, 100, 0), lambda a: torch.roll(a, 100, 0)),
    ("tril", (3, 4), tg.tril, torch.tril),
    ("tril k", (2, 3, 3), lambda a: tg.tril(a, -1), lambda a: torch.tril(a, -1)),
    ("triu", (4, 3), tg.triu, torch.triu),
    ("triu k", (2, 3, 3), lambda a: tg.triu(a, 2), lambda a: torch.triu(a, 2)),
    ("diagonal", (3, 4), tg.diagonal, torch.diagonal),
    ("diagonal offset", (3, 4), lambda a: tg.diagonal(a, 1), lambda a: torch.diagonal(a, 1)),
    ("diagonal offset −1", (3, 4), lambda a: tg.diagonal(a, -1), lambda a: torch.diagonal(a, -1)),
    ("diagonal axes", (3, 4, 5), lambda a: tg.diagonal(a, 0, 2, 0), lambda a: torch.diagonal(a, 0, 2, 0)),
    ("repeat", (2, 3), lambda a: tg.repeat(a, 2), lambda a: a.reshape(-1).repeat_interleave(2)),
    ("repeat axis", (2, 3), lambda a: tg.repeat(a, 3, 1), lambda a: a.repeat_interleave(3, 1)),
    ("repeat counts", (3,), lambda a: tg.repeat(a, [0, 2, 1], 0), lambda a: a.repeat_interleave(torch.tensor([0, 2, 1]), 0)),
    ("tile", (2, 3), lambda a: tg.tile(a, 2), lambda a: torch.tile(a, (2,))),
    ("tile two", (2, 3), lambda a: tg.tile(a, (2, 3)), lambda a: torch.tile(a, (2, 3))),
    ("tile more axes", (3,), lambda a: tg.tile(a, (2, 1, 2)), lambda a: torch.tile(a, (2, 1, 2))),
    ("tile none", (3,), lambda a: tg.tile(a, 0), lambda a: torch.tile(a, (0,))),
    ("take", (2, 3), lambda a: tg.take(a, [0, 2, 0], 1), lambda a: a[:, torch.tensor([0, 2, 0])]),
    ("take −1", (2, 3), lambda a: tg.take(a, [-1, 0], 0), lambda a: a[torch.tensor([-1, 0])]),
    ("take flat", (2, 3), lambda a: tg.take(a, [[5, 0], [0, 1]]), lambda a: torch.take(a, torch.tensor([[5, 0], [0, 1]]))),
    ("take one", (2, 3), lambda a: tg.take(a, 1, 1), lambda a: a[:, 1]),
    ("take none", (2, 3), lambda a: tg.take(a, np.zeros(0, int), 1), lambda a: a[:, torch.zeros(0, dtype=torch.long)]),
    ("split", (6, 2), lambda a: tg.split(a, 3), lambda a: torch.tensor_split(a, 3)),
    ("split places", (5, 2), lambda a: tg.split(a, [1, 3]), lambda a: torch.tensor_split(a, [1, 3])),
    ("split axis", (2, 4), lambda a: tg.split(a, 2, -1), lambda a: torch.tensor_split(a, 2, -1)),
    ("split beyond", (3,), lambda a: tg.split(a, [2, 7]), lambda a: (a[:2], a[2:], a[3:])),
    ("pad", (2, 3), lambda a: tg.pad(a, 1), lambda a: torch.nn.functional.pad(a, (1, 1, 1, 1))),
    ("pad widths", (2, 3), lambda a: tg.pad(a, ((0, 1), (2, 0))), lambda a: torch.nn.functional.pad(a, (2, 0, 0, 1))),
    ("pad value", (2, 3), lambda a: tg.pad(a, 1, constant_values=7.0), lambda a: torch.nn.functional.pad(a, (1, 1, 1, 1), value=7.0)),
    (
        "pad edge",
        (1, 2, 3),
        lambda a: tg.pad(a, ((0, 0), (0, 0), (2, 1)), "edge"),
        lambda a: torch.nn.functional.pad(a, (2, 1), "replicate"),
    ),
    (
        "pad reflect",
        (1, 2, 3),
        lambda a: tg.pad(a, ((0, 0), (0, 0), (2, 1)), "reflect"),
        lambda a: torch.nn.functional.pad(a, (2, 1), "reflect"),
    ),
    (
        "pad wrap",
        (1, 2, 3),
        lambda a: tg.pad(a, ((0, 0), (0, 0), (2, 1)), "wrap"),
        lambda a: torch.nn.functional.pad(a, (2, 1), "circular"),
    ),
    ("iteration", (3, 2), lambda a: list(a), lambda a: list(a)),
]
for name, shape, ours, theirs in ROUTES:
    case(name, ours, theirs, normal(*shape), smooth=True)
for shapes, axis in (
    ([(2, 3), (4, 3)], 0),
    ([(2, 3), (2, 1)], 1),
    ([(2, 3), (2, 1)], -1),
    ([(3,), (0,), (2,)], 0),
    ([(2,)], 0),
    ([(0, 2), (3, 2)], 0),
):
    case(
        f"concatenate {shapes} axis={axis}",
        lambda *x, i=axis: tg.concatenate(x, axis=i),
        lambda *x, i=axis: torch.cat(x, dim=i),
        *(normal(*shape) for shape in shapes),
        smooth=True,
    )
for shape, axis in (((), 0), ((3,), 0), ((3,), 1), ((3,), -1), ((2, 3), 1), ((0,), 0)):
    case(
        f"stack {shape} axis={axis}",
        lambda *x, i=axis: tg.stack(x, axis=i),
        lambda *x, i=axis: torch.stack(x, dim=i),
        normal(*shape),
        normal(*shape),
        normal(*shape),
        smooth=True,
    )
case("concatenate an operand with itself", lambda a: tg.concatenate([a, a * 2.0, a]), lambda a: torch.cat([a, a * 2.0, a]), normal(3))

KEYS: list[tuple[str, tuple[int, ...], Any]] = [
    ("0", (3, 4), 0),
    ("-1", (3, 4), -1),
    ("1, 2", (3, 4), (1, 2)),
    ("1:", (3, 4), slice(1, None)),
    ("::-1", (3, 4), slice(None, None, -1)),
    ("::-2, 1", (5, 4), (slice(None, None, -2), 1)),
    ("3:0:-1", (5,), slice(3, 0, -1)),
    ("…, 0", (2, 3, 4), (Ellipsis, 0)),
    ("0, …", (2, 3, 4), (0, Ellipsis)),
    ("None", (3,), None),
    (":, None", (3, 2), (slice(None), None)),
    ("…, None", (2, 3), (Ellipsis, None)),
    ("…", (2, 3), Ellipsis),
    ("()", (2, 3), ()),
    ("() of a scalar", (), ()),
    ("… of a scalar", (), Ellipsis),
    ("None of a scalar", (), None),
    ("5:2", (6,), slice(5, 2)),
    ("1:100", (3,), slice(1, 100)),
    ("list", (4, 2), [0, 2, 2]),
    ("array", (4, 2), np.array([[0, 1], [3, 3]])),
    ("negative array", (4,), np.array([-1, 0, -1])),
    ("empty list", (4, 2), []),
    ("mask", (2, 3), np.array([[True, False, True], [False, False, True]])),
    ("row mask", (3, 2), np.array([True, False, True])),
    ("mask of nothing", (3,), np.zeros(3, bool)),
    ("two arrays", (3, 4), (np.array([0, 2, 0]), np.array([1, 1, 1]))),
    ("two arrays that broadcast", (3, 4), (np.array([[0], [2]]), np.array([1, 3]))),
    ("array and slice", (3, 4), (np.array([0, 0]), slice(1, 3))),
    ("slice and array", (3, 4), (slice(None), np.array([2, 2, 0]))),
    ("arrays apart", (2, 3, 4), (np.array([0, 1]), slice(None), np.array([2, 2]))),
    ("array and integer apart", (2, 3, 4), (0, slice(None), np.array([2, 2]))),
    ("mask and integer", (3, 4), (np.array([True, False, True]), 1)),
    ("mask, None and array", (3, 4), (np.array([True, True, False]), None, np.array([1, 1]))),
    ("NumPy integer", (3,), np.int64(1)),
    ("0-d array", (3, 2), np.array(1)),
    ("True", (3,), True),
    ("False", (3,), False),
    ("unsigned", (4,), np.array([1, 1], np.uint8)),
    ("range", (4,), [*range(3)]),
    ("mixed negative step and array", (3, 4), (slice(None, None, -1), np.array([3, 0]))),
]
for name, shape, key in KEYS:

    def picked(a: Any, key: Any = key) -> Any:
        return a.reshape(-1)[torch.tensor(np.array(np.arange(a.numel()).reshape(tuple(a.shape))[key]))]

    case(f"x[{name}]", lambda a, k=key: a[k], picked, normal(*shape), smooth=True)

# -- losses -----------------------------------------------------------------------------------------------------------------------------

for shape in ((3, 4), (1, 2), (2, 3, 4), (4,)):
    targets = rng.integers(0, shape[-1], size=shape[:-1])
    case(
        f"cross_entropy{shape}",
        lambda a, t=targets: tg.cross_entropy(a, t),
        lambda a, t=targets: torch.nn.functional.cross_entropy(a.reshape(-1, a.shape[-1]), torch.tensor(t).reshape(-1)),
        normal(*shape),
        smooth=True,
    )
case(
    "cross_entropy at ±1000",
    lambda a: tg.cross_entropy(a, [0, 0, 1]),
    lambda a: torch.nn.functional.cross_entropy(a, torch.tensor([0, 0, 1])),
    [[1000.0, -1000.0], [-1000.0, 1000.0], [1000.0, 1000.0]],
)
for shape in ((), (3,), (2, 3)):
    case(f"mse{shape}", tg.mse, torch.nn.functional.mse_loss, normal(*shape), normal(*shape), smooth=True)


# -- the comparisons -----------------------------------------------------------------------------------------------------------------


def several(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def arrays(tensors: Sequence[Any]) -> list[Any]:
    return [x.value if isinstance(x, tg.Tensor) else x.detach().numpy() for x in tensors]


def assert_close(what: str, actual: Any, expected: Any, dtype: Any, *sources: Any) -> None:
    """Equal shapes and dtypes; entries equal to ``RTOL``, or to rounding in units of the largest entry (of the sources too)."""
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype == dtype, what
    unit = max(float(np.abs(x[np.isfinite(x)]).max(initial=0.0)) for x in (expected, *sources))
    atol = 4 * np.finfo(dtype).eps * unit
    np.testing.assert_allclose(actual, expected, rtol=RTOL[dtype], atol=atol, err_msg=what)


def build(row: Case, dtype: Any) -> tuple[list[Any], list[Any], list[Any], list[Any], list[Any]]:
    given = [x.astype(dtype) for x in row.operands]
    ours_in = [tg.tensor(x, requires_grad=True) for x in given]
    theirs_in = [torch.tensor(x, requires_grad=True) for x in given]
    ours, theirs = several(row.ours(*ours_in)), several(row.theirs(*theirs_in))
    draw = np.random.default_rng(7)
    weights = [(row.scale * (draw.normal(size=tuple(out.shape)) + 0.25)).astype(dtype) for out in theirs]
    return ours_in, theirs_in, ours, theirs, weights


def ids(rows: Sequence[Case]) -> list[str]:
    return [row.name for row in rows]


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("row", CASES, ids=ids(CASES))
def test_value_and_gradient(row: Case, dtype: Any) -> None:
    """Every value and every gradient is PyTorch's, in both precisions."""
    with np.errstate(over="ignore"):
        ours_in, theirs_in, ours, theirs, weights = build(row, dtype)
    assert len(ours) == len(theirs)
    for position, (a, b) in enumerate(zip(arrays(ours), arrays(theirs), strict=True)):
        assert_close(f"value {position}", a, b, dtype)
    recorded = [place for place, out in enumerate(ours) if out.requires_grad]
    ours_grad = tg.grad([ours[i] for i in recorded], ours_in, [weights[i] for i in recorded], allow_unused=True)
    theirs_grad = torch.autograd.grad(theirs, theirs_in, [torch.tensor(w) for w in weights], allow_unused=True, materialize_grads=True)
    for position, (a, b) in enumerate(zip(arrays(ours_grad), arrays(theirs_grad), strict=True)):
        assert_close(f"gradient {position}", a, b, dtype, *weights)


SMOOTH = [row for row in CASES if row.smooth]


@pytest.mark.parametrize("row", SMOOTH, ids=ids(SMOOTH))
def test_second_order(row: Case) -> None:
    """A gradient that was recorded (``create_graph``) has PyTorch's derivative, for the cotangent too."""
    ours_in, theirs_in, ours, theirs, weights = build(row, np.float64)
    ours_w = [tg.tensor(w, requires_grad=True) for w in weights]
    theirs_w = [torch.tensor(w, requires_grad=True) for w in weights]
    ours_first = tg.grad(ours, ours_in, ours_w, create_graph=True, allow_unused=True)
    theirs_first = torch.autograd.grad(theirs, theirs_in, theirs_w, create_graph=True, allow_unused=True, materialize_grads=True)
    draw = np.random.default_rng(11)
    directions = [draw.normal(size=x.shape) + 0.25 for x in row.operands]
    ours_second = tg.grad(
        [g for g in ours_first if g.requires_grad],
        [*ours_in, *ours_w],
        [d for g, d in zip(ours_first, directions, strict=True) if g.requires_grad],
        allow_unused=True,
    )
    theirs_second = torch.autograd.grad(
        [g for g in theirs_first if g.requires_grad],
        [*theirs_in, *theirs_w],
        [torch.tensor(d) for g, d in zip(theirs_first, directions, strict=True) if g.requires_grad],
        allow_unused=True,
        materialize_grads=True,
    )
    for position, (a, b) in enumerate(zip(arrays(ours_second), arrays(theirs_second), strict=True)):
        assert_close(f"second derivative {position}", a, b, np.float64, *weights, *directions)


def test_every_public_operation_is_compared() -> None:
    """The table names every operation that the package exports, so none can be added without an oracle."""
    apart = {"item", "identity", "astype", "getitem", "absolute"}  # engine's own; x[…] and abs are there under their symbols
    named = " ".join(row.name for row in CASES)
    assert [name for name in tg.ops.__all__ if name not in named and name not in apart] == []


@pytest.mark.parametrize("narrow", [np.float32, np.float16])
def test_astype_keeps_the_gradient_in_the_operands_precision(narrow: Any) -> None:
    """A cast rounds the value, and its gradient comes back in the operand's own precision, as in PyTorch."""
    x = rng.normal(size=5)
    ours, theirs = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    weight = rng.normal(size=5).astype(narrow)
    low = theirs.to(torch.float16 if narrow is np.float16 else torch.float32)
    (expected,) = torch.autograd.grad(low, theirs, torch.tensor(weight))
    out = ours.astype(narrow)
    np.testing.assert_array_equal(out.value, low.detach().numpy())
    (actual,) = tg.grad(out, ours, weight)
    assert actual.dtype == np.float64
    np.testing.assert_array_equal(actual.value, expected.numpy())
