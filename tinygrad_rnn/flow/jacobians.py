"""Step Jacobians: what one step of a recurrence multiplies a state cotangent by, read off the maps that a trace kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..linear_maps import Identity, LinearMap, Mask, MatMul, Place, Scale, Scatter
from ..report import Result, Table, aligned, as_json, number, plain, power_of_ten, read_only
from ..steps import BackwardStep
from ..tensor import Tensor
from ..trace import Trace
from .given import traced
from .logs import log10
from .product import selected_lags
from .stacks import Slab, Stack, carry
from .stretches import ROLES, Forms, Stretch, alike, columns, gapless, joined, stretches

_ENTRIES = 1 << 17  # how many numbers of a matrix are worked on at a time: what fits into a core's cache


@dataclass(frozen=True, eq=False)
class StepJacobians(Result):
    """The Jacobians J_t = ∂s_t/∂s_{t−1} of one recurrence, for every step and sequence, and what follows from them.

    Arrays have one entry per step first, in the order in which the recurrence ran, and one per sequence of the batch second (B = 1
    where there is no batch). Rows are outputs, columns inputs; s = h, or [h; c] for the LSTM, so S = H or 2H.

    Attributes:
        layer: the recurrence's path.
        parts: what the state consists of, in order: ("hidden",) or ("hidden", "cell").
        time: the step t of each Jacobian; its input is the state of the step before, in the order of the recurrence.
        jacobian: (steps, B, S, S).

    What follows is computed when it is asked for.
    """

    layer: str
    parts: tuple[str, ...]
    time: Any
    jacobian: Any

    @cached_property
    def singular_values(self) -> Any:
        """Of every J_t, largest first: (steps, B, S)."""
        return read_only(np.linalg.svd(self._double, compute_uv=False))

    @cached_property
    def spectral_radius(self) -> Any:
        """The largest ∣eigenvalue∣ of every J_t: (steps, B). It decides the limit of a power, not what one step does."""
        return read_only(np.max(np.abs(np.linalg.eigvals(self._double)), axis=-1, initial=0.0))

    @property
    def condition(self) -> Any:
        """σ_max/σ_min of every J_t: (steps, B); inf where a direction is lost for good, NaN where J_t = 0."""
        largest, smallest = self.singular_values[..., 0], self.singular_values[..., -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return largest / smallest

    @cached_property
    def log10_product(self) -> Any:
        """log₁₀ ‖J_T ⋯ J_t‖₂ for every step t: (steps, B). Exact: the product is rescaled as it goes, so 10⁻⁴⁰⁰ is a number."""
        return read_only(self._log10_products(range(len(self.time))))

    def _log10_products(self, places: Sequence[int]) -> Any:
        """The same for some of the steps."""
        jacobian = self._double
        product = np.broadcast_to(np.eye(jacobian.shape[-1]), jacobian.shape[1:])
        exponent = np.zeros(jacobian.shape[1])
        logs = dict.fromkeys(places, exponent)
        for k in reversed(range(len(jacobian))):
            product = product @ jacobian[k]
            largest = np.max(np.abs(product), axis=(-2, -1), initial=0.0)
            product = product / np.where(largest > 0, largest, 1.0)[:, None, None]
            exponent = exponent + log10(largest)
            if k in logs:
                logs[k] = exponent + np.where(largest > 0, log10(np.linalg.norm(product, 2, axis=(-2, -1))), 0.0)
        return np.array(list(logs.values()))

    @property
    def log10_product_of_norms(self) -> Any:
        """log₁₀ of ‖J_T‖₂ ⋯ ‖J_t‖₂ for every step t: (steps, B). The norm of the product is at most this."""
        return np.cumsum(log10(self.singular_values[::-1, :, 0]), axis=0)[::-1]

    @cached_property
    def lyapunov_exponents(self) -> Any:
        """The mean ln of the growth per step along S directions, fastest first: (B, S), by repeated QR; −inf where all is lost.

        The first is what the product's norm tends to per step; negative, the recurrence forgets; positive, it is chaotic.
        """
        jacobian = self._double
        frame = np.broadcast_to(np.eye(jacobian.shape[-1]), jacobian.shape[1:])
        total = np.zeros(jacobian.shape[1:3])
        with np.errstate(divide="ignore"):
            for one in jacobian:
                frame, triangle = np.linalg.qr(one @ frame)
                total += np.log(np.abs(np.diagonal(triangle, axis1=-2, axis2=-1)))
        return read_only(-np.sort(-total / max(len(jacobian), 1), axis=-1))

    @property
    def _double(self) -> Any:
        infinite = ~np.isfinite(self.jacobian).all(axis=(1, 2, 3))
        if infinite.any():
            raise ArgumentError(
                f"step_jacobians: expected finite Jacobians, got infinities or NaN at step {self.time[infinite.argmax()]} and "
                f"{infinite.sum() - 1} others; they have no spectra. tg.detect_anomaly() finds where they begin"
            )
        return self.jacobian.astype(np.float64, copy=False)

    def table(self) -> Table:
        """Selected lags, counted from the last step; for a batch, the largest over its sequences."""
        columns = ("lag", "step", "σ_max", "σ_min", "∣λ∣_max", "condition", "‖∏ J‖", "∏ ‖J‖")
        title = f"{self.layer}: {len(self.time)} step Jacobians of size {self.jacobian.shape[-1]}"
        if not self.jacobian.shape[1]:
            return aligned(columns, [], title, "the batch has no sequences")
        lags = selected_lags(len(self.time) - 1)
        places = [len(self.time) - 1 - lag for lag in lags]
        chosen = StepJacobians(self.layer, self.parts, self.time[places], self.jacobian[places])  # eigenvalues of these alone
        values = self.singular_values[places]
        several = (values[..., 0], values[..., -1], chosen.spectral_radius, chosen.condition)
        logs = self._log10_products(places), self.log10_product_of_norms[places]
        rows = []
        for k, lag in enumerate(lags):
            numbers = [number(float(np.max(one[k]))) for one in several] + [power_of_ten(float(np.max(log[k]))) for log in logs]
            rows.append((lag + 1, self.time[places[k]], *numbers))
        first = float(np.max(self.lyapunov_exponents))
        return aligned(columns, rows, title, f"largest Lyapunov exponent {number(first)} per step")

    def to_dict(self, *, jacobian: bool = False) -> dict[str, Any]:
        """The times and all that follows from the Jacobians, in types that JSON knows; the Jacobians themselves only if asked for.

        They are steps · B · S² numbers: 1,000 steps of an LSTM with 64 units would be 200 MB of text.
        """
        more = ("singular_values", "spectral_radius", "condition", "log10_product", "log10_product_of_norms", "lyapunov_exponents")
        named = ("layer", "parts", "time", *more, *(("jacobian",) if jacobian else ()))
        return {name: plain(getattr(self, name)) for name in named}

    def to_json(self, *, jacobian: bool = False) -> str:
        """The same as JSON text; infinities are strings and NaN is null, since JSON has neither."""
        return as_json(self.to_dict(jacobian=jacobian))


def step_jacobians(trace: Trace | Tensor, layer: Any = None) -> StepJacobians:
    """The Jacobian of every step of a recurrence, for every sequence of the batch, from the maps of the ledger alone.

        J_t = ∂s_t/∂s_{t−1} = Σ over the paths from s_t to s_{t−1} of the product of their maps

    If the loss reads only the last state, δ_t = J_{t+1}ᵀ ⋯ J_Tᵀ δ_T with the state cotangents δ_t = ``states[t].cotangent``. The idle
    steps of a padded sequence have the identity. A recurrence that read the sequence from its end has its steps in the order T, …, 1.
    Every path between the two states counts, also one that leaves the cell (an output fed back as the next input). One sequence of
    a batch must not act on another.

    Args:
        trace: with keep="arrays", or a loss, which is traced. Steps are there as far as a gradient came by: take a loss that reads the
            last state.
        layer: the recurrence's path or module; None if there is only one.

    Returns:
        :class:`StepJacobians`. The Jacobians take steps · B · S² numbers.

    Raises:
        ArgumentError: if no such recurrence was traced, it has only one step, its states have several shapes, a step in the middle has
            none, or the trace has only norms.

    Source:
        Pascanu, Mikolov & Bengio 2013; Chen, Pennington & Schoenholz 2018 (their singular values); Benettin et al. 1980 (the exponents).

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((20, 1, 2)))
        >>> ledger = tg.trace(outputs[-1].sum())
        >>> found = flow.step_jacobians(ledger)
        >>> found.jacobian.shape
        (19, 1, 6, 6)
        >>> states = ledger.states()
        >>> bool(np.allclose(states[20].cotangent[0] @ found.jacobian[-1, 0], states[19].cotangent[0]))
        True
    """
    trace = traced("step_jacobians", trace, arrays=True)
    states = gapless("step_jacobians", trace.states(layer))
    roles = tuple(role for role in ROLES if any(getattr(at, role) is not None for at in states))
    found = [stretch for stretch in stretches(trace.steps, states) if len(stretch.starts) == len(stretch.ends) == len(roles) > 0]
    if not found:
        raise ArgumentError(
            f"step_jacobians: {states.path!r} has no two steps with {' and '.join(roles) or 'a state'}; expected at least two. Trace a "
            "loss that reads its last state"
        )
    shapes = sorted({part.node.shape for stretch in found for part in (*stretch.here.parts, *stretch.past.parts)})
    if len(shapes) > 1:
        raise ArgumentError(
            f"step_jacobians: expected states of one shape, (B, H), got {' and '.join(map(str, shapes))} in {states.path!r}. Mark only "
            "parts of one shape with tg.landmark"
        )
    shape = shapes[0]
    batch, size = math.prod(shape[:-1]), shape[-1]
    jacobian = np.empty((len(found), *shape[:-1], len(roles) * size, len(roles) * size), found[0].here.parts[0].node.dtype)
    with np.errstate(all="ignore"):
        for run in alike(found, max(1, _ENTRIES // max(1, batch * size * jacobian.shape[-1]))):
            some, into = [found[k] for k in run], jacobian[run[0] : run[-1] + 1]
            if Forms().of(some[0]) is None:
                _differentiate_anything(some[0], into[0])
            else:
                _differentiate(some, into)
    return StepJacobians(
        layer=states.path,
        parts=roles,
        time=np.array([stretch.here.time for stretch in found]),
        jacobian=jacobian.reshape(len(found), batch, *jacobian.shape[-2:]),
    )


# -- from a state to the one before it ----------------------------------------------------------------------------------------


def _differentiate(run: Sequence[Stretch], into: Any) -> None:
    """Pull the basis of the state back through one stretch, or through several that are alike, with the steps as one more batch axis."""
    model = run[0]
    many = len(run) > 1
    shape = into.shape[:-2] if many else into.shape[1:-2]
    size = into.shape[-1] // len(model.starts)
    result = into if many else into[0]
    held = {order: _Rows(size, result[..., k * size : (k + 1) * size]) for k, order in enumerate(model.ends.values())}
    for k, order in enumerate(model.starts.values()):
        held.setdefault(order, _Rows(size)).add(k * size, 0, np.ones((*shape, size), into.dtype))
    for place, step in enumerate(model.path):
        linear_map, operand = joined(run, place) if many else step.map, step.operand
        assert linear_map is not None
        target = held.get(operand.order)
        if target is None:
            target = held[operand.order] = _Rows(operand.shape[-1])
        _pull_rows(linear_map, held[step.node.order], target, step, (*shape, into.shape[-1]))
    for order in model.ends.values():
        held[order].settle()


def _differentiate_anything(stretch: Stretch, into: Any) -> None:
    """The same by a stack with one cotangent per row of the basis."""
    rows, shape = into.shape[-1], into.shape[:-2]
    size = rows // len(stretch.starts)
    basis = np.eye(rows, dtype=into.dtype).reshape(rows, *(1,) * len(shape), len(stretch.starts), size)
    seeds: dict[int, Stack] = {}
    for k, order in enumerate(stretch.starts.values()):
        part = np.broadcast_to(basis[..., k, :], (rows, *shape, size))
        seeds.setdefault(order, Stack((*shape, size))).add(None, Slab(0, part))
    arrived = carry(stretch.path, seeds, stretch.ends.values())
    into[...] = 0.0
    for k, order in enumerate(stretch.ends.values()):
        if order in arrived:
            into[..., k * size : (k + 1) * size] = np.moveaxis(arrived[order].array(rows), 0, -2)


class _Rows:
    """∂s/∂v for one value v of width W: as diagonals, while only elementwise operations stand between, and as a matrix (…, S, W).

    A diagonal at (row, column, n) with entries d (…, n) says ∂s[row + i]/∂v[column + i] = d[i].
    """

    __slots__ = ("dense", "diagonals", "own", "room", "width")

    def __init__(self, width: int, room: Any = None) -> None:
        self.width = width
        self.room = room  # where the matrix is to be in the end, if it is wanted
        self.diagonals: dict[tuple[int, int, int], Any] = {}
        self.dense: Any = None
        self.own = False

    def add(self, row: int, column: int, entries: Any) -> None:
        place = row, column, entries.shape[-1]
        held = self.diagonals.get(place)
        self.diagonals[place] = entries if held is None else held + entries

    def add_dense(self, matrix: Any, *, own: bool) -> None:
        if self.dense is None:
            self.dense, self.own = matrix, own
        elif self.own:
            self.dense += matrix
        else:
            self.dense, self.own = self.dense + matrix, True

    def settle(self) -> None:
        """Bring everything to where it is wanted."""
        if self.dense is not self.room:
            self.room[...] = 0.0 if self.dense is None else self.dense
        for (row, column, size), entries in self.diagonals.items():
            steps = np.arange(size)
            self.room[..., row + steps, column + steps] += entries


def _pull_rows(linear_map: LinearMap, source: _Rows, target: _Rows, step: BackwardStep, shape: tuple[int, ...]) -> None:
    """Add to the operand's rows what goes over one edge of those that :class:`~.stretches.Forms` lets pass; ``shape`` is (…, S)."""
    if isinstance(linear_map, Identity):
        for (row, column, _), entries in source.diagonals.items():
            target.add(row, column, entries)
        if source.dense is not None:
            target.add_dense(source.dense, own=False)
    elif isinstance(linear_map, Scale):
        factor, masks = linear_map.factor, isinstance(linear_map, Mask)
        for (row, column, size), entries in source.diagonals.items():
            part = factor[..., column : column + size] if np.ndim(factor) and factor.shape[-1] > 1 else factor
            target.add(row, column, np.where(part, entries, 0.0) if masks else entries * part)
        if source.dense is not None:
            spread = factor[..., None, :] if np.ndim(factor) else factor
            target.add_dense(np.where(spread, source.dense, 0.0) if masks else source.dense * spread, own=True)
    elif isinstance(linear_map, MatMul):
        target.add_dense(_through_matrix(source, linear_map.matrix.T, shape, target.room if target.dense is None else None), own=True)
    elif isinstance(linear_map, Scatter):
        room = columns(linear_map.key, step.operand.shape)
        assert room is not None
        for (row, column, _), entries in source.diagonals.items():
            target.add(row, column + room[0], entries)
        if source.dense is not None:
            placed = np.zeros((*shape, target.width), source.dense.dtype)
            placed[..., room[0] : room[1]] = source.dense
            target.add_dense(placed, own=True)
    else:
        assert isinstance(linear_map, Place)
        picked = columns(linear_map.key, step.node.shape)
        assert picked is not None
        first, stop = picked
        for (row, column, size), entries in source.diagonals.items():
            start, end = max(column, first), min(column + size, stop)
            if start < end:
                target.add(row + start - column, start - first, entries[..., start - column : end - column])
        if source.dense is not None:
            target.add_dense(source.dense[..., first:stop], own=False)


def _through_matrix(source: _Rows, matrix: Any, shape: tuple[int, ...], room: Any) -> Any:
    """The rows times a matrix, in the room for it if there is some. Diagonals cost one product per entry of the result and no sum."""
    product = np.empty((*shape, matrix.shape[-1]), matrix.dtype) if room is None else room
    rows = {(row, size) for row, _, size in source.diagonals}
    fresh: set[tuple[int, int]] = set()
    if source.dense is not None:
        flat = source.dense.reshape(-1, source.dense.shape[-1]) @ matrix
        product[...] = flat.reshape(product.shape)
    elif sum(size for _, size in rows) == shape[-1] and len({row for row, _ in rows}) == len(rows):
        fresh = rows  # every row once: the first term is written, not added
    else:
        product[...] = 0.0
    for (row, column, size), entries in source.diagonals.items():
        into = product[..., row : row + size, :]
        if (row, size) in fresh:
            fresh.remove((row, size))
            np.multiply(entries[..., None], matrix[column : column + size], out=into)
        else:
            into += entries[..., None] * matrix[column : column + size]
    return product
