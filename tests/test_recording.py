"""The switches of recording: no_grad, enable_grad, detach and scope; they nest, and are restored whatever happens."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.graph import state
from tinygrad_rnn.linear_maps import Scale
from tinygrad_rnn.primitive import Primitive
from tinygrad_rnn.tensor import apply


def leaf(data, name=None):
    return tg.tensor(data, requires_grad=True, name=name)


def test_no_grad_records_nothing():
    """Inside no_grad results are constants, and the operands are not held."""
    x = leaf(2.0)
    with tg.no_grad():
        y = x * x
    assert y.node is None and y.item() == 4.0
    assert (x * x).requires_grad


def test_switches_nest():
    """The innermost switch decides, and each restores what was before it."""
    x = leaf(2.0)
    with tg.no_grad():
        with tg.enable_grad():
            assert (x * x).requires_grad
            with tg.no_grad():
                assert not (x * x).requires_grad
            assert (x * x).requires_grad
        assert not (x * x).requires_grad
    assert (x * x).requires_grad


@pytest.mark.parametrize("switch", [tg.no_grad, tg.enable_grad, tg.detect_anomaly])
def test_one_switch_entered_twice(switch):
    """The same object may be entered inside itself."""
    before = state.recording, state.anomaly, state.sources
    once = switch()
    with once, once:
        pass
    assert (state.recording, state.anomaly, state.sources) == before


@pytest.mark.parametrize("switch", [tg.no_grad, tg.detect_anomaly, lambda: tg.scope("s", time=3), tg.record_sources])
def test_exceptions_restore(switch):
    """An exception that leaves a switch restores what was before."""
    before = state.recording, state.scope, state.anomaly, state.sources
    with pytest.raises(KeyboardInterrupt), switch():
        raise KeyboardInterrupt
    assert (state.recording, state.scope, state.anomaly, state.sources) == before


def test_no_grad_as_a_decorator():
    """A decorated function records nothing, keeps its name, and can call itself."""

    @tg.no_grad()
    def power(x, n):
        """x to the n."""
        return x if n == 1 else x * power(x, n - 1)

    x = leaf(2.0)
    assert power(x, 3).node is None
    assert power(x, 3).item() == 8.0
    assert (power.__name__, power.__doc__) == ("power", "x to the n.")
    assert (x * x).requires_grad


def test_detach_cuts_the_graph():
    """A detached value is a constant with the same name and number."""
    x = leaf(3.0, name="x")
    y = x * x.detach()
    y.backward()
    assert x.grad.item() == 3.0
    assert x.detach().name == "x"


def _scopes(loss):
    steps = []
    loss.backward(observers=[steps.append])
    return [(step.op, step.scope, step.time) for step in steps]


def test_scopes_nest():
    """Steps tell the path of scopes in which their node was recorded, and the innermost time."""
    x = leaf(1.0)
    with tg.scope("encoder"):
        with tg.scope("lstm", time=3):
            y = tg.tanh(x)
            with tg.scope("gate"):
                y = tg.exp(y)
            with tg.scope(time=4):
                y = tg.sin(y)
        y = tg.cos(y)
    y = tg.sqrt(y)
    assert _scopes(y) == [
        ("sqrt", "", None),
        ("cos", "encoder", None),
        ("sin", "encoder/lstm", 4),
        ("exp", "encoder/lstm/gate", 3),
        ("tanh", "encoder/lstm", 3),
    ]


def test_one_scope_entered_twice():
    """The same scope object may be entered inside itself, and leaves nothing behind."""
    scope = tg.scope("again", time=1)
    x = leaf(1.0)
    with scope, scope:
        y = tg.tanh(x)
    assert state.scope is None
    assert _scopes(y) == [("tanh", "again/again", 1)]


def test_backward_leaves_the_open_scope_alone():
    """The scope that is open around a backward pass is still open after it, also where gradients are recorded."""
    x = leaf(1.0)
    with tg.scope("inner"):
        y = tg.tanh(x)
    with tg.scope("outer"):
        tg.grad(y, x, create_graph=True)
        z = tg.tanh(y)
    assert _scopes(z)[0] == ("tanh", "outer", None)


def test_leaves_belong_to_no_scope():
    """A leaf made inside a scope is not of that scope: parameters are shared by all steps."""
    with tg.scope("t", time=0):
        x = leaf(1.0)
        y = tg.tanh(x)
    steps = []
    y.backward(observers=[steps.append])
    assert (steps[0].operand.scope, steps[0].operand.time) == ("", None)


def test_array_of_a_recorded_tensor_is_refused():
    """np.asarray on a Tensor that requires a gradient would cut the graph silently, so it is an error, except inside no_grad."""
    x = leaf([1.0, 2.0])
    with pytest.raises(tg.errors.UnsupportedError, match=r"would lose it"):
        np.asarray(x)
    with tg.no_grad():
        np.testing.assert_array_equal(np.asarray(x), [1.0, 2.0])


def test_a_forward_function_may_use_tensors_itself():
    """The forward function of a primitive may compute with Tensors inside, which are no part of the graph."""

    def solve(x):
        with tg.no_grad():
            return tg.tanh(tg.tensor(x) * 2.0).value

    inner = Primitive(solve, name="inner", elementwise=True)
    inner.defrule(lambda out, x: (Scale(2.0 * (1.0 - out * out), "⊙ 2(1 − {out}²)"),))
    x = leaf([0.3])
    apply(inner, (x,)).backward()
    np.testing.assert_allclose(x.grad.value, 2.0 * (1.0 - np.tanh(0.6) ** 2))


def test_nothing_warns():
    """Infinities and NaN come without a warning, forward and backward, also where NumPy was told to raise."""
    x = leaf([0.0, 1000.0, -1.0])
    with np.errstate(all="raise"):
        y = tg.log(x) + tg.exp(x) / (x * 0.0) + tg.sqrt(x)
        y.sum().backward()
    assert not np.isfinite(x.grad.value).any()


def test_a_scope_closed_out_of_order_names_nothing_recorded_later():
    """A generator that closes its scope while a later one is open leaves that one in force."""

    def inside():
        with tg.scope("generator"):
            yield

    running = inside()
    x = tg.tensor(1.0, requires_grad=True)
    next(running)
    with tg.scope("later"):
        running.close()
        assert (x * 2.0).node.scope.name == "later"
    assert (x * 2.0).node.scope is None


def test_a_gradient_that_is_set_takes_the_precision_of_its_leaf():
    """x.grad = zeros in float64 does not promote a float32 leaf's gradient."""
    x = tg.tensor(np.float32([1.0]), requires_grad=True)
    x.grad = np.zeros(1)
    (x * 2.0).sum().backward()
    assert x.grad.dtype == np.float32
