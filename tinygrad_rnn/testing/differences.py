"""Derivatives by central differences that know how far they can be trusted.

Differences are taken at a ladder of steps and extrapolated to step 0 (Richardson, Ridders 1982). What the extrapolations disagree
by, plus the rounding of the function's own values, is the error of the estimate: a measured number that takes the place of an
absolute tolerance, so a gradient of 1e-12 is told from 0 and from 9e-12.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

_FIRST_STEP, _RATIO, _LEVELS = 0.25, 4.0, 10
_TINY = 1e-120
"""The imaginary step: its cube underflows, so a term of third order leaves nothing, not even where the derivative is 0."""
SMALLEST = 1e-180
"""Derivatives below it are lost in the imaginary step."""

_ROUNDING = 8.0 * float(np.finfo(np.float64).eps)


def differences(fn: Callable[..., Any], arrays: list[Any], operand: int, *, rtol: float) -> tuple[Any, Any]:
    """The Jacobian of ``fn`` with respect to one of its operands, and the error of each entry.

    Args:
        fn: takes float64 arrays and returns one.
        arrays: where to differentiate.
        operand: which of the arrays is varied.
        rtol: the relative precision that is enough; smaller steps are not tried.

    Returns:
        Two arrays of shape (output entries, operand entries). The error is infinite where the estimate decides nothing: it is not
        good to a percent, nor (for a derivative of 0) far below the function's own size.
    """
    point = arrays[operand]

    def moving(entry: int) -> Callable[[float], tuple[Any, float]]:
        def moved(step: float) -> tuple[Any, float]:
            shifted = point.copy()
            shifted.flat[entry] += step
            return fn(*arrays[:operand], shifted, *arrays[operand + 1 :]).ravel(), float(shifted.flat[entry])

        return moved

    centre = fn(*arrays).ravel()
    columns = [_column(moving(entry), centre, abs(float(point.flat[entry])), rtol) for entry in range(point.size)]
    if not columns:
        return np.zeros((centre.size, 0)), np.zeros((centre.size, 0))
    return np.stack([best for best, _ in columns], axis=1), np.stack([error for _, error in columns], axis=1)


def basis_of(shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    """The arrays of a shape that are 1 in one entry and 0 elsewhere, stacked."""
    size = math.prod(shape)
    return np.eye(size, dtype=dtype).reshape(size, *shape)


def complex_step(fn: Callable[..., Any], arrays: list[Any], operand: int) -> Any:
    """The Jacobian of ``fn`` with respect to one operand by Im fn(x + i·h·e) / h with a tiny h; None if ``fn`` takes no complex numbers.

    No difference is taken, so it is exact to rounding, provided that ``fn`` is holomorphic: compare it with differences before you
    believe it.

    Source:
        Squire & Trapp 1998.
    """
    columns = []
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")  # a complex number that is cast to a real one loses its derivative
            for basis in basis_of(arrays[operand].shape):
                varied = [np.array(array, complex if np.asarray(array).dtype.kind == "f" else None) for array in arrays]
                varied[operand] = varied[operand] + 1j * _TINY * basis
                out = np.asarray(fn(*varied))
                if out.dtype.kind != "c":
                    return None
                columns.append(out.ravel().imag / _TINY)
            return np.stack(columns, axis=1) if columns else np.zeros((np.size(fn(*arrays)), 0))
    except Exception:
        return None


def _column(moved: Callable[[float], tuple[Any, float]], centre: Any, size: float, rtol: float) -> tuple[Any, Any]:
    """One column of the Jacobian: extrapolate until every entry is precise enough, or the steps are used up."""
    step = _FIRST_STEP * max(size, 1.0)
    best: Any = None
    error: Any = None
    scale = 0.0
    coarser: list[Any] = []
    with np.errstate(all="ignore"):
        for _ in range(_LEVELS):
            (above, right), (below, left) = moved(step), moved(-step)
            row = [(above - below) / (right - left)]
            height, swing = _largest(above, below), _largest(above - centre, below - centre)
            # What rounding does to the values, and what it does to the point where they are taken.
            scale, rounding = max(scale, height), _ROUNDING * (height + swing * size / step) / step
            if best is None:
                best, error = row[0], np.full(row[0].shape, np.inf)
            for order, before in enumerate(coarser):
                gain = _RATIO ** (2 * order + 2)
                finer = (gain * row[order] - before) / (gain - 1.0)
                doubt = np.maximum(np.abs(finer - row[order]), np.abs(finer - before)) + rounding
                better = doubt < error
                best, error = np.where(better, finer, best), np.where(better, doubt, error)
                row.append(finer)
            if np.all(error <= np.maximum(0.01 * rtol * np.abs(best), 2.0 * rounding)):
                break
            coarser = row
            step /= _RATIO
        return best, np.where(error <= np.maximum(0.01 * np.abs(best), 1e-10 * scale), error, np.inf)


def _largest(*values: Any) -> float:
    return max(float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x))) for x in values)
