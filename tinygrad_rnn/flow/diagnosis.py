"""A short report for someone whose network does not learn: what is wrong, where, since when, by how much, and what to try."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..linear_maps import MatMul, Scale
from ..report import Result, Table, aligned, number, power_of_ten
from ..steps import NodeInfo, norm_of
from ..tensor import Tensor
from ..trace import Trace
from .bptt import Uses
from .given import traced
from .highway import highway
from .logs import log10
from .product import VanishingProduct, vanishing_product
from .relay import DIRECT, edges_in_words
from .timescales import Timescales, timescales

Severity = Literal["severe", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("severe", "warning", "note")

FAR, TOO_FAR = 3.0, 6.0
"""From how many powers of ten a change of ‖δ_t‖ on the way back is a warning, and from how many it is severe."""

STUCK = 0.95
"""A unit that is saturated for this share of all steps and sequences is called stuck."""

LARGE, SMALL = 1e3, 1e-7
"""A gradient norm, over all parameters, above LARGE asks for clipping; below SMALL a step of the optimiser hardly moves anything."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: "severe" (it keeps the network from learning), "warning" or "note".
        where: the layer, parameter or place.
        what: the finding in a sentence, with its numbers.
        number: the number that it rests on; ``unit`` says of what.
        advice: what to try.
    """

    severity: Severity
    where: str
    what: str
    number: float
    unit: str
    advice: str


@dataclass(frozen=True, eq=False)
class Diagnosis(Result):
    """What :func:`diagnose` found, the most serious first; ``print`` it to read it.

    Attributes:
        findings: one :class:`Finding` each.
        layers: the recurrences that were examined.
        gradient_norm: ‖∂L/∂θ‖ over all leaves.
    """

    findings: tuple[Finding, ...]
    layers: tuple[str, ...]
    gradient_norm: float

    @property
    def healthy(self) -> bool:
        """Whether nothing severe and nothing to warn of was found."""
        return all(finding.severity == "note" for finding in self.findings)

    def table(self) -> Table:
        """One row per finding, with its number."""
        rows = [(f.severity, f.where, number(f.number), f.unit) for f in self.findings]
        return aligned(("severity", "where", "number", "of what"), rows, self._title())

    def _title(self) -> str:
        layers = ", ".join(self.layers) or "no recurrence"
        count = sum(f.severity != "note" for f in self.findings)
        found = "nothing that keeps it from learning" if not count else "1 finding" if count == 1 else f"{count} findings"
        return f"{found} in {layers}; ‖gradient‖ = {number(self.gradient_norm)}"

    def __str__(self) -> str:
        lines = [self._title()]
        for f in self.findings:
            lines += ["", *textwrap.wrap(f"{f.severity.upper()} · {f.where}: {f.what}", 100, subsequent_indent="    ")]
            if f.advice:
                lines += textwrap.wrap(f"Try: {f.advice}", 100, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)


def diagnose(loss: Tensor | Trace, layer: Any = None) -> Diagnosis:
    """Look for what keeps a network from learning, in one backward pass.

    Examined are: values that are not finite, and the multiplication that made the first of them; how the state cotangent of each
    recurrence shrinks or grows, since which step, and through which gate; how long its gates remember; gates and units that are
    saturated nearly always; ReLU units that never fire; parameters whose gradient is 0, and the norm of all of them.

    What it says is true of this batch and these weights. Thresholds are named constants of this module (``FAR``, ``STUCK``, …): a gradient
    that shrinks a thousandfold is a warning even where a task needs no memory.

    Args:
        loss: the loss of one batch, or its trace with keep="arrays".
        layer: examine this recurrence only, given by its path or module; None examines all.

    Raises:
        ArgumentError: if the trace kept no arrays, or there is no such recurrence.
        GraphError: if the loss has no graph.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.RNN(2, 16, init=0.5, rng=0)(np.ones((40, 1, 2)))
        >>> found = flow.diagnose(outputs[-1].sum())
        >>> found.healthy, found.findings[0].severity, found.findings[0].where
        (False, 'severe', 'rnn')
    """
    ledger = traced("diagnose", loss, arrays=True)
    found: list[Finding] = []
    if isinstance(loss, Tensor) and not np.isfinite(loss.value).all():
        what = f"the loss is {loss.value.ravel()[0]}: the trouble began in the forward pass"
        advice = (
            "run the forward pass inside tg.detect_anomaly(); look for a division by 0, a log of 0, or weights that have grown too large"
        )
        found.append(Finding("severe", "loss", what, float(loss.value.ravel()[0]), "the loss", advice))
    layers = ledger.layers if layer is None else (ledger.states(layer).path,)
    found += _not_finite(ledger)
    if not found:  # with a NaN in it nothing else means anything
        for path in layers:
            found += _of_recurrence(ledger, path)
        found += _dead_relus(ledger)
    norm = norm_of(np.array([norm_of(g) for g in ledger.gradients.values()])) if ledger.gradients else math.nan
    found += _of_parameters(ledger, norm)
    return Diagnosis(tuple(sorted(found, key=lambda f: _ORDER.index(f.severity))), layers, norm)


def _not_finite(ledger: Trace) -> Iterator[Finding]:
    """The first multiplication that made a NaN or an infinity."""
    for step in ledger.steps:
        arriving, leaving = step.norms
        if not math.isfinite(leaving):
            place = f"{step.scope or 'outside all scopes'}" + ("" if step.time is None else f", step {step.time}")
            if math.isfinite(arriving):
                what = (
                    f"{step.label} at {step.op} ({step.kind}) makes the first {_word(leaving)}, of a cotangent of norm {number(arriving)}"
                )
            else:
                what = f"a cotangent that is not finite arrives at {step.op}: it entered the backward pass so"
            source = f" at {step.source}" if step.source else ""
            yield Finding(
                "severe", place, what, leaving, "‖contribution‖",
                f"look at the values that meet there{source}; clip_grad_norm and a smaller learning rate if the weights have grown; "
                "tg.detect_anomaly() names shapes, ranges and the source line",
            )  # fmt: skip
            return


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinity"


# -- recurrences ----------------------------------------------------------------------------------------------------------------


def _of_recurrence(ledger: Trace, path: str) -> Iterator[Finding]:
    states = ledger.states(path)
    if not any(at.norm > 0 for at in states):
        advice = "the loss must read its outputs; look for detach(), a mask of zeros, or a unit that is dead further up"
        yield Finding("severe", path, "no gradient reaches any of its steps", 0.0, "‖δ_t‖, at all steps", advice)
        return
    product, scales = vanishing_product(ledger, path), timescales(ledger, path)
    if len(product.lag) > 1:
        yield from _of_flow(ledger, path, product, scales)
    yield from _stuck(path, scales)


def _of_flow(ledger: Trace, path: str, product: VanishingProduct, scales: Timescales) -> Iterator[Finding]:
    """Whether the state cotangent vanishes or explodes on its way back, and through what."""
    logs = product.log10_product
    if product.several:  # what is left of what one step's loss sends back, whatever the others add on the way
        handed = log10(np.where(np.isnan(product.handed_back), 1.0, product.handed_back))
        logs = np.cumsum(handed)
    left, steps = float(logs[-1]), len(logs) - 1
    if abs(left) < FAR:
        what = f"over {steps} steps the gradient of the state changes by a factor of {power_of_ten(left)} ({product.verdict})"
        yield Finding("note", path, what, float(10.0**left), "‖δ‖/‖δ_T‖ at the earliest step", "")
        return
    shrinks = left < 0
    since = int(np.argmax(logs <= -FAR if shrinks else logs >= FAR))
    what = (
        f"the gradient {'vanishes' if shrinks else 'explodes'}: {power_of_ten(left)} of it {'is left' if shrinks else 'arrives'} after "
        f"{steps} steps back; it passes {'1e-3' if shrinks else '1e3'} at step {product.time[since]}, {since} steps from the last one"
    )
    if shrinks and 0 < product.half_life < math.inf:
        what += f", and halves every {number(product.half_life)} steps"
    reason, advice = _reason(ledger, path, product, scales, shrinks=shrinks)
    for said in edges_in_words("Most is lost" if shrinks else "Most is gained", product.edges[:1] if shrinks else product.edges[-1:]):
        reason += f". {said}"
    severity: Severity = "severe" if abs(left) >= TOO_FAR else "warning"
    yield Finding(severity, path, f"{what}. {reason}", left, "log₁₀ ‖δ‖/‖δ_T‖ at the earliest step", advice)


def _reason(ledger: Trace, path: str, product: VanishingProduct, scales: Timescales, *, shrinks: bool) -> tuple[str, str]:
    """Through what the gradient is lost or grows, and what to do about it."""
    if not np.isnan(product.saturation).all():
        known = [part[~np.isnan(part)] for part in (product.saturation, product.weight)]
        flat, weight = (float(np.mean(log10(part))) if part.size else math.nan for part in known)
        parts = f"Per step, saturation multiplies by {number(10.0**flat)}"
        parts += ", so that nothing comes to W_hh" if math.isnan(weight) else f" and W_hh by {number(10.0**weight)}"
        parts += f" (ρ = {number(product.spectral_radius)})"
        if not shrinks:
            return parts, "clip_grad_norm; W_hh orthogonal or with a spectral radius below 1 (init='orthogonal', init=0.9)"
        if flat < weight or math.isnan(weight):
            return parts, "smaller inputs or weights, so that tanh is not saturated; an LSTM or GRU if the task needs a longer memory"
        return parts, "init='orthogonal' or a spectral radius of 1; an LSTM or GRU if the task needs a longer memory"
    gate, share = _gate(product)
    through = f"Of what crosses from step to step through W_hh, {share:.0%} comes from the {gate} gate" if gate else ""
    states = ledger.states(path)
    if not any(part.norm > 0 for at in states for part in at.parts[-1:]):  # nothing enters the highway: its state is the last part
        return (
            "Nothing reaches its cell: tanh(cell) is saturated, or the output gate closed",
            "smaller inputs; biases of the gates nearer to 0",
        )
    road = highway(ledger, path)
    if not road.exists:
        return through or "There is no highway", "clip_grad_norm" if not shrinks else "a recurrence with a highway: nn.LSTM, nn.GRU"
    direct = 10.0**road.rate if math.isfinite(road.rate) else 0.0
    parts = f"The highway alone multiplies by {number(direct)} per step"
    if scales.exists:
        mean, longest = number(float(scales.mean.mean())), number(float(scales.half_life.max()))
        parts += f" (mean {scales.gate} gate {mean}, longest half-life {longest} steps)"
    if shrinks:
        more = {"forget": "forget_bias=1 or more, or forget_bias=init.chrono(T)", "update": "a positive bias of the update gate"}
        return parts, f"{more.get(str(scales.gate), 'gates nearer to 1')}; a loss that also reads earlier steps; shorter sequences at first"
    return (
        f"{parts}; {through[0].lower()}{through[1:]}" if through else parts,
        "clip_grad_norm; smaller recurrent weights (init='orthogonal', init=0.9)",
    )


def _gate(product: VanishingProduct) -> tuple[str | None, float]:
    """The gate through which most of what crosses W_hh goes, and its share of the squares."""
    squares = {way: float(np.nansum(share**2)) for way, share in product.parts.items() if way != DIRECT}
    total = sum(squares.values())
    if not total or not math.isfinite(total):
        return None, math.nan
    most = max(squares, key=lambda way: squares[way])
    return most, squares[most] / total


def _stuck(path: str, scales: Timescales) -> Iterator[Finding]:
    """Gates and tanh units that are saturated nearly always."""
    for name in scales.left:
        for shares, side in ((scales.left[name], "closed (below 0.1)"), (scales.right[name], "open (above 0.9)")):
            units = np.flatnonzero(shares >= STUCK)
            if units.size and not (name in ("forget", "update") and side.startswith("open")):  # a memory that is kept is no fault
                what = f"the {name} gate of {units.size} of {len(shares)} units is always {side}: {_listed(units)}"
                advice = "smaller inputs or weights into that gate, or its bias nearer to 0: a saturated gate learns nothing"
                yield Finding("warning", path, what, units.size / len(shares), f"share of units, {name} gate", advice)
    for name, shares in scales.flat.items():
        units = np.flatnonzero(shares >= STUCK)
        if units.size:
            slope = float(scales.slope[name][units].mean())
            what = f"{units.size} of {len(shares)} units of {name} are always saturated (mean slope {number(slope)}): {_listed(units)}"
            advice = "normalise the inputs, draw smaller weights, or lower the learning rate that drove them there"
            yield Finding("warning", path, what, units.size / len(shares), f"share of units, {name}", advice)


def _listed(units: Any) -> str:
    few = ", ".join(str(unit) for unit in units[:6])
    return f"unit {few}" if len(units) == 1 else f"units {few}" + (", …" if len(units) > 6 else "")


# -- units and parameters ---------------------------------------------------------------------------------------------------------


def _dead_relus(ledger: Trace) -> Iterator[Finding]:
    """ReLU units that are 0 for every sequence at every step of this batch."""
    fired: dict[tuple[str, int], Any] = {}
    on: Any
    for step in ledger.steps:
        if step.op == "relu" and isinstance(step.map, Scale):
            on = np.asarray(step.map.factor, dtype=bool)
            key = step.scope, on.shape[-1] if on.ndim else 1
            on = on.reshape(-1, key[1]).any(axis=0)
            fired[key] = on | fired[key] if key in fired else on
    for (where, size), on in fired.items():
        units = np.flatnonzero(~on)
        if units.size:
            severity: Severity = "severe" if units.size == size else "warning"
            what = f"{units.size} of {size} ReLU units never fire in this batch, so nothing teaches them: {_listed(units)}"
            advice = "a smaller learning rate, a bias above 0, init='he', or tanh"
            yield Finding(severity, where or "relu", what, units.size / size, "share of units that never fire", advice)


def _of_parameters(ledger: Trace, norm: float) -> Iterator[Finding]:
    for leaf, gradient in ledger.gradients.items():
        if gradient.size and not np.any(gradient):
            what, advice = (
                "its gradient is exactly 0",
                "its way to the loss is blocked: a gate or mask of 0, a dead unit, or a state of zeros",
            )
            if _multiplies_zeros(ledger, leaf):
                what, advice = f"{what}: all that it multiplies is 0", "an input, or a state, of nothing but zeros: look at the data"
            yield Finding("warning", leaf.symbol, what, 0.0, "‖gradient‖", advice)
    if norm > LARGE:
        what = f"the gradient of all parameters has norm {number(norm)}"
        yield Finding(
            "warning", "parameters", what, norm, "‖gradient‖", "clip_grad_norm(parameters, 1.0); a mean instead of a sum in the loss"
        )
    elif 0 < norm < SMALL:
        what = f"the gradient of all parameters has norm {number(norm)}: plain SGD hardly moves"
        yield Finding(
            "warning", "parameters", what, norm, "‖gradient‖", "an optimiser that scales (Adam, RMSprop); see what vanishes above"
        )


def _multiplies_zeros(ledger: Trace, leaf: NodeInfo) -> bool:
    """Whether a matrix meets nothing but zeros, wherever it is used."""
    met = [step.map for step in Uses(ledger.steps, leaf).edges]
    return bool(met) and all(isinstance(one, MatMul) and one.side == "left" and not np.any(one.matrix) for one in met)
