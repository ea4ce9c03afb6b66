"""Recurrent networks in plain NumPy, with backward passes derived by hand: what the engine is held to.

Nothing here comes from the package. A step is a function of (x, state, weights), a state is a tuple of arrays, and weights are a
dict of ``weight_ih`` (G·H, I), ``weight_hh`` (G·H, H), ``bias`` (G·H) and, for the GRU with reset after, ``bias_hn`` (H). The
steps also run on complex numbers, so that their Jacobians can be had by the complex step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any
State = tuple[Array, ...]
Weights = dict[str, Array]


class Cell(NamedTuple):
    """``forward`` gives the next state and what ``backward`` needs; ``backward`` turns the next state's cotangents into those of x,
    of the state before and of the weights."""

    gates: int
    parts: int
    forward: Callable[[Array, State, Weights], tuple[State, dict[str, Array]]]
    backward: Callable[[State, dict[str, Array], Weights], tuple[Array, State, Weights]]


def sigmoid(a: Array) -> Array:
    positive = a.real >= 0
    decay = np.exp(np.where(positive, -a, a))
    return np.where(positive, 1.0, decay) / (1.0 + decay)


def _weight_cotangents(da: Array, x: Array, h: Array) -> Weights:
    """For a pre-activation x W_ihᵀ + h W_hhᵀ + b."""
    return {"weight_ih": da.T @ x, "weight_hh": da.T @ h, "bias": da.sum(0)}


def rnn(nonlinearity: str = "tanh") -> Cell:
    """h' = φ(a), a = x W_ihᵀ + h W_hhᵀ + b."""

    def forward(x: Array, state: State, w: Weights) -> tuple[State, dict[str, Array]]:
        (h,) = state
        a = x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"]
        new = np.tanh(a) if nonlinearity == "tanh" else np.where(a.real > 0, a, 0.0)
        return (new,), {"x": x, "h": h, "a": a, "new": new}

    def backward(cotangents: State, k: dict[str, Array], w: Weights) -> tuple[Array, State, Weights]:
        (dh,) = cotangents
        da = dh * (1 - k["new"] ** 2) if nonlinearity == "tanh" else dh * (k["a"] > 0)
        return da @ w["weight_ih"], (da @ w["weight_hh"],), _weight_cotangents(da, k["x"], k["h"])

    return Cell(1, 1, forward, backward)


def lstm() -> Cell:
    """c' = f c + i g, h' = o tanh(c'); blocks i, f, g, o."""

    def forward(x: Array, state: State, w: Weights) -> tuple[State, dict[str, Array]]:
        h, c = state
        a = x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"]
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=-1)
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        cell = f * c + i * g
        return (o * np.tanh(cell), cell), {"x": x, "h": h, "c": c, "i": i, "f": f, "g": g, "o": o, "cell": cell}

    def backward(cotangents: State, k: dict[str, Array], w: Weights) -> tuple[Array, State, Weights]:
        dh, dc = cotangents
        i, f, g, o = k["i"], k["f"], k["g"], k["o"]
        shown = np.tanh(k["cell"])
        dc = dc + dh * o * (1 - shown**2)
        da = np.concatenate([dc * g * i * (1 - i), dc * k["c"] * f * (1 - f), dc * i * (1 - g**2), dh * shown * o * (1 - o)], axis=-1)
        return da @ w["weight_ih"], (da @ w["weight_hh"], dc * f), _weight_cotangents(da, k["x"], k["h"])

    return Cell(4, 2, forward, backward)


def gru(reset: str = "after") -> Cell:
    """h' = (1 − z) n + z h; blocks r, z, n; the reset gate acts after or before the product with W_hn."""

    def forward(x: Array, state: State, w: Weights) -> tuple[State, dict[str, Array]]:
        (h,) = state
        size = h.shape[-1]
        fed = x @ w["weight_ih"].T + w["bias"]
        gates = sigmoid(fed[:, : 2 * size] + h @ w["weight_hh"][: 2 * size].T)
        r, z = gates[:, :size], gates[:, size:]
        w_hn = w["weight_hh"][2 * size :]
        if reset == "after":
            recalled = h @ w_hn.T + w["bias_hn"]
            n = np.tanh(fed[:, 2 * size :] + r * recalled)
        else:
            recalled = r * h
            n = np.tanh(fed[:, 2 * size :] + recalled @ w_hn.T)
        return ((1 - z) * n + z * h,), {"x": x, "h": h, "r": r, "z": z, "n": n, "recalled": recalled}

    def backward(cotangents: State, k: dict[str, Array], w: Weights) -> tuple[Array, State, Weights]:
        (d,) = cotangents
        h, r, z, n, recalled = k["h"], k["r"], k["z"], k["n"], k["recalled"]
        size = h.shape[-1]
        w_hn = w["weight_hh"][2 * size :]
        da_z = d * (h - n) * z * (1 - z)
        da_n = d * (1 - z) * (1 - n**2)
        past = d * z
        if reset == "after":
            dr, through = da_n * recalled, da_n * r
            past = past + through @ w_hn
            dw_hn, extra = through.T @ h, {"bias_hn": through.sum(0)}
        else:
            through = da_n @ w_hn
            dr = through * h
            past = past + through * r
            dw_hn, extra = da_n.T @ recalled, {}
        da_rz = np.concatenate([dr * r * (1 - r), da_z], axis=-1)
        past = past + da_rz @ w["weight_hh"][: 2 * size]
        da = np.concatenate([da_rz, da_n], axis=-1)
        shares = {"weight_ih": da.T @ k["x"], "weight_hh": np.concatenate([da_rz.T @ h, dw_hn]), "bias": da.sum(0), **extra}
        return da @ w["weight_ih"], (past,), shares

    return Cell(3, 1, forward, backward)


def run(cell: Cell, xs: Array, state: State, weights: Weights) -> tuple[Array, list[State], list[dict[str, Array]]]:
    """Over a sequence (T, B, I): the outputs (T, B, H), every state from the initial one on, and what each step keeps."""
    states, kept = [state], []
    for x in xs:
        state, k = cell.forward(x, state, weights)
        states.append(state)
        kept.append(k)
    return np.stack([s[0] for s in states[1:]]), states, kept


def bptt(
    cell: Cell, kept: list[dict[str, Array]], weights: Weights, on_outputs: Array, on_last: State
) -> tuple[Array, State, Weights, list[State]]:
    """Backpropagation through time: cotangents of x, of the initial state, of the weights, and of every state (the initial one
    first), given those of the outputs and of the last state."""
    total = {name: np.zeros_like(w) for name, w in weights.items()}
    flowing = tuple(on_last)
    on_x, through = [], []
    for t in reversed(range(len(kept))):
        flowing = (flowing[0] + on_outputs[t], *flowing[1:])
        through.append(flowing)
        dx, flowing, shares = cell.backward(flowing, kept[t], weights)
        on_x.append(dx)
        for name, share in shares.items():
            total[name] = total[name] + share
    through.append(flowing)
    return np.stack(on_x[::-1]), flowing, total, through[::-1]


class Sequences(NamedTuple):
    """What :func:`run_layers` finds: outputs (T, B, D·H), final state with parts (L·D, B, H), and the gradients."""

    outputs: Array
    last: State
    on_x: Array
    on_state: State
    on_weights: list[Weights]


def run_layers(
    cell: Cell,
    x: Array,
    state: State,
    weights: list[Weights],
    on_outputs: Array,
    on_last: State,
    *,
    directions: int = 1,
    lengths: Array | None = None,
    residual: str | None = None,
    masks: list[Array] | None = None,
) -> Sequences:
    """Layers one above the other, each in one or two directions, and backpropagation through them.

    Nothing is padded or masked: every sequence runs by itself, at its own length. ``weights`` come layer by layer, the forward
    direction first, as do the rows of ``state`` (L·D, B, H); ``masks`` multiply what one layer hands to the next.
    """
    lengths = np.full(x.shape[1], len(x)) if lengths is None else lengths
    last = tuple(part.copy() for part in state)
    on_state = tuple(part.copy() for part in on_last)
    on_weights = [{name: np.zeros_like(w) for name, w in own.items()} for own in weights]
    layers = len(weights) // directions
    runs, inputs, fed = [], [], x
    split = (*x.shape[:2], directions, state[0].shape[-1])
    for layer in range(layers):
        inputs.append(fed)
        sides = np.zeros(split)
        for side in range(directions):
            k = layer * directions + side
            for b, n in enumerate(lengths):
                if n:
                    order = range(n)[:: -1 if side else 1]
                    part, states, kept = run(cell, fed[order, b : b + 1], tuple(p[k, b : b + 1] for p in state), weights[k])
                    sides[order, b, side] = part[:, 0]
                    runs.append((layer, side, k, b, order, kept))
                    for whole, own in zip(last, states[-1], strict=True):
                        whole[k, b] = own[0]
        outputs = np.concatenate([sides[:, :, side] for side in range(directions)], axis=-1)
        if residual == "skip" and layer:
            outputs = outputs + fed
        handed = outputs if masks is None or layer == layers - 1 else outputs * masks[layer]
        fed = np.concatenate([fed, handed], axis=-1) if residual == "dense" else handed
    on_handed, on_fed = on_outputs, np.zeros_like(fed)
    for layer in reversed(range(layers)):
        sides = on_handed.reshape(split)
        passed_on = on_fed if residual == "dense" and layer < layers - 1 else 0.0  # what the layers above read of this one's input
        on_fed = np.zeros_like(inputs[layer]) + passed_on
        if residual == "skip" and layer:
            on_fed += on_handed
        for _, side, k, b, order, kept in (r for r in runs if r[0] == layer):
            on_own, past, shares, _ = bptt(cell, kept, weights[k], sides[order, b : b + 1, side], tuple(p[k, b : b + 1] for p in on_last))
            on_fed[order, b] += on_own[:, 0]
            for whole, own in zip(on_state, past, strict=True):
                whole[k, b] = own[0]
            for name, share in shares.items():
                on_weights[k][name] += share
        if layer:
            width = inputs[layer - 1].shape[-1] if residual == "dense" else 0
            on_handed, on_fed = on_fed[..., width:], on_fed[..., :width]
            on_handed = on_handed if masks is None else on_handed * masks[layer - 1]
    return Sequences(outputs, last, on_fed, on_state, on_weights)


def step_jacobian(cell: Cell, x: Array, state: State, weights: Weights) -> Array:
    """∂s'/∂s of one step for one sequence (batch of 1) by the complex step: rows are the next state, columns the state before."""
    flat = np.concatenate([part[0] for part in state])
    columns = []
    for j in range(flat.size):
        moved = flat.astype(complex)
        moved[j] += 1e-30j
        new, _ = cell.forward(x, tuple(part[None] for part in np.split(moved, cell.parts)), weights)
        columns.append(np.concatenate([part[0] for part in new]).imag / 1e-30)
    return np.stack(columns, axis=1)


def lecture_lstm_step(x: Array, h: Array, c: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """The LSTMCell of the lecture notes: one matrix on [h, x], blocks f, i, c̃, o, for one sequence."""
    size = len(h)
    gates = w @ np.concatenate([h, x]) + b
    f = 1 / (1 + np.exp(-gates[:size]))
    i = 1 / (1 + np.exp(-gates[size : 2 * size]))
    candidate = np.tanh(gates[2 * size : 3 * size])
    o = 1 / (1 + np.exp(-gates[3 * size :]))
    cell = f * c + i * candidate
    return o * np.tanh(cell), cell


def difference(got: Array, expected: Array) -> float:
    """‖got − expected‖ / ‖expected‖; 0 where both are 0."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    scale = float(np.max(np.abs(expected), initial=0.0))
    off = float(np.max(np.abs(got - expected), initial=0.0))
    return off / scale if scale else off
