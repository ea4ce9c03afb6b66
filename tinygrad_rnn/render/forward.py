"""``forward_graph``: the picture of a recorded computation."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from ..graph import Constant, Node, Scope
from ..primitive import Opaque
from ..steps import Infos, NodeInfo
from ..tensor import Tensor, lift
from ..trace import trace
from ..walk import expand
from .build import looks, scopes_of, sides
from .dot import dot_lines
from .fold import step_of
from .ledger import cotangents
from .model import RenderCluster, RenderEdge, RenderGraph, RenderNode
from .style import theme_named
from .text import sign

if TYPE_CHECKING:
    from .engine import BackwardGraph


def forward_graph(
    result: Tensor,
    *,
    opened: bool | Collection[str] = False,
    gradients: bool = False,
    theme: str = "light",
    max_nodes: int = 400,
) -> BackwardGraph:
    """Draw the computation that was recorded: operations and values, from the inputs at the bottom (a small one: on the left) to a result.

    A node tells its shape, or its value where that is one number. Scopes, such as the calls of modules, have boxes, and the steps of a
    sequence are columns. A layer that ran as one opaque kernel is one dashed node unless it is opened.

    Args:
        result: a Tensor; all that it was computed from is drawn.
        opened: which opaque nodes are drawn as what they compute: all of them, none, or those of some names ("lstm", "checkpoint").
        gradients: whether values of one entry show ∂result/∂value as well; ``result`` has to be one number.
        theme: "light" or "dark".
        max_nodes: refuse to draw more nodes than this.

    Returns:
        A ``graphviz.Digraph``, as :func:`backward_graph` gives.

    Raises:
        ArgumentError: for what is no recorded Tensor, or for a graph of too many nodes.
        GraphError: for the gradients of a result that is more than one number.
        RenderError: when it is drawn and there is no program that draws, or the program fails.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import render
        >>> a, b = (tg.tensor(value, requires_grad=True, name=name) for value, name in ((2.0, "a"), (-3.0, "b")))
        >>> graph = render.forward_graph(np.tanh(a * b + 6.0), gradients=True)
        >>> [(node.label, node.note) for node in graph.model.nodes]
        [('tanh', '0 | ∂ 1'), ('+', '0 | ∂ 1'), ('⊙', '-6 | ∂ 1'), ('6', ''), ('a', '2 | ∂ -3'), ('b', '-3 | ∂ 2')]
    """
    from .engine import BackwardGraph

    if not isinstance(result, Tensor):
        raise ArgumentError(f"forward_graph: expected a Tensor, got {type(result).__name__}. For a trace there is backward_graph")
    if result.node is None:
        raise ArgumentError("forward_graph: nothing was recorded: no operand requires a gradient, or no_grad() was on")
    paper = theme_named(theme, "forward_graph")
    if not isinstance(opened, (bool, str, Collection)):
        raise ArgumentError(f"forward_graph: opened must be True, False or names of opaque nodes, got {opened!r}")
    if not isinstance(max_nodes, int) or max_nodes < 1:
        raise ArgumentError(f"forward_graph: max_nodes must be a whole number of at least 1, got {max_nodes!r}")
    model = _Recorded(result, opened, gradients, max_nodes).graph()
    return BackwardGraph("forward", dot_lines(model, paper), model)


class _Recorded:
    """The nodes from which a result was computed, in topological order from the result, and what each was computed from."""

    def __init__(self, result: Tensor, opened: bool | Collection[str], gradients: bool, max_nodes: int) -> None:
        self.opened = {opened} if isinstance(opened, str) else opened
        self.max_nodes = max_nodes
        self.infos = Infos()
        self.inside: dict[Node, list[Any]] = {}
        self.ledger = trace(result) if gradients else None
        self.cotangents = {} if self.ledger is None else cotangents(self.ledger)
        assert result.node is not None
        self.root = self._stands(result.node)
        self.operands = self._reached()
        self.order = self._sorted()

    def _stands(self, node: Any) -> Any:
        """What is drawn for an operand: of a value of an opened node what its definition made, of a closed one the node itself."""
        while isinstance(node, Node):
            owner = node.operands[0] if node.primitive is not None and node.primitive.name == "item" else node
            if not isinstance(owner, Node) or not isinstance(owner.primitive, Opaque):
                return node
            if not (self.opened if isinstance(self.opened, bool) else owner.primitive.name.partition("(")[0] in self.opened):
                return owner
            if owner not in self.inside:
                self.inside[owner] = [output.node for output in expand(owner, lift)]
            part = node.statics["index"] if node is not owner and node.statics else 0
            node = self.inside[owner][part]
        return node

    def _reached(self) -> dict[Any, list[Any]]:
        operands: dict[Any, list[Any]] = {}
        todo = [self.root]
        while todo:
            node = todo.pop()
            if node in operands:
                continue
            operands[node] = [self._stands(operand) for operand in node.operands]
            operands[node] = [_Given(part) if not isinstance(part, Node) else part for part in operands[node]]
            todo += [operand for operand in operands[node] if isinstance(operand, Node)]
            if len(operands) > self.max_nodes:
                raise ArgumentError(
                    f"forward_graph: the computation has more nodes than anyone can read; expected at most max_nodes={self.max_nodes}. "
                    "Leave opaque layers closed, draw a smaller part, or raise max_nodes"
                )
        return operands

    def _sorted(self) -> list[Any]:
        """Each node after all that use it, and otherwise as they are met from the result on."""
        uses: dict[Any, int] = {}
        for parts in self.operands.values():
            for part in parts:
                uses[part] = uses.get(part, 0) + 1
        order, ready = [], [self.root]
        while ready:
            node = ready.pop(0)
            order.append(node)
            for part in self.operands.get(node, ()):
                uses[part] -= 1
                if not uses[part]:
                    ready.append(part)
        return order

    def graph(self) -> RenderGraph:
        keys = {node: key for key, node in enumerate(self.order)}
        infos = {node: self.infos.opened(node) if isinstance(node, Node) else node.info for node in self.order}
        edges = [
            RenderEdge(keys[node], keys[part], "route", "", math.nan, math.nan)
            for node in self.order
            for part in self.operands.get(node, ())
        ]
        places = {keys[node]: step_of(info.place) for node, info in infos.items()}
        users: dict[int, set[int]] = {}
        for edge in edges:
            users.setdefault(edge.target, set()).add(edge.source)
        for key in sorted(places):  # what only one step uses is drawn in it
            near = {places[user] for user in users.get(key, ())}
            if places[key] is None and len(near) == 1 and not self.operands.get(self.order[key]):
                places[key] = near.pop()
        nodes = tuple(self._node(key, node, infos[node], timed=places[key] is not None) for node, key in keys.items())
        clusters, layers = _columns(places)
        return RenderGraph(
            nodes=nodes,
            edges=tuple(edges),
            clusters=clusters,
            layers=layers,
            lanes=(),
            count=sum(bool(self.operands.get(node)) for node in self.order),
            scopes=() if clusters else scopes_of({keys[node]: info.place for node, info in infos.items()}, users),
            forward=True,
        )

    def _node(self, key: int, node: Any, info: NodeInfo, *, timed: bool) -> RenderNode:
        leaf = not self.operands.get(node)
        shape, label = looks(info, leaf=leaf)
        if shape == "operation" and info.op != "transpose":
            label = sign(info.op)
        tooltip = f"{info.op} {info.shape}" + (f" in {info.scope}" if info.scope else "")
        if isinstance(node, Node) and isinstance(node.primitive, Opaque):
            values = node.value if isinstance(node.value, tuple) else (node.value,)
            return RenderNode(key, label, ", ".join(sides(np.shape(value)) for value in values), "fold", None, None, f"{tooltip}, closed")
        note = (info.gate or "") if shape == "gate" else self._note(node, info)
        return RenderNode(key, label, "" if timed and shape == "operation" and not note else note, shape, info.gate, None, tooltip)

    def _note(self, node: Any, info: NodeInfo) -> str:
        """The shape of a value, or the number that it is, with its gradient."""
        if math.prod(info.shape) != 1:
            return sides(info.shape)
        if not isinstance(node, Node):
            return "" if info.name is None else f"{float(node.value.item()):.4g}"
        number = f"{float(np.asarray(node.value).item()):.4g}"
        gradient = self._gradient(node)
        return number if gradient is None else f"{number} | ∂ {gradient:.3g}"

    def _gradient(self, node: Node) -> float | None:
        """∂result/∂value, if it was asked for and the value is on the way."""
        if self.ledger is None:
            return None
        try:
            found = self.cotangents.get(self.ledger.node(lift(node)).order)
        except ArgumentError:
            return None
        return None if found is None else float(np.asarray(found).item())


class _Given:
    """A constant where it is used."""

    def __init__(self, constant: Any) -> None:
        self.info = NodeInfo.of_constant(constant)
        self.value = constant.value if isinstance(constant, Constant) else constant


def _columns(places: dict[int, tuple[Scope | str, int] | None]) -> tuple[tuple[RenderCluster, ...], tuple[str, ...]]:
    """A cluster for each step of each recurrence."""
    layers: dict[Scope | str, int] = {}
    members: dict[tuple[int, int], list[int]] = {}
    for key in sorted(places):
        place = places[key]
        if place is not None:
            members.setdefault((layers.setdefault(place[0], len(layers)), place[1]), []).append(key)
    clusters = tuple(RenderCluster(f"t = {time}", layer, time, time, tuple(keys)) for (layer, time), keys in sorted(members.items()))
    return clusters, tuple(layer if isinstance(layer, str) else layer.path for layer in layers)
