"""Can saturation alone lose the gradient?

The slope of tanh at its output h is 1 − h²: 1 at h = 0, a fiftieth at h = 0.99. Below, the recurrent matrix is orthogonal, so that it
keeps every norm at every step, and only the size of the inputs differs. The larger they are, the nearer the units come to ±1, and the
product of the slopes alone loses the gradient.

Expected output:

    h             0     0.5     0.9    0.99
    1 − h²   1.0000  0.7500  0.1900  0.0199

    inputs   mean |h|   a step's mean gain: slopes   weights     ‖δ₁‖/‖δ₆₀‖
    × 0.01      0.014                      0.9996    1.0000          0.98
    × 0.1       0.105                      0.9816    1.0000          0.33
    × 1         0.365                      0.8235    1.0000       1.1e-05
    × 10        0.827                      0.3749    1.0000       7.2e-26
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn


def main() -> None:
    h = np.array([0.0, 0.5, 0.9, 0.99])
    slope = tg.trace(np.tanh(tg.tensor(np.arctanh(h), requires_grad=True)).sum()).filter(kind="scale")[0]
    print("h      " + "".join(f"{value:8g}" for value in h))
    print("1 − h² " + "".join(f"{value:8.4f}" for value in slope.contribution))  # what the backward edge multiplies 1 with

    x = np.random.default_rng(0).standard_normal((60, 1, 8))
    print("\ninputs   mean |h|   a step's mean gain: slopes   weights     ‖δ₁‖/‖δ₆₀‖")
    for size in (0.01, 0.1, 1.0, 10.0):
        outputs, _ = nn.RNN(8, 32, init="orthogonal", bias=False, rng=0)(size * x)
        result = flow.vanishing_product(tg.trace(outputs[-1].sum()))
        slopes, weights = (10 ** np.mean(np.log10(part[1:])) for part in (result.saturation, result.weight))
        mean = np.abs(outputs.value).mean()
        print(f"× {size:<8g}{mean:7.3f}{slopes:28.4f}{weights:10.4f}{10 ** result.log10_product[-1]:14.2g}")


if __name__ == "__main__":
    main()
