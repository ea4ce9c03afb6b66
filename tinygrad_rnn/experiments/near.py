"""Which loss pulls at which step: row 6 of the curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import flow, nn, optim
from ..errors import ArgumentError
from ..functional import cross_entropy
from ..nn.init import generator
from ..ops import stack
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..trace import trace
from .measurement import Claim, Measurement, experiment, holds


@dataclass(frozen=True, eq=False)
class NearEffects(Measurement):
    """What each step's loss contributes to W_hh through each step's use of it, before and after training.

    Attributes:
        untrained, trained: (T, T), entry (t′ − 1, t − 1) the norm of what the loss at t′ contributes through the use at step t.
        distance: d = t′ − t; ``untrained_by_distance``, ``trained_by_distance`` the mean norms at each.
        pull: (2, T), ‖∂J⁽ᵗ′⁾/∂h₁‖ over the batch, how hard the loss at t′ pulls on the first state, untrained and trained.
        loss: (2,), the mean cross-entropy in nats, untrained and trained.
    """

    untrained: Any
    trained: Any
    distance: Any
    untrained_by_distance: Any
    trained_by_distance: Any
    pull: Any
    loss: Any

    def table(self) -> Table:
        """Mean norms by distance, and each loss's pull on h₁."""
        rows = [
            (d, number(self.untrained_by_distance[d]), number(self.trained_by_distance[d]), d + 1, *(number(pull[d]) for pull in self.pull))
            for d in self.distance
        ]
        columns = ("t′ − t", "untrained", "trained", "t′", "‖∂J/∂h₁‖ untrained", "trained")
        caption = f"loss {self.loss[0]:.3f} untrained, {self.loss[1]:.3f} trained, in nats"
        return aligned(columns, rows, "which loss moves which use of W_hh", caption)

    def claims(self) -> tuple[Claim, ...]:
        """J⁽²⁾ pulls harder on h₁ than J⁽⁴⁾, trained or not; and the nearer a use, the more a loss moves it."""
        names = ("untrained", "trained")
        pulls = [
            holds(
                f"pull on h₁, {name}",
                "J⁽²⁾ beats J⁽⁴⁾",
                f"{number(float(pull[1]))} against {number(float(pull[3]))}",
                pull[1] > pull[3],
                "the norm of J⁽²⁾'s is larger",
            )
            for name, pull in zip(names, self.pull, strict=True)
        ]
        far = [float(by[-1] / by[0]) for by in (self.untrained_by_distance, self.trained_by_distance)]
        fall = holds(
            f"weights learn near effects only: distance {self.distance[-1]} against 0",
            "next to nothing",
            f"{number(far[0])} untrained, {number(far[1])} trained",
            max(far) < 0.1,
            "less than a tenth, before and after training",
        )
        return (*pulls, fall)

    def charts(self) -> tuple[Chart, ...]:
        """The BPTT matrix before and after training."""
        uses = range(1, len(self.untrained) + 1)
        return tuple(
            Chart(
                "heat",
                f"W_hh, {name}",
                "use at step",
                "loss at step",
                tuple(series(str(t), uses, row) for t, row in zip(uses, m, strict=True)),
                "y",
            )
            for name, m in (("untrained", self.untrained), ("trained", self.trained))
        )


def pulls(losses: list[Any]) -> Any:
    """‖∂J/∂h₁‖ over the batch for each of the losses, which have one recurrence in common."""
    return np.array([trace(loss, keep="norms").states()[1].hidden.norm for loss in losses])


@experiment
def near_effects(*, steps: int = 12, batch: int = 16, hidden: int = 16, symbols: int = 6, updates: int = 150, seed: int = 0) -> NearEffects:
    """Claim (row 6): weights learn near effects only; J⁽²⁾'s pull on h₁ beats J⁽⁴⁾'s.

    A tanh RNN predicts the next symbol of a random Markov chain, with a loss at every step. The BPTT matrix of W_hh says which loss
    moves which use of it; entries (t′, t) with t′ < t are 0, since a loss depends on no later step.

    Args:
        steps, batch, hidden, symbols: T, B, H, and how many symbols the chain has.
        updates: of Adam, at learning rate 0.01, on fresh sequences.
        seed: the random source.

    Raises:
        ArgumentError: for fewer than 4 steps.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.near_effects(updates=20)
        >>> bool(found.untrained_by_distance[0] > found.untrained_by_distance[3]), bool(found.pull[0, 1] > found.pull[0, 3])
        (True, True)
    """
    if steps < 4:
        raise ArgumentError(f"near_effects: expected at least 4 steps, got {steps}")
    rng = generator(seed)
    layer: Any = nn.RNN(symbols, hidden, rng=rng)
    readout = nn.Linear(hidden, symbols, rng=rng)
    chances = rng.dirichlet(np.full(symbols, 0.3), symbols)  # mostly one or two ways to go on

    def drawn() -> Any:
        sequence = np.empty((steps + 1, batch), dtype=int)
        sequence[0] = rng.integers(symbols, size=batch)
        for t in range(steps):
            sequence[t + 1] = (chances[sequence[t]].cumsum(1) < rng.random((batch, 1))).sum(1).clip(max=symbols - 1)
        return sequence

    def losses(sequence: Any) -> list[Any]:
        outputs, _ = layer(np.eye(symbols)[sequence[:-1]])
        return [cross_entropy(readout(outputs[t]), sequence[t + 1]) for t in range(steps)]

    shown = drawn()

    def measured() -> tuple[Any, Any, float]:
        each = losses(shown)
        matrix = flow.bptt_matrix(each, layer.weight_hh_l0).norm
        return np.pad(matrix, ((0, 0), (steps - matrix.shape[1], 0))), pulls(each), float(np.mean([loss.item() for loss in each]))

    untrained, pull_before, loss_before = measured()
    parameters = [*layer.parameters(), *readout.parameters()]
    optimizer = optim.Adam(parameters, lr=0.01)
    for _ in range(updates):
        optimizer.zero_grad()
        stack(losses(drawn())).sum().backward()
        optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
    trained, pull_after, loss_after = measured()
    distance = np.arange(steps - 1)

    def by_distance(matrix: Any) -> Any:  # the first step multiplies h₀ = 0 by W_hh, and contributes nothing
        return np.array([np.mean(np.diagonal(matrix, -d)[1:]) for d in distance])

    return NearEffects(
        untrained=untrained,
        trained=trained,
        distance=distance,
        untrained_by_distance=by_distance(untrained),
        trained_by_distance=by_distance(trained),
        pull=np.stack([pull_before, pull_after]),
        loss=np.array([loss_before, loss_after]),
    )
