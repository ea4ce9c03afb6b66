"""What the testing kit says to those who give it what it cannot test, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import Row, word_for_word

from tinygrad_rnn import nn
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.linear_maps import Scale
from tinygrad_rnn.primitive import PRIMITIVES, primitive
from tinygrad_rnn.testing import GradcheckError, check_backward, gradcheck, laws, strategies


def x(*shape: int) -> Any:
    return np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape)


def drawn(strategy: st.SearchStrategy[Any]) -> Callable[[], Any]:
    """Draw one example."""

    @settings(max_examples=1, database=None)
    @given(strategy)
    def draw(_: Any) -> None:
        pass

    return draw


SAID: list[Row] = [
    (
        lambda: laws.check(3, x(2)),
        ArgumentError,
        "laws: expected a function, a primitive, a cell or a layer, got int",
    ),
    (
        lambda: laws.check("tanh", x(2)),
        ArgumentError,
        "laws: expected a function, a primitive, a cell or a layer, got str",
    ),
    (
        lambda: laws.complex_step(np.abs, x(2)),
        ArgumentError,
        "complex_step: absolute is not holomorphic in operand 0, or takes no complex arrays. Write it with "
        "NumPy's functions, or use gradcheck",
    ),
    (
        lambda: laws.kernel_equals_definition(np.tanh, x(2)),
        ArgumentError,
        "kernel_equals_definition: tanh records no opaque node; there is nothing closed to compare",
    ),
    (
        lambda: laws.batch_additivity(lambda a, b: a + b, x(2, 3), x(3, 3)),
        ArgumentError,
        "batch_additivity: expected one size of batch along axes=None, got [2, 3]. Say where the batch lies",
    ),
    (
        lambda: laws.batch_additivity(lambda a, b: a + b, x(2, 3), x(2, 3), axes=(0,)),
        ArgumentError,
        "batch_additivity: axes needs one entry for each of 2 operands, got 1",
    ),
    (
        lambda: laws.batch_additivity(lambda a: a.sum(), x(2, 3)),
        ArgumentError,
        "batch_additivity: result 0 of shape () has no axis with the batch of 2",
    ),
    (
        lambda: laws.time_shift(nn.RNN(2, 2, bidirectional=True, rng=0), x(3, 1, 2)),
        ArgumentError,
        "time_shift: expected a layer that runs forward in time; a bidirectional one reads the whole sequence at every step",
    ),
    (
        lambda: laws.time_shift(nn.RNN(2, 2, rng=0), x(3, 1, 2), by=7),
        ArgumentError,
        "time_shift: expected by from 1 to 2, the steps but one, got 7",
    ),
    (
        lambda: laws.determinism(lambda a: 3, x(2)),
        ArgumentError,
        "laws: expected a subject that returns Tensors, got int. NumPy's functions and ours give Tensors where they are given some",
    ),
    (
        lambda: laws.determinism(lambda a: (), x(2)),
        ArgumentError,
        "laws: expected a subject that returns a Tensor, got nothing",
    ),
    (
        lambda: laws.determinism(np.tanh, x(2) * 1j),
        ArgumentError,
        "tanh: expected operands of real numbers, got complex ones. Pass their parts, x.real and x.imag",
    ),
    (
        lambda: check_backward(lambda a: (a, None), lambda g, c: g, x(2), points=1),
        ArgumentError,
        "check_backward: expected at least 2 points, got 1; at one, many mistakes give the same numbers",
    ),
    (
        lambda: check_backward(3, lambda g, c: g, x(2)),
        ArgumentError,
        "check_backward: expected two functions, forward is int. Give forward, backward, then inputs",
    ),
    (
        lambda: check_backward(lambda a: (a, None), lambda g, c: g),
        ArgumentError,
        "check_backward: expected arrays of floating-point numbers after the two functions, got none",
    ),
    (
        lambda: check_backward(lambda a: (a,), lambda g, c: g, x(2)),
        ArgumentError,
        "check_backward: expected forward to return its results and, last, a cache; got a tuple of one",
    ),
    (
        lambda: check_backward(lambda a: (a, None), lambda g, c: (g, g), x(2)),
        ArgumentError,
        "check_backward: expected 1 gradients from the backward function, da, got 2. Return them in the "
        "order of the forward function's arguments",
    ),
    (
        lambda: laws.kinds(np.tanh, x(2)),
        ArgumentError,
        "kinds: expected a primitive with a rule, got ufunc. This law is about the maps of a rule",
    ),
    (
        lambda: laws.complex_step(PRIMITIVES["softplus"], x(2)),
        ArgumentError,
        "complex_step: the forward function of softplus takes no complex arrays. Use gradcheck",
    ),
    (
        lambda: check_backward(lambda a: (["a"], a), lambda d, cache: d, x(2)),
        ArgumentError,
        "check_backward: expected numbers for result 0 of forward, got list. Return one array for each result, and the cache last",
    ),
    (
        lambda: check_backward(lambda a: (a * np.inf, a), lambda d, cache: d, x(2)),
        ArgumentError,
        "check_backward: expected numbers from forward, got inf at (0,) of result 0. Begin elsewhere",
    ),
    (
        lambda: check_backward(lambda a: (a * np.random.default_rng().normal(), a), lambda d, cache: d, x(2)),
        ArgumentError,
        "check_backward: expected the same result 0 when forward is called again, got another. Seed its random numbers",
    ),
    (
        lambda: check_backward(lambda a: (a * 2.0, a), lambda d, cache: {"b": d}, x(2)),
        ArgumentError,
        "check_backward: expected gradients with the names da, got b. Call each d and the name of the forward function's argument",
    ),
    (lambda: gradcheck(np.tanh, x(2), rtol=-1), ArgumentError, "gradcheck: expected rtol to be a number of at least 0, got -1"),
    (lambda: laws.adjoint(np.tanh, x(2), rtol="a"), ArgumentError, "adjoint: expected rtol to be a number of at least 0, got 'a'"),
    (lambda: laws.purity(np.tanh, x(2), seed=0.5), ArgumentError, "purity: expected seed to be a whole number of at least 0, got 0.5"),
    (
        lambda: laws.time_shift(nn.Linear(2, 2), x(3, 2)),
        ArgumentError,
        "time_shift: expected a layer, outputs, state = layer(x, state), got Linear; see laws.unroll for cells",
    ),
    (
        lambda: laws.truncation(lambda a: a, x(3, 2)),
        ArgumentError,
        "truncation: expected a layer, outputs, state = layer(x, state), got <lambda>; see laws.unroll for cells",
    ),
    (
        drawn(strategies.cells(kinds=("elman",))),
        ArgumentError,
        "cells: expected some of the kinds rnn, lstm, gru, rnn-relu, gru-before, got ('elman',)",
    ),
    (
        drawn(strategies.layers(kinds="lstm")),
        ArgumentError,
        "layers: expected some of the kinds rnn, lstm, gru, rnn-relu, gru-before, got 'lstm'",
    ),
    (drawn(strategies.layers(steps=0)), ArgumentError, "layers: expected steps to be a whole number of at least 1, got 0"),
    (drawn(strategies.sequences(batch=0.5)), ArgumentError, "sequences: expected batch to be a whole number of at least 1, got 0.5"),
    (drawn(strategies.programs(most=0)), ArgumentError, "programs: expected most to be a whole number of at least 1, got 0"),
    (drawn(strategies.programs(operations=())), ArgumentError, "programs: expected at least one operation to choose from, got none"),
    (lambda: strategies.index_expressions(3), ArgumentError, "index_expressions: expected a shape such as (3, 2), got 3"),
]


test_the_message = word_for_word(SAID)


def writing(a: Any) -> Any:
    inside = a.value
    inside.flags.writeable = True
    inside += 1.0
    return a * 2.0


def setting(a: Any) -> Any:
    a.grad = np.ones(a.shape)
    return a * 2.0


def writing_to_arrays(a: Any) -> Any:
    if isinstance(a, np.ndarray):
        a += 1.0
    return a * 2.0


def of_another_shape() -> None:
    made = primitive(np.multiply, name="planted")
    made.defrule(lambda out, a, b: (Scale(b), Scale(a)))
    try:
        gradcheck(made, x(2, 3), x(3))
    finally:
        del PRIMITIVES["planted"]


BROKEN: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: gradcheck(lambda a: a.astype(np.float32), x(2)),
        "gradcheck: expected a function that returns one float64 Tensor, got a Tensor of float32. Use float64 inside it as well",
    ),
    (
        lambda: gradcheck(lambda a: a * np.random.default_rng().normal(), x(2)),
        "gradcheck: expected the same value when the function is called again, got another one. Call eval(), or make the random generator "
        "inside of the function",
    ),
    (
        lambda: gradcheck(lambda a: np.sqrt(np.abs(a)), np.zeros(1)),
        "gradcheck: operand 0, entry (0,), to output entry (0,): expected 0 by central differences, got nan by reverse mode. Move the "
        "inputs away from kinks and poles",
    ),
    (
        of_another_shape,
        "gradcheck: operand 1: expected a gradient of shape (3,), that of the operand, got (2, 3). Check what the pullback does with "
        "broadcast axes",
    ),
    (lambda: laws.purity(writing, x(2)), "writing: operand 0: expected its value as it was, got one written to"),
    (lambda: laws.purity(setting, x(2)), "setting: operand 0: expected its .grad as it was, got one that was set"),
    (
        lambda: laws.purity(writing_to_arrays, x(2)),
        "writing_to_arrays: input 0: expected the array as it was, got one written to. Work on a copy",
    ),
]


@pytest.mark.parametrize(("call", "message"), BROKEN, ids=[message.split(":")[0] for _, message in BROKEN])
def test_what_a_broken_law_says(call: Callable[[], Any], message: str) -> None:
    """Before it prints what breaks it."""
    with pytest.raises(GradcheckError) as caught:
        call()
    assert caught.value.message == message
