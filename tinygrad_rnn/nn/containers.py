"""Modules made of modules: Sequential puts them behind each other, Checkpoint computes one again instead of remembering it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..tensor import Tensor, tensor
from ..transforms import checkpoint
from .module import Module

Function = Callable[[Any], Any]


class Sequential(Module):
    """Modules behind each other: y = f_n(… f_2(f_1(x))).

    Args:
        layers: modules, or plain functions of one Tensor such as ``tg.tanh``. Their names are "0", "1", …, as in PyTorch, in
            ``state_dict`` and in the scopes of a trace.

    ``len``, iteration and indexing work as for a list; a slice is a Sequential of the same modules under the same names.

    Raises:
        ArgumentError: for what cannot be called; when called, if a module hands on a tuple, as the recurrent layers do.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> net = nn.Sequential(nn.Linear(2, 3, rng=0), np.tanh, nn.Linear(3, 1, rng=1))
        >>> net(np.ones((4, 2))).shape, len(net), [name for name, _ in net.named_parameters()]
        ((4, 1), 3, ['0.weight', '0.bias', '2.weight', '2.bias'])
    """

    def __init__(self, *layers: Module | Function) -> None:
        super().__init__()
        for place, layer in enumerate(layers):
            setattr(self, str(place), checked_function(self, f"layer {place}", layer))

    def _named(self) -> list[tuple[str, Module | Function]]:
        return [(name, layer) for name, layer in vars(self).items() if name.isdecimal()]

    def __len__(self) -> int:
        return len(self._named())

    def __iter__(self) -> Iterator[Module | Function]:
        return (layer for _, layer in self._named())

    def __getitem__(self, place: int | slice) -> Any:
        if not isinstance(place, slice):
            if not -len(self) <= place < len(self):
                raise ArgumentError(f"Sequential: there is no layer {place}; expected one in [{-len(self)}, {len(self)})")
            return self._named()[place][1]
        part = Sequential()
        vars(part).update(self._named()[place])  # past __setattr__, which would give the shared modules new names
        return part

    def forward(self, x: Any) -> Any:
        value, before = x, "the input"
        for name, layer in self._named():
            value = layer(one_tensor(self, value, before))
            before = f"layer {name} ({name_of(layer)})"
        return value


class Checkpoint(Module):
    """A module that remembers nothing of its inside: the backward pass computes it again.

    Memory for time, as :func:`tinygrad_rnn.checkpoint`. A function that draws random numbers would draw others the second time, and the
    backward pass would refuse it; here every generator inside the module (a Dropout's) is first set back to where it was, and after
    that to where it is now. So the masks are the same ones, and those of the next call are those they would have been.

    Args:
        module: what is computed again. It takes Tensors by position and anything else by keyword.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> blocks = nn.Sequential(*[nn.Checkpoint(nn.TransformerBlock(4, 2, dropout=0.1, rng=k)) for k in range(24)])
        >>> blocks(np.ones((3, 1, 4))).sum().backward()
        >>> all(parameter.grad is not None for parameter in blocks.parameters())
        True
    """

    def __init__(self, module: Module) -> None:
        super().__init__()
        if not isinstance(module, Module):
            raise ArgumentError(f"Checkpoint: expected a Module, got {type(module).__name__}. For a function use tg.checkpoint")
        self.module = module

    def forward(self, *tensors: Any, **options: Any) -> Any:
        held = (part for _, module in self.module.named_modules() for part in vars(module).values())
        generators = list({id(part): part for part in held if isinstance(part, np.random.Generator)}.values())
        before = [random.bit_generator.state for random in generators]
        again = False

        def run(*inside: Tensor) -> Any:
            nonlocal again
            if not again:
                again = True
                return self.module(*inside, **options)
            now = [random.bit_generator.state for random in generators]
            _set_back(generators, before)
            try:
                return self.module(*inside, **options)
            finally:
                _set_back(generators, now)

        run.__name__ = name_of(self.module)
        return checkpoint(run, *map(as_input, tensors))


def _set_back(generators: list[np.random.Generator], states: list[Any]) -> None:
    for random, at in zip(generators, states, strict=True):
        random.bit_generator.state = at


def as_input(x: Any) -> Tensor:
    """What a layer was given, as a Tensor: Tensors as they are, plain data copied."""
    return x if isinstance(x, Tensor) else tensor(x)


def name_of(layer: Any) -> str:
    """What to call a module or a function in a message."""
    return type(layer).__name__ if isinstance(layer, Module) else getattr(layer, "__name__", type(layer).__name__)


def checked_function(owner: Module, what: str, function: Any) -> Any:
    """A module or a function that was given to a layer.

    Raises:
        ArgumentError: for what cannot be called, and for a class in the place of an object.
    """
    if not callable(function) or (isinstance(function, type) and issubclass(function, Module)):
        made = f"; did you mean {function.__name__}(…)?" if isinstance(function, type) else ""
        raise ArgumentError(f"{type(owner).__name__}: {what} must be a module or a function of one Tensor, got {function!r}{made}")
    return function


def one_tensor(owner: Module, value: Any, source: str) -> Any:
    """What one layer hands to the next, if it is one value.

    Raises:
        ArgumentError: for a tuple, with what to do about it.
    """
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        inside = f"{type(value).__name__}({', '.join(fields)})" if fields else f"a tuple of {len(value)}"
        raise ArgumentError(
            f"{type(owner).__name__}: {source} gave {inside}; expected one Tensor to go on with. A recurrent layer gives (outputs, state): "
            "wrap it in a Module whose forward returns self.layer(x)[0], to go on with the outputs. (In a lambda its parameters are lost)"
        )
    return value
