"""The operators: + − × ÷ and powers. All are elementwise; who records them routes the broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..linear_maps import IDENTITY, NEGATE, LinearMap, Scale
from ..primitive import primitive


@primitive(elementwise=True)
def add(x1: Any, x2: Any) -> Any:
    """Sum x1 + x2, elementwise. Both edges are the identity."""
    return np.add(x1, x2)


@add.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    return (IDENTITY, IDENTITY)


@primitive(elementwise=True)
def subtract(x1: Any, x2: Any) -> Any:
    """Difference x1 − x2, elementwise."""
    return np.subtract(x1, x2)


@subtract.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    return (IDENTITY, NEGATE)


@primitive(elementwise=True)
def multiply(x1: Any, x2: Any) -> Any:
    """Product x1 · x2, elementwise: each operand is the other's factor."""
    return np.multiply(x1, x2)


@multiply.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    return (Scale(x2, "⊙ {1}"), Scale(x1, "⊙ {0}"))


@primitive(elementwise=True)
def divide(x1: Any, x2: Any) -> Any:
    """Quotient x1 / x2, elementwise. Division by 0 gives ±inf or NaN, as in PyTorch."""
    return np.divide(x1, x2)


@divide.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    return (Scale(1.0 / x2, "⊙ 1/{1}"), Scale(-out / x2, "⊙ (−{out}/{1})"))


@primitive(elementwise=True)
def negative(x: Any) -> Any:
    """−x, elementwise."""
    return np.negative(x)


@negative.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (NEGATE,)


@primitive(elementwise=True)
def power(x1: Any, x2: Any) -> Any:
    """x1 to the power x2, elementwise.

    ∂/∂x1 = x2 · x1^(x2−1), which is 0 for x2 = 0 also at x1 = 0. ∂/∂x2 = x1^x2 · ln x1, where 0^x2 · ln 0 counts as 0 for
    x2 ≥ 0. A negative base with an integer exponent is fine; the derivative with respect to such an exponent is NaN. These are
    PyTorch's conventions.
    """
    return np.power(x1, x2)


@power.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    pole = (x2 == 0) & ~np.isfinite(1.0 / getattr(x1, "value", x1))  # there x2 · x1^(x2−1) would be 0 · ∞
    exponent = np.where(pole, 0.0, x2 - 1.0)
    base = np.where((x1 == 0) & (x2 >= 0), 1.0, x1)
    return (
        Scale(x2 * power(x1, exponent), "⊙ {1}·{0}^({1}−1)"),
        Scale(out * np.log(base), "⊙ {out}·ln {0}"),
    )


def reciprocal(x: Any) -> Any:
    """1/x, elementwise; ±inf at 0."""
    return divide(1.0, x)


@primitive(elementwise=True)
def square(x: Any) -> Any:
    """x², elementwise."""
    return np.square(x)


@square.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(2.0 * x, "⊙ 2{0}"),)
