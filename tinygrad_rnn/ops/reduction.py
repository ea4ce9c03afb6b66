"""Operations that make an axis smaller or run along it.

``sum`` and ``cumsum`` route; ``max`` first keeps its peaks (a scale edge) and then sums; the others are composed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..linear_maps import LinearMap, Route, Scale
from ..primitive import primitive
from .arithmetic import divide, multiply, square
from .elementwise import absolute, exp, log, sqrt, where
from .routing import (
    Shape,
    _broadcast_to,
    _reshape,
    as_operand,
    astype,
    concatenate,
    flip,
    getitem,
    normalize_axes,
    normalize_axis,
    ravel,
    reshape,
    transpose,
)

Axis = int | Sequence[int] | None


@primitive(name="sum")
def _sum(x: Any, *, axis: Shape, keepdims: bool) -> Any:
    """Sum over axes."""
    return x.sum(axis=axis, keepdims=keepdims)


@_sum.defrule
def _(out: Any, x: Any, *, axis: Shape, keepdims: bool) -> tuple[LinearMap, ...]:
    return (Route(partial(_sum, axis=axis, keepdims=keepdims), partial(_spread, shape=x.shape, axis=axis), "broadcast"),)


def _spread(x: Any, *, shape: Shape, axis: Shape) -> Any:
    """The adjoint of a sum: each entry back to all that were added."""
    kept = tuple(1 if i in axis else n for i, n in enumerate(shape))
    return _broadcast_to(x if x.shape == kept else _reshape(x, shape=kept), shape=shape)


def sum(a: Any, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
    """Sum over the axes (all by default); 0 for an empty axis."""
    a = as_operand(a, "sum")
    if dtype is not None:
        a = a.astype(dtype)
    return _sum(a, axis=normalize_axes("sum", axis, a.ndim), keepdims=bool(keepdims))


def _count(shape: Shape, axes: Shape) -> int:
    return math.prod(shape[i] for i in axes)


def mean(a: Any, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
    """Arithmetic mean over the axes (all by default); NaN for an empty axis."""
    a = as_operand(a, "mean")
    axes = normalize_axes("mean", axis, a.ndim)
    half = dtype is None and a.dtype == np.float16  # added up in float32, as in NumPy: 65504 is soon reached
    total = divide(sum(a, axes, np.float32 if half else dtype, keepdims=keepdims), _count(a.shape, axes))
    return astype(total, dtype=np.float16) if half else total


def var(a: Any, axis: Axis = None, dtype: Any = None, *, ddof: float = 0, keepdims: bool = False, correction: float | None = None) -> Any:
    """Variance Σ(a − ā)² / (n − ddof) over the axes. ``ddof`` is 0 as in NumPy (PyTorch's default ``correction`` is 1)."""
    a = as_operand(a, "var")
    axes = normalize_axes("var", axis, a.ndim)
    squares = square(a - mean(a, axes, dtype, keepdims=True))
    freedom = _count(a.shape, axes) - (ddof if correction is None else correction)
    return divide(sum(squares, axes, keepdims=keepdims), freedom if freedom > 0 else 0.0)


def std(a: Any, axis: Axis = None, dtype: Any = None, *, ddof: float = 0, keepdims: bool = False, correction: float | None = None) -> Any:
    """Standard deviation √var over the axes; its gradient is 0 where the variance is 0, as in PyTorch."""
    return _root(var(a, axis, dtype, ddof=ddof, keepdims=keepdims, correction=correction))


def _root(x: Any) -> Any:
    """√x with slope 0 at 0, for a sum of squares: neither branch of the choice ever meets an infinite slope."""
    zero = x == 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, x)))


def norm(x: Any, ord: Any = None, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Vector norm (Σ|x|^ord)^(1/ord) over the axes; all entries (the Frobenius norm) by default.

    ``ord`` is None or 2, 1, ±inf, 0 (the number of non-zeros, without gradient) or any positive number. Entries are scaled by the
    largest one first, so squares neither overflow nor underflow. The gradient at 0 is 0, as in PyTorch.

    Raises:
        ArgumentError: for a matrix norm (``ord`` with two axes), which needs singular values.
    """
    x = as_operand(x, "norm")
    axes = normalize_axes("norm", axis, x.ndim)
    if isinstance(ord, str) and ord != "fro":
        raise ArgumentError(f"norm: ord {ord!r} is not supported; expected None, 'fro', a positive number or ±inf")
    if len(axes) > 1 and ord not in (None, "fro"):
        raise ArgumentError(
            f"norm: ord {ord} over the axes {axes} would be a matrix norm, which needs singular values; name one axis, or ravel first"
        )
    power = 2.0 if ord is None or ord == "fro" else float(ord)
    if power == math.inf:
        return max(absolute(x), axes, keepdims=keepdims)
    if power == -math.inf:
        return min(absolute(x), axes, keepdims=keepdims)
    if power == 0:
        return sum(np.sign(absolute(x)), axes, keepdims=keepdims)
    if power == 1:
        return sum(absolute(x), axes, keepdims=keepdims)
    if power < 0:
        raise ArgumentError(f"norm: ord {ord} is negative; expected a positive number")
    largest = np.max(np.abs(getattr(x, "value", x)), axis=axes, keepdims=True, initial=0.0)
    smallest = np.finfo(x.dtype).tiny if x.dtype.kind == "f" else 1  # 1 / unit must not overflow for subnormal entries
    unit = np.where((largest > 0) & np.isfinite(largest), np.maximum(largest, smallest), x.dtype.type(1))
    ratio = divide(x, unit)
    if power == 2:
        length = _root(sum(square(ratio), axes, keepdims=True))
    else:
        total = sum(absolute(ratio) ** power, axes, keepdims=True)
        zero = total == 0
        length = where(zero, 0.0, where(zero, 1.0, total) ** (1.0 / power))
    length = multiply(length, unit)
    return length if keepdims else reshape(length, tuple(n for i, n in enumerate(x.shape) if i not in axes))


def prod(a: Any, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
    """Product over the axes, halved again and again, so gradients are right also where entries are 0; 1 for an empty axis."""
    a = as_operand(a, "prod")
    if dtype is None and a.dtype.kind in "iub":
        dtype = np.prod(np.ones(1, a.dtype)).dtype  # 64 bits, as in NumPy
    if dtype is not None:
        a = a.astype(dtype)
    axes = normalize_axes("prod", axis, a.ndim)
    kept = tuple(i for i in range(a.ndim) if i not in axes)
    shape = a.shape
    count = _count(shape, axes)
    entries = reshape(transpose(a, axes + kept), (count, *(shape[i] for i in kept)))
    if count == 0:
        entries = _sum(entries, axis=(0,), keepdims=True) + 1
    while (length := entries.shape[0]) > 1:
        half = length // 2
        product = multiply(getitem(entries, slice(None, half)), getitem(entries, slice(half, 2 * half)))
        if length % 2:
            product = concatenate([product, getitem(entries, slice(2 * half, None))])
        entries = product
    return reshape(entries, tuple(1 if i in axes else n for i, n in enumerate(shape)) if keepdims else entries.shape[1:])


@primitive(name="peak")
def _peak(x: Any, *, axis: Shape, sign: float) -> Any:
    """The largest entry over the axes (the smallest, for sign −1) in its first place, zeros in the others.

    Summed it gives max (or min). As a convention (PyTorch's ``amax``) the local Jacobian shares the gradient evenly among ties.
    """
    _, first = _extreme(x, axis, sign)
    return np.where(first, x, np.zeros((), x.dtype))


def _extreme(x: Any, axis: Shape, sign: float) -> tuple[Any, Any]:
    """Where the extreme entries are, and which of them comes first, as masks; NaN counts as extreme."""
    value = (np.max if sign > 0 else np.min)(x, axis=axis, keepdims=True)
    hit = (x == value) | (np.isnan(x) & np.isnan(value))
    kept = tuple(i for i in range(x.ndim) if i not in axis)
    rows = np.transpose(hit, kept + axis).reshape(math.prod(x.shape[i] for i in kept), -1)
    first = np.zeros_like(rows)
    first[np.arange(len(rows)), rows.argmax(axis=1)] = True
    back = tuple(int(i) for i in np.argsort(kept + axis))
    return hit, first.reshape([x.shape[i] for i in kept + axis]).transpose(back)


@_peak.defrule
def _(out: Any, x: Any, *, axis: Shape, sign: float) -> tuple[LinearMap, ...]:
    hit, _ = _extreme(getattr(x, "value", x), axis, sign)
    return (Scale((hit / hit.sum(axis=axis, keepdims=True)).astype(x.dtype), "⊙ [{0} is extreme]"),)


def _extremum(operation: str, a: Any, axis: Axis, keepdims: bool, sign: float) -> Any:
    a = as_operand(a, operation)
    axes = normalize_axes(operation, axis, a.ndim)
    if _count(a.shape, axes) == 0:
        raise ShapeError(f"{operation}: shape {a.shape} has no entries along axis {axis}; {operation} of nothing is undefined")
    peak = a if math.prod(a.shape) == 0 else _peak(a, axis=axes, sign=sign)
    out = _sum(peak, axis=axes, keepdims=keepdims)
    return out if a.dtype.kind == "f" else out.astype(a.dtype)  # a sum of small integers is a large one


def max(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Largest entry over the axes; NaN if there is one. Ties share the gradient evenly (PyTorch's ``amax``)."""
    return _extremum("max", a, axis, bool(keepdims), 1.0)


def min(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Smallest entry over the axes; NaN if there is one. Ties share the gradient evenly (PyTorch's ``amin``)."""
    return _extremum("min", a, axis, bool(keepdims), -1.0)


def logsumexp(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """ln Σ exp a over the axes, shifted by the largest entry so that nothing overflows; −inf for an empty axis."""
    a = as_operand(a, "logsumexp")
    axes = normalize_axes("logsumexp", axis, a.ndim)
    shift = largest_finite(a, axes)
    total = log(sum(exp(a - shift), axes, keepdims=True)) + shift
    return total if keepdims else reshape(total, tuple(n for i, n in enumerate(a.shape) if i not in axes))


def largest_finite(x: Any, axes: Shape) -> Any:
    """The largest entry over the axes as a plain array, 0 where it is not finite: what a log-sum-exp is shifted by."""
    entries = getattr(x, "value", x)
    if entries.dtype.kind in "iub":
        entries = entries.astype(np.float64)
    largest = np.max(entries, axis=axes, keepdims=True, initial=-np.inf)
    return np.where(np.isfinite(largest), largest, largest.dtype.type(0))


@primitive(name="cumsum")
def _cumsum(x: Any, *, axis: int) -> Any:
    """Running sum along an axis."""
    return np.cumsum(x, axis=axis)


@_cumsum.defrule
def _(out: Any, x: Any, *, axis: int) -> tuple[LinearMap, ...]:
    return (Route(partial(_cumsum, axis=axis), partial(_suffix_sum, axis=axis), "cumulative Σ"),)


def _suffix_sum(x: Any, *, axis: int) -> Any:
    """The adjoint of a running sum: a running sum from the end."""
    return flip(_cumsum(flip(x, axis), axis=axis), axis)


def cumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """Running sum along an axis (of the flattened operand for None)."""
    a = ravel(a) if axis is None else as_operand(a, "cumsum")
    if dtype is not None:
        a = a.astype(dtype)
    return _cumsum(a, axis=0 if axis is None else normalize_axis("cumsum", axis, a.ndim))


def log_softmax(x: Any, axis: int = -1) -> Any:
    """x − ln Σ exp(x) along an axis; the entries are shifted first, so small results keep their digits beside large entries."""
    x = as_operand(x, "log_softmax")
    axes = normalize_axes("log_softmax", axis, x.ndim)
    shifted = x - largest_finite(x, axes)
    return shifted - log(sum(exp(shifted), axes, keepdims=True))


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / Σ exp(x) along an axis, shifted by the largest entry so that nothing overflows."""
    return exp(log_softmax(x, axis))
