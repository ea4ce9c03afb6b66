"""Without a command: where does the gradient of a real recurrent network go?

An RNN, an LSTM and a GRU run over the same stretch of real English; the backward pass from the last step is traced, what arrives is printed
by lag, and one backward graph per network is drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import flow
from ..files import write_together
from ..flow.product import selected_lags
from ..report import Table, aligned, number, plain, power_of_ten
from ..trace import Trace
from . import COMMANDS
from .options import Parser, check_path, folder_to_write, terminal
from .reading import NETWORKS, Text, add_text_options, read

FORMATS = ("svg", "png", "pdf", "dot")


def parser() -> Parser:
    """The options of the program itself."""
    width = max(map(len, COMMANDS))
    commands = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    made = Parser(
        "",
        "Run an RNN, an LSTM and a GRU over the same real English and see where the gradient goes, multiplication by multiplication.",
        "--steps 50 --init orthogonal --text book.txt --out pictures",
        more="\n".join(["commands (each has its own --help):", *commands]),
    )
    add_text_options(made)
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


def run(options: argparse.Namespace) -> None:
    """Trace the three, draw them, print what was found."""
    check_path("--text", options.text)
    out = folder_to_write(options.out)
    text = Text.chosen(options)
    runs = [_run(name, text, options) for name in NETWORKS]
    written = write_together(out, _pictures(runs, options.format))
    if options.json:
        print(json.dumps(_as_dict(runs, text, written, options), ensure_ascii=False))
    else:
        _print(runs, text, written, options)


def _run(network: str, text: Text, options: argparse.Namespace) -> Run:
    loss, ledger = read(network, text, options)
    return Run(network.upper(), loss, ledger, flow.vanishing_product(ledger), flow.highway(ledger))


def _pictures(runs: list[Run], kind: str) -> dict[str, bytes]:
    """The files to write, by name."""
    from .. import render

    files = {}
    for run in runs:
        graph = render.backward_graph(run.ledger)
        files[f"{run.name.lower()}.dot"] = graph.source.encode()
        if kind != "dot":
            files[f"{run.name.lower()}.{kind}"] = graph.pipe(format=kind)
    return files


def _print(runs: list[Run], text: Text, written: list[Path], options: argparse.Namespace) -> None:
    console = terminal()
    console.print(
        f"An RNN, an LSTM and a GRU ({options.hidden} units each, untrained, seed {options.seed}) read {options.steps} characters of "
        f"{options.text or 'Python’s help topics'}:",
        markup=False,
    )
    console.print(f"  {text.shown}\n", markup=False, soft_wrap=True)
    whole = _table(runs, text.stretch)
    for table in [whole] if whole.width <= console.width else [_table([run], text.stretch) for run in runs]:
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


def _as_dict(runs: list[Run], text: Text, written: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    settings = {name: getattr(options, name) for name in ("steps", "hidden", "seed", "init", "text", "format")}
    networks = {
        run.name: {"loss": plain(run.loss), "product": run.product.to_dict(), "highway": run.highway.to_dict(), "edges": len(run.ledger)}
        for run in runs
    }
    return {
        "settings": settings,
        "text": text.stretch,
        "next": text.following,
        "networks": networks,
        "files": [str(path) for path in written],
    }
