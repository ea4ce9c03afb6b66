"""The losses, composed from the operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops
from .errors import ArgumentError, ShapeError


def cross_entropy(logits: Any, targets: Any, *, ignore_index: int | None = None, reduction: str = "mean") -> Any:
    """−ln softmax(logits)[target], in nats.

    Args:
        logits: shape (…, C), unnormalised scores of C classes. (In PyTorch the classes are axis 1.)
        targets: integer class numbers in [0, C), of shape (…).
        ignore_index: the number of a target that does not count, such as padding; it need not be in [0, C). None, the default, ignores
            nothing, so that a stray −100 (PyTorch's default) is an error and not a silence.
        reduction: "mean" over the targets that count, "sum", or "none" for a loss of shape (…), 0 where the target is ignored.

    Returns:
        A scalar, or for "none" the shape of the targets.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: for a target outside [0, C), or one that is not an integer; for a mean over no targets, or over targets
            that are all ignored (PyTorch gives NaN).

    Example:
        >>> import numpy as np, tinygrad_rnn as tg
        >>> round(float(tg.cross_entropy(np.zeros((3, 4)), [0, 1, 2])), 6)  # ln 4
        1.386294
        >>> tg.cross_entropy(np.zeros((3, 4)), [0, -1, 2], ignore_index=-1, reduction="none").round(3)
        array([1.386, 0.   , 1.386])
    """
    _check_reduction("cross_entropy", reduction)
    logits = ops.routing.as_operand(logits, "cross_entropy: the logits")
    labels = np.asarray(ops.routing.as_operand(getattr(targets, "value", targets), "cross_entropy: the targets"))
    if logits.ndim == 0 or labels.shape != logits.shape[:-1]:
        raise ShapeError(f"cross_entropy: logits {logits.shape} need targets of shape {logits.shape[:-1]}, got {labels.shape}")
    classes = logits.shape[-1]
    if labels.size and labels.dtype.kind not in "iu":
        raise ArgumentError(f"cross_entropy: expected integer targets, got dtype {labels.dtype}")
    ignored = None if ignore_index is None else labels.ravel() == ignore_index
    shape, labels = labels.shape, labels.ravel() if ignored is None else np.where(ignored, 0, labels.ravel())
    if labels.size and (ignored is None or not ignored.all()) and (labels.min() < 0 or labels.max() >= classes):
        raise ArgumentError(f"cross_entropy: targets go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}")
    if reduction == "mean" and labels.size == 0:
        raise ArgumentError("cross_entropy: there are no targets; a mean of nothing is not a number. Use reduction='sum', which gives 0")
    rows = np.arange(labels.size), labels.astype(np.intp)
    if ignored is None or not ignored.any():
        picked = ops.getitem(ops.reshape(ops.log_softmax(logits), (labels.size, classes)), rows)
        return -_reduced(picked.reshape(shape) if reduction == "none" else picked, reduction)
    if reduction == "mean" and ignored.all():
        raise ArgumentError(
            f"cross_entropy: all {labels.size} targets are {ignore_index} and ignored; a mean of nothing is not a number. Leave this batch "
            "out, or use reduction='sum', which gives 0"
        )
    kept = ops.where(ignored[:, None], 0.0, ops.reshape(logits, (labels.size, classes)))  # also if a score there is not finite
    losses = ops.where(ignored, 0.0, -ops.getitem(ops.log_softmax(kept), rows))
    if reduction == "none":
        return losses.reshape(shape)
    return ops.sum(losses) / int(np.sum(~ignored)) if reduction == "mean" else ops.sum(losses)


def mse(prediction: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Squared error: its mean over all entries, or their sum, or ("none") each for itself.

    Raises:
        ShapeError: if the shapes differ (broadcasting a loss is nearly always a mistake).
        ArgumentError: for another reduction.

    Example:
        >>> import tinygrad_rnn as tg
        >>> float(tg.mse([1.0, 2.0], [0.0, 0.0])), float(tg.mse([1.0, 2.0], [0.0, 0.0], reduction="sum"))
        (2.5, 5.0)
    """
    _check_reduction("mse", reduction)
    prediction, target = ops.routing.as_operand(prediction, "mse: the prediction"), ops.routing.as_operand(target, "mse: the target")
    if prediction.shape != target.shape:
        raise ShapeError(f"mse: prediction {prediction.shape} and target {target.shape} differ in shape; reshape one of them")
    return _reduced(ops.square(prediction - target), reduction)


def bce_with_logits(logits: Any, targets: Any, *, reduction: str = "mean") -> Any:
    """Binary cross-entropy of the probability σ(x) with the target y, from the logit x itself, in nats.

        −y ln σ(x) − (1 − y) ln(1 − σ(x)) = y · softplus(−x) + (1 − y) · softplus(x)

    Written so, nothing overflows at ±1000, and a small loss keeps its digits, and its gradient too: for x = 30 and y = 1 both are
    9.4e-14, where σ(x) − y has three digits left.

    Args:
        logits: x, of any shape.
        targets: y, of the same shape: probabilities in [0, 1]; whole numbers and booleans take the dtype of the logits.
        reduction: "mean" over all entries, "sum", or "none" for each entry's loss.

    Raises:
        ShapeError: if the shapes differ.
        ArgumentError: for a target outside [0, 1] by more than rounding, or another reduction.

    Example:
        >>> import tinygrad_rnn as tg
        >>> tg.bce_with_logits([0.0, 1000.0, -1000.0], [1, 1, 1], reduction="none").round(3)
        array([6.93e-01, 0.00e+00, 1.00e+03])
    """
    _check_reduction("bce_with_logits", reduction)
    x = ops.routing.as_operand(logits, "bce_with_logits: the logits")
    y = ops.routing.as_operand(targets, "bce_with_logits: the targets")
    if x.shape != y.shape:
        raise ShapeError(f"bce_with_logits: logits {x.shape} and targets {y.shape} differ in shape; reshape one of them")
    given = getattr(y, "value", y)
    if not np.all((given > -_ROUNDING) & (given < 1 + _ROUNDING)):
        raise ArgumentError(f"bce_with_logits: targets go from {given.min()} to {given.max()}; expected probabilities in [0, 1]")
    if y.dtype.kind != "f":
        y = y.astype(x.dtype if x.dtype.kind == "f" else np.float64)
    return _reduced(y * ops.softplus(-1.0 * x) + (1.0 - y) * ops.softplus(x), reduction)


_ROUNDING = 1e-6
"""By how much a probability that was computed in float32 may miss [0, 1]."""


def _check_reduction(operation: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"{operation}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _reduced(losses: Any, reduction: str) -> Any:
    return losses if reduction == "none" else ops.mean(losses) if reduction == "mean" else ops.sum(losses)
