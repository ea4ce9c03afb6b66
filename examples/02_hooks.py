"""What can a hook do?

There are three, and they see different things. ``register_hook`` is PyTorch's: it sees the whole cotangent of one tensor, and may
replace it. An observer reads every multiplication of a backward pass: what arrived, by what it was multiplied, what went on. An
intervention may alter what goes on: here it blocks the recurrent matrix of an RNN, and the two earlier inputs get no gradient at all.

Expected output:

    step 3, multiplication by multiplication, as an observer sees it
      ⊙ (1 − h₃²)  ‖·‖ 2.000 → 1.771
      · W_hhᵀ      ‖·‖ 1.771 → 1.008
      h₂ᵀ ·        ‖·‖ 1.771 → 1.627
      · W_ihᵀ      ‖·‖ 1.771 → 0.142
      x3ᵀ ·        ‖·‖ 1.771 → 1.180

    ‖∂L/∂xₜ‖                     t = 1     t = 2     t = 3
    as it is                     0.351     0.221     0.142
    a hook on h₂ halves it       0.175     0.110     0.142
    without · W_hhᵀ              0.000     0.000     0.142
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn


def main() -> None:
    random = np.random.default_rng(0)
    cell = nn.RNNCell(2, 4, rng=random)
    inputs = [tg.tensor(random.standard_normal((1, 2)), requires_grad=True, name=f"x{t}") for t in (1, 2, 3)]

    def run() -> list[nn.RNNState]:
        states: list[nn.RNNState] = []
        for x in inputs:
            states.append(cell(x, states[-1] if states else None))
        return states

    def show(what: str) -> None:
        print(f"{what:24}" + "".join(f"{norm(x.grad.value):10.3f}" for x in inputs))
        for x in inputs:
            x.grad = None

    steps: list[tg.BackwardStep] = []
    run()[-1].hidden.sum().backward(observers=[steps.append])
    print("step 3, multiplication by multiplication, as an observer sees it")
    for step in steps:
        if step.time == 3 and step.kind in ("scale", "matmul"):
            print(f"  {step.label:12} ‖·‖ {norm(step.cotangent):.3f} → {norm(step.contribution):.3f}")

    print(f"\n{'‖∂L/∂xₜ‖':24}" + "".join(f"     t = {t}" for t in (1, 2, 3)))
    show("as it is")

    states = run()
    states[1].hidden.register_hook(lambda cotangent: cotangent / 2)
    states[-1].hidden.sum().backward()
    show("a hook on h₂ halves it")

    run()[-1].hidden.sum().backward(interventions=[lambda step: 0 * step.contribution if step.label == "· W_hhᵀ" else None])
    show("without · W_hhᵀ")


def norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))


if __name__ == "__main__":
    main()
