"""Random programs: every way to differentiate one gives the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.primitive import Opaque
from tinygrad_rnn.tensor import apply

double_sine = Opaque(
    lambda x, y: ((np.sin(x), x * y), np.cos(x)),
    name="double_sine",
    definition=lambda x, y: (tg.sin(x), x * y),
    joint_pullback=lambda cotangent, value, residual, needed, x, y: (
        (0.0 if cotangent[0] is None else cotangent[0] * residual) + (0.0 if cotangent[1] is None else cotangent[1] * y),
        None if cotangent[1] is None else cotangent[1] * x,
    ),
)

STEPS = [
    lambda a, b, c: tg.tanh(a) * b,
    lambda a, b, c: a + b,
    lambda a, b, c: a - b * 0.5,
    lambda a, b, c: a[::-1] + b,
    lambda a, b, c: a[np.array([2, 0, 0])] * c,
    lambda a, b, c: tg.concatenate([a[1:], b[:1]]),
    lambda a, b, c: tg.where(c.value > 0, a, b),
    lambda a, b, c: a * tg.sigmoid(b).sum(axis=1, keepdims=True),
    lambda a, b, c: tg.stack([a, b]).mean(axis=0),
    lambda a, b, c: a @ tg.tanh(b).T @ c,
    lambda a, b, c: a * a,
    lambda a, b, c: a + b[0] * c[:, 1:2],
    lambda a, b, c: tg.checkpoint(lambda x: tg.sin(x) * b, a),
    lambda a, b, c: tg.checkpoint(lambda x, y: (tg.exp(-(x * x)), y), a, c)[0],
    lambda a, b, c: apply(double_sine, (a, b))[0],
    lambda a, b, c: apply(double_sine, (a, tg.tanh(b)))[1] * 0.5,
    lambda a, b, c: tg.jvp(lambda x: tg.sin(x) * b, a, tg.tanh(c))[1],
    lambda a, b, c: tg.vjp(lambda x: tg.tanh(x) * c, a)[1](tg.sin(b))[0],
    lambda a, b, c: 0.5 - a,
    lambda a, b, c: 2 / (a * a + 1),
]


def program(seed):
    """A function of three 3 × 3 Tensors with one output entry, drawn at random; and a point."""
    rng = np.random.default_rng(seed)
    chosen = [(STEPS[rng.integers(len(STEPS))], rng.integers(0, 3 + t, size=3)) for t in range(12)]
    last = rng.integers(3, 15, size=2)

    def fn(*inputs):
        values = list(inputs)
        for step, places in chosen:
            values.append(tg.tanh(step(*(values[place] for place in places))))
        return (values[last[0]] * values[last[1]]).sum() + values[-1].mean()

    return fn, [rng.normal(size=(3, 3)) * 0.7 for _ in range(3)]


def leaves_of(point):
    return [tg.tensor(x, requires_grad=True) for x in point]


def gradients(fn, point, **options):
    leaves = leaves_of(point)
    fn(*leaves).backward(**options)
    found = [np.zeros((3, 3)) if x.grad is None else x.grad.value for x in leaves]
    for x in leaves:
        x.grad = None
    return found


@pytest.mark.parametrize("seed", range(40))
def test_all_ways_agree(seed):
    """Backward, observed, recorded, by grad, by vjp, by jvp, inside a checkpoint: the same gradient, and the difference quotient's."""
    fn, point = program(seed)
    expected = gradients(fn, point)
    leaves = leaves_of(point)
    ways = {
        "observed": gradients(fn, point, observers=[lambda step: step.gain]),
        "recorded": gradients(fn, point, create_graph=True),
        "grad": [g.value for g in tg.grad(fn(*leaves), leaves, allow_unused=True)],
        "vjp": [g.value for g in tg.vjp(fn, *point)[1](1.0)],
        "checkpoint": gradients(lambda *xs: tg.checkpoint(fn, *xs), point),
    }
    with tg.detect_anomaly():
        ways["anomaly"] = gradients(fn, point)
    for way, found in ways.items():
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13, err_msg=way)
    direction = np.random.default_rng(seed).normal(size=(3, 3, 3))
    along = sum(np.vdot(g, u) for g, u in zip(expected, direction, strict=True))
    _, tangent = tg.jvp(fn, point, list(direction))
    assert tangent.item() == pytest.approx(along, rel=1e-9, abs=1e-12)
    h = 1e-6
    plus, minus = (fn(*(tg.tensor(x + s * u) for x, u in zip(point, direction, strict=True))).item() for s in (h, -h))
    assert (plus - minus) / (2 * h) == pytest.approx(along, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_all_second_derivatives_agree(seed):
    """H v by all four combinations of modes, and by the difference quotient of the gradient."""
    fn, point = program(seed)
    size = point[0].size
    u = np.random.default_rng(seed + 1000).normal(size=size)
    v = np.random.default_rng(seed + 2000).normal(size=size)
    flat = point[0].ravel()

    def f(x):
        return fn(x.reshape(3, 3), tg.tensor(point[1]), tg.tensor(point[2]))

    def gradient(x):
        return tg.vjp(f, x)[1](1.0)[0]

    def slope(x):
        return tg.jvp(f, x, u)[1]

    ways = [
        tg.jvp(gradient, flat, v)[1].value @ u,
        tg.vjp(gradient, flat)[1](v)[0].value @ u,
        tg.jvp(slope, flat, v)[1].item(),
        tg.vjp(slope, flat)[1](1.0)[0].value @ v,
    ]
    h = 1e-6
    quotient = (gradient(flat + h * v).value - gradient(flat - h * v).value) @ u / (2 * h)
    np.testing.assert_allclose(ways, ways[0], rtol=1e-9, atol=1e-12)
    assert ways[0] == pytest.approx(quotient, rel=1e-5, abs=1e-7)
