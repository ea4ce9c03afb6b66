"""The claims of the curriculum as functions that measure them with the engine and return numbers.

Each function is one row of the curriculum. Its defaults are the quick setting, which runs in seconds; ``run(row, full=True)`` takes the
full one. Each returns a :class:`~tinygrad_rnn.experiments.measurement.Measurement`: its settings and numbers, ``claims()`` (what was
published beside what was measured, with the rule of the verdict), a table, JSON, and ``plot()``. Where a claim is only roughly true, the
result shows where it breaks. ``ROWS`` lists them.
"""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from . import exercises
from .agreement import Attractors, TheCat, attractors, the_cat
from .counts import Distances, ParameterCount, distances, parameter_count
from .depth import DeepStacks, deep_stacks
from .embeddings import EmbeddingReport, embedding
from .exercises import ExerciseChecks, exercise_checks
from .exploding import Exploding, exploding
from .gated import GRUConventions, LSTMCellReport, LSTMLimits, LSTMRetention, gru_conventions, lstm_cell, lstm_limits, lstm_retention
from .lengths import ThroughTime, through_time
from .limits import LengthLimits, length_limits
from .measurement import Claim, Measurement, Row, close, experiment, holds
from .near import NearEffects, near_effects
from .orthogonal import OrthogonalStart, orthogonal_start
from .reviews import Sentiment, sentiment
from .stacks import Stacks, recurrent_stacks
from .streams import Streaming, streaming
from .sweeps import Cell, Sweep, sweep
from .tied import GRUAsLSTM, gru_as_lstm
from .vanishing import ChainRule, Compound, Eigenvalues, Saturation, chain_rule, compound, eigenvalues, saturation

ROWS: dict[int, Row] = {
    row.number: row
    for row in (
        Row(1, "a gradient through time is a product of factors", chain_rule, {"position": 40, "hidden": 16}),
        Row(2, "eigenvalues decide, and a non-normal matrix grows first", eigenvalues, {"hidden": 64}),
        Row(3, "tanh multiplies by 1 − h²", saturation, {"steps": 100, "hidden": 64}),
        Row(4, "both compound: their logarithms add", compound, {"steps": 200, "hidden": 64}),
        Row(
            5,
            "the gradient by |λ| and T, in several networks",
            through_time,
            {"radii": tuple(r / 10 for r in range(5, 16)), "lengths": (10, 20, 50, 100, 200), "hidden": 64},
        ),
        Row(6, "near losses move the weights: J⁽²⁾'s pull on h₁ beats J⁽⁴⁾'s", near_effects, {"steps": 30, "hidden": 64, "updates": 2000}),
        Row(
            7,
            "a plain RNN works below 20 steps, struggles to 50, and fails beyond",
            length_limits,
            {
                "network": ("RNN", "orthogonal RNN", "LSTM", "chrono LSTM", "GRU"),
                "steps": (10, 20, 30, 50, 70, 100, 150, 200),
                "seeds": 5,
                "hidden": 32,
                "updates": 3000,
            },
        ),
        Row(
            8,
            "sequential recency beats syntactic recency",
            attractors,
            {"network": ("RNN", "LSTM", "GRU", "attention"), "phrases": 6, "attraction": 0.1, "hidden": 32, "updates": 400, "seeds": 5},
        ),
        Row(9, "exploding gradients make Inf and NaN; clipping repairs that", exploding, {"updates": 3000, "seeds": 5}),
        Row(
            10,
            "an orthogonal start helps, and training loses it",
            orthogonal_start,
            {"init": ("orthogonal", "uniform", "identity"), "hidden": 32, "updates": 4000, "measurements": 20, "seeds": 5},
        ),
        Row(11, "the LSTM's equations; the direct ∂c_t/∂c_{t−1} is diag(f_t)", lstm_cell, {"inputs": 32, "hidden": 64, "steps": 100}),
        Row(12, "over 100 steps the LSTM keeps about 10,000 times more", lstm_retention, {"hidden": 64}),
        Row(13, "the LSTM does not guarantee that nothing vanishes or explodes", lstm_limits, {"hidden": 32, "updates": 1500}),
        Row(14, "the GRU's conventions; its highway multiplies by z", gru_conventions, {"inputs": 32, "hidden": 64, "steps": 100}),
        Row(15, "the GRU as a special LSTM, and on which conditions", gru_as_lstm, {"inputs": 32, "hidden": 64, "steps": 50}),
        Row(16, "parameters of LSTM and GRU", parameter_count),
        Row(17, "deep feed-forward networks vanish too", deep_stacks, {"trained": (2, 5, 10, 20, 50, 100), "seeds": 5, "updates": 1000}),
        Row(
            18,
            "a bidirectional RNN with elementwise maximum tells good reviews from bad",
            sentiment,
            {
                "hidden": 64,
                "embedding": 48,
                "dropout": 0.5,
                "batch": 64,
                "updates": 2000,
                "every": 130,
                "patience": 5,
                "lr": 2e-3,
                "sentences": None,
                "seeds": 5,
            },
        ),
        Row(
            19,
            "2 to 4 layers are good, 8 need skip or dense connections",
            recurrent_stacks,
            {"layers": (1, 2, 4, 8), "steps": 30, "hidden": 24, "updates": 600, "seeds": 5},
        ),
        Row(
            20, "attention reaches any distance in one multiplication", distances, {"lengths": (1, 2, 5, 10, 20, 50, 100, 200), "size": 32}
        ),
        Row(
            21,
            "streams, one token at a time",
            streaming,
            {"truncations": (1, 2, 5, 10, 20, 50, 100), "steps": 200, "hidden": 32, "updates": 4000, "tokens": 20_000},
        ),
        Row(22, "embeddings: lookup and one-hot vectors", embedding, {"length": 20_000, "size": 64, "vocabulary": 2000}),
        Row(23, "the cat, which was sitting on the mat …, was sleeping", the_cat, {"hidden": 32, "updates": 1500, "seeds": 5}),
        Row(24, "the exercises, with answers that are checked", exercise_checks),
    )
}
"""The experiments by their row in the curriculum."""


def run(row: int, *, full: bool = False, **settings: Any) -> Measurement:
    """The experiment of a row of the curriculum: quick, or with its full settings, and with those changed that are given.

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
    return ROWS[row](full=full, **settings)


__all__ = [
    "ROWS",
    "Attractors",
    "Cell",
    "ChainRule",
    "Claim",
    "Compound",
    "DeepStacks",
    "Distances",
    "Eigenvalues",
    "EmbeddingReport",
    "ExerciseChecks",
    "Exploding",
    "GRUAsLSTM",
    "GRUConventions",
    "LSTMCellReport",
    "LSTMLimits",
    "LSTMRetention",
    "LengthLimits",
    "Measurement",
    "NearEffects",
    "OrthogonalStart",
    "ParameterCount",
    "Row",
    "Saturation",
    "Sentiment",
    "Stacks",
    "Streaming",
    "Sweep",
    "TheCat",
    "ThroughTime",
    "attractors",
    "chain_rule",
    "close",
    "compound",
    "deep_stacks",
    "distances",
    "eigenvalues",
    "embedding",
    "exercise_checks",
    "exercises",
    "experiment",
    "exploding",
    "gru_as_lstm",
    "gru_conventions",
    "holds",
    "length_limits",
    "lstm_cell",
    "lstm_limits",
    "lstm_retention",
    "near_effects",
    "orthogonal_start",
    "parameter_count",
    "recurrent_stacks",
    "run",
    "saturation",
    "sentiment",
    "streaming",
    "sweep",
    "the_cat",
    "through_time",
]
