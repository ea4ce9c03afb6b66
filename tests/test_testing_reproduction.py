"""What a broken law prints is pasted into a fresh interpreter, elsewhere, and the law is broken there in the same way."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.linear_maps import Scale
from tinygrad_rnn.nn import Linear as Affine
from tinygrad_rnn.primitive import PRIMITIVES, primitive
from tinygrad_rnn.testing import GradcheckError, gradcheck, laws, programs
from tinygrad_rnn.testing.as_code import Listing, written
from tinygrad_rnn.testing.reproduction import _kind

X = np.array([[0.5, -1.0, 0.3], [0.2, 0.7, -0.4]])
SEQUENCE = np.random.default_rng(0).normal(size=(4, 3, 2))
LENGTH = 2.0


def half(x: Any) -> Any:
    """x² with half of its derivative."""
    return x.detach() * x


def through_another(x: Any) -> Any:
    """Uses a function, a number, and two imports of this file."""
    return tg.tanh(half(x)) * LENGTH + functools.reduce(lambda a, b: a + b, [x, x])


@dataclasses.dataclass
class Settings:
    """What a model may be made from."""

    size: int
    leak: float = 0.5


class Gated(nn.Module):
    """Made from what it does not keep, with parts of ours, an array, a tuple and an object of one's own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.gate, self.new = Affine(settings.size, settings.size, rng=3), nn.Linear(settings.size, settings.size, rng=4)
        self.made_from = settings
        self.scales = (np.array([1.0, 2.0]), LENGTH)

    def forward(self, x: Any, h: Any = 0.0) -> Any:
        f = tg.sigmoid(self.gate(x)).detach()
        return f * h + (1 - f) * np.tanh(self.new(x)) * self.made_from.leak * self.scales[0]


class Clock(nn.Module):
    """A layer whose steps know their number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = laws.unroll(nn.RNNCell(2, 2, rng=0))

    def forward(self, x: Any, state: Any = None) -> Any:
        return self.inner(x * (1.0 + np.arange(len(x)))[:, None, None], state)


class Counting(nn.Module):
    """Another value at each call, from a number that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.calls = nn.Parameter([1.0, 2.0]), 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return x * self.weight * float(self.calls)


def of_a_primitive(law: Any) -> None:
    try:

        @primitive(name="planted cube")
        def cube(x: Any) -> Any:
            return x * x * x

        @cube.defrule
        def _(out: Any, x: Any) -> Any:
            return (Scale(LENGTH * x * x, "⊙ 2{0}²"),)

        law(cube, X)
    finally:
        del PRIMITIVES["planted cube"]


def of_a_function_with_a_primitive() -> None:
    try:
        cube = primitive(lambda x: x * x * x, name="planted", elementwise=True)
        cube.defrule(lambda out, x: (Scale(LENGTH * x * x),))
        gradcheck(lambda x: np.tanh(cube(x)), X)
    finally:
        del PRIMITIVES["planted"]


def of_a_function_of_numpy() -> None:
    try:
        minus = primitive(np.subtract, name="planted", elementwise=True)
        minus.defrule(lambda out, x, y: (Scale(1.0 + 0.0 * x), Scale(LENGTH + 0.0 * y)))
        gradcheck(minus, X, X)
    finally:
        del PRIMITIVES["planted"]


def of_a_program() -> None:
    wrong = programs.Operation("doubled", lambda x: x * 2.0, text=lambda names, statics: f"{names[0]} * 2.0")
    program = programs.random_program(3, most=3, operations=(wrong, *programs.OPERATIONS[:4]))
    laws.precision(lambda *xs: program.tilted(*xs) * np.ones(1), *program.point)


def of_a_closure() -> None:
    layer, table = nn.GRU(2, 2, 2, dropout=0.5, rng=0, reset="before"), {"one": [1.0, 2.0]}
    laws.determinism(lambda x: layer(x)[0] * table["one"][1], SEQUENCE)


BROKEN: dict[str, Callable[[], None]] = {
    "function": lambda: gradcheck(half, X),
    "function that uses others": lambda: gradcheck(through_another, X),
    "partial": lambda: gradcheck(functools.partial(lambda a, x: x.detach() * x * a, 3.0), X),
    "chain": lambda: laws.chain_rule(lambda x: x * np.random.default_rng().normal(), half, X),
    "primitive": lambda: of_a_primitive(laws.check),
    "primitive's law": lambda: of_a_primitive(laws.complex_step),
    "primitive in a function": of_a_function_with_a_primitive,
    "primitive of a function of NumPy's": of_a_function_of_numpy,
    "primitive of ours": lambda: laws.precision(lambda x: tg.tanh(x) * np.ones(3), X),
    "module": lambda: gradcheck(Gated(Settings(2)), X[:, :2], X[:, 1:]),
    "module without arguments": lambda: laws.time_shift(Clock(), SEQUENCE),
    "module that counts": lambda: laws.determinism(Counting(), X[:, :2]),
    "layer with dropout": lambda: laws.determinism(nn.LSTM(2, 2, num_layers=2, dropout=0.25, rng=1), SEQUENCE),
    "closure": of_a_closure,
    "method": lambda: gradcheck(Gated(Settings(2)).forward, X[:, :2]),
    "program": of_a_program,
    "state": lambda: gradcheck(lambda x, s: x * s.hidden.detach() * s.hidden, X, nn.RNNState(X)),
    "no axes": lambda: gradcheck(half, np.array(0.55)),
}


@pytest.fixture(scope="module")
def failures() -> dict[str, GradcheckError]:
    found = {}
    for name, broken in BROKEN.items():
        with pytest.raises(GradcheckError) as caught:
            broken()
        found[name] = caught.value
    return found


@pytest.fixture(scope="module")
def elsewhere(failures: dict[str, GradcheckError], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each listing raises in an interpreter that knows nothing of this file."""
    script = (
        "import json, sys\n"
        "said = {}\n"
        "for name, code in json.load(sys.stdin).items():\n"
        "    from tinygrad_rnn.primitive import PRIMITIVES\n"
        "    before = set(PRIMITIVES)\n"
        "    try:\n"
        "        exec(code, {'__name__': '__main__'})\n"
        "    except Exception as error:\n"
        "        said[name] = f'{type(error).__name__}: {getattr(error, \"message\", error)}'\n"
        "    for made in set(PRIMITIVES) - before:\n"
        "        del PRIMITIVES[made]\n"
        "print(json.dumps(said))\n"
    )
    given = json.dumps({name: error.reproduction for name, error in failures.items()})
    environment = {**os.environ, "PYTHONPATH": str(Path(tg.__file__).parents[1])}
    where = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, text=True, cwd=where, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", BROKEN)
def test_it_breaks_elsewhere(name: str, failures: dict[str, GradcheckError], elsewhere: dict[str, str]) -> None:
    """The listing raises the same error; only the numbers may be others."""
    assert _kind(elsewhere[name]) == _kind(f"GradcheckError: {failures[name].message}"), failures[name].reproduction


def test_a_module_that_changes_is_caught(failures: dict[str, GradcheckError]) -> None:
    """Also if it does so by setting a number: a module is called itself, and no copy of it."""
    assert "Counting: result 0" in failures["module that counts"].message


def test_numbers_are_plain(failures: dict[str, GradcheckError]) -> None:
    """Operands are cut to one entry and rounded, weights are those of the class where the law breaks with them too."""
    assert failures["function"].reproduction.endswith("laws.gradcheck(half, np.array([[0.5]]))")
    assert failures["no axes"].reproduction.endswith("laws.gradcheck(half, np.array(1.0))")
    assert "module = Clock()\nlaws.time_shift(module, " in failures["module without arguments"].reproduction
    made = "module = nn.LSTM(input_size=2, hidden_size=2, num_layers=2, dropout=0.25, rng=0)\nlaws.determinism(module, "
    assert made in failures["layer with dropout"].reproduction
    assert not re.search(r"-0\.0\b(?!\d)", "".join(error.reproduction for error in failures.values()))


def test_what_has_no_text_is_said() -> None:
    """A function typed at a prompt of an old Python, or made by one, has no source; its name stands there, with a comment."""
    with pytest.raises(GradcheckError) as caught:
        gradcheck(eval("lambda x: x.detach() * x"), X)
    assert "# given: function, from the program around it\nlaws.gradcheck(given, " in caught.value.reproduction


class Owned:
    """Objects that cannot be written out, each in its own way."""

    def __init__(self, depth: int = 0) -> None:
        self.owner = Owned(depth - 1) if depth else self
        self.factor = 2.0


class Touchy:
    """Raises when it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


class Locked(nn.Module):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.lock, self.itself = nn.Parameter([1.0]), threading.Lock(), self

    def forward(self, x: Any) -> Any:
        return x.detach() * x * self.weight


ring: list[Any] = [2.0]
ring.append(ring)
UNWRITTEN: dict[str, tuple[Any, str]] = {
    "itself": (Owned(), "Owned that holds itself"),
    "deep": (Owned(300), "Owned that holds too much"),
    "list in itself": (ring, "list that holds itself"),
    "many": (dict.fromkeys(range(2000), 2.0), "dict of 2000 entries"),
    "raises": (Touchy(), "Touchy"),
    "lock": (threading.Lock(), "lock"),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_what_cannot_be_written_is_named(name: str) -> None:
    """Whatever a function holds, the law's error comes, and its listing says what stands behind the name."""
    held, what = UNWRITTEN[name]
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: x.detach() * x if held is not None else x, X)
    assert f"# held: {what}, from the program around it\n" in caught.value.reproduction


def test_a_module_that_cannot_be_copied_is_named() -> None:
    """A lock and a way back to itself do not hide what is wrong."""
    with pytest.raises(GradcheckError, match="by reverse mode") as caught:
        gradcheck(Locked(), X)
    assert "# given: " in caught.value.reproduction


def test_long_arrays_are_said() -> None:
    """What is too long to be pasted, and must not be cut, is replaced by random numbers of its shape, and the listing says so."""
    long = np.linspace(0.1, 1.0, 1500)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: x.detach() * x * long.sum(), X[0])
    said = "# an array of shape (1500,) is too long to be written; random numbers stand for it\n"
    assert (
        said in caught.value.reproduction and "long = np.random.default_rng(0).uniform(-1.0, 1.0, (1500,))\n" in caught.value.reproduction
    )


@pytest.mark.parametrize(
    "value",
    [
        1.5, float("inf"), -float("inf"), None, ..., "it's", True, np.float32(0.1), np.int8(3), np.zeros((0, 3), np.float32),
        np.array(0.25), np.array([np.nan, np.inf, -0.1]), np.array([1, 2], np.int32), np.dtype("float32"), slice(1, None), (1.0,),
        [1, (2, np.ones(2))], {"a": [1.0], 2: None}, {1, 2}, set(),
    ],
    ids=repr,
)  # fmt: skip
def test_values_are_written_to_the_last_bit(value: Any) -> None:
    """What is written evaluates to the same value of the same type."""
    again = eval(Listing().expression(value), {"np": np})
    assert type(again) is type(value)
    np.testing.assert_equal(again, value)
    if not isinstance(value, (set, dict, slice, list)) and value is not ...:
        np.testing.assert_equal(eval(written(value), {"np": np}), value)


@pytest.mark.parametrize(
    "module",
    [
        nn.RNN(2, 3, 2, dropout=0.5, rng=0, nonlinearity="relu", residual="skip"), nn.LSTMCell(2, 3, rng=0),
        nn.LSTM(2, 3, rng=0, forget_bias=2.0, bidirectional=True), nn.RNNCell(2, 3, rng=0, nonlinearity="relu"),
        nn.GRU(2, 3, rng=0, reset="before", dtype="float32", bias=False),
        nn.Linear(2, 3, rng=0, bias=False), nn.Linear(2, 3, dtype="float32", rng=0), nn.Embedding(5, 2, rng=0, padding_idx=1),
        nn.Dropout(0.3, rng=0).eval(), nn.LayerNorm((3, 2), eps=0.1), nn.SelfAttention(4, heads=2, causal=True, rng=0),
        nn.Sequential(nn.Linear(2, 2, rng=0), nn.Dropout(0.2)), nn.Residual(nn.Linear(2, 2, rng=0)), nn.Highway(2, rng=0),
        laws.unroll(nn.GRUCell(2, 3, rng=5)),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_modules_are_made_again(module: Any) -> None:
    """As what they are, with all options and all parameters to the last bit."""
    listing = Listing()
    names: dict[str, Any] = {}
    code = listing.expression(module, "module")
    exec(f"{listing}\nagain = {code}", names)
    again = names["again"]
    assert repr(again) == repr(module) and again.training == module.training
    assert vars(again).keys() == vars(module).keys()
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)
    assert "__new__" not in code and "__new__" not in str(listing)
