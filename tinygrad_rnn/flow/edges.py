"""Which edges: predicates on backward steps, for interventions, filters and observers.

``edges(kind="matmul", role="hidden")`` is a function of a :class:`~tinygrad_rnn.steps.BackwardStep` that says yes or no and can be read:
``print`` tells what it selects. Predicates combine with ``&``, ``|`` and ``~``, also with functions of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ..errors import ArgumentError
from ..graph import Scope, belongs
from ..linear_maps import KINDS
from ..steps import BackwardStep

Predicate = Callable[[BackwardStep], bool]
ROLES = ("hidden", "cell", "gate")
STATES = ("hidden", "cell")


class Edges:
    """A predicate on a backward step that says what it selects. Made by :func:`edges` and its presets.

    Attributes:
        text: what it selects, for tables.
    """

    __slots__ = ("_fits", "text")

    def __init__(self, fits: Predicate, text: str) -> None:
        self._fits = fits
        self.text = text

    def __call__(self, step: BackwardStep) -> bool:
        return bool(self._fits(step))

    def __and__(self, other: Predicate) -> Edges:
        if not callable(other):
            return NotImplemented
        return Edges(lambda step: self(step) and other(step), f"{self.text} and {described(other)}")

    def __or__(self, other: Predicate) -> Edges:
        if not callable(other):
            return NotImplemented
        return Edges(lambda step: self(step) or other(step), f"({self.text} or {described(other)})")

    def __invert__(self) -> Edges:
        return Edges(lambda step: not self(step), f"not ({self.text})")

    def __repr__(self) -> str:
        return f"<edges: {self.text}>"


def described(predicate: Predicate) -> str:
    """What a predicate selects, in words as far as it has them."""
    return str(getattr(predicate, "text", None) or getattr(predicate, "__name__", type(predicate).__name__))


def edges(
    *,
    kind: str | Collection[str] | None = None,
    op: str | Collection[str] | None = None,
    gate: str | Collection[str] | None = None,
    role: str | Collection[str] | None = None,
    into: str | Collection[str] | None = None,
    time: int | Collection[int] | None = None,
    scope: str | None = None,
    layer: Any = None,
) -> Edges:
    """The edges that fit all conditions; each is one value or a collection of them, and None is no condition.

    Args:
        kind: "add", "scale", "matmul" or "route".
        op: the primitive's name.
        gate: the gate that the contribution goes to, comes from, or is multiplied by.
        role: the landmark that receives the contribution: "hidden", "cell" or "gate".
        into: the name of what receives it, without the time: "h", "c", "W_hh", ….
        time: the step in which the multiplication was recorded; ``range(10, 20)`` is a collection.
        scope: a path of scopes or its beginning.
        layer: a module, or the path of one (or its end): what was recorded in its calls.

    Raises:
        ArgumentError: for a kind or role that does not exist.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
        >>> ledger = tg.trace(outputs[-1].sum())
        >>> [step.label for step in ledger.filter(where=flow.edges(role="cell", op="multiply", time=range(3, 5)))]
        ['⊙ f₄', '⊙ f₃']
        >>> flow.edges(kind="matmul") & ~flow.edges(into="W_hh")
        <edges: kind matmul and not (into W_hh)>
    """
    for what, given, known in (("kind", kind, KINDS), ("role", role, ROLES)):
        for name in given if isinstance(given, Collection) and not isinstance(given, str) else () if given is None else (given,):
            if name not in known:
                raise ArgumentError(f"edges: {what} {name!r} does not exist; expected one of {', '.join(known)}")
    tests: list[Predicate] = []
    words: list[str] = []

    def condition(word: str, wanted: Any, of: Callable[[BackwardStep], Any]) -> None:
        if wanted is not None:
            several = isinstance(wanted, Collection) and not isinstance(wanted, str)
            tests.append((lambda step: of(step) in wanted) if several else (lambda step: of(step) == wanted))
            words.append(f"{word} {wanted}")

    condition("kind", kind, lambda step: step.kind)
    condition("op", op, lambda step: step.op)
    condition("gate", gate, lambda step: step.gate)
    condition("role", role, lambda step: step.operand.role)
    condition("into", into, lambda step: step.operand.name)
    condition("time", time, lambda step: step.time)
    if scope is not None:
        tests.append(lambda step: step.scope == scope or step.scope.startswith(scope + "/"))
        words.append(f"scope {scope}")
    if layer is not None:
        tests.append(lambda step: belongs(step.node.place, layer))
        words.append(f"layer {layer if isinstance(layer, str) else type(layer).__name__}")
    return Edges(lambda step: all(test(step) for test in tests), ", ".join(words) or "all")


def crossing(layer: Any = None) -> Edges:
    """The edges that lead from one step of a recurrence into a state of another one: all that goes through time.

    Nothing else connects the steps, so blocking these edges at a step is truncated backpropagation through time.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
        >>> [step.label for step in tg.trace(outputs[-1].sum()).filter(time=4, where=flow.crossing())]
        ['⊙ f₄', '· W_hhᵀ']
    """
    found = Edges(crosses, "from a step into the state before it")
    return found if layer is None else found & edges(layer=layer)


def recurrent(layer: Any = None) -> Edges:
    """The edges into the hidden state before on its way through W_hh: what h-detach blocks. The highway is not among them.

    In the RNN, the LSTM and the GRU with reset="after" that is the product with W_hhᵀ; the GRU with reset="before" reads h_{t−1} in
    two places, and the product with the reset gate, which stands before W_hn, is the second.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.GRU(2, 3, reset="before", rng=0)(np.ones((4, 1, 2)))
        >>> [step.label for step in tg.trace(outputs[-1].sum()).filter(time=4, where=flow.recurrent())]
        ['⊙ r₄', '· W_h(rz)ᵀ']
    """
    found = Edges(
        lambda step: crosses(step) and step.operand.role == "hidden" and (step.kind == "matmul" or step.gate == "reset"),
        "into the hidden state before through W_hh",
    )
    return found if layer is None else found & edges(layer=layer)


# -- places -----------------------------------------------------------------------------------------------------------------


def crosses(step: BackwardStep) -> bool:
    """Whether a contribution goes from one step of a recurrence into a state of another."""
    operand, place = step.operand, step.node.place
    if operand.role not in STATES or place is None or place.time is None or operand.time is None or place.time == operand.time:
        return False
    return same_recurrence(place, operand.group, operand.scope)


def same_recurrence(place: Scope, group: Scope | None, path: str) -> bool:
    """Whether something was recorded in the recurrence of a landmark: in the same call of a layer, or in scopes of the same name."""
    return place.group is group and (group is not None or place.path == path)


def step_place(place: Scope | None) -> Scope | None:
    """The scope of the whole step of a recurrence in which something was recorded; None outside one."""
    if place is None or place.time is None:
        return None
    while place.parent is not None and place.parent.time == place.time and place.parent.group is place.group:
        place = place.parent
    return place
