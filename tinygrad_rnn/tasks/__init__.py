"""What networks are run on: tasks with a known answer, and real text."""

from .adding import adding, adding_baseline
from .agreement import WORDS as AGREEMENT_WORDS
from .agreement import Agreement, agreement, agreement_baselines, numbered, spelled
from .copying import copying, copying_baseline
from .parity import parity, parity_baseline
from .reber import REBER_LENGTH, Reber, embedded_reber, embedded_reber_baseline, reber_strings
from .reviews import Review, movie_reviews
from .temporal_order import temporal_order, temporal_order_baseline
from .text import Vocabulary, english, read_text, streams, unigram_baseline, words

__all__ = [
    "AGREEMENT_WORDS",
    "REBER_LENGTH",
    "Agreement",
    "Reber",
    "Review",
    "Vocabulary",
    "adding",
    "adding_baseline",
    "agreement",
    "agreement_baselines",
    "copying",
    "copying_baseline",
    "embedded_reber",
    "embedded_reber_baseline",
    "english",
    "movie_reviews",
    "numbered",
    "parity",
    "parity_baseline",
    "read_text",
    "reber_strings",
    "spelled",
    "streams",
    "temporal_order",
    "temporal_order_baseline",
    "unigram_baseline",
    "words",
]
