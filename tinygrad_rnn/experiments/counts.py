"""What can be counted: parameters (row 16 of the curriculum), and the multiplications between two tokens (row 20)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..errors import ArgumentError
from ..flow.logs import log10
from ..nn.init import generator
from ..render.charts import Chart, series
from ..report import Table, aligned, power_of_ten
from ..steps import BackwardStep, NodeInfo, norm_of
from ..tensor import tensor
from ..trace import Trace, trace
from ..transforms import grad
from .measurement import Claim, Measurement, experiment, holds

# -- 16: parameters -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ParameterCount(Measurement):
    """How many numbers each cell learns.

    Attributes:
        cell: the names.
        parameters: counted in the cells themselves.
        formula: G · (H · (I + H) + H) and what comes on top of it, as a text and as a number.
    """

    cell: tuple[str, ...]
    parameters: Any
    formula: tuple[str, ...]
    expected: Any

    def table(self) -> Table:
        """One row per cell."""
        rows = [(c, f"{n:,}", f, f"{e:,}") for c, n, f, e in zip(self.cell, self.parameters, self.formula, self.expected, strict=True)]
        return aligned(("cell", "counted", "formula", "gives"), rows, "parameters", f"the GRU has {1 - self.ratio:.1%} fewer than the LSTM")

    @property
    def ratio(self) -> float:
        """The GRU's count, as the lecture writes it, over the LSTM's."""
        counted = dict(zip(self.cell, self.parameters, strict=True))
        return float(counted["GRU, reset before"] / counted["LSTM"])

    def claims(self) -> tuple[Claim, ...]:
        """The lecture's two numbers, exactly, where the sizes are its own; and a quarter fewer, to the last digit."""
        counted = dict(zip(self.cell, map(int, self.parameters), strict=True))
        found = [holds("GRU against LSTM", "about 25 % fewer", f"{1 - self.ratio:.2%} fewer", abs(self.ratio - 0.75) < 0.01, "24 to 26 %")]
        if (self.settings.get("inputs"), self.settings.get("hidden")) == (256, 512):
            published = (("LSTM", 1_574_912), ("GRU, reset before", 1_181_184))
            found += [holds(name, f"{n:,}", f"{counted[name]:,}", counted[name] == n, "the same number") for name, n in published]
        return tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """The counts."""
        return (Chart("bars", "Parameters", "", "numbers learned", (series("counted", self.cell, self.parameters),)),)


@experiment
def parameter_count(*, inputs: int = 256, hidden: int = 512) -> ParameterCount:
    """Claim (row 16): with I = 256 and H = 512 an LSTM cell has 4(512·768 + 512) = 1,574,912 parameters, a GRU cell 1,181,184: 25 % fewer.

    Every cell is made and its parameters are counted. The GRU with reset="after" has the bias b_hn on top, H numbers; PyTorch's second
    bias vector adds G·H, which changes no function that can be learned.

    Args:
        inputs, hidden: I and H.

    Example:
        >>> import tinygrad_rnn as tg
        >>> print(tg.experiments.parameter_count())
        parameters
        cell                 counted                            formula      gives
        ──────────────────────────────────────────────────────────────────────────
        RNN                  393,728                 1(512 · 768 + 512)    393,728
        LSTM               1,574,912                 4(512 · 768 + 512)  1,574,912
        GRU, reset before  1,181,184                 3(512 · 768 + 512)  1,181,184
        GRU, reset after   1,181,696  3(512 · 768 + 512) + 512 for b_hn  1,181,696
        the GRU has 25.0% fewer than the LSTM
    """
    block = hidden * (inputs + hidden) + hidden
    made: tuple[tuple[str, Any, int, int], ...] = (
        ("RNN", nn.RNNCell(inputs, hidden, rng=0), 1, 0),
        ("LSTM", nn.LSTMCell(inputs, hidden, rng=0), 4, 0),
        ("GRU, reset before", nn.GRUCell(inputs, hidden, reset="before", rng=0), 3, 0),
        ("GRU, reset after", nn.GRUCell(inputs, hidden, rng=0), 3, hidden),
    )
    sizes = f"({hidden} · {inputs + hidden} + {hidden})"
    return ParameterCount(
        cell=tuple(name for name, *_ in made),
        parameters=np.array([sum(parameter.size for parameter in cell.parameters()) for _, cell, _, _ in made]),
        formula=tuple(f"{gates}{sizes}" + (f" + {more} for b_hn" if more else "") for _, _, gates, more in made),
        expected=np.array([gates * block + more for _, _, gates, more in made]),
    )


# -- 20: multiplications --------------------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """A shortest gradient path: how many of its edges multiply by a matrix, and how many elementwise; None if there is no path."""

    matrices: int | None
    factors: int | None

    @property
    def total(self) -> int | None:
        """All multiplications on it."""
        return None if self.matrices is None or self.factors is None else self.matrices + self.factors


def shortest_way(ledger: Trace, source: NodeInfo, target: NodeInfo, through: Callable[[BackwardStep], bool] | None = None) -> Way:
    """The path from one node back to another with the fewest multiplications; edges of kind "add" and "route" multiply by nothing.

    Args:
        ledger: whose edges may be taken.
        source, target: where the path begins and ends.
        through: if given, at least one edge of the path must fit it.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.experiments.counts import shortest_way
        >>> outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((6, 1, 2)))
        >>> ledger = tg.trace(outputs[-1].sum())
        >>> states = ledger.states()
        >>> shortest_way(ledger, states[6].cell.node, states[1].cell.node)
        Way(matrices=0, factors=5)
    """
    leaving: dict[NodeInfo, list[BackwardStep]] = {}
    for step in ledger.steps:
        leaving.setdefault(step.node, []).append(step)
    start, goal = (source, through is None), (target, True)
    found = {start: Way(0, 0)}
    queue = deque([start])
    while queue:  # edges cost 0 or 1: what costs nothing goes to the front, so nodes are settled in order of their cost
        place = queue.popleft()
        if place == goal:
            break
        (node, passed), way = place, found[place]
        for step in leaving.get(node, ()):
            cost = Way(way.matrices + (step.kind == "matmul"), way.factors + (step.kind == "scale"))  # type: ignore[operator]
            there = (step.operand, passed or (through is not None and through(step)))
            known = found.get(there)
            if known is None or cost.total < known.total:  # type: ignore[operator]
                found[there] = cost
                (queue.append if step.kind in ("matmul", "scale") else queue.appendleft)(there)
    return found.get(goal, Way(None, None))


@dataclass(frozen=True, eq=False)
class Distances(Measurement):
    """Multiplications on the shortest gradient path between two tokens, and a stack of Transformer blocks.

    Attributes:
        distance: n, steps between the two tokens; (N,).
        path: what was counted; P of them.
        matrices, factors: how many matrix and how many elementwise multiplications stand on it; (P, N).
        layers: how many blocks the stacks have; (L,).
        stack: the same, matrices and factors together, from the stack's output to another token at its input; (L,).
        first, last: by block of the deepest stack, log₁₀ ‖∂J/∂its input‖ over that of the stack's output, with the norms at the beginning
            of the branches (norm_first) and after the sums.
    """

    distance: Any
    path: tuple[str, ...]
    matrices: Any
    factors: Any
    layers: Any
    stack: Any
    first: Any
    last: Any

    def table(self) -> Table:
        """Matrices + factors, by distance."""
        rows = [
            (name, *(f"{m} + {f}" for m, f in zip(matrices, factors, strict=True)))
            for name, matrices, factors in zip(self.path, self.matrices, self.factors, strict=True)
        ]
        counts = ", ".join(f"{n} with {layers}" for layers, n in zip(self.layers, self.stack, strict=True))
        caption = (
            f"Transformer stack, output to another token's input: {counts} blocks; gradient at the first of {self.layers[-1]}: "
            f"{power_of_ten(float(self.first[0]))} with norms in the branches, {power_of_ten(float(self.last[0]))} after the sums"
        )
        return aligned(
            ("shortest path, matrices + factors", *(f"n = {n}" for n in self.distance)), rows, "multiplications between tokens", caption
        )

    def claims(self) -> tuple[Claim, ...]:
        """n matrices in the RNN, n factors and no matrix on the LSTM's highway, one in self-attention, at every distance."""
        rows = {name: (m, f) for name, m, f in zip(self.path, self.matrices, self.factors, strict=True)}
        (rnn, rnn_f), (lstm, lstm_f), (gru, gru_f) = rows["RNN, h to h"], rows["LSTM, c to c"], rows["GRU, h to h"]
        (hop, hop_f), (whole, whole_f) = rows["self-attention, read to V"], rows["self-attention, output to input"]
        n = self.distance

        def counted(matrices: Any, factors: Any) -> str:
            return f"{matrices[-1]} matrices, {factors[-1]} factors at n = {n[-1]}"

        both = whole + whole_f
        kept = float(self.first[0])
        return (
            holds("RNN", "n", counted(rnn, rnn_f), (rnn == n).all(), "n matrices (and as many factors of tanh), at every n"),
            holds("LSTM", "n, but of gates", counted(lstm, lstm_f), (lstm == 0).all() and (lstm_f == n).all(), "no matrix, n factors"),
            holds("GRU", "n, but of gates", counted(gru, gru_f), (gru == 0).all() and (gru_f == n).all(), "no matrix, n factors"),
            holds(
                "self-attention, between positions",
                "1",
                counted(hop, hop_f),
                ((hop == 1) & (hop_f == 0)).all(),
                "one matrix (A), at every n",
            ),
            holds(
                "self-attention, from output to input",
                "1",
                f"{both[-1]} (W_O, A, W_V) at every n",
                (both == 1).all(),
                "one multiplication; what is counted does not grow with n",
            ),
            holds(
                f"a stack of {self.layers[-1]} blocks",
                "up to 24 layers",
                f"{power_of_ten(kept)} of the gradient at the first, norms in the branches",
                abs(kept) < 1,
                "between a tenth and ten times that at its output",
                source="lecture (BERT)",
            ),
        )

    def charts(self) -> tuple[Chart, ...]:
        """Multiplications by distance, and the gradient by depth of the deepest stack."""
        lines = tuple(series(name, self.distance, m + f) for name, m, f in zip(self.path, self.matrices, self.factors, strict=True))
        depth = np.arange(len(self.first))
        stack = (series("norms in the branches", depth, self.first), series("norms after the sums", depth, self.last))
        return (
            Chart("lines", "Shortest gradient path", "distance n", "multiplications", lines, "xy"),
            Chart("lines", f"{self.layers[-1]} Transformer blocks", "block", "log₁₀ ‖∂J/∂input‖, to the output's", stack),
        )


@experiment
def distances(
    lengths: Sequence[int] = (1, 2, 5, 10, 20, 50), layers: Sequence[int] = (1, 2, 6, 12, 24), *, size: int = 8, seed: int = 0
) -> Distances:
    """Claim (row 20): a gradient needs n multiplications to reach a token n steps before in an RNN, and one in self-attention.

    Counted in the graph, as the path with the fewest multiplications: h_T to h_{T−n} in the RNN, c_T to c_{T−n} in the LSTM, h_T to
    h_{T−n} in the GRU; in self-attention from what a position reads to what another one offers (V), and from the output to the input,
    where W_O and W_V stand on the way too. Then stacks of Transformer blocks: the path to another token's input is as long in 24
    blocks as in 2, since the sums around the branches multiply by nothing; and the gradient at the input of every block is measured.

    Args:
        lengths: n, each at least 1.
        layers: how many blocks the stacks have.
        size, seed: the width of everything, even, and the random source.

    Raises:
        ArgumentError: for a distance below 1.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.distances((1, 5), (1, 3))
        >>> for name, matrices, factors in zip(found.path, found.matrices, found.factors):
        ...     print(f"{name}: {matrices} matrices, {factors} factors")
        RNN, h to h: [1 5] matrices, [1 5] factors
        LSTM, c to c: [0 0] matrices, [1 5] factors
        GRU, h to h: [0 0] matrices, [1 5] factors
        self-attention, read to V: [1 1] matrices, [0 0] factors
        self-attention, output to input: [3 3] matrices, [0 0] factors
    """
    if min(lengths, default=0) < 1 or min(layers, default=0) < 1:
        raise ArgumentError(f"distances: expected distances and layers of at least 1, got {tuple(lengths)} and {tuple(layers)}")
    rng = generator(seed)
    counted: dict[str, list[Way]] = {}
    for n in lengths:
        x = rng.standard_normal((n + 1, 1, size))
        for name, role in (("RNN", "hidden"), ("LSTM", "cell"), ("GRU", "hidden")):
            outputs, _ = getattr(nn, name)(size, size, rng=seed)(x)
            ledger = trace(outputs[-1].sum(), keep="norms")
            states = ledger.states()
            here, there = (getattr(states[t], role).node for t in (n + 1, 1))
            counted.setdefault(f"{name}, {role[0]} to {role[0]}", []).append(shortest_way(ledger, here, there))
        start = tensor(x, requires_grad=True, name="x")
        output = nn.SelfAttention(size, 2, causal=True, rng=seed)(start)
        ledger = trace(output[-1].sum(), keep="norms")
        read, offered = (next(s.operand for s in ledger.steps if s.operand.name == name) for name in ("heads", "V"))
        counted.setdefault("self-attention, read to V", []).append(shortest_way(ledger, read, offered))
        whole = shortest_way(ledger, ledger.node(output), ledger.node(start), _moves)
        counted.setdefault("self-attention, output to input", []).append(whole)
    start, reads = tensor(rng.standard_normal((4, 1, size)), requires_grad=True, name="x"), rng.standard_normal(size)
    ways = []
    for number in layers:
        levels = _stack(number, size, True, seed, start)
        ledger = trace((levels[-1][-1] * reads).sum(), keep="norms")
        ways.append(shortest_way(ledger, ledger.node(levels[-1]), ledger.node(start), _moves).total)
    return Distances(
        distance=np.array(lengths),
        path=tuple(counted),
        matrices=np.array([[way.matrices for way in row] for row in counted.values()]),
        factors=np.array([[way.factors for way in row] for row in counted.values()]),
        layers=np.array(layers),
        stack=np.array(ways),
        first=_by_depth(levels, reads),
        last=_by_depth(_stack(layers[-1], size, False, seed, start), reads),
    )


def _stack(blocks: int, size: int, norm_first: bool, seed: int, x: Any) -> list[Any]:
    """The input of every Transformer block of a stack, and the output of the last."""
    rng, levels = generator(seed), [x]
    for _ in range(blocks):
        levels.append(nn.TransformerBlock(size, 2, causal=True, norm_first=norm_first, rng=rng)(levels[-1]))
    return levels


def _moves(step: BackwardStep) -> bool:
    """Whether an edge leads from one position of a sequence to the others: the product with Aᵀ, into V."""
    return step.operand.name == "V"


def _by_depth(levels: list[Any], reads: Any) -> Any:
    """log₁₀ ‖∂J/∂input‖ of every block, where J reads the last position; to that of the output."""
    norms = log10([norm_of(gradient.value) for gradient in grad((levels[-1][-1] * reads).sum(), levels)])
    return norms - norms[-1]
