"""Laws: what must be true of a function, a primitive, a cell or a layer, whatever it computes.

Every law is called ``law(subject, *inputs, rtol=…, seed=0, **statics)``, returns nothing, and raises
:class:`~tinygrad_rnn.testing.GradcheckError` (an AssertionError) if it is broken: with the operand, the entry, what was expected and what
came, and code to see it again. Keywords that are not the law's own go with every call of the subject. Of a module all parameters are
operands too.

======================================  =====================================================================================
any subject
--------------------------------------  -------------------------------------------------------------------------------------
gradcheck, gradgradcheck                first and second derivatives are those of the complex step, or of central differences
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
padding(layer, x, lengths=…)            what stands beyond the end of a sequence changes nothing
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
    ...     print(error.message)
    cube: operand 0: complex step: expected 0.75 at (0, 0), got 0.5
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

from .. import flow, ops
from ..errors import ArgumentError
from ..graph import Node
from ..nn import recurrent
from ..primitive import Opaque
from ..steps import NodeInfo
from ..tensor import Tensor, apply, as_tensor, tensor
from ..trace import Trace, trace
from ..transforms import checkpoint, detect_anomaly, grad, jvp, no_grad, vjp
from . import rules
from .checks import Where, by_forward_mode, by_reverse_mode, gradcheck, gradgradcheck
from .comparing import gradients_of, handed_back, largest_of, random_weights, same, weighed
from .differences import SMALLEST, differences
from .differences import complex_step as by_complex_step
from .laws_in_time import Unrolled, padding, step_jacobian_order, steps_of, time_shift, truncation, unroll
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
    "padding",
    "precision",
    "purity",
    "second_modes",
    "step_jacobian_order",
    "time_shift",
    "truncation",
    "unroll",
]


def _cancelled(held: Subject) -> float:
    """How large a gradient must be to be more than what is left when terms of the size of the values cancel."""
    return 1e-3 * largest_of(held(*held.leaves()).value)


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
    lost = SMALLEST / max(rtol, SMALLEST)
    for name, jacobian, got in zip(held.names, exact, found, strict=True):
        same(f"{held.name}: {name}: Jacobian", jacobian, got, rtol, "the complex step", "reverse mode", scale=lost)


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
    return np.full(jacobian.shape, 1e-14 * largest_of(jacobian))


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
    u, v = random_weights(out.shape, seed), random_weights(out.shape, seed + 1)
    mixed, one, other = pullback(2.0 * u - 3.0 * v), pullback(u), pullback(v)
    for name, a, b, c in zip(held.names, mixed, one, other, strict=True):
        same(f"{held.name}: {name}", 2.0 * b.value - 3.0 * c.value, a, rtol, "2 Jᵀu − 3 Jᵀv", "Jᵀ(2u − 3v)")
    us, vs = ([random_weights(array.shape, seed + k) for array in held.arrays] for k in (2, 3))
    both = [2.0 * a - 3.0 * b for a, b in zip(us, vs, strict=True)]
    a, b, c = (jvp(held, held.arrays, way)[1].value for way in (both, us, vs))
    same(f"{held.name}: tangent", 2.0 * b - 3.0 * c, a, rtol, "2 J u − 3 J v", "J(2u − 3v)")


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
        return weighed(held.results(*operands), seed)

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
            same(f"{held.name}: {name}", gradient, got, rtol, "backward", way, scale=scale)
    direction = [random_weights(array.shape, seed + 1 + k) for k, array in enumerate(held.arrays)]
    terms = [float(np.vdot(gradient, u)) for gradient, u in zip(expected, direction, strict=True)]
    _, tangent = jvp(fn, held.arrays, direction)
    scale = max(rest, *map(abs, terms)) if terms else rest
    same(f"{held.name}: derivative along a direction", sum(terms), tangent, rtol, "backward", "jvp", scale=scale)


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
    u, v = random_weights(flat.shape, seed + 1), random_weights(flat.shape, seed + 2)

    def fn(x: Any) -> Tensor:
        pieces = [x[a:b].reshape(array.shape) for a, b, array in zip(sizes[:-1], sizes[1:], held.arrays, strict=True)]
        return weighed(held.results(*pieces), seed)

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
        same(f"{held.name}: uᵀ H v", expected, got, rtol, "forward over reverse", way, scale=terms)


@law
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
    v = random_weights(out.shape, seed)
    for operand, expected, got in zip(held.names, through_inner(through_outer(v)[0]), through_both(v), strict=True):
        same(f"{name}: {operand}", expected, got, rtol, "one pullback after the other", "the pullback of the composition")
    u = [random_weights(array.shape, seed + k) for k, array in enumerate(held.arrays)]
    first = jvp(held, held.arrays, u)[1].value
    same(
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
    losses = [weighed(part, seed + k) for k, part in enumerate(parts_of(held.results(*leaves)))]
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
        same(f"{held.name}: {name}", gradient, total, rtol, "grad", "the sum of the ledger's contributions", scale=scale)
        if not shares or not ledger.layers:
            continue
        split = flow.split_paths(ledger, leaf)
        same(f"{held.name}: {name}", gradient, split.contribution.sum(0), rtol, "grad", "the sum over flow.split_paths", scale=scale)
        try:
            matrix = flow.bptt_matrix(losses, leaf)
        except ArgumentError:  # used in no step: an initial state
            continue
        total = matrix.local + matrix.through_time
        same(f"{held.name}: {name}", gradient, total, rtol, "grad", "the sum over flow.bptt_matrix", scale=scale)
        if matrix.outside.any():
            continue
        pairs = {(int(late), int(early)) for late in matrix.loss_time if late >= 0 for early in matrix.time}
        if len(pairs) <= 64:
            total = sum((matrix.entry(late, early) for late, early in sorted(pairs)), start=np.zeros(leaf.shape))
            same(f"{held.name}: {name}", gradient, total, rtol, "grad", "the sum of the entries of flow.bptt_matrix", scale=scale)


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
        grad(out, leaves, random_weights(out.shape, seed), allow_unused=True)
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
        gradients = gradients_of(weighed(held.results(*leaves), seed), leaves)
        runs.append(([part.value for part in parts_of(held.itself(leaves))], gradients))
    (values, gradients), (again, gradients_again) = runs
    for k, (one, other) in enumerate(zip(values, again, strict=True)):
        same(
            f"{held.name}: result {k}", one, other, 0.0, "the first call", "the second. Draw from a generator that you seed, or call eval()"
        )
    for name, one, other in zip(held.names, gradients, gradients_again, strict=True):
        same(f"{held.name}: {name}: gradient", one, other, 0.0, "the first call", "the second")


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
    found: list[tuple[str, Sequence[Any]]] = [("value", (out, unrecorded))]
    if out.node is not None:
        first = [g for g in handed_back(out, leaves, np.ones(out.shape), create_graph=True) if g is not None]
        second = [g for at in map(as_tensor, first) if at.node is not None for g in handed_back(at, leaves, np.ones(at.shape))]
        _, tangent = jvp(held, leaves, [np.ones(leaf.shape) for leaf in leaves])
        found += [("gradient", first), ("second gradient", second), ("tangent", (tangent,))]
    for name, results in found:
        for result in results:
            if result is not None and result.dtype != dtype:
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
            loss = weighed(parts, seed)
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
            same(f"{primitive.name}: value {k}", other, one, exact, "the definition", "the kernel")
        scale = max((float(np.max(np.abs(g.value), initial=0.0)) for g in by_definition if isinstance(g, Tensor)), default=0.0)
        asked = "all operands" if len(wanted) > 1 else "it alone"
        for k, one, other in zip(wanted, by_kernel, by_definition, strict=True):
            where = f"{primitive.name}: operand {k}, gradient asked for {asked}"
            same(where, other, one, rtol, "the definition", "the kernel", scale=0.01 * scale)


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
    sizes = {held.arrays[k].shape[axis] for k, axis in enumerate(at) if axis is not None and axis < held.arrays[k].ndim}
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
        read = weights or [random_weights(result.shape, seed + k) for k, result in enumerate(results)]
        losses = [ops.sum(result * weight) for result, weight in zip(results, read, strict=True)]
        loss = losses[0] if len(losses) == 1 else ops.sum(ops.stack(losses))
        return [result.value for result in results], gradients_of(loss, leaves), read

    lengths = held.statics.get("lengths")
    values, gradients, weights = run(held.arrays, lengths, None)
    out = _result_axes(held, values, at, size)
    shared = [np.zeros_like(array) for array in held.arrays]
    for b in range(size):
        arrays = [a if axis is None else np.take(a, [b], axis) for a, axis in zip(held.arrays, at, strict=True)]
        own = None if lengths is None else [np.asarray(lengths)[b]]
        alone, found, _ = run(arrays, own, [np.take(weight, [b], place) for weight, place in zip(weights, out, strict=True)])
        for k, (whole, part, place) in enumerate(zip(values, alone, out, strict=True)):
            same(f"{held.name}: result {k} of member {b}", part, np.take(whole, [b], place), rtol, "the member alone", "the batch")
        for name, whole, part, axis, total in zip(held.names, gradients, found, at, shared, strict=True):
            if axis is None:
                total += part
            else:
                where = f"{held.name}: {name}: gradient of member {b}"
                same(where, part, np.take(whole, [b], axis), rtol, "the member alone", "the batch", scale=float(np.max(np.abs(whole))))
    for name, whole, total, axis in zip(held.names, gradients, shared, at, strict=True):
        if axis is None:
            same(f"{held.name}: {name}: gradient", total, whole, rtol, "the sum over the members", "the batch")


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
                if statics.keys() == {"lengths"} and np.ndim(getattr(inputs[0], "value", inputs[0])) == 3:
                    hold(padding, statics)
            simple = not isinstance(subject, recurrent._Cell) and not subject.bidirectional and not statics
            if simple and steps_of(subject, np.asarray(getattr(inputs[0], "value", inputs[0]))) > 1:
                for time_law in IN_TIME:
                    hold(time_law, {})
    if second:
        hold(gradgradcheck, statics)
        hold(second_modes, statics)


def _hold(subject: Any, inputs: tuple[Any, ...], options: dict[str, Any], any_law: Any, statics: dict[str, Any]) -> None:
    """Hold a subject to one law, with those of the options that the law has."""
    known = inspect.signature(any_law).parameters
    any_law(subject, *inputs, **{name: value for name, value in options.items() if name in known}, **statics)
