"""Sequential parity: was the number of ones so far odd?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..nn.init import generator
from .arguments import floating, whole


def parity(steps: int, batch: int, rng: np.random.Generator | int | None = None, *, dtype: Any = None) -> tuple[Any, Any]:
    """Random bits, and after each the parity of all so far.

    One bit of memory is enough, and no bit may be missed: with any one of them hidden, the answer is a guess. So nothing is learned from
    a loss at the end of a long sequence until everything is.

    Args:
        steps, batch: T and B, at least 1.
        rng: a Generator, which the next batch goes on with, or a seed.
        dtype: of the inputs, float64 by default.

    Shapes:
        inputs (T, B, 1), 0 or 1; targets (T, B), 0 (even) or 1 (odd). ``targets[-1]`` is the parity of the whole.

    Raises:
        ArgumentError: for a number that is too small, or a dtype that is not a floating-point one.

    Source:
        Hochreiter & Schmidhuber 1997, "Long short-term memory", on which tasks random guessing of weights solves: parity of 50 to 500
        steps, classified at the end. Here the class is given at every step too.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> inputs, targets = tasks.parity(6, 1, rng=0)
        >>> inputs[:, 0, 0], targets[:, 0]
        (array([1., 1., 1., 0., 0., 0.]), array([1, 0, 1, 1, 1, 1]))
    """
    kind = floating("parity", dtype)
    bits = generator(rng).integers(2, size=(whole("parity", "steps", steps, 1), whole("parity", "batch", batch, 1)))
    return bits[..., None].astype(kind), bits.cumsum(axis=0) % 2


def parity_baseline() -> float:
    """The cross-entropy in nats of an answer that has missed a bit: ln 2 at every step, for every T; it is right in ½.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> round(tasks.parity_baseline(), 3)
        0.693
    """
    return math.log(2.0)
