"""Charts: named series as lines, bars or a heat map. What an experiment has to show is data; Matplotlib draws it when it is asked to."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ArgumentError, MissingError
from .text import cleaned

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
"""Okabe and Ito's palette, which colour-blind readers can tell apart; lines differ in their marker too."""

MARKERS = "osD^vPX*"

MARKED = 12
"""A logarithmic x-axis with at most so many places has a tick at each."""


@dataclass(frozen=True)
class Series:
    """Numbers under one name: a line, the bars of one colour, or one row of a heat map.

    Attributes:
        name: what the legend says.
        x: numbers, or names of categories.
        y: one number each; NaN is left out.
        low, high: the ends of an interval around each y, if there is one.
        joined: whether a line joins the points.
    """

    name: str
    x: tuple[Any, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    joined: bool = True


def series(name: str, x: Any, y: Any, low: Any = (), high: Any = (), *, joined: bool = True) -> Series:
    """A :class:`Series` of arrays or sequences.

    Raises:
        ArgumentError: if they differ in length.
    """
    columns = [tuple(np.asarray(column).tolist()) for column in (x, y, low, high)]
    if any(column and len(column) != len(columns[0]) for column in columns[1:]):
        raise ArgumentError(f"series: {name!r} has {' and '.join(str(len(c)) for c in columns if c)} entries; expected as many y as x")
    xs, ys, lows, highs = columns
    return Series(name, xs, ys, lows, highs, joined)


@dataclass(frozen=True)
class Chart:
    """A picture as data, which JSON can hold.

    Attributes:
        kind: "lines", "bars" or "heat".
        title, x, y: of the picture and its axes.
        series: what it shows.
        log: the axes with a logarithmic scale: "", "x", "y" or "xy". In a heat map "y" means the colours.
    """

    kind: Literal["lines", "bars", "heat"]
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log: str = ""

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Chart:
        """The chart that ``report.plain(chart)`` was, so that a picture can be drawn from a file of results.

        Raises:
            ArgumentError, KeyError, TypeError: for something else.
        """
        rows = tuple(series(**{key: _floats(value) for key, value in row.items()}) for row in given["series"])
        chart = cls(given["kind"], given["title"], given["x"], given["y"], rows, given.get("log", ""))
        texts = (chart.title, chart.x, chart.y, chart.log, *(row.name for row in rows))
        numbers = (value for row in rows for column in (row.y, row.low, row.high) for value in column)
        lengths = {len(row.y) for row in rows}
        if (
            chart.kind not in ("lines", "bars", "heat")
            or not all(isinstance(text, str) for text in texts)
            or not all(isinstance(value, (int, float)) for value in numbers)
            or not all(len(row.x) == len(row.y) and all(isinstance(x, (int, float, str)) for x in row.x) for row in rows)
            or (len(lengths) != 1 if chart.kind == "heat" else not lengths)
        ):
            raise ArgumentError(f"chart: expected what was written of a chart, got {str(given)[:60]}")
        return chart


def _floats(value: Any) -> Any:
    """Numbers as they were: JSON has null for NaN and texts for infinities."""
    if not isinstance(value, list):
        return value
    if any(isinstance(part, str) and part not in ("inf", "-inf") for part in value):
        return value
    return [float("nan") if part is None else float(part) if isinstance(part, str) else part for part in value]


def draw(charts: Sequence[Chart], ax: Any = None) -> Any:
    """The charts in a new Matplotlib figure, three in a row; or the first of them in ``ax``. Returns the figure.

    Raises:
        MissingError: if Matplotlib is not installed.
    """
    if ax is not None:
        _draw(charts[0], ax)
        return ax.figure
    try:
        from .figure import Picture
    except ImportError:
        raise MissingError('plot: Matplotlib is not installed; pip install "tinygrad_rnn[plot]"') from None
    across = min(len(charts), 3)
    down = -(-len(charts) // across)
    figure = Picture(figsize=(6.0 * across, 3.8 * down), layout="constrained")
    for place, chart in enumerate(charts):
        _draw(chart, figure.add_subplot(down, across, place + 1))
    return figure


def to_svg(charts: Sequence[Chart]) -> str:
    """The same as the text of an SVG file; the same charts give the same bytes.

    Raises:
        MissingError: if Matplotlib is not installed.
    """
    figure, written = draw(charts), io.BytesIO()
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "tinygrad_rnn", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue().decode()


def _draw(chart: Chart, ax: Any) -> None:
    {"lines": _lines, "bars": _bars, "heat": _heat}[chart.kind](chart, ax)
    ax.set_title(literal(chart.title), fontsize=10)
    ax.set_xlabel(literal(chart.x))
    ax.set_ylabel(literal(chart.y))
    if chart.kind != "heat":
        if "y" in chart.log:
            ax.set_yscale("log")
        if "x" in chart.log and chart.kind == "lines":
            ax.set_xscale("log")
            places = sorted({x for line in chart.series for x in line.x})
            if len(places) <= MARKED:  # where was measured says more than powers of ten
                ax.set_xticks(places, [f"{x:g}" for x in places], fontsize=8)
                ax.minorticks_off()
        ax.grid(True, axis="y", linewidth=0.4, alpha=0.5)
        if len(chart.series) > 1:
            ax.legend(fontsize=8)


def _lines(chart: Chart, ax: Any) -> None:
    names = _names(chart)
    for place, line in enumerate(chart.series):
        x = [names.index(name) for name in line.x] if names else line.x
        colour = COLOURS[place % len(COLOURS)]
        marker = MARKERS[place % len(MARKERS)] if len(line.x) <= 30 or not line.joined else ""
        style = "-" if line.joined else ""
        ax.plot(x, line.y, color=colour, marker=marker, linestyle=style, markersize=4, linewidth=1.5, label=literal(line.name))
        if line.low:
            ax.fill_between(x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    if names:
        _name_ticks(ax, names)


def _bars(chart: Chart, ax: Any) -> None:
    names = _names(chart) or sorted({x for group in chart.series for x in group.x})
    wide = 0.8 / len(chart.series)
    for place, group in enumerate(chart.series):
        middle = np.array([names.index(name) for name in group.x]) + (place - (len(chart.series) - 1) / 2) * wide
        height = np.array(group.y)
        reach = np.abs(np.stack([height - group.low, group.high - height])) if group.low else None
        ax.bar(middle, height, wide, yerr=reach, capsize=2, color=COLOURS[place % len(COLOURS)], label=literal(group.name))
    _name_ticks(ax, names)


def _names(chart: Chart) -> list[Any]:
    """The categories of an x-axis that has names, in the order in which they first come; none if it has numbers."""
    given = list(dict.fromkeys(x for line in chart.series for x in line.x))
    return given if any(isinstance(x, str) for x in given) else []


def _name_ticks(ax: Any, names: list[Any]) -> None:
    """A name at each place, turned as far as they need to be to pass each other."""
    space = max(len(str(name)) for name in names) * len(names) if names else 0
    turn = 0 if space <= 60 else 25 if len(names) <= 10 else 60
    ax.set_xticks(
        range(len(names)),
        [literal(str(name)) for name in names],
        fontsize=8,
        rotation=turn,
        ha="right" if turn else "center",
    )


def _heat(chart: Chart, ax: Any) -> None:
    from matplotlib.colors import LogNorm

    values = np.array([row.y for row in chart.series], dtype=float)
    shown = values[np.isfinite(values) & (values > 0)]
    scale = LogNorm(float(shown.min()), float(shown.max())) if "y" in chart.log and shown.size and shown.min() < shown.max() else None
    image = ax.imshow(np.where(values > 0, values, np.nan) if scale else values, norm=scale, cmap="viridis", aspect="auto")
    columns, rows = chart.series[0].x, [row.name for row in chart.series]
    for axis, names in ((ax.xaxis, columns), (ax.yaxis, rows)):
        every = -(-len(names) // 20)
        axis.set_ticks(range(0, len(names), every), [literal(str(name)) for name in names[::every]], fontsize=8)
    ax.figure.colorbar(image, ax=ax)


def literal(text: str) -> str:
    """A text that Matplotlib shows as it is: a dollar sign would begin a formula, and XML knows no control characters."""
    return cleaned(text, 120).replace("$", r"\$")
