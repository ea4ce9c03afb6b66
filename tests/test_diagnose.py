"""The report for a network that does not learn: each ailment is planted, and found with its number; a healthy one is left in peace."""

import json
import math

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn


def sequence(steps=40, batch=2, size=2, seed=0):
    return np.random.default_rng(seed).standard_normal((steps, batch, size))


def of(diagnosis, word):
    """The one finding that speaks of something."""
    fitting = [finding for finding in diagnosis.findings if word in finding.what]
    assert len(fitting) == 1, str(diagnosis)
    return fitting[0]


def test_an_rnn_that_vanishes():
    """ρ = 0.5: what is left, since when, the half-life, and that it is W_hh, not saturation."""
    loss = nn.RNN(2, 16, init=0.5, rng=0)(0.1 * sequence())[0][-1].sum()
    found, product = flow.diagnose(loss), flow.vanishing_product(tg.trace(loss))
    finding = of(found, "vanishes")
    assert finding.severity == "severe" and finding.where == "rnn" and not found.healthy
    assert finding.number == product.log10_product[-1] < -6
    since = int(np.argmax(product.log10_product <= -3))
    assert f"passes 1e-3 at step {product.time[since]}, {since} steps from the last one" in finding.what
    assert f"halves every {product.half_life:.3g} steps" in finding.what
    assert "ρ = 0.5" in finding.what and "orthogonal" in finding.advice


def test_an_rnn_that_is_saturated():
    """Large inputs: saturation is what takes the gradient, and the units are named."""
    found = flow.diagnose(nn.RNN(2, 16, init="orthogonal", rng=0)(np.full((40, 1, 2), 30.0))[0][-1].sum())
    assert "smaller inputs" in of(found, "vanishes").advice
    stuck = of(found, "always saturated")
    assert stuck.severity == "warning" and stuck.number > 0.5 and "unit" in stuck.what


def test_an_rnn_that_explodes():
    """A W_hh of ρ = 2 on small activations: by how much, since when, and clipping as the cure."""
    found = flow.diagnose(nn.RNN(2, 16, init=2.0, bias=False, rng=0)(1e-30 * sequence(30))[0][-1].sum())
    finding = of(found, "explodes")
    assert finding.severity == "severe" and finding.number > 6 and "clip_grad_norm" in finding.advice
    assert "ρ = 2" in finding.what


def test_an_lstm_whose_forget_gates_are_half_open():
    """The highway's factor and the gate's mean and half-life are in the text; the cure is its bias."""
    found = flow.diagnose(nn.LSTM(2, 8, forget_bias=0.0, rng=0)(sequence(60))[0][-1].sum())
    finding = of(found, "vanishes")
    assert "mean forget gate 0.49" in finding.what and "highway alone multiplies by 0.498" in finding.what
    assert "forget_bias" in finding.advice


def test_an_lstm_that_explodes_through_a_gate():
    """What crosses W_hh is told apart by gate: here all of it comes from the candidate, since the others have no weights."""
    module = nn.LSTM(2, 8, init=3.0, rng=0)
    weight = module.weight_hh_l0.numpy()
    weight[:16] = weight[24:] = 0.0
    module.weight_hh_l0.value = weight
    module.bias_l0.value = np.repeat([2.0, 0.0, 0.0, 2.0], 8)
    finding = of(flow.diagnose(module(1e-30 * sequence(40))[0][-1].sum()), "explodes")
    assert "100% comes from the candidate gate" in finding.what and finding.number > 3


def test_an_lstm_whose_cell_is_saturated():
    """Cells of 50 and more have a tanh of slope 0: nothing crosses a step, and that is said, not divided by."""
    module = nn.LSTM(2, 8, forget_bias=1000.0, rng=0)
    module.bias_l0.value = np.repeat([1000.0, 1000.0, 1000.0, 0.0], 8)
    module.weight_hh_l0.value = np.zeros((32, 8))
    found = flow.diagnose(module(sequence(60))[0][-1].sum())
    finding = of(found, "Nothing reaches its cell")
    assert finding.number == -math.inf and "0 of it is left" in finding.what and "halves" not in finding.what
    json.loads(found.to_json())


def test_gates_that_are_stuck():
    """A gate that is closed for every unit at every step is named, with the share; an open forget gate is no fault."""
    module = nn.LSTM(2, 8, forget_bias=1000.0, rng=0)
    module.bias_l0.value = np.repeat([-1000.0, 1000.0, 0.0, 0.0], 8)
    found = flow.diagnose(module(sequence(10))[0].sum())
    finding = of(found, "input gate of 8 of 8 units is always closed")
    assert finding.number == 1.0 and finding.severity == "warning"
    assert not any("forget gate of" in f.what for f in found.findings)


def test_relus_that_never_fire():
    """Dead units are counted and listed; a layer that is dead altogether is severe."""
    first, second = nn.Linear(3, 5, rng=0), nn.Linear(5, 1, rng=0)
    first.bias.value = np.array([0.0, -1000.0, 0.0, -1000.0, 0.0])
    x = np.random.default_rng(0).standard_normal((20, 3))
    finding = of(flow.diagnose(second(tg.relu(first(x))).sum()), "never fire")
    assert finding.severity == "warning" and finding.number == 2 / 5 and "units 1, 3" in finding.what
    first.bias.value = np.full(5, -1000.0)
    found = flow.diagnose(second(tg.relu(first(x))).sum())
    assert of(found, "never fire").severity == "severe"
    assert sum("exactly 0" in f.what for f in found.findings) == 3  # both of the first layer, and the second's weight


def test_a_value_that_is_not_finite():
    """The first multiplication that makes an infinity is named with operation and step, and nothing is guessed beside it."""
    outputs, _ = nn.RNN(2, 4, rng=0)(sequence(5))
    with tg.scope("head"):
        loss = np.sqrt(outputs[-1].sum() * 0.0)
    found = flow.diagnose(loss)
    finding = of(found, "makes the first infinity")
    assert finding.severity == "severe" and finding.where == "head" and "sqrt" in finding.what and math.isinf(finding.number)
    assert not any("vanishes" in f.what for f in found.findings)
    json.loads(found.to_json())


def test_a_loss_that_is_not_a_number():
    """The forward pass is blamed for it."""
    x = tg.tensor([-1.0], requires_grad=True)
    found = flow.diagnose(np.log(x).sum())
    assert "the loss is nan: the trouble began in the forward pass" in found.findings[0].what


def test_a_recurrence_that_no_gradient_reaches():
    """A loss that multiplies the outputs by 0 is told."""
    found = flow.diagnose((nn.GRU(2, 4, rng=0)(sequence(5))[0] * 0.0).sum())
    assert of(found, "no gradient reaches").severity == "severe"


def test_large_and_small_gradients():
    """The norm of all gradients is judged: clip, or scale."""
    module = nn.Linear(3, 1, rng=0)
    x = np.ones((4, 3))
    assert "clip_grad_norm" in of(flow.diagnose((module(x) * 1e4).sum()), "norm").advice
    assert "Adam" in of(flow.diagnose((module(x) * 1e-9).sum()), "hardly moves").advice


def test_a_healthy_network():
    """Small notes only: nothing to warn of, and a number all the same."""
    found = flow.diagnose((nn.LSTM(2, 8, rng=0)(sequence(12))[0] ** 2).mean())
    assert found.healthy and [f.severity for f in found.findings] == ["note"]
    assert "nothing that keeps it from learning in lstm" in str(found)
    norm = math.sqrt(sum(np.sum(g**2) for g in tg.trace((nn.LSTM(2, 8, rng=0)(sequence(12))[0] ** 2).mean()).gradients.values()))
    assert found.gradient_norm == pytest.approx(norm, rel=1e-12)


def test_several_layers_are_examined_each_or_one():
    """All recurrences by default, the most serious first; one if it is named. A trace does as well as a loss."""
    lower, upper = nn.GRU(2, 8, rng=0), nn.RNN(8, 8, init=0.3, rng=0)
    loss = upper(lower(sequence())[0])[0][-1].sum()
    found = flow.diagnose(loss)
    assert set(found.layers) == {"gru", "rnn"} and found.findings[0].severity == "severe"
    order = [("severe", "warning", "note").index(f.severity) for f in found.findings]
    assert order == sorted(order)
    only = flow.diagnose(tg.trace(loss), upper)
    assert only.layers == ("rnn",) and all(f.where != "gru" for f in only.findings)


def test_it_reads_well():
    """The text has a title, one paragraph per finding with what to try, and no line that is too long; the table has the numbers."""
    found = flow.diagnose(nn.RNN(2, 16, init=0.5, rng=0)(sequence())[0][-1].sum())
    lines = str(found).splitlines()
    assert lines[0].startswith("1 finding in rnn; ‖gradient‖ =") and max(map(len, lines)) <= 100
    assert any(line.startswith("SEVERE · rnn: the gradient vanishes") for line in lines) and any("Try: " in line for line in lines)
    assert "log₁₀ ‖δ‖/‖δ_T‖" in str(found.table()) and "<table>" in found._repr_html_()


def test_one_step_and_no_recurrence():
    """Nothing is said of a flow through time where there is none."""
    assert flow.diagnose(nn.LSTM(2, 4, rng=0)(sequence(1))[0].sum()).layers == ("lstm",)
    assert flow.diagnose(nn.Linear(2, 1, rng=0)(np.ones((3, 2))).sum()).layers == ()


def test_wrong_arguments_are_named():
    """Something that is no loss, a trace of norms, and a layer that is not there."""
    loss = nn.RNN(2, 4, rng=0)(sequence(5))[0].sum()
    with pytest.raises(errors.ArgumentError, match=r"diagnose: expected a loss \(a Tensor\) or its trace, got float"):
        flow.diagnose(1.0)
    with pytest.raises(errors.ArgumentError, match="keep='arrays'"):
        flow.diagnose(tg.trace(loss, keep="norms"))
    with pytest.raises(errors.ArgumentError, match="none fits 'lstm'"):
        flow.diagnose(loss, "lstm")


def test_a_loss_at_every_step_hides_nothing():
    """With a loss at every step ‖δ‖ stays large, since each step adds its own; what one of them sends back vanishes all the same."""
    layer = nn.RNN(3, 16, init=0.3, rng=0)
    outputs, _ = layer(np.random.default_rng(0).standard_normal((60, 4, 3)))
    loss = (outputs * outputs).sum()
    product = flow.vanishing_product(loss)
    assert product.several and product.verdict.startswith("vanishing") and np.isnan(product.log10_bound).all()
    assert "the gradient vanishes" in str(flow.diagnose(loss))
    assert product == product and product != flow.vanishing_product(loss)
    assert len({product, product}) == 1


def test_an_input_of_zeros_is_told():
    """Weights that multiply nothing but zeros are told so; with a bias the state moves, and W_hh has something to multiply."""
    layer = nn.GRU(2, 4, rng=0)
    layer.bias_l0.value = np.ones(12)
    found = flow.diagnose(layer(np.zeros((6, 3, 2)))[0][-1].sum())
    finding = of(found, "all that it multiplies is 0")
    assert finding.where == "W_ih" and "look at the data" in finding.advice
    assert not any(f.where == "W_hh" for f in found.findings)
    assert not any("multiplies is 0" in f.what for f in flow.diagnose(layer(np.ones((6, 3, 2)))[0][-1].sum()).findings)
    assert not any("multiplies is 0" in f.what for f in flow.diagnose((layer(np.ones((6, 3, 2)))[0] * 0.0).sum()).findings)


def test_the_edge_that_loses_most_is_named():
    """With its line: in an LSTM the product with the forget gate, since most of what is handed back has passed it."""
    said = str(flow.diagnose(nn.LSTM(2, 16, rng=0)(sequence(60))[0][-1].sum())).replace("\n    ", " ")
    assert "Most is lost at ⊙ f₆₀ (forget gate): gain 0.7" in said and "recurrence.py:" in said


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("every", [False, True])
def test_a_network_that_is_wholly_saturated(kind, every):
    """Where 1 − h² is exactly 0, nothing comes to W_hh; that is what it says, and not that W_hh is too small."""
    outputs, _ = kind(3, 4, rng=0)(1e5 * np.random.default_rng(0).standard_normal((5, 2, 3)))
    found = flow.diagnose(outputs.sum() if every else outputs[-1].sum())
    assert not found.healthy
    if kind is nn.RNN:
        assert "saturation multiplies by 0, so that nothing comes to W_hh" in str(found).replace("\n    ", " ")
        assert "smaller inputs or weights" in found.findings[0].advice


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_batch_of_no_sequences(kind):
    """Nothing is known of its gates, and the report is there all the same."""
    loss = kind(3, 4, rng=0)(np.ones((4, 0, 3)))[0].sum()
    assert "no gradient reaches any of its steps" in str(flow.diagnose(loss))
    scales = flow.timescales(loss)
    assert np.isnan(np.concatenate([*scales.slope.values(), *scales.flat.values(), *scales.left.values()])).all()
    assert str(scales)


def test_float16():
    """NumPy computes no eigenvalues of float16; the instruments do, in float64."""
    loss = nn.RNN(3, 4, rng=0, dtype=np.float16)(np.ones((4, 2, 3), np.float16))[0][-1].sum()
    product = flow.vanishing_product(loss)
    assert 0 < product.spectral_radius <= product.largest_singular_value
    assert str(flow.diagnose(loss))
