"""Value, gradient and second derivative against HIPS autograd, a NumPy engine of another make: closures instead of linear maps.

The same NumPy functions are called on both, ours through NumPy's protocols and theirs through its wrapped namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg

autograd = pytest.importorskip("autograd")
anp = pytest.importorskip("autograd.numpy")

pytestmark = pytest.mark.oracle

rng = np.random.default_rng(5)
X, Y, V, S = rng.uniform(0.3, 1.7, (3, 4)), rng.uniform(0.3, 1.7, (4, 2)), rng.uniform(0.3, 1.7, 4), rng.uniform(0.3, 1.7, (4, 4))

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "arithmetic": (lambda np, x, v: (x + v) * x - v / x, (X, V)),
    "powers": (lambda np, x: x**3 + x**-1 + 2**x + np.power(x, 0.5), (X,)),
    "exponentials": (lambda np, x: np.exp(x) + np.expm1(x) + np.log(x) + np.log1p(x), (X,)),
    "trigonometry": (lambda np, x: np.sin(x) * np.cos(x) + np.tanh(x), (X,)),
    "roots": (lambda np, x: np.sqrt(x) + np.square(x) + np.reciprocal(x), (X,)),
    "choices": (lambda np, x: np.where(x > 1, x * x, 1 / x) + np.maximum(x, 0.9) - np.minimum(x, 1.1) + abs(x - 1), (X,)),
    "clip": (lambda np, x: np.clip(x, 0.6, 1.2) ** 2, (X,)),
    "logaddexp": (lambda np, x, v: np.logaddexp(x, v), (X, V)),
    "matmul": (lambda np, x, y: np.matmul(x, y), (X, Y)),
    "matmul of a stack": (lambda np, x, y: np.matmul(np.stack([x, x * 2.0]), y), (X, Y)),
    "vectors": (lambda np, x, v: np.dot(x, v) + x @ v, (X, V)),
    "outer": (lambda np, v: np.outer(v, v * 2), (V,)),
    "inner": (lambda np, x: np.inner(x, x), (X,)),
    "tensordot": (lambda np, x, y: np.tensordot(x, y, 1), (X, Y)),
    "einsum": (lambda np, x, y: np.einsum("ij,jk->ki", x, y), (X, Y)),
    "einsum of three": (lambda np, x, y, v: np.einsum("ij,jk,j->ik", x, y, v), (X, Y, V)),
    "sum and mean": (lambda np, x: np.sum(x, axis=1, keepdims=True) * np.mean(x, axis=0), (X,)),
    "var and std": (lambda np, x: np.var(x, axis=0) + np.std(x, axis=0, ddof=1), (X,)),
    "prod": (lambda np, x: np.prod(x, axis=1), (X,)),
    "max and min": (lambda np, x: np.max(x, axis=1) * np.min(x, axis=1), (X,)),
    "cumsum": (lambda np, x: np.cumsum(x, axis=1) ** 2, (X,)),
    "norm": (lambda np, x: np.linalg.norm(x, axis=1) + np.linalg.norm(x), (X,)),
    "reshape": (lambda np, x: np.reshape(x, (2, 6)) ** 2, (X,)),
    "transpose": (lambda np, x: np.transpose(x) * np.swapaxes(x, 0, 1) * x.T * np.moveaxis(x, 0, 1), (X,)),
    "axes": (lambda np, x: np.squeeze(np.expand_dims(x, 1), 1) * np.ravel(x)[:4], (X,)),
    "join": (lambda np, x, v: np.concatenate([x, x * v]) * 2 + np.vstack([x, x]) + np.stack([x, x]).sum(), (X, V)),
    "split": (lambda np, x: np.split(x, [1], axis=1)[1] * np.split(x, 3)[2][:, 1:], (X,)),
    "index": (lambda np, x: x[1, ::-1] * x[[0, 0, 2]], (X,)),
    "triangles": (lambda np, s: np.tril(s) @ np.triu(s, 1) + np.trace(s), (S,)),
    "diagonal": (lambda np, s: np.diag(s) * np.diag(s, 0), (S,)),
    "repeat": (lambda np, x: np.repeat(x, 2, axis=0) * np.tile(x, (2, 1)), (X,)),
    "roll": (lambda np, x: np.roll(x, 1, axis=1) * x, (X,)),
    "flip": (lambda np, x: np.fliplr(x) * np.flipud(x), (X,)),
    "diff": (lambda np, x: np.diff(x, axis=1) ** 2, (X,)),
    "pad": (lambda np, x: np.pad(x, ((1, 0), (0, 2)), mode="constant") ** 2, (X,)),
    "a recurrent step": (lambda np, s, v: np.tanh(np.tanh(np.tanh(v @ s) @ s) @ s), (S / 3, V)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_gradient_and_second_order(name: str) -> None:
    """The two engines agree in the value, in every gradient, and in every product of the Hessian with a vector."""
    function, operands = FUNCTIONS[name]
    tensors = [tg.tensor(x, requires_grad=True) for x in operands]
    out, expected = function(np, *tensors), function(anp, *operands)
    np.testing.assert_allclose(out.value, expected, rtol=1e-13)
    draw = np.random.default_rng(7)
    weight = draw.normal(size=expected.shape)
    directions = [draw.normal(size=x.shape) for x in operands]
    every = tuple(range(len(operands)))

    def scalar(*x: Any) -> Any:
        return anp.sum(function(anp, *x) * weight)

    def directed(*x: Any) -> Any:
        return sum(anp.sum(g * d) for g, d in zip(autograd.grad(scalar, every)(*x), directions, strict=True))

    first = tg.grad(out, tensors, weight, create_graph=True)
    for ours, theirs in zip(first, autograd.grad(scalar, every)(*operands), strict=True):
        np.testing.assert_allclose(ours.value, theirs, rtol=1e-11, atol=1e-13)
    recorded = [(g, d) for g, d in zip(first, directions, strict=True) if g.requires_grad]
    second = tg.grad([g for g, _ in recorded], tensors, [d for _, d in recorded], allow_unused=True)
    for ours, theirs in zip(second, autograd.grad(directed, every)(*operands), strict=True):
        np.testing.assert_allclose(ours.value, theirs, rtol=1e-10, atol=1e-12)
