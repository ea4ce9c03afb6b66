"""What backward and grad do with a graph: accumulation, seeds, unused inputs, rebinding, and data that changes under their feet."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, GraphError, ShapeError


def leaf(data, name=None):
    return tg.tensor(data, requires_grad=True, name=name)


# -- accumulation -----------------------------------------------------------------------------------------------------------


def test_backward_adds_to_grad():
    """A second backward pass through the same graph doubles the gradient; the graph is kept without being asked."""
    x = leaf([1.0, 2.0])
    loss = (x * x * x).sum()
    loss.backward()
    np.testing.assert_array_equal(x.grad.value, [3.0, 12.0])
    loss.backward()
    np.testing.assert_array_equal(x.grad.value, [6.0, 24.0])


def test_grad_of_an_earlier_pass_is_not_overwritten():
    """The gradient that was read before a second pass keeps its numbers."""
    x = leaf([1.0])
    (2.0 * x).backward()
    first = x.grad
    (2.0 * x).backward()
    assert first.item() == 2.0
    assert x.grad.item() == 4.0


def test_operand_used_twice_has_two_edges():
    """a·a has two edges, each with a as its factor."""
    a = leaf([3.0])
    steps = []
    (a * a).backward(observers=[steps.append])
    assert [(step.position, step.contribution.item()) for step in steps] == [(0, 3.0), (1, 3.0)]
    assert a.grad.item() == 6.0


def test_diamond():
    """Cotangents of a node with two consumers are added before the node passes them on."""
    x = leaf([0.5, -1.0])
    h = x * 3.0
    seen = []
    h.register_hook(lambda g: seen.append(g.value.copy()))
    (h * h + 2.0 * h).sum().backward()
    np.testing.assert_allclose(seen, [2.0 * h.value + 2.0])
    np.testing.assert_allclose(x.grad.value, 3.0 * (2.0 * h.value + 2.0))


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_stacked_diamonds(depth):
    """n diamonds in a row give 2ⁿ paths, each counted once, with 2n edges walked."""
    x = leaf(1.0)
    y = x
    for _ in range(depth):
        y = y + y
    steps = []
    y.backward(observers=[steps.append])
    assert x.grad.item() == 2.0**depth
    assert len(steps) == 2 * depth


def test_every_leaf_receives_its_own():
    """Leaves with one shared cotangent can be changed apart from each other."""
    a, b = leaf([1.0, 1.0]), leaf([2.0, 2.0])
    (a + b).backward([1.0, 5.0])
    (a * 2.0).sum().backward()
    np.testing.assert_array_equal(a.grad.value, [3.0, 7.0])
    np.testing.assert_array_equal(b.grad.value, [1.0, 5.0])


def test_gradient_of_a_leaf_by_itself_is_one():
    """A leaf is a graph of one node."""
    x = leaf(4.0)
    x.backward()
    assert x.grad.item() == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_keep_the_dtype_of_the_leaf(dtype):
    """float32 leaves get float32 gradients, also where Python numbers and whole numbers take part."""
    x = leaf(np.array([1.0, 2.0], dtype))
    (np.tanh(x * 0.5 + 1) * x[0] ** 2 / 3).sum().backward()
    assert x.grad.dtype == dtype


def test_mixed_precision_routes_each_gradient_back_to_its_own():
    """A float32 and a float64 leaf in one product have gradients of their own dtypes."""
    x, y = leaf(np.array([1.0], np.float32)), leaf(np.array([2.0]))
    (x * y).backward()
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)
    assert (x.grad.item(), y.grad.item()) == (2.0, 1.0)


# -- seeds ------------------------------------------------------------------------------------------------------------------


def test_non_scalar_needs_a_cotangent():
    """Backward from several entries without a cotangent is an error that says what to give."""
    x = leaf([1.0, 2.0])
    with pytest.raises(GraphError, match=r"shape \(2,\) is not a scalar; give a cotangent"):
        (x * 2.0).backward()
    (x * 2.0).backward([1.0, 10.0])
    np.testing.assert_array_equal(x.grad.value, [2.0, 20.0])


def test_one_entry_in_any_shape_needs_no_cotangent():
    """A value of shape (1, 1) counts as a scalar."""
    x = leaf([[3.0]])
    (x * x).backward()
    np.testing.assert_array_equal(x.grad.value, [[6.0]])


def test_cotangent_of_the_wrong_shape():
    """A cotangent is not broadcast."""
    x = leaf([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"expected a cotangent of shape \(2,\).*got \(\)"):
        (x * 2.0).backward(1.0)


def test_cotangent_is_copied():
    """Changing the array that was given as cotangent afterwards changes no gradient."""
    x = leaf([1.0, 2.0])
    cotangent = np.array([1.0, 1.0])
    (x + 0.0).backward(cotangent)
    cotangent[:] = 100.0
    np.testing.assert_array_equal(x.grad.value, [1.0, 1.0])


def test_nothing_to_differentiate():
    """Backward without a graph names the reason and the remedy."""
    with pytest.raises(GraphError, match=r"no graph; nothing it was computed from requires a gradient"):
        tg.tensor([1.0]).sum().backward()
    with pytest.raises(GraphError, match=r"no graph"), tg.no_grad():
        (leaf(1.0) * 2.0).backward()


def test_empty_values_pass():
    """A sum over nothing has gradients of no entries."""
    x = leaf(np.zeros((0, 3)))
    (x * 2.0).sum().backward()
    assert x.grad.shape == (0, 3)


# -- grad -------------------------------------------------------------------------------------------------------------------


def test_grad_touches_no_grad_attribute():
    """tg.grad returns gradients and leaves ``.grad`` alone, that of other leaves too."""
    x, w = leaf(2.0), leaf(3.0)
    (dx,) = tg.grad(x * w, x)
    assert dx.item() == 3.0
    assert x.grad is None and w.grad is None


def test_grad_of_intermediates():
    """A computed Tensor is an input like any other, also if another input lies behind it."""
    x = leaf(2.0)
    h = x * x
    y = h * h
    dh, dx = tg.grad(y, [h, x])
    assert (dh.item(), dx.item()) == (8.0, 32.0)


def test_grad_of_the_output_itself():
    """∂y/∂y = 1."""
    y = leaf(2.0) * 3.0
    assert tg.grad(y, y)[0].item() == 1.0


def test_grad_of_several_outputs():
    """Outputs are weighted by their cotangents; the same output may be named twice."""
    x = leaf([1.0, 2.0])
    a, b = x * x, x.sum()
    (dx,) = tg.grad([a, b, a], x, [np.array([1.0, 0.0]), 10.0, np.array([0.0, 1.0])])
    np.testing.assert_array_equal(dx.value, [12.0, 14.0])
    with pytest.raises(ArgumentError, match=r"2 outputs need as many cotangents, got 1"):
        tg.grad([a, b], x, [np.ones(2)])


def test_grad_of_outputs_one_behind_another():
    """An output that lies behind another one is seeded and walked through at once."""
    x = leaf(3.0)
    h = x * x
    y = h * x
    assert tg.grad([y, h], x)[0].item() == 27.0 + 6.0


def test_unused_input():
    """An unused input is an error that names it, or zeros if that is asked for."""
    x, z = leaf([1.0, 2.0]), leaf([1.0, 2.0, 3.0], name="z")
    y = (x * x).sum()
    with pytest.raises(GraphError, match=r"input 1 \(z, shape \(3,\)\) was not used"):
        tg.grad(y, [x, z])
    dx, dz = tg.grad(y, [x, z], allow_unused=True)
    np.testing.assert_array_equal(dx.value, [2.0, 4.0])
    np.testing.assert_array_equal(dz.value, np.zeros(3))


def test_grad_of_a_constant_input():
    """An input without requires_grad cannot be differentiated by."""
    x = leaf(1.0)
    with pytest.raises(GraphError, match=r"input 0 does not require a gradient"):
        tg.grad(x * 2.0, tg.tensor(1.0))


def test_grad_walks_only_paths_to_its_inputs():
    """Where only one input is asked for, edges that do not lead to it are not multiplied."""
    x, w = leaf(np.ones(3)), leaf(np.ones(3))
    costly = w
    for _ in range(50):
        costly = np.tanh(costly)
    calls = []
    costly.register_hook(calls.append)
    tg.grad((x * costly).sum(), x)
    assert calls == []


# -- rebinding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5.0, 2.0])
def test_rebinding_between_forward_and_backward(value):
    """A leaf that was given a new value, or its own once more, after the forward pass is refused by name; no leaf's gradient changes."""
    x, w = leaf([1.0], name="x"), leaf([2.0], name="w")
    loss, scale = (x * w).sum(), w * 3.0
    (x * 1.0).backward()
    w.value = [value]
    for differentiate in (loss.backward, lambda: tg.grad(loss, x), lambda: tg.jvp(lambda a: a * scale, x, np.ones(1))):
        with pytest.raises(GraphError, match=r"leaf w of shape .* was given a new value"):
            differentiate()
    assert x.grad.item() == 1.0
    assert w.grad is None


def test_rebinding_keeps_grad_name_and_hooks():
    """An optimiser's step keeps what hangs on a leaf: gradient, name and hooks."""
    w = leaf([2.0], name="w")
    seen = []
    w.register_hook(lambda g: seen.append(g.item()))
    (w * 3.0).backward()
    w.value = w.value - 0.1 * w.grad.value
    assert (w.grad.item(), w.name, w.requires_grad) == (3.0, "w", True)
    (w * 4.0).backward()
    assert seen == [3.0, 4.0]
    assert w.grad.item() == 7.0


def test_rebinding_during_backward():
    """A hook that rebinds the leaf it is on is refused: the gradient would have nowhere to go."""
    w = leaf([2.0], name="w")
    w.register_hook(lambda g: setattr(w, "value", w.value - g.value))
    with pytest.raises(GraphError, match=r"leaf w .* was given a new value"):
        (w * 3.0).backward()
    assert w.grad is None


def test_rebinding_does_not_change_what_was_computed():
    """Values computed before keep theirs."""
    w = leaf([2.0])
    y = w * 3.0
    w.value = [100.0]
    assert y.item() == 6.0


def test_rebinding_a_computed_tensor():
    """Only leaves can be rebound."""
    y = leaf([1.0]) * 2.0
    with pytest.raises(GraphError, match=r"only a leaf can be rebound"):
        y.value = [1.0]
    with pytest.raises(GraphError, match=r"only a leaf can be switched"):
        y.requires_grad = False
    with pytest.raises(GraphError, match=r"only a leaf"):
        y.grad = [1.0]


def test_rebinding_to_another_shape_or_dtype():
    """A leaf keeps its shape and its dtype."""
    w = leaf(np.ones((2, 2), np.float32))
    with pytest.raises(ShapeError, match=r"shape \(2, 2\), got \(2,\)"):
        w.value = [1.0, 2.0]
    w.value = np.full((2, 2), 0.1)
    assert w.dtype == np.float32


def test_constants_can_be_rebound():
    """A Tensor without gradient is rebound without ado, and the graph keeps the number that it saw."""
    x, c = leaf(2.0), tg.tensor(3.0)
    y = x * c
    c.value = 7.0
    y.backward()
    assert x.grad.item() == 3.0


def test_requires_grad_can_be_switched_on_a_leaf():
    """Frozen, a leaf is a constant; thawed, it collects gradients again."""
    w = leaf([2.0], name="w")
    w.requires_grad = False
    assert not (w * 2.0).requires_grad
    w.requires_grad = True
    assert w.name == "w"
    (w * 2.0).backward()
    assert w.grad.item() == 2.0


def test_whole_numbers_become_float64_when_switched_on():
    """Integers cannot collect a gradient, so they are converted."""
    w = tg.tensor([1, 2])
    assert w.dtype.kind == "i"
    w.requires_grad = True
    assert w.dtype == np.float64


# -- data that changes under one's feet -------------------------------------------------------------------------------------


TWOS = np.full((2, 3), 2.0)
MASK = np.array([[True, False, True], [False, True, False]])
TOOK_PART = {
    "factor": (TWOS, lambda x, a: x * a),
    "left factor": (TWOS, lambda x, a: a * x),
    "divisor": (TWOS[0], lambda x, a: x / a),
    "matrix": (TWOS.T, lambda x, a: x @ a),
    "left matrix": (TWOS[:, :2], lambda x, a: a @ x),
    "exponent": (TWOS, lambda x, a: x**a),
    "mask": (MASK, lambda x, a: tg.where(a, x * x, x)),
    "boolean index": (MASK, lambda x, a: x[a] * x[a]),
    "integer index": (np.array([0, 1, 1]), lambda x, a: x[a] * x[a]),
    "index in a tuple": (np.array([0, 1, 1]), lambda x, a: x[a, np.array([0, 2, 2])] * 3.0),
    "take": (np.array([0, 2]), lambda x, a: tg.take(x, a, 1) * 3.0),
    "einsum": (TWOS.T, lambda x, a: tg.einsum("ij,jk->ik", x, a)),
    "concatenate": (TWOS, lambda x, a: tg.concatenate([x, a]) * tg.concatenate([a, x])),
    "maximum": (TWOS + 0.5, tg.maximum),
    "repeats": (np.array([1, 2]), lambda x, a: tg.repeat(x, a, 0)),
    "ufunc": (TWOS, lambda x, a: np.multiply(a, x)),
}


@pytest.mark.parametrize("name", TOOK_PART)
def test_arrays_that_took_part_are_copied(name):
    """A caller who changes an array, a mask or an index after the forward pass changes no gradient."""
    given, use = TOOK_PART[name]
    gradients = []
    for change in (False, True):
        x, array = leaf(np.arange(1.0, 7.0).reshape(2, 3)), given.copy()
        loss = use(x, array).sum()
        if change:
            array[...] = 0
        gradients.append(tg.grad(loss, x)[0].value)
    np.testing.assert_array_equal(*gradients)


def test_data_given_to_tensor_is_copied():
    """A caller who changes the array that a leaf was made of changes neither its value nor its gradient."""
    array = np.ones(2)
    x = leaf(array)
    loss = (x * x).sum()
    array[:] = 5.0
    loss.backward()
    np.testing.assert_array_equal(x.value, [1.0, 1.0])
    np.testing.assert_array_equal(x.grad.value, [2.0, 2.0])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x * 2.0,
        lambda x: x.T,
        lambda x: x.reshape(-1),
        lambda x: x[0],
        lambda x: (x * 2.0).T,
        lambda x: (x * 2.0)[::-1],
        lambda x: x.detach(),
        lambda x: (x * 2.0).detach().reshape(4),
        lambda x: tg.grad((x * x).sum(), x)[0],
    ],
)
def test_values_are_read_only(view):
    """``.value`` cannot be written to, whether it is a leaf's, a result's or a view of one; ``.numpy()`` is a copy that can."""
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = view(x)
    with pytest.raises(ValueError, match=r"read-only"):
        y.value[...] = 0.0
    y.numpy()[...] = 0.0
    np.testing.assert_array_equal(x.value, [[1.0, 2.0], [3.0, 4.0]])


def test_augmented_assignment_makes_a_new_tensor():
    """``y += 1`` binds the name to a new Tensor; the old one is as it was."""
    x = leaf([1.0])
    y = old = x * 2.0
    y += 1.0
    assert (old.item(), y.item()) == (2.0, 3.0)
    array = np.ones(1)
    with pytest.raises(tg.errors.UnsupportedError):
        array += x
    assert array.item() == 1.0


def test_a_number_used_whole_and_by_index():
    """Two uses of a number as it is and one by ``x[...]``, in any order of the walk, add up."""
    for loss in (lambda x: x * x + x[...], lambda x: x[...] + x * x, lambda x: x[...] / x + x[None].sum()):
        x = leaf(0.5)
        loss(x).backward()
        h = 1e-6
        slope = (loss(tg.tensor(0.5 + h)).item() - loss(tg.tensor(0.5 - h)).item()) / (2 * h)
        assert x.grad.item() == pytest.approx(slope, rel=1e-8)
