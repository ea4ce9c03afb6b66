"""What errors say, word for word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tinygrad_rnn.errors import TinygradError

Row = tuple[Callable[[], Any], type[TinygradError], str]
"""A call, the very class of its error, and the very words."""


def said(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The message of the error that comes."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind, type(caught.value)
    return str(caught.value)


def word_for_word(rows: Sequence[Row]) -> Callable[..., None]:
    """A test of every row, named by the operation that its message begins with."""

    @pytest.mark.parametrize(("call", "kind", "message"), rows, ids=[message.split(":")[0] for _, _, message in rows])
    def test(call: Callable[[], Any], kind: type[TinygradError], message: str) -> None:
        found = said(kind, call)
        assert found == message, f"{found}\ninstead of\n{message}"

    return test
