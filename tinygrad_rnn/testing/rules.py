"""What must be true of a primitive's rule: of the linear maps that it returns, whatever the operation is.

Each law takes a primitive, its operands (float64 arrays, away from kinks and poles) and its statics, and raises
:class:`~tinygrad_rnn.testing.GradcheckError` if it is broken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..linear_maps import KINDS, LinearMap
from ..primitive import Opaque, Primitive
from ..tensor import Tensor, tensor
from .comparing import largest_of
from .differences import basis_of, complex_step
from .reproduction import GradcheckError, law

Operands = tuple[Any, ...]
Statics = dict[str, Any]


def has_rule(what: Any) -> bool:
    """Whether it is a primitive with a rule of its own (an opaque one has a definition instead)."""
    return isinstance(what, Primitive) and not isinstance(what, Opaque)


def _primitive(what: Any, name: str) -> Primitive:
    if not has_rule(what):
        raise ArgumentError(f"{name}: expected a primitive with a rule, got {type(what).__name__}. This law is about the maps of a rule")
    assert isinstance(what, Primitive)
    return what


# -- the local Jacobians as matrices ------------------------------------------------------------------------------------------


def local_maps(primitive: Primitive, operands: Operands, statics: Statics) -> tuple[Any, Operands, tuple[LinearMap, ...]]:
    """The value, the operands as the rule sees them (an elementwise primitive's are broadcast first), and the rule's maps."""
    operands = tuple(x if isinstance(x, tuple) else np.asarray(getattr(x, "value", x), np.float64) for x in operands)
    if primitive.elementwise and len(operands) > 1:
        operands = tuple(np.array(array) for array in np.broadcast_arrays(*operands))
    with np.errstate(all="ignore"):
        out = np.asarray(primitive.forward(*operands, **statics))
        maps = primitive.rule(out, *operands, **statics)
    return out, operands, maps


def by_pullback(linear_map: LinearMap, out: Any, operand: Any) -> Any:
    """J, of shape (output entries, operand entries), row by row from ``pullback``."""
    rows = [_flat(linear_map.pullback(basis), operand) for basis in basis_of(out.shape, out.dtype)]
    return np.array(rows).reshape(out.size, _size(operand))


def by_pushforward(linear_map: LinearMap, out: Any, operand: Any) -> Any:
    """J, column by column from ``pushforward``."""
    columns = [np.ravel(linear_map.pushforward(_shaped(basis, operand))) for basis in np.eye(_size(operand))]
    return np.array(columns).reshape(_size(operand), out.size).T


def _parts(operand: Any) -> list[Any]:
    """An operand is an array, or (for an output of an opaque primitive) a tuple of arrays."""
    return list(operand) if isinstance(operand, tuple) else [operand]


def _size(operand: Any) -> int:
    return sum(int(part.size) for part in _parts(operand))


def _flat(contribution: Any, operand: Any) -> Any:
    pieces = contribution if isinstance(operand, tuple) else [contribution]
    return np.concatenate([np.zeros(a.size) if p is None else np.ravel(p) for p, a in zip(pieces, _parts(operand), strict=True)])


def _shaped(flat: Any, operand: Any) -> Any:
    pieces, start = [], 0
    for part in _parts(operand):
        pieces.append(flat[start : start + part.size].reshape(part.shape).astype(part.dtype))
        start += part.size
    return tuple(pieces) if isinstance(operand, tuple) else pieces[0]


def _random(like: Any, rng: np.random.Generator) -> Any:
    return _shaped(rng.uniform(0.5, 1.5, _size(like)), like)


def _fail(primitive: Primitive, position: int, text: str) -> None:
    raise GradcheckError(f"{primitive.name}: operand {position}: {text}")


def _expect_equal(primitive: Primitive, position: int, expected: Any, got: Any, why: str, rtol: float = 1e-12) -> None:
    with np.errstate(invalid="ignore"):
        rest = 1e-3 * largest_of(expected, got)  # what is left where terms cancel
        scale = np.maximum(np.maximum(np.abs(expected), np.abs(got)), rest)
        wrong = ~(np.abs(expected - got) <= rtol * scale) & (expected != got) & ~(np.isnan(expected) & np.isnan(got))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        _fail(primitive, position, f"{why}: expected {expected[place]:.17g} at {place}, got {got[place]:.17g}")


# -- the laws -----------------------------------------------------------------------------------------------------------------


@law
def fitting(primitive: Any, *operands: Any, **statics: Any) -> None:
    """The rule gives one map of a known kind per operand; Jᵀ g has the operand's shape and J u the value's."""
    out, operands, maps = local_maps(_primitive(primitive, "fitting"), operands, statics)
    if len(maps) != len(operands):
        raise GradcheckError(f"{primitive.name}: expected {len(operands)} maps from the rule, one per operand, got {len(maps)}")
    for position, (operand, linear_map) in enumerate(zip(operands, maps, strict=True)):
        if linear_map.kind not in KINDS:
            _fail(primitive, position, f"expected one of the kinds {KINDS}, got {linear_map.kind!r}")
        pulled = linear_map.pullback(np.ones_like(out))
        for part, piece in zip(_parts(operand), pulled if isinstance(operand, tuple) else [pulled], strict=True):
            if piece is not None and np.shape(piece) != part.shape:
                _fail(primitive, position, f"expected a pullback of shape {part.shape}, got {np.shape(piece)}")
        pushed = linear_map.pushforward(_random(operand, np.random.default_rng(0)))
        if np.shape(pushed) != out.shape:
            _fail(primitive, position, f"expected a pushforward of shape {out.shape}, got {np.shape(pushed)}")


@law
def labels(primitive: Any, *operands: Any, **statics: Any) -> None:
    """A label is a template that a reader can be shown: it names only the value and the operands."""
    _, operands, maps = local_maps(_primitive(primitive, "labels"), operands, statics)
    for position, linear_map in enumerate(maps):
        try:
            text = linear_map.label.format(*("x" for _ in operands), out="y")
        except (IndexError, KeyError, ValueError) as error:
            _fail(primitive, position, f"expected a label made of {{out}}, {{0}}, …, got {linear_map.label!r} ({error!r})")
        else:
            if not text.strip():
                _fail(primitive, position, "expected a label, got an empty one")


def adjoint_maps(primitive: Primitive, operands: Operands, statics: Statics) -> None:
    """⟨J u, v⟩ = ⟨u, Jᵀ v⟩, for every pair of basis vectors and a random pair."""
    out, operands, maps = local_maps(primitive, operands, statics)
    rng = np.random.default_rng(0)
    for position, (operand, linear_map) in enumerate(zip(operands, maps, strict=True)):
        rows, columns = by_pullback(linear_map, out, operand), by_pushforward(linear_map, out, operand)
        _expect_equal(primitive, position, rows, columns, "pullback and pushforward must be adjoint")
        u, v = _random(operand, rng), _random(out, rng)
        pushed, pulled = np.ravel(linear_map.pushforward(u)), _flat(linear_map.pullback(v), operand)
        flat = np.concatenate([np.ravel(part) for part in _parts(u)])
        _expect_equal(primitive, position, rows @ flat, pushed, "a pushforward must be linear", 1e-10)
        _expect_equal(primitive, position, np.ravel(v) @ rows, pulled, "a pullback must be linear", 1e-10)


@law
def kinds(primitive: Any, *operands: Any, **statics: Any) -> None:
    """A map is what it calls itself: add is the identity, scale diagonal, route zeros and ones, matmul a matrix ⊗ the identity."""
    out, operands, maps = local_maps(_primitive(primitive, "kinds"), operands, statics)
    for position, (operand, linear_map) in enumerate(zip(operands, maps, strict=True)):
        jacobian = by_pullback(linear_map, out, operand)
        if not _is_kind(linear_map.kind, jacobian, out.shape, operand):
            _fail(primitive, position, f"the map calls itself {linear_map.kind!r}, but its Jacobian is none. Give it another kind")


def _is_kind(kind: str, jacobian: Any, out: tuple[int, ...], operand: Any) -> bool:
    rows, columns = jacobian.shape
    if kind == "matmul":
        return _matrix_times_identity(jacobian, out, operand.shape)
    if kind == "route":
        return bool(np.isin(jacobian, (0.0, 1.0)).all())
    if kind == "add":
        return rows == columns and np.array_equal(jacobian, np.eye(rows))
    return rows == columns and not np.any(jacobian[~np.eye(rows, dtype=bool)])


def _matrix_times_identity(jacobian: Any, out: tuple[int, ...], operand: tuple[int, ...]) -> bool:
    """Whether J is the identity along the rows (u ↦ u M) or along the columns (u ↦ M u) of the last two axes."""
    for axis in (-2, -1):
        if len(out) < 2 or len(operand) < 2 or out[axis] != operand[axis]:
            continue
        blocks = np.moveaxis(jacobian.reshape(out + operand), (len(out) + axis, len(out) + len(operand) + axis), (0, 1))
        same = np.eye(out[axis], dtype=bool)
        if not np.any(blocks[~same]) and all(np.array_equal(block, blocks[0, 0]) for block in blocks[same]):
            return True
    return False


@law
def agreement(primitive: Any, *operands: Any, **statics: Any) -> None:
    """The rule on arrays and the rule on Tensors are the same maps, and what the latter give is recorded."""
    out, operands, maps = local_maps(_primitive(primitive, "agreement"), operands, statics)
    rng = np.random.default_rng(0)
    lifted = [tuple(map(_leaf, operand)) if isinstance(operand, tuple) else _leaf(operand) for operand in operands]
    twins = primitive.rule(_leaf(out), *lifted, **statics)
    for position, (operand, linear_map, twin) in enumerate(zip(operands, maps, twins, strict=True)):
        if (linear_map.kind, linear_map.label) != (twin.kind, twin.label):
            _fail(primitive, position, f"expected {linear_map!r} from the rule on Tensors, as on arrays, got {twin!r}")
        v = _random(out, rng)
        for array, recorded in zip(_parts_of(linear_map.pullback(v)), _parts_of(twin.pullback(_leaf(v))), strict=True):
            if array is not None:
                if not isinstance(recorded, Tensor) or recorded.node is None:
                    _fail(primitive, position, f"expected the pullback of a Tensor to be recorded, got {type(recorded).__name__}")
                _expect_equal(primitive, position, np.asarray(array), recorded.value, "pullback on Tensors", 1e-15)
        if not isinstance(operand, tuple):
            u = _random(operand, rng)
            _expect_equal(primitive, position, linear_map.pushforward(u), twin.pushforward(_leaf(u)).value, "pushforward on Tensors", 1e-15)


def _leaf(array: Any) -> Tensor:
    return tensor(array, requires_grad=True)


def _parts_of(contribution: Any) -> list[Any]:
    return list(contribution) if isinstance(contribution, list) else [contribution]


def complex_step_of_maps(primitive: Primitive, operands: Operands, statics: Statics, rtol: float) -> None:
    """J e = Im forward(x + i·h·e) / h for a tiny h: no difference is taken, so it is exact to rounding."""
    out, operands, maps = local_maps(primitive, operands, statics)
    for position, (operand, linear_map) in enumerate(zip(operands, maps, strict=True)):
        expected = complex_step(lambda *moved: primitive.forward(*moved, **statics), list(operands), position)
        if expected is None:
            raise ArgumentError(f"complex_step: the forward function of {primitive.name} takes no complex arrays. Use gradcheck")
        _expect_equal(primitive, position, expected, by_pullback(linear_map, out, operand), "complex step", rtol)


def pure_rule(primitive: Primitive, operands: Operands, statics: Statics) -> None:
    """Neither the forward function, nor the rule, nor a map writes to its arguments."""
    out, operands, _ = local_maps(primitive, operands, statics)
    rng = np.random.default_rng(0)
    cotangent, tangents = _random(out, rng), [_random(operand, rng) for operand in operands]
    arrays = [out, cotangent, *(part for x in (*operands, *tangents) for part in _parts(x))]
    before = [array.copy() for array in arrays]
    primitive.forward(*operands, **statics)
    for linear_map, tangent in zip(primitive.rule(out, *operands, **statics), tangents, strict=True):
        linear_map.pullback(cotangent)
        linear_map.pushforward(tangent)
    if any(not np.array_equal(array, copy) for array, copy in zip(arrays, before, strict=True)):
        raise GradcheckError(f"{primitive.name}: expected operands, value, cotangent and tangents as they were, got one written to")
