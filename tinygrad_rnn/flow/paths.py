"""The path split: a gradient taken apart by the number of marked edges on its paths, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Table, aligned, number, power_of_ten
from ..steps import BackwardStep, NodeInfo, norm_of
from ..tensor import Tensor
from ..trace import Landmark, Trace
from .edges import Edges, described, edges, recurrent
from .given import traced
from .stacks import Slab, Stack, between, carry, lands

GATES = ("input", "forget", "candidate", "output", "reset", "update")


@dataclass(frozen=True, eq=False)
class PathSplit(Result):
    """A gradient as a sum over the paths of the graph, by the number of marked edges on them.

    Arrays have one entry per bin k; the last bin also has all paths with more than k marked edges.

    Attributes:
        target: what the gradient is with respect to.
        marked: which edges count, in words.
        gradient: ∂L/∂target, as the backward pass computed it.
        contribution: (bins, *shape), the part of the gradient over the paths of each bin; the sum over the bins is ``gradient``.
        norm: ‖contribution‖, in units of the gradient. Parts may cancel, so the norms need not add up to its norm.
        share: ⟨contribution, gradient⟩ / ‖gradient‖²; the shares add up to 1, and one is negative where a part works against the
            whole. NaN if the gradient is 0.
        paths: how many paths there are in each bin, as whole numbers: one for every way through the graph's nodes, where a part ``x[t]``
            of a value counts as a node of its own.
    """

    target: str
    marked: str
    gradient: Any
    contribution: Any
    norm: Any
    share: Any
    paths: tuple[int, ...]

    @property
    def log10_paths(self) -> Any:
        """log₁₀ of the number of paths; −inf where there are none."""
        return np.array([math.log10(count) if count else -math.inf for count in self.paths])

    def table(self) -> Table:
        """One row per bin."""
        last = len(self.paths) - 1
        logs = self.log10_paths
        rows = [
            (f"{k} or more" if k == last else k, self.paths[k] if logs[k] < 9 else power_of_ten(logs[k]), number(n), f"{100 * s:.3g} %")
            for k, (n, s) in enumerate(zip(self.norm, self.share, strict=True))
        ]
        title = f"∂L/∂{self.target}, by passes over edges {self.marked}"
        return aligned(("passes", "paths", "norm", "share"), rows, title, f"norm of the whole: {number(norm_of(self.gradient))}")

    def to_dict(self) -> dict[str, Any]:
        """Every field in types that JSON knows; numbers of paths beyond 2⁶³ as text, such as "1.27e+30"."""
        counted = [n if n < 2**63 else power_of_ten(log) for n, log in zip(self.paths, self.log10_paths, strict=True)]
        return {**super().to_dict(), "paths": counted}


def through(gate: str) -> Edges:
    """The edges through which a cotangent passes a gate, one each time: out of its value into its pre-activation.

    Args:
        gate: "input", "forget", "candidate" or "output" (LSTM); "reset", "update" or "candidate" (GRU).

    Raises:
        ArgumentError: if no gate has this name.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
        >>> [step.label for step in tg.trace(outputs[-1].sum()).filter(time=4, where=flow.through("forget"))]
        ['⊙ f₄(1 − f₄)']
    """
    if gate not in GATES:
        raise ArgumentError(f"through: expected a gate, one of {', '.join(GATES)}, got {gate!r}")
    return Edges(lambda step: step.node.role == "gate" and step.node.gate == gate, f"through the {gate} gate")


def split_paths(
    loss: Tensor | Trace,
    target: Any,
    marked: str | Iterable[str] | Callable[[BackwardStep], bool] = "recurrent",
    *,
    bins: int = 4,
    layer: Any = None,
) -> PathSplit:
    """A gradient taken apart by the number of marked edges on its paths, in one backward pass over a stack of cotangents.

        ∂L/∂x = Σ over the paths p from L to x of Π over the edges e on p of J_eᵀ
        contribution_k = the same sum over the paths with exactly k marked edges (the last bin: k or more)

    The gradient is linear in its paths: a marked edge moves every cotangent to the next bin, all other edges leave it in its own.

    Args:
        loss: a scalar, or a trace of one with keep="arrays".
        target: a Tensor from which the loss was computed (a parameter, an input, anything recorded), or a landmark of the trace, such
            as ``trace.states()[1].cell``.
        marked: which edges count. "recurrent": a way out of a step into the hidden state before, through W_hh, so that bin 0 is the
            highway alone (nothing in an RNN, ⊙ f in an LSTM, ⊙ z in a GRU). The name of a gate, "input", "forget", "candidate", "output",
            "reset" or "update": each passage through that gate. Several names: any of these. Or a function of a
            :class:`~tinygrad_rnn.steps.BackwardStep`, for any graph at all; ``flow.crossing()`` splits by the number of steps.
        bins: how many; the last one takes all that is left.
        layer: for names, the layer whose edges count (a module or its path); None for all.

    Returns:
        A :class:`PathSplit`.

    Raises:
        ArgumentError: if the target takes no part, a name is unknown, or the trace has only norms.

    Source:
        Kanuparthi et al. 2018 (h-detach) treat the highway and the rest apart; the counting is the chain rule's distributive law.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
        >>> ledger = tg.trace(outputs[-1].sum())
        >>> split = flow.split_paths(ledger, ledger.states()[1].cell)
        >>> split.paths, bool(np.allclose(split.contribution.sum(0), split.gradient))
        ((1, 10, 40, 64), True)
    """
    if not isinstance(bins, (int, np.integer)) or isinstance(bins, bool) or bins < 1:
        raise ArgumentError(f"split_paths: expected bins to be a whole number from 1 on, got {bins!r}")
    ledger = traced("split_paths", loss, arrays=True)
    steps = ledger.steps
    goal, gradient = _goal(ledger, target)
    predicate, text = _predicate(ledger, marked, layer)
    root = ledger.root
    start = steps[0].cotangent if steps else ledger.gradients[root]
    path = between(steps, {root.order}, {goal.order})
    chosen = {id(step) for step in path if predicate(step)}
    seeds = {root.order: Stack(root.shape, {None: Slab(0, np.array(start)[None])})}
    arrived = carry(path, seeds, {goal.order}, marked=lambda step: id(step) in chosen, bins=bins).get(goal.order)
    contribution = np.zeros((bins, *goal.shape), goal.dtype) if arrived is None else arrived.array(bins)
    size = norm_of(gradient)
    projected = [float(np.sum(part / size * (gradient / size))) if size else math.nan for part in contribution]
    return PathSplit(
        target=goal.symbol,
        marked=text,
        gradient=gradient,
        contribution=contribution,
        norm=np.array([norm_of(part) for part in contribution]),
        share=np.array(projected),
        paths=_count(path, root.order, goal.order, chosen, bins),
    )


def _goal(ledger: Trace, target: Any) -> tuple[NodeInfo, Any]:
    """The node that is asked for, and the gradient there."""
    if isinstance(target, Landmark):
        info, gradient = target.node, target.cotangent
        for step in ledger.steps:
            if info is step.node or info is step.operand:
                return info, gradient
        raise ArgumentError(
            f"split_paths: expected a landmark of this trace, got {info.symbol} of another one. Pass the trace that it is from"
        )
    if not isinstance(target, Tensor):
        raise ArgumentError(
            "split_paths: expected the target to be a Tensor, such as layer.weight_hh_l0, or a landmark, such as trace.states()[1].cell, "
            f"got {type(target).__name__}"
        )
    info = ledger.node(target)
    if info in ledger.gradients:
        return info, ledger.gradients[info]
    return info, next(step.cotangent for step in ledger.steps if step.node is info)


def _predicate(ledger: Trace, marked: Any, layer: Any) -> tuple[Callable[[BackwardStep], bool], str]:
    """What is marked, as a function and in words."""
    if callable(marked):
        return marked, described(marked)
    names = [marked] if isinstance(marked, str) else list(marked) if isinstance(marked, Iterable) else [marked]
    found: Edges | None = None
    for name in names:
        if name != "recurrent" and name not in GATES:
            raise ArgumentError(f"split_paths: expected marked to be 'recurrent', one of {', '.join(GATES)}, or a function; got {name!r}")
        one = recurrent(layer) if name == "recurrent" else through(name) if layer is None else through(name) & edges(layer=layer)
        found = one if found is None else found | one
    if found is None:
        raise ArgumentError("split_paths: expected marked to name some edges, got nothing. Pass a function that is always False for none")
    gates = {step.node.gate for step in ledger.steps if step.node.role == "gate"}
    if missing := [name for name in names if name != "recurrent" and name not in gates]:
        raise ArgumentError(f"split_paths: no gate {missing[0]!r} was traced; there are {', '.join(sorted(map(str, gates))) or 'none'}")
    return found, found.text


def _count(path: list[BackwardStep], start: int, goal: int, chosen: set[int], bins: int) -> tuple[int, ...]:
    """How many paths there are in each bin: the same recursion, on whole numbers by node, place on its first axis, and bin."""
    none = [0] * bins
    counts: dict[int, dict[int | None, list[int]]] = {start: {None: [1, *none[1:]]}}
    left = start
    for step in path:
        order = step.node.order
        if order != left:
            counts.pop(left, None)
            left = order
        for place, here in counts.get(order, {}).items():
            assert step.map is not None
            goes, there = lands(step.map, place, step.node.shape, step.operand.shape)
            if goes:
                if id(step) in chosen:
                    here = [*none[:1], *here[: bins - 2], sum(here[bins - 2 :])] if bins > 1 else here
                arrived = counts.setdefault(step.operand.order, {})
                arrived[there] = [a + b for a, b in zip(here, arrived.get(there, none), strict=True)]
    return tuple(map(sum, zip(none, *counts.get(goal, {}).values(), strict=True)))
