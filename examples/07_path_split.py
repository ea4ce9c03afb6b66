"""By which ways does an LSTM's gradient come?

From c_t back to c_{t−1} a path can stay on the cell, where it meets only ⊙ f. Or it takes a detour: through a gate into h_{t−1}, over
W_hh. Every path from the loss to c₁ takes some number of detours, and a gradient is the sum over its paths. One backward pass splits it
exactly by that number: the parts add up to the gradient. The share of a part is its projection on the whole.

With a forget bias of 1 two thirds of what arrives 29 steps back came by four detours or more, and the highway alone works against the
whole (its share is negative). With 4 nearly everything came by three detours or fewer, but the highway alone still is only a thirtieth:
it is there that the detours start from and return to.

Expected output:

    forget bias 1
    ∂L/∂c₁, by passes over edges into the hidden state before through W_hh
    passes        paths      norm     share
    ───────────────────────────────────────
    0                 1  0.000323  -0.355 %
    1                88   0.00142   -2.65 %
    2              3823   0.00353      14 %
    3            109108   0.00448    20.2 %
    4 or more  5.66e+19   0.00854    68.7 %
    norm of the whole: 0.011
    the parts add up to the gradient: True

    forget bias 4
    ∂L/∂c₁, by passes over edges into the hidden state before through W_hh
    passes        paths   norm   share
    ──────────────────────────────────
    0                 1  0.875  3.16 %
    1                88   2.13  27.2 %
    2              3823   2.21  35.8 %
    3            109108   1.51  23.7 %
    4 or more  5.66e+19   1.18  10.1 %
    norm of the whole: 2.61
    the parts add up to the gradient: True
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn


def main() -> None:
    x = np.random.default_rng(0).standard_normal((30, 1, 8))
    for bias in (1.0, 4.0):
        outputs, _ = nn.LSTM(8, 32, forget_bias=bias, rng=0)(x)
        ledger = tg.trace(outputs[-1].sum())
        split = flow.split_paths(ledger, ledger.states()[1].cell, "recurrent", bins=5)
        print(f"forget bias {bias:g}\n{split}")
        error = np.abs(split.contribution.sum(axis=0) - split.gradient).max() / np.abs(split.gradient).max()
        print(f"the parts add up to the gradient: {error < 1e-12}\n")


if __name__ == "__main__":
    main()
