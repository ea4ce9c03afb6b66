"""The drawing program: Graphviz's ``dot`` from the PATH, or else the one that the wheel ``graphviz-pure`` installs."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphviz

from ..errors import RenderError
from ..files import write_atomically
from .model import RenderGraph

_PURE = "graphviz-pure"
_RASTER = ("png", "jpg", "jpeg")

PATIENCE = 60.0
"""For how many seconds a program may draw."""


class BackwardGraph(graphviz.Digraph):  # type: ignore[misc]  # the graphviz package has no types
    """A :class:`graphviz.Digraph` that also draws where no Graphviz is installed. ``model`` is what it shows, as data.

    ``.render()``, ``.pipe()``, ``.save()``, ``.source`` and the display in a notebook are those of the graphviz package.
    """

    model: RenderGraph | None = None

    def __init__(self, name: str, body: list[str], model: RenderGraph) -> None:
        super().__init__(name, engine="neato", format="svg", body=body)
        self.model = model

    def _pipe_lines(self, engine: str, format: str, input_lines: Iterator[str], *, input_encoding: str, **options: Any) -> bytes:
        return drawn("".join(input_lines), engine, format, **options)

    def _pipe_lines_string(self, engine: str, format: str, input_lines: Iterator[str], *, encoding: str, **options: Any) -> str:
        return drawn("".join(input_lines), engine, format, **options).decode(encoding)

    def _render(
        self,
        engine: str,
        format: str,
        filepath: str | os.PathLike[str],
        *,
        outfile: str | os.PathLike[str] | None = None,
        raise_if_result_exists: bool = False,
        overwrite_filepath: bool = False,
        **options: Any,
    ) -> str:
        names = (options.get("formatter"), options.get("renderer"), format)
        target = Path(outfile) if outfile is not None else Path(f"{os.fspath(filepath)}.{'.'.join(name for name in names if name)}")
        if raise_if_result_exists and target.exists():
            raise graphviz.FileExistsError(f"output file exists: {os.fspath(target)!r}")
        if not overwrite_filepath and target.resolve() == Path(filepath).resolve():
            raise ValueError(f"outfile {target.name!r} must be different from the source file")
        return os.fspath(write_atomically(target, drawn(self.source, engine, format, **options)))


def drawn(
    source: str,
    engine: str,
    format: str,
    renderer: str | None = None,
    formatter: str | None = None,
    neato_no_op: bool | int | None = None,
    quiet: bool = False,
) -> bytes:
    """DOT text, laid out and drawn.

    Raises:
        RenderError: if there is no drawing program, it refuses, or it is not done in time.
    """
    program = drawing_program()
    if Path(program).stem == _PURE and format in _RASTER:
        source = source.replace("⊙", "ʘ")  # its built-in font, which only pixels are drawn with, has a letter of this form but not the sign
    command = [program, f"-K{engine}", "-T" + ":".join(part for part in (format, renderer, formatter) if part)]
    if neato_no_op is None and engine == "neato":  # everything has its place already
        neato_no_op = 2
    if neato_no_op:
        command.append(f"-n{int(neato_no_op)}")
    try:
        done = subprocess.run(command, input=source.encode(), capture_output=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise RenderError(
            f"render: {program} was not done after {PATIENCE:g} seconds and was stopped. Show less (rolled=True, window=(first, last)), or "
            "save the DOT text with .save(path) and draw it with another program"
        ) from error
    except OSError as error:
        raise RenderError(f"render: {program} cannot be run: {error}. The DOT text is there without it: .source, .save(path)") from error
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        hint = f" {_PURE} draws svg and png; install Graphviz for {format}." if Path(program).stem == _PURE else ""
        raise RenderError(f"render: {Path(program).name} could not draw {format} (exit status {done.returncode}): {said}.{hint}")
    return done.stdout


def drawing_program() -> str:
    """The path of ``dot``, or else of ``graphviz-pure``.

    Raises:
        RenderError: if there is neither.
    """
    found = shutil.which("dot") or _bundled() or shutil.which(_PURE)
    if found is None:
        raise RenderError(
            "render: no program that draws graphs was found. Install one with `pip install graphviz-pure`, or Graphviz from "
            "https://graphviz.org so that `dot` is on the PATH. The DOT text is there without it: .source, .save(path)"
        )
    return found


def _bundled() -> str | None:
    """The program in this environment's folder of scripts, wherever the wheel put it."""
    places = [Path(sysconfig.get_path("scripts")), Path(sys.executable).parent]
    places += [Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))]
    candidates = [place / name for place in places for name in (_PURE, f"{_PURE}.exe")]
    try:
        listed = importlib.metadata.files(_PURE) or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    candidates = [Path(str(file.locate())) for file in listed if file.stem == _PURE and file.suffix in ("", ".exe")] + candidates
    return next((str(path) for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)
