"""What does clipping repair, and what does it not?

An RNN of ReLU units, with a spectral radius of 1.1, is to add up forty numbers. Without clipping a few updates throw the weights so far
that gradient and loss leave the range of numbers. With the norm of the whole gradient clipped to 1, the same
run learns.

Clipping multiplies the whole gradient by one number. A gradient that vanishes on its way back has too little of the early steps beside
the late ones, and that proportion stays.

Expected output:

    an exploding network, norms clipped to inf:
      the loss is not finite within 20 updates: True; the largest gradient was above 1e20: True
    an exploding network, norms clipped to 1.0:
      the loss fell below 0.4: True; clipping engaged in most updates: True

    a vanishing network, ‖∂L/∂x₁‖ / ‖∂L/∂x₄₀‖
      clipped to inf: 2.5e-14
      clipped to 0.1: 2.5e-14
"""

import math

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim


def train(x: np.ndarray, target: np.ndarray, limit: float) -> None:
    rnn, readout = nn.RNN(2, 16, nonlinearity="relu", init=1.1, rng=0), nn.Linear(16, 1, rng=0)
    parameters = [*rnn.parameters(), *readout.parameters()]
    optimizer, counter, largest = optim.SGD(parameters, lr=0.1), optim.ClipCounter(), 0.0
    for update in range(200):
        loss = tg.mse(readout(rnn(x)[0][-1]), target)
        if not math.isfinite(loss.item()):
            print(f"  the loss is not finite within 20 updates: {update < 20}; the largest gradient was above 1e20: {largest > 1e20}")
            return
        optimizer.zero_grad()
        loss.backward()
        largest = max(largest, optim.clip_grad_norm(parameters, limit, counter=counter))
        optimizer.step()
    print(f"  the loss fell below 0.4: {loss.item() < 0.4}; clipping engaged in most updates: {counter.fraction > 0.5}")


def main() -> None:
    x = np.random.default_rng(0).standard_normal((40, 64, 2))
    target = x[:, :, :1].sum(axis=0) / math.sqrt(40)
    for limit in (math.inf, 1.0):
        print(f"an exploding network, norms clipped to {limit}:")
        with np.errstate(all="ignore"):  # overflow is the subject
            train(x, target, limit)

    print("\na vanishing network, ‖∂L/∂x₁‖ / ‖∂L/∂x₄₀‖")
    rnn = nn.RNN(2, 16, init=0.5, rng=0)
    for limit in (math.inf, 0.1):
        given = tg.tensor(x, requires_grad=True)
        rnn(given)[0][-1].sum().backward()
        optim.clip_grad_norm(given, limit)
        per_step = np.linalg.norm(given.grad.value.reshape(40, -1), axis=1)
        print(f"  clipped to {limit}: {per_step[0] / per_step[-1]:.1e}")


if __name__ == "__main__":
    main()
