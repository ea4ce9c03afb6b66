"""Depth, length and lifetime: a million nodes, cost linear in the number of steps, and graphs that are freed when they are dropped."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
import weakref
from contextlib import suppress

import numpy as np
import pytest
from measures import peak

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn, optim
from tinygrad_rnn.graph import Node
from tinygrad_rnn.primitive import Primitive
from tinygrad_rnn.tensor import apply


def leaf(data, name=None):
    return tg.tensor(data, requires_grad=True, name=name)


@pytest.fixture
def no_collector():
    """The garbage collector switched off, so that only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def chain(length, x):
    """x through ``length`` negations."""
    for _ in range(length):
        x = -x
    return x


# -- depth ------------------------------------------------------------------------------------------------------------------


def test_a_million_nodes(no_collector):
    """A chain of a million nodes goes forward and backward and is freed, all without recursion, in linear time and to the last byte."""

    def run(length):
        x = leaf(1.0)
        start = time.process_time()
        y = chain(length, x)
        y.backward()
        y = None
        taken = time.process_time() - start
        assert x.grad.item() == 1.0
        return taken

    run(1000)
    short = min(run(250_000) for _ in range(3))
    assert any(run(1_000_000) < 5.0 * short for _ in range(4))  # the best of four: a busy machine takes time for others


def test_a_dropped_graph_is_freed_at_once(no_collector):
    """With the collector off, dropping the last Tensor of a deep graph returns its memory."""
    x = leaf(np.ones(4))
    chain(10, x).sum().backward()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    y = chain(100_000, x)
    held = tracemalloc.get_traced_memory()[0]
    del y
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held - before > 10_000_000
    assert after - before < 0.01 * (held - before)


@pytest.mark.parametrize("mode", ["grad", "grad with create_graph", "jvp", "vjp", "observers"])
def test_depth_in_every_mode(mode):
    """No mode recurses: 30,000 nodes, with a recursion limit of 1,000."""
    x = leaf(1.5)
    if mode == "jvp":
        assert tg.jvp(lambda a: chain(30_000, a), x, 1.0)[1].item() == 1.0
    elif mode == "vjp":
        assert tg.vjp(lambda a: chain(30_000, a), x)[1](1.0)[0].item() == 1.0
    elif mode == "observers":
        steps = []
        chain(30_000, x).backward(observers=[lambda step: steps.append(step.node.order)])
        assert len(steps) == 30_000
    else:
        (dx,) = tg.grad(chain(30_000, x) * x, x, create_graph=mode != "grad")
        assert dx.item() == 3.0
        if mode != "grad":
            assert tg.grad(dx, x)[0].item() == 2.0


def test_depth_of_rearrangements():
    """A name is found through 20,000 rearrangements without recursion: Wᵀ is called after W however often it was turned."""
    w = leaf(np.eye(2), "W")
    y = w
    for _ in range(20_001):
        y = y.T
    seen = []
    y.sum().backward(observers=[lambda step: seen.append(step.label) or step.operand.symbol])
    assert len(seen) == 20_002
    assert {step.operand.symbol for step in tg.trace(y.sum()).steps} == {"W", "Wᵀ"}
    assert len(tg.trace(y.sum(), keep="norms").steps) == 20_002


def test_depth_of_second_order_is_freed(no_collector):
    """The graph of a gradient of a deep graph is freed without recursion too."""
    x = leaf(1.5)
    y = chain(50_000, x) * x
    (dx,) = tg.grad(y, x, create_graph=True)
    nodes = [weakref.ref(t) for t in (y, dx)]
    del y, dx
    assert all(node() is None for node in nodes)
    assert gc.collect() == 0


# -- width ------------------------------------------------------------------------------------------------------------------


def rows(count, observers=(), create_graph=False):
    """Σ over t of (x[t] · w).sum() for ``count`` rows of 64 numbers, and its backward pass as a function."""
    x, w = leaf(np.ones((count, 64))), leaf(np.full(64, 2.0))
    total = x[0].sum() * 0.0
    for t in range(count):
        total = total + (x[t] * w).sum()

    def backward():
        if create_graph:
            dx, dw = tg.grad(total, [x, w], create_graph=True)
            (ddw,) = tg.grad((dx * dx).sum() + dw.sum(), w)
            np.testing.assert_allclose(ddw.value, 2 * count * w.value)
        else:
            total.backward(observers=observers)
            np.testing.assert_array_equal(x.grad.value, np.full((count, 64), 2.0))

    return backward


WAYS = {
    "plain": {},
    "observed": {"observers": [lambda step: step.gain]},
    "recorded twice": {"create_graph": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_a_matrix_cost_linear_memory(way):
    """T uses of x[t] need memory for T rows, not for T matrices: four times the rows, four times the bytes."""
    short, long = (peak(rows(count, **WAYS[way])) for count in (200, 800))
    assert long < 5.0 * short
    assert long < 40 * (800 * 64 * 8)  # T dense arrays would be 800


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_a_matrix_cost_linear_time(way):
    """Four times the rows take about four times as long; with a dense array per row it would be sixteen times."""

    def seconds(count):
        best = np.inf
        for _ in range(3):
            backward = rows(count, **WAYS[way])
            start = time.process_time()
            backward()
            best = min(best, time.process_time() - start)
        return best

    seconds(50)
    assert seconds(2000) < 8.0 * seconds(500)


def test_a_kept_ledger_holds_no_dense_arrays():
    """Keeping every step of T uses of x[t] keeps T rows, not T matrices."""
    kept = []
    assert peak(rows(800, observers=[kept.append])) < 40 * (800 * 64 * 8)
    assert len(kept) > 3 * 800


def test_third_order_through_indices():
    """A cubic of the rows of a matrix has the right third derivative, each pass linear in the number of rows."""
    x = leaf(np.arange(1.0, 7.0).reshape(3, 2))
    y = x[0].sum() * 0.0
    for t in range(3):
        y = y + (x[t] * x[t] * x[t] * x[-1 - t]).sum()
    v = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]])

    def closed(value, shift):
        z = value + shift * v
        return (z**3 * z[::-1]).sum()

    derivative = y
    for _ in range(3):
        (gradient,) = tg.grad(derivative, x, create_graph=True)
        derivative = (gradient * v).sum()
    polynomial = np.polynomial.Polynomial.fit(np.arange(5.0), [closed(x.value, s) for s in range(5)], 4).convert()
    assert derivative.item() == pytest.approx(6.0 * polynomial.coef[3], rel=1e-9)


@pytest.mark.parametrize("create_graph", [False, True])
def test_indices_that_repeat_and_overlap(create_graph):
    """Parts that overlap, repeated entries, masks and a dense use beside them all add up."""
    x = leaf(np.arange(1.0, 6.0))
    mask = np.array([True, False, True, False, True])
    y = (x[np.array([0, 0, 3])] * np.array([1.0, 2.0, 4.0])).sum() + (x[1:4] * 10.0).sum() + (x[mask] * 100.0).sum() + (x * 1000.0).sum()
    (dx,) = tg.grad(y, x, create_graph=create_graph)
    np.testing.assert_array_equal(dx.value, [1103.0, 1010.0, 1110.0, 1014.0, 1100.0])


def test_stacking_is_linear_in_forward_mode():
    """The tangent of T parts joined together places each part once: four times the parts, four times the bytes."""

    def run(count):
        def fn(x):
            parts = []
            for _ in range(count):
                x = -x
                parts.append(x)
            return tg.stack(parts)

        return lambda: tg.jvp(fn, np.ones(64), np.ones(64))

    short, long = (peak(run(count)) for count in (100, 400))
    assert long < 5.0 * short


def test_stacking_is_linear_in_time_in_forward_mode():
    """A dense tangent per part would take sixteen times as long for four times the parts."""

    def seconds(count):
        best = np.inf
        parts = [np.ones(256)] * count
        for _ in range(3):
            start = time.process_time()
            tg.jvp(lambda *xs: tg.stack(xs), parts, parts)
            best = min(best, time.process_time() - start)
        return best

    seconds(20)
    assert seconds(1200) < 9.0 * seconds(300)


# -- lifetime ---------------------------------------------------------------------------------------------------------------


def everything():
    """One of each: layers of operations, hooks, kernels, checkpoints, observers, transforms, errors."""
    x, w = leaf(np.ones((3, 2)), name="x"), leaf(np.full((2, 2), 0.5))
    with tg.scope("all", time=1):
        h = tg.tanh(x @ w)
        h = tg.checkpoint(lambda a: tg.sin(a @ w) + x[0], h)
        h = h + tg.concatenate([x[:1], x[1:]])
    handle = h.register_hook(lambda g: g * 1.0)
    loss = (h * h).sum()
    steps = []
    loss.backward(observers=[steps.append])
    [step.label for step in steps]
    handle.remove()
    loss.backward()
    tg.grad(loss, [x, h], create_graph=True)
    tg.jvp(lambda a: tg.vjp(lambda b: (b * b).sum(), a)[1](1.0)[0], x, x.value)
    tg.hessian(lambda a: (a * a).sum(), x)
    with suppress(tg.errors.HookError):
        loss.backward(interventions=[lambda step: np.ones(7)])
    with suppress(tg.errors.AnomalyError), tg.detect_anomaly():
        tg.sqrt(x * 0.0).sum().backward()
    for options in ({"observers": [fail]}, {"interventions": [fail]}):
        with suppress(tg.errors.HookError):
            loss.backward(**options)
    handle = h.register_hook(fail)
    for create_graph in (False, True):
        with suppress(tg.errors.HookError):
            loss.backward(create_graph=create_graph)
    handle.remove()
    with suppress(tg.errors.HookError):
        apply(broken, (x,)).sum().backward()


def fail(thing):
    raise ZeroDivisionError


broken = Primitive(lambda x: 2.0 * x, name="broken", elementwise=True)
broken.defrule(lambda out, x: fail(x))


def test_no_reference_cycles(no_collector):
    """Nothing that the engine makes needs the garbage collector."""
    everything()
    gc.collect()
    before = nodes()  # of graphs that other tests hold
    everything()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        ours = [thing for thing in gc.garbage if type(thing).__module__.startswith("tinygrad_rnn")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert ours == []
    known = {id(node) for node in before}
    assert [node for node in nodes() if id(node) not in known] == []


def nodes():
    """Every node that is alive."""
    return [thing for thing in gc.get_objects() if type(thing) is Node]


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU], ids=lambda kind: kind.__name__)
def test_no_reference_cycles_in_layers_and_instruments(kind, no_collector):
    """Nor does anything that a layer, a trace, an instrument or an optimiser makes."""

    def use_everything():
        layer = kind(2, 3, 2, rng=0)
        loss = (layer(np.ones((4, 2, 2)), lengths=[4, 2])[0] ** 2).sum()
        trace = tg.trace(loss)
        trace.summary()
        for result in (
            flow.vanishing_product(trace, trace.layers[0]),
            flow.highway(trace, trace.layers[0]),
            flow.timescales(trace, trace.layers[0]),
            flow.step_jacobians(trace, trace.layers[0]),
            flow.split_paths(trace, layer.weight_hh_l0),
            flow.bptt_matrix([loss], layer.weight_hh_l0),
        ):
            result.table()
        (loss + flow.omega(loss)).backward()
        optim.Adam(layer.parameters()).step()

    use_everything()
    gc.collect()
    use_everything()
    blocks_in_use()


def test_a_pass_keeps_no_cotangents():
    """After backward only the gradients of the leaves are left: intermediate cotangents have been freed."""
    x = leaf(np.ones(100_000))
    y = x
    for _ in range(10):
        y = tg.sin(y)
    y = y.sum()
    tracemalloc.start()
    y.backward()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 1.5 * x.value.nbytes


def test_cotangents_are_freed_as_the_pass_goes_on():
    """A backward pass through n operations holds a few cotangents at a time, not n."""
    x = leaf(np.ones(100_000))
    y = chain(50, x).sum()
    assert peak(y.backward) < 6 * x.value.nbytes


def test_results_under_no_grad_hold_nothing(no_collector):
    """Without recording, operands are freed as soon as nothing else holds them."""
    with tg.no_grad():
        x = leaf(np.ones(10))
        y = x * 2.0
        held, value = weakref.ref(x), weakref.ref(x.value)
        del x
        assert held() is None
        assert value() is None
    assert y.shape == (10,)


@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_a_trace_keeps_no_graph(keep, no_collector):
    """A ledger has what it says of the nodes, and not one of the nodes."""
    before = len(nodes())
    layer = nn.LSTM(2, 3, rng=0)
    loss = (layer(np.ones((4, 1, 2)))[0] ** 2).sum()
    trace = tg.trace(loss, keep=keep)
    assert len(nodes()) > before
    del loss
    assert len(nodes()) == before
    assert len(trace.steps) > 40
    assert trace.states("lstm")[1].hidden.norm > 0.0


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU], ids=lambda kind: kind.__name__)
def test_a_thousand_steps_of_training_take_no_more_memory(kind, no_collector):
    """With the collector off, 1,000 steps of training, with a trace now and then, end with the memory of the first ones."""
    layer, read = kind(2, 4, rng=0), nn.Linear(4, 1, rng=1)
    optimizer = optim.Adam([*layer.parameters(), *read.parameters()], lr=1e-3)
    rng = np.random.default_rng(0)

    def train(steps):
        for step in range(steps):
            optimizer.zero_grad()
            loss = (read(layer(rng.normal(size=(3, 2, 2)))[0][-1]) ** 2).mean()
            loss.backward()
            if step % 50 == 0:
                tg.trace(loss, keep="norms").summary()
            optim.clip_grad_norm(layer.parameters(), 1.0)
            optimizer.step()

    train(60)
    before = blocks_in_use()
    train(1000)
    assert blocks_in_use() - before < 700  # less than a block a step: whatever is kept, it is not kept by every step


def blocks_in_use():
    """Blocks of memory that Python has given out, with its store of free tuples empty; and nothing was left to the collector."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        assert not [thing for thing in gc.garbage if type(thing).__module__.startswith("tinygrad_rnn")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    return sys.getallocatedblocks()
