"""PyTorch's layout of the weights and ours, in plain NumPy: both ways, every shape, inside larger models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ArgumentError, DtypeError, ShapeError, StateError, UnsupportedError
from tinygrad_rnn.nn.interop import from_torch, to_torch

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
kinds = pytest.mark.parametrize("kind", GATES)


def theirs(
    kind: str, inputs: int = 3, size: int = 2, prefix: str = "", suffixes: tuple[str, ...] = ("_l0",), bias: bool = True, seed: int = 0
) -> dict[str, Any]:
    """What PyTorch's ``state_dict`` of such a layer holds."""
    rng = np.random.default_rng(seed)
    rows = GATES[kind] * size
    shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, size)} | ({"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {})
    return {f"{prefix}{name}{suffix}": rng.normal(size=shape) for suffix in suffixes for name, shape in shapes.items()}


def step(kind: str, x: Any, h: Any, w: dict[str, Any]) -> Any:
    """One step by PyTorch's equations, with two biases, without a cell state before it."""
    fed, recalled = x @ w["weight_ih"].T + w["bias_ih"], h @ w["weight_hh"].T + w["bias_hh"]
    a, b = np.split(fed, GATES[kind], -1), np.split(recalled, GATES[kind], -1)
    if kind == "rnn":
        return np.tanh(fed + recalled)
    if kind == "lstm":
        i, _, g, o = (p + q for p, q in zip(a, b, strict=True))
        return oracles.sigmoid(o) * np.tanh(oracles.sigmoid(i) * np.tanh(g))
    r, z = oracles.sigmoid(a[0] + b[0]), oracles.sigmoid(a[1] + b[1])
    return (1.0 - z) * np.tanh(a[2] + r * b[2]) + z * h


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)


@kinds
def test_two_biases_and_one_compute_the_same(kind: str) -> None:
    """A cell with the translated weights takes the step that PyTorch's equations with two biases take."""
    weights = theirs(kind, suffixes=("",))
    make = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[kind]
    cell = make(3, 2, rng=0)
    cell.load_state_dict(from_torch(weights))
    rng = np.random.default_rng(1)
    x, h = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    state = (h, np.zeros_like(h)) if kind == "lstm" else (h,)
    assert oracles.difference(cell(x, state).hidden.value, step(kind, x, h, weights)) < 1e-14


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_there_and_back(make: Any, bias: bool, dtype: str) -> None:
    """Ours to PyTorch's layout and back is ours, bit for bit, from the module or from its state_dict."""
    module = make(3, 2, bias=bias, dtype=dtype, rng=0)
    state = module.state_dict()
    assert same(from_torch(to_torch(module)), state)
    assert same(to_torch(state), to_torch(module))
    assert not any(name.startswith(("bias_l", "bias_hn")) or name == "bias" for name in to_torch(module))


@kinds
@given(
    inputs=st.integers(1, 4),
    size=st.integers(1, 4),
    prefix=st.sampled_from(["", "encoder.lstm.", "layers.0.weight_ih.", "bias."]),
    suffixes=st.sampled_from([("",), ("_l0",), ("_l0", "_l1", "_l12"), ("_l0", "_l0_reverse", "_l1", "_l1_reverse")]),
    bias=st.booleans(),
    seed=st.integers(0, 100),
)
def test_any_depth_direction_and_place(
    kind: str, inputs: int, size: int, prefix: str, suffixes: tuple[str, ...], bias: bool, seed: int
) -> None:
    """Every layer and direction, under any prefix, has its two biases added; other entries and their order stay."""
    given_state = {"first": np.zeros(1), **theirs(kind, inputs, size, prefix, suffixes, bias, seed), "head.bias": np.ones(2)}
    state = from_torch(given_state)
    expected = ["first"]
    for suffix in suffixes:
        names = ["weight_ih", "weight_hh", *(["bias"] if bias else []), *(["bias_hn"] if bias and kind == "gru" else [])]
        expected += [f"{prefix}{name}{suffix}" for name in names]
        for name in ("weight_ih", "weight_hh"):
            assert np.array_equal(state[f"{prefix}{name}{suffix}"], given_state[f"{prefix}{name}{suffix}"])
        if bias:
            first, second = (given_state[f"{prefix}bias_{part}{suffix}"] for part in ("ih", "hh"))
            shared = first + second
            if kind == "gru":
                shared[2 * size :] = first[2 * size :]
                assert np.array_equal(state[f"{prefix}bias_hn{suffix}"], second[2 * size :])
            assert np.array_equal(state[f"{prefix}bias{suffix}"], shared)
    assert list(state) == [*expected, "head.bias"]
    assert same(from_torch(to_torch(state)), state)


@kinds
def test_both_directions_read_both_layouts(kind: str) -> None:
    """What is in the layout asked for already stays as it is."""
    two = theirs(kind)
    one = from_torch(two)
    assert same(from_torch(one), one)
    assert same(to_torch(two), two)
    assert same(from_torch(to_torch(one)), one)


def test_larger_models() -> None:
    """A whole model goes both ways: embeddings, read-outs and cells in lists keep their entries; a bias alone is no recurrent layer."""

    class Model(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(5, 3, rng=0)
            self.encoder = nn.GRU(3, 2, rng=1)
            self.cells = [nn.LSTMCell(2, 2, rng=2), nn.RNNCell(2, 2, bias=False, rng=3)]
            self.head = nn.Linear(2, 5, rng=4)
            self.bias = nn.Parameter(np.ones(3))

    model, other = Model(), Model()
    state = to_torch(model)
    assert list(state) == [
        "bias", "embed.weight",
        "encoder.weight_ih_l0", "encoder.weight_hh_l0", "encoder.bias_ih_l0", "encoder.bias_hh_l0",
        "cells.0.weight_ih", "cells.0.weight_hh", "cells.0.bias_ih", "cells.0.bias_hh",
        "cells.1.weight_ih", "cells.1.weight_hh",
        "head.weight", "head.bias",
    ]  # fmt: skip
    for parameter in other.parameters():
        parameter.value = parameter.value * 0.0
    other.load_state_dict(from_torch(state))
    assert same(other.state_dict(), model.state_dict())


def test_zeros_stand_where_the_second_bias_is_redundant() -> None:
    """Back in PyTorch's layout, bias_hh is zero but for the GRU's candidate."""
    lstm, gru = nn.LSTM(3, 2, rng=0), nn.GRU(3, 2, rng=0)
    assert to_torch(lstm)["bias_hh_l0"].tolist() == [0.0] * 8
    assert to_torch(gru)["bias_hh_l0"].tolist() == [0.0] * 4 + gru.bias_hn_l0.value.tolist()
    assert np.array_equal(to_torch(gru)["bias_ih_l0"], gru.bias_l0.value)


class OnDevice:
    """What a tensor of another library looks like: it gives its array only when detached and brought home."""

    def __init__(self, array: Any, steps: tuple[str, ...] = ("detach", "cpu", "numpy")) -> None:
        self.array, self.steps = array, steps

    def _next(self, name: str) -> Any:
        if self.steps[0] != name:
            raise RuntimeError(f"call {self.steps[0]}() first")
        return OnDevice(self.array, self.steps[1:]) if self.steps[1:] else self.array

    def detach(self) -> Any:
        return self._next("detach")

    def cpu(self) -> Any:
        return self._next("cpu")

    def numpy(self) -> Any:
        return self._next("numpy")


def test_tensors_of_any_library() -> None:
    """Tensors of ours, of a library with devices, arrays and lists are read; results are writable copies."""
    plain = theirs("gru")
    state = from_torch({name: OnDevice(array) for name, array in plain.items()})
    assert same(state, from_torch(plain))
    assert same(from_torch({name: tg.tensor(array, requires_grad=True) for name, array in plain.items()}), state)
    assert same(from_torch({name: array.tolist() for name, array in plain.items()}), state)
    for result, source in ((state, plain), (to_torch(plain), plain), (from_torch(state), state)):
        for name, array in result.items():
            assert array.flags.writeable and array.flags.owndata
            assert name not in source or not np.shares_memory(array, source[name])


def changed(kind: str = "lstm", **entries: Any) -> dict[str, Any]:
    """A layer's entries with some of them replaced, or left out where None is given."""
    return {name: value for name, value in (theirs(kind) | entries).items() if value is not None}


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (None, ArgumentError, r"from_torch: expected a dict of names to arrays, got NoneType\. Did you mean \.state_dict\(\)\?"),
        ({0: np.zeros(1)}, ArgumentError, r"from_torch: expected a dict of names to arrays, got dict"),
        (changed(weight_hh_l0=None), StateError, r"from_torch: \*_l0 has \[.*\] but lacks \['weight_hh'\]"),
        (changed(weight_ih_l0=None), StateError, r"lacks \['weight_ih'\]"),
        (changed(bias_hh_l0=None), StateError, r"lacks \['bias_hh'\]"),
        (changed(bias_ih_l0=None), StateError, r"lacks \['bias_ih'\]"),
        (changed(bias_l0=np.zeros(8)), StateError, r"has \['bias', 'bias_hh', 'bias_ih'\]; expected bias_ih and bias_hh, or bias"),
        (changed("gru", bias_hn_l0=np.zeros(2)), StateError, r"has \['bias_hh', 'bias_hn', 'bias_ih'\]; expected"),
        (changed(bias_ih_l0=None, bias_hh_l0=None, bias_hn_l0=np.zeros(2)), StateError, r"lacks \['bias'\]"),
        (
            changed(bias_ih_l0=None, bias_hh_l0=None, bias_l0=np.zeros(8), bias_hn_l0=np.zeros(2)),
            StateError,
            r"bias_hn, which is for the GRU; its shapes are those of the LSTM",
        ),
        (changed(weight_hh_l0=np.zeros((8, 4))), ShapeError, r"weight_ih \(8, 3\) and weight_hh \(8, 4\); expected .* G = 1 \(RNN\)"),
        (changed(weight_hh_l0=np.zeros((7, 2))), ShapeError, r"weight_hh \(7, 2\)"),
        (changed(weight_hh_l0=np.zeros((6, 2))), ShapeError, r"weight_ih \(8, 3\) and weight_hh \(6, 2\)"),
        (changed(weight_hh_l0=np.zeros(8)), ShapeError, r"weight_hh \(8,\)"),
        (changed(weight_hh_l0=np.zeros((8, 0))), ShapeError, r"weight_hh \(8, 0\)"),
        (changed(weight_ih_l0=np.zeros(8)), ShapeError, r"weight_ih \(8,\)"),
        (changed(bias_hh_l0=np.zeros(2)), ShapeError, r"\*_l0 has bias_hh of shape \(2,\); expected \(8,\) for the LSTM"),
        (changed(weight_hr_l0=np.zeros((1, 2))), UnsupportedError, r"weight_hr: an LSTM with proj_size has no counterpart here"),
        (changed(x=np.array(["a"])), DtypeError, r"from_torch: x is no array of real numbers to NumPy .* Convert it"),
        (changed(x=OnDevice(1.0, ("to_dense",))), DtypeError, r"from_torch: x is no array of real numbers .*call to_dense\(\) first"),
        ({f"a.b.{n}": v for n, v in changed(bias_hh_l0=None).items()}, StateError, r"from_torch: a\.b\.\*_l0 has"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(state: Any, kind: type[Exception], message: str) -> None:
    """Missing, surplus and misshapen entries are refused by name, with what was expected."""
    with pytest.raises(kind, match=message):
        from_torch(state)


@pytest.mark.parametrize("make", [nn.GRU, nn.GRUCell])
def test_the_other_gru_has_no_counterpart(make: Any) -> None:
    """A GRU that resets before the product is refused; without biases only the module tells that it is one."""

    class Model(nn.Module):
        def __init__(self, **options: Any) -> None:
            self.gru = make(3, 2, reset="before", rng=0, **options)

    for state in (Model(), Model().state_dict(), Model(bias=False)):
        with pytest.raises(UnsupportedError, match=r'gru.* is a GRU with reset="before" .* Build it with reset="after"'):
            to_torch(state)
    model = Model()
    assert same(from_torch(model), model.state_dict())
    assert to_torch(Model(bias=False).state_dict()).keys() == Model(bias=False).state_dict().keys()


def test_needs_no_torch() -> None:
    """Translating loads no PyTorch."""
    program = (
        "import sys; from tinygrad_rnn import nn\n"
        "nn.interop.from_torch(nn.interop.to_torch(nn.LSTM(2, 2, rng=0)))\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
