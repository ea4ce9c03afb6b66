"""What a learner's backward function should compute, and would compute with a given mistake: for one step, and for a loop over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .faults import Fault, in_time, of_step
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
        tapes, loop = self.tapes[point], fault.loop
        arriving = np.moveaxis(cotangents[0], self.axis, 0)
        last = len(tapes) - 1
        on_x = [np.zeros_like(tape.values[tape.leaves[0]]) for tape in tapes]
        handed: list[Any] = [None] * self.parts
        shares: list[Any] = []
        initial: list[Any] = []
        for t in range(last + 1) if loop == "forward" else range(last, -1, -1):
            if (loop == "not first" and t == 0) or (loop == "not last" and t == last):
                continue
            total = [self._arrived(loop, arriving, handed[0], t, last), *handed[1:]]
            if loop.startswith("no part"):
                k = int(loop[-1])
                total[k] = arriving[t] if k == 0 else None
            given = [None if k in fault.unused else part for k, part in enumerate(total)]
            shift = {"cache before": -1, "cache after": 1}.get(loop, 0)
            tape = tapes[min(t + shift, last)]
            altered = dict(fault.altered)
            for k, step in fault.neighbour.items():
                altered[k] = _of(tapes[min(t + step, last)], k)
            dx, *rest = tape.pull(given, altered)
            now = [np.zeros_like(part) if part is None else part for part in rest[: self.parts]]
            place = t + {"x before": -1, "x after": 1}.get(loop, 0)
            on_x[place if place <= last else 0] = dx
            if loop == "initial total":
                initial = [np.zeros_like(now[0]) if part is None else part for part in total]
            elif loop == "initial output":
                initial = [arriving[t], *now[1:]]
            else:
                initial = now
            handed = [a if b is None else a + b for a, b in zip(now, handed, strict=True)] if loop == "accumulated" else now
            own = rest[self.parts :]
            if loop == "last share" or not shares:
                shares = own
            elif loop != "first share":
                shares = [a + b for a, b in zip(shares, own, strict=True)]
        first = handed if loop == "accumulated" else initial
        if not shares:
            tape = tapes[0]
            shares = [np.zeros_like(tape.values[leaf]) for leaf in tape.leaves[1 + self.parts :]]
            first = [np.zeros_like(arriving[0])] * self.parts
        return [np.moveaxis(np.stack(on_x), 0, self.axis), *first[: self.given], *shares]

    def _arrived(self, loop: str, arriving: Any, handed: Any, t: int, last: int) -> Any:
        """The cotangent of the output's part of the state at step t."""
        if loop == "no dnext":
            return arriving[t]
        if loop == "only dnext" and t < last:
            return handed
        shift = {"output before": -1, "output after": 1}.get(loop, 0)
        own = arriving[t + shift] if t + shift <= last else np.zeros_like(arriving[t])
        return own if handed is None else own + handed


def _of(neighbour: Tape, number: int) -> Alteration:
    def other(edge: Edge, g: Any, tape: Tape) -> Any:
        return neighbour.edges[number].map.pullback(g)

    return other
