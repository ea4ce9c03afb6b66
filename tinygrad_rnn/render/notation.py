"""One formula, three ways to write it: plain text, LaTeX and MathML.

A formula is a line of text such as ``W_hhᵀ (δh₃ ⊙ (1 − h₃²))`` in which each symbol stands between two private characters, as the number
that it has in a list. So whatever a value is called, it can be taken for nothing else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from .text import cleaned

Tree = tuple[Any, ...]
"""("id" | "word" | "num" | "op" | "text", text), ("held", number), ("script", base, below, above) or ("row", parts)."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_HELD = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_SUBS, _SUPS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋", "0123456789−"), str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰ", "0123456789−()abcdefgh")
_LETTER = "[^\\W\\d_₀-₉⁰¹²³⁴-⁹ᵀδ∂Σ][\u0300-\u036f]?"  # x̂ is a letter with a hat
_TOKENS = re.compile(
    f"(?P<held>{_OPEN}\\d+{_CLOSE})|(?P<num>[0-9]+(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<sign>[δ∂Σ])|(?P<word>(?:{_LETTER})+)"
    "|(?P<under>_(?:[^\\W_₀-₉⁰¹²³⁴-⁹ᵀ]+))|(?P<sub>₋?[₀-₉]+)|(?P<sup>ᵀ|⁽[⁰¹²³⁴-⁹]*[→←]?[ᵃᵇᶜᵈᵉᶠᵍʰ]?⁾|⁻?[⁰¹²³⁴-⁹]+)|(?P<power>\\^\\()|(?P<space>\\s+)|(?P<op>.)",
    re.DOTALL,
)
_PLAIN = re.compile("[\\w\u0300-\u036f₀-₉⁰¹²³⁴-⁹₋ᵀ⁽⁾→←()⊙+−/·@. ]+")
_FUNCTIONS = frozenset(("tanh", "cos", "sin", "ln", "exp", "log"))
_LATEX = {
    "⊙": r"\odot", "·": r"\cdot", "−": "-", "…": r"\ldots", "𝟏": r"\mathbf{1}", "‖": r"\Vert", "×": r"\times", "[": "[", "]": "]",
    "δ": r"\delta", "∂": r"\partial", "Σ": r"\Sigma", "σ": r"\sigma", "√": r"\surd", "@": r"\,@\,", "|": r"\vert",
}  # fmt: skip
_ESCAPES = {"\\": r"\backslash", "^": r"\wedge", "~": r"\sim", " ": r"\ ", '"': "”"} | {char: "\\" + char for char in "{}$#%&_"}

_BRACKETS = "border:solid;border-width:0 1.5px;border-radius:5px;padding:0 5px"
"""Brackets of any height, also where no font for mathematics is installed."""


def held(number: int) -> str:
    """What stands in a formula for the symbol of this number."""
    return f"{_OPEN}{number}{_CLOSE}"


def symbol(text: str) -> str:
    """A value's name as it stands in a formula: one line, in quotation marks if it could be read as something else."""
    text = cleaned(text)
    balanced = text.count("(") == text.count(")")
    return text if balanced and _PLAIN.fullmatch(text) and text == text.strip() else f"“{text}”"


def as_text(formula: str, symbols: Sequence[str]) -> str:
    """A formula as plain text."""
    return _HELD.sub(lambda match: symbols[int(match[1])], formula).replace("ᵀᵀ", "")


def as_latex(formula: str, symbols: Sequence[str]) -> str:
    """A formula as LaTeX for mathematical mode, without macros of packages."""
    return _latex(parsed(formula, symbols))


def as_mathml(formula: str, symbols: Sequence[str]) -> str:
    """A formula as the inside of a MathML element."""
    return _mathml(parsed(formula, symbols))


def parsed(formula: str, symbols: Sequence[str] | None) -> Tree:
    """A formula as a tree; without ``symbols`` each stays ("held", number)."""
    stack: list[tuple[str, list[Tree]]] = [("", [])]
    for match in _TOKENS.finditer(formula):
        kind, token = str(match.lastgroup), match.group()
        parts = stack[-1][1]
        if kind == "held":
            number = int(token[1:-1])
            parts.append(("held", number) if symbols is None else _symbol_tree(symbols[number]))
        elif kind == "num":
            parts.append(("num", token))
        elif kind == "sign":
            parts.append(("id", token))
        elif kind == "word":
            parts.append(("id" if sum(map(str.isalpha, token)) == 1 else "word", token))
        elif kind in ("under", "sub", "sup"):
            below, above = token[1:] if kind == "under" else token.translate(_SUBS), token.translate(_SUPS)
            _attach(parts, *((None, above) if kind == "sup" else (below, None)))
        elif kind == "power":
            stack.append(("^", []))
        elif token in "([" and token:
            stack.append((token, [("op", token)]))
        elif token in ")]" and len(stack) > 1:
            opened, inner = stack.pop()
            if opened == "^":
                _attach(stack[-1][1], None, ("row", inner))
            else:
                stack[-1][1].append(("row", [*inner, ("op", token)]))
        elif kind == "op":
            parts.append(("op", token))
    while len(stack) > 1:
        _, inner = stack.pop()
        stack[-1][1].extend(inner)
    return "row", stack[0][1]


def _symbol_tree(text: str) -> Tree:
    if text.startswith("“"):
        return "text", text
    tree = parsed(text, ())
    single: Tree = tree[1][0] if len(tree[1]) == 1 else tree
    return single


def _attach(parts: list[Tree], below: Any, above: Any) -> None:
    """Put a subscript or superscript on what stands last."""
    base = parts.pop() if parts else ("row", [])
    if above == "ᵀ" and base[0] == "script" and base[3] == "ᵀ":
        parts.append(("script", base[1], base[2], None) if base[2] else base[1])
    elif base[0] == "script" and below and base[3] is None:
        parts.append(("script", base[1], f"{base[2]}, {below}" if base[2] else below, None))
    elif base[0] == "script" and above and base[3] is None:
        parts.append(("script", base[1], base[2], above))
    else:
        parts.append(("script", base, below, above))


def as_json(formula: str) -> Any:
    """A formula for a page's script: a number is a symbol, a text begins with the letter of its kind, a list is a row or a script."""
    return _plain(parsed(formula, None))


def symbol_as_json(text: str) -> Any:
    """A symbol in the same way."""
    return _plain(_symbol_tree(text))


def _plain(tree: Tree) -> Any:
    kind = tree[0]
    if kind == "row":
        return ["r", *map(_plain, tree[1])]
    if kind == "script":
        _, base, below, above = tree
        return ["s", _plain(base), below, _plain(above) if isinstance(above, tuple) else above]
    return tree[1] if kind == "held" else kind[0] + str(tree[1])


def _blocks(tree: Tree) -> list[list[Tree]]:
    """The parts of [a; b], which are written one below the other."""
    parts = tree[1]
    if len(parts) < 3 or parts[0] != ("op", "[") or ("op", ";") not in parts:
        return []
    blocks: list[list[Tree]] = [[]]
    for part in parts[1:-1]:
        if part == ("op", ";"):
            blocks.append([])
        else:
            blocks[-1].append(part)
    return blocks


# -- LaTeX --------------------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Any text in LaTeX's mathematical mode, upright."""
    return r"\mathrm{" + "".join(_ESCAPES[c] + " " * (len(_ESCAPES[c]) > 2) if c in _ESCAPES else c for c in text) + "}"


def _latex(tree: Tree) -> str:
    kind = tree[0]
    if kind == "row":
        if blocks := _blocks(tree):
            return r"\begin{bmatrix} " + r" \\ ".join(" ".join(map(_latex, block)) for block in blocks) + r" \end{bmatrix}"
        return " ".join(_latex(part) for part in tree[1])
    if kind == "script":
        _, base, below, above = tree
        written = _latex(base)
        if base[0] in ("row", "script"):
            written = "{" + written + "}"
        if below:
            written += "_{" + ", ".join(_latex_script(part) for part in below.split(", ")) + "}"
        if above is not None:
            written += "^{" + (_latex(above) if isinstance(above, tuple) else _latex_script(above)) + "}"
        return written
    text = str(tree[1])
    if kind == "num":
        digits, _, power = text.lower().partition("e")
        return rf"{digits} \times 10^{{{int(power)}}}" if power else text
    if kind == "word":
        return "\\" + text if text in _FUNCTIONS else escaped(text)
    if kind == "text":
        return escaped(text)
    return _LATEX.get(text, _ESCAPES.get(text, text))


def _latex_script(text: str) -> str:
    if text == "ᵀ":
        return r"\top"
    if text[:1] == "(":
        return text.replace("→", r"\rightarrow ").replace("←", r"\leftarrow ")
    return text.replace("−", "-") if len(text) == 1 or not any(char.isalpha() for char in text) else escaped(text)


# -- MathML -------------------------------------------------------------------------------------------------------------------


def _mathml(tree: Tree) -> str:
    kind = tree[0]
    if kind == "row":
        if blocks := _blocks(tree):
            rows = "".join(f'<mtr><mtd style="text-align:left">{"".join(map(_mathml, block))}</mtd></mtr>' for block in blocks)
            return f'<mtable style="{_BRACKETS}">{rows}</mtable>'
        return "".join(_mathml(part) for part in tree[1])
    if kind == "script":
        _, base, below, above = tree
        parts = [f"<mrow>{_mathml(base)}</mrow>" if base[0] == "row" else _mathml(base)]
        if below:
            parts.append(f"<mtext>{html.escape(below)}</mtext>" if any(c.isalpha() for c in below) else f"<mn>{below}</mn>")
        if above is not None:
            parts.append(f"<mrow>{_mathml(above)}</mrow>" if isinstance(above, tuple) else f"<mn>{'T' if above == 'ᵀ' else above}</mn>")
        name = "msub" if above is None else "msubsup" if below else "msup"
        return f"<{name}>{''.join(parts)}</{name}>"
    text = html.escape(tree[1])
    if kind == "op" and tree[1] in "()[]‖|":
        return f'<mo stretchy="false">{text}</mo>'
    tag = {"id": "mi", "word": "mi", "num": "mn", "text": "mtext"}.get(kind, "mo")
    return f"<{tag}>{text}</{tag}>"
