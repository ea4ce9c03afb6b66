"""Intervals for what few runs can say: of a rate of success, and of a mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ArgumentError

LEVEL = 0.95
"""With which probability an interval covers the truth, where nothing else is said."""


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def success_rate(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """The rate of success p̂ = k/n with Wilson's interval, which is of use for few trials and for k = 0 or n too.

        (p̂ + z²/2n ± z √(p̂ (1 − p̂)/n + z²/4n²)) / (1 + z²/n),   z the normal distribution's quantile at ½ + level/2

    Raises:
        ArgumentError: unless 0 ≤ successes ≤ trials, trials ≥ 1, and 0 < level < 1.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> from tinygrad_rnn.experiments.statistics import success_rate
        >>> print(success_rate(5, 5), success_rate(0, 5))
        1 [0.566, 1] 0 [0, 0.434]
    """
    from statistics import NormalDist

    if not (0 <= successes <= trials and trials >= 1 and 0 < level < 1):
        raise ArgumentError(f"success_rate: expected 0 ≤ successes ≤ trials and 0 < level < 1, got {successes} of {trials} at {level}")
    z, p = NormalDist().inv_cdf(0.5 + level / 2), successes / trials
    middle, half = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2)
    low, high = ((middle + sign * half) / (1 + z * z / trials) for sign in (-1, 1))
    return Interval(p, 0.0 if successes == 0 else low, 1.0 if successes == trials else high)


def mean_of(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean with Student's interval, x̄ ± t s/√n, t the quantile at ½ + level/2 of the t distribution with n − 1 degrees of freedom.

    It supposes that the values are independent and about normal. One value alone has no interval: its ends are −inf and inf.

    Raises:
        ArgumentError: for no values.

    Source:
        Student 1908, "The probable error of a mean".

    Example:
        >>> from tinygrad_rnn.experiments.statistics import mean_of
        >>> print(mean_of([1.0, 2.0, 3.0]))
        2 [-0.484, 4.48]
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size:
        raise ArgumentError(f"mean_of: expected at least one value, got shape {array.shape}")
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile(0.5 + level / 2, array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return Interval(mean, mean - half, mean + half)


def t_quantile(probability: float, degrees: int) -> float:
    """The t below which Student's distribution has this probability, by bisection of :func:`t_probability`.

    Raises:
        ArgumentError: unless ½ ≤ probability < 1 and degrees ≥ 1.
    """
    if not (0.5 <= probability < 1 and degrees >= 1):
        raise ArgumentError(f"t_quantile: expected ½ ≤ probability < 1 and degrees ≥ 1, got {probability} and {degrees}")
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < probability:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, degrees) < probability else (low, middle)
    return high


def t_probability(t: float, degrees: int) -> float:
    """P(T ≤ t) for Student's T: a finite sum in θ = arctan(t/√ν).

        2 P(T ≤ t) − 1 = 2/π (θ + sin θ (cos θ + 2/3 cos³θ + 2·4/(3·5) cos⁵θ + … cos^{ν−2}θ))     ν odd (2θ/π for ν = 1)
                   = sin θ (1 + 1/2 cos²θ + 1·3/(2·4) cos⁴θ + … cos^{ν−2}θ)                   ν even

    Source:
        Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """
    theta, odd = math.atan2(t, math.sqrt(degrees)), degrees % 2
    term, total = math.cos(theta) ** odd, 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= math.cos(theta) ** 2 * (power + 1) / (power + 2)
    inside = math.sin(theta) * total
    return 0.5 + 0.5 * (2 / math.pi * (theta + inside) if odd else inside)
