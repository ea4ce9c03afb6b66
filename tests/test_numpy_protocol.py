"""NumPy's own functions on Tensors: value, shape and dtype are what NumPy gives for plain arrays, and the gradient flows.

One row per call. A row is run on plain arrays and on Tensors in every floating-point dtype; the two must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DtypeError, ShapeError, TinygradError, UnsupportedError

FLOATS = [np.float64, np.float32, np.float16]
NUMPY_2_1 = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # names some arguments that 2.0 does not
RTOL = {"float64": 1e-13, "float32": 2e-6, "float16": 4e-3}


class Row(NamedTuple):
    name: str
    call: Callable[..., Any]
    operands: tuple[Any, ...]


ROWS: list[Row] = []
rng = np.random.default_rng(3)


def positive(*shape: int) -> Any:
    return rng.integers(4, 16, size=shape) / 8.0


def row(name: str, call: Callable[..., Any], *operands: Any) -> None:
    """One comparison; a shape stands for numbers in [½, 2), which every dtype holds exactly."""
    ROWS.append(Row(name, call, tuple(positive(*x) if isinstance(x, tuple) else np.asarray(x, np.float64) for x in operands)))


# -- ufuncs -------------------------------------------------------------------------------------------------------------------

UNARY = [
    np.negative, np.positive, np.square, np.sqrt, np.reciprocal, np.exp, np.expm1, np.log, np.log1p, np.sin, np.cos, np.tanh, np.absolute,
    np.fabs, np.abs, np.sign, np.floor, np.ceil, np.trunc, np.rint,
]  # fmt: skip
BINARY = [np.add, np.subtract, np.multiply, np.divide, np.true_divide, np.power, np.maximum, np.minimum, np.logaddexp, np.heaviside]
PAIRS = [
    ((), ()),
    ((3,), ()),
    ((), (3,)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((4, 1, 3), (2, 1)),
    ((0, 3), (3,)),
    ((1,), (0,)),
    ((2, 0), (1, 1)),
]

for ufunc in UNARY:
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        row(f"{ufunc.__name__} {shape}", ufunc, shape)
for ufunc in BINARY:
    for one, two in PAIRS:
        row(f"{ufunc.__name__} {one} {two}", ufunc, one, two)
for one, two in (
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((0, 3), (3, 2)),
):
    row(f"matmul {one} {two}", np.matmul, one, two)
    row(f"@ {one} {two}", lambda a, b: a @ b, one, two)
    row(f"np.dot {one} {two}", np.dot, one, two)

# -- reductions ------------------------------------------------------------------------------------------------------------------

SHAPES_AND_AXES: list[tuple[tuple[int, ...], Any]] = [
    ((), None), ((), ()), ((3,), None), ((3,), 0), ((3,), -1), ((2, 3), None), ((2, 3), 0), ((2, 3), -1), ((2, 3), (0, 1)),
    ((2, 3), (-1, 0)), ((2, 3), ()), ((2, 3, 4), (0, 2)), ((2, 3, 4), 1), ((1, 1), None), ((2, 3), (1,)),
]  # fmt: skip
EMPTY: list[tuple[tuple[int, ...], Any]] = [((0,), None), ((0, 3), 0), ((0, 3), 1), ((2, 0), -1), ((2, 0), None), ((2, 0, 3), (0, 1))]

REDUCTIONS = [np.sum, np.mean, np.var, np.std, np.prod, np.max, np.min, np.amax, np.amin]
for reduction in REDUCTIONS:
    for shape, axis in SHAPES_AND_AXES:
        for keepdims in (False, True):
            row(f"{reduction.__name__} {shape} axis={axis} keepdims={keepdims}",
                lambda a, f=reduction, i=axis, k=keepdims: f(a, axis=i, keepdims=k), shape)  # fmt: skip
    row(f"{reduction.__name__} positional axis", lambda a, f=reduction: f(a, 1), (2, 3))
    row(f"{reduction.__name__} named a=", lambda a, f=reduction: f(a=a), (2, 3))
    row(f"{reduction.__name__} numpy axis", lambda a, f=reduction: f(a, axis=np.int64(1)), (2, 3))
    for shape, axis in EMPTY if reduction in (np.sum, np.prod) else [((0, 3), 1), ((0, 3), -1)]:
        row(f"{reduction.__name__} empty {shape} axis={axis}", lambda a, f=reduction, i=axis: f(a, axis=i), shape)
for ddof in (0, 1, 0.5):
    row(f"var ddof={ddof}", lambda a, d=ddof: np.var(a, axis=0, ddof=d), (4, 3))
    row(f"std ddof={ddof}", lambda a, d=ddof: np.std(a, ddof=d, keepdims=True), (4, 3))
row("var correction", lambda a: np.var(a, axis=-1, correction=1), (4, 3))
row("std correction", lambda a: np.std(a, correction=1), (4, 3))
row("sum dtype", lambda a: np.sum(a, axis=0, dtype=np.float64), (2, 3))
row("mean dtype", lambda a: np.mean(a, dtype=np.float64), (2, 3))
row("prod dtype", lambda a: np.prod(a, dtype=np.float32), (2, 3))
row("cumsum dtype", lambda a: np.cumsum(a, dtype=np.float64), (2, 3))
row("sum method", lambda a: a.sum(1), (2, 3))
row("sum method keepdims", lambda a: a.sum(axis=(0, 1), keepdims=True), (2, 3))
row("mean method", lambda a: a.mean(-1), (2, 3))
row("max method", lambda a: a.max(axis=0), (2, 3))
row("mean of half precision does not overflow", lambda a: np.mean(a * 30000), (16,))
row("add.reduce", np.add.reduce, (2, 3))
row("add.reduce axis", lambda a: np.add.reduce(a, axis=1), (2, 3))
row("add.reduce None", lambda a: np.add.reduce(a, axis=None, keepdims=True), (2, 3))
row("add.reduce positional", lambda a: np.add.reduce(a, 1), (2, 3))
row("multiply.reduce", lambda a: np.multiply.reduce(a, axis=1), (2, 3))
row("maximum.reduce", lambda a: np.maximum.reduce(a, axis=1), (2, 3))
row("minimum.reduce", lambda a: np.minimum.reduce(a, axis=(0, 1)), (2, 3))
for shape, axis in (((3,), None), ((3,), 0), ((2, 3), None), ((2, 3), 1), ((2, 3), -2), ((0, 3), 0), ((), None)):
    row(f"cumsum {shape} axis={axis}", lambda a, i=axis: np.cumsum(a, axis=i), shape)
for order in (None, 1, 2, 3, 0.5, np.inf, -np.inf, 0):
    row(f"norm ord={order}", lambda a, p=order: np.linalg.norm(a, p), (3,))
    row(f"norm ord={order} axis", lambda a, p=order: np.linalg.norm(a, ord=p, axis=1, keepdims=True), (2, 3))
row("norm of a matrix", np.linalg.norm, (2, 3))
row("norm fro", lambda a: np.linalg.norm(a, "fro"), (2, 3))
row("norm axes", lambda a: np.linalg.norm(a, axis=(0, 2)), (2, 3, 4))
row("norm keepdims", lambda a: np.linalg.norm(a, keepdims=True), (2, 3))
row("norm of three axes", np.linalg.norm, (2, 3, 4))

# -- shapes ------------------------------------------------------------------------------------------------------------------------

for name, call, shape in [
    ("reshape", lambda a: np.reshape(a, (3, 2)), (2, 3)),
    ("reshape -1", lambda a: np.reshape(a, (-1, 2)), (2, 3)),
    ("reshape int", lambda a: np.reshape(a, 6), (2, 3)),
    *([("reshape shape=", lambda a: np.reshape(a, shape=(6,)), (2, 3))] if NUMPY_2_1 else []),
    ("reshape scalar", lambda a: np.reshape(a, (1, 1)), ()),
    ("reshape empty", lambda a: np.reshape(a, (0, 5)), (2, 0)),
    ("ravel", np.ravel, (2, 3)),
    ("ravel scalar", np.ravel, ()),
    ("transpose", np.transpose, (2, 3, 4)),
    ("transpose axes", lambda a: np.transpose(a, (1, 2, 0)), (2, 3, 4)),
    ("transpose axes=", lambda a: np.transpose(a, axes=[-1, 0, 1]), (2, 3, 4)),
    ("transpose scalar", np.transpose, ()),
    ("T", lambda a: a.T, (2, 3, 4)),
    ("method transpose", lambda a: a.transpose(0, 2, 1), (2, 3, 4)),
    ("method transpose tuple", lambda a: a.transpose((0, 2, 1)), (2, 3, 4)),
    ("method reshape", lambda a: a.reshape(3, -1), (2, 3)),
    ("method ravel", lambda a: a.ravel(), (2, 3)),
    ("method flatten", lambda a: a.flatten(), (2, 3)),
    ("swapaxes", lambda a: np.swapaxes(a, 0, -1), (2, 3, 4)),
    ("swapaxes named", lambda a: np.swapaxes(a, axis1=0, axis2=1), (2, 3, 4)),
    ("moveaxis", lambda a: np.moveaxis(a, 0, -1), (2, 3, 4)),
    ("moveaxis lists", lambda a: np.moveaxis(a, [0, 1], [-1, -2]), (2, 3, 4)),
    ("expand_dims", lambda a: np.expand_dims(a, 1), (2, 3)),
    ("expand_dims tuple", lambda a: np.expand_dims(a, axis=(0, -1)), (2, 3)),
    ("squeeze", np.squeeze, (1, 3, 1)),
    ("squeeze axis", lambda a: np.squeeze(a, axis=0), (1, 3, 1)),
    ("squeeze tuple", lambda a: np.squeeze(a, axis=(0, -1)), (1, 3, 1)),
    ("squeeze none", np.squeeze, (2, 3)),
    ("broadcast_to", lambda a: np.broadcast_to(a, (2, 3, 4)), (3, 1)),
    ("broadcast_to shape=", lambda a: np.broadcast_to(a, shape=5), ()),
    ("take", lambda a: np.take(a, [0, 0, 2], axis=1), (2, 3)),
    ("take flat", lambda a: np.take(a, [[5, 0]]), (2, 3)),
    ("take one", lambda a: np.take(a, 1, axis=-1), (2, 3)),
    ("take named", lambda a: np.take(a, indices=[-1], axis=0), (2, 3)),
    ("take_along_axis", lambda a: np.take_along_axis(a, np.array([[0], [2]]), axis=1), (2, 3)),
    ("split", lambda a: np.split(a, 3), (6, 2)),
    ("split places", lambda a: np.split(a, [1, 3], axis=1), (2, 4)),
    ("split beyond", lambda a: np.split(a, [2, 7]), (3,)),
    ("split negative place", lambda a: np.split(a, [-1]), (3,)),
    ("take_along_axis broadcast", lambda a: np.take_along_axis(a, np.array([[2, 0]]), axis=1), (2, 3)),
    ("take_along_axis flat", lambda a: np.take_along_axis(a, np.array([5, 0]), axis=None), (2, 3)),
    ("array_split places", lambda a: np.array_split(a, [1, 4]), (7, 2)),
    ("array_split", lambda a: np.array_split(a, 3), (7, 2)),
    ("pad", lambda a: np.pad(a, 1), (2, 3)),
    ("pad pair", lambda a: np.pad(a, (1, 2)), (2, 3)),
    ("pad pairs", lambda a: np.pad(a, ((1, 0), (0, 2))), (2, 3)),
    ("pad value", lambda a: np.pad(a, 1, constant_values=3.0), (2, 3)),
    ("pad values", lambda a: np.pad(a, 1, constant_values=((1.0, 2.0), (3.0, 4.0))), (2, 3)),
    ("pad edge", lambda a: np.pad(a, ((1, 1), (0, 2)), mode="edge"), (2, 3)),
    ("pad reflect", lambda a: np.pad(a, 1, "reflect"), (2, 3)),
    ("pad symmetric", lambda a: np.pad(a, 2, "symmetric"), (2, 3)),
    ("pad wrap", lambda a: np.pad(a, 1, mode="wrap"), (2, 3)),
    ("pad empty", lambda a: np.pad(a, 1), (0, 2)),
    ("flip", np.flip, (2, 3)),
    ("flip axis", lambda a: np.flip(a, axis=-1), (2, 3)),
    ("flip tuple", lambda a: np.flip(a, (0, 1)), (2, 3)),
    ("fliplr", np.fliplr, (2, 3)),
    ("flipud", np.flipud, (2, 3)),
    ("roll", lambda a: np.roll(a, 1), (2, 3)),
    ("roll axis", lambda a: np.roll(a, -4, axis=1), (2, 3)),
    ("roll tuple", lambda a: np.roll(a, (1, 2), axis=(0, 1)), (2, 3)),
    ("roll twice", lambda a: np.roll(a, (1, 1), axis=0), (3,)),
    ("roll empty", lambda a: np.roll(a, 1, 0), (0, 2)),
    ("tril", np.tril, (3, 4)),
    ("tril k", lambda a: np.tril(a, k=-1), (2, 3, 3)),
    ("triu", np.triu, (3, 4)),
    ("triu k", lambda a: np.triu(a, 1), (3, 3)),
    ("diagonal", np.diagonal, (3, 4)),
    ("diagonal offset", lambda a: np.diagonal(a, offset=-1), (3, 4)),
    ("diagonal axes", lambda a: np.diagonal(a, 1, 0, 2), (3, 2, 4)),
    ("diag of a matrix", lambda a: np.diag(a, 1), (3, 4)),
    ("diag of a vector", lambda a: np.diag(a, -1), (3,)),
    ("trace", np.trace, (3, 4)),
    ("trace offset", lambda a: np.trace(a, offset=1, axis1=1, axis2=2), (2, 3, 4)),
    ("repeat", lambda a: np.repeat(a, 2), (2, 3)),
    ("repeat axis", lambda a: np.repeat(a, 2, axis=1), (2, 3)),
    ("repeat counts", lambda a: np.repeat(a, [2, 0, 1], axis=-1), (2, 3)),
    ("tile", lambda a: np.tile(a, 2), (2, 3)),
    ("tile tuple", lambda a: np.tile(a, (2, 1, 2)), (2, 3)),
    ("tile nothing", lambda a: np.tile(a, (0, 2)), (2, 3)),
    ("tile scalar", lambda a: np.tile(a, 3), ()),
    ("atleast_1d", np.atleast_1d, ()),
    ("atleast_2d", np.atleast_2d, (3,)),
    ("atleast_2d scalar", np.atleast_2d, ()),
    ("diff", np.diff, (2, 4)),
    ("diff n axis", lambda a: np.diff(a, n=2, axis=0), (4, 2)),
    ("ptp", lambda a: np.ptp(a, axis=1), (2, 4)),
    ("average", np.average, (2, 3)),
    ("average axis", lambda a: np.average(a, axis=1), (2, 3)),
    ("average weights", lambda a: np.average(a, axis=0, weights=[1.0, 3.0]), (2, 3)),
    ("nansum", lambda a: np.nansum(a, axis=0), (2, 3)),
    ("copy", np.copy, (2, 3)),
    ("astype", lambda a: a.astype(np.float32), (2, 3)),
]:  # fmt: skip
    row(f"{name} {shape}", call, shape)

# -- several operands ---------------------------------------------------------------------------------------------------------------

row("concatenate", lambda a, b: np.concatenate([a, b]), (2, 3), (1, 3))
row("concatenate axis", lambda a, b: np.concatenate((a, b), axis=-1), (2, 3), (2, 1))
row("concatenate flat", lambda a, b: np.concatenate([a, b], axis=None), (2, 3), (2,))
row("concatenate with a list", lambda a: np.concatenate([a, [1.0]]), (3,))
row("concatenate empty", lambda a, b: np.concatenate([a, b]), (0, 3), (2, 3))
row("stack", lambda a, b: np.stack([a, b]), (2, 3), (2, 3))
row("stack axis", lambda a, b: np.stack([a, b], axis=-1), (2, 3), (2, 3))
row("stack scalars", lambda a, b: np.stack([a, b]), (), ())
row("hstack", lambda a, b: np.hstack([a, b]), (2, 3), (2, 1))
row("hstack vectors", lambda a, b: np.hstack((a, b)), (2,), (3,))
row("vstack", lambda a, b: np.vstack([a, b]), (3,), (2, 3))
row("column_stack", lambda a, b: np.column_stack([a, b]), (3,), (3, 2))
row("inner", np.inner, (2, 3), (4, 3))
row("inner vectors", np.inner, (3,), (3,))
row("vdot", np.vdot, (2, 3), (2, 3))
row("outer", np.outer, (2, 3), (4,))
row("tensordot", np.tensordot, (2, 3, 4), (3, 4, 5))
row("tensordot 1", lambda a, b: np.tensordot(a, b, 1), (2, 3), (3, 4))
row("tensordot 0", lambda a, b: np.tensordot(a, b, axes=0), (2,), (3,))
row("tensordot axes", lambda a, b: np.tensordot(a, b, axes=([0, 1], [1, 0])), (2, 3, 4), (3, 2))
row("linalg.matmul", np.linalg.matmul, (2, 3), (3, 4))
row("vecdot", np.vecdot, (2, 3), (2, 3))
for text, shapes in [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (3, 4)]), ("i,i", [(3,), (3,)]), ("ii->i", [(3, 3)]), ("ij->ji", [(2, 3)]),
    ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]), ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]), ("ij->", [(2, 3)]), ("i,->i", [(3,), ()]),
    ("ij,ij->i", [(2, 3), (2, 3)]), ("ij,ij->i", [(2, 3), (1, 3)]), (" ij , jk -> ik ", [(2, 3), (3, 4)]),
]:  # fmt: skip
    row(f"einsum {text} {shapes}", lambda *x, s=text: np.einsum(s, *x), *shapes)
row("einsum optimize", lambda a, b: np.einsum("ij,jk->ik", a, b, optimize=True), (2, 3), (3, 4))
row("clip", lambda a: np.clip(a, 0.75, 1.25), (2, 3))
row("clip named", lambda a: np.clip(a, a_min=0.75, a_max=None), (2, 3))
if NUMPY_2_1:
    row("clip min max", lambda a: np.clip(a, min=0.75, max=1.25), (2, 3))
row("clip method", lambda a: a.clip(0.75, 1.25), (2, 3))
row("clip arrays", lambda a: np.clip(a, np.full(3, 0.75, a.dtype), np.full((2, 1), 1.25, a.dtype)), (2, 3))
row("clip tensors", np.clip, (2, 3), (3,), (2, 1))
row("clip crossed", lambda a: np.clip(a, 1.5, 0.5), (2, 3))
row("clip wider bound", lambda a: np.clip(a, np.zeros((4, 1), a.dtype), 1.0), (3,))
if NUMPY_2_1:
    row("clip nothing", lambda a: np.clip(a, None, None), (3,))
row("where", lambda a, b: np.where(np.array([True, False, True]), a, b), (2, 3), (3,))
row("where comparison", lambda a: np.where(a > 1, a, 0.0), (2, 3))
row("where int number", lambda a: np.where(a > 1, a, 0), (2, 3))
row("where scalar first", lambda a: np.where(np.array([[True], [False]]), 1.0, a), (3,))
row("where broadcasts the condition", lambda a, b: np.where(np.eye(3, dtype=bool), a, b), (), (3,))
row("sign, then operators", lambda a: np.sign(a) * a + abs(-a), (3,))

# -- operators with numbers, arrays and lists -----------------------------------------------------------------------------------------

for name, call in {
    "t + 1": lambda a: a + 1,
    "1 + t": lambda a: 1 + a,
    "t - 0.5": lambda a: a - 0.5,
    "0.5 - t": lambda a: 0.5 - a,
    "2 * t": lambda a: 2 * a,
    "t * True": lambda a: a * True,
    "t / 3": lambda a: a / 3,
    "1 / t": lambda a: 1 / a,
    "2 ** t": lambda a: 2**a,
    "2.0 ** t": lambda a: 2.0**a,
    "t ** 2": lambda a: a**2,
    "t ** 3": lambda a: a**3,
    "t ** -1": lambda a: a**-1,
    "t ** 0.5": lambda a: a**0.5,
    "t ** 0": lambda a: a**0,
    "np.power(t, 2)": lambda a: np.power(a, 2),
    "np.float64(2) * t": lambda a: np.float64(2) * a,
    "t * np.float64(2)": lambda a: a * np.float64(2),
    "t * np.float32(2)": lambda a: a * np.float32(2),
    "np.float32(2) * t": lambda a: np.float32(2) * a,
    "t + np.float16(2)": lambda a: a + np.float16(2),
    "np.int64(2) + t": lambda a: np.int64(2) + a,
    "np.int8(2) + t": lambda a: np.int8(2) + a,
    "np.bool_(True) * t": lambda a: np.bool_(True) * a,
    "array + t": lambda a: np.ones(3) + a,
    "t + array": lambda a: a + np.ones(3),
    "float32 array + t": lambda a: np.ones(3, np.float32) + a,
    "t * float16 array": lambda a: a * np.ones(3, np.float16),
    "int64 array * t": lambda a: np.arange(3) * a,
    "t * int64 array": lambda a: a * np.arange(3),
    "t - int32 array": lambda a: a - np.arange(3, dtype=np.int32),
    "t - int16 array": lambda a: a - np.arange(3, dtype=np.int16),
    "t - int8 array": lambda a: a - np.arange(3, dtype=np.int8),
    "uint8 array / t": lambda a: np.ones(3, np.uint8) / a,
    "bool array * t": lambda a: np.array([True, False, True]) * a,
    "t + list": lambda a: a + [1.0, 2.0, 3.0],  # noqa: RUF005
    "list + t": lambda a: [1, 2, 3] + a,  # noqa: RUF005
    "t + 0-d array": lambda a: a + np.array(1.0),
    "0-d array * t": lambda a: np.array(2.0) * a,
    "wide array * t": lambda a: np.ones((2, 1, 3), a.dtype) * a,
    "array @ t": lambda a: np.ones((2, 3), a.dtype) @ a,
    "t @ array": lambda a: a @ np.ones((3, 2)),
    "np.add(t, 1)": lambda a: np.add(a, 1),
    "np.multiply(np.float64(2), t)": lambda a: np.multiply(np.float64(2), a),
    "np.maximum(t, 0)": lambda a: np.maximum(a, 0),
    "np.maximum(1.0, t)": lambda a: np.maximum(1.0, a),
    "np.minimum(t, np.arange(3))": lambda a: np.minimum(a, np.arange(3)),
    "-t": lambda a: -a,
    "+t": lambda a: +a,
    "abs(t)": lambda a: abs(a),
    "np.float_power(t, 2)": lambda a: np.float_power(a, 2),
    "in-place name": lambda a: _augmented(a),
}.items():
    row(name, call, (3,))
    if "array" not in name and "list" not in name and "@" not in name and "arange" not in name:
        row(f"{name}, zero-dimensional", call, ())


def _augmented(a: Any) -> Any:
    b = a * 1
    b += a
    b *= 2
    b -= 1
    b /= 4
    b **= 2
    return b


def leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("case", ROWS, ids=[r.name for r in ROWS])
def test_agrees_with_numpy(case: Row, dtype: Any) -> None:
    """Value, shape and dtype are NumPy's for the plain arrays, and the gradient comes back in the operand's dtype."""
    arrays = [x.astype(dtype) for x in case.operands]
    with np.errstate(all="ignore"):
        expected = leaves(case.call(*arrays))
    tensors = [tg.tensor(x, requires_grad=True) for x in arrays]
    actual = leaves(case.call(*tensors))
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert isinstance(ours, tg.Tensor)
        assert ours.shape == np.shape(theirs)
        assert ours.dtype == np.asarray(theirs).dtype
        np.testing.assert_allclose(ours.value, theirs, rtol=max(RTOL[str(ours.dtype)], RTOL[dtype.__name__]), atol=0)
    recorded = [out for out in actual if out.requires_grad]
    if recorded:
        for x, gradient in zip(
            tensors, tg.grad(recorded, tensors, [np.ones(out.shape) for out in recorded], allow_unused=True), strict=True
        ):
            assert gradient.shape == x.shape
            assert gradient.dtype == dtype
            assert np.isfinite(gradient.value).all()


# -- answers on plain values ---------------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[str, Callable[[Any], Any]]] = [
    ("t > 0", lambda a: a > 0),
    ("t >= array", lambda a: a >= np.array([1.0, 2.0, 3.0])),
    ("array < t", lambda a: np.array([1.0, 2.0, 3.0]) < a),
    ("t == t", lambda a: a == a),
    ("t != number", lambda a: a != 1.0),
    ("t == None", lambda a: a == None),  # noqa: E711
    ("1.0 <= t", lambda a: 1.0 <= a),  # noqa: SIM300
    ("np.greater", lambda a: np.greater(a, 1.0)),
    ("np.less_equal", lambda a: np.less_equal(1.0, a)),
    ("np.equal", lambda a: np.equal(a, a)),
    ("np.isnan", np.isnan),
    ("np.isinf", np.isinf),
    ("np.isfinite", np.isfinite),
    ("np.signbit", np.signbit),
    ("np.logical_not", np.logical_not),
    ("np.logical_and", lambda a: np.logical_and(a > 0, a)),
    ("np.shape", np.shape),
    ("np.ndim", np.ndim),
    ("np.size", np.size),
    ("np.size axis", lambda a: np.size(a, 1)),
    ("np.argmax", np.argmax),
    ("np.argmax axis", lambda a: np.argmax(a, axis=1)),
    ("np.argmin", lambda a: np.argmin(a, axis=0, keepdims=True)),
    ("np.argsort", lambda a: np.argsort(a, axis=-1)),
    ("np.nonzero", np.nonzero),
    ("np.count_nonzero", np.count_nonzero),
    ("np.any", np.any),
    ("np.all", lambda a: np.all(a, axis=0)),
    ("np.allclose", lambda a: np.allclose(a, a)),
    ("np.isclose", lambda a: np.isclose(a, 1.0)),
    ("np.array_equal", lambda a: np.array_equal(a, a)),
    ("np.zeros_like", np.zeros_like),
    ("np.ones_like", lambda a: np.ones_like(a, dtype=int)),
    ("np.full_like", lambda a: np.full_like(a, 2.0)),
    ("np.unique", np.unique),
    ("np.searchsorted", lambda a: np.searchsorted(a[0], 1.0)),
    ("np.array2string", np.array2string),
    ("np.result_type", lambda a: np.result_type(a, np.float64)),
    ("len", len),
    ("shape", lambda a: a.shape),
    ("ndim", lambda a: a.ndim),
    ("size", lambda a: a.size),
    ("dtype", lambda a: a.dtype),
    ("tolist", lambda a: a.tolist()),
    ("bool of one", lambda a: bool(a[0, 0])),
    ("float of one", lambda a: float(a[0, 0])),
    ("int of one", lambda a: int(a[0, 0])),
    ("item", lambda a: a[0, 0].item()),
    ("format", lambda a: f"{a[0, 0]:.3f}"),
    ("contains", lambda a: 99.0 in a),
]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize(("name", "call"), ANSWERS, ids=[name for name, _ in ANSWERS])
def test_questions_are_answered_on_the_plain_values(name: str, call: Callable[[Any], Any], dtype: Any) -> None:
    """Comparisons, predicates, places and shapes are NumPy's own answers: plain values, not Tensors."""
    array = np.array([[0.5, 0.0, 2.0], [-1.0, 1.0, np.inf]], dtype)
    expected, actual = call(array), call(tg.tensor(array, requires_grad=True))
    assert type(actual) is type(expected)
    for a, b in zip(leaves(actual), leaves(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


# -- dtypes ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 0.1, True, -3])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
def test_python_numbers_take_the_tensors_precision(number: Any, dtype: Any) -> None:
    """A Python number never widens a Tensor, on either side, alone or inside a function."""
    x = tg.tensor(np.array([0.5, 1.5], dtype), requires_grad=True)
    results = [
        x + number, number + x, x - number, number - x, x * number, number * x, x / number, number / x, x**number, np.maximum(x, number),
        np.minimum(number, x), np.where([True, False], number, x), np.where(np.eye(2, dtype=bool), x, number), np.clip(x, -5, number),
        np.where([[True], [False]], number, x), tg.xlogy(number, x), np.logaddexp(x, number), np.pad(x, 1, constant_values=number),
        tg.softmax(x) * number, x.mean() + number, x.var(ddof=1), x.std(), x.norm(), x.norm(3) * number, tg.mse(x, x + number),
    ]  # fmt: skip
    for out in results:
        assert out.dtype == dtype
        out.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype


@pytest.mark.parametrize("call", [
    lambda x, c: x + c, lambda x, c: c * x, lambda x, c: x / c, lambda x, c: np.where([True, False], x, c), lambda x, c: np.stack([x, c]),
    lambda x, c: np.concatenate([c, x]), lambda x, c: x @ c, lambda x, c: c @ x, lambda x, c: np.einsum("i,i->i", x, c), np.outer, np.dot,
    lambda x, c: np.einsum("i,j->", x, c), lambda x, c: np.maximum(c, x), lambda x, c: np.clip(x, -c, c), lambda x, c: np.inner(x, c),
])  # fmt: skip
@pytest.mark.parametrize("wide", [np.float64, np.int64, np.int32], ids=lambda d: d.__name__)
def test_a_wider_array_widens_the_value_but_not_the_gradient(call: Any, wide: Any) -> None:
    """float32 with float64 (or with 32- and 64-bit integers) gives float64 as in NumPy; the gradient comes back as float32."""
    x, array = np.array([0.5, 1.5], np.float32), np.array([2, 3], wide)
    t = tg.tensor(x, requires_grad=True)
    out = call(t, array)
    assert out.dtype == call(x, array).dtype == np.float64
    np.testing.assert_allclose(out.value, call(x, array), rtol=1e-15)
    for create_graph in (False, True):
        (gradient,) = tg.grad(out, t, np.ones(out.shape), create_graph=create_graph)
        assert gradient.dtype == np.float32


def test_two_tensors_of_different_precision() -> None:
    """Each of two operands gets its gradient in its own precision."""
    for call in (lambda a, b: a * b, lambda a, b: np.concatenate([a, b]), lambda a, b: a @ b, lambda a, b: np.where([True, False], a, b)):
        a, b = tg.tensor(np.ones(2, np.float32), requires_grad=True), tg.tensor(np.ones(2), requires_grad=True)
        call(a, b).sum().backward()
        assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_whole_numbers_keep_numpys_rules() -> None:
    """A Tensor of integers or booleans is not differentiated, and computes as NumPy does."""
    calls: list[Callable[[Any], Any]] = [
        lambda a: a + 1, lambda a: a / 2, lambda a: a * 2.0, lambda a: a**2, lambda a: 2**a, lambda a: a * True, lambda a: a * a,
        lambda a: np.maximum(a, 2), lambda a: a @ a, lambda a: np.concatenate([a, a]), lambda a: np.concatenate([a, a * 0.5]),
        lambda a: np.pad(a, 1),
        lambda a: np.where(a > 1, a, 0), lambda a: np.clip(a, 2, 3), lambda a: a[:, 1], np.sum, np.mean, np.prod, np.max,
        np.cumsum, np.sqrt,
        np.var, np.std, np.linalg.norm, np.tril, np.exp, np.trace, tg.softmax, tg.log_softmax, tg.logsumexp, tg.sigmoid,
        tg.softplus,
        tg.reciprocal, lambda a: tg.cross_entropy(a, [0, 1]), lambda a: tg.mse(a, a + 1), np.square,
    ]  # fmt: skip
    for whole in (np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]], np.uint8), np.array([[True, False], [True, True]])):
        t = tg.tensor(whole)
        for call in calls:
            with np.errstate(all="ignore"):
                expected = call(whole)
            actual = call(t)
            assert isinstance(actual, tg.Tensor)
            assert not actual.requires_grad
            assert actual.dtype == expected.dtype
            np.testing.assert_allclose(actual.value, expected, rtol=1e-3 if expected.dtype == np.float16 else 1e-14)


# -- refusals --------------------------------------------------------------------------------------------------------------------------


def tracked(*shape: int) -> Any:
    return tg.tensor(positive(*shape), requires_grad=True)


def add_at(t: Any) -> None:
    np.add.at(t, [0], 1.0)


def write(t: Any) -> None:
    t[0] = 1.0


def augmented_array(t: Any) -> None:
    array = np.ones((3, 3))
    array += t


REFUSALS: list[tuple[str, Callable[[Any], Any], list[str]]] = [
    ("ufunc without a rule", np.arctan, ["np.arctan", "no derivative", ".value"]),
    ("function without a rule", np.sort, ["np.sort", "not differentiable", ".value"]),
    ("matrix inverse", np.linalg.inv, ["np.inv", "not differentiable"]),
    ("median", np.median, ["np.median", "not differentiable"]),
    ("out of a ufunc", lambda t: np.add(t, t, out=np.empty((3, 3))), ["np.add", "out=", "returned Tensor"]),
    ("into a Tensor", lambda t: np.add(np.ones((3, 3)), 1.0, out=t), ["np.add", "out=", "returned Tensor"]),
    ("out of a function", lambda t: np.sum(t, axis=0, out=np.empty(3)), ["np.sum", "out=", "returned Tensor"]),
    ("array += tensor", augmented_array, ["np.add", "in-place", "a = a + b"]),
    ("where of a ufunc", lambda t: np.add(t, t, where=np.eye(3, dtype=bool)), ["np.add", "where=", "tg.where"]),
    ("where of a function", lambda t: np.sum(t, where=np.eye(3, dtype=bool)), ["np.sum", "where=", "tg.where"]),
    ("dtype of a ufunc", lambda t: np.add(t, t, dtype=np.float32), ["np.add", "dtype", ".astype"]),
    ("initial", lambda t: np.sum(t, initial=3.0), ["np.sum", "initial"]),
    ("initial of reduce", lambda t: np.add.reduce(t, initial=3.0), ["np.add.reduce", "initial"]),
    ("order", lambda t: np.reshape(t, (9,), order="F"), ["np.reshape", "order"]),
    ("accumulate", np.add.accumulate, ["np.add.accumulate", "not differentiable"]),
    ("ufunc.outer", lambda t: np.multiply.outer(t, t), ["np.multiply.outer", "not differentiable"]),
    ("ufunc.at", add_at, ["np.add.at", "not differentiable"]),
    ("t[0] = 1", write, ["setitem", "tg.where", "tg.concatenate"]),
    ("np.asarray", np.asarray, ["array", ".value", ".numpy()"]),
    ("np.array of a list", lambda t: np.array([t, t]), ["array", ".value", ".numpy()"]),
    ("np.copyto", lambda t: np.copyto(t, 1.0), ["np.copyto"]),
    ("fill_diagonal", lambda t: np.fill_diagonal(t, 0.0), ["np.fill_diagonal"]),
    ("put", lambda t: np.put(t, [0], 1.0), ["np.put"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call", "parts"), REFUSALS, ids=[name for name, _, _ in REFUSALS])
def test_what_has_no_meaning_is_refused_by_name(name: str, call: Callable[[Any], Any], parts: Sequence[str]) -> None:
    """An unsupported function, keyword or in-place write raises an error that names the operation and the remedy."""
    t = tracked(3, 3)
    before = t.numpy()
    with pytest.raises(TinygradError) as caught:
        call(t)
    assert isinstance(caught.value, (UnsupportedError, ArgumentError))
    for part in parts:
        assert part in str(caught.value)
    np.testing.assert_array_equal(t.value, before)


def test_a_value_cannot_be_written_to() -> None:
    """The arrays behind ``.value`` are read-only, for leaves and for results; ``.numpy()`` is a private copy."""
    t = tracked(3)
    for array in (t.value, (t * 2).value, t[0:2].value, t.reshape(3, 1).value, t.detach().value, np.copy(t).value):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0
    copy = t.numpy()
    copy[0] = 7.0
    assert t.value[0] != 7.0


def test_untracked_tensors_become_arrays() -> None:
    """``np.asarray`` of a Tensor without a gradient is its value; so is that of a tracked one under ``no_grad``."""
    t = tracked(3)
    np.testing.assert_array_equal(np.asarray(t.detach()), t.value)
    with tg.no_grad():
        np.testing.assert_array_equal(np.asarray(t), t.value)


def test_functions_of_plain_arrays_give_plain_arrays() -> None:
    """A Tensor among the operands makes a Tensor; none makes an array."""
    assert isinstance(tg.tanh(np.ones(3)), np.ndarray)
    assert isinstance(tg.concatenate([np.ones(2), np.ones(2)]), np.ndarray)
    assert isinstance(tg.softmax([1.0, 2.0]), np.ndarray)
    assert isinstance(tg.where([True, False], [1.0, 2.0], tg.tensor(0.0)), tg.Tensor)
    assert isinstance(tg.concatenate([np.ones(2), tg.tensor([1.0])]), tg.Tensor)
    assert not tg.where([True, False], [1.0, 2.0], tg.tensor(0.0)).requires_grad


def test_errors_are_the_exceptions_of_numpy() -> None:
    """Code that catches NumPy's ValueError, TypeError or IndexError keeps working."""
    t = tracked(2, 3)
    with pytest.raises(ValueError):
        np.sum(t, axis=2)
    with pytest.raises(ValueError):
        t + np.ones(4)
    with pytest.raises(IndexError):
        t[5]
    with pytest.raises(TypeError):
        np.arctan2(t, t)
    with pytest.raises(TypeError):
        t + 1j
    for error in (ShapeError, DtypeError, UnsupportedError, ArgumentError):
        assert issubclass(error, TinygradError)
