"""Maps without memory: Linear and Embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from .init import Initializer, generator, initializer, uniform
from .module import Module, Parameter, checked_dtype, checked_size


class Linear(Module):
    """y = x Wᵀ + b.

    Args:
        in_features, out_features: lengths of the last axis of x and of y.
        bias: whether there is a b.
        init: how W begins: "uniform" (±1/√in_features), "glorot", "he", "orthogonal", "identity", a spectral radius if it is square, or a
            function of shape and generator. b is uniform in ±1/√in_features always.
        dtype: of the parameters; float64 by default.
        rng: a Generator or a seed.

    Shapes:
        x (…, in_features) → y (…, out_features); weight (out_features, in_features); bias (out_features,).

    Raises:
        ShapeError: if the last axis of x has another length.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> nn.Linear(2, 3, init="identity", bias=False)(np.array([[5.0, 7.0]])).value
        array([[5., 7., 0.]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        random = generator(rng)
        kind = checked_dtype(self, dtype)
        self.in_features = checked_size(self, "in_features", in_features)
        self.out_features = checked_size(self, "out_features", out_features)
        shape = (self.out_features, self.in_features)
        self.weight = Parameter(initializer(init)(shape, random).astype(kind), name="W")
        self.bias = Parameter(uniform(shape, random)[:, :1].ravel().astype(kind), name="b") if bias else None

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
        padding_idx: the symbol that stands for nothing: its vector begins as zeros and never receives a gradient.
        init: how E begins; None draws it from N(0, 1), otherwise as for :class:`Linear`.
        dtype: of the parameter; float64 by default.
        rng: a Generator or a seed.

    Shapes:
        indices (…) of integers in [0, num_embeddings) → (…, embedding_dim); weight (num_embeddings, embedding_dim).

    Raises:
        ArgumentError: for an index that is out of range or not an integer.

    Example:
        >>> from tinygrad_rnn import nn
        >>> embed = nn.Embedding(5, 2, padding_idx=0, rng=0)
        >>> embed([[3, 1, 0]]).shape, embed(0).value
        ((1, 3, 2), array([0., 0.]))
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_idx: int | None = None,
        init: str | float | Initializer | None = None,
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        random = generator(rng)
        kind = checked_dtype(self, dtype)
        self.num_embeddings = checked_size(self, "num_embeddings", num_embeddings)
        self.embedding_dim = checked_size(self, "embedding_dim", embedding_dim)
        shape = (self.num_embeddings, self.embedding_dim)
        weight = (random.standard_normal(shape) if init is None else initializer(init)(shape, random)).astype(kind)
        self.padding_idx = None if padding_idx is None else self._checked(padding_idx).item()
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0.0
        self.weight = Parameter(weight, name="E")

    def _checked(self, indices: Any) -> Any:
        chosen = np.asarray(getattr(indices, "value", indices))
        if chosen.dtype.kind not in "iu" and chosen.size:
            raise ArgumentError(f"Embedding: expected integer indices, got dtype {chosen.dtype}")
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.num_embeddings):
            raise ArgumentError(f"Embedding: indices from {chosen.min()} to {chosen.max()}; expected 0 to {self.num_embeddings - 1}")
        return chosen.astype(np.intp)

    def forward(self, indices: Any) -> Tensor:
        chosen = self._checked(indices)
        vectors: Tensor = self.weight[chosen]
        if self.padding_idx is None:
            return vectors
        return ops.where((chosen == self.padding_idx)[..., None], self.weight.value[self.padding_idx], vectors)  # type: ignore[no-any-return]
