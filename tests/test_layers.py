"""Layers without recurrence: containers, dropout, norms, ways around a layer, attention; and how weights begin.

Each is held to plain NumPy, its derivatives to central differences, and its place in the backward graph to what its docstring says.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.nn import init
from tinygrad_rnn.testing import gradcheck, gradgradcheck

SMOOTH: dict[str, Callable[..., Any]] = {
    "sequential": lambda **o: nn.Sequential(nn.Linear(4, 3, **o), np.tanh, nn.Linear(3, 4, **o)),
    "checkpoint": lambda **o: nn.Checkpoint(nn.Linear(4, 4, **o)),
    "layer_norm": lambda rng=0, **o: nn.LayerNorm(4, **o),
    "residual": lambda **o: nn.Residual(nn.Linear(4, 4, **o)),
    "dense": lambda **o: nn.DenseBlock(4, 2, 3, activation=tg.tanh, **o),
    "highway": lambda **o: nn.Highway(4, activation=tg.tanh, **o),
    "position": lambda rng=0, **o: nn.Sequential(nn.PositionalEncoding(4), nn.LayerNorm(4, **o)),
    "attention": lambda **o: nn.SelfAttention(4, 2, **o),
    "causal": lambda **o: nn.SelfAttention(4, 2, causal=True, **o),
    "block": lambda **o: nn.TransformerBlock(4, 2, 3, causal=True, activation=tg.tanh, **o),
    "post-norm": lambda **o: nn.TransformerBlock(4, 2, 3, norm_first=False, activation=tg.tanh, **o),
}
"""Layers of (T, B, 4), by name; every derivative of theirs exists."""
layers = pytest.mark.parametrize("name", SMOOTH)


def data(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def weights(module: nn.Module) -> dict[str, Any]:
    """The values by dotted name, moved off their beginnings so that no bias is 0 and no γ is 1."""
    for k, parameter in enumerate(module.parameters()):
        parameter.value = parameter.value + 0.1 * data(*parameter.shape, seed=k)
    return module.state_dict()


def softmax(scores: Any) -> Any:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# -- all of them ------------------------------------------------------------------------------------------------------------------


@layers
def test_derivatives(name: str) -> None:
    """The first derivatives, with respect to the input and every parameter, are those of the value."""
    module = SMOOTH[name](rng=0)
    weights(module)
    x, factor = data(3, 1, 4), np.arange(1.0, 4.0)[:, None, None]
    gradcheck(module, x)
    for holder, field in [(m, n) for _, m in module.named_modules() for n, v in vars(m).items() if isinstance(v, nn.Parameter)]:
        inside = vars(holder)
        parameter = inside[field]

        def of_parameter(moved: Any, inside: dict[str, Any] = inside, field: str = field) -> Any:
            inside[field] = moved
            return (module(x) * factor).sum()

        gradcheck(of_parameter, parameter.value, rtol=1e-5)
        inside[field] = parameter


@layers
def test_second_derivatives(name: str) -> None:
    """The second derivatives with respect to the input are those of the first."""
    module = SMOOTH[name](rng=0)
    weights(module)
    gradgradcheck(lambda a: (module(a) * np.arange(1.0, 3.0)[:, None, None]).sum(), data(2, 1, 4), rtol=1e-5)


@layers
@pytest.mark.parametrize("shape", [(1, 1, 4), (3, 1, 4), (3, 0, 4), (3, 4)])
def test_shapes_and_precision(name: str, shape: tuple[int, ...]) -> None:
    """One step, one sequence, none, and no batch axis; float32 stays float32 in values and gradients."""
    module = SMOOTH[name](rng=0, dtype="float32")
    x = tg.tensor(data(*shape).astype(np.float32), requires_grad=True)
    y = module(x)
    width = 10 if name == "dense" else 4
    assert y.shape == (*shape[:-1], width)
    assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert all(p.grad.dtype == np.float32 and np.isfinite(p.grad.value).all() for p in module.parameters())


@layers
def test_same_seed_same_bytes(name: str) -> None:
    """A seed decides every byte of the weights; another seed gives others; a plain array is as good an input as a Tensor."""
    one, two = SMOOTH[name](rng=3), SMOOTH[name](rng=3)
    x = data(3, 2, 4)
    assert {k: v.tobytes() for k, v in one.state_dict().items()} == {k: v.tobytes() for k, v in two.state_dict().items()}
    assert one(x).value.tobytes() == two(tg.tensor(x)).value.tobytes()
    if name not in ("layer_norm", "position"):  # which draw nothing
        other = SMOOTH[name](rng=4).state_dict()
        assert any(not np.array_equal(v, other[k]) for k, v in one.state_dict().items())


@layers
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(name: str, duplicate: Any) -> None:
    """A copy computes the same; its state fits the original's."""
    module = SMOOTH[name](rng=0)
    twin = duplicate(module)
    x = data(2, 2, 4)
    assert np.array_equal(twin(x).value, module(x).value)
    module.load_state_dict(twin.state_dict())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Sequential(nn.Linear), r"Sequential: layer 0 must be a module or a function .*; did you mean Linear\(…\)\?"),
        (lambda: nn.Sequential(np.tanh, 3), "Sequential: layer 1 must be a module or a function of one Tensor, got 3"),
        (lambda: nn.Sequential(np.tanh)[1], r"Sequential: there is no layer 1; expected one in \[-1, 1\)"),
        (
            lambda: nn.Sequential(nn.LSTM(2, 2), nn.Linear(2, 1))(np.ones((3, 1, 2))),
            r"Sequential: layer 0 \(LSTM\) gave a tuple of 2; .* forward returns self.layer\(x\)\[0\]",
        ),
        (
            lambda: nn.Sequential(nn.GRUCell(2, 2), np.tanh)(np.ones((1, 2))),
            r"Sequential: layer 0 \(GRUCell\) gave GRUState\(hidden\); expected one Tensor",
        ),
        (lambda: nn.Checkpoint(np.tanh), "Checkpoint: expected a Module, got ufunc. For a function use tg.checkpoint"),
        (lambda: nn.Dropout(1.5), "Dropout: p must be a probability from 0 to 1, got 1.5"),
        (lambda: nn.Dropout(-0.1), "Dropout: p must be"),
        (lambda: nn.Dropout(float("nan")), "Dropout: p must be"),
        (lambda: nn.Dropout("half"), "Dropout: p must be"),
        (lambda: nn.Dropout(rng=-1), "rng: expected"),
        (lambda: nn.LayerNorm(0), "LayerNorm: normalized_shape must be a whole number of at least 1, got 0"),
        (lambda: nn.LayerNorm(()), "LayerNorm: normalized_shape must name at least one axis"),
        (lambda: nn.LayerNorm(3, eps=0.0), "LayerNorm: eps must be a number above 0, got 0.0"),
        (lambda: nn.LayerNorm((2, 3))(np.ones((3, 2))), r"LayerNorm: expected x of shape \(…, 2, 3\), got \(3, 2\)"),
        (lambda: nn.LayerNorm(3)(1.0), r"LayerNorm: expected x of shape \(…, 3\), got \(\)"),
        (lambda: nn.Residual(3), "Residual: module must be a module or a function"),
        (
            lambda: nn.Residual(nn.Linear(3, 2))(np.ones((4, 3))),
            r"Residual: Linear turned shape \(4, 3\) into \(4, 2\); expected the same shape",
        ),
        (lambda: nn.Residual(lambda x: x.sum())(np.ones(3)), r"Residual: <lambda> turned shape \(3,\) into \(\)"),
        (lambda: nn.Residual(nn.RNN(2, 2))(np.ones((3, 2))), r"Residual: module \(RNN\) gave a tuple of 2"),
        (lambda: nn.DenseBlock(2, 2, 0), "DenseBlock: layers must be a whole number of at least 1, got 0"),
        (lambda: nn.DenseBlock(2, 2, 1, activation="relu"), "DenseBlock: activation must be a module or a function"),
        (lambda: nn.DenseBlock(2, 2, 1)(np.ones(3)), r"DenseBlock: expected x of shape \(…, 2\), got \(3,\)"),
        (lambda: nn.Highway(2, gate_bias=None), "Highway: gate_bias must be a finite number, got None"),
        (lambda: nn.Highway(2, gate_bias=float("inf")), "Highway: gate_bias must be a finite number, got inf"),
        (lambda: nn.Highway(2)(np.ones(3)), r"Highway: expected x of shape \(…, 2\), got \(3,\)"),
        (lambda: nn.SelfAttention(4, 3), "SelfAttention: 3 heads do not divide size 4"),
        (lambda: nn.SelfAttention(4, 0), "SelfAttention: heads must be a whole number of at least 1, got 0"),
        (lambda: nn.SelfAttention(4)(np.ones(4)), r"SelfAttention: expected x of shape \(T, B, 4\) or \(T, 4\), got \(4,\)"),
        (lambda: nn.SelfAttention(4, batch_first=True)(np.ones((2, 3, 5))), r"SelfAttention: expected x of shape \(B, T, 4\)"),
        (lambda: nn.SelfAttention(4)(np.ones((0, 2, 4))), r"SelfAttention: x of shape \(0, 2, 4\) has no positions"),
        (lambda: nn.SelfAttention(4, batch_first=True)(np.ones((2, 0, 4))), "has no positions"),
        (lambda: nn.SelfAttention(4)(np.ones((3, 2, 4)), [1]), r"SelfAttention: expected lengths of shape \(2,\), .* got \(1,\)"),
        (lambda: nn.SelfAttention(4)(np.ones((3, 2, 4)), [0, 3]), r"lengths must be whole numbers from 1 to 3, .*, got \[0, 3\]"),
        (lambda: nn.SelfAttention(4)(np.ones((3, 2, 4)), [1, 4]), "lengths must be whole numbers from 1 to 3"),
        (lambda: nn.SelfAttention(4)(np.ones((3, 2, 4)), [1.0, 2.0]), "lengths must be whole numbers"),
        (lambda: nn.TransformerBlock(4, 2, 0), "TransformerBlock: hidden must be a whole number of at least 1, got 0"),
        (lambda: nn.TransformerBlock(4, 2, dropout=2), "Dropout: p must be"),
        (
            lambda: nn.PositionalEncoding(4)(np.ones((2, 3))),
            r"PositionalEncoding: expected x of shape \(T, B, 4\) or .* got \(2, 3\)",
        ),
        (lambda: nn.sinusoidal(-1, 2), "sinusoidal: expected a length of at least 0 and a size of at least 1, got -1 and 2"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), "Embedding: indices from 3 to 3; expected 0 to 2"),
        (lambda: nn.Linear(2, 3, init=0.9), r"spectral_radius: only a square block has eigenvalues, got \(3, 2\)"),
        (lambda: init.chrono(1), "chrono: expected a number of steps of at least 2, got 1"),
        (lambda: init.chrono(float("inf")), "chrono: expected a number of steps"),
        (lambda: init.chrono("100"), "chrono: expected a number of steps"),
    ],
)
def test_messages(call: Any, message: str) -> None:
    """What does not fit is named, with what was expected."""
    with pytest.raises(tg.errors.TinygradError, match=message):
        call()


# -- how weights begin ------------------------------------------------------------------------------------------------------------


def test_he() -> None:
    """He's weights are normal with standard deviation √(2/columns), so that ReLU keeps the mean square."""
    weight = init.he((400, 300), np.random.default_rng(0))
    assert weight.std() == pytest.approx(np.sqrt(2 / 300), rel=0.01)
    assert abs(weight.mean()) < 1e-3
    x = data(1000, 300, seed=1)
    after = np.maximum(x @ weight.T, 0.0)
    assert (after**2).mean() == pytest.approx((x**2).mean(), rel=0.03)
    assert init.initializer("he") is init.he
    assert init.he((2, 0), np.random.default_rng(0)).shape == (2, 0)


@pytest.mark.parametrize("longest", [2, 3, 100, 1e6, np.float32(50)])
def test_chrono(longest: float) -> None:
    """exp b_f is uniform in [1, longest − 1]; the same generator state gives the same bytes."""
    biases = init.chrono(longest)(20_000, np.random.default_rng(0))
    u = np.exp(biases)
    assert biases.shape == (20_000,)
    assert biases.min() >= 0.0
    assert u.max() <= (longest - 1) * (1 + 1e-12)
    assert u.mean() == pytest.approx(longest / 2, rel=0.02)
    assert biases.tobytes() == init.chrono(longest)(20_000, np.random.default_rng(0)).tobytes()
    assert init.chrono(longest)(0, np.random.default_rng(0)).shape == (0,)


def test_chrono_covers_the_scales() -> None:
    """A gate that stays at σ(b_f) keeps 1 − 1/(1 + u) of its cell per step: the time constants spread up to the longest."""
    f = oracles.sigmoid(init.chrono(200)(10_000, np.random.default_rng(0)))
    spans = 1 / (1 - f)
    assert spans.min() >= 2.0
    assert spans.max() <= 200.0 + 1e-9
    assert np.median(spans) == pytest.approx(101, rel=0.03)
    assert 1 / (1 - oracles.sigmoid(np.array(1.0))) < 4


@pytest.mark.parametrize("choice", ["uniform", "glorot", "he", "orthogonal", "identity", 0.5])
def test_linear_takes_an_initializer(choice: Any) -> None:
    """``init=`` draws W; b stays uniform in ±1/√in_features."""
    layer = nn.Linear(6, 6, init=choice, rng=5)
    assert np.array_equal(layer.weight.value, init.initializer(choice)((6, 6), np.random.default_rng(5)))
    assert np.abs(layer.bias.value).max() <= 1 / np.sqrt(6)
    assert layer.bias.value.std() > 0
    assert np.array_equal(nn.Linear(3, 2, init=lambda shape, rng: np.full(shape, 7.0)).weight.value, np.full((2, 3), 7.0))


def test_embedding_initializer_and_padding() -> None:
    """``init=`` draws E; the padding symbol's vector begins at 0 and gets exactly no gradient, the others theirs."""
    assert np.array_equal(nn.Embedding(3, 3, init="identity").weight.value, np.eye(3))
    embed = nn.Embedding(4, 2, padding_idx=1, rng=0)
    plain = nn.Embedding(4, 2, rng=0)
    assert np.array_equal(np.delete(embed.weight.value, 1, 0), np.delete(plain.weight.value, 1, 0))
    found = embed([[0, 1], [1, 3]])
    assert np.array_equal(found.value[0, 1], [0.0, 0.0])
    found.backward(np.ones((2, 2, 2)))
    assert embed.weight.grad.value.tolist() == [[1, 1], [0, 0], [0, 0], [1, 1]]
    assert embed(1).shape == (2,)
    assert nn.Embedding(4, 2, padding_idx=1, dtype="float32")([1, 2]).dtype == np.float32
    embed.weight.value = np.ones((4, 2))
    assert embed(1).value.tolist() == [1.0, 1.0]


# -- containers -------------------------------------------------------------------------------------------------------------------


def test_sequential_is_a_list() -> None:
    """Length, order, indices from both ends, iteration, slices; names and scopes are "0", "1", …"""
    first, last = nn.Linear(2, 3, rng=0), nn.Linear(3, 1, rng=1)
    net = nn.Sequential(first, tg.relu, last)
    assert len(net) == 3
    assert list(net) == [first, tg.relu, last]
    assert net[0] is first
    assert net[-1] is last
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    x = data(4, 2)
    expected = np.maximum(x @ first.weight.value.T + first.bias.value, 0) @ last.weight.value.T + last.bias.value
    assert oracles.difference(net(x).value, expected) < 1e-14
    scopes = {step.scope for step in tg.trace(net(x).sum()).steps}
    assert scopes >= {"sequential", "sequential/0", "sequential/2"}
    rest = net[1:]
    assert isinstance(rest, nn.Sequential)
    assert [n for n, _ in rest.named_parameters()] == ["2.weight", "2.bias"]
    assert np.array_equal(rest(first(x)).value, net(x).value)
    assert {step.scope for step in tg.trace(net(x).sum()).steps} == scopes  # a slice renames nothing


def test_sequential_of_many_and_of_none() -> None:
    """More than ten layers stay in order; no layer is the identity; a module may stand twice; the last may give a tuple."""
    shifts = [lambda x, k=k: x * 2.0 + k for k in range(12)]
    expected = 0.0
    for k in range(12):
        expected = expected * 2.0 + k
    assert nn.Sequential(*shifts)(tg.tensor(0.0)).item() == expected
    x = tg.tensor([1.0])
    assert nn.Sequential()(x) is x
    twice = nn.Linear(2, 2, rng=0)
    net = nn.Sequential(twice, twice)
    assert len(list(net.parameters())) == 2
    assert np.array_equal(net(data(1, 2)).value, twice(twice(data(1, 2))).value)
    outputs, state = nn.Sequential(np.tanh, nn.GRU(2, 3, rng=0))(data(4, 2))
    assert outputs.shape == (4, 3)
    assert state.hidden.shape == (1, 3)


def test_deep_stack_is_no_recursion() -> None:
    """Two thousand layers run forward and backward."""
    layer = nn.Residual(nn.Linear(1, 1, init=lambda shape, rng: np.full(shape, 1e-4), bias=False))
    x = tg.tensor([1.0], requires_grad=True)
    nn.Sequential(*[layer] * 2000)(x).backward()
    assert x.grad.item() == pytest.approx(1.0001**2000, rel=1e-12)


# -- dropout ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dropout(dtype: str) -> None:
    """Entries are 0 or x/(1 − p); the gradient is multiplied by the same mask; the precision stays."""
    x = tg.tensor((1.0 + np.arange(2000.0)).reshape(40, 50).astype(dtype), requires_grad=True, name="x")
    y = nn.Dropout(0.2, rng=0)(x)
    mask = y.value / x.value
    zero = mask == 0
    assert zero.mean() == pytest.approx(0.2, abs=0.03)
    np.testing.assert_allclose(mask[~zero], 1.25, rtol=1e-6)
    (step,) = [step for step in tg.trace(y.sum()).steps if step.kind == "scale"]
    assert step.label == "⊙ mask"
    assert step.scope == "dropout"
    y.sum().backward()
    assert x.grad.dtype == y.dtype == dtype
    np.testing.assert_allclose(x.grad.value, mask, rtol=1e-6)


def test_dropout_off() -> None:
    """In eval and for p = 0 it is the identity, and draws nothing; for p = 1 all is 0."""
    x = tg.tensor(data(3), requires_grad=True)
    dropout = nn.Dropout(0.5, rng=0)
    assert dropout.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    first = dropout.train()(x).value
    assert np.array_equal(first, nn.Dropout(0.5, rng=0)(x).value)
    assert nn.Dropout(1)(x).value.tolist() == [0.0, 0.0, 0.0]
    assert nn.Dropout(0.5)(np.zeros((0, 3))).shape == (0, 3)
    assert nn.Dropout(0.5, rng=0)(np.ones(4, int)).dtype == np.float64


def test_dropout_randomness() -> None:
    """Each call draws a new mask; the same seed draws the same ones; a Generator is drawn from; a deep copy goes on alike."""
    x = np.ones(100)
    one, two = nn.Dropout(rng=1), nn.Dropout(rng=1)
    a, b = one(x).value, one(x).value
    assert not np.array_equal(a, b)
    assert np.array_equal(a, two(x).value)
    twin = copy.deepcopy(one)
    assert np.array_equal(one(x).value, twin(x).value)
    random = np.random.default_rng(2)
    nn.Dropout(rng=random)(x)
    assert random.random() != np.random.default_rng(2).random()


def test_dropout_and_recomputation() -> None:
    """tg.checkpoint would meet another mask, which the backward pass refuses; nn.Checkpoint meets the same one, every time."""
    x = tg.tensor(np.ones(50), requires_grad=True)
    with pytest.raises(tg.errors.GraphError, match="computing again gave another value"):
        tg.checkpoint(nn.Dropout(0.5, rng=0), x).sum().backward()

    def net(wrap: Any) -> Any:
        random = np.random.default_rng(5)  # shared by two layers: where it stands depends on both
        return nn.Sequential(wrap(nn.Dropout(0.5, rng=random)), wrap(nn.Sequential(nn.Linear(50, 3, rng=0), nn.Dropout(0.3, rng=random))))

    plain, saving = net(lambda module: module), net(nn.Checkpoint)
    for _ in range(3):
        expected, found = plain(x), saving(x)
        assert np.array_equal(found.value, expected.value)
        (one,) = tg.grad(expected.sum(), x)
        assert np.array_equal(tg.grad(found.sum(), x)[0].value, one.value)
        assert np.array_equal(tg.grad(found.sum(), x, create_graph=True)[0].value, one.value)
        assert any(step.label == "⊙ mask" for step in tg.trace(found.sum()).steps)
    nested = net(lambda module: nn.Checkpoint(nn.Checkpoint(module)))
    assert np.array_equal(tg.grad(nested(x).sum(), x)[0].value, tg.grad(net(lambda m: m)(x).sum(), x)[0].value)


def test_checkpoint_is_the_module() -> None:
    """A checkpoint passes options on, keeps the parameters under "module", trains them, and takes what gives a tuple."""
    attention = nn.SelfAttention(4, rng=0)
    saving = nn.Checkpoint(attention)
    x = data(3, 2, 4)
    y = saving(x, lengths=[3, 1])
    assert np.array_equal(y.value, attention(x, lengths=[3, 1]).value)
    y.sum().backward()
    assert all(p.grad is not None for p in attention.parameters())
    assert next(iter(saving.state_dict())) == "module.query.weight"
    outputs, state = nn.Checkpoint(nn.LSTM(4, 2, rng=0))(tg.tensor(x))
    (outputs.sum() + state.cell.sum()).backward()


# -- layer normalisation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 4), (1,)])
@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
def test_layer_norm(shape: tuple[int, ...], lead: tuple[int, ...]) -> None:
    """Over the last axes: mean 0 and variance 1 but for ε, then γ and β."""
    norm = nn.LayerNorm(shape if len(shape) > 1 else shape[0])
    w = weights(norm)
    x = data(*lead, *shape)
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-5) * w["weight"] + w["bias"]
    assert oracles.difference(norm(x).value, expected) < 1e-14


def test_layer_norm_options() -> None:
    """γ and β, γ alone, or neither; a constant row becomes 0 with a finite gradient; ε is what is given."""
    assert [n for n, _ in nn.LayerNorm(3).named_parameters()] == ["weight", "bias"]
    assert [n for n, _ in nn.LayerNorm(3, bias=False).named_parameters()] == ["weight"]
    bare = nn.LayerNorm(3, elementwise_affine=False)
    assert list(bare.parameters()) == []
    x = tg.tensor(np.full((2, 3), 7.0), requires_grad=True)
    y = bare(x)
    y.backward(data(2, 3))
    assert np.array_equal(y.value, np.zeros((2, 3)))
    assert np.isfinite(x.grad.value).all()
    assert nn.LayerNorm(2, eps=3.0)(np.array([-1.0, 1.0])).value.tolist() == [-0.5, 0.5]


def test_layer_norm_gradient_is_orthogonal() -> None:
    """No gradient comes back along the ones, nor (but for ε) along x̂: a shift or a scale of a row changes nothing."""
    x = tg.tensor(data(5, 8), requires_grad=True)
    y = nn.LayerNorm(8, eps=1e-12, elementwise_affine=False)(x)
    y.backward(data(5, 8, seed=1))
    assert np.abs(x.grad.value.sum(-1)).max() < 1e-12
    assert np.abs((x.grad.value * y.value).sum(-1)).max() < 1e-10


# -- ways around a layer ----------------------------------------------------------------------------------------------------------


def test_residual() -> None:
    """y = x + F(x): one of the two add edges out of y carries the cotangent to x unchanged."""
    inner = nn.Linear(3, 3, rng=0)
    x = tg.tensor(data(2, 3), requires_grad=True, name="x")
    y = nn.Residual(inner)(x)
    w, b = inner.weight.value, inner.bias.value
    assert oracles.difference(y.value, x.value + x.value @ w.T + b) < 1e-15
    g = data(2, 3, seed=1)
    skip = [step for step in tg.trace((y * g).sum()).filter(kind="add") if step.operand.symbol == "x"]
    assert [(step.op, step.scope, step.gain) for step in skip] == [("add", "residual", 1.0)]
    y.backward(g)
    assert oracles.difference(x.grad.value, g + g @ w) < 1e-15


def test_residual_names_nothing_of_the_callers() -> None:
    """A function that gives back its argument leaves the caller's Tensor without a name; x + x is 2x."""
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    assert nn.Residual(lambda a: a)(x).value.tolist() == [2.0, 4.0]
    assert x.name is None
    assert nn.Residual(nn.Sequential())(np.ones(2)).value.tolist() == [2.0, 2.0]


@given(growth=st.integers(1, 3), depth=st.integers(1, 4), seed=st.integers(0, 100))
def test_dense_block(growth: int, depth: int, seed: int) -> None:
    """Each layer reads everything before it, and all of it comes out."""
    block = nn.DenseBlock(3, growth, depth, rng=seed)
    w = weights(block)
    x = features = data(2, 3, seed=seed)
    for k in range(depth):
        features = np.concatenate([features, np.maximum(features @ w[f"layers.{k}.weight"].T + w[f"layers.{k}.bias"], 0)], axis=-1)
    y = block(x)
    assert y.shape == (2, block.output_size) == (2, 3 + growth * depth)
    assert oracles.difference(y.value, features) < 1e-14


def test_dense_block_paths() -> None:
    """A route leads from the result straight to the input and to every layer."""
    x = tg.tensor(data(2, 3), requires_grad=True, name="x")
    y = nn.DenseBlock(3, 2, 3, rng=0)(x)
    last = [step for step in tg.trace(y.sum()).steps if step.op == "concatenate" and step.node.name is None]
    assert [step.operand.symbol for step in last] == ["x", "h⁽¹⁾", "h⁽²⁾", "h⁽³⁾"]
    assert {step.kind for step in last} == {"route"}


def test_highway() -> None:
    """y = t ⊙ H + (1 − t) ⊙ x with t = σ(x W_tᵀ + b_t), where b_t begins at −2."""
    layer = nn.Highway(3, rng=0)
    assert layer.gate.bias.value.tolist() == [-2.0] * 3
    assert nn.Highway(3, gate_bias=1).gate.bias.value.tolist() == [1.0] * 3
    w = weights(layer)
    x = data(2, 5, 3)
    t = oracles.sigmoid(x @ w["gate.weight"].T + w["gate.bias"])
    h = np.maximum(x @ w["transform.weight"].T + w["transform.bias"], 0)
    assert oracles.difference(layer(x).value, t * h + (1 - t) * x) < 1e-14


def test_highway_carries() -> None:
    """The direct edge to x multiplies by 1 − t; with b_t far below 0 nothing else is left, through a hundred layers."""
    stack = nn.Sequential(*[nn.Highway(2, gate_bias=-50.0, rng=k) for k in range(100)])
    x = tg.tensor(data(1, 2), requires_grad=True)
    y = stack(x)
    y.backward(np.ones((1, 2)))
    np.testing.assert_allclose(y.value, x.value, rtol=1e-12)
    np.testing.assert_allclose(x.grad.value, 1.0, rtol=1e-12)
    labels = [step.label for step in tg.trace(stack(x).sum()).filter(kind="scale")]
    assert labels.count("⊙ (1−t)") == 100


# -- attention --------------------------------------------------------------------------------------------------------------------


def attend(x: Any, w: dict[str, Any], heads: int, causal: bool, lengths: Any = None, prefix: str = "") -> tuple[Any, Any]:
    """One sequence (T, C) at a time, one head at a time, one position at a time."""
    steps, size = x.shape
    d = size // heads

    def linear(name: str, a: Any) -> Any:
        return a @ w[f"{prefix}{name}.weight"].T + w.get(f"{prefix}{name}.bias", 0.0)

    q, k, v = (linear(name, x) for name in ("query", "key", "value"))
    read, shown = np.zeros((steps, size)), np.zeros((heads, steps, steps))
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        for i in range(steps):
            seen = min(i + 1 if causal else steps, steps if lengths is None else lengths)
            shown[h, i, :seen] = softmax(q[i, part] @ k[:seen, part].T / np.sqrt(d))
            read[i, part] = shown[h, i, :seen] @ v[:seen, part]
    return linear("out", read), shown


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("padded", [False, True])
def test_attention(heads: int, bias: bool, causal: bool, batch_first: bool, padded: bool) -> None:
    """softmax(Q Kᵀ/√d) V, position by position, for several heads, causal or full, padded or not, batched either way."""
    layer = nn.SelfAttention(6, heads, causal=causal, bias=bias, batch_first=batch_first, rng=0)
    w = weights(layer)
    x, lengths = data(4, 3, 6), [4, 1, 2]
    y, shown = layer(x.swapaxes(0, 1) if batch_first else x, lengths if padded else None, return_weights=True)
    got = y.value.swapaxes(0, 1) if batch_first else y.value
    for b in range(3):
        expected, expected_weights = attend(x[:, b], w, heads, causal, lengths[b] if padded else None)
        assert oracles.difference(got[:, b], expected) < 1e-13
        assert oracles.difference(shown.value[b], expected_weights) < 1e-13
        alone, alone_weights = layer(x[:, b], lengths[b] if padded else None, return_weights=True)
        assert oracles.difference(alone.value, expected) < 1e-13
        assert alone_weights.shape == (heads, 4, 4)


def test_attention_begins() -> None:
    """The biases begin at 0 and the matrices by Glorot; ``init=`` chooses another beginning for all four."""
    layer = nn.SelfAttention(4, 2, rng=0)
    assert [n for n, _ in layer.named_parameters()] == [f"{n}.{p}" for n in ("query", "key", "value", "out") for p in ("weight", "bias")]
    assert all(not layer.state_dict()[f"{n}.bias"].any() for n in ("query", "key", "value", "out"))
    assert np.abs(layer.query.weight.value).max() <= np.sqrt(6 / 8)
    assert np.array_equal(nn.SelfAttention(4, init="identity").out.weight.value, np.eye(4))


def test_what_is_masked_is_exactly_zero() -> None:
    """The future and the padding have weight 0, and gradient 0 comes back from them: exactly, with no NaN, at huge scores too."""
    layer = nn.SelfAttention(4, 2, causal=True, rng=0)
    for scale in (1.0, 1e3, 1e150):
        x = tg.tensor(data(5, 1, 4) * scale, requires_grad=True)
        y, shown = layer(x, [3], return_weights=True)
        assert np.isfinite(y.value).all()
        assert np.array_equal(shown.value, np.tril(shown.value))
        assert not shown.value[..., 3:].any()
        g = np.zeros((5, 1, 4))
        g[1] = 1.0  # the loss reads position 1 alone
        y.backward(g)
        assert np.isfinite(x.grad.value).all()
        assert not x.grad.value[2:].any()
        if scale == 1.0:
            assert x.grad.value[0].any()
    with tg.detect_anomaly():
        layer(tg.tensor(data(5, 1, 4), requires_grad=True), [3]).sum().backward()


def test_attention_is_labelled() -> None:
    """The backward pass multiplies by named things: V, A, K, Q, 1/√d and the four matrices."""
    x = tg.tensor(data(3, 4), requires_grad=True, name="x")
    ledger = tg.trace(nn.SelfAttention(4, 2, causal=True, dropout=0.5, rng=0)(x).sum())
    labels = {step.label for step in ledger.steps}
    assert labels >= {"· W_Oᵀ", "· V", "(mask⊙A)ᵀ ·", "⊙ mask", "⊙ A", "⊙ 1/√d", "· Kᵀ", "Qᵀ ·", "· W_Qᵀ", "· W_Kᵀ", "· W_Vᵀ"}


def test_attention_reaches_everywhere_at_once() -> None:
    """Between the first and the last position there stands one product with A (and W_V, W_O), however far apart they are."""
    for steps in (2, 50):
        x = tg.tensor(data(steps, 1, 4), requires_grad=True)
        kinds = [step.label for step in tg.trace(nn.SelfAttention(4, rng=0)(x)[-1].sum()).filter(kind="matmul")]
        assert kinds.count("Aᵀ ·") == 1
        assert len(kinds) == 12  # six products, two edges each


def test_attention_dropout() -> None:
    """In training entries of A are dropped; the returned weights are those before; in eval nothing is."""
    layer = nn.SelfAttention(4, dropout=0.5, rng=0)
    x = data(6, 1, 4)
    y, shown = layer(x, return_weights=True)
    assert shown.value.sum(-1) == pytest.approx(np.ones((1, 1, 6)))
    assert not np.array_equal(y.value, layer(x).value)
    layer.eval()
    assert np.array_equal(layer(x).value, layer(x).value)


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_block(norm_first: bool) -> None:
    """Attention and MLP, each with a way around it and a norm before or after, put together by hand."""
    block = nn.TransformerBlock(4, 2, 5, causal=True, norm_first=norm_first, rng=0)
    w = weights(block)
    assert nn.TransformerBlock(4, 2).linear1.out_features == 16

    def norm(a: Any, k: int) -> Any:
        c = a - a.mean(-1, keepdims=True)
        return c / np.sqrt((c**2).mean(-1, keepdims=True) + 1e-5) * w[f"norm{k}.weight"] + w[f"norm{k}.bias"]

    def attention(a: Any) -> Any:
        return np.stack([attend(a[:, b], w, 2, True, prefix="attention.")[0] for b in range(2)], axis=1)

    def mlp(a: Any) -> Any:
        return np.maximum(a @ w["linear1.weight"].T + w["linear1.bias"], 0) @ w["linear2.weight"].T + w["linear2.bias"]

    x = data(3, 2, 4)
    if norm_first:
        h = x + attention(norm(x, 1))
        expected = h + mlp(norm(h, 2))
    else:
        h = norm(x + attention(x), 1)
        expected = norm(h + mlp(h), 2)
    assert oracles.difference(block(x).value, expected) < 1e-13


def test_deep_blocks_keep_their_gradient() -> None:
    """Through 24 blocks with norms inside the branches the gradient neither vanishes nor explodes, in training and in eval."""
    model = nn.Sequential(*[nn.TransformerBlock(8, 2, causal=True, dropout=0.1, rng=k) for k in range(24)])
    for mode in (True, False):
        model.train(mode)
        x = tg.tensor(data(4, 2, 8), requires_grad=True)
        model(x).backward(np.ones((4, 2, 8)))
        assert 1e-2 < np.abs(x.grad.value).mean() < 1e2
    assert np.array_equal(model(x).value, model(x).value)


def test_positional_encoding() -> None:
    """sin and cos at 10000^(−2i/C), added at every position in every layout; odd sizes end with a sine; distances depend on lags."""
    for size in (1, 4, 5):
        code = nn.sinusoidal(7, size)
        for t in range(7):
            for j in range(size):
                wave = np.cos if j % 2 else np.sin
                assert code[t, j] == pytest.approx(wave(t / 10000.0 ** ((j - j % 2) / size)), abs=1e-15)
    code = nn.sinusoidal(50, 8)
    np.testing.assert_allclose(np.diagonal(code @ code.T, 7), (code @ code.T)[0, 7])
    assert nn.sinusoidal(0, 3).shape == (0, 3)
    x = data(5, 2, 4)
    expected = x + nn.sinusoidal(5, 4)[:, None]
    assert np.array_equal(nn.PositionalEncoding(4)(x).value, expected)
    assert np.array_equal(nn.PositionalEncoding(4, batch_first=True)(x.swapaxes(0, 1)).value, expected.swapaxes(0, 1))
    assert np.array_equal(nn.PositionalEncoding(4)(x[:, 0]).value, expected[:, 0])
    assert nn.PositionalEncoding(4)(x.astype(np.float32)).dtype == np.float32


def test_order_is_seen_only_with_positions() -> None:
    """Attention of a permuted sequence is the permuted attention; with positions added it is not."""
    layer = nn.SelfAttention(4, 2, rng=0)
    x, order = data(5, 1, 4), [3, 1, 4, 0, 2]
    assert oracles.difference(layer(x[order]).value, layer(x).value[order]) < 1e-13
    placed = nn.Sequential(nn.PositionalEncoding(4), layer)
    assert oracles.difference(placed(x[order]).value, placed(x).value[order]) > 1e-2


def test_streaming_by_prefix() -> None:
    """A causal block's outputs do not change when more positions follow."""
    block = nn.TransformerBlock(4, 2, causal=True, rng=0)
    x = data(6, 2, 4)
    assert oracles.difference(block(x[:3]).value, block(x).value[:3]) < 1e-13
