"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write beside the target under another name, then rename over it.

    Raises:
        OSError: if the folder does not exist or cannot be written to; nothing is left behind.
    """
    import tempfile  # takes a twentieth of the time that NumPy takes to import, and is seldom needed

    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part")
    try:
        try:
            file = os.fdopen(handle, "wb")
        except BaseException:
            os.close(handle)
            raise
        with file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
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
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".part-") as scratch:
            for name, content in files.items():
                write_atomically(Path(scratch) / name, content)
            for name in files:
                os.replace(Path(scratch) / name, place / name)
    except BaseException:
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise
    return [place / name for name in files]
