"""What the tasks ask of their arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError


def whole(task: str, name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number in its range.

    Raises:
        ArgumentError: if it is not one; the message names task and argument.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ArgumentError(f"{task}: {name} must be a whole number {limits}, got {value!r}")
    return int(value)


def probability(task: str, name: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        ArgumentError: if it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not 0 <= value <= 1:
        raise ArgumentError(f"{task}: {name} must be a probability, got {value!r}")
    return float(value)


def floating(task: str, dtype: Any) -> np.dtype[Any]:
    """A floating-point type, float64 by default.

    Raises:
        ArgumentError: for any other type.
    """
    kind: np.dtype[Any] = np.dtype(np.float64 if dtype is None else dtype)
    if kind.kind != "f":
        raise ArgumentError(f"{task}: dtype must be a floating-point type, got {kind}")
    return kind


def one_hot(numbers: Any, count: int, dtype: Any) -> Any:
    """Each number as a vector with a 1 at its place: (…) → (…, count)."""
    vectors: Any = np.zeros((*np.shape(numbers), count), dtype)
    np.put_along_axis(vectors, np.asarray(numbers)[..., None], 1, axis=-1)
    return vectors
