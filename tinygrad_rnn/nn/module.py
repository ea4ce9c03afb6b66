"""Module and Parameter: things with weights, called like functions, whose weights have names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..graph import scope
from ..tensor import Tensor


class Parameter(Tensor):
    """A leaf that a module owns and an optimiser rebinds. ``name`` is the symbol that labels and pictures show (W_hh)."""

    __slots__ = ()

    def __init__(self, data: Any, name: str | None = None) -> None:
        super().__init__(data, requires_grad=True, name=name)


class Module:
    """Base of layers: define ``forward``; Parameters and Modules that are set as attributes are found by their names.

    Calling a module opens a scope with its name: that of the attribute that holds it, or its class's in lower case.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> class Double(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = nn.Parameter([2.0], name="w")
        ...     def forward(self, x):
        ...         return x * self.weight
        >>> double = Double()
        >>> double(np.ones(1)).item(), [name for name, _ in double.named_parameters()]
        (2.0, ['weight'])
    """

    training: bool
    _label: str

    def __init__(self) -> None:
        self.training = True
        self._label = type(self).__name__.lower()

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter) and value.name is None:
            value.name = name
        elif isinstance(value, Module):
            value._label = name
        super().__setattr__(name, value)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with scope(self._label, owner=self):
            return self.forward(*arguments, **options)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__}: a module needs a method forward(self, …)")

    def children(self) -> Iterator[tuple[str, Module]]:
        """The modules held directly, by attribute name."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; one that is held in two places comes once."""
        seen: set[int] = set()
        pending: list[tuple[str, Module]] = [(prefix, self)]
        while pending:
            path, module = pending.pop(0)
            for name, value in vars(module).items():
                full = f"{path}.{name}" if path else name
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield full, value
                elif isinstance(value, Module):
                    pending.append((full, value))

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all inside it to training (dropout and the like), or out of it."""
        self.training = mode
        for _, child in self.children():
            child.train(mode)
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
        for name, parameter in own.items():
            if np.shape(state[name]) != parameter.shape:
                raise ShapeError(f"load_state_dict: {name} has shape {np.shape(state[name])}; expected {parameter.shape}")
        values = {name: np.array(state[name], dtype=parameter.dtype) for name, parameter in own.items()}
        for name, parameter in own.items():
            parameter.value = values[name]

    def __repr__(self) -> str:
        inside = [f"{name}={child!r}" for name, child in self.children()]
        inside += [f"{name}: {value.shape}" for name, value in vars(self).items() if isinstance(value, Parameter)]
        return f"{type(self).__name__}({', '.join(inside)})"


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
