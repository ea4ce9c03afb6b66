"""What the testing kit says to those who give it what it cannot test, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
from messages import Row, word_for_word

from tinygrad_rnn import nn
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.testing import check_backward, laws


def x(*shape: int) -> Any:
    return np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape)


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
]


test_the_message = word_for_word(SAID)
