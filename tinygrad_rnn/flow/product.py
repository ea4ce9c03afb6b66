"""The vanishing product: how the state cotangent shrinks or grows from step to step on its way back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Table, aligned, number, power_of_ten
from ..tensor import Tensor
from ..trace import StateAt, States, Trace
from .given import traced
from .logs import log10, mean_log10, slope, trend
from .relay import DIRECT, EdgeGains, accuracy, edges_in_words, edges_table, relay, reliable
from .stretches import gapless, stretches

PRESERVED = 0.00434
"""A rate, in log₁₀ per step, that is about 1 %: a gradient that changes less counts as preserved."""

_SHOWN = 3  # of so many edges a table says that they lose most


@dataclass(frozen=True, eq=False)
class VanishingProduct(Result):
    """Where the gradient of one recurrence goes, step by step backward from the last one that has any.

    All arrays have one entry per lag k = 0 … K, where lag 0 is step T; entry 0 of what belongs to a step between two states is NaN.
    In a recurrence that read the sequence from its end, its last step is 1: there lag k is step 1 + k.

    Attributes:
        layer: the recurrence's path.
        lag, time: k, and the step T − k.
        norm: ‖δ_{T−k}‖, the state cotangent's Frobenius norm over the batch (in units of the loss per unit of state).
        gain: ‖δ_{T−k}‖ / ‖δ_{T−k+1}‖.
        log10_product: log₁₀ of the running product of the gains; the ratio ‖δ_{T−k}‖ / ‖δ_T‖ is 10 to this.
        saturation, weight: for an RNN the two factors of each gain, ‖D δ‖/‖δ‖ with D = diag φ′ and ‖W_hhᵀ D δ‖/‖D δ‖; their
            product is the gain if the loss reads no step but the last. NaN elsewhere (in an LSTM or GRU the gain does not split so).
        log10_bound: log₁₀ (σ_max(W_hh) · max φ′)ᵏ, which the ratio cannot exceed (Pascanu, Mikolov & Bengio 2013); NaN but for an RNN,
            and where the loss is read at several steps.
        spectral_radius, largest_singular_value: ρ(W_hh), which decides the limit of Wᵏ, and σ_max(W_hh), which bounds each single
            step; NaN but for an RNN whose arrays were kept.
        rate: the mean log₁₀ gain per step, as far as the norm is not exactly 0 (nor subnormal, with keep="norms"); NaN where the gradient
            or the states are not finite. Where the loss is read at several steps, the mean log₁₀ of ``handed_back``.
        half_life: steps in which the norm halves at this rate; inf if it does not shrink.
        verdict: "vanishing", "preserved" or "exploding", with the rate; "gone" where the norm is exactly 0, "not finite" where the
            gradient, or the state itself, is NaN or infinite.
        parts: for an LSTM or GRU, by way: ‖what a step hands back on it‖ / ‖δ before the step‖; "direct" is the highway, the others
            the gate whose pre-activation is passed last. As vectors the ways add up to what is handed back; their norms do not.
        handed_back: ‖what the step hands back‖ / ‖δ before the step‖: the gain, without what the loss adds at the state itself.
        several: whether the loss is read at several steps: whether anything but the step after arrives at a state before the last.
        edges: the multiplications on the way from state to state, those that lose most first, with the source lines that recorded them;
            :class:`EdgeGains` says what "loses" means where there are several ways.

    What a float cannot hold is there all the same: with keep="arrays", cotangents too small or too large for the ledger are followed
    by their direction and their logarithm. ``parts`` and ``edges`` need keep="arrays" too; without they are empty, and
    ``handed_back`` and ``several`` are known of an RNN only (NaN and False elsewhere).
    """

    layer: str
    lag: Any
    time: Any
    norm: Any
    gain: Any
    log10_product: Any
    saturation: Any
    weight: Any
    log10_bound: Any
    spectral_radius: float
    largest_singular_value: float
    rate: float
    half_life: float
    verdict: str
    parts: dict[str, Any]
    edges: tuple[EdgeGains, ...]
    handed_back: Any
    several: bool

    def table(self) -> Table:
        """Selected lags, with the parts where the gain splits; below it the half-life, the spectrum, and where most is lost."""
        splits = not np.isnan(self.saturation).all()
        columns = ["lag", "step", "‖δ‖/‖δ_T‖", "gain", "log₁₀ ∏"] + (["saturation", "weight", "bound"] if splits else [])
        rows = []
        for k in selected_lags(len(self.lag) - 1):
            log = self.log10_product[k]
            row = [str(k), str(self.time[k]), power_of_ten(log), number(self.gain[k]), "–" if math.isnan(log) else f"{log:.2f}"]
            if splits:
                row += [number(self.saturation[k]), number(self.weight[k]), power_of_ten(self.log10_bound[k])]
            rows.append(row)
        return aligned(columns, rows, f"{self.layer}: {self.verdict}", "\n".join(self._said()))

    def edges_table(self) -> Table:
        """Every multiplication on the way from a state to the one before it, those that lose most first."""
        caption = "effect: share · log₁₀ gain, what the edge takes from log₁₀ of what a step hands back"
        return edges_table(self.edges, f"{self.layer}: where the gradient is lost", caption)

    def _said(self) -> Iterator[str]:
        if self.several:
            yield "the loss is read at several steps: the verdict is about what each step hands on"
        words = [f"half-life {number(self.half_life)} steps"] if math.isfinite(self.half_life) else []
        if not math.isnan(self.spectral_radius):
            words.append(
                f"W_hh: ρ = {number(self.spectral_radius)} decides the limit, σ_max = {number(self.largest_singular_value)} the bound"
            )
        if words:
            yield "; ".join(words)
        if any(np.isfinite(share[1:]).any() for share in self.parts.values()):
            means = [(float(np.nanmean(share[1:])), way if way == DIRECT else f"{way} gate") for way, share in self.parts.items()]
            ways = ", ".join(f"{way} {number(mean)}" for mean, way in sorted(means, reverse=True))
            yield f"mean ‖what a step hands back‖/‖δ‖ by way: {ways}"
        told = [edge for edge in self.edges if abs(edge.log10_effect) > 0.1 * PRESERVED]
        if self.rate > PRESERVED:
            yield from edges_in_words("most is gained", [edge for edge in reversed(told) if edge.log10_effect > 0][:_SHOWN])
        else:
            yield from edges_in_words("most is lost", [edge for edge in told if edge.log10_effect < 0][:_SHOWN])


def selected_lags(last: int) -> list[int]:
    """A few lags from 0 to the last, at steps of 1, 2 and 5 per decade."""
    chosen = {0, last}
    for power in range(len(str(max(last, 1)))):
        chosen.update(step * 10**power for step in (1, 2, 5))
    return sorted(k for k in chosen if k <= last)


def vanishing_product(trace: Trace | Tensor, layer: Any = None) -> VanishingProduct:
    """The gains of the state cotangent δ_t = ∂L/∂s_t, s = h or [h; c], and their product.

    If the loss reads only the last state, δ_t = J_{t+1}ᵀ … J_Tᵀ δ_T with the step Jacobians J_t = ∂s_t/∂s_{t−1}.

    Args:
        trace: from ``tg.trace``, or a loss, which is traced; keep="norms" is enough for all but the spectral quantities.
        layer: the recurrence's path or module; None if there is only one.

    Raises:
        ArgumentError: if no such recurrence was traced, no gradient reached any of its steps, or a step in the middle has no state.

    Source:
        Pascanu, Mikolov & Bengio 2013 (the bound); Hochreiter 1991, Bengio, Simard & Frasconi 1994 (the effect).

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.RNN(2, 16, init=0.5, rng=0)(np.zeros((30, 1, 2)))
        >>> result = flow.vanishing_product(tg.trace(outputs[-1].sum()))
        >>> result.verdict.split(":")[0], bool(np.allclose(result.gain[1:], (result.saturation * result.weight)[1:]))
        ('vanishing', True)
    """
    trace = traced("vanishing_product", trace)
    states = gapless("vanishing_product", trace.states(layer))
    ran, norms = states.times, [at.norm for at in states]
    last = max((k for k, norm in enumerate(norms) if norm != 0), default=None)
    if last is None:
        raise ArgumentError(f"vanishing_product: no gradient reached any step of {states.path!r}; trace a loss that depends on its output")
    time, norm = np.array(ran[last::-1]), np.array(norms[last::-1])
    relayed = relay(trace, states, time, norm) if trace.keep == "arrays" else None
    logs = log10(norm) if relayed is None else relayed.log10_norm
    with np.errstate(invalid="ignore", over="ignore"):
        gain = np.concatenate([[np.nan], 10.0 ** np.diff(logs)])
        product = logs - logs[0]
    known = np.ones(len(time), bool) if relayed is None else np.concatenate([[True], relayed.trusted[:-1]])
    saturation, weight, matrix = _rnn_parts(trace, states, time, known)
    if relayed is not None:  # a step's factors are the relay's where its cotangent is out of the ledger's range
        saturation, weight = np.where(known, saturation, relayed.saturation), np.where(known, weight, relayed.weight)
    lag = np.arange(len(time))
    radius = largest = math.nan
    if matrix is not None and np.isfinite(matrix).all():
        matrix = matrix.astype(np.float64, copy=False)  # NumPy has no eigenvalues of float16
        radius = float(np.max(np.abs(np.linalg.eigvals(matrix)), initial=0.0))
        largest = float(np.linalg.norm(matrix, 2))
    zeros = lag[np.isneginf(product)]
    if relayed is not None:
        unknown = np.flatnonzero(np.isnan(logs))
        rate, lost = slope(product), int(unknown[0]) if unknown.size else None
        handed, several = relayed.handed, relayed.several
    else:
        rate, lost = trend(norm, states[int(time[0])].parts[0].node.dtype)
        sure = np.array([reliable(states[int(t)], n) for t, n in zip(time, norm, strict=True)])
        with np.errstate(invalid="ignore", over="ignore"):
            handed = saturation * weight
            differs = np.abs(handed - gain)[1:] > accuracy(states[int(time[0])]) * gain[1:]
        several = bool((differs & sure[1:] & sure[:-1]).any())
    if several:
        rate = mean_log10(handed)
        zeros = np.flatnonzero(handed == 0)
    wrong = next((k for k, t in enumerate(time) if not _finite(states[int(t)])), None)
    if lost is not None or wrong is not None:
        itself = wrong is not None and (lost is None or wrong <= lost)
        rate, said = math.nan, f"not finite from lag {wrong if itself else lost} on" + (": the state itself" if itself else "")
    elif zeros.size:
        said = f"gone: exactly 0 {'is handed on to' if several else 'from'} lag {zeros[0]}{'' if several else ' on'}"
    else:
        said = verdict(rate) if len(lag) > 1 else "one step only: nothing to compare"
    return VanishingProduct(
        layer=states.path,
        lag=lag,
        time=time,
        norm=norm,
        gain=gain,
        log10_product=product,
        saturation=saturation,
        weight=weight,
        log10_bound=np.array([k * float(log10(largest)) if k else 0.0 for k in lag])
        if matrix is not None and not several
        else np.full(len(lag), np.nan),
        spectral_radius=radius,
        largest_singular_value=largest,
        rate=rate,
        half_life=half_life(rate),
        verdict=said,
        parts={} if relayed is None else relayed.parts,
        edges=() if relayed is None else relayed.edges,
        handed_back=handed,
        several=several,
    )


def _finite(at: StateAt) -> bool:
    return all(part.value is None or bool(np.isfinite(part.value).all()) for part in at.parts)


def half_life(rate: float) -> float:
    """In how many steps a norm halves at a rate in log₁₀ per step; inf if it does not shrink, NaN where the rate is."""
    if math.isnan(rate):
        return math.nan
    return -math.log10(2.0) / rate if rate < 0 else math.inf


def verdict(rate: float) -> str:
    """The rate, in log₁₀ per step, in words."""
    if math.isnan(rate):
        return "not finite"
    word = "vanishing" if rate < -PRESERVED else "exploding" if rate > PRESERVED else "preserved"
    return f"{word}: a factor of {10.0**rate:.3g} per step"


def _rnn_parts(trace: Trace, states: States, time: Any, known: Any) -> tuple[Any, Any, Any]:
    """Saturation part, weight part and W_hh, where one diagonal and one matrix make up a step, and NaN where they do not or are not known.

    An RNN is recognised by its edges: on the way from h_t to h_{t−1} stand one ``scale`` edge and then one ``matmul`` edge, and between
    them the cotangent stays as it is.
    """
    saturation, weight = np.full(len(time), np.nan), np.full(len(time), np.nan)
    matrix = None
    if any(at.cell is not None or at.gates for at in states):
        return saturation, weight, matrix
    paths = {stretch.here.time: stretch.path for stretch in stretches(trace.steps, states)}
    for k in range(1, len(time)):
        edges = [step for step in paths[int(time[k - 1])] if step.kind in ("scale", "matmul")]
        if [step.kind for step in edges] != ["scale", "matmul"]:
            break
        diagonal, product = edges
        left, arrives = diagonal.norms[1], product.norms[0]
        if known[k] and abs(arrives - left) > accuracy(states[int(time[k])]) * left:
            break
        if known[k]:
            saturation[k], weight[k] = diagonal.gain, product.gain
        if product.map is not None:
            matrix = np.asarray(product.map.matrix)  # type: ignore[attr-defined]
    return saturation, weight, matrix
