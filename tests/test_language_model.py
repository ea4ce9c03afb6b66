"""The training example: what it saves, how it goes on, and what it says. (That it learns is in its docstring, which the tests run.)"""

from __future__ import annotations

import importlib.util
import io
import math
import signal
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tinygrad_rnn as tg

PATH = Path(__file__).parent.parent / "examples" / "14_train_a_language_model.py"
WORDS = "the cat and the dog and a mouse saw the sea, then all of them sat down and slept. "


@pytest.fixture
def example():
    """The example as a module of its own for each test."""
    spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(example, tmp_path, capsys):
    """The example's command on a small text: options to exit code and output."""
    text = tmp_path / "text.txt"
    text.write_text(WORDS * 30, encoding="utf-8")
    tiny = ["--hidden", "6", "--embedding", "4", "--streams", "4", "--segment", "7", "--steps", "20", "--every", "6"]

    def run(*options, settings=tiny):
        code = example.main([*map(str, options), *settings, "--text", str(text)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def interrupt_at(example, monkeypatch, step):
    """Ctrl-C arrives in the middle of this update."""
    update = example.Run.update

    def interrupted(run):
        if run.step + 1 == step:
            signal.raise_signal(signal.SIGINT)
        update(run)

    monkeypatch.setattr(example.Run, "update", interrupted)


@pytest.mark.parametrize("step", [1, 6, 9, 20])
@pytest.mark.parametrize("options", [("--cell", "lstm", "--layers", 2, "--dropout", 0.2), ("--cell", "gru"), ("--cell", "rnn")], ids=str)
def test_an_interrupted_run_ends_where_it_would_have_ended(example, command, monkeypatch, tmp_path, options, step):
    """Ctrl-C in an update lets it finish and saves; resumed, the last checkpoint has the bytes of a run in one go."""
    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    code, printed = command(*options, "--checkpoint", whole)
    assert code == 0 and "after 20 updates" in printed
    with monkeypatch.context() as patch:
        interrupt_at(example, patch, step)
        code, printed = command(*options, "--checkpoint", parts)
    assert code == 130 and tg.load(parts)["step"] == step
    assert step == 20 or (f"Stopped after {step} of 20 steps" in printed and f"--resume {parts}" in printed)
    assert command("--resume", parts, settings=())[0] == 0
    assert parts.read_bytes() == whole.read_bytes()


def test_a_run_that_is_out_of_time_can_go_on(command, tmp_path):
    """--minutes 0 stops before the first update; the rest is done later, and a finished run only reports."""
    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    assert command("--checkpoint", whole)[0] == 0
    code, printed = command("--checkpoint", parts, "--minutes", 0)
    assert code == 0 and "Stopped after 0 of 20 steps" in printed
    for _ in range(2):
        code, printed = command("--resume", parts, settings=())
        assert code == 0 and "this LSTM after 20 updates" in printed
    assert parts.read_bytes() == whole.read_bytes()


def test_a_second_interruption_is_obeyed_at_once(example, command, monkeypatch, tmp_path):
    """Whoever presses Ctrl-C twice does not wait for the update; the checkpoint is the last one."""
    update = example.Run.update

    def interrupted(run):
        if run.step == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        update(run)

    monkeypatch.setattr(example.Run, "update", interrupted)
    code, printed = command("--checkpoint", tmp_path / "run.npz")
    assert code == 130 and "last saved" in printed
    assert tg.load(tmp_path / "run.npz")["step"] == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_bar_is_for_terminals(example, tmp_path):
    """On a terminal there is a bar with the loss; elsewhere only lines, without control characters."""
    for terminal in (True, False):
        out = io.StringIO()
        run = example.Run(example.Text(WORDS * 10), example.defaults() | {"hidden": 4, "steps": 3, "streams": 4})
        example.train(run, tmp_path / "run.npz", Console(file=out, force_terminal=terminal, width=100))
        assert ("3/3  loss" in out.getvalue()) is terminal
        assert ("\x1b" in out.getvalue()) is terminal


def test_counting_by_hand(example):
    """Cross-entropies of a text of two letters, where every probability can be written down."""
    text = example.Text("ab" * 90 + "a" * 20)  # the last 20 are held out: 19 are read, of 16 streams, and 16 predicted
    single = (90 + 1) / (180 + 2)
    found = example.counted(text)
    assert found["uniform"] == math.log(2)
    assert found["unigram"] == pytest.approx(-math.log(single), rel=1e-12)
    assert found["bigram"] == pytest.approx(-math.log((0 + single) / (90 + 1)), rel=1e-12)
    assert found["bigram that has counted the validation text"] == 0.0


def test_streams_predict_the_next_character(example):
    """Each stream goes on where the one before it ends, and a target is the next character."""
    inputs, targets = example.streams(np.arange(11), 3)
    np.testing.assert_array_equal(inputs, [[0, 3, 6], [1, 4, 7], [2, 5, 8]])
    np.testing.assert_array_equal(targets, inputs + 1)


def test_the_state_is_carried_and_the_gradient_is_cut(example):
    """A second segment begins with the state of the first, which no longer has a graph."""
    run = example.Run(example.Text(WORDS * 10), example.defaults() | {"hidden": 4, "segment": 5, "streams": 4})
    run.update()
    assert run.position == 5
    assert all(part.is_leaf and not part.requires_grad and np.any(part.value) for part in run.state)


def test_a_sample_alters_nothing(example):
    """The sample has the text's characters, comes out the same each time, and leaves the run as it was."""
    run = example.Run(example.Text(WORDS * 10), example.defaults() | {"hidden": 4, "dropout": 0.5, "streams": 4})
    before = run.random.bit_generator.state
    sample = run.sample(50, 0.7)
    assert len(sample) == 50 and set(sample) <= set(WORDS) and sample == run.sample(50, 0.7)
    assert run.random.bit_generator.state == before and run.model.dropout.training


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        (("--resume", "run.npz", "--hidden", 5), (), "leave out --hidden"),
        (("--resume", "none.npz"), (), "none.npz"),
        (("--resume", "other.npz"), (), "of another text (or no language model)"),
        (("--checkpoint", "nowhere/run.npz"), (), "nowhere"),
        (("--checkpoint", "run.txt"), (), "expected .npz or .safetensors"),
        (("--temperature", 0), (), "expected a number above 0"),
        (("--streams", 5000), (), "too few for 5000 streams"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(command, monkeypatch, tmp_path, options, settings, message):
    """A wrong option ends with exit code 2 and one line that says why, before any work."""
    monkeypatch.chdir(tmp_path)
    tg.save("other.npz", {"weight": np.ones(3)})
    code, printed = command(*options, settings=settings)
    assert code == 2 and printed.count("\n") == 1 and message in printed


@pytest.mark.parametrize("options", ["--hidden 0", "--hidden 1.5", "--lr nan", "--seed -1", "--cell lstn"])
def test_settings_outside_their_range_are_refused(example, capsys, options):
    """argparse names the option."""
    with pytest.raises(SystemExit):
        example.main(options.split())
    assert options.split()[0] in capsys.readouterr().err
