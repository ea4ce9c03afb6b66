"""The two walks over the tape: cotangents backward, tangents forward. No recursion, and the same order in every run.

Nodes are numbered as they are recorded, so going through them by number is a topological order in both directions. The backward
walk knows four things per edge, the node, its cotangent, the linear map and the resulting contribution; it shows them to observers
as a :class:`~tinygrad_rnn.steps.BackwardStep` and lets interventions replace the contribution.

An opaque node is closed while nobody looks, and opened otherwise: its definition is recorded on the very operands of the node,
and the new nodes, whose numbers are larger than all that are still to come, are simply walked next.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from .errors import AnomalyError, ArgumentError, GraphError, HookError, TinygradError
from .graph import Leaf, Node, number, silent, state
from .linear_maps import LinearMap, Place, Scatter, add_at
from .ops.routing import Parts, scatter
from .primitive import Opaque, Primitive
from .steps import BackwardStep, Infos, NodeInfo, lock

Lift = Callable[[Any], Any]
Observer = Callable[[BackwardStep], Any]
_ndarray = np.ndarray


class Ledger(Protocol):
    """Who keeps an account of the whole pass: what a trace is."""

    def enter(self, node: Node, cotangent: Any) -> None:
        """A cotangent comes in from outside the edges: at the start, or where an opaque node was opened."""

    def account(self, node: Node, cotangent: Any, maps: Sequence[LinearMap], shares: Sequence[tuple[int, Any]]) -> None:
        """A node had its turn: its total cotangent, its maps, and the contributions by position.

        None stands for a part that is placed in the operand's own array. A leaf has neither maps nor contributions.
        """


_by_order = attrgetter("order")


def discover(roots: Iterable[Node], seen: set[int]) -> list[Node]:
    """All nodes from which a root was computed and whose numbers are not in ``seen`` yet, in order; they are added to ``seen``."""
    stack = [root for root in dict.fromkeys(roots) if root.order not in seen]
    seen.update([root.order for root in stack])
    found = list(stack)
    while stack:
        for operand in stack.pop().operands:
            if isinstance(operand, Node) and operand.order not in seen:
                seen.add(operand.order)
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

    A node joins the pass when its first cotangent arrives, and has its turn when all nodes with larger numbers have had theirs.

    Args:
        seeds: pairs of a node and the cotangent that enters there.
        lift: makes a recordable value (a Tensor) of a node or an array; used for definitions, and for everything if ``create_graph``.
        wanted: nodes whose cotangents are asked for; only paths to them are walked. None asks for all leaves. Nodes that an opaque node
            records when it is opened are not known before: something that says of a node whether it is wanted finds them.
        observers, interventions: called with each BackwardStep; an intervention may return a contribution to use instead.
        ledger: is told of everything; ``infos`` are the walk's, where it keeps its own.
    """

    def __init__(
        self,
        seeds: Sequence[tuple[Node, Any]],
        *,
        lift: Lift,
        create_graph: bool = False,
        wanted: Iterable[Node] | Container[Node] | None = None,
        observers: Sequence[Observer] = (),
        interventions: Sequence[Observer] = (),
        ledger: Ledger | None = None,
        infos: Infos | None = None,
    ) -> None:
        self.lift = lift
        self.create_graph = create_graph
        self.wanted: Container[Node] | None = frozenset(wanted) if isinstance(wanted, Iterable) else wanted
        self.observers = _functions("observers", observers)
        self.interventions = _functions("interventions", interventions)
        self.ledger = ledger
        self.watched = bool(self.observers or self.interventions)
        self.anomaly = state.anomaly
        self.opens = self.watched or create_graph or ledger is not None or self.anomaly
        self.infos = infos or Infos()
        self.found: dict[Node, Any] = {}
        self.queue: list[tuple[int, Node]] = []
        self.cotangents: dict[Node, Any] = {}
        # By number: a set of nodes would keep those of every definition that the pass has opened and left behind.
        self.owned: set[int] = set()
        self.pieces: dict[Node, list[tuple[Any, Any]]] = {}
        self.seen: set[int] = set()
        self.useful: set[int] = set()
        self._enter(seeds)

    def _enter(self, seeds: Sequence[tuple[Node, Any]]) -> None:
        """Let cotangents in at some nodes; if only some gradients are wanted, find out first which paths lead to them."""
        if self.wanted is not None:
            fresh = discover((node for node, _ in seeds), self.seen)
            _refuse_stale(fresh)
            for node in fresh:
                if (
                    is_closure(node)
                    or node in self.wanted
                    or any(operand.order in self.useful for operand in node.operands if isinstance(operand, Node))
                ):
                    self.useful.add(node.order)
        for node, cotangent in seeds:
            if self.wanted is None or node.order in self.useful:
                self._accumulate(node, cotangent)
                if self.ledger is not None:
                    self.ledger.enter(node, cotangent)

    def _accumulate(self, operand: Node, contribution: Any) -> None:
        """Add a contribution to an operand's cotangent; in place where the array is this pass's own."""
        held = self.cotangents.get(operand)
        if held is None:
            self.cotangents[operand] = contribution
            if operand not in self.pieces:
                heappush(self.queue, (-operand.order, operand))
        elif operand.order in self.owned:
            held += contribution
            self.cotangents[operand] = held
        else:
            self.cotangents[operand] = held + contribution
            if not self.create_graph:
                self.owned.add(operand.order)

    def run(self) -> dict[Node, Any]:
        """Walk, and return the total cotangent of every wanted node (of every leaf, if none was named)."""
        switches = state.recording, state.scope, state.anomaly, state.sources
        open_switches = len(state.before)
        state.recording = self.create_graph
        try:
            silent().run(self._walk)
        finally:  # no call of Python functions here: an interrupt could strike there
            state.recording, state.scope, state.anomaly, state.sources = switches
            del state.before[open_switches:]
        _refuse_stale(self.found)
        return self.found

    def _walk(self) -> None:
        queue, cotangents, pieces, wanted, ledger = self.queue, self.cotangents, self.pieces, self.wanted, self.ledger
        while queue:
            _, node = heappop(queue)
            cotangent = cotangents.pop(node, None)
            if pieces and node in pieces:
                cotangent = self._placed(node, cotangent)
            if node.hooks is not None:
                cotangent = _run_hooks(node, cotangent)
            primitive = node.primitive
            if self.anomaly and (node.hooks is not None or primitive is None) and not np.isfinite(_array(cotangent)).all():
                raise AnomalyError(_describe_total(self.infos.of(node), _array(cotangent)))
            if (primitive is None) if wanted is None else (node in wanted):
                self.found[node] = cotangent
            if primitive is None:
                if ledger is not None:
                    ledger.account(node, cotangent, (), ())
                continue
            try:
                if primitive.__class__ is Opaque:
                    self._opaque(node, primitive, cotangent)
                else:
                    self._multiply(node, primitive, cotangent)
            except (TinygradError, MemoryError):
                raise
            except Exception as error:
                info = self.infos.of(node)
                raise HookError(
                    f"backward: differentiating {info!r} ({info.op}) raised {type(error).__name__}: {error}. Its rule, or the "
                    "function that is run again there, is at fault"
                ) from error

    def _multiply(self, node: Node, primitive: Primitive, cotangent: Any) -> None:
        """Multiply a node's cotangent by its local maps, and give every operand its contribution."""
        operands, useful, queue, cotangents, pieces = node.operands, self.useful, self.queue, self.cotangents, self.pieces
        selective, attentive, ledger = self.wanted is not None, self.watched or self.anomaly, self.ledger
        if self.create_graph:
            state.scope = node.scope
        maps = _local_maps(node, primitive, self.lift if self.create_graph else None)
        shown = attentive or ledger is not None
        if shown:
            info = None
            shares: list[tuple[int, Any]] = []
            if attentive:
                lock(cotangent)
                info = self.infos.opened(node)
        position = -1
        for operand in operands:
            position += 1
            if (operand.__class__ is not Node and operand.__class__ is not Leaf) or (selective and operand.order not in useful):
                continue
            linear_map = maps[position]
            contribution = None if linear_map.__class__ is Scatter else linear_map.pullback(cotangent)
            if shown and contribution.__class__ is not Parts:
                if info is not None:
                    contribution = self._attend(BackwardStep(info, position, linear_map, cotangent, contribution), node, contribution)
                shares.append((position, contribution))
            if contribution is None:
                self._scatter(operand, linear_map, cotangent)
            elif pieces or operand in cotangents:
                self._accumulate(operand, contribution)
            else:  # the commonest case of _accumulate
                cotangents[operand] = contribution
                heappush(queue, (-operand.order, operand))
        if ledger is not None:
            ledger.account(node, cotangent, maps, shares)

    def _scatter(self, operand: Node, linear_map: Any, cotangent: Any) -> None:
        """Add a part at its place in the operand's own array; a recorded pass collects the parts, to place them with one operation."""
        if self.create_graph:
            if operand not in self.pieces:
                self.pieces[operand] = []
                if operand not in self.cotangents:
                    heappush(self.queue, (-operand.order, operand))
            self.pieces[operand].append((linear_map.key, cotangent))
            return
        if operand.order not in self.owned or self.cotangents[operand].__class__ is not np.ndarray:  # a sum of 0-d arrays is none
            whole = np.zeros(operand.value.shape, operand.value.dtype)
            held = self.cotangents.get(operand)
            if held is None:
                heappush(self.queue, (-operand.order, operand))
            else:
                whole += held
            self.cotangents[operand] = whole
            self.owned.add(operand.order)
        add_at(self.cotangents[operand], linear_map.key, cotangent)

    def _placed(self, node: Node, cotangent: Any) -> Any:
        keys, parts = zip(*self.pieces.pop(node), strict=True)
        placed = scatter(*parts, shape=node.value.shape, keys=keys)
        return placed if cotangent is None else cotangent + placed

    def _attend(self, step: BackwardStep, node: Node, contribution: Any) -> Any:
        """Let interventions alter a step and observers read it, and look for anomalies; return the contribution."""
        lock(contribution)
        who: Any = None
        try:
            for who in self.interventions:
                replacement = who(step)
                if replacement is not None:
                    contribution = _fitting(replacement, step.contribution, f"an intervention at {step!r}", keep_graph=self.create_graph)
                    step.replace(contribution)
            for who in self.observers:
                who(step)
        except TinygradError as error:
            error.add_note(f"raised by {_name(who)} at the edge {step!r} of a backward pass")
            raise
        except Exception as error:
            raise HookError(f"backward: {_name(who)} raised {type(error).__name__} at the edge {step!r}: {error}") from error
        # A part is finite if its cotangent is; the whole array need not be made to see that.
        if self.anomaly and not np.isfinite(_array(step.cotangent if contribution is None else contribution)).all():
            raise AnomalyError(_describe_anomaly(step, node))
        return contribution

    def _opaque(self, node: Node, primitive: Any, cotangent: Any) -> None:
        """Use the joint pullback while nobody looks; otherwise record the definition and walk that."""
        if primitive.joint_pullback is not None and not self.opens:
            values = [operand if operand.__class__ is np.ndarray else operand.value for operand in node.operands]
            needed = tuple(
                [isinstance(operand, Node) and (self.wanted is None or operand.order in self.useful) for operand in node.operands]
            )
            shares = primitive.joint_pullback(cotangent, node.value, node.residual, needed, *values, **(node.statics or {}))
            for position, (operand, share) in enumerate(zip(node.operands, shares, strict=True)):
                if needed[position] and share is not None:
                    if np.shape(share) != operand.value.shape:
                        raise GraphError(
                            f"{primitive.name}: its joint pullback gave operand {position} a share of shape {np.shape(share)}; expected "
                            f"{operand.value.shape}, that of the operand"
                        )
                    self._accumulate(operand, np.asarray(share, operand.value.dtype))
            return
        began = number()
        outputs = expand(node, self.lift)
        if primitive.joint_pullback is None:
            _refuse_late(node, [output.node for output in outputs], began)
        arriving = cotangent if isinstance(cotangent, list) else [cotangent]
        pairs = [(output.node, part) for output, part in zip(outputs, arriving, strict=True)]
        if self.watched or self.ledger is not None:
            self.infos.of(node).parts = tuple([None if root is None else self.infos.of(root) for root, _ in pairs])
        self._enter([(root, part) for root, part in pairs if root is not None and part is not None])


def _refuse_late(closed: Node, roots: Iterable[Node | None], began: int) -> None:
    """What a function uses when it is run again must be older than its node: whatever is younger has had its turn in the pass."""
    stack = [root for root in roots if root is not None]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if closed.order < node.order < began:
            op = "the leaf" if node.primitive is None else f"the {node.primitive.name}"
            raise GraphError(
                f"{closed.primitive.name if closed.primitive else ''}: computing again used {op} {node.name or 'without a name'} of shape "
                f"{np.shape(node.value)}, which did not exist in the forward pass. Pass what may change as an argument, and give weights "
                "new values after backward"
            )
        if node.order > began and node.order not in seen:
            seen.add(node.order)
            stack.extend([operand for operand in node.operands if isinstance(operand, Node)])


def _local_maps(node: Node, primitive: Primitive, lift: Lift | None) -> tuple[LinearMap, ...]:
    """What the rule says at this node's operands: on arrays, or on Tensors made by ``lift``."""
    operands, statics = node.operands, node.statics
    values: Sequence[Any]
    if lift is None:
        out = node.value
        if len(operands) == 1:
            (x,) = operands
            values = (x if x.__class__ is _ndarray else x.value,)
        elif len(operands) == 2:
            x, y = operands
            values = (x if x.__class__ is _ndarray else x.value, y if y.__class__ is _ndarray else y.value)
        else:
            values = [operand if operand.__class__ is _ndarray else operand.value for operand in operands]
    else:
        out = lift(node)
        values = [lift(o) if isinstance(o, Node) else o if o.__class__ is _ndarray else o.value for o in operands]
    maps = primitive.rule(out, *values, **statics) if statics else primitive.rule(out, *values)
    if len(maps) != len(operands):
        raise GraphError(f"{primitive.name}: its rule returned {len(maps)} maps for {len(operands)} operands; expected one each")
    return maps


def expand(node: Node, lift: Lift) -> list[Any]:
    """Record the definition of an opaque node on its own operands; return the outputs as lifted values."""
    primitive: Any = node.primitive
    operands = [lift(operand) for operand in node.operands]
    before = state.recording, state.scope, state.reopened, state.sources
    state.recording, state.scope, state.reopened, state.sources = True, node.scope, node.scope, state.sources or state.anomaly
    try:
        outputs = primitive.definition(*operands, **(node.statics or {}))
    finally:
        state.recording, state.scope, state.reopened, state.sources = before
    made = list(outputs) if isinstance(outputs, tuple) else [outputs]
    held = node.value if isinstance(node.value, tuple) else (node.value,)
    if len(made) != len(held) or any(m.value.shape != h.shape for m, h in zip(made, held, strict=True)):
        shapes = ", ".join(str(m.value.shape) for m in made), ", ".join(str(h.shape) for h in held)
        raise GraphError(f"{primitive.name}: its definition gave {shapes[0]} where the forward pass gave {shapes[1]}; compare the two")
    if primitive.exact:
        if not all(np.array_equal(m.value, h, equal_nan=True) for m, h in zip(made, held, strict=True)):
            raise GraphError(
                f"{primitive.name}: computing again gave another value than the forward pass. The function must depend on nothing that "
                "changes; draw random numbers outside it and pass them in"
            )
    elif not all(_close(m.value, h) for m, h in zip(made, held, strict=True)):
        if not primitive.iterated:
            raise GraphError(
                f"{primitive.name}: computing again gave another value than the forward pass. "
                "The kernel and its definition must compute the same; compare them"
            )
        warnings.warn(
            f"{primitive.name}: recorded step by step, the values are not those of the forward pass. The network amplifies rounding (large "
            "weights, many steps: it is chaotic), so that no digit of its late states is certain. What is shown belongs to the recorded "
            "steps; with return_gates=True the forward pass records them too",
            RuntimeWarning,
            stacklevel=2,
        )
    return made


def _close(again: Any, held: Any) -> bool:
    """Whether a value was found again to half of its digits."""
    digits = float(np.sqrt(np.finfo(held.dtype).eps)) if held.dtype.kind == "f" else 0.0
    size = float(np.max(np.abs(held), where=np.isfinite(held), initial=0.0))
    return bool(np.allclose(again, held, rtol=digits, atol=digits * size, equal_nan=True))


def forward_walk(seeds: dict[Node, Any], outputs: Sequence[Node], *, lift: Lift, create_graph: bool) -> list[Any]:
    """Push tangents from the seed nodes to the outputs; None where an output does not depend on them."""
    tangents = dict(seeds)
    recording, scope = state.recording, state.scope
    state.recording = create_graph
    try:
        silent().run(_push, tangents, outputs, lift, create_graph)
    finally:
        state.recording, state.scope = recording, scope
    return [tangents.get(output) for output in outputs]


def _push(tangents: dict[Node, Any], outputs: Sequence[Node], lift: Lift, create_graph: bool) -> None:
    """Give every node on the way to the outputs its tangent."""
    seen: set[int] = set()
    todo: list[Any] = discover(outputs, seen)[::-1]
    _refuse_stale(todo)
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
            or ((not node.operands or all(part is None for part in moved)) and not is_closure(node))
        ):
            continue
        if node.primitive.__class__ is Opaque:
            roots = [output.node for output in expand(node, lift)]
            todo.append((node, roots))
            todo.extend(reversed(discover([root for root in roots if root is not None], seen)))
            continue
        state.scope = node.scope
        try:
            maps = _local_maps(node, node.primitive, lift if create_graph else None)
            tangents[node] = _pushed(node, [(m, part) for m, part in zip(maps, moved, strict=True) if part is not None])
        except (TinygradError, MemoryError):
            raise
        except Exception as error:
            info = Infos().of(node)
            name = type(error).__name__
            raise HookError(f"jvp: differentiating {info!r} ({info.op}) raised {name}: {error}. Its rule is at fault") from error


def _pushed(node: Node, moving: Sequence[tuple[LinearMap, Any]]) -> Any:
    """The sum of J u over a node's operands; parts that go to places of their own are placed by one operation."""
    keys = tuple(linear_map.key for linear_map, _ in moving if isinstance(linear_map, Place))
    if len(keys) == len(moving) > 1:
        return scatter(*(part for _, part in moving), shape=node.value.shape, keys=keys)
    total = None
    for linear_map, part in moving:
        pushed = linear_map.pushforward(part)
        total = pushed if total is None else total + pushed
    return total


def is_closure(node: Node) -> bool:
    """Whether a node may have operands that it does not show: a function that is run again can use anything from outside."""
    return isinstance(node.primitive, Opaque) and node.primitive.joint_pullback is None


def _functions(what: str, given: Any) -> tuple[Observer, ...]:
    """A sequence of functions, as a tuple."""
    functions = (given,) if callable(given) or not isinstance(given, Iterable) else tuple(given)
    if callable(given) or not all(map(callable, functions)):
        raise ArgumentError(f"backward: {what} must be a list of functions of a step, got {given!r:.80}. Did you mean {what}=[function]?")
    return functions


def _run_hooks(node: Node, cotangent: Any) -> Any:
    assert node.hooks is not None
    for hook in list(node.hooks.values()):
        try:
            replacement = hook(cotangent)
        except TinygradError as error:
            info = Infos().of(node)
            error.add_note(f"raised by a hook on {info!r} ({info.op}) in a backward pass")
            raise
        except Exception as error:
            info = Infos().of(node)
            raise HookError(f"backward: a hook on {info!r} ({info.op}) raised {type(error).__name__}: {error}") from error
        if replacement is not None:
            who = f"a hook on {Infos().of(node)!r}"
            cotangent = _fitting(replacement, cotangent, who, keep_graph=hasattr(cotangent, "node"))
    return cotangent


def _fitting(replacement: Any, computed: Any, who: str, *, keep_graph: bool) -> Any:
    """What a hook or an intervention returned, checked against what it replaces."""
    expected = _array(computed).shape
    try:
        value = _array(replacement)
    except ValueError as error:
        raise HookError(f"backward: {who} returned what is no array ({error}); expected one of shape {expected}") from None
    if value.shape != expected:
        raise HookError(f"backward: {who} returned shape {value.shape}; expected {expected}, that of what it replaces")
    if value.dtype.kind not in "fiub":
        raise HookError(f"backward: {who} returned dtype {value.dtype}; expected real numbers, as what it replaces")
    if keep_graph and hasattr(replacement, "node"):
        return replacement
    return np.array(value, dtype=_array(computed).dtype)


def _array(value: Any) -> Any:
    return np.asarray(getattr(value, "value", value))


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _describe_total(info: NodeInfo, cotangent: Any) -> str:
    """The message for a cotangent that is not finite although every contribution to it was."""
    return (
        f"backward: the cotangent of {info!r} ({info.op}) is {_range(cotangent)}, though every contribution was finite: a hook replaced "
        f"it, their sum overflowed, or it entered so. Recorded at {info.source or 'unknown'}"
    )


def _describe_anomaly(step: BackwardStep, node: Node) -> str:
    arriving, leaving = _array(step.cotangent), _array(step.contribution)
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
