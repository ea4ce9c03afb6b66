"""The recurrences that tests go through, and the settings of layers that they draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import oracles
from hypothesis import strategies as st

from tinygrad_rnn import nn
from tinygrad_rnn.flow import stretches

LAYERS: dict[str, Any] = {
    "rnn": (nn.RNN, nn.RNNCell, {}, oracles.rnn()),
    "relu": (nn.RNN, nn.RNNCell, {"nonlinearity": "relu"}, oracles.rnn("relu")),
    "lstm": (nn.LSTM, nn.LSTMCell, {}, oracles.lstm()),
    "gru": (nn.GRU, nn.GRUCell, {}, oracles.gru()),
    "gru-before": (nn.GRU, nn.GRUCell, {"reset": "before"}, oracles.gru("before")),
}
"""Layer, cell, the options that both take, and the oracle, by name."""


class Setting(NamedTuple):
    """One layer and what it is given: ``options`` are the layer's, ``lengths`` those of a padded batch or None."""

    name: str
    steps: int
    batch: int
    size: int
    lengths: Any
    options: dict[str, Any]
    seed: int

    @property
    def single(self) -> bool:
        """Whether the layer has single precision."""
        return self.options["dtype"] == np.float32


@st.composite
def settings(draw: st.DrawFn, least: int = 1) -> Setting:
    """All architectures, sizes, dtypes and options; from so many steps on."""
    steps, batch, seed = draw(st.integers(least, 7)), draw(st.integers(1, 5)), draw(st.integers(0, 50))
    options = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from([np.float64, np.float32])),
    }
    lengths = np.random.default_rng(seed).integers(1, steps + 1, batch) if draw(st.booleans()) else None
    return Setting(draw(st.sampled_from(sorted(LAYERS))), steps, batch, draw(st.integers(1, 5)), lengths, options, seed)


def drop_gate(gate: str, monkeypatch: Any) -> None:
    """Plant a fault: what is found between two states lacks the edges through one gate."""
    real = stretches.between

    def without(steps: Any, *ends: Any) -> Any:
        return real([step for step in steps if (step.node.role, step.node.gate) != ("gate", gate)], *ends)

    monkeypatch.setattr(stretches, "between", without)
