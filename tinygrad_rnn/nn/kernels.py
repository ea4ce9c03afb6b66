"""Whole sequences at once, in plain NumPy: the opaque kernels that the layers run while nobody looks.

Each kernel is an :class:`~tinygrad_rnn.primitive.Opaque` whose definition is :func:`~tinygrad_rnn.nn.recurrence.unroll`, the same
steps composed from primitives. What makes a kernel quick:

* one matrix product feeds the inputs of a stretch of steps, with a column of ones for the bias; one per step is left for the state;
* the gates of a step are blocks in one buffer, in an order that lets neighbours share an operation, and are computed in place;
* σ(a) = 1/(1 + e⁻ᵃ) takes its minus sign from the weights, turned round once per call;
* the backward pass computes the local derivatives of a stretch at once, so that per step one product with them, one matrix product and
  a few sums remain; the gradients of the weights are one matrix product each per stretch.

A stretch is as many steps as fit a cache, often all; so neither pass needs much memory beyond what the other reads.

Sequences of different lengths are sorted, longest first: then the rows that are still active at a step are the first ones, and the
rest is left alone. A reversed sequence is turned round first, so every kernel only ever goes forward.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..primitive import Opaque
from ..steps import norms_of
from . import recurrence as definitions
from .recurrence import Recurrence, unroll

STRETCH = 1_200_000
"""About how many bytes a pass computes at once, over several steps."""

Array = Any
Watch = Callable[[Array, Array], Any]
"""Who is told by each backward pass the norms of the state cotangents, and of what the steps hand back."""


class _Scratch(threading.local):
    """Room that a pass needs only while it runs, kept for the next pass of the same thread.

    Memory that is new to the process costs more than the numbers that are put there: for small layers it was a fifth of all time.
    A pass opens it; one that comes in the middle of another, from a signal handler or a finaliser, gets room of its own.
    """

    def __init__(self) -> None:
        self._free: list[dict[str, Array]] = []
        self._taken: list[dict[str, Array]] = []

    def __enter__(self) -> None:
        self._taken.append(self._free.pop() if self._free else {})

    def __exit__(self, *_: object) -> None:
        self._free.append(self._taken.pop())

    def take(self, use: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with anything in it, which is overwritten the next time that the same use is asked for."""
        size = math.prod(shape) * dtype.itemsize
        room = self._taken[-1]
        held = room.get(use)
        if held is None or held.size < size:
            held = room[use] = np.empty(size, np.uint8)
        return held[:size].view(dtype).reshape(shape)


_scratch = _Scratch()


class _Run:
    """One call of a kernel; it stays until the backward pass, which finds its buffers again.

    Sequences are in the order in which the kernel computes them: reversed if that was asked for, and sorted by length.

    Attributes:
        fed: the input, padding made 0, with a column of ones if there is a bias.
        hidden: every hidden state, the initial one first, (T + 1, B, H).
        counts: how many rows are active at each step; None if always all.
    """

    recurrence: ClassVar[Recurrence]
    turned: ClassVar[bool] = False
    """Whether the kernel keeps the gates of W_ih with the last one first."""

    def __init__(self, x: Array, *operands: Array, lengths: Array | None, reverse: bool, watch: Watch | None = None) -> None:
        parts = self.recurrence.parts
        self.watch = watch
        ih, self.hh, *biases = operands[parts:]
        self.bias_hn = biases[1] if len(biases) > 1 else None
        self.reverse = reverse
        self.steps, self.batch, self.inputs = x.shape
        self.size = self.hh.shape[1]
        self.dtype = x.dtype
        self.order: Array | None = None  # sorts the batch; ``back`` undoes it
        self.back: Array | None = None
        self.active: Array | None = None  # (T, B, 1)
        self.counts: list[int] | None = None
        if lengths is not None and (lengths < self.steps).any():
            if (np.diff(lengths) > 0).any():
                self.order = np.argsort(-lengths, kind="stable")
                self.back = np.argsort(self.order)
                lengths = lengths[self.order]
            active = np.arange(self.steps)[:, None] < lengths
            self.active = (active[::-1] if reverse else active)[..., None]
            self.counts = self.active.sum((1, 2)).tolist()
        self.start = [self._sorted(part) for part in operands[:parts]]
        self.hidden = self._blocks(self.steps + 1)
        self.hidden[0] = self.start[0]
        self.fed = np.empty((self.steps, self.batch, self.inputs + bool(biases)), self.dtype)
        self.fed[..., : self.inputs] = self._arranged(x)
        self.fed[..., self.inputs :] = 1.0
        if self.active is not None:
            np.copyto(self.fed, 0.0, where=~self.active)
        self.fed_by = self._ordered(np.concatenate([ih, biases[0][:, None]], axis=1) if biases else ih)

    # -- buffers --------------------------------------------------------------------------------------------------------------

    def _row(self, count: int) -> Array:
        """A matrix product's result, (B, count · H)."""
        return np.empty((self.batch, count * self.size), self.dtype)

    def _blocks(self, *counts: int) -> Array:
        """Blocks (B, H) side by side, each of them in one piece: NumPy takes a third of the time where rows need not be skipped."""
        return np.empty((*counts, self.batch, self.size), self.dtype)

    def _local(self, steps: int, count: int, use: str = "local") -> Array:
        """Room for the local derivatives of a stretch, as blocks."""
        return _scratch.take(use, (steps, count, self.batch, self.size), self.dtype)

    def _rows(self, first: int, last: int, count: int) -> Array:
        """What the matrix products of a stretch take, (steps, B, count · H); padding is 0."""
        rows = _scratch.take("rows", (last - first, self.batch, count * self.size), self.dtype)
        if self.active is not None:
            np.copyto(rows, 0.0, where=~self.active[first:last])
        return rows

    # -- orders ---------------------------------------------------------------------------------------------------------------

    def _sorted(self, state: Array) -> Array:
        return state if self.order is None else state[self.order]

    def _unsorted(self, state: Array) -> Array:
        return state if self.back is None else state[self.back]

    def _arranged(self, sequence: Array) -> Array:
        sequence = sequence if self.order is None else sequence[:, self.order]
        return sequence[::-1] if self.reverse else sequence

    def _rearranged(self, sequence: Array) -> Array:
        sequence = sequence[::-1] if self.reverse else sequence
        return sequence if self.back is None else sequence[:, self.back]

    def _ordered(self, weights: Array) -> Array:
        """The blocks of the gates in the kernel's order."""
        return np.roll(weights, self.size, axis=0) if self.turned else weights

    def _natural(self, weights: Array) -> Array:
        """The blocks of the gates in the order of the parameters."""
        return np.roll(weights, -self.size, axis=0) if self.turned else weights

    # -- steps ----------------------------------------------------------------------------------------------------------------

    def _each(self, buffer: Array, first: int = 0) -> list[Array]:
        """The active rows of every step; ``buffer[0]`` belongs to step ``first``."""
        if self.counts is None:
            return list(buffer)
        return [rows[..., :count, :] for rows, count in zip(buffer, self.counts[first:], strict=False)]

    def _same(self, array: Array) -> list[Array]:
        """The rows of one array that are active, for every step."""
        return [array] * self.steps if self.counts is None else [array[..., :count, :] for count in self.counts]

    def _hold(self, step: int, *states: Array) -> None:
        """The rows that are not active at a step keep their state; each of the ``states`` is (T + 1, B, H)."""
        assert self.counts is not None
        count = self.counts[step]
        for state in states:
            state[step + 1, count:] = state[step, count:]

    def _stretches(self, blocks: int) -> Iterator[tuple[int, int]]:
        """Stretches of steps, the last one first, for which so many blocks take about ``STRETCH`` bytes."""
        length = max(1, STRETCH // max(1, self.batch * self.size * blocks * self.dtype.itemsize))
        for end in range(self.steps, 0, -length):
            yield max(0, end - length), end

    # -- the two passes -------------------------------------------------------------------------------------------------------

    def forward(self) -> tuple[Array, ...]:
        """The outputs (T, B, H) and the parts of the final state."""
        final = self._forward()
        outputs = self.hidden[1:]
        if self.active is not None:
            outputs = np.where(self.active, outputs, self.dtype.type(0))
        # Copies, so that whoever keeps the final state does not keep all buffers with it.
        return (self._rearranged(outputs), *(np.array(self._unsorted(part)) for part in final))

    def backward(self, cotangent: Sequence[Array | None], needed: Sequence[bool]) -> tuple[Array | None, ...]:
        """The cotangents of the operands from those of the outputs and of the final state; None for those that are not needed."""
        arriving, *on_state = cotangent
        flowing = self._blocks(len(self.start))
        for flow, given in zip(flowing, on_state, strict=True):
            flow[...] = 0.0 if given is None else self._sorted(given)
        shares = _Shares(self, for_x=needed[0], for_weights=any(needed[1 + len(flowing) :]))
        arriving = None if arriving is None else self._arranged(arriving)
        outputs = None if arriving is None else self._each(arriving)
        shape = (self.steps + 1, *flowing.shape)
        seen = None if self.watch is None else _scratch.take("seen", shape, self.dtype)
        hidden = self._same(flowing[0])

        def enter(t: int) -> None:
            """What the outputs hand to the hidden state of step t; after that the cotangents are those of the state."""
            if seen is not None:
                seen[t + 1] = flowing
            if outputs is not None:
                np.add(hidden[t], outputs[t], out=hidden[t])

        self._backward(enter, shares, *flowing)
        if self.watch is not None and seen is not None:
            seen[0] = flowing
            norms = handed = norms_of(seen)
            if arriving is not None:  # the same sums as in enter, all at once
                np.add(seen[1:, 0], arriving, out=seen[1:, 0], where=True if self.active is None else self.active)
                norms = norms_of(seen)
            self.watch(*(each[::-1] if self.reverse else each for each in (norms, handed)))
        on_x = None if shares.on_x is None else self._rearranged(shares.on_x)
        return (on_x, *(self._unsorted(part) for part in flowing), *shares.of_weights()[: len(needed) - 1 - len(flowing)])

    def _fed(self, weights: Array) -> Iterator[Array]:
        """The inputs' share of every step's pre-activations, (B, G·H): one product for a stretch of steps."""
        width = len(weights)
        for first, last in reversed(list(self._stretches(max(width // self.size, 2)))):
            rows = (last - first) * self.batch
            fed = _scratch.take("fed", (rows, width), self.dtype)
            np.matmul(self.fed[first:last].reshape(rows, weights.shape[1]), weights.T, out=fed)
            yield from self._each(fed.reshape(last - first, self.batch, width), first)

    def _forward(self) -> tuple[Array, ...]:
        """Fill the buffers step by step; return the parts of the final state."""
        raise NotImplementedError

    def _backward(self, enter: Callable[[int], None], shares: _Shares, *flowing: Array) -> None:
        """Turn the cotangents of the final state, in place, into those of the initial one, and add up the shares on the way.

        ``enter(t)`` comes first at every step.
        """
        raise NotImplementedError


class _Shares:
    """The gradients of input and weights, added up stretch by stretch from the cotangents of the pre-activations."""

    def __init__(self, run: _Run, *, for_x: bool, for_weights: bool) -> None:
        self.run = run
        self.on_x = np.empty((run.steps, run.batch, run.inputs), run.dtype) if for_x else None
        self.for_weights = for_weights
        self.on_fed_by = np.zeros(run.fed_by.shape, run.dtype)
        self.on_hh = np.zeros(run.hh.shape, run.dtype)
        self.on_bias_hn = np.zeros(run.size, run.dtype)

    def of_input(self, first: int, last: int, pre: Array) -> None:
        """``pre`` is the cotangent of x W_ihᵀ + b in a stretch, (steps, B, G·H)."""
        run = self.run
        rows = (last - first) * run.batch
        flat = pre.reshape(rows, pre.shape[-1])
        if self.on_x is not None:
            np.matmul(flat, run.fed_by[:, : run.inputs], out=self.on_x[first:last].reshape(rows, run.inputs))
        if self.for_weights:
            _add_product(flat, run.fed[first:last].reshape(rows, run.fed.shape[-1]), self.on_fed_by)

    def of_state(self, past: Array, pre: Array, gates: slice = slice(None)) -> None:
        """``pre`` is the cotangent of ``past`` W_hhᵀ in a stretch, for some rows of W_hh."""
        if self.for_weights:
            rows = pre.shape[0] * pre.shape[1]
            _add_product(pre.reshape(rows, pre.shape[-1]), past.reshape(rows, past.shape[-1]), self.on_hh[gates])

    def of_weights(self) -> tuple[Array | None, ...]:
        """Those of W_ih, W_hh, b and b_hn."""
        if not self.for_weights:
            return (None,) * 4
        on_fed_by = self.run._natural(self.on_fed_by)
        inputs = self.run.inputs
        return on_fed_by[:, :inputs], self.on_hh, on_fed_by[:, -1], self.on_bias_hn


def _add_product(left: Array, right: Array, total: Array) -> None:
    """Add leftᵀ right."""
    total += np.matmul(left.T, right, out=_scratch.take("product", total.shape, total.dtype))


class _RNN(_Run):
    """h' = φ(a)."""

    def _forward(self) -> tuple[Array, ...]:
        hidden = self.hidden
        weights = np.ascontiguousarray(self.hh.T)
        products = self._same(self._row(1))
        steps = zip(self._fed(self.fed_by), self._each(hidden), self._each(hidden[1:]), products, strict=False)
        padded = self.counts is not None
        for t, (pre, past, new, product) in enumerate(steps):
            np.dot(past, weights, out=product)
            np.add(pre, product, out=pre)
            self._activate(pre, new)
            if padded:
                self._hold(t, hidden)
        return (hidden[-1],)

    def _backward(self, enter: Callable[[int], None], shares: _Shares, *flowing: Array) -> None:
        flows = self._same(flowing[0])
        for first, last in self._stretches(2):
            rows = self._rows(first, last, 1)
            local, each = self._each(self._derivative(self.hidden[first + 1 : last + 1]), first), self._each(rows, first)
            for t in range(last - 1, first - 1, -1):
                flow, pre = flows[t], each[t - first]
                enter(t)
                np.multiply(local[t - first], flow, out=pre)
                np.dot(pre, self.hh, out=flow)
            shares.of_input(first, last, rows)
            shares.of_state(self.hidden[first:last], rows)

    def _activate(self, pre: Array, new: Array) -> None:
        """φ of ``pre``, into ``new``."""
        raise NotImplementedError

    def _derivative(self, new: Array) -> Array:
        """φ′ from the value of φ."""
        raise NotImplementedError


class _Tanh(_RNN):
    recurrence = definitions.RNN_TANH

    def _activate(self, pre: Array, new: Array) -> None:
        np.tanh(pre, out=new)

    def _derivative(self, new: Array) -> Array:
        square = np.multiply(new, new, out=_scratch.take("local", new.shape, new.dtype))
        return np.subtract(1.0, square, out=square)


class _Relu(_RNN):
    recurrence = definitions.RNN_RELU

    def _activate(self, pre: Array, new: Array) -> None:
        np.maximum(pre, 0.0, out=new)

    def _derivative(self, new: Array) -> Array:
        return np.greater(new, 0.0, out=_scratch.take("local", new.shape, new.dtype))


class _LSTM(_Run):
    """c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').

    A step's blocks are o, i, f, g, the cell state before it, and tanh(c'): o, i and f are one σ, and [i, f] ⊙ [g, c] is one product.
    """

    recurrence = definitions.LSTM
    turned = True

    def _forward(self) -> tuple[Array, ...]:
        size, hidden = self.size, self.hidden
        self.blocks = blocks = self._blocks(self.steps + 1, 6)
        cells = blocks[:, 4]
        cells[0] = self.start[1]
        signs = np.repeat(np.array([-1, -1, -1, 1], self.dtype), size)[:, None]
        weights = np.ascontiguousarray((self._ordered(self.hh) * signs).T)
        product, terms = self._row(4), self._blocks(2)
        turned = _as_blocks(product, 4)
        steps = zip(
            range(self.steps),
            self._fed(self.fed_by * signs), self._each(hidden), self._each(hidden[1:]), self._each(cells[1:]), self._same(product),
            self._same(terms), self._same(terms[0]), self._same(terms[1]), self._same(turned[:3]), self._same(turned[3]),
            self._each(blocks[:, :3]), self._each(blocks[:, 3]), self._each(blocks[:, 0]), self._each(blocks[:, 1:3]),
            self._each(blocks[:, 3:5]), self._each(blocks[:, 5]),
            strict=False,
        )  # fmt: skip
        padded = self.counts is not None
        for t, pre, past, new, cell, product, terms, written, kept, on_sigmas, on_g, sigmas, g, o, i_f, g_c, shown in steps:
            np.dot(past, weights, out=product)
            np.add(product, pre, out=product)
            _sigmoid_of_minus(on_sigmas, sigmas)
            np.tanh(on_g, out=g)
            np.multiply(i_f, g_c, out=terms)
            np.add(written, kept, out=cell)
            np.tanh(cell, out=shown)
            np.multiply(o, shown, out=new)
            if padded:
                self._hold(t, hidden, cells)
        return hidden[-1], cells[-1]

    def _backward(self, enter: Callable[[int], None], shares: _Shares, *flowing: Array) -> None:
        weights = self._ordered(self.hh)
        on_hidden, on_cell, products = (self._same(array) for array in (*flowing, self._row(1)))
        forgets = self._each(self.blocks[:, 2])
        for first, last in self._stretches(9):
            local, through = self._derivatives(first, last)
            rows = self._rows(first, last, 4)
            each, turned = self._each(rows, first), _as_blocks(rows, 4)
            on_o, on_ifg = self._each(turned[:, 0], first), self._each(turned[:, 1:], first)
            of_o, of_ifg, tanhs = self._each(local[:, 0], first), self._each(local[:, 1:], first), self._each(through, first)
            for t in range(last - 1, first - 1, -1):
                on_h, on_c, product, j = on_hidden[t], on_cell[t], products[t], t - first
                enter(t)
                np.multiply(on_h, tanhs[j], out=product)
                np.add(on_c, product, out=on_c)
                np.multiply(of_o[j], on_h, out=on_o[j])
                np.multiply(of_ifg[j], on_c, out=on_ifg[j])
                np.multiply(on_c, forgets[t], out=on_c)
                np.dot(each[j], weights, out=on_h)
            shares.of_input(first, last, rows)
            shares.of_state(self.hidden[first:last], rows)
        shares.on_hh = self._natural(shares.on_hh)

    def _derivatives(self, first: int, last: int) -> tuple[Array, Array]:
        """∂h'/∂a_o, ∂c'/∂a_i, ∂c'/∂a_f and ∂c'/∂a_g as blocks, and ∂h'/∂c'."""
        blocks, hidden = self.blocks[first:last], self.hidden[first + 1 : last + 1]
        o, i, g, shown = (blocks[:, k] for k in (0, 1, 3, 5))
        local, through = self._local(last - first, 4), self._local(last - first, 1, "through")[:, 0]
        np.subtract(1.0, blocks[:, :3], out=local[:, :3])
        local[:, 0] *= hidden  # (1 − o) o tanh(c')
        local[:, 1:3] *= blocks[:, 1:3]
        local[:, 1:3] *= blocks[:, 3:5]
        np.multiply(g, g, out=local[:, 3])
        np.subtract(1.0, local[:, 3], out=local[:, 3])
        local[:, 3] *= i
        np.multiply(hidden, shown, out=through)
        np.subtract(o, through, out=through)  # o (1 − tanh²(c'))
        return local, through


class _GRUAfter(_Run):
    """h' = (1 − z) ⊙ n + z ⊙ h, n = tanh(a_n + r ⊙ q) with q = h W_hnᵀ + b_hn.

    A step's blocks are n, r, z and q: the input feeds the first three, the state the last three.
    """

    recurrence = definitions.GRU_AFTER
    turned = True

    def _forward(self) -> tuple[Array, ...]:
        size, hidden = self.size, self.hidden
        self.blocks = blocks = self._blocks(self.steps, 4)
        signs = np.repeat(np.array([1, -1, -1, 1], self.dtype), size)[:, None]
        weights = np.ascontiguousarray((self.hh * signs[size:]).T)
        bias = self.dtype.type(0) if self.bias_hn is None else self.bias_hn
        product, terms = self._row(3), self._row(1)
        product_blocks = _as_blocks(product, 3)
        steps = zip(
            range(self.steps),
            self._fed(self.fed_by * signs[: 3 * size]), self._each(hidden), self._each(hidden[1:]),
            self._same(product), self._same(product_blocks[:2]), self._same(product_blocks[2]), self._same(terms),
            self._each(blocks[:, 1:3]), *(self._each(blocks[:, k]) for k in range(4)),
            strict=False,
        )  # fmt: skip
        padded = self.counts is not None
        for t, fed, past, new, product, on_gates, on_q, terms, sigmas, n, r, z, q in steps:
            fed = _as_blocks(fed, 3)
            np.dot(past, weights, out=product)
            np.add(on_q, bias, out=q)
            np.add(fed[1:], on_gates, out=sigmas)
            _sigmoid_of_minus(sigmas, sigmas)
            np.multiply(r, q, out=terms)
            np.add(fed[0], terms, out=n)
            np.tanh(n, out=n)
            _mix(n, z, past, terms, new)
            if padded:
                self._hold(t, hidden)
        return (hidden[-1],)

    def _backward(self, enter: Callable[[int], None], shares: _Shares, *flowing: Array) -> None:
        size = self.size
        flows, products = self._same(flowing[0]), self._same(self._row(1))
        updates = self._each(self.blocks[:, 2])
        for first, last in self._stretches(8):
            local = self._each(self._derivatives(first, last), first)
            rows = self._rows(first, last, 4)
            each, recurrent = self._each(_as_blocks(rows, 4), first), self._each(rows[..., size:], first)
            for t in range(last - 1, first - 1, -1):
                flow, product, j = flows[t], products[t], t - first
                enter(t)
                np.multiply(local[j], flow, out=each[j])
                np.multiply(flow, updates[t], out=flow)
                np.dot(recurrent[j], self.hh, out=product)
                np.add(flow, product, out=flow)
            shares.of_input(first, last, rows[..., : 3 * size])
            shares.of_state(self.hidden[first:last], rows[..., size:])
            shares.on_bias_hn += rows[..., 3 * size :].sum((0, 1))

    def _derivatives(self, first: int, last: int) -> Array:
        """∂h'/∂a_n, ∂h'/∂a_r, ∂h'/∂a_z and ∂h'/∂q as blocks."""
        blocks = self.blocks[first:last]
        n, r, q = blocks[:, 0], blocks[:, 1], blocks[:, 3]
        local = self._local(last - first, 4)
        of_n, of_r, of_z, of_q = (local[:, k] for k in range(4))
        np.subtract(1.0, blocks[:, 1:3], out=local[:, 1:3])
        np.multiply(n, n, out=of_n)
        np.subtract(1.0, of_n, out=of_n)
        of_n *= of_z  # (1 − z)(1 − n²)
        local[:, 1:3] *= blocks[:, 1:3]
        np.subtract(self.hidden[first:last], n, out=of_q)
        of_z *= of_q  # (h − n) z (1 − z)
        of_r *= of_n
        of_r *= q
        np.multiply(of_n, r, out=of_q)
        return local


class _GRUBefore(_Run):
    """h' = (1 − z) ⊙ n + z ⊙ h, n = tanh(a_n + m W_hnᵀ) with m = r ⊙ h; a step's blocks are r, z, n and m."""

    recurrence = definitions.GRU_BEFORE

    def _forward(self) -> tuple[Array, ...]:
        size, hidden = self.size, self.hidden
        self.blocks = blocks = self._blocks(self.steps, 4)
        if self.active is not None:  # the gradient of W_hn reads m where no step writes it
            np.copyto(blocks[:, 3], 0.0, where=~self.active)
        signs = np.repeat(np.array([-1, -1, 1], self.dtype), size)[:, None]
        first_two = np.ascontiguousarray((self.hh[: 2 * size] * signs[: 2 * size]).T)
        last_one = np.ascontiguousarray(self.hh[2 * size :].T)
        product, terms = self._row(2), self._row(1)
        steps = zip(
            range(self.steps),
            self._fed(self.fed_by * signs), self._each(hidden), self._each(hidden[1:]), self._same(product),
            self._same(_as_blocks(product, 2)), self._same(terms), self._each(blocks[:, :2]),
            *(self._each(blocks[:, k]) for k in range(4)),
            strict=False,
        )  # fmt: skip
        padded = self.counts is not None
        for t, fed, past, new, product, on_gates, terms, sigmas, r, z, n, m in steps:
            fed = _as_blocks(fed, 3)
            np.dot(past, first_two, out=product)
            np.add(fed[:2], on_gates, out=sigmas)
            _sigmoid_of_minus(sigmas, sigmas)
            np.multiply(r, past, out=m)
            np.dot(m, last_one, out=terms)
            np.add(fed[2], terms, out=n)
            np.tanh(n, out=n)
            _mix(n, z, past, terms, new)
            if padded:
                self._hold(t, hidden)
        return (hidden[-1],)

    def _backward(self, enter: Callable[[int], None], shares: _Shares, *flowing: Array) -> None:
        size = self.size
        first_two, last_one = self.hh[: 2 * size], self.hh[2 * size :]
        flows, products = self._same(flowing[0]), self._same(self._row(1))
        resets, updates = self._each(self.blocks[:, 0]), self._each(self.blocks[:, 1])
        for first, last in self._stretches(6):
            local = self._derivatives(first, last)
            of_r, of_zn = self._each(local[:, 0], first), self._each(local[:, 1:], first)
            rows = self._rows(first, last, 3)
            turned = _as_blocks(rows, 3)
            on_r, on_zn = self._each(turned[:, 0], first), self._each(turned[:, 1:], first)
            r_and_z, on_n = self._each(rows[..., : 2 * size], first), self._each(rows[..., 2 * size :], first)
            for t in range(last - 1, first - 1, -1):
                flow, product, j = flows[t], products[t], t - first
                enter(t)
                np.multiply(of_zn[j], flow, out=on_zn[j])
                np.multiply(flow, updates[t], out=flow)
                np.dot(on_n[j], last_one, out=product)
                np.multiply(of_r[j], product, out=on_r[j])
                np.multiply(product, resets[t], out=product)
                np.add(flow, product, out=flow)
                np.dot(r_and_z[j], first_two, out=product)
                np.add(flow, product, out=flow)
            shares.of_input(first, last, rows)
            shares.of_state(self.hidden[first:last], rows[..., : 2 * size], slice(2 * size))
            shares.of_state(self.blocks[first:last, 3], rows[..., 2 * size :], slice(2 * size, None))

    def _derivatives(self, first: int, last: int) -> Array:
        """∂m/∂a_r, ∂h'/∂a_z and ∂h'/∂a_n as blocks."""
        blocks, past = self.blocks[first:last], self.hidden[first:last]
        n = blocks[:, 2]
        local = self._local(last - first, 3)
        of_r, of_z, of_n = (local[:, k] for k in range(3))
        np.subtract(1.0, blocks[:, :2], out=local[:, :2])
        np.multiply(n, n, out=of_n)
        np.subtract(1.0, of_n, out=of_n)
        of_n *= of_z
        local[:, :2] *= blocks[:, :2]
        of_r *= past
        of_z *= np.subtract(past, n, out=self._local(last - first, 1, "through")[:, 0])
        return local


def _as_blocks(rows: Array, count: int) -> Array:
    """The blocks of (…, B, count · H), seen as (…, count, B, H)."""
    return rows.reshape(*rows.shape[:-1], count, rows.shape[-1] // count).swapaxes(-2, -3)


def _sigmoid_of_minus(a: Array, into: Array) -> None:
    """1/(1 + eᵃ); where eᵃ is +inf it is 0."""
    np.exp(a, out=into)
    np.add(into, 1.0, out=into)
    np.divide(1.0, into, out=into)


def _mix(n: Array, z: Array, past: Array, terms: Array, into: Array) -> None:
    """(1 − z) ⊙ n + z ⊙ h, as n + z ⊙ (h − n)."""
    np.subtract(past, n, out=terms)
    np.multiply(terms, z, out=terms)
    np.add(terms, n, out=into)


# -- as primitives --------------------------------------------------------------------------------------------------------------


def _forward(kind: type[_Run], *operands: Array, **statics: Any) -> tuple[tuple[Array, ...], _Run]:
    with _scratch:
        run = kind(*operands, **statics)
        return run.forward(), run


def _definition(recurrence: Recurrence, *operands: Any, lengths: Array | None, reverse: bool, watch: Watch | None = None) -> Any:
    return unroll(*operands, recurrence=recurrence, lengths=lengths, reverse=reverse)  # who looks inside needs no watch


def _joint_pullback(cotangent: Any, value: Any, run: _Run, needed: Sequence[bool], *operands: Array, **statics: Any) -> tuple[Any, ...]:
    with _scratch:
        return run.backward(cotangent, needed)


def _opaque(kind: type[_Run]) -> Opaque:
    return Opaque(
        partial(_forward, kind),
        name=kind.recurrence.name,
        definition=partial(_definition, kind.recurrence),
        joint_pullback=_joint_pullback,
        iterated=True,
    )


SEQUENCES = {kind.recurrence.name: _opaque(kind) for kind in (_Tanh, _Relu, _LSTM, _GRUAfter, _GRUBefore)}
"""The opaque primitive of every recurrence: ``(x, *state, W_ih, W_hh, *biases, lengths, reverse, watch)`` to outputs and final state."""
