"""Small formulas that a learner types, such as ``4(512·768 + 512)`` or ``1 - f``: read, never executed."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArgumentError

_BINARY: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.MatMult: operator.mul,
}
_UNARY: dict[type[ast.unaryop], Any] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: dict[str, Any] = {
    "tanh": np.tanh,
    "sigmoid": lambda a: 0.5 * (1.0 + np.tanh(0.5 * np.asarray(a))),
    "exp": np.exp,
    "log": np.log,
    "ln": np.log,
    "sqrt": np.sqrt,
}
_SIGNS = str.maketrans({"×": "*", "·": "*", "⊙": "*", "−": "-", "–": "-", "^": "**", "σ": "sigmoid", "\u00a0": " ", "\u202f": ""})
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_LONGEST = 200


def evaluate(text: str, names: Mapping[str, Any] | None = None) -> Any:
    """What a formula comes to: numbers, ``+ - * / ** ( )``, percentages, a few functions, and the given names.

    Multiplication may be written ``*``, ``×``, ``·``, ``⊙``, or left out before a parenthesis; powers ``**``, ``^`` or raised digits;
    commas between groups of three digits are no separators.

    Raises:
        ArgumentError: for anything else, and for what is not a finite number.

    Example:
        >>> from tinygrad_rnn.experiments.expressions import evaluate
        >>> evaluate("4(512·768 + 512)"), evaluate("0.95⁵⁰ "), evaluate("7.7 %"), evaluate("1,574,912")
        (1574912.0, 0.07694497527671315, 0.077, 1574912.0)
    """
    if len(text) > _LONGEST:
        raise ArgumentError(f"formula: {len(text)} characters are too many; expected at most {_LONGEST}")
    plain = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "**" + found[0].translate(_POWERS), text.strip())
    plain = plain.translate(_SIGNS)
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"(\d)\s*\(", r"\1*(", plain)
    plain = re.sub(r"(\d+(?:\.\d*)?|\.\d+)\s*%", r"(\1/100)", plain)
    try:
        value = _value(ast.parse(plain, mode="eval").body, {**(names or {}), "e": math.e})
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ArgumentError(f"formula: {text!r} cannot be read; expected numbers, + - * / ** and parentheses") from None
    except (OverflowError, ZeroDivisionError):
        raise ArgumentError(f"formula: {text!r} is not a finite number") from None
    if np.iscomplexobj(value) or not np.all(np.isfinite(value)):
        raise ArgumentError(f"formula: {text!r} is not a finite number")
    return value


def _value(tree: ast.AST, names: Mapping[str, Any]) -> Any:
    match tree:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            with np.errstate(all="ignore"):
                return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(operand, names))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            with np.errstate(all="ignore"):
                return _FUNCTIONS[name](_value(argument, names))
    raise ValueError
