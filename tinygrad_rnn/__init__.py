"""tinygrad_rnn: a small NumPy autograd engine in which every backward multiplication is an object.

>>> import numpy as np, tinygrad_rnn as tg
>>> x = tg.tensor([[1.0, 2.0]], requires_grad=True, name="x")
>>> loss = np.tanh(x).sum()
>>> loss.backward(observers=[lambda step: print(step.kind, step.label)])
route broadcast
scale ⊙ (1 − tanh²)
"""

from __future__ import annotations

import importlib
from typing import Any

from . import errors, functional, ops
from . import numpy_protocol as _numpy_protocol  # noqa: F401 (gives Tensor its two methods for NumPy's functions)
from .functional import bce_with_logits, cross_entropy, mse
from .graph import scope
from .ops import (
    absolute,
    add,
    broadcast_to,
    clip,
    concatenate,
    cos,
    cumsum,
    diagonal,
    divide,
    dot,
    einsum,
    exp,
    expand_dims,
    expm1,
    flip,
    log,
    log1p,
    log_softmax,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    moveaxis,
    multiply,
    negative,
    norm,
    outer,
    pad,
    power,
    prod,
    ravel,
    reciprocal,
    relu,
    repeat,
    reshape,
    roll,
    sigmoid,
    sin,
    softmax,
    softplus,
    split,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    subtract,
    sum,
    swapaxes,
    take,
    tanh,
    tile,
    transpose,
    tril,
    triu,
    var,
    where,
    xlogy,
)
from .ops import absolute as abs
from .steps import BackwardStep
from .tensor import Tensor, landmark, tensor
from .trace import Trace, trace
from .transforms import checkpoint, detect_anomaly, enable_grad, grad, hessian, jacobian, jvp, no_grad, record_sources, vjp

__version__ = "0.1.0"

_LATER = ("experiments", "flow", "nn", "optim", "render", "tasks", "testing")


def __getattr__(name: str) -> Any:
    """Rooms that not everyone enters are loaded when they are first named: ``tg.render`` needs graphviz."""
    if name in _LATER:
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("load", "save"):
        return getattr(importlib.import_module(f"{__name__}.storage"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BackwardStep",
    "Tensor",
    "Trace",
    "abs",
    "absolute",
    "add",
    "bce_with_logits",
    "broadcast_to",
    "checkpoint",
    "clip",
    "concatenate",
    "cos",
    "cross_entropy",
    "cumsum",
    "detect_anomaly",
    "diagonal",
    "divide",
    "dot",
    "einsum",
    "enable_grad",
    "errors",
    "exp",
    "expand_dims",
    "expm1",
    "flip",
    "functional",
    "grad",
    "hessian",
    "jacobian",
    "jvp",
    "landmark",
    "load",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "mse",
    "multiply",
    "negative",
    "no_grad",
    "norm",
    "ops",
    "outer",
    "pad",
    "power",
    "prod",
    "ravel",
    "reciprocal",
    "record_sources",
    "relu",
    "repeat",
    "reshape",
    "roll",
    "save",
    "scope",
    "sigmoid",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "swapaxes",
    "take",
    "tanh",
    "tensor",
    "tile",
    "trace",
    "transpose",
    "tril",
    "triu",
    "var",
    "vjp",
    "where",
    "xlogy",
]
