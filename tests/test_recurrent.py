"""Recurrent cells and layers: values and gradients against plain NumPy, initial values, gates, precision and messages."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.testing import strategies

RTOL = {"float64": 1e-12, "float32": 1e-5}


class Kind(NamedTuple):
    """One architecture: ours as a cell and as a layer, with its options, and the oracle's."""

    cell: Any
    layer: Any
    options: dict[str, Any]
    oracle: oracles.Cell


KINDS = {
    "rnn-tanh": Kind(nn.RNNCell, nn.RNN, {}, oracles.rnn()),
    "rnn-relu": Kind(nn.RNNCell, nn.RNN, {"nonlinearity": "relu"}, oracles.rnn("relu")),
    "lstm": Kind(nn.LSTMCell, nn.LSTM, {}, oracles.lstm()),
    "gru-after": Kind(nn.GRUCell, nn.GRU, {}, oracles.gru("after")),
    "gru-before": Kind(nn.GRUCell, nn.GRU, {"reset": "before"}, oracles.gru("before")),
}
all_kinds = pytest.mark.parametrize("name", KINDS)


def weights_of(module: Any) -> dict[str, Any]:
    """The parameters under the oracle's names; zeros for a bias that is switched off."""
    found = {name.removesuffix("_l0"): p.numpy() for name, p in module.named_parameters()}
    rows, size = found["weight_hh"].shape
    return {"bias": np.zeros(rows, module.dtype), "bias_hn": np.zeros(size, module.dtype), **found}


def leaf(array: Any, name: str | None = None) -> Any:
    return tg.tensor(array, requires_grad=True, name=name)


class Outcome(NamedTuple):
    outputs: Any
    last: tuple[Any, ...]
    on_x: Any
    on_state: tuple[Any, ...]
    on_weights: dict[str, Any]


def drawn_by(name: str, data: st.DataObject, dtype: str) -> tuple[Any, dict[str, Any]]:
    """One layer of any options, and what it is given, with time first and a batch axis."""
    kind = name.removesuffix("-tanh").removesuffix("-after")
    case = data.draw(strategies.layers((kind,), num_layers=1, steps=5, size=4, lengths=False, one_way=True, dtype=dtype))
    module, x = case.module, case.inputs[0]
    squeeze = x.ndim == 2
    x = x[:, None] if squeeze else x.swapaxes(0, 1) if module.batch_first else x
    parts = case.inputs[1] if len(case.inputs) > 1 else None
    zeros = np.zeros((x.shape[1], module.hidden_size), dtype)
    state = (zeros,) * KINDS[name].oracle.parts if parts is None else tuple(part if squeeze else part[0] for part in parts)
    return module, {"squeeze": squeeze, "x": x, "state": state, "given_state": parts is not None}


def expected_and_data(kind: Kind, module: Any, problem: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    """The oracle's answer, with time first and a batch axis, and the arrays it was computed from."""
    rng = np.random.default_rng(0)
    steps, batch = problem["x"].shape[:2]

    def normal(*shape: int) -> Any:
        return rng.standard_normal((*shape, module.hidden_size)).astype(module.dtype)

    data = {
        "x": problem["x"],
        "state": problem["state"],
        "on_outputs": normal(steps, batch),
        "on_last": tuple(normal(batch) for _ in range(kind.oracle.parts)),
    }
    w = {name: array.astype(np.float64) for name, array in weights_of(module).items()}
    exact = {k: tuple(p.astype(np.float64) for p in v) if isinstance(v, tuple) else v.astype(np.float64) for k, v in data.items()}
    outputs, states, kept = oracles.run(kind.oracle, exact["x"], exact["state"], w)
    on_x, on_state, on_weights, _ = oracles.bptt(kind.oracle, kept, w, exact["on_outputs"], exact["on_last"])
    return Outcome(outputs, states[-1], on_x, on_state, on_weights), data


def compare(problem: dict[str, Any], got: Outcome, expected: Outcome, module: Any, rtol: float) -> None:
    squeeze = problem["squeeze"]

    def same(what: str, ours: Any, theirs: Any) -> None:
        assert ours.dtype == module.dtype, f"{what} is {ours.dtype}"
        assert oracles.difference(ours.value, theirs) <= rtol, what

    same("outputs", got.outputs, expected.outputs[:, 0] if squeeze else expected.outputs)
    for part, (ours, theirs) in enumerate(zip(got.last, expected.last, strict=True)):
        same(f"last state {part}", ours, theirs[0] if squeeze else theirs)
    same("gradient of x", got.on_x, expected.on_x[:, 0] if squeeze else expected.on_x)
    for part, (ours, theirs) in enumerate(zip(got.on_state, expected.on_state, strict=True)):
        same(f"gradient of state {part}", ours, theirs[0] if squeeze else theirs)
    for name, parameter in module.named_parameters():
        same(f"gradient of {name}", parameter.grad, expected.on_weights[name.removesuffix("_l0")])


def run_layer(kind: Kind, module: Any, problem: dict[str, Any]) -> None:
    expected, data = expected_and_data(kind, module, problem)
    squeeze = problem["squeeze"]
    turned = module.batch_first and not squeeze

    def ordered(sequence: Any) -> Any:
        sequence = sequence[:, 0] if squeeze else sequence
        return sequence.swapaxes(0, 1) if turned else sequence

    x = leaf(ordered(data["x"]))
    state = tuple(leaf(part if squeeze else part[None]) for part in data["state"])  # (1, B, H), or (1, H)
    outputs, last = module(x, state if problem["given_state"] else None)
    weighted = [(outputs * ordered(data["on_outputs"])).sum()]
    weighted += [(part * (weight if squeeze else weight[None])).sum() for part, weight in zip(last, data["on_last"], strict=True)]
    sum(weighted[1:], start=weighted[0]).backward()
    shown = problem["given_state"]
    compare(
        problem,
        Outcome(
            outputs.swapaxes(0, 1) if turned else outputs,
            tuple(part[0] for part in last),
            x.grad.swapaxes(0, 1) if turned else x.grad,
            tuple(part.grad[0] for part in state) if shown else (),
            {},
        ),
        expected if shown else expected._replace(on_state=()),
        module,
        RTOL[module.dtype.name],
    )


@all_kinds
@given(data=st.data())
def test_layer_is_the_oracle(name: str, data: st.DataObject) -> None:
    """Outputs, last states and all gradients of a layer are those of backpropagation through time written by hand."""
    run_layer(KINDS[name], *drawn_by(name, data, "float64"))


@all_kinds
@given(data=st.data())
def test_layer_in_float32(name: str, data: st.DataObject) -> None:
    """In float32 everything stays float32, gradients included, and agrees with the oracle in float64 to 1e-5."""
    run_layer(KINDS[name], *drawn_by(name, data, "float32"))


@all_kinds
@pytest.mark.parametrize("dtype", RTOL)
@given(data=st.data())
def test_cell_is_the_oracle(name: str, dtype: str, data: st.DataObject) -> None:
    """A cell called once per step in a Python loop gives what the oracle gives."""
    kind = KINDS[name]
    layer, problem = drawn_by(name, data, dtype)
    module = kind.cell(layer.input_size, layer.hidden_size, bias=layer.bias_l0 is not None, dtype=dtype, rng=7, **kind.options)
    expected, given_to = expected_and_data(kind, module, problem)
    squeeze = problem["squeeze"]
    x = leaf(given_to["x"][:, 0] if squeeze else given_to["x"])
    first = tuple(leaf(part[0] if squeeze else part) for part in given_to["state"])
    state: Any = first if problem["given_state"] else None
    outputs = []
    for t in range(len(problem["x"])):
        state = module(x[t], state)
        outputs.append(state.hidden)
    stacked = tg.stack(outputs)
    loss = (stacked * (given_to["on_outputs"][:, 0] if squeeze else given_to["on_outputs"])).sum()
    for part, weight in zip(state, given_to["on_last"], strict=True):
        loss = loss + (part * (weight[0] if squeeze else weight)).sum()
    loss.backward()
    shown = problem["given_state"]
    compare(
        problem,
        Outcome(stacked, tuple(state), x.grad, tuple(part.grad for part in first) if shown else (), {}),
        expected if shown else expected._replace(on_state=()),
        module,
        RTOL[dtype],
    )


@all_kinds
def test_oracle_itself(name: str) -> None:
    """The hand-written backward passes are right: the oracle's gradients are its own central differences."""
    oracle = KINDS[name].oracle
    rng = np.random.default_rng(5)
    rows = oracle.gates * 3
    arrays = {
        "x": rng.normal(size=(4, 2, 2)), "weight_ih": rng.normal(size=(rows, 2)), "weight_hh": rng.normal(size=(rows, 3)),
        "bias": rng.normal(size=rows), **({"bias_hn": rng.normal(size=3)} if name == "gru-after" else {}),
        **{f"state{i}": rng.normal(size=(2, 3)) for i in range(oracle.parts)},
    }  # fmt: skip
    on_outputs, on_last = rng.normal(size=(4, 2, 3)), tuple(rng.normal(size=(2, 3)) for _ in range(oracle.parts))

    def run(values: dict[str, Any]) -> Any:
        weights = {k: v for k, v in values.items() if k.startswith(("weight", "bias"))}
        return weights, oracles.run(oracle, values["x"], tuple(values[f"state{i}"] for i in range(oracle.parts)), weights)

    def loss(values: dict[str, Any]) -> float:
        _, (outputs, states, _) = run(values)
        return float((outputs * on_outputs).sum() + sum((a * b).sum() for a, b in zip(states[-1], on_last, strict=True)))

    weights, (_, _, kept) = run(arrays)
    on_x, on_state, on_weights, _ = oracles.bptt(oracle, kept, weights, on_outputs, on_last)
    gradients = {"x": on_x, **on_weights, **{f"state{i}": g for i, g in enumerate(on_state)}}
    for what, array in arrays.items():
        numeric = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            moved = [{**arrays, what: array.copy()} for _ in range(2)]
            moved[0][what][place] += 1e-5
            moved[1][what][place] -= 1e-5
            numeric[place] = (loss(moved[0]) - loss(moved[1])) / 2e-5
        assert oracles.difference(gradients[what], numeric) < 1e-7, what


@all_kinds
def test_layer_by_central_differences(name: str) -> None:
    """The gradients of x, states and every parameter are the central differences of the layer's own values."""
    kind = KINDS[name]
    module = kind.layer(2, 3, rng=3, **kind.options)
    rng = np.random.default_rng(4)
    x = rng.normal(size=(4, 2, 2))
    state = [rng.normal(size=(1, 2, 3)) for _ in range(kind.oracle.parts)]
    names = [n for n, _ in module.named_parameters()]

    def loss(x: Any, *rest: Any) -> Any:
        parts, values = rest[: len(state)], rest[len(state) :]
        for n, value in zip(names, values, strict=True):
            vars(module)[n] = value
        outputs, last = module(x, parts)
        return (outputs * outputs).sum() + sum((part * part * part).sum() for part in last)

    tg.testing.gradcheck(loss, x, *state, *(p.numpy() for _, p in list(module.named_parameters())))


@all_kinds
def test_layer_is_the_unrolled_cell(name: str) -> None:
    """A layer gives what a cell with the same weights gives in a loop, values and gradients, up to rounding."""
    kind = KINDS[name]
    layer, cell = kind.layer(3, 4, rng=0, **kind.options), kind.cell(3, 4, rng=1, **kind.options)
    cell.load_state_dict({n.removesuffix("_l0"): v for n, v in layer.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(6, 2, 3))
    outputs, last = layer(x)
    state, unrolled = None, []
    for part in x:
        state = cell(part, state)
        unrolled.append(state.hidden)
    assert oracles.difference(outputs.value, tg.stack(unrolled).value) < 1e-14
    assert type(last) is type(state)
    for ours, theirs in zip(last, state, strict=True):
        assert oracles.difference(ours.value[0], theirs.value) < 1e-14
    (outputs * outputs).sum().backward()
    (tg.stack(unrolled) * tg.stack(unrolled)).sum().backward()
    for (n, ours), (_, theirs) in zip(layer.named_parameters(), cell.named_parameters(), strict=True):
        assert oracles.difference(ours.grad.value, theirs.grad.value) < 1e-14, n


@all_kinds
def test_seed_gives_the_bytes(name: str) -> None:
    """The same seed gives the same bytes, a cell and a layer alike; another seed gives others; a Generator goes on."""
    kind = KINDS[name]
    one, two, other = (kind.layer(3, 4, rng=seed, **kind.options).state_dict() for seed in (5, 5, 6))
    cell = kind.cell(3, 4, rng=np.random.default_rng(5), **kind.options).state_dict()
    for n in one:
        assert one[n].tobytes() == two[n].tobytes() == cell[n.removesuffix("_l0")].tobytes()
    assert any(one[n].tobytes() != other[n].tobytes() for n in one)
    rng = np.random.default_rng(5)
    first, second = (kind.cell(3, 4, rng=rng, **kind.options).weight_hh.value for _ in range(2))
    assert not np.array_equal(first, second)


# -- gates ----------------------------------------------------------------------------------------------------------------------


def test_gate_orders_are_pytorchs() -> None:
    """The constants say the order: input, forget, candidate, output; reset, update, candidate."""
    assert [gate.name for gate in nn.LSTM_GATES] == ["input", "forget", "candidate", "output"]
    assert [gate.name for gate in nn.GRU_GATES] == ["reset", "update", "candidate"]
    assert [gate.name for gate in nn.RNN_GATES] == ["hidden"]


@pytest.mark.parametrize(
    ("make", "gates"), [(nn.LSTM, nn.LSTM_GATES), (nn.GRU, nn.GRU_GATES), (lambda *s, **o: nn.GRU(*s, reset="before", **o), nn.GRU_GATES)]
)
def test_each_gate_reads_its_block(make: Any, gates: Any) -> None:
    """Block k of weights and biases belongs to gate k of the constant: pulled up there, that gate opens and no other."""
    size = 3
    for position, gate in enumerate(gates):
        layer = make(2, size, rng=0)
        for parameter in layer.parameters():
            parameter.value = np.zeros(parameter.shape)
        bias = np.zeros(len(gates) * size)
        bias[position * size : (position + 1) * size] = 50.0
        layer.bias_l0.value = bias
        parts = 2 if make is nn.LSTM else 1
        outputs, _ = layer(np.zeros((1, 1, 2)), tuple(leaf(np.ones((1, 1, size))) for _ in range(parts)))
        found = tg.trace(outputs.sum()).states()[1].gates
        assert set(found) == {g.name for g in gates}
        for other in gates:
            closed = 0.0 if other.name == "candidate" else 0.5
            assert np.allclose(found[other.name].value, 1.0 if other is gate else closed, rtol=0, atol=1e-12), (gate.name, other.name)


def test_symbols_of_the_gates_label_the_edges() -> None:
    """Labels take each gate's symbol from the constant."""
    outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((2, 1, 2)))
    labels = {step.label for step in tg.trace(outputs.sum()).steps}
    for gate in nn.LSTM_GATES:
        inner = f"⊙ (1 − {gate.symbol}₂²)" if gate.activation is tg.tanh else f"⊙ {gate.symbol}₂(1 − {gate.symbol}₂)"
        assert inner in labels


@pytest.mark.parametrize("make", [nn.LSTM, nn.LSTMCell])
def test_forget_bias(make: Any) -> None:
    """The forget gate's bias begins at 1, or where it is told to; no other bias is touched; None leaves all as drawn."""
    size = 4
    drawn = make(2, size, rng=0, forget_bias=None)
    for options, value in (({}, 1.0), ({"forget_bias": -2.5}, -2.5), ({"forget_bias": 0}, 0.0)):
        pair = (make(2, size, rng=0, **options), drawn)
        got, plain = (next(p.value for n, p in m.named_parameters() if n.startswith("bias")) for m in pair)
        assert np.array_equal(got[size : 2 * size], np.full(size, value))
        assert np.array_equal(np.delete(got, np.s_[size : 2 * size]), np.delete(plain, np.s_[size : 2 * size]))
        assert not (plain[size : 2 * size] == 1.0).any()


def test_closed_and_open_forget_gate() -> None:
    """f = 0 resets at every step: no gradient comes from before. f = 1 with i = 0 keeps for ever: c stays c₀, the gradient 1."""
    size, steps = 3, 50
    layer = nn.LSTM(2, size, rng=0)
    x = np.random.default_rng(0).normal(size=(steps, 1, 2))

    def last_cell(i: float, f: float) -> tuple[Any, Any, Any]:
        bias = np.zeros(4 * size)
        bias[:size], bias[size : 2 * size] = i, f
        layer.bias_l0.value = bias
        h, c = leaf(np.ones((1, 1, size))), leaf(np.array([[[0.5, -2.0, 7.0]]]))
        _, state = layer(x, (h, c))
        state.cell.sum().backward()
        return state.cell.value, c.value, c.grad.value

    final, start, gradient = last_cell(-1000.0, 1000.0)
    assert np.array_equal(final, start)
    assert np.array_equal(gradient, np.ones_like(start))
    final, start, gradient = last_cell(0.0, -1000.0)
    assert np.isfinite(final).all()
    assert (np.abs(final) < 1).all()
    assert np.array_equal(gradient, np.zeros_like(start))


@all_kinds
@pytest.mark.parametrize("push", [1000.0, -1000.0])
def test_saturated_by_force(name: str, push: float) -> None:
    """Biases of ±1000 give no NaN and no infinity, forward or backward."""
    kind = KINDS[name]
    layer = kind.layer(2, 3, rng=0, **kind.options)
    layer.bias_l0.value = np.full(layer.bias_l0.shape, push)
    outputs, _ = layer(np.ones((4, 2, 2)))
    if name != "rnn-relu":
        assert np.isfinite(outputs.value).all()
    outputs.sum().backward()
    assert all(np.isfinite(p.grad.value).all() for p in layer.parameters())


# -- initial values -------------------------------------------------------------------------------------------------------------


def blocks(layer: Any) -> list[Any]:
    size = layer.hidden_size
    return [layer.weight_hh_l0.value[k : k + size] for k in range(0, layer.weight_hh_l0.shape[0], size)]


@all_kinds
def test_uniform_by_default(name: str) -> None:
    """All weights lie within ±1/√H and fill that range; the gates' blocks differ."""
    kind = KINDS[name]
    layer = kind.layer(30, 25, rng=0, **kind.options, **({"forget_bias": None} if name == "lstm" else {}))
    for n, parameter in layer.named_parameters():
        assert np.abs(parameter.value).max() <= 0.2, n
        assert np.abs(parameter.value).max() > 0.15, n
        assert parameter.value.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.25), n
    own = blocks(layer)
    assert all(not np.array_equal(own[i], own[j]) for i in range(len(own)) for j in range(i))


@all_kinds
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_initial_recurrent_weights(name: str, dtype: str) -> None:
    """Each gate's block is drawn for itself: orthogonal, the identity, within Glorot's bound, or of the spectral radius asked for."""
    kind, size = KINDS[name], 12
    eps = float(np.finfo(dtype).eps)

    def drawn(choice: Any) -> list[Any]:
        made = blocks(kind.layer(5, size, rng=1, init=choice, dtype=dtype, **kind.options))
        assert all(block.dtype == dtype and block.shape == (size, size) for block in made)
        return [block.astype(np.float64) for block in made]

    for block in drawn("orthogonal"):
        assert np.abs(block.T @ block - np.eye(size)).max() < 20 * eps
    for block in drawn("identity"):
        assert np.array_equal(block, np.eye(size))
    for block in drawn("glorot"):
        assert np.abs(block).max() <= np.sqrt(6 / (2 * size)) < 1.1 * np.abs(block).max()
    for radius in (0.0, 0.9, 1.0, 1.5, 2):
        for block in drawn(radius):
            assert np.abs(np.linalg.eigvals(block)).max() == pytest.approx(radius, rel=100 * eps, abs=0)
    for choice in ("orthogonal", 0.9):
        own = drawn(choice)
        assert all(not np.allclose(own[i], own[j]) for i in range(len(own)) for j in range(i))
    assert all((block == 3.0).all() for block in drawn(lambda shape, rng: np.full(shape, 3.0)))


def test_orthogonal_has_no_favourite_rotation() -> None:
    """Orthogonal matrices are drawn uniformly: entries average 0, and both determinants occur as often."""
    rng = np.random.default_rng(0)
    many = np.stack([nn.init.orthogonal((3, 3), rng) for _ in range(2000)])
    assert np.abs(many.mean(0)).max() < 5 / np.sqrt(3 * 2000)
    assert abs(np.sign(np.linalg.det(many)).mean()) < 5 / np.sqrt(2000)
    for shape in ((5, 2), (2, 5)):
        tall = nn.init.orthogonal(shape, rng)
        gram = tall.T @ tall if shape[0] > shape[1] else tall @ tall.T
        assert tall.shape == shape
        assert np.allclose(gram, np.eye(2), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.RNN(2, 3, init="orthogonl"), "'orthogonl' is unknown; expected one of uniform, glorot, orthogonal, identity"),
        (lambda: nn.RNN(2, 3, init=-0.1), "spectral_radius: expected a finite number of at least 0, got -0.1"),
        (lambda: nn.RNN(2, 3, init=float("nan")), "spectral_radius"),
        (lambda: nn.RNN(2, 3, init=lambda shape, rng: np.zeros((2, 2))), r"init: .* \(3, 3\)"),
        (lambda: nn.RNN(2, 3, rng=-1), "rng: expected a numpy.random.Generator, a seed of at least 0"),
        (lambda: nn.RNN(2, 3, rng="0"), "rng: expected"),
        (lambda: nn.RNN(0, 3), "RNN: input_size must be a whole number of at least 1, got 0"),
        (lambda: nn.LSTMCell(2, 2.5), "LSTMCell: hidden_size must be a whole number of at least 1, got 2.5"),
        (lambda: nn.LSTMCell(2, True), "LSTMCell: hidden_size must be a whole number"),
        (lambda: nn.RNN(2, 3, nonlinearity="sigmoid"), "nonlinearity must be 'tanh' or 'relu', got 'sigmoid'"),
        (lambda: nn.GRU(2, 3, reset="never"), r"reset must be 'after' \(PyTorch, Keras\) or 'before' \(Cho et al. 2014\), got 'never'"),
        (lambda: nn.GRU(2, 3, dtype=int), "dtype must be a floating-point type, got int64"),
        (lambda: nn.LSTM(2, 3, forget_bias=float("nan")), "forget_bias"),
        (lambda: nn.LSTM(2, 3, forget_bias="1"), "forget_bias"),
    ],
)
def test_messages_of_constructors(make: Any, message: str) -> None:
    """A wrong argument is refused at once, with what was expected and what came."""
    with pytest.raises(tg.errors.ArgumentError, match=message):
        make()


X = np.ones((4, 2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LSTM(3, 5, rng=0)(X[..., :2]), r"LSTM: expected x of shape \(T, B, 3\) or \(T, 3\), got \(4, 2, 2\)"),
        (lambda: nn.LSTM(3, 5, rng=0, batch_first=True)(X[..., :2]), r"LSTM: expected x of shape \(B, T, 3\) or \(T, 3\), got \(4, 2, 2\)"),
        (lambda: nn.GRU(3, 5, rng=0)(X[0, 0]), r"GRU: expected x of shape .* got \(3,\)"),
        (lambda: nn.RNN(3, 5, rng=0)(X[:0]), r"RNN: x of shape \(0, 2, 3\) has no steps; expected at least one"),
        (lambda: nn.RNN(3, 5, rng=0)(X, np.ones((2, 5))), r"RNN: state.hidden has shape \(2, 5\); expected \(1, 2, 5\)"),
        (
            lambda: nn.LSTM(3, 5, rng=0)(X, (np.ones((1, 2, 5)), np.ones((1, 2, 4)))),
            r"state.cell has shape \(1, 2, 4\); expected \(1, 2, 5\)",
        ),
        (lambda: nn.LSTM(3, 5, rng=0)(X, np.ones((1, 2, 5))), r"LSTM: expected LSTMState\(hidden, cell\), got 1 part"),
        (lambda: nn.LSTMCell(3, 5, rng=0)(X), r"LSTMCell: expected x of shape \(B, 3\) or \(3,\), got \(4, 2, 3\)"),
        (lambda: nn.GRUCell(3, 5, rng=0)(X[0], np.ones((1, 5))), r"GRUCell: state.hidden has shape \(1, 5\); expected \(2, 5\)"),
    ],
)
def test_messages_of_calls(call: Any, message: str) -> None:
    """What does not fit is named, with the shape that was expected and the one that came."""
    with pytest.raises(tg.errors.TinygradError, match=message):
        call()


# -- numbers of the curriculum ----------------------------------------------------------------------------------------------------


def count(module: Any) -> int:
    return sum(p.size for p in module.parameters())


def test_parameter_counts() -> None:
    """Input 256, hidden 512: LSTM 1,574,912; GRU 1,181,184 without b_hn, a quarter fewer; b_hn adds 512."""
    for lstm, gru in ((nn.LSTM, nn.GRU), (nn.LSTMCell, nn.GRUCell)):
        assert count(lstm(256, 512, rng=0)) == 4 * (512 * 768 + 512) == 1_574_912
        assert count(gru(256, 512, reset="before", rng=0)) == 3 * (512 * 768 + 512) == 1_181_184
        assert count(gru(256, 512, rng=0)) == 1_181_184 + 512
        assert count(gru(256, 512, bias=False, rng=0)) == 3 * 512 * 768
        assert count(lstm(256, 512, bias=False, rng=0)) == 4 * 512 * 768
    assert 1_181_184 / 1_574_912 == 0.75


def test_lecture_cell_number_for_number() -> None:
    """The lecture's LSTMCell (one matrix on [h, x], blocks f, i, c̃, o, b_f = 1) is ours with its blocks put in our order."""
    inputs, size, steps = 3, 4, 6
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4 * size, inputs + size)) * 0.1
    b = np.zeros(4 * size)
    b[:size] = 1.0
    order = [["forget", "input", "candidate", "output"].index(gate.name) for gate in nn.LSTM_GATES]
    rows = np.concatenate([np.arange(k * size, (k + 1) * size) for k in order])
    cell = nn.LSTMCell(inputs, size)
    cell.load_state_dict({"weight_ih": w[rows, size:], "weight_hh": w[rows, :size], "bias": b[rows]})
    assert np.array_equal(b[rows][size : 2 * size], np.ones(size))
    h = c = np.zeros(size)
    state = None
    for _ in range(steps):
        x = rng.standard_normal(inputs)
        h, c = oracles.lecture_lstm_step(x, h, c, w, b)
        state = cell(x, state)
        assert oracles.difference(state.hidden.value, h) < 1e-14
        assert oracles.difference(state.cell.value, c) < 1e-14


# -- watching a kernel ------------------------------------------------------------------------------------------------------------


@all_kinds
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, [6, 2, 4]])
def test_state_hook_tells_what_a_trace_finds(name: str, bidirectional: bool, lengths: Any) -> None:
    """The norms that a kernel tells in passing are those of the state cotangents in the ledger of the opened pass."""
    kind = KINDS[name]
    layer = kind.layer(3, 4, rng=0, bidirectional=bidirectional, **kind.options)
    told: dict[str, Any] = {}
    handle = layer.register_state_hook(lambda name, norms, handed: told.__setitem__(name, norms))
    rng = np.random.default_rng(0)
    state = tuple(leaf(rng.normal(size=(1 + bidirectional, 3, 4))) for _ in range(kind.oracle.parts))
    outputs, last = layer(rng.normal(size=(6, 3, 3)), state, lengths)
    loss = (outputs * outputs).sum() + (last.hidden**3).sum()
    loss.backward()
    ledger = tg.trace(loss)
    assert len(told) == len(ledger.layers) == 1 + bidirectional
    for path in ledger.layers:
        own = path.rpartition("/")[2] if bidirectional else "l0"
        assert oracles.difference(told[own], [at.norm for at in sorted(ledger.states(path), key=lambda at: at.time)]) < 1e-13
    handle.remove()
    told.clear()
    layer(rng.normal(size=(6, 3, 3)))[0].sum().backward()
    assert told == {}


# -- what layers say ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LSTM(3, 4, bias=False, forget_bias=5.0), "forget_bias=5.0 needs biases"),
        (lambda: nn.LSTM(3, 4, init=nn.init.chrono(10)), "pass it as forget_bias"),
        (lambda: nn.LSTM(3, 4, forget_bias=nn.init.chrono), "a function of a size and a generator that gives 4 biases"),
        (lambda: nn.LSTM(3, 4, forget_bias=lambda size, rng: np.zeros(3)), "gives 4 biases"),
        (lambda: nn.GRU(3, 4, dtype="foo"), "dtype must be a floating-point type such as 'float32', got 'foo'"),
        (lambda: nn.GRU(3, 4, residual="deep"), "residual must be 'skip', 'dense' or None, got 'deep'"),
        (lambda: nn.GRU(3, 4, dropout=2.0), "p must be a probability"),
        (lambda: nn.RNN(3, 4)(X, lengths=[[1], [2, 3]]), r"lengths is ragged; expected one whole number per sequence, \(2,\)"),
        (lambda: nn.RNN(3, 4)(X, lengths=[1, 5]), r"lengths must be whole numbers from 0 to 4, got \[1, 5\]"),
    ],
)
def test_messages_of_options(call: Any, message: str) -> None:
    """An option that cannot be meant is refused, with what was expected and what came."""
    with pytest.raises(tg.errors.TinygradError, match=message):
        call()


def test_chrono_in_a_layer() -> None:
    """init.chrono draws every forget bias in [0, ln(T − 1)] and gives the input gate its negative, in each layer and direction."""
    layer = nn.LSTM(3, 50, 2, bidirectional=True, forget_bias=nn.init.chrono(100), rng=0)
    for name, parameter in layer.named_parameters():
        if name.startswith("bias"):
            i, f = parameter.value[:50], parameter.value[50:100]
            assert np.array_equal(i, -f)
            assert f.min() >= 0.0
            assert 0.8 * np.log(99) < f.max() <= np.log(99)


def test_a_layer_shows_its_options() -> None:
    """repr names what differs from the defaults."""
    shown = repr(nn.GRU(3, 4, 2, bidirectional=True, dropout=0.5, reset="before", residual="skip"))
    assert "GRU(num_layers=2, bidirectional=True, residual='skip', reset='before', weight_ih_l0 (12, 3)" in shown
    assert "dropout: Dropout(p=0.5)" in shown
    assert repr(nn.LSTM(3, 4)) == "LSTM(weight_ih_l0 (16, 3), weight_hh_l0 (16, 4), bias_l0 (16,))"
