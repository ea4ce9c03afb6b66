"""Random programs in three engines: value, gradients and second derivatives are those of PyTorch and of HIPS autograd.

300 programs in an ordinary run, 10,000 with ``--hypothesis-profile=nightly``. What fails shrinks to a few statements and prints itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import tinygrad_rnn as tg
from tinygrad_rnn.testing import programs, strategies
from tinygrad_rnn.testing.programs import Operation, Program

torch = pytest.importorskip("torch")
autograd = pytest.importorskip("autograd")
anp = pytest.importorskip("autograd.numpy")

pytestmark = pytest.mark.oracle

COUNT = 10_000 if settings.default.max_examples >= 1000 else 300


# -- more operations than the public ones -------------------------------------------------------------------------------------------


def axis_of(choose: Callable[[int], int], x: Any, *_: Any) -> dict[str, Any]:
    return {"axis": choose(x.ndim)}


def has_axes(x: Any, *_: Any) -> bool:
    return x.ndim > 0


def positive(x: Any, *_: Any) -> bool:
    return bool((x > 0.3).all())


MORE = (
    Operation("cos", tg.cos),
    Operation("expm1", tg.expm1),
    Operation("log1p", tg.log1p, safe=positive),
    Operation("reciprocal", tg.reciprocal, safe=lambda x: bool((np.abs(x) > 0.3).all())),
    Operation("power", tg.power, 2, safe=positive),
    Operation("prod", tg.prod, statics=axis_of, safe=has_axes),
    Operation("var", tg.var, statics=axis_of, safe=has_axes),
    Operation("flip", tg.flip, statics=axis_of, safe=has_axes),
    Operation("roll", lambda x, axis: tg.roll(x, 1, axis), statics=axis_of, safe=has_axes),
    Operation("clip", lambda x: tg.clip(x, -0.5, 0.5), safe=lambda x: bool((np.abs(np.abs(x) - 0.5) > 0.05).all())),
    Operation("log_softmax", tg.log_softmax, statics=axis_of, safe=has_axes),
    Operation("outer", tg.outer, 2),
    Operation("tril", tg.tril, safe=lambda x: x.ndim == 2),
    Operation("checkpoint", lambda x, y: tg.checkpoint(lambda a, b: np.tanh(a) * b, x, y), 2),
)
OPERATIONS = programs.OPERATIONS + MORE


# -- the same in PyTorch --------------------------------------------------------------------------------------------------------------


def dims(x: Any, axis: int | None) -> Any:
    return tuple(range(x.ndim)) if axis is None else axis


def picked(x: Any, key: Any) -> Any:
    """By the places of the entries that the key picks: PyTorch has no slices with negative steps."""
    return x.reshape(-1)[torch.as_tensor(np.arange(x.numel()).reshape(tuple(x.shape))[key].copy())]


TORCH: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in ("add", "multiply", "subtract", "divide", "matmul", "tanh", "sigmoid", "sin", "cos", "exp")},
    **{name: getattr(torch, name) for name in ("square", "negative", "log", "sqrt", "relu", "abs", "maximum", "minimum", "expm1", "log1p")},
    **{name: getattr(torch, name) for name in ("reciprocal", "tril")},
    "power": torch.pow,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "sum": lambda x, axis, keepdims: torch.sum(x, dims(x, axis), keepdim=keepdims),
    "mean": lambda x, axis, keepdims: torch.mean(x, dims(x, axis), keepdim=keepdims),
    "max": lambda x, axis, keepdims: torch.amax(x, dims(x, axis), keepdim=keepdims),
    "min": lambda x, axis, keepdims: torch.amin(x, dims(x, axis), keepdim=keepdims),
    "reshape": lambda x, shape: torch.reshape(x, shape),
    "transpose": lambda x, axes: torch.permute(x, axes),
    "broadcast_to": lambda x, shape: torch.broadcast_to(x, shape),
    "getitem": picked,
    "where": lambda x, y, condition: torch.where(torch.as_tensor(condition), x, y),
    "concatenate": lambda *xs, axis: torch.cat(xs, axis),
    "stack": lambda *xs, axis: torch.stack(xs, axis),
    "cumsum": lambda x, axis: torch.cumsum(x, axis),
    "softmax": lambda x, axis: torch.softmax(x, axis),
    "log_softmax": lambda x, axis: torch.log_softmax(x, axis),
    "logsumexp": lambda x, axis: torch.logsumexp(x, axis),
    "prod": lambda x, axis: torch.prod(x, axis),
    "var": lambda x, axis: torch.var(x, axis, correction=0),
    "flip": lambda x, axis: torch.flip(x, (axis,)),
    "roll": lambda x, axis: torch.roll(x, 1, axis),
    "clip": lambda x: torch.clamp(x, -0.5, 0.5),
    "outer": lambda x, y: torch.outer(x.reshape(-1), y.reshape(-1)),
    "checkpoint": lambda x, y: torch.tanh(x) * y,
}


def by_torch(program: Program, weight: Any, directions: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    leaves = [torch.tensor(x, requires_grad=True) for x in program.point]
    out = program.run(*leaves, using=TORCH)
    first = torch.autograd.grad((out * torch.tensor(weight)).sum(), leaves, create_graph=True, allow_unused=True)
    first = [torch.zeros_like(x) if g is None else g for g, x in zip(first, leaves, strict=True)]
    along = sum((g * torch.tensor(d)).sum() for g, d in zip(first, directions, strict=True))
    second = [None] * len(leaves)
    if along.requires_grad:
        second = torch.autograd.grad(along, leaves, allow_unused=True)
    zeros = [np.zeros(x.shape) for x in program.point]
    return (
        out.detach().numpy(force=True),
        [g.detach().numpy(force=True) for g in first],
        [zero if g is None else g.detach().numpy(force=True) for g, zero in zip(second, zeros, strict=True)],
    )


# -- the same in HIPS autograd --------------------------------------------------------------------------------------------------------


# Where it fails by itself (a choice that broadcasts, a product with a zero, an index of a number) the same is said in other operations.


def hips_logsumexp(x: Any, axis: int, keepdims: bool = False) -> Any:
    return anp.log(anp.sum(anp.exp(x), axis=axis, keepdims=keepdims))


HIPS: dict[str, Callable[..., Any]] = {
    **{name: getattr(anp, name) for name in ("add", "multiply", "subtract", "divide", "matmul", "tanh", "sin", "cos", "exp", "square")},
    **{name: getattr(anp, name) for name in ("negative", "log", "sqrt", "abs", "maximum", "minimum", "expm1", "log1p", "reciprocal")},
    **{name: getattr(anp, name) for name in ("sum", "mean", "max", "min", "transpose", "cumsum", "var", "tril", "power")},
    "sigmoid": lambda x: 0.5 * (anp.tanh(0.5 * x) + 1.0),
    "softplus": lambda x: anp.logaddexp(x, 0.0),
    "relu": lambda x: anp.maximum(x, 0.0),
    "broadcast_to": lambda x, shape: x + np.zeros(shape),
    "reshape": lambda x, shape: anp.reshape(x, shape),
    "getitem": lambda x, key: anp.reshape(x, (-1,))[np.arange(np.size(x)).reshape(np.shape(x))[key]],
    "where": lambda x, y, condition: anp.where(condition, x + np.zeros(condition.shape), y + np.zeros(condition.shape)),
    "prod": lambda x, axis: reduce(anp.multiply, [x[(slice(None),) * axis + (k,)] for k in range(x.shape[axis])]),
    "concatenate": lambda *xs, axis: anp.concatenate(xs, axis),
    "stack": lambda *xs, axis: anp.stack(xs, axis),
    "softmax": lambda x, axis: anp.exp(x - hips_logsumexp(x, axis, True)),
    "log_softmax": lambda x, axis: x - hips_logsumexp(x, axis, True),
    "logsumexp": hips_logsumexp,
    "flip": lambda x, axis: x[(slice(None),) * axis + (slice(None, None, -1),)],
    "roll": lambda x, axis: anp.roll(x, 1, axis),
    "clip": lambda x: anp.clip(x, -0.5, 0.5),
    "outer": lambda x, y: anp.reshape(x, (-1, 1)) * anp.reshape(y, (1, -1)),
    "checkpoint": lambda x, y: anp.tanh(x) * y,
}


def by_hips(program: Program, weight: Any, directions: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    every = tuple(range(len(directions)))

    def scalar(*xs: Any) -> Any:
        return anp.sum(program.run(*xs, using=HIPS) * weight)

    def along(*xs: Any) -> Any:
        return sum(anp.sum(g * d) for g, d in zip(autograd.grad(scalar, every)(*xs), directions, strict=True))

    value = program.run(*program.point, using=HIPS)
    return value, list(autograd.grad(scalar, every)(*program.point)), list(autograd.grad(along, every)(*program.point))


# -- ours, in two ways ----------------------------------------------------------------------------------------------------------------


def by_us(program: Program, weight: Any, directions: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    leaves = [tg.tensor(x, requires_grad=True) for x in program.point]
    out = program(*leaves)
    first = tg.grad(out, leaves, weight, create_graph=True, allow_unused=True)
    recorded = [(g, d) for g, d in zip(first, directions, strict=True) if g.requires_grad]
    if recorded:
        second = tg.grad([g for g, _ in recorded], leaves, [d for _, d in recorded], allow_unused=True)
    else:
        second = tuple(tg.tensor(np.zeros(x.shape)) for x in leaves)
    out.backward(weight)
    for leaf, gradient in zip(leaves, first, strict=True):
        np.testing.assert_allclose(np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.value, gradient.value, rtol=1e-12, atol=1e-14)
    return out.value, [g.value for g in first], [g.value for g in second]


def agree(what: str, program: Program, ours: list[Any], theirs: list[Any]) -> None:
    """Equal up to rounding, measured by the largest number on either side: sums may cancel."""
    for name, a, b in zip(program.inputs, ours, theirs, strict=False):
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11 * scale, err_msg=f"{what}, {name}\n{program}")


@pytest.mark.filterwarnings("ignore:Output seems independent")
@pytest.mark.parametrize("theirs", [by_torch, by_hips], ids=["PyTorch", "HIPS autograd"])
@settings(max_examples=COUNT, deadline=None)
@given(program=strategies.programs(operations=OPERATIONS))
def test_three_engines_agree(theirs: Any, program: Program) -> None:
    """The value, every gradient, and the product of the Hessian with a vector."""
    draw = np.random.default_rng(0)
    out = program(*program.point)
    weight = draw.uniform(0.5, 1.5, np.shape(getattr(out, "value", out)))
    directions = [draw.uniform(-1.0, 1.0, x.shape) for x in program.point]
    value, first, second = by_us(program, weight, directions)
    other_value, other_first, other_second = theirs(program, weight, directions)
    agree("value", program, [value], [other_value])
    agree("gradient", program, first, other_first)
    agree("second derivative", program, second, other_second)


def test_every_operation_is_compared() -> None:
    """Both oracles know every operation, and 300 random programs use each of them."""
    names = {operation.name for operation in OPERATIONS}
    assert set(TORCH) == set(HIPS) == names
    drawn = [name for program in programs.several(0, 300, operations=OPERATIONS) for name in program.operations]
    assert set(drawn) == names


def test_a_wrong_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: with a derivative of the sine that is wrong only to second order, programs disagree."""
    rule = tg.sin.rule

    def wrong(out: Any, x: Any) -> Any:
        return rule(out, getattr(x, "value", x))

    monkeypatch.setattr(tg.sin, "rule", wrong)
    (program,) = (p for p in [programs.random_program(3, most=2, operations=(Operation("sin", tg.sin),))])
    ones = [np.ones(x.shape) for x in program.point]
    weight = np.ones(program(*(tg.tensor(x) for x in program.point)).shape)
    ours, theirs = by_us(program, weight, ones), by_torch(program, weight, ones)
    agree("gradient", program, ours[1], theirs[1])
    with pytest.raises(AssertionError, match="second derivative"):
        agree("second derivative", program, ours[2], theirs[2])
