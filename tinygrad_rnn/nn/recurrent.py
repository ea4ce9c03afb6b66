"""RNN, LSTM and GRU as modules: cells, which do one step, and layers, which run over a sequence.

The equations are those of :mod:`tinygrad_rnn.nn.recurrence`. A cell records every operation. A layer runs a kernel
(:mod:`tinygrad_rnn.nn.kernels`) that carries its definition: a trace, an observer, an intervention, forward mode or ``create_graph``
opens it, and everything is there.

Arguments that all six classes share:

    bias         whether there are biases
    init         how each gate's block of W_hh begins: "uniform" (±1/√H), "glorot", "he", "orthogonal", "identity", a spectral radius, or
                 a function of shape and generator; W_ih and the biases are uniform in ±1/√H
    forget_bias  (LSTM) where the forget gate's bias begins, so that the cell remembers at first; ``init.chrono(T)`` draws it for memories
                 of up to T steps and gives the input gate its negative; None leaves it as drawn
    dtype        of the parameters and of all that is computed; float64 by default
    rng          a numpy.random.Generator or a seed; the same seed gives the same bytes

Arguments that the three layers share:

    num_layers     L layers, each fed with the outputs of the one below
    bidirectional  whether each layer also has a second set of weights that reads the sequence from its end (D = 2 directions, else 1);
                   their outputs are put side by side
    dropout        the probability that an entry of what one layer hands to the next becomes 0 while training
    residual       "skip": from the second layer on, a layer's input is added to its output. "dense": a layer is fed with the sequence and
                   the outputs of all layers below, side by side
    batch_first    whether x and outputs are (B, T, …) instead of (T, B, …)

How a layer is called: ``outputs, state = layer(x, state=None, lengths=None)``.

    x        (T, B, I), or (T, I) for one sequence
    state    each part (L·D, B, H), or (L·D, H); zeros if it is None. Within a layer the forward direction comes first
    lengths  for each sequence of the batch how many of its steps count, 0 to T; the rest is padding. It changes no state and receives
             no gradient, whatever stands there; the outputs are 0 there, and the final state is each sequence's own last
    outputs  (T, B, D·H), or (T, D·H): the hidden states of the last layer
    state    the final one, of the shape of the initial one: hand it to the next call to go on with the sequence, ``state.detach()``
             to cut the gradient off there (truncated BPTT, in constant memory)

With ``return_gates=True`` a third result is a dict of all states and gates of all steps by name ("hidden", "cell", "forget", …), each
(L·D, T, B, H), or (L·D, B, T, H) with ``batch_first``, or (L·D, T, H) for one sequence; differentiable, with 0 at padding. The steps are
then recorded one by one, and cost what that costs.

Parameters have PyTorch's names, one set per layer and direction: ``weight_ih_l0``, ``weight_hh_l0``, ``bias_l0``, for the GRU with
reset="after" ``bias_hn_l0``, then ``weight_ih_l0_reverse``, …, ``weight_ih_l1``, ….

Sizes are at least 1, and so is T; a batch may be empty. Errors that they share: ShapeError if x, the state or the lengths do not fit, or
there are no steps; ArgumentError for a wrong argument.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..graph import scope
from ..graph import state as recording
from ..tensor import HookHandle, Tensor, apply, as_tensor, landmark, tensor
from . import recurrence
from .init import Initializer, generator, initializer
from .kernels import SEQUENCES
from .module import Module, Parameter, checked_dtype, checked_size
from .recurrence import Recurrence, gru, rnn, unroll
from .regularization import Dropout

ForgetBias = float | Callable[[int, np.random.Generator], Any] | None


class _Recurrent(Module):
    """What cells and layers share: sizes, weights and their initial values, and the checking of input and state."""

    def __init__(
        self,
        recurrence: Recurrence,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        forget_bias: ForgetBias = None,
        dtype: Any,
        rng: np.random.Generator | int | None,
        init: str | float | Initializer,
    ) -> None:
        super().__init__()
        self.input_size = checked_size(self, "input_size", input_size)
        self.hidden_size = checked_size(self, "hidden_size", hidden_size)
        self.dtype = checked_dtype(self, dtype)
        number = isinstance(forget_bias, (int, float, np.number)) and not isinstance(forget_bias, bool) and bool(np.isfinite(forget_bias))
        if forget_bias is not None and not number and not callable(forget_bias):
            raise ArgumentError(f"{type(self).__name__}: forget_bias must be a finite number, None or init.chrono(…), got {forget_bias!r}")
        if not bias and (callable(forget_bias) or forget_bias not in (None, 1.0)):
            raise ArgumentError(f"{type(self).__name__}: forget_bias={forget_bias!r} needs biases; leave it out, or set bias=True")
        self._recurrence = recurrence
        self._random = generator(rng)
        self._draw_with = (initializer(init), bool(bias), forget_bias)

    def _add_weights(self, input_size: int, suffix: str = "", sign: str = "") -> None:
        """Draw a set of weights: W_ih and the biases uniform in ±1/√H, each gate's block of W_hh by the chosen initialiser."""
        draw, bias, forget_bias = self._draw_with
        random, size, kind = self._random, self.hidden_size, self._recurrence
        rows, bound = len(kind.gates) * size, 1.0 / math.sqrt(size)
        weight_ih = random.uniform(-bound, bound, (rows, input_size))
        weight_hh = np.concatenate([draw((size, size), random) for _ in kind.gates])
        shift = random.uniform(-bound, bound, rows)
        shift_hn = random.uniform(-bound, bound, size)
        if forget_bias is not None and bias:
            names = [gate.name for gate in kind.gates]
            at_input, at_forget = (slice(k * size, (k + 1) * size) for k in (names.index("input"), names.index("forget")))
            if callable(forget_bias):
                try:
                    shift[at_forget] = forget_bias(size, random)
                except (TypeError, ValueError) as error:
                    raise ArgumentError(
                        f"{type(self).__name__}: forget_bias must be a function of a size and a generator that gives {size} biases, such "
                        f"as init.chrono(100), got {getattr(forget_bias, '__name__', forget_bias)}: {error}"
                    ) from None
                shift[at_input] = -shift[at_forget]
            else:
                shift[at_forget] = forget_bias
        drawn = {"weight_ih": ("W_ih", weight_ih), "weight_hh": ("W_hh", weight_hh), "bias": ("b", shift if bias else None)}
        drawn["bias_hn"] = ("b_hn", shift_hn if bias and kind.has_bias_hn else None)
        for name, (symbol, array) in drawn.items():
            setattr(self, name + suffix, None if array is None else Parameter(array.astype(self.dtype), name=symbol + sign))

    def _weights(self, suffix: str = "") -> list[Any]:
        """W_ih, W_hh and the biases, if there are any."""
        parts = (getattr(self, name + suffix) for name in ("weight_ih", "weight_hh", "bias", "bias_hn"))
        return [part for part in parts if part is not None]

    def _settings(self) -> dict[str, Any]:
        kind = self._recurrence
        return {"nonlinearity": "relu"} if kind is recurrence.RNN_RELU else {"reset": "before"} if kind is recurrence.GRU_BEFORE else {}

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


# -- cells --------------------------------------------------------------------------------------------------------------------


class _Cell(_Recurrent):
    """One step of a recurrence."""

    def __init__(self, recurrence: Recurrence, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(recurrence, input_size, hidden_size, **options)
        self._add_weights(self.input_size)

    def forward(self, x: Any, state: Any = None) -> Any:
        """The next state, from x (B, I) or (I,) and the state before it; every part of a state is (B, H) or (H,), zeros for None."""
        given = self._prepared(x)
        if given.ndim not in (1, 2) or given.shape[-1] != self.input_size:
            size = self.input_size
            raise ShapeError(f"{type(self).__name__}: expected x of shape (B, {size}) or ({size},), got {given.shape}")
        past = self._initial(state, (*given.shape[:-1], self.hidden_size))
        weights = self._recurrence.weights(*self._weights())
        with _next_step(past, self):
            return self._recurrence.step(given, past, weights)[0]


def _next_step(past: Any, owner: Module) -> scope:
    """The scope of a cell's step: of the recurrence whose state it continues; its time is the one that is open, or one later."""
    here = recording.scope
    mark = past.hidden.node.mark if past.hidden.node is not None else None
    if mark is None or mark.time is None or mark.group is None or mark.group.owner is not owner:
        time, group = 1, here
    else:
        time, group = mark.time + 1, mark.group
    return scope(time=time if here is None or here.time is None else None, group=group)


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
        super().__init__(rnn(nonlinearity), input_size, hidden_size, bias=bias, init=init, dtype=dtype, rng=rng)


class LSTMCell(_Cell):
    """One step of an LSTM: ``state = cell(x, state)``.

        c' = f ⊙ c + i ⊙ g,  h' = o ⊙ tanh(c')

    Args:
        input_size, hidden_size: I and H.
        bias: whether there are biases.
        forget_bias, init, dtype, rng: as for all of them, see :mod:`tinygrad_rnn.nn.recurrent`.

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
        forget_bias: ForgetBias = 1.0,
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(recurrence.LSTM, input_size, hidden_size, bias=bias, init=init, dtype=dtype, rng=rng, forget_bias=forget_bias)


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
        super().__init__(gru(reset), input_size, hidden_size, bias=bias, init=init, dtype=dtype, rng=rng)


# -- layers -------------------------------------------------------------------------------------------------------------------


class _Sweep(NamedTuple):
    """One way through the sequence: of which layer, in which direction; the suffix of its parameters' names."""

    layer: int
    reverse: bool

    @property
    def name(self) -> str:
        return f"l{self.layer}" + "_reverse" * self.reverse


class _Layer(_Recurrent):
    """A recurrence over a whole sequence, in one or more layers and directions."""

    def __init__(
        self,
        recurrence: Recurrence,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        residual: str | None,
        **options: Any,
    ) -> None:
        super().__init__(recurrence, input_size, hidden_size, **options)
        self.num_layers = checked_size(self, "num_layers", num_layers)
        self.bidirectional = bool(bidirectional)
        self.batch_first = bool(batch_first)
        if residual not in (None, "skip", "dense"):
            raise ArgumentError(f"{type(self).__name__}: residual must be 'skip', 'dense' or None, got {residual!r}")
        self.residual = residual
        directions = (False, True) if self.bidirectional else (False,)
        self._sweeps = [_Sweep(layer, reverse) for layer in range(self.num_layers) for reverse in directions]
        width = self.input_size
        for sweep in self._sweeps:
            if sweep.layer > 0 and not sweep.reverse:
                width = len(directions) * self.hidden_size + (width if residual == "dense" else 0)
            self._add_weights(width, f"_{sweep.name}", f"_{sweep.name}" if len(self._sweeps) > 1 else "")
        between = Dropout(dropout, rng=self._random)
        self.dropout = between if between.p > 0 else None
        self._state_hooks: dict[object, Callable[[str, Any, Any], Any]] = {}
        if self.dropout is not None and self.num_layers == 1:
            warnings.warn(f"{type(self).__name__}: dropout acts between layers, and there is only one", UserWarning, stacklevel=3)

    def forward(self, x: Any, state: Any = None, lengths: Any = None, *, return_gates: bool = False) -> Any:
        """Run over a sequence.

        Args:
            x: (T, B, I), (B, T, I) with ``batch_first``, or (T, I) for one sequence.
            state: the initial one, each part (L·D, B, H), or (L·D, H); zeros for None.
            lengths: for each sequence how many of its steps count, 0 to T; None if all do.
            return_gates: whether to return all states and gates of all steps too.

        Returns:
            ``outputs, state``: the last layer's hidden states, (T, B, D·H), (B, T, D·H) or (T, D·H), and the final state, of the shape of
            the initial one; with ``return_gates`` a dict as third, see :mod:`tinygrad_rnn.nn.recurrent`.

        Raises:
            ShapeError, ArgumentError: if x, the state or the lengths do not fit.
        """
        given, name = self._prepared(x), type(self).__name__
        if given.ndim not in (2, 3) or given.shape[-1] != self.input_size:
            order, size = ("B, T" if self.batch_first else "T, B"), self.input_size
            raise ShapeError(f"{name}: expected x of shape ({order}, {size}) or (T, {size}), got {given.shape}")
        single = given.ndim == 2
        turned = self.batch_first and not single
        sequence = ops.expand_dims(given, 1) if single else given.swapaxes(0, 1) if turned else given
        if sequence.shape[0] == 0:
            raise ShapeError(f"{name}: x of shape {given.shape} has no steps; expected at least one")
        batch, count = sequence.shape[1], len(self._sweeps)
        counted = self._checked_lengths(lengths, *sequence.shape[:2])
        first = self._initial(state, (count, self.hidden_size) if single else (count, batch, self.hidden_size))
        if single:
            first = type(first)(*(ops.expand_dims(part, 1) for part in first))
        outputs, finals, records = self._run(sequence, first, counted, return_gates)
        last = type(first)(*(_together(parts) for parts in zip(*finals, strict=True)))
        named = dict(zip(self._recurrence.records, (_together(values) for values in zip(*records, strict=True)), strict=False))
        if single:
            outputs, last = outputs[:, 0], type(last)(*(part[:, 0] for part in last))
            named = {record: values[:, :, 0] for record, values in named.items()}
        elif turned:
            outputs = outputs.swapaxes(0, 1)
            named = {record: values.swapaxes(1, 2) for record, values in named.items()}
        return (outputs, last, named) if return_gates else (outputs, last)

    def _run(self, fed: Tensor, first: Any, lengths: Any, record: bool) -> tuple[Tensor, list[Any], list[Any]]:
        """All layers and directions: the outputs of the last layer, and each sweep's final state and records."""
        finals: list[Any] = []
        records: list[Any] = []
        parts, directions = self._recurrence.parts, 1 + self.bidirectional
        for layer in range(self.num_layers):
            sides = []
            for sweep in self._sweeps[layer * directions : (layer + 1) * directions]:
                with scope(sweep.name, owner=self) if len(self._sweeps) > 1 else nullcontext():
                    with scope(time=fed.shape[0] + 1 if sweep.reverse else 0, group=recording.scope):
                        begin = self._recurrence.marked([_part(part, len(finals)) for part in first])
                    outputs, *rest = self._sweep(sweep, fed, begin, lengths, record)
                sides.append(outputs)
                finals.append(rest[:parts])
                records.append(rest[parts:])
            outputs = sides[0] if len(sides) == 1 else ops.concatenate(sides, axis=-1)
            if self.residual == "skip" and layer > 0:
                outputs = outputs + fed
            if layer < self.num_layers - 1:
                handed = outputs if self.dropout is None else self.dropout(outputs)
                fed = ops.concatenate([fed, handed], axis=-1) if self.residual == "dense" else handed
        return outputs, finals, records

    def _sweep(self, sweep: _Sweep, sequence: Tensor, first: Any, lengths: Any, record: bool) -> tuple[Any, ...]:
        """One layer in one direction: outputs, final state and, recorded step by step, all states and gates."""
        operands = (sequence, *first, *self._weights(f"_{sweep.name}"))
        statics = {"lengths": lengths, "reverse": sweep.reverse}
        if record:
            return unroll(*operands, recurrence=self._recurrence, records=True, **statics)
        watch = partial(self._tell, sweep.name) if self._state_hooks else None
        outputs, *final = apply(SEQUENCES[self._recurrence.name], operands, {**statics, "watch": watch})
        return landmark(outputs, "outputs"), *final

    def _settings(self) -> dict[str, Any]:
        own: dict[str, Any] = {"num_layers": self.num_layers} if self.num_layers > 1 else {}
        own |= {name: True for name in ("bidirectional", "batch_first") if getattr(self, name)}
        own |= {"residual": self.residual} if self.residual else {}
        return own | super()._settings()

    def register_state_hook(self, hook: Callable[[str, Any, Any], Any]) -> HookHandle:
        """Call ``hook(name, norms, handed)`` in every backward pass through the kernel, without opening it.

        ``name`` is "l0", "l0_reverse", …; ``norms`` (T + 1,) holds ‖δ_t‖ over the batch, δ_t = ∂L/∂s_t as it arrives from outside step t,
        in the order of the sequence: first the initial state, then steps 1 to T (from the end: steps 1 to T, then the initial state).
        ``handed`` holds the norms of what the next step hands back to these states: the same, but for what the outputs add.
        A pass that opens the kernel (a trace, an observer, ``create_graph``) does not call it. It counts for calls of the layer that
        come after it. Returns a handle whose ``remove()`` takes the hook away again.
        """
        if not callable(hook):
            raise ArgumentError(f"register_state_hook: expected a function of a name and two arrays, got {type(hook).__name__}")
        key = object()
        self._state_hooks[key] = hook
        return HookHandle(self._state_hooks, key)

    def _tell(self, name: str, norms: Any, handed: Any) -> None:
        for hook in list(self._state_hooks.values()):
            hook(name, norms, handed)

    def _checked_lengths(self, lengths: Any, steps: int, batch: int) -> Any:
        """The lengths as integers, one per sequence; None stays None.

        Raises:
            ShapeError, ArgumentError: if there is not one whole number from 0 to T per sequence.
        """
        if lengths is None:
            return None
        try:
            given = np.array(getattr(lengths, "value", lengths))
        except ValueError:
            raise ShapeError(f"{type(self).__name__}: lengths is ragged; expected one whole number per sequence, ({batch},)") from None
        if given.shape != (batch,):
            raise ShapeError(f"{type(self).__name__}: lengths has shape {given.shape}; expected ({batch},), one per sequence")
        if batch and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() > steps):
            raise ArgumentError(f"{type(self).__name__}: lengths must be whole numbers from 0 to {steps}, got {given.tolist()}")
        return given.astype(np.intp)


def _part(state: Tensor, place: int) -> Tensor:
    """One layer's and direction's part of a state."""
    return state[place] if state.requires_grad else as_tensor(state.value[place])


def _together(parts: Sequence[Tensor]) -> Tensor:
    """The parts of all layers and directions along a new first axis."""
    joined: Tensor = ops.expand_dims(parts[0], 0) if len(parts) == 1 else ops.stack(parts)
    return joined


class RNN(_Layer):
    """An RNN over a sequence, in one or more layers: ``outputs, state = layer(x, state, lengths)``.

    The equations are those of :class:`RNNCell`; the arguments, shapes, parameters and errors that the three layers share are
    described in :mod:`tinygrad_rnn.nn.recurrent`.

    Args:
        input_size, hidden_size, num_layers: I, H, and how many layers, each fed with the outputs of the one below.
        bias: whether there are biases.
        batch_first: whether x and outputs are (B, T, …) instead of (T, B, …).
        dropout: the probability that an entry of what one layer hands to the next becomes 0 while training.
        bidirectional: whether each layer also reads the sequence from its end; outputs are put side by side.
        residual: "skip" adds a layer's input to its output (from the second layer on), "dense" feeds it with all that is below.
        init: how each gate's block of W_hh begins: a name, a spectral radius, or a function of shape and generator.
        dtype, rng: of the parameters, float64 by default; a Generator or a seed.
        nonlinearity: "tanh" or "relu".

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> layer = nn.RNN(3, 4, num_layers=2, bidirectional=True, rng=0)
        >>> outputs, state = layer(np.ones((5, 2, 3)), lengths=[5, 2])
        >>> outputs.shape, state.hidden.shape
        ((5, 2, 8), (4, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        residual: str | None = None,
        nonlinearity: str = "tanh",
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            rnn(nonlinearity),
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            residual=residual,
            init=init,
            dtype=dtype,
            rng=rng,
        )


class LSTM(_Layer):
    """An LSTM over a sequence, in one or more layers: ``outputs, state = layer(x, state, lengths)``.

    The equations are those of :class:`LSTMCell`; the arguments, shapes, parameters and errors that the three layers share are
    described in :mod:`tinygrad_rnn.nn.recurrent`.

    Args:
        input_size, hidden_size, num_layers: I, H, and how many layers, each fed with the outputs of the one below.
        bias: whether there are biases.
        batch_first: whether x and outputs are (B, T, …) instead of (T, B, …).
        dropout: the probability that an entry of what one layer hands to the next becomes 0 while training.
        bidirectional: whether each layer also reads the sequence from its end; outputs are put side by side.
        residual: "skip" adds a layer's input to its output (from the second layer on), "dense" feeds it with all that is below.
        init: how each gate's block of W_hh begins: a name, a spectral radius, or a function of shape and generator.
        dtype, rng: of the parameters, float64 by default; a Generator or a seed.
        forget_bias: where the forget gate's bias begins: a number, ``init.chrono(T)``, or None to leave it as drawn.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0)
        >>> outputs, state = layer(np.ones((5, 2, 3)), lengths=[5, 2])
        >>> outputs.shape, state.hidden.shape
        ((5, 2, 8), (4, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        residual: str | None = None,
        forget_bias: ForgetBias = 1.0,
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            recurrence.LSTM,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            residual=residual,
            init=init,
            dtype=dtype,
            rng=rng,
            forget_bias=forget_bias,
        )


class GRU(_Layer):
    """A GRU over a sequence, in one or more layers: ``outputs, state = layer(x, state, lengths)``.

    The equations are those of :class:`GRUCell`; the arguments, shapes, parameters and errors that the three layers share are
    described in :mod:`tinygrad_rnn.nn.recurrent`.

    Args:
        input_size, hidden_size, num_layers: I, H, and how many layers, each fed with the outputs of the one below.
        bias: whether there are biases.
        batch_first: whether x and outputs are (B, T, …) instead of (T, B, …).
        dropout: the probability that an entry of what one layer hands to the next becomes 0 while training.
        bidirectional: whether each layer also reads the sequence from its end; outputs are put side by side.
        residual: "skip" adds a layer's input to its output (from the second layer on), "dense" feeds it with all that is below.
        init: how each gate's block of W_hh begins: a name, a spectral radius, or a function of shape and generator.
        dtype, rng: of the parameters, float64 by default; a Generator or a seed.
        reset: where the reset gate acts, "after" or "before" the product with W_hn.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> layer = nn.GRU(3, 4, num_layers=2, bidirectional=True, rng=0)
        >>> outputs, state = layer(np.ones((5, 2, 3)), lengths=[5, 2])
        >>> outputs.shape, state.hidden.shape
        ((5, 2, 8), (4, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        residual: str | None = None,
        reset: str = "after",
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            gru(reset),
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            residual=residual,
            init=init,
            dtype=dtype,
            rng=rng,
        )
