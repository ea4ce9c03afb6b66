"""Telemetry for training: the state cotangents of a layer in every ordinary backward pass, from its kernel, without opening it."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Shown, Table, aligned, as_json, number, plain, power_of_ten
from .logs import log10, mean_log10, trend
from .product import half_life, verdict


@dataclass(frozen=True, eq=False)
class StateNorms(Result):
    """What one backward pass left of the gradient at every step of one recurrence.

    Only the norms are taken during the backward pass; what follows from them is computed when it is asked for.

    Attributes:
        update: which backward pass it was, from 1; ``layer`` its name, such as "lstm/l0".
        time: the steps, from the last state that the recurrence reached back to the one it began with (0, or T + 1 from the end).
        norm: ‖δ_t‖ at these steps, over the batch, δ_t = ∂L/∂s_t as it arrives from outside step t.
        handed: ‖what the step behind hands back‖ to these states: ``norm`` without what the outputs add there. Of the last state, what is
            handed to it from outside the sequence.
        dtype: of the layer, "float32" or the like, which decides how small a norm can be and keep its digits.
    """

    update: int
    layer: str
    time: Any
    norm: Any
    handed: Any
    dtype: str

    @property
    def handed_back(self) -> Any:
        """‖what a step hands back‖ / ‖δ before the step‖: the gain, without what the outputs add; entry 0 is NaN."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.concatenate([[np.nan], 10.0 ** (log10(self.handed[1:]) - log10(self.norm[:-1]))])

    @property
    def several(self) -> bool:
        """Whether the loss is read at several steps: whether the outputs add anything to a state before the last that has a gradient."""
        last = np.flatnonzero(self.norm)[:1]
        return bool(last.size and not np.array_equal(self.handed[last[0] + 1 :], self.norm[last[0] + 1 :], equal_nan=True))

    @property
    def gain(self) -> Any:
        """‖δ‖ at one step by ‖δ‖ at the step before in this order; entry 0 is NaN."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.concatenate([[np.nan], 10.0 ** np.diff(log10(self.norm))])

    @cached_property
    def rate(self) -> float:
        """The mean log₁₀ gain per step, from the last step that has a gradient as far back as its digits are all there.

        That is as far as it is not exactly 0, subnormal or out of range. NaN where the gradient is not finite. Where the loss is read at
        several steps, the mean log₁₀ of ``handed_back``.
        """
        if self.several and np.isfinite(self.norm).all():
            return mean_log10(self.handed_back[1:])
        return trend(self.norm, self.dtype)[0]

    @property
    def half_life(self) -> float:
        """Steps in which the norm halves at this rate; inf if it does not shrink."""
        return half_life(self.rate)

    @property
    def verdict(self) -> str:
        """The rate in words, or from which lag on the gradient is not finite."""
        if not math.isnan(self.rate):
            return verdict(self.rate)
        last = int(np.flatnonzero(self.norm)[0])
        return f"not finite from lag {int(np.flatnonzero(~np.isfinite(self.norm))[0]) - last} on"

    def to_dict(self) -> dict[str, Any]:
        """The fields and what follows from them, in types that JSON knows."""
        more = ("gain", "handed_back", "several", "rate", "half_life")
        return super().to_dict() | {name: plain(getattr(self, name)) for name in more}

    def line(self) -> str:
        """The row as one line of JSON: the steps' first and last, the norms to six digits, rate and half-life.

        Infinities are strings and NaN is null, as in :meth:`to_json`.
        """
        head = {"update": self.update, "layer": self.layer, "from": int(self.time[0]), "to": int(self.time[-1])}
        head |= {"rate": plain(self.rate), "half_life": plain(self.half_life)}
        finite = bool(np.isfinite(self.norm).all())
        norms = ", ".join(["%.6g"] * len(self.norm)) % tuple(self.norm.tolist()) if finite else as_json(plain(self.norm))[1:-1]
        return f'{as_json(head)[:-1]}, "norm": [{norms}]}}'

    def table(self) -> Table:
        """One row."""
        return _table([self], "state cotangents")

    def cells(self) -> tuple[Any, ...]:
        """The row of a table."""
        first = self.norm[np.flatnonzero(self.norm)[:1]]
        with np.errstate(invalid="ignore", over="ignore"):
            ratio = log10(self.norm[-1] / first[0]) if first.size else np.nan
        start = number(first[0] if first.size else 0.0)
        return self.layer, self.update, start, power_of_ten(ratio), self.verdict, number(self.half_life)


def _table(rows: list[StateNorms], title: str, caption: str = "") -> Table:
    columns = ("layer", "update", "‖δ_T‖", "‖δ₀‖/‖δ_T‖", "per step", "half-life")
    return aligned(columns, [row.cells() for row in rows], title, caption)


class _Lines:
    """Rows on their way to a file: written together, some hundred at once or once a second, since opening a file takes longer than a step.

    What cannot be written stays here, to be tried again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[StateNorms] = []
        self.written = time.monotonic()

    def add(self, row: StateNorms) -> None:
        self.waiting.append(row)
        if len(self.waiting) >= _TOGETHER or time.monotonic() - self.written >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            text = "".join([row.line() + "\n" for row in self.waiting])
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
            self.waiting.clear()
        self.written = time.monotonic()


_TOGETHER, _SECONDS = 256, 1.0


class Monitor(Shown):
    """A monitor at work; made by :func:`monitor`. Leaving its ``with`` block, or ``remove()``, ends it.

    Lines for a file are written once a second, and what is left at the end: by ``remove()``, when the ``with`` block is left, also by an
    exception, or when the program ends.

    Attributes:
        rows: the latest :class:`StateNorms`, at most 1,000.
    """

    def __init__(self, layer: Any, to: Callable[[StateNorms], Any] | str | os.PathLike[str] | None, every: int, name: str) -> None:
        self.rows: deque[StateNorms] = deque(maxlen=1000)
        self._lines = _Lines(Path(to)) if isinstance(to, (str, os.PathLike)) else None
        self._finish = weakref.finalize(self, self._lines.flush) if self._lines is not None else None
        self._tell: Callable[[StateNorms], Any] | None = self._lines.add if self._lines is not None else to  # type: ignore[assignment]
        self._every = every
        self._name = name
        self._several = layer.num_layers > 1 or layer.bidirectional
        self._dtype = str(next(iter(layer.parameters())).dtype)
        self._passes: dict[str, int] = {}
        self._handle = layer.register_state_hook(self._told)

    def _told(self, name: str, norms: Any, handed: Any) -> None:
        self._passes[name] = count = self._passes.get(name, 0) + 1
        if (count - 1) % self._every:
            return
        steps, backward = len(norms) - 1, name.endswith("reverse")
        times = np.arange(1, steps + 2) if backward else np.arange(steps, -1, -1)
        layer = f"{self._name}/{name}" if self._several else self._name
        norms, handed = (norms, handed) if backward else (norms[::-1], handed[::-1])
        row = StateNorms(count, layer, times, norms, handed, self._dtype)
        self.rows.append(row)
        if self._tell is not None:
            self._tell(row)

    def flush(self) -> None:
        """Write what is waiting for the file."""
        if self._lines is not None:
            self._lines.flush()

    def remove(self) -> None:
        """Stop listening, and write what is left; calling it twice is harmless."""
        self._handle.remove()
        self.flush()

    def table(self) -> Table:
        """The latest rows, ten at most."""
        left = len(self.rows) - 10
        caption = f"the latest of {len(self.rows)} rows" if left > 0 else "" if self.rows else "no backward pass yet"
        return _table(list(self.rows)[-10:], f"state cotangents of {self._name}", caption)

    def to_dict(self) -> dict[str, Any]:
        """The rows in types that JSON knows."""
        return {"layer": self._name, "rows": [row.to_dict() for row in self.rows]}

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def __repr__(self) -> str:
        latest = f", latest {self.rows[-1].layer}: {self.rows[-1].verdict}" if self.rows else ""
        return f"<monitor of {self._name}, {len(self.rows)} rows{latest}>"


def monitor(
    layer: Any, to: Callable[[StateNorms], Any] | str | os.PathLike[str] | None = None, *, every: int = 1, name: str | None = None
) -> Monitor:
    """Watch the norms ‖δ_t‖ of a recurrent layer's state cotangents while it trains.

    They are taken from the kernel's own backward pass: 2 to 8 % more time per training step of an LSTM or a GRU, 8 to 18 % of an RNN, the
    more the smaller it is (``tests/benchmarks/bench_monitor.py``). Where the loss is read at several steps, rate and half-life are of what
    each step hands back, as those of :func:`~.product.vanishing_product`: what the outputs add on the way would hide that a gradient
    vanishes. A pass that opens the kernel, such as a trace, tells nothing here and shows everything itself.

    Args:
        layer: an ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``; only its calls from now on are watched.
        to: where each row goes besides ``rows``: a file to which it is appended as a line of JSON (see :meth:`StateNorms.line`), or a
            function of a :class:`StateNorms` (which hands it to a dashboard, say); what it raises stops the backward pass. Lines are
            written once a second and at the end.
        every: of so many backward passes one is recorded.
        name: what the rows call the layer; its own name by default.

    Returns:
        A :class:`Monitor`; use it in a ``with`` statement, or call ``remove()`` at the end.

    Raises:
        ArgumentError: if the layer cannot be watched, ``every`` is not a whole number of at least 1, or ``to`` is neither a function nor
            the path of a file in a folder that exists.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import flow, nn
        >>> layer = nn.RNN(2, 8, init=0.5, rng=0)
        >>> with flow.monitor(layer) as watching:
        ...     outputs, _ = layer(np.zeros((20, 1, 2)))
        ...     outputs[-1].sum().backward()
        >>> row = watching.rows[-1]
        >>> row.layer, row.norm.shape, round(row.half_life, 1) < 2
        ('rnn', (21,), True)
    """
    if not hasattr(layer, "register_state_hook"):
        raise ArgumentError(f"monitor: expected an nn.RNN, nn.LSTM or nn.GRU, got {type(layer).__name__}. A cell has no kernel: trace it")
    if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
        raise ArgumentError(f"monitor: every must be a whole number of at least 1, got {every!r}")
    if isinstance(to, (str, os.PathLike)):
        path = Path(to)
        if path.is_dir() or not path.parent.is_dir():
            why = "a folder" if path.is_dir() else f"in a folder that does not exist: {str(path.parent)!r}"
            raise ArgumentError(
                f"monitor: expected to= to be a function or the path of a file in an existing folder, got {str(path)!r}, {why}"
            )
    elif to is not None and not callable(to):
        raise ArgumentError(f"monitor: expected to= to be a function or the path of a file in an existing folder, got {type(to).__name__}")
    return Monitor(layer, to, every, name or layer._label or type(layer).__name__.lower())
