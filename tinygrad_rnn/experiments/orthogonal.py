"""An orthogonal start, and what training makes of it: row 10 of the curriculum."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import flow, tasks
from ..errors import ArgumentError
from ..functional import mse
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..transforms import no_grad
from .exploding import Adder
from .measurement import Claim, Measurement, experiment, holds
from .statistics import mean_of
from .sweeps import sweep
from .training import train


def orthogonal_cell(init: str, seed: int, *, steps: int, hidden: int, batch: int, updates: int, lr: float, every: int) -> dict[str, Any]:
    """One cell: train, and at every measurement take ‖WᵀW − I‖, the singular values of W_hh, and the gradient's mean gain per step."""
    rng = np.random.default_rng(seed)
    model = Adder(hidden, rng, init=init)
    x, target = tasks.adding(steps, 500, 1_000_000, dtype=np.float32)
    found: dict[str, list[float]] = {"distance": [], "smallest": [], "largest": [], "gain": [], "error": []}

    def look() -> float:
        weight = model.layer.weight_hh_l0.value.astype(float)
        values = np.linalg.svd(weight, compute_uv=False)
        with flow.monitor(model.layer) as watching:
            mse(model(x[:, :100]), target[:100]).backward()
        model.zero_grad()
        with no_grad():
            error = float(mse(model(x), target).item())
        found["distance"].append(float(np.linalg.norm(weight.T @ weight - np.eye(hidden))))
        found["smallest"].append(float(values[-1]))
        found["largest"].append(float(values[0]))
        found["gain"].append(10.0 ** watching.rows[-1].rate)
        found["error"].append(error)
        return error

    def loss() -> Any:
        inputs, sums = tasks.adding(steps, batch, rng, dtype=np.float32)
        return mse(model(inputs), sums)

    look()
    train(model, loss, look, rng=rng, updates=updates, lr=lr, every=every, shown=False)
    return found


@dataclass(frozen=True, eq=False)
class OrthogonalStart(Measurement):
    """W_hh over training, from an orthogonal start and from others.

    Attributes:
        init: how W_hh began; one entry per initialisation in all arrays.
        update: (M,), the updates at which was measured, from 0.
        distance: (inits, seeds, M), ‖W_hhᵀ W_hh − I‖ (Frobenius); 0 if and only if it is orthogonal.
        smallest, largest: σ_min and σ_max of W_hh, of the same shape.
        gain: what one step multiplies ‖δ_t‖ by on the way back, in the geometric mean.
        error: the mean squared error on sequences that are never trained on; ``chance`` that of always answering 1.
    """

    init: tuple[str, ...]
    update: Any
    distance: Any
    smallest: Any
    largest: Any
    gain: Any
    error: Any
    chance: float

    def table(self) -> Table:
        """At the beginning, halfway and at the end: distance, singular values, gain, error; means over the seeds."""
        rows = []
        for k, name in enumerate(self.init):
            for m in sorted({0, len(self.update) // 2, len(self.update) - 1}):
                means = (array[k, :, m].mean() for array in (self.distance, self.smallest, self.largest, self.gain, self.error))
                rows.append((name, self.update[m], *map(number, means)))
        columns = ("W_hh begins", "updates", "‖WᵀW − I‖", "σ_min", "σ_max", "gain per step", "error")
        return aligned(columns, rows, f"an orthogonal start, {self.distance.shape[1]} seeds", f"error by chance: {number(self.chance)}")

    def claims(self) -> tuple[Claim, ...]:
        """What it brings, and that it is lost."""
        here = self.init.index("orthogonal")
        start, end = mean_of(self.gain[here, :, 0]), mean_of(self.distance[here, :, -1])
        found = [
            holds(
                "orthogonal: ‖WᵀW − I‖ after training",
                "training loses it",
                str(end),
                True if end.low > 0.1 * math.sqrt(self._size) else False if end.high < 0.01 * math.sqrt(self._size) else None,
                "agrees if the 95 % interval lies above a tenth of ‖I‖, differs if below a hundredth",
            )
        ]
        for k, name in enumerate(self.init):
            if self.distance[k, :, 0].max() < 1e-3:  # orthogonal too, as the identity is
                continue
            apart = mean_of(np.log10(self.gain[here, :, 0]) - np.log10(self.gain[k, :, 0]))
            found.append(
                holds(
                    f"gain per step before training, orthogonal against {name}",
                    "it helps at the start",
                    f"{start.estimate:.3f} against {self.gain[k, :, 0].mean():.3f}",
                    True if apart.low > 0 else False if apart.high < 0 else None,
                    "agrees if the 95 % interval of the difference of logarithms lies above 0, differs if below",
                    source="Saxe, McClelland & Ganguli 2014",
                )
            )
            better = mean_of(self.error[k, :, -1] - self.error[here, :, -1])
            learned = min(self.error[here, :, -1].min(), self.error[k, :, -1].min()) < 0.75 * self.chance
            found.append(
                holds(
                    f"error after training, {name} minus orthogonal",
                    "positive: it learns faster",
                    str(better),
                    None if not learned else True if better.low > 0 else False if better.high < 0 else None,
                    "agrees if the 95 % interval lies above 0, differs if below; not told if no run has learned",
                    source="Saxe, McClelland & Ganguli 2014, of deep linear networks",
                )
            )
        return tuple(found)

    @property
    def _size(self) -> int:
        return int(self.settings.get("hidden", 1))

    def charts(self) -> tuple[Chart, ...]:
        """Distance from orthogonality, gain, and error over training; means over the seeds."""
        quantities = (
            ("distance from orthogonality", "‖WᵀW − I‖", self.distance, ""),
            ("gain of the gradient per step", "‖δ_{t−1}‖/‖δ_t‖", self.gain, ""),
            ("error", "mean squared error", self.error, "y"),
        )
        return tuple(
            Chart("lines", title, "updates", y, tuple(series(n, self.update, array[k].mean(axis=0)) for k, n in enumerate(self.init)), log)
            for title, y, array, log in quantities
        )


@experiment
def orthogonal_start(
    init: Sequence[str] = ("orthogonal", "uniform"),
    *,
    steps: int = 30,
    hidden: int = 16,
    batch: int = 32,
    updates: int = 200,
    lr: float = 5e-3,
    measurements: int = 10,
    seeds: int = 2,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> OrthogonalStart:
    """Claim (row 10): orthogonal initialisation helps at the start, and training loses it.

    A tanh RNN learns the adding problem from an orthogonal W_hh, all of whose singular values are 1, and from others. An orthogonal matrix
    takes nothing from a gradient; tanh still does.

    Args:
        init: of ``nn.init.INITIALIZERS``; "orthogonal" must be among them.
        steps, hidden, batch, updates, lr: T, H, B, the number of updates, and Adam's learning rate.
        measurements: how often it is measured after the beginning.
        seeds: how many runs of each.
        executor, workers, path: of the sweep; with a path, a run that was interrupted goes on.

    Raises:
        ArgumentError: without "orthogonal", or if a cell failed.

    Source:
        The lecture; Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear networks".

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from tinygrad_rnn import experiments
        >>> with ThreadPoolExecutor(1) as here:  # in this process; by default in others
        ...     found = experiments.orthogonal_start(updates=20, measurements=2, seeds=1, executor=here)
        >>> found.distance[0, 0] > 0.1  # ‖WᵀW − I‖ from an orthogonal start, over training
        array([False,  True,  True])
    """
    if "orthogonal" not in init:
        raise ArgumentError(f"orthogonal_start: expected 'orthogonal' among the initialisations, got {list(init)}")
    every = max(1, updates // measurements)
    fixed = {"steps": steps, "hidden": hidden, "batch": batch, "updates": every * measurements, "lr": lr, "every": every}
    grid = [{"init": name, "seed": seed, **fixed} for seed in range(seeds) for name in init]
    values = sweep(orthogonal_cell, grid, executor, workers=workers, path=path, label="row 10").values()
    by_init = [values[k :: len(init)] for k in range(len(init))]

    def by_axes(name: str) -> Any:
        return np.array([[value[name] for value in row] for row in by_init], dtype=float)

    return OrthogonalStart(
        init=tuple(init),
        update=np.arange(measurements + 1) * every,
        distance=by_axes("distance"),
        smallest=by_axes("smallest"),
        largest=by_axes("largest"),
        gain=by_axes("gain"),
        error=by_axes("error"),
        chance=tasks.adding_baseline(),
    )
