"""The BPTT matrix and the connectivity, against gradients taken one loss and one use at a time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recurrences import LAYERS, Setting, settings

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn
from tinygrad_rnn.flow import bptt, reach, stacks

GATES = {"rnn": ("all",), "relu": ("all",), "lstm": ("input", "forget", "candidate", "output"), "gru": ("reset", "update", "candidate")}
GATES["gru-before"] = GATES["gru"]
all_layers = pytest.mark.parametrize("name", LAYERS)


def ran(name: str, *, steps: int = 4, batch: int = 2, size: int = 3, lengths: Any = None, seed: int = 0, **options: Any) -> Any:
    """A layer, its input as a leaf, its outputs, and one loss per step."""
    make, _, own, _ = LAYERS[name]
    layer = make(2, size, rng=seed, **own, **options)
    x = tg.tensor(np.random.default_rng(seed + 1).normal(size=(steps, batch, 2)).astype(layer.dtype), requires_grad=True, name="x")
    outputs, _ = layer(x, lengths=lengths)
    return layer, x, outputs, [(outputs[t] * outputs[t] * (1.0 + t)).sum() for t in range(steps)]


def itemised(name: str, layer: Any, x: Any, outputs: Any) -> dict[str, Any]:
    """The entries for every parameter by plain backpropagation through time, one loss at a time: (T′, T, *shape)."""
    cell = LAYERS[name][3]
    own = {n: getattr(layer, f"{n}_l0", None) for n in ("weight_ih", "weight_hh", "bias", "bias_hn")}
    weights = {n: parameter.value for n, parameter in own.items() if parameter is not None}
    steps, batch, size = outputs.shape
    start = tuple(np.zeros((batch, size)) for _ in range(cell.parts))
    hidden, _, kept = oracles.run(cell, x.value, start, weights)
    found = {n: np.zeros((steps, steps, *w.shape)) for n, w in weights.items()}
    for late in range(steps):
        flowing = (2.0 * (1.0 + late) * hidden[late], *(np.zeros((batch, size)) for _ in range(cell.parts - 1)))
        for early in range(late, -1, -1):
            _, flowing, shares = cell.backward(flowing, kept[early], weights)
            for n, share in shares.items():
                found[n][late, early] = share
    return found


def norms(entries: Any, blocks: int = 1) -> Any:
    """(T′, T, *shape) → (blocks, T′, T)."""
    steps = entries.shape[:2]
    return np.sqrt((entries.reshape(*steps, blocks, -1) ** 2).sum(-1)).transpose(2, 0, 1)


def far(got: Any, expected: Any) -> float:
    return oracles.difference(np.asarray(got), np.asarray(expected))


# -- the BPTT matrix --------------------------------------------------------------------------------------------------------------


@all_layers
def test_every_entry_is_what_plain_backpropagation_gives(name: str) -> None:
    """Entries in full, their norms, and per gate block, for every parameter."""
    layer, x, outputs, losses = ran(name)
    expected = itemised(name, layer, x, outputs)
    for own, entries in expected.items():
        found = flow.bptt_matrix(losses, getattr(layer, f"{own}_l0"))
        gates = GATES[name] if own != "bias_hn" else ("all",)
        assert found.gates == gates
        assert far(found.norm, norms(entries)[0]) < 1e-12
        assert far(found.gate_norm, norms(entries, len(gates))) < 1e-12
        for late in range(1, 5):
            for early in range(1, 5):
                assert far(found.entry(late, early), entries[late - 1, early - 1]) < 1e-12
                for block, gate in zip(np.split(entries[late - 1, early - 1], len(gates)), gates, strict=True):
                    assert far(found.entry(late, early, gate), block) < 1e-12
        assert far(found.local, sum(entries[t, t] for t in range(4))) < 1e-12
        assert not found.outside.any()


@given(drawn=settings())
def test_the_entries_add_up_to_the_gradient(drawn: Setting) -> None:
    """Over losses and steps, for every parameter and the input; per gate block; the local part and the rest; norms are the entries'."""
    steps, dtype, seed = drawn.steps, drawn.options["dtype"], drawn.seed
    layer, x, _, losses = ran(
        drawn.name, steps=steps, batch=drawn.batch, size=drawn.size, lengths=drawn.lengths, seed=seed, **drawn.options
    )
    sum(losses[1:], losses[0]).backward()
    parameters = (*layer.parameters(), x)
    parameter = parameters[seed % len(parameters)]
    found = flow.bptt_matrix(losses, parameter)
    entries = np.array([[found.entry(late, early) for early in range(1, steps + 1)] for late in range(1, steps + 1)])
    digits = 1e-11 if dtype == np.float64 else 1e-3
    size_ = float(np.max(np.abs(entries), initial=0.0)) or 1.0
    for total in (entries.sum((0, 1)), found.local + found.through_time, found.gradient):
        assert total.dtype == dtype
        assert np.max(np.abs(total - parameter.grad.value)) < digits * size_
    assert np.max(np.abs(norms(entries.astype(np.float64))[0] - found.norm)) < digits * size_
    assert np.max(np.abs(norms(entries.astype(np.float64), len(found.gates)) - found.gate_norm)) < digits * size_
    assert far((found.gate_norm**2).sum(0), found.norm**2) < digits
    local = np.einsum("tt...->...", entries)
    assert np.max(np.abs(local - found.local)) < digits * size_


@all_layers
def test_cells_in_a_loop_share_a_weight_as_layers_do(name: str) -> None:
    """A weight that is transposed and broadcast anew in every step has its uses there."""
    layer, x, _, losses = ran(name)
    cell = LAYERS[name][1](2, 3, rng=0, **LAYERS[name][2])
    state, own = None, []
    for t in range(4):
        state = cell(x.value[t], state)
        own.append((state.hidden * state.hidden * (1.0 + t)).sum())
    for parameter in ("weight_ih", "weight_hh", "bias"):
        one = flow.bptt_matrix(own, getattr(cell, parameter))
        two = flow.bptt_matrix(losses, getattr(layer, parameter + "_l0"))
        assert far(one.norm, two.norm) < 1e-12 and far(one.gate_norm, two.gate_norm) < 1e-12
        assert one.gates == two.gates and list(one.time) == list(two.time)


def test_one_pass_for_all_losses() -> None:
    """Every edge is walked once, with a stack: as many products for 12 losses as for 2."""
    counts = []
    for chosen in (range(12), (0, 11)):
        layer, _, _, losses = ran("lstm", steps=12)
        calls = []
        real = stacks.pull
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stacks, "pull", lambda *a, calls=calls, real=real: (calls.append(1), real(*a))[1])
            flow.bptt_matrix([losses[k] for k in chosen], layer.weight_hh_l0)
        counts.append(len(calls))
    assert counts[0] - counts[1] <= 8 * 10  # what is added are the edges of the ten losses themselves


def test_the_time_of_a_loss() -> None:
    """As many losses as steps come in their order; otherwise the latest use counts; or as one is told."""
    layer, _, outputs, losses = ran("lstm", steps=6)
    assert list(flow.bptt_matrix(losses, layer.bias_l0).loss_time) == [1, 2, 3, 4, 5, 6]
    assert list(flow.bptt_matrix([losses[4], losses[1]], layer.bias_l0).loss_time) == [5, 2]
    assert list(flow.bptt_matrix([losses[4], losses[1]], layer.bias_l0, times=[2, 5]).loss_time) == [2, 5]
    both = flow.bptt_matrix([losses[4], outputs[4].sum(), losses[1]], layer.weight_ih_l0)
    assert list(both.loss_time) == [5, 5, 2]
    apart = [flow.bptt_matrix([loss], layer.weight_ih_l0) for loss in (losses[4], outputs[4].sum())]
    assert far(both.entry(5, 3), sum(one.entry(5, 3) for one in apart)) < 1e-13
    backward, _, _, late = ran("rnn", steps=5, bidirectional=True)
    assert list(flow.bptt_matrix([late[1], late[3]], backward.weight_hh_l0).loss_time) == [2, 4]
    assert list(flow.bptt_matrix([late[1], late[3]], backward.weight_hh_l0_reverse).loss_time) == [2, 4]


def test_uses_outside_any_step_are_told_apart() -> None:
    """A penalty on the weight and a sum over it belong to no step; the parts still add up."""
    layer, _, _, losses = ran("lstm")
    weight = layer.weight_hh_l0
    losses = [*losses, (weight * weight).sum(), weight.sum()]
    found = flow.bptt_matrix(losses, weight)
    sum(losses[1:], losses[0]).backward()
    assert far(found.local + found.through_time, weight.grad.value) < 1e-12
    assert far(found.outside, [0, 0, 0, 0, 2 * np.linalg.norm(weight.value), np.sqrt(weight.size)]) < 1e-12
    assert not found.norm[4:].any() and list(found.loss_time[4:]) == [-1, -1]


def test_a_weight_used_twice_in_a_step() -> None:
    """Uses of one step are added up before the norm is taken."""
    w = tg.tensor(np.random.default_rng(0).normal(size=(3, 3)), requires_grad=True, name="W")
    h, losses = tg.tensor(np.ones((2, 3))), []
    for t in range(1, 4):
        with tg.scope("mine", time=t):
            h = np.tanh(h @ w.T - (h * 0.5) @ w + w[0])
        losses.append((h * h).sum())
    found = flow.bptt_matrix(losses, w)
    entries = np.array([[found.entry(late, early) for early in (1, 2, 3)] for late in (1, 2, 3)])
    sum(losses[1:], losses[0]).backward()
    assert far(entries.sum((0, 1)), w.grad.value) < 1e-13 and far(norms(entries)[0], found.norm) < 1e-13
    assert found.gates == ("all",)


def test_entries_too_small_to_be_squared_have_a_norm() -> None:
    """At lag 40 of a recurrence that keeps 1e-5 a step the entries are 1e-200, and not 0."""
    layer = nn.RNN(1, 2, bias=False, init=lambda shape, rng: 1e-5 * np.eye(*shape), rng=0)
    for batch in (1, 2, 5):
        outputs, _ = layer(np.ones((41, batch, 1)))
        found = flow.bptt_matrix([outputs[-1].sum()], layer.weight_ih_l0)
        assert found.norm[0, 0] == pytest.approx(float(np.linalg.norm(found.entry(41, 1))), rel=1e-12)
        assert 0 < found.norm[0, 0] < 1e-195


def test_near_losses_pull_harder() -> None:
    """An untrained RNN's first step is moved by near losses more than by far ones: the matrix falls off with the lag."""
    layer = nn.RNN(2, 16, rng=0)
    outputs, _ = layer(np.random.default_rng(0).normal(size=(20, 1, 2)))
    found = flow.bptt_matrix([outputs[t].sum() for t in range(20)], layer.weight_ih_l0)
    by_lag = [np.mean(np.diagonal(found.norm, -lag)) for lag in range(20)]
    assert by_lag[0] > by_lag[3] > by_lag[8] > by_lag[15]
    assert not np.triu(found.norm, 1).any()
    assert json.loads(found.to_json())["gates"] == ["all"] and "_entry" not in found.to_dict()
    assert "W_ih: 20 losses, 20 steps" in str(found)


# -- connectivity -----------------------------------------------------------------------------------------------------------------


@given(
    name=st.sampled_from(sorted(LAYERS)),
    steps=st.integers(1, 5),
    batch=st.integers(0, 2),
    head=st.booleans(),
    bidirectional=st.booleans(),
    padded=st.booleans(),
    few=st.booleans(),
    seed=st.integers(0, 50),
)
def test_connectivity_is_the_norm_of_blocks_of_the_jacobian(
    name: str, steps: int, batch: int, head: bool, bidirectional: bool, padded: bool, few: bool, seed: int
) -> None:
    """For one unit and for all, with a layer above and without, in one pass or several."""
    make, _, own, _ = LAYERS[name]
    layer, above = make(2, 3, rng=seed, bidirectional=bidirectional, **own), nn.Linear(6 if bidirectional else 3, 4, rng=seed)
    lengths = list(np.random.default_rng(seed).integers(1, steps + 1, batch)) if padded and batch else None
    x = tg.tensor(np.random.default_rng(seed).normal(size=(steps, batch, 2) if batch else (steps, 2)), requires_grad=True)

    def program(x: Any) -> Any:
        outputs, _ = layer(x, lengths=lengths)
        return above(np.tanh(outputs)) if head else outputs

    jacobian = tg.jacobian(program, x)
    jacobian = np.asarray(getattr(jacobian, "value", jacobian))
    if not batch:
        jacobian = jacobian[:, None, :, :, None]
    with pytest.MonkeyPatch.context() as patch:
        if few:
            patch.setattr(reach, "ENTRIES", 1)
        found = flow.connectivity(program(x), x)
        one = flow.connectivity(program(x), x, unit=-1)
    assert far(found.norm, np.sqrt((jacobian**2).sum((1, 2, 4, 5)))) < 1e-12
    assert far(one.norm, np.sqrt((jacobian[:, :, -1] ** 2).sum((1, 3, 4)))) < 1e-12
    assert one.unit == jacobian.shape[2] - 1 and list(found.input_time) == list(range(1, steps + 1))


def test_connectivity_prints_by_distance() -> None:
    """The table has rows for selected distances, in a reversed recurrence too, and JSON all entries."""
    _, x, outputs, _ = ran("gru", steps=12)
    found = flow.connectivity(outputs, x, 0)
    layer, _, _, losses = ran("rnn", steps=12, bidirectional=True)
    both = [flow.bptt_matrix(losses, weight) for weight in (layer.weight_hh_l0, layer.weight_hh_l0_reverse)]
    assert [len(result.table().rows) for result in both] == [6, 6]
    assert [row[0] for row in found.table().rows] == ["0", "1", "2", "5", "10", "11"]
    assert "connectivity of unit 0" in str(found) and len(json.loads(found.to_json())["norm"]) == 12


def test_a_batch_of_no_sequences() -> None:
    """All norms are 0."""
    layer, x, outputs, losses = ran("gru", batch=0)
    for parameter in (layer.weight_hh_l0, layer.bias_l0, x):
        assert not flow.bptt_matrix(losses, parameter).norm.any()
    assert not flow.connectivity(outputs, x).norm.any()


# -- planted mistakes -------------------------------------------------------------------------------------------------------------


def total(losses: Any, parameter: Any) -> float:
    """How far the local part and the rest are from the gradient."""
    found = flow.bptt_matrix(losses, parameter)
    return far(found.local + found.through_time, found.gradient)


@pytest.mark.parametrize("gate", GATES["lstm"])
def test_a_dropped_gate_is_caught(gate: str, monkeypatch: Any) -> None:
    """If one gate hands nothing on, the entries do not add up."""
    layer, _, _, losses = ran("lstm")
    assert total(losses, layer.weight_hh_l0) < 1e-13
    real = bptt.between
    keep = lambda step: (step.node.role, step.node.gate) != ("gate", gate)  # noqa: E731
    monkeypatch.setattr(bptt, "between", lambda steps, *ends: real([step for step in steps if keep(step)], *ends))
    assert total(losses, layer.weight_hh_l0) > 1e-3


def test_losses_in_the_wrong_order_are_caught(monkeypatch: Any) -> None:
    """If the bins are taken from the end, the entries above the diagonal are not 0."""
    layer, x, outputs, losses = ran("lstm")
    expected = norms(itemised("lstm", layer, x, outputs)["weight_hh"])[0]
    real = bptt._traced

    def turned(losses: Any) -> Any:
        ledger, seeds = real(losses)
        return ledger, [(order, stacks.Slab(len(seeds) - 1 - k, slab.values)) for k, (order, slab) in enumerate(seeds)]

    monkeypatch.setattr(bptt, "_traced", turned)
    assert far(flow.bptt_matrix(losses, layer.weight_hh_l0).norm, expected) > 1e-3


# -- errors -----------------------------------------------------------------------------------------------------------------------


def test_errors_say_what_was_expected() -> None:
    """What is not a loss, not a weight of them, not a step."""
    layer, x, outputs, losses = ran("lstm")
    weight = layer.weight_hh_l0
    found = flow.bptt_matrix(losses, weight)
    once = nn.Linear(3, 1, rng=0)
    cases: list[tuple[Any, str]] = [
        (lambda: flow.bptt_matrix(losses[0], weight), "expected a sequence of scalar Tensors"),
        (lambda: flow.bptt_matrix([], weight), "expected a sequence of scalar Tensors"),
        (
            lambda: flow.bptt_matrix([losses[0], outputs[1]], weight),
            r"expected loss 1 to be a scalar Tensor with a graph, got shape \(2, 3\)",
        ),
        (lambda: flow.bptt_matrix([tg.tensor(1.0)], weight), "without a graph"),
        (lambda: flow.bptt_matrix(losses, tg.tensor(1.0, requires_grad=True)), "do not depend on the parameter"),
        (lambda: flow.bptt_matrix(losses, weight, times=[1]), "4 losses need as many times, got 1"),
        (lambda: flow.bptt_matrix(losses, weight, times=5), "4 losses need as many times, got int"),
        (lambda: flow.bptt_matrix([once(outputs).sum()], once.weight), "W is used in no step of a sequence"),
        (lambda: found.entry(9, 1), "no loss at step 9"),
        (lambda: found.entry(1, 9), "no use at step 9"),
        (lambda: found.entry(1, 1, "reset"), "no block 'reset'; expected one of input, forget"),
        (lambda: flow.connectivity(outputs, x.detach()), "expected inputs to be a Tensor"),
        (lambda: flow.connectivity(outputs, tg.tensor(np.ones((4, 2, 2)), requires_grad=True)), "do not depend on the inputs"),
        (lambda: flow.connectivity(outputs, x, 3), "expected a unit from 0 to 2, got 3"),
        (lambda: flow.connectivity(losses[0], x), "expected outputs to be a Tensor"),
    ]
    for wrong, match in cases:
        with pytest.raises(errors.ArgumentError, match=match):
            wrong()


def test_tables_by_distance() -> None:
    """One direction counts only the pairs that can act, two count both ways; each row is the root mean square over its pairs."""
    x = tg.tensor(np.random.default_rng(0).normal(size=(6, 2, 3)), requires_grad=True)
    outputs, _ = nn.GRU(3, 4, rng=0)(x)
    found = flow.connectivity(outputs, x)
    table = found.table()
    assert table.columns[:2] == ("t′ − t", "pairs")
    assert [row[:2] for row in table.rows] == [("0", "6"), ("1", "5"), ("2", "4"), ("5", "1")]
    assert float(table.rows[1][2]) == pytest.approx(np.sqrt(np.mean(np.diagonal(found.norm, -1) ** 2)), rel=5e-3)
    both, _ = nn.GRU(3, 4, bidirectional=True, rng=0)(x)
    table = flow.connectivity(both, x).table()
    assert (table.columns[0], table.rows[1][1]) == ("∣t′ − t∣", "10")
    with pytest.raises(tg.errors.ArgumentError, match=r"one batch.*\(2, 6, 4\) and \(6, 2, 3\). Put time first"):
        flow.connectivity(outputs.swapaxes(0, 1), x)


def test_a_leaf_beside_what_was_computed_from_it() -> None:
    """The input of a dense layer also stands beside the first layer's outputs: the parts and the uses outside add up to its gradient."""
    layer = nn.RNN(1, 2, 2, residual="dense", rng=0)
    x = tg.tensor(np.random.default_rng(0).normal(size=(3, 2, 1)), requires_grad=True)
    losses = [(row * row).sum() for row in layer(x)[0]]
    found = flow.bptt_matrix(losses, x)
    (expected,) = tg.grad(losses, x)
    assert (found.outside > 0).all()
    np.testing.assert_allclose(found.local + found.through_time, expected.value, rtol=1e-12)


def test_a_parameter_or_a_time_of_another_kind_is_refused() -> None:
    """The message says what to pass."""
    layer = nn.LSTM(2, 3, rng=0)
    losses = [layer(np.ones((4, 1, 2)))[0][-1].sum()]
    for wrong in (3, "W_hh", layer):
        with pytest.raises(errors.ArgumentError, match=f"bptt_matrix: expected the parameter to be a Tensor.*got {type(wrong).__name__}"):
            flow.bptt_matrix(losses, wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError, match="bptt_matrix: expected times to be whole numbers, the step of each loss, got 'a'"):
        flow.bptt_matrix(losses, layer.weight_hh_l0, times=["a"])  # type: ignore[list-item]
