"""What networks are run on: real text."""

from .text import english, read_text

__all__ = ["english", "read_text"]
