"""The ledger: every multiplication of one backward pass, with landmarks for the recurrent states.

``trace(loss)`` runs the backward pass once, with every opaque node opened, and keeps what went over each edge. It touches no
``.grad``. The layers have left marks on the nodes of their states and gates; the trace reads the marks and knows no layer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import ArgumentError, GraphError
from .files import write_atomically
from .graph import Leaf, Node, Scope
from .report import Table, aligned, number, plain, power_of_ten
from .steps import BackwardStep, Infos, NodeInfo, norm_of
from .tensor import Tensor, lift, seed
from .walk import Backward


@dataclass
class Landmark:
    """A state or gate at one step of the sequence.

    Attributes:
        node: what is known of the node.
        value: its value (None if arrays were not kept).
        cotangent: ∂L/∂value, total, over all paths (None if arrays were not kept).
        carried: for a state, the part of the cotangent that arrives from outside its own step: from later steps and from what reads
            it. The carried parts of all states of a step form the state cotangent δ_t that the step Jacobians act on, since inside
            the step h_t is itself computed from c_t.
        norm, carried_norm: their Frobenius norms.
    """

    node: NodeInfo
    value: Any
    cotangent: Any
    norm: float
    carried: Any = None
    carried_norm: float = 0.0


@dataclass
class StateAt:
    """The landmarks of one step t of a recurrence."""

    time: int
    hidden: Landmark | None = None
    cell: Landmark | None = None
    gates: dict[str, Landmark] = field(default_factory=dict)

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
        return norm_of(np.array([part.carried_norm for part in self.parts]))


class States(Sequence[StateAt]):
    """The steps of one recurrence in order of time: ``states[t]`` is step t (the first is 1, an initial state is 0)."""

    def __init__(self, path: str, steps: dict[int, StateAt]) -> None:
        self.path = path
        self.times = tuple(sorted(steps))
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
        steps: the :class:`~tinygrad_rnn.steps.BackwardStep` of every edge.
        keep: "arrays" or "norms".
        gradients: the gradient of every leaf by its node's info (empty if arrays were not kept).
    """

    def __init__(self, loss: Tensor, keep: Keep, cotangent: Any) -> None:
        self.keep: Keep = keep
        self.steps: list[BackwardStep] = []
        self.gradients: dict[NodeInfo, Any] = {}
        self._groups: dict[Scope | str, dict[int, StateAt]] = {}  # by a layer's call, or by path where no layer was called
        self._carried: dict[NodeInfo, Any] = {}
        self._arriving = 0.0
        start = seed(loss, cotangent, "trace")
        start = (start[0], getattr(start[1], "value", start[1]))
        self.root = Infos().of(start[0])
        walk = Backward([start], lift=lift, observers=[self._observe], visit=self._visit)
        found = walk.run()
        if keep == "arrays":
            self.gradients = {walk.infos.of(leaf): _frozen(gradient) for leaf, gradient in found.items() if isinstance(leaf, Leaf)}
        self._carried.clear()

    def _observe(self, step: BackwardStep) -> None:
        target = step.operand
        if target.role in _STATES and not _inside(step.node.place, target.place):
            held = self._carried.get(target)
            self._carried[target] = step.contribution if held is None else held + step.contribution
        if self.keep == "norms":
            step.measure(self._arriving)
            step.drop_arrays()
        else:
            step.settle()
        self.steps.append(step)

    def _visit(self, node: Node, cotangent: Any, infos: Infos) -> None:
        kept = self.keep == "arrays"
        marked = node.mark is not None and node.mark.role is not None and node.mark.time is not None
        if marked or not kept:
            self._arriving = norm_of(cotangent)
        if marked:
            self._land(infos.of(node), node.value, cotangent, kept)

    def _land(self, info: NodeInfo, value: Any, cotangent: Any, kept: bool) -> None:
        carried = self._carried.pop(info, None)
        landmark = Landmark(
            info,
            value=_frozen(value) if kept else None,
            cotangent=_frozen(cotangent) if kept else None,
            norm=self._arriving,
            carried=_frozen(carried) if kept and carried is not None else None,
            carried_norm=0.0 if carried is None else norm_of(carried),
        )
        assert info.time is not None
        at = self._groups.setdefault(info.group or info.scope, {}).setdefault(info.time, StateAt(info.time))
        if info.role == "gate":
            at.gates[info.gate or info.symbol] = landmark
        else:
            setattr(at, str(info.role), landmark)

    # -- reading ------------------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[str, ...]:
        """The recurrences that were walked through, by their scope's path, in the order of the forward pass.

        A layer that was called several times appears as "lstm", "lstm#2", ….
        """
        return tuple(self._named_groups())

    def _named_groups(self) -> dict[str, tuple[Scope | str, dict[int, StateAt]]]:
        def first(steps: dict[int, StateAt]) -> int:
            return min(part.node.order for at in steps.values() for part in (*at.parts, *at.gates.values()))

        named: dict[str, tuple[Scope | str, dict[int, StateAt]]] = {}
        for group, steps in sorted(self._groups.items(), key=lambda item: first(item[1])):
            path = (group if isinstance(group, str) else group.path) or "recurrence"
            count = sum(name == path or name.startswith(f"{path}#") for name in named)
            named[path if not count else f"{path}#{count + 1}"] = (group, steps)
        return named

    def states(self, layer: Any = None) -> States:
        """The landmarks of one recurrence.

        Args:
            layer: its path ("model/lstm"), the end of it ("lstm"), or the module itself; None if there is only one.

        Raises:
            ArgumentError: if there is none, or several fit.
        """
        named = self._named_groups()
        if layer is None or isinstance(layer, str):
            fitting = [n for n in named if layer is None or n == layer] or [n for n in named if n.endswith(f"/{layer}")]
        else:
            fitting = [n for n, (group, _) in named.items() if isinstance(group, Scope) and group.owner is layer]
        if len(fitting) != 1:
            what = "there is no recurrence" if not named else f"{'several fit' if fitting else 'none fits'} {layer!r}"
            raise ArgumentError(f"states: {what} in this trace. Expected one of {list(named) or 'nothing: no layer left landmarks'}")
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
            return actual == wanted if isinstance(wanted, (str, int)) else actual in wanted

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
                    "from": step.node.order - self._origin,
                    "to": step.operand.order - self._origin,
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

    @property
    def _origin(self) -> int:
        """Node numbers count all that a process ever recorded; from here they count this graph's, the same in every run."""
        return min((step.operand.order for step in self.steps), default=1) - 1

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str | Path:
        """The ledger as JSON text, or written to a file (atomically); infinities become strings and NaN null."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        return text if path is None else write_atomically(path, text)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"<trace of {self.root.symbol}: {len(self.steps)} steps, layers {list(self.layers)}>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


_STATES = ("hidden", "cell")


def _inside(place: Scope | None, step: Scope | None) -> bool:
    """Whether something was recorded in this very step of a recurrence, and not in another one or outside."""
    while place is not None and place is not step:
        place = place.parent
    return place is not None


def _frozen(array: Any) -> Any:
    array = np.asarray(array)
    array.flags.writeable = False
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
