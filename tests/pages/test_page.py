"""The frame of the pages: what it escapes, and what a browser lets run in it."""

from __future__ import annotations

import pytest

from tinygrad_rnn.errors import RenderError
from tinygrad_rnn.render.page import page

HOSTILE = "\"><script>window.hit=1</script><img src=x onerror='window.hit=1'></title></script><!--\\N\n\0\ud800" + "a" * 10_000


def test_only_our_script_runs(opened, tmp_path):
    """A hostile title and hostile data stay text, and HTML that got into the body unescaped does not run: the policy stops it."""
    path = tmp_path / "page.html"
    script = "window.data=JSON.parse(document.getElementById('data').textContent);document.body.dataset.ran='yes'"
    made = page(
        title=HOSTILE,
        body="<main>text</main><div id=raw><img src='data:,x' onerror='window.hit=1'></div>",
        data={"name": HOSTILE},
        script=script,
    )
    path.write_text(made, encoding="utf-8")
    with opened(path) as (tab, seen):
        assert tab.evaluate("document.body.dataset.ran") == "yes"
        assert tab.evaluate("window.hit") is None
        assert tab.evaluate("window.data.name.length") == len(HOSTILE)
        assert any("Content Security Policy" in error for error in seen.errors)  # the planted handler was refused, aloud
        assert seen.requests == []


def test_a_page_without_errors_has_none(opened, tmp_path):
    """The frame itself is silent and asks for nothing; text and background swap in the dark."""
    path = tmp_path / "page.html"
    path.write_text(page(title="empty", body="<main>text</main>"), encoding="utf-8")
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(path) as (tab, seen):
        light = tab.evaluate(background)
        assert seen.nothing_wrong()
    with opened(path, dark=True) as (tab, seen):
        assert tab.evaluate(background) != light
        assert seen.nothing_wrong()


def test_requests_are_noticed(opened, tmp_path):
    """A page that asks for something is caught by the fixture: otherwise `no request` would say nothing."""
    path = tmp_path / "page.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'>", encoding="utf-8")
    with opened(path) as (_, seen):
        assert seen.requests == ["http://127.0.0.1:9/x.png"]


@pytest.mark.parametrize("wrong", [{"script": "'</SCRIPT>'"}, {"style": "a{}</style>"}, {"data": float("nan")}, {"data": object()}])
def test_what_cannot_be_written_safely_is_refused(wrong):
    """Text that would end its own element, and data that is not JSON, are errors."""
    with pytest.raises(RenderError, match=r"page: the (script|style|data)"):
        page(title="t", body="", **wrong)
