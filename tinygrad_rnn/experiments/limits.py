"""How long may a sequence be? Row 7 of the curriculum: success rates by task, network and length."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import nn, tasks
from ..errors import ArgumentError
from ..functional import cross_entropy, mse
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..transforms import no_grad
from .measurement import Claim, Measurement, experiment, holds
from .statistics import success_rate
from .sweeps import sweep
from .training import train

NETWORKS: dict[str, Callable[..., Any]] = {
    "RNN": lambda steps, *sizes, **options: nn.RNN(*sizes, **options),
    "orthogonal RNN": lambda steps, *sizes, **options: nn.RNN(*sizes, init="orthogonal", **options),
    "LSTM": lambda steps, *sizes, **options: nn.LSTM(*sizes, **options),
    "chrono LSTM": lambda steps, *sizes, **options: nn.LSTM(*sizes, forget_bias=nn.init.chrono(steps), **options),
    "GRU": lambda steps, *sizes, **options: nn.GRU(*sizes, **options),
}
"""The networks by name: (T, I, H, …) → a layer, whose outputs a linear map reads. The chrono LSTM's biases are drawn for memories of up to
T steps, so it is told how long the sequences are."""

COPIED, ALPHABET = 3, 4
"""K and S of the copying task here: three symbols of four, so that the time goes into the distance and not into the alphabet."""


BANDS = (("T < 20", "works", 0, 19, 0.75, 1.0), ("T = 20 … 50", "struggles", 20, 50, 0.25, 0.75), ("T > 50", "fails", 51, 10**9, 0.0, 0.25))
"""The lecture's bands: their name and word, the first and last T, and the least and largest rate of success that the word means here."""


class Task(NamedTuple):
    """A task as the sweep needs it.

    Attributes:
        inputs, outputs: the sizes of both vectors.
        draw: (steps, batch, rng) → inputs and targets, in float32.
        goal: an error below it is a success.
        chance: the error of an answer without looking.
        unit: what the error is.
    """

    inputs: int
    outputs: int
    draw: Callable[[int, int, Any], tuple[Any, Any]]
    goal: float
    chance: float
    unit: str


TASKS = {
    "adding": Task(2, 1, lambda t, b, rng: tasks.adding(t, b, rng, dtype=np.float32), 0.01, tasks.adding_baseline(), "mean squared error"),
    "temporal order": Task(6, 4, lambda t, b, rng: tasks.temporal_order(t, b, rng, dtype=np.float32), 0.01, 0.75, "share of wrong classes"),
    "copying": Task(
        ALPHABET + 2,
        ALPHABET + 1,
        lambda t, b, rng: tasks.copying(t, b, rng, length=COPIED, symbols=ALPHABET, dtype=np.float32),
        0.01,
        1 - 1 / ALPHABET,
        "share of wrong symbols",
    ),
}
"""Adding at T = 100 and the like: success is an error below ``goal``, on sequences that were never seen."""


class Reader(nn.Module):
    """A recurrent layer and a linear map of its outputs, of the last or of all."""

    def __init__(
        self, network: str, steps: int, inputs: int, hidden: int, outputs: int, rng: np.random.Generator, *, every_step: bool = False
    ) -> None:
        super().__init__()
        self.layer: Any = NETWORKS[network](steps, inputs, hidden, dtype=np.float32, rng=rng)
        self.readout = nn.Linear(hidden, outputs, dtype=np.float32, rng=rng)
        self.every_step = every_step

    def forward(self, x: Any) -> Any:
        """(T, B, I) → (B, O), or (T, B, O)."""
        outputs, _ = self.layer(x)
        return self.readout(outputs if self.every_step else outputs[-1])


def length_cell(
    task: str, network: str, steps: int, seed: int, *, hidden: int, batch: int, updates: int, lr: float, every: int = 100
) -> dict[str, Any]:
    """One cell of the sweep: train from one seed, and test on 1,000 fresh sequences.

    Training ends when the error on 500 held-out sequences, the same for all, is below half the goal; and halfway, if it is still above
    nine tenths of the chance error.
    """
    given, rng = TASKS[task], np.random.default_rng(seed)
    model = Reader(network, steps, given.inputs, hidden, given.outputs, rng, every_step=task == "copying")

    def loss() -> Any:
        x, target = given.draw(steps, batch, rng)
        return mse(model(x)[:, 0], target) if task == "adding" else cross_entropy(model(x), target)

    def error_on(x: Any, target: Any) -> float:
        with no_grad():
            answer = model(x).value
        if task == "adding":
            return float(np.mean((answer[:, 0] - target) ** 2))
        wrong = answer.argmax(-1) != target
        return float((wrong[-COPIED:] if task == "copying" else wrong).mean())

    held_out, fresh = given.draw(steps, 500, 1_000_000), given.draw(steps, 1000, 2_000_000)
    stops: dict[str, Any] = {"updates": updates, "every": every, "goal": given.goal / 2, "hopeless": 0.9 * given.chance}
    run = train(model, loss, lambda: error_on(*held_out), rng=rng, lr=lr, shown=False, **stops)
    return {"error": error_on(*fresh), "updates": run.updates, "stopped": run.stopped, "clipped": run.clipped}


@dataclass(frozen=True, eq=False)
class LengthLimits(Measurement):
    """Success rates by task, network and length.

    Attributes:
        task, network, steps: what the axes of the arrays stand for; ``seeds`` how many runs each entry is made of.
        successes: in how many runs the error on fresh sequences was below the task's goal.
        rate, low, high: the share of them, and Wilson's 95 % interval.
        error: the median error; ``chance`` by task, that of an answer without looking.
        updates: the median number of updates of the runs.
    """

    task: tuple[str, ...]
    network: tuple[str, ...]
    steps: Any
    seeds: int
    successes: Any
    rate: Any
    low: Any
    high: Any
    error: Any
    chance: Any
    updates: Any

    def table(self) -> Table:
        """One row per task and network, one column per length."""
        rows = []
        for i, task in enumerate(self.task):
            for j, network in enumerate(self.network):
                cells = (f"{rate:.0%} {number(error, 2)}" for rate, error in zip(self.rate[i, j], self.error[i, j], strict=True))
                rows.append((f"{task}: {network}", *cells))
        caption = "; ".join(f"{name}: {TASKS[name].unit}, {number(c)} by chance" for name, c in zip(self.task, self.chance, strict=True))
        if "updates" in self.settings:
            caption += f"; at most {self.settings['updates']} updates, half of them for a run that has learned nothing by then"
        title = f"runs that succeed of {self.seeds}, and median error, by length T"
        return aligned(("", *(f"T = {t}" for t in self.steps)), rows, title, caption)

    def claims(self) -> tuple[Claim, ...]:
        """The lecture's three bands, for the plain RNN, on each task."""
        rule = (
            "≥ ¾ of the runs succeed: works; ≤ ¼: fails; between: struggles. It differs if Wilson's 95 % interval lies outside of that. "
            "A failure counts only if some network succeeds in ¾ of its runs at these lengths"
        )
        found = []
        for i, task in enumerate(self.task):
            for where, published, first, last, least, most in BANDS:
                here = (self.steps >= first) & (self.steps <= last)
                if "RNN" not in self.network or not here.any():
                    continue
                counts, trials = self.successes[i][:, here].sum(axis=1), int(here.sum()) * self.seeds
                rnn = success_rate(int(counts[self.network.index("RNN")]), trials)
                solvable = counts.max() >= 0.75 * trials
                inside, outside = least <= rnn.estimate <= most, rnn.low > most or rnn.high < least
                verdict = None if not solvable and rnn.estimate <= most else True if inside else False if outside else None
                found.append(holds(f"RNN, {task}, {where}", published, f"success {rnn}", verdict, rule))
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """Success rate by length, one picture per task."""
        return tuple(
            Chart(
                "lines",
                f"{task}: runs that succeed",
                "length T",
                "success rate",
                tuple(series(n, self.steps, self.rate[i, j], self.low[i, j], self.high[i, j]) for j, n in enumerate(self.network)),
                "x",
            )
            for i, task in enumerate(self.task)
        )


@experiment
def length_limits(
    task: Sequence[str] = ("adding", "temporal order"),
    network: Sequence[str] = ("RNN", "LSTM", "GRU"),
    steps: Sequence[int] = (10, 30),
    *,
    seeds: int = 2,
    hidden: int = 16,
    batch: int = 32,
    updates: int = 120,
    lr: float = 5e-3,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> LengthLimits:
    """Claim (row 7): a plain RNN works below 20 steps, struggles from 20 to 50 and fails beyond 50.

    Every network learns every task at every length from several seeds, by :func:`tinygrad_rnn.experiments.sweep`: Adam, one learning
    rate for all, the gradient's norm clipped to 1. A run that has learned nothing after half of the updates is given up. A run succeeds if
    its error on fresh sequences is below 0.01: of the mean squared error (adding), of the share of wrong classes (temporal order) or
    symbols (copying). The same networks with another start stand beside the plain RNN and the LSTM, since a limit is one of the
    initialisation too: an orthogonal W_hh, and chrono biases.

    Args:
        task: of "adding", "temporal order" and "copying".
        network: of "RNN", "orthogonal RNN", "LSTM", "chrono LSTM" and "GRU".
        steps: the lengths T.
        seeds: how many runs of each, seeds 0, 1, ….
        hidden, batch, updates, lr: H, B, the largest number of updates, and the learning rate.
        executor, workers, path: of the sweep; with a path, a run that was interrupted goes on.

    Raises:
        ArgumentError: for a task or network that does not exist, or if a cell failed.

    Source:
        The lecture's bands; the tasks: Hochreiter & Schmidhuber 1997, Arjovsky et al. 2016; chrono: Tallec & Ollivier 2018.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from tinygrad_rnn import experiments
        >>> with ThreadPoolExecutor(1) as here:  # in this process; by default in others
        ...     found = experiments.length_limits(("temporal order",), ("GRU",), (10,), seeds=2, updates=300, lr=0.02, executor=here)
        >>> found.successes[0, 0], found.low[0, 0].round(2)  # both runs succeed; two are few
        (array([2]), array([0.34]))
    """
    for name, given, known in (("task", task, TASKS), ("network", network, NETWORKS)):
        if unknown := [one for one in given if one not in known]:
            raise ArgumentError(f"length_limits: there is no {name} {unknown[0]!r}; expected some of {', '.join(known)}")
    fixed = {"hidden": hidden, "batch": batch, "updates": updates, "lr": lr}
    grid = [
        {"task": name, "network": net, "steps": int(t), "seed": seed, **fixed}
        for seed in range(seeds)  # the outermost, so that what is there after an interruption covers everything
        for name in task
        for t in steps
        for net in network
    ]
    values = sweep(length_cell, grid, executor, workers=workers, path=path, label="row 7").values()
    shape = (seeds, len(task), len(steps), len(network))

    def by_axes(name: str) -> Any:
        return np.array([value[name] for value in values], dtype=float).reshape(shape).transpose(1, 3, 2, 0)  # (task, network, T, seed)

    error = by_axes("error")
    successes = (error < np.array([TASKS[name].goal for name in task])[:, None, None, None]).sum(axis=-1)
    rates = np.array([success_rate(int(count), seeds) for count in successes.ravel()]).reshape(*successes.shape, 3)
    return LengthLimits(
        task=tuple(task),
        network=tuple(network),
        steps=np.array(steps, dtype=int),
        seeds=seeds,
        successes=successes,
        rate=rates[..., 0],
        low=rates[..., 1],
        high=rates[..., 2],
        error=np.median(error, axis=-1),
        chance=np.array([TASKS[name].chance for name in task]),
        updates=np.median(by_axes("updates"), axis=-1),
    )
