"""Weights carried over from PyTorch and back compute what they computed there, to 1e-12."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

RTOL = 1e-12
INPUT, HIDDEN, STEPS, BATCH = 3, 4, 6, 2

CASES = {
    "rnn-tanh": (nn.RNN, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, torch.nn.LSTM, {}),
    "gru": (nn.GRU, torch.nn.GRU, {}),
}
CELLS = {"rnn": (nn.RNNCell, torch.nn.RNNCell), "lstm": (nn.LSTMCell, torch.nn.LSTMCell), "gru": (nn.GRUCell, torch.nn.GRUCell)}
biases = pytest.mark.parametrize("bias", [True, False])


def tensors(state: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in state.items()}


def same_outputs(ours: Any, theirs: Any) -> None:
    x = np.random.default_rng(0).standard_normal((STEPS, BATCH, INPUT))
    with torch.no_grad():
        expected, expected_state = theirs(torch.tensor(x))
    outputs, state = ours(x)
    assert oracles.difference(outputs.value, expected.numpy()) <= RTOL
    for part, its in zip(state, expected_state if isinstance(expected_state, tuple) else (expected_state,), strict=True):
        assert oracles.difference(part.value, its.numpy()) <= RTOL


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [{}, {"num_layers": 2}, {"bidirectional": True}])
@biases
def test_layers_from_torch_and_back(name: str, shape: dict[str, Any], bias: bool) -> None:
    """Outputs and last states agree after from_torch, and again after our changed weights went back by to_torch."""
    make, make_theirs, options = CASES[name]
    torch.manual_seed(0)
    theirs = make_theirs(INPUT, HIDDEN, bias=bias, dtype=torch.float64, **shape, **options)
    ours = make(INPUT, HIDDEN, bias=bias, rng=0, **shape, **options)
    ours.load_state_dict(nn.interop.from_torch(theirs.state_dict()))
    same_outputs(ours, theirs)
    for parameter in ours.parameters():
        parameter.value = parameter.value * 1.5 + 0.1
    theirs.load_state_dict(tensors(nn.interop.to_torch(ours)))
    same_outputs(ours, theirs)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("way", ["from", "to"])
@biases
def test_cells_from_torch_and_back(name: str, way: str, bias: bool) -> None:
    """A cell takes the steps of PyTorch's with its weights, and PyTorch's takes the steps of ours with ours."""
    make, make_theirs = CELLS[name]
    torch.manual_seed(0)
    theirs, ours = make_theirs(INPUT, HIDDEN, bias=bias, dtype=torch.float64), make(INPUT, HIDDEN, bias=bias, rng=0)
    if way == "from":
        ours.load_state_dict(nn.interop.from_torch(theirs))
    else:
        theirs.load_state_dict(tensors(nn.interop.to_torch(ours)))
    state: Any = None
    state_theirs: Any = None
    for x in np.random.default_rng(0).standard_normal((STEPS, BATCH, INPUT)):
        with torch.no_grad():
            state_theirs = theirs(torch.tensor(x), state_theirs)
        state = ours(x, state)
    for part, its in zip(state, state_theirs if name == "lstm" else (state_theirs,), strict=True):
        assert oracles.difference(part.value, its.numpy()) <= RTOL


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bidirectional", [False, True])
@biases
def test_one_bias_is_enough_for_pytorch(name: str, bidirectional: bool, bias: bool) -> None:
    """A deep PyTorch layer computes the same after its biases were added up and taken apart again."""
    _, make_theirs, options = CASES[name]
    torch.manual_seed(0)
    shape = {"num_layers": 3, "bidirectional": bidirectional, "bias": bias, "dtype": torch.float64, **options}
    one, two = make_theirs(INPUT, HIDDEN, **shape), make_theirs(INPUT, HIDDEN, **shape)
    two.load_state_dict(tensors(nn.interop.to_torch(nn.interop.from_torch(one))))
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(one(x)[0], two(x)[0], rtol=RTOL, atol=RTOL)


def test_models_by_way_of_a_file(tmp_path: Path) -> None:
    """A PyTorch model's float32 weights go through a .safetensors file, our model, another file, and back into PyTorch, bit for bit."""
    from safetensors.torch import load_file, save_file

    class Model(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(5, INPUT, dtype="float32", rng=0)
            self.lstm = nn.LSTM(INPUT, HIDDEN, dtype="float32", rng=0)
            self.head = nn.Linear(HIDDEN, 5, dtype="float32", rng=0)

    torch.manual_seed(0)
    theirs = torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(5, INPUT), "lstm": torch.nn.LSTM(INPUT, HIDDEN), "head": torch.nn.Linear(HIDDEN, 5)}
    )
    with torch.no_grad():
        theirs["lstm"].bias_hh_l0.zero_()
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours = Model()
    ours.load_state_dict(nn.interop.from_torch(tg.load(tmp_path / "theirs.safetensors")))
    tg.save(tmp_path / "ours.safetensors", nn.interop.to_torch(ours))
    back = load_file(tmp_path / "ours.safetensors")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())


def test_numbers_that_numpy_lacks() -> None:
    """bfloat16 weights are refused by name, with the remedy that helps."""
    theirs = torch.nn.GRU(INPUT, HIDDEN, dtype=torch.bfloat16)
    with pytest.raises(tg.errors.DtypeError, match=r"from_torch: weight_ih_l0 is no array .* Convert it, say with \.float\(\)"):
        nn.interop.from_torch(theirs)
    assert nn.interop.from_torch(theirs.float())["bias_l0"].dtype == np.float32


def test_projections_are_refused() -> None:
    """An LSTM with proj_size has weights that have no place here."""
    with pytest.raises(tg.errors.UnsupportedError, match=r"\*_l0 has weight_hr: an LSTM with proj_size"):
        nn.interop.from_torch(torch.nn.LSTM(INPUT, HIDDEN, proj_size=2))
