# ruff: noqa: E501 (a mistake a line is easier to read than one on five)
"""check_backward: right backward functions pass, each known mistake is named, and what is none of them is not called by a wrong name."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import Any

import numpy as np
import pytest

from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.testing import BackwardReport, GradcheckError, check_backward

SIGMOID = """
def sigmoid(x):                                    # stable, and in place: it cannot be recorded, only recognised
    positive, z = x >= 0, np.zeros_like(x)
    z[positive] = np.exp(-x[positive])
    z[~positive] = np.exp(x[~positive])
    top = np.ones_like(x)
    top[~positive] = z[~positive]
    return top / (1 + z)
"""

RNN_STEP = """
def step_forward(x, prev_h, Wx, Wh, b):
    next_h = np.tanh(x @ Wx + prev_h @ Wh + b)
    return next_h, (x, prev_h, Wx, Wh, next_h)

def step_backward(dnext_h, cache):
    x, prev_h, Wx, Wh, next_h = cache
    da = dnext_h * (1 - next_h ** 2)
    dx = da @ Wx.T
    dprev_h = da @ Wh.T
    dWx = x.T @ da
    dWh = prev_h.T @ da
    db = da.sum(axis=0)
    return dx, dprev_h, dWx, dWh, db
"""

RNN = (
    RNN_STEP
    + """
def forward(x, h0, Wx, Wh, b):
    N, T, D = x.shape
    h, caches, prev = np.zeros((N, T, h0.shape[1])), [], h0
    for t in range(T):
        prev, cache = step_forward(x[:, t], prev, Wx, Wh, b)
        h[:, t] = prev
        caches.append(cache)
    return h, caches

def backward(dh, caches):
    N, T, H = dh.shape
    D = caches[0][0].shape[1]
    dx, dWx, dWh, db = np.zeros((N, T, D)), np.zeros((D, H)), np.zeros((H, H)), np.zeros(H)
    dprev = np.zeros((N, H))
    for t in reversed(range(T)):
        dnext = dh[:, t] + dprev
        dxt, dprev, dWxt, dWht, dbt = step_backward(dnext, caches[t])
        dx[:, t] = dxt
        dWx += dWxt
        dWh += dWht
        db += dbt
    dh0 = dprev
    return dx, dh0, dWx, dWh, db
"""
)

LSTM_STEP = (
    SIGMOID
    + """
def step_forward(x, prev_h, prev_c, Wx, Wh, b):
    a = x @ Wx + prev_h @ Wh + b
    ai, af, ao, ag = np.split(a, 4, axis=1)
    i, f, o, g = sigmoid(ai), sigmoid(af), sigmoid(ao), np.tanh(ag)
    next_c = f * prev_c + i * g
    next_h = o * np.tanh(next_c)
    return next_h, next_c, (x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c, next_h, ao)

def step_backward(dnext_h, dnext_c, cache):
    x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c, next_h, ao = cache
    tc = np.tanh(next_c)
    dc = dnext_c + dnext_h * o * (1 - tc ** 2)
    do = dnext_h * tc
    df = dc * prev_c
    di = dc * g
    dg = dc * i
    dprev_c = dc * f
    dai = di * i * (1 - i)
    daf = df * f * (1 - f)
    dao = do * o * (1 - o)
    dag = dg * (1 - g ** 2)
    da = np.concatenate([dai, daf, dao, dag], axis=1)
    dx = da @ Wx.T
    dprev_h = da @ Wh.T
    dWx = x.T @ da
    dWh = prev_h.T @ da
    db = da.sum(axis=0)
    return dx, dprev_h, dprev_c, dWx, dWh, db
"""
)

LSTM = (
    LSTM_STEP
    + """
def forward(x, h0, Wx, Wh, b):
    N, T, D = x.shape
    h, caches, prev_h, prev_c = np.zeros((N, T, h0.shape[1])), [], h0, np.zeros_like(h0)
    for t in range(T):
        prev_h, prev_c, cache = step_forward(x[:, t], prev_h, prev_c, Wx, Wh, b)
        h[:, t] = prev_h
        caches.append(cache)
    return h, caches

def backward(dh, caches):
    N, T, H = dh.shape
    D = caches[0][0].shape[1]
    dx, dWx, dWh, db = np.zeros((N, T, D)), np.zeros((D, 4 * H)), np.zeros((H, 4 * H)), np.zeros(4 * H)
    dprev, dprev_c = np.zeros((N, H)), np.zeros((N, H))
    for t in reversed(range(T)):
        dnext = dh[:, t] + dprev
        dxt, dprev, dprev_c, dWxt, dWht, dbt = step_backward(dnext, dprev_c, caches[t])
        dx[:, t] = dxt
        dWx += dWxt
        dWh += dWht
        db += dbt
    dh0 = dprev
    return dx, dh0, dWx, dWh, db
"""
)

GRU_STEP = (
    SIGMOID
    + """
def step_forward(x, prev_h, Wx, Wh, b):
    H = prev_h.shape[1]
    u = x @ Wx + b
    r = sigmoid(u[:, :H] + prev_h @ Wh[:, :H])
    z = sigmoid(u[:, H:2 * H] + prev_h @ Wh[:, H:2 * H])
    m = prev_h @ Wh[:, 2 * H:]
    n = np.tanh(u[:, 2 * H:] + r * m)
    next_h = (1 - z) * n + z * prev_h
    return next_h, (x, prev_h, Wx, Wh, r, z, m, n)

def step_backward(dnext_h, cache):
    x, prev_h, Wx, Wh, r, z, m, n = cache
    H = prev_h.shape[1]
    dn = dnext_h * (1 - z)
    dz = dnext_h * (prev_h - n)
    dprev_h = dnext_h * z
    dan = dn * (1 - n ** 2)
    dr = dan * m
    dm = dan * r
    dar = dr * r * (1 - r)
    daz = dz * z * (1 - z)
    du = np.concatenate([dar, daz, dan], axis=1)
    dv = np.concatenate([dar, daz, dm], axis=1)
    dx = du @ Wx.T
    dprev_h = dprev_h + dv @ Wh.T
    dWx = x.T @ du
    dWh = prev_h.T @ dv
    db = du.sum(axis=0)
    return dx, dprev_h, dWx, dWh, db
"""
)

GRU = GRU_STEP + RNN[len(RNN_STEP) :].replace(
    "np.zeros((D, H)), np.zeros((H, H)), np.zeros(H)", "np.zeros((D, 3 * H)), np.zeros((H, 3 * H)), np.zeros(3 * H)"
)

SOURCES = {"rnn step": RNN_STEP, "lstm step": LSTM_STEP, "gru step": GRU_STEP, "rnn": RNN, "lstm": LSTM, "gru": GRU}
BLOCKS = {"rnn": 1, "lstm": 4, "gru": 3}


def made(kind: str, *changes: tuple[str, str]) -> tuple[Any, Any]:
    """Forward and backward of a source, with lines changed."""
    source = SOURCES[kind]
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in the source"
        source = source.replace(old, new)
    names: dict[str, Any] = {"np": np}
    exec(source, names)
    return (names["step_forward"], names["step_backward"]) if "step" in kind else (names["forward"], names["backward"])


def inputs(kind: str, *, batch: int = 2, steps: int = 3, inputs: int = 3, hidden: int = 3, seed: int = 0) -> list[Any]:
    """Square by default, so that a transposed weight has the right shape."""
    rng = np.random.default_rng(seed)
    name, _, form = kind.partition(" ")
    count = BLOCKS[name] * hidden
    shapes = [(batch, inputs) if form else (batch, steps, inputs), (batch, hidden)]
    shapes += [(batch, hidden)] * (kind == "lstm step") + [(inputs, count), (hidden, count), (count,)]
    return [rng.normal(size=shape) * 0.6 for shape in shapes]


def report(kind: str, *changes: tuple[str, str], **sizes: int) -> BackwardReport:
    return check_backward(*made(kind, *changes), *inputs(kind, **sizes))


# -- right ones -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(
    "sizes",
    [{}, {"batch": 1}, {"hidden": 1}, {"batch": 1, "hidden": 1, "inputs": 1}, {"steps": 1}, {"inputs": 2, "hidden": 5}],
    ids=lambda sizes: ",".join(f"{k}={v}" for k, v in sizes.items()) or "square",
)
def test_a_right_one_passes(kind: str, sizes: dict[str, int]) -> None:
    """No false alarm, at any size; the forward function is recognised."""
    found = report(kind, **sizes)
    assert found.ok, str(found)
    assert found.check() is found
    assert {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[kind.partition(" ")[0]] in found.forward
    assert "all" in found.sentences[0] and "right" in found.sentences[0]


# -- wrong ones -----------------------------------------------------------------------------------------------------------------

STEP_FAULTS: list[tuple[str, str, list[tuple[str, str]], str]] = [
    ("rnn step", "missing derivative", [("da = dnext_h * (1 - next_h ** 2)", "da = dnext_h")], r"derivative of tanh, ⊙ \(1 − next_h²\), is missing"),
    ("rnn step", "derivative at the wrong value", [("(1 - next_h ** 2)", "(1 - np.tanh(next_h) ** 2)")], r"factor is \(1 − tanh²\(next_h\)\) where \(1 − next_h²\)"),
    ("rnn step", "derivative at the state before", [("(1 - next_h ** 2)", "(1 - prev_h ** 2)")], r"factor is \(1 − prev_h²\)"),
    ("rnn step", "derivative without square", [("(1 - next_h ** 2)", "(1 - next_h)")], r"factor is \(1 − next_h\)"),
    ("rnn step", "sigmoid's derivative for tanh's", [("(1 - next_h ** 2)", "next_h * (1 - next_h)")], r"factor is next_h \(1 − next_h\)"),
    ("rnn step", "h² for 1 − h²", [("(1 - next_h ** 2)", "next_h ** 2")], r"factor is next_h² where \(1 − next_h²\) belongs"),
    ("rnn step", "transposed Wh", [("da @ Wh.T", "da @ Wh")], r"transposed: @ Wh where @ Wh\.T belongs"),
    ("rnn step", "transposed Wx", [("da @ Wx.T", "da @ Wx")], r"transposed: @ Wx where @ Wx\.T belongs"),
    ("rnn step", "transposed dWh", [("prev_h.T @ da", "(prev_h.T @ da).T")], r"product that gives dWh is transposed|transpose of the right"),
    ("rnn step", "Wx for Wh", [("da @ Wh.T", "da @ Wx.T")], r"multiplies by Wx where Wh belongs"),
    ("rnn step", "next_h for prev_h", [("prev_h.T @ da", "next_h.T @ da")], r"multiplies by next_h where prev_h belongs"),
    ("rnn step", "x for prev_h", [("prev_h.T @ da", "x.T @ da")], r"multiplies by x where prev_h belongs"),
    ("rnn step", "bias not summed", [("da.sum(axis=0)", "da")], r"not summed over axis 0"),
    ("rnn step", "bias averaged", [("da.sum(axis=0)", "da.mean(axis=0)")], r"averaged|1/2 of the right one"),
    ("rnn step", "bias of one row", [("da.sum(axis=0)", "da[0]")], r"only the first row"),
    ("rnn step", "bias of the last row", [("da.sum(axis=0)", "da[-1]")], r"only the last row"),
    ("rnn step", "sign", [("da = dnext_h *", "da = -dnext_h *")], r"negative of the right one|sign is wrong"),
    ("rnn step", "sign of one", [("da @ Wx.T", "-da @ Wx.T")], r"sign is wrong"),
    ("rnn step", "factor two", [("da = dnext_h *", "da = 2 * dnext_h *")], r"every gradient is 2 times the right one"),
    ("rnn step", "mean over the batch", [("x.T @ da", "x.T @ da / x.shape[0]")], r"1/2 of the right one, and 2 is the length of axis 0 of x: as if a mean stood"),
    ("rnn step", "never computed", [("prev_h.T @ da", "np.zeros_like(Wh)")], r"zero everywhere"),
    ("rnn step", "order of the results", [("return dx, dprev_h, dWx", "return dx, dprev_h, dWh"), ("dWh, dWh, db", "dWh, dWx, db")], r"it is dWh: the gradients are returned in another order"),
    ("rnn step", "derivative for x only", [("dx = da @ Wx.T", "dx = dnext_h @ Wx.T")], r"derivative of tanh, ⊙ \(1 − next_h²\), is missing here: it begins with dnext_h where d\(x @ Wx\) belongs"),
    ("rnn step", "(1 − h)² for 1 − h²", [("(1 - next_h ** 2)", "(1 - next_h) ** 2")], r"factor is \(1 − next_h\)² where \(1 − next_h²\)"),
    ("rnn step", "bias summed over the other axis", [("da.sum(axis=0)", "da.sum(axis=1)")], r"db is summed over axis 1 where axis 0 belongs"),
    ("lstm step", "missing tanh(c)'", [("o * (1 - tc ** 2)", "o")], r"derivative of tanh, ⊙ \(1 − tanh\(next_c\)²\), is missing"),
    ("lstm step", "missing sigmoid'", [("df * f * (1 - f)", "df")], r"derivative of sigmoid.* is missing from f to a_f"),
    ("lstm step", "missing candidate's tanh'", [("dg * (1 - g ** 2)", "dg")], r"derivative of tanh.* is missing from g to a_g"),
    ("lstm step", "sigmoid' at the pre-activation", [("do * o * (1 - o)", "do * ao * (1 - ao)")], r"factor is a_o \(1 − a_o\)"),
    ("lstm step", "sigmoid' of the sigmoid", [("do * o * (1 - o)", "do * sigmoid(o) * (1 - sigmoid(o))")], r"factor is σ\(o\) \(1 − σ\(o\)\)"),
    ("lstm step", "tanh' for a sigmoid", [("di * i * (1 - i)", "di * (1 - i ** 2)")], r"factor is \(1 − i²\)"),
    ("lstm step", "next_c for prev_c", [("dc * prev_c", "dc * next_c")], r"factor is next_c where prev_c belongs"),
    ("lstm step", "c for tanh(c)", [("do = dnext_h * tc", "do = dnext_h * next_c")], r"factor is next_c where tanh\(next_c\) belongs"),
    ("lstm step", "tanh' of c without tanh", [("o * (1 - tc ** 2)", "o * (1 - next_c ** 2)")], r"factor is \(1 − next_c²\)"),
    ("lstm step", "tanh' taken at h", [("o * (1 - tc ** 2)", "o * (1 - next_h ** 2)")], r"factor is \(1 − next_h²\)"),
    ("lstm step", "dnext_c not used", [("dc = dnext_c + dnext_h", "dc = dnext_h")], r"cotangent dnext_c that comes in is not used"),
    ("lstm step", "no path from h to c", [("dc = dnext_c + dnext_h * o * (1 - tc ** 2)", "dc = dnext_c")], r"path from (next_h to tanh\(next_c\)|tanh\(next_c\) to next_c) is missing"),
    ("lstm step", "i for f", [("dprev_c = dc * f", "dprev_c = dc * i")], r"factor is i where f belongs"),
    ("lstm step", "1 − f for f", [("dprev_c = dc * f", "dprev_c = dc * (1 - f)")], r"factor is (1 − f|\(1 − f\)) where f belongs"),
    ("lstm step", "forget gate missing", [("dprev_c = dc * f", "dprev_c = dc")], r"factor f is missing from f \* prev_c to prev_c"),
    ("lstm step", "gates exchanged", [("[dai, daf, dao, dag]", "[daf, dai, dao, dag]")], r"blocks of a_f and a_i are exchanged|blocks of a_i and a_f are exchanged"),
    ("lstm step", "gates in another order", [("[dai, daf, dao, dag]", "[dag, dai, daf, dao]")], r"blocks of .* in da are in another order"),
    ("lstm step", "no sigmoid'", [("df * f * (1 - f)", "df"), ("di * i * (1 - i)", "di"), ("do * o * (1 - o)", "do")], r"derivative of every sigmoid is missing"),
    ("lstm step", "all sigmoid' like tanh'", [("df * f * (1 - f)", "df * (1 - f ** 2)"), ("di * i * (1 - i)", "di * (1 - i ** 2)"), ("do * o * (1 - o)", "do * (1 - o ** 2)")], r"derivative of every y = sigmoid is taken as \(1 − y²\)"),
    ("lstm step", "dnext_c for dc", [("dprev_c = dc * f", "dprev_c = dnext_c * f")], r"cotangent dnext_h that comes in is not used|begins with"),
    ("lstm step", "missing o in dc", [("dnext_h * o * (1 - tc ** 2)", "dnext_h * (1 - tc ** 2)")], r"factor o is missing"),
    ("lstm step", "bias not summed", [("da.sum(axis=0)", "da")], r"not summed over axis 0"),
    ("gru step", "z for 1 − z", [("dn = dnext_h * (1 - z)", "dn = dnext_h * z")], r"factor is z where \(1 − z\) belongs"),
    ("gru step", "1 − z for z", [("dprev_h = dnext_h * z", "dprev_h = dnext_h * (1 - z)")], r"factor is 1 − z where z belongs"),
    ("gru step", "missing direct path", [("dprev_h = dprev_h + dv", "dprev_h = dv")], r"path from z \* prev_h to prev_h is missing"),
    ("gru step", "only the direct path", [("dprev_h = dprev_h + dv @ Wh.T", "dprev_h = dprev_h")], r"only the share from z \* prev_h to prev_h is kept: = where \+="),
    ("gru step", "sign of dz", [("(prev_h - n)", "(n - prev_h)")], r"sign is wrong from z to a_z"),
    ("gru step", "missing −n in dz", [("(prev_h - n)", "prev_h")], r"path from \(1 − z\) \* n to \(1 − z\) is missing"),
    ("gru step", "missing reset in dm", [("dm = dan * r", "dm = dan")], r"factor r is missing"),
    ("gru step", "reset through h", [("dr = dan * m", "dr = dan * prev_h")], r"factor is prev_h where h Wh_n belongs"),
    ("gru step", "dn for dan in dr", [("dr = dan * m", "dr = dn * m")], r"derivative of tanh.* is missing here: it begins with dn where"),
    ("gru step", "missing tanh'", [("dn * (1 - n ** 2)", "dn")], r"derivative of tanh.* is missing"),
    ("gru step", "missing sigmoid' of z", [("dz * z * (1 - z)", "dz")], r"derivative of sigmoid.* is missing from z to a_z"),
]  # fmt: skip

TIME_FAULTS: list[tuple[str, str, list[tuple[str, str]], str]] = [
    *((kind, what, changes, match) for kind in ("rnn", "lstm", "gru") for what, changes, match in [
        ("missing dnext_h", [("dnext = dh[:, t] + dprev", "dnext = dh[:, t]")], r"hands back \(dnext_h\) is not added"),
        ("outputs forgotten", [("dnext = dh[:, t] + dprev", "dnext = dh[:, t] if t == T - 1 else dprev")], r"cotangents of the outputs are not added"),
        ("= for += in dWh", [("dWh += dWht", "dWh = dWht")], r"assigned \(=\) where it must be added"),
        ("= for += in all", [("dWh += dWht", "dWh = dWht"), ("dWx += dWxt", "dWx = dWxt"), ("db += dbt", "db = dbt")], r"assigned \(=\)"),
        ("loop forward", [("in reversed(range(T))", "in range(T)")], r"loop runs forward in time"),
        ("first step left out", [("in reversed(range(T))", "in range(T - 1, 0, -1)")], r"first time step is left out"),
        ("last step left out", [("in reversed(range(T))", "in reversed(range(T - 1))")], r"last time step is left out"),
        ("dh of the step before", [("dnext = dh[:, t] + dprev", "dnext = dh[:, t - 1] + dprev")], r"output's cotangent is off by one: step t reads that of step t − 1"),
        ("cache of the step before", [("caches[t])", "caches[t - 1])")], r"cache is off by one: step t uses the values of step t − 1"),
        ("outputs read backwards", [("dnext = dh[:, t] + dprev", "dnext = dh[:, T - 1 - t] + dprev")], r"cotangents of the outputs are read in the wrong order"),
        ("always the last output", [("dnext = dh[:, t] + dprev", "dnext = dh[:, -1] + dprev")], r"every step reads the last output's cotangent"),
        ("caches read backwards", [("caches[t])", "caches[T - 1 - t])")], r"caches are read in the wrong order"),
        ("dx written backwards", [("dx[:, t] = dxt", "dx[:, T - 1 - t] = dxt")], r"gradient of x is in the wrong order"),
        ("dx of the step before", [("dx[:, t] = dxt", "dx[:, t - 1] = dxt")], r"written to step t − 1"),
        ("dh0 not handed back", [("dh0 = dprev", "dh0 = dnext")], r"not yet handed back through the first step"),
        ("dh0 is the first output's", [("dh0 = dprev", "dh0 = dh[:, 0]")], r"first output's cotangent"),
        ("transposed within the step", [("prev_h.T @ da" if kind != "gru" else "x.T @ du", "x.T @ da" if kind != "gru" else "prev_h.T @ du")], r"multiplies by (x where prev_h|prev_h where x) belongs"),
        ("dnext added up", [("dxt, dprev, dWxt", "dxt, own, dWxt"), ("dx[:, t] = dxt", "dx[:, t] = dxt; dprev = dprev + own")] if kind != "lstm" else [("dxt, dprev, dprev_c", "dxt, own, own_c"), ("dx[:, t] = dxt", "dx[:, t] = dxt; dprev = dprev + own; dprev_c = dprev_c + own_c")], r"added up \(\+=\) where it must be replaced"),
    ]),
    ("rnn", "transposed Wh", [("da @ Wh.T", "da @ Wh")], r"transposed: @ Wh where @ Wh\.T belongs"),
    ("rnn", "missing tanh'", [("* (1 - next_h ** 2)", "")], r"derivative of tanh.* is missing"),
    ("lstm", "dprev_c not handed on", [("step_backward(dnext, dprev_c, caches[t])", "step_backward(dnext, 0 * dprev_c, caches[t])")], r"dnext_c.* is not used"),
    ("lstm", "missing sigmoid'", [("df * f * (1 - f)", "df")], r"derivative of sigmoid.* is missing from f to a_f"),
    ("gru", "1 − z for z", [("dprev_h = dnext_h * z", "dprev_h = dnext_h * (1 - z)")], r"factor is 1 − z where z belongs"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "changes", "match"), [pytest.param(k, c, m, id=f"{k}: {what}") for k, what, c, m in STEP_FAULTS + TIME_FAULTS]
)
def test_a_mistake_is_named(kind: str, changes: list[tuple[str, str]], match: str) -> None:
    """Each known mistake is called by its name, and every gradient that is wrong has an explanation."""
    found = report(kind, *changes)
    text = "\n".join(found.sentences)
    assert not found.ok
    assert all(gradient.right or gradient.explanation for gradient in found.gradients), text
    assert re.search(match, text), text


def test_every_wrong_gradient_is_wrong_and_every_right_one_right() -> None:
    """A transposed W_hh in dprev_h makes dprev_h wrong, and nothing else."""
    found = report("rnn step", ("da @ Wh.T", "da @ Wh"))
    assert [gradient.right for gradient in found.gradients] == [True, False, True, True, True]
    wrong = found.gradients[1]
    assert wrong.name == "dprev_h" and wrong.entry is not None
    assert found.fault == wrong.explanation == "the weight is transposed: @ Wh where @ Wh.T belongs, from prev_h @ Wh to prev_h"
    assert 0.01 < wrong.error < 100 and max(gradient.error for gradient in found.gradients if gradient.right) < 1e-8


# -- two at once, and what is none of them --------------------------------------------------------------------------------------

TWO = [
    ("rnn step", [("da @ Wh.T", "da @ Wh"), ("da.sum(axis=0)", "da")], ["", "transposed: @ Wh", "", "", "not summed over axis 0"]),
    ("rnn step", [("* (1 - next_h ** 2)", ""), ("da @ Wh.T", "da @ Wh")], ["tanh"] * 5),
    ("rnn step", [("* (1 - next_h ** 2)", ""), ("da.sum(axis=0)", "da")], ["derivative of tanh"] * 5),
    ("rnn step", [("x.T @ da", "2 * x.T @ da"), ("da @ Wx.T", "-da @ Wx.T")], ["sign|negative", "", "2 times", "", ""]),
    ("gru step", [("dn * (1 - n ** 2)", "dn"), ("dprev_h = dnext_h * z", "dprev_h = dnext_h * (1 - z)")], ["tanh"] * 5),
    ("lstm step", [("df * f * (1 - f)", "df"), ("o * (1 - tc ** 2)", "o")], ["sigmoid.*tanh|tanh.*sigmoid"] * 2 + ["tanh"] + ["sigmoid.*tanh|tanh.*sigmoid"] * 3),
    ("rnn", [("dnext = dh[:, t] + dprev", "dnext = dh[:, t]"), ("dWh += dWht", "dWh = dWht")], ["dnext_h", "dnext_h", "dnext_h", r"dnext_h.*assigned|assigned.*dnext_h", "dnext_h"]),
    ("rnn", [("dnext = dh[:, t] + dprev", "dnext = dh[:, t]"), ("prev_h.T @ da", "next_h.T @ da")], ["dnext_h"] * 3 + ["dnext_h.*next_h where prev_h"] + ["dnext_h"]),
    ("rnn", [("dWh += dWht", "dWh = dWht"), ("da @ Wh.T", "da @ Wh")], ["transposed", "transposed", "transposed", "assigned", "transposed"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "expected"), TWO, ids=range(len(TWO)))
def test_two_mistakes_are_told_apart(kind: str, changes: list[tuple[str, str]], expected: list[str]) -> None:
    """Where two mistakes are made, each gradient is explained by its own, or by both."""
    for gradient, match in zip(report(kind, *changes).gradients, expected, strict=True):
        assert gradient.right == (match == ""), str(gradient)
        assert re.search(match, gradient.explanation), str(gradient)


UNKNOWN = [
    ("rnn step", ("da = dnext_h * (1 - next_h ** 2)", "da = dnext_h * (1 - next_h ** 2) + 0.01"), {0, 1, 2, 3, 4}),
    ("rnn step", ("prev_h.T @ da", "prev_h.T @ da + 1e-4"), {3}),
    ("rnn step", ("prev_h.T @ da", "prev_h.T @ da * np.linspace(0.5, 1.5, 3)"), {3}),
    ("rnn step", ("dx = da @ Wx.T", "dx = np.clip(da @ Wx.T, -0.01, 0.01)"), {0}),
    ("rnn step", ("(1 - next_h ** 2)", "(1 - next_h ** 4)"), {0, 1, 2, 3, 4}),
    ("rnn step", ("(1 - next_h ** 2)", "(1.001 - next_h ** 2)"), {0, 1, 2, 3, 4}),
    ("lstm step", ("dai = di * i * (1 - i)", "dai = 2 * di * i * (1 - i)"), {0, 1, 3, 4, 5}),
    ("lstm step", ("dai = di * i * (1 - i)", "dai = di * i * (1 - i) + 1e-3 * x.sum()"), {0, 1, 3, 4, 5}),
    ("gru step", ("dr = dan * m", "dr = dan * m * 0.9"), {0, 1, 2, 3, 4}),
    ("rnn", ("dnext = dh[:, t] + dprev", "dnext = dh[:, t] + 0.9 * dprev"), {0, 1, 2, 3, 4}),
    ("rnn", ("dWh += dWht", "dWh += 0.5 ** t * dWht"), {3}),
]


@pytest.mark.parametrize(("kind", "change", "wrong"), UNKNOWN, ids=range(len(UNKNOWN)))
def test_what_is_no_known_mistake_is_not_called_one(kind: str, change: tuple[str, str], wrong: set[int]) -> None:
    """The report says where, expected and got, and that no known mistake gives these numbers."""
    found = report(kind, change)
    assert {k for k, gradient in enumerate(found.gradients) if not gradient.right} == wrong
    assert found.fault == ""
    for k in wrong:
        assert found.gradients[k].explanation == "", str(found.gradients[k])
        assert "no known mistake gives these numbers" in str(found.gradients[k])


def test_a_small_error_is_found() -> None:
    """One part in 10⁵ in one entry is wrong; rounding is not."""
    assert not report("rnn step", ("dx = da @ Wx.T", "dx = da @ Wx.T; dx[1, 2] *= 1 + 1e-5")).ok
    assert report("rnn step", ("dx = da @ Wx.T", "dx = da @ Wx.T; dx[1, 2] *= 1 + 1e-12")).ok


@pytest.mark.parametrize("sizes", [{"batch": 1}, {"hidden": 1}, {"batch": 1, "hidden": 1, "inputs": 1, "steps": 1}])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_mistake_that_makes_no_difference_is_none(kind: str, sizes: dict[str, int]) -> None:
    """With one row, the first row is the sum, and a 1 × 1 weight is its own transpose: what cannot be wrong is right."""
    total = "du.sum(axis=0)" if "gru" in kind else "da.sum(axis=0)"
    found = report(kind, (total, total.replace("sum(axis=0)", "sum(axis=0) * (1 if x.shape[0] == 1 else 2)")), **sizes)
    assert found.gradients[-1].right == (sizes.get("batch") == 1)


# -- other forms ----------------------------------------------------------------------------------------------------------------


def leaky_forward(x, h, W, U, b, tau):  # type: ignore[no-untyped-def]
    a = x @ W + h @ U + b
    s = 1 / (1 + np.exp(-a))
    alpha = np.exp(-tau)
    new = alpha * h + (1 - alpha) * s
    return new, (x, h, W, U, s, alpha)


def leaky_backward(d, cache, mistake=""):  # type: ignore[no-untyped-def]
    x, h, W, U, s, alpha = cache
    da = d * (1 - alpha) * (1.0 if mistake == "derivative" else s * (1 - s))
    past = 0.0 if mistake == "path" else d * alpha
    dalpha = (d * (h - s)).sum(0)
    dtau = -dalpha if mistake == "exp" else -dalpha * alpha
    return da @ W.T, past + da @ (U if mistake == "transposed" else U.T), x.T @ da, h.T @ da, da.sum(0), dtau


def leaky_inputs() -> list[Any]:
    rng = np.random.default_rng(0)
    return [*(rng.normal(size=shape) for shape in ((3, 4), (3, 4), (4, 4), (4, 4), (4,))), rng.uniform(0.2, 1.0, 4)]


@pytest.mark.parametrize(
    ("mistake", "match"),
    [
        ("", ""),
        ("derivative", r"the derivative ∂s/∂a is missing \(line \d+: s = 1 / \(1 \+ np\.exp\(-a\)\)\)"),
        ("path", r"the path from alpha \* h to h is missing \(line \d+: new = "),
        ("exp", r"the derivative of exp, ⊙ alpha, is missing .*\(line \d+: alpha = np\.exp\(-tau\)\)"),
        ("transposed", r"the weight is transposed: @ U where @ U\.T belongs, from h @ U to h \(line \d+: a = x @ W"),
    ],
)
def test_a_cell_of_ones_own(mistake: str, match: str) -> None:
    """A cell that nobody has seen before is recorded as it is, and a mistake is found at its line of the forward function."""
    found = check_backward(leaky_forward, lambda d, cache: leaky_backward(d, cache, mistake), *leaky_inputs())
    assert found.ok == (mistake == "")
    assert found.forward == "your own program, recorded" and found.oracle == "complex step"
    assert re.search(match, found.fault)


def columns_forward(x, h, Wxh, Whh, bh):  # type: ignore[no-untyped-def]
    new = np.tanh(np.dot(Wxh, x) + np.dot(Whh, h) + bh)
    return new, (x, h, Wxh, Whh, new)


def columns_backward(d, cache, mistake=""):  # type: ignore[no-untyped-def]
    x, h, Wxh, Whh, new = cache
    raw = d if mistake == "derivative" else (1 - new * new) * d
    past = np.dot(Whh if mistake == "transposed" else Whh.T, raw)
    return np.dot(Wxh.T, raw), past, np.dot(raw, x.T), np.dot(raw, (new if mistake == "state" else h).T), raw


@pytest.mark.parametrize(
    ("mistake", "match"),
    [
        ("", ""),
        ("derivative", r"the derivative of tanh, ⊙ \(1 − new²\), is missing"),
        ("transposed", r"the weight is transposed: Whh @ where Whh\.T @ belongs"),
        ("state", r"it multiplies by new where h belongs"),
    ],
)
def test_column_vectors(mistake: str, match: str) -> None:
    """One sequence in columns, W x + W h + b."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((3, 1), (3, 1), (3, 3), (3, 3), (3, 1))]
    found = check_backward(columns_forward, lambda d, cache: columns_backward(d, cache, mistake), *arrays)
    assert found.ok == (mistake == "")
    assert re.search(match, found.fault)


def norm_forward(x, scale, shift):  # type: ignore[no-untyped-def]
    mean = x.mean(axis=1, keepdims=True)
    centred = x - mean
    var = (centred**2).mean(axis=1, keepdims=True)
    std = np.sqrt(var + 1e-5)
    unit = centred / std
    return unit * scale + shift, (unit, scale, std)


def norm_backward(d, cache, mistake=""):  # type: ignore[no-untyped-def]
    unit, scale, std = cache
    dunit = d * scale
    dx = dunit - dunit.mean(axis=1, keepdims=True)
    if mistake != "variance":
        dx = dx - unit * (dunit * unit).mean(axis=1, keepdims=True)
    return dx / std, (d * unit).sum(axis=0), d.sum(axis=0)


def test_a_layer_norm() -> None:
    """Not recurrent at all: the derivative that leaves out the variance is found."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((4, 5), (5,), (5,))]
    assert check_backward(norm_forward, norm_backward, *arrays).ok
    found = check_backward(norm_forward, lambda d, cache: norm_backward(d, cache, "variance"), *arrays)
    assert re.search(r"the path from unit to std is missing \(line \d+: unit = centred / std\)", found.fault)


def test_an_embedding() -> None:
    """A row that is looked up twice must receive both shares: assignment, and += at an array of numbers, keep one."""

    def forward(tokens: Any, W: Any) -> Any:
        return W[tokens], (tokens, W.shape)

    def backward(d: Any, cache: Any) -> Any:
        tokens, shape = cache
        dW = np.zeros(shape)
        if right:
            np.add.at(dW, tokens, d)
        else:
            dW[tokens] += d
        return dW

    for right in (True, False):
        found = check_backward(forward, backward, np.array([[0, 2], [2, 1]]), np.random.default_rng(0).normal(size=(4, 3)))
        assert found.ok == right
    assert "an entry of W that is picked more than once gets one share: np.add.at belongs" in found.fault


def test_a_batch_norm() -> None:
    """Both statistics taken for constants are two missing paths; a forgotten division by std is one factor."""

    def forward(x: Any, gamma: Any) -> Any:
        centred = x - x.mean(axis=0)
        std = np.sqrt((centred**2).mean(axis=0) + 1e-5)
        unit = centred / std
        return gamma * unit, (unit, gamma, std)

    def backward(mistake: str, d: Any, cache: Any) -> Any:
        unit, gamma, std = cache
        g = d * gamma
        dx = g if mistake == "constants" else g - g.mean(axis=0) - unit * (g * unit).mean(axis=0)
        return dx if mistake == "division" else dx / std, (d * unit).sum(axis=0)

    x, gamma = np.random.default_rng(0).normal(size=(5, 3)), np.array([0.5, 1.0, -1.5])
    both = "the path .* is missing.*; and the path .* is missing"
    for mistake, match in {"": "^$", "constants": both, "division": "right one times std"}.items():
        found = check_backward(forward, partial(backward, mistake), x, gamma)
        assert re.search(match, found.fault), found.fault
        assert found.gradients[1].right


def test_a_loss_must_use_its_cotangent() -> None:
    """The gradient of a loss is multiplied by what comes in, if only by 1."""

    def loss(x: Any) -> Any:
        return 0.5 * np.sum(x * x), x

    found = check_backward(loss, lambda d, x: x, np.array([1.0, -2.0]))
    assert found.fault.startswith("the cotangent that comes in is not used")


def test_what_cannot_be_recorded_says_why() -> None:
    """An array that is filled part by part is no record; what can be said without one is said."""

    def forward(x: Any, w: Any) -> Any:
        out = np.zeros((2, 3))
        for k in range(3):
            out[:, k] = x[:, k : k + 2] @ w
        return out, (x, w)

    def backward(d: Any, cache: Any) -> Any:
        x, w = cache
        dx, dw = np.zeros_like(x), np.zeros_like(w)
        for k in range(3):
            dx[:, k : k + 2] = d[:, k : k + 1] * w  # = for +=
            dw += d[:, k] @ x[:, k : k + 2]
        return dx, dw

    found = check_backward(forward, backward, np.random.default_rng(0).normal(size=(2, 4)), np.array([0.5, -1.5]))
    assert [gradient.right for gradient in found.gradients] == [False, True]
    assert found.forward == "" and "UnsupportedError" in found.unrecorded
    assert "could not be recorded" in found.sentences[-1] and "np.stack" in found.sentences[-1]


def test_relu() -> None:
    """A step with relu, and its mask forgotten."""

    def forward(x: Any, h: Any, Wx: Any, Wh: Any, b: Any) -> Any:
        a = x @ Wx + h @ Wh + b
        return np.maximum(a, 0), (x, h, Wx, Wh, a)

    def backward(d: Any, cache: Any) -> Any:
        x, h, Wx, Wh, a = cache
        da = d * (a > 0) if right else d
        return da @ Wx.T, da @ Wh.T, x.T @ da, h.T @ da, da.sum(0)

    for right in (True, False):
        found = check_backward(forward, backward, *inputs("rnn step"))
        assert found.ok == right and found.forward == "an RNN step with relu"
    assert "the derivative of relu, ⊙ [a > 0], is missing" in found.fault


@pytest.mark.parametrize("seed", range(6))
def test_noise_is_not_called_a_mistake(seed: int) -> None:
    """Whatever is added to a gradient, from 10⁻⁴ to 10 in size, has no name."""
    rng = np.random.default_rng(seed)
    forward, backward = made("rnn step")
    arrays = inputs("rnn step")
    where, noise = rng.integers(5), 10.0 ** rng.uniform(-4, 1)
    added = [noise * rng.normal(size=array.shape) * (k == where) for k, array in enumerate(arrays)]
    found = check_backward(forward, lambda d, cache: [g + e for g, e in zip(backward(d, cache), added, strict=True)], *arrays)
    assert [gradient.right for gradient in found.gradients] == [k != where for k in range(5)]
    assert not any(gradient.explanation for gradient in found.gradients)


def test_what_is_missing_or_not_a_number() -> None:
    """None is a gradient that was not computed; NaN is wrong, and nothing explains it."""
    forward, backward = made("rnn step")
    arrays = inputs("rnn step")
    for bad, match in ((None, "never computed"), (np.full((3, 3), np.nan), "no known mistake")):
        found = check_backward(forward, lambda d, cache, bad=bad: [bad if k == 2 else g for k, g in enumerate(backward(d, cache))], *arrays)
        assert match in str(found.gradients[2]) and not found.gradients[2].right


def test_a_function_without_a_cache() -> None:
    """Any function of arrays: backward(cotangent, *inputs)."""
    right = check_backward(lambda x, y: np.sin(x) * y, lambda d, x, y: (d * np.cos(x) * y, d * np.sin(x)), np.ones(3), np.ones(3))
    assert right.ok
    wrong = check_backward(lambda x, y: np.sin(x) * y, lambda d, x, y: (-d * np.cos(x) * y, d * np.sin(x)), np.ones(3), np.ones(3))
    assert not wrong.ok and re.search("negative|sign is wrong", str(wrong))


def test_time_first_and_weights_the_other_way() -> None:
    """x (T, N, D) and h Whᵀ are recognised as well."""

    def turned(kind: str) -> tuple[Any, Any]:
        forward, backward = made(kind)

        def forward_(x: Any, h0: Any, Wx: Any, Wh: Any, b: Any) -> Any:
            h, cache = forward(x.swapaxes(0, 1), h0, Wx.T, Wh.T, b)
            return h.swapaxes(0, 1), cache

        def backward_(dh: Any, cache: Any, wrong: bool = False) -> Any:
            dx, dh0, dWx, dWh, db = backward(dh.swapaxes(0, 1), cache)
            return dx.swapaxes(0, 1), dh0, dWx.T, dWh if wrong else dWh.T, db

        return forward_, backward_

    for kind in ("rnn", "lstm"):
        forward, backward = turned(kind)
        x, h0, Wx, Wh, b = inputs(kind, inputs=2)
        arrays = (x.swapaxes(0, 1).copy(), h0, Wx.T.copy(), Wh.T.copy(), b)
        right = check_backward(forward, backward, *arrays)
        assert right.ok and "over time" in right.forward
    forward, backward = turned("rnn")
    x, h0, Wx, Wh, b = inputs("rnn")
    wrong = check_backward(forward, lambda dh, cache: backward(dh, cache, True), x.swapaxes(0, 1).copy(), h0, Wx.T.copy(), Wh.T.copy(), b)
    assert "transpose" in wrong.gradients[3].explanation


def test_ones_own_step_over_time() -> None:
    """A sequence of steps of one's own is understood if the step is given."""

    def forward(x: Any, h0: Any, W: Any, U: Any, b: Any, tau: Any) -> Any:
        outputs, caches = np.zeros((*x.shape[:2], h0.shape[1])), []
        for t in range(x.shape[1]):
            h0, cache = leaky_forward(x[:, t], h0, W, U, b, tau)
            outputs[:, t] = h0
            caches.append(cache)
        return outputs, caches

    def backward(dh: Any, caches: Any) -> Any:
        shares, handed, on_x = [], 0.0, np.zeros((3, 3, 4))
        for t in reversed(range(3)):
            dx, handed, *rest = leaky_backward(dh[:, t] + (0.0 if missing else handed), caches[t])
            on_x[:, t] = dx
            shares.append(rest)
        return on_x, handed, *(sum(share) for share in zip(*shares, strict=True))

    x, *rest = leaky_inputs()
    x = np.random.default_rng(1).normal(size=(3, 3, 4))
    for missing in (False, True):
        found = check_backward(forward, backward, x, *rest, step=leaky_forward)
        assert found.forward == "your step, over time"
        assert found.ok != missing
        assert ("hands back (dnext_h) is not added" in found.fault) == missing
    unknown = check_backward(forward, backward, x, *rest)
    assert unknown.forward == "" and not unknown.ok and unknown.fault == ""


# -- manners --------------------------------------------------------------------------------------------------------------------


def test_writing_to_what_is_not_ones_own_is_noted() -> None:
    """Right numbers, but the incoming cotangent is multiplied in place."""
    found = report("rnn step", ("da = dnext_h * (1 - next_h ** 2)", "dnext_h *= 1 - next_h ** 2; da = dnext_h"))
    assert all(gradient.right for gradient in found.gradients)
    assert not found.ok and "cotangent that comes in is written to" in str(found)
    found = report("rnn step", ("    next_h = np.tanh", "    x *= 1.0000001; next_h = np.tanh"))
    assert any(note.startswith("x is written to") for note in found.notes)


def test_the_report_is_a_result() -> None:
    """It prints as a table with a sentence for each gradient that is wrong, writes JSON, and fails a test with itself as the message."""
    found = report("rnn step", ("da @ Wh.T", "da @ Wh"))
    with pytest.raises(GradcheckError, match=r"transposed: @ Wh where @ Wh\.T belongs") as failure:
        found.check()
    assert isinstance(failure.value, AssertionError)
    assert str(found) in str(failure.value)
    assert json.loads(found.to_json())["gradients"][1]["right"] is False
    assert found.table().columns[-2:] == ("expected", "got")
    assert "step_backward, recognised as an RNN step with tanh: 3 points, expected by complex step" in str(found)
    assert "dx, dWx, dWh, db: right." in found.sentences
    with pytest.raises(AttributeError):
        found.rtol = 1.0  # type: ignore[misc]


def test_a_kink_is_no_mistake() -> None:
    """At the points themselves: weights that are all 0 put relu on its kink, where each slope is right; another point decides."""
    rng = np.random.default_rng(0)

    def forward(x: Any, W: Any, b: Any) -> Any:
        a = x @ W + b
        return np.maximum(a, 0), (x, W, a)

    def backward(d: Any, cache: Any) -> Any:
        x, W, a = cache
        da = d * (a > 0) * slope
        return da @ W.T, x.T @ da, da.sum(0)

    for slope in (1.0, 0.9):
        found = check_backward(forward, backward, rng.normal(size=(2, 3)), np.zeros((3, 4)), np.zeros(4))
        assert found.ok == (slope == 1.0), str(found)


def test_what_could_not_be_checked_is_not_called_right() -> None:
    """What swings a hundred million times between two numbers cannot be measured; that is said, and ``check`` fails."""

    def swings(x: Any) -> Any:
        return np.array([math.sin(1e9 * number) for number in x]), x

    found = check_backward(swings, lambda d, x: d * 1e9 * np.cos(1e9 * x), np.array([0.3, -1.0]))
    assert not found.ok and "dx could not be checked in 2 of its 2 entries" in str(found)


def test_a_function_that_ends_is_asked_where_it_is() -> None:
    """Points are drawn anew; where the function has no value they move back towards the given one."""
    assert check_backward(np.arcsin, lambda d, x: d / np.sqrt(1 - x * x), np.array([0.5, -0.9])).ok


def test_an_infinite_gradient_is_not_called_a_mistake() -> None:
    """Nothing is near to it."""
    forward, backward = made("rnn step")
    with np.errstate(all="ignore"):
        found = check_backward(
            forward, lambda d, cache: [g / 0.0 if k == 1 else g for k, g in enumerate(backward(d, cache))], *inputs("rnn step")
        )
    assert [gradient.right for gradient in found.gradients] == [True, False, True, True, True]
    assert found.gradients[1].explanation == "" == found.fault


def test_functions_that_have_not_the_form_are_refused_in_words() -> None:
    """NaN, another value at each call, no numbers, names of no argument; what one's own function raises says how it was called."""
    forward, backward = made("rnn step")
    arrays = inputs("rnn step")
    rng = np.random.default_rng(0)
    with pytest.raises(ArgumentError, match=r"expected numbers from forward, got nan at \(0, 0\) of result 0"):
        check_backward(forward, backward, arrays[0] * np.nan, *arrays[1:])
    with pytest.raises(ArgumentError, match=r"same result 0 when forward is called again.*Seed"):
        check_backward(lambda x: (x * rng.normal(), x), lambda d, x: d, np.ones(2))
    for bad in ("text", [[1.0], [2.0, 3.0]], {"a": 1.0}):
        with pytest.raises(ArgumentError, match=f"expected numbers for dx, got {type(bad).__name__}"):
            check_backward(lambda x: (x, x), lambda d, x, bad=bad: (bad,), np.ones(2))
    with pytest.raises(ArgumentError, match="expected numbers for the result of forward, got NoneType"):
        check_backward(lambda x: None, lambda d, x: d, np.ones(2))
    with pytest.raises(ArgumentError, match="expected two functions, backward is ndarray"):
        check_backward(forward, *arrays)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="names dx, dprev_h, dWx, dWh, db, got dx, dh"):
        check_backward(forward, lambda d, cache: {"dx": d, "dh": d}, *arrays)
    with pytest.raises(TypeError) as caught:
        check_backward(forward, lambda d: d, *arrays)
    assert "backward function, which check_backward called with cotangent 0 (2, 3), the cache" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="matmul") as mismatch:
        check_backward(forward, backward, np.ones((2, 7)), *arrays[1:])
    assert "forward function, which check_backward called with x (2, 7), prev_h (2, 3), Wx (3, 3)" in mismatch.value.__notes__[0]
    assert check_backward(lambda *a: list(forward(*a)), backward, *arrays).ok


def test_errors_say_what_is_expected() -> None:
    """The number of gradients, of points, and something to differentiate."""
    forward, _ = made("rnn step")
    arrays = inputs("rnn step")
    with pytest.raises(ArgumentError, match=r"expected 5 gradients from the backward function, dx, dprev_h, dWx, dWh, db, got 1"):
        check_backward(forward, lambda d, cache: d, *arrays)
    with pytest.raises(ArgumentError, match="at least 2 points, got 1"):
        check_backward(*made("rnn step"), *arrays, points=1)
    with pytest.raises(ArgumentError, match="expected arrays of floating-point numbers"):
        check_backward(*made("rnn step"))
    with pytest.raises(ArgumentError, match="a tuple of one"):
        check_backward(lambda x: (x,), lambda d, cache: d, np.ones(2))
    with pytest.raises(ZeroDivisionError):  # one's own errors come through
        check_backward(forward, lambda d, cache: 1 / 0, *arrays)


def test_gradients_may_come_by_name_and_targets_are_fixed() -> None:
    """A dict of gradients by name; whole numbers have no gradient."""

    def forward(scores: Any, targets: Any) -> Any:
        chosen = scores[np.arange(len(targets)), targets]
        return np.log(np.exp(scores).sum(1)) - chosen, (scores, targets)

    def backward(d: Any, cache: Any) -> Any:
        scores, targets = cache
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        p[np.arange(len(targets)), targets] -= 1
        return {"dscores": p * d[:, None]}

    assert check_backward(forward, backward, np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 2, 1, 1])).ok
