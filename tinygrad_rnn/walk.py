"""The two walks over the tape: cotangents backward, tangents forward. No recursion, and the same order in every run.

Nodes are numbered as they are recorded, so going through the reachable ones by number is a topological order in both directions.
The backward walk knows four things per edge, the node, its cotangent, the linear map and the resulting contribution; it shows
them to observers as a :class:`~tinygrad_rnn.steps.BackwardStep` and lets interventions replace the contribution.

An opaque node is closed while nobody looks, and opened otherwise: its definition is recorded on the very operands of the node,
and the new nodes, whose numbers are larger than all that are still to come, are simply walked next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from .errors import AnomalyError, GraphError, HookError, TinygradError
from .graph import Leaf, Node, state
from .linear_maps import LinearMap, Scatter
from .primitive import Opaque
from .steps import BackwardStep, Infos

Lift = Callable[[Node], Any]
Observer = Callable[[BackwardStep], Any]
Visit = Callable[[Node, Any, Infos], None]

_by_order = attrgetter("order")


def discover(roots: Iterable[Node], seen: set[Node]) -> list[Node]:
    """All nodes from which a root was computed and that are not in ``seen`` yet, by number; they are added to ``seen``."""
    stack = [root for root in dict.fromkeys(roots) if root not in seen]
    seen.update(stack)
    found = list(stack)
    while stack:
        for operand in stack.pop().operands:
            if isinstance(operand, Node) and operand not in seen:
                seen.add(operand)
                stack.append(operand)
                found.append(operand)
    found.sort(key=_by_order)
    return found


def _refuse_stale(nodes: Iterable[Node]) -> None:
    for node in nodes:
        if node.primitive is None and isinstance(node, Leaf) and node.stale:
            raise GraphError(
                f"backward: the leaf {node.name or 'without a name'} of shape {node.value.shape} was given a new value after the forward "
                "pass had used it; its gradient would belong to neither. Run the forward pass again, or rebind after backward"
            )


class Backward:
    """One backward pass: its cotangents live here and nowhere else.

    Args:
        seeds: pairs of a node and the cotangent that enters there.
        lift: makes a recordable value (a Tensor) of a node; used for definitions, and for everything if ``create_graph``.
        wanted: nodes whose cotangents are asked for; only paths to them are walked. None asks for all leaves.
        observers, interventions: called with each BackwardStep; an intervention may return a contribution to use instead.
        visit: called with each node, its total cotangent, and the infos; what a trace uses to keep landmarks.
    """

    def __init__(
        self,
        seeds: Sequence[tuple[Node, Any]],
        *,
        lift: Lift,
        create_graph: bool = False,
        wanted: Iterable[Node] | None = None,
        observers: Sequence[Observer] = (),
        interventions: Sequence[Observer] = (),
        visit: Visit | None = None,
    ) -> None:
        self.lift = lift
        self.create_graph = create_graph
        self.wanted = None if wanted is None else frozenset(wanted)
        self.observers = tuple(observers)
        self.interventions = tuple(interventions)
        self.visit = visit
        self.watched = bool(self.observers or self.interventions)
        self.opens = self.watched or create_graph or visit is not None
        self.infos = Infos()
        self.found: dict[Node, Any] = {}
        self.cotangents: dict[Node, Any] = {}
        self.owned: set[Node] = set()
        self.seen: set[Node] = set()
        self.schedule: list[Node] = []
        self.useful: set[Node] = set()
        self._plan(node for node, _ in seeds)
        for node, cotangent in seeds:
            self._accumulate(node, cotangent)

    def _plan(self, roots: Iterable[Node]) -> None:
        """Put what is reachable from the roots, and not planned yet, on the schedule."""
        fresh = discover(roots, self.seen)
        _refuse_stale(fresh)
        if self.wanted is not None:
            for node in fresh:
                closure = node.primitive.__class__ is Opaque and node.primitive.joint_pullback is None
                if closure or node in self.wanted or any(operand in self.useful for operand in node.operands if isinstance(operand, Node)):
                    self.useful.add(node)
        tangled = bool(self.schedule and fresh and fresh[0].order < self.schedule[-1].order)
        self.schedule.extend(fresh)
        if tangled:
            self.schedule.sort(key=_by_order)

    def _accumulate(self, operand: Node, contribution: Any) -> None:
        held = self.cotangents.get(operand)
        if held is None:
            self.cotangents[operand] = contribution
        elif operand in self.owned:
            held += contribution
            self.cotangents[operand] = held
        else:
            self.cotangents[operand] = held + contribution
            if not self.create_graph:
                self.owned.add(operand)

    def run(self) -> dict[Node, Any]:
        """Walk, and return the total cotangent of every wanted node (of every leaf, if none was named)."""
        recording, anomaly, scope = state.recording, state.anomaly, state.scope
        state.recording = self.create_graph
        try:
            with np.errstate(all="ignore"):
                if self.opens or anomaly or self.wanted is not None:
                    self._walk_open()
                else:
                    self._walk_closed()
        finally:
            state.recording, state.scope = recording, scope
        return self.found

    def _walk_closed(self) -> None:
        """The quick way: arrays only, nobody looks. Does what :meth:`_walk_open` does, with its calls written out in line."""
        schedule, cotangents, owned, found = self.schedule, self.cotangents, self.owned, self.found
        ndarray = np.ndarray
        while schedule:
            node = schedule.pop()
            cotangent = cotangents.pop(node, None)
            if cotangent is None:
                continue
            if node.hooks is not None:
                cotangent = _run_hooks(node, cotangent)
            primitive = node.primitive
            if primitive is None:
                found[node] = cotangent
                continue
            if primitive.__class__ is Opaque:
                self._opaque(node, cotangent)
                continue
            operands = node.operands
            if len(operands) == 1:
                values = [operands[0].value]
            else:
                values = [operand if operand.__class__ is ndarray else operand.value for operand in operands]
            maps = primitive.rule(node.value, *values, **node.statics) if node.statics else primitive.rule(node.value, *values)
            position = 0
            for operand in operands:
                linear_map = maps[position]
                position += 1
                if operand.__class__ is not Node and operand.__class__ is not Leaf:
                    continue
                if linear_map.__class__ is Scatter:
                    self._scatter(operand, linear_map, cotangent)
                    continue
                contribution = linear_map.pullback(cotangent)
                if operand not in cotangents:
                    cotangents[operand] = contribution
                elif operand in owned:
                    cotangents[operand] += contribution
                else:
                    cotangents[operand] = cotangents[operand] + contribution
                    owned.add(operand)

    def _walk_open(self) -> None:
        """The way with everything in it: recording, wanted nodes, observers, interventions, anomaly detection."""
        while self.schedule:
            node = self.schedule.pop()
            cotangent = self.cotangents.pop(node, None)
            if cotangent is None:
                continue
            if node.hooks is not None:
                cotangent = _run_hooks(node, cotangent)
            if self.visit is not None and node.primitive.__class__ is not Opaque:
                self.visit(node, cotangent, self.infos)
            if (node.primitive is None) if self.wanted is None else (node in self.wanted):
                self.found[node] = cotangent
            if node.primitive is None:
                continue
            if node.primitive.__class__ is Opaque:
                self._opaque(node, cotangent)
                continue
            state.scope = node.scope
            self._edges(node, cotangent)

    def _edges(self, node: Node, cotangent: Any) -> None:
        assert node.primitive is not None
        values: list[Any]
        if self.create_graph:
            out = self.lift(node)
            values = [self.lift(o) if isinstance(o, Node) else o if o.__class__ is np.ndarray else o.value for o in node.operands]
        else:
            out, values = node.value, [o if o.__class__ is np.ndarray else o.value for o in node.operands]
        maps = node.primitive.rule(out, *values, **(node.statics or {}))
        info = self.infos.opened(node) if self.watched else None
        anomaly, wanted = state.anomaly, self.wanted
        for position, (operand, linear_map) in enumerate(zip(node.operands, maps, strict=True)):
            if not isinstance(operand, Node) or (wanted is not None and operand not in self.useful):
                continue
            scatters = linear_map.__class__ is Scatter and not self.create_graph
            contribution = None if scatters else linear_map.pullback(cotangent)
            if info is not None:
                contribution = self._show(BackwardStep(info, position, linear_map, cotangent, contribution), contribution)
            if anomaly:
                self._check_finite(node, position, linear_map, cotangent, contribution)
            if contribution is None:
                self._scatter(operand, linear_map, cotangent)
            else:
                self._accumulate(operand, contribution)

    def _scatter(self, operand: Node, linear_map: Any, cotangent: Any) -> None:
        """Add a part into the operand's own buffer, which is made at the first use."""
        if operand not in self.owned:
            held = self.cotangents.get(operand)
            buffer = linear_map.new_buffer()
            if held is not None:
                buffer += held
            self.cotangents[operand] = buffer
            self.owned.add(operand)
        linear_map.add_into(self.cotangents[operand], cotangent)

    def _show(self, step: BackwardStep, contribution: Any) -> Any:
        """Let interventions alter a step and observers read it."""
        who: Any = None
        try:
            for who in self.interventions:
                replacement = who(step)
                if replacement is not None:
                    contribution = _fitting(replacement, step.contribution, keep_graph=self.create_graph)
                    step.replace(contribution)
            for who in self.observers:
                who(step)
        except TinygradError:
            raise
        except Exception as error:
            raise HookError(f"backward: {_name(who)} raised {type(error).__name__} at the edge {step!r}: {error}") from error
        return contribution

    def _opaque(self, node: Node, cotangent: Any) -> None:
        """Use the joint pullback while nobody looks; otherwise record the definition and walk that."""
        primitive: Any = node.primitive
        if primitive.joint_pullback is not None and not self.opens:
            values = [operand if operand.__class__ is np.ndarray else operand.value for operand in node.operands]
            shares = primitive.joint_pullback(cotangent, node.value, node.residual, *values, **(node.statics or {}))
            for operand, share in zip(node.operands, shares, strict=True):
                if isinstance(operand, Node) and share is not None:
                    self._accumulate(operand, share)
            return
        outputs = expand(node, self.lift)
        pairs = [
            (output.node, part) for output, part in zip(outputs, cotangent if isinstance(cotangent, list) else [cotangent], strict=True)
        ]
        arriving = [(root, part) for root, part in pairs if root is not None and part is not None]
        self._plan(root for root, _ in arriving)
        for root, part in arriving:
            if self.wanted is None or root in self.useful:
                self._accumulate(root, part)

    def _check_finite(self, node: Node, position: int, linear_map: LinearMap, cotangent: Any, contribution: Any) -> None:
        arriving, leaving = _array(cotangent), _array(linear_map.pullback(cotangent) if contribution is None else contribution)
        if np.isfinite(leaving).all():
            return
        step = BackwardStep(self.infos.opened(node), position, linear_map, cotangent, leaving)
        raise AnomalyError(_describe_anomaly(step, node, arriving, leaving))


def expand(node: Node, lift: Lift) -> list[Any]:
    """Record the definition of an opaque node on its own operands; return the outputs as lifted values."""
    primitive: Any = node.primitive
    operands = [lift(operand) if isinstance(operand, Node) else operand for operand in node.operands]
    before = state.recording, state.scope, state.sources
    state.recording, state.scope, state.sources = True, node.scope, True
    try:
        outputs = primitive.definition(*operands, **(node.statics or {}))
    finally:
        state.recording, state.scope, state.sources = before
    made = list(outputs) if isinstance(outputs, tuple) else [outputs]
    if primitive.exact:
        held = node.value if isinstance(node.value, tuple) else (node.value,)
        if len(made) != len(held) or any(not np.array_equal(m.value, h, equal_nan=True) for m, h in zip(made, held, strict=True)):
            raise GraphError(
                f"{primitive.name}: computing again gave another value than the forward pass. The function must depend on nothing that "
                "changes; draw random numbers outside it and pass them in"
            )
    return made


def forward_walk(seeds: dict[Node, Any], outputs: Sequence[Node], *, lift: Lift, create_graph: bool) -> list[Any]:
    """Push tangents from the seed nodes to the outputs; None where an output does not depend on them."""
    seen: set[Node] = set()
    todo: list[Any] = discover(outputs, seen)[::-1]
    _refuse_stale(todo)
    tangents = dict(seeds)
    shown = lift if create_graph else attrgetter("value")
    recording, scope = state.recording, state.scope
    state.recording = create_graph
    try:
        with np.errstate(all="ignore"):
            while todo:
                node = todo.pop()
                if isinstance(node, tuple):  # an opened node: its tangent is its definition's
                    closed, roots = node
                    parts = [tangents.get(root) for root in roots]
                    if any(part is not None for part in parts):
                        tangents[closed] = parts if isinstance(closed.value, tuple) else parts[0]
                    continue
                moved = [tangents.get(operand) if isinstance(operand, Node) else None for operand in node.operands]
                if (
                    node in tangents
                    or node.primitive is None
                    or ((not node.operands or all(part is None for part in moved)) and not _is_closure(node))
                ):
                    continue
                if node.primitive.__class__ is Opaque:
                    roots = [output.node for output in expand(node, lift)]
                    todo.append((node, roots))
                    todo.extend(reversed(discover([root for root in roots if root is not None], seen)))
                    continue
                state.scope = node.scope
                values = [shown(o) if isinstance(o, Node) else o if o.__class__ is np.ndarray else o.value for o in node.operands]
                maps = node.primitive.rule(shown(node), *values, **(node.statics or {}))
                total = None
                for part, linear_map in zip(moved, maps, strict=True):
                    if part is not None:
                        pushed = linear_map.pushforward(part)
                        total = pushed if total is None else total + pushed
                tangents[node] = total
    finally:
        state.recording, state.scope = recording, scope
    return [tangents.get(output) for output in outputs]


def _is_closure(node: Node) -> bool:
    return node.primitive.__class__ is Opaque and node.primitive.joint_pullback is None


def _run_hooks(node: Node, cotangent: Any) -> Any:
    assert node.hooks is not None
    for hook in list(node.hooks.values()):
        try:
            replacement = hook(cotangent)
        except TinygradError:
            raise
        except Exception as error:
            info = Infos().of(node)
            raise HookError(f"backward: a hook on {info!r} ({info.op}) raised {type(error).__name__}: {error}") from error
        if replacement is not None:
            cotangent = _fitting(replacement, cotangent, keep_graph=hasattr(cotangent, "node"))
    return cotangent


def _fitting(replacement: Any, computed: Any, *, keep_graph: bool) -> Any:
    """What a hook returned, checked against what it replaces."""
    value = _array(replacement)
    if value.shape != np.shape(_array(computed)):
        raise HookError(f"backward: a hook returned shape {value.shape}; expected {np.shape(_array(computed))}, that of the cotangent")
    if keep_graph and hasattr(replacement, "node"):
        return replacement
    return np.array(value, dtype=_array(computed).dtype)


def _array(value: Any) -> Any:
    return np.asarray(getattr(value, "value", value))


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _describe_anomaly(step: BackwardStep, node: Node, arriving: Any, leaving: Any) -> str:
    what = "a NaN" if np.isnan(leaving).any() else "an infinity"
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(leaving))[0])
    factor = getattr(step.map, "factor", None)
    lines = [
        f"backward: {what} first appears at {step.op}, operand {step.position}: {step.label} ({step.kind})",
        f"  cotangent    shape {arriving.shape}, from {_range(arriving)}",
        f"  contribution shape {leaving.shape}, entry {place} is {leaving[place]}",
    ]
    if factor is not None:
        lines.append(f"  factor       shape {np.shape(_array(factor))}, from {_range(_array(factor))}")
    for position, operand in enumerate(node.operands):
        lines.append(f"  operand {position}    shape {_array(operand).shape}, from {_range(_array(operand))}")
    if step.time is not None or step.scope:
        lines.append(f"  recorded in  {step.scope or '(no scope)'}" + ("" if step.time is None else f", step {step.time}"))
    lines.append(f"  recorded at  {step.source or 'unknown: run the forward pass inside detect_anomaly() as well'}")
    if not np.isfinite(arriving).all():
        lines.append("  The cotangent that entered the backward pass was not finite already: look at the loss")
    elif not np.isfinite(_array(node.value)).all():
        lines.append("  The forward value of this node is not finite: the trouble began in the forward pass")
    return "\n".join(lines)


def _range(array: Any) -> str:
    if array.size == 0:
        return "nothing"
    with np.errstate(all="ignore"):
        return f"{np.min(array):.4g} to {np.max(array):.4g}"
