"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write beside the target under another name, then rename over it.

    Raises:
        OSError: if the folder does not exist or cannot be written to; nothing is left behind.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:40]}.{os.urandom(8).hex()}.part")
    try:
        with open(temporary, "xb") as file:  # with the permissions that any new file would have
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:  # an interrupt may come before the file is there, and after it has been renamed
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):  # it names a file that the caller has never heard of
            raise type(error)(error.errno, error.strerror, str(target)) from None
        raise
    return target


def write_together(folder: str | os.PathLike[str], files: dict[str, bytes]) -> list[Path]:
    """Write several files into a folder, which is made if it is missing: all of them, or none.

    Raises:
        OSError: if the folder or a file cannot be written; what was there before stays.
    """
    import tempfile

    place = Path(folder)
    missing = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True, exist_ok=True)
    name = ""
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".part-") as scratch:
            fresh, old = Path(scratch) / "new", Path(scratch) / "old"
            fresh.mkdir()
            old.mkdir()
            for name, content in files.items():
                write_atomically(fresh / name, content)
            try:
                for name in files:
                    if (place / name).is_dir():
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                    if (place / name).exists():
                        os.replace(place / name, old / name)
                    os.replace(fresh / name, place / name)
            except BaseException:
                for moved in files:  # put back what was there, and take away what is new
                    if (old / moved).exists():
                        os.replace(old / moved, place / moved)
                    elif not (fresh / moved).exists():
                        (place / moved).unlink(missing_ok=True)
                raise
    except BaseException as error:
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if isinstance(error, OSError):
            raise type(error)(error.errno, error.strerror, str(place / name)) from None
        raise
    return [place / name for name in files]
