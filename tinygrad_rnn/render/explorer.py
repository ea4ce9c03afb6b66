"""``explorer``: one HTML page with two sliders, |λ| and T, over what the engine measured when the page was made."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, RenderError
from ..files import write_atomically
from ..flow.logs import log10, slope
from ..flow.product import PRESERVED
from ..nn.init import generator
from ..progress import progress
from ..report import plain
from .page import page, place_for
from .sweep import HIDDEN, INITIALISATIONS, INPUTS, LENGTHS, NETWORKS, RADII, Curve, Network, curves

UNITS = 10_000
"""Logarithms are kept in whole ten-thousandths, so a number read from the page is within 0.012 % of the measured one."""


def explorer(
    path: str | os.PathLike[str],
    *,
    radii: Sequence[float] = RADII,
    lengths: Sequence[int] = LENGTHS,
    hidden: int = HIDDEN,
    seed: int = 0,
    bar: bool | None = None,
) -> Path:
    """Write the explorer: how much of the gradient is left k steps back, by |λ|, T, network and initialisation.

    The page shows ‖δ_{T−k}‖/‖δ_T‖ of a linear recurrence, a tanh RNN, LSTMs by forget bias and a GRU on a logarithmic or a linear axis,
    the analytic |λ|ᵏ beside it, and the saturation and weight parts of each step's gain. It is one file, asks no network, and computes
    nothing: for every stop of the sliders the engine runs the network and its backward pass now, which takes about 15 seconds for the
    6,804 of them that the defaults make.

    Args:
        path: where the page goes, in a folder that exists.
        radii: |λ|, the spectral radius of W_hh (for a gate, of its block), ascending, from 0.3 to 3.
        lengths: T, ascending, whole numbers from 2 to 200.
        hidden: units.
        seed: of weights, inputs and the loss; the same seed makes the same page.
        bar: whether to show a progress bar on standard error; None: if that is a terminal.

    Returns:
        The path.

    Raises:
        ArgumentError: for stops that are not ascending or out of range.
        RenderError: if a gradient leaves the range of float64.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> from tinygrad_rnn import render
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = render.explorer(f"{folder}/explorer.html", radii=(0.9, 1.1), lengths=(5, 10), hidden=3)
        ...     "Content-Security-Policy" in made.read_text(encoding="utf-8")
        True
    """
    stops = _checked("radii", radii, 0.3, 3.0, False), _checked("lengths", lengths, 2, 200, True)
    generator(seed)
    if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 1:
        raise ArgumentError(f"explorer: hidden must be a whole number of at least 1, got {hidden!r}")
    target = place_for(path)
    here = Path(__file__)
    return write_atomically(
        target,
        page(
            title="How much of the gradient is left?",
            body=_body(hidden, seed),
            data=measured(tuple(map(float, stops[0])), tuple(map(int, stops[1])), hidden=hidden, seed=seed, shown=bar),
            script=here.with_suffix(".js").read_text(encoding="utf-8"),
            style=here.with_suffix(".css").read_text(encoding="utf-8"),
        ),
    )


def _checked(name: str, given: Sequence[float], low: float, high: float, whole: bool) -> Sequence[float]:
    values = list(given)
    fine = len(values) > 0 and all(a < b for a, b in pairwise(values))
    if not fine or not (low <= values[0] and values[-1] <= high) or any(whole and value != int(value) for value in values):
        raise ArgumentError(f"explorer: {name} must be ascending {'whole ' * whole}numbers from {low:g} to {high:g}, got {values}")
    return values


def measured(radii: tuple[float, ...], lengths: tuple[int, ...], *, hidden: int, seed: int, shown: bool | None) -> dict[str, Any]:
    """Everything that the page knows: settings by name, and one stream of whole numbers, in the order of the settings.

    The stream holds, for each initialisation, network, radius and length: the mean log₁₀ gain per step, the T changes of the log₁₀
    ratio from lag to lag, and of a tanh RNN the T log₁₀ saturation parts and T weight parts, all in ``UNITS``. The ratio's logarithm at
    a lag is the sum of its changes, and exactly the rounded one.
    """
    stream: list[Any] = []
    chosen = [(kind, network, radius) for kind in INITIALISATIONS for network in NETWORKS for radius in radii]
    with progress(len(chosen), "measuring", shown) as advance:
        for done, (kind, network, radius) in enumerate(chosen):
            advance(done, f"{network.name}, {kind}")
            for _, curve in curves(network, kind, radius, lengths, hidden=hidden, seed=seed):
                stream += _numbers(curve)
    whole = np.concatenate(stream)
    width = 2 if np.abs(whole).max() < 2**15 else 4
    return {
        "radii": list(radii),
        "lengths": list(lengths),
        "initialisations": list(INITIALISATIONS),
        "networks": [_described(network) for network in NETWORKS],
        "log10_radii": plain(log10(radii)),
        "units": UNITS,
        "preserved": PRESERVED,
        "width": width,
        "stream": base64.b64encode(whole.astype(f"<i{width}").tobytes()).decode(),
    }


def _numbers(curve: Curve) -> list[Any]:
    logs = curve.log10_ratio
    if not np.isfinite(logs).all():
        raise RenderError("explorer: a gradient became 0 or infinite; choose radii nearer to 1, or shorter lengths")
    parts = [] if curve.log10_saturation is None else [_units(curve.log10_saturation[1:]), _units(curve.log10_weight[1:])]
    return [_units([slope(logs)]), np.diff(_units(logs)), *parts]


def _units(logs: Any) -> Any:
    return np.rint(np.asarray(logs) * UNITS)


def _described(network: Network) -> dict[str, Any]:
    """A network for the page, with the logarithm of σ(b_f), what an LSTM's highway would keep per step with every gate at its bias."""
    bias = network.forget_bias
    direct = None if bias is None else plain(-float(np.log10(1.0 + np.exp(-bias))))
    return {"name": network.name, "kind": network.kind, "direct": direct, "splits": network.kind == "rnn", "usual": network.usual}


def _body(hidden: int, seed: int) -> str:
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    told = {"hidden": hidden, "inputs": INPUTS, "seed": seed, "rounding": f"{100 * (10 ** (0.5 / UNITS) - 1):.2g}"}
    for name, value in told.items():
        text = text.replace("{" + name + "}", html.escape(str(value)))
    return text
