"""The gradient at the first step, by eigenvalue and length, for four networks side by side: row 5 of the curriculum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError
from ..flow.logs import log10
from ..nn.init import generator, orthogonal
from ..render.charts import Chart, series
from ..report import Table, aligned, power_of_ten
from ..trace import trace
from .measurement import Claim, Measurement, experiment, holds
from .vanishing import linear_recurrence

NETWORKS = ("linear", "RNN", "LSTM", "GRU")


@dataclass(frozen=True, eq=False)
class ThroughTime(Measurement):
    """What is left at the first step of the gradient of the last; all logarithms are to base 10.

    Attributes:
        network: the names; N of them.
        radius: |λ|; W_hh, or each gate's block of it, is |λ| times an orthogonal matrix; (R,).
        length: T; (L,).
        log10_left: log₁₀ ‖δ_1‖/‖δ_T‖; (N, R, L).
    """

    network: tuple[str, ...]
    radius: Any
    length: Any
    log10_left: Any

    def table(self) -> Table:
        """One row per |λ| and network."""
        rows = [
            (f"|λ| = {radius:g}", name, *map(power_of_ten, self.log10_left[n, r]))
            for r, radius in enumerate(self.radius)
            for n, name in enumerate(self.network)
        ]
        return aligned(("W_hh", "network", *(f"T = {t}" for t in self.length)), rows, "what is left of the gradient at the first step")

    def claims(self) -> tuple[Claim, ...]:
        """Each network by itself: |λ| < 0.9 vanishes, |λ| > 1.2 explodes, and a longer T makes either worse."""
        found = []
        small, large = np.flatnonzero(self.radius < 0.9), np.flatnonzero(self.radius > 1.2)
        for name, left in zip(self.network, self.log10_left, strict=True):
            if small.size:
                most = float(left[small, -1].max())
                text = f"at most {power_of_ten(most)} left at T = {self.length[-1]}"
                found.append(holds(f"{name}: |λ| < 0.9", "vanishes", text, most < -3, "less than 1/1000 left at the longest T"))
            if large.size:
                least = float(left[large, -1].min())
                text = f"at least {power_of_ten(least)} times at T = {self.length[-1]}"
                found.append(holds(f"{name}: |λ| > 1.2", "explodes", text, least > 3, "more than 1,000 times at the longest T"))
            outside = left[np.concatenate([small, large])]
            farther = np.diff(np.abs(outside), axis=1) > 0
            if farther.size:
                text = f"farther from 1 in {farther.sum()} of {farther.size} comparisons"
                rule = "|log₁₀| grows with every longer T, at every |λ| below 0.9 or above 1.2"
                found.append(holds(f"{name}: a longer T", "is worse", text, farther.all(), rule))
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """By |λ| at the longest T, and by T at the smallest and the largest |λ|."""
        by_radius = tuple(series(name, self.radius, left[:, -1]) for name, left in zip(self.network, self.log10_left, strict=True))
        by_length = tuple(
            series(f"{name}, |λ| = {self.radius[r]:g}", self.length, left[r])
            for r in (0, -1)
            for name, left in zip(self.network, self.log10_left, strict=True)
        )
        y = "log₁₀ ‖δ₁‖/‖δ_T‖"
        return Chart("lines", f"T = {self.length[-1]}", "|λ|", y, by_radius), Chart("lines", "By length", "T", y, by_length)


@experiment
def through_time(
    radii: Sequence[float] = (0.5, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5),
    lengths: Sequence[int] = (10, 30, 100),
    *,
    hidden: int = 16,
    input_scale: float = 0.1,
    seed: int = 0,
) -> ThroughTime:
    """Claim (row 5): dragging |λ| below 0.9 makes gradients vanish, above 1.2 explode, and a longer T makes it worse.

    A linear recurrence, a tanh RNN, an LSTM and a GRU, each with W_hh (per gate) = |λ| · orthogonal, read the same random inputs; a loss
    reads the last state. True of the linear one. In the tanh RNN the states grow with |λ| until 1 − h² takes back what W_hh gives; in
    the LSTM and the GRU the gates decide, and |λ| acts only through them.

    Args:
        radii, lengths: |λ| and T, each T at least 2.
        hidden, input_scale, seed: H, the standard deviation of the inputs, and the random source.

    Raises:
        ArgumentError: for a length below 2, or none.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.through_time((0.5, 1.5), (10, 40))
        >>> found.log10_left[0].round(3)          # linear: (T − 1) · log₁₀ |λ|
        array([[ -2.709, -11.74 ],
               [  1.585,   6.868]])
    """
    if not len(lengths) or min(lengths) < 2 or not len(radii):
        raise ArgumentError(f"through_time: expected radii and lengths of at least 2 steps, got {tuple(radii)} and {tuple(lengths)}")
    rng = generator(seed)
    turn, reads = orthogonal((hidden, hidden), rng), rng.standard_normal(hidden)
    inputs = input_scale * rng.standard_normal((max(lengths), 1, 4))
    left = np.empty((len(NETWORKS), len(radii), len(lengths)))
    for r, radius in enumerate(radii):
        left[0, r] = linear_recurrence(radius * turn, max(lengths) - 1, reads)[np.array(lengths) - 1]
        for n, name in enumerate(NETWORKS[1:], 1):
            layer = getattr(nn, name)(4, hidden, init=_blocks(radius), rng=seed)
            left[n, r] = [_first(layer, inputs[:length], reads) for length in lengths]
    return ThroughTime(network=NETWORKS, radius=np.array(radii, dtype=float), length=np.array(lengths), log10_left=left)


def _blocks(radius: float) -> Any:
    """An initialiser: |λ| times an orthogonal matrix for every gate."""
    return lambda shape, rng: radius * np.concatenate([orthogonal((shape[1], shape[1]), rng) for _ in range(shape[0] // shape[1])])


def _first(layer: Any, inputs: Any, reads: Any) -> float:
    """log₁₀ ‖δ_1‖/‖δ_T‖, where a loss reads the last output."""
    outputs, _ = layer(inputs)
    states = trace((outputs[-1] * reads).sum(), keep="norms").states()
    return float(log10(states[1].norm) - log10(states[len(inputs)].norm))
