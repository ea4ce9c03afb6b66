"""What is the LSTM's highway?

The way from c_t to c_{t−1} on which no matrix and no tanh stands. It is found in the graph by the kinds of its edges, and it
multiplies by the forget gate only. With a forget bias of 1 the gate is about 0.73 and the direct gradient still vanishes; with 6 it is
about 0.9975, and most of it arrives after 99 steps. The total, at the same state, also flows through h_{t−1} into the gates: it is
another number, here the larger one. The RNN has no such way.

Expected output:

    network              on the highway        direct, 99 steps      total
    RNN                  there is none                        –   1.22e-26
    LSTM, forget bias 1  + then ⊙ f₁₀₀                 8.39e-14   5.75e-09
    LSTM, forget bias 6  + then ⊙ f₁₀₀                 7.78e-01   7.22e+00
    GRU                  + then ⊙ z₁₀₀                 2.98e-27   1.77e-22
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn


def main() -> None:
    x = np.random.default_rng(0).standard_normal((100, 1, 8))
    networks = {
        "RNN": nn.RNN(8, 32, rng=0),
        "LSTM, forget bias 1": nn.LSTM(8, 32, rng=0),
        "LSTM, forget bias 6": nn.LSTM(8, 32, forget_bias=6.0, rng=0),
        "GRU": nn.GRU(8, 32, rng=0),
    }
    print(f"{'network':20} {'on the highway':20} {'direct, 99 steps':>17} {'total':>10}")
    for name, network in networks.items():
        outputs, _ = network(x)
        ledger = tg.trace(outputs[-1].sum())
        found = flow.highway(ledger)
        total = 10 ** (found.log10_total if found.exists else flow.vanishing_product(ledger).log10_product)[-1]
        way = " then ".join(found.labels) if found.exists else "there is none"
        direct = f"{10 ** found.log10_direct[-1]:.2e}" if found.exists else "–"
        print(f"{name:20} {way:20} {direct:>17} {total:10.2e}")


if __name__ == "__main__":
    main()
