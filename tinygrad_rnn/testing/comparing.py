"""How laws compare: two arrays entry by entry, and a scalar that reads every entry of what a subject returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..tensor import Tensor, lift
from ..tensor import seed as seeded
from ..walk import Backward
from .reproduction import GradcheckError
from .subjects import joined


def same(where: str, expected: Any, got: Any, rtol: float, by: str, came_by: str, *, scale: float = 0.0) -> None:
    """Equal up to ``rtol`` of the largest entry (or of ``scale``); otherwise the entry that is furthest off is named."""
    expected, got = (np.asarray(getattr(x, "value", x)) for x in (expected, got))
    if expected.shape != got.shape:
        raise GradcheckError(f"{where}: expected shape {expected.shape} by {by}, got {got.shape} by {came_by}")
    largest = max(scale if np.isfinite(scale) else 0.0, largest_of(expected, got))
    with np.errstate(invalid="ignore"):
        off = np.where(expected == got, 0.0, np.abs(expected - got))
    wrong = ~(off <= rtol * largest)
    wrong &= ~(np.isnan(expected) & np.isnan(got))
    if wrong.any():
        worst = np.unravel_index(int(np.argmax(np.where(wrong, np.where(np.isnan(off), np.inf, off), -1.0))), off.shape)
        entry = tuple(int(i) for i in worst)
        raise GradcheckError(f"{where}, entry {entry}: expected {expected[entry]:.12g} by {by}, got {got[entry]:.12g} by {came_by}")


def largest_of(*arrays: Any) -> float:
    """The largest absolute value of all that are numbers."""
    return max(float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x))) for x in arrays)


def random_weights(shape: tuple[int, ...], seed: int) -> Any:
    """Numbers of both signs, none near 0, to weigh an output with."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def weighed(result: Any, seed: int) -> Tensor:
    """A scalar that reads every entry of what a subject returned, each with a weight of its own."""
    out = joined(result)
    return ops.sum(out * random_weights(out.shape, seed))  # type: ignore[no-any-return]


def handed_back(out: Tensor, leaves: Sequence[Tensor], cotangent: Any, *, create_graph: bool = False) -> list[Any]:
    """What the rules hand back to the leaves, before ``grad`` checks its shape and gives it the leaf's precision; None if nothing came."""
    start = seeded(out, cotangent, "grad", record=create_graph)
    nodes = [leaf.node for leaf in leaves if leaf.node is not None]
    found = Backward([start], lift=lift, create_graph=create_graph, wanted=nodes).run()
    return [found.get(node) for node in nodes]


def gradients_of(loss: Tensor, leaves: Sequence[Tensor]) -> list[Any]:
    """By ``backward``, and the leaves are left without."""
    if loss.node is not None:
        loss.backward()
    found = [np.zeros(leaf.shape, leaf.dtype) if leaf.grad is None else leaf.grad.value for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found
