"""The claims of the curriculum as functions that measure them with the engine and return numbers.

Each function takes its settings as keywords, with defaults that run in seconds, and returns a frozen result with a table, ``to_dict`` and
``to_json``. Where a claim is only roughly true, the result shows where it breaks.

====  =====================================================================  ==========================
row   claim                                                                  function
====  =====================================================================  ==========================
1     a gradient through time is a product of factors                        :func:`chain_rule`
2     eigenvalues decide, and a non-normal matrix grows first                :func:`eigenvalues`
3     tanh multiplies by 1 − h²                                              :func:`saturation`
4     both compound: their logarithms add                                    :func:`compound`
6     near losses move the weights: J⁽²⁾'s pull on h₁ beats J⁽⁴⁾'s            :func:`near_effects`
11    the LSTM's equations; the direct ∂c_t/∂c_{t−1} is diag(f_t)            :func:`lstm_cell`
12    over 100 steps the LSTM keeps about 10,000 times more                  :func:`lstm_retention`
13    the LSTM does not guarantee that nothing vanishes or explodes          :func:`lstm_limits`
14    the GRU's conventions; its highway multiplies by z                     :func:`gru_conventions`
====  =====================================================================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError
from ..report import Result
from .gated import GRUConventions, LSTMCellReport, LSTMLimits, LSTMRetention, gru_conventions, lstm_cell, lstm_limits, lstm_retention
from .near import NearEffects, near_effects
from .vanishing import ChainRule, Compound, Eigenvalues, Saturation, chain_rule, compound, eigenvalues, saturation

ROWS: dict[int, Callable[..., Result]] = {
    1: chain_rule,
    2: eigenvalues,
    3: saturation,
    4: compound,
    6: near_effects,
    11: lstm_cell,
    12: lstm_retention,
    13: lstm_limits,
    14: gru_conventions,
}
"""The experiments by their row in the curriculum."""


def run(row: int, **settings: Any) -> Result:
    """The experiment of a row of the curriculum.

    Raises:
        ArgumentError: if there is no experiment for this row.

    Example:
        >>> import tinygrad_rnn as tg
        >>> print(tg.experiments.run(3, values=(0.0, 0.9)))
        saturation: what tanh multiplies by at each step
        h    1 − h²  measured
        ─────────────────────
        0         1         1
        0.9    0.19      0.19
    """
    if row not in ROWS:
        raise ArgumentError(f"run: there is no experiment for row {row!r}; expected one of {', '.join(map(str, ROWS))}")
    return ROWS[row](**settings)


__all__ = [
    "ROWS",
    "ChainRule",
    "Compound",
    "Eigenvalues",
    "GRUConventions",
    "LSTMCellReport",
    "LSTMLimits",
    "LSTMRetention",
    "NearEffects",
    "Saturation",
    "chain_rule",
    "compound",
    "eigenvalues",
    "gru_conventions",
    "lstm_cell",
    "lstm_limits",
    "lstm_retention",
    "near_effects",
    "run",
    "saturation",
]
