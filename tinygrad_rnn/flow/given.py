"""What instruments are given: a loss, or its trace."""

from __future__ import annotations

from ..errors import ArgumentError
from ..tensor import Tensor
from ..trace import Trace, trace


def traced(instrument: str, loss: Tensor | Trace) -> Trace:
    """The trace of a loss, or the trace itself.

    Raises:
        ArgumentError: if it is neither; or as ``tg.trace`` does.
    """
    if not isinstance(loss, (Tensor, Trace)):
        raise ArgumentError(f"{instrument}: expected a loss (a Tensor) or its trace, got {type(loss).__name__}")
    return trace(loss) if isinstance(loss, Tensor) else loss
