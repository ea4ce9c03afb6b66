"""The monitor: what it tells agrees with an expanded trace, and goes where it is told to."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn

LAYERS = {"rnn": (nn.RNN, {}), "relu": (nn.RNN, {"nonlinearity": "relu"}), "lstm": (nn.LSTM, {}), "gru": (nn.GRU, {}),
          "gru-before": (nn.GRU, {"reset": "before"})}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@given(
    steps=st.integers(1, 6), batch=st.integers(1, 3), layers=st.integers(1, 2), both=st.booleans(), ragged=st.booleans(),
    dtype=st.sampled_from(["float64", "float32"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_monitor_and_trace_agree(name: str, steps: int, batch: int, layers: int, both: bool, ragged: bool, dtype: str, seed: int) -> None:
    """Norms, gains and rate of every layer and direction are those of the ledger; the initial state apart, which may be a constant."""
    make, options = LAYERS[name]
    rng = np.random.default_rng(seed)
    layer = make(2, 3, layers, bidirectional=both, dtype=dtype, rng=rng, **options)
    x = rng.normal(size=(steps, batch, 2))
    lengths = rng.integers(0, steps + 1, batch) if ragged else None
    with flow.monitor(layer, name="net") as watching:
        outputs, state = layer(x, None, lengths)
        loss = (outputs * outputs).sum() + (state[-1] ** 3).sum()
        loss.backward()
    ledger = tg.trace(loss)
    rows = {row.layer.rpartition("/")[2]: row for row in watching.rows}
    assert len(rows) == layers * (1 + both)
    assert all(row.layer.startswith("net") for row in watching.rows)
    for path in ledger.layers:
        row = rows[path.rpartition("/")[2] if len(rows) > 1 else "net"]
        states = ledger.states(path)
        norms = dict(zip(row.time.tolist(), row.norm, strict=True))
        assert len(norms) == steps + 1
        expected = [at.norm for at in states]
        assert oracles.difference([norms[at.time] for at in states], expected) < (1e-12 if dtype == "float64" else 1e-4)
        product = flow.vanishing_product(ledger, path) if any(expected) else None
        if product is not None and len(product.lag) > 1 and not product.verdict.startswith("gone"):
            start = row.time.tolist().index(int(product.time[0]))
            own = row.handed_back[start + 1 : start + len(product.lag)]
            assert np.allclose(own, product.handed_back[1:], rtol=1e-9 if dtype == "float64" else 1e-3)
        known = row.norm[:-1] > 0  # relu units that are all closed stop everything
        assert np.allclose(row.gain[1:][known], row.norm[1:][known] / row.norm[:-1][known], rtol=1e-9)


def trained(layer: Any, passes: int, **options: Any) -> Any:
    with flow.monitor(layer, **options) as watching:
        for _ in range(passes):
            layer(np.ones((4, 2, 3)))[0].sum().backward()
    return watching


def test_where_rows_go(tmp_path: Any) -> None:
    """Rows are kept, appended to a file as lines of JSON after what is there, or handed to a function; every=2 records each second."""
    layer = nn.LSTM(3, 4, rng=0)
    seen: list[Any] = []
    kept = trained(layer, 3, to=seen.append)
    assert seen == list(kept.rows)
    assert [row.update for row in seen] == [1, 2, 3]
    path = tmp_path / "run.jsonl"
    path.write_text('{"layer": "earlier"}\n', encoding="utf-8")
    trained(layer, 5, to=path, every=2, name="encoder")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line.get("update") for line in lines] == [None, 1, 3, 5]
    assert lines[1]["layer"] == "encoder"
    assert lines[1]["norm"] == pytest.approx(seen[0].norm.tolist(), rel=1e-5)
    assert (lines[1]["from"], lines[1]["to"], lines[1]["rate"]) == (4, 0, seen[0].rate)
    assert json.loads(seen[0].to_json())["gain"][1:] == seen[0].gain[1:].tolist()
    assert "encoder" not in str(kept.rows[0])
    assert "lstm" in str(kept.rows[0])


def test_it_ends() -> None:
    """After remove() nothing is recorded; two monitors do not disturb each other; gradients are the same bits, watched or not."""
    layer = nn.GRU(3, 4, rng=0)
    plain = [p.grad.value for p in (layer(np.ones((4, 2, 3)))[0].sum().backward(), layer)[1].parameters()]
    layer.zero_grad()
    one, two = flow.monitor(layer), flow.monitor(layer)
    layer(np.ones((4, 2, 3)))[0].sum().backward()
    assert all(np.array_equal(a, p.grad.value) for a, p in zip(plain, layer.parameters(), strict=True))
    one.remove()
    one.remove()
    layer(np.ones((4, 2, 3)))[0].sum().backward()
    assert (len(one.rows), len(two.rows)) == (1, 2)


def test_small_norms_are_told() -> None:
    """In float32 a norm of 1e-30 has a square that is 0; it is told all the same, and the rate is that of 0.5 per step."""
    layer = nn.RNN(1, 1, bias=False, dtype=np.float32)
    layer.weight_hh_l0.value = [[0.5]]
    layer.weight_ih_l0.value = [[0.0]]
    with flow.monitor(layer) as watching:
        layer(np.zeros((100, 1, 1)))[1].hidden.sum().backward()
    row = watching.rows[-1]
    assert row.norm[-1] == pytest.approx(2.0**-100, rel=1e-5)
    assert (row.rate, row.half_life) == pytest.approx((np.log10(0.5), 1.0))


@pytest.mark.parametrize(("factor", "steps"), [(0.8, 460), (0.8, 2000), (3.0, 200)])
def test_the_rate_is_of_norms_that_have_their_digits(factor: float, steps: int) -> None:
    """In float32, 460 steps end among the subnormal numbers, 2,000 at 0, and 200 at 3 per step at infinity."""
    layer = nn.RNN(1, 4, bias=False, dtype=np.float32, rng=0)
    layer.weight_hh_l0.value, layer.weight_ih_l0.value = factor * np.eye(4), np.zeros((4, 1))
    with flow.monitor(layer) as watching:
        layer(np.zeros((steps, 1, 1)))[1].hidden.sum().backward()
    assert 10.0 ** watching.rows[-1].rate == pytest.approx(factor, rel=1e-6)
    assert f"a factor of {factor:g} per step" in str(watching.rows[-1])


@pytest.mark.parametrize("name", LAYERS)
def test_a_loss_at_every_step_does_not_hide_that_the_gradient_vanishes(name: str) -> None:
    """The norms stay level, since every output adds to them; the rate is that of what each step hands back, as in the ledger."""
    make, options = LAYERS[name]
    layer = make(3, 8, rng=0, **options)
    with flow.monitor(layer) as watching:
        outputs, _ = layer(np.random.default_rng(0).standard_normal((60, 2, 3)))
        loss = (outputs**2).mean()
        loss.backward()
    row, product = watching.rows[-1], flow.vanishing_product(loss)
    assert 0.3 < row.norm[-2] / row.norm[0] < 3.0
    assert row.several
    assert product.several
    assert row.verdict.startswith("vanishing")
    assert row.rate == pytest.approx(product.rate, rel=0.1)  # the monitor's has the step into the initial state too
    assert np.allclose(row.handed_back[1:-1], product.handed_back[1:], rtol=1e-12)
    assert json.loads(row.to_json())["several"] is True


def test_a_nan_is_told_as_one() -> None:
    """A cotangent of NaN that enters 6 steps before the last is neither gone nor preserved."""
    layer = nn.LSTM(2, 3, rng=0)
    with flow.monitor(layer) as watching:
        outputs, _ = layer(np.ones((20, 1, 2)))
        (outputs[-1].sum() + np.nan * outputs[13].sum()).backward()
    row = watching.rows[-1]
    assert row.verdict == "not finite from lag 6 on"
    assert np.isnan([row.rate, row.half_life]).all()
    assert "not finite from lag 6 on" in str(row)
    assert "not finite" in repr(watching)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flow.monitor(nn.LSTMCell(2, 3)), "monitor: expected an nn.RNN, nn.LSTM or nn.GRU, got LSTMCell"),
        (lambda: flow.monitor(nn.LSTM(2, 3), every=0), "monitor: every must be a whole number of at least 1, got 0"),
        (lambda: flow.monitor(nn.LSTM(2, 3), to=3), "monitor: expected to= to be a function or the path of a file .*, got int"),
        (lambda: flow.monitor(nn.LSTM(2, 3), to="."), r"monitor: .* got '\.', a folder"),
        (
            lambda: flow.monitor(nn.LSTM(2, 3), to="nowhere/run.jsonl"),
            "got 'nowhere/run.jsonl', in a folder that does not exist: 'nowhere'",
        ),
        (lambda: nn.LSTM(2, 3).register_state_hook(3), "register_state_hook: expected a function"),
    ],
)
def test_messages(make: Any, message: str) -> None:
    """What cannot be watched is refused at once."""
    with pytest.raises(tg.errors.ArgumentError, match=message):
        make()


def test_a_line_with_numbers_that_json_does_not_know() -> None:
    """Infinities become strings and NaN null, in a line that is still JSON."""
    row = flow.StateNorms(1, "rnn", np.array([2, 1, 0]), norms := np.array([1.0, np.inf, np.nan]), norms, "float64")
    assert json.loads(row.line())["norm"] == [1.0, "inf", None]


def lines_of(path: Any) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def test_no_line_is_lost(tmp_path: Any, monkeypatch: Any) -> None:
    """Lines are written together, and all of them: after an exception, when the monitor is dropped, and after a write that failed."""
    layer, path = nn.RNN(3, 4, rng=0), tmp_path / "run.jsonl"

    def train(passes: int) -> None:
        for _ in range(passes):
            layer(np.ones((4, 2, 3)))[0].sum().backward()

    with pytest.raises(ZeroDivisionError), flow.monitor(layer, path):
        train(3)
        assert not path.exists()  # nothing is opened at every pass
        raise ZeroDivisionError
    assert [line["update"] for line in lines_of(path)] == [1, 2, 3]
    dropped = flow.monitor(layer, path)
    train(2)
    dropped._handle.remove()  # as if the layer were gone
    del dropped
    assert len(lines_of(path)) == 5
    (tmp_path / "moved").mkdir()
    watching = flow.monitor(layer, tmp_path / "moved" / "run.jsonl")
    train(2)
    (tmp_path / "moved").rmdir()
    with pytest.raises(FileNotFoundError):
        watching.flush()
    (tmp_path / "moved").mkdir()
    watching.remove()
    watching.remove()
    assert len(lines_of(tmp_path / "moved" / "run.jsonl")) == 2
    monkeypatch.setattr(sys.modules["tinygrad_rnn.flow.monitor"], "_SECONDS", 0.0)
    with flow.monitor(layer, path):
        train(1)
        assert len(lines_of(path)) == 6


def test_a_monitor_is_printed_and_written() -> None:
    """Its latest rows as a table, also as HTML, and all of them as JSON."""
    layer = nn.LSTM(3, 4, rng=0)
    watching = flow.monitor(layer)
    assert "no backward pass yet" in str(watching)
    for _ in range(12):
        layer(np.ones((4, 2, 3)))[0].sum().backward()
    assert "the latest of 12 rows" in str(watching)
    assert "<table>" in watching._repr_html_()
    written = json.loads(watching.to_json())
    assert [row["update"] for row in written["rows"]] == list(range(1, 13))
    assert written["rows"][0]["norm"] == watching.rows[0].norm.tolist()
