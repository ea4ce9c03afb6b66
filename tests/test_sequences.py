"""The kernels of the recurrent layers and the layers' options: depth, directions, lengths, residuals, dropout, streams.

A kernel is held to its definition, a layer to plain NumPy that runs every sequence by itself at its own length.
"""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import oracles
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from measures import peak

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn, render
from tinygrad_rnn.nn import kernels, recurrence
from tinygrad_rnn.testing import strategies

RTOL = {"float64": 1e-12, "float32": 1e-5}


def leaf(array: Any, name: str | None = None) -> Any:
    return tg.tensor(array, requires_grad=True, name=name)


def same(what: str, ours: Any, theirs: Any, rtol: float = 1e-12, scale: float = 0.0) -> None:
    """Equal up to ``rtol`` of the largest entry, or of ``scale`` if that is larger."""
    ours, theirs = (np.asarray(getattr(array, "value", array), np.float64) for array in (ours, theirs))
    assert ours.shape == theirs.shape, f"{what} has shape {ours.shape}, expected {theirs.shape}"
    off, largest = (float(np.max(np.abs(array), initial=0.0)) for array in (ours - theirs, theirs))
    assert off <= rtol * max(largest, scale), f"{what} is off by {off:.3g}, where the largest entry is {largest:.3g}"


def all_same(ours: dict[Any, Any], theirs: dict[Any, Any], rtol: float) -> None:
    """Every array up to ``rtol`` of its largest entry.

    A sum whose terms cancel is only as exact as they are: an array that is small beside the largest one counts as if it had a
    hundredth of that one's size (in float32, where 1e-5 is but 84 roundings, a tenth).
    """
    cancelling = 0.1 if rtol > 1e-6 else 0.01
    scale = cancelling * max((float(np.max(np.abs(getattr(g, "value", g)), initial=0.0)) for g in theirs.values()), default=0.0)
    assert ours.keys() == theirs.keys()
    for what, expected in theirs.items():
        same(str(what), ours[what], expected, rtol, scale)


# -- the kernels --------------------------------------------------------------------------------------------------------------

RECURRENCES = {
    kind.name: kind for kind in (recurrence.RNN_TANH, recurrence.RNN_RELU, recurrence.LSTM, recurrence.GRU_AFTER, recurrence.GRU_BEFORE)
}
every_recurrence = pytest.mark.parametrize("name", RECURRENCES)


class Sweep(NamedTuple):
    """One run of a kernel: sizes, options, which operands want a gradient, and to which results a cotangent comes."""

    steps: int
    batch: int
    inputs: int
    size: int
    biased: bool
    reverse: bool
    lengths: list[int] | None
    tracked: list[bool]
    arriving: list[bool]
    stretch: int
    seed: int


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    steps, batch = draw(st.integers(1, 6)), draw(st.integers(0, 4))
    return Sweep(
        steps=steps,
        batch=batch,
        inputs=draw(st.integers(1, 3)),
        size=draw(st.integers(1, 3)),
        biased=draw(st.booleans()),
        reverse=draw(st.booleans()),
        lengths=draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch)),
        tracked=draw(st.lists(st.booleans(), min_size=7, max_size=7)),
        arriving=draw(st.lists(st.booleans(), min_size=3, max_size=3)),
        stretch=draw(st.sampled_from([1, 300, kernels.STRETCH])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def operands_of(kind: recurrence.Recurrence, sweep: Sweep, dtype: str) -> tuple[list[Any], dict[str, Any]]:
    """Leaves where a gradient is wanted, plain Tensors elsewhere, and the statics."""
    rng = np.random.default_rng(sweep.seed)
    rows = len(kind.gates) * sweep.size
    shapes = [(sweep.steps, sweep.batch, sweep.inputs), *[(sweep.batch, sweep.size)] * kind.parts, (rows, sweep.inputs), (rows, sweep.size)]
    if sweep.biased:
        shapes += [(rows,)] + [(sweep.size,)] * kind.has_bias_hn
    arrays = [rng.uniform(-1.5, 1.5, shape).astype(dtype) for shape in shapes]
    tensors = [tg.tensor(a, requires_grad=t) for a, t in zip(arrays, [*sweep.tracked, True], strict=False)]
    return tensors, {"lengths": None if sweep.lengths is None else np.array(sweep.lengths, int), "reverse": sweep.reverse}


def weighed(results: tuple[Any, ...], arriving: list[bool], seed: int = 1) -> Any:
    """A loss that reads those results to which a cotangent is to come, each entry with another weight."""
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(-1.0, 1.0, part.shape).astype(part.dtype) for part in results]
    read = [(part * weight).sum() for part, weight, wanted in zip(results, weights, arriving, strict=False) if wanted]
    return sum(read[1:], start=read[0]) if read else None


@every_recurrence
@pytest.mark.parametrize("dtype", RTOL)
@given(sweep=sweeps())
@example(sweep=Sweep(1, 1, 1, 1, True, False, None, [True] * 7, [True] * 3, 1, 0))
@example(sweep=Sweep(3, 0, 2, 2, True, True, None, [True] * 7, [True] * 3, 1, 0))
@example(sweep=Sweep(3, 0, 2, 2, True, False, [], [True] * 7, [True] * 3, 1, 0))
@example(sweep=Sweep(4, 3, 2, 2, True, True, [0, 0, 0], [True] * 7, [True] * 3, 1, 0))
@example(sweep=Sweep(5, 4, 2, 3, True, True, [2, 5, 0, 3], [True] * 7, [True] * 3, 300, 0))
@example(sweep=Sweep(5, 4, 2, 3, False, False, [2, 5, 0, 3], [True] * 7, [False, True, False], 1, 0))
def test_a_kernel_is_its_definition(name: str, dtype: str, sweep: Sweep) -> None:
    """All results of a kernel and all its gradients are those of the steps recorded one by one, whatever is asked for and in however
    many stretches, and no buffer is read where nothing was written."""
    agree(name, dtype, sweep)


def agree(name: str, dtype: str, sweep: Sweep) -> None:
    kind = RECURRENCES[name]
    operands, statics = operands_of(kind, sweep, dtype)
    wanted = [operand for operand in operands if operand.requires_grad]
    with mock.patch.object(kernels, "STRETCH", sweep.stretch), poisoned():
        closed = kernels.SEQUENCES[name](*operands, **statics)
        loss = weighed(closed, sweep.arriving)
        if wanted and loss is not None:
            found = tg.grad(loss, wanted)
    opened = recurrence.unroll(*operands, recurrence=kind, **statics)
    assert [part.dtype.name for part in closed] == [dtype] * (1 + kind.parts)
    all_same(dict(enumerate(closed)), dict(enumerate(opened)), RTOL[dtype])
    if wanted and loss is not None:
        assert {gradient.dtype.name for gradient in found} == {dtype}
        expected = tg.grad(weighed(opened, sweep.arriving), wanted)
        all_same(dict(enumerate(found)), dict(enumerate(expected)), RTOL[dtype])


@every_recurrence
@pytest.mark.parametrize("position", range(7))
def test_a_fault_in_any_share_is_caught(name: str, position: int) -> None:
    """The comparison is checked: a share that is off by one part in 10¹⁰, or that two gates have exchanged, does not pass."""
    sweep = Sweep(5, 4, 2, 3, True, True, [2, 5, 0, 3], [True] * 7, [True] * 3, 300, 0)
    if position >= len(operands_of(RECURRENCES[name], sweep, "float64")[0]):
        pytest.skip("it has fewer operands")
    kernel = kernels.SEQUENCES[name]
    right: Any = kernel.joint_pullback
    faults = (lambda share: share * (1.0 + 1e-10), lambda share: np.roll(share, 1, axis=0))
    for fault in faults:

        def wrong(*given: Any, fault: Any = fault, **statics: Any) -> Any:
            shares = list(right(*given, **statics))
            shares[position] = fault(shares[position])
            return tuple(shares)

        with mock.patch.object(kernel, "joint_pullback", wrong), pytest.raises(AssertionError, match=f"{position} is off by"):
            agree(name, "float64", sweep)
    agree(name, "float64", sweep)


class poisoned:
    """Memory that was only reserved holds NaN, so whoever reads it before writing is found out."""

    def __enter__(self) -> None:
        real, real_like = np.empty, np.empty_like

        def empty(*args: Any, **options: Any) -> Any:
            return self._spoiled(real(*args, **options))

        def empty_like(*args: Any, **options: Any) -> Any:
            return self._spoiled(real_like(*args, **options))

        self.patches = [mock.patch.object(np, "empty", empty), mock.patch.object(np, "empty_like", empty_like)]
        for patch in self.patches:
            patch.start()

    def __exit__(self, *_: object) -> None:
        for patch in self.patches:
            patch.stop()

    @staticmethod
    def _spoiled(array: Any) -> Any:
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array


# -- the layers ---------------------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """One architecture: ours with its options, and the oracle's."""

    layer: Any
    options: dict[str, Any]
    oracle: oracles.Cell


KINDS = {
    "rnn-tanh": Kind(nn.RNN, {}, oracles.rnn()),
    "rnn-relu": Kind(nn.RNN, {"nonlinearity": "relu"}, oracles.rnn("relu")),
    "lstm": Kind(nn.LSTM, {}, oracles.lstm()),
    "gru-after": Kind(nn.GRU, {}, oracles.gru("after")),
    "gru-before": Kind(nn.GRU, {"reset": "before"}, oracles.gru("before")),
}
all_kinds = pytest.mark.parametrize("name", KINDS)


class Net(NamedTuple):
    """A layer's options, the sizes and lengths of what it is given, and whether an initial state is."""

    layers: int = 1
    bidirectional: bool = False
    residual: str | None = None
    dropout: float = 0.0
    bias: bool = True
    batch_first: bool = False
    inputs: int = 2
    size: int = 3
    steps: int = 4
    batch: int | None = 3
    lengths: list[int] | None = None
    given_state: bool = True
    seed: int = 0

    def make(self, name: str, dtype: str = "float64") -> Any:
        return KINDS[name].layer(
            self.inputs, self.size, self.layers, bidirectional=self.bidirectional, residual=self.residual,
            dropout=self.dropout if self.layers > 1 else 0.0, bias=self.bias, batch_first=self.batch_first, dtype=dtype, rng=self.seed % 97,
            **KINDS[name].options,
        )  # fmt: skip

    @property
    def directions(self) -> int:
        return 1 + self.bidirectional


class Data(NamedTuple):
    """Arrays with time first and a batch axis: the input, the state's parts (L·D, B, H), and a weight for all that comes out."""

    x: Any
    state: tuple[Any, ...]
    on_outputs: Any
    on_last: tuple[Any, ...]


def data_for(name: str, net: Net, dtype: str = "float64") -> Data:
    rng = np.random.default_rng(net.seed)
    batch, sweeps = 1 if net.batch is None else net.batch, net.layers * net.directions

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    parts = KINDS[name].oracle.parts
    return Data(
        x=normal(net.steps, batch, net.inputs),
        state=tuple(normal(sweeps, batch, net.size) * net.given_state for _ in range(parts)),
        on_outputs=normal(net.steps, batch, net.directions * net.size),
        on_last=tuple(normal(sweeps, batch, net.size) for _ in range(parts)),
    )


def drawn_by(name: str, data: st.DataObject, dtype: str) -> tuple[Any, Net, Data]:
    """A layer of any options, what it is, and the arrays that it is given."""
    kind = name.removesuffix("-tanh").removesuffix("-after")
    case = data.draw(strategies.layers((kind,), num_layers=3, steps=5, dropout=True, empty=True, dtype=dtype))
    layer, x = case.module, case.inputs[0]
    batched, first = x.ndim == 3, layer.batch_first and x.ndim == 3
    steps, batch = x.shape[first], x.shape[not first] if batched else None
    net = Net(
        layer.num_layers, layer.bidirectional, layer.residual, batch_first=layer.batch_first, inputs=layer.input_size,
        size=layer.hidden_size, steps=steps, batch=batch, lengths=case.statics.get("lengths"), given_state=len(case.inputs) > 1,
    )  # fmt: skip
    given = data_for(name, net, dtype)
    state = case.inputs[1] if net.given_state else given.state
    parts = tuple(part if batched else part[:, None] for part in state) if net.given_state else state
    return layer, net, given._replace(x=x.swapaxes(0, 1) if first else x if batched else x[:, None], state=parts)


def as_called(net: Net, sequence: Any) -> Any:
    """A sequence (T, B, …) as the layer takes and gives it."""
    return sequence[:, 0] if net.batch is None else sequence.swapaxes(0, 1) if net.batch_first else sequence


def as_state(net: Net, part: Any) -> Any:
    return part[:, 0] if net.batch is None else part


def called(layer: Any, net: Net, data: Data, **options: Any) -> tuple[Any, tuple[Any, ...], Any, tuple[Any, ...], Any]:
    """The layer's results, and the leaves it was given: x, state, outputs, last, and the loss that weighs outputs and last state."""
    x, state = leaf(as_called(net, data.x)), tuple(leaf(as_state(net, part)) for part in data.state)
    outputs, last, *_ = layer(x, state if net.given_state else None, net.lengths, **options)
    loss = (outputs * as_called(net, data.on_outputs)).sum()
    for part, weight in zip(last, data.on_last, strict=True):
        loss = loss + (part * as_state(net, weight)).sum()
    return x, state, outputs, last, loss


def masks_of(layer: Any, net: Net, batch: int) -> list[Any] | None:
    """What the layer's dropout will multiply with at its next call."""
    if layer.dropout is None:
        return None
    before = layer.dropout._random.bit_generator.state
    ones = np.ones((net.steps, batch, net.directions * net.size), layer.dtype)
    masks = [layer.dropout(ones).value.astype(np.float64) for _ in range(net.layers - 1)]
    layer.dropout._random.bit_generator.state = before
    return masks


def weights_by_sweep(layer: Any, net: Net) -> list[oracles.Weights]:
    """The parameters as the oracle wants them: for every layer and direction, zeros for a bias that is switched off."""
    found = []
    for suffix in (f"_l{k}" + "_reverse" * side for k in range(net.layers) for side in range(net.directions)):
        own = {n.removesuffix(suffix): p.numpy().astype(np.float64) for n, p in layer.named_parameters() if n.endswith(suffix)}
        found.append({"bias": np.zeros(len(own["weight_hh"])), "bias_hn": np.zeros(net.size), **own})
    return found


def exactly(array: Any) -> Any:
    return tuple(map(exactly, array)) if isinstance(array, tuple) else array.astype(np.float64)


def oracle_of(name: str, net: Net, layer: Any, data: Data) -> oracles.Sequences:
    return oracles.run_layers(
        KINDS[name].oracle,
        exactly(data.x),
        exactly(data.state),
        weights_by_sweep(layer, net),
        exactly(data.on_outputs),
        exactly(data.on_last),
        directions=net.directions,
        lengths=None if net.lengths is None else np.array(net.lengths, int),
        residual=net.residual,
        masks=masks_of(layer, net, data.x.shape[1]),
    )


def parameter_names(net: Net) -> list[tuple[int, str]]:
    """For each sweep of the oracle its number and the suffix of its parameters."""
    return list(enumerate(f"_l{k}" + "_reverse" * side for k in range(net.layers) for side in range(net.directions)))


def compare(name: str, dtype: str, layer: Any, net: Net, data: Data) -> None:
    expected = oracle_of(name, net, layer, data)
    x, state, outputs, last, loss = called(layer, net, data)
    loss.backward()
    assert type(last) is layer._recurrence.state
    values: dict[Any, Any] = {"outputs": as_called(net, expected.outputs)}
    values |= {k: as_state(net, part) for k, part in enumerate(expected.last)}
    all_same({"outputs": outputs, **dict(enumerate(last))}, values, RTOL[dtype])
    gradients = {"x": x.grad, **{n: p.grad for n, p in layer.named_parameters()}}
    theirs = {"x": as_called(net, expected.on_x)}
    theirs |= {n + suffix: g for k, suffix in parameter_names(net) for n, g in expected.on_weights[k].items() if n + suffix in gradients}
    for k, (ours, part) in enumerate(zip(state, expected.on_state, strict=True)):
        if net.given_state:
            gradients[f"state {k}"], theirs[f"state {k}"] = ours.grad, as_state(net, part)
    assert {gradient.dtype.name for gradient in gradients.values()} == {outputs.dtype.name} == {dtype}
    all_same(gradients, theirs, RTOL[dtype])


@all_kinds
@pytest.mark.parametrize("dtype", RTOL)
@given(data=st.data())
def test_a_layer_is_the_oracle(name: str, dtype: str, data: st.DataObject) -> None:
    """Outputs, final state and all gradients are those of sequences run one by one, in plain NumPy, whatever the options."""
    compare(name, dtype, *drawn_by(name, data, dtype))


CORNERS = (
    Net(layers=2, bidirectional=True, lengths=[4, 0, 2]),
    Net(layers=3, bidirectional=True, residual="dense", dropout=0.5, lengths=[1, 4, 2]),
    Net(layers=3, bidirectional=True, residual="skip", dropout=0.5, batch_first=True, lengths=[0, 0, 4]),
    Net(layers=2, bidirectional=True, batch=0, lengths=[]),
)


@all_kinds
@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("net", CORNERS, ids=range(4))
def test_a_layer_of_many_options_is_the_oracle(name: str, dtype: str, net: Net) -> None:
    """Depth, both directions, residuals, dropout and sequences of no steps, together."""
    compare(name, dtype, net.make(name, dtype), net, data_for(name, net, dtype))


# -- padding ------------------------------------------------------------------------------------------------------------------

PADDED = Net(layers=2, bidirectional=True, steps=5, lengths=[5, 0, 2])
residuals = pytest.mark.parametrize("residual", [None, "skip", "dense"])


def padding_of(net: Net) -> Any:
    """Where a sequence (T, B) has padding."""
    assert net.lengths is not None
    return np.arange(net.steps)[:, None] >= np.array(net.lengths)


@all_kinds
@residuals
@pytest.mark.parametrize("filling", [np.nan, np.inf, -1e308])
def test_padding_may_hold_anything(name: str, residual: str | None, filling: float) -> None:
    """Whatever stands there, values and gradients are the same to the last bit; outputs and the gradient of x are 0 there."""
    net = PADDED._replace(residual=residual)
    layer, data, empty = net.make(name), data_for(name, net), padding_of(net)

    def run(content: float) -> list[Any]:
        layer.zero_grad()
        x, state, outputs, last, loss = called(layer, net, data._replace(x=np.where(empty[..., None], content, data.x)))
        loss.backward()
        assert not outputs.value[empty].any()
        assert not x.grad.value[empty].any()
        return [t.value for t in (outputs, *last, x.grad, *(part.grad for part in state), *(p.grad for p in layer.parameters()))]

    for plain, found in zip(run(0.0), run(filling), strict=True):
        assert np.isfinite(found).all()
        assert np.array_equal(plain, found)


@all_kinds
@residuals
def test_padding_may_hold_anything_in_an_opened_kernel(name: str, residual: str | None) -> None:
    """The same where the kernel is opened: traced, recorded for a second derivative, or pushed forward."""
    net = PADDED._replace(residual=residual)
    layer, data = net.make(name), data_for(name, net)
    bad = np.where(padding_of(net)[..., None], np.nan, data.x)
    x, _, _, _, loss = called(layer, net, data._replace(x=bad))
    (expected,) = tg.grad(loss, x)
    (recorded,) = tg.grad(loss, x, create_graph=True)
    second = tg.grad((recorded * recorded).sum(), [x, *layer.parameters()], allow_unused=True)  # none with relu on x
    assert all(np.isfinite(g.value).all() for g in second)
    same("gradient", recorded, expected)
    assert not recorded.value[padding_of(net)].any()
    found = {info.shape: gradient for info, gradient in tg.trace(loss).gradients.items()}
    same("traced gradient", found[x.shape], expected)
    direction = np.where(padding_of(net)[..., None], np.nan, np.ones(x.shape))
    _, tangent = tg.jvp(lambda a: called_on(layer, net, data, a), bad, direction)
    same("tangent", tangent, expected.value.sum())


def called_on(layer: Any, net: Net, data: Data, x: Any) -> Any:
    """The loss as a function of x."""
    outputs, last = layer(x, data.state, net.lengths)
    return (outputs * data.on_outputs).sum() + sum(((part * w).sum() for part, w in zip(last, data.on_last, strict=True)), start=0.0)


@all_kinds
def test_a_sequence_of_length_0_keeps_its_state(name: str) -> None:
    """Its final state is the initial one, bit for bit, and so is the state's gradient; a batch of such sequences moves no weight."""
    net = Net(layers=2, bidirectional=True, lengths=[0, 0, 0])
    layer, data = net.make(name), data_for(name, net)
    _, state, outputs, last, loss = called(layer, net, data)
    loss.backward()
    assert not outputs.value.any()
    for before, after, weight in zip(state, last, data.on_last, strict=True):
        assert np.array_equal(before.value, after.value)
        assert np.array_equal(before.grad.value, weight)
    assert not any(p.grad.value.any() for p in layer.parameters())


@pytest.mark.parametrize("given", [[4, 2, 1], (4, 2, 1), np.array([4, 2, 1], np.uint8), tg.tensor(np.array([4, 2, 1]))])
def test_lengths_are_any_whole_numbers(given: Any) -> None:
    """Lists, tuples, arrays and Tensors; a later change of the caller's array changes no gradient."""
    net = Net(lengths=[4, 2, 1])
    layer, data = net.make("lstm"), data_for("lstm", net)
    expected = layer(data.x, lengths=[4, 2, 1])[0]
    x = leaf(data.x)
    outputs = layer(x, lengths=given)[0]
    assert np.array_equal(outputs.value, expected.value)
    if isinstance(given, np.ndarray):
        given[:] = 4
        outputs.sum().backward()
        assert not x.grad.value[padding_of(net)].any()
        same("opened", tg.trace(outputs.sum()).states("lstm")[4].hidden.norm, tg.trace(expected.sum()).states("lstm")[4].hidden.norm)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([4, 2], r"LSTM: lengths has shape \(2,\); expected \(3,\), one per sequence"),
        ([4, 2, 5], r"LSTM: lengths must be whole numbers from 0 to 4, got \[4, 2, 5\]"),
        ([4, 2, -1], "from 0 to 4"),
        ([4.0, 2.0, 1.0], "whole numbers"),
        ([True, True, False], "whole numbers"),
        (3, r"lengths has shape \(\); expected \(3,\)"),
    ],
)
def test_messages_of_lengths(lengths: Any, message: str) -> None:
    """Lengths that do not fit are refused."""
    with pytest.raises(tg.errors.TinygradError, match=message):
        nn.LSTM(2, 3, rng=0)(np.ones((4, 3, 2)), lengths=lengths)


# -- states and gates ---------------------------------------------------------------------------------------------------------

SYMBOLS = {
    "rnn": {"hidden": "new"},
    "lstm": {"cell": "cell", "input": "i", "forget": "f", "candidate": "g", "output": "o"},
    "gru": {"reset": "r", "update": "z", "candidate": "n"},
}


@all_kinds
@pytest.mark.parametrize("lengths", [None, [4, 0, 2]])
def test_all_states_and_gates_of_a_run(name: str, lengths: list[int] | None) -> None:
    """``return_gates`` gives every state and gate of every step, as the oracle has them, 0 in the padding."""
    net = Net(bidirectional=True, lengths=lengths)
    layer, data = net.make(name), data_for(name, net)
    outputs, last, named = layer(data.x, data.state, lengths, return_gates=True)
    plain, plain_last = layer(data.x, data.state, lengths)
    same("outputs", outputs, plain)
    for ours, theirs in zip(last, plain_last, strict=True):
        same("final state", ours, theirs)
    symbols = SYMBOLS[name.split("-")[0]]
    assert set(named) == {"hidden", *symbols}
    same("hidden", np.concatenate(list(named["hidden"].value), axis=-1), outputs)
    for k, weights in enumerate(weights_by_sweep(layer, net)):
        for b, n in enumerate(lengths or [net.steps] * 3):
            order = range(n)[:: -1 if k else 1]
            own = data.x[order, b : b + 1], tuple(part[k, b : b + 1] for part in data.state)
            kept = oracles.run(KINDS[name].oracle, *own, weights)[2] if n else []
            for what, symbol in symbols.items():
                found = named[what].value[k, :, b]
                assert not found[n:].any()
                for t, values in zip(order, kept, strict=True):
                    same(what, found[t], values[symbol][0])


@pytest.mark.parametrize(("net", "shape"), [(Net(), (4, 4, 3, 3)), (Net(batch_first=True), (4, 3, 4, 3)), (Net(batch=None), (4, 4, 3))])
def test_shapes_of_the_gates(net: Net, shape: tuple[int, ...]) -> None:
    """(L·D, T, B, H), or (L·D, B, T, H) if the batch comes first, or (L·D, T, H) for one sequence."""
    net = net._replace(layers=2, bidirectional=True)
    layer, data = net.make("lstm"), data_for("lstm", net)
    _, _, named = layer(as_called(net, data.x), return_gates=True)
    assert {gate.shape for gate in named.values()} == {shape}


@all_kinds
def test_gates_are_differentiable(name: str) -> None:
    """A loss on the gates has the gradients of its central differences."""
    net = Net(layers=2, bidirectional=True, size=2, steps=3, batch=2, lengths=[3, 1])
    layer, data = net.make(name), data_for(name, net)

    def loss(x: Any) -> Any:
        named = layer(x, lengths=net.lengths, return_gates=True)[2]
        return sum(((gate * gate * (k + 1.0)).sum() for k, gate in enumerate(named.values())), start=0.0)

    tg.testing.gradcheck(loss, data.x)


# -- derivatives --------------------------------------------------------------------------------------------------------------


def as_function(layer: Any, net: Net, data: Data) -> tuple[Any, list[Any]]:
    """Outputs and final state, weighed and added up to three numbers, as a function of x, state and parameters; and its arguments."""
    parts, names = len(data.state), [n for n, _ in layer.named_parameters()]
    first = [p.numpy() for p in layer.parameters()]

    def run(x: Any, *rest: Any) -> Any:
        for n, value in zip(names, rest[parts:], strict=True):
            vars(layer)[n] = value
        outputs, last = layer(x, rest[:parts], net.lengths)
        return tg.stack([(outputs * data.on_outputs).sum(), (outputs * outputs).sum(), sum((part * part * part).sum() for part in last)])

    return run, [data.x, *data.state, *first]


@all_kinds
@pytest.mark.parametrize(
    "net",
    [
        Net(layers=2, bidirectional=True, residual="skip", inputs=1, size=2, steps=3, batch=2, lengths=[3, 1]),
        Net(layers=3, residual="dense", inputs=2, size=1, steps=3, batch=2, lengths=[1, 3]),
    ],
)
def test_derivatives_of_both_orders(name: str, net: Net) -> None:
    """First and second derivatives, in three directions in which input, state and all weights move at once, are the central differences
    of values and of gradients."""
    run, arguments = as_function(net.make(name), net, data_for(name, net))
    rng = np.random.default_rng(1)
    ways = [rng.uniform(-1.0, 1.0, (3, *argument.shape)) for argument in arguments]

    def moved(u: Any) -> Any:
        return run(*(a + sum((u[k] * way[k] for k in range(3)), start=0.0) for a, way in zip(arguments, ways, strict=True)))

    tg.testing.gradcheck(moved, np.zeros(3))
    tg.testing.gradgradcheck(moved, np.zeros(3))


# -- opening ------------------------------------------------------------------------------------------------------------------

DEEP = Net(layers=2, bidirectional=True, residual="skip", steps=5, lengths=[5, 3, 0])


def refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("the closed kernel's pullback was used")


def gradients_of(layer: Any, x: Any) -> dict[str, Any]:
    return {"x": x.grad, **{n: p.grad for n, p in layer.named_parameters()}}


WAYS: dict[str, Callable[[Any, list[Any]], list[Any]]] = {
    "created graph": lambda loss, inputs: list(tg.grad(loss, inputs, create_graph=True)),
    "observed": lambda loss, inputs: backward(loss, inputs, observers=[lambda step: step.gain]),
    "intervened": lambda loss, inputs: backward(loss, inputs, interventions=[lambda step: step.contribution]),
    "anomaly": lambda loss, inputs: anomaly(loss, inputs),
    "traced": lambda loss, inputs: traced(loss, inputs),
}


def backward(loss: Any, inputs: list[Any], **options: Any) -> list[Any]:
    for leaf in inputs:
        leaf.grad = None
    loss.backward(**options)
    return [leaf.grad for leaf in inputs]


def anomaly(loss: Any, inputs: list[Any]) -> list[Any]:
    with tg.detect_anomaly():
        return backward(loss, inputs)


def traced(loss: Any, inputs: list[Any]) -> list[Any]:
    """The contributions of the ledger, added up at the leaves, which it lists in the order in which they were made."""
    ledger = tg.trace(loss)
    by_name = {(info.name, info.shape): gradient for info, gradient in ledger.gradients.items()}
    return [by_name[leaf.name, leaf.shape] for leaf in inputs]


@all_kinds
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("net", [DEEP, DEEP._replace(residual="dense", lengths=None, batch_first=True)])
def test_looking_opens_every_kernel(name: str, way: str, net: Net) -> None:
    """Whoever looks is shown the steps of all layers and directions, and gets the closed pass's gradients; nobody else pays for it."""
    layer, data = net.make(name), data_for(name, net)
    for n, parameter in layer.named_parameters():
        parameter.name = n
    x, state, _, _, loss = called(layer, net, data)
    x.name = "x"
    for k, part in enumerate(state):
        part.name = f"state {k}"
    inputs = [x, *state, *layer.parameters()]
    closed = {leaf.name: gradient for leaf, gradient in zip(inputs, backward(loss, inputs), strict=True)}
    with mock.patch.object(kernels.SEQUENCES[layer._recurrence.name], "joint_pullback", refused):
        with pytest.raises(tg.errors.HookError, match="the closed kernel's pullback was used"):
            tg.grad(loss, x)
        opened = WAYS[way](loss, inputs)
    all_same(dict(zip(closed, opened, strict=True)), closed, 1e-12)


@all_kinds
def test_forward_mode_opens_every_kernel(name: str) -> None:
    """⟨∇L, u⟩ is the same by forward mode through the steps as by the closed backward pass, for all arguments together; and ⟨v, H u⟩ by
    forward mode over reverse mode is ⟨u, H v⟩."""
    run, arguments = as_function(DEEP.make(name), DEEP, data_for(name, DEEP))
    rng = np.random.default_rng(5)
    u, v = ([rng.uniform(-1.0, 1.0, a.shape) for a in arguments] for _ in range(2))

    def loss(*given: Any) -> Any:
        return (run(*given) * np.array([1.0, -0.5, 2.0])).sum()

    def along(ways: list[Any]) -> Callable[..., Any]:
        return lambda *given: sum(
            ((g * way).sum() for g, way in zip(tg.grad(loss(*given), given, create_graph=True), ways, strict=True)), start=0.0
        )

    leaves = [leaf(a) for a in arguments]
    value = loss(*leaves)
    expected = [float((g.value * way).sum()) for g, way in zip(tg.grad(value, leaves), u, strict=True)]
    again, tangent = tg.jvp(loss, tuple(arguments), tuple(u))
    same("value", again, value)
    same("tangent", tangent, sum(expected), 1e-12, max(map(abs, expected)))
    curvature, turned = (tg.jvp(along(one), tuple(arguments), tuple(other))[1] for one, other in ((u, v), (v, u)))
    same("curvature", curvature, turned, 1e-11)


# -- some gradients and none --------------------------------------------------------------------------------------------------


@all_kinds
def test_some_gradients_alone(name: str) -> None:
    """Whichever arguments are asked for, or want a gradient at all, theirs are what they are when all are computed."""
    layer, data = DEEP.make(name), data_for(name, DEEP)
    x, state, _, _, loss = called(layer, DEEP, data)
    named = {"x": x, **{f"state {k}": part for k, part in enumerate(state)}, **dict(layer.named_parameters())}
    whole = dict(zip(named, tg.grad(loss, list(named.values())), strict=True))
    for chosen in ([], ["x"], ["state 0"], ["weight_hh_l0"], ["weight_ih_l1_reverse", "weight_hh_l0_reverse"], ["bias_l1", "x"]):
        for n, gradient in zip(chosen, tg.grad(loss, [named[n] for n in chosen]), strict=True):
            assert np.array_equal(gradient.value, whole[n].value), n
        frozen = DEEP.make(name)
        for n, parameter in frozen.named_parameters():
            parameter.requires_grad = n in chosen
        given = leaf(data.x) if "x" in chosen else data.x
        first = tuple(leaf(part) if f"state {k}" in chosen else part for k, part in enumerate(data.state))
        again = called_on_state(frozen, data, given, first)
        assert again.requires_grad == bool(chosen)
        assert np.array_equal(again.value, loss.value)
        if chosen:
            again.backward()
            found = {"x": given, "state 0": first[0], **dict(frozen.named_parameters())}
            for n in chosen:
                same(n, found[n].grad, whole[n])
            assert all(p.grad is None for n, p in frozen.named_parameters() if n not in chosen)


def called_on_state(layer: Any, data: Data, x: Any, state: tuple[Any, ...]) -> Any:
    outputs, last = layer(x, state, DEEP.lengths)
    return (outputs * data.on_outputs).sum() + sum(((part * w).sum() for part, w in zip(last, data.on_last, strict=True)), start=0.0)


@all_kinds
def test_backward_again_adds_up(name: str) -> None:
    """A second backward pass through the same kernels finds all that the first one found, and doubles every gradient exactly."""
    layer, data = DEEP.make(name), data_for(name, DEEP)
    x, _, _, _, loss = called(layer, DEEP, data)
    loss.backward()
    once = {n: g.value.copy() for n, g in gradients_of(layer, x).items()}
    loss.backward()
    for n, gradient in gradients_of(layer, x).items():
        assert np.array_equal(gradient.value, 2.0 * once[n]), n


@all_kinds
def test_a_result_that_nobody_reads(name: str) -> None:
    """A loss on the final state alone, or on one output of one sequence, is served too."""
    layer, data = DEEP.make(name), data_for(name, DEEP)
    nothing = Data(data.x, data.state, np.zeros_like(data.on_outputs), tuple(np.zeros_like(w) for w in data.on_last))
    one = np.zeros_like(data.on_outputs)
    one[2, 1, 0] = 1.0
    for read in (nothing._replace(on_last=data.on_last), nothing._replace(on_outputs=one)):
        x, state, outputs, last, _ = called(layer, DEEP, data)
        loss = outputs[2, 1, 0] if read.on_outputs.any() else sum((p * w).sum() for p, w in zip(last, data.on_last, strict=True))
        loss.backward()
        theirs = oracle_of(name, DEEP, layer, read)
        same("x", x.grad, theirs.on_x)
        for ours, part in zip(state, theirs.on_state, strict=True):
            same("state", ours.grad, part)


@all_kinds
def test_a_parameter_rebound_before_backward(name: str) -> None:
    """A weight that changed after the kernel ran has no gradient there, and says so."""
    layer, data = DEEP.make(name), data_for(name, DEEP)
    x, _, _, _, loss = called(layer, DEEP, data)
    layer.weight_hh_l1.value = layer.weight_hh_l1.value * 2.0
    for differentiate in (loss.backward, lambda: tg.grad(loss, x), lambda: tg.trace(loss)):
        with pytest.raises(tg.errors.GraphError, match="given a new value after the forward pass"):
            differentiate()


@all_kinds
def test_nothing_is_recorded_under_no_grad(name: str) -> None:
    """The values are the same, no node is made, and the kernel's buffers are let go."""
    layer, data = DEEP.make(name), data_for(name, DEEP)
    expected = called(layer, DEEP, data)[2]
    with tg.no_grad():
        x = leaf(data.x)
        outputs, last = layer(x, data.state, DEEP.lengths)
    assert np.array_equal(outputs.value, expected.value)
    assert not any(part.requires_grad for part in (outputs, *last))


@all_kinds
def test_a_checkpointed_layer(name: str) -> None:
    """A layer that is computed again in the backward pass gives the same gradients, to the last bit."""
    layer, data = DEEP.make(name), data_for(name, DEEP)

    def run(call: Any) -> list[Any]:
        layer.zero_grad()
        x, state = leaf(data.x), tuple(leaf(part) for part in data.state)
        loss = call(lambda x, *state: called_on_state(layer, data, x, state), x, *state)
        loss.backward()
        return [g.value for g in (x.grad, *(part.grad for part in state), *(p.grad for p in layer.parameters()))]

    for plain, again in zip(run(lambda fn, *args: fn(*args)), run(tg.checkpoint), strict=True):
        assert np.array_equal(plain, again)


@all_kinds
def test_layers_in_threads(name: str) -> None:
    """Eight threads that run one layer and differentiate it, and one shared graph, get what one thread gets."""
    layer, data = DEEP.make(name), data_for(name, DEEP)
    barrier = threading.Barrier(8)
    shared = called(layer, DEEP, data)

    def work(k: int, together: bool = True) -> list[Any]:
        if together:
            barrier.wait()
        x, _, _, _, loss = called(layer, DEEP, data._replace(x=data.x * (k + 1)))
        mine = tg.grad(loss, [x, *layer.parameters()])
        ours = tg.grad(shared[-1], [shared[0], *layer.parameters()])
        return [g.value for g in (*mine, *ours)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    for k, results in enumerate(found):
        for one, other in zip(results, work(k, together=False), strict=True):
            assert np.array_equal(one, other)


# -- streams and cost ---------------------------------------------------------------------------------------------------------

STREAM = Net(steps=12)
DENSE_STREAM = STREAM._replace(layers=2, residual="dense", batch_first=True)
streams = pytest.mark.parametrize("net", [STREAM, DENSE_STREAM, STREAM._replace(batch=None)])


@all_kinds
@streams
@pytest.mark.parametrize("cuts", [(1,), (4, 8), tuple(range(1, 12))])
def test_a_stream_in_chunks_is_the_whole(name: str, net: Net, cuts: tuple[int, ...]) -> None:
    """Outputs, final state and gradients over chunks, with the state carried on, are those of the sequence in one go."""
    layer, data = net.make(name), data_for(name, net)
    x, state, outputs, last, loss = called(layer, net, data)
    loss.backward()
    expected = {n: g.value for n, g in gradients_of(layer, x).items()}
    layer.zero_grad()
    pieces, going = [], state
    total: Any = 0.0
    bounds = [0, *cuts, net.steps]
    for start, end in pairwise(bounds):
        piece, going = layer(as_called(net, data.x[start:end]), going)
        pieces.append(piece.value)
        total = total + (piece * as_called(net, data.on_outputs[start:end])).sum()
    for part, weight in zip(going, data.on_last, strict=True):
        total = total + (part * as_state(net, weight)).sum()
    total.backward()
    same("outputs", np.concatenate(pieces, axis=1 if net.batch_first else 0), outputs, 1e-14)
    for ours, theirs in zip(going, last, strict=True):
        same("final state", ours, theirs, 1e-14)
    for n, parameter in layer.named_parameters():
        same(n, parameter.grad, expected[n], 1e-13)


@all_kinds
def test_detach_truncates(name: str) -> None:
    """After ``state.detach()`` the values go on and the gradients begin anew: those of a run from that state as given numbers."""
    net = Net(layers=2, steps=6)
    layer, data = net.make(name), data_for(name, net)
    x = leaf(data.x)
    _, middle = layer(x[:3], data.state)
    outputs, _ = layer(x[3:], middle.detach())
    assert type(middle.detach()) is type(middle)
    outputs.sum().backward()
    assert not x.grad.value[:3].any()
    expected = [p.grad.value for p in layer.parameters()]
    layer.zero_grad()
    again, _ = layer(data.x[3:], tuple(part.numpy() for part in middle))
    again.sum().backward()
    for one, parameter in zip(expected, layer.parameters(), strict=True):
        assert np.array_equal(one, parameter.grad.value)


@all_kinds
def test_an_endless_stream_needs_constant_memory(name: str) -> None:
    """Truncated BPTT over 300 chunks leaves as many arrays and objects behind as over 3."""
    net = Net(layers=2, inputs=8, size=16, steps=5, batch=4)
    layer, data = net.make(name), data_for(name, net)

    def train(chunks: int) -> tuple[int, int]:
        state = None
        for _ in range(chunks):
            outputs, state = layer(data.x, state)
            (outputs * outputs).sum().backward()
            layer.zero_grad()
            state = state.detach()
        objects = len(gc.get_objects())
        arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
        return sum(trace.size for trace in arrays.traces), objects

    gc.collect()
    tracemalloc.start()
    try:
        _, few, many = train(3), train(3), train(300)
    finally:
        tracemalloc.stop()
    assert many[0] == few[0] > 0
    assert abs(many[1] - few[1]) < 100


@all_kinds
def test_a_state_keeps_nothing_else_alive(name: str) -> None:
    """Whoever keeps the final state of a run that was not recorded keeps that state, and not the run's buffers."""
    layer = Net(inputs=8, size=16).make(name)
    x = np.ones((2000, 1, 8))

    def bytes_kept(result: str) -> int:
        tracemalloc.start()
        try:
            with tg.no_grad():
                outputs, state = layer(x)
            kept = outputs if result == "outputs" else state.detach()
            del outputs, state
            return tracemalloc.get_traced_memory()[0] if kept is not None else 0
        finally:
            tracemalloc.stop()

    layer(x)  # what kernels need only while they run they keep for the next time
    assert bytes_kept("state") < 20_000
    assert bytes_kept("outputs") < 1.2 * 2000 * 16 * 8


def pass_over(layer: Any, steps: int, batch: int = 4) -> Callable[[], Any]:
    x = np.random.default_rng(0).standard_normal((steps, batch, layer.input_size))

    def run() -> None:
        layer.zero_grad()
        outputs, _ = layer(x, lengths=[steps, steps - 1, steps // 2, 1])
        outputs.sum().backward()

    return run


@all_kinds
def test_memory_is_linear_in_time(name: str) -> None:
    """Twice as many steps need at most twice the memory, forward and backward, padding included."""
    layer = Net(inputs=8, size=16, bidirectional=True).make(name)
    pass_over(layer, 400)()  # what kernels need only while they run they keep for the next time
    short, long = (peak(pass_over(layer, steps)) for steps in (200, 400))
    assert long < 2.05 * short


@all_kinds
def test_time_is_linear_in_time(name: str) -> None:
    """Eight times as many steps take about eight times as long; a cost per step that grows with the sequence would make it 64 times."""
    layer = Net(inputs=2, size=4, bidirectional=True).make(name)  # too small for products in several threads

    def seconds(steps: int) -> float:
        run, best = pass_over(layer, steps), np.inf
        for _ in range(3):
            start = time.thread_time()
            run()
            best = min(best, time.thread_time() - start)
        return float(best)

    seconds(10)
    assert seconds(1200) < 16.0 * seconds(150)


@pytest.mark.parametrize("some", [False, True])
def test_checkpointed_segments_of_a_long_sequence(some: bool) -> None:
    """T = 10,000 steps in 40 segments that are computed again: at least five times less memory, and the same gradients."""
    layer = nn.LSTM(4, 8, rng=0)
    x = np.random.default_rng(0).standard_normal((10_000, 1, 4))

    def segment(part: Any, *state: Any) -> Any:
        outputs, state = layer(part, state)
        return (outputs * outputs).sum(), state

    def train(call: Any, size: int) -> Callable[[], None]:
        def run() -> None:
            total: Any = 0.0
            state: Any = (np.zeros((1, 1, 8)), np.zeros((1, 1, 8)))
            for start in range(0, len(x), size):
                loss, state = call(segment, x[start : start + size], *state)
                total = total + loss
            found.append(tg.grad(total, list(layer.parameters())) if some else backward(total, list(layer.parameters())))

        return run

    found: list[Any] = []
    whole, segmented = peak(train(lambda fn, *args: fn(*args), len(x))), peak(train(tg.checkpoint, 250))
    assert segmented < whole / 5
    for one, other in zip(*found, strict=True):
        same("gradient", one, other)


# -- traces -------------------------------------------------------------------------------------------------------------------


def test_names_of_the_sweeps() -> None:
    """Each layer and direction is a recurrence of its own; a reversed one ran from its last step to the first."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            self.encoder = nn.LSTM(2, 3, num_layers=2, bidirectional=True, rng=0)

        def forward(self, x: Any, state: Any = None) -> Any:
            return self.encoder(x, state)[0]

    model, x = Tagger(), np.random.default_rng(0).normal(size=(4, 2, 2))
    ledger = tg.trace(model(x).sum())
    sweeps = ("l0", "l0_reverse", "l1", "l1_reverse")
    assert ledger.layers == tuple(f"tagger/encoder/{sweep}" for sweep in sweeps)
    for sweep in sweeps:
        states = ledger.states(f"encoder/{sweep}")
        assert states.times == ((4, 3, 2, 1) if "reverse" in sweep else (1, 2, 3, 4))
        assert states[-1] is states[1 if "reverse" in sweep else 4]
        assert set(states[2].gates) == {"input", "forget", "candidate", "output"}
    assert {step.label for step in ledger.filter(scope="tagger/encoder/l0_reverse", time=2, kind="scale")} >= {"⊙ c₃", "⊙ f₂"}
    state = tuple(leaf(np.zeros((4, 2, 3))) for _ in range(2))
    ledger = tg.trace(model(x, state).sum())
    assert ledger.states("l1").times == (0, 1, 2, 3, 4)
    assert ledger.states("l1_reverse").times == (5, 4, 3, 2, 1)
    assert repr(ledger.states("l1_reverse")) == "<states of 'tagger/encoder/l1_reverse', steps 5 to 1>"


@all_kinds
@pytest.mark.parametrize("given_state", [False, True])
def test_a_reversed_sweep_is_a_forward_one_on_the_reversed_sequence(name: str, given_state: bool) -> None:
    """State cotangents, vanishing product and highway of the second direction are those of a layer with its weights that is given the
    sequence turned round; only its steps are counted down."""
    net = Net(bidirectional=True, steps=6, given_state=given_state)
    both, one = net.make(name), net._replace(bidirectional=False).make(name)
    one.load_state_dict({n.removesuffix("_reverse"): v for n, v in both.state_dict().items() if n.endswith("_reverse")})
    data = data_for(name, net)
    state = tuple(leaf(part) for part in data.state) if given_state else None
    first = tuple(leaf(part[1:]) for part in data.state) if given_state else None
    theirs = tg.trace((one(data.x[::-1], first)[0] * data.on_outputs[::-1, :, net.size :]).sum())
    ours = tg.trace((both(data.x, state)[0] * data.on_outputs).sum())
    sweep = f"{theirs.layers[0]}/l0_reverse"
    for here, there in zip(ours.states(sweep), theirs.states(), strict=True):
        assert here.time == net.steps + 1 - there.time
        same("state cotangent", here.cotangent, there.cotangent)
    product, expected = flow.vanishing_product(ours, sweep), flow.vanishing_product(theirs)
    assert product.time.tolist() == (net.steps + 1 - expected.time).tolist() == list(range(1, net.steps + 1 + given_state))
    for what in ("lag", "norm", "gain", "log10_product", "saturation", "weight", "log10_bound", "spectral_radius", "rate"):
        np.testing.assert_allclose(getattr(product, what), getattr(expected, what), rtol=1e-11, atol=1e-12)
    assert product.verdict == expected.verdict
    road, known = flow.highway(ours, sweep), flow.highway(theirs)
    assert (road.role, len(road.labels)) == (known.role, len(known.labels))
    assert road.exists == (name not in ("rnn-tanh", "rnn-relu"))
    if road.exists:
        assert road.time.tolist() == product.time.tolist()
        assert road.labels[-1] == ("⊙ f₁" if name == "lstm" else "⊙ z₁")
        for what in ("lag", "factor", "log10_direct", "log10_total", "rate"):
            np.testing.assert_allclose(getattr(road, what), getattr(known, what), rtol=1e-11, atol=1e-12)


@all_kinds
def test_state_cotangents_of_a_padded_batch(name: str) -> None:
    """In a padded batch each sequence's δ_t is the one it has alone, in both directions and layers, and what the loss reads of its
    outputs is part of it; the padding adds nothing and changes nothing."""
    net = Net(layers=2, bidirectional=True, steps=5, lengths=[5, 3, 1])
    layer, data = net.make(name), data_for(name, net)
    ledger = tg.trace((layer(data.x, lengths=net.lengths)[0] * data.on_outputs).sum())
    for b, n in enumerate([5, 3, 1]):
        alone = tg.trace((layer(data.x[:n, b])[0] * data.on_outputs[:n, b]).sum())
        for sweep in ledger.layers:
            states, own = ledger.states(sweep), alone.states(sweep)
            for t in range(1, n + 1):
                same(f"{sweep} at {t}", states[t].cotangent[b], own[t].cotangent[0])
            padding = [states[t].cotangent[b] for t in range(n + 1, 6)]
            if "reverse" in sweep:  # before the sequence: on the way to the initial state
                assert all(np.array_equal(cotangent, padding[0]) for cotangent in padding)
            else:  # after it
                assert not any(cotangent.any() for cotangent in padding)


def test_the_highway_of_a_padded_batch() -> None:
    """Through the padding a sequence's state is handed on as it is: the highway's factor is 1 there, and the forget gate elsewhere."""
    net = Net(steps=5, lengths=[5, 3, 0])
    layer, data = net.make("lstm"), data_for("lstm", net)
    outputs, _, named = layer(data.x, data.state, net.lengths, return_gates=True)
    road = flow.highway(tg.trace((outputs * data.on_outputs).sum()))
    assert road.time.tolist() == [5, 4, 3, 2, 1]
    empty = padding_of(net)
    for factor, time_ in zip(road.factor[1:], road.time[:-1], strict=True):
        expected = np.where(empty[time_ - 1][:, None], 1.0, named["forget"].value[0, time_ - 1])
        same(f"factor of step {time_}", factor, expected)


def test_the_rolled_picture_of_both_directions() -> None:
    """In the rolled picture the edges of the forward direction lead from t to t − 1, those of the reversed one from t to t + 1."""
    outputs, _ = nn.LSTM(2, 3, bidirectional=True, rng=0)(np.ones((4, 1, 2)))
    source = render.backward_graph(tg.trace(outputs.sum()), rolled=True).source
    assert source.count("t → t−1") == source.count("t → t+1") == 2  # over W_hh and on the highway


def test_a_network_that_amplifies_rounding_opens_with_a_warning():
    """At a spectral radius of 3 the kernel and the steps part by rounding; that is said, and the ledger is that of the steps."""
    layer = nn.RNN(4, 64, init=3.0, rng=0)
    x = np.random.default_rng(0).standard_normal((200, 1, 4))
    with pytest.warns(RuntimeWarning, match=r"rnn_tanh: recorded step by step.*amplifies rounding"):
        ledger = tg.trace(layer(x)[0][-1].sum())
    recorded = tg.trace(layer(x, return_gates=True)[0][-1].sum())
    for t in (1, 100, 200):
        assert np.array_equal(ledger.states()[t].hidden.value, recorded.states()[t].hidden.value)
    assert flow.vanishing_product(ledger).verdict.startswith("exploding")
