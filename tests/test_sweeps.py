"""Sweeps: the same values wherever they run, and whatever dies on the way, nothing that is finished is lost."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path

import cells
import pytest

from tinygrad_rnn import experiments
from tinygrad_rnn.errors import ArgumentError, StorageError
from tinygrad_rnn.experiments import sweeps
from tinygrad_rnn.experiments.sweeps import sweep

GRID = {"seed": [0, 1], "size": [4, 40]}
HERE = os.pathsep.join([str(Path(cells.__file__).parent), str(Path(experiments.__file__).parents[2])])
"""Where another process finds the tests and the package."""

POSIX = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes by signals")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def calls(folder: Path) -> dict[int, int]:
    """How often each number was called."""
    found: dict[int, int] = {}
    for touched in folder.glob("*-*-*"):
        number = int(touched.name.partition("-")[0])
        found[number] = found.get(number, 0) + 1
    return found


def fragile(folder: Path, numbers, **kills: int) -> list[dict]:
    """The cells of ``cells.fragile`` for some numbers; ``k3=1`` lets number 3 kill its worker once."""
    return [{"number": n, "folder": str(folder), "kills": kills.get(f"k{n}", 0)} for n in numbers]


# -- values ---------------------------------------------------------------------------------------------------------------------


def test_processes_and_threads_give_the_same_bits():
    """A cell's numbers are those of a plain call, to the last bit, in the order of the grid; workers have one BLAS thread."""
    with ThreadPoolExecutor(2) as executor:
        threads = sweep(cells.gradient, GRID, executor)
    processes = sweep(cells.gradient, GRID, workers=2)
    expected = [cells.gradient(seed, size) for seed in GRID["seed"] for size in GRID["size"]]
    assert threads.values() == processes.values() == expected
    assert [dict(cell.settings) for cell in processes.cells] == [{"seed": s, "size": n} for s in (0, 1) for n in (4, 40)]
    before = {name: value for name, value in os.environ.items() if "THREADS" in name}
    assert sweep(cells.threads, [{}], workers=1).values() == ["1"]
    assert {name: value for name, value in os.environ.items() if "THREADS" in name} == before
    assert "seed" in str(processes) and json.loads(processes.to_json())["reused"] == 0


def test_values_from_the_file_are_the_same_bits(tmp_path):
    """What a second call reads is what the first one got, though it calls nothing."""
    path = tmp_path / "sweep.jsonl"
    with ThreadPoolExecutor(1) as executor:
        first = sweep(cells.gradient, GRID, executor, path=path)
        second = sweep(cells.gradient, GRID, Refusing(), path=path)
    assert second.values() == first.values() and (first.reused, second.reused) == (0, 4)


class Refusing(Executor):
    """An executor that is not to be used."""

    def submit(self, *arguments, **options):
        raise AssertionError("a cell was called that is on file")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sweep(lambda: 1, [{}]), r"expected a function of a module"),
        (lambda: sweep(cells.picky, {"number": []}), r"the grid has no cells"),
        (lambda: sweep(cells.picky, {"number": [1, 1]}), r"has a cell twice"),
        (lambda: sweep(cells.picky, {"number": [object()]}), r"cannot be written down as JSON"),
        (
            lambda: sweep(cells.picky, {"number": [1]}, Refusing(), workers=2),
            r"expected at least 1 worker, and no executor beside workers, got 2",
        ),
        (lambda: sweep(functools.partial(cells.picky, 1), [{}]), r"a partial may fix settings by name only"),
    ],
)
def test_what_is_refused(call, message):
    """Before anything runs, with the reason."""
    with pytest.raises(ArgumentError, match=message):
        call()


def test_functions_and_partials_have_keys_of_their_own(tmp_path):
    """Cells of another function, or of other fixed settings, are never taken for these; all may be in one file."""
    path, half = tmp_path / "sweep.jsonl", functools.partial(cells.gradient, size=4)
    with ThreadPoolExecutor(1) as executor:
        assert sweep(half, {"seed": [0]}, executor, path=path).values() == [cells.gradient(0, 4)]
        assert sweep(functools.partial(cells.gradient, size=5), {"seed": [0]}, executor, path=path).reused == 0
        assert sweep(cells.picky, {"number": [1]}, executor, path=path).reused == 0
    assert sweep(half, {"seed": [0]}, Refusing(), path=path).reused == 1 and len(lines(path)) == 3


# -- failures -------------------------------------------------------------------------------------------------------------------


def test_a_cell_that_raises_is_reported_and_tried_again(tmp_path):
    """The others go on; it is not on file, ``values`` names it, and the next call tries it again."""
    path = tmp_path / "sweep.jsonl"
    found = sweep(cells.picky, {"number": [1, 2, 3, 4]}, workers=1, path=path)
    assert [cell.error for cell in found.cells] == [None, "ValueError: not 2", "SystemExit: 1", None]
    assert sorted(line["value"] for line in lines(path)) == [1, 4]
    with pytest.raises(ArgumentError, match=r"2 of 4 cells failed, the first with \{'number': 2\}: ValueError: not 2"):
        found.values()
    with ThreadPoolExecutor(1) as executor:
        assert sweep(cells.picky, {"number": [1, 2, 3, 4]}, executor, path=path).reused == 2
        assert sweep(cells.odd, {"number": [1]}, executor).failed[0].error == "TypeError: Object of type object is not JSON serializable"


@POSIX
def test_a_killed_worker_costs_only_what_was_under_way(tmp_path):
    """A worker is killed in mid-sweep: all cells are done in the end, no finished one twice; a cell that always kills is given up."""
    path = tmp_path / "sweep.jsonl"
    found = sweep(cells.fragile, fragile(tmp_path, range(8), k2=1, k5=99), workers=2, path=path)
    assert [cell.settings["number"] for cell in found.failed] == [5]
    assert found.failed[0].error == "the worker died 2 times during this cell"
    done = {line["settings"]["number"] for line in lines(path)}
    assert done == {0, 1, 2, 3, 4, 6, 7} and len(lines(path)) == 7
    called = calls(tmp_path)
    assert called[2] == 2 and called[5] == 2
    assert sum(called.values()) <= 8 + 2 + 2  # each death may cost one neighbour too
    assert [cell.value["square"] for cell in found.cells if cell.error is None] == [0, 1, 4, 9, 16, 36, 49]


class Broken(Executor):
    """An executor that does one cell and then breaks."""

    def __init__(self):
        self.done = 0

    def submit(self, fn, *arguments, **options):
        self.done += 1
        future = Future()
        if self.done == 1:
            future.set_result(fn(*arguments))
        else:
            future.set_exception(BrokenExecutor("gone"))
        return future


def test_a_broken_executor_of_the_callers_keeps_what_is_finished(tmp_path):
    """It cannot be started again here, so the error is passed on; the finished cell is on file, and the next call goes on."""
    path = tmp_path / "sweep.jsonl"
    for count in (1, 2):
        with pytest.raises(BrokenExecutor, match="gone"):
            sweep(cells.picky, {"number": [1, 4, 5, 6, 7]}, Broken(), path=path)
        assert len(lines(path)) == count
    with ThreadPoolExecutor(1) as executor:
        assert sweep(cells.picky, {"number": [1, 4, 5, 6, 7]}, executor, path=path).values() == [1, 4, 5, 6, 7]


class Lossy(Executor):
    """An executor that loses the second cell on the way, as Dask does when workers die during it, and never begins the third."""

    def __init__(self, error):
        self.error, self.futures = error, []

    def submit(self, fn, *arguments, **options):
        future = Future()
        self.futures.append(future)
        if len(self.futures) == 2:
            future.set_exception(self.error)
        elif len(self.futures) != 3 or not isinstance(self.error, BrokenExecutor):
            future.set_result(fn(*arguments))
        return future


def test_what_gets_lost_on_the_way_is_the_cells_error():
    """The other cells are done. If the executor breaks, what it has not begun is taken back from it."""
    lossy = Lossy(RuntimeError("attempted to run the cell on 3 workers"))
    found = sweep(cells.picky, {"number": [1, 4, 5]}, lossy)
    assert [cell.error for cell in found.cells] == [None, "RuntimeError: attempted to run the cell on 3 workers", None]
    broken = Lossy(BrokenExecutor("gone"))
    with pytest.raises(BrokenExecutor, match="gone"):
        sweep(cells.picky, {"number": [1, 4, 5]}, broken)
    assert [future.cancelled() for future in broken.futures] == [False, False, True]


class Dying(Executor):
    """A pool of processes that does one cell and dies as the next one is handed to it."""

    def __init__(self):
        self.calls = 0

    def submit(self, fn, *arguments):
        self.calls += 1
        if self.calls == 2:
            raise BrokenExecutor("gone")
        future = Future()
        future.set_result(fn(*arguments))
        return future


def test_what_a_dying_pool_has_finished_counts(monkeypatch):
    """A cell that was done when its pool died is taken as it is, and not called again."""
    pools = []
    monkeypatch.setattr(sweeps._Own, "_pool", lambda self, workers: pools.append(Dying()) or pools[-1])
    assert sweep(cells.picky, {"number": [1, 4]}, workers=2).values() == [1, 4]
    assert [pool.calls for pool in pools] == [2, 1]


def test_the_number_of_threads_is_given_back(monkeypatch):
    """What the caller's environment says of BLAS threads is so again after a sweep."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with sweeps._one_thread():
        assert os.environ["OPENBLAS_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7" and "OMP_NUM_THREADS" not in os.environ


@POSIX
def test_workers_that_always_die_end_the_sweep(tmp_path):
    """When nothing was finished and workers have died three times, the sweep says what may be wrong instead of trying every cell."""
    with pytest.raises(ArgumentError) as caught:
        sweep(cells.fragile, fragile(tmp_path, range(50), **{f"k{n}": 9 for n in range(50)}), workers=1)
    assert str(caught.value) == (
        "sweep: workers have died 3 times before they finished a single cell. They must be able to import the function: put it into a "
        "module, and what a script does under if __name__ == '__main__':"
    )
    assert sum(calls(tmp_path).values()) == 3


def test_a_function_of_an_interactive_session_is_refused():
    """Where there is no file that a worker could import, the message names both ways out."""
    program = "from tinygrad_rnn.experiments import sweep\ndef cell(): return 1\nsweep(cell, [{}])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": HERE}
    )
    assert done.stderr.endswith(
        "ArgumentError: sweep: __main__.cell was written in an interactive session, where other processes cannot find it. Put it into a "
        "module, or sweep in this process with executor=concurrent.futures.ThreadPoolExecutor(1)\n"
    )


def test_the_progress_bar_shows_how_far_it_is(capsys):
    """Asked for, it is on standard error with the sweep's name; where nobody looks, there is nothing."""
    with ThreadPoolExecutor(1) as executor:
        sweep(cells.picky, {"number": [1, 4]}, executor, label="numbers [one]", shown=True)
        assert "numbers [one]" in capsys.readouterr().err
        sweep(cells.picky, {"number": [1, 4]}, executor)
    assert capsys.readouterr() == ("", "")


PROGRAM = """
import sys
from tinygrad_rnn.experiments import sweep
import cells
if __name__ == "__main__":
    folder, path = sys.argv[1:]
    sweep(cells.fragile, [{"number": n, "folder": folder, "seconds": 0.15} for n in range(40)], workers=2, path=path)
"""


@POSIX
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_killed_program_loses_no_finished_cell(tmp_path, how):
    """Whether it is killed or interrupted: its workers end too, what was finished is on file, and a second call does the rest."""
    script, path = tmp_path / "program.py", tmp_path / "sweep.jsonl"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(tmp_path), str(path)]
    running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": HERE}, stderr=subprocess.PIPE)
    limit = time.monotonic() + 60
    while len(lines(path)) < 4 and time.monotonic() < limit:
        time.sleep(0.05)
    running.send_signal(getattr(signal, how))
    assert running.communicate(timeout=20)[1].count(b"KeyboardInterrupt") == (how == "SIGINT")
    finished = {line["settings"]["number"] for line in lines(path)}
    assert 4 <= len(finished) < 40
    workers = {int(touched.name.rpartition("-")[2]) for touched in tmp_path.glob("*-*-*")}
    while any(map(alive, workers)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    before = calls(tmp_path)
    grid = [{"number": n, "folder": str(tmp_path), "seconds": 0.15} for n in range(40)]
    with ThreadPoolExecutor(20) as executor:
        found = sweep(cells.fragile, grid, executor, path=path)
    assert found.reused == len(finished) and len(found.values()) == 40
    assert {n for n, count in calls(tmp_path).items() if count > before.get(n, 0)} == set(range(40)) - finished


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


# -- the file -------------------------------------------------------------------------------------------------------------------


def test_half_a_line_is_dropped_and_done_again(tmp_path):
    """Wherever the last line was cut off, the cells before it are kept, and the file is whole afterwards."""
    path = tmp_path / "sweep.jsonl"
    with ThreadPoolExecutor(1) as executor:
        sweep(cells.picky, {"number": [1, 4]}, executor, path=path)
        whole = path.read_bytes()
        begin = whole.index(b"\n") + 1
        for cut in range(begin, len(whole)):
            path.write_bytes(whole[:cut])
            assert sweep(cells.picky, {"number": [1, 4]}, executor, path=path).reused == 1
            assert len(lines(path)) == 2


@pytest.mark.parametrize("content", [b"hello\n", b'{"a": 1}\n', b"no line", b'{"function": "cells.picky"}\n', b"[]\n", b"\xff\n"])
def test_another_file_is_refused_and_stays(tmp_path, content):
    """A file that holds something else is not appended to."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"line 1 of .*notes\.txt is no cell of a sweep"):
        sweep(cells.picky, {"number": [1]}, Refusing(), path=path)
    assert path.read_bytes() == content


@POSIX
def test_two_sweeps_do_not_write_to_one_file(tmp_path):
    """The second one is refused while the first one runs."""
    path = tmp_path / "sweep.jsonl"

    class Second(Executor):
        def submit(self, fn, *arguments, **options):
            with pytest.raises(StorageError) as caught:
                sweep(cells.picky, {"number": [4]}, Refusing(), path=path)
            assert str(caught.value) == f"sweep: another sweep is writing to {path}; wait for it, or choose another path"
            future = Future()
            future.set_result(fn(*arguments))
            return future

    assert sweep(cells.picky, {"number": [1]}, Second(), path=path).values() == [1]


def test_a_system_without_locks_sweeps_all_the_same(tmp_path, monkeypatch):
    """Windows has no fcntl: finished cells are kept and found there too."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = tmp_path / "sweep.jsonl"
    with ThreadPoolExecutor(1) as executor:
        assert sweep(cells.picky, {"number": [1]}, executor, path=path).values() == [1]
    assert sweep(cells.picky, {"number": [1]}, Refusing(), path=path).reused == 1


# -- a Dask cluster ---------------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_gives_the_same_bits_and_survives_a_killed_worker(tmp_path):
    """On a real local cluster one worker dies in mid-sweep: all cells are done, with the bits of this machine's processes.

    A cell during which a worker always dies is reported, and the others are on file.
    """
    distributed = pytest.importorskip("distributed")
    path = tmp_path / "sweep.jsonl"
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        executor = client.get_executor()
        found = sweep(cells.gradient, GRID, executor)
        assert found.values() == [cells.gradient(seed, size) for seed in GRID["seed"] for size in GRID["size"]]
        assert sweep(cells.threads, [{}], executor).values() == ["1"]
        mended = sweep(cells.fragile, fragile(tmp_path, range(6), k2=1), executor, path=path)
        assert [value["square"] for value in mended.values()] == [0, 1, 4, 9, 16, 25]
        assert calls(tmp_path)[2] == 2 and len({touched.name.rpartition("-")[2] for touched in tmp_path.glob("2-*")}) == 2
    assert sweep(cells.fragile, fragile(tmp_path, range(6), k2=1), Refusing(), path=path).values() == mended.values()
