"""``exercise``: one of the four exercises, and what is wrong with an answer."""

from __future__ import annotations

import argparse

from ..experiments.exercises import EXERCISES, check
from .options import Parser, say


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "exercise",
        "Print an exercise, or check an answer to it and say what is wrong with it. The exit code is 0 for a right answer, 1 for a wrong "
        "one.",
        "1",
        "1 '7.7 %'",
        "3 'i = 1 - f, o = 1, c = h'",
        "4 '4(512·768 + 512), 3(512·768 + 512)'",
        more="exercises:\n" + "\n".join(f"  {n}  {exercise.question}" for n, exercise in EXERCISES.items()),
    )
    made.add_argument("number", metavar="N", type=int, choices=list(EXERCISES), help="which one")
    made.add_argument("answer", metavar="ANSWER", nargs="*", help="your answer, as a text; without one the exercise is printed")
    return made


def run(options: argparse.Namespace) -> int:
    """Print the exercise, or what the check says."""
    exercise = EXERCISES[options.number]
    if not options.answer:
        say(exercise.question)
        say(f"An answer is {exercise.forms}.")
        return 0
    found = check(options.number, " ".join(options.answer))
    say(str(found))
    return 0 if found else 1
