"""Processes: what was forked, spawned or sent to another process computes the same numbers, and a lock held elsewhere holds nobody up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.graph import state

METHODS = [method for method in ("fork", "spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]

# Newer Pythons warn of a fork in a process with threads, of which NumPy's BLAS has some; those threads take no part here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def train(layer: Any, steps: int = 3) -> list[Any]:
    """Train a layer for some steps; the losses, and the weights in the end."""
    x = np.random.default_rng(1).normal(size=(4, 2, 2))
    optimizer = optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (layer(x)[0] ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [losses, *(parameter.value for parameter in layer.parameters())]


def fresh(seed: int) -> list[Any]:
    """The same for a layer that is made in the process."""
    return train(nn.LSTM(2, 3, rng=seed))


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


PROGRAM = f"""
import multiprocessing, pickle, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from concurrent.futures import ProcessPoolExecutor
import tinygrad_rnn as tg
from tinygrad_rnn import nn
import test_processes as here
if __name__ == "__main__":
    tg.tanh(tg.tensor(1.0, requires_grad=True)).backward()  # the parent has recorded something
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        made = list(pool.map(here.fresh, range(3)))
        sent = list(pool.map(here.train, [nn.GRU(2, 3, rng=seed) for seed in range(3)]))
    print(all(here.same(made[seed], here.fresh(seed)) for seed in range(3)))
    print(all(here.same(sent[seed], here.train(nn.GRU(2, 3, rng=seed))) for seed in range(3)))
"""


@pytest.mark.parametrize("method", METHODS)
def test_workers_train_as_the_parent_does(method: str, tmp_path: Any) -> None:
    """Workers that are forked or spawned train layers of their own, and layers that are sent to them, to the parent's very bits."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(program), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue\n", "")


def in_a_child(function: Any) -> Any:
    """What a function returns in a forked child, within ten seconds."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            writer.send(function())
        finally:
            os._exit(0)
    try:
        assert reader.poll(10), "the child did not answer"
        return reader.recv()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reader.close()
        writer.close()


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@forks
def test_a_graph_is_differentiated_in_a_fork() -> None:
    """A graph that the parent has recorded can be differentiated in the child; the parent's gradients stay as they were."""
    layer = nn.RNN(2, 3, rng=0)
    loss = (layer(np.ones((4, 1, 2)))[0] ** 2).sum()

    def differentiate() -> list[Any]:
        loss.backward()
        return [parameter.grad.value for parameter in layer.parameters()]

    found = in_a_child(differentiate)
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert same(found, differentiate())


@forks
def test_a_fork_in_the_middle_of_a_pass() -> None:
    """A child that was forked by a hook differentiates all the same."""
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    answers: list[Any] = []

    def fresh_gradient() -> list[float]:
        y = tg.tensor([3.0], requires_grad=True)
        with tg.enable_grad():
            (y * y).sum().backward()
        return y.grad.value.tolist()

    x.register_hook(lambda g: answers.append(in_a_child(fresh_gradient)))
    (x * x).sum().backward()
    assert answers == [[6.0]]
    assert (state.recording, state.scope) == (True, None)
