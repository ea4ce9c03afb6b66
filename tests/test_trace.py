"""The ledger: every backward multiplication in order, its numbers, names, gates and landmarks, and what is kept of it."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.graph import Node
from tinygrad_rnn.steps import norm_of

LAYERS = {
    "rnn": (nn.RNN, nn.RNNCell, {}, oracles.rnn()),
    "lstm": (nn.LSTM, nn.LSTMCell, {}, oracles.lstm()),
    "gru": (nn.GRU, nn.GRUCell, {}, oracles.gru()),
    "gru-before": (nn.GRU, nn.GRUCell, {"reset": "before"}, oracles.gru("before")),
}
all_layers = pytest.mark.parametrize("name", LAYERS)


def leaf(array: Any, name: str | None = None) -> Any:
    return tg.tensor(array, requires_grad=True, name=name)


def build(name: str, *, steps: int = 4, batch: int = 2, size: int = 3, **options: Any) -> tuple[Any, Any, Any]:
    make, _, own, _ = LAYERS[name]
    layer = make(2, size, rng=0, **own, **options)
    outputs, state = layer(np.random.default_rng(1).normal(size=(steps, batch, 2)))
    return layer, outputs, state


def nodes_of(loss: Any) -> dict[int, Node]:
    found, stack = {}, [loss.node]
    while stack:
        node = stack.pop()
        if node.order not in found:
            found[node.order] = node
            stack.extend(o for o in node.operands if isinstance(o, Node))
    return found


# -- completeness -----------------------------------------------------------------------------------------------------------------


@all_layers
def test_every_edge_once_and_in_order(name: str) -> None:
    """The ledger has exactly the edges of the graph, each once, from the latest node to the earliest, numbered from 1 on."""
    layer, _, _ = build(name)
    outputs, _, _ = layer(np.random.default_rng(1).normal(size=(4, 2, 2)), return_gates=True)  # recorded step by step
    loss = (outputs * outputs).sum()
    ledger = tg.trace(loss)
    graph = nodes_of(loss)
    number = {order: rank for rank, order in enumerate(sorted(graph), 1)}
    edges = [(number[n.order], k) for n in graph.values() for k, o in enumerate(n.operands) if isinstance(o, Node)]
    walked = [(step.node.order, step.position) for step in ledger.steps]
    assert sorted(walked) == sorted(edges)
    assert [order for order, _ in walked] == sorted((order for order, _ in walked), reverse=True)
    assert len(ledger) == len(edges)


@all_layers
@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_an_opened_kernel_is_as_recorded(name: str, keep: Any) -> None:
    """The trace of a layer's kernel is, to the last number and name, that of the same steps recorded one by one."""
    layer, outputs, state = build(name)
    recorded, last, _ = layer(np.random.default_rng(1).normal(size=(4, 2, 2)), return_gates=True)
    opened, open_ = ((h * h).sum() + s.hidden.sum() for h, s in ((outputs, state), (recorded, last)))
    there, here = tg.trace(open_, keep=keep).to_dict(), tg.trace(opened, keep=keep).to_dict()
    assert len(here["steps"]) == len(there["steps"]) > 100 * (name != "rnn")
    for one, two in zip(here["steps"], there["steps"], strict=True):
        for what, number in one.items():
            if what in ("cotangent_norm", "contribution_norm", "gain"):
                assert number is two[what] is None or number == pytest.approx(two[what], rel=1e-12)
            elif what != "source":
                assert number == two[what]
    assert here["states"].keys() == there["states"].keys() == {name.split("-")[0]}


def held(cotangents: dict[int, Any], order: int, share: Any) -> None:
    cotangents[order] = share if order not in cotangents else cotangents[order] + share


@all_layers
def test_contributions_add_up(name: str) -> None:
    """For every node the contributions of the steps that lead to it sum to its cotangent; each is map.pullback(cotangent)."""
    layer, outputs, _ = build(name)
    loss = (outputs * outputs).sum()
    ledger = tg.trace(loss)
    sums: dict[int, Any] = {ledger.root.order: np.ones(())}
    for step in ledger.steps:
        assert oracles.difference(sums[step.node.order], step.cotangent) < 1e-14, step
        assert oracles.difference(step.contribution, step.map.pullback(step.cotangent)) == 0.0, step
        assert step.contribution.shape == step.operand.shape
        assert step.cotangent.shape == step.node.shape
        held(sums, step.operand.order, step.contribution)
    loss.backward()
    number = {info.name: info.order for info in ledger.gradients}
    for parameter in layer.parameters():
        assert oracles.difference(sums[number[parameter.name]], parameter.grad.value) < 1e-13
    for info, gradient in ledger.gradients.items():
        assert oracles.difference(sums[info.order], gradient) < 1e-13


@all_layers
def test_gain_is_the_ratio(name: str) -> None:
    """The gain of a step is ‖contribution‖ / ‖cotangent‖."""
    _, outputs, _ = build(name)
    for step in tg.trace((outputs * outputs).sum()).steps:
        before, after = np.linalg.norm(step.cotangent), np.linalg.norm(step.contribution)
        assert step.norms == pytest.approx((before, after), rel=1e-14)
        assert step.gain == pytest.approx(after / before if before else math.nan, rel=1e-14, nan_ok=True)


def test_gain_where_nothing_arrived() -> None:
    """Where a zero cotangent arrives, the gain is NaN, not 0 and not an error."""
    x = leaf([1.0, 2.0])
    steps = tg.trace((x * x * 0.0).sum()).steps
    assert [step.gain for step in steps][1] == 0.0
    assert math.isnan(steps[-1].gain)


@all_layers
@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_trace_touches_no_gradient(name: str, keep: Any) -> None:
    """Tracing changes no .grad and no later result, and gives the same ledger again."""
    layer, outputs, _ = build(name)
    loss = (outputs * outputs).sum()
    first = tg.trace(loss, keep=keep)
    assert all(p.grad is None for p in layer.parameters())
    second = tg.trace(loss, keep=keep)
    assert first.to_json() == second.to_json()
    loss.backward()
    traced = {p.name: p.grad.value for p in layer.parameters()}
    for p in layer.parameters():
        p.grad = None
    _, outputs, _ = build(name)
    (outputs * outputs).sum().backward()
    third = tg.trace(loss, keep=keep)
    assert third.to_json() == first.to_json()
    layer.zero_grad()
    outputs, _ = layer(np.random.default_rng(1).normal(size=(4, 2, 2)))
    (outputs * outputs).sum().backward()
    for p in layer.parameters():
        assert np.array_equal(p.grad.value, traced[p.name])


def test_cotangent_of_a_trace() -> None:
    """A trace may start from any Tensor with a cotangent of its shape, which scales everything."""
    _, outputs, _ = build("lstm")
    g = np.random.default_rng(0).normal(size=outputs.shape)
    direct, weighted = tg.trace(outputs, cotangent=g), tg.trace((outputs * g).sum())
    for t in (1, 4):
        assert np.array_equal(direct.states()[t].cotangent, weighted.states()[t].cotangent)
    with pytest.raises(tg.errors.ShapeError, match=r"trace: expected a cotangent of shape \(4, 2, 3\)"):
        tg.trace(outputs, cotangent=np.ones(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tg.trace(tg.tensor(1.0)), "trace: this Tensor has no graph; .* no_grad"),
        (lambda: tg.trace(1.0), "trace: expected a Tensor, got float"),
        (lambda: tg.trace(leaf([1.0, 2.0]) * 1.0), r"trace: shape \(2,\) is not a scalar; give a cotangent"),
        (lambda: tg.trace(leaf(1.0) * 1.0, keep="norm"), "trace: keep must be 'arrays' or 'norms', got 'norm'"),
    ],
)
def test_messages(call: Any, message: str) -> None:
    """What cannot be traced is refused with the reason."""
    with pytest.raises(tg.errors.TinygradError, match=message):
        call()


def test_trace_of_what_no_grad_made() -> None:
    """A loss computed under no_grad has nothing to trace, and the error says so."""
    layer = nn.RNN(2, 3, rng=0)
    with tg.no_grad():
        loss = layer(np.ones((2, 2)))[0].sum()
    with pytest.raises(tg.errors.GraphError, match=r"no graph; .* no_grad\(\)"):
        tg.trace(loss)


# -- names ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("rnn", ["⊙ (1 − h₃²)", "· W_hhᵀ", "x₃ᵀ ·", "h₂ᵀ ·"]),
        ("lstm", ["⊙ f₃", "⊙ c₂", "⊙ i₃", "⊙ g₃", "⊙ o₃", "⊙ tanh(c₃)", "⊙ (1 − tanh(c₃)²)", "⊙ i₃(1 − i₃)", "⊙ (1 − g₃²)", "· W_hhᵀ"]),
        ("gru", ["⊙ z₃", "⊙ (1−z₃)", "⊙ n₃", "⊙ h₂", "⊙ r₃", "⊙ (1 − n₃²)", "⊙ z₃(1 − z₃)", "⊙ r₃(1 − r₃)", "· W_hhᵀ"]),
    ],
)
def test_labels(name: str, labels: list[str]) -> None:
    """Each multiplication of step 3 is written as in the formulas."""
    _, outputs, _ = build(name)
    steps = tg.trace(outputs[-1].sum()).filter(time=3)
    assert set(labels) <= {step.label for step in steps}


def test_gates_of_the_steps() -> None:
    """An edge belongs to the gate that it comes from, goes to, or is multiplied by."""
    _, outputs, _ = build("lstm")
    ledger = tg.trace(outputs[-1].sum())

    def only(label: str) -> Any:
        (step,) = [step for step in ledger.filter(time=3) if step.label == label]
        return step

    assert only("⊙ f₃").gate == "forget"  # on the path from c₃ to c₂
    assert only("⊙ f₃").operand.symbol == "c₂"
    assert only("⊙ c₂").gate == "forget"
    assert only("⊙ g₃").gate == "input"
    assert only("⊙ i₃").gate == "candidate"
    assert only("⊙ tanh(c₃)").gate == "output"
    assert only("⊙ o₃").gate == "output"
    for symbol, gate in zip("ifgo", ("input", "forget", "candidate", "output"), strict=True):
        for step in ledger.filter(time=3):
            if step.operand.symbol == f"a_{symbol}₃":
                assert step.gate == gate
    assert {step.gate for step in ledger.filter(time=3, kind="matmul")} == {None}


def test_gate_made_of_another_gate() -> None:
    """On an edge from one gate to another, the gate is the one that the contribution goes to."""
    x = leaf([0.5, -1.0], "x")
    with tg.scope("mine", time=1):
        forget = tg.landmark(tg.sigmoid(x), "f", "gate", gate="forget")
        write = tg.landmark(1.0 - forget, "i", "gate", gate="input")
    first, second = tg.trace(write.sum()).filter(time=1)
    assert (first.node.gate, first.gate) == ("input", "forget")
    assert second.gate == "forget"


def test_where_and_when() -> None:
    """Scope path, time and kind of the steps of a layer inside a model and a named scope."""

    class Model(nn.Module):
        def __init__(self) -> None:
            self.lstm, self.head = nn.LSTM(2, 3, rng=0), nn.Linear(3, 1, rng=1)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][-1])

    with tg.scope("outer"):
        loss = Model()(np.ones((3, 2))).sum()
    ledger = tg.trace(loss)
    inner = [step for step in ledger.steps if step.scope == "outer/model/lstm"]
    assert {step.time for step in inner if step.op == "tanh"} == {1, 2, 3}
    assert {(step.op, step.kind) for step in inner} >= {
        ("tanh", "scale"), ("sigmoid", "scale"), ("multiply", "scale"), ("add", "add"), ("matmul", "matmul"), ("index", "route"),
    }  # fmt: skip
    head = ledger.filter(scope="outer/model/head")
    assert {step.kind for step in head} >= {"matmul", "add"}
    assert {step.time for step in head} == {None}


# -- what is kept -----------------------------------------------------------------------------------------------------------------


def reachable_arrays(*roots: Any) -> list[Any]:
    seen, todo, arrays = set(), list(roots), []
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, (type, str, int, float, type(gc), type(leaf))):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            arrays.append(thing)
        todo.extend(gc.get_referents(thing))
        todo.extend(getattr(thing, slot, None) for kind in type(thing).__mro__ for slot in getattr(kind, "__slots__", ()))
    return arrays


@all_layers
def test_norms_keep_no_arrays(name: str) -> None:
    """With keep="norms" no array can be reached from the ledger, its steps or its landmarks, and the graph is freed with the loss."""
    layer, outputs, _ = build(name)
    loss = (outputs * outputs).sum()
    ledger = tg.trace(loss, keep="norms")
    for step in ledger.steps:
        assert step.map is None
        assert step.cotangent is None
        assert step.contribution is None
    assert ledger.gradients == {}
    assert ledger.states()[1].cotangent is None
    assert reachable_arrays(ledger, *ledger.steps, *ledger.states()) == []
    gc.disable()
    try:
        gone = weakref.ref(outputs.value)
        del outputs, loss, _
        assert gone() is None
    finally:
        gc.enable()
    assert ledger.states(layer)[1].norm > 0


@all_layers
def test_norms_are_those_of_the_arrays(name: str) -> None:
    """The two ways of keeping give the same labels and the same norms; only arrays come with the lines of what was opened."""
    _, outputs, _ = build(name)
    loss = (outputs * outputs).sum()
    arrays, norms = tg.trace(loss), tg.trace(loss, keep="norms")
    one, two = arrays.to_dict(), norms.to_dict()
    assert (one.pop("keep"), two.pop("keep")) == ("arrays", "norms")
    assert any("recurrence.py:" in (step.pop("source") or "") for step in one["steps"])
    assert {step.pop("source") for step in two["steps"]} == {None}
    for steps in (one["steps"], two["steps"]):
        for step in steps:
            step.pop("source", None)
    assert one == two
    for here, there in zip(arrays.states(), norms.states(), strict=True):
        assert here.norm == there.norm == pytest.approx(np.linalg.norm(here.cotangent), rel=1e-14)
        assert here.hidden.norm == there.hidden.norm == pytest.approx(np.linalg.norm(here.hidden.cotangent), rel=1e-14)
        assert {g: m.norm for g, m in here.gates.items()} == {g: m.norm for g, m in there.gates.items()}
        assert there.hidden.value is None


@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_norm_of_a_part_that_is_picked_twice(keep: Any) -> None:
    """Picked once, a part keeps its norm on the way back; picked twice, its cotangents add up first."""
    x = leaf([1.0, 2.0, 3.0])
    g = np.array([1.0, 2.0, 2.0])
    for key, expected in ((np.array([0, 0, 1]), math.hypot(3.0, 2.0)), (np.array([2, 0, 1]), 3.0), (slice(None), 3.0)):
        (step,) = tg.trace(x[key], cotangent=g, keep=keep).steps
        assert step.norms == pytest.approx((3.0, expected), rel=1e-15)


@pytest.mark.parametrize(("dtype", "tiny"), [("float64", 1e-300), ("float64", 5e-324), ("float32", 1e-38), ("float32", 1e-45)])
@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_tiny_norms_are_not_zero(dtype: str, tiny: float, keep: Any) -> None:
    """Cotangents of 1e-300 (in float32 of 1e-38, or the smallest there are) have their norm, not 0, and a gain of 2."""
    x = leaf(np.ones(4, dtype))
    g = np.full(4, tiny, dtype)
    (_, step) = tg.trace((x * np.full(4, 2.0, dtype)) * np.ones(4, dtype), cotangent=g, keep=keep).steps
    assert step.norms[0] == pytest.approx(2.0 * float(g[0]), rel=1e-6)
    assert step.gain == pytest.approx(2.0, rel=1e-6)


@given(seed=st.integers(0, 1000), exponent=st.integers(-320, 307), shape=st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4), (130, 130)]))
def test_norm_of_any_size(seed: int, exponent: int, shape: tuple[int, ...]) -> None:
    """The norm is right to rounding for all magnitudes, sizes and memory layouts, and for entries of very different size."""
    array = np.random.default_rng(seed).normal(size=shape) * 10.0**exponent
    flat = [float(x) for x in np.ravel(array)]
    expected = math.hypot(*flat)
    got = norm_of(array)
    assert got == pytest.approx(expected, rel=1e-13, abs=5e-324 * len(flat))
    assert norm_of(array.T) == pytest.approx(got, rel=1e-13)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [([], 0.0), ([0.0, -0.0], 0.0), ([np.inf, 1.0], np.inf), ([np.nan, 1.0], np.nan), ([1e200, 1e200], 2**0.5 * 1e200)],
)
def test_norm_at_the_edges(entries: list[float], expected: float) -> None:
    """Nothing, zeros, infinities and NaN have the norms that they should have."""
    assert norm_of(np.array(entries)) == pytest.approx(expected, rel=1e-15, abs=0.0, nan_ok=True)


def test_kept_arrays_are_read_only() -> None:
    """Nothing that a trace hands out can be written to, and a later backward pass changes nothing of it."""
    layer, outputs, _ = build("gru")
    ledger = tg.trace((outputs * outputs).sum())
    before = [step.cotangent.copy() for step in ledger.steps]
    for step in ledger.steps:
        with pytest.raises(ValueError, match="read-only"):
            step.cotangent[...] = 0.0
    for at in ledger.states():
        for array in (at.hidden.value, at.hidden.cotangent, at.hidden.carried):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0.0
    (outputs * outputs).sum().backward()
    assert all(np.array_equal(a, step.cotangent) for a, step in zip(before, ledger.steps, strict=True))
    del layer


# -- states -----------------------------------------------------------------------------------------------------------------------


def state_of(kind: Any, arrays: Any) -> Any:
    return tuple(leaf(a) for a in arrays)


@all_layers
@pytest.mark.parametrize("how", ["layer", "cells"])
def test_state_cotangents_obey_the_law(name: str, how: str) -> None:
    """δ_{t−1} = J_tᵀ δ_t, and states[t].cotangent is δ_t, with J_t by complex step from plain NumPy and by tg.jacobian of the cell."""
    make, make_cell, options, oracle = LAYERS[name]
    size, steps = 3, 5
    layer = make(2, size, rng=0, **options)
    xs = np.random.default_rng(1).normal(size=(steps, 1, 2))
    cell = make_cell(2, size, rng=9, **options)
    cell.load_state_dict({n.removesuffix("_l0"): v for n, v in layer.state_dict().items()})
    w = {"bias_hn": np.zeros(size), **cell.state_dict()}
    if how == "layer":
        last = layer(xs)[1]
    else:
        last = None
        for x in xs:
            last = cell(x, last)
    rng = np.random.default_rng(2)
    loss = sum(((part * rng.normal(size=part.shape)).sum() for part in last), start=0.0)
    states = tg.trace(loss).states()
    start = tuple(np.zeros((1, size)) for _ in range(oracle.parts))
    _, expected, kept = oracles.run(oracle, xs, start, w)
    rng = np.random.default_rng(2)
    on_last = tuple(rng.normal(size=(1, 1, size))[0] if how == "layer" else rng.normal(size=(1, size)) for _ in range(oracle.parts))
    _, _, _, through = oracles.bptt(oracle, kept, w, np.zeros((steps, 1, size)), on_last)
    assert states.times == tuple(range(1, steps + 1))
    for t in range(1, steps + 1):
        assert oracles.difference(np.concatenate([part.value for part in states[t].parts], -1), np.concatenate(expected[t], -1)) < 1e-14
        assert oracles.difference(states[t].cotangent, np.concatenate(through[t], -1)) < 1e-13
    for t in range(2, steps + 1):
        jacobian = oracles.step_jacobian(oracle, xs[t - 1], expected[t - 1], w)
        assert oracles.difference(states[t - 1].cotangent[0], jacobian.T @ states[t].cotangent[0]) < 1e-13

        def step(flat: Any, t: int = t) -> Any:
            parts = cell(xs[t - 1, 0], tuple(flat[k * size : (k + 1) * size] for k in range(oracle.parts)))
            return tg.concatenate(list(parts))

        ours = tg.jacobian(step, np.concatenate([part[0] for part in expected[t - 1]]))
        assert oracles.difference(ours.value, jacobian) < 1e-13


@all_layers
def test_state_cotangents_with_a_loss_at_every_step(name: str) -> None:
    """With a loss that reads every step, δ_t is the total: what the loss reads at t plus what comes back from t + 1."""
    make, _, options, oracle = LAYERS[name]
    layer = make(2, 3, rng=0, **options)
    xs = np.random.default_rng(1).normal(size=(4, 2, 2))
    g = np.random.default_rng(2).normal(size=(4, 2, 3))
    states = tg.trace((layer(xs)[0] * g).sum()).states()
    w = {"bias_hn": np.zeros(3), **{n.removesuffix("_l0"): v for n, v in layer.state_dict().items()}}
    zeros = tuple(np.zeros((2, 3)) for _ in range(oracle.parts))
    _, _, kept = oracles.run(oracle, xs, zeros, w)
    _, _, _, through = oracles.bptt(oracle, kept, w, g, zeros)
    for t in range(1, 5):
        assert oracles.difference(states[t].cotangent, np.concatenate(through[t], -1)) < 1e-13
        assert states[t].norm == pytest.approx(np.linalg.norm(states[t].cotangent), rel=1e-14)


def test_chain_rule_from_position_4_to_position_1() -> None:
    """∂J⁽⁴⁾/∂h⁽¹⁾ is the product of the listed factors: ⊙ (1 − h_t²) and · W_hhᵀ for t = 4, 3, 2, times ∂J⁽⁴⁾/∂h⁽⁴⁾."""
    layer, outputs, _ = build("rnn", batch=1)
    ledger = tg.trace((outputs[-1] * outputs[-1]).sum())
    states = ledger.states()
    flowing = states[4].cotangent
    listed = []
    for t in (4, 3, 2):
        (saturation,) = ledger.filter(time=t, op="tanh")
        (weight,) = [s for s in ledger.filter(time=t, kind="matmul") if s.operand.role == "hidden"]
        listed += [saturation.label, weight.label]
        flowing = flowing * saturation.map.factor @ weight.map.matrix.T
    assert listed == ["⊙ (1 − h₄²)", "· W_hhᵀ", "⊙ (1 − h₃²)", "· W_hhᵀ", "⊙ (1 − h₂²)", "· W_hhᵀ"]
    assert oracles.difference(states[1].cotangent, flowing) < 1e-14
    w, h = layer.weight_hh_l0.value, [None, *(states[t].hidden.value[0] for t in (1, 2, 3, 4))]
    product = np.eye(3)
    for t in (4, 3, 2):
        product = product @ (np.diag(1 - h[t] ** 2) @ w)
    assert oracles.difference(states[1].cotangent[0], product.T @ (2 * h[4])) < 1e-14


class Two(nn.Module):
    """Two layers, one behind the other."""

    def __init__(self) -> None:
        self.lower, self.upper = nn.LSTM(2, 3, rng=0), nn.GRU(3, 2, rng=1)

    def forward(self, x: Any) -> Any:
        return self.upper(self.lower(x)[0])[0]


def test_finding_a_layer() -> None:
    """States are found by the path, by its end, or by the module; several or none is an error that lists what there is."""
    model = Two()
    ledger = tg.trace(model(np.ones((3, 1, 2))).sum())
    assert ledger.layers == ("two/lower", "two/upper")
    assert len(ledger.states("two/lower")) == len(ledger.states("lower")) == len(ledger.states(model.lower)) == 3
    assert ledger.states("lower")[1].cell is not None
    assert ledger.states(model.upper)[1].cell is None
    for wrong, message in (
        (None, "states: several fit. Name one of them: layer='two/lower' or layer='two/upper'"),
        ("low", r"none fits 'low'\. Expected one of \['two/lower', 'two/upper'\]"),
        ("two", "none fits 'two'"),
        (nn.RNN(2, 2), "none fits this RNN"),
    ):
        with pytest.raises(tg.errors.ArgumentError, match=message):
            ledger.states(wrong)
    with pytest.raises(tg.errors.ArgumentError, match=r"no recurrence in this trace: no layer left landmarks"):
        tg.trace(leaf(1.0) * 2.0).states()


def test_steps_of_states() -> None:
    """states[t] is step t from 1 on; negative numbers count from the end, slices give lists, a missing step is an error."""
    states = tg.trace(build("lstm")[1].sum()).states("lstm")
    assert [at.time for at in states] == [1, 2, 3, 4]
    assert states[-1] is states[4]
    assert states[1:3] == [states[2], states[3]]
    assert len(states) == 4
    with pytest.raises(tg.errors.ArgumentError, match=r"states: 'lstm' has no step 5; expected one from 1 to 4"):
        states[5]
    with pytest.raises(tg.errors.ArgumentError, match="has no step 0"):
        states[0]
    with pytest.raises((IndexError, tg.errors.ArgumentError)):
        states[-5]
    with pytest.raises((TypeError, tg.errors.ArgumentError)):
        states["1"]


def test_one_layer_called_twice() -> None:
    """Two calls of one layer are two recurrences, lstm and lstm#2, also where the second goes on from the first."""
    layer = nn.LSTM(2, 3, rng=0)
    x = np.random.default_rng(0).normal(size=(5, 1, 2))
    _, middle = layer(x[:3])
    _, last = layer(x[3:], middle)
    ledger = tg.trace(last.hidden.sum())
    assert ledger.layers == ("lstm", "lstm#2")
    whole = tg.trace(layer(x)[1].hidden.sum()).states()
    parts = [*ledger.states("lstm"), *ledger.states("lstm#2")]
    assert [at.time for at in parts] == [1, 2, 3, 0, 1, 2]  # the state that the second call began with is its step 0
    for here, there in zip(parts, [whole[t] for t in (1, 2, 3, 3, 4, 5)], strict=True):
        assert oracles.difference(here.cotangent, there.cotangent) < 1e-14
    with pytest.raises(tg.errors.ArgumentError, match="several fit"):
        ledger.states(layer)


def test_cells_in_a_loop_count_the_time() -> None:
    """A cell called in a Python loop counts its steps by itself; detaching the state begins a new recurrence at 1."""
    cell = nn.GRUCell(2, 3, rng=0)
    x = np.random.default_rng(0).normal(size=(5, 2, 2))
    state = None
    for part in x:
        state = cell(part, state)
    ledger = tg.trace(state.hidden.sum())
    assert ledger.layers == ("grucell",)
    assert ledger.states(cell).times == (1, 2, 3, 4, 5)
    assert ledger.filter(time=3, op="tanh")[0].label == "⊙ (1 − n₃²)"
    state = cell(x[1], cell(x[0], state.detach()))
    assert tg.trace(state.hidden.sum()).states().times == (1, 2)


def test_two_sequences_of_one_cell() -> None:
    """One cell run over two sequences leaves two recurrences."""
    cell = nn.LSTMCell(2, 3, rng=0)
    total: Any = 0.0
    for seed in (0, 1):
        state = None
        for part in np.random.default_rng(seed).normal(size=(3, 2)):
            state = cell(part, state)
        total = total + state.hidden.sum()
    ledger = tg.trace(total)
    assert ledger.layers == ("lstmcell", "lstmcell#2")
    assert ledger.states("lstmcell").times == ledger.states("lstmcell#2").times == (1, 2, 3)


def test_cells_inside_a_scope_with_a_time() -> None:
    """Inside scope(time=t) a step has that time; two cells in one such scope keep their states apart, and δ_t counts every reader."""
    one, two = nn.LSTMCell(2, 3, rng=0), nn.RNNCell(3, 2, rng=1)
    x = np.random.default_rng(0).normal(size=(3, 1, 2))

    def run(timed: bool) -> Any:
        a: Any = None
        b: Any = None
        for t in range(3):
            if timed:
                with tg.scope("net", time=10 + t):
                    a = one(x[t], a)
                    b = two(a.hidden, b)
            else:
                a = one(x[t], a)
                b = two(a.hidden, b)
        return tg.trace(b.hidden.sum())

    timed, counted = run(True), run(False)
    assert timed.layers == ("net/lstmcell", "net/rnncell")
    assert timed.states(one).times == timed.states(two).times == (10, 11, 12)
    assert counted.states(one).times == (1, 2, 3)
    for cell in (one, two):
        for here, there in zip(timed.states(cell), counted.states(cell), strict=True):
            assert np.array_equal(here.cotangent, there.cotangent)
            assert here.cotangent.any()
    layered = nn.LSTM(2, 3, rng=5), nn.RNN(3, 2, rng=5)
    for layer, cell in zip(layered, (one, two), strict=True):
        layer.load_state_dict({f"{n}_l0": v for n, v in cell.state_dict().items()})
    whole = tg.trace(layered[1](layered[0](x)[0])[0][-1].sum())
    for layer, cell in zip(layered, (one, two), strict=True):
        for here, there in zip(timed.states(cell), whole.states(layer), strict=True):
            assert oracles.difference(here.cotangent, there.cotangent) < 1e-14


def test_readers_in_the_same_time() -> None:
    """What a read-out inside scope(time=t) sends back to h_t belongs to δ_t like any other reader's share."""
    cell, head = nn.LSTMCell(2, 3, rng=0), nn.Linear(3, 1, rng=1)
    x = np.random.default_rng(0).normal(size=(3, 2))

    def states(inside: bool) -> Any:
        state, total = None, 0.0
        for t in (1, 2, 3):
            with tg.scope(time=t):
                state = cell(x[t - 1], state)
                if inside:
                    total = total + head(state.hidden).sum()
            if not inside:
                total = total + head(state.hidden).sum()
        return tg.trace(total).states()

    for here, there in zip(states(True), states(False), strict=True):
        assert oracles.difference(here.cotangent, there.cotangent) < 1e-14


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_seed_at_a_state(name: str) -> None:
    """A trace that starts at a state itself counts the cotangent that it was given in δ_T."""
    _, make, options, _ = LAYERS[name]
    cell = make(2, 3, rng=0, **options)
    x = np.random.default_rng(0).normal(size=(2, 1, 2))
    last = cell(x[1], cell(x[0]))
    g = np.array([[1.0, -2.0, 3.0]])
    for here, there in zip(tg.trace(last.hidden, cotangent=g).states(), tg.trace((last.hidden * g).sum()).states(), strict=True):
        assert np.array_equal(here.cotangent, there.cotangent)
        assert here.cotangent.any()


def test_branches_of_one_state() -> None:
    """Two steps that go on from the same state are both kept: one continues the recurrence, the other is one of its own."""
    cell = nn.RNNCell(1, 2, rng=0)
    start = cell(np.ones(1))
    left, right = cell(np.zeros(1), start), cell(np.full(1, 2.0), start)
    ledger = tg.trace(left.hidden.sum() + 3.0 * right.hidden.sum())
    found = [at.hidden.value for layer in ledger.layers for at in ledger.states(layer)]
    assert len(found) == 3
    for state in (start, left, right):
        assert any(np.array_equal(value, state.hidden.value) for value in found)


def test_streaming_has_a_bounded_ledger() -> None:
    """With detach between windows a trace reaches back to the last detach and no further."""
    layer = nn.LSTM(2, 3, rng=0)
    state: Any = None
    for _ in range(5):
        outputs, state = layer(np.ones((4, 1, 2)), None if state is None else state.detach())
    ledger = tg.trace(outputs[-1].sum())
    assert ledger.layers == ("lstm",)
    assert ledger.states().times == (1, 2, 3, 4)


# -- reading ----------------------------------------------------------------------------------------------------------------------


def test_filter() -> None:
    """Conditions hold together; each is one value or a collection; a scope is a path or its beginning, never part of a name."""
    ledger = tg.trace(Two()(np.ones((3, 1, 2))).sum())
    steps = ledger.steps
    assert ledger.filter() == steps
    assert ledger.filter(kind="matmul") == [s for s in steps if s.kind == "matmul"]
    assert ledger.filter(kind=("matmul", "scale"), time=range(2, 4)) == [
        s for s in steps if s.kind in ("matmul", "scale") and s.time in (2, 3)
    ]
    assert ledger.filter(gate={"forget", "update"}, op="multiply") == [
        s for s in steps if s.gate in ("forget", "update") and s.op == "multiply"
    ]
    assert ledger.filter(scope="two/lower") == [s for s in steps if s.scope == "two/lower"]
    assert ledger.filter(scope="two") == [s for s in steps if s.scope.startswith("two")]
    assert ledger.filter(scope="tw") == ledger.filter(scope="lower") == []
    assert ledger.filter(where=lambda s: s.gain > 0.5, time=1) == [s for s in steps if s.gain > 0.5 and s.time == 1]
    assert ledger.filter(time=np.int64(2)) == ledger.filter(time=2) != []
    assert ledger.filter(time=[]) == []
    with pytest.raises(tg.errors.ArgumentError, match=r"filter: kind 'multiply' .* expected one of add, scale, matmul, route"):
        ledger.filter(kind="multiply")


def test_summary() -> None:
    """The summary counts every multiplication once, by operation and kind, and names the recurrences."""
    ledger = tg.trace(build("lstm")[1].sum())
    table = ledger.summary()
    counts = {(row[0], row[1]): int(row[2]) for row in table.rows}
    assert sum(counts.values()) == len(ledger)
    assert counts["tanh", "scale"] == 8
    text = str(table)
    assert f"{len(ledger)} backward multiplications" in text
    assert "lstm" in text
    assert "of gain 0" in text
    assert "<table>" in ledger._repr_html_()
    assert repr(ledger) == f"<trace of sum: {len(ledger)} steps, layers ['lstm']>"


# -- JSON -------------------------------------------------------------------------------------------------------------------------


def test_json_is_the_ledger(tmp_path: Any) -> None:
    """The file is valid JSON with every step and the norms of all state cotangents; the text is the same as the file's."""
    ledger = tg.trace(build("lstm")[1].sum())
    path = ledger.to_json(tmp_path / "ledger.json")
    loaded = json.loads(path.read_text(encoding="utf-8"))
    assert path.read_text(encoding="utf-8") == ledger.to_json()
    assert [s["label"] for s in loaded["steps"]] == [s.label for s in ledger.steps]
    assert loaded["states"]["lstm"]["3"] == ledger.states()[3].norm
    assert min(s["to"] for s in loaded["steps"]) == 1


def test_json_of_numbers_that_json_has_not() -> None:
    """Infinities become strings and NaN null: the text stays valid JSON."""
    x = leaf([1.0, np.inf])
    parsed = json.loads(tg.trace((x * x * 0.0).sum()).to_json(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert any(step["contribution_norm"] is None for step in parsed["steps"])
    y = leaf([1e300])
    parsed = json.loads(tg.trace((y * 1e300 * 1e300).sum()).to_json(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert parsed["steps"][-1]["contribution_norm"] == "inf"


@pytest.mark.parametrize("failing", ["fsync", "replace", "write"])
def test_failing_write_leaves_the_old_file(tmp_path: Any, monkeypatch: Any, failing: str) -> None:
    """If writing fails, the old file is whole and nothing else is left in the folder."""
    target = tmp_path / "ledger.json"
    target.write_text("old")
    ledger = tg.trace(leaf(1.0) * 2.0)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    if failing == "write":
        monkeypatch.setattr("tinygrad_rnn.files.open", fail, raising=False)
    else:
        monkeypatch.setattr(os, failing, fail)
    handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="disk full"):
        ledger.to_json(target)
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.json"]
    if handles:
        assert len(os.listdir("/proc/self/fd")) == handles
    with pytest.raises(OSError, match="missing"):
        ledger.to_json(tmp_path / "missing" / "ledger.json")


PROGRAM = """
import sys, numpy as np, tinygrad_rnn as tg
from tinygrad_rnn import nn
for _ in range(int(sys.argv[1])):
    tg.tensor(1.0, requires_grad=True) * 2.0
x = np.random.default_rng(0).normal(size=(3, 2, 4))
lower, upper = nn.LSTM(4, 3, rng=1), nn.GRU(3, 3, rng=2)
sys.stdout.buffer.write(tg.trace((upper(lower(x)[0])[0] ** 2).sum(), keep=sys.argv[2]).to_json().encode())
"""


@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_json_is_the_same_in_every_process(keep: str) -> None:
    """Two processes with different hash seeds, one of which had recorded other things before, write the same bytes."""
    written = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, before, keep], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed, before in (("1", "0"), ("2", "7"))
    ]
    assert written[0] == written[1]
    assert len(written[0]) > 1000


# -- opened nodes, observers and interventions ----------------------------------------------------------------------------------------


def test_checkpointed_cells_are_opened() -> None:
    """A trace walks through checkpointed steps as if they had been recorded: the same labels, states and norms."""
    cell = nn.LSTMCell(2, 3, rng=0)
    x = np.random.default_rng(0).normal(size=(3, 1, 2))

    def run(step: Any) -> Any:
        h, c = leaf(np.zeros((1, 3)), "h₀"), leaf(np.zeros((1, 3)), "c₀")
        for t in range(3):
            with tg.scope(time=t + 1):
                h, c = step(h, c, t)
        return tg.trace(h.sum())

    def plain(h: Any, c: Any, t: int) -> Any:
        return tuple(cell(x[t], (h, c)))

    direct = run(plain)
    opened = run(lambda h, c, t: tg.checkpoint(lambda h, c: plain(h, c, t), h, c))
    arithmetic = [s.label for s in direct.steps if s.kind != "route"]
    assert [s.label for s in opened.steps if s.kind != "route"] == arithmetic
    for here, there in zip(opened.filter(kind=("scale", "matmul")), direct.filter(kind=("scale", "matmul")), strict=True):
        assert here.gain == pytest.approx(there.gain, rel=1e-13, nan_ok=True)
    steps = [at for name in opened.layers for at in opened.states(name)]  # each checkpoint is a recurrence of its own
    for here, there in zip(sorted(steps, key=lambda at: at.time), direct.states(cell), strict=True):
        assert here.time == there.time
        assert oracles.difference(here.cotangent, there.cotangent) < 1e-14
        assert here.cotangent.any()
    for keep in ("norms", "arrays"):
        h, c = (leaf(np.zeros((1, 3))) for _ in range(2))
        one, two = tg.checkpoint(lambda h, c: plain(h, c, 0), h, c)
        ledger = tg.trace((one * two).sum(), keep=keep)
        assert all(math.isfinite(step.norms[1]) for step in ledger.steps)
        assert json.loads(ledger.to_json())


@all_layers
def test_checkpointed_layer_is_opened(name: str) -> None:
    """A layer inside a checkpoint has the same states in a trace, and gives the same gradients, as outside."""
    make, _, options, _ = LAYERS[name]
    layer = make(2, 3, rng=0, **options)
    x = leaf(np.random.default_rng(0).normal(size=(4, 2, 2)))
    outside = tg.trace((layer(x)[0] ** 2).sum())
    inside = tg.trace((tg.checkpoint(lambda x: layer(x)[0], x) ** 2).sum())
    assert inside.states(layer).times == (1, 2, 3, 4)
    for here, there in zip(inside.states(layer), outside.states(layer), strict=True):
        assert oracles.difference(here.cotangent, there.cotangent) < 1e-14
        assert here.gates.keys() == there.gates.keys()
    assert inside.filter(op="square")[0].label == "⊙ 2outputs"


def test_blocking_the_gates_leaves_the_highway() -> None:
    """With every edge from the pre-activations back to h cut, what reaches c₀ is exactly the cotangent times ∏ f_t."""
    layer = nn.LSTM(2, 3, rng=0)
    h, c = leaf(np.zeros((1, 2, 3))), leaf(np.random.default_rng(3).normal(size=(1, 2, 3)))
    _, state = layer(np.random.default_rng(1).normal(size=(6, 2, 2)), (h, c))
    loss = state.cell.sum()
    product = np.ones((2, 3))
    for at in tg.trace(loss).states()[1:]:
        product = product * at.gates["forget"].value

    def block(step: Any) -> Any:
        from_hidden = step.operand.role == "hidden" or step.operand.order == h.node.order
        return np.zeros(step.operand.shape) if step.kind == "matmul" and from_hidden and step.operand.op != "transpose" else None

    seen = []
    loss.backward(interventions=[block], observers=[seen.append])
    assert oracles.difference(c.grad.value[0], product) < 1e-14
    assert sum(step.altered for step in seen) == 6
    total = c.grad.value
    c.grad = None
    loss.backward()
    assert oracles.difference(c.grad.value, total) > 1e-3


def test_observers_see_what_the_trace_lists() -> None:
    """An observer of backward gets the very steps of the trace, in order, and the gradients are those of an unwatched pass."""
    layer, outputs, _ = build("gru")
    loss = (outputs * outputs).sum()
    seen: list[Any] = []
    loss.backward(observers=[lambda step: seen.append((step.label, step.time, step.gate, step.norms))])
    watched = [p.grad.value for p in layer.parameters()]
    assert seen == [(s.label, s.time, s.gate, s.norms) for s in tg.trace(loss).steps]
    layer.zero_grad()
    loss.backward()
    for opened, parameter in zip(watched, layer.parameters(), strict=True):
        assert oracles.difference(opened, parameter.grad.value) < 1e-13


def test_hooks_are_part_of_the_ledger() -> None:
    """A hook that replaces a cotangent changes what the ledger shows from there on."""
    x = leaf([1.0, 2.0])
    y = x * 2.0
    y.register_hook(lambda g: g * 10.0)
    ledger = tg.trace((y * 3.0).sum())
    assert ledger.steps[-1].cotangent.tolist() == [30.0, 30.0]
    assert next(iter(ledger.gradients.values())).tolist() == [60.0, 60.0]


def test_deep_traces_need_no_recursion() -> None:
    """A ledger over 3,000 steps of a sequence is made, read and freed."""
    outputs, _ = nn.RNN(1, 1, rng=0)(np.ones((3000, 1)))
    ledger = tg.trace(outputs[-1].sum(), keep="norms")
    assert len(ledger.states()) == 3000
    assert ledger.states()[1].norm >= 0.0


def test_the_gru_that_resets_before_the_product_names_its_weights():
    """W_hn is used apart from the rest, on r ⊙ h, and belongs to the candidate."""
    outputs, _ = nn.GRU(2, 3, reset="before", rng=0)(np.ones((3, 1, 2)))
    steps = tg.trace(outputs[-1].sum()).filter(time=2, kind="matmul")
    assert [(step.label, step.gate) for step in steps][:3] == [
        ("· W_hnᵀ", "candidate"),
        ("(r⊙h₂)ᵀ ·", "candidate"),
        ("· W_h(rz)ᵀ", None),
    ]
