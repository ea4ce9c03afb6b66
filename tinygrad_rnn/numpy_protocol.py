"""NumPy's functions on Tensors: which of our operations stands for which of NumPy's names.

``np.tanh(t)``, ``a + t`` and the other ufuncs arrive through ``__array_ufunc__``; ``np.sum(t, axis=1)``, ``np.concatenate([t, u])``
and the like through ``__array_function__``. What has no derivative (comparisons, argmax, shapes) is answered by NumPy on the plain
values; what has no meaning here is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import functional, ops
from .errors import ArgumentError, UnsupportedError
from .tensor import Tensor, as_tensor

UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: ops.add,
    np.subtract: ops.subtract,
    np.multiply: ops.multiply,
    np.divide: ops.divide,
    np.negative: ops.negative,
    np.positive: lambda x: x,
    np.power: ops.power,
    np.float_power: ops.power,
    np.square: ops.square,
    np.sqrt: ops.sqrt,
    np.reciprocal: functional.reciprocal,
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
    np.logaddexp: lambda x, y: ops.logsumexp(ops.stack([as_tensor(x) + as_tensor(y) * 0.0, as_tensor(y) + as_tensor(x) * 0.0]), 0),
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
}
"""Differentiable functions."""

ON_VALUES = (
    np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.any, np.all, np.allclose, np.isclose,
    np.array_equal, np.zeros_like, np.ones_like, np.full_like, np.empty_like, np.searchsorted, np.unique, np.array_repr, np.array_str,
    np.array2string, np.result_type, np.can_cast, np.copyto, np.may_share_memory, np.shares_memory,
)  # fmt: skip
"""Functions without a derivative: NumPy's own answer on the plain values."""


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Answer ``ufunc.method(*inputs, **options)``, where a Tensor is among the inputs."""
    if options.get("out") is not None:
        raise UnsupportedError(f"np.{ufunc.__name__}: out= would overwrite a value that the graph needs; use the returned Tensor")
    options.pop("out", None)
    if method == "reduce" and ufunc in REDUCTIONS:
        axis = options.pop("axis", 0 if len(inputs) < 2 else inputs[1])
        return REDUCTIONS[ufunc](inputs[0], axis, **options)
    if method != "__call__":
        raise UnsupportedError(f"np.{ufunc.__name__}.{method}: not differentiable here. Call np.{ufunc.__name__} itself, or use .value")
    if ufunc in PLAIN:
        return ufunc(*map(_value, inputs), **options)
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
    if options.pop("out", None) is not None:
        raise UnsupportedError(f"np.{name}: out= would overwrite a value that the graph needs; use the returned Tensor")
    try:
        return ours(*arguments, **options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ArgumentError(f"np.{name}: on a Tensor, {error}") from None


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Tensor) else x


def _values(tree: Any) -> Any:
    if isinstance(tree, (list, tuple)):
        return type(tree)(_values(part) for part in tree)
    if isinstance(tree, dict):
        return {key: _values(part) for key, part in tree.items()}
    return _value(tree)
