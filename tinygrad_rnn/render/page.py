"""The frame of every page that we write: one file, no network, and only our own script runs in it."""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import json
import os
import re
from pathlib import Path
from typing import Any

from ..errors import RenderError
from .style import DARK, LIGHT, Theme

_NO_TEXT = re.compile("[<\ud800-\udfff\u2028\u2029]")
"""What must not stand in the data as it is: it could begin a tag, or cannot be encoded."""

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="tinygrad_rnn">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def place_for(path: str | os.PathLike[str]) -> Path:
    """Where a page goes; fails before the work that it takes, not after it.

    Raises:
        OSError: if that is a folder, or is in none that can be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a folder; add a file name", str(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder", str(target.parent))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "The folder cannot be written to", str(target.parent))
    return target


def page(*, title: str, body: str, data: Any = None, script: str = "", style: str = "") -> str:
    """One HTML file that works from the disk and asks nobody for anything.

    The Content-Security-Policy admits exactly this style sheet and this script, by their SHA-256; what anybody else manages to put into
    the page does not run. Inline ``style="…"`` attributes are refused as well: use classes, SVG attributes, or set ``element.style`` in
    the script.

    Args:
        title: any text; it is escaped.
        body: HTML. Texts in it must have gone through ``html.escape``.
        data: what the script reads as ``JSON.parse(document.getElementById("data").textContent)``; NaN and infinities are refused
            (send them as null or text).
        script, style: JavaScript and CSS of our own; ``style`` follows the colours of :func:`colours`.

    Raises:
        RenderError: if ``data`` is not JSON, or style and script would end their element.
    """
    style = colours() + style
    for name, text in (("script", script), ("style", style)):
        if f"</{name}" in text.lower() or "<!--" in text:
            raise RenderError(f"page: the {name} must not contain </{name} or <!--; split the text where it does")
    try:
        written = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise RenderError(f"page: the data is not JSON ({error}); pass it through report.plain first") from None
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return _TEMPLATE.format(
        policy=policy,
        title=html.escape(title.encode("utf-8", "replace").decode()),
        style=style,
        body=body.encode("utf-8", "replace").decode(),
        data=_NO_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", written),
        script=script,
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def colours() -> str:
    """The themes as CSS variables: ``--text``, ``--background``, ``--scale``, …; dark where the reader's system is dark."""
    return (
        f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
        "*{box-sizing:border-box}"
        "body{margin:0;background:var(--background);color:var(--text);font:16px/1.5 system-ui,sans-serif}"
    )


def _variables(theme: Theme) -> str:
    named: dict[str, str] = {
        "background": theme.background,
        "text": theme.text,
        "muted": theme.muted,
        "frame": theme.frame,
        "step": theme.step,
        "state": theme.state,
        "highway": theme.highway,
    } | {str(kind): colour for kind, colour in theme.kinds.items()}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())
