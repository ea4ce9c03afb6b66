"""Is vanishing a matter of recurrent networks only?

No: any deep chain of Jacobians has it. Here are stacks of up to 64 tanh layers of 16 units, and the norm of the loss's gradient at the
input. What repairs them is what repairs recurrent networks: a path on which no matrix stands. ``Residual`` has an add edge (ResNet): its
gradient never vanishes, but it grows with depth. ``Highway`` has a gate, as an LSTM's cell has, which begins at 0.88, and 0.88⁶⁴ is
0.0003: it loses far less, and still a part in every layer. ``DenseBlock`` has a route edge from every layer to the end.

The same for recurrent layers on top of each other: eight GRUs, plain and with ``residual=``.

Expected output:

    ‖∂L/∂x‖ by depth          1          4         16         64
    plain              1.99e-02   1.74e-03   1.19e-07   1.11e-19
    residual           1.10e-01   2.02e-01   7.25e-01   5.86e+00
    highway            6.21e-02   2.78e-02   1.94e-03   2.48e-06
    dense              3.19e-02   2.07e-02   9.78e-03   3.97e-03

    eight GRU layers: ‖∂L/∂x₁‖
    plain              2.99e-03
    skip               1.53e-02
    dense              4.88e-03
"""

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn

WIDTH = 16


def stack(kind: str, depth: int) -> nn.Module:
    random = np.random.default_rng(0)
    if kind == "dense":
        return nn.Sequential(nn.DenseBlock(WIDTH, 4, depth, rng=random), nn.Linear(WIDTH + 4 * depth, WIDTH, rng=random))
    if kind == "highway":
        return nn.Sequential(*(nn.Highway(WIDTH, rng=random) for _ in range(depth)))
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH, rng=random), tg.tanh) for _ in range(depth)]
    return nn.Sequential(*(nn.Residual(layer) if kind == "residual" else layer for layer in layers))


def norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values))


def main() -> None:
    x = np.random.default_rng(1).standard_normal((32, WIDTH))
    depths = (1, 4, 16, 64)
    print("‖∂L/∂x‖ by depth" + "".join(f"{depth:11}" for depth in depths))
    for kind in ("plain", "residual", "highway", "dense"):
        sizes = []
        for depth in depths:
            given = tg.tensor(x, requires_grad=True)
            tg.mean(stack(kind, depth)(given) ** 2).backward()
            sizes.append(norm(given.grad.value))
        print(f"{kind:16}" + "".join(f"{size:11.2e}" for size in sizes))

    x = np.random.default_rng(1).standard_normal((20, 4, WIDTH))
    print("\neight GRU layers: ‖∂L/∂x₁‖")
    for residual in (None, "skip", "dense"):
        given = tg.tensor(x, requires_grad=True)
        outputs, _ = nn.GRU(WIDTH, WIDTH, num_layers=8, residual=residual, rng=0)(given)
        outputs[-1].sum().backward()
        print(f"{residual or 'plain':16}{norm(given.grad.value[0]):11.2e}")


if __name__ == "__main__":
    main()
