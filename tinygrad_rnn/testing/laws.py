"""Laws: what must be true of a function, a primitive, a cell or a layer, whatever it computes.

Every law is called ``law(subject, *inputs, rtol=…, seed=0, **statics)``, returns nothing, and raises
:class:`~tinygrad_rnn.testing.GradcheckError` (an AssertionError) if it is broken: with the operand, the entry, what was expected and what
came, and code to see it again. Keywords that are not the law's own go with every call of the subject. Of a module all parameters are
operands too.

======================================  =====================================================================================
any subject
--------------------------------------  -------------------------------------------------------------------------------------
gradcheck, gradgradcheck                first and second derivatives are the central differences
complex_step                            first derivatives are the complex step's, to 12 digits, where complex numbers pass
adjoint                                 ⟨J u, v⟩ = ⟨u, Jᵀ v⟩: forward and reverse mode are transposes of each other
linearity                               Jᵀ(a u + b v) = a Jᵀu + b Jᵀv, and the same for J
modes                                   backward, observed, recorded, traced, grad, vjp, checkpointed, under detect_anomaly: one gradient
second_modes                            reverse and forward mode over reverse and forward mode give one Hessian–vector product
chain_rule(outer, inner, *inputs)       J(outer ∘ inner) = J(outer) J(inner)
itemised_sums                           the ledger's contributions to a leaf add up to its gradient; for a layer also its BPTT
                                        matrix by uses and its paths by detours
purity                                  operands, ``.grad`` and parameters are as they were
determinism                             the same call gives the same bits, in value and gradient
precision                               float32 in, float32 out, to first and second order
kernel_equals_definition                what runs closed is what runs open (an opaque primitive, or a layer)
batch_additivity                        a batch is its members: outputs side by side, gradients of shared operands added up
layers, and cells through ``unroll``
--------------------------------------  -------------------------------------------------------------------------------------
time_shift                              a sequence that goes on from a state is the rest of the whole: no step knows its number
truncation                              cutting every T steps or more changes nothing; every k steps is ``detach`` every k
step_jacobian_order                     ∂s_T/∂s_0 = J_T ⋯ J_1, the last step's Jacobian on the left
a primitive's rule
--------------------------------------  -------------------------------------------------------------------------------------
fitting, labels, kinds, agreement       one map per operand and of its shape; readable labels; a map is of the kind it says; the
                                        rule on Tensors is the rule on arrays
======================================  =====================================================================================

``check(subject, *inputs)`` holds a subject to all that apply to it.

Example:
    Your own primitive:

    >>> import numpy as np
    >>> from tinygrad_rnn.linear_maps import Scale
    >>> from tinygrad_rnn.primitive import PRIMITIVES, primitive
    >>> from tinygrad_rnn.testing import GradcheckError, laws
    >>> @primitive
    ... def cube(x):
    ...     return x * x * x
    >>> @cube.defrule
    ... def _(out, x):
    ...     return (Scale(3.0 * x * x, "⊙ 3{0}²"),)
    >>> laws.check(cube, np.array([0.5, -1.0]))
    >>> @cube.defrule
    ... def _(out, x):
    ...     return (Scale(2.0 * x * x, "⊙ 2{0}²"),)
    >>> try:
    ...     laws.complex_step(cube, np.array([0.5, -1.0]))
    ... except GradcheckError as error:
    ...     print(error)
    cube: operand 0: complex step: expected 0.75 at (0, 0), got 0.5
    To see it again:
    <BLANKLINE>
        import numpy as np
        from tinygrad_rnn.testing import laws
        from tinygrad_rnn.primitive import PRIMITIVES
        laws.complex_step(PRIMITIVES['cube'], np.array([0.0]))
    <BLANKLINE>
    >>> del PRIMITIVES["cube"]

    Your own cell:

    >>> from tinygrad_rnn import nn
    >>> class Leaky(nn.Module):
    ...     def __init__(self):
    ...         self.weight = nn.Parameter([[0.3, -0.2], [0.1, 0.4]])
    ...     def forward(self, x, state=None):
    ...         return 0.9 * (0.0 if state is None else state) + np.tanh(x @ self.weight)
    >>> x = np.random.default_rng(0).normal(size=(4, 3, 2))        # four steps, a batch of three
    >>> laws.check(laws.unroll(Leaky()), x)
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import flow, nn, ops
from ..errors import ArgumentError
from ..graph import Node, scope
from ..nn import recurrent
from ..primitive import Opaque
from ..steps import NodeInfo
from ..tensor import Tensor, apply, as_tensor, tensor
from ..trace import Trace, trace
from ..transforms import checkpoint, detect_anomaly, grad, jvp, no_grad, vjp
from . import rules
from .checks import Where, by_forward_mode, by_reverse_mode, gradcheck, gradgradcheck
from .differences import complex_step as by_complex_step
from .differences import differences
from .reproduction import GradcheckError, law
from .rules import agreement, fitting, kinds, labels
from .subjects import Subject, joined, name_of, parts_of

__all__ = [
    "adjoint",
    "agreement",
    "batch_additivity",
    "chain_rule",
    "check",
    "complex_step",
    "determinism",
    "fitting",
    "gradcheck",
    "gradgradcheck",
    "itemised_sums",
    "kernel_equals_definition",
    "kinds",
    "labels",
    "linearity",
    "modes",
    "precision",
    "purity",
    "second_modes",
    "step_jacobian_order",
    "time_shift",
    "truncation",
    "unroll",
]


# -- comparing ----------------------------------------------------------------------------------------------------------------


def _same(where: str, expected: Any, got: Any, rtol: float, by: str, came_by: str, *, scale: float = 0.0) -> None:
    """Equal up to ``rtol`` of the largest entry (or of ``scale``); otherwise the entry that is furthest off is named."""
    expected, got = (np.asarray(getattr(x, "value", x)) for x in (expected, got))
    if expected.shape != got.shape:
        raise GradcheckError(f"{where}: expected shape {expected.shape} by {by}, got {got.shape} by {came_by}")
    largest = max(scale, *(float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x))) for x in (expected, got)))
    with np.errstate(invalid="ignore"):
        off = np.where(expected == got, 0.0, np.abs(expected - got))
    wrong = ~(off <= rtol * largest)
    wrong &= ~(np.isnan(expected) & np.isnan(got))
    if wrong.any():
        worst = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
        entry = tuple(int(i) for i in worst)
        raise GradcheckError(f"{where}, entry {entry}: expected {expected[entry]:.12g} by {by}, got {got[entry]:.12g} by {came_by}")


def _weights(shape: tuple[int, ...], seed: int) -> Any:
    """Numbers of both signs, none near 0, to weigh an output with."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def _weighed(result: Any, seed: int) -> Tensor:
    """A scalar that reads every entry of what a subject returned, each with a weight of its own."""
    out = joined(result)
    return ops.sum(out * _weights(out.shape, seed))  # type: ignore[no-any-return]


def _cancelled(held: Subject) -> float:
    """How large a gradient must be to be more than what is left when terms of the size of the values cancel."""
    return 1e-3 * float(np.max(np.abs(held(*held.leaves()).value), initial=0.0))


def _gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Any]:
    """By ``backward``, and the leaves are left without."""
    if loss.node is not None:
        loss.backward()
    found = [np.zeros(leaf.shape, leaf.dtype) if leaf.grad is None else leaf.grad.value for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found


def _info(ledger: Trace, leaf: Tensor) -> NodeInfo | None:
    """What the ledger knows of a leaf; None if the backward pass did not come by it."""
    try:
        return ledger.node(leaf)
    except ArgumentError:
        return None


# -- any subject --------------------------------------------------------------------------------------------------------------


@law
def complex_step(subject: Any, *inputs: Any, rtol: float = 1e-11, **statics: Any) -> None:
    """J e = Im f(x + i·h·e) / h for a tiny h: no difference is taken, so it is exact to rounding.

    A primitive's ``forward`` must be holomorphic, and that is taken on trust. Any other subject is called with complex arrays (write it
    with NumPy's functions), and believed where the central differences agree with it.

    Raises:
        GradcheckError: if a derivative differs.
        ArgumentError: if the subject takes no complex numbers, or is not holomorphic; gradcheck works there.

    Source:
        Squire & Trapp 1998.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn.testing import laws
        >>> laws.complex_step(lambda x, w: np.tanh(x @ w), np.array([[0.5, -1.0]]), np.array([[0.3], [0.2]]))
    """
    if rules.has_rule(subject):
        rules.complex_step_of_maps(subject, inputs, statics, rtol)
        return
    held = Subject(subject, inputs, statics)

    def plain(*arrays: Any) -> Any:
        out = parts_of(held.results(*arrays))
        return np.concatenate([np.ravel(getattr(part, "value", part)) for part in out])

    with no_grad():
        exact = [by_complex_step(plain, held.arrays, k) for k in range(len(held.arrays))]
        rough = [differences(plain, held.arrays, k, rtol=1e-6) for k in range(len(held.arrays))]
    for name, jacobian, (expected, error) in zip(held.names, exact, rough, strict=True):
        trusted = error + 1e-6 * np.abs(expected)
        if jacobian is None or (np.isfinite(trusted) & (np.abs(jacobian - expected) > 2.0 * trusted)).any():
            raise ArgumentError(
                f"complex_step: {held.name} is not holomorphic in {name}, or takes no complex arrays. Write it with NumPy's functions, or "
                "use gradcheck"
            )
    found = by_reverse_mode("complex_step", held, held.arrays, held.names)
    for name, jacobian, got in zip(held.names, exact, found, strict=True):
        _same(f"{held.name}: {name}: Jacobian", jacobian, got, rtol, "the complex step", "reverse mode")


@law
def adjoint(subject: Any, *inputs: Any, rtol: float = 1e-10, seed: int = 0, **statics: Any) -> None:
    """⟨J u, v⟩ = ⟨u, Jᵀ v⟩ for every pair of basis vectors: forward and reverse mode are transposes of each other.

    Of a primitive it is also asked of the rule's maps, for a random pair as well.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.adjoint(nn.LSTMCell(2, 3, rng=0), np.ones((1, 2)))
    """
    if rules.has_rule(subject):
        rules.adjoint_maps(subject, inputs, statics)
        if any(isinstance(x, tuple) for x in inputs):
            return
    held = Subject(subject, inputs, statics)
    shape = held(*held.leaves()).shape
    rows = by_reverse_mode("adjoint", held, held.arrays, held.names)
    columns = by_forward_mode("adjoint", held, held.arrays, held.names, shape)
    for name, array, row, column in zip(held.names, held.arrays, rows, columns, strict=True):
        Where(f"{held.name}: adjoint", name, array.shape, shape).agree(row, column, _rounding(row), rtol, "reverse mode", "forward mode")


def _rounding(jacobian: Any) -> Any:
    return np.full(jacobian.shape, 1e-14 * np.max(np.abs(jacobian), initial=0.0))


@law
def linearity(subject: Any, *inputs: Any, rtol: float = 1e-10, seed: int = 0, **statics: Any) -> None:
    """Jᵀ(2u − 3v) = 2 Jᵀu − 3 Jᵀv, and J(2u − 3v) = 2 J u − 3 J v, for random u and v.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn.testing import laws
        >>> laws.linearity(np.tanh, [0.5, -1.0])
    """
    held = Subject(subject, inputs, statics)
    out, pullback = vjp(held, *held.arrays)
    u, v = _weights(out.shape, seed), _weights(out.shape, seed + 1)
    mixed, one, other = pullback(2.0 * u - 3.0 * v), pullback(u), pullback(v)
    for name, a, b, c in zip(held.names, mixed, one, other, strict=True):
        _same(f"{held.name}: {name}", 2.0 * b.value - 3.0 * c.value, a, rtol, "2 Jᵀu − 3 Jᵀv", "Jᵀ(2u − 3v)")
    us, vs = ([_weights(array.shape, seed + k) for array in held.arrays] for k in (2, 3))
    both = [2.0 * a - 3.0 * b for a, b in zip(us, vs, strict=True)]
    a, b, c = (jvp(held, held.arrays, way)[1].value for way in (both, us, vs))
    _same(f"{held.name}: tangent", 2.0 * b - 3.0 * c, a, rtol, "2 J u − 3 J v", "J(2u − 3v)")


@law
def modes(subject: Any, *inputs: Any, rtol: float = 1e-10, seed: int = 0, **statics: Any) -> None:
    """All ways to one gradient agree: backward, observed, recorded, traced, under detect_anomaly, grad, vjp, checkpointed, and jvp along a
    direction.

    The loss weighs every output entry with a random number.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.modes(nn.GRU(2, 3, rng=0), np.ones((4, 1, 2)))
    """
    held = Subject(subject, inputs, statics)

    def fn(*operands: Any) -> Tensor:
        return _weighed(held.results(*operands), seed)

    def backward(function: Callable[..., Tensor], **options: Any) -> list[Any]:
        leaves = held.leaves()
        out = function(*leaves)
        if out.node is not None:
            out.backward(**options)
        return [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.value for leaf in leaves]

    def traced() -> list[Any]:
        leaves = held.leaves()
        out = fn(*leaves)
        if out.node is None:
            return [np.zeros(leaf.shape) for leaf in leaves]
        ledger = trace(out)
        infos = [_info(ledger, leaf) for leaf in leaves]
        known = {info.order: gradient for info, gradient in ledger.gradients.items()}
        return [np.zeros(leaf.shape) if info is None else known[info.order] for leaf, info in zip(leaves, infos, strict=True)]

    def by_grad() -> list[Any]:
        leaves = held.leaves()
        out = fn(*leaves)
        if out.node is None:
            return [np.zeros(leaf.shape) for leaf in leaves]
        return list(grad(out, leaves, allow_unused=True))

    def anomalous() -> list[Any]:
        with detect_anomaly():
            return backward(fn)

    expected = backward(fn)
    ways: dict[str, Callable[[], list[Any]]] = {
        "an observed backward": lambda: backward(fn, observers=[lambda step: None]),
        "a recorded backward": lambda: backward(fn, create_graph=True),
        "trace": traced,
        "detect_anomaly": anomalous,
        "grad": by_grad,
        "vjp": lambda: list(vjp(fn, *held.arrays)[1](1.0)),
        "checkpoint": lambda: backward(lambda *xs: checkpoint(fn, *xs)),
    }
    rest = _cancelled(held)
    scale = max(rest, 0.01 * max((float(np.max(np.abs(gradient), initial=0.0)) for gradient in expected), default=0.0))
    for way, found in ways.items():
        for name, gradient, got in zip(held.names, expected, found(), strict=True):
            _same(f"{held.name}: {name}", gradient, got, rtol, "backward", way, scale=scale)
    direction = [_weights(array.shape, seed + 1 + k) for k, array in enumerate(held.arrays)]
    terms = [float(np.vdot(gradient, u)) for gradient, u in zip(expected, direction, strict=True)]
    _, tangent = jvp(fn, held.arrays, direction)
    scale = max(rest, *map(abs, terms)) if terms else rest
    _same(f"{held.name}: derivative along a direction", sum(terms), tangent, rtol, "backward", "jvp", scale=scale)


@law
def second_modes(subject: Any, *inputs: Any, rtol: float = 1e-8, seed: int = 0, **statics: Any) -> None:
    """uᵀ H v by all four combinations of modes: forward and reverse over reverse and forward. H is that of a weighed sum of the outputs.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn.testing import laws
        >>> laws.second_modes(lambda x: np.exp(x) * x, [0.5, -1.0])
    """
    held = Subject(subject, inputs, statics)
    sizes = np.cumsum([0, *(array.size for array in held.arrays)])
    flat = np.concatenate([array.ravel() for array in held.arrays]) if held.arrays else np.zeros(0)
    u, v = _weights(flat.shape, seed + 1), _weights(flat.shape, seed + 2)

    def fn(x: Any) -> Tensor:
        pieces = [x[a:b].reshape(array.shape) for a, b, array in zip(sizes[:-1], sizes[1:], held.arrays, strict=True)]
        return _weighed(held.results(*pieces), seed)

    def gradient(x: Any) -> Tensor:
        return vjp(fn, x)[1](1.0)[0]

    def slope(x: Any) -> Tensor:
        return jvp(fn, x, u)[1]

    expected = float(jvp(gradient, flat, v)[1].value @ u)
    terms = max(_cancelled(held), float(np.abs(jvp(gradient, flat, v)[1].value) @ np.abs(u)))
    ways = {
        "reverse over reverse": float(vjp(gradient, flat)[1](v)[0].value @ u),
        "forward over forward": float(jvp(slope, flat, v)[1].value),
        "reverse over forward": float(vjp(slope, flat)[1](1.0)[0].value @ v),
    }
    for way, got in ways.items():
        _same(f"{held.name}: uᵀ H v", expected, got, rtol, "forward over reverse", way, scale=terms)


def chain_rule(outer: Any, inner: Any, *inputs: Any, rtol: float = 1e-10, seed: int = 0) -> None:
    """J(outer ∘ inner) = J(outer) J(inner), pulled back and pushed forward.

    Args:
        outer: a function of one Tensor, that which ``inner`` returns.
        inner: any subject; several results are put side by side.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn.testing import laws
        >>> laws.chain_rule(np.exp, lambda x, y: np.tanh(x) * y, [0.5, -1.0], [2.0, 3.0])
    """
    held = Subject(inner, inputs, {})
    second = Subject(outer, [held(*held.leaves()).value], {})

    def composed(*operands: Any) -> Tensor:
        return second(held(*operands))

    name = f"{name_of(outer)} ∘ {name_of(inner)}"
    middle, through_inner = vjp(held, *held.arrays)
    out, through_outer = vjp(second, middle.value)
    _, through_both = vjp(composed, *held.arrays)
    v = _weights(out.shape, seed)
    for operand, expected, got in zip(held.names, through_inner(through_outer(v)[0]), through_both(v), strict=True):
        _same(f"{name}: {operand}", expected, got, rtol, "one pullback after the other", "the pullback of the composition")
    u = [_weights(array.shape, seed + k) for k, array in enumerate(held.arrays)]
    first = jvp(held, held.arrays, u)[1].value
    _same(
        f"{name}: tangent",
        jvp(second, [middle.value], [first])[1],
        jvp(composed, held.arrays, u)[1],
        rtol,
        "one pushforward after the other",
        "the pushforward of the composition",
    )


@law
def itemised_sums(subject: Any, *inputs: Any, rtol: float = 1e-10, seed: int = 0, **statics: Any) -> None:
    """What the ledger lists adds up: the contributions to every leaf to its gradient.

    Of a recurrence also: the entries of ``flow.bptt_matrix`` over all losses and uses, and the bins of ``flow.split_paths`` over all
    numbers of detours, are the gradient.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.itemised_sums(nn.LSTM(2, 3, rng=0), np.ones((4, 1, 2)))
    """
    held = Subject(subject, inputs, statics)
    leaves = held.leaves()
    losses = [_weighed(part, seed + k) for k, part in enumerate(parts_of(held.results(*leaves)))]
    losses = [loss for loss in losses if loss.node is not None]
    if not losses:
        return
    expected = grad(losses, leaves, allow_unused=True)
    loss = losses[0] if len(losses) == 1 else ops.sum(ops.stack(losses))
    ledger = trace(loss)
    for name, leaf, gradient in zip(held.names, leaves, expected, strict=True):
        info = _info(ledger, leaf)
        shares = [step.contribution for step in ledger.steps if info is not None and step.operand.order == info.order]
        total = sum(shares, start=np.zeros(leaf.shape))
        scale = max((float(np.max(np.abs(share), initial=0.0)) for share in shares), default=0.0)
        _same(f"{held.name}: {name}", gradient, total, rtol, "grad", "the sum of the ledger's contributions", scale=scale)
        if not shares or not ledger.layers:
            continue
        split = flow.split_paths(ledger, leaf)
        _same(f"{held.name}: {name}", gradient, split.contribution.sum(0), rtol, "grad", "the sum over flow.split_paths", scale=scale)
        try:
            matrix = flow.bptt_matrix(losses, leaf)
        except ArgumentError:  # used in no step: an initial state
            continue
        total = matrix.local + matrix.through_time
        _same(f"{held.name}: {name}", gradient, total, rtol, "grad", "the sum over flow.bptt_matrix", scale=scale)
        if matrix.outside.any():
            continue
        pairs = {(int(late), int(early)) for late in matrix.loss_time if late >= 0 for early in matrix.time}
        if len(pairs) <= 64:
            total = sum((matrix.entry(late, early) for late, early in sorted(pairs)), start=np.zeros(leaf.shape))
            _same(f"{held.name}: {name}", gradient, total, rtol, "grad", "the sum of the entries of flow.bptt_matrix", scale=scale)


@law
def purity(subject: Any, *inputs: Any, seed: int = 0, **statics: Any) -> None:
    """Nobody writes: values of operands and parameters, ``.grad`` of both, and arrays among the statics are as they were.

    Of a primitive, neither ``forward``, nor the rule, nor a map writes to its arguments.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn.testing import laws
        >>> laws.purity(np.tanh, [0.5, -1.0])
    """
    if rules.has_rule(subject):
        rules.pure_rule(subject, inputs, statics)
        return
    held = Subject(subject, inputs, statics)
    leaves = held.leaves()
    watched: dict[str, Tensor] = dict(zip(held.names, leaves, strict=True))
    watched |= {f"parameter {name} itself": parameter for name, parameter in held.parameters.items()}
    arrays = {f"static {name}": value for name, value in statics.items() if isinstance(value, np.ndarray)}
    arrays |= {f"input {k}": x for k, x in enumerate(inputs) if isinstance(x, np.ndarray)}
    before = {name: (leaf.value.copy(), leaf.grad) for name, leaf in watched.items()}
    copies = {name: array.copy() for name, array in arrays.items()}
    out = held(*leaves)
    if out.node is not None:
        grad(out, leaves, _weights(out.shape, seed), allow_unused=True)
    with contextlib.suppress(Exception):  # one that takes no bare arrays has none to write to
        subject(*inputs, **statics)
    for name, leaf in watched.items():
        value, gradient = before[name]
        if not np.array_equal(leaf.value, value, equal_nan=True):
            raise GradcheckError(f"{held.name}: {name}: expected its value as it was, got one written to")
        if leaf.grad is not gradient:
            raise GradcheckError(f"{held.name}: {name}: expected its .grad as it was, got one that was set")
    for name, array in arrays.items():
        if not np.array_equal(array, copies[name], equal_nan=array.dtype.kind == "f"):
            raise GradcheckError(f"{held.name}: {name}: expected the array as it was, got one written to. Work on a copy")


@law
def determinism(subject: Any, *inputs: Any, seed: int = 0, **statics: Any) -> None:
    """The same call gives the same bits, in value and gradient.

    A module with dropout is to be in ``eval()``, or it is told apart here.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.determinism(nn.LSTM(2, 3, rng=0), np.ones((4, 1, 2)))
    """
    held = Subject(subject, inputs, statics)
    runs = []
    for _ in range(2):
        leaves = held.leaves()
        result = held.results(*leaves)
        runs.append(([part.value for part in parts_of(result)], _gradients(_weighed(result, seed), leaves)))
    (values, gradients), (again, gradients_again) = runs
    for k, (one, other) in enumerate(zip(values, again, strict=True)):
        _same(
            f"{held.name}: result {k}", one, other, 0.0, "the first call", "the second. Draw from a generator that you seed, or call eval()"
        )
    for name, one, other in zip(held.names, gradients, gradients_again, strict=True):
        _same(f"{held.name}: {name}: gradient", one, other, 0.0, "the first call", "the second")


@law
def precision(subject: Any, *inputs: Any, **statics: Any) -> None:
    """float32 in, float32 out: value, gradient, gradient of the gradient, and tangent. A module is held to its own parameters' dtype.

    Example:
        >>> from tinygrad_rnn.testing import laws
        >>> laws.precision(lambda x, y: x * y + 1.0, [0.5, -1.0], 2.0)
    """
    if any(isinstance(x, tuple) for x in inputs) and rules.has_rule(subject):
        return
    held = Subject(subject, inputs, statics)
    dtypes = {parameter.dtype for parameter in held.parameters.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    leaves = [tensor(array.astype(dtype), requires_grad=True) for array in held.arrays]
    out = held(*leaves)
    with no_grad():
        unrecorded = held(*leaves)
    found: list[tuple[str, Sequence[Tensor]]] = [("value", (out, unrecorded))]
    if out.node is not None:
        first = grad(out, leaves, as_tensor(np.ones(out.shape, out.dtype)), create_graph=True, allow_unused=True)
        again = [g for g in first if g.node is not None]
        second = grad(again, leaves, [np.ones(g.shape) for g in again], allow_unused=True) if again else ()
        _, tangent = jvp(held, leaves, [np.ones(leaf.shape) for leaf in leaves])
        found += [("gradient", first), ("second gradient", second), ("tangent", (tangent,))]
    for name, results in found:
        for result in results:
            if result.dtype != dtype:
                raise GradcheckError(f"{held.name}: expected a {name} of {dtype} from operands of {dtype}, got {result.dtype}")


@law
def kernel_equals_definition(subject: Any, *inputs: Any, rtol: float = 1e-10, seed: int = 0, **statics: Any) -> None:
    """What runs closed is what runs open: every opaque node that the subject records has the value and the gradients of its definition.

    An opaque primitive is asked for the gradients of all operands together, and of each alone.

    Raises:
        ArgumentError: if the subject records no opaque node.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.kernel_equals_definition(nn.GRU(2, 3, num_layers=2, rng=0), np.ones((4, 2, 2)), lengths=[4, 2])
    """
    if isinstance(subject, Opaque):
        _open_and_closed(subject, [np.asarray(getattr(x, "value", x)) for x in inputs], statics, rtol, seed)
        return
    held = Subject(subject, inputs, statics)
    found = _opaque_nodes(joined(held.results(*held.leaves())))
    if not found:
        raise ArgumentError(f"kernel_equals_definition: {held.name} records no opaque node; there is nothing closed to compare")
    for node in found:
        assert isinstance(node.primitive, Opaque)
        operands = [np.asarray(operand if isinstance(operand, np.ndarray) else operand.value) for operand in node.operands]
        _open_and_closed(node.primitive, operands, node.statics or {}, rtol, seed)


def _opaque_nodes(out: Tensor) -> list[Node]:
    seen: set[Any] = set()
    pending, found = [out.node] if out.node is not None else [], []
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node.primitive, Opaque):
            found.append(node)
        pending += [operand for operand in node.operands if isinstance(operand, Node)]
    return found


def _applied(primitive: Opaque, statics: dict[str, Any], *operands: Any) -> Any:
    return apply(primitive, operands, statics)


def _open_and_closed(primitive: Opaque, arrays: list[Any], statics: dict[str, Any], rtol: float, seed: int) -> None:
    several = [list(range(len(arrays))), *([k] for k in range(len(arrays)))]
    for wanted in several if len(arrays) > 1 else several[:1]:
        results = []
        for function in (partial(_applied, primitive, statics), partial(primitive.definition, **statics)):
            tensors = [tensor(array, requires_grad=k in wanted) for k, array in enumerate(arrays)]
            parts = parts_of(function(*tensors))
            loss = _weighed(parts, seed)
            leaves = [tensors[k] for k in wanted]
            found = grad(loss, leaves, allow_unused=True) if loss.node is not None else [np.zeros(leaf.shape) for leaf in leaves]
            results.append((parts, found))
        (closed, by_kernel), (opened, by_definition) = results
        if len(closed) != len(opened):
            raise GradcheckError(
                f"{primitive.name}: expected {len(opened)} values, as of the definition, got {len(closed)} from the kernel"
            )
        for k, (one, other) in enumerate(zip(closed, opened, strict=True)):
            exact = 0.0 if primitive.exact else rtol
            _same(f"{primitive.name}: value {k}", other, one, exact, "the definition", "the kernel")
        scale = max((float(np.max(np.abs(g.value), initial=0.0)) for g in by_definition if isinstance(g, Tensor)), default=0.0)
        asked = "all operands" if len(wanted) > 1 else "it alone"
        for k, one, other in zip(wanted, by_kernel, by_definition, strict=True):
            where = f"{primitive.name}: operand {k}, gradient asked for {asked}"
            _same(where, other, one, rtol, "the definition", "the kernel", scale=0.01 * scale)


@law
def batch_additivity(subject: Any, *inputs: Any, axes: Any = None, rtol: float = 1e-10, seed: int = 0, **statics: Any) -> None:
    """A batch is its members: each one's outputs and gradients are those it has alone, and gradients of what they share add up.

    Args:
        axes: per input (of a state: per array) the axis along which the batch lies, or None for an operand that all share. By default
            0 for all; for the layers of :mod:`tinygrad_rnn.nn` the one where they have it. A result has its batch on the axis of the
            first batched input, unless that leads nowhere for its shape.
        statics: ``lengths`` goes to each member too.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.batch_additivity(nn.LSTM(2, 3, rng=0), np.random.default_rng(0).normal(size=(5, 4, 2)), lengths=[5, 1, 3, 0])
        >>> laws.batch_additivity(lambda x, w: np.tanh(x @ w), np.ones((4, 2)), np.ones((2, 3)), axes=(0, None))
    """
    held = Subject(subject, inputs, statics)
    at = _batch_axes(held, axes)
    sizes = {held.arrays[k].shape[axis] for k, axis in enumerate(at) if axis is not None}
    if len(sizes) != 1:
        raise ArgumentError(
            f"batch_additivity: expected one size of batch along axes={axes}, got {sorted(sizes)}. Say where the batch lies"
        )
    size = sizes.pop()

    def run(arrays: list[Any], lengths: Any, weights: list[Any] | None) -> tuple[list[Any], list[Any], list[Any]]:
        options = held.statics if lengths is None else {**held.statics, "lengths": lengths}
        part = Subject(held.what, held.inputs, options)
        leaves = [tensor(array, requires_grad=True) for array in arrays]
        results = parts_of(part.results(*leaves))
        read = weights or [_weights(result.shape, seed + k) for k, result in enumerate(results)]
        losses = [ops.sum(result * weight) for result, weight in zip(results, read, strict=True)]
        loss = losses[0] if len(losses) == 1 else ops.sum(ops.stack(losses))
        return [result.value for result in results], _gradients(loss, leaves), read

    lengths = held.statics.get("lengths")
    values, gradients, weights = run(held.arrays, lengths, None)
    out = _result_axes(held, values, at, size)
    shared = [np.zeros_like(array) for array in held.arrays]
    for b in range(size):
        arrays = [a if axis is None else np.take(a, [b], axis) for a, axis in zip(held.arrays, at, strict=True)]
        own = None if lengths is None else [np.asarray(lengths)[b]]
        alone, found, _ = run(arrays, own, [np.take(weight, [b], place) for weight, place in zip(weights, out, strict=True)])
        for k, (whole, part, place) in enumerate(zip(values, alone, out, strict=True)):
            _same(f"{held.name}: result {k} of member {b}", part, np.take(whole, [b], place), rtol, "the member alone", "the batch")
        for name, whole, part, axis, total in zip(held.names, gradients, found, at, shared, strict=True):
            if axis is None:
                total += part
            else:
                where = f"{held.name}: {name}: gradient of member {b}"
                _same(where, part, np.take(whole, [b], axis), rtol, "the member alone", "the batch", scale=float(np.max(np.abs(whole))))
    for name, whole, total, axis in zip(held.names, gradients, shared, at, strict=True):
        if axis is None:
            _same(f"{held.name}: {name}: gradient", total, whole, rtol, "the sum over the members", "the batch")


def _batch_axes(held: Subject, axes: Any) -> list[int | None]:
    """Where each operand has its batch; parameters are shared."""
    if axes is None:
        of_layer = isinstance(held.what, (recurrent._Layer, Unrolled))
        first = (0 if getattr(held.what, "batch_first", False) else 1) if of_layer else 0
        later = 1 if isinstance(held.what, recurrent._Layer) else 0
        chosen: list[int | None] = [first if k == 0 else later for k in range(held.given)]
    else:
        chosen = list(axes)
        if len(chosen) != held.given:
            raise ArgumentError(f"batch_additivity: axes needs one entry for each of {held.given} operands, got {len(chosen)}")
    return chosen + [None] * len(held.parameters)


def _result_axes(held: Subject, values: list[Any], at: list[int | None], size: int) -> list[int]:
    if isinstance(held.what, recurrent._Layer):
        return [0 if held.what.batch_first else 1, *[1] * (len(values) - 1)]
    if isinstance(held.what, Unrolled):
        return [1, *[0] * (len(values) - 1)]
    first = next(axis for axis in at if axis is not None)
    found: list[int] = []
    for k, value in enumerate(values):
        place = first if value.ndim > first and value.shape[first] == size else 0
        if value.ndim == 0 or value.shape[place] != size:
            raise ArgumentError(f"batch_additivity: result {k} of shape {value.shape} has no axis with the batch of {size}")
        found.append(place)
    return found


# -- layers, and cells unrolled -----------------------------------------------------------------------------------------------


class Unrolled(nn.Module):
    """A cell as a layer of one direction: ``outputs, state = layer(x, state)``. See :func:`unroll`."""

    batch_first = False
    bidirectional = False

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Any, state: Any = None) -> Any:
        outputs = []
        for t in range(x.shape[0]):
            with scope(time=t + 1):
                state = self.cell(x[t], state) if state is not None else self.cell(x[t])
            outputs.append(parts_of(state)[0])
        return ops.stack(outputs), state


def unroll(cell: Any) -> nn.Module:
    """A cell as a layer: over a sequence (T, …), one step after the other, ``outputs, state = unroll(cell)(x, state)``.

    Args:
        cell: ``state = cell(x, state)``, which begins by itself if it is given no state. A state is a Tensor or a tuple of them, and the
            first of them is the output.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.time_shift(laws.unroll(nn.GRUCell(2, 3, rng=0)), np.ones((4, 1, 2)))
    """
    return Unrolled(cell)


def _one_way(layer: Any, law_name: str) -> Any:
    """The layer, if it runs forward in time; a cell is unrolled."""
    if isinstance(layer, recurrent._Cell):
        return unroll(layer)
    if getattr(layer, "bidirectional", False):
        raise ArgumentError(
            f"{law_name}: expected a layer that runs forward in time; a bidirectional one reads the whole sequence at every step"
        )
    return layer


def _steps(layer: Any, x: Any) -> int:
    return int(x.shape[1 if _batch_comes_first(layer, x) else 0])


def _batch_comes_first(layer: Any, x: Any) -> bool:
    return bool(getattr(layer, "batch_first", False)) and np.ndim(getattr(x, "value", x)) == 3


def _stretch(layer: Any, x: Any, start: int, stop: int | None) -> Any:
    return x[:, start:stop] if _batch_comes_first(layer, x) else x[start:stop]


def _detached(state: Any) -> Any:
    if isinstance(state, (tuple, list)):
        inside = [_detached(part) for part in state]
        return type(state)(*inside) if hasattr(state, "_fields") else type(state)(inside)
    return state.detach()


@law
def time_shift(layer: Any, x: Any, state: Any = None, *, by: int = 1, rtol: float = 1e-10, seed: int = 0) -> None:
    """A sequence that goes on from the state after ``by`` steps is the rest of the whole: no step knows its number.

    Outputs, final state, and the gradients of the rest of x and of everything shared are compared.

    Args:
        layer: ``outputs, state = layer(x, state)``, or a cell of :mod:`tinygrad_rnn.nn`; for your own cell see :func:`unroll`.
        x, state: the sequence, and the state before it, as the layer takes them.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.time_shift(nn.LSTM(2, 3, rng=0), np.ones((5, 1, 2)), by=2)
    """
    layer = _one_way(layer, "time_shift")
    held = Subject(layer, (x, state), {})
    if not 0 < by < _steps(layer, held.arrays[0]):
        raise ArgumentError(f"time_shift: expected by from 1 to {_steps(layer, held.arrays[0]) - 1}, the steps but one, got {by}")

    def rest(outputs: Any, last: Any, start: int) -> Tensor:
        return _weighed((_stretch(layer, outputs, start, None), last), seed)

    def whole(*operands: Any) -> Any:
        first = _stretch(layer, operands[0], 0, by)
        _, middle = held.results(first, *operands[1:])
        return _detached(middle)

    leaves = held.leaves()
    outputs, last = held.results(*leaves)
    with no_grad():
        middle = whole(*leaves)
    going_on = Subject(layer, (_stretch(layer, held.arrays[0], by, None), middle), {})
    later = going_on.leaves()
    outputs_again, last_again = going_on.results(*later)
    rows = [_stretch(layer, outputs, by, None), *parts_of(last)]
    for k, (one, other) in enumerate(zip(rows, [outputs_again, *parts_of(last_again)], strict=True)):
        _same(f"{held.name}: {'later outputs' if k == 0 else f'final state {k - 1}'}", one, other, rtol, "the whole sequence", "going on")
    expected = grad(rest(outputs, last, by), leaves, allow_unused=True)[0]
    found = grad(rest(outputs_again, last_again, 0), later, allow_unused=True)[0]
    _same(f"{held.name}: gradient of x", _stretch(layer, expected, by, None), found, rtol, "the whole sequence", "going on")


@law
def truncation(layer: Any, x: Any, state: Any = None, *, rtol: float = 1e-10, seed: int = 0) -> None:
    """Truncated BPTT at a window of all steps is BPTT; at a window of k steps it is ``state.detach()`` every k steps.

    The one side runs the sequence in chunks that are cut off from each other; the other is ``flow.cut_time(every=k)`` on the whole (for a
    layer whose steps leave landmarks; otherwise only the full window, and chunks that are not cut off, are compared).

    Args:
        layer, x, state: as for :func:`time_shift`.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.truncation(nn.GRU(2, 3, rng=0), np.ones((4, 1, 2)))
    """
    layer = _one_way(layer, "truncation")
    held = Subject(layer, (x, state), {})
    steps = _steps(layer, held.arrays[0])
    shape = held.results(*held.leaves())[0].shape
    weights = _weights(shape, seed)

    def chunked(window: int, cut: bool) -> list[Any]:
        leaves = held.leaves()
        sequence, going, losses = leaves[0], leaves[1 : held.given], []
        for start in range(0, steps, window):
            first = _stretch(layer, sequence, start, start + window)
            if start == 0:
                outputs, now = held.results(first, *going, *leaves[held.given :])
            else:
                part = Subject(layer, (held.inputs[0], now), {})
                outputs, now = part.results(first, *parts_of(now), *leaves[held.given :])
            losses.append(ops.sum(outputs * _stretch(layer, weights, start, start + window)))
            now = _detached(now) if cut else now
        return _gradients(losses[0] if len(losses) == 1 else ops.sum(ops.stack(losses)), leaves)

    def cut_in_graph(window: int) -> list[Any]:
        leaves = held.leaves()
        outputs, _ = held.results(*leaves)
        ops.sum(outputs * weights).backward(interventions=[flow.cut_time(every=window)])
        return [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.value for leaf in leaves]

    leaves = held.leaves()
    outputs, _ = held.results(*leaves)
    loss = ops.sum(outputs * weights)
    marked = loss.node is not None and bool(trace(loss, keep="norms").layers)
    full = _gradients(loss, leaves)
    scale = max(float(np.max(np.abs(gradient), initial=0.0)) for gradient in full)

    def compare(expected: list[Any], got: list[Any], by: str, came_by: str) -> None:
        for name, one, other in zip(held.names, expected, got, strict=True):
            _same(f"{held.name}: {name}", one, other, rtol, by, came_by, scale=0.01 * scale)

    for window in (steps, steps + 1):
        compare(full, chunked(window, True), "BPTT", f"chunks of {window} steps, of {steps}")
        if marked:
            compare(full, cut_in_graph(window), "BPTT", f"flow.cut_time(every={window}), of {steps}")
    for window in range(1, steps):
        compare(full, chunked(window, False), "BPTT", f"chunks of {window} steps that hand their state on")
        if marked:
            compare(chunked(window, True), cut_in_graph(window), f"detach every {window} steps", f"flow.cut_time(every={window})")


@law
def step_jacobian_order(layer: Any, x: Any, state: Any = None, *, rtol: float = 1e-10) -> None:
    """∂s_T/∂s_0 = J_T ⋯ J_1: the step Jacobians, each taken by itself, multiplied with the last step's on the left.

    Where the layer's steps leave landmarks, ``flow.step_jacobians`` must list the same Jacobians.

    Args:
        layer: one layer of one direction, or a cell; see :func:`time_shift`.
        x: (T, B, I).
        state: the one before step 1; where it is None the product begins at step 1.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.step_jacobian_order(nn.LSTM(2, 3, rng=0), np.random.default_rng(0).normal(size=(4, 1, 2)))
    """
    layer = _one_way(layer, "step_jacobian_order")
    held = Subject(layer, (x, state), {})
    sequence = held.arrays[0]
    steps = _steps(layer, sequence)
    with no_grad():
        states = [parts_of(held.results(_stretch(layer, tensor(sequence), 0, 1), *map(tensor, held.arrays[1:]))[1])]
        for t in range(1, steps):
            states.append(parts_of(layer(_stretch(layer, sequence, t, t + 1), _as_state(layer, states[-1], sequence))[1]))
    values = [[part.value for part in parts] for parts in states]

    def through(start: int, stop: int) -> Any:
        """The Jacobian of the state after step ``stop`` with respect to that after step ``start``, parts side by side."""
        form = [part.shape for part in states[0]]
        cuts = np.cumsum([0, *(int(np.prod(shape)) for shape in form)])

        def run(flat: Any) -> Any:
            pieces = [flat[a:b].reshape(shape) for a, b, shape in zip(cuts[:-1], cuts[1:], form, strict=True)]
            _, last = layer(_stretch(layer, sequence, start, stop), _as_state(layer, pieces, sequence))
            return ops.concatenate([ops.ravel(part) for part in parts_of(last)])

        point = np.concatenate([part.ravel() for part in values[start - 1]])
        return by_reverse_mode("step_jacobian_order", run, [point], ["state"])[0]

    if steps < 2:
        return
    own = [through(t, t + 1) for t in range(1, steps)]
    product = own[0]
    for jacobian in own[1:]:
        product = jacobian @ product
    _same(f"{held.name}: ∂s_{steps}/∂s_1", product, through(1, steps), rtol, f"J_{steps} ⋯ J_2", "one backward pass through all steps")
    leaves = held.leaves()
    _, last = held.results(*leaves)
    ledger = trace(_weighed(last, 0))
    if len(ledger.layers) != 1 or len(values[0][0].shape) not in (2, 3):
        return
    listed = flow.step_jacobians(ledger)
    batch, size = listed.jacobian.shape[1:3]
    block = size // len(values[0])
    for t, jacobian in zip(range(2, steps + 1), own, strict=True):
        (place,) = np.flatnonzero(listed.time == t)
        wide = jacobian.reshape(len(values[0]), batch, block, len(values[0]), batch, block)
        for b in range(batch):
            expected = wide[:, b, :, :, b].reshape(size, size)
            _same(
                f"{held.name}: J_{t} of sequence {b}",
                expected,
                listed.jacobian[place, b],
                rtol,
                "the step by itself",
                "flow.step_jacobians",
            )


def _as_state(layer: Any, parts: Sequence[Any], sequence: Any) -> Any:
    """The parts of a state in the form in which the layer takes it."""
    if isinstance(layer, recurrent._Layer):
        return tuple(parts)
    cell = layer.cell if isinstance(layer, Unrolled) else layer
    if isinstance(cell, recurrent._Cell):
        return cell._recurrence.state(*parts)
    return parts[0] if len(parts) == 1 else tuple(parts)


# -- all of them --------------------------------------------------------------------------------------------------------------

LOCAL = (fitting, labels, adjoint, kinds, agreement, purity, precision)
"""The laws of a primitive that need no oracle and no differences."""

EVERYWHERE = (determinism, purity, gradcheck, adjoint, linearity, modes, itemised_sums, precision)
"""The first-order laws of any function, cell or layer."""

IN_TIME = (time_shift, truncation, step_jacobian_order)
"""The laws of a layer that runs forward in time."""


def check(
    subject: Any,
    *inputs: Any,
    rtol: float | None = None,
    seed: int = 0,
    holomorphic: bool = False,
    second: bool = True,
    **statics: Any,
) -> None:
    """Hold a subject to every law that applies to it.

    Args:
        subject: a function, a primitive, a cell or a layer (your own cell: ``unroll(cell)``).
        inputs: arrays of float64, away from kinks and poles.
        rtol: the relative tolerance of every law that has one; None: each law's own.
        seed: of the random numbers.
        holomorphic: of a primitive, whether ``forward`` continues to complex numbers, so that the complex step applies.
        second: check second derivatives as well.
        statics: keywords for every call.

    Raises:
        GradcheckError: for the first law that is broken.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.primitive import PRIMITIVES
        >>> from tinygrad_rnn.testing import laws
        >>> laws.check(PRIMITIVES["tanh"], np.array([0.5, -1.0]), holomorphic=True)
        >>> laws.check(nn.GRUCell(2, 3, rng=0), np.ones((2, 2)))
    """
    hold = partial(_hold, subject, inputs, {"seed": seed} if rtol is None else {"seed": seed, "rtol": rtol})
    if rules.has_rule(subject):
        for rule_law in LOCAL:
            hold(rule_law, statics)
        if holomorphic:
            hold(complex_step, statics)
        hold(gradcheck, statics)
    else:
        for any_law in EVERYWHERE:
            hold(any_law, statics)
        if isinstance(subject, (recurrent._Cell, recurrent._Layer, Unrolled)):
            if np.ndim(getattr(inputs[0], "value", inputs[0])) == (2 if isinstance(subject, recurrent._Cell) else 3):
                hold(batch_additivity, statics)
            if isinstance(subject, recurrent._Layer):
                hold(kernel_equals_definition, statics)
            simple = not isinstance(subject, recurrent._Cell) and not subject.bidirectional and not statics
            if simple and _steps(subject, np.asarray(getattr(inputs[0], "value", inputs[0]))) > 1:
                for time_law in IN_TIME:
                    hold(time_law, {})
    if second:
        hold(gradgradcheck, statics)
        hold(second_modes, statics)


def _hold(subject: Any, inputs: tuple[Any, ...], options: dict[str, Any], any_law: Any, statics: dict[str, Any]) -> None:
    """Hold a subject to one law, with those of the options that the law has."""
    known = inspect.signature(any_law).parameters
    any_law(subject, *inputs, **{name: value for name, value in options.items() if name in known}, **statics)
