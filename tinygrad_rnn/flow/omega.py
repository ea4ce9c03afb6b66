"""Ω: a regulariser that asks the state cotangent to keep its length from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..graph import Node, Scope, belongs, within
from ..linear_maps import LinearMap
from ..primitive import Opaque
from ..steps import BackwardStep, Infos
from ..tensor import Tensor, lift, seed
from ..walk import Backward
from .edges import STATES, same_recurrence

THRESHOLD = 1e-20
"""Where the squared variant leaves a step out: below it ‖δ_t‖² counts as nothing (the authors' choice)."""


def omega(
    loss: Tensor,
    layer: Any = None,
    *,
    squared: bool = False,
    immediate: bool = False,
    threshold: float | None = None,
    cotangent: Any = None,
) -> Tensor:
    """Pascanu's Ω as a Tensor that can be added to a loss and trained on.

        Ω = mean over b of Σ_t (‖δ_t J_t‖ / ‖δ_t‖ − 1)²                                     (the paper)
        Ω = mean over b and t with ‖δ_t‖² ≥ 1e-20 of (‖δ_t J_t‖² / ‖δ_t‖² − 1)²             (squared=True: the authors' code)

    with the state cotangent δ_t = ∂L/∂s_t as it arrives from outside step t, a row for each sequence b of the batch, J_t = ∂s_t/∂s_{t−1},
    and s = h or [h; c]; δ_t J_t is what crosses from step t into step t − 1. Ω is 0 where every step keeps the length of the gradient. The
    steps are those from a state to one that is differentiated too: 2 … T for an initial state of zeros. A step whose cotangent is exactly
    0 has no direction and is left out; a gradient of 1e-200 counts, since only ratios are used.

    The pass that finds δ is recorded (``create_graph``), so Ω has a gradient of its own, through J and through δ: second order.
    No ``.grad`` is touched until you call ``backward`` on what you made of it.

    Args:
        loss: a scalar (unless a ``cotangent`` of its shape is given) with its graph.
        layer: a module, the path of one, or the end of it; None sums over all recurrences in the graph. A layer that was called several
            times counts with all calls.
        squared: take the squared norms, and the mean instead of the sum over steps.
        immediate: differentiate with respect to W_hh where it multiplies and nowhere else: states and δ count as constants, as the authors
            do. The value is the same. For an RNN only.
        threshold: leave out steps with ‖δ_t‖² below it; None is 0, with squared=True 1e-20.
        cotangent: as for ``backward``.

    Returns:
        A scalar Tensor; 0, without a graph, if no cotangent crosses from one step into another.

    Raises:
        GraphError: if there is no graph.
        ArgumentError: if no recurrence fits, the threshold is negative, or ``immediate`` is asked of more than an RNN.

    Source:
        Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", equations 9 and 10.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> layer = nn.RNN(2, 8, rng=0)
        >>> outputs, _ = layer(np.ones((10, 1, 2)))
        >>> loss = (outputs[-1] ** 2).sum()
        >>> (loss + 0.5 * flow.omega(loss)).backward()
        >>> layer.weight_hh_l0.grad.shape
        (8, 8)
    """
    limit = (THRESHOLD if squared else 0.0) if threshold is None else threshold
    if isinstance(limit, bool) or not isinstance(limit, (int, float, np.number)) or not limit >= 0:
        raise ArgumentError(f"omega: threshold must be a number of at least 0, got {threshold!r}")
    account = _Account(layer, immediate)
    Backward([seed(loss, cotangent, "omega", record=True)], lift=lift, create_graph=True, ledger=account, wanted=_StatesWithin()).run()
    if not account.recurrences:
        what = "no layer left landmarks" if layer is None else f"no recurrence fits {layer!r}; there is {sorted(account.paths) or 'none'}"
        raise ArgumentError(f"omega: {what}. Give a loss that depends on a recurrent layer's outputs")
    return _total([term for steps in account.recurrences.values() for term in _terms(steps, float(limit), immediate)], squared, loss)


class _StatesWithin:
    """The states of all recurrences, and what may hold some: the weights' contributions need not be recorded, nor the inputs'."""

    def __contains__(self, node: Any) -> bool:
        return node.primitive.__class__ is Opaque or (node.mark is not None and node.mark.role in STATES)


class _Step:
    """What is collected of one step t: δ_t by state, and what crosses from it into the states of the step before."""

    def __init__(self) -> None:
        self.arriving: dict[int, Any] = {}
        self.crossing: dict[int, Any] = {}


class _Account:
    """The ledger of a recorded pass: keeps the cotangents of states and the contributions that cross from step to step."""

    def __init__(self, layer: Any, immediate: bool) -> None:
        self.layer = layer
        self.immediate = immediate
        self.paths: set[str] = set()
        self.recurrences: dict[Scope | str, dict[int, _Step]] = {}

    def enter(self, node: Node, cotangent: Any) -> None:
        if self._counts(node):
            _add(self._step(node).arriving, node, cotangent)

    def account(self, node: Node, cotangent: Any, maps: Sequence[LinearMap], shares: Sequence[tuple[int, Any]]) -> None:
        for position, share in shares:
            state = node.operands[position]
            if not self._counts(state) or within(node.scope, state.scope):
                continue
            contribution = maps[position].pullback(cotangent) if share is None else share
            _add(self._step(state).arriving, state, contribution)
            place, mark = node.scope, state.mark
            if place is not None and place.time not in (None, mark.time) and same_recurrence(place, mark.group, _path(state)):
                if self.immediate:
                    contribution = self._with_constants(node, state, maps[position], cotangent)
                _add(self._step(state, place.time).crossing, state, contribution)

    def _counts(self, node: Any) -> bool:
        """Whether a node is a state of a recurrence that was asked for."""
        mark = getattr(node, "mark", None)
        if mark is None or mark.role not in STATES or mark.time is None:
            return False
        self.paths.add(_path(node))
        return self.layer is None or belongs(mark.group or node.scope, self.layer)

    def _step(self, state: Node, time: int | None = None) -> _Step:
        """The step that a state belongs to, or another of the same recurrence."""
        mark: Any = state.mark
        steps = self.recurrences.setdefault(mark.group or _path(state), {})
        return steps.setdefault(mark.time if time is None else time, _Step())

    def _with_constants(self, node: Node, state: Node, linear_map: LinearMap, cotangent: Any) -> Any:
        """The contribution, as a function of the matrix it is multiplied by and of nothing else."""
        mark: Any = state.mark
        if linear_map.kind != "matmul" or mark.role != "hidden":
            label = BackwardStep(Infos().opened(node), 0, linear_map, None, None).label
            raise ArgumentError(
                "omega: immediate=True holds the states constant, which says what W_hh does in an RNN alone; here "
                f"{label!r} crosses from step to step as well. Use immediate=False"
            )
        return linear_map.pullback(cotangent.detach())


def _add(parts: dict[int, Any], state: Node, contribution: Any) -> None:
    held = parts.get(state.order)
    parts[state.order] = contribution if held is None else held + contribution


def _path(state: Node) -> str:
    return "" if state.scope is None else state.scope.path


def _terms(steps: dict[int, _Step], limit: float, immediate: bool) -> list[tuple[Any, Any]]:
    """For each step from which something crosses: ‖δ_t J_t‖/‖δ_t‖ per sequence, and which sequences count."""
    terms = []
    for step in steps.values():
        if step.arriving and step.crossing:
            before, after = _length(step.arriving), _length(step.crossing)
            before = before.detach() if immediate else before
            counts = (before.value > 0) & (before.value >= limit**0.5)
            terms.append((ops.where(counts, after, 1.0) / ops.where(counts, before, 1.0), counts))
    return terms


def _length(parts: dict[int, Any]) -> Any:
    """The norm of a state cotangent, for each sequence; the parts of a state are put side by side."""
    pieces = [parts[order] for order in sorted(parts)]
    return ops.norm(pieces[0] if len(pieces) == 1 else ops.concatenate(pieces, axis=-1), axis=-1)


def _total(terms: list[tuple[Any, Any]], squared: bool, loss: Tensor) -> Tensor:
    """The regulariser from its terms: ratios, and which of them count."""
    total: Any = loss.detach() * 0.0
    if not terms:
        return total.sum() if total.ndim else total  # type: ignore[no-any-return]
    parts = [((ratio * ratio if squared else ratio) - 1.0) ** 2 for ratio, _ in terms]
    total = parts[0].sum()
    for part in parts[1:]:
        total = total + part.sum()
    if squared:
        counted = sum(int(counts.sum()) for _, counts in terms)
        return total / max(counted, 1)  # type: ignore[no-any-return]
    return total / max(terms[0][1].size, 1)  # type: ignore[no-any-return]
