"""What the ledger means: instruments that read a trace and return frozen results."""

from .diagnosis import Diagnosis, Finding, diagnose
from .edges import Edges, crossing, edges, recurrent
from .highway import Highway, highway, highway_steps
from .interventions import Comparison, Engagement, Intervention, block, clip, compare, cut_time, force_gate, scale
from .monitor import Monitor, StateNorms, monitor
from .omega import omega
from .product import VanishingProduct, vanishing_product
from .timescales import Timescales, timescales

__all__ = [
    "Comparison",
    "Diagnosis",
    "Edges",
    "Engagement",
    "Finding",
    "Highway",
    "Intervention",
    "Monitor",
    "StateNorms",
    "Timescales",
    "VanishingProduct",
    "block",
    "clip",
    "compare",
    "crossing",
    "cut_time",
    "diagnose",
    "edges",
    "force_gate",
    "highway",
    "highway_steps",
    "monitor",
    "omega",
    "recurrent",
    "scale",
    "timescales",
    "vanishing_product",
]
