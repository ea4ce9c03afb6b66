"""What the commands share: the kinds of their options, where they may write, and the terminal."""

from __future__ import annotations

import argparse
import math
import os
import textwrap
from pathlib import Path
from typing import Any, NoReturn

from .. import nn
from ..errors import ArgumentError

PROGRAM = "tinygrad-rnn"


class Parser(argparse.ArgumentParser):
    """A parser of a command's options whose errors are one line, and whose help ends with examples.

    Args:
        command: its name; nothing for the program itself.
        description: what it does.
        examples: command lines, without the program's name and the command's; each must work as it stands.
        more: what the help says below the options, besides.
    """

    def __init__(self, command: str, description: str, *examples: str, more: str = "") -> None:
        prog = f"{PROGRAM} {command}".rstrip()
        lines = [f"example: {prog} {example}".rstrip() for example in examples]
        super().__init__(
            prog=prog,
            description=textwrap.fill(description, 78),
            epilog="\n\n".join(filter(None, [more, "\n".join(lines)])),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {flat(message)}. See {self.prog} --help\n")


def flat(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def between(smallest: int, largest: int) -> Any:
    """Whole numbers in this range."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if not smallest <= value <= largest:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {largest}, got {value}")
        return value

    return convert


def initialisation(text: str) -> str | float:
    """A name from ``nn.init``, or a spectral radius."""
    try:
        value = float(text)
    except ValueError:
        if text not in nn.init.INITIALIZERS:
            names = ", ".join(nn.init.INITIALIZERS)
            raise argparse.ArgumentTypeError(f"expected one of {names}, or a spectral radius such as 0.9, got {text!r}") from None
        return text
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"a spectral radius is a finite number of at least 0, got {text!r}")
    return value


def finite(text: str) -> float:
    """A number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def check_path(option: str, given: str | None) -> None:
    """Refuse an empty path."""
    if given == "":
        raise ArgumentError(f"{option}: expected a path, got nothing")


def folder_to_write(given: str) -> Path:
    """A folder, made when it is written to; fails before the work, not after it, if that will not be possible."""
    check_path("--out", given)
    existing = Path(given)
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ArgumentError(f"--out: {str(existing)!r} is not a folder; choose another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ArgumentError(f"--out: the folder {str(existing)!r} cannot be written to; choose another place")
    return Path(given)


def file_to_write(given: str, *suffixes: str) -> Path:
    """A file in a folder that is there, with one of these endings; fails before the work, not after it."""
    check_path("--out", given)
    path = Path(given)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ArgumentError(f"--out: expected a name that ends in {' or '.join(suffixes)}, got {path.name!r}")
    if path.is_dir():
        raise ArgumentError(f"--out: {given!r} is a folder; add a file name")
    if not path.parent.is_dir():
        raise ArgumentError(f"--out: there is no folder {str(path.parent)!r}; make it first, or choose another place")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ArgumentError(f"--out: the folder {str(path.parent)!r} cannot be written to; choose another place")
    return path


def terminal() -> Any:
    """A console that fits its output to the terminal, and to nothing where there is none."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Terminal(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160  # a pipe or a file has no edge to fit
    return console


def say(line: str) -> None:
    """One line on the terminal, as it is."""
    terminal().print(line, markup=False, soft_wrap=True)
