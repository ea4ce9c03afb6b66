"""What every row of the curriculum has: settings, a result beside what was published, and a picture."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, ParamSpec, TypeVar

from ..render.charts import Chart, draw
from ..report import Result, number

Verdict = Literal["agrees", "differs", "not reproduced"]
VERDICTS: tuple[Verdict, ...] = ("agrees", "differs", "not reproduced")

P = ParamSpec("P")


@dataclass(frozen=True)
class Claim:
    """One published statement beside what was measured.

    Attributes:
        what: what it is about.
        published, measured: a number or a few words each.
        verdict: "agrees", or "differs", or "not reproduced" where the run cannot tell: it was too short, or nothing learned at all.
        rule: by which the verdict was found.
        source: who published it.
    """

    what: str
    published: str
    measured: str
    verdict: Verdict
    rule: str
    source: str = "lecture"


def close(what: str, published: float, measured: float, *, within: float = 0.01, source: str = "lecture") -> Claim:
    """A published number: it agrees if the measured one is within a relative distance of it."""
    agrees = abs(measured - published) <= within * abs(published)
    return Claim(what, number(published, 4), number(measured, 4), "agrees" if agrees else "differs", f"within {within:.0%}", source)


def holds(what: str, published: str, measured: Any, true: Any, rule: str, *, source: str = "lecture") -> Claim:
    """A published statement: it agrees if ``true``, differs if not, and None says that this run cannot tell."""
    verdict: Verdict = "not reproduced" if true is None else "agrees" if true else "differs"
    return Claim(what, published, measured if isinstance(measured, str) else number(measured), verdict, rule, source)


@dataclass(frozen=True, eq=False)
class Measurement(Result):
    """Base of what the experiments return.

    Attributes:
        settings: the arguments of the call, its seed among them.
    """

    settings: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def claims(self) -> tuple[Claim, ...]:
        """What was published, each beside what this run measured."""
        raise NotImplementedError

    def charts(self) -> tuple[Chart, ...]:
        """What there is to see."""
        raise NotImplementedError

    def plot(self, ax: Any = None) -> Any:
        """The charts in a Matplotlib figure, or the first of them in ``ax``; the figure is returned. Needs the extra "plot"."""
        return draw(self.charts(), ax)


def together(verdicts: Sequence[str]) -> Verdict:
    """Claims agree together if each does; one that differs is told before one that was not reproduced."""
    count = Counter(verdicts)
    return "differs" if count["differs"] else "not reproduced" if count["not reproduced"] or not verdicts else "agrees"


M = TypeVar("M", bound=Measurement)


PLACES = ("executor", "path", "workers", "shown")
"""Arguments that say where and how something runs, and nothing of what comes out: they are no part of a result's settings."""


def experiment(function: Callable[P, M]) -> Callable[P, M]:
    """Write a call's arguments into its result as ``settings``, defaults too: those that JSON can hold, without :data:`PLACES`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def measured(*arguments: P.args, **settings: P.kwargs) -> M:
        bound = signature.bind(*arguments, **settings)
        bound.apply_defaults()
        found = function(*arguments, **settings)
        data = {name: value for name, value in bound.arguments.items() if name not in PLACES and _is_data(value)}
        return replace(found, settings=data)

    return measured


def _is_data(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_data(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))


@dataclass(frozen=True)
class Row:
    """A row of the curriculum.

    Attributes:
        number: of the row.
        claim: what it says, in a line.
        function: what measures it; its defaults are the quick setting.
        full: what the full setting changes.
    """

    number: int
    claim: str
    function: Callable[..., Measurement]
    full: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sweeps(self) -> bool:
        """Whether it keeps finished cells in a file, so that an interrupted run resumes."""
        return "path" in inspect.signature(self.function).parameters

    def __call__(self, *, full: bool = False, **settings: Any) -> Measurement:
        """Run it, quick or full, with some settings changed."""
        return self.function(**({**self.full, **settings} if full else settings))
