"""The BPTT matrix: which loss moves which use of a shared weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..linear_maps import MatMul
from ..ops import reshape, stack
from ..report import Result, Table, number, plain
from ..steps import BackwardStep, NodeInfo, norm_of
from ..tensor import Tensor
from ..trace import Trace, trace
from ..transforms import enable_grad
from .pairs import ENTRIES, by_distance, root_of_squares, row_norms
from .stacks import Slab, Stack, between, carry, pull


@dataclass(frozen=True, eq=False)
class BpttMatrix(Result):
    """The gradient of a shared weight by loss and by use: entry (t′, t) is what the loss at t′ contributes through the use at step t.

    Attributes:
        parameter: its name; ``shape`` is its shape.
        loss_time: t′ of every loss, in the order in which they were given; −1 for one that depends on no use.
        time: every step t in which the parameter was used, ascending.
        gates: the blocks of the parameter's rows, in order; one block ("all",) where it has no such blocks.
        norm: (losses, steps), the Frobenius norm of each entry, in units of the gradient.
        gate_norm: (gates, losses, steps), the same per block.
        outside: (losses,), the norm of what arrives through uses outside any step (a penalty on the weight, say).
        local: the sum of the entries with t′ = t, of the parameter's shape: each step's own loss.
        through_time: the sum of all others, and of what came from outside any step. ``local + through_time`` is the gradient.
        gradient: of the sum of the losses, as the backward pass computed it.
    """

    parameter: str
    shape: tuple[int, ...]
    loss_time: Any
    time: Any
    gates: tuple[str, ...]
    norm: Any
    gate_norm: Any
    outside: Any
    local: Any
    through_time: Any
    gradient: Any
    _entry: Callable[[int, int], Any] = field(repr=False, compare=False)

    def entry(self, loss_time: int, time: int, gate: str | None = None) -> Any:
        """One entry in full, of the parameter's shape (or a gate's rows of it): computed when asked for, with one cotangent.

        Args:
            loss_time, time: t′ and t. Several losses of one t′ are added up.
            gate: one of ``gates``.

        Raises:
            ArgumentError: if there is no such loss, step or gate.
        """
        for what, given, known in (("loss", loss_time, self.loss_time), ("use", time, self.time)):
            if given not in known:
                raise ArgumentError(f"entry: there is no {what} at step {given!r}; expected one of {sorted(set(known.tolist()))}")
        if gate is not None and gate not in self.gates:
            raise ArgumentError(f"entry: there is no block {gate!r}; expected one of {', '.join(self.gates)}")
        found = self._entry(loss_time, time)
        if gate is None:
            return found
        return np.split(found, len(self.gates))[self.gates.index(gate)]

    def table(self) -> Table:
        """Root mean square over the entries at a distance, for the whole weight and for every gate."""
        title = f"{self.parameter}: {len(self.loss_time)} losses, {len(self.time)} steps"
        named = [] if len(self.gates) == 1 else list(zip(self.gates, self.gate_norm, strict=True))
        caption = f"local part {number(norm_of(self.local))}, through time {number(norm_of(self.through_time))}"
        return by_distance(title, caption, self.loss_time, self.time, [("norm", self.norm), *named])

    def to_dict(self) -> dict[str, Any]:
        """Every field in types that JSON knows."""
        return {name: plain(getattr(self, name)) for name in self.__dataclass_fields__ if not name.startswith("_")}


def bptt_matrix(losses: Sequence[Tensor], parameter: Tensor, *, times: Sequence[int] | None = None) -> BpttMatrix:
    """Which loss moves which use of a shared weight, in one backward pass over a stack of cotangents, one per loss.

        ∂(Σ L_t′)/∂W = Σ over t′ and t of entry(t′, t),   entry(t′, t) = ∂L_t′/∂W_t   with W_t = W, as step t uses it

    A layer transposes or broadcasts a weight once for all steps; the uses are looked for behind such rearrangements.

    Args:
        losses: scalars of one graph, one per time step as a rule.
        parameter: a Tensor that is used in several steps: W_ih, W_hh, a bias, an input sequence, …
        times: t′ of every loss. By default the steps in order if there are as many losses as steps; otherwise the latest step, in the
            order of the recurrence, through whose use a loss depends on the parameter.

    Returns:
        :class:`BpttMatrix`. Only norms are kept; ``entry(t′, t)`` computes one entry in full.

    Raises:
        ArgumentError: if the losses are not scalars with a graph, do not depend on the parameter, or use it in no step.

    Source:
        Cashman et al. 2017 (RNNbow) show such itemised gradients; the sum over uses is Werbos 1990.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> layer = nn.LSTM(2, 3, rng=0)
        >>> outputs, _ = layer(np.ones((4, 1, 2)))
        >>> found = flow.bptt_matrix([(outputs[t] ** 2).sum() for t in range(4)], layer.weight_hh_l0)
        >>> found.norm.shape, found.gates
        ((4, 4), ('input', 'forget', 'candidate', 'output'))
        >>> everything = sum(found.entry(late, early) for late in range(1, 5) for early in range(1, late + 1))
        >>> bool(np.allclose(everything, found.gradient))
        True
    """
    ledger, seeds = _traced(losses)
    leaf, name = _leaf(ledger, parameter)
    if times is not None and not (isinstance(times, (Sequence, np.ndarray)) and len(times) == len(losses)):
        got = len(times) if isinstance(times, (Sequence, np.ndarray)) else type(times).__name__
        raise ArgumentError(f"bptt_matrix: {len(losses)} losses need as many times, got {got}")
    if times is not None and (wrong := [time for time in times if isinstance(time, bool) or not isinstance(time, (int, np.integer))]):
        raise ArgumentError(f"bptt_matrix: expected times to be whole numbers, the step of each loss, got {wrong[0]!r}")
    uses = Uses(ledger.steps, leaf)
    if not uses.time:
        raise ArgumentError(
            f"bptt_matrix: {name} is used in no step of a sequence; expected a weight that a recurrence shares. Name the steps of your own "
            "loop with tg.scope(time=t)"
        )
    starts = dict(seeds)
    path = between(ledger.steps, starts, uses.family)
    steps = sorted(set(uses.time.values()))
    told = steps if times is None and len(steps) == len(losses) else times
    gates = _blocks(ledger, uses, leaf)
    account = _Account(uses, leaf, len(losses), told, steps, len(gates))
    stacks: dict[int, Stack] = {}
    for order, slab in seeds:
        stacks.setdefault(order, Stack(starts[order].values.shape[1:])).add(None, slab)
    carry(path, stacks, uses.family, tell=account.hear)
    account.finish({order: held for order, held in stacks.items() if order in uses.family})
    loss_time = account.loss_time

    def entry(late: int, early: int) -> Any:
        return _one_entry(path, [pair for pair, time in zip(seeds, loss_time, strict=True) if time == late], uses, leaf, early)

    return BpttMatrix(
        parameter=name,
        shape=leaf.shape,
        loss_time=loss_time,
        time=np.array(steps),
        gates=gates,
        norm=root_of_squares(account.norms),
        gate_norm=np.moveaxis(account.norms, -1, 0),
        outside=root_of_squares(account.outside),
        local=account.local,
        through_time=account.through,
        gradient=ledger.gradients.get(leaf, account.local + account.through),
        _entry=entry,
    )


def _traced(losses: Sequence[Tensor]) -> tuple[Trace, list[tuple[int, Slab]]]:
    """A trace of all losses, and where each enters: the number of its node, and a slab of one bin."""
    if isinstance(losses, Tensor) or not isinstance(losses, Sequence) or not losses:
        raise ArgumentError("bptt_matrix: expected a sequence of scalar Tensors, one per loss; split one Tensor with [l for l in losses]")
    for k, loss in enumerate(losses):
        if not isinstance(loss, Tensor) or loss.size != 1 or loss.node is None:
            got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            why = " without a graph" if isinstance(loss, Tensor) and loss.size == 1 else ""
            raise ArgumentError(f"bptt_matrix: expected loss {k} to be a scalar Tensor with a graph, got {got}{why}. Use .sum() or .mean()")
    with enable_grad():
        ledger = trace(stack([reshape(loss, ()) for loss in losses]), cotangent=np.ones(len(losses)))
    seeds = []
    for k, loss in enumerate(losses):
        info = ledger.node(loss)
        seeds.append((info.order, Slab(k, np.ones((1, *info.shape), info.dtype))))
    return ledger, seeds


def _leaf(ledger: Trace, parameter: Any) -> tuple[NodeInfo, str]:
    if not isinstance(parameter, Tensor):
        raise ArgumentError(
            f"bptt_matrix: expected the parameter to be a Tensor, such as layer.weight_hh_l0, got {type(parameter).__name__}. Pass the "
            "weight itself"
        )
    try:
        info = ledger.node(parameter)
    except ArgumentError as error:
        raise ArgumentError(f"bptt_matrix: the losses do not depend on the parameter. {error}") from None
    return info, info.symbol


class Uses:
    """Where a leaf is used: the edges that lead into it or into a rearrangement of it, joined at most with what does not depend on it.

    Attributes:
        family: the numbers of the leaf and of its rearrangements.
        edges: the uses, in the ledger's order; ``time`` has their steps by the edge's id, for those inside a step.
    """

    def __init__(self, steps: Sequence[BackwardStep], leaf: NodeInfo) -> None:
        self.leaf = leaf
        self.family = {leaf.order}
        self.ways: dict[int, list[BackwardStep]] = {}
        self.edges: list[BackwardStep] = []
        made_of: dict[int, set[int]] = {leaf.order: set()}  # of what depends on the leaf: those operands that do
        for step in reversed(steps):  # from the leaves up, so what a node is made of comes before it
            if step.operand.order in made_of:
                made_of.setdefault(step.node.order, set()).add(step.operand.order)
        for step in reversed(steps):
            if step.operand.order in self.family:
                if step.kind == "route" and made_of[step.node.order] <= self.family:
                    self.family.add(step.node.order)
                    self.ways.setdefault(step.node.order, []).append(step)
                else:
                    self.edges.append(step)
        self.edges.reverse()
        self.time = {id(step): step.time for step in self.edges if step.time is not None}
        self._rows: dict[int, Any] = {}
        self._down: dict[int, list[BackwardStep]] = {}

    def down(self, order: int, held: Stack) -> Any:
        """What a stack at a member of the family is at the leaf: (bins that it has, *shape)."""
        if order == self.leaf.order:
            return held.whole().values
        if order not in self._down:
            found, todo = {order}, [order]
            while todo:
                for step in self.ways.get(todo.pop(), ()):
                    if step.operand.order not in found:
                        found.add(step.operand.order)
                        todo.append(step.operand.order)
            self._down[order] = [step for member in sorted(found, reverse=True) for step in self.ways.get(member, ())]
        return carry(self._down[order], {order: held}, {self.leaf.order})[self.leaf.order].whole().values

    def rows(self, info: NodeInfo) -> Any:
        """Which row of the leaf each column of a matrix is, if the matrix holds each of these rows once and nothing else; or None."""
        if info.order not in self._rows:
            self._rows[info.order] = self._find_rows(info)
        return self._rows[info.order]

    def _find_rows(self, info: NodeInfo) -> Any:
        chain = []
        order = info.order
        while order != self.leaf.order:
            ways = self.ways[order]
            if len(ways) != 1:
                return None
            chain.append(ways[0])
            order = ways[0].operand.order
        if len(self.leaf.shape) != 2 or len(info.shape) != 2:
            return None
        entries = np.arange(1.0, math.prod(self.leaf.shape) + 1).reshape(self.leaf.shape)
        for step in reversed(chain):
            assert step.map is not None
            entries = step.map.pushforward(entries)
        places = entries.astype(np.int64) - 1
        width = self.leaf.shape[1]
        columns = places.T
        whole = columns.shape[1] == width and bool((np.sort(columns % width, axis=1) == np.arange(width)).all())
        rows = columns[:, 0] // width
        same = bool((columns // width == rows[:, None]).all())
        return rows if whole and same and (places >= 0).all() and len(np.unique(rows)) == len(rows) else None


def _blocks(ledger: Trace, uses: Uses, leaf: NodeInfo) -> tuple[str, ...]:
    """The names of the blocks of a weight's rows: the gates of the recurrence that uses it, if it has one block for each."""
    first = next(step for step in uses.edges if id(step) in uses.time)
    for name in ledger.layers:
        states = ledger.states(name)
        for at in states:
            if at.place is not None and at.parts and at.place.group is not None and first.node.place is not None:
                if at.place.group is first.node.place.group:
                    gates = tuple(sorted(at.gates, key=lambda gate: at.gates[gate].node.order))
                    if gates and leaf.shape and leaf.shape[0] == len(gates) * at.parts[0].node.shape[-1]:
                        return gates
                break
    return ("all",)


class _Account:
    """What arrives at the uses of a leaf, summed up as norms, and as a local and a through-time part.

    Attributes:
        norms: (losses, steps, blocks), the norm of each block of rows of each entry; ``outside`` (losses, blocks).
        local, through: of the leaf's shape.
        loss_time: of every loss; found on the way, if it was not told.
    """

    def __init__(self, uses: Uses, leaf: NodeInfo, losses: int, told: Sequence[int] | None, steps: list[int], blocks: int) -> None:
        self.uses, self.leaf = uses, leaf
        self.loss_time = np.full(losses, -1) if told is None else np.array([int(time) for time in told])
        self.unknown = np.full(losses, told is None)
        self.place = {time: k for k, time in enumerate(steps)}
        self.norms = np.zeros((losses, len(steps), blocks))
        self.outside = np.zeros((losses, blocks))
        self.local = np.zeros(leaf.shape, leaf.dtype)
        self.through = np.zeros(leaf.shape, leaf.dtype)
        self.expected: dict[int | None, int] = {}
        for step in uses.edges:
            time = uses.time.get(id(step))
            self.expected[time] = self.expected.get(time, 0) + 1
        self.waiting: dict[int | None, list[tuple[BackwardStep, Stack]]] = {}

    def hear(self, step: BackwardStep, held: Stack) -> None:
        """The stack that arrives at the node of a use. The uses of one step are settled together."""
        time = self.uses.time.get(id(step))
        waiting = self.waiting.setdefault(time, [])
        waiting.append((step, held))
        if len(waiting) == self.expected[time]:
            self.settle(time, self.waiting.pop(time))

    def finish(self, seeded: dict[int, Stack]) -> None:
        """Settle the uses whose fellows no loss depends on, and what entered at the leaf itself."""
        for time, waiting in self.waiting.items():
            self.settle(time, waiting)
        for order, held in seeded.items():
            for k, value in enumerate(self.uses.down(order, held), held.whole().first):
                self.outside[k] = np.hypot(self.outside[k], self.of_blocks(row_norms(value[None]))[0])
                self.through += value

    def settle(self, time: int | None, waiting: list[tuple[BackwardStep, Stack]]) -> None:
        into = self.outside if time is None else self.norms[:, self.place[time]]
        taken = [self.uses.rows(step.operand) if _is_product(step) else None for step, _ in waiting]
        known = [rows for rows in taken if rows is not None]
        slabs = [held.whole() for _, held in waiting]
        if len(known) == len(taken) and len(np.unique(np.concatenate(known))) == sum(map(len, known)):
            first, stop = min(slab.first for slab in slabs), max(slab.stop for slab in slabs)
            norms = np.zeros((stop - first, self.leaf.shape[0]))
            for rows, (step, _), slab in zip(known, waiting, slabs, strict=True):
                columns = _column_norms(step.map.matrix, slab.values)  # type: ignore[union-attr]
                if len(columns) == len(norms) and np.array_equal(rows, np.arange(len(norms[0]))):
                    norms = columns
                else:
                    norms[slab.first - first : slab.stop - first, rows] = columns
            into[first:stop] = np.hypot(into[first:stop], self.of_blocks(norms))
        else:
            self.sum_up(waiting, into)
        for slab in slabs if time is not None and self.unknown.any() else ():
            bins = slice(slab.first, slab.stop)
            fresh = self.unknown[bins] & slab.values.reshape(len(slab.values), -1).any(axis=1)
            self.loss_time[bins][fresh] = time
            self.unknown[bins] &= ~fresh
        for step, held in waiting:
            self.divide(time, step, held)

    def sum_up(self, waiting: list[tuple[BackwardStep, Stack]], into: Any) -> None:
        """The norms of entries that have to be added up first, a few bins at a time."""
        first, stop = min(held.whole().first for _, held in waiting), max(held.whole().stop for _, held in waiting)
        few = max(1, ENTRIES // max(1, math.prod(self.leaf.shape)))
        for start in range(first, stop, few):
            end = min(stop, start + few)
            total = np.zeros((end - start, *self.leaf.shape), self.leaf.dtype)
            for step, held in waiting:
                slab = held.whole()
                low, high = max(start, slab.first), min(end, slab.stop)
                if low < high:
                    total[low - start : high - start] += self.at_leaf(step, slab.values[low - slab.first : high - slab.first])
            into[start:end] = np.hypot(into[start:end], self.of_blocks(row_norms(total)))

    def of_blocks(self, norms: Any) -> Any:
        """The norms of blocks of rows, given those of the rows: (n, R) → (n, blocks)."""
        return root_of_squares(norms.reshape(len(norms), self.norms.shape[-1], -1))

    def divide(self, time: int | None, step: BackwardStep, held: Stack) -> None:
        """Add what arrives to the local part or to the rest."""
        slab = held.whole()
        own = self.loss_time[slab.first : slab.stop] == time if time is not None else np.zeros(len(slab.values), bool)
        borders = [0, *(np.flatnonzero(np.diff(own)) + 1), len(own)]
        for start, stop in pairwise(borders):  # one after the other: no copy, and nothing is found by a difference
            part = self.local if own[start] else self.through
            part += self.at_leaf(step, slab.values[start:stop].sum(axis=0, keepdims=True))[0]

    def at_leaf(self, step: BackwardStep, values: Any) -> Any:
        assert step.map is not None
        share = Stack(step.operand.shape)
        pull(step.map, Stack(step.node.shape, {None: Slab(0, values)}), share)
        return self.uses.down(step.operand.order, share)


def _is_product(step: BackwardStep) -> bool:
    """Whether a use is x @ W with matrices."""
    return isinstance(step.map, MatMul) and step.map.side == "left" and not step.map.flat and step.map.matrix.ndim == 2


def _column_norms(matrix: Any, values: Any) -> Any:
    """The norm of every column of xᵀ g, for every bin: x (B, K), g (n, B, N) → (n, N), without the products where B is small."""
    if len(matrix) == 1:
        return np.abs(values[:, 0]).astype(np.float64, copy=False) * norm_of(matrix)
    peak = np.max(np.abs(values), axis=(1, 2), initial=0.0)
    unit = np.where((peak > 0) & np.isfinite(peak), peak, 1.0)  # the squares of 1e-200 would be 0
    scaled = (values / unit[:, None, None]).astype(np.float64, copy=False)
    matrix = np.asarray(matrix, np.float64)
    if len(matrix) <= matrix.shape[1]:
        # xᵀ = Q R with orthonormal columns in Q, so xᵀ g has the norms of R g; a Gram matrix would lose half of the digits.
        matrix = np.asarray(np.linalg.qr(matrix.T, mode="r")).T
    few = max(1, ENTRIES // max(1, matrix.shape[1] * values.shape[2]))
    norms = [np.sqrt(np.sum((matrix.T @ scaled[k : k + few]) ** 2, axis=1)) for k in range(0, len(scaled), few)]
    return np.concatenate(norms) * unit[:, None]


def _one_entry(path: list[BackwardStep], seeds: list[tuple[int, Slab]], uses: Uses, leaf: NodeInfo, time: int) -> Any:
    """What some losses together contribute through the uses of one step: one cotangent, not a stack of them."""
    stacks: dict[int, Stack] = {}
    for order, slab in seeds:
        stacks.setdefault(order, Stack(slab.values.shape[1:])).add(None, Slab(0, slab.values))
    total = np.zeros(leaf.shape, leaf.dtype)

    def hear(step: BackwardStep, held: Stack) -> None:
        nonlocal total
        assert step.map is not None
        share = Stack(step.operand.shape)
        pull(step.map, held, share)
        total = total + uses.down(step.operand.order, share)[0]

    useful = [step for step in path if step.operand.order not in uses.family or uses.time.get(id(step)) == time]
    carry(useful, stacks, uses.family, tell=hear)
    return total
