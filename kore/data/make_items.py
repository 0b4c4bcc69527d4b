"""Items from tables, folders of images and Markdown files, with guessed columns and rejected rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kore.data.forms import IMAGE_KEYS, images_of
from kore.data.objects import read_objects
from kore.data.records import KnowledgeItem
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.images import check_image

Kind = Literal["entity", "news"]
Row = tuple[str, dict[str, Any]]  # file:line, and the cells by column

TITLE = ("title", "name", "product", "product_name", "headline", "item", "label", "entity")
TEXT = ("text", "description", "body", "content", "details", "article", "summary", "abstract", "caption")
IMAGE = (*IMAGE_KEYS, "photo", "picture", "img", "file_name", "filename", "file")
TYPE = ("type", "category", "class", "genus", "kind_of_thing")
ID = ("id", "sku", "uid", "key", "code", "number")
OTHER = ("date", "source", "url", "link", "facts", "kind")
TABLES = ("*.csv", "*.tsv", "*.xlsx", "*.parquet", "*.jsonl", "*.json")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LONGEST_FACT = 12  # words of a cell that counts as a fact
_MARKDOWN_IMAGE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)>\s]+)>?[^)]*\)")
_MARKDOWN_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


@dataclass(frozen=True)
class Columns:
    """Which column is what.

    Attributes:
        facts: columns whose cells are facts, by the fact's name.
    """

    title: str
    text: str | None = None
    image: str | None = None
    type: str | None = None
    id: str | None = None
    facts: tuple[str, ...] = ()

    def unused(self, names: Sequence[str]) -> list[str]:
        """Columns that are read into nothing."""
        used = {self.title, self.text, self.image, self.type, self.id, *self.facts}
        return [name for name in names if name not in used and name.lower() not in OTHER]


@dataclass
class MadeItems:
    """Items, and the rows that gave none with the reason."""

    columns: Columns
    unused: list[str]
    items: list[KnowledgeItem] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)


def make_items(
    source: Path,
    *,
    title: str | None = None,
    text: str | None = None,
    image: str | None = None,
    facts: Sequence[str] = (),
    kind: Kind = "entity",
    type_name: str = "",
    image_root: Path | None = None,
) -> MadeItems:
    """Turn a table, a folder of images or Markdown files into items.

    Args:
        source: CSV, TSV, XLSX, Parquet, JSON or JSON Lines; or a folder with one of these, with Markdown
            files, or with images that have a ``.txt`` of the same name.
        title, text, image: names of columns; guessed where they are not given.
        facts: columns that are facts; default: every further column with short cells.
        type_name: type of items whose row names none, e.g. lamp.
        image_root: where relative image paths start; default: the table's folder.

    Raises:
        DataError: nothing is read. UsageError: a named column is not there.
    """
    rows, root = _rows(source)
    if not rows:
        raise DataError("no row", where=str(source))
    names = list(dict.fromkeys(str(key) for _, cells in rows for key in cells))
    columns = _columns(names, rows, title, text, image, facts, str(source))
    made = MadeItems(columns, columns.unused(names))
    taken: dict[str, str] = {}
    for number, (where, cells) in enumerate(rows, 1):
        try:
            item = _item(cells, columns, number, kind, type_name, image_root or root)
            if item.id in taken:
                raise ValueError(f"the id {item.id!r} occurs twice, first at {taken[item.id]}")
            taken[item.id] = where
            made.items.append(item)
        except DataError as error:
            made.rejected.append((where, error.message))
        except ValueError as error:
            made.rejected.append((where, str(error)))
    return made


def _rows(source: Path) -> tuple[list[Row], Path]:
    """All rows, and the folder that their image paths start from."""
    if not source.exists():
        raise DataError("no such file or folder", where=str(source))
    if not source.is_dir():
        return list(
            _xlsx(source) if source.suffix.lower() == ".xlsx" else read_objects(source)
        ), source.parent
    tables = [path for pattern in TABLES for path in sorted(source.glob(pattern))]
    if len(tables) > 1:
        raise DataError(
            f"several tables: {', '.join(p.name for p in tables)}", where=str(source), hint="name one"
        )
    if tables:
        return _rows(tables[0])
    if pages := sorted(source.glob("*.md")):
        return [_markdown(page) for page in pages], source
    pictures = sorted(path for path in source.iterdir() if path.suffix.lower() in PICTURES)
    return [_picture(path) for path in pictures], source


def _xlsx(path: Path) -> Iterator[Row]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingArtefact(
            "reading XLSX needs openpyxl", hint="pip install 'kore-inject[data]'"
        ) from error
    try:
        sheet = load_workbook(path, read_only=True, data_only=True).active
    except Exception as error:  # openpyxl raises what zipfile and its parsers raise
        raise DataError(f"not an XLSX file: {error}", where=str(path)) from error
    rows = sheet.iter_rows(values_only=True) if sheet is not None else iter(())
    header = [str(cell) if cell is not None else "" for cell in next(rows, ())]
    for number, row in enumerate(rows, 2):
        cells = {name: cell for name, cell in zip(header, row, strict=False) if name and cell is not None}
        if cells:
            yield f"{path}:{number}", cells


def _markdown(page: Path) -> Row:
    """A page: its first heading, its text, its first image, and ``key: value`` lines of its front matter."""
    text = page.read_text(encoding="utf-8-sig", errors="replace")
    cells: dict[str, Any] = {}
    if text.startswith("---\n") and "\n---" in text[4:]:
        front, _, text = text[4:].partition("\n---")
        pairs = (line.partition(":") for line in front.splitlines())
        cells = {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
    if found := _MARKDOWN_IMAGE.search(text):
        cells["image"] = found[1]
    text = _MARKDOWN_LINK.sub(r"\1", _MARKDOWN_IMAGE.sub("", text))
    heading = re.search(r"^#+\s*(.+?)\s*#*$", text, re.MULTILINE)
    if heading:
        cells.setdefault("title", heading[1])
    body = (line for line in text.splitlines() if not re.match(r"\s*(?:#|---|\|)", line))
    cells["text"] = " ".join(re.sub(r"[*_`>]+", "", line).strip() for line in body if line.strip())
    return str(page), {"title": _spelled(page.stem), **cells}


def _picture(path: Path) -> Row:
    """An image with the text file of its name, if there is one."""
    beside = path.with_suffix(".txt")
    text = beside.read_text(encoding="utf-8-sig", errors="replace").strip() if beside.is_file() else ""
    return str(path), {"title": _spelled(path.stem), "image": path.name, **({"text": text} if text else {})}


def _spelled(stem: str) -> str:
    words = re.sub(r"[-_]+", " ", stem).strip()
    return words[:1].upper() + words[1:]


def _columns(
    names: list[str],
    rows: Sequence[Row],
    title: str | None,
    text: str | None,
    image: str | None,
    facts: Sequence[str],
    where: str,
) -> Columns:
    for name in (title, text, image, *facts):
        if name is not None and name not in names:
            raise UsageError(f"no column {name} in {where}", hint=f"it has: {', '.join(names)}")
    chosen_title = title or _guess(names, TITLE)
    if chosen_title is None:
        raise UsageError(
            f"no column for titles in {where}", hint=f"name one with --title: {', '.join(names)}"
        )
    left = [name for name in names if name != chosen_title]
    chosen = {
        "text": text or _guess(left, TEXT),
        "image": image or _guess(left, IMAGE),
        "type": _guess(left, TYPE),
        "id": _guess(left, ID),
    }
    rest = [name for name in left if name not in chosen.values() and name.lower() not in OTHER]
    short = [name for name in rest if all(len(str(c.get(name, "")).split()) <= LONGEST_FACT for _, c in rows)]
    return Columns(chosen_title, facts=tuple(facts) or tuple(short), **chosen)


def _guess(names: Sequence[str], known: Sequence[str]) -> str | None:
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(names)}
    return next((plain[word] for word in known if word in plain), None)


def _item(
    cells: dict[str, Any], columns: Columns, number: int, kind: Kind, type_name: str, root: Path
) -> KnowledgeItem:
    """One row as an item.

    Raises:
        ValueError: no title or nothing to tell. DataError: an image that is missing or broken.
    """
    title = _cell(cells, columns.title)
    if not title:
        raise ValueError(f"no {columns.title}")
    facts = {_fact(name): told for name in columns.facts if (told := _cell(cells, name))}
    text = _cell(cells, columns.text) or " ".join(
        f"The {key} of {title} is {value}." for key, value in facts.items()
    )
    if not text:
        raise ValueError("neither a text nor a fact")
    images = (
        images_of(cells[columns.image], columns.image) if columns.image and cells.get(columns.image) else []
    )
    paths = [str(root / path) for path in images]
    for path in paths:
        check_image(path)
    slug = re.sub(r"\W+", "-", title.lower()).strip("-") or "item"
    made: dict[str, Any] = {
        "id": _cell(cells, columns.id) or f"{slug}-{number}",
        "kind": kind,
        "type": _cell(cells, columns.type) or type_name or ("news" if kind == "news" else "item"),
        "title": title,
        "text": text,
        "facts": facts,
        "date": _cell(cells, "date"),
        "source": _cell(cells, "source") or _cell(cells, "url"),
    }
    if paths:
        made["image"] = paths[0] if len(paths) == 1 else paths
    return KnowledgeItem.from_json({key: kept for key, kept in made.items() if kept})


def _fact(column: str) -> str:
    """A column's name as it stands in a sentence."""
    words = column.replace("_", " ").strip()
    return words if words.isupper() else words.lower()


def _cell(cells: dict[str, Any], name: str | None) -> str | None:
    content = cells.get(name) if name else None
    return str(content).strip() or None if content is not None else None
