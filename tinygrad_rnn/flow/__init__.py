"""What the ledger means: instruments that read a trace and return frozen results."""

from .highway import Highway, highway, highway_steps
from .monitor import Monitor, StateNorms, monitor
from .product import VanishingProduct, vanishing_product

__all__ = [
    "Highway",
    "Monitor",
    "StateNorms",
    "VanishingProduct",
    "highway",
    "highway_steps",
    "monitor",
    "vanishing_product",
]
