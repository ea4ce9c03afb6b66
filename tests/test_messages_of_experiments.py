"""What experiments, exercises, sweeps, tasks and stored files say, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

import functools
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cells
import numpy as np
from messages import Row, said, word_for_word

import tinygrad_rnn as tg
from tinygrad_rnn import experiments, tasks
from tinygrad_rnn.errors import ArgumentError, DtypeError, StateError, StorageError
from tinygrad_rnn.experiments import exercises, records, report, statistics
from tinygrad_rnn.experiments.expressions import evaluate
from tinygrad_rnn.experiments.sweeps import sweep
from tinygrad_rnn.experiments.training import train
from tinygrad_rnn.tasks import reviews

SAID: list[Row] = [
    (
        lambda: experiments.run(99),
        ArgumentError,
        "run: there is no experiment for row 99; expected one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, "
        "14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24",
    ),
    (
        lambda: experiments.agreement.Agreeing("transformer", 2, np.random.default_rng(0)),
        ArgumentError,
        "agreement: there is no network 'transformer'; expected one of RNN, LSTM, GRU, attention",
    ),
    (
        lambda: experiments.deep_stacks(seeds=0),
        ArgumentError,
        "deep_stacks: expected depths and seeds of at least 1, got (2, 5, 10, 20, 50, 100), (2, 30) and 0",
    ),
    (
        lambda: experiments.embedding(length=0),
        ArgumentError,
        f"embedding: expected 1 to {len(tasks.english().split()) - 1} words and at least 2 rows, got 0 and 1000",  # topics grow
    ),
    (
        lambda: experiments.exploding(growth=0.5),
        ArgumentError,
        "exploding: growth must be above 1, got 0.5",
    ),
    (
        lambda: evaluate("1+" * 500 + "1"),
        ArgumentError,
        "formula: 1001 characters are too many; expected at most 200",
    ),
    (
        lambda: experiments.lstm_cell(steps=1),
        ArgumentError,
        "lstm_cell: expected at least 2 steps, got 1",
    ),
    (
        lambda: experiments.lstm_retention(0),
        ArgumentError,
        "lstm_retention: expected at least 1 step and gates between 0 and 1, got 0 and (0.9, 0.99)",
    ),
    (
        lambda: experiments.lstm_retention(3, (2.0,)),
        ArgumentError,
        "lstm_retention: expected at least 1 step and gates between 0 and 1, got 3 and (2.0,)",
    ),
    (
        lambda: experiments.lstm_limits(steps=1),
        ArgumentError,
        "lstm_limits: expected at least 2 steps, got 1",
    ),
    (
        lambda: experiments.orthogonal_start(init=("uniform",)),
        ArgumentError,
        "orthogonal_start: expected 'orthogonal' among the initialisations, got ['uniform']",
    ),
    (
        lambda: experiments.streaming(truncations=(7,)),
        ArgumentError,
        "streaming: expected truncations that divide the 100 steps, got (7,)",
    ),
    (
        lambda: experiments.chain_rule(source=3, position=2),
        ArgumentError,
        "chain_rule: expected 1 ≤ source ≤ position, got source 3 and position 2",
    ),
    (
        lambda: experiments.through_time(networks=("quantum",)),
        ArgumentError,
        "through_time: there is no network 'quantum'; expected some of linear, tanh RNN, tanh RNN, inputs × "
        "0.1, LSTM, forget bias −1, LSTM, forget bias 0, LSTM, forget bias 1, LSTM, forget bias 2, LSTM, "
        "forget bias 4, GRU",
    ),
    (
        lambda: statistics.success_rate(3, 2),
        ArgumentError,
        "success_rate: expected 0 ≤ successes ≤ trials and 0 < level < 1, got 3 of 2 at 0.95",
    ),
    (
        lambda: exercises.check(9, 1),
        ArgumentError,
        "check: there is no exercise 9; expected one of 1, 2, 3, 4",
    ),
    (
        lambda: exercises.check(1, " "),
        ArgumentError,
        "check: the answer is empty; exercise 1 takes a number, a text such as '7.7 %' or '0.95^50', two of "
        "them, or a function of (|λ|, steps)",
    ),
    (
        lambda: exercises.check(1, "seven"),
        ArgumentError,
        "check: exercise 1 takes a number, a text such as '7.7 %' or '0.95^50', two of them, or a function of (|λ|, steps), got 'seven'",
    ),
    (
        lambda: exercises.check(2, {"a": "reset"}),
        ArgumentError,
        "check: exercise 2 takes two texts, one that speaks of f = 0 and f = 1, the two factors, or a "
        "function (f, c, written) → c', got {'a': 'reset'}",
    ),
    (
        lambda: exercises.check(3, 7),
        ArgumentError,
        "check: exercise 3 takes equations such as 'f = z, i = 1 - z, o = 1, c = h' or a dict of them, or a "
        "function (h, gate, candidate) → h', got 7",
    ),
    (
        lambda: exercises.check(3, "no equations"),
        ArgumentError,
        "check: exercise 3 takes equations such as 'f = z, i = 1 - z, o = 1, c = h' or a dict of them, or a "
        "function (h, gate, candidate) → h', got 'no equations'",
    ),
    (
        lambda: exercises.check(4, "many"),
        ArgumentError,
        "check: exercise 4 takes two numbers or formulas, LSTM first, a dict or text with names, or a function of (I, H), got 'many'",
    ),
    (
        lambda: exercises.check(1, float),
        ArgumentError,
        "check: the function given for exercise 1 failed: TypeError: float expected at most 1 argument, got 2",
    ),
    (
        lambda: exercises.check(1, (1.0, 2.0, 3.0)),
        ArgumentError,
        "check: exercise 1 takes a number, a text such as '7.7 %' or '0.95^50', two of them, or a function "
        "of (|λ|, steps), got (1.0, 2.0, 3.0)",
    ),
    (
        lambda: sweep(cells.picky, {"number": []}),
        ArgumentError,
        "sweep: the grid has no cells; expected at least one value for each setting",
    ),
    (
        lambda: sweep(cells.picky, {"number": [1, 1]}),
        ArgumentError,
        "sweep: the grid has a cell twice; give each its own settings, such as a seed",
    ),
    (
        lambda: sweep(cells.picky, {"number": [1]}, workers=0),
        ArgumentError,
        "sweep: expected at least 1 worker, and no executor beside workers, got 0",
    ),
    (
        lambda: sweep(functools.partial(cells.picky, 1), [{}]),
        ArgumentError,
        "sweep: a partial may fix settings by name only, since the settings are the key",
    ),
    (
        lambda: sweep(cells.picky, {"number": [2]}, ThreadPoolExecutor(1)).values(),
        ArgumentError,
        "sweep: 1 of 1 cells failed, the first with {'number': 2}: ValueError: not 2. Mend the cause and call again with the same path",
    ),
    (
        lambda: tasks.Vocabulary("abc", least=2),
        ArgumentError,
        "Vocabulary: no symbol occurs 2 times; give more text, or a smaller least",
    ),
    (
        lambda: tasks.streams([1, 2, 3], 5),
        ArgumentError,
        "streams: 3 numbers are too few for 5 streams and what follows them; give a longer text",
    ),
    (
        lambda: tasks.read_text("/nowhere/text.txt"),
        ArgumentError,
        "text: there is no file '/nowhere/text.txt'; check the path",
    ),
    (
        lambda: tasks.adding(1, 4),
        ArgumentError,
        "adding: steps must be a whole number of at least 2, got 1",
    ),
    (
        lambda: tasks.copying(3, -1),
        ArgumentError,
        "copying: batch must be a whole number of at least 1, got -1",
    ),
    (
        lambda: experiments.distances(lengths=(0,)),
        ArgumentError,
        "distances: expected distances and layers of at least 1, got (0,) and (1, 2, 6, 12, 24)",
    ),
    (
        lambda: experiments.saturation((1.0,)),
        ArgumentError,
        "tanh: a unit cannot rest at 1.0; expected a value between −1 and 1",
    ),
    (
        lambda: tasks.numbered("The zebra"),
        ArgumentError,
        "agreement: 'zebra' is not among the 42 words of tasks.AGREEMENT_WORDS; leave it out, or choose one of them",
    ),
    (lambda: experiments.gru_conventions(steps=1), ArgumentError, "gru_conventions: expected at least 2 steps, got 1"),
    (lambda: experiments.near_effects(steps=3), ArgumentError, "near_effects: expected at least 4 steps, got 3"),
    (
        lambda: experiments.length_limits(("sorting",)),
        ArgumentError,
        "length_limits: there is no task 'sorting'; expected some of adding, temporal order, copying",
    ),
    (lambda: reviews.parsed(b"1\t2.5\tGood\n"), StorageError, "movie_reviews: expected 10605 rows, got 1"),
]


test_the_message = word_for_word(SAID)


# -- stored files -----------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_stored(tmp_path: Path) -> None:
    """The entry is named by its path, and no file is made."""
    path = tmp_path / "state.npz"
    loop: dict[str, Any] = {}
    loop["it"] = loop
    for state, kind, message in [
        ({"a": {"b": np.array(["text"])}}, DtypeError,
         "save: a/b has dtype <U4; expected numbers or bools. Store text as str or a list of str"),
        ({"a": {1, 2}}, ArgumentError,
         "save: a is of type set; expected arrays, numbers, bools, strings, None, and lists, tuples or dicts of them"),
        ({"a": "\ud800"}, ArgumentError, "save: '\\ud800' in 'a' has half a surrogate pair, which no file of text can hold"),
        ({1: 2.0}, ArgumentError, "save: the keys of the state must be strings, got 1. Use str(key)"),
        (loop, ArgumentError, "save: it/it/it/… is more than 64 levels deep. Does it hold itself?"),
    ]:  # fmt: skip
        assert said(kind, lambda state=state: tg.save(path, state)) == message  # type: ignore[misc]
    assert said(ArgumentError, lambda: tg.save(3, {})) == "save: expected a path, got int"
    wrong = tmp_path / "state.pkl"
    assert said(ArgumentError, lambda: tg.save(wrong, {})) == f"save: {wrong} ends in '.pkl'; expected .npz or .safetensors"
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_back(tmp_path: Path) -> None:
    """A folder, and files that were altered: the reason and the remedy."""
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    assert said(StorageError, lambda: tg.load(folder)) == f"load: {folder} is a folder or a device; expected a file that tg.save wrote"
    path = tmp_path / "state.npz"
    tg.save(path, {"weight": np.ones(3)})
    content = {}
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (index,) = set(content) - {"weight.npy"}
    remedy = "It is cut off, damaged or of another kind: write it again with tg.save"

    def altered(files: list[tuple[str, bytes]]) -> str:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files:
                archive.writestr(name, data)
        return said(StorageError, lambda: tg.load(path))

    assert altered([(index, content[index])]) == (
        f"load: {path} cannot be read as .npz: its index names 'weight', which it does not hold, or names it twice. {remedy}"
    )
    assert altered([*content.items(), ("virus.exe", b"")]) == (
        f"load: {path} cannot be read as .npz: 'virus.exe' in it is no array, or there twice, or packed in an unusual way. {remedy}"
    )
    assert altered([(index, content[index]), ("weight.npy", content["weight.npy"][:-8])]) == (
        f"load: {path} cannot be read as .npz: 'weight.npy' in it claims the shape (3,) of float64 but holds 16 bytes. {remedy}"
    )


# -- records, sweeps and runs -----------------------------------------------------------------------------------------------------


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    """A record, a row, a sweep and a training run are told from other files, which stay as they are."""
    path = tmp_path / "row-01.json"
    path.write_text("{}")
    assert said(StorageError, lambda: records.read(path)) == (
        f"record: {str(path)!r} does not hold a row that was measured; expected a file that `reproduce` wrote"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert said(StorageError, lambda: records.read_all([empty])) == (
        f"record: the folder {str(empty)!r} holds no row-*.json; name files or folders that `reproduce` wrote"
    )
    assert said(ArgumentError, lambda: report.reproduce(experiments.ROWS, [1, 99], out=empty)) == (
        f"reproduce: there is no row 99; expected some of {', '.join(map(str, experiments.ROWS))}"
    )
    notes = tmp_path / "notes.txt"
    notes.write_text("a note\n")
    with ThreadPoolExecutor(1) as executor:
        assert said(StorageError, lambda: sweep(cells.picky, {"number": [1]}, executor, path=notes)) == (
            f"sweep: line 1 of {notes} is no cell of a sweep. Choose another path; nothing was written"
        )
    assert notes.read_text() == "a note\n"
    run = tmp_path / "run.npz"
    tg.save(run, {"weight": np.ones(1)})
    w = tg.nn.Linear(1, 1, rng=0)

    def trained(**settings: Any) -> Any:
        options = {"updates": 2, "every": 1, "lr": 0.1, **settings}
        return train(w, lambda: (w(np.ones((1, 1))) ** 2).sum(), lambda: 1.0, rng=np.random.default_rng(0), path=run, **options)

    message = said(StateError, trained)
    assert message.startswith("train: the file is no training run, it lacks ") and message.endswith(". Choose another path")
    run.unlink()
    trained()
    assert said(StateError, lambda: trained(lr=0.2)) == (
        "train: the run in this file had lr=0.1. Give the same settings, or choose another path"
    )


def test_functions_that_workers_cannot_find() -> None:
    """A function without a name of its own is shown as Python shows it, and a setting that is no JSON too."""
    local = lambda: 1  # noqa: E731
    assert said(ArgumentError, lambda: sweep(local, [{}])) == (
        f"sweep: expected a function of a module, which a worker can import by its name, got {local!r}"
    )
    stranger = object()
    assert said(ArgumentError, lambda: sweep(cells.picky, {"number": [stranger]})) == (
        f"sweep: the settings {{'number': {stranger!r}}} cannot be written down as JSON: Object of type object is not JSON serializable"
    )


# -- texts ------------------------------------------------------------------------------------------------------------------------


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and characters that no text has."""
    path = tmp_path / "data.bin"
    path.write_bytes(b"ab\xff")
    assert said(ArgumentError, lambda: tasks.read_text(path)) == f"text: {str(path)!r} is not UTF-8 text (byte 2); convert it first"
    path.write_bytes(b"a\0b")
    assert said(ArgumentError, lambda: tasks.read_text(path)) == (
        f"text: {str(path)!r} holds NUL characters, so it is not text; expected UTF-8 text"
    )


def test_reviews_that_are_none() -> None:
    """A row without its parts is quoted."""
    assert said(StorageError, lambda: reviews.parsed(b"1\t2.5\tGood\nx")) == "movie_reviews: row 2 is not number, rating and text: 'x'"
    message = said(StorageError, lambda: reviews.member(b"no archive", "name"))
    assert message.startswith("movie_reviews: the archive with name cannot be read: ")
