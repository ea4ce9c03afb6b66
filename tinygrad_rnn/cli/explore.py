"""``explore``: the page with the sliders |λ| and T."""

from __future__ import annotations

import argparse
import time

from .options import Parser, between, file_to_write, say


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "explore",
        "Measure how much of the gradient is left after up to 200 steps, in linear, tanh, LSTM and GRU recurrences of every spectral "
        "radius from 0.5 to 1.5, and write one HTML page with sliders over it. It takes some 15 seconds. The page opens from the disk in "
        "any browser.",
        "--hidden 8 --coarse --out explorer.html",
    )
    made.add_argument("--hidden", type=between(1, 1024), default=16, metavar="H", help="units in each network (default 16)")
    made.add_argument("--seed", type=between(0, 2**63 - 1), default=0, help="seed of weights, inputs and loss (default 0)")
    made.add_argument("--coarse", action="store_true", help="fewer stops of the sliders: quicker, and a smaller page")
    made.add_argument("--out", metavar="FILE.html", default="explorer.html", help="the page (default explorer.html)")
    return made


def run(options: argparse.Namespace) -> None:
    """Measure and write the page."""
    from ..render import explorer, sweep

    out, began = file_to_write(options.out, ".html", ".htm"), time.perf_counter()
    radii, lengths = (sweep.RADII[::5], sweep.LENGTHS[1::5]) if options.coarse else (sweep.RADII, sweep.LENGTHS)
    explorer(out, radii=radii, lengths=lengths, hidden=options.hidden, seed=options.seed)
    size = out.stat().st_size / 1e6
    say(f"Wrote {out}, {size:.1f} MB, measured in {time.perf_counter() - began:.0f} seconds; open it in a browser")
