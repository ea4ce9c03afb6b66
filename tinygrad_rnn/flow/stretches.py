"""Stretches: the edges between two neighbouring states of a recurrence; and runs of them that do the same with other numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..linear_maps import Identity, Keyed, LinearMap, Mask, MatMul, Place, Scale, Scatter
from ..steps import BackwardStep
from ..trace import StateAt, States
from .stacks import between

ROLES = ("hidden", "cell")


@dataclass(slots=True)
class Stretch:
    """The edges that lie on some path from the parts of one state to those of the state before it.

    Attributes:
        here, past: the two states.
        starts, ends: the numbers of their parts, by role.
        path: the edges, in the ledger's order.
    """

    here: StateAt
    past: StateAt
    starts: dict[str, int]
    ends: dict[str, int]
    path: list[BackwardStep]

    def past_shape(self, role: str) -> tuple[int, ...]:
        """The shape of a part of the state before."""
        shape: tuple[int, ...] = getattr(self.past, role).node.shape
        return shape


def gapless(instrument: str, states: States) -> States:
    """The states, of which none is missing between two others.

    Raises:
        ArgumentError: if only a gate was marked in one of the steps between.
    """
    known = [k for k, at in enumerate(states) if at.parts]
    missing = next((k + 1 for k, after in pairwise(known) if after > k + 1), None)
    if missing is not None:
        raise ArgumentError(
            f"{instrument}: step {states.times[missing]} of {states.path!r} has a gate, but neither a hidden state nor a cell; mark one in "
            "every step with tg.landmark"
        )
    return states


def stretches(steps: Sequence[BackwardStep], states: States) -> list[Stretch]:
    """One per pair of neighbouring states, in the order of the recurrence.

    Steps are sorted by their nodes' numbers, so each stretch is looked for in a slice of its own.
    """
    numbers = [-step.node.order for step in steps]
    found = []
    for past, here in pairwise(states):
        starts, ends = _numbers(here), _numbers(past)
        path: list[BackwardStep] = []
        if starts and ends:
            first, stop = bisect_left(numbers, -max(starts.values())), bisect_left(numbers, -min(ends.values()))
            path = between(steps[first:stop], starts.values(), ends.values())
        found.append(Stretch(here, past, starts, ends, path))
    return found


def _numbers(at: StateAt) -> dict[str, int]:
    return {role: part.node.order for role in ROLES if (part := getattr(at, role)) is not None}


class Forms:
    """What stretches do, apart from their factors."""

    def __init__(self) -> None:
        self._matrices: dict[int, Any] = {}  # those that were met before, by id: where their entries lie

    def of(self, stretch: Stretch) -> Any:
        """Equal for stretches that differ in nothing but the factors of their ``scale`` edges.

        None if there are other maps than identities, factors, matrices from the right, and ranges of the last axis, or values that are
        not (batch, width), or no edges at all: such a stretch is like no other.
        """
        if not stretch.path:
            return None
        batch = stretch.here.parts[0].node.shape[:-1]
        places = {order: k for k, order in enumerate(stretch.starts.values())}
        form: list[Any] = []
        for step in stretch.path:
            linear_map, operand = step.map, step.operand
            kind, shape = linear_map.__class__, operand.shape
            detail: Any = None
            if kind is Scale or kind is Mask:
                factor = linear_map.factor  # type: ignore[union-attr]
                detail = factor.shape if factor.__class__ is np.ndarray else factor
            elif kind is MatMul:
                matrix = linear_map.matrix  # type: ignore[union-attr]
                if linear_map.side != "right" or matrix.ndim != 2:  # type: ignore[union-attr]
                    return None
                detail = self._matrices.get(id(matrix))
                if detail is None:  # a cell transposes its weight anew at every step
                    detail = self._matrices[id(matrix)] = matrix.ctypes.data, matrix.strides
            elif kind is Scatter or kind is Place:
                detail = columns(linear_map.key, shape if kind is Scatter else step.node.shape)  # type: ignore[union-attr]
                if detail is None:
                    return None
            elif kind is not Identity:
                return None
            if len(shape) != len(batch) + 1 or shape[:-1] != batch:
                return None
            form.append((kind, places[step.node.order], places.setdefault(operand.order, len(places)), detail, shape))
        return form, [(role, places.get(order)) for role, order in stretch.ends.items()]


def columns(key: Any, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Where a range of the last axis begins and ends, if that is what an index expression picks."""
    if key.__class__ is not tuple or not key or key[-1].__class__ is not slice or key[-1].step not in (None, 1):
        return None
    lead = key[:-1]
    if lead != (Ellipsis,) and (len(lead) != len(shape) - 1 or any(part != slice(None) for part in lead)):
        return None
    first, stop, _ = key[-1].indices(shape[-1])
    return first, max(first, stop)


def alike(found: Sequence[Stretch], most: int) -> list[list[int]]:
    """The places of neighbours that do the same with other numbers, to be done at once, up to so many."""
    runs: list[list[int]] = []
    forms, last = Forms(), None
    for k, stretch in enumerate(found):
        form = forms.of(stretch)
        if runs and len(runs[-1]) < most and form is not None and form == last:
            runs[-1].append(k)
        else:
            runs.append([k])
        last = form
    return runs


def joined(run: Sequence[Stretch], place: int) -> LinearMap:
    """The maps at one place of the paths of several stretches that are alike, as one map with the stretches as its first axis."""
    step = run[0].path[place]
    linear_map = step.map
    assert linear_map is not None
    if isinstance(linear_map, Scale) and np.ndim(linear_map.factor):
        factors = np.stack([stretch.path[place].map.factor for stretch in run])  # type: ignore[union-attr]
        axes = (1,) * (len(step.node.shape) + 1 - factors.ndim)
        return linear_map.__class__(factors.reshape(len(run), *axes, *factors.shape[1:]))
    if isinstance(linear_map, Keyed):
        whole = step.operand.shape if isinstance(linear_map, Scatter) else step.node.shape
        part = columns(linear_map.key, whole)
        assert part is not None
        key = (Ellipsis, slice(*part))
        # What a route does is read off its functions: one picks the range, the other places it.
        first, second = linear_map.forward, linear_map.adjoint
        assert isinstance(first, partial)
        assert isinstance(second, partial)
        picks, places = {"key": key}, {"shape": (len(run), *whole), "keys": (key,)}
        forward, adjoint = (picks, places) if isinstance(linear_map, Scatter) else (places, picks)
        return linear_map.__class__(partial(first.func, **forward), partial(second.func, **adjoint), linear_map.label, key)
    return linear_map
