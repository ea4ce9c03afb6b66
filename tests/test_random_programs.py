"""Random programs: every way to differentiate one gives the same numbers, and the central differences'."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings

import tinygrad_rnn as tg
from tinygrad_rnn.primitive import Opaque
from tinygrad_rnn.tensor import apply
from tinygrad_rnn.testing import gradcheck, gradgradcheck, laws, strategies
from tinygrad_rnn.testing.programs import OPERATIONS, Operation, Program, Statement

FEW = settings(max_examples=max(settings().max_examples // 2, 10))

double_sine = Opaque(
    lambda x, y: ((np.sin(x), x * y), np.cos(x)),
    name="double_sine",
    definition=lambda x, y: (tg.sin(x), x * y),
    joint_pullback=lambda cotangent, value, residual, needed, x, y: (
        (0.0 if cotangent[0] is None else cotangent[0] * residual) + (0.0 if cotangent[1] is None else cotangent[1] * y),
        None if cotangent[1] is None else cotangent[1] * x,
    ),
)


def equal(x: Any, y: Any) -> bool:
    """Whether two operands have one shape: the opaque primitive above broadcasts nothing."""
    return x.shape == y.shape


NESTED = (
    Operation("checkpoint", lambda x: tg.checkpoint(lambda a: tg.sin(a) * a, tg.tensor(x) if isinstance(x, np.ndarray) else x)),
    Operation("checkpoint2", lambda x, y: tg.checkpoint(lambda a, b: (tg.exp(-(a * a)), b * b), x, y)[1], 2),
    Operation("opaque0", lambda x, y: apply(double_sine, (x, y))[0] * 1.0, 2, safe=equal),
    Operation("opaque1", lambda x, y: apply(double_sine, (x, y))[1] * 0.5, 2, safe=equal),
    Operation("jvp", lambda x: tg.jvp(tg.sin, x, tg.tanh(x))[1]),
    Operation("vjp", lambda x: tg.vjp(tg.tanh, x)[1](tg.sin(x))[0]),
    Operation("half", lambda x: 0.5 - x),
    Operation("over", lambda x: 2 / (x * x + 1)),
)
"""Transforms inside of programs."""

programs = strategies.programs()
nested = strategies.programs(operations=(*OPERATIONS[:8], *NESTED), most=12)


def test_a_tilted_program_has_no_derivative_of_0() -> None:
    """Where the program's own gradient cancels, that of the tilt is a number, also where the inputs add up to −½."""
    steps = (Statement("v0", Operation("softmax", tg.softmax), ("a",), {"axis": 0}), Statement("v1", Operation("sum", tg.sum), ("v0",)))
    program = Program({"a": np.array([-0.95, -0.81, 1.26])}, steps)
    assert sum(program.inputs["a"]) == -0.5
    np.testing.assert_allclose(tg.vjp(program.tilted, *program.point)[1](1.0)[0].value, 0.1 * (np.sqrt(2.0) - 1.0), rtol=1e-12)
    laws.linearity(program.tilted, *program.point)


@given(nested | programs)
def test_all_ways_agree(program: Program) -> None:
    """Backward, observed, recorded, by grad, by vjp, by jvp, inside a checkpoint: the same gradient."""
    laws.modes(program.tilted, *program.point)


@given(nested | programs)
def test_the_gradient_is_the_difference_quotient(program: Program) -> None:
    """In every entry, in reverse mode and in forward mode."""
    gradcheck(program.tilted, *program.point)


@FEW
@given(nested | programs)
def test_all_second_derivatives_agree(program: Program) -> None:
    """uᵀ H v by all four combinations of modes, and the differences of the gradient."""
    laws.second_modes(program.tilted, *program.point)
    gradgradcheck(program.tilted, *program.point)


@given(programs)
def test_a_program_obeys_the_laws_of_any_function(program: Program) -> None:
    """The ledger adds up, nothing is written to, and the same call gives the same bits."""
    laws.itemised_sums(program.tilted, *program.point)
    laws.linearity(program.tilted, *program.point)
    laws.purity(program, *program.point)
    laws.determinism(program, *program.point)
    laws.precision(program, *program.point)


@given(programs)
def test_a_listing_computes_what_the_program_does(program: Program) -> None:
    """What is printed runs, and gives the value and the gradients."""
    names: dict[str, Any] = {}
    exec(str(program), names)
    leaves = [tg.tensor(x, requires_grad=True) for x in program.point]
    out = program(*leaves)
    np.testing.assert_array_equal(names["out"].value, out.value)
    weight = np.arange(1.0, out.size + 1.0).reshape(out.shape)
    ours = tg.grad(out, leaves, weight)
    theirs = tg.grad(names["out"], [names[name] for name in program.inputs], weight)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
