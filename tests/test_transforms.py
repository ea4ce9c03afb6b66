"""Derivatives of derivatives: closed forms, both branches of the Jacobian, and modes nested in every order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, ShapeError


def leaf(data, name=None):
    return tg.tensor(data, requires_grad=True, name=name)


def reverse(fn):
    """The derivative of a function of one number, by reverse mode."""
    return lambda x: tg.vjp(fn, x)[1](1.0)[0]


def forward(fn):
    """The derivative of a function of one number, by forward mode."""
    return lambda x: tg.jvp(fn, x, 1.0)[1]


def by_grad(fn):
    """The derivative of a function of one number, by grad with a recorded graph."""

    def derivative(x):
        x = x * 1.0 if isinstance(x, tg.Tensor) and x.requires_grad else leaf(x)  # a variable of its own
        y = fn(x)
        return tg.grad(y, x, create_graph=True, allow_unused=True)[0] if y.requires_grad else tg.tensor(0.0)

    return derivative


MODES = {"reverse": reverse, "forward": forward, "grad": by_grad}
PAIRS = list(itertools.product(MODES, repeat=2))
TRIPLES = list(itertools.product(MODES, repeat=3))


# -- order by order ---------------------------------------------------------------------------------------------------------

CLOSED_FORMS = {
    "x⁴": (lambda x: x**4, [lambda x: 4 * x**3, lambda x: 12 * x**2, lambda x: 24 * x, lambda x: 24.0]),
    "x·x·x·x": (lambda x: x * x * x * x, [lambda x: 4 * x**3, lambda x: 12 * x**2, lambda x: 24 * x, lambda x: 24.0]),
    "tanh": (
        tg.tanh,
        [
            lambda x: 1 - math.tanh(x) ** 2,
            lambda x: -2 * math.tanh(x) * (1 - math.tanh(x) ** 2),
            lambda x: (1 - math.tanh(x) ** 2) * (6 * math.tanh(x) ** 2 - 2),
            lambda x: (1 - math.tanh(x) ** 2) * (16 * math.tanh(x) - 24 * math.tanh(x) ** 3),
        ],
    ),
    "exp": (tg.exp, [math.exp] * 4),
    "sin": (tg.sin, [math.cos, lambda x: -math.sin(x), lambda x: -math.cos(x), math.sin]),
    "log": (tg.log, [lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3, lambda x: -6 / x**4]),
    "1/x": (lambda x: 1.0 / x, [lambda x: -1 / x**2, lambda x: 2 / x**3, lambda x: -6 / x**4, lambda x: 24 / x**5]),
    "sigmoid": (
        tg.sigmoid,
        [
            lambda x: (s := 1 / (1 + math.exp(-x))) * (1 - s),
            lambda x: (s := 1 / (1 + math.exp(-x))) * (1 - s) * (1 - 2 * s),
            lambda x: (s := 1 / (1 + math.exp(-x))) * (1 - s) * (1 - 6 * s + 6 * s * s),
            lambda x: (s := 1 / (1 + math.exp(-x))) * (1 - s) * (1 - 2 * s) * (1 - 12 * s + 12 * s * s),
        ],
    ),
    "index and join": (
        lambda x: tg.stack([x, x * x])[1] * tg.concatenate([x.reshape(1), x.reshape(1)])[0],
        [lambda x: 3 * x**2, lambda x: 6 * x, lambda x: 6.0, lambda x: 0.0],
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("mode", MODES)
def test_orders_one_to_four(name, mode):
    """Derivatives up to the fourth are those of the closed form, in every mode."""
    fn, derivatives = CLOSED_FORMS[name]
    for expected in derivatives:
        fn = MODES[mode](fn)
        assert fn(0.7).item() == pytest.approx(expected(0.7), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("modes", TRIPLES, ids="-".join)
@pytest.mark.parametrize("name", ["x·x·x·x", "tanh", "sigmoid", "index and join"])
def test_third_order_in_mixed_modes(modes, name):
    """Any three modes, nested in any order, give the third derivative."""
    fn, derivatives = CLOSED_FORMS[name]
    for mode in modes:
        fn = MODES[mode](fn)
    assert fn(0.7).item() == pytest.approx(derivatives[2](0.7), rel=1e-12, abs=1e-12)


def test_create_graph_accumulates_into_grad():
    """backward(create_graph=True) leaves gradients that can be differentiated again, and adds a second one to the first."""
    x = leaf(2.0)
    y = x**3
    y.backward(create_graph=True)
    y.backward(create_graph=True)
    assert x.grad.item() == 24.0
    assert tg.grad(x.grad, x)[0].item() == 24.0
    x.grad = None


def test_plain_and_recorded_contributions_add_up():
    """In a recorded pass a node may receive plain numbers first and recorded ones later."""
    x = leaf([2.0, 3.0])
    (dx,) = tg.grad((x * x + (x + x)).sum(), x, create_graph=True)
    np.testing.assert_array_equal(dx.value, 2 * x.value + 2)
    np.testing.assert_array_equal(tg.grad(dx.sum(), x)[0].value, [2.0, 2.0])


def test_recorded_multiplications_belong_to_the_scope_of_their_node():
    """What a recorded backward pass adds to the graph carries scope and time of the node that was differentiated."""
    x = leaf(0.5)
    with tg.scope("forward", time=2):
        y = tg.tanh(x)
    with tg.scope("elsewhere"):
        (dx,) = tg.grad(y, x, create_graph=True)
    assert (dx.node.scope.path, dx.node.scope.time) == ("forward", 2)


# -- perturbation confusion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
@pytest.mark.parametrize(
    ("make", "point", "expected"),
    [
        (lambda d: lambda x: x * d(lambda y: x + y)(1.0), 1.0, 1.0),
        (lambda d: lambda x: x * d(lambda y: x * y)(2.0), 3.0, 6.0),
        (lambda d: lambda x: d(lambda y: x * y * y)(x), 3.0, 12.0),
        (lambda d: lambda x: x * d(lambda y: y * y * x)(x * x), 2.0, 2 * 4 * 2.0**3),
        (lambda d: lambda x: d(lambda y: x)(1.0) + x, 3.0, 1.0),
        (lambda d: lambda x: d(lambda y: d(lambda z: x * y * z)(y) * y)(x), 3.0, 12.0),
        (lambda d: lambda x: d(lambda x: x * x)(x) * x, 5.0, 20.0),
        (lambda d: lambda x: d(tg.sin)(x) * d(lambda y: tg.sin(y) * x)(x), 0.4, None),
    ],
)
def test_no_perturbation_confusion(outer, inner, make, point, expected):
    """The inner derivative holds the outer variable fixed, and the outer one still sees it: d/dx (x · d/dy (x + y)) = 1."""
    if expected is None:
        expected = math.cos(point) ** 2 - 2 * point * math.cos(point) * math.sin(point)
    assert MODES[outer](make(MODES[inner]))(point).item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("inner", MODES)
def test_inner_derivative_of_a_tracked_parameter(inner):
    """A derivative taken inside, of a function that closes over a parameter, can be differentiated by the parameter."""
    w = leaf(3.0)
    tangent = MODES[inner](lambda x: w * w * x * x)(2.0)
    assert tangent.item() == 36.0
    tangent.backward()
    assert w.grad.item() == 24.0


def test_tangent_is_differentiable_by_point_and_direction():
    """d/dx and d/du of J(x) u, where both are tracked."""
    x, u = leaf([0.3, 0.5]), leaf([2.0, -1.0])
    _, tangent = tg.jvp(lambda a: tg.sin(a), x, u)
    dx, du = tg.grad(tangent.sum(), [x, u])
    np.testing.assert_allclose(dx.value, -np.sin(x.value) * u.value)
    np.testing.assert_allclose(du.value, np.cos(x.value))


def test_pullback_is_differentiable_by_its_cotangent():
    """Jᵀ g is linear in g, with derivative J."""
    x, g = leaf([0.3, 0.5]), leaf([2.0, -1.0])
    _, pullback = tg.vjp(tg.sin, x)
    (jtg,) = pullback(g)
    dx, dg = tg.grad(jtg.sum(), [x, g])
    np.testing.assert_allclose(dx.value, -np.sin(x.value) * g.value)
    np.testing.assert_allclose(dg.value, np.cos(x.value))


def test_output_of_vjp_and_jvp_stays_connected():
    """The value that comes along with a derivative is differentiable like the function's own."""
    x = leaf(0.5)
    for out in (tg.vjp(tg.sin, x)[0], tg.jvp(tg.sin, x, 1.0)[0]):
        assert tg.grad(out, x)[0].item() == pytest.approx(math.cos(0.5))
    assert not tg.vjp(tg.sin, 0.5)[0].requires_grad
    assert not tg.jvp(tg.sin, 0.5, 1.0)[1].requires_grad


def test_outputs_that_do_not_depend_on_the_input():
    """Derivatives of a constant function are zeros of the input's shape."""
    _, pullback = tg.vjp(lambda x: tg.tensor(1.0), np.ones(3))
    np.testing.assert_array_equal(pullback(1.0)[0].value, np.zeros(3))
    assert tg.jvp(lambda x: tg.tensor(1.0), np.ones(3), np.ones(3))[1].item() == 0.0
    assert tg.jacobian(lambda x: tg.tensor([1.0, 2.0]), np.ones(3)).shape == (2, 3)
    w = leaf(2.0)
    assert tg.jvp(lambda x: w * 1.0, np.ones(3), np.ones(3))[1].item() == 0.0
    np.testing.assert_array_equal(tg.vjp(lambda x: w * 1.0, np.ones(3))[1](1.0)[0].value, np.zeros(3))
    for constant in (lambda x: w * 1.0, lambda x: tg.tensor(1.0)):
        np.testing.assert_array_equal(tg.hessian(constant, np.ones(2)).value, np.zeros((2, 2)))


def test_backward_inside_a_transform():
    """A function that runs a backward pass of its own inside vjp or jvp works, and fills only its own leaves."""
    w = leaf(2.0)

    def fn(x):
        (w * w * x).backward()
        return x * 3.0

    assert tg.vjp(fn, 5.0)[1](1.0)[0].item() == 3.0
    assert tg.jvp(fn, 5.0, 1.0)[1].item() == 3.0
    assert w.grad.item() == 40.0


def test_pullback_can_be_called_again():
    """A pullback is a function: each call is a pass of its own, also from inside no_grad."""
    out, pullback = tg.vjp(lambda a, b: a * b, 2.0, 5.0)
    assert out.item() == 10.0
    assert [g.item() for g in pullback(1.0)] == [5.0, 2.0]
    with tg.no_grad():
        assert [g.item() for g in pullback(10.0)] == [50.0, 20.0]


def test_transforms_work_inside_no_grad():
    """no_grad concerns what surrounds a transform, not what the transform needs itself; results are then constants."""
    x = leaf(0.5)
    with tg.no_grad():
        value, tangent = tg.jvp(tg.sin, x, 1.0)
        (pulled,) = tg.vjp(tg.sin, x)[1](1.0)
        jacobian = tg.jacobian(tg.sin, x)
        hessian = tg.hessian(tg.sin, x)
    assert not any(t.requires_grad for t in (value, tangent, pulled, jacobian, hessian))
    assert tangent.item() == pulled.item() == jacobian.item() == pytest.approx(math.cos(0.5))
    assert hessian.item() == pytest.approx(-math.sin(0.5))


def test_mismatches_are_refused():
    """Inputs and tangents must pair up, and functions must return one Tensor."""
    with pytest.raises(ArgumentError, match=r"2 inputs need as many tangents, got 1"):
        tg.jvp(lambda a, b: a * b, (1.0, 2.0), (1.0,))
    with pytest.raises(ShapeError, match=r"tangent 0 has shape \(\); expected \(2,\)"):
        tg.jvp(tg.sin, np.ones(2), 1.0)
    with pytest.raises(ArgumentError, match=r"must return one Tensor, got tuple"):
        tg.vjp(lambda a: (a, a), 1.0)
    with pytest.raises(ShapeError, match=r"hessian: expected a function with one output entry, got \(2,\)"):
        tg.hessian(tg.sin, np.ones(2))


def test_a_failing_function_restores_the_recording():
    """An exception inside a transform leaves the switches as they were."""
    from tinygrad_rnn.graph import state

    def broken(x):
        raise KeyboardInterrupt

    with tg.no_grad():
        for transform in (lambda: tg.vjp(broken, 1.0), lambda: tg.jvp(broken, 1.0, 1.0), lambda: tg.checkpoint(broken, leaf(1.0))):
            with pytest.raises(KeyboardInterrupt):
                transform()
            assert not state.recording
    assert state.recording


# -- Jacobians and Hessians -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_jacobian_of_an_affine_map(rows):
    """The Jacobian of A x + b is A: by backward passes where A is wide, by forward passes where it is tall."""
    a = np.random.default_rng(0).normal(size=(rows, 4))
    np.testing.assert_allclose(tg.jacobian(lambda x: a @ x + 1.0, np.ones(4)).value, a, rtol=1e-14)


@pytest.mark.parametrize("shape", [(2, 3), (1,), (4, 1, 2)])
def test_jacobian_shapes(shape):
    """The Jacobian's shape is the output's followed by the input's; its entries are where they belong."""
    weights = np.random.default_rng(1).normal(size=(5, *shape))
    x = np.random.default_rng(2).normal(size=shape)
    axes = tuple(range(1, weights.ndim))
    wide = tg.jacobian(lambda t: (tg.tensor(weights) * t**2).sum(axis=axes), x)
    np.testing.assert_allclose(wide.value, weights * 2 * x, rtol=1e-13)
    tall = tg.jacobian(lambda t: tg.tensor(np.concatenate([weights] * 4)) * t**2, x)
    assert tall.shape == (20, *shape, *shape)
    n = math.prod(shape)
    diagonal = tall.value.reshape(20, n, n)[:, np.arange(n), np.arange(n)].reshape(20, *shape)
    np.testing.assert_allclose(diagonal, np.concatenate([weights] * 4) * 2 * x, rtol=1e-13)
    assert np.count_nonzero(tall.value) == 20 * n


@pytest.mark.parametrize("rows", [2, 9])
def test_jacobian_can_be_differentiated(rows):
    """Both branches stay connected to parameters outside: d/dw of the sum over J(w x²) is Σ 2 a x."""
    w, a = leaf(2.0), np.arange(1.0, rows + 1)
    jacobian = tg.jacobian(lambda x: tg.tensor(a) * w * (x * x).sum(), np.array([0.5, -1.5, 2.0]))
    (dw,) = tg.grad(jacobian.sum(), w)
    assert dw.item() == pytest.approx(a.sum() * 2 * 1.0)


def quartic(a, x):
    """½ xᵀ A x + Σ x⁴/12, whose Hessian is A + diag(x²) for a symmetric A."""
    return 0.5 * (x @ (tg.tensor(a) @ x)) + (x**4).sum() / 12.0


A = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 5.0]])


def test_hessian_in_closed_form():
    """The Hessian of ½ xᵀ A x + Σ x⁴/12 is A + diag(x²), and symmetric."""
    x = np.array([1.0, -2.0, 0.5])
    hessian = tg.hessian(lambda t: quartic(A, t), x).value
    np.testing.assert_allclose(hessian, A + np.diag(x**2), rtol=1e-13)
    np.testing.assert_array_equal(hessian, hessian.T)


@pytest.mark.parametrize("way", ["forward over reverse", "reverse over forward", "reverse over reverse", "forward over forward"])
def test_hessian_vector_products(way):
    """H v by every combination of modes is the closed form."""
    x, v = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.1, -0.7])

    def fn(t):
        return quartic(A, t)

    def gradient(t):
        return tg.vjp(fn, t)[1](1.0)[0]

    if way == "forward over reverse":
        product = tg.jvp(gradient, x, v)[1].value
    elif way == "reverse over forward":
        product = tg.vjp(lambda t: tg.jvp(fn, t, v)[1], x)[1](1.0)[0].value
    elif way == "reverse over reverse":
        product = tg.vjp(gradient, x)[1](v)[0].value
    else:
        product = [tg.jvp(lambda t, e=e: tg.jvp(fn, t, e)[1], x, v)[1].item() for e in np.eye(3)]
    np.testing.assert_allclose(product, A @ v + x**2 * v, rtol=1e-13)


def test_gradient_penalty():
    """d/dw ‖∂ tanh(w·x)/∂x‖² is what the closed form says."""
    w, x = leaf([0.4, -0.3]), leaf([1.0, 2.0])
    y = tg.tanh(w @ x)
    (dx,) = tg.grad(y, x, create_graph=True)
    penalty = (dx * dx).sum()
    penalty.backward()
    t = y.item()
    slope = 1 - t * t
    ww = w.value @ w.value
    expected = 2 * slope**2 * w.value + ww * 2 * slope * (-2 * t * slope) * x.value
    np.testing.assert_allclose(w.grad.value, expected, rtol=1e-13)


def test_second_order_through_a_recurrence():
    """The Hessian of a small recurrence by the weight is the difference quotient of its gradient."""
    rng = np.random.default_rng(5)
    inputs, start = rng.normal(size=(6, 2)), rng.normal(size=(2, 2)) * 0.5

    def loss(w):
        h = tg.tensor(np.zeros(2))
        x = tg.tensor(inputs)
        for t in range(6):
            h = tg.tanh(h @ w + x[t])
        return (h * h).sum()

    hessian = tg.hessian(loss, start).value.reshape(4, 4)
    step = 1e-5
    for k in range(4):
        shift = np.zeros(4)
        shift[k] = step
        up, down = (tg.vjp(loss, start + s * shift.reshape(2, 2))[1](1.0)[0].value.ravel() for s in (1, -1))
        np.testing.assert_allclose(hessian[:, k], (up - down) / (2 * step), rtol=1e-7, atol=1e-9)


def test_a_gradient_taken_inside_a_transform_is_recorded():
    """jvp, vjp and jacobian of a function that calls grad give second derivatives without create_graph."""
    cube = np.array([1.0, 2.0])

    def slope(a):
        return tg.grad((a**3).sum(), a)[0]

    np.testing.assert_allclose(tg.jvp(slope, cube, np.ones(2))[1].value, 6.0 * cube, rtol=1e-12)
    np.testing.assert_allclose(tg.jacobian(slope, cube).value, np.diag(6.0 * cube), rtol=1e-12)
    np.testing.assert_allclose(tg.vjp(slope, cube)[1](np.ones(2))[0].value, 6.0 * cube, rtol=1e-12)


def test_no_grad_decorates_with_and_without_parentheses():
    """As in PyTorch."""
    x = tg.tensor(1.0, requires_grad=True)

    @tg.no_grad
    def bare(y):
        return y * 2.0

    @tg.no_grad()
    def called(y):
        return y * 2.0

    assert not bare(x).requires_grad and not called(x).requires_grad and (x * 2.0).requires_grad
