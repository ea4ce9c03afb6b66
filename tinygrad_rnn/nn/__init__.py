"""Layers: Module and Parameter, maps without memory, ways around them, attention, and the recurrent cells and layers."""

from . import init, interop
from .attention import PositionalEncoding, SelfAttention, TransformerBlock, sinusoidal
from .containers import Checkpoint, Sequential
from .linear import Embedding, Linear
from .module import Module, Parameter
from .recurrence import GRU_GATES, LSTM_GATES, RNN_GATES, GRUState, LSTMState, RNNState
from .recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .regularization import Dropout, LayerNorm
from .residual import DenseBlock, Highway, Residual

__all__ = [
    "GRU",
    "GRU_GATES",
    "LSTM",
    "LSTM_GATES",
    "RNN",
    "RNN_GATES",
    "Checkpoint",
    "DenseBlock",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GRUState",
    "Highway",
    "LSTMCell",
    "LSTMState",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "PositionalEncoding",
    "RNNCell",
    "RNNState",
    "Residual",
    "SelfAttention",
    "Sequential",
    "TransformerBlock",
    "init",
    "interop",
    "sinusoidal",
]
