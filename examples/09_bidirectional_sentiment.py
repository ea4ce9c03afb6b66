"""What does a second direction know?

"The film was terribly exciting." At "terribly" a network that reads from left to right has not seen "exciting"; the gradient from its
state there to that word is exactly 0. A second network that reads from right to left has. Here both read a dozen sentences, take the
elementwise maximum of their states over the words, and learn whether a sentence praises; then the gradient says which words a state at
"terribly" depends on. Each feature of the maximum takes its gradient from the one word where it is largest, so it also says which words
were heard.

How well this does on thousands of real reviews, against a bag of words: ``python -m tinygrad_rnn reproduce 18 --full``.

Expected output:

    left to right: 12 of 12 sentences learned
                                   the      film       was  terribly  exciting
    state at "terribly"           0.20      1.03      1.28      1.68      0.00
    verdict                       0.05      0.67      0.74      1.07      0.05

    both ways: 12 of 12 sentences learned
                                   the      film       was  terribly  exciting
    state at "terribly"           0.08      0.22      2.25      3.49      0.30
    verdict                       0.82      0.58      1.62      0.82      0.25
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim

PRAISE = """the film was terribly exciting
the plot was not bad at all
a warm and funny film
the actors were great
it was exciting to the end
not a dull moment"""
BLAME = """the film was terribly dull
the plot was bad
a cold and silly film
the actors were not great
it was dull to the end
not a funny moment"""


class Reader(nn.Module):
    def __init__(self, words: list[str], bidirectional: bool) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        self.words = words
        self.embedding = nn.Embedding(len(words), 8, rng=random)
        self.rnn = nn.RNN(8, 8, bidirectional=bidirectional, rng=random)
        self.readout = nn.Linear(16 if bidirectional else 8, 1, rng=random)

    def states(self, sentence: str) -> tuple[tg.Tensor, tg.Tensor]:
        embedded = self.embedding(np.array([self.words.index(word) for word in sentence.split()]))
        return embedded, self.rnn(embedded)[0]

    def forward(self, sentence: str) -> tg.Tensor:
        return self.readout(tg.max(self.states(sentence)[1], axis=0))[0]


def main() -> None:
    sentences = [(text, 1.0) for text in PRAISE.splitlines()] + [(text, 0.0) for text in BLAME.splitlines()]
    words = sorted({word for text, _ in sentences for word in text.split()})
    example = PRAISE.splitlines()[0]
    for name, bidirectional in (("left to right", False), ("both ways", True)):
        reader = Reader(words, bidirectional)
        optimizer = optim.Adam(reader.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            tg.mean(tg.stack([tg.bce_with_logits(reader(text), praises) for text, praises in sentences])).backward()
            optimizer.step()
        right = sum((reader(text).item() > 0) == bool(praises) for text, praises in sentences)
        print(f"{name}: {right} of {len(sentences)} sentences learned\n{'':24}" + "".join(f"{word:>10}" for word in example.split()))

        embedded, states = reader.states(example)
        (gradient,) = tg.grad(states[example.split().index("terribly")].sum(), (embedded,))
        show('state at "terribly"', gradient)
        (gradient,) = tg.grad(reader.readout(tg.max(states, axis=0)).sum(), (embedded,))
        show("verdict", gradient)
        print()


def show(what: str, gradient: tg.Tensor) -> None:
    print(f"{what:24}" + "".join(f"{np.linalg.norm(row):10.2f}" for row in gradient.value))


if __name__ == "__main__":
    main()
