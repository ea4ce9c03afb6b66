"""What gates change, and what they do not: rows 11 to 14 of the curriculum (LSTM and GRU)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import flow, nn
from ..errors import ArgumentError
from ..flow.logs import log10
from ..functional import mse
from ..nn.init import generator
from ..optim import Adam
from ..render.charts import Chart, series
from ..report import Table, aligned, number, power_of_ten
from ..steps import BackwardStep, norm_of
from ..tensor import Tensor
from ..trace import trace
from ..transforms import jacobian
from .measurement import Claim, Measurement, close, experiment, holds

LECTURE_ORDER = ("forget", "input", "candidate", "output")
"""The blocks of the lecture's LSTM; ours stand as in PyTorch: input, forget, candidate, output."""


def sigma(a: Any) -> Any:
    """The logistic function on arrays, in a form that does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * a))


# -- 11: the LSTM's equations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LSTMCellReport(Measurement):
    """The lecture's LSTM beside ours, and what stands on its highway.

    Attributes:
        steps: how many steps both were run.
        hidden_difference, cell_difference: the largest absolute difference of any h_t and any c_t.
        factor_difference: the largest difference between the factor on the highway and f_t; exactly 0.
        jacobian_difference: the largest difference between ∂c_t/∂c_{t−1} at fixed h_{t−1} (the whole matrix) and diag(f_t).
        lag: k, the last one; ``kept_at_zero``, ``kept_at_one``: what is left of the direct gradient after k steps with f = 0 and f = 1.
        cell_at_zero: the largest |∂c_T/∂c_0| with f = 0, by all paths of one step: the cell is reset.
        direct_by_gate: (3, k + 1), what the direct path keeps by lag with f = 0, with f as it is drawn, and with f = 1.
    """

    steps: int
    hidden_difference: float
    cell_difference: float
    factor_difference: float
    jacobian_difference: float
    lag: int
    kept_at_zero: float
    kept_at_one: float
    cell_at_zero: float
    direct_by_gate: Any

    def table(self) -> Table:
        """Claim and number."""
        rows = [
            ("lecture's h_t and ours, largest difference", number(self.hidden_difference)),
            ("lecture's c_t and ours, largest difference", number(self.cell_difference)),
            ("highway factor and f_t, largest difference", number(self.factor_difference)),
            ("∂c_t/∂c_{t−1} at fixed h and diag(f_t), largest difference", number(self.jacobian_difference)),
            (f"f = 0: direct gradient after {self.lag} steps", number(self.kept_at_zero)),
            (f"f = 1: direct gradient after {self.lag} steps", number(self.kept_at_one)),
            ("f = 0: largest |∂c_t/∂c_{t−1}|", number(self.cell_at_zero)),
        ]
        return aligned(("what", "number"), rows, "the LSTM's equations")

    def claims(self) -> tuple[Claim, ...]:
        """Number for number to 1e-12; the factor on the highway exactly; f = 0 resets and f = 1 keeps for ever, exactly."""
        apart = max(self.hidden_difference, self.cell_difference)
        return (
            holds("the lecture's cell and ours", "equal", apart, apart < 1e-12, "h and c at every step, to 1e-12"),
            holds(
                "factor of the direct path",
                "diag(f_t)",
                self.factor_difference,
                self.factor_difference == 0,
                "equal to f_t, to the last bit",
            ),
            holds(
                "∂c_t/∂c_{t−1} − diag(f_t), h_{t−1} fixed", "0", self.jacobian_difference, self.jacobian_difference < 1e-12, "below 1e-12"
            ),
            holds("f = 0", "the cell resets each step", self.cell_at_zero, self.cell_at_zero == 0, "∂c_t/∂c_{t−1} is exactly 0"),
            holds("f = 1", "perfect memory", self.kept_at_one, self.kept_at_one == 1, "the direct gradient is exactly 1 after all steps"),
        )

    def charts(self) -> tuple[Chart, ...]:
        """What the direct path keeps, by lag."""
        kept = [(name, self.direct_by_gate[row]) for row, name in enumerate(("f = 0", "f as drawn", "f = 1"))]
        shown = tuple(series(name, range(len(values)), values) for name, values in kept)
        return (Chart("lines", "What the LSTM's highway keeps", "lag", "direct gradient, ratio to the last step's", shown),)


def lecture_lstm_step(x: Any, hidden: Any, cell: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    """One step as the lecture writes it: one matrix on [h, x] with the blocks f, i, c̃, o; for one sequence, on arrays."""
    f, i, candidate, o = np.split(weight @ np.concatenate([hidden, x]) + bias, 4)
    cell = sigma(f) * cell + sigma(i) * np.tanh(candidate)
    return sigma(o) * np.tanh(cell), cell


def from_lecture(weight: Any, bias: Any, hidden: int) -> dict[str, Any]:
    """The parameters of an ``nn.LSTMCell`` from the lecture's: other blocks first, and [h, x] taken apart."""
    rows = np.concatenate([np.arange(hidden) + LECTURE_ORDER.index(gate) * hidden for gate in ("input", "forget", "candidate", "output")])
    return {"weight_ih": weight[rows, hidden:], "weight_hh": weight[rows, :hidden], "bias": bias[rows]}


@experiment
def lstm_cell(*, inputs: int = 3, hidden: int = 4, steps: int = 8, seed: int = 0) -> LSTMCellReport:
    """Claim (row 11): c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t, h_t = o_t ⊙ tanh(c_t), and ∂c_t/∂c_{t−1} = diag(f_t) on the direct path.

    The lecture's cell (weights 0.1 · normal on [h, x], forget bias 1) and ours, with its weights, are run side by side. Then f is held at
    0 and at 1 by its bias: at 0 the cell is reset at every step, at 1 it keeps for ever.

    Args:
        inputs, hidden, steps, seed: I, H, the number of steps (at least 2), and the random source.

    Raises:
        ArgumentError: for fewer than two steps.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.lstm_cell()
        >>> found.hidden_difference < 1e-15, found.factor_difference, found.kept_at_zero, found.kept_at_one
        (True, 0.0, 0.0, 1.0)
    """
    if steps < 2:
        raise ArgumentError(f"lstm_cell: expected at least 2 steps, got {steps}")
    rng = generator(seed)
    weight, bias = 0.1 * rng.standard_normal((4 * hidden, inputs + hidden)), np.zeros(4 * hidden)
    bias[:hidden] = 1.0
    sequence = rng.standard_normal((steps, inputs))
    cell = nn.LSTMCell(inputs, hidden, rng=0)
    cell.load_state_dict(from_lecture(weight, bias, hidden))
    theirs, ours = (np.zeros(hidden), np.zeros(hidden)), None
    apart, off, states = [], [], []
    for x in sequence:
        past = theirs
        theirs = lecture_lstm_step(x, *theirs, weight, bias)
        ours = cell(x, ours)
        apart.append([np.abs(mine.value - given).max() for mine, given in zip(ours, theirs, strict=True)])
        forget = sigma((weight @ np.concatenate([past[0], x]) + bias)[:hidden])
        off.append(np.abs(_cell_jacobian(cell, x, *past) - np.diag(forget)).max())
        states.append(ours)
    ledger = trace(states[-1].hidden.sum())
    road = flow.highway(ledger)
    gates = [ledger.states()[t].gates["forget"].value for t in road.time[:-1]]
    roads, cells = {}, {}
    for value in (0.0, 1.0):
        forced = bias.copy()
        forced[:hidden] = 1000.0 if value else -1000.0
        cell.load_state_dict(from_lecture(weight, forced, hidden))
        state = None
        for x in sequence:
            state = cell(x, state)
        assert state is not None
        roads[value] = 10.0 ** flow.highway(trace(state.hidden.sum())).log10_direct
        cells[value] = float(np.abs(_cell_jacobian(cell, sequence[-1], *theirs)).max())
    return LSTMCellReport(
        steps=steps,
        hidden_difference=float(max(pair[0] for pair in apart)),
        cell_difference=float(max(pair[1] for pair in apart)),
        factor_difference=float(np.abs(road.factor[1:] - np.array(gates)).max()),
        jacobian_difference=float(max(off)),
        lag=int(road.lag[-1]),
        kept_at_zero=float(roads[0.0][-1]),
        kept_at_one=float(roads[1.0][-1]),
        cell_at_zero=cells[0.0],
        direct_by_gate=np.stack([roads[0.0], 10.0**road.log10_direct, roads[1.0]]),
    )


def _cell_jacobian(cell: nn.LSTMCell, x: Any, hidden: Any, held: Any) -> Any:
    """∂c_t/∂c_{t−1} at fixed h_{t−1}, the whole matrix."""
    return jacobian(lambda c: cell(x, nn.LSTMState(hidden, c)).cell, held).value


# -- 12: how much is kept -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LSTMRetention(Measurement):
    """What is left of a gradient after k steps; all logarithms are to base 10.

    Attributes:
        steps: k.
        gate: f, held constant; ``expected``: k · log₁₀ f.
        direct, blocked: the same measured on the LSTM's highway, and in a backward pass in which every way through W_hh is blocked.
        detours: the path split of the same: ‖contribution‖/‖∂L/∂c_T‖ of the paths that leave the highway through W_hh 0, 1, and 2 or more
            times; (gates, 3).
        total: ‖∂L/∂c_{T−k}‖/‖∂L/∂c_T‖ over all paths of the same LSTM.
        rnn_radius: ρ of the RNN that reads the same inputs; ``rnn``: its ‖δ_{T−k}‖/‖δ_T‖.
    """

    steps: int
    gate: Any
    expected: Any
    direct: Any
    blocked: Any
    detours: Any
    total: Any
    rnn_radius: float
    rnn: float

    @property
    def ratio(self) -> float:
        """How many times more the largest gate keeps than the smallest, on the highway."""
        return float(10.0 ** (self.direct[self.gate.argmax()] - self.direct[self.gate.argmin()]))

    def table(self) -> Table:
        """One row per gate, and the RNN."""
        parts = zip(self.gate, self.expected, self.direct, *self.detours.T, self.total, strict=True)
        rows = [(f"LSTM, f = {gate:g}", *(power_of_ten(float(value)) for value in values)) for gate, *values in parts]
        rows.append((f"RNN, ρ = {self.rnn_radius:g}", *"–––––", power_of_ten(self.rnn)))
        columns = ("network", "closed form fᵏ", "highway", "no detour", "1 detour", "2 or more", "all paths")
        return aligned(
            columns, rows, f"what is left of a gradient after {self.steps} steps", f"largest gate against smallest: {self.ratio:.3g}"
        )

    def claims(self) -> tuple[Claim, ...]:
        """The closed forms on the highway to 1 %; then whether the same factor separates whole networks."""
        direct = {round(float(gate), 4): float(10.0**kept) for gate, kept in zip(self.gate, self.direct, strict=True)}
        totals = 10.0 ** (self.total.max() - self.total.min())
        network = 10.0 ** (self.total[self.gate.argmax()] - self.rnn)
        published = {0.9: 0.9**self.steps, 0.99: 0.99**self.steps}
        claims = [
            close(f"highway, f = {gate:g}, {self.steps} steps", published[gate], direct[gate]) for gate in published if gate in direct
        ]
        if self.steps == 100 and len(claims) == 2:
            claims.append(close("0.99¹⁰⁰ against 0.9¹⁰⁰, on the highway", 1.38e4, self.ratio))
        return (
            *claims,
            holds(
                "the same, over all paths of the two LSTMs",
                "10,000 times more",
                f"{number(totals)} times",
                1e3 <= totals <= 1e5,
                "between 1,000 and 100,000 times",
            ),
            holds(
                f"LSTM (f = {self.gate.max():g}) against RNN (ρ = {self.rnn_radius:g}), all paths",
                "10,000 times more",
                f"{power_of_ten(float(np.log10(network)))} times",
                network >= 1e4,
                "at least 10,000 times",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """By network: the highway and all paths."""
        names = [f"LSTM, f = {gate:g}" for gate in self.gate]
        shown = (
            series("highway", names, 10.0**self.direct),
            series("all paths", [*names, f"RNN, ρ = {self.rnn_radius:g}"], 10.0 ** np.append(self.total, self.rnn)),
        )
        return (Chart("bars", f"What is left after {self.steps} steps", "", "ratio to the last step's", shown, "y"),)


@experiment
def lstm_retention(
    steps: int = 100, gates: Sequence[float] = (0.9, 0.99), *, hidden: int = 8, rnn_radius: float = 0.9, seed: int = 0
) -> LSTMRetention:
    """Claim (row 12): over 100 steps the LSTM keeps about 10,000 times more: 0.99¹⁰⁰ = 0.366 against 0.9¹⁰⁰ = 2.66e-5, a ratio of 1.4e4.

    The forget gate is held at f (no weights into it, bias ln f/(1 − f)); everything else is as drawn, and the inputs are random. The closed
    form is that of the direct path alone; it is measured on the highway, in a pass with W_hh blocked, and as the first bin of the path
    split. Beside it stand all paths of the same LSTM, and an RNN with W_hh = ρ · orthogonal. And where the claim breaks: what leaves the
    highway once or more exceeds the direct path by far where f is small, so the totals of f = 0.9 and f = 0.99 are within a factor of 2 of
    each other, while the RNN, whose tanh takes its share too, keeps much less than ρᵏ.

    Args:
        steps, gates: k, and the values of f, each between 0 and 1.
        hidden, rnn_radius, seed: H, ρ and the random source.

    Raises:
        ArgumentError: for a gate outside of 0 … 1 or fewer than one step.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.lstm_retention(20)
        >>> (10**found.expected).round(3), bool(abs(found.direct - found.expected).max() < 1e-12)
        (array([0.122, 0.818]), True)
    """
    if steps < 1 or not all(0 < gate < 1 for gate in gates):
        raise ArgumentError(f"lstm_retention: expected at least 1 step and gates between 0 and 1, got {steps} and {tuple(gates)}")
    rng = generator(seed)
    sequence, reads = rng.standard_normal((steps + 1, 1, 2)), rng.standard_normal(hidden)
    direct, blocked, detours, total = [], [], [], []
    for gate in gates:
        layer = nn.LSTM(2, hidden, rng=seed)
        _hold(layer, 1, math.log(gate / (1.0 - gate)))
        outputs, _ = layer(sequence)
        loss = (outputs[-1] * reads).sum()
        ledger = trace(loss)
        road, states = flow.highway(ledger), ledger.states()
        split = flow.split_paths(ledger, states[1].cell, "recurrent", bins=3)
        detours.append(log10(split.norm) - log10(states[steps + 1].cell.norm))
        direct.append(road.log10_direct[steps])
        total.append(road.log10_total[steps])
        blocked.append(_cells_when_blocked(loss)[steps])
    plain = nn.RNN(2, hidden, init=lambda shape, random: rnn_radius * nn.init.orthogonal(shape, random), rng=seed)
    outputs, _ = plain(sequence)
    product = flow.vanishing_product(trace((outputs[-1] * reads).sum()))
    return LSTMRetention(
        steps=steps,
        gate=np.array(gates, dtype=float),
        expected=steps * log10(gates),
        direct=np.array(direct),
        blocked=np.array(blocked),
        detours=np.array(detours),
        total=np.array(total),
        rnn_radius=float(rnn_radius),
        rnn=float(product.log10_product[steps]),
    )


def _hold(layer: Any, block: int, bias: float) -> None:
    """Give a gate a constant value: no weights into it, and this bias."""
    rows = slice(block * layer.hidden_size, (block + 1) * layer.hidden_size)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0"):
        values = getattr(layer, name).numpy()
        values[rows] = bias if name == "bias_l0" else 0.0
        getattr(layer, name).value = values


def _cells_when_blocked(loss: Tensor) -> Any:
    """log₁₀ ‖∂L/∂c_{T−k}‖/‖∂L/∂c_T‖ in a backward pass in which nothing goes through W_hh."""
    norms: dict[int, float] = {}

    def look(step: BackwardStep) -> None:
        if step.node.role == "cell" and step.time is not None:
            norms[step.time] = norm_of(step.cotangent)

    loss.backward(observers=[look], interventions=[flow.block(flow.recurrent())])
    logs = log10([norms[t] for t in sorted(norms, reverse=True)])
    return logs - logs[0]


# -- 13: no guarantee ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LSTMLimits(Measurement):
    """LSTMs whose gradient vanishes or explodes all the same; rates are log₁₀ per step.

    Attributes:
        case: what was run.
        steps: over how many steps.
        forget: the mean forget gate.
        direct, total: the rate on the highway, and of the state cotangent over all paths.
        log10_left: log₁₀ ‖δ_1‖/‖δ_T‖.
        verdict: of the total, in words.
        loss_before, loss_after: of the trained case.
    """

    case: tuple[str, ...]
    steps: int
    forget: Any
    direct: Any
    total: Any
    log10_left: Any
    verdict: tuple[str, ...]
    loss_before: float
    loss_after: float

    def table(self) -> Table:
        """One row per case."""
        cases = zip(self.case, self.forget, self.direct, self.total, self.log10_left, self.verdict, strict=True)
        rows = [(c, number(f), number(10.0**d), number(10.0**t), power_of_ten(left), v.split(":")[0]) for c, f, d, t, left, v in cases]
        columns = ("LSTM", "mean f", "highway, per step", "all paths, per step", f"left after {self.steps - 1}", "verdict")
        caption = f"training took the loss from {number(self.loss_before)} to {number(self.loss_after)}"
        return aligned(columns, rows, "an LSTM guarantees nothing", caption)

    def claims(self) -> tuple[Claim, ...]:
        """There is an LSTM that vanishes, one that explodes, and one that training made vanish."""
        trained = f"{power_of_ten(float(self.log10_left[-2]))} before, {power_of_ten(float(self.log10_left[-1]))} after"
        return (
            holds(
                "vanishing in an LSTM",
                "possible",
                power_of_ten(float(self.log10_left[0])),
                self.log10_left[0] < -3,
                "less than 1/1000 left",
            ),
            holds(
                "exploding in an LSTM",
                "possible",
                power_of_ten(float(self.log10_left[1])),
                self.log10_left[1] > 1,
                "more than 10 times as much",
            ),
            holds(
                "after training on a task without memory",
                "possible",
                trained,
                None if self.loss_after > 0.5 * self.loss_before else bool(self.log10_left[-1] < self.log10_left[-2] - 1),
                "a tenth or less of what was kept before; the loss at least halved",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """What each LSTM multiplies a gradient by, per step."""
        shown = (series("highway", self.case, 10.0**self.direct), series("all paths", self.case, 10.0**self.total))
        return (Chart("bars", "Gain per step of four LSTMs", "", "factor per step", shown),)


@experiment
def lstm_limits(steps: int = 60, *, hidden: int = 8, updates: int = 150, seed: int = 0) -> LSTMLimits:
    """Claim (row 13): an LSTM makes it easier to keep a gradient; it guarantees neither that nothing vanishes nor that nothing explodes.

    Four cases. Untrained, forget bias 0: f is near ½ and the gradient halves at every step. Untrained, large recurrent weights and open
    gates: the highway keeps, and what goes through the gates explodes. Before and after training to repeat the input of the moment, which
    needs no memory: what was kept at first is unlearned.

    Args:
        steps, hidden, updates, seed: the length, H, how many updates the training takes, and the random source.

    Raises:
        ArgumentError: for fewer than two steps.
    """
    if steps < 2:
        raise ArgumentError(f"lstm_limits: expected at least 2 steps, got {steps}")
    rng = generator(seed)
    sequence = rng.standard_normal((steps, 4, 2))
    learner, readout = nn.LSTM(2, hidden, forget_bias=3.0, rng=seed), nn.Linear(hidden, 2, rng=seed)
    cases = [
        ("untrained, forget bias 0", nn.LSTM(2, hidden, forget_bias=0.0, rng=seed)),
        ("untrained, W_hh with ρ = 8", nn.LSTM(2, hidden, forget_bias=3.0, init=8.0, rng=seed)),
        ("forget bias 3, before training", learner),
    ]
    found = [(name, *_measured(layer, sequence)) for name, layer in cases]
    losses = _train_to_repeat(learner, readout, updates, rng)
    found.append(("the same, trained to repeat its input", *_measured(learner, sequence)))
    case, forget, direct, total, left, verdict = zip(*found, strict=True)
    return LSTMLimits(
        case=case,
        steps=steps,
        forget=np.array(forget),
        direct=np.array(direct),
        total=np.array(total),
        log10_left=np.array(left),
        verdict=verdict,
        loss_before=losses[0],
        loss_after=losses[-1],
    )


def _measured(layer: nn.LSTM, sequence: Any) -> tuple[float, float, float, float, str]:
    """Mean forget gate, rates of highway and total, log₁₀ of what is left, and the verdict."""
    outputs, _ = layer(sequence)
    ledger = trace(outputs[-1].sum())
    product = flow.vanishing_product(ledger)
    forget = float(flow.timescales(ledger).mean.mean())
    return forget, flow.highway(ledger).rate, product.rate, float(product.log10_product[-1]), product.verdict


def _train_to_repeat(layer: nn.LSTM, readout: nn.Linear, updates: int, rng: np.random.Generator) -> list[float]:
    """Train the outputs to repeat the input of the same step; return the losses."""
    optimizer = Adam([*layer.parameters(), *readout.parameters()], lr=0.03)
    losses = []
    for _ in range(max(updates, 1)):
        x = rng.uniform(-0.5, 0.5, (12, 16, 2))
        loss = mse(readout(layer(x)[0]), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    return losses


# -- 14: the GRU's conventions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class GRUConventions(Measurement):
    """The GRU in two conventions of its update gate and two places of its reset gate.

    Attributes:
        reset: "after", "before": one entry per variant in all arrays.
        convention_difference: the largest difference between our outputs and those of the lecture's convention u = 1 − z, with u's
            weights the negative of z's.
        factor_difference: the largest difference between the highway's factor and z_t; exactly 0.
        kept_at_zero, kept_at_one: what is left of the direct gradient with u = 0 (z = 1), and with u = 1 (z = 0).
        state_moved: with u = 0, the largest |h_T − h_0|: the past is kept, to rounding.
        variants_differ: the largest difference between the outputs of the two variants with the same weights.
        steps: how many steps were run.
    """

    reset: tuple[str, ...]
    convention_difference: Any
    factor_difference: Any
    kept_at_zero: Any
    kept_at_one: Any
    state_moved: Any
    variants_differ: float
    steps: int

    def table(self) -> Table:
        """One row per quantity, one column per variant."""
        quantities = {
            "u = 1 − z: outputs differ by": self.convention_difference,
            "highway factor and z_t differ by": self.factor_difference,
            "u = 0: direct gradient kept": self.kept_at_zero,
            "u = 1: direct gradient kept": self.kept_at_one,
            "u = 0: state moves by": self.state_moved,
        }
        rows = [(name, *(number(float(value)) for value in values)) for name, values in quantities.items()]
        caption = f"with the same weights the two variants differ by {number(self.variants_differ)}: they are two networks"
        return aligned(("", *(f"reset {name}" for name in self.reset)), rows, f"the GRU's conventions, {self.steps} steps", caption)

    def claims(self) -> tuple[Claim, ...]:
        """u = 0 keeps the past, as the lecture has it with u = 1 − z; the direct factor is z."""
        kept, moved = float(self.kept_at_zero.min()), float(self.state_moved.max())
        apart, factor = float(self.convention_difference.max()), float(self.factor_difference.max())
        return (
            holds("u = 0 keeps the past: direct gradient", "1", kept, kept == 1.0, "exactly 1 after all steps, both variants"),
            holds("u = 0 keeps the past: the state", "unchanged", f"moves by {number(moved)}", moved < 1e-12, "by less than 1e-12"),
            holds("(1 − u) h + u ñ and (1 − z) n + z h with u = 1 − z", "the same network", apart, apart < 1e-12, "outputs to 1e-12"),
            holds("factor of the direct path", "z_t", factor, factor == 0.0, "equal, to the last bit", source="Cho et al. 2014"),
        )

    def charts(self) -> tuple[Chart, ...]:
        """What the direct path keeps with u = 0 and u = 1."""
        names = [f"reset {name}" for name in self.reset]
        shown = (series("u = 0 (z = 1)", names, self.kept_at_zero), series("u = 1 (z = 0)", names, self.kept_at_one))
        return (Chart("bars", f"The GRU's direct gradient after {self.steps} steps", "", "ratio to the last step's", shown),)


def lecture_gru_step(x: Any, hidden: Any, w: dict[str, Any], reset: str) -> Any:
    """One step as lectures write it, h' = (1 − u) ⊙ h + u ⊙ h̃, so that u = 0 keeps the past; on arrays, for one sequence."""
    r = sigma(w["W_r"] @ x + w["U_r"] @ hidden + w["b_r"])
    u = sigma(w["W_u"] @ x + w["U_u"] @ hidden + w["b_u"])
    recalled = r * (w["U_n"] @ hidden) if reset == "after" else w["U_n"] @ (r * hidden)
    return (1.0 - u) * hidden + u * np.tanh(w["W_n"] @ x + recalled + w["b_n"])


@experiment
def gru_conventions(*, inputs: int = 3, hidden: int = 4, steps: int = 10, seed: int = 0) -> GRUConventions:
    """Claim (row 14): no cell, two gates, and u = 0 keeps the past. Ours is h' = (1 − z) ⊙ n + z ⊙ h: z = 1 keeps it, u = 1 − z.

    Since 1 − σ(a) = σ(−a), either convention is the other with the update gate's weights negated. The reset gate acts after the product
    with W_hn (PyTorch, cuDNN, Keras) or before it (Cho et al. 2014): two different networks, with the same highway.

    Args:
        inputs, hidden, steps, seed: I, H, the number of steps (at least 2), and the random source.

    Raises:
        ArgumentError: for fewer than two steps.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.gru_conventions()
        >>> found.factor_difference, found.kept_at_zero, found.kept_at_one
        (array([0., 0.]), array([1., 1.]), array([0., 0.]))
    """
    if steps < 2:
        raise ArgumentError(f"gru_conventions: expected at least 2 steps, got {steps}")
    rng = generator(seed)
    shapes = {"W": (hidden, inputs), "U": (hidden, hidden), "b": (hidden,)}  # matrices / √columns, so that rounding does not grow over time
    w = {f"{m}_{g}": rng.standard_normal(size) / math.sqrt(math.prod(size[1:])) for m, size in shapes.items() for g in "run"}
    sequence, first = rng.standard_normal((steps, inputs)), rng.uniform(-1.0, 1.0, hidden)
    rows, outputs = [], {}
    for reset in ("after", "before"):
        expected, state = [], first
        for x in sequence:
            state = lecture_gru_step(x, state, w, reset)
            expected.append(state)
        outputs[reset], road, gates = _run_gru(w, sequence, first, reset)
        kept_at_zero = _run_gru({**w, "b_u": np.full(hidden, -1000.0)}, sequence, first, reset)
        kept_at_one = _run_gru({**w, "b_u": np.full(hidden, 1000.0)}, sequence, first, reset)
        rows.append(
            (
                np.abs(outputs[reset] - np.array(expected)).max(),
                np.abs(road.factor[1:] - gates).max(),
                10.0 ** kept_at_zero[1].log10_direct[-1],
                10.0 ** kept_at_one[1].log10_direct[-1],
                np.abs(kept_at_zero[0][-1] - first).max(),
            )
        )
    convention, factor, at_zero, at_one, moved = (np.array(column) for column in zip(*rows, strict=True))
    return GRUConventions(
        reset=("after", "before"),
        convention_difference=convention,
        factor_difference=factor,
        kept_at_zero=at_zero,
        kept_at_one=at_one,
        state_moved=moved,
        variants_differ=float(np.abs(outputs["after"] - outputs["before"]).max()),
        steps=steps,
    )


def _run_gru(w: dict[str, Any], sequence: Any, first: Any, reset: str) -> tuple[Any, flow.Highway, Any]:
    """Our GRU with a lecture's weights: its outputs, its highway, and z_t in the highway's order."""
    hidden = len(first)
    layer = nn.GRU(sequence.shape[1], hidden, reset=reset, rng=0)
    weights = {
        "weight_ih_l0": np.concatenate([w["W_r"], -w["W_u"], w["W_n"]]),
        "weight_hh_l0": np.concatenate([w["U_r"], -w["U_u"], w["U_n"]]),
        "bias_l0": np.concatenate([w["b_r"], -w["b_u"], w["b_n"]]),
    }
    layer.load_state_dict({**weights, "bias_hn_l0": np.zeros(hidden)} if reset == "after" else weights)
    outputs, _ = layer(sequence, nn.GRUState(first[None]))
    ledger = trace(outputs[-1].sum())
    road = flow.highway(ledger)
    return outputs.value, road, np.array([ledger.states()[t].gates["update"].value for t in road.time[:-1]])
