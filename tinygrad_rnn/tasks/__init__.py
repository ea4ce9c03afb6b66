"""What networks are run on: tasks with a known answer, and real text."""

from .adding import adding, adding_baseline
from .copying import copying, copying_baseline
from .parity import parity, parity_baseline
from .temporal_order import temporal_order, temporal_order_baseline
from .text import english, read_text

__all__ = [
    "adding",
    "adding_baseline",
    "copying",
    "copying_baseline",
    "english",
    "parity",
    "parity_baseline",
    "read_text",
    "temporal_order",
    "temporal_order_baseline",
]
