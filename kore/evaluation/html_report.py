"""The report as one HTML file: tables, and the samples that flipped against the base, with images."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import KoreError
from kore.evaluation.flips import Flip, flips
from kore.evaluation.report import SUITE_COLUMNS, suite_rows, table_columns, table_notes, table_rows
from kore.evaluation.runner import BASE, open_task_image
from kore.io.files import atomic_write

if TYPE_CHECKING:
    from kore.data.task import Task
    from kore.evaluation.runner import Result
    from kore.evaluation.types import Suite

_SHOWN = 30  # flipped samples per suite and direction
_WIDTH = 200
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #8884 }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.flip { display: flex; gap: 1rem; padding: .7rem 0; border-bottom: 1px solid #8884 }
.flip img { max-width: 200px; align-self: flex-start }
.flip p { margin: .15rem 0; white-space: pre-wrap; overflow-wrap: anywhere }
.was { opacity: .75 }
"""


@dataclass(frozen=True)
class _Shown:
    flip: Flip
    task: Task | None


def write_page(
    value: Mapping[str, Any], results: Mapping[str, Result], suites: Sequence[Suite], path: Path
) -> None:
    """Write the report; it needs no other file and no network."""
    with atomic_write(path) as stream:
        stream.write("<!doctype html><html lang='en'><meta charset='utf-8'><title>KORE evaluation</title>")
        stream.write(f"<style>{_STYLE}</style><body><h1>Evaluation</h1>")
        stream.write(_table(table_rows(value), table_columns(value)))
        stream.write("<p>K.R is the plain mean over the suites counted.</p>")
        for note in table_notes(value):
            stream.write(f"<p>{html.escape(note)}</p>")
        stream.write("<h2>Suites</h2>")
        stream.write(_table(suite_rows(value), SUITE_COLUMNS))
        for piece in _flip_parts(results, suites):
            stream.write(piece)
        stream.write("</body></html>\n")


def _flip_parts(results: Mapping[str, Result], suites: Sequence[Suite]) -> Iterator[str]:
    base = results.get(BASE)
    if base is None:
        return
    for label, result in results.items():
        for suite in suites:
            if label == BASE or suite.name not in result.scored or suite.name not in base.scored:
                continue
            flipped = flips(base.scored[suite.name].samples, result.scored[suite.name].samples)
            ids = {f.id for f in flipped}
            tasks = {t.id: t for t in suite.tasks() if t.id in ids}
            for word, gained in (("forgotten", False), ("learned", True)):
                chosen = [f for f in flipped if f.gained is gained]
                if not chosen:
                    continue
                more = f", {_SHOWN} shown" if len(chosen) > _SHOWN else ""
                title = html.escape(f"{suite.name}: {len(chosen)} {word} by {label}{more}")
                yield f"<h2>{title}</h2>"
                yield from (_flip(_Shown(f, tasks.get(f.id))) for f in chosen[:_SHOWN])


def _flip(shown: _Shown) -> str:
    flip = shown.flip
    images = "".join(_images(shown.task)) if shown.task else ""
    lines = (
        ("", f"<b>{html.escape(flip.id)}</b> {html.escape(flip.question)}"),
        ("", f"answer: {html.escape(flip.answer)}"),
        ("was", f"before: {html.escape(flip.before or '(none)')}"),
        ("", f"after: {html.escape(flip.after or '(none)')}"),
        ("was", html.escape(flip.why)),
    )
    text = "".join(f"<p class='{kind}'>{line}</p>" for kind, line in lines)
    return f"<div class='flip'><div>{images}</div><div>{text}</div></div>"


def _images(task: Task) -> Iterator[str]:
    from kore.io.images import open_image  # scoring stays free of Pillow

    for named in [image for turn in task.turns for image in turn.images][:4]:
        try:
            image = open_image(open_task_image(named, task.id))
        except KoreError:
            yield "<p>(image cannot be shown)</p>"
            continue
        image.thumbnail((_WIDTH, _WIDTH))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80)
        yield f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}'>"


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join(f"<tr>{''.join(_cell(row.get(c)) for c in columns)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"<td class='n'>{value:.2f}</td>"
    kind = " class='n'" if isinstance(value, int) else ""
    return f"<td{kind}>{'-' if value is None else html.escape(str(value))}</td>"
