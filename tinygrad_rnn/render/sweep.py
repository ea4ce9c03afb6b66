"""What the explorer's sliders go over: how much of the gradient of the last step is left at each step before, by network and |λ|.

Every curve is measured with the engine: those of the LSTM and the GRU by ``flow.monitor``, in the kernel's own backward pass; that of the
linear recurrence, and that of the tanh RNN, whose gains split into a saturation and a weight part, in a ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import flow, nn
from ..errors import ArgumentError
from ..flow.logs import log10
from ..graph import scope
from ..nn import init
from ..steps import norms_of
from ..tensor import landmark, tensor
from ..trace import trace

INPUTS, HIDDEN = 4, 16
"""Features of the input, and units."""

RADII = tuple(round(0.5 + 0.05 * k, 2) for k in range(21))
"""|λ| at the slider's stops."""

LENGTHS = (10, 20, 30, 40, 50, 60, 80, 100, 125, 150, 175, 200)
"""T at the slider's stops."""

INITIALISATIONS: dict[str, Callable[[float], init.Initializer]] = {
    "orthogonal": lambda radius: lambda shape, rng: radius * init.orthogonal(shape, rng),
    "Gaussian": init.spectral_radius,
    "identity": lambda radius: lambda shape, rng: radius * init.identity(shape, rng),
}
"""How a square block of W_hh is drawn whose largest eigenvalue is |λ|. The Gaussian one alone is not normal: single steps may gain more."""


@dataclass(frozen=True)
class Network:
    """One of the networks to choose from.

    Attributes:
        name: for readers.
        kind: "linear", "rnn", "lstm" or "gru".
        forget_bias: of an LSTM.
        drive: what inputs and bias are multiplied by.
        usual: whether it stands for its kind where kinds are compared.
    """

    name: str
    kind: str
    forget_bias: float | None = None
    drive: float = 1.0
    usual: bool = True


NETWORKS = (
    Network("linear", "linear"),
    Network("tanh RNN", "rnn"),
    Network("tanh RNN, inputs × 0.1", "rnn", drive=0.1, usual=False),
    *(Network(f"LSTM, forget bias {bias:g}".replace("-", "−"), "lstm", bias, usual=bias == 1) for bias in (-1.0, 0.0, 1.0, 2.0, 4.0)),
    Network("GRU", "gru"),
)


@dataclass(frozen=True, eq=False)
class Curve:
    """What is left of a gradient, by lag k = 0 … T; lag T is the state before the first step. Logarithms to base 10.

    Attributes:
        log10_ratio: log₁₀ ‖δ_{T−k}‖ / ‖δ_T‖.
        log10_saturation, log10_weight: of the tanh RNN, the parts of the gain ‖δ_{T−k}‖ / ‖δ_{T−k+1}‖, 0 at lag 0; None elsewhere.
    """

    log10_ratio: Any
    log10_saturation: Any = field(default=None)
    log10_weight: Any = field(default=None)


def curves(
    network: Network, initialisation: str, radius: float, lengths: tuple[int, ...], *, hidden: int = HIDDEN, seed: int = 0
) -> Iterator[tuple[int, Curve]]:
    """The curve of each length T, for one network with one set of weights.

    The network reads the first T of the same random inputs, standard normal, and the loss is ⟨v, h_T⟩ with a random v. W_hh (of each gate)
    has the spectral radius |λ|; W_ih and the biases begin as the layer draws them, with the LSTM's forget bias as given.

    Args:
        network: one of ``NETWORKS``.
        initialisation: one of ``INITIALISATIONS``.
        radius: |λ|.
        lengths: T, each at least 1.
        hidden, seed: H, and the random source of weights, inputs and v.

    Raises:
        ArgumentError: for an unknown initialisation.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn.render import sweep
        >>> [(length, curve)] = sweep.curves(sweep.NETWORKS[0], "orthogonal", 0.9, (100,))
        >>> round(10 ** float(curve.log10_ratio[-1]), 7), round(0.9**100, 7)
        (2.66e-05, 2.66e-05)
    """
    if initialisation not in INITIALISATIONS:
        raise ArgumentError(f"sweep: initialisation must be one of {', '.join(INITIALISATIONS)}, got {initialisation!r}")
    draw, random = INITIALISATIONS[initialisation](radius), np.random.default_rng(seed)
    inputs, direction = random.standard_normal((max(lengths), 1, INPUTS)), random.standard_normal(hidden)
    if network.kind == "linear":
        yield from _linear(draw((hidden, hidden), random), direction, lengths)
        return
    make: Any = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[network.kind]
    more = {} if network.forget_bias is None else {"forget_bias": network.forget_bias}
    layer: Any = make(INPUTS, hidden, init=draw, rng=random, **more)
    if network.kind == "rnn":
        layer.bias_l0.value = network.drive * layer.bias_l0.value
        yield from _split(layer, network.drive * inputs, direction, lengths)
        return
    for length in lengths:
        with flow.monitor(layer) as watching:
            (layer(inputs[:length])[0][-1] * direction).sum().backward()
        logs = log10(watching.rows[-1].norm)
        yield length, Curve(logs - logs[0])


def _split(layer: Any, inputs: Any, direction: Any, lengths: tuple[int, ...]) -> Iterator[tuple[int, Curve]]:
    """The tanh RNN, whose gains split: all lengths in one trace, as sequences of a batch whose losses read different steps."""
    batch, steps = len(lengths), max(lengths)
    begin = tensor(np.zeros((1, batch, layer.hidden_size)), requires_grad=True, name="h₀")
    outputs, _ = layer(np.repeat(inputs, batch, axis=1), nn.RNNState(begin))  # (T, batch, H)
    last = outputs[np.array(lengths) - 1, np.arange(batch)]
    ledger = trace((last * direction).sum())
    out = {step.time: step for step in ledger.filter(kind="scale") if step.node.role == "hidden"}
    back = {step.time: step for step in ledger.filter(kind="matmul") if step.operand.role == "hidden"}
    norm = np.array([norms_of(out[t].cotangent) for t in range(1, steps + 1)])  # (T, batch)
    after, handed = (np.array([norms_of(edge[t].contribution) for t in range(1, steps + 1)]) for edge in (out, back))
    with np.errstate(invalid="ignore"):  # 0/0 at the steps after a sequence's last
        saturation, weight = log10(after / norm), log10(handed / after)
    for place, length in enumerate(lengths):
        logs = log10([*norm[:length, place][::-1], handed[0, place]])
        parts = (np.array([0.0, *part[:length, place][::-1]]) for part in (saturation, weight))
        yield length, Curve(logs - logs[0], *parts)


def _linear(weight: Any, direction: Any, lengths: tuple[int, ...]) -> Iterator[tuple[int, Curve]]:
    """h_t = W h_{t−1}: what is left does not depend on T, so the longest trace holds all."""
    h: Any = tensor(np.ones((1, len(weight))), requires_grad=True, name="h")
    for t in range(max(lengths) + 1):
        with scope("linear", time=t):
            h = landmark(h @ weight.T if t else 1.0 * h, "h", "hidden")
    found = flow.vanishing_product(trace((h * direction).sum(), keep="norms"))
    for length in lengths:
        yield length, Curve(found.log10_product[: length + 1])
