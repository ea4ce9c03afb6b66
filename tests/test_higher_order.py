"""Modes nest in any order, and every order of derivative is right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import CASES, COMPOSITES, call_of
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.primitive import PRIMITIVES
from tinygrad_rnn.testing import gradcheck, gradgradcheck

X = np.array([0.5, 1.3, 2.1])
FEW = settings(max_examples=max(settings().max_examples // 2, 10))
SMOOTH = ["divide", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "softplus", "sqrt", "square", "negative"]


def tangents(call: Any, operands: tuple[Any, ...]) -> Any:
    """The function x ↦ J(x) u, by forward mode, for a fixed u."""
    rng = np.random.default_rng(1)
    directions = [rng.uniform(0.5, 1.5, x.shape) for x in operands]
    return lambda *xs: tg.jvp(call, xs, directions)[1]


@pytest.mark.parametrize("name", sorted(CASES))
@FEW
@given(data=st.data())
def test_a_tangent_of_a_primitive_can_be_differentiated(name: str, data: st.DataObject) -> None:
    """Reverse over forward and forward over forward agree with differences of the tangent."""
    operands, statics = data.draw(CASES[name].examples)
    operands = operands[0] if name == "item" else operands
    function = CASES[name].call or PRIMITIVES[name]
    gradcheck(tangents(lambda *xs: function(*xs, **statics), operands), *operands)


@pytest.mark.parametrize("name", sorted(COMPOSITES))
@FEW
@given(data=st.data())
def test_a_tangent_of_a_composite_can_be_differentiated(name: str, data: st.DataObject) -> None:
    """The same through many primitives."""
    operands, statics = data.draw(COMPOSITES[name].examples)
    function = call_of(name, COMPOSITES[name])
    gradcheck(tangents(lambda *xs: function(*xs, **statics), operands), *operands)


@pytest.mark.parametrize("name", SMOOTH)
def test_third_and_fourth_derivatives(name: str) -> None:
    """Gradients of gradients of gradients are as good as gradients."""
    primitive = PRIMITIVES[name]

    def slope(x: Any) -> Any:
        out = primitive(1.0, x) if name == "divide" else primitive(x)
        return tg.grad(out, x, np.ones(out.shape), create_graph=True)[0]

    def curvature(x: Any) -> Any:
        return tg.grad(slope(x), x, np.ones(x.shape), create_graph=True, allow_unused=True)[0]

    gradcheck(slope, X)
    gradgradcheck(slope, X)
    if name not in ("negative", "square"):  # their curvature is a constant, so there is nothing to differentiate
        gradgradcheck(curvature, X)


def test_tenth_derivative() -> None:
    """The tenth derivative of sin is −sin, through ten recorded backward passes."""
    x = tg.tensor(X, requires_grad=True)
    y = tg.sin(x)
    for _ in range(10):
        (y,) = tg.grad(y, x, np.ones(3), create_graph=True)
    np.testing.assert_allclose(y.value, -np.sin(X), rtol=1e-13)


def test_forward_mode_nests_in_itself() -> None:
    """Five nested pushforwards of eˣ give eˣ."""

    def derivative(fn: Any) -> Any:
        return lambda x: tg.jvp(fn, x, 1.0)[1]

    fn = np.exp
    for _ in range(5):
        fn = derivative(fn)
    assert fn(tg.tensor(0.5)).item() == pytest.approx(math.exp(0.5), rel=1e-14)


@pytest.mark.parametrize("inner", ["jvp", "vjp", "grad"])
@pytest.mark.parametrize("outer", ["jvp", "vjp", "grad"])
def test_perturbations_are_not_confused(inner: str, outer: str) -> None:
    """d/dx (x · d/dy (x + y)) is 1: the inner derivative does not see the outer one's variable (Siskind and Pearlmutter 2005)."""

    def derivative(mode: str, fn: Any, at: Any) -> Any:
        if mode == "jvp":
            return tg.jvp(fn, at, 1.0)[1]
        if mode == "vjp":
            return tg.vjp(fn, at)[1](1.0)[0]
        point = tg.tensor(at, requires_grad=True) if not isinstance(at, tg.Tensor) or at.node is None else at
        return tg.grad(fn(point), point, create_graph=True)[0]

    result = derivative(outer, lambda x: x * derivative(inner, lambda y: x + y, 2.0), 3.0)
    assert result.item() == 1.0


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "matmul", "concatenate", "select"])
def test_one_tensor_as_both_operands(name: str) -> None:
    """A Tensor that is both operands of one operation has two edges, and its gradient is their sum."""
    statics = {"concatenate": {"axis": 1}, "select": {"condition": np.eye(3, dtype=bool)}}.get(name, {})
    square = np.random.default_rng(0).uniform(0.5, 1.5, (3, 3))
    gradcheck(lambda x: PRIMITIVES[name](x, x, **statics), square)
    gradgradcheck(lambda x: PRIMITIVES[name](x, x, **statics), square)


def test_a_long_composition() -> None:
    """A small recurrent network, with its weights and its first state, is right to second order."""
    rng = np.random.default_rng(0)
    shapes = (3, 2, 2), (2, 2), (2, 2), (2,), (2, 2)

    def network(xs: Any, w: Any, u: Any, b: Any, h: Any) -> Any:
        for x in xs:
            h = np.tanh(x @ w + h @ u + b)
        return tg.cross_entropy(h, [0, 1])

    weights = [rng.normal(size=shape) for shape in shapes]
    gradcheck(network, *weights)
    gradgradcheck(network, *weights)


@pytest.mark.parametrize("transform", [tg.jacobian, tg.hessian])
def test_jacobian_and_hessian_can_be_differentiated(transform: Any) -> None:
    """A matrix of derivatives is a function like any other."""

    def fn(x: Any) -> Any:
        return np.sum(np.sin(x) * x[::-1]) if transform is tg.hessian else np.sin(x) * x[::-1]

    gradcheck(lambda x: transform(fn, x), X)
    gradgradcheck(lambda x: transform(fn, x), X)


def test_a_hessian_is_what_differences_say() -> None:
    """And it is symmetric."""
    matrix = tg.hessian(lambda x: np.prod(x) + np.exp(x[0] * x[1]), X).value
    a, b, c = X
    e = math.exp(a * b)
    expected = [[b * b * e, c + e + a * b * e, b], [c + e + a * b * e, a * a * e, a], [b, a, 0.0]]
    np.testing.assert_allclose(matrix, expected, rtol=1e-13, atol=1e-15)
