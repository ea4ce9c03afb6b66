"""Exploding gradients, what clipping repairs, and what it does not: row 9 of the curriculum."""

from __future__ import annotations

import math
import os
import re
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
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
from .sweeps import sweep
from .training import train

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
        vanishing_steps: the lengths T at which a run that vanishes was tried; N of them.
        vanishing_error: (N, seeds, 2), its error, without and with clipping; ``vanishing_engaged`` (N, seeds) how often it engaged.
        left: (N, seeds, 3), its log₁₀ ‖δ₁‖/‖δ_T‖: untrained, trained without, and with clipping.
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
    vanishing_steps: tuple[int, ...]
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
        ]
        for k, steps in enumerate(self.vanishing_steps):
            error, left = self.vanishing_error[k], self.left[k]
            rows += [
                (f"vanishes, T = {steps}, no clipping: error", *map(number, error[:, 0])),
                ("    ‖δ₁‖/‖δ_T‖ untrained", *map(power_of_ten, left[:, 0])),
                ("    ‖δ₁‖/‖δ_T‖ trained", *map(power_of_ten, left[:, 1])),
                ("the same, clipped to 1: error", *map(number, error[:, 1])),
                ("    clipping engaged in", *(f"{share:.0%}" for share in self.vanishing_engaged[k])),
                ("    ‖δ₁‖/‖δ_T‖ trained", *map(power_of_ten, left[:, 2])),
            ]
        caption = f"always answering 1: {number(self.chance)}; overflow named at step {self.anomaly_step}, expected at {self.expected_step}"
        return aligned(("adding problem", *(f"seed {k}" for k in range(self.seeds))), rows, "exploding, and clipping", caption)

    def claims(self) -> tuple[Claim, ...]:
        """What explodes, what clipping repairs, and what it leaves."""
        explodes = self.diverged >= 0
        trains, chance = self.error < 0.75 * self.chance, self.chance
        lost = []
        for steps, error, left in zip(self.vanishing_steps, self.vanishing_error[:, :, 1], self.left[:, :, 2], strict=True):
            stays, learns = (error > 0.9 * chance).all() and (left < -3).all(), (error < 0.75 * chance).any()
            lost.append(
                holds(
                    f"a vanishing run, T = {steps}",
                    "clipping leaves it vanishing",
                    f"errors {', '.join(number(e) for e in error)}; ‖δ₁‖/‖δ_T‖ = {', '.join(power_of_ten(x) for x in left)}",
                    True if stays else False if learns else None,
                    "agrees if all errors stay above 0.9 of chance and less than a thousandth of the gradient arrives; differs if one is "
                    "below ¾",
                )
            )
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
            *lost,
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
        free = "no clipping"
        if not np.isfinite(self.norm).any():  # there is nothing to draw
            free += f": not finite after update {self.diverged[0]}"
        lines = (series(free, self.update[: len(self.norm)], self.norm), series("clipped to 1", self.update, self.clipped_norm))
        return (Chart("lines", "largest gradient norm, before clipping", "updates", "‖gradient‖", lines, "y"),)


@experiment
def exploding(
    *,
    steps: int = 40,
    hidden: int = 32,
    batch: int = 32,
    updates: int = 200,
    seeds: int = 2,
    growth: float = 1.5,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Exploding:
    """Claim (row 9): exploding gradients make Inf and NaN; clipping repairs that, and does not repair vanishing.

    The network that explodes is a ReLU RNN whose W_hh begins as the identity, in float32, trained by plain gradient descent on the adding
    problem. The one that vanishes is a tanh RNN with ρ(W_hh) = 0.5, at T and at 2T steps, trained by Adam, which lengthens short gradients
    of all weights alike but cannot bring back what got lost between steps. The anomaly report is tried where the answer is known: W_hh is
    ``growth`` times an orthogonal matrix, the states are 0, so the gradient grows by that factor at every step.

    Args:
        steps, hidden, batch, updates: T, H, B, and the number of updates of each run.
        seeds: how many runs of each kind.
        growth: above 1.
        executor, workers, path: of the sweep; with a path, a run that was interrupted goes on.

    Raises:
        ArgumentError: for a growth at or below 1, or if a cell failed.

    Source:
        Pascanu, Mikolov & Bengio 2013 (clipping); Le, Jaitly & Hinton 2015 (the identity RNN).

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from tinygrad_rnn import experiments
        >>> with ThreadPoolExecutor(1) as here:  # in this process; by default in others
        ...     found = experiments.exploding(updates=20, seeds=1, executor=here)
        >>> found.diverged, bool(found.error[0] < 10)
        (array([1]), True)
    """
    if growth <= 1:
        raise ArgumentError(f"exploding: growth must be above 1, got {growth}")
    fixed = {"hidden": hidden, "batch": batch, "updates": updates}
    kinds = ((True, steps), (False, steps), (False, 2 * steps))
    grid = [
        {"grows": grows, "clips": clips, "seed": seed, "steps": length, **fixed}
        for seed in range(seeds)
        for grows, length in kinds
        for clips in (False, True)
    ]
    values = sweep(clipping_cell, grid, executor, workers=workers, path=path, label="row 9").values()
    free, clipped = values[0::6], values[1::6]
    pairs = [list(zip(values[k::6], values[k + 1 :: 6], strict=True)) for k in (2, 4)]  # without clipping, with clipping
    anomaly, expected = _overflow(growth, hidden)
    return Exploding(
        seeds=seeds,
        diverged=np.array([run["updates"] if run["stopped"] == "diverged" else -1 for run in free]),
        exploded=np.array([math.inf if None in run["norm"] else math.log10(max(run["norm"])) for run in free]),
        error=np.array([run["best"] for run in clipped]),
        engaged=np.array([run["clipped"] for run in clipped]),
        update=np.array(clipped[0]["update"]),
        norm=np.array(free[0]["norm"], dtype=float),
        clipped_norm=np.array(clipped[0]["norm"], dtype=float),
        report=next((run["report"] for run in free if run["report"]), ""),
        vanishing_steps=(steps, 2 * steps),
        vanishing_error=np.array([[[one["best"], other["best"]] for one, other in runs] for runs in pairs]),
        vanishing_engaged=np.array([[other["clipped"] for _, other in runs] for runs in pairs]),
        left=np.array([[[*one["left"], other["left"][1]] for one, other in runs] for runs in pairs]),
        chance=tasks.adding_baseline(),
        anomaly_step=_named_step(anomaly),
        expected_step=expected,
        anomaly=anomaly,
    )


def clipping_cell(grows: bool, clips: bool, seed: int, *, steps: int, hidden: int, batch: int, updates: int) -> dict[str, Any]:
    """One cell: a run that explodes or one that vanishes; norms that are not finite are None."""
    rng = np.random.default_rng(seed)
    if grows:
        model = Adder(hidden, rng, init="identity", nonlinearity="relu")
        model.layer.bias_l0.value = np.zeros(hidden, np.float32)
    else:
        model = Adder(hidden, rng, init=0.5)
    last: dict[str, Any] = {}

    def loss() -> Any:
        last["weights"], last["batch"] = model.state_dict(), tasks.adding(steps, batch, rng, dtype=np.float32)
        return mse(model(last["batch"][0]), last["batch"][1])

    x, target = tasks.adding(steps, 500, 1_000_000, dtype=np.float32)

    def error() -> float:
        with no_grad():
            return float(mse(model(x), target).item())

    left = [] if grows else [_arrives(model, steps)]
    way: dict[str, Any] = {"method": SGD, "lr": RATE} if grows else {"method": Adam, "lr": 3e-3}
    way |= {"clip": 1.0 if clips else math.inf, "updates": updates, "every": max(1, updates // 20)}
    with np.errstate(all="ignore"):
        run = train(model, loss, error, rng=rng, shown=False, **way)
        report = _reported(model, **last) if run.stopped == "diverged" else ""
    if not grows:
        left.append(_arrives(model, steps))
    norm = [float(size) if math.isfinite(size) else None for size in run.norm]
    found = {"stopped": run.stopped, "updates": run.updates, "best": run.best, "clipped": run.clipped, "update": run.update}
    return {**found, "norm": norm, "report": report, "left": left}


def _reported(model: Adder, weights: dict[str, Any], batch: tuple[Any, Any]) -> str:
    """What ``detect_anomaly`` says of a batch with these weights."""
    model.load_state_dict(weights)
    try:
        with detect_anomaly():
            mse(model(batch[0]), batch[1]).backward()
    except AnomalyError as found:
        return _said(found)
    return ""


def _arrives(model: Adder, steps: int) -> float:
    """log₁₀ ‖δ₁‖/‖δ_T‖ on 32 sequences, computed in float64 with the model's weights."""
    x, target = tasks.adding(steps, 32, 3_000_000)
    wide, readout = nn.RNN(2, model.layer.hidden_size, rng=0), nn.Linear(model.layer.hidden_size, 1, rng=0)
    for copy, module in ((wide, model.layer), (readout, model.readout)):
        copy.load_state_dict({name: value.astype(np.float64) for name, value in module.state_dict().items()})
    product = flow.vanishing_product(trace(mse(readout(wide(x)[0][-1])[:, 0], target), keep="norms"))
    return float(product.log10_product[len(x) - 1])


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
        said = _said(found)
    return said, steps - math.floor(reach)


def _said(error: AnomalyError) -> str:
    """The report, its source lines as seen from the folder that holds this package: a record is read on other machines too."""
    return str(error).replace(str(Path(__file__).parents[2]) + os.sep, "")


def _named_step(report: str) -> int:
    """The step that a report names, or −1."""
    found = re.search(r"\bstep (\d+)", report)
    return int(found[1]) if found else -1
