"""``reproduce``: the rows of the curriculum, measured, beside what was published, and one page with all of them."""

from __future__ import annotations

import argparse
from collections import Counter

from ..errors import ArgumentError
from ..experiments import ROWS
from ..experiments.measurement import VERDICTS
from ..experiments.records import FAILED, Record
from ..experiments.report import REPORT, reproduce
from .options import Parser, folder_to_write, say, terminal


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "reproduce",
        "Measure the claims of the curriculum and print each beside what was published, with “agrees”, “differs” or “not reproduced”. "
        f"Writes row-NN.json for each row and {REPORT} with every number and picture to a folder. Quick settings take about three minutes "
        "for all rows on two processors; full ones take hours, and go on where they were stopped.",
        "2 12 16 --out curriculum",
        "--full 16 --out curriculum",
        more="rows:\n" + "\n".join(f"  {row.number:2}  {row.claim}" for row in ROWS.values()),
    )
    made.add_argument("rows", metavar="ROW", nargs="*", type=_row, help="numbers of rows (default: all)")
    made.add_argument("--full", action="store_true", help="full settings: more seeds, longer training")
    made.add_argument("--out", metavar="FOLDER", default="curriculum", help="where to write (default curriculum)")
    made.add_argument(
        "--results", metavar="FILE", nargs="+", default=[], help="files row-NN.json, or folders of them, to take instead of running"
    )
    return made


def _row(text: str) -> int:
    try:
        row = int(text)
    except ValueError:
        row = -1
    if row not in ROWS:
        raise argparse.ArgumentTypeError(f"there is no row {text!r}; expected some of {', '.join(map(str, ROWS))}")
    return row


def run(options: argparse.Namespace) -> None:
    """Run, print each row as it ends, and say what was written."""
    folder = folder_to_write(options.out)
    console = terminal()

    def told(record: Record) -> None:
        shown = record.shown()
        if shown.width <= console.width:
            console.print(shown, "")
            return
        say(shown.title)  # too narrow for a table
        for claim in record.claims:
            say(f"  {claim.verdict}: {claim.what}. Published: {claim.published}; measured: {claim.measured}")
        say(record.error)

    records = reproduce(ROWS, options.rows, full=options.full, out=folder, results=options.results, told=told)
    count = Counter(record.verdict for record in records)
    say(
        f"{len(records)} row{'s' * (len(records) != 1)}: "
        + ", ".join(f"{count[verdict]} {verdict}" for verdict in (*VERDICTS, FAILED) if count[verdict])
    )
    say(f"Wrote {REPORT} and row-NN.json of each to {folder}")
    if failed := [str(record.row) for record in records if record.error]:
        raise ArgumentError(f"row {', '.join(failed)} failed; the reason is printed above and in {REPORT}")
