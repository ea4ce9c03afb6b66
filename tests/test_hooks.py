"""Hooks, observers and interventions: what they see, what they may change, and that a failing one changes nothing."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, GraphError, HookError
from tinygrad_rnn.graph import state
from tinygrad_rnn.linear_maps import Scale
from tinygrad_rnn.primitive import Primitive
from tinygrad_rnn.tensor import apply


def leaf(data, name=None):
    return tg.tensor(data, requires_grad=True, name=name)


def network():
    """A small graph with shared nodes, constants, broadcasting, indices and matrices; leaves x, W, b."""
    rng = np.random.default_rng(3)
    x, w, b = leaf(rng.normal(size=(4, 3)), "x"), leaf(rng.normal(size=(3, 3)), "W"), leaf(rng.normal(size=3), "b")
    h = x[0]
    for t in range(4):
        with tg.scope(time=t):
            h = tg.tanh(h @ w + x[t] * 0.5 + b)
    return (h * h).sum() + h[np.array([0, 0, 2])].mean(), (x, w, b)


# -- hooks ------------------------------------------------------------------------------------------------------------------


def test_hook_sees_the_total_cotangent_once():
    """A hook is called once per pass, with the sum over all uses."""
    x = leaf([1.0, 2.0])
    h = x * 2.0
    seen = {"x": [], "h": []}
    x.register_hook(lambda g: seen["x"].append(g.value.tolist()))
    h.register_hook(lambda g: seen["h"].append(g.value.tolist()))
    (h * 3.0 + h * 4.0 + x).sum().backward()
    assert seen == {"h": [[7.0, 7.0]], "x": [[15.0, 15.0]]}


def test_hook_replaces():
    """What a hook returns takes the cotangent's place, for all that comes after; None leaves it."""
    x = leaf([1.0, 2.0])
    h = x * 2.0
    h.register_hook(lambda g: g * 10.0)
    h.register_hook(lambda g: None)
    x.register_hook(lambda g: np.clip(g.value, -15.0, 15.0))
    (h * 1.0).sum().backward()
    np.testing.assert_array_equal(x.grad.value, [15.0, 15.0])


def test_hooks_run_in_order_and_can_be_removed():
    """Hooks run in the order of registration, each on what the one before returned; a removed one no longer runs."""
    x = leaf(1.0)
    first = x.register_hook(lambda g: g + 1.0)
    x.register_hook(lambda g: g * 10.0)
    (x * 1.0).backward()
    assert x.grad.item() == 20.0
    first.remove()
    first.remove()
    x.grad = None
    (x * 1.0).backward()
    assert x.grad.item() == 10.0


def test_many_hooks_made_and_removed_do_not_collide():
    """Removing one hook never removes another."""
    x = leaf(1.0)
    calls = []
    for i in range(50):
        x.register_hook(lambda g, i=i: calls.append(i))
        x.register_hook(lambda g: calls.append("removed")).remove()
    (x * 1.0).backward()
    assert calls == list(range(50))


def test_hook_on_the_output_itself():
    """A hook on the Tensor that backward starts from sees the seed."""
    x = leaf([1.0, 2.0])
    y = x * 3.0
    y.register_hook(lambda g: g * 2.0)
    y.backward([1.0, 1.0])
    np.testing.assert_array_equal(x.grad.value, [6.0, 6.0])


def test_hooks_run_in_grad():
    """tg.grad runs hooks on its way and on its inputs, as PyTorch does."""
    x = leaf(2.0)
    h = x * x
    h.register_hook(lambda g: g * 3.0)
    dh, dx = tg.grad(h * 1.0, [h, x])
    assert (dh.item(), dx.item()) == (3.0, 12.0)


def test_hook_under_create_graph_stays_differentiable():
    """A hook that scales the cotangent is part of what is differentiated again."""
    x = leaf(2.0)
    h = x * x * x
    h.register_hook(lambda g: g * 5.0)
    (dx,) = tg.grad(h * 1.0, x, create_graph=True)
    assert tg.grad(dx, x)[0].item() == pytest.approx(5.0 * 6.0 * 2.0)


def test_hook_of_the_wrong_shape():
    """A replacement of another shape is refused."""
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: 1.0)
    with pytest.raises(HookError, match=r"returned shape \(\); expected \(2,\)"):
        (x * 2.0).sum().backward()


def test_hook_on_a_constant_or_no_function():
    """A hook needs a Tensor that takes part, and must be callable."""
    with pytest.raises(GraphError, match=r"takes no part in a backward pass"):
        tg.tensor(1.0).register_hook(print)
    with pytest.raises(ArgumentError, match=r"expected a function of the cotangent, got int"):
        leaf(1.0).register_hook(3)


# -- observers --------------------------------------------------------------------------------------------------------------


def test_observers_see_every_edge_once():
    """Each edge between recorded nodes is shown exactly once, consumers before what they consumed."""
    loss, _ = network()
    edges = set()
    stack, seen = [loss.node], {loss.node}
    while stack:
        node = stack.pop()
        for position, operand in enumerate(node.operands):
            if hasattr(operand, "operands"):
                edges.add((node.order, position))
                if operand not in seen:
                    seen.add(operand)
                    stack.append(operand)
    steps = []
    loss.backward(observers=[steps.append])
    shown = [(step.node.order, step.position) for step in steps]
    assert len(shown) == len(set(shown))
    assert set(shown) == edges
    assert [order for order, _ in shown] == sorted((order for order, _ in shown), reverse=True)


def test_contributions_add_up_to_cotangents():
    """What flows into a node is the sum of the contributions of its edges, and what flows out of it starts from that sum."""
    loss, leaves = network()
    steps = []
    loss.backward(observers=[steps.append])
    arrived = defaultdict(lambda: 0.0)
    left = {}
    for step in steps:
        arrived[step.operand.order] = arrived[step.operand.order] + step.contribution
        np.testing.assert_array_equal(left.setdefault(step.node.order, step.cotangent), step.cotangent)
    for order, cotangent in left.items():
        if order != loss.node.order:
            np.testing.assert_allclose(cotangent, arrived[order], rtol=1e-13, atol=1e-15)
    for x in leaves:
        np.testing.assert_allclose(x.grad.value, arrived[x.node.order], rtol=1e-13, atol=1e-15)


def test_contribution_is_the_pullback():
    """A step's contribution is its map's transposed Jacobian times its cotangent."""
    loss, _ = network()

    def check(step):
        np.testing.assert_array_equal(step.contribution, step.map.pullback(step.cotangent))
        assert not step.altered

    loss.backward(observers=[check])


def test_observed_pass_gives_the_same_gradient_bit_for_bit():
    """Looking changes nothing."""
    loss, leaves = network()
    loss.backward()
    plain = [x.grad.value for x in leaves]
    loss, leaves = network()
    loss.backward(observers=[lambda step: step.gain])
    for x, expected in zip(leaves, plain, strict=True):
        np.testing.assert_array_equal(x.grad.value, expected)


def test_observers_cannot_write():
    """An observer that writes into what it is shown is refused, or writes into a copy: only interventions alter a pass."""
    loss, leaves = network()
    loss.backward()
    plain = [x.grad.value for x in leaves]
    loss, leaves = network()
    refused = []

    def scribble(step):
        for array in (step.cotangent, step.contribution):
            try:
                array[...] = 0.0
            except (ValueError, TypeError):  # read-only; or a number
                refused.append(step)

    loss.backward(observers=[scribble])
    assert len(refused) > 20
    for x, expected in zip(leaves, plain, strict=True):
        np.testing.assert_array_equal(x.grad.value, expected)


def test_observers_cannot_write_between_two_edges():
    """The cotangent that a node multiplies for its second operand is the one that it multiplied for its first."""
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])

    def scribble(step):
        with pytest.raises(ValueError, match=r"read-only"):
            step.cotangent[...] = 0.0

    z = x * y
    (z + z * 2.0).sum().backward(observers=[scribble])
    np.testing.assert_array_equal(x.grad.value, 3.0 * y.value)
    np.testing.assert_array_equal(y.grad.value, 3.0 * x.value)


def test_kept_steps_are_not_changed_later():
    """What a step showed when it was made, it shows after the pass."""
    loss, _ = network()
    kept = []
    loss.backward(observers=[lambda step: kept.append((step, np.array(step.cotangent), np.array(step.contribution)))])
    for step, cotangent, contribution in kept:
        np.testing.assert_array_equal(step.cotangent, cotangent)
        np.testing.assert_array_equal(step.contribution, contribution)


def test_observers_run_in_order():
    """Several observers see each step in the order in which they were given."""
    x = leaf(1.0)
    calls = []
    (x * 2.0).backward(observers=[lambda step: calls.append("a"), lambda step: calls.append("b")])
    assert calls == ["a", "b"]


# -- interventions ----------------------------------------------------------------------------------------------------------


def test_intervention_replaces_a_contribution():
    """Cutting the way through tanh leaves exactly the other way."""
    x = leaf([0.3, -0.7])
    y = (tg.tanh(x) * 2.0 + x * 5.0).sum()
    steps = []
    y.backward(interventions=[lambda step: step.contribution * 0.0 if step.op == "tanh" else None], observers=[steps.append])
    np.testing.assert_array_equal(x.grad.value, [5.0, 5.0])
    assert [step.op for step in steps if step.altered] == ["tanh"]


def test_intervention_by_hand():
    """Straight-through: with tanh's slope replaced by 1, the gradient is that of the identity, through everything behind it too."""
    x, w = leaf([0.3, -0.7]), leaf([2.0, 3.0])
    tg.tanh(x * w).sum().backward(interventions=[lambda step: step.cotangent if step.op == "tanh" else None])
    np.testing.assert_array_equal(x.grad.value, w.value)
    np.testing.assert_array_equal(w.grad.value, x.value)


def test_interventions_chain():
    """A second intervention sees what the first one put there."""
    x = leaf(1.0)
    (x * 2.0).backward(interventions=[lambda step: step.contribution + 1.0, lambda step: step.contribution * 10.0])
    assert x.grad.item() == 30.0


def test_intervention_on_an_index():
    """The contribution of an indexed part can be replaced too, alone among several."""
    x = leaf([1.0, 2.0, 3.0])
    y = x[0] * 2.0 + x[1] * 3.0 + x[0] * 4.0
    replaced = []

    def once(step):
        if step.op == "index" and not replaced:
            replaced.append(step)
            return np.array([0.0, 0.0, 100.0])
        return None

    y.backward(interventions=[once])
    np.testing.assert_array_equal(x.grad.value, [2.0, 3.0, 100.0])


def test_intervention_result_is_copied():
    """An array that an intervention returned and changes later changes no gradient."""
    x = leaf([1.0, 2.0])
    given = np.ones(2)
    (x * 2.0).sum().backward(interventions=[lambda step: given if step.op == "multiply" else None])
    given[:] = 50.0
    np.testing.assert_array_equal(x.grad.value, [1.0, 1.0])


def test_intervention_of_the_wrong_shape():
    """A contribution of another shape is refused, with the edge named."""
    x = leaf([1.0, 2.0], "x")
    with pytest.raises(HookError, match=r"intervention at <multiply: .* returned shape \(3,\); expected \(2,\)"):
        (x * 2.0).sum().backward(interventions=[lambda step: np.ones(3) if step.op == "multiply" else None])


def test_intervention_under_create_graph():
    """An intervention that returns Tensors is differentiated with the rest."""
    x = leaf(2.0)
    y = tg.tensor(0.0) + x * x * x
    y.backward(create_graph=True, interventions=[lambda step: step.contribution * 2.0 if step.op == "add" else None])
    assert x.grad.item() == 24.0
    assert tg.grad(x.grad, x)[0].item() == 24.0


# -- failures ---------------------------------------------------------------------------------------------------------------


class Failure:
    """A way to fail during the backward pass of ``network()``."""

    def __init__(self, place, error):
        self.place, self.error = place, error

    def fail(self, *_, **__):
        raise self.error

    def run(self):
        """Build the graph, fail in its backward pass, and return the leaves."""
        loss, leaves = network()
        (leaves[0] * 2.0).sum().backward()  # one leaf has a gradient already, the others have none
        before = [None if x.grad is None else x.grad.value.copy() for x in leaves]
        options = {}
        if self.place == "hook":
            leaves[2].register_hook(self.fail)
        elif self.place == "observer":
            options = {"observers": [lambda step: self.fail() if step.operand.name == "b" else None]}
        elif self.place == "intervention":
            options = {"interventions": [lambda step: self.fail() if step.operand.name == "b" else None]}
        else:
            broken = Primitive(lambda x: x * 2.0, name="broken", elementwise=True)
            if self.place == "rule":
                broken.defrule(self.fail)
            elif self.place == "pullback":
                broken.defrule(lambda out, x: (type("Broken", (Scale,), {"pullback": self.fail})(2.0, "⊙ 2"),))
            loss = loss + apply(broken, (leaves[2] * 1.0,)).sum()
        try:
            loss.backward(**options)
        finally:
            for x, grad in zip(leaves, before, strict=True):
                assert (x.grad is None) if grad is None else np.array_equal(x.grad.value, grad)
            assert (state.recording, state.scope, state.anomaly, state.sources) == (True, None, False, False)
        return leaves


PLACES = ["hook", "observer", "intervention", "rule", "pullback"]


@pytest.mark.parametrize("place", PLACES)
def test_exceptions_become_hook_errors_and_change_no_gradient(place):
    """What a hook, an observer, an intervention or a rule raises comes out as a HookError that names the place and keeps the cause."""
    cause = ZeroDivisionError("by me")
    with pytest.raises(HookError, match=r"(?s)ZeroDivisionError.*by me") as caught:
        Failure(place, cause).run()
    assert caught.value.__cause__ is cause
    expected = {"hook": "b", "observer": "b₀|b₁|b₂|b₃|add|broadcast", "intervention": "add|broadcast"}.get(place, "broken")
    caught.match(expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_through_and_change_no_gradient(place, error):
    """Ctrl-C during a backward pass stays Ctrl-C; every leaf has the gradient that it had, and the engine goes on working."""
    with pytest.raises(error):
        Failure(place, error()).run()
    x = leaf(2.0)
    (x * x).backward()
    assert x.grad.item() == 4.0


@pytest.mark.parametrize("place", PLACES)
def test_own_errors_pass_through(place):
    """An error of the package's own that is raised inside is not wrapped again; a note says who was called, and at which edge."""
    mine = ArgumentError("mine")
    with pytest.raises(ArgumentError) as caught:
        Failure(place, mine).run()
    assert caught.value is mine and str(mine) == "mine"
    if place in ("hook", "observer", "intervention"):
        (note,) = mine.__notes__
        assert note.startswith(
            "raised by a hook on <b (3,)" if place == "hook" else "raised by Failure.run.<locals>.<lambda> at the edge <add"
        )


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("observed", [False, True])
def test_a_rule_with_the_wrong_number_of_maps(count, observed):
    """A rule must return one map per operand."""
    pair = Primitive(lambda x, y: x + y, name="pair", elementwise=True)
    pair.defrule(lambda out, x, y: (Scale(1.0, "⊙ 1"),) * count)
    x = leaf([1.0])
    with pytest.raises(GraphError, match=f"pair: its rule returned {count} maps for 2 operands"):
        apply(pair, (x, x * 1.0)).backward(observers=[print] if observed else ())
    assert x.grad is None


def test_a_primitive_without_a_rule():
    """A missing rule says how to add one."""
    bare = Primitive(lambda x: x, name="bare", elementwise=True)
    with pytest.raises(ArgumentError, match=r"bare: this primitive has no rule"):
        apply(bare, (leaf(1.0),)).backward()


def test_a_rule_with_the_wrong_shape():
    """A gradient that does not fit its leaf blames the rule, and nothing is stored."""
    wrong = Primitive(lambda x: x.sum(), name="wrong", elementwise=False)
    wrong.defrule(lambda out, x: (Scale(1.0, "⊙ 1"),))
    x = leaf([1.0, 2.0])
    with pytest.raises(GraphError, match=r"came out with shape \(\); the leaf has \(2,\)"):
        apply(wrong, (x,)).backward()
    assert x.grad is None
