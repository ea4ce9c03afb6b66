"""What layers, optimisers and the states of other libraries say, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from messages import Row, word_for_word

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import ArgumentError, DtypeError, ShapeError, StateError, UnsupportedError


def x(*shape: int) -> Any:
    return tg.tensor(np.ones(shape), requires_grad=True)


def weights(rows: int = 2, size: int = 2, **more: Any) -> dict[str, Any]:
    """Those of a recurrent layer, by PyTorch's names."""
    return {"weight_ih_l0": np.ones((rows, 1)), "weight_hh_l0": np.ones((rows, size)), **more}


def sgd() -> optim.SGD:
    return optim.SGD([nn.Parameter(np.ones(2), name="w")], lr=0.1)


SAID: list[Row] = [
    (
        lambda: nn.SelfAttention(4, 2, rng=0)(x(3, 2, 4), lengths=[1, 2, 3]),
        ShapeError,
        "SelfAttention: expected lengths of shape (2,), one per sequence, got (3,)",
    ),
    (
        lambda: nn.SelfAttention(4, 2, rng=0)(x(3, 2, 4), lengths=[1, 4]),
        ArgumentError,
        "SelfAttention: lengths must be whole numbers from 1 to 3, the number of positions, got [1, 4]",
    ),
    (
        lambda: nn.Sequential(nn.LSTM(2, 3, rng=0), nn.Linear(3, 1, rng=0))(np.ones((2, 1, 2))),
        ArgumentError,
        "Sequential: layer 0 (LSTM) gave a tuple of 2; expected one Tensor to go on with. A recurrent layer "
        "gives (outputs, state): wrap it in a Module whose forward returns self.layer(x)[0], to go on with "
        "the outputs. (In a lambda its parameters are lost)",
    ),
    (
        lambda: nn.Sequential(3),
        ArgumentError,
        "Sequential: layer 0 must be a module or a function of one Tensor, got 3",
    ),
    (
        lambda: nn.Sequential(nn.Linear),
        ArgumentError,
        "Sequential: layer 0 must be a module or a function of one Tensor, got <class "
        "'tinygrad_rnn.nn.linear.Linear'>; did you mean Linear(…)?",
    ),
    (
        lambda: nn.Linear(2, 2, init=nn.init.chrono(10)),
        ArgumentError,
        "init: chrono(…) draws the biases of an LSTM's gates, not weights; pass it as forget_bias",
    ),
    (
        lambda: nn.RNN(2, 2, init="magic"),
        ArgumentError,
        "init: 'magic' is unknown; expected one of uniform, glorot, orthogonal, identity, he, or a spectral radius such as 0.9",
    ),
    (
        lambda: nn.RNN(2, 2, init=nn.init.chrono(10)),
        ArgumentError,
        "init: chrono(…) draws the biases of an LSTM's gates, not weights; pass it as forget_bias",
    ),
    (
        lambda: nn.interop.to_torch(nn.GRU(2, 2, reset="before", rng=0)),
        UnsupportedError,
        'to_torch: GRU is a GRU with reset="before" (Cho et al. 2014); PyTorch has only the other one. Build it with reset="after"',
    ),
    (
        lambda: nn.interop.to_torch(nn.Sequential(nn.GRU(2, 2, reset="before", rng=0))),
        UnsupportedError,
        'to_torch: 0 is a GRU with reset="before" (Cho et al. 2014); PyTorch has only the other one. Build it with reset="after"',
    ),
    (
        lambda: nn.interop.to_torch({**weights(6), "bias_l0": np.ones(6)}),
        UnsupportedError,
        'to_torch: *_l0 is a GRU with reset="before" (Cho et al. 2014); PyTorch has only the other one. Build it with reset="after"',
    ),
    (
        lambda: nn.interop.from_torch(3),
        ArgumentError,
        "from_torch: expected a dict of names to arrays, got int. Did you mean .state_dict()?",
    ),
    (
        lambda: nn.interop.from_torch({"weight_ih_l0": np.array(["a"])}),
        DtypeError,
        "from_torch: weight_ih_l0 is no array of real numbers to NumPy (weight_ih_l0: expected real numbers, "
        "got dtype <U1. Encode text as numbers first). Convert it, say with .float()",
    ),
    (
        lambda: nn.interop.from_torch(weights(weight_hr_l0=np.ones((1, 2)))),
        UnsupportedError,
        "from_torch: *_l0 has weight_hr: an LSTM with proj_size has no counterpart here. Train it with proj_size=0",
    ),
    (
        lambda: nn.interop.from_torch({"weight_ih_l0": np.ones((2, 1))}),
        StateError,
        "from_torch: *_l0 has ['weight_ih'] but lacks ['weight_hh']",
    ),
    (
        lambda: nn.interop.from_torch(weights(bias_l0=np.ones(2), bias_ih_l0=np.ones(2), bias_hh_l0=np.ones(2))),
        StateError,
        "from_torch: *_l0 has ['bias', 'bias_hh', 'bias_ih']; expected bias_ih and bias_hh, or bias, for the GRU with bias_hn, or none",
    ),
    (
        lambda: nn.interop.from_torch(weights(5)),
        ShapeError,
        "from_torch: *_l0 has weight_ih (5, 1) and weight_hh (5, 2); expected (G·H, I) and (G·H, H) with G = 1 (RNN), 3 (GRU) or 4 (LSTM)",
    ),
    (
        lambda: nn.interop.from_torch(weights(bias_l0=np.ones(3))),
        ShapeError,
        "from_torch: *_l0 has bias of shape (3,); expected (2,) for the RNN",
    ),
    (
        lambda: nn.interop.to_torch(weights(bias_l0=np.ones(2), bias_hn_l0=np.ones(2))),
        StateError,
        "to_torch: *_l0 has bias_hn, which is for the GRU; its shapes are those of the RNN",
    ),
    (
        lambda: nn.Linear(2, 1, rng=0).load_state_dict({"weight": np.ones((1, 2))}),
        StateError,
        "load_state_dict: nothing was loaded into Linear. Missing: bias. strict=False leaves missing and unexpected entries aside",
    ),
    (
        lambda: nn.Linear(2, 1, rng=0).load_state_dict({"weight": np.ones((1, 2)), "bias": np.ones(1), "more": np.ones(1)}),
        StateError,
        "load_state_dict: nothing was loaded into Linear. Unexpected: more. strict=False leaves missing and unexpected entries aside",
    ),
    (
        lambda: nn.Linear(2, 1, rng=0).load_state_dict({"weight": np.ones((1, 3)), "bias": np.ones(1)}),
        StateError,
        "load_state_dict: nothing was loaded into Linear. Unfit: weight has shape (1, 3), expected (1, 2). "
        "Load the state of a module that was built with the same arguments",
    ),
    (
        lambda: nn.RNN(2, 1, rng=0).load_state_dict({"bias_ih_l0": np.ones(1)}),
        StateError,
        "load_state_dict: nothing was loaded into RNN. Missing: weight_ih_l0, weight_hh_l0, bias_l0. "
        "Unexpected: bias_ih_l0. Two biases are PyTorch's layout: use nn.interop.from_torch(state)",
    ),
    (
        lambda: nn.Linear(2, 1, rng=0).load_state_dict(3),
        StateError,
        "load_state_dict: expected a dict of names to arrays, got int",
    ),
    (
        lambda: nn.RNN(2, 2, nonlinearity="sin"),
        ArgumentError,
        "RNN: nonlinearity must be 'tanh' or 'relu', got 'sin'",
    ),
    (
        lambda: nn.GRU(2, 2, reset="never"),
        ArgumentError,
        "GRU: reset must be 'after' (PyTorch, Keras) or 'before' (Cho et al. 2014), got 'never'",
    ),
    (
        lambda: nn.LSTM(2, 2, forget_bias="large"),
        ArgumentError,
        "LSTM: forget_bias must be a finite number, None or init.chrono(…), got 'large'",
    ),
    (
        lambda: nn.LSTM(2, 2, forget_bias=lambda size, rng: np.ones(size + 1)),
        ArgumentError,
        "LSTM: forget_bias must be a function of a size and a generator that gives 2 biases, such as "
        "init.chrono(100), got <lambda>: could not broadcast input array from shape (3,) into shape (2,)",
    ),
    (
        lambda: nn.LSTM(2, 2, residual="skips"),
        ArgumentError,
        "LSTM: residual must be 'skip', 'dense' or None, got 'skips'",
    ),
    (
        lambda: nn.LSTM(2, 2, rng=0).register_state_hook(3),
        ArgumentError,
        "register_state_hook: expected a function of a name and two arrays, got int",
    ),
    (
        lambda: nn.LSTM(2, 2, rng=0)(np.ones((3, 2, 2)), lengths=[[1], [1, 2]]),
        ShapeError,
        "LSTM: lengths is ragged; expected one whole number per sequence, (2,)",
    ),
    (
        lambda: nn.LSTM(2, 2, rng=0)(np.ones((3, 2, 2)), lengths=[1, 4]),
        ArgumentError,
        "LSTM: lengths must be whole numbers from 0 to 3, got [1, 4]",
    ),
    (
        lambda: nn.LSTM(2, 2, rng=0)(np.ones((3, 2, 3))),
        ShapeError,
        "LSTM: expected x of shape (T, B, 2) or (T, 2), got (3, 2, 3)",
    ),
    (
        lambda: nn.LayerNorm(()),
        ArgumentError,
        "LayerNorm: normalized_shape must name at least one axis, got ()",
    ),
    (
        lambda: nn.Residual(nn.Linear(2, 3, rng=0))(x(1, 2)),
        ShapeError,
        "Residual: Linear turned shape (1, 2) into (1, 3); expected the same shape, since the two are added. "
        "Give it as many outputs as inputs, or change the width outside",
    ),
    (
        lambda: optim.SGD(3, lr=0.1),
        ArgumentError,
        "SGD: expected an iterable of parameters, got int. Pass module.parameters(), module.named_parameters() or a list of leaves",
    ),
    (
        lambda: optim.SGD([np.ones(2)], lr=0.1),
        ArgumentError,
        "SGD: parameter 0 is a ndarray; expected a Tensor or a pair (name, Tensor).",
    ),
    (
        lambda: optim.SGD([nn.Parameter([1.0]) * 2.0], lr=0.1),
        ArgumentError,
        "SGD: parameter 0 was computed; only a leaf can be rebound. Pass the leaf it came from",
    ),
    (
        lambda: optim.SGD([("w", nn.Parameter([1.0])), ("w", nn.Parameter([1.0]))], lr=0.1),
        ArgumentError,
        "SGD: two parameters are named 'w'; give each a name of its own",
    ),
    (
        lambda: optim.SGD([("v", w), ("w", w)] if (w := nn.Parameter([1.0])) else [], lr=0.1),
        ArgumentError,
        "SGD: parameters v and w are the same Tensor; pass it once",
    ),
    (
        lambda: optim.SGD([], lr=0.1),
        ArgumentError,
        "SGD: got no parameters. A generator gives them only once: call module.parameters() anew each time",
    ),
    (
        lambda: optim.SGD([tg.tensor([1.0])], lr=0.1),
        ArgumentError,
        "SGD: none of the parameters requires a gradient. Make them with requires_grad=True",
    ),
    (
        lambda: sgd().load_state_dict(3),
        StateError,
        "SGD.load_state_dict: expected a dict as state_dict() gives it, got int",
    ),
    (
        lambda: sgd().load_state_dict({**sgd().state_dict(), "kind": "Adam"}),
        StateError,
        "SGD.load_state_dict: expected the state of SGD, got Adam",
    ),
    (
        lambda: sgd().load_state_dict({"kind": "SGD"}),
        StateError,
        "SGD.load_state_dict: missing ['settings/lr', 'settings/momentum', 'settings/nesterov', "
        "'settings/weight_decay']. The state must be of the same settings and parameter names",
    ),
    (
        lambda: optim.SGD([nn.Parameter(np.ones(2), name="w")], lr=0.1, nesterov=True),
        ArgumentError,
        "SGD: nesterov looks ahead along the momentum, which is 0; set momentum, such as 0.9",
    ),
    (
        lambda: optim.SGD([nn.Parameter([1.0])], lr=-1.0),
        ArgumentError,
        "SGD: lr must be a finite number of at least 0, got -1.0",
    ),
    (
        lambda: optim.clip_grad_norm([nn.Parameter([1.0])], -1.0),
        ArgumentError,
        "clip_grad_norm: max_norm must be a number of at least 0, got -1.0",
    ),
    (
        lambda: optim.CosineLR(sgd(), 10, min_lr=1.0),
        ArgumentError,
        "CosineLR: min_lr 1.0 is above the base rate 0.1; a cosine falls",
    ),
    (
        lambda: optim.WarmUp(sgd(), 3, then=3),
        ArgumentError,
        "WarmUp: expected a schedule to follow, got int",
    ),
    (
        lambda: optim.WarmUp(sgd(), 3, then=optim.StepLR(sgd(), 3)),
        ArgumentError,
        "WarmUp: what follows must be a fresh schedule of the same optimiser. Make it in the same call",
    ),
    (
        lambda: optim.StepLR(3, 3),
        ArgumentError,
        "StepLR: expected an optimiser first, got int",
    ),
    (lambda: nn.SelfAttention(8, 3), ArgumentError, "SelfAttention: 3 heads do not divide size 8; expected a divisor of it"),
    (
        lambda: nn.SelfAttention(8, 2)(np.ones((0, 1, 8))),
        ShapeError,
        "SelfAttention: x of shape (0, 1, 8) has no positions; expected at least one",
    ),
    (lambda: nn.Linear(2, 2, rng=-1), ArgumentError, "rng: expected a numpy.random.Generator, a seed of at least 0, or None, got -1"),
    (lambda: nn.Linear(2, 2, dtype="real"), ArgumentError, "Linear: dtype must be a floating-point type such as 'float32', got 'real'"),
]


test_the_message = word_for_word(SAID)


def test_states_and_gradients_that_do_not_fit() -> None:
    """Buffers of another shape, gradients that are not finite, and a schedule that says no rate."""
    two, three = (optim.SGD([nn.Parameter(np.ones(n), name="w")], lr=0.1, momentum=0.9) for n in (2, 3))
    with pytest.raises(StateError) as misfit:
        three.load_state_dict(two.state_dict())
    assert str(misfit.value) == (
        "SGD.load_state_dict: parameters/0/momentum_buffer has shape (2,), expected (3,). The state must come from parameters of the same "
        "shapes"
    )
    w = nn.Parameter(np.ones(2), name="w")
    w.grad = tg.tensor([1.0, np.inf])
    with pytest.raises(ArgumentError) as infinite:
        optim.clip_grad_norm([w], 1.0, error_if_nonfinite=True)
    assert str(infinite.value) == "clip_grad_norm: the gradients of ['0'] are not finite. tg.detect_anomaly() finds where that began"
    with pytest.raises(NotImplementedError) as abstract:
        optim.Schedule(sgd()).at(3)
    assert str(abstract.value) == "Schedule: a schedule needs a method at(self, step)"
