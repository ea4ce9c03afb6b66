"""Products that sum: matmul is the one primitive, and the only source of ``matmul`` edges; dot, outer and einsum are made of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..linear_maps import LinearMap, MatMul
from ..primitive import primitive
from .arithmetic import multiply
from .reduction import sum as _sum
from .routing import as_operand, broadcast_to, diagonal, expand_dims, moveaxis, ravel, reshape, squeeze, transpose


@primitive(name="matmul")
def _matmul(x1: Any, x2: Any) -> Any:
    """Matrix product over the last two axes: stacks of equal length, or a stack and one matrix that all share."""
    return np.matmul(x1, x2)


@_matmul.defrule
def _(out: Any, x1: Any, x2: Any) -> tuple[LinearMap, ...]:
    shared = x2.ndim == 2 and x1.ndim > 2
    return (MatMul(x2, "right", "· {1}"), MatMul(x1, "left", "{0}ᵀ ·", flat=shared))


def matmul(x1: Any, x2: Any) -> Any:
    """Matrix product by NumPy's rules: 1-D operands are vectors, more than two axes are stacks that broadcast.

    Shapes: (…, M, K) @ (…, K, N) → (…, M, N); (K,) @ (…, K, N) → (…, N); (…, M, K) @ (K,) → (…, M).

    Raises:
        ShapeError: if the inner lengths differ, the stacks do not broadcast, or an operand is a scalar.
    """
    x1, x2 = as_operand(x1, "matmul"), as_operand(x2, "matmul")
    shape1, shape2 = x1.shape, x2.shape
    if len(shape1) == len(shape2) == 2 and shape1[1] == shape2[0]:
        return _matmul(x1, x2)
    if not shape1 or not shape2:
        raise ShapeError(f"matmul: operands of shape {shape1} and {shape2}; a scalar cannot take part. Use *")
    rows = shape2[0] if len(shape2) == 1 else shape2[-2]
    if shape1[-1] != rows:
        turned = len(shape2) > 1 and shape2[-1] == shape1[-1]
        raise ShapeError(
            f"matmul: operand 1 has shape {shape2}; expected {shape1[-1]} rows to follow operand 0 of shape {shape1}."
            + (" Did you mean to transpose operand 1?" if turned else " Check which axis is shared")
        )
    if len(shape1) == 1:
        return squeeze(matmul(expand_dims(x1, 0), x2), 0 if len(shape2) == 1 else -2)
    if len(shape2) == 1:
        return squeeze(matmul(x1, expand_dims(x2, 1)), -1)
    if len(shape2) > 2 and shape1[:-2] != shape2[:-2]:
        try:
            stack = np.broadcast_shapes(shape1[:-2], shape2[:-2])
        except ValueError:
            raise ShapeError(
                f"matmul: stacks {shape1[:-2]} and {shape2[:-2]} of operands {shape1} and {shape2} do not broadcast; counted from the "
                "right, lengths must be equal or 1. Reshape one of them"
            ) from None
        x1, x2 = broadcast_to(x1, stack + shape1[-2:]), broadcast_to(x2, stack + shape2[-2:])
    return _matmul(x1, x2)


def dot(a: Any, b: Any) -> Any:
    """Sum of products over the last axis of a and the last but one of b (NumPy's ``dot``); a plain product for scalars."""
    a, b = as_operand(a, "dot"), as_operand(b, "dot")
    if a.ndim == 0 or b.ndim == 0:
        return multiply(a, b)
    if b.ndim <= 2:
        return matmul(a, b)
    inner = moveaxis(b, -2, 0)
    product = matmul(a, reshape(inner, (b.shape[-2], -1 if b.size else math.prod(inner.shape[1:]))))
    return reshape(product, a.shape[:-1] + inner.shape[1:])


def outer(a: Any, b: Any) -> Any:
    """All products a_i · b_j of the flattened operands, of shape (a.size, b.size)."""
    return multiply(expand_dims(ravel(a), 1), expand_dims(ravel(b), 0))


def einsum(subscripts: str, *operands: Any, optimize: Any = "greedy") -> Any:
    """Sums of products by Einstein's convention, as in NumPy (implicit or explicit output, ``...``, repeated indices).

    It is carried out as pairwise matrix products in the order that :func:`numpy.einsum_path` chooses, so that every backward
    multiplication is an ordinary ``matmul`` or ``scale`` edge.

    Raises:
        ArgumentError: for malformed subscripts or the wrong number of operands.
        ShapeError: if one index stands for two lengths.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> tg.einsum("ij,jk->ki", np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
        array([[1., 3.],
               [2., 4.]])
    """
    if not isinstance(subscripts, str):
        raise ArgumentError("einsum: expected the subscripts as a string such as 'ij,jk->ik', got " + type(subscripts).__name__)
    arrays = [as_operand(operand, "einsum") for operand in operands]
    terms, result = _parse(subscripts, arrays)
    lengths: dict[str, int] = {}
    for position, (term, array) in enumerate(zip(terms, arrays, strict=True)):
        for index, length in zip(term, array.shape, strict=True):
            if lengths.setdefault(index, length) not in (length, 1) and length != 1:
                raise ShapeError(f"einsum: index {index!r} of operand {position} has length {length}; expected {lengths[index]}")
            lengths[index] = max(lengths[index], length) if 0 not in (lengths[index], length) else 0
    work = [_single(term, array, lengths) for term, array in zip(terms, arrays, strict=True)]
    for pair in _order(terms, result, lengths, optimize):
        chosen = [work.pop(place) for place in sorted(pair, reverse=True)]
        while len(chosen) > 1:
            right, left = chosen.pop(0), chosen.pop(0)
            needed = set(result).union(*(term for term, _ in work + chosen))
            chosen.insert(0, _pair(left, right, needed))
        work.append(chosen[0])
    ((term, array),) = work
    gone = tuple(i for i, index in enumerate(term) if index not in result)
    array = _sum(array, axis=gone) if gone else array
    term = "".join(index for index in term if index in result)
    return transpose(array, tuple(term.index(index) for index in result)) if term != result else array


def _parse(subscripts: str, arrays: list[Any]) -> tuple[list[str], str]:
    """One string of single-letter indices per operand, and the result's, with the ellipsis spelled out in spare letters."""
    text = subscripts.replace(" ", "")
    inputs, arrow, result = text.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(arrays):
        raise ArgumentError(
            f"einsum: {subscripts!r} describes {len(terms)} operands, got {len(arrays)}. Give one for each part between the commas"
        )
    spare = [chr(code) for code in range(0x3B1, 0x3B1 + 64)]  # Greek letters: NumPy allows a–z and A–Z only
    hidden = 0
    spelled = []
    for position, (term, array) in enumerate(zip(terms, arrays, strict=True)):
        named = term.replace("...", "", 1)
        if not all(c.isascii() and c.isalpha() for c in named):
            raise ArgumentError(f"einsum: {term!r} is not a list of letters (and one '...')")
        extra = array.ndim - len(named)
        if extra < 0 or (extra and "..." not in term):
            raise ArgumentError(f"einsum: operand {position} has {array.ndim} dimensions; {term!r} names {len(named)}")
        hidden = max(hidden, extra if "..." in term else 0)
        spelled.append((term, extra))
    full = [term.replace("...", "".join(spare[hidden - extra : hidden])) for term, extra in spelled]
    if arrow:
        result = result.replace("...", "".join(spare[:hidden]))
    else:
        letters = "".join(terms).replace(".", "")
        result = "".join(spare[:hidden]) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    known = set("".join(full))
    if len(set(result)) != len(result) or not set(result) <= known:
        raise ArgumentError(f"einsum: the result of {subscripts!r} repeats an index or names one that no operand has")
    return full, result


def _order(terms: list[str], result: str, lengths: dict[str, int], optimize: Any) -> list[tuple[int, ...]]:
    if len(terms) <= 2 or optimize is False:
        return [tuple(range(len(terms)))]
    letters = {index: chr(ord("a") + i) if i < 26 else chr(ord("A") + i - 26) for i, index in enumerate(lengths)}
    shapes = [np.broadcast_to(np.float64(0.0), tuple(lengths[index] for index in dict.fromkeys(term))) for term in terms]
    unique = ["".join(letters[index] for index in dict.fromkeys(term)) for term in terms]
    plan = ",".join(unique) + "->" + "".join(letters[index] for index in result)
    return [tuple(step) for step in np.einsum_path(plan, *shapes, optimize=optimize)[0][1:]]


def _single(term: str, array: Any, lengths: dict[str, int]) -> tuple[str, Any]:
    """An operand with repeated indices reduced to their diagonal, and axes of length 1 stretched to the index's length."""
    wanted = tuple(lengths[index] for index in term)
    if array.shape != wanted:
        array = broadcast_to(array, wanted)
    while len(set(term)) != len(term):
        index = next(c for c in term if term.count(c) > 1)
        first, second = term.index(index), term.rindex(index)
        array = diagonal(array, axis1=first, axis2=second)
        term = "".join(c for i, c in enumerate(term) if i not in (first, second)) + index
    return term, array


def _pair(left: tuple[str, Any], right: tuple[str, Any], needed: set[str]) -> tuple[str, Any]:
    """Contract two operands over the indices that nothing else needs, as one (stacked) matrix product."""
    (left_term, a), (right_term, b) = left, right
    a, left_term = _drop(a, left_term, needed | set(right_term))
    b, right_term = _drop(b, right_term, needed | set(left_term))
    both = [c for c in left_term if c in right_term]
    stack = [c for c in both if c in needed]
    inner = [c for c in both if c not in needed]
    rows = [c for c in left_term if c not in both]
    columns = [c for c in right_term if c not in both]
    a = transpose(a, tuple(left_term.index(c) for c in stack + rows + inner))
    b = transpose(b, tuple(right_term.index(c) for c in stack + inner + columns))
    outer_shape = a.shape[: len(stack)]
    row_shape, column_shape = a.shape[len(stack) : len(stack) + len(rows)], b.shape[len(stack) + len(inner) :]
    if not inner:
        a = reshape(a, outer_shape + row_shape + (1,) * len(columns))
        b = reshape(b, outer_shape + (1,) * len(rows) + column_shape)
        return "".join(stack + rows + columns), multiply(a, b)
    shared = math.prod(a.shape[len(stack) + len(rows) :])
    a = reshape(a, (*outer_shape, math.prod(row_shape), shared))
    b = reshape(b, (*outer_shape, shared, math.prod(column_shape)))
    return "".join(stack + rows + columns), reshape(matmul(a, b), outer_shape + row_shape + column_shape)


def _drop(array: Any, term: str, wanted: set[str]) -> tuple[Any, str]:
    """Sum over the indices that only this operand has and nobody wants."""
    gone = tuple(i for i, index in enumerate(term) if index not in wanted)
    return (_sum(array, axis=gone) if gone else array), "".join(index for index in term if index in wanted)
