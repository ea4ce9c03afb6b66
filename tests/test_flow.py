"""The vanishing product and the highway, against plain NumPy derivations."""

import gc
import json
import math
import sys
import tracemalloc

import measures
import numpy as np
import pytest
from hypothesis import given
from recurrences import LAYERS, settings

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn
from tinygrad_rnn.flow import stretches

STEPS, BATCH, INPUT, HIDDEN = 12, 2, 3, 5


def traced(network, *, steps=STEPS, keep="arrays", seed=1, scale=1.0):
    """A trace of the sum of the last output, and the input."""
    x = scale * np.random.default_rng(seed).standard_normal((steps, BATCH, INPUT))
    outputs, _ = network(x)
    return tg.trace(outputs[-1].sum(), keep=keep), x


def rnn_states(network, x):
    """The hidden states h_0 … h_T of a tanh RNN."""
    h = [np.zeros((x.shape[1], network.hidden_size))]
    for row in x:
        h.append(np.tanh(row @ network.weight_ih_l0.value.T + h[-1] @ network.weight_hh_l0.value.T + network.bias_l0.value))
    return h


def sigma(a):
    return 1.0 / (1.0 + np.exp(-a))


def lstm_gates(network, x):
    """The forget gates and cells of every step."""
    size = network.hidden_size
    h = c = np.zeros((x.shape[1], size))
    forgets, cells, outs = [], [], []
    for row in x:
        a = row @ network.weight_ih_l0.value.T + h @ network.weight_hh_l0.value.T + network.bias_l0.value
        i, f, g, o = (a[:, k * size : (k + 1) * size] for k in range(4))
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        h = sigma(o) * np.tanh(c)
        forgets.append(sigma(f)), cells.append(c), outs.append(sigma(o))
    return np.array(forgets), np.array(cells), np.array(outs)


# -- the vanishing product ----------------------------------------------------------------------------------------------------


def test_the_product_of_an_rnn_is_that_of_its_step_jacobians():
    """δ_{t−1} = W_hhᵀ diag(1 − h_t²) δ_t, derived by hand, gives norms, gains and both parts."""
    network = nn.RNN(INPUT, HIDDEN, rng=0)
    ledger, x = traced(network)
    result = flow.vanishing_product(ledger)
    h, weight = rnn_states(network, x), network.weight_hh_l0.value
    delta = np.ones((BATCH, HIDDEN))
    for k in range(STEPS):
        assert result.time[k] == STEPS - k
        np.testing.assert_allclose(result.norm[k], np.linalg.norm(delta), rtol=1e-12)
        if k + 1 < STEPS:
            saturated = delta * (1.0 - h[STEPS - k] ** 2)
            np.testing.assert_allclose(result.saturation[k + 1], np.linalg.norm(saturated) / np.linalg.norm(delta), rtol=1e-12)
            np.testing.assert_allclose(result.weight[k + 1], np.linalg.norm(saturated @ weight) / np.linalg.norm(saturated), rtol=1e-12)
            delta = saturated @ weight
    np.testing.assert_allclose(10**result.log10_product, result.norm / result.norm[0], rtol=1e-12)
    np.testing.assert_allclose(result.gain[1:], (result.saturation * result.weight)[1:], rtol=1e-12)


@pytest.mark.parametrize(
    ("factor", "after_100", "word"), [(0.9, 2.66e-5, "vanishing"), (1.0, 1.0, "preserved"), (1.1, 1.38e4, "exploding")]
)
def test_eigenvalues_decide_in_a_linear_recurrence(factor, after_100, word):
    """h_t = λ h_{t−1} keeps λ¹⁰⁰ of its gradient: 2.66e-5, 1 or 1.38e4."""
    network = nn.RNN(1, 4, nonlinearity="relu", bias=False, init=lambda shape, rng: factor * np.eye(*shape), rng=0)
    network.weight_ih_l0.value = np.ones((4, 1))
    outputs, _ = network(np.ones((101, 1, 1)))  # positive throughout, so relu is the identity
    result = flow.vanishing_product(tg.trace(outputs[-1].sum()))
    assert 10 ** result.log10_product[100] == pytest.approx(after_100, rel=3e-3)
    assert result.verdict.startswith(word)
    assert result.spectral_radius == pytest.approx(factor, rel=1e-12)
    assert result.rate == pytest.approx(math.log10(factor), rel=1e-9, abs=1e-12)
    if factor < 1:
        assert result.half_life == pytest.approx(math.log(0.5) / math.log(factor), rel=1e-9)
    else:
        assert result.half_life == math.inf


def test_the_bound_of_pascanu_holds_and_says_more_than_the_spectral_radius():
    """A non-normal W with ρ < 1 first grows: the ratio exceeds ρᵏ, and never σ_maxᵏ."""
    weight = np.array([[0.5, 4.0], [0.0, 0.5]])
    network = nn.RNN(1, 2, bias=False, init=lambda shape, rng: weight, rng=0)
    network.weight_ih_l0.value = np.zeros((2, 1))
    outputs, _ = network(np.zeros((30, 1, 1)))
    result = flow.vanishing_product(tg.trace((outputs[-1] * np.array([1.0, 0.0])).sum()))
    assert result.spectral_radius == pytest.approx(0.5, rel=1e-6)
    assert result.largest_singular_value == pytest.approx(np.linalg.svd(weight)[1][0], rel=1e-12)
    assert result.log10_product[1] > 0 > result.log10_product[-1]
    assert (result.log10_product <= result.log10_bound + 1e-12).all()


def test_an_lstm_has_no_split_and_its_states_are_hidden_and_cell():
    """‖δ_t‖ is the norm of [∂L/∂h_t; ∂L/∂c_t] as the next step sees them, and the parts are NaN, not numbers that mean nothing."""
    network = nn.LSTM(INPUT, HIDDEN, rng=0)
    ledger, _ = traced(network)
    result = flow.vanishing_product(ledger)
    assert np.isnan(result.saturation).all() and np.isnan(result.spectral_radius)
    for k in range(STEPS):
        assert result.norm[k] == pytest.approx(np.linalg.norm(ledger.states()[STEPS - k].cotangent), rel=1e-12)


@pytest.mark.parametrize("instrument", [flow.vanishing_product, flow.highway, flow.timescales, flow.highway_steps])
def test_a_loss_is_traced(instrument):
    """A loss in place of its trace gives the same; anything else is refused by name."""
    network = nn.GRU(INPUT, HIDDEN, rng=0)
    loss = network(np.ones((4, 1, INPUT)))[0][-1].sum()
    assert str(instrument(loss)).splitlines()[:3] == str(instrument(tg.trace(loss))).splitlines()[:3]
    with pytest.raises(errors.ArgumentError, match=rf"{instrument.__name__}: expected a loss \(a Tensor\) or its trace, got float"):
        instrument(1.0)


def test_norms_alone_are_enough():
    """keep="norms" gives the same product, without spectral quantities."""
    network = nn.RNN(INPUT, HIDDEN, rng=0)
    full, lean = (flow.vanishing_product(traced(network, keep=keep)[0]) for keep in ("arrays", "norms"))
    np.testing.assert_array_equal(full.log10_product, lean.log10_product)
    np.testing.assert_array_equal(full.saturation, lean.saturation)
    assert np.isnan(lean.spectral_radius)


def test_the_reference_is_the_last_step_with_a_gradient():
    """If the loss reads an earlier output, the lags count from there."""
    network = nn.GRU(INPUT, HIDDEN, rng=0)
    outputs, _ = network(np.ones((9, 1, INPUT)))
    result = flow.vanishing_product(tg.trace(outputs[5].sum()))
    assert result.time[0] == 6 and len(result.lag) == 6 and result.log10_product[0] == 0.0


def test_results_are_json_and_tables():
    """to_json is valid JSON also with NaN and infinities in it; the table and its HTML name the layer."""
    network = nn.RNN(INPUT, HIDDEN, rng=0)
    ledger, _ = traced(network)
    for result in (flow.vanishing_product(ledger), flow.highway(ledger)):
        assert json.loads(result.to_json())["layer"] == "rnn"
        assert "rnn" in str(result) and "rnn" in result._repr_html_()


def test_what_is_not_there_is_named():
    """A trace without a recurrence, and a layer that no gradient reached, are errors that say so."""
    x = tg.tensor([1.0], requires_grad=True)
    with pytest.raises(errors.ArgumentError, match="no recurrence"):
        flow.vanishing_product(tg.trace(x * 2.0))
    ledger, _ = traced(nn.RNN(INPUT, HIDDEN, rng=0))
    with pytest.raises(errors.ArgumentError, match=r"none fits 'lstm'.*rnn"):
        flow.vanishing_product(ledger, "lstm")


# -- the highway ----------------------------------------------------------------------------------------------------------------


def test_an_rnn_has_no_highway():
    """Every way from h_t to h_{t−1} passes W_hhᵀ."""
    ledger, _ = traced(nn.RNN(INPUT, HIDDEN, rng=0))
    assert flow.highway_steps(ledger) == {}
    found = flow.highway(ledger)
    assert not found.exists and found.role is None and "no highway" in str(found)


def test_the_forget_gate_is_the_only_factor_on_the_lstm_highway():
    """∂c_t/∂c_{t−1} on the direct path is diag(f_t), and over k steps their product."""
    network = nn.LSTM(INPUT, HIDDEN, rng=0)
    ledger, x = traced(network)
    found = flow.highway(ledger)
    forgets, cells, outs = lstm_gates(network, x)
    assert found.role == "cell" and found.labels == ("+", f"⊙ f{'₁₂'}")
    np.testing.assert_allclose(found.factor[1:], forgets[:0:-1], rtol=1e-12)
    gamma = outs[-1] * (1.0 - np.tanh(cells[-1]) ** 2)
    direct = [np.linalg.norm(gamma * np.prod(forgets[STEPS - k :], axis=0)) / np.linalg.norm(gamma) for k in range(STEPS)]
    np.testing.assert_allclose(10**found.log10_direct, direct, rtol=1e-11)
    total = [ledger.states()[STEPS - k].cell.norm for k in range(STEPS)]
    np.testing.assert_allclose(10**found.log10_total, np.array(total) / total[0], rtol=1e-11)


@pytest.mark.parametrize("reset", ["after", "before"])
def test_the_update_gate_is_the_only_factor_on_the_gru_highway(reset):
    """∂h_t/∂h_{t−1} on the direct path is diag(z_t), wherever the reset gate acts."""
    network = nn.GRU(INPUT, HIDDEN, reset=reset, rng=0)
    ledger, _ = traced(network)
    found = flow.highway(ledger)
    assert found.role == "hidden" and found.labels == ("+", "⊙ z₁₂")
    gates = [ledger.states()[t].gates["update"].value for t in range(STEPS, 1, -1)]
    np.testing.assert_array_equal(found.factor[1:], gates)


@pytest.mark.parametrize(("bias", "kept"), [(1000.0, 1.0), (-1000.0, 0.0)])
def test_a_forced_forget_gate_keeps_for_ever_or_resets(bias, kept):
    """f = 1 keeps the direct gradient whole; f = 0 leaves nothing of it after one step; neither makes a NaN."""
    ledger, _ = traced(nn.LSTM(INPUT, HIDDEN, forget_bias=bias, rng=0))
    found = flow.highway(ledger)
    np.testing.assert_array_equal(10 ** found.log10_direct[1:], kept)


def test_ninety_nine_percent_keeps_ten_thousand_times_more_than_ninety():
    """0.99¹⁰⁰ / 0.9¹⁰⁰ = 1.4e4, measured on two LSTM highways with the forget gate held at these values."""
    kept = {}
    for gate in (0.9, 0.99):
        network = nn.LSTM(INPUT, HIDDEN, rng=0)
        weight = network.weight_hh_l0.numpy()
        weight[HIDDEN : 2 * HIDDEN] = 0.0
        network.weight_hh_l0.value = weight
        network.bias_l0.value = np.where((np.arange(4 * HIDDEN) // HIDDEN) == 1, math.log(gate / (1.0 - gate)), network.bias_l0.value)
        ledger, _ = traced(network, steps=101, scale=0.0)
        kept[gate] = 10 ** flow.highway(ledger).log10_direct[100]
    assert kept[0.99] == pytest.approx(0.366, rel=1e-3)
    assert kept[0.99] / kept[0.9] == pytest.approx(1.38e4, rel=3e-3)


def test_a_highway_is_found_by_kinds_not_by_names():
    """A cell of one's own with a skip has a highway of factor 1; without the skip it has none."""
    weight = tg.tensor(0.3 * np.eye(3), requires_grad=True, name="V")
    for skip in (True, False):
        h = tg.tensor(np.full((1, 3), 0.1), requires_grad=True)
        for t in range(1, 6):
            with tg.scope("mine", time=t):
                fresh = np.sin(h @ weight)
                h = tg.landmark(h + fresh if skip else fresh, "s", "hidden")
        found = flow.highway(tg.trace(h.sum()))
        assert found.exists is skip
        if skip:
            np.testing.assert_array_equal(found.factor[1:], 1.0)


def test_a_product_that_no_float_holds_is_kept_as_a_logarithm():
    """Forget gates of e⁻²⁰ over 60 steps leave 10⁻⁵¹²: reported, not rounded to zero."""
    network = nn.LSTM(INPUT, HIDDEN, forget_bias=-20.0, rng=0)
    weight_ih, weight_hh = network.weight_ih_l0.numpy(), network.weight_hh_l0.numpy()
    weight_ih[HIDDEN : 2 * HIDDEN] = weight_hh[HIDDEN : 2 * HIDDEN] = 0.0
    network.weight_ih_l0.value, network.weight_hh_l0.value = weight_ih, weight_hh
    found = flow.highway(traced(network, steps=60)[0])
    assert found.log10_direct[-1] == pytest.approx(59 * math.log10(sigma(-20.0)), rel=1e-12)
    assert found.log10_direct[-1] < -500


def test_norms_cannot_give_factors():
    """highway says that it needs the arrays; highway_steps does not need them."""
    ledger, _ = traced(nn.LSTM(INPUT, HIDDEN, rng=0), keep="norms")
    assert len(flow.highway_steps(ledger)) == STEPS - 1
    with pytest.raises(errors.ArgumentError, match="keep='arrays'"):
        flow.highway(ledger)


def test_a_gradient_that_is_exactly_zero_is_gone_not_preserved():
    """W_hh = 0 stops everything after one step: the verdict says so, and the bound is 1 at lag 0 and 0 after it."""
    result = flow.vanishing_product(traced(nn.RNN(INPUT, HIDDEN, init=0.0, rng=0))[0])
    assert result.verdict == "gone: exactly 0 from lag 1 on"
    assert result.rate == -math.inf and result.half_life == 0.0
    assert result.log10_bound[0] == 0.0 and np.isneginf(result.log10_bound[1:]).all()
    json.loads(result.to_json())


def test_one_step_has_nothing_to_compare():
    """With T = 1 there is neither a product nor a way back, and neither is claimed."""
    ledger, _ = traced(nn.LSTM(INPUT, HIDDEN, rng=0), steps=1)
    assert flow.vanishing_product(ledger).verdict.startswith("one step only")
    assert "one step only" in str(flow.highway(ledger))


# -- laws -----------------------------------------------------------------------------------------------------------------------


@given(drawn=settings(least=2))
def test_product_and_highway_keep_their_laws(drawn):
    """Saturation and weight parts multiply to the gain and the bound holds; the highway's factor is f or z to the last bit.

    Of the last layer, forward and from the end; in a padded batch the factor of an
    idle step is 1, and these are all the highway that an RNN can have.
    """
    make, _, own, _ = LAYERS[drawn.name]
    layer = make(2, drawn.size, rng=drawn.seed, **own, **drawn.options)
    x = np.random.default_rng(drawn.seed + 1).normal(size=(drawn.steps, drawn.batch, 2)).astype(layer.dtype)
    _, state = layer(x, lengths=drawn.lengths)
    ledger = tg.trace(sum((part[-1 - drawn.options["bidirectional"] :] ** 2).sum() for part in state))
    for path in ledger.layers[-1 - drawn.options["bidirectional"] :]:
        states = ledger.states(path)
        if not any(at.norm for at in states):
            continue  # relu units that are all closed
        digits = 1e-4 if drawn.single else 1e-11
        result, found = flow.vanishing_product(ledger, path), flow.highway(ledger, path)
        alive = np.nan_to_num(result.gain) > 0  # not where relu has stopped everything: 0 times nothing
        assert not result.several
        np.testing.assert_allclose(result.handed_back[alive], result.gain[alive], rtol=digits)
        if drawn.name in ("rnn", "relu") and drawn.lengths is None:
            assert not found.exists
            np.testing.assert_allclose((result.saturation * result.weight)[alive], result.gain[alive], rtol=digits)
            assert (result.log10_product <= result.log10_bound + digits).all()
        gate = {"lstm": "forget", "gru": "update", "gru-before": "update"}.get(drawn.name)
        for k in range(1, len(found.lag)):
            time = int(found.time[k - 1])
            expected = states[time].gates[gate].value if gate else np.zeros((drawn.batch, drawn.size))
            if drawn.lengths is not None:
                expected = np.where((drawn.lengths >= time)[:, None], expected, 1.0)
            np.testing.assert_array_equal(found.factor[k], expected)


# -- cost -----------------------------------------------------------------------------------------------------------------------


def calls(function):
    """How many functions, of Python or of C, a call calls."""
    count = 0

    def tell(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # it may call functions of others
    sys.setprofile(tell)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("keep", ["arrays", "norms"])
@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_ledger_product_and_highway_cost_in_proportion_to_the_steps(make, keep):
    """Every fifteen steps take the same calls and the same memory; here the gradient leaves the range of floats after some ten."""
    network = make(INPUT, 16, init=1e-30, rng=0)
    if make is not nn.RNN:
        network.bias_l0.value = np.full(network.bias_l0.shape, -70.0)

    def all_three(steps):
        outputs, _ = network(np.random.default_rng(0).standard_normal((steps, 1, INPUT)))
        ledger = tg.trace(outputs[-1].sum(), keep=keep)
        flow.vanishing_product(ledger)
        flow.highway(ledger) if keep == "arrays" else flow.highway_steps(ledger)

    all_three(45)
    first, second, third = (calls(lambda steps=steps: all_three(steps)) for steps in (15, 30, 45))
    assert third - second == pytest.approx(second - first, rel=0.02)
    assert measures.peak(lambda: all_three(64)) < 2.6 * measures.peak(lambda: all_three(32))


def test_a_ledger_of_norms_holds_the_same_per_step_whatever_the_size():
    """Its memory is proportional to the steps and knows neither the units nor the batch."""

    def held(steps, batch, size):
        outputs, _ = nn.LSTM(INPUT, size, rng=0)(np.ones((steps, batch, INPUT)))
        loss, kept = outputs[-1].sum(), []
        tracemalloc.start()
        try:
            for _ in range(2):  # the first also fills caches
                before = tracemalloc.get_traced_memory()[0]
                kept.append(tg.trace(loss, keep="norms"))
                assert len(kept[-1].steps) and len(kept[-1].states())
                gc.collect()  # what was needed on the way is not held
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    small = held(60, 1, 4)
    assert held(60, 8, 64) == pytest.approx(small, rel=0.05)
    assert held(120, 1, 4) == pytest.approx(2 * small, rel=0.2)


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_steps_that_are_alike_are_done_at_once(make):
    """All steps of a layer differ in their factors only, so they are one run."""
    for steps in (20, 200):
        ledger = tg.trace(make(INPUT, 4, rng=0)(np.zeros((steps, 1, INPUT)))[0][-1].sum())
        found = stretches.stretches(ledger.steps, ledger.states())
        assert stretches.alike(found, 1000) == [list(range(steps - 1))]
        assert [len(run) for run in stretches.alike(found, 10)][:-1] == [10] * ((steps - 1) // 10)
