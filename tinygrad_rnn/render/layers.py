"""Layered drawing (Sugiyama, Tagawa and Toda 1981): what stands beside what in each row, and where.

Rows alternate: even rows hold nodes, odd rows the labels of the edges that pass. An edge is a chain through every row between its ends,
so that nothing is drawn over a label. No recursion, and the same result in every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Item = Any
GAP = 8.0
_SWEEPS = 12


@dataclass
class Link:
    """An edge from an item to one of a larger level; ``label`` is the width of its label."""

    name: Item
    start: Item
    end: Item
    label: float = 0.0


@dataclass
class Rows:
    """Items in rows, from left to right, and the chains between them.

    Attributes:
        rows: the items of each row by its number.
        chains: the items that each link passes, by its name, from start to end.
        labelled: of each link with a label, the item that keeps room for it.
        x: where the middle of each item is; of an item that keeps room for a label, the line is at its left edge.
    """

    widths: dict[Item, float]
    rows: dict[int, list[Item]] = field(default_factory=dict)
    chains: dict[Item, list[Item]] = field(default_factory=dict)
    labelled: dict[Item, Item] = field(default_factory=dict)
    x: dict[Item, float] = field(default_factory=dict)

    def line(self, item: Item) -> float:
        """Where the line passes an item."""
        return self.x[item] - self.lean(item)

    def span(self) -> tuple[float, float]:
        """The left and the right end."""
        sides = [(x - self.widths[item] / 2, x + self.widths[item] / 2) for item, x in self.x.items()]
        return min(left for left, _ in sides), max(right for _, right in sides)

    def lean(self, item: Item) -> float:
        """How far to the left of an item's middle its line passes."""
        return self.widths[item] / 2 if isinstance(item, tuple) and item[0] == "label" else 0.0


def in_rows(
    levels: Mapping[Item, int],
    widths: Mapping[Item, float],
    links: Sequence[Link],
    *,
    first: Iterable[Item] = (),
    last: Iterable[Item] = (),
    wish: Mapping[Item, float] | None = None,
) -> Rows:
    """Place items in rows.

    Args:
        levels: the level of each item; item of level k is in row 2k.
        widths: of each item.
        links: from an item to one of a larger level.
        first, last: what should be at the left or right end of its row.
        wish: where some items would like to be.
    """
    drawing = Rows(dict(widths))
    for item, level in levels.items():
        drawing.rows.setdefault(2 * level, []).append(item)
    up: dict[Item, list[Item]] = {}
    down: dict[Item, list[Item]] = {}
    for link in links:
        low, high = 2 * levels[link.start] + 1, 2 * levels[link.end]
        middle = (low + high) // 2
        at = middle if middle % 2 else middle + 1 if middle + 1 < high else middle - 1
        chain: list[Item] = [link.start]
        for row in range(low, high):
            labelled = row == at and link.label
            item = ("label" if labelled else "pass", link.name, row)
            drawing.widths[item] = link.label + 4 if labelled else 2.0
            if labelled:
                drawing.labelled[link.name] = item
            drawing.rows.setdefault(row, []).append(item)
            chain.append(item)
        chain.append(link.end)
        drawing.chains[link.name] = chain
        for above, below in pairwise(chain):
            down.setdefault(above, []).append(below)
            up.setdefault(below, []).append(above)
    _order(drawing, up, down, dict.fromkeys(first, -1) | dict.fromkeys(last, 1))
    _place(drawing, up, down, wish or {})
    _straighten(drawing)
    return drawing


def _order(drawing: Rows, up: dict[Item, list[Item]], down: dict[Item, list[Item]], ends: Mapping[Item, int]) -> None:
    """Barycentres, downward and upward in turn; the order with the fewest crossings is kept."""
    rows = drawing.rows
    numbers = sorted(rows)
    for number in numbers:
        rows[number].sort(key=lambda item: ends.get(item, 0))
    place = {item: float(at) for row in rows.values() for at, item in enumerate(row)}
    best = {number: list(row) for number, row in rows.items()}
    fewest = sum(_crossings(rows[number], down, place) for number in numbers)
    for sweep in range(_SWEEPS):
        beside = up if sweep % 2 == 0 else down
        for number in numbers if sweep % 2 == 0 else reversed(numbers):
            centre = {item: _mean([place[other] for other in beside.get(item, ())], place[item]) for item in rows[number]}
            keys = {item: (ends.get(item, 0), at) for item, at in centre.items()}
            rows[number].sort(key=keys.__getitem__)
            place.update({item: float(at) for at, item in enumerate(rows[number])})
        crossings = sum(_crossings(rows[number], down, place) for number in numbers)
        if crossings < fewest:
            best, fewest = {number: list(row) for number, row in rows.items()}, crossings
        if not fewest and sweep:
            break
    drawing.rows = best


def _crossings(row: list[Item], down: dict[Item, list[Item]], place: dict[Item, float]) -> int:
    heads = [place[below] for item in row for below in sorted(down.get(item, ()), key=place.__getitem__)]
    return sum(heads[i] > heads[j] for i in range(len(heads)) for j in range(i + 1, min(len(heads), i + 200)))


def _place(drawing: Rows, up: dict[Item, list[Item]], down: dict[Item, list[Item]], wish: Mapping[Item, float]) -> None:
    """Every item as near to its neighbours as the order and the widths allow."""
    x = drawing.x
    for row in drawing.rows.values():
        at = 0.0
        for item in row:
            x[item] = at + drawing.widths[item] / 2
            at += drawing.widths[item] + GAP
        for item in row:
            x[item] -= at / 2
    numbers = sorted(drawing.rows)
    weigh: dict[Item, float] = {}  # what goes on for long stays in line, and short ends stand aside
    for number in reversed(numbers):
        for item in drawing.rows[number]:
            weigh[item] = 1.0 + max((weigh[below] for below in down.get(item, ())), default=0.0)
    weigh = {item: length**2 for item, length in weigh.items()}
    for sweep in range(3 * _SWEEPS):
        for number in numbers if sweep % 2 == 0 else reversed(numbers):
            row = drawing.rows[number]
            wished = []
            for item in row:
                sides = (up, down) if sweep > 2 * _SWEEPS else (up,) if sweep % 2 == 0 else (down,)
                near = [(drawing.line(other), weigh[other]) for side in sides for other in side.get(item, ())]
                goal = sum(at * weight for at, weight in near) / sum(weight for _, weight in near) if near else drawing.line(item)
                wished.append((wish.get(item, goal) if not near or item in wish else goal) + drawing.lean(item))
            weights = [weigh[item] * (8.0 if isinstance(item, tuple) and item[0] in ("pass", "label") else 1.0) for item in row]
            spaces = [(drawing.widths[a] + drawing.widths[b]) / 2 + GAP for a, b in pairwise(row)]
            x.update(zip(row, apart(wished, spaces, weights), strict=True))


def _straighten(drawing: Rows) -> None:
    """Let chains run straight down for as long as their neighbours leave room."""
    beside: dict[Item, tuple[Item | None, Item | None]] = {}
    for row in drawing.rows.values():
        beside |= {item: (left, right) for left, item, right in zip([None, *row], row, [*row[1:], None], strict=False)}
    for chain in drawing.chains.values():
        run: list[Item] = []
        low, high = -math.inf, math.inf
        for item in [*chain[1:-1], None]:
            bounds = (math.inf, -math.inf) if item is None else _room(drawing, item, *beside[item])
            if run and (item is None or max(low, bounds[0]) > min(high, bounds[1])):
                line = min(max(_mean([drawing.line(each) for each in run], 0.0), low), high)
                drawing.x.update({each: line + drawing.lean(each) for each in run})
                run, low, high = [], -math.inf, math.inf
                bounds = bounds if item is None else _room(drawing, item, *beside[item])
            run.append(item)
            low, high = max(low, bounds[0]), min(high, bounds[1])


def _room(drawing: Rows, item: Item, left: Item | None, right: Item | None) -> tuple[float, float]:
    """Between which positions the line of an item may be without touching its neighbours."""
    half, lean = drawing.widths[item] / 2 + GAP, drawing.lean(item)
    low = -math.inf if left is None else drawing.x[left] + drawing.widths[left] / 2 + half - lean
    high = math.inf if right is None else drawing.x[right] - drawing.widths[right] / 2 - half - lean
    return min(low, drawing.line(item)), max(high, drawing.line(item))


def apart(wished: Sequence[float], spaces: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The points nearest to those wished for (least squares) of which each is at least its space to the right of the one before.

    Isotonic regression by pooling adjacent violators.

    >>> apart([0.0, 0.0, 9.0], [2.0, 2.0], [1.0, 1.0, 1.0])
    [-1.0, 1.0, 9.0]
    """
    shift, shifts = 0.0, [0.0]
    for space in spaces:
        shift += space
        shifts.append(shift)
    pools: list[tuple[float, float, int]] = []  # the weighted mean of a pool, its weight, how many are in it
    for goal, offset, weight in zip(wished, shifts, weights, strict=True):
        mean, total, count = goal - offset, weight, 1
        while pools and pools[-1][0] > mean:
            before, heavy, many = pools.pop()
            mean, total, count = (before * heavy + mean * total) / (heavy + total), heavy + total, many + count
        pools.append((mean, total, count))
    flat = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(flat, shifts, strict=True)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
