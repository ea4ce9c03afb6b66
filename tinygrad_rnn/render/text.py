"""Words in pictures: what a value is called, how numbers are written, and what a stranger's text must not do."""

from __future__ import annotations

import math
import re
import unicodedata

from ..steps import BackwardStep, NodeInfo

_GLYPHS = {
    "matmul": "·",
    "add": "+",
    "subtract": "−",
    "multiply": "⊙",
    "divide": "÷",
    "negative": "−",
    "sum": "Σ",
    "prod": "∏",
    "sqrt": "√",
    "sigmoid": "σ",
    "absolute": "|·|",
    "square": "(·)²",
    "power": "(·)ⁿ",
    "reciprocal": "1/·",
    "concatenate": "join",
    "broadcast_to": "broadcast",
}
_LOWER, _UPPER = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"), str.maketrans("₀₁₂₃₄₅₆₇₈₉₋", "0123456789-")
_SUBSCRIPT = re.compile("₋?[₀-₉]+")
_TIME = re.compile("ₜ?[₊₋]?[₀-₉]*")
_ADVANCES = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556,
    556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
]  # fmt: skip
"""The widths of the characters from space to tilde in Helvetica and Arial, in thousandths of the size (Adobe's font metrics)."""
_FACTOR = re.compile("(?<=[₀-₉])[(](?=1 )")
_NEAR = 4
_LONGEST = 48


def cleaned(text: str, longest: int = _LONGEST) -> str:
    """One line without control characters, surrogates or marks that turn the direction of writing; a long text loses its middle."""
    kept = "".join(char for char in text[: 4 * longest] if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
    if len(text) > 4 * longest or len(kept) > longest:
        return f"{kept[: longest - 12]}…{cleaned(text[-40:], 40)[-11:]}"
    return kept


def wrapped(text: str, width: int = 22, *, narrow: bool = False) -> str:
    """A long formula on several lines, broken at its spaces; a narrow one also within o₂(1 − o₂)."""
    lines = [""]
    for word in (_FACTOR.sub("\n(", text) if narrow else text).split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width and len(lines[-1]) > 2:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return "\n".join(lines)


def text_width(text: str, size: float) -> float:
    """How wide the widest line of a text is in Arial of a size, in points; a little too much where a sign is not known."""
    return max(sum(map(_advance, line)) for line in text.split("\n")) * size / 1000


def _advance(char: str) -> int:
    code = ord(char)
    if 32 <= code < 127:
        return _ADVANCES[code - 32]
    if char in "₀₁₂₃₄₅₆₇₈₉₊₋ₜ⁰¹²³⁴⁵⁶⁷⁸⁹ⁿᵀ":
        return 420
    return 0 if unicodedata.combining(char) else 1000 if unicodedata.east_asian_width(char) in "WF" else 720


def number(value: float) -> str:
    """A gain in two digits; "–" where nothing arrived."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.2g}"


def span(low: float, high: float) -> str:
    """A range of gains, or one gain."""
    first, last = number(low), number(high)
    return first if first == last else f"{first} … {last}"


def glyph(info: NodeInfo) -> str:
    """The name of a value; of a nameless one the sign of its operation."""
    if info.name is not None or info.symbol != info.op:
        return info.symbol
    return sign(info.op)


def sign(op: str) -> str:
    """How an operation is written: its sign if it has one, and otherwise its name."""
    return _GLYPHS.get(op, op)


def formula(step: BackwardStep) -> str:
    """The label of a step, with signs for the nameless operations in it: "⊙ 2(·)" for the square of a matrix product."""
    label = step.label
    for info in (step.node, *step.node.operands):
        if info.name is None and info.symbol == info.op and (sign := _GLYPHS.get(info.op)):
            label = re.sub(rf"(?<![A-Za-z_]){info.op}(?![A-Za-z_])", sign if sign.isalpha() else f"({sign})", label)
    return label


def relative(text: str, time: int | None) -> str:
    """Subscripts of one step as a reader writes them for any step: at step 3, f₃ becomes fₜ and c₂ becomes cₜ₋₁."""
    if time is None:
        return text

    def turned(match: re.Match[str]) -> str:
        distance = int(match.group().translate(_UPPER)) - time
        if abs(distance) > _NEAR:
            return match.group()
        return "ₜ" + ("" if not distance else f"{'₊' if distance > 0 else '₋'}{abs(distance)}".translate(_LOWER))

    return _SUBSCRIPT.sub(turned, text)


def timeless(text: str) -> str:
    """A symbol without its time: f₃ and fₜ become f."""
    return _TIME.sub("", text)
