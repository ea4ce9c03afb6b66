"""A step's backward multiplications as a list that can be replayed with some of them altered.

The engine records a forward function; here its nodes become edges, each with its linear map, so that "the same backward pass, but this
edge multiplies by W where Wᵀ belongs" is a computation and no guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Node
from ..linear_maps import LinearMap
from ..primitive import Opaque
from ..tensor import Tensor, tensor
from ..transforms import record_sources
from .loops import Loop
from .names import bracketed, constant, names_of, place_of
from .subjects import parts_of

_TOLD = 1
"""The pass of a loop that stands for all."""

Alteration = Callable[["Edge", Any, "Tape"], Any]
"""What an edge does instead: its contribution (None for nothing) from the edge, the cotangent and the tape."""


@dataclass(frozen=True)
class Edge:
    """One backward multiplication, from the node with the number ``source`` to its operand with the number ``target``."""

    source: int
    target: int
    position: int
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
        self.loop = Loop(self.nodes)
        self.names = names_of(self.nodes, self.loop)
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
            symbols = [bracketed(self.names[number[x]] if isinstance(x, Node) else constant(x)) for x in node.operands]
            differentiable = [x for x in node.operands if isinstance(x, Node)]
            for position, (operand, linear_map) in enumerate(zip(node.operands, maps, strict=True)):
                if isinstance(operand, Node):
                    label = linear_map.label.format(*symbols, out=bracketed(self.names[k]))
                    self.edges.append(Edge(k, number[operand], position, linear_map, label, place_of(node), len(differentiable)))
        self._alike: dict[Any, list[int]] = {}
        for k, edge in enumerate(self.edges):
            if edge.source in self.loop.keys:
                self._alike.setdefault((self.loop.keys[edge.source], edge.position), []).append(k)

    def later(self, node: int, passes: int) -> int:
        """The same node so many passes of the loop later: before the first pass what enters there in its place, after the last its last."""
        found = self.loop.later(node, passes)
        if found is not None:
            return found
        row = self.loop.rows[self.loop.keys[node]]
        return row[-1] if passes > 0 else self._entering().get(self.loop.keys[node], row[0])

    def _entering(self) -> dict[Any, int]:
        """By key of a node, what the first pass takes where the others take that node of the pass before."""
        found: dict[Any, int] = {}
        for alike in self._alike.values():
            firsts = [k for k in alike if self.loop.passes[self.edges[k].source] == 0]
            for k in alike:
                edge = self.edges[k]
                if firsts and self.loop.passes.get(edge.target, math.inf) == self.loop.passes[edge.source] - 1:
                    found[self.loop.keys[edge.target]] = self.edges[firsts[0]].target
        return found

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

    def told(self) -> Iterator[tuple[int, Edge]]:
        """The edges that are worth a hypothesis each: of a loop those of one pass (the second), and all that are in none."""
        return ((k, edge) for k, edge in enumerate(self.edges) if self.loop.passes.get(edge.source, _TOLD) == _TOLD)

    def near(self, node: int) -> list[int]:
        """The nodes that a formula at this one may have taken: those of the pass before, its own and the next, and all in no loop."""
        own = self.loop.passes.get(node)
        if own is None:
            return list(range(len(self.nodes)))
        return [k for k in range(len(self.nodes)) if abs(self.loop.passes.get(k, own) - own) <= 1]

    def in_every_pass(self, edge: int) -> list[tuple[int, int]]:
        """The same edge in every pass of the loop, with how many passes later each is; of one in no loop, itself."""
        one = self.edges[edge]
        if one.source not in self.loop.keys:
            return [(edge, 0)]
        now = self.loop.passes[one.source]
        return [(k, self.loop.passes[self.edges[k].source] - now) for k in self._alike[self.loop.keys[one.source], one.position]]

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
        for k, edge in self.told():
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
