"""Tasks: what the generators promise, what an answer without looking is worth, and that LSTM and GRU solve them."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import bench_adding
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import tasks
from tinygrad_rnn.errors import ArgumentError


@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_two_steps_are_marked_and_their_numbers_are_the_sum(steps, batch, seed):
    """One marker stands in the first ⌊T/2⌋ steps, one in the others, and the target is the sum of what stands beside them."""
    inputs, targets = tasks.adding(steps, batch, seed)
    numbers, markers = inputs[..., 0], inputs[..., 1]
    assert inputs.shape == (steps, batch, 2) and targets.shape == (batch,)
    assert set(np.unique(markers)) <= {0.0, 1.0}
    assert (markers[: steps // 2].sum(0) == 1).all() and (markers[steps // 2 :].sum(0) == 1).all()
    np.testing.assert_allclose((numbers * markers).sum(0), targets, rtol=1e-15)
    assert numbers.min() >= 0.0 and numbers.max() < 1.0


def test_markers_and_numbers_are_uniform():
    """Each step of each half is marked equally often, and the numbers have the mean ½ and the variance 1/12."""
    inputs, _ = tasks.adding(11, 55_000, 0)
    counts = inputs[..., 1].sum(1)
    expected = np.array([11_000] * 5 + [55_000 / 6] * 6)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 25.0  # 9 degrees of freedom: exceeded once in 300 seeds
    assert abs(inputs[..., 0].mean() - 0.5) < 2e-3 and abs(inputs[..., 0].var() - 1 / 12) < 1e-3


def test_the_two_markers_are_independent():
    """Where the first one stands says nothing about the second, nor about the numbers."""
    inputs, targets = tasks.adding(20, 50_000, 1)
    first, second = inputs[:10, :, 1].argmax(0), inputs[10:, :, 1].argmax(0)
    correlations = np.corrcoef([first, second, targets])
    assert np.abs(correlations - np.eye(3)).max() < 0.02


def test_the_baseline_is_what_always_answering_1_costs():
    """1/6 is the variance of the target; 1 is its mean, and every other constant costs more."""
    _, targets = tasks.adding(50, 100_000, 2)
    costs = {answer: float(tg.mse(np.full_like(targets, answer), targets)) for answer in (0.9, 1.0, 1.1)}
    assert tasks.adding_baseline() == 1 / 6
    assert costs[1.0] == pytest.approx(1 / 6, abs=2e-3)
    assert min(costs, key=costs.__getitem__) == 1.0


def test_the_same_seed_gives_the_same_bytes_and_a_generator_goes_on():
    """A seed begins anew; a Generator gives other sequences each time; float32 rounds the numbers of float64."""
    for one, two in zip(tasks.adding(9, 4, 5), tasks.adding(9, 4, np.random.default_rng(5)), strict=True):
        assert one.tobytes() == two.tobytes()
    random = np.random.default_rng(5)
    first, second = tasks.adding(9, 4, random), tasks.adding(9, 4, random)
    assert not np.array_equal(first[0], second[0])
    for wide, narrow in zip(tasks.adding(9, 4, 5), tasks.adding(9, 4, 5, dtype=np.float32), strict=True):
        assert narrow.dtype == np.float32 and np.array_equal(wide.astype(np.float32), narrow)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 4), r"adding: steps must be a whole number of at least 2, got 1"),
        ((50.0, 4), r"adding: steps must be a whole number of at least 2, got 50\.0"),
        ((50, 0), r"adding: batch must be a whole number of at least 1, got 0"),
        ((50, True), r"adding: batch must be a whole number of at least 1, got True"),
        ((50, 4, "seed"), r"rng"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    """The message names the argument and what it must be."""
    with pytest.raises(ArgumentError, match=message):
        tasks.adding(*arguments)
    with pytest.raises(ArgumentError, match=r"dtype must be a floating-point type, got int64"):
        tasks.adding(50, 4, dtype=np.int64)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_adding_problem_at_50_steps_is_solved(kind):
    """Within 2,000 updates the error on fresh sequences is below 0.01, a sixteenth of the baseline (the seconds are in benchmarks/)."""
    assert bench_adding.STEPS == 50
    outcome = bench_adding.solve(kind, 0, updates=2000)
    assert outcome.error < bench_adding.SOLVED < tasks.adding_baseline() / 16
