"""What is wrong with a backward function: which hypotheses its numbers prove."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .faults import Fault
from .learners import Pair, Point, agree, near, wrong_entries
from .models import Model, StepModel

_PAIRS = 80
"""How many single mistakes are tried together with another one."""


class Diagnosis:
    """Which hypotheses the numbers prove."""

    def __init__(self, pair: Pair, seen: list[Point], rtol: float, model: Model | None) -> None:
        self.pair, self.seen, self.model = pair, seen, model
        self.names = pair.gradient_names
        self.got = [list(point.got) for point in seen]
        self.explained: dict[int, str] = {}
        self.wrong = [k for k in range(len(self.names)) if any(wrong_entries(point, k, rtol).any() for point in seen)]
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
        scaled = self._scaled_and(faults, open_ones)
        if scaled:
            self.explained.update(dict.fromkeys(open_ones, scaled))
            return self.explained, scaled
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
                if all(near(point, k, array, self.rtol) for point, array in zip(self.seen, fitted, strict=True)):
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
            if c == 0.0 or not agree(got[k], c * expected):
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

    def _scaled_and(self, faults: Sequence[Fault], wrong: list[int]) -> str:
        """One mistake beside a factor that all gradients have: those without the mistake show it alone."""
        factors = {round(c, 9): c for k in wrong if (c := self._factor(k)) is not None}
        if len(factors) != 1 or len(wrong) < len(self.names):
            return ""
        (c,) = factors.values()
        as_given, known, self._matched = self.got, self._matched, {}
        self.got = [[gradient / c for gradient in got] for got in as_given]
        fault = self._first(faults, wrong)
        self.got, self._matched = as_given, known
        return "" if fault is None else f"every gradient is {self._times(c)}; and {fault.text}"

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
        return all(agree(a, b) for a, b in zip(ones, others, strict=True))

    # -- of the whole ---------------------------------------------------------------------------------------------------------

    def _matching(self, fault: Fault, point: int) -> list[int]:
        """Which of the gradients this fault makes what they are."""
        assert self.model is not None
        try:
            with np.errstate(all="ignore"):
                found = self.model.gradients(point, self.seen[point].cotangents, fault)
        except (ValueError, IndexError, TypeError):  # shapes that do not fit: whoever makes this mistake sees it
            return []
        return [k for k, mine in enumerate(self.got[point]) if agree(found[k], mine)]

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
