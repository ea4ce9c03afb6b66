"""Pictures of what the ledger holds; the only room that imports graphviz and matplotlib, and only when a picture is asked for."""

# Each module here imports what is heavy inside its functions, so all of them are imported at once: a function that is called as its
# module (player.player) would otherwise be hidden by it as soon as someone imports the module.
from .backward import backward_graph
from .equation import Equation, equation
from .explorer import explorer
from .forward import forward_graph
from .model import RenderCluster, RenderEdge, RenderGraph, RenderNode, RenderScope
from .player import player
from .plot import plot

__all__ = [
    "Equation",
    "RenderCluster",
    "RenderEdge",
    "RenderGraph",
    "RenderNode",
    "RenderScope",
    "backward_graph",
    "equation",
    "explorer",
    "forward_graph",
    "player",
    "plot",
]
