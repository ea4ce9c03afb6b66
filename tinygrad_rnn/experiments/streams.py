"""Streams: state carried on, truncated backpropagation and its bias, a forecast, and constant memory: row 21 of the curriculum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn, optim
from ..errors import ArgumentError
from ..functional import mse
from ..nn.init import generator
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..transforms import no_grad
from ..walk import discover
from .measurement import Claim, Measurement, experiment, holds

NETWORKS = ("RNN", "LSTM", "GRU")


@dataclass(frozen=True, eq=False)
class Streaming(Measurement):
    """What it costs, and what it loses, to read a sequence in pieces.

    Attributes:
        network: the names; N of them.
        carried: the largest difference between the outputs for a whole sequence and those for its tokens one at a time, by network.
        truncation: after how many steps the gradient is cut; (K,).
        bias, cosine: ‖g_k − g‖/‖g‖ and the cosine of both, g the gradient of all weights over the whole sequence; (N, K).
        calls, cut, uncut: how many nodes the state holds on to after so many calls, if the gradient is cut at each call, and if not.
        forecaster, test_error: names, and the root mean squared error on a stream that was never seen, over the stream's standard
            deviation.
        tokens: how long that stream was; ``held``: the most nodes that the state held on to while it was read.
        updates: how many updates the LSTM learned from.
    """

    network: tuple[str, ...]
    carried: Any
    truncation: Any
    bias: Any
    cosine: Any
    calls: Any
    cut: Any
    uncut: Any
    forecaster: tuple[str, ...]
    test_error: Any
    tokens: int
    held: int
    updates: int

    def table(self) -> Table:
        """The bias by truncation, and the rest below it."""
        rows = [(f"{name}: relative bias (cosine)", *_pairs(b, c)) for name, b, c in zip(self.network, self.bias, self.cosine, strict=True)]
        errors = ", ".join(f"{name} {number(error)}" for name, error in zip(self.forecaster, self.test_error, strict=True))
        caption = (
            f"one token at a time differs by {number(float(self.carried.max()))}; after {self.calls[-1]} calls the state holds "
            f"{self.cut[-1]} nodes if cut at each, {self.uncut[-1]} if not; forecast, error over standard deviation: {errors}"
        )
        return aligned(("gradient cut every", *(f"{k}" for k in self.truncation)), rows, "truncated backpropagation through time", caption)

    def claims(self) -> tuple[Claim, ...]:
        """Carrying the state changes nothing; a cut gradient is wrong; the stream costs no memory; the forecast is of use."""
        errors = dict(zip(self.forecaster, self.test_error, strict=True))
        short_run = self.updates < 2000 and errors["LSTM"] >= errors["linear"]
        carried, bias = float(self.carried.max()), self.bias
        short, long = float(bias[:, 0].min()), float(bias[:, -1].max())
        return (
            holds("one token at a time", "possible", carried, carried < 1e-12, "the outputs of the whole sequence, to 1e-12"),
            holds(
                "the gradient of truncated BPTT",
                "biased (Tallec & Ollivier 2017)",
                f"at least {number(short)} if cut every {self.truncation[0]}, at most {number(long)} at {self.truncation[-1]}",
                short > 0.01 and (bias[:, -1] < bias[:, 0]).all(),
                "more than 1 % at the shortest cut, less at the longest, for every network",
                source="Tallec & Ollivier 2017",
            ),
            holds(
                "memory over a stream",
                "constant",
                f"at most {self.held} nodes over {self.tokens:,} tokens; uncut {self.uncut[-1]} after {self.calls[-1]} calls",
                self.held <= self.cut[0] and bool((self.cut == self.cut[0]).all()) and self.uncut[-1] > self.uncut[0],
                "the state holds on to as many nodes after every call, and to ever more without a cut",
            ),
            holds(
                "LSTM, time series in strict order",
                "useful",
                f"{number(errors['LSTM'])}, last value {number(errors['last value'])}, linear {number(errors['linear'])}",
                None if short_run else errors["LSTM"] < errors["linear"],
                "a smaller error than linear regression on as many values; with fewer than 2,000 updates the run cannot tell",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """The bias by truncation, and the forecasters."""
        lines = tuple(series(name, self.truncation, row) for name, row in zip(self.network, self.bias, strict=True))
        return (
            Chart("lines", "Truncated BPTT", "gradient cut every … steps", "‖g_k − g‖/‖g‖", lines, "x"),
            Chart("bars", "Forecast", "", "error / standard deviation", (series("", self.forecaster, self.test_error),)),
        )


def _pairs(biases: Any, cosines: Any) -> list[str]:
    return [f"{number(b)} ({c:.2f})" for b, c in zip(biases, cosines, strict=True)]


@experiment
def streaming(
    truncations: Sequence[int] = (1, 2, 5, 10, 20, 50),
    *,
    steps: int = 100,
    delay: int = 5,
    hidden: int = 16,
    updates: int = 400,
    cut: int = 25,
    horizon: int = 6,
    tokens: int = 2000,
    seed: int = 0,
) -> Streaming:
    """Claim (row 21): recurrent networks remain of use for streams, one token at a time, with little memory, in strict order.

    The same outputs come out whether a sequence is read whole or token by token with its state carried on. Truncated BPTT cuts the
    gradient where the state is handed over: on recalling the input of ``delay`` steps before, its gradient is compared with that of the
    whole sequence. Then an LSTM learns to forecast a chaotic series (:func:`mackey_glass`) from pieces of ``cut`` steps of 16 streams
    side by side, and reads a new stream token by token, beside linear regression on the last ``cut`` values and the last value itself.

    Args:
        truncations: after how many steps the gradient is cut, each a divisor of ``steps``.
        steps, delay, hidden: T, how far back the answer lies, and H.
        updates, cut, horizon, tokens: of the forecaster: how many pieces it learns from, how long they are, how many steps ahead it
            looks, and how long the new stream is.
        seed: the random source.

    Raises:
        ArgumentError: for truncations that do not divide the steps.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.streaming((1, 10, 40), steps=40, updates=5, tokens=50)
        >>> bool(found.carried.max() < 1e-14), (found.bias[:, -1] < 1e-14).tolist(), found.cut.tolist()
        (True, [True, True, True], [0, 0, 0])
    """
    if any(k < 1 or steps % k for k in truncations) or not len(truncations):
        raise ArgumentError(f"streaming: expected truncations that divide the {steps} steps, got {tuple(truncations)}")
    rng = generator(seed)
    layers = [getattr(nn, name)(2, hidden, rng=seed) for name in NETWORKS]
    sequence = rng.standard_normal((steps, 32, 2))
    whole = [_gradient(layer, sequence, delay, steps) for layer in layers]
    parts = [[_gradient(layer, sequence, delay, k) for k in truncations] for layer in layers]
    calls = (1, 10, 100)
    held = [[_held(layers[1], sequence, n, detach) for n in calls] for detach in (True, False)]
    names, errors, most = _forecast(updates, cut, horizon, tokens, 2 * hidden, rng)
    return Streaming(
        network=NETWORKS,
        carried=np.array([_carried(layer, sequence[:, :4]) for layer in layers]),
        truncation=np.array(truncations),
        bias=np.array([[_norm(g - full) / _norm(full) for g in row] for row, full in zip(parts, whole, strict=True)]),
        cosine=np.array([[g @ full / (_norm(g) * _norm(full)) for g in row] for row, full in zip(parts, whole, strict=True)]),
        calls=np.array(calls),
        cut=np.array(held[0]),
        uncut=np.array(held[1]),
        forecaster=names,
        test_error=np.array(errors),
        tokens=tokens,
        held=most,
        updates=updates,
    )


def _norm(vector: Any) -> float:
    return float(np.linalg.norm(vector))


def _carried(layer: Any, sequence: Any) -> float:
    """The largest difference between reading a sequence whole and token by token."""
    with no_grad():
        whole, state, apart = layer(sequence)[0].value, None, 0.0
        for t, token in enumerate(sequence):
            output, state = layer(token[None], state)
            apart = max(apart, float(np.abs(output.value[0] - whole[t]).max()))
    return apart


def _gradient(layer: Any, sequence: Any, delay: int, cut: int) -> Any:
    """The gradient of all weights, as one vector, for recalling the input of ``delay`` steps before; cut every so many steps."""
    layer.zero_grad()
    state = None
    for start in range(0, len(sequence), cut):
        outputs, state = layer(sequence[start : start + cut], state)
        state = state.detach()
        asked = np.arange(start, start + cut) - delay
        wanted = np.where((asked >= 0)[:, None, None], sequence[asked, :, :1], 0.0)
        ((outputs[..., :1] - wanted) ** 2).sum().backward()
    return np.concatenate([parameter.grad.value.ravel() for parameter in layer.parameters()])


def nodes_held(state: Any) -> int:
    """On how many nodes of the graph the Tensors of a recurrent state hold on to, and so keep in memory; leaves and constants too."""
    return len(discover([part.node for part in state if part.node is not None], set()))


def _held(layer: Any, sequence: Any, calls: int, detach: bool) -> int:
    """Nodes held after so many calls of one token each."""
    state = None
    for call in range(calls):
        _, state = layer(sequence[call % len(sequence)][None], state)
        state = state.detach() if detach else state
    return nodes_held(state)


# -- the forecast ---------------------------------------------------------------------------------------------------------------


def mackey_glass(steps: int, streams: int, rng: np.random.Generator | int | None = None, *, delay: int = 17) -> Any:
    """A chaotic series, (steps, streams): each stream begins elsewhere; scaled to mean 0 and variance 1, about.

        dx/dt = 0.2 x(t − τ)/(1 + x(t − τ)¹⁰) − 0.1 x(t),   integrated by Euler's method in steps of 0.1, read once per unit of time

    Source:
        Mackey & Glass 1977, "Oscillation and chaos in physiological control systems"; τ = 17 is the usual choice for forecasts.

    Example:
        >>> from tinygrad_rnn.experiments.streams import mackey_glass
        >>> mackey_glass(1000, 2, rng=0).shape
        (1000, 2)
    """
    fine, skipped = 10, 300
    past = delay * fine
    x = np.empty((past + (steps + skipped) * fine, streams))
    x[:past] = generator(rng).uniform(0.5, 1.3, streams)
    for t in range(past, len(x)):
        x[t] = x[t - 1] + (0.2 * x[t - past] / (1.0 + x[t - past] ** 10) - 0.1 * x[t - 1]) / fine
    return (x[past + skipped * fine :: fine] - 0.93) / 0.23


def _forecast(updates: int, cut: int, horizon: int, tokens: int, hidden: int, rng: Any) -> tuple[tuple[str, ...], list[float], int]:
    """Train on pieces of streams, forecast a new one token by token: names, errors, and the most nodes that the state held."""
    streams = mackey_glass(1000 + horizon, 16, rng)
    inputs, targets = streams[:1000, :, None], streams[horizon:, :, None]
    layer, readout = nn.LSTM(1, hidden, rng=rng), nn.Linear(hidden, 1, rng=rng)
    parameters = [*layer.parameters(), *readout.parameters()]
    optimizer, state = optim.Adam(parameters, lr=0.01), None
    schedule = optim.CosineLR(optimizer, total_steps=max(updates, 1))
    pieces = len(inputs) // cut
    for update in range(updates):
        piece = slice(update % pieces * cut, (update % pieces + 1) * cut)
        state = None if update % pieces == 0 else state
        outputs, state = layer(inputs[piece], state)
        state = state.detach()
        optimizer.zero_grad()
        mse(readout(outputs), targets[piece]).backward()
        optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
        schedule.step()
    fresh = mackey_glass(cut + tokens + horizon, 1, rng)[:, 0]
    answers, most = _read(layer, readout, fresh[: cut + tokens])
    wanted = fresh[cut + horizon :]
    windows = np.lib.stride_tricks.sliding_window_view
    seen = windows(streams, cut, axis=0)[: 1000 - cut].reshape(-1, cut)
    told = streams[cut - 1 + horizon :][: 1000 - cut].reshape(-1)
    weights = np.linalg.lstsq(_with_one(seen), told, rcond=None)[0]
    linear = _with_one(windows(fresh, cut)[1 : 1 + tokens]) @ weights
    guesses = {"LSTM": answers[cut:], "linear": linear, "last value": fresh[cut : cut + tokens]}
    return tuple(guesses), [float(np.sqrt(np.mean((guess - wanted) ** 2)) / wanted.std()) for guess in guesses.values()], most


def _with_one(rows: Any) -> Any:
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def _read(layer: Any, readout: Any, stream: Any) -> tuple[Any, int]:
    """A forecast after every token, the gradient cut at each; and the most nodes that the state held on to."""
    answers, state, most = [], None, 0
    for value in stream:
        outputs, state = layer(np.full((1, 1, 1), value), state)
        state = state.detach()
        answers.append(readout(outputs[-1]).item())
        most = max(most, nodes_held(state))
    return np.array(answers), most
