"""What is said when an operation is asked for what it cannot do, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from messages import Row, said, word_for_word

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import (
    AnomalyError,
    ArgumentError,
    DtypeError,
    GraphError,
    HookError,
    IndexingError,
    ShapeError,
    UnsupportedError,
)
from tinygrad_rnn.linear_maps import Identity, Scale
from tinygrad_rnn.primitive import PRIMITIVES, Opaque, Primitive, primitive
from tinygrad_rnn.tensor import apply_opaque


def x(*shape: int) -> Any:
    return tg.tensor(np.ones(shape), requires_grad=True)


SAID: list[Row] = [
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
    (
        lambda: tg.matmul(x(2, 3), x(4, 3)),
        ShapeError,
        "matmul: operand 1 has shape (4, 3); expected 3 rows to follow operand 0 of shape (2, 3). Did you mean to transpose operand 1?",
    ),
    (
        lambda: tg.matmul(x(2, 3), x(4, 5)),
        ShapeError,
        "matmul: operand 1 has shape (4, 5); expected 3 rows to follow operand 0 of shape (2, 3). Check which axis is shared",
    ),
    (
        lambda: tg.matmul(x(2, 2, 3), x(4, 3, 2)),
        ShapeError,
        "matmul: stacks (2,) and (4,) of operands (2, 2, 3) and (4, 3, 2) do not broadcast; counted from the "
        "right, lengths must be equal or 1. Reshape one of them",
    ),
    (
        lambda: tg.einsum("ij,jk->ik", x(2, 3), x(4, 5)),
        ShapeError,
        "einsum: index 'j' of operand 1 has length 4; expected 3",
    ),
    (
        lambda: tg.einsum("ij,jk->ik", x(2, 3)),
        ArgumentError,
        "einsum: 'ij,jk->ik' describes 2 operands, got 1. Give one for each part between the commas",
    ),
    (
        lambda: tg.einsum("i!->i", x(2)),
        ArgumentError,
        "einsum: 'i!' is not a list of letters (and one '...')",
    ),
    (
        lambda: tg.einsum("ij->ijj", x(2, 3)),
        ArgumentError,
        "einsum: the result of 'ij->ijj' repeats an index or names one that no operand has",
    ),
    (
        lambda: tg.where(np.ones(3, bool), x(2), x(4)),
        ShapeError,
        "where: condition (3,), x (2,) and y (4,) do not broadcast; counted from the right, lengths must be "
        "equal or 1. Reshape one of them",
    ),
    (
        lambda: tg.add([[1.0], [1.0, 2.0]], x(2)),
        ShapeError,
        "add: the data is ragged or not rectangular (setting an array element with a sequence. The requested "
        "array has an inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous "
        "part.). Pad it to one shape first",
    ),
    (
        lambda: tg.add(x(2), "a"),
        DtypeError,
        "add: expected real numbers, got dtype <U1. Encode text as numbers first",
    ),
    (
        lambda: tg.transpose(x(2, 3), (0,)),
        ShapeError,
        "transpose: axes (0,) must name each of the 2 dimensions once",
    ),
    (
        lambda: np.moveaxis(x(2, 3), (0, 1), (0,)),
        ShapeError,
        "moveaxis: 2 sources and 1 destinations; expected as many of both",
    ),
    (
        lambda: tg.broadcast_to(x(2), (3, 3)),
        ShapeError,
        "broadcast_to: shape (2,) cannot be broadcast to (3, 3); axes must match or have length 1",
    ),
    (
        lambda: x(2)[5],
        IndexingError,
        "index: index 5 is out of bounds for axis 0 with size 2, for an operand of shape (2,)",
    ),
    (
        lambda: x(2)[0, 0],
        IndexingError,
        "index: too many indices for array: array is 1-dimensional, but 2 were indexed, for an operand of shape (2,)",
    ),
    (
        lambda: tg.diagonal(x(2)),
        ShapeError,
        "diagonal: expected at least 2 dimensions, got shape (2,)",
    ),
    (
        lambda: tg.concatenate([]),
        ArgumentError,
        "concatenate: expected at least one array, got none",
    ),
    (
        lambda: tg.stack([]),
        ArgumentError,
        "stack: expected at least one array, got none",
    ),
    (
        lambda: tg.pad(x(2, 2), [1, 2, 3]),
        ShapeError,
        "pad: pad_width [1, 2, 3] does not fit shape (2, 2); expected a number, a pair, or a pair per axis",
    ),
    (
        lambda: tg.add(x(2), x(3)),
        ShapeError,
        "add: shapes (2,) and (3,) do not broadcast; counted from the right, lengths must be equal or 1. Reshape one of them",
    ),
    (
        lambda: tg.cross_entropy(x(0, 3), np.zeros(0, int)),
        ArgumentError,
        "cross_entropy: there are no targets; a mean of nothing is not a number. Use reduction='sum', which gives 0",
    ),
    (
        lambda: tg.cross_entropy(x(2, 3), [7, 7], ignore_index=7),
        ArgumentError,
        "cross_entropy: all 2 targets are 7 and ignored; a mean of nothing is not a number. Leave this batch "
        "out, or use reduction='sum', which gives 0",
    ),
    (
        lambda: tg.mse(x(2), x(3)),
        ShapeError,
        "mse: prediction (2,) and target (3,) differ in shape; reshape one of them",
    ),
    (
        lambda: tg.bce_with_logits(x(2), x(3)),
        ShapeError,
        "bce_with_logits: logits (2,) and targets (3,) differ in shape; reshape one of them",
    ),
    (
        lambda: np.tensordot(x(2, 3), x(4, 5), (1, 0)),
        ShapeError,
        "tensordot: axes (1,) of operand 0, shape (2, 3), do not fit axes (0,) of operand 1, shape (4, 5); "
        "expected as many of the same lengths",
    ),
    (
        lambda: np.average(x(2, 3), weights=[1.0, 2.0]),
        ShapeError,
        "average: weights of shape (2,) do not fit shape (2, 3) along axis None; expected that shape, or the length of the one axis",
    ),
    (
        lambda: np.take_along_axis(x(2, 3), np.zeros(2, int), 1),
        ShapeError,
        "take_along_axis: indices of shape (2,) need the 2 dimensions of shape (2, 3)",
    ),
    (
        lambda: np.add(x(2), 1.0, out=np.ones(2)),
        UnsupportedError,
        "np.add: out= (or an in-place operator) would overwrite a value that the graph needs; use the returned Tensor, a = a + b",
    ),
    (
        lambda: np.add(x(2), 1.0, where=np.ones(2, bool)),
        UnsupportedError,
        "np.add: where= is not supported on a Tensor; choose with tg.where(mask, x, y) instead",
    ),
    (
        lambda: tg.tensor([[1.0], [1.0, 2.0]]),
        ShapeError,
        "tensor: the data is ragged or not rectangular (setting an array element with a sequence. The "
        "requested array has an inhomogeneous shape after 1 dimensions. The detected shape was (2,) + "
        "inhomogeneous part.). Pad it to one shape first",
    ),
    (
        lambda: tg.tensor([1j]),
        DtypeError,
        "tensor: expected real numbers, got dtype complex128. Take .real and .imag apart",
    ),
    (
        lambda: tg.tensor(["a"]),
        DtypeError,
        "tensor: expected real numbers, got dtype <U1. Encode text as numbers first",
    ),
    (
        lambda: tg.tensor([None]),
        DtypeError,
        "tensor: expected real numbers, got dtype object. Convert it with .astype(float)",
    ),
    (
        lambda: tg.tensor(np.array(["2001-01-01"], "datetime64[D]")),
        DtypeError,
        "tensor: expected real numbers, got dtype datetime64[D]. Convert it to float64",
    ),
    (
        lambda: setattr(x(2) * 2.0, "value", np.ones(2)),
        GraphError,
        "value: only a leaf can be rebound; this Tensor was computed. Make a new one with .detach()",
    ),
    (
        lambda: setattr(x(2), "value", np.ones(3)),
        ShapeError,
        "value: the leaf has shape (2,), got (3,). Make a new tensor for another shape",
    ),
    (
        lambda: setattr(x(2) * 2.0, "requires_grad", False),
        GraphError,
        "requires_grad: only a leaf can be switched; use .detach() to cut a computed Tensor off",
    ),
    (
        lambda: setattr(tg.tensor([1.0]), "grad", tg.tensor([1.0])),
        GraphError,
        "grad: only a leaf holds a gradient; make it with requires_grad=True",
    ),
    (
        lambda: tg.tensor([1.0]).register_hook(print),
        GraphError,
        "register_hook: this Tensor takes no part in a backward pass; it needs requires_grad=True",
    ),
    (
        lambda: x(2).register_hook(3),
        ArgumentError,
        "register_hook: expected a function of the cotangent, got int",
    ),
    (
        lambda: np.array(x(2)),
        UnsupportedError,
        "array: a Tensor that requires a gradient would lose it on the way to a NumPy array. Use .value "
        "(read-only) or .numpy() (a copy) if that is what you want, and np.stack to join a list of Tensors",
    ),
    (
        lambda: copy.deepcopy(x(2) * 2.0),
        GraphError,
        "copy: only a leaf can be deep-copied or pickled; this Tensor was computed. Use .detach() first",
    ),
    (
        lambda: len(x()),
        ShapeError,
        "len: a zero-dimensional Tensor has no length; .item() is its number",
    ),
    (
        lambda: iter(x()),
        ShapeError,
        "iter: a zero-dimensional Tensor cannot be iterated over; .item() is its number",
    ),
    (
        lambda: bool(x(2)),
        ShapeError,
        "bool: the truth of a Tensor of shape (2,) is ambiguous. Use .value.any() or .value.all()",
    ),
    (
        lambda: x(2) < np.ones(3),
        ShapeError,
        "lt: operands could not be broadcast together with shapes (2,) (3,) . Compare with numbers of a shape that broadcasts",
    ),
    (
        lambda: tg.tensor([1.0]).sum().backward(),
        GraphError,
        "backward: this Tensor has no graph; nothing it was computed from requires a gradient. Use "
        "requires_grad=True, and no no_grad() or detach() on the way",
    ),
    (
        lambda: x(2).backward(),
        GraphError,
        "backward: shape (2,) is not a scalar; give a cotangent of that shape, or reduce it first",
    ),
    (
        lambda: x(2).sum().backward(np.ones(2)),
        ShapeError,
        "backward: expected a cotangent of shape (), that of the output, got (2,)",
    ),
    (
        lambda: tg.grad(x(2).sum(), [tg.tensor([1.0])]),
        GraphError,
        "grad: input 0 does not require a gradient. Make it with requires_grad=True",
    ),
    (
        lambda: tg.grad(x(2).sum(), [x(2)]),
        GraphError,
        "grad: input 0 (without a name, shape (2,)) was not used to compute the outputs. Check the graph, or "
        "pass allow_unused=True for zeros",
    ),
    (
        lambda: tg.grad(x(2).sum(), [tg.tensor([1.0], requires_grad=True, name="w")]),
        GraphError,
        "grad: input 0 (w, shape (1,)) was not used to compute the outputs. Check the graph, or pass allow_unused=True for zeros",
    ),
    (
        lambda: tg.jacobian(lambda x: (x, x), x(2)),
        ArgumentError,
        "jacobian: the function must return one Tensor, got tuple. Stack or concatenate several",
    ),
    (
        lambda: tg.jvp(lambda x: x, [x(2)], []),
        ArgumentError,
        "jvp: 1 inputs need as many tangents, got 0",
    ),
    (
        lambda: tg.jvp(lambda x: x, [x(2)], [np.ones(3)]),
        ShapeError,
        "jvp: tangent 0 has shape (3,); expected (2,), that of its input",
    ),
    (
        lambda: copy.deepcopy((x(2) * 2.0).node),
        GraphError,
        "copy: a node belongs to its graph and can be neither copied nor pickled; use .detach(), or hand on arrays",
    ),
    (
        lambda: pickle.dumps(tg.trace(nn.RNN(1, 1, rng=0)(np.ones((2, 1, 1)))[0].sum()).root),
        GraphError,
        "copy: a trace and its steps belong to their graph and can be neither copied nor pickled; hand on results, or .to_dict()",
    ),
    (
        lambda: tg.vjp(lambda x: (x, x), x(2)),
        ArgumentError,
        "vjp: the function must return one Tensor, got tuple. Stack or concatenate several",
    ),
    (
        lambda: tg.jvp(lambda x: (x, x), x(2), np.ones(2)),
        ArgumentError,
        "jvp: the function must return one Tensor, got tuple. Stack or concatenate several",
    ),
    (
        lambda: tg.hessian(lambda x: (x, x), x(2)),
        ShapeError,
        "hessian: expected a function with one output entry, got tuple",
    ),
    (
        lambda: x(2) @ tg.tensor(["a"]),
        DtypeError,
        "tensor: expected real numbers, got dtype <U1. Encode text as numbers first",
    ),
    (
        lambda: np.take(x(2), ["a"]),
        DtypeError,
        "take: expected numbers, got dtype <U1. Convert them with .astype(float) first",
    ),
    (lambda: tg.cross_entropy(x(2, 3), [0, 3]), ArgumentError, "cross_entropy: targets go from 0 to 3; expected 0 to 2"),
    (
        lambda: tg.bce_with_logits(x(2), [0.0, 2.0]),
        ArgumentError,
        "bce_with_logits: targets go from 0.0 to 2.0; expected probabilities in [0, 1]",
    ),
    (lambda: tg.flip(x(2), 3), ShapeError, "flip: axis 3 does not exist; expected one in [-1, 1) for 1 dimensions"),
    (
        lambda: tg.checkpoint(lambda a: 3, x(2)),
        ArgumentError,
        "checkpoint: the function must return a Tensor or a tuple of Tensors; a part of it is int",
    ),
    (
        lambda: x().backward(observers=print),
        ArgumentError,
        "backward: observers must be a list of functions of a step, got <built-in function print>. Did you mean observers=[function]?",
    ),
    (
        lambda: x().backward(interventions=[3]),
        ArgumentError,
        "backward: interventions must be a list of functions of a step, got [3]. Did you mean interventions=[function]?",
    ),
]


test_the_message = word_for_word(SAID)


def test_a_name_that_is_not_there() -> None:
    """An attribute error of the package names it."""
    with pytest.raises(AttributeError, match=r"module 'tinygrad_rnn' has no attribute 'tan'"):
        tg.tan  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute 'gradchek'"):
        tg.testing.gradchek  # noqa: B018


def test_a_primitive_without_a_rule() -> None:
    """It runs forward, wherever its function comes from, and says what its backward pass lacks."""
    made: dict[str, Any] = {}
    exec("def forward(a): return a", {"__builtins__": __builtins__}, made)
    try:
        out = primitive(made["forward"], name="no_rule_yet")(x(2))
        with pytest.raises(ArgumentError) as caught:
            out.sum().backward()
        assert str(caught.value) == "no_rule_yet: this primitive has no rule. Give it one with @no_rule_yet.defrule"
    finally:
        PRIMITIVES.pop("no_rule_yet", None)


# -- what goes wrong on the way back ----------------------------------------------------------------------------------------------


def told(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The message, with N for the numbers of nodes, which count all that a process recorded."""
    return re.sub(r"#\d+", "#N", said(kind, call))


def failing(*_: Any) -> Any:
    raise ZeroDivisionError("by zero")


def hooked(hook: Callable[[Any], Any]) -> None:
    h = np.tanh(x(2))
    h.register_hook(hook)
    h.sum().backward()


def ruled(rule: Callable[..., Any]) -> None:
    mine = Primitive(np.negative, name="mine", elementwise=True)
    mine.defrule(rule)
    mine(x(2)).sum().backward()


def test_a_leaf_that_was_rebound_meanwhile() -> None:
    """It is named, with both remedies."""
    w = tg.tensor(np.ones(2), requires_grad=True, name="w")
    loss = (w * w).sum()
    w.value = np.zeros(2)
    assert told(GraphError, loss.backward) == (
        "backward: the leaf w of shape (2,) was given a new value after the forward pass had used it; its gradient would belong to "
        "neither. Run the forward pass again, or rebind after backward"
    )


def test_hooks_that_fail_or_do_not_fit() -> None:
    """The edge at which a hook was called is named, with what it raised or returned."""
    assert told(HookError, lambda: hooked(failing)) == "backward: a hook on <tanh (2,) #N> (tanh) raised ZeroDivisionError: by zero"
    assert told(HookError, lambda: hooked(lambda g: np.ones(3))) == (
        "backward: a hook on <tanh (2,) #N> returned shape (3,); expected (2,), that of what it replaces"
    )
    assert told(HookError, lambda: hooked(lambda g: g.value * 1j)) == (
        "backward: a hook on <tanh (2,) #N> returned dtype complex128; expected real numbers, as what it replaces"
    )


def test_rules_that_fail_or_do_not_fit() -> None:
    """A rule of one's own that raises, gives too many maps, or one that is not the operand's."""
    mine = Primitive(np.negative, name="mine", elementwise=True)
    mine.defrule(failing)
    assert told(HookError, lambda: tg.jvp(mine, np.ones(2), np.ones(2))) == (
        "jvp: differentiating <mine (2,) #N> (mine) raised ZeroDivisionError: by zero. Its rule is at fault"
    )
    assert told(HookError, lambda: ruled(failing)) == (
        "backward: differentiating <mine (2,) #N> (mine) raised ZeroDivisionError: by zero. Its rule, or the function that is run again "
        "there, is at fault"
    )
    assert told(GraphError, lambda: ruled(lambda out, a: (Identity(), Identity()))) == (
        "mine: its rule returned 2 maps for 1 operands; expected one each"
    )
    assert told(GraphError, lambda: ruled(lambda out, a: (Scale(np.ones((3, 2)), "⊙ wide"),))) == (
        "backward: the gradient of a leaf came out with shape (3, 2); the leaf has (2,). A primitive's rule or a hook is wrong: check it "
        "with testing.gradcheck"
    )


def test_what_is_computed_again_must_be_the_same() -> None:
    """A checkpoint that draws, or uses what is newer than itself, and a kernel whose share has another shape."""
    random = np.random.default_rng(0)
    assert told(GraphError, lambda: tg.checkpoint(lambda x: x * random.normal(), x(2)).sum().backward()) == (
        "checkpoint(<lambda>): computing again gave another value than the forward pass. The function must depend on nothing that changes; "
        "draw random numbers outside it and pass them in"
    )
    weights = [x(2)]
    out = tg.checkpoint(lambda x: x * weights[-1], x(2)).sum()
    weights.append(tg.tensor(np.ones(2), requires_grad=True, name="late"))
    assert told(GraphError, out.backward) == (
        "checkpoint(<lambda>): computing again used the leaf late of shape (2,), which did not exist in the forward pass. Pass what may "
        "change as an argument, and give weights new values after backward"
    )

    def share(cotangent: Any, value: Any, residual: Any, needed: Any, x: Any) -> Any:
        return (np.ones(3),)

    kernel = Opaque(lambda x: ((np.tanh(x), x), None), name="kernel", definition=lambda x: (np.tanh(x), x), joint_pullback=share)
    assert told(GraphError, apply_opaque(kernel, (x(2),), {})[0].sum().backward) == (
        "kernel: its joint pullback gave operand 0 a share of shape (3,); expected (2,), that of the operand"
    )
    assert told(UnsupportedError, lambda: pickle.dumps(kernel)) == (
        "kernel: an opaque primitive belongs to its graph and cannot be pickled; save values instead"
    )


def test_switches_of_what_stops_on_the_way() -> None:
    """A generator cannot be decorated, since it begins later than its call."""

    def steps() -> Any:
        yield 1

    assert told(ArgumentError, lambda: tg.no_grad()(steps)) == (
        "no_grad: test_switches_of_what_stops_on_the_way.<locals>.steps stops on the way, and the switch would be moved back before it has "
        "begun. Write `with tg.no_grad():` in it, around what is computed between two stops"
    )


def test_scopes_belong_to_their_graph() -> None:
    """Neither copied nor pickled."""
    place = tg.trace(nn.RNN(1, 1, rng=0)(np.ones((2, 1, 1)))[0].sum()).states()[1].place
    assert told(GraphError, lambda: copy.deepcopy(place)) == (
        "copy: a scope, and what lies in it, belongs to its graph and can be neither copied nor pickled; hand on arrays"
    )


def test_a_cotangent_that_a_hook_made_infinite() -> None:
    """Where every contribution was finite, the total is told, with the line that recorded it."""
    with tg.detect_anomaly():
        h = np.tanh(x(2))
        h.register_hook(lambda g: g.value * np.inf)
        line = f"{__file__}:{sys._getframe().f_lineno - 2}"
        assert told(AnomalyError, lambda: h.sum().backward()) == (
            "backward: the cotangent of <tanh (2,) #N> (tanh) is inf to inf, though every contribution was finite: a hook replaced it, "
            f"their sum overflowed, or it entered so. Recorded at {line}"
        )
