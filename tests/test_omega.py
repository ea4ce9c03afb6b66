"""Ω, value and gradient, against plain NumPy: step Jacobians by the complex step, δ by hand-written BPTT, central differences."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn, optim

INPUT, HIDDEN, STEPS, BATCH = 2, 3, 5, 2

KINDS = {
    "rnn-tanh": (nn.RNN, {"nonlinearity": "tanh"}, oracles.rnn("tanh")),
    "rnn-relu": (nn.RNN, {"nonlinearity": "relu"}, oracles.rnn("relu")),
    "lstm": (nn.LSTM, {}, oracles.lstm()),
    "gru-after": (nn.GRU, {"reset": "after"}, oracles.gru("after")),
    "gru-before": (nn.GRU, {"reset": "before"}, oracles.gru("before")),
}
kinds = pytest.mark.parametrize("kind", KINDS)
squares = pytest.mark.parametrize("squared", [False, True])


def layer(kind, **options):
    make, own, _ = KINDS[kind]
    return make(INPUT, HIDDEN, rng=0, **own, **options)


def sequence(seed=1, steps=STEPS, batch=BATCH):
    return np.random.default_rng(seed).standard_normal((steps, batch, INPUT))


def weights_of(module):
    return {name.removesuffix("_l0"): parameter.value.copy() for name, parameter in module.named_parameters()}


def plain_omega(kind, xs, weights, *, squared=False, threshold=1e-20, last_only=False, frozen=None):
    """Ω of the loss Σ h² (of all steps, or of the last) in plain NumPy. ``frozen`` are the weights of an RNN's states and δ, if others."""
    cell = KINDS[kind][2]
    at = weights if frozen is None else frozen
    start = tuple(np.zeros((xs.shape[1], HIDDEN)) for _ in range(cell.parts))
    outputs, states, kept = oracles.run(cell, xs, start, at)
    on_outputs = 2 * outputs
    if last_only:
        on_outputs[:-1] = 0
    _, _, _, deltas = oracles.bptt(cell, kept, at, on_outputs, tuple(np.zeros_like(part) for part in start))
    total, count = 0.0, 0
    for b in range(xs.shape[1]):
        for t in range(2, len(xs) + 1):
            delta = np.concatenate([part[b] for part in deltas[t]])
            if frozen is None:
                jacobian = oracles.step_jacobian(cell, xs[t - 1, b : b + 1], tuple(p[b : b + 1] for p in states[t - 1]), at)
            else:  # the immediate derivative: W_hh alone is the new one
                jacobian = np.diag(1 - states[t][0][b] ** 2) @ weights["weight_hh"]
            ratio = np.linalg.norm(delta @ jacobian) / np.linalg.norm(delta)
            if squared:
                counts = delta @ delta >= threshold
                total, count = total + counts * (ratio**2 - 1) ** 2, count + counts
            else:
                total += (ratio - 1) ** 2
    return total / count if squared else total / xs.shape[1]


def loss_of(module, xs, last_only=False):
    outputs, _ = module(xs)
    return ((outputs[-1] if last_only else outputs) ** 2).sum()


def directional(function, weights, direction, step=1e-5):
    """Central difference along a direction."""
    moved = [{name: w + sign * step * direction[name] for name, w in weights.items()} for sign in (1, -1)]
    return (function(moved[0]) - function(moved[1])) / (2 * step)


# -- value and gradient -----------------------------------------------------------------------------------------------------------


@kinds
@squares
@given(seed=st.integers(0, 999), last_only=st.booleans(), batch=st.integers(1, 3))
def test_omega_is_what_its_formula_says(kind, squared, seed, last_only, batch):
    """Σ_t (‖δ_t J_t‖/‖δ_t‖ − 1)² with J from the complex step and δ from hand-written BPTT, both conventions."""
    module, xs = layer(kind), sequence(seed, batch=batch)
    found = flow.omega(loss_of(module, xs, last_only), squared=squared)
    expected = plain_omega(kind, xs, weights_of(module), squared=squared, last_only=last_only)
    if np.isfinite(expected):  # a sequence all of whose ReLUs are off has no δ to compare
        assert found.shape == () and found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["rnn-tanh", "lstm", "gru-after", "gru-before"])
@squares
@pytest.mark.parametrize("last_only", [False, True])
def test_the_gradient_of_omega_is_that_of_its_formula(kind, squared, last_only):
    """Second order: the engine's gradient along random directions is the central difference of plain NumPy."""
    module, xs = layer(kind), sequence()
    found = flow.omega(loss_of(module, xs, last_only), squared=squared)
    parameters = dict(module.named_parameters())
    gradient = dict(zip(parameters, tg.grad(found, list(parameters.values())), strict=True))
    rng, weights = np.random.default_rng(5), weights_of(module)
    for _ in range(3):
        direction = {name: rng.standard_normal(w.shape) for name, w in weights.items()}
        expected = directional(lambda w: plain_omega(kind, xs, w, squared=squared, last_only=last_only), weights, direction)
        got = sum(float(np.sum(gradient[name + "_l0"].value * direction[name])) for name in weights)
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-8)


@squares
def test_the_immediate_derivative_holds_states_and_cotangents(squared):
    """With immediate=True the value is the same, and its gradient is that of W_hh where it multiplies, and nothing else's."""
    module, xs = layer("rnn-tanh"), sequence()
    loss, weights = loss_of(module, xs), weights_of(module)
    found = flow.omega(loss, squared=squared, immediate=True)
    assert found.item() == pytest.approx(flow.omega(loss, squared=squared).item(), rel=1e-12)
    found.backward()
    assert module.weight_ih_l0.grad is None and module.bias_l0.grad is None
    rng = np.random.default_rng(5)
    direction = {name: rng.standard_normal(w.shape) for name, w in weights.items()}
    expected = directional(lambda w: plain_omega("rnn-tanh", xs, w, squared=squared, frozen=weights), weights, direction)
    assert float(np.sum(module.weight_hh_l0.grad.value * direction["weight_hh"])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.oracle
def test_the_gradient_is_pytorchs():
    """An RNN written out in PyTorch, differentiated twice, gives the same Ω and the same gradients."""
    torch = pytest.importorskip("torch")
    module, xs = layer("rnn-tanh"), sequence()
    w = {name: torch.tensor(value, requires_grad=True) for name, value in weights_of(module).items()}
    states = [torch.zeros(BATCH, HIDDEN, dtype=torch.float64)]
    for x in torch.tensor(xs):
        states.append(torch.tanh(x @ w["weight_ih"].T + states[-1] @ w["weight_hh"].T + w["bias"]))
    loss = sum((h**2).sum() for h in states[1:])
    deltas = torch.autograd.grad(loss, states[1:], create_graph=True)
    total = 0.0
    for t in range(1, STEPS):
        crossing = (deltas[t] * (1 - states[t + 1] ** 2)) @ w["weight_hh"]
        total = total + ((crossing.norm(dim=1) / deltas[t].norm(dim=1) - 1) ** 2).sum() / BATCH
    total.backward()
    found = flow.omega(loss_of(module, xs))
    found.backward()
    assert found.item() == pytest.approx(total.item(), rel=1e-12)
    for name, parameter in module.named_parameters():
        assert oracles.difference(parameter.grad.value, w[name.removesuffix("_l0")].grad.numpy()) < 1e-10


# -- what it reads ------------------------------------------------------------------------------------------------------------------


@squares
def test_a_recurrence_that_keeps_every_length_has_omega_zero(squared):
    """An orthogonal W_hh on units that are not saturated keeps all norms: Ω = 0, and so is its gradient."""
    module = nn.RNN(1, 4, nonlinearity="relu", bias=False, init="identity", rng=0)
    module.weight_ih_l0.value = np.ones((4, 1))
    found = flow.omega(module(np.ones((6, 1, 1)))[0][-1].sum(), squared=squared)
    found.backward()
    assert found.item() == pytest.approx(0.0, abs=1e-25)
    np.testing.assert_allclose(module.weight_hh_l0.grad.value, 0.0, atol=1e-12)


def test_cells_and_layers_agree():
    """A loop over a cell has the Ω of the layer."""
    module, xs = layer("lstm"), sequence()
    cell, state, total = nn.LSTMCell(INPUT, HIDDEN, rng=0), None, 0.0
    cell.load_state_dict(weights_of(module))
    for x in xs:
        state = cell(x, state)
        total = total + (state.hidden**2).sum()
    assert flow.omega(total).item() == pytest.approx(flow.omega(loss_of(module, xs)).item(), rel=1e-12)


def test_a_readout_in_a_scope_of_the_same_step_does_not_cross():
    """What reads h_t at time t, in a scope of the same name, belongs to δ_t and not to what crosses from step t."""
    weight, first = np.array([[0.6, 0.3], [-0.2, 0.5]]), np.ones((1, 2))

    def run(name):
        h, total = tg.tensor(first, requires_grad=True), 0.0
        for t in (1, 2, 3):
            with tg.scope("mine", time=t):
                h = tg.landmark(np.tanh(h @ weight), "h", "hidden")
            with tg.scope(name, time=t):
                total = total + (h * h).sum()
        return flow.omega(total).item()

    assert run("mine") == run("readout") > 0


@kinds
def test_a_loss_on_the_final_state_is_read_too(kind):
    """The cotangent may enter at the final state instead of at the outputs; then both give the same."""
    module, xs = layer(kind), sequence(3)
    outputs, state = module(xs)
    assert flow.omega((state.hidden**2).sum()).item() == pytest.approx(flow.omega((outputs[-1] ** 2).sum()).item(), rel=1e-12)


def test_a_loss_on_the_final_cell_counts_the_cell():
    """δ_T is then [0; ∂L/∂c_T], and what crosses from step T is all that comes of it."""
    module, xs = layer("lstm"), sequence(batch=1)
    _, state = module(xs)
    loss = state.cell.sum()
    states = tg.trace(loss).states()
    ratios = [states[t - 1].norm / states[t].norm for t in range(2, STEPS + 1)]
    assert flow.omega(loss).item() == pytest.approx(sum((ratio - 1) ** 2 for ratio in ratios), rel=1e-12)


def test_several_recurrences_add_up_or_are_asked_for_one_by_one():
    """Ω without a layer is the sum over layers and directions; by path it is that of one, by module those of its sweeps."""
    module = layer("gru-after", num_layers=2, bidirectional=True)
    loss = loss_of(module, sequence())
    single = [flow.omega(loss, path).item() for path in ("gru/l0", "l0_reverse", "gru/l1", "gru/l1_reverse")]
    assert min(single) > 0
    assert flow.omega(loss).item() == pytest.approx(sum(single), rel=1e-12)
    assert flow.omega(loss, module).item() == flow.omega(loss, "gru").item() == flow.omega(loss).item()


def test_padding_counts_nothing():
    """A padded batch has the mean of the Ω of its sequences, each run by itself."""
    module, xs, lengths = layer("lstm"), sequence(steps=6, batch=3), [6, 2, 4]
    found = flow.omega((module(xs, lengths=lengths)[0] ** 2).sum())
    single = [flow.omega(loss_of(module, xs[:n, b : b + 1])).item() for b, n in enumerate(lengths)]
    assert found.item() == pytest.approx(np.mean(single), rel=1e-12)


def test_an_initial_state_that_learns_is_a_step_more():
    """With a differentiable h_0 the step from h_1 to it counts."""
    module, xs = layer("rnn-tanh"), sequence(batch=1)
    start = tg.tensor(np.zeros((1, 1, HIDDEN)), requires_grad=True)
    loss = (module(xs, nn.RNNState(start))[0][-1] ** 2).sum()
    first = np.diag(1 - module(xs)[0].value[0, 0] ** 2) @ module.weight_hh_l0.value
    delta = tg.trace(loss).states()[1].cotangent[0]
    more = (np.linalg.norm(delta @ first) / np.linalg.norm(delta) - 1) ** 2
    assert flow.omega(loss).item() == pytest.approx(flow.omega(loss_of(module, xs, last_only=True)).item() + more, rel=1e-9)


@squares
def test_the_scale_of_the_loss_does_not_matter(squared):
    """A loss of 1e-250 times as much has the same unsquared Ω and gradient; the squared variant leaves out what is below its threshold."""
    module, xs = layer("gru-before"), sequence()
    loss = loss_of(module, xs)
    ordinary, tiny = flow.omega(loss, squared=squared), flow.omega(loss * 1e-250, squared=squared)
    if squared:
        assert tiny.item() == 0.0
        tiny = flow.omega(loss * 1e-250, squared=True, threshold=0.0)
    assert tiny.item() == pytest.approx(ordinary.item(), rel=1e-12)
    for a, b in zip(*(tg.grad(o, module.weight_hh_l0) for o in (ordinary, tiny)), strict=True):
        assert oracles.difference(b.value, a.value) < 1e-10


def test_the_threshold_leaves_steps_out():
    """With a threshold between the norms of two steps the squared variant averages over those above it."""
    module, xs = layer("rnn-tanh"), sequence(batch=1)
    loss, weights = loss_of(module, xs, last_only=True), weights_of(module)
    norms = [at.norm for at in tg.trace(loss).states()]
    threshold = (norms[2] * norms[3]) ** 1.0
    expected = plain_omega("rnn-tanh", xs, weights, squared=True, threshold=threshold, last_only=True)
    found = flow.omega(loss, squared=True, threshold=threshold)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert found.item() != pytest.approx(flow.omega(loss, squared=True).item(), rel=1e-3)


def test_steps_without_a_gradient_are_left_out_and_make_no_nan():
    """A loss on an early step: the later ones have δ = 0. A gradient that stops dead (ReLUs off) leaves a finite gradient."""
    module, xs = layer("lstm"), sequence()
    early = flow.omega((module(xs)[0][2] ** 2).sum())
    assert early.item() == pytest.approx(flow.omega(loss_of(module, xs[:3], last_only=True)).item(), rel=1e-12)
    dead = nn.RNN(1, 2, nonlinearity="relu", bias=False, rng=0)
    dead.weight_ih_l0.value, dead.weight_hh_l0.value = np.ones((2, 1)), -np.ones((2, 2))
    found = flow.omega(dead(np.ones((4, 1, 1)))[0].sum())
    found.backward()
    assert np.isfinite(found.item()) and np.isfinite(dead.weight_hh_l0.grad.value).all()


def test_nothing_crosses_in_one_step():
    """With T = 1 Ω is 0 and has no graph."""
    found = flow.omega(loss_of(layer("lstm"), sequence(steps=1)))
    assert found.item() == 0.0 and not found.requires_grad and found.shape == ()


def test_it_keeps_the_dtype():
    """float32 stays float32."""
    found = flow.omega(loss_of(layer("gru-after", dtype=np.float32), sequence()))
    assert found.dtype == np.float32 and np.isfinite(found.item())


# -- what it is for -------------------------------------------------------------------------------------------------------------------


def test_training_on_omega_keeps_the_gradient_alive():
    """Descending Ω alone takes an RNN with ρ = 0.5 from a vanishing gradient to one that keeps most of its length; .grad was untouched."""
    module = nn.RNN(2, 8, init=0.5, rng=0)
    xs = 0.1 * np.random.default_rng(0).standard_normal((15, 4, 2))
    optimizer = optim.Adam(module.parameters(), lr=0.02)

    def kept():
        return float(flow.vanishing_product(tg.trace(module(xs)[0][-1].sum())).log10_product[-1])

    before, values = kept(), []
    for _ in range(60):
        loss = module(xs)[0][-1].sum()
        found = flow.omega(loss)
        assert module.weight_hh_l0.grad is None
        found.backward()
        optimizer.step()
        module.zero_grad()
        values.append(found.item())
    assert values[-1] < 0.05 * values[0]
    assert before < -3 and kept() > -1


def test_it_can_be_added_to_a_loss():
    """The gradient of loss + α Ω is the sum of the gradients."""
    module = layer("lstm")
    loss = loss_of(module, sequence())
    found = flow.omega(loss)
    parameters = [parameter for _, parameter in module.named_parameters()]
    (loss + 0.5 * found).backward()
    for parameter, a, b in zip(parameters, tg.grad(loss, parameters), tg.grad(found, parameters), strict=True):
        np.testing.assert_allclose(parameter.grad.value, a.value + 0.5 * b.value, rtol=1e-10, atol=1e-12)


def test_wrong_arguments_are_named():
    """No recurrence, another layer's name, a negative threshold, and immediate=True for what is no RNN."""
    x = tg.tensor(2.0, requires_grad=True)
    with pytest.raises(errors.ArgumentError, match="omega: no layer left landmarks"):
        flow.omega(x * x)
    loss = loss_of(layer("lstm"), sequence())
    with pytest.raises(errors.ArgumentError, match=r"omega: no recurrence fits 'gru'; there is \['lstm'\]"):
        flow.omega(loss, "gru")
    with pytest.raises(errors.ArgumentError, match="omega: threshold must be a number of at least 0, got -1"):
        flow.omega(loss, threshold=-1)
    with pytest.raises(errors.ArgumentError, match=r"omega: immediate=True holds the states constant.* crosses"):
        flow.omega(loss, immediate=True)
    with pytest.raises(errors.GraphError):
        flow.omega(tg.tensor(1.0))


def test_what_the_value_does_not_need_is_not_recorded():
    """The pass goes to the states and no further: no weight and no input has a cotangent in it."""
    layer, x = nn.LSTM(2, 3, rng=0), tg.tensor(np.ones((6, 1, 2)), requires_grad=True)
    met = []
    for leaf in (x, *layer.parameters()):
        leaf.register_hook(lambda cotangent: met.append(cotangent.shape))
    loss = layer(x)[0][-1].sum()
    value = flow.omega(loss)
    assert not met and value.item() > 0.0
    value.backward()
    assert len(met) == 4


def test_messages_name_the_multiplication_and_the_threshold():
    """What crosses besides W_hh is written as in the ledger; a threshold is a number."""
    loss = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))[0][-1].sum()
    with pytest.raises(errors.ArgumentError, match="here '⊙ f₄' crosses from step to step as well"):
        flow.omega(loss, immediate=True)
    with pytest.raises(errors.ArgumentError, match="omega: threshold must be a number of at least 0, got 'x'"):
        flow.omega(loss, threshold="x")
