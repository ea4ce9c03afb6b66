"""The house: who may import whom, and what ``import tinygrad_rnn`` loads."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_rnn

PACKAGE = Path(tinygrad_rnn.__file__).parent

FLOORS = (
    "errors", "linear_maps", "primitive", "ops", "graph", "steps", "walk", "tensor", "storage", "functional", "numpy_protocol",
    "transforms", "nn", "optim", "trace", "flow", "render", "testing", "tasks", "experiments", "cli", "__main__",
)  # fmt: skip
CELLAR = ("files", "progress", "report")
"""Tools that know nothing of tensors and may be used from everywhere."""

ONLY = {"graphviz": "render", "matplotlib": "render", "hypothesis": "testing", "safetensors": "storage"}
"""Who alone may import a package from outside."""

LAST = ("render", "testing", "tasks", "experiments", "cli")
"""Rooms that nothing imports but those to the right of them."""


def room_of(path: Path, package: Path) -> str:
    """The room that a file belongs to: its folder or its module, on the first level."""
    return path.relative_to(package).with_suffix("").parts[0]


def imports(path: Path, package: Path):
    """What a file imports anywhere in it: pairs of a line and a dotted name; our own names begin with the package's."""
    here = ("tinygrad_rnn", *path.relative_to(package).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            if base == "tinygrad_rnn":
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def violations(package: Path) -> list[str]:
    """Every import that does not fit the house."""
    rank = {name: level for level, name in enumerate(FLOORS)}
    found = []
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        if room == "__init__":
            continue
        place = f"{path.relative_to(package)}:"
        if room not in rank and room not in CELLAR:
            found.append(f"{place} the room {room} has no floor")
            continue
        for line, name in imports(path, package):
            parts = name.split(".")
            if ONLY.get(parts[0], room) != room:
                found.append(f"{place}{line} {room} imports {parts[0]}, which is for {ONLY[parts[0]]} alone")
            if parts[0] != "tinygrad_rnn":
                continue
            target = parts[1] if len(parts) > 1 else "__init__"
            if target == room or target in CELLAR:
                continue
            if room in CELLAR and target == "errors":
                continue
            if room in CELLAR or target not in rank or rank[target] > rank[room]:
                found.append(f"{place}{line} {room} imports {target}, which is not below it")
    return found


def test_no_room_imports_a_higher_one():
    """Every module imports only what lies below it, and packages from outside are imported only where they belong."""
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("room", "line", "complaint"),
    [
        ("ops/arithmetic.py", "from ..tensor import Tensor", "ops imports tensor"),
        ("ops/arithmetic.py", "from .. import tensor", "ops imports tensor"),
        ("linear_maps.py", "from .primitive import primitive", "linear_maps imports primitive"),
        ("tensor.py", "def late():\n    from .numpy_protocol import call_ufunc", "tensor imports numpy_protocol"),
        ("walk.py", "import tinygrad_rnn.transforms", "walk imports transforms"),
        ("nn/module.py", "from tinygrad_rnn.trace import Trace", "nn imports trace"),
        ("trace.py", "from .render import anything", "trace imports render"),
        ("trace.py", "import graphviz", "trace imports graphviz"),
        ("transforms.py", "from hypothesis import given", "transforms imports hypothesis"),
        ("graph.py", "import tinygrad_rnn", "graph imports __init__"),
        ("files.py", "from .graph import Node", "files imports graph"),
        ("unheard_of.py", "", "unheard_of has no floor"),
    ],
)
def test_planted_violations_are_caught(tmp_path, room, line, complaint):
    """In a copy of the package with one wrong import, exactly that one is found."""
    copy = tmp_path / "tinygrad_rnn"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / room).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    found = violations(copy)
    assert len(found) == 1 and complaint in found[0]


def loaded(statement: str) -> set[str]:
    """The top-level modules that an interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_numpy_and_nothing_else_heavy():
    """``import tinygrad_rnn`` adds itself and small modules of the standard library to what NumPy loads."""
    ours, numpys = loaded("import tinygrad_rnn"), loaded("import numpy")
    heavy = "graphviz rich hypothesis matplotlib torch autograd scipy pandas pytest IPython safetensors"
    assert not ours & set(heavy.split())
    outside = ours - numpys - set(sys.stdlib_module_names) - {"tinygrad_rnn"}
    assert {name for name in outside if not name.startswith("__")} == set()
    assert not ours & {"asyncio", "unittest", "multiprocessing", "http", "email", "xml", "sqlite3", "concurrent"} - numpys


def test_rooms_are_loaded_when_they_are_named():
    """The strategies load hypothesis when they are named and not before; an unknown name is an ordinary AttributeError."""
    assert "hypothesis" in loaded("import tinygrad_rnn.testing.strategies")
    assert not loaded("import tinygrad_rnn as tg; tg.nn, tg.testing") & {"hypothesis", "graphviz"}
    with pytest.raises(AttributeError, match=r"no attribute 'tensorr'"):
        getattr(tinygrad_rnn, "tensorr")  # noqa: B009
