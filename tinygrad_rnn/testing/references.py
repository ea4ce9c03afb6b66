"""The recurrent steps of lecture notes, on row vectors: what a learner's forward function is compared with, to be recognised.

Written with operations that record, so that each is also a list of backward multiplications with names. A step takes (x, state…, weights…)
and returns the parts of the next state.

    RNN   h' = φ(x Wx + h Wh + b), φ = tanh or relu
    LSTM  a = x Wx + h Wh + b in four blocks, in any order;  c' = f ⊙ c + i ⊙ g;  h' = o ⊙ tanh(c')
    GRU   a in three blocks, in any order;  h' = z ⊙ h + (1 − z) ⊙ n, or with z and 1 − z exchanged;
          n = tanh(x Wx_n + b_n + r ⊙ (h Wh_n)), or with (r ⊙ h) Wh_n

Each also with the weights lying the other way, x Wxᵀ, and without a bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import ops
from ..tensor import landmark


@dataclass(frozen=True)
class Reference:
    """A step and what it is called.

    Attributes:
        parts: the number of arrays of its state.
        biased: whether its last weight is a bias.
    """

    title: str
    parts: int
    biased: bool
    step: Callable[..., tuple[Any, ...]]

    @property
    def arguments(self) -> int:
        """How many arrays the step takes."""
        return 3 + self.parts + self.biased


def _affine(x: Any, h: Any, wx: Any, wh: Any, b: Any, turned: bool) -> Any:
    a = x @ (wx.T if turned else wx) + h @ (wh.T if turned else wh)
    return a if b is None else a + b


def _blocks(a: Any, count: int) -> list[Any]:
    size = a.shape[-1] // count
    return [a[..., k * size : (k + 1) * size] for k in range(count)]


def _rnn(activation: Any, turned: bool) -> Callable[..., tuple[Any, ...]]:
    def step(x: Any, h: Any, wx: Any, wh: Any, b: Any = None) -> tuple[Any, ...]:
        return (landmark(activation(landmark(_affine(x, h, wx, wh, b, turned), "a")), "next_h"),)

    return step


def _lstm(order: tuple[str, ...], turned: bool) -> Callable[..., tuple[Any, ...]]:
    def step(x: Any, h: Any, c: Any, wx: Any, wh: Any, b: Any = None) -> tuple[Any, ...]:
        gates = {}
        for name, block in zip(order, _blocks(landmark(_affine(x, h, wx, wh, b, turned), "a"), 4), strict=True):
            pre = landmark(block, f"a_{name}")
            gates[name] = landmark(ops.tanh(pre) if name == "g" else ops.sigmoid(pre), name)
        cell = landmark(gates["f"] * c + gates["i"] * gates["g"], "next_c")
        return landmark(gates["o"] * landmark(ops.tanh(cell), "tanh(next_c)"), "next_h"), cell

    return step


def _gru(order: tuple[str, ...], turned: bool, reset: str, keeps: bool) -> Callable[..., tuple[Any, ...]]:
    def step(x: Any, h: Any, wx: Any, wh: Any, b: Any = None) -> tuple[Any, ...]:
        fed = x @ (wx.T if turned else wx)
        fed = fed if b is None else fed + b
        from_x = {name: landmark(block, f"x_{name}") for name, block in zip(order, _blocks(fed, 3), strict=True)}
        w = wh.T if turned else wh
        weights = {name: landmark(block, f"Wh_{name}") for name, block in zip(order, _blocks(w, 3), strict=True)}
        r = landmark(ops.sigmoid(landmark(from_x["r"] + h @ weights["r"], "a_r")), "r")
        z = landmark(ops.sigmoid(landmark(from_x["z"] + h @ weights["z"], "a_z")), "z")
        after = reset == "after"
        recalled = r * landmark(h @ weights["n"], "h Wh_n") if after else landmark(r * h, "r⊙h") @ weights["n"]
        n = landmark(ops.tanh(landmark(from_x["n"] + recalled, "a_n")), "n")
        fresh = landmark(1.0 - z, "(1 − z)")
        return (landmark(z * h + fresh * n if keeps else fresh * h + z * n, "next_h"),)

    return step


def _orders(letters: str, *common: str) -> list[tuple[str, ...]]:
    """All orders of the blocks, the common ones first."""
    rest = ["".join(order) for order in itertools.permutations(letters)]
    return [tuple(order) for order in dict.fromkeys([*common, *rest])]


_LSTM_ORDERS = _orders("ifog", "ifog", "ifgo", "figo")
_GRU_ORDERS = _orders("rzn", "rzn", "zrn")


def candidates(shapes: list[tuple[int, ...]], parts: int | None) -> Iterator[Reference]:
    """The steps that arrays of these shapes could be for, (x, state…, Wx, Wh[, b]), the commonest first.

    Args:
        shapes: of the step's arguments.
        parts: how many arrays it returns; None if that is not known.
    """
    for states, blocks, make in ((1, 1, _rnns), (2, 4, _lstms), (1, 3, _grus)):
        if parts is not None and parts != states:
            continue
        for biased in (True, False):
            if len(shapes) != 3 + states + biased or not _fit(shapes, states, blocks, biased):
                continue
            for turned in (False, True):
                wx, wh = shapes[1 + states], shapes[2 + states]
                inputs, size = shapes[0][-1], shapes[1][-1]
                wanted = ((inputs, blocks * size), (size, blocks * size))
                if (wx, wh) == tuple(shape[::-1] if turned else shape for shape in wanted):
                    yield from (Reference(title, states, biased, step) for title, step in make(turned))


def _fit(shapes: list[tuple[int, ...]], states: int, blocks: int, biased: bool) -> bool:
    if any(len(shape) != 2 for shape in shapes[: 3 + states]):
        return False
    size = shapes[1][-1]
    same = all(shape == (shapes[0][0], size) for shape in shapes[1 : 1 + states])
    return same and (not biased or shapes[-1] == (blocks * size,))


def _rnns(turned: bool) -> Iterator[tuple[str, Any]]:
    yield "an RNN step with tanh", _rnn(ops.tanh, turned)
    yield "an RNN step with relu", _rnn(ops.relu, turned)


def _lstms(turned: bool) -> Iterator[tuple[str, Any]]:
    for order in _LSTM_ORDERS:
        yield f"an LSTM step with the blocks {', '.join(order)}", _lstm(order, turned)


def _grus(turned: bool) -> Iterator[tuple[str, Any]]:
    for reset, keeps, order in itertools.product(("after", "before"), (True, False), _GRU_ORDERS):
        how = f"the reset gate {reset} the product, and {'z' if keeps else '1 − z'} keeping the past"
        yield f"a GRU step with the blocks {', '.join(order)}, {how}", _gru(order, turned, reset, keeps)
