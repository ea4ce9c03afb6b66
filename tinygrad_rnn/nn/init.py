"""Initial values of weights. Every function takes the shape (rows, columns) and a random generator and returns an array.

Recurrent weights W_hh of G gates are G square blocks, one below the other; each block is drawn for itself. For the gates' biases
there is :func:`chrono`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import numpy as np

from ..errors import ArgumentError

Initializer = Callable[[tuple[int, int], np.random.Generator], Any]


def generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """A Generator as it is; a seed turned into one; for None one that differs from run to run."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is not None and (not isinstance(rng, (int, np.integer)) or rng < 0):
        raise ArgumentError(f"rng: expected a numpy.random.Generator, a seed of at least 0, or None, got {rng!r}")
    return np.random.default_rng(rng)


def uniform(shape: tuple[int, int], rng: np.random.Generator) -> Any:
    """Uniform in ±1/√columns (PyTorch's choice for recurrent layers, where columns = hidden size); spectral radius about 0.58."""
    bound = 1.0 / math.sqrt(max(shape[1], 1))
    return rng.uniform(-bound, bound, shape)


def glorot(shape: tuple[int, int], rng: np.random.Generator) -> Any:
    """Uniform in ±√(6/(rows + columns)) (Glorot & Bengio 2010, equation 16); spectral radius about 1 for a square."""
    bound = math.sqrt(6.0 / max(sum(shape), 1))
    return rng.uniform(-bound, bound, shape)


def he(shape: tuple[int, int], rng: np.random.Generator) -> Any:
    """Normal with standard deviation √(2/columns) (He et al. 2015, equation 10), made for ReLU; spectral radius about 1.41 for a square."""
    return rng.normal(0.0, math.sqrt(2.0 / max(shape[1], 1)), shape)


def orthogonal(shape: tuple[int, int], rng: np.random.Generator) -> Any:
    """Orthonormal rows or columns, uniformly distributed (Saxe et al. 2014): every singular value is 1."""
    rows, columns = shape
    tall = rng.standard_normal((max(shape), min(shape)))
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # without this the distribution would favour some rotations
    return q if rows >= columns else q.T


def identity(shape: tuple[int, int], rng: np.random.Generator) -> Any:
    """The identity (the IRNN of Le, Jaitly & Hinton 2015, made for ReLU): every eigenvalue is 1."""
    return np.eye(*shape)


def spectral_radius(radius: float) -> Initializer:
    """Gaussian, scaled so that the largest eigenvalue has exactly this magnitude.

    Raises:
        ArgumentError: for a negative or infinite radius.
    """
    if not 0 <= radius < math.inf:
        raise ArgumentError(f"spectral_radius: expected a finite number of at least 0, got {radius}")

    def draw(shape: tuple[int, int], rng: np.random.Generator) -> Any:
        if shape[0] != shape[1]:
            raise ArgumentError(f"spectral_radius: only a square block has eigenvalues, got {shape}")
        weight = rng.standard_normal(shape)
        largest = float(np.max(np.abs(np.linalg.eigvals(weight)), initial=0.0))
        return weight * (radius / largest) if largest else weight

    return draw


_OF_BIASES: WeakSet[Any] = WeakSet()
"""Functions that draw biases, and no weights."""


def chrono(longest: float) -> Callable[[int, np.random.Generator], Any]:
    """Forget-gate biases for memories of up to ``longest`` steps.

        b_f = ln u,  u uniform in [1, longest − 1];  the input gate's biases begin at b_i = −b_f

    A unit whose gate stays at f = σ(b_f) = u/(1 + u) forgets with a time constant of about 1 + u steps, so the units together cover all
    scales from 2 to ``longest`` steps, where a forget bias of 1 gives every unit less than 4.

    Args:
        longest: the longest dependency that is expected, in steps; at least 2.

    Returns:
        A function of the number of units and a generator that draws their forget biases, of shape (units,).

    Raises:
        ArgumentError: if ``longest`` is below 2, infinite or not a number.

    Source:
        Tallec & Ollivier 2018, "Can recurrent neural networks warp time?".

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn.nn import init
        >>> biases = init.chrono(100)(500, np.random.default_rng(0))
        >>> biases.shape, bool(biases.min() >= 0.0), bool(biases.max() <= np.log(99))
        ((500,), True, True)
    """
    if isinstance(longest, bool) or not isinstance(longest, (int, float, np.number)) or not 2 <= longest < math.inf:
        raise ArgumentError(f"chrono: expected a number of steps of at least 2, got {longest!r}")

    def draw(size: int, rng: np.random.Generator) -> Any:
        return np.log(rng.uniform(1.0, float(longest) - 1.0, size))

    _OF_BIASES.add(draw)
    return draw


INITIALIZERS: dict[str, Initializer] = {
    "uniform": uniform,
    "glorot": glorot,
    "orthogonal": orthogonal,
    "identity": identity,
    "he": he,
}
"""The initialisers that can be chosen by name."""


def initializer(choice: str | float | Initializer) -> Initializer:
    """An initialiser by name, by spectral radius (a number), or as it is.

    Raises:
        ArgumentError: for a name that is not in ``INITIALIZERS``.
    """
    if callable(choice):
        if choice in _OF_BIASES:
            raise ArgumentError("init: chrono(…) draws the biases of an LSTM's gates, not weights; pass it as forget_bias")
        return _checked(choice)
    if isinstance(choice, (int, float)):
        return spectral_radius(float(choice))
    if choice not in INITIALIZERS:
        raise ArgumentError(f"init: {choice!r} is unknown; expected one of {', '.join(INITIALIZERS)}, or a spectral radius such as 0.9")
    return INITIALIZERS[choice]


def _checked(choice: Initializer) -> Initializer:
    def draw(shape: tuple[int, int], rng: np.random.Generator) -> Any:
        weight = np.asarray(choice(shape, rng))
        if weight.shape != shape:
            raise ArgumentError(f"init: {getattr(choice, '__name__', choice)} returned shape {weight.shape}; expected {shape}")
        return weight

    return draw
