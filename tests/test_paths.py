"""The path split, against every path written out, and the stacks that it and the other instruments run on."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import errors, flow, nn
from tinygrad_rnn.flow import stacks

LAYERS: dict[str, Any] = {
    "rnn": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "gru-before": (nn.GRU, {"reset": "before"}),
}
all_layers = pytest.mark.parametrize("name", LAYERS)
GATES = {"rnn": (), "relu": (), "lstm": ("input", "forget", "candidate", "output"), "gru": ("reset", "update", "candidate")}
GATES["gru-before"] = GATES["gru"]


def ran(name: str, *, steps: int = 4, batch: int = 2, size: int = 3, lengths: Any = None, seed: int = 0, **options: Any) -> Any:
    """A layer, its input as a leaf, and what it gave."""
    make, own = LAYERS[name]
    layer = make(2, size, rng=seed, **own, **options)
    x = tg.tensor(np.random.default_rng(seed + 1).normal(size=(steps, batch, 2)).astype(layer.dtype), requires_grad=True, name="x")
    outputs, state = layer(x, lengths=lengths)
    return layer, x, outputs, state


def enumerated(ledger: tg.Trace, goal: Any, marked: Any, bins: int) -> Any:
    """Every path one by one, as a product of maps; bins of their sums."""
    leaving: dict[int, list[Any]] = {}
    for step in ledger.steps:
        leaving.setdefault(step.node.order, []).append(step)
    total = np.zeros((bins, *goal.shape))
    counts = [0] * bins
    paths = [(ledger.root.order, ledger.steps[0].cotangent, 0, 1)]
    while paths:
        order, cotangent, passes, alive = paths.pop()
        if order == goal.order:
            total[min(passes, bins - 1)] += cotangent
            counts[min(passes, bins - 1)] += alive
            continue
        for step in leaving.get(order, ()):
            share = step.map.pullback(cotangent)
            paths.append((step.operand.order, share, passes + bool(marked(step)), alive))
    return total, tuple(counts)


def ratio(got: Any, expected: Any) -> float:
    return oracles.difference(np.asarray(got), np.asarray(expected))


# -- laws -------------------------------------------------------------------------------------------------------------------------


@given(
    name=st.sampled_from(sorted(LAYERS)),
    bins=st.integers(1, 6),
    single=st.booleans(),
    bidirectional=st.booleans(),
    layers=st.integers(1, 2),
    padded=st.booleans(),
    dtype=st.sampled_from([np.float64, np.float32]),
    seed=st.integers(0, 50),
)
def test_the_bins_add_up_to_the_gradient(
    name: str, bins: int, single: bool, bidirectional: bool, layers: int, padded: bool, dtype: Any, seed: int
) -> None:
    """For every parameter, the input and a state, whatever is marked; the shares add up to 1."""
    options: dict[str, Any] = {"dtype": dtype, "bidirectional": bidirectional, "num_layers": layers}
    layer, x, outputs, _ = ran(name, lengths=[4, 2] if padded else None, seed=seed, **options)
    loss = (outputs[-1] if single and not padded else outputs * outputs).sum()
    ledger = tg.trace(loss)
    loss.backward()
    first = ledger.states(ledger.layers[0])
    marks: list[Any] = ["recurrent", lambda step: step.kind == "matmul", flow.crossing(), *GATES[name]]
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    for place, target in enumerate((*layer.parameters(), x, first[first.times[1]].hidden)):
        split = flow.split_paths(ledger, target, marks[place % len(marks)], bins=bins)
        assert split.contribution.shape == (bins, *split.gradient.shape) and split.contribution.dtype == dtype
        size = float(np.max(np.abs(split.contribution), initial=0.0)) or 1.0
        assert np.max(np.abs(split.contribution.sum(0) - split.gradient), initial=0.0) < tolerance * size
        if isinstance(target, tg.Tensor):
            assert ratio(split.gradient, target.grad.value) < tolerance
        if split.gradient.any():
            assert split.share.sum() == pytest.approx(1.0, abs=1e-3 if dtype == np.float32 else 1e-8)
        assert sum(split.paths) > 0


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in LAYERS for preset in ("recurrent", "matmul", *GATES[name])])
def test_every_path_written_out(name: str, preset: str) -> None:
    """The bins are the sums over all paths one by one, and the numbers of paths are right."""
    layer, own = LAYERS[name]
    cell = {nn.RNN: nn.RNNCell, nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}[layer](2, 2, rng=0, **own)
    state = None
    for row in np.random.default_rng(1).normal(size=(3, 1, 2)):
        state = cell(row, state)
    ledger = tg.trace(sum((part * part).sum() for part in state))
    marked = (lambda step: step.kind == "matmul") if preset == "matmul" else preset
    predicate = {"recurrent": flow.recurrent()}.get(preset) or (marked if preset == "matmul" else flow.through(preset))
    for target in (cell.weight_hh, cell.bias, ledger.states()[1].hidden):
        split = flow.split_paths(ledger, target, marked, bins=3)
        goal = target.node if not isinstance(target, tg.Tensor) else ledger.node(target)
        expected, counts = enumerated(ledger, goal, predicate, 3)
        assert ratio(split.contribution, expected) < 1e-12
        assert split.paths == counts


def test_a_graph_and_a_predicate_of_ones_own() -> None:
    """y = x·x·x·w + x: three paths with one product by w, and one without."""
    x, w = (tg.tensor(value, requires_grad=True, name=name) for value, name in ((2.0, "x"), (5.0, "w")))
    split = flow.split_paths(x * x * x * w + x, x, lambda step: step.label == "⊙ w", bins=3)
    np.testing.assert_allclose(split.contribution, [1.0, 60.0, 0.0])
    assert split.paths == (1, 3, 0)
    np.testing.assert_allclose(split.share, [1 / 61, 60 / 61, 0.0])


# -- meaning ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gate", "role"), [("lstm", "forget", "cell"), ("gru", "update", "hidden"), ("gru-before", "update", "hidden")]
)
def test_bin_0_is_the_highway(name: str, gate: str, role: str) -> None:
    """Without detours the last state's cotangent is multiplied by the forget (update) gates and by nothing else."""
    _, _, _, state = ran(name, steps=6)
    ledger = tg.trace((state[-1] * np.arange(1.0, 7.0).reshape(1, 2, 3)).sum())
    states = ledger.states()
    split = flow.split_paths(ledger, getattr(states[2], role))
    gates = np.prod([states[t].gates[gate].value for t in range(3, 7)], axis=0)
    assert ratio(split.contribution[0], np.arange(1.0, 7.0).reshape(2, 3) * gates) < 1e-14


@all_layers
def test_crossings_count_the_steps(name: str) -> None:
    """Split by crossings, bin k of a loss at the last step is what a weight's use k steps before contributes."""
    layer, _, outputs, _ = ran(name)
    split = flow.split_paths(outputs[-1].sum(), layer.weight_ih_l0, flow.crossing(), bins=4)
    matrix = flow.bptt_matrix([outputs[-1].sum()], layer.weight_ih_l0)
    for k in range(4):
        assert ratio(split.contribution[k], matrix.entry(4, 4 - k)) < 1e-12


def test_one_layer_of_several() -> None:
    """Named edges of one layer alone: what belongs to the layer above does not pass them, and the layer below does."""
    below, above = nn.LSTM(2, 3, rng=0), nn.GRU(3, 3, rng=1)
    outputs, _ = above(below(np.ones((5, 1, 2)))[0])
    ledger = tg.trace(outputs[-1].sum())
    for marked in ("recurrent", "candidate"):
        of_above = flow.split_paths(ledger, above.weight_hh_l0, marked, layer=below)
        assert not of_above.contribution[1:].any() and of_above.paths[1:] == (0, 0, 0)
        of_below = flow.split_paths(ledger, below.weight_hh_l0, marked, layer=below)
        assert of_below.paths[1] > 0 and of_below.contribution[1].any()
        apart = [flow.split_paths(ledger, below.weight_hh_l0, marked, layer=layer, bins=12) for layer in (below, above, None)]
        assert len({sum(split.paths) for split in apart}) == 1 and len({split.paths for split in apart}) == 3
    several = flow.split_paths(ledger, below.weight_hh_l0, ("forget", "update"), bins=9)
    by_hand = flow.split_paths(ledger, below.weight_hh_l0, flow.through("forget") | flow.through("update"), bins=9)
    assert several.paths == by_hand.paths and several.marked == by_hand.marked


def test_an_rnn_has_nothing_but_detours() -> None:
    """From h_4 to h_1 there is one path in an RNN, with three passes."""
    _, _, outputs, _ = ran("rnn")
    ledger = tg.trace(outputs[-1].sum())
    split = flow.split_paths(ledger, ledger.states()[1].hidden, bins=5)
    assert split.paths == (0, 0, 0, 1, 0)
    assert not split.contribution[[0, 1, 2, 4]].any()


def test_numbers_of_paths_that_no_float_holds() -> None:
    """An LSTM of 700 steps has more than 10⁴⁰⁰ paths, counted exactly."""
    _, _, outputs, _ = ran("lstm", steps=700, batch=1, size=1)
    ledger = tg.trace(outputs[-1].sum())
    split = flow.split_paths(ledger, ledger.states()[1].cell, lambda step: False, bins=1)
    cell, hidden = 0, 1  # how many paths lead to c_t and h_t, by the equations
    for _ in range(699):
        cell += hidden
        cell, hidden = cell, 3 * cell + hidden
    assert split.paths == (cell + hidden,)
    assert split.log10_paths[0] == pytest.approx(math.log10(cell + hidden)) and split.log10_paths[0] > 400
    assert "e+4" in json.loads(split.to_json())["paths"][0] and "e+4" in str(split)


def test_a_computed_tensor_is_a_target_too() -> None:
    """Anything on the way to the loss will do."""
    _, _, outputs, _ = ran("lstm")
    split = flow.split_paths((outputs * outputs).sum(), outputs)
    np.testing.assert_allclose(split.gradient, 2.0 * outputs.value)
    assert split.target == "outputs" and list(split.share) == [1.0, 0.0, 0.0, 0.0]


# -- planted mistakes -------------------------------------------------------------------------------------------------------------


def broken(monkeypatch: Any, later: Any) -> float:
    """How far bins and paths written out are apart when a marked edge does something else."""
    monkeypatch.setattr(stacks.Stack, "later", later)
    _, _, outputs, _ = ran("lstm", steps=5, batch=1, size=2)
    ledger = tg.trace(outputs[-1].sum())
    goal = ledger.states()[1].cell
    split = flow.split_paths(ledger, goal, bins=3)
    expected, _ = enumerated(ledger, goal.node, flow.recurrent(), 3)
    return max(ratio(split.contribution, expected), ratio(split.contribution.sum(0), split.gradient))


def test_right_bins_are_not_caught(monkeypatch: Any) -> None:
    """The same test passes what is right."""
    assert broken(monkeypatch, stacks.Stack.later) < 1e-12


def test_a_missing_detour_is_caught(monkeypatch: Any) -> None:
    """A marked edge that counts nothing, and one that drops the overflow of the last bin."""
    assert broken(monkeypatch, lambda self, bins: self) > 1e-3

    def forgets(self: Any, bins: int) -> Any:
        moved = {place: stacks.Slab(slab.first + 1, slab.values[: bins - slab.first - 1]) for place, slab in self.parts.items()}
        return stacks.Stack(self.shape, {place: slab for place, slab in moved.items() if len(slab.values)})

    assert broken(monkeypatch, forgets) > 1e-3


@pytest.mark.parametrize("gate", GATES["lstm"])
def test_a_dropped_gate_is_caught(gate: str, monkeypatch: Any) -> None:
    """If one gate hands nothing on, the bins no longer add up."""
    real = stacks.pull

    def without(linear_map: Any, source: Any, target: Any) -> None:
        if linear_map not in dropped:
            real(linear_map, source, target)

    _, _, outputs, _ = ran("lstm")
    ledger = tg.trace(outputs[-1].sum())
    dropped = [step.map for step in ledger.steps if step.node.role == "gate" and step.node.gate == gate]
    monkeypatch.setattr(stacks, "pull", without)
    split = flow.split_paths(ledger, ledger.states()[1].hidden)
    assert ratio(split.contribution.sum(0), split.gradient) > 1e-3


# -- stacks -----------------------------------------------------------------------------------------------------------------------

LENGTHS = (3, 4, 5)
KEYS = [
    np.s_[1], np.s_[-1], np.s_[1:], np.s_[:, 2], np.s_[..., 1:4], np.s_[None, 1], np.s_[:, None, ::2], np.s_[:, 1:3, 0],
    np.array([0, 2, 0]), np.array([True, False, True]), (slice(None), np.array([1, 1])), (np.array([0, 1]), slice(None), np.array([2, 2])),
    (1, np.array([0, 3, 0])), (0, slice(None), np.array([1, 4])), (np.array(True), 1), (slice(None), 1, np.array([0, 0])), np.s_[...], (),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_stack_is_indexed_as_each_of_its_entries_is(key: Any) -> None:
    """The adjoint of x[key] on a stack, also where arrays in the index would move axes."""
    x = tg.tensor(np.random.default_rng(0).normal(size=LENGTHS), requires_grad=True)
    ledger = tg.trace((picked := x[key]), cotangent=np.ones(picked.shape))
    (step,) = ledger.steps
    cotangents = np.random.default_rng(1).normal(size=(4, *picked.shape))
    arrived = stacks.Stack(LENGTHS)
    stacks.pull(step.map, stacks.Stack(picked.shape, {None: stacks.Slab(2, cotangents)}), arrived)
    expected = np.stack([np.zeros(LENGTHS)] * 2 + [step.map.pullback(one) for one in cotangents])
    np.testing.assert_allclose(arrived.array(6), expected, rtol=1e-14)


PROGRAMS: dict[str, Any] = {
    "left": lambda x: np.ones((2, 3)) @ x[..., 0],
    "flat": lambda x: np.ones((2, 6, 3)) @ x[..., 0],
    "stacked": lambda x: x.swapaxes(1, 2) @ x,
    "right": lambda x: np.tanh(x @ np.ones((5, 2))),
    "reduced": lambda x: (x.mean(axis=1) - x.max(axis=(1, 2))[:, None]) ** 2,
    "placed": lambda x: tg.concatenate([x[1], x[0] * x[2], x[:, 0, :4].T @ x[:, 1]], axis=0),
    "slices": lambda x: tg.stack([x[0], x[2], x[0]]) * np.arange(3.0).reshape(3, 1, 1) + tg.where(x > 0, x, 0.5)[:, 1:2],
    "columns": lambda x: tg.concatenate([x[:, 1:], np.sin(x[:, :1])], axis=1)[:, 2] @ np.ones(5),
    "running": lambda x: np.cumsum(x, axis=0).reshape(12, 5).T[2].astype(np.float32),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_stack_goes_the_way_of_each_of_its_entries(name: str) -> None:
    """Any map on a stack does to every bin what it does alone, in parts x[t] or as a whole."""
    x = tg.tensor(np.random.default_rng(0).normal(size=LENGTHS), requires_grad=True)
    y = PROGRAMS[name](x)
    cotangents = np.random.default_rng(1).normal(size=(3, *y.shape)).astype(y.dtype)
    expected = np.stack([tg.grad(y, x, one)[0].value for one in cotangents])
    ledger = tg.trace(y, cotangent=np.ones(y.shape))
    goal, root = ledger.node(x).order, ledger.root.order
    whole = stacks.Stack(y.shape, {None: stacks.Slab(0, cotangents)})
    parts = stacks.Stack(y.shape, {place: stacks.Slab(0, cotangents[:, place]) for place in range(len(y))})
    for seed in (whole, parts):
        arrived = stacks.carry(ledger.steps, {root: seed}, {goal})[goal]
        assert ratio(arrived.array(3), expected) < 1e-6


def test_parts_of_an_input_cost_no_array_each() -> None:
    """The cotangents of x[t] are kept as parts, each with the bins that reach it alone."""
    _, x, outputs, _ = ran("lstm", steps=20)
    ledger = tg.trace(outputs, cotangent=np.ones(outputs.shape))
    seed = stacks.Stack(outputs.shape, {t: stacks.Slab(t, np.ones((1, 2, 3))) for t in range(20)})
    arrived = stacks.carry(ledger.steps, {ledger.root.order: seed}, {ledger.node(x).order})[ledger.node(x).order]
    assert {place: slab.values.shape for place, slab in arrived.parts.items()} == {t: (20 - t, 2, 2) for t in range(20)}


# -- errors -----------------------------------------------------------------------------------------------------------------------


def test_errors_say_what_was_expected() -> None:
    """Norms, unknown names and strangers are refused, each with a remedy."""
    layer, x, outputs, _ = ran("lstm")
    loss = outputs.sum()
    ledger = tg.trace(loss)
    cases: list[tuple[Any, str]] = [
        (lambda: flow.split_paths(tg.trace(loss, keep="norms"), x), "expected a trace with keep='arrays'"),
        (lambda: flow.split_paths(loss, x, "memory"), "expected marked to be 'recurrent', one of input, forget"),
        (lambda: flow.split_paths(loss, x, None), "expected marked to be 'recurrent', one of input, forget"),
        (lambda: flow.split_paths(loss, x, "update"), "no gate 'update' was traced; there are candidate, forget, input, output"),
        (lambda: flow.split_paths(loss, x, ()), "name some edges"),
        (lambda: flow.split_paths(loss, x, bins=0), "expected bins to be a whole number from 1 on, got 0"),
        (lambda: flow.split_paths(loss, tg.tensor(1.0, requires_grad=True)), "expected a Tensor that the loss was computed from"),
        (lambda: flow.split_paths(loss, ledger.states()[1].hidden), "expected a landmark of this trace"),
        (lambda: flow.through("memory"), "through: expected a gate"),
    ]
    for wrong, match in cases:
        with pytest.raises(errors.ArgumentError, match=match):
            wrong()
    layer.weight_hh_l0.value = layer.weight_hh_l0.numpy()
    with pytest.raises(errors.ArgumentError, match="given a new value since"):
        flow.split_paths(ledger, layer.weight_hh_l0)


@pytest.mark.parametrize("wrong", [3, np.ones(3), "W_hh", None])
def test_a_target_of_another_kind_is_refused(wrong):
    """What can be asked for is named."""
    outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((4, 1, 2)))
    with pytest.raises(
        errors.ArgumentError, match=f"split_paths: expected the target to be a Tensor.*or a landmark.*got {type(wrong).__name__}"
    ):
        flow.split_paths(outputs[-1].sum(), wrong)
