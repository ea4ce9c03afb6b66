"""Derivatives of functions, and the switches of recording: grad, vjp, jvp, jacobian, hessian, checkpoint, no_grad, detect_anomaly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from .errors import ArgumentError, GraphError, ShapeError
from .graph import Leaf, Node, state
from .ops import identity, stack
from .primitive import Opaque
from .tensor import Tensor, apply_opaque, as_array, as_tensor, fitted, identity_node, lift, seed
from .walk import Backward, discover, forward_walk, is_closure


class _Switch:
    """A recording state for a while; usable as a context manager and as a decorator."""

    _settings: ClassVar[dict[str, Any]] = {}

    def __enter__(self) -> None:
        try:
            state.before.append((self, {name: getattr(state, name) for name in self._settings}))
            for name, setting in self._settings.items():
                setattr(state, name, setting)
        except BaseException:  # an interrupt
            self._move_back()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._move_back()
        except BaseException:  # an interrupt
            self._move_back()
            raise

    def _move_back(self) -> None:
        """Restore what was found at the beginning, here and above: there lies what an interrupt has kept from being moved back."""
        before = state.before
        place = len(before) - 1
        while place >= 0 and before[place][0] is not self:
            place -= 1
        if place >= 0:
            for _, found in reversed(before[place:]):
                for name, setting in found.items():
                    setattr(state, name, setting)
            del before[place:]

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        switch = super().__new__(cls)
        return switch if function is None else switch(function)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if isgeneratorfunction(function) or iscoroutinefunction(function) or isasyncgenfunction(function):
            raise ArgumentError(
                f"{type(self).__name__}: {function.__qualname__} stops on the way, and the switch would be moved back before it has begun. "
                f"Write `with tg.{type(self).__name__}():` in it, around what is computed between two stops"
            )

        @wraps(function)
        def switched(*arguments: Any, **options: Any) -> Any:
            with type(self)():
                return function(*arguments, **options)

        return switched


class no_grad(_Switch):  # noqa: N801 (PyTorch's name)
    """Record nothing inside: ``with tg.no_grad(): …``, or as a decorator.

    As in PyTorch the switch is the thread's: a coroutine that awaits inside of it leaves it on for what runs meanwhile.
    """

    _settings: ClassVar[dict[str, Any]] = {"recording": False}


class enable_grad(_Switch):  # noqa: N801 (PyTorch's name)
    """Record again, inside a ``no_grad``."""

    _settings: ClassVar[dict[str, Any]] = {"recording": True}


class detect_anomaly(_Switch):  # noqa: N801 (PyTorch's name)
    """Stop at the first backward multiplication that makes a NaN or an infinity.

    The error names the operation, the multiplication, shapes and ranges of what went in and came out, and the source line that
    recorded it (run the forward pass inside as well, for that line).

    Raises:
        AnomalyError: from the backward pass.
    """

    _settings: ClassVar[dict[str, Any]] = {"anomaly": True, "sources": True}


class record_sources(_Switch):  # noqa: N801 (as the other switches)
    """Remember for every node the file and line that recorded it, so that steps can tell (about 1 µs per operation)."""

    _settings: ClassVar[dict[str, Any]] = {"sources": True}


def _tuple(inputs: Any, operation: str) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def grad(
    outputs: Any, inputs: Any, cotangents: Any = None, *, create_graph: bool = False, allow_unused: bool = False
) -> tuple[Tensor, ...]:
    """Gradients of the outputs with respect to the inputs, leaves or not. Touches no ``.grad``.

    Args:
        outputs: a Tensor, or several whose (cotangent-weighted) sum is differentiated.
        inputs: a Tensor or several; leaves or computed ones.
        cotangents: one per output, of its shape; 1 for outputs of one entry.
        create_graph: record the backward pass, so that the gradients can be differentiated again; always so inside vjp, jvp, jacobian
            and hessian.
        allow_unused: give zeros for an input that the outputs do not depend on, instead of an error.

    Returns:
        One Tensor per input, of its shape.

    Raises:
        GraphError: if an input was not used, or there is no graph.

    Example:
        >>> import tinygrad_rnn as tg
        >>> x = tg.tensor(3.0, requires_grad=True)
        >>> (dx,) = tg.grad(x * x * x, x, create_graph=True)
        >>> tg.grad(dx, x)[0].item()  # 6x
        18.0
    """
    outs, ins = _tuple(outputs, "grad"), _tuple(inputs, "grad")
    weights = (None,) * len(outs) if cotangents is None else _tuple(cotangents, "grad")
    if len(weights) != len(outs):
        raise ArgumentError(f"grad: {len(outs)} outputs need as many cotangents, got {len(weights)}")
    for position, x in enumerate(ins):
        if not isinstance(x, Tensor) or x.node is None:
            raise GraphError(f"grad: input {position} does not require a gradient. Make it with requires_grad=True")
    create_graph = create_graph or (state.transforming and state.recording)
    seeds = [seed(out, weight, "grad", record=create_graph) for out, weight in zip(outs, weights, strict=True)]
    found = Backward(seeds, lift=lift, create_graph=create_graph, wanted=[x.node for x in ins]).run()
    results = []
    for position, x in enumerate(ins):
        gradient = found.get(x.node)
        if gradient is None and not allow_unused:
            raise GraphError(
                f"grad: input {position} ({x.name or 'without a name'}, shape {x.shape}) was not used to compute the outputs. Check the "
                "graph, or pass allow_unused=True for zeros"
            )
        results.append(as_tensor(np.zeros(x.shape, x.dtype)) if gradient is None else fitted(gradient, x.node, "grad"))
    return tuple(results)


def _traced(operation: str, fn: Callable[..., Any], inputs: Sequence[Any]) -> tuple[list[Tensor], Tensor, bool]:
    """Fresh nodes for the inputs, the function's value on them, and whether something outside asks for derivatives of it."""
    recording, transforming = state.recording, state.transforming
    state.recording = state.transforming = True
    try:
        fresh = [identity_node(x) for x in inputs]
        out = fn(*fresh)
    finally:
        state.recording, state.transforming = recording, transforming
    if not isinstance(out, Tensor):
        raise ArgumentError(f"{operation}: the function must return one Tensor, got {type(out).__name__}. Stack or concatenate several")
    own = {x.node for x in fresh}
    outer = out.node is not None and any(_leads_out(node) for node in discover([out.node], set()) if node not in own)
    state.touched |= outer and not recording
    return fresh, out, outer and recording


def _leads_out(node: Node) -> bool:
    """Whether a node is a leaf, the beginning of an enclosing transform, or may know one of them that the graph does not show."""
    return isinstance(node, Leaf) or node.primitive is identity or is_closure(node)


def vjp(fn: Callable[..., Any], *inputs: Any) -> tuple[Tensor, Callable[[Any], tuple[Tensor, ...]]]:
    """The value of ``fn(*inputs)`` and its pullback: cotangent ↦ one Jᵀ g per input.

    Example:
        >>> import tinygrad_rnn as tg
        >>> out, pullback = tg.vjp(lambda a, b: a * b, 2.0, 5.0)
        >>> out.item(), [g.item() for g in pullback(1.0)]
        (10.0, [5.0, 2.0])
    """
    fresh, out, outer = _traced("vjp", fn, inputs)

    def pullback(cotangent: Any) -> tuple[Tensor, ...]:
        if out.node is None:
            return tuple(as_tensor(np.zeros(x.shape, x.dtype)) for x in fresh)
        again = outer or (isinstance(cotangent, Tensor) and cotangent.requires_grad and state.recording)
        found = Backward(
            [seed(out, cotangent, "vjp", record=again)], lift=lift, create_graph=again, wanted=[x.node for x in fresh if x.node]
        ).run()
        return tuple(as_tensor(found[x.node]) if x.node in found else as_tensor(np.zeros(x.shape, x.dtype)) for x in fresh)

    return (out if outer else out.detach()), pullback


def jvp(fn: Callable[..., Any], inputs: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    """The value of ``fn(*inputs)`` and its directional derivative J u, by forward mode.

    Args:
        fn: takes as many Tensors as there are inputs and returns one.
        inputs, tangents: equally many, of equal shapes; a single one need not be in a tuple.

    Raises:
        ShapeError, ArgumentError: if they do not pair up.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> out, tangent = tg.jvp(np.square, 3.0, 1.0)
        >>> out.item(), tangent.item()
        (9.0, 6.0)
    """
    points, directions = _tuple(inputs, "jvp"), _tuple(tangents, "jvp")
    if len(points) != len(directions):
        raise ArgumentError(f"jvp: {len(points)} inputs need as many tangents, got {len(directions)}")
    fresh, out, outer = _traced("jvp", fn, points)
    seeds: dict[Any, Any] = {}
    again = outer
    for position, (x, direction) in enumerate(zip(fresh, directions, strict=True)):
        u = direction if isinstance(direction, Tensor) else as_tensor(as_array(direction, "jvp"))
        if u.shape != x.shape:
            raise ShapeError(f"jvp: tangent {position} has shape {u.shape}; expected {x.shape}, that of its input")
        u = u.astype(x.dtype)
        again = again or (u.requires_grad and state.recording)
        seeds[x.node] = u
    if out.node is None:
        return out, as_tensor(np.zeros(out.shape, out.dtype))
    if not again:
        seeds = {node: u.value for node, u in seeds.items()}
    (tangent,) = forward_walk(seeds, [out.node], lift=lift, create_graph=again)
    tangent = as_tensor(np.zeros(out.shape, out.dtype) if tangent is None else tangent)
    return (out if outer else out.detach()), tangent


def jacobian(fn: Callable[[Any], Any], x: Any) -> Tensor:
    """∂fn(x)/∂x, of shape ``fn(x).shape + x.shape``: rows are outputs, columns are inputs.

    One backward pass per output entry, or one forward pass per input entry, whichever are fewer.

    Example:
        >>> import tinygrad_rnn as tg
        >>> tg.jacobian(lambda x: x[::-1] * x, [1.0, 2.0]).value
        array([[2., 1.],
               [2., 1.]])
    """
    fresh, out, outer = _traced("jacobian", fn, (x,))
    (point,) = fresh
    shape = out.shape + point.shape
    if out.node is None or out.size == 0 or point.size == 0:
        return as_tensor(np.zeros(shape, out.dtype))
    rows = []
    if out.size <= point.size:
        for basis in np.eye(out.size, dtype=out.dtype).reshape(-1, *out.shape):
            found = Backward([(out.node, basis)], lift=lift, create_graph=outer, wanted=[point.node] if point.node else []).run()
            rows.append(as_tensor(found.get(point.node, np.zeros(point.shape, point.dtype))))  # type: ignore[arg-type]
        return stack(rows).reshape(shape)  # type: ignore[no-any-return]
    for basis in np.eye(point.size, dtype=point.dtype).reshape(-1, *point.shape):
        (column,) = forward_walk({point.node: as_tensor(basis) if outer else basis}, [out.node], lift=lift, create_graph=outer)  # type: ignore[dict-item]
        rows.append(as_tensor(np.zeros(out.shape, out.dtype) if column is None else column))
    return stack(rows, axis=-1).reshape(shape)  # type: ignore[no-any-return]


def hessian(fn: Callable[[Any], Any], x: Any) -> Tensor:
    """∂²fn(x)/∂x², of shape ``x.shape + x.shape``, for a function with one output entry. Symmetric up to rounding.

    Example:
        >>> import tinygrad_rnn as tg
        >>> tg.hessian(lambda x: x[0] * x[0] * x[1], [1.0, 2.0]).value
        array([[4., 2.],
               [2., 0.]])
    """

    def gradient(point: Tensor) -> Tensor:
        out = fn(point)
        if not isinstance(out, Tensor) or out.size != 1:
            raise ShapeError(f"hessian: expected a function with one output entry, got {getattr(out, 'shape', type(out).__name__)}")
        if out.node is None:
            return point * 0.0
        return grad(out, point, allow_unused=True)[0]

    return jacobian(gradient, x)


def checkpoint(fn: Callable[..., Any], *tensors: Any) -> Any:
    """``fn(*tensors)`` without remembering what happens inside; the backward pass computes it again.

    Memory for time: of everything that ``fn`` records, only its inputs and outputs are kept. ``fn`` may return a Tensor or a (nested)
    tuple of Tensors, as a layer does, and may use parameters from outside. It must give the same value when called again; if it does
    not, the backward pass says so.

    Raises:
        GraphError: from the backward pass, if computing again gives another value.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> x = tg.tensor([0.5], requires_grad=True)
        >>> tg.checkpoint(lambda a: np.tanh(np.tanh(a)), x).backward()
        >>> y = tg.tensor([0.5], requires_grad=True); np.tanh(np.tanh(y)).backward()
        >>> bool(x.grad == y.grad)
        True
    """

    def forward(*arrays: Any, **_: Any) -> tuple[Any, bool]:
        before = state.recording, state.touched
        state.recording, state.touched = False, False
        try:
            given = [x if isinstance(x, Tensor) else as_tensor(array) for x, array in zip(tensors, arrays, strict=True)]
            out = fn(*given)
            touched = state.touched
        finally:
            state.recording, state.touched = before
        shape.append(out)
        parts = _flat(out)
        return tuple(part.value for part in parts), touched or any(part.requires_grad for part in parts)

    shape: list[Any] = []
    name = getattr(fn, "__name__", type(fn).__name__)
    opaque = Opaque(forward, name=f"checkpoint({name})", definition=lambda *inside: tuple(_flat(fn(*inside))), exact=True)
    made = iter(apply_opaque(opaque, tensors, {}))
    return _refilled(shape.pop(), made)


def _flat(out: Any) -> list[Tensor]:
    """The Tensors in a nested tuple, in order."""
    if isinstance(out, tuple):
        return [part for inner in out for part in _flat(inner)]
    if not isinstance(out, Tensor):
        raise ArgumentError(f"checkpoint: the function must return a Tensor or a tuple of Tensors; a part of it is {type(out).__name__}")
    return [out]


def _refilled(shape: Any, parts: Iterator[Tensor]) -> Any:
    """A nested tuple of the same form with other Tensors in it."""
    if not isinstance(shape, tuple):
        return next(parts)
    inside = [_refilled(inner, parts) for inner in shape]
    return type(shape)(*inside) if hasattr(shape, "_fields") else tuple(inside)
