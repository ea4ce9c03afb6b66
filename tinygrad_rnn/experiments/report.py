"""Reproduce the curriculum: run rows, keep each on file, and write one HTML page with every number and picture."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, MissingError
from ..files import write_atomically
from ..render.charts import Chart, to_svg
from ..render.page import page
from ..report import Table, plain
from .measurement import Claim, Row
from .records import Record, measured, read, read_all

REPORT = "report.html"


def reproduce(
    table: Mapping[int, Row],
    rows: Collection[int] = (),
    *,
    full: bool = False,
    out: str | os.PathLike[str],
    results: Iterable[str | os.PathLike[str]] = (),
    told: Callable[[Record], None] | None = None,
) -> list[Record]:
    """Run rows, or take them from files; write ``row-NN.json`` for each as it ends, and in the end ``report.html`` with all of them.

    A row that fails is reported as failed, and the others go on. With ``full``, a row that ``out`` holds already with these full
    settings and this version of the package is not run again, and a sweep inside a row goes on where it was interrupted: what was
    stopped resumes.

    Args:
        table: all rows, such as ``experiments.ROWS``.
        rows: the numbers of those to run, all by default.
        full: full settings, or quick ones, which take minutes for all rows together.
        out: the folder to write to, made if it is missing.
        results: files or folders of records that were made before; a row found there is not run, unless it is quick and ``full`` is
            asked for.
        told: called with each record as it is there.

    Raises:
        ArgumentError: for a row that does not exist.
        StorageError: if one of ``results`` is something else.
        OSError: if ``out`` cannot be written to.

    Example:
        >>> import tempfile
        >>> from tinygrad_rnn import experiments
        >>> from tinygrad_rnn.experiments.report import reproduce
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (record,) = reproduce(experiments.ROWS, [16], out=folder)
        >>> record.verdict, record.counts
        ('agrees', '3 × agrees')
    """
    asked = sorted(set(rows) or table)
    if unknown := [row for row in asked if row not in table]:
        raise ArgumentError(f"reproduce: there is no row {unknown[0]}; expected some of {', '.join(map(str, table))}")
    held, folder, records = read_all(results), Path(out), []
    folder.mkdir(parents=True, exist_ok=True)
    for row in asked:
        file = folder / f"row-{row:02}.json"
        record = held.get(row)
        if record is None or (full and not record.full):
            record = _finished(file, table[row]) if full else None
        if record is None:
            record = measured(table[row], full=full, path=file.with_suffix(".jsonl") if full else None)
        write_atomically(file, record.to_json())
        records.append(record)
        if told is not None:
            told(record)
    write_atomically(folder / REPORT, to_html(records))
    return records


def _finished(file: Path, row: Row) -> Record | None:
    """The record of a full run that is on file already, if it was made with the same settings and the same version."""
    if not file.exists():
        return None
    record = read(file)
    full = plain({name: value for name, value in row.full.items() if name in record.settings})
    same = all(record.settings[name] == value for name, value in full.items())
    return record if record.full and not record.error and same and record.is_current else None


# -- the page -------------------------------------------------------------------------------------------------------------------

_STYLE = """
main{max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem;border-top:1px solid var(--frame);padding-top:1rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--frame)}
img{max-width:100%;background:#fff;display:block;margin:.6rem 0}
.agrees{color:#007a59}.differs{color:var(--matmul)}.other{color:var(--muted)}
.agrees,.differs,.other{font-weight:600}.agrees,.differs,.other,.time{white-space:nowrap}
@media (prefers-color-scheme:dark){.agrees{color:#20c997}}
a{color:var(--scale)}
pre{overflow:auto;max-height:24rem;font-size:.8rem;background:var(--step);padding:.6rem}
.note{color:var(--muted)}
"""

_SCRIPT = """
const records = JSON.parse(document.getElementById("data").textContent);
for (const part of document.querySelectorAll("details[data-place]"))
  part.addEventListener("toggle", () => {
    const shown = part.querySelector("pre");
    if (part.open && !shown.textContent) shown.textContent = JSON.stringify(records[part.dataset.place], null, 1);
  });
"""


def to_html(records: Iterable[Record]) -> str:
    """One page, which needs nothing but itself: an overview, and for each record its claims, numbers, pictures and JSON.

    Pictures need Matplotlib (extra "plot"); without it the page says so in their place.
    """
    held = list(records)
    body = "\n".join(
        (
            "<main>",
            "<h1>The curriculum, measured</h1>",
            "<p>Every claim beside what this machine measured. <b>agrees</b>: the measured number meets the rule that stands beside it; "
            "<b>differs</b>: it does not; <b>not reproduced</b>: this run cannot tell, because it was too short, nothing was learned, or "
            "what was measured is compatible with both. A row agrees if all of its claims do, and differs if one of them does. In brackets "
            "stand 95 % confidence intervals: Wilson's of a rate of success, Student's of a mean over the seeds.</p>",
            _overview(held),
            *(_section(place, record) for place, record in enumerate(held)),
            "</main>",
        )
    )
    return page(title="The curriculum, measured", body=body, data=[plain(record) for record in held], script=_SCRIPT, style=_STYLE)


def _overview(records: list[Record]) -> str:
    rows = [
        (
            f'<a href="#row-{record.row}">{record.row}</a>',
            html.escape(record.title),
            _verdict(record.verdict),
            html.escape(record.counts),
            "full" if record.full else "quick",
            f'<span class="time">{record.seconds:.1f} s</span>',
        )
        for record in records
    ]
    seconds = sum(record.seconds for record in records)
    total = f"{len(records)} rows in {seconds:.0f} seconds" + (f" ({seconds / 60:.0f} minutes)" if seconds > 180 else "")
    return _table(("row", "claim", "verdict", "claims", "setting", "time"), rows, total)


def _section(place: int, record: Record) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in (record.versions | record.machine).items())
    when = f"{record.date}, {record.seconds:.1f} s, {'full' if record.full else 'quick'} setting; {machine}"
    parts = [f'<h2 id="row-{record.row}">{record.row}. {html.escape(record.title)} {_verdict(record.verdict)}</h2>']
    if record.error:
        parts.append(f"<p>The row failed: {html.escape(record.error)}</p>")
    else:
        rows = [_claim(claim) for claim in record.claims]
        parts.append(_table(("claim", "published", "measured", "verdict", "rule", "source"), rows))
        parts.append(_picture(record.charts))
        if record.table is not None:
            parts.append(_plain_table(record.table))
    settings = ", ".join(f"{name} = {value}" for name, value in record.settings.items())
    parts.append(f'<p class="note">{html.escape(settings or "no settings")}<br>{html.escape(when)}</p>')
    parts.append(f'<details data-place="{place}"><summary>JSON</summary><pre></pre></details>')
    return "\n".join(parts)


def _claim(claim: Claim) -> tuple[str, ...]:
    texts = [html.escape(text) for text in (claim.what, claim.published, claim.measured, claim.rule, claim.source)]
    return (*texts[:3], _verdict(claim.verdict), *texts[3:])


def _verdict(verdict: str) -> str:
    kind = verdict if verdict in ("agrees", "differs") else "other"
    return f'<span class="{kind}">{html.escape(verdict)}</span>'


def _plain_table(table: Table) -> str:
    rows = [[html.escape(cell) for cell in row] for row in table.rows]
    title = f"{table.title}. {table.caption}" if table.caption else table.title
    return _table([html.escape(column) for column in table.columns], rows, html.escape(title))


def _table(columns: Collection[str], rows: Collection[Collection[str]], caption: str = "") -> str:
    """An HTML table of cells that are HTML already."""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    named = f'<p class="note">{caption}</p>' if caption else ""
    return f'{named}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _picture(charts: tuple[Chart, ...]) -> str:
    if not charts:
        return ""
    try:
        svg: Any = to_svg(charts)
    except MissingError as error:
        return f'<p class="note">{html.escape(str(error))}</p>'
    encoded = base64.b64encode(svg.encode()).decode()
    text = html.escape("; ".join(f"{chart.title}: {chart.y} by {chart.x}" for chart in charts))
    return f'<img alt="{text}" src="data:image/svg+xml;base64,{encoded}">'
