"""What the ledger means: instruments that read a trace and return frozen results."""

from .highway import Highway, highway, highway_steps
from .product import VanishingProduct, vanishing_product

__all__ = ["Highway", "VanishingProduct", "highway", "highway_steps", "vanishing_product"]
