"""Stacks of cotangents, carried backward over the maps that a trace kept: many backward passes in one.

A stack has one cotangent per *bin*. What a bin is, is the instrument's affair: a number of detours, a loss, an output unit. Maps are
linear, so every bin goes over every edge as it would alone. Two kinds of zeros are not stored: bins before the first and after the last
that has arrived (:class:`Slab`), and, where a value was read as ``x[t]``, all other places on its first axis (:class:`Stack`).

What goes over an edge is what its map says: hooks on Tensors, which may replace a cotangent, are no maps and take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..linear_maps import Identity, LinearMap, Mask, MatMul, Place, Scale, Scatter, add_at, may_repeat
from ..steps import BackwardStep


@dataclass(slots=True)
class Slab:
    """The cotangents of consecutive bins: ``values[k]`` belongs to bin ``first + k``.

    ``own`` says that the array belongs to this slab alone, so that more may be added in place.
    """

    first: int
    values: Any
    own: bool = False

    @property
    def stop(self) -> int:
        """One more than the last bin."""
        return self.first + len(self.values)

    def covering(self, first: int, stop: int) -> Slab:
        """The same with room for these bins too, in an array of its own."""
        first, stop = min(first, self.first), max(stop, self.stop)
        if self.own and stop - first == len(self.values):
            return self
        values = np.zeros((stop - first, *self.values.shape[1:]), self.values.dtype)
        values[self.first - first : self.stop - first] = self.values
        return Slab(first, values, own=True)

    def plus(self, other: Slab) -> Slab:
        """The sum, bin by bin; in place where it may be."""
        if not self.own and other.own:
            return other.plus(self)
        if self.first == other.first and len(self.values) == len(other.values) and not self.own:
            return Slab(self.first, self.values + other.values, own=True)
        total = self.covering(other.first, other.stop)
        total.values[other.first - total.first : other.stop - total.first] += other.values
        return total

    def bin(self, number: int) -> Any:
        """The cotangent of one bin; zeros where none has arrived."""
        if self.first <= number < self.stop:
            return self.values[number - self.first]
        return np.zeros(self.values.shape[1:], self.values.dtype)


class Stack:
    """The cotangents of one node, for all bins.

    Attributes:
        shape: of the node's value.
        parts: slabs by their place on the value's first axis; None is the place of the whole value.
    """

    __slots__ = ("parts", "shape")

    def __init__(self, shape: tuple[int, ...], parts: dict[int | None, Slab] | None = None) -> None:
        self.shape = shape
        self.parts: dict[int | None, Slab] = {} if parts is None else parts

    def add(self, place: int | None, slab: Slab) -> None:
        """Add a slab to what is at a place."""
        held = self.parts.get(place)
        self.parts[place] = slab if held is None else held.plus(slab)

    def put(self, key: Any, slab: Slab) -> None:
        """Add a slab where an index expression picks: the adjoint of indexing."""
        place = _single(key)
        if place is not None:
            self.add(place % self.shape[0], Slab(slab.first, slab.values))
            return
        held = self.parts.get(None)
        if held is None:
            held = Slab(slab.first, np.zeros((len(slab.values), *self.shape), slab.values.dtype), own=True)
        self.parts[None] = held = held.covering(slab.first, slab.stop)
        room = held.values[slab.first - held.first : slab.stop - held.first]
        lead = _behind_bins(key)
        if lead is None:
            for k, part in enumerate(slab.values):
                add_at(room[k, ...], key, part)
        elif may_repeat(key):
            np.add.at(room, lead, slab.values)
        else:
            room[lead] += slab.values

    def whole(self) -> Slab:
        """Everything as one slab."""
        if len(self.parts) != 1 or None not in self.parts:
            slabs = self.parts.values()
            first, stop = min(slab.first for slab in slabs), max(slab.stop for slab in slabs)
            held = self.parts.pop(None, None)
            if held is None:
                total = Slab(first, np.zeros((stop - first, *self.shape), next(iter(slabs)).values.dtype), own=True)
            else:  # parts of it may have been handed on already
                total = Slab(held.first, held.values).covering(first, stop)
            for place, slab in self.parts.items():
                total.values[slab.first - total.first : slab.stop - total.first, place] += slab.values
            self.parts = {None: total}
        return self.parts[None]

    def at(self, place: int) -> list[Slab]:
        """What there is at one place of the first axis, to be added up."""
        found = [self.parts[place]] if place in self.parts else []
        if None in self.parts:
            held = self.parts[None]
            found.append(Slab(held.first, held.values[:, place]))
        return found

    def array(self, bins: int) -> Any:
        """All bins, of shape (bins, *shape)."""
        return self.whole().covering(0, bins).values

    def later(self, bins: int) -> Stack:
        """Every cotangent one bin further; the last bin keeps its own and takes in the one before."""
        moved = Stack(self.shape)
        for place, slab in self.parts.items():
            first, values = slab.first + 1, slab.values
            if slab.stop == bins:
                first, values = (
                    (first, np.concatenate([values[:-2], values[-2:-1] + values[-1:]])) if len(values) > 1 else (bins - 1, values)
                )
            moved.parts[place] = Slab(first, values)
        return moved


def _single(key: Any) -> int | None:
    """The index, if an index expression is one whole number."""
    if key.__class__ is tuple and len(key) == 1:
        key = key[0]
    return int(key) if isinstance(key, (int, np.integer)) and not isinstance(key, bool) else None


def _behind_bins(key: Any) -> Any:
    """The same index expression behind the axis of bins; None where it does not mean the same there.

    Arrays in an index move their axes to the front if anything stands between them.
    """
    parts = key if key.__class__ is tuple else (key,)
    arrays = [i for i, part in enumerate(parts) if isinstance(part, np.ndarray)]
    if arrays:
        picking = [i for i, part in enumerate(parts) if isinstance(part, (np.ndarray, int, np.integer))]
        if picking[-1] - picking[0] != len(picking) - 1 or any(parts[i].ndim == 0 for i in arrays):
            return None
    return (slice(None), *parts)


def _keeps_places(key: Any) -> bool:
    """Whether an index expression leaves the first axis as it is."""
    if key.__class__ is not tuple or len(key) < 2 or any(isinstance(part, np.ndarray) for part in key):
        return False
    return key[0].__class__ is slice and key[0] == slice(None)


# -- one edge -----------------------------------------------------------------------------------------------------------------


def pull(linear_map: LinearMap, source: Stack, target: Stack) -> None:
    """Add to the operand's stack what goes over one edge: Jᵀ g for every bin."""
    if isinstance(linear_map, Identity):
        for place, slab in source.parts.items():
            target.add(place, Slab(slab.first, slab.values))
    elif isinstance(linear_map, Scale):
        masks = isinstance(linear_map, Mask)
        for place, slab in source.parts.items():
            factor = linear_map.factor if place is None else _factor_at(linear_map.factor, place, len(source.shape))
            target.add(place, Slab(slab.first, np.where(factor, slab.values, 0.0) if masks else slab.values * factor, own=True))
    elif isinstance(linear_map, MatMul):
        _pull_matrix(linear_map, source, target)
    elif isinstance(linear_map, Scatter):
        if None not in source.parts and _keeps_places(linear_map.key):
            for place, slab in source.parts.items():
                inner = Stack(target.shape[1:])
                inner.put(linear_map.key[1:], slab)
                target.add(place, inner.whole())
        else:
            target.put(linear_map.key, source.whole())
    elif isinstance(linear_map, Place):
        _pull_part(linear_map, source, target)
    else:
        slab = source.whole()
        target.add(None, Slab(slab.first, _rearranged(linear_map, slab.values)))


def _factor_at(factor: Any, place: int, axes: int) -> Any:
    """A factor's part at one place of the first of so many axes."""
    if np.ndim(factor) < axes:
        return factor
    return factor[place if len(factor) > 1 else 0]


def _pull_matrix(linear_map: MatMul, source: Stack, target: Stack) -> None:
    matrix = linear_map.matrix
    if linear_map.side == "right" and matrix.ndim == 2:
        for place, slab in source.parts.items():
            shape = slab.values.shape
            rows = slab.values.reshape(-1, shape[-1]) @ matrix.T  # one product for all bins
            target.add(place, Slab(slab.first, rows.reshape(*shape[:-1], len(matrix)), own=True))
    elif linear_map.flat:
        for place, slab in source.parts.items():
            factor = matrix if place is None else matrix[place]
            flat = factor.reshape(-1, matrix.shape[-1])
            values = slab.values.reshape(len(slab.values), len(flat), slab.values.shape[-1])
            target.add(None, Slab(slab.first, flat.T @ values, own=True))
    else:
        slab = source.whole()
        target.add(None, Slab(slab.first, linear_map.pullback(slab.values), own=True))


def _pull_part(linear_map: Place, source: Stack, target: Stack) -> None:
    key = linear_map.key
    place = _single(key)
    if place is not None:
        for slab in source.at(place % source.shape[0]):
            target.add(None, Slab(slab.first, slab.values))
    elif None not in source.parts and _keeps_places(key):
        for own, slab in source.parts.items():
            target.add(own, Slab(slab.first, slab.values[(slice(None), *key[1:])]))
    else:
        slab = source.whole()
        lead = _behind_bins(key)
        target.add(None, Slab(slab.first, np.stack([part[key] for part in slab.values]) if lead is None else slab.values[lead]))


def _rearranged(linear_map: LinearMap, values: Any) -> Any:
    """Any other route, entry by entry; the commonest ones for all bins at once."""
    adjoint = getattr(linear_map, "adjoint", None)
    if isinstance(adjoint, partial) and not adjoint.args:
        name, keywords = getattr(adjoint.func, "name", ""), adjoint.keywords
        if name == "reshape":
            return values.reshape(len(values), *keywords["shape"])
        if name == "transpose":
            return values.transpose(0, *(axis + 1 for axis in keywords["axes"]))
        if name == "astype":
            return values.astype(keywords["dtype"])
    return np.stack([linear_map.pullback(value) for value in values])


def lands(linear_map: LinearMap, place: int | None, node: tuple[int, ...], operand: tuple[int, ...]) -> tuple[bool, int | None]:
    """Whether anything at a place of the node's first axis goes over an edge, and at which place of the operand it arrives."""
    if isinstance(linear_map, (Scatter, Place)) and (single := _single(linear_map.key)) is not None:
        if isinstance(linear_map, Scatter):
            return True, single % operand[0]
        return place is None or place == single % node[0], None
    if isinstance(linear_map, (Scatter, Place)):
        keeps = _keeps_places(linear_map.key)
    else:
        right = isinstance(linear_map, MatMul) and linear_map.side == "right" and linear_map.matrix.ndim == 2
        keeps = right or isinstance(linear_map, (Identity, Scale))
    return True, place if keeps else None


# -- many edges ---------------------------------------------------------------------------------------------------------------


def between(steps: Iterable[BackwardStep], starts: Collection[int], ends: Collection[int]) -> list[BackwardStep]:
    """The steps, in order, that lie on some path from one of the starts to one of the ends, without going on from an end."""
    ahead = set(starts).difference(ends)
    candidates = []
    for step in steps:  # in the order in which they ran, so every step comes after those that lead to it
        node = step.node
        if node.order in ahead:
            order = node.operands[step.position].order
            candidates.append((step, node.order, order))
            if order not in ends:
                ahead.add(order)
    behind = set(ends)
    found = []
    for step, source, target in reversed(candidates):
        if target in behind:
            behind.add(source)
            found.append(step)
    found.reverse()
    return found


def carry(
    steps: Iterable[BackwardStep],
    seeds: Mapping[int, Stack],
    ends: Collection[int],
    *,
    tell: Callable[[BackwardStep, Stack], None] | None = None,
    marked: Callable[[BackwardStep], bool] | None = None,
    bins: int = 0,
) -> dict[int, Stack]:
    """Carry stacks from the seeds to the ends, in one pass that frees what it has left behind.

    Args:
        steps: the ledger's, in order; those that lie on no path are passed over.
        seeds: stacks by the number of the node at which they enter.
        ends: the numbers of the nodes at which the pass stops.
        tell: is called with each step that leads to an end, and the stack of its node, instead of adding up what arrives there.
        marked, bins: over a marked step everything goes one bin further, up to the last of so many.

    Returns:
        The stacks that arrived, by number.
    """
    held = {order: Stack(stack.shape, dict(stack.parts)) for order, stack in seeds.items()}
    current = -1
    with np.errstate(all="ignore"):
        for step in between(steps, seeds, ends):
            order = step.node.order
            if order != current:
                held.pop(current, None)
                current = order
            stack, operand = held.get(order), step.operand
            if stack is None or not stack.parts:  # nothing came this way: it was at other places
                continue
            if tell is not None and operand.order in ends:
                tell(step, stack)
                continue
            assert step.map is not None
            if operand.order not in held:
                held[operand.order] = Stack(operand.shape)
            pull(step.map, stack.later(bins) if marked is not None and marked(step) else stack, held[operand.order])
    return {order: held[order] for order in ends if order in held and held[order].parts}
