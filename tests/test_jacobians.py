"""Step Jacobians, against the complex step, forward mode's Jacobians and the state cotangents of the backward pass."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from recurrences import LAYERS, Setting, drop_gate, settings

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn

all_layers = pytest.mark.parametrize("name", LAYERS)


def traced(name: str, *, steps: int = 6, batch: int = 2, size: int = 3, lengths: Any = None, seed: int = 0, **options: Any) -> Any:
    """A layer, its input and the trace of a loss that reads the last state alone."""
    make, _, own, _ = LAYERS[name]
    layer = make(2, size, rng=seed, **own, **options)
    x = np.random.default_rng(seed + 1).normal(size=(steps, batch, 2)).astype(layer.dtype)
    _, state = layer(x, lengths=lengths)
    return layer, x, tg.trace(sum((part * part).sum() for part in state))


def weights_of(layer: Any, suffix: str = "_l0") -> dict[str, Any]:
    names = ("weight_ih", "weight_hh", "bias", "bias_hn")
    return {name: getattr(layer, name + suffix).value for name in names if getattr(layer, name + suffix, None) is not None}


def far(got: Any, expected: Any) -> float:
    return oracles.difference(np.asarray(got), np.asarray(expected))


def broken_law(ledger: tg.Trace, found: Any) -> float:
    """How far J_{t+1}ᵀ ⋯ J_Tᵀ δ_T is from δ_t, over all steps."""
    states = ledger.states(found.layer)
    worst, size = 0.0, found.jacobian.shape[-1]
    delta = states[int(found.time[-1])].cotangent.reshape(-1, size)
    for k in reversed(range(len(found.time))):
        delta = np.einsum("bi,bij->bj", delta, found.jacobian[k])
        past = states.times[states.times.index(found.time[k]) - 1]
        worst = max(worst, far(delta, states[past].cotangent.reshape(-1, size)))
    return worst


# -- laws -------------------------------------------------------------------------------------------------------------------------


@given(drawn=settings(least=2))
def test_the_product_of_step_jacobians_carries_the_state_cotangent(drawn: Setting) -> None:
    """δ_t = J_{t+1}ᵀ ⋯ J_Tᵀ δ_T in the last layer, forward and from the end, with idle steps and without."""
    steps, bidirectional = drawn.steps, drawn.options["bidirectional"]
    _, _, ledger = traced(
        drawn.name, steps=steps, batch=drawn.batch, size=drawn.size, lengths=drawn.lengths, seed=drawn.seed, **drawn.options
    )
    last = ledger.layers[-1 - bidirectional :]
    assert len(last) == 1 + bidirectional
    for path in last:
        found = flow.step_jacobians(ledger, path)
        assert found.jacobian.dtype == drawn.options["dtype"] and found.jacobian.shape[:2] == (steps - 1, drawn.batch)
        order = range(2, steps + 1) if not path.endswith("reverse") else range(steps - 1, 0, -1)
        assert list(found.time) == list(order)
        assert broken_law(ledger, found) < (1e-3 if drawn.single else 1e-11)


@all_layers
def test_each_is_what_the_complex_step_says(name: str) -> None:
    """Every step and sequence, against plain NumPy on complex numbers."""
    layer, x, ledger = traced(name)
    cell, weights = LAYERS[name][3], weights_of(layer)
    found = flow.step_jacobians(ledger)
    for b in range(2):
        state = tuple(np.zeros((1, 3)) for _ in range(cell.parts))
        _, states, _ = oracles.run(cell, x[:, b : b + 1], state, weights)
        for k, t in enumerate(found.time):
            expected = oracles.step_jacobian(cell, x[t - 1, b : b + 1], states[t - 1], weights)
            assert far(found.jacobian[k, b], expected) < 1e-12


@all_layers
def test_each_is_the_jacobian_of_the_cell(name: str) -> None:
    """Against tg.jacobian of one step, for cells in a loop, without a batch, from an initial state that is a leaf."""
    _, make, own, oracle = LAYERS[name]
    cell = make(2, 3, rng=0, **own)
    random = np.random.default_rng(1)
    x = random.normal(size=(4, 2))
    first = [tg.tensor(random.normal(size=3), requires_grad=True) for _ in range(oracle.parts)]
    kind = {1: nn.RNNState if "gru" not in name else nn.GRUState, 2: nn.LSTMState}[oracle.parts]
    state, fed = kind(*first), []
    for row in x:
        fed.append(np.concatenate([part.value for part in state]))
        state = cell(row, state)
    found = flow.step_jacobians(tg.trace(sum((part * part).sum() for part in state)))
    assert list(found.time) == [2, 3, 4] and found.jacobian.shape == (3, 1, 3 * oracle.parts, 3 * oracle.parts)

    def step(flat: Any, t: int) -> Any:
        return np.concatenate(cell(x[t - 1], kind(*(flat[k * 3 : k * 3 + 3] for k in range(oracle.parts)))))

    for k, t in enumerate(found.time):
        expected = tg.jacobian(lambda flat, t=t: step(flat, t), tg.tensor(fed[t - 1]))
        assert far(found.jacobian[k, 0], getattr(expected, "value", expected)) < 1e-12


def test_the_first_step_is_there_if_the_initial_state_is() -> None:
    """With an initial state that requires a gradient there is a J_1 as well."""
    layer = nn.LSTM(2, 3, rng=0)
    first = nn.LSTMState(*(tg.tensor(np.full((1, 2, 3), 0.1), requires_grad=True) for _ in range(2)))
    outputs, _ = layer(np.ones((4, 2, 2)), first)
    ledger = tg.trace(outputs[-1].sum())
    found = flow.step_jacobians(ledger)
    assert list(found.time) == [1, 2, 3, 4] and broken_law(ledger, found) < 1e-13


def test_idle_steps_have_the_identity() -> None:
    """A padded sequence's state stays as it is, and so does its cotangent."""
    _, _, ledger = traced("lstm", lengths=[6, 3])
    found = flow.step_jacobians(ledger)
    for k, t in enumerate(found.time):
        assert (np.array_equal(found.jacobian[k, 1], np.eye(6))) is bool(t > 3)


def test_feedback_outside_the_cell_counts() -> None:
    """An output that is fed back as the next input is a way from a state to the one before it."""
    cell, head = nn.LSTMCell(2, 3, rng=0), nn.Linear(3, 2, rng=1)
    state, x = None, tg.tensor(np.ones((1, 2)))
    for _ in range(5):
        state = cell(x, state)
        x = np.tanh(head(state.hidden))
    ledger = tg.trace((state.hidden * state.hidden).sum() + state.cell.sum())
    assert broken_law(ledger, flow.step_jacobians(ledger)) < 1e-13


def test_a_cell_of_ones_own() -> None:
    """Other ways of writing a step: the seed's [h, x], columns in between, a reversal, rows apart."""
    random = np.random.default_rng(0)
    w, v = (tg.tensor(random.normal(size=(3, n)), requires_grad=True) for n in (5, 3))
    rows = tg.tensor(random.normal(size=(1, 3)), requires_grad=True)
    for t in range(1, 5):
        with tg.scope("rows", time=t):
            joined = tg.concatenate([rows, random.normal(size=(1, 2))], axis=1)
            mixed = np.tanh(joined @ w.T) + 0.5 * (v @ rows.T).T.reshape(3)[None]
            rows = tg.landmark(mixed[:, ::-1] * 0.9, "h", "hidden")
    ledger = tg.trace((rows * rows).sum())
    assert len(ledger.states()) == 4
    assert broken_law(ledger, flow.step_jacobians(ledger)) < 1e-13


# -- what follows from them -------------------------------------------------------------------------------------------------------


@all_layers
def test_norms_and_spectra_are_those_of_the_matrices(name: str) -> None:
    """Singular values, radius, condition, products and products of norms, against NumPy one by one."""
    _, _, ledger = traced(name)
    found = flow.step_jacobians(ledger)
    for b in range(2):
        product, norms = np.eye(found.jacobian.shape[-1]), 1.0
        for k in reversed(range(len(found.time))):
            one = found.jacobian[k, b]
            product, norms = product @ one, norms * np.linalg.norm(one, 2)
            assert found.log10_product[k, b] == pytest.approx(math.log10(np.linalg.norm(product, 2)), abs=1e-11)
            assert found.log10_product_of_norms[k, b] == pytest.approx(math.log10(norms), abs=1e-11)
            assert found.spectral_radius[k, b] == pytest.approx(np.max(np.abs(np.linalg.eigvals(one))), rel=1e-12)
            assert far(found.singular_values[k, b], np.linalg.svd(one)[1]) < 1e-12
            assert found.condition[k, b] == pytest.approx(np.linalg.cond(one), rel=1e-8)
    assert (found.log10_product <= found.log10_product_of_norms + 1e-12).all()
    written = json.loads(found.to_json())
    assert np.array(written["lyapunov_exponents"], float).tolist() == found.lyapunov_exponents.tolist()
    assert "jacobian" not in written
    assert np.array(json.loads(found.to_json(jacobian=True))["jacobian"]).tolist() == found.jacobian.tolist()
    assert found.layer in str(found)
    for array in (found.jacobian, found.singular_values, found.lyapunov_exponents):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def linear(matrix: Any, steps: int, **options: Any) -> Any:
    """The step Jacobians of h_t = W h_{t−1}: an RNN at rest."""
    size = len(matrix)
    layer = nn.RNN(1, size, bias=False, init=lambda shape, rng: matrix, rng=0, **options)
    layer.weight_ih_l0.value = np.zeros((size, 1))
    outputs, _ = layer(np.zeros((steps, 1, 1)))
    return flow.step_jacobians(tg.trace(outputs[-1].sum()))


def test_a_product_of_ten_to_the_minus_four_hundred_is_reported() -> None:
    """ρ = 0.8 over 5,000 steps leaves 10⁻⁴⁸⁴, which no float holds."""
    rotation = 0.8 * np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    found = linear(rotation, 5000)
    assert found.log10_product[0, 0] == pytest.approx(4999 * math.log10(0.8), rel=1e-10)
    assert found.log10_product[0, 0] < -484 and found.log10_product_of_norms[0, 0] == pytest.approx(found.log10_product[0, 0], rel=1e-10)
    assert found.lyapunov_exponents[0] == pytest.approx([math.log(0.8)] * 4, rel=1e-10)
    assert "e-485" in str(found)


def test_lyapunov_exponents_of_a_linear_recurrence_are_the_logarithms_of_its_eigenvalues() -> None:
    """For W with eigenvalues 1.2, 0.9 and 0.5, not normal, over 600 steps; where W is singular, one is −inf."""
    basis = np.array([[1.0, 0.5, 0.2], [0.0, 1.0, -0.7], [0.0, 0.0, 1.0]])
    for values in ([1.2, 0.9, 0.5], [1.2, 0.9, 0.0]):
        found = linear(basis @ np.diag(values) @ np.linalg.inv(basis), 600)
        exponents = found.lyapunov_exponents[0]
        assert exponents[:2] == pytest.approx(np.log(values[:2]), abs=5e-3)
        assert exponents[2] == pytest.approx(math.log(0.5), abs=5e-3) if values[2] else exponents[2] < -20
        assert found.log10_product[0, 0] / 599 == pytest.approx(math.log10(1.2), abs=2e-3)


def test_a_product_that_is_zero_is_minus_infinity() -> None:
    """W = 0 leaves nothing: −inf, without a warning, and no NaN in the table."""
    found = linear(np.zeros((2, 2)), 5)
    assert np.isneginf(found.log10_product).all() and np.isneginf(found.lyapunov_exponents).all()
    assert np.isnan(found.condition).all()
    assert "  0" in str(found)
    json.loads(found.to_json())


def test_what_first_grows_is_told_apart_from_what_decides() -> None:
    """A non-normal W with ρ = 0.5: one step multiplies by up to 4, the product vanishes all the same, below the product of norms."""
    found = linear(np.array([[0.5, 4.0], [0.0, 0.5]]), 40)
    assert found.spectral_radius[0, 0] == pytest.approx(0.5, rel=1e-6) and found.singular_values[0, 0, 0] > 4
    assert found.log10_product[0, 0] < -8 and found.log10_product_of_norms[0, 0] > 20


# -- planted mistakes -------------------------------------------------------------------------------------------------------------


@all_layers
def test_the_wrong_order_of_a_product_is_caught(name: str) -> None:
    """Jacobians in another order of time, transposed, or one step off break the law."""
    _, _, ledger = traced(name, steps=6)
    found = flow.step_jacobians(ledger)
    assert broken_law(ledger, found) < 1e-13
    wrong = [found.jacobian[::-1], np.swapaxes(found.jacobian, -1, -2), np.roll(found.jacobian, 1, axis=0)]
    for jacobian in wrong:
        assert broken_law(ledger, flow.StepJacobians(found.layer, found.parts, found.time, jacobian)) > 1e-3


@pytest.mark.parametrize("gate", ["input", "forget", "candidate", "output"])
def test_a_dropped_gate_is_caught(gate: str, monkeypatch: Any) -> None:
    """Without the edges through one gate the law is broken."""
    drop_gate(gate, monkeypatch)
    _, _, ledger = traced("lstm")
    assert broken_law(ledger, flow.step_jacobians(ledger)) > 1e-3


# -- errors -----------------------------------------------------------------------------------------------------------------------


def test_errors_say_what_was_expected() -> None:
    """Norms, one step, no step, and something that is neither a loss nor its trace; a loss is traced."""
    outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
    with pytest.raises(errors.ArgumentError, match="step_jacobians: expected a trace with keep='arrays', got keep='norms'"):
        flow.step_jacobians(tg.trace(outputs.sum(), keep="norms"))
    with pytest.raises(errors.ArgumentError, match="no two steps with hidden and cell"):
        flow.step_jacobians(tg.trace(nn.LSTM(2, 3, rng=0)(np.ones((1, 1, 2)))[0].sum()))
    with pytest.raises(errors.ArgumentError, match=r"step_jacobians: expected a loss \(a Tensor\) or its trace, got float"):
        flow.step_jacobians(1.0)
    found = flow.step_jacobians(outputs.sum())
    broken = flow.StepJacobians(
        found.layer, found.parts, found.time, np.where(found.time[:, None, None, None] == 3, np.nan, found.jacobian)
    )
    with pytest.raises(errors.ArgumentError, match="infinities or NaN at step 3 and 0 others"):
        str(broken)


def test_a_batch_of_no_sequences() -> None:
    """There is nothing to tell, and nothing breaks."""
    found = flow.step_jacobians(traced("lstm", batch=0)[2])
    assert found.jacobian.shape == (5, 0, 6, 6) and found.log10_product.shape == (5, 0)
    assert "no sequences" in str(found)
    json.loads(found.to_json())
