"""The gradient before the first step, by eigenvalue and length, for several networks side by side: row 5 of the curriculum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..render import sweep
from ..render.charts import Chart, series
from ..report import Table, aligned, power_of_ten
from .measurement import Claim, Measurement, experiment, holds


@dataclass(frozen=True, eq=False)
class ThroughTime(Measurement):
    """What is left of the gradient of the last state at the one before the first step; all logarithms are to base 10.

    Attributes:
        network: the names; N of them.
        radius: |λ|; W_hh, or each gate's block of it, is |λ| times an orthogonal matrix; (R,).
        length: T; (L,).
        log10_left: log₁₀ ‖δ_0‖/‖δ_T‖; (N, R, L).
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
        return aligned(("W_hh", "network", *(f"T = {t}" for t in self.length)), rows, "what is left of the gradient before the first step")

    def claims(self) -> tuple[Claim, ...]:
        """Each network by itself: |λ| < 0.9 vanishes, |λ| > 1.2 explodes, and a longer T makes either worse."""
        found = []
        small, large = np.flatnonzero(self.radius < 0.9), np.flatnonzero(self.radius > 1.2)
        for name, left in zip(self.network, self.log10_left, strict=True):
            source = "lecture" if name.startswith(("linear", "tanh")) else "lecture, of RNNs without gates"
            if small.size:
                most = float(left[small, -1].max())
                text = f"at most {power_of_ten(most)} left at T = {self.length[-1]}"
                found.append(
                    holds(f"{name}: |λ| < 0.9", "vanishes", text, most < -3, "less than 1/1000 left at the longest T", source=source)
                )
            if large.size:
                least = float(left[large, -1].min())
                text = f"at least {power_of_ten(least)} times at T = {self.length[-1]}"
                rule = "more than 1,000 times at the longest T"
                found.append(holds(f"{name}: |λ| > 1.2", "explodes", text, least > 3, rule, source=source))
            outside = left[np.concatenate([small, large])]
            farther = np.diff(np.abs(outside), axis=1) > 0
            if farther.size:
                text = f"farther from 1 in {farther.sum()} of {farther.size} comparisons"
                rule = "|log₁₀| grows with every longer T, at every |λ| below 0.9 or above 1.2"
                found.append(holds(f"{name}: a longer T", "is worse", text, farther.all(), rule, source=source))
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """By |λ| at the longest T, and by T at the smallest and the largest |λ|."""
        y, named = "log₁₀ ‖δ₀‖/‖δ_T‖", list(zip(self.network, self.log10_left, strict=True))
        by_radius = tuple(series(name, self.radius, left[:, -1]) for name, left in named)
        ends = dict.fromkeys((0, len(self.radius) - 1))
        by_length = [(self.radius[r], tuple(series(name, self.length, left[r]) for name, left in named)) for r in ends]
        return (
            Chart("lines", f"T = {self.length[-1]}", "|λ|", y, by_radius),
            *(Chart("lines", f"|λ| = {radius:g}", "T", y, lines) for radius, lines in by_length),
        )


@experiment
def through_time(
    radii: Sequence[float] = (0.5, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5),
    lengths: Sequence[int] = (10, 30, 100),
    *,
    networks: Sequence[str] = ("linear", "tanh RNN", "tanh RNN, inputs × 0.1", "LSTM, forget bias 1", "GRU"),
    initialisation: str = "orthogonal",
    hidden: int = sweep.HIDDEN,
    seed: int = 0,
) -> ThroughTime:
    """Claim (row 5): dragging |λ| below 0.9 makes gradients vanish, above 1.2 explode, and a longer T makes it worse.

    These are the numbers that the explorer shows (:func:`tinygrad_rnn.render.explorer`), from the same runs: networks whose W_hh (per
    gate) has the spectral radius |λ| read the same random inputs, and a loss reads the last state. True of the linear one. In the tanh
    RNN the states grow with |λ| until 1 − h² takes back what W_hh gives; in the LSTM and the GRU the gates decide, and |λ| acts only
    through them.

    Args:
        radii, lengths: |λ| and T, each T at least 1.
        networks: names of the explorer's networks.
        initialisation: "orthogonal", "Gaussian" or "identity".
        hidden, seed: H and the random source.

    Raises:
        ArgumentError: for a length below 1, no radii or lengths, or names that the explorer does not have.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.through_time((0.5, 1.5), (10, 40))
        >>> found.log10_left[0].round(3)          # linear: T · log₁₀ |λ|
        array([[ -3.01 , -12.041],
               [  1.761,   7.044]])
    """
    if not len(lengths) or min(lengths) < 1 or not len(radii):
        raise ArgumentError(f"through_time: expected radii and lengths of at least 1 step, got {tuple(radii)} and {tuple(lengths)}")
    known = {network.name: network for network in sweep.NETWORKS}
    if unknown := [name for name in networks if name not in known]:
        raise ArgumentError(f"through_time: there is no network {unknown[0]!r}; expected some of {', '.join(known)}")
    left = [
        [
            [
                curve.log10_ratio[-1]
                for _, curve in sweep.curves(known[name], initialisation, radius, tuple(lengths), hidden=hidden, seed=seed)
            ]
            for radius in radii
        ]
        for name in networks
    ]
    return ThroughTime(
        network=tuple(networks), radius=np.array(radii, dtype=float), length=np.array(lengths), log10_left=np.array(left, dtype=float)
    )
