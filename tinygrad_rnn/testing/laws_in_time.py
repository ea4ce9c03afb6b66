"""The laws of time: of layers that run forward in time, and of cells unrolled."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import flow, nn, ops
from ..errors import ArgumentError
from ..graph import scope
from ..nn import recurrent
from ..tensor import Tensor, tensor
from ..trace import trace
from ..transforms import grad, no_grad
from .checks import by_reverse_mode
from .comparing import gradients_of, random_weights, same, weighed
from .reproduction import law
from .subjects import Subject, parts_of


class Unrolled(nn.Module):
    """A cell as a layer of one direction: ``outputs, state = layer(x, state)``. See :func:`unroll`."""

    batch_first = False
    bidirectional = False

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Any, state: Any = None) -> Any:
        outputs = []
        for t in range(x.shape[0]):
            with scope(time=t + 1):
                state = self.cell(x[t], state) if state is not None else self.cell(x[t])
            outputs.append(parts_of(state)[0])
        return ops.stack(outputs), state


def unroll(cell: Any) -> nn.Module:
    """A cell as a layer: over a sequence (T, …), one step after the other, ``outputs, state = unroll(cell)(x, state)``.

    Args:
        cell: ``state = cell(x, state)``, which begins by itself if it is given no state. A state is a Tensor or a tuple of them, and the
            first of them is the output.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.time_shift(laws.unroll(nn.GRUCell(2, 3, rng=0)), np.ones((4, 1, 2)))
    """
    return Unrolled(cell)


def _one_way(layer: Any, law_name: str) -> Any:
    """The layer, if it runs forward in time; a cell is unrolled."""
    if isinstance(layer, recurrent._Cell):
        return unroll(layer)
    if getattr(layer, "bidirectional", False):
        raise ArgumentError(
            f"{law_name}: expected a layer that runs forward in time; a bidirectional one reads the whole sequence at every step"
        )
    try:
        inspect.signature(getattr(layer, "forward", layer)).bind(None, None)
    except (TypeError, ValueError):
        name = getattr(layer, "__name__", type(layer).__name__)
        raise ArgumentError(
            f"{law_name}: expected a layer, outputs, state = layer(x, state), got {name}; see laws.unroll for cells"
        ) from None
    return layer


def steps_of(layer: Any, x: Any) -> int:
    """The number of time steps of a sequence, as the layer takes it."""
    return int(x.shape[1 if _batch_comes_first(layer, x) else 0])


def _batch_comes_first(layer: Any, x: Any) -> bool:
    return bool(getattr(layer, "batch_first", False)) and np.ndim(getattr(x, "value", x)) == 3


def _stretch(layer: Any, x: Any, start: int, stop: int | None) -> Any:
    return x[:, start:stop] if _batch_comes_first(layer, x) else x[start:stop]


def _detached(state: Any) -> Any:
    if isinstance(state, (tuple, list)):
        inside = [_detached(part) for part in state]
        return type(state)(*inside) if hasattr(state, "_fields") else type(state)(inside)
    return state.detach()


@law
def time_shift(layer: Any, x: Any, state: Any = None, *, by: int = 1, rtol: float = 1e-10, seed: int = 0) -> None:
    """A sequence that goes on from the state after ``by`` steps is the rest of the whole: no step knows its number.

    Outputs, final state, and the gradients of the rest of x and of everything shared are compared.

    Args:
        layer: ``outputs, state = layer(x, state)``, or a cell of :mod:`tinygrad_rnn.nn`; for your own cell see :func:`unroll`.
        x, state: the sequence, and the state before it, as the layer takes them.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.time_shift(nn.LSTM(2, 3, rng=0), np.ones((5, 1, 2)), by=2)
    """
    layer = _one_way(layer, "time_shift")
    held = Subject(layer, (x, state), {})
    if not 0 < by < steps_of(layer, held.arrays[0]):
        raise ArgumentError(f"time_shift: expected by from 1 to {steps_of(layer, held.arrays[0]) - 1}, the steps but one, got {by}")

    def rest(outputs: Any, last: Any, start: int) -> Tensor:
        return weighed((_stretch(layer, outputs, start, None), last), seed)

    def whole(*operands: Any) -> Any:
        first = _stretch(layer, operands[0], 0, by)
        _, middle = held.results(first, *operands[1:])
        return _detached(middle)

    leaves = held.leaves()
    outputs, last = held.results(*leaves)
    with no_grad():
        middle = whole(*leaves)
    going_on = Subject(layer, (_stretch(layer, held.arrays[0], by, None), middle), {})
    later = going_on.leaves()
    outputs_again, last_again = going_on.results(*later)
    rows = [_stretch(layer, outputs, by, None), *parts_of(last)]
    for k, (one, other) in enumerate(zip(rows, [outputs_again, *parts_of(last_again)], strict=True)):
        same(f"{held.name}: {'later outputs' if k == 0 else f'final state {k - 1}'}", one, other, rtol, "the whole sequence", "going on")
    expected = grad(rest(outputs, last, by), leaves, allow_unused=True)[0]
    found = grad(rest(outputs_again, last_again, 0), later, allow_unused=True)[0]
    same(f"{held.name}: gradient of x", _stretch(layer, expected, by, None), found, rtol, "the whole sequence", "going on")


@law
def truncation(layer: Any, x: Any, state: Any = None, *, rtol: float = 1e-10, seed: int = 0) -> None:
    """Truncated BPTT at a window of all steps is BPTT; at a window of k steps it is ``state.detach()`` every k steps.

    The one side runs the sequence in chunks that are cut off from each other; the other is ``flow.cut_time(every=k)`` on the whole (for a
    layer whose steps leave landmarks; otherwise only the full window, and chunks that are not cut off, are compared).

    Args:
        layer, x, state: as for :func:`time_shift`.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.truncation(nn.GRU(2, 3, rng=0), np.ones((4, 1, 2)))
    """
    layer = _one_way(layer, "truncation")
    held = Subject(layer, (x, state), {})
    steps = steps_of(layer, held.arrays[0])
    shape = held.results(*held.leaves())[0].shape
    weights = random_weights(shape, seed)

    def chunked(window: int, cut: bool) -> list[Any]:
        leaves = held.leaves()
        sequence, going, losses = leaves[0], leaves[1 : held.given], []
        for start in range(0, steps, window):
            first = _stretch(layer, sequence, start, start + window)
            if start == 0:
                outputs, now = held.results(first, *going, *leaves[held.given :])
            else:
                part = Subject(layer, (held.inputs[0], now), {})
                outputs, now = part.results(first, *parts_of(now), *leaves[held.given :])
            losses.append(ops.sum(outputs * _stretch(layer, weights, start, start + window)))
            now = _detached(now) if cut else now
        return gradients_of(losses[0] if len(losses) == 1 else ops.sum(ops.stack(losses)), leaves)

    def cut_in_graph(window: int) -> list[Any]:
        leaves = held.leaves()
        outputs, _ = held.results(*leaves)
        ops.sum(outputs * weights).backward(interventions=[flow.cut_time(every=window)])
        return [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.value for leaf in leaves]

    leaves = held.leaves()
    outputs, _ = held.results(*leaves)
    loss = ops.sum(outputs * weights)
    marked = loss.node is not None and bool(trace(loss, keep="norms").layers)
    full = gradients_of(loss, leaves)
    scale = max(float(np.max(np.abs(gradient), initial=0.0)) for gradient in full)

    def compare(expected: list[Any], got: list[Any], by: str, came_by: str) -> None:
        for name, one, other in zip(held.names, expected, got, strict=True):
            same(f"{held.name}: {name}", one, other, rtol, by, came_by, scale=0.01 * scale)

    for window in (steps, steps + 1):
        compare(full, chunked(window, True), "BPTT", f"chunks of {window} steps, of {steps}")
        if marked:
            compare(full, cut_in_graph(window), "BPTT", f"flow.cut_time(every={window}), of {steps}")
    for window in range(1, steps):
        compare(full, chunked(window, False), "BPTT", f"chunks of {window} steps that hand their state on")
        if marked:
            compare(chunked(window, True), cut_in_graph(window), f"detach every {window} steps", f"flow.cut_time(every={window})")


@law
def step_jacobian_order(layer: Any, x: Any, state: Any = None, *, rtol: float = 1e-10) -> None:
    """∂s_T/∂s_0 = J_T ⋯ J_1: the step Jacobians, each taken by itself, multiplied with the last step's on the left.

    Where the layer's steps leave landmarks, ``flow.step_jacobians`` must list the same Jacobians.

    Args:
        layer: one layer of one direction, or a cell; see :func:`time_shift`.
        x: (T, B, I).
        state: the one before step 1; where it is None the product begins at step 1.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.step_jacobian_order(nn.LSTM(2, 3, rng=0), np.random.default_rng(0).normal(size=(4, 1, 2)))
    """
    layer = _one_way(layer, "step_jacobian_order")
    held = Subject(layer, (x, state), {})
    sequence = held.arrays[0]
    steps = steps_of(layer, sequence)
    with no_grad():
        states = [parts_of(held.results(_stretch(layer, tensor(sequence), 0, 1), *map(tensor, held.arrays[1:]))[1])]
        for t in range(1, steps):
            states.append(parts_of(layer(_stretch(layer, sequence, t, t + 1), _as_state(layer, states[-1], sequence))[1]))
    values = [[part.value for part in parts] for parts in states]

    def through(start: int, stop: int) -> Any:
        """The Jacobian of the state after step ``stop`` with respect to that after step ``start``, parts side by side."""
        form = [part.shape for part in states[0]]
        cuts = np.cumsum([0, *(int(np.prod(shape)) for shape in form)])

        def run(flat: Any) -> Any:
            pieces = [flat[a:b].reshape(shape) for a, b, shape in zip(cuts[:-1], cuts[1:], form, strict=True)]
            _, last = layer(_stretch(layer, sequence, start, stop), _as_state(layer, pieces, sequence))
            return ops.concatenate([ops.ravel(part) for part in parts_of(last)])

        point = np.concatenate([part.ravel() for part in values[start - 1]])
        return by_reverse_mode("step_jacobian_order", run, [point], ["state"])[0]

    if steps < 2:
        return
    own = [through(t, t + 1) for t in range(1, steps)]
    product = own[0]
    for jacobian in own[1:]:
        product = jacobian @ product
    same(f"{held.name}: ∂s_{steps}/∂s_1", product, through(1, steps), rtol, f"J_{steps} ⋯ J_2", "one backward pass through all steps")
    leaves = held.leaves()
    _, last = held.results(*leaves)
    ledger = trace(weighed(last, 0))
    if len(ledger.layers) != 1 or len(values[0][0].shape) not in (2, 3):
        return
    listed = flow.step_jacobians(ledger)
    batch, size = listed.jacobian.shape[1:3]
    block = size // len(values[0])
    for t, jacobian in zip(range(2, steps + 1), own, strict=True):
        (place,) = np.flatnonzero(listed.time == t)
        wide = jacobian.reshape(len(values[0]), batch, block, len(values[0]), batch, block)
        for b in range(batch):
            expected = wide[:, b, :, :, b].reshape(size, size)
            same(
                f"{held.name}: J_{t} of sequence {b}",
                expected,
                listed.jacobian[place, b],
                rtol,
                "the step by itself",
                "flow.step_jacobians",
            )


def _as_state(layer: Any, parts: Sequence[Any], sequence: Any) -> Any:
    """The parts of a state in the form in which the layer takes it."""
    if isinstance(layer, recurrent._Layer):
        return tuple(parts)
    cell = layer.cell if isinstance(layer, Unrolled) else layer
    if isinstance(cell, recurrent._Cell):
        return cell._recurrence.state(*parts)
    return parts[0] if len(parts) == 1 else tuple(parts)


@law
def padding(layer: Any, x: Any, state: Any = None, *, lengths: Any, fill: float = 100.0, rtol: float = 1e-10, seed: int = 0) -> None:
    """What stands beyond the end of a sequence changes nothing: outputs that count, final state, and all gradients are as with zeros there.

    Args:
        layer: ``outputs, state = layer(x, state, lengths=lengths)``.
        x, state: a padded batch (T, B, I), or (B, T, I) for a layer with ``batch_first``, and the state before it.
        lengths: how many steps of each sequence count.
        fill: what is put there; ``nan`` for a layer that promises not to read it, and does not only multiply by 0.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import laws
        >>> laws.padding(nn.LSTM(2, 3, rng=0), np.ones((4, 2, 2)), lengths=[4, 1], fill=np.nan)
    """
    held = Subject(layer, (x, state), {"lengths": lengths})
    first = bool(getattr(layer, "batch_first", False))
    beyond = np.arange(steps_of(layer, held.arrays[0]))[:, None] >= np.asarray(lengths)
    beyond = beyond.T if first else beyond
    runs = []
    for there in (0.0, fill):
        leaves = held.leaves()
        with no_grad():
            leaves[0].value = np.where(beyond[..., None], there, held.arrays[0])
        outputs, last = held.results(*leaves)
        outputs = ops.where(beyond[..., None], 0.0, outputs)
        gradients = gradients_of(weighed((outputs, last), seed), leaves)
        runs.append((outputs, parts_of(last), gradients))
    (outputs, last, gradients), (outputs_again, last_again, gradients_again) = runs
    by, came_by = "zeros in the padding", f"{fill:g} there"
    same(f"{held.name}: outputs", outputs, outputs_again, rtol, by, came_by)
    for k, (one, other) in enumerate(zip(last, last_again, strict=True)):
        same(f"{held.name}: final state {k}", one, other, rtol, by, came_by)
    for name, one, other in zip(held.names, gradients, gradients_again, strict=True):
        same(f"{held.name}: {name}: gradient", one, other, rtol, by, came_by)
    same(f"{held.name}: gradient of the padding", np.zeros(int(beyond.sum())), gradients[0][beyond].sum(-1), rtol, "definition", "backward")
