"""Deep feed-forward networks lose their gradient too, and ways around the layers keep it: row 17 of the curriculum."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError
from ..flow.logs import log10
from ..functional import cross_entropy
from ..nn.init import generator
from ..ops import tanh
from ..render.charts import Chart, series
from ..report import Table, aligned, power_of_ten
from ..steps import norm_of
from ..tensor import tensor
from ..transforms import grad, no_grad
from .measurement import Claim, Measurement, experiment, holds
from .statistics import success_rate
from .sweeps import sweep
from .training import train

STACKS = ("plain", "residual", "dense", "highway")


@dataclass(frozen=True, eq=False)
class DeepStacks(Measurement):
    """What is left of a gradient after L layers of each kind, and which of the stacks learn.

    Attributes:
        stack: the names; K of them.
        depth: L; (N,).
        log10_left: log₁₀ ‖∂J/∂input‖ / ‖∂J/∂output‖ of the untrained stack, mean over the seeds; (K, N).
        trained_depth: (M,); ``seeds`` how many runs each.
        success, low, high: the share of runs that learned the task, with its 95 % interval; (K, M).
        error: the mean error on points that were never seen; (K, M).
    """

    stack: tuple[str, ...]
    depth: Any
    log10_left: Any
    trained_depth: Any
    seeds: int
    success: Any
    low: Any
    high: Any
    error: Any

    def table(self) -> Table:
        """One row per kind: what is left by depth, and how many runs learned."""
        rows = [
            (
                name,
                *(power_of_ten(float(value)) for value in left),
                *(f"{share:.0%} ({error:.2f})" for share, error in zip(shares, errors, strict=True)),
            )
            for name, left, shares, errors in zip(self.stack, self.log10_left, self.success, self.error, strict=True)
        ]
        columns = ("layers", *(f"L = {depth}" for depth in self.depth), *(f"learns, L = {depth}" for depth in self.trained_depth))
        caption = f"share of {self.seeds} runs that learned, and the mean of their errors (chance: 0.5)"
        return aligned(columns, rows, "what is left of a gradient after L layers", caption)

    def claims(self) -> tuple[Claim, ...]:
        """The plain stack vanishes and the others do not; and where the plain one no longer learns, the others do."""
        left = dict(zip(self.stack, self.log10_left, strict=True))
        share = dict(zip(self.stack, self.success, strict=True))
        deepest = self.depth[-1]
        found = [
            holds(
                f"plain, {deepest} layers",
                "vanishes",
                f"{power_of_ten(float(left['plain'][-1]))} left",
                left["plain"][-1] < -3,
                "less than 1/1000 left",
            )
        ]
        for name in self.stack[1:]:
            kept = float(left[name][-1])
            text = f"{power_of_ten(kept)} left"
            if name == "highway":
                text += f"; the gates' bias alone leaves {power_of_ten(float(deepest * np.log10(carried())))}"
            found.append(holds(f"{name}, {deepest} layers", "repairs that", text, kept > -1, "at least a tenth left"))
        hard = np.flatnonzero(share["plain"] <= 0.25)
        if not hard.size:
            hard = np.array([len(self.trained_depth) - 1])
        where = ", ".join(map(str, self.trained_depth[hard]))
        for name in self.stack[1:]:
            ours, plain = float(share[name][hard].mean()), float(share["plain"][hard].mean())
            text = f"{ours:.0%} of runs learn, plain {plain:.0%}"
            better = None if ours == plain == 0 else ours > plain
            rule = "more runs learn, where at most ¼ of the plain ones do"
            found.append(holds(f"{name} against plain, trained, {where} layers", "much easier to train", text, better, rule))
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """The gradient by depth, and the share of runs that learned."""
        left = tuple(series(name, self.depth, row) for name, row in zip(self.stack, self.log10_left, strict=True))
        names = [f"L = {depth}" for depth in self.trained_depth]
        learned = tuple(
            series(name, names, share, low, high)
            for name, share, low, high in zip(self.stack, self.success, self.low, self.high, strict=True)
        )
        return (
            Chart("lines", "Untrained", "layers", "log₁₀ ‖∂J/∂input‖/‖∂J/∂output‖", left),
            Chart("bars", f"Trained, {self.seeds} seeds", "", "share of runs that learned", learned),
        )


@experiment
def deep_stacks(
    depths: Sequence[int] = (2, 5, 10, 20, 50, 100),
    trained: Sequence[int] = (2, 30),
    *,
    width: int = 16,
    seeds: int = 2,
    updates: int = 150,
    first_seed: int = 0,
    executor: Executor | None = None,
    path: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    shown: bool | None = None,
) -> DeepStacks:
    """Claim (row 17): vanishing is not only an RNN's problem; ResNet, DenseNet and Highway connections make deep networks trainable.

    Four stacks of L layers tanh(W x + b): one after the other; each with its input added (``nn.Residual``); each reading all before it
    (``nn.DenseBlock``); each with a gate (``nn.Highway``). First, untrained, how much of a gradient at the output arrives at the input.
    Then each learns to tell two interleaved half circles apart; a run has learned if at most 5 % of new points are taken wrongly.

    Args:
        depths, trained: the L of the gradients and of the training runs.
        width, updates: of every layer; at most so many updates (Adam, learning rate 0.01, batches of 64); a run
            ends before if its error on held-out points has not fallen for 400.
        seeds, first_seed: how many runs of each, and the seed of the first.
        executor, path, workers, shown: of the :func:`~tinygrad_rnn.experiments.sweeps.sweep` of training runs; with a path, finished
            ones are kept.

    Raises:
        ArgumentError: for depths below 1 or no seeds.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> import tinygrad_rnn as tg
        >>> with ThreadPoolExecutor(1) as executor:
        ...     found = tg.experiments.deep_stacks((2, 60), (1,), seeds=1, updates=50, executor=executor)
        >>> dict(zip(found.stack, (found.log10_left[:, 1] > -4).tolist()))
        {'plain': False, 'residual': True, 'dense': True, 'highway': True}
    """
    if min(depths, default=0) < 1 or min(trained, default=0) < 1 or seeds < 1:
        raise ArgumentError(f"deep_stacks: expected depths and seeds of at least 1, got {tuple(depths)}, {tuple(trained)} and {seeds}")
    runs = range(first_seed, first_seed + seeds)
    left = [[float(np.mean([log10_left(kind, layers, width, seed) for seed in runs])) for layers in depths] for kind in STACKS]
    grid = {"kind": STACKS, "layers": list(trained), "seed": list(runs), "width": [width], "updates": [updates]}
    found = sweep(learned_error, grid, executor, path=path, workers=workers, label="deep stacks", shown=shown)
    errors = np.array(found.values()).reshape(len(STACKS), len(trained), seeds)
    rates = np.array([[success_rate(int((cell <= GOAL).sum()), seeds) for cell in row] for row in errors])
    return DeepStacks(
        stack=STACKS,
        depth=np.array(depths),
        log10_left=np.array(left),
        trained_depth=np.array(trained),
        seeds=seeds,
        success=rates[..., 0],
        low=rates[..., 1],
        high=rates[..., 2],
        error=errors.mean(axis=-1),
    )


GOAL = 0.05


def carried() -> float:
    """What the bias of a Highway's gates lets through in each layer at the beginning: 1 − σ(b) = 0.88."""
    gate: Any = nn.Highway(1, rng=0).gate
    return 1.0 / (1.0 + float(np.exp(gate.bias.value[0])))


def stacked(kind: str, layers: int, width: int, rng: np.random.Generator) -> Any:
    """A stack of a kind; its output is as wide as its input, but for "dense"."""
    if kind == "dense":
        return nn.DenseBlock(width, width // 4, layers, activation=tanh, rng=rng)
    make: dict[str, Callable[[], Any]] = {
        "plain": lambda: nn.Sequential(nn.Linear(width, width, rng=rng), tanh),
        "residual": lambda: nn.Residual(nn.Sequential(nn.Linear(width, width, rng=rng), tanh)),
        "highway": lambda: nn.Highway(width, activation=tanh, rng=rng),
    }
    return nn.Sequential(*[make[kind]() for _ in range(layers)])


def log10_left(kind: str, layers: int, width: int, seed: int) -> float:
    """log₁₀ ‖∂J/∂input‖ / ‖∂J/∂output‖ of an untrained stack; J reads the output with random weights, for 16 random inputs."""
    rng = generator(seed)
    stack = stacked(kind, layers, width, rng)
    x = tensor(rng.standard_normal((16, width)), requires_grad=True, name="x")
    y = stack(x)
    first, last = grad((y * rng.standard_normal(y.shape)).sum(), [x, y])
    return float(log10(norm_of(first.value)) - log10(norm_of(last.value)))


def learned_error(*, kind: str, layers: int, seed: int, width: int, updates: int) -> float:
    """Train one stack to tell two half circles apart, till few of 256 points are wrong; return its error on 1,024 others."""
    rng = generator(seed)
    stack = stacked(kind, layers, width, rng)
    out = stack.output_size if kind == "dense" else width
    model = nn.Sequential(nn.Linear(2, width, rng=rng), tanh, stack, nn.Linear(out, 2, rng=rng))
    held, fresh = half_circles(256, generator(1_000_000)), half_circles(1024, generator(2_000_000))

    def loss() -> Any:
        x, classes = half_circles(64, rng)
        return cross_entropy(model(x), classes)

    def error_on(points: Any, classes: Any) -> float:
        with no_grad():
            return float(np.mean(model(points).value.argmax(axis=1) != classes))

    train(model, loss, lambda: error_on(*held), rng=rng, updates=updates, lr=0.01, every=25, goal=GOAL / 2, patience=16, shown=False)
    return error_on(*fresh)


def half_circles(count: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Points on two half circles that reach into each other, with a little noise, and which of the two each is on.

    Class 0: (cos a, sin a); class 1: (1 − cos a, ½ − sin a); a uniform in [0, π]; noise of standard deviation 0.1.
    """
    angle, classes = rng.uniform(0.0, np.pi, count), rng.integers(0, 2, count)
    turned = np.where(classes == 0, 1.0, -1.0)
    points = np.stack([turned * np.cos(angle) + (classes == 1), turned * np.sin(angle) + 0.5 * (classes == 1)], axis=1)
    return points + 0.1 * rng.standard_normal((count, 2)), classes
