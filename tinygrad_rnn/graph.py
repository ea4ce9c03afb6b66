"""The tape: nodes, marks and scopes, and what the current thread is recording.

A :class:`Node` says how a value came to be: its primitive, its operands, its statics and the scope that was open. It never knows
the Tensor that shows its value, so a graph has no reference cycle and is freed the moment it is dropped. Nodes are numbered in
the order in which they were recorded; an operand always has a smaller number than the node that uses it.
"""

from __future__ import annotations

import contextvars
import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from .errors import GraphError
from .primitive import Primitive

number = itertools.count(1).__next__


# -- recording state --------------------------------------------------------------------------------------------------------


class State(threading.local):
    """What the current thread records: nothing here is shared between threads."""

    recording: bool = True
    scope: Scope | None = None
    reopened: Scope | None = None
    anomaly: bool = False
    sources: bool = False
    touched: bool = False
    transforming: bool = False

    def __init__(self) -> None:
        self.before: list[tuple[Any, dict[str, Any]]] = []  # the switches that are open, and what they found


state = State()

# Operations on Tensors give inf and NaN without a warning, as in PyTorch. Entering np.errstate at each of them would cost more than the
# operation; running in a context that was once told to be quiet does not. Each use takes a copy of its own, so that uses may nest.
_quiet = contextvars.copy_context()
_quiet.run(np.seterr, all="ignore")
quiet = _quiet.copy


def silent() -> contextvars.Context:
    """The current context once more, with NumPy's warnings off. Leaving it runs no Python, so an interrupt cannot leave them off."""
    context = contextvars.copy_context()
    context.run(np.seterr, all="ignore")
    return context


class Scope:
    """A named stretch of the recording. ``time`` and ``group`` are inherited by the scopes inside.

    ``group`` is the scope of the layer's call that landmarks recorded inside belong to; ``owner`` is the module that was called,
    None when it is gone: a scope keeps no module alive.
    """

    __slots__ = ("_owner", "_path", "closed", "group", "name", "parent", "time")

    def __init__(self, name: str | None, parent: Scope | None, time: int | None, owner: Any, group: Scope | None) -> None:
        self.name = name
        self.parent = parent
        self.closed = False
        self.group: Scope | None = parent.group if group is None and parent is not None else group
        self.time: int | None = parent.time if time is None and parent is not None else time
        self._owner = None if owner is None else weakref.ref(owner)
        self._path: str | None = None

    def __reduce__(self) -> Any:
        raise GraphError("copy: a scope, and what lies in it, belongs to its graph and can be neither copied nor pickled; hand on arrays")

    @property
    def owner(self) -> Any:
        return None if self._owner is None else self._owner()

    @property
    def path(self) -> str:
        """The names from the outermost scope to this one, joined by "/"."""
        if self._path is None:
            names = []
            at: Scope | None = self
            while at is not None:
                if at.name is not None:
                    names.append(at.name)
                at = at.parent
            self._path = "/".join(reversed(names))
        return self._path


def within(place: Scope | None, around: Scope | None) -> bool:
    """Whether one scope is another, or lies inside of it."""
    while place is not None and place is not around:
        place = place.parent
    return place is not None


def belongs(place: Scope | None, layer: Any) -> bool:
    """Whether something was recorded in a call of a module, given itself or by its path or the end of it."""
    while place is not None:
        if place.owner is layer if not isinstance(layer, str) else place.path == layer or place.path.endswith(f"/{layer}"):
            return True
        place = place.parent
    return False


class scope:  # noqa: N801 (used like a function)
    """Name what is recorded inside: ``with tg.scope("encoder"): …``; ``time=t`` says which step of a sequence it is.

    Scopes nest; each backward step tells the path ("encoder/lstm") and the innermost time.
    """

    __slots__ = ("entered", "group", "name", "owner", "time")

    def __init__(self, name: str | None = None, *, time: int | None = None, owner: Any = None, group: Scope | None = None) -> None:
        self.name = name
        self.time = time
        self.owner = owner
        self.group = group
        self.entered: list[Scope] = []

    def __enter__(self) -> Scope:
        entered = Scope(self.name, state.scope, self.time, self.owner, self.group)
        self.entered.append(entered)
        state.scope = entered  # last, and by no call: an interrupt comes before, or finds the scope open
        return entered

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        left = self.entered[-1]
        left.closed = True
        if error is not None and not isinstance(error, (Exception, GeneratorExit)) and within(state.scope, left):
            state.scope = left  # an interrupt may have kept one inside from being left
        # A generator may close its scope while a later one is open: that one stays, and both are left when it closes too.
        # The scope of an opaque node that is being opened has long been closed, and stays all the same.
        while state.scope is not None and state.scope.closed and state.scope is not state.reopened:
            state.scope = state.scope.parent
        self.entered.pop()


class Mark:
    """A landmark that a layer leaves on a node: which state or gate of which step this is.

    ``role`` is "hidden", "cell", "gate" or None; ``gate`` the gate's name; ``group`` the call of the layer that made it.
    """

    __slots__ = ("gate", "group", "role", "time")

    def __init__(self, role: str | None = None, *, gate: str | None = None, time: int | None = None, group: Scope | None = None) -> None:
        self.role = role
        self.gate = gate
        self.time = time
        self.group = group


# -- nodes ------------------------------------------------------------------------------------------------------------------


class Node:
    """How a value came to be. ``operands`` are Nodes where differentiable, plain arrays or :class:`Constant` elsewhere."""

    __slots__ = ("hooks", "mark", "name", "operands", "order", "primitive", "residual", "scope", "source", "statics", "value")

    def __init__(self, primitive: Primitive | None, operands: tuple[Any, ...], statics: dict[str, Any] | None, value: Any) -> None:
        self.primitive = primitive
        self.operands = operands
        self.statics = statics
        self.value = value
        self.order = number()
        self.scope = state.scope
        self.name: str | None = None
        self.mark: Mark | None = None
        self.hooks: dict[object, Callable[[Any], Any]] | None = None
        self.residual: Any = None
        self.source = call_site() if state.sources else None

    def __reduce__(self) -> Any:
        raise GraphError("copy: a node belongs to its graph and can be neither copied nor pickled; use .detach(), or hand on arrays")

    def __repr__(self) -> str:
        op = self.primitive.name if self.primitive is not None else "leaf"
        return f"<node {self.order}: {op} {np.shape(self.value)}>"


class Leaf(Node):
    """Where a graph begins: a value that collects a gradient. Rebinding the value makes a new leaf and leaves this one stale."""

    __slots__ = ("grad", "stale")

    def __init__(self, value: Any, name: str | None = None) -> None:
        super().__init__(None, (), None, value)
        self.scope = None
        self.name = name
        self.grad: Any = None
        self.stale = False


class Constant:
    """An operand without gradient that has a name worth showing."""

    __slots__ = ("name", "value")

    def __init__(self, value: Any, name: str) -> None:
        self.value = value
        self.name = name


def call_site() -> str | None:
    """File and line of the nearest frame outside this package's engine (its layers count as outside)."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        engine = _engine_files.get(file)
        if engine is None:
            name = frame.f_globals.get("__name__", "")
            engine = _engine_files[file] = name in _ENGINE_ROOMS or "tinygrad_rnn.ops" in name
        if not engine:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


_engine_files: dict[str, bool] = {}
_ENGINE_ROOMS = frozenset(
    f"tinygrad_rnn.{room}"
    for room in ("linear_maps", "primitive", "graph", "walk", "tensor", "functional", "numpy_protocol", "transforms", "trace")
)
