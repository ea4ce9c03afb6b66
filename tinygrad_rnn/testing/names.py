"""What a reader calls the nodes of a recorded program: the variable of its own that holds the value, or else a formula."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Sequence
from typing import Any

from ..graph import Leaf, Node
from .loops import Loop

_SIGNS = {"matmul": "@", "multiply": "*", "add": "+", "subtract": "−", "divide": "/"}
_LONG, _WIDE = 30, 60


def names_of(nodes: Sequence[Node], loop: Loop) -> list[str]:
    """Given names; otherwise the variable that a source line assigns the value to (in each pass of a loop); otherwise the formula, if it is
    short.
    """
    variables = _variables(nodes, loop)
    names: dict[Node, str] = {}
    for node in reversed(nodes):
        names[node] = node.name or variables.get(node) or ("a leaf" if isinstance(node, Leaf) else _formula(node, names))
    return [names[node] for node in nodes]


def bracketed(text: str) -> str:
    """A formula as a part of another one."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and any(text.startswith(f" {operator} ", place) for operator in _SIGNS.values()):
            return f"({text})"
    return text


def constant(operand: Any) -> str:
    """What stands for an operand that is no node."""
    value = getattr(operand, "value", operand)
    return getattr(operand, "name", None) or (f"{value.item():.6g}" if getattr(value, "size", 1) == 1 else "a constant")


def place_of(node: Node) -> str:
    """The source line that recorded the node, as a reader finds it."""
    file, line = _source(node)
    if not file or "tinygrad_rnn/testing" in file.replace("\\", "/"):
        return ""
    text = linecache.getline(file, line).strip()
    short = text if len(text) <= _WIDE else f"{text[:_WIDE].rstrip()} …"
    return f"line {line}: {short}" if text else f"line {line}"


def _source(node: Node) -> tuple[str, int]:
    file, _, line = (node.source or "").rpartition(":")
    return (file, int(line)) if file else ("", 0)


def _formula(node: Node, names: dict[Node, str]) -> str:
    assert node.primitive is not None
    op = node.primitive.name
    inside = [names[x] if isinstance(x, Node) else constant(x) for x in node.operands]
    if op == "broadcast_to":
        return inside[0]
    parts = inside if op == "add" else map(bracketed, inside)
    text = f" {_SIGNS[op]} ".join(parts) if op in _SIGNS else f"{op}({', '.join(inside)})"
    return text if len(text) <= _LONG else op


def _variables(nodes: Sequence[Node], loop: Loop) -> dict[Node, str]:
    """The names of variables, by the node that is their value: the last one recorded at the line, or in the function that it calls."""
    recorded = [(loop.passes.get(k), node) for k, node in reversed(list(enumerate(nodes))) if node.primitive is not None and node.source]
    last = {(_source(node), now): place for place, (now, node) in enumerate(recorded)}
    found: dict[Node, str] = {}
    for ((file, line), _), place in last.items():
        statement = _assignment(file, line)
        if statement is None:
            continue
        name, value = statement
        called = _called(value, file)
        if called is None:
            found[recorded[place][1]] = name
            continue
        end = place + 1
        while end < len(recorded) and _source(recorded[end][1])[0] == file and _source(recorded[end][1])[1] in called:
            end += 1
        if end > place + 1:
            found[recorded[end - 1][1]] = name
    return found


def _assignment(file: str, line: int) -> tuple[str, ast.expr] | None:
    """The variable and the expression of a line that assigns one."""
    try:
        (statement,) = ast.parse(linecache.getline(file, line).strip()).body
    except (SyntaxError, ValueError):
        return None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    return None


def _called(value: ast.expr, file: str) -> range | None:
    """The lines of the function whose result is the value: none if it is in another file; None if it is a method, or NumPy's."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
        return None
    try:
        program = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return range(0)
    for node in ast.walk(program):
        is_it = isinstance(node, ast.FunctionDef) and node.name == value.func.id
        is_it |= isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and ast.unparse(node.targets[0]) == value.func.id
        if is_it and isinstance(node, ast.stmt):
            return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return range(0)
