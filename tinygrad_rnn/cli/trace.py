"""``trace``: the ledger of one network's backward pass, as tables or JSON."""

from __future__ import annotations

import argparse

from .. import flow
from ..files import write_atomically
from ..flow.paths import GATES
from ..linear_maps import KINDS
from ..trace import Trace
from .options import Parser, between, file_to_write, say, terminal
from .reading import add_network_options, traced


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "trace",
        "Run one network over a stretch of real English, trace the backward pass from its last step, and print the ledger: every "
        "multiplication with its cotangent, its local map and its gain.",
        "--network gru --steps 20 --time 20 --kind scale",
        "--network rnn --init 0.9 --rows 0 --out ledger.json",
    )
    add_network_options(made, steps=20, hidden=16)
    made.add_argument("--kind", choices=KINDS, help="list only multiplications of this kind")
    made.add_argument("--time", type=between(1, 10_000), metavar="t", help="list only those of this step of the sequence")
    made.add_argument("--gate", choices=GATES, help="list only those that have to do with this gate")
    made.add_argument("--rows", type=between(0, 1_000_000), default=20, metavar="N", help="list at most so many (default 20)")
    made.add_argument("--out", metavar="FILE.json", help="write the whole ledger there as JSON")
    made.add_argument("--json", action="store_true", help="print the whole ledger as JSON instead of tables")
    return made


def run(options: argparse.Namespace) -> None:
    """Trace, print, and write if a file is named."""
    out = None if options.out is None else file_to_write(options.out, ".json")
    text, loss, ledger = traced(options)
    listed = ledger.table(options.rows, kind=options.kind, time=options.time, gate=options.gate)
    whole = str(ledger.to_json()) if options.json or out is not None else ""
    if out is not None:
        write_atomically(out, whole)
    if options.json:
        print(whole)
        return
    console = terminal()
    console.print(f"{options.network.upper()} of {options.hidden} units, {options.steps} steps, loss {loss:.4g} nats:", markup=False)
    console.print(f"  {text.shown}\n", markup=False, soft_wrap=True)
    for table in (ledger.summary(), flow.vanishing_product(ledger).table(), *_highway(ledger), *([listed] if options.rows else [])):
        console.print(table, "")
    if out is not None:
        say(f"Wrote {len(ledger)} multiplications to {out}")


def _highway(ledger: Trace) -> list[object]:
    found = flow.highway(ledger)
    return [found.table()] if found.exists else []
