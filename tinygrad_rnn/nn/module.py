"""Module and Parameter: things with weights, called like functions, whose weights have names."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..graph import scope
from ..tensor import Tensor, as_array


class Parameter(Tensor):
    """A leaf that a module owns and an optimiser rebinds. ``name`` is the symbol that labels and pictures show (W_hh)."""

    __slots__ = ()

    def __init__(self, data: Any, name: str | None = None) -> None:
        super().__init__(data, requires_grad=True, name=name)


class Module:
    """Base of layers: define ``forward``; Parameters and Modules that are set as attributes are found by their names.

    A list, tuple or dict of them is looked into: ``self.layers = [nn.Linear(2, 2), …]`` gives ``layers.0.weight`` and so on. Calling a
    module opens a scope with its name: that of the attribute that holds it, or its class's in lower case.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> class Double(nn.Module):
        ...     def __init__(self):
        ...         self.weight = nn.Parameter([2.0], name="w")
        ...     def forward(self, x):
        ...         return x * self.weight
        >>> double = Double()
        >>> double(np.ones(1)).item(), [name for name, _ in double.named_parameters()]
        (2.0, ['weight'])
    """

    training: bool = True
    _label: str | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        for full, held in _held(name, value):
            if isinstance(held, Module):
                held._label = full
            elif held.name is None:
                held.name = full
        super().__setattr__(name, value)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with scope(self._label or type(self).__name__.lower(), owner=self):
            return self.forward(*arguments, **options)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__}: a module needs a method forward(self, …)")

    def _members(self) -> Iterator[tuple[str, Parameter | Module]]:
        return (member for name, value in vars(self).items() for member in _held(name, value))

    def children(self) -> Iterator[tuple[str, Module]]:
        """The modules held directly, by name."""
        return ((name, member) for name, member in self._members() if isinstance(member, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all inside it, level by level, with their dotted names; one that is held in two places comes once."""
        seen: set[int] = {id(self)}
        pending: deque[tuple[str, Module]] = deque([(prefix, self)])
        while pending:
            path, module = pending.popleft()
            yield path, module
            for name, child in module.children():
                if id(child) not in seen:
                    seen.add(id(child))
                    pending.append((f"{path}.{name}" if path else name, child))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; one that is held in two places comes once."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, member in module._members():
                if isinstance(member, Parameter) and id(member) not in seen:
                    seen.add(id(member))
                    yield f"{path}.{name}" if path else name, member

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.grad = None

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all inside it to training (dropout and the like), or out of it."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch out of training."""
        return self.train(False)

    def state_dict(self) -> dict[str, Any]:
        """Copies of all parameters' values by dotted name."""
        return {name: parameter.numpy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Rebind all parameters to the values of a ``state_dict``; nothing is changed unless everything fits.

        Raises:
            ArgumentError: if names are missing or unexpected.
            ShapeError: if a value has another shape than its parameter.
        """
        own = dict(self.named_parameters())
        if missing := sorted(own.keys() - state.keys()):
            raise ArgumentError(f"load_state_dict: missing {missing}; expected {sorted(own)}")
        if unexpected := sorted(state.keys() - own.keys()):
            raise ArgumentError(f"load_state_dict: unexpected {unexpected}; expected {sorted(own)}")
        values = {}
        for name, parameter in own.items():
            value = as_array(state[name], f"load_state_dict: {name}")
            if value.shape != parameter.shape:
                raise ShapeError(f"load_state_dict: {name} has shape {value.shape}; expected {parameter.shape}")
            values[name] = value
        for name, parameter in own.items():
            parameter.value = values[name]

    def __repr__(self) -> str:
        lines = []
        for path, module in self.named_modules():
            shapes = [f"{name} {member.shape}" for name, member in module._members() if isinstance(member, Parameter)]
            lines.append("  " * (path.count(".") + 1 if path else 0) + (f"{path}: " if path else "") + type(module).__name__)
            lines[-1] += f"({', '.join(shapes)})"
        return "\n".join(lines)


def _held(name: str, value: Any) -> Iterator[tuple[str, Parameter | Module]]:
    """The parameters and modules in an attribute: itself, or those in a list, tuple or dict, with their names."""
    if isinstance(value, (Parameter, Module)):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _held(f"{name}.{key}", part)


def checked_size(owner: Module, what: str, size: Any) -> int:
    """A length given to a layer, as an int of at least 1.

    Raises:
        ArgumentError: for anything else.
    """
    if isinstance(size, (bool, np.bool_)) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ArgumentError(f"{type(owner).__name__}: {what} must be a whole number of at least 1, got {size!r}")
    return int(size)


def checked_dtype(owner: Module, dtype: Any) -> np.dtype[Any]:
    """The dtype of a layer's parameters; float64 for None.

    Raises:
        ArgumentError: for one that is not a floating-point type.
    """
    checked: np.dtype[Any] = np.dtype(np.float64 if dtype is None else dtype)
    if checked.kind != "f":
        raise ArgumentError(f"{type(owner).__name__}: dtype must be a floating-point type, got {checked}")
    return checked
