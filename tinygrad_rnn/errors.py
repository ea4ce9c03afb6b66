"""Every error that the package raises on purpose, in one tree.

A message names the operation, then the operand, then what was expected and what came instead, then the remedy. Each class also
inherits the built-in exception that a NumPy or PyTorch user would catch, so existing ``except ValueError`` code keeps working.
"""

from __future__ import annotations


class TinygradError(Exception):
    """Base of all deliberate errors."""


class ShapeError(TinygradError, ValueError):
    """Operands whose shapes do not fit the operation."""


class DtypeError(TinygradError, TypeError):
    """A value of a kind that cannot be differentiated (complex, object, string, …)."""


class ArgumentError(TinygradError, ValueError):
    """An argument outside its range, or a name that does not exist."""


class IndexingError(TinygradError, IndexError):
    """An index out of range, of the wrong kind, or one more than there are axes."""


class UnsupportedError(TinygradError, TypeError):
    """A NumPy function, keyword or in-place write that has no differentiable meaning here."""


class GraphError(TinygradError, RuntimeError):
    """A backward pass that cannot be run: no graph, no scalar, or a value rebound since the forward pass."""


class HookError(GraphError):
    """What the backward pass called (a hook, an observer, an intervention, a rule) raised, or returned something of the wrong shape."""


class AnomalyError(TinygradError, FloatingPointError):
    """Under ``detect_anomaly``: the first multiplication that made a NaN or an infinity."""


class StateError(ArgumentError, RuntimeError):
    """A state_dict that does not fit the module or optimiser into which it is to be loaded; nothing was loaded."""


class StorageError(TinygradError, ValueError):
    """A file that is cut off, damaged, of another kind or hostile, or whose library is missing."""


class RenderError(TinygradError, RuntimeError):
    """A picture could not be drawn; the DOT text is still available."""


class MissingError(TinygradError, ImportError):
    """A package that only an extra brings is not installed."""
