"""What a reader sees of the tape: one :class:`BackwardStep` per backward multiplication, with names, kinds and numbers."""

from __future__ import annotations

import math
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np

from .errors import GraphError
from .graph import Mark, Node, Scope
from .linear_maps import Kind, LinearMap, Scatter

_SUBSCRIPTS = str.maketrans("0123456789-", "₀₁₂₃₄₅₆₇₈₉₋")


def subscripted(name: str, time: int | None) -> str:
    """The name with its time: h and 3 give h₃; the subscript goes inside closing parentheses, tanh(c₃)."""
    if time is None:
        return name
    if not name.endswith(")"):
        return name + _subscript(time)
    inner = name.rstrip(")")
    return inner + _subscript(time) + name[len(inner) :]


@lru_cache(maxsize=4096)
def _subscript(time: int) -> str:
    return str(time).translate(_SUBSCRIPTS)


class NodeInfo:
    """What a reader or a picture needs to know of a node; it holds no arrays.

    Attributes:
        order: the node's number, in the order of recording; 0 for a constant.
        op: the primitive's name, "leaf" or "constant".
        name, symbol: the given name (None if there is none); the name with its time as a subscript, or a stand-in.
        shape, dtype: of the value.
        scope, time: the path of scopes, and the step of the sequence (None outside one).
        role, gate, group: the landmark that a layer left ("hidden", "cell", "gate"), the gate's name, the layer's call.
        source: file and line that recorded it, where sources were recorded.
        operands: the same for each operand, filled in for a node whose backward step was seen.
        parts: the same for the values of an opaque node that was opened; their symbols are what its values are called.
    """

    __slots__ = (
        "_part", "_symbol", "dtype", "gate", "group", "name", "op", "operands", "order", "parts", "place", "role",
        "shape", "source", "time",
    )  # fmt: skip

    def __init__(self, note: Note) -> None:
        self.order, self.op, self.name, self.shape, self.dtype, self.source, self._part, self.place, mark, _ = note
        self.operands: tuple[NodeInfo, ...] = ()
        self.parts: tuple[NodeInfo | None, ...] = ()
        self.time: int | None = None if self.place is None else self.place.time
        self.role: str | None = None
        self.gate: str | None = None
        self.group: Scope | None = None
        if mark is not None:
            self.role, self.gate, self.group = mark.role, mark.gate, mark.group
            if mark.time is not None:
                self.time = mark.time
        self._symbol: str | None = None

    def __reduce__(self) -> Any:
        raise GraphError(
            "copy: a trace and its steps belong to their graph and can be neither copied nor pickled; hand on results, or .to_dict()"
        )

    @classmethod
    def of_constant(cls, constant: Any) -> NodeInfo:
        """The info of an operand without gradient: an array, or a :class:`~tinygrad_rnn.graph.Constant` with a name."""
        info: NodeInfo = cls.__new__(cls)
        value = constant if constant.__class__ is np.ndarray else constant.value
        info.order, info.op, info.name = 0, "constant", getattr(constant, "name", None)
        info.shape, info.dtype = value.shape, value.dtype
        info.operands, info.parts, info._part = (), (), 0
        info.source = info.place = info.time = info.role = info.gate = info.group = None
        info._symbol = info.name or (f"{value.item():.6g}" if value.size == 1 else "const")
        return info

    @property
    def scope(self) -> str:
        """The names of the scopes in which the node was recorded, joined by "/"."""
        return "" if self.place is None else self.place.path

    def call_after(self, operand: NodeInfo) -> None:
        """Name a rearrangement after what it rearranges (W_hhᵀ), unless it has a name."""
        if self.name is None and self.op in _REARRANGING:
            symbol = operand.symbol
            turned = self.op == "transpose"
            self._symbol = symbol[:-1] if turned and symbol.endswith("ᵀ") else symbol + "ᵀ" * turned

    @property
    def symbol(self) -> str:
        """How labels and pictures call the node."""
        if self._symbol is None:
            info = self.made
            if info is not self and self.name is None:
                return info.symbol
            if self.name is None and self.op == "item":  # it may still become known
                return self.op
            self._symbol = self.op if self.name is None else subscripted(self.name, self.time)
        return self._symbol

    @property
    def made(self) -> NodeInfo:
        """For a value of an opaque node that was opened: what the definition made of it. Otherwise itself."""
        info, name = self, self.name
        while info.parts or info.op == "item":
            parts = info.operands[0].parts if info.op == "item" and info.operands else info.parts
            inner = parts[info._part] if parts else None
            if inner is None:
                break
            info, name = inner, name or inner.name
        if info.name is None and info is not self:
            info.name = name
        return info

    def __repr__(self) -> str:
        return f"<{self.symbol} {self.shape} #{self.order}>"


Note = tuple[int, str, str | None, tuple[int, ...], Any, str | None, int, Scope | None, Mark | None, tuple[Any, ...]]


def noted(node: Node) -> Note:
    """What an info is made of; a tuple, since a walk takes many notes of which few are read. Operands are given by number."""
    value, primitive = node.value, node.primitive
    if value.__class__ is np.ndarray:
        shape, dtype = value.shape, value.dtype
    else:  # the values of an opaque node
        shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    op = "leaf" if primitive is None else primitive.name
    part = node.statics["index"] if op == "item" and node.statics else 0
    operands = node.operands
    if len(operands) == 1:
        (x,) = operands
        numbers: tuple[Any, ...] = (x.order if isinstance(x, Node) else NodeInfo.of_constant(x),)
    elif len(operands) == 2:
        x, y = operands
        numbers = (
            x.order if isinstance(x, Node) else NodeInfo.of_constant(x),
            y.order if isinstance(y, Node) else NodeInfo.of_constant(y),
        )
    else:
        numbers = tuple([o.order if isinstance(o, Node) else NodeInfo.of_constant(o) for o in operands])
    return node.order, op, node.name, shape, dtype, node.source, part, node.scope, node.mark, numbers


_number = itemgetter(0)


class Infos:
    """The infos of one walk, made once per node: at once, or from notes when the walk is over."""

    def __init__(self) -> None:
        self._known: dict[int, NodeInfo] = {}
        self._notes: list[Note] = []
        self._visits: list[int] = []

    def of(self, node: Any) -> NodeInfo:
        """The info of a node or constant. A nameless rearrangement is called after what it rearranges (W_hhᵀ)."""
        if not isinstance(node, Node):
            return NodeInfo.of_constant(node)
        chain = []
        known = self._known.get(node.order)
        while known is None:
            known = self._known[node.order] = NodeInfo(noted(node))
            if node.name is None and known.op in _REARRANGING:
                chain.append(known)
                node = node.operands[0]
                known = self._known.get(node.order) if isinstance(node, Node) else NodeInfo.of_constant(node)
        for info in reversed(chain):
            info.call_after(known)
            known = info
        return known

    def opened(self, node: Node) -> NodeInfo:
        """The info of a node with its operands'."""
        info = self.of(node)
        info.operands = tuple([self.of(operand) for operand in node.operands])
        return info

    def visit(self, node: Node) -> NodeInfo:
        """The info of a node that a walk has reached, with its operands'; :meth:`numbered` tells them in the walk's order."""
        known, order = self._known, node.order
        self._visits.append(order)
        info = known.get(order) or self.of(node)
        info.operands = tuple([(o.__class__ is Node and known.get(o.order)) or self.of(o) for o in node.operands])
        return info

    def note(self, node: Node) -> None:
        """The same later: take a note of a node, to be made an info by :meth:`numbered`."""
        self._notes.append(noted(node))

    def numbered(self) -> dict[int, NodeInfo]:
        """All infos by the number of their node. Those that were reached have their operands and are numbered anew.

        Node numbers count all that a process ever recorded; the new ones count the nodes of one walk, from the last one reached to the
        first, and are the same in every run. A value of an opened node is from now on what its definition made.
        """
        known, notes = self._known, self._notes
        visits = self._visits or [note[0] for note in notes]
        self._visits, self._notes = [], []
        notes.sort(key=_number)
        for note in notes:
            info = known.get(note[0])
            if info is None:
                info = known[note[0]] = NodeInfo(note)
            info.operands = tuple([known[o] if o.__class__ is int else o for o in note[-1]])
        number = 0
        for order in reversed(visits):
            info = known[order]
            if info.op == "item":
                continue
            info.order = number = number + 1
            for operand in info.operands:
                if operand.op == "item" or operand.parts:
                    info.operands = tuple([o.made for o in info.operands])
                    break
            if len(info.operands) == 1:
                info.call_after(info.operands[0])
        return known


_REARRANGING = frozenset(("transpose", "reshape", "broadcast_to", "astype", "identity"))


def lock(shown: Any) -> None:
    """Make an array read-only before someone is shown it: readers may not write."""
    if shown.__class__ is np.ndarray:
        shown.flags.writeable = False


_FEW = 32768  # entries that are made double precision in less time than it takes to look for rows that need it
_BLOCK = 8192  # BLAS gives a dot product of more than 10,000 entries to several threads, which costs many times what it saves


def norm_of(array: Any) -> float:
    """√Σx², also where the squares would overflow or underflow: 1e-300 is a norm, not 0."""
    with np.errstate(all="ignore"):
        return quiet_norm(array)


def quiet_norm(array: Any) -> float:
    """:func:`norm_of` for where floating-point warnings are off already, as inside a walk."""
    if array.__class__ is np.ndarray and array.size <= _BLOCK:
        flat = array.ravel()
        total = float(flat.dot(flat))
        if 1e-30 < total < 1e30 or (1e-280 < total < 1e280 and flat.dtype.char == "d"):
            return math.sqrt(total)
        return float(_careful_norms(flat[None])[0])
    flat = np.asarray(getattr(array, "value", array)).ravel()
    total = 0.0
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        total += float(part.dot(part))
    return math.sqrt(total) if 1e-30 < total < 1e30 else float(_careful_norms(flat[None])[0])


def norms_of(arrays: Any) -> Any:
    """:func:`norm_of` every entry of the first axis, in one go."""
    flat = arrays.reshape(len(arrays), math.prod(arrays.shape[1:]))
    with np.errstate(all="ignore"):
        if flat.size <= _FEW:
            return _careful_norms(flat)
        totals = np.einsum("ij,ij->i", flat, flat).astype(np.float64)
        norms = np.sqrt(totals)
        least, most = (1e-280, 1e280) if flat.dtype.char == "d" else (1e-30, 1e30)
        doubtful = np.flatnonzero(~((totals > least) & (totals < most)))
        if doubtful.size:
            norms[doubtful] = _careful_norms(flat[doubtful])
    return norms


def _careful_norms(rows: Any) -> Any:
    """The norm of every row, in double precision, and of rows whose squares leave even its range after a division."""
    rows = rows.astype(np.float64)
    totals = np.einsum("ij,ij->i", rows, rows)
    norms = np.sqrt(totals)
    lost = np.flatnonzero(~((totals > 1e-280) & (totals < 1e280)))
    if lost.size:
        peak = np.max(np.abs(rows[lost]), axis=1, initial=0.0)
        unit = np.where((peak > 0) & (peak < math.inf), peak, 1.0)
        divided = rows[lost] / unit[:, None]
        norms[lost] = np.sqrt(np.einsum("ij,ij->i", divided, divided)) * unit
    return norms


def leaving_norm(linear_map: LinearMap, cotangent: Any, contribution: Any, arriving: float) -> float:
    """‖contribution‖, given ‖cotangent‖; None is a part that is placed in the operand's own array."""
    if contribution is not None:
        return arriving if contribution is cotangent else quiet_norm(contribution)
    if isinstance(linear_map, Scatter) and linear_map.injective:  # placing changes no norm, unless a place is taken twice
        return arriving
    return quiet_norm(linear_map.pullback(cotangent))


class BackwardStep:
    """One backward multiplication: cotangent in, local map, contribution out.

    Attributes:
        node: what is known of the node whose value the cotangent belongs to.
        position: the place of the operand that receives the contribution, among the node's operands.
        map: the :class:`~tinygrad_rnn.linear_maps.LinearMap` (None if arrays were not kept).
        cotangent: ∂L/∂(the node's value), total; None if arrays were not kept.
        kind: "add", "scale", "matmul" or "route".
        altered: whether an intervention replaced the contribution.
        template: the label with {out}, {0}, … for the symbols: the same for the same edge of every step.
    """

    __slots__ = ("_contribution", "_norms", "altered", "cotangent", "kind", "map", "node", "position", "template")

    def __init__(self, node: NodeInfo, position: int, linear_map: LinearMap, cotangent: Any, contribution: Any) -> None:
        self.node = node
        self.position = position
        self.map: LinearMap | None = linear_map
        self.kind: Kind = linear_map.kind
        self.template = linear_map.label
        self.cotangent = cotangent
        self._contribution = contribution
        self._norms: tuple[float, float] | None = None
        self.altered = False

    @classmethod
    def of_norms(cls, node: NodeInfo, position: int, kind: Kind, template: str, norms: tuple[float, float]) -> BackwardStep:
        """A step of which only the norms were kept."""
        step: BackwardStep = cls.__new__(cls)
        step.node, step.position = node, position
        step.map = step.cotangent = step._contribution = None
        step.kind, step.template, step._norms, step.altered = kind, template, norms, False
        return step

    @property
    def contribution(self) -> Any:
        """This edge's share of the operand's cotangent, ``map.pullback(cotangent)`` unless altered; None if not kept."""
        if self._contribution is None and self.map is not None:
            # Not kept where it is larger than the cotangent, or placed in the operand's own array.
            return self.map.pullback(self.cotangent)
        return self._contribution

    def replace(self, contribution: Any) -> None:
        """What an intervention does: put another contribution in the place of the computed one."""
        self._contribution = contribution
        self._norms = None
        self.altered = True

    @property
    def operand(self) -> NodeInfo:
        """What is known of the operand that receives the contribution."""
        return self.node.operands[self.position]

    @property
    def op(self) -> str:
        """The primitive's name."""
        return self.node.op

    @property
    def scope(self) -> str:
        """The path of scopes in which the node was recorded."""
        return self.node.scope

    @property
    def time(self) -> int | None:
        """The step of the sequence, if the node was recorded inside one."""
        return self.node.time

    @property
    def source(self) -> str | None:
        """File and line that recorded the node, where sources were recorded."""
        return self.node.source

    @property
    def gate(self) -> str | None:
        """The gate that the contribution goes to, comes from, or is multiplied by; None if there is none."""
        own = self.operand.gate or self.node.gate
        return own or next((other.gate for other in self.node.operands if other.gate), None)

    @property
    def label(self) -> str:
        """The multiplication as a reader would write it, such as "⊙ (1 − h₃²)": the transposed Jacobian on a column."""
        if "{" not in self.template:
            return self.template
        return self.template.format(*(operand.symbol for operand in self.node.operands), out=self.node.symbol)

    @property
    def norms(self) -> tuple[float, float]:
        """‖cotangent‖ and ‖contribution‖ (Frobenius, over the whole batch)."""
        if self._norms is None:
            assert self.map is not None
            with np.errstate(all="ignore"):
                arriving = quiet_norm(self.cotangent)
                self._norms = arriving, leaving_norm(self.map, self.cotangent, self._contribution, arriving)
        return self._norms

    @property
    def gain(self) -> float:
        """‖contribution‖ / ‖cotangent‖; NaN where nothing arrived."""
        arriving, leaving = self.norms
        return leaving / arriving if arriving else math.nan

    def __repr__(self) -> str:
        when = "" if self.time is None else f" t={self.time}"
        return f"<{self.op}{when}: {self.node.symbol} → {self.operand.symbol}  {self.label}  gain {self.gain:.3g}>"
