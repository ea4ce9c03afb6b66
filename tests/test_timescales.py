"""Timescales and saturation, against gates computed by plain NumPy."""

import json
import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn

INPUT, HIDDEN, STEPS, BATCH = 3, 4, 8, 3

KINDS = {
    "rnn": (nn.RNN, {}, oracles.rnn(), None, {}, {"hidden": "new"}),
    "lstm": (nn.LSTM, {}, oracles.lstm(), "forget", {"input": "i", "forget": "f", "output": "o"}, {"candidate": "g", "tanh(cell)": "cell"}),
    "gru-after": (nn.GRU, {"reset": "after"}, oracles.gru("after"), "update", {"reset": "r", "update": "z"}, {"candidate": "n"}),
    "gru-before": (nn.GRU, {"reset": "before"}, oracles.gru("before"), "update", {"reset": "r", "update": "z"}, {"candidate": "n"}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def weights_of(module):
    return {name.removesuffix("_l0"): parameter.value for name, parameter in module.named_parameters()}


def kept_values(kind, module, xs):
    """What the oracle's steps keep, by name, each (T · B, H)."""
    cell = KINDS[kind][2]
    _, _, kept = oracles.run(cell, xs, tuple(np.zeros((xs.shape[1], HIDDEN)) for _ in range(cell.parts)), weights_of(module))
    return {name: np.concatenate([k[name] for k in kept]) for name in kept[0]}


@kinds
@given(seed=st.integers(0, 99), scale=st.sampled_from([0.3, 3.0, 10.0]))
def test_means_fractions_and_slopes_are_those_of_the_gates(kind, seed, scale):
    """Every number per unit is that of gates computed without the engine."""
    make, own, _, gate, sigmoids, tanhs = KINDS[kind]
    module = make(INPUT, HIDDEN, rng=seed, **own)
    xs = scale * np.random.default_rng(seed).standard_normal((STEPS, BATCH, INPUT))
    found, kept = flow.timescales(tg.trace(module(xs)[0].sum())), kept_values(kind, module, xs)
    assert found.gate == gate and found.exists is (gate is not None) and found.steps == STEPS
    assert list(found.left) == list(found.right) == list(sigmoids) and list(found.flat) == list(found.slope) == list(tanhs)
    for name, symbol in sigmoids.items():
        np.testing.assert_array_equal(found.left[name], (kept[symbol] < 0.1).mean(0))
        np.testing.assert_array_equal(found.right[name], (kept[symbol] > 0.9).mean(0))
    for name, symbol in tanhs.items():
        value = np.tanh(kept[symbol]) if name == "tanh(cell)" else kept[symbol]
        np.testing.assert_array_equal(found.flat[name], (np.abs(value) > 0.9).mean(0))
        np.testing.assert_allclose(found.slope[name], (1 - value**2).mean(0), rtol=1e-9)
    if gate:
        mean = kept[sigmoids[gate]].mean(0)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found.timescale, -1 / np.log(mean), rtol=1e-10)
        np.testing.assert_allclose(found.half_life, np.log(0.5) / np.log(mean), rtol=1e-10)
    else:
        assert found.mean.size == found.timescale.size == found.half_life.size == 0


@pytest.mark.parametrize(("gate", "timescale", "half_life"), [(0.5, 1.4427, 1.0), (0.9, 9.4912, 6.5788), (0.99, 99.499, 68.968)])
def test_a_constant_gate_has_the_timescale_of_its_formula(gate, timescale, half_life):
    """f = 0.9 falls to 1/e in 9.49 steps and halves in 6.58: 0.9^6.58 = ½."""
    module = nn.LSTM(INPUT, HIDDEN, forget_bias=math.log(gate / (1 - gate)), rng=0)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        values = getattr(module, name).numpy()
        values[HIDDEN : 2 * HIDDEN] = 0.0
        getattr(module, name).value = values
    found = flow.timescales(tg.trace(module(np.ones((5, 1, INPUT)))[0].sum()))
    np.testing.assert_allclose(found.timescale, timescale, rtol=1e-4)
    np.testing.assert_allclose(found.half_life, half_life, rtol=1e-4)


@pytest.mark.parametrize(("bias", "timescale", "left", "right"), [(1000.0, math.inf, 0.0, 1.0), (-1000.0, 0.0, 1.0, 0.0)])
def test_gates_of_one_and_zero_are_limits_not_nans(bias, timescale, left, right):
    """f = 1 remembers for ever, f = 0 not for a step; neither warns."""
    found = flow.timescales(tg.trace(nn.LSTM(INPUT, HIDDEN, forget_bias=bias, rng=0)(np.ones((5, 1, INPUT)))[0].sum()))
    np.testing.assert_array_equal(found.timescale, timescale)
    np.testing.assert_array_equal(found.left["forget"], left)
    np.testing.assert_array_equal(found.right["forget"], right)
    json.loads(found.to_json())


def test_a_nan_gate_has_no_timescale():
    """NaN is NaN, not for ever."""
    xs = np.ones((5, 1, INPUT))
    xs[2] = np.nan
    found = flow.timescales(tg.trace(nn.LSTM(INPUT, HIDDEN, rng=0)(xs)[0].sum()))
    for value in (found.timescale, found.half_life, found.left["forget"], found.flat["candidate"], found.flow_half_life):
        assert np.isnan(value).all()
    json.loads(found.to_json())


@kinds
def test_padded_steps_do_not_count(kind):
    """A padded batch gives what its sequences give, each run at its own length."""
    make, own, _, gate, sigmoids, tanhs = KINDS[kind]
    module, lengths = make(INPUT, HIDDEN, rng=0, **own), [STEPS, 2, 5]
    xs = 2.0 * np.random.default_rng(0).standard_normal((STEPS, BATCH, INPUT))
    found = flow.timescales(tg.trace(module(xs, lengths=lengths)[0].sum()))
    pieces = [kept_values(kind, module, xs[:n, b : b + 1]) for b, n in enumerate(lengths)]
    kept = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    for name, symbol in sigmoids.items():
        np.testing.assert_allclose(found.right[name], (kept[symbol] > 0.9).mean(0), rtol=1e-12)
    for name, symbol in tanhs.items():
        value = np.tanh(kept[symbol]) if name == "tanh(cell)" else kept[symbol]
        np.testing.assert_allclose(found.slope[name], (1 - value**2).mean(0), rtol=1e-10)
    if gate:
        np.testing.assert_allclose(found.mean, kept[sigmoids[gate]].mean(0), rtol=1e-12)


def test_the_total_flow_has_a_timescale_of_its_own():
    """It is that of the mean rate of δ_t, and is not that of the gates."""
    ledger = tg.trace(nn.LSTM(INPUT, HIDDEN, rng=0)(np.ones((30, 1, INPUT)))[0][-1].sum())
    found, product = flow.timescales(ledger), flow.vanishing_product(ledger)
    assert found.flow_half_life == pytest.approx(product.half_life, rel=1e-12)
    assert found.flow_timescale == pytest.approx(-1 / (product.rate * math.log(10)), rel=1e-12)
    assert product.rate < 0


def test_a_recurrence_without_a_gate_says_so():
    """The RNN has no timescale of its units, and the table says why; a ReLU has no tanh to be saturated either."""
    ledger = tg.trace(nn.RNN(INPUT, HIDDEN, rng=0)(np.ones((5, 1, INPUT)))[0].sum())
    assert "no gate multiplies its memory" in str(flow.timescales(ledger))
    relu = flow.timescales(tg.trace(nn.RNN(INPUT, HIDDEN, nonlinearity="relu", rng=0)(np.ones((5, 1, INPUT)))[0].sum()))
    assert relu.flat == {} and relu.left == {} and "no gate" in str(relu)


def test_cells_directions_and_single_sequences_work():
    """A loop over a cell on single sequences, and one direction of a bidirectional layer."""
    cell, state = nn.GRUCell(INPUT, HIDDEN, rng=0), None
    for x in np.random.default_rng(0).standard_normal((STEPS, INPUT)):
        state = cell(x, state)
    found = flow.timescales(tg.trace(state.hidden.sum()))
    assert found.gate == "update" and found.mean.shape == (HIDDEN,) and found.steps == STEPS
    module = nn.LSTM(INPUT, HIDDEN, bidirectional=True, rng=0)
    ledger = tg.trace(module(np.ones((STEPS, BATCH, INPUT)))[0].sum())
    assert flow.timescales(ledger, "l0_reverse").layer == "lstm/l0_reverse"


def test_a_table_and_json():
    """The table shows the spread over the units in steps; HTML too."""
    found = flow.timescales(tg.trace(nn.GRU(INPUT, HIDDEN, rng=0)(np.ones((5, 1, INPUT)))[0].sum()))
    assert "memory through the update gate" in str(found) and "update: share &gt; 0.9" in found._repr_html_()
    assert json.loads(found.to_json())["left"].keys() == {"reset", "update"}


@pytest.mark.parametrize("units", [1, 2, 4, 7])
def test_quartiles(units):
    """They lie between units where no unit lies at them; two units that remember for ever are no NaN."""
    module = nn.LSTM(1, units, bias=True, rng=0)
    for parameter in module.parameters():
        parameter.value = np.zeros(parameter.shape)
    module.bias_l0.value = np.concatenate([np.zeros(units), np.arange(units), np.zeros(2 * units)])
    row = next(row for row in flow.timescales(module(np.ones((3, 1, 1)))[0].sum()).table().rows if row[0].startswith("forget gate"))
    gate = [float(np.quantile(1 / (1 + np.exp(-np.arange(units))), q)) for q in (0, 0.25, 0.5, 0.75, 1)]
    assert list(row[1:]) == [f"{value:.3g}" for value in gate]
    module.bias_l0.value = np.concatenate([np.zeros(units), np.full(units, 1000.0), np.zeros(2 * units)])
    row = next(row for row in flow.timescales(module(np.ones((3, 1, 1)))[0].sum()).table().rows if row[0].startswith("timescale"))
    assert list(row[1:]) == ["inf"] * 5


def test_values_are_needed():
    """A trace of norms holds no gates."""
    ledger = tg.trace(nn.LSTM(INPUT, HIDDEN, rng=0)(np.ones((5, 1, INPUT)))[0].sum(), keep="norms")
    with pytest.raises(errors.ArgumentError, match="timescales: expected a trace with keep='arrays', got keep='norms'"):
        flow.timescales(ledger)
