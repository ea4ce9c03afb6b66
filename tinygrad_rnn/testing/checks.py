"""gradcheck and gradgradcheck: every derivative of a function against central differences, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import TinygradError
from ..tensor import Tensor, tensor
from ..transforms import grad, jvp
from .differences import differences

Function = Callable[..., Any]


class GradcheckError(TinygradError, AssertionError):
    """A derivative, or a law of a primitive, is wrong; the message names the operand, the entry, what was expected and what came."""


def gradcheck(fn: Function, *inputs: Any, rtol: float = 1e-6, seed: int = 0) -> None:
    """Check the first derivatives of ``fn`` at ``inputs``: reverse mode, forward mode, and that they are adjoint.

    The Jacobian J is computed in three ways, row by row with cotangents e_j (reverse mode), column by column with tangents e_i
    (forward mode), and by central differences whose step is chosen automatically. They must agree in every entry:

        ⟨J e_i, e_j⟩ = ⟨e_i, Jᵀ e_j⟩ = ∂fn_j / ∂x_i    up to ``rtol`` times the larger one.

    What rounding allows the differences to resolve is measured and not set, so there is no absolute tolerance: a gradient of 1e-12
    is told from 0 and from 9e-12. Last, ``backward`` with a random cotangent v must give Jᵀ v, since a pullback is linear.

    Args:
        fn: takes as many Tensors as there are inputs and returns one Tensor. Close over what is not differentiated.
        inputs: numbers, arrays or Tensors; taken as float64. Stay away from kinks and poles.
        rtol: the relative tolerance.
        seed: of the random cotangent.

    Raises:
        GradcheckError: at the first entry that is wrong, or that the differences cannot resolve.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import testing
        >>> testing.gradcheck(lambda x, w: np.tanh(x @ w), [[0.5, -1.0]], [[0.3], [0.2]])
        >>> testing.gradcheck(lambda x: x.detach() * x, [3.0])
        Traceback (most recent call last):
        ...
        tinygrad_rnn.testing.checks.GradcheckError: gradcheck: operand 0, entry (0,), to output entry (0,): expected 6 by central \
differences, got 3 by reverse mode. Check the rule of the primitive that this entry passes through
    """
    _check("gradcheck", fn, [_float64(x) for x in inputs], [f"operand {k}" for k in range(len(inputs))], rtol, seed)


def gradgradcheck(fn: Function, *inputs: Any, rtol: float = 1e-6, seed: int = 0) -> None:
    """Check the second derivatives of ``fn`` at ``inputs``: :func:`gradcheck` of its pullback.

    The pullback (x, v) ↦ J(x)ᵀ v is recorded with ``create_graph=True`` and differentiated once more, with respect to the inputs
    and to the cotangent, in reverse and in forward mode. Its *values* are taken for granted: run :func:`gradcheck` as well.

    Args:
        fn, inputs, rtol, seed: as for :func:`gradcheck`; the cotangent v is random.

    Raises:
        GradcheckError: at the first entry that is wrong, or that the differences cannot resolve.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import testing
        >>> testing.gradgradcheck(lambda x: np.exp(x) * x, [0.5, -1.0])
    """
    arrays = [_float64(x) for x in inputs]
    cotangent = np.random.default_rng(seed).uniform(0.5, 1.5, _value("gradgradcheck", fn, arrays).shape)

    def pullback(*points: Tensor) -> Tensor:
        *operands, v = points
        out = fn(*operands)
        if out.node is None:
            return ops.ravel(v) * 0.0  # type: ignore[no-any-return]
        gradients = grad(out, operands, v, create_graph=True, allow_unused=True)
        return ops.concatenate([ops.ravel(gradient) for gradient in gradients])  # type: ignore[no-any-return]

    names = [*(f"operand {k}" for k in range(len(arrays))), "the cotangent"]
    _check("gradgradcheck", pullback, [*arrays, cotangent], names, rtol, seed)


def _float64(x: Any) -> Any:
    return np.array(getattr(x, "value", x), dtype=np.float64)


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
    shape = _value(what, fn, arrays).shape
    reverse = _reverse(what, fn, arrays, names)
    forward = _forward(what, fn, arrays, shape)
    for k, name in enumerate(names):
        expected, error = differences(lambda *moved: _value(what, fn, moved), arrays, k, rtol=rtol)
        where = _Where(what, name, arrays[k].shape, shape)
        where.agree(expected, reverse[k], error, rtol, "central differences", "reverse mode")
        where.agree(reverse[k], forward[k], error, rtol, "reverse mode (adjoint identity)", "forward mode")
    _linear(what, fn, arrays, names, reverse, np.random.default_rng(seed).uniform(0.5, 1.5, shape), rtol)


class _Where:
    """Compares two Jacobians and says at which entry they part."""

    def __init__(self, what: str, name: str, operand: tuple[int, ...], output: tuple[int, ...]) -> None:
        self.what, self.name, self.operand, self.output = what, name, operand, output

    def agree(self, expected: Any, got: Any, error: Any, rtol: float, by: str, came_by: str) -> None:
        size = np.maximum(np.abs(expected), np.abs(got))
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(got - expected) <= rtol * size + error)
            vague = ~(error <= np.maximum(0.01 * size, 1e-10))
        if wrong.any():
            raise GradcheckError(
                f"{self._at(wrong)}: expected {_first(expected, wrong)} by {by}, got {_first(got, wrong)} by {came_by}. "
                "Check the rule of the primitive that this entry passes through"
            )
        if vague.any():
            raise GradcheckError(
                f"{self._at(vague)}: expected an estimate by {by}, got {_first(expected, vague)} ± {_first(error, vague)}, which decides "
                "nothing. Move the inputs away from kinks and poles, or scale the function"
            )

    def _at(self, mask: Any) -> str:
        row, column = (int(i) for i in np.argwhere(mask)[0])
        source = tuple(int(i) for i in np.unravel_index(column, self.operand)) if self.operand else ()
        target = tuple(int(i) for i in np.unravel_index(row, self.output)) if self.output else ()
        return f"{self.what}: {self.name}, entry {source}, to output entry {target}"


def _first(values: Any, mask: Any) -> str:
    return f"{values[mask][0]:.10g}"


def _reverse(what: str, fn: Function, arrays: list[Any], names: list[str]) -> list[Any]:
    """The Jacobian with respect to each operand, (output entries, operand entries), row by row."""
    leaves = _leaves(arrays)
    out = _run(what, fn, leaves)
    rows: list[list[Any]] = [[] for _ in leaves]
    for basis in np.eye(out.size).reshape(-1, *out.shape) if out.node is not None else ():
        for k, gradient in enumerate(grad(out, leaves, basis, allow_unused=True)):
            _fits(what, names[k], gradient, leaves[k])
            rows[k].append(gradient.value.ravel())
    return [
        np.array(row).reshape(out.size, leaf.size) if row else np.zeros((out.size, leaf.size))
        for row, leaf in zip(rows, leaves, strict=True)
    ]


def _fits(what: str, name: str, gradient: Tensor, leaf: Tensor) -> None:
    if gradient.shape != leaf.shape:
        raise GradcheckError(
            f"{what}: {name}: expected a gradient of shape {leaf.shape}, that of the operand, got {gradient.shape}. Check what the "
            "pullback does with broadcast axes"
        )


def _forward(what: str, fn: Function, arrays: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The same, column by column."""
    jacobians = []
    for k, array in enumerate(arrays):
        jacobian = np.zeros((int(np.prod(shape)), array.size))
        for entry in range(array.size):
            tangents = [np.zeros(a.shape) for a in arrays]
            tangents[k].flat[entry] = 1.0
            _, pushed = jvp(fn, arrays, tangents)
            if pushed.shape != shape:
                raise GradcheckError(f"{what}: operand {k}: expected a tangent of shape {shape}, that of the output, got {pushed.shape}")
            jacobian[:, entry] = pushed.value.ravel()
        jacobians.append(jacobian)
    return jacobians


def _linear(what: str, fn: Function, arrays: list[Any], names: list[str], jacobians: list[Any], cotangent: Any, rtol: float) -> None:
    """``backward`` with a cotangent that is no basis vector gives the combination of the rows."""
    leaves = _leaves(arrays)
    out = _run(what, fn, leaves)
    if out.node is None:
        return
    out.backward(cotangent)
    for name, leaf, jacobian in zip(names, leaves, jacobians, strict=True):
        got = np.zeros(leaf.size) if leaf.grad is None else leaf.grad.value.ravel()
        expected, size = cotangent.ravel() @ jacobian, cotangent.ravel() @ np.abs(jacobian)
        wrong = ~(np.abs(got - expected) <= rtol * size)
        if wrong.any():
            raise GradcheckError(
                f"{what}: {name}, entry {np.unravel_index(int(np.argmax(wrong)), leaf.shape) if leaf.shape else ()}: expected "
                f"{_first(expected, wrong)} by linearity, got {_first(got, wrong)} for a random cotangent. A pullback must be linear"
            )
