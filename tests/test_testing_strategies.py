"""The strategies: what they draw is right, and a failing example shrinks to one that can be read."""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis.vendor.pretty import pretty

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import MissingError
from tinygrad_rnn.linear_maps import Scale
from tinygrad_rnn.primitive import PRIMITIVES
from tinygrad_rnn.testing import GradcheckError, gradcheck, laws, programs, strategies

MANY = settings(max_examples=2000, derandomize=True, database=None)


def breaks(law: Any, *arguments: Any, **statics: Any) -> bool:
    try:
        law(*arguments, **statics)
    except GradcheckError:
        return True
    return False


@pytest.mark.parametrize("name", ["sigmoid", "square", "negative"])
def test_a_fault_shrinks_to_one_statement(name: str) -> None:
    """With a wrong rule planted, the smallest program that gradcheck rejects is a single call of that primitive on one number."""
    with mock.patch.object(PRIMITIVES[name], "rule", lambda out, x: (Scale(0.9 * x),)):
        found = find(strategies.programs(), lambda program: breaks(gradcheck, program, *program.point), settings=MANY)
    assert found.operations == (name,)
    assert [array.size for array in found.point] == [1]
    assert len(str(found).splitlines()) == 4


def test_a_fault_of_sharing_shrinks_to_one_shared_value() -> None:
    """What only breaks where a value is used twice shrinks to two uses of one value."""

    def shares(program: programs.Program) -> bool:
        used = [name for statement in program.statements for name in statement.operands]
        return any(used.count(name) > 1 for name in used)

    found = find(strategies.programs(), shares, settings=MANY)
    assert len(found.statements) == 1 and len(found.inputs) == 1


def test_a_broadcast_shrinks_to_the_smallest() -> None:
    """Two inputs of different shapes, one statement."""

    def broadcasts(program: programs.Program) -> bool:
        return program.operations[-1] == "add" and len({array.shape for array in program.point}) > 1

    found = find(strategies.programs(), broadcasts, settings=MANY)
    assert found.operations == ("add",) and sorted(array.size for array in found.point)[0] == 1


def test_layers_shrink_to_the_plainest() -> None:
    """The smallest layer with lengths has one layer, one unit, no options, one step of one sequence, and prints as code."""
    found = find(strategies.layers(), lambda case: bool(case.statics), settings=MANY)
    assert found.code == "nn.RNN(1, 1, rng=0)"
    assert found.inputs[0].shape == (1, 1, 1) and len(found.inputs) == 1
    assert repr(found).startswith("nn.RNN(1, 1, rng=0)(np.array([[[") and repr(found).endswith("lengths=[0])")
    outputs, _ = eval(repr(found), {"nn": nn, "np": np})
    np.testing.assert_array_equal(outputs.value, found.module(*found.inputs, **found.statics)[0].value)


def test_arrays_are_short_to_read() -> None:
    """Numbers have two decimals, and in their domain there is no 0."""
    for domain in (strategies.real, strategies.positive, strategies.nonzero, strategies.spaced, strategies.between):
        numbers = domain(np.random.default_rng(0), (500,))
        np.testing.assert_array_equal(numbers, np.round(numbers, 2))
    assert (strategies.real(np.random.default_rng(1), (5000,)) != 0.0).all()
    assert set(strategies.at_kinks(np.random.default_rng(1), (100,))) == {-1.0, 0.0, 1.0}
    assert np.isfinite(strategies.extreme(np.random.default_rng(1), (100,))).all()


@given(strategies.arrays(), strategies.tensors())
def test_shapes_need_not_be_given(x: Any, y: tg.Tensor) -> None:
    """Without a shape any small one is drawn."""
    assert x.dtype == y.dtype == np.float64 and x.ndim <= 3 and y.ndim <= 3 and y.requires_grad


@given(strategies.tensors(strategies.shapes(), strategies.at_kinks, dtype=strategies.dtypes()))
def test_slopes_at_kinks_are_finite(x: Any) -> None:
    """At its kink every choice has a slope between its two sides, in both dtypes."""
    for function in (tg.relu, tg.absolute, lambda a: tg.maximum(a, 0.0), lambda a: tg.clip(a, -1.0, 1.0)):
        x.grad = None
        function(x).backward(np.ones(x.shape))
        assert x.grad.dtype == x.dtype
        assert (np.abs(x.grad.value) <= 1.0).all()


@given(strategies.cells(kinds=("rnn", "lstm", "gru", "gru-before")))
def test_cells_of_all_options_obey_the_laws(case: Any) -> None:
    """Whatever the options: first order, both modes, the sums of the ledger."""
    laws.adjoint(case.module, *case.inputs)
    laws.modes(case.module, *case.inputs)
    laws.itemised_sums(case.module, *case.inputs)
    if case.inputs[0].ndim == 2:
        laws.batch_additivity(case.module, *case.inputs)


@given(strategies.layers())
def test_layers_of_all_options_obey_the_laws(case: Any) -> None:
    """Whatever the options: closed is open, the sums of the ledger, purity, the same bits twice."""
    laws.kernel_equals_definition(case.module, *case.inputs, **case.statics)
    laws.itemised_sums(case.module, *case.inputs, **case.statics)
    laws.purity(case.module, *case.inputs, **case.statics)
    laws.determinism(case.module, *case.inputs, **case.statics)
    if case.inputs[0].ndim == 3:
        laws.batch_additivity(case.module, *case.inputs, **case.statics)
        if case.statics:
            laws.padding(case.module, *case.inputs, **case.statics, fill=np.nan)


@given(strategies.layers(one_way=True, lengths=False, num_layers=1))
def test_layers_obey_the_laws_of_time(case: Any) -> None:
    """Going on is the rest of the whole, cutting nowhere changes nothing, and the product of step Jacobians has one order."""
    steps = case.inputs[0].shape[1 if case.module.batch_first and case.inputs[0].ndim == 3 else 0]
    laws.truncation(case.module, *case.inputs)
    laws.step_jacobian_order(case.module, *case.inputs)
    for by in range(1, steps):
        laws.time_shift(case.module, *case.inputs, by=by)


def test_the_same_seed_gives_the_same_program() -> None:
    """A program of a series can be had again by its number."""
    assert str(programs.random_program(5)) == str(programs.random_program(5))
    third = list(programs.several(7, 4))[3]
    assert str(third) == str(programs.random_program(np.random.default_rng([7, 3])))


def test_another_implementation_can_run_a_program() -> None:
    """``run(using=…)`` calls what it is given, by name."""
    table = {"add": np.add, "multiply": np.multiply, "tanh": np.tanh, "exp": np.exp}
    program = find(strategies.programs(), lambda p: set(p.operations) <= set(table) and len(p.operations) > 1, settings=MANY)
    np.testing.assert_allclose(program.run(*program.point, using=table), program(*program.point))


def test_without_hypothesis_only_the_strategies_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the room works; naming the strategies says what to install."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "hypothesis":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "tinygrad_rnn.testing.strategies")
    monkeypatch.setattr(builtins, "__import__", without)
    gradcheck(np.tanh, [0.5])
    with pytest.raises(MissingError, match=r'pip install "tinygrad_rnn\[test\]"'):
        importlib.import_module("tinygrad_rnn.testing.strategies")


def test_examples_are_printed_as_code() -> None:
    """What Hypothesis shows of a failing example is the program, or the module with its call, and not the fields of a dataclass."""
    for strategy, code in ((strategies.programs(), "<program\nimport numpy as np"), (strategies.layers(), "nn.RNN(1, 1, rng=0)(np.array(")):
        found = find(strategy, lambda example: True)
        assert pretty(found).startswith(code)


@given(strategies.broadcastable(strategies.nonzero, strategies.extreme, strategies.real, strategies.positive))
def test_arrays_are_arrays(drawn: Any) -> None:
    """Of every domain, also without axes."""
    assert all(type(array) is np.ndarray and array.dtype == np.float64 for array in drawn)
