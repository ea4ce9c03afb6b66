"""The command line: ``python -m tinygrad_rnn``, or ``tinygrad-rnn``, alone or with a command.

Each command is a module of this package with two functions: ``parser()`` gives its options, with an example in the epilog that works, and
``run(options)`` does it and returns the exit code, None for 0, or raises an error of :mod:`tinygrad_rnn.errors` for bad input. Without a
command it is :mod:`.overview`.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from ..errors import TinygradError
from .options import PROGRAM, flat

COMMANDS = {
    "trace": "trace one network and print its ledger of backward multiplications",
    "render": "draw the backward graph of one network",
    "play": "write a page that plays a backward pass, multiplication by multiplication",
    "explore": "write a page with two sliders, ∣λ∣ and T, over what the engine measured",
    "reproduce": "measure the claims of the curriculum, beside what was published",
    "exercise": "check an answer to one of the four exercises, and say what is wrong with it",
}
"""The commands and what each does; the module of the same name is imported when it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (2 for bad input, with one line that says what to do)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal has no δ, a question mark is better than no table
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given.pop(0) if given and given[0] in COMMANDS else "overview"
    command = importlib.import_module(f"{__name__}.{name}")
    parser = command.parser()
    options = parser.parse_args(given)
    try:
        code: int | None = command.run(options)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; nothing more is written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (TinygradError, OSError, MemoryError) as error:
        print(f"{parser.prog}: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None:
            return f"cannot print: {error.strerror}; send the output to another place"
        return flat(f"cannot write {error.filename}: {error.strerror}. Choose another place with --out")
    if isinstance(error, MemoryError):
        return "not enough memory; choose fewer --steps or --hidden units"
    return flat(str(error))


__all__ = ["COMMANDS", "PROGRAM", "main"]
