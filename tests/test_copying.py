"""Leaves and constants can be copied and pickled; what was computed belongs to its graph and says so."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn, optim
from tinygrad_rnn.errors import GraphError, UnsupportedError
from tinygrad_rnn.primitive import Opaque
from tinygrad_rnn.walk import discover

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_leaves_and_constants_are_copied(way, requires_grad):
    """A copy has value, dtype, name, requires_grad and gradient, and collects gradients of its own."""
    x = tg.tensor(np.array([1.0, 2.0], np.float32), requires_grad=requires_grad, name="x")
    if requires_grad:
        (x * x).sum().backward()
    y = WAYS[way](x)
    np.testing.assert_array_equal(y.value, x.value)
    assert (y.dtype, y.name, y.requires_grad, y.is_leaf) == (np.float32, "x", requires_grad, True)
    if requires_grad:
        np.testing.assert_array_equal(y.grad.value, x.grad.value)
        (y * 10.0).sum().backward()
        np.testing.assert_array_equal(y.grad.value, [12.0, 14.0])
        np.testing.assert_array_equal(x.grad.value, [2.0, 4.0])
    with pytest.raises(ValueError, match=r"read-only"):
        y.value[...] = 0.0


@pytest.mark.parametrize("way", WAYS)
def test_computed_tensors_are_refused(way):
    """A computed Tensor cannot be copied out of its graph; the message says what to do."""
    y = tg.tensor([1.0], requires_grad=True) * 2.0
    with pytest.raises(GraphError, match=r"this Tensor was computed.*\.detach\(\)"):
        WAYS[way](y)
    assert WAYS[way](y.detach()).item() == 2.0


def test_deepcopy_keeps_sharing():
    """Two names for one leaf are two names for one copy, so tied weights stay tied."""
    w = tg.tensor([1.0], requires_grad=True)
    first, second = copy.deepcopy([w, w])
    assert first is second is not w


def test_primitives_are_pickled_by_name():
    """A primitive is the same object after pickling, and a made-up one is refused."""
    assert pickle.loads(pickle.dumps(tg.tanh)) is tg.tanh
    assert copy.deepcopy(tg.tanh) is tg.tanh


def recorded():
    """A layer's loss and its trace."""
    layer = nn.GRU(2, 3, rng=0)
    loss = (layer(np.ones((3, 1, 2)))[0] ** 2).sum()
    return loss, tg.trace(loss)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_graphs_and_ledgers_are_refused(way):
    """A graph or a ledger of any length says that it cannot be copied and what to do; copying never recurses through it."""
    loss, trace = recorded()
    x = y = tg.tensor(1.0, requires_grad=True)
    for _ in range(30_000):
        y = -y
    deep = tg.trace(y)
    for thing in (loss.node, x.node, y.node, [y], {"loss": loss}, trace, trace.steps[0], deep, trace.states("gru")):
        with pytest.raises(GraphError, match=r"^copy: "):
            WAYS[way](thing)
    with pytest.raises(GraphError, match=r"^copy: a node belongs to its graph"):
        copy.copy(y.node)
    with pytest.raises(UnsupportedError, match="gru_after: an opaque primitive belongs to its graph"):
        WAYS[way](next(node for node in discover([loss.node], set()) if isinstance(node.primitive, Opaque)).primitive)


@pytest.mark.parametrize("way", WAYS)
def test_results_and_optimisers_are_copied(way):
    """What an instrument found, and an optimiser with its parameters, can be copied and sent to another process."""
    _, trace = recorded()
    result = flow.timescales(trace, "gru")
    assert WAYS[way](result).to_dict() == result.to_dict()
    layer = nn.Linear(2, 1, rng=0)
    optimizer = optim.Adam(layer.parameters(), lr=0.1)
    layer(np.ones((1, 2))).sum().backward()
    optimizer.step()
    held, twin = WAYS[way]([layer, optimizer]) if way != "copy" else [layer, copy.copy(optimizer)]
    before = held.weight.value.copy()
    twin.step()
    assert not np.array_equal(held.weight.value, before)


MODULES = {
    "RNN": (lambda: nn.RNN(4, 3, nonlinearity="relu", rng=0), np.ones((3, 2, 4))),
    "LSTM": (lambda: nn.LSTM(4, 3, 2, bidirectional=True, dropout=0.5, rng=0), np.ones((3, 2, 4))),
    "GRU": (lambda: nn.GRU(4, 3, reset="before", rng=0), np.ones((3, 2, 4))),
    "RNNCell": (lambda: nn.RNNCell(4, 3, rng=0), np.ones((2, 4))),
    "LSTMCell": (lambda: nn.LSTMCell(4, 3, rng=0), np.ones((2, 4))),
    "GRUCell": (lambda: nn.GRUCell(4, 3, rng=0), np.ones((2, 4))),
    "Linear": (lambda: nn.Linear(4, 3, rng=0), np.ones((2, 4))),
    "Embedding": (lambda: nn.Embedding(5, 3, rng=0), np.array([0, 4, 4])),
    "Sequential": (lambda: nn.Sequential(nn.Linear(4, 4, rng=0), nn.LayerNorm(4), nn.Dropout(0.5, rng=0)), np.ones((2, 4))),
    "Residual": (lambda: nn.Residual(nn.Linear(4, 4, rng=0)), np.ones((2, 4))),
    "Highway": (lambda: nn.Highway(4, rng=0), np.ones((2, 4))),
    "SelfAttention": (lambda: nn.SelfAttention(4, 2, rng=0), np.ones((3, 2, 4))),
    "TransformerBlock": (lambda: nn.TransformerBlock(4, 2, rng=0), np.ones((3, 2, 4))),
}


def trained(module, x):
    """The output and all gradients of one pass."""
    out = module(x)
    while isinstance(out, tuple):
        out = out[0]
    for parameter in module.parameters():
        parameter.grad = None
    (out * out).sum().backward()
    return [out.value, *(parameter.grad.value for parameter in module.parameters())]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODULES)
def test_modules_are_copied(name, way):
    """A copy of any module computes and learns the same, dropout's draws included, and a deep one shares no parameter."""
    make, x = MODULES[name]
    module = make()
    module(x)  # it has been used: dropout has drawn
    twin = WAYS[way](module)
    assert type(twin) is type(module)
    pairs = list(zip(module.parameters(), twin.parameters(), strict=True))
    assert all((a is b) == (way == "copy") for a, b in pairs)
    if way == "copy":
        module.eval()  # a shallow copy shares its source of random numbers as well
    for found, expected in zip(trained(twin, x), trained(module, x), strict=True):
        np.testing.assert_array_equal(found, expected)
