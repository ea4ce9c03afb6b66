"""What pictures and pages say, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import Row, word_for_word

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn, render
from tinygrad_rnn.errors import ArgumentError, RenderError
from tinygrad_rnn.render import page


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, monkeypatch: Any) -> Any:
    """What is refused leaves no file."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def traced(kind: Any = nn.LSTM) -> tg.Trace:
    """The backward pass of three steps."""
    return tg.trace(kind(1, 2, rng=0)(np.ones((3, 1, 1)))[0][-1].sum())


def chain(length: int = 3000) -> tg.Tensor:
    x = tg.tensor(1.0, requires_grad=True)
    for _ in range(length):
        x = np.tanh(x)
    return x


SAID: list[Row] = [
    (
        lambda: render.backward_graph(3),
        ArgumentError,
        "backward_graph: expected a trace, got int. Write backward_graph(tg.trace(loss))",
    ),
    (
        lambda: render.backward_graph(traced(), rolled=True, closed=["a"]),
        ArgumentError,
        "backward_graph: closed scopes are drawn of single steps; leave out rolled=True or closed=",
    ),
    (
        lambda: render.backward_graph(traced(), rolled=True, window=(1, 2)),
        ArgumentError,
        "backward_graph: a rolled picture is of all steps; leave out rolled=True or window=",
    ),
    (
        lambda: render.backward_graph(traced(), closed=3),
        ArgumentError,
        "backward_graph: closed must be names of scopes, got 3",
    ),
    (
        lambda: render.backward_graph(traced(), window=(7, 9)),
        ArgumentError,
        "backward_graph: window=(7, 9) shows no step; the trace has steps 1 to 3",
    ),
    (
        lambda: render.backward_graph(traced(), theme="sepia"),
        ArgumentError,
        "backward_graph: theme must be one of ['dark', 'light'], got 'sepia'",
    ),
    (
        lambda: render.backward_graph(tg.trace(chain(5)), rolled=True),
        ArgumentError,
        "backward_graph: rolled=True needs steps; nothing in this trace was recorded under a time",
    ),
    (
        lambda: render.backward_graph(tg.trace(chain())),
        ArgumentError,
        "backward_graph: 3001 nodes are more than anyone can read; expected at most max_nodes=400. Say which "
        "part is which step of a sequence with tg.scope(time=t), draw scopes as boxes with closed=(names), "
        "trace a smaller part, or raise max_nodes",
    ),
    (
        lambda: render.backward_graph(traced(), max_nodes=5),
        ArgumentError,
        "backward_graph: 34 nodes are more than anyone can read; expected at most max_nodes=5. Show fewer "
        "steps with window=(first, last) or ends=1, or one step for all with rolled=True",
    ),
    (
        lambda: render.forward_graph(chain()),
        ArgumentError,
        "forward_graph: the computation has more nodes than anyone can read; expected at most max_nodes=400. "
        "Leave opaque layers closed, draw a smaller part, or raise max_nodes",
    ),
    (
        lambda: render.forward_graph(3),
        ArgumentError,
        "forward_graph: expected a Tensor, got int. For a trace there is backward_graph",
    ),
    (
        lambda: render.equation(3, "h"),
        ArgumentError,
        "equation: expected a trace, got int. Write equation(tg.trace(loss), target)",
    ),
    (
        lambda: render.equation(traced(), "h", ends=0),
        ArgumentError,
        "equation: ends must be at least 1, got 0",
    ),
    (
        lambda: render.equation(traced(), (2, "memory")),
        ArgumentError,
        "equation: step 2 has no 'memory'; expected one of ['hidden', 'cell', 'output', 'candidate', 'forget', 'input']",
    ),
    (
        lambda: render.equation(traced(), (9, "hidden")),
        ArgumentError,
        "states: 'lstm' has no step 9; expected one from 1 to 3",
    ),
    (
        lambda: render.equation(traced(), "nothing"),
        ArgumentError,
        "equation: no value is called 'nothing'; expected one of W_ih, W_hh, b, a₁, a_i₁, i₁, a_f₁, f₁, "
        "a_g₁, g₁, a_o₁, o₁, c₁, tanh(c₁), h₁, a₂, a_i₂, i₂, a_f₂, f₂, a Tensor, a landmark or (time, part)",
    ),
    (
        lambda: render.equation(traced(), "h"),
        ArgumentError,
        "equation: several values are called 'h'; expected one of h₁, h₂, h₃",
    ),
    (
        lambda: render.equation(traced(), 3.0),
        ArgumentError,
        "equation: expected a Tensor, a landmark, (time, part) or a symbol as target, got float",
    ),
    (
        lambda: render.player(3, "page.html"),
        ArgumentError,
        "player: expected a trace, got int. Write player(tg.trace(loss), path)",
    ),
    (
        lambda: render.player(tg.trace(tg.tensor([1.0], requires_grad=True)), "page.html"),
        ArgumentError,
        "player: 0 multiplications are nothing to play; expected 1 to 100,000. Trace what was computed from "
        "a Tensor, not the Tensor itself",
    ),
    (
        lambda: render.explorer("page.html", hidden=0),
        ArgumentError,
        "explorer: hidden must be a whole number of at least 1, got 0",
    ),
    (
        lambda: render.explorer("page.html", radii=(2.0, 1.0)),
        ArgumentError,
        "explorer: radii must be ascending numbers from 0.3 to 3, got [2.0, 1.0]",
    ),
    (
        lambda: render.explorer("page.html", lengths=(1.5, 3)),
        ArgumentError,
        "explorer: lengths must be ascending whole numbers from 2 to 200, got [1.5, 3]",
    ),
    (
        lambda: page.page(title="t", body="", data={}, script="</script>", style=""),
        RenderError,
        "page: the script must not contain </script or <!--; split the text where it does",
    ),
    (
        lambda: page.page(title="t", body="", data={}, script="", style="</style>"),
        RenderError,
        "page: the style must not contain </style or <!--; split the text where it does",
    ),
    (
        lambda: page.page(title="t", body="", data={"x": {1, 2}}, script="", style=""),
        RenderError,
        "page: the data is not JSON (Object of type set is not JSON serializable); pass it through report.plain first",
    ),
    (
        lambda: render.plot(flow.highway(traced(nn.RNN))),
        ArgumentError,
        "plot: rnn has no highway, so there is nothing to draw; plot its vanishing_product",
    ),
    (
        lambda: render.plot(flow.monitor(nn.RNN(1, 2, rng=0))),
        ArgumentError,
        "plot: the monitor has no rows yet; run a backward pass first",
    ),
    (
        lambda: render.plot(flow.highway(traced()), ax=3),
        ArgumentError,
        "plot: ax must be Matplotlib axes, got int",
    ),
    (
        lambda: render.plot(flow.highway(traced()), theme="sepia"),
        ArgumentError,
        "plot: theme must be one of ['dark', 'light'], got 'sepia'",
    ),
    (
        lambda: render.plot([flow.split_paths((t := traced()), t.states()[1].cell, bins=k) for k in (2, 3)]),
        ArgumentError,
        "plot: path splits that are drawn together need the same number of bins, got 2 and 3",
    ),
    (
        lambda: render.backward_graph(traced(), window=3),
        ArgumentError,
        "backward_graph: window must be (first, last), of the steps 1 to 3, got 3",
    ),
    (
        lambda: render.backward_graph(traced(), closed="norm"),
        ArgumentError,
        "backward_graph: no scope is called 'norm'; expected closed= to name some of lstm",
    ),
]


test_the_message = word_for_word(SAID)
