"""``plot``: each result as a Matplotlib figure (extra "plot")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import flow
from ..errors import ArgumentError, MissingError
from . import panels
from .style import Theme, theme_named

Panel = tuple[float, Callable[[Any, Theme], None]]
"""A width in inches, and what draws into the axes."""


def plot(result: Any, ax: Any = None, *, theme: str = "light") -> Any:
    """Draw a result: where the gradient goes, what a step multiplies by, which loss moves which use, what the gates remember, ….

    ==================================================  =====================================================================
    result                                              what is drawn (its first panel alone with ``ax=``)
    ==================================================  =====================================================================
    :class:`~tinygrad_rnn.flow.VanishingProduct`        ‖δ‖/‖δ_T‖ by lag, with the bound; the gain with its parts; what loses most
    :class:`~tinygrad_rnn.flow.EdgeGains`               the mean gain of a multiplication, or of several
    :class:`~tinygrad_rnn.flow.Highway`                 direct and total product by lag; the factors over the units
    :class:`~tinygrad_rnn.flow.StepJacobians`           singular values of every step; norm of the product and product of norms
    :class:`~tinygrad_rnn.flow.BpttMatrix`              a heat map of loss t′ by use t, and one per gate
    :class:`~tinygrad_rnn.flow.Connectivity`            a heat map of output t′ by input t
    :class:`~tinygrad_rnn.flow.PathSplit`               signed shares by number of passes, and their norms; of several, bands
    :class:`~tinygrad_rnn.flow.Timescales`              each unit by how often its gates are shut and open; timescales, sorted
    :class:`~tinygrad_rnn.flow.Comparison`              norms of the gradients with and without interventions; their cosine
    :class:`~tinygrad_rnn.flow.Engagement`              edges that fitted and contributions that were altered, by step
    :class:`~tinygrad_rnn.flow.StateNorms`, a monitor   ‖δ_t‖ by step; of a monitor, by step and update
    :class:`~tinygrad_rnn.flow.Diagnosis`               the findings, the most serious first
    a result with ``charts()``                          its charts, as the experiments have them
    ==================================================  =====================================================================

    Args:
        result: one of these, or a sequence of :class:`~tinygrad_rnn.flow.EdgeGains`, :class:`~tinygrad_rnn.flow.PathSplit` or
            :class:`~tinygrad_rnn.flow.StateNorms`.
        ax: Matplotlib axes to draw the first panel into; their frame keeps its own style. None makes a new figure.
        theme: "light" or "dark" paper.

    Returns:
        The figure: a new one, unknown to pyplot, which a notebook shows and ``.savefig("plot.png")`` writes; or that of ``ax``. No global
        state of Matplotlib is read by us or changed.

    Raises:
        ArgumentError: for something that has no picture, or another theme.
        MissingError: if Matplotlib is not installed.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn, render
        >>> outputs, _ = nn.RNN(2, 16, init=0.9, rng=0)(np.ones((50, 1, 2)))
        >>> figure = render.plot(flow.vanishing_product(outputs[-1].sum()))        # doctest: +SKIP
        >>> figure.savefig("product.png")                                          # doctest: +SKIP
    """
    colours = theme_named(theme, "plot")
    if ax is not None and not (hasattr(ax, "plot") and hasattr(ax, "figure")):
        raise ArgumentError(f"plot: ax must be Matplotlib axes, got {type(ax).__name__}")
    drawn = _panels(result)
    try:
        from .figure import paper
    except ImportError:
        raise MissingError('plot: Matplotlib is not installed; pip install "tinygrad_rnn[plot]"') from None
    if ax is not None:
        drawn[0][1](ax, colours)
        return ax.figure
    made, axes = paper(tuple(width for width, _ in drawn), 3.7, colours)
    for place, (_, draw) in zip(axes, drawn, strict=True):
        draw(place, colours)
    return made


DRAWN: dict[type, Callable[[Any], list[Panel]]] = {
    flow.VanishingProduct: panels.vanishing_product,
    flow.EdgeGains: lambda edge: panels.edge_gains([edge]),
    flow.Highway: panels.highway,
    flow.StepJacobians: panels.step_jacobians,
    flow.BpttMatrix: panels.bptt_matrix,
    flow.Connectivity: panels.connectivity,
    flow.PathSplit: lambda split: panels.path_split([split]),
    flow.Timescales: panels.timescales,
    flow.Comparison: panels.comparison,
    flow.Engagement: panels.engagement,
    flow.StateNorms: lambda row: panels.state_norms([row]),
    flow.Monitor: lambda monitor: panels.state_norms(list(monitor.rows)),
    flow.Diagnosis: panels.diagnosis,
}
"""What draws each kind of result."""

SEVERAL: dict[type, Callable[[Sequence[Any]], list[Panel]]] = {
    flow.EdgeGains: panels.edge_gains,
    flow.PathSplit: panels.path_split,
    flow.StateNorms: panels.state_norms,
}
"""What draws several of a kind."""


def _panels(result: Any) -> list[Panel]:
    """What there is to draw."""
    for kind, drawing in DRAWN.items():
        if isinstance(result, kind):
            return drawing(result)
    if isinstance(result, Sequence) and not isinstance(result, str) and len(result):
        for kind, several in SEVERAL.items():
            if all(isinstance(one, kind) for one in result):
                return several(result)
    if hasattr(result, "charts"):
        return [(6.0, panels.chart(one)) for one in result.charts()]
    known = ", ".join(kind.__name__ for kind in DRAWN)
    raise ArgumentError(f"plot: expected a result ({known}) or one with charts(), got {type(result).__name__}")
