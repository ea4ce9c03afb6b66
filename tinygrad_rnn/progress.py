"""A progress bar on standard error: there if someone looks, silent otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[float, str], None]


@contextmanager
def progress(total: float, label: str, shown: bool | None = None) -> Iterator[Advance]:
    """A bar with the time that it took and will take; ``advance(done, note)`` sets how much of the total is done, and what is said of it.

    Args:
        total: what counts as all.
        label: stands before the bar.
        shown: whether there is a bar; None: if standard error is a terminal.

    Example:
        >>> from tinygrad_rnn.progress import progress
        >>> with progress(3, "counting", shown=False) as advance:
        ...     for k in range(3):
        ...         advance(k + 1, f"at {k}")
    """
    if shown is False:
        yield lambda done, note: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if shown is None and not console.is_terminal:
        yield lambda done, note: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=console.is_terminal) as bar:
        task = bar.add_task(escape(label), total=total)
        yield lambda done, note: bar.update(task, completed=done, description=escape(f"{label}  {note}".rstrip()))
