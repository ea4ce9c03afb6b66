"""Is this review good or bad? Row 18 of the curriculum: recurrent networks in one and two directions, and a bag of words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .. import nn, ops, tasks
from ..errors import ArgumentError
from ..functional import bce_with_logits
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..tasks import Review
from ..tensor import Tensor, as_tensor, tensor
from ..transforms import grad, no_grad
from .measurement import Claim, Measurement, experiment, holds
from .statistics import mean_of
from .sweeps import sweep
from .training import train

BAG = "bag of words"
NETWORKS: dict[str, tuple[bool, str]] = {
    "bidirectional, max": (True, "max"),
    "one direction, max": (False, "max"),
    "one direction, last state": (False, "last"),
}
"""The recurrent classifiers: whether there are two directions, and what of the hidden states is read."""

SHOWN = (
    "The plot is thin, but the actors are so good that I did not want it to end.",
    "It is not a bad film, and it is not a good one: it is dull.",
)
"""Sentences whose gradient is shown word by word."""

REACH = 20
"""Gradients by distance are those of sentences with so many words or more, over their last ones."""

STRENGTHS = (1.0, 1.5, 2.0, 2.5)
"""Where |rating| is divided, to see where the mistakes are: a mean near 0 is a neutral sentence, or one on which people differ."""


class Bag(nn.Module):
    """The logit is a bias and a weight for each word that occurs: logistic regression."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.readout = nn.Linear(size, 1, dtype=np.float32, rng=0)
        self.readout.weight.value = np.zeros((1, size))

    def forward(self, words: Any, lengths: Any) -> Any:
        """(T, B) word numbers → (B,) logits."""
        present = np.zeros((words.shape[1], self.readout.weight.shape[1]), np.float32)
        step, row = np.nonzero(np.arange(len(words))[:, None] < lengths)
        present[row, words[step, row]] = 1.0
        return self.readout(present)[:, 0]


class Classifier(nn.Module):
    """Words → vectors → a recurrent layer → its hidden states, the elementwise maximum or the last → the logit of "positive".

    With two directions each has half the units, so that both networks read out as many.
    """

    def __init__(self, size: int, cell: str, hidden: int, embedding: int, dropout: float, network: str, rng: np.random.Generator) -> None:
        super().__init__()
        both, self.read = NETWORKS[network]
        self.embedding = nn.Embedding(size, embedding, dtype=np.float32, rng=rng)
        self.embedding.weight.value = 0.3 * self.embedding.weight.value
        units = hidden // 2 if both else hidden
        self.layer: Any = getattr(nn, cell)(embedding, units, bidirectional=both, dtype=np.float32, rng=rng)
        self.dropout = nn.Dropout(dropout, rng=rng)
        self.readout = nn.Linear(hidden, 1, dtype=np.float32, rng=rng)

    def forward(self, words: Any, lengths: Any) -> Any:
        """(T, B) word numbers → (B,) logits."""
        return self.judge(self.embedding(words), lengths)

    def judge(self, vectors: Any, lengths: Any) -> Any:
        """(T, B, E) vectors of words → (B,) logits."""
        outputs, state = self.layer(self.dropout(vectors), None, lengths)
        if self.read == "max":
            counts = np.arange(outputs.shape[0])[:, None] < np.asarray(lengths)
            pooled = ops.where(counts[:, :, None], outputs, np.float32(-2.0)).max(axis=0)  # a hidden state is above −1
        else:
            pooled = state.hidden[0]
        return self.readout(self.dropout(pooled))[:, 0]


class Split:
    """The rated sentences in a random order: a tenth to test, a tenth to validate, the others to train, as numbers of words.

    Sentences with a rating of exactly 0 are left out. Words that occur once in the training part are unknown, number 0.
    """

    def __init__(self, reviews: Sequence[Review], rng: np.random.Generator) -> None:
        rated = [review for review in reviews if review.rating != 0 and tasks.words(review.text)]
        order = rng.permutation(len(rated))
        tenth = len(rated) // 10
        if tenth < 2:
            raise ArgumentError(f"sentiment: {len(rated)} rated sentences are too few; expected at least 20")
        symbols = [tasks.words(rated[k].text) for k in order]
        rating = np.array([rated[k].rating for k in order])
        self.vocabulary = tasks.Vocabulary((word for sentence in symbols[2 * tenth :] for word in sentence), least=2)
        numbers = [self.vocabulary.numbers(sentence) for sentence in symbols]
        parts = (slice(0, tenth), slice(tenth, 2 * tenth), slice(2 * tenth, None))
        self.test, self.validation, self.training = (_by_length(numbers[part], rating[part]) for part in parts)


def _by_length(numbers: list[Any], rating: Any) -> tuple[list[Any], Any]:
    """Short sentences first, so that a batch of neighbours needs little padding."""
    order = np.argsort([len(sentence) for sentence in numbers], kind="stable")
    return [numbers[k] for k in order], rating[order]


def padded(sentences: Sequence[Any]) -> tuple[Any, Any]:
    """Sentences as (T, B) numbers, padded with 0, and their lengths (B,)."""
    lengths = np.array([len(sentence) for sentence in sentences])
    words = np.zeros((lengths.max(), len(sentences)), dtype=np.intp)
    for b, sentence in enumerate(sentences):
        words[: len(sentence), b] = sentence
    return words, lengths


def classifier_cell(
    network: str,
    seed: int,
    *,
    cell: str,
    hidden: int,
    embedding: int,
    dropout: float,
    batch: int,
    updates: int,
    every: int,
    patience: int,
    lr: float,
    sentences: int | None,
) -> dict[str, Any]:
    """One cell of the sweep; the reviews are read from the cache of the machine on which it runs."""
    options: dict[str, Any] = {"cell": cell, "hidden": hidden, "embedding": embedding, "dropout": dropout}
    reviews = tasks.movie_reviews(shown=False)
    if sentences is not None:
        reviews = reviews[:: max(1, len(reviews) // sentences)][:sentences]  # the good ones stand first
    return judged(reviews, network, seed, **options, batch=batch, updates=updates, every=every, patience=patience, lr=lr)


def judged(
    reviews: Sequence[Review],
    network: str,
    seed: int,
    *,
    cell: str,
    hidden: int,
    embedding: int,
    dropout: float,
    batch: int,
    updates: int,
    every: int,
    patience: int,
    lr: float,
) -> dict[str, Any]:
    """Train one classifier on one split, stop early by its validation part, and test it."""
    rng = np.random.default_rng(seed)
    split = Split(reviews, rng)
    size = len(split.vocabulary)
    model: Any = Bag(size) if network == BAG else Classifier(size, cell, hidden, embedding, dropout, network, rng)
    numbers, rating = split.training
    agreed = (1.0 / (1.0 + np.exp(-rating))).astype(np.float32)  # a rating near 0 is no clear case

    def loss() -> Any:
        first = int(rng.integers(max(1, len(numbers) - batch + 1)))
        return bce_with_logits(model(*padded(numbers[first : first + batch])), agreed[first : first + batch])

    def answers(part: tuple[list[Any], Any]) -> Any:
        with no_grad():
            return np.concatenate([model(*padded(part[0][k : k + 256])).value > 0 for k in range(0, len(part[0]), 256)])

    def error() -> float:
        return float(np.mean(answers(split.validation) != (split.validation[1] > 0)))

    rate = 5 * lr if network == BAG else lr
    run = train(model, loss, error, rng=rng, updates=updates, lr=rate, every=every, patience=patience, shown=False)
    positive, truth = answers(split.test), split.test[1] > 0
    counts, by_strength = np.zeros((2, 2), dtype=int), np.zeros((len(STRENGTHS) + 1, 2), dtype=int)
    np.add.at(counts, (truth.astype(int), positive.astype(int)), 1)
    np.add.at(by_strength, (np.digitize(np.abs(split.test[1]), STRENGTHS), (positive == truth).astype(int)), 1)
    found = {"accuracy": float(np.mean(positive == truth)), "confusion": counts, "by_strength": by_strength}
    found |= {"updates": run.updates, "best": run.best_update}
    if network != BAG:
        long = [sentence for sentence in split.test[0] if len(sentence) >= REACH][:200]
        shares = [_shares(model, sentence)[::-1][:REACH] for sentence in long]
        found["by_distance"] = np.mean(shares, axis=0) if shares else np.full(REACH, np.nan)
        found["shown"] = [_shares(model, split.vocabulary.numbers(tasks.words(sentence))) for sentence in SHOWN]
    return found


def _shares(model: Classifier, sentence: Any) -> Any:
    """‖∂ logit/∂ vector‖ of each word, as a share of their sum."""
    words, lengths = padded([sentence])
    vectors: Tensor = tensor(as_tensor(model.embedding(words)).value, requires_grad=True)
    (gradient,) = grad(model.judge(vectors, lengths).sum(), [vectors])
    norms = np.linalg.norm(gradient.value[:, 0].astype(float), axis=-1)
    return norms / max(norms.sum(), np.finfo(float).tiny)


@dataclass(frozen=True, eq=False)
class Sentiment(Measurement):
    """How often each classifier is right about sentences that it has not seen.

    Attributes:
        network: their names; the last is the bag of words.
        accuracy: (networks, seeds), each seed with a split of its own.
        mean, low, high: over the seeds, with Student's 95 % interval.
        confusion: (networks, 2, 2), sentences by truth (negative, positive) and answer, added over the seeds.
        by_strength: (networks, 5, 2), wrong and right answers by |rating|, divided at ``STRENGTHS``, added over the seeds.
        by_distance: (recurrent networks, REACH), which share of ‖∂ logit/∂ word‖ falls on the last word, the one before, …
        words, shares: the words of the sentences that are shown, and for each recurrent network their shares, means over the seeds.
    """

    network: tuple[str, ...]
    accuracy: Any
    mean: Any
    low: Any
    high: Any
    confusion: Any
    by_strength: Any
    by_distance: Any
    words: tuple[tuple[str, ...], ...]
    shares: Any

    def difference(self, one: str, other: str) -> Any:
        """The mean difference of two accuracies over the splits, which both have in common, with Student's interval."""
        rows = [self.accuracy[self.network.index(name)] for name in (one, other)]
        return mean_of(rows[0] - rows[1])

    def table(self) -> Table:
        """One row per classifier."""
        rows = []
        for k, name in enumerate(self.network):
            (negative, false), (missed, positive) = self.confusion[k]
            apart = "–" if name == BAG else "{:+.1%} [{:+.1%}, {:+.1%}]".format(*self.difference(name, BAG))
            interval = f"[{self.low[k]:.1%}, {self.high[k]:.1%}]"
            rows.append(
                (name, f"{self.mean[k]:.1%}", interval, apart, f"{missed / (missed + positive):.1%}", f"{false / (false + negative):.1%}")
            )
        columns = ("classifier", "accuracy", "95 %", "above the bag", "good called bad", "bad called good")
        wrong, (weak, *_, strong) = self.by_strength[..., 0].sum(axis=0), self.by_strength.sum(axis=(0, 2))
        caption = (
            f"wrong where |mean rating| < {STRENGTHS[0]:g}: {wrong[0] / max(weak, 1):.0%}, where it is {STRENGTHS[-1]:g} or more: "
            f"{wrong[-1] / max(strong, 1):.0%}, all classifiers together"
        )
        return aligned(columns, rows, f"movie-review sentences, {self.accuracy.shape[1]} splits", caption)

    def claims(self) -> tuple[Claim, ...]:
        """The lecture's classifier against its rivals."""
        first = self.network[0]
        rule = "agrees if the 95 % interval of the paired difference (points) lies above 0, differs if below; else it cannot be told"
        found = []
        for rival in self.network[1:]:
            apart = self.difference(first, rival)
            verdict = True if apart.low > 0 else False if apart.high < 0 else None
            text = "{:+.1%} [{:+.1%}, {:+.1%}]".format(*apart)
            found.append(holds(f"{first}, against {rival}", "more accurate", text, verdict, rule))
        last = self.by_distance[self.network.index("one direction, last state")]
        ratio = {name: float(row[REACH // 2 :].sum() / row.sum()) for name, row in zip(self.network, self.by_distance, strict=False)}
        text = ", ".join(f"{name}: {number(share)}" for name, share in ratio.items())
        flat = ratio[first] > ratio["one direction, last state"] if np.isfinite(last).all() else None
        found.append(
            holds(
                f"share of the gradient on words {REACH // 2 + 1} to {REACH} from the end",
                "elementwise max reaches every word in one step, the last state only through all that follow",
                text,
                flat,
                "agrees if it is larger with the maximum",
            )
        )
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """Accuracy, gradient by distance, and gradient by word."""
        accuracy = tuple(
            series(n, ("accuracy",), a[None], lo[None], hi[None])
            for n, a, lo, hi in zip(self.network, self.mean, self.low, self.high, strict=True)
        )
        names = (f"< {STRENGTHS[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(STRENGTHS)), f"≥ {STRENGTHS[-1]:g}")
        wrong = self.by_strength[..., 0] / np.maximum(self.by_strength.sum(axis=-1), 1)
        distance = tuple(series(name, np.arange(1, REACH + 1), row) for name, row in zip(self.network, self.by_distance, strict=False))
        strength = tuple(series(name, names, row) for name, row in zip(self.network, wrong, strict=True))
        shown = [
            Chart(
                "bars",
                "gradient of the logit by word",
                "word",
                "share of ‖∂ logit/∂ word‖",
                tuple(
                    series(n, [f"{k} {w}" for k, w in enumerate(sentence, 1)], row)
                    for n, row in zip(self.network, self.shares[s], strict=False)
                ),
            )
            for s, sentence in enumerate(self.words)
        ]
        return (
            Chart("bars", "accuracy on unseen sentences", "", "accuracy", accuracy),
            Chart("bars", "where the mistakes are", "|mean rating|", "share of wrong answers", strength),
            Chart("lines", "gradient by distance from the end", "words from the end", "share of ‖∂ logit/∂ word‖", distance, "y"),
            *shown,
        )


@experiment
def sentiment(
    *,
    cell: str = "GRU",
    hidden: int = 16,
    embedding: int = 16,
    dropout: float = 0.3,
    batch: int = 32,
    updates: int = 60,
    every: int = 30,
    patience: int = 8,
    lr: float = 4e-3,
    sentences: int | None = 1000,
    seeds: int = 2,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Sentiment:
    """Claim (row 18): a bidirectional RNN with an elementwise maximum classifies sentiment well, on real sentences of movie reviews.

    Beside it stand the same network in one direction, the one that reads the last state only, and a bag of words (logistic regression
    on which words occur), all trained alike from the same splits: the target of a sentence is σ(its mean rating), an answer is right if it
    has the rating's sign, training stops when the validation part has gained nothing for a while.

    Args:
        cell: "GRU", "LSTM" or "RNN".
        hidden: units that are read out, in all directions together; even.
        embedding, dropout, batch: E, the probability of dropout on vectors and on what is read out, B.
        updates, every, patience: at most so many updates, a measurement after so many, and the end after so many without gain.
        lr: Adam's learning rate; the bag of words, whose loss is convex, learns five times as fast.
        sentences: so many of the reviews, taken evenly; None: all.
        seeds: how many splits, each with weights of its own.
        executor, workers, path: of the sweep; with a path, a run that was interrupted goes on.

    Raises:
        ArgumentError: for an odd number of units, or if a cell failed.
        StorageError: if the reviews cannot be fetched, see :func:`tinygrad_rnn.tasks.movie_reviews`.

    Source:
        The lecture; data: Hutto & Gilbert 2014, Pang & Lee 2005.
    """
    if hidden < 2 or hidden % 2:
        raise ArgumentError(f"sentiment: hidden must be even and at least 2, half for each direction, got {hidden}")
    tasks.movie_reviews()  # here, so that the workers find it
    options = {"cell": cell, "hidden": hidden, "embedding": embedding, "dropout": dropout, "batch": batch, "updates": updates}
    options |= {"every": every, "patience": patience, "lr": lr, "sentences": sentences}
    names = (*NETWORKS, BAG)
    grid = [{"network": name, "seed": seed, **options} for seed in range(seeds) for name in names]
    values = sweep(classifier_cell, grid, executor, workers=workers, path=path, label="row 18").values()
    by_network = [values[k :: len(names)] for k in range(len(names))]
    accuracy = np.array([[value["accuracy"] for value in row] for row in by_network])
    intervals = np.array([mean_of(row) for row in accuracy])
    recurrent = by_network[:-1]
    return Sentiment(
        network=names,
        accuracy=accuracy,
        mean=intervals[:, 0],
        low=intervals[:, 1],
        high=intervals[:, 2],
        confusion=np.array([[value["confusion"] for value in row] for row in by_network]).sum(axis=1),
        by_strength=np.array([[value["by_strength"] for value in row] for row in by_network]).sum(axis=1),
        by_distance=np.array([np.mean([np.array(value["by_distance"], dtype=float) for value in row], axis=0) for row in recurrent]),
        words=tuple(tuple(tasks.words(sentence)) for sentence in SHOWN),
        shares=tuple(np.array([np.mean([value["shown"][s] for value in row], axis=0) for row in recurrent]) for s in range(len(SHOWN))),
    )
