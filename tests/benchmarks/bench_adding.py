"""How long an LSTM and a GRU take to solve the adding problem at T = 50, from three seeds each.

Solved means a mean squared error below 0.01 on sequences that were never seen; always answering 1 gives 1/6. Run it by hand:
``python tests/benchmarks/bench_adding.py [seeds]``.
"""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim, tasks

STEPS, HIDDEN, BATCH, RATE, CLIP = 50, 64, 64, 5e-3, 1.0
SOLVED = 0.01
LIMIT = 60.0
"""In how many seconds each is to be solved on two cores."""


class Outcome(NamedTuple):
    """What a run came to: its updates, its seconds, and the error on fresh sequences."""

    updates: int
    seconds: float
    error: float


class Adder(nn.Module):
    """A recurrent layer, and a linear map from its last output."""

    def __init__(self, kind: str, hidden: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(2, hidden, dtype=np.float32, rng=rng)
        self.readout = nn.Linear(hidden, 1, dtype=np.float32, rng=rng)

    def forward(self, inputs: Any) -> Any:
        outputs, _ = self.layer(inputs)  # (T, B, H)
        return self.readout(outputs[-1])[:, 0]  # (B,)


def error(model: Adder, sequences: int, rng: int) -> float:
    """The mean squared error on sequences of their own."""
    inputs, targets = tasks.adding(STEPS, sequences, rng, dtype=np.float32)
    with tg.no_grad():
        return float(tg.mse(model(inputs), targets).item())


def solve(kind: str, seed: int, *, updates: int = 4000) -> Outcome:
    """Train until the error on 500 held-out sequences, measured every 50 updates, is below half of ``SOLVED``."""
    start = time.perf_counter()
    random = np.random.default_rng(seed)
    model = Adder(kind, HIDDEN, random)
    optimizer = optim.Adam(model.parameters(), lr=RATE)
    done = 0
    while done < updates:
        inputs, targets = tasks.adding(STEPS, BATCH, random, dtype=np.float32)
        model.zero_grad()
        tg.mse(model(inputs), targets).backward()
        optim.clip_grad_norm(model.parameters(), CLIP)
        optimizer.step()
        done += 1
        if done % 50 == 0 and error(model, 500, 1_000_000) < SOLVED / 2:
            break
    return Outcome(done, time.perf_counter() - start, error(model, 2000, 2_000_000))


def main(seeds: int = 3) -> bool:
    """Print each run; return whether all were solved in time."""
    print(f"adding problem, T = {STEPS}, {HIDDEN} units; always answering 1: {tasks.adding_baseline():.4f}")
    outcomes = []
    for kind in ("LSTM", "GRU"):
        for seed in range(seeds):
            outcome = solve(kind, seed)
            outcomes.append(outcome)
            print(f"{kind:4} seed {seed}: error {outcome.error:.4f} after {outcome.updates} updates, {outcome.seconds:.1f} s")
    return all(outcome.error < SOLVED and outcome.seconds < LIMIT for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:2])))
