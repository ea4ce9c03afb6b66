"""Real English: the help topics that every CPython carries, or a file of the user's; by characters or by words."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

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


def words(text: str) -> list[str]:
    """Words in small letters, and punctuation marks, in their order; an apostrophe within a word belongs to it.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> tasks.words("It isn't, well, ''good''!")
        ['it', "isn't", ',', 'well', ',', 'good', '!']
    """
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*|[.,;:!?]", text.lower())


class Vocabulary:
    """Numbers for symbols: characters, or words. The number 0 stands for every symbol that is not in it.

    Args:
        symbols: a text whose characters are counted, or any sequence of words.
        least: a symbol must occur so often.
        most: so many symbols at most, the most frequent ones; None: all.

    Attributes:
        names: the symbols by their number; the first, for 0, is "�". Frequent ones come first, ties in the order of their code.

    Raises:
        ArgumentError: if no symbol occurs often enough.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> vocabulary = tasks.Vocabulary("hello, hello")
        >>> vocabulary.names, vocabulary.numbers("halo")
        (('�', 'l', 'e', 'h', 'o', ' ', ','), array([3, 0, 1, 4]))
        >>> len(tasks.Vocabulary(tasks.words(tasks.english()), least=5)) > 1000
        True
    """

    def __init__(self, symbols: Iterable[str], *, least: int = 1, most: int | None = None) -> None:
        counted = Counter(symbols)
        kept = sorted((symbol for symbol, count in counted.items() if count >= least), key=lambda symbol: (-counted[symbol], symbol))[:most]
        if not kept:
            raise ArgumentError(f"Vocabulary: no symbol occurs {least} times; give more text, or a smaller least")
        self.names = ("�", *kept)
        self._number = {symbol: number for number, symbol in enumerate(kept, 1)}

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, symbols: Iterable[str]) -> Any:
        """The number of each symbol: (length,), integers."""
        return np.array([self._number.get(symbol, 0) for symbol in symbols], dtype=np.intp)


def streams(numbers: Any, count: int) -> tuple[Any, Any]:
    """A long sequence cut into equal streams side by side, and for each number the one that follows it: both (length, count).

    Raises:
        ArgumentError: if there are too few numbers.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> tasks.streams(range(7), 2)
        (array([[0, 3],
               [1, 4],
               [2, 5]]), array([[1, 4],
               [2, 5],
               [3, 6]]))
    """
    given = np.asarray(numbers)
    length = (len(given) - 1) // count if count > 0 else 0
    if length < 1:
        raise ArgumentError(f"streams: {len(given)} numbers are too few for {count} streams and what follows them; give a longer text")
    inputs, following = given[: length * count], given[1 : length * count + 1]
    return inputs.reshape(count, length).T, following.reshape(count, length).T


def unigram_baseline(numbers: Any) -> float:
    """The cross-entropy in nats a symbol of the best answer without looking: −Σ p ln p, p how often each number occurs.

    Example:
        >>> from tinygrad_rnn import tasks
        >>> round(tasks.unigram_baseline([0, 1, 2, 3]), 3)  # ln 4
        1.386
    """
    counts = np.unique(np.asarray(numbers), return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0
