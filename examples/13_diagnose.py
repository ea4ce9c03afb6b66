"""My network does not learn. Why?

Four networks, each with something wrong with it, and what ``flow.diagnose`` says after one backward pass: the finding, its number, and
what to try. It measures this batch and these weights; what it calls a warning may be harmless for a task that needs no memory.

Expected output:

    === weights too small
    1 finding in rnn; ‖gradient‖ = 0.283

    SEVERE · rnn: the gradient vanishes: 3.37e-36 of it is left after 59 steps back; it passes 1e-3 at
        step 55, 5 steps from the last one, and halves every 0.501 steps. Per step, saturation
        multiplies by 0.843 and W_hh by 0.297 (ρ = 0.3). Most is lost at · W_hhᵀ: gain 0.297, 0.252 at
        step 33; 100 % of what is handed back passed it; tinygrad_rnn/nn/recurrence.py:125
        Try: init='orthogonal' or a spectral radius of 1; an LSTM or GRU if the task needs a longer
        memory

    === inputs not scaled
    2 findings in rnn; ‖gradient‖ = 2.93

    SEVERE · rnn: the gradient vanishes: 8.45e-170 of it is left after 59 steps back; it passes 1e-3 at
        step 58, 2 steps from the last one, and halves every 0.105 steps. Per step, saturation
        multiplies by 0.00236 and W_hh by 0.578 (ρ = 0.63). Most is lost at ⊙ (1 − h₆₀²): gain 0.00236,
        2.96e-12 at step 3; 100 % of what is handed back passed it; tinygrad_rnn/nn/recurrence.py:125
        Try: smaller inputs or weights, so that tanh is not saturated; an LSTM or GRU if the task needs
        a longer memory

    WARNING · rnn: 16 of 16 units of hidden are always saturated (mean slope 0.0185): units 0, 1, 2, 3,
        4, 5, …
        Try: normalise the inputs, draw smaller weights, or lower the learning rate that drove them
        there

    === forget gates nearly closed
    2 findings in lstm; ‖gradient‖ = 0.0186

    SEVERE · lstm: the gradient vanishes: 4.01e-52 of it is left after 59 steps back; it passes 1e-3 at
        step 56, 4 steps from the last one, and halves every 0.346 steps. The highway alone multiplies
        by 0.0205 per step (mean forget gate 0.0196, longest half-life 0.178 steps). Most is lost at ⊙
        i₆₀ (candidate gate): gain 0.506, 0.423 at step 24; 91 % of what is handed back passed it;
        tinygrad_rnn/nn/recurrence.py:132
        Try: forget_bias=1 or more, or forget_bias=init.chrono(T); a loss that also reads earlier steps;
        shorter sequences at first

    WARNING · lstm: the forget gate of 16 of 16 units is always closed (below 0.1): units 0, 1, 2, 3, 4,
        5, …
        Try: smaller inputs or weights into that gate, or its bias nearer to 0: a saturated gate learns
        nothing

    === a long memory at the start
    nothing that keeps it from learning in lstm; ‖gradient‖ = 0.962

    NOTE · lstm: over 59 steps the gradient of the state changes by a factor of 0.678 (preserved: a
        factor of 0.993 per step)
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn


def main() -> None:
    x = np.random.default_rng(0).standard_normal((60, 4, 8))
    patients = {
        "weights too small": (nn.RNN(8, 16, init=0.3, rng=0), x),
        "inputs not scaled": (nn.RNN(8, 16, rng=0), 100 * x),
        "forget gates nearly closed": (nn.LSTM(8, 16, forget_bias=-4.0, rng=0), x),
        "a long memory at the start": (nn.LSTM(8, 16, forget_bias=5.0, rng=0), x),
    }
    for name, (network, given) in patients.items():
        outputs, _ = network(given)
        print(f"=== {name}\n{flow.diagnose(tg.mean(outputs[-1] ** 2))}\n")


if __name__ == "__main__":
    main()
