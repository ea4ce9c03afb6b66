"""Ways around a layer: Residual adds its input, DenseBlock keeps all earlier features, Highway gates between the two.

Deep feed-forward networks lose their gradient as recurrent ones do, one Jacobian per layer. Each of these gives it a path on which
no matrix stands: an ``add`` edge (Residual), a ``route`` edge (DenseBlock), a ``scale`` edge ⊙ (1 − t) (Highway, the carry that an
LSTM calls its forget gate).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor, landmark
from .containers import Function, as_input, checked_function, name_of, one_tensor
from .init import Initializer, generator
from .linear import Linear
from .module import Module, checked_size

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Residual(Module):
    """y = x + F(x): the gradient of y reaches x unchanged, plus what comes back through F.

    In a trace the skip is the ``add`` edge from y to x; beside it stands the one from y to F(x).

    Args:
        module: F, a module or a function whose value has the shape of its argument.

    Raises:
        ShapeError: if F(x) has another shape than x.
        ArgumentError: if F gives a tuple, as the recurrent layers do.

    Source:
        He et al. 2016, equation 1.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
        >>> y = nn.Residual(nn.Linear(2, 2, init=0.0, bias=False))(x)
        >>> for step in tg.trace(y.sum()).filter(kind="add"):
        ...     print(step.node.symbol, "→", step.operand.symbol, step.contribution)
        y → x [1. 1.]
        y → F(x) [1. 1.]
    """

    def __init__(self, module: Module | Function) -> None:
        super().__init__()
        self.module = checked_function(self, "module", module)

    def forward(self, x: Any) -> Tensor:
        x = as_input(x)
        branch = as_input(one_tensor(self, self.module(x), f"module ({name_of(self.module)})"))
        if branch.shape != x.shape:
            raise ShapeError(
                f"Residual: {name_of(self.module)} turned shape {x.shape} into {branch.shape}; expected the same shape, since the two are "
                "added. Give it as many outputs as inputs, or change the width outside"
            )
        return landmark(x + (branch if branch is x else landmark(branch, "F(x)")), "y")


class DenseBlock(Module):
    """Every layer reads the input and the features of all layers before it; the result is all of them, side by side.

        h⁽⁰⁾ = x,  h⁽ˡ⁾ = φ([h⁽⁰⁾, …, h⁽ˡ⁻¹⁾] W_lᵀ + b_l),  y = [h⁽⁰⁾, …, h⁽ᴸ⁾]

    So a ``route`` edge leads from y straight to the features of every layer.

    Args:
        input_size: the length of the last axis of x.
        growth: how many features each layer adds.
        layers: L, how many layers there are.
        activation: φ, a function of one Tensor.
        bias, init, dtype, rng: as for :class:`Linear`.

    Shapes:
        x (…, input_size) → (…, output_size) with ``output_size`` = input_size + L · growth.

    Raises:
        ShapeError: if the last axis of x has another length.

    Source:
        Huang et al. 2017, equation 2, with matrices in the place of convolutions and without the batch normalisation.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> block = nn.DenseBlock(3, growth=2, layers=4, rng=0)
        >>> block(np.ones((5, 3))).shape, block.output_size
        ((5, 11), 11)
    """

    def __init__(
        self,
        input_size: int,
        growth: int,
        layers: int,
        *,
        activation: Function = ops.relu,
        bias: bool = True,
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = checked_size(self, "input_size", input_size)
        self.growth = checked_size(self, "growth", growth)
        self.activation = checked_function(self, "activation", activation)
        random = generator(rng)
        self.layers = [
            Linear(self.input_size + k * self.growth, self.growth, bias=bias, init=init, dtype=dtype, rng=random)
            for k in range(checked_size(self, "layers", layers))
        ]
        for depth, layer in enumerate(self.layers, 1):
            distinguish(layer, str(depth))
        self.output_size = self.input_size + len(self.layers) * self.growth

    def forward(self, x: Any) -> Tensor:
        x = as_input(x)
        _check_last(self, x, self.input_size)
        features = [x]
        for depth, layer in enumerate(self.layers, 1):
            seen = x if depth == 1 else landmark(ops.concatenate(features, axis=-1), "features")
            level = f"⁽{str(depth).translate(_RAISED)}⁾"
            features.append(landmark(self.activation(landmark(layer(seen), "a" + level)), "h" + level))
        return ops.concatenate(features, axis=-1)  # type: ignore[no-any-return]


class Highway(Module):
    """A layer with a gate that decides, unit by unit, how much is transformed and how much is carried over.

        y = t ⊙ H(x) + (1 − t) ⊙ x,   t = σ(x W_tᵀ + b_t),   H(x) = φ(x W_Hᵀ + b_H)

    It is to depth what the LSTM's cell is to time, with input and forget gate tied: i = t, f = 1 − t.

    Args:
        size: the length of the last axis of x and y.
        gate_bias: where b_t begins; negative, so that at first nearly everything is carried over: 1 − σ(−2) = 0.88.
        activation: φ, a function of one Tensor.
        init, dtype, rng: as for :class:`Linear`.

    Shapes:
        x (…, size) → (…, size).

    Raises:
        ShapeError: if the last axis of x has another length.
        ArgumentError: if gate_bias is not a finite number.

    Source:
        Srivastava, Greff & Schmidhuber 2015, equation 3.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> from tinygrad_rnn import nn
        >>> x = tg.tensor([[1.0, 2.0]], requires_grad=True, name="x")
        >>> y = nn.Highway(2, rng=0)(x)
        >>> [step.label for step in tg.trace(y.sum()).filter(kind="scale", gate="transform") if step.operand.symbol == "x"]
        ['⊙ (1−t)']
    """

    def __init__(
        self,
        size: int,
        *,
        gate_bias: float = -2.0,
        activation: Function = ops.relu,
        init: str | float | Initializer = "uniform",
        dtype: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        self.size = checked_size(self, "size", size)
        if isinstance(gate_bias, bool) or not isinstance(gate_bias, (int, float, np.number)) or not np.isfinite(gate_bias):
            raise ArgumentError(f"Highway: gate_bias must be a finite number, got {gate_bias!r}")
        self.activation = checked_function(self, "activation", activation)
        random = generator(rng)
        self.transform = Linear(self.size, self.size, init=init, dtype=dtype, rng=random)
        self.gate = Linear(self.size, self.size, init=init, dtype=dtype, rng=random)
        distinguish(self.transform, "H")
        distinguish(self.gate, "t", float(gate_bias))

    def forward(self, x: Any) -> Tensor:
        x = as_input(x)
        _check_last(self, x, self.size)
        fresh = landmark(self.activation(landmark(self.transform(x), "a_H")), "H")
        t = landmark(ops.sigmoid(landmark(self.gate(x), "a_t", gate="transform")), "t", "gate", gate="transform")
        carry = landmark(1.0 - t, "(1−t)", gate="transform")
        return landmark(t * fresh + carry * x, "y")


def distinguish(linear: Linear, index: str, bias: float | None = None) -> None:
    """Tell a layer's W and b from its neighbours', W_t and b_t, and let b begin at a number if one is given."""
    linear.weight.name = f"W_{index}"
    if linear.bias is not None:
        linear.bias.name = f"b_{index}"
        if bias is not None:
            linear.bias.value = np.full(linear.bias.shape, bias)


def _check_last(owner: Module, x: Tensor, size: int) -> None:
    if x.shape[-1:] != (size,):
        raise ShapeError(f"{type(owner).__name__}: expected x of shape (…, {size}), got {x.shape}")
