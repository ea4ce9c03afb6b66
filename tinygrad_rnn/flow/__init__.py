"""What the ledger means: instruments that read a trace and return frozen results."""

from .bptt import BpttMatrix, bptt_matrix
from .diagnosis import Diagnosis, Finding, diagnose
from .edges import Edges, crossing, edges, recurrent
from .highway import Highway, highway, highway_steps
from .interventions import Comparison, Engagement, Intervention, block, clip, compare, cut_time, force_gate, scale
from .jacobians import StepJacobians, step_jacobians
from .monitor import Monitor, StateNorms, monitor
from .omega import omega
from .paths import PathSplit, split_paths, through
from .product import VanishingProduct, vanishing_product
from .reach import Connectivity, connectivity
from .relay import EdgeGains
from .timescales import Timescales, timescales

__all__ = [
    "BpttMatrix",
    "Comparison",
    "Connectivity",
    "Diagnosis",
    "EdgeGains",
    "Edges",
    "Engagement",
    "Finding",
    "Highway",
    "Intervention",
    "Monitor",
    "PathSplit",
    "StateNorms",
    "StepJacobians",
    "Timescales",
    "VanishingProduct",
    "block",
    "bptt_matrix",
    "clip",
    "compare",
    "connectivity",
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
    "split_paths",
    "step_jacobians",
    "through",
    "timescales",
    "vanishing_product",
]
