"""The embedded Reber grammar: predict the next symbol of a string, and near its end the second symbol again."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..nn.init import generator
from .arguments import floating, one_hot, whole

SYMBOLS = "BTSXPVE"
"""The alphabet; a symbol's number is its place here."""

ARCS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("B", 1),),
    (("T", 2), ("P", 3)),
    (("S", 2), ("X", 4)),
    (("T", 3), ("V", 5)),
    (("X", 3), ("S", 6)),
    (("P", 4), ("V", 6)),
    (("E", 7),),
)
"""The Reber grammar: from each state the symbols that may come, all with the same probability, and the next state; 7 is the end."""


class Reber(NamedTuple):
    """Strings of the embedded Reber grammar.

    Attributes:
        inputs: (T, B, 7), one 1 in each vector, 0 in padding: every symbol but the last.
        targets: (T, B), the symbol that follows; −1 in padding (``ignore_index=-1``).
        allowed: (T, B, 7), whether the grammar lets a symbol follow; all False in padding.
        lengths: (B,), how many steps of each sequence count.
        critical: (B,), the step, from 0, at which the second symbol is to be predicted again; always ``lengths − 2``.
    """

    inputs: Any
    targets: Any
    allowed: Any
    lengths: Any
    critical: Any


def embedded_reber(batch: int, rng: np.random.Generator | int | None = None, *, dtype: Any = None) -> Reber:
    """Strings of the embedded Reber grammar, padded to the longest.

    A string is B, then T or P, then a whole string of the Reber grammar (``ARCS``), then the same T or P again, then E. Most symbols
    can be predicted, as well as the grammar allows, from the last few; the last but one only from the second, some 9 steps before.

    Args:
        batch: how many strings.
        rng: a Generator, which the next batch goes on with, or a seed.
        dtype: of the inputs, float64 by default.

    Raises:
        ArgumentError: for no strings, or a dtype that is not a floating-point one.

    Source:
        Hochreiter & Schmidhuber 1997, "Long short-term memory", experiment 1, after Cleeremans, Servan-Schreiber & McClelland 1989 and
        Fahlman 1991; the grammar is Reber 1967's.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> drawn = tasks.embedded_reber(2, rng=0)
        >>> tasks.reber_strings(drawn)
        ['BPBPVPXTTTTVVEPE', 'BPBPVVEPE']
    """
    count, kind, random = whole("embedded_reber", "batch", batch, 1), floating("embedded_reber", dtype), generator(rng)
    strings, choices = zip(*(_drawn(random) for _ in range(count)), strict=True)
    lengths = np.array([len(string) - 1 for string in strings])
    shape = (int(lengths.max()), count)
    inputs, targets = np.zeros((*shape, len(SYMBOLS)), kind), np.full(shape, -1)
    allowed = np.zeros((*shape, len(SYMBOLS)), dtype=bool)
    for b, (string, ways) in enumerate(zip(strings, choices, strict=True)):
        numbers = [SYMBOLS.index(symbol) for symbol in string]
        inputs[: len(numbers) - 1, b] = one_hot(numbers[:-1], len(SYMBOLS), kind)
        targets[: len(numbers) - 1, b] = numbers[1:]
        for t, way in enumerate(ways[1:]):
            allowed[t, b, [SYMBOLS.index(symbol) for symbol in way]] = True
    return Reber(inputs, targets, allowed, lengths, lengths - 2)


def _drawn(random: np.random.Generator) -> tuple[str, list[str]]:
    """A string, and for each of its symbols those that could have stood there."""
    outer, string, ways, state = "TP"[random.integers(2)], "", list[str](), 0
    while state < len(ARCS):
        arcs = ARCS[state]
        symbol, state = arcs[random.integers(len(arcs))]
        string += symbol
        ways.append("".join(way for way, _ in arcs))
    return f"B{outer}{string}{outer}E", ["B", "TP", *ways, outer, "E"]


def reber_strings(drawn: Reber) -> list[str]:
    """The strings, written out."""
    strings = []
    for first, row, length in zip(drawn.inputs[0].argmax(axis=-1), drawn.targets.T, drawn.lengths, strict=True):
        strings.append("".join(SYMBOLS[k] for k in (first, *row[:length])))
    return strings


REBER_LENGTH = 12
"""The mean length of a string: 8 of the Reber grammar, from (I − P)⁻¹ of its arcs, and 4 around it."""


def embedded_reber_baseline() -> float:
    """The cross-entropy in nats a string of the best prediction that has forgotten the second symbol: 8 ln 2 = 5.545.

    A string has 6 choices between two symbols inside it on average and 1 before: 7 ln 2 = 4.852 nats that nobody can predict. Who has
    forgotten the second symbol pays ln 2 once more, at the critical step, and is right there in ½.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> round(tasks.embedded_reber_baseline(), 3)
        5.545
    """
    return 8 * math.log(2.0)
