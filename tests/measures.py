"""What tests measure besides values."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any


def peak(function: Callable[[], Any]) -> int:
    """The most bytes allocated at one time during a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
