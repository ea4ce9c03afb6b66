"""What does a backward pass multiply?

A small formula, y = Σ tanh(x W). Every multiplication of its backward pass is an object with a kind, a label and numbers. A label
writes the transposed Jacobian as it acts on a column: · W is δ ↦ W δ, which for the row vectors used here is δ Wᵀ.

Expected output:

    route   broadcast          gain 1.414
    scale   ⊙ (1 − tanh²)      gain 0.656
    matmul  · W                gain 0.729
    matmul  xᵀ ·               gain 2.236

    The same cotangents, multiplied by hand: dx = [-0.676   0.0307], the engine says [-0.676   0.0307]
"""

import numpy as np

import tinygrad_rnn as tg


def main() -> None:
    x = tg.tensor([[1.0, -2.0]], requires_grad=True, name="x")
    weight = tg.tensor([[0.5, -1.0], [0.8, -0.3]], requires_grad=True, name="W")
    y = np.tanh(x @ weight).sum()

    steps: list[tg.BackwardStep] = []
    y.backward(observers=[steps.append])
    for step in steps:
        print(f"{step.kind:7} {step.label:18} gain {step.gain:.3f}")

    # The chain rule by hand: (1 − tanh²) Wᵀ.
    by_hand = (1.0 - np.tanh(x.value @ weight.value) ** 2) @ weight.value.T
    print(f"\nThe same cotangents, multiplied by hand: dx = {by_hand[0].round(4)}, the engine says {x.grad.value[0].round(4)}")


if __name__ == "__main__":
    main()
