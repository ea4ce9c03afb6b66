"""What a picture consists of, as frozen data: no layout, no colours, no graphviz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..linear_maps import Kind

Shape = Literal["root", "state", "gate", "value", "operation", "leaf", "fold"]


@dataclass(frozen=True)
class RenderNode:
    """A value, or a box that stands for many.

    Attributes:
        key: its number in the graph, in topological order from the loss.
        label: the symbol that a reader sees; ``note`` is a second, smaller line (the gate's name, a shape).
        shape: what it is.
        gate: the gate's name, if it belongs to one.
        lane: the number of the highway that it lies on, if it does.
        tooltip: operation, shape and scope.
        steps: the places in ``trace.steps`` of the multiplications inside of a box that stands for many values; else empty.
    """

    key: int
    label: str
    note: str
    shape: Shape
    gate: str | None
    lane: int | None
    tooltip: str
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class RenderEdge:
    """A backward multiplication, or a folded chain of them, from where the cotangent comes to where it goes.

    Attributes:
        source, target: the keys of its nodes.
        kind: "add", "scale", "matmul" or "route"; of a chain, that of its one multiplication.
        label: the multiplication as a reader would write it.
        low, high: the range of its gains; NaN where nothing arrived.
        count: how many edges it stands for.
        lane: the number of the highway that it is a part of, if it is.
        back: by how many time steps it goes back (negative: forward); None within a step and outside of time.
        steps: the places in ``trace.steps`` of the multiplications that it stands for. One that was folded into several edges is in each.
    """

    source: int
    target: int
    kind: Kind
    label: str
    low: float
    high: float
    count: int = 1
    lane: int | None = None
    back: int | None = None
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class RenderCluster:
    """A step of a recurrence, or a run of steps that are not shown.

    Attributes:
        label: such as "t = 3" or "t = 3 … 98".
        layer: the number of its recurrence in :attr:`RenderGraph.layers`.
        first, last: the steps.
        nodes: the keys of the nodes inside.
    """

    label: str
    layer: int
    first: int
    last: int
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class RenderScope:
    """A named part of a computation outside of time, such as a module's call.

    Attributes:
        names: of the scopes from the outermost to this one.
        path: the same as numbers: a module that is called twice has two scopes of one name.
        nodes: the keys of the nodes inside, those of scopes inside it included.
    """

    names: tuple[str, ...]
    path: tuple[int, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class RenderGraph:
    """A picture before it has a layout.

    In the SVG that is drawn from it, node number k is the group of the class ``n<k>``; edge number k is the group, or where it is drawn
    in pieces the groups, of the class ``e<k>``.

    Attributes:
        nodes, edges: in topological order from the loss.
        clusters: in order of layer and time.
        layers: the names of the recurrences.
        lanes: of each layer, whether a highway runs through it; None if it is no recurrence with landmarks.
        count: how many backward multiplications there were before anything was folded.
        rolled: whether the steps are drawn as one.
        scopes: the named parts outside of time, outer ones first.
        forward: whether it is the computation itself that is drawn; edges lead from a result to what it was computed from all the same.
    """

    nodes: tuple[RenderNode, ...]
    edges: tuple[RenderEdge, ...]
    clusters: tuple[RenderCluster, ...]
    layers: tuple[str, ...]
    lanes: tuple[bool | None, ...]
    count: int
    rolled: bool = False
    scopes: tuple[RenderScope, ...] = ()
    forward: bool = False
