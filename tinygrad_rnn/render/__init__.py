"""Pictures of what the ledger holds; the only room that imports graphviz, and only when a picture is asked for."""

from .backward import backward_graph
from .model import RenderCluster, RenderEdge, RenderGraph, RenderNode

__all__ = ["RenderCluster", "RenderEdge", "RenderGraph", "RenderNode", "backward_graph"]
