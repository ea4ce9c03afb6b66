"""gradcheck and gradgradcheck: every derivative of a function against the complex step or central differences, entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import ops
from ..primitive import Primitive
from ..tensor import Tensor, tensor
from ..transforms import grad, jvp, no_grad
from .comparing import handed_back
from .differences import SMALLEST, basis_of, complex_step, differences
from .reproduction import GradcheckError, law
from .subjects import Subject, parts_of

Function = Callable[..., Any]
_AWAY = "Move the inputs away from kinks and poles"


@law
def gradcheck(fn: Function, *inputs: Any, rtol: float = 1e-6, seed: int = 0, **statics: Any) -> None:
    """Check the first derivatives of ``fn`` at ``inputs``: reverse mode, forward mode, and that they are adjoint.

    The Jacobian J is computed in three ways, row by row with cotangents e_j (reverse mode), column by column with tangents e_i
    (forward mode), and by central differences whose step is chosen automatically; where the function takes complex arrays (it is written
    with NumPy's functions), and the differences agree with it, the complex step, which is exact to rounding, takes their place. They must
    agree in every entry:

        ⟨J e_i, e_j⟩ = ⟨e_i, Jᵀ e_j⟩ = ∂fn_j / ∂x_i    up to ``rtol`` times the larger one.

    What rounding allows the differences to resolve is measured and not set, so there is no absolute tolerance: a gradient of 1e-12
    is told from 0 and from 9e-12. Last, ``backward`` with a random cotangent v must give Jᵀ v, since a pullback is linear.

    Args:
        fn: takes as many Tensors as there are inputs and returns one Tensor, or several in a tuple. A primitive, a cell or a layer
            will do; a module's parameters are checked as well.
        inputs: numbers, arrays or Tensors, and tuples of them (a state); taken as float64. Stay away from kinks and poles. Whole
            numbers given to a module (tokens, lengths) are not differentiated.
        rtol: the relative tolerance.
        seed: of the random cotangent.
        statics: keywords for every call of ``fn``.

    Raises:
        GradcheckError: at the first entry that is wrong, or that the differences cannot resolve, with code to see it again.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import testing
        >>> testing.gradcheck(lambda x, w: np.tanh(x @ w), [[0.5, -1.0]], [[0.3], [0.2]])
        >>> try:
        ...     testing.gradcheck(lambda x: x.detach() * x, [3.0])
        ... except testing.GradcheckError as error:
        ...     print(error.message)
        gradcheck: operand 0, entry (0,), to output entry (0,): expected 6 by central differences, got 3 by reverse mode. Check the rule \
of the primitive that this entry passes through
    """
    subject = Subject(fn, inputs, statics)
    _check("gradcheck", subject, subject.arrays, subject.names, rtol, seed)


@law
def gradgradcheck(fn: Function, *inputs: Any, rtol: float = 1e-6, seed: int = 0, **statics: Any) -> None:
    """Check the second derivatives of ``fn`` at ``inputs``: :func:`gradcheck` of its pullback.

    The pullback (x, v) ↦ J(x)ᵀ v is recorded with ``create_graph=True`` and differentiated once more, with respect to the inputs
    and to the cotangent, in reverse and in forward mode. Its *values* are taken for granted: run :func:`gradcheck` as well.

    Args:
        fn, inputs, rtol, seed, statics: as for :func:`gradcheck`; the cotangent v is random.

    Raises:
        GradcheckError: at the first entry that is wrong, or that the differences cannot resolve.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import testing
        >>> testing.gradgradcheck(lambda x: np.exp(x) * x, [0.5, -1.0])
    """
    subject = Subject(fn, inputs, statics)
    arrays = subject.arrays
    cotangent = np.random.default_rng(seed).uniform(0.5, 1.5, _value("gradgradcheck", subject, arrays).shape)

    def pullback(*points: Tensor) -> Tensor:
        *operands, v = points
        out = subject(*operands)
        if out.node is None:
            return ops.ravel(v) * 0.0  # type: ignore[no-any-return]
        gradients = grad(out, operands, v, create_graph=True, allow_unused=True)
        return ops.concatenate([ops.ravel(gradient) for gradient in gradients])  # type: ignore[no-any-return]

    _check("gradgradcheck", pullback, [*arrays, cotangent], [*subject.names, "the cotangent"], rtol, seed)


def _value(what: str, fn: Function, arrays: Sequence[Any]) -> Any:
    return _run(what, fn, _leaves(arrays)).value


def _leaves(arrays: Sequence[Any]) -> list[Tensor]:
    return [tensor(array, requires_grad=True) for array in arrays]


def _run(what: str, fn: Function, leaves: list[Tensor]) -> Tensor:
    out = fn(*leaves)
    if not isinstance(out, Tensor) or out.dtype != np.float64:
        found = f"a Tensor of {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
        raise GradcheckError(f"{what}: expected a function that returns one float64 Tensor, got {found}. Use float64 inside it as well")
    return out


def _check(what: str, fn: Function, arrays: list[Any], names: list[str], rtol: float, seed: int) -> None:
    value = _value(what, fn, arrays)
    if not np.array_equal(value, _value(what, fn, arrays), equal_nan=True):
        raise GradcheckError(
            f"{what}: expected the same value when the function is called again, got another one. Call eval(), or make the random "
            "generator inside of the function"
        )
    shape = value.shape
    reverse = by_reverse_mode(what, fn, arrays, names)
    forward = by_forward_mode(what, fn, arrays, names, shape)
    combined = _combined(what, fn, arrays, weights := np.random.default_rng(seed).uniform(0.5, 1.5, shape))
    for k, name in enumerate(names):
        expected, error, by = _oracle(what, fn, arrays, k, rtol)
        where = Where(what, name, arrays[k].shape, shape)
        remedy = partial(_remedy, what, fn, arrays, k) if by == "central differences" else _check_the_rule
        where.agree(expected, reverse[k], error, rtol, by, "reverse mode", remedy)
        where.agree(reverse[k], forward[k], error, rtol, "reverse mode (adjoint identity)", "forward mode")
        row = weights.reshape(1, -1)
        where = Where(what, name, arrays[k].shape, None)
        where.agree(row @ reverse[k], combined[k], row @ (error + rtol * np.abs(reverse[k])), 0.0, "linearity", "backward")


def _check_the_rule(row: int, column: int) -> str:
    return "Check the rule of the primitive that this entry passes through"


def _remedy(what: str, fn: Function, arrays: list[Any], k: int, row: int, column: int) -> str:
    """Away from the kink, if the slopes to the left and to the right of the entry differ."""
    step = 1e-6 * max(abs(float(arrays[k].flat[column])), 1.0)
    values = []
    for shift in (-step, 0.0, step):
        moved = arrays[k].copy()
        moved.flat[column] += shift
        values.append(float(_value(what, fn, [*arrays[:k], moved, *arrays[k + 1 :]]).flat[row]))
    left, right = (values[1] - values[0]) / step, (values[2] - values[1]) / step
    if abs(right - left) <= 1e-3 * max(abs(left), abs(right)):
        return _check_the_rule(row, column)
    return f"The slope jumps here, from {left:.4g} on the left to {right:.4g} on the right: move the inputs away from kinks"


def _oracle(what: str, fn: Function, arrays: list[Any], k: int, rtol: float) -> tuple[Any, Any, str]:
    """The Jacobian with respect to operand k, the error of each entry, and how it was found."""
    expected, error = differences(lambda *moved: _value(what, fn, moved), arrays, k, rtol=rtol)
    exact = complex_step(lambda *moved: _plain(fn, moved), arrays, k) if np.isfinite(error).all() else None
    if exact is None or exact.shape != expected.shape or not (np.abs(exact - expected) <= error + rtol * np.abs(expected)).all():
        return expected, error, "central differences"
    size = max(float(np.max(np.abs(x), initial=0.0)) for x in (exact, _value(what, fn, arrays)))
    return exact, np.minimum(error, np.maximum(1e-14 * size, SMALLEST)), "the complex step"


def _plain(subject: Function, arrays: Sequence[Any]) -> Any:
    """The value on arrays, without Tensors: of a primitive its ``forward``."""
    if not isinstance(subject, Subject):
        return np.zeros(0)
    with no_grad():
        made = subject.what.forward(*arrays, **subject.statics) if isinstance(subject.what, Primitive) else subject.results(*arrays)
        return np.concatenate([np.ravel(part) for part in parts_of(made)])


class Where:
    """Compares two Jacobians and says at which entry they part."""

    def __init__(self, what: str, name: str, operand: tuple[int, ...], output: tuple[int, ...] | None) -> None:
        self.what, self.name, self.operand, self.output = what, name, operand, output

    def agree(
        self,
        expected: Any,
        got: Any,
        error: Any,
        rtol: float,
        by: str,
        came_by: str,
        remedy: Callable[[int, int], str] = _check_the_rule,
    ) -> None:
        size = np.maximum(np.abs(expected), np.abs(got))
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(got - expected) <= rtol * size + error) & (got != expected) & ~(np.isnan(got) & np.isnan(expected))
        if np.isinf(error).any():
            raise GradcheckError(
                f"{self._at(np.isinf(error))}: expected an estimate by {by}, got none that decides anything. {_AWAY}, or scale the function"
            )
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise GradcheckError(
                f"{self._at(wrong)}: expected {_first(expected, wrong)} by {by}, got {_first(got, wrong)} by {came_by}. "
                f"{remedy(*place) if np.isfinite([expected[place], got[place]]).all() else _AWAY}"
            )

    def _at(self, mask: Any) -> str:
        row, column = (int(i) for i in np.argwhere(mask)[0])
        source = f"{self.what}: {self.name}, entry {_place(column, self.operand)}"
        return source + (", for a random cotangent" if self.output is None else f", to output entry {_place(row, self.output)}")


def _place(number: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(number, shape)) if shape else ()


def _first(values: Any, mask: Any) -> str:
    return f"{values[mask][0]:.10g}"


def by_reverse_mode(what: str, fn: Function, arrays: list[Any], names: list[str]) -> list[Any]:
    """The Jacobian with respect to each operand, (output entries, operand entries), row by row."""
    leaves = _leaves(arrays)
    out = _run(what, fn, leaves)
    rows: list[list[Any]] = [[] for _ in leaves]
    for basis in basis_of(out.shape) if out.node is not None else ():
        for k, gradient in enumerate(handed_back(out, leaves, basis)):
            gradient = np.zeros(leaves[k].shape) if gradient is None else gradient
            _fits(what, names[k], gradient, leaves[k])
            rows[k].append(gradient.ravel())
    return [
        np.array(row).reshape(out.size, leaf.size) if row else np.zeros((out.size, leaf.size))
        for row, leaf in zip(rows, leaves, strict=True)
    ]


def _fits(what: str, name: str, gradient: Any, leaf: Tensor) -> None:
    if gradient.shape != leaf.shape:
        raise GradcheckError(
            f"{what}: {name}: expected a gradient of shape {leaf.shape}, that of the operand, got {gradient.shape}. Check what the "
            "pullback does with broadcast axes"
        )


def by_forward_mode(what: str, fn: Function, arrays: list[Any], names: list[str], shape: tuple[int, ...]) -> list[Any]:
    """The same, column by column."""
    jacobians = []
    for k, array in enumerate(arrays):
        jacobian = np.zeros((math.prod(shape), array.size))
        for entry in range(array.size):
            tangents = [np.zeros(a.shape) for a in arrays]
            tangents[k].flat[entry] = 1.0
            _, pushed = jvp(fn, arrays, tangents)
            if pushed.shape != shape:
                raise GradcheckError(f"{what}: {names[k]}: expected a tangent of shape {shape}, that of the output, got {pushed.shape}")
            jacobian[:, entry] = pushed.value.ravel()
        jacobians.append(jacobian)
    return jacobians


def _combined(what: str, fn: Function, arrays: list[Any], cotangent: Any) -> list[Any]:
    """What ``backward`` gives for a cotangent that is no basis vector, one row per operand."""
    leaves = _leaves(arrays)
    out = _run(what, fn, leaves)
    if out.node is not None:
        out.backward(cotangent)
    return [np.zeros((1, leaf.size)) if leaf.grad is None else leaf.grad.value.reshape(1, -1) for leaf in leaves]
