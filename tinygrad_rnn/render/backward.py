"""``backward_graph``: the picture of a backward pass."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..errors import ArgumentError
from ..trace import Trace
from .build import build
from .dot import dot_lines
from .style import theme_named

if TYPE_CHECKING:
    from .engine import BackwardGraph


def backward_graph(
    trace: Trace,
    rolled: bool = False,
    window: tuple[int, int] | None = None,
    *,
    ends: int = 2,
    fold_routes: bool = True,
    closed: str | Collection[str] = (),
    theme: str = "light",
    max_nodes: int = 400,
) -> BackwardGraph:
    """Draw a backward pass: every edge is one multiplication, from the loss down to the inputs.

    Each step is a column, and time runs from left to right; where there is no time, a small graph runs from the loss on the right to
    the inputs on the left. Colour and line say what an edge multiplies by, width and depth of colour how much of the cotangent it lets
    through. The highway, the way from state to state without a matrix, is the bold straight line; an RNN has none. Parameters are drawn
    once per step that uses them: their gradient is the sum.

    Args:
        trace: from ``tg.trace(loss)``; ``keep="norms"`` is enough.
        rolled: draw one step for all, each edge with the range of its gains over time.
        window: the first and last step to draw; the others are a box on either side.
        ends: how many steps to draw at either end of a long sequence, whose middle is one box; ignored with ``window``.
        fold_routes: whether edges that only move entries (indexing, reshaping, broadcasting) are left out.
        closed: names of scopes outside of time, such as "norm" or "attention", that are drawn as one box each. A box names the leaves
            that only it leads to; what leaves it is labelled with the last multiplication inside.
        theme: "light" or "dark".
        max_nodes: refuse to draw more nodes than this.

    Returns:
        A ``graphviz.Digraph``: a notebook shows it, ``.render(outfile="graph.svg")`` and ``.pipe("png")`` draw it, ``.source`` is the DOT
        text. The text is the same in every run and has a place for everything; by hand it is drawn with ``neato -n2``. ``.model`` is the
        picture as data.

    Raises:
        ArgumentError: for a window without steps, ``rolled`` without time or with a window, a closed scope that is not there, or a graph
            of too many nodes.
        RenderError: when it is drawn and there is no program that draws, or the program fails.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn, render
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((100, 1, 2)))
        >>> graph = render.backward_graph(tg.trace(outputs[-1].sum()))
        >>> [cluster.label for cluster in graph.model.clusters]
        ['t = 1', 't = 2', 't = 3 … 98', 't = 99', 't = 100']
        >>> x = tg.tensor(np.ones((1, 5, 8)), requires_grad=True, name="x")
        >>> block = tg.trace(nn.TransformerBlock(8, 2, rng=0)(x).sum())
        >>> graph = render.backward_graph(block, closed=("attention", "norm1", "norm2"))
        >>> [(node.label, node.note) for node in graph.model.nodes if node.label.startswith("norm")]
        [('norm2', 'β, γ'), ('norm1', 'β, γ')]
    """
    from .engine import BackwardGraph

    if not isinstance(trace, Trace):
        raise ArgumentError(f"backward_graph: expected a trace, got {type(trace).__name__}. Write backward_graph(tg.trace(loss))")
    paper = theme_named(theme, "backward_graph")
    for name, number in (("ends", ends), ("max_nodes", max_nodes)):
        if not isinstance(number, int) or number < 1:
            raise ArgumentError(f"backward_graph: {name} must be a whole number of at least 1, got {number!r}")
    if not isinstance(closed, Collection) or not all(isinstance(name, str) for name in closed):
        raise ArgumentError(f"backward_graph: closed must be names of scopes, got {closed!r}")
    names = frozenset((closed,) if isinstance(closed, str) else closed)
    if closed and rolled:
        raise ArgumentError("backward_graph: closed scopes are drawn of single steps; leave out rolled=True or closed=")
    if window is not None and rolled:
        raise ArgumentError("backward_graph: a rolled picture is of all steps; leave out rolled=True or window=")
    model = build(trace, rolled=rolled, window=window, ends=ends, fold_routes=fold_routes, max_nodes=max_nodes, closed=names)
    return BackwardGraph("backward", dot_lines(model, paper), model)
