"""Copying memory: some symbols are shown, then nothing for a long time, then they are to be repeated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..nn.init import generator
from .arguments import floating, one_hot, whole


def copying(
    steps: int, batch: int, rng: np.random.Generator | int | None = None, *, length: int = 10, symbols: int = 8, dtype: Any = None
) -> tuple[Any, Any]:
    """Sequences of the copying task, and the symbol that a network is to give at every step.

    K symbols come first, each uniform among S. Then T − 1 blanks, a delimiter that says "now", and K blanks, during which the K symbols
    are to be given in their order; before that the answer is the blank. Symbols have the numbers 0 … S − 1, the blank S, the delimiter
    S + 1, which is never an answer.

    Args:
        steps: T, at least 1: the delimiter comes T steps after the last symbol.
        batch: how many sequences.
        rng: a Generator, which the next batch goes on with, or a seed.
        length: K.
        symbols: S, at least 2.
        dtype: of the inputs, float64 by default.

    Shapes:
        inputs (T + 2K, B, S + 2), one 1 in each vector; targets (T + 2K, B), integers in 0 … S.

    Raises:
        ArgumentError: for a number that is too small, or a dtype that is not a floating-point one.

    Source:
        Arjovsky, Shah & Bengio 2016, "Unitary evolution recurrent neural networks", section 4.1: K = 10, S = 8, T = 100 to 500, after
        Hochreiter & Schmidhuber 1997.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> inputs, targets = tasks.copying(4, 1, rng=0, length=2)
        >>> inputs[:, 0].argmax(-1), targets[:, 0]
        (array([6, 5, 8, 8, 8, 9, 8, 8]), array([8, 8, 8, 8, 8, 8, 6, 5]))
    """
    steps, batch = whole("copying", "steps", steps, 1), whole("copying", "batch", batch, 1)
    length, symbols = whole("copying", "length", length, 1), whole("copying", "symbols", symbols, 2)
    kind, blank = floating("copying", dtype), symbols
    shown = generator(rng).integers(symbols, size=(length, batch))
    inputs = np.full((steps + 2 * length, batch), blank)
    targets = inputs.copy()
    inputs[:length] = targets[-length:] = shown
    inputs[length + steps - 1] = blank + 1
    return one_hot(inputs, symbols + 2, kind), targets


def copying_baseline(steps: int, *, length: int = 10, symbols: int = 8) -> float:
    """The cross-entropy in nats a step of the best answer without memory: K ln S/(T + 2K).

    It gives the blank until the delimiter, at no cost, and then each symbol with 1/S. 10 ln 8/(T + 20): 0.173 at T = 100, 0.040 at
    T = 500.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> round(tasks.copying_baseline(100), 3), round(tasks.copying_baseline(500), 3)
        (0.173, 0.04)
    """
    steps, length = whole("copying_baseline", "steps", steps, 1), whole("copying_baseline", "length", length, 1)
    return length * math.log(whole("copying_baseline", "symbols", symbols, 2)) / (steps + 2 * length)
