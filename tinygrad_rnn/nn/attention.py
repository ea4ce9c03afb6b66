"""Attention: every position reads every other in one multiplication, where a recurrence takes one per step between them.

The axes are those of the recurrent layers: x (T, B, C), time first, or (T, C) without a batch; ``batch_first=True`` for (B, T, C).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor, landmark, tensor
from .containers import Function, as_input, checked_function
from .init import Initializer, generator
from .linear import Linear
from .module import Module, checked_size
from .regularization import Dropout, LayerNorm
from .residual import distinguish


class SelfAttention(Module):
    """Scaled dot-product attention of a sequence with itself, in several heads.

        Q, K, V = x W_Qᵀ + b_Q, x W_Kᵀ + b_K, x W_Vᵀ + b_V,   cut into heads of d = C/heads entries
        S = Q Kᵀ/√d,   A = softmax(S) over the positions that are read,   y = [A V of all heads, side by side] W_Oᵀ + b_O

    Row i of A says what position i reads, column j how much of position j. What may not be read has S = −∞ and A = 0, exactly.
    Q, K, V, S and A are landmarks, so the backward pass reads ``· V``, ``· K`` and so on.

    Args:
        size: C, the length of the last axis of x.
        heads: how many; they divide C.
        causal: whether a position reads only itself and those before it.
        dropout: the probability with which entries of A become 0 in training.
        bias: whether there are b_Q, b_K, b_V and b_O. (b_K adds the same number to a whole row of S: it changes nothing.)
        batch_first: whether x is (B, T, C).
        init: of the four matrices, as for :class:`Linear`; the biases begin at 0.
        dtype: of the parameters; float64 by default.
        rng: a Generator or a seed, for the matrices and for dropout.

    Called with (x, lengths=None, return_weights=False):
        lengths: how many positions of each sequence are real, whole numbers from 1 to T of shape (B,), or one number without a batch.
            The others are not read; what stands at them in y means nothing and is to be left out of the loss.
        return_weights: return (y, A), with A (B, heads, T, T) as it was before dropout, or (heads, T, T) without a batch.

    Raises:
        ArgumentError: if heads do not divide size, or a length is outside 1 to T.
        ShapeError: if x or lengths do not fit, or there are no positions.

    Source:
        Vaswani et al. 2017, equation 1 and section 3.2.2.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> attention = nn.SelfAttention(4, heads=2, causal=True, rng=0)
        >>> y, weights = attention(np.random.default_rng(0).normal(size=(3, 1, 4)), return_weights=True)
        >>> y.shape, weights.shape
        ((3, 1, 4), (1, 2, 3, 3))
        >>> weights.value[0, 0].round(2)
        array([[1.  , 0.  , 0.  ],
               [0.57, 0.43, 0.  ],
               [0.14, 0.09, 0.76]])
    """

    def __init__(
        self,
        size: int,
        heads: int = 1,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        init: str | float | Initializer = "glorot",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        self.size = checked_size(self, "size", size)
        self.heads = checked_size(self, "heads", heads)
        if self.size % self.heads:
            raise ArgumentError(f"SelfAttention: {self.heads} heads do not divide size {self.size}; expected a divisor of it")
        self.causal = bool(causal)
        self.batch_first = bool(batch_first)
        random = generator(rng)
        options: dict[str, Any] = {"bias": bias, "init": init, "dtype": dtype, "rng": random}
        self.query, self.key, self.value, self.out = (Linear(self.size, self.size, **options) for _ in range(4))
        for linear, letter in ((self.query, "Q"), (self.key, "K"), (self.value, "V"), (self.out, "O")):
            distinguish(linear, letter, 0.0)
        self.dropout = Dropout(dropout, rng=random)

    def forward(self, x: Any, lengths: Any = None, *, return_weights: bool = False) -> Any:
        x = as_input(x)
        turned = _checked_sequence(self, x, self.size, self.batch_first)
        x = ops.swapaxes(x, 0, 1) if turned else x  # (T, B, C), or (T, C)
        steps, *batch, _ = x.shape
        projections = ((self.query, "Q"), (self.key, "K"), (self.value, "V"))
        q, k, v = (landmark(self._cut(project(x)), symbol) for project, symbol in projections)  # each (B, heads, T, d)
        shrink = tensor(1.0 / math.sqrt(self.size // self.heads), dtype=q.dtype, name="1/√d")
        scores = landmark((q @ k.mT) * shrink, "S")  # (B, heads, T, T)
        readable = self._readable(steps, tuple(batch), lengths)
        if readable is not None:
            scores = ops.where(readable, scores, -math.inf)
        weights = landmark(ops.softmax(scores), "A")
        read = landmark(self.dropout(weights), "(mask⊙A)") @ v  # (B, heads, T, d)
        y = self.out(landmark(ops.reshape(ops.moveaxis(read, -2, 0), x.shape), "heads"))  # (T, B, C)
        y = ops.swapaxes(y, 0, 1) if turned else y
        return (y, weights) if return_weights else y

    def _cut(self, x: Tensor) -> Tensor:
        """(T, B, C) → (B, heads, T, d)."""
        return ops.moveaxis(ops.reshape(x, (*x.shape[:-1], self.heads, self.size // self.heads)), 0, -2)  # type: ignore[no-any-return]

    def _readable(self, steps: int, batch: tuple[int, ...], lengths: Any) -> Any:
        """Which position (row) may read which (column), to be broadcast against S; None if all may."""
        readable = np.tri(steps, dtype=bool) if self.causal else None
        if lengths is None:
            return readable
        counts = np.asarray(getattr(lengths, "value", lengths))
        if counts.shape != batch:
            raise ShapeError(f"SelfAttention: expected lengths of shape {batch}, one per sequence, got {counts.shape}")
        if counts.size and (counts.dtype.kind not in "iu" or counts.min() < 1 or counts.max() > steps):
            raise ArgumentError(f"SelfAttention: lengths must be whole numbers from 1 to {steps}, the number of positions, got {lengths}")
        real = np.arange(steps) < counts[..., None, None, None]  # (B, 1, 1, T)
        return real if readable is None else real & readable


class TransformerBlock(Module):
    """Attention, then a layer that works on each position for itself, each with a way around it.

        norm_first=True:   h = x + Attention(LN₁(x)),     y = h + MLP(LN₂(h))        (no norm stands on the way around: trains when deep)
        norm_first=False:  h = LN₁(x + Attention(x)),     y = LN₂(h + MLP(h))        (as first published)
        MLP(h) = φ(h W₁ᵀ + b₁) W₂ᵀ + b₂

    Args:
        size: C, the length of the last axis of x.
        heads: of the attention; they divide C.
        hidden: the width inside the MLP; 4 · size for None.
        causal: whether a position reads only itself and those before it.
        dropout: the probability with which entries become 0 in training: of A, of both branches, and inside the MLP.
        norm_first: where the norms stand, see above. PyTorch's default is False.
        activation: φ, a function of one Tensor.
        eps: of the norms.
        batch_first: whether x is (B, T, C).
        init: of all matrices, as for :class:`Linear`.
        dtype: of the parameters; float64 by default.
        rng: a Generator or a seed, for the matrices and for dropout.

    Called with (x, lengths=None), as :class:`SelfAttention`.

    Shapes:
        x (T, B, C) or (T, C) → the same.

    Raises:
        ArgumentError, ShapeError: as :class:`SelfAttention`.

    Source:
        Vaswani et al. 2017, section 3.1; norm_first: Xiong et al. 2020.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> model = nn.Sequential(nn.PositionalEncoding(8), *[nn.TransformerBlock(8, 2, causal=True, rng=k) for k in range(3)])
        >>> model(np.zeros((5, 2, 8))).shape
        (5, 2, 8)
    """

    def __init__(
        self,
        size: int,
        heads: int,
        hidden: int | None = None,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        norm_first: bool = True,
        activation: Function = ops.relu,
        eps: float = 1e-5,
        batch_first: bool = False,
        init: str | float | Initializer = "glorot",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        random = generator(rng)
        size = checked_size(self, "size", size)
        width = 4 * size if hidden is None else checked_size(self, "hidden", hidden)
        self.norm_first = bool(norm_first)
        self.activation = checked_function(self, "activation", activation)
        self.norm1 = LayerNorm(size, eps=eps, dtype=dtype)
        self.attention = SelfAttention(
            size, heads, causal=causal, dropout=dropout, batch_first=batch_first, init=init, dtype=dtype, rng=random
        )
        self.norm2 = LayerNorm(size, eps=eps, dtype=dtype)
        self.linear1 = Linear(size, width, init=init, dtype=dtype, rng=random)
        self.linear2 = Linear(width, size, init=init, dtype=dtype, rng=random)
        distinguish(self.linear1, "1")
        distinguish(self.linear2, "2")
        self.dropout = Dropout(dropout, rng=random)

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        x = as_input(x)
        if self.norm_first:
            h = landmark(x + self._attend(self.norm1(x), lengths), "h")
            return landmark(h + self._transform(self.norm2(h)), "y")
        h = landmark(self.norm1(x + self._attend(x, lengths)), "h")
        return landmark(self.norm2(h + self._transform(h)), "y")

    def _attend(self, x: Tensor, lengths: Any) -> Tensor:
        return landmark(self.dropout(self.attention(x, lengths)), "attention")

    def _transform(self, h: Tensor) -> Tensor:
        inner = landmark(self.activation(landmark(self.linear1(h), "a")), "φ(a)")
        return landmark(self.dropout(self.linear2(self.dropout(inner))), "mlp")


def sinusoidal(length: int, size: int) -> Any:
    """The code of each position in waves of different lengths, from 2π to 10,000 · 2π positions: an array (length, size).

        P[t, 2i] = sin(t / 10000^(2i/size)),   P[t, 2i + 1] = cos(t / 10000^(2i/size))

    Raises:
        ArgumentError: for a negative length or a size below 1.

    Source:
        Vaswani et al. 2017, section 3.5.

    Example:
        >>> from tinygrad_rnn import nn
        >>> nn.sinusoidal(2, 4).round(2)
        array([[0.  , 1.  , 0.  , 1.  ],
               [0.84, 0.54, 0.01, 1.  ]])
    """
    if length < 0 or size < 1:
        raise ArgumentError(f"sinusoidal: expected a length of at least 0 and a size of at least 1, got {length} and {size}")
    even = np.arange(0, size, 2)
    angles = np.arange(length)[:, None] * 10000.0 ** (-even / size)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, 2 * even.size)[:, :size]


class PositionalEncoding(Module):
    """y = x + P, with the :func:`sinusoidal` code of its position added to every entry of a sequence.

    Attention alone does not see order: with the positions permuted it gives the same vectors, permuted. P is fixed; no length is set
    beforehand.

    Args:
        size: C, the length of the last axis of x.
        batch_first: whether x is (B, T, C).

    Shapes:
        x (T, B, C) or (T, C) → the same.

    Raises:
        ShapeError: if x does not fit.

    Source:
        Vaswani et al. 2017, section 3.5.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> nn.PositionalEncoding(2)(np.zeros((3, 2))).value.round(2)
        array([[ 0.  ,  1.  ],
               [ 0.84,  0.54],
               [ 0.91, -0.42]])
    """

    def __init__(self, size: int, *, batch_first: bool = False) -> None:
        super().__init__()
        self.size = checked_size(self, "size", size)
        self.batch_first = bool(batch_first)

    def forward(self, x: Any) -> Tensor:
        x = as_input(x)
        turned = _checked_sequence(self, x, self.size, self.batch_first)
        code = sinusoidal(x.shape[1] if turned else x.shape[0], self.size)
        code = code[:, None] if x.ndim == 3 and not turned else code
        y: Tensor = x + tensor(code, dtype=x.dtype if x.dtype.kind == "f" else None, name="P")
        return y


def _checked_sequence(owner: Module, x: Tensor, size: int, batch_first: bool) -> bool:
    """Whether the batch comes first in x, once its shape is found to be right."""
    kind = type(owner).__name__
    if x.ndim not in (2, 3) or x.shape[-1] != size:
        order = "B, T" if batch_first else "T, B"
        raise ShapeError(f"{kind}: expected x of shape ({order}, {size}) or (T, {size}), got {x.shape}")
    turned = batch_first and x.ndim == 3
    if x.shape[1 if turned else 0] == 0:
        raise ShapeError(f"{kind}: x of shape {x.shape} has no positions; expected at least one")
    return turned
