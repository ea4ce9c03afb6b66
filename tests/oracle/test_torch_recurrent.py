"""Recurrent cells and layers against PyTorch's, in float64: values and every gradient.

PyTorch has two bias vectors where we have one: b = b_ih + b_hh, so either of its gradients is ours. In the GRU the candidate's
b_hn stays apart, since the reset gate multiplies it.
"""

from __future__ import annotations

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
    "rnn-tanh": (nn.RNNCell, nn.RNN, torch.nn.RNNCell, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNNCell, nn.RNN, torch.nn.RNNCell, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTMCell, nn.LSTM, torch.nn.LSTMCell, torch.nn.LSTM, {}),
    "gru": (nn.GRUCell, nn.GRU, torch.nn.GRUCell, torch.nn.GRU, {}),
}
cases = pytest.mark.parametrize("name", CASES)
biases = pytest.mark.parametrize("bias", [True, False])
batches = pytest.mark.parametrize("batch", [None, 1, BATCH])


def copy_weights(ours: Any, theirs: Any, suffix: str) -> None:
    """Give ours the weights of theirs, the two biases added."""
    with torch.no_grad():
        w = {n.removesuffix(suffix): p.numpy() for n, p in theirs.named_parameters()}
    state = {"weight_ih" + suffix: w["weight_ih"], "weight_hh" + suffix: w["weight_hh"]}
    if "bias_ih" in w:
        bias = w["bias_ih"] + w["bias_hh"]
        if isinstance(ours, (nn.GRU, nn.GRUCell)):
            bias[2 * HIDDEN :] = w["bias_ih"][2 * HIDDEN :]
            state["bias_hn" + suffix] = w["bias_hh"][2 * HIDDEN :]
        state["bias" + suffix] = bias
    ours.load_state_dict(state)


def close(what: str, ours: Any, theirs: Any) -> None:
    assert oracles.difference(ours.value, theirs.detach().numpy()) <= RTOL, what


def same_gradients(ours: Any, theirs: Any, suffix: str) -> None:
    g = {n.removesuffix(suffix): p.grad for n, p in theirs.named_parameters()}
    for n, parameter in ours.named_parameters():
        n = n.removesuffix(suffix)
        expected = g["bias_ih"] if n == "bias" else g["bias_hh"][2 * HIDDEN :] if n == "bias_hn" else g[n]
        close(f"gradient of {n}", parameter.grad, expected)


def both(rng: np.random.Generator, *shape: int) -> tuple[Any, Any]:
    array = rng.standard_normal(shape)
    return tg.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)


@cases
@biases
@batches
@pytest.mark.parametrize("given_state", [True, False])
def test_cell(name: str, bias: bool, batch: int | None, given_state: bool) -> None:
    """A cell unrolled over six steps gives PyTorch's states and gradients."""
    make, _, make_theirs, _, options = CASES[name]
    torch.manual_seed(0)
    theirs = make_theirs(INPUT, HIDDEN, bias=bias, dtype=torch.float64, **options)
    ours = make(INPUT, HIDDEN, bias=bias, rng=0, **options)
    copy_weights(ours, theirs, "")
    rng = np.random.default_rng(0)
    lead = () if batch is None else (batch,)
    x, x_theirs = both(rng, STEPS, *lead, INPUT)
    parts = [both(rng, *lead, HIDDEN) for _ in range(2 if name == "lstm" else 1)]
    state = tuple(p for p, _ in parts) if given_state else None
    state_theirs: Any = None if not given_state else tuple(p for _, p in parts) if name == "lstm" else parts[0][1]
    weight = rng.standard_normal((STEPS, *lead, HIDDEN))
    loss: Any = 0.0
    loss_theirs: Any = 0.0
    for t in range(STEPS):
        state, state_theirs = ours(x[t], state), theirs(x_theirs[t], state_theirs)
        pairs = list(zip(state, state_theirs if name == "lstm" else (state_theirs,), strict=True))
        for a, b in pairs:
            close(f"state at step {t}", a, b)
            loss, loss_theirs = loss + (a * weight[t]).sum(), loss_theirs + (b * torch.tensor(weight[t])).sum()
    loss.backward()
    loss_theirs.backward()
    close("gradient of x", x.grad, x_theirs.grad)
    for a, b in parts if given_state else []:
        close("gradient of the initial state", a.grad, b.grad)
    same_gradients(ours, theirs, "")


@cases
@biases
@batches
@pytest.mark.parametrize("given_state", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_layer(name: str, bias: bool, batch: int | None, given_state: bool, batch_first: bool) -> None:
    """A layer gives PyTorch's outputs, last states and gradients."""
    _, make, _, make_theirs, options = CASES[name]
    torch.manual_seed(0)
    theirs = make_theirs(INPUT, HIDDEN, bias=bias, batch_first=batch_first, dtype=torch.float64, **options)
    ours = make(INPUT, HIDDEN, bias=bias, batch_first=batch_first, rng=0, **options)
    copy_weights(ours, theirs, "_l0")
    rng = np.random.default_rng(1)
    lead = () if batch is None else (batch,)
    x, x_theirs = both(rng, *((batch, STEPS) if batch_first and batch else (STEPS, *lead)), INPUT)
    parts = [both(rng, 1, *lead, HIDDEN) for _ in range(2 if name == "lstm" else 1)]
    given: list[Any] = [None, None]
    if given_state:
        given = [tuple(p for p, _ in parts), tuple(p for _, p in parts) if name == "lstm" else parts[0][1]]
    outputs, last = ours(x, given[0])
    outputs_theirs, last_theirs = theirs(x_theirs, given[1])
    close("outputs", outputs, outputs_theirs)
    loss, loss_theirs = (outputs * outputs).sum(), (outputs_theirs * outputs_theirs).sum()
    for a, b in zip(last, last_theirs if name == "lstm" else (last_theirs,), strict=True):
        close("last state", a, b)
        loss, loss_theirs = loss + (a * a * a).sum(), loss_theirs + (b * b * b).sum()
    loss.backward()
    loss_theirs.backward()
    close("gradient of x", x.grad, x_theirs.grad)
    for a, b in parts if given_state else []:
        close("gradient of the initial state", a.grad, b.grad)
    same_gradients(ours, theirs, "_l0")


@cases
@biases
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize(
    ("batch", "batch_first", "lengths"),
    [
        (3, False, None),
        (3, True, None),
        (None, False, None),
        (1, False, None),
        (3, False, [2, 6, 4]),
        (3, True, [6, 1, 3]),
        (2, False, [4, 4]),
    ],
)
def test_deep_and_bidirectional(
    name: str,
    bias: bool,
    num_layers: int,
    bidirectional: bool,
    given_state: bool,
    batch: int | None,
    batch_first: bool,
    lengths: list[int] | None,
) -> None:
    """Several layers, both directions and packed sequences in any order give PyTorch's outputs, final states and all gradients."""
    _, make, _, make_theirs, options = CASES[name]
    torch.manual_seed(0)
    shape = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias, "batch_first": batch_first, **options}
    theirs = make_theirs(INPUT, HIDDEN, dtype=torch.float64, **shape)
    ours = make(INPUT, HIDDEN, rng=0, **shape)
    ours.load_state_dict(nn.interop.from_torch(theirs))
    rng = np.random.default_rng(2)
    lead = () if batch is None else (batch,)
    x, x_theirs = both(rng, *((batch, STEPS) if batch_first and batch else (STEPS, *lead)), INPUT)
    sweeps = num_layers * (1 + bidirectional)
    parts = [both(rng, sweeps, *lead, HIDDEN) for _ in range(2 if name == "lstm" else 1)]
    first: Any = tuple(p for p, _ in parts) if given_state else None
    first_theirs: Any = None if not given_state else tuple(p for _, p in parts) if name == "lstm" else parts[0][1]
    outputs, last = ours(x, first, lengths)
    if lengths is None:
        outputs_theirs, last_theirs = theirs(x_theirs, first_theirs)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x_theirs, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False)
        outputs_theirs, last_theirs = theirs(packed, first_theirs)
        outputs_theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs_theirs, batch_first=batch_first, total_length=STEPS)
    close("outputs", outputs, outputs_theirs)
    weight = rng.standard_normal(outputs.shape)
    loss, loss_theirs = (outputs * outputs * weight).sum(), (outputs_theirs * outputs_theirs * torch.tensor(weight)).sum()
    for a, b in zip(last, last_theirs if name == "lstm" else (last_theirs,), strict=True):
        close("final state", a, b)
        weight = rng.standard_normal(a.shape)
        loss, loss_theirs = loss + (a * a * a * weight).sum(), loss_theirs + (b * b * b * torch.tensor(weight)).sum()
    loss.backward()
    loss_theirs.backward()
    close("gradient of x", x.grad, x_theirs.grad)
    for a, b in parts if given_state else []:
        close("gradient of the initial state", a.grad, b.grad)
    for suffix in (f"_l{k}" + "_reverse" * side for k in range(num_layers) for side in range(1 + bidirectional)):
        g = {n: p.grad for n, p in theirs.named_parameters()}
        for n, parameter in ours.named_parameters():
            if n.endswith(suffix):
                their = {"bias": "bias_ih", "bias_hn": "bias_hh"}.get(n.removesuffix(suffix), n.removesuffix(suffix)) + suffix
                close(f"gradient of {n}", parameter.grad, g[their][2 * HIDDEN :] if n.startswith("bias_hn") else g[their])
