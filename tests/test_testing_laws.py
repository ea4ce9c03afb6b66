"""The laws of functions, cells and layers: what is right passes, each law catches its fault, and says how to see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.linear_maps import LinearMap, Scale
from tinygrad_rnn.nn import kernels
from tinygrad_rnn.primitive import PRIMITIVES, Primitive, primitive
from tinygrad_rnn.testing import GradcheckError, gradcheck, laws

X = np.array([[0.5, -1.0, 0.3], [0.2, 0.7, -0.4]])
SEQUENCE = np.random.default_rng(0).normal(size=(4, 3, 2))
LENGTH = 2.0


@contextmanager
def planted(rule: Callable[..., Any], forward: Callable[..., Any] = lambda x: x * x * x) -> Iterator[Primitive]:
    made = primitive(forward, name="planted")
    made.defrule(rule)
    try:
        yield made
    finally:
        del PRIMITIVES["planted"]


class Plain(LinearMap):
    """A map out of two functions."""

    __slots__ = ("pull", "push")
    kind = "scale"

    def __init__(self, pull: Any, push: Any) -> None:
        self.pull, self.push, self.label = pull, push, "⊙"

    def pullback(self, cotangent: Any) -> Any:
        return self.pull(cotangent)

    def pushforward(self, tangent: Any) -> Any:
        return self.push(tangent)


class Decay(nn.Module):
    """A cell of one's own, with a bare Tensor for a state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter([[0.3, -0.2], [0.1, 0.4]])

    def forward(self, x: Any, state: Any = None) -> Any:
        return 0.9 * (0.0 if state is None else state) + np.tanh(x @ self.weight)


class Tied(nn.Module):
    """Parameters in a list, one of them held twice."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Parameter([[0.5, -1.0]])
        self.parts = [first, nn.Parameter([[0.2, 0.1]])]
        self.again = {"tied": first}

    def forward(self, x: Any) -> Any:
        return {"out": x * self.parts[0] + self.parts[1], "more": (np.tanh(x * self.again["tied"]),)}


# -- what is right ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "inputs", "statics"),
    [
        (lambda x, y: np.tanh(x) @ y, (X, X.T), {}),
        (lambda x: (x[0], np.exp(x)), (X,), {}),
        (tg.softmax, (X,), {"axis": 0}),
        (Decay(), (X[:, :2],), {}),
        (Tied(), (X[:, :2],), {}),
        (nn.Linear(2, 3, rng=0), (X[:, :2],), {}),
        (nn.LSTMCell(2, 3, rng=0), (X[:, :2], (np.ones((2, 3)), np.zeros((2, 3)))), {}),
        (nn.GRU(2, 1, bidirectional=True, rng=0), (SEQUENCE[:3],), {"lengths": [3, 2, 0]}),
        (nn.LSTM(2, 2, batch_first=True, rng=0), (SEQUENCE[:3, :2].swapaxes(0, 1).copy(),), {}),
        (laws.unroll(Decay()), (SEQUENCE,), {}),
    ],
    ids=["function", "tuple", "composite", "own cell", "tied", "linear", "LSTMCell", "GRU", "LSTM", "own cell unrolled"],
)
def test_what_is_right_obeys_every_law(subject: Any, inputs: Any, statics: Any) -> None:
    """Functions, functions with several results, cells and layers of ours and of one's own."""
    laws.check(subject, *inputs, second=not isinstance(subject, (nn.GRU, nn.LSTM)), **statics)


@pytest.mark.parametrize(
    "cell", [nn.RNNCell(2, 3, rng=1), nn.LSTMCell(2, 3, rng=1), nn.GRUCell(2, 3, rng=1)], ids=lambda c: type(c).__name__
)
def test_cells_obey_the_laws_of_time(cell: Any) -> None:
    """A cell is unrolled by itself."""
    laws.time_shift(cell, SEQUENCE, by=2)
    laws.truncation(cell, SEQUENCE)
    laws.step_jacobian_order(cell, SEQUENCE[:, :2])


def test_whole_numbers_given_to_a_module_are_no_operands() -> None:
    """Tokens are looked up, and not differentiated."""
    laws.modes(nn.Embedding(5, 2, rng=0), np.array([[0, 4], [4, 1]]))
    gradcheck(nn.Embedding(5, 2, rng=0), np.array([0, 4, 4]))


def test_a_checked_module_is_as_it_was() -> None:
    """Its parameters are the same objects, with the same values and no gradient."""
    module = Tied()
    before = [(p, p.value.copy()) for p in module.parameters()]
    laws.check(module, X[:, :2])
    for (p, value), q in zip(before, module.parameters(), strict=True):
        assert p is q and np.array_equal(p.value, value) and p.grad is None
    assert module.again["tied"] is module.parts[0]


# -- each law catches its fault -----------------------------------------------------------------------------------------------------


def test_complex_step_sees_what_differences_cannot() -> None:
    """A slope that is off by one part in 10⁹ passes the differences, and not the complex step."""
    with planted(lambda out, x: (Scale(3.0 * (1 + 1e-9) * x * x),)) as cube:
        gradcheck(cube, X)
        gradcheck(lambda x: np.tanh(x) + cube(x), X)
        with pytest.raises(GradcheckError, match="complex step"):
            laws.complex_step(lambda x: np.tanh(x) + cube(x), X)


@pytest.mark.parametrize(
    "function", [np.abs, lambda x: x * tg.tensor([1.0, 2.0, 3.0]), lambda x: np.real(x) * 2.0 if isinstance(x, np.ndarray) else x * 2.0]
)
def test_complex_step_refuses_where_it_says_nothing(function: Any) -> None:
    """A function that is not holomorphic, or takes no complex numbers, is not called wrong."""
    with pytest.raises(ArgumentError, match=r"not holomorphic|takes no complex"):
        laws.complex_step(function, X + 2.0)


def test_a_primitive_that_takes_no_complex_numbers_is_said() -> None:
    with planted(lambda out, x: (Scale(2.0 * x),), lambda x: np.float64(1.0) * x.astype(float) ** 2) as square:
        with pytest.raises(ArgumentError, match=r"the forward function of planted takes no complex arrays\. Use"):
            laws.complex_step(square, X)
        gradcheck(square, X)


def test_a_wrong_forward_mode_is_caught() -> None:
    with planted(lambda out, x: (Plain(lambda g: g * 3.0 * x * x, lambda u: u * 2.0 * x * x),)) as cube:
        for law in (laws.adjoint, laws.modes):
            with pytest.raises(GradcheckError, match=r"forward mode|jvp"):
                law(lambda x: cube(x) * 2.0, X)


def test_a_pullback_that_is_not_linear_is_caught() -> None:
    squares = planted(lambda out, x: (Plain(lambda g: g * g, lambda u: u),), lambda x: 1.0 * x)
    with squares as same, pytest.raises(GradcheckError, match=r"operand 0.*2 Jᵀu − 3 Jᵀv"):
        laws.linearity(lambda x: same(x) * 1.0, X)


def test_a_rule_that_differs_when_recorded_is_caught() -> None:
    """Ordinary backward takes arrays; a recorded one takes Tensors."""
    two_faced = planted(lambda out, x: (Scale(x * (3.0 if isinstance(x, tg.Tensor) else 2.0)),), lambda x: x * x)
    with two_faced as square, pytest.raises(GradcheckError, match="a recorded backward"):
        laws.modes(lambda x: square(x) + 0.0, X)


def test_a_second_derivative_of_one_mode_is_caught() -> None:
    """A pushforward that is not recorded gives H v in some modes only."""
    bare = lambda x: getattr(x, "value", x)  # noqa: E731
    with planted(lambda out, x: (Plain(lambda g: g * (3.0 * x * x), lambda u: u * (3.0 * bare(x) ** 2)),)) as cube:
        laws.modes(lambda x: cube(x) * 2.0, X)
        with pytest.raises(GradcheckError, match="uᵀ H v"):
            laws.second_modes(lambda x: cube(x) * 2.0, X)


def test_the_chain_rule_catches_a_function_that_changes() -> None:
    """A function that is another one when it is called again has no derivative to multiply."""
    calls = iter(range(100))
    with pytest.raises(GradcheckError, match=r"∘"):
        laws.chain_rule(lambda x: x * (1.0 + next(calls)), np.tanh, X)
    laws.chain_rule(lambda x: x * 2.0, np.tanh, X)


def test_a_ledger_that_does_not_add_up_is_caught() -> None:
    """A path split or a BPTT matrix that loses a part."""
    layer = nn.LSTM(2, 2, rng=0)
    real = flow.split_paths

    def lossy(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        return replace(found, contribution=0.5 * found.contribution)

    with mock.patch.object(flow, "split_paths", lossy), pytest.raises(GradcheckError, match=r"flow\.split_paths"):
        laws.itemised_sums(layer, SEQUENCE)
    whole = flow.bptt_matrix

    def forgetful(losses: Any, parameter: Any) -> Any:
        return whole(losses[:1], parameter)

    with mock.patch.object(flow, "bptt_matrix", forgetful), pytest.raises(GradcheckError, match=r"flow\.bptt_matrix"):
        laws.itemised_sums(layer, SEQUENCE)


def test_writing_is_caught() -> None:
    """To an array operand, to an array among the statics, to a parameter, to a ``.grad``."""

    def writes(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            x += 1.0
        return x * 2.0

    with pytest.raises(GradcheckError, match="input 0: expected the array as it was"):
        laws.purity(writes, X.copy())

    def on_mask(x: Any, mask: Any) -> Any:
        mask[0] = 0.0
        return x * mask[0]

    with pytest.raises(GradcheckError, match="static mask: expected the array as it was"):
        laws.purity(on_mask, X, mask=np.ones(3))

    class Drifting(Decay):
        def forward(self, x: Any, state: Any = None) -> Any:
            drifted.value = drifted.value * 1.01
            return super().forward(x, state)

    module = Drifting()
    drifted = module.weight
    with pytest.raises(GradcheckError, match="parameter weight itself: expected its value as it was"):
        laws.purity(module, X[:, :2])
    w = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)

    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter([1.0, 2.0, 3.0])
            self.held = [self.weight]

        def forward(self, x: Any) -> Any:
            kept.grad = w.value
            return x * self.weight

    greedy = Greedy()
    kept = greedy.weight
    with pytest.raises(GradcheckError, match=r"expected its .grad as it was"):
        laws.purity(greedy, X)


def test_chance_is_caught() -> None:
    """A function that draws from a generator, a layer with dropout that trains; in evaluation the layer is itself."""
    rng = np.random.default_rng(0)
    with pytest.raises(GradcheckError, match=r"result 0.*the first call"):
        laws.determinism(lambda x: x * rng.normal(), X)
    layer = nn.LSTM(2, 2, num_layers=2, dropout=0.5, rng=0)
    with pytest.raises(GradcheckError, match=r"call eval\(\)"):
        laws.determinism(layer, SEQUENCE)
    laws.determinism(layer.eval(), SEQUENCE)


def test_a_promotion_is_caught() -> None:
    """A float64 array in a formula makes float64 of float32; a layer of float64 is to be that."""
    with pytest.raises(GradcheckError, match="a value of float32 from operands of float32, got float64"):
        laws.precision(lambda x: x * np.ones(3), X)
    laws.precision(nn.GRU(2, 3, dtype="float32", rng=0), SEQUENCE.astype(np.float32))
    laws.precision(nn.GRU(2, 3, rng=0), SEQUENCE)


@pytest.mark.parametrize("position", range(6))
def test_a_kernel_that_is_not_its_definition_is_caught(position: int) -> None:
    """A share that is off by one part in 10⁸, of whichever operand."""
    kernel = kernels.SEQUENCES["lstm"]
    right: Any = kernel.joint_pullback

    def wrong(*given: Any, **statics: Any) -> Any:
        shares = list(right(*given, **statics))
        shares[position] = None if shares[position] is None else shares[position] * (1.0 + 1e-8)
        return tuple(shares)

    layer = nn.LSTM(2, 3, rng=0)
    state = (np.ones((1, 3, 3)), np.ones((1, 3, 3)))
    with mock.patch.object(kernel, "joint_pullback", wrong), pytest.raises(GradcheckError, match=f"lstm: operand {position}, gradient"):
        laws.kernel_equals_definition(layer, SEQUENCE, state)
    laws.kernel_equals_definition(layer, SEQUENCE, state)
    with pytest.raises(ArgumentError, match="records no opaque node"):
        laws.kernel_equals_definition(np.tanh, X)


def test_a_batch_that_mixes_is_caught() -> None:
    """Centring over the batch makes every member depend on the others."""
    with pytest.raises(GradcheckError, match=r"result 0 of member 0.*the member alone"):
        laws.batch_additivity(lambda x: x - x.mean(axis=0, keepdims=True), X)
    averaged = lambda out, x, w: (Scale(w), Plain(lambda g: (g * x).mean(0), lambda u: u * x))  # noqa: E731
    with planted(averaged, lambda x, w: x * w) as product, pytest.raises(GradcheckError, match="the sum over the members"):
        laws.batch_additivity(lambda x, w: product(x, w) + 0.0, X, X[0], axes=(0, None))
    with pytest.raises(ArgumentError, match="one entry for each of 2 operands"):
        laws.batch_additivity(lambda x, w: x * w, X, X[0], axes=(0,))
    with pytest.raises(ArgumentError, match="expected one size of batch"):
        laws.batch_additivity(lambda x, y: x, X, X[0])


class Clock(nn.Module):
    """A layer whose steps know their number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = laws.unroll(Decay())

    def forward(self, x: Any, state: Any = None) -> Any:
        return self.inner(x * (1.0 + np.arange(len(x)))[:, None, None], state)


def test_a_step_that_knows_its_number_is_caught() -> None:
    layer = Clock()
    with pytest.raises(GradcheckError, match=r"expected.*by the whole sequence.*by going on"):
        laws.time_shift(layer, SEQUENCE)
    laws.time_shift(laws.unroll(Decay()), SEQUENCE)
    with pytest.raises(ArgumentError, match="from 1 to 3"):
        laws.time_shift(layer, SEQUENCE, by=4)
    with pytest.raises(ArgumentError, match="bidirectional"):
        laws.time_shift(nn.LSTM(2, 2, bidirectional=True, rng=0), SEQUENCE)


def test_a_cut_in_the_wrong_place_is_caught() -> None:
    """A window that is one step too short cuts where BPTT goes on."""
    real = flow.cut_time
    with (
        mock.patch.object(flow, "cut_time", lambda every: real(every=max(1, every - 1))),
        pytest.raises(GradcheckError, match=r"flow.cut_time"),
    ):
        laws.truncation(nn.RNN(2, 3, rng=0), SEQUENCE)


def test_a_state_that_is_not_all_is_caught() -> None:
    """A layer that hands on a part of what it remembers is not the whole in pieces."""

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = laws.unroll(Decay())

        def forward(self, x: Any, state: Any = None) -> Any:
            outputs, last = self.inner(x, state)
            return outputs, 0.5 * last

    for law in (laws.time_shift, laws.truncation):
        with pytest.raises(GradcheckError):
            law(Forgetful(), SEQUENCE)


class Pooled(nn.Module):
    """Running means over the sequence; padding is multiplied by 0, or not at all."""

    def __init__(self, masks: bool) -> None:
        super().__init__()
        self.masks = masks
        self.weight = nn.Parameter([[0.3, -0.2], [0.1, 0.4]])

    def forward(self, x: Any, state: Any = None, *, lengths: Any) -> Any:
        counts = (np.arange(x.shape[0])[:, None] < np.asarray(lengths))[..., None]
        total = tg.cumsum((x * counts if self.masks else x) @ self.weight, axis=0)
        return total, total[-1]


@pytest.mark.parametrize("layer", [nn.RNN(2, 3, rng=0), nn.LSTM(2, 3, 2, bidirectional=True, rng=0), nn.GRU(2, 3, reset="before", rng=0)])
def test_padding_is_not_read(layer: Any) -> None:
    """Not even to multiply it by 0: it may hold NaN."""
    laws.padding(layer, SEQUENCE, lengths=[1, 4, 0], fill=np.nan)


def test_padding_that_is_read_is_caught() -> None:
    """A layer that sums what lies beyond the end; one that masks it passes, and is caught only where a mask is not enough."""
    assert "final state 0" in failure(laws.padding, Pooled(False), SEQUENCE, lengths=[1, 4, 0]).message
    laws.padding(Pooled(True), SEQUENCE, lengths=[1, 4, 0])
    assert "got nan by nan there" in failure(laws.padding, Pooled(True), SEQUENCE, lengths=[1, 4, 0], fill=np.nan).message


def test_step_jacobians_in_the_wrong_order_are_caught() -> None:
    """The list reversed, or each transposed."""
    real = flow.step_jacobians
    for spoil in (lambda j: j[::-1], lambda j: np.swapaxes(j, -1, -2)):

        def spoiled(ledger: Any, spoil: Any = spoil) -> Any:
            found = real(ledger)
            object.__setattr__(found, "jacobian", spoil(found.jacobian))
            return found

        with mock.patch.object(flow, "step_jacobians", spoiled), pytest.raises(GradcheckError, match=r"J_2 of sequence 0"):
            laws.step_jacobian_order(nn.LSTM(2, 3, rng=0), SEQUENCE)


# -- how a failure reads -------------------------------------------------------------------------------------------------------------


def failure(law: Any, *arguments: Any, **options: Any) -> GradcheckError:
    with pytest.raises(GradcheckError) as caught:
        law(*arguments, **options)
    return caught.value


def test_a_reproduction_runs_and_fails_alike() -> None:
    """The code in the message breaks the same law in the same way, at an operand of one entry."""
    shift = 0.25

    error = failure(gradcheck, lambda x, y: x.detach() * y + shift * np.exp(y), X, X[0])
    names: dict[str, Any] = {}
    with pytest.raises(GradcheckError) as again:
        exec(error.reproduction, names)
    kind = r"operand 0, entry \(.*\), to output entry .*: expected .* got 0 by reverse mode"
    assert re.search(kind, error.message) and re.search(kind, str(again.value))
    assert "shift = 0.25" in error.reproduction and "fn = lambda x, y: x.detach() * y + shift * np.exp(y)" in error.reproduction
    assert all(array.size == 1 for array in error.inputs)
    assert error.reproduction in re.sub("^    ", "", str(error), flags=re.M)


def test_a_reproduction_of_a_primitive_names_it() -> None:
    """It comes from the registry, with its statics."""
    with mock.patch.object(PRIMITIVES["sum"], "rule", lambda out, x, axis, keepdims: (Scale(np.ones(x.shape)),)):
        error = failure(laws.fitting, PRIMITIVES["sum"], X, axis=(0,), keepdims=False)
        with pytest.raises(GradcheckError):
            exec(error.reproduction, {})
    assert "laws.fitting(PRIMITIVES['sum'], np.array([[" in error.reproduction and "axis=(0,), keepdims=False)" in error.reproduction


def wrong_square(x: Any) -> Any:
    """x², with half of its derivative."""
    return x.detach() * x


def test_a_reproduction_of_a_function() -> None:
    """A function comes with its text, a lambda with its own among several on a line."""
    text = failure(gradcheck, wrong_square, X).reproduction
    assert "def wrong_square(x: Any)" in text and text.endswith("laws.gradcheck(wrong_square, np.array([[0.5]]))")
    first, second = lambda x: x.detach() * x, lambda x: (lambda u: u.detach() * LENGTH)(x) * x
    for function, written in ((first, "lambda x: x.detach() * x"), (second, "lambda x: (lambda u: u.detach() * LENGTH)(x) * x")):
        error = failure(gradcheck, function, X)
        assert f"fn = {written}\n" in error.reproduction
        with pytest.raises(GradcheckError, match="by reverse mode"):
            exec(error.reproduction, {})


def test_gradcheck_takes_the_complex_step_where_it_can() -> None:
    """A function of NumPy's is measured exactly; one that takes no complex numbers by differences; the message says by what."""
    with planted(lambda out, x: (Scale(2.0 * x * x),)) as cube:
        assert "by the complex step, got" in failure(gradcheck, cube, X).message
        with mock.patch.object(cube, "forward", lambda x: np.abs(x) * x * np.sign(x) * np.abs(x)):
            assert "by central differences, got" in failure(gradcheck, cube, np.abs(X)).message
    with planted(lambda out, x: (Scale(3.0 * x * x),)) as cube:
        gradcheck(cube, X, rtol=1e-13)


@pytest.mark.parametrize(
    "point", [np.array(0.0), np.zeros(2), np.array([0.0, 1.0]), np.zeros((0, 3))], ids=["0-d", "zeros", "mixed", "empty"]
)
def test_a_derivative_of_0_is_0(point: Any) -> None:
    """Where the first and second derivatives vanish, the third leaves no trace in the complex step, of a primitive and of a function."""
    with planted(lambda out, x: (Scale(3.0 * x * x),)) as cube:
        for subject in (cube, lambda x: x * x * x, lambda x: cube(x) * 1e6):
            gradcheck(subject, point)
            laws.complex_step(subject, point)
            laws.check(subject, point, second=False)


def test_numbers_below_the_complex_step_are_no_zeros() -> None:
    """A derivative of 10⁻³⁰⁰ is lost in the imaginary step, and is not called wrong."""
    gradcheck(lambda x: np.tanh(x) * x, [1e-300])
    laws.complex_step(lambda x: np.tanh(x) * x, [1e-300])


def test_what_cancels_in_a_rule_is_rounding() -> None:
    """s − s² and s (1 − s) differ near s = 1, by rounding alone; by a part in 10¹⁰ of the largest entry they must not."""

    def softmax(x: Any) -> Any:
        powers = np.exp(x - x.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    for fault in (0.0, 1e-10):
        rule = lambda s, x, fault=fault: (  # noqa: E731
            Plain(lambda g: s * (g - (g * s).sum(1, keepdims=True)), lambda u: s * u - s * (s * u).sum(1, keepdims=True) + fault * u),
        )
        with planted(rule, softmax) as made:
            if fault:
                assert "must be adjoint" in failure(laws.adjoint, made, np.array([[30.0, 0.0], [0.0, 0.0]])).message
            else:
                laws.adjoint(made, np.array([[30.0, 0.0], [0.0, 0.0]]))


def test_a_kink_is_called_a_kink() -> None:
    """At, and next to, a kink the message says so, with the slopes on both sides; elsewhere it sends to the rule."""
    jump = "The slope jumps here, from 0 on the left to 1 on the right: move the inputs away from kinks"
    assert failure(gradcheck, tg.relu, [0.0]).message.endswith(jump)
    assert "The slope jumps here, from 0.001 on the left" in failure(gradcheck, tg.relu, [1e-9]).message
    assert "Check the rule" in failure(gradcheck, lambda x: x.detach() * x, [1.0]).message
    with pytest.raises(GradcheckError, match=r"got nan by forward mode. Move the inputs away from kinks and poles"):
        laws.adjoint(lambda x: np.log(x), np.array([0.0, 1.0]))


def test_what_is_not_a_number_in_both_is_no_difference() -> None:
    """Outside of its domain a function gives NaN in every mode, and that is all there is to say; no other entry is called wrong."""
    laws.itemised_sums(np.sqrt, np.array([0.5, -1.0]))
    laws.batch_additivity(lambda x: np.tanh(x) * x, np.array([[np.nan], [1.0]]))
    message = failure(laws.complex_step, lambda x: np.tanh(x) * x, np.array([np.nan, 1.0])).message
    assert "expected nan by the complex step, got 0" in message


def test_operands_and_results_are_what_they_must_be() -> None:
    """Complex operands, results that are no Tensors, nothing at all, a batch without axes: each is said, whatever the law."""
    for law in (laws.check, laws.modes, gradcheck, laws.complex_step):
        with pytest.raises(ArgumentError, match="got complex ones"):
            law(lambda x: x, X + 1j)
    for law in (laws.modes, laws.determinism, laws.linearity, gradcheck, laws.check, laws.kernel_equals_definition):
        with pytest.raises(ArgumentError, match=r"returns Tensors, got ndarray. NumPy's"):
            law(lambda x: np.ones(3), X)
        with pytest.raises(ArgumentError, match="got nothing"):
            law(lambda x: None, X)
    with pytest.raises(ArgumentError, match="expected one size of batch"):
        laws.batch_additivity(np.tanh, 0.5)


def test_check_hands_on_tolerance_and_seed() -> None:
    """One tolerance for every law that has one: what is right to five digits passes at 1e-4, and not at each law's own."""
    with planted(lambda out, x: (Scale(3.00001 * x * x),)) as cube:
        laws.check(cube, X, rtol=1e-4, seed=3, second=False)
        assert failure(laws.check, cube, X, second=False)


def test_gradcheck_asks_for_one_value() -> None:
    """A function that gives another value at each call has no derivative to check, and is not called wrong for it."""
    assert "same value when the function is called again" in failure(gradcheck, nn.Dropout(0.5, rng=0), np.ones((4, 5))).message


def test_the_message_names_the_parameter() -> None:
    """A gradient that is wrong in a parameter says in which."""

    class Half(Decay):
        def forward(self, x: Any, state: Any = None) -> Any:
            return x @ (0.5 * self.weight + 0.5 * self.weight.detach())

    assert "parameter weight, entry (0, 0)" in failure(gradcheck, Half(), X[:, :2]).message
    assert "operand 1.hidden" in failure(gradcheck, lambda x, s: x * s.hidden.detach() * s.hidden, X[:, :2], nn.RNNState(X[:, :2])).message


def test_what_is_no_subject_is_refused() -> None:
    """A law of rules asks for a primitive with a rule; every law for something to call."""
    with pytest.raises(ArgumentError, match="kinds: expected a primitive with a rule, got function"):
        laws.kinds(lambda x: x, X)
    with pytest.raises(ArgumentError, match="expected a function, a primitive, a cell or a layer, got float"):
        laws.adjoint(1.0, X)
