"""The checks are checked: rules that are wrong on purpose must be caught, each by the law that is there for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import TinygradError
from tinygrad_rnn.linear_maps import IDENTITY, Identity, LinearMap, MatMul, Route, Scale
from tinygrad_rnn.primitive import PRIMITIVES, Primitive, primitive
from tinygrad_rnn.testing import GradcheckError, gradcheck, gradgradcheck, laws

X = np.array([[0.5, -1.0, 0.3], [0.2, 0.7, -0.4]])


@contextmanager
def planted(forward: Callable[..., Any], rule: Callable[..., Any], *, elementwise: bool = False) -> Iterator[Primitive]:
    """A primitive for a while."""
    made = primitive(forward, name="planted", elementwise=elementwise)
    made.defrule(rule)
    try:
        yield made
    finally:
        del PRIMITIVES["planted"]


def caught(
    law: Callable[..., None], forward: Any, rule: Any, *operands: Any, match: str, elementwise: bool = False, **statics: Any
) -> None:
    with planted(forward, rule, elementwise=elementwise) as made, pytest.raises(GradcheckError, match=match):
        law(made, *(operands or (X,)), **statics)


class Plain(LinearMap):
    """A map out of two functions, of any kind that it likes to be."""

    __slots__ = ("kind", "pull", "push")

    def __init__(self, pull: Any, push: Any, kind: Any = "scale", label: str = "⊙") -> None:
        self.pull, self.push, self.kind, self.label = pull, push, kind, label

    def pullback(self, cotangent: Any) -> Any:
        return self.pull(cotangent)

    def pushforward(self, tangent: Any) -> Any:
        return self.push(tangent)


# -- what is right passes -------------------------------------------------------------------------------------------------------


def test_a_right_rule_obeys_every_law() -> None:
    """The same plantation with the right rule is not caught by anything."""
    with planted(lambda x: x**3, lambda out, x: (Scale(3.0 * x * x, "⊙ 3{0}²"),)) as made:
        laws.check(made, X, holomorphic=True)


def test_the_error_is_an_assertion_and_one_of_ours() -> None:
    """A test runner shows it as a failed assertion; a user catches it with the package's own errors."""
    assert issubclass(GradcheckError, AssertionError)
    assert issubclass(GradcheckError, TinygradError)


def test_the_message_names_operand_entry_expected_and_got() -> None:
    """What is wrong can be read off the message."""
    factor = np.ones_like(X)
    factor[1, 2] = 2.0
    rule = lambda out, x, y: (IDENTITY, Scale(factor))  # noqa: E731
    with planted(lambda x, y: x + y, rule) as made, pytest.raises(GradcheckError) as failure:
        gradcheck(made, X, X)
    text = str(failure.value)
    assert "operand 1, entry (1, 2), to output entry (1, 2): expected 1 " in text
    assert "got 2 by reverse mode" in text


# -- wrong derivatives ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [gradcheck, laws.complex_step])
def test_a_wrong_factor_is_caught(law: Any) -> None:
    """Differences and the complex step both see that 2x² is not the slope of x³."""
    caught(law, lambda x: x**3, lambda out, x: (Scale(2.0 * x * x),), match="expected")


def test_a_wrong_sign_of_the_second_operand_is_caught() -> None:
    """The difference of two operands needs a −1, and the message says which operand lacks it."""
    caught(gradcheck, np.subtract, lambda out, x, y: (IDENTITY, IDENTITY), X, X, match="operand 1, entry")


def test_a_factor_that_is_constant_to_the_tape_is_caught() -> None:
    """Right to first order, but the factor's own derivative is lost."""

    def rule(out: Any, x: Any) -> Any:
        return (Scale(3.0 * np.square(getattr(x, "value", x))),)

    with planted(lambda x: x**3, rule) as made:
        gradcheck(made, X)
        laws.agreement(made, X)
    caught(gradgradcheck, lambda x: x**3, rule, match="gradgradcheck: operand 0.*got 0 by reverse mode")


def test_a_pullback_that_is_not_recorded_is_caught() -> None:
    """A map that computes on the bare arrays gives no second derivative with respect to the cotangent."""
    bare = lambda g: getattr(g, "value", g) * 2.0  # noqa: E731
    caught(laws.agreement, lambda x: 2.0 * x, lambda out, x: (Plain(bare, bare),), match="to be recorded")


def test_a_rule_that_differs_on_tensors_is_caught() -> None:
    """Arrays and Tensors must take the same rule."""

    def rule(out: Any, x: Any) -> Any:
        return (Scale(2.0 * x if isinstance(x, tg.Tensor) else 3.0 * x),)

    caught(laws.agreement, lambda x: 1.5 * x * x, rule, match="pullback on Tensors")


@pytest.mark.parametrize("law", [gradcheck, laws.adjoint])
def test_a_wrong_forward_mode_is_caught(law: Any) -> None:
    """Right in reverse mode, wrong in forward mode: the two are not adjoint."""
    rule = lambda out, x: (Plain(lambda g: g * 2.0, lambda u: u * 3.0),)  # noqa: E731
    caught(law, lambda x: 2.0 * x, rule, match="adjoint")


@pytest.mark.parametrize("law", [gradcheck, laws.adjoint])
def test_a_pullback_that_is_not_linear_is_caught(law: Any) -> None:
    """g · g is right for every basis vector, and wrong."""
    rule = lambda out, x: (Plain(lambda g: g * g, lambda u: u),)  # noqa: E731
    caught(law, lambda x: 1.0 * x, rule, match="linear")


# -- vanishing gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 9e-12, -1e-12, 1.01e-12])
@pytest.mark.parametrize("level", [0.0, 1e-12])
def test_a_vanished_gradient_that_is_wrong_is_caught(slope: float, level: float) -> None:
    """Where the gradient is 1e-12, neither 0 nor 9e-12 will do: nothing is compared with an absolute tolerance."""
    caught(gradcheck, lambda x: 1e-12 * np.sin(x) + level, lambda out, x: (Scale(slope * np.cos(x)),), match="expected")


@pytest.mark.parametrize("slope", [0.0, 9e-12])
def test_a_vanished_gradient_is_seen_beside_a_value_of_one(slope: float) -> None:
    """Rounding hides the gradient 1e-12 of a value near 1 only in its third digit."""
    caught(gradcheck, lambda x: 1.0 + 1e-12 * x, lambda out, x: (Scale(slope),), match="expected 1e-12 by the complex step")


@pytest.mark.parametrize("slope", [0.0, 9e-12])
def test_a_vanished_second_gradient_that_is_wrong_is_caught(slope: float) -> None:
    """The same holds to second order: 1e-12 · x² has the second derivative 2e-12, and no other."""
    wrong = lambda out, x: (Scale(slope * x + (2e-12 - slope) * getattr(x, "value", x)),)  # noqa: E731
    with planted(lambda x: 1e-12 * x * x, wrong) as made:
        gradcheck(made, X)
    caught(gradgradcheck, lambda x: 1e-12 * x * x, wrong, match="gradgradcheck")


def test_a_true_vanished_gradient_passes() -> None:
    """1e-12 is right where it is right, and so is 1e-250."""
    with planted(lambda x, tiny: tiny * np.sin(x), lambda out, x, tiny: (Scale(tiny * np.cos(x)),)) as made:
        for tiny in (1e-12, 1e-250):
            gradcheck(lambda x, tiny=tiny: made(x, tiny=tiny), X)


def test_a_saturated_tanh_passes() -> None:
    """tanh(14) has the slope 2.8e-12, which is lost in its value's rounding to a few digits only."""
    gradcheck(np.tanh, 14.0)


def test_a_minimum_of_zero_passes() -> None:
    """Where value and gradient are both 0, the point's own rounding is all that the differences see."""
    point = np.random.default_rng(0).uniform(-2.0, 2.0, (3, 3, 3))
    gradcheck(lambda x: tg.mse(x, point), point)


def test_what_differences_cannot_decide_is_said() -> None:
    """At a jump the differences know nothing, and a check that decides nothing does not pass."""
    step = lambda x: tg.where(x >= 0.0, 1.0, 0.0) + 0.0 * x  # noqa: E731
    with pytest.raises(GradcheckError, match="expected"):
        gradcheck(step, np.zeros(1))


# -- wrong shapes and sums ----------------------------------------------------------------------------------------------------------


def test_a_missing_sum_over_a_broadcast_axis_is_caught() -> None:
    """The gradient of a repeated row is the sum over the repetitions; one of them alone is wrong."""
    rule = lambda out, x, y: (Scale(y), Plain(lambda g: (g * x)[0], lambda u: u * x))  # noqa: E731
    caught(gradcheck, np.multiply, rule, X, X[0], match="operand 1, entry")
    caught(laws.adjoint, np.multiply, rule, X, X[0], match="adjoint")


@pytest.mark.parametrize("law", [gradcheck, laws.fitting])
def test_a_gradient_of_the_wrong_shape_is_caught(law: Any) -> None:
    """A gradient that was not summed to the operand's shape is refused by its shape."""
    rule = lambda out, x, y: (Scale(y), Scale(x))  # noqa: E731
    caught(law, np.multiply, rule, X, X[0], match=r"operand 1: expected a (gradient|pullback) of shape \(3,\).* got \(2, 3\)")


@pytest.mark.parametrize("law", [gradcheck, laws.fitting])
def test_a_tangent_of_the_wrong_shape_is_caught(law: Any) -> None:
    """So is a pushforward that forgot to broadcast."""
    total = lambda x: np.sum(x, axis=0)  # noqa: E731
    rule = lambda out, x: (Route(lambda u: np.sum(u, axis=0, keepdims=True), lambda g: np.broadcast_to(g, X.shape), "Σ"),)  # noqa: E731
    caught(law, total, rule, match=r"expected a (tangent|pushforward) of shape \(3,\).* got \(1, 3\)")


def test_a_missing_map_is_caught() -> None:
    """One map per operand."""
    caught(laws.fitting, np.add, lambda out, x, y: (IDENTITY,), X, X, match="expected 2 maps from the rule, one per operand, got 1")


@pytest.mark.parametrize("law", [gradcheck, laws.adjoint])
def test_an_index_that_does_not_accumulate_is_caught(law: Any) -> None:
    """An entry that is picked twice receives both cotangents."""
    key = np.array([0, 2, 0])

    def put(g: Any, size: int) -> Any:
        placed = np.zeros(size)
        placed[key] = getattr(g, "value", g)
        return placed

    rule = lambda out, x: (Route(lambda u: u[key], partial(put, size=x.size), "[array]"),)  # noqa: E731
    caught(law, lambda x: x[key], rule, X[0], match="expected")


# -- wrong names ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["scale", "add", "route", "matmul"])
def test_a_mislabelled_kind_is_caught(kind: str) -> None:
    """A map that mixes the entries of a vector with other numbers than 0 and 1 is of none of these kinds."""
    weights = np.arange(9.0).reshape(3, 3)
    rule = lambda out, x: (Plain(lambda g: weights.T @ g, lambda u: weights @ u, kind),)  # noqa: E731
    caught(laws.kinds, lambda x: weights @ x, rule, X[0], match=f"calls itself '{kind}'")


def test_a_scale_that_is_not_diagonal_is_caught() -> None:
    """Softmax as one scale would hide that its Jacobian is full."""

    def softmax(x: Any) -> Any:
        return np.exp(x) / np.sum(np.exp(x))

    def rule(out: Any, x: Any) -> Any:
        move = lambda g: out * (g - np.sum(out * g))  # noqa: E731
        return (Plain(move, move),)

    with planted(softmax, rule) as made:
        gradcheck(made, X[0])
    caught(laws.kinds, softmax, rule, X[0], match="calls itself 'scale'")


def test_an_add_that_scales_and_a_route_that_scales_are_caught() -> None:
    """A factor of 2 makes a scale of both."""
    twice = lambda x: 2.0 * x  # noqa: E731
    caught(laws.kinds, twice, lambda out, x: (Plain(twice, twice, "add"),), match="calls itself 'add'")
    caught(laws.kinds, twice, lambda out, x: (Route(twice, twice, "move"),), match="calls itself 'route'")


def test_a_matmul_on_the_wrong_side_is_caught() -> None:
    """u M and M u differ also where the shapes fit."""
    square = X[:, :2]
    caught(gradcheck, lambda x: x @ square, lambda out, x: (MatMul(square, "left"),), np.eye(2), match="expected")


def test_an_unknown_kind_and_an_unreadable_label_are_caught() -> None:
    """The four kinds are all there are; a label's placeholders are {out}, {0}, {1}, …"""
    same = lambda x: 1.0 * x  # noqa: E731
    caught(laws.fitting, same, lambda out, x: (Plain(same, same, "magic"),), match="one of the kinds")
    caught(laws.labels, same, lambda out, x: (Identity("⊙ {1}"),), match="expected a label")


# -- wrong manners -------------------------------------------------------------------------------------------------------------------


def test_writing_to_an_operand_or_a_cotangent_is_caught() -> None:
    """A rule may not work in place."""

    def forward(x: Any) -> Any:
        x += 1.0
        return x * 1.0

    def doubled(g: Any) -> Any:
        g *= 2.0
        return g

    caught(laws.purity, forward, lambda out, x: (IDENTITY,), X.copy(), match="written to")
    caught(laws.purity, lambda x: 2.0 * x, lambda out, x: (Plain(doubled, lambda u: 2.0 * u),), match="written to")


def test_a_silent_promotion_is_caught() -> None:
    """A float64 constant in a rule makes float64 gradients of float32 operands."""
    factor = np.full(X.shape, 2.0)
    caught(laws.precision, lambda x: x + x, lambda out, x: (Scale(factor),), match="gradient of float32")


def test_a_float32_function_is_refused() -> None:
    """Differences of float32 values decide nothing, so gradcheck asks for float64."""
    with pytest.raises(GradcheckError, match="float64 Tensor, got a Tensor of float32"):
        gradcheck(lambda x: x.astype(np.float32), X)
