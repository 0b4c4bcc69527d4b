"""Samples from a benchmark's TSV file, to protect that benchmark in particular (paper, 5.4).

The prompts are those that evaluation uses. The file is read twice: first for the list of its rows, then for
the images of the drawn rows alone, because images make such files large.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from kore.data.benchmark_prompts import DEFAULT_FORM, PromptForm, task_of
from kore.data.benchmark_tsv import Row, read_rows
from kore.data.benchmarks import OWN_KINDS, kind_of, locate
from kore.data.records import Sample
from kore.errors import DataError

_SPARE = 32  # rows to read at least, so that broken ones do not each cost another pass over the file


def draw_bench(
    root: Path,
    name: str,
    count: int,
    seed: int,
    pictures: Path,
    on_skip: Callable[[str], None] | None = None,
    form: PromptForm = DEFAULT_FORM,
) -> list[Sample]:
    """Draw `count` rows of a benchmark as samples.

    Args:
        root: folder of the benchmark files.
        name: see `kore.data.benchmarks.locate`; a user's own file may end with its kind, as in
            ``FILE.tsv:vqa``.
        pictures: where the images are written.
        form: protocol and style of the prompts.

    Raises:
        MissingArtefact: no such file.
        DataError: not a TSV file with index, image and question.
    """
    stem, _, kind = name.rpartition(":") if name.rpartition(":")[2] in OWN_KINDS else (name, "", "")
    path, benchmark = locate(stem, root)
    as_pandas = benchmark is not None and not kind
    heads = {row.index: row for row in read_rows(path, images=False, pandas_empty=as_pandas)}
    kind = kind or (benchmark.kind if benchmark else kind_of(heads.values()))
    order = list(heads)
    random.Random(seed).shuffle(order)

    def skip(error: DataError) -> None:
        if on_skip is not None:
            on_skip(f"skipped: {error}")

    drawn: list[Sample] = []
    while order and len(drawn) < count:
        size = max(count - len(drawn), _SPARE)
        chosen, order = order[:size], order[size:]
        needed = {*chosen, *(heads[index].image_row for index in chosen)}
        rows, errors = _load(path, needed, as_pandas)
        for index in chosen:
            if len(drawn) == count:
                break
            where = heads[index].where
            try:
                if index not in rows:
                    raise errors.get(where, DataError("no image", where=where))
                drawn.append(_sample(path, rows[index], kind, form, pictures))
            except DataError as error:
                skip(error)
    return drawn


def _load(
    path: Path, needed: set[str], as_pandas: bool
) -> tuple[dict[str, Row], dict[str | None, DataError]]:
    """Rows by index, and the errors of broken ones by place."""
    errors: list[DataError] = []
    rows = read_rows(path, pandas_empty=as_pandas, only=needed, on_error=errors.append)
    return {row.index: row for row in rows}, {error.where: error for error in errors}


def _sample(path: Path, row: Row, kind: str, form: PromptForm, pictures: Path) -> Sample:
    task = task_of(row, kind, form)
    answers = row.accepted_answers if kind in ("mmdu", "ocrvqa", "vqa") else [row.get("answer")]
    turns, files = [], []
    for turn, answer in zip(task.turns, [*answers, *[""] * len(task.turns)], strict=False):
        for image in turn.images:
            if image.data is None:
                files.append(image.path)
                continue
            number = row.images.index(image.data)
            files.append(
                str(_write(image.data, pictures, f"{path.stem}-{row.image_row}-{number}", row.where))
            )
        turns.append({"from": "human", "value": turn.text})
        if not answer:
            break
        turns.append({"from": "gpt", "value": answer})
    value = {"id": f"{path.stem}/{row.index}", "image": files, "conversations": turns}
    return Sample.from_json(value, row.where)


def _write(data: bytes, pictures: Path, name: str, where: str) -> Path:
    from kore.io.images import open_image

    pictures.mkdir(parents=True, exist_ok=True)
    path = pictures / f"{name.replace('/', '_')}.img"
    path.write_bytes(data)  # also over another one: rows may change and keep their index
    open_image(path, where)
    return path
