"""A table of planted faults, each in one place of the package, and the law that finds it. A fault that survives fails the suite.

A fault is one substitution in the source of one function. The law passes as the package is, and is broken with the fault in place.
``python tests/test_mutations.py`` prints the table.
"""
# ruff: noqa: E501 (a row of the table is a line)

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import flow, functional, linear_maps, nn, optim, steps, transforms, walk
from tinygrad_rnn.errors import GraphError, HookError
from tinygrad_rnn.flow import bptt, jacobians, paths, stacks
from tinygrad_rnn.graph import state
from tinygrad_rnn.nn import kernels, recurrence, regularization
from tinygrad_rnn.ops import reduction, routing
from tinygrad_rnn.primitive import PRIMITIVES
from tinygrad_rnn.render import build
from tinygrad_rnn.testing import gradcheck, gradgradcheck, laws

# -- subjects ---------------------------------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
X = rng.uniform(0.4, 1.6, (3, 3)) * np.array([[1, -1, 1]])
Y = rng.uniform(0.4, 1.6, (3, 3))
S = rng.uniform(-1.0, 1.0, (4, 2, 2))
LENGTHS, SHORT = np.array([4, 2]), np.array([2, 4])
MATRIX = rng.uniform(-1.0, 1.0, (3, 3))


def rule(name: str) -> Any:
    return PRIMITIVES[name].rule


def small(kind: Any, **options: Any) -> Any:
    return kind(2, 2, rng=0, **options)


class Law(NamedTuple):
    """A check by name: raises if it is broken."""

    name: str
    check: Callable[[], None]


def law(check: Any, *subject: Any, **options: Any) -> Law:
    return Law(check.__name__, functools.partial(check, *subject, **options))


# -- laws that are stated here, on numbers that plain NumPy gives --------------------------------------------------------------------


def expect(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(getattr(got, "value", got)), expected, rtol=1e-9, atol=1e-12)


def a_choice_leaks_nothing() -> None:
    """The branch that was not taken receives exactly 0, also from an infinite cotangent."""
    x, y = tg.tensor([1.0, 1.0], True), tg.tensor([1.0, 1.0], True)
    tg.where([True, False], x, y).backward([1.0, np.inf])
    expect(x.grad, [1.0, 0.0])


def backward_accumulates() -> None:
    """Two passes give twice the gradient."""
    x = tg.tensor([2.0], True)
    for _ in range(2):
        (x * x).sum().backward()
    expect(x.grad, [8.0])


def a_rebound_leaf_is_refused() -> None:
    """A value that was rebound since the forward pass makes backward an error."""
    x = tg.tensor([2.0], True)
    y = (x * x).sum()
    x.value = [3.0]
    with pytest.raises(GraphError, match="was given a new value"):
        y.backward()


def the_engine_is_whole() -> None:
    """After an error inside of a pass nothing was added and every switch is as it was."""
    x = tg.tensor([2.0], True)
    with tg.scope("here"):
        y = tg.checkpoint(lambda a: tg.sin(a) * a, x).sum()
    with pytest.raises(HookError):
        y.backward(observers=[lambda step: 1 // 0])
    assert x.grad is None
    assert (state.recording, state.scope, state.anomaly, state.before) == (True, None, False, [])


def hooks_replace() -> None:
    """What a hook returns is what goes on."""
    x = tg.tensor([2.0], True)
    y = x * 3.0
    y.register_hook(lambda g: g * 10.0)
    y.sum().backward()
    expect(x.grad, [30.0])


def interventions_replace() -> None:
    """What an intervention returns is what goes on."""
    x = tg.tensor([2.0], True)
    (x * 3.0).sum().backward(interventions=[lambda step: step.contribution * 10.0 if step.kind == "scale" else None])
    expect(x.grad, [30.0])


def a_checkpoint_must_repeat_itself() -> None:
    """A function that gives another value when it is run again is refused."""
    calls: list[int] = []

    def fickle(a: Any) -> Any:
        calls.append(1)
        return a * float(len(calls))

    y = tg.checkpoint(fickle, tg.tensor([1.0], True)).sum()
    with pytest.raises(GraphError, match="gave another value"):
        y.backward()


def gains_are_ratios_of_norms() -> None:
    """The gain of a step is ‖contribution‖/‖cotangent‖, also of numbers whose squares underflow."""
    seen: list[Any] = []
    x = tg.tensor([3.0, 4.0], True)
    (x * 2.0).backward([3e-200, 4e-200], observers=[seen.append])
    expect([step.gain for step in seen], [2.0])
    expect(seen[0].norms[0] * 1e200, 5.0)


def the_jacobian_has_rows_of_outputs() -> None:
    """∂(M x)/∂x is M, and ∂(x, x, x, x)/∂x is four unit matrices, one below the other."""
    expect(tg.jacobian(lambda x: x @ MATRIX.T, np.ones(3)), MATRIX)
    expect(tg.jacobian(lambda x: tg.concatenate([x @ MATRIX.T, x]), np.ones(3)), np.concatenate([MATRIX, np.eye(3)]))


def adam_is_algorithm_1() -> None:
    """Two steps of Adam, written out: Kingma & Ba 2015."""
    w, value, m, v = nn.Parameter([1.0, -2.0]), np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    optimizer = optim.Adam([w], lr=0.1, betas=(0.8, 0.9))
    for t, gradient in ((1, np.array([0.5, 3.0])), (2, np.array([-0.25, 1.0]))):
        w.grad = gradient
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
        value = value - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
        expect(w, value)


def weight_decay_is_a_pull_to_0() -> None:
    """SGD without a gradient, but with weight decay: w ← w − η λ w."""
    w = nn.Parameter([4.0])
    w.grad = [0.0]
    optim.SGD([w], lr=0.5, weight_decay=0.5).step()
    expect(w, [3.0])


def adamw_decays_apart() -> None:
    """With no gradient AdamW multiplies by 1 − η λ."""
    w = nn.Parameter([4.0])
    w.grad = [0.0]
    optim.AdamW([w], lr=0.5, weight_decay=0.5).step()
    expect(w, [3.0])


def momentum_is_a_geometric_sum() -> None:
    """Three equal gradients with momentum ½ move by 1, 1½ and 1¾ times the rate; Nesterov's looks one step ahead."""
    for nesterov, moves in ((False, (1.0, 1.5, 1.75)), (True, (1.5, 1.75, 1.875))):
        w, at = nn.Parameter([0.0]), 0.0
        optimizer = optim.SGD([w], lr=1.0, momentum=0.5, nesterov=nesterov)
        for move in moves:
            w.grad = [1.0]
            optimizer.step()
            at -= move
            expect(w, [at])


def rmsprop_divides_by_the_root_mean_square() -> None:
    """The first step is η g/(√((1 − α) g²) + ε)."""
    w = nn.Parameter([0.0, 0.0])
    w.grad = [2.0, -0.5]
    optim.RMSprop([w], lr=0.1, alpha=0.75, eps=0.5).step()
    expect(w, [-0.1 * 2.0 / (1.0 + 0.5), 0.1 * 0.5 / (0.25 + 0.5)])


def clipping_leaves_the_norm_asked_for() -> None:
    """After clipping at 2 a gradient of norm 5 has norm 2 and its direction; one of norm 1 is untouched."""
    w = nn.Parameter([0.0, 0.0])
    w.grad = [3.0, 4.0]
    assert optim.clip_grad_norm([w], 2.0) == 5.0
    expect(w.grad, [1.2, 1.6])
    w.grad = [0.6, 0.8]
    optim.clip_grad_norm([w], 2.0)
    expect(w.grad, [0.6, 0.8])


def layer_norm_gives_mean_0_and_variance_1() -> None:
    """Each row comes out with mean 0 and variance 1."""
    out = nn.LayerNorm(3)(X * 1000.0).value
    expect(out.mean(-1), np.zeros(3))
    np.testing.assert_allclose(out.var(-1), np.ones(3), rtol=1e-6)


def dropout_keeps_the_mean() -> None:
    """What is kept is divided by the probability of being kept."""
    out = nn.Dropout(0.75, rng=0)(np.ones(20_000)).value
    assert set(np.unique(out)) == {0.0, 4.0}
    assert abs(out.mean() - 1.0) < 0.05


def an_lstm_is_its_equations() -> None:
    """One step of the LSTM in plain NumPy, gates in the order input, forget, candidate, output."""
    cell = nn.LSTMCell(2, 2, rng=0)
    x, h, c = S[0], S[1], S[2]
    a = x @ cell.weight_ih.value.T + h @ cell.weight_hh.value.T + cell.bias.value
    i, f, g, o = (a[:, 2 * k : 2 * k + 2] for k in range(4))
    i, f, g, o = 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), np.tanh(g), 1 / (1 + np.exp(-o))
    found = cell(x, (h, c))
    expect(found.cell, f * c + i * g)
    expect(found.hidden, o * np.tanh(f * c + i * g))


def a_gru_is_its_equations() -> None:
    """One step of the GRU with the reset after the product: z keeps the past."""
    cell = nn.GRUCell(2, 2, rng=0)
    x, h = S[0], S[1]
    fed, back = x @ cell.weight_ih.value.T + cell.bias.value, h @ cell.weight_hh.value.T
    r, z = (1 / (1 + np.exp(-(fed[:, k : k + 2] + back[:, k : k + 2]))) for k in (0, 2))
    n = np.tanh(fed[:, 4:] + r * (back[:, 4:] + cell.bias_hn.value))
    expect(cell(x, h).hidden, (1 - z) * n + z * h)


def a_gru_of_pytorch_is_its_equations() -> None:
    """Two biases of random numbers, in PyTorch's layout: those of r and z are added up, that of the candidate's product stays inside r ⊙ …"""
    numbers = np.random.default_rng(1)
    sizes = {"weight_ih": (6, 2), "weight_hh": (6, 2), "bias_ih": 6, "bias_hh": 6}
    w_ih, w_hh, b_ih, b_hh = weights = [numbers.normal(size=size) for size in sizes.values()]
    layer = nn.GRU(2, 2, rng=0)
    layer.load_state_dict(nn.interop.from_torch({f"{name}_l0": value for name, value in zip(sizes, weights, strict=True)}))
    x, h = S[0], S[1]
    fed, back = x @ w_ih.T + b_ih, h @ w_hh.T + b_hh
    r, z = (1 / (1 + np.exp(-(fed[:, k : k + 2] + back[:, k : k + 2]))) for k in (0, 2))
    n = np.tanh(fed[:, 4:] + r * back[:, 4:])
    expect(layer(x[None], h[None])[0][0], (1 - z) * n + z * h)


def picture(out: Any) -> Any:
    return build.build(tg.trace(out), rolled=False, window=None, ends=9, fold_routes=False, max_nodes=999)


def an_edge_shows_its_gain() -> None:
    """On the way back through y = (3, 5) ⊙ x the longest cotangent grows fivefold, and the edge says so."""
    x = tg.tensor([[1.0, 1.0], [1.0, 1.0]], True)
    rows = [x[k] * float(factor) for k, factor in enumerate((3, 5))]
    gains = sorted((edge.low, edge.high) for edge in picture(tg.sum(tg.stack(rows))).edges if edge.kind == "scale")
    expect(gains, [(3.0, 3.0), (5.0, 5.0)])


def a_picture_goes_back_in_time() -> None:
    """Four steps of an RNN: every edge that crosses from step to step goes back by one."""
    crossing = [edge.back for edge in picture(small(nn.RNN)(S)[0][-1].sum()).edges if edge.back is not None]
    assert set(crossing) == {1} and len(crossing) == 3


def stretches_add_up() -> None:
    """A kernel that works through a sequence in many stretches has the gradients of its definition."""
    before, kernels.STRETCH = kernels.STRETCH, 64
    try:
        laws.kernel_equals_definition(small(nn.RNN), S)
    finally:
        kernels.STRETCH = before


def padding_changes_nothing() -> None:
    """A short sequence in a padded batch is that sequence by itself: outputs, state and gradient."""
    layer = small(nn.LSTM)
    layer_of_one = [tg.tensor(S[:2, 1:], True), tg.tensor(S, True)]
    alone, (hidden, _) = layer(layer_of_one[0])
    batch, (hiddens, _) = layer(layer_of_one[1], lengths=LENGTHS)
    expect(batch.value[:2, 1:], alone.value)
    expect(batch.value[2:, 1], np.zeros((2, 2)))
    expect(hiddens.value[:, 1:], hidden.value)
    hidden.sum().backward()
    hiddens[:, 1:].sum().backward()
    expect(layer_of_one[1].grad.value[:2, 1:], layer_of_one[0].grad.value)


def a_highway_adds_its_ways_up() -> None:
    """Two ways without a matrix from state to state, ⊙ 0.5 and ⊙ sigmoid(a): the factor of a step is their sum, the direct part the product."""
    h, w = tg.tensor(Y[:1], True), tg.tensor(MATRIX, True)
    gates = []
    for t in (1, 2, 3):
        with tg.scope("mine", time=t):
            gates.append(tg.sigmoid(tg.tensor(X[:1] * t, True)))
            h = tg.landmark(h * 0.5 + h * gates[-1] + (h @ w) * 0.0, "h", "hidden")
    found = flow.highway(tg.trace(h.sum()))
    factors = [0.5 + gate.value for gate in gates[:0:-1]]
    expect(found.factor[1:], factors)
    lengths = [np.linalg.norm(product) for product in (np.ones((1, 3)), factors[0], factors[0] * factors[1])]
    expect(found.log10_direct, np.log10(np.array(lengths) / lengths[0]))


def a_cross_entropy_is_its_equation() -> None:
    """The mean of −log softmax at the targets, of those that are not ignored."""
    targets = np.array([2, 0, 1])
    losses = np.log(np.exp(X).sum(1)) - X[np.arange(3), targets]
    expect(functional.cross_entropy(X, targets), losses.mean())
    expect(functional.cross_entropy(X, targets, ignore_index=0), (losses[0] + losses[2]) / 2)


def buffers_are_written_before_they_are_read() -> None:
    """A kernel whose fresh arrays are full of NaN computes what its definition does."""

    class Fresh:
        """NumPy, with arrays that show whether anyone reads them."""

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def empty(self, shape: Any, dtype: Any = float) -> Any:
            return np.frombuffer(b"\xff" * np.zeros(shape, dtype).nbytes, dtype).reshape(shape).copy()

    with mock.patch.object(kernels, "np", Fresh()), mock.patch.object(kernels, "_scratch", kernels._Scratch()):
        for layer in (RNN, LSTM, GRU, small(nn.GRU, reset="before")):
            laws.kernel_equals_definition(layer, S, lengths=SHORT)


def an_opened_layer_reads_no_padding() -> None:
    """Traced, a layer of NaN-padded sequences has finite contributions throughout."""
    padded = np.where((np.arange(4)[:, None] >= SHORT)[..., None], np.nan, S)
    ledger = tg.trace(small(nn.RNN)(tg.tensor(padded, True), lengths=SHORT)[0].sum())
    assert all(np.isfinite(gradient).all() for gradient in ledger.gradients.values())


def traced(kind: Any, **options: Any) -> Any:
    layer = kind(2, 2, rng=0, **options)
    return layer, tg.trace(layer(S)[0][-1].sum())


def an_rnn_has_no_highway_and_an_lstm_has_its_forget_gate() -> None:
    """Every way from state to state of an RNN passes a matrix; an LSTM's direct one multiplies by f alone."""
    assert not flow.highway(traced(nn.RNN)[1]).exists
    _, ledger = traced(nn.LSTM)
    found = flow.highway(ledger)
    forget = [at.gates["forget"].value for at in ledger.states("lstm")][::-1]
    for k in range(1, 4):
        expect(found.factor[k], forget[k - 1])


def the_vanishing_product_is_a_ratio_of_norms() -> None:
    """gain = ‖δ_{t−1}‖/‖δ_t‖ = saturation · weight, and log₁₀ of the product is that of the norms; σ_max is NumPy's."""
    layer, ledger = traced(nn.RNN)
    found = flow.vanishing_product(ledger)
    norms = [np.linalg.norm(at.hidden.cotangent) for at in ledger.states("rnn")][::-1]
    expect(found.gain[1:], np.array(norms[1:]) / norms[:-1])
    expect(found.saturation[1:] * found.weight[1:], found.gain[1:])
    expect(found.log10_product, np.log10(np.array(norms) / norms[0]))
    expect(found.largest_singular_value, np.linalg.svd(layer.weight_hh_l0.value)[1][0])


def a_gate_at_f_has_the_timescale_of_f() -> None:
    """A forget gate that stays at 0.9 remembers for −1/ln 0.9 steps; half of it for ln 2 of these."""
    layer = small(nn.LSTM)
    for parameter in layer.parameters():
        parameter.value = np.zeros(parameter.shape)
    layer.bias_l0.value = np.repeat([0.0, np.log(9.0), 0.0, 0.0], 2)
    found = flow.timescales(tg.trace(layer(S)[0][-1].sum()))
    expect(found.timescale, np.full(2, -1 / np.log(0.9)))
    expect(found.half_life, np.full(2, -np.log(2) / np.log(0.9)))


def omega_is_the_sum_of_squared_distances_of_gains_from_1() -> None:
    """Ω = Σ (‖δ_t J_t‖/‖δ_t‖ − 1)², for one sequence and a loss that reads the last state."""
    layer = small(nn.RNN)
    loss = layer(S[:, :1])[0][-1].sum()
    gains = flow.vanishing_product(tg.trace(loss)).gain[1:]
    expect(
        flow.omega(loss, layer=layer, squared=False) if "squared" in inspect.signature(flow.omega).parameters else 0, sum((gains - 1) ** 2)
    )


def paths_are_counted() -> None:
    """Four steps of an RNN: one path from the last state to the first, and it crosses three times."""
    _, ledger = traced(nn.RNN)
    split = flow.split_paths(ledger, ledger.states("rnn")[1].hidden, flow.crossing(), bins=5)
    assert split.paths == (0, 0, 0, 1, 0)
    expect(split.contribution[3], split.gradient)


def a_switched_scope_is_left() -> None:
    """What is recorded after a scope lies outside of it."""
    with tg.scope("inside", time=3):
        inside = tg.tanh(tg.tensor(1.0, True))
    outside = tg.tanh(tg.tensor(1.0, True))
    assert (inside.node.scope.path, outside.node.scope) == ("inside", None)


def mixed_uses(x: Any) -> Any:
    """One operand used whole, by index, by a repeated index, and through a diamond."""
    y = x * x
    return y[0] * 2.0 + y[np.array([1, 1])].sum(0) + (y + y * x).sum() + y


def dense_then_parts(x: Any) -> Any:
    """An index after a dense use, so that the part meets an array that is there."""
    y = tg.sin(x)
    part = y[0]
    return (part * part).sum() + (y * 3.0).sum()


def chained(x: Any, m: Any) -> Any:
    return tg.tanh(x @ m) @ m


def stacked_matrices(x: Any, m: Any) -> Any:
    """A stack of matrices and one that all of them share."""
    return tg.stack([x, x * 2.0]) @ m


# -- the table ---------------------------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """One substitution in one function."""

    name: str
    place: Any
    old: str
    new: str
    law: Law


LSTM, GRU, RNN = small(nn.LSTM), small(nn.GRU), small(nn.RNN)
BEFORE = small(nn.GRU, reset="before")
START = np.random.default_rng(1).normal(size=(1, 2, 2))
TIES = np.array([[1.0, 1.0, 0.2], [0.5, 1.5, 1.5]])
TWO_WAYS = small(nn.LSTM, bidirectional=True)
HIGHWAY = flow.highway.__globals__
MAPS = '__import__("tinygrad_rnn.linear_maps", fromlist=["maps"])'

FAULTS = [
    # rules of primitives
    Fault("tanh′ = 1 + y²", rule("tanh"), "1.0 - out * out", "1.0 + out * out", law(laws.complex_step, tg.tanh, X)),
    Fault("σ′ without the factor σ", rule("sigmoid"), "out * (1.0 - out)", "(1.0 - out)", law(gradcheck, tg.sigmoid, X)),
    Fault("cos′ without its sign", rule("cos"), "-sin(x)", "sin(x)", law(gradcheck, tg.cos, X)),
    Fault("a quotient's second share divided by the numerator", rule("divide"), "-out / x2", "-out / x1", law(gradcheck, tg.divide, X, Y)),
    Fault("a power without its exponent as factor", rule("power"), "x2 * power(", "power(", law(gradcheck, tg.power, Y, X)),
    Fault("a product's factors exchanged", rule("multiply"), "Scale(x2", "Scale(x1", law(gradcheck, tg.multiply, X, Y)),
    Fault("a difference without its −1", rule("subtract"), "NEGATE", "IDENTITY", law(gradcheck, tg.subtract, X, Y)),
    Fault("relu switched at 1", rule("relu"), "x > 0", "x > 1", law(gradcheck, tg.relu, X)),
    Fault("exp with a factor that the tape does not see", rule("exp"), "Scale(out,", 'Scale(getattr(out, "value", out),', law(gradgradcheck, tg.exp, X)),
    Fault("a rule that differs on arrays and Tensors", rule("log1p"), "1.0 + x", '(1.0 if hasattr(x, "node") else 2.0) + x', law(laws.agreement, tg.log1p, Y)),
    Fault("the smaller one gets the gradient of a maximum", rule("maximum"), "_share(x2, x1)", "_share(x1, x2)", law(gradcheck, tg.maximum, X, Y)),
    Fault("both branches of a choice get the gradient", rule("select"), "Mask(~condition", "Mask(condition", law(gradcheck, lambda x, y: tg.where(X > 0, x, y), X, Y)),
    Fault("a scale that calls itself a route", rule("log"), "Scale(1.0 / x,", f"{MAPS}.Route(lambda u: u / x, lambda g: g / x,", law(laws.kinds, tg.log, Y)),
    Fault("a label that names an operand which is not there", rule("softplus"), "σ({0})", "σ({1})", law(laws.labels, tg.softplus, X)),
    Fault("one map too many", rule("square"), '"⊙ 2{0}"),)', '"⊙ 2{0}"), Scale(x))', law(laws.fitting, tg.square, X)),
    Fault("a float64 constant in a rule", rule("expm1"), "exp(x)", "exp(x) * np.float64(1.0)", law(laws.precision, tg.expm1, X)),
    Fault("a rule that writes to its operand", rule("sin"), "return (", "x *= 1.5; return (", law(laws.purity, tg.sin, X)),
    Fault("a product's matrix on the wrong side", rule("matmul"), '"right"', '"left"', law(gradcheck, tg.matmul, X, MATRIX)),
    Fault("a shared matrix's gradient not summed over the stack", rule("matmul"), "flat=shared", "flat=False", law(gradcheck, stacked_matrices, X, MATRIX)),
    Fault("the adjoint of a sum halves", reduction._spread, "return _broadcast_to(", "return 0.5 * _broadcast_to(", law(laws.adjoint, tg.sum, X)),
    Fault("a running sum's adjoint runs forward", rule("cumsum"), "partial(_suffix_sum", "partial(_cumsum", law(laws.adjoint, tg.cumsum, X, axis=0)),
    Fault("a transpose undone by itself", rule("transpose"), "axes=inverse", "axes=axes", law(gradcheck, lambda x: tg.transpose(x, (1, 2, 0)), S)),
    Fault("a broadcast that is not summed but averaged", rule("broadcast_to"), "partial(_sum_to, shape=x.shape)", "lambda g: _sum_to(g, shape=x.shape) / 2.0", law(gradcheck, lambda x: x + np.zeros((2, 3, 3)), X)),
    Fault("every part of a concatenation reads the first place", rule("concatenate"), "start = stop", "start = 0", law(gradcheck, lambda x, y: tg.concatenate([x, y]), X, Y)),
    Fault("every part of a stack reads the first place", rule("stack"), "(*lead, position)", "(*lead, 0)", law(gradcheck, lambda x, y: tg.stack([x, y]), X, Y)),
    Fault("each of several largest gets the whole", rule("peak"), "hit / hit.sum(axis=axis, keepdims=True)", "1.0 * hit", law(gradcheck, tg.max, TIES, axis=1)),
    Fault("√ with its derivative upside down", rule("sqrt"), "0.5 / out", "0.5 * out", law(gradcheck, tg.sqrt, Y)),
    Fault("|x| that rises everywhere", rule("abs"), "np.sign(x)", "np.sign(x) ** 2", law(gradcheck, tg.absolute, X)),
    Fault("the second order of a broadcast counted twice", rule("sum_to"), "partial(_broadcast_to, shape=x.shape)", "lambda g: 2.0 * _broadcast_to(g, shape=x.shape)", law(gradgradcheck, lambda x, y: x * y, X, Y[0])),
    Fault("every output of a kernel reads the first one's cotangent", rule("item"), "partial(_place_part, index=index", "partial(_place_part, index=0", law(gradcheck, small(nn.LSTM), S)),
    # linear maps
    Fault("a diagonal whose forward mode is the identity", linear_maps.Scale.pushforward, "tangent * self.factor", "tangent * 1.0", law(laws.adjoint, tg.tanh, X)),
    Fault("forward mode with a factor that the tape does not see", linear_maps.Scale.pushforward, "tangent * self.factor", 'tangent * getattr(self.factor, "value", self.factor)', law(laws.second_modes, tg.tanh, X)),
    Fault("a matrix not transposed", linear_maps.MatMul.pullback, "cotangent @ matrix.swapaxes(-1, -2)", "cotangent @ matrix", law(gradcheck, chained, X, MATRIX)),
    Fault("a matrix transposed in forward mode", linear_maps.MatMul.pushforward, "tangent @ self.matrix", "tangent @ self.matrix.T", law(laws.adjoint, chained, X, MATRIX)),
    Fault("a mask that multiplies by 0", linear_maps.Mask.pullback, "np.where(self.factor, cotangent, 0.0)", "cotangent * self.factor", law(a_choice_leaks_nothing)),
    Fault("an entry picked twice gets one share", linear_maps.add_at, "np.add.at(array, key, part)", "array[key] += part", law(gradcheck, lambda x: x[np.array([0, 0, 2])], X)),
    # the engine
    Fault("a second contribution takes the first one's place", walk.Backward._accumulate, "= held + contribution", "= contribution", law(gradcheck, mixed_uses, X)),
    Fault("the engine adds in place to arrays of others", walk.Backward._accumulate, "elif operand.order in self.owned:", "elif True:", law(gradcheck, mixed_uses, X)),
    Fault("an operand has its turn before all have contributed", walk.Backward._multiply, "heappush(queue, (-operand.order", "heappush(queue, (operand.order", law(gradcheck, mixed_uses, X)),
    Fault("a part forgets the array that was there", walk.Backward._scatter, "whole += held", "pass", law(gradcheck, dense_then_parts, X)),
    Fault("a recorded part forgets the cotangent that was there", walk.Backward._placed, "placed if cotangent is None else cotangent + placed", "placed", law(laws.modes, dense_then_parts, X)),
    Fault("forward mode keeps the last operand's tangent only", walk._pushed, "total + pushed", "pushed", law(laws.adjoint, tg.multiply, X, Y)),
    Fault("a stale leaf is not noticed", walk._refuse_stale, "node.stale", "False", law(a_rebound_leaf_is_refused)),
    Fault("what a hook returns is dropped", walk._run_hooks, "cotangent = _fitting(", "_fitting(", law(hooks_replace)),
    Fault("what an intervention returns is dropped", walk.Backward._attend, "contribution = _fitting(", "_fitting(", law(interventions_replace)),
    Fault("a checkpoint's second value is not compared", walk.expand, "np.array_equal(m.value, h, equal_nan=True)", "True", law(a_checkpoint_must_repeat_itself)),
    Fault("the switches stay as a pass has set them", walk.Backward.run, "state.recording, state.scope, state.anomaly, state.sources = switches", "pass", law(the_engine_is_whole)),
    Fault("gradients are set, not added", tg.Tensor.backward, "old._value + gradient._value", "gradient._value", law(backward_accumulates)),
    Fault("a norm whose squares may underflow", steps._careful_norms, "np.where((peak > 0) & (peak < math.inf), peak, 1.0)", "np.ones_like(peak)", law(gains_are_ratios_of_norms)),
    Fault("a scope that stays open", tg.scope.__exit__, ".closed = True", ".closed = False", law(a_switched_scope_is_left)),
    Fault("a Jacobian with columns of outputs", transforms.jacobian, "stack(rows, axis=-1)", "stack(rows, axis=0)", law(the_jacobian_has_rows_of_outputs)),
    Fault("an index whose recorded adjoint places nothing twice", routing.scatter.forward, "add_at(placed, key, part)", "placed[key] = part", law(gradgradcheck, lambda x: tg.square(x)[np.array([0, 0, 2])], X)),
    # kernels
    Fault("the RNN's kernel with W_hh transposed", kernels._RNN._backward, "np.dot(pre, self.hh, out=flow)", "np.dot(pre, self.hh.T, out=flow)", law(laws.kernel_equals_definition, RNN, S)),
    Fault("the RNN's kernel with the wrong time index", kernels._RNN._backward, "self.hidden[first:last], rows", "self.hidden[first + 1 : last + 1], rows", law(laws.kernel_equals_definition, RNN, S)),
    Fault("the RNN's kernel without tanh′", kernels._Tanh._derivative, "np.subtract(1.0, square, out=square)", "np.subtract(1.0, 0.0, out=square)", law(gradcheck, RNN, S)),
    Fault("the LSTM's kernel without the forget gate on its highway", kernels._LSTM._backward, "np.multiply(on_c, forgets[t], out=on_c)", "pass", law(laws.step_jacobian_order, LSTM, S[:, :1])),
    Fault("the LSTM's kernel with 1 − o tanh² for o (1 − tanh²)", kernels._LSTM._derivatives, "np.subtract(o, through", "np.subtract(1.0, through", law(laws.kernel_equals_definition, LSTM, S)),
    Fault("the LSTM's candidate without its input gate", kernels._LSTM._derivatives, "local[:, 3] *= i", "pass", law(gradcheck, LSTM, S)),
    Fault("the LSTM's kernel without what the outputs hand in", kernels._Run.backward, "np.add(hidden[t], outputs[t], out=hidden[t])", "pass", law(laws.kernel_equals_definition, LSTM, S)),
    Fault("the LSTM's kernel without the final state's cotangent", kernels._Run.backward, "0.0 if given is None else self._sorted(given)", "0.0", law(laws.kernel_equals_definition, LSTM, S)),
    Fault("the kernel's gates in the wrong order", kernels._Run._natural, "-self.size", "self.size", law(laws.kernel_equals_definition, LSTM, S)),
    Fault("the second direction does not turn back", kernels._Run._rearranged, "sequence[::-1] if self.reverse else sequence", "sequence", law(laws.kernel_equals_definition, TWO_WAYS, S)),
    Fault("rows that have ended do not keep their state", kernels._Run._hold, "state[step + 1, count:] = state[step, count:]", "state[step + 1, count:] = 0.0", law(padding_changes_nothing)),
    Fault("the GRU's kernel with 1 − z for z", kernels._GRUAfter._backward, "np.multiply(flow, updates[t], out=flow)", "np.multiply(flow, 1.0 - updates[t], out=flow)", law(laws.kernel_equals_definition, GRU, S)),
    Fault("the GRU's kernel without b_hn's share", kernels._GRUAfter._backward, "shares.on_bias_hn += rows[..., 3 * size :].sum((0, 1))", "pass", law(laws.kernel_equals_definition, GRU, S)),
    Fault("a kernel's weights set, not added, from stretch to stretch", kernels._add_product, "total += ", "total[...] = ", law(stretches_add_up)),
    Fault("a final state's cotangent in the order of the batch, not of the kernel", kernels._Run.backward, "self._sorted(given)", "given", law(laws.kernel_equals_definition, LSTM, S, lengths=SHORT)),
    Fault("an initial state's gradient in the kernel's order", kernels._Run.backward, "*(self._unsorted(part) for part in flowing)", "*(part.copy() for part in flowing)", law(laws.batch_additivity, LSTM, S, (START, START), lengths=SHORT)),
    Fault("rows of padding that are not 0", kernels._Run._rows, "np.copyto(rows, 0.0, where=~self.active[first:last])", "pass", law(buffers_are_written_before_they_are_read)),
    Fault("a kernel that multiplies what stands in the padding by 0", kernels._Run.__init__, "np.copyto(self.fed, 0.0, where=~self.active)", "pass", law(laws.padding, RNN, S, lengths=SHORT, fill=np.nan)),
    Fault("r ⊙ h of padding that nobody wrote", kernels._GRUBefore._forward, "np.copyto(blocks[:, 3], 0.0, where=~self.active)", "pass", law(buffers_are_written_before_they_are_read)),
    Fault("the other GRU's kernel without its reset gate on the way back", kernels._GRUBefore._backward, "np.multiply(product, resets[t], out=product)", "pass", law(laws.kernel_equals_definition, BEFORE, S)),
    Fault("the other GRU's kernel with h for r ⊙ h", kernels._GRUBefore._backward, "self.blocks[first:last, 3], rows", "self.hidden[first:last], rows", law(gradcheck, BEFORE, S)),
    # layers
    Fault("outputs beyond the end of a sequence", recurrence.unroll, "ops.where(real, values, 0.0)", "values", law(laws.kernel_equals_definition, RNN, S, lengths=SHORT)),
    Fault("a step that reads the padding", recurrence.Recurrence.step, "x if active is None else ops.where(active, x, 0.0)", "x", law(an_opened_layer_reads_no_padding)),
    Fault("dropout that does not make up for what is dropped", regularization.Dropout.forward, "1.0 / (1.0 - self.p)", "1.0", law(dropout_keeps_the_mean)),
    Fault("LayerNorm's variance about 0", regularization.LayerNorm.forward, "ops.square(centred)", "ops.square(x)", law(layer_norm_gives_mean_0_and_variance_1)),
    Fault("a mean over targets that are ignored", functional.cross_entropy, "int(np.sum(~ignored))", "labels.size", law(a_cross_entropy_is_its_equation)),
    Fault("the update gate the other way round", recurrence._gru_step, "fresh * n + z * past.hidden", "z * n + fresh * past.hidden", law(a_gru_is_its_equations)),
    Fault("the LSTM's input and forget gates exchanged", recurrence._lstm_step, "f * past.cell + i * g", "i * past.cell + f * g", law(an_lstm_is_its_equations)),
    Fault("padding lets the state go on", recurrence._held, "fresh if active is None else ops.where(active, fresh, past)", "fresh", law(laws.kernel_equals_definition, LSTM, S, lengths=LENGTHS)),
    Fault("an unrolled layer that cannot run backward in time", recurrence.unroll, "reversed(range(steps)) if reverse else range(steps)", "range(steps)", law(laws.kernel_equals_definition, TWO_WAYS, S)),
    Fault("LayerNorm divides by the variance", regularization.LayerNorm.forward, "ops.sqrt(variance + self.eps)", "(variance + self.eps)", law(layer_norm_gives_mean_0_and_variance_1)),
    # optimisers
    Fault("Adam without the correction of its first mean", optim.Adam._change, "self.lr / (1 - self.beta1**t)", "self.lr / 1", law(adam_is_algorithm_1)),
    Fault("Adam with |g| for g²", optim.Adam._change, "(g * g)", "abs(g)", law(adam_is_algorithm_1)),
    Fault("Adam without the root of the second correction", optim.Adam._change, "math.sqrt(1 - self.beta2**t)", "(1 - self.beta2**t)", law(adam_is_algorithm_1)),
    Fault("Adam's corrections one step late", optim.Optimizer._step, "self._steps[name] + 1, buffers", "self._steps[name] + 2, buffers", law(adam_is_algorithm_1)),
    Fault("Adam with its two decays exchanged", optim.Adam._change, "self.beta1 * buffers", "self.beta2 * buffers", law(adam_is_algorithm_1)),
    Fault("weight decay that pushes away", optim.Optimizer._decayed, "g + self.weight_decay", "g - self.weight_decay", law(weight_decay_is_a_pull_to_0)),
    Fault("AdamW that grows its weights", optim.AdamW.update, "1 - self.lr", "1 + self.lr", law(adamw_decays_apart)),
    Fault("momentum as a mean", optim.SGD.update, '["momentum_buffer"] + g', '["momentum_buffer"] + (1 - self.momentum) * g', law(momentum_is_a_geometric_sum)),
    Fault("Nesterov that does not look ahead", optim.SGD.update, "g + self.momentum * b if self.nesterov else b", "b", law(momentum_is_a_geometric_sum)),
    Fault("RMSprop's ε inside of the root", optim.RMSprop.update, "(np.sqrt(v) + self.eps)", "np.sqrt(v + self.eps)", law(rmsprop_divides_by_the_root_mean_square)),
    Fault("clipping by the square of the norm", optim._clipped, "limit / root", "limit / (root * root)", law(clipping_leaves_the_norm_asked_for)),
    # analyses
    Fault("a highway through a matrix", flow.highway_steps.__globals__["_found"], 'step.kind != "matmul"', "True", law(an_rnn_has_no_highway_and_an_lstm_has_its_forget_gate)),
    Fault("a highway that keeps the last of its ways", HIGHWAY["_factor"], "held + share", "share", law(a_highway_adds_its_ways_up)),
    Fault("a direct part of the last step alone", flow.highway, "signal = signal + log10(", "signal = log10(", law(a_highway_adds_its_ways_up)),
    Fault("gains in powers of e", flow.vanishing_product, "10.0 ** np.diff(logs)", "np.exp(np.diff(logs))", law(the_vanishing_product_is_a_ratio_of_norms)),
    Fault("the Frobenius norm as σ_max", flow.vanishing_product, "np.linalg.norm(matrix, 2)", "np.linalg.norm(matrix)", law(the_vanishing_product_is_a_ratio_of_norms)),
    Fault("a timescale to the base 2", flow.timescales, "-1.0 / np.log(mean)", "-1.0 / np.log2(mean)", law(a_gate_at_f_has_the_timescale_of_f)),
    Fault("BPTT entries that keep the last use only", bptt._one_entry, "total = total + uses", "total = 0.0 + uses", law(laws.itemised_sums, small(nn.GRU, reset="before"), S)),
    Fault("the local part counted twice", bptt._Account.divide, "part += self.at_leaf(", "part += 2.0 * self.at_leaf(", law(laws.itemised_sums, RNN, S)),
    Fault("a stack of cotangents times W for Wᵀ", stacks._pull_matrix, "@ matrix.T", "@ matrix", law(laws.itemised_sums, RNN, S)),
    Fault("paths that are counted once per bin", paths._count, "[1, *none[1:]]", "[1] * bins", law(paths_are_counted)),
    Fault("step Jacobians that drop a diagonal", jacobians._Rows.add, "held + entries", "entries", law(laws.step_jacobian_order, GRU, S[:, :1])),
    Fault("a time axis the wrong way round", flow.vanishing_product, "np.array(norms[last::-1])", "np.array(norms[: last + 1])", law(the_vanishing_product_is_a_ratio_of_norms)),
    Fault("a cut that is one step late", flow.cut_time, "min(step.time, step.operand.time)", "max(step.time, step.operand.time)", law(laws.truncation, RNN, S)),
    # interop and pictures
    Fault("PyTorch's second bias of the gates is lost", nn.interop._biases, "first[: 2 * size] + second[: 2 * size]", "first[: 2 * size]", law(a_gru_of_pytorch_is_its_equations)),
    Fault("the candidate's two biases of PyTorch exchanged", nn.interop._biases, "first[2 * size :]])", "second[2 * size :]])", law(a_gru_of_pytorch_is_its_equations)),
    Fault("one bias for a GRU of PyTorch's, like the others", nn.interop._biases, "second[2 * size :].copy()", "0.0 * second[2 * size :]", law(a_gru_of_pytorch_is_its_equations)),
    Fault("a picture's edge without its gain", build.Sketch.finished, "(min(gains), max(gains))", "(1.0, 1.0)", law(an_edge_shows_its_gain)),
    Fault("a picture whose time runs forward", build.Sketch.back, "source[1] - target[1]", "target[1] - source[1]", law(a_picture_goes_back_in_time)),
    Fault("Ω with its gains upside down", flow.omega.__globals__["_terms"], "ops.where(counts, after, 1.0) / ops.where(counts, before, 1.0)", "ops.where(counts, before, 1.0) / ops.where(counts, after, 1.0)", law(omega_is_the_sum_of_squared_distances_of_gains_from_1)),
]  # fmt: skip


# -- planting ----------------------------------------------------------------------------------------------------------------------


def code_with(function: Any, old: str, new: str) -> types.CodeType:
    """The code of a function whose source has one substitution."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} holds {old!r} {source.count(old)} times; the table is out of date"
    definition: Any = ast.parse(source.replace(old, new)).body[0]
    definition.decorator_list = []
    flags = __future__.annotations.compiler_flag
    whole = compile(ast.Module([definition], []), inspect.getsourcefile(function) or "", "exec", flags=flags, dont_inherit=True)
    return next(code for code in whole.co_consts if isinstance(code, types.CodeType) and code.co_name == definition.name)


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The package with the fault in place; the same function objects with other code, so that whoever holds one has the fault."""
    before = fault.place.__code__
    fault.place.__code__ = code_with(fault.place, fault.old, fault.new)
    try:
        yield
    finally:
        fault.place.__code__ = before
        state.recording, state.scope, state.anomaly, state.sources = True, None, False, False


def verdict(fault: Fault) -> str:
    """What the law says of the package with the fault: the first line of its error, or nothing if the fault survives."""
    with planted(fault), np.errstate(all="ignore"):
        try:
            fault.law.check()
        except (AssertionError, tg.errors.TinygradError, pytest.fail.Exception) as error:
            return (str(error).strip() or fault.law.name).splitlines()[0]
        except (ValueError, TypeError, IndexError, RuntimeWarning) as error:
            return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_the_law_finds_the_fault(fault: Fault) -> None:
    """The law holds, is broken by the fault, and holds again."""
    fault.law.check()
    assert verdict(fault), f"survived: {fault.name}, in {fault.place.__qualname__}, which {fault.law.name} should find"
    fault.law.check()


def test_the_table_is_large_and_says_everything_once() -> None:
    """At least 40 faults, of different names and substitutions, in every part of the package that computes a derivative."""
    assert len({fault.name for fault in FAULTS}) == len({(fault.place, fault.new) for fault in FAULTS}) == len(FAULTS) >= 40
    rooms = {fault.place.__module__.removeprefix("tinygrad_rnn.").split(".")[0] for fault in FAULTS}
    assert rooms >= {"ops", "linear_maps", "walk", "nn", "optim", "flow", "transforms", "tensor", "graph", "steps"}


def table() -> str:
    """The faults, where they are planted, the law that finds each, and what it says."""
    rows = [("fault", "place", "law", "what it says")]
    for fault in FAULTS:
        place = f"{fault.place.__module__.removeprefix('tinygrad_rnn.')}.{fault.place.__qualname__}"
        rows.append((fault.name, place, fault.law.name, verdict(fault)[:90] or "SURVIVED"))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, (*widths, 0), strict=True)).rstrip() for row in rows)


if __name__ == "__main__":
    print(table())
