"""The main job: what ``python -m tinygrad_rnn`` prints, writes and refuses."""

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_rnn import cli, tasks

PICTURES = {f"{name}.{kind}" for name in ("rnn", "lstm", "gru") for kind in ("dot", "svg")}


def run(*arguments, **environment):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tinygrad_rnn", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONIOENCODING": "utf-8", **environment},
        check=False,
    )


@pytest.fixture
def sample(tmp_path):
    """A small text of one's own."""
    path = tmp_path / "sample.txt"
    path.write_text(
        "It is a truth universally acknowledged, that a network in possession of a long memory must be in want of a gate.\n" * 3
    )
    return path


def test_the_defaults_draw_three_graphs_and_print_one_table(tmp_path):
    """With no arguments but the folder: six files, a row for lag 99, the bound, the half-lives, and what to look at."""
    done = run("--out", tmp_path / "new" / "pictures")
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "new" / "pictures"
    assert {path.name for path in folder.iterdir()} == PICTURES
    for path in folder.glob("*.svg"):
        assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")
    for expected in ("RNN δ/δ_T", "c direct", "h total", "ρ(W_hh)", "σ_max", "half-life", "\n99 ", "Look at lstm.svg", str(folder)):
        assert expected in done.stdout


def test_no_dot_on_the_path_is_needed(tmp_path):
    """An empty PATH draws all the same."""
    done = run("--out", tmp_path / "out", "--steps", 10, PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == PICTURES


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """Two processes with different hash seeds print and draw the same."""
    outputs = []
    for seed in ("1", "2"):
        done = run("--steps", 12, "--out", tmp_path / "same", "--json", PYTHONHASHSEED=seed)
        outputs.append((done.stdout, sorted((p.name, p.read_bytes()) for p in (tmp_path / "same").iterdir())))
    assert outputs[0] == outputs[1]


def test_json_holds_every_lag(tmp_path, sample, capsys):
    """--json prints one object: settings, text, and for each network product and highway at all lags."""
    assert (
        cli.main(["--steps", "20", "--hidden", "8", "--text", str(sample), "--out", str(tmp_path / "out"), "--json", "--format", "dot"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["steps"] == 20 and len(told["text"]) == 20 and told["text"] + told["next"] in sample.read_text()
    assert list(told["networks"]) == ["RNN", "LSTM", "GRU"]
    for name, network in told["networks"].items():
        assert len(network["product"]["gain"]) == 20
        assert np.isfinite(network["product"]["log10_product"]).all()
        assert network["highway"]["role"] == {"RNN": None, "LSTM": "cell", "GRU": "hidden"}[name]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rnn.dot", "lstm.dot", "gru.dot"}


def test_the_initialisation_reaches_the_weights(tmp_path, capsys):
    """--init 0.5 gives an RNN of spectral radius 0.5; orthogonal one whose singular values are 1."""
    for choice, key, expected in (("0.5", "spectral_radius", 0.5), ("orthogonal", "largest_singular_value", 1.0)):
        cli.main(["--steps", "5", "--init", choice, "--out", str(tmp_path), "--json", "--format", "dot"])
        assert json.loads(capsys.readouterr().out)["networks"]["RNN"]["product"][key] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "missing.txt"], "there is no file"),
        (["--text", "empty.txt"], "is empty"),
        (["--text", "short.txt"], "too few for 100 steps"),
        (["--text", "binary.txt"], "not UTF-8 text"),
        (["--text", "nul.txt"], "NUL"),
        (["--text", "."], "is a folder"),
        (["--text", "same.txt"], "its only character"),
        (["--text", ""], "expected a path"),
        (["--out", ""], "expected a path"),
        (["--out", "taken"], "Is a directory"),
        (["--bogus\nline"], "unrecognized"),
        (["--out", "short.txt"], "is not a folder"),
        (["--out", "short.txt/below"], "is not a folder"),
        (["--steps", "-5"], "from 2 to"),
        (["--steps", "1"], "from 2 to"),
        (["--steps", "many"], "whole number"),
        (["--hidden", "0"], "from 1 to"),
        (["--seed", "-1"], "from 0 to"),
        (["--init", "magic"], "spectral radius"),
        (["--init", "-0.5"], "spectral radius"),
        (["--init", "nan"], "spectral radius"),
        (["--format", "gif"], "svg"),
        (["--unknown"], "unrecognized"),
        (["stray"], "unrecognized"),
        (["trace", "--network", "elman"], "choose from"),
        (["trace", "--gate", "back"], "choose from"),
        (["trace", "--rows", "-1"], "from 0 to"),
        (["trace", "--network", "gru", "--forget-bias", "2"], "only an lstm"),
        (["trace", "--forget-bias", "nan"], "finite number"),
        (["trace", "--out", "ledger.txt"], "ends in .json"),
        (["trace", "--out", "nowhere/ledger.json"], "no folder"),
        (["trace", "--text", "short.txt", "--steps", "50"], "too few for 50 steps"),
        (["render", "--out", "picture.gif"], "ends in .svg"),
        (["render", "--out", "folder.svg"], "is a folder"),
        (["render", "--out", ""], "expected a path"),
        (["render", "--window", "1"], "2 arguments"),
        (["render", "--window", "9", "4"], "shows no step"),
        (["render", "--theme", "sepia"], "choose from"),
        (["render", "--forward", "--rolled"], "leave out --rolled"),
        (["render", "--forward", "--steps", "1000"], "at most --steps 30"),
        (["play", "--out", "page.svg"], "ends in .html"),
        (["play", "--steps", "1"], "from 2 to"),
        (["explore", "--out", "nowhere/page.html"], "no folder"),
        (["explore", "--hidden", "0"], "from 1 to"),
        (["explore", "--steps", "9"], "unrecognized"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(arguments, message, tmp_path, monkeypatch, capsys):
    """What is wrong and what to do, in one line on standard error."""
    monkeypatch.chdir(tmp_path)
    for name, content in {"empty.txt": b"", "short.txt": b"too short", "binary.txt": bytes(range(256)), "nul.txt": b"a\0b" * 99}.items():
        Path(name).write_bytes(content)
    Path("same.txt").write_text("a" * 500)
    Path("taken/lstm.svg").mkdir(parents=True)
    Path("folder.svg").mkdir()
    before = sorted(tmp_path.rglob("*"))
    try:
        code = cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    told = capsys.readouterr()
    assert code == 2 and told.out == ""
    assert message in told.err and told.err.count("\n") == 1 and re.match(r"tinygrad-rnn( \w+)?: error: ", told.err)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("command", "out"), [([], "locked"), ([], "locked/below"), (["trace"], "locked/ledger.json")])
def test_a_folder_without_permission_is_refused(command, out, tmp_path, monkeypatch, capsys):
    """An unwritable folder is named before any work is done; for a folder to be made, the one in which it would be."""
    locked = tmp_path / "locked"
    locked.mkdir()
    access = os.access  # root may write anywhere, so the answer of the file system is given here
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and access(path, mode))
    monkeypatch.setattr("tinygrad_rnn.cli.reading.Text.chosen", lambda options: pytest.fail("work was done"))
    assert cli.main([*command, "--out", str(tmp_path / out)]) == 2
    program = " ".join(["tinygrad-rnn", *command])
    assert capsys.readouterr().err == (f"{program}: error: --out: the folder {str(locked)!r} cannot be written to; choose another place\n")
    assert not list(locked.iterdir())


def test_a_failing_write_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    """If the third file cannot be written, none of them is there, nor the folder made for them."""
    from tinygrad_rnn import files

    real, calls = files.write_atomically, []

    def full_disk(path, content):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(path))
        return real(path, content)

    monkeypatch.setattr(files, "write_atomically", full_disk)
    assert cli.main(["--steps", "5", "--out", str(tmp_path / "out")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_shows_examples_that_work(name, tmp_path, monkeypatch, capsys):
    """--help says what every option does and ends with commands to copy; each of them runs as it stands."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([*filter(None, [name]), "--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    examples = re.findall(rf"^example: tinygrad-rnn {name} ?(.*)$", told, re.M)
    assert examples and "--help" in told
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("It was the best of times, it was the worst of times. " * 20)
    for example in examples:
        assert cli.main([*filter(None, [name]), *shlex.split(example)]) == 0
        told = capsys.readouterr()
        assert told.out and told.err == ""
        if out := re.search(r"--out (\S+)", example):
            assert Path(out[1]).is_dir() or Path(out[1]).stat().st_size > 100


def test_the_help_lists_the_commands(capsys):
    """Every command, with what it does; a command's name comes first, and an unknown one is refused with the way to the list."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    for name, what in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", told, re.M)


def test_trace_prints_and_writes_one_ledger(tmp_path, capsys):
    """The table lists the multiplications that were asked for; the file and --json hold all of them, the same."""
    common = ["trace", "--network", "lstm", "--steps", "4", "--hidden", "3"]
    assert cli.main([*common, "--time", "4", "--gate", "forget", "--kind", "scale", "--out", str(tmp_path / "ledger.json")]) == 0
    printed = capsys.readouterr().out
    listed = printed[printed.index(" backward multiplications\nt ") :]
    assert re.findall(r"⊙ \S+", listed) == ["⊙ c₃", "⊙ f₄", "⊙ f₄(1"]
    assert "highway through cell" in printed
    assert cli.main([*common, "--json"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told) == json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
    assert len(json.loads(told)["states"]["lstm"]) == 4


def test_render_draws_what_was_asked_for(tmp_path, capsys):
    """The file's ending decides the format; the window decides the steps."""
    drawing = ["render", "--network", "gru", "--steps", "9", "--hidden", "2", "--window", "4", "5"]
    assert cli.main([*drawing, "--out", str(tmp_path / "a.dot")]) == 0
    text = (tmp_path / "a.dot").read_text(encoding="utf-8")
    assert re.findall(r'label="(t = [^"]+)"', text) == ["t = 1 … 3", "t = 4", "t = 5", "t = 6 … 9"]
    assert cli.main(["render", "--steps", "2", "--hidden", "2", "--out", str(tmp_path / "a.PNG")]) == 0
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["render", "--network", "rnn", "--steps", "2", "--hidden", "2", "--forward", "--out", str(tmp_path / "f.dot")]) == 0
    text = (tmp_path / "f.dot").read_text(encoding="utf-8")
    assert "operations, from the inputs to the result" in text and re.findall(r'label="(t = [^"]+)"', text) == ["t = 1", "t = 2"]


def test_the_forget_bias_reaches_the_gate(tmp_path, capsys):
    """A larger forget bias makes the highway pass more; no other network has one."""
    rates = []
    for bias in ("-2", "4"):
        assert cli.main(["trace", "--steps", "5", "--rows", "0", "--forget-bias", bias]) == 0
        rates.append(float(re.search(r"highway through cell, \w+: a factor of (\S+)", capsys.readouterr().out)[1]))
    assert rates[0] < 0.3 and rates[1] > 0.95


def test_the_text_is_real_english_and_the_same_each_time():
    """pydoc_data.topics holds several hundred thousand characters of it."""
    text = tasks.english()
    assert len(text) > 300_000 and " the " in text and text == tasks.english()


def test_what_was_there_before_survives_a_failure(tmp_path):
    """If one target cannot be replaced, the others are put back as they were, and no scratch file is left."""
    from tinygrad_rnn.files import write_together

    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "c").mkdir()
    with pytest.raises(IsADirectoryError, match="c"):
        write_together(tmp_path, {"a": b"new", "b": b"new", "c": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}


def test_what_others_put_there_survives_a_failure(tmp_path, monkeypatch):
    """A folder that was made goes again, with an error of any kind, but not with what somebody else has put there meanwhile."""
    from tinygrad_rnn import files

    def interrupted(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_together(tmp_path / "new" / "folder", {"a": b"new"})
    assert not list(tmp_path.iterdir())

    def full(path, content):
        (tmp_path / "new" / "theirs").write_bytes(b"theirs")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_atomically", full)
    with pytest.raises(OSError) as caught:
        files.write_together(tmp_path / "new" / "folder", {"a": b"new"})
    assert str(caught.value) == f"[Errno 28] No space left on device: {str(tmp_path / 'new' / 'folder' / 'a')!r}"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "new", tmp_path / "new" / "theirs"]


def test_an_output_that_knows_only_ascii_gets_a_table_all_the_same(tmp_path):
    """Signs that the stream cannot write become question marks."""
    done = run("--steps", 5, "--out", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "lag" in done.stdout and done.stderr == ""


def test_a_reader_who_has_read_enough_is_no_error(tmp_path):
    """``… | head -1`` ends quietly with exit code 0."""
    command = f"'{sys.executable}' -m tinygrad_rnn --steps 5 --out '{tmp_path}'; echo $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | head -c 1 > /dev/null"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        check=True,
    )
    assert done.stderr.strip() == "0"


def test_an_interruption_is_one_line(tmp_path, monkeypatch, capsys):
    """Ctrl-C ends with exit code 130 and no traceback."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinygrad_rnn.cli.overview._pictures", interrupted)
    assert cli.main(["--steps", "5", "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_interruption_while_modules_are_loaded(monkeypatch):
    """Ctrl-C before there is a command ends with exit code 130 too; what spawned processes import again starts nothing."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("tinygrad_rnn", run_name="__main__")
    assert stopped.value.code == 130
    assert "main" not in runpy.run_module("tinygrad_rnn", run_name="__mp_main__")


def test_memory_that_is_not_there_is_one_line(monkeypatch, capsys):
    """Too many steps or units are no traceback."""

    def too_much(options):
        raise MemoryError

    monkeypatch.setattr("tinygrad_rnn.cli.reading.Text.chosen", too_much)
    assert cli.main(["trace"]) == 2
    assert capsys.readouterr().err == "tinygrad-rnn trace: error: not enough memory; choose fewer --steps or --hidden units\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_an_output_without_room_is_one_line(capsys):
    """What cannot be printed is told on standard error, with the reason, and exit code 2."""
    with open("/dev/full", "w", encoding="utf-8") as full, contextlib.redirect_stdout(full):
        assert cli.main(["trace", "--steps", "3", "--hidden", "2"]) == 2
        assert capsys.readouterr().err == (
            "tinygrad-rnn trace: error: cannot print: No space left on device; send the output to another place\n"
        )
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), full.fileno())  # what is still held goes there when the file is closed


def test_a_stream_that_is_no_file_gets_the_same(capsys):
    """Output that a program collects as text is that of the terminal."""
    command = ["trace", "--steps", "3", "--hidden", "2", "--json"]
    assert cli.main(command) == 0
    with contextlib.redirect_stdout(io.StringIO()) as collected:
        assert cli.main(command) == 0
    assert collected.getvalue() == capsys.readouterr().out


def test_tables_are_as_wide_as_the_output(monkeypatch, capsys):
    """A pipe has no edge: 160 columns; COLUMNS names another width."""
    longest = {}
    for columns in ("", "70"):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        assert cli.main(["trace", "--steps", "3", "--hidden", "2"]) == 0
        tables = [line for line in capsys.readouterr().out.splitlines() if "→" not in line and not line.startswith("LSTM")]
        longest[columns] = max(map(len, tables))
    assert 80 < longest[""] <= 160 and longest["70"] <= 70
