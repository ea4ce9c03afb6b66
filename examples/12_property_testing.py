"""How do I test a cell of my own?

With laws instead of examples. A minimal gated cell, h' = (1 − f) ⊙ n + f ⊙ h, is written in three lines; ``laws.check`` holds it against
whatever must be true of any recurrent cell: its derivatives, that a batch is the sum of its sequences, that a later start is a later
start, that step Jacobians multiply in the right order. Then a backward pass by hand, as courses ask for it, with one gate the wrong way
round; ``check_backward`` says which term is wrong, and how.

Expected output:

    the cell of one's own obeys the laws

    step_backward, recognised as your own program, recorded: 3 points, expected by complex step
    gradient         error  worst entry   expected         got
    ──────────────────────────────────────────────────────────
    dx        wrong   0.61       (1, 0)   0.550043     0.31853
    dh        wrong   0.26       (1, 1)   -1.60194    -1.35467
    dwx       wrong   0.59       (1, 5)  -0.150436  -0.0394321
    dwh       wrong    0.6       (2, 5)  -0.652948   -0.170287
    db        wrong    0.6         (5,)   0.280786   0.0686146
    This explains all of it: the factor is f where (1 − f) belongs, from (1 − f) * n to n (line 52: return (1 - f) * n + f *
        h, (x, h, wx, wh, f, n)).
    dx is wrong at entry (1, 0): expected 0.550043, got 0.31853.
    dh is wrong at entry (1, 1): expected -1.60194, got -1.35467.
    dwx is wrong at entry (1, 5): expected -0.150436, got -0.0394321.
    dwh is wrong at entry (2, 5): expected -0.652948, got -0.170287.
    db is wrong at entry (5,): expected 0.280786, got 0.0686146.
"""

import textwrap

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn, testing


class MinimalGated(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.new = nn.Linear(inputs + hidden, hidden, rng=0), nn.Linear(inputs + hidden, hidden, rng=1)

    def forward(self, x: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
        both = tg.concatenate([x, h], axis=-1)
        f, n = tg.sigmoid(self.gate(both)), tg.tanh(self.new(both))
        return (1 - f) * n + f * h


def step_forward(x, h, wx, wh, b):  # the same cell with one matrix for gate and candidate, in plain NumPy
    a = x @ wx + h @ wh + b
    f = 1 / (1 + np.exp(-a[:, :4]))
    n = np.tanh(a[:, 4:])
    return (1 - f) * n + f * h, (x, h, wx, wh, f, n)


def step_backward(dnext, cache):
    x, h, wx, wh, f, n = cache
    da = np.concatenate([dnext * (h - n) * f * (1 - f), dnext * f * (1 - n**2)], axis=1)  # f where it should say 1 − f
    return da @ wx.T, da @ wh.T + dnext * f, x.T @ da, h.T @ da, da.sum(axis=0)


def main() -> None:
    random = np.random.default_rng(0)
    x, h = random.standard_normal((2, 3)), random.standard_normal((2, 4))
    testing.laws.check(MinimalGated(3, 4), x, h)
    print("the cell of one's own obeys the laws\n")

    weights = random.standard_normal((3, 8)), random.standard_normal((4, 8)), random.standard_normal(8)
    for line in str(testing.check_backward(step_forward, step_backward, x, h, *weights)).splitlines():
        print(textwrap.fill(line, 120, subsequent_indent="    "))


if __name__ == "__main__":
    main()
