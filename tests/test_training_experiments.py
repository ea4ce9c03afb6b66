"""Training runs: intervals cover what they promise, runs resume to the last bit, and the rows that train measure what they say."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import experiments, nn, optim, tasks
from tinygrad_rnn.errors import ArgumentError, StateError, StorageError
from tinygrad_rnn.experiments.agreement import SENTENCE, Agreeing, Attractors
from tinygrad_rnn.experiments.limits import LengthLimits, Reader, length_cell
from tinygrad_rnn.experiments.reviews import BAG, Classifier, Split, classifier_cell, judged, padded
from tinygrad_rnn.experiments.stacks import Stack, state_norms
from tinygrad_rnn.experiments.statistics import mean_of, success_rate, t_probability, t_quantile
from tinygrad_rnn.experiments.training import train
from tinygrad_rnn.tasks.reviews import Review

# -- intervals --------------------------------------------------------------------------------------------------------------------


def test_students_quantiles_are_those_of_the_tables():
    """0.975 and 0.95 for several degrees of freedom, as printed in every table of the t distribution."""
    printed = {1: (12.706, 6.314), 2: (4.303, 2.920), 3: (3.182, 2.353), 4: (2.776, 2.132), 9: (2.262, 1.833), 30: (2.042, 1.697)}
    for degrees, (high, low) in printed.items():
        assert (round(t_quantile(0.975, degrees), 3), round(t_quantile(0.95, degrees), 3)) == (high, low)
    assert t_quantile(0.5, 3) == pytest.approx(0.0, abs=1e-9)
    assert t_quantile(0.975, 2000) == pytest.approx(1.960, abs=2e-3)


@given(st.floats(-30, 30), st.integers(1, 40))
def test_students_probability_is_the_integral_of_its_density(t, degrees):
    """The finite sum against the density, integrated by Simpson's rule; and it is symmetric."""
    x = np.linspace(0.0, t, 20_001)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    density = scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2)
    weights = np.ones_like(x)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    integral = 0.5 + float((weights * density).sum()) * (x[1] - x[0]) / 3
    assert t_probability(t, degrees) == pytest.approx(integral, abs=1e-9)
    assert t_probability(t, degrees) + t_probability(-t, degrees) == pytest.approx(1.0, abs=1e-12)


def covered(n: int, interval) -> float:
    """How often an interval of the mean of n normal values holds the truth."""
    values = np.random.default_rng(0).standard_normal((4000, n)) + 3.0
    return float(np.mean([low <= 3.0 <= high for _, low, high in map(interval, values)]))


def test_the_interval_of_a_mean_covers_as_often_as_it_says():
    """95 % of five values' intervals hold the truth; with the normal distribution's 1.96 in place of t it would be 88 %."""

    def too_narrow(values):
        half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
        return values.mean(), values.mean() - half, values.mean() + half

    assert covered(5, mean_of) == pytest.approx(0.95, abs=0.01)
    assert covered(5, too_narrow) < 0.90
    assert mean_of([2.0]) == (2.0, -math.inf, math.inf) and mean_of([2.0, 2.0]) == (2.0, 2.0, 2.0)


@given(st.integers(0, 12), st.integers(1, 12))
def test_wilsons_interval_solves_its_equation(successes, trials):
    """Its ends are the rates p that are z standard errors √(p(1 − p)/n) away from the observed one."""
    successes = min(successes, trials)
    estimate, low, high = success_rate(successes, trials)
    assert 0 <= low <= estimate <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(estimate - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / trials), rel=1e-5)
    with pytest.raises(ArgumentError, match="success_rate"):
        success_rate(trials + 1, trials)


# -- one training run -------------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for Ctrl-C, or a power cut."""


def started(path=None, *, stop=None, seed=0, **settings):
    """A run with dropout on the adding problem; ``stop`` interrupts it at that update."""
    rng = np.random.default_rng(seed)
    layer, between, readout = nn.GRU(2, 6, rng=rng), nn.Dropout(0.2, rng=rng), nn.Linear(6, 1, rng=rng)
    model = nn.Sequential(layer, between, readout)
    model.forward = lambda x: readout(between(layer(x)[0][-1]))[:, 0]
    x, target = tasks.adding(6, 40, 99)
    done = [0]

    def loss():
        done[0] += 1
        if done[0] == stop:
            raise Interrupted
        inputs, sums = tasks.adding(6, 8, rng)
        return tg.mse(model(inputs), sums)

    run = train(
        model, loss, lambda: tg.mse(model(x), target).item(), **{"rng": rng, "updates": 60, "lr": 0.02, "every": 10, **settings}, path=path
    )
    return run, model.state_dict(), done[0]


@pytest.mark.parametrize("stop", [1, 25, 31, 59])
@pytest.mark.parametrize("method", [optim.Adam, optim.SGD])
def test_an_interrupted_run_resumes_to_the_last_bit(tmp_path, stop, method):
    """Weights and results are those of a run without an interruption, dropout's draws included; only what was lost is done again."""
    path = tmp_path / "run.npz"
    whole, weights, _ = started(method=method)
    with pytest.raises(Interrupted):
        started(path, stop=stop, method=method)
    resumed, again, done = started(path, method=method)
    assert done == 60 - (stop - 1) // 10 * 10
    assert resumed.to_json() == whole.to_json()
    assert all(weights[name].tobytes() == again[name].tobytes() for name in weights)
    finished, same, done = started(path, method=method)
    assert done == 0 and finished.to_json() == whole.to_json() and same.keys() == weights.keys()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    """Other settings are named, other files are not taken for runs, and damaged ones are errors; none is overwritten."""
    path = tmp_path / "run.npz"
    started(path)
    before = path.read_bytes()
    with pytest.raises(StateError, match=r"the run in this file had lr=0\.02, updates=60"):
        started(path, lr=0.01, updates=70)
    assert path.read_bytes() == before
    tg.save(path, {"model": {}})
    with pytest.raises(StateError, match=r"the file is no training run, it lacks best, best_weights"):
        started(path)
    path.write_bytes(before[:-100])
    with pytest.raises(StorageError):
        started(path)
    with pytest.raises(ArgumentError, match="train: every must be at least 1"):
        started(every=0)


def scripted(errors, **settings):
    """A run whose error is given: the k-th measurement finds errors[k]."""
    w = nn.Linear(1, 1, rng=0)
    told, seen = iter(errors), []

    def error():
        seen.append(w.weight.value.copy())
        return next(told)

    rng = np.random.default_rng(0)
    options = {"updates": 10 * len(errors), "every": 10, "lr": 0.1, **settings}
    return train(w, lambda: (w(np.ones((1, 1))) ** 2).sum(), error, rng=rng, **options), w, seen


def test_why_a_run_stops():
    """Goal, patience, hopelessness halfway, all updates; and the weights are those of the smallest error."""
    assert scripted([3.0, 2.0, 0.4, 9.0], goal=0.5)[0].stopped == "goal"
    run, w, seen = scripted([3.0, 1.0, 2.0, 2.0, 2.0, 0.0], patience=3)
    assert (run.stopped, run.best, run.best_update, run.updates) == ("patience", 1.0, 20, 50)
    np.testing.assert_array_equal(w.weight.value, seen[1])
    assert not np.array_equal(seen[1], seen[-1])
    assert scripted([3.0, 3.0, 3.0, 3.0], hopeless=2.0)[0].updates == 20
    assert scripted([3.0, 1.0, 3.0, 3.0], hopeless=2.0)[0].stopped == "updates"
    assert scripted([3.0, math.nan, 1.0, 1.0])[0].stopped == "diverged"


def test_a_run_as_a_table():
    """One row per measurement, and below it why the run ended and what it came to."""
    run, _, _ = scripted([3.0, 1.0, 2.0, 2.0], patience=2)
    table = run.table()
    assert table.columns == ("updates", "loss", "largest ‖g‖", "error")
    assert [(row[0], row[3]) for row in table.rows] == [("10", "3"), ("20", "1"), ("30", "2"), ("40", "2")]
    assert table.caption == f"stopped: patience; best 1 after 20; clipping engaged in {run.clipped:.0%}"


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_does_harm():
    """The weights stay finite, clipping is counted, and the largest norm is kept."""
    w = nn.Linear(1, 1, dtype=np.float32, rng=0)
    run = train(
        w,
        lambda: (w(np.full((1, 1), 1e15, np.float32)) ** 2).sum() * np.float32(1e15),
        lambda: 1.0,
        rng=np.random.default_rng(0),
        updates=30,
        every=10,
        lr=0.1,
        method=optim.SGD,
        clip=math.inf,
    )
    assert run.stopped == "diverged" and run.updates == 0 and not np.isfinite(run.norm[-1])
    assert np.isfinite(w.weight.value).all()


# -- row 7 ------------------------------------------------------------------------------------------------------------------------


def limits(counts, seeds=5, steps=(10, 20, 30, 50, 70, 100), **changes):
    """A result with given numbers of successes, one row per network."""
    successes = np.array([counts])
    rates = np.array([success_rate(int(count), seeds) for count in successes.ravel()]).reshape(*successes.shape, 3)
    nothing = np.zeros(successes.shape)
    return LengthLimits(
        task=("adding",),
        network=("RNN", "LSTM"),
        steps=np.array(steps),
        seeds=seeds,
        successes=successes,
        rate=rates[..., 0],
        low=rates[..., 1],
        high=rates[..., 2],
        error=nothing,
        chance=np.array([1 / 6]),
        updates=nothing,
        **changes,
    )


@pytest.mark.parametrize(
    ("rnn", "lstm", "verdicts"),
    [
        ([5, 3, 2, 1, 0, 0], [5] * 6, ["agrees", "agrees", "agrees"]),
        ([5, 5, 5, 5, 5, 5], [5] * 6, ["agrees", "differs", "differs"]),
        ([0, 0, 0, 0, 0, 0], [5] * 6, ["differs", "differs", "agrees"]),
        ([0, 0, 0, 0, 0, 0], [0] * 6, ["not reproduced"] * 3),
        ([5, 5, 5, 5, 5, 5], [0] * 6, ["agrees", "differs", "differs"]),
        ([3, 3, 2, 1, 1, 2], [5] * 6, ["not reproduced", "agrees", "not reproduced"]),
    ],
)
def test_the_verdict_on_the_length_limits(rnn, lstm, verdicts):
    """It follows from the counts by the stated rule, and a failure counts only where another network succeeds."""
    assert [claim.verdict for claim in limits([rnn, lstm]).claims()] == verdicts


def test_the_caption_tells_the_settings_where_they_are_known():
    """How many updates a run may take is a setting of the experiment, which a result made by hand does not have."""
    assert limits([[1] * 6, [5] * 6]).table().caption == "adding: mean squared error, 0.167 by chance"
    told = limits([[1] * 6, [5] * 6], settings={"updates": 70}).table().caption
    assert told.endswith("0.167 by chance; at most 70 updates, half of them for a run that has learned nothing by then")


@pytest.mark.parametrize("steps", [10, 200])
def test_the_chrono_lstm_is_told_the_length(steps):
    """b_f ~ log U(1, T − 1) and b_i = −b_f (Tallec & Ollivier 2018); the LSTM beside it has b_f = 1 at every T."""
    biases = {}
    for network in ("LSTM", "chrono LSTM"):
        bias = Reader(network, steps, 2, 500, 1, np.random.default_rng(0)).layer.bias_l0.value
        biases[network] = bias[:500], bias[500:1000]
    given, forget = biases["chrono LSTM"]
    np.testing.assert_array_equal(given, -forget)
    assert (forget >= 0).all() and 0.95 * np.log(steps - 1) < forget.max() <= np.log(steps - 1)
    assert (biases["LSTM"][1] == 1).all()


def test_a_cell_of_the_length_sweep_is_success_on_fresh_sequences():
    """A GRU learns the temporal order at T = 10; the same cell twice is the same to the last bit; an unknown task is refused."""
    settings = {"hidden": 16, "batch": 32, "updates": 300, "lr": 1e-2}
    one, two = (length_cell("temporal order", "GRU", 10, 0, **settings) for _ in range(2))
    assert one == two and one["error"] < 0.01 and one["stopped"] == "goal"
    with pytest.raises(ArgumentError, match=r"there is no task 'copy'; expected some of adding, temporal order, copying"):
        experiments.length_limits(task=("copy",))


def test_the_length_sweep_resumes(tmp_path):
    """A second call with more lengths does only those, and has the same numbers for the others."""
    settings = {"task": ("copying",), "network": ("GRU", "RNN"), "seeds": 2, "hidden": 4, "updates": 10, "path": tmp_path / "row7.jsonl"}
    with ThreadPoolExecutor(1) as executor:
        short = experiments.length_limits(steps=(3,), executor=executor, **settings)
        long = experiments.length_limits(steps=(3, 5), executor=executor, **settings)
    assert len((tmp_path / "row7.jsonl").read_text().splitlines()) == 8
    np.testing.assert_array_equal(long.error[:, :, 0], short.error[:, :, 0])
    assert long.rate.shape == (1, 2, 2) and "copying: GRU" in str(long)


# -- rows 8 and 23 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["RNN", "LSTM", "GRU", "attention"])
def test_the_pull_of_a_word_is_the_change_of_the_answer(network):
    """‖∂ logit/∂ vector‖ of every word, against central differences of the logit."""
    model = Agreeing(network, 4, np.random.default_rng(0), np.float64)
    words = tasks.numbered(SENTENCE)[:6, None]
    vectors = model.embedding(words).value
    gradient = np.zeros_like(vectors)
    with tg.no_grad():
        for place in np.ndindex(*vectors.shape):
            moved = np.zeros_like(vectors)
            moved[place] = 1e-6
            gradient[place] = (model.judge(vectors + moved).value[0] - model.judge(vectors - moved).value[0]) / 2e-6
    np.testing.assert_allclose(model.pull(words)[:, 0], np.linalg.norm(gradient[:, 0], axis=-1), rtol=1e-6, atol=1e-9)


def test_the_answer_depends_on_the_past_only():
    """Each network reads the last output: a longer sentence with the same beginning changes it, the order of words matters."""
    words = tasks.agreement(3, 4, 0).words
    for network in ("RNN", "LSTM", "GRU", "attention"):
        model = Agreeing(network, 8, np.random.default_rng(1))
        assert not np.allclose(model(words).value, model(words[::-1]).value)
    with pytest.raises(ArgumentError, match=r"there is no network 'CNN'"):
        Agreeing("CNN", 8, np.random.default_rng(1))


@pytest.fixture(scope="module")
def in_threads():
    """Runs sweeps here, so that tests need no processes."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_attractors_are_learned_by_an_lstm(in_threads):
    """After 150 updates it is right without attractors; shares of the gradient are shares; and untrained the nearest noun gets more."""
    found = experiments.attractors(("LSTM",), phrases=2, updates=150, seeds=2, executor=in_threads)
    assert found.mean[0, 0] > 0.95 and (found.baseline == [1.0, 0.5, 0.0]).all()
    assert ((found.subject + found.nearest) <= 1 + 1e-9).all() and (found.nearest[:, :, 0] > found.subject[:, :, 0]).all()
    assert len(found.claims()) == 3


def test_of_attention_no_recency_is_claimed():
    """It reads every word directly; the gradient of a recurrent network is compared before and after training."""
    nothing = np.zeros((2, 3))
    found = Attractors(
        network=("attention", "GRU"),
        attractors=np.arange(3),
        accuracy=np.array([[[1.0, 0.9, 0.5]] * 3, [[0.95, 0.9, 0.7], [0.96, 0.9, 0.7], [0.97, 0.9, 0.72]]]),
        mean=nothing,
        low=nothing,
        high=nothing,
        subject=np.full((2, 3, 2), 0.1),
        nearest=np.array([[[0.4, 0.5]] * 3] * 2),
        baseline=np.ones(3),
    )
    claims = found.claims()
    assert [claim.what.partition(",")[0] for claim in claims] == ["GRU"] * 3
    assert [claim.verdict for claim in claims] == ["agrees"] * 3 and "+25.3%" in claims[2].measured


def test_the_cats_gradient_adds_up_and_attention_sees_it_untrained(in_threads):
    """Shares of every network add up to 1; the untrained RNN has less than a hundredth at the cat, attention more."""
    found = experiments.the_cat(("RNN", "attention"), updates=10, seeds=2, executor=in_threads)
    assert " ".join(found.words) == "the cat , which was sitting on the mat in the corner of the room ,"
    np.testing.assert_allclose(found.untrained.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.trained.sum(axis=1), 1.0)
    cat = found.words.index("cat")
    assert found.untrained[0, cat] < 0.01 < found.untrained[1, cat]
    assert [claim.verdict for claim in found.claims()[:3]] == ["agrees", "not reproduced", "not reproduced"]  # it has learned nothing
    for error, updates, verdict in (
        (0.0, 10, "differs"),
        (0.4, 10, "not reproduced"),
        (0.4, 1000, "agrees"),
        (0.1, 1000, "not reproduced"),
    ):
        other = replace(found, error=np.full((2, 2), error), settings={"updates": updates})
        assert [c.verdict for c in other.claims() if c.published == "the model can't learn this dependency"] == [verdict]


# -- row 9 ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exploded(in_threads):
    return experiments.exploding(updates=60, seeds=1, executor=in_threads)


def test_explosion_clipping_and_vanishing(exploded):
    """Without clipping it is not finite at once, with it all errors are; a run that vanishes stays so with and without."""
    assert exploded.diverged[0] >= 0 and np.isinf(exploded.exploded[0])
    assert exploded.charts()[0].series[0].name == f"no clipping: not finite after update {exploded.diverged[0]}"
    assert np.isfinite(exploded.error).all() and 0 < exploded.engaged[0] <= 1
    assert (exploded.left < -6).all()
    assert exploded.report.startswith("backward: ") and "first appears at" in exploded.report
    verdicts = [claim.verdict for claim in exploded.claims()]
    assert exploded.vanishing_steps == (40, 80) and exploded.left.shape == (2, 1, 3)
    assert verdicts[0] == verdicts[2] == verdicts[3] == verdicts[4] == "agrees"
    assert replace(exploded, diverged=np.array([-1])).claims()[0].verdict == "differs"
    finite = replace(exploded, norm=exploded.clipped_norm)  # what did not explode is a line without a remark
    assert [line.name for line in finite.charts()[0].series] == ["no clipping", "clipped to 1"]


@pytest.mark.parametrize("growth", [1.3, 2.0, 4.0])
def test_the_anomaly_report_names_the_step_of_the_overflow(growth, in_threads):
    """ρᵏ leaves float32 at the step that arithmetic gives, whatever ρ is."""
    found = experiments.exploding(updates=1, seeds=1, growth=growth, steps=5, hidden=8, executor=in_threads)
    assert found.anomaly_step > 0 and abs(found.anomaly_step - found.expected_step) <= 4
    assert re.search(r"recorded at  tinygrad_rnn\Wnn\Wrecurrence\.py:\d+", found.anomaly)  # no folder of this machine in a record
    with pytest.raises(ArgumentError, match=r"growth must be above 1, got 1\.0"):
        experiments.exploding(growth=1.0)


# -- row 10 -----------------------------------------------------------------------------------------------------------------------


def test_an_orthogonal_start_is_orthogonal_and_does_not_stay_so(in_threads):
    """‖WᵀW − I‖ begins at rounding and grows; σ_min ≤ 1 ≤ σ_max at the start; the gain begins at most at 1."""
    found = experiments.orthogonal_start(updates=60, measurements=3, seeds=2, executor=in_threads)
    here = found.init.index("orthogonal")
    assert (found.distance[here, :, 0] < 1e-5).all() and (np.diff(found.distance[here], axis=1)[:, 0] > 0.1).all()
    np.testing.assert_allclose(found.smallest[here, :, 0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.largest[here, :, 0], 1.0, rtol=1e-5)
    assert (found.gain[here, :, 0] <= 1.0).all() and (found.gain[here, :, 0] > found.gain[1 - here, :, 0]).all()
    with pytest.raises(ArgumentError, match="expected 'orthogonal' among"):
        experiments.orthogonal_start(("uniform",))


# -- row 18 -----------------------------------------------------------------------------------------------------------------------

PLAIN = "GOOD fine great lovely|BAD dull weak poor"


def invented(count: int) -> list[Review]:
    """Sentences in which one word decides, and the others say nothing."""
    random = np.random.default_rng(0)
    good, bad = (half.lower().split() for half in PLAIN.split("|"))
    found = []
    for _ in range(count):
        side = random.integers(2)
        filler = [f"w{n}" for n in random.integers(30, size=random.integers(3, 9))]
        filler.insert(int(random.integers(len(filler) + 1)), str(random.choice((bad, good)[side])))
        found.append(Review(" ".join(filler), float((-2.0, 2.0)[side])))
    return found


OPTIONS = {"cell": "GRU", "hidden": 8, "embedding": 8, "dropout": 0.1, "batch": 16, "updates": 150, "every": 50, "patience": 3, "lr": 0.02}


@pytest.mark.parametrize("network", ["bidirectional, max", "one direction, last state", BAG])
def test_a_classifier_learns_what_a_word_decides(network):
    """On invented sentences every classifier is nearly always right, and its gradient falls on words in shares."""
    found = judged(invented(500), network, 0, **OPTIONS)
    assert found["accuracy"] > 0.9 and found["confusion"].sum() == 50
    assert found["accuracy"] == pytest.approx(np.trace(found["confusion"]) / 50)
    right = np.trace(found["confusion"])  # each rating is 2 or −2, which is in the fourth part of five
    np.testing.assert_array_equal(found["by_strength"], [[0, 0], [0, 0], [0, 0], [50 - right, right], [0, 0]])
    if network != BAG:
        assert all(shares.sum() == pytest.approx(1.0) for shares in found["shown"])


def test_all_sentences_or_some(monkeypatch):
    """None takes every review; a number takes so many, evenly."""
    monkeypatch.setattr(tasks, "movie_reviews", lambda **_: invented(200))
    short = {**OPTIONS, "updates": 2, "every": 1}
    whole, half = (classifier_cell(network=BAG, seed=0, sentences=count, **short) for count in (None, 100))
    for found, expected in ((whole, judged(invented(200), BAG, 0, **short)), (half, judged(invented(200)[::2], BAG, 0, **short))):
        np.testing.assert_array_equal(found["confusion"], expected["confusion"])
    assert (whole["confusion"].sum(), half["confusion"].sum()) == (20, 10)
    with pytest.raises(ArgumentError) as caught:
        experiments.sentiment(hidden=7)
    assert str(caught.value) == "sentiment: hidden must be even and at least 2, half for each direction, got 7"


def test_the_test_part_stays_unseen():
    """The parts share no sentence, the vocabulary is that of the training part, and unrated sentences are left out."""
    reviews = [Review(f"alone{n} common common", 1.0 if n % 2 else -1.0) for n in range(100)] + [Review("neutral", 0.0)] * 9
    reviews = [Review(f"alone{n} alone{n} common", review.rating) if review.rating else review for n, review in enumerate(reviews)]
    split = Split(reviews, np.random.default_rng(0))
    assert [len(part[0]) for part in (split.test, split.validation, split.training)] == [10, 10, 80]
    for part in (split.test, split.validation):
        assert all(sentence[0] == 0 == sentence[1] for sentence in part[0])  # a word of its own, unknown
    assert all(sentence[0] != 0 for sentence in split.training[0])
    with pytest.raises(ArgumentError, match=r"^sentiment: 15 rated sentences are too few; expected at least 20$"):
        Split(reviews[:15], np.random.default_rng(0))


@pytest.mark.parametrize("network", ["bidirectional, max", "one direction, max", "one direction, last state"])
def test_padding_changes_no_answer(network):
    """A sentence alone and in a batch with longer ones has the same logit; and a change of padding has no effect."""
    random = np.random.default_rng(0)
    model = Classifier(30, "GRU", 6, 5, 0.5, network, random)
    model.eval()
    sentences = [random.integers(1, 30, size=n) for n in (3, 9, 1)]
    words, lengths = padded(sentences)
    together = model(words, lengths).value
    for k, sentence in enumerate(sentences):
        np.testing.assert_allclose(model(*padded([sentence])).value[0], together[k], rtol=1e-5)
    filled = np.where(np.arange(9)[:, None] < lengths, words, 7)
    np.testing.assert_array_equal(model(filled, lengths).value, together)


# -- row 19 -----------------------------------------------------------------------------------------------------------------------


def test_skips_bring_the_gradient_to_the_first_layer():
    """In an untrained stack of 6, at the last step, the first layer's ‖δ‖ is like the last one's with skips, next to nothing without."""
    plain, skip = (state_norms("LSTM", 6, way, 0, steps=8, hidden=8) for way in ("plain", "skip"))
    assert plain.shape == skip.shape == (6, 9) and plain[-1, -1] == skip[-1, -1] == 1.0
    assert plain[0, -1] < 1e-3 < 0.3 < skip[0, -1]
    assert (np.diff(plain[:, -1]) > 0).all()  # layer by layer less


def test_one_layers_norms_are_those_of_plain_numpy():
    """For a stack of one RNN: δ_{t−1} = W_hhᵀ ((1 − h_t²) ⊙ δ_t), by hand."""
    norms = state_norms("RNN", 1, "plain", 3, steps=6, hidden=5)
    model = Stack("RNN", 1, "plain", 5, np.random.default_rng(3), np.float64)
    x, target = tasks.temporal_order(6, 32, 3_000_000)
    w = model.state_dict()
    states = [np.zeros((32, 5))]
    for step in x:
        states.append(np.tanh(step @ w["layer.weight_ih_l0"].T + states[-1] @ w["layer.weight_hh_l0"].T + w["layer.bias_l0"]))
    scores = states[-1] @ w["readout.weight"].T + w["readout.bias"]
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    delta = (chances - np.eye(4)[target]) @ w["readout.weight"] / 32
    expected = [np.linalg.norm(delta)]
    for state in states[:0:-1]:
        delta = ((1 - state**2) * delta) @ w["layer.weight_hh_l0"]
        expected.append(np.linalg.norm(delta))
    np.testing.assert_allclose(norms[0], np.array(expected[::-1]) / expected[0], rtol=1e-9)


def test_claims_are_about_the_depths_that_were_measured(in_threads):
    """Of a few layers nothing is said where none of 2 to 4 was trained."""
    options = {"updates": 1, "seeds": 1, "hidden": 2, "steps": 4, "executor": in_threads}
    few, none = (experiments.recurrent_stacks(layers, ("plain", "skip"), **options).claims() for layers in ((2, 8), (1, 8)))
    assert [claim.what for claim in few] == ["2 to 4 plain layers", *(claim.what for claim in none)] and none[0].what == "8 layers, skip"


def test_eight_plain_layers_are_compared_with_those_that_skip(in_threads):
    """Gradient and success by layers and way, in a run of seconds; "plain" must be among the ways."""
    found = experiments.recurrent_stacks((1, 8), ("plain", "skip"), updates=10, seeds=1, hidden=8, executor=in_threads)
    assert found.to_first[0, 1] < -3 < found.to_first[1, 1] and found.to_first[0, 0] == pytest.approx(0.0, abs=1e-12)
    assert found.success.shape == (2, 2) and len(found.norms) == 2 and found.norms[0].shape == (8, 21)
    with pytest.raises(ArgumentError, match="expected 'plain'"):
        experiments.recurrent_stacks(way=("skip",))
