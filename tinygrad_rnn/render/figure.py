"""The paper that plots are drawn on: a Matplotlib figure of its own, in a theme, that touches no global state."""

from __future__ import annotations

import io
import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import Locator, MaxNLocator

from .style import Theme


class Picture(Figure):
    """A figure that pyplot does not know, and a notebook shows all the same; ``.savefig("plot.png")`` writes it."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png", dpi=110)
        return written.getvalue()


def paper(widths: tuple[float, ...], height: float, theme: Theme) -> tuple[Picture, list[Any]]:
    """A figure with panels side by side, of these widths in inches."""
    made = Picture(figsize=(sum(widths), height), layout="constrained", facecolor=theme.background)
    axes = made.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    for ax in axes:
        dress(ax, theme)
    return made, list(axes)


def dress(ax: Any, theme: Theme) -> None:
    """Put a theme's colours on the frame of a panel."""
    ax.set_facecolor(theme.background)
    for name, spine in ax.spines.items():
        spine.set_color(theme.frame)
        spine.set_visible(name in ("left", "bottom"))
    ax.tick_params(colors=theme.muted, labelcolor=theme.muted, labelsize=8.5)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=theme.muted, fontsize=9)


class Decades(Locator):
    """Ticks on an axis of logarithms to base 10 where the numbers that they stand for are round."""

    def __call__(self) -> Any:
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Whole powers of ten; over less than three of them 1, 2, 5; over less than one whatever is round."""
        low, high = sorted((vmin, vmax))
        if high - low >= 3:
            return MaxNLocator(7, integer=True).tick_values(low, high)
        if high - low >= 1:
            tens = range(math.floor(low), math.ceil(high) + 1)
            return [ten + math.log10(digit) for ten in tens for digit in (1, 2, 5) if low <= ten + math.log10(digit) <= high]
        return [math.log10(value) for value in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(10.0**low, 10.0**high) if value > 0]
