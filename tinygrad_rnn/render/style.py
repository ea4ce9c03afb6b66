"""How things look: one colour and one line style per kind, safe for the colour-blind (Okabe & Ito 2008), light and dark."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ArgumentError
from ..linear_maps import Kind

FONT = "Arial"


@dataclass(frozen=True)
class Theme:
    """The colours of a picture, as #rrggbb.

    ``kinds`` are the edges' colours, ``highway`` that of the bold line and ``sign`` that of the words on it; ``tints`` fill the gates.
    """

    background: str
    text: str
    muted: str
    frame: str
    step: str
    state: str
    value: str
    kinds: dict[Kind, str]
    highway: str
    sign: str
    tints: dict[str, str]
    gate: str


LIGHT = Theme(
    background="#ffffff",
    text="#1a1a1a",
    muted="#6b6b6b",
    frame="#c4c4c4",
    step="#fafafa",
    state="#e6e6e6",
    value="#ffffff",
    kinds={"add": "#8c8c8c", "scale": "#0072b2", "matmul": "#d55e00", "route": "#999999"},
    highway="#007f5c",
    sign="#ffffff",
    tints={"forget": "#d5efe6", "update": "#d5efe6", "input": "#dcebf7", "reset": "#dcebf7", "candidate": "#f6e3ee", "output": "#fbf3cf"},
    gate="#eeeeee",
)
DARK = Theme(
    background="#16181c",
    text="#ececec",
    muted="#a0a4aa",
    frame="#4a4e55",
    step="#1d2025",
    state="#3a3f47",
    value="#16181c",
    kinds={"add": "#a8a8a8", "scale": "#56b4e9", "matmul": "#f58231", "route": "#7d828a"},
    highway="#20c997",
    sign="#16181c",
    tints={"forget": "#12463a", "update": "#12463a", "input": "#17395a", "reset": "#17395a", "candidate": "#4f2a42", "output": "#4d4415"},
    gate="#2b2f36",
)
THEMES = {"light": LIGHT, "dark": DARK}


def theme_named(name: object, asked_by: str) -> Theme:
    """The theme of a name.

    Raises:
        ArgumentError: for another name.
    """
    if not isinstance(name, str) or name not in THEMES:
        raise ArgumentError(f"{asked_by}: theme must be one of {sorted(THEMES)}, got {name!r}")
    return THEMES[name]


LINES: dict[Kind, str] = {"add": "solid", "scale": "solid", "matmul": "dashed", "route": "dotted"}
MEANINGS: dict[Kind, str] = {"add": "+  passes on", "scale": "⊙  elementwise", "matmul": "·  matrix", "route": "moves entries"}
LANE_WIDTH = 6.0
ARROW = 7.0
"""The length of an arrow's head, in points."""


def width(kind: Kind, gain: float) -> float:
    """The width of a line by the logarithm of its gain; of each line of the two that a sum has."""
    whole = min(max(1.7 + 0.5 * _log10(gain), 0.6), 3.2)
    return round(whole / 2 if kind == "add" else whole, 1)


def shade(colour: str, background: str, gain: float) -> str:
    """A colour that fades into the background as the gain falls."""
    depth = round(min(max(1.0 + 0.22 * _log10(gain), 0.4), 1.0), 1)
    mixed = (round(depth * int(colour[at : at + 2], 16) + (1 - depth) * int(background[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def line_colour(theme: Theme, kind: Kind, gain: float) -> str:
    """What DOT draws an edge with: sums are a double line."""
    colour = shade(theme.kinds[kind], theme.background, gain)
    return f"{colour}:invis:{colour}" if kind == "add" else colour


def _log10(gain: float) -> float:
    if math.isnan(gain) or gain <= 0.0:
        return -9.0
    return 9.0 if math.isinf(gain) else math.log10(gain)
