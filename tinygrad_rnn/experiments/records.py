"""Records: what a row came to, with its settings, time and versions, as a file of JSON that can be read back."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StorageError
from ..render.charts import Chart
from ..report import Table, aligned, plain
from .measurement import VERDICTS, Claim, Row, together
from .sweeps import seconds_on_file

FORMAT = "tinygrad_rnn row 1"
FAILED = "failed"


@dataclass(frozen=True)
class Record:
    """A row as it was measured once.

    Attributes:
        row, title: its number, and what it is about in a line.
        full: whether with its full settings; ``settings``: all arguments, the seed among them.
        seconds: how long it took; cells of a sweep that were on file already count with what they took in their worker. ``date``: when
            it began, in UTC.
        versions: of Python, NumPy and this package.
        machine: what kind of machine it was: system, processor family and number of processors. No names.
        claims, table, charts: what was published beside what was measured, the numbers, and the pictures as data.
        result: every field of the result, in types that JSON knows.
        error: why there is no result, or nothing.
    """

    row: int
    title: str
    full: bool
    settings: dict[str, Any]
    seconds: float
    date: str
    versions: dict[str, str]
    machine: dict[str, Any]
    claims: tuple[Claim, ...] = ()
    table: Table | None = None
    charts: tuple[Chart, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def _is_sound(self) -> bool:
        """Whether every field is of its kind, in a record that was read from a file."""
        kinds: dict[str, Any] = {
            "row": int,
            "title": str,
            "full": bool,
            "settings": dict,
            "seconds": float | int,
            "date": str,
            "versions": dict,
        }
        kinds |= {"machine": dict, "result": dict, "error": str}
        texts = [text for claim in self.claims for text in vars(claim).values()]
        if self.table is not None:
            texts += [self.table.title, self.table.caption, *self.table.columns]
        return (
            all(isinstance(getattr(self, name), kind) for name, kind in kinds.items())
            and all(isinstance(text, str) for text in texts)
            and all(claim.verdict in VERDICTS for claim in self.claims)
        )

    @property
    def verdict(self) -> str:
        """Of all claims together, or that the row failed."""
        return FAILED if self.error else together([claim.verdict for claim in self.claims])

    @property
    def is_current(self) -> bool:
        """Whether this version of the package made it."""
        return self.versions == _versions()

    @property
    def counts(self) -> str:
        """How many claims have which verdict: "3 × agrees, 1 × differs"."""
        if self.error:
            return FAILED
        found = Counter(claim.verdict for claim in self.claims)
        return ", ".join(f"{found[verdict]} × {verdict}" for verdict in VERDICTS if found[verdict])

    def shown(self) -> Table:
        """The claims, as a table for a terminal."""
        rows = [(claim.what, claim.published, claim.measured, claim.verdict) for claim in self.claims]
        title = f"{self.row}  {self.title}: {self.counts} ({'full' if self.full else 'quick'}, {self.seconds:.1f} s)"
        return aligned(("claim", "published", "measured", "verdict"), rows, title, self.error)

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps({"format": FORMAT, **plain(self)}, ensure_ascii=False, allow_nan=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Record:
        """The record that :meth:`to_json` wrote; ``source`` is what an error calls it.

        Raises:
            StorageError: if the text is something else.
        """
        try:
            held = json.loads(text)
            if held.pop("format") != FORMAT:
                raise ValueError
            table = held.pop("table")
            record = cls(
                claims=tuple(Claim(**claim) for claim in held.pop("claims")),
                charts=tuple(Chart.from_dict(chart) for chart in held.pop("charts")),
                table=None if table is None else aligned(**table),
                **held,
            )
            if not record._is_sound():
                raise ValueError
            return record
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise StorageError(f"record: {source} does not hold a row that was measured; expected a file that `reproduce` wrote") from None


def measured(row: Row, *, full: bool = False, path: Path | None = None) -> Record:
    """Run a row and record it. Whatever it raises, but for an interruption, is recorded as its error.

    Args:
        row: what to run.
        full: whether with its full settings.
        path: where a row that is a sweep keeps its finished cells.
    """
    start, began = time.perf_counter(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    settings: dict[str, Any] = {"path": path} if path is not None and row.sweeps else {}
    found, error, earlier = None, "", 0.0
    try:
        earlier = seconds_on_file(path) if settings and path is not None else 0.0
        found = row(full=full, **settings)
        parts: dict[str, Any] = {"claims": found.claims(), "table": found.table(), "charts": found.charts(), "result": found.to_dict()}
    except Exception as raised:
        parts, error = {}, f"{type(raised).__name__}: {raised}"
    given = plain(dict(found.settings if found is not None and not error else row.full if full else {}))
    parts.get("result", {}).pop("settings", None)
    seconds = earlier + time.perf_counter() - start
    return Record(row.number, row.claim, full, given, seconds, began, _versions(), _machine(), error=error, **parts)


def read(path: str | os.PathLike[str]) -> Record:
    """The record in a file.

    Raises:
        StorageError: if it cannot be read, or is something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise StorageError(f"record: {str(path)!r} cannot be read: {reason}") from None
    return Record.from_json(text, repr(str(path)))


def read_all(places: Iterable[str | os.PathLike[str]]) -> dict[int, Record]:
    """The records in files and folders (there: ``row-*.json``), by row; of two of one row a full one counts, then the later one.

    Raises:
        StorageError: if a file is something else, or a folder has none.
    """
    found: dict[int, Record] = {}
    for place in map(Path, places):
        files = sorted(place.glob("row-*.json")) if place.is_dir() else [place]
        if not files:
            raise StorageError(f"record: the folder {str(place)!r} holds no row-*.json; name files or folders that `reproduce` wrote")
        for record in map(read, files):
            known = found.get(record.row)
            if known is None or (record.full, record.date) >= (known.full, known.date):
                found[record.row] = record
    return found


def _versions() -> dict[str, str]:
    package = __name__.partition(".")[0]
    return {package: sys.modules[package].__version__, "numpy": np.__version__, "python": platform.python_version()}


def _machine() -> dict[str, Any]:
    return {"system": platform.system(), "processor": platform.machine(), "processors": os.cpu_count()}
