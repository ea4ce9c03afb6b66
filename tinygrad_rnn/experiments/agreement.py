"""Who governs the verb, the subject or the nearest noun? Rows 8 and 23 of the curriculum, on subject–verb agreement with attractors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn, tasks
from ..errors import ArgumentError
from ..functional import bce_with_logits
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..tensor import Tensor, as_tensor, tensor
from ..transforms import grad, no_grad
from .measurement import Claim, Measurement, experiment, holds
from .statistics import Interval, mean_of
from .sweeps import sweep
from .training import train

SENTENCE = "The cat, which was sitting on the mat in the corner of the room, was sleeping."
"""The lecture's sentence; the verb to be agreed with is the second "was"."""

NETWORKS = ("RNN", "LSTM", "GRU", "attention")

LONG = 1000
"""After so many updates a run that has not learned the cat's verb counts as one that cannot."""


class Agreeing(nn.Module):
    """Words → vectors → a recurrent layer, or a Transformer block that looks back only → the logit of a plural verb at the end."""

    def __init__(self, network: str, hidden: int, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise ArgumentError(f"agreement: there is no network {network!r}; expected one of {', '.join(NETWORKS)}")
        self.embedding = nn.Embedding(len(tasks.AGREEMENT_WORDS), hidden, dtype=dtype, rng=rng)
        self.layer: Any
        if network == "attention":
            block = nn.TransformerBlock(hidden, 2, causal=True, dtype=dtype, rng=rng)
            self.layer = nn.Sequential(nn.PositionalEncoding(hidden), block, nn.LayerNorm(hidden, dtype=dtype))
        else:
            self.layer = getattr(nn, network)(hidden, hidden, dtype=dtype, rng=rng)
        self.attends = network == "attention"
        self.readout = nn.Linear(hidden, 1, dtype=dtype, rng=rng)

    def forward(self, words: Any) -> Any:
        """(T, B) word numbers → (B,) logits."""
        return self.judge(self.embedding(words))

    def judge(self, vectors: Any) -> Any:
        """(T, B, E) vectors of words → (B,) logits."""
        outputs = self.layer(vectors) if self.attends else self.layer(vectors)[0]
        return self.readout(outputs[-1])[:, 0]

    def pull(self, words: Any) -> Any:
        """‖∂ logit/∂ vector‖ of every word: (T, B)."""
        vectors: Tensor = tensor(as_tensor(self.embedding(words)).value, requires_grad=True)
        (gradient,) = grad(self.judge(vectors).sum(), [vectors])
        return np.linalg.norm(gradient.value.astype(float), axis=-1)


def _trained(
    model: Agreeing, rng: np.random.Generator, *, phrases: int, attraction: float, clause: bool, batch: int, updates: int, lr: float
) -> float:
    """Train on sentences of every length up to so many phrases; the error on 500 of the longest at the end."""

    def loss() -> Any:
        inside = clause and bool(rng.integers(2))
        drawn = tasks.agreement(int(rng.integers(int(inside), phrases + 1)), batch, rng, attraction=attraction, clause=inside)
        return bce_with_logits(model(drawn.words), drawn.target)

    held_out = tasks.agreement(phrases, 500, 1_000_000, attraction=attraction, clause=clause)

    def error() -> float:
        with no_grad():
            return float(((model(held_out.words).value > 0) != (held_out.target == 1)).mean())

    return train(model, loss, error, rng=rng, updates=updates, lr=lr, every=max(1, updates // 4), shown=False).best


def attractors_cell(
    network: str, seed: int, *, phrases: int, attraction: float, hidden: int, batch: int, updates: int, lr: float
) -> dict[str, Any]:
    """One cell of row 8: accuracy by number of attractors, and the gradient at subject and nearest noun, untrained and trained."""
    rng = np.random.default_rng(seed)
    model = Agreeing(network, hidden, rng)
    drawn = tasks.agreement(phrases, 400 * 2**phrases, 2_000_000)

    def pulls() -> tuple[float, float]:
        norms = model.pull(drawn.words[:, :100])
        total = norms.sum(axis=0)
        return tuple(float((norms[drawn.nouns[place]] / np.where(total > 0, total, 1.0)).mean()) for place in (0, -1))  # type: ignore[return-value]

    before = pulls()
    error = _trained(model, rng, phrases=phrases, attraction=attraction, clause=False, batch=batch, updates=updates, lr=lr)
    model.eval()
    accuracy = []
    with no_grad():
        for count in range(phrases + 1):
            chosen = np.flatnonzero(drawn.attractors == count)[:400]
            accuracy.append(float(((model(drawn.words[:, chosen]).value > 0) == (drawn.target[chosen] == 1)).mean()))
    return {"accuracy": accuracy, "error": error, "before": before, "after": pulls()}


@dataclass(frozen=True, eq=False)
class Attractors(Measurement):
    """How often the verb's number is right, and where its gradient goes.

    Attributes:
        network: the names.
        attractors: 0 … m, how many of the m nouns between subject and verb have the other number.
        accuracy: (networks, seeds, m + 1); ``mean``, ``low``, ``high`` over the seeds with Student's 95 % interval.
        subject, nearest: (networks, seeds, 2), the share of ‖∂ logit/∂ word‖ that falls on each, untrained and trained.
        baseline: what the rule "the nearest noun" gives at each number: 1 − k/m.
    """

    network: tuple[str, ...]
    attractors: Any
    accuracy: Any
    mean: Any
    low: Any
    high: Any
    subject: Any
    nearest: Any
    baseline: Any

    def table(self) -> Table:
        """Accuracy by number of attractors; subject/nearest noun, before and after training."""
        rows = []
        for k, name in enumerate(self.network):
            shares = (f"{number(self.subject[k, :, when].mean())} / {number(self.nearest[k, :, when].mean())}" for when in (0, 1))
            rows.append((name, *(f"{share:.1%}" for share in self.mean[k]), *shares))
        rows.append(("the nearest noun", *(f"{share:.1%}" for share in self.baseline), "", ""))
        columns = ("right, by attractors", *map(str, self.attractors), "subject / nearest, untrained", "trained")
        caption = "the subject is always the first noun, so a network that holds on to that one makes no mistakes"
        return aligned(columns, rows, f"agreement over {len(self.attractors) - 1} nouns, {self.accuracy.shape[1]} seeds", caption)

    def claims(self) -> tuple[Claim, ...]:
        """Recency in the gradient and in the mistakes, for each recurrent network; it is not said of attention."""
        found = []
        for k, name in enumerate(self.network):
            if name == "attention":
                continue
            for when, stage in enumerate(("untrained", "trained")):
                apart = mean_of(np.log10(self.nearest[k, :, when] / np.maximum(self.subject[k, :, when], 1e-300)))
                found.append(
                    holds(
                        f"{name}, {stage}: the verb's gradient",
                        "the nearest noun gets more than the subject",
                        f"log₁₀(nearest/subject) = {apart}",
                        _sign(apart),
                        "agrees if the 95 % interval of the mean logarithm lies above 0, differs if below",
                    )
                )
            fall = mean_of(self.accuracy[k, :, 0] - self.accuracy[k, :, -1])
            found.append(
                holds(
                    f"{name}, trained: share of right verbs without attractors, minus that with {self.attractors[-1]}",
                    "positive: more attractors, more mistakes",
                    f"{fall.estimate:+.1%} [{fall.low:+.1%}, {fall.high:+.1%}]",
                    True if fall.low > 0 else False if fall.high < 0.01 else None,
                    "agrees if the 95 % interval of the difference (points) lies above 0, differs if it lies below 1",
                    source="Linzen, Dupoux & Goldberg 2016",
                )
            )
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """Accuracy by attractors, and both shares of the gradient."""
        lines = [series(n, self.attractors, self.mean[k], self.low[k], self.high[k]) for k, n in enumerate(self.network)]
        lines.append(series("the nearest noun", self.attractors, self.baseline))
        bars = [
            series(f"{who}, {stage}", self.network, shares[:, :, when].mean(axis=1))
            for who, shares in (("subject", self.subject), ("nearest noun", self.nearest))
            for when, stage in enumerate(("untrained", "trained"))
        ]
        return (
            Chart("lines", "the verb's number", "attractors", "share of right answers", tuple(lines)),
            Chart("bars", "where the verb's gradient goes", "", "share of ‖∂ logit/∂ word‖", tuple(bars)),
        )


def _sign(interval: Interval) -> bool | None:
    """True above 0, False below, None where 0 is inside."""
    return True if interval.low > 0 else False if interval.high < 0 else None


@experiment
def attractors(
    network: Sequence[str] = ("RNN", "LSTM", "GRU"),
    *,
    phrases: int = 4,
    attraction: float = 0.2,
    hidden: int = 16,
    batch: int = 32,
    updates: int = 80,
    lr: float = 5e-3,
    seeds: int = 3,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Attractors:
    """Claim (row 8): sequential recency beats syntactic recency: "the writer of the books are".

    Networks learn the number of a verb from sentences in which the nouns between it and its subject mostly agree with the subject, as in
    ordinary text, so that the nearest noun is right in 1 − p of them. They are tested with 0 … m attractors. These sentences are simpler
    than English: the subject is always the first noun, and of a kind of its own (living beings), so no grammar is needed to find it.

    Args:
        network: of "RNN", "LSTM", "GRU" and "attention".
        phrases: m, the number of nouns between; in training 0 … m.
        attraction: p, the probability that one of them is an attractor, in training.
        hidden, batch, updates, lr: of the training runs; vectors of words have as many entries as there are units.
        seeds: how many runs of each.
        executor, workers, path: of the sweep; with a path, a run that was interrupted goes on.

    Raises:
        ArgumentError: for a network that does not exist, or if a cell failed.

    Source:
        The lecture, after Linzen, Dupoux & Goldberg 2016.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from tinygrad_rnn import experiments
        >>> with ThreadPoolExecutor(1) as here:  # in this process; by default in others
        ...     found = experiments.attractors(("RNN",), phrases=4, updates=1, seeds=1, executor=here)
        >>> bool(found.nearest[0, 0, 0] > 100 * found.subject[0, 0, 0])  # untrained
        True
    """
    fixed = {"phrases": phrases, "attraction": attraction, "hidden": hidden, "batch": batch, "updates": updates, "lr": lr}
    grid = [{"network": name, "seed": seed, **fixed} for seed in range(seeds) for name in network]
    values = sweep(attractors_cell, grid, executor, workers=workers, path=path, label="row 8").values()
    by_network = [values[k :: len(network)] for k in range(len(network))]
    accuracy = np.array([[value["accuracy"] for value in row] for row in by_network])
    intervals = np.array([[mean_of(column) for column in row.T] for row in accuracy])
    shares = np.array([[[value["before"], value["after"]] for value in row] for row in by_network])  # (network, seed, when, who)
    return Attractors(
        network=tuple(network),
        attractors=np.arange(phrases + 1),
        accuracy=accuracy,
        mean=intervals[..., 0],
        low=intervals[..., 1],
        high=intervals[..., 2],
        subject=shares[..., 0],
        nearest=shares[..., 1],
        baseline=1.0 - np.arange(phrases + 1) / phrases,
    )


# -- 23: the cat ----------------------------------------------------------------------------------------------------------------


def cat_cell(network: str, seed: int, *, hidden: int, batch: int, updates: int, lr: float) -> dict[str, Any]:
    """One cell of row 23: the gradient at every word of the sentence, untrained and trained, and whether the verb is right."""
    rng = np.random.default_rng(seed)
    model = Agreeing(network, hidden, rng)
    words = tasks.numbered(SENTENCE)[:-2]  # up to the second "was", which is what they predict
    plural = tasks.numbered(SENTENCE.replace("cat,", "cats,").replace("which was", "which were"))[:-2]
    before = model.pull(words[:, None])[:, 0]
    error = _trained(model, rng, phrases=3, attraction=0.5, clause=True, batch=batch, updates=updates, lr=lr)
    with no_grad():
        logits = model(np.stack([words, plural], axis=1)).value
    return {"before": before, "after": model.pull(words[:, None])[:, 0], "error": error, "right": [logits[0] < 0, logits[1] > 0]}


@dataclass(frozen=True, eq=False)
class TheCat(Measurement):
    """The gradient from the second "was" back to every word.

    Attributes:
        words: the words before it, commas too.
        network: the names.
        untrained, trained: (networks, words), ‖∂ logit/∂ word‖ as a share of the sum over the words; means over the seeds.
        error: (networks, seeds), the share of wrong verbs in unseen sentences of this form.
        right: (networks,), in which share of the seeds both "was" and, for "The cats, which were …", "were" is given.
    """

    words: tuple[str, ...]
    network: tuple[str, ...]
    untrained: Any
    trained: Any
    error: Any
    right: Any

    def table(self) -> Table:
        """One row per word, two columns per network."""
        rows = []
        for t, word in enumerate(self.words):
            pairs = ((number(self.untrained[k, t], 2), number(self.trained[k, t], 2)) for k in range(len(self.network)))
            rows.append((word, *(cell for pair in pairs for cell in pair)))
        columns = ("word", *(text for name in self.network for text in (name, "trained")))
        errors = ", ".join(f"{name} {number(float(row.mean()))}" for name, row in zip(self.network, self.error, strict=True))
        title = "share of the gradient of the second “was” that falls on each word"
        return aligned(columns, rows, title, f"share of wrong verbs after training: {errors}")

    def claims(self) -> tuple[Claim, ...]:
        """What reaches the cat, against what reaches the nearest noun."""
        cat, room, relay = self.words.index("cat"), self.words.index("room"), self.words.index("was")
        found = []
        for k, name in enumerate(self.network):
            one, other = self.untrained[k, cat], self.untrained[k, room]
            published = "no word is farther than another" if name == "attention" else "the far subject gets less than the near noun"
            ratio = float(one / max(other, 1e-300))
            true = 1 / 3 < ratio < 3 if name == "attention" else ratio < 1
            rule = "attention: agrees if the two shares are within a factor of 3; otherwise if cat/room < 1"
            found.append(holds(f"{name}, untrained: cat/room", published, number(ratio), true, rule))
            subject = self.trained[k, [cat, relay]].sum() > self.trained[k, room]
            told = None if self.error[k].mean() > 0.05 else bool(subject == (name == "attention"))
            published = (
                "the subject gets more than the near noun" if name == "attention" else "still, the near noun gets more than the subject"
            )
            text = (
                f"cat {number(self.trained[k, cat])}, the first was {number(self.trained[k, relay])}, room {number(self.trained[k, room])}"
            )
            text += f"; {self.error[k].mean():.1%} of the verbs are wrong"
            rule = "the subject is the cat and the first verb together; not told where more than 5 % of the verbs are wrong"
            found.append(holds(f"{name}, trained on agreement", published, text, told, rule))
            if name == "RNN":
                wrong, enough = float(self.error[k].mean()), self.settings.get("updates", 0) >= LONG
                text = f"{wrong:.1%} of the verbs are wrong in unseen sentences of this form"
                learned = False if wrong < 0.05 else True if wrong > 0.25 and enough else None
                rule = f"differs if less than 5 % are wrong; agrees if more than 25 % are, after {LONG:,} updates or more"
                found.append(holds("RNN, trained on agreement", "the model can't learn this dependency", text, learned, rule))
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """Shares by word, untrained and trained."""
        named = [f"{t} {word}" for t, word in enumerate(self.words, 1)]
        return tuple(
            Chart(
                "lines",
                f"gradient of the second “was”, {stage}",
                "word",
                "share of ‖∂ logit/∂ word‖",
                tuple(series(name, named, shares[k]) for k, name in enumerate(self.network)),
                "y",
            )
            for stage, shares in (("untrained", self.untrained), ("trained", self.trained))
        )


@experiment
def the_cat(
    network: Sequence[str] = NETWORKS,
    *,
    hidden: int = 16,
    batch: int = 32,
    updates: int = 60,
    lr: float = 5e-3,
    seeds: int = 2,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> TheCat:
    """Claim (row 23): in "The cat, which was sitting on the mat in the corner of the room, was sleeping." the verb is far from its subject.

    Measured is the gradient of the answer "was or were?" at the second verb with respect to the vector of every word before it, in
    networks that have learned nothing and in the same ones after training on agreement (nouns between agree with the subject in ½;
    sentences with and without a relative clause, whose own verb agrees too and is half as far away).

    Args:
        network: of "RNN", "LSTM", "GRU" and "attention" (a Transformer block that looks back only).
        hidden, batch, updates, lr: of the training runs.
        seeds: how many runs of each.
        executor, workers, path: of the sweep; with a path, a run that was interrupted goes on.

    Raises:
        ArgumentError: for a network that does not exist, or if a cell failed.

    Source:
        The lecture.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from tinygrad_rnn import experiments
        >>> with ThreadPoolExecutor(1) as here:  # in this process; by default in others
        ...     found = experiments.the_cat(("RNN", "attention"), updates=1, seeds=1, executor=here)
        >>> found.words[1], bool(found.untrained[0, 1] < 1e-3 < found.untrained[1, 1])
        ('cat', True)
    """
    fixed = {"hidden": hidden, "batch": batch, "updates": updates, "lr": lr}
    grid = [{"network": name, "seed": seed, **fixed} for seed in range(seeds) for name in network]
    values = sweep(cat_cell, grid, executor, workers=workers, path=path, label="row 23").values()
    by_network = [values[k :: len(network)] for k in range(len(network))]

    def shares(name: str) -> Any:
        norms = np.array([[value[name] for value in row] for row in by_network])
        return (norms / norms.sum(axis=-1, keepdims=True)).mean(axis=1)

    return TheCat(
        words=tuple(tasks.spelled(tasks.numbered(SENTENCE)[:-2, None])[0].split()),
        network=tuple(network),
        untrained=shares("before"),
        trained=shares("after"),
        error=np.array([[value["error"] for value in row] for row in by_network]),
        right=np.array([np.mean([all(value["right"]) for value in row]) for row in by_network]),
    )
