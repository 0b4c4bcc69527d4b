"""kore items: tables, Markdown files and folders of images become items that kore inject takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kore.data.make_items import make_items
from kore.data.read import read_records
from kore.data.records import KnowledgeItem
from kore.errors import DataError, UsageError
from tests.cli.command import kore

TABLE = """Name,Description,Price,Colour,Photo,Notes
Alpha Lamp,The Alpha Lamp is a desk lamp made of brass.,49 EUR,brass,lamp.png,x
Beta Chair,The Beta Chair folds.,89 EUR,green,gone.png,y
Gamma,,12 EUR,,,
,orphan,,,,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (200, 90, 9)).save(tmp_path / "lamp.png")
    (tmp_path / "products.csv").write_text(TABLE)
    return tmp_path


def test_a_table_becomes_items_and_every_rejected_row_keeps_its_reason(folder: Path) -> None:
    done = kore(
        "items", "products.csv", "--fact", "Price", "--fact", "Colour", "--type", "product", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["items"] == 2
    assert "columns: title = Name, text = Description, image = Photo; facts: Price, Colour" in done.stderr
    assert "not used: Notes" in done.stderr
    assert "products.csv:3: no such picture" in done.stderr and "products.csv:5: no Name" in done.stderr
    first, second = read_records(KnowledgeItem, folder / "items.jsonl")
    assert first.images == [str(folder / "lamp.png")] and first.type == "product"
    assert first.facts == {"price": "49 EUR", "colour": "brass"}
    assert second.text == "The price of Gamma is 12 EUR."
    again = kore("items", "products.csv", cwd=folder)
    assert again.returncode == 2 and "items.jsonl exists" in again.stderr
    done = kore("inject", "items.jsonl", "--dry-run", cwd=folder)
    assert done.returncode == 0 and json.loads(done.stdout)["items"] == 2, done.stderr


def test_a_column_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with pytest.raises(UsageError, match="no column Title in") as caught:
        make_items(folder / "products.csv", title="Title")
    assert caught.value.hint == "it has: Name, Description, Price, Colour, Photo, Notes"
    (folder / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no column for titles"):
        make_items(folder / "odd.csv")
    with pytest.raises(DataError, match="no such file or folder"):
        make_items(folder / "none")


def test_markdown_files_bring_heading_text_first_image_and_front_matter(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    page = (
        "---\nmayor: Dana Ruske\n---\n# Quillharbor\n\n![view](a.png)\nA *town* on the [Serin](x.md) coast.\n"
    )
    (tmp_path / "quill.md").write_text(page)
    (tmp_path / "low-mere.md").write_text("A village.\n")
    village, town = make_items(tmp_path, type_name="place").items
    assert (town.title, town.text, town.facts) == (
        "Quillharbor",
        "A town on the Serin coast.",
        {"mayor": "Dana Ruske"},
    )
    assert town.images == [str(tmp_path / "a.png")] and village.title == "Low mere"


def test_a_folder_of_images_takes_texts_of_the_same_name(tmp_path: Path) -> None:
    for name in ("red-barn", "old_mill"):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "red-barn.txt").write_text("A barn in Lowmere.")
    made = make_items(tmp_path)
    assert [(item.title, item.text) for item in made.items] == [("Red barn", "A barn in Lowmere.")]
    assert made.rejected == [(str(tmp_path / "old_mill.jpg"), "neither a text nor a fact")]


def test_spreadsheets_and_parquet_are_read_like_tables(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"title": "Alpha", "text": "A lamp.", "watts": 7},
        {"title": "Beta", "text": "A chair.", "watts": None},
    ]
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(tmp_path / "a.xlsx")
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.xlsx", "a.parquet"):
        alpha, beta = make_items(tmp_path / name).items
        assert alpha.facts == {"watts": "7"} and beta.facts == {}
    with pytest.raises(DataError, match=r"several tables: a\.xlsx, a\.parquet"):
        make_items(tmp_path)
