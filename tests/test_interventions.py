"""Interventions: what they leave, what they take away, and that they count; held to detached states and plain NumPy."""

import json
import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn

INPUT, HIDDEN, STEPS, BATCH = 3, 4, 7, 2

KINDS = {
    "rnn-tanh": (nn.RNN, nn.RNNCell, {"nonlinearity": "tanh"}, oracles.rnn("tanh")),
    "rnn-relu": (nn.RNN, nn.RNNCell, {"nonlinearity": "relu"}, oracles.rnn("relu")),
    "lstm": (nn.LSTM, nn.LSTMCell, {}, oracles.lstm()),
    "gru-after": (nn.GRU, nn.GRUCell, {"reset": "after"}, oracles.gru("after")),
    "gru-before": (nn.GRU, nn.GRUCell, {"reset": "before"}, oracles.gru("before")),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def layer(kind, **options):
    make, _, own, _ = KINDS[kind]
    return make(INPUT, HIDDEN, rng=0, **own, **options)


def sequence(steps=STEPS, batch=BATCH, seed=1):
    return np.random.default_rng(seed).standard_normal((steps, batch, INPUT))


def gradients(module, loss, *interventions):
    """The gradients of a module's parameters by name, with interventions."""
    module.zero_grad()
    loss.backward(interventions=interventions)
    return {name: parameter.grad.value.copy() for name, parameter in module.named_parameters()}


def same(got, expected, rtol=1e-12):
    assert got.keys() == expected.keys()
    for name in got:
        assert oracles.difference(got[name], expected[name]) <= rtol, name


def cotangents(loss, role, *interventions):
    """∂L/∂state by time, as the backward pass with these interventions finds it."""
    found = {}

    def look(step):
        if step.node.role == role and step.time is not None:
            found[step.time] = step.cotangent

    loss.backward(observers=[look], interventions=interventions)
    return found


# -- laws ---------------------------------------------------------------------------------------------------------------------


@st.composite
def networks(draw):
    """A recurrent layer with options, run over a batch: the loss."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    options = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from([np.float32, np.float64])),
    }
    steps, batch = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    lengths = draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    outputs, _ = layer(kind, **options)(sequence(steps, batch, draw(st.integers(0, 99))), lengths=lengths)
    return (outputs * outputs).sum()


@given(networks())
def test_an_intervention_with_nothing_to_do_changes_no_bit(loss):
    """p = 0, a factor of 1 and a limit that is never reached leave every gradient as it is, to the last bit."""
    everything = flow.edges()
    idle = [flow.block(everything, p=0.0), flow.scale(everything, 1.0), flow.clip(everything, math.inf), flow.clip(everything, 1e30)]
    found = flow.compare(loss, *idle)
    assert len(found.leaf) > 0
    for without, altered in zip(found.without, found.altered, strict=True):
        assert without.tobytes() == altered.tobytes()
    assert all(e.seen > 0 and e.engaged == 0 for e in found.engagement)


@given(st.sampled_from(sorted(KINDS)), st.sets(st.integers(2, STEPS), min_size=1), st.integers(0, 99))
def test_cutting_time_is_detaching_the_state(kind, steps, seed):
    """The gradient with cut_time(at=…) is that of a loop which detaches the state before those steps."""
    _, make, own, _ = KINDS[kind]
    cell, xs = make(INPUT, HIDDEN, rng=0, **own), sequence(seed=seed)

    def loss(detach):
        state, total = None, 0.0
        for t, x in enumerate(xs, 1):
            state = cell(x, state.detach() if t in detach else state)
            total = total + (state.hidden**2).sum()
        return total

    cut = flow.cut_time(at=steps)
    same(gradients(cell, loss(()), cut), gradients(cell, loss(steps)), rtol=1e-14)
    assert cut.seen == cut.engaged > 0 and set(cut.report().time) == steps


@kinds
@pytest.mark.parametrize("every", [1, 2, 3, STEPS, 100])
def test_cutting_every_k_steps_is_running_pieces_with_detached_states(kind, every):
    """A layer cut every k steps learns what it learns from pieces of k steps, whose states go on without their graph."""
    module, xs = layer(kind), sequence()
    whole = (module(xs)[0] ** 2).sum()
    state, total = None, 0.0
    for start in range(0, STEPS, every):
        outputs, state = module(xs[start : start + every], state)
        state = state.detach()
        total = total + (outputs**2).sum()
    cut = flow.cut_time(every=every)
    same(gradients(module, whole, cut), gradients(module, total))
    assert list(cut.report().time) == list(range(every + 1, STEPS + 1, every))


def test_a_reversed_sweep_is_cut_at_the_same_places():
    """A layer that reads from both ends, cut every 3 of 6 steps, learns what two detached pieces teach each direction."""
    module, xs = layer("gru-after", bidirectional=True), sequence(6)
    learned = gradients(module, (module(xs)[0] ** 2).sum(), flow.cut_time(every=3))
    for suffix, pieces in (("", (xs[:3], xs[3:])), ("_reverse", (xs[:2:-1], xs[2::-1]))):
        single = layer("gru-after")
        single.load_state_dict({name + "_l0": getattr(module, f"{name}_l0{suffix}").value for name in oracle_names(single)})
        state, total = None, 0.0
        for piece in pieces:
            outputs, state = single(piece, state)
            state = state.detach()
            total = total + (outputs**2).sum()
        expected = gradients(single, total)
        same({name: learned[f"{name}_l0{suffix}"] for name in oracle_names(single)}, {n[:-3]: g for n, g in expected.items()})


def oracle_names(module):
    return [name.removesuffix("_l0") for name, _ in module.named_parameters()]


@pytest.mark.parametrize(
    ("kind", "role", "gate"), [("lstm", "cell", "forget"), ("gru-after", "hidden", "update"), ("gru-before", "hidden", "update")]
)
@given(seed=st.integers(0, 99))
def test_blocking_the_recurrent_matmuls_leaves_exactly_the_highway(kind, role, gate, seed):
    """With W_hh blocked, ∂L/∂s_{t−1} = gate_t ⊙ ∂L/∂s_t to the last bit: nothing but the highway is left."""
    outputs, _ = layer(kind)(sequence(seed=seed))
    loss = outputs[-1].sum()
    gates = tg.trace(loss).states()
    found = cotangents(loss, role, flow.block(flow.recurrent()))
    assert sorted(found) == list(range(1, STEPS + 1))
    for t in range(2, STEPS + 1):
        np.testing.assert_array_equal(found[t - 1], gates[t].gates[gate].value * found[t])


@pytest.mark.parametrize("kind", ["rnn-tanh", "rnn-relu"])
def test_an_rnn_without_its_matmuls_has_nothing_left(kind):
    """The RNN has no highway: blocking W_hh cuts every step off."""
    loss = layer(kind)(sequence())[0][-1].sum()
    found = cotangents(loss, "hidden", flow.block(flow.recurrent()))
    assert all(not found[t].any() for t in found if t < STEPS) and found[STEPS].all()


# -- block --------------------------------------------------------------------------------------------------------------------


def test_h_detach_is_the_backward_pass_without_h_at_the_drawn_steps():
    """With the draws of block(recurrent(), p), a plain NumPy BPTT that drops the way through h at those steps gives the gradient."""
    module, xs = layer("lstm"), sequence()
    weights = {name: getattr(module, name + "_l0").value for name in ("weight_ih", "weight_hh", "bias")}
    cell = oracles.lstm()
    outputs, _, kept = oracles.run(cell, xs, (np.zeros((BATCH, HIDDEN)),) * 2, weights)
    detach = flow.block(flow.recurrent(), p=0.5, rng=3)
    got = gradients(module, (module(xs)[0] ** 2).sum(), detach)
    report = detach.report()
    blocked = {int(t) for t, engaged in zip(report.time, report.engaged_at, strict=True) if engaged}
    assert 0 < len(blocked) < STEPS - 1 == report.seen
    total = {name: np.zeros_like(w) for name, w in weights.items()}
    flowing = (np.zeros((BATCH, HIDDEN)),) * 2
    for t in range(STEPS, 0, -1):
        _, (dh, dc), shares = cell.backward((flowing[0] + 2 * outputs[t - 1], flowing[1]), kept[t - 1], weights)
        flowing = (0.0 * dh if t in blocked else dh, dc)
        total = {name: total[name] + shares[name] for name in total}
    same(got, {name + "_l0": g for name, g in total.items()})


def test_a_seed_gives_the_same_draws_and_another_seed_others():
    """Two interventions of the same seed engage at the same steps; a Generator may be handed over."""
    loss = layer("lstm")(sequence(40))[0].sum()

    def drawn(rng):
        intervention = flow.block(flow.recurrent(), p=0.5, rng=rng)
        loss.backward(interventions=[intervention])
        return intervention.report().engaged_at.tolist()

    assert drawn(7) == drawn(7) == drawn(np.random.default_rng(7)) != drawn(8)


def test_there_is_one_draw_per_step_for_all_its_edges():
    """Both ways by which a GRU with reset before reads h_{t−1} are blocked together, in each of two layers apart, in every pass anew."""
    loss = (layer("gru-before", num_layers=2)(sequence(30))[0] ** 2).sum()
    for module_loss in (loss, _cell_loss(30)):
        passes = []
        intervention = flow.block(flow.recurrent("l1") if module_loss is loss else flow.recurrent(), p=0.5, rng=0)
        for _ in range(3):
            intervention.reset()
            module_loss.backward(interventions=[intervention])
            report = intervention.report()
            assert set(report.seen_at) == {2} and set(report.engaged_at) == {0, 2}
            passes.append(report.engaged_at.tolist())
        assert passes[0] != passes[1] != passes[2]


def _cell_loss(steps):
    cell, state = nn.GRUCell(INPUT, HIDDEN, reset="before", rng=0), None
    for x in sequence(steps):
        state = cell(x, state)
    return (state.hidden**2).sum()


def test_it_blocks_as_often_as_it_says():
    """Over 2,000 steps the share of blocked steps is p, within four standard deviations."""
    intervention = flow.block(flow.recurrent(), p=0.3, rng=0)
    nn.LSTM(1, 1, rng=0)(np.ones((2001, 1, 1)))[0].sum().backward(interventions=[intervention])
    assert intervention.seen == 2000
    assert abs(intervention.engaged / 2000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


def test_edges_outside_of_steps_are_drawn_one_by_one():
    """Where there is no sequence, each edge has a draw of its own."""
    x = tg.tensor(np.ones(5), requires_grad=True)
    y = x
    for _ in range(200):
        y = y * 1.5
    intervention = flow.block(flow.edges(op="multiply"), p=0.5, rng=0)
    y.sum().backward(interventions=[intervention])
    assert intervention.seen == 200 and 60 < intervention.engaged < 140
    assert not x.grad.value.any()


def test_a_contribution_that_is_not_finite_is_blocked_too():
    """What is blocked is 0, not 0 · ∞."""
    x = tg.tensor([0.0], requires_grad=True)
    np.sqrt(x).sum().backward(interventions=[flow.block(flow.edges(op="sqrt"))])
    assert x.grad.value == 0.0


# -- scale and clip -------------------------------------------------------------------------------------------------------------


@given(networks(), st.sampled_from([0.5, 2.0, 4.0]))
def test_scaling_the_last_edges_scales_those_gradients_alone(loss, factor):
    """A factor on the edges into W_ih is a factor on its gradient and on no other; powers of two are exact."""
    found = flow.compare(loss, flow.scale(lambda step: str(step.operand.name).startswith("W_ih"), factor))
    for name, without, altered in zip(found.leaf, found.without, found.altered, strict=True):
        np.testing.assert_array_equal(altered, without * factor if name.startswith("W_ih") else without)
    assert found.engagement[0].engaged


@kinds
def test_a_factor_of_zero_is_a_block(kind):
    """scale(where, 0) and block(where) give the same gradient."""
    module = layer(kind)
    loss = (module(sequence())[0] ** 2).sum()
    same(gradients(module, loss, flow.scale(flow.recurrent(), 0.0)), gradients(module, loss, flow.block(flow.recurrent())), rtol=0.0)


@kinds
def test_clipping_shortens_what_is_too_long_and_nothing_else(kind):
    """After clip no contribution that fits is longer than the limit; those that were shorter are untouched."""
    loss = (layer(kind)(sequence())[0] ** 2).sum() * 30.0
    before, after = [], []
    where = flow.crossing()
    limit = flow.clip(where, 5.0)
    watch = flow.Intervention("watch", where, lambda step: before.append(step.contribution))
    loss.backward(interventions=[watch, limit], observers=[lambda step: after.append(step.contribution) if where(step) else None])
    assert len(before) == len(after) == limit.seen and limit.engaged > 0
    for was, now in zip(before, after, strict=True):
        norm = np.linalg.norm(was)
        np.testing.assert_allclose(now, was * min(1.0, 5.0 / norm), rtol=1e-14)
    assert watch.engaged == 0


def test_clip_leaves_what_is_not_finite_to_be_found():
    """An infinite contribution is passed on."""
    x = tg.tensor([0.0, 1.0], requires_grad=True)
    np.sqrt(x).sum().backward(interventions=[limit := flow.clip(flow.edges(op="sqrt"), 1.0)])
    assert np.isinf(x.grad.value[0]) and limit.engaged == 0


# -- force_gate -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "gates"),
    [("lstm", ("input", "forget", "candidate", "output")), ("gru-after", ("reset", "update")), ("gru-before", ("reset", "update"))],
)
def test_forcing_a_gate_to_its_own_value_changes_no_bit(kind, gates):
    """The factor is replaced where it is the gate, and by 1 − value where it is 1 − z."""
    loss = (layer(kind)(sequence())[0] ** 2).sum()
    states = tg.trace(loss).states()
    forced = [
        flow.force_gate(gate, states[t].gates[gate].value, flow.edges(time=t)) for gate in gates for t in range(1, STEPS + 1)
    ]  # fmt: skip
    found = flow.compare(loss, *forced)
    for without, altered in zip(found.without, found.altered, strict=True):
        np.testing.assert_array_equal(without, altered)
    assert sum(e.engaged for e in found.engagement) > len(gates) * (STEPS - 1)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_forced_forget_gate_is_the_factor_on_the_highway(value):
    """With f forced and W_hh blocked, ∂L/∂c_{t−1} = value · ∂L/∂c_t."""
    loss = layer("lstm")(sequence())[0][-1].sum()
    found = cotangents(loss, "cell", flow.force_gate("forget", value), flow.block(flow.recurrent()))
    for t in range(2, STEPS + 1):
        np.testing.assert_array_equal(found[t - 1], value * found[t])


def test_forcing_the_update_gate_forces_both_factors():
    """z forced to 1 gives the new content no gradient, since its factor is 1 − z."""
    loss = layer("gru-after")(sequence())[0][-1].sum()
    found = flow.compare(loss, flow.force_gate("update", np.ones(HIDDEN)), flow.block(flow.edges(role="gate", gate="update")))
    assert all(not np.any(altered) for altered in found.altered)


def test_a_gate_that_is_not_there_is_never_seen():
    """The count tells that nothing fitted."""
    found = flow.compare(layer("lstm")(sequence())[0].sum(), flow.force_gate("update", 1.0))
    assert found.engagement[0].seen == 0


# -- edges ------------------------------------------------------------------------------------------------------------------------


def test_predicates_select_and_combine():
    """Conditions, &, |, ~ and plain functions select what they say."""
    ledger = tg.trace((layer("lstm")(sequence())[0] ** 2).sum())
    every = len(ledger.steps)
    matmul = flow.edges(kind="matmul")
    assert len(ledger.filter(where=flow.edges())) == every
    assert ledger.filter(where=matmul) == ledger.filter(kind="matmul")
    assert len(ledger.filter(where=~matmul)) == every - len(ledger.filter(kind="matmul"))
    assert ledger.filter(where=matmul & flow.edges(time=3)) == ledger.filter(kind="matmul", time=3)
    late = matmul & (lambda step: step.time is not None and step.time > 4)
    assert ledger.filter(where=late) == ledger.filter(kind="matmul", time=range(5, STEPS + 1))
    assert ledger.filter(where=flow.edges(gate=("forget", "input"))) == ledger.filter(gate=("forget", "input"))
    assert ledger.filter(where=flow.edges(scope="lstm")) == ledger.filter(scope="lstm")
    assert ledger.filter(where=flow.edges(op="tanh") | flow.edges(op="sigmoid")) == ledger.filter(op=("tanh", "sigmoid"))
    assert {step.operand.name for step in ledger.filter(where=flow.edges(into=("W_hh", "b")))} == {"W_hh", "b"}
    assert repr(late) == "<edges: kind matmul and <lambda>>"
    assert repr(flow.edges()) == "<edges: all>" and repr(matmul | ~matmul) == "<edges: (kind matmul or not (kind matmul))>"


@kinds
@given(lengths=st.none() | st.lists(st.integers(1, STEPS), min_size=BATCH, max_size=BATCH))
def test_crossing_edges_are_all_that_goes_through_time(kind, lengths):
    """With the crossing edges blocked, no gradient of the last output reaches any state but the last, padded or not."""
    outputs, _ = layer(kind)(sequence(), lengths=lengths)
    loss = (outputs[-1] + outputs[-2]).sum()
    found = cotangents(loss, "hidden", flow.block(flow.crossing()))
    assert all(not found[t].any() for t in found if t < STEPS - 1)


def test_a_layer_can_be_named_or_given():
    """The same edges by module, by path and by the end of the path; a second layer is not touched."""
    module = layer("lstm", num_layers=2)
    ledger = tg.trace(module(sequence())[0][-1].sum())
    both = ledger.filter(where=flow.crossing())
    assert len(both) == 4 * (STEPS - 1)
    assert ledger.filter(where=flow.crossing(module)) == both == ledger.filter(where=flow.crossing("lstm"))
    assert len(ledger.filter(where=flow.crossing("lstm/l1"))) == len(ledger.filter(where=flow.crossing("l1"))) == len(both) // 2
    other = layer("lstm")
    assert ledger.filter(where=flow.crossing(other)) == []
    cut = flow.cut_time(every=2, layer="l0")
    module(sequence())[0].sum().backward(interventions=[cut])
    assert cut.seen == 2 * 3


def test_what_another_recurrence_reads_does_not_cross():
    """A second cell that reads the first one's earlier states teaches it through them, also when both are cut at every step."""
    lower, upper, xs = nn.GRUCell(INPUT, HIDDEN, rng=0), nn.GRUCell(HIDDEN, HIDDEN, rng=1), sequence()

    def loss(detach):
        low, high = lower(xs[0]), None
        for x in xs[1:]:
            for _ in range(2):  # so that its time is another one than that of what it reads
                high = upper(low.hidden, high.detach() if detach and high else high)
            low = lower(x, low.detach() if detach else low)
        return (high.hidden**2).sum()

    parameters = nn.Sequential(lower, upper)
    cut = gradients(parameters, loss(False), flow.cut_time(every=1))
    same(cut, gradients(parameters, loss(True)), rtol=1e-14)
    assert cut["0.weight_ih"].any()


def test_a_recurrence_of_ones_own_has_crossing_edges():
    """States marked with landmarks are enough."""
    weight = tg.tensor(0.5 * np.eye(2), requires_grad=True)
    h = tg.tensor(np.ones((1, 2)), requires_grad=True)
    for t in (1, 2, 3):
        with tg.scope("mine", time=t):
            h = tg.landmark(np.sin(h @ weight), "h", "hidden")
    cut = flow.cut_time(at=3)
    h.sum().backward(interventions=[cut])
    assert cut.engaged == 1 and weight.grad is not None


# -- with create_graph --------------------------------------------------------------------------------------------------------------


def test_interventions_work_in_a_recorded_pass():
    """The first-order gradient is the same with create_graph, and the altered pass can be differentiated again."""
    module = layer("lstm")
    loss = (module(sequence())[0] ** 2).sum()
    made = [
        lambda: flow.block(flow.recurrent(), p=0.5, rng=0),
        lambda: flow.scale(flow.recurrent(), 0.5),
        lambda: flow.clip(flow.crossing(), 0.1),
        lambda: flow.force_gate("forget", 0.9),
        lambda: flow.cut_time(every=3),
    ]
    for make in made:
        plain = gradients(module, loss, make())
        module.zero_grad()
        loss.backward(create_graph=True, interventions=[make()])
        recorded = {name: parameter.grad for name, parameter in module.named_parameters()}
        same({name: g.value for name, g in recorded.items()}, plain)
        again = tg.grad(sum((g * g).sum() for g in recorded.values()), module.weight_hh_l0)[0]
        assert np.isfinite(again.value).all() and again.value.any()


# -- counting, comparing, printing ----------------------------------------------------------------------------------------------------


def test_compare_gives_both_gradients_and_touches_none():
    """Norms, ratio and cosine are those of the two gradients; .grad stays as it was; counts begin at 0."""
    module = layer("lstm", num_layers=2)
    loss = (module(sequence())[0] ** 2).sum()
    plain = gradients(module, loss)
    cut = flow.cut_time(every=2)
    cut(next(iter(tg.trace(loss).filter(where=flow.crossing()))))
    found = flow.compare(loss, cut)
    same({name: p.grad.value for name, p in module.named_parameters()}, plain, rtol=0.0)
    altered = gradients(module, loss, flow.cut_time(every=2))
    assert len(found.leaf) == len(set(found.leaf)) == 6
    for name, parameter in module.named_parameters():
        k = next(k for k, g in enumerate(found.without) if g.shape == parameter.shape and oracles.difference(g, plain[name]) < 1e-12)
        a, b = plain[name].ravel(), altered[name].ravel()
        np.testing.assert_allclose(found.altered[k].ravel(), b, rtol=1e-12)
        np.testing.assert_allclose([found.norm_without[k], found.norm_altered[k]], [np.linalg.norm(a), np.linalg.norm(b)], rtol=1e-12)
        np.testing.assert_allclose(found.ratio[k], np.linalg.norm(b) / np.linalg.norm(a), rtol=1e-12)
        np.testing.assert_allclose(found.cosine[k], a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-12)
    assert found.engagement[0].seen == cut.seen == 2 * 2 * 3
    assert json.loads(found.to_json())["leaf"] == list(found.leaf)
    assert "cut every 2 steps: 12 of 12 edges" in str(found) and "W_hh_l1" in str(found)


def test_a_gradient_that_is_gone_has_no_direction():
    """Where an intervention leaves nothing, the ratio is 0 and there is no cosine."""
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    found = flow.compare((x * x).sum(), flow.block(flow.edges()))
    assert found.ratio[0] == 0.0 and np.isnan(found.cosine[0]) and found.leaf == ("leaf (2,)",)


def test_an_intervention_reports():
    """Counts by step are a table, JSON and HTML; a long sequence is abridged; reset begins anew."""
    cut = flow.cut_time(every=2)
    layer("lstm")(sequence(60))[0].sum().backward(interventions=[cut])
    report = cut.report()
    assert report.seen == report.engaged == sum(report.seen_at) == 2 * 29
    assert json.loads(report.to_json())["time"] == list(range(3, 61, 2))
    assert cut.to_json() == report.to_json()
    text = str(cut)
    assert "cut every 2 steps: engaged at 58 of 58 edges" in text and "…" in text and len(text.splitlines()) < 20
    assert "<table>" in cut._repr_html_() and "58 of 58" in repr(cut)
    cut.reset()
    assert cut.seen == cut.engaged == 0 and cut.report().time.size == 0 and "0 of 0" in str(cut)


def test_an_intervention_of_ones_own_counts_too():
    """A function that returns None has not engaged."""
    x = tg.tensor([1.0, -2.0], requires_grad=True)
    double = flow.Intervention("double", flow.edges(op="multiply"), lambda step: 2 * step.contribution if step.position else None)
    (x * x).sum().backward(interventions=[double])
    np.testing.assert_array_equal(x.grad.value, 3 * x.value)
    assert (double.seen, double.engaged) == (2, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flow.block(flow.edges(), p=1.5), "block: p must be a probability"),
        (lambda: flow.block(flow.edges(), p=True), "block: p must be a probability"),
        (lambda: flow.block(flow.edges(), p=0.5, rng=-1), "block: rng must be"),
        (lambda: flow.block("W_hh"), r"block: where must be a function of a BackwardStep, got str. flow.edges"),
        (lambda: flow.scale(flow.edges(), math.nan), "scale: factor must be a finite number"),
        (lambda: flow.clip(flow.edges(), -1.0), "clip: max_norm must be a number of at least 0"),
        (lambda: flow.clip(flow.edges(), math.nan), "clip: max_norm must be a number of at least 0"),
        (lambda: flow.force_gate(1, 0.0), "force_gate: gate must be a name"),
        (lambda: flow.force_gate("forget", "all"), "force_gate: value must be a number"),
        (lambda: flow.force_gate("forget", 1.0, 3), "force_gate: where must be a function"),
        (lambda: flow.cut_time(), "cut_time: expected either every= or at=, got neither"),
        (lambda: flow.cut_time(every=2, at=3), "got both"),
        (lambda: flow.cut_time(every=0), "cut_time: every must be whole numbers of at least 1, got 0"),
        (lambda: flow.cut_time(at=[3, 2.5]), "cut_time: at must be whole numbers of at least 1, got 2.5"),
        (lambda: flow.edges(kind="matmull"), "edges: kind 'matmull' does not exist; expected one of add, scale, matmul, route"),
        (lambda: flow.edges(role=("hidden", "state")), "edges: role 'state' does not exist"),
        (lambda: flow.compare(tg.tensor(1.0, requires_grad=True) * 1.0, 3), "compare: expected interventions"),
        (lambda: flow.compare(tg.tensor(1.0, requires_grad=True) * 1.0, flow.recurrent()), "which selects edges and alters none"),
        (lambda: flow.edges(kind=3), "edges: kind 3 does not exist"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    """The message says what was expected and what came."""
    with pytest.raises(errors.ArgumentError, match=message):
        make()


def test_a_forced_value_of_the_wrong_shape_is_refused():
    """An array that does not fit the gate stops the pass; one that fits its units does not."""
    loss = layer("lstm")(sequence())[0].sum()
    for wrong in (np.ones(HIDDEN + 1), np.ones((3, BATCH, HIDDEN))):
        with pytest.raises(errors.ArgumentError, match=r"force_gate: value has shape .*; the forget gate has \(2, 4\) at ⊙ f₇"):
            loss.backward(interventions=[flow.force_gate("forget", wrong)])
    loss.backward(interventions=[flow.force_gate("forget", np.ones(HIDDEN))])


def test_a_name_that_does_not_exist_is_pointed_out() -> None:
    """An intervention that fits no edge changes nothing; the comparison says that it fitted none."""
    outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
    found = flow.compare(outputs[-1].sum(), flow.force_gate("forgot", 1.0))
    assert "no edge fits ⊙ the forgot gate" in str(found)
    assert "no edge fits" not in str(flow.compare(outputs[-1].sum(), flow.force_gate("forget", 1.0)))
