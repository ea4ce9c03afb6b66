"""Optimisers, clipping and schedules against PyTorch's, in float64 over twenty steps, with every combination of options."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracles
import pytest

from tinygrad_rnn import nn, optim

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

RTOL = 1e-12
STEPS = 20
SHAPES = ((), (3,), (2, 4))


def combinations(**options: Any) -> list[dict[str, Any]]:
    return [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values())]


CASES = [
    *(
        ("SGD", options)
        for options in combinations(lr=[0.1], momentum=[0.0, 0.9], nesterov=[False, True], weight_decay=[0.0, 0.1])
        if options["momentum"] or not options["nesterov"]
    ),
    *(
        ("RMSprop", options)
        for options in combinations(
            lr=[0.01], alpha=[0.99, 0.5], eps=[1e-8, 0.1], momentum=[0, 0.9], centered=[False, True], weight_decay=[0, 0.1]
        )
    ),
    *(
        (name, options)
        for name in ("Adam", "AdamW")
        for options in combinations(lr=[0.01], betas=[(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)], eps=[1e-8, 0.1], weight_decay=[0, 0.1])
    ),
    *((name, {}) for name in ("SGD", "RMSprop", "Adam", "AdamW")),
]


def both(rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    values = [rng.standard_normal(shape) for shape in SHAPES]
    return [nn.Parameter(v) for v in values], [torch.nn.Parameter(torch.tensor(v)) for v in values]


def give(rng: np.random.Generator, ours: list[Any], theirs: list[Any], missing: float = 0.0) -> None:
    """The same gradients to both; some parameters get none."""
    for a, b in zip(ours, theirs, strict=True):
        g = rng.standard_normal(a.shape) * 10.0 ** rng.uniform(-3, 3)
        a.grad, b.grad = (None, None) if rng.random() < missing else (g, torch.tensor(g))


def close(ours: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert oracles.difference(a.value, b.detach().numpy()) <= RTOL


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_optimisers(name: str, options: dict[str, Any]) -> None:
    """Twenty steps give PyTorch's values, where a parameter sometimes has no gradient and the learning rate changes."""
    rng = np.random.default_rng(0)
    ours, theirs = both(rng)
    one, two = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for k in range(STEPS):
        give(rng, ours, theirs, missing=0.2)
        one.step()
        two.step()
        close(ours, theirs)
        if k == 10:
            one.lr = two.param_groups[0]["lr"] = 0.003


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e6])
def test_clipping_by_norm(max_norm: float) -> None:
    """The same norm, and the same gradients up to the 1e-6 that PyTorch adds to the norm."""
    rng = np.random.default_rng(1)
    ours, theirs = both(rng)
    for _ in range(STEPS):
        give(rng, ours, theirs, missing=0.2)
        norm = optim.clip_grad_norm(ours, max_norm)
        norm_theirs = torch.nn.utils.clip_grad_norm_(theirs, max_norm).item()
        assert oracles.difference(norm, norm_theirs) <= RTOL
        extra = norm / (norm + 1e-6) if norm > max_norm else 1.0
        for a, b in zip(ours, theirs, strict=True):
            assert (a.grad is None) == (b.grad is None)
            if a.grad is not None:
                assert oracles.difference(a.grad.value * extra, b.grad.numpy()) <= RTOL


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_clipping_what_is_not_finite(bad: float) -> None:
    """NaN and infinities spread as they do in PyTorch."""
    ours, theirs = both(np.random.default_rng(2))
    for a, b in zip(ours, theirs, strict=True):
        g = np.ones(a.shape)
        if a.ndim == 1:
            g[1] = bad
        a.grad, b.grad = g, torch.tensor(g)
    assert str(optim.clip_grad_norm(ours, 1.0)) == str(torch.nn.utils.clip_grad_norm_(theirs, 1.0).item())
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.grad.value, b.grad.numpy(), equal_nan=True)


def test_clipping_by_value() -> None:
    """The same gradients."""
    rng = np.random.default_rng(3)
    ours, theirs = both(rng)
    for limit in (0.0, 0.1, 1.0, 100.0):
        give(rng, ours, theirs)
        optim.clip_grad_value(ours, limit)
        torch.nn.utils.clip_grad_value_(theirs, limit)
        assert all(np.array_equal(a.grad.value, b.grad.numpy()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("make", "make_theirs"),
    [
        (lambda o: optim.StepLR(o, 3, gamma=0.7), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, gamma=0.7)),
        (lambda o: optim.CosineLR(o, STEPS, min_lr=0.01), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.01)),
        (
            lambda o: optim.WarmUp(o, 7, start=0.25),
            lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=0.25, total_iters=7),
        ),
        (
            lambda o: optim.WarmUp(o, 5, start=0.25, then=optim.StepLR(o, 4)),
            lambda o: torch.optim.lr_scheduler.SequentialLR(
                o,
                [torch.optim.lr_scheduler.LinearLR(o, start_factor=0.25, total_iters=5), torch.optim.lr_scheduler.StepLR(o, 4)],
                milestones=[5],
            ),
        ),
    ],
    ids=["step", "cosine", "warm-up", "warm-up then step"],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
def test_schedules(make: Any, make_theirs: Any) -> None:
    """The same learning rate before each of twenty steps, and the same values after them."""
    rng = np.random.default_rng(4)
    ours, theirs = both(rng)
    one, two = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    schedule, schedule_theirs = make(one), make_theirs(two)
    for _ in range(STEPS):
        assert oracles.difference(one.lr, two.param_groups[0]["lr"]) <= RTOL
        give(rng, ours, theirs)
        one.step()
        two.step()
        schedule.step()
        schedule_theirs.step()
    close(ours, theirs)
