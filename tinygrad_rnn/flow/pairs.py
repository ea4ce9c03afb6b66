"""Norms for matrices over pairs of times, and how these are printed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..report import Table, aligned, number
from ..steps import norms_of
from .product import selected_lags

ENTRIES = 1 << 22  # how many numbers of a stack are made at a time where all at once might not fit


def row_norms(values: Any) -> Any:
    """The norm of every row of every bin: (n, R, …) → (n, R); (n,) → (n, 1)."""
    lead = values.shape[:2] if values.ndim > 1 else (len(values), 1)
    return root_of_squares(values.reshape(*lead, math.prod(values.shape[2:])))


def root_of_squares(values: Any) -> Any:
    """The norm over the last axis."""
    return norms_of(values.reshape(math.prod(values.shape[:-1]), values.shape[-1])).reshape(values.shape[:-1])


def by_distance(title: str, caption: str, late: Any, early: Any, matrices: list[tuple[str, Any]]) -> Table:
    """One row for each of a few distances: how many pairs (t′, t) there are, and the root mean square over them per matrix.

    The distance is t′ − t where nothing flows from later to earlier steps, and ∣t′ − t∣ where it does.
    """
    ahead = late[:, None] - early[None, :]
    unknown = late[:, None] < 0
    both_ways = any(np.any(matrix[(ahead < 0) & ~unknown]) for _, matrix in matrices)
    distances = np.where(unknown, -1, np.abs(ahead) if both_ways else ahead)
    rows = []
    for distance in selected_lags(int(distances.max(initial=0))):
        here = distances == distance
        if here.any():
            count = int(here.sum())
            rows.append((distance, count, *(number(float(root_of_squares(matrix[here])) / count**0.5) for _, matrix in matrices)))
    said = f"{caption}; root mean square over the pairs" if caption else "root mean square over the pairs"
    return aligned(("∣t′ − t∣" if both_ways else "t′ − t", "pairs", *(name for name, _ in matrices)), rows, title, said)
