"""Why the gradient of a plain RNN vanishes or explodes: rows 1 to 4 of the curriculum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import flow, nn
from ..errors import ArgumentError
from ..flow.logs import log10
from ..flow.product import VanishingProduct
from ..graph import scope
from ..nn.init import generator, orthogonal
from ..render.charts import Chart, series
from ..report import Table, aligned, number, power_of_ten
from ..tensor import landmark, tensor
from ..trace import trace
from ..transforms import grad, jacobian
from .measurement import Claim, Measurement, close, experiment, holds

# -- 1: the chain rule ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ChainRule(Measurement):
    """The gradient of a loss with respect to an earlier state, as the product of its factors.

    Attributes:
        name: of each factor, from the last to the first: "∂J/∂h₄", "∂h₄/∂h₃", ….
        factor: the step Jacobians ∂h_k/∂h_{k−1}, each (H, H), rows are outputs; in the order of ``name`` from the second on.
        largest: the largest singular value of each of them: what it can multiply a gradient by at most.
        norm: the norm of the gradient after each factor, one per name.
        product: J₂ᵀ J₃ᵀ … ∂J/∂h_position, multiplied out, (H,).
        gradient: what the engine's backward pass gives at the same state, (H,).
        difference: ‖product − gradient‖ / ‖gradient‖.
    """

    name: tuple[str, ...]
    factor: Any
    largest: Any
    norm: Any
    product: Any
    gradient: Any
    difference: float

    def table(self) -> Table:
        """Every factor, the most it can do, and the norm after it."""
        most = [math.nan, *self.largest]
        rows = [(name, number(m), number(n, 4)) for name, m, n in zip(self.name, most, self.norm, strict=True)]
        caption = f"the engine's gradient differs by {self.difference:.1e}"
        return aligned(("factor", "σ_max", "‖gradient‖ after it"), rows, "the chain rule through time", caption)

    def claims(self) -> tuple[Claim, ...]:
        """The product of the factors is the engine's gradient, to 1e-10; and every factor makes it smaller."""
        steps = int((self.norm[1:] < self.norm[:-1]).sum())
        return (
            holds(
                "factors, multiplied, against the gradient",
                "equal",
                self.difference,
                self.difference < 1e-10,
                "relative difference < 1e-10",
            ),
            holds(
                "the gradient is smaller as it goes back",
                "at every step",
                f"at {steps} of {len(self.norm) - 1} steps",
                steps == len(self.norm) - 1,
                "each norm is below the one before",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """The norm after each factor."""
        shown = series("‖gradient‖", self.name, self.norm)
        return (Chart("bars", "The gradient after each factor", "factor", "norm", (shown,), "y"),)


@experiment
def chain_rule(position: int = 4, source: int = 1, *, hidden: int = 3, scale: float = 1.0, seed: int = 0) -> ChainRule:
    """Claim (row 1): ∂J⁽⁴⁾/∂h⁽¹⁾ = (∂h₂/∂h₁)ᵀ (∂h₃/∂h₂)ᵀ (∂h₄/∂h₃)ᵀ ∂J⁽⁴⁾/∂h₄, and it shrinks factor by factor.

    A tanh RNN reads random inputs; J = ½‖h_position − y‖². Each factor is measured by itself as a Jacobian of the cell; the product is then
    compared with the gradient of one backward pass.

    Args:
        position, source: the steps of the loss and of the state, 1 ≤ source ≤ position.
        hidden, scale, seed: H; what W_hh is multiplied by; the random source.

    Raises:
        ArgumentError: if the source does not come before the position.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.chain_rule()
        >>> found.name
        ('∂J/∂h₄', '∂h₄/∂h₃', '∂h₃/∂h₂', '∂h₂/∂h₁')
        >>> found.difference < 1e-12
        True
    """
    if not 1 <= source <= position:
        raise ArgumentError(f"chain_rule: expected 1 ≤ source ≤ position, got source {source} and position {position}")
    rng = generator(seed)
    cell: Any = nn.RNNCell(2, hidden, rng=rng)
    cell.weight_hh.value = scale * cell.weight_hh.value
    inputs, target = rng.standard_normal((position, 2)), rng.standard_normal(hidden)
    state, states = None, [tensor(np.zeros(hidden))]
    for x in inputs:
        state = cell(x, state)
        states.append(state.hidden)
    loss = 0.5 * ((states[position] - target) ** 2).sum()

    def step(t: int) -> Any:
        return jacobian(lambda h: cell(inputs[t - 1], nn.RNNState(h)).hidden, states[t - 1].value).value

    factors = [step(t) for t in range(position, source, -1)]
    product = grad(loss, states[position])[0].value
    norms = [float(np.linalg.norm(product))]
    for factor in factors:
        product = factor.T @ product
        norms.append(float(np.linalg.norm(product)))
    gradient = grad(loss, states[source])[0].value
    names = [f"∂J/∂{_h(position)}"] + [f"∂{_h(t)}/∂{_h(t - 1)}" for t in range(position, source, -1)]
    return ChainRule(
        name=tuple(names),
        factor=np.array(factors).reshape(-1, hidden, hidden),
        largest=np.array([np.linalg.norm(factor, 2) for factor in factors]),
        norm=np.array(norms),
        product=product,
        gradient=gradient,
        difference=float(np.linalg.norm(product - gradient) / np.linalg.norm(gradient)),
    )


def _h(time: int) -> str:
    return "h" + str(time).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


# -- 2: eigenvalues -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Eigenvalues(Measurement):
    """What is left of a gradient in a linear recurrence h_t = W h_{t−1}.

    Attributes:
        radius: |λ| of all eigenvalues of W, a normal matrix; (F,).
        steps: lags k; (K,).
        log10_measured, log10_expected: log₁₀ ‖δ_{T−k}‖/‖δ_T‖ by the engine, and k · log₁₀ |λ|; (F, K).
        transient: the same ratio for a non-normal W, [[ρ, a], [0, ρ]], at lags 0, 1, …; ``transient_radius`` is ρ < 1,
            ``transient_sigma`` its largest singular value.
        peak, peak_lag: the largest ratio on the way, and where: the gradient grows first although every eigenvalue is below 1.
    """

    radius: Any
    steps: Any
    log10_measured: Any
    log10_expected: Any
    transient: Any
    transient_radius: float
    transient_sigma: float
    peak: float
    peak_lag: int

    def table(self) -> Table:
        """What is left by eigenvalue and lag, measured."""
        rows = [(f"|λ| = {r:g}", *map(power_of_ten, row)) for r, row in zip(self.radius, self.log10_measured, strict=True)]
        shown = [self.transient[min(int(k), len(self.transient) - 1)] for k in self.steps]
        rows.append((f"non-normal, ρ = {self.transient_radius:g}", *(power_of_ten(float(log10(value))) for value in shown)))
        caption = (
            f"the non-normal matrix (σ_max = {self.transient_sigma:.3g}) first grows, to {self.peak:.3g} at lag {self.peak_lag}: "
            "eigenvalues decide the limit, not the beginning"
        )
        return aligned(("W", *(f"{k} steps" for k in self.steps)), rows, "eigenvalues decide", caption)

    def claims(self) -> tuple[Claim, ...]:
        """The lecture's numbers to 1 %, and whether ρ < 1 shrinks a gradient from the first step on, whatever W."""
        published = {(0.9, 100): 2.66e-5, (1.0, 100): 1.0, (1.1, 100): 1.38e4, (0.95, 50): 0.0769, (0.95, 100): 0.0059}
        measured = {
            (float(r), int(k)): 10.0**value
            for r, row in zip(self.radius, self.log10_measured, strict=True)
            for k, value in zip(self.steps, row, strict=True)
        }
        numbers = [close(f"|λ| = {r:g}, {k} steps", published[r, k], measured[r, k]) for r, k in sorted(published) if (r, k) in measured]
        shrinks = holds(
            f"ρ < 1 shrinks the gradient: a non-normal W with ρ = {self.transient_radius:g}",
            "from the first step",
            f"grows to {self.peak:.3g} at lag {self.peak_lag}, {self.transient[-1]:.2g} at the last",
            self.peak <= 1,
            "no lag at which the ratio is above 1",
        )
        return (*numbers, shrinks)

    def charts(self) -> tuple[Chart, ...]:
        """What is left by lag, and the non-normal matrix on its way."""
        lines = [series(f"|λ| = {r:g}", self.steps, 10.0**row) for r, row in zip(self.radius, self.log10_measured, strict=True)]
        way = series(f"non-normal, ρ = {self.transient_radius:g}", range(len(self.transient)), self.transient)
        return (Chart("lines", "A gradient through h = W h", "lag", "‖δ‖ / ‖δ_T‖", (*lines, way), "y"),)


@experiment
def eigenvalues(
    radii: Sequence[float] = (0.9, 0.95, 1.0, 1.1),
    steps: Sequence[int] = (10, 50, 100),
    *,
    hidden: int = 4,
    radius: float = 0.9,
    shear: float = 1.0,
    seed: int = 0,
) -> Eigenvalues:
    """Claim (row 2): in h_t = W h_{t−1} the gradient changes by |λ|ᵏ: 0.9¹⁰⁰ = 2.66e-5, 1.1¹⁰⁰ = 1.38e4, 0.95⁵⁰ = 7.69 %.

    True of a normal matrix (here |λ| times an orthogonal one). And where it breaks: W = [[ρ, a], [0, ρ]] has both eigenvalues at ρ < 1, and
    its gradient grows before it shrinks, ‖(Wᵀ)ᵏ e₁‖ = ρᵏ √(1 + (k a/ρ)²).

    Args:
        radii, steps: |λ| and the lags, each at least one.
        hidden, seed: the size of the normal matrices, and the random source.
        radius, shear: ρ and a of the non-normal one.

    Example:
        >>> import tinygrad_rnn as tg
        >>> print(tg.experiments.eigenvalues())
        eigenvalues decide
        W                    10 steps  50 steps  100 steps
        ──────────────────────────────────────────────────
        |λ| = 0.9               0.349   0.00515   2.66e-05
        |λ| = 0.95              0.599    0.0769    0.00592
        |λ| = 1                     1         1          1
        |λ| = 1.1                2.59       117   1.38e+04
        non-normal, ρ = 0.9      3.89     0.286    0.00295
        the non-normal matrix (σ_max = 1.53) first grows, to 3.89 at lag 9: eigenvalues decide the limit, not the beginning
    """
    rng, lags = generator(seed), np.array(steps, dtype=int)
    turn, direction = orthogonal((hidden, hidden), rng), rng.standard_normal(hidden)
    longest = int(lags.max())
    measured = [linear_recurrence(factor * turn, longest, direction)[lags] for factor in radii]
    sheared = np.array([[radius, shear], [0.0, radius]])
    transient = 10.0 ** linear_recurrence(sheared, longest, np.array([1.0, 0.0]))
    return Eigenvalues(
        radius=np.array(radii, dtype=float),
        steps=lags,
        log10_measured=np.array(measured),
        log10_expected=np.outer(log10(radii), lags),
        transient=transient,
        transient_radius=float(radius),
        transient_sigma=float(np.linalg.norm(sheared, 2)),
        peak=float(transient.max()),
        peak_lag=int(transient.argmax()),
    )


def linear_recurrence(weight: Any, steps: int, direction: Any) -> Any:
    """log₁₀ ‖δ_{T−k}‖/‖δ_T‖, k = 0 … steps, in h_t = W h_{t−1}, with a loss whose gradient at h_T is ``direction``."""
    h: Any = tensor(np.ones((1, len(weight))), requires_grad=True, name="h₀")
    for t in range(1, steps + 2):
        with scope("linear", time=t):
            h = landmark(h @ weight.T, "h", "hidden")
    return flow.vanishing_product(trace((h * direction).sum(), keep="norms")).log10_product


# -- 3: saturation --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Saturation(Measurement):
    """The saturation part of each step's gain, in an RNN whose units stay at a given value.

    Attributes:
        value: h; ``expected`` 1 − h²; ``measured`` the mean saturation part over the steps.
    """

    value: Any
    expected: Any
    measured: Any

    def table(self) -> Table:
        """One row per value."""
        rows = [(f"{v:g}", number(e), number(m)) for v, e, m in zip(self.value, self.expected, self.measured, strict=True)]
        return aligned(("h", "1 − h²", "measured"), rows, "saturation: what tanh multiplies by at each step")

    def claims(self) -> tuple[Claim, ...]:
        """The lecture's four factors, to 1 %."""
        published = {0.0: 1.0, 0.5: 0.75, 0.9: 0.19, 0.99: 0.0199}
        return tuple(
            close(f"h = ±{v:g}", published[abs(float(v))], float(m))
            for v, m in zip(self.value, self.measured, strict=True)
            if abs(float(v)) in published
        )

    def charts(self) -> tuple[Chart, ...]:
        """Measured factors on the curve 1 − h²."""
        grid = np.linspace(-1.0, 1.0, 61)
        shown = (series("1 − h²", grid, 1.0 - grid**2), series("measured", self.value, self.measured, joined=False))
        return (Chart("lines", "What tanh multiplies by", "h", "saturation part of the gain", shown),)


@experiment
def saturation(values: Sequence[float] = (0.0, 0.5, 0.9, 0.99), *, steps: int = 5, hidden: int = 4) -> Saturation:
    """Claim (row 3): tanh multiplies the gradient by 1 − h²: 1 at 0, 0.75 at ±0.5, 0.19 at ±0.9, 0.0199 at ±0.99.

    An RNN with W_hh = 1 and the bias artanh(h) − h rests at h; measured is the saturation part of every step's gain.

    Args:
        values: where the units rest, each between −1 and 1.
        steps, hidden: the length and H.

    Raises:
        ArgumentError: for a value that tanh does not reach.
    """
    measured = [10.0 ** float(np.mean(log10(_resting(np.eye(hidden), value, steps).saturation[1:]))) for value in values]
    resting = np.array(values, dtype=float)
    return Saturation(value=resting, expected=1.0 - resting**2, measured=np.array(measured))


def _resting(weight: Any, value: float, steps: int) -> VanishingProduct:
    """The vanishing product of an RNN with this W_hh whose units all stay at one value; the loss reads the last step."""
    if not -1 < value < 1:
        raise ArgumentError(f"tanh: a unit cannot rest at {value}; expected a value between −1 and 1")
    size = len(weight)
    layer: Any = nn.RNN(1, size, init=lambda shape, rng: weight, rng=0)
    layer.weight_ih_l0.value = np.zeros((size, 1))
    layer.bias_l0.value = np.arctanh(value) - value * weight.sum(axis=1)
    outputs, _ = layer(np.zeros((steps + 1, 1, 1)), nn.RNNState(np.full((1, 1, size), value)))
    return flow.vanishing_product(trace((outputs[-1] * np.arange(1.0, size + 1.0)).sum()))


# -- 4: both --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Compound(Measurement):
    """Eigenvalues and saturation together; all logarithms are to base 10 and per step.

    Attributes:
        radius, value: ρ of W_hh = ρ · orthogonal, and where the units rest; one entry per case.
        log10_saturation, log10_weight, log10_gain: the parts, measured, and the gain.
        log10_expected: log₁₀ ρ (1 − h²).
        input_scale: for the RNN with ρ = 1 that reads random inputs, what they are multiplied by; ``driven_saturation``,
            ``driven_weight`` and ``driven_gain`` are its parts and gain.
        steps: over how many steps means are taken.
        excess: the largest |log₁₀ gain − log₁₀ saturation − log₁₀ weight| of any single step: 0 but for rounding.
    """

    radius: Any
    value: Any
    log10_saturation: Any
    log10_weight: Any
    log10_gain: Any
    log10_expected: Any
    input_scale: Any
    driven_saturation: Any
    driven_weight: Any
    driven_gain: Any
    steps: int
    excess: float

    def table(self) -> Table:
        """One row per case: both parts, the gain, and what is left over all steps."""
        resting = zip(self.radius, self.value, self.log10_saturation, self.log10_weight, self.log10_gain, strict=True)
        cases = [(f"ρ = {r:g}, h = {v:g}", *parts) for r, v, *parts in resting]
        driven = zip(self.input_scale, self.driven_saturation, self.driven_weight, self.driven_gain, strict=True)
        cases += [(f"ρ = 1, inputs × {s:g}", *parts) for s, *parts in driven]
        rows = [(name, *(f"{round(part, 3) + 0.0:+.3f}" for part in parts), power_of_ten(self.steps * parts[-1])) for name, *parts in cases]
        columns = ("case", "log₁₀ saturation", "log₁₀ weight", "log₁₀ gain", f"left after {self.steps}")
        return aligned(columns, rows, "both compound: the logarithms add", "per step; ρ = 1 and saturated units still vanish")

    def claims(self) -> tuple[Claim, ...]:
        """The logarithms add at every step; and where ρ is near 1, saturated units lose more than half at each step."""
        near = (np.abs(self.radius - 1.0) <= 0.1) & (np.abs(self.value) >= 0.9)
        gain = float(10.0 ** self.log10_gain[near].max()) if near.any() else math.nan
        return (
            holds("log gain − log saturation − log weight", "0 at every step", self.excess, self.excess < 1e-10, "below 1e-10"),
            holds(
                "eigenvalues near 1 and saturated units (|h| ≥ 0.9)",
                "still kill the gradient",
                f"gain at most {number(gain)} per step",
                gain < 0.5 if near.any() else None,
                "a gain below ½ at every ρ from 0.9 to 1.1",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """Both parts of every case, and their sum."""
        names = [f"ρ = {r:g}, h = {v:g}" for r, v in zip(self.radius, self.value, strict=True)]
        parts = (("saturation", self.log10_saturation), ("weight", self.log10_weight), ("gain", self.log10_gain))
        return (Chart("bars", "Both parts of each step's gain", "", "log₁₀ per step", tuple(series(n, names, y) for n, y in parts)),)


@experiment
def compound(
    radii: Sequence[float] = (0.9, 1.0, 1.1),
    values: Sequence[float] = (0.0, 0.5, 0.9),
    *,
    input_scales: Sequence[float] = (0.1, 1.0, 3.0),
    steps: int = 30,
    hidden: int = 8,
    seed: int = 0,
) -> Compound:
    """Claim (row 4): the factors of W_hh and of tanh compound: ρ = 1 with saturated units still vanishes, and log gains add.

    Where all units rest at h and W_hh is ρ times an orthogonal matrix, the gain is exactly ρ (1 − h²). An orthogonal RNN (ρ = σ = 1) that
    reads random inputs shows the same without that construction: the stronger its inputs, the more is lost.

    Args:
        radii, values: every pair is a case.
        input_scales: standard deviations of the inputs of the driven RNN.
        steps, hidden, seed: the number of steps, H and the random source.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.compound(radii=(1.0,), values=(0.9,))
        >>> found.log10_weight.round(6) + 0, (10**found.log10_gain).round(4)
        (array([0.]), array([0.19]))
    """
    rng = generator(seed)
    turn = orthogonal((hidden, hidden), rng)
    cases = [(r, v) for r in radii for v in values]
    products = [_resting(r * turn, v, steps) for r, v in cases]
    driven = []
    for scale in input_scales:
        layer = nn.RNN(4, hidden, init=lambda shape, _: turn, rng=seed)
        outputs, _ = layer(scale * rng.standard_normal((steps + 1, 1, 4)))
        driven.append(flow.vanishing_product(trace((outputs[-1] * rng.standard_normal(hidden)).sum())))
    parts = np.array([_parts(product) for product in (*products, *driven)])
    resting, moved = parts[: len(cases)], parts[len(cases) :]
    radius, value = (np.array(column, dtype=float) for column in zip(*cases, strict=True))
    singles = [log10(p.gain[1:]) - log10(p.saturation[1:]) - log10(p.weight[1:]) for p in (*products, *driven)]
    return Compound(
        radius=radius,
        value=value,
        log10_saturation=resting[:, 0],
        log10_weight=resting[:, 1],
        log10_gain=resting[:, 2],
        log10_expected=log10(radius * (1.0 - value**2)),
        input_scale=np.array(input_scales, dtype=float),
        driven_saturation=moved[:, 0],
        driven_weight=moved[:, 1],
        driven_gain=moved[:, 2],
        steps=steps,
        excess=float(max(np.max(np.abs(single)) for single in singles)),
    )


def _parts(product: VanishingProduct) -> list[float]:
    """Mean log₁₀ per step of saturation, weight and gain."""
    return [float(np.mean(log10(part[1:]))) for part in (product.saturation, product.weight, product.gain)]
