"""What a law is held against: a function, a primitive, a cell or a layer, seen as one function of flat operands.

Operands are all arrays among the inputs (a state may be a tuple of them) and, for a module, its parameters. The value is one Tensor:
if the subject returns several, they are put side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..nn.module import Module, Parameter
from ..primitive import Primitive
from ..tensor import Tensor, tensor


class Subject:
    """A subject at a point.

    Attributes:
        what: the function, primitive or module itself.
        name: what messages call it.
        arrays: the operands: inputs first, then parameters.
        names: what messages call the operands.
        statics: the keywords that go with every call.
    """

    def __init__(self, what: Any, inputs: Sequence[Any], statics: dict[str, Any]) -> None:
        if not callable(what):
            raise ArgumentError(f"laws: expected a function, a primitive, a cell or a layer, got {type(what).__name__}")
        self.what, self.statics = what, statics
        self.name = name_of(what)
        self.inputs = tuple(inputs)
        self.parameters: dict[str, Parameter] = dict(what.named_parameters()) if isinstance(what, Module) else {}
        self._whole = isinstance(what, Module)
        self.arrays: list[Any] = []
        self.names: list[str] = []
        for position, given in enumerate(self.inputs):
            for path, leaf in _leaves(given, f"operand {position}"):
                if self._differentiable(leaf):
                    self.arrays.append(_float64(leaf))
                    self.names.append(path)
        self.given = len(self.arrays)
        self.arrays += [_float64(parameter) for parameter in self.parameters.values()]
        self.names += [f"parameter {name}" for name in self.parameters]

    def _differentiable(self, leaf: Any) -> bool:
        """Whole numbers given to a module are indices or lengths; elsewhere every number is an operand."""
        if leaf is None or isinstance(leaf, (str, bool)):
            return False
        kind = np.asarray(getattr(leaf, "value", leaf)).dtype.kind
        if kind == "c":
            raise ArgumentError(f"{self.name}: expected operands of real numbers, got complex ones. Pass their parts, x.real and x.imag")
        return kind == "f" or (kind in "iu" and not self._whole)

    def results(self, *operands: Any) -> Any:
        """What the subject returns for these operands, in its own form."""
        if not self.parameters:
            return self.itself(operands)
        values = dict(zip((id(p) for p in self.parameters.values()), operands[self.given :], strict=True))
        return _with(self.what, values)(*self._arguments(operands), **self.statics)

    def itself(self, operands: Sequence[Any]) -> Any:
        """The same with its own parameters: a module is called itself, and no copy of it, so that it may change."""
        return self.what(*self._arguments(operands), **self.statics)

    def _arguments(self, operands: Sequence[Any]) -> list[Any]:
        left = iter(operands[: self.given])
        return [_refilled(given, left, self._differentiable) for given in self.inputs]

    def __call__(self, *operands: Any) -> Tensor:
        """The same as one Tensor."""
        return joined(self.results(*operands))

    def leaves(self) -> list[Tensor]:
        """A fresh leaf per operand."""
        return [tensor(array, requires_grad=True, name=None) for array in self.arrays]


def name_of(what: Any) -> str:
    """What messages call a function, primitive or module."""
    return what.name if isinstance(what, Primitive) else getattr(what, "__name__", None) or type(what).__name__


def parts_of(result: Any) -> list[Any]:
    """The Tensors in what a function returned, in order: in tuples, lists and dicts."""
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, (tuple, list)):
        return [part for inner in result for part in parts_of(inner)]
    return [] if result is None else [result]


def joined(result: Any) -> Tensor:
    """One Tensor of what a function returned: itself, or several side by side."""
    parts = parts_of(result)
    for part in parts:
        if not isinstance(part, Tensor):
            raise ArgumentError(
                f"laws: expected a subject that returns Tensors, got {type(part).__name__}. NumPy's functions and ours give Tensors where "
                "they are given some"
            )
    if not parts:
        raise ArgumentError("laws: expected a subject that returns a Tensor, got nothing")
    return parts[0] if len(parts) == 1 else ops.concatenate([ops.ravel(part) for part in parts])  # type: ignore[no-any-return]


def _float64(x: Any) -> Any:
    return np.array(getattr(x, "value", x), dtype=np.float64)


def _is_group(given: Any) -> bool:
    """A tuple, or a list with arrays in it, is a group of operands; a list of numbers is an array."""
    return isinstance(given, tuple) or (isinstance(given, list) and any(isinstance(part, (np.ndarray, Tensor)) for part in given))


def _leaves(given: Any, path: str) -> Iterator[tuple[str, Any]]:
    if _is_group(given):
        fields = getattr(given, "_fields", range(len(given)))
        for field, part in zip(fields, given, strict=True):
            yield from _leaves(part, f"{path}.{field}")
    else:
        yield path, given


def _refilled(given: Any, operands: Iterator[Any], differentiable: Callable[[Any], bool]) -> Any:
    """The argument with operands in the places of its arrays."""
    if _is_group(given):
        inside = [_refilled(part, operands, differentiable) for part in given]
        return type(given)(*inside) if hasattr(given, "_fields") else type(given)(inside)
    return next(operands) if differentiable(given) else given


def _with(held: Any, values: dict[int, Any]) -> Any:
    """A module with other Tensors in the places of its parameters; all else in it is shared, and the module itself stays as it is.

    So what is computed again in the backward pass, as a checkpoint does, is computed with the same Tensors.
    """
    if id(held) in values:
        return values[id(held)]
    if isinstance(held, Module):
        values[id(held)] = other = copy.copy(held)  # before its inside, which may hold it again
        vars(other).update({name: _with(part, values) for name, part in vars(held).items()})
        return other
    if isinstance(held, tuple):
        inside = [_with(part, values) for part in held]
        return type(held)(*inside) if hasattr(held, "_fields") else type(held)(inside)
    if isinstance(held, list):
        return [_with(part, values) for part in held]
    return {key: _with(part, values) for key, part in held.items()} if isinstance(held, dict) else held
