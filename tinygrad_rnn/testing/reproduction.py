"""A broken law says how to see it again: code to paste, at operands as small and round as still break it."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import partial, wraps
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from ..errors import TinygradError
from ..nn.module import Module
from ..primitive import PRIMITIVES, Primitive
from ..tensor import Tensor

_MOST = 200
"""Arrays with more entries are not written out."""


class GradcheckError(TinygradError, AssertionError):
    """A derivative is wrong, or a law is broken; the message names the operand, the entry, what was expected and what came.

    Attributes:
        reproduction: code to paste that breaks the same law; the message ends with it.
        inputs: the inputs of that code.
    """

    def __init__(self, message: str, reproduction: str = "", inputs: tuple[Any, ...] = ()) -> None:
        super().__init__(message + (f"\nTo see it again:\n\n{textwrap.indent(reproduction, '    ')}\n" if reproduction else ""))
        self.message, self.reproduction, self.inputs = message, reproduction, inputs


Law = Callable[..., None]


def law(check: Law) -> Law:
    """A law whose errors end with a minimal reproduction."""

    @wraps(check)
    def held(subject: Any, *inputs: Any, **options: Any) -> None:
        try:
            check(subject, *inputs, **options)
        except GradcheckError as error:
            if error.reproduction:
                raise
            smallest = _smallest(check, subject, inputs, options, error.message)
            raise GradcheckError(error.message, _code(check.__name__, subject, smallest, options), smallest) from None

    return held


# -- smaller operands -----------------------------------------------------------------------------------------------------------


def _smallest(check: Law, subject: Any, inputs: tuple[Any, ...], options: dict[str, Any], message: str) -> tuple[Any, ...]:
    """The inputs with axes cut to one entry and numbers rounded, as far as the law breaks in the same way."""
    kind = _kind(message)
    for change in _changes(inputs):
        smaller = _changed(inputs, change)
        try:
            check(subject, *smaller, **options)
        except GradcheckError as error:
            if _kind(error.message) == kind:
                inputs = smaller
        except Exception:  # an operand that the subject cannot take is no smaller example
            continue
    return inputs


def _kind(message: str) -> str:
    return re.sub(r"[-+]?\d[\d.e+-]*|\(\s*(\d+,?\s*)*\)", "#", message)


def _changes(inputs: tuple[Any, ...]) -> Iterator[Callable[[Any], Any]]:
    lengths = sorted({length for array in _arrays(inputs) for length in array.shape if length > 1}, reverse=True)[:4]
    for length, keep in itertools.product(lengths, (1, 2)):
        if keep < length:
            yield partial(_cut, length, keep)
    for digits in (2, 1, 0):
        yield partial(np.round, decimals=digits)


def _cut(length: int, keep: int, array: Any) -> Any:
    """Every axis of this length, down to ``keep``."""
    return array[tuple(slice(keep if n == length else None) for n in array.shape)]


def _arrays(given: Any) -> list[Any]:
    if isinstance(given, (tuple, list)):
        return [array for part in given for array in _arrays(part)]
    return [given] if isinstance(given, np.ndarray) and given.dtype.kind == "f" else []


def _changed(given: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(given, (tuple, list)):
        inside = [_changed(part, change) for part in given]
        return type(given)(*inside) if hasattr(given, "_fields") else type(given)(inside)
    return change(given).copy() if isinstance(given, np.ndarray) and given.dtype.kind == "f" else given


# -- as code --------------------------------------------------------------------------------------------------------------------


def written(value: Any) -> str:
    """A value as code, to the last bit."""
    if isinstance(value, Tensor):
        return written(value.value)
    if isinstance(value, np.ndarray):
        if value.size > _MOST:
            return f"np.random.default_rng(0).uniform(-1.0, 1.0, {value.shape})"
        kind = "" if value.dtype in (np.float64, np.int64, np.bool_) else f", np.{value.dtype}"
        return f"np.zeros({value.shape}{kind})" if value.size == 0 else f"np.array({_numbers(value.tolist())}{kind})"
    if isinstance(value, np.dtype):
        return f"np.dtype({value.name!r})"
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        inside = ", ".join(map(written, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if hasattr(value, "_fields"):
        return f"({', '.join(map(written, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _numbers(values: Any) -> str:
    return repr(values).replace("nan", "np.nan").replace("inf", "np.inf")


def _code(name: str, subject: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> str:
    lines = ["import numpy as np", "from tinygrad_rnn.testing import laws"]
    before, called = _subject(subject)
    arguments = [called, *map(written, inputs), *(f"{key}={written(value)}" for key, value in options.items())]
    return "\n".join([*lines, *before, f"laws.{name}({', '.join(arguments)})"])


def _subject(subject: Any) -> tuple[list[str], str]:
    """The lines that make the subject, and what it is called in them."""
    if isinstance(subject, Primitive):
        known = PRIMITIVES.get(subject.name) is subject
        return (["from tinygrad_rnn.primitive import PRIMITIVES"], f"PRIMITIVES[{subject.name!r}]") if known else ([], subject.name)
    if isinstance(subject, Module):
        return _module(subject), "module"
    if isinstance(subject, np.ufunc):
        return [], f"np.{subject.__name__}"
    source = _source(subject)
    if source is None:
        name = getattr(subject, "__name__", "fn")
        return [f"# {name}: from the program around it"], name if name.isidentifier() else "fn"
    return source


def _module(module: Module) -> list[str]:
    """The lines that make a module and set its parameters; of one that cannot be made from its own attributes, how it is to be filled."""
    cls = type(module)
    given = {name: vars(module)[name] for name in inspect.signature(cls).parameters if _is_plain(vars(module).get(name))}
    if "rng" in inspect.signature(cls).parameters:
        given["rng"] = 0
    state = module.state_dict()
    try:
        again = cls(**given).state_dict()
        made = {name: np.shape(value) for name, value in again.items()} == {name: np.shape(value) for name, value in state.items()}
    except Exception:  # it wants what it does not keep
        made = False
    where = [] if cls.__module__ in ("__main__", "builtins") else [f"from {cls.__module__} import {cls.__name__}"]
    if not made or "." in cls.__qualname__:
        where = [*textwrap.indent(repr(module), "# ").splitlines(), "module = ...  # as your program makes it"]
    else:
        where.append(f"module = {cls.__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})")
    values = ", ".join(f"{name!r}: {written(np.asarray(value))}" for name, value in state.items())
    return [*where, f"module.load_state_dict({{{values}}})"] if state else where


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def _source(function: Any) -> tuple[list[str], str] | None:
    """A function's own text, with the modules, arrays and numbers that it uses from outside."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
        around = inspect.getclosurevars(function)
    except (OSError, TypeError, ValueError):
        return None
    name = function.__name__
    if name == "<lambda>":
        found = _lambda(function)
        if found is None:
            return None
        name, text = "fn", f"fn = {found}"
    elif not text.startswith("def "):
        return None
    lines = []
    inside = {name: function.__globals__[name] for name in _names_within(function.__code__) if name in function.__globals__}
    for outside, value in sorted({**inside, **around.globals, **around.nonlocals}.items()):
        if isinstance(value, ModuleType):
            if (outside, value.__name__) != ("np", "numpy"):
                lines.append(f"import {value.__name__} as {outside}")
        elif isinstance(value, (np.ndarray, int, float, str)):
            lines.append(f"{outside} = {written(value)}")
        else:
            lines.append(f"# {outside}: {type(value).__name__}, from the program around it")
    return [*lines, *text.rstrip().splitlines()], name


def _names_within(code: CodeType) -> set[str]:
    """The names that functions inside of a function use."""
    nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {name for inner in nested for name in {*inner.co_names, *_names_within(inner)}}


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
