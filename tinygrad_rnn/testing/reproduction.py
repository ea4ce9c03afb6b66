"""A broken law says how to see it again: code to paste, at operands as small and round as still break it."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import numpy as np

from ..errors import ArgumentError, TinygradError
from ..nn.module import Module
from .as_code import Listing, anew


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
_SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rtol": (lambda x: isinstance(x, (int, float, np.floating)) and 0.0 <= float(x) < math.inf, "a number of at least 0"),
    "seed": (lambda x: isinstance(x, (int, np.integer)) and int(x) >= 0, "a whole number of at least 0"),
}
_OFTEN = 6


def law(check: Law) -> Law:
    """A law whose errors end with a minimal reproduction."""

    own = inspect.signature(check).parameters

    @wraps(check)
    def held(subject: Any, *inputs: Any, **options: Any) -> None:
        for name, (fits, what) in _SETTINGS.items():
            if name in own and name in options and not fits(options[name]):
                raise ArgumentError(f"{check.__name__}: expected {name} to be {what}, got {options[name]!r}")
        try:
            check(subject, *inputs, **options)
        except GradcheckError as error:
            if error.reproduction:
                raise
            smallest = _smallest(check, subject, inputs, options, error.message)
            plainest = _plainer(check, subject, smallest, options, error.message)
            raise GradcheckError(error.message, _code(check.__name__, plainest, smallest, options), smallest) from None

    return held


# -- smaller operands -----------------------------------------------------------------------------------------------------------


def _smallest(check: Law, subject: Any, inputs: tuple[Any, ...], options: dict[str, Any], message: str) -> tuple[Any, ...]:
    """The inputs with axes cut to one entry and numbers rounded, as far as the law breaks in the same way."""
    kind = _kind(message)
    for change in _changes(inputs):
        smaller = _changed(inputs, change)
        if _breaks(check, subject, smaller, options, kind):
            inputs = smaller
    return inputs


def _breaks(check: Law, subject: Any, inputs: tuple[Any, ...], options: dict[str, Any], kind: str) -> bool:
    """Whether the law breaks in this way; where chance is what breaks it, again and again."""
    for _ in range(_OFTEN if check.__name__ == "determinism" else 1):
        try:
            check(subject, *inputs, **options)
        except GradcheckError as error:
            if _kind(error.message) != kind:
                return False
        except Exception:  # an operand that the subject cannot take is no smaller example
            return False
        else:
            return False
    return True


def _without_sign_of_0(array: Any) -> Any:
    return array + 0.0


def _kind(message: str) -> str:
    return re.sub(r"[-+]?\d[\d.e+-]*|\(\s*(\d+,?\s*)*\)", "#", message)


def _changes(inputs: tuple[Any, ...]) -> Iterator[Callable[[Any], Any]]:
    lengths = sorted({length for array in _arrays(inputs) for length in array.shape if length > 1}, reverse=True)[:4]
    for length, keep in itertools.product(lengths, (1, 2)):
        if keep < length:
            yield partial(_cut, length, keep)
    for digits in (2, 1, 0):
        yield lambda array, digits=digits: _without_sign_of_0(np.round(array, digits))  # type: ignore[misc]


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
    return np.array(change(given)) if isinstance(given, np.ndarray) and given.dtype.kind == "f" else given


def _plainer(check: Law, subject: Any, inputs: tuple[Any, ...], options: dict[str, Any], message: str) -> Any:
    """A module with the parameters that its class gives it, or rounded ones, if the law breaks with it in the same way."""
    kind = _kind(message)
    for change in (anew, partial(_rounded, 1), partial(_rounded, 2)) if isinstance(subject, Module) else ():
        try:
            plainer = change(subject)
        except Exception:  # it cannot be made again, or not be copied
            continue
        if _breaks(check, plainer, inputs, options, kind):
            return plainer
    return subject


def _rounded(digits: int, module: Module) -> Module:
    made = copy.deepcopy(module)
    for parameter in made.parameters():
        parameter.value = _without_sign_of_0(np.round(parameter.value, digits))
    return made


def _code(name: str, subject: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> str:
    listing = Listing()
    arguments = [*map(listing.anything, (subject, *inputs)), *(f"{key}={listing.anything(value, key)}" for key, value in options.items())]
    return f"{listing}\nlaws.{name}({', '.join(arguments)})"
