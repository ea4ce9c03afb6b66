"""Functions that sweeps call in other processes; a worker imports this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from tinygrad_rnn import nn


def gradient(seed: int, size: int) -> list[float]:
    """Numbers in whose last bits a difference between workers would show."""
    rng = np.random.default_rng(seed)
    layer = nn.LSTM(3, size, dtype=np.float32, rng=rng)
    outputs, _ = layer(rng.standard_normal((20, 4, 3)).astype(np.float32))
    (outputs**2).sum().backward()
    return layer.weight_hh_l0.grad.value.ravel().tolist()


def fragile(number: int, folder: str, kills: int = 0, seconds: float = 0.0) -> dict[str, float]:
    """Count its calls in a folder; kill its own worker in so many of them."""
    calls = len(list(Path(folder).glob(f"{number}-*")))
    Path(folder, f"{number}-{calls}-{os.getpid()}").touch()
    if calls < kills:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    return {"square": number * number, "third": number / 3}


def picky(number: int) -> int:
    """Refuse one number."""
    if number == 2:
        raise ValueError("not 2")
    if number == 3:
        raise SystemExit(1)
    return number


def odd(number: int) -> object:
    """Return what JSON cannot hold."""
    return object()


def threads() -> str:
    """How many threads BLAS was told to use."""
    return os.environ.get("OPENBLAS_NUM_THREADS", "")
