"""The report of the curriculum in a browser."""

from __future__ import annotations

import json

import pytest

from tinygrad_rnn import experiments
from tinygrad_rnn.experiments.report import reproduce


def test_the_report_opens(opened, tmp_path):
    """Pictures are drawn, the JSON of a row unfolds, nothing is asked of anyone, and a narrow screen scrolls tables, not the page."""
    pytest.importorskip("matplotlib")
    (record, _) = reproduce(experiments.ROWS, [3, 16], out=tmp_path)
    with opened(tmp_path / "report.html", width=360) as (tab, seen):
        assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        tab.locator("details").first.locator("summary").click()
        tab.wait_for_function("document.querySelector('pre').textContent")  # a browser tells of an unfolded part a moment later
        shown = json.loads(tab.locator("pre").first.inner_text())
        assert shown["row"] == 3 and shown["settings"] == record.settings and shown["result"]["measured"] == record.result["measured"]
        assert seen.nothing_wrong()
