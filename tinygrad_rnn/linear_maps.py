"""The backward edge as an object.

Reverse-mode differentiation multiplies a cotangent by a transposed local Jacobian. Here that local Jacobian J is a value, a
:class:`LinearMap`, and not a closure: it can be asked what it is (``kind``), multiplied from either side, labelled and drawn.

=========  ==========================  ==========================================  =======================
kind       class                       ``pullback(g)`` = Jᵀ g                       J is
=========  ==========================  ==========================================  =======================
add        :class:`Identity`           g                                           the identity
scale      :class:`Scale`              g ⊙ factor                                  diagonal
matmul     :class:`MatMul`             g Wᵀ, or Wᵀ g                               a matrix ⊗ the identity
route      :class:`Route`              the adjoint routing of g                    zeros and ones
=========  ==========================  ==========================================  =======================

Both products work on NumPy arrays (fast) and on Tensors (recorded, so that they can be differentiated again), because they use
only what the two share. Labels are templates: ``{out}`` stands for the symbol of the node's value, ``{0}``, ``{1}``, … for its
operands; they name the transposed Jacobian Jᵀ as it acts on the cotangent written as a column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

Kind = Literal["add", "scale", "matmul", "route"]
KINDS: tuple[Kind, ...] = ("add", "scale", "matmul", "route")


class LinearMap:
    """A local Jacobian J from one operand to the value of a primitive.

    ``pullback(cotangent)`` is Jᵀ g, the vector–Jacobian product, of the operand's shape; ``pushforward(tangent)`` is J u, the
    Jacobian–vector product, of the value's shape. They are adjoint: ⟨J u, g⟩ = ⟨u, Jᵀ g⟩.
    """

    __slots__ = ("label",)
    kind: ClassVar[Kind]
    label: str

    def pullback(self, cotangent: Any) -> Any:
        raise NotImplementedError

    def pushforward(self, tangent: Any) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r})"


class Identity(LinearMap):
    """J = 1: the cotangent passes unchanged (the edges of a sum)."""

    __slots__ = ()
    kind = "add"

    def __init__(self, label: str = "+") -> None:
        self.label = label

    def pullback(self, cotangent: Any) -> Any:
        return cotangent

    def pushforward(self, tangent: Any) -> Any:
        return tangent


class Scale(LinearMap):
    """J = diag(factor): elementwise multiplication."""

    __slots__ = ("factor",)
    kind = "scale"

    def __init__(self, factor: Any, label: str = "⊙") -> None:
        self.factor = factor
        self.label = label

    def pullback(self, cotangent: Any) -> Any:
        return cotangent * self.factor

    def pushforward(self, tangent: Any) -> Any:
        return tangent * self.factor


class Mask(Scale):
    """J = diag(condition) for a boolean condition: keeps some entries and replaces the others by exactly 0.

    Unlike a product with 0 it also stops an infinite cotangent, so nothing leaks out of the branch that was not taken.
    """

    __slots__ = ()

    def pullback(self, cotangent: Any) -> Any:
        return np.where(self.factor, cotangent, 0.0)

    def pushforward(self, tangent: Any) -> Any:
        return np.where(self.factor, tangent, 0.0)


class MatMul(LinearMap):
    """J multiplies by a matrix, from the right (u ↦ u M) or from the left (u ↦ M u), on the last two axes.

    ``flat=True`` (left only) is for a value that is a stack of matrices while the operand is one matrix that all of them share:
    its pullback sums over the stack, as one matrix product.
    """

    __slots__ = ("flat", "matrix", "side")
    kind = "matmul"

    def __init__(self, matrix: Any, side: Literal["left", "right"], label: str = "·", *, flat: bool = False) -> None:
        self.matrix = matrix
        self.side = side
        self.label = label
        self.flat = flat

    def pullback(self, cotangent: Any) -> Any:
        matrix = self.matrix
        if self.side == "right":
            return cotangent @ matrix.swapaxes(-1, -2)
        if self.flat:
            rows = math.prod(matrix.shape[:-1])
            return matrix.reshape(rows, matrix.shape[-1]).T @ cotangent.reshape(rows, cotangent.shape[-1])
        return matrix.swapaxes(-1, -2) @ cotangent

    def pushforward(self, tangent: Any) -> Any:
        return tangent @ self.matrix if self.side == "right" else self.matrix @ tangent


class Route(LinearMap):
    """J moves entries, repeats them or adds them up: zeros and ones only.

    ``forward`` and ``adjoint`` are functions bound to their keywords (:func:`functools.partial`), so what a route does can be
    read off the object.
    """

    __slots__ = ("adjoint", "forward")
    kind = "route"

    def __init__(self, forward: Callable[[Any], Any], adjoint: Callable[[Any], Any], label: str) -> None:
        self.forward = forward
        self.adjoint = adjoint
        self.label = label

    def pullback(self, cotangent: Any) -> Any:
        return self.adjoint(cotangent)

    def pushforward(self, tangent: Any) -> Any:
        return self.forward(tangent)


class Keyed(Route):
    """A route that an index expression describes."""

    __slots__ = ("key",)

    def __init__(self, forward: Callable[[Any], Any], adjoint: Callable[[Any], Any], label: str, key: Any) -> None:
        super().__init__(forward, adjoint, label)
        self.key = key


class Scatter(Keyed):
    """The route out of a part of the operand, ``x[key]``. Its pullback is zero outside that part.

    A dense array of zeros per use would make T uses of ``x[t]`` cost T². The backward walk therefore does not call ``pullback``: it
    adds every part at its place in one array for the operand.
    """

    __slots__ = ()

    @property
    def injective(self) -> bool:
        """Whether no entry is picked twice."""
        return not may_repeat(self.key)


class Place(Keyed):
    """The route into a part of the value: the adjoint of a :class:`Scatter`, and the same for the forward walk."""

    __slots__ = ()


def may_repeat(key: Any) -> bool:
    """Whether an index expression can pick an entry twice: only integer arrays can."""
    for part in key if key.__class__ is tuple else (key,):  # noqa: SIM110 (a generator takes three times as long)
        if part.__class__ is np.ndarray and part.dtype.kind != "b":
            return True
    return False


def add_at(array: Any, key: Any, part: Any) -> None:
    """Add a part at the places that an index expression picks, as often as it picks them."""
    if may_repeat(key):
        np.add.at(array, key, part)
    else:
        array[key] += part


IDENTITY = Identity()
NEGATE = Scale(-1.0, "⊙ (−1)")
