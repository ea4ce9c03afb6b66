"""Gradients that no float can hold, and the ways on which a step hands them back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
from recurrences import drop_gate

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn
from tinygrad_rnn.flow import relay, stretches


def product_of(layer: Any, x: Any, **options: Any) -> Any:
    outputs, _ = layer(x)
    return flow.vanishing_product(tg.trace(outputs[-1].sum(), **options))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_far_below_what_a_float_holds(dtype: str) -> None:
    """5,000 steps at ρ = 0.8 leave 0.8⁴⁹⁹⁹ = 10⁻⁴⁸⁴ of the gradient; it is reported, with its rate and both factors of every step."""
    layer = nn.RNN(1, 4, bias=False, dtype=dtype, rng=0)
    layer.weight_hh_l0.value, layer.weight_ih_l0.value = 0.8 * np.eye(4), np.zeros((4, 1))
    result = product_of(layer, np.zeros((5000, 1, 1)))
    assert result.log10_product[-1] == pytest.approx(4999 * math.log10(0.8), rel=1e-6 if dtype == "float32" else 1e-12)
    assert np.allclose(result.gain[1:], 0.8, rtol=1e-6)
    assert np.allclose(result.weight[1:], 0.8, rtol=1e-6)
    assert np.allclose(result.saturation[1:], 1.0, rtol=1e-6)
    assert result.verdict == "vanishing: a factor of 0.8 per step"


def test_a_saturated_network_far_below() -> None:
    """Where nothing is equal from step to step, the product is that of step Jacobians multiplied by hand and rescaled on the way."""
    layer = nn.RNN(3, 5, init=0.4, rng=1)
    x = 3.0 * np.random.default_rng(0).normal(size=(900, 2, 3))
    result = product_of(layer, x)
    h, hidden = np.zeros((2, 5)), []
    for row in x:
        h = np.tanh(row @ layer.weight_ih_l0.value.T + h @ layer.weight_hh_l0.value.T + layer.bias_l0.value)
        hidden.append(h)
    delta, log = np.ones((2, 5)), 0.0
    logs = [0.0]
    for h in hidden[:0:-1]:
        delta = (delta * (1 - h * h)) @ layer.weight_hh_l0.value
        length = np.linalg.norm(delta) / (np.sqrt(10) if len(logs) == 1 else 1.0)
        log, delta = log + math.log10(length), delta / np.linalg.norm(delta)
        logs.append(log)
    assert logs[-1] < -400
    assert np.allclose(result.log10_product, logs, rtol=1e-11, atol=1e-11)
    assert np.allclose(result.gain[1:], (result.saturation * result.weight)[1:], rtol=1e-9)


def test_a_loss_in_the_middle_takes_over() -> None:
    """Where a second loss enters, the ledger's own numbers count again."""
    layer = nn.RNN(1, 4, bias=False, rng=0)
    layer.weight_hh_l0.value, layer.weight_ih_l0.value = 0.5 * np.eye(4), np.zeros((4, 1))
    outputs, _ = layer(np.zeros((3000, 1, 1)))
    result = flow.vanishing_product(tg.trace((outputs[-1] + outputs[1499]).sum()))
    assert result.log10_product[1499] == pytest.approx(1499 * math.log10(0.5), rel=1e-12)
    assert result.log10_product[1500] == pytest.approx(0.0, abs=1e-12)
    assert result.log10_product[1600] == pytest.approx(100 * math.log10(0.5), rel=1e-12)


def test_the_ways_of_an_lstm() -> None:
    """Each way is what its own formula gives: directly ⊙ f, and through each gate its part of the pre-activations times W_hh."""
    layer = nn.LSTM(2, 4, rng=3)
    x = np.random.default_rng(0).normal(size=(6, 3, 2))
    outputs, _ = layer(x)
    ledger = tg.trace(outputs[-1].sum())
    result = flow.vanishing_product(ledger)
    states, hh = ledger.states(), layer.weight_hh_l0.value
    for k in range(1, 6):
        at, past = states[7 - k], states[6 - k]
        on_h, on_c = (np.zeros((3, 4)) if part.carried is None else part.carried for part in at.parts)
        i, f, g, o = (at.gates[name].value for name in ("input", "forget", "candidate", "output"))
        shown = np.tanh(at.cell.value)
        on_c = on_c + on_h * o * (1 - shown**2)
        pre = {
            "input": on_c * g * i * (1 - i), "forget": on_c * past.cell.value * f * (1 - f), "candidate": on_c * i * (1 - g * g),
            "output": on_h * shown * o * (1 - o),
        }  # fmt: skip
        ways = {way: a @ hh[b * 4 : (b + 1) * 4] for b, (way, a) in enumerate(pre.items())}
        ways = {**ways, "direct": on_c * f}
        assert result.parts.keys() == ways.keys()
        for way, expected in ways.items():
            assert result.parts[way][k] == pytest.approx(np.linalg.norm(expected) / at.norm, rel=1e-11)
        assert oracles.difference(past.hidden.carried, sum(ways[way] for way in pre)) < 1e-12
        assert oracles.difference(past.cell.carried, ways["direct"]) < 1e-12


@pytest.mark.parametrize(
    ("reset", "ways"), [("after", {"direct", "update", "candidate", "reset"}), ("before", {"direct", "update", "reset", "candidate"})]
)
def test_the_ways_of_a_gru(reset: str, ways: set[str]) -> None:
    """The update gate's way and the direct way are their formulas; all ways together are at least as long as what is handed back."""
    layer = nn.GRU(2, 4, reset=reset, rng=3)
    outputs, _ = layer(np.random.default_rng(0).normal(size=(5, 3, 2)))
    ledger = tg.trace(outputs[-1].sum())
    result, states = flow.vanishing_product(ledger), ledger.states()
    assert result.parts.keys() == ways
    for k in range(1, 5):
        at, past = states[6 - k], states[5 - k]
        delta, z, n = at.hidden.carried, at.gates["update"].value, at.gates["candidate"].value
        pre = delta * (past.hidden.value - n) * z * (1 - z)
        assert result.parts["direct"][k] == pytest.approx(np.linalg.norm(delta * z) / at.norm, rel=1e-11)
        assert result.parts["update"][k] == pytest.approx(np.linalg.norm(pre @ layer.weight_hh_l0.value[4:8]) / at.norm, rel=1e-11)
        assert sum(share[k] for share in result.parts.values()) > 0.999 * result.gain[k]


def test_where_most_is_lost() -> None:
    """The edges are ranked, and say which line of the source recorded them, also of a cell of one's own."""
    weight = tg.tensor(0.1 * np.eye(3), requires_grad=True, name="W")
    h = tg.tensor(np.full((1, 3), 0.2), requires_grad=True)
    with tg.record_sources():
        for t in range(1, 6):
            with tg.scope("mine", time=t):
                h = tg.landmark(np.tanh(h @ weight), "h", "hidden")
    edges = flow.vanishing_product(tg.trace(h.sum())).edges
    assert [edge.label for edge in edges] == ["· W", "⊙ (1 − h₅²)"]
    assert 10 ** edges[0].log10_gain == pytest.approx(0.1)
    assert edges[0].source.split(":")[0] == __file__
    inside = product_of(nn.RNN(2, 4, init=0.3, rng=0), np.zeros((20, 1, 2)))
    assert inside.edges[0].label == "· W_hhᵀ"
    assert "recurrence.py:" in inside.edges[0].source
    assert "most is lost at · W_hhᵀ" in str(inside)


ARCHITECTURES = {
    "rnn": nn.RNN(2, 4, rng=3), "lstm": nn.LSTM(2, 4, rng=3), "gru": nn.GRU(2, 4, rng=3), "gru-before": nn.GRU(2, 4, reset="before", rng=3),
}  # fmt: skip


def handed_back(loss: Any, time: int, *interventions: Any) -> float:
    """The norm of what crosses from this step into the states before it, in a backward pass with these interventions."""
    arrived: dict[int, Any] = {}

    def see(step: Any) -> None:
        if step.time == time and flow.crossing()(step):
            arrived[step.operand.order] = arrived.get(step.operand.order, 0.0) + step.contribution

    loss.backward(observers=[see], interventions=interventions)
    return math.hypot(*(float(np.linalg.norm(part)) for part in arrived.values()))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_share_is_what_an_edge_answers_for(name: str) -> None:
    """Make one multiplication stronger by a millionth: the logarithm of what is handed back grows by the edge's share of that."""
    outputs, _ = ARCHITECTURES[name](np.random.default_rng(0).normal(size=(2, 3, 2)))
    loss = (outputs[-1] ** 2).sum()
    edges = flow.vanishing_product(loss).edges
    assert all(edge.count == 1 and edge.time == 2 for edge in edges)
    for edge in edges:
        where = lambda step, edge=edge: step.time == 2 and step.label == edge.label and step.operand.symbol == edge.to  # noqa: E731
        more, less = (handed_back(loss, 2, flow.scale(where, 1.0 + change)) for change in (1e-6, -1e-6))
        assert edge.share == pytest.approx((math.log(more) - math.log(less)) / 2e-6, rel=1e-6, abs=1e-8)
        assert edge.log10_effect == pytest.approx(edge.share * edge.log10_gain, rel=1e-12)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shares_add_up_over_a_cut(name: str) -> None:
    """All that is handed back has crossed from a step into the one before it once; in an RNN the effects add up to the rate."""
    outputs, _ = ARCHITECTURES[name](np.random.default_rng(0).normal(size=(40, 3, 2)))
    result = flow.vanishing_product(outputs[-1].sum())
    crossing = [edge for edge in result.edges if edge.to in ("h₃₉", "c₃₉")]
    alone = [edge for edge in result.edges if edge.label == "⊙ h₃₉"]  # leads to a gate, not to the state
    assert sum(edge.share for edge in crossing if edge not in alone) == pytest.approx(1.0, rel=1e-9)
    if name == "rnn":
        assert sum(edge.log10_effect for edge in result.edges) == pytest.approx(result.rate, rel=1e-9)
    else:
        assert result.edges[0].gate in ("forget", "update")
        assert len(result.edges) == len({(edge.label, edge.to) for edge in result.edges})
    assert f"most is lost at {result.edges[0].label}" in str(result)
    assert result.edges[0].place in str(result)
    assert "tinygrad_rnn/nn/recurrence.py" in str(result.edges_table())
    assert "half-life" in str(result)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_together_and_one_by_one(name: str, monkeypatch: Any) -> None:
    """Steps that are done at once say what they say alone, with ragged batches and losses in the middle too."""
    layer = ARCHITECTURES[name]
    for lengths in (None, [25, 9, 1]):
        outputs, _ = layer(np.random.default_rng(0).normal(size=(25, 3, 2)), lengths=lengths)
        loss = (outputs[-1] + 0.1 * outputs[12] + 0.1 * outputs[4]).sum()
        together = flow.vanishing_product(loss)
        monkeypatch.setattr(relay, "_ENTRIES", 1)
        alone = flow.vanishing_product(loss)
        monkeypatch.undo()
        monkeypatch.setattr(stretches.Forms, "of", lambda self, stretch: None)  # and with the maps as they are, not joined
        plain = flow.vanishing_product(loss)
        monkeypatch.undo()
        for other in (alone, plain):
            assert together.handed_back[1:] == pytest.approx(other.handed_back[1:], rel=1e-12)
            assert together.several == other.several
            for way, share in together.parts.items():
                assert share == pytest.approx(other.parts[way], rel=1e-12, abs=1e-15)
            for one, two in zip(together.edges, other.edges, strict=True):
                assert (one.label, one.to, one.gate, one.time, one.source) == (two.label, two.to, two.gate, two.time, two.source)
                assert (one.share, one.log10_gain) == pytest.approx((two.share, two.log10_gain), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_far_above_what_a_float_holds(dtype: str) -> None:
    """999 steps back through three times an orthogonal matrix: 3⁹⁹⁹ = 10⁺⁴⁷⁶ of the gradient, which overflows on its way."""
    layer = nn.RNN(2, 16, init=3.0, bias=False, dtype=dtype, rng=0)
    outputs, _ = layer(np.zeros((1000, 1, 2)))
    result = flow.vanishing_product(tg.trace(outputs[-1].sum()))
    assert not np.isfinite(result.norm[-1])
    delta, log = np.ones(16), -math.log10(4.0)
    for _ in range(999):
        delta = delta @ layer.weight_hh_l0.value.astype(np.float64)
        log, delta = log + math.log10(np.linalg.norm(delta)), delta / np.linalg.norm(delta)
    assert result.log10_product[-1] == pytest.approx(log, rel=1e-12 if dtype == "float64" else 1e-6)
    assert result.log10_product[-1] == pytest.approx(476, abs=1)
    assert result.verdict == "exploding: a factor of 3 per step"
    assert np.allclose(result.gain[1:], (result.saturation * result.weight)[1:], rtol=1e-4)


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU])
def test_the_total_beside_the_highway_far_above(make: Any) -> None:
    """At rest at 0 with W_hh = 8 I, a step multiplies by ½ + 2 in total and by ½ on the highway: 10⁺³⁹⁷ and 10⁻³⁰¹ after 999 steps."""
    layer = make(1, 3, bias=False, init=lambda shape, rng: 8.0 * np.eye(*shape), rng=0)
    outputs, _ = layer(np.zeros((1000, 1, 1)))
    found = flow.highway(tg.trace(outputs[-1].sum()))
    assert found.log10_total[1:] - found.log10_total[1] == pytest.approx(np.arange(999) * math.log10(2.5), rel=1e-9, abs=1e-9)
    assert found.log10_direct[-1] == pytest.approx(999 * math.log10(0.5), rel=1e-12)


@pytest.mark.parametrize(("make", "role"), [(nn.LSTM, "cell"), (nn.GRU, "hidden")])
def test_highway_and_total_far_below(make: Any, role: str) -> None:
    """Closed gates lose 10⁻⁴⁰⁰ on the highway, and the total is reported beside it: for constant gates their ratio stays what it is."""
    layer = make(1, 3, init=lambda shape, rng: 0.3 * np.eye(*shape), rng=0)  # real eigenvalues: norms do not swing
    layer.bias_l0.value = np.concatenate([np.full(3, b) for b in ((0.0, -2.0, 0.0, 0.0) if make is nn.LSTM else (0.0, -2.0, 0.0))])
    outputs, _ = layer(np.zeros((1500, 1, 1)))
    found = flow.highway(tg.trace(outputs[-1].sum()))
    assert found.role == role
    assert found.log10_direct[-1] < -400
    assert np.isfinite(found.log10_total).all()
    rates = np.diff(found.log10_total)[100:1300]  # where the state has come to rest
    assert found.log10_total[1300] < -400
    assert np.allclose(rates, rates[0], rtol=0, atol=1e-7)


def test_a_cell_that_nothing_reaches() -> None:
    """With the output gate shut to exactly 0 nothing reaches the cell: a message, not a traceback from inside."""
    layer = nn.LSTM(1, 2, rng=0)
    layer.bias_l0.value = np.repeat([0.0, 0.0, 0.0, -2000.0], 2)
    outputs, _ = layer(np.zeros((4, 1, 1)))
    with pytest.raises(tg.errors.ArgumentError, match="no gradient reached"):
        flow.highway(tg.trace(outputs[-1].sum()))


@pytest.mark.parametrize("keep", ["arrays", "norms"])
@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_nan_is_called_one(make: Any, keep: str) -> None:
    """A cotangent of NaN at the last step, or one that enters 6 steps before it, is neither gone nor preserved."""
    layer, factor = make(2, 3, rng=0), np.ones((20, 1, 3))
    for place, lag in ((19, 0), (13, 6)):
        factor[place] = np.nan
        outputs, _ = layer(np.ones((20, 1, 2)))
        loss = (outputs[-1] * factor[-1]).sum() + (outputs[13] * factor[13]).sum()
        result = flow.vanishing_product(tg.trace(loss, keep=keep))  # type: ignore[arg-type]
        assert result.verdict == f"not finite from lag {lag} on"
        assert math.isnan(result.rate)
        assert math.isnan(result.half_life)
        assert np.isnan(result.log10_product[lag:]).all()
        assert "not finite" in str(result)
        factor[place] = 1.0


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_nan_states(nonlinearity: str) -> None:
    """A ReLU stops the gradient of a NaN, which is 0 then and not gone; nor does a NaN weight stop the spectral quantities."""
    layer, x = nn.RNN(2, 3, nonlinearity=nonlinearity, rng=0), np.ones((10, 1, 2))
    x[4] = np.nan
    result = product_of(layer, x)
    assert result.verdict == "not finite from lag 0 on: the state itself"
    assert math.isnan(result.rate)
    layer.weight_hh_l0.value = np.full((3, 3), np.nan)
    assert math.isnan(product_of(layer, x).spectral_radius)


def test_norms_alone_have_the_rate_of_those_they_can_hold() -> None:
    """Below the trusted norms digits get lost, above them norms are infinite: neither counts. 0.8 and 3 per step in float32 too."""
    for dtype in ("float64", "float32"):
        for factor, word in ((0.8, "vanishing"), (0.45, "gone"), (3.0, "exploding")):
            layer = nn.RNN(1, 4, bias=False, dtype=dtype, rng=0)
            layer.weight_hh_l0.value, layer.weight_ih_l0.value = factor * np.eye(4), np.zeros((4, 1))
            steps = 3330 if factor == 0.8 and dtype == "float64" else 460 if factor == 0.8 else 2000
            result = product_of(layer, np.zeros((steps, 1, 1)), keep="norms")
            assert 10.0**result.rate == pytest.approx(factor, rel=1e-6)
            assert result.verdict.startswith(word)


@pytest.mark.parametrize("keep", ["arrays", "norms"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_loss_at_several_steps(dtype: str, keep: str) -> None:
    """At 0.5 per step a loss at every step keeps ‖δ‖ where it is, but no step preserves anything; σᵏ bounds no such ratio."""
    layer = nn.RNN(1, 4, bias=False, dtype=dtype, rng=0)
    layer.weight_hh_l0.value, layer.weight_ih_l0.value = 0.5 * np.eye(4), np.zeros((4, 1))
    outputs, _ = layer(np.zeros((50, 1, 1)))
    every, last = (flow.vanishing_product(tg.trace(loss.sum(), keep=keep)) for loss in (outputs, outputs[-1]))  # type: ignore[arg-type]
    assert every.several
    assert np.diff(every.norm)[20:] == pytest.approx(0.0, abs=1e-4)
    assert every.handed_back[1:] == pytest.approx(0.5, rel=1e-6)
    assert every.verdict == "vanishing: a factor of 0.5 per step"
    assert every.half_life == pytest.approx(1.0, rel=1e-6)
    assert np.isnan(every.log10_bound).all()
    assert "the loss is read at several steps: the verdict is about what each step hands on" in str(every)
    assert not last.several
    assert last.handed_back[1:] == pytest.approx(last.gain[1:], rel=1e-6)
    assert "several" not in str(last)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_one_more_step_that_is_read_is_noticed(make: Any, dtype: str) -> None:
    """Of random networks, ragged or not: a loss at the last step is that, and one that reads another step a little is not."""
    layer = make(3, 5, dtype=dtype, rng=0)
    for lengths in (None, [30, 12]):
        outputs, _ = layer(np.random.default_rng(0).normal(size=(30, 2, 3)), lengths=lengths)
        last, both = (flow.vanishing_product(tg.trace((outputs[-1] + k * outputs[20]).sum())) for k in (0.0, 0.01))
        assert not last.several
        assert last.handed_back[1:] == pytest.approx(last.gain[1:], rel=1e-5)
        assert both.several
        assert both.rate == pytest.approx(np.mean(np.log10(both.handed_back[1:])))


def test_a_dead_step_between_two_that_are_read() -> None:
    """Two losses, and between them units that are all closed: the first step hands on exactly 0."""
    layer = nn.RNN(1, 2, nonlinearity="relu", bias=False, rng=0)
    layer.weight_hh_l0.value, layer.weight_ih_l0.value = np.eye(2), np.ones((2, 1))
    x = np.ones((8, 1, 1))
    x[5] = -100.0
    outputs, _ = layer(x)
    result = flow.vanishing_product(tg.trace((outputs[-1] + outputs[2]).sum()))
    assert result.several
    assert result.verdict.startswith("gone: exactly 0 is handed on to lag 3")


# -- planted mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["input", "forget", "candidate", "output"])
def test_a_dropped_gate_is_caught(gate: str, monkeypatch: Any) -> None:
    """Without the edges through one gate, what is handed back is no longer what arrives, and the product says so."""
    drop_gate(gate, monkeypatch)
    outputs, _ = ARCHITECTURES["lstm"](np.random.default_rng(0).normal(size=(6, 3, 2)))
    result = flow.vanishing_product(outputs[-1].sum())
    assert result.several
    assert np.max(np.abs(result.handed_back[1:] / result.gain[1:] - 1.0)) > 1e-6


def test_the_wrong_order_of_steps_is_caught(monkeypatch: Any) -> None:
    """Maps of a run that are joined in another order than its cotangents hand back something else."""
    real = relay.joined
    monkeypatch.setattr(relay, "joined", lambda run, place: real(run[::-1], place))
    outputs, _ = ARCHITECTURES["rnn"](np.random.default_rng(0).normal(size=(6, 3, 2)))
    result = flow.vanishing_product(outputs[-1].sum())
    assert result.several
    assert np.max(np.abs(result.handed_back[1:] / result.gain[1:] - 1.0)) > 1e-3


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_nothing_is_said_of_ways_that_nan_hides(kind: Any) -> None:
    """Where the cotangent is NaN its ways are NaN too, not 0, and the table does not name them."""
    outputs, _ = kind(3, 4, rng=0)(np.full((6, 2, 3), np.nan))
    product = flow.vanishing_product(outputs.sum())
    assert all(np.isnan(share[1:]).all() for share in product.parts.values())
    assert "by way" not in str(product)
    healthy = str(flow.vanishing_product(kind(3, 4, rng=0)(np.ones((6, 2, 3)))[0].sum()))
    assert "mean ‖what a step hands back‖/‖δ‖ by way: direct 0." in healthy
