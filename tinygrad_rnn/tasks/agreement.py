"""Subject–verb agreement: "the writer of the books near the house is", not "are", whatever stands between."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError
from ..nn.init import generator
from .arguments import probability, whole

NOUNS = ("cat", "dog", "writer", "teacher", "doctor", "singer", "book", "table", "mat", "corner", "room", "house", "garden", "window")
"""Singular; the plural of each ends in s."""

SUBJECTS = 6
"""So many of the nouns, the first, are living beings and may be subjects."""

PREPOSITIONS = ("of", "on", "in", "near", "behind")
PARTICIPLES = ("sitting", "sleeping", "waiting", "standing")

WORDS = (
    *("the", ",", "which", "was", "were"),
    *NOUNS,
    *(f"{noun}s" for noun in NOUNS),
    *PREPOSITIONS,
    *PARTICIPLES,
)
"""The vocabulary; a word's number is its place here."""


class Agreement(NamedTuple):
    """Beginnings of sentences, up to the verb.

    Attributes:
        words: (T, B), numbers of words in ``WORDS``.
        target: (B,), the verb's number: 0 singular ("was"), 1 plural ("were").
        nouns: (m + 1,), the steps, from 0, of the subject and of the m nouns between it and the verb.
        plural: (m + 1, B), whether each of them is plural.
        attractors: (B,), how many of the m nouns differ in number from the subject.
    """

    words: Any
    target: Any
    nouns: Any
    plural: Any
    attractors: Any


def agreement(
    phrases: int, batch: int, rng: np.random.Generator | int | None = None, *, attraction: float = 0.5, clause: bool = False
) -> Agreement:
    """Sentences whose verb agrees with a subject that stands far back, with other nouns between the two.

        the writer of the books near the table …                                                 phrases = 2
        the cat , which was sitting on the mat in the corner of the room , …                     phrases = 3, clause = True

    The subject is singular or plural with ½. Each noun between is, independently, of the other number with the probability
    ``attraction``: such a noun is an attractor. With a clause, its own verb agrees with the subject too.

    Args:
        phrases: m, how many prepositional phrases stand between subject and verb; at least 0 (1 with a clause).
        batch: how many sentences.
        rng: a Generator, which the next batch goes on with, or a seed.
        attraction: p, from 0 to 1. Small, and who follows the nearest noun is nearly always right, as in ordinary text.
        clause: whether the phrases stand in a relative clause.

    Shapes:
        words (T, B) with T = 2 + 3 m, or 6 + 3 m with a clause; see :class:`Agreement`.

    Raises:
        ArgumentError: for a number outside its range.

    Source:
        Linzen, Dupoux & Goldberg 2016, "Assessing the ability of LSTMs to learn syntax-sensitive dependencies", who count attractors in
        sentences of Wikipedia; the term is Bock & Miller 1991's. Here the sentences are made, so that their number can be chosen.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> drawn = tasks.agreement(2, 2, rng=0)
        >>> for sentence, verb in zip(tasks.spelled(drawn.words), drawn.target):
        ...     print(sentence, ("was", "were")[verb])
        the teachers near the room in the window were
        the singers in the room behind the houses were
    """
    count, size = whole("agreement", "phrases", phrases, int(clause)), whole("agreement", "batch", batch, 1)
    random, share = generator(rng), probability("agreement", "attraction", attraction)
    target = random.integers(2, size=size)
    differs = random.random((count, size)) < share
    plural = np.concatenate([target[None] == 1, differs != (target == 1)])
    subject, others = random.integers(SUBJECTS, size=size), random.integers(SUBJECTS, len(NOUNS), (count, size))
    noun = _of(NOUNS[0]) + np.concatenate([subject[None], others]) + len(NOUNS) * plural
    preposition = _of(PREPOSITIONS[0]) + random.integers(len(PREPOSITIONS), size=(count, size))
    rows = [np.full(size, _of("the")), noun[0]]
    if clause:
        verb, doing = _of("was") + target, _of(PARTICIPLES[0]) + random.integers(len(PARTICIPLES), size=size)
        rows += [np.full(size, _of(",")), np.full(size, _of("which")), verb, doing]
    places = [1]
    for m in range(count):
        rows += [preposition[m], np.full(size, _of("the")), noun[m + 1]]
        places.append(len(rows) - 1)
    if clause:
        rows.append(np.full(size, _of(",")))
    return Agreement(np.stack(rows), target, np.array(places), plural, differs.sum(axis=0))


def _of(word: str) -> int:
    return WORDS.index(word)


def numbered(sentence: str) -> Any:
    """The numbers of a sentence's words, (T,); commas are words, capitals and the full stop do not count.

    Raises:
        ArgumentError: for a word that is not in ``WORDS``.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> tasks.numbered("The cats, which were waiting")
        array([ 0, 19,  1,  2,  4, 40])
    """
    words = sentence.lower().replace(",", " , ").replace(".", " ").split()
    if unknown := [word for word in words if word not in WORDS]:
        raise ArgumentError(
            f"agreement: {unknown[0]!r} is not among the {len(WORDS)} words of tasks.AGREEMENT_WORDS; leave it out, or choose one of them"
        )
    return np.array([_of(word) for word in words])


def spelled(words: Any) -> list[str]:
    """The sentences of a batch of numbers (T, B)."""
    return [" ".join(WORDS[number] for number in column) for column in np.asarray(words).T]


def agreement_baselines(phrases: int, attraction: float = 0.5) -> dict[str, float]:
    """How often simple rules are right: the share of verbs whose number they give.

        a constant             ½
        the nearest noun       1 − p for m ≥ 1: who follows it makes a mistake at every attractor in the last place
        the majority of nouns  P(K < (m + 1)/2) + ½ P(K = (m + 1)/2), K attractors, binomial (m, p); a tie is tossed

    Raises:
        ArgumentError: for a number outside its range.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> {name: round(share, 4) for name, share in tasks.agreement_baselines(3, 0.2).items()}
        {'constant': 0.5, 'nearest noun': 0.8, 'majority': 0.944}
    """
    m, p = whole("agreement_baselines", "phrases", phrases, 0), probability("agreement_baselines", "attraction", attraction)
    chances = [math.comb(m, k) * p**k * (1 - p) ** (m - k) for k in range(m + 1)]
    majority = sum(chance * (1.0 if 2 * k < m + 1 else 0.5 if 2 * k == m + 1 else 0.0) for k, chance in enumerate(chances))
    return {"constant": 0.5, "nearest noun": 1.0 - p if m else 1.0, "majority": majority}
