"""Leaves and constants can be copied and pickled; what was computed belongs to its graph and says so."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import GraphError

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
