"""The edges: empty and zero-dimensional operands, overflow, both precisions, and every way to hand over something that does not fit.

Everything here runs with warnings as errors: neither the forward nor the backward pass may warn.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DtypeError, IndexingError, ShapeError, TinygradError

INF, NAN = math.inf, math.nan
PRECISIONS = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        yield


# -- every operation on operands of every size ----------------------------------------------------------------------------------

ELEMENTWISE: dict[str, Callable[[Any], Any]] = {
    "negative": tg.negative, "square": tg.square, "sqrt": tg.sqrt, "reciprocal": tg.reciprocal, "exp": tg.exp, "expm1": tg.expm1,
    "log": tg.log,
    "log1p": tg.log1p, "sin": tg.sin, "cos": tg.cos, "tanh": tg.tanh, "sigmoid": tg.sigmoid, "relu": tg.relu, "softplus": tg.softplus,
    "abs": tg.abs, "add": lambda x: tg.add(x, x), "subtract": lambda x: tg.subtract(1.0, x), "multiply": lambda x: tg.multiply(x, 2),
    "divide": lambda x: tg.divide(x, x), "power": lambda x: tg.power(x, 3), "power of": lambda x: tg.power(2, x),
    "maximum": lambda x: tg.maximum(x, 1.0), "minimum": lambda x: tg.minimum(x, x), "where": lambda x: tg.where(x > 0, x, 0.0),
    "clip": lambda x: tg.clip(x, 0.75, 1.25), "clip open": lambda x: tg.clip(x), "xlogy": lambda x: tg.xlogy(x, x),
    "identity": tg.ops.identity,
}  # fmt: skip
REDUCING: dict[str, Callable[[Any], Any]] = {
    "sum": tg.sum, "sum keepdims": lambda x: tg.sum(x, keepdims=True), "sum ()": lambda x: tg.sum(x, ()), "prod": tg.prod,
    "logsumexp": tg.logsumexp, "norm": tg.norm, "norm 1": lambda x: tg.norm(tg.ravel(x), 1), "norm 3": lambda x: tg.norm(tg.ravel(x), 3),
    "cumsum": tg.cumsum, "mse": lambda x: tg.mse(x, x * 2.0),
}  # fmt: skip
NEEDS_ENTRIES: dict[str, Callable[[Any], Any]] = {
    "mean": tg.mean, "var": tg.var, "std": tg.std, "max": tg.max, "min": tg.min, "max keepdims": lambda x: tg.max(x, keepdims=True),
    "softmax": lambda x: tg.softmax(tg.ravel(x)), "log_softmax": lambda x: tg.log_softmax(tg.ravel(x)),
    "cross_entropy": lambda x: tg.cross_entropy(tg.ravel(x), 0), "norm inf": lambda x: tg.norm(tg.ravel(x), INF),
    "take": lambda x: tg.take(x, [0, 0]), "pad edge": lambda x: tg.pad(tg.ravel(x), 1, "edge"),
}  # fmt: skip
MOVING: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda x: tg.reshape(x, x.shape), "ravel": tg.ravel, "transpose": tg.transpose,
    "expand_dims": lambda x: tg.expand_dims(x, 0),
    "squeeze": tg.squeeze, "broadcast_to": lambda x: tg.broadcast_to(x, (2, *x.shape)), "flip": tg.flip, "roll": lambda x: tg.roll(x, 1),
    "repeat": lambda x: tg.repeat(x, 2), "tile": lambda x: tg.tile(x, 2), "pad": lambda x: tg.pad(x, 1), "...": lambda x: x[...],
    "None": lambda x: x[None], "mask": lambda x: x[x > 1.0], "stack": lambda x: tg.stack([x, x]), "astype": lambda x: x.astype(x.dtype),
    "concatenate": lambda x: tg.concatenate([x, x], axis=None), "outer": lambda x: tg.outer(x, x),
    "dot": lambda x: tg.dot(tg.ravel(x), tg.ravel(x)),
    "einsum": lambda x: tg.einsum("...,...->...", x, x), "matmul": lambda x: tg.ravel(x) @ tg.ravel(x),
    "moveaxis": lambda x: tg.moveaxis(x, (), ()),
}  # fmt: skip
NEEDS_MATRIX: dict[str, Callable[[Any], Any]] = {
    "swapaxes": lambda x: tg.swapaxes(x, 0, 1), "moveaxis": lambda x: tg.moveaxis(x, 0, -1), "tril": tg.tril,
    "triu": lambda x: tg.triu(x, 1),
    "diagonal": tg.diagonal, "matmul": lambda x: x @ x.T, "sum axis": lambda x: tg.sum(x, 0), "prod axis": lambda x: tg.prod(x, 1),
    "cumsum axis": lambda x: tg.cumsum(x, 1), "logsumexp axis": lambda x: tg.logsumexp(x, 0), "norm axis": lambda x: tg.norm(x, axis=1),
    "einsum": lambda x: tg.einsum("ij,kj->ik", x, x), "split": lambda x: tg.split(x, [1], 1)[1], "roll axis": lambda x: tg.roll(x, 1, 0),
    "repeat axis": lambda x: tg.repeat(x, 2, 1), "flip axis": lambda x: tg.flip(x, 1), "take none": lambda x: tg.take(x, [], 0),
    "concatenate": lambda x: tg.concatenate([x, x], 1), "rows": lambda x: x[:, None, ::-1], "index": lambda x: x[:0],
    "dot": lambda x: tg.dot(x, x.T),
}  # fmt: skip
SHAPES = [(), (1,), (3,), (2, 3), (0,), (0, 3), (2, 0), (1, 0, 2)]

SITUATIONS = [
    (f"{name} {shape}", call, shape)
    for table, applies in (
        (ELEMENTWISE | REDUCING | MOVING, lambda shape: True),
        (NEEDS_ENTRIES, lambda shape: 0 not in shape),
        (NEEDS_MATRIX, lambda shape: len(shape) == 2),
    )
    for name, call in table.items()
    for shape in SHAPES
    if applies(shape)
]


@PRECISIONS
@pytest.mark.parametrize(("call", "shape"), [s[1:] for s in SITUATIONS], ids=[s[0] for s in SITUATIONS])
def test_sizes_and_precision(call: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any) -> None:
    """Empty, zero-dimensional or not: value, gradient and second derivative keep shape and precision, and nothing warns."""
    array = np.random.default_rng(0).uniform(0.5, 2.0, shape).astype(dtype)
    x = tg.tensor(array, requires_grad=True)
    out = call(x)
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        plain = call(array)  # on plain arrays NumPy's own rules hold, its warnings included
    assert isinstance(out, tg.Tensor)
    assert out.dtype == plain.dtype == dtype
    assert out.shape == np.shape(plain)
    np.testing.assert_array_equal(out.value, plain)
    assert out.requires_grad
    (gradient,) = tg.grad(out, x, np.ones(out.shape, dtype))
    assert (gradient.shape, gradient.dtype) == (shape, dtype)
    assert np.isfinite(gradient.value).all()
    (again,) = tg.grad(out, x, np.ones(out.shape, dtype), create_graph=True)
    np.testing.assert_allclose(again.value, gradient.value, rtol=1e-6)
    assert again.dtype == dtype
    if again.requires_grad:
        (second,) = tg.grad(again, x, np.ones(shape), allow_unused=True)
        assert (second.shape, second.dtype) == (shape, dtype)
        assert np.isfinite(second.value).all()
    value, tangent = tg.jvp(call, array, np.ones(shape, dtype))
    assert (value.dtype, tangent.dtype, tangent.shape) == (dtype, dtype, out.shape)


def test_means_of_nothing_are_nan_without_a_warning() -> None:
    """The mean and the variance of no entries are NaN, of shape and dtype as usual; their gradients are empty."""
    for call in (tg.mean, tg.var, tg.std):
        for dtype in (np.float64, np.float32):
            x = tg.tensor(np.zeros((0, 3), dtype), requires_grad=True)
            out = call(x, axis=0)
            assert out.dtype == dtype
            assert np.isnan(out.value).all()
            assert tg.grad(out, x, np.ones(3))[0].shape == (0, 3)


def test_cross_entropy_of_an_empty_batch() -> None:
    """A mean over no targets is refused, as one over targets that are all ignored is; their sum is 0, and so is its gradient."""
    logits = tg.tensor(np.zeros((0, 3)), requires_grad=True)
    with pytest.raises(ArgumentError, match="there are no targets"):
        tg.cross_entropy(logits, [])
    loss = tg.cross_entropy(logits, [], reduction="sum")
    assert loss.item() == 0.0
    loss.backward()
    assert logits.grad.shape == (0, 3)


@pytest.mark.parametrize("call", [tg.max, tg.min, lambda x: tg.norm(x, INF)])
def test_extremes_of_nothing_are_refused(call: Callable[[Any], Any]) -> None:
    """There is no largest entry of nothing; along another, empty axis the result is simply empty."""
    with pytest.raises(ShapeError, match="no entries"):
        call(tg.tensor(np.zeros(0)))
    assert tg.max(tg.tensor(np.zeros((2, 0, 3))), axis=2).shape == (2, 0)


# -- overflow ----------------------------------------------------------------------------------------------------------------------

STEEP: list[tuple[str, Callable[[Any], Any], float, float, float]] = [
    ("tanh", tg.tanh, 1000.0, 1.0, 0.0), ("tanh", tg.tanh, -1000.0, -1.0, 0.0), ("sigmoid", tg.sigmoid, 1000.0, 1.0, 0.0),
    ("sigmoid", tg.sigmoid, -1000.0, 0.0, 0.0), ("softplus", tg.softplus, 1000.0, 1000.0, 1.0),
    ("softplus", tg.softplus, -1000.0, 0.0, 0.0),
    ("exp", tg.exp, 1000.0, INF, INF), ("exp", tg.exp, -1000.0, 0.0, 0.0), ("expm1", tg.expm1, -1000.0, -1.0, 0.0),
    ("expm1", tg.expm1, 1000.0, INF, INF), ("relu", tg.relu, -1000.0, 0.0, 0.0), ("relu", tg.relu, 1000.0, 1000.0, 1.0),
    ("logsumexp", lambda x: tg.logsumexp(tg.stack([x, x - 2000.0])), 1000.0, 1000.0, 1.0),
    ("logsumexp", lambda x: tg.logsumexp(tg.stack([x, x - 2000.0])), -1000.0, -1000.0, 1.0),
    ("softmax", lambda x: tg.softmax(tg.stack([x, x * 0.0]))[0], 1000.0, 1.0, 0.0),
    ("softmax", lambda x: tg.softmax(tg.stack([x, x * 0.0]))[0], -1000.0, 0.0, 0.0),
    ("log_softmax", lambda x: tg.log_softmax(tg.stack([x, x * 0.0]))[0], 1000.0, 0.0, 0.0),
    ("log_softmax", lambda x: tg.log_softmax(tg.stack([x, x * 0.0]))[0], -1000.0, -1000.0, 1.0),
    ("cross_entropy", lambda x: tg.cross_entropy(tg.stack([x, x * 0.0]), 0), 1000.0, 0.0, 0.0),
    ("cross_entropy", lambda x: tg.cross_entropy(tg.stack([x, x * 0.0]), 0), -1000.0, 1000.0, -1.0),
    ("logaddexp", lambda x: np.logaddexp(x, 0.0), 1000.0, 1000.0, 1.0), ("logaddexp", lambda x: np.logaddexp(x, 0.0), -1000.0, 0.0, 0.0),
    ("log", tg.log, 0.0, -INF, INF), ("sqrt", tg.sqrt, 0.0, 0.0, INF), ("reciprocal", tg.reciprocal, 0.0, INF, -INF),
    ("norm", lambda x: tg.norm(tg.stack([x, x])), 0.0, 0.0, 0.0), ("std", lambda x: tg.std(tg.stack([x, x])), 5.0, 0.0, 0.0),
    ("xlogy", lambda x: tg.xlogy(x, x), 0.0, 0.0, 0.0), ("abs", tg.abs, 0.0, 0.0, 0.0), ("power", lambda x: x**0, 0.0, 1.0, 0.0),
    ("power", lambda x: x**1, 0.0, 0.0, 1.0), ("power", lambda x: x**2.5, 0.0, 0.0, 0.0), ("power", lambda x: x**-1, 0.0, INF, -INF),
    ("power", lambda x: 0.0**x, 2.0, 0.0, 0.0), ("power", lambda x: x**3, -2.0, -8.0, 12.0),
    ("prod", lambda x: tg.prod(tg.stack([x, x, x])), 0.0, 0.0, 0.0),
    ("divide", lambda x: x / 0.0, 1.0, INF, INF), ("divide", lambda x: 1.0 / x, -INF, -0.0, -0.0),
    ("clip", lambda x: tg.clip(x, -1, 1), INF, 1.0, 0.0),
]  # fmt: skip


@PRECISIONS
@pytest.mark.parametrize(("call", "point", "value", "slope"), [s[1:] for s in STEEP], ids=[f"{s[0]} at {s[2]}" for s in STEEP])
def test_nothing_overflows_by_surprise(call: Callable[[Any], Any], point: float, value: float, slope: float, dtype: Any) -> None:
    """At ±1000, at 0 and at infinity, value and slope are the limits that mathematics gives (PyTorch's at a kink), with no warning."""
    x = tg.tensor(np.array(point, dtype), requires_grad=True)
    out = call(x)
    out.backward()
    assert out.item() == value
    assert x.grad.item() == slope
    assert out.dtype == x.grad.dtype == dtype


EXTREMES = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e-45, 1000.0, -1000.0, 1e30, -1e30, 1e300, -1e300, INF, -INF, NAN]


@PRECISIONS
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_extreme_entries_never_warn(name: str, dtype: Any) -> None:
    """No entry, finite or not, and no cotangent makes a warning, in the value, the gradient or the second derivative."""
    with np.errstate(all="ignore"):
        array = np.array(EXTREMES).astype(dtype)
    x = tg.tensor(array, requires_grad=True)
    for cotangent in (1.0, 0.0, INF, NAN, 1e30):
        out = ELEMENTWISE[name](x)
        (gradient,) = tg.grad(out, x, np.full(out.shape, cotangent), create_graph=True)
        if gradient.requires_grad:
            tg.grad(gradient, x, np.ones(array.shape), allow_unused=True)
        tg.jvp(ELEMENTWISE[name], x, np.full(array.shape, cotangent))


@PRECISIONS
@pytest.mark.parametrize("call", [
    tg.add, tg.subtract, tg.multiply, tg.divide, tg.power, tg.maximum, tg.minimum, tg.xlogy, np.logaddexp,
    lambda a, b: tg.where(a > b, a, b),
    lambda a, b: tg.clip(a, b, 1.0), lambda a, b: tg.stack([a, b]).var(0), lambda a, b: tg.stack([a, b]).std(0),
    lambda a, b: tg.stack([a, b]).norm(axis=0),
    lambda a, b: tg.stack([a, b]).prod(0), lambda a, b: tg.stack([a, b]).max(0), lambda a, b: tg.stack([a, b]).logsumexp(0),
    lambda a, b: a @ b,
    lambda a, b: tg.softmax(tg.stack([a, b]), 0), lambda a, b: tg.log_softmax(tg.stack([a, b]), 0),
    lambda a, b: tg.stack([a, b]).norm(3, 0),
    lambda a, b: tg.mse(a, b), lambda a, b: tg.einsum("i,i->", a, b), lambda a, b: tg.stack([a, b]).cumsum(0),
    lambda a, b: tg.stack([a, b]).mean(0),
])  # fmt: skip
def test_extreme_pairs_never_warn(call: Callable[[Any, Any], Any], dtype: Any) -> None:
    """The same for every pair of extreme entries."""
    with np.errstate(all="ignore"):
        left, right = np.array(list(itertools.product(EXTREMES, repeat=2))).T.astype(dtype)
    a, b = tg.tensor(left, requires_grad=True), tg.tensor(right, requires_grad=True)
    out = call(a, b)
    gradients = tg.grad(out, (a, b), np.ones(out.shape), create_graph=True, allow_unused=True)
    recorded = [g for g in gradients if g.requires_grad]
    if recorded:
        tg.grad(recorded, (a, b), [np.ones(g.shape) for g in recorded], allow_unused=True)
    assert out.dtype == gradients[0].dtype == gradients[1].dtype == dtype


def test_a_branch_not_taken_leaks_nothing() -> None:
    """``where`` sends exactly 0 into the branch it did not take, also when that branch's own slope is infinite or NaN there."""
    x = tg.tensor([0.0, 4.0], requires_grad=True)
    safe = tg.where(x > 0, x, 1.0)
    tg.where(x > 0, tg.sqrt(safe), 0.0).sum().backward()
    np.testing.assert_array_equal(x.grad.value, [0.0, 0.25])
    y = tg.tensor([0.0, 1.0], requires_grad=True)
    for strange in (INF, NAN):
        (gradient,) = tg.grad(tg.where([True, False], y, 2.0), y, np.array([1.0, strange]))
        np.testing.assert_array_equal(gradient.value, [1.0, 0.0])


def test_products_of_tiny_numbers_have_exact_gradients() -> None:
    """A product that underflows still has the gradient of its factors: it is never computed as product ÷ factor."""
    x = tg.tensor([-1.0, 1e-200, 1e-200], requires_grad=True)
    out = tg.prod(x)
    out.backward()
    assert out.item() == 0.0
    np.testing.assert_array_equal(x.grad.value, [0.0, -1e-200, -1e-200])


def test_lengths_of_huge_and_tiny_vectors() -> None:
    """The norm scales before it squares: 1e200 and 1e-200 have a length and a direction."""
    for size in (1e200, 1e-200, 5e-324):
        x = tg.tensor([3.0 * size, 4.0 * size], requires_grad=True)
        out = x.norm()
        out.backward()
        assert out.item() == pytest.approx(math.hypot(*x.value), rel=1e-12, abs=0.0)
        np.testing.assert_allclose(x.grad.value, [0.6, 0.8], rtol=1e-12)


def test_the_left_tail_of_the_sigmoid_keeps_its_digits() -> None:
    """σ(−40) = 4.248354255291589e-18 to the last digit, and its slope is as large."""
    x = tg.tensor(-40.0, requires_grad=True)
    out = tg.sigmoid(x)
    out.backward()
    np.testing.assert_allclose(out.item(), 4.248354255291589e-18, rtol=1e-15)
    np.testing.assert_allclose(x.grad.item(), 4.248354255291589e-18, rtol=1e-15)


def test_log_softmax_keeps_small_results_beside_large_entries() -> None:
    """The loss of a confident model is right to the last digits: ln(1 + e⁻¹⁰) does not drown in logits of 1000."""
    loss = tg.cross_entropy(tg.tensor([1000.0, 990.0]), 0)
    np.testing.assert_allclose(loss.item(), np.log1p(np.exp(-10.0)), rtol=1e-11)


def test_constants_beyond_the_precision_become_infinite_silently() -> None:
    """A Python number that float32 cannot hold is infinite there, as in the rest of the arithmetic, without a warning."""
    x = tg.tensor(np.ones(2, np.float32), requires_grad=True)
    for out in (
        x * 1e300,
        1e300 + x,
        x.astype(np.float16) * 70000,
        tg.tensor([1e300], dtype=np.float32),
        tg.tensor([1e300]).astype(np.float32),
    ):
        assert np.isinf(out.value).all()


# -- what is not a real number ---------------------------------------------------------------------------------------------------------

NOT_NUMBERS: dict[str, Any] = {
    "complex": 1j,
    "complex array": np.ones(3, complex),
    "object array": np.array([None, 1.0, len]),
    "string": "abc",
    "string array": np.array(["a", "b", "c"]),
    "bytes": b"abc",
    "datetime array": np.array(["2020-01-01"] * 3, "M8[D]"),
    "timedelta": np.timedelta64(1, "s"),
    "structured array": np.zeros(3, "f8,i4"),
    "ragged list": [[1.0], [1.0, 2.0]],
    "None": None,
    "dict": {},
    "Decimal": Decimal(1),
    "function": len,
}
ENTRANCES: dict[str, Callable[[Any, Any], Any]] = {
    "tensor()": lambda t, bad: tg.tensor(bad),
    "Tensor()": lambda t, bad: tg.Tensor(bad, requires_grad=True),
    "tensor(dtype=)": lambda t, bad: tg.tensor(bad, dtype=np.float32),
    "t + bad": lambda t, bad: t + bad,
    "bad + t": lambda t, bad: bad + t,
    "t - bad": lambda t, bad: t - bad,
    "bad * t": lambda t, bad: bad * t,
    "t / bad": lambda t, bad: t / bad,
    "t ** bad": lambda t, bad: t**bad,
    "t @ bad": lambda t, bad: t @ bad,
    "bad @ t": lambda t, bad: bad @ t,
    "t < bad": lambda t, bad: t < bad,
    "np.add": lambda t, bad: np.add(t, bad),
    "np.maximum": lambda t, bad: np.maximum(bad, t),
    "np.concatenate": lambda t, bad: np.concatenate([t, bad]),
    "np.where": lambda t, bad: np.where([True, False, True], t, bad),
    "concatenate": lambda t, bad: tg.concatenate([bad, t]),
    "stack": lambda t, bad: tg.stack([t, bad]),
    "where": lambda t, bad: tg.where([True, False, True], bad, t),
    "where condition": lambda t, bad: tg.where(bad, t, t),
    "maximum": lambda t, bad: tg.maximum(t, bad),
    "xlogy left": lambda t, bad: tg.xlogy(bad, t),
    "xlogy right": lambda t, bad: tg.xlogy(t, bad),
    "dot": lambda t, bad: tg.dot(t, bad),
    "outer": lambda t, bad: tg.outer(bad, t),
    "einsum": lambda t, bad: tg.einsum("i,...->i", t, bad),
    "pad values": lambda t, bad: tg.pad(t, 1, constant_values=bad),
    "mse": lambda t, bad: tg.mse(t, bad),
    "cross_entropy targets": lambda t, bad: tg.cross_entropy(tg.stack([t, t, t]), bad),
    "take": lambda t, bad: tg.take(t, bad),
    "backward": lambda t, bad: (t * 1.0).backward(bad),
    "grad cotangent": lambda t, bad: tg.grad(t * 1.0, t, [bad]),
    "vjp input": lambda t, bad: tg.vjp(tg.tanh, bad),
    "vjp cotangent": lambda t, bad: tg.vjp(tg.tanh, t)[1](bad),
    "jvp tangent": lambda t, bad: tg.jvp(tg.tanh, (t,), (bad,)),
    "jacobian": lambda t, bad: tg.jacobian(tg.tanh, bad),
    "value": lambda t, bad: setattr(t, "value", bad),
}


ORDERED = ("complex", "complex array", "Decimal")  # NumPy compares these, and an answer of booleans needs no derivative


@pytest.mark.parametrize(("kind", "entrance"), [(k, e) for k in NOT_NUMBERS for e in ENTRANCES if not (k in ORDERED and e == "t < bad")])
def test_only_real_numbers_come_in(kind: str, entrance: str) -> None:
    """Complex, object, string and time values and ragged lists are refused with our own error wherever data can enter."""
    t = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    with pytest.raises(TinygradError) as caught:
        ENTRANCES[entrance](t, NOT_NUMBERS[kind])
    assert len(str(caught.value)) > 20
    np.testing.assert_array_equal(t.value, [1.0, 2.0, 3.0])
    assert t.grad is None


def test_messages_name_the_kind_and_the_remedy() -> None:
    """Each kind of data has its own hint."""
    t = tg.tensor([1.0, 2.0], requires_grad=True)
    for data, parts in (
        (1j, ["complex128", ".real and .imag"]),
        (np.array([None]), ["object", ".astype(float)"]),
        ("a", ["<U1", "numbers"]),
        ([[1.0], [1.0, 2.0]], ["ragged", "Pad it"]),
    ):
        for call in (tg.tensor, lambda data: t + data):
            with pytest.raises(TinygradError) as caught:
                call(data)
            for part in parts:
                assert part in str(caught.value)
    with pytest.raises(DtypeError, match="add: expected real numbers"):
        t + 1j


# -- shapes that do not fit ----------------------------------------------------------------------------------------------------------


def tensor(*shape: int) -> Any:
    return tg.tensor(np.ones(shape), requires_grad=True)


MISFITS: list[tuple[str, Callable[[], Any], list[str]]] = [

    ("matmul inner", lambda: tensor(2, 5) @ tensor(4, 3), ["matmul", "operand 1", "(4, 3)", "expected 5 rows", "(2, 5)", "Check"]),
    ("matmul transposed", lambda: tensor(2, 5) @ tensor(3, 5), ["matmul", "operand 1", "(3, 5)", "(2, 5)", "transpose operand 1"]),
    ("matmul vectors", lambda: tensor(2) @ tensor(3), ["matmul", "(3,)", "expected 2 rows", "(2,)"]),
    ("matmul scalar", lambda: tensor() @ tensor(3), ["matmul", "scalar", "Use *"]),
    ("matmul stacks", lambda: tensor(2, 3, 4) @ tensor(5, 4, 6), ["matmul", "(2,)", "(5,)", "do not broadcast"]),
    ("rmatmul", lambda: np.ones((2, 3)) @ tensor(4, 5), ["matmul", "(4, 5)", "expected 3 rows"]),
    ("add", lambda: tensor(2, 3) + tensor(4), ["add", "(2, 3)", "(4,)", "do not broadcast", "Reshape"]),
    ("multiply array", lambda: np.ones((3, 1)) * tensor(2, 2), ["multiply", "(3, 1)", "(2, 2)", "do not broadcast"]),
    ("np.maximum", lambda: np.maximum(tensor(2), tensor(3)), ["maximum", "(2,)", "(3,)", "broadcast"]),
    ("comparison", lambda: tensor(2) < tensor(3), ["lt", "(2,)", "(3,)", "broadcast"]),
    ("where", lambda: tg.where([True, False], tensor(3), 0.0), ["where", "(2,)", "(3,)", "do not broadcast"]),

    ("concatenate", lambda: tg.concatenate([tensor(2, 3), tensor(2, 4)]), ["concatenate", "operand 1", "(2, 4)", "expected", "(2, 3)"]),
    ("concatenate ndim", lambda: tg.concatenate([tensor(2, 3), tensor(3)]), ["concatenate", "operand 1", "(3,)", "(2, 3)"]),
    ("concatenate scalars", lambda: tg.concatenate([tensor(), tensor()]), ["concatenate", "zero-dimensional", "use stack"]),
    ("concatenate nothing", lambda: tg.concatenate([]), ["concatenate", "at least one"]),
    ("stack", lambda: tg.stack([tensor(2), tensor(3)]), ["stack", "operand 1", "(3,)", "expected", "(2,)"]),
    ("stack nothing", lambda: tg.stack([]), ["stack", "at least one"]),
    ("reshape", lambda: tensor(2, 3).reshape(4, 2), ["reshape", "6 entries", "(2, 3)", "(4, 2)"]),
    ("reshape −1", lambda: tensor(2, 3).reshape(4, -1), ["reshape", "6 entries", "(4, -1)", "−1"]),
    ("reshape two −1", lambda: tensor(2, 3).reshape(-1, -1), ["reshape", "(-1, -1)", "one −1"]),
    ("reshape negative", lambda: tensor(2, 3).reshape(-2, -3), ["reshape", "(-2, -3)"]),
    ("reshape float", lambda: tensor(2, 3).reshape(2.0, 3.0), ["reshape", "whole numbers", "(2.0, 3.0)"]),
    ("broadcast_to", lambda: tg.broadcast_to(tensor(2), (3, 4)), ["broadcast_to", "(2,)", "(3, 4)", "length 1"]),
    ("broadcast_to fewer", lambda: tg.broadcast_to(tensor(2, 3), (3,)), ["broadcast_to", "(2, 3)", "(3,)"]),
    ("broadcast_to negative", lambda: tg.broadcast_to(tensor(1), (-1,)), ["broadcast_to", "(-1,)"]),
    ("sum axis", lambda: tensor(2, 3).sum(axis=2), ["sum", "axis 2", "[-2, 2)", "2 dimensions"]),
    ("sum negative axis", lambda: tensor(2, 3).sum(axis=-3), ["sum", "axis -3", "[-2, 2)"]),
    ("sum axis twice", lambda: tensor(2, 3).sum(axis=(0, -2)), ["sum", "(0, -2)", "twice"]),
    ("sum axis float", lambda: tensor(2, 3).sum(axis=1.5), ["sum", "whole numbers", "1.5"]),
    ("sum axis string", lambda: tensor(2, 3).sum(axis="rows"), ["sum", "whole numbers", "rows"]),
    ("sum axis of a scalar", lambda: tensor().sum(axis=0), ["sum", "axis 0", "0 dimensions"]),
    ("np.mean axis", lambda: np.mean(tensor(2), axis=1), ["mean", "axis 1"]),
    ("np.max axis", lambda: np.max(tensor(2), axis=(0, 1)), ["max", "axis 1"]),
    ("cumsum axis", lambda: tg.cumsum(tensor(2), 1), ["cumsum", "axis 1"]),
    ("softmax axis", lambda: tg.softmax(tensor(2), 1), ["softmax", "axis 1"]),
    ("transpose", lambda: tg.transpose(tensor(2, 3), (0,)), ["transpose", "(0,)", "2 dimensions"]),
    ("transpose twice", lambda: tg.transpose(tensor(2, 3), (0, 0)), ["transpose", "twice"]),
    ("swapaxes", lambda: tg.swapaxes(tensor(2, 3), 0, 5), ["swapaxes", "axis 5"]),
    ("moveaxis", lambda: tg.moveaxis(tensor(2, 3), (0, 1), 0), ["moveaxis", "2 sources", "1 destinations"]),
    ("expand_dims", lambda: tg.expand_dims(tensor(2), 3), ["expand_dims", "axis 3"]),
    ("squeeze", lambda: tg.squeeze(tensor(2, 1), 0), ["squeeze", "axis 0", "length 2", "length 1"]),
    ("split", lambda: tg.split(tensor(5), 2), ["split", "length 5", "2 equal"]),
    ("split none", lambda: tg.split(tensor(5), 0), ["split", "0 equal"]),
    ("split axis", lambda: tg.split(tensor(5), 1, 1), ["split", "axis 1"]),
    ("einsum count", lambda: tg.einsum("ij,jk", tensor(2, 3)), ["einsum", "2 operands", "got 1"]),
    ("einsum length", lambda: tg.einsum("ij,jk", tensor(2, 3), tensor(4, 5)), ["einsum", "'j'", "operand 1", "length 4", "expected 3"]),
    ("einsum dimensions", lambda: tg.einsum("ijk->i", tensor(2, 3)), ["einsum", "operand 0", "2 dimensions", "names 3"]),
    ("einsum letters", lambda: tg.einsum("i1->i", tensor(2, 3)), ["einsum", "'i1'", "letters"]),
    ("einsum result", lambda: tg.einsum("ij->k", tensor(2, 3)), ["einsum", "ij->k", "no operand has"]),
    ("einsum repeated result", lambda: tg.einsum("ij->ii", tensor(2, 3)), ["einsum", "repeats an index"]),
    ("einsum two arrows", lambda: tg.einsum("ij->i->j", tensor(2, 3)), ["einsum"]),
    ("einsum two ellipses", lambda: tg.einsum("...i...->i", tensor(2, 3)), ["einsum"]),
    ("einsum no string", lambda: tg.einsum(tensor(2), [0]), ["einsum", "string"]),
    ("take", lambda: tg.take(tensor(2, 3), [0, 3], 1), ["take", "3", "axis 1", "size 3", "(2, 3)"]),
    ("take axis", lambda: tg.take(tensor(2, 3), [0], 2), ["take", "axis 2"]),
    ("take floats", lambda: tg.take(tensor(3), [0.5]), ["take", "float64", "integers"]),
    ("diagonal", lambda: tg.diagonal(tensor(3)), ["diagonal", "2 dimensions", "(3,)"]),
    ("tril", lambda: tg.tril(tensor(3)), ["tril", "2 dimensions", "(3,)"]),
    ("np.trace", lambda: np.trace(tensor(3)), ["diagonal", "2 dimensions"]),
    ("repeat counts", lambda: tg.repeat(tensor(3), [1, 2], 0), ["repeat", "2 counts", "length 3"]),
    ("repeat negative", lambda: tg.repeat(tensor(3), -1), ["repeat", "-1"]),
    ("tile negative", lambda: tg.tile(tensor(3), -1), ["tile", "-1"]),
    ("roll axes", lambda: tg.roll(tensor(2, 3), (1, 2, 3), (0, 1)), ["roll", "3 shifts", "2 axes"]),
    ("roll axis", lambda: tg.roll(tensor(2), 1, 1), ["roll", "axis 1"]),
    ("flip axis", lambda: tg.flip(tensor(2), 1), ["flip", "axis 1"]),
    ("pad width", lambda: tg.pad(tensor(2, 3), ((1, 1), (1, 1), (1, 1))), ["pad", "pad_width", "(2, 3)"]),
    ("pad negative", lambda: tg.pad(tensor(2), -1), ["pad", "-1", "0 or more"]),
    ("pad mode", lambda: tg.pad(tensor(2), 1, "mean"), ["pad", "'mean'", "constant, edge"]),
    ("pad values", lambda: tg.pad(tensor(2), 1, constant_values=[1.0, 2.0, 3.0]), ["pad", "constant_values", "(3,)"]),
    ("pad edge of nothing", lambda: tg.pad(tensor(0), 1, "edge"), ["pad", "no entries", "constant"]),
    ("norm order", lambda: tg.norm(tensor(2), "nuc"), ["norm", "'nuc'"]),
    ("norm negative", lambda: tg.norm(tensor(2), -2), ["norm", "-2", "positive"]),
    ("matrix norm", lambda: np.linalg.norm(tensor(2, 3), 2), ["norm", "matrix norm", "singular values"]),
    ("matrix norm axes", lambda: np.linalg.norm(tensor(2, 3), 1, axis=(0, 1)), ["norm", "matrix norm"]),
    ("max of nothing", lambda: tg.max(tensor(0, 3), axis=0), ["max", "(0, 3)", "no entries"]),
    ("cross_entropy shape", lambda: tg.cross_entropy(tensor(2, 3), [0, 1, 2]), ["cross_entropy", "(2, 3)", "(2,)", "got (3,)"]),
    ("cross_entropy range", lambda: tg.cross_entropy(tensor(2, 3), [0, 3]), ["cross_entropy", "0 to 3", "expected 0 to 2"]),
    ("cross_entropy negative", lambda: tg.cross_entropy(tensor(2, 3), [-1, 0]), ["cross_entropy", "-1 to 0"]),
    ("cross_entropy floats", lambda: tg.cross_entropy(tensor(2, 3), [0.0, 1.0]), ["cross_entropy", "integer", "float64"]),
    ("cross_entropy scalar", lambda: tg.cross_entropy(tensor(), 0), ["cross_entropy", "()"]),
    ("mse", lambda: tg.mse(tensor(2, 1), tensor(2)), ["mse", "(2, 1)", "(2,)", "reshape"]),
    ("cotangent", lambda: tensor(2).backward(np.ones(3)), ["backward", "cotangent", "(2,)", "got (3,)"]),
    ("no cotangent", lambda: tensor(2).backward(), ["backward", "(2,)", "not a scalar", "cotangent"]),
    ("grad cotangent", lambda: tg.grad(tensor(2) * 1.0, tensor(2), np.ones(3)), ["grad", "(2,)", "(3,)"]),
    ("value", lambda: setattr(tensor(2), "value", np.ones(3)), ["value", "(2,)", "(3,)"]),
    ("np.hstack", lambda: np.hstack([tensor(2, 3), tensor(1, 3)]), ["concatenate", "operand 1", "(1, 3)"]),
    ("np.vstack", lambda: np.vstack([tensor(2, 3), tensor(2)]), ["concatenate", "operand 1", "(1, 2)"]),
    ("np.tensordot", lambda: np.tensordot(tensor(2, 3), tensor(2, 3), 1), ["tensordot", "(2, 3)", "do not fit"]),
    ("np.inner", lambda: np.inner(tensor(2), tensor(3)), ["(2,)", "(3,)", "do not fit"]),
    ("np.average", lambda: np.average(tensor(2, 3), axis=0, weights=[1.0, 2.0, 3.0]), ["average", "(3,)", "(2, 3)"]),
    ("np.take_along_axis", lambda: np.take_along_axis(tensor(2, 3), np.array([0]), 1), ["take_along_axis", "(1,)", "(2, 3)"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "parts"), [m[1:] for m in MISFITS], ids=[m[0] for m in MISFITS])
def test_messages_say_what_does_not_fit(call: Callable[[], Any], parts: Sequence[str]) -> None:
    """An error names the operation and the operand, says what was expected and what came, and is a ValueError (or IndexError)."""
    with pytest.raises(TinygradError) as caught:
        call()
    assert isinstance(caught.value, (ValueError, IndexError, RuntimeError))
    for part in parts:
        assert part in str(caught.value)


INDEX_ERRORS: list[tuple[str, Any, list[str]]] = [
    ("beyond", 10, ["index", "10", "axis 0", "size 3", "(3, 4)"]),
    ("before", -4, ["index", "-4", "axis 0", "size 3"]),
    ("second axis", (0, 4), ["index", "4", "axis 1", "size 4"]),
    ("too many", (0, 0, 0), ["index", "too many", "(3, 4)"]),
    ("array beyond", np.array([0, 3]), ["index", "3", "axis 0", "size 3"]),
    ("mask too long", np.array([True] * 4), ["index", "boolean", "axis 0"]),
    ("mask of another shape", np.ones((3, 3), bool), ["index", "boolean", "axis 1"]),
    ("float", 1.0, ["index", "float64", "integers or booleans", ".astype(int)"]),
    ("float array", np.array([0.0, 1.0]), ["index", "float64", ".astype(int)"]),
    ("float slice", slice(0.5, 2), ["index", "slice indices must be integers"]),
    ("string", "a", ["index", "<U1", "integers or booleans"]),
    ("object", object(), ["index", "object"]),
    ("dict", {}, ["index", "object"]),
    ("two ellipses", (Ellipsis, Ellipsis), ["index", "ellipsis"]),
    ("arrays that do not broadcast", (np.array([0, 1]), np.array([0, 1, 2])), ["index", "broadcast"]),
    ("ragged", [[0], [0, 1]], ["index", "inhomogeneous"]),
    ("tensor of floats", tg.tensor([0.0, 1.0]), ["index", "float64"]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "parts"), [i[1:] for i in INDEX_ERRORS], ids=[i[0] for i in INDEX_ERRORS])
def test_wrong_indices_are_index_errors(key: Any, parts: Sequence[str]) -> None:
    """A wrong index raises an IndexError of our own that says which axis and how long it is, for Tensors and arrays alike."""
    for x in (tensor(3, 4), np.ones((3, 4))):
        with pytest.raises(TinygradError) as caught:
            tg.ops.getitem(x, key)
        assert isinstance(caught.value, IndexingError)
        for part in parts:
            assert part in str(caught.value)


def test_indices_may_be_tensors_of_whole_numbers() -> None:
    """An integer or boolean Tensor is an index; ``argmax`` and comparisons go straight in."""
    x = tg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    np.testing.assert_array_equal(x[tg.tensor([1, 1])].value, x.value[[1, 1]])
    np.testing.assert_array_equal(x[x > 2.0].value, [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(x[np.arange(2), np.argmax(x, axis=1)].value, [2.0, 5.0])
    np.testing.assert_array_equal(np.take(x, tg.tensor([0, 2]), axis=1).value, x.value[:, [0, 2]])
    assert [1.0, 2.0, 3.0][tg.tensor(1)] == 2.0


def test_scalars_have_no_length_and_no_entries() -> None:
    """A zero-dimensional Tensor cannot be iterated over, measured or indexed, and says so."""
    x = tensor()
    for call in (
        lambda: len(x),
        lambda: iter(x),
        lambda: x[0],
        lambda: tensor(2).item(),
        lambda: bool(tensor(2)),
        lambda: float(tensor(2)),
    ):
        with pytest.raises(TinygradError):
            call()


@pytest.mark.parametrize("base", [1e-310, 0.0, -0.0, np.inf, np.nan])
def test_the_slope_of_a_zeroth_power_is_zero_everywhere(base):
    """x⁰ is constant, also where 1/x is no finite number; and away from there its mixed derivative is 1/x."""
    x = tg.tensor(base, requires_grad=True)
    (x**0.0).backward()
    assert x.grad.item() == 0.0
    mixed = tg.hessian(lambda p: p[0] ** p[1], [2.0, 0.0]).value[0, 1]
    assert mixed == pytest.approx(0.5, rel=1e-12)
