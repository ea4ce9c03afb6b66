"""The experiments of the curriculum against closed forms and plain NumPy that knows nothing of the engine."""

import functools
import gc
import inspect
import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import errors, experiments, nn
from tinygrad_rnn.experiments.counts import Way, shortest_way
from tinygrad_rnn.experiments.depth import carried, half_circles, log10_left, stacked
from tinygrad_rnn.experiments.gated import from_lecture, lecture_gru_step, lecture_lstm_step
from tinygrad_rnn.experiments.measurement import PLACES, VERDICTS, close, holds, together
from tinygrad_rnn.experiments.near import pulls
from tinygrad_rnn.experiments.streams import mackey_glass, nodes_held
from tinygrad_rnn.render.charts import Chart, draw, series, to_svg
from tinygrad_rnn.report import plain


@functools.cache
def quick(row):
    """The quick run of a row; once for all tests."""
    try:
        return experiments.run(row)
    except errors.StorageError as error:  # row 18 fetches its sentences once
        pytest.skip(str(error))


@pytest.mark.parametrize("row", experiments.ROWS)
def test_every_experiment_is_a_result(row):
    """A quick run gives a table, HTML, JSON with its settings, claims with a rule, and charts; and it says which claim it is about."""
    found = quick(row)
    assert len(str(found).splitlines()) > 2 and "<table>" in found._repr_html_()
    assert json.loads(found.to_json()).keys() == found.to_dict().keys()
    assert f"Claim (row {row})" in experiments.ROWS[row].function.__doc__
    parameters = inspect.signature(experiments.ROWS[row].function).parameters
    assert set(found.settings) == set(parameters) - set(PLACES)
    assert found.claims() and found.charts()
    for claim in found.claims():
        assert claim.verdict in VERDICTS and all((claim.what, claim.published, claim.measured, claim.rule, claim.source))
    for chart in found.charts():
        assert chart.kind in ("lines", "bars", "heat") and any(len(line.y) for line in chart.series)


@pytest.mark.parametrize("row", experiments.ROWS)
def test_full_settings_are_settings(row):
    """What the full setting changes is a parameter of the function, and another value than the quick one."""
    parameters = inspect.signature(experiments.ROWS[row].function).parameters
    for name, value in experiments.ROWS[row].full.items():
        assert name in parameters and value != parameters[name].default


def test_the_rooms_are_reached_by_name():
    """``tg.experiments`` is loaded when it is named; an unknown row is an error that lists the known ones."""
    assert tg.experiments.run is experiments.run
    with pytest.raises(errors.ArgumentError, match="no experiment for row 0; expected one of 1, 2, 3, 4, 5, 6"):
        experiments.run(0)


@pytest.mark.parametrize("row", [number for number, row in experiments.ROWS.items() if not row.sweeps])
def test_the_same_seed_gives_the_same_numbers(row):
    """Two runs agree to the last bit. (That sweeps do is shown in test_sweeps.)"""
    assert experiments.run(row).to_json() == quick(row).to_json()


def test_settings_are_those_of_the_call():
    """A row's settings are the quick ones, or the full ones, with what the caller changes; and the result has them."""
    assert experiments.run(3, values=(0.5,)).settings == {"values": (0.5,), "steps": 5, "hidden": 4}
    assert experiments.run(3, full=True, hidden=2).settings == {"values": (0.0, 0.5, 0.9, 0.99), "steps": 100, "hidden": 2}


# -- claims and charts ----------------------------------------------------------------------------------------------------------


@given(st.floats(1e-6, 1e6), st.floats(-0.5, 0.5))
def test_a_number_agrees_within_its_distance(published, off):
    """Within 1 % it agrees, beyond it differs."""
    if abs(abs(off) - 0.01) > 1e-9:
        assert close("x", published, published * (1 + off)).verdict == ("agrees" if abs(off) < 0.01 else "differs")


def test_verdicts():
    """None cannot tell; together, what differs is told first, and nothing at all is not reproduced. NaN agrees with nothing."""
    assert [holds("", "", 1.0, true, "").verdict for true in (True, False, None)] == ["agrees", "differs", "not reproduced"]
    assert close("x", 1.0, math.nan).verdict == "differs"
    assert together(["agrees", "agrees"]) == "agrees"
    assert together(["agrees", "not reproduced"]) == "not reproduced" == together([])
    assert together(["not reproduced", "differs", "agrees"]) == "differs"


@pytest.mark.parametrize("row", experiments.ROWS)
def test_charts_survive_a_file(row):
    """A chart that was written as JSON is the same chart again, NaN and infinities included."""
    for chart in quick(row).charts():
        again = Chart.from_dict(json.loads(json.dumps(plain(chart))))
        np.testing.assert_equal(plain(again), plain(chart))
    odd = Chart("lines", "t", "x", "y", (series("$a", [1, 2, 3], [math.nan, math.inf, -math.inf]),), "xy")
    again = Chart.from_dict(json.loads(json.dumps(plain(odd)))).series[0]
    np.testing.assert_array_equal(again.y, odd.series[0].y)
    assert (again.name, again.x, again.joined) == ("$a", (1, 2, 3), True)
    with pytest.raises(errors.ArgumentError, match="'a' has 2 and 3 entries"):
        series("a", [1, 2], [1, 2, 3])


def test_charts_are_drawn():
    """Every kind is drawn, with the names that it was given, the same bytes each time, without pyplot; ``ax`` takes the first."""
    pytest.importorskip("matplotlib")
    lines = Chart("lines", "costs $5", "T", "left", (series("a & <b>", [1, 2], [1.0, 0.1], [0.5, 0.05], [2.0, 0.2]),), "y")
    bars = Chart("bars", "bars", "", "height", (series("one", ["p", "q"], [1.0, 2.0], [0.5, 1.0], [1.5, 3.0]), series("two", ["q"], [3.0])))
    heat = Chart("heat", "heat", "column", "row", tuple(series(str(r), range(3), [0.0, 10.0**-r, math.nan]) for r in range(2)), "y")
    words = Chart(
        "lines", "words", "word", "", (series("w", [f"{k} quite long" for k in range(12)], range(12)), series("v", ["0 quite long"], [1]))
    )
    numbered = Chart("bars", "numbers", "", "", (series("n", [3, 1], [1.0, 2.0]),))
    drawn = to_svg((lines, bars, heat, words, numbered))
    assert drawn == to_svg((lines, bars, heat, words, numbered)) and drawn.startswith("<?xml")
    for text in ("11 quite long", "costs $5", ">left<", ">height<", ">column<", ">p<", ">q<"):
        assert text in drawn
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert experiments.run(3).plot(ax) is figure and len(ax.lines) == 2
    for places, marked in ((range(1, 41, 7), ["1", "8", "15", "22", "29", "36"]), (range(1, 41), ["1", "10"])):
        by_length = Chart("lines", "lengths", "T", "", (series("n", places, places),), "x")
        ax = draw((by_length,)).axes[0]
        low, high = ax.get_xlim()
        ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
        assert [f"{tick:g}" for tick in ticks] == marked
    assert len(experiments.run(6, updates=2).plot().axes) == 4  # two heat maps, each with its colours


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


def test_claims_are_about_the_gates_and_lengths_that_were_measured():
    """The published ratio is that of 0.9 and 0.99 over 100 steps; other settings have closed forms of their own."""
    named = [
        [claim.what for claim in experiments.lstm_retention(steps, gates).claims()]
        for steps, gates in ((100, (0.9, 0.99)), (9, (0.9, 0.5)))
    ]
    assert named[0][:3] == ["highway, f = 0.9, 100 steps", "highway, f = 0.99, 100 steps", "0.99¹⁰⁰ against 0.9¹⁰⁰, on the highway"]
    assert named[1][0] == "highway, f = 0.9, 9 steps" and len(named[1]) == len(named[0]) - 2


@pytest.mark.parametrize(
    ("radii", "about"),
    [
        ((0.95,), []),
        ((0.5,), ["|λ| < 0.9", "a longer T"]),
        ((1.5,), ["|λ| > 1.2", "a longer T"]),
        ((0.5, 1.5), ["|λ| < 0.9", "|λ| > 1.2", "a longer T"]),
    ],
)
def test_claims_are_about_the_radii_that_were_measured(radii, about):
    """Nothing is said of radii that nobody asked for."""
    found = experiments.through_time(radii, (5, 10), networks=("linear",))
    assert [claim.what for claim in found.claims()] == [f"linear: {what}" for what in about]
    assert [claim.what for claim in experiments.through_time((0.5,), (5,), networks=("linear",)).claims()] == ["linear: |λ| < 0.9"]


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
    """The matrix is lower triangular and falls off with the distance, trained or not; the loss at step 2 pulls harder on h₁ than the
    one at step 4; and training has worked. (That the entries are right is shown in test_bptt.)"""
    found = tg.experiments.near_effects(steps=8, updates=60, seed=1)
    for matrix, by_distance in ((found.untrained, found.untrained_by_distance), (found.trained, found.trained_by_distance)):
        assert matrix.shape == (8, 8)
        assert np.array_equal(matrix, np.tril(matrix))
        assert (np.diff(by_distance) < 0).all()
    assert (found.pull[:, 1] > found.pull[:, 3]).all()
    assert found.loss[1] < 0.9 * found.loss[0]
    with pytest.raises(tg.errors.ArgumentError, match="at least 4 steps, got 3"):
        tg.experiments.near_effects(steps=3)


def test_pulls_on_the_first_state():
    """‖∂J⁽ᵗ′⁾/∂h₁‖ is that of the initial state of a sequence that begins one step later, from h₁ on; of J⁽¹⁾, what the loss hands it."""
    layer, x = nn.RNN(3, 4, rng=0), np.random.default_rng(1).standard_normal((5, 2, 3))
    outputs, _ = layer(x)
    later = tg.tensor(outputs.value[:1], requires_grad=True)  # h₁
    through, _ = layer(x[1:], later)
    expected = [np.linalg.norm(tg.grad((at**2).sum(), later)[0].value) for at in (later[0], *through)]
    np.testing.assert_allclose(pulls([(at**2).sum() for at in outputs]), expected, rtol=1e-12)


# -- 5: by eigenvalue and length ------------------------------------------------------------------------------------------------


def test_the_sliders_say_what_they_do():
    """Of the linear recurrence all of it is true: T log₁₀ |λ|, so below 0.9 it vanishes, above 1.2 it explodes, and a longer T is worse.
    A tanh RNN does not explode so; in the LSTM and the GRU less depends on |λ|."""
    found = experiments.through_time((0.5, 0.85, 1.25, 1.5), (5, 20, 80))
    linear, rnn, quiet, lstm, gru = found.log10_left
    np.testing.assert_allclose(linear, np.outer(np.log10(found.radius), found.length), atol=1e-9)
    assert (np.diff(np.abs(linear), axis=1) > 0).all() and (linear[:2, -1] < -3).all() and (linear[2:, -1] > 3).all()
    assert (rnn <= linear + 1e-9).all() and (quiet <= linear + 1e-9).all() and quiet[2, -1] < 3
    for gated in (lstm, gru):
        assert np.ptp(gated[:, -1]) < np.ptp(quiet[:, -1]) < np.ptp(linear[:, -1])
    verdicts = {claim.what: claim.verdict for claim in found.claims()}
    assert {name: verdicts[f"{name}: |λ| > 1.2"] for name in found.network} == dict.fromkeys(found.network, "differs") | {
        "linear": "agrees"
    }
    assert all(verdicts[f"{name}: |λ| < 0.9"] == "agrees" for name in ("linear", "tanh RNN"))
    with pytest.raises(errors.ArgumentError, match="no network 'RNN'; expected some of linear, tanh RNN"):
        experiments.through_time(networks=("RNN",))


@pytest.mark.parametrize(("name", "cell"), [("tanh RNN", oracles.rnn()), ("LSTM, forget bias 1", oracles.lstm()), ("GRU", oracles.gru())])
def test_what_is_left_is_that_of_plain_numpy(name, cell):
    """‖δ_0‖/‖δ_T‖ of each network from a hand-written BPTT with the same weights."""
    steps, hidden, radius = 12, 5, 1.3
    found = experiments.through_time((radius,), (steps,), networks=(name,), hidden=hidden, seed=3)
    rng = np.random.default_rng(3)
    xs, reads = rng.standard_normal((steps, 1, 4)), rng.standard_normal(hidden)
    layer = getattr(nn, name.split(",")[0].split()[-1])(4, hidden, init=lambda shape, rng: radius * nn.init.orthogonal(shape, rng), rng=rng)
    weights = {key.removesuffix("_l0"): parameter.value for key, parameter in layer.named_parameters()}
    zeros = (np.zeros((1, hidden)),) * (2 if "LSTM" in name else 1)
    _, _, kept = oracles.run(cell, xs, zeros, weights)
    on_outputs = np.zeros((steps, 1, hidden))
    on_outputs[-1] = reads
    *_, states = oracles.bptt(cell, kept, weights, on_outputs, tuple(np.zeros_like(part) for part in zeros))
    left = np.linalg.norm(np.concatenate([np.ravel(part) for part in states[0]]))
    assert found.log10_left[0, 0, 0] == pytest.approx(np.log10(left / np.linalg.norm(reads)), abs=1e-10)


# -- 15: the GRU as an LSTM -----------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), inputs=st.integers(1, 4), hidden=st.integers(2, 5))
def test_a_gru_is_an_lstm_on_five_conditions(seed, inputs, hidden):
    """With all of them outputs and gradients agree to rounding; without any one of them they do not."""
    found = experiments.gru_as_lstm(seed=seed, inputs=inputs, hidden=hidden, steps=6)
    assert max(found.outputs[0], found.gradients[0], found.lstm_difference) < 1e-12
    assert (found.outputs[1:] > 1e-3).all() and (found.gradients[1:] > 1e-3).all()
    assert found.claims()[0].verdict == "agrees"


def test_the_outputs_tanh_is_of_third_order():
    """With small states only the output's tanh, x − x³/3, is left between the two: relative to the outputs that falls with the square."""
    found = experiments.gru_as_lstm(scales=(0.01, 0.001))
    assert np.log10(found.tanh_difference[0] / found.tanh_difference[1]) == pytest.approx(2.0, abs=0.1)


# -- 16 and 20: counts ----------------------------------------------------------------------------------------------------------


@given(inputs=st.integers(1, 9), hidden=st.integers(1, 9))
def test_parameters_are_counted(inputs, hidden):
    """G blocks of (I + H + 1) H, and H more for b_hn; the claim about I = 256 and H = 512 is made of these sizes only."""
    found = experiments.parameter_count(inputs=inputs, hidden=hidden)
    block = (inputs + hidden + 1) * hidden
    assert found.parameters.tolist() == found.expected.tolist() == [block, 4 * block, 3 * block, 3 * block + hidden]
    assert len(found.claims()) == 1


def test_the_lectures_parameters():
    """1,574,912 and 1,181,184: a quarter fewer."""
    claims = quick(16).claims()
    assert [claim.measured for claim in claims] == ["25.00% fewer", "1,574,912", "1,181,184"]
    assert {claim.verdict for claim in claims} == {"agrees"}


def every_way(ledger, source, target, through=None):
    """Oracle: the fewest multiplications over all paths, each walked to its end."""
    best, stack = None, [(source, 0, 0, through is None)]
    while stack:
        node, matrices, factors, passed = stack.pop()
        if node is target and passed and (best is None or matrices + factors < sum(best)):
            best = (matrices, factors)
        for step in ledger.steps:
            if step.node is node:
                more = (matrices + (step.kind == "matmul"), factors + (step.kind == "scale"))
                stack.append((step.operand, *more, passed or bool(through and through(step))))
    return best


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_the_shortest_way_is_the_shortest_of_all(name):
    """On a graph small enough to walk every path."""
    x = tg.tensor(np.ones((3, 1, 2)), requires_grad=True)
    ledger = tg.trace(getattr(nn, name)(2, 2, rng=0)(x)[0][-1].sum())
    source, target = ledger.node(x), ledger.states()[1].hidden.node
    last = ledger.states()[3].hidden.node
    for goal in (source, target):
        assert sum(shortest_way(ledger, last, goal)) == sum(every_way(ledger, last, goal))
        by_matrix = shortest_way(ledger, last, goal, lambda step: step.gate == "candidate")
        expected = every_way(ledger, last, goal, lambda step: step.gate == "candidate")
        assert (by_matrix.total is None) if expected is None else (by_matrix.total == sum(expected))
    assert shortest_way(ledger, target, last) == Way(None, None) and Way(None, None).total is None


def test_multiplications_between_tokens():
    """n matrices in the RNN, n factors and no matrix on the highways, one matrix in attention; a stack is as far across as a block."""
    found = experiments.distances((1, 3, 7), (1, 4))
    counted = {name: list(zip(m, f, strict=True)) for name, m, f in zip(found.path, found.matrices, found.factors, strict=True)}
    assert counted["RNN, h to h"] == [(1, 1), (3, 3), (7, 7)]
    assert counted["LSTM, c to c"] == counted["GRU, h to h"] == [(0, 1), (0, 3), (0, 7)]
    assert counted["self-attention, read to V"] == [(1, 0)] * 3 and counted["self-attention, output to input"] == [(3, 0)] * 3
    assert found.stack[0] == found.stack[1] and len(found.first) == len(found.last) == 5
    assert abs(found.first[0]) < 1 and found.first[-1] == found.last[-1] == 0
    with pytest.raises(errors.ArgumentError, match="at least 1"):
        experiments.distances((0,))


# -- 17: depth ------------------------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_plain_stack_is_that_of_plain_numpy():
    """‖∂J/∂input‖/‖∂J/∂output‖ as the product of the layers' Jacobians, by hand."""
    layers, width, seed = 6, 4, 5
    rng = np.random.default_rng(seed)
    stack = stacked("plain", layers, width, rng)
    parameters = [parameter.value for parameter in stack.parameters()]
    h, kept = rng.standard_normal((16, width)), []
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        h = np.tanh(h @ weight.T + bias)
        kept.append((weight, h))
    flowing = arriving = rng.standard_normal(h.shape)
    for weight, h in reversed(kept):
        flowing = (flowing * (1 - h**2)) @ weight
    assert log10_left("plain", layers, width, seed) == pytest.approx(
        np.log10(np.linalg.norm(flowing) / np.linalg.norm(arriving)), abs=1e-12
    )


def test_deep_stacks():
    """The plain stack loses its gradient layer by layer and does not learn at 30 layers; residual and dense keep it, and all three
    others learn. The highway keeps less than a tenth at 100 layers: (1 − σ(−2))¹⁰⁰ = 3.1e-6 of its direct path."""
    found = quick(17)
    left = dict(zip(found.stack, found.log10_left, strict=True))
    assert (np.diff(left["plain"]) < 0).all() and left["plain"][-1] < -20
    assert left["residual"][-1] > 0 and left["dense"][-1] > -1 and -8 < left["highway"][-1] < -3
    deep = dict(zip(found.stack, found.success[:, -1], strict=True))
    assert deep["plain"] == 0 and deep["residual"] == deep["dense"] == deep["highway"] == 1
    assert (found.low <= found.success).all() and (found.success <= found.high).all()
    kept = {claim.what: claim.measured for claim in found.claims()}["highway, 100 layers"]
    assert kept.endswith("the gates' bias alone leaves 3.07e-06") and carried() == pytest.approx(1 - 1 / (1 + math.exp(2)))
    with pytest.raises(errors.ArgumentError, match="at least 1"):
        experiments.deep_stacks(seeds=0)


@pytest.mark.parametrize(
    ("plain", "highway", "where", "verdict"),
    [
        ([1, 0, 0], [1, 1, 0], "20, 100 layers", "agrees"),  # where the plain stack fails, half of the highways learn
        ([1, 0, 0], [1, 0, 0], "20, 100 layers", "not reproduced"),
        ([1, 1, 1], [1, 1, 0], "100 layers", "differs"),
    ],
)
def test_stacks_are_compared_where_the_plain_one_fails(plain, highway, where, verdict):
    """Whether a stack is easier to train is asked where at most a quarter of the plain runs learn; if that is nowhere, at the deepest."""
    success = np.array([plain, [1, 1, 1], [1, 1, 1], highway], dtype=float)
    found = replace(quick(17), trained_depth=np.array([2, 20, 100]), success=success)
    claim = found.claims()[-1]
    assert claim.what == f"highway against plain, trained, {where}" and claim.verdict == verdict


def test_the_half_circles_reach_into_each_other():
    """Without noise all points lie on their circle of radius 1; no line tells the two apart, though all of them are told apart."""
    points, classes = half_circles(2000, np.random.default_rng(0))
    centres = np.where(classes[:, None] == 0, [0.0, 0.0], [1.0, 0.5])
    assert abs(np.linalg.norm(points - centres, axis=1) - 1).max() < 0.5
    rows = np.column_stack([points, np.ones(len(points))])
    weights = np.linalg.lstsq(rows, 2.0 * classes - 1, rcond=None)[0]
    assert 0.05 < np.mean((rows @ weights > 0) != classes) < 0.3


# -- 21: streams ----------------------------------------------------------------------------------------------------------------


def test_a_stream_is_read_as_a_whole():
    """Token by token gives the outputs of the whole sequence; a cut at every k is wrong by less the larger k is, and by nothing at T."""
    found = experiments.streaming((1, 4, 20, 40), steps=40, updates=2, tokens=30)
    assert (found.carried < 1e-14).all()
    assert (np.diff(found.bias, axis=1) < 0).all() and (found.bias[:, -1] < 1e-14).all() and (found.bias[:, 0] > 0.1).all()
    np.testing.assert_allclose(found.cosine[:, -1], 1.0)
    assert (found.cut == 0).all() and (np.diff(found.uncut) > 0).all() and found.held == 0
    with pytest.raises(errors.ArgumentError, match="divide the 10 steps"):
        experiments.streaming((3,), steps=10)


def test_a_cut_gradient_is_that_of_plain_numpy():
    """The gradient that is cut every k steps is the sum over pieces of k steps, each with the state it was handed as a constant."""
    from tinygrad_rnn.experiments.streams import _gradient

    layer, steps, cut, delay = nn.RNN(2, 3, rng=0), 12, 4, 2
    xs = np.random.default_rng(1).standard_normal((steps, 5, 2))
    cell, weights = oracles.rnn(), {name.removesuffix("_l0"): parameter.value for name, parameter in layer.named_parameters()}
    total, state = {name: np.zeros_like(weight) for name, weight in weights.items()}, (np.zeros((5, 3)),)
    for start in range(0, steps, cut):
        outputs, states, kept = oracles.run(cell, xs[start : start + cut], state, weights)
        on_outputs = np.zeros_like(outputs)
        for k in range(cut):
            wanted = xs[start + k - delay, :, 0] if start + k >= delay else 0.0
            on_outputs[k, :, 0] = 2.0 * (outputs[k, :, 0] - wanted)
        shares = oracles.bptt(cell, kept, weights, on_outputs, (np.zeros((5, 3)),))[2]
        total = {name: total[name] + shares[name] for name in total}
        state = states[-1]
    expected = np.concatenate([total[name].ravel() for name in weights])
    np.testing.assert_allclose(_gradient(layer, xs, delay, cut), expected, rtol=1e-10)


def test_an_endless_stream_needs_no_memory():
    """Training on 300 pieces of a stream with the gradient cut between them keeps as many bytes as on 100; without the cut, ever more."""

    def kept_bytes(pieces, detach):
        layer, rng, state = nn.LSTM(2, 8, rng=0), np.random.default_rng(0), None
        tracemalloc.start()
        for _ in range(pieces):
            outputs, state = layer(rng.standard_normal((5, 1, 2)), state)
            if detach:
                outputs.sum().backward()
                layer.zero_grad()
                state = state.detach()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return held, nodes_held(state)

    (short, short_nodes), (long, long_nodes) = kept_bytes(100, True), kept_bytes(300, True)
    assert long < short + 200 * 500 and short_nodes == long_nodes == 0  # some 50 kB of small blocks are kept for reuse; a piece is 2 kB
    (short, short_nodes), (long, long_nodes) = kept_bytes(20, False), kept_bytes(100, False)
    assert long > short + 80 * 2_000 and long_nodes > 4 * short_nodes


def test_the_series_is_that_of_its_equation():
    """Euler's method, written out for one stream with plain floats."""
    drawn = mackey_glass(40, 2, 7)
    x = [np.random.default_rng(7).uniform(0.5, 1.3, 2)[1]] * 170
    for _ in range(3400):
        x.append(x[-1] + 0.1 * (0.2 * x[-170] / (1 + x[-170] ** 10) - 0.1 * x[-1]))
    np.testing.assert_allclose(drawn[:, 1], (np.array(x[170 + 3000 : 170 + 3400 : 10]) - 0.93) / 0.23, rtol=1e-9)


# -- 22: embeddings -------------------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 60), size=st.integers(1, 5), vocabulary=st.integers(2, 300), seed=st.integers(0, 99))
def test_an_embedding_is_a_one_hot_product(length, size, vocabulary, seed):
    """The same numbers and gradients, only rows of words that occur, each the sum over the word's places."""
    found = experiments.embedding(length=length, size=size, vocabulary=vocabulary, seed=seed)
    assert found.output_difference < 1e-14 and max(found.gradient_difference, found.row_difference) < 1e-12
    assert found.rows == found.used <= min(length, vocabulary) and found.strangers == 0 and found.count.sum() == length
    assert (found.kind, found.one_hot_kind) == ("route", "matmul")
    with pytest.raises(errors.ArgumentError, match="at least 2 rows"):
        experiments.embedding(vocabulary=1)
