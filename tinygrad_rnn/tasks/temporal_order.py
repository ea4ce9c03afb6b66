"""Temporal order: in which order did the two or three symbols that matter come, among many that do not?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..nn.init import generator
from .arguments import floating, one_hot, whole

SYMBOLS = ("X", "Y", "a", "b", "c", "d")
"""The two that matter, then the four that do not."""

PLACES = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}
"""Where the symbols that matter may stand, in hundredths of the sequence, by their number: the steps of the original at length 100."""


def temporal_order(
    steps: int, batch: int, rng: np.random.Generator | int | None = None, *, relevant: int = 2, dtype: Any = None
) -> tuple[Any, Any]:
    """Sequences of the temporal-order task, and the class that a network is to give after the last step.

    Two (or three) steps show X or Y, each with ½; all others show a, b, c or d, each with ¼. The class is the order: XX 0, XY 1, YX 2,
    YY 3 (XXX 0, … YYY 7). The symbols stand at a uniform step between T/10 and T/5 and between T/2 and 3T/5 (of three: from T/10, T/3
    and 2T/3 on, each within T/10), so the last must be kept for 2/5 (1/4) of the sequence at least.

    Args:
        steps: T, at least 4.
        batch: how many sequences.
        rng: a Generator, which the next batch goes on with, or a seed.
        relevant: 2 or 3.
        dtype: of the inputs, float64 by default.

    Shapes:
        inputs (T, B, 6), one 1 in each vector, in the order of ``SYMBOLS``; targets (B,), integers in 0 … 3 (0 … 7).

    Raises:
        ArgumentError: for a number outside its range, or a dtype that is not a floating-point one.

    Source:
        Hochreiter & Schmidhuber 1997, "Long short-term memory", experiments 6a and 6b, with their places at length 100 taken in
        proportion; with a given length and six inputs as in Pascanu, Mikolov & Bengio 2013. (The original adds a start and an end symbol,
        and draws the length from 100 to 110.)

    Example:
        >>> from tinygrad_rnn import tasks
        >>> inputs, targets = tasks.temporal_order(12, 2, rng=0)
        >>> ["".join("XYabcd"[k] for k in row) for row in inputs.argmax(-1).T], targets
        (['dXbaacYdccbc', 'cYaaddXccdda'], array([1, 2]))
    """
    steps, batch = whole("temporal_order", "steps", steps, 4), whole("temporal_order", "batch", batch, 1)
    windows, kind = PLACES[whole("temporal_order", "relevant", relevant, 2, 3)], floating("temporal_order", dtype)
    random, rows = generator(rng), np.arange(batch)
    shown, targets = random.integers(2, 6, (steps, batch)), np.zeros(batch, dtype=int)
    for first, last in windows:
        begin = steps * first // 100
        place = random.integers(begin, max(begin + 1, steps * last // 100), batch)
        symbol = random.integers(2, size=batch)
        shown[place, rows] = symbol
        targets = 2 * targets + symbol
    return one_hot(shown, len(SYMBOLS), kind), targets


def temporal_order_baseline(relevant: int = 2) -> float:
    """The cross-entropy in nats of an answer without looking: ln 4 = 1.386 for two symbols, ln 8 for three; it is right in ¼ (⅛).

    Example:
        >>> from tinygrad_rnn import tasks
        >>> round(tasks.temporal_order_baseline(), 3)
        1.386
    """
    return whole("temporal_order_baseline", "relevant", relevant, 2, 3) * math.log(2.0)
