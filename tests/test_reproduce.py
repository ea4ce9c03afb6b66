"""``reproduce``: rows measured beside what was published, kept on file, resumed, and shown in one page."""

import json
import re
import sys
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn import errors, experiments
from tinygrad_rnn.cli import main
from tinygrad_rnn.experiments.measurement import Measurement, Row, close, experiment, holds
from tinygrad_rnn.experiments.records import Record, measured, read, read_all
from tinygrad_rnn.experiments.report import reproduce, to_html
from tinygrad_rnn.render.charts import Chart, series
from tinygrad_rnn.report import aligned

HOSTILE = '"><script>alert(1)</script>&'
CALLS: list[dict[str, Any]] = []


@dataclass(frozen=True, eq=False)
class Number(Measurement):
    """A number that was measured."""

    value: Any
    published: float

    def table(self):
        return aligned((f"value {HOSTILE}",), [(HOSTILE,)], HOSTILE, HOSTILE)

    def claims(self):
        return close(HOSTILE, self.published, self.value), holds("a", "b", "c", None if self.value > 9 else True, "rule")

    def charts(self):
        return (Chart("lines", HOSTILE, "$x", "y", (series(HOSTILE, [1, 2], [self.value, np.nan]),)),)


@experiment
def steady(value=2.0, *, published=2.0, seed=7):
    """A row."""
    CALLS.append({"value": value, "seed": seed})
    if value < 0:
        raise errors.ArgumentError(f"steady: {value} {HOSTILE}")
    if value == 666:
        raise KeyboardInterrupt
    return Number(value=value, published=published)


@experiment
def swept(value=2.0, *, path=None):
    """A row that is a sweep."""
    CALLS.append({"path": path})
    return Number(value=value, published=2.0)


@pytest.fixture
def calls():
    """What was called so far in this test."""
    CALLS.clear()
    return CALLS


def table(**full):
    """Three rows: one that can be changed, one that always fails, and a sweep."""

    def broken():
        raise ZeroDivisionError("no such thing")

    return {1: Row(1, "one", steady, full), 2: Row(2, HOSTILE, broken), 3: Row(3, "three", swept, {"value": 3.0})}


def test_a_failed_row_does_not_stop_the_others(tmp_path, calls):
    """Each row is written as it ends, the failed one with its reason; the page holds all of them."""
    told = []
    records = reproduce(table(), out=tmp_path / "new" / "folder", told=told.append)
    assert told == records and [record.verdict for record in records] == ["agrees", "failed", "agrees"]
    assert records[1].error == "ZeroDivisionError: no such thing" and records[1].counts == "failed" and not records[1].claims
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {"row-01.json", "row-02.json", "row-03.json", "report.html"}
    for record in records:
        again = read(folder / f"row-{record.row:02}.json")
        assert again.to_json() == record.to_json() and again.shown() == record.shown()


def test_a_record_says_how_it_was_made(tmp_path, calls):
    """Settings with the seed, time, versions and the kind of machine, and no path of it; every number of the result."""
    record = measured(table()[3], full=True, path=tmp_path / "row-03.jsonl")
    held = json.loads(record.to_json())
    assert held["settings"] == {"value": 3.0} and held["full"] is True and held["seconds"] >= 0
    assert held["result"] == {"value": 3.0, "published": 2.0}
    assert set(held["versions"]) == {"tinygrad_rnn", "numpy", "python"} and set(held["machine"]) == {"system", "processor", "processors"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", held["date"])
    assert str(tmp_path) not in record.to_json() and calls == [{"path": tmp_path / "row-03.jsonl"}]
    assert measured(table()[1]).settings == {"value": 2.0, "published": 2.0, "seed": 7}


def test_a_row_that_went_on_says_what_all_of_it_took(tmp_path, calls):
    """The time of a sweep that was interrupted is that of its cells on file and of the call that finished it."""
    path = tmp_path / "row-03.jsonl"
    cells = [{"function": "f", "settings": {"k": k}, "value": 1, "seconds": 1000.0 + k} for k in (1, 2)]
    path.write_text("".join(json.dumps(cell) + "\n" for cell in cells), encoding="utf-8")
    assert 2003 <= measured(table()[3], full=True, path=path).seconds < 2063
    assert measured(table()[3], full=True, path=tmp_path / "none.jsonl").seconds < 60
    path.write_text("no cell\n", encoding="utf-8")
    assert "is no cell of a sweep" in measured(table()[3], full=True, path=path).error


def test_full_rows_are_taken_up_again(tmp_path, calls):
    """A second call with full settings runs nothing that is there; quick rows are measured each time; sweeps get a file of their own."""
    rows = table(value=2.01)
    del rows[2]
    first = reproduce(rows, full=True, out=tmp_path)
    assert calls == [{"value": 2.01, "seed": 7}, {"path": tmp_path / "row-03.jsonl"}]
    assert [r.to_json() for r in reproduce(rows, full=True, out=tmp_path)] == [r.to_json() for r in first] and len(calls) == 2
    reproduce(rows, out=tmp_path)
    reproduce(rows, out=tmp_path)
    assert calls[2:] == [{"value": 2.0, "seed": 7}, {"path": None}] * 2


@pytest.mark.parametrize("change", ["settings", "version", "failed", "quick"])
def test_what_was_made_otherwise_is_made_again(tmp_path, calls, change):
    """Other full settings, another version, a failure, or a quick run: none of them stands for a full one."""
    rows = {1: table(value=2.0)[1]}
    (record,) = reproduce(rows, full=True, out=tmp_path)
    changed = {
        "settings": record,
        "version": replace(record, versions={**record.versions, "numpy": "0.1"}),
        "failed": replace(record, error="power cut"),
        "quick": replace(record, full=False),
    }[change]
    (tmp_path / "row-01.json").write_text(changed.to_json(), encoding="utf-8")
    if change == "settings":
        rows = {1: table(value=2.5)[1]}
    reproduce(rows, full=True, out=tmp_path)
    assert len(calls) == 2


def test_an_interruption_loses_no_finished_row(tmp_path, calls):
    """Ctrl-C passes on; what was finished is on file, and the next call begins where it stopped."""
    rows = {1: Row(1, "one", steady, {"value": 1.0}), 2: Row(2, "two", steady, {"value": 666.0})}
    with pytest.raises(KeyboardInterrupt):
        reproduce(rows, full=True, out=tmp_path)
    rows[2] = Row(2, "two", steady, {"value": 3.0})
    reproduce(rows, full=True, out=tmp_path)
    assert [call["value"] for call in calls] == [1.0, 666.0, 3.0]


def test_results_of_another_run_are_taken_in(tmp_path, calls):
    """From files or folders; a full one counts more than a quick one, and a quick one does not stand for a full one."""
    rows = {1: table(value=2.01)[1]}
    reproduce(rows, out=tmp_path / "quick")
    reproduce(rows, full=True, out=tmp_path / "full")
    places = [tmp_path / "full" / "row-01.json", tmp_path / "quick"]
    assert read_all(places)[1].full and read_all(reversed(places))[1].full
    (found,) = reproduce(rows, out=tmp_path / "new", results=places)
    assert found.full and found.settings["value"] == 2.01 and len(calls) == 2
    assert read(tmp_path / "new" / "row-01.json").to_json() == found.to_json()
    (found,) = reproduce(rows, full=True, out=tmp_path / "again", results=[tmp_path / "quick"])
    assert found.full and len(calls) == 3


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"format": "something else"}', '{"format": "tinygrad_rnn row 1"}', "\x00", "[" * 100_000]
)
def test_other_files_are_refused(tmp_path, text):
    """What is no record is named, and nothing is run."""
    path = tmp_path / "row-01.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(errors.StorageError, match="does not hold a row"):
        reproduce(table(), [1], out=tmp_path / "out", results=[path])
    assert not (tmp_path / "out").exists()


@given(data=st.data())
def test_a_damaged_record_is_refused_or_shown(data):
    """With any one part of a record replaced by anything, it is a StorageError, or a record that can be printed and put on the page."""
    held = json.loads(measured(table()[1]).to_json())
    place, junk = (
        held,
        data.draw(
            st.none()
            | st.booleans()
            | st.integers(-9, 9)
            | st.text(st.characters(max_codepoint=255), max_size=5)
            | st.lists(st.integers(), max_size=2)
        ),
    )
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
        else:
            place[key] = junk
            break
    try:
        record = Record.from_json(json.dumps(held), "it")
    except errors.StorageError:
        return
    assert str(record.shown()) and Page(to_html([record])).tags


def test_missing_results_are_errors(tmp_path):
    """A file that is not there, a folder without rows, a row that does not exist."""
    with pytest.raises(errors.StorageError, match="cannot be read"):
        read_all([tmp_path / "none.json"])
    with pytest.raises(errors.StorageError, match=r"holds no row-\*\.json"):
        read_all([tmp_path])
    with pytest.raises(errors.ArgumentError, match="no row 9; expected some of 1, 2, 3"):
        reproduce(table(), [9], out=tmp_path)


# -- the page -------------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags that are opened and closed in order, and what they hold."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def test_the_page_needs_nothing_else(tmp_path, calls):
    """One file: a policy, no link to anywhere, pictures inside; texts of any kind are texts; the data is every record."""
    pytest.importorskip("matplotlib")
    records = reproduce(table(), out=tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    assert all(attrs["src"].startswith("data:image/svg+xml;base64,") for attrs in page.all("img")) and len(page.all("img")) == 2
    assert all(attrs["href"].startswith(("#", "data:")) for attrs in page.all("a") + page.all("link"))
    assert "alert(1)</script>" not in text and len(page.all("script")) == 2
    assert any(HOSTILE in data for data in page.text["td"]) and any("no such thing" in data for data in page.text["p"])
    assert [held["row"] for held in json.loads(page.text["script"][0])] == [1, 2, 3]
    assert {attrs["id"] for attrs in page.all("h2")} == {"row-1", "row-2", "row-3"}
    assert to_html(records) == text


def test_without_matplotlib_the_page_says_so(tmp_path, calls, monkeypatch):
    """Numbers and tables are there; in the place of each picture stands what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "tinygrad_rnn.render.figure", raising=False)
    text = to_html(reproduce(table(), [1], out=tmp_path))
    assert "<img" not in text and "pip install &quot;tinygrad_rnn[plot]&quot;" in text


def test_a_record_of_claims_alone_is_shown(tmp_path, calls):
    """A row without numbers and pictures has its claims on the page, and nothing empty beside them."""
    pytest.importorskip("matplotlib", reason="pip install matplotlib to draw the charts")
    record = reproduce(table(), [1], out=tmp_path)[0]
    for shown in (record, replace(record, table=None, charts=())):
        read_back = Record.from_json(shown.to_json(), "a record")
        page = to_html([read_back])
        tables, pictures = page.count("<table>"), page.count("<img")
        assert (tables, pictures) == ((3, 1) if shown is record else (2, 0))


# -- the command ----------------------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes(tmp_path, capsys):
    """Real rows: published beside measured, the verdicts counted, and the files."""
    assert main(["reproduce", "3", "16", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "16  parameters of LSTM and GRU: 3 × agrees (quick",
        "1,574,912",
        "h = ±0.99",
        "2 rows: 2 agrees",
        "Wrote report.html",
    ):
        assert expected in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"row-03.json", "row-16.json", "report.html"}
    assert main(["reproduce", "3", "--out", str(tmp_path / "two"), "--results", str(tmp_path / "out")]) == 0
    assert (tmp_path / "two" / "row-03.json").read_bytes() == (tmp_path / "out" / "row-03.json").read_bytes()


def test_the_command_in_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    """Where a table does not fit, each claim is a line."""
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["reproduce", "16", "--out", str(tmp_path)]) == 0
    assert "  agrees: LSTM. Published: 1,574,912; measured: 1,574,912" in capsys.readouterr().out


def test_the_command_says_what_failed(tmp_path, capsys, monkeypatch):
    """The other rows are written, and the exit code is 2; a row that does not exist is refused before anything runs."""
    monkeypatch.setitem(experiments.ROWS, 3, Row(3, "broken", table()[2].function))
    assert main(["reproduce", "3", "16", "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "2 rows: 1 agrees, 1 failed" in out and (tmp_path / "row-16.json").exists()
    assert err == "tinygrad-rnn reproduce: error: row 3 failed; the reason is printed above and in report.html\n"
    with pytest.raises(SystemExit):
        main(["reproduce", "99"])
    assert "there is no row '99'" in capsys.readouterr().err


def test_every_record_is_read_back(tmp_path, calls):
    """Infinities, NaN and categories survive the file."""
    record = replace(measured(table()[1]), charts=(Chart("bars", "t", "", "y", (series("a", ["p", "q"], [np.inf, -np.inf]),)),))
    again = Record.from_json(record.to_json(), "it")
    assert again.charts == record.charts and again.claims == record.claims and again.table == record.table
