"""The adding problem: two numbers, far apart in a long sequence of them, are to be added."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..nn.init import generator
from .arguments import floating, whole


def adding(steps: int, batch: int, rng: np.random.Generator | int | None = None, *, dtype: Any = None) -> tuple[Any, Any]:
    """Sequences of the adding problem, and the sums that a network is to give after the last step.

    Each step shows a number and a marker. The numbers are uniform in [0, 1). The marker is 0 but at two steps: one uniform among the
    first ⌊T/2⌋, one uniform among the others; there it is 1. The target is the sum of the two marked numbers. The first of them must be
    kept for T/2 steps on average, and nothing on the way says what it was.

    Args:
        steps: T, at least 2.
        batch: how many sequences.
        rng: a Generator, which the next batch goes on with, or a seed.
        dtype: of both arrays, float64 by default; another one rounds the same numbers (the targets are rounded after adding).

    Shapes:
        inputs (T, B, 2): the number, then the marker; targets (B,).

    Raises:
        ArgumentError: for fewer than two steps, no sequences, or a dtype that is not a floating-point one.

    Source:
        Hochreiter & Schmidhuber 1997, "Long short-term memory", experiment 4, in the form of Le, Jaitly & Hinton 2015, with the markers
        of Arjovsky, Shah & Bengio 2016, "Unitary evolution recurrent neural networks", section 4.2. (The original draws the numbers from
        [−1, 1], the length too, puts the first marker into the first ten steps, and scales the sum into [0, 1].)

    Example:
        >>> from tinygrad_rnn import tasks
        >>> inputs, targets = tasks.adding(6, 1, rng=0)
        >>> inputs[:, 0].round(2)
        array([[0.64, 0.  ],
               [0.27, 1.  ],
               [0.04, 0.  ],
               [0.02, 0.  ],
               [0.81, 1.  ],
               [0.91, 0.  ]])
        >>> targets.round(2)
        array([1.08])
    """
    steps, batch = whole("adding", "steps", steps, 2), whole("adding", "batch", batch, 1)
    kind = floating("adding", dtype)
    random, half, rows = generator(rng), steps // 2, np.arange(batch)
    numbers = random.random((steps, batch))
    first, second = random.integers(0, half, batch), random.integers(half, steps, batch)
    markers = np.zeros((steps, batch))
    markers[first, rows] = markers[second, rows] = 1.0
    inputs = np.stack([numbers, markers], axis=-1).astype(kind)
    return inputs, (numbers[first, rows] + numbers[second, rows]).astype(kind)


def adding_baseline() -> float:
    """The mean squared error of always answering 1, the best that one can do without looking: 2 · 1/12 = 1/6, for every T.

    1 is the mean of the sum of two numbers uniform in [0, 1), and 1/12 is the variance of each. (Le, Jaitly & Hinton 2015 write
    0.1767.)

    Example:
        >>> from tinygrad_rnn import tasks
        >>> round(tasks.adding_baseline(), 4)
        0.1667
    """
    return 1 / 6
