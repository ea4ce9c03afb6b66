"""Recording state belongs to a thread; graphs may be built and differentiated side by side, and a finished one read by all."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.graph import state

THREADS = 8


def together(function):
    """``function(k)`` for k = 0 … 7 in eight threads that start at once."""
    barrier = threading.Barrier(THREADS)

    def run(k):
        barrier.wait()
        return function(k)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def work(k):
    """Build a small recurrence with a checkpoint, and take first and second derivatives."""
    rng = np.random.default_rng(k)
    x, w = tg.tensor(rng.normal(size=(20, 3)), requires_grad=True), tg.tensor(rng.normal(size=(3, 3)) * 0.5, requires_grad=True)
    h = x[0]
    for t in range(20):
        with tg.scope("thread", time=t):
            h = tg.checkpoint(lambda a, b: tg.tanh(a @ w + b), h, x[t]) if t % 5 == 0 else tg.tanh(h @ w + x[t])
    loss = (h * h).sum()
    loss.backward(observers=[lambda step: step.gain])
    (dw,) = tg.grad(loss, w, create_graph=True)
    (ddw,) = tg.grad((dw * dw).sum(), w)
    _, tangent = tg.jvp(lambda a: tg.tanh(a @ w), x, np.ones((20, 3)))
    return [loss.value, x.grad.value, w.grad.value, ddw.value, tangent.value]


def test_eight_threads_give_the_serial_results():
    """Graphs built and differentiated at once in eight threads are those built one after the other, bit for bit."""
    expected = [work(k) for k in range(THREADS)]
    for found, wanted in zip(together(work), expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_shared_graph():
    """One finished graph can be differentiated by eight threads at once."""
    x = tg.tensor(np.linspace(0.1, 1.0, 50), requires_grad=True)
    y = x
    for _ in range(50):
        y = tg.sin(y) * x + y
    loss = y.sum() + x[3]
    (expected,) = tg.grad(loss, x)
    for found in together(lambda k: [tg.grad(loss, x)[0].value for _ in range(5)]):
        for value in found:
            np.testing.assert_array_equal(value, expected.value)


def test_one_graph_of_several_threads():
    """Threads that record in turns, each on what the others have made, record one graph: its gradient is that of one thread's."""

    def step(h, x):
        return tg.sin(h) * x + h

    x = tg.tensor(np.linspace(0.1, 1.0, 5), requires_grad=True)
    alone = together_in_turns = x
    pools = [ThreadPoolExecutor(1) for _ in range(3)]
    for k in range(30):
        alone = step(alone, x)
        together_in_turns = pools[k * k % 3].submit(step, together_in_turns, x).result(10)
    for pool in pools:
        pool.shutdown()
    (expected,) = tg.grad(alone.sum(), x)
    np.testing.assert_array_equal(tg.grad(together_in_turns.sum(), x)[0].value, expected.value)


@pytest.mark.parametrize("switch", [tg.no_grad, tg.detect_anomaly, tg.record_sources, lambda: tg.scope("here", time=1)])
def test_switches_do_not_leak(switch):
    """What one thread has switched, another one does not see."""
    with switch():
        seen = together(lambda k: (state.recording, state.anomaly, state.sources, state.scope))
    assert seen == [(True, False, False, None)] * THREADS


def test_one_switch_shared_by_threads():
    """The same switch object, open in several threads at different times, restores each thread's own state."""
    switch = tg.no_grad()
    opened, closed = threading.Event(), threading.Event()

    def outer():
        with switch:
            opened.set()
            closed.wait(10)
            inside = state.recording
        return inside, state.recording

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(outer)
        opened.wait(10)
        with tg.enable_grad():
            with switch:
                pass
            here = state.recording
        closed.set()
        assert future.result(10) == (False, True)
    assert here


def test_scope_object_shared_by_threads():
    """A scope object that two threads have open at once gives each its own path."""
    shared = tg.scope("shared")

    def run(k):
        with tg.scope(f"thread{k}"), shared:
            y = tg.tanh(tg.tensor(1.0, requires_grad=True))
        return y.node.scope.path, state.scope

    assert together(run) == [(f"thread{k}/shared", None) for k in range(THREADS)]


def test_a_shared_leaf_loses_nothing():
    """Gradients that eight threads add to one leaf at once are all there in the end."""
    w = tg.tensor(np.zeros(3000), requires_grad=True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        together(lambda k: [(w * 1.0).sum().backward() for _ in range(100)])
    finally:
        sys.setswitchinterval(before)
    np.testing.assert_array_equal(w.grad.value, np.full(3000, 100.0 * THREADS))


def test_a_thread_that_adds_between_reading_and_giving():
    """What another thread adds to a leaf after its gradient was read, and before the sum is given, is not lost: the sum is made anew."""
    w = tg.tensor([1.0, 2.0], requires_grad=True)
    reading, added = threading.Event(), threading.Event()
    giving = sys.modules["tinygrad_rnn.tensor"]._exchanged.__code__

    def pause(frame, event, argument):
        if frame.f_code is giving and not reading.is_set():
            reading.set()
            assert added.wait(10)

    def first():
        sys.setprofile(pause)
        (w * 1.0).sum().backward()
        sys.setprofile(None)

    def second():
        assert reading.wait(10)
        (w * 10.0).sum().backward()
        added.set()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(20)
    np.testing.assert_array_equal(w.grad.value, [11.0, 11.0])


def train(k):
    """Three steps of training with a kernel, dropout and an optimiser; what came of it."""
    layer = nn.LSTM(2, 3, 2, dropout=0.3, rng=k)
    optimizer = optim.Adam(layer.parameters(), lr=0.01)
    x = np.random.default_rng(k).normal(size=(6, 2, 2))
    for _ in range(3):
        optimizer.zero_grad()
        loss = (layer(x)[0] ** 2).mean()
        loss.backward()
        optimizer.step()
    gains = [step.gain for step in tg.trace((layer(x)[0] ** 2).mean(), keep="norms").steps]
    return [loss.value, np.array(gains), *(p.value for p in layer.parameters())]


def test_eight_threads_train_as_one():
    """Layers, optimisers and traces in eight threads at once give what they give one after the other, bit for bit."""
    expected = [train(k) for k in range(THREADS)]
    for found, wanted in zip(together(train), expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
