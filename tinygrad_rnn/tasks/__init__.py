"""What networks are run on: tasks with a known answer, and real text."""

from .adding import adding, adding_baseline
from .text import english, read_text

__all__ = ["adding", "adding_baseline", "english", "read_text"]
