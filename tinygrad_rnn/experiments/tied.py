"""The GRU as a special LSTM, with the exact conditions: row 15 of the curriculum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError
from ..nn.init import generator
from ..ops import sigmoid, stack, tanh
from ..render.charts import Chart, series
from ..report import Table, aligned, number
from ..tensor import tensor
from ..transforms import grad
from .measurement import Claim, Measurement, experiment, holds

SHARED = ("W_z", "U_z", "b_z", "W_n", "U_n", "b_n")
"""What both networks have: the update gate's weights on x and h and its bias, and the candidate's."""


@dataclass(frozen=True, eq=False)
class GRUAsLSTM(Measurement):
    """How far an LSTM is from a GRU, with all conditions, and with one of them dropped.

    Attributes:
        case: what was run; the first has all conditions.
        outputs: the largest difference of any output.
        gradients: ‖difference‖ / ‖gradient‖ over the inputs and all shared weights together.
        lstm_difference: the largest difference between the LSTM of these equations, its output's tanh in place, and ``nn.LSTM``.
        scale, tanh_difference: what the weights are multiplied by, and how far the outputs then are, relative to the largest output, if
            only the output's tanh is kept.
    """

    case: tuple[str, ...]
    outputs: Any
    gradients: Any
    lstm_difference: float
    scale: Any
    tanh_difference: Any

    def table(self) -> Table:
        """One row per case."""
        rows = [(name, number(o), number(g)) for name, o, g in zip(self.case, self.outputs, self.gradients, strict=True)]
        parts = [f"{number(d)} with weights × {s:g}" for s, d in zip(self.scale, self.tanh_difference, strict=True)]
        caption = f"kept tanh, relative: {', '.join(parts)}; nn.LSTM and these equations: {number(self.lstm_difference)}"
        return aligned(("condition dropped", "outputs differ by", "gradients, relative"), rows, "the GRU as an LSTM", caption)

    def claims(self) -> tuple[Claim, ...]:
        """With the five conditions equal to 1e-10; with the three of the exercise alone, not."""
        exact = float(max(self.outputs[0], self.gradients[0]))
        least = float(self.outputs[1:].min())
        reset = float(self.outputs[self.case.index("r = 1")])
        small = float(self.tanh_difference[-1])
        return (
            holds(
                "i = 1 − f, o = 1, h = c, and r = 1, b_hn = 0",
                "a GRU is this LSTM",
                exact,
                exact < 1e-10,
                "outputs and all gradients to 1e-10",
            ),
            holds(
                "i = 1 − f, o = 1, h = c alone, with a reset gate",
                "roughly equivalent",
                f"outputs differ by {number(reset)}",
                reset < 0.1,
                "outputs within 0.1",
            ),
            holds(
                "each condition is needed",
                "yes",
                f"without one: at least {number(least)}",
                least > 1e-3,
                "each alone moves outputs by > 1e-3",
            ),
            holds(
                "an LSTM's own output, tanh(c), for small states",
                "roughly equivalent",
                f"{number(small)} of the largest output",
                small < 0.01,
                "within 1 % at the smallest scale",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """By the condition that was dropped, and by scale."""
        shown = (series("outputs", self.case, self.outputs), series("gradients, relative", self.case, self.gradients))
        scaled = (series("outputs, relative", self.scale, self.tanh_difference), series("scale²", self.scale, self.scale**2))
        return (
            Chart("bars", "An LSTM and a GRU: one condition dropped", "", "difference", shown, "y"),
            Chart("lines", "Only the output's tanh kept", "weights ×", "difference", scaled, "xy"),
        )


@experiment
def gru_as_lstm(
    *, inputs: int = 3, hidden: int = 5, steps: int = 12, scales: tuple[float, ...] = (1.0, 0.1, 0.01), seed: int = 0
) -> GRUAsLSTM:
    """Claim (row 15): a GRU is an LSTM with its forget and input gates tied, no output gate, and the cell as its state.

        f = z,  i = 1 − z  (W_i = −W_f, U_i = −U_f, b_i = −b_f, since 1 − σ(a) = σ(−a)),  o = 1,  h = c,  and also r = 1, b_hn = 0

    Then c' = f ⊙ c + i ⊙ g is h' = z ⊙ h + (1 − z) ⊙ n, number for number and gradient for gradient. The exercise names three
    conditions; the reset gate is a fourth, and "h = c" takes away the tanh that every LSTM has at its output, so no setting of the
    weights of an ``nn.LSTM`` gives a GRU: the difference falls with the square of the states' size. Each condition is dropped in turn.

    Args:
        inputs, hidden, steps, seed: I, H, T and the random source.
        scales: what weights and inputs are multiplied by where only the output's tanh is kept.

    Raises:
        ArgumentError: for fewer than one step.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.gru_as_lstm()
        >>> bool(found.outputs[0] < 1e-14), found.case[1:]
        (True, ('r = 1', 'i = 1 − f', 'o = 1', 'no tanh at the output'))
    """
    if steps < 1:
        raise ArgumentError(f"gru_as_lstm: expected at least 1 step, got {steps}")
    rng = generator(seed)
    w, others = _drawn(inputs, hidden, rng), [_drawn(inputs, hidden, rng) for _ in range(2)]
    own, out = (_gate(drawn, "z") for drawn in others)
    x, reads = rng.standard_normal((steps, inputs)), rng.standard_normal((steps, hidden))
    tied, open_gate = _untied(_gate(w, "z")), _held(1.0)
    plain = _gru(x, w, None, reads)
    cases = {
        "none": (_lstm(x, w, tied, open_gate, same, reads), plain),
        "r = 1": (_lstm(x, w, tied, open_gate, same, reads), _gru(x, w, others[0], reads)),
        "i = 1 − f": (_lstm(x, w, own, open_gate, same, reads), plain),
        "o = 1": (_lstm(x, w, tied, out, same, reads), plain),
        "no tanh at the output": (_lstm(x, w, tied, open_gate, tanh, reads), plain),
    }
    return GRUAsLSTM(
        case=tuple(cases),
        outputs=np.array([np.abs(theirs[0] - ours[0]).max() for theirs, ours in cases.values()]),
        gradients=np.array([np.linalg.norm(theirs[1] - ours[1]) / np.linalg.norm(ours[1]) for theirs, ours in cases.values()]),
        lstm_difference=_against_layer(x, w, own, out, others),
        scale=np.array(scales, dtype=float),
        tanh_difference=np.array([_tanh_kept(x, w, scale, reads) for scale in scales]),
    )


Weights = dict[str, Any]
Gate = Callable[[Any, Any], Any]


def same(x: Any) -> Any:
    """The output of a network whose cell is its state."""
    return x


def _drawn(inputs: int, hidden: int, rng: np.random.Generator) -> Weights:
    """Random weights as leaves, those of :data:`SHARED`: normal, matrices divided by √columns, so that rounding does not grow over time."""
    shapes = {"W": (hidden, inputs), "U": (hidden, hidden), "b": (hidden,)}
    size = {name: shapes[name[0]] for name in SHARED}
    return {
        name: tensor(rng.standard_normal(size[name]) / math.sqrt(math.prod(size[name][1:])), requires_grad=True, name=name)
        for name in SHARED
    }


def _gate(w: Weights, g: str) -> Gate:
    return lambda x, h: sigmoid(w[f"W_{g}"] @ x + w[f"U_{g}"] @ h + w[f"b_{g}"])


def _held(value: float) -> Gate:
    return lambda x, h: value


def _untied(forget: Gate) -> Gate:
    """The input gate that is tied to a forget gate: 1 − f."""
    return lambda x, h: 1.0 - forget(x, h)


def _lstm(x: Any, w: Weights, i: Gate, o: Gate, output: Any, reads: Any) -> tuple[Any, Any]:
    """An LSTM whose forget gate is f = σ(W_z x + U_z h + b_z): all h_t, and the gradient of Σ h ⊙ reads by x and the shared weights."""
    leaf, forget = tensor(x, requires_grad=True, name="x"), _gate(w, "z")
    h: Any = np.zeros(w["b_z"].shape)
    c, states = h, []
    for t in range(len(x)):
        written = i(leaf[t], h) * tanh(w["W_n"] @ leaf[t] + w["U_n"] @ h + w["b_n"])
        c, h = forget(leaf[t], h) * c + written, o(leaf[t], h)
        h = h * output(c)
        states.append(h)
    outputs = stack(states)
    return outputs.value, _flat(part.value for part in grad((outputs * reads).sum(), [leaf, *(w[name] for name in SHARED)]))


def _gru(x: Any, w: Weights, reset: Weights | None, reads: Any) -> tuple[Any, Any]:
    """The same of our ``nn.GRU``; without weights for its reset gate, that is held at 1."""
    inputs, hidden = w["W_z"].shape[1], len(w["b_z"].value)
    zeros = {"W_z": np.zeros((hidden, inputs)), "U_z": np.zeros((hidden, hidden)), "b_z": np.full(hidden, 1000.0)}
    r = zeros if reset is None else {name: reset[name].value for name in zeros}
    layer, leaf = nn.GRU(inputs, hidden, rng=0), tensor(x, requires_grad=True, name="x")
    names = {"W": "weight_ih_l0", "U": "weight_hh_l0", "b": "bias_l0"}
    blocks = {names[m]: np.concatenate([r[f"{m}_z"], w[f"{m}_z"].value, w[f"{m}_n"].value]) for m in names}
    layer.load_state_dict({**blocks, "bias_hn_l0": np.zeros(hidden)})
    outputs, _ = layer(leaf)
    parameters = dict(layer.named_parameters())
    by_x, *by_weights = grad((outputs * reads).sum(), [leaf, *(parameters[name] for name in names.values())])
    gate = {"z": slice(hidden, 2 * hidden), "n": slice(2 * hidden, None)}
    found = dict(zip(names, by_weights, strict=True))
    return outputs.value, _flat([by_x.value, *(found[name[0]].value[gate[name[2]]] for name in SHARED)])


def _flat(arrays: Iterable[Any]) -> Any:
    return np.concatenate([np.ravel(array) for array in arrays])


def _tanh_kept(x: Any, w: Weights, scale: float, reads: Any) -> float:
    """With small weights: how far the LSTM's own output takes the outputs, relative to the largest of them."""
    small = {name: tensor(scale * leaf.value, requires_grad=True, name=name) for name, leaf in w.items()}
    theirs = _lstm(x, small, _untied(_gate(small, "z")), _held(1.0), tanh, reads)[0]
    ours = _gru(x, small, None, reads)[0]
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


def _against_layer(x: Any, w: Weights, i: Gate, o: Gate, others: Sequence[Weights]) -> float:
    """How far the equations of :func:`_lstm` with four free gates are from ``nn.LSTM`` with the same weights."""
    layer = nn.LSTM(x.shape[1], len(w["b_z"].value), rng=0)
    order = (others[0], "z"), (w, "z"), (w, "n"), (others[1], "z")  # input, forget, candidate, output
    names = {"W": "weight_ih_l0", "U": "weight_hh_l0", "b": "bias_l0"}
    layer.load_state_dict({name: np.concatenate([drawn[f"{m}_{g}"].value for drawn, g in order]) for m, name in names.items()})
    theirs = _lstm(x, w, i, o, tanh, np.ones((len(x), len(w["b_z"].value))))[0]
    return float(np.abs(theirs - layer(x)[0].value).max())
