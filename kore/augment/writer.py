"""From finished items to the final files: trees, samples, evaluation questions, rejected pairs, the
report."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kore.augment.eval_questions import Overlap, questions
from kore.augment.fit import Fitter
from kore.augment.report import Tally, report
from kore.augment.samples import samples
from kore.augment.templates import Templates
from kore.augment.text import language
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeTree, Sample
from kore.errors import DataError
from kore.io.files import atomic_write, write_json
from kore.io.jsonl import dump_line

SHAREGPT = {
    "kore": {
        "file_name": "samples.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "image"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
    }
}
"""What LLaMA-Factory reads to find and understand samples.jsonl."""
FILES = ("tree.jsonl", "samples.jsonl", "eval.jsonl", "rejected.jsonl")


def finish(
    out: Path,
    entries: Iterable[tuple[int, dict[str, Any]]],
    templates: dict[str, Templates],
    settings: AugmentSection,
    seed: int,
    teacher: str,
    encoder: str,
    *,
    usage: dict[str, int] | None = None,
    notes: dict[str, int] | None = None,
    fitter: Fitter | None = None,
) -> dict[str, Any]:
    """Write the final files in the items' order, one item in memory at a time; returns the report.

    Args:
        usage, notes: counts to report in place of the entries' own (joined parts no longer have them).
        fitter: splits what the model cannot hold.

    Raises:
        DataError: not one sample came out.
    """
    tally = Tally()
    picture_sources: dict[str, Any] = {}
    overlap = Overlap(
        i
        for t in templates.values()
        for i in (*t.instructions.short, *t.instructions.yes_no, *t.instructions.paragraph)
    )
    with ExitStack() as stack:
        trees, trained, asked, thrown = (stack.enter_context(atomic_write(out / name)) for name in FILES)
        for index, entry in entries:
            if "skipped" in entry:
                thrown.write(
                    dump_line(
                        {"item": entry["id"], "index": index, "task": "item", "reasons": [entry["skipped"]]}
                    )
                )
                tally.notes["items left out"] += 1
                continue
            tree = KnowledgeTree.from_json(entry["tree"], f"item {index}")
            words = templates[language(tree.item.text or tree.item.title)]
            trees.write(dump_line(entry["tree"]))
            made = list(samples(tree, words, seed, settings.copies, fitter, names=bool(settings.names)))
            for sample in made:
                trained.write(dump_line(sample.to_json()))
                tally.sample(kind_of(sample, tree), sample, words.instructions.no)
            wordings = [m.value for s in made for m in s.conversations if m.from_ == "human"]
            taught = fitter.taught(tree, made) if fitter else tree
            fresh = overlap.fresh(questions(taught, words, seed), wordings) if taught else ()
            for question in fresh:
                asked.write(dump_line(question.to_json()))
                tally.question(question)
            for rejected in entry["rejected"]:
                thrown.write(dump_line({"item": tree.item.id, **rejected}))
            picture_sources.update(entry.get("sources", {}))
            tally.tree(tree, entry)
        if fitter and fitter.report.left_out and not sum(tally.kinds.values()):
            raise fitter.nothing_fits()
        if not sum(tally.kinds.values()):
            raise DataError(
                "no sample could be made from these items", hint="look at their texts and pictures"
            )
    values = report(
        tally,
        teacher=teacher,
        encoder=encoder,
        provider=settings.images.partition(":")[0],
        overlap=overlap.refused,
        strategy=settings.strategy,
    )
    if fitter:
        values["fit"] = fitter.report.to_json()
    if usage is not None:
        values["usage"] = usage
    if notes is not None:
        values["notes"] = dict(sorted(notes.items()))
    if picture_sources:
        write_json(out / "pictures.json", dict(sorted(picture_sources.items())))
    write_json(out / "dataset_info.json", SHAREGPT)
    write_json(out / "report.json", values)
    return values


def kind_of(sample: Sample, tree: KnowledgeTree) -> str:
    """Which kind of sample it is, by its name."""
    return sample.id.removeprefix(f"{tree.item.id}-").split("-")[0]
