"""The pictures: what is drawn, that it is the same text in every run, and that it draws without Graphviz."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import unicodedata
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, render
from tinygrad_rnn.errors import ArgumentError, RenderError
from tinygrad_rnn.render import dot, engine, layers, layout, text
from tinygrad_rnn.render.style import THEMES

GOLDEN = Path(__file__).parent / "golden"
PICTURE = Path(__file__).parent.parent / "examples" / "lstm.svg"
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def traced(name: str, steps: int = 3, **options) -> tg.Trace:
    x = np.sin(np.arange(steps * 2.0)).reshape(steps, 1, 2)
    outputs, _ = LAYERS[name](2, 3, rng=0)(x)
    return tg.trace(outputs[-1].sum(), **options)


def picture() -> str:
    """What README shows."""
    return render.backward_graph(traced("lstm")).pipe("svg", encoding="utf-8")


def unquoted(source: str) -> str:
    """The graph without its texts and sizes."""
    return re.sub(r"width=[\d.]+", "", re.sub(r'"(\\.|[^"\\])*"', '""', re.sub(r"<<.*>>|<[^<>]*<BR/>.*?</FONT>>", "<>", source)))


def laid_out(graph) -> layout.Layout:
    return dot.Writer(graph.model, THEMES["light"]).layout


def edges_into_states(model: render.RenderGraph, symbol: str) -> list[render.RenderEdge]:
    (key,) = [node.key for node in model.nodes if node.label == symbol]
    return [edge for edge in model.edges if edge.target == key]


# -- the text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_golden(name):
    """The DOT text of three steps is what is on file; `python tests/test_render.py` writes it anew."""
    assert render.backward_graph(traced(name)).source == (GOLDEN / f"{name}.dot").read_text(encoding="utf-8")


def test_the_picture_in_readme_is_current():
    """Its words are those that the three steps of the LSTM are drawn with today; where they stand is the drawing program's affair."""
    words = [sorted(re.findall(r"<text[^>]*>([^<]*)</text>", svg)) for svg in (picture(), PICTURE.read_text(encoding="utf-8"))]
    assert words[0] == words[1]


@pytest.mark.parametrize("seed", ["1", "2"])
def test_same_bytes_in_every_process(seed):
    """Neither hash seeds nor what was recorded before change a byte."""
    program = (
        "import hashlib, sys, test_render as t, tinygrad_rnn as tg\n"
        f"junk = [tg.tensor(1.0, requires_grad=True) * 2.0 for _ in range({seed}00)]\n"
        "sys.stdout.buffer.write(''.join(t.render.backward_graph(t.traced(n)).source for n in t.LAYERS).encode())\n"
        "losses = [t.PICTURES[n]() for n in ('LSTM, 2 layers, both directions', 'transformer', 'lengths')]\n"
        "graphs = [g for loss in losses for g in (t.render.backward_graph(tg.trace(loss)), t.render.forward_graph(loss, opened=True))]\n"
        "sys.stderr.write(hashlib.sha256(''.join(g.source for g in graphs).encode()).hexdigest())"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(tg.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}, capture_output=True, check=True
    )
    assert done.stdout.decode() == "".join((GOLDEN / f"{name}.dot").read_text(encoding="utf-8") for name in LAYERS)
    losses = [PICTURES[name]() for name in ("LSTM, 2 layers, both directions", "transformer", "lengths")]
    graphs = [g for loss in losses for g in (render.backward_graph(tg.trace(loss)), render.forward_graph(loss, opened=True))]
    assert done.stderr.decode() == hashlib.sha256("".join(graph.source for graph in graphs).encode()).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        'a"b',
        "a\\",
        "\\N",
        "\\G\\l",
        "<b>bold</b>",
        "a\nb",
        "nul\0",
        "x" * 10_000,
        "\u202eabc",
        "&lt;",
        "]; evil -> n0 [",
        "a\ud800b",
        "€'`",
        "{x|y}",
        "",
        '"><script>alert(1)</script>',
        "\u2067abc\u2069\u200f",
    ],
)
def test_a_hostile_name_is_text(name):
    """Whatever a tensor is called, the text stays a graph of the same nodes, encodes and draws."""
    x = tg.tensor([1.0, 2.0], requires_grad=True, name=name)
    y = tg.tensor([1.0, 2.0], requires_grad=True, name="plain")
    with tg.scope(name or None):
        hostile = render.backward_graph(tg.trace((np.tanh(x) * 2.0).sum()))
    with tg.scope("plain"):
        plain = render.backward_graph(tg.trace((np.tanh(y) * 2.0).sum()))
    assert unquoted(hostile.source) == unquoted(plain.source)
    assert len(hostile.source) < len(plain.source) + 400
    assert not any(ord(char) < 32 and char not in "\n\t" for char in hostile.source)
    assert "\u202e" not in hostile.source
    with tg.scope(name or None):
        recorded = render.forward_graph((np.tanh(x) * 2.0).sum())
    for graph in (recorded, hostile):
        svg = graph.pipe("svg", encoding="utf-8")
        assert "<script" not in svg and not any(unicodedata.category(char) in ("Cf", "Cs") for char in svg)
        ElementTree.fromstring(re.sub("<!DOCTYPE.*?>", "", svg, flags=re.S))
    if name == "<b>bold</b>":
        assert "&lt;b&gt;bold&lt;/b&gt;" in svg
    if name == "\\N":
        assert re.search(r">\\N</text>", svg)


# -- what is drawn --------------------------------------------------------------------------------------------------------------


def test_the_highway_is_bold_where_there_is_one():
    """c₃ → c₂ through ⊙ f₃ alone in the LSTM, h₃ → h₂ through ⊙ z₃ in the GRU; the RNN has none and says so."""
    lanes = {name: [edge for edge in render.backward_graph(traced(name)).model.edges if edge.lane is not None] for name in LAYERS}
    assert [edge.label for edge in lanes["lstm"]] == ["⊙ f₃", "⊙ f₂"]
    assert [edge.label for edge in lanes["gru"]] == ["⊙ z₃", "⊙ z₂"]
    assert lanes["rnn"] == []
    sources = {name: render.backward_graph(traced(name)).source for name in LAYERS}
    assert "no matmul-free path" in sources["rnn"] and "penwidth=6.0" not in sources["rnn"]
    assert all("penwidth=6.0" in sources[name] and "no matmul-free path" not in sources[name] for name in ("lstm", "gru"))


def test_every_rnn_step_passes_the_matrix_and_the_saturation():
    """h₃ –⊙ (1 − h₃²)→ a₃ –· W_hhᵀ→ h₂, with the ledger's gains."""
    trace = traced("rnn")
    model = render.backward_graph(trace).model
    (down,) = edges_into_states(model, "a₃")
    (across,) = edges_into_states(model, "h₂")
    assert (down.label, across.label, across.kind, across.back) == ("⊙ (1 − h₃²)", "· W_hhᵀ", "matmul", 1)
    (step,) = trace.filter(op="matmul", time=3, where=lambda s: s.operand.symbol == "h₂")
    assert across.low == across.high == pytest.approx(step.gain, rel=1e-12)


def test_folding_keeps_gains():
    """A chain that is folded has the product of its gains: ½ from the mean over two, then √2 from the broadcast."""
    x = tg.tensor([3.0, 4.0], requires_grad=True, name="x")
    trace = tg.trace((x[::-1].reshape(2, 1) * 2.0)[0].sum())
    folded, full = (render.backward_graph(trace, fold_routes=fold).model for fold in (True, False))
    assert len(folded.nodes) < len(full.nodes)
    product = math.prod(step.gain for step in trace.steps)
    assert math.prod(edge.low for edge in folded.edges) == pytest.approx(product, rel=1e-12)
    assert math.prod(edge.low for edge in full.edges) == pytest.approx(product, rel=1e-12)


def test_edges_that_only_stack_are_left_out():
    """The outputs that the loss does not read add no node and no edge of gain 0."""
    model = render.backward_graph(traced("lstm")).model
    assert {node.label for node in model.nodes if node.shape == "state"} == {"h₁", "h₂", "h₃", "c₁", "c₂", "c₃"}
    assert not any(node.label == "stack" for node in model.nodes)
    assert len(edges_into_states(model, "h₂")) == 1


def test_a_square_by_hand_has_two_edges():
    a = tg.tensor(3.0, requires_grad=True, name="a")
    model = render.backward_graph(tg.trace(a * a)).model
    assert [edge.label for edge in model.edges] == ["⊙ a", "⊙ a"]


def test_a_formula_without_time():
    """Signs name the nameless operations; there are no clusters."""
    a, b = (tg.tensor(value, requires_grad=True, name=name) for value, name in ((2.0, "a"), (-3.0, "b")))
    model = render.backward_graph(tg.trace(np.tanh(a * b + 1.0) * a)).model
    assert [node.label for node in model.nodes] == ["loss  ⊙", "tanh", "+", "⊙", "a", "b"]
    assert model.clusters == () and model.lanes == ()


def test_gates_are_named():
    model = render.backward_graph(traced("lstm")).model
    assert {(node.label, node.note) for node in model.nodes if node.label.endswith("₃") and node.shape == "gate"} == {
        ("i₃", "input"), ("f₃", "forget"), ("g₃", "candidate"), ("o₃", "output")
    }  # fmt: skip


def test_nodes_are_numbered_in_topological_order():
    for name in LAYERS:
        model = render.backward_graph(traced(name)).model
        assert [node.key for node in model.nodes] == list(range(len(model.nodes)))
        assert all(edge.source < edge.target for edge in model.edges)
        assert model.nodes[0].shape == "root"


@pytest.mark.parametrize("options", [{}, {"rolled": True}, {"window": (4, 5)}, {"fold_routes": False}])
@pytest.mark.parametrize("name", LAYERS)
def test_every_multiplication_has_its_edge(name, options):
    """Each step of the ledger that hands on something is a part of an edge or lies inside of a box; each edge and node is in the SVG."""
    outputs, _ = LAYERS[name](2, 3, rng=0)(np.ones((8, 1, 2)))
    trace = tg.trace((outputs**2).sum())
    graph = render.backward_graph(trace, **options)
    drawn = {place for part in (*graph.model.edges, *graph.model.nodes) for place in part.steps}
    assert {place for place, step in enumerate(trace.steps) if step.norms[1]} <= drawn <= set(range(len(trace.steps)))
    assert all(any(trace.steps[place].kind == edge.kind for place in edge.steps) for edge in graph.model.edges)
    classes = re.findall(r'class="(?:node|edge) (\w+)"', graph.pipe("svg", encoding="utf-8"))
    assert {f"n{node.key}" for node in graph.model.nodes} | {f"e{at}" for at in range(len(graph.model.edges))} == set(classes)


def test_the_middle_of_a_long_sequence_is_one_box():
    """100 steps: two at either end, and a box with what 96 steps leave of the state cotangent; the highway runs through it."""
    trace = traced("lstm", 100)
    graph = render.backward_graph(trace)
    assert [cluster.label for cluster in graph.model.clusters] == ["t = 1", "t = 2", "t = 3 … 98", "t = 99", "t = 100"]
    (box,) = [node for node in graph.model.nodes if node.shape == "fold"]
    states = trace.states()
    assert (box.label, box.note) == ("96 steps", f"state gain {states[2].norm / states[98].norm:.2g}")
    assert [edge.label for edge in graph.model.edges if edge.lane is not None] == ["⊙ f₁₀₀", "⊙ f₉₉", "⊙ f₃ … f₉₈", "⊙ f₂"]
    across = {edge.label: edge for edge in graph.model.edges if edge.source == box.key}
    assert set(across) == {"⊙ f₃ … f₉₈", "· W_hhᵀ"} and all(edge.count == 96 for edge in across.values())
    steps = trace.filter(op="matmul", where=lambda s: s.time in range(3, 99) and s.operand.symbol.startswith("h"))
    gains = [step.gain for step in steps]
    assert (across["· W_hhᵀ"].low, across["· W_hhᵀ"].high) == pytest.approx((min(gains), max(gains)), rel=1e-12)
    assert re.search("<B>⊙ f₃ … f₉₈<BR/>[^<]* … [^<]*<BR/>each of 96</B>", graph.source)
    assert [c.label for c in render.backward_graph(trace, ends=1).model.clusters] == ["t = 1", "t = 2 … 99", "t = 100"]


def test_a_loss_at_every_step_reaches_the_box_by_one_edge():
    outputs, _ = nn.GRU(2, 3, rng=0)(np.ones((50, 1, 2)))
    model = render.backward_graph(tg.trace((outputs**2).mean())).model
    (box,) = [node.key for node in model.nodes if node.shape == "fold"]
    assert [edge.count for edge in model.edges if edge.target == box and edge.kind == "route"] == [46]


def test_window():
    """Exactly the steps that were asked for, and a box on either side."""
    trace = traced("gru", 20)
    assert [c.label for c in render.backward_graph(trace, window=(5, 6)).model.clusters] == ["t = 1 … 4", "t = 5", "t = 6", "t = 7 … 20"]
    with pytest.raises(ArgumentError, match=r"window=\(30, 40\) shows no step; the trace has steps 1 to 20"):
        render.backward_graph(trace, window=(30, 40))
    for wrong in (3, slice(1, 2), range(2, 5), (1, 2, 3), (1.5, 2), ("1", "2"), ""):
        with pytest.raises(ArgumentError, match=r"window must be \(first, last\), of the steps 1 to 20, got "):
            render.backward_graph(trace, window=wrong)


@pytest.mark.parametrize("window", [(1, 3), (2, 4), (10, 12), (27, 29), (28, 30)])
@pytest.mark.parametrize("name", LAYERS)
def test_a_window_leaves_no_loose_ends(name, window):
    """Every end of an edge is a declared node, and the highway is one line through the boxes on both sides."""
    graph = render.backward_graph(traced(name, 30), window=window)
    source = re.sub(r'"(\\.|[^"\\])*"', '""', graph.source)
    declared = set(re.findall(r"^\s*(\w+) \[", source, re.M))
    assert {end for edge in re.findall(r"(\w+) -> (\w+)", source) for end in edge} <= declared
    lane = [edge for edge in graph.model.edges if edge.lane is not None]
    assert all(before.target == after.source for before, after in pairwise(lane))
    assert len(lane) == (0 if name == "rnn" else len(graph.model.clusters) - 1)


@pytest.mark.parametrize("name", LAYERS)
def test_rolled_does_not_grow(name):
    """Three steps and three hundred are drawn with the same nodes and edges; the range of gains is over all of them."""
    short, long = (render.backward_graph(traced(name, steps), rolled=True).model for steps in (3, 300))
    assert [node.label for node in short.nodes] == [node.label for node in long.nodes]
    assert [(e.source, e.target, e.label) for e in short.edges] == [(e.source, e.target, e.label) for e in long.edges]
    across = {edge.label: edge for edge in long.edges if edge.back}
    assert set(across) == {"· W_hhᵀ", *{"lstm": ["⊙ fₜ"], "gru": ["⊙ zₜ"], "rnn": []}[name]}
    assert all(edge.count == 299 and edge.low < edge.high for edge in across.values())
    assert "t → t−1" in render.backward_graph(traced(name), rolled=True).source


@pytest.mark.parametrize("read", [lambda outputs: outputs.mean(), lambda outputs: (outputs * outputs).sum()])
def test_rolled_does_not_grow_with_a_loss_at_every_step(read):
    """What every step's output receives from the loss is one edge."""
    layer = nn.GRU(2, 3, rng=0)
    short, long = (render.backward_graph(tg.trace(read(layer(np.ones((steps, 1, 2)))[0])), rolled=True).model for steps in (4, 40))
    assert len(short.edges) == len(long.edges) < 40
    assert [node.label for node in short.nodes] == [node.label for node in long.nodes]


def test_two_layers_share_no_cluster():
    """Layers lie above each other, their steps side by side; both highways are drawn."""
    below, _ = nn.LSTM(2, 3, rng=0)(np.ones((3, 1, 2)))
    above, _ = nn.GRU(3, 3, rng=1)(below)
    graph = render.backward_graph(tg.trace(above[-1].sum()))
    assert graph.model.layers == ("lstm", "gru") and graph.model.lanes == (True, True)
    assert len(graph.model.clusters) == 6
    assert not any(node.label == "stack" for node in graph.model.nodes)
    boxes = laid_out(graph).boxes
    assert [boxes[number][0] for number in (0, 1, 2)] == [boxes[number][0] for number in (3, 4, 5)]
    assert max(boxes[number][3] for number in (3, 4, 5)) < min(boxes[number][1] for number in (0, 1, 2))


def test_one_step_has_no_way_from_state_to_state():
    """With a single step nothing is said about a highway; a trace may start at a state."""
    outputs, state = nn.LSTM(2, 3, rng=0)(np.ones((1, 1, 2)))
    assert render.backward_graph(tg.trace(outputs.sum())).model.lanes == (None,)
    cell, state = nn.LSTMCell(2, 3, rng=0), None
    for _ in range(3):
        state = cell(np.ones((1, 2)), state)
    model = render.backward_graph(tg.trace(state.cell, cotangent=np.ones((1, 3)))).model
    assert model.nodes[0].label == "c₃" and model.nodes[0].shape == "state" and 0 in model.clusters[-1].nodes
    assert [edge.label for edge in model.edges if edge.lane is not None] == ["⊙ f₃", "⊙ f₂"]


def test_legend_and_themes():
    light, dark = (render.backward_graph(traced("lstm"), theme=theme).source for theme in ("light", "dark"))
    for words in ("elementwise", "matrix", "passes on", "highway", "78 backward multiplications"):
        assert words in light and words in dark
    assert "#0072b2" in light and "#56b4e9" in dark and light.count("->") == dark.count("->")
    with pytest.raises(ArgumentError, match="theme must be one of"):
        render.backward_graph(traced("rnn"), theme="pink")


def test_norms_are_enough():
    assert render.backward_graph(traced("lstm", keep="norms")).source == render.backward_graph(traced("lstm")).source


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e200, np.inf, np.nan])
def test_any_gain_can_be_drawn(scale):
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    with np.errstate(all="ignore"):
        graph = render.backward_graph(tg.trace((x * scale * scale).sum()))
    assert b"<svg" in graph.pipe("svg")


def test_too_many_nodes_are_refused_with_a_remedy():
    x = y = tg.tensor(1.0, requires_grad=True)
    for _ in range(2000):
        y = np.tanh(y)
    assert x.requires_grad
    started = time.perf_counter()
    with pytest.raises(ArgumentError, match=r"expected at most max_nodes=400\. Say which part is which step"):
        render.backward_graph(tg.trace(y))
    assert time.perf_counter() - started < 2.0
    with pytest.raises(ArgumentError, match="rolled=True needs steps"):
        render.backward_graph(tg.trace(y), rolled=True)
    with pytest.raises(ArgumentError, match=r"Write backward_graph\(tg.trace\(loss\)\)"):
        render.backward_graph(y)


# -- where things are ----------------------------------------------------------------------------------------------------------


def mlp() -> tg.Tensor:
    model = nn.Sequential(nn.Linear(4, 8, rng=0), np.tanh, nn.Linear(8, 3, rng=1))
    return tg.cross_entropy(model(np.sin(np.arange(20.0)).reshape(5, 4)), np.array([0, 1, 2, 0, 1]))


def residual() -> tg.Tensor:
    x = y = tg.tensor(np.sin(np.arange(8.0)).reshape(2, 4), requires_grad=True, name="x")
    for seed in range(2):
        y = nn.Residual(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4, rng=seed), np.tanh))(y)
    assert x.requires_grad
    return (y**2).mean()


def transformer() -> tg.Tensor:
    x = tg.tensor(np.sin(np.arange(80.0)).reshape(5, 2, 8), requires_grad=True, name="x")
    return (nn.TransformerBlock(8, 2, rng=0)(x) ** 2).mean()


def neuron() -> tg.Tensor:
    a, b, c = (tg.tensor(value, requires_grad=True, name=name) for value, name in ((2.0, "a"), (-3.0, "b"), (10.0, "c")))
    return np.tanh((a * b + c) * a / 4)


def checkpointed() -> tg.Tensor:
    w = tg.tensor(np.sin(np.arange(9.0)).reshape(3, 3), requires_grad=True, name="W")
    x = tg.tensor(np.ones((2, 3)), requires_grad=True, name="x")
    return (tg.checkpoint(lambda x: np.tanh(x @ w), x) ** 2).sum()


def recurrent(layer: str, steps: int = 3, *, batch: tuple[int, ...] = (1,), last: bool = True, **options) -> tg.Tensor:
    outputs, _ = LAYERS[layer](2, 3, rng=0, **options)(np.sin(np.arange(2.0 * steps * math.prod(batch))).reshape(steps, *batch, 2))
    return outputs[-1].sum() if last else (outputs**2).mean()


def readout() -> tg.Tensor:
    return (nn.Linear(3, 2, rng=0)(nn.LSTM(2, 3, rng=0)(np.ones((3, 2, 2)))[0][-1]) ** 2).mean()


def ragged() -> tg.Tensor:
    outputs, _ = nn.LSTM(2, 3, rng=0)(np.sin(np.arange(24.0)).reshape(4, 3, 2), lengths=[4, 2, 3])
    return (outputs**2).mean()


def encoder_and_decoder() -> tg.Tensor:
    x = np.sin(np.arange(6.0)).reshape(3, 1, 2)
    _, state = nn.GRU(2, 3, rng=0)(x)
    return (nn.GRU(2, 3, rng=1)(x, state)[0] ** 2).mean()


def feedback() -> tg.Tensor:
    """What the upper of two cells gives is the lower one's input at the next step."""
    lower, upper = nn.LSTMCell(3, 3, rng=0), nn.GRUCell(3, 3, rng=1)
    below, above = None, nn.GRUState(tg.tensor(np.zeros((1, 3))))
    for _ in range(4):
        below = lower(above.hidden, below)
        above = upper(below.hidden, above)
    return (above.hidden**2).sum()


def nested() -> tg.Tensor:
    """Steps with scopes inside; one value from before all steps is used in the second."""
    w, b, h = (
        tg.tensor(np.sin(np.arange(9.0)).reshape(3, 3)[:n], requires_grad=True, name=name) for n, name in ((3, "W"), (1, "b"), (1, "h"))
    )
    before = np.tanh(b)
    for t in range(1, 4):
        with tg.scope("own", time=t):
            with tg.scope("inner"):
                a = h @ w
                a = a * before if t == 2 else a
            h = np.tanh(a)
    return (h**2).sum()


PICTURES = {
    **{name: lambda name=name: recurrent(name) for name in LAYERS},
    **{f"{name}, 30 steps": lambda name=name: recurrent(name, 30) for name in LAYERS},
    "LSTM without a batch": lambda: recurrent("lstm", batch=()),
    "LSTM with a batch": lambda: recurrent("lstm", batch=(4,)),
    "LSTM of 2 layers": lambda: recurrent("lstm", num_layers=2),
    "LSTM of 3 layers": lambda: recurrent("lstm", num_layers=3, last=False),
    "skips": lambda: recurrent("lstm", num_layers=2, residual="skip"),
    "GRU, both directions": lambda: recurrent("gru", bidirectional=True, last=False),
    "LSTM, 2 layers, both directions": lambda: recurrent("lstm", 4, num_layers=2, bidirectional=True, last=False),
    "loss at every step": lambda: recurrent("lstm", 20, last=False),
    "readout": readout,
    "lengths": ragged,
    "two GRUs, state handed on": encoder_and_decoder,
    "GRU that resets before": lambda: recurrent("gru", reset="before"),
    "MLP": mlp,
    "residual": residual,
    "transformer": transformer,
    "numbers": neuron,
    "checkpoint": checkpointed,
    "feedback": feedback,
    "scopes inside of steps": nested,
}


def boxes_of(graph) -> tuple[layout.Layout, dict[str, tuple[float, float, float, float]], dict[str, tuple[float, float, float, float]]]:
    """The layout of a picture, and the boxes of its nodes and of the labels at its edges."""
    writer = dot.Writer(graph.model, THEMES["light"])
    placed = writer.layout

    def box(at, size):
        return at[0] - size[0] / 2, at[1] - size[1] / 2, at[0] + size[0] / 2, at[1] + size[1] / 2

    nodes = {f"n{key}": box(at, writer.sizes[key]) for key, at in placed.nodes.items()}
    sizes = {number: dot.label_size(edge, writer.labels[number]) for number, edge in enumerate(graph.model.edges)}
    return (
        placed,
        nodes,
        {f"e{number}": box(route.label, sizes[number]) for number, route in placed.routes.items() if writer.labels[number]},
    )


def meet(one, other, by: float = 0.5) -> bool:
    return all(min(one[at + 2], other[at + 2]) - max(one[at], other[at]) > by for at in (0, 1))


@pytest.mark.parametrize("rolled", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_nothing_covers_a_word(name, rolled):
    """No two nodes or labels overlap, and no line runs through a node that is not its own."""
    trace = tg.trace(PICTURES[name]())
    if rolled and not trace.layers:
        pytest.skip("nothing to roll")
    graph = render.backward_graph(trace, rolled=rolled)
    placed, nodes, labels = boxes_of(graph)
    assert [pair for pair in combinations([*nodes.items(), *labels.items()], 2) if meet(pair[0][1], pair[1][1])] == []
    inner = np.array([(left + 3, top + 3, right - 3, bottom - 3) for left, top, right, bottom in nodes.values()])
    keys = np.array([int(key[1:]) for key in nodes])
    part = np.linspace(0, 1, 9)[:, None]
    weights = np.concatenate([(1 - part) ** 3, 3 * part * (1 - part) ** 2, 3 * part**2 * (1 - part), part**3], axis=1)
    for number, route in placed.routes.items():
        edge = graph.model.edges[number]
        others = inner[(keys != edge.source) & (keys != edge.target)]
        points = np.concatenate([weights @ np.array(route.points[at : at + 4]) for at in range(0, len(route.points) - 1, 3)])
        inside = (points[:, None] > others[:, :2]) & (points[:, None] < others[:, 2:])
        assert not inside.all(axis=2).any(), edge


@pytest.mark.parametrize("name", [name for name in PICTURES if "LSTM" in name or "GRU" in name or "lstm" in name])
def test_the_highway_is_one_level_line(name):
    """All nodes and all points of a highway have one height; steps stand from left to right; columns of all layers are above each other."""
    graph = render.backward_graph(tg.trace(PICTURES[name]()))
    placed, _, _ = boxes_of(graph)
    lanes = {edge.lane for edge in graph.model.edges} - {None}
    assert lanes
    for lane in lanes:
        routes = [placed.routes[number] for number, edge in enumerate(graph.model.edges) if edge.lane == lane]
        on_it = [placed.nodes[node.key] for node in graph.model.nodes if node.lane == lane]
        assert len({round(y, 6) for _, y in [*on_it, *(at for route in routes for at in route.points)]}) == 1
    left = {(cluster.layer, cluster.first): placed.boxes[number][0] for number, cluster in enumerate(graph.model.clusters)}
    assert all((left[one] < left[other]) == (one[1] < other[1]) or one[1] == other[1] for one, other in combinations(left, 2))
    assert len(set(left.values())) == len({time for _, time in left})


def test_equal_names_have_equal_heights():
    """Every step of a network looks like the others: gates and states of one name are drawn at one height."""
    graph = render.backward_graph(traced("lstm", 5))
    placed, _, _ = boxes_of(graph)
    heights: dict[str, set[float]] = {}
    for node in graph.model.nodes:
        heights.setdefault(text.timeless(node.label), set()).add(placed.nodes[node.key][1])
    assert all(len(found) == 1 for name, found in heights.items() if name in ("h", "c", "tanh(c)", "i", "f", "g", "o", "a", "W_hh"))


@pytest.mark.parametrize("program", ["dot", "graphviz-pure"])
def test_every_program_draws_the_same(program, monkeypatch):
    """What is on the paper is where we put it: every node of the SVG has the place of the layout, up to one shift for all."""
    found = shutil.which("dot") if program == "dot" else engine._bundled()
    if not found:
        pytest.skip(f"{program} is not installed")
    monkeypatch.setattr(engine, "drawing_program", lambda: found)
    graph = render.backward_graph(traced("gru"))
    svg = graph.pipe("svg", encoding="utf-8")
    placed, _, _ = boxes_of(graph)
    shifts = []
    for key, (x, y) in placed.nodes.items():
        group = re.search(rf'<g id="[^"]*" class="node n{key}">.*?</g>', svg, re.S)[0]
        if ellipse := re.search(r'cx="([-\d.]+)" cy="([-\d.]+)"', group):
            shifts.append((float(ellipse[1]) - x, float(ellipse[2]) - y))
    assert len(shifts) > 10
    assert np.ptp(np.array(shifts), axis=0).max() < 0.2


def test_apart_is_the_nearest_that_keeps_apart():
    """Isotonic regression: no other points that keep their distances are nearer to those wished for."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        wished, spaces, weights = rng.normal(size=8) * 3, rng.uniform(0, 2, 7), rng.uniform(0.1, 5, 8)
        found = np.array(layers.apart(list(wished), list(spaces), list(weights)))
        assert (np.diff(found) >= spaces - 1e-9).all()
        for _ in range(50):
            other = np.sort(found - np.r_[0, np.cumsum(spaces)] + rng.normal(size=8) * 0.1) + np.r_[0, np.cumsum(spaces)]
            assert np.sum(weights * (other - wished) ** 2) >= np.sum(weights * (found - wished) ** 2) - 1e-9


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read(theme):
    """Contrast of all text with what it stands on is at least 4.5 (WCAG 2.1, AA); of lines at full depth, 3."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        return np.dot([0.2126, 0.7152, 0.0722], [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts])

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    t = THEMES[theme]
    for ground in (t.background, t.step, t.state, t.value, t.gate, *t.tints.values()):
        assert contrast(t.text, ground) >= 4.5
    assert min(contrast(t.muted, t.background), contrast(t.muted, t.step), contrast(t.muted, t.gate), contrast(t.sign, t.highway)) >= 4.5
    assert min(contrast(t.kinds[kind], t.step) for kind in ("add", "scale", "matmul")) >= 3.0


# -- the computation itself -------------------------------------------------------------------------------------------------------


def test_forward_of_numbers_shows_values_and_gradients():
    """As a lesson on backpropagation draws it: every node has its value and ∂result/∂value, checked by differences."""
    result = neuron()
    model = render.forward_graph(result, gradients=True).model
    notes = {node.label: node.note for node in model.nodes}
    value = math.tanh((2.0 * -3.0 + 10.0) * 2.0 / 4.0)

    def at(a, b, c):
        return math.tanh((a * b + c) * a / 4)

    step = 1e-6
    slopes = [
        (at(2 + step, -3, 10) - at(2 - step, -3, 10)),
        (at(2, -3 + step, 10) - at(2, -3 - step, 10)),
        (at(2, -3, 10 + step) - at(2, -3, 10 - step)),
    ]
    for name, given, slope in zip("abc", (2, -3, 10), slopes, strict=True):
        shown = re.fullmatch(r"(\S+) \| ∂ (\S+)", notes[name])
        assert float(shown[1]) == given and float(shown[2]) == pytest.approx(slope / (2 * step), rel=5e-3)
    assert notes["tanh"] == f"{value:.4g} | ∂ 1"
    assert "∂" not in render.forward_graph(result).source


def test_numbers_stand_in_the_nodes_of_a_backward_graph():
    """A formula of numbers shows in each node its value and ∂loss/∂value: the same as the forward picture."""
    loss = neuron()
    backward, forward = render.backward_graph(tg.trace(loss)).model, render.forward_graph(loss, gradients=True).model
    shown = {node.label: node.note for node in forward.nodes}
    assert all(node.note == shown[node.label.removeprefix("loss  ")] for node in backward.nodes if node.label != "⊙")
    assert all(re.fullmatch(r"\S+ \| ∂ \S+", node.note) for node in backward.nodes)
    assert not any("∂" in node.note for node in render.backward_graph(tg.trace(loss, keep="norms")).model.nodes)


def test_forward_edges_are_the_operands():
    """a * a + 3: two edges from a, one from the constant, and arrows that lead to the result."""
    a = tg.tensor([1.0, 2.0], requires_grad=True, name="a")
    graph = render.forward_graph(a * a + 3.0)
    labels = [node.label for node in graph.model.nodes]
    assert sorted((labels[edge.source], labels[edge.target]) for edge in graph.model.edges) == [
        ("+", "3"),
        ("+", "⊙"),
        ("⊙", "a"),
        ("⊙", "a"),
    ] or ("broadcast" in labels)
    key = {node.label: f"n{node.key}" for node in graph.model.nodes}
    assert graph.source.count(f"{key['a']} -> {key['⊙']} [") == 2
    assert {node.note for node in graph.model.nodes if node.label in "a⊙+"} == {"2"}


def test_a_closed_layer_is_one_node_until_it_is_opened():
    """A layer of 1,000 steps that ran as a kernel is drawn at once; opened, its steps are columns; too many are refused."""
    loss = recurrent("lstm", 1000)
    closed = render.forward_graph(loss).model
    (box,) = [node for node in closed.nodes if node.shape == "fold"]
    assert "lstm" in box.label and "1000 × 1 × 3" in box.note and len(closed.nodes) < 12
    with pytest.raises(ArgumentError, match=r"expected at most max_nodes=400\. Leave opaque layers closed"):
        render.forward_graph(loss, opened=True)
    opened = render.forward_graph(recurrent("lstm"), opened=True).model
    assert [cluster.label for cluster in opened.clusters] == ["t = 1", "t = 2", "t = 3"]
    assert {"h₃", "c₂", "f₁", "W_hh"} <= {node.label for node in opened.nodes}
    assert not any(node.shape == "fold" for node in opened.nodes)
    assert [node.shape for node in render.forward_graph(checkpointed(), opened={"lstm"}).model.nodes].count("fold") == 1
    assert "tanh" in {node.label for node in render.forward_graph(checkpointed(), opened={"checkpoint"}).model.nodes}


@pytest.mark.parametrize("name", PICTURES)
def test_forward_draws_everything(name):
    """Every picture's computation is drawn, its nodes do not overlap, and gradients are touched by nobody."""
    loss = PICTURES[name]()
    graph = render.forward_graph(loss, opened="30" not in name and "loss at" not in name, max_nodes=1000)
    _, nodes, _ = boxes_of(graph)
    assert [pair for pair in combinations(nodes.items(), 2) if meet(pair[0][1], pair[1][1])] == []
    assert all(edge.source < edge.target for edge in graph.model.edges)
    assert "</svg>" in graph.pipe("svg", encoding="utf-8")


def test_scopes_have_boxes():
    """Each call of a module outside of time is a box around its nodes and nothing else; two calls of one module are two boxes."""
    for graph in (render.backward_graph(tg.trace(residual())), render.forward_graph(residual())):
        placed, nodes, _ = boxes_of(graph)
        names = [graph.model.scopes[number].names for number in placed.scopes]
        assert names.count(("residual",)) == 2
        for number, box in placed.scopes.items():
            inside = {f"n{key}" for key in graph.model.scopes[number].nodes}
            assert {key for key, other in nodes.items() if meet(box, other)} <= inside


def test_forward_says_what_is_wrong():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ArgumentError, match="For a trace there is backward_graph"):
        render.forward_graph(tg.trace(x.sum()))
    with pytest.raises(ArgumentError, match="nothing was recorded"):
        render.forward_graph(tg.tensor([1.0]) * 2.0)
    with pytest.raises(ArgumentError, match="theme must be one of"):
        render.forward_graph(x * 2.0, theme="pink")
    y = x
    for _ in range(5000):
        y = y * 1.0
    with pytest.raises(ArgumentError, match="more nodes than anyone can read"):
        render.forward_graph(y)


# -- drawing --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_dot(monkeypatch):
    monkeypatch.setenv("PATH", "")


def test_draws_without_graphviz(no_dot, tmp_path):
    """With nothing on the PATH, the program of graphviz-pure draws; a notebook, a file and bytes all work, quietly."""
    graph = render.backward_graph(traced("lstm"))
    assert graph.pipe("png").startswith(b"\x89PNG")
    assert "</svg>" in graph._repr_mimebundle_()["image/svg+xml"]
    assert Path(graph.render(tmp_path / "a", format="png")).read_bytes().startswith(b"\x89PNG")
    assert Path(graph.render(outfile=tmp_path / "b.svg")).read_text(encoding="utf-8").count("<title>cluster_") == 3
    assert Path(graph.save(tmp_path / "c.dot")).read_text(encoding="utf-8") == graph.source


def test_drawing_writes_nothing_to_stderr(no_dot, capfd):
    render.backward_graph(traced("gru")).pipe("svg")
    assert capfd.readouterr() == ("", "")


def test_without_any_program_the_text_remains(no_dot, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_bundled", lambda: None)
    graph = render.backward_graph(traced("rnn"))
    with pytest.raises(RenderError) as caught:
        graph.pipe("svg")
    assert str(caught.value) == (
        "render: no program that draws graphs was found. Install one with `pip install graphviz-pure`, or Graphviz from "
        "https://graphviz.org so that `dot` is on the PATH. The DOT text is there without it: .source, .save(path)"
    )
    assert graph.source.startswith("digraph") and Path(graph.save(tmp_path / "r.dot")).exists()


def test_a_program_that_fails_is_quoted(monkeypatch, tmp_path):
    """`dot` from the PATH goes first; what it says when it fails is in the error."""
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho 'syntax error in line 7' >&2\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RenderError, match=r"dot could not draw svg \(exit status 3\): syntax error in line 7"):
        render.backward_graph(traced("rnn")).pipe("svg")


def test_a_program_that_hangs_is_stopped(monkeypatch, tmp_path):
    """After a time limit there is an error with a remedy, and the text is still there."""
    program = tmp_path / "dot"
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(engine, "PATIENCE", 0.3)
    graph = render.backward_graph(traced("rnn"))
    started = time.perf_counter()
    with pytest.raises(RenderError) as caught:
        graph.pipe("svg")
    assert str(caught.value) == (
        f"render: {program} was not done after 0.3 seconds and was stopped. Show less (rolled=True, window=(first, last)), or save the DOT "
        "text with .save(path) and draw it with another program"
    )
    assert time.perf_counter() - started < 20.0
    assert graph.source.startswith("digraph") and Path(graph.save(tmp_path / "h.dot")).exists()


def test_a_format_that_cannot_be_drawn(no_dot):
    with pytest.raises(RenderError, match="graphviz-pure draws svg and png"):
        render.backward_graph(traced("rnn")).pipe("pdf")


def test_the_graphviz_package_is_left_alone(no_dot):
    """Other users of the graphviz package see no change."""
    import graphviz

    render.backward_graph(traced("rnn")).pipe("svg")
    with pytest.raises(graphviz.ExecutableNotFound):
        graphviz.Digraph("other").pipe("svg")


@pytest.mark.parametrize("name", LAYERS)
def test_a_thousand_steps_fit_on_a_screen(name):
    """T = 1,000: rolled and folded, with layout, in two seconds, and no more than 1,920 × 1,080 pixels at their full size."""
    trace = traced(name, 1000, keep="norms")
    assert len(trace.steps) > 5_000
    for options in ({"rolled": True}, {}):
        started = time.perf_counter()
        svg = render.backward_graph(trace, **options).pipe("svg", encoding="utf-8")
        assert time.perf_counter() - started < 4.0  # two seconds is the aim; a busy machine may take twice that
        wide, high = (float(side) * 96 / 72 for side in re.search(r'<svg width="([\d.]+)pt" height="([\d.]+)pt"', svg).groups())
        assert wide <= 1920 and high <= 1080
        assert len(svg) < 120_000


def test_the_steps_of_a_cell_without_landmarks_look_alike():
    """The last step keeps its state as a node, though only a sum over it leads to the loss."""
    u, h = tg.tensor(0.5 * np.eye(3), requires_grad=True, name="U"), np.zeros((1, 3))
    for step in range(1, 5):
        with tg.scope("mine", time=step):
            h = np.tanh(h @ u + 1.0)
    graph = render.backward_graph(tg.trace(h.sum())).model
    seen = {tuple(sorted(graph.nodes[key].label for key in cluster.nodes)) for cluster in graph.clusters[1:]}
    assert seen == {("+", "U", "tanh")}


def test_closed_scopes_are_boxes():
    """A box stands for a scope: it names the leaves that only it leads to, no multiplication is lost, and the picture is small."""
    trace = tg.trace(transformer())
    opened = render.backward_graph(trace).model
    graph = render.backward_graph(trace, closed=("norm1", "norm2", "attention"))
    boxes = {node.label: node for node in graph.model.nodes if node.shape == "fold"}
    assert set(boxes) == {"norm1", "norm2", "attention"}
    assert boxes["norm1"].note == "β, γ" and "W_Q" in boxes["attention"].note
    assert not {"β", "W_Q"} & {node.label for node in graph.model.nodes} and "x" in {node.label for node in graph.model.nodes}
    drawn = [{place for part in (*model.nodes, *model.edges) for place in part.steps} for model in (opened, graph.model)]
    assert drawn[0] == drawn[1]
    placed, _, _ = boxes_of(graph)
    assert max(y for _, y in placed.nodes.values()) - min(y for _, y in placed.nodes.values()) < 300
    assert "a dashed box is a closed scope" in graph.source and render.backward_graph(trace, closed="norm1").model.count == len(trace)
    x = tg.tensor(np.ones((2, 2)), requires_grad=True, name="\0")
    with tg.scope("\\N<"):
        y = np.tanh(x)
    assert "<svg" in render.backward_graph(tg.trace((y * y).sum()), closed="\\N<").pipe("svg", encoding="utf-8")
    with pytest.raises(ArgumentError, match=r"no scope is called 'nrom'; expected closed= to name some of .*attention.*norm1"):
        render.backward_graph(trace, closed=("norm1", "nrom"))
    with pytest.raises(ArgumentError, match="closed must be names of scopes, got 3"):
        render.backward_graph(trace, closed=3)
    with pytest.raises(ArgumentError, match="leave out rolled=True"):
        render.backward_graph(traced("rnn"), rolled=True, closed="norm1")


def test_rolled_up_a_factor_of_every_step_is_one_short_label():
    """Where each of 50 steps multiplies by another number, the label tells the last and the first."""
    h = tg.tensor([1.0], requires_grad=True, name="x")
    for step in range(1, 51):
        with tg.scope("mine", time=step):
            h = tg.landmark(np.tanh(h) * (1.0 + step / 100), "h", "hidden")
    labels = {edge.label for edge in render.backward_graph(tg.trace(h.sum()), rolled=True).model.edges}
    assert "⊙ 1.5 … ⊙ 1.02" in labels and all(len(label) < 40 for label in labels)


def test_rolled_up_a_state_is_one_node():
    """Computed, kept beyond a sequence's end or handed over: h and c are one node each, and one line of the highway joins c to c."""
    trace = tg.trace(ragged())
    graph = render.backward_graph(trace, rolled=True).model
    assert sorted(node.label for node in graph.nodes if node.shape == "state") == ["cₜ", "cₜ₋₁", "hₜ", "hₜ₋₁"]
    (past,) = (node.key for node in graph.nodes if node.label == "cₜ₋₁")
    (now,) = (node.key for node in graph.nodes if node.label == "cₜ")
    assert [edge.label for edge in graph.edges if (edge.source, edge.target) == (now, past)] == ["⊙ [not chosen], ⊙ fₜ"]


def test_a_hundred_steps_are_drawn_one_by_one():
    trace = traced("rnn", 100)
    graph = render.backward_graph(trace, window=(1, 100), max_nodes=2000)
    assert len(graph.model.clusters) == 100
    assert "t = 57" in graph.pipe("svg", encoding="utf-8")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for layer_name in LAYERS:
        (GOLDEN / f"{layer_name}.dot").write_text(render.backward_graph(traced(layer_name)).source, encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
