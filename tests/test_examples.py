"""The numbered tour and README say what really comes out."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import tinygrad_rnn

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_its_docstring_says(path, capsys):
    """The output of ``main()``, or of ``quick()`` if there is one, is the block under "Expected output", to the last character."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    getattr(module, "quick", module.main)()
    printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
    _, _, expected = re.split(r"(Expected output.*?:\n\n)", inspect.getdoc(module), maxsplit=1, flags=re.S)
    assert printed == [line.removeprefix("    ").rstrip() for line in expected.rstrip().splitlines()]


def modules():
    yield tinygrad_rnn
    for found in pkgutil.walk_packages(tinygrad_rnn.__path__, "tinygrad_rnn."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


@pytest.mark.parametrize("module", list(modules()), ids=lambda module: module.__name__)
def test_docstring_examples_are_true(module):
    """Every ``>>>`` line in the package prints what is written under it."""
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_readme_is_true(tmp_path, monkeypatch):
    """README's Python runs and prints the numbers that stand beside it."""
    monkeypatch.chdir(tmp_path)  # it saves a file
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert blocks
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    names = {}  # the blocks are one session
    for number, block in enumerate(blocks):
        runner.run(doctest.DocTestParser().get_doctest(block, names, f"README block {number}", "README.md", 0), clear_globs=False)
        names = runner.test.globs
    results = runner.summarize()
    assert results.attempted > 0
    assert results.failed == 0
