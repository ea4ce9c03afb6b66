"""The losses, composed from the operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops
from .errors import ArgumentError, ShapeError


def cross_entropy(logits: Any, targets: Any) -> Any:
    """Mean of −ln softmax(logits)[target], in nats.

    Args:
        logits: shape (…, C), unnormalised scores of C classes.
        targets: integer class numbers in [0, C), of shape (…).

    Returns:
        A scalar.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: for a target outside [0, C), or one that is not an integer.

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> round(float(tg.cross_entropy(np.zeros((3, 4)), [0, 1, 2])), 6)  # ln 4
        1.386294
    """
    logits = ops.routing.as_operand(logits, "cross_entropy: the logits")
    labels = np.asarray(ops.routing.as_operand(getattr(targets, "value", targets), "cross_entropy: the targets"))
    if logits.ndim == 0 or labels.shape != logits.shape[:-1]:
        raise ShapeError(f"cross_entropy: logits {logits.shape} need targets of shape {logits.shape[:-1]}, got {labels.shape}")
    classes = logits.shape[-1]
    if labels.size and labels.dtype.kind not in "iu":
        raise ArgumentError(f"cross_entropy: expected integer targets, got dtype {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ArgumentError(f"cross_entropy: targets go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}")
    rows = ops.reshape(ops.log_softmax(logits), (labels.size, classes))
    return -ops.mean(ops.getitem(rows, (np.arange(labels.size), labels.ravel().astype(np.intp))))


def mse(prediction: Any, target: Any) -> Any:
    """Mean squared error, over all entries.

    Raises:
        ShapeError: if the shapes differ (broadcasting a loss is nearly always a mistake).
    """
    prediction, target = ops.routing.as_operand(prediction, "mse: the prediction"), ops.routing.as_operand(target, "mse: the target")
    if prediction.shape != target.shape:
        raise ShapeError(f"mse: prediction {prediction.shape} and target {target.shape} differ in shape; reshape one of them")
    return ops.mean(ops.square(prediction - target))
