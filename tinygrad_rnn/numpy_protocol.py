"""NumPy's functions on Tensors: which of our operations stands for which of NumPy's names.

``np.tanh(t)``, ``a + t`` and the other ufuncs arrive through ``__array_ufunc__``; ``np.sum(t, axis=1)``, ``np.concatenate([t, u])``
and the like through ``__array_function__``. What has no derivative (comparisons, argmax, shapes) is answered by NumPy on the plain
values; what has no meaning here is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import ops
from .errors import ArgumentError, ShapeError, TinygradError, UnsupportedError
from .ops.routing import as_operand, integers, normalize_axes, normalize_axis, shape_of
from .tensor import Tensor, as_tensor, compare

# -- functions of NumPy that are made of ours ---------------------------------------------------------------------------------


def _logaddexp(x1: Any, x2: Any) -> Any:
    first = np.array([True, False]).reshape(2, *[1] * max(len(shape_of(x1)), len(shape_of(x2))))
    return ops.logsumexp(ops.where(first, x1, x2), 0)


def _atleast_1d(a: Any) -> Any:
    a = as_operand(a)
    return a if a.ndim else ops.reshape(a, 1)


def _atleast_2d(a: Any) -> Any:
    a = _atleast_1d(a)
    return a if a.ndim > 1 else ops.expand_dims(a, 0)


def _hstack(tup: Any) -> Any:
    parts = [_atleast_1d(part) for part in tup]
    return ops.concatenate(parts, 0 if parts and parts[0].ndim == 1 else 1)


def _vstack(tup: Any) -> Any:
    return ops.concatenate([_atleast_2d(part) for part in tup], 0)


def _column_stack(tup: Any) -> Any:
    parts = [as_operand(part) for part in tup]
    return ops.concatenate([ops.reshape(part, (-1, 1)) if part.ndim < 2 else part for part in parts], 1)


def _array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    if np.ndim(indices_or_sections) == 0:
        parts = np.array_split(np.arange(shape_of(ary)[axis]), indices_or_sections)
        indices_or_sections = np.cumsum([len(part) for part in parts])[:-1]
    return ops.split(ary, indices_or_sections, axis)


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = as_operand(a), as_operand(b)
    pair = (range(-axes, 0), range(axes)) if isinstance(axes, (int, np.integer)) else axes
    one = normalize_axes("tensordot", integers("tensordot", "axes", pair[0]), a.ndim)
    two = normalize_axes("tensordot", integers("tensordot", "axes", pair[1]), b.ndim)
    if [a.shape[i] for i in one] != [b.shape[j] for j in two]:
        raise ShapeError(
            f"tensordot: axes {one} of operand 0, shape {a.shape}, do not fit axes {two} of operand 1, shape {b.shape}; expected as many "
            "of the same lengths"
        )
    rows, columns = tuple(i for i in range(a.ndim) if i not in one), tuple(j for j in range(b.ndim) if j not in two)
    inner = math.prod(a.shape[i] for i in one)
    left = ops.reshape(ops.transpose(a, rows + one), (math.prod(a.shape[i] for i in rows), inner))
    right = ops.reshape(ops.transpose(b, two + columns), (inner, math.prod(b.shape[j] for j in columns)))
    return ops.reshape(ops.matmul(left, right), [a.shape[i] for i in rows] + [b.shape[j] for j in columns])


def _inner(a: Any, b: Any) -> Any:
    a, b = as_operand(a), as_operand(b)
    return ops.multiply(a, b) if a.ndim == 0 or b.ndim == 0 else _tensordot(a, b, (-1, -1))


def _average(a: Any, axis: Any = None, weights: Any = None) -> Any:
    if weights is None:
        return ops.mean(a, axis)
    a, weights = as_operand(a), as_operand(weights)
    if weights.shape != a.shape:
        if axis is None or np.ndim(axis) or weights.shape != (a.shape[normalize_axis("average", axis, a.ndim)],):
            raise ShapeError(
                f"average: weights of shape {weights.shape} do not fit shape {a.shape} along axis {axis}; expected that shape, or the "
                "length of the one axis"
            )
        weights = ops.reshape(weights, [n if i == axis % a.ndim else 1 for i, n in enumerate(a.shape)])
    return ops.divide(ops.sum(ops.multiply(a, weights), axis), ops.sum(ops.broadcast_to(weights, a.shape), axis))


def _diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    lead = (slice(None),) * normalize_axis("diff", axis, as_operand(a).ndim)
    for _ in range(n):
        a = ops.subtract(ops.getitem(a, (*lead, slice(1, None))), ops.getitem(a, (*lead, slice(None, -1))))
    return a


def _diag(v: Any, k: int = 0) -> Any:
    v = as_operand(v)
    if v.ndim != 1:
        return ops.diagonal(v, k)
    square = ops.where(np.eye(v.size, dtype=bool), ops.expand_dims(v, 1), 0)
    return ops.pad(square, ((max(-k, 0), max(k, 0)), (max(k, 0), max(-k, 0))))


def _take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    arr = ops.ravel(arr) if axis is None else as_operand(arr)
    along = normalize_axis("take_along_axis", axis or 0, arr.ndim)
    if len(shape_of(indices)) != arr.ndim:
        raise ShapeError(f"take_along_axis: indices of shape {shape_of(indices)} need the {arr.ndim} dimensions of shape {arr.shape}")
    rows = np.indices(arr.shape, sparse=True)
    return ops.getitem(arr, tuple(_value(indices) if i == along else row for i, row in enumerate(rows)))


UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: ops.add,
    np.subtract: ops.subtract,
    np.multiply: ops.multiply,
    np.divide: ops.divide,
    np.negative: ops.negative,
    np.positive: lambda x: x,
    np.power: ops.power,
    np.float_power: lambda x1, x2: ops.power(ops.multiply(np.float64(1.0), x1), x2),
    np.square: ops.square,
    np.sqrt: ops.sqrt,
    np.reciprocal: ops.reciprocal,
    np.exp: ops.exp,
    np.expm1: ops.expm1,
    np.log: ops.log,
    np.log1p: ops.log1p,
    np.sin: ops.sin,
    np.cos: ops.cos,
    np.tanh: ops.tanh,
    np.absolute: ops.absolute,
    np.fabs: ops.absolute,
    np.maximum: ops.maximum,
    np.minimum: ops.minimum,
    np.matmul: ops.matmul,
    np.logaddexp: _logaddexp,
    np.vecdot: lambda x1, x2: ops.sum(ops.multiply(x1, x2), -1),
}
"""Differentiable ufuncs."""

STEPWISE = (np.sign, np.floor, np.ceil, np.trunc, np.rint, np.heaviside)
"""Ufuncs that are constant almost everywhere: the result is a Tensor without a graph."""

PLAIN = (
    np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal, np.isnan, np.isinf, np.isfinite, np.signbit,
    np.logical_and, np.logical_or, np.logical_not, np.logical_xor,
)  # fmt: skip
"""Ufuncs that answer with booleans: the result is a plain array."""

REDUCTIONS: dict[Any, Callable[..., Any]] = {np.add: ops.sum, np.multiply: ops.prod, np.maximum: ops.max, np.minimum: ops.min}

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: ops.sum,
    np.mean: ops.mean,
    np.var: ops.var,
    np.std: ops.std,
    np.prod: ops.prod,
    np.max: ops.max,
    np.amax: ops.max,
    np.min: ops.min,
    np.amin: ops.min,
    np.cumsum: ops.cumsum,
    np.linalg.norm: ops.norm,
    np.reshape: ops.reshape,
    np.ravel: ops.ravel,
    np.transpose: ops.transpose,
    np.swapaxes: ops.swapaxes,
    np.moveaxis: ops.moveaxis,
    np.expand_dims: ops.expand_dims,
    np.squeeze: ops.squeeze,
    np.broadcast_to: ops.broadcast_to,
    np.take: ops.take,
    np.concatenate: ops.concatenate,
    np.stack: ops.stack,
    np.split: ops.split,
    np.pad: ops.pad,
    np.flip: ops.flip,
    np.roll: ops.roll,
    np.tril: ops.tril,
    np.triu: ops.triu,
    np.diagonal: ops.diagonal,
    np.repeat: ops.repeat,
    np.tile: ops.tile,
    np.dot: ops.dot,
    np.outer: ops.outer,
    np.einsum: ops.einsum,
    np.clip: ops.clip,
    np.where: ops.where,
    np.linalg.matmul: ops.matmul,
    np.trace: lambda a, offset=0, axis1=0, axis2=1: ops.sum(ops.diagonal(a, offset, axis1, axis2), -1),
    np.inner: _inner,
    np.vdot: lambda a, b: ops.dot(ops.ravel(a), ops.ravel(b)),
    np.tensordot: _tensordot,
    np.atleast_1d: _atleast_1d,
    np.atleast_2d: _atleast_2d,
    np.hstack: _hstack,
    np.vstack: _vstack,
    np.column_stack: _column_stack,
    np.array_split: _array_split,
    np.fliplr: lambda m: ops.flip(m, 1),
    np.flipud: lambda m: ops.flip(m, 0),
    np.average: _average,
    np.ptp: lambda a, axis=None, *, keepdims=False: ops.max(a, axis, keepdims=keepdims) - ops.min(a, axis, keepdims=keepdims),
    np.diff: _diff,
    np.diag: _diag,
    np.take_along_axis: _take_along_axis,
    np.nansum: lambda a, axis=None, *, keepdims=False: ops.sum(ops.where(np.isnan(_value(a)), 0, a), axis, keepdims=keepdims),
    np.copy: lambda a: a,  # a Tensor is never written to
}
"""Differentiable functions."""

ON_VALUES = (
    np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.any, np.all, np.allclose, np.isclose,
    np.array_equal, np.zeros_like, np.ones_like, np.full_like, np.empty_like, np.searchsorted, np.unique, np.array_repr, np.array_str,
    np.array2string, np.result_type, np.can_cast, np.may_share_memory, np.shares_memory,
)  # fmt: skip
"""Functions without a derivative: NumPy's own answer on the plain values."""


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Answer ``ufunc.method(*inputs, **options)``, where a Tensor is among the inputs."""
    _refuse_writing(ufunc.__name__, options)
    if method == "reduce" and ufunc in REDUCTIONS:
        axis = options.pop("axis", 0 if len(inputs) < 2 else inputs[1])
        return _call(f"{ufunc.__name__}.reduce", REDUCTIONS[ufunc], (inputs[0], axis), options)
    if method != "__call__":
        raise UnsupportedError(f"np.{ufunc.__name__}.{method}: not differentiable here. Call np.{ufunc.__name__} itself, or use .value")
    if ufunc in PLAIN:
        return compare(ufunc, *inputs, **options)
    if ufunc in STEPWISE:
        return as_tensor(ufunc(*map(_value, inputs), **options))
    ours = UFUNCS.get(ufunc)
    if ours is None:
        raise UnsupportedError(f"np.{ufunc.__name__}: no derivative is defined for it here. Use .value for plain numbers")
    if options:
        raise UnsupportedError(f"np.{ufunc.__name__}: keywords {sorted(options)} are not supported for Tensors; use .astype or tg.where")
    return ours(*inputs)


def call_function(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Answer ``function(*arguments, **options)``, where a Tensor is somewhere in the arguments."""
    if function in ON_VALUES:
        return function(*_values(arguments), **_values(options))
    ours = FUNCTIONS.get(function)
    name = getattr(function, "__name__", str(function))
    if ours is None:
        raise UnsupportedError(f"np.{name}: not differentiable here. Use .value for plain numbers, or compose it from operations of tg")
    _refuse_writing(name, options)
    return _call(name, ours, arguments, options)


def _refuse_writing(name: str, options: dict[str, Any]) -> None:
    if options.pop("out", None) is not None:
        raise UnsupportedError(
            f"np.{name}: out= (or an in-place operator) would overwrite a value that the graph needs; use the returned Tensor, a = a + b"
        )
    if options.pop("where", True) is not True:
        raise UnsupportedError(f"np.{name}: where= is not supported on a Tensor; choose with tg.where(mask, x, y) instead")


def _call(name: str, ours: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return ours(*arguments, **options)
    except TinygradError:
        raise
    except TypeError as error:
        raise ArgumentError(f"np.{name}: on a Tensor, {error}") from None


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Tensor) else x


def _values(tree: Any) -> Any:
    if isinstance(tree, (list, tuple)):
        return type(tree)(_values(part) for part in tree)
    if isinstance(tree, dict):
        return {key: _values(part) for key, part in tree.items()}
    return _value(tree)


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    return call_ufunc(ufunc, method, inputs, options)


def _array_function(self: Tensor, function: Any, types: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return call_function(function, arguments, options)


Tensor.__array_ufunc__ = _array_ufunc
Tensor.__array_function__ = _array_function
