"""The kore augment command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli.options import DryRun, Json, ProfileName, Quiet, Restart, Seed, data_option
from kore_cli.schema_options import with_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kore.augment.cost_estimate import Estimate
    from kore.config.schema import AugmentSection
    from kore.data.records import KnowledgeItem
    from kore.errors import DataError
    from kore_cli.output import Output


@with_settings(
    "augment.teacher",
    "augment.base_url",
    "augment.images",
    "augment.encoder",
    "augment.strategy",
    "augment.copies",
    "augment.negatives",
    "augment.grounding",
    "augment.judge",
    "augment.forest",
    "augment.templates",
    "augment.concurrency",
    "augment.max_cost",
)
def augment(
    settings: dict[str, Any],
    items: Annotated[
        str,
        typer.Argument(
            metavar="ITEMS", help="Knowledge items (JSONL), EVOKE's injection file, or - for stdin."
        ),
    ],
    out: Annotated[
        str | None,
        data_option("--out", "-o", metavar="DIR", help="Output folder; - streams samples to stdout."),
    ] = None,
    profile: ProfileName = "",
    image_root: Annotated[
        Path | None, data_option(help="Folder that relative image paths start from.")
    ] = None,
    format: Annotated[str, data_option(help="items, evoke, or auto (detected).")] = "auto",
    shard: Annotated[
        str | None,
        data_option(metavar="I/N", help="Only part I of N; kore combine joins the parts."),
    ] = None,
    keep_going: Annotated[
        bool,
        data_option("--keep-going", help="Skip bad lines, broken images and failed calls."),
    ] = False,
    seed: Seed = None,
    dry_run: DryRun = False,
    restart: Restart = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn items into knowledge trees: dialogues, recognition, captions and visual questions.

    Example: kore augment items.jsonl --teacher offline -o tree
    """
    from kore.data.evoke import read_items
    from kore.errors import DataError, UsageError
    from kore.io.files import check_place
    from kore_cli.options import resolve
    from kore_cli.output import Output

    output = Output(json_mode=json_, quiet=quiet)
    chosen = resolve(output, profile, settings, "augment.teacher").profile.augment
    if format not in ("auto", "items", "evoke"):
        raise UsageError(f"no such format: {format}", hint="--format items, evoke or auto")
    if out is None and not dry_run:
        raise UsageError(
            "where to? no -o given", hint=f"kore augment {items} -o DIR, or -o - to stream samples"
        )
    if out not in (None, "-"):
        check_place(Path(str(out)))
    bad: list[DataError] = []

    def note_bad(error: DataError) -> None:
        bad.append(error)
        output.warn(f"left out: {error}")

    found = list(
        read_items(items, form=format, image_root=image_root, on_error=note_bad if keep_going else None)  # type: ignore[arg-type]
    )
    if dry_run and keep_going:
        found = [item for item in found if _has_pictures(item, note_bad)]
    if not found:
        raise DataError("no item could be read", where=items)
    if chosen.teacher == "offline" and chosen.strategy == "kore":
        from kore.augment.teachers.offline import NOTE

        output.note(f"note: {NOTE}")
    part = _shard(shard)
    if dry_run:
        from kore.augment.cost_estimate import estimate

        _show_estimate(output, estimate(found, chosen, seed or 0, part), chosen)
        return
    if out == "-":
        _stream(found, chosen, seed or 0, part, keep_going, output)
        return
    _write(Path(str(out)), items, found, chosen, seed or 0, part, restart, keep_going, output, len(bad))


def _has_pictures(item: KnowledgeItem, note_bad: Callable[[DataError], None]) -> bool:
    """Whether an item's own pictures can be opened, as far as they lie here."""
    from kore.augment.cost_estimate import check_own
    from kore.errors import DataError

    try:
        check_own(item)
    except DataError as error:
        note_bad(error)
        return False
    return True


def _write(
    out: Path,
    source: str,
    found: list[KnowledgeItem],
    settings: AugmentSection,
    seed: int,
    shard: tuple[int, int] | None,
    restart: bool,
    keep_going: bool,
    output: Output,
    bad: int,
) -> None:
    from kore.augment import grow
    from kore.augment.report import teacher_line

    with output.steps("augment") as progress:
        report = grow(
            found,
            settings,
            out,
            seed=seed,
            shard=shard,
            restart=restart,
            keep_going=keep_going,
            progress=progress,
            sources={} if source == "-" else {"items": str(Path(source).resolve())},
        )
    if report.state == "done":
        output.note(f"{out} was finished already with the same settings: nothing to do")
    if missed := report.values["notes"].get("items left out", 0):
        output.warn(f"{missed} left out: {out}/rejected.jsonl says why")
    empty = report.values["nothing_made_for"]
    if empty:
        output.warn(
            f"nothing could be asked about {len(empty)} items: {', '.join(empty[:5])}"
            + ", ..." * (len(empty) > 5)
        )
    if settings.teacher not in (None, "offline") and report.values["grounding"]["generated"]:
        line, poor = teacher_line(report.values["grounding"], str(settings.teacher))
        (output.warn if poor else output.note)(line)
    spent = report.spent
    if spent.get("calls") and settings.teacher != "offline":
        money = f", {spent['money']:.4g} spent" if spent["money"] is not None else ""
        output.note(f"{spent['calls']} calls paid, {spent['from_cache']} from the cache{money}")
    value = {
        "v": 1,
        "folder": str(out),
        "state": report.state,
        "left_out": bad + missed,
        "spent": spent,
        **report.values,
    }
    if not output.human:
        output.record(value)
        return
    from kore_cli.render.tree import report_table

    report_table(output, report.values)
    output.note(f"samples: {report.samples}   evaluation: {report.questions}")
    output.note(f"look at a tree: kore show {out} --id {found[0].id}")


def _stream(
    found: list[KnowledgeItem],
    settings: AugmentSection,
    seed: int,
    shard: tuple[int, int] | None,
    keep_going: bool,
    output: Output,
) -> None:
    from kore.augment.streaming import stream

    for sample in stream(found, settings, seed=seed, shard=shard, keep_going=keep_going, on_skip=output.warn):
        output.record(sample.to_json())


def _shard(text: str | None) -> tuple[int, int] | None:
    from kore.errors import UsageError

    if text is None:
        return None
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"no such part: {text}", hint="--shard I/N with 1 <= I <= N, e.g. 2/8")
    return int(number), int(of)


def _show_estimate(output: Output, found: Estimate, settings: AugmentSection) -> None:
    value = {"v": 1, **found.to_json()}
    text = (
        f"{found.items} items, {found.calls} calls of {settings.teacher}"
        f" ({found.cached} in the cache), about {found.tokens_in:,} tokens in and {found.tokens_out:,} out"
    )
    money = (
        f"; about {found.money:.2f}"
        if found.money is not None
        else "; no prices in the profile (augment.price_in, price_out)"
    )
    output.result(value, text + (money if found.paid else ""))
