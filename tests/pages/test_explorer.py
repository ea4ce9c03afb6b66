"""The explorer in a real browser: what its sliders show is what the engine measures."""

from __future__ import annotations

import re
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn, render
from tinygrad_rnn.errors import ArgumentError, RenderError
from tinygrad_rnn.render import sweep

HALF = 0.5e-4 + 1e-9
"""Half of a unit in the last place that the page shows of a logarithm."""


@pytest.fixture(scope="session")
def made(browser, tmp_path_factory):
    """The page as it is made by default."""
    return render.explorer(tmp_path_factory.mktemp("explorer") / "explorer.html")


def choose(page, network, initialisation, radius, length, lag=None):
    """Set everything as a reader would: radio buttons by their label, sliders by value."""
    page.locator("#networks").get_by_label(network, exact=True).check()
    page.locator("#initialisations").get_by_label(initialisation, exact=True).check()
    for name, stops, value in (("radius", sweep.RADII, radius), ("length", sweep.LENGTHS, length)):
        page.locator(f"#{name}").fill(str(stops.index(value)))
    if lag is not None:
        page.locator("#lag").fill(str(lag))


def shown(page):
    """The numbers beside the curve: measured and formula as logarithms with four decimals, the others as they are written."""
    cells = page.locator("#readout dd").all_inner_texts()
    logs = [float(re.search(r"log₁₀ = (\S+)", text)[1].replace("−", "-")) for text in cells[:2]]
    return [*logs, *(np.nan if text == "–" else float(text) for text in cells[2:])]


def by_hand(network, initialisation, radius, length, seed=0):
    """The same network made and traced again: log₁₀ ratio and both parts by lag, from a ledger with everything in it."""
    rng = np.random.default_rng(seed)
    inputs, direction = rng.standard_normal((max(sweep.LENGTHS), 1, 4))[:length], rng.standard_normal(16)

    def draw(shape, rng):
        weight = {"orthogonal": nn.init.orthogonal, "identity": nn.init.identity}.get(initialisation, nn.init.spectral_radius(1.0))
        return radius * weight(shape, rng)

    kind = {"tanh": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}[re.match(r"\w+", network)[0]]
    bias = re.search(r"forget bias (\S+)", network)
    more = {"forget_bias": float(bias[1].replace("−", "-"))} if bias else {}
    layer = kind(4, 16, init=draw, rng=rng, **more)
    zeros = [tg.tensor(np.zeros((1, 1, 16)), requires_grad=True) for _ in range(2 if kind is nn.LSTM else 1)]
    begin = {nn.RNN: nn.RNNState, nn.LSTM: nn.LSTMState, nn.GRU: nn.GRUState}[kind](*zeros)
    loss = (layer(inputs, begin)[0][-1] * direction).sum()
    found = flow.vanishing_product(tg.trace(loss))  # back to the initial state, since it takes a gradient
    return found.log10_product, found.saturation, found.weight


@pytest.mark.parametrize(
    ("network", "initialisation", "radius", "length"),
    [
        ("tanh RNN", "orthogonal", 0.9, 100),
        ("tanh RNN", "Gaussian", 1.5, 200),
        ("tanh RNN", "identity", 0.5, 10),
        ("LSTM, forget bias 1", "orthogonal", 1.0, 200),
        ("LSTM, forget bias −1", "identity", 1.25, 60),
        ("LSTM, forget bias 4", "Gaussian", 0.75, 150),
        ("GRU", "Gaussian", 1.1, 80),
    ],
)
def test_sliders_move_the_curve_to_the_numbers_of_the_engine(made, opened, network, initialisation, radius, length):
    """At every setting, what is read at a lag is an independently made trace's number, to the last digit that is shown."""
    logs, saturation, weight = by_hand(network, initialisation, radius, length)
    with opened(made) as (page, seen):
        choose(page, network, initialisation, radius, length)
        for lag in (0, 1, length // 3, length - 1, length):
            page.locator("#lag").fill(str(lag))
            measured, formula, gain, *parts = shown(page)
            assert abs(measured - logs[lag]) <= HALF
            assert abs(formula - lag * np.log10(radius)) <= HALF
            if lag:
                assert gain == pytest.approx(10 ** (logs[lag] - logs[lag - 1]), rel=5.1e-3)
            if lag == 0 or "RNN" not in network:
                assert np.isnan(parts).all()
            else:
                assert parts == pytest.approx([saturation[lag], weight[lag]], rel=5.1e-3)
        assert seen.nothing_wrong()


FAULTS = {
    "a curve that is one lag late": lambda log10_ratio, *parts: (np.append(0.0, log10_ratio[:-1]), *parts),
    "saturation and weight exchanged": lambda log10_ratio, saturation=None, weight=None: (log10_ratio, weight, saturation),
    "a ratio that is 1 % too large": lambda log10_ratio, *parts: (log10_ratio + np.log10(1.01) * (np.arange(len(log10_ratio)) > 0), *parts),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_seen(opened, tmp_path, monkeypatch, fault):
    """With a wrong curve behind the page, what is read from it is not what the engine says: the comparison above can fail."""
    real = sweep.Curve
    monkeypatch.setattr(sweep, "Curve", lambda *given: real(*FAULTS[fault](*given)))
    monkeypatch.setattr(sys.modules["tinygrad_rnn.render.explorer"], "NETWORKS", sweep.NETWORKS[:2])
    radii, lengths = (0.9, 1.1), (10, 200)
    wrong = render.explorer(tmp_path / "wrong.html", radii=radii, lengths=lengths)
    logs, saturation, weight = by_hand("tanh RNN", "Gaussian", 0.9, 10)
    with opened(wrong) as (page, _):
        page.locator("#networks").get_by_label("tanh RNN", exact=True).check()
        page.locator("#initialisations").get_by_label("Gaussian", exact=True).check()
        page.locator("#radius").fill("0")
        page.locator("#length").fill("0")
        page.locator("#lag").fill("10")
        measured, _, _, *parts = shown(page)
    right = abs(measured - logs[10]) <= HALF and parts == pytest.approx([saturation[10], weight[10]], rel=5.1e-3)
    assert not right


def test_the_linear_recurrence_is_its_eigenvalues(made, opened):
    """The lecture's 0.9¹⁰⁰ = 2.66e-5 and 1.1¹⁰⁰ = 1.38e4, from the engine and from the formula, in the sentence that is read aloud."""
    with opened(made) as (page, _):
        for radius, said in ((0.9, "2.66 · 10⁻⁵"), (1.1, "1.38 · 10⁴")):
            choose(page, "linear", "orthogonal", radius, 100, 100)
            measured, formula, *_ = shown(page)
            assert measured == formula == pytest.approx(100 * np.log10(radius), abs=HALF)
            assert said in page.locator("#verdict").inner_text()
            assert said in page.locator("#curve").get_attribute("aria-label")


def test_the_curve_is_drawn_where_its_numbers_are(made, opened):
    """The drawn line passes through the measured number at each lag, on the logarithmic and on the linear axis."""
    logs, *_ = by_hand("tanh RNN", "orthogonal", 1.0, 50)
    with opened(made) as (page, _):
        choose(page, "tanh RNN", "orthogonal", 1.0, 50)
        page.get_by_label("other networks too").uncheck()
        for axis, heights in (("logarithmic", logs), ("linear", 10**logs)):
            page.get_by_role("group", name="Axis").get_by_label(axis, exact=True).check()
            drawn = page.locator("#curve path.own").get_attribute("d")
            points = np.array(re.findall(r"([\d.]+) ([\d.]+)", drawn), dtype=float)
            assert len(points) == 51
            slope, start = np.polyfit(heights, points[:, 1], 1)
            assert slope < 0 and np.abs(start + slope * heights - points[:, 1]).max() < 0.2
            assert np.ptp(np.diff(points[:, 0])) <= 0.11


def test_it_opens_quickly_and_stays_small(made, opened):
    """Under 3 MB; the first numbers are there in less than a second; nothing is requested, nothing goes wrong."""
    assert made.stat().st_size < 3_000_000
    times = []
    for _ in range(3):
        began = time.perf_counter()
        with opened(made) as (page, seen):
            assert page.locator("#verdict").inner_text().startswith("vanishing")
            times.append(time.perf_counter() - began)
            assert seen.nothing_wrong()
    assert min(times) < 1.0


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1280, True)])
def test_it_fits(made, opened, width, dark):
    """At 360 pixels nothing is wider than the screen, and sliders and curve are seen together; in the dark, text is light."""
    with opened(made, width=width, dark=dark) as (page, seen):
        for number in range(page.locator("#presets button").count()):
            page.locator("#presets button").nth(number).click()
            said, sliders = page.locator("#verdict").bounding_box(), page.locator("#sliders").bounding_box()
            assert 0 <= said["y"] < 800 and (width > 860 or said["y"] >= sliders["y"] + sliders["height"])  # it can be read at once
        page.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.evaluate("scrollTo(0, 0)")
        assert page.locator("#radius").bounding_box()["y"] < page.locator("#curve").bounding_box()["y"] + 400 < 1000
        light = page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)[0]")
        assert (light > 200) is dark
        assert seen.nothing_wrong()


def test_everything_can_be_done_with_the_keyboard(made, opened):
    """Tab reaches both sliders first; arrow keys move them by one stop, and what they mean is told."""
    with opened(made) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "radius"
        page.keyboard.press("ArrowRight")
        assert page.locator("#radius").get_attribute("aria-valuetext") == "0.95" and page.locator("#radius-shown").inner_text() == "0.95"
        page.keyboard.press("Tab")
        page.keyboard.press("End")
        assert page.locator("#length").get_attribute("aria-valuetext") == "200 steps"
        names = page.evaluate(
            "[...document.querySelectorAll('input, button, summary')].map(e => (e.labels && e.labels[0] || e).textContent.trim())"
        )
        assert all(names)
        assert page.locator("svg[role=img]").count() == 2
        assert all(page.locator("svg").nth(k).get_attribute("aria-label") for k in (0, 1))


def unfold(page):
    """Open the table; a browser tells the page of it a moment later."""
    page.locator("summary").click()
    page.locator("table tbody tr").first.wait_for()


def test_the_table_has_every_lag(made, opened):
    """Opened, it holds the same numbers as the curve, a row per step back."""
    logs, *_ = by_hand("GRU", "orthogonal", 0.9, 20)
    with opened(made) as (page, _):
        choose(page, "GRU", "orthogonal", 0.9, 20)
        unfold(page)
        rows = page.locator("table tbody tr").all_inner_texts()
        found = [float(row.split("\t")[3].replace("−", "-")) for row in rows]
        assert len(found) == 21 and np.abs(np.array(found) - logs).max() <= HALF


def test_presets_are_true(made, opened):
    """What a button promises is what is then seen."""
    with opened(made) as (page, _):
        said = {}
        for number in range(page.locator("#presets button").count()):
            button = page.locator("#presets button").nth(number)
            button.click()
            label = page.locator("#curve").get_attribute("aria-label")
            said[button.locator("strong").inner_text()] = label
            assert "NaN" not in page.locator("#view").inner_text() and "undefined" not in page.locator("#view").inner_text()
        assert "exploding" in said["1.1¹⁰⁰"]
        assert all("vanishing" in said[name] for name in ("0.9¹⁰⁰", "λ = 1 and still gone", "Saturated", "… or close it"))
        left = {name: float(re.search(r"a factor of (\S+) per step", text)[1]) for name, text in said.items()}
        assert left["Open the forget gate"] > left["0.9¹⁰⁰"] > left["λ = 1 and still gone"] - 0.1 > left["… or close it"] - 0.1
        page.locator("#presets button").nth(4).click()  # more than |λ|
        unfold(page)
        gains = [float(row.split("\t")[5]) for row in page.locator("table tbody tr").all_inner_texts()[1:]]
        assert max(gains) > 1.2 and "0.95" in said["More than ∣λ∣"]


def test_the_same_seed_makes_the_same_page(tmp_path):
    """Two pages of one seed are equal to the byte; another seed's is not."""
    texts = [
        render.explorer(tmp_path / f"{k}.html", radii=(0.9, 1.1), lengths=(5, 9), hidden=3, seed=seed).read_bytes()
        for k, seed in enumerate((1, 1, 2))
    ]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"radii": ()}, {"radii": (1.0, 0.9)}, {"radii": (0.1,)}, {"radii": (1.0, float("nan"))}, {"lengths": (1, 5)},
        {"lengths": (10, 300)}, {"lengths": (10, 10)}, {"lengths": (2.5,)}, {"seed": -1}, {"hidden": 0},
    ],
)  # fmt: skip
def test_stops_that_make_no_slider_are_refused(wrong, tmp_path):
    """Empty, descending or repeated stops, and values out of range; no file is left."""
    with pytest.raises(ArgumentError, match=r"explorer: (radii|lengths|hidden) must be|rng"):
        render.explorer(tmp_path / "x.html", **{"radii": (1.0,), "lengths": (5,), **wrong})
    assert list(tmp_path.iterdir()) == []


def test_a_bar_shows_how_far_it_is(tmp_path, monkeypatch, capsys):
    """It is told each setting before it is measured, and nothing at all is printed where nobody looks."""
    told = []

    @contextmanager
    def noted(total, label, shown):
        yield lambda done, note: told.append((done, total, note, shown))

    render.explorer(tmp_path / "x.html", radii=(1.0,), lengths=(5,), hidden=2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.modules["tinygrad_rnn.render.explorer"], "progress", noted)
    render.explorer(tmp_path / "x.html", radii=(1.0,), lengths=(5,), hidden=2, bar=True)
    total = len(sweep.NETWORKS) * len(sweep.INITIALISATIONS)
    assert [(done, of) for done, of, _, _ in told] == [(k, total) for k in range(total)]
    assert told[1][2:] == ("tanh RNN, orthogonal", True)


def test_a_missing_folder_is_named(tmp_path):
    """The work is not begun if its result could not be written."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        render.explorer(tmp_path / "nowhere" / "x.html")


def test_a_gradient_out_of_range_is_refused(tmp_path, monkeypatch):
    """A curve that is not finite is not drawn as if it were."""
    monkeypatch.setattr(
        "tinygrad_rnn.render.sweep._linear", lambda *_: iter([(5, sweep.Curve(np.array([0.0, -1.0, -np.inf, -np.inf, -np.inf, -np.inf])))])
    )
    with pytest.raises(RenderError, match=r"^explorer: a gradient became 0 or infinite; choose radii nearer to 1, or shorter lengths$"):
        render.explorer(tmp_path / "x.html", radii=(1.0,), lengths=(5,), hidden=2)
