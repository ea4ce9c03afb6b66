"""What a notebook shows: HTML of Tensors, modules, traces and results, escaped and of bounded size; and the tour, which runs."""

from __future__ import annotations

import ast
import html
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>&\n\0' + "a" * 50
TOUR = Path(__file__).parent.parent / "examples" / "tour.ipynb"


class Read(HTMLParser):
    """Which elements there are, their cells, and whether all were closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.cells = [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") or name == "src" for name, _ in attrs)
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def read(thing):
    found = Read(thing._repr_html_())
    assert found.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "pre", "br"}
    return found.cells


class Model(nn.Module):
    """Two layers, and one module that is held in two places."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 3, num_layers=2, rng=0)
        self.head = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Linear(3, 1, rng=0))
        self.twin = self.head

    def forward(self, x):
        return self.head(self.lstm(x)[0][-1])


def test_a_tensor_shows_value_gradient_and_origin():
    """Name, dtype, shape, the numbers, and .grad once there is one."""
    x = tg.tensor([[1.0, 2.0]], requires_grad=True, name="x")
    assert read(x)[0] == "x: float64, shape (1, 2). a leaf with a gradient" and "[[1., 2.]]" in read(x) and "grad" not in read(x)
    y = np.tanh(x).sum()
    y.backward()
    shown = read(x)
    assert shown[shown.index("grad") + 1] == np.array2string(x.grad.value, separator=", ")
    assert read(y)[0] == "Tensor: float64, shape (). made by sum" and "without a gradient" in read(tg.tensor(1.0))[0]


def test_a_large_tensor_is_shortened():
    """A million entries, and an array of many axes, take a few thousand characters."""
    for shape in ((1000, 1000), (7,) * 6, (0, 3)):
        text = tg.tensor(np.ones(shape))._repr_html_()
        assert len(text) < 6000 and str(shape) in text
    assert "..." in tg.tensor(np.ones((1000, 1000)))._repr_html_()


def test_a_module_shows_its_parameters_once():
    """A row per module with its own parameters, depth first; the sum is that of parameters(), also where a module is held twice."""
    model = Model()
    cells = read(model)
    total = sum(parameter.size for parameter in model.parameters())
    assert cells[0].startswith(f"{total:,} numbers")
    rows = np.array(cells[5:]).reshape(-1, 4)
    assert list(rows[:, 0]) == ["", "lstm", "head", "head.0", "head.1"]
    assert sum(int(count.replace(",", "")) for count in rows[:, 3]) == total
    assert "weight_hh_l1 (12, 3)" in rows[1, 2] and rows[1, 1] == "LSTM(num_layers=2)"


def test_a_trace_shows_its_summary_and_first_rows():
    """How many multiplications of which kind, and the first ten with their symbols and gains."""
    ledger = tg.trace(Model()(np.ones((4, 1, 2))).sum())
    text = ledger._repr_html_()
    assert text.count("<table>") == 2 and f"{len(ledger)} backward multiplications" in text
    Read(text)
    for step in ledger.steps[:10]:
        assert html.escape(step.label) in text and html.escape(step.operand.symbol) in text
    assert len(tg.trace(nn.LSTM(2, 3, rng=0)(np.ones((300, 1, 2)))[0][-1].sum())._repr_html_()) < 8000


def test_texts_from_outside_are_escaped():
    """A hostile name stays text in every kind of table."""
    x = tg.tensor(np.ones(3), requires_grad=True, name=HOSTILE)
    with tg.scope(HOSTILE):
        loss = (x * np.tanh(x)).sum()
    module = nn.Module()
    setattr(module, HOSTILE, nn.Linear(2, 1, rng=0))
    for thing in (x, module, tg.trace(loss), flow.compare(loss), flow.split_paths(loss, x, lambda step: step.kind == "scale")):
        text = thing._repr_html_()
        assert "<script" not in text and "<img" not in text and "&lt;script&gt;" in text
        text.encode()


@pytest.mark.parametrize("surrogate", ["\ud800"])
def test_what_is_no_unicode_is_replaced(surrogate):
    """A lone surrogate in a name can be written to a notebook's file."""
    tg.tensor(1.0, name=surrogate)._repr_html_().encode()


# -- the tour ---------------------------------------------------------------------------------------------------------------------


def cells():
    return json.loads(TOUR.read_text(encoding="utf-8"))["cells"]


def test_the_tour_is_a_clean_notebook():
    """Its format is that of Jupyter; outputs are cleared, cells are numbered by their id, and the first one says what it is about."""
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["cells"][0]["cell_type"] == "markdown" and "".join(notebook["cells"][0]["source"]).startswith("# ")
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.fixture(scope="module")
def shown():
    """The tour run as a notebook runs it: cell by cell in one namespace, each cell's last expression shown."""
    pytest.importorskip("matplotlib", reason="pip install matplotlib to run the tour")
    names, found = {"__name__": "__main__"}, []
    for cell in cells():
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"<{cell['id']}>", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), f"<{cell['id']}>", "eval"), names)
        found.append((cell["id"], value))
    return dict(found)


def test_the_tour_runs_and_shows_something_in_every_part(shown):
    """Each cell's last value has a picture, HTML or text; cells that end in an assertion end in None."""
    kinds = set()
    for name, value in shown.items():
        if value is None:
            continue
        ways = [way for way in ("_repr_png_", "_repr_html_", "_repr_mimebundle_", "_repr_latex_", "_repr_svg_") if hasattr(value, way)]
        kinds.update(ways[:1])
        for way in ways[:1]:
            assert getattr(value, way)(), name
        assert ways or repr(value)
    assert {"_repr_png_", "_repr_html_", "_repr_mimebundle_"} <= kinds


def test_the_tour_in_jupyter(tmp_path):
    """The same with a real kernel, where nbclient and ipykernel are installed: no cell fails."""
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel to run the tour in a kernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel to run the tour in a kernel")
    assert nbclient
    program = (
        "import nbclient, nbformat, sys\n"
        "book = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(book, timeout=120).execute()\n"
        "shown = [out for cell in book.cells if cell.cell_type == 'code' for out in cell.outputs]\n"
        "assert not [out for out in shown if out.output_type in ('error',) or out.get('name') == 'stderr'], shown\n"
        "kinds = {kind for out in shown if 'data' in out for kind in out['data']}\n"
        "assert {'image/png', 'text/html', 'image/svg+xml'} <= kinds, kinds\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TOUR.parent.parent), "JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program, str(TOUR)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
