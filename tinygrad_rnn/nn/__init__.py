"""Layers: Module and Parameter, Linear and Embedding, and the recurrent cells and layers."""

from . import init
from .linear import Embedding, Linear
from .module import Module, Parameter
from .recurrent import (
    GRU,
    GRU_GATES,
    LSTM,
    LSTM_GATES,
    RNN,
    RNN_GATES,
    GRUCell,
    GRUState,
    LSTMCell,
    LSTMState,
    RNNCell,
    RNNState,
)

__all__ = [
    "GRU",
    "GRU_GATES",
    "LSTM",
    "LSTM_GATES",
    "RNN",
    "RNN_GATES",
    "Embedding",
    "GRUCell",
    "GRUState",
    "LSTMCell",
    "LSTMState",
    "Linear",
    "Module",
    "Parameter",
    "RNNCell",
    "RNNState",
    "init",
]
