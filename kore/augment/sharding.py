"""Parts of one augmentation, made by ``--shard I/N``, joined into what one process would have made."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kore.artifacts.manifest import Manifest, claimed, differences, read_manifest, refuse_input_as_output
from kore.augment.run import Report
from kore.augment.templates import load_templates
from kore.augment.writer import finish
from kore.config.schema import AugmentSection
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.files import hash_file, read_json
from kore.io.jsonl import read_jsonl


def join(parts: Sequence[Path], out: Path, *, restart: bool = False) -> Report:
    """Join all parts of one augmentation; the result equals that of one process, file for file.

    Raises:
        MissingArtefact: a part is missing or not finished. UsageError: a part given twice, or parts made with
        other settings or from other items; names the difference. Or `out` is one of them.
    """
    refuse_input_as_output(out, parts)
    manifests = [read_manifest(part, kind="tree", made_by="kore augment --shard I/N") for part in parts]
    order = _order(parts, manifests)
    first = manifests[order[0]]
    settings = {k: v for k, v in first.settings.items() if k != "shard"}
    whole = Manifest("tree", settings, first.inputs, first.sources)
    with claimed(out, whole, restart=restart) as state:
        if state == "done":
            return Report(out, read_json(out / "report.json"), "done")
        pictures = out / "images"
        pictures.mkdir(exist_ok=True)
        for part in parts:
            for path in sorted((part / "images").glob("[!.]*")) if (part / "images").is_dir() else []:
                if not (pictures / path.name).exists():
                    shutil.copyfile(path, pictures / f".{path.name}.tmp")
                    (pictures / f".{path.name}.tmp").replace(pictures / path.name)
        seed = int(settings["seed"])
        section = AugmentSection.model_validate(
            {k: v for k, v in settings.items() if k not in ("seed", "rules")}
        )
        templates = load_templates(_templates(section, first))
        reports = [read_json(part / "report.json") for part in parts]
        values = finish(
            out,
            _interleaved([_Part(parts[i]) for i in order]),
            templates,
            section,
            seed,
            reports[0]["teacher"],
            reports[0]["pictures"]["encoder"],
            usage=_sum([r["usage"] for r in reports]),
            notes=_sum([r["notes"] for r in reports]),
        )
        whole.finished(**{k: values["statistics"][k] for k in ("items", "samples", "images")}).write(out)
        return Report(out, values, "fresh")


def _order(parts: Sequence[Path], manifests: Sequence[Manifest]) -> list[int]:
    """Positions of the parts 1..N in order."""
    found: dict[int, int] = {}
    count = 0
    for position, (part, manifest) in enumerate(zip(parts, manifests, strict=True)):
        shard = str(manifest.settings.get("shard", ""))
        if "/" not in shard:
            raise UsageError(f"{part} is not a part: it was made without --shard")
        if manifest.status != "done":
            raise MissingArtefact(f"{part} is not finished", hint="run its kore augment command again")
        number, count = (int(n) for n in shard.split("/"))
        if number in found:
            raise UsageError(f"part {shard} is given twice: {parts[found[number]]} and {part}")
        found[number] = position
        told = [d for d in differences(manifests[0], manifest) if not d.startswith("shard")]
        if told:
            raise UsageError(f"{part} was made otherwise than {parts[0]}: {'; '.join(told)}")
        if shard.split("/")[1] != str(manifests[0].settings["shard"]).split("/")[1]:
            raise UsageError(
                f"{part} is one of {count} parts, {parts[0]} is {manifests[0].settings['shard']}"
            )
    missing = sorted(set(range(1, count + 1)) - found.keys())
    if missing:
        raise MissingArtefact(
            f"part {missing[0]}/{count} is missing",
            hint=f"kore augment ITEMS --shard {missing[0]}/{count} -o DIR makes it",
        )
    return [found[number] for number in sorted(found)]


class _Part:
    """Reads one part's trees, with the rejected pairs and picture sources that belong to each."""

    def __init__(self, folder: Path) -> None:
        self._trees = read_jsonl(folder / "tree.jsonl")
        self._thrown: dict[str, list[dict[str, Any]]] = {}
        self.left_out: dict[int, dict[str, Any]] = {}
        for _, line in read_jsonl(folder / "rejected.jsonl"):
            if line.get("task") == "item":
                self.left_out[int(line["index"])] = line
            else:
                self._thrown.setdefault(str(line.pop("item")), []).append(line)
        sources = folder / "pictures.json"
        self._sources: dict[str, Any] = read_json(sources) if sources.exists() else {}

    def entry(self, index: int) -> dict[str, Any] | None:
        """The entry of the item at `index`, which is this part's next; None at its end."""
        if index in self.left_out:
            line = self.left_out[index]
            return {"skipped": line["reasons"][0], "id": line["item"]}
        for _, tree in self._trees:
            shown = [tree.get("images", {}).get("held_out"), *(b.get("image") for b in tree["branches"])]
            item_images = tree["item"].get("image") or []
            shown += [item_images] if isinstance(item_images, str) else item_images
            names = {Path(place).name for place in shown if place}
            return {
                "tree": tree,
                "rejected": self._thrown.get(tree["item"]["id"], []),
                "sources": {n: self._sources[n] for n in sorted(names & self._sources.keys())},
            }
        return None


def _interleaved(parts: Sequence[_Part]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Entries in the items' order: the i-th item went to part i mod N."""
    for index in itertools.count():
        entry = parts[index % len(parts)].entry(index)
        if entry is None:
            return
        yield index, entry


def _templates(section: AugmentSection, manifest: Manifest) -> Path | None:
    if not section.templates:
        return None
    path = Path(section.templates)
    if not path.is_file() or hash_file(path) != manifest.inputs.get("templates"):
        raise DataError("the templates that the parts were made with are gone or changed", where=str(path))
    return path


def _sum(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for key, value in count.items():
            total[key] = total.get(key, 0) + value
    return total
