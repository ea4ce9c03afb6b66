"""Maps without memory: Linear and Embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from . import init
from .module import Module, Parameter, checked_dtype, checked_size


class Linear(Module):
    """y = x Wᵀ + b.

    Args:
        in_features, out_features: lengths of the last axis of x and of y.
        bias: whether there is a b.
        dtype: of the parameters; float64 by default.
        rng: a Generator or a seed.

    Shapes:
        x (…, in_features) → y (…, out_features); weight (out_features, in_features); bias (out_features,).

    Initialised uniformly in ±1/√in_features, as in PyTorch.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, dtype: Any = None, rng: np.random.Generator | int | None = None
    ) -> None:
        super().__init__()
        random = init.generator(rng)
        kind = checked_dtype(self, dtype)
        self.in_features = checked_size(self, "in_features", in_features)
        self.out_features = checked_size(self, "out_features", out_features)
        shape = (self.out_features, self.in_features)
        self.weight = Parameter(init.uniform(shape, random).astype(kind), name="W")
        self.bias = Parameter(init.uniform(shape, random)[:, :1].ravel().astype(kind), name="b") if bias else None

    def forward(self, x: Any) -> Tensor:
        if ops.routing.shape_of(x)[-1:] != (self.in_features,):
            raise ShapeError(f"Linear: expected x of shape (…, {self.in_features}), got {ops.routing.shape_of(x)}")
        y: Tensor = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Embedding(Module):
    """A learned vector for each of a number of symbols: row lookup, whose gradient adds up in the rows that were used.

    Args:
        num_embeddings: how many symbols there are.
        embedding_dim: the length of each vector.

    Shapes:
        indices (…) of integers in [0, num_embeddings) → (…, embedding_dim). Initialised from N(0, 1).

    Raises:
        ArgumentError: for an index that is out of range or not an integer.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: Any = None, rng: np.random.Generator | int | None = None) -> None:
        super().__init__()
        random = init.generator(rng)
        kind = checked_dtype(self, dtype)
        self.num_embeddings = checked_size(self, "num_embeddings", num_embeddings)
        self.embedding_dim = checked_size(self, "embedding_dim", embedding_dim)
        self.weight = Parameter(random.standard_normal((self.num_embeddings, self.embedding_dim)).astype(kind), name="E")

    def forward(self, indices: Any) -> Tensor:
        chosen = np.asarray(getattr(indices, "value", indices))
        if chosen.dtype.kind not in "iu" and chosen.size:
            raise ArgumentError(f"Embedding: expected integer indices, got dtype {chosen.dtype}")
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.num_embeddings):
            raise ArgumentError(f"Embedding: indices from {chosen.min()} to {chosen.max()}; expected 0 to {self.num_embeddings - 1}")
        return self.weight[chosen.astype(np.intp)]
