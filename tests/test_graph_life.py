"""The life of a graph in any order: whatever is built, differentiated, rebound, dropped or broken, the engine is whole after each step.

A model in plain NumPy lives beside the engine: the same graph with a 3 × 3 matrix on every edge, through which cotangents are pushed by
hand. After every rule all gradients are those of the model, no switch has moved, and a fresh program has the gradient that it should
have; in the end, when all is dropped, not one node is left.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import AnomalyError, GraphError, HookError
from tinygrad_rnn.graph import Leaf, Node, state
from tinygrad_rnn.primitive import Opaque, Primitive
from tinygrad_rnn.tensor import apply

W = np.array([[0.5, -0.3, 0.1], [0.2, 0.4, -0.6], [-0.1, 0.3, 0.2]])
ERRSTATE = np.geterr()

broken = Primitive(lambda x: 2.0 * x, name="broken", elementwise=True)


@broken.defrule
def _(out: Any, x: Any) -> Any:
    raise ZeroDivisionError("in a rule")


kernel = Opaque(
    lambda x, y: ((np.sin(x) * y, None)),
    name="sine_product",
    definition=lambda x, y: tg.sin(x) * y,
    joint_pullback=lambda g, out, residual, needed, x, y: (g * np.cos(x) * y, g * np.sin(x)),
)
layer = nn.RNN(3, 3, bias=False, rng=0)
layer.weight_ih_l0.value, layer.weight_hh_l0.value = W.T, np.zeros((3, 3))
for parameter in layer.parameters():
    parameter.requires_grad = False


def saturation(y: Any) -> Any:
    return np.diag(1.0 - y * y)


# Each operation: the engine's, NumPy's, and the Jacobians (∂out/∂operand, rows are outputs), by hand.
OPERATIONS: dict[str, tuple[int, Any, Any, Any]] = {
    "add": (2, lambda x, y: x + y, np.add, lambda out, x, y: (np.eye(3), np.eye(3))),
    "multiply": (2, lambda x, y: x * y, np.multiply, lambda out, x, y: (np.diag(y), np.diag(x))),
    "tanh": (1, np.tanh, np.tanh, lambda out, x: (saturation(out),)),
    "matmul": (1, lambda x: x @ W, lambda x: x @ W, lambda out, x: (W.T,)),
    "reverse": (1, lambda x: x[::-1], lambda x: x[::-1], lambda out, x: (np.eye(3)[::-1],)),
    "pick": (1, lambda x: x[np.array([0, 0, 2])], lambda x: x[[0, 0, 2]], lambda out, x: (np.eye(3)[[0, 0, 2]],)),
    "broadcast": (1, lambda x: x.sum() + np.zeros(3), lambda x: x.sum() + np.zeros(3), lambda out, x: (np.ones((3, 3)),)),
    "checkpoint": (
        2,
        lambda x, y: tg.checkpoint(lambda a, b: tg.tanh(a @ W) + b, x, y),
        lambda x, y: np.tanh(x @ W) + y,
        lambda out, x, y: (saturation(np.tanh(x @ W)) @ W.T, np.eye(3)),
    ),
    "kernel": (
        2,
        lambda x, y: apply(kernel, (x, y)),
        lambda x, y: np.sin(x) * y,
        lambda out, x, y: (np.diag(np.cos(x) * y), np.diag(np.sin(x))),
    ),
    "layer": (1, lambda x: layer(x.reshape(1, 1, 3))[0][0, 0], lambda x: np.tanh(x @ W), lambda out, x: (saturation(out) @ W.T,)),
    "broken": (1, lambda x: apply(broken, (x,)), lambda x: 2.0 * x, lambda out, x: (2.0 * np.eye(3),)),
}


class Twin:
    """A Tensor and its model: the value, the matrices to what it was computed from, and the factors of the hooks on it."""

    def __init__(self, tensor: Any, value: Any, edges: Any = (), operation: str = "leaf") -> None:
        self.tensor, self.value, self.edges, self.operation = tensor, value, tuple(edges), operation
        self.hooks: dict[Any, str] = {}
        self.stale = False
        self.held = False  # by a checkpoint, which calls its function with this very Tensor

    @property
    def recorded(self) -> bool:
        return self.operation == "leaf" or bool(self.edges)


def ancestors(twin: Twin) -> list[Twin]:
    """Everything from which a value was computed, each before what it was computed from."""
    found: dict[int, Twin] = {}
    stack = [twin]
    order: list[Twin] = []
    while stack:
        at = stack.pop()
        if id(at) not in found:
            found[id(at)] = at
            order.append(at)
            stack.extend(parent for parent, _ in at.edges)
    return sorted(order, key=lambda t: -t.number)


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        gc.disable()
        self.nodes_before = count_nodes()
        self.leaves: list[Twin] = []
        self.twins: list[Twin] = []  # what can be used; leaves are among them
        self.grads: dict[int, Any] = {}  # by position of the leaf
        self.handles: list[Any] = []
        self.number = 0

    # -- building -----------------------------------------------------------------------------------------------------------

    def keep(self, twin: Twin) -> None:
        self.number += 1
        twin.number = self.number
        self.twins.append(twin)

    @initialize()
    def begin(self) -> None:
        self.make_leaf([0.5, -0.25, 1.0])
        self.make_leaf([-0.5, 0.75, 0.1])

    @precondition(lambda self: len(self.leaves) < 4)
    @rule(numbers=st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3))
    def make_leaf(self, numbers: list[float]) -> None:
        twin = Twin(tg.tensor(numbers, requires_grad=True, name=f"x{len(self.leaves)}"), np.array(numbers))
        self.leaves.append(twin)
        self.keep(twin)

    def pick(self, choice: int) -> Twin:
        return self.twins[-1 - choice % min(len(self.twins), 6)]

    @rule(
        name=st.sampled_from(sorted(OPERATIONS)),
        first=st.integers(0, 5),
        second=st.integers(0, 5),
        where=st.sampled_from(["", "scope", "no_grad"]),
    )
    def build(self, name: str, first: int, second: int, where: str) -> None:
        count, ours, plain, jacobians = OPERATIONS[name]
        operands = [self.pick(choice) for choice in (first, second)[:count]]
        tensors = [operand.tensor for operand in operands]
        if where == "no_grad":
            with tg.no_grad():
                made = ours(*tensors)
        elif where == "scope":
            with tg.scope("here", time=len(self.twins)):
                made = ours(*tensors)
        else:
            made = ours(*tensors)
        for operand in operands:
            operand.held |= name == "checkpoint"
        values = [operand.value for operand in operands]
        out = plain(*values)
        np.testing.assert_allclose(made.value, out, rtol=1e-12, atol=1e-15)
        edges = [(operand, matrix) for operand, matrix in zip(operands, jacobians(out, *values), strict=True) if operand.recorded]
        assert made.requires_grad == (where != "no_grad" and bool(edges))
        self.keep(Twin(made, out, () if where == "no_grad" else edges, name))

    @precondition(lambda self: len(self.twins) > 3)
    @rule(choice=st.integers(0, 20))
    def drop(self, choice: int) -> None:
        """A Tensor that nobody holds is gone at once, though what was computed from it lives on."""
        droppable = [twin for twin in self.twins if twin not in self.leaves and not twin.held]
        if droppable:
            twin = droppable[choice % len(droppable)]
            self.twins.remove(twin)
            gone = weakref.ref(twin.tensor)
            twin.tensor = None
            assert gone() is None

    @rule(choice=st.integers(0, 3), numbers=st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3))
    def rebind(self, choice: int, numbers: list[float]) -> None:
        """An optimiser's step: the leaf goes on with its gradient and its hooks; what was computed from the old value is refused."""
        place = choice % len(self.leaves)
        old = self.leaves[place]
        old.tensor.value = numbers
        fresh = Twin(old.tensor, np.array(numbers))
        fresh.hooks = old.hooks
        old.stale, old.tensor = True, None
        self.leaves[place] = fresh
        self.twins.remove(old)
        self.keep(fresh)

    @rule(choice=st.integers(0, 3))
    def clear(self, choice: int) -> None:
        place = choice % len(self.leaves)
        self.leaves[place].tensor.grad = None
        self.grads.pop(place, None)

    @rule(choice=st.integers(0, 5), action=st.sampled_from(["look", "double", "halve", "raise", "interrupt", "misshape"]))
    def hook(self, choice: int, action: str) -> None:
        twin = self.pick(choice)
        if not twin.recorded:
            with pytest.raises(GraphError, match="takes no part"):
                twin.tensor.register_hook(print)
            return
        effects = {
            "look": lambda g: None,
            "double": lambda g: g * 2.0,
            "halve": lambda g: g.value * 0.5,
            "raise": lambda g: 1 // 0,
            "interrupt": interrupt,
            "misshape": lambda g: np.ones(7),
        }
        handle = twin.tensor.register_hook(effects[action])
        twin.hooks[handle] = action
        self.handles.append((handle, twin.hooks))

    @precondition(lambda self: self.handles)
    @rule(choice=st.integers(0, 20))
    def unhook(self, choice: int) -> None:
        handle, hooks = self.handles.pop(choice % len(self.handles))
        handle.remove()
        handle.remove()
        del hooks[handle]

    # -- differentiating ----------------------------------------------------------------------------------------------------

    def expected(self, target: Twin, cotangent: Any, wanted: Twin | None = None) -> tuple[dict[int, Any], list[str]]:
        """The model's backward pass: cotangents by twin, and what goes wrong on the way, the first of it and perhaps a stale leaf."""
        order = ancestors(target)
        stale = ["stale"] * any(twin.stale for twin in order)
        useful = {id(twin) for twin in order}
        if wanted is not None:
            useful = set()
            for twin in reversed(order):
                if twin is wanted or twin.operation == "checkpoint" or any(id(parent) in useful for parent, _ in twin.edges):
                    useful.add(id(twin))
        arrived: dict[int, Any] = {id(target): cotangent} if id(target) in useful else {}
        for twin in order:
            total = arrived.get(id(twin))
            if total is None:
                continue
            for action in twin.hooks.values():
                if action in ("raise", "interrupt", "misshape"):
                    return {}, [action, *stale]
                total = total * {"look": 1.0, "double": 2.0, "halve": 0.5}[action]
            arrived[id(twin)] = total
            if twin.operation == "broken" and twin.edges:
                return {}, ["broken", *stale]
            for parent, matrix in twin.edges:
                if id(parent) in useful:
                    arrived[id(parent)] = arrived.get(id(parent), 0.0) + matrix.T @ total
        return ({} if stale else arrived), stale

    @rule(
        choice=st.integers(0, 5),
        cotangent=st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=3, max_size=3),
        way=st.sampled_from(["plain", "create_graph", "observed", "intervened", "anomaly", "no_grad", "failing", "interrupted", "trace"]),
        at=st.integers(0, 8),
    )
    def backward(self, choice: int, cotangent: list[float], way: str, at: int) -> None:
        """Into all leaves; with whatever reads along, and whatever goes wrong."""
        target = self.pick(choice)
        if not target.recorded:
            with pytest.raises(GraphError, match="no graph"):
                target.tensor.backward(cotangent)
            return
        arrived, troubles = self.expected(target, np.array(cotangent))
        seen: list[Any] = []

        def fail(step: Any) -> None:
            seen.append(step.label)
            if len(seen) > at:
                raise KeyboardInterrupt if way == "interrupted" else ArithmeticError("in an observer")

        options: dict[str, Any] = {
            "create_graph": {"create_graph": True},
            "observed": {"observers": [lambda step: seen.append((step.gain, step.label))]},
            "intervened": {"interventions": [lambda step: None if step.contribution is None else step.contribution * 1.0]},
            "failing": {"observers": [fail]},
            "interrupted": {"interventions": [fail]},
        }.get(way, {})
        outcome = None  # the error's class and words; the error itself would hold this frame and all that is in it
        try:
            if way == "anomaly":
                with tg.detect_anomaly():
                    target.tensor.backward(cotangent)
            elif way == "no_grad":
                with tg.no_grad():
                    target.tensor.backward(cotangent)
            elif way == "trace":
                before = [leaf.tensor.grad for leaf in self.leaves]
                found = tg.trace((target.tensor * np.array(cotangent)).sum(), keep="norms")
                assert len(found.steps) >= 2
                for leaf, held in zip(self.leaves, before, strict=True):
                    leaf.tensor.grad = held
                arrived = {}
            else:
                target.tensor.backward(cotangent, **options)
        except (GraphError, KeyboardInterrupt) as error:
            outcome = type(error), str(error) + "".join(getattr(error, "__notes__", ()))
        if outcome is None:
            assert not troubles
            for place, leaf in enumerate(self.leaves):
                if id(leaf) in arrived:
                    self.grads[place] = self.grads.get(place, 0.0) + arrived[id(leaf)]
                    if way == "create_graph":
                        leaf.tensor.grad = leaf.tensor.grad.detach()
            return
        if way in ("failing", "interrupted") and len(seen) > at:
            assert outcome[0] is (KeyboardInterrupt if way == "interrupted" else HookError)
            return
        possible = {
            "stale": (GraphError, "was given a new value"),
            "raise": (HookError, "a hook on <"),
            "misshape": (HookError, "returned shape (7,)"),
            "broken": (HookError, "differentiating <broken (3,) #"),
            "interrupt": (KeyboardInterrupt, "by hand"),
        }
        assert any(outcome[0] is kind and words in outcome[1] for kind, words in map(possible.get, troubles)), (outcome, troubles)

    @rule(choice=st.integers(0, 5), leaf=st.integers(0, 3), again=st.booleans())
    def gradient(self, choice: int, leaf: int, again: bool) -> None:
        """Of one leaf only, touching none: what does not lead there is not walked, so what is broken there does no harm."""
        target, wanted = self.pick(choice), self.leaves[leaf % len(self.leaves)]
        if not target.recorded:
            with pytest.raises(GraphError, match="no graph"):
                tg.grad(target.tensor, wanted.tensor, np.ones(3))
            return
        arrived, troubles = self.expected(target, np.ones(3), wanted)
        try:
            (found,) = tg.grad(target.tensor, wanted.tensor, np.ones(3), create_graph=again, allow_unused=True)
        except (GraphError, KeyboardInterrupt):
            assert troubles
        else:
            assert not troubles
            np.testing.assert_allclose(found.value, arrived.get(id(wanted), np.zeros(3)), rtol=1e-9, atol=1e-12)

    @rule(choice=st.integers(0, 5))
    def anomaly(self, choice: int) -> None:
        """A pass that is stopped because of an infinity leaves no gradient behind."""
        target = self.pick(choice)
        _, troubles = self.expected(target, np.ones(3)) if target.recorded else ({}, ["constant"])
        if not troubles:
            with tg.detect_anomaly(), pytest.raises(AnomalyError):
                target.tensor.backward(np.full(3, np.inf))

    # -- what holds at any time -----------------------------------------------------------------------------------------------

    @invariant()
    def gradients_are_the_models(self) -> None:
        for place, leaf in enumerate(self.leaves):
            held = leaf.tensor.grad
            if place in self.grads:
                np.testing.assert_allclose(held.value, self.grads[place], rtol=1e-9, atol=1e-12)
            else:
                assert held is None

    @invariant()
    def the_engine_is_whole(self) -> None:
        assert (state.recording, state.anomaly, state.sources, state.transforming) == (True, False, False, False)
        assert (state.scope, state.reopened, state.before) == (None, None, [])
        assert np.geterr() == ERRSTATE
        x = tg.tensor([0.3, -0.2, 0.5], requires_grad=True)
        h = tg.tanh(x @ W)
        (h * h).sum().backward()
        np.testing.assert_allclose(x.grad.value, W @ (2.0 * h.value * (1.0 - h.value**2)), rtol=1e-12)

    def teardown(self) -> None:
        """When all is dropped nothing is left, and the collector was not needed for it."""
        self.leaves.clear()
        self.twins.clear()
        self.handles.clear()
        self.grads.clear()
        left = count_nodes() - self.nodes_before
        gc.enable()
        assert left == 0, f"{left} nodes outlived their graph"


def interrupt(cotangent: Any) -> None:
    raise KeyboardInterrupt("by hand")


def count_nodes() -> int:
    return sum(1 for thing in gc.get_objects() if type(thing) in (Node, Leaf))


def test_the_life_of_a_graph() -> None:
    """Rules in any order, each followed by all invariants."""
    profile = settings.default or settings()
    run_state_machine_as_test(Life, settings=settings(profile, stateful_step_count=40))
