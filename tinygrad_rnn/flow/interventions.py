"""Interventions, ready made: what would the gradient be if this multiplication were blocked, weaker, clipped, or another one?

Each is an object for ``loss.backward(interventions=[…])``. It asks its ``where`` about every edge, alters the contributions of those
that fit, and counts: ``seen`` edges fitted, ``engaged`` of them were altered. An intervention that has nothing to do (p = 0, a factor
of 1, a limit that is never reached) changes no bit of the gradient.

    block       the contribution becomes 0, with probability p, one draw per step (h-detach)
    scale       … is multiplied by a factor
    clip        … is shortened to a norm
    force_gate  the multiplication by a gate uses another value
    cut_time    nothing crosses from a step into the one before it (truncated backpropagation through time)

``where`` is any function of a :class:`~tinygrad_rnn.steps.BackwardStep`; :mod:`tinygrad_rnn.flow.edges` makes readable ones. The forward
pass is not touched, so what is altered is a gradient that no function has: it is a training method, or a question.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Shown, Table, aligned, number
from ..steps import BackwardStep, norm_of
from ..tensor import Tensor, as_tensor, lift, seed
from ..walk import Backward
from .edges import Edges, Predicate, crosses, crossing, described, edges, step_place


@dataclass(frozen=True, eq=False)
class Engagement(Result):
    """How often an intervention engaged.

    Attributes:
        intervention, where: what it does, and to which edges.
        seen, engaged: how many edges fitted, and how many contributions were altered.
        time: the steps of the sequence in which edges fitted, in order (an edge outside of all steps is in none).
        seen_at, engaged_at: the same counts for each of these steps.
    """

    intervention: str
    where: str
    seen: int
    engaged: int
    time: Any
    seen_at: Any
    engaged_at: Any

    def table(self) -> Table:
        """The counts per step; of many steps the first and the last."""
        rows = [(str(t), str(s), str(e)) for t, s, e in zip(self.time, self.seen_at, self.engaged_at, strict=True)]
        if len(rows) > 12:
            rows = [*rows[:5], ("…", "…", "…"), *rows[-5:]]
        return aligned(
            ("step", "seen", "engaged"), rows, f"{self.intervention}: engaged at {self.engaged} of {self.seen} edges", self.where
        )


class Intervention(Shown):
    """Alters the contributions of the edges that fit, and counts.

    One of your own: ``Intervention("double", where, lambda step: 2 * step.contribution)``.

    Args:
        name: what it does.
        where: a function of a BackwardStep.
        alter: a function of a BackwardStep that returns the new contribution, or None to leave it as it is.

    Attributes:
        seen: how many edges fitted, over all backward passes since it was made or :meth:`reset`.
        engaged: how many contributions were altered.

    Raises:
        ArgumentError: if ``where`` or ``alter`` cannot be called.
    """

    def __init__(self, name: str, where: Predicate, alter: Callable[[BackwardStep], Any]) -> None:
        for what, function in (("where", where), ("alter", alter)):
            if not callable(function):
                raise ArgumentError(
                    f"{name}: {what} must be a function of a BackwardStep, got {type(function).__name__}. flow.edges(…) makes one"
                )
        self.name = self.__qualname__ = name  # errors of a backward pass name it so
        self.where = where
        self._alter = alter
        self.reset()

    def reset(self) -> None:
        """Count from 0 again."""
        self.seen = self.engaged = 0
        self._seen_at: Counter[int] = Counter()
        self._engaged_at: Counter[int] = Counter()

    def __call__(self, step: BackwardStep) -> Any:
        if not self.where(step):
            return None
        altered = self._alter(step)
        self.seen += 1
        self.engaged += altered is not None
        if step.time is not None:
            self._seen_at[step.time] += 1
            self._engaged_at[step.time] += altered is not None
        return altered

    def report(self) -> Engagement:
        """The counts so far."""
        times = sorted(self._seen_at)
        return Engagement(
            intervention=self.name,
            where=described(self.where),
            seen=self.seen,
            engaged=self.engaged,
            time=np.array(times, dtype=int),
            seen_at=np.array([self._seen_at[t] for t in times], dtype=int),
            engaged_at=np.array([self._engaged_at[t] for t in times], dtype=int),
        )

    def table(self) -> Table:
        """The counts so far, per step."""
        return self.report().table()

    def __repr__(self) -> str:
        return f"<{self.name}: engaged at {self.engaged} of {self.seen} edges>"

    def to_dict(self) -> dict[str, Any]:
        """The counts so far, in types that JSON knows."""
        return self.report().to_dict()


# -- the five -----------------------------------------------------------------------------------------------------------------


def block(where: Predicate, p: float = 1.0, rng: np.random.Generator | int | None = None) -> Intervention:
    """Block the contributions with probability p: one draw per step of the recurrence, for all its edges and the whole batch.

    ``block(flow.recurrent(), p=0.25, rng=0)`` is h-detach: the LSTM's gradient then reaches the past along its cell alone at a quarter
    of the steps. Edges outside of all steps are drawn one by one. Nothing is divided by 1 − p: the gradient's mean changes.

    Args:
        where: which edges.
        p: the probability, 0 to 1.
        rng: a Generator, or a seed: the same seed gives the same draws. It goes on from one backward pass to the next.

    Raises:
        ArgumentError: if p is not a probability.

    Source:
        Kanuparthi et al. 2018, "h-detach: Modifying the LSTM gradient towards better optimization".

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((20, 1, 2)))
        >>> detach = flow.block(flow.recurrent(), p=0.25, rng=0)
        >>> outputs[-1].sum().backward(interventions=[detach])
        >>> detach.seen, detach.engaged
        (19, 5)
    """
    if isinstance(p, bool) or not isinstance(p, (int, float, np.number)) or not 0 <= p <= 1:
        raise ArgumentError(f"block: p must be a probability, a number from 0 to 1, got {p!r}")
    draws = _Draws(float(p), rng)
    name = "block" if p == 1 else f"block with p = {p:g}"
    return Intervention(name, where, lambda step: _zeros(step.contribution) if draws.hits(step) else None)


class _Draws:
    """One draw per step of a recurrence and backward pass.

    The edges of a step come one soon after the other, so a few steps are enough to remember. An edge that comes a second time belongs to
    another pass over the same graph.
    """

    def __init__(self, p: float, rng: np.random.Generator | int | None) -> None:
        if rng is not None and not isinstance(rng, np.random.Generator) and (not isinstance(rng, (int, np.integer)) or rng < 0):
            raise ArgumentError(f"block: rng must be a numpy.random.Generator, a seed of at least 0, or None, got {rng!r}")
        self.p = p
        self.random = np.random.default_rng(rng)
        self.latest: OrderedDict[Any, tuple[bool, set[tuple[int, int]]]] = OrderedDict()

    def hits(self, step: BackwardStep) -> bool:
        if self.p in (0.0, 1.0):
            return self.p == 1.0
        place = step_place(step.node.place)
        if place is None:
            return bool(self.random.random() < self.p)
        edge = step.node.order, step.position
        drawn, edges = self.latest.get(place, (False, {edge}))
        if edge in edges:
            drawn, edges = bool(self.random.random() < self.p), set()
            self.latest[place] = drawn, edges
            self.latest.move_to_end(place)
            if len(self.latest) > 16:
                self.latest.popitem(last=False)
        edges.add(edge)
        return drawn


def scale(where: Predicate, factor: float) -> Intervention:
    """Multiply the contributions by a factor: 0 blocks them, −1 turns them round.

    Raises:
        ArgumentError: if the factor is not a finite number.

    Example:
        >>> import tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
        >>> (x * x).sum().backward(interventions=[flow.scale(flow.edges(op="multiply"), 0.5)])
        >>> x.grad.value
        array([1., 2.])
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float, np.number)) or not math.isfinite(factor):
        raise ArgumentError(f"scale: factor must be a finite number, got {factor!r}")
    by = float(factor)
    return Intervention(f"scale by {by:g}", where, lambda step: None if by == 1.0 else step.contribution * by)


def clip(where: Predicate, max_norm: float) -> Intervention:
    """Shorten each contribution to a norm: k ↦ k · min(1, max_norm/‖k‖), the Frobenius norm over the whole batch.

    A contribution that is not finite is left as it is, so that it can be found. In a pass with ``create_graph`` the factor counts as a
    constant.

    Raises:
        ArgumentError: if max_norm is not a number of at least 0.

    Source:
        Pascanu, Mikolov & Bengio 2013, section 3.2, there of the whole gradient.

    Example:
        >>> import tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow
        >>> x = tg.tensor([3.0, 4.0], requires_grad=True)
        >>> (x * x).sum().backward(interventions=[limit := flow.clip(flow.edges(op="multiply"), 1.0)])
        >>> x.grad.value, limit.engaged
        (array([1.2, 1.6]), 2)
    """
    if isinstance(max_norm, bool) or not isinstance(max_norm, (int, float, np.number)) or not max_norm >= 0:
        raise ArgumentError(f"clip: max_norm must be a number of at least 0, got {max_norm!r}")
    limit = float(max_norm)

    def shortened(step: BackwardStep) -> Any:
        norm = norm_of(step.contribution)
        return step.contribution * (limit / norm) if limit < norm < math.inf else None

    return Intervention(f"clip to {limit:g}", where, shortened)


def force_gate(gate: str, value: Any, where: Predicate | None = None) -> Intervention:
    """The backward multiplications by a gate use this value instead: g ⊙ f becomes g ⊙ value. The forward pass keeps its own.

    Forced is the gate as a factor. Its own gradient, through its sigmoid, stays: block that with ``edges(role="gate", gate=…)``. In the GRU
    the new content is multiplied by 1 − z, so forcing z to v forces that factor to 1 − v.

    Args:
        gate: "input", "forget", "candidate", "output"; "reset", "update"; or what a cell of your own calls it.
        value: a number or an array that broadcasts to the gate's (…, H); the backward pass refuses another.
        where: a further condition, such as ``flow.edges(time=7)``.

    Raises:
        ArgumentError: if the gate is no name or the value is not made of numbers.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((20, 1, 2)))
        >>> keep = flow.force_gate("forget", 1.0)
        >>> print(flow.compare(outputs[-1].sum(), keep).engagement[0].engaged)
        19
    """
    if not isinstance(gate, str):
        raise ArgumentError(f"force_gate: gate must be a name such as 'forget', got {gate!r}")
    if where is not None and not callable(where):
        raise ArgumentError(f"force_gate: where must be a function of a BackwardStep, got {type(where).__name__}")
    forced = np.array(getattr(value, "value", value))
    if forced.dtype.kind not in "fiub":
        raise ArgumentError(f"force_gate: value must be a number or an array of numbers, got dtype {forced.dtype}")
    by = Edges(lambda step: _role_of_factor(step, gate) is not None, f"⊙ the {gate} gate")

    def multiplied(step: BackwardStep) -> Any:
        factor = forced if _role_of_factor(step, gate) == "gate" else 1.0 - forced
        try:
            fits = np.broadcast_shapes(forced.shape, step.cotangent.shape) == step.cotangent.shape
        except ValueError:
            fits = False
        if not fits:
            raise ArgumentError(
                f"force_gate: value has shape {forced.shape}; the {gate} gate has {step.cotangent.shape} at {step.label}. Give "
                "a number, or an array that broadcasts to it"
            )
        return step.cotangent * factor.astype(step.cotangent.dtype)

    name = f"{gate} gate forced" + (f" to {forced.item():g}" if forced.size == 1 else "")
    return Intervention(name, by if where is None else by & where, multiplied)


def _role_of_factor(step: BackwardStep, gate: str) -> str | None:
    """Whether an edge multiplies by a gate ("gate"), by one minus it ("complement"), or by something else (None)."""
    if step.kind != "scale" or step.op != "multiply":
        return None
    factor = step.node.operands[1 - step.position]
    if factor.gate != gate:
        return None
    if factor.role == "gate":
        return "gate"
    return "complement" if factor.role is None and factor.op == "subtract" else None


def cut_time(*, every: int | None = None, at: int | Collection[int] | None = None, layer: Any = None) -> Intervention:
    """Truncated backpropagation through time: at the chosen steps nothing crosses into the step before.

    The gradient is the one that ``state.detach()`` between these steps gives.

    Args:
        every: cut the sequence into pieces of this many steps: 1 … k, k + 1 … 2k, …. The state before step 1 stays connected; that of a
            sweep that reads from the end lies behind step T, and is cut off if k divides T.
        at: or the steps t at which nothing goes from t to t − 1. (A sweep that reads from the end goes from t to t + 1.)
        layer: a module or its path; None cuts every recurrence.

    Raises:
        ArgumentError: unless exactly one of ``every`` and ``at`` is given, as whole numbers of at least 1.

    Source:
        Williams & Peng 1990; Werbos 1990.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((20, 1, 2)))
        >>> cut = flow.cut_time(every=5)
        >>> outputs[-1].sum().backward(interventions=[cut])
        >>> cut.report().time
        array([ 6, 11, 16])
    """
    if (every is None) == (at is None):
        raise ArgumentError("cut_time: expected either every= or at=, " + ("got neither" if every is None else "got both"))
    times: list[Any] = [every] if every is not None else list(at) if isinstance(at, Collection) else [at]
    for time in times:
        if isinstance(time, bool) or not isinstance(time, (int, np.integer)) or time < 1:
            raise ArgumentError(f"cut_time: {'every' if at is None else 'at'} must be whole numbers of at least 1, got {time!r}")
    chosen = frozenset(times)

    def cuts(step: BackwardStep) -> bool:
        if not crosses(step):
            return False
        assert step.time is not None and step.operand.time is not None
        if every is None:
            return step.time in chosen
        border = min(step.time, step.operand.time)
        return border > 0 and border % every == 0

    where = Edges(cuts, f"{crossing().text} at {'the borders of pieces' if at is None else f'step {sorted(chosen)}'}")
    name = (
        ("cut every step" if every == 1 else f"cut every {every} steps")
        if at is None
        else "cut at step " + ", ".join(map(str, sorted(chosen)))
    )
    return Intervention(name, where if layer is None else where & edges(layer=layer), lambda step: _zeros(step.contribution))


def _zeros(contribution: Any) -> Any:
    """Zeros of the same shape, of the same kind: an array, or a Tensor in a recorded pass. Also where the contribution is not finite."""
    zeros = np.zeros(contribution.shape, contribution.dtype)
    return as_tensor(zeros) if isinstance(contribution, Tensor) else zeros


# -- with and without ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """The gradient of every leaf with and without interventions.

    Attributes:
        leaf: the leaves' names, in the order in which they were made.
        without, altered: the gradients, one array per leaf.
        norm_without, norm_altered: their Frobenius norms.
        ratio: norm_altered / norm_without; NaN where both are 0.
        cosine: of the angle between the two; NaN where one of them is 0.
        engagement: of each intervention, how often it engaged.
    """

    leaf: tuple[str, ...]
    without: tuple[Any, ...]
    altered: tuple[Any, ...]
    norm_without: Any
    norm_altered: Any
    ratio: Any
    cosine: Any
    engagement: tuple[Engagement, ...]

    def table(self) -> Table:
        """One row per leaf."""
        numbers = zip(self.leaf, self.norm_without, self.norm_altered, self.ratio, self.cosine, strict=True)
        rows = [(name, *(number(float(value), 4) for value in values)) for name, *values in numbers]
        said = [
            f"{e.intervention}: {e.engaged} of {e.seen} edges"
            if e.seen
            else f"{e.intervention}: no edge fits {e.where}; is it named rightly?"
            for e in self.engagement
        ]
        done = "; ".join(said) or "no intervention"
        return aligned(("leaf", "‖g‖ without", "‖g‖ with", "ratio", "cosine"), rows, "gradient without and with interventions", done)


def compare(loss: Tensor, *interventions: Callable[[BackwardStep], Any], cotangent: Any = None) -> Comparison:
    """The gradient of every leaf without and with interventions, side by side. Two backward passes; no ``.grad`` is touched.

    Args:
        loss: a scalar, unless a ``cotangent`` of its shape is given.
        interventions: applied together, in this order. Their counts begin at 0 and are of this pass.

    Raises:
        GraphError: if there is no graph.
        ArgumentError: for something that is no intervention.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> outputs, _ = nn.RNN(2, 3, rng=0)(np.ones((6, 1, 2)))
        >>> print(flow.compare(outputs[-1].sum(), flow.cut_time(every=1)))
        gradient without and with interventions
        leaf  ‖g‖ without  ‖g‖ with   ratio  cosine
        ───────────────────────────────────────────
        W_ih        1.086     0.895  0.8244  0.9983
        W_hh         1.11    0.9154  0.8249  0.9983
        b          0.7676    0.6328  0.8244  0.9983
        cut every step: 5 of 5 edges
    """
    for intervention in interventions:
        if not callable(intervention) or isinstance(intervention, Edges):
            selects = isinstance(intervention, Edges)
            got = f"{intervention!r}, which selects edges and alters none" if selects else type(intervention).__name__
            raise ArgumentError(f"compare: expected interventions such as flow.block(flow.recurrent()), got {got}")
    counted = [intervention for intervention in interventions if isinstance(intervention, Intervention)]
    for intervention in counted:
        intervention.reset()
    plain, altered = _gradients(loss, cotangent, ()), _gradients(loss, cotangent, interventions)
    leaves = sorted(plain, key=lambda leaf: leaf.order)
    pairs = [(plain[leaf], altered.get(leaf, np.zeros_like(plain[leaf]))) for leaf in leaves]
    norms = np.array([[norm_of(a), norm_of(b)] for a, b in pairs]).reshape(-1, 2)
    with np.errstate(all="ignore"):
        ratio = norms[:, 1] / norms[:, 0]
        cosine = np.array([_cosine(a, b, *pair) for (a, b), pair in zip(pairs, norms, strict=True)])
    return Comparison(
        leaf=_distinct([leaf.name or f"leaf {leaf.value.shape}" for leaf in leaves]),
        without=tuple(a for a, _ in pairs),
        altered=tuple(b for _, b in pairs),
        norm_without=norms[:, 0],
        norm_altered=norms[:, 1],
        ratio=ratio,
        cosine=cosine,
        engagement=tuple(intervention.report() for intervention in counted),
    )


def _gradients(loss: Tensor, cotangent: Any, interventions: tuple[Any, ...]) -> dict[Any, Any]:
    """The gradient of every leaf, from a pass that opens layers whether or not anyone intervenes."""
    walk = Backward([seed(loss, cotangent, "compare")], lift=lift, interventions=interventions)
    walk.opens = True
    found = {leaf: np.asarray(gradient) for leaf, gradient in walk.run().items()}
    for gradient in found.values():
        gradient.flags.writeable = False
    return found


def _cosine(a: Any, b: Any, norm_a: float, norm_b: float) -> float:
    if not norm_a or not norm_b:
        return math.nan
    return float(np.clip(np.sum((a / norm_a) * (b / norm_b)), -1.0, 1.0))


def _distinct(names: list[str]) -> tuple[str, ...]:
    """The names, those that occur twice numbered."""
    count: Counter[str] = Counter()
    told = []
    for name in names:
        count[name] += 1
        told.append(name if count[name] == 1 else f"{name}#{count[name]}")
    return tuple(told)
