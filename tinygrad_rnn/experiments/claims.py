"""What is published beside what was measured, and the verdict that follows from the numbers by a stated rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..report import Table, aligned

Verdict = Literal["agrees", "differs", "not reproduced"]


@dataclass(frozen=True)
class Claim:
    """One published claim and its measurement.

    Attributes:
        published: what the literature says; ``source`` where.
        measured: what came out here, with its numbers.
        verdict: "agrees", "differs" (the measurement contradicts it), or "not reproduced" (it neither shows nor contradicts it).
        rule: how the verdict follows from the numbers.
    """

    published: str
    measured: str
    verdict: Verdict
    rule: str
    source: str = ""


def decide(agrees: bool, differs: bool) -> Verdict:
    """A verdict from the two halves of its rule: whether the claim holds here, and whether it is contradicted.

    Example:
        >>> decide(False, False)
        'not reproduced'
    """
    return "agrees" if agrees else "differs" if differs else "not reproduced"


def overall(claims: Iterable[Claim]) -> Verdict:
    """The verdict on several claims: "differs" if one is contradicted, "agrees" if all hold, else "not reproduced"."""
    verdicts = {claim.verdict for claim in claims}
    return decide(verdicts == {"agrees"}, "differs" in verdicts)


def comparison(claims: Iterable[Claim], title: str = "measured beside published") -> Table:
    """One row per claim."""
    rows = [(claim.published, claim.measured, claim.verdict) for claim in claims]
    return aligned(("published", "measured", "verdict"), rows, title)
