"""Plots: every result has one, it shows the result's own numbers, and nothing of Matplotlib's global state is touched."""

from __future__ import annotations

import builtins
import math
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import experiments, flow, nn, render, report
from tinygrad_rnn.errors import ArgumentError, MissingError
from tinygrad_rnn.render import charts, style

matplotlib = pytest.importorskip("matplotlib", reason="pip install matplotlib to test the plots")

HOSTILE = '"><script>$x_1$ \\N & é\n'


@cache
def results():
    """One of each kind of result, by name."""
    x = np.random.default_rng(0).standard_normal((12, 2, 3))
    rnn, lstm = nn.RNN(3, 4, init=0.9, rng=0), nn.LSTM(3, 4, rng=0)
    short, long = tg.trace(rnn(x)[0][-1].sum()), tg.trace(lstm(x)[0][-1].sum())
    outputs, _ = lstm(x[:5])
    given = tg.tensor(x, requires_grad=True)
    far = tg.trace(lstm(np.random.default_rng(1).standard_normal((40, 1, 3)))[0][-1].sum())
    cut = flow.cut_time(every=4)
    made = {
        "VanishingProduct": flow.vanishing_product(short),
        "EdgeGains": flow.vanishing_product(short).edges[0],
        "several EdgeGains": flow.vanishing_product(long).edges,
        "VanishingProduct of an LSTM": flow.vanishing_product(long),
        "Highway": flow.highway(long),
        "StepJacobians": flow.step_jacobians(short),
        "BpttMatrix": flow.bptt_matrix([(outputs[t] ** 2).sum() for t in range(5)], lstm.weight_hh_l0),
        "Connectivity": flow.connectivity(lstm(given)[0], given),
        "PathSplit": flow.split_paths(long, long.states()[3].cell, bins=5),
        "several PathSplit": [flow.split_paths(far, far.states()[t].cell, bins=5) for t in range(40, 5, -1)],
        "Timescales": flow.timescales(long),
        "Timescales of an RNN": flow.timescales(short),
        "Comparison": flow.compare(lstm(x)[0][-1].sum(), cut),
        "Engagement": cut.report(),
        "Diagnosis": flow.diagnose(short),
    }
    with flow.monitor(rnn) as watching:
        for _ in range(3):
            rnn(x)[0][-1].sum().backward()
    return {**made, "StateNorms": watching.rows[-1], "several StateNorms": list(watching.rows), "Monitor": watching}


def panels(name):
    return render.plot(results()[name]).axes


def line(ax, label):
    """The points of the line with this name."""
    (found,) = (one for one in ax.lines if one.get_label() == label)
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def test_every_result_of_flow_has_a_picture():
    """A result that flow returns and plot does not know fails here; and so does a picture of something that nobody returns."""
    kinds = {kind for kind in vars(flow).values() if isinstance(kind, type) and issubclass(kind, report.Result)}
    module = sys.modules["tinygrad_rnn.render.plot"]
    assert kinds | {flow.Monitor} == set(module.DRAWN)
    assert {kind.__name__ for kind in kinds} <= {name.split(" ")[0] for name in results()}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", results())
def test_it_is_drawn_and_saved(name, theme, tmp_path):
    """No warning, no text outside the fonts, a file of some size; every text and frame stands out from its paper."""
    figure = render.plot(results()[name], theme=theme)
    figure.savefig(tmp_path / "plot.png", dpi=60)
    assert (tmp_path / "plot.png").stat().st_size > 3000
    assert matplotlib.colors.same_color(figure.get_facecolor(), style.THEMES[theme].background)
    paper = luminance(style.THEMES[theme].background)
    for ax in figure.axes:
        texts = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts]
        legend = ax.get_legend()
        for text in [*texts, *(legend.get_texts() if legend else [])]:
            if text.get_text():
                light, dark = sorted((luminance(text.get_color()), paper), reverse=True)
                assert (light + 0.05) / (dark + 0.05) > 3.0, (text.get_text(), text.get_color())


def luminance(colour):
    """Relative luminance, by the definition of the Web Content Accessibility Guidelines."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    return float(np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", results())
def test_a_notebook_shows_every_result_as_a_table(name):
    """Every result that flow returns has HTML of its own, the same as its table's."""
    for result in results()[name] if isinstance(results()[name], (list, tuple)) else [results()[name]]:
        assert result._repr_html_().startswith("<table>") and result._repr_html_().endswith("</table>")


def test_the_product_is_what_the_result_says():
    """Ratio by lag, bound and spectral radius; gain, saturation and weight."""
    result = results()["VanishingProduct"]
    left, parts, losses = panels("VanishingProduct")
    for label, expected in (
        ("‖δ‖ / ‖δ_T‖", result.log10_product),
        ("bound (σ_max · max φ′)ᵏ", result.log10_bound),
        ("ρ(W_hh)ᵏ", result.lag * np.log10(result.spectral_radius)),
    ):
        lag, height = line(left, label)
        assert np.array_equal(lag, result.lag) and np.allclose(height, expected)
    for label, expected in (("gain", result.gain), ("saturation ‖Dδ‖/‖δ‖", result.saturation), ("weight ‖W_hhᵀDδ‖/‖Dδ‖", result.weight)):
        _, height = line(parts, label)
        assert np.isnan(height[0]) and np.allclose(10 ** height[1:], expected[1:])
    for ax in (losses, render.plot(result.edges).axes[0]):
        assert [bar.get_width() for bar in ax.patches] == [edge.log10_gain for edge in result.edges[:8]]


def test_a_gated_network_shows_its_ways():
    """The parts of an LSTM's step, each by its gate; what no gate takes is in the highway's colour."""
    result = results()["VanishingProduct of an LSTM"]
    parts = panels("VanishingProduct of an LSTM")[1]
    for way, share in result.parts.items():
        _, height = line(parts, "directly: the highway" if way == "direct" else f"through the {way} gate")
        assert np.allclose(10 ** height[1:], share[1:])
    (direct,) = (one for one in parts.lines if "highway" in one.get_label())
    assert direct.get_color() == style.LIGHT.highway


def test_the_highway_and_its_factors():
    """Direct and total product, and the quantiles of the factors over batch and units."""
    result = results()["Highway"]
    products, spread = panels("Highway")
    assert np.allclose(line(products, "direct, over the highway alone")[1], result.log10_direct)
    assert np.allclose(line(products, "total, over all paths")[1], result.log10_total)
    assert np.allclose(line(spread, "median")[1], np.median(result.factor[1:], axis=(1, 2)))


def test_the_spectra_of_every_step():
    """As many lines as singular values, each the median over the batch; and both products."""
    result = results()["StepJacobians"]
    spectra, products = panels("StepJacobians")
    heights = sorted((np.asarray(one.get_ydata(), dtype=float) for one in spectra.lines[:4]), key=lambda row: -row[0])
    assert np.allclose(10 ** np.array(heights).T, np.median(result.singular_values, axis=1))
    assert np.allclose(line(products, "‖J_T ⋯ J_t‖₂")[1][::-1], np.median(result.log10_product, axis=1))
    assert np.allclose(line(products, "‖J_T‖₂ ⋯ ‖J_t‖₂")[1][::-1], np.median(result.log10_product_of_norms, axis=1))


def test_heat_maps_hold_the_matrix_and_leave_zeros_blank():
    """Rows are t′ and columns t, from above; what the future would have to do to the past is blank."""
    for name in ("BpttMatrix", "Connectivity"):
        norm = results()[name].norm
        image = panels(name)[0].images[0]
        shown = np.ma.filled(image.get_array().astype(float), np.nan)
        assert np.array_equal(np.isnan(shown), norm == 0) and np.allclose(10 ** shown[norm > 0], norm[norm > 0])
        left, right, bottom, top = image.get_extent()
        assert left < right and bottom > top  # the first row is on top
    assert [ax.get_title(loc="left") for ax in panels("BpttMatrix")[1:5]] == ["input", "forget", "candidate", "output"]


def test_signed_shares_are_stacked_on_either_side_of_zero():
    """What works against the whole goes down from 0, so that up and down together are 1 at every target."""
    splits = results()["several PathSplit"]
    share = np.array([split.share for split in splits])
    assert (share < -1e-6).any()  # otherwise this would say nothing
    bands = panels("several PathSplit")[0].collections
    span = np.zeros((2, len(splits)))
    for place, band in enumerate(bands):
        corners = band.get_paths()[0].vertices
        for k in range(len(splits)):
            heights = corners[corners[:, 0] == k, 1]
            span[place % 2, k] += np.ptp(heights)
    assert np.allclose(span[0], np.maximum(share, 0).sum(1)) and np.allclose(span[1], -np.minimum(share, 0).sum(1))
    assert np.allclose(span[0] - span[1], 1.0)
    one = panels("PathSplit")[0]
    heights = [bar.get_height() for bar in one.patches]
    assert np.allclose(np.array(heights[::2]) + heights[1::2], results()["PathSplit"].share)


def test_gates_are_dots_by_how_often_they_are_shut_and_open():
    """A dot per unit and gate: below 0.1 to the right, above 0.9 up; the memories are sorted half-lives."""
    result = results()["Timescales"]
    gates, _, memories = panels("Timescales")
    for name, dots in zip(result.left, gates.collections, strict=True):
        assert np.allclose(dots.get_offsets(), np.column_stack([result.left[name], result.right[name]]))
    assert np.allclose(10 ** line(memories, "units, by their gate")[1], np.sort(result.half_life)[::-1])


def test_comparison_engagement_and_monitor():
    """Bars are norms, cosines and counts; a row of the monitor is a line, several are a heat map."""
    compared = results()["Comparison"]
    norms, cosines = panels("Comparison")
    assert np.allclose([bar.get_height() for bar in norms.patches], [*compared.norm_without, *compared.norm_altered])
    assert np.allclose([bar.get_height() for bar in cosines.patches], compared.cosine)
    counted = results()["Engagement"]
    assert [bar.get_height() for bar in panels("Engagement")[0].patches] == [*counted.seen_at, *counted.engaged_at]
    row = results()["StateNorms"]
    drawn = panels("StateNorms")[0].lines[0]
    assert np.allclose(10 ** np.asarray(drawn.get_ydata(), dtype=float), row.norm) and np.array_equal(drawn.get_xdata(), row.time)
    image = panels("Monitor")[0].images[0].get_array()
    assert np.allclose(10**image, np.array([row.norm for row in results()["Monitor"].rows]))


def test_the_diagnosis_tells_its_findings():
    """Each finding's severity, place and advice are in the picture."""
    result = flow.diagnose((nn.RNN(3, 4, init=3.0, rng=0)(np.ones((20, 1, 3)) * 30)[0][-1] * 1e6).sum())
    (ax,) = render.plot(result).axes
    told = " ".join(text.get_text() for text in ax.texts)
    for finding in result.findings:
        assert finding.severity.upper() in told and finding.where.split(":")[0] in told and finding.advice.split()[-1] in told


def test_what_no_float_holds_is_drawn():
    """A gradient of 10⁻⁴⁰⁰ has its place on the axis, with a label."""
    outputs, _ = nn.RNN(2, 3, init=0.01, rng=0)(np.ones((220, 1, 2)))
    result = flow.vanishing_product(tg.trace(outputs[-1].sum()))
    assert result.log10_product[-1] < -400
    figure = render.plot(result)
    figure.canvas.draw()
    assert min(line(figure.axes[0], "‖δ‖ / ‖δ_T‖")[1]) < -400
    assert "10⁻⁴⁰⁰" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def at_the_edge():
    """Results in which something is 0, infinite, not a number, missing, or alone."""
    x, rnn, lstm = np.ones((6, 1, 2)), nn.RNN(2, 3, rng=0), nn.LSTM(2, 3, rng=0)
    nothing = nn.RNN(2, 3, init=0.0, rng=0)
    traced = {name: tg.trace((rnn(x)[0][-1] * factor).sum()) for name, factor in (("0", 0.0), ("1", 1.0), ("nan", np.nan), ("inf", np.inf))}
    outputs, given = rnn(x)[0], tg.tensor(x, requires_grad=True)
    with flow.monitor(nn.RNN(2, 3, rng=0, bidirectional=True)) as both, flow.monitor(rnn) as one:
        (rnn(x)[0][-1] * 0.0).sum().backward()
    yield "norms only", flow.vanishing_product(tg.trace(lstm(x)[0][-1].sum(), keep="norms"))
    for length in (1, 2):
        yield f"{length} steps", flow.vanishing_product(tg.trace(lstm(x[:length])[0][-1].sum()))
    for name in ("nan", "inf"):
        yield f"a loss times {name}", flow.vanishing_product(traced[name])
        yield f"split of {name}", flow.split_paths(traced[name], traced[name].states()[3].hidden)
    yield "W = 0", flow.vanishing_product(tg.trace(nothing(x)[0][-1].sum()))
    yield "Jacobians that are 0", flow.step_jacobians(tg.trace(nothing(x)[0][-1].sum()))
    yield "Jacobians of one unit", flow.step_jacobians(tg.trace(nn.RNN(2, 1, rng=0)(x)[0][-1].sum()))
    for bins in (1, 2):
        yield f"{bins} bins", flow.split_paths(traced["1"], traced["1"].states()[3].hidden, bins=bins)
        yield f"several of {bins} bins", [flow.split_paths(traced["1"], traced["1"].states()[t].hidden, bins=bins) for t in (5, 4)]
    yield "several of 0", [flow.split_paths(traced["0"], traced["0"].states()[t].hidden) for t in (5, 4, 3)]
    yield "gradients of 0", flow.compare((rnn(x)[0][-1] * 0.0).sum())
    yield "all blocked", flow.compare(rnn(x)[0][-1].sum(), flow.block(flow.edges()))
    yield "connectivity of 0", flow.connectivity(rnn(given)[0] * 0.0, given)
    yield "one loss", flow.bptt_matrix([outputs[-1].sum()], rnn.weight_hh_l0)
    yield "a loss of 0", flow.bptt_matrix([(outputs[-1] * 0.0).sum()], rnn.weight_hh_l0)
    for bias in (800.0, -800.0):
        gated = tg.trace(nn.LSTM(2, 3, rng=0, forget_bias=bias)(x)[0][-1].sum())
        yield f"a forget bias of {bias}", flow.timescales(gated)
        yield f"the highway of {bias}", flow.highway(gated)
    yield "norms of 0", one.rows[-1]
    yield "an intervention that never ran", flow.cut_time(every=5).report()
    assert not both.rows


def test_what_is_zero_infinite_or_alone_is_drawn():
    """No warning and no error, whatever a result holds."""
    with np.errstate(all="ignore"):
        cases = dict(at_the_edge())
    for name, result in cases.items():
        figure = render.plot(result)
        figure.set_layout_engine("none")  # it takes most of the time
        figure.draw_without_rendering()
        assert figure.axes, name


def test_ticks_are_round_numbers():
    """Over any span the labelled numbers are round: whole powers, or 1, 2, 5, or few digits; at least two of them."""
    from tinygrad_rnn.render.figure import Decades

    for low, high in ((-400.0, 3.0), (-3.2, 0.1), (-1.7, 0.2), (-0.3, 0.05), (0.30, 0.48), (-0.01, 0.01)):
        ticks = [tick for tick in Decades().tick_values(low, high) if low <= tick <= high]
        assert 2 <= len(ticks) <= 12
        assert all(float(f"{10 ** (tick % 1):.3g}") == pytest.approx(10 ** (tick % 1), rel=1e-9) for tick in ticks)


def test_ax_takes_the_first_panel_and_keeps_its_frame():
    """Drawn into axes that someone else made, the same numbers appear there, and the figure is theirs."""
    from matplotlib.figure import Figure

    theirs = Figure(facecolor="#ffeeee")
    ax = theirs.subplots()
    for name in results():
        if name != "Diagnosis":
            ax.clear()
            assert render.plot(results()[name], ax=ax) is theirs
            assert ax.has_data()
    assert matplotlib.colors.to_hex(theirs.get_facecolor()) == "#ffeeee" and matplotlib.colors.to_hex(ax.get_facecolor()) == "#ffffff"


def test_no_global_state_is_touched():
    """In a process of its own: pyplot is not loaded, rcParams are as they were, and pyplot later knows of no figure."""
    program = (
        "import io, sys, matplotlib, numpy as np, tinygrad_rnn as tg\n"
        "before = matplotlib.rcParams.copy()\n"
        "figure = tg.render.plot(tg.flow.vanishing_product(tg.nn.RNN(2, 3, rng=0)(np.ones((9, 1, 2)))[0][-1].sum()), theme='dark')\n"
        "figure.savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert dict.__eq__(matplotlib.rcParams, before)\n"  # read as they are: rcParams['backend'] would load pyplot
        "import matplotlib.pyplot as plt\n"
        "plt.figure(); tg.render.plot(tg.experiments.run(3)); assert plt.get_fignums() == [1]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_notebook_shows_the_figure():
    """The figure is a PNG by itself, although pyplot never heard of it."""
    assert render.plot(results()["PathSplit"])._repr_png_().startswith(b"\x89PNG")


def test_results_with_charts_are_drawn_by_them():
    """An experiment's charts side by side, in the theme; a name with a dollar sign is no formula."""
    figure = render.plot(experiments.run(2), theme="dark")
    assert len(figure.axes) == len(experiments.run(2).charts())

    class Told:
        def charts(self):
            return (charts.Chart("lines", HOSTILE, HOSTILE, "y", (charts.series(HOSTILE, [1, 2], [3.0, 4.0]),)),)

    render.plot(Told())._repr_png_()


def test_names_from_outside_are_text():
    """A layer or leaf with a hostile name is drawn as it is written: no formula, no error."""
    with tg.scope("$a_{b$"):
        outputs, _ = nn.RNN(2, 3, rng=0)(np.ones((5, 1, 2)))
    x = tg.tensor(np.ones(3), requires_grad=True, name=HOSTILE)
    render.plot(flow.vanishing_product(tg.trace(outputs[-1].sum())))._repr_png_()
    render.plot(flow.compare((x * x).sum()))._repr_png_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: render.plot(3.0), "expected a result .*got float"),
        (lambda: render.plot([]), "got list"),
        (lambda: render.plot("text"), "got str"),
        (lambda: render.plot(results()["PathSplit"], theme="sepia"), "theme must be one of"),
        (lambda: render.plot(results()["PathSplit"], ax=3), "ax must be Matplotlib axes, got int"),
        (lambda: render.plot(flow.highway(nn.RNN(2, 3, rng=0)(np.ones((5, 1, 2)))[0][-1].sum())), "has no highway"),
        (lambda: render.plot(flow.monitor(nn.RNN(2, 3, rng=0))), "no rows yet"),
        (lambda: render.plot([results()["PathSplit"], flow.split_paths(*two_bins())]), "same number of bins"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    """With what was expected and what came instead."""
    with pytest.raises(ArgumentError, match=message):
        call()


def two_bins():
    outputs, _ = nn.RNN(2, 3, rng=0)(np.ones((5, 1, 2)))
    ledger = tg.trace(outputs[-1].sum())
    return ledger, ledger.states()[2].hidden, "recurrent"


def test_without_matplotlib_the_remedy_is_told(monkeypatch):
    """The error names the extra to install."""
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "tinygrad_rnn.render.figure", raising=False)
    with pytest.raises(MissingError, match=r"pip install \"tinygrad_rnn\[plot\]\""):
        render.plot(results()["PathSplit"])


# -- what is not there ---------------------------------------------------------------------------------------------------------------


def test_a_recurrence_that_reads_from_the_end_is_drawn_in_the_order_in_which_it_ran():
    """Back in time is to the right: for the forward direction the axis of t is turned round, for the backward one it is not."""
    layer = nn.RNN(2, 2, bidirectional=True, rng=0)
    with flow.monitor(layer) as watching:
        layer(np.ones((5, 1, 2)))[0].sum().backward()
    for row in watching.rows:
        (ax,) = render.plot(row).axes
        assert bool(ax.xaxis_inverted()) is (not row.layer.endswith("_reverse"))
    assert {row.layer.endswith("_reverse") for row in watching.rows} == {False, True}


def test_no_jacobians_have_no_picture():
    """A batch of no sequences has steps, but nothing to draw."""
    outputs, _ = nn.RNN(2, 2, rng=0)(np.ones((4, 0, 2)))
    found = flow.step_jacobians(tg.trace(outputs[-1].sum()))
    with pytest.raises(ArgumentError) as caught:
        render.plot(found)
    assert str(caught.value) == "plot: there are no step Jacobians to draw; expected some steps and sequences, got 3 and 0"


def test_a_flow_that_does_not_halve_has_no_line():
    """The half-life of the total flow is drawn where the flow shrinks."""
    found = flow.timescales(nn.LSTM(2, 2, rng=0)(np.ones((6, 1, 2)))[0][-1].sum())
    for half_life, labels in ((found.flow_half_life, [f"total flow: {report.number(found.flow_half_life)}"]), (math.inf, [])):
        lines = render.plot(replace(found, flow_half_life=half_life)).axes[-1].lines
        assert [line.get_label() for line in lines if str(line.get_label()).startswith("total flow")] == labels


def test_norms_far_apart_have_a_logarithmic_axis():
    """Where the largest is more than a hundred times the smallest, the bars stand on powers of ten."""
    for factor, scale in ((1.0, "linear"), (1000.0, "log")):
        a, b = (tg.tensor(np.ones(3), requires_grad=True, name=name) for name in "ab")
        found = flow.compare((a * 1.0).sum() + (b * factor).sum(), flow.scale(flow.edges(kind="add"), 1.0))
        assert render.plot(found).axes[0].get_yscale() == scale


def test_a_healthy_diagnosis_is_drawn_in_words():
    """Nothing found is said, not left blank."""
    healthy = flow.diagnose(tg.tensor(np.ones(3), requires_grad=True).sum())
    assert healthy.healthy and not healthy.findings
    said = [words.get_text() for words in render.plot(healthy).axes[0].texts]
    assert said == ["nothing found that keeps it from learning"]


def test_a_panel_without_names_has_no_legend():
    """Only what has several things to tell apart has a legend."""
    outputs, _ = nn.RNN(2, 2, nonlinearity="relu", rng=0)(np.ones((5, 1, 2)))
    (ax,) = render.plot(flow.timescales(outputs[-1].sum())).axes
    assert ax.get_legend() is None


def test_several_of_different_kinds_have_no_picture():
    """A list is drawn if all of it is of one kind that is drawn together."""
    edges = flow.vanishing_product(nn.RNN(2, 2, rng=0)(np.ones((3, 1, 2)))[0][-1].sum()).edges
    with pytest.raises(ArgumentError, match=r"^plot: expected a result \(.*\) or one with charts\(\), got list$"):
        render.plot([edges[0], 3])
