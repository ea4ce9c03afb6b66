"""Tasks: what the generators promise, what an answer without looking is worth, and that LSTM and GRU solve them."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from benchmarks import bench_adding
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import tasks
from tinygrad_rnn.errors import ArgumentError, StorageError
from tinygrad_rnn.tasks import reviews


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


# -- all tasks ------------------------------------------------------------------------------------------------------------------

DRAWN = {
    "adding": lambda rng, **options: tasks.adding(12, 5, rng, **options),
    "copying": lambda rng, **options: tasks.copying(7, 5, rng, **options),
    "temporal_order": lambda rng, **options: tasks.temporal_order(20, 5, rng, **options),
    "parity": lambda rng, **options: tasks.parity(9, 5, rng, **options),
    "embedded_reber": lambda rng, **options: tasks.embedded_reber(5, rng, **options),
    "agreement": lambda rng: tasks.agreement(3, 5, rng),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_seed_gives_the_same_bytes_and_a_generator_goes_on(name):
    """Of every task: a seed begins anew, a Generator gives other sequences each time, float32 rounds what float64 is."""
    draw, random = DRAWN[name], np.random.default_rng(3)
    first, again, on = draw(3), draw(random), draw(random)
    assert all(np.asarray(one).tobytes() == np.asarray(two).tobytes() for one, two in zip(first, again, strict=True))
    assert any(np.asarray(one).tobytes() != np.asarray(two).tobytes() for one, two in zip(first, on, strict=True))
    if name != "agreement":
        narrow = draw(3, dtype=np.float32)[0]
        assert narrow.dtype == np.float32 and np.array_equal(np.asarray(first[0], np.float32), narrow)
        with pytest.raises(ArgumentError, match=rf"{name}: dtype must be a floating-point type, got int64"):
            draw(3, dtype=np.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.copying(0, 1), r"copying: steps must be a whole number of at least 1, got 0"),
        (lambda: tasks.copying(5, 1, symbols=1), r"copying: symbols must be a whole number of at least 2"),
        (lambda: tasks.temporal_order(3, 1), r"temporal_order: steps must be a whole number of at least 4"),
        (lambda: tasks.temporal_order(10, 1, relevant=4), r"relevant must be a whole number from 2 to 3, got 4"),
        (lambda: tasks.parity(True, 1), r"parity: steps must be a whole number"),
        (lambda: tasks.embedded_reber(0), r"embedded_reber: batch must be a whole number of at least 1"),
        (lambda: tasks.agreement(0, 1, clause=True), r"agreement: phrases must be a whole number of at least 1"),
        (lambda: tasks.agreement(1, 1, attraction=1.5), r"attraction must be a probability, got 1\.5"),
        (lambda: tasks.agreement_baselines(2, 7), r"agreement_baselines: attraction must be a probability, got 7"),
        (lambda: tasks.agreement(1, 1, attraction="much"), r"agreement: attraction must be a probability, got 'much'"),
        (lambda: tasks.numbered("The zebra"), r"'zebra' is not among the"),
        (lambda: tasks.streams([1, 2], 2), r"streams: 2 numbers are too few for 2 streams"),
        (lambda: tasks.Vocabulary("abc", least=2), r"no symbol occurs 2 times"),
    ],
)
def test_what_is_refused(call, message):
    """The message names the task, the argument, and what it must be."""
    with pytest.raises(ArgumentError, match=message):
        call()


def cross_entropy(chances, targets):
    """Plain NumPy: −ln of the chance that was given to what came, mean over all."""
    return float(-np.log(np.take_along_axis(chances, targets[..., None], -1)).mean())


# -- copying --------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 5), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_copying_repeats_the_symbols_after_the_delimiter(steps, batch, length, symbols, seed):
    """One delimiter, T steps after the last symbol; the answer is blank before, and then the symbols in their order."""
    inputs, targets = tasks.copying(steps, batch, seed, length=length, symbols=symbols)
    shown = inputs.argmax(-1)
    assert inputs.shape == (steps + 2 * length, batch, symbols + 2) and (inputs.sum(-1) == 1).all()
    assert (shown[:length] < symbols).all() and (shown == symbols + 1).sum() == batch
    assert (shown[length - 1 + steps] == symbols + 1).all() and (np.delete(shown[length:], steps - 1, axis=0) == symbols).all()
    np.testing.assert_array_equal(targets[-length:], shown[:length])
    assert (targets[:-length] == symbols).all()


def test_copying_baseline_against_simulation():
    """Who says blank, and after the delimiter each symbol with 1/8, pays 10 ln 8/(T + 20); more certainty costs more."""
    _, targets = tasks.copying(100, 400, 0)
    chances = np.zeros((120, 400, 9))
    chances[:-10, :, 8] = 1.0
    chances[-10:, :, :8] = 1 / 8
    assert cross_entropy(chances, targets) == pytest.approx(tasks.copying_baseline(100), rel=1e-12)
    assert tasks.copying_baseline(100) == pytest.approx(0.173, abs=5e-4)
    chances[-10:, :, :8] = np.array([0.3, *[0.1] * 7])
    assert cross_entropy(chances, targets) > tasks.copying_baseline(100)
    counts = np.bincount(targets[-10:].ravel(), minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24  # 7 degrees of freedom: once in 1,000 seeds


# -- temporal order -------------------------------------------------------------------------------------------------------------


@given(st.integers(4, 200), st.sampled_from([2, 3]), st.integers(0, 2**32 - 1))
def test_temporal_order_is_the_order_of_x_and_y(steps, relevant, seed):
    """Reading the letters with a plain loop gives the class; the symbols stand in their tenths."""
    inputs, targets = tasks.temporal_order(steps, 4, seed, relevant=relevant)
    windows = {2: [(0.1, 0.2), (0.5, 0.6)], 3: [(0.1, 0.2), (0.33, 0.43), (0.66, 0.76)]}[relevant]
    for letters, target in zip(inputs.argmax(-1).T, targets, strict=True):
        places = [t for t, letter in enumerate(letters) if letter < 2]
        assert "".join("XY"[letters[t]] for t in places) == format(target, f"0{relevant}b").replace("0", "X").replace("1", "Y")
        for place, (first, last) in zip(places, windows, strict=True):
            assert first * steps - 1 < place < max(last * steps, first * steps + 1)


def test_temporal_order_baseline_against_simulation():
    """All classes are equally frequent: ln 4 (ln 8) is what an even answer costs, and how often it is right."""
    for relevant in (2, 3):
        _, targets = tasks.temporal_order(30, 20_000, 1, relevant=relevant)
        count = np.bincount(targets, minlength=2**relevant)
        shares = count / count.sum()
        assert len(count) == 2**relevant and np.abs(shares - 0.5**relevant).max() < 0.012
        assert -(shares * np.log(shares)).sum() == pytest.approx(tasks.temporal_order_baseline(relevant), abs=1e-3)


# -- parity ---------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_parity_is_counted_by_hand(steps, seed):
    """Flipping one bit flips every answer from there on, and none before."""
    inputs, targets = tasks.parity(steps, 3, seed)
    for bits, answers in zip(inputs[..., 0].T, targets.T, strict=True):
        odd = False
        for bit, answer in zip(bits, answers, strict=True):
            odd = odd != (bit == 1.0)
            assert answer == odd


def test_parity_baseline_against_simulation():
    """Who misses the first bit is right in half of all answers, which costs ln 2 at best."""
    inputs, targets = tasks.parity(30, 20_000, 0)
    blind = inputs[1:, :, 0].sum(0) % 2
    share = (blind == targets[-1]).mean()
    assert abs(share - 0.5) < 0.012
    assert -np.log(0.5) == tasks.parity_baseline()


# -- the Reber grammar ----------------------------------------------------------------------------------------------------------

INNER = r"B(?:TS*X(?:XT*VP)*(?:XT*VV|S)|PT*V(?:V|P(?:XT*VP)*(?:XT*VV|S)))E"
"""The Reber grammar as a regular expression, derived by hand from the figure: an automaton that shares nothing with the table of arcs."""


def test_reber_strings_are_in_the_grammar():
    """Every string fits the expression, in its embedded form with the same T or P twice; a wrong symbol does not."""
    drawn = tasks.embedded_reber(2000, 0)
    strings = tasks.reber_strings(drawn)
    expression = re.compile(rf"B([TP]){INNER}\1E")
    assert all(expression.fullmatch(string) for string in strings)
    assert len(set(strings)) > 200 and {string[1] for string in strings} == set("TP")
    wrong = [string[:-2] + ("T" if string[-2] == "P" else "P") + "E" for string in strings]
    assert not any(expression.fullmatch(string) for string in wrong)


def test_what_reber_allows_is_what_the_automaton_allows():
    """A symbol is allowed after a beginning if and only if some string of the grammar goes on with it."""
    drawn = tasks.embedded_reber(3000, 1)
    strings = tasks.reber_strings(drawn)
    follows = {}
    for string in strings:
        for t in range(1, len(string)):
            follows.setdefault(string[:t], set()).add(string[t])
    seen = Counter(string[:t] for string in strings for t in range(1, len(string)))
    checked = 0
    for b, string in enumerate(strings[:300]):
        for t in range(1, len(string)):
            allowed = {"BTSXPVE"[k] for k in np.flatnonzero(drawn.allowed[t - 1, b])}
            assert string[t] in allowed and follows[string[:t]] <= allowed
            if seen[string[:t]] >= 20:  # an equal choice has shown both sides, but for one time in 500,000
                assert follows[string[:t]] == allowed
                checked += 1
    assert checked > 500
    assert not drawn.allowed[drawn.targets == -1].any() and not drawn.inputs[drawn.targets == -1].any()


def test_reber_baselines_against_simulation():
    """Strings have 12 symbols on average, and 7 choices of ln 2; forgetting the second symbol costs one more."""
    drawn = tasks.embedded_reber(20_000, 2)
    assert (drawn.lengths + 1).mean() == pytest.approx(tasks.REBER_LENGTH, abs=0.1)
    choices = np.log(np.maximum(drawn.allowed.sum(-1), 1)).sum(0).mean()
    assert choices + np.log(2) == pytest.approx(tasks.embedded_reber_baseline(), abs=0.05)
    rows = np.arange(20_000)
    second, again = drawn.targets[0], drawn.targets[drawn.critical, rows]
    assert (second == again).all() and abs((second == 1).mean() - 0.5) < 0.012  # so without memory one of two is a guess


# -- agreement ------------------------------------------------------------------------------------------------------------------

SENTENCE = re.compile(
    r"the ([a-z]+)(?: , which (was|were) (?:sitting|sleeping|waiting|standing))?((?: (?:of|on|in|near|behind) the [a-z]+)*)(?: ,)?"
)


@given(st.integers(1, 5), st.booleans(), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_agreement_sentences_are_sentences(phrases, clause, attraction, seed):
    """The written sentence says all: the verb agrees with the first noun, an attractor is a later noun of the other number."""
    drawn = tasks.agreement(phrases, 6, seed, attraction=attraction, clause=clause)
    assert drawn.words.shape == ((6 if clause else 2) + 3 * phrases + clause, 6)
    for b, sentence in enumerate(tasks.spelled(drawn.words)):
        found = SENTENCE.fullmatch(sentence)
        assert found is not None and sentence.endswith(",") == clause
        nouns = [found[1], *re.findall(r"the ([a-z]+)", found[3])]
        plural = [noun.endswith("s") for noun in nouns]
        assert len(nouns) == phrases + 1 and plural == drawn.plural[:, b].tolist()
        assert drawn.target[b] == plural[0] and found[2] == (("was", "were")[plural[0]] if clause else None)
        assert drawn.attractors[b] == sum(other != plural[0] for other in plural[1:])
        assert [sentence.split()[place] for place in drawn.nouns] == nouns
        np.testing.assert_array_equal(tasks.numbered(sentence), drawn.words[:, b])


@pytest.mark.parametrize("attraction", [0.0, 0.2, 0.5])
def test_agreement_baselines_against_simulation(attraction):
    """What the rules "the nearest noun" and "the majority" get right, counted on sentences."""
    for phrases in (2, 3):
        drawn = tasks.agreement(phrases, 40_000, 5, attraction=attraction)
        expected = tasks.agreement_baselines(phrases, attraction)
        assert (drawn.plural[-1] == drawn.target).mean() == pytest.approx(expected["nearest noun"], abs=0.01)
        votes = drawn.plural.sum(0) * 2 - (phrases + 1)
        right = np.where(votes == 0, 0.5, (votes > 0) == drawn.target).mean()
        assert right == pytest.approx(expected["majority"], abs=0.01)
        assert drawn.target.mean() == pytest.approx(expected["constant"], abs=0.01)


def test_the_lectures_sentence_can_be_said():
    """All words of row 23's sentence are in the vocabulary, singular and plural."""
    for sentence in ("The cat, which was sitting on the mat in the corner of the room, was sleeping.", "The cats were sleeping"):
        words = tasks.numbered(sentence)
        assert tasks.spelled(words[:, None])[0] == sentence.lower().replace(",", " ,").replace(".", "")


# -- text -----------------------------------------------------------------------------------------------------------------------


@given(st.text("ab c", min_size=1, max_size=50), st.integers(1, 4))
def test_a_vocabulary_numbers_what_it_has(text, most):
    """Known symbols come back, unknown ones are 0; the most frequent are kept."""
    vocabulary = tasks.Vocabulary(text, most=most)
    numbers = vocabulary.numbers(text)
    assert len(vocabulary) == min(most, len(set(text))) + 1
    for symbol, number in zip(text, numbers, strict=True):
        assert vocabulary.names[number] == (symbol if symbol in vocabulary.names[1:] else "�")
    kept = [text.count(symbol) for symbol in vocabulary.names[1:]]
    assert kept == sorted(kept, reverse=True)
    assert all(text.count(symbol) <= kept[-1] for symbol in set(text) - set(vocabulary.names))


def test_words_and_streams_of_real_text():
    """Python's help topics by words, in streams whose targets are what follows, and the cost of an answer without looking."""
    symbols = tasks.words(tasks.english())
    vocabulary = tasks.Vocabulary(symbols, least=3)
    numbers = vocabulary.numbers(symbols)
    inputs, targets = tasks.streams(numbers, 8)
    assert inputs.shape == targets.shape == ((len(numbers) - 1) // 8, 8)
    np.testing.assert_array_equal(inputs[1:], targets[:-1])
    shares = np.bincount(numbers) / len(numbers)
    assert tasks.unigram_baseline(numbers) == pytest.approx(-np.log(shares[numbers]).mean(), rel=1e-12)
    assert {"the", "python", ","} <= set(symbols)


# -- movie reviews: everything but the network ------------------------------------------------------------------------------------


def packed(*members, mode="w:gz"):
    """A tar archive of pairs (name or TarInfo, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


HOSTILE = {
    "no archive": b"hello",
    "cut off": packed(("wanted", b"x" * 10_000))[:-20],
    "not there": packed(("other", b"x")),
    "twice": packed(("wanted", b"x"), ("wanted", b"y")),
    "a link": packed((link("wanted", "/etc/passwd"), b"")),
    "under another folder": packed(("../wanted", b"x")),
    "not packed": packed(("wanted", b"x"), mode="w"),
    "a bomb": gzip.compress(b"\0" * (reviews.ROOM + 1)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused(kind, tmp_path):
    """Damaged, ambiguous, linked or exploding archives give a StorageError, in bounded memory, and nothing is written."""
    with pytest.raises(StorageError, match=r"movie_reviews: the archive"):
        reviews.member(HOSTILE[kind], "wanted")
    with pytest.raises(StorageError, match=r"has the SHA-256 [0-9a-f]{64}; expected 5d7c06e0"):
        reviews.movie_reviews(tmp_path / "cache", archive=_written(tmp_path / "a.tar.gz", HOSTILE[kind]))
    assert not (tmp_path / "cache").exists()


def _written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HOSTILE["a bomb"], f"with wanted unpacks to more than {reviews.ROOM} bytes; it is not read"),
        (packed(("other", b"x")), "has wanted 0 times, or as a link; expected one file"),
        (packed(("wanted", b"x"))[:-12], "with wanted cannot be read: it is cut off"),
    ],
    ids=["a bomb", "not there", "cut off"],
)
def test_what_is_said_of_archives(content, message):
    """The reason, with the name of what was looked for."""
    with pytest.raises(StorageError) as caught:
        reviews.member(content, "wanted")
    assert str(caught.value) == f"movie_reviews: the archive {message}"


def test_a_member_is_read_without_unpacking():
    """The wanted file's bytes come back, whatever else is in the archive."""
    assert reviews.member(packed((link("a", "/etc"), b""), ("dir/wanted", b"text"), ("b", b"?")), "dir/wanted") == b"text"


@pytest.fixture
def tiny(monkeypatch):
    """A small archive of the same form, whose digests are expected instead of the real ones."""
    content = b"1\t2.5\tGood, isn't it?\r\n2\t-1\tBad."
    archive = packed((reviews.INNER, packed((reviews.MEMBER, content))))
    for name, value in (("ARCHIVE_DIGEST", archive), ("MEMBER_DIGEST", content)):
        monkeypatch.setattr(reviews, name, hashlib.sha256(value).hexdigest())
    monkeypatch.setattr(reviews, "SENTENCES", 2)
    return archive


def test_reviews_are_fetched_once_and_checked_each_time(tiny, tmp_path, monkeypatch):
    """The first call fetches, the second reads the cache, and one whose cache was altered fetches again."""
    calls = []
    monkeypatch.setattr(reviews, "downloaded", lambda: calls.append(1) or tiny)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = [reviews.Review("Good, isn't it?", 2.5), reviews.Review("Bad.", -1.0)]
    assert reviews.movie_reviews() == reviews.movie_reviews() == expected and len(calls) == 1
    (kept,) = (tmp_path / "tinygrad_rnn").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"2.5", b"9.5"))
    assert reviews.movie_reviews() == expected and len(calls) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/allowed")
    assert reviews.cache_folder().is_absolute()


def test_another_file_in_the_archive_is_refused(tiny, monkeypatch):
    """The digest of the one file that is read is checked too; an archive that is cut off anywhere is none."""
    assert reviews.unpacked(tiny) == b"1\t2.5\tGood, isn't it?\r\n2\t-1\tBad."
    found = reviews.MEMBER_DIGEST
    monkeypatch.setattr(reviews, "MEMBER_DIGEST", "another")
    with pytest.raises(StorageError) as caught:
        reviews.unpacked(tiny)
    assert str(caught.value) == (
        f"movie_reviews: {reviews.MEMBER} has the SHA-256 {found}; expected another. Fetch {reviews.ARCHIVE} again"
    )
    whole, inner = gzip.decompress(tiny), reviews.member(tiny, reviews.INNER)
    end = whole.index(inner) + len(inner)
    for length in range(0, end, 50):
        with pytest.raises(StorageError, match=r"^movie_reviews: the archive "):
            reviews.member(gzip.compress(whole[:length]), reviews.INNER)


def test_reviews_of_another_form_are_refused(tiny):
    """A row without its three parts is named, and so is a number of rows that is not the expected one."""
    with pytest.raises(StorageError, match=r"row 2 is not number, rating and text: 'x'"):
        reviews.parsed(b"1\t2.5\tGood\nx")
    with pytest.raises(StorageError, match=r"expected 2 rows, got 1"):
        reviews.parsed(b"1\t2.5\tGood")


def test_without_a_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    """Pip is asked for the file by its digest; where it fails, its reason and the way without a network are told, and nothing is kept."""
    asked = []

    def no_network(command, **options):
        asked.append((command, Path(command[command.index("--requirement") + 1]).read_text()))
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no network\n")

    monkeypatch.setattr(reviews.subprocess, "run", no_network)
    with pytest.raises(StorageError) as caught:
        reviews.movie_reviews(tmp_path / "cache")
    assert str(caught.value) == (
        "movie_reviews: pip cannot fetch vaderSentiment==3.3.2 (ERROR: no network). It needs a network, once: try again later, or get "
        f"{reviews.ARCHIVE} from https://pypi.org/project/vaderSentiment/3.3.2/#files elsewhere and give its path as archive="
    )
    assert not (tmp_path / "cache").exists()
    command, wanted = asked[0]
    assert "--no-deps" in command and wanted == f"vaderSentiment==3.3.2 --hash=sha256:{reviews.ARCHIVE_DIGEST}\n"


def test_nothing_of_the_data_is_in_the_repository():
    """No file of the package or its tests holds a sentence of the reviews."""
    needle = "destined to be the 21st " + "Century"
    root = Path(tg.__file__).parent.parent
    files = [path for folder in ("tinygrad_rnn", "tests", "examples") for path in (root / folder).rglob("*") if path.is_file()]
    assert len(files) > 100
    assert not any(needle.encode() in path.read_bytes() for path in files if path.suffix != ".pyc")
