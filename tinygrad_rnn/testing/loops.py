"""Which nodes of a recorded program are the same step of it, taken again: the passes of its loop over time."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..graph import Node


class Loop:
    """The passes of a program's loop.

    Nodes that are recorded one after the other at one source line are a visit; visits of the same operations at the same line are one
    step, taken again; there are as many passes as most of them have visits. If no pass takes what an earlier one gave, there is no loop,
    but a function that is called several times side by side.

    Attributes:
        keys: by number of the node, what is the same for the same step.
        passes: by number of the node, in which pass it was recorded, from 0.
        rows: by key, the numbers of the nodes, pass by pass.
        count: how many passes there are; 0 without a loop.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.keys: dict[int, Any] = {}
        self.passes: dict[int, int] = {}
        self.rows: dict[Any, list[int]] = {}
        visits = _visits(nodes)
        counts = Counter(len(several) for several in visits.values() if len(several) > 1)
        self.count = max(counts, key=lambda count: (counts[count], -count)) if counts else 0
        for pattern, several in visits.items():
            if not self.count or len(several) % self.count:
                continue
            each = len(several) // self.count
            for place, visit in enumerate(several):
                for ordinal, k in enumerate(visit):
                    self.keys[k] = (pattern, place % each, ordinal)
                    self.passes[k] = place // each
                    self.rows.setdefault(self.keys[k], []).append(k)
        if not self._recurs(nodes):
            self.keys, self.passes, self.rows, self.count = {}, {}, {}, 0

    def _recurs(self, nodes: Sequence[Node]) -> bool:
        """Whether a pass takes what an earlier one gave."""
        number = {node: k for k, node in enumerate(nodes)}
        lowest: dict[int, float] = {}
        for k, node in reversed(list(enumerate(nodes))):
            above = [number[operand] for operand in node.operands if isinstance(operand, Node)]
            lowest[k] = min((min(lowest[a], self.passes.get(a, math.inf)) for a in above), default=math.inf)
            if lowest[k] < self.passes.get(k, 0):
                return True
        return False

    def later(self, node: int, passes: int) -> int | None:
        """The same node so many passes later; None if there are no more passes; of one in no loop, itself."""
        if node not in self.keys:
            return node
        place = self.passes[node] + passes
        return self.rows[self.keys[node]][place] if 0 <= place < self.count else None


def _visits(nodes: Sequence[Node]) -> dict[Any, list[list[int]]]:
    """The numbers of the nodes, visit by visit, by source line and operations."""
    recorded = [(k, node) for k, node in reversed(list(enumerate(nodes))) if node.primitive is not None and node.source]
    visits: dict[Any, list[list[int]]] = {}
    for source, group in itertools.groupby(recorded, key=lambda pair: pair[1].source):
        for visit in _periods(list(group)):
            visits.setdefault((source, tuple(_operation(node) for _, node in visit)), []).append([k for k, _ in visit])
    return visits


def _operation(node: Node) -> str:
    assert node.primitive is not None
    return node.primitive.name


def _periods(visit: list[tuple[int, Node]]) -> list[list[tuple[int, Node]]]:
    """A visit that is one visit again and again (a loop of one line), in parts."""
    names = [_operation(node) for _, node in visit]
    for length in range(3, len(names) // 2 + 1):
        if len(names) % length == 0 and names == names[:length] * (len(names) // length):
            return [visit[k : k + length] for k in range(0, len(visit), length)]
    return [visit]
