"""Functions of one number, applied to every entry, and choices between two: every local Jacobian is diagonal.

Where a function has a kink, the docstring says which slope is used there; it is PyTorch's choice (but at NaN,
where no slope means anything).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from ..linear_maps import LinearMap, Mask, Scale
from ..primitive import primitive
from .arithmetic import multiply
from .routing import as_operand, as_weak_operand, broadcast_to, shape_of


@primitive(elementwise=True)
def sqrt(x: Any) -> Any:
    """√x, elementwise. Its slope at 0 is +inf; for a length use ``norm``, whose gradient at 0 is 0."""
    return np.sqrt(x)


@sqrt.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(0.5 / out, "⊙ 1/(2·{out})"),)


@primitive(elementwise=True)
def exp(x: Any) -> Any:
    """eˣ, elementwise; +inf on overflow."""
    return np.exp(x)


@exp.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(out, "⊙ {out}"),)


@primitive(elementwise=True)
def expm1(x: Any) -> Any:
    """eˣ − 1, elementwise, exact near 0."""
    return np.expm1(x)


@expm1.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(exp(x), "⊙ exp {0}"),)


@primitive(elementwise=True)
def log(x: Any) -> Any:
    """Natural logarithm, elementwise; −inf at 0. For x·ln x with 0·ln 0 = 0 use ``xlogy(x, x)``."""
    return np.log(x)


@log.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(1.0 / x, "⊙ 1/{0}"),)


@primitive(elementwise=True)
def log1p(x: Any) -> Any:
    """ln(1 + x), elementwise, exact near 0."""
    return np.log1p(x)


@log1p.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(1.0 / (1.0 + x), "⊙ 1/(1 + {0})"),)


@primitive(elementwise=True)
def sin(x: Any) -> Any:
    """Sine, elementwise (radians)."""
    return np.sin(x)


@sin.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(cos(x), "⊙ cos {0}"),)


@primitive(elementwise=True)
def cos(x: Any) -> Any:
    """Cosine, elementwise (radians)."""
    return np.cos(x)


@cos.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(-sin(x), "⊙ (−sin {0})"),)


@primitive(elementwise=True)
def tanh(x: Any) -> Any:
    """Hyperbolic tangent, elementwise."""
    return np.tanh(x)


@tanh.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(1.0 - out * out, "⊙ (1 − {out}²)"),)


@primitive(elementwise=True, quiet=True)
def sigmoid(x: Any) -> Any:
    """Logistic function σ(x) = 1/(1 + e⁻ˣ), elementwise.

    So computed it keeps its full relative precision in the left tail: σ(−30) is right to the last digits, where
    ½(1 + tanh(x/2)) has lost all but four. Far out on the left e⁻ˣ is +inf, and σ is 0, without a warning.
    """
    return 1.0 / (1.0 + np.exp(-1.0 * x))  # not −x, which has no meaning for unsigned and boolean x


@sigmoid.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(out * (1.0 - out), "⊙ {out}(1 − {out})"),)


@primitive(elementwise=True)
def relu(x: Any) -> Any:
    """max(x, 0), elementwise. The slope at 0 is 0."""
    return np.maximum(x, 0)


@relu.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Mask(x > 0, "⊙ [{0} > 0]"),)


@primitive(elementwise=True)
def softplus(x: Any) -> Any:
    """ln(1 + eˣ), elementwise, without overflow."""
    return np.logaddexp(x, 0)


@softplus.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(sigmoid(x), "⊙ σ({0})"),)


@primitive(name="abs", elementwise=True)
def absolute(x: Any) -> Any:
    """|x|, elementwise. The slope at 0 is 0."""
    return np.abs(x)


@absolute.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (Scale(np.sign(x), "⊙ sign {0}"),)


def _share(larger: Any, smaller: Any) -> Any:
    """1 where ``larger`` is the larger one (or one is NaN), ½ at a tie, 0 elsewhere; a plain array also when given Tensors."""
    return 1.0 - 0.5 * ((larger < smaller).astype(larger.dtype) + (larger <= smaller).astype(larger.dtype))


@primitive(elementwise=True)
def maximum(x1: Any, x2: Any) -> Any:
    """The larger of x1 and x2, elementwise; NaN if either is. At a tie each gets half of the gradient."""
    return np.maximum(x1, x2)


@maximum.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    return (Scale(_share(x1, x2), "⊙ [{0} > {1}]"), Scale(_share(x2, x1), "⊙ [{1} > {0}]"))


@primitive(elementwise=True)
def minimum(x1: Any, x2: Any) -> Any:
    """The smaller of x1 and x2, elementwise; NaN if either is. At a tie each gets half of the gradient."""
    return np.minimum(x1, x2)


@minimum.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    return (Scale(_share(x2, x1), "⊙ [{0} < {1}]"), Scale(_share(x1, x2), "⊙ [{1} < {0}]"))


@primitive(elementwise=True)
def select(x: Any, y: Any, *, condition: Any) -> Any:
    """x where the condition holds, y elsewhere; the primitive behind :func:`where`."""
    return np.where(condition, x, y)


@select.defrule
def _(out: Any, x: Any, y: Any, *, condition: Any) -> tuple[LinearMap, ...]:
    return (Mask(condition, "⊙ [chosen]"), Mask(~condition, "⊙ [not chosen]"))


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where ``condition`` holds, y elsewhere, with NumPy's broadcasting of all three.

    The branch that was not taken receives exactly 0, also when the cotangent is infinite. The condition is not differentiated.

    Example:
        >>> import tinygrad_rnn as tg
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
        >>> tg.where(x > 1, x * x, 0.0).sum().backward()
        >>> x.grad.value
        array([0., 4.])
    """
    condition = as_operand(getattr(condition, "value", condition), "where: the condition")
    x, y = as_weak_operand(x, "where"), as_weak_operand(y, "where")
    if condition.dtype.kind == "c":
        raise DtypeError(f"where: expected a boolean condition, got dtype {condition.dtype}")
    condition = condition.astype(bool)  # a copy: a caller may change theirs later
    condition.setflags(write=False)
    shapes = condition.shape, shape_of(x), shape_of(y)
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        named = "condition {}, x {} and y {}".format(*shapes)
        raise ShapeError(
            f"where: {named} do not broadcast; counted from the right, lengths must be equal or 1. Reshape one of them"
        ) from None
    if shape not in shapes[1:]:
        if isinstance(x, (bool, int, float)):
            y = broadcast_to(y, shape)
        else:
            x = broadcast_to(x, shape)
    return select(x, y, condition=condition)


def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """a limited to [a_min, a_max]; either may be None (or called ``min``, ``max``, as in NumPy 2 and PyTorch).

    At a bound the gradient goes to ``a``; beyond it, to the bound.
    """
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    a, low, high = (
        as_operand(a, "clip"),
        low if low is None else as_weak_operand(low, "clip"),
        high if high is None else as_weak_operand(high, "clip"),
    )
    if low is not None:
        a = where(a < low, low, a)
    if high is not None:
        a = where(a > high, high, a)
    return a if low is not None or high is not None else a * 1.0


def xlogy(x: Any, y: Any) -> Any:
    """x · ln y, with 0 · ln y = 0 wherever ln y is not finite (y ≤ 0, y = ∞), and both of its slopes 0 there."""
    x, y = as_weak_operand(x, "xlogy"), as_weak_operand(y, "xlogy")
    nothing = (x == 0) & ((y <= 0) | (y == np.inf))
    return multiply(x, log(where(nothing, 1.0, y)))


def tril(m: Any, k: int = 0) -> Any:
    """The lower triangle of the last two axes: entries above diagonal k become 0."""
    return _keep("tril", m, lambda shape: np.tri(*shape, k=k, dtype=bool))


def triu(m: Any, k: int = 0) -> Any:
    """The upper triangle of the last two axes: entries below diagonal k become 0."""
    return _keep("triu", m, lambda shape: ~np.tri(*shape, k=k - 1, dtype=bool))


def _keep(operation: str, m: Any, triangle: Callable[[tuple[int, int]], Any]) -> Any:
    m = as_operand(m, operation)
    if m.ndim < 2:
        raise ShapeError(f"{operation}: expected at least 2 dimensions, got shape {m.shape}")
    return where(triangle(m.shape[-2:]), m, False)  # False: a zero of every dtype
