"""How long an operation takes, forward and backward, beside PyTorch's eager mode and HIPS autograd.

Run it by hand: ``python tests/benchmarks/bench_operations.py [rounds]``. The same chain of operations on vectors of 16 numbers runs
in every library that is installed, in one process, one thread, in turn within each round; the medians over the rounds are printed,
and our time as a share of each peer's.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tg

SIZE = 16
BLOCKS = 20
OPERATIONS_PER_BLOCK = 12


def chain(x: Any, w: Any, f: Any) -> Any:
    """Twenty blocks of twelve elementwise operations that neither grow nor vanish; ``f`` has tanh, sin, exp, sigmoid and total."""
    for _ in range(BLOCKS):
        a = f.tanh(x * w)
        b = f.sigmoid(x + a)
        c = f.exp(-b) * a
        d = f.sin(c - x * 0.5)
        x = d * b + w
    return f.total(x)


class Ours:
    """tinygrad_rnn."""

    tanh, sin, exp, sigmoid = tg.tanh, tg.sin, tg.exp, tg.sigmoid
    total = staticmethod(lambda x: x.sum())

    @staticmethod
    def step(x: Any, w: Any) -> Callable[[], Any]:
        leaves = [tg.tensor(part, requires_grad=True) for part in (x, w)]

        def run() -> Any:
            for leaf in leaves:
                leaf.grad = None
            chain(*leaves, Ours).backward()
            return [leaf.grad.value for leaf in leaves]  # type: ignore[union-attr]

        return run


def torch_step(x: Any, w: Any) -> Callable[[], Any]:
    """PyTorch, eager, one thread."""
    import torch

    torch.set_num_threads(1)

    class F:
        tanh, sin, exp, sigmoid, total = torch.tanh, torch.sin, torch.exp, torch.sigmoid, torch.sum

    leaves = [torch.tensor(part, requires_grad=True) for part in (x, w)]

    def run() -> Any:
        for leaf in leaves:
            leaf.grad = None
        chain(*leaves, F).backward()
        return [leaf.grad.numpy() for leaf in leaves]  # type: ignore[union-attr]

    return run


def autograd_step(x: Any, w: Any) -> Callable[[], Any]:
    """HIPS autograd."""
    import autograd
    import autograd.extend
    import autograd.numpy as anp

    # Its own sigmoid needs SciPy; this is the same primitive on the same forward function as ours.
    expit = autograd.extend.primitive(tg.sigmoid.forward)
    autograd.extend.defvjp(expit, lambda out, x: lambda g: g * out * (1.0 - out))

    class F:
        tanh, sin, exp, sigmoid, total = anp.tanh, anp.sin, anp.exp, expit, anp.sum

    gradient = autograd.grad(lambda leaves: chain(*leaves, F))
    return lambda: gradient((x, w))


def main(rounds: int = 200) -> dict[str, float]:
    """Print microseconds per operation, and ours as a share of each peer's; return the shares."""
    rng = np.random.default_rng(0)
    point = rng.normal(size=(2, SIZE)) * 0.5
    steps = {"tinygrad_rnn": Ours.step(*point)}
    for name, make in (("torch", torch_step), ("autograd", autograd_step)):
        try:
            steps[name] = make(*point)
        except ImportError:
            print(f"{name} is not installed: skipped")
    expected = steps["tinygrad_rnn"]()
    for name, step in steps.items():
        for ours, theirs in zip(expected, step(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, err_msg=name)
    times: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, median in medians.items():
        print(f"{name:13} {median / (BLOCKS * OPERATIONS_PER_BLOCK) * 1e6:6.2f} µs per operation, forward and backward")
    shares = {name: medians["tinygrad_rnn"] / median for name, median in medians.items() if name != "tinygrad_rnn"}
    for name, share in shares.items():
        print(f"tinygrad_rnn / {name}: {share:.2f}")
    return shares


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
