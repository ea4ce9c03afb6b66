"""Tables and JSON: how results are printed, shown in a notebook, and written down."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Table:
    """Rows of text under headings. ``str(table)`` lays it out for a terminal; a notebook shows it as HTML."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __rich__(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
        for position, column in enumerate(self.columns):
            table.add_column(Text(column), justify="left" if position == 0 else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        parts: list[Any] = [Text(self.title, style="bold")] if self.title else []
        parts += [table] if self.rows else []
        return Group(*parts, *([Text(self.caption, style="italic")] if self.caption else []))

    @property
    def width(self) -> int:
        """How many columns of a terminal it needs."""
        return max(map(len, str(self).splitlines()), default=0)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=1000, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def _repr_html_(self) -> str:
        import html

        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)

        def shown(cell: str) -> str:
            text = html.escape(cell)
            return f'<td><pre style="text-align:left">{text}</pre></td>' if "\n" in cell else f"<td>{text}</td>"

        body = "".join(f"<tr>{''.join(map(shown, row))}</tr>" for row in self.rows)
        said = ". ".join(filter(None, (self.title, self.caption)))
        caption = f"<caption>{html.escape(said)}</caption>".replace("\n", "<br>")
        whole = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return whole.encode("utf-8", "replace").decode()


class Shown:
    """Base of what is printed as a table, shown in a notebook, and written as JSON."""

    def table(self) -> Table:
        """It as rows of text."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """It in types that JSON knows."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def to_json(self) -> str:
        """The same as JSON text; infinities are strings and NaN is null, since JSON has neither."""
        return as_json(self.to_dict())


class Result(Shown):
    """Base of the frozen dataclasses that the instruments return. Their arrays are read-only.

    Each is declared with ``eq=False``: results hold arrays, whose equality is no truth value, so a result is equal to itself only.
    """

    def __post_init__(self) -> None:
        for value in vars(self).values():
            read_only(value)

    def to_dict(self) -> dict[str, Any]:
        """Every field, arrays as nested lists, in types that JSON knows."""
        assert is_dataclass(self)
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


def read_only(value: Any) -> Any:
    """The same array, or the arrays of a tuple or dict, protected from being written to."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, (tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            read_only(part)
    return value


def as_json(value: Any) -> str:
    """JSON text of what :func:`plain` returns."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """A value in types that JSON knows."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table cell: short, with an exponent only where it is needed."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}g}"


def power_of_ten(log10: float | None) -> str:
    """10 to this power, written out, also where the number itself is too small or large for a float."""
    if log10 is None or math.isnan(log10):
        return "–"
    if math.isinf(log10):
        return "0" if log10 < 0 else "inf"
    if -3 <= log10 < 4:
        return number(10.0**log10)
    exponent = math.floor(log10)
    mantissa = 10.0 ** (log10 - exponent)
    if f"{mantissa:.2f}" == "10.00":
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.2f}e{exponent:+03d}"


def aligned(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", caption: str = "") -> Table:
    """A table of anything that has a text."""
    return Table(title, tuple(columns), tuple(tuple(str(cell) for cell in row) for row in rows), caption)
