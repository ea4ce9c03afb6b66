"""The losses: values and gradients against plain NumPy, reductions, ignored targets, large logits, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.testing import gradcheck, gradgradcheck

REDUCTIONS = ("mean", "sum", "none")
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)


def reduced(losses: Any, reduction: str, count: int | None = None) -> Any:
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.sum() / (count or losses.size)


def softmax(logits: Any) -> Any:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def entropies(logits: Any, targets: Any, ignore: int | None) -> tuple[Any, Any, int]:
    """Each target's loss, the gradient of their sum, and how many count."""
    counts = np.ones(targets.shape, bool) if ignore is None else targets != ignore
    safe = np.where(counts, targets, 0)
    p = softmax(logits)
    losses = -np.log(np.take_along_axis(p, safe[..., None], -1)[..., 0]) * counts
    return losses, (p - np.eye(logits.shape[-1])[safe]) * counts[..., None], int(counts.sum())


# -- cross-entropy ----------------------------------------------------------------------------------------------------------


@reductions
@pytest.mark.parametrize("ignore", [None, -100, 2, 9])
@given(shape=st.sampled_from([(), (1,), (5,), (2, 3)]), seed=st.integers(0, 1000))
def test_cross_entropy(reduction: str, ignore: int | None, shape: tuple[int, ...], seed: int) -> None:
    """−ln p of the targets that count, and the gradient p − onehot of their logits; exactly 0 for an ignored one."""
    rng = np.random.default_rng(seed)
    logits = tg.tensor(rng.normal(size=(*shape, 4)), requires_grad=True)
    targets = rng.integers(0, 4, size=shape)
    if ignore is not None and targets.size > 1:
        targets.flat[:: max(2, targets.size // 2)] = ignore
    losses, gradient, count = entropies(logits.value, targets, ignore)
    if count == 0 and reduction == "mean":
        return
    out = tg.cross_entropy(logits, targets, ignore_index=ignore, reduction=reduction)
    assert out.shape == (shape if reduction == "none" else ())
    assert oracles.difference(out.value, reduced(losses, reduction, count)) < 1e-13
    out.backward(np.ones(out.shape))
    assert oracles.difference(logits.grad.value, gradient / (count if reduction == "mean" else 1)) < 1e-13


def test_ignoring_nothing_changes_nothing() -> None:
    """An ignore_index that no target has gives the same bytes as none, and so do Tensors as targets."""
    logits = np.random.default_rng(0).normal(size=(3, 4))
    for reduction in REDUCTIONS:
        plain = tg.cross_entropy(logits, [0, 1, 3], reduction=reduction)
        assert np.array_equal(plain, tg.cross_entropy(logits, [0, 1, 3], ignore_index=-100, reduction=reduction))
        assert np.array_equal(plain, tg.cross_entropy(logits, tg.tensor([0, 1, 3]), reduction=reduction))


def test_ignored_scores_may_be_anything() -> None:
    """NaN and infinite scores where the target is ignored reach neither the loss nor a gradient."""
    logits = tg.tensor([[0.0, np.nan], [1.0, 2.0], [np.inf, -np.inf]], requires_grad=True)
    loss = tg.cross_entropy(logits, [-1, 1, -1], ignore_index=-1)
    loss.backward()
    assert loss.item() == pytest.approx(np.log1p(np.exp(-1.0)))
    assert np.array_equal(logits.grad.value[[0, 2]], np.zeros((2, 2)))


def test_all_ignored() -> None:
    """With all targets ignored the sum is 0 with gradient 0, each loss is 0, and there is no mean: an error and no NaN."""
    logits = tg.tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(tg.errors.ArgumentError, match=r"all 2 targets are 7 and ignored; .* or use reduction='sum'"):
        tg.cross_entropy(logits, [7, 7], ignore_index=7)
    assert tg.cross_entropy(logits, [7, 7], ignore_index=7, reduction="none").value.tolist() == [0.0, 0.0]
    total = tg.cross_entropy(logits, [7, 7], ignore_index=7, reduction="sum")
    total.backward()
    assert total.item() == 0.0
    assert np.array_equal(logits.grad.value, np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tg.cross_entropy(np.zeros((2, 3)), [0, -100]), "targets go from -100 to 0; expected 0 to 2"),
        (lambda: tg.cross_entropy(np.zeros((2, 3)), [5, -100], ignore_index=-100), "targets go from 0 to 5; expected 0 to 2"),
        (lambda: tg.cross_entropy(np.zeros((2, 3)), [0, 1], reduction="avg"), "reduction must be 'mean', 'sum' or 'none', got 'avg'"),
        (lambda: tg.mse(np.zeros(2), np.zeros(2), reduction=None), "mse: reduction must be 'mean', 'sum' or 'none', got None"),
        (lambda: tg.bce_with_logits(np.zeros(2), np.zeros((2, 1))), r"logits \(2,\) and targets \(2, 1\) differ in shape"),
        (lambda: tg.bce_with_logits(np.zeros(2), [0, 2]), r"targets go from 0 to 2; expected probabilities in \[0, 1\]"),
        (lambda: tg.bce_with_logits(np.zeros(2), [0, np.nan]), "targets go from nan to nan"),
        (lambda: tg.bce_with_logits(np.zeros(2), np.zeros(2), reduction="Mean"), "bce_with_logits: reduction"),
        (lambda: tg.bce_with_logits(["a"], [1]), "bce_with_logits: the logits"),
    ],
)
def test_messages(call: Any, message: str) -> None:
    """What does not fit is named."""
    with pytest.raises(tg.errors.TinygradError, match=message):
        call()


# -- squared error and binary cross-entropy ---------------------------------------------------------------------------------


@reductions
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_mse(reduction: str, shape: tuple[int, ...]) -> None:
    """(p − t)², with gradient 2(p − t), under every reduction."""
    rng = np.random.default_rng(0)
    p, t = tg.tensor(rng.normal(size=shape), requires_grad=True), rng.normal(size=shape)
    out = tg.mse(p, t, reduction=reduction)
    out.backward(np.ones(out.shape))
    assert oracles.difference(out.value, reduced((p.value - t) ** 2, reduction)) < 1e-14
    assert oracles.difference(p.grad.value, 2 * (p.value - t) / (p.size if reduction == "mean" else 1)) < 1e-14


@reductions
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_bce(reduction: str, shape: tuple[int, ...]) -> None:
    """−y ln σ(x) − (1 − y) ln(1 − σ(x)), with gradients σ(x) − y and −x, under every reduction."""
    rng = np.random.default_rng(1)
    x, y = (tg.tensor(a, requires_grad=True) for a in (rng.normal(size=shape), rng.uniform(size=shape)))
    out = tg.bce_with_logits(x, y, reduction=reduction)
    out.backward(np.ones(out.shape))
    s = oracles.sigmoid(x.value)
    n = x.size if reduction == "mean" else 1
    assert oracles.difference(out.value, reduced(-y.value * np.log(s) - (1 - y.value) * np.log(1 - s), reduction)) < 1e-13
    assert oracles.difference(x.grad.value, (s - y.value) / n) < 1e-13
    assert oracles.difference(y.grad.value, -x.value / n) < 1e-13


def test_bce_far_out() -> None:
    """At ±1000 nothing overflows, in either direction; a loss of 1e-13 and its gradient keep their digits."""
    x = tg.tensor([1000.0, 1000.0, -1000.0, -1000.0, 30.0, -30.0], requires_grad=True)
    loss = tg.bce_with_logits(x, [1, 0, 1, 0, 1, 0], reduction="none")
    loss.backward(np.ones(6))
    small = np.exp(-30.0)
    assert loss.value[:4].tolist() == [0.0, 1000.0, 1000.0, 0.0]
    np.testing.assert_allclose(loss.value[4:], np.log1p(small), rtol=1e-14)
    np.testing.assert_allclose(x.grad.value[:4], [0.0, 1.0, -1.0, 0.0], rtol=0, atol=0)
    np.testing.assert_allclose(x.grad.value[4:], [-small / (1 + small), small / (1 + small)], rtol=1e-14)


@pytest.mark.parametrize("targets", [[1, 0, 1], [True, False, True], np.array([1, 0, 1], np.float32)], ids=["int", "bool", "float32"])
def test_float32_is_kept(targets: Any) -> None:
    """Whole numbers and booleans as targets do not widen the loss; nor do the other losses."""
    x = tg.tensor(np.array([0.5, -1.0, 2.0], np.float32), requires_grad=True)
    losses = [tg.bce_with_logits(x, targets), tg.mse(x, np.zeros(3, np.float32)), tg.cross_entropy(x, 1)]
    losses.append(tg.cross_entropy(tg.stack([x, x]), [0, -1], ignore_index=-1))
    for loss in losses:
        assert loss.dtype == np.float32
        assert tg.grad(loss, x)[0].dtype == np.float32


def test_nothing() -> None:
    """The sum over nothing is 0, its mean NaN, without a warning."""
    for loss in (tg.bce_with_logits, tg.mse):
        x, y = tg.tensor(np.zeros((0, 2)), requires_grad=True), np.zeros((0, 2))
        assert loss(x, y, reduction="sum").item() == 0.0
        assert np.isnan(loss(x, y).item())
        assert loss(x, y, reduction="none").shape == (0, 2)
    logits = tg.tensor(np.zeros((0, 2)), requires_grad=True)
    assert tg.cross_entropy(logits, [], ignore_index=0, reduction="sum").item() == 0.0


@reductions
def test_derivatives(reduction: str) -> None:
    """First and second derivatives of every loss are those of its value."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(3, 2)), rng.uniform(0.2, 0.8, size=(3, 2))
    for check in (gradcheck, gradgradcheck):
        check(lambda a: tg.cross_entropy(a, [0, 1, 1], reduction=reduction), x)
        check(lambda a: tg.cross_entropy(a, [0, -1, 1], ignore_index=-1, reduction=reduction), x)
        check(lambda a, b: tg.mse(a, b, reduction=reduction), x, y)
        check(lambda a, b: tg.bce_with_logits(a, tg.sigmoid(b), reduction=reduction), x, y)
