"""A learner's forward and backward functions at several points: what they gave, and the derivatives of the forward function.

The derivatives are measured, by the complex step where the function takes complex numbers and by central differences elsewhere; where
they cannot be measured, or more than one is right, nothing is said.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from .differences import complex_step, differences

_PROOF = 1e-8
"""Numbers that agree up to this part of the largest entry are the same."""


@dataclass(frozen=True)
class Point:
    """What was given and what came, at one point."""

    arrays: list[Any]
    values: list[Any]
    cotangents: list[Any]
    expected: list[Any]
    doubt: list[Any]
    got: list[Any]
    exact: bool
    notes: list[str]


class Pair:
    """The learner's two functions."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[Any]) -> None:
        self.forward, self.backward = forward, backward
        self.arrays = [np.array(x) for x in inputs]
        self.varied = [k for k, array in enumerate(self.arrays) if array.dtype.kind == "f"]
        if not self.varied:
            raise ArgumentError("check_backward: expected arrays of floating-point numbers after the two functions, got none")
        self.arrays = [a.astype(np.float64) if k in self.varied else a for k, a in enumerate(self.arrays)]
        self.names = _parameters(forward, len(self.arrays))

    @property
    def gradient_names(self) -> list[str]:
        """dx, dWx, …"""
        return [f"d{self.names[k]}" for k in self.varied]

    def elsewhere(self, rng: np.random.Generator) -> list[Any]:
        """Another point, of the same shapes and about the same size."""
        arrays = []
        for k, array in enumerate(self.arrays):
            if k not in self.varied:
                arrays.append(array)
            elif array.size and (array > 0).all():
                arrays.append(array * rng.uniform(0.5, 1.5, array.shape))
            else:
                size = float(np.sqrt(np.mean(array * array))) if array.size else 1.0
                arrays.append(rng.normal(size=array.shape) * (min(size, 1.0) if size > 0.0 else 0.5))
        for _ in range(5):  # a function may end somewhere: half of the way back, until it gives numbers
            with np.errstate(all="ignore"):
                if all(np.isfinite(value).all() for value in self.run([array.copy() for array in arrays])[0]):
                    break
            arrays = [0.5 * (a + b) if k in self.varied else a for k, (a, b) in enumerate(zip(arrays, self.arrays, strict=True))]
        return arrays

    def run(self, arrays: Sequence[Any]) -> tuple[list[Any], Any, bool]:
        """The results, the cache, and whether there is one."""
        out = self.forward(*arrays)
        if not isinstance(out, (tuple, list)):
            return [_numbers(out, "the result of forward")], None, False
        if len(out) < 2:
            raise ArgumentError("check_backward: expected forward to return its results and, last, a cache; got a tuple of one")
        return [_numbers(part, f"result {k} of forward") for k, part in enumerate(out[:-1])], out[-1], True

    def at(self, arrays: list[Any], rng: np.random.Generator, rtol: float) -> Point:
        """Everything at one point."""
        given = [array.copy() for array in arrays]
        with _called("forward", self.names, given):
            values, cache, cached = self.run(given)
        self._repeats(arrays, values)
        cotangents = [rng.normal(size=value.shape) for value in values]
        handed = [cotangent.copy() for cotangent in cotangents]
        of = [f"cotangent {k}" for k in range(len(handed))]
        with _called("backward", [*of, *(["the cache"] if cached else self.names)], [*handed, *([cache] if cached else given)]):
            out = self.backward(*handed, cache) if cached else self.backward(*handed, *given)
        notes = []
        for name, array, before in zip(self.names, given, arrays, strict=True):
            if not np.array_equal(array, before, equal_nan=array.dtype.kind == "f"):
                notes.append(f"{name} is written to: work on a copy, or callers will find it changed.")
        if any(not np.array_equal(a, b) for a, b in zip(handed, cotangents, strict=True)):
            notes.append("The cotangent that comes in is written to (an augmented assignment such as *=): work on a copy.")
        got = self._gradients(out)
        expected, doubt, exact = self._derivatives(arrays, values, cotangents, rtol)
        self._leave_kinks(arrays, cotangents, expected, doubt, got)
        return Point(arrays, [value.copy() for value in values], cotangents, expected, doubt, got, exact, notes)

    def _repeats(self, arrays: list[Any], values: list[Any]) -> None:
        """What is no function, or gives no numbers, has no derivative."""
        again, _, _ = self.run([array.copy() for array in arrays])
        for k, (one, other) in enumerate(zip(values, again, strict=True)):
            if not np.isfinite(one).all():
                place = tuple(int(i) for i in np.argwhere(~np.isfinite(one))[0])
                raise ArgumentError(
                    f"check_backward: expected numbers from forward, got {one[place]} at {place} of result {k}. Begin elsewhere"
                )
            if not np.array_equal(one, other):
                raise ArgumentError(
                    f"check_backward: expected the same result {k} when forward is called again, got another. Seed its random numbers"
                )

    def _gradients(self, out: Any) -> list[Any]:
        if isinstance(out, dict):
            if set(out) != set(self.gradient_names):
                raise ArgumentError(
                    f"check_backward: expected gradients with the names {', '.join(self.gradient_names)}, got {', '.join(map(str, out))}. "
                    "Call each d and the name of the forward function's argument"
                )
            out = [out[name] for name in self.gradient_names]
        parts = list(out) if isinstance(out, (tuple, list)) else [out]
        if len(parts) != len(self.varied):
            raise ArgumentError(
                f"check_backward: expected {len(self.varied)} gradients from the backward function, {', '.join(self.gradient_names)}, got "
                f"{len(parts)}. Return them in the order of the forward function's arguments"
            )
        named = zip(self.varied, self.gradient_names, parts, strict=True)
        return [np.zeros_like(self.arrays[k]) if part is None else np.array(_numbers(part, name)) for k, name, part in named]

    def _derivatives(self, arrays: list[Any], values: list[Any], cotangents: list[Any], rtol: float) -> tuple[list[Any], list[Any], bool]:
        """Of ⟨cotangents, forward⟩: by the complex step where central differences agree with it."""

        def weighed(*moved: Any) -> Any:
            results, _, _ = self.run([np.array(array) for array in moved])
            return sum((np.sum(r * g) for r, g in zip(results, cotangents, strict=True)), start=np.zeros(1)).reshape(1)

        found, doubts, all_exact = [], [], True
        for k in self.varied:
            shape = arrays[k].shape
            jacobian = complex_step(weighed, arrays, k)
            doubt = np.zeros((1, arrays[k].size))
            if jacobian is None or not _is_derivative(jacobian, weighed, arrays, k, rtol):
                jacobian, error = differences(weighed, arrays, k, rtol=rtol)
                doubt = np.where(np.isfinite(error), error, np.inf)
                all_exact = False
            found.append(jacobian.reshape(shape))
            doubts.append(doubt.reshape(shape))
        return found, doubts, all_exact

    def _leave_kinks(self, arrays: list[Any], cotangents: list[Any], expected: list[Any], doubt: list[Any], got: list[Any]) -> None:
        """Where the slopes to the left and to the right differ, more than one slope is right: these entries say nothing."""

        def loss(k: int, entry: int, step: float) -> float:
            moved = [array.copy() for array in arrays]
            moved[k].flat[entry] += step
            return sum(float(np.sum(r * g)) for r, g in zip(self.run(moved)[0], cotangents, strict=True))

        for place, k in enumerate(self.varied):
            if got[place].shape != arrays[k].shape:
                continue
            with np.errstate(invalid="ignore"):
                off = ~(np.abs(got[place] - expected[place]) <= 1e-3 * np.abs(expected[place]) + doubt[place])
            for entry in np.flatnonzero(off):
                step = 1e-6 * max(abs(float(arrays[k].flat[entry])), 1.0)
                below, here, above = (loss(k, int(entry), shift) for shift in (-step, 0.0, step))
                left, right = (here - below) / step, (above - here) / step
                if abs(right - left) > 1e-2 * max(abs(left), abs(right)):
                    doubt[place].flat[entry] = np.inf


def _numbers(part: Any, what: str) -> Any:
    """A result as an array."""
    try:
        array = np.asarray(part)
    except ValueError:
        array = np.zeros(0, object)
    if array.dtype.kind not in "fiubc":
        shown = type(part).__name__
        raise ArgumentError(
            f"check_backward: expected numbers for {what}, got {shown}. Return one array for each result, and the cache last"
        )
    return array


@contextlib.contextmanager
def _called(what: str, names: Sequence[str], given: Sequence[Any]) -> Iterator[None]:
    """What one's own function raises says with what it was called."""
    try:
        yield
    except ArgumentError:
        raise
    except Exception as error:
        shown = [f"{name} {np.shape(x)}" if isinstance(x, np.ndarray) else name for name, x in zip(names, given, strict=True)]
        error.add_note(f"raised by the {what} function, which check_backward called with {', '.join(shown)}")
        raise


def _is_derivative(jacobian: Any, fn: Callable[..., Any], arrays: list[Any], k: int, rtol: float) -> bool:
    """Whether the complex step's derivative is that of central differences, along three random directions."""
    rng = np.random.default_rng(k)
    for _ in range(3):
        way = rng.normal(size=arrays[k].shape)

        def along(s: Any, way: Any = way) -> Any:
            return fn(*arrays[:k], arrays[k] + s[0] * way, *arrays[k + 1 :])

        slope, error = differences(along, [np.zeros(1)], 0, rtol=rtol)
        terms = jacobian.ravel() * way.ravel()
        if not np.isfinite(error).all() or abs(slope[0, 0] - terms.sum()) > error[0, 0] + 1e-6 * np.abs(terms).sum() + 1e-12:
            return False
    return True


def _parameters(forward: Callable[..., Any], count: int) -> list[str]:
    """The names of the forward function's arguments."""
    try:
        names = [
            name for name, p in inspect.signature(forward).parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        names = []
    return names[:count] if len(names) >= count else [f"x{k}" for k in range(count)]


# -- comparing ----------------------------------------------------------------------------------------------------------------


def wrong_entries(point: Point, k: int, rtol: float) -> Any:
    """Which entries are wrong; all of them if the shape is."""
    expected, got = point.expected[k], point.got[k]
    if got.shape != expected.shape:
        return np.ones(expected.shape, bool)
    size = np.max(np.abs(expected), initial=0.0)
    with np.errstate(invalid="ignore"):
        return ~(np.abs(got - expected) <= rtol * np.abs(expected) + 1e-3 * rtol * size + point.doubt[k] + 1e-15 * scale_of(point))


def undecided(pair: Pair, seen: list[Point]) -> Iterator[str]:
    """What was checked at no point is not called right."""
    for k, name in enumerate(pair.gradient_names):
        never = np.all([np.isinf(point.doubt[k]) for point in seen], axis=0)
        if never.any():
            entries = f"{int(never.sum())} of its {never.size} entries"
            yield f"{name} could not be checked in {entries}: begin away from the kinks and poles of the forward function."


def scale_of(point: Point) -> float:
    """The largest entry of all derivatives."""
    return max((float(np.max(np.abs(expected), initial=0.0)) for expected in point.expected), default=0.0)


def agree(one: Any, other: Any) -> bool:
    """To 1e-8 of the largest entry."""
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or not np.isfinite(one).all() or not np.isfinite(other).all():
        return False
    size = max(np.max(np.abs(one), initial=0.0), np.max(np.abs(other), initial=0.0))
    return bool(np.all(np.abs(one - other) <= _PROOF * size))


def near(point: Point, k: int, array: Any, rtol: float) -> bool:
    """Whether an array is the k-th derivative, as far as it is known."""
    expected = point.expected[k]
    size = np.max(np.abs(expected), initial=0.0)
    return array.shape == expected.shape and bool(np.all(np.abs(array - expected) <= rtol * size + point.doubt[k]))
