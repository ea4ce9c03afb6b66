# ruff: noqa: E501 (a mistake a line is easier to read than one on five)
"""check_backward on whole programs: a loop over time with its loss in one function, column vectors, helpers, gates with weights of their own.

Each source is a learner's, as it would stand in a file; each mistake is one replacement in its backward function.
"""

from __future__ import annotations

import itertools
import linecache
import re
from typing import Any

import numpy as np
import pytest

from tinygrad_rnn.testing import BackwardReport, check_backward

SIGMOID = """
def sigmoid(a):
    return 1 / (1 + np.exp(-a))
"""

LOSS_OVER_TIME = """
def forward(xs, h0, Wxh, Whh, Why, bh, by, targets):                     # time first, a cross-entropy at every step, summed
    h, loss, store = h0, 0.0, []
    for t in range(xs.shape[0]):
        before = h
        h = np.tanh(xs[t] @ Wxh + before @ Whh + bh)
        y = h @ Why + by
        p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
        loss = loss - np.log(p[np.arange(len(p)), targets[t]]).sum()
        store.append((before, h, p))
    return loss, (xs, Wxh, Whh, Why, store, targets)

def backward(dloss, cache):
    xs, Wxh, Whh, Why, store, targets = cache
    dxs, dWxh, dWhh, dWhy = np.zeros_like(xs), np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby, dnext = np.zeros(Whh.shape[0]), np.zeros(Why.shape[1]), np.zeros_like(store[0][0])
    for t in reversed(range(len(store))):
        before, h, p = store[t]
        dy = p.copy()
        dy[np.arange(len(p)), targets[t]] -= 1
        dy *= dloss
        dWhy += h.T @ dy
        dby += dy.sum(axis=0)
        da = (dy @ Why.T + dnext) * (1 - h * h)
        dWxh += xs[t].T @ da
        dWhh += before.T @ da
        dbh += da.sum(axis=0)
        dxs[t] = da @ Wxh.T
        dnext = da @ Whh.T
    return dxs, dnext, dWxh, dWhh, dWhy, dbh, dby
"""

LSTM_COLUMNS = (
    SIGMOID
    + """
def forward(xt, a_prev, c_prev, Wf, Wi, Wc, Wo, bf, bi, bc, bo):           # (n, m): a member of the batch is a column
    both = np.concatenate((a_prev, xt), axis=0)
    ft = sigmoid(np.dot(Wf, both) + bf)
    it = sigmoid(np.dot(Wi, both) + bi)
    cct = np.tanh(np.dot(Wc, both) + bc)
    c_next = ft * c_prev + it * cct
    ot = sigmoid(np.dot(Wo, both) + bo)
    a_next = ot * np.tanh(c_next)
    return a_next, c_next, dict(both=both, ft=ft, it=it, cct=cct, ot=ot, c=c_next, c_prev=c_prev, Wf=Wf, Wi=Wi, Wc=Wc, Wo=Wo, n=len(a_prev))

def backward(da, dc, k):
    tc = np.tanh(k["c"])
    dot = da * tc * k["ot"] * (1 - k["ot"])
    dcc = dc + da * k["ot"] * (1 - tc**2)
    dct = dcc * k["it"] * (1 - k["cct"] ** 2)
    dit = dcc * k["cct"] * k["it"] * (1 - k["it"])
    dft = dcc * k["c_prev"] * k["ft"] * (1 - k["ft"])
    dboth = k["Wf"].T @ dft + k["Wi"].T @ dit + k["Wc"].T @ dct + k["Wo"].T @ dot
    dWf, dWi, dWc, dWo = (d @ k["both"].T for d in (dft, dit, dct, dot))
    dbf, dbi, dbc, dbo = (d.sum(axis=1, keepdims=True) for d in (dft, dit, dct, dot))
    return dboth[k["n"]:], dboth[:k["n"]], dcc * k["ft"], dWf, dWi, dWc, dWo, dbf, dbi, dbc, dbo
"""
)

GRU_APART = (
    SIGMOID
    + """
def forward(x, h, Wz, Uz, bz, Wr, Ur, br, W, U, b):                        # u = 0 keeps the past; the reset gate before the product
    z = sigmoid(x @ Wz + h @ Uz + bz)
    r = sigmoid(x @ Wr + h @ Ur + br)
    c = np.tanh(x @ W + (r * h) @ U + b)
    return (1 - z) * h + z * c, (x, h, Wz, Uz, Wr, Ur, W, U, z, r, c)

def backward(dout, cache):
    x, h, Wz, Uz, Wr, Ur, W, U, z, r, c = cache
    dac = dout * z * (1 - c * c)
    dz = dout * (c - h)
    drh = dac @ U.T
    dar = drh * h * r * (1 - r)
    daz = dz * z * (1 - z)
    dh = dout * (1 - z)
    dh += drh * r
    dh += dar @ Ur.T
    dh += daz @ Uz.T
    dx = dac @ W.T + dar @ Wr.T + daz @ Wz.T
    dW, dU, db = x.T @ dac, (r * h).T @ dac, dac.sum(0)
    return dx, dh, x.T @ daz, h.T @ daz, daz.sum(0), x.T @ dar, h.T @ dar, dar.sum(0), dW, dU, db
"""
)

SOURCES = {"loss over time": LOSS_OVER_TIME, "LSTM in columns": LSTM_COLUMNS, "GRU with weights apart": GRU_APART}
_numbers = itertools.count()


def made(source: str, *changes: tuple[str, str]) -> tuple[Any, Any]:
    """Forward and backward as from a file, with lines changed."""
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in the source"
        source = source.replace(old, new)
    file, names = f"<learner {next(_numbers)}>", {"np": np}
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    exec(compile(source, file, "exec"), names)
    return names["forward"], names["backward"]


def inputs(kind: str, *, seed: int = 0, steps: int = 3) -> list[Any]:
    """Square matrices, so that a transposed one has the right shape."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, list[tuple[int, ...]]] = {
        "loss over time": [(steps, 2, 3), (2, 3), (3, 3), (3, 3), (3, 5), (3,), (5,)],
        "LSTM in columns": [(3, 2)] * 3 + [(3, 6)] * 4 + [(3, 1)] * 4,
        "GRU with weights apart": [(4, 3)] * 2 + [(3, 3), (3, 3), (3,)] * 3,
    }
    arrays = [rng.normal(size=shape) * 0.7 for shape in shapes[kind]]
    return [*arrays, rng.integers(0, 5, (steps, 2))] if kind == "loss over time" else arrays


def report(kind: str, *changes: tuple[str, str], **sizes: int) -> BackwardReport:
    return check_backward(*made(SOURCES[kind], *changes), *inputs(kind, **sizes))


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("seed", range(3))
def test_a_right_one_passes(kind: str, seed: int) -> None:
    """No false alarm, by the complex step, on the program as it is."""
    found = report(kind, seed=seed)
    assert found.ok, str(found)
    assert (found.forward, found.oracle) == ("your own program, recorded", "complex step")


EVERY, LATER = r"\), in every pass of the loop$", r"\), in every pass of the loop but the first$"
MISTAKES: list[tuple[str, str, tuple[str, str], str]] = [
    ("loss over time", "missing dnext", ("dy @ Why.T + dnext", "dy @ Why.T"), r"^the path from h @ Whh to h is missing \(line \d+: h = np.tanh" + ".*" + LATER),
    ("loss over time", "transposed Whh", ("da @ Whh.T", "da @ Whh"), r"^the weight is transposed: @ Whh where @ Whh\.T belongs, from h @ Whh to h.*" + EVERY),
    ("loss over time", "transposed Wxh", ("da @ Wxh.T", "da @ Wxh"), r"^the weight is transposed: @ Wxh where @ Wxh\.T belongs.*" + EVERY),
    ("loss over time", "= for +=", ("dWhh += before.T", "dWhh = before.T"), r"^only the share .* to Whh of pass 1 of 3 of the loop is kept: = where \+= belongs for dWhh$"),
    ("loss over time", "= for += of the bias", ("dbh += da", "dbh = da"), r"^only the share .* of pass 1 of 3 of the loop is kept: = where \+= belongs for dbh$"),
    ("loss over time", "h for the state before", ("before.T @ da", "h.T @ da"), r"^it multiplies by h where h of the pass before belongs, from h @ Whh to Whh.*" + EVERY),
    ("loss over time", "missing tanh'", (" * (1 - h * h)", ""), r"^the derivative of tanh, ⊙ \(1 − h²\), is missing from h to .*" + EVERY),
    ("loss over time", "tanh' of the state before", ("(1 - h * h)", "(1 - before * before)"), r"^the factor is \(1 − h²\) of the pass before where \(1 − h²\) belongs.*" + EVERY),
    ("loss over time", "no path from the loss at each step", ("(dy @ Why.T + dnext)", "dnext"), r"^dxs is zero everywhere"),
    ("loss over time", "averaged over the steps", ("dy *= dloss", "dy *= dloss / len(store)"), r"^every gradient is 1/3 of the right one, and 3 is the length of axis 0 of xs"),
    ("loss over time", "averaged over the batch", ("dy *= dloss", "dy *= dloss / len(p)"), r"^every gradient is 1/2 of the right one, and 2 is the length of axis 1 of xs"),
    ("loss over time", "the loss's own cotangent", ("        dy *= dloss\n", ""), r"^the cotangent that comes in is not used"),
    ("loss over time", "p for p − 1", ("        dy[np.arange(len(p)), targets[t]] -= 1\n", ""), r"^the path from p to exp\(y\) is missing.*" + EVERY),
    ("LSTM in columns", "i for f", ('dcc * k["ft"], dWf', 'dcc * k["it"], dWf'), r"^the factor is it where ft belongs, from ft \* c_prev to c_prev"),
    ("LSTM in columns", "missing σ'", ('k["c_prev"] * k["ft"] * (1 - k["ft"])', 'k["c_prev"]'), r"^the derivative ∂ft/∂\(Wf @ both \+ bf\) is missing"),
    ("LSTM in columns", "half of σ'", ('k["it"] * (1 - k["it"])', 'k["it"]'), r"^the derivative ∂it/∂\(Wi @ both \+ bi\) is taken as it"),
    ("LSTM in columns", "c for tanh(c)", ("(1 - tc**2)", '(1 - k["c"] ** 2)'), r"^the factor is \(1 − c_next²\) where \(1 − tanh\(c_next\)²\) belongs"),
    ("LSTM in columns", "a gate left out", (' + k["Wo"].T @ dot', ""), r"^the path from Wo @ both to both is missing \(line \d+: ot = sigmoid"),
    ("LSTM in columns", "dc not used", ("dcc = dc + da", "dcc = da"), r"^the cotangent dc_next that comes in is not used"),
    ("LSTM in columns", "slices exchanged", ('dboth[k["n"]:], dboth[:k["n"]]', 'dboth[:k["n"]], dboth[k["n"]:]'), r"^$"),
    ("GRU with weights apart", "z for 1 − z", ("dout * (1 - z)", "dout * z"), r"^the factor is z where \(1 − z\) belongs, from \(1 − z\) \* h to h"),
    ("GRU with weights apart", "= for +=", ("dh += daz", "dh = daz"), r"^only the share from h @ Uz to h is kept: = where \+= belongs for dh"),
    ("GRU with weights apart", "no reset", ("drh * r", "drh"), r"^the factor r is missing from r \* h to h"),
    ("GRU with weights apart", "h for r h", ("(r * h).T", "h.T"), r"^it multiplies by h where r \* h belongs, from \(r \* h\) @ U to U"),
    ("GRU with weights apart", "sign of dz", ("(c - h)", "(h - c)"), r"^the sign is wrong from z to "),
    ("GRU with weights apart", "r for h", ("drh * h * r * (1 - r)", "drh * r * r * (1 - r)"), r"^the factor is r where h belongs, from r \* h to r"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "change", "match"), MISTAKES, ids=[f"{kind}: {name}" for kind, name, _, _ in MISTAKES])
def test_a_mistake_is_named(kind: str, name: str, change: tuple[str, str], match: str) -> None:
    """By the variables of the program, with the pass of the loop where that matters."""
    found = report(kind, change)
    assert not found.ok
    said = found.fault or next(gradient.explanation for gradient in found.gradients if not gradient.right)
    assert re.search(match, said) or (match == "^$" and "another order" in said), str(found)


def test_a_mean_for_a_sum_beside_another_mistake() -> None:
    """Most gradients show the factor alone; with it taken out of all of them the mistake is found."""
    found = report("loss over time", ("dy *= dloss", "dy *= dloss / len(store)"), ("dWhh += before.T", "dWhh = before.T"))
    assert found.fault.startswith("every gradient is 1/3 of the right one, and 3 is the length of axis 0 of xs")
    assert "; and only the share from h0 @ Whh to Whh of pass 1 of 3 of the loop is kept" in found.fault


def test_two_values_of_one_name_are_told_apart() -> None:
    """A formula has no variable, so two values are called alike; the mistake between them is seen all the same."""

    def forward(a: Any, b: Any) -> Any:
        return (np.tanh(a) * a) * (np.tanh(b) * b), (a, b)

    def backward(d: Any, cache: Any) -> Any:
        a, b = cache
        ta, tb = np.tanh(a), np.tanh(b)
        return d * tb * b * (ta + a * (1 - tb * tb)), d * ta * a * (tb + b * (1 - tb * tb))  # tb for ta

    found = check_backward(forward, backward, np.array([0.5, -1.0]), np.array([0.7, 0.2]))
    assert found.fault.startswith("the factor is (1 − tanh(b)²) where (1 − tanh(a)²) belongs, from tanh(a) to a")


def test_functions_called_side_by_side_are_no_loop() -> None:
    """One sigmoid out of three is named alone; a loop is where a pass takes what an earlier one gave."""
    found = report("LSTM in columns", ('k["it"] * (1 - k["it"])', "1"))
    assert "pass" not in found.fault and "∂it/" in found.fault


def test_a_long_loop_is_no_harder() -> None:
    """Hypotheses are made of one pass and hold for all: twice the steps do not make twice as many."""
    from tinygrad_rnn.testing import faults
    from tinygrad_rnn.testing.tape import Tape

    forward, _ = made(LOSS_OVER_TIME)
    counts = []
    for steps in (4, 8):
        *arrays, targets = inputs("loss over time", steps=steps)
        tape = Tape(lambda *xs, t=targets: forward(*xs, t)[0], arrays, ["xs", "h0", "Wxh", "Whh", "Why", "bh", "by"])
        assert tape.loop.count == steps
        counts.append(len(faults.of_step(tape, ["loss"])))
    assert counts[1] - counts[0] <= 4 * 16  # one more way to keep a single share, for each step and each array that all share


STACKED_GATES = """
def forward(xs, h0, W, U, b):                                             # a minimal gated cell over time, both blocks in one matrix
    h, store, n = h0, [], h0.shape[1]
    for t in range(len(xs)):
        before = h
        a = xs[t] @ W + before @ U + b
        f = 1 / (1 + np.exp(-a[:, :n]))
        g = np.tanh(a[:, n:])
        h = (1 - f) * g + f * before
        store.append((before, f, g))
    return h, (xs, W, U, store)

def backward(dh, cache):
    xs, W, U, store = cache
    dxs, dW, dU, db = np.zeros_like(xs), np.zeros_like(W), np.zeros_like(U), np.zeros(U.shape[1])
    for t in reversed(range(len(xs))):
        before, f, g = store[t]
        df = dh * (before - g) * f * (1 - f)
        dg = dh * (1 - f) * (1 - g * g)
        da = np.concatenate([df, dg], axis=1)
        dxs[t] = da @ W.T
        dW += xs[t].T @ da
        dU += before.T @ da
        db += da.sum(0)
        dh = dh * f + da @ U.T
    return dxs, dh, dW, dU, db
"""


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("[df, dg]", "[dg, df]"), r"^the blocks of .* are exchanged, in every pass of the loop$"),
        (
            ("dh * (1 - f) * (1 - g * g)", "dh * f * (1 - g * g)"),
            r"^the factor is f where \(1 − f\) belongs, from \(1 − f\) \* g to g.*" + EVERY,
        ),
        (("dh = dh * f + da @ U.T", "dh = da @ U.T"), r"^the path from f \* \w+ to \w+ is missing.*, in every pass of the loop$"),
    ],
    ids=["blocks exchanged", "f for 1 − f", "no direct path"],
)
def test_a_gated_cell_over_time(change: tuple[str, str], match: str) -> None:
    """Gates that are slices of one array, in a loop; the last state is all that is returned."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) * 0.7 for shape in ((3, 2, 3), (2, 3), (3, 6), (3, 6), (6,))]
    assert check_backward(*made(STACKED_GATES), *arrays).ok
    found = check_backward(*made(STACKED_GATES, change), *arrays)
    assert re.search(match, found.fault), str(found)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda dW, db: (dW.T, db), "it is the transpose of the right one"),
        (lambda dW, db: (dW, np.broadcast_to(db / 4, (3, 4)).copy()), "it is not summed over axis 1"),
        (lambda dW, db: (dW, db.ravel()), "its numbers are right, and only its shape is not"),
        (lambda dW, db: (dW.ravel(), db), "its numbers are right, and only its shape is not"),
    ],
)
def test_shapes_of_columns(spoil: Any, match: str) -> None:
    """W x + b with b a column: what would make a gradient of another shape fit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4))

    def forward(W: Any, b: Any) -> Any:
        return W @ x + b, None

    def backward(d: Any, cache: Any) -> Any:
        return spoil(d @ x.T, d.sum(axis=1, keepdims=True))

    found = check_backward(forward, backward, rng.normal(size=(3, 2)), rng.normal(size=(3, 1)))
    assert [gradient.explanation.startswith(match) for gradient in found.gradients if not gradient.right] == [True], str(found)
