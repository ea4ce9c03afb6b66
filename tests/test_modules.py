"""Modules: how parameters are found and named, saved, loaded, rebound and copied; Linear and Embedding."""

from __future__ import annotations

import copy
import gc
import pickle
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


class Model(nn.Module):
    """An embedding, a layer and a read-out whose weight is the embedding's."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3, rng=0)
        self.lstm = nn.LSTM(3, 3, rng=1)
        self.head = nn.Linear(3, 5, rng=2)
        self.scale = nn.Parameter([1.0])
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Any) -> Any:
        outputs, _ = self.lstm(self.embed(tokens))
        return self.head(outputs) * self.scale


TOKENS = np.array([[0, 1], [4, 0], [2, 2]])  # (T, B)


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def test_names_are_dotted_paths() -> None:
    """Parameters have the dotted names of the attributes that lead to them; those of a module itself come before its children's."""
    assert names(Model()) == [
        "scale", "embed.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_l0", "head.weight", "head.bias",
    ]  # fmt: skip
    assert [n for n, _ in Model().head.named_parameters("x.y")] == ["x.y.weight", "x.y.bias"]


def test_shared_parameter_comes_once() -> None:
    """A parameter held in two places is listed once, and its gradient is the sum of both uses."""
    model = Model(tied=True)
    assert names(model).count("embed.weight") == 1
    assert "head.weight" not in names(model)
    assert len(list(model.parameters())) == 6
    model(TOKENS).sum().backward()
    apart = Model()
    apart.head.weight.value = apart.embed.weight.value
    apart(TOKENS).sum().backward()
    expected = apart.embed.weight.grad.value + apart.head.weight.grad.value
    assert oracles.difference(model.embed.weight.grad.value, expected) < 1e-14


def test_shared_module_and_cycles() -> None:
    """A module held in two places, or by one of its own parts, is listed once and switched once."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2, rng=0)
            self.two = self.one

    assert names(Twice()) == ["one.weight", "one.bias"]
    outer = Twice()
    outer.one.back = outer
    assert names(outer) == ["one.weight", "one.bias"]
    assert not outer.eval().training
    assert "Twice" in repr(outer)


def test_state_dict_round_trip() -> None:
    """A state_dict holds copies; loading it gives the same outputs; loading does not touch what was loaded."""
    one, two = Model(), Model()
    for parameter in one.parameters():
        parameter.value = parameter.value + 0.5
    state = one.state_dict()
    assert list(state) == names(one)
    two.load_state_dict(state)
    assert np.array_equal(one(TOKENS).value, two(TOKENS).value)
    state["scale"][0] = 99.0
    assert one.scale.value[0] == two.scale.value[0] == 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.bias"), r"load_state_dict: nothing was loaded into Model\. Missing: head\.bias\. strict=False leaves"),
        (lambda s: s.update({"head.bais": s["head.bias"]}), r"Model\. Unexpected: head\.bais\. strict=False leaves"),
        (lambda s: s.update({3: s["head.bias"]}), r"Unexpected: 3\."),
        (lambda s: s.update({"head.bias": np.zeros(4)}), r"Unfit: head\.bias has shape \(4,\), expected \(5,\)\. Load the state"),
        (lambda s: s.update({"head.bias": 0.0}), r"head\.bias has shape \(\), expected \(5,\)"),
        (lambda s: s.update({"head.bias": ["a"] * 5}), r"Unfit: head\.bias: expected real numbers, got dtype <U1"),
        (lambda s: s.update({"head.bias": np.ones(5) * 1j}), r"Unfit: head\.bias: expected real numbers, got dtype complex128"),
        (lambda s: s.update({"head.bias": np.array([None] * 5)}), r"Unfit: head\.bias: expected real numbers, got dtype object"),
        (lambda s: s.update({"head.bias": [[1.0], [1.0, 2.0]]}), r"Unfit: head\.bias: the data is ragged"),
        (lambda s: s.update({"bias_hh_l0": np.zeros(5)}), r"Unexpected: bias_hh_l0\. .* use nn\.interop\.from_torch\(state\)"),
    ],
)
def test_load_all_or_nothing(change: Any, message: str) -> None:
    """Unless everything fits, nothing is loaded, and the message names what does not fit."""
    model = Model()
    before = model.state_dict()
    state = {name: value + 1.0 for name, value in before.items()}
    change(state)
    with pytest.raises(tg.errors.StateError, match=message):
        model.load_state_dict(state)
    for name, value in model.state_dict().items():
        assert np.array_equal(value, before[name])


def test_load_names_everything_at_once() -> None:
    """One message names all that is missing, unexpected and unfit; it is caught as PyTorch's and as NumPy's users do."""
    model = Model()
    state = model.state_dict()
    del state["scale"], state["head.weight"]
    state |= {"foot": 1.0, "lstm.weight": 2.0, "embed.weight": np.zeros(2), "head.bias": np.zeros((5, 1))}
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        "load_state_dict: nothing was loaded into Model. Missing: scale, head.weight. Unexpected: foot, lstm.weight. "
        "Unfit: embed.weight has shape (2,), expected (5, 3); head.bias has shape (5, 1), expected (5,). "
        "Load the state of a module that was built with the same arguments"
    )


@pytest.mark.parametrize("state", [None, [], "model.npz", 3])
def test_load_takes_a_dict(state: Any) -> None:
    """What is no dict is refused by its kind."""
    with pytest.raises(tg.errors.StateError, match=r"load_state_dict: expected a dict of names to arrays, got \w+"):
        Model().load_state_dict(state)


def test_load_without_strictness() -> None:
    """strict=False loads what is there and returns the names of what was left aside; a wrong shape is refused all the same."""
    model = Model()
    before = model.state_dict()
    result = model.load_state_dict({"foot": 1.0, "scale": [7.0]}, strict=False)
    assert result.unexpected_keys == ["foot"]
    assert result.missing_keys == [name for name in before if name != "scale"]
    assert model.scale.value.tolist() == [7.0]
    assert all(np.array_equal(model.state_dict()[name], before[name]) for name in result.missing_keys)
    with pytest.raises(tg.errors.StateError, match=r"into Model\. Missing: .*Unfit: scale has shape \(2,\), expected \(1,\)"):
        model.load_state_dict({"head.bias": np.ones(5), "scale": [7.0, 8.0]}, strict=False)
    assert np.array_equal(model.head.bias.value, before["head.bias"])
    assert Model().load_state_dict(before) == ([], [])


def test_load_knows_every_name_of_a_shared_parameter() -> None:
    """A tied weight is loaded by its first name, its other one, or both with the same values; with two values it is refused."""
    state = Model(tied=True).state_dict()
    weight = state.pop("embed.weight") + 1.0
    for names_given in (["embed.weight"], ["head.weight"], ["head.weight", "embed.weight"]):
        model = Model(tied=True)
        model.load_state_dict(state | dict.fromkeys(names_given, weight))
        assert np.array_equal(model.embed.weight.value, weight)
        assert model.head.weight is model.embed.weight
    with pytest.raises(tg.errors.StateError, match=r"Unfit: embed\.weight is one parameter with another entry, of other values"):
        Model(tied=True).load_state_dict(state | {"head.weight": weight, "embed.weight": weight + 1.0})
    with pytest.raises(tg.errors.StateError, match=r"Missing: embed\.weight"):
        Model(tied=True).load_state_dict(state)

    class Twice(nn.Module):
        def __init__(self) -> None:
            self.layers = [nn.Linear(2, 2, rng=0)]
            self.again = {"first": self.layers[0]}
            self.layers[0].back = self

    twice = Twice()
    twice.load_state_dict({"again.first.weight": np.eye(2), "layers.0.back.again.first.bias": [3.0, 4.0]})
    assert twice.layers[0].weight.value.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert twice.layers[0].bias.value.tolist() == [3.0, 4.0]


def test_load_refuses_numbers_that_become_infinite() -> None:
    """A number beyond the parameter's dtype is named, an infinity or NaN is loaded as it is."""
    layer = nn.Linear(1, 2, dtype="float32", bias=False, rng=0)
    before = layer.weight.value
    with pytest.raises(tg.errors.StateError, match="Unfit: weight has values that are too large for float32"):
        layer.load_state_dict({"weight": [[1e300], [0.0]]})
    assert layer.weight.value is before
    layer.load_state_dict({"weight": [[np.inf], [np.nan]]})
    assert np.array_equal(layer.weight.value, np.array([[np.inf], [np.nan]], np.float32), equal_nan=True)


def test_load_takes_the_parameters_dtype() -> None:
    """Values are converted to the dtype that the parameter has; Tensors are values too."""
    layer = nn.Linear(2, 3, dtype="float32", rng=0)
    layer.load_state_dict({"weight": np.ones((3, 2)), "bias": tg.tensor([1, 2, 3])})
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert layer.bias.value.tolist() == [1.0, 2.0, 3.0]


def test_zero_grad() -> None:
    """Gradients accumulate over backward calls until zero_grad forgets them."""
    model = Model()
    model(TOKENS).sum().backward()
    once = model.head.weight.grad.value
    model(TOKENS).sum().backward()
    assert np.array_equal(model.head.weight.grad.value, 2 * once)
    model.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_train_and_eval_reach_all() -> None:
    """eval() and train() switch a module and everything inside it, and return it."""
    model = Model()
    inside = [model, model.embed, model.lstm, model.head]
    assert all(module.training for module in inside)
    assert model.eval() is model
    assert not any(module.training for module in inside)
    assert model.train() is model
    assert all(module.training for module in inside)


def test_scopes_have_the_attributes_names() -> None:
    """What a module computes is recorded under the path of attribute names; the outermost is called after its class."""
    scopes = {step.scope for step in tg.trace(Model()(TOKENS).sum()).steps}
    assert {"model", "model/embed", "model/lstm", "model/head"} <= scopes
    assert tg.trace(nn.GRU(2, 2, rng=0)(np.ones((1, 2)))[0].sum()).layers == ("gru",)


def test_parameters_are_called_after_their_attribute() -> None:
    """A parameter without a symbol of its own takes the attribute's name; one with a symbol keeps it."""
    model = Model()
    assert model.scale.name == "scale"
    assert model.lstm.weight_hh_l0.name == "W_hh"


def test_frozen_parameter() -> None:
    """A parameter whose requires_grad is switched off gets no gradient, the others do, and it is still saved."""
    layer = nn.Linear(2, 3, rng=0)
    layer.weight.requires_grad = False
    layer(np.ones(2)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.value.tolist() == [1.0, 1.0, 1.0]
    assert names(layer) == ["weight", "bias"]


@pytest.mark.parametrize(
    "make", [lambda: nn.RNN(2, 3, rng=0), lambda: nn.LSTM(2, 3, rng=0), lambda: nn.GRU(2, 3, rng=0, reset="before"), Model]
)
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "deepcopy", "pickle"]
)
def test_copies_work(make: Any, duplicate: Any) -> None:
    """A copy computes the same, also after the original was used; a deep copy and a pickle share no parameter with it."""
    module = make()
    x = TOKENS if make is Model else np.random.default_rng(0).normal(size=(3, 2, 2))

    def first(output: Any) -> Any:
        return output[0] if isinstance(output, tuple) else output

    before = first(module(x))
    before.sum().backward()
    twin = duplicate(module)
    assert names(twin) == names(module)
    assert [p.name for p in twin.parameters()] == [p.name for p in module.parameters()]
    assert np.array_equal(first(twin(x)).value, before.value)
    if duplicate is copy.copy:
        return
    old = module.state_dict()
    for parameter in twin.parameters():
        assert parameter.requires_grad
        parameter.value = parameter.value * 2.0
    assert all(np.array_equal(value, old[name]) for name, value in module.state_dict().items())
    gradients = [p.grad.value for p in module.parameters()]
    twin.zero_grad()
    first(twin(x)).sum().backward()
    assert all(np.array_equal(p.grad.value, g) for p, g in zip(module.parameters(), gradients, strict=True))
    assert all(p.grad is not None for p in twin.parameters())


def test_deepcopy_keeps_sharing() -> None:
    """A tied weight is still tied in a deep copy and in a pickle, to the copy's own parameter."""
    for duplicate in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        model = Model(tied=True)
        twin = duplicate(model)
        assert twin.head.weight is twin.embed.weight
        assert twin.head.weight is not model.head.weight


def test_copies_and_originals_in_one_graph() -> None:
    """An original and its copies are different leaves: each gets its own gradient in a graph that uses all."""
    layer = nn.Linear(2, 1, bias=False, rng=0)
    twins = [layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    assert len({twin.weight.node.order for twin in twins}) == 3
    loss = sum((twin(np.ones(2)) * float(k) for k, twin in enumerate(twins, 1)), start=0.0).sum()
    assert len(tg.trace(loss).gradients) == 3
    loss.backward()
    assert [twin.weight.grad.value.tolist() for twin in twins] == [[[1.0, 1.0]], [[2.0, 2.0]], [[3.0, 3.0]]]


def test_pickle_from_another_process() -> None:
    """A module pickled by a process that had recorded much more than this one trains here."""
    program = (
        "import pickle, sys, numpy as np, tinygrad_rnn as tg\n"
        "from tinygrad_rnn import nn\n"
        "w = tg.tensor(1.0, requires_grad=True)\n"
        "for _ in range(200_000): w * w\n"
        "sys.stdout.buffer.write(pickle.dumps(nn.Linear(2, 1, rng=0)))"
    )
    layer = pickle.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    layer(np.ones(2)).sum().backward()
    assert layer.weight.grad.value.tolist() == [[1.0, 1.0]]


def test_computed_tensors_are_not_copied() -> None:
    """A computed Tensor cannot be pickled or deep-copied apart from its graph; detached it can."""
    y = nn.Linear(2, 1, rng=0)(np.ones(2))
    with pytest.raises(tg.errors.GraphError, match=r"only a leaf can be deep-copied or pickled; .* Use .detach\(\) first"):
        copy.deepcopy(y)
    assert np.array_equal(copy.deepcopy(y.detach()).value, y.value)


def test_copies_keep_what_is_frozen() -> None:
    """A copy of a constant is a constant, of a frozen parameter a frozen parameter; name, gradient and dtype come along."""
    layer = nn.Linear(2, 1, dtype="float32", rng=0)
    layer.weight.requires_grad = False
    layer(np.ones(2, np.float32)).sum().backward()
    twin = copy.deepcopy(layer)
    assert isinstance(twin.weight, nn.Parameter)
    assert not twin.weight.requires_grad
    assert not copy.deepcopy(tg.tensor(1.0)).requires_grad
    assert (twin.bias.name, twin.bias.dtype, twin.bias.grad.value.tolist()) == ("b", np.float32, [1.0])
    assert twin.bias.grad is not layer.bias.grad


def test_graph_keeps_no_module_alive() -> None:
    """A loss holds what the backward pass needs, not the module: it is freed, and the backward pass still runs."""
    gc.disable()
    try:
        model = Model()
        gone, loss = weakref.ref(model), model(TOKENS).sum()
        weight = model.head.weight
        del model
        assert gone() is None
        loss.backward()
        assert weight.grad is not None
    finally:
        gc.enable()


def test_rebinding() -> None:
    """An optimiser rebinds values: the next forward pass uses them; a backward pass over the old graph is refused."""
    layer = nn.RNN(2, 3, rng=0)
    x = np.ones((3, 2))
    outputs, _ = layer(x)
    before = outputs.value
    layer.weight_hh_l0.value = layer.weight_hh_l0.value * 2.0
    with pytest.raises(tg.errors.GraphError, match="the leaf W_hh of shape \\(3, 3\\) was given a new value"):
        outputs.sum().backward()
    assert all(p.grad is None for p in layer.parameters())
    again, _ = layer(x)
    assert not np.array_equal(again.value, before)
    again.sum().backward()
    assert layer.weight_hh_l0.grad is not None


def test_module_without_forward() -> None:
    """Calling a module that defines no forward says so."""

    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty: a module needs a method forward\(self, …\)"):
        Empty()(1)


def test_super_init_may_be_left_out() -> None:
    """A module needs no super().__init__(): it is found, called, switched and named without."""

    class Hasty(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter([1.0])

        def forward(self, x: Any) -> Any:
            return x * self.weight

    hasty = Hasty()
    assert hasty.training
    assert tg.trace(hasty(np.ones(1))).steps[0].scope == "hasty"
    assert not hasty.eval().training


def test_lists_and_dicts_are_looked_into() -> None:
    """Modules and parameters in a list, tuple or dict have names, are trained, saved, switched, and have their own scopes."""

    class Stack(nn.Module):
        def __init__(self) -> None:
            self.layers = [nn.Linear(2, 2, rng=0), (nn.Linear(2, 2, bias=False, rng=1),)]
            self.gains = {"first": nn.Parameter([2.0]), "second": 3.0}

        def forward(self, x: Any) -> Any:
            return self.layers[1][0](self.layers[0](x)) * self.gains["first"] * self.gains["second"]

    stack = Stack()
    assert names(stack) == ["gains.first", "layers.0.weight", "layers.0.bias", "layers.1.0.weight"]
    assert not stack.eval().layers[1][0].training
    ledger = tg.trace(stack(np.ones(2)).sum())
    assert {"stack/layers.0", "stack/layers.1.0"} <= {step.scope for step in ledger.steps}
    stack(np.ones(2)).sum().backward()
    assert all(p.grad is not None for p in stack.parameters())
    assert "layers.1.0: Linear(weight (2, 2))" in repr(stack)


# -- Linear and Embedding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@given(lead=st.lists(st.integers(0, 3), max_size=3).map(tuple), seed=st.integers(0, 1000))
def test_linear(dtype: str, bias: bool, lead: tuple[int, ...], seed: int) -> None:
    """y = x Wᵀ + b over any leading axes, with the gradients Gᵀx, ΣG and GW."""
    layer = nn.Linear(3, 2, bias=bias, dtype=dtype, rng=seed)
    rng = np.random.default_rng(seed)
    x = tg.tensor(rng.normal(size=(*lead, 3)).astype(dtype), requires_grad=True)
    g = rng.normal(size=(*lead, 2)).astype(dtype)
    y = layer(x)
    y.backward(g)
    w = layer.weight.value
    rtol = 1e-14 if dtype == "float64" else 1e-6
    b = layer.bias.value if bias else 0.0
    rows, weights = x.value.reshape(-1, 3).astype(float), g.reshape(-1, 2).astype(float)
    assert y.dtype == x.grad.dtype == layer.weight.grad.dtype == dtype
    assert oracles.difference(y.value, x.value.astype(float) @ w.T.astype(float) + b) < rtol
    assert oracles.difference(x.grad.value, g.astype(float) @ w) < rtol
    assert oracles.difference(layer.weight.grad.value, weights.T @ rows) < rtol
    if bias:
        assert oracles.difference(layer.bias.grad.value, weights.sum(0)) < 10 * rtol
    else:
        assert layer.bias is None
        assert names(layer) == ["weight"]


def test_linear_initial_values() -> None:
    """Weight and bias are uniform in ±1/√in_features; the same seed gives the same bytes."""
    layer = nn.Linear(100, 200, rng=3)
    for parameter in layer.parameters():
        assert np.abs(parameter.value).max() <= 0.1
        assert parameter.value.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.1)
    assert layer.weight.value.tobytes() == nn.Linear(100, 200, rng=3).weight.value.tobytes()
    assert layer.bias.value.tobytes() == nn.Linear(100, 200, rng=3).bias.value.tobytes()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Linear(3, 2)(np.ones((2, 4))), r"Linear: expected x of shape \(…, 3\), got \(2, 4\)"),
        (lambda: nn.Linear(3, 2)(1.0), r"Linear: expected x of shape \(…, 3\), got \(\)"),
        (lambda: nn.Linear(0, 2), "Linear: in_features must be a whole number of at least 1, got 0"),
        (lambda: nn.Linear(2, 2.0), "Linear: out_features must be a whole number of at least 1, got 2.0"),
        (lambda: nn.Linear(2, 2, dtype=int), "Linear: dtype must be a floating-point type, got int64"),
        (lambda: nn.Embedding(5, 0), "Embedding: embedding_dim must be a whole number of at least 1, got 0"),
        (lambda: nn.Embedding(5, 2)([0, 5]), "Embedding: indices from 0 to 5; expected 0 to 4"),
        (lambda: nn.Embedding(5, 2)([-1, 2]), "Embedding: indices from -1 to 2; expected 0 to 4"),
        (lambda: nn.Embedding(5, 2)([0.0, 1.0]), "Embedding: expected integer indices, got dtype float64"),
        (lambda: nn.Embedding(5, 2)([True, False]), "Embedding: expected integer indices, got dtype bool"),
    ],
)
def test_messages(call: Any, message: str) -> None:
    """What does not fit is named."""
    with pytest.raises(tg.errors.TinygradError, match=message):
        call()


@given(shape=st.lists(st.integers(0, 3), max_size=3).map(tuple), seed=st.integers(0, 1000))
def test_embedding_is_a_product_with_one_hot_rows(shape: tuple[int, ...], seed: int) -> None:
    """Looking up rows equals multiplying one-hot vectors by E, in value and in gradient; repeated symbols add up in their row."""
    embed = nn.Embedding(4, 3, rng=seed)
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 4, size=shape)
    one_hot = np.eye(4)[indices]
    g = rng.normal(size=(*shape, 3))
    found = embed(indices)
    assert np.array_equal(found.value, one_hot @ embed.weight.value)
    found.backward(g)
    assert oracles.difference(embed.weight.grad.value, one_hot.reshape(-1, 4).T @ g.reshape(-1, 3)) < 1e-14


def test_embedding_rows_accumulate() -> None:
    """Three uses of a symbol leave three times the gradient in its row, unused rows get exactly 0; the caller's indices are copied."""
    embed = nn.Embedding(4, 2, dtype="float32", rng=0)
    indices = np.array([2, 2, 0, 2])
    found = embed(indices)
    indices[:] = 1
    found.sum().backward()
    assert embed.weight.grad.value.tolist() == [[1, 1], [0, 0], [3, 3], [0, 0]]
    assert embed.weight.grad.dtype == np.float32
    assert embed(tg.tensor([1, 3])).shape == (2, 2)
    assert embed(np.uint8(3)).shape == (2,)
    assert embed([]).shape == (0, 2)
