"""``render``: the backward graph of one network, or what was computed, as a file."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ArgumentError
from ..files import write_atomically
from .options import Parser, between, file_to_write, say
from .reading import Text, add_network_options, loss_of, traced

FORMATS = (".svg", ".png", ".pdf", ".dot")
STEPS = 30
"""How many steps of a computation are drawn at most."""


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "render",
        "Run one network over a stretch of real English and draw its backward graph: every edge is one multiplication.",
        "--network gru --steps 3 --hidden 8 --out gru.svg",
        "--network lstm --steps 1000 --rolled --theme dark --out rolled.png",
        "--network rnn --steps 100 --window 48 50 --out window.dot",
        "--network gru --steps 3 --forward --out forward.svg",
    )
    add_network_options(made, steps=6, hidden=16)
    made.add_argument("--forward", action="store_true", help="draw the computation itself, all operations and values of every step")
    made.add_argument("--rolled", action="store_true", help="draw one step for all, each edge with the range of its gains over time")
    made.add_argument("--window", nargs=2, type=between(1, 10_000), metavar=("FIRST", "LAST"), help="draw only these steps")
    made.add_argument("--ends", type=between(1, 1000), default=2, metavar="N", help="steps drawn at either end of a long text (default 2)")
    made.add_argument("--routes", action="store_true", help="draw also the edges that only move entries")
    made.add_argument("--theme", choices=("light", "dark"), default="light", help="for light or dark paper (default light)")
    made.add_argument(
        "--out",
        metavar="FILE",
        default="backward.svg",
        help="ends in .svg, .png, .pdf (needs an installed Graphviz) or .dot (default backward.svg)",
    )
    return made


def run(options: argparse.Namespace) -> None:
    """Trace and draw."""
    out = file_to_write(options.out, *FORMATS)
    graph, said = _forward(options) if options.forward else _backward(options)
    kind = out.suffix.lower()[1:]
    write_atomically(out, graph.source if kind == "dot" else graph.pipe(format=kind))
    say(f"Wrote {said} to {out}")


def _backward(options: argparse.Namespace) -> tuple[Any, str]:
    from .. import render

    _, _, ledger = traced(options)
    graph = render.backward_graph(
        ledger,
        rolled=options.rolled,
        window=None if options.window is None else tuple(options.window),
        ends=options.ends,
        fold_routes=not options.routes,
        theme=options.theme,
    )
    return graph, f"the backward graph of {len(ledger)} multiplications"


def _forward(options: argparse.Namespace) -> tuple[Any, str]:
    from .. import render

    if options.rolled or options.window is not None or options.routes or options.ends != 2:
        raise ArgumentError("--forward: every step is drawn; leave out --rolled, --window, --ends and --routes")
    if options.steps > STEPS:
        raise ArgumentError(f"--forward: every step is drawn, and {options.steps} are too many to read; choose at most --steps {STEPS}")
    loss = loss_of(options.network, Text.chosen(options), options)
    graph = render.forward_graph(loss, opened=True, theme=options.theme, max_nodes=1000)
    return graph, f"the computation of {options.steps} steps"
