"""Which input reaches which output: the connectivity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..report import Result, Table
from ..tensor import Tensor
from ..trace import trace
from .pairs import ENTRIES, by_distance, root_of_squares, row_norms
from .stacks import Slab, Stack, between, carry


@dataclass(frozen=True, eq=False)
class Connectivity(Result):
    """How much an output still depends on an input: ‖∂ output at t′ / ∂ input at t‖.

    Attributes:
        unit: the output unit, or None for all of them.
        output_time, input_time: t′ and t, from 1 on.
        norm: (outputs, inputs), the Frobenius norm over units, input features and the batch, in units of output per unit of input.
    """

    unit: int | None
    output_time: Any
    input_time: Any
    norm: Any

    def table(self) -> Table:
        """Root mean square over the entries at a distance."""
        title = "connectivity of " + ("all units" if self.unit is None else f"unit {self.unit}")
        return by_distance(title, "", self.output_time, self.input_time, [("norm", self.norm)])


def connectivity(outputs: Tensor, inputs: Tensor, unit: int | None = None) -> Connectivity:
    """How much each output depends on each input: ‖∂ output at t′ / ∂ input at t‖ for all t′ and t.

    Args:
        outputs: (T′, B, K), or (T′, K) for one sequence: hidden states, logits, …
        inputs: (T, B, I), or (T, I): a Tensor that requires a gradient.
        unit: the output unit k; None takes all K together.

    Returns:
        :class:`Connectivity`. One sequence of a batch must not act on another. One pass carries a cotangent for every t′; with all
        units, several passes share them, so that no more is held at once than needed.

    Raises:
        ArgumentError: if a shape does not fit, the unit does not exist, or the outputs do not depend on the inputs.

    Source:
        Madsen 2019 (Distill, "Visualizing memorization in RNNs"), with the norm over the input's features.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import flow, nn
        >>> x = tg.tensor(np.ones((5, 1, 2)), requires_grad=True)
        >>> outputs, _ = nn.GRU(2, 3, rng=0)(x)
        >>> found = flow.connectivity(outputs, x)
        >>> found.norm.shape, bool((np.triu(found.norm, 1) == 0).all())
        ((5, 5), True)
    """
    for name, given in (("outputs", outputs), ("inputs", inputs)):
        if not isinstance(given, Tensor) or given.ndim not in (2, 3) or given.node is None:
            got = (
                type(given).__name__
                if not isinstance(given, Tensor)
                else f"shape {given.shape}{'' if given.node else ' without a gradient'}"
            )
            raise ArgumentError(
                f"connectivity: expected {name} to be a Tensor (T, B, …) with a gradient, got {got}. Use requires_grad=True"
            )
    if outputs.shape[1:-1] != inputs.shape[1:-1]:
        raise ArgumentError(
            f"connectivity: expected outputs and inputs of one batch, (T′, B, K) and (T, B, I), got {outputs.shape} and {inputs.shape}. "
            "Put time first"
        )
    units = outputs.shape[-1]
    if unit is not None and (isinstance(unit, bool) or not isinstance(unit, (int, np.integer)) or not -units <= unit < units):
        raise ArgumentError(f"connectivity: expected a unit from 0 to {units - 1}, got {unit!r}")
    ledger = trace(outputs, cotangent=np.ones(outputs.shape))
    try:
        goal, root = ledger.node(inputs), ledger.root
    except ArgumentError as error:
        raise ArgumentError(f"connectivity: the outputs do not depend on the inputs. {error}") from None
    steps, batch = outputs.shape[0], outputs.shape[1:-1]
    chosen = range(units) if unit is None else [int(unit) % units]
    path = between(ledger.steps, {root.order}, {goal.order})
    few = max(1, ENTRIES // max(1, steps * math.prod(goal.shape)))
    squares = np.zeros((steps, inputs.shape[0]))
    for start in range(0, len(chosen), few):
        group = chosen[start : start + few]
        basis = np.zeros((len(group), *batch, units), outputs.dtype)
        for k, one in enumerate(group):
            basis[k, ..., one] = 1.0
        seeds = {root.order: Stack(root.shape, {t: Slab(t * len(group), basis) for t in range(steps)})}
        arrived = carry(path, seeds, {goal.order}).get(goal.order, Stack(goal.shape))
        norms = _norms_by_place(arrived, steps * len(group)).reshape(steps, len(group), goal.shape[0])
        squares = np.hypot(squares, root_of_squares(np.moveaxis(norms, 1, -1)))
    return Connectivity(
        unit=None if unit is None else int(unit) % units,
        output_time=np.arange(1, steps + 1),
        input_time=np.arange(1, inputs.shape[0] + 1),
        norm=squares,
    )


def _norms_by_place(arrived: Stack, bins: int) -> Any:
    """The norm of every bin at every place of the first axis: (bins, T)."""
    norms = np.zeros((bins, arrived.shape[0]))
    if None in arrived.parts:
        slab = arrived.whole()
        norms[slab.first : slab.stop] = row_norms(slab.values)
        return norms
    for place, slab in arrived.parts.items():
        norms[slab.first : slab.stop, place] = row_norms(slab.values[:, None])[:, 0]
    return norms
