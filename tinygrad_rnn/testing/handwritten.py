"""check_backward: where did my hand derivation go wrong?

A learner's own forward and backward functions in NumPy are compared with the derivatives of that same forward function. Where a gradient
is wrong, each mistake that people make is tried as a hypothesis: what would the gradients be with this one mistake? It is named only if
the learner's numbers are those numbers, at several random points.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Table, aligned, number
from .differences import complex_step, differences
from .faults import Fault
from .models import SequenceModel, StepModel
from .references import Reference, candidates
from .reproduction import GradcheckError

_PROOF = 1e-8
_PAIRS = 80


# -- the report ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CheckedGradient:
    """One gradient of a hand-written backward function.

    Attributes:
        name: of the gradient, "dx".
        right: whether it is the derivative, at all points.
        error: the largest difference at any point, as a part of the largest entry of the derivative.
        shape, expected_shape: its own, and that of the array it is the gradient of.
        entry: the place of the worst entry at the first point where it is wrong (None if it is right, or has another shape).
        expected, got: there.
        explanation: what is wrong, where the numbers prove it; "" if nothing known explains it.
    """

    name: str
    right: bool
    error: float
    shape: tuple[int, ...]
    expected_shape: tuple[int, ...]
    entry: tuple[int, ...] | None
    expected: float
    got: float
    explanation: str

    @property
    def what(self) -> str:
        """Right or wrong, and where, in words."""
        if self.right:
            return f"{self.name} is right"
        if self.entry is None:
            return f"{self.name} has shape {self.shape}, expected {self.expected_shape}"
        return f"{self.name} is wrong at entry {self.entry}: expected {self.expected:.6g}, got {self.got:.6g}"

    def __str__(self) -> str:
        if self.right:
            return f"{self.what}."
        return f"{self.what}: {self.explanation}." if self.explanation else f"{self.what}; no known mistake gives these numbers."


@dataclass(frozen=True, eq=False)
class BackwardReport(Result):
    """What :func:`check_backward` found. ``print`` it, or call ``check()`` in a test.

    Attributes:
        function: the name of the backward function.
        gradients: one :class:`CheckedGradient` per gradient.
        fault: the mistake, or the two, that all wrong gradients follow from; "" if there is none, or each has its own.
        forward: what the forward function was recognised as ("" if it was not, and only general mistakes could be tried).
        oracle: where the expected numbers come from: "complex step" or "central differences".
        points: at how many points they were compared.
        rtol: up to which part a gradient may differ.
        notes: what else is not as it should be.
        unrecorded: why the forward function could not be recorded, if it was not recognised.
    """

    function: str
    gradients: tuple[CheckedGradient, ...]
    fault: str
    forward: str
    oracle: str
    points: int
    rtol: float
    notes: tuple[str, ...] = ()
    unrecorded: str = ""

    @property
    def ok(self) -> bool:
        """Whether every gradient is right, and nothing was written to that is not the function's own."""
        return all(gradient.right for gradient in self.gradients) and not self.notes

    @property
    def sentences(self) -> tuple[str, ...]:
        """What there is to say: of the whole, then of each gradient that is wrong, then of the others."""
        if all(gradient.right for gradient in self.gradients):
            return (f"{self.function}: all {len(self.gradients)} gradients are right.", *self.notes)
        wrong = [gradient for gradient in self.gradients if not gradient.right]
        whole = [f"This explains all of it: {self.fault}."] if self.fault and len(wrong) > 1 else []
        each = [f"{gradient.what}." if whole else str(gradient) for gradient in wrong]
        right = [gradient.name for gradient in self.gradients if gradient.right]
        rest = [f"{', '.join(right)}: right."] if right else []
        hint = []
        if self.unrecorded and not all(gradient.explanation for gradient in wrong):
            hint = [
                f"The forward function could not be recorded ({self.unrecorded}), so that only few mistakes could be tried: write it with "
                "NumPy's functions, and np.stack for what is assigned part by part."
            ]
        return (*whole, *each, *rest, *hint, *self.notes)

    def table(self) -> Table:
        """One row per gradient, and the sentences."""
        rows = [
            (
                gradient.name,
                "right" if gradient.right else "wrong",
                number(gradient.error, 2) if gradient.shape == gradient.expected_shape else "shape",
                "–" if gradient.entry is None else str(gradient.entry),
                "–" if gradient.entry is None else f"{gradient.expected:.6g}",
                "–" if gradient.entry is None else f"{gradient.got:.6g}",
            )
            for gradient in self.gradients
        ]
        seen = f"recognised as {self.forward}" if self.forward else "of a form that was not recognised"
        title = f"{self.function}, {seen}: {self.points} points, expected by {self.oracle}"
        return aligned(("gradient", "", "error", "worst entry", "expected", "got"), rows, title, "\n".join(self.sentences))

    def check(self) -> BackwardReport:
        """The report itself if all is right; for tests.

        Raises:
            GradcheckError: (an AssertionError) with the report as its message.
        """
        if not self.ok:
            raise GradcheckError(f"check_backward\n{self}")
        return self


# -- the check ----------------------------------------------------------------------------------------------------------------


def check_backward(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *inputs: Any,
    step: Callable[..., Any] | None = None,
    points: int = 3,
    rtol: float = 1e-6,
    seed: int = 0,
) -> BackwardReport:
    """Compare a hand-written backward function with the derivatives of its forward function, and say what is wrong.

    The forms that assignments use, and any other pair of this form:

        next_h, cache = rnn_step_forward(x, prev_h, Wx, Wh, b)
        dx, dprev_h, dWx, dWh, db = rnn_step_backward(dnext_h, cache)

        next_h, next_c, cache = lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b)
        dx, dprev_h, dprev_c, dWx, dWh, db = lstm_step_backward(dnext_h, dnext_c, cache)

        h, cache = rnn_forward(x, h0, Wx, Wh, b)                         # x (N, T, D) or (T, N, D), h0 (N, H)
        dx, dh0, dWx, dWh, db = rnn_backward(dh, cache)

    The expected gradients are those of the forward function itself, for random cotangents: by the complex step where it takes complex
    numbers, otherwise by central differences. Then each known mistake is tried, on the backward multiplications of the forward function:
    it is recorded as it is if it is written with NumPy's functions, or recognised by its values as the step of an RNN, LSTM or GRU
    (blocks in any order; weights lying either way; the GRU's reset gate after or before the product). A mistake is named only if with it,
    and nothing else, the gradients come out as yours, to 1e-8 at every point; if several do, the simplest is named.

    Known are: a missing factor or derivative (tanh′, σ′, of one function or of all of a kind), one taken at the wrong value, 1 − z for
    z, (1 − h)² for 1 − h², a transposed weight or product, the wrong array or the wrong cotangent in a product, a missing path, a wrong
    sign, gates in another order, a bias that is not summed (or averaged, or one row, or over the wrong axis), ``=`` for np.add.at where
    an entry is picked twice, a missing or wrong constant (the batch's mean), a division or product by a value of the forward pass,
    gradients returned in another order, ones that are never computed; over time: a missing dnext_h, ``=`` for ``+=``, a time index that
    is off by one or runs the other way in the output's cotangent, the cache or dx, one off by one in one product, a loop that runs
    forward or leaves out a step; and two of these at once.

    Args:
        forward: ``forward(*inputs)`` gives its results and, last, a cache; or one array without a cache.
        backward: ``backward(*cotangents, cache)`` gives one gradient per input that is an array of floating-point numbers, in the order of
            ``forward``'s; without a cache it is ``backward(cotangent, *inputs)``.
        inputs: where to begin; the other points have the same shapes and random numbers of the same size (positive ones stay positive).
            Whole numbers (targets, lengths) are the same at all points and have no gradient.
        step: for a form over time whose step is not one of the known ones, your own ``step_forward``; it returns the next state (or
            several parts of it) and, if you like, a cache.
        points: at how many points to compare; at least 2.
        rtol: the relative tolerance.
        seed: of the random points and cotangents.

    Returns:
        A :class:`BackwardReport`: ``print`` it; in a test, call its ``check()``.

    Raises:
        ArgumentError: if the functions do not have this form. What your own functions raise comes through as it is.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import testing
        >>> def rnn_step_forward(x, prev_h, Wx, Wh, b):
        ...     next_h = np.tanh(x @ Wx + prev_h @ Wh + b)
        ...     return next_h, (x, prev_h, Wx, Wh, next_h)
        >>> def rnn_step_backward(dnext_h, cache):
        ...     x, prev_h, Wx, Wh, next_h = cache
        ...     da = dnext_h * (1 - next_h**2)
        ...     return da @ Wx.T, da @ Wh, x.T @ da, prev_h.T @ da, da.sum(axis=0)     # da @ Wh must be da @ Wh.T
        >>> rng = np.random.default_rng(0)
        >>> x, prev_h, Wx, Wh, b = (rng.normal(size=s) for s in ((2, 3), (2, 4), (3, 4), (4, 4), (4,)))
        >>> report = testing.check_backward(rnn_step_forward, rnn_step_backward, x, prev_h, Wx, Wh, b)
        >>> report.ok, report.forward
        (False, 'an RNN step with tanh')
        >>> report.fault
        'the weight is transposed: @ Wh where @ Wh.T belongs, from prev_h @ Wh to prev_h'
    """
    if points < 2:
        raise ArgumentError(f"check_backward: expected at least 2 points, got {points}; at one, many mistakes give the same numbers")
    for what, function in (("forward", forward), ("backward", backward)):
        if not callable(function):
            raise ArgumentError(
                f"check_backward: expected two functions, {what} is {type(function).__name__}. Give forward, backward, then inputs"
            )
    pair = _Pair(forward, backward, inputs)
    rng = np.random.default_rng(seed)
    seen = [pair.at(pair.arrays if k == 0 else pair.elsewhere(rng), rng, rtol) for k in range(points)]
    model, unrecorded = _recognise(pair, seen, step)
    diagnosis = _Diagnosis(pair, seen, rtol, model)
    explained, fault = diagnosis.run()
    gradients = tuple(_checked(pair, seen, k, rtol, explained.get(k, "")) for k in range(len(pair.varied)))
    return BackwardReport(
        function=getattr(backward, "__name__", "backward"),
        gradients=gradients,
        fault=fault,
        forward=model.title if model is not None else "",
        oracle="complex step" if all(point.exact for point in seen) else "central differences",
        points=points,
        rtol=rtol,
        notes=tuple(dict.fromkeys([*(note for point in seen for note in point.notes), *_undecided(pair, seen)])),
        unrecorded=unrecorded,
    )


@dataclass(frozen=True)
class _Point:
    """What was given and what came, at one point."""

    arrays: list[Any]
    values: list[Any]
    cotangents: list[Any]
    expected: list[Any]
    doubt: list[Any]
    got: list[Any]
    exact: bool
    notes: list[str]


class _Pair:
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

    def at(self, arrays: list[Any], rng: np.random.Generator, rtol: float) -> _Point:
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
        return _Point(arrays, [value.copy() for value in values], cotangents, expected, doubt, got, exact, notes)

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


def _wrong(point: _Point, k: int, rtol: float) -> Any:
    """Which entries are wrong; all of them if the shape is."""
    expected, got = point.expected[k], point.got[k]
    if got.shape != expected.shape:
        return np.ones(expected.shape, bool)
    size = np.max(np.abs(expected), initial=0.0)
    with np.errstate(invalid="ignore"):
        return ~(np.abs(got - expected) <= rtol * np.abs(expected) + 1e-3 * rtol * size + point.doubt[k] + 1e-15 * _scale(point))


def _undecided(pair: _Pair, seen: list[_Point]) -> Iterator[str]:
    """What was checked at no point is not called right."""
    for k, name in enumerate(pair.gradient_names):
        never = np.all([np.isinf(point.doubt[k]) for point in seen], axis=0)
        if never.any():
            entries = f"{int(never.sum())} of its {never.size} entries"
            yield f"{name} could not be checked in {entries}: begin away from the kinks and poles of the forward function."


def _scale(point: _Point) -> float:
    return max((float(np.max(np.abs(expected), initial=0.0)) for expected in point.expected), default=0.0)


def _agree(one: Any, other: Any) -> bool:
    """To 1e-8 of the largest entry."""
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or not np.isfinite(one).all() or not np.isfinite(other).all():
        return False
    size = max(np.max(np.abs(one), initial=0.0), np.max(np.abs(other), initial=0.0))
    return bool(np.all(np.abs(one - other) <= _PROOF * size))


def _checked(pair: _Pair, seen: list[_Point], k: int, rtol: float, explanation: str) -> CheckedGradient:
    masks = [_wrong(point, k, rtol) for point in seen]
    name, shape = pair.gradient_names[k], pair.arrays[pair.varied[k]].shape
    fits = all(point.got[k].shape == shape for point in seen)
    right = fits and not any(mask.any() for mask in masks)
    entry, expected, got, error = None, math.nan, math.nan, math.nan
    if fits:
        sizes = [max(float(np.max(np.abs(point.expected[k]), initial=0.0)), 1e-300) for point in seen]
        offs = [np.abs(point.got[k] - point.expected[k]) for point in seen]
        error = max(float(np.max(off, initial=0.0)) / size for off, size in zip(offs, sizes, strict=True))
    if fits and not right:
        first = next(place for place, mask in enumerate(masks) if mask.any())
        off = np.where(np.isnan(offs[first]), np.inf, offs[first])
        entry = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), shape))
        expected, got = float(seen[first].expected[k][entry]), float(seen[first].got[k][entry])
    return CheckedGradient(name, right, error, seen[0].got[k].shape, shape, entry, expected, got, "" if right else explanation)


# -- what the forward function is -----------------------------------------------------------------------------------------------

Model = StepModel | SequenceModel


def _recognise(pair: _Pair, seen: list[_Point], step: Callable[..., Any] | None) -> tuple[Model | None, str]:
    """The first model that gives the forward function's values and derivatives at every point; or why its record does not."""
    why = ""
    for build in _models(pair, seen, step):
        try:
            with np.errstate(all="ignore"):
                model = build()
                if all(_is(model, point, k) for k, point in enumerate(seen)):
                    return model, ""
            why = "its record gives other numbers"
        except Exception as error:  # this is not what the function is
            text = re.split(r"\n|\. ", str(error))[0]
            why = f"{type(error).__name__}: {text}"
    return None, why


def _is(model: Model, point: _Point, k: int) -> bool:
    values = model.values(k)
    if len(values) != len(point.values) or not all(_agree(a, b) for a, b in zip(values, point.values, strict=True)):
        return False
    found = model.gradients(k, point.cotangents)
    bounds = [1e-5 * np.max(np.abs(e), initial=0.0) + d + 1e-12 * _scale(point) for e, d in zip(point.expected, point.doubt, strict=True)]
    return all(bool(np.all(np.abs(g - e) <= b)) for g, e, b in zip(found, point.expected, bounds, strict=True))


def _models(pair: _Pair, seen: list[_Point], step: Callable[..., Any] | None) -> Iterable[Callable[[], Model]]:
    shapes = [array.shape for array in pair.arrays]
    points = [[point.arrays[k] for k in pair.varied] for point in seen]
    names = [pair.names[k] for k in pair.varied]
    whole = len(pair.varied) == len(pair.arrays)
    outputs = [value.shape for value in seen[0].values]
    over_time = len(shapes) > 1 and len(shapes[0]) == 3 and len(outputs) == 1 and len(outputs[0]) == 3 and len(shapes[1]) == 2
    if over_time and whole:
        for axis in (1, 0):
            if shapes[0][1 - axis] != shapes[1][0] or outputs[0][axis] != shapes[0][axis]:
                continue
            one_step = (shapes[0][0], shapes[0][2]) if axis == 1 else shapes[0][1:]
            if step is not None:
                for given in (1, 2):
                    yield lambda axis=axis, given=given: _own_sequence(step, points, names, given, axis)  # type: ignore[misc]
            for given, parts in ((1, 1), (1, 2), (2, 2)):
                arguments = [one_step, *shapes[1 : 1 + given], *[shapes[1]] * (parts - given), *shapes[1 + given :]]
                for found in candidates(arguments, parts):
                    yield lambda axis=axis, given=given, found=found: SequenceModel(  # type: ignore[misc]
                        f"{found.title}, over time", found.step, points, names, parts=found.parts, given=given, axis=axis
                    )
    elif whole:
        for found in candidates(shapes, len(outputs)):
            yield lambda found=found: StepModel(found.title, found.step, points, names, _result_names(found, len(outputs)))  # type: ignore[misc]
    yield lambda: StepModel("your own program, recorded", _recorded(pair), points, names, [f"result {k}" for k in range(len(outputs))])


def _result_names(found: Reference, count: int) -> list[str]:
    return ["next_h", "next_c"][:count]


def _recorded(pair: _Pair) -> Callable[..., Any]:
    """The learner's forward function on Tensors, without its cache."""

    def run(*tensors: Any) -> Any:
        left = iter(tensors)
        out = pair.forward(*(next(left) if k in pair.varied else array for k, array in enumerate(pair.arrays)))
        return out[:-1] if isinstance(out, tuple) else out

    return run


def _own_sequence(step: Callable[..., Any], points: list[list[Any]], names: list[str], given: int, axis: int) -> SequenceModel:
    """The learner's own step over time."""
    count: list[int] = []

    def run(*tensors: Any) -> Any:
        out = step(*tensors)
        parts = list(out) if isinstance(out, tuple) else [out]
        shape = tensors[1].shape
        states = list(itertools.takewhile(lambda part: getattr(part, "shape", None) == shape, parts))[:given]
        count.append(len(states))
        return tuple(states)

    return SequenceModel("your step, over time", run, points, names, parts=given, given=given, axis=axis)


# -- what is wrong --------------------------------------------------------------------------------------------------------------


class _Diagnosis:
    """Which hypotheses the numbers prove."""

    def __init__(self, pair: _Pair, seen: list[_Point], rtol: float, model: Model | None) -> None:
        self.pair, self.seen, self.model = pair, seen, model
        self.names = pair.gradient_names
        self.got = [list(point.got) for point in seen]
        self.explained: dict[int, str] = {}
        self.wrong = [k for k in range(len(self.names)) if any(_wrong(point, k, rtol).any() for point in seen)]
        self.rtol = rtol
        self.first: dict[int, str] = {}
        self._matched: dict[int, tuple[list[int], Fault]] = {}

    def run(self) -> tuple[dict[int, str], str]:
        """The explanation per gradient, and the one that explains all (or "")."""
        explained, fault = self._explain()
        explained = {k: f"{self.first[k]}; and {text}" if k in self.first else text for k, text in explained.items()}
        if len(self.wrong) == 1:
            fault = explained.get(self.wrong[0], "")
        return explained, "" if self.first and len(self.wrong) > 1 else fault

    def _explain(self) -> tuple[dict[int, str], str]:
        if not self.wrong:
            return {}, ""
        self._shapes()
        open_ones = [k for k in self.wrong if k not in self.explained]
        if not open_ones:
            return self.explained, ""
        common = self._common_factor(open_ones)
        if common:
            self.explained.update(dict.fromkeys(open_ones, common))
            return self.explained, common
        if all(self._is_zero(k) for k in open_ones):
            self.explained.update((k, self._by_itself(k)) for k in open_ones)
            return self.explained, ""
        others = {k: self._other_gradient(k) for k in open_ones}
        if sorted(open_ones) == sorted(others.values(), key=str):  # each is another one of them
            self.explained.update((k, self._by_itself(k)) for k in open_ones)
            return self.explained, ""
        faults = self.model.faults() if self.model is not None else []
        whole = self._first(faults, open_ones)
        if whole is not None:
            self.explained.update(dict.fromkeys(open_ones, whole.text))
            return self.explained, whole.text if len(open_ones) == len(self.wrong) else ""
        for k in open_ones:
            text = self._by_itself(k)
            if text:
                self.explained[k] = text
        named = self._cover(faults, [k for k in open_ones if k not in self.explained])
        left = [k for k in open_ones if k not in self.explained]
        if left:
            simple = sorted(self._distinct(fault for fault in faults if fault.simple), key=lambda fault: fault.drops)[:_PAIRS]
            pairs = [a.with_another(b) for a in named for b in faults if not a.excludes(b)]  # what is known to be wrong, and one more
            pairs += [a.with_another(b) for a, b in itertools.combinations(simple, 2) if not a.excludes(b)]
            both = self._first(pairs, open_ones)
            if both is not None:
                self.explained.update(dict.fromkeys(open_ones, both.text))
                return self.explained, both.text if len(open_ones) == len(self.wrong) else ""
            self._cover(pairs, left)
        return self.explained, ""

    # -- of the shape ---------------------------------------------------------------------------------------------------------

    def _shapes(self) -> None:
        """A gradient of another shape: what makes it fit, and whether it is right then."""
        for k in self.wrong:
            shape = self.seen[0].expected[k].shape
            if self.got[0][k].shape == shape:
                continue
            ways = [(text, [made(got[k]) for got in self.got]) for text, made in _reshaped(self.got[0][k].shape, shape)]
            for text, fitted in ways:
                if all(_near(point, k, array, self.rtol) for point, array in zip(self.seen, fitted, strict=True)):
                    self.explained[k] = text
                    break
            else:
                for text, fitted in ways[:1]:  # what else is wrong with it can be seen once it fits
                    self.first[k] = text
                    for got, array in zip(self.got, fitted, strict=True):
                        got[k] = array

    # -- of single gradients --------------------------------------------------------------------------------------------------

    def _factor(self, k: int) -> float | None:
        """The one number by which a gradient is off, at every point."""
        found = []
        for point, got in zip(self.seen, self.got, strict=True):
            expected = point.expected[k]
            if got[k].shape != expected.shape or not expected.any() or not np.isfinite(got[k]).all():
                return None
            c = float(np.vdot(got[k], expected) / np.vdot(expected, expected))
            if c == 0.0 or not _agree(got[k], c * expected):
                return None
            found.append(c)
        return found[0] if np.allclose(found, found[0], rtol=1e-7, atol=0.0) else None

    def _common_factor(self, wrong: list[int]) -> str:
        factors = [self._factor(k) for k in wrong]
        if len(wrong) < 2 or len(wrong) < len(self.names) or any(c is None for c in factors):
            return ""
        first = factors[0]
        assert first is not None
        same = all(c is not None and math.isclose(c, first, rel_tol=1e-7) for c in factors)
        return f"every gradient is {self._times(first)}" if same else ""

    def _times(self, c: float) -> str:
        if math.isclose(c, -1.0, rel_tol=1e-7):
            return "the negative of the right one: a sign is wrong"
        for name, array in zip(self.pair.names, self.pair.arrays, strict=True):
            for axis, n in enumerate(array.shape):
                if n > 1 and math.isclose(c, 1.0 / n, rel_tol=1e-7):
                    return f"1/{n} of the right one, and {n} is the length of axis {axis} of {name}: as if a mean stood where a sum belongs"
                if n > 1 and math.isclose(c, n, rel_tol=1e-7):
                    return f"{n} times the right one, and {n} is the length of axis {axis} of {name}: as if a division by it were missing"
        return f"{c:.6g} times the right one"

    def _times_an_array(self, k: int) -> str:
        """The right one, multiplied or divided by a value of the forward pass."""
        if not isinstance(self.model, StepModel):
            return ""
        expected, mine = [point.expected[k] for point in self.seen], [got[k] for got in self.got]
        with np.errstate(all="ignore"):
            for node, name in enumerate(self.model.tapes[0].names):
                values = [tape.values[node] for tape in self.model.tapes]
                if _fits_into(np.shape(values[0]), expected[0].shape):
                    if self._all(mine, [e * v for e, v in zip(expected, values, strict=True)]):
                        return f"the right one times {name}: a division by it is missing, or a product too much"
                    if self._all(mine, [e / v for e, v in zip(expected, values, strict=True)]):
                        return f"the right one divided by {name}: a product with it is missing, or a division too much"
        return ""

    def _is_zero(self, k: int) -> bool:
        return all(not np.any(got[k]) for got in self.got)

    def _by_itself(self, k: int) -> str:
        name, same = self.names[k], [point.expected[k] for point in self.seen]
        mine = [got[k] for got in self.got]
        if self._is_zero(k):
            return f"{name} is zero everywhere: it is never computed, or its share is not added"
        c = self._factor(k)
        if c is not None:
            return f"{name} is {self._times(c)}"
        arriving = [point.cotangents[0] for point in self.seen]
        of_a_loss = len(self.seen[0].cotangents) == 1 and np.ndim(arriving[0]) == 0
        if of_a_loss and self._all(mine, [e / g for e, g in zip(same, arriving, strict=True)]):
            return "the cotangent that comes in is not used: it must multiply the result, even if it is 1 for a loss"
        text = self._times_an_array(k)
        if text:
            return f"{name} is {text}"
        if same[0].ndim == 2 and same[0].shape[0] == same[0].shape[1] and self._all(mine, [e.T for e in same]):
            return f"{name} is the transpose of the right one"
        other = self._other_gradient(k)
        return "" if other is None else f"it is {self.names[other]}: the gradients are returned in another order"

    def _other_gradient(self, k: int) -> int | None:
        """The number of the gradient that this one is."""
        mine = [got[k] for got in self.got]
        others = (j for j in range(len(self.names)) if j != k and self._all(mine, [point.expected[j] for point in self.seen]))
        return next(others, None)

    @staticmethod
    def _all(ones: Sequence[Any], others: Sequence[Any]) -> bool:
        return all(_agree(a, b) for a, b in zip(ones, others, strict=True))

    # -- of the whole ---------------------------------------------------------------------------------------------------------

    def _matching(self, fault: Fault, point: int) -> list[int]:
        """Which of the gradients this fault makes what they are."""
        assert self.model is not None
        try:
            with np.errstate(all="ignore"):
                found = self.model.gradients(point, self.seen[point].cotangents, fault)
        except (ValueError, IndexError, TypeError):  # shapes that do not fit: whoever makes this mistake sees it
            return []
        return [k for k, mine in enumerate(self.got[point]) if _agree(found[k], mine)]

    def _proven(self, fault: Fault, wanted: Sequence[int]) -> list[int]:
        """Those for which it holds at every point; the last, a random one, decides most."""
        last = len(self.seen) - 1
        if id(fault) not in self._matched:
            self._matched[id(fault)] = self._matching(fault, last), fault
        left = [k for k in wanted if k in self._matched[id(fault)][0]]
        for point in reversed(range(last)):
            if not left:
                break
            now = self._matching(fault, point)
            left = [k for k in left if k in now]
        return left

    def _first(self, faults: Iterable[Fault], wrong: list[int]) -> Fault | None:
        """The first fault that makes all gradients what they are: the wrong ones wrong in this way, and the right ones right."""
        open_ones = [k for k in range(len(self.names)) if k in wrong or k not in self.wrong]
        for fault in faults:
            if len(self._proven(fault, open_ones)) == len(open_ones):
                return fault
        return None

    def _cover(self, faults: Sequence[Fault], wrong: list[int]) -> list[Fault]:
        """Of the rest, each by the fault that explains most of them; these faults."""
        taken: list[Fault] = []
        if not wrong:
            return taken
        found: list[tuple[Fault, list[int]]] = []
        for fault in faults:
            covered = self._proven(fault, wrong)
            if covered:
                found.append((fault, covered))
            if len(covered) == len(wrong):  # none explains more, and the simplest come first
                break
        while wrong and found:
            fault, covered = max(found, key=lambda pair: len([k for k in pair[1] if k in wrong]))
            now = [k for k in covered if k in wrong]
            if not now:
                break
            taken.append(fault)
            self.explained.update(dict.fromkeys(now, fault.text))
            wrong = [k for k in wrong if k not in now]
        return taken

    def _distinct(self, faults: Iterable[Fault]) -> list[Fault]:
        """The first of those that give the same gradients at the last point."""
        last = len(self.seen) - 1
        found: dict[bytes, Fault] = {}
        for fault in faults:
            assert self.model is not None
            try:
                with np.errstate(all="ignore"):
                    made = self.model.gradients(last, self.seen[last].cotangents, fault)
            except (ValueError, IndexError, TypeError):
                continue
            found.setdefault(b"".join(np.round(gradient, 9).tobytes() for gradient in made), fault)
        return list(found.values())


def _fits_into(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether an array of the one shape broadcasts to the other."""
    return len(small) <= len(large) and all(a in (1, b) for a, b in zip(small[::-1], large[::-1], strict=False))


def _near(point: _Point, k: int, array: Any, rtol: float) -> bool:
    expected = point.expected[k]
    size = np.max(np.abs(expected), initial=0.0)
    return array.shape == expected.shape and bool(np.all(np.abs(array - expected) <= rtol * size + point.doubt[k]))


def _reshaped(got: tuple[int, ...], expected: tuple[int, ...]) -> list[tuple[str, Callable[[Any], Any]]]:
    """What may have been forgotten with a shape."""
    found: list[tuple[str, Callable[[Any], Any]]] = []
    for axes in itertools.combinations(range(len(got)), max(len(got) - len(expected), 0)):
        if axes and tuple(n for axis, n in enumerate(got) if axis not in axes) == expected:
            where = axes[0] if len(axes) == 1 else axes
            found.append((f"it is not summed over axis {where}, along which it was broadcast", partial(np.sum, axis=axes)))
    if len(got) == len(expected):
        wide = tuple(axis for axis, (a, b) in enumerate(zip(got, expected, strict=True)) if b == 1 and a > 1)
        if wide:
            where = wide[0] if len(wide) == 1 else wide
            found.append((f"it is not summed over axis {where}, along which it was broadcast", lambda g: g.sum(axis=wide, keepdims=True)))
    if got[::-1] == expected:
        found.append(("it is the transpose of the right one", lambda g: g.T))
    if math.prod(got) == math.prod(expected):
        found.append(("its numbers are right, and only its shape is not", lambda g: g.reshape(expected)))
    return found
