"""Exploding gradients, what clipping repairs, and what it does not: row 9 of the curriculum."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import flow, nn, tasks
from ..errors import AnomalyError, ArgumentError
from ..functional import mse
from ..nn.init import orthogonal
from ..optim import SGD, Adam
from ..render.charts import Chart, series
from ..report import Table, aligned, number, power_of_ten
from ..trace import trace
from ..transforms import detect_anomaly, no_grad
from .measurement import Claim, Measurement, experiment, holds
from .training import Training, train

RATE = 0.1
"""The learning rate of the run that explodes; plain gradient descent, whose step is as long as the gradient."""


class Adder(nn.Module):
    """A plain RNN and a linear map of its last output."""

    def __init__(self, hidden: int, rng: np.random.Generator, **options: Any) -> None:
        super().__init__()
        self.layer: Any = nn.RNN(2, hidden, dtype=np.float32, rng=rng, **options)
        self.readout = nn.Linear(hidden, 1, dtype=np.float32, rng=rng)

    def forward(self, x: Any) -> Any:
        """(T, B, 2) → (B,)."""
        return self.readout(self.layer(x)[0][-1])[:, 0]


@dataclass(frozen=True, eq=False)
class Exploding(Measurement):
    """Runs that explode and runs that vanish, each with clipping and without.

    Attributes:
        seeds: how many runs of each kind; all arrays have one entry per seed.
        diverged: after how many updates loss or gradient is not finite, without clipping; −1 if never.
        exploded: log₁₀ of the largest gradient norm without clipping; inf where it is not finite.
        error, engaged: with clipping, the error on unseen sequences, and the share of updates in which it engaged.
        update, norm, clipped_norm: for the picture: updates, and the largest ‖gradient‖ since the last, without and with clipping, of
            the first seed.
        report: what ``detect_anomaly`` says of the first run that diverged; empty if none did.
        vanishing_error: (seeds, 2), a run that vanishes, without and with clipping; ``vanishing_engaged`` how often it engaged.
        left: (seeds, 3), log₁₀ ‖δ₁‖/‖δ_T‖ of the run that vanishes: untrained, trained without, and with clipping.
        chance: the error of always answering 1.
        anomaly_step: the step that the report names in a network of known growth; ``expected_step`` the one that arithmetic gives.
        anomaly: that report.
    """

    seeds: int
    diverged: Any
    exploded: Any
    error: Any
    engaged: Any
    update: Any
    norm: Any
    clipped_norm: Any
    report: str
    vanishing_error: Any
    vanishing_engaged: Any
    left: Any
    chance: float
    anomaly_step: int
    expected_step: int
    anomaly: str

    def table(self) -> Table:
        """One row per quantity, one column per seed."""
        rows = [
            ("explodes, no clipping: not finite after update", *(str(when) if when >= 0 else "never" for when in self.diverged)),
            ("    largest ‖gradient‖", *map(power_of_ten, self.exploded)),
            ("the same, clipped to 1: error", *map(number, self.error)),
            ("    clipping engaged in", *(f"{share:.0%}" for share in self.engaged)),
            ("vanishes, no clipping: error", *map(number, self.vanishing_error[:, 0])),
            ("    ‖δ₁‖/‖δ_T‖ untrained", *map(power_of_ten, self.left[:, 0])),
            ("    ‖δ₁‖/‖δ_T‖ trained", *map(power_of_ten, self.left[:, 1])),
            ("the same, clipped to 1: error", *map(number, self.vanishing_error[:, 1])),
            ("    clipping engaged in", *(f"{share:.0%}" for share in self.vanishing_engaged)),
            ("    ‖δ₁‖/‖δ_T‖ trained", *map(power_of_ten, self.left[:, 2])),
        ]
        caption = f"always answering 1: {number(self.chance)}; overflow named at step {self.anomaly_step}, expected at {self.expected_step}"
        return aligned(("adding problem", *(f"seed {k}" for k in range(self.seeds))), rows, "exploding, and clipping", caption)

    def claims(self) -> tuple[Claim, ...]:
        """What explodes, what clipping repairs, and what it leaves."""
        explodes = self.diverged >= 0
        trains, chance = self.error < 0.75 * self.chance, self.chance
        vanishing = self.vanishing_error[:, 1]
        return (
            holds(
                "without clipping",
                "exploding gradients make Inf and NaN",
                f"{explodes.sum()} of {self.seeds} runs are not finite",
                bool(explodes.all()),
                "agrees if every run is",
            ),
            holds(
                "with clipping",
                "the same run trains",
                f"errors {', '.join(number(e) for e in self.error)}; chance {number(chance)}",
                True if trains.all() else None if np.isfinite(self.error).all() else False,
                "agrees if every error is below ¾ of chance, differs if one is not finite",
                source="Pascanu, Mikolov & Bengio 2013",
            ),
            holds(
                "a vanishing run",
                "clipping leaves it vanishing",
                f"errors {', '.join(number(e) for e in vanishing)}; ‖δ₁‖/‖δ_T‖ = {', '.join(power_of_ten(x) for x in self.left[:, 2])}",
                bool((vanishing > 0.9 * chance).all() and (self.left[:, 2] < -3).all()),
                "agrees if all errors stay above 0.9 of chance and less than a thousandth of the gradient arrives",
            ),
            holds(
                "the report of the anomaly",
                f"names the step at which float32 overflows: {self.expected_step}",
                f"step {self.anomaly_step}",
                abs(self.anomaly_step - self.expected_step) <= 4,
                "agrees within 4 steps, since an entry is smaller than the norm by up to √H",
                source="arithmetic: ρᵏ ‖δ_T‖ = 3.4e38",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """Gradient norms over training."""
        lines = (series("no clipping", self.update[: len(self.norm)], self.norm), series("clipped to 1", self.update, self.clipped_norm))
        return (Chart("lines", "largest gradient norm, before clipping", "updates", "‖gradient‖", lines, "y"),)


@experiment
def exploding(*, steps: int = 40, hidden: int = 32, batch: int = 32, updates: int = 300, seeds: int = 2, growth: float = 1.5) -> Exploding:
    """Claim (row 9): exploding gradients make Inf and NaN; clipping repairs that, and does not repair vanishing.

    The network that explodes is a ReLU RNN whose W_hh begins as the identity, in float32, trained by plain gradient descent on the adding
    problem. The one that vanishes is a tanh RNN with ρ(W_hh) = 0.5, trained by Adam, which lengthens short gradients of all weights alike
    but cannot bring back what got lost between steps. The anomaly report is tried where the answer is known: W_hh is ``growth`` times an
    orthogonal matrix, the states are 0, so the gradient grows by that factor at every step.

    Args:
        steps, hidden, batch, updates: T, H, B, and the number of updates of each run.
        seeds: how many runs of each kind.
        growth: above 1.

    Raises:
        ArgumentError: for a growth at or below 1.

    Source:
        Pascanu, Mikolov & Bengio 2013 (clipping); Le, Jaitly & Hinton 2015 (the identity RNN).
    """
    if growth <= 1:
        raise ArgumentError(f"exploding: growth must be above 1, got {growth}")
    free, clipped, report = [], [], ""
    for seed in range(seeds):
        run, said = _explodes(seed, math.inf, steps, hidden, batch, updates)
        free.append(run)
        report = report or said
        clipped.append(_explodes(seed, 1.0, steps, hidden, batch, updates)[0])
    shrinking = [_vanishes(seed, steps, hidden, batch, updates) for seed in range(seeds)]
    anomaly, expected = _overflow(growth, hidden)
    return Exploding(
        seeds=seeds,
        diverged=np.array([run.updates if run.stopped == "diverged" else -1 for run in free]),
        exploded=np.array([_log10(np.max(run.norm)) for run in free]),
        error=np.array([run.best for run in clipped]),
        engaged=np.array([run.clipped for run in clipped]),
        update=clipped[0].update,
        norm=np.where(np.isfinite(free[0].norm), free[0].norm, np.nan),
        clipped_norm=clipped[0].norm,
        report=report,
        vanishing_error=np.array([[run.best for run in runs] for runs, _ in shrinking]),
        vanishing_engaged=np.array([runs[1].clipped for runs, _ in shrinking]),
        left=np.array([left for _, left in shrinking]),
        chance=tasks.adding_baseline(),
        anomaly_step=_named_step(anomaly),
        expected_step=expected,
        anomaly=anomaly,
    )


def _log10(norm: float) -> float:
    return math.log10(norm) if math.isfinite(norm) and norm > 0 else math.inf


def _explodes(seed: int, clip: float, steps: int, hidden: int, batch: int, updates: int) -> tuple[Training, str]:
    """A run of the identity RNN, and what ``detect_anomaly`` says of the update at which it diverged."""
    rng = np.random.default_rng(seed)
    model = Adder(hidden, rng, init="identity", nonlinearity="relu")
    model.layer.bias_l0.value = np.zeros(hidden, np.float32)
    last: dict[str, Any] = {}

    def loss() -> Any:
        last["weights"], last["batch"] = model.state_dict(), tasks.adding(steps, batch, rng, dtype=np.float32)
        return mse(model(last["batch"][0]), last["batch"][1])

    with np.errstate(all="ignore"):
        run = _trained(model, loss, steps, rng, clip=clip, updates=updates, lr=RATE, method=SGD)
        if run.stopped != "diverged":
            return run, ""
        model.load_state_dict(last["weights"])
        try:
            with detect_anomaly():
                mse(model(last["batch"][0]), last["batch"][1]).backward()
        except AnomalyError as found:
            return run, str(found)
    return run, ""


def _vanishes(seed: int, steps: int, hidden: int, batch: int, updates: int) -> tuple[list[Training], list[float]]:
    """Runs of a small W_hh, without and with clipping, and log₁₀ of what arrives at the first step: untrained, and after each."""
    runs: list[Training] = []
    left: list[float] = []
    x, target = tasks.adding(steps, batch, 3_000_000, dtype=np.float64)
    for clip in (math.inf, 1.0):
        rng = np.random.default_rng(seed)
        model = Adder(hidden, rng, init=0.5)
        if not left:
            left.append(_arrives(model, x, target))

        def loss(model: Adder = model, rng: np.random.Generator = rng) -> Any:
            x, target = tasks.adding(steps, batch, rng, dtype=np.float32)
            return mse(model(x), target)

        runs.append(_trained(model, loss, steps, rng, clip=clip, updates=updates, lr=3e-3, method=Adam))
        left.append(_arrives(model, x, target))
    return runs, left


def _arrives(model: Adder, x: Any, target: Any) -> float:
    """log₁₀ ‖δ₁‖/‖δ_T‖, computed in float64 with the model's weights."""
    wide = nn.RNN(2, model.layer.hidden_size, rng=0)
    wide.load_state_dict({name: value.astype(np.float64) for name, value in model.layer.state_dict().items()})
    answer = nn.Linear(model.layer.hidden_size, 1, rng=0)
    answer.load_state_dict({name: value.astype(np.float64) for name, value in model.readout.state_dict().items()})
    loss = mse(answer(wide(x)[0][-1])[:, 0], target)
    product = flow.vanishing_product(trace(loss, keep="norms"))
    return float(product.log10_product[len(x) - 1])


def _trained(model: Adder, loss: Any, steps: int, rng: np.random.Generator, **options: Any) -> Training:
    """Train; the error is the mean squared one on 500 sequences that are never trained on."""
    x, target = tasks.adding(steps, 500, 1_000_000, dtype=np.float32)

    def error() -> float:
        with no_grad():
            return float(mse(model(x), target).item())

    return train(model, loss, error, rng=rng, every=max(1, options["updates"] // 20), shown=False, **options)


def _overflow(growth: float, hidden: int) -> tuple[str, int]:
    """The report of an overflow in the backward pass of a network that grows by a known factor, and the step at which it must come."""
    largest = float(np.finfo(np.float32).max)
    reach = math.log(largest / math.sqrt(hidden)) / math.log(growth)
    steps = math.ceil(1.3 * reach)
    layer = nn.RNN(1, hidden, init=lambda shape, rng: growth * orthogonal(shape, rng), bias=False, dtype=np.float32, rng=0)
    said = ""
    try:
        with detect_anomaly(), np.errstate(all="ignore"):
            layer(np.zeros((steps, 1, 1), np.float32))[0][-1].sum().backward()
    except AnomalyError as found:
        said = str(found)
    return said, steps - math.floor(reach)


def _named_step(report: str) -> int:
    """The step that a report names, or −1."""
    found = re.search(r"\bstep (\d+)", report)
    return int(found[1]) if found else -1
