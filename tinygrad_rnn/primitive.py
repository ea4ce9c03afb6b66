"""Primitives: an operation on arrays together with its rule, which returns one linear map per operand.

This room knows arrays only. A value of a higher room (a Tensor) takes part by having a method ``__apply_primitive__``; the
first operand that has one is asked to record the call. So the same functions, and the same rules, run on arrays and on Tensors.

Adding a primitive takes four steps: write the forward function under ``@primitive``; give it a rule with ``defrule``; name it in
the case table of the tests; export it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any, overload

import numpy as np

from .errors import ArgumentError, UnsupportedError
from .linear_maps import LinearMap

Rule = Callable[..., tuple[LinearMap, ...]]

PRIMITIVES: dict[str, Primitive] = {}
"""The registry: every transparent primitive by name."""


class Primitive:
    """A differentiable operation.

    ``forward(*operands, **statics)`` computes on arrays. Operands are positional and differentiable; statics are keywords and are
    not. ``rule(out, *operands, **statics)`` returns one :class:`LinearMap` per operand.

    ``elementwise`` says that the operands are broadcast against each other: who records such a call first routes each
    differentiable operand to the common shape and dtype, so that the rule itself never has to sum over broadcast axes. ``quiet``
    says that infinities on the way to the value are in order, and no warning is due. (Recorded calls never warn.)
    """

    def __init__(self, forward: Callable[..., Any], *, name: str, elementwise: bool, quiet: bool = False) -> None:
        self.name = self.__name__ = name
        self.forward = forward
        self.elementwise = elementwise
        self.quiet = quiet
        self.rule: Rule = functools.partial(_no_rule, name)
        self.__doc__ = forward.__doc__
        self.__module__ = getattr(forward, "__module__", __name__)  # NumPy 2.0's ufuncs have none
        self.__wrapped__ = forward
        self.own = type(self) is Primitive and str(self.__module__).partition(".")[0] in ("tinygrad_rnn", "numpy")
        """Whether it belongs to the package; the forward function of one that does not sees the caller's context variables."""

    def defrule(self, rule: Rule) -> Rule:
        """Declare the local Jacobians: ``rule(out, *operands, **statics) -> (LinearMap, …)``, one per operand."""
        self.rule = rule
        return rule

    def __call__(self, *operands: Any, **statics: Any) -> Any:
        for operand in operands:
            apply = getattr(operand, "__apply_primitive__", None)
            if apply is not None:
                return apply(self, operands, statics)
        return self._on_arrays(*operands, **statics)

    def _on_arrays(self, *operands: Any, **statics: Any) -> Any:
        if self.quiet:
            with np.errstate(all="ignore"):
                return self.forward(*operands, **statics)
        return self.forward(*operands, **statics)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a class attribute a primitive is a method, as a function would be."""
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (_lookup, (self.name,))


class Opaque(Primitive):
    """A primitive that is quick because it is closed, and that carries its definition so that it can be opened.

    ``forward(*arrays, **statics)`` returns ``(value, residual)``: the value is an array or a tuple of arrays; the residual is
    whatever the pullback wants to find again. ``definition(*tensors, **statics)`` is the same computation composed from
    transparent primitives. ``joint_pullback(cotangent, value, residual, needed, *arrays, **statics)`` returns one array (or None) per
    operand, where ``needed`` says of each whether its share is asked for; for a value that is a tuple, the cotangent is a list with
    None where nothing arrived. Without a joint pullback the definition is always used: that is what a checkpoint is.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        *,
        name: str,
        definition: Callable[..., Any],
        joint_pullback: Callable[..., tuple[Any, ...]] | None = None,
        exact: bool = False,
        iterated: bool = False,
    ) -> None:
        super().__init__(forward, name=name, elementwise=False)
        self.definition = definition
        self.joint_pullback = joint_pullback
        self.exact = exact
        """Whether the definition must give the value again bit for bit (a checkpoint), or up to rounding (a kernel)."""
        self.iterated = iterated
        """Whether it repeats a step so often that rounding may grow beyond all digits; a difference is then told and not refused."""

    def _on_arrays(self, *operands: Any, **statics: Any) -> Any:
        return self.forward(*operands, **statics)[0]

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise UnsupportedError(f"{self.name}: an opaque primitive belongs to its graph and cannot be pickled; save values instead")


def _no_rule(name: str, *_: Any, **__: Any) -> tuple[LinearMap, ...]:
    raise ArgumentError(f"{name}: this primitive has no rule. Give it one with @{name}.defrule")


def _lookup(name: str) -> Primitive:
    return PRIMITIVES[name]


@overload
def primitive(forward: Callable[..., Any], *, name: str | None = ..., elementwise: bool = ..., quiet: bool = ...) -> Primitive: ...
@overload
def primitive(
    forward: None = ..., *, name: str | None = ..., elementwise: bool = ..., quiet: bool = ...
) -> Callable[[Callable[..., Any]], Primitive]: ...
def primitive(forward: Callable[..., Any] | None = None, *, name: str | None = None, elementwise: bool = False, quiet: bool = False) -> Any:
    """Register a forward function on arrays as a primitive.

    Args:
        name: the registered name; the function's own name by default.
        elementwise: operands are broadcast against each other.
        quiet: infinities on the way to the value are in order.

    Raises:
        ArgumentError: if the name is taken.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn.linear_maps import Scale
        >>> from tinygrad_rnn.primitive import PRIMITIVES, primitive
        >>> @primitive
        ... def cube(x):
        ...     return x * x * x
        >>> @cube.defrule
        ... def _(out, x):
        ...     return (Scale(3.0 * x * x, "⊙ 3{0}²"),)
        >>> x = tg.tensor([2.0], requires_grad=True)
        >>> cube(x).backward()
        >>> x.grad.value
        array([12.])
        >>> del PRIMITIVES["cube"]
    """
    if forward is None:
        return functools.partial(primitive, name=name, elementwise=elementwise, quiet=quiet)
    title = name or forward.__name__
    if title in PRIMITIVES:
        raise ArgumentError(f"primitive: the name {title!r} is taken; choose another, or delete PRIMITIVES[{title!r}] first")
    PRIMITIVES[title] = made = Primitive(forward, name=title, elementwise=elementwise, quiet=quiet)
    return made
