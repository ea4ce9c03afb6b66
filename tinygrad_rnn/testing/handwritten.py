"""check_backward: where did my hand derivation go wrong?

A learner's own forward and backward functions in NumPy are compared with the derivatives of that same forward function. Where a gradient
is wrong, each mistake that people make is tried as a hypothesis: what would the gradients be with this one mistake? It is named only if
the learner's numbers are those numbers, at several random points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Table, aligned, number
from .diagnosis import Diagnosis
from .learners import Pair, Point, undecided, wrong_entries
from .models import recognise
from .reproduction import GradcheckError

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
    numbers, otherwise by central differences; on a kink, where more than one slope is right, another point decides. Then each known
    mistake is tried, on the backward multiplications of the forward function: it is recorded as it is if it is written with NumPy's
    functions, a loop over time and its loss included, or recognised by its values as the step of an RNN, LSTM or GRU (blocks in any order;
    weights lying either way; the GRU's reset gate after or before the product). A mistake is named only if with it, and nothing else, the
    gradients come out as yours, to 1e-8 at every point; if several do, the simplest is named.

    Known are: a missing factor or derivative (tanh′, σ′, of one function or of all of a kind), one taken at the wrong value, 1 − z for z,
    (1 − h)² for 1 − h², a transposed weight or product, the wrong array or the wrong cotangent in a product, a missing path, a wrong sign,
    gates in another order, a bias that is not summed (or averaged, or one row, or over the wrong axis), ``=`` for np.add.at where an entry
    is picked twice, a missing or wrong constant (a mean for a sum), a division or product by a value of the forward pass, gradients
    returned in another order, ones that are never computed; each of these in every pass of a loop; over time: a missing dnext_h, ``=`` for
    ``+=``, a time index that is off by one or runs the other way in the output's cotangent, the cache or dx, one off by one in one product,
    a loop that runs forward or leaves out a step; and two of these at once.

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
        ArgumentError: if the functions do not have this form, or the forward function gives NaN, or another value when it is called again.
            What your own functions raise comes through, with a note of how they were called.

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
    pair = Pair(forward, backward, inputs)
    rng = np.random.default_rng(seed)
    seen = [pair.at(pair.arrays if k == 0 else pair.elsewhere(rng), rng, rtol) for k in range(points)]
    model, unrecorded = recognise(pair, seen, step)
    diagnosis = Diagnosis(pair, seen, rtol, model)
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
        notes=tuple(dict.fromkeys([*(note for point in seen for note in point.notes), *undecided(pair, seen)])),
        unrecorded=unrecorded,
    )


def _checked(pair: Pair, seen: list[Point], k: int, rtol: float, explanation: str) -> CheckedGradient:
    masks = [wrong_entries(point, k, rtol) for point in seen]
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
