"""The player in a real browser: what it shows is what the ledger holds, however it is worked and whatever things are called."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
import struct
import sys

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, render
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.render.equation import System
from tinygrad_rnn.render.player import way_of_most

HOSTILE = "\"><script>window.hit=1</script><img src=x onerror='window.hit=1'></svg></style>{title}\\N'\n\0\ud800\u202e" + "a" * 10_000
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def traced(name="lstm", steps=4, batch=2, hidden=3, keep="arrays", **options):
    x = np.random.default_rng(1).standard_normal((steps, batch, 2))
    outputs, _ = LAYERS[name](2, hidden, rng=0, **options)(x)
    return tg.trace((outputs[-1] ** 2).sum(), keep=keep)


@pytest.fixture
def played(opened, tmp_path):
    """``with played(trace, width=…) as (tab, seen)``: the page of a trace, open."""

    def play(trace, **options):
        return opened(render.player(trace, tmp_path / "player.html"), **options)

    return play


def data_of(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])


def now(tab):
    return int(tab.evaluate("document.documentElement.dataset.step"))


def go(tab, place):
    tab.evaluate("place => {const r = document.getElementById('place'); r.value = place + 1; r.dispatchEvent(new Event('input'))}", place)
    assert now(tab) == place


def number(text):
    """What a number on the page says: 1.2·10⁻⁵, −0.3, ∞."""
    text = text.replace("−", "-").replace("∞", "inf")
    digits, _, power = text.partition("·10")
    return math.nan if digits == "–" else float(digits) * 10.0 ** int(power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")) or 0)


READ = """async (places) => {
    const all = [], range = document.getElementById("place");
    for (const place of places) {
        if (place !== null) { range.value = place + 1; range.dispatchEvent(new Event("input")); }
        document.querySelectorAll("#maps details").forEach((one) => { one.open = true; });
        const waiting = () => [...document.querySelectorAll("#maps details")].some((one) => !one.querySelector("table"));
        while (waiting()) await new Promise((on) => setTimeout(on, 0));
        const rows = (table) => [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1).map((cell) => cell.textContent));
        all.push([[...document.querySelectorAll("#maps table")].map(rows), document.querySelector("#gain b").textContent]);
    }
    return all;
}"""


def read(tab, places):
    """At each place: the arrays beside each other, as the tables under the heat maps have them, and the gain."""
    return [
        ([np.array([[number(cell) for cell in row] for row in table]) for table in shown], number(gain))
        for shown, gain in tab.evaluate(READ, list(places))
    ]


def tables(tab):
    """The arrays of the current step."""
    ((shown, _),) = read(tab, [None])
    return shown


def flat(array):
    array = np.asarray(array, dtype=np.float64)
    return array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(1, -1)


# -- the right numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_every_step_shows_its_multiplication(played, name):
    """Cotangent, factor and contribution of every step are the ledger's, and the factor times the cotangent is the contribution."""
    trace = traced(name, steps=2)
    with played(trace) as (tab, seen):
        for (shown, gain), step in zip(read(tab, range(len(trace.steps))), trace.steps, strict=True):
            arrays = [step.cotangent, step.contribution]
            got = [shown[0], shown[-1]]
            if step.kind == "scale":
                assert len(shown) == 3
                np.testing.assert_allclose(np.broadcast_to(shown[1], got[0].shape) * got[0], got[1], rtol=2e-3, atol=1e-9)
            elif step.kind == "matmul":
                left = step.label.endswith(" ·")
                got = [shown[1] if left else shown[0], shown[2]]
                factor = shown[0] if left else shown[1]
                np.testing.assert_allclose(
                    factor @ got[0] if left else got[0] @ factor, got[1], rtol=5e-3, atol=1e-3 * np.abs(got[1]).max()
                )
            else:
                assert len(shown) == 2
            for expected, found in zip(arrays, got, strict=True):
                np.testing.assert_allclose(found, flat(expected), rtol=6e-4, atol=0.0)
            assert gain == pytest.approx(step.gain, rel=6e-3, nan_ok=True)
        assert seen.nothing_wrong()


def test_numbers_in_the_file_are_the_ledgers(tmp_path):
    """The norms are kept to the last bit, the arrays to float32's digits relative to their largest entry, however small they are."""
    x = tg.tensor([1e-290, -3e-291, 0.0], requires_grad=True, name="x")
    trace = tg.trace((x * np.array([2e-5, 1e-5, 3e-5])).sum(), cotangent=1e-280)
    data = data_of(render.player(trace, tmp_path / "p.html"))
    norms = struct.unpack(f"<{2 * len(trace.steps)}d", base64.b64decode(data["norms"]))
    assert list(norms) == [norm for step in trace.steps for norm in step.norms]
    for step, arrays in zip(trace.steps, data["arrays"], strict=True):
        for array, which in ((step.cotangent, arrays[0]), (step.contribution, arrays[2])):
            shape, rows, columns, scale, packed = data["maps"][which]
            assert tuple(shape) == np.shape(array) and rows is columns is None
            entries = np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float64) * scale
            np.testing.assert_allclose(entries, np.ravel(array), rtol=1e-6, atol=0)


def test_the_formula_and_the_chain_rule(played):
    """The current multiplication stands in symbols; below it the lines of render.equation, the current part marked."""
    trace = traced("rnn")
    (place,) = (k for k, step in enumerate(trace.steps) if step.label == "· W_hhᵀ" and step.time == 4)
    with played(trace) as (tab, seen):
        go(tab, place)
        assert tab.text_content("#formula").replace(" ", "") == "δh3=WhhTδ(h3@WhhT)"
        lines = tab.eval_on_selector_all("#lines math", "all => all.map((line) => line.textContent.replace(/\\s/g, ''))")
        assert lines[:2] == ["δh3=WhhTδa4", "δa4=δh4⊙(1−h42)"]
        assert tab.text_content("#lines .this").replace(" ", "") == "WhhTδa4"
        norm = number(tab.text_content("#lines .size").removeprefix("norm "))
        assert norm == pytest.approx(trace.states()[3].hidden.norm, rel=6e-3)
        assert seen.nothing_wrong()


def test_the_curve_grows_to_the_states_norms(played):
    """log₁₀ ‖δ_t‖/‖δ_T‖ of every t is in the page, and the text says it when the step is reached, not before."""
    trace = traced("lstm", steps=6)
    states = trace.states()
    with played(trace) as (tab, seen):
        y = tab.evaluate("JSON.parse(document.getElementById('data').textContent).curves[0].y")
        assert y == pytest.approx([math.log10(at.norm / states[6].norm) for at in states], abs=1e-5)
        assert tab.text_content("#plots p:last-child") == "Nothing has arrived there yet."
        tab.select_option("#time", "3")
        assert tab.text_content("#plots p:last-child").startswith("At t = 3: ")
        assert number(tab.text_content("#plots p:last-child").split()[4]) == pytest.approx(states[3].norm / states[6].norm, rel=6e-3)
        drawn = tab.get_attribute("#plots .so-far", "points").split()
        assert len(drawn) == 4
        tab.keyboard.press("Escape")
        assert seen.nothing_wrong()


# -- where most is lost ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_most_is_lost_where_the_instrument_says(played, name):
    """L leads to the multiplication and the step that flow.vanishing_product names first."""
    trace = traced(name, steps=6)
    edge = tg.flow.vanishing_product(trace).edges[0]
    with played(trace) as (tab, seen):
        tab.keyboard.press("l")
        step = trace.steps[now(tab)]
        assert (step.time, step.op, step.kind, step.gate) == (edge.time, edge.op, edge.kind, edge.gate)
        assert math.log10(step.gain) == pytest.approx(edge.log10_gain_then, abs=1e-9)
        assert "Most is lost here" in tab.text_content("#words")
        assert seen.nothing_wrong()


def test_the_way_that_carries_most():
    """Of all ways from the loss to the earliest state, enumerated, the one with the largest product of gains is taken."""
    for name, steps in itertools.product(LAYERS, (2, 3)):
        trace = traced(name, steps=steps, keep="norms")
        found = way_of_most(System(trace))
        onward: dict[int, list[int]] = {}
        for place, step in enumerate(trace.steps):
            onward.setdefault(step.node.order, []).append(place)
        end = trace.steps[found[-1]].operand
        best, ways = 0.0, [([], 1.0, trace.root.order)]
        while ways:
            way, product, at = ways.pop()
            if at == end.order:
                best = max(best, product)
            ways += [([*way, k], product * trace.steps[k].gain, trace.steps[k].operand.order) for k in onward.get(at, ())]
        assert end.role in ("hidden", "cell") and end.time == 1
        product = math.prod(trace.steps[k].gain for k in found if trace.steps[k].op not in ("index", "stack"))
        assert product == pytest.approx(best, rel=1e-9)


# -- working it -----------------------------------------------------------------------------------------------------------------------


def test_keys(played):
    """Arrows, Home, End, space, T, / and ? do what the help says, and typing in the search field moves nothing."""
    trace = traced("rnn")
    with played(trace) as (tab, seen):
        press = tab.keyboard.press
        for keys, place in (
            (("ArrowRight",) * 2, 2),
            (("ArrowLeft",), 1),
            (("End",), len(trace.steps) - 1),
            (("ArrowRight",), None),
            (("Home",), 0),
        ):
            for key in keys:
                press(key)
            assert now(tab) == (len(trace.steps) - 1 if place is None else place)
        press("/")
        tab.keyboard.type("l ?")
        assert now(tab) == 0 and tab.input_value("#of-text") == "l ?"
        assert not tab.evaluate("document.getElementById('keys').open")
        tab.evaluate("document.activeElement.blur()")
        press("?")
        assert tab.evaluate("document.getElementById('keys').open")
        press("ArrowRight")
        assert now(tab) == 0
        press("Escape")
        press("t")
        assert tab.evaluate("document.activeElement.id") == "time"
        assert seen.nothing_wrong()


def test_playing(played):
    """Space plays to the end and stops there; space again begins anew; a press in between pauses."""
    trace = tg.trace(np.tanh(tg.tensor([1.0, 2.0], requires_grad=True, name="x") * 2.0).sum())
    with played(trace) as (tab, seen):
        tab.select_option("#speed", "30")
        tab.evaluate("document.activeElement.blur()")
        tab.keyboard.press(" ")
        tab.wait_for_selector(f"html[data-step='{len(trace.steps) - 1}']")
        tab.wait_for_selector("#play[aria-label=Play]")
        tab.select_option("#speed", "1")
        tab.evaluate("document.activeElement.blur()")
        tab.keyboard.press(" ")
        assert now(tab) == 0 and tab.get_attribute("#play", "aria-label") == "Pause"
        tab.keyboard.press(" ")
        assert tab.get_attribute("#play", "aria-label") == "Play"
        assert seen.nothing_wrong()


def test_the_ledger_filters(played):
    """Kind, time, gate and text leave what trace.filter leaves; a row leads to its step; stepping can keep to them."""
    trace = traced("lstm")
    place = {id(step): k for k, step in enumerate(trace.steps)}
    rows = "[...document.querySelectorAll('#rows tbody tr')].map((row) => Number(row.dataset.step))"
    with played(trace) as (tab, seen):
        for chosen, expected in (
            ({"#of-kind": "matmul"}, trace.filter(kind="matmul")),
            ({"#of-kind": "scale", "#of-time": "3"}, trace.filter(kind="scale", time=3)),
            ({"#of-gate": "forget", "#of-time": "2"}, trace.filter(gate="forget", time=2)),
        ):
            tab.click("#clear")
            for field, value in chosen.items():
                tab.select_option(field, value)
            assert tab.evaluate(rows) == [place[id(step)] for step in expected]
            assert tab.text_content("#found") == f"{len(expected)} of {len(trace.steps)} multiplications"
        tab.click("#clear")
        tab.fill("#of-text", "W_hh matmul")
        wanted = [
            place[id(s)] for s in trace.filter(kind="matmul", where=lambda s: "W_hh" in f"{s.node.symbol} {s.operand.symbol} {s.label}")
        ]
        assert set(tab.evaluate(rows)) >= set(wanted) and len(wanted) == 7
        tab.check("#only")
        tab.evaluate("document.activeElement.blur()")
        tab.keyboard.press("Home")
        first = tab.evaluate(rows)[0]
        tab.keyboard.press("ArrowRight")
        assert now(tab) == first
        tab.click("#rows tbody tr:nth-child(3)")
        assert now(tab) == tab.evaluate(rows)[2]
        assert tab.get_attribute("#rows tr[aria-current]", "data-step") == str(now(tab))
        assert seen.nothing_wrong()


def test_the_graph_follows(played):
    """The edge of the current multiplication is marked, and what ran before it shows; a click on an edge leads to its multiplication."""
    trace = traced("lstm")
    model = render.backward_graph(trace, ends=4).model
    with played(trace) as (tab, seen):
        (place,) = (k for k, step in enumerate(trace.steps) if step.label == "⊙ f₃")
        go(tab, place)
        marked = set(
            tab.evaluate(
                "[...document.querySelectorAll('#paper g.edge.now')].map((g) => /e(\\d+)/.exec(g.classList.value.replace('edge', ''))[1])"
            )
        )
        assert [model.edges[int(k)].label for k in marked] == ["⊙ f₃"]
        done = set(
            tab.evaluate(
                "[...document.querySelectorAll('#paper g.edge.done')].map((g) => /e(\\d+)/.exec(g.classList.value.replace('edge', ''))[1])"
            )
        )
        assert {k for k, edge in enumerate(model.edges) if max(edge.steps) <= place} == {int(k) for k in done}
        for label in ("⊙ f₃", "· W_hhᵀ"):  # what stands on the marked line can still be read
            go(tab, next(k for k, step in enumerate(trace.steps) if step.label == label))
            inks = tab.eval_on_selector_all("#paper g.edge.now text", "all => all.map((one) => getComputedStyle(one).fill)")
            beneath = "#paper g.edge.now [stroke=transparent]"
            plates = tab.eval_on_selector_all(beneath, "all => all.map((one) => getComputedStyle(one).fill)")
            assert len(set(inks)) == len(set(plates)) == 1 and set(inks) != set(plates)
        other = next(k for k, edge in enumerate(model.edges) if edge.label == "⊙ (1 − g₂²)")
        tab.evaluate(f"document.querySelector('#paper .e{other}').dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
        assert trace.steps[now(tab)].label == "⊙ (1 − g₂²)"
        assert seen.nothing_wrong()


def test_heat_maps_are_read_with_keys(played):
    """With the focus on a heat map the arrows move over its entries, whose numbers are said, and not through the steps."""
    trace = traced("rnn")
    (place,) = (k for k, step in enumerate(trace.steps) if step.label == "⊙ (1 − h₃²)")
    with played(trace) as (tab, seen):
        go(tab, place)
        tab.focus("#maps canvas")
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowDown")
        said = tab.text_content("#maps .read")
        assert said.startswith("[1, 1]") and number(said.split()[-1]) == pytest.approx(trace.steps[place].cotangent[1, 1], rel=1e-4)
        assert now(tab) == place
        labels = tab.eval_on_selector_all("#maps canvas", "all => all.map((one) => one.getAttribute('aria-label'))")
        assert len(labels) == 3 and all("2 by 3" in label for label in labels)
        assert seen.nothing_wrong()


def test_what_a_screen_reader_hears(played):
    """Each step is announced; every control, region and field has a name."""
    with played(traced("rnn")) as (tab, seen):
        tab.keyboard.press("ArrowRight")
        assert re.fullmatch(r"Multiplication 2 of \d+: .+ to .+, .+, gain .+\.", tab.text_content("#live"))
        assert tab.get_attribute("#live", "aria-live") == "polite"
        nameless = tab.eval_on_selector_all(
            "button, select, input, section, [role=region], canvas",
            "(all) => all.filter((one) => !(one.getAttribute('aria-label') || one.getAttribute('aria-labelledby')"
            " || one.textContent.trim() || (one.labels && one.labels.length))).map((one) => one.outerHTML)",
        )
        assert nameless == []
        assert seen.nothing_wrong()


# -- widths, colours, size -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_no_width_scrolls_the_page_sideways(played, width):
    """At 360 pixels and more nothing sticks out, at any of some steps, tables open; a narrow page has one column."""
    trace = traced("lstm", hidden=40)
    with played(trace, width=width) as (tab, seen):
        for place in (0, 10, 25, 26, 60):
            go(tab, place)
            tables(tab)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.getElementById('maps'))")
            sections = tab.eval_on_selector_all("section", "all => all.map((one) => one.clientWidth)")
            assert min(sections) > (0.85 if width < 960 else 0.4) * width
        assert seen.nothing_wrong()


def test_dark_and_calm(played):
    """In the dark the paper and the graph's ink swap; who wants no motion gets none; the keyboard's focus is seen."""
    trace = traced("rnn")
    look = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('#paper g.node text')).fill]"
    with played(trace) as (tab, _):
        light = tab.evaluate(look)
    with played(trace, dark=True, reduced_motion="reduce") as (tab, seen):
        dark = tab.evaluate(look)
        brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (*light, *dark)]
        assert brightness[0] > 600 > brightness[1] and brightness[2] < 200 < brightness[3]
        assert tab.evaluate("getComputedStyle(document.querySelector('#paper g.edge')).transitionDuration") == "0s"
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert seen.nothing_wrong()


def test_twenty_steps_of_an_lstm(opened, tmp_path):
    """Under 2 MB even where the arrays alone are 60; larger heat maps are thinned out, and say so; it opens in under a second."""
    outputs, _ = nn.LSTM(64, 128, rng=0)(np.random.default_rng(0).standard_normal((20, 16, 64)))
    trace = tg.trace(outputs[-1].sum())
    path = render.player(trace, tmp_path / "p.html")
    assert path.stat().st_size < 2_000_000
    fastest = math.inf
    for _ in range(3):
        with opened(path) as (tab, seen):
            fastest = min(fastest, tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
            place = next(k for k, step in enumerate(trace.steps) if step.kind == "scale")
            go(tab, place)
            (first, factor, last), side = tables(tab), data_of(path)["side"]
            assert first.shape == (min(16, side), side)
            np.testing.assert_allclose(first * factor, last, rtol=2e-3)
            picked = [
                int(text)
                for text in tab.eval_on_selector_all(
                    "#maps table >> nth=0", "t => [...t[0].tHead.rows[0].cells].slice(1).map((c) => c.textContent)"
                )
            ]
            np.testing.assert_allclose(first[0], trace.steps[place].cotangent[0, picked], rtol=6e-4)
            assert f"{side} of 128 columns" in tab.text_content("#maps")
            assert seen.nothing_wrong()
    assert fastest < 1000.0


def test_a_thousand_steps(played, tmp_path):
    """The middle is one box; its steps have norms, and say why they have no heat maps; the page stays small and works."""
    outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((1000, 1, 2)))
    trace = tg.trace(outputs[-1].sum())
    with played(trace) as (tab, seen):
        assert "992 of the time steps are one box" in tab.text_content("header")
        tab.select_option("#time", "500")
        assert trace.steps[now(tab)].time == 500
        assert "norms only" in tab.text_content("#maps")
        assert number(tab.text_content("#gain b")) == pytest.approx(trace.steps[now(tab)].gain, rel=6e-3)
        assert tab.query_selector_all("#paper g.node.now")
        tab.keyboard.press("Escape")
        tab.evaluate("document.activeElement.blur()")
        tab.keyboard.press("End")
        assert len(tables(tab)) == 2
        assert seen.nothing_wrong()
    assert (tmp_path / "player.html").stat().st_size < 5_000_000


def test_a_long_chain_without_time(played, tmp_path):
    """Of 8,000 multiplications outside of time the first have heat maps; there is no graph of so many, and the page says so."""
    x = tg.tensor([1.0, -0.5], requires_grad=True, name="x")
    value = x
    for _ in range(4000):
        value = np.tanh(value) + x
    trace = tg.trace(value.sum())
    with played(trace) as (tab, seen):
        assert "The first 3,000" in tab.text_content("header") and "nobody can read" in tab.text_content(".without")
        tab.keyboard.press("End")
        assert "norms" in tab.text_content("#maps")
        assert seen.nothing_wrong()
    assert (tmp_path / "player.html").stat().st_size < 6_000_000


def test_norms_only(played):
    """A trace that kept norms plays without heat maps, and says why."""
    trace = traced("gru", keep="norms")
    with played(trace) as (tab, seen):
        tab.keyboard.press("l")
        assert 'keep="arrays"' in tab.text_content("#maps") and tab.query_selector("#maps canvas") is None
        assert number(tab.text_content("#gain b")) == pytest.approx(trace.steps[now(tab)].gain, rel=6e-3)
        assert tab.query_selector("#formula math") is not None
        assert seen.nothing_wrong()


# -- any trace, any name -------------------------------------------------------------------------------------------------------------


def perceptron():
    x = tg.tensor(np.linspace(-1, 1, 6).reshape(3, 2), name="x")
    layers = [
        tg.tensor(np.cos(np.arange(n * m)).reshape(n, m), requires_grad=True, name=f"W{k}")
        for k, (n, m) in enumerate(((2, 4), (4, 4), (4, 1)))
    ]
    for weight in layers:
        x = np.tanh(x @ weight)
    return x.sum()


def odd():
    x = tg.tensor([[1.0, math.inf], [math.nan, -2.0]], requires_grad=True, name="x")
    return (x * x + tg.tensor(np.zeros((0, 2)), requires_grad=True, name="empty").sum()).sum()


@pytest.mark.parametrize("loss", [perceptron, odd, lambda: tg.tensor(2.0, requires_grad=True, name="a") * 3.0])
def test_what_is_no_recurrence_plays_too(played, loss):
    """A perceptron, NaN, infinities and empty arrays, a single number: all steps show, without time and without errors."""
    trace = tg.trace(loss())
    with played(trace) as (tab, seen):
        for place in range(len(trace.steps)):
            go(tab, place)
        tab.keyboard.press("l")
        assert not tab.is_visible("#time")
        assert seen.nothing_wrong()


@pytest.mark.parametrize("name", [HOSTILE, "\\N", "'", "</script>", "{title}", "&lt;", "\ud800", "`${1}`", "__proto__"])
def test_a_hostile_name_is_text(played, name):
    """A name that would be code, or is no text at all, neither runs nor breaks the page: as a Tensor's, a scope's, a gate's, a title's."""
    x = tg.tensor([1.0, 2.0], requires_grad=True, name=name)
    with tg.scope(name), tg.scope(time=1):
        loss = (np.tanh(x) * x).sum()
    trace = tg.trace(loss)
    with played(trace) as (tab, seen):
        for place in range(len(trace.steps)):
            go(tab, place)
        assert tab.evaluate("window.hit") is None
        assert tab.evaluate("document.scripts.length") == 2 and tab.query_selector("img") is None
        assert len(tab.text_content("#ledger")) < 20_000
        assert seen.nothing_wrong()


def test_a_title(opened, tmp_path):
    """The title is text in the heading and in the window."""
    with opened(render.player(traced("rnn"), tmp_path / "p.html", title=HOSTILE[:60])) as (tab, seen):
        assert "<script>" in tab.title() and "<script>" in tab.text_content("h1")
        assert tab.evaluate("window.hit") is None and seen.nothing_wrong()


def test_without_a_drawing_program(opened, tmp_path, monkeypatch):
    """Where nothing can draw, the page comes without the graph, and says what to install."""
    monkeypatch.setattr("tinygrad_rnn.render.engine.drawing_program", lambda: str(tmp_path / "none"))
    with opened(render.player(traced("rnn"), tmp_path / "p.html")) as (tab, seen):
        assert "cannot be run" in tab.text_content(".without")
        tab.keyboard.press("ArrowRight")
        assert now(tab) == 1 and seen.nothing_wrong()


def test_wrong_arguments(tmp_path, monkeypatch):
    """Something other than a trace, and a folder that does not exist, are refused before anything is written."""
    with pytest.raises(ArgumentError, match="player: expected a trace, got int"):
        render.player(3, tmp_path / "p.html")
    with pytest.raises(ArgumentError, match="0 multiplications are nothing to play"):
        render.player(tg.trace(tg.tensor(1.0, requires_grad=True)), tmp_path / "p.html")
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["tinygrad_rnn.render.player"], "_MOST", 20)
        with pytest.raises(ArgumentError, match=r"more than a page can play; expected 1 to 20\. Trace fewer time steps"):
            render.player(traced("rnn"), tmp_path / "p.html")
    with pytest.raises(FileNotFoundError):
        render.player(traced("rnn"), tmp_path / "none" / "p.html")
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes(tmp_path):
    """Two pages of the same pass are the same file."""
    first, second = (render.player(traced("gru"), tmp_path / f"{k}.html").read_bytes() for k in range(2))
    assert first == second
