"""What keeps activations in order: Dropout and LayerNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor, as_tensor, landmark
from .containers import as_input
from .init import generator
from .module import Module, Parameter, checked_dtype, checked_size


class Dropout(Module):
    """Zeros entries at random while training, and scales the others so that the mean stays ("inverted" dropout).

        y = x ⊙ mask,  mask = 1/(1 − p) with probability 1 − p, and 0 with probability p

    The backward pass multiplies by the same mask: a trace shows it as ``⊙ mask``. In ``eval()``, and for p = 0, y is x; for p = 1 it is 0.

    Each call draws a fresh mask. A function that :func:`tinygrad_rnn.checkpoint` runs again would meet another one, and the backward
    pass would raise a GraphError; :class:`Checkpoint` brings back the same mask.

    Args:
        p: the probability that an entry becomes 0, in [0, 1].
        rng: a Generator, which the masks are drawn from, or a seed for one of its own.

    Raises:
        ArgumentError: for a p outside [0, 1].

    Source:
        Srivastava et al. 2014.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> dropout = nn.Dropout(0.5, rng=0)
        >>> dropout(np.ones(6)).value
        array([2., 0., 0., 0., 2., 2.])
        >>> dropout.eval()(np.ones(6)).value
        array([1., 1., 1., 1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | int | None = None) -> None:
        super().__init__()
        if isinstance(p, bool) or not isinstance(p, (int, float, np.number)) or not 0 <= p <= 1:
            raise ArgumentError(f"Dropout: p must be a probability from 0 to 1, got {p!r}")
        self.p = float(p)
        self._random = generator(rng)

    def _settings(self) -> dict[str, Any]:
        return {"p": self.p}

    def forward(self, x: Any) -> Tensor:
        given = as_input(x)
        if not self.training or self.p == 0.0:
            return given
        kept = self._random.random(given.shape) >= self.p
        dtype = given.dtype if given.dtype.kind == "f" else np.float64
        mask = kept * np.asarray(1.0 / (1.0 - self.p) if self.p < 1.0 else 0.0, dtype)
        return given * landmark(as_tensor(mask), "mask")


class LayerNorm(Module):
    """Shifts and scales each row to mean 0 and variance 1, then to a learned mean and scale.

        x̂ = (x − μ) ⊙ 1/σ,  σ² = mean (x − μ)² + ε;   y = γ ⊙ x̂ + β

    μ and σ are taken over the last axis, or axes, of each entry of the batch for itself.

    Args:
        normalized_shape: the length of the last axis, or the lengths of several.
        eps: ε, above 0, so that constant rows become 0 and not NaN.
        elementwise_affine: whether there are a γ (``weight``) and a β (``bias``).
        bias: whether there is a β beside γ.
        dtype: of the parameters; float64 by default.

    Shapes:
        x (…, *normalized_shape) → the same; weight and bias (*normalized_shape,), beginning at 1 and 0.

    Raises:
        ArgumentError: for an eps that is not above 0.
        ShapeError: if x does not end in normalized_shape.

    Source:
        Ba, Kiros & Hinton 2016.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> nn.LayerNorm(4)(np.array([1.0, 2.0, 3.0, 4.0])).value.round(3)
        array([-1.342, -0.447,  0.447,  1.342])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        lengths = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        self.normalized_shape = tuple(checked_size(self, "normalized_shape", length) for length in lengths)
        if not self.normalized_shape:
            raise ArgumentError("LayerNorm: normalized_shape must name at least one axis, got ()")
        if not 0 < eps < np.inf:
            raise ArgumentError(f"LayerNorm: eps must be a number above 0, got {eps!r}")
        self.eps = float(eps)
        kind = checked_dtype(self, dtype)
        self.weight = Parameter(np.ones(self.normalized_shape, kind), name="γ") if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, kind), name="β") if elementwise_affine and bias else None

    def forward(self, x: Any) -> Tensor:
        x = as_input(x)
        if x.shape[-len(self.normalized_shape) :] != self.normalized_shape:
            wanted = ", ".join(str(length) for length in self.normalized_shape)
            raise ShapeError(f"LayerNorm: expected x of shape (…, {wanted}), got {x.shape}")
        axes = tuple(range(-len(self.normalized_shape), 0))
        centred = landmark(x - landmark(ops.mean(x, axes, keepdims=True), "μ"), "(x−μ)")
        variance = ops.mean(ops.square(centred), axes, keepdims=True)
        sigma = landmark(ops.sqrt(variance + self.eps), "σ")
        y = landmark(centred / sigma, "x̂")
        y = y if self.weight is None else y * self.weight
        return landmark(y if self.bias is None else y + self.bias, "LN(x)")
