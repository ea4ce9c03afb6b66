"""Tensor: an array together with the node that says how it came to be.

A Tensor is a thin handle. Its value is a read-only array; its node (None for a constant) belongs to the graph. Operators, methods
and NumPy's own functions all go through one function, :func:`apply`, which runs a primitive's forward and records it.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, ClassVar

import numpy as np

from . import ops
from .errors import ArgumentError, DtypeError, GraphError, ShapeError, UnsupportedError
from .graph import Constant, Leaf, Mark, Node, quiet, silent, state
from .primitive import Opaque, Primitive
from .report import aligned
from .steps import subscripted
from .walk import Backward, Observer

_NUMBERS = (float, int)
_WEAK = (*_NUMBERS, bool)


def as_array(data: Any, what: str = "tensor") -> Any:
    """A private, read-only copy of the data as a real array.

    Raises:
        DtypeError: for complex, object, string and other values that are not real numbers.
    """
    try:
        array = np.array(data.value if isinstance(data, Tensor) else data)
    except ValueError as error:
        raise ShapeError(f"{what}: the data is ragged or not rectangular ({error}). Pad it to one shape first") from None
    if array.dtype.kind not in "fiub":
        hint = {"c": "Take .real and .imag apart", "O": "Convert it with .astype(float)", "U": "Encode text as numbers first"}
        raise DtypeError(f"{what}: expected real numbers, got dtype {array.dtype}. {hint.get(array.dtype.kind, 'Convert it to float64')}")
    array.flags.writeable = False
    return array


class Tensor:
    """An array that records what is done with it.

    Make one with :func:`tensor`. Arithmetic, indexing, methods and NumPy's functions give Tensors again; comparisons give plain
    boolean arrays. Values are read-only: an operation makes a new Tensor, and only a leaf can be rebound (``x.value = …``).

    Attributes:
        value: the read-only array.
        grad: for a leaf, the gradient that ``backward`` has accumulated (a Tensor), or None.
        requires_grad: whether the value is differentiated.
        name: how pictures and labels call it.
        node: the :class:`~tinygrad_rnn.graph.Node` that recorded it, or None.
    """

    __slots__ = ("__weakref__", "_name", "_node", "_value")
    _value: Any
    _node: Node | None
    _name: str | None

    def __init__(self, data: Any, requires_grad: bool = False, name: str | None = None) -> None:
        array = as_array(data)
        if requires_grad and array.dtype.kind != "f":
            array = as_array(array.astype(np.float64))
        self._value = array
        self._node = Leaf(array, name) if requires_grad else None
        self._name = name

    # -- what it is ---------------------------------------------------------------------------------------------------------

    @property
    def value(self) -> Any:
        array = self._value
        array.flags.writeable = False
        return array

    @value.setter
    def value(self, data: Any) -> None:
        if self._node is not None and not isinstance(self._node, Leaf):
            raise GraphError("value: only a leaf can be rebound; this Tensor was computed. Make a new one with .detach()")
        array = as_array(data, "value")
        if array.shape != self._value.shape:
            raise ShapeError(f"value: the leaf has shape {self._value.shape}, got {array.shape}. Make a new tensor for another shape")
        if array.dtype != self._value.dtype:
            array = as_array(array.astype(self._value.dtype))
        old = self._node
        if isinstance(old, Leaf):
            fresh = Leaf(array, old.name)
            fresh.grad, fresh.hooks = old.grad, old.hooks
            self._value, self._node, old.stale = array, fresh, True  # no call between them, so no interrupt
        else:
            self._value = array

    @property
    def node(self) -> Node | None:
        return self._node

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self._value.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        return self._value.size  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def T(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return ops.transpose(self)  # type: ignore[no-any-return]

    @property
    def mT(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return ops.swapaxes(self, -1, -2)  # type: ignore[no-any-return]

    @property
    def requires_grad(self) -> bool:
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self._node is not None and not isinstance(self._node, Leaf):
            raise GraphError("requires_grad: only a leaf can be switched; use .detach() to cut a computed Tensor off")
        if wanted and self._node is None:
            if self._value.dtype.kind != "f":
                self._value = as_array(self._value.astype(np.float64))
            self._node = Leaf(self._value, self._name)
        elif not wanted:
            self._node = None

    @property
    def is_leaf(self) -> bool:
        """Whether it was made, not computed."""
        return self._node is None or isinstance(self._node, Leaf)

    @property
    def name(self) -> str | None:
        return self._name if self._node is None else self._node.name

    @name.setter
    def name(self, name: str | None) -> None:
        self._name = name
        if self._node is not None:
            self._node.name = name

    @property
    def grad(self) -> Tensor | None:
        return self._node.grad if isinstance(self._node, Leaf) else None

    @grad.setter
    def grad(self, gradient: Any) -> None:
        if not isinstance(self._node, Leaf):
            raise GraphError("grad: only a leaf holds a gradient; make it with requires_grad=True")
        if gradient is not None:
            gradient = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
            if gradient.shape != self.shape:
                raise ShapeError(f"grad: expected shape {self.shape}, that of the leaf, got {gradient.shape}")
            gradient = gradient.astype(self.dtype)
        self._node.grad = gradient

    def item(self) -> float | int | bool:
        """The one entry as a Python number."""
        if self._value.size != 1:
            raise ShapeError(f"item: expected one entry, got shape {self.shape}. Reduce it first, or use .value")
        return self._value.item()  # type: ignore[no-any-return]

    def numpy(self) -> Any:
        """A copy of the value that may be written to."""
        return self._value.copy()

    def tolist(self) -> Any:
        """The value as nested lists of Python numbers."""
        return self._value.tolist()

    def detach(self) -> Tensor:
        """The same value, cut off from the graph."""
        return _make(self._value, None, self.name)

    # -- backward -----------------------------------------------------------------------------------------------------------

    def backward(
        self,
        cotangent: Any = None,
        *,
        create_graph: bool = False,
        observers: Sequence[Observer] = (),
        interventions: Sequence[Observer] = (),
    ) -> None:
        """Add the gradient of this Tensor to ``.grad`` of every leaf it was computed from.

        Args:
            cotangent: what to multiply by from the left, of this Tensor's shape; 1 if it has one entry.
            create_graph: record the backward pass too, so that gradients can be differentiated again.
            observers: called with every :class:`~tinygrad_rnn.steps.BackwardStep`, in order.
            interventions: the same, but what they return (if not None) takes the place of the step's contribution.

        Nothing is added anywhere unless the whole pass succeeds.

        Raises:
            GraphError: if there is no graph, no cotangent for several entries, or a leaf was rebound since the forward pass.
            HookError: if a hook, observer or intervention raises or returns the wrong shape.

        Example:
            >>> import tinygrad_rnn as tg
            >>> x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
            >>> (x * x).sum().backward(observers=[lambda step: print(step.op, step.label, round(step.gain, 4))])
            sum broadcast 1.4142
            multiply ⊙ x 1.5811
            multiply ⊙ x 1.5811
            >>> x.grad.value
            array([2., 4.])
        """
        found = Backward(
            [seed(self, cotangent, "backward", record=create_graph)],
            lift=lift,
            create_graph=create_graph,
            observers=observers,
            interventions=interventions,
        ).run()
        given = {leaf: fitted(gradient, leaf, "backward") for leaf, gradient in found.items() if isinstance(leaf, Leaf)}
        done = False
        while not done:  # once, unless another thread has added to one of the leaves meanwhile
            held = [leaf.grad for leaf in given]
            totals = [
                gradient if old is None else old + gradient if create_graph else _make(np.asarray(old._value + gradient._value), None)
                for old, gradient in zip(held, given.values(), strict=True)
            ]
            done = _exchanged(list(given), held, totals)

    def register_hook(self, hook: Callable[[Tensor], Any]) -> HookHandle:
        """Call ``hook(cotangent)`` when this Tensor's total cotangent is known; what it returns (if not None) replaces it.

        As in PyTorch. Returns a handle whose ``remove()`` takes the hook away again.
        """
        if self._node is None:
            raise GraphError("register_hook: this Tensor takes no part in a backward pass; it needs requires_grad=True")
        if not callable(hook):
            raise ArgumentError(f"register_hook: expected a function of the cotangent, got {type(hook).__name__}")

        def on_cotangent(cotangent: Any) -> Any:
            return hook(as_tensor(cotangent))

        if self._node.hooks is None:
            self._node.hooks = {}
        key = object()
        self._node.hooks[key] = on_cotangent
        return HookHandle(self._node.hooks, key)

    # -- NumPy --------------------------------------------------------------------------------------------------------------

    @staticmethod
    def __apply_primitive__(primitive: Primitive, operands: tuple[Any, ...], statics: dict[str, Any]) -> Any:
        if primitive.own:
            if len(operands) == 1 and operands[0]._node is not None:
                if not statics:
                    return _unary(primitive, operands[0])
                out = quiet().run(primitive.forward, operands[0]._value, **statics)
                return _result(primitive, (operands[0]._node,), statics, out, True)
            if len(operands) == 2 and not statics:
                return _binary(primitive, *operands)
        return apply(primitive, operands, statics)

    # The room numpy_protocol, which lies above this one, adds its two methods here.
    __array_ufunc__: ClassVar[Callable[..., Any]]
    __array_function__: ClassVar[Callable[..., Any]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self._node is not None and state.recording:
            raise UnsupportedError(
                "array: a Tensor that requires a gradient would lose it on the way to a NumPy array. Use .value (read-only) or .numpy() "
                "(a copy) if that is what you want, and np.stack to join a list of Tensors"
            )
        return np.array(self.value, dtype=dtype, copy=copy)

    def __reduce__(self) -> Any:
        """Copies and pickles of a leaf are leaves of their own; a computed Tensor has no copy apart from its graph."""
        if not self.is_leaf:
            raise GraphError("copy: only a leaf can be deep-copied or pickled; this Tensor was computed. Use .detach() first")
        gradient = None if self.grad is None else self.grad._value
        return _restored, (type(self), self._value, self.requires_grad, self.name, gradient), getattr(self, "__dict__", None)

    # -- Python -------------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        text = np.array2string(self._value, separator=", ", prefix="Tensor(", threshold=200)
        extras = [] if self._value.dtype == np.float64 else [f"dtype={self._value.dtype}"]
        if isinstance(self._node, Leaf):
            extras.append("requires_grad=True")
        elif self._node is not None and self._node.primitive is not None:
            extras.append(f"op={self._node.primitive.name}")
        if self.name is not None:
            extras.append(f"name={self.name!r}")
        return "Tensor(" + ", ".join([text, *extras]) + ")"

    def _repr_html_(self) -> str:
        """What a notebook shows: the value, the gradient if there is one, and where it comes from; large arrays shortened."""
        node = self._node
        made = "without a gradient" if node is None else f"made by {node.primitive.name}" if node.primitive else "a leaf with a gradient"
        parts = [("value", self._value), *([] if self.grad is None else [("grad", self.grad.value)])]
        rows = [(name, np.array2string(array, separator=", ", threshold=200)[:4000]) for name, array in parts]
        return aligned(("", ""), rows, f"{self.name or 'Tensor'}: {self._value.dtype}, shape {self.shape}", made)._repr_html_()

    def __format__(self, spec: str) -> str:
        return format(self._value.item() if self._value.size == 1 and spec else self._value if spec else str(self), spec)

    def __len__(self) -> int:
        if self._value.ndim == 0:
            raise ShapeError("len: a zero-dimensional Tensor has no length; .item() is its number")
        return len(self._value)

    def __iter__(self) -> Iterator[Tensor]:
        if self._value.ndim == 0:
            raise ShapeError("iter: a zero-dimensional Tensor cannot be iterated over; .item() is its number")
        return (self[i] for i in range(len(self._value)))

    def __bool__(self) -> bool:
        if self._value.size != 1:
            raise ShapeError(f"bool: the truth of a Tensor of shape {self.shape} is ambiguous. Use .value.any() or .value.all()")
        return bool(self._value.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __round__(self, digits: int | None = None) -> float | int:
        return round(self.item(), digits)

    def __index__(self) -> int:
        if self._value.dtype.kind not in "iu":
            raise DtypeError(f"index: only an integer Tensor can be an index, got dtype {self.dtype}")
        return int(self.item())

    def __contains__(self, number: Any) -> bool:
        return bool(np.any(self == number))

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return compare(operator.eq, self, other)

    def __ne__(self, other: object) -> Any:
        return compare(operator.ne, self, other)

    def __lt__(self, other: Any) -> Any:
        return compare(operator.lt, self, other)

    def __le__(self, other: Any) -> Any:
        return compare(operator.le, self, other)

    def __gt__(self, other: Any) -> Any:
        return compare(operator.gt, self, other)

    def __ge__(self, other: Any) -> Any:
        return compare(operator.ge, self, other)

    def __add__(self, other: Any) -> Tensor:
        return _binary(ops.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _binary(ops.add, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _binary(ops.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _binary(ops.subtract, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _binary(ops.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _binary(ops.multiply, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _binary(ops.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary(ops.divide, other, self)

    def __pow__(self, exponent: Any) -> Tensor:
        if exponent.__class__ is int and exponent == 2:
            return _unary(ops.square, self)
        return _binary(ops.power, self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return _binary(ops.power, base, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)  # type: ignore[no-any-return]

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)  # type: ignore[no-any-return]

    def __neg__(self) -> Tensor:
        return _unary(ops.negative, self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return _unary(ops.absolute, self)

    def __getitem__(self, key: Any) -> Tensor:
        return ops.getitem(self, key)  # type: ignore[no-any-return]

    def __setitem__(self, key: Any, part: Any) -> None:
        raise UnsupportedError("setitem: Tensors are not written to. Use tg.where(mask, new, old), or tg.concatenate of the parts")

    # -- methods that are the functions of the same name, with this Tensor as the first argument -----------------------------------

    sum, mean, var, std, prod = ops.sum, ops.mean, ops.var, ops.std, ops.prod
    max, min, norm, logsumexp, cumsum = ops.max, ops.min, ops.norm, ops.logsumexp, ops.cumsum
    softmax, log_softmax = ops.softmax, ops.log_softmax
    abs, square, sqrt, reciprocal, sin, cos = ops.absolute, ops.square, ops.sqrt, ops.reciprocal, ops.sin, ops.cos
    exp, expm1, log, log1p = ops.exp, ops.expm1, ops.log, ops.log1p
    tanh, sigmoid, relu, softplus = ops.tanh, ops.sigmoid, ops.relu, ops.softplus
    maximum, minimum, clip, pad, tril, triu = ops.maximum, ops.minimum, ops.clip, ops.pad, ops.tril, ops.triu
    matmul, dot, outer, take = ops.matmul, ops.dot, ops.outer, ops.take
    ravel, flatten, squeeze, expand_dims = ops.ravel, ops.ravel, ops.squeeze, ops.expand_dims
    swapaxes, moveaxis, tile = ops.swapaxes, ops.moveaxis, ops.tile
    broadcast_to, diagonal, repeat, flip, roll, split = ops.broadcast_to, ops.diagonal, ops.repeat, ops.flip, ops.roll, ops.split

    def reshape(self, *shape: Any) -> Tensor:
        """See :func:`tinygrad_rnn.reshape`; lengths may be given one by one."""
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)  # type: ignore[no-any-return]

    def transpose(self, *axes: Any) -> Tensor:
        """See :func:`tinygrad_rnn.transpose`; axes may be given one by one."""
        order = None if not axes or axes == (None,) else axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return ops.transpose(self, order)  # type: ignore[no-any-return]

    def argmax(self, axis: int | None = None) -> Any:
        """Where the largest entry is, as plain numbers (NumPy's ``argmax``)."""
        return np.argmax(self._value, axis)

    def argmin(self, axis: int | None = None) -> Any:
        """Where the smallest entry is, as plain numbers (NumPy's ``argmin``)."""
        return np.argmin(self._value, axis)

    def astype(self, dtype: Any) -> Tensor:
        """The same numbers in another dtype; floating-point dtypes keep the gradient."""
        wanted = np.dtype(dtype)
        if wanted == self._value.dtype:
            return self
        if wanted.kind == "f":
            cast: Tensor = apply(ops.astype, (self,), {"dtype": wanted})
            return cast
        return Tensor(self._value.astype(wanted))


def _exchanged(leaves: Sequence[Leaf], held: Sequence[Any], gradients: Sequence[Any]) -> bool:
    """Set the gradients of all leaves if they are still the ones that were held, and say whether they were.

    One call that runs no Python does both: neither an interrupt nor, under the interpreter's global lock, another thread comes between. A
    lock of our own would need two calls, and an interrupt after the first leaves it locked.
    """
    same = map(operator.getitem, [{id(gradient): True} for gradient in held], map(id, map(operator.attrgetter("grad"), leaves)))
    try:
        deque(chain(same, map(setattr, leaves, repeat("grad"), gradients)), maxlen=0)
    except KeyError:
        return False
    return True


class HookHandle:
    """What ``register_hook`` returns; ``remove()`` takes the hook away."""

    __slots__ = ("_hooks", "_key")

    def __init__(self, hooks: dict[object, Any], key: object) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Take the hook away; calling it twice is harmless."""
        self._hooks.pop(self._key, None)

    def __reduce__(self) -> Any:
        """Copies of a Tensor have no hooks, so a copy of a handle has none to take away."""
        return HookHandle, ({}, None)


_new = object.__new__


def _make(value: Any, node: Node | None, name: str | None = None) -> Tensor:
    made = _new(Tensor)
    made._value = value
    made._node = node
    made._name = name
    return made


def _restored(kind: type[Tensor], value: Any, requires_grad: bool, name: str | None, gradient: Any) -> Tensor:
    made = _new(kind)
    made._value = as_array(value)
    made._name = name
    made._node = Leaf(made._value, name) if requires_grad else None
    if gradient is not None:
        made.grad = gradient
    return made


def lift(operand: Any) -> Tensor:
    """The Tensor that shows an operand of the tape: a node, or what was constant."""
    if isinstance(operand, Node):
        return _make(operand.value, operand)
    return _make(operand.value, None, operand.name) if isinstance(operand, Constant) else _make(operand, None)


def as_tensor(value: Any) -> Tensor:
    """Tensors as they are; anything else wrapped without a copy (for values that the engine made itself)."""
    return value if isinstance(value, Tensor) else _make(np.asarray(value), None)


def compare(question: Callable[..., Any], *operands: Any, **options: Any) -> Any:
    """The answer of an operator or a ufunc on the plain values, a plain array."""
    try:
        return question(*[operand._value if isinstance(operand, Tensor) else operand for operand in operands], **options)
    except (TypeError, ValueError) as error:
        kind = ShapeError if isinstance(error, ValueError) else DtypeError
        raise kind(f"{question.__name__}: {error}. Compare with numbers of a shape that broadcasts") from None


def tensor(data: Any, requires_grad: bool = False, *, dtype: Any = None, name: str | None = None) -> Tensor:
    """Make a Tensor from numbers, nested lists or an array. The data is copied.

    Args:
        data: real numbers. The dtype is kept; whole numbers become float64 when they need a gradient.
        requires_grad: whether it is a leaf that collects a gradient.
        dtype: convert to this dtype first.
        name: how pictures and labels call it.

    Raises:
        DtypeError: for complex, object and string data.

    Example:
        >>> import tinygrad_rnn as tg
        >>> tg.tensor([[1, 2]], requires_grad=True, name="x")
        Tensor([[1., 2.]], requires_grad=True, name='x')
    """
    if dtype is not None:
        data = quiet().run(as_array(data).astype, dtype)
    return Tensor(data, requires_grad, name)


def seed(output: Tensor, cotangent: Any, operation: str, *, record: bool = False) -> tuple[Node, Any]:
    """The node where a backward pass begins and the cotangent that enters there: an array, or a Tensor for a recorded pass."""
    if not isinstance(output, Tensor):
        raise GraphError(f"{operation}: expected a Tensor, got {type(output).__name__}")
    if output._node is None:
        raise GraphError(
            f"{operation}: this Tensor has no graph; nothing it was computed from requires a gradient. Use requires_grad=True, and no "
            "no_grad() or detach() on the way"
        )
    if cotangent is None:
        if output.size != 1:
            raise GraphError(f"{operation}: shape {output.shape} is not a scalar; give a cotangent of that shape, or reduce it first")
        cotangent = as_tensor(np.ones(output.shape, output.dtype))
    given = cotangent if isinstance(cotangent, Tensor) else as_tensor(as_array(cotangent, operation))
    if given.shape != output.shape:
        raise ShapeError(f"{operation}: expected a cotangent of shape {output.shape}, that of the output, got {given.shape}")
    if given.dtype != output.dtype:
        given = given.astype(output.dtype)
    return output._node, given if record else given._value


def fitted(gradient: Any, node: Node, operation: str) -> Tensor:
    """A gradient that a pass has found, in the precision of the node's value.

    Raises:
        GraphError: if it has another shape, or holds no real numbers.
    """
    found, value = as_tensor(gradient), node.value
    kind, real = "leaf" if isinstance(node, Leaf) else "value", found.dtype.kind in "fiub"
    if found.shape != value.shape or not real:
        got, has = (f"shape {found.shape}", value.shape) if real else (f"dtype {found.dtype}", value.dtype)
        raise GraphError(
            f"{operation}: the gradient of {node.name or f'a {kind}'} came out with {got}; the {kind} has {has}. A primitive's rule or a "
            "hook is wrong: check it with testing.gradcheck"
        )
    return found.astype(value.dtype)


# -- recording --------------------------------------------------------------------------------------------------------------


def _operand(operand: Any, what: str) -> Tensor:
    """An operand as a Tensor; plain data is copied, so that a caller who changes it later changes no gradient."""
    return operand if isinstance(operand, Tensor) else _make(as_array(operand, what), None)


def _align(primitive: Primitive, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Route operands of an elementwise primitive to their common dtype and shape, by NumPy's promotion and broadcasting.

    Only differentiable operands need the shape; constants stay small. Python numbers take the others' precision.
    """
    given = [operand if operand.__class__ in _WEAK else _operand(operand, primitive.name) for operand in operands]
    values: list[Any] = [operand._value if isinstance(operand, Tensor) else operand for operand in given]
    dtypes = {value.dtype for value in values if value.__class__ not in _WEAK}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.result_type(*values)
    if dtype.kind != "f":  # whole numbers only: nothing is differentiable, and NumPy's own rules decide the rest
        dtype = np.result_type(*values)
        return tuple(_make(np.array(x, dtype), None) if x.__class__ in _WEAK else x for x in given)
    tensors: list[Tensor] = [
        operand if isinstance(operand, Tensor) else _make(quiet().run(np.array, operand, dtype), None) for operand in given
    ]
    shapes = {t._value.shape for t in tensors}
    try:
        shape = (
            shapes.pop()
            if len(shapes) == 1
            else max(shapes, key=len)
            if () in shapes and len(shapes) == 2
            else np.broadcast_shapes(*shapes)
        )
    except ValueError:
        named = " and ".join(str(t._value.shape) for t in tensors)
        raise ShapeError(
            f"{primitive.name}: shapes {named} do not broadcast; counted from the right, lengths must be equal or 1. Reshape one of them"
        ) from None
    for position, t in enumerate(tensors):
        if t._value.dtype != dtype:
            t = t.astype(dtype) if t._node is not None else _make(t._value.astype(dtype), None, t._name)
        if t._node is not None and t._value.shape != shape:
            t = ops.broadcast_to(t, shape)
        tensors[position] = t
    return tuple(tensors)


def apply(primitive: Primitive, operands: tuple[Any, ...], statics: dict[str, Any] | None = None) -> Any:
    """Run a primitive on operands of which at least one is a Tensor, and record it if one of them requires a gradient."""
    if primitive.__class__ is Opaque:
        return apply_opaque(primitive, operands, statics or {})
    if primitive.elementwise and len(operands) > 1:
        operands = _align(primitive, operands)
    values = []
    recorded: list[Any] = []
    tracked = False
    for operand in operands:
        if not isinstance(operand, Tensor):
            operand = _operand(operand, primitive.name)
        value = operand._value
        values.append(value)
        node = operand._node
        if node is not None:
            tracked = True
            recorded.append(node)
        else:
            recorded.append(_constant(operand))
    if not primitive.elementwise and len(values) > 1 and len({value.dtype for value in values}) > 1:
        dtype = np.result_type(*values)
        return apply(primitive, tuple(_operand(operand, primitive.name).astype(dtype) for operand in operands), statics)
    out = (quiet() if primitive.own else silent()).run(primitive.forward, *values, **(statics or {}))
    if not primitive.own and np.asarray(out).dtype.kind not in "fiub":
        raise DtypeError(f"{primitive.name}: its forward function returned dtype {np.asarray(out).dtype}; expected real numbers")
    return _result(primitive, tuple(recorded), statics, out, tracked)


def _result(primitive: Primitive, recorded: tuple[Any, ...], statics: dict[str, Any] | None, out: Any, tracked: bool) -> Tensor:
    if out.__class__ is not np.ndarray:
        out = np.asarray(out)
    made = _new(Tensor)
    made._value = out
    made._name = made._node = None
    if tracked:
        if state.recording:
            made._node = Node(primitive, recorded, statics, out)
        else:
            state.touched = True
    return made


def _unary(primitive: Primitive, x: Tensor) -> Tensor:
    """:func:`apply` for the commonest case, one Tensor."""
    node = x._node
    if node is None:
        return apply(primitive, (x,))  # type: ignore[no-any-return]
    return _result(primitive, (node,), None, quiet().run(primitive.forward, x._value), True)


def _binary(primitive: Primitive, x1: Any, x2: Any) -> Tensor:
    """:func:`apply` for two operands, quick where nothing needs aligning."""
    if isinstance(x1, Tensor) and isinstance(x2, Tensor):
        value1, value2, node1, node2 = x1._value, x2._value, x1._node, x2._node
        if (
            (node1 is not None or node2 is not None)
            and value1.dtype is value2.dtype
            and (value1.shape == value2.shape or not primitive.elementwise)
        ):
            recorded = (node1 if node1 is not None else _constant(x1), node2 if node2 is not None else _constant(x2))
            return _result(primitive, recorded, None, quiet().run(primitive.forward, value1, value2), True)
    elif primitive.elementwise:
        if x2.__class__ in _NUMBERS and x1._node is not None:
            number = quiet().run(np.array, x2, x1._value.dtype)
            return _result(primitive, (x1._node, number), None, quiet().run(primitive.forward, x1._value, number), True)
        if x1.__class__ in _NUMBERS and x2._node is not None:
            number = quiet().run(np.array, x1, x2._value.dtype)
            return _result(primitive, (number, x2._node), None, quiet().run(primitive.forward, number, x2._value), True)
    return apply(primitive, (x1, x2))  # type: ignore[no-any-return]


def _constant(x: Tensor) -> Any:
    """How an operand without gradient is recorded: its array, with its name if it has one."""
    return x._value if x._name is None else Constant(x._value, x._name)


def apply_opaque(primitive: Opaque, operands: tuple[Any, ...], statics: dict[str, Any]) -> Any:
    """Run the kernel and record one node for it; a value that is a tuple gives a tuple of Tensors."""
    tensors = [_operand(operand, primitive.name) for operand in operands]
    value, residual = silent().run(primitive.forward, *(t._value for t in tensors), **statics)
    tracked = any(t._node is not None for t in tensors) or (primitive.joint_pullback is None and residual)
    several = isinstance(value, tuple)
    outputs = [np.asarray(part) for part in value] if several else [np.asarray(value)]
    if not tracked or not state.recording:
        state.touched |= bool(tracked)
        made = [_make(part, None) for part in outputs]
        return tuple(made) if several else made[0]
    recorded = tuple(t._node if t._node is not None else _constant(t) for t in tensors)
    node = Node(primitive, recorded, statics, tuple(outputs) if several else outputs[0])
    node.residual = residual
    if not several:
        return _make(outputs[0], node)
    return tuple(_make(part, Node(ops.item, (node,), {"index": i, "count": len(outputs)}, part)) for i, part in enumerate(outputs))


def identity_node(x: Any) -> Tensor:
    """A fresh node with the value of x, connected to x if x is recorded: where a transform seeds its own derivative."""
    x = _operand(x, "identity")
    value = x._value if x._value.dtype.kind == "f" else x._value.astype(np.float64)
    return _make(value, Node(ops.identity, (x._node if x._node is not None else value,), None, value))


def landmark(value: Tensor, name: str, role: str | None = None, *, gate: str | None = None) -> Tensor:
    """Tell labels, pictures and instruments what a computed value is; for cells of your own.

    Args:
        value: what was just computed; returned, so that the call can stand inside a formula.
        name: its symbol, without the time ("h"): inside ``scope(time=3)`` it is shown as h₃. A name that it has already stays.
        role: "hidden" or "cell" for a state that goes on to the next step, "gate" for a gate, None otherwise.
        gate: the gate's name, such as "forget".

    Raises:
        ArgumentError: for another role.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> h, w = tg.tensor([0.1], requires_grad=True), tg.tensor([[0.5]], requires_grad=True, name="W")
        >>> for t in (1, 2):
        ...     with tg.scope("mine", time=t):
        ...         h = tg.landmark(np.sin(h @ w), "h", "hidden")
        >>> [step.label for step in tg.trace(h).filter(kind="scale")], len(tg.trace(h).states("mine"))
        (['⊙ cos matmul', '⊙ cos matmul'], 2)
    """
    if role not in (None, "hidden", "cell", "gate"):
        raise ArgumentError(f"landmark: role must be 'hidden', 'cell', 'gate' or None, got {role!r}")
    at = state.scope
    time = None if at is None else at.time
    node = value._node
    if node is None:
        return value if value._name is not None else _make(value._value, None, subscripted(name, time))
    if node.name is None:
        node.name = name
        if role is not None or gate is not None:
            node.mark = Mark(role, gate=gate, time=time, group=None if at is None else at.group)
    return value
