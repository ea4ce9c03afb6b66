"""The panels of :func:`~tinygrad_rnn.render.plot.plot`: what each result looks like. Lags run to the right, as the gradient travels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..flow.logs import log10
from ..flow.relay import DIRECT
from ..report import number, power_of_ten
from . import charts
from .charts import literal
from .style import Theme

Draw = Callable[[Any, Theme], None]
Panel = tuple[float, Draw]

WIDE, NARROW = 5.4, 4.2

_LIGHT_TO_DARK = {"#cc79a7": "#e39cc4", "#8a6100": "#e6b84d", "#6a3d9a": "#b79adb"}


def _gate(name: str, theme: Theme) -> str:
    """One colour per gate, and the highway's for what takes no gate."""
    colour = {
        DIRECT: theme.highway, "forget": "#6a3d9a", "update": "#6a3d9a", "input": theme.kinds["scale"], "reset": theme.kinds["scale"],
        "output": "#8a6100", "candidate": "#cc79a7",
    }.get(name, theme.muted)  # fmt: skip
    return colour if theme.background == "#ffffff" else _LIGHT_TO_DARK.get(colour, colour)


# -- gradient through time --------------------------------------------------------------------------------------------------------


def vanishing_product(result: Any) -> list[Panel]:
    """What is left by lag; what each step multiplies by; which multiplications lose most."""
    splits = not np.isnan(result.saturation).all()

    def left(ax: Any, theme: Theme) -> None:
        _line(ax, result.lag, result.log10_product, theme.kinds["scale"], "‖δ‖ / ‖δ_T‖", width=2.2)
        if not np.isnan(result.log10_bound).all():
            _line(ax, result.lag, result.log10_bound, theme.muted, "bound (σ_max · max φ′)ᵏ", style="--", width=1.2)
        if math.isfinite(result.spectral_radius) and result.spectral_radius > 0:
            _line(ax, result.lag, result.lag * math.log10(result.spectral_radius), theme.kinds["matmul"], "ρ(W_hh)ᵏ", style=":", width=1.6)
        known = result.log10_product[np.isfinite(result.log10_product)]
        if known.size:
            room = 0.4 * max(float(np.ptp(known)), 0.5)
            ax.set_ylim(known.min() - 0.15 * room, min(ax.get_ylim()[1], known.max() + room))  # the bound may leave the paper
        _powers(ax, theme)
        _labels(ax, theme, f"{result.layer}: {result.verdict}", "k, steps back from the last state", "")
        _legend(ax, theme)

    def parts(ax: Any, theme: Theme) -> None:
        _line(ax, result.lag, log10(result.gain), theme.muted, "gain", width=3.6)
        if splits:
            _line(ax, result.lag, log10(result.saturation), theme.kinds["scale"], "saturation ‖Dδ‖/‖δ‖")
            _line(ax, result.lag, log10(result.weight), theme.kinds["matmul"], "weight ‖W_hhᵀDδ‖/‖Dδ‖")
        for way, share in result.parts.items() if not splits else ():
            _line(ax, result.lag, log10(share), _gate(way, theme), "directly: the highway" if way == DIRECT else f"through the {way} gate")
        ax.axhline(0.0, color=theme.frame, linewidth=1.0, zorder=0)
        _powers(ax, theme)
        _labels(ax, theme, "what each step hands back, of ‖δ‖", "k, steps back from the last state", "")
        _legend(ax, theme)

    shown: list[Panel] = [(WIDE, left), (WIDE, parts)]
    return [*shown, *edge_gains(result.edges)] if any(math.isfinite(edge.log10_gain) for edge in result.edges) else shown


def edge_gains(edges: Sequence[Any]) -> list[Panel]:
    """Which multiplications of a step lose most: at most eight, in their order, in the colour of their kind."""
    known = [edge for edge in edges if math.isfinite(edge.log10_gain)][:8]

    def draw(ax: Any, theme: Theme) -> None:
        place, gains = np.arange(len(known)), [edge.log10_gain for edge in known]
        ax.barh(place, gains, 0.62, color=[theme.kinds[edge.kind] for edge in known])
        for y, gain in zip(place, gains, strict=True):
            side, way = ("right", -4) if gain < 0 else ("left", 4)
            shift = {"xytext": (way, 0), "textcoords": "offset points", "ha": side, "va": "center"}
            ax.annotate(number(10.0**gain), (gain, y), fontsize=8, color=theme.muted, **shift)
        ax.set_yticks(place, [literal(f"{edge.label} → {edge.to}") for edge in known])
        ax.axvline(0.0, color=theme.frame, linewidth=1.0)
        ax.margins(x=0.22)
        ax.set_ylim(max(len(known), 5) - 0.4, -0.6)
        ax.set_xticks([])
        _labels(ax, theme, "mean gain of each multiplication", "", "")

    return [(NARROW, draw)]


def highway(result: Any) -> list[Panel]:
    """The direct product beside the total; the factors of every step."""
    if not result.exists:
        raise ArgumentError(f"plot: {result.layer} has no highway, so there is nothing to draw; plot its vanishing_product")
    factors = result.factor.reshape(len(result.lag), -1)

    def products(ax: Any, theme: Theme) -> None:
        _line(ax, result.lag, result.log10_total, theme.kinds["scale"], "total, over all paths", width=2.0)
        _line(ax, result.lag, result.log10_direct, theme.highway, "direct, over the highway alone", width=2.6)
        _powers(ax, theme)
        title = f"{result.layer}: highway through {result.role}, {number(10.0**result.rate)} per step"
        _labels(ax, theme, title, "k, steps back from the last state", "")
        _legend(ax, theme)

    def spread(ax: Any, theme: Theme) -> None:
        low, lower, middle, upper, high = np.quantile(factors[1:], (0.0, 0.25, 0.5, 0.75, 1.0), axis=1)
        ax.fill_between(result.lag[1:], low, high, color=theme.highway, alpha=0.15, linewidth=0, label="all units")
        ax.fill_between(result.lag[1:], lower, upper, color=theme.highway, alpha=0.35, linewidth=0, label="middle half")
        ax.plot(result.lag[1:], middle, color=theme.highway, linewidth=2.0, label="median")
        ax.axhline(1.0, color=theme.frame, linewidth=1.0, zorder=0)
        labels = " ".join(label for label in result.labels if label != "+")
        _labels(ax, theme, f"what the highway multiplies by, such as {labels}", "k, steps back from the last state", "")
        _legend(ax, theme)

    return [(WIDE, products), (WIDE, spread)] if len(result.lag) > 1 else [(WIDE, products)]


def state_norms(rows: Sequence[Any]) -> list[Panel]:
    """Norms of one backward pass as a line, of several as a heat map of update by step; a panel for each layer."""
    if not rows:
        raise ArgumentError("plot: the monitor has no rows yet; run a backward pass first")
    layers = list(dict.fromkeys(row.layer for row in rows))
    return [(WIDE, _norms([row for row in rows if row.layer == layer])) for layer in layers]


def _norms(rows: Sequence[Any]) -> Draw:
    def line(ax: Any, theme: Theme) -> None:
        row = rows[0]
        _line(ax, row.time, log10(row.norm), theme.kinds["scale"], "", width=2.2)
        if row.time[0] > row.time[-1]:
            ax.invert_xaxis()
        _powers(ax, theme)
        _labels(ax, theme, f"{row.layer}, update {row.update}: {row.verdict}", "step t, back in time →", "‖δ_t‖")

    def heat(ax: Any, theme: Theme) -> None:
        longest = max(len(row.norm) for row in rows)
        logs = np.full((len(rows), longest), np.nan)
        for place, row in enumerate(rows):
            logs[place, : len(row.norm)] = log10(row.norm)
        _heat(ax, theme, logs, (-0.5, longest - 0.5), _ends([row.update for row in rows]), "‖δ‖")
        _labels(ax, theme, f"{rows[0].layer}: state cotangents while it trains", "k, steps back from the last state", "update")

    return line if len(rows) == 1 else heat


# -- Jacobians, matrices ----------------------------------------------------------------------------------------------------------


def step_jacobians(result: Any) -> list[Panel]:
    """The singular values of every step; the product's norm beside the product of the norms."""
    steps, sequences = result.jacobian.shape[:2]
    if not steps or not sequences:
        raise ArgumentError(f"plot: there are no step Jacobians to draw; expected some steps and sequences, got {steps} and {sequences}")
    several = sequences > 1

    def spectra(ax: Any, theme: Theme) -> None:
        values = log10(np.median(result.singular_values, axis=1))  # (steps, S)
        count = values.shape[1]
        for index in range(count - 1, 0, -1):
            ax.plot(result.time, _drawable(values[:, index]), color=theme.kinds["scale"], linewidth=0.9, alpha=0.75 - 0.45 * index / count)
        _line(ax, result.time, values[:, 0], theme.kinds["scale"], f"σ₁ … σ_{count}" if count > 1 else "σ₁", width=2.2)
        radius = log10(np.median(result.spectral_radius, axis=1))
        _line(ax, result.time, radius, theme.kinds["matmul"], "largest ∣eigenvalue∣", style="--", width=1.6)
        ax.axhline(0.0, color=theme.frame, linewidth=1.0, zorder=0)
        _powers(ax, theme)
        over = f", median of {result.jacobian.shape[1]} sequences" if several else ""
        _labels(ax, theme, f"{result.layer}: singular values of J_t = ∂s_t/∂s_(t−1){over}", "step t", "")
        _legend(ax, theme)

    def products(ax: Any, theme: Theme) -> None:
        lag = np.arange(1, len(result.time) + 1)
        norm, bound = (np.median(logs[::-1], axis=1) for logs in (result.log10_product, result.log10_product_of_norms))
        _line(ax, lag, norm, theme.kinds["scale"], "‖J_T ⋯ J_t‖₂", width=2.2)
        _line(ax, lag, bound, theme.muted, "‖J_T‖₂ ⋯ ‖J_t‖₂", style="--", width=1.3)
        _powers(ax, theme)
        _labels(ax, theme, "a product of norms promises more than arrives", "k, steps back", "")
        _legend(ax, theme)

    return [(WIDE, spectra), (WIDE, products)]


def bptt_matrix(result: Any) -> list[Panel]:
    """Loss t′ by use t, over all gates and for each."""
    every = np.concatenate([result.norm.ravel(), result.gate_norm.ravel()])
    scale = log10(every[every > 0])

    def matrix(norm: Any, title: str, bar: bool) -> Draw:
        def draw(ax: Any, theme: Theme) -> None:
            logs = log10(norm)
            _heat(ax, theme, logs, _ends(result.time), _ends(range(len(logs))), "‖∂L_t′/∂W_t‖" if bar else "", scale)
            times = [str(t) if t >= 0 else "–" for t in result.loss_time]
            shown = range(0, len(times), -(-len(times) // 8))
            ax.set_yticks(shown, [times[k] for k in shown])
            _labels(ax, theme, title, "used at step t", "loss at step t′" if bar else "")

        return draw

    whole = (WIDE, matrix(result.norm, f"{result.parameter}: which loss moves which use", True))
    if len(result.gates) == 1:
        return [whole]
    return [whole, *((2.9, matrix(norm, gate, False)) for gate, norm in zip(result.gates, result.gate_norm, strict=True))]


def connectivity(result: Any) -> list[Panel]:
    """Output t′ by input t."""

    def draw(ax: Any, theme: Theme) -> None:
        _heat(ax, theme, log10(result.norm), _ends(result.input_time), _ends(result.output_time), "‖∂ output / ∂ input‖")
        what = "all units" if result.unit is None else f"unit {result.unit}"
        _labels(ax, theme, f"how much {what} at t′ depend{'s' * (result.unit is not None)} on the input at t", "input t", "output t′")

    return [(WIDE, draw)]


# -- paths, gates, interventions, findings ----------------------------------------------------------------------------------------


def path_split(splits: Sequence[Any]) -> list[Panel]:
    """Shares by number of passes: positive ones above 0, negative ones below, so that their sum is always 1; and norms."""
    bins = max(len(split.paths) for split in splits)
    if other := {len(split.paths) for split in splits} - {bins}:
        raise ArgumentError(f"plot: path splits that are drawn together need the same number of bins, got {min(other)} and {bins}")
    names = [f"{k} passes" if k != 1 else "1 pass" for k in range(bins - 1)] + [f"{bins - 1} or more" if bins > 1 else "all"]
    share = np.array([split.share for split in splits]).T  # (bins, splits)
    norm = np.array([split.norm for split in splits]).T
    targets = [split.target for split in splits]

    def shares(ax: Any, theme: Theme) -> None:
        over, under = np.zeros(len(splits)), np.zeros(len(splits))
        x = np.arange(len(splits))
        for k in range(bins):
            part = np.nan_to_num(share[k])
            up, down = np.maximum(part, 0.0), np.minimum(part, 0.0)
            colour = _shade(theme, k, bins)
            against = {"hatch": "///", "edgecolor": theme.background, "linewidth": 0, "color": None, "facecolor": colour}
            if len(splits) > 1:
                ax.fill_between(x, over, over + up, color=colour, linewidth=0, label=names[k])
                ax.fill_between(x, under, under + down, **against)
            else:
                ax.bar([k], up, 0.68, color=colour)
                ax.bar([k], down, 0.68, **against)
                above, said = part[0] >= 0, f"{100 * share[k, 0]:.3g} %".replace("-", "−")
                place = {"textcoords": "offset points", "ha": "center", "va": "bottom" if above else "top"}
                ax.annotate(said, (k, part[0]), (0, 3 if above else -3), fontsize=8.5, color=theme.text, **place)
            over, under = over + up, under + down
        ax.axhline(0.0, color=theme.text, linewidth=0.8)
        if len(splits) > 1:
            ax.axhline(1.0, color=theme.text, linewidth=1.0, linestyle="--")
            every = -(-len(targets) // 12)
            ax.set_xticks(x[::every], [literal(name) for name in targets[::every]])
            title = f"shares of ∂L/∂{targets[0]} … ∂L/∂{targets[-1]}; below 0 a part works against the whole"
        else:
            ax.set_xticks(range(bins), names)
            ax.margins(y=0.14)
            title = f"∂L/∂{targets[0]}: shares, which add up to 100 %"
        _labels(ax, theme, title, f"passes over edges {splits[0].marked}" if len(splits) == 1 else "", "share of the gradient")
        if len(splits) > 1:
            _legend(ax, theme)

    def norms(ax: Any, theme: Theme) -> None:
        logs = log10(norm)
        for k in range(bins):
            if len(splits) > 1:
                _line(ax, np.arange(len(splits)), logs[k], _shade(theme, k, bins), names[k], width=2.0)
            else:
                ax.plot([k], logs[k], "o", markersize=9, color=_shade(theme, k, bins))
        whole = log10([float(np.linalg.norm(np.ravel(split.gradient))) for split in splits])
        if len(splits) > 1:
            _line(ax, np.arange(len(splits)), whole, theme.text, "the whole", style="--")
            every = -(-len(targets) // 12)
            ax.set_xticks(range(0, len(targets), every), [literal(name) for name in targets[::every]])
            ax.legend(
                handles=ax.lines[-1:], fontsize=8, framealpha=0.85, facecolor=theme.background, edgecolor="none", labelcolor=theme.text
            )
        else:
            ax.axhline(float(whole[0]), color=theme.text, linewidth=1.0, linestyle="--", label="norm of the whole")
            ax.set_xticks(range(bins), names)
            ax.margins(x=0.12, y=0.12)
            _legend(ax, theme)
        _powers(ax, theme)
        _labels(ax, theme, "norms, which need not add up", "", "")

    return [(WIDE, shares), (WIDE, norms)]


def timescales(result: Any) -> list[Panel]:
    """Karpathy, Johnson & Fei-Fei's figure: each unit by how often its gates are shut and open; and the units' memories, sorted."""

    def gates(ax: Any, theme: Theme) -> None:
        for marker, name in zip("osD^", result.left, strict=False):
            ax.scatter(result.left[name], result.right[name], s=26, alpha=0.75, marker=marker, color=_gate(name, theme), linewidth=0,
                       label=f"{name} gate")  # fmt: skip
        ax.plot([0, 1], [1, 0], color=theme.frame, linewidth=1.0, zorder=0)
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        _labels(
            ax, theme, f"{result.layer}: saturation of the gates, a dot per unit", "share of steps below 0.1", "share of steps above 0.9"
        )
        _legend(ax, theme)

    def flat(ax: Any, theme: Theme) -> None:
        for marker, name in zip("osD^", result.flat, strict=False):
            ax.scatter(result.flat[name], result.slope[name], s=26, alpha=0.75, marker=marker, color=_gate(name, theme), linewidth=0,
                       label=name)  # fmt: skip
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        _labels(ax, theme, f"{result.layer}: saturation of tanh, a dot per unit", "share of steps beyond ±0.9", "mean slope 1 − tanh²")
        _legend(ax, theme)

    def memories(ax: Any, theme: Theme) -> None:
        known = np.sort(result.half_life[np.isfinite(result.half_life) & (result.half_life > 0)])[::-1]
        endless = int(np.isinf(result.half_life).sum())
        _line(ax, np.arange(endless, endless + len(known)), log10(known), theme.highway, "units, by their gate", width=2.2)
        if math.isfinite(result.flow_half_life) and result.flow_half_life > 0:
            ax.axhline(math.log10(result.flow_half_life), color=theme.kinds["scale"], linewidth=1.4, linestyle="--",
                       label=f"total flow: {number(result.flow_half_life)}")  # fmt: skip
        _powers(ax, theme, word=number)
        more = f"; {endless} never forget" if endless else ""
        _labels(ax, theme, f"half-life of each unit's memory, in steps{more}", "units, the longest memory first", "")
        _legend(ax, theme)

    first = [(NARROW, gates)] if result.left else []
    return [*first, (NARROW, flat), *([(WIDE, memories)] if result.exists else [])]


def comparison(result: Any) -> list[Panel]:
    """Norms of every leaf's gradient without and with the interventions; the cosine between the two."""
    place = np.arange(len(result.leaf))
    names = [literal(name) for name in result.leaf]

    def norms(ax: Any, theme: Theme) -> None:
        pairs = (("without", result.norm_without, theme.muted), ("with", result.norm_altered, theme.kinds["scale"]))
        for shift, (name, norm, colour) in zip((-0.2, 0.2), pairs, strict=True):
            ax.bar(place + shift, norm, 0.38, color=colour, label=name)
        known = np.array([norm for _, norms, _ in pairs for norm in norms if norm > 0])
        if known.size and known.max() > 100 * known.min():
            ax.set_yscale("log")
        ax.set_xticks(place, names, rotation=30 if len(names) > 6 else 0, ha="right" if len(names) > 6 else "center")
        done = ", ".join(e.intervention for e in result.engagement) or "no intervention"
        _labels(ax, theme, f"‖gradient‖ without and with: {done}", "", "")
        _legend(ax, theme)

    def cosines(ax: Any, theme: Theme) -> None:
        ax.bar(place, np.nan_to_num(result.cosine), 0.5, color=theme.highway)
        ax.axhline(0.0, color=theme.text, linewidth=0.8)
        ax.axhline(1.0, color=theme.frame, linewidth=1.0, linestyle="--", zorder=0)
        ax.set_ylim(min(-0.05, float(np.nanmin(result.cosine, initial=0.0)) * 1.1), 1.08)
        ax.set_xticks(place, names, rotation=30 if len(names) > 6 else 0, ha="right" if len(names) > 6 else "center")
        _labels(ax, theme, "cosine between the two", "", "")

    return [(WIDE, norms), (NARROW, cosines)]


def engagement(result: Any) -> list[Panel]:
    """By step: how many edges fitted, and how many contributions were altered."""

    def draw(ax: Any, theme: Theme) -> None:
        ax.bar(result.time, result.seen_at, 0.8, color=theme.frame, label="fitted")
        ax.bar(result.time, result.engaged_at, 0.8, color=theme.kinds["matmul"], label="altered")
        title = f"{result.intervention}: {result.engaged} of {result.seen} edges"
        _labels(ax, theme, title, "step t", "edges")
        _legend(ax, theme)

    return [(WIDE, draw)]


def diagnosis(result: Any) -> list[Panel]:
    """The findings as a list, each with a mark of its severity."""
    import textwrap

    def draw(ax: Any, theme: Theme) -> None:
        colours = {"severe": theme.kinds["matmul"], "warning": _gate("output", theme), "note": theme.kinds["scale"]}
        lines: list[tuple[str, str, str]] = []  # severity of the first line, its text, colour
        for finding in result.findings:
            said = textwrap.wrap(f"{finding.where}: {finding.what}", 118)
            lines += [(finding.severity if k == 0 else "", line, theme.text) for k, line in enumerate(said)]
            lines += [("", line, theme.muted) for line in textwrap.wrap(f"Try: {finding.advice}", 118) if finding.advice]
            lines.append(("", "", theme.text))
        ax.set_axis_off()
        ax.set(xlim=(0, 1), ylim=(max(len(lines), 16), -0.5))
        for y, (severity, text, colour) in enumerate(lines):
            if severity:
                ax.text(0.0, y, severity.upper(), color=colours[severity], fontsize=8, fontweight="bold", va="center")
            ax.text(0.09, y, literal(text), color=colour, fontsize=8.5, va="center")
        if not lines:
            ax.text(0.0, 1, "nothing found that keeps it from learning", color=theme.highway, fontsize=9)
        _labels(ax, theme, "diagnosis of " + (", ".join(result.layers) or "the graph"), "", "")

    return [(9.0, draw)]


def chart(one: charts.Chart) -> Draw:
    """An experiment's chart."""

    def draw(ax: Any, theme: Theme) -> None:
        charts.draw([one], ax)
        legend = ax.get_legend()
        for text in (ax.title, *(legend.get_texts() if legend else ())):
            text.set_color(theme.text)
        if legend:
            legend.get_frame().set(facecolor=theme.background, edgecolor=theme.frame)

    return draw


# -- what they share --------------------------------------------------------------------------------------------------------------


def _drawable(values: Any) -> Any:
    """Numbers with gaps where there is nothing to draw: −∞ is the logarithm of 0."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _line(ax: Any, x: Any, y: Any, colour: str, name: str, *, style: str = "-", width: float = 1.6) -> None:
    shown = _drawable(y)
    marker = "o" if np.isfinite(shown).sum() == 1 else None
    ax.plot(x, shown, color=colour, linestyle=style, linewidth=width, label=literal(name), marker=marker, markersize=5)


def _powers(ax: Any, theme: Theme, axis: str = "y", word: Callable[[float], str] | None = None) -> None:
    """Ticks of an axis of logarithms, as the numbers that they stand for, which may be smaller than a float can be."""
    from matplotlib.ticker import FuncFormatter

    from .figure import Decades

    one = ax.yaxis if axis == "y" else ax.xaxis
    one.set_major_locator(Decades())
    one.set_major_formatter(FuncFormatter(lambda log, _: word(10.0**log) if word else _power(log)))
    ax.grid(True, axis=axis, color=theme.frame, linewidth=0.6, alpha=0.5)
    ax.set_axisbelow(True)


def _power(log: float) -> str:
    if abs(log - round(log)) > 1e-9 or -2 <= log <= 2:
        return power_of_ten(log)
    return "10" + str(round(log)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def _heat(ax: Any, theme: Theme, values: Any, x: tuple[float, float], y: tuple[float, float], name: str, scale: Any = None) -> None:
    """A heat map of logarithms, the first row on top; what is 0 or unknown is blank. ``scale`` holds those whose range the colours span."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from .figure import Decades

    shown = _drawable(values)
    known = _drawable(values if scale is None else scale)
    known = known[np.isfinite(known)]
    top = float(known.max()) if known.size else 0.0
    low = max(float(known.min()), top - 12.0) if known.size else -1.0  # twelve powers of ten are enough to tell apart
    dark = theme.background != "#ffffff"
    image = ax.imshow(
        shown,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis" if dark else "viridis_r",
        vmin=low,
        vmax=max(top, low + 1e-6),
        extent=(*x, *reversed(y)),
    )
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    if name:
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.9, pad=0.02)
        bar.locator = Decades()
        bar.update_ticks()
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda log, _: _power(log)))
        bar.ax.tick_params(colors=theme.muted, labelsize=8)
        bar.outline.set_edgecolor(theme.frame)
        bar.set_label(literal(name), color=theme.muted, fontsize=9)


def _ends(places: Any) -> tuple[float, float]:
    """Where an image of these whole numbers begins and ends."""
    return float(places[0]) - 0.5, float(places[-1]) + 0.5


def _shade(theme: Theme, k: int, of: int) -> str:
    """The highway's colour for no pass, then from the gates' blue to the matrices' orange."""
    if k == 0:
        return theme.highway
    ends = theme.kinds["scale"], theme.kinds["matmul"]
    part = (k - 1) / max(of - 2, 1)
    mixed = (round((1 - part) * int(ends[0][at : at + 2], 16) + part * int(ends[1][at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _labels(ax: Any, theme: Theme, title: str, x: str, y: str) -> None:
    ax.set_title(literal(title), loc="left", color=theme.text, fontsize=10, fontweight="bold")
    ax.set_xlabel(literal(x))
    ax.set_ylabel(literal(y))


def _legend(ax: Any, theme: Theme) -> None:
    """Inside the panel if it is short, beside it if not."""
    names = ax.get_legend_handles_labels()[1]
    if names:
        where: dict[str, Any] = {"loc": "best"} if len(names) <= 3 else {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        ax.legend(fontsize=8, framealpha=0.85, facecolor=theme.background, edgecolor="none", labelcolor=theme.text, **where)
