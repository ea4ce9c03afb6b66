"""Initial values of weights. Every function takes the shape (rows, columns) and a random generator and returns an array.

Recurrent weights W_hh of G gates are G square blocks, one below the other; each block is drawn for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

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


INITIALIZERS: dict[str, Initializer] = {"uniform": uniform, "glorot": glorot, "orthogonal": orthogonal, "identity": identity}
"""The initialisers that can be chosen by name."""


def initializer(choice: str | float | Initializer) -> Initializer:
    """An initialiser by name, by spectral radius (a number), or as it is.

    Raises:
        ArgumentError: for a name that is not in ``INITIALIZERS``.
    """
    if callable(choice):
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
