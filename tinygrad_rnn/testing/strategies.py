"""Hypothesis strategies for shapes and arrays on which derivatives can be checked: small, and away from kinks and poles.

The only module of the package that imports Hypothesis. Shapes are drawn (and shrink); the numbers follow from a drawn seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

Shape = tuple[int, ...]
Domain = Callable[[np.random.Generator, Shape], Any]
"""Fills a shape with numbers."""


def real(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers in [−2, 2)."""
    return np.asarray(rng.uniform(-2.0, 2.0, shape))


def positive(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers in [0.4, 2.5)."""
    return np.asarray(rng.uniform(0.4, 2.5, shape))


def nonzero(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers of both signs, with |x| in [0.4, 2.5)."""
    return positive(rng, shape) * rng.choice([-1.0, 1.0], shape)


def spaced(rng: np.random.Generator, shape: Shape, offset: float = 0.0) -> Any:
    """Numbers of which no two are nearer to each other than 0.3 (nor, with offset ½, to those of another draw without)."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) - size // 2 + offset) * 0.8 + rng.uniform(0.0, 0.1, size)).reshape(shape)


def between(rng: np.random.Generator, shape: Shape) -> Any:
    """Like ``spaced``, and at least 0.3 from any number of such a draw."""
    return spaced(rng, shape, 0.5)


LENGTHS = st.sampled_from([2, 3, 1, 2, 3, 1, 2, 3, 0])
"""Lengths of axes: mostly not 0, since an empty array shows little."""


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0) -> st.SearchStrategy[Shape]:
    """Shapes with axes of up to 3 entries, now and then of 0 (unless ``min_side`` says otherwise)."""
    lengths = LENGTHS.filter(lambda n: n >= min_side)
    return st.integers(min_dims, max_dims).flatmap(lambda ndim: st.tuples(*[lengths] * ndim))


@st.composite
def stretchable(draw: st.DrawFn, count: int) -> tuple[tuple[Shape, ...], Shape]:
    """Several shapes that broadcast against each other, and what they broadcast to."""
    common = draw(shapes())
    drawn = [tuple(1 if draw(st.integers(0, 4)) == 1 else n for n in common[draw(st.integers(0, len(common))) :]) for _ in range(count - 1)]
    order = draw(st.permutations([common, *drawn]))
    return tuple(order), common


@st.composite
def arrays(draw: st.DrawFn, shape: Shape | st.SearchStrategy[Shape], domain: Domain = real) -> Any:
    """A float64 array of a shape (given or drawn) in a domain."""
    wanted = shape if isinstance(shape, tuple) else draw(shape)
    return domain(np.random.default_rng(draw(st.integers(0, 2**16))), wanted)


@st.composite
def broadcastable(draw: st.DrawFn, *domains: Domain) -> tuple[Any, ...]:
    """One array per domain, of shapes that broadcast against each other."""
    drawn, _ = draw(stretchable(len(domains)))
    return tuple(draw(arrays(shape, domain)) for shape, domain in zip(drawn, domains, strict=True))


def axes_of(ndim: int) -> st.SearchStrategy[Shape]:
    """Some of the axes of an array, in increasing order."""
    return st.sets(st.integers(0, ndim - 1)).map(lambda chosen: tuple(sorted(chosen))) if ndim else st.just(())
