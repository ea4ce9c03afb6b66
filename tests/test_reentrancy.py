"""What a pass calls may do anything: take hooks away, differentiate, fail, look at its surroundings. The pass goes on as if alone."""

from __future__ import annotations

import copy
import pickle
import re
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ArgumentError, GraphError, HookError
from tinygrad_rnn.graph import state
from tinygrad_rnn.linear_maps import Scale
from tinygrad_rnn.primitive import Primitive


def leaf(*numbers: float) -> Any:
    return tg.tensor(numbers, requires_grad=True)


# -- hooks that change hooks --------------------------------------------------------------------------------------------------------


def test_hooks_that_change_hooks() -> None:
    """A pass runs the hooks that were there when the cotangent came: one may remove itself or others, or add one for the next pass."""
    x, ran = leaf(1.0), []

    def first(g: Any) -> None:
        ran.append("first")
        for handle in handles:
            handle.remove()
        x.register_hook(lambda g: ran.append("new"))

    handles = [x.register_hook(first), x.register_hook(lambda g: ran.append("second"))]
    y = x * 2.0
    y.backward()
    assert ran == ["first", "second"]
    y.backward()
    assert ran == ["first", "second", "new"]
    assert x.grad.item() == 4.0


# -- passes within passes -----------------------------------------------------------------------------------------------------------


def another_pass(loss: Any) -> None:
    """The same graph once more, in every way; and another one, which fails."""
    tg.trace(loss, keep="norms")
    with tg.enable_grad():
        loss.backward(create_graph=True)
        x = leaf(1.0)
        y = tg.checkpoint(lambda a: tg.sin(a) * a, x).sum()
    with pytest.raises(HookError), tg.detect_anomaly():
        y.backward(observers=[lambda step: 1 // 0])
    assert x.grad is None


@pytest.mark.parametrize("place", ["hook on a leaf", "hook", "observer", "intervention", "rule", "checkpoint"])
def test_a_pass_within_a_pass(place: str) -> None:
    """Each of the two adds its gradient, and neither sees the other's cotangents or switches."""
    x, w = leaf(0.5, -0.25), leaf(2.0, 3.0)
    runs: list[int] = []

    def inside(*_: Any) -> None:
        if not runs:
            runs.append(1)
            another_pass(loss)

    def product(a: Any, b: Any) -> Any:
        return a * b

    primitive = Primitive(product, name="product", elementwise=True)

    @primitive.defrule
    def _(out: Any, a: Any, b: Any) -> Any:
        if place == "rule":
            inside()
        return Scale(b), Scale(a)

    def again(a: Any) -> Any:
        if place == "checkpoint" and ready:
            inside()
        return tg.tanh(a) * w

    ready: list[bool] = []
    h = primitive(tg.checkpoint(again, x), w)
    loss = (h * h).sum()
    ready.append(True)
    if place == "hook":
        h.register_hook(inside)
    elif place == "hook on a leaf":
        w.register_hook(inside)
    options = {"observers": [inside]} if place == "observer" else {"interventions": [inside]} if place == "intervention" else {}
    loss.backward(**options)
    t = np.tanh(x.value)
    np.testing.assert_allclose(x.grad.value, 2 * 2 * t * (1 - t * t) * w.value**4, rtol=1e-12)
    np.testing.assert_allclose(w.grad.value, 2 * 4 * t * t * w.value**3, rtol=1e-12)
    assert (state.recording, state.scope, state.anomaly, state.before) == (True, None, False, [])


def test_a_function_that_fails_in_the_forward_pass() -> None:
    """Of a checkpoint, a transform, an operation of one's own: the error is the caller's, and recording goes on."""
    x = leaf(1.0)
    fails = Primitive(lambda a: 1 // 0, name="fails", elementwise=True)
    for attempt in (
        lambda: tg.checkpoint(lambda a: 1 // 0, x),
        lambda: tg.jvp(lambda a: 1 // 0, x, x.value),
        lambda: tg.hessian(lambda a: 1 // 0, x),
        lambda: fails(x),
    ):
        with pytest.raises(ZeroDivisionError):
            attempt()
        assert (state.recording, state.transforming) == (True, False)
    (x * x).sum().backward()
    assert x.grad.item() == 2.0


def test_a_rule_that_fails_in_forward_mode() -> None:
    """An error while tangents are pushed leaves recording and the scope as they were."""
    fails = Primitive(lambda a: 2.0 * a, name="fails", elementwise=True)
    for point in (np.ones(2), leaf(1.0, 2.0)):
        with tg.scope("outside") as outside:
            with pytest.raises(ArgumentError, match="no rule"), tg.scope("inside"):
                tg.jvp(lambda a: fails(tg.sin(a)), point, np.ones(2))
            assert (state.recording, state.scope) == (True, outside)


# -- what a function that runs again uses ---------------------------------------------------------------------------------------------


def test_a_checkpoint_that_uses_what_came_later() -> None:
    """A weight that was given its own value anew, or a result computed anew, had its turn in the pass before: refused, not half counted."""
    for renew in ("leaf", "result"):
        x, w = leaf(1.0), leaf(2.0)
        held = [w if renew == "leaf" else w * 1.0]
        early = tg.checkpoint(lambda a, held=held: a * held[0], x)
        if renew == "leaf":
            w.value = w.value
        else:
            held[0] = w * 1.0
        loss = (early + held[0] * 3.0).sum()
        with pytest.raises(GraphError, match=r"checkpoint\(<lambda>\): computing again used the (leaf|multiply) .* did not exist in the"):
            loss.backward()
        assert x.grad is None and w.grad is None


def test_nested_checkpoints_use_what_the_outer_one_made() -> None:
    """What the outer function computes is there before the inner one runs, each time."""
    x, w = leaf(0.5), leaf(2.0)

    def outer(a: Any) -> Any:
        b = a * w
        return tg.checkpoint(lambda c: tg.checkpoint(lambda d: d * b, c) * b, a)

    tg.checkpoint(outer, x).sum().backward()  # a · (a w)²
    assert (x.grad.item(), w.grad.item()) == (3 * 0.25 * 4.0, 2 * 0.125 * 2.0)


# -- surroundings -----------------------------------------------------------------------------------------------------------------


factor: ContextVar[float] = ContextVar("factor", default=1.0)


def test_context_variables_are_seen() -> None:
    """A checkpoint's function, both times, and operations of one's own, rules and hooks, see the caller's context variables."""
    times = Primitive(lambda a: a * factor.get(), name="times", elementwise=True)
    plus = Primitive(lambda a, b: a + b * factor.get(), name="plus", elementwise=True)
    power = Primitive(lambda a, *, n: a**n * factor.get(), name="power", elementwise=True)
    times.defrule(lambda out, a: (Scale(factor.get()),))
    plus.defrule(lambda out, a, b: (Scale(1.0), Scale(factor.get())))
    power.defrule(lambda out, a, n: (Scale(n * a ** (n - 1) * factor.get()),))
    token = factor.set(3.0)
    try:
        x, seen = leaf(2.0), []
        x.register_hook(lambda g: seen.append(factor.get()))
        loss = tg.checkpoint(lambda a: a * factor.get(), x) + times(x) + plus(x, x) + power(x, n=2)
        assert loss.item() == 6.0 + 6.0 + 8.0 + 12.0
        loss.backward()
        assert (x.grad.item(), seen) == (3.0 + 3.0 + 4.0 + 12.0, [3.0])
    finally:
        factor.reset(token)


@pytest.mark.parametrize("switch", [tg.no_grad, tg.enable_grad, tg.detect_anomaly])
def test_switches_do_not_decorate_what_stops_on_the_way(switch: Any) -> None:
    """A generator or coroutine function would run outside of the switch: refused, with what to write instead."""

    def generator() -> Any:
        yield 1

    async def coroutine() -> None:
        pass

    async def both() -> Any:
        yield 1

    for function in (generator, coroutine, both):
        with pytest.raises(
            ArgumentError, match=rf"{switch.__name__}: .*{function.__name__} stops on the way, .* `with tg.{switch.__name__}"
        ):
            switch(function)


def test_what_an_interrupt_has_left_open() -> None:
    """A switch or scope that was never left goes when one around it is left; the same switch may be open twice."""
    with tg.detect_anomaly():
        tg.no_grad().__enter__()
    assert (state.recording, state.anomaly, state.sources, state.before) == (True, False, False, [])
    with pytest.raises(KeyboardInterrupt), tg.scope("outer"):
        tg.scope("inner").__enter__()
        raise KeyboardInterrupt
    assert state.scope is None
    switch = tg.no_grad()
    with switch:
        with switch:
            pass
        assert not state.recording
    assert state.recording


def test_copies_of_a_kind_of_ones_own() -> None:
    """A subclass of Parameter with attributes keeps them in copies and pickles, beside value, name and gradient."""
    one = Labelled([1.0, 2.0], name="w")
    one.label, one.grad = "mine", [3.0, 4.0]
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert type(other) is Labelled and other.node is not one.node
        assert (other.label, other.name, other.grad.value.tolist(), other.value.tolist()) == ("mine", "w", [3.0, 4.0], [1.0, 2.0])


def test_copies_of_a_module_that_keeps_the_handle_of_a_hook() -> None:
    """The copy has no hook, and its handle nothing to take away; the module's own hook stays."""
    one, ran = nn.Linear(1, 1, rng=0), []
    one.handle = one.weight.register_hook(ran.append)
    for other in (copy.copy(one.handle), copy.deepcopy(one).handle, pickle.loads(pickle.dumps(one)).handle):
        other.remove()
    for module, count in ((copy.deepcopy(one), 0), (pickle.loads(pickle.dumps(one)), 0), (one, 1)):
        module(np.ones((1, 1))).sum().backward()
        assert len(ran) == count


class Labelled(nn.Parameter):
    label: str


def test_gradients_have_the_precision_of_the_leaf() -> None:
    """A rule that computes in double precision gives a float32 leaf a float32 gradient."""
    twice = Primitive(lambda a: a + a, name="twice", elementwise=True)
    twice.defrule(lambda out, a: (Scale(np.full(a.shape, 2.0)),))
    x = tg.tensor(np.ones(2, np.float32), requires_grad=True)
    assert tg.grad(twice(x).sum(), x)[0].dtype == np.float32
    for _ in range(2):
        twice(x).sum().backward()
    assert (x.grad.dtype, x.grad.value.tolist()) == (np.float32, [4.0, 4.0])


# -- what a pass is given back -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (np.ones(2) * 1j, "returned dtype complex128; expected real numbers"),
        (np.array(["a", "b"]), "returned dtype <U1; expected real numbers"),
        (np.array([None, None]), "returned dtype object; expected real numbers"),
        ([[1.0], [1.0, 2.0]], "returned what is no array (.*); expected one of shape (2,)"),
    ],
)
def test_hooks_that_return_no_real_numbers(returned: Any, reason: str) -> None:
    """Neither the imaginary part nor anything else is dropped in silence: the hook, or the intervention at its edge, is named."""
    x = leaf(1.0, 2.0)
    handle = x.register_hook(lambda g: returned)
    pattern = re.escape(reason).replace(r"\.\*", ".*")
    with pytest.raises(HookError, match=f"backward: a hook on <leaf .*> {pattern}"):
        (x * 2.0).sum().backward()
    handle.remove()
    with pytest.raises(HookError, match=f"backward: an intervention at <multiply: .*> {pattern}"):
        (x * 2.0).sum().backward(interventions=[lambda step: returned if step.kind == "scale" else None])
    assert x.grad is None


@pytest.mark.parametrize("role", ["observers", "interventions"])
@pytest.mark.parametrize("given", [print, 3, [print, "x"]])
def test_observers_are_a_list_of_functions(role: str, given: Any) -> None:
    """A function alone, a number and a list with something else in it: the message says how to write it, before anything has run."""
    x = leaf(1.0)
    with pytest.raises(ArgumentError, match=rf"backward: {role} must be a list of functions of a step, .* mean {role}=\[function\]"):
        (x * 2.0).backward(**{role: given})


@pytest.mark.parametrize(("factor", "got"), [(np.ones((3, 2)), r"shape \(3, 2\)"), (np.ones(2) * 1j, "dtype complex128")])
def test_a_rule_that_gives_another_shape_or_complex_numbers(factor: Any, got: str) -> None:
    """In ``backward`` and in ``grad``, of a leaf and of a result."""
    wrong = Primitive(lambda a: 2.0 * a, name="wrong", elementwise=True)
    wrong.defrule(lambda out, a: (Scale(factor),))
    x = leaf(1.0, 2.0)
    h = x * 3.0
    for out, differentiate in (
        (wrong(x), lambda out: out.backward(np.ones(2))),
        (wrong(x), lambda out: tg.grad(out, x, np.ones(2))),
        (wrong(h), lambda out: tg.grad(out, h, np.ones(2))),
    ):
        with pytest.raises(GraphError, match=rf"the gradient of a (leaf|value) came out with {got}; the (leaf|value) has"):
            differentiate(out)
    assert x.grad is None


def test_operations_of_ones_own_that_give_no_numbers() -> None:
    """A forward function without a value, or with text or complex numbers, is named where it is called; a rule, where it is asked."""
    for value, dtype in ((None, "object"), ("x", "<U1"), (1j, "complex128")):
        nothing = Primitive(lambda a, value=value: value, name="nothing", elementwise=True)
        with pytest.raises(tg.errors.DtypeError, match=f"nothing: its forward function returned dtype {dtype}; expected real numbers"):
            nothing(leaf(1.0))
    forgetful = Primitive(lambda a: 2.0 * a, name="forgetful", elementwise=True)
    forgetful.defrule(lambda out, a: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(HookError, match=r"jvp: differentiating <forgetful .*> \(forgetful\) raised TypeError: .* Its rule is at fault"):
        tg.jvp(forgetful, np.ones(1), np.ones(1))
