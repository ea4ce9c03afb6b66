"""Training runs: one loop that stops early, shows how far it is, and goes on where it was interrupted, to the last bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn, optim
from ..errors import ArgumentError, StateError
from ..progress import progress
from ..report import Result, Table, aligned, number
from ..storage import load, save
from ..tensor import Tensor


@dataclass(frozen=True, eq=False)
class Training(Result):
    """What a training run came to.

    Attributes:
        update: after how many updates the error was measured; ``error`` what it was, ``loss`` the mean training loss since the last time.
        best, best_update: the smallest error, and when it was measured; the model has the weights of that time.
        updates: how many were done.
        stopped: why it ended: "goal" (the error is small enough), "patience" (it has not fallen for long), "hopeless" (half of the
            updates have brought nothing), "updates" (all are done), or "diverged" (loss or gradient is not finite).
        clipped: the share of updates in which clipping engaged.
        norm: the largest norm of the gradient, before clipping, since the last measurement.
    """

    update: Any
    error: Any
    loss: Any
    best: float
    best_update: int
    updates: int
    stopped: str
    clipped: float
    norm: Any

    def table(self) -> Table:
        """One row per measurement."""
        columns = (self.update, self.loss, self.norm, self.error)
        rows = [(u, number(lo), number(n), number(e)) for u, lo, n, e in zip(*columns, strict=True)]
        caption = f"stopped: {self.stopped}; best {number(self.best)} after {self.best_update}; clipping engaged in {self.clipped:.0%}"
        return aligned(("updates", "loss", "largest ‖g‖", "error"), rows, "training", caption)


def train(
    model: nn.Module,
    loss: Callable[[], Tensor],
    error: Callable[[], float],
    *,
    rng: np.random.Generator,
    updates: int,
    lr: float = 1e-3,
    method: type[optim.Optimizer] = optim.Adam,
    clip: float = 1.0,
    every: int = 100,
    goal: float = -math.inf,
    patience: int | None = None,
    hopeless: float = math.inf,
    path: str | os.PathLike[str] | None = None,
    label: str = "training",
    shown: bool | None = None,
) -> Training:
    """Train until the error is small enough, or falls no more, or all updates are done.

    The model ends with the weights of its smallest error. That error has been selected for: measure a final one on other data.

    Args:
        model: what is trained.
        loss: draws a batch from ``rng`` and returns its loss.
        error: the model's error on held-out data, always the same; called without dropout (``model.eval()``) and not drawing from
            ``rng``.
        rng: the one random source of the run, dropout included; its state is saved.
        updates: at most so many.
        lr, method: the learning rate, and the optimiser that is made with it.
        clip: the largest norm of the gradient (``math.inf``: none).
        every: so many updates lie between two measurements.
        goal: an error at or below which the run ends.
        patience: after so many measurements without a smaller error the run ends; None: never.
        hopeless: a run whose smallest error is still above this when half of the updates are done ends there.
        path: an .npz or .safetensors file, written at every measurement. If it exists, the run goes on from there.
        label, shown: of the progress bar; see :func:`tinygrad_rnn.progress.progress`.

    Raises:
        ArgumentError: for numbers below 1.
        StateError: if the file holds a run of other settings or another model.
        StorageError: if the file is damaged.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.experiments.training import train
        >>> rng = np.random.default_rng(0)
        >>> model = nn.Linear(2, 1, rng=rng)
        >>> def cost(x):
        ...     return tg.mse(model(x)[:, 0], x[:, 0] - x[:, 1])
        >>> held_out = np.random.default_rng(1).standard_normal((50, 2))
        >>> found = train(model, lambda: cost(rng.standard_normal((8, 2))), lambda: cost(held_out).item(), rng=rng, updates=500, lr=0.1,
        ...               every=50, goal=1e-4)
        >>> found.stopped, found.best < 1e-4
        ('goal', True)
    """
    for name, value in (("updates", updates), ("every", every), ("patience", patience)):
        if value is not None and value < 1:
            raise ArgumentError(f"train: {name} must be at least 1, got {value}")
    settings = {
        "updates": updates,
        "lr": lr,
        "method": method.__name__,
        "clip": clip,
        "every": every,
        "goal": goal,
        "patience": patience,
        "hopeless": hopeless,
    }
    run = _Run(model, rng, method(model.named_parameters(), lr=lr), settings)
    target = None if path is None else Path(path)
    if target is not None and target.exists():
        run.load_state_dict(load(target))
    with progress(updates, label, shown) as advance:
        while not run.stopped:
            run.go(loss, error)
            if target is not None:
                save(target, run.state_dict())
            advance(run.done, f"error {number(run.errors[-1])}")
    model.load_state_dict(run.best_weights)
    return run.result()


class _Run:
    """All that the next update depends on."""

    def __init__(self, model: nn.Module, rng: np.random.Generator, optimizer: optim.Optimizer, settings: dict[str, Any]) -> None:
        self.model = model
        self.rng = rng
        self.settings = settings
        self.optimizer = optimizer
        self.counter = optim.ClipCounter()
        self.done = 0
        self.measured: list[int] = []
        self.errors: list[float] = []
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.best, self.best_update = math.inf, 0
        self.best_weights = model.state_dict()
        self.stopped = ""

    def go(self, loss: Callable[[], Tensor], error: Callable[[], float]) -> None:
        """Train up to the next measurement, measure, and see whether that was the last."""
        self.model.train()
        seen, norms, goes_on = [], [], True
        for _ in range(min(self.settings["every"], self.settings["updates"] - self.done)):
            self.model.zero_grad()
            cost = loss()
            cost.backward()
            norm = optim.clip_grad_norm(self.model.parameters(), self.settings["clip"], counter=self.counter)
            seen.append(float(cost.item()))
            norms.append(norm)
            goes_on = math.isfinite(seen[-1]) and math.isfinite(norm)
            if not goes_on:
                break  # the weights stay what they were
            self.optimizer.step()
            self.done += 1
        self.model.eval()
        self.measured.append(self.done)
        self.errors.append(float(error()))
        self.losses.append(float(np.mean(seen)))
        self.norms.append(float(np.max(norms)))
        if self.errors[-1] < self.best:
            self.best, self.best_update, self.best_weights = self.errors[-1], self.done, self.model.state_dict()
        self.stopped = self._why(goes_on and math.isfinite(self.errors[-1]))

    def _why(self, finite: bool) -> str:
        patience = self.settings["patience"]
        if not finite:
            return "diverged"
        if self.best <= self.settings["goal"]:
            return "goal"
        if patience is not None and len(self.measured) - 1 - self.measured.index(self.best_update) >= patience:
            return "patience"
        if 2 * self.done >= self.settings["updates"] and self.best > self.settings["hopeless"]:
            return "hopeless"
        return "updates" if self.done >= self.settings["updates"] else ""

    def result(self) -> Training:
        """The run so far."""
        return Training(
            update=np.array(self.measured),
            error=np.array(self.errors),
            loss=np.array(self.losses),
            best=self.best,
            best_update=self.best_update,
            updates=self.done,
            stopped=self.stopped,
            clipped=self.counter.fraction,
            norm=np.array(self.norms),
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.rng.bit_generator.state,
            "clipping": [self.counter.calls, self.counter.engaged],
            "done": self.done,
            "measured": self.measured,
            "errors": self.errors,
            "losses": self.losses,
            "norms": self.norms,
            "best": [self.best, self.best_update],
            "best_weights": self.best_weights,
            "stopped": self.stopped,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        if missing := sorted(self.state_dict().keys() - saved.keys()):
            raise StateError(f"train: the file is no training run, it lacks {', '.join(missing)}. Choose another path")
        if changed := sorted(name for name in self.settings if saved["settings"].get(name) != self.settings[name]):
            before = ", ".join(f"{name}={saved['settings'].get(name)!r}" for name in changed)
            raise StateError(f"train: the run in this file had {before}. Give the same settings, or choose another path")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.rng.bit_generator.state = saved["random"]
        self.counter = optim.ClipCounter(*saved["clipping"])
        self.done, self.stopped = saved["done"], saved["stopped"]
        self.measured, self.errors, self.losses, self.norms = (saved[name] for name in ("measured", "errors", "losses", "norms"))
        (self.best, self.best_update), self.best_weights = saved["best"], saved["best_weights"]
