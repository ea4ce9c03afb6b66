"""What an RNN, an LSTM and a GRU compute: one step of each, and a sequence of steps, composed from primitives.

Row vectors throughout: x (B, I), h (B, H), W_ih (G·H, I), W_hh (G·H, H), with G blocks of H rows, one per gate in the order of
:data:`RNN_GATES`, :data:`LSTM_GATES` or :data:`GRU_GATES` (PyTorch's order). The initialisation, the slicing and the labels
read the order from there.

    RNN   h' = φ(a)                                   a = x W_ihᵀ + h W_hhᵀ + b,  φ = tanh or relu
    LSTM  c' = f ⊙ c + i ⊙ g,  h' = o ⊙ tanh(c')      i, f, o = σ(a_i), σ(a_f), σ(a_o),  g = tanh(a_g)
    GRU   h' = (1 − z) ⊙ n + z ⊙ h                    r, z = σ(a_r), σ(a_z)
          reset="after":   n = tanh(x W_inᵀ + b_n + r ⊙ (h W_hnᵀ + b_hn))       PyTorch, cuDNN, Keras
          reset="before":  n = tanh(x W_inᵀ + b_n + (r ⊙ h) W_hnᵀ)              Cho et al. 2014

In the GRU z = 1 keeps the past. Lecture notes often write it the other way round, with u = 1 − z, so that u = 0 keeps it.
There is one bias vector where PyTorch has two: they are only ever added.

Each step leaves landmarks on the nodes it records, its states and gates by name and time, which a trace reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..graph import scope
from ..graph import state as recording
from ..tensor import Tensor, as_tensor, landmark


class Gate(NamedTuple):
    """A block of the weights: its name, the symbol it has in formulas, and what is applied to its pre-activation."""

    name: str
    symbol: str
    activation: Callable[[Any], Any]


RNN_GATES = (Gate("hidden", "h", ops.tanh),)
LSTM_GATES = (
    Gate("input", "i", ops.sigmoid),
    Gate("forget", "f", ops.sigmoid),
    Gate("candidate", "g", ops.tanh),
    Gate("output", "o", ops.sigmoid),
)
GRU_GATES = (Gate("reset", "r", ops.sigmoid), Gate("update", "z", ops.sigmoid), Gate("candidate", "n", ops.tanh))


class RNNState(NamedTuple):
    """What an RNN hands to the next step: ``hidden``, (B, H) for a cell and (D·L, B, H) for a layer."""

    hidden: Any

    def detach(self) -> RNNState:
        """The same values, cut off from the graph (truncated BPTT)."""
        return RNNState(self.hidden.detach())


class LSTMState(NamedTuple):
    """What an LSTM hands to the next step: ``hidden`` and ``cell``, of one shape."""

    hidden: Any
    cell: Any

    def detach(self) -> LSTMState:
        """The same values, cut off from the graph (truncated BPTT)."""
        return LSTMState(self.hidden.detach(), self.cell.detach())


class GRUState(NamedTuple):
    """What a GRU hands to the next step: ``hidden``."""

    hidden: Any

    def detach(self) -> GRUState:
        """The same values, cut off from the graph (truncated BPTT)."""
        return GRUState(self.hidden.detach())


class Weights(NamedTuple):
    """The weights as a step uses them: transposed once per call, not once per step."""

    ih: Any
    hh: Any
    bias: Any
    bias_hn: Any = None
    hn: Any = None  # W_hnᵀ apart from the rest, for the GRU that resets before the product


Step = tuple[Any, tuple[Tensor, ...]]
"""What one step gives: the next state, and its gates in order (none for the RNN, whose one gate is its state)."""


# -- one step -----------------------------------------------------------------------------------------------------------------


def _open(pre: Any, gates: tuple[Gate, ...], position: int) -> Tensor:
    """The gate at this position: its block of the pre-activations, through its activation."""
    gate = gates[position]
    return landmark(gate.activation(_block(pre, gates, position)), gate.symbol, "gate", gate=gate.name)


def _block(pre: Any, gates: tuple[Gate, ...], position: int) -> Tensor:
    gate = gates[position]
    size = pre.shape[-1] // len(gates)
    return landmark(pre[..., position * size : (position + 1) * size], f"a_{gate.symbol}", gate=gate.name)


def _affine(x: Any, weights: Weights) -> Tensor:
    if x.node is None or x.node.scope is recording.scope:  # what the caller computed keeps the caller's name
        x = landmark(x, "x")
    fed: Tensor = x @ weights.ih
    return fed if weights.bias is None else fed + weights.bias


def _held(fresh: Any, past: Any, active: Any) -> Any:
    """A part of the state: the fresh one where a row is active, and the one before elsewhere."""
    return fresh if active is None else ops.where(active, fresh, past)


def _rnn_step(x: Any, past: RNNState, weights: Weights, active: Any, *, activation: Callable[[Any], Any]) -> Step:
    new = activation(landmark(_affine(x, weights) + past.hidden @ weights.hh, "a"))
    return RNNState(_held(new, past.hidden, active)), ()


def _lstm_step(x: Any, past: LSTMState, weights: Weights, active: Any) -> Step:
    pre = landmark(_affine(x, weights) + past.hidden @ weights.hh, "a")  # (B, 4H)
    i, f, g, o = (_open(pre, LSTM_GATES, position) for position in range(4))  # each (B, H)
    cell = _held(f * past.cell + i * g, past.cell, active)
    return LSTMState(_held(o * landmark(ops.tanh(cell), "tanh(c)"), past.hidden, active), cell), (i, f, g, o)


def _gru_step(x: Any, past: GRUState, weights: Weights, active: Any, *, reset: str) -> Step:
    fed = _affine(x, weights)  # (B, 3H)
    size = fed.shape[-1] // 3
    fed_n = _block(fed, GRU_GATES, 2)
    if reset == "after":
        recurrent = past.hidden @ weights.hh
        pre = fed + recurrent
        r, z = _open(pre, GRU_GATES, 0), _open(pre, GRU_GATES, 1)
        recalled = _block(recurrent, GRU_GATES, 2)
        recalled = recalled if weights.bias_hn is None else landmark(recalled + weights.bias_hn, "a_hn", gate="candidate")
        n = ops.tanh(fed_n + r * recalled)
    else:
        pre = fed[..., : 2 * size] + past.hidden @ weights.hh
        r, z = _open(pre, GRU_GATES[:2], 0), _open(pre, GRU_GATES[:2], 1)
        n = ops.tanh(fed_n + landmark(r * past.hidden, "(r⊙h)") @ weights.hn)
    n = landmark(n, "n", "gate", gate="candidate")
    fresh = landmark(1.0 - z, "(1−z)", gate="update")
    return GRUState(_held(fresh * n + z * past.hidden, past.hidden, active)), (r, z, n)


class Recurrence(NamedTuple):
    """An architecture.

    Attributes:
        name: what its kernel is called.
        gates, state: its gates in order, and the type of its state.
        compute: one step, with landmarks on all but the state, of the rows that are active.
        has_bias_hn: whether it has the extra bias b_hn.
        apart_hn: whether it uses W_hn apart from the rest of W_hh.
    """

    name: str
    gates: tuple[Gate, ...]
    state: type[Any]
    compute: Callable[[Any, Any, Weights, Any], Step]
    has_bias_hn: bool = False
    apart_hn: bool = False

    @property
    def parts(self) -> int:
        """How many arrays a state has."""
        return len(self.state._fields)

    def weights(self, ih: Any, hh: Any, bias: Any = None, bias_hn: Any = None) -> Weights:
        """The parameters, ready for the steps."""
        if not self.apart_hn:
            return Weights(ih.T, hh.T, bias, bias_hn)
        cut = 2 * hh.shape[-1]
        first, last = landmark(hh[:cut], "W_h(rz)"), landmark(hh[cut:], "W_hn", gate="candidate")
        return Weights(ih.T, first.T, bias, bias_hn, landmark(last.T, "W_hnᵀ", gate="candidate"))

    @property
    def records(self) -> tuple[str, ...]:
        """What a step has to show: its state's parts and its gates, by name."""
        fields: tuple[str, ...] = self.state._fields
        return fields + tuple(gate.name for gate in self.gates if gate.name not in fields)

    def step(self, x: Any, past: Any, weights: Weights, active: Any = None) -> Step:
        """The next state, with its landmarks, and the gates; where a row is not ``active`` the state stays as it is."""
        new, gates = self.compute(x if active is None else ops.where(active, x, 0.0), past, weights, active)
        return self.marked(new), gates

    def marked(self, state: Any) -> Any:
        """The state with landmarks on its parts, at the time of the scope that is open."""
        return self.state(*(landmark(part, field[0], field) for field, part in zip(self.state._fields, state, strict=True)))


RNN_TANH = Recurrence("rnn_tanh", RNN_GATES, RNNState, partial(_rnn_step, activation=ops.tanh))
RNN_RELU = Recurrence("rnn_relu", RNN_GATES, RNNState, partial(_rnn_step, activation=ops.relu))
LSTM = Recurrence("lstm", LSTM_GATES, LSTMState, _lstm_step)
GRU_AFTER = Recurrence("gru_after", GRU_GATES, GRUState, partial(_gru_step, reset="after"), has_bias_hn=True)
GRU_BEFORE = Recurrence("gru_before", GRU_GATES, GRUState, partial(_gru_step, reset="before"), apart_hn=True)


def rnn(nonlinearity: str) -> Recurrence:
    """The RNN with this nonlinearity.

    Raises:
        ArgumentError: if it is neither "tanh" nor "relu".
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
    return RNN_TANH if nonlinearity == "tanh" else RNN_RELU


def gru(reset: str) -> Recurrence:
    """The GRU with its reset gate after or before the product.

    Raises:
        ArgumentError: if it is neither "after" nor "before".
    """
    if reset not in ("after", "before"):
        raise ArgumentError(f"GRU: reset must be 'after' (PyTorch, Keras) or 'before' (Cho et al. 2014), got {reset!r}")
    return GRU_AFTER if reset == "after" else GRU_BEFORE


# -- a sequence of steps ------------------------------------------------------------------------------------------------------


def unroll(
    x: Any, *operands: Any, recurrence: Recurrence, lengths: Any = None, reverse: bool = False, records: bool = False
) -> tuple[Any, ...]:
    """The steps one after the other: what the kernels compute in one go.

    Args:
        x: (T, B, I).
        operands: the parts of the initial state, each (B, H); then W_ih, W_hh and the biases, if there are any.
        lengths: for each sequence how many of its steps count; None if all do. The others leave its state as it is, and its output
            there is 0.
        reverse: whether to go from the last step to the first.
        records: whether to return, after the rest, what ``recurrence.records`` names for all steps, each (T, B, H).

    Returns:
        The outputs (T, B, H) and the parts of the final state.
    """
    past = recurrence.state(*operands[: recurrence.parts])
    weights = recurrence.weights(*operands[recurrence.parts :])
    steps, batch = x.shape[:2]
    if weights.bias is not None:
        weights = weights._replace(bias=ops.broadcast_to(weights.bias, (batch, weights.bias.size)))  # once for all steps
    shown: list[Any] = [None] * steps
    group = recording.scope
    for t in reversed(range(steps)) if reverse else range(steps):
        active = None if lengths is None or (lengths > t).all() else (lengths > t)[:, None]
        with scope(time=t + 1, group=group):
            past, gates = recurrence.step(x[t] if x.requires_grad else as_tensor(x.value[t]), past, weights, active)
            shown[t] = (*past, *gates) if records else past[:1]
    stacked = [ops.stack(values) for values in zip(*shown, strict=True)]
    if lengths is not None and (lengths < steps).any():
        real = (np.arange(steps)[:, None] < lengths)[..., None]
        stacked = [ops.where(real, values, 0.0) for values in stacked]
    outputs = landmark(stacked[0], "outputs")
    return (outputs, *past, *stacked) if records else (outputs, *past)
