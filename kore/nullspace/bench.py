"""Samples from a benchmark's TSV file, to protect that benchmark in particular (paper, 5.4).

The file is read twice: first to see which rows there are, then for the drawn rows alone, because the
pictures inside make such files large.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from kore.data.records import IMAGE_MARK, Sample
from kore.errors import DataError, MissingArtefact

_REFERENCE = 64  # a shorter picture cell names the row that holds the picture
_FIELD_LIMIT = 1 << 30
_SPARE = 32  # rows at least that the file is read for: the next broken ones do not each cost another reading


def draw_bench(
    root: Path,
    name: str,
    count: int,
    seed: int,
    pictures: Path,
    on_skip: Callable[[str], None] | None = None,
) -> list[Sample]:
    """Draw `count` rows of ``NAME.tsv`` as samples.

    Args:
        root: folder of the benchmark files; `name` may also be a path to one.
        pictures: where the pictures are written.

    Raises:
        MissingArtefact: no such file.
        DataError: not a TSV file with index, image and question.
    """
    path = Path(name) if name.endswith(".tsv") else _file(root, name)
    if not path.is_file():
        raise MissingArtefact(
            f"no {path.name} in {path.parent}",
            hint=f"fetch it with: kore data fetch {path.stem}   (KORE_DATA points elsewhere)",
        )
    pointers = {row["index"]: _pointer(row) for row in _rows(path)}
    order = list(pointers)
    random.Random(seed).shuffle(order)
    found: list[Sample] = []
    while order and len(found) < count:
        size = max(count - len(found), _SPARE)
        some, order = order[:size], order[size:]
        needed = {*some, *(p for index in some if (p := pointers[index]))}
        rows = {row["index"]: row for row in _rows(path) if row["index"] in needed}
        for index in some:
            if len(found) == count:
                break
            holder = rows.get(pointers[index] or index)
            try:
                found.append(_sample(path, rows[index], holder, pictures))
            except DataError as error:
                if on_skip is not None:
                    on_skip(f"skipped: {error}")
    return found


def _file(root: Path, name: str) -> Path:
    """NAME.tsv, however its letters are written (MIA-Bench was published as Mia-Bench.tsv), or the first
    file of one of its splits: OCRVQA is OCRVQA_TESTCORE.tsv."""
    path = root / f"{name}.tsv"
    if path.is_file():
        return path
    same = [p for p in root.glob("*.tsv") if p.name.lower() == path.name.lower()]
    return min(same or root.glob(f"{name}_*.tsv"), default=path)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            missing = {"index", "image", "question"} - set(reader.fieldnames or [])
            if missing:
                raise DataError(f"no column {', '.join(sorted(missing))}", where=str(path))
            for row in reader:
                yield {k: v or "" for k, v in row.items() if k is not None and not isinstance(v, list)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a TSV file: {error}", where=str(path)) from error
    finally:
        csv.field_size_limit(limit)


def _pointer(row: dict[str, str]) -> str | None:
    cell = row["image"].strip()
    return cell if cell and len(cell) <= _REFERENCE and not cell.startswith("[") else None


def _sample(path: Path, row: dict[str, str], holder: dict[str, str] | None, pictures: Path) -> Sample:
    where = f"{path.name}[{row['index']}]"
    if holder is None or not holder["image"].strip():
        raise DataError("no picture", where=where)
    files = [
        _write(data, pictures, f"{path.stem}-{holder['index']}-{n}", where)
        for n, data in _pictures(holder, where)
    ]
    lines = [row["question"].strip()]
    if row.get("hint"):
        lines.insert(0, row["hint"].strip())
    lines += [f"{letter}. {row[letter]}" for letter in "ABCDEFGHIJ" if row.get(letter)]
    text = f"{IMAGE_MARK}\n" * len(files) + "\n".join(lines).replace(IMAGE_MARK, "")
    turns = [{"from": "human", "value": text}]
    if row.get("answer"):
        turns.append({"from": "gpt", "value": row["answer"]})
    value = {"id": f"{path.stem}/{row['index']}", "image": [str(f) for f in files], "conversations": turns}
    return Sample.from_json(value, where)


def _pictures(row: dict[str, str], where: str) -> Iterator[tuple[int, bytes]]:
    cell = row["image"].strip()
    try:
        cells = ast.literal_eval(cell) if cell.startswith("[") else [cell]
        for number, text in enumerate(cells):
            yield number, base64.b64decode(text, validate=False)
    except (ValueError, SyntaxError, TypeError, binascii.Error) as error:
        raise DataError("its picture is not base64", where=where) from error


def _write(data: bytes, pictures: Path, name: str, where: str) -> Path:
    from kore.io.images import open_image

    pictures.mkdir(parents=True, exist_ok=True)
    path = pictures / f"{name.replace('/', '_')}.img"
    path.write_bytes(data)  # also over another one: rows may change and keep their index
    open_image(path, where)
    return path
