"""Optimisers, clipping and schedules: equations by hand, states that go on to the last bit, and what is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import ArgumentError, DtypeError, GraphError, ShapeError, StateError

G = (np.array([2.0, -0.5]), np.array([-1.0, 0.25]), np.array([0.0, 3.0]))
"""Three gradients in a row."""

MAKES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (optim.SGD, {}),
    "sgd, decay": (optim.SGD, {"weight_decay": 0.1}),
    "momentum": (optim.SGD, {"momentum": 0.9}),
    "nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop, all": (optim.RMSprop, {"alpha": 0.9, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    "adam": (optim.Adam, {}),
    "adam, all": (optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    "adamw": (optim.AdamW, {}),
}
makes = pytest.mark.parametrize("make", MAKES)


def build(make: str, params: Any, lr: float = 0.1) -> Any:
    kind, settings = MAKES[make]
    return kind(params, lr=lr, **settings)


def run(optimizer: Any, gradients: Any = G) -> None:
    """A step with each gradient in turn; each parameter gets it in its own shape."""
    for gradient in gradients:
        for parameter in optimizer.params.values():
            parameter.grad = np.resize(gradient, parameter.shape)
        optimizer.step()


def same(one: Any, two: Any) -> bool:
    """Nested dicts with the same entries, types and bytes."""
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    return type(one) is type(two) and bool(one == two)


# -- the equations, by hand ---------------------------------------------------------------------------------------------------


def test_momentum_by_hand() -> None:
    """b = g₁, then μ g₁ + g₂, then μ² g₁ + μ g₂ + g₃; Nesterov steps along g + μ b."""
    b1, b2, b3 = G[0], 0.5 * G[0] + G[1], 0.25 * G[0] + 0.5 * G[1] + G[2]
    for nesterov, steps in ((False, b1 + b2 + b3), (True, sum(G) + 0.5 * (b1 + b2 + b3))):
        w = nn.Parameter([1.0, 2.0])
        run(optim.SGD([w], lr=0.1, momentum=0.5, nesterov=nesterov))
        assert oracles.difference(w.value, np.array([1.0, 2.0]) - 0.1 * steps) < 1e-15


def test_l2_decay_by_hand() -> None:
    """Without a gradient's pull, w shrinks by 1 − η λ a step under SGD and AdamW; Adam turns the decay into steps of η."""
    for make, expected in (
        (optim.SGD, 2.0 * (1 - 0.1 * 0.5) ** 3),
        (optim.AdamW, 2.0 * (1 - 0.1 * 0.5) ** 3),
    ):
        w = nn.Parameter([2.0])
        run(make([w], lr=0.1, weight_decay=0.5), [np.zeros(1)] * 3)
        assert abs(w.item() - expected) < 1e-15
    w = nn.Parameter([2.0])
    run(optim.Adam([w], lr=0.1, weight_decay=0.5), [np.zeros(1)])
    assert abs(w.item() - 1.9) < 1e-8


def test_rmsprop_by_hand() -> None:
    """v is the mean of g² with weights (1 − α) αᵏ; centered subtracts the square of g's mean."""
    weights = 0.5 ** np.arange(3, 0, -1)  # (1 − α) α² , … , (1 − α) for α = ½
    for centered in (False, True):
        w, expected = nn.Parameter([0.0, 0.0]), np.zeros(2)
        run(optim.RMSprop([w], lr=0.1, alpha=0.5, eps=1e-3, centered=centered))
        for t in (1, 2, 3):
            g = np.stack(G[:t])
            share = weights[-t:, None]
            v = (share * g**2).sum(0) - centered * (share * g).sum(0) ** 2
            expected -= 0.1 * g[-1] / (np.sqrt(v) + 1e-3)
        assert oracles.difference(w.value, expected) < 1e-14


def test_centered_survives_a_constant_gradient() -> None:
    """v − m² tends to 0 and rounding makes it negative somewhere; the values stay finite."""
    w = nn.Parameter(np.zeros(50))
    optimizer = optim.RMSprop([w], alpha=0.1, centered=True, eps=1e-3)
    run(optimizer, [np.linspace(0.1, 1.0, 50)] * 60)
    kept = optimizer.state_dict()["parameters"]["0"]
    assert (kept["square_avg"] < kept["grad_avg"] ** 2).any()
    assert np.isfinite(w.value).all()


def test_adam_by_hand() -> None:
    """m̂ and v̂ are means of g and g² with weights βᵗ⁻ᵏ that add up to 1."""
    w, expected = nn.Parameter([0.0, 0.0]), np.zeros(2)
    run(optim.Adam([w], lr=0.1, betas=(0.5, 0.25), eps=1e-3))
    for t in (1, 2, 3):
        means = []
        for beta, power in ((0.5, 1), (0.25, 2)):
            share = beta ** np.arange(t - 1.0, -1.0, -1.0)
            means.append((share[:, None] * np.stack(G[:t]) ** power).sum(0) / share.sum())
        expected -= 0.1 * means[0] / (np.sqrt(means[1]) + 1e-3)
    assert oracles.difference(w.value, expected) < 1e-14


@given(st.lists(st.floats(-1e3, 1e3).filter(lambda g: abs(g) > 1e-3), min_size=1, max_size=4))
def test_adams_first_step_is_the_sign(g: list[float]) -> None:
    """Adam's first step is −η sign g, whatever the scale of g."""
    w = nn.Parameter(np.zeros(len(g)))
    w.grad = g
    optim.Adam([w], lr=0.5, eps=0.0).step()
    assert oracles.difference(w.value, -0.5 * np.sign(g)) < 1e-12


def test_lr_acts_outside_of_the_momentum() -> None:
    """After a change of the rate the whole momentum goes at the new rate."""
    w = nn.Parameter([0.0])
    optimizer = optim.SGD([w], lr=1.0, momentum=0.5)
    run(optimizer, [np.ones(1)])
    optimizer.lr = 0.0
    run(optimizer, [np.ones(1)])
    assert w.item() == -1.0
    optimizer.lr = 2.0
    run(optimizer, [np.zeros(1)])
    assert w.item() == -1.0 - 2.0 * 0.75


# -- parameters ---------------------------------------------------------------------------------------------------------------


@makes
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_is_kept(make: str, dtype: str) -> None:
    """Values and buffers stay in the parameter's dtype, scalars too."""
    params = [nn.Parameter(np.ones(shape, dtype)) for shape in ((), (2,), (2, 3), (0, 2))]
    optimizer = build(make, params)
    run(optimizer)
    for parameter, kept in zip(params, optimizer.state_dict()["parameters"].values(), strict=True):
        assert parameter.dtype == dtype
        assert kept.pop("steps") == 3
        assert all(buffer.dtype == dtype and buffer.shape == parameter.shape for buffer in kept.values())


@makes
def test_values_are_rebound_and_not_written_to(make: str) -> None:
    """Values, gradients and states that someone holds do not change."""
    w = nn.Parameter([1.0, 2.0])
    optimizer = build(make, [w])
    run(optimizer)
    value, gradient, state = w.value, w.grad, optimizer.state_dict()
    held = copy.deepcopy((value, gradient.value, state))
    run(optimizer)
    assert same({"": state}, {"": held[2]})
    assert np.array_equal(value, held[0]) and np.array_equal(gradient.value, held[1])
    assert w.value is not value and not w.value.flags.writeable


def test_a_graph_from_before_the_step_is_refused() -> None:
    """A step rebinds the leaf: what was recorded before still has its values, and a backward pass through it raises."""
    w = nn.Parameter([3.0], name="w")
    loss = (w * w).sum()
    loss.backward()
    optim.SGD([w], lr=0.5).step()
    assert loss.item() == 9.0 and w.item() == 0.0
    with pytest.raises(GraphError, match=r"the leaf w of shape .* was given a new value after the forward pass"):
        loss.backward()
    assert w.grad.value == 6.0


def test_parameters_without_a_gradient_are_skipped() -> None:
    """No gradient: neither value, nor buffers, nor count change, and graphs through it stay fresh. Zero is a gradient."""
    used, unused, frozen = nn.Parameter([1.0]), nn.Parameter([1.0]), nn.Parameter([1.0])
    frozen.requires_grad = False
    optimizer = optim.AdamW([("used", used), ("unused", unused), ("frozen", frozen)], lr=0.1)
    other = (unused * unused).sum()
    used.grad = [0.0]
    optimizer.step()
    assert used.item() == 1 - 0.1 * 0.01 and unused.item() == frozen.item() == 1.0
    assert [kept["steps"] for kept in optimizer.state_dict()["parameters"].values()] == [1, 0, 0]
    other.backward()
    frozen.requires_grad = True
    frozen.grad = [1.0]
    optimizer.step()
    assert abs(frozen.item() - 0.9 + 0.1 * 0.01) < 1e-8  # its first step, though the third of another


def test_zero_grad() -> None:
    """zero_grad forgets gradients, passes over frozen parameters, and a step after it does nothing."""
    w, frozen = nn.Parameter([1.0]), nn.Parameter([1.0])
    frozen.requires_grad = False
    optimizer = optim.SGD([w, frozen], lr=1.0, momentum=0.9)
    before = w.value
    w.grad = [1.0]
    optimizer.zero_grad()
    optimizer.step()
    assert w.grad is None and w.value is before


def test_gradients_with_a_graph() -> None:
    """A gradient that was recorded itself is taken by its value."""
    w = nn.Parameter([2.0])
    (w**3).sum().backward(create_graph=True)
    assert w.grad.requires_grad
    optim.SGD([w], lr=0.5).step()
    assert w.item() == 2.0 - 0.5 * 12.0 and w.is_leaf


def test_non_finite_gradients_are_taken_as_they_are() -> None:
    """A NaN makes its own entry NaN and no other, without a warning; so does what overflows."""
    for make in MAKES:
        w = nn.Parameter([1.0, 1.0])
        run(build(make, [w]), [np.array([math.nan, 1.0])])
        assert np.isnan(w.value).tolist() == [True, False]
    w = nn.Parameter(np.ones(2, "float32"))
    run(optim.SGD([w], lr=1e30), [np.array([1e30, 0.0])])
    assert w.value.tolist() == [-math.inf, 1.0]


@makes
def test_a_quadratic_is_minimised(make: str) -> None:
    """½ (w − 3)ᵀ A (w − 3) with curvatures 1 and 10: every optimiser comes near to 3."""
    w, curvature = nn.Parameter([0.0, 6.0]), np.array([1.0, 10.0])
    optimizer = build(make, [w], lr=0.02)
    optimizer.weight_decay = 0.0
    schedule = optim.CosineLR(optimizer, 1000)
    for _ in range(1000):
        optimizer.zero_grad()
        (0.5 * curvature * (w - 3.0) ** 2).sum().backward()
        optimizer.step()
        schedule.step()
    assert oracles.difference(w.value, np.full(2, 3.0)) < 1e-3


def test_a_recurrent_network_learns() -> None:
    """An LSTM learns to give back the first of six inputs."""
    rng = np.random.default_rng(0)
    layer, head = nn.LSTM(1, 8, rng=1), nn.Linear(8, 1, rng=2)
    params = [*layer.named_parameters("layer"), *head.named_parameters("head")]
    optimizer, losses, counter = optim.Adam(params, lr=0.02), [], optim.ClipCounter()
    for _ in range(150):
        x = rng.uniform(-1, 1, (6, 16, 1))
        optimizer.zero_grad()
        outputs, _ = layer(x)
        loss = tg.mse(head(outputs[-1]), x[0])
        loss.backward()
        losses.append(loss.item())
        optim.clip_grad_norm(optimizer.params.values(), 1.0, counter=counter)
        optimizer.step()
    assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])
    assert counter.calls == 150


# -- states -------------------------------------------------------------------------------------------------------------------


def model() -> nn.Module:
    return nn.LSTM(2, 3, rng=0, dtype="float32")


def train(layer: Any, optimizer: Any, schedule: Any, steps: range) -> None:
    for k in steps:
        x = np.random.default_rng(k).standard_normal((4, 2, 2)).astype("float32")
        optimizer.zero_grad()
        outputs, _ = layer(x)
        (outputs**2).sum().backward()
        optimizer.step()
        schedule.step()


def start(make: str) -> tuple[Any, Any, Any]:
    layer = model()
    optimizer = build(make, layer.named_parameters(), lr=0.05)
    return layer, optimizer, optim.WarmUp(optimizer, 3, then=optim.CosineLR(optimizer, 12, min_lr=0.01))


@makes
def test_a_restored_run_goes_on_to_the_last_bit(make: str, tmp_path: Any) -> None:
    """Ten steps, or five, saved, loaded into everything new, and five more: the same bytes. States are loaded in either order."""
    whole = start(make)
    train(*whole, range(10))
    half = start(make)
    train(*half, range(5))
    state = {name: part.state_dict() for name, part in zip(("model", "optimizer", "schedule"), half, strict=True)}
    tg.save(tmp_path / "run.npz", state)
    loaded = tg.load(tmp_path / "run.npz")
    assert same(loaded, state)
    for order in ((0, 1, 2), (2, 1, 0)):
        rest = start(make)
        for part in order:
            rest[part].load_state_dict(loaded[("model", "optimizer", "schedule")[part]])
        train(*rest, range(5, 10))
        assert all(same(a.state_dict(), b.state_dict()) for a, b in zip(whole, rest, strict=True))
        assert rest[1].lr == whole[1].lr == whole[2].at(10)


def test_the_state_is_plain_and_a_copy() -> None:
    """Dicts with text keys, numbers, text and arrays; writing to a state, or to one that was loaded, changes no optimiser."""
    w = nn.Parameter([1.0, 2.0])
    optimizer = optim.SGD([("out.w", w)], lr=0.1, momentum=0.9, nesterov=True)
    run(optimizer)
    state = optimizer.state_dict()
    assert state["kind"] == "SGD"
    assert state["settings"] == {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.9, "nesterov": True}
    assert list(state["parameters"]) == ["out.w"]
    assert list(state["parameters"]["out.w"]) == ["steps", "momentum_buffer"]
    before = copy.deepcopy(state)
    state["parameters"]["out.w"]["momentum_buffer"][:] = 99.0
    assert same(optimizer.state_dict(), before)
    given = copy.deepcopy(before)
    optimizer.load_state_dict(given)
    given["parameters"]["out.w"]["momentum_buffer"][:] = 99.0
    given["settings"]["lr"] = 99.0
    assert same(optimizer.state_dict(), before)


def test_numbers_may_come_as_arrays() -> None:
    """Files may hold numbers, switches and text as zero-dimensional arrays."""
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=0.1, momentum=0.9, nesterov=True)
    schedule = optim.StepLR(optimizer, 3)
    for owner in (optimizer, schedule):
        state = owner.state_dict()

        def as_arrays(part: Any) -> Any:
            return {key: as_arrays(inner) for key, inner in part.items()} if isinstance(part, dict) else np.asarray(part)

        owner.load_state_dict(as_arrays(state))
        assert same(owner.state_dict(), state)


def test_settings_decide_the_buffers() -> None:
    """A state with momentum loads into an optimiser without; momentum that is switched on later starts from zero."""
    one, two = nn.Parameter([1.0, 2.0]), nn.Parameter([1.0, 2.0])
    with_momentum, without = optim.SGD([one], lr=0.1, momentum=0.9), optim.SGD([two], lr=0.5)
    run(with_momentum)
    without.load_state_dict(with_momentum.state_dict())
    two.value = one.value
    run(with_momentum)
    run(without)
    assert np.array_equal(one.value, two.value)
    late, fresh = optim.SGD([one], lr=0.1), optim.SGD([two], lr=0.1, momentum=0.9)
    late.momentum = 0.9
    run(late)
    run(fresh)
    assert np.array_equal(one.value, two.value)


def test_a_loaded_state_takes_the_parameters_dtype() -> None:
    """Buffers are converted to the parameter's dtype."""
    optimizer = optim.Adam([nn.Parameter(np.ones(2, "float32"))])
    state = optimizer.state_dict()
    state["parameters"]["0"]["exp_avg"] = [1, 2]
    optimizer.load_state_dict(state)
    loaded = optimizer.state_dict()["parameters"]["0"]["exp_avg"]
    assert loaded.dtype == "float32" and loaded.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda s: s["parameters"].pop("b"), StateError, r"missing \['parameters/b/momentum_buffer', 'parameters/b/steps'\]"),
        (
            lambda s: s["parameters"].update(c=s["parameters"].pop("b")),
            StateError,
            r"missing \['parameters/b/momentum_buffer', .*unexpected \['parameters/c/momentum_buffer', 'parameters/c/steps'\]",
        ),
        (lambda s: s["parameters"]["a"].pop("momentum_buffer"), StateError, r"missing \['parameters/a/momentum_buffer'\]"),
        (lambda s: s["settings"].update(momentum=0.0, nesterov=False), StateError, r"unexpected \['parameters/a/momentum_buffer', "),
        (lambda s: s["settings"].pop("lr"), StateError, r"missing \['settings/lr'\]"),
        (lambda s: s.update(more=1), StateError, r"unexpected \['more'\]"),
        (lambda s: s.update(kind="Adam"), StateError, r"expected the state of SGD, got Adam"),
        (lambda s: s.update(kind=np.array(["SGD", "SGD"])), StateError, r"expected the state of SGD, got \['SGD' 'SGD'\]"),
        (lambda s: s.pop("kind"), StateError, r"expected the state of SGD, got one that does not say its kind"),
        (
            lambda s: [s["parameters"][n].update(momentum_buffer=np.zeros(3)) for n in "ab"],
            StateError,
            r"a/momentum_buffer has shape \(3,\), expected \(2,\); parameters/b/momentum_buffer has shape \(3,\), expected \(1, 2\)",
        ),
        (lambda s: s["parameters"]["b"].update(momentum_buffer=["x", "y"]), DtypeError, "parameters/b/momentum_buffer: expected real"),
        (lambda s: s["parameters"]["b"].update(steps=1.5), ArgumentError, "b: steps must be a whole number .*, below 2⁶³, got 1.5"),
        (lambda s: s["parameters"]["b"].update(steps=2**63), ArgumentError, "at least 0, below 2⁶³, got 9223372036854775808"),
        (lambda s: s["settings"].update(lr=-1.0), ArgumentError, "lr must be a finite number of at least 0, got -1.0"),
        (lambda s: s["settings"].update(momentum=0.0), ArgumentError, "nesterov looks ahead along the momentum, which is 0"),
    ],
)
def test_load_all_or_nothing(change: Any, kind: type, message: str) -> None:
    """Unless everything fits, nothing is loaded, and the message names what does not fit."""
    params = [("a", nn.Parameter([1.0, 2.0])), ("b", nn.Parameter([[3.0, 4.0]]))]
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True)
    run(optimizer)
    before = optimizer.state_dict()
    other = optim.SGD(params, lr=0.2, momentum=0.8, nesterov=True)
    state = other.state_dict()
    change(state)
    with pytest.raises(kind, match=f"SGD.load_state_dict: .*{message}"):
        optimizer.load_state_dict(state)
    assert same(optimizer.state_dict(), before)


def test_what_is_no_state_is_refused() -> None:
    """Neither a list nor a schedule is an optimiser's state."""
    optimizer = optim.SGD([nn.Parameter([1.0])])
    with pytest.raises(StateError, match="expected a dict as state_dict"):
        optimizer.load_state_dict([])  # type: ignore[arg-type]
    with pytest.raises(StateError, match="expected the state of SGD, got StepLR"):
        optimizer.load_state_dict(optim.StepLR(optimizer, 1).state_dict())


# -- what is refused ----------------------------------------------------------------------------------------------------------

W = nn.Parameter([1.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD([]), "SGD: got no parameters. A generator gives them only once"),
        (lambda: optim.SGD(iter(())), "SGD: got no parameters"),
        (lambda: optim.SGD(W), "SGD: expected an iterable of parameters, got Parameter"),
        (lambda: optim.SGD(nn.Linear(1, 1)), "SGD: expected an iterable of parameters, got Linear. Pass module.parameters()"),
        (lambda: optim.SGD(nn.Linear(1, 1).state_dict()), "SGD: expected an iterable of parameters, got dict"),
        (lambda: optim.SGD([W, W]), "SGD: parameters 0 and 1 are the same Tensor"),
        (lambda: optim.SGD([("w", W), ("w", nn.Parameter([1.0]))]), "SGD: two parameters are named 'w'"),
        (lambda: optim.SGD([W, W * 2]), "SGD: parameter 1 was computed; only a leaf can be rebound"),
        (lambda: optim.SGD([("w", np.ones(1))]), "SGD: parameter w is a ndarray; expected a Tensor"),
        (lambda: optim.SGD([{"params": [W]}]), "SGD: parameter 0 is a dict; .* an optimiser of their own"),
        (lambda: optim.SGD([tg.tensor([1])]), "SGD: parameter 0 has dtype int64; expected a floating-point one"),
        (lambda: optim.SGD([tg.tensor([1.0])]), "SGD: none of the parameters requires a gradient"),
        (lambda: optim.SGD([W], lr=-0.1), "SGD: lr must be a finite number of at least 0, got -0.1"),
        (lambda: optim.SGD([W], lr=math.nan), "SGD: lr must be a finite number of at least 0, got nan"),
        (lambda: optim.SGD([W], lr=math.inf), "SGD: lr must be a finite"),
        (lambda: optim.SGD([W], lr=10**400), "SGD: lr must be a finite"),
        (lambda: optim.SGD([W], lr="0.1"), "SGD: lr must be a finite number of at least 0, got '0.1'"),
        (lambda: optim.SGD([W], lr=True), "SGD: lr must be a finite"),
        (lambda: optim.SGD([W], lr=np.ones(2)), "SGD: lr must be a finite"),
        (lambda: optim.SGD([W], momentum=-1), "SGD: momentum must be a finite"),
        (lambda: optim.SGD([W], nesterov=True), "SGD: nesterov looks ahead along the momentum, which is 0; set momentum"),
        (lambda: optim.SGD([W], momentum=0.9, nesterov="yes"), "SGD: nesterov must be True or False, got 'yes'"),
        (lambda: optim.SGD([W], weight_decay=-1e-9), "SGD: weight_decay must be"),
        (lambda: optim.RMSprop([W], alpha=1.0), r"RMSprop: alpha must be in \[0, 1\): at least 0 and less than 1, got 1.0"),
        (lambda: optim.RMSprop([W], eps=-1.0), "RMSprop: eps must be"),
        (lambda: optim.Adam([W], betas=(1.0, 0.9)), r"Adam: beta1 must be in \[0, 1\)"),
        (lambda: optim.Adam([W], betas=(0.9, -0.1)), r"Adam: beta2 must be in \[0, 1\)"),
        (lambda: optim.Adam([W], betas=0.9), r"Adam: betas must be a pair \(β₁, β₂\), got 0.9"),
        (lambda: optim.AdamW([W], betas=(0.9, 0.9, 0.9)), "AdamW: betas must be a pair"),
        (lambda: optim.Optimizer([W], lr=0.1, momentun=0.9), r"Optimizer: got unknown settings \['momentun'\]; it has \['lr', "),
        (lambda: setattr(optim.SGD([W]), "lr", -1.0), "SGD: lr must be a finite"),
        (lambda: optim.clip_grad_norm([], 1.0), "clip_grad_norm: got no parameters"),
        (lambda: optim.clip_grad_norm([W * 2], 1.0), "clip_grad_norm: parameter 0 was computed"),
        (lambda: optim.clip_grad_norm([W], -1.0), "clip_grad_norm: max_norm must be a number of at least 0, got -1.0"),
        (lambda: optim.clip_grad_norm([W], math.nan), "clip_grad_norm: max_norm must be"),
        (lambda: optim.clip_grad_value([W], "1"), "clip_grad_value: clip_value must be a number of at least 0, got '1'"),
        (lambda: optim.StepLR(W, 1), "StepLR: expected an optimiser first, got Parameter"),
        (lambda: optim.StepLR(optim.SGD([W]), 0), "StepLR: step_size must be a whole number of at least 1, below 2⁶³, got 0"),
        (lambda: optim.StepLR(optim.SGD([W]), 1.5), "StepLR: step_size must be a whole number"),
        (lambda: optim.StepLR(optim.SGD([W]), 1, gamma=-1), "StepLR: gamma must be"),
        (lambda: optim.CosineLR(optim.SGD([W]), True), "CosineLR: total_steps must be a whole number"),
        (lambda: optim.CosineLR(optim.SGD([W], lr=0.1), 5, min_lr=0.2), "CosineLR: min_lr 0.2 is above the base rate 0.1"),
        (lambda: optim.WarmUp(optim.SGD([W]), -3), "WarmUp: warm_up_steps must be a whole number of at least 1, below 2⁶³, got -3"),
        (lambda: optim.WarmUp(optim.SGD([W]), 3, start=1.0), r"WarmUp: start must be in \[0, 1\)"),
        (lambda: optim.WarmUp(optim.SGD([W]), 3, then=optim.SGD([W])), "WarmUp: expected a schedule to follow, got SGD"),
        (lambda: optim.WarmUp(optim.SGD([W]), 3, then=optim.StepLR(optim.SGD([W]), 3)), "WarmUp: what follows must be a fresh schedule"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    """A message names the operation, the parameter or setting, what is expected and what came."""
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_setting_out_of_range_leaves_the_old_one() -> None:
    """What is refused changes nothing; NumPy's numbers are numbers."""
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=np.float32(0.5))
    with pytest.raises(ArgumentError):
        optimizer.lr = math.nan
    assert optimizer.lr == 0.5 and type(optimizer.lr) is float
    optimizer.lr = np.array(2)
    assert type(optimizer.lr) is float and repr(optimizer) == "SGD(lr=2.0, weight_decay=0.0, momentum=0.0, nesterov=False)"


def test_an_optimiser_of_ones_own() -> None:
    """A subclass with buffers is saved, restored and checked like ours; one whose update is missing or wrong says so."""

    class Average(optim.Optimizer):
        def buffer_names(self) -> tuple[str, ...]:
            return ("sum",)

        def update(self, w: Any, g: Any, t: int, buffers: dict[str, Any]) -> Any:
            buffers["sum"] = buffers["sum"] + g
            return w - self.lr * buffers["sum"] / t

    w = nn.Parameter([0.0, 0.0])
    decayed = Average([nn.Parameter([1.0])], lr=1.0, weight_decay=0.5)
    run(decayed, [np.zeros(1)])
    assert decayed.params["0"].item() == 0.5
    optimizer = Average([w], lr=1.0)
    run(optimizer, G[:2])
    assert oracles.difference(w.value, -(G[0] + (G[0] + G[1]) / 2)) < 1e-15
    again = Average([nn.Parameter(w.value)], lr=2.0)
    again.load_state_dict(optimizer.state_dict())
    run(again)
    run(optimizer)
    assert np.array_equal(again.params["0"].value, w.value)

    class Wrong(Average):
        def update(self, w: Any, g: Any, t: int, buffers: dict[str, Any]) -> Any:
            buffers["sum"] = g
            return np.zeros(3)

    wrong = Wrong([w])
    with pytest.raises(ShapeError, match=r"value: the leaf has shape \(2,\), got \(3,\)"):
        wrong.step()
    assert wrong.state_dict()["parameters"]["0"]["steps"] == 0
    with pytest.raises(NotImplementedError, match=r"needs a method update"):
        optim.Optimizer([w]).step()
    with pytest.raises(NotImplementedError, match=r"needs a method at"):
        optim.Schedule(optimizer)


# -- clipping -----------------------------------------------------------------------------------------------------------------


def with_gradients(*gradients: Any) -> list[Any]:
    params = []
    for gradient in gradients:
        params.append(nn.Parameter(np.zeros(np.shape(gradient), getattr(gradient, "dtype", np.float64))))
        params[-1].grad = gradient
    return params


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6), st.floats(1e-3, 1e3))
def test_clip_grad_norm_is_a_projection(entries: list[float], max_norm: float) -> None:
    """The norm afterwards is min(norm, max_norm), the direction is the same, and a second clipping does nothing more."""
    g = np.array(entries)
    params = with_gradients(g[:1], g[1:])
    norm = optim.clip_grad_norm(params, max_norm)
    assert type(norm) is float and oracles.difference(norm, math.hypot(*entries)) < 1e-14
    clipped = np.concatenate([p.grad.value for p in params])
    assert oracles.difference(clipped, g * min(1.0, max_norm / norm) if norm else g) < 1e-14
    again = optim.clip_grad_norm(params, max_norm * (1 + 1e-12))
    assert oracles.difference(again, min(norm, max_norm)) < 1e-14
    assert np.array_equal(np.concatenate([p.grad.value for p in params]), clipped)


def test_clip_grad_norm_counts() -> None:
    """The counter counts calls and engagements; a norm of exactly max_norm, or no gradient at all, does not engage."""
    (w,) = with_gradients([3.0, 4.0])
    counter = optim.ClipCounter()
    assert counter.fraction == 0.0
    kept = w.grad
    assert optim.clip_grad_norm([w], 5.0, counter=counter) == 5.0
    assert w.grad is kept
    assert optim.clip_grad_norm(w, 2.5, counter=counter) == 5.0
    assert w.grad.value.tolist() == [1.5, 2.0] and kept.value.tolist() == [3.0, 4.0]
    w.grad = None
    assert optim.clip_grad_norm([("w", w)], 1.0, counter=counter) == 0.0
    assert w.grad is None
    assert (counter.calls, counter.engaged, counter.fraction) == (3, 1, 1 / 3)


def test_clip_grad_norm_takes_a_generator_and_other_precisions() -> None:
    """Gradients keep their dtypes; the norm is that of all of them; the norm may be 0."""
    layer = nn.LSTM(2, 3, rng=0, dtype="float32")
    layer(np.ones((4, 1, 2), "float32"))[0].sum().backward()
    squares = sum(float((p.grad.value.astype("float64") ** 2).sum()) for p in layer.parameters())
    assert abs(optim.clip_grad_norm(layer.parameters(), 0.1) - math.sqrt(squares)) < 1e-14
    assert all(p.grad.dtype == "float32" for p in layer.parameters())
    assert abs(optim.clip_grad_norm(layer.named_parameters(), 0.0) - 0.1) < 1e-8
    assert all(not p.grad.value.any() for p in layer.parameters())
    assert optim.clip_grad_norm(layer.parameters(), 0.0) == 0.0


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 1e307])
def test_clip_grad_norm_at_the_ends_of_the_range(scale: float) -> None:
    """Squares that overflow or underflow do not; the direction is kept."""
    (w,) = with_gradients(np.array([3.0, 4.0]) * scale)
    relative = 1e-3 if scale < 1e-300 else 1e-14
    assert oracles.difference(optim.clip_grad_norm([w], scale), 5 * scale) < relative
    assert oracles.difference(w.grad.value, np.array([0.6, 0.8]) * scale) < relative
    (w,) = with_gradients(np.full(4, 3e38, "float32"))
    assert oracles.difference(optim.clip_grad_norm([w], 1.0), 6e38) < 1e-7
    assert oracles.difference(w.grad.value, np.full(4, 0.5)) < 1e-7
    (w,) = with_gradients(np.full(4, 1.7e308))  # the norm is more than a float can hold
    assert optim.clip_grad_norm([w], 1.0) == math.inf
    assert oracles.difference(w.grad.value, np.full(4, 0.5)) < 1e-14


def test_non_finite_gradients_in_clipping() -> None:
    """As in PyTorch they spread, unless an error is asked for, which names them and changes nothing; inf only measures."""
    for bad in (math.nan, math.inf):
        counter = optim.ClipCounter()
        params = [("a", p) for p in with_gradients([1.0])] + [("b", p) for p in with_gradients([bad, 2.0])]
        with pytest.raises(ArgumentError, match=r"clip_grad_norm: the gradients of \['b'\] are not finite"):
            optim.clip_grad_norm(params, 1.0, error_if_nonfinite=True, counter=counter)
        assert str(optim.clip_grad_norm(params, math.inf, counter=counter)) == str(bad)
        assert params[0][1].grad.value == 1.0 and counter.engaged == 0
        assert str(optim.clip_grad_norm(params, 1.0, counter=counter)) == str(bad)
        left = [float(x) for _, p in params for x in p.grad.value]
        assert str(left) == ("[nan, nan, nan]" if math.isnan(bad) else "[0.0, nan, 0.0]")
        assert (counter.calls, counter.engaged) == (2, 1)


def test_clip_grad_value() -> None:
    """Every entry is cut to the range on its own; what is inside stays the same object; a NaN stays."""
    a, b, c = with_gradients([3.0, -0.5, -7.0], [0.5], [math.nan, -math.inf])
    kept, counter = b.grad, optim.ClipCounter()
    optim.clip_grad_value([a, b, c], 1, counter=counter)
    assert a.grad.value.tolist() == [1.0, -0.5, -1.0] and b.grad is kept
    assert np.isnan(c.grad.value[0]) and c.grad.value[1] == -1.0
    optim.clip_grad_value([a, b], 1.0, counter=counter)
    assert (counter.calls, counter.engaged) == (2, 1)


# -- schedules ----------------------------------------------------------------------------------------------------------------


def rates(schedule: Any, steps: int) -> list[float]:
    """The rates that the optimiser really has, step by step."""
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.lr)
        schedule.step()
    return found


def sgd(lr: float = 1.0) -> Any:
    return optim.SGD([nn.Parameter([1.0])], lr=lr)


def test_step_and_cosine() -> None:
    """Steps of a factor; half a cosine that stays at its end."""
    assert rates(optim.StepLR(sgd(8.0), 2, gamma=0.5), 6) == [8.0, 8.0, 4.0, 4.0, 2.0, 2.0]
    found = rates(optim.CosineLR(sgd(3.0), 4, min_lr=1.0), 7)
    assert np.allclose(found, [3.0, 2 + math.sqrt(0.5), 2.0, 2 - math.sqrt(0.5), 1.0, 1.0, 1.0], rtol=1e-15)


def test_warm_up_rises_evenly_and_hands_over() -> None:
    """Equal rises from base/(n+1) to the base rate, which is where the next schedule starts; alone it stays there."""
    optimizer = sgd(4.0)
    schedule = optim.WarmUp(optimizer, 3, then=optim.StepLR(optimizer, 2, gamma=0.5))
    assert rates(schedule, 8) == [1.0, 2.0, 3.0, 4.0, 4.0, 2.0, 2.0, 1.0]
    assert rates(optim.WarmUp(sgd(4.0), 3), 6) == [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]
    assert rates(optim.WarmUp(sgd(4.0), 2, start=0), 4) == [0.0, 2.0, 4.0, 4.0]
    optimizer = sgd(4.0)
    assert rates(optim.WarmUp(optimizer, 1, optim.WarmUp(optimizer, 3)), 6) == [0.5, 1.0, 2.0, 3.0, 4.0, 4.0]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 60))
def test_a_schedule_is_a_function_of_the_step(warm: int, total: int, k: int) -> None:
    """Stepping k times, and loading a state that was stepped k times, both give at(k)."""
    optimizer = sgd()
    schedule = optim.WarmUp(optimizer, warm, then=optim.CosineLR(optimizer, total, min_lr=0.1))
    for _ in range(k):
        schedule.step()
    assert optimizer.lr == schedule.lr == schedule.at(k) and schedule.steps == k
    other = sgd(0.7)
    restored = optim.WarmUp(other, 2, then=optim.CosineLR(other, 3))
    restored.load_state_dict(schedule.state_dict())
    assert other.lr == optimizer.lr
    assert [restored.at(j) for j in range(80)] == [schedule.at(j) for j in range(80)]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda s: s.pop("then"), StateError, r"missing \['then/base_lr', 'then/kind'"),
        (lambda s: s["then"].update(kind="StepLR"), StateError, "expected the state of CosineLR, got StepLR"),
        (lambda s: s.update(kind="CosineLR"), StateError, "expected the state of WarmUp, got CosineLR"),
        (lambda s: s.update(gamma=1.0), StateError, r"unexpected \['gamma'\]"),
        (lambda s: s.update(steps=-1), ArgumentError, "steps must be a whole number of at least 0, below 2⁶³, got -1"),
        (lambda s: s["then"].update(min_lr=2.0), ArgumentError, "min_lr 2.0 is above the base rate 1.0"),
    ],
)
def test_schedules_load_all_or_nothing(change: Any, kind: type, message: str) -> None:
    """Unless everything fits, schedule and rate stay as they are."""
    optimizer = sgd()
    schedule = optim.WarmUp(optimizer, 3, then=optim.CosineLR(optimizer, 4))
    schedule.step()
    before, lr = schedule.state_dict(), optimizer.lr
    state = copy.deepcopy(before)
    state["steps"], state["base_lr"] = 5, 0.5
    change(state)
    with pytest.raises(kind, match=f"WarmUp.load_state_dict: .*{message}"):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before and optimizer.lr == lr
