"""Whatever stops a backward pass, and wherever it strikes, leaves every gradient and the engine as they were."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import signal
import sys
import threading
import time

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim, walk
from tinygrad_rnn.errors import HookError, ShapeError
from tinygrad_rnn.graph import state


class Program:
    """A loss with everything in it: a recurrence, a kernel, a checkpoint, an index, a shared operand; its leaves hold gradients already."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.layer = nn.LSTM(2, 2, rng=0)
        self.x, self.w = (tg.tensor(rng.normal(size=shape), True, name=name) for shape, name in (((3, 1, 2), "x"), ((2, 2), "w")))
        self.leaves = [self.x, self.w, *self.layer.parameters()]
        self.hidden: list[tg.Tensor] = []
        self.loss = self.forward()
        self.loss.backward()
        self.before = [leaf.grad for leaf in self.leaves]
        self.loss = self.forward()

    def forward(self) -> tg.Tensor:
        h, _ = self.layer(self.x)
        with tg.scope("own", time=2):
            h = tg.checkpoint(self.inner, h[-1], self.w) + self.x[0]
        self.hidden = [h]
        return (h * h).sum()

    @staticmethod
    def inner(a: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
        with tg.scope("inside"):
            with tg.no_grad():
                factor = np.exp(w)[0]
            with tg.detect_anomaly():
                return tg.tanh(a @ w) * factor

    def check(self) -> None:
        """Every gradient is the very one that it was, no switch has moved, and the same pass now goes through."""
        assert all(leaf.grad is held for leaf, held in zip(self.leaves, self.before, strict=True))
        whole()
        twice = [2.0 * held.value for held in self.before]
        self.loss.backward()
        for leaf, expected in zip(self.leaves, twice, strict=True):
            np.testing.assert_array_equal(leaf.grad.value, expected)
        for leaf, held in zip(self.leaves, self.before, strict=True):
            leaf.grad = held


QUIET = np.geterr()


def whole() -> None:
    """What the thread records is what it recorded in the beginning, and the collector is at work, which a trace holds up."""
    assert (state.recording, state.anomaly, state.sources, state.transforming) == (True, False, False, False)
    assert (state.scope, state.reopened, state.before) == (None, None, [])
    assert np.geterr() == QUIET
    assert gc.isenabled()


@pytest.fixture
def program():
    tracer = sys.gettrace()
    sys.settrace(None)  # what measures coverage must not be interrupted: it holds locks
    made = Program()
    yield made
    made.check()
    sys.settrace(tracer)


# -- what the pass calls raises ----------------------------------------------------------------------------------------------------


class Stop:
    """A function that raises at its k-th call."""

    def __init__(self, error, at, inner=None):
        self.error, self.left, self.inner = error, at, inner

    def __call__(self, *arguments, **options):
        self.left -= 1
        if self.left < 0:
            raise self.error("stopped")
        return None if self.inner is None else self.inner(*arguments, **options)


ERRORS = [KeyError, ShapeError, MemoryError, KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("role", ["observers", "interventions"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_an_observer_or_intervention_that_raises_at_any_edge(program, role, error, create_graph):
    """For every edge: an error there leaves all gradients as they were, and names the edge."""
    count = []
    program.loss.backward(observers=[lambda step: count.append(repr(step))])
    for leaf, held in zip(program.leaves, program.before, strict=True):
        leaf.grad = held
    for k, edge in enumerate(count):
        with pytest.raises((error, HookError)) as caught:
            program.loss.backward(create_graph=create_graph, **{role: [Stop(error, k)]})
        assert all(leaf.grad is held for leaf, held in zip(program.leaves, program.before, strict=True))
        if issubclass(error, Exception):
            story = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
            assert edge in story
    assert len(count) > 40


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_rule_that_raises_at_any_node(program, error, create_graph, monkeypatch):
    """For every node, in the kernels' pass and in the opened one: an error in its rule leaves all gradients as they were."""
    rules = walk._local_maps
    for k in range(1000):
        monkeypatch.setattr(walk, "_local_maps", Stop(error, k, rules))
        try:
            program.loss.backward(create_graph=create_graph)
            break
        except (error, HookError) as caught:
            assert all(leaf.grad is held for leaf, held in zip(program.leaves, program.before, strict=True))
            assert isinstance(caught, HookError) == (error is KeyError)
            assert error is not KeyError or "differentiating <" in str(caught)
    assert k > 5
    monkeypatch.undo()
    for leaf, held in zip(program.leaves, program.before, strict=True):
        leaf.grad = held


@pytest.mark.parametrize("error", ERRORS)
def test_a_hook_that_raises(program, error):
    """On a leaf, on what was computed, on a kernel's output: the message names the Tensor and its operation."""
    for target, named in ((program.x, "<x (3, 1, 2) "), (program.hidden[0], "(add)"), (program.w, "<w (2, 2) ")):
        handle = target.register_hook(Stop(error, 0))
        with pytest.raises((error, HookError)) as caught:
            program.loss.backward()
        if issubclass(error, Exception):
            story = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
            assert "a hook on <" in story
            assert named in story
        handle.remove()


@pytest.mark.parametrize("error", ERRORS)
def test_a_kernel_or_a_checkpoint_that_raises(program, error, monkeypatch):
    """A joint pullback that fails, and a function that fails when it is run again, are named; nothing has been added anywhere."""
    nodes = walk.discover([program.loss.node], set())
    kernel = next(node.primitive for node in nodes if getattr(node.primitive, "joint_pullback", None))
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "joint_pullback", Stop(error, 0))
        with pytest.raises((error, HookError)) as caught:
            program.loss.backward()
        assert not isinstance(caught.value, HookError) or kernel.name in str(caught.value)
    again = Stop(error, 1, lambda a: a * 2.0)
    loss = tg.checkpoint(again, program.x).sum()
    with pytest.raises((error, HookError)) as caught:
        loss.backward()
    assert not isinstance(caught.value, HookError) or "checkpoint(Stop)" in str(caught.value)


# -- what comes from outside -------------------------------------------------------------------------------------------------------


def interrupt():
    raise KeyboardInterrupt


def finalising(frame):
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def interrupted_at(k, function, strike=interrupt, *, exits=True):
    """Call a function, and strike at its k-th Python call or return from C: there, and in loops, is where signals are handled.

    Left out are finalisers, and generators with what closes them, where Python itself loses an error; and, if ``exits`` is not set, the
    very beginning of what closes a ``with``, which no Python code can guard: only a pass, which knows how it began, is whole after that.

    Returns whether it was struck.
    """
    left = k

    def count(frame, event, argument):
        nonlocal left
        code = frame.f_code
        lost = code.co_flags & inspect.CO_GENERATOR or code.co_filename == contextlib.__file__
        lost = lost or (not exits and event == "call" and code.co_name == "__exit__")
        if event in ("call", "c_return") and not lost and getattr(argument, "__name__", "") != "__exit__":
            left -= 1
            if left == 0 and finalising(frame):
                left = 1
            elif left == 0:
                strike()

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(before)
    return left <= 0


PASSES = {
    "plain": lambda program: program.loss.backward(),
    "recorded": lambda program: program.loss.backward(create_graph=True),
    "observed": lambda program: program.loss.backward(observers=[lambda step: None]),
    "grad": lambda program: tg.grad(program.loss, program.leaves),
    "traced": lambda program: tg.trace(program.loss, keep="norms"),
    "forward mode": lambda program: tg.jvp(lambda x: tg.tanh(x @ program.w)[0], program.x, program.x.value),
}


@pytest.mark.parametrize("way", PASSES)
def test_an_interrupt_at_any_point(program, way):
    """Wherever Ctrl-C strikes within a pass, every gradient is as it was before the pass and every switch as it was set."""
    k, passed = 0, False
    while not passed:
        k += 1 if k < 60 else 7 if k % 2 else 4  # every point at the beginning, then one in five or six
        passed = not interrupted_at(k, lambda: PASSES[way](program))
        if not passed:
            assert all(leaf.grad is held for leaf, held in zip(program.leaves, program.before, strict=True)), k
            whole()
    for leaf, held in zip(program.leaves, program.before, strict=True):
        leaf.grad = held
    assert k > 80


class Run:
    """What goes on around passes: training, evaluation and saving; Ctrl-C strikes anywhere, and another step must go well."""

    def __init__(self, path):
        self.path = path / "run.npz"
        self.layer = nn.LSTM(2, 2, rng=0)
        self.optimizer = optim.Adam(self.layer.parameters(), lr=0.01)
        self.x = np.ones((2, 1, 2))
        self.train()
        self.save()

    def train(self):
        with tg.scope("training"):
            self.optimizer.zero_grad()
            loss = self.layer(self.x)[0].sum()
        loss.backward()
        self.optimizer.step()

    def evaluate(self):
        with tg.scope("outside"), tg.no_grad(), tg.enable_grad(), tg.detect_anomaly(), tg.record_sources(), tg.scope("inside"):
            tg.tanh(self.layer.bias_l0)

    def save(self):
        tg.save(self.path, {"model": self.layer.state_dict(), "optimizer": self.optimizer.state_dict()})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that was opened and not yet held: Python closes it
@pytest.mark.parametrize("what", ["train", "evaluate", "save"])
def test_an_interrupt_at_any_point_of_a_run(what, tmp_path):
    """Wherever Ctrl-C strikes between passes, it comes out as itself; switches and scopes are left, no leaf is lost, the file is whole."""
    tracer = sys.gettrace()
    sys.settrace(None)
    run, k = Run(tmp_path), 0
    try:
        while interrupted_at(k := k + (1 if what == "evaluate" else 7), getattr(run, what), exits=False):
            whole()
            run.train()
            whole()
            assert list(tg.load(run.path)) == ["model", "optimizer"]
            assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
        assert k > 30
    finally:
        sys.settrace(tracer)


def test_an_interrupt_at_any_line_where_gradients_are_given(program):
    """Signals are also handled where a loop turns: at whichever line of the end of ``backward`` one strikes, all was given or nothing."""
    twice = [2.0 * held.value for held in program.before]
    watched = tg.Tensor.backward.__code__, sys.modules["tinygrad_rnn.tensor"]._exchanged.__code__
    left = 0

    def trace_lines(frame, event, argument):
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace_lines

    def trace_calls(frame, event, argument):
        return trace_lines if frame.f_code in watched else None

    for k in range(1, 1000):
        left = k
        sys.settrace(trace_calls)
        try:
            program.loss.backward()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        if left > 0:
            break
        given = [leaf.grad is not held for leaf, held in zip(program.leaves, program.before, strict=True)]
        assert all(given) or not any(given), k
        if all(given):
            for leaf, held, expected in zip(program.leaves, program.before, twice, strict=True):
                np.testing.assert_array_equal(leaf.grad.value, expected)
                leaf.grad = held
    assert k > 20
    for leaf, held in zip(program.leaves, program.before, strict=True):
        leaf.grad = held


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")
def test_a_signal_at_any_time(program):
    """A real signal, at 150 times over the length of a pass: it comes out as KeyboardInterrupt, and all or nothing was added.

    Nothing is left locked either: another thread goes through a pass of the same graph.
    """
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        length = min(timed(lambda: tg.grad(program.loss, program.leaves)) for _ in range(5))
        struck = 0
        for k in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, length * (k + 1) / 120)
                program.loss.backward(observers=[lambda step: None] if k % 2 else ())
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
            if program.leaves[0].grad is not program.before[0]:  # it went through, and was struck behind its end or not at all
                for leaf, held in zip(program.leaves, program.before, strict=True):
                    np.testing.assert_array_equal(leaf.grad.value, 2.0 * held.value)
                    leaf.grad = held
            assert all(leaf.grad is held for leaf, held in zip(program.leaves, program.before, strict=True))
            whole()
        assert struck > 10
    finally:
        signal.signal(signal.SIGALRM, old)
    other = threading.Thread(target=program.loss.backward, daemon=True)
    other.start()
    other.join(20)
    assert not other.is_alive()
    for leaf, held in zip(program.leaves, program.before, strict=True):
        np.testing.assert_array_equal(leaf.grad.value, 2.0 * held.value)
        leaf.grad = held


def test_an_exception_from_another_thread(program):
    """``PyThreadState_SetAsyncExc`` at every edge of an observed pass: it is raised, and nothing was added."""
    me = ctypes.c_ulong(threading.get_ident())

    for k in range(40):
        left = k

        def strike(step):
            nonlocal left
            left -= 1
            if left == -1:
                assert ctypes.pythonapi.PyThreadState_SetAsyncExc(me, ctypes.py_object(KeyboardInterrupt)) == 1

        with pytest.raises(KeyboardInterrupt):
            program.loss.backward(observers=[strike])
        assert all(leaf.grad is held for leaf, held in zip(program.leaves, program.before, strict=True))
        whole()


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_pass_in_the_middle_of_a_pass(kind):
    """A signal handler or finaliser that comes anywhere while a layer runs, runs it too and differentiates, changes not one bit."""
    layer, other = kind(2, 3, rng=0), np.ones((5, 2, 2))
    found = []

    def run(numbers):
        with tg.enable_grad():
            x = tg.tensor(numbers, True)
            h = tg.checkpoint(lambda a: tg.tanh(a) * 2.0, layer(x, lengths=[3, 2])[0])
            found[:] = [h.value, *(g.value for g in tg.grad((h * h).sum(), [x, *layer.parameters()]))]

    def handler():
        layer(other)[0].sum().backward()

    numbers = np.random.default_rng(0).normal(size=(3, 2, 2))
    run(numbers)
    expected = list(found)
    k = 1
    while interrupted_at(k, lambda: run(numbers), lambda: tg.enable_grad(handler)()):
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)), k
        k += 6
    assert k > 200
    whole()
