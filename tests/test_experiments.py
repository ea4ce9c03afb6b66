"""The experiments of the curriculum against closed forms and plain NumPy that knows nothing of the engine."""

import json
import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import errors, experiments, nn
from tinygrad_rnn.experiments.gated import from_lecture, lecture_gru_step, lecture_lstm_step


@pytest.mark.parametrize("row", experiments.ROWS)
def test_every_experiment_is_a_result(row):
    """A run with defaults gives a table, HTML and JSON, and says which claim it is about."""
    found = experiments.run(row)
    assert len(str(found).splitlines()) > 2 and "<table>" in found._repr_html_()
    assert json.loads(found.to_json()).keys() == found.to_dict().keys()
    assert f"Claim (row {row})" in experiments.ROWS[row].function.__doc__


def test_the_rooms_are_reached_by_name():
    """``tg.experiments`` is loaded when it is named; an unknown row is an error that lists the known ones."""
    assert tg.experiments.run is experiments.run
    with pytest.raises(errors.ArgumentError, match="no experiment for row 0; expected one of 1, 2, 3, 4, 5, 6"):
        experiments.run(0)


def test_the_same_seed_gives_the_same_numbers():
    """Two runs agree to the last bit."""
    for row in experiments.ROWS:
        assert experiments.run(row).to_json() == experiments.run(row).to_json()


# -- 1: the chain rule ----------------------------------------------------------------------------------------------------------


@given(position=st.integers(1, 8), source=st.integers(1, 8), hidden=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_factors_multiply_to_the_gradient(position, source, hidden, seed):
    """Every factor is diag(1 − h²) W_hh of plain NumPy, and their product is the engine's gradient."""
    position, source = max(position, source), min(position, source)
    found = experiments.chain_rule(position, source, hidden=hidden, seed=seed)
    rng = np.random.default_rng(seed)
    cell = nn.RNNCell(2, hidden, rng=rng)
    xs = rng.standard_normal((position, 2))
    rng.standard_normal(hidden)
    states = [np.zeros(hidden)]
    for x in xs:
        states.append(np.tanh(cell.weight_ih.value @ x + cell.weight_hh.value @ states[-1] + cell.bias.value))
    factors = [np.diag(1 - states[t] ** 2) @ cell.weight_hh.value for t in range(position, source, -1)]
    assert len(found.factor) == position - source == len(found.name) - 1 == len(found.norm) - 1
    for got, expected in zip(found.factor, factors, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    assert found.difference < 1e-12


def test_the_gradient_shrinks_factor_by_factor():
    """With W_hh half as large every factor is below 1, and each norm is smaller than the one before."""
    found = experiments.chain_rule(8, 1, scale=0.5)
    assert (found.largest < 1).all() and (np.diff(found.norm) < 0).all()
    with pytest.raises(errors.ArgumentError, match="1 ≤ source ≤ position"):
        experiments.chain_rule(2, 3)


# -- 2: eigenvalues -------------------------------------------------------------------------------------------------------------


def test_eigenvalues_decide():
    """0.9¹⁰⁰ = 2.66e-5, 1.1¹⁰⁰ = 1.38e4, 0.95⁵⁰ = 7.69 %, 0.95¹⁰⁰ = 0.59 %, 1¹⁰⁰ = 1."""
    found = experiments.eigenvalues((0.9, 0.95, 1.0, 1.1), (50, 100))
    np.testing.assert_allclose(found.log10_measured, found.log10_expected, atol=1e-10)
    measured = 10**found.log10_measured
    np.testing.assert_allclose(measured[:, 1], [2.66e-5, 0.0059, 1.0, 1.38e4], rtol=5e-3)
    assert measured[1, 0] == pytest.approx(0.0769, rel=1e-3)


@given(radius=st.floats(0.1, 0.99), shear=st.floats(0.0, 5.0))
def test_a_non_normal_matrix_grows_first(radius, shear):
    """‖(Wᵀ)ᵏ e₁‖ = ρᵏ √(1 + (k a/ρ)²) for W = [[ρ, a], [0, ρ]]."""
    found = experiments.eigenvalues((1.0,), (40,), radius=radius, shear=shear)
    k = np.arange(41)
    np.testing.assert_allclose(found.transient, radius**k * np.sqrt(1 + (k * shear / radius) ** 2), rtol=1e-9)
    assert found.peak == found.transient.max() and found.peak_lag == found.transient.argmax()
    assert found.peak <= found.transient_sigma**found.peak_lag * (1 + 1e-12)


def test_the_default_breaks_the_claim():
    """ρ = 0.9 < 1, and the gradient is 3.9 times as large after 9 steps."""
    found = experiments.eigenvalues()
    assert found.transient_radius < 1 < found.transient_sigma and found.peak > 3.8 and found.transient[-1] < 0.01


def test_a_very_small_gradient_is_measured_too():
    """0.1³⁰⁰ = 10⁻³⁰⁰ is a number and not 0."""
    found = experiments.eigenvalues((0.1,), (300,))
    np.testing.assert_allclose(found.log10_measured, [[-300.0]], rtol=1e-12)


# -- 3 and 4: saturation and both -----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-0.999, 0.999), min_size=1, max_size=4))
def test_tanh_multiplies_by_one_minus_h_squared(values):
    """Measured as the saturation part of each step's gain."""
    found = experiments.saturation(values)
    np.testing.assert_allclose(found.measured, 1 - np.array(values) ** 2, rtol=1e-9)


def test_the_curriculums_four_values():
    """1, 0.75, 0.19 and 0.0199; tanh does not reach 1."""
    np.testing.assert_allclose(experiments.saturation().measured, [1.0, 0.75, 0.19, 0.0199], rtol=1e-10)
    with pytest.raises(errors.ArgumentError, match=r"cannot rest at 1\.0"):
        experiments.saturation((1.0,))


def test_both_compound():
    """Per step the gain is ρ (1 − h²), its logarithms add at every step, and ρ = 1 with saturated units vanishes."""
    found = experiments.compound()
    np.testing.assert_allclose(found.log10_gain, np.log10(found.radius * (1 - found.value**2)), atol=1e-9)
    np.testing.assert_allclose(found.log10_saturation, np.log10(1 - found.value**2), atol=1e-9)
    np.testing.assert_allclose(found.log10_weight, np.log10(found.radius), atol=1e-9)
    np.testing.assert_allclose(found.log10_expected, found.log10_gain, atol=1e-9)
    assert found.excess < 1e-12
    (case,) = np.flatnonzero((found.radius == 1.0) & (found.value == 0.9))
    assert found.steps * found.log10_gain[case] < -20


def test_stronger_inputs_lose_more():
    """An orthogonal RNN loses nothing to W_hh (weight part 1) and ever more to tanh."""
    found = experiments.compound(input_scales=(0.01, 0.3, 1.0, 3.0))
    np.testing.assert_allclose(found.driven_weight, 0.0, atol=1e-12)
    assert (np.diff(found.driven_saturation) < 0).all() and found.driven_saturation[0] > -0.05


# -- 11: the LSTM's equations ---------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), inputs=st.integers(1, 4), hidden=st.integers(1, 5))
def test_the_lectures_lstm_is_ours(seed, inputs, hidden):
    """The lecture's step is that of the oracle, and ours with its weights agrees to rounding; the highway's factor is f to the last bit."""
    found = experiments.lstm_cell(inputs=inputs, hidden=hidden, seed=seed, steps=4)
    assert max(found.hidden_difference, found.cell_difference, found.jacobian_difference) < 1e-14
    assert found.factor_difference == 0.0
    assert (found.kept_at_zero, found.kept_at_one, found.cell_at_zero) == (0.0, 1.0, 0.0)
    rng = np.random.default_rng(seed)
    w, b = rng.standard_normal((4 * hidden, hidden + inputs)), rng.standard_normal(4 * hidden)
    x, h, c = rng.standard_normal(inputs), rng.standard_normal(hidden), rng.standard_normal(hidden)
    for mine, theirs in zip(lecture_lstm_step(x, h, c, w, b), oracles.lecture_lstm_step(x, h, c, w, b), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    cell = nn.LSTMCell(inputs, hidden)
    cell.load_state_dict(from_lecture(w, b, hidden))
    for ours, theirs in zip(cell(x, nn.LSTMState(h, c)), oracles.lecture_lstm_step(x, h, c, w, b), strict=True):
        np.testing.assert_allclose(ours.value, theirs, rtol=1e-12)


# -- 12: retention --------------------------------------------------------------------------------------------------------------


def test_the_highway_keeps_what_the_closed_form_says():
    """0.9¹⁰⁰ = 2.66e-5 and 0.99¹⁰⁰ = 0.366 on the highways of real cells, a ratio of 1.38e4, measured in three ways."""
    found = experiments.lstm_retention()
    np.testing.assert_allclose(10**found.expected, [0.9**100, 0.99**100], rtol=1e-10)
    np.testing.assert_allclose(found.direct, found.expected, atol=1e-10)
    np.testing.assert_allclose(found.blocked, found.expected, atol=1e-10)
    np.testing.assert_allclose(found.detours[:, 0], found.expected, atol=1e-10)
    assert found.ratio == pytest.approx(1.38e4, rel=5e-3)
    assert "1.38e+04" in str(found)


def test_the_total_is_another_number():
    """What all paths keep differs from the direct path; the RNN keeps at most (ρ · max φ′)¹⁰⁰ of it."""
    found = experiments.lstm_retention()
    assert np.abs(found.total - found.direct).max() > 1.0
    assert found.detours[0].argmax() == 2  # of f = 0.9 nearly all comes by paths that leave the highway several times
    assert found.rnn <= 100 * math.log10(0.9) + 1e-9
    with pytest.raises(errors.ArgumentError, match="gates between 0 and 1"):
        experiments.lstm_retention(10, (1.0,))


def test_the_total_of_the_lstm_is_that_of_plain_numpy():
    """∂L/∂c_t over all paths, from a hand-written BPTT of the same network."""
    steps, hidden, gate = 12, 8, 0.9
    found = experiments.lstm_retention(steps, (gate,))
    rng = np.random.default_rng(0)
    xs, reads = rng.standard_normal((steps + 1, 1, 2)), rng.standard_normal(hidden)
    layer = nn.LSTM(2, hidden, rng=0)
    weights = {name: getattr(layer, name + "_l0").value.copy() for name in ("weight_ih", "weight_hh", "bias")}
    for name, w in weights.items():
        w[hidden : 2 * hidden] = math.log(gate / (1 - gate)) if name == "bias" else 0.0
    cell, zeros = oracles.lstm(), np.zeros((1, hidden))
    _, _, kept = oracles.run(cell, xs, (zeros, zeros), weights)
    flowing, norms = (reads[None], zeros), []
    for k in reversed(kept):
        inside = flowing[1] + flowing[0] * k["o"] * (1 - np.tanh(k["cell"]) ** 2)
        norms.append(np.linalg.norm(inside))
        _, flowing, _ = cell.backward(flowing, k, weights)
    assert found.total[0] == pytest.approx(np.log10(norms[-1] / norms[0]), abs=1e-10)


# -- 13: no guarantee -----------------------------------------------------------------------------------------------------------


def test_an_lstm_vanishes_and_explodes():
    """Gates near ½ vanish; large recurrent weights explode although the highway cannot; training unlearns what was kept."""
    found = experiments.lstm_limits()
    closed, wild, before, after = range(4)
    assert 0.4 < found.forget[closed] < 0.6 and found.verdict[closed].startswith("vanishing") and found.log10_left[closed] < -6
    assert found.verdict[wild].startswith("exploding") and found.log10_left[wild] > 1
    assert (found.direct <= 1e-12).all()  # a product of gates cannot grow
    assert found.loss_after < 0.05 * found.loss_before
    assert found.log10_left[after] < found.log10_left[before] - 3 and found.forget[after] < found.forget[before]


# -- 14: the GRU ----------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), hidden=st.integers(2, 5))
def test_the_grus_conventions(seed, hidden):
    """u = 1 − z is ours with negated weights; the highway multiplies by z; u = 0 keeps; the reset variants differ."""
    found = experiments.gru_conventions(seed=seed, hidden=hidden)
    assert found.reset == ("after", "before")
    assert (found.convention_difference < 1e-13).all() and (found.state_moved < 1e-14).all()
    np.testing.assert_array_equal(found.factor_difference, 0.0)
    np.testing.assert_array_equal(found.kept_at_zero, 1.0)
    np.testing.assert_array_equal(found.kept_at_one, 0.0)
    assert found.variants_differ > 1e-3


@pytest.mark.parametrize("reset", ["after", "before"])
def test_the_lectures_gru_is_the_oracles(reset):
    """The convention with u, weight by weight, is the oracle's GRU with z = 1 − u."""
    rng, hidden, inputs = np.random.default_rng(0), 3, 2
    w = {f"{m}_{g}": rng.standard_normal(s) for m, s in (("W", (hidden, inputs)), ("U", (hidden, hidden)), ("b", hidden)) for g in "run"}
    x, h = rng.standard_normal(inputs), rng.standard_normal(hidden)
    weights = {
        "weight_ih": np.concatenate([w["W_r"], -w["W_u"], w["W_n"]]),
        "weight_hh": np.concatenate([w["U_r"], -w["U_u"], w["U_n"]]),
        "bias": np.concatenate([w["b_r"], -w["b_u"], w["b_n"]]),
        "bias_hn": np.zeros(hidden),
    }
    ((expected,), _) = oracles.gru(reset).forward(x[None], (h[None],), weights)
    np.testing.assert_allclose(lecture_gru_step(x, h, w, reset), expected[0], rtol=1e-12)


def test_too_few_steps_are_refused():
    """One step has no step before it."""
    for experiment in (experiments.lstm_cell, experiments.lstm_limits, experiments.gru_conventions):
        with pytest.raises(errors.ArgumentError, match="at least 2 steps, got 1"):
            experiment(steps=1)


# -- 6: near effects ------------------------------------------------------------------------------------------------------------


def test_near_losses_move_the_weights():
    """The matrix is lower triangular and falls off with the distance, trained or not; the loss at step 2 pulls harder at step 1 than
    the one at step 4; and training has worked. (That the entries are right is shown in test_bptt.)"""
    found = tg.experiments.near_effects(steps=8, updates=60, seed=1)
    for matrix, by_distance in ((found.untrained, found.untrained_by_distance), (found.trained, found.trained_by_distance)):
        assert matrix.shape == (8, 8)
        assert np.array_equal(matrix, np.tril(matrix))
        assert (np.diff(by_distance) < 0).all()
    assert (found.pull[:, 1] > found.pull[:, 3]).all()
    assert found.loss[1] < 0.9 * found.loss[0]
    with pytest.raises(tg.errors.ArgumentError, match="at least 4 steps, got 3"):
        tg.experiments.near_effects(steps=3)
