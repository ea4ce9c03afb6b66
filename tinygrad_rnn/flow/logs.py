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


def mean_log10(factors: Any) -> float:
    """The mean log₁₀ of those factors that are finite and not 0; −inf if there is none."""
    logs = log10(factors)
    known = np.isfinite(logs)
    return float(np.mean(logs[known])) if known.any() else -math.inf


def trusted_range(dtype: Any) -> tuple[float, float]:
    """Between which norms a cotangent of this type has all its digits: not near the subnormal numbers, nor near overflow."""
    kind = np.finfo(dtype)
    return float(kind.tiny / kind.eps) * 1e3, float(kind.max) * 1e-3


def trend(norms: Any, dtype: Any) -> tuple[float, int | None]:
    """The mean change of log₁₀ per entry of norms as a float holds them, and the entry from which on they are not finite.

    Only trusted norms count, and zeros after them, if there are two at least. A norm that has grown out of range is no trouble of its own:
    the entry is None then. Where it is not None, the rate is NaN.
    """
    norms = np.asarray(norms, dtype=np.float64)
    smallest, largest = trusted_range(dtype)
    lost = np.flatnonzero(~np.isfinite(norms))
    norms = norms[: lost[0]] if lost.size else norms
    logs = log10(norms)
    trusted = (norms > smallest) & (norms < largest)
    rate = slope(np.where(trusted | (norms == 0), logs, np.nan) if np.count_nonzero(trusted) > 1 else logs)
    if lost.size and not (rate > 0 and logs[-1] + 2.0 * rate > math.log10(largest)):
        return math.nan, int(lost[0])
    return rate, None
