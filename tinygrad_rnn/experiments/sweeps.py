"""Sweeps: one function over a grid of settings, on any executor, in which nothing that is finished gets lost.

Each finished cell is a line of JSON, on disk before the next one is waited for. A second call with the same file does only what is
missing, so a sweep may be interrupted, killed, or spread over several days.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ArgumentError, StorageError
from ..progress import progress
from ..report import Result, Table, aligned, number, plain

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What tells a BLAS library, before it is loaded, how many threads to use."""

SHOWN = 80
"""So many characters of a value stand in a table."""

KILLS = 2
"""A cell during which the worker died so often is given up."""

DEATHS = 3
"""When workers have died so often before any cell was finished, the sweep is given up: it is not the cells that are at fault."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell of a sweep.

    Attributes:
        settings: what the function was called with.
        value: what it returned, as JSON knows it; None if it failed.
        seconds: how long it took, in the worker.
        error: why it failed, or None.
    """

    settings: Mapping[str, Any]
    value: Any
    seconds: float
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Sweep(Result):
    """What a sweep came to.

    Attributes:
        function: what was called, by its module and name.
        cells: one :class:`Cell` each, in the order of the grid.
        reused: how many were on file already.
    """

    function: str
    cells: tuple[Cell, ...]
    reused: int

    @property
    def failed(self) -> tuple[Cell, ...]:
        """The cells that failed; another call with the same file tries them again."""
        return tuple(cell for cell in self.cells if cell.error is not None)

    def values(self) -> list[Any]:
        """The value of every cell.

        Raises:
            ArgumentError: if one failed.
        """
        if self.failed:
            first = self.failed[0]
            raise ArgumentError(
                f"sweep: {len(self.failed)} of {len(self.cells)} cells failed, the first with {dict(first.settings)}: {first.error}. "
                "Mend the cause and call again with the same path"
            )
        return [cell.value for cell in self.cells]

    def table(self) -> Table:
        """One row per cell."""
        names = list(dict.fromkeys(name for cell in self.cells for name in cell.settings))
        rows = []
        for cell in self.cells:
            value = cell.error or json.dumps(cell.value, ensure_ascii=False)
            value = value if len(value) <= SHOWN else value[: SHOWN - 1] + "…"
            rows.append((*(cell.settings.get(name, "–") for name in names), value, number(cell.seconds)))
        caption = f"{len(self.cells)} cells, {self.reused} from the file, {len(self.failed)} failed"
        return aligned((*names, "value", "seconds"), rows, self.function, caption)


def sweep(
    fn: Callable[..., Any],
    grid: Mapping[str, Sequence[Any]] | Iterable[Mapping[str, Any]],
    executor: Executor | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    label: str = "",
    shown: bool | None = None,
) -> Sweep:
    """Call ``fn(**settings)`` for every cell of a grid, in other processes or on other machines, and collect what it returns.

    A value takes the same way whatever the executor: through JSON, in which a float keeps every bit. A function that draws from a seed
    among its settings gives the same value wherever it runs, with the same libraries and as many BLAS threads: workers that are made
    here have one, and so have those of Dask, unless their configuration says otherwise.

    What may go wrong, and what then happens:

        a cell raises         it is reported as failed, the others go on
        a worker dies         what was under way is done again, each cell alone, so that a guilty one is found; one during which a
                              worker died twice is reported as failed. (An executor of your own deals with that in its own way.)
        Ctrl-C                the workers are stopped; what is finished is on file
        a power cut           what is finished is on file; half a line at its end is removed by the next call

    Args:
        fn: a function of a module, so that a worker can find it, or a ``functools.partial`` of one. It returns what JSON can hold
            (arrays become lists). Its name and the settings are the key in the file: after changing what it does, use another file.
        grid: the values of each setting, for all combinations (the last one varies fastest), or the cells themselves. Settings are what
            JSON can hold.
        executor: any ``concurrent.futures.Executor``, which is not shut down: ``dask.distributed.Client(…).get_executor()`` runs on a
            cluster (``pip install "tinygrad_rnn[distributed]"``). None: processes on this machine, started afresh (a script needs its
            ``if __name__ == "__main__":``).
        path: where finished cells are kept, as lines of JSON. None: nowhere.
        workers: how many processes, by default one per processor; not with an executor of your own.
        label, shown: of the progress bar, see :func:`tinygrad_rnn.progress.progress`.

    Raises:
        ArgumentError: for a function that workers cannot find, an empty grid, a cell that comes twice, settings that JSON cannot hold, or
            workers that die before they finish anything.
        StorageError: if the file holds something else, or another sweep is writing to it.
        BrokenExecutor: if an executor of your own cannot go on; what is finished is on file.

    Example:
        >>> import math
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from tinygrad_rnn import experiments
        >>> with ThreadPoolExecutor(1) as executor:
        ...     found = experiments.sweep(math.log2, [{}], executor)
        >>> found.failed[0].error
        'TypeError: math.log2() takes exactly one argument (0 given)'
    """
    name = _name(fn)
    cells = _cells(grid)
    keys = [_key(name, settings) for settings in cells]
    if len(set(keys)) < len(keys):
        raise ArgumentError("sweep: the grid has a cell twice; give each its own settings, such as a seed")
    if executor is None and name.startswith("__main__.") and not hasattr(sys.modules["__main__"], "__file__"):
        raise ArgumentError(
            f"sweep: {name} was written in an interactive session, where other processes cannot find it. Put it into a module, or sweep in "
            "this process with executor=concurrent.futures.ThreadPoolExecutor(1)"
        )
    if workers is not None and (workers < 1 or executor is not None):
        raise ArgumentError(f"sweep: expected at least 1 worker, and no executor beside workers, got {workers}")
    done: dict[str, Cell] = {}
    with nullcontext() if path is None else _Ledger(Path(path)) as ledger:
        held = {} if ledger is None else ledger.cells
        done |= {key: held[key] for key in keys if key in held}
        reused = len(done)
        todo = {key: settings for key, settings in zip(keys, cells, strict=True) if key not in done}
        with progress(len(cells), label or name.rpartition(".")[2], shown) as advance:
            advance(reused, "")
            runner = _Own(workers) if executor is None else _Given(executor)
            with closing(runner.run(fn, todo)) as finished:
                for key, cell in finished:
                    done[key] = cell
                    if ledger is not None and cell.error is None:
                        ledger.append(key, cell)
                    advance(len(done), "")
    return Sweep(name, tuple(done[key] for key in keys), reused)


def seconds_on_file(path: str | os.PathLike[str]) -> float:
    """How long the cells took that a sweep's file holds, added up; 0 if there is no file.

    Raises:
        StorageError: if the file holds something else, or a sweep is writing to it.
    """
    if not Path(path).exists():
        return 0.0
    with _Ledger(Path(path)) as ledger:
        return sum(cell.seconds for cell in ledger.cells.values())


# -- cells and their names ------------------------------------------------------------------------------------------------------


def _name(fn: Any) -> str:
    """Module and name of a function, and what a partial has fixed."""
    fixed = ""
    while isinstance(fn, functools.partial):
        if fn.args:
            raise ArgumentError("sweep: a partial may fix settings by name only, since the settings are the key")
        fixed = json.dumps(plain(dict(fn.keywords)), sort_keys=True, ensure_ascii=False) + fixed
        fn = fn.func
    name = getattr(fn, "__qualname__", "")
    if not callable(fn) or not name or "<" in name:
        raise ArgumentError(f"sweep: expected a function of a module, which a worker can import by its name, got {fn!r}")
    return f"{fn.__module__}.{name}{fixed}"


def _cells(grid: Any) -> list[dict[str, Any]]:
    if isinstance(grid, Mapping):
        cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    else:
        cells = [dict(settings) for settings in grid]
    if not cells:
        raise ArgumentError("sweep: the grid has no cells; expected at least one value for each setting")
    return cells


def _key(name: str, settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps([name, plain(settings)], sort_keys=True, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ArgumentError(f"sweep: the settings {dict(settings)} cannot be written down as JSON: {error}") from None


def _call(fn: Callable[..., Any], settings: dict[str, Any]) -> tuple[str, float, str | None]:
    """What runs in a worker: the value as JSON text, the seconds, and the error."""
    start = time.perf_counter()
    try:
        text, error = json.dumps(plain(fn(**settings)), ensure_ascii=False, allow_nan=False), None
    except (Exception, SystemExit) as raised:
        text, error = "null", f"{type(raised).__name__}: {raised}"
    return text, time.perf_counter() - start, error


def _cell(settings: Mapping[str, Any], future: Future[tuple[str, float, str | None]]) -> Cell:
    """What a worker sent back; a broken executor raises, anything else that got lost on the way is the cell's error."""
    try:
        text, seconds, error = future.result()
    except BrokenExecutor:
        raise
    except Exception as lost:  # arguments that cannot be sent, or Dask's KilledWorker
        return Cell(settings, None, 0.0, f"{type(lost).__name__}: {lost}")
    return Cell(settings, json.loads(text), seconds, error)


def _is_broken(future: Future[Any]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)


# -- the file -------------------------------------------------------------------------------------------------------------------


class _Ledger:
    """Finished cells as lines of JSON, to which one sweep at a time appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, Cell] = {}

    def __enter__(self) -> _Ledger:
        self.file: BinaryIO = self.path.open("a+b")
        try:
            self._lock()
            self.file.seek(0)
            content = self.file.read()
            whole = content.rfind(b"\n") + 1
            for count, line in enumerate(content[:whole].splitlines(), 1):
                self._read(line, count)
            if whole < len(content):  # half a line: whoever wrote it was killed
                if not content[whole:].startswith(b'{"function"'[: len(content) - whole]):
                    raise self._foreign(content[:whole].count(b"\n") + 1)
                self.file.truncate(whole)
        except BaseException:
            self.file.close()
            raise
        return self

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two sweeps with one file are not noticed there
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"sweep: another sweep is writing to {self.path}; wait for it, or choose another path") from None

    def _read(self, line: bytes, count: int) -> None:
        try:
            held = json.loads(line)
            key = _key(held["function"], held["settings"])
            self.cells[key] = Cell(held["settings"], held["value"], float(held["seconds"]))
        except (ValueError, TypeError, KeyError):
            raise self._foreign(count) from None

    def _foreign(self, line: int) -> StorageError:
        return StorageError(f"sweep: line {line} of {self.path} is no cell of a sweep. Choose another path; nothing was written")

    def append(self, key: str, cell: Cell) -> None:
        """Write a line, and wait until it is on disk."""
        name = json.loads(key)[0]
        line = {"function": name, "settings": plain(cell.settings), "value": cell.value, "seconds": round(cell.seconds, 3)}
        self.file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def __exit__(self, *_: object) -> None:
        self.file.close()


# -- where cells run ------------------------------------------------------------------------------------------------------------

Todo = Mapping[str, dict[str, Any]]
Finished = Generator[tuple[str, Cell], None, None]


class _Given:
    """An executor of the caller's, which deals with the death of its workers itself: all cells are handed to it at once."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def run(self, fn: Callable[..., Any], todo: Todo) -> Finished:
        """Cells as they are finished."""
        keys = {self.executor.submit(_call, fn, settings): key for key, settings in todo.items()}
        waiting = set(keys)
        try:
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(ready, key=_is_broken):  # what is finished first
                    yield keys[future], _cell(todo[keys[future]], future)
        finally:
            for future in waiting:
                future.cancel()


class _Own:
    """Processes on this machine, which are started again when one of them dies."""

    def __init__(self, workers: int | None) -> None:
        self.workers = workers or os.cpu_count() or 1

    def run(self, fn: Callable[..., Any], todo: Todo) -> Finished:
        """Cells as they are finished. No more are under way than there are workers, so that few are suspects when one of them dies."""
        waiting, suspects, kills = list(todo), list[str](), dict.fromkeys(todo, 0)
        finished, deaths = False, 0
        with _one_thread():
            while waiting or suspects:
                alone = not waiting
                queue = suspects if alone else waiting
                running: dict[Future[Any], str] = {}
                pool = self._pool(min(len(queue), 1 if alone else self.workers))
                try:
                    while queue or running:
                        while queue and len(running) < (1 if alone else self.workers):
                            running[pool.submit(_call, fn, todo[queue[0]])] = queue[0]
                            del queue[0]
                        ready, _ = wait(running, return_when=FIRST_COMPLETED)
                        for future in ready:
                            cell = _cell(todo[running[future]], future)
                            finished = True
                            yield running.pop(future), cell
                    pool.shutdown()
                except BrokenExecutor:
                    deaths += 1
                    if deaths >= DEATHS and not finished:
                        raise ArgumentError(
                            f"sweep: workers have died {deaths} times before they finished a single cell. They must be able to import the "
                            "function: put it into a module, and what a script does under if __name__ == '__main__':"
                        ) from None
                    for future, key in running.items():
                        if future.done() and future.exception() is None:
                            yield key, _cell(todo[key], future)
                            continue
                        kills[key] += 1
                        if kills[key] < KILLS:
                            suspects.append(key)
                        else:
                            yield key, Cell(todo[key], None, 0.0, f"the worker died {KILLS} times during this cell")
                finally:
                    _stop(pool)

    def _pool(self, workers: int) -> ProcessPoolExecutor:
        import multiprocessing

        return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _worker)


def _worker() -> None:
    """Leave Ctrl-C to the process that owns this one, and end when that has ended, also in the middle of a cell."""
    import multiprocessing
    import signal
    import threading

    def follow() -> None:
        owner = multiprocessing.parent_process()
        if owner is not None:
            owner.join()
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow, daemon=True).start()


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers, also in the middle of a cell."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        with suppress(ValueError, OSError):  # it has ended, and been closed
            process.terminate()
    for process in processes:
        with suppress(ValueError, OSError, AssertionError):
            process.join(5)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started meanwhile load a BLAS library with one thread."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
