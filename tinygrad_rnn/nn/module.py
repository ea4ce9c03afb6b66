"""Module and Parameter: things with weights, called like functions, whose weights have names."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from ..errors import ArgumentError, DtypeError, ShapeError, StateError
from ..graph import scope
from ..report import aligned
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
        for name, value in vars(self).items():
            if isinstance(value, (Parameter, Module)):
                yield name, value
            elif isinstance(value, (list, dict, tuple)) and value:
                yield from _held(name, value)

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
        """Copies of all parameters' values by dotted name; what :func:`tinygrad_rnn.save` writes and ``load_state_dict`` takes."""
        return {name: parameter.numpy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Unmatched:
        """Rebind all parameters to the values of a ``state_dict``; nothing is changed unless everything fits.

        A parameter that is held in two places has two names. ``state_dict`` gives the first; here any of them will do, and
        several (as in PyTorch) if their values agree. Values are converted to the dtype that the parameter has.

        Args:
            state: values by dotted name, of the parameters' shapes. PyTorch's goes through :func:`tinygrad_rnn.nn.interop.from_torch`.
            strict: whether every parameter must be there and nothing else; otherwise what is missing keeps its value, what is
                unexpected is left aside, and both are returned. A value that does not fit is refused in any case.

        Raises:
            StateError: with the names of all that are missing, unexpected or of another shape, or hold no real numbers.

        Example:
            >>> from tinygrad_rnn import nn
            >>> layer = nn.Linear(2, 1, rng=0)
            >>> layer.load_state_dict({"weight": [[1.0, 2.0]]}, strict=False).missing_keys
            ['bias']
        """
        if not isinstance(state, Mapping):
            raise StateError(f"load_state_dict: expected a dict of names to arrays, got {type(state).__name__}")
        own = dict(self.named_parameters())
        first = {id(parameter): name for name, parameter in own.items()}
        values: dict[str, Any] = {}
        seen, unexpected, unfit = set(), [], []
        for given, value in state.items():
            parameter = own[given] if given in own else self._parameter_at(given)
            if parameter is None:
                unexpected.append(str(given))
                continue
            name = first[id(parameter)]
            seen.add(name)
            try:
                array = _converted(value, parameter, given)
                if not np.array_equal(values.setdefault(name, array), array, equal_nan=True):
                    unfit.append(f"{given} is one parameter with another entry, of other values")
            except (TypeError, ValueError, RuntimeError) as error:
                unfit.append(str(error))
        missing = [name for name in own if name not in seen]
        if unfit or (strict and (missing or unexpected)):
            raise StateError(_misfit(type(self).__name__, missing, unexpected, unfit))
        for name, array in values.items():
            own[name].value = array
        return Unmatched(missing, unexpected)

    def _parameter_at(self, path: Any) -> Parameter | None:
        """The parameter under any of its dotted names, also those by which ``named_parameters`` does not call it."""
        module, rest = self, str(path)
        while True:
            members = dict(module._members())
            if isinstance(found := members.get(rest), Parameter):
                return found
            through = [name for name, member in members.items() if isinstance(member, Module) and rest.startswith(f"{name}.")]
            if not through:
                return None
            module, rest = cast(Module, members[through[0]]), rest[len(through[0]) + 1 :]

    def __repr__(self) -> str:
        lines = []
        for path, module in self.named_modules():
            shapes = [f"{name} {member.shape}" for name, member in module._members() if isinstance(member, Parameter)]
            settings = [f"{name}={value!r}" for name, value in module._settings().items()]
            lines.append("  " * (path.count(".") + 1 if path else 0) + (f"{path}: " if path else "") + type(module).__name__)
            lines[-1] += f"({', '.join(settings + shapes)})"
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows: the modules as a tree, each with its own parameters and how many numbers they hold."""
        rows, seen, total = [], {id(self)}, 0
        pending: deque[tuple[str, Module]] = deque([("", self)])
        while pending:
            path, module = pending.popleft()
            own, inside = [], []
            for name, member in module._members():
                if id(member) not in seen:
                    seen.add(id(member))
                    if isinstance(member, Module):
                        inside.append((f"{path}.{name}" if path else name, member))
                    else:
                        own.append((name, member))
            pending.extendleft(reversed(inside))
            count = sum(member.size for _, member in own)
            total += count
            settings = ", ".join(f"{key}={value!r}" for key, value in module._settings().items())
            shapes = "\n".join(f"{name} {member.shape}" for name, member in own)
            rows.append((path, f"{type(module).__name__}({settings})", shapes, f"{count:,}"))
        caption = f"{len(rows) - 100} more modules" if len(rows) > 100 else ""
        return aligned(("name", "module", "its parameters", "numbers"), rows[:100], f"{total:,} numbers to learn", caption)._repr_html_()

    def _settings(self) -> dict[str, Any]:
        """What ``repr`` says of a module besides its parameters' shapes."""
        return {}


class Unmatched(NamedTuple):
    """What ``load_state_dict`` left aside: parameters without a value, and entries without a parameter."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def _converted(value: Any, parameter: Parameter, name: str) -> Any:
    """The value as an array of the parameter's shape and dtype."""
    array = as_array(value, name)
    if array.shape != parameter.shape:
        raise ShapeError(f"{name} has shape {array.shape}, expected {parameter.shape}")
    try:
        with np.errstate(all="ignore", over="raise"):
            return array.astype(parameter.dtype)
    except FloatingPointError:
        raise DtypeError(f"{name} has values that are too large for {parameter.dtype}") from None


def _misfit(owner: str, missing: list[str], unexpected: list[str], unfit: list[str]) -> str:
    """One message that names everything that does not fit, and the remedy."""
    kinds = {"Missing": ", ".join(missing), "Unexpected": ", ".join(unexpected), "Unfit": "; ".join(unfit)}
    parts = [f"load_state_dict: nothing was loaded into {owner}", *(f"{kind}: {what}" for kind, what in kinds.items() if what)]
    if any(name.rpartition(".")[2].startswith(("bias_ih", "bias_hh")) for name in unexpected):
        parts.append("Two biases are PyTorch's layout: use nn.interop.from_torch(state)")
    elif unfit:
        parts.append("Load the state of a module that was built with the same arguments")
    else:
        parts.append("strict=False leaves missing and unexpected entries aside")
    return ". ".join(parts)


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
    try:
        checked: np.dtype[Any] = np.dtype(np.float64 if dtype is None else dtype)
    except TypeError:
        raise ArgumentError(f"{type(owner).__name__}: dtype must be a floating-point type such as 'float32', got {dtype!r}") from None
    if checked.kind != "f":
        raise ArgumentError(f"{type(owner).__name__}: dtype must be a floating-point type, got {checked}")
    return checked
