"""What is said when an operation is asked for what it cannot do, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ArgumentError, DtypeError, GraphError, IndexingError, ShapeError, TinygradError, UnsupportedError
from tinygrad_rnn.primitive import primitive


def x(*shape: int) -> Any:
    return tg.tensor(np.ones(shape), requires_grad=True)


SAID: list[tuple[Callable[[], Any], type[TinygradError], str]] = [
    (lambda: tg.matmul(x(2), x()), ShapeError, "matmul: operands of shape (2,) and (); a scalar cannot take part. Use *"),
    (lambda: tg.norm(x(2), ord="nuc"), ArgumentError, "norm: ord 'nuc' is not supported; expected None, 'fro', a positive number or ±inf"),
    (
        lambda: tg.norm(x(2, 2), ord=2, axis=(0, 1)),
        ArgumentError,
        "norm: ord 2 over the axes (0, 1) would be a matrix norm, which needs singular values; name one axis, or ravel first",
    ),
    (lambda: tg.norm(x(2), ord=-1), ArgumentError, "norm: ord -1 is negative; expected a positive number"),
    (lambda: tg.max(x(2, 0), axis=1), ShapeError, "max: shape (2, 0) has no entries along axis 1; max of nothing is undefined"),
    (lambda: tg.sum(x(2, 2), axis=(0, 0)), ShapeError, "sum: axis (0, 0) names an axis twice"),
    (
        lambda: tg.reshape(x(2, 3), (4,)),
        ShapeError,
        "reshape: 6 entries of shape (2, 3) do not fill (4,). Check the lengths, or use one −1",
    ),
    (lambda: tg.squeeze(x(2, 3), 0), ShapeError, "squeeze: axis 0 has length 2; only axes of length 1 can be dropped"),
    (lambda: tg.repeat(x(3), [1, 2], 0), ShapeError, "repeat: 2 counts for axis 0 of length 3; expected one, or one each"),
    (lambda: tg.reshape(x(2), (1.5,)), ArgumentError, "reshape: expected whole numbers for the shape, got (1.5,)"),
    (
        lambda: tg.concatenate([x(2, 2), x(2, 3)]),
        ShapeError,
        "concatenate: operand 1 has shape (2, 3); expected that of operand 0, (2, 2), up to axis 0",
    ),
    (lambda: tg.stack([x(2), x(3)]), ShapeError, "stack: operand 1 has shape (3,); expected that of operand 0, (2,)"),
    (lambda: tg.split(x(3), 2), ShapeError, "split: an axis of length 3 does not divide into 2 equal sections"),
    (lambda: tg.pad(x(0), 1, mode="edge"), ShapeError, "pad: shape (0,) has no entries to repeat; use mode='constant'"),
    (lambda: tg.pad(x(2), 1, constant_values=1j), DtypeError, "pad: expected real constant_values, got dtype complex128"),
    (lambda: x(2).item(), ShapeError, "item: expected one entry, got shape (2,). Reduce it first, or use .value"),
    (
        lambda: x(2)[tg.tensor([0.5])],
        IndexingError,
        "index: an index array has dtype float64; expected integers or booleans. Use .astype(int)",
    ),
    (lambda: [1, 2][tg.tensor(0.5)], DtypeError, "index: only an integer Tensor can be an index, got dtype float64"),
    (lambda: tg.cross_entropy(x(2, 3), np.ones(2)), ArgumentError, "cross_entropy: expected integer targets, got dtype float64"),
    (
        lambda: nn.LSTM(2, 2, bias=False, forget_bias=2.0),
        ArgumentError,
        "LSTM: forget_bias=2.0 needs biases; leave it out, or set bias=True",
    ),
    (
        lambda: primitive(lambda a: a, name="tanh"),
        ArgumentError,
        "primitive: the name 'tanh' is taken; choose another, or delete PRIMITIVES['tanh'] first",
    ),
    (lambda: np.add.reduceat(x(3), [0]), UnsupportedError, "np.add.reduceat: not differentiable here. Call np.add itself, or use .value"),
    (lambda: np.arcsin(x(2)), UnsupportedError, "np.arcsin: no derivative is defined for it here. Use .value for plain numbers"),
    (
        lambda: np.add(x(2), x(2), casting="no"),
        UnsupportedError,
        "np.add: keywords ['casting'] are not supported for Tensors; use .astype or tg.where",
    ),
    (
        lambda: np.linalg.svd(x(2, 2)),
        UnsupportedError,
        "np.svd: not differentiable here. Use .value for plain numbers, or compose it from operations of tg",
    ),
    (lambda: tg.cross_entropy(x(2, 3), [0]), ShapeError, "cross_entropy: logits (2, 3) need targets of shape (2,), got (1,)"),
    (
        lambda: np.clip(x(2), 0.0, 1.0, dtype=float),
        ArgumentError,
        "np.clip: on a Tensor, clip() got an unexpected keyword argument 'dtype'",
    ),
    (
        lambda: tg.einsum(x(2), x(2)),
        ArgumentError,
        "einsum: expected the subscripts as a string such as 'ij,jk->ik', got Tensor",
    ),
    (lambda: tg.einsum("ij->i", x(2)), ArgumentError, "einsum: operand 0 has 1 dimensions; 'ij' names 2"),
    (lambda: tg.where(np.array([1j, 0]), x(2), 0.0), DtypeError, "where: expected a boolean condition, got dtype complex128"),
    (lambda: tg.roll(x(2, 2), (1, 1, 1), (0, 1)), ArgumentError, "roll: 3 shifts for 2 axes"),
    (lambda: tg.repeat(x(2), -1), ArgumentError, "repeat: expected counts of 0 or more, got -1"),
    (lambda: tg.tile(x(2), (2, -1)), ArgumentError, "tile: expected repetitions of 0 or more, got (2, -1)"),
    (lambda: tg.concatenate([x(), x()]), ShapeError, "concatenate: zero-dimensional arrays cannot be joined; use stack"),
    (
        lambda: tg.pad(x(2), 1, mode="mean"),
        ArgumentError,
        "pad: mode 'mean' is not differentiable here; expected constant, edge, reflect, symmetric or wrap",
    ),
    (lambda: tg.pad(x(2), -1), ArgumentError, "pad: expected widths of 0 or more, got -1; cut with an index instead"),
    (
        lambda: tg.pad(x(2), 1, constant_values=[1.0, 2.0, 3.0]),
        ShapeError,
        "pad: constant_values of shape (3,) do not fit; expected a number, a pair, or a pair per axis",
    ),
    (
        lambda: x(2).__setitem__(0, 1.0),
        UnsupportedError,
        "setitem: Tensors are not written to. Use tg.where(mask, new, old), or tg.concatenate of the parts",
    ),
    (
        lambda: copy.deepcopy(tg.trace((x(2) * 2.0).sum()).steps[0]),
        GraphError,
        "copy: a trace and its steps belong to their graph and can be neither copied nor pickled; hand on results, or .to_dict()",
    ),
    (lambda: tg.roll(x(2, 2), (1, 1)), ArgumentError, "roll: shift (1, 1) needs an axis for each of its entries"),
    (
        lambda: setattr(x(2), "grad", tg.tensor(np.ones(3))),
        ShapeError,
        "grad: expected shape (2,), that of the leaf, got (3,)",
    ),
    (lambda: tg.grad(3.0, [x(2)]), GraphError, "grad: expected a Tensor, got float"),
    (
        lambda: tg.landmark(x(2), "m", "memory"),
        ArgumentError,
        "landmark: role must be 'hidden', 'cell', 'gate' or None, got 'memory'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), SAID, ids=[message.split(":")[0] for _, _, message in SAID])
def test_the_message(call: Callable[[], Any], kind: type[TinygradError], message: str) -> None:
    """The very words."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_a_name_that_is_not_there() -> None:
    """An attribute error of the package names it."""
    with pytest.raises(AttributeError, match=r"module 'tinygrad_rnn' has no attribute 'tan'"):
        tg.tan  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute 'gradchek'"):
        tg.testing.gradchek  # noqa: B018
