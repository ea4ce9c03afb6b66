"""How many recurrent layers? Row 19 of the curriculum: stacks of 2 to 8 layers, with and without connections around them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import flow, nn, tasks
from ..errors import ArgumentError
from ..functional import cross_entropy
from ..render.charts import Chart, series
from ..report import Table, aligned, number, power_of_ten
from ..transforms import no_grad
from .measurement import Claim, Measurement, experiment, holds
from .statistics import success_rate
from .sweeps import sweep
from .training import train

WAYS: dict[str, str | None] = {"plain": None, "skip": "skip", "dense": "dense"}
"""What leads around the layers, by its name, as the layers' argument ``residual``."""

SOLVED, CHANCE = 0.05, 0.75
"""The share of wrong classes below which a run has succeeded, and that of an answer without looking."""


class Stack(nn.Module):
    """A recurrent stack and a linear map of its last output."""

    def __init__(self, cell: str, layers: int, way: str, hidden: int, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        super().__init__()
        self.layer: Any = getattr(nn, cell)(6, hidden, layers, residual=WAYS[way], dtype=dtype, rng=rng)
        self.readout = nn.Linear(hidden, 4, dtype=dtype, rng=rng)

    def forward(self, x: Any) -> Any:
        """(T, B, 6) → (B, 4)."""
        return self.readout(self.layer(x)[0][-1])


def state_norms(cell: str, layers: int, way: str, seed: int, *, steps: int, hidden: int) -> Any:
    """‖δ_t‖ of every layer of an untrained stack, in float64, as a part of the last layer's at the last step: (layers, T + 1)."""
    model = Stack(cell, layers, way, hidden, np.random.default_rng(seed), np.float64)
    x, target = tasks.temporal_order(steps, 32, 3_000_000)
    with flow.monitor(model.layer) as watching:
        cross_entropy(model(x), target).backward()
    rows = {row.layer.rpartition("/")[2]: row.norm[::-1] for row in watching.rows}
    norms = np.array([rows[f"l{k}"] for k in range(layers)] if layers > 1 else list(rows.values()))
    return norms / norms[-1, -1]


def stack_cell(
    layers: int, way: str, seed: int, *, cell: str, steps: int, hidden: int, batch: int, updates: int, lr: float
) -> dict[str, Any]:
    """One cell: the gradient by layer and time of an untrained stack, and the error that training reaches."""
    rng = np.random.default_rng(seed)
    model = Stack(cell, layers, way, hidden, rng)
    x, target = tasks.temporal_order(steps, 500, 1_000_000, dtype=np.float32)

    def loss() -> Any:
        inputs, classes = tasks.temporal_order(steps, batch, rng, dtype=np.float32)
        return cross_entropy(model(inputs), classes)

    def error() -> float:
        with no_grad():
            return float((model(x).value.argmax(-1) != target).mean())

    run = train(model, loss, error, rng=rng, updates=updates, lr=lr, every=max(1, updates // 20), goal=SOLVED / 2, shown=False)
    fresh, classes = tasks.temporal_order(steps, 1000, 2_000_000, dtype=np.float32)
    with no_grad():
        wrong = float((model(fresh).value.argmax(-1) != classes).mean())
    return {"error": wrong, "updates": run.updates, "norms": state_norms(cell, layers, way, seed, steps=steps, hidden=hidden)}


@dataclass(frozen=True, eq=False)
class Stacks(Measurement):
    """Stacks of recurrent layers: what reaches the lowest one, and whether they learn.

    Attributes:
        way: what leads around the layers; "plain" is nothing.
        layers: L; ``seeds`` how many runs each.
        to_first: (ways, L), log₁₀ of the gradient that reaches the first layer at the last step, as a part of the last layer's; mean over
            the seeds, untrained.
        to_start: the same at the first layer's first step.
        norms: by way, of the deepest stack: (layers, T + 1), log₁₀ ‖δ_t‖ by layer and time, as a part of the last layer's at T.
        success, low, high: (ways, L), the share of runs that learn the task, with Wilson's 95 % interval.
        error: the median share of wrong classes; ``updates`` the median number of updates.
    """

    way: tuple[str, ...]
    layers: Any
    seeds: int
    to_first: Any
    to_start: Any
    norms: Any
    success: Any
    low: Any
    high: Any
    error: Any
    updates: Any

    def table(self) -> Table:
        """One row per way and number of layers."""
        rows = []
        for i, way in enumerate(self.way):
            for j, layers in enumerate(self.layers):
                left = (power_of_ten(float(a[i, j])) for a in (self.to_first, self.to_start))
                rate = f"{self.success[i, j]:.0%} [{self.low[i, j]:.0%}, {self.high[i, j]:.0%}]"
                rows.append((way, layers, *left, rate, number(float(self.error[i, j])), f"{self.updates[i, j]:.0f}"))
        columns = ("way around", "layers", "to layer 1, step T", "to layer 1, step 1", "success", "median error", "updates")
        return aligned(
            columns, rows, f"stacks of recurrent layers, {self.seeds} seeds", f"error by chance {CHANCE}, success below {SOLVED}"
        )

    def claims(self) -> tuple[Claim, ...]:
        """Few layers are good, many need a way around."""
        found = []
        plain = self.way.index("plain")
        few = (self.layers >= 2) & (self.layers <= 4)
        anyone = self.success.max() >= 0.75
        if few.any():
            rate = float(self.success[plain, few].mean())
            true = None if not anyone else True if rate >= 0.75 else False if self.high[plain, few].max() < 0.75 else None
            rule = "agrees if ¾ of the runs succeed, differs if Wilson's intervals lie below; not told if no stack succeeds"
            found.append(holds("2 to 4 plain layers", "are good", f"success {rate:.0%}", true, rule))
        for j, layers in enumerate(self.layers):
            if layers < 8:
                continue
            for i, way in enumerate(self.way):
                if i == plain:
                    continue
                gain, rate = self.to_first[i, j] - self.to_first[plain, j], self.success[i, j]
                worse, best = self.success[plain, j], max(self.success[:, j])
                true = True if worse <= 0.25 and rate >= 0.75 else False if worse >= 0.75 and best >= 0.75 else None
                rule = "agrees if ≤ ¼ of the plain runs and ≥ ¾ of these succeed, differs if ≥ ¾ of the plain ones do"
                text = f"success {worse:.0%} plain, {rate:.0%} {way}"
                found.append(holds(f"{layers} layers, {way}", "need skip or dense connections", text, true, rule))
                text = f"log₁₀ of the ratio {gain:+.2f}"
                rule = "agrees if the first layer gets ten times more than in the plain stack, differs if less than twice"
                true = True if gain > 1 else False if gain < 0.3 else None
                found.append(holds(f"{layers} layers, {way}: gradient at the first layer", "more than plain", text, true, rule))
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """Gradient at the first layer, success, and the gradient by layer and time of the deepest stacks."""
        lines = tuple(series(way, self.layers, 10.0 ** self.to_first[i]) for i, way in enumerate(self.way))
        rates = tuple(series(way, self.layers, self.success[i], self.low[i], self.high[i]) for i, way in enumerate(self.way))
        maps = [
            Chart(
                "heat",
                f"log₁₀ ‖δ_t‖ by layer and time, {self.layers[-1]} layers, {way}",
                "step",
                "layer",
                tuple(series(f"{k + 1}", np.arange(len(row)), row) for k, row in enumerate(self.norms[i])),
            )
            for i, way in enumerate(self.way)
        ]
        return (
            Chart("lines", "gradient at the first layer, step T", "layers", "part of the last layer's", lines, "y"),
            Chart("lines", "runs that succeed", "layers", "success rate", rates),
            *maps,
        )


@experiment
def recurrent_stacks(
    layers: Sequence[int] = (2, 8),
    way: Sequence[str] = ("plain", "skip", "dense"),
    *,
    cell: str = "LSTM",
    steps: int = 20,
    hidden: int = 16,
    batch: int = 32,
    updates: int = 60,
    lr: float = 5e-3,
    seeds: int = 2,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Stacks:
    """Claim (row 19): 2 to 4 recurrent layers are good, 8 need skip or dense connections.

    Stacks learn the temporal order of two symbols; a run succeeds if less than 5 % of the classes are wrong on fresh sequences. Beside it
    stands what the gradient of an untrained stack is at each layer and step.

    Args:
        layers: L.
        way: of "plain", "skip" and "dense".
        cell: "LSTM", "GRU" or "RNN".
        steps, hidden, batch, updates, lr: T, H, B, the largest number of updates, and Adam's learning rate.
        seeds: how many runs of each.
        executor, workers, path: of the sweep; with a path, a run that was interrupted goes on.

    Raises:
        ArgumentError: for a way that does not exist, without "plain", or if a cell failed.

    Source:
        The lecture.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from tinygrad_rnn import experiments
        >>> with ThreadPoolExecutor(1) as here:  # in this process; by default in others
        ...     found = experiments.recurrent_stacks((8,), ("plain", "skip"), updates=1, seeds=1, executor=here)
        >>> found.to_first[:, 0].round()  # log₁₀ of the gradient at the first of 8 layers, untrained
        array([-6.,  0.])
    """
    if "plain" not in way or any(name not in WAYS for name in way):
        raise ArgumentError(f"recurrent_stacks: expected 'plain' and others of {', '.join(WAYS)}, got {list(way)}")
    fixed = {"cell": cell, "steps": steps, "hidden": hidden, "batch": batch, "updates": updates, "lr": lr}
    grid = [{"layers": int(n), "way": name, "seed": seed, **fixed} for seed in range(seeds) for name in way for n in layers]
    values = sweep(stack_cell, grid, executor, workers=workers, path=path, label="row 19").values()
    shape = (seeds, len(way), len(layers))

    def by_axes(pick: Any) -> Any:
        return np.array([pick(value) for value in values], dtype=float).reshape(shape)

    with np.errstate(divide="ignore"):
        logs = [np.log10(np.array(value["norms"], dtype=float)) for value in values]
    error = by_axes(lambda value: value["error"])
    counts = (error < SOLVED).sum(axis=0)
    rates = np.array([success_rate(int(count), seeds) for count in counts.ravel()]).reshape(*counts.shape, 3)
    first, start = (np.array([log[0, k] for log in logs]).reshape(shape).mean(axis=0) for k in (-1, 1))
    deepest = len(layers) - 1
    return Stacks(
        way=tuple(way),
        layers=np.array(layers, dtype=int),
        seeds=seeds,
        to_first=first,
        to_start=start,
        norms=tuple(np.mean([logs[np.ravel_multi_index((s, i, deepest), shape)] for s in range(seeds)], axis=0) for i in range(len(way))),
        success=rates[..., 0],
        low=rates[..., 1],
        high=rates[..., 2],
        error=np.median(error, axis=0),
        updates=np.median(by_axes(lambda value: value["updates"]), axis=0),
    )
