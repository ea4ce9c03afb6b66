"""Every primitive and every function composed of primitives, from the tables in cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CASES, COMPOSITES, Case, call_of
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import ops
from tinygrad_rnn.primitive import PRIMITIVES
from tinygrad_rnn.testing import gradcheck, gradgradcheck, laws

FEW = settings(max_examples=max(settings().max_examples // 2, 10))
"""Second derivatives cost more; they are checked on fewer examples."""

every_primitive = pytest.mark.parametrize("name", sorted(CASES))
every_composite = pytest.mark.parametrize("name", sorted(COMPOSITES))


def tensors(operands: tuple[Any, ...]) -> list[Any]:
    return [tg.tensor(x, requires_grad=True) for x in operands]


def flat(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arrays themselves: an operand may be a tuple of them."""
    return tuple(part for x in operands for part in (x if isinstance(x, tuple) else (x,)))


def call(name: str, case: Case, statics: dict[str, Any]) -> Any:
    function = case.call or PRIMITIVES[name]
    return lambda *xs: function(*xs, **statics)


def test_every_primitive_has_a_case() -> None:
    """A primitive without an entry in the table fails the suite."""
    assert set(CASES) == set(PRIMITIVES)


def test_every_exported_function_has_a_case() -> None:
    """Whatever the rooms of operations export is a primitive, or has an entry in the table of composites."""
    rooms = ("tinygrad_rnn.ops", "tinygrad_rnn.functional")
    exported = {name for name in dir(tg) if getattr(getattr(tg, name), "__module__", "").startswith(rooms)}
    composed = {name for name in exported if getattr(tg, name) not in PRIMITIVES.values()}
    assert composed == set(COMPOSITES) - {"getitem", "checkpoint"}
    assert set(ops.__all__) - exported == {"getitem", "identity", "item", "astype"}


# -- primitives ---------------------------------------------------------------------------------------------------------------


@every_primitive
@given(data=st.data())
def test_value(name: str, data: st.DataObject) -> None:
    """On arrays and on Tensors a primitive gives the oracle's value, in its shape."""
    case = CASES[name]
    operands, statics = data.draw(case.examples)
    expected = np.asarray(case.oracle(*operands, **statics))
    direct = np.asarray(PRIMITIVES[name](*operands, **statics))
    recorded = call(name, case, statics)(*tensors(flat(operands)))
    assert direct.shape == recorded.shape == expected.shape
    np.testing.assert_allclose(direct, expected, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(recorded.value, direct)


@pytest.mark.parametrize("law", laws.LOCAL, ids=lambda law: law.__name__)
@every_primitive
@given(data=st.data())
def test_law(name: str, law: Any, data: st.DataObject) -> None:
    """The maps of a rule obey every law of a primitive."""
    if (name, law) == ("astype", laws.precision):
        pytest.skip("changing the precision is what it is for")
    operands, statics = data.draw(CASES[name].examples)
    law(PRIMITIVES[name], *operands, **statics)


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.holomorphic))
@given(data=st.data())
def test_complex_step(name: str, data: st.DataObject) -> None:
    """Where the forward function is holomorphic, the pullback agrees with the complex step to the last digits."""
    operands, statics = data.draw(CASES[name].examples)
    laws.complex_step(PRIMITIVES[name], *operands, **statics)


@every_primitive
@given(data=st.data())
def test_gradient(name: str, data: st.DataObject) -> None:
    """Reverse mode, forward mode and central differences agree in every entry, through broadcasting as well."""
    operands, statics = data.draw(CASES[name].examples)
    gradcheck(call(name, CASES[name], statics), *flat(operands))


@every_primitive
@FEW
@given(data=st.data())
def test_second_gradient(name: str, data: st.DataObject) -> None:
    """The gradient of the gradient agrees with differences of the gradient."""
    operands, statics = data.draw(CASES[name].examples)
    gradgradcheck(call(name, CASES[name], statics), *flat(operands))


# -- composites ---------------------------------------------------------------------------------------------------------------


@every_composite
@given(data=st.data())
def test_composite_value(name: str, data: st.DataObject) -> None:
    """A composed function gives NumPy's value, in its shape."""
    case = COMPOSITES[name]
    operands, statics = data.draw(case.examples)
    expected = np.asarray(case.oracle(*operands, **statics))
    out = call_of(name, case)(*tensors(operands), **statics)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out.value, expected, rtol=1e-11, atol=1e-14)


@every_composite
@given(data=st.data())
def test_composite_gradient(name: str, data: st.DataObject) -> None:
    """A composed function's derivatives agree with central differences."""
    case = COMPOSITES[name]
    operands, statics = data.draw(case.examples)
    gradcheck(lambda *xs: call_of(name, case)(*xs, **statics), *operands)


@every_composite
@FEW
@given(data=st.data())
def test_composite_second_gradient(name: str, data: st.DataObject) -> None:
    """So do its second derivatives."""
    case = COMPOSITES[name]
    operands, statics = data.draw(case.examples)
    gradgradcheck(lambda *xs: call_of(name, case)(*xs, **statics), *operands)


@every_composite
@given(data=st.data())
def test_composite_precision(name: str, data: st.DataObject) -> None:
    """float32 in gives float32 out, in value and gradient."""
    case = COMPOSITES[name]
    operands, statics = data.draw(case.examples)
    leaves = tensors(tuple(x.astype(np.float32) for x in operands))
    out = call_of(name, case)(*leaves, **statics)
    assert out.dtype == np.float32
    for gradient in tg.grad(out, leaves, np.ones(out.shape), allow_unused=True):
        assert gradient.dtype == np.float32


# -- conventions --------------------------------------------------------------------------------------------------------------

KINKS: dict[str, tuple[Any, list[float], list[float]]] = {
    "relu at 0": (tg.relu, [0.0], [0.0]),
    "abs at 0": (tg.absolute, [0.0], [0.0]),
    "maximum at a tie": (lambda x: tg.maximum(x, 1.0), [1.0], [0.5]),
    "minimum at a tie": (lambda x: tg.minimum(x, 1.0), [1.0], [0.5]),
    "max with ties": (tg.max, [1.0, 2.0, 2.0], [0.0, 0.5, 0.5]),
    "min with ties": (tg.min, [1.0, 1.0, 1.0, 2.0], [1 / 3, 1 / 3, 1 / 3, 0.0]),
    "clip at its bounds": (lambda x: tg.clip(x, 0.0, 1.0), [0.0, 1.0, 2.0], [1.0, 1.0, 0.0]),
    "x⁰ at 0": (lambda x: x**0, [0.0], [0.0]),
    "x¹ at 0": (lambda x: x**1, [0.0], [1.0]),
    "x³ at 0 and below": (lambda x: x**3, [0.0, -2.0], [0.0, 12.0]),
    "0ˣ at 1": (lambda x: 0.0**x, [1.0], [0.0]),
    "√ at 0": (tg.sqrt, [0.0], [np.inf]),
    "norm at 0": (tg.norm, [0.0, 0.0], [0.0, 0.0]),
    "std of equals": (tg.std, [3.0, 3.0], [0.0, 0.0]),
    "x ln x at 0": (lambda x: tg.xlogy(x, x), [0.0], [0.0]),
    "prod with a 0": (tg.prod, [2.0, 0.0, 5.0], [0.0, 10.0, 0.0]),
    "prod with two": (tg.prod, [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", KINKS)
def test_slope_at_a_kink(name: str) -> None:
    """Where there is no derivative, the slope is the documented one (PyTorch's)."""
    function, point, expected = KINKS[name]
    x = tg.tensor(point, requires_grad=True)
    out = function(x)
    out.backward(np.ones(out.shape))
    np.testing.assert_array_equal(x.grad.value, expected)
    tangent = tg.jvp(function, x, np.ones(x.shape))[1]
    np.testing.assert_allclose(tangent.value.sum(), np.sum(expected), rtol=1e-15)


LAYOUTS = {
    "Fortran order": lambda x: np.array(x, order="F"),
    "every other entry": lambda x: np.repeat(x[..., None], 2, -1)[..., 0],
    "reversed strides": lambda x: np.flip(np.flip(x).copy())[...],
}


@every_primitive
@pytest.mark.parametrize("layout", LAYOUTS)
@FEW
@given(data=st.data())
def test_memory_layout(name: str, layout: str, data: st.DataObject) -> None:
    """How an array lies in memory changes neither value nor gradient."""
    case = CASES[name]
    operands, statics = data.draw(case.examples)
    function = call(name, case, statics)
    results = []
    for arrange in (np.array, LAYOUTS[layout]):
        leaves = tensors(tuple(arrange(x) for x in flat(operands)))
        out = function(*leaves)
        cotangent = arrange(np.arange(1.0, out.size + 1.0).reshape(out.shape))
        results.append([out, *tg.grad(out, leaves, cotangent, allow_unused=True)])
    for plain, arranged in zip(*results, strict=True):
        np.testing.assert_allclose(arranged.value, plain.value, rtol=1e-14)
