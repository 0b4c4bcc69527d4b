"""The kore items command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kore_cli import options
from kore_cli.options import data_option

SHOWN = 8  # rows of the preview


def items(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A table (CSV, TSV, XLSX, Parquet, JSON), or a folder of Markdown files or images.",
        ),
    ],
    out: Annotated[Path, data_option("--out", "-o", metavar="FILE", help="Where to write the items.")] = Path(
        "items.jsonl"
    ),
    title: Annotated[
        str | None, data_option("--title", metavar="COLUMN", help="Column of the names.")
    ] = None,
    text: Annotated[str | None, data_option("--text", metavar="COLUMN", help="Column of the texts.")] = None,
    image: Annotated[
        str | None, data_option("--image", metavar="COLUMN", help="Column of the image paths.")
    ] = None,
    fact: Annotated[
        list[str] | None,
        data_option("--fact", metavar="COLUMN", help="A fact; repeatable. Default: all short columns."),
    ] = None,
    kind: Annotated[
        Literal["entity", "news"], data_option("--kind", metavar="KIND", help="entity or news.")
    ] = "entity",
    type_: Annotated[
        str, data_option("--type", metavar="NAME", help="Type of rows that name none, e.g. lamp.")
    ] = "",
    image_root: Annotated[
        Path | None,
        data_option("--image-root", metavar="DIR", help="Folder that relative image paths start from."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output file.")] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a table, or a folder of images or Markdown files, into items for kore inject.

    Columns that are not named are guessed; a preview shows what was understood.

    Example: kore items products.csv --type lamp -o items.jsonl
    """
    from kore.data.make_items import make_items
    from kore.data.records import relative_to
    from kore.errors import DataError, UsageError
    from kore.io.jsonl import write_jsonl
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet)
    if out.exists() and not (force or dry_run):
        raise UsageError(f"{out} exists", hint="choose another file with -o, or replace it with --force")
    made = make_items(
        source,
        title=title,
        text=text,
        image=image,
        facts=fact or (),
        kind=kind,
        type_name=type_,
        image_root=image_root,
    )
    columns = made.columns
    guessed = {"title": columns.title, "text": columns.text, "image": columns.image, "type": columns.type}
    output.note(
        "columns: "
        + ", ".join(f"{what} = {name}" for what, name in guessed.items() if name)
        + (f"; facts: {', '.join(columns.facts)}" if columns.facts else "")
        + (f"; not used: {', '.join(made.unused)}" if made.unused else "")
    )
    for where, reason in made.rejected:
        output.warn(f"{where}: {reason}")
    if not made.items:
        raise DataError(
            "no row gave an item", where=str(source), hint="name the columns: --title, --text, --image"
        )
    if not dry_run:
        write_jsonl(out, [relative_to(item, out.absolute().parent).to_json() for item in made.items])
    value = {
        "items": len(made.items),
        "rejected": len(made.rejected),
        "columns": guessed | {"facts": columns.facts},
    }
    if not output.human:
        output.record({**value, "file": None if dry_run else str(out)})
        return
    rows = [
        {
            "title": item.title,
            "type": item.type,
            "text": item.text if len(item.text) <= 60 else item.text[:59] + "…",
            "image": Path(item.images[0]).name if item.images else "",
            "facts": ", ".join(item.facts),
        }
        for item in made.items[:SHOWN]
    ]
    output.table(rows, ("title", "type", "text", "image", "facts"))
    output.line(f"{len(made.items)} items, {len(made.rejected)} rows rejected")
    if not dry_run:
        output.note(f"next: kore inject {out}")
