"""Why does an RNN forget?

Because each step back multiplies the gradient by two things: the slope of tanh, ⊙ (1 − h²), and the weights, · W_hhᵀ. Here are both
parts for an RNN that reads 40 random vectors. Its weights are orthogonal, so they alone would preserve the gradient for ever; the
saturation of its units is enough to lose it.

Expected output:

    rnn: vanishing: a factor of 0.828 per step
    lag  step  ‖δ‖/‖δ_T‖   gain  log₁₀ ∏  saturation  weight  bound
    ───────────────────────────────────────────────────────────────
    0      40          1      –     0.00           –       –      1
    1      39      0.826  0.826    -0.08       0.826       1      1
    2      38      0.727  0.881    -0.14       0.881       1      1
    5      35      0.329  0.683    -0.48       0.683       1      1
    10     30      0.116  0.857    -0.94       0.857       1      1
    20     20     0.0218  0.872    -1.66       0.872       1      1
    39      1   6.36e-04  0.785    -3.20       0.785       1      1
    half-life 3.67 steps; W_hh: ρ = 1 decides the limit, σ_max = 1 the bound
    most is lost at ⊙ (1 − h₄₀²): gain 0.828, 0.683 at step 36; 100 % of what is handed back passed it; tinygrad_rnn/nn/recurrence.py:125

    the weights alone: 1
    the saturation alone: 0.000636
    both: 0.000636, a half-life of 3.67 steps
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn


def main() -> None:
    random = np.random.default_rng(0)
    rnn = nn.RNN(8, 32, init="orthogonal", rng=random)  # every singular value of W_hh is 1: the weights alone would preserve
    outputs, _ = rnn(random.standard_normal((40, 1, 8)))
    result = flow.vanishing_product(tg.trace(outputs[-1].sum()))

    print(result)
    print(f"\nthe weights alone: {10 ** float(np.sum(np.log10(result.weight[1:]))):.3g}")
    print(f"the saturation alone: {10 ** float(np.sum(np.log10(result.saturation[1:]))):.3g}")
    print(f"both: {10 ** result.log10_product[-1]:.3g}, a half-life of {result.half_life:.2f} steps")


if __name__ == "__main__":
    main()
