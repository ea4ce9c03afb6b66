"""Values, functions, primitives and modules as Python to paste: with the imports, and with all of the program's own that they use."""

from __future__ import annotations
import __future__

import ast
import builtins
import contextlib
import copy
import dataclasses
import functools
import inspect
import itertools
import symtable
import sys
import sysconfig
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from .. import nn
from ..nn.module import Module, Parameter
from ..nn.regularization import Dropout
from ..primitive import PRIMITIVES, Primitive
from ..tensor import Tensor

_MOST, _DEEPEST = 1000, 40
"""Arrays and collections with more entries, and objects inside of more others, are not written out."""

_PASSING = ("_label", "_draw_with")
"""Attributes of a module that do not change what it computes."""

_OPTIONS = {"nonlinearity": ("tanh", "relu"), "reset": ("after", "before"), "dtype": (None, "float32")}
"""What a keyword may have been whose value no attribute keeps as it was given."""


def written(value: Any) -> str:
    """A value as code, to the last bit."""
    if isinstance(value, Tensor):
        return written(value.value)
    if isinstance(value, np.ndarray):
        if value.size > _MOST:
            return f"np.random.default_rng(0).uniform(-1.0, 1.0, {value.shape})"
        kind = "" if value.dtype in (np.float64, np.int64, np.bool_) else f", np.{value.dtype}"
        return f"np.zeros({value.shape}{kind})" if value.size == 0 else f"np.array({_numbers(value.tolist())}{kind})"
    if isinstance(value, np.generic):
        return f"np.{value.dtype}({_numbers(value.item())})"
    if isinstance(value, np.dtype):
        return f"np.dtype({value.name!r})"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(written, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    return _numbers(value) if isinstance(value, float) else repr(value)


def _numbers(values: Any) -> str:
    return repr(values).replace("nan", "np.nan").replace("inf", "np.inf")


class UnwrittenError(Exception):
    """Something that has no text."""


class Listing:
    """Lines of code that define what expressions name.

    Attributes:
        lines: definitions, in an order that runs.
        missing: what could not be written, as comments.
        lazy: whether annotations are not evaluated where the texts come from.
    """

    def __init__(self) -> None:
        self.imports: dict[str, None] = {"import numpy as np": None, "from tinygrad_rnn.testing import laws": None}
        self.lines: list[str] = []
        self.missing: list[str] = []
        self.lazy = False
        self._names: dict[int, str] = {}
        self._taken: set[str] = {"np", "laws"}
        self._open: set[int] = set()
        self._kept: list[Any] = []  # so that no other object is given the same id

    def __str__(self) -> str:
        return "\n".join(["from __future__ import annotations"] * self.lazy + [*self.imports, *self.missing, *self.lines])

    def expression(self, value: Any, wanted: str = "") -> str:
        """Code for a value; what has to be defined first is put into the lines.

        Args:
            wanted: the name under which to define it, if it has to be defined.

        Raises:
            UnwrittenError: if there is none.
        """
        if id(value) in self._names:
            return self._names[id(value)]
        if id(value) in self._open or len(self._open) > _DEEPEST:
            raise UnwrittenError(f"{type(value).__name__} that holds {'itself' if id(value) in self._open else 'too much'}")
        self._open.add(id(value))
        try:
            return self._expression(value, wanted)
        finally:
            self._open.remove(id(value))

    def _expression(self, value: Any, wanted: str) -> str:
        if isinstance(value, (np.ndarray, Tensor)) and value.size > _MOST:
            said = f"# an array of shape {value.shape} is too long to be written; random numbers stand for it"
            self.missing += [] if said in self.missing else [said]
        if (
            value is None
            or value is Ellipsis
            or isinstance(value, (bool, int, float, complex, str, bytes, np.ndarray, np.generic, np.dtype))
        ):
            return "..." if value is Ellipsis else written(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, slice):
            return f"slice({value.start!r}, {value.stop!r}, {value.step!r})"
        if isinstance(value, (tuple, list, set, dict)):
            if len(value) > _MOST:
                raise UnwrittenError(f"{type(value).__name__} of {len(value)} entries")
            return self._collection(value)
        if isinstance(value, np.random.Generator):
            return "np.random.default_rng(0)"
        if isinstance(value, ModuleType):
            return self._module(value, wanted)
        known = self._imported(value, wanted)
        if known:
            return known
        if isinstance(value, Primitive):
            return self._primitive(value)
        if isinstance(value, MethodType):
            return f"{self.expression(value.__self__)}.{value.__name__}"
        if isinstance(value, functools.partial):
            self.imports["import functools"] = None
            given = [*map(self.expression, value.args), *(f"{k}={self.expression(v)}" for k, v in value.keywords.items())]
            return f"functools.partial({', '.join([self.expression(value.func), *given])})"
        if isinstance(value, (FunctionType, type)):
            return self._source(value, wanted)
        if isinstance(value, Module):
            return self._instance(value, wanted or "module")
        if callable(getattr(value, "definition_as", None)):
            name = self._name(value, wanted or type(value).__name__.lower())
            self.imports["import tinygrad_rnn as tg"] = None
            self.lines += value.definition_as(name)
            return name
        if hasattr(value, "__dict__"):
            return self._instance(value, wanted or type(value).__name__.lower())
        raise UnwrittenError(type(value).__name__)

    def anything(self, value: Any, wanted: str = "") -> str:
        """Code for a value; what has no text is a name, and a comment says what stands for."""
        try:
            return self.expression(value, wanted)
        except Exception as error:
            name = self._name(value, wanted or "given")
            self._not_written(name, value, error)
            return name

    def _not_written(self, name: str, value: Any, error: Exception) -> None:
        """A comment says what a name stands for: whatever an object does when it is looked at, the report goes on."""
        what = error if isinstance(error, UnwrittenError) else type(value).__name__
        self.missing.append(f"# {name}: {what}, from the program around it")

    # -- names ----------------------------------------------------------------------------------------------------------------

    def _name(self, value: Any, wanted: str) -> str:
        name = next(n for n in itertools.chain([wanted], (f"{wanted}_{k}" for k in itertools.count(1))) if n not in self._taken)
        self._taken.add(name)
        self._names[id(value)] = name
        self._kept.append(value)
        return name

    def _imported(self, value: Any, wanted: str) -> str:
        """The name under which it can be imported; "" if it is the program's own."""
        if isinstance(value, np.ufunc):
            return f"np.{value.__name__}"
        if isinstance(value, Primitive):
            own = value.rule if isinstance(value.forward, np.ufunc) else value.forward
            if PRIMITIVES.get(value.name) is value and _is_installed(getattr(own, "__module__", None)):
                self.imports["from tinygrad_rnn.primitive import PRIMITIVES"] = None
                return f"PRIMITIVES[{value.name!r}]"
            return ""
        home = getattr(value, "__module__", None)
        name = str(getattr(value, "__qualname__", getattr(value, "__name__", "")))
        if isinstance(home, str) and home.startswith(f"{nn.__name__}.") and getattr(nn, name, None) is value:
            self.imports["from tinygrad_rnn import nn"] = None
            return f"nn.{name}"
        if not isinstance(home, str) or not name or not _is_installed(home) or getattr(sys.modules[home], name, None) is not value:
            return ""
        if home == "builtins":
            return name
        self.imports[f"from {home} import {name}" + (f" as {wanted}" if wanted and wanted != name else "")] = None
        return wanted or name

    def _module(self, module: ModuleType, wanted: str) -> str:
        name = wanted or module.__name__.rpartition(".")[2]
        if not _is_installed(module.__name__):
            raise UnwrittenError(f"module {module.__name__}")
        home, _, last = module.__name__.rpartition(".")
        start = f"from {home} import {last}" if home else f"import {last}"
        self.imports[start + ("" if name == last else f" as {name}")] = None
        return name

    # -- values ---------------------------------------------------------------------------------------------------------------

    def _tensor(self, value: Tensor) -> str:
        if isinstance(value, Parameter):
            self.imports["from tinygrad_rnn import nn"] = None
            return f"nn.Parameter({written(value)})"
        self.imports["import tinygrad_rnn as tg"] = None
        return f"tg.tensor({written(value)}{', requires_grad=True' * value.requires_grad})"

    def _collection(self, value: Any) -> str:
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self.expression(k)}: {self.expression(v)}' for k, v in value.items())}}}"
        inside = ", ".join(map(self.expression, value))
        if hasattr(value, "_fields"):
            return f"{self.expression(type(value))}({inside})"
        if isinstance(value, set):
            return f"{{{inside}}}" if value else "set()"
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"

    def _primitive(self, value: Primitive) -> str:
        """Its forward function and its rule, registered under its name."""
        name = self._name(value, value.name if value.name.isidentifier() else "made")
        self.imports["from tinygrad_rnn.primitive import primitive"] = None
        options = [f"name={value.name!r}", *(f"{key}=True" for key in ("elementwise", "quiet") if getattr(value, key))]
        self.lines.append(f"{name} = primitive({', '.join([self._part(value.forward, name), *options])})")
        self.lines.append(f"{name}.defrule({self._part(value.rule, '_')})")
        return name

    def _part(self, function: Any, name: str) -> str:
        """A function without the decorators that hand it to a primitive."""
        if isinstance(function, np.ufunc):
            return self._imported(function, name)
        text, around = _text(function, decorated=False), _surroundings(function)
        if text is None:
            raise UnwrittenError("a primitive without a text")
        self.use(text, around)
        if function.__name__ == "<lambda>":
            return text
        self.lines += text.splitlines()
        return str(function.__name__)

    def _source(self, value: Any, wanted: str) -> str:
        """A function's or a class's own text, after what it uses from outside."""
        text, around = _text(value), _surroundings(value)
        if text is None:
            raise UnwrittenError(type(value).__name__)
        is_lambda = value.__name__ == "<lambda>"
        name = self._name(value, wanted or ("fn" if is_lambda else value.__name__))
        self.use(text, around)
        if is_lambda:
            self.lines.append(f"{name} = {text}")
        else:
            self.lines += text.splitlines()
            if name != value.__name__:
                self.lines.append(f"{name} = {value.__name__}")
        return name

    def use(self, text: str, around: Mapping[str, Any]) -> None:
        """Define what a text names and does not define itself."""
        self.lazy |= around.get("annotations") is __future__.annotations
        for name in _names_used(text):
            if name in around and name not in self._taken:
                value = around[name]
                try:
                    code = self.expression(value, name)
                except Exception as error:
                    self._taken.add(name)
                    self._not_written(name, value, error)
                    continue
                if code != name:
                    self.lines.append(f"{name} = {code}")
                self._taken.add(name)

    def _held(self, value: Any, name: str) -> str:
        return self.expression(value, name if isinstance(value, Module) else "")

    def _instance(self, value: Any, wanted: str) -> str:
        """An object: made by its class from what it kept, or else filled with its attributes."""
        cls = self.expression(type(value))
        given = _arguments(value)
        if given is None:
            inside = {name: self._held(part, name) for name, part in vars(value).items() if name not in _PASSING}
            name = self._name(value, wanted)
            self.lines.append(f"{name} = {cls}.__new__({cls})")
            self.lines.append(f"vars({name}).update({', '.join(f'{k}={v}' for k, v in inside.items())})")
            return name
        positional, named = given
        code = f"{cls}({', '.join([*map(self.expression, positional), *(f'{k}={self._held(v, k)}' for k, v in named.items())])})"
        if not isinstance(value, Module):
            return code
        name = self._name(value, wanted)
        self.lines.append(f"{name} = {code}{'' if value.training else '.eval()'}")
        state, again = value.state_dict(), _made(value, given).state_dict()
        if any(not np.array_equal(state[k], again[k]) for k in state):
            self.lines.append(f"{name}.load_state_dict({{{', '.join(f'{k!r}: {written(v)}' for k, v in state.items())}}})")
        return name


# -- how an object was made ------------------------------------------------------------------------------------------------------

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _arguments(value: Any) -> Arguments | None:
    """What its class makes an object like it from: what its attributes say, under the names of the arguments; None if nothing does."""
    if dataclasses.is_dataclass(value):
        return (), {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    if not isinstance(value, Module):
        return None
    parameters = inspect.signature(type(value)).parameters.values()
    found: list[Arguments] = []
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        found.append((tuple(module for _, module in value.children()), {}))
    else:
        choices = {p.name: _choices(p, value) for p in parameters}
        plain = {p.name: p.default for p in parameters if p.name != "rng"}
        for chosen in itertools.islice(itertools.product(*choices.values()), 64):
            named = dict(zip(choices, chosen, strict=True))
            found.append(((), {name: kept for name, kept in named.items() if not (name in plain and _same(kept, plain[name]))}))
    for arguments in found:
        try:
            if _alike(_made(value, arguments), value):
                return arguments
        except Exception:  # it wants something else
            continue
    return None


def _choices(parameter: inspect.Parameter, module: Module) -> list[Any]:
    """What an argument may have been."""
    name, default = parameter.name, parameter.default
    held = vars(module).get(name, default)
    if name == "rng":
        return [0]
    if isinstance(held, Dropout):
        return [held.p, default]
    if name in vars(module) and name not in _OPTIONS and not isinstance(held, Tensor):
        return [held] if _same(held, default) else [held, default]
    return [default, not default] if isinstance(default, bool) else list(_OPTIONS.get(name, [default]))


def anew(module: Module) -> Module:
    """A module as its class makes it, with parameters of its own.

    Raises:
        ValueError: if it cannot be seen how to make it.
    """
    arguments = _arguments(module)
    if arguments is None:
        raise ValueError(f"{type(module).__name__} is not made of its attributes")
    return _made(module, arguments)  # type: ignore[no-any-return]


def _made(value: Any, arguments: Arguments) -> Any:
    positional, named = copy.deepcopy(arguments)
    made = type(value)(*positional, **named)
    return made if value.training else made.eval()


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, (bool, int, float, str, tuple)) and (type(one), one) == (type(other), other))


def _alike(one: Any, other: Any) -> bool:
    """Whether two objects compute the same, but for the numbers in their parameters."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return bool((one.shape, one.dtype) == (other.shape, other.dtype))
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype) and np.array_equal(one, other)
    if isinstance(one, np.random.Generator):
        return True
    if isinstance(one, Module):
        one, other = ({k: v for k, v in vars(x).items() if k not in _PASSING} for x in (one, other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    if isinstance(one, functools.partial):
        return _alike((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if dataclasses.is_dataclass(one):
        return all(_alike(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    return one is other or bool(one == other)


# -- texts ------------------------------------------------------------------------------------------------------------------------


def _is_installed(name: str | None) -> bool:
    """Whether a fresh interpreter can import it, wherever it is started: of the standard library, of an installed package, or of ours."""
    module = sys.modules.get(name or "")
    if module is None or name == "__main__":
        return False
    file = getattr(module, "__file__", None)
    places = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return file is None or module.__name__.split(".")[0] == "tinygrad_rnn" or any(Path(file).is_relative_to(place) for place in places)


def _text(value: Any, *, decorated: bool = True) -> str | None:
    """The source of a function or class, a lambda's without what stands around it; None if it has none."""
    if getattr(value, "__name__", "") == "<lambda>":
        return _lambda(value)
    try:
        text = textwrap.dedent(inspect.getsource(value)).rstrip()
        (definition,) = ast.parse(text).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return None
    if not isinstance(definition, (ast.FunctionDef, ast.ClassDef)):
        return None
    return text if decorated else "\n".join(text.splitlines()[definition.lineno - 1 :])


def _lambda(function: Any) -> str | None:
    """The text of a lambda: of those in its file, the innermost one that holds all places of its code."""
    places = [((line, column), (end, last)) for line, end, column, last in function.__code__.co_positions() if line and end and last]
    try:
        lines, _ = inspect.findsource(function)
        bodies = {node.body: node for node in ast.walk(ast.parse("".join(lines))) if isinstance(node, ast.Lambda)}
    except (OSError, SyntaxError):
        return None

    def holds(body: ast.expr) -> bool:
        first, last = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
        return all(first <= start and end <= last for start, end in places)

    holding = [body for body in bodies if holds(body)]
    if not places or not holding:
        return None
    return ast.unparse(bodies[max(holding, key=lambda body: (body.lineno, body.col_offset))])


def _surroundings(value: Any) -> dict[str, Any]:
    """What a function's or class's own text sees outside of itself, by name."""
    if isinstance(value, type):
        around = dict(vars(sys.modules.get(value.__module__, builtins)))
        for function in vars(value).values():
            function = (
                inspect.unwrap(getattr(function, "__func__", function)) if callable(function) or hasattr(function, "__func__") else function
            )
            if isinstance(function, FunctionType):
                around.update(_enclosed(function))
        return around
    function = inspect.unwrap(value)
    return {**function.__globals__, **_enclosed(function)}


def _enclosed(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a name that has no value yet
            found[name] = cell.cell_contents
    return found


def _names_used(text: str) -> list[str]:
    """The names that a text takes from outside, as far as it runs."""
    top = symtable.symtable(f"from __future__ import annotations\n{text}", "", "exec")
    names = [symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced() and not symbol.is_assigned()]
    pending = list(top.get_children())
    while pending:
        table = pending.pop(0)
        pending += table.get_children()
        names += [symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()]
    return list(dict.fromkeys(names))
