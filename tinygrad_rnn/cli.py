"""The command line: where does the gradient of a real recurrent network go?

``python -m tinygrad_rnn`` runs an RNN, an LSTM and a GRU over the same stretch of real English, traces the backward pass from the last
step, prints by lag what arrives, and draws one backward graph per network.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import flow, nn
from .errors import ArgumentError, TinygradError
from .files import write_together
from .flow.product import selected_lags
from .functional import cross_entropy
from .report import Table, aligned, number, plain, power_of_ten
from .tasks import english, read_text
from .trace import Trace, trace

FORMATS = ("svg", "png", "pdf", "dot")
EMBEDDING = 32
"""Length of the vector that stands for a character."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {_flat(message)}. See {self.prog} --help\n")


def _flat(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    return value


def _between(smallest: int, largest: int) -> Any:
    def convert(text: str) -> int:
        value = _whole(text)
        if not smallest <= value <= largest:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {largest}, got {value}")
        return value

    return convert


def _init(text: str) -> str | float:
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


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = _Parser(
        prog="tinygrad-rnn",
        description="Run an RNN, an LSTM and a GRU over the same real English and see where the gradient goes, multiplication by "
        "multiplication.",
        epilog="example: tinygrad-rnn --steps 50 --init orthogonal --text book.txt --out pictures",
        allow_abbrev=False,
    )
    made.add_argument("--steps", type=_between(2, 10_000), default=100, metavar="T", help="length of the sequence (default 100)")
    made.add_argument("--hidden", type=_between(1, 1024), default=64, metavar="H", help="units in each network (default 64)")
    made.add_argument("--seed", type=_between(0, 2**63 - 1), default=0, help="seed of the weights and of the place in the text (default 0)")
    made.add_argument(
        "--init",
        type=_init,
        default="uniform",
        help=f"how the recurrent weights begin: {', '.join(nn.init.INITIALIZERS)}, or a spectral radius such as 0.9 (default uniform)",
    )
    made.add_argument("--text", metavar="FILE", help="a UTF-8 text to read instead of Python's own help topics")
    made.add_argument("--out", metavar="FOLDER", default="backward-graphs", help="where the pictures go (default backward-graphs)")
    made.add_argument(
        "--format",
        choices=FORMATS,
        default="svg",
        help="of the pictures; DOT is always written as well, and pdf needs an installed Graphviz (default svg)",
    )
    made.add_argument("--json", action="store_true", help="print all numbers as JSON instead of tables")
    return made


@dataclass(frozen=True)
class Run:
    """One network's backward pass."""

    name: str
    loss: float
    ledger: Trace
    product: flow.VanishingProduct
    highway: flow.Highway


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (2 for bad input, with one line that says what to do)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal has no δ, a question mark is better than no table
    options = parser().parse_args(arguments)
    try:
        code = _job(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("tinygrad-rnn: interrupted; nothing more is written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (TinygradError, OSError, MemoryError) as error:
        print(f"tinygrad-rnn: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None:
            return f"cannot print: {error.strerror}"
        return _flat(f"cannot write {error.filename}: {error.strerror}. Choose another folder with --out")
    if isinstance(error, MemoryError):
        return "not enough memory; choose fewer --steps or --hidden units"
    return _flat(str(error))


def _job(options: argparse.Namespace) -> int:
    if not options.out or options.text == "":
        raise ArgumentError(f"--{'text' if options.out else 'out'}: expected a path, got nothing")
    out = Path(options.out)
    _check_folder(out)
    text = english() if options.text is None else read_text(options.text)
    stretch, following = _stretch(text, options.steps, options.seed)
    runs = [_run(name, stretch, following, sorted(set(text)), options) for name in ("RNN", "LSTM", "GRU")]
    written = write_together(out, _pictures(runs, options.format))
    if options.json:
        print(json.dumps(_as_dict(runs, stretch, following, written, options), ensure_ascii=False))
    else:
        _print(runs, stretch, following, written, options)
    return 0


def _check_folder(folder: Path) -> None:
    """Fail before the work, not after it, if the pictures cannot be written."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ArgumentError(f"--out: {str(existing)!r} is not a folder; choose another place for the pictures")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ArgumentError(f"--out: the folder {str(existing)!r} cannot be written to; choose another place for the pictures")


def _stretch(text: str, steps: int, seed: int) -> tuple[str, str]:
    """As many characters as there are steps, from a place that the seed chooses, and the one that follows."""
    if len(text) <= steps:
        raise ArgumentError(f"--text: {len(text)} characters are too few for {steps} steps and one to predict; choose fewer --steps")
    if len(set(text)) < 2:
        raise ArgumentError(f"--text: {text[0]!r} is its only character, so there is nothing to predict; choose another text")
    start = int(np.random.default_rng(seed).integers(len(text) - steps))
    return text[start : start + steps], text[start + steps]


def _run(name: str, stretch: str, following: str, alphabet: list[str], options: argparse.Namespace) -> Run:
    """Read the stretch, predict the character that follows, and trace the backward pass from that last step."""
    random = np.random.default_rng(options.seed)
    number_of = {character: i for i, character in enumerate(alphabet)}
    embedding = nn.Embedding(len(alphabet), EMBEDDING, rng=random)
    layer = getattr(nn, name)(EMBEDDING, options.hidden, init=options.init, rng=random)
    readout = nn.Linear(options.hidden, len(alphabet), rng=random)
    vectors = embedding(np.array([[number_of[character]] for character in stretch]))  # (T, 1, 32)
    outputs, _ = layer(vectors)
    loss = cross_entropy(readout(outputs[-1]), [number_of[following]])
    ledger = trace(loss)
    return Run(name, loss.item(), ledger, flow.vanishing_product(ledger), flow.highway(ledger))


def _pictures(runs: list[Run], kind: str) -> dict[str, bytes]:
    """The files to write, by name."""
    from . import render

    files = {}
    for run in runs:
        graph = render.backward_graph(run.ledger)
        files[f"{run.name.lower()}.dot"] = graph.source.encode()
        if kind != "dot":
            files[f"{run.name.lower()}.{kind}"] = graph.pipe(format=kind)
    return files


def _print(runs: list[Run], stretch: str, following: str, written: list[Path], options: argparse.Namespace) -> None:
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Terminal(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160  # a pipe or a file has no edge to fit
    shown = stretch if len(stretch) <= 60 else "…" + stretch[-59:]
    console.print(
        f"An RNN, an LSTM and a GRU ({options.hidden} units each, untrained, seed {options.seed}) read {options.steps} characters of "
        f"{options.text or 'Python’s help topics'}:",
        markup=False,
    )
    console.print(f"  {shown!r} → {following!r}\n", markup=False, soft_wrap=True)
    whole = _table(runs, stretch)
    for table in [whole] if whole.width <= console.width else [_table([run], stretch) for run in runs]:
        console.print(table, "")
    for line in _findings(runs):
        console.print(line, markup=False)
    names = ", ".join(path.name for path in written)
    console.print(f"\nWrote {names} to {written[0].parent}{os.sep}", markup=False, soft_wrap=True)
    console.print(_advice(written), markup=False)


def _table(runs: list[Run], stretch: str) -> Table:
    """By lag: the character that was read, and for each network ratio, gain, running product and the direct highway."""
    columns = ["lag", "read"]
    for run in runs:
        columns += [f"{run.name} δ/δ_T", "gain", "log₁₀ ∏"]
        if run.highway.exists:
            state = {"cell": "c", "hidden": "h"}[str(run.highway.role)]
            columns += [f"{state} direct", f"{state} total"]
    rows = []
    for k in selected_lags(min(len(run.product.lag) for run in runs) - 1):
        row = [str(k), repr(stretch[len(stretch) - 1 - k])]
        for run in runs:
            product = run.product.log10_product[k]
            row += [power_of_ten(product), number(run.product.gain[k]), f"{product:.2f}"]
            if run.highway.exists:
                known = k < len(run.highway.lag)
                row += [power_of_ten(column[k]) if known else "–" for column in (run.highway.log10_direct, run.highway.log10_total)]
        rows.append(row)
    caption = "c, h: the state that has the highway; direct: over the highway alone, which passes only gates; total: over all paths"
    caption = caption if any(run.highway.exists for run in runs) else ""
    return aligned(columns, rows, "State cotangent k steps before the last, δ = ∂loss/∂state", caption)


def _findings(runs: list[Run]) -> list[str]:
    lines = []
    for run in runs:
        product, highway = run.product, run.highway
        text = f"{run.name:4} {product.verdict}; "
        text += f"half-life {number(product.half_life)} steps" if product.half_life < math.inf else "it does not shrink"
        if highway.exists:
            text += f"; highway through {highway.role}: {number(10**highway.rate)} per step"
        if not math.isnan(product.spectral_radius):
            bound = power_of_ten(float(product.log10_bound[-1]))
            text += f"; ρ(W_hh) = {number(product.spectral_radius)}, σ_max = {number(product.largest_singular_value)}, "
            text += f"bound σ_maxᵏ = {bound} at lag {product.lag[-1]}; no highway"
        lines.append(text)
    return lines


def _advice(written: list[Path]) -> str:
    pictures = {path.stem: path.name for path in written}
    return (
        f"Look at {pictures['lstm']}: the bold line is the highway, where each step only multiplies by ⊙ f; in {pictures['rnn']} every way "
        "back passes · W_hhᵀ and ⊙ (1 − h²)."
    )


def _as_dict(runs: list[Run], stretch: str, following: str, written: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    settings = {name: getattr(options, name) for name in ("steps", "hidden", "seed", "init", "text", "format")}
    networks = {
        run.name: {"loss": plain(run.loss), "product": run.product.to_dict(), "highway": run.highway.to_dict(), "edges": len(run.ledger)}
        for run in runs
    }
    return {"settings": settings, "text": stretch, "next": following, "networks": networks, "files": [str(path) for path in written]}
