"""What a learner's backward function should compute, and would compute with a given mistake: for one step, and for a loop over time.

Which of these models a forward function is, its values and derivatives say.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .faults import Fault, in_time, of_step
from .learners import Pair, Point, agree, scale_of
from .references import Reference, candidates
from .tape import Alteration, Edge, Tape


class StepModel:
    """A function that is recorded as it is: the gradients at each point, with any fault."""

    def __init__(
        self, title: str, function: Callable[..., Any], points: list[list[Any]], names: Sequence[str], results: Sequence[str]
    ) -> None:
        self.title = title
        self.tapes = [Tape(function, point, names, results) for point in points]
        if len({tape.form for tape in self.tapes}) != 1:
            raise TypeError("the program is another one at another point")
        self.results = list(results)

    def values(self, point: int) -> list[Any]:
        """The function's results."""
        return [part.value for part in self.tapes[point].results]

    def gradients(self, point: int, cotangents: Sequence[Any], fault: Fault | None = None) -> list[Any]:
        """The gradients, with a fault."""
        fault = fault or Fault("")
        given = [None if k in fault.unused else cotangent for k, cotangent in enumerate(cotangents)]
        return self.tapes[point].pull(given, fault.altered)

    def faults(self) -> list[Fault]:
        """What could be wrong."""
        return of_step(self.tapes[0], self.results)


class SequenceModel:
    """A step that is run over a sequence: x (N, T, D), or (T, N, D), states and weights; the outputs are the first part of every state.

    ``missing`` says how many parts of the first state are no argument, but zeros.
    """

    def __init__(
        self, title: str, step: Callable[..., Any], points: list[list[Any]], names: Sequence[str], *, parts: int, given: int, axis: int
    ) -> None:
        self.title, self.axis, self.parts, self.given = title, axis, parts, given
        self.part_names = ["next_h", "next_c"][:parts]
        self.tapes: list[list[Tape]] = []
        self.outputs: list[Any] = []
        for arrays in points:
            x = np.moveaxis(arrays[0], axis, 0)
            state = list(arrays[1 : 1 + given])
            state += [np.zeros_like(state[0]) for _ in range(parts - given)]
            weights = arrays[1 + given :]
            called = ["x", *["prev_h", "prev_c"][:parts], *names[1 + given :]]
            run, outputs = [], []
            for now in x:
                tape = Tape(step, [now, *state, *weights], called, self.part_names)
                run.append(tape)
                state = [part.value for part in tape.results[:parts]]
                outputs.append(state[0])
            self.tapes.append(run)
            self.outputs.append(np.moveaxis(np.stack(outputs), 0, axis))

    def values(self, point: int) -> list[Any]:
        """The outputs of all steps."""
        return [self.outputs[point]]

    def faults(self) -> list[Fault]:
        """What could be wrong, in the loop and in its step."""
        tape = self.tapes[0][-1]
        return [*in_time(tape, self.part_names), *of_step(tape, self.part_names)]

    def gradients(self, point: int, cotangents: Sequence[Any], fault: Fault | None = None) -> list[Any]:
        """Backpropagation through time, with a fault in the step or in the loop."""
        fault = fault or Fault("")
        tapes, loops = self.tapes[point], fault.loops
        arriving = np.moveaxis(cotangents[0], self.axis, 0)
        last = len(tapes) - 1
        on_x = [np.zeros_like(tape.values[tape.leaves[0]]) for tape in tapes]
        handed: list[Any] = [None] * self.parts
        shares: list[Any] = []
        initial: list[Any] = []
        for t in range(last + 1) if "forward" in loops else range(last, -1, -1):
            if ("not first" in loops and t == 0) or ("not last" in loops and t == last):
                continue
            total = [self._arrived(loops, arriving, handed[0], t, last), *handed[1:]]
            for k in range(self.parts):
                if f"part{k} none" in loops:
                    total[k] = arriving[t] if k == 0 else None
            given = [None if k in fault.unused else part for k, part in enumerate(total)]
            tape = tapes[_shifted(loops, "cache", t, last)]
            altered = dict(fault.altered)
            for k, step in fault.neighbour.items():
                altered[k] = _of(tapes[min(t + step, last)], k)
            dx, *rest = tape.pull(given, altered)
            now = [np.zeros_like(part) if part is None else part for part in rest[: self.parts]]
            on_x[_shifted(loops, "x", t, last, 0)] = dx
            if "initial total" in loops:
                initial = [np.zeros_like(now[0]) if part is None else part for part in total]
            elif "initial output" in loops:
                initial = [arriving[t], *now[1:]]
            else:
                initial = now
            handed = [a if b is None else a + b for a, b in zip(now, handed, strict=True)] if "accumulated" in loops else now
            own = rest[self.parts :]
            if "last share" in loops or not shares:
                shares = own
            elif "first share" not in loops:
                shares = [a + b for a, b in zip(shares, own, strict=True)]
        first = handed if "accumulated" in loops else initial
        if not shares:
            tape = tapes[0]
            shares = [np.zeros_like(tape.values[leaf]) for leaf in tape.leaves[1 + self.parts :]]
            first = [np.zeros_like(arriving[0])] * self.parts
        return [np.moveaxis(np.stack(on_x), 0, self.axis), *first[: self.given], *shares]

    def _arrived(self, loops: Sequence[str], arriving: Any, handed: Any, t: int, last: int) -> Any:
        """The cotangent of the output's part of the state at step t."""
        if "dnext none" in loops:
            handed = None
        if "dnext only" in loops and t < last:
            return handed
        if "output after" in loops and t == last:
            own = np.zeros_like(arriving[t])
        else:
            own = arriving[last if "output last" in loops else _shifted(loops, "output", t, last)]
        return own if handed is None else own + handed


def _shifted(loops: Sequence[str], what: str, t: int, last: int, beyond: int | None = None) -> int:
    """The step that is taken for step t; ``beyond`` is the one that is taken for the one after the last (by itself: the last)."""
    if f"{what} reversed" in loops:
        return last - t
    place = t - (f"{what} before" in loops) + (f"{what} after" in loops)
    return place if place <= last else last if beyond is None else beyond


def _of(neighbour: Tape, number: int) -> Alteration:
    def other(edge: Edge, g: Any, tape: Tape) -> Any:
        return neighbour.edges[number].map.pullback(g)

    return other


# -- what the forward function is -----------------------------------------------------------------------------------------------

Model = StepModel | SequenceModel


def recognise(pair: Pair, seen: list[Point], step: Callable[..., Any] | None) -> tuple[Model | None, str]:
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


def _is(model: Model, point: Point, k: int) -> bool:
    values = model.values(k)
    if len(values) != len(point.values) or not all(agree(a, b) for a, b in zip(values, point.values, strict=True)):
        return False
    found = model.gradients(k, point.cotangents)
    bounds = [1e-5 * np.max(np.abs(e), initial=0.0) + d + 1e-12 * scale_of(point) for e, d in zip(point.expected, point.doubt, strict=True)]
    return all(bool(np.all(np.abs(g - e) <= b)) for g, e, b in zip(found, point.expected, bounds, strict=True))


def _models(pair: Pair, seen: list[Point], step: Callable[..., Any] | None) -> Iterable[Callable[[], Model]]:
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


def _recorded(pair: Pair) -> Callable[..., Any]:
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
