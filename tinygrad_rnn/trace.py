"""The ledger: every multiplication of one backward pass, with landmarks for the recurrent states.

``trace(loss)`` runs the backward pass once, with every opaque node opened, and keeps what went over each edge. It touches no
``.grad``. The layers have left marks on the nodes of their states and gates; the trace reads the marks and knows no layer.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import ArgumentError, GraphError
from .files import write_atomically
from .graph import Leaf, Node, Scope, belongs, within
from .graph import state as recording
from .linear_maps import KINDS, Kind, LinearMap
from .report import Table, aligned, as_json, number, plain, power_of_ten
from .steps import BackwardStep, Infos, NodeInfo, leaving_norm, lock, norm_of, quiet_norm
from .tensor import Tensor, lift, seed
from .walk import Backward


class Landmark:
    """A state or gate at one step of the sequence.

    Attributes:
        node: what is known of the node.
        value: its value (None if arrays were not kept).
        cotangent: ∂L/∂value, total, over all paths (None if arrays were not kept).
        carried: for a state, the part of the cotangent that arrives from outside its own step: from later steps and from what reads
            it. The carried parts of all states of a step form the state cotangent δ_t that the step Jacobians act on, since inside
            the step h_t is itself computed from c_t.
    """

    __slots__ = ("_carried_norm", "_norm", "carried", "cotangent", "node", "value")

    def __init__(self, node: NodeInfo, value: Any, cotangent: Any, carried: Any, norms: tuple[float, float] | None) -> None:
        self.node = node
        self.value = _frozen(value)
        self.cotangent = _frozen(cotangent)
        self.carried = _frozen(carried)
        self._norm: float | None
        self._carried_norm: float | None
        self._norm, self._carried_norm = norms or (None, None)

    @property
    def norm(self) -> float:
        """‖cotangent‖ (Frobenius, over the whole batch)."""
        if self._norm is None:
            self._norm = norm_of(self.cotangent)
        return self._norm

    @property
    def carried_norm(self) -> float:
        """‖carried‖; 0 where nothing was carried."""
        if self._carried_norm is None:
            self._carried_norm = 0.0 if self.carried is None else norm_of(self.carried)
        return self._carried_norm

    def __repr__(self) -> str:
        return f"<landmark {self.node.symbol} {self.node.shape}, ‖cotangent‖ = {self.norm:.3g}>"


@dataclass
class StateAt:
    """The landmarks of one step t of a recurrence."""

    time: int
    place: Scope | None = field(repr=False)
    hidden: Landmark | None = None
    cell: Landmark | None = None
    gates: dict[str, Landmark] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The number of the landmark that was recorded first."""
        return min(landmark.node.order for landmark in (*self.parts, *self.gates.values()))

    def lacks(self, info: NodeInfo) -> bool:
        """Whether the landmark's place among the states and gates is free."""
        return info.gate not in self.gates if info.role == "gate" else getattr(self, str(info.role)) is None

    @property
    def parts(self) -> tuple[Landmark, ...]:
        """The states that the step hands on: hidden, and cell if there is one."""
        return tuple(part for part in (self.hidden, self.cell) if part is not None)

    @property
    def cotangent(self) -> Any:
        """The state cotangent δ_t = ∂L/∂s_t with s = h or [h; c], of shape (…, S); None if arrays were not kept."""
        if not self.parts or any(part.value is None for part in self.parts):
            return None
        return np.concatenate([np.zeros_like(p.value) if p.carried is None else p.carried for p in self.parts], axis=-1)

    @property
    def norm(self) -> float:
        """‖δ_t‖, over the whole batch."""
        return math.hypot(*(part.carried_norm for part in self.parts))


class States(Sequence[StateAt]):
    """The steps of one recurrence in the order in which it ran: ``states[t]`` is step t.

    The first is 1, an initial state is 0; a recurrence that read the sequence from its end ran T, …, 1, and began with the state T + 1.

    Attributes:
        path: the recurrence's name.
        times: the steps, in the order in which the recurrence ran.
    """

    def __init__(self, path: str, steps: dict[int, StateAt]) -> None:
        self.path = path
        self.times = tuple(sorted(steps, key=lambda time: steps[time].first))
        self._steps = steps

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[StateAt]:
        return (self._steps[time] for time in self.times)

    def __getitem__(self, time: Any) -> Any:
        if isinstance(time, slice):
            return [self._steps[t] for t in self.times[time]]
        if time < 0:
            return self._steps[self.times[time]]
        if time not in self._steps:
            raise ArgumentError(f"states: {self.path!r} has no step {time}; expected one from {self.times[0]} to {self.times[-1]}")
        return self._steps[time]

    def __repr__(self) -> str:
        return f"<states of {self.path!r}, steps {self.times[0]} to {self.times[-1]}>"


Keep = Literal["arrays", "norms"]


class Trace:
    """Every multiplication of one backward pass, in the order in which it ran. Made by :func:`trace`.

    Attributes:
        keep: "arrays" or "norms".
        gradients: the gradient of every leaf by its node's info (empty if arrays were not kept).
        numbers: the values that have one entry, by their node's info (empty if arrays were not kept).
    """

    def __init__(self, loss: Tensor, keep: Keep, cotangent: Any) -> None:
        self.keep: Keep = keep
        self.gradients: dict[NodeInfo, Any] = {}
        self.numbers: dict[NodeInfo, float] = {}
        self._groups: dict[Scope | str, list[dict[int, StateAt]]] = {}
        self._rows: list[tuple[int, int, Kind, str, float, float]] = []
        self._steps: list[BackwardStep] = []
        self._landed: list[tuple[int, Any, Any, Any, tuple[float, float] | None]] = []
        self._carried: dict[Node, Any] = {}
        self._latest: dict[
            Node, tuple[Any, float]
        ] = {}  # a node's latest contribution and its norm: its cotangent's, if it is the only one
        self._infos = Infos()
        start = seed(loss, cotangent, "trace")
        with _undisturbed(sources=keep == "arrays"):
            found = Backward([start], lift=lift, ledger=self, infos=self._infos).run()
        if keep == "arrays":
            self.gradients = {self._infos.of(leaf): _frozen(gradient) for leaf, gradient in found.items() if isinstance(leaf, Leaf)}
        self._root = start[0].order
        del self._carried, self._latest

    # -- the walk tells ---------------------------------------------------------------------------------------------------------

    def enter(self, node: Node, cotangent: Any) -> None:
        """A cotangent comes in from outside the edges: for a state, from outside its step."""
        if node.mark is not None and node.mark.role in _STATES:
            self._carry(node, cotangent)

    def account(self, node: Node, cotangent: Any, maps: Sequence[LinearMap], shares: Sequence[tuple[int, Any]]) -> None:
        """A node had its turn: its edges are steps of the ledger, and a state or gate is a landmark.

        Norms are taken at once and everything else of the graph is noted: infos and steps are made when someone reads them.
        """
        mark, operands, order = node.mark, node.operands, node.order
        norms, latest, rows = self.keep == "norms", self._latest, self._rows
        arriving = 0.0
        if norms:
            only, known = latest.pop(node, _NOTHING)
            arriving = known if only is cotangent else quiet_norm(cotangent)
            self._infos.note(node)
        else:
            info = self._infos.visit(node)
            lock(cotangent)
            if cotangent.size == 1:
                self.numbers[info] = float(node.value.item())
        for position, share in shares:
            operand, linear_map = operands[position], maps[position]
            if norms:
                leaving = arriving if share is cotangent else leaving_norm(linear_map, cotangent, share, arriving)
                latest[operand] = share, leaving
                rows.append((order, position, linear_map.kind, linear_map.label, arriving, leaving))
            else:
                lock(share)
                # A contribution larger than its cotangent is a weight's share at one step. It is computed again when it is asked for:
                # to keep T of them would take T times the weights.
                held = share if share is None or share.size <= cotangent.size else None
                self._steps.append(BackwardStep(info, position, linear_map, cotangent, held))
            target = operand.mark
            if target is not None and target.role in _STATES and not within(node.scope, operand.scope):
                self._carry(operand, linear_map.pullback(cotangent) if share is None else share)
        if mark is not None and mark.role is not None and mark.time is not None:
            carried = self._carried.pop(node, None)
            if norms:
                self._landed.append((order, None, None, None, (arriving, 0.0 if carried is None else quiet_norm(carried))))
            else:
                self._landed.append((order, node.value, cotangent, carried, None))

    def _carry(self, state: Node, share: Any) -> None:
        held = self._carried.get(state)
        self._carried[state] = share if held is None else held + share

    # -- what it told, made readable ----------------------------------------------------------------------------------------------

    @property
    def steps(self) -> list[BackwardStep]:
        """The :class:`~tinygrad_rnn.steps.BackwardStep` of every edge, in the order in which they ran."""
        known = self._infos.numbered()
        if self._rows:
            rows, self._rows = self._rows, []
            self._steps = [BackwardStep.of_norms(known[order], place, kind, label, (a, b)) for order, place, kind, label, a, b in rows]
        return self._steps

    @property
    def root(self) -> NodeInfo:
        """What is known of the node where the pass began."""
        return self._infos.numbered()[self._root].made

    def node(self, tensor: Tensor) -> NodeInfo:
        """What is known of the node of a Tensor that was on the way to the loss; its ``order`` is that of the steps.

        Raises:
            ArgumentError: if the pass did not come by it.
        """
        node = tensor.node if isinstance(tensor, Tensor) else None
        info = None if node is None else self._infos.numbered().get(node.order)
        if info is None:
            what = f"a Tensor of shape {tensor.shape}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ArgumentError(
                f"trace: expected a Tensor that the loss was computed from, got {getattr(tensor, 'name', None) or what}. It takes no part, "
                "requires no gradient, or was given a new value since; trace before the optimiser's step"
            )
        return info.made

    def _land(self) -> None:
        """Sort the landmarks into recurrences and steps."""
        landed, self._landed = self._landed, []
        known = self._infos.numbered() if landed else {}
        for order, value, cotangent, carried, norms in landed:
            info = known[order]
            landmark = Landmark(info, value, cotangent, carried, norms)
            at = self._step_of(info)
            if info.role == "gate":
                at.gates[info.gate or info.symbol] = landmark
            else:
                setattr(at, str(info.role), landmark)

    def _step_of(self, info: NodeInfo) -> StateAt:
        """Where a landmark belongs: to its recurrence at its time, in the scope of its step.

        A second step at the same time, which went on from the same state as the first, begins a recurrence of its own.
        """
        assert info.time is not None
        branches = self._groups.setdefault(info.group or info.scope, [])
        for steps in branches:
            at = steps.get(info.time)
            if at is not None and (at.place is info.place or (info.group is None and at.lacks(info))):
                return at
        for steps in branches:
            if info.time not in steps:
                break
        else:
            branches.append(steps := {})
        steps[info.time] = at = StateAt(info.time, info.place)
        return at

    # -- reading ------------------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[str, ...]:
        """The recurrences that were walked through, by their scope's path, in the order of the forward pass.

        A layer that was called several times appears as "lstm", "lstm#2", ….
        """
        return tuple(self._named_groups())

    def _named_groups(self) -> dict[str, tuple[Scope | str, dict[int, StateAt]]]:
        self._land()
        named: dict[str, tuple[Scope | str, dict[int, StateAt]]] = {}
        branches = [(group, steps) for group, several in self._groups.items() for steps in several]
        for group, steps in sorted(branches, key=lambda item: min(at.first for at in item[1].values())):
            path = (group if isinstance(group, str) else group.path) or "recurrence"
            count = sum(name == path or name.startswith(f"{path}#") for name in named)
            named[path if not count else f"{path}#{count + 1}"] = (group, steps)
        return named

    def states(self, layer: Any = None) -> States:
        """The landmarks of one recurrence.

        Args:
            layer: its path ("model/lstm"), the end of it ("lstm"), the module itself or one that holds it; None if there is only one.

        Raises:
            ArgumentError: if there is none, or several fit.
        """
        named = self._named_groups()
        if layer is None or isinstance(layer, str):
            fitting = [n for n in named if layer is None or n == layer] or [n for n in named if n.endswith(f"/{layer}")]
        else:
            fitting = [n for n, (group, _) in named.items() if isinstance(group, Scope) and belongs(group, layer)]
        if len(fitting) != 1:
            asked = "" if layer is None else f" {layer!r}" if isinstance(layer, str) else f" this {type(layer).__name__}"
            if not named:
                said = "there is no recurrence in this trace: no layer left landmarks. Trace a loss that depends on a recurrent layer"
            elif fitting:
                said = f"several fit{asked}. Name one of them: layer={' or layer='.join(map(repr, fitting))}"
            else:
                said = f"none fits{asked}. Expected one of {list(named)}"
            raise ArgumentError(f"states: {said}")
        return States(fitting[0], named[fitting[0]][1])

    def filter(
        self,
        *,
        kind: str | Collection[str] | None = None,
        op: str | Collection[str] | None = None,
        time: int | Collection[int] | None = None,
        gate: str | Collection[str] | None = None,
        scope: str | None = None,
        where: Callable[[BackwardStep], bool] | None = None,
    ) -> list[BackwardStep]:
        """The steps that fit all conditions; a condition is one value or a collection of them, ``scope`` a path or its beginning.

        Example:
            >>> import numpy as np, tinygrad_rnn as tg
            >>> x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
            >>> [step.label for step in tg.trace(np.tanh(3.0 * x).sum()).filter(kind="scale")]
            ['⊙ (1 − tanh²)', '⊙ 3']
        """

        def fits(actual: Any, wanted: Any) -> bool:
            if wanted is None:
                return True
            return actual in wanted if isinstance(wanted, Collection) and not isinstance(wanted, str) else actual == wanted

        if unknown := [k for k in ([kind] if isinstance(kind, str) else kind or ()) if k not in KINDS]:
            raise ArgumentError(f"filter: kind {unknown[0]!r} does not exist; expected one of {', '.join(KINDS)}")
        return [
            step
            for step in self.steps
            if fits(step.kind, kind)
            and fits(step.op, op)
            and fits(step.time, time)
            and fits(step.gate, gate)
            and (scope is None or step.scope == scope or step.scope.startswith(scope + "/"))
            and (where is None or where(step))
        ]

    def summary(self) -> Table:
        """One row per kind and operation: how many multiplications, and the mean and range of their gains (geometric mean)."""
        rows = []
        groups: dict[tuple[str, str], list[float]] = {}
        for step in self.steps:
            groups.setdefault((step.kind, step.op), []).append(step.gain)
        for (kind, op), gains in sorted(groups.items(), key=lambda item: -len(item[1])):
            positive = [gain for gain in gains if gain > 0]
            mean = float(np.mean(np.log10(positive))) if positive else None
            low, high = (min(positive), max(positive)) if positive else (None, None)
            rows.append((op, kind, len(gains), len(gains) - len(positive), power_of_ten(mean), number(low), number(high)))
        columns = ("operation", "kind", "edges", "of gain 0", "mean gain", "smallest", "largest")
        layers = ", ".join(self.layers) or "no recurrence"
        return aligned(columns, rows, f"{len(self.steps)} backward multiplications", f"landmarks: {layers}")

    def table(self, rows: int = 20, **conditions: Any) -> Table:
        """The ledger as text: the first so many steps that fit the conditions of :meth:`filter`.

        Example:
            >>> import numpy as np, tinygrad_rnn as tg
            >>> x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
            >>> print(tg.trace(np.tanh(x).sum()).table())
            2 backward multiplications
            t  from    to   kind  multiplication  ‖cotangent‖  ‖contribution‖   gain
            ────────────────────────────────────────────────────────────────────────
            –   sum  tanh  route       broadcast            1            1.41   1.41
            –  tanh     x  scale   ⊙ (1 − tanh²)         1.41           0.426  0.301
        """
        found = self.filter(**conditions)
        columns = ("t", "from", "to", "kind", "multiplication", "‖cotangent‖", "‖contribution‖", "gain")
        shown = [
            (
                "–" if step.time is None else step.time, step.node.symbol, step.operand.symbol, step.kind, step.label,
                number(step.norms[0]), number(step.norms[1]), number(step.gain),
            )
            for step in found[:rows]
        ]  # fmt: skip
        of = "" if len(found) == len(self) else f" of {len(self)}"
        title = f"{len(found)}{of} backward multiplications"
        return aligned(columns, shown, title, f"the first {rows}" if rows < len(found) else "")

    def to_dict(self) -> dict[str, Any]:
        """The ledger in types that JSON knows: one entry per step, and the state cotangents' norms by layer and time."""
        return {
            "format": "tinygrad_rnn trace 1",
            "keep": self.keep,
            "steps": [
                {
                    "op": step.op,
                    "kind": step.kind,
                    "label": step.label,
                    "scope": step.scope,
                    "time": step.time,
                    "gate": step.gate,
                    "from": step.node.order,
                    "to": step.operand.order,
                    "from_symbol": step.node.symbol,
                    "to_symbol": step.operand.symbol,
                    "cotangent_norm": plain(step.norms[0]),
                    "contribution_norm": plain(step.norms[1]),
                    "gain": plain(step.gain),
                    "source": step.source,
                }
                for step in self.steps
            ],
            "states": {
                name: {str(t): plain(at.norm) for t, at in sorted(steps.items())} for name, (_, steps) in self._named_groups().items()
            },
        }

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str | Path:
        """The ledger as JSON text, or written to a file (atomically); infinities become strings and NaN null."""
        text = as_json(self.to_dict())
        return text if path is None else write_atomically(path, text)

    def __len__(self) -> int:
        return len(self._rows) or len(self._steps)

    def __repr__(self) -> str:
        return f"<trace of {self.root.symbol}: {len(self)} steps, layers {list(self.layers)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: how many multiplications of which kind, and the first of them."""
        return self.summary()._repr_html_() + self.table(10)._repr_html_()


@contextmanager
def _undisturbed(*, sources: bool) -> Iterator[None]:
    """What is opened on the way tells where it was written, if asked to; and the garbage collector waits.

    A walk makes thousands of objects and not one cycle; going through them again and again would be a tenth of its time.
    """
    before, collecting = recording.sources, gc.isenabled()
    try:
        recording.sources = before or sources
        gc.disable()
        yield
    finally:
        recording.sources = before
        if collecting:
            gc.enable()


_STATES = ("hidden", "cell")
_NOTHING = (None, 0.0)


def _frozen(array: Any) -> Any:
    if array is None:
        return None
    array = np.asarray(array)
    lock(array)
    return array


def trace(loss: Tensor, keep: Keep = "arrays", *, cotangent: Any = None) -> Trace:
    """Run the backward pass from ``loss`` once, opened, and keep the ledger of its multiplications.

    Args:
        loss: where it starts; a scalar, unless a ``cotangent`` of its shape is given.
        keep: "arrays" keeps cotangents, maps and contributions; "norms" only their norms, and no arrays at all.

    Returns:
        A :class:`Trace`. No ``.grad`` is touched.

    Raises:
        GraphError: if there is nothing to differentiate.
        ArgumentError: for another ``keep``.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> outputs, state = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
        >>> ledger = tg.trace(outputs[-1].sum())
        >>> [step.label for step in ledger.filter(time=4, gate="forget", op="multiply")]
        ['⊙ c₃', '⊙ f₄']
        >>> len(ledger.states("lstm")), ledger.states("lstm")[2].cell.cotangent.shape
        (4, (1, 3))
    """
    if keep not in ("arrays", "norms"):
        raise ArgumentError(f"trace: keep must be 'arrays' or 'norms', got {keep!r}")
    if not isinstance(loss, Tensor):
        raise GraphError(f"trace: expected a Tensor, got {type(loss).__name__}")
    return Trace(loss, keep, cotangent)
