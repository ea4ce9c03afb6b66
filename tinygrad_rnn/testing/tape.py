"""A step's backward multiplications as a list that can be replayed with some of them altered.

The engine records a forward function; here its nodes become edges, each with its linear map, so that "the same backward pass, but this
edge multiplies by W where Wᵀ belongs" is a computation and no guess.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Leaf, Node
from ..linear_maps import LinearMap
from ..primitive import Opaque
from ..tensor import Tensor, tensor
from ..transforms import record_sources
from .subjects import parts_of

Alteration = Callable[["Edge", Any, "Tape"], Any]
"""What an edge does instead: its contribution (None for nothing) from the edge, the cotangent and the tape."""


@dataclass(frozen=True)
class Edge:
    """One backward multiplication, from the node with the number ``source`` to its operand with the number ``target``."""

    source: int
    target: int
    map: LinearMap
    label: str
    place: str
    siblings: int

    @property
    def kind(self) -> str:
        """add, scale, matmul or route."""
        return self.map.kind


class Tape:
    """The graph of ``function(*arrays)``.

    Attributes:
        nodes: every node, the latest first.
        edges: in the order of a backward pass.
        outputs, leaves: the numbers of the function's results and arguments; None for a result that depends on none of them.
        names: what messages call each node.
        arrived: by number of the node, the cotangent that the pass under way (or the last one) has brought to it so far.
    """

    arrived: dict[int, Any]

    def __init__(self, function: Callable[..., Any], arrays: Sequence[Any], names: Sequence[str], results: Sequence[str] = ()) -> None:
        inside = [tensor(array, requires_grad=True, name=name) for array, name in zip(arrays, names, strict=True)]
        with record_sources():
            made = parts_of(function(*inside))
        made = [part for part in made if isinstance(part, Tensor)]
        self.results = made
        self.nodes = _nodes([part.node for part in made if part.node is not None])
        number = {node: k for k, node in enumerate(self.nodes)}
        self.outputs = [None if part.node is None else number[part.node] for part in made]
        for x in inside:
            if x.node is not None and x.node not in number:
                number[x.node] = len(self.nodes)
                self.nodes.append(x.node)
        self.leaves = [number[x.node] for x in inside if x.node is not None]
        self.values = [node.value for node in self.nodes]
        self.names = _names(self.nodes)
        for place, name in zip(self.outputs, results, strict=False):
            if place is not None and not self.names[place].isidentifier():
                self.names[place] = name
        self.edges: list[Edge] = []
        for k, node in enumerate(self.nodes):
            if node.primitive is None:
                continue
            if isinstance(node.primitive, Opaque) or isinstance(node.value, tuple):
                raise TypeError("an opaque node has no edges")
            operands = [operand.value if isinstance(operand, Node) else getattr(operand, "value", operand) for operand in node.operands]
            maps = node.primitive.rule(node.value, *operands, **(node.statics or {}))
            symbols = [_bracketed(self.names[number[x]] if isinstance(x, Node) else _constant(x)) for x in node.operands]
            differentiable = [x for x in node.operands if isinstance(x, Node)]
            for operand, linear_map in zip(node.operands, maps, strict=True):
                if isinstance(operand, Node):
                    label = linear_map.label.format(*symbols, out=_bracketed(self.names[k]))
                    self.edges.append(Edge(k, number[operand], linear_map, label, _place(node), len(differentiable)))

    def pull(self, cotangents: Sequence[Any], altered: dict[int, Alteration] | None = None) -> list[Any]:
        """The gradients of the arguments, given the results' cotangents, with some edges altered."""
        altered = altered or {}
        arrived: dict[int, Any] = {}
        self.arrived = arrived
        for place, cotangent in zip(self.outputs, cotangents, strict=True):
            if place is not None and cotangent is not None:
                arrived[place] = arrived[place] + cotangent if place in arrived else cotangent
        for k, edge in enumerate(self.edges):
            cotangent = arrived.get(edge.source)
            if cotangent is None:
                continue
            share = edge.map.pullback(cotangent) if k not in altered else altered[k](edge, cotangent, self)
            if share is not None:
                arrived[edge.target] = arrived[edge.target] + share if edge.target in arrived else share
        return [np.zeros_like(self.values[leaf]) if arrived.get(leaf) is None else arrived[leaf] for leaf in self.leaves]

    @property
    def form(self) -> tuple[Any, ...]:
        """What is the same for the same program at another point."""
        return tuple((edge.source, edge.target, edge.kind) for edge in self.edges)

    def chains(self) -> list[list[int]]:
        """Runs of two or more edges without a branch that only scale, such as the four of 1 / (1 + exp(−a)): one derivative in parts."""
        into: dict[int, list[int]] = {}
        out: dict[int, list[int]] = {}
        for k, edge in enumerate(self.edges):
            into.setdefault(edge.target, []).append(k)
            out.setdefault(edge.source, []).append(k)
        found, used = [], set()
        for k, edge in enumerate(self.edges):
            if k in used or edge.siblings != 1 or edge.kind not in ("add", "scale"):
                continue
            chain = [k]
            while True:
                middle = self.edges[chain[-1]].target
                following = out.get(middle, [])
                if len(into[middle]) != 1 or len(following) != 1 or middle in self.outputs:
                    break
                if self.edges[following[0]].kind not in ("add", "scale"):
                    break
                chain.append(following[0])
            if len(chain) > 1:
                found.append(chain)
                used.update(chain)
        return found


def _nodes(roots: list[Node]) -> list[Node]:
    seen: set[Node] = set()
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending += [operand for operand in node.operands if isinstance(operand, Node)]
    return sorted(seen, key=lambda node: -node.order)


def _constant(operand: Any) -> str:
    value = getattr(operand, "value", operand)
    return getattr(operand, "name", None) or (f"{value.item():.6g}" if np.size(value) == 1 else "a constant")


def _place(node: Node) -> str:
    """The source line that recorded the node, as a reader finds it."""
    if not node.source or "tinygrad_rnn/testing" in node.source.replace("\\", "/"):
        return ""
    file, _, line = node.source.rpartition(":")
    text = linecache.getline(file, int(line)).strip()
    short = text if len(text) <= _WIDE else f"{text[:_WIDE].rstrip()} …"
    return f"line {line}: {short}" if text else f"line {line}"


def _names(nodes: Sequence[Node]) -> list[str]:
    """Given names; otherwise the variable that a source line assigns its last value to; otherwise the formula, if it is short."""
    last: dict[str, Node] = {}
    for node in reversed(nodes):
        if node.source:
            last[node.source] = node
    names: dict[Node, str] = {}
    for node in reversed(nodes):
        names[node] = node.name or _assigned(node, last) or ("a leaf" if isinstance(node, Leaf) else _formula(node, names))
    return [names[node] for node in nodes]


_SIGNS = {"matmul": "@", "multiply": "*", "add": "+", "subtract": "−", "divide": "/"}
_LONG, _WIDE = 30, 60


def _formula(node: Node, names: dict[Node, str]) -> str:
    assert node.primitive is not None
    op = node.primitive.name
    inside = [names[x] if isinstance(x, Node) else _constant(x) for x in node.operands]
    if op == "broadcast_to":
        return inside[0]
    parts = inside if op == "add" else map(_bracketed, inside)
    text = f" {_SIGNS[op]} ".join(parts) if op in _SIGNS else f"{op}({', '.join(inside)})"
    return text if len(text) <= _LONG else op


def _bracketed(text: str) -> str:
    return f"({text})" if any(f" {sign} " in text for sign in _SIGNS.values()) and not text.endswith(")") else text


def _assigned(node: Node, last: dict[str, Node]) -> str | None:
    if not node.source or last.get(node.source) is not node:
        return None
    file, _, line = node.source.rpartition(":")
    try:
        (statement,) = ast.parse(linecache.getline(file, int(line)).strip()).body
    except (SyntaxError, ValueError):
        return None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None
