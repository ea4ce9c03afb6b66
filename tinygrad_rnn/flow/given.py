"""What instruments are given: a loss, or its trace."""

from __future__ import annotations

from ..errors import ArgumentError
from ..tensor import Tensor
from ..trace import Trace, trace


def traced(instrument: str, loss: Tensor | Trace, *, arrays: bool = False) -> Trace:
    """The trace of a loss, or the trace itself, with arrays if they are needed.

    Raises:
        ArgumentError: if it is neither, or a trace that kept only norms of one that needs arrays; or as ``tg.trace`` does.
    """
    if not isinstance(loss, (Tensor, Trace)):
        raise ArgumentError(f"{instrument}: expected a loss (a Tensor) or its trace, got {type(loss).__name__}")
    ledger = trace(loss) if isinstance(loss, Tensor) else loss
    if arrays and ledger.keep != "arrays":
        raise ArgumentError(f"{instrument}: expected a trace with keep='arrays', got keep={ledger.keep!r}. Trace again with arrays")
    return ledger
