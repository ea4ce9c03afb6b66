"""What does a GRU's update gate do to the gradient?

h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}: there is no cell, the hidden state itself is the highway, and its factor is z. (Lecture notes often
write u = 1 − z; then u = 0 keeps the past.) The bias of z decides how much arrives. The two places of the reset gate, after the matrix
(PyTorch, cuDNN) or before it (Cho et al. 2014), have the same highway and different detours.

Expected output:

    reset    bias of z   mean z   direct, 49 steps      total
    after            0    0.501           7.25e-15   1.21e-11
    after            4    0.981           3.97e-01   4.09e-01
    before           0    0.501           6.46e-15   1.15e-11
    before           4    0.981           3.97e-01   4.09e-01
    on the highway: + then ⊙ z₅₀
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn


def main() -> None:
    x = np.random.default_rng(0).standard_normal((50, 1, 8))
    print("reset    bias of z   mean z   direct, 49 steps      total")
    for reset in ("after", "before"):
        for bias in (0.0, 4.0):
            gru = nn.GRU(8, 32, reset=reset, rng=0)
            start = gru.bias_l0.value.copy()
            start[32:64] = bias  # reset, update, candidate: PyTorch's order
            gru.bias_l0.value = start
            outputs, _ = gru(x)
            ledger = tg.trace(outputs[-1].sum())
            found = flow.highway(ledger)
            z = np.mean([ledger.states()[t].gates["update"].value for t in range(1, 51)])
            print(f"{reset:8} {bias:9g} {z:8.3f} {10 ** found.log10_direct[-1]:18.2e} {10 ** found.log10_total[-1]:10.2e}")
    print("on the highway:", " then ".join(found.labels))


if __name__ == "__main__":
    main()
