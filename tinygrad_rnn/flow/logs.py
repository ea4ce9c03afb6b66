"""Arithmetic on logarithms to base 10, for products that no float can hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def log10(values: Any) -> Any:
    """log₁₀ of non-negative numbers, elementwise; −inf for 0, without a warning."""
    with np.errstate(divide="ignore"):
        return np.log10(np.asarray(values, dtype=np.float64))


def log10_norm(logs: Any) -> float:
    """log₁₀ √Σ x² of the numbers whose log₁₀ is given."""
    flat = np.asarray(logs, dtype=np.float64).ravel()
    largest = float(np.max(flat, initial=-math.inf))
    if not math.isfinite(largest):
        return largest
    return largest + 0.5 * math.log10(float(np.sum(10.0 ** (2.0 * (flat - largest)))))


def slope(logs: Any) -> float:
    """The mean change per entry from the first finite logarithm to the last one: −inf if only −inf follows the first, 0 if nothing does."""
    known = np.flatnonzero(np.isfinite(logs))
    if known.size > 1:
        return float((logs[known[-1]] - logs[known[0]]) / (known[-1] - known[0]))
    return -math.inf if known.size and np.isneginf(logs[known[0] :]).any() else 0.0
