"""What an embedding does, and what it saves against one-hot vectors: row 22 of the curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError
from ..nn.init import generator
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..tasks import english
from ..trace import trace
from ..transforms import grad
from .measurement import Claim, Measurement, experiment, holds


@dataclass(frozen=True, eq=False)
class EmbeddingReport(Measurement):
    """A lookup beside the product with one-hot vectors, on real text.

    Attributes:
        symbols, length, size: V, the number of words in the vocabulary; T, the length of the text; D, that of a vector.
        used: how many different words the text has; ``rows`` how many rows of the gradient are not 0, ``strangers`` how many of them
            belong to words that are not in the text.
        row_difference: the largest difference between a row of the gradient and the sum of the cotangents where its word stands.
        output_difference, gradient_difference: the largest differences between lookup and one-hot product.
        kind, one_hot_kind: of the backward edge into E.
        entries, one_hot_entries: how many numbers each has to hold as its input.
        products, one_hot_products: how many multiplications each makes on the way forward.
        count, row_norm: by word of the text, how often it stands there, and the norm of its row of the gradient.
    """

    symbols: int
    length: int
    size: int
    used: int
    rows: int
    strangers: int
    row_difference: float
    output_difference: float
    gradient_difference: float
    kind: str
    one_hot_kind: str
    entries: int
    one_hot_entries: int
    products: int
    one_hot_products: int
    count: Any
    row_norm: Any

    def table(self) -> Table:
        """Lookup and one-hot side by side."""
        rows = [
            ("numbers that the input holds", f"{self.entries:,}", f"{self.one_hot_entries:,}"),
            ("multiplications forward", f"{self.products:,}", f"{self.one_hot_products:,}"),
            ("backward edge into E", self.kind, self.one_hot_kind),
            ("output, largest difference", "–", number(self.output_difference)),
            ("gradient, largest difference", "–", number(self.gradient_difference)),
        ]
        caption = f"{self.rows} of {self.symbols} rows of the gradient are not 0; the text has {self.used} different words in {self.length}"
        return aligned(("", "lookup", "one-hot product"), rows, "an embedding and one-hot vectors", caption)

    def claims(self) -> tuple[Claim, ...]:
        """Only the rows of words that occurred move; the one-hot product is the same function; and it costs V times as much."""
        times = self.one_hot_entries / self.entries
        same = max(self.output_difference, self.gradient_difference)
        return (
            holds(
                "rows of the gradient",
                "only of words that occur",
                f"{self.rows} of {self.symbols}, {self.strangers} of others",
                self.strangers == 0 and self.rows == self.used,
                "no row of a word that does not occur, one of every word that does",
            ),
            holds(
                "a row of the gradient",
                "the sum over the word's places",
                self.row_difference,
                self.row_difference < 1e-12,
                "to 1e-12",
                source="chain rule",
            ),
            holds("lookup and one-hot product", "the same function", same, same < 1e-12, "outputs and gradients to 1e-12"),
            holds(
                "one-hot vectors",
                "wasteful",
                f"{number(times)} times the input, {self.one_hot_products:,} products for 0",
                times > 10,
                "> 10 times",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """How far each word's vector is moved, by how often it occurs."""
        order = np.argsort(-self.count, kind="stable")
        rank = np.arange(1, len(order) + 1)
        shown = (series("occurrences", rank, self.count[order]), series("norm of the row's gradient", rank, self.row_norm[order]))
        return (Chart("lines", "Words by how often they occur", "rank", "occurrences; norm", shown, "xy"),)


@experiment
def embedding(*, length: int = 200, size: int = 8, vocabulary: int = 1000, seed: int = 0) -> EmbeddingReport:
    """Claim (row 22): one-hot vectors are wasteful, learned embeddings are better: the same function, without the zeros.

    A stretch of Python's help topics, as words, is looked up in ``nn.Embedding`` and, beside it, multiplied as one-hot vectors with the
    same matrix. In the lookup no number is multiplied: its backward edge has the kind "route", and only rows of words that occur receive
    a gradient, each the sum over the word's places. That gradient is an array of E's shape, whose other rows are exactly 0.

    Args:
        length, size: T and D.
        vocabulary: V; the most frequent words have a row of their own, all others share the last.
        seed: of the place in the text, of E and of the loss.

    Raises:
        ArgumentError: if the text is shorter than ``length``, or there are fewer than two rows.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.embedding()
        >>> found.kind, found.one_hot_kind, found.rows == found.used, found.strangers
        ('route', 'matmul', True, 0)
    """
    words = english().lower().split()
    if vocabulary < 2 or not 1 <= length < len(words):
        raise ArgumentError(f"embedding: expected 1 to {len(words) - 1} words and at least 2 rows, got {length} and {vocabulary}")
    rng = generator(seed)
    names, counts = np.unique(words, return_counts=True)
    known = {str(names[place]): row for row, place in enumerate(np.argsort(-counts, kind="stable")[: vocabulary - 1])}
    start = int(rng.integers(len(words) - length))
    indices = np.array([known.get(word, vocabulary - 1) for word in words[start : start + length]])
    table, reads = nn.Embedding(vocabulary, size, rng=rng), rng.standard_normal((length, size))
    one_hot = np.eye(vocabulary)[indices]
    looked_up, multiplied = table(indices), one_hot @ table.weight
    gradients = [grad((vectors * reads).sum(), [table.weight])[0].value for vectors in (looked_up, multiplied)]
    kinds = [_kind_into(table.weight, (vectors * reads).sum()) for vectors in (looked_up, multiplied)]
    sums = np.zeros((vocabulary, size))
    for place, index in enumerate(indices):
        sums[index] += reads[place]
    occurring, count = np.unique(indices, return_counts=True)
    moved = np.flatnonzero(np.abs(gradients[0]).max(axis=1))
    return EmbeddingReport(
        symbols=vocabulary,
        length=length,
        size=size,
        used=len(occurring),
        rows=len(moved),
        strangers=len(set(moved.tolist()) - set(occurring.tolist())),
        row_difference=float(np.abs(gradients[0] - sums).max()),
        output_difference=float(np.abs(looked_up.value - multiplied.value).max()),
        gradient_difference=float(np.abs(gradients[0] - gradients[1]).max()),
        kind=kinds[0],
        one_hot_kind=kinds[1],
        entries=indices.size,
        one_hot_entries=one_hot.size,
        products=0,
        one_hot_products=one_hot.size * size,
        count=count,
        row_norm=np.linalg.norm(gradients[0][occurring], axis=1),
    )


def _kind_into(weight: Any, loss: Any) -> str:
    """The kind of the backward edge by which a gradient arrives at a leaf."""
    ledger = trace(loss, keep="norms")
    return next(step.kind for step in ledger.steps if step.operand is ledger.node(weight))
