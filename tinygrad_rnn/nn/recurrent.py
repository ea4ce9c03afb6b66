"""RNN, LSTM and GRU: cells and one-layer layers, composed from primitives.

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

Arguments that all six classes share:

    init    how each gate's block of W_hh begins: "uniform" (±1/√H), "glorot", "orthogonal", "identity", a spectral radius, or a function
            of shape and generator; W_ih and the biases are uniform in ±1/√H
    dtype   of the parameters and of all that is computed; float64 by default
    rng     a numpy.random.Generator or a seed; the same seed gives the same bytes

Each step leaves landmarks on the nodes it records, its states and gates by name and time, which a trace reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..graph import scope
from ..graph import state as recording
from ..tensor import Tensor, as_tensor, landmark, tensor
from .init import Initializer, generator, initializer
from .module import Module, Parameter, checked_dtype, checked_size


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
    """What an RNN hands to the next step: ``hidden``, (B, H) for a cell and (1, B, H) for a layer."""

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


def rnn_step(x: Any, past: RNNState, weights: Weights, *, activation: Callable[[Any], Any] = ops.tanh) -> RNNState:
    """h' = φ(x W_ihᵀ + h W_hhᵀ + b)."""
    pre = landmark(_affine(x, weights) + past.hidden @ weights.hh, "a")
    return RNNState(landmark(activation(pre), "h", "hidden"))


def lstm_step(x: Any, past: LSTMState, weights: Weights) -> LSTMState:
    """c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c')."""
    pre = landmark(_affine(x, weights) + past.hidden @ weights.hh, "a")  # (B, 4H)
    i, f, g, o = (_open(pre, LSTM_GATES, position) for position in range(4))  # each (B, H)
    cell = landmark(f * past.cell + i * g, "c", "cell")
    hidden = landmark(o * landmark(ops.tanh(cell), "tanh(c)"), "h", "hidden")
    return LSTMState(hidden, cell)


def gru_step(x: Any, past: GRUState, weights: Weights, *, reset: str = "after") -> GRUState:
    """h' = (1 − z) ⊙ n + z ⊙ h, with the reset gate after or before the product with W_hn."""
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
    return GRUState(landmark(fresh * n + z * past.hidden, "h", "hidden"))


class Recurrence(NamedTuple):
    """An architecture: its gates, its state, its step, whether it has the extra bias b_hn, and whether it uses W_hn apart."""

    gates: tuple[Gate, ...]
    state: type[Any]
    step: Callable[[Any, Any, Weights], Any]
    has_bias_hn: bool = False
    apart_hn: bool = False


def _rnn(nonlinearity: str) -> Recurrence:
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
    return Recurrence(RNN_GATES, RNNState, partial(rnn_step, activation=ops.tanh if nonlinearity == "tanh" else ops.relu))


_LSTM = Recurrence(LSTM_GATES, LSTMState, lstm_step)


def _gru(reset: str) -> Recurrence:
    if reset not in ("after", "before"):
        raise ArgumentError(f"GRU: reset must be 'after' (PyTorch, Keras) or 'before' (Cho et al. 2014), got {reset!r}")
    return Recurrence(GRU_GATES, GRUState, partial(gru_step, reset=reset), has_bias_hn=reset == "after", apart_hn=reset == "before")


class _Recurrent(Module):
    """What cells and layers share: sizes, weights and their initial values, and the checking of input and state."""

    def __init__(
        self,
        recurrence: Recurrence,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        forget_bias: float | None = None,
        dtype: Any,
        rng: np.random.Generator | int | None,
        init: str | float | Initializer,
        suffix: str = "",
    ) -> None:
        super().__init__()
        self.input_size = checked_size(self, "input_size", input_size)
        self.hidden_size = checked_size(self, "hidden_size", hidden_size)
        self.dtype = checked_dtype(self, dtype)
        if forget_bias is not None and (not isinstance(forget_bias, (int, float)) or not math.isfinite(forget_bias)):
            raise ArgumentError(f"{type(self).__name__}: forget_bias must be a finite number or None, got {forget_bias!r}")
        self._recurrence = recurrence
        self._suffix = suffix
        weights = _draw(recurrence, self.input_size, self.hidden_size, bias, forget_bias, generator(rng), initializer(init))
        for name, (symbol, array) in weights.items():
            setattr(self, name + suffix, None if array is None else Parameter(array.astype(self.dtype), name=symbol))

    def _weights(self) -> Weights:
        ih, hh, bias, bias_hn = (getattr(self, name + self._suffix) for name in ("weight_ih", "weight_hh", "bias", "bias_hn"))
        if not self._recurrence.apart_hn:
            return Weights(ih.T, hh.T, bias, bias_hn)
        cut = 2 * self.hidden_size
        first, last = landmark(hh[:cut], "W_h(rz)"), landmark(hh[cut:], "W_hn", gate="candidate")
        return Weights(ih.T, first.T, bias, bias_hn, landmark(last.T, "W_hnᵀ", gate="candidate"))

    def _prepared(self, x: Any) -> Tensor:
        """The input as a Tensor of this module's dtype."""
        given = x if isinstance(x, Tensor) else tensor(x)
        return given if given.dtype == self.dtype else given.astype(self.dtype)

    def _initial(self, given: Any, shape: tuple[int, ...]) -> Any:
        """The state to begin with: zeros for None; otherwise what was given, its shape checked."""
        kind = self._recurrence.state
        if given is None:
            return kind(*(tensor(np.zeros(shape, self.dtype), name=f"{field[0]}₀") for field in kind._fields))
        parts = given if isinstance(given, tuple) else (given,)
        if len(parts) != len(kind._fields):
            raise ArgumentError(f"{type(self).__name__}: expected {kind.__name__}({', '.join(kind._fields)}), got {len(parts)} parts")
        checked = kind(*map(self._prepared, parts))
        for field, part in zip(kind._fields, checked, strict=True):
            if part.shape != shape:
                raise ShapeError(f"{type(self).__name__}: state.{field} has shape {part.shape}; expected {shape}")
        return checked


def _draw(
    recurrence: Recurrence,
    input_size: int,
    hidden_size: int,
    bias: bool,
    forget_bias: float | None,
    random: np.random.Generator,
    recurrent: Initializer,
) -> dict[str, tuple[str, Any]]:
    """Initial values: W_ih and the biases uniform in ±1/√H, each gate's block of W_hh by the chosen initialiser."""
    gates = recurrence.gates
    rows = len(gates) * hidden_size
    bound = 1.0 / np.sqrt(hidden_size)
    weight_ih = random.uniform(-bound, bound, (rows, input_size))
    weight_hh = np.concatenate([recurrent((hidden_size, hidden_size), random) for _ in gates])
    shift = random.uniform(-bound, bound, rows)
    shift_hn = random.uniform(-bound, bound, hidden_size)
    if forget_bias is not None:
        place = [gate.name for gate in gates].index("forget") * hidden_size
        shift[place : place + hidden_size] = forget_bias
    return {
        "weight_ih": ("W_ih", weight_ih),
        "weight_hh": ("W_hh", weight_hh),
        "bias": ("b", shift if bias else None),
        "bias_hn": ("b_hn", shift_hn if bias and recurrence.has_bias_hn else None),
    }


class _Cell(_Recurrent):
    """One step of a recurrence."""

    def forward(self, x: Any, state: Any = None) -> Any:
        given = self._prepared(x)
        if given.ndim not in (1, 2) or given.shape[-1] != self.input_size:
            size = self.input_size
            raise ShapeError(f"{type(self).__name__}: expected x of shape (B, {size}) or ({size},), got {given.shape}")
        past = self._initial(state, (*given.shape[:-1], self.hidden_size))
        weights = self._weights()
        with _next_step(past, self):
            return self._recurrence.step(given, past, weights)


def _next_step(past: Any, owner: Module) -> scope:
    """The scope of a cell's step: of the recurrence whose state it continues; its time is the one that is open, or one later."""
    here = recording.scope
    mark = past.hidden.node.mark if past.hidden.node is not None else None
    if mark is None or mark.time is None or mark.group is None or mark.group.owner is not owner:
        time, group = 1, here
    else:
        time, group = mark.time + 1, mark.group
    return scope(time=time if here is None or here.time is None else None, group=group)


class _Layer(_Recurrent):
    """A recurrence over a whole sequence."""

    def __init__(
        self, recurrence: Recurrence, input_size: int, hidden_size: int, num_layers: int, *, batch_first: bool, **options: Any
    ) -> None:
        if num_layers != 1:
            raise ArgumentError(
                f"{type(self).__name__}: expected num_layers=1, got {num_layers!r}. Put one-layer modules behind each other"
            )
        super().__init__(recurrence, input_size, hidden_size, suffix="_l0", **options)
        self.batch_first = batch_first

    def forward(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        given = self._prepared(x)
        if given.ndim not in (2, 3) or given.shape[-1] != self.input_size:
            order, size = ("B, T" if self.batch_first else "T, B"), self.input_size
            raise ShapeError(f"{type(self).__name__}: expected x of shape ({order}, {size}) or (T, {size}), got {given.shape}")
        turned = given.ndim == 3 and self.batch_first
        if turned:
            given = given.swapaxes(0, 1)
        if given.shape[0] == 0:
            raise ShapeError(f"{type(self).__name__}: x of shape {given.shape} has no steps; expected at least one")
        first = self._initial(state, (1, *given.shape[1:-1], self.hidden_size))
        with scope(time=0, group=recording.scope):
            first = type(first)(*(landmark(part[0], field[0], field) for field, part in zip(first._fields, first, strict=True)))
        sequence, last = self._run(given, first)
        return (sequence.swapaxes(0, 1) if turned else sequence), type(last)(*(ops.expand_dims(part, 0) for part in last))

    def _run(self, x: Tensor, past: Any) -> tuple[Tensor, Any]:
        weights = self._weights()
        if weights.bias is not None:
            weights = weights._replace(bias=ops.broadcast_to(weights.bias, (*x.shape[1:-1], weights.bias.size)))  # once for all steps
        outputs = []
        group = recording.scope
        for t in range(x.shape[0]):
            with scope(time=t + 1, group=group):
                past = self._recurrence.step(x[t] if x.requires_grad else as_tensor(x.value[t]), past, weights)
            outputs.append(past.hidden)
        return ops.stack(outputs), past


class RNNCell(_Cell):
    """One step of an RNN: ``state = cell(x, state)``.

        h' = φ(x W_ihᵀ + h W_hhᵀ + b), with φ = tanh or relu

    Args:
        input_size, hidden_size: I and H.
        bias: whether there are biases.
        nonlinearity: "tanh" or "relu".
        init, dtype, rng: as for all of them, see :mod:`tinygrad_rnn.nn.recurrent`.

    Shapes:
        x (B, I) or (I,); every part of the state (B, H) or (H,), zeros if it is None.
        Parameters: weight_ih (H, I), weight_hh (H, H), bias (H,).

    Raises:
        ShapeError: if x or the state does not fit.

    Source:
        Elman 1990.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> cell = nn.RNNCell(3, 4, rng=0)
        >>> state = cell(np.ones((2, 3)))
        >>> cell(np.ones((2, 3)), state).hidden.shape
        (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        nonlinearity: str = "tanh",
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(_rnn(nonlinearity), input_size, hidden_size, bias=bias, init=init, dtype=dtype, rng=rng)


class LSTMCell(_Cell):
    """One step of an LSTM: ``state = cell(x, state)``.

        c' = f ⊙ c + i ⊙ g,  h' = o ⊙ tanh(c')

    Args:
        input_size, hidden_size: I and H.
        bias: whether there are biases.
        forget_bias: where the forget gate's bias begins, so that the cell remembers at first; None leaves it as drawn.
        init, dtype, rng: as for all of them, see :mod:`tinygrad_rnn.nn.recurrent`.

    Shapes:
        x (B, I) or (I,); every part of the state (B, H) or (H,), zeros if it is None.
        Parameters: weight_ih (4H, I), weight_hh (4H, H), bias (4H,), in blocks i, f, g, o.

    Raises:
        ShapeError: if x or the state does not fit.

    Source:
        Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> cell = nn.LSTMCell(3, 4, rng=0)
        >>> state = cell(np.ones((2, 3)))
        >>> cell(np.ones((2, 3)), state).hidden.shape
        (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        forget_bias: float | None = 1.0,
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            _LSTM, input_size, hidden_size, bias=bias, init=init, dtype=dtype, rng=rng, forget_bias=forget_bias if bias else None
        )


class GRUCell(_Cell):
    """One step of a GRU: ``state = cell(x, state)``.

        h' = (1 − z) ⊙ n + z ⊙ h

    Args:
        input_size, hidden_size: I and H.
        bias: whether there are biases.
        reset: where the reset gate acts: "after" the product with W_hn (PyTorch, cuDNN, Keras) or "before" it (Cho et al. 2014).
        init, dtype, rng: as for all of them, see :mod:`tinygrad_rnn.nn.recurrent`.

    Shapes:
        x (B, I) or (I,); every part of the state (B, H) or (H,), zeros if it is None.
        Parameters: weight_ih (3H, I), weight_hh (3H, H), bias (3H,), in blocks r, z, n;
        bias_hn (H,) for reset="after".

    Raises:
        ShapeError: if x or the state does not fit.

    Source:
        Cho et al. 2014.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> cell = nn.GRUCell(3, 4, rng=0)
        >>> state = cell(np.ones((2, 3)))
        >>> cell(np.ones((2, 3)), state).hidden.shape
        (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        reset: str = "after",
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(_gru(reset), input_size, hidden_size, bias=bias, init=init, dtype=dtype, rng=rng)


class RNN(_Layer):
    """An RNN over a sequence: ``outputs, state = layer(x, state)``.

    The equations and the other arguments are those of :class:`RNNCell`.

    Args:
        num_layers: 1.
        batch_first: whether x and outputs are (B, T, …) instead of (T, B, …).

    Shapes:
        x (T, B, I), or (T, I) for one sequence; outputs (T, B, H), or (T, H): the hidden state of every step.
        Every part of the state, given and returned: (1, B, H), or (1, H); zeros if it is None.
        Parameters as those of the cell, with the suffix ``_l0``.

    Raises:
        ShapeError: if x or the state does not fit, or there are no steps.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> outputs, state = nn.RNN(3, 4, rng=0)(np.ones((5, 2, 3)))
        >>> outputs.shape, state.hidden.shape
        ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        nonlinearity: str = "tanh",
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            _rnn(nonlinearity), input_size, hidden_size, num_layers, batch_first=batch_first, bias=bias, init=init, dtype=dtype, rng=rng
        )


class LSTM(_Layer):
    """An LSTM over a sequence: ``outputs, state = layer(x, state)``.

    The equations and the other arguments are those of :class:`LSTMCell`.

    Args:
        num_layers: 1.
        batch_first: whether x and outputs are (B, T, …) instead of (T, B, …).

    Shapes:
        x (T, B, I), or (T, I) for one sequence; outputs (T, B, H), or (T, H): the hidden state of every step.
        Every part of the state, given and returned: (1, B, H), or (1, H); zeros if it is None.
        Parameters as those of the cell, with the suffix ``_l0``.

    Raises:
        ShapeError: if x or the state does not fit, or there are no steps.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> outputs, state = nn.LSTM(3, 4, rng=0)(np.ones((5, 2, 3)))
        >>> outputs.shape, state.hidden.shape
        ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        forget_bias: float | None = 1.0,
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            _LSTM,
            input_size,
            hidden_size,
            num_layers,
            batch_first=batch_first,
            bias=bias,
            init=init,
            dtype=dtype,
            rng=rng,
            forget_bias=forget_bias if bias else None,
        )


class GRU(_Layer):
    """A GRU over a sequence: ``outputs, state = layer(x, state)``.

    The equations and the other arguments are those of :class:`GRUCell`.

    Args:
        num_layers: 1.
        batch_first: whether x and outputs are (B, T, …) instead of (T, B, …).

    Shapes:
        x (T, B, I), or (T, I) for one sequence; outputs (T, B, H), or (T, H): the hidden state of every step.
        Every part of the state, given and returned: (1, B, H), or (1, H); zeros if it is None.
        Parameters as those of the cell, with the suffix ``_l0``.

    Raises:
        ShapeError: if x or the state does not fit, or there are no steps.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> outputs, state = nn.GRU(3, 4, rng=0)(np.ones((5, 2, 3)))
        >>> outputs.shape, state.hidden.shape
        ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        reset: str = "after",
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            _gru(reset), input_size, hidden_size, num_layers, batch_first=batch_first, bias=bias, init=init, dtype=dtype, rng=rng
        )
