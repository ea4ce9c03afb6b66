"""Weights to and from PyTorch: the same names, gate order and blocks, but another layout of the biases.

PyTorch's recurrent layers and cells have two bias vectors, ours have one, and the candidate of the GRU keeps a second one:

    PyTorch   bias_ih (G·H,), bias_hh (G·H,)
    ours      bias = bias_ih + bias_hh (G·H,)                                                     RNN, LSTM
              bias = bias_ih + [bias_hh_r, bias_hh_z, 0] (3H,),  bias_hn = bias_hh_n (H,)         GRU

since the reset gate multiplies ``h W_hnᵀ + b_hn`` and nothing else. The way back puts zeros where PyTorch's second vector is
redundant. Both directions read either layout, and none (``bias=False``), in cells and in layers of any depth and direction, anywhere
inside a larger model; all other entries pass through. The architecture is told by the shapes: W_hh has G·H rows and H columns, with
G = 1 for the RNN, 3 for the GRU and 4 for the LSTM. Nothing here needs PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArgumentError, DtypeError, ShapeError, StateError, UnsupportedError
from ..tensor import as_array
from .module import Module

_NAME = re.compile(r"((?:.*\.)?)(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh|bias_hn|bias)((?:_l\d+(?:_reverse)?)?)", re.DOTALL)
_GATES = {1: "RNN", 3: "GRU", 4: "LSTM"}


def from_torch(state: Any) -> dict[str, Any]:
    """PyTorch's ``state_dict`` as one for the same model built of our layers.

    Args:
        state: a dict of names to PyTorch tensors, NumPy arrays or anything that becomes one; or the PyTorch module itself.

    Returns:
        Copies, as NumPy arrays, to be given to ``load_state_dict``.

    Raises:
        ArgumentError: if it is no dict.
        StateError: if a layer lacks one of its weights or one of two biases.
        ShapeError: if the shapes are not those of an RNN, LSTM or GRU.
        DtypeError: for an entry that is no array of real numbers to NumPy (bfloat16: call ``.float()`` before).
        UnsupportedError: for an LSTM with ``proj_size``.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn
        >>> names = {"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 2), "bias_ih_l0": (8,), "bias_hh_l0": (8,)}
        >>> state = nn.interop.from_torch({name: np.ones(shape) for name, shape in names.items()})
        >>> list(state), state["bias_l0"][0].item()
        (['weight_ih_l0', 'weight_hh_l0', 'bias_l0'], 2.0)
        >>> _ = nn.LSTM(3, 2).load_state_dict(state)
    """
    return _translated("from_torch", state, two=False)


def to_torch(state: Any) -> dict[str, Any]:
    """Our ``state_dict`` as one for the same model built of PyTorch's layers.

    Args:
        state: one of our modules or its ``state_dict``. Give the module if you can: a ``GRU(reset="before", bias=False)``, for
            which PyTorch has no counterpart, looks in its state_dict like the other GRU.

    Returns:
        Copies, as NumPy arrays: ``torch_module.load_state_dict({n: torch.from_numpy(a) for n, a in to_torch(module).items()})``.
        A parameter held in two places is named once, so a PyTorch model with tied weights takes it with ``strict=False``.

    Raises:
        UnsupportedError: for a GRU that resets before the product.
        ArgumentError, StateError, ShapeError, DtypeError: as :func:`from_torch`.

    Example:
        >>> from tinygrad_rnn import nn
        >>> state = nn.interop.to_torch(nn.GRU(3, 2, rng=0))
        >>> {name: array.shape for name, array in state.items() if "bias" in name}
        {'bias_ih_l0': (6,), 'bias_hh_l0': (6,)}
        >>> state["bias_hh_l0"][:4].tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    if isinstance(state, Module):
        for path, module in state.named_modules():
            if getattr(getattr(module, "_recurrence", None), "apart_hn", False):
                raise UnsupportedError(_no_counterpart(f"to_torch: {path or type(module).__name__}"))
    return _translated("to_torch", state, two=True)


def _translated(operation: str, state: Any, two: bool) -> dict[str, Any]:
    """The entries of each recurrent layer in the layout of two biases or of one, where the layer's first entry stood."""
    entries = state.state_dict() if hasattr(state, "state_dict") else state
    if not isinstance(entries, Mapping) or not all(isinstance(name, str) for name in entries):
        raise ArgumentError(f"{operation}: expected a dict of names to arrays, got {type(state).__name__}. Did you mean .state_dict()?")
    arrays = {name: _array(operation, name, value) for name, value in entries.items()}
    layers: dict[tuple[str, str], dict[str, Any]] = {}
    for name, array in arrays.items():
        if (parts := _NAME.fullmatch(name)) is not None:
            layers.setdefault((parts[1], parts[3]), {})[parts[2]] = array
    translated: dict[str, Any] = {}
    for name, array in arrays.items():
        parts = _NAME.fullmatch(name)
        layer = {} if parts is None else layers[parts[1], parts[3]]
        if parts is None or layer.keys() <= {"bias"}:  # not recurrent: the bias of a Linear, say
            translated[name] = array
        elif parts[2] == next(iter(layer)):
            place = f"{operation}: {parts[1]}*{parts[3]}"
            translated.update({f"{parts[1]}{part}{parts[3]}": value for part, value in _layer(place, layer, two).items()})
    return translated


def _array(operation: str, name: str, value: Any) -> Any:
    """A writable copy as a NumPy array, of a PyTorch tensor on any device, a Tensor or an array."""
    try:
        for step in ("detach", "cpu", "numpy"):
            value = getattr(value, step)() if hasattr(value, step) else value
        return as_array(value, name).copy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(f"{operation}: {name} is no array of real numbers to NumPy ({error}). Convert it, say with .float()") from None


def _layer(place: str, layer: dict[str, Any], two: bool) -> dict[str, Any]:
    """The weights of one layer and direction, with its biases in the layout asked for."""
    if "weight_hr" in layer:
        raise UnsupportedError(f"{place} has weight_hr: an LSTM with proj_size has no counterpart here. Train it with proj_size=0")
    given = layer.keys() - {"weight_ih", "weight_hh"}
    biases = {"bias_ih", "bias_hh"} if given & {"bias_ih", "bias_hh"} else {"bias"} if given else set()
    if missing := sorted(({"weight_ih", "weight_hh"} | biases) - layer.keys()):
        raise StateError(f"{place} has {sorted(layer)} but lacks {missing}")
    if given - biases - ({"bias_hn"} if "bias" in biases else set()):
        raise StateError(f"{place} has {sorted(given)}; expected bias_ih and bias_hh, or bias, for the GRU with bias_hn, or none")
    weight_ih, weight_hh = layer["weight_ih"], layer["weight_hh"]
    rows, size = weight_hh.shape if weight_hh.ndim == 2 else (0, 0)
    gates = rows // size if size else 0
    if rows != gates * size or gates not in _GATES or weight_ih.ndim != 2 or len(weight_ih) != rows:
        shapes = f"weight_ih {weight_ih.shape} and weight_hh {weight_hh.shape}"
        raise ShapeError(f"{place} has {shapes}; expected (G·H, I) and (G·H, H) with G = 1 (RNN), 3 (GRU) or 4 (LSTM)")
    for name in given:
        if layer[name].shape != (expected := (size if name == "bias_hn" else rows,)):
            raise ShapeError(f"{place} has {name} of shape {layer[name].shape}; expected {expected} for the {_GATES[gates]}")
    return {"weight_ih": weight_ih, "weight_hh": weight_hh, **(_biases(place, layer, gates, size, two) if given else {})}


def _biases(place: str, layer: dict[str, Any], gates: int, size: int, two: bool) -> dict[str, Any]:
    gru = gates == 3
    if "bias_hn" in layer and not gru:
        raise StateError(f"{place} has bias_hn, which is for the GRU; its shapes are those of the {_GATES[gates]}")
    if two == ("bias_ih" in layer):  # it is in the layout asked for
        return {name: layer[name] for name in ("bias", "bias_ih", "bias_hh", "bias_hn") if name in layer}
    if two:
        if gru and "bias_hn" not in layer:
            raise UnsupportedError(_no_counterpart(place))
        second = np.zeros_like(layer["bias"])
        if gru:
            second[2 * size :] = layer["bias_hn"]
        return {"bias_ih": layer["bias"], "bias_hh": second}
    first, second = layer["bias_ih"], layer["bias_hh"]
    if not gru:
        return {"bias": first + second}
    return {"bias": np.concatenate([first[: 2 * size] + second[: 2 * size], first[2 * size :]]), "bias_hn": second[2 * size :].copy()}


def _no_counterpart(place: str) -> str:
    return f'{place} is a GRU with reset="before" (Cho et al. 2014); PyTorch has only the other one. Build it with reset="after"'
