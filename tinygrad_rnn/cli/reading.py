"""A network that reads text: what most commands trace."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from .. import nn
from ..errors import ArgumentError
from ..functional import cross_entropy
from ..tasks import english, read_text
from ..tensor import Tensor
from ..trace import Trace, trace
from .options import between, check_path, finite, initialisation

EMBEDDING = 32
"""Length of the vector that stands for a character."""

NETWORKS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def add_text_options(parser: argparse.ArgumentParser, *, steps: int = 100, hidden: int = 64) -> None:
    """How long a text, how many units, which weights."""
    parser.add_argument("--steps", type=between(2, 10_000), default=steps, metavar="T", help=f"length of the sequence (default {steps})")
    parser.add_argument("--hidden", type=between(1, 1024), default=hidden, metavar="H", help=f"units in each network (default {hidden})")
    parser.add_argument(
        "--seed", type=between(0, 2**63 - 1), default=0, help="seed of the weights and of the place in the text (default 0)"
    )
    parser.add_argument(
        "--init",
        type=initialisation,
        default="uniform",
        help=f"how the recurrent weights begin: {', '.join(nn.init.INITIALIZERS)}, or a spectral radius such as 0.9 (default uniform)",
    )
    parser.add_argument("--text", metavar="FILE", help="a UTF-8 text to read instead of Python's own help topics")


def add_network_options(parser: argparse.ArgumentParser, *, steps: int, hidden: int) -> None:
    """Which network, and the above."""
    parser.add_argument("--network", choices=tuple(NETWORKS), default="lstm", help="which one reads the text (default lstm)")
    add_text_options(parser, steps=steps, hidden=hidden)
    parser.add_argument("--forget-bias", type=finite, metavar="B", help="where the LSTM's forget bias begins (default 1)")


@dataclass(frozen=True)
class Text:
    """A stretch of text, the character that follows, and all characters that there are."""

    stretch: str
    following: str
    alphabet: tuple[str, ...]

    @classmethod
    def chosen(cls, options: argparse.Namespace) -> Text:
        """As many characters as there are steps, from a place that the seed chooses."""
        check_path("--text", options.text)
        text, steps = english() if options.text is None else read_text(options.text), options.steps
        if len(text) <= steps:
            raise ArgumentError(f"--text: {len(text)} characters are too few for {steps} steps and one to predict; choose fewer --steps")
        if len(set(text)) < 2:
            raise ArgumentError(f"--text: {text[0]!r} is its only character, so there is nothing to predict; choose another text")
        start = int(np.random.default_rng(options.seed).integers(len(text) - steps))
        return cls(text[start : start + steps], text[start + steps], tuple(sorted(set(text))))

    @property
    def shown(self) -> str:
        """The end of the stretch, and what follows."""
        shown = self.stretch if len(self.stretch) <= 60 else "…" + self.stretch[-59:]
        return f"{shown!r} → {self.following!r}"


def loss_of(network: str, text: Text, options: argparse.Namespace) -> Tensor:
    """Read the stretch, and predict the character that follows from the last step."""
    bias = getattr(options, "forget_bias", None)
    if bias is not None and network != "lstm":
        raise ArgumentError(f"--forget-bias: only an lstm has a forget gate, got --network {network}")
    random = np.random.default_rng(options.seed)
    number_of = {character: i for i, character in enumerate(text.alphabet)}
    embedding = nn.Embedding(len(text.alphabet), EMBEDDING, rng=random)
    more = {} if bias is None else {"forget_bias": bias}
    layer = NETWORKS[network](EMBEDDING, options.hidden, init=options.init, rng=random, **more)
    readout = nn.Linear(options.hidden, len(text.alphabet), rng=random)
    vectors = embedding(np.array([[number_of[character]] for character in text.stretch]))  # (T, 1, 32)
    outputs, _ = layer(vectors)
    loss: Tensor = cross_entropy(readout(outputs[-1]), [number_of[text.following]])
    return loss


def read(network: str, text: Text, options: argparse.Namespace) -> tuple[float, Trace]:
    """The loss of that prediction, and the ledger of its backward pass."""
    loss = loss_of(network, text, options)
    return loss.item(), trace(loss)


def traced(options: argparse.Namespace) -> tuple[Text, float, Trace]:
    """The network that the options name: what it read, its loss, and the ledger."""
    text = Text.chosen(options)
    return text, *read(options.network, text, options)
