"""``play``: a page that plays one network's backward pass."""

from __future__ import annotations

import argparse

from .options import Parser, file_to_write, say
from .reading import add_network_options, traced


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "play",
        "Run one network over a stretch of real English and write one HTML page that plays its backward pass, multiplication by "
        "multiplication. It opens from the disk in any browser.",
        "--network lstm --steps 8 --hidden 4 --out player.html",
    )
    add_network_options(made, steps=8, hidden=4)
    made.add_argument("--out", metavar="FILE.html", default="player.html", help="the page (default player.html)")
    return made


def run(options: argparse.Namespace) -> None:
    """Trace and write the page."""
    from .. import render

    out = file_to_write(options.out, ".html", ".htm")
    _, _, ledger = traced(options)
    render.player(ledger, out)
    say(f"Wrote {out}; open it in a browser")
