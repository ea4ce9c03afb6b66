"""What the command line, the pictures, the texts, the experiments and the laws say to those who ask for what they cannot do."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from typing import Any

import graphviz
import numpy as np
import pytest
from messages import said

import tinygrad_rnn as tg
from tinygrad_rnn import cli, experiments, flow, nn, render, tasks
from tinygrad_rnn.cli import options
from tinygrad_rnn.cli.options import file_to_write
from tinygrad_rnn.errors import ArgumentError, MissingError, StorageError
from tinygrad_rnn.experiments import records, statistics
from tinygrad_rnn.experiments.expressions import evaluate
from tinygrad_rnn.render import charts
from tinygrad_rnn.render.page import place_for
from tinygrad_rnn.tasks import text
from tinygrad_rnn.testing import GradcheckError, laws

# -- the command line ------------------------------------------------------------------------------------------------------------


def test_options_that_are_none() -> None:
    """An empty path, and an initialisation that is neither a name nor a number."""
    assert said(ArgumentError, lambda: options.check_path("--out", "")) == "--out: expected a path, got nothing"
    assert said(argparse.ArgumentTypeError, lambda: options.initialisation("x")) == (
        "expected one of uniform, glorot, orthogonal, identity, he, or a spectral radius such as 0.9, got 'x'"
    )


CHOICES = f"{', '.join(nn.init.INITIALIZERS)}, or a spectral radius such as 0.9"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--text missing.txt", "text: there is no file 'missing.txt'; check the path"),
        ("--text short.txt", "--text: 9 characters are too few for 100 steps and one to predict; choose fewer --steps"),
        ("--text same.txt", "--text: 'a' is its only character, so there is nothing to predict; choose another text"),
        ("--init magic", f"argument --init: expected one of {CHOICES}, got 'magic'. See tinygrad-rnn --help"),
        ("--init -0.5", "argument --init: a spectral radius is a finite number of at least 0, got '-0.5'. See tinygrad-rnn --help"),
        ("--out short.txt", "--out: 'short.txt' is not a folder; choose another place"),
        ("--steps 1", "argument --steps: expected a whole number from 2 to 10000, got 1. See tinygrad-rnn --help"),
        ("trace --forget-bias nan", "argument --forget-bias: expected a finite number, got 'nan'. See tinygrad-rnn trace --help"),
        ("trace --forget-bias many", "argument --forget-bias: expected a finite number, got 'many'. See tinygrad-rnn trace --help"),
        ("trace --network gru --forget-bias 2", "--forget-bias: only an lstm has a forget gate, got --network gru"),
        ("trace --out nowhere/a.json", "--out: there is no folder 'nowhere'; make it first, or choose another place"),
        ("render --forward --rolled", "--forward: every step is drawn; leave out --rolled, --window, --ends and --routes"),
        (
            "render --forward --steps 1000",
            "--forward: every step is drawn, and 1000 are too many to read; choose at most --steps 30",
        ),
        (
            "reproduce two",
            "argument ROW: there is no row 'two'; expected some of "
            f"{', '.join(map(str, experiments.ROWS))}. See tinygrad-rnn reproduce --help",
        ),
    ],
)
def test_what_the_command_line_refuses(command: str, message: str, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    """One line with the program's name, the exit status of a wrong call, and nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "same.txt").write_text("a" * 500)
    words = command.split()
    try:
        code: Any = cli.main(words)
    except SystemExit as stopped:
        code = stopped.code
    program = " ".join(["tinygrad-rnn", *words[: not words[0].startswith("-")]])
    assert (code, capsys.readouterr().err) == (2, f"{program}: error: {message}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"short.txt", "same.txt"}


def test_a_number_that_is_none(capsys: Any) -> None:
    """A word where a whole number belongs is quoted, on one line, with the exit status of a wrong call."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["render", "--steps", "ten"])
    assert stopped.value.code == 2
    assert "argument --steps: expected a whole number, got 'ten'. See tinygrad-rnn render --help\n" in capsys.readouterr().err


def test_places_that_cannot_be_written_to(tmp_path: Any) -> None:
    """A file's name, ending and folder are looked at before the work."""
    (tmp_path / "folder.svg").mkdir()
    wrong = said(ArgumentError, lambda: file_to_write(str(tmp_path / "a.txt"), ".svg", ".png"))
    assert wrong == "--out: expected a name that ends in .svg or .png, got 'a.txt'"
    folder = str(tmp_path / "folder.svg")
    assert said(ArgumentError, lambda: file_to_write(folder, ".svg")) == f"--out: {folder!r} is a folder; add a file name"
    assert not list(tmp_path.glob("*.txt"))


# -- experiments -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", ["1 +", "wat(3)", "__import__('os')", "x"])
def test_a_formula_that_cannot_be_read(formula: str) -> None:
    """Only arithmetic is read, and nothing is called."""
    assert said(ArgumentError, lambda: evaluate(formula)) == (
        f"formula: {formula!r} cannot be read; expected numbers, + - * / ** and parentheses"
    )


def test_a_record_that_cannot_be_read(tmp_path: Any) -> None:
    """A record that is not there, or is not text, is named with the reason."""
    path = tmp_path / "row-01.json"
    assert said(StorageError, lambda: records.read(path)) == f"record: {str(path)!r} cannot be read: No such file or directory"
    path.write_bytes(b"\xff\xfe\xff")
    assert said(StorageError, lambda: records.read(path)) == f"record: {str(path)!r} cannot be read: not UTF-8 text"


def test_ways_around_layers_that_do_not_exist() -> None:
    """The comparison needs the plain stack, and ways that are known."""
    for way in (("skip",), ("plain", "sideways")):
        expected = f"recurrent_stacks: expected 'plain' and others of plain, skip, dense, got {list(way)}"
        assert said(ArgumentError, lambda way=way: experiments.recurrent_stacks((2,), way)) == expected  # type: ignore[misc]


def test_statistics_of_nothing() -> None:
    """A mean needs a value, and a quantile a probability in the upper half."""
    assert said(ArgumentError, lambda: statistics.mean_of([])) == "mean_of: expected at least one value, got shape (0,)"
    wrong = said(ArgumentError, lambda: statistics.t_quantile(0.2, 3))
    assert wrong == "t_quantile: expected ½ ≤ probability < 1 and degrees ≥ 1, got 0.2 and 3"


def test_lengths_of_no_steps() -> None:
    """An experiment needs a sequence, and says so before it trains."""
    assert said(ArgumentError, lambda: experiments.gru_as_lstm(steps=0)) == "gru_as_lstm: expected at least 1 step, got 0"
    assert said(ArgumentError, lambda: experiments.through_time((0.9,), (0,))) == (
        "through_time: expected radii and lengths of at least 1 step, got (0.9,) and (0,)"
    )


# -- texts -----------------------------------------------------------------------------------------------------------------------


def test_texts_that_are_none(tmp_path: Any, monkeypatch: Any) -> None:
    """A folder, an empty file, and a Python without its own text."""
    assert said(ArgumentError, lambda: tasks.read_text(tmp_path)) == f"text: {str(tmp_path)!r} is a folder; expected a text file"
    path = tmp_path / "empty.txt"
    path.write_text(" \r\n\n")
    assert said(ArgumentError, lambda: tasks.read_text(path)) == f"text: {str(path)!r} is empty; expected some text"
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert said(ArgumentError, text.english) == ("text: this Python was installed without pydoc_data.topics; give a text file of your own")


# -- pictures --------------------------------------------------------------------------------------------------------------------


def test_charts_of_what_does_not_fit() -> None:
    """As many heights as places, and only what was written of a chart is read as one."""
    assert said(ArgumentError, lambda: charts.series("loss", [1, 2, 3], [1.0, 2.0])) == (
        "series: 'loss' has 3 and 2 entries; expected as many y as x"
    )
    pie = {"kind": "pie", "title": "losses", "x": "", "y": "", "series": []}
    assert said(ArgumentError, lambda: charts.Chart.from_dict(pie)) == f"chart: expected what was written of a chart, got {str(pie)[:60]}"


def test_no_matplotlib(monkeypatch: Any) -> None:
    """Both kinds of plots say what to install."""
    result = flow.vanishing_product(tg.trace(nn.RNN(1, 2, rng=0)(np.ones((3, 1, 1)))[0].sum()))
    monkeypatch.setitem(sys.modules, "tinygrad_rnn.render.figure", None)
    expected = 'plot: Matplotlib is not installed; pip install "tinygrad_rnn[plot]"'
    chart = charts.Chart("lines", "losses", "t", "loss", (charts.series("a", [1, 2], [1.0, 2.0]),))
    assert said(MissingError, lambda: charts.draw([chart])) == expected
    assert said(MissingError, lambda: render.plot(result)) == expected


def test_forward_graphs_of_nothing() -> None:
    """A computation that was not recorded cannot be drawn, and nodes are opened by name."""
    nothing = "forward_graph: nothing was recorded: no operand requires a gradient, or no_grad() was on"
    assert said(ArgumentError, lambda: render.forward_graph(tg.tensor(1.0) * 2.0)) == nothing
    result = tg.tensor(1.0, requires_grad=True) * 2.0
    assert said(ArgumentError, lambda: render.forward_graph(result, opened=3)) == (
        "forward_graph: opened must be True, False or names of opaque nodes, got 3"
    )
    assert said(ArgumentError, lambda: render.forward_graph(result, max_nodes=0)) == (
        "forward_graph: max_nodes must be a whole number of at least 1, got 0"
    )


def test_arguments_of_pictures(tmp_path: Any) -> None:
    """Counts are whole numbers of at least 1, and a title is a text; no page is written."""
    trace = tg.trace((tg.tensor([1.0], requires_grad=True) * 2.0).sum())
    ends = said(ArgumentError, lambda: render.backward_graph(trace, ends=0))
    assert ends == "backward_graph: ends must be a whole number of at least 1, got 0"
    title = said(ArgumentError, lambda: render.player(trace, tmp_path / "page.html", title=3))
    assert title == "player: expected a text as title, got int"
    assert not list(tmp_path.iterdir())


def test_pages_have_a_place(tmp_path: Any) -> None:
    """A folder is no page, and no folder is made."""
    assert "Is a folder; add a file name" in said(IsADirectoryError, lambda: place_for(tmp_path))
    assert "No such folder" in said(FileNotFoundError, lambda: place_for(tmp_path / "none" / "page.html"))
    assert not list(tmp_path.iterdir())


def test_pictures_overwrite_only_what_they_may(tmp_path: Any) -> None:
    """A picture keeps Graphviz's own promises: no file that is there is replaced if told so, and never the DOT text."""
    graph = render.backward_graph(tg.trace(tg.tensor([1.0], requires_grad=True).sum()))
    there = tmp_path / "picture.svg"
    there.write_text("mine")
    again = said(graphviz.FileExistsError, lambda: graph.render(outfile=there, raise_if_result_exists=True))
    assert again == f"output file exists: {str(there)!r}"
    assert there.read_text() == "mine"
    same = said(ValueError, lambda: graph.render(filename=str(tmp_path / "graph.svg"), outfile=tmp_path / "graph.svg"))
    assert same == "outfile 'graph.svg' must be different from the source file"


# -- the testing kit -------------------------------------------------------------------------------------------------------------


def test_no_hypothesis(monkeypatch: Any) -> None:
    """Without Hypothesis the strategies say what to install."""
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "tinygrad_rnn.testing.strategies", raising=False)
    assert said(MissingError, lambda: importlib.import_module("tinygrad_rnn.testing.strategies")) == (
        'testing.strategies: Hypothesis is not installed; pip install "tinygrad_rnn[test]"'
    )


def test_a_result_whose_shape_changes() -> None:
    """A function that gives another shape when it is called again is not determined by its operands."""
    calls = iter(range(10))
    message = said(GradcheckError, lambda: laws.determinism(lambda x: x * np.ones((next(calls) + 1, 1)), [1.0, 2.0]))
    assert re.search(r"expected shape \((\d+), 2\) by the first call, got \((?!\1,)\d+, 2\) by the second", message)
