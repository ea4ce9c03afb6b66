"""Operations that only move, repeat or add up entries: reshape, transpose, index, broadcast, join and cut.

Their Jacobians consist of zeros and ones, so no number is ever multiplied here; pictures fold these edges away. There are few
primitives (reshape, transpose, broadcast_to, sum_to, index, scatter, concatenate, astype); the others are composed from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from operator import index as whole
from typing import Any

import numpy as np

from ..errors import ArgumentError, DtypeError, IndexingError, ShapeError, TinygradError
from ..linear_maps import IDENTITY, LinearMap, Place, Route, Scatter, add_at
from ..primitive import primitive

Shape = tuple[int, ...]


def normalize_axis(operation: str, axis: int, ndim: int) -> int:
    """The axis as a number in [0, ndim); an error that names the operation otherwise."""
    (axis,) = integers(operation, "axis", axis)
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{operation}: axis {axis} does not exist; expected one in [{-ndim}, {ndim}) for {ndim} dimensions")
    return axis % ndim


def integers(operation: str, what: str, numbers: Any) -> Shape:
    """One whole number or several, as a tuple of ints; floats are not rounded but refused."""
    if numbers.__class__ is int:
        return (numbers,)
    try:
        return tuple(whole(n) for n in numbers) if np.ndim(numbers) else (whole(numbers),)
    except (TypeError, ValueError):
        raise ArgumentError(f"{operation}: expected whole numbers for {what}, got {numbers!r}") from None


def normalize_axes(operation: str, axis: int | Sequence[int] | None, ndim: int) -> Shape:
    """All axes for None; otherwise each in [0, ndim), without repetition."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(normalize_axis(operation, a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{operation}: axis {axis} names an axis twice")
    return axes


def as_operand(x: Any, operation: str = "operand") -> Any:
    """Arrays and Tensors as they are; lists and numbers as arrays; an error for what is not numbers."""
    if hasattr(x, "__apply_primitive__"):
        return x
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ShapeError(f"{operation}: the data is ragged or not rectangular ({error}). Pad it to one shape first") from None
    if array.dtype.kind not in "fiubc":  # complex arrays pass: on plain arrays they are NumPy's business, Tensors refuse them
        raise DtypeError(f"{operation}: expected numbers, got dtype {array.dtype}. Convert them with .astype(float) first")
    return array


def as_weak_operand(x: Any, operation: str = "operand") -> Any:
    """The same, but Python numbers stay as they are, so that they take the precision of the other operands."""
    return x if isinstance(x, (bool, int, float)) else as_operand(x, operation)


def shape_of(x: Any) -> Shape:
    """The shape of an array, a Tensor, a list or a number."""
    return x.shape if hasattr(x, "shape") else as_operand(x).shape  # type: ignore[no-any-return]


# -- shape ------------------------------------------------------------------------------------------------------------------


@primitive(name="reshape")
def _reshape(x: Any, *, shape: Shape) -> Any:
    """The same entries, in C order, under another shape."""
    return np.reshape(x, shape)


@_reshape.defrule
def _(out: Any, x: Any, *, shape: Shape) -> tuple[LinearMap, ...]:
    return (Route(partial(_reshape, shape=shape), partial(_reshape, shape=x.shape), "reshape"),)


def reshape(a: Any, /, shape: int | Sequence[int]) -> Any:
    """The same entries, in C order, under another shape; one length may be −1."""
    a = as_operand(a, "reshape")
    wanted = integers("reshape", "the shape", shape)
    known = math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and known and a.size % known == 0:
        wanted = tuple(a.size // known if n == -1 else n for n in wanted)
    if any(n < 0 for n in wanted) or math.prod(wanted) != a.size:
        raise ShapeError(f"reshape: {a.size} entries of shape {a.shape} do not fill {wanted}. Check the lengths, or use one −1")
    return _reshape(a, shape=wanted)


def ravel(a: Any) -> Any:
    """All entries in one dimension."""
    a = as_operand(a, "ravel")
    return _reshape(a, shape=(a.size,))


def expand_dims(a: Any, axis: int | Sequence[int]) -> Any:
    """A new axis of length 1 at each position ``axis`` of the result."""
    a = as_operand(a, "expand_dims")
    count = a.ndim + (len(axis) if isinstance(axis, (tuple, list)) else 1)
    new = set(normalize_axes("expand_dims", axis, count))
    lengths = iter(a.shape)
    return _reshape(a, shape=tuple(1 if i in new else next(lengths) for i in range(count)))


def squeeze(a: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Without axes of length 1: all of them, or those named."""
    a = as_operand(a, "squeeze")
    gone = {i for i, n in enumerate(a.shape) if n == 1} if axis is None else set(normalize_axes("squeeze", axis, a.ndim))
    if wrong := [i for i in sorted(gone) if a.shape[i] != 1]:
        raise ShapeError(f"squeeze: axis {wrong[0]} has length {a.shape[wrong[0]]}; only axes of length 1 can be dropped")
    return _reshape(a, shape=tuple(n for i, n in enumerate(a.shape) if i not in gone))


@primitive(name="transpose")
def _transpose(x: Any, *, axes: Shape) -> Any:
    """The axes in another order."""
    return np.transpose(x, axes)


@_transpose.defrule
def _(out: Any, x: Any, *, axes: Shape) -> tuple[LinearMap, ...]:
    inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
    return (Route(partial(_transpose, axes=axes), partial(_transpose, axes=inverse), "transpose"),)


def transpose(a: Any, axes: Sequence[int] | None = None) -> Any:
    """The axes in the order ``axes``, reversed by default."""
    a = as_operand(a, "transpose")
    order = tuple(reversed(range(a.ndim))) if axes is None else normalize_axes("transpose", tuple(axes), a.ndim)
    if len(order) != a.ndim:
        raise ShapeError(f"transpose: axes {axes} must name each of the {a.ndim} dimensions once")
    return _transpose(a, axes=order)


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    a = as_operand(a, "swapaxes")
    order = list(range(a.ndim))
    i, j = normalize_axis("swapaxes", axis1, a.ndim), normalize_axis("swapaxes", axis2, a.ndim)
    order[i], order[j] = j, i
    return _transpose(a, axes=tuple(order))


def moveaxis(a: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """The axes ``source`` moved to the positions ``destination``; the others keep their order."""
    a = as_operand(a, "moveaxis")
    origins = normalize_axes("moveaxis", source, a.ndim)
    targets = normalize_axes("moveaxis", destination, a.ndim)
    if len(origins) != len(targets):
        raise ShapeError(f"moveaxis: {len(origins)} sources and {len(targets)} destinations; expected as many of both")
    order = [axis for axis in range(a.ndim) if axis not in origins]
    for target, origin in sorted(zip(targets, origins, strict=True)):
        order.insert(target, origin)
    return _transpose(a, axes=tuple(order))


@primitive(name="astype")
def astype(x: Any, *, dtype: Any) -> Any:
    """The same numbers in another floating-point precision; the cotangent comes back in the operand's own."""
    return np.asarray(x).astype(dtype)


@astype.defrule
def _(out: Any, x: Any, *, dtype: Any) -> tuple[LinearMap, ...]:
    return (Route(partial(astype, dtype=dtype), partial(astype, dtype=x.dtype), f"as {np.dtype(dtype).name}"),)


# -- broadcast --------------------------------------------------------------------------------------------------------------


@primitive(name="broadcast_to")
def _broadcast_to(x: Any, *, shape: Shape) -> Any:
    """Entries repeated along new axes and axes of length 1."""
    repeated = np.empty(shape, x.dtype)
    repeated[...] = x
    return repeated


@_broadcast_to.defrule
def _(out: Any, x: Any, *, shape: Shape) -> tuple[LinearMap, ...]:
    return (Route(partial(_broadcast_to, shape=shape), partial(_sum_to, shape=x.shape), "broadcast"),)


def broadcast_to(array: Any, shape: int | Sequence[int]) -> Any:
    """Entries repeated along new leading axes and along axes of length 1, up to ``shape``; the adjoint sums over them."""
    array = as_operand(array, "broadcast_to")
    wanted = integers("broadcast_to", "the shape", shape)
    padded = (1,) * (len(wanted) - array.ndim) + array.shape
    if len(padded) != len(wanted) or any(m < 0 or n not in (1, m) for n, m in zip(padded, wanted, strict=True)):
        raise ShapeError(f"broadcast_to: shape {array.shape} cannot be broadcast to {wanted}; axes must match or have length 1")
    return array if array.shape == wanted else _broadcast_to(array, shape=wanted)


@primitive(name="sum_to")
def _sum_to(x: Any, *, shape: Shape) -> Any:
    """Sum over the axes that broadcasting from ``shape`` had repeated: the adjoint of broadcast_to."""
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1)
    return np.sum(x, axis=axes, keepdims=True).reshape(shape)


@_sum_to.defrule
def _(out: Any, x: Any, *, shape: Shape) -> tuple[LinearMap, ...]:
    return (Route(partial(_sum_to, shape=shape), partial(_broadcast_to, shape=x.shape), "Σ"),)


# -- index ------------------------------------------------------------------------------------------------------------------


_UNCHANGEABLE = frozenset((int, slice, type(None), type(Ellipsis)))


def _freeze_index(key: Any, operation: str) -> Any:
    """A copy of every array in an index expression, so that a caller who changes theirs later changes no gradient."""
    if isinstance(key, tuple):
        for part in key:
            if part.__class__ not in _UNCHANGEABLE:
                return tuple(_freeze_index(part, operation) for part in key)
        return key
    if key is None or key is Ellipsis or isinstance(key, (int, slice, np.integer)):
        return key
    array = np.array(getattr(key, "value", key))
    if array.size == 0 and isinstance(key, list):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iub":
        raise IndexingError(f"{operation}: an index array has dtype {array.dtype}; expected integers or booleans. Use .astype(int)")
    array.setflags(write=False)
    return array


@primitive(name="index")
def _index(x: Any, *, key: Any) -> Any:
    """The entries that an index expression picks."""
    return x[key]


@_index.defrule
def _(out: Any, x: Any, *, key: Any) -> tuple[LinearMap, ...]:
    return (Scatter(partial(_index, key=key), partial(scatter, shape=x.shape, keys=(key,)), index_label(key), key),)


@primitive
def scatter(*parts: Any, shape: Shape, keys: tuple[Any, ...]) -> Any:
    """Zeros of ``shape`` with each part added at the places that its key picks: the adjoint of indexing."""
    placed = np.zeros(shape, parts[0].dtype)
    for part, key in zip(parts, keys, strict=True):
        add_at(placed, key, part)
    return placed


@scatter.defrule
def _(out: Any, *parts: Any, shape: Shape, keys: tuple[Any, ...]) -> tuple[LinearMap, ...]:
    return tuple(_place(shape, key, "place " + index_label(key)) for key in keys)


def _place(shape: Shape, key: Any, label: str) -> Place:
    return Place(partial(scatter, shape=shape, keys=(key,)), partial(_index, key=key), label, key)


def index_label(key: Any) -> str:
    """An index expression as a reader would write it."""
    # Braces would be read as a label's own placeholders; an index has none.
    return "[" + ", ".join([_part_label(part) for part in (key if isinstance(key, tuple) else (key,))]) + "]"


def _part_label(part: Any) -> str:
    if part.__class__ is slice:
        return _slice_label(part.start, part.stop, part.step)
    if part is Ellipsis:
        return "…"
    return "mask" if getattr(part, "dtype", None) == np.bool_ else "array" if getattr(part, "ndim", 0) else str(part)


@lru_cache(maxsize=256)
def _slice_label(start: Any, stop: Any, step: Any) -> str:
    return f"{'' if start is None else start}:{'' if stop is None else stop}" + ("" if step is None else f":{step}")


def getitem(x: Any, key: Any) -> Any:
    """``x[key]``: integers, slices, None, …, boolean masks and integer arrays, by NumPy's rules."""
    return _pick("index", as_operand(x, "index"), key)


def _pick(operation: str, x: Any, key: Any) -> Any:
    try:
        return _index(x, key=_freeze_index(key, operation))
    except TinygradError:
        raise
    except (IndexError, TypeError, ValueError) as error:
        raise IndexingError(f"{operation}: {error}, for an operand of shape {x.shape}") from None


def take(a: Any, indices: Any, axis: int | None = None) -> Any:
    """Entries along one axis by integer index (of the flattened operand for None). Repeated indices add up backward."""
    a = ravel(a) if axis is None else as_operand(a, "take")
    axis = 0 if axis is None else normalize_axis("take", axis, a.ndim)
    places = as_operand(getattr(indices, "value", indices), "take")
    return _pick("take", a, (slice(None),) * axis + (places if places.size else places.astype(np.intp),))


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal over two axes, as the last axis of the result."""
    a = as_operand(a, "diagonal")
    if a.ndim < 2:
        raise ShapeError(f"diagonal: expected at least 2 dimensions, got shape {a.shape}")
    a = moveaxis(a, normalize_axes("diagonal", (axis1, axis2), a.ndim), (-2, -1))
    rows, columns = a.shape[-2:]
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    steps = np.arange(length)
    return getitem(a, (Ellipsis, steps - min(offset, 0), steps + max(offset, 0)))


def flip(m: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Entries in reverse order along the axes (all by default)."""
    m = as_operand(m, "flip")
    axes = normalize_axes("flip", axis, m.ndim)
    return getitem(m, tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(m.ndim)))


def roll(a: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """Entries shifted cyclically along the axes (of the flattened operand for None)."""
    a = as_operand(a, "roll")
    if axis is None:
        if not isinstance(shift, (int, np.integer)):
            raise ArgumentError(f"roll: shift {shift} needs an axis for each of its entries")
        return reshape(roll(ravel(a), shift, 0), a.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(axes) == 1 and len(shifts) > 1:
        axes = tuple(axes) * len(shifts)
    if len(shifts) != len(axes):
        raise ArgumentError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    for by, along in zip(shifts, axes, strict=True):
        along = normalize_axis("roll", along, a.ndim)
        length = a.shape[along]
        a = take(a, (np.arange(length) - by) % max(length, 1), along)
    return a


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each entry repeated, one count for all or one each, along an axis (of the flattened operand for None)."""
    a = ravel(a) if axis is None else as_operand(a, "repeat")
    axis = 0 if axis is None else normalize_axis("repeat", axis, a.ndim)
    counts = np.asarray(integers("repeat", "repeats", repeats))
    if counts.min(initial=0) < 0:
        raise ArgumentError(f"repeat: expected counts of 0 or more, got {repeats}")
    if counts.size not in (1, a.shape[axis]):
        raise ShapeError(f"repeat: {counts.size} counts for axis {axis} of length {a.shape[axis]}; expected one, or one each")
    return take(a, np.repeat(np.arange(a.shape[axis]), counts), axis)


def tile(A: Any, reps: int | Sequence[int]) -> Any:  # noqa: N803 (NumPy's name)
    """The whole array repeated ``reps`` times along each axis."""
    array = as_operand(A, "tile")
    counts = integers("tile", "reps", reps)
    if any(n < 0 for n in counts):
        raise ArgumentError(f"tile: expected repetitions of 0 or more, got {reps}")
    ndim = max(array.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - array.ndim) + tuple(array.shape)
    split_axes = tuple(n for pair in zip((1,) * ndim, shape, strict=True) for n in pair)
    repeated = tuple(n for pair in zip(counts, shape, strict=True) for n in pair)
    tiled = broadcast_to(_reshape(array, shape=split_axes), repeated)
    return _reshape(tiled, shape=tuple(c * n for c, n in zip(counts, shape, strict=True)))


# -- join and cut -----------------------------------------------------------------------------------------------------------


@primitive(name="concatenate")
def _concatenate(*operands: Any, axis: int) -> Any:
    """Operands one behind the other along an axis."""
    return np.concatenate(operands, axis=axis)


@_concatenate.defrule
def _(out: Any, *operands: Any, axis: int) -> tuple[LinearMap, ...]:
    maps = []
    start = 0
    for position, operand in enumerate(operands):
        stop = start + operand.shape[axis]
        key = (slice(None),) * axis + (slice(start, stop),)
        maps.append(_place(out.shape, key, f"part {position}"))
        start = stop
    return tuple(maps)


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """Join along an existing axis (flattened for None)."""
    parts = [as_operand(part, "concatenate") for part in arrays]
    if not parts:
        raise ArgumentError("concatenate: expected at least one array, got none")
    if axis is None:
        parts, axis = [ravel(part) for part in parts], 0
    first = parts[0]
    if first.ndim == 0:
        raise ShapeError("concatenate: zero-dimensional arrays cannot be joined; use stack")
    axis = normalize_axis("concatenate", axis, first.ndim)
    for position, part in enumerate(parts):
        if part.ndim != first.ndim or any(n != m for i, (n, m) in enumerate(zip(part.shape, first.shape, strict=True)) if i != axis):
            raise ShapeError(
                f"concatenate: operand {position} has shape {part.shape}; expected that of operand 0, {first.shape}, up to axis {axis}"
            )
    return _concatenate(*parts, axis=axis)


@primitive(name="stack")
def _stack(*operands: Any, axis: int) -> Any:
    """Operands beside each other along a new axis."""
    return np.stack(operands, axis=axis)


@_stack.defrule
def _(out: Any, *operands: Any, axis: int) -> tuple[LinearMap, ...]:
    lead, where = (slice(None),) * axis, f" of axis {axis}" if axis else ""
    return tuple(_place(out.shape, (*lead, position), f"part {position}{where}") for position in range(len(operands)))


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Join along a new axis."""
    parts = [as_operand(part, "stack") for part in arrays]
    if not parts:
        raise ArgumentError("stack: expected at least one array, got none")
    for position, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ShapeError(f"stack: operand {position} has shape {part.shape}; expected that of operand 0, {parts[0].shape}")
    axis = normalize_axis("stack", axis, parts[0].ndim + 1)
    return _stack(*parts, axis=axis)


def split(ary: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Cut along an axis into equal sections, or at the given places (NumPy's ``split``; PyTorch's ``chunk``)."""
    ary = as_operand(ary, "split")
    axis = normalize_axis("split", axis, ary.ndim)
    length = ary.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        sections = int(indices_or_sections)
        if sections < 1 or length % sections:
            raise ShapeError(f"split: an axis of length {length} does not divide into {sections} equal sections")
        places = [length // sections * i for i in range(1, sections)]
    else:
        places = list(integers("split", "the places", indices_or_sections))
    lead = (slice(None),) * axis
    return [getitem(ary, (*lead, slice(a, b))) for a, b in zip([None, *places], [*places, None], strict=True)]


def pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    """Borders around the array, by NumPy's conventions of ``pad_width`` and ``mode``.

    ``mode="constant"`` fills with ``constant_values``; "edge", "reflect", "symmetric" and "wrap" repeat entries, whose cotangents
    then add up.
    """
    array = as_operand(array, "pad")
    if mode not in ("constant", "edge", "reflect", "symmetric", "wrap"):
        raise ArgumentError(f"pad: mode {mode!r} is not differentiable here; expected constant, edge, reflect, symmetric or wrap")
    try:
        widths = np.broadcast_to(np.array(pad_width, dtype=np.intp), (array.ndim, 2))
    except (TypeError, ValueError):
        raise ShapeError(
            f"pad: pad_width {pad_width!r} does not fit shape {array.shape}; expected a number, a pair, or a pair per axis"
        ) from None
    if (widths < 0).any():
        raise ArgumentError(f"pad: expected widths of 0 or more, got {pad_width}; cut with an index instead")
    if not array.ndim:
        return array  # no axis to widen
    if mode != "constant":
        if 0 in array.shape:
            raise ShapeError(f"pad: shape {array.shape} has no entries to repeat; use mode='constant'")
        places = np.arange(array.size).reshape(array.shape)
        return getitem(ravel(array), np.pad(places, widths, mode=mode))  # type: ignore[call-overload]
    shape = tuple(before + n + after for n, (before, after) in zip(array.shape, widths.tolist(), strict=True))
    key = tuple(slice(before, before + n) for n, (before, _) in zip(array.shape, widths.tolist(), strict=True))
    placed = scatter(array, shape=shape, keys=(key,))
    fill = np.asarray(as_operand(constant_values, "pad"))
    if fill.dtype.kind == "c" and array.dtype.kind != "c":
        raise DtypeError(f"pad: expected real constant_values, got dtype {fill.dtype}")
    try:
        border = np.pad(np.zeros(array.shape, array.dtype), widths, constant_values=fill)
    except ValueError:
        raise ShapeError(f"pad: constant_values of shape {fill.shape} do not fit; expected a number, a pair, or a pair per axis") from None
    return placed if not border.any() else placed + border


# -- for the engine itself ----------------------------------------------------------------------------------------------------


@primitive(name="identity")
def identity(x: Any) -> Any:
    """The same value under a node of its own: where a transform (vjp, jvp) begins."""
    return x


@identity.defrule
def _(out: Any, x: Any) -> tuple[LinearMap, ...]:
    return (IDENTITY,)


class Parts(list[Any]):
    """The cotangents of a value that is a tuple: None where nothing has arrived. Sums are taken part by part."""

    def __add__(self, other: Any) -> Parts:
        return Parts(b if a is None else a if b is None else a + b for a, b in zip(self, other, strict=True))

    __iadd__ = __add__


def _place_part(x: Any, *, index: int, count: int) -> Parts:
    return Parts(x if i == index else None for i in range(count))


def _pick_part(parts: Any, *, index: int, count: int) -> Any:
    return parts[index]


@primitive(name="item")
def item(parts: Any, *, index: int, count: int) -> Any:
    """One of the values of an opaque primitive that has several."""
    return parts[index]


@item.defrule
def _(out: Any, parts: Any, *, index: int, count: int) -> tuple[LinearMap, ...]:
    return (Route(partial(_pick_part, index=index, count=count), partial(_place_part, index=index, count=count), f"output {index}"),)
