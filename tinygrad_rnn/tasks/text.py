"""Real English: the help topics that every CPython carries, or a file of the user's."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ArgumentError


def english() -> str:
    """The text of ``pydoc_data.topics``, about 465,000 characters of technical English; the same for one Python version.

    Raises:
        ArgumentError: if this Python was packaged without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ArgumentError("text: this Python was installed without pydoc_data.topics; give a text file of your own") from None
    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file, line ends as in Unix.

    Raises:
        ArgumentError: if it does not exist, cannot be read, is empty, or is not text.
    """
    file = Path(path)
    if file.is_dir():
        raise ArgumentError(f"text: {str(file)!r} is a folder; expected a text file")
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ArgumentError(f"text: there is no file {str(file)!r}; check the path") from None
    except UnicodeDecodeError as error:
        raise ArgumentError(f"text: {str(file)!r} is not UTF-8 text (byte {error.start}); convert it first") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArgumentError(f"text: {str(file)!r} cannot be read ({reason}); check the path and its permissions") from None
    if "\0" in content:
        raise ArgumentError(f"text: {str(file)!r} holds NUL characters, so it is not text; expected UTF-8 text")
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if not content.strip():
        raise ArgumentError(f"text: {str(file)!r} is empty; expected some text")
    return content
