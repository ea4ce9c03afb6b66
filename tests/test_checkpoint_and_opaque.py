"""Closed nodes: a fused kernel runs while nobody looks and opens when someone does; a checkpoint computes again instead of remembering."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ArgumentError, GraphError, HookError
from tinygrad_rnn.graph import state
from tinygrad_rnn.primitive import Opaque
from tinygrad_rnn.tensor import apply


def leaf(data, name=None):
    return tg.tensor(data, requires_grad=True, name=name)


# -- a kernel with two outputs ----------------------------------------------------------------------------------------------


class Calls:
    """How often the kernel's pullback and its definition ran."""

    def __init__(self):
        self.pullback = self.definition = 0


def affine_tanh(calls):
    """The fused kernel (x, w, b) ↦ (tanh(a), a) with a = x w + b, and its definition."""

    def forward(x, w, b, *, gain):
        a = gain * (x @ w + b)
        h = np.tanh(a)
        return (h, a), h

    def definition(x, w, b, *, gain):
        calls.definition += 1
        a = gain * (x @ w + b)
        return tg.tanh(a), a

    def joint_pullback(cotangent, value, residual, needed, x, w, b, *, gain):
        calls.pullback += 1
        dh, da = cotangent
        assert residual is value[0]
        total = 0.0
        if dh is not None:
            total = total + dh * (1.0 - residual * residual)
        if da is not None:
            total = total + da
        total = gain * total
        return total @ w.T, x.T @ total, total.sum(axis=0)

    return Opaque(forward, name="affine_tanh", definition=definition, joint_pullback=joint_pullback)


LOSSES = {
    "both outputs": lambda h, a: (h * h).sum() + (a * a).sum(),
    "the first only": lambda h, a: (h * h).sum(),
    "the second only": lambda h, a: (a * a * a).sum(),
    "the first twice": lambda h, a: (h * tg.sin(h)).sum() + h[0, 0],
}


def problem(loss, *, fused, tracked=(True, True, True)):
    """The loss with its leaves, through the kernel or through its definition."""
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(3, 2)), rng.normal(size=(2, 4)), rng.normal(size=4)
    leaves = [tg.tensor(array, requires_grad=t) for array, t in zip(arrays, tracked, strict=True)]
    calls = Calls()
    kernel = affine_tanh(calls)
    h, a = apply(kernel, tuple(leaves), {"gain": 0.7}) if fused else kernel.definition(*leaves, gain=0.7)
    calls.definition = 0
    return LOSSES[loss](h, a), leaves, calls


def gradients(leaves):
    return [x.grad.value for x in leaves if x.requires_grad]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("tracked", [(True, True, True), (False, True, True), (True, False, False)])
def test_ordinary_backward_runs_the_kernel(loss, tracked):
    """An ordinary pass calls the joint pullback once and never the definition, with the definition's gradients."""
    y, leaves, calls = problem(loss, fused=True, tracked=tracked)
    y.backward()
    assert (calls.pullback, calls.definition) == (1, 0)
    expected, others, _ = problem(loss, fused=False, tracked=tracked)
    expected.backward()
    assert y.item() == pytest.approx(expected.item())
    for found, wanted in zip(gradients(leaves), gradients(others), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_grad_of_some_operands_runs_the_kernel():
    """tg.grad uses the joint pullback too, and returns what was asked for."""
    y, (x, w, _), calls = problem("both outputs", fused=True)
    (dw,) = tg.grad(y, w)
    expected, (_, v, _), _ = problem("both outputs", fused=False)
    np.testing.assert_allclose(dw.value, tg.grad(expected, v)[0].value, rtol=1e-12)
    assert (calls.pullback, calls.definition) == (1, 0)
    assert x.grad is None


def test_grad_walks_only_to_its_inputs_from_a_kernel():
    """Behind an operand of a kernel that no wanted gradient needs, nothing is multiplied."""
    x, w = leaf(np.ones((1, 2))), leaf(np.ones((2, 4)))
    costly = tg.exp(w)
    costly.register_hook(lambda g: pytest.fail("walked"))
    h, _ = apply(affine_tanh(Calls()), (x, costly, np.zeros(4)), {"gain": 1.0})
    tg.grad(h.sum(), x)


LOOKING = {
    "observer": lambda y: y.backward(observers=[lambda step: step.gain]),
    "intervention": lambda y: y.backward(interventions=[lambda step: None]),
    "create_graph": lambda y: y.backward(create_graph=True),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("way", [*LOOKING, "anomaly"])
def test_looking_opens_the_kernel(loss, way):
    """An observer, an intervention, create_graph or detect_anomaly runs the definition, with the same gradients."""
    plain, others, _ = problem(loss, fused=True)
    plain.backward()
    y, leaves, calls = problem(loss, fused=True)
    if way == "anomaly":
        with tg.detect_anomaly():
            y.backward()
    else:
        LOOKING[way](y)
    assert (calls.pullback, calls.definition) == (0, 1)
    for found, wanted in zip(gradients(leaves), gradients(others), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    for x in leaves:
        x.grad = None


@pytest.mark.parametrize("way", LOOKING)
def test_opening_restores_the_recording(way):
    """After an opened node the recording state is what it was before."""
    y, leaves, _ = problem("both outputs", fused=True)
    LOOKING[way](y)
    tg.checkpoint(lambda a: tg.sin(a), leaves[0]).sum().backward()
    tg.jvp(lambda a: tg.checkpoint(lambda b: tg.sin(b), a), 1.0, 1.0)
    assert (state.recording, state.scope, state.anomaly, state.sources) == (True, None, False, False)
    for x in leaves:
        x.grad = None


def test_observers_see_the_inside():
    """An observed kernel shows its multiplications, under the scope in which the kernel was called."""
    x = leaf([[0.1, 0.2]])
    with tg.scope("layer", time=3):
        h, _ = apply(affine_tanh(Calls()), (x, np.ones((2, 2)), np.zeros(2)), {"gain": 1.0})
    steps = []
    h.sum().backward(observers=[steps.append])
    inside = [(step.op, step.scope, step.time) for step in steps if step.op in ("tanh", "matmul")]
    assert inside == [("tanh", "layer", 3), ("matmul", "layer", 3)]
    assert not {"affine_tanh", "item"} & {step.op for step in steps}


def test_forward_mode_opens_the_kernel():
    """jvp walks through the definition; ⟨J u, g⟩ = ⟨u, Jᵀ g⟩."""
    rng = np.random.default_rng(1)
    x, u, g = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), rng.normal(size=(3, 4))
    calls = Calls()
    kernel = affine_tanh(calls)
    w, b = rng.normal(size=(2, 4)), rng.normal(size=4)

    def fn(t):
        h, a = apply(kernel, (t, w, b), {"gain": 0.7})
        return h * a

    _, tangent = tg.jvp(fn, x, u)
    assert calls.definition == 1
    (pulled,) = tg.vjp(fn, x)[1](g)
    assert np.vdot(tangent.value, g) == pytest.approx(np.vdot(u, pulled.value), rel=1e-12)


@pytest.mark.parametrize("which", [0, 1])
def test_second_order_through_a_kernel(which):
    """Hessians through the kernel are those through its definition."""
    rng = np.random.default_rng(2)
    w, b, x = rng.normal(size=(2, 4)), rng.normal(size=4), rng.normal(size=(3, 2))
    kernel = affine_tanh(Calls())

    def fn(t, fused):
        parts = apply(kernel, (t, w, b), {"gain": 0.7}) if fused else kernel.definition(t, tg.tensor(w), tg.tensor(b), gain=0.7)
        return (parts[which] ** 3).sum()

    np.testing.assert_allclose(
        tg.hessian(lambda t: fn(t, True), x).value, tg.hessian(lambda t: fn(t, False), x).value, rtol=1e-12, atol=1e-14
    )


def test_kernel_without_tracked_operands_records_nothing():
    """A kernel on constants gives constants."""
    h, a = apply(affine_tanh(Calls()), (tg.tensor(np.ones((1, 2))), np.ones((2, 2)), np.zeros(2)), {"gain": 1.0})
    assert not h.requires_grad and not a.requires_grad


def test_hook_on_a_kernels_output():
    """A hook on one output of a kernel sees that output's total cotangent, and may replace it."""
    _, leaves, calls = problem("both outputs", fused=True)
    h, a = apply(affine_tanh(calls), tuple(leaves), {"gain": 0.7})
    h.register_hook(lambda g: g * 0.0)
    ((h * h).sum() + (a * a).sum()).backward()
    _, others, _ = problem("both outputs", fused=False)
    h, a = affine_tanh(Calls()).definition(*others, gain=0.7)
    (a * a).sum().backward()
    for found, wanted in zip(gradients(leaves), gradients(others), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_an_error_in_a_joint_pullback():
    """What a kernel's pullback raises names the kernel, and changes no gradient."""

    def broken(*_, **__):
        raise ZeroDivisionError("inside")

    kernel = Opaque(lambda x: (x * 2.0, None), name="kernel", definition=lambda x: x * 2.0, joint_pullback=broken)
    x = leaf(1.0)
    with pytest.raises(HookError, match=r"kernel.*ZeroDivisionError: inside"):
        apply(kernel, (x,)).backward()
    assert x.grad is None


# -- checkpoint -------------------------------------------------------------------------------------------------------------


def block(x, w):
    """Something with an inside worth forgetting."""
    for _ in range(4):
        x = tg.tanh(x @ w + x)
    return x


def test_checkpoint_gives_the_same_gradients_bit_for_bit():
    """Three blocks in a row with one shared weight: remembered or computed again, the gradients are equal to the last bit."""
    rng = np.random.default_rng(0)
    start, weight = rng.normal(size=(5, 3)), rng.normal(size=(3, 3)) * 0.5

    def run(call):
        x, w = leaf(start), leaf(weight)
        h = x
        for _ in range(3):
            h = call(block, h, w)
        (h * h).sum().backward()
        return x.grad.value, w.grad.value

    for found, expected in zip(run(tg.checkpoint), run(lambda fn, *args: fn(*args)), strict=True):
        np.testing.assert_array_equal(found, expected)


def peak(call):
    """The most bytes alive during a forward and a backward pass through 20 blocks of 20 operations."""
    x = leaf(np.full(10_000, 0.1))

    def deep(h):
        for _ in range(20):
            h = tg.sin(h)
        return h

    tracemalloc.start()
    h = x
    for _ in range(20):
        h = call(deep, h)
    h.sum().backward()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_checkpoint_needs_less_memory():
    """20 blocks of 20 operations: about 20 + 20 arrays instead of 400."""
    assert peak(tg.checkpoint) < 0.2 * peak(lambda fn, h: fn(h))


def test_closure_over_a_parameter():
    """A parameter that the function finds outside gets its gradient, also when nothing else is tracked."""
    w = leaf([2.0, 3.0])
    for x in (leaf([1.0, 4.0]), tg.tensor([1.0, 4.0])):
        w.grad = None
        tg.checkpoint(lambda a: a * w * w, x).sum().backward()
        np.testing.assert_array_equal(w.grad.value, 2 * x.value * w.value)
        (dw,) = tg.grad(tg.checkpoint(lambda a: a * w * w, x).sum(), w)
        np.testing.assert_array_equal(dw.value, 2 * x.value * w.value)


def test_closure_over_an_intermediate():
    """An intermediate that is reachable only through the checkpoint gets its cotangent, and so does what lies behind it."""
    w = leaf([2.0, 3.0])
    x = leaf([1.0, 1.0])
    inner = w * w
    y = tg.checkpoint(lambda a: a * inner, x)
    seen = []
    inner.register_hook(lambda g: seen.append(g.value.tolist()))
    (y * 5.0).sum().backward()
    np.testing.assert_array_equal(w.grad.value, 5 * 2 * w.value)
    assert seen == [[5.0, 5.0]]
    np.testing.assert_array_equal(tg.grad(y.sum(), inner)[0].value, [1.0, 1.0])


def test_closure_used_inside_and_outside():
    """A closed-over intermediate that is used outside too gets one total cotangent."""
    w = leaf([2.0, 3.0])
    inner = w * w
    seen = []
    inner.register_hook(lambda g: seen.append(g.value.tolist()))
    (tg.checkpoint(lambda a: a * inner, inner) + inner * 7.0).sum().backward()
    assert seen == [(2 * inner.value + 7.0).tolist()]
    np.testing.assert_array_equal(w.grad.value, (2 * inner.value + 7.0) * 2 * w.value)


@pytest.mark.parametrize("x", [leaf(5.0), tg.tensor(5.0)])
def test_function_that_returns_a_closure(x):
    """A function that only hands out a parameter from outside is differentiable by it."""
    w = leaf(2.0)
    tg.checkpoint(lambda a: w, x).backward()
    assert w.grad.item() == 1.0


def test_closure_inside_a_transform_inside():
    """A checkpointed function that takes a derivative of its own by something outside stays connected to that."""
    w = leaf(2.0)
    y = tg.checkpoint(lambda a: tg.vjp(lambda t: w * w * t, a)[1](1.0)[0], tg.tensor(3.0))
    y.backward()
    assert w.grad.item() == 4.0


def test_nested_checkpoints():
    """A checkpoint inside a checkpoint, with a closure at each depth."""
    v, w, x = leaf(0.3), leaf(0.4), leaf(0.5)

    def outer(a):
        return tg.checkpoint(lambda b: tg.sin(b * v), a * w) * a

    tg.checkpoint(outer, x).backward()
    s, c = np.sin(0.5 * 0.4 * 0.3), np.cos(0.5 * 0.4 * 0.3)
    assert x.grad.item() == pytest.approx(s + 0.5 * c * 0.4 * 0.3)
    assert w.grad.item() == pytest.approx(0.5 * c * 0.5 * 0.3)
    assert v.grad.item() == pytest.approx(0.5 * c * 0.5 * 0.4)


def test_closure_before_a_nested_checkpoint():
    """A parameter used before a nested checkpoint of constants is not forgotten by it."""
    w = leaf(2.0)
    tg.checkpoint(lambda a: w * tg.checkpoint(lambda b: b * 1.0, a), tg.tensor(3.0)).backward()
    assert w.grad.item() == 3.0
    w.grad = None

    def fn(a):
        product = w * a
        tg.checkpoint(lambda b: b * 1.0, a)
        return product

    tg.checkpoint(fn, tg.tensor(3.0)).backward()
    assert w.grad.item() == 3.0


def test_tuple_outputs():
    """A checkpointed function may return several Tensors, of which some may go unused, or be one and the same."""
    x = leaf([1.0, 2.0])
    a, b, c = tg.checkpoint(lambda t: (t * t, tg.exp(t), t), x)
    (a * 3.0 + c).sum().backward()
    np.testing.assert_array_equal(x.grad.value, 6 * x.value + 1.0)
    np.testing.assert_allclose(tg.grad((b * a).sum(), x)[0].value, np.exp(x.value) * (x.value**2 + 2 * x.value))


def test_checkpoint_inside_no_grad():
    """Inside no_grad a checkpoint is the function itself."""
    x = leaf(2.0)
    with tg.no_grad():
        y = tg.checkpoint(lambda a: a * a, x)
    assert not y.requires_grad and y.item() == 4.0


def test_no_grad_inside_checkpoint():
    """What the function does without recording stays constant."""
    x = leaf(3.0)

    def fn(a):
        with tg.no_grad():
            b = a * a
        return a * b

    tg.checkpoint(fn, x).backward()
    assert x.grad.item() == 9.0


def test_checkpoint_to_third_order():
    """Recorded backward passes run through checkpoints, to any order."""
    x = leaf(0.7)
    y = tg.checkpoint(lambda a: a * a * tg.checkpoint(lambda b: b * b, a), x)
    for expected in (4 * 0.7**3, 12 * 0.7**2, 24 * 0.7):
        (y,) = tg.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_checkpoint_in_forward_mode():
    """jvp runs through checkpoints, and its tangent can be differentiated by a parameter closed over inside."""
    w = leaf(3.0)
    value, tangent = tg.jvp(lambda x: tg.checkpoint(lambda a: w * w * a * a, x), 2.0, 1.0)
    assert (value.item(), tangent.item()) == (36.0, 36.0)
    tangent.backward()
    assert w.grad.item() == 24.0


def test_vjp_of_a_checkpoint_with_a_hidden_parameter():
    """A pullback through a checkpoint is differentiable by a parameter that only the checkpoint knows."""
    w = leaf(3.0)
    _, pullback = tg.vjp(lambda x: tg.checkpoint(lambda a: w * w * a, x), 2.0)
    pullback(1.0)[0].backward()
    assert w.grad.item() == 6.0


def test_observers_see_the_inside_of_a_checkpoint():
    """The steps inside a checkpoint are shown, under the scopes that were open when it was called and inside it."""
    x = leaf(0.5)

    def fn(a):
        with tg.scope("inside", time=1):
            return tg.tanh(a)

    with tg.scope("outside"):
        y = tg.checkpoint(fn, x)
    steps = []
    y.backward(observers=[steps.append])
    assert [(step.op, step.scope, step.time) for step in steps] == [("tanh", "outside/inside", 1)]


def test_function_that_changes_is_refused():
    """A function that gives another value when it is computed again is an error that says what to do, and changes no gradient."""
    rng = np.random.default_rng(0)
    x = leaf(np.ones(3))
    y = tg.checkpoint(lambda a: a * rng.normal(size=3), x)
    with pytest.raises(GraphError, match=r"computing again gave another value.*draw random numbers outside"):
        y.sum().backward()
    assert x.grad is None


def test_parameter_rebound_before_computing_again():
    """A closed-over parameter that was given a new value since cannot be computed again."""
    w, x = leaf(2.0), leaf(3.0)
    y = tg.checkpoint(lambda a: a * w, x)
    w.value = 5.0
    with pytest.raises(GraphError, match=r"another value|new value"):
        y.backward()
    assert x.grad is None and w.grad is None


def test_function_that_fails_when_computed_again():
    """An exception in the second run names the checkpoint."""
    runs = []

    def fn(a):
        runs.append(a)
        if len(runs) > 1:
            raise OSError("gone")
        return a * 2.0

    x = leaf(1.0)
    y = tg.checkpoint(fn, x)
    with pytest.raises(HookError, match=r"checkpoint\(fn\).*OSError: gone"):
        y.backward()


def test_checkpoint_must_return_tensors():
    """Anything else is refused when the checkpoint is made."""
    with pytest.raises(ArgumentError, match=r"must return a Tensor or a tuple of Tensors; a part of it is ndarray"):
        tg.checkpoint(lambda a: a.value, leaf(1.0))


def test_checkpoint_of_plain_arrays_copies_them():
    """An array that was passed in may be changed before the backward pass."""
    w, array = leaf(2.0), np.array([1.0, 2.0])
    y = tg.checkpoint(lambda a: a * w, array)
    array[:] = 100.0
    y.sum().backward()
    assert w.grad.item() == 3.0


def one_operand(definition=tg.exp, share=lambda cotangent, value: cotangent * value):
    """A kernel for exp, with one operand."""
    return Opaque(
        lambda x: (np.exp(x), None),
        name="own_exp",
        definition=definition,
        joint_pullback=lambda cotangent, value, residual, needed, x: (share(cotangent, value),),
    )


def test_a_kernel_with_one_operand_is_called_like_any_function():
    """On a Tensor it records one node; on an array it gives the value without the residual."""
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    out = one_operand()(x)
    out.sum().backward()
    np.testing.assert_array_equal(out.value, np.exp([1.0, 2.0]))
    np.testing.assert_array_equal(x.grad.value, np.exp([1.0, 2.0]))
    np.testing.assert_array_equal(one_operand()(np.array([1.0])), np.exp([1.0]))


def test_a_kernel_that_overflows_does_not_warn():
    """Kernels are as quiet on Tensors as primitives are."""
    assert one_operand()(tg.tensor([1000.0], requires_grad=True)).item() == np.inf


def test_a_definition_that_computes_something_else_is_refused():
    """Opening a kernel whose definition disagrees with it is an error, not a second answer."""
    out = one_operand(definition=lambda x: 2.0 * tg.exp(x))(tg.tensor([1.0], requires_grad=True))
    with pytest.raises(GraphError, match=r"own_exp.*must compute the same"):
        tg.trace(out)


def test_a_share_of_the_wrong_shape_is_refused_where_it_arises():
    """The message names kernel, operand, expected and got."""
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    out = one_operand(share=lambda cotangent, value: cotangent[:1])(x * 2.0)
    with pytest.raises(GraphError, match=r"own_exp: .*operand 0 a share of shape \(1,\); expected \(2,\)"):
        out.sum().backward()


def test_a_share_comes_in_the_operands_precision():
    """A kernel that computes its pullback in float64 gives a float32 operand a float32 gradient."""
    x = tg.tensor(np.float32([1.0, 2.0]), requires_grad=True)
    one_operand(share=lambda cotangent, value: cotangent.astype(np.float64) * value)(x).sum().backward()
    assert x.grad.dtype == np.float32


def test_a_layer_can_be_checkpointed():
    """Nested tuples come back as they are: outputs, and a state with its own type and names."""
    layer = nn.LSTM(2, 3, rng=0)
    x = tg.tensor(np.ones((4, 1, 2)), requires_grad=True)
    outputs, state = tg.checkpoint(layer, x)
    (outputs.sum() + state.cell.sum()).backward()
    through = [parameter.grad.value for parameter in (x, *layer.parameters())]
    for parameter in (x, *layer.parameters()):
        parameter.grad = None
    outputs, state = layer(x)
    (outputs.sum() + state.cell.sum()).backward()
    for expected, parameter in zip(through, (x, *layer.parameters()), strict=True):
        np.testing.assert_array_equal(expected, parameter.grad.value)
