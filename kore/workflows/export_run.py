"""``kore export``: a run's adapter with everything that its card should tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.adapters.lora import read_facts
from kore.artifacts.run import Run, run_at
from kore.config.resolve import ModelSection
from kore.errors import KoreError, MissingArtefact
from kore.io.files import read_json
from kore.workflows.sequential import batches

if TYPE_CHECKING:
    from kore.adapters.export import Form
    from kore.models.generate import Prompt

_PROMPTS = 8  # whose logits are compared
_CANDIDATES = 24  # of which canaries are chosen


def export_run(
    path: Path,
    form: Form,
    out: Path | None = None,
    *,
    model: str | None = None,
    dtype: str = "auto",
    restart: bool = False,
) -> dict[str, Any]:
    """Export the adapter of a run folder, or an adapter folder, to `out` (default: beside it)."""
    from kore.adapters.export import export

    run = run_at(path)
    adapter = run.adapter if run else path
    facts = read_facts(adapter)
    base = model or facts.get("model")
    if not base:
        raise MissingArtefact("the adapter does not name its base", hint="name it with --model")
    target = out or path.with_name(f"{path.name}-{form}")
    section = _section(run).model_copy(update={"id": str(base), "quantisation": "none"})
    card = {"name": path.name, **_told(run)}
    new, old = _prompts(run)
    return export(
        adapter,
        form,
        target,
        section,
        prompts=new[:: max(1, len(new) // _PROMPTS)][:_PROMPTS],
        candidates=[*new, *old],
        card=card,
        dtype=dtype,
        restart=restart,
    )


def _section(run: Run | None) -> ModelSection:
    return ModelSection.model_validate(run.state().profile.get("model", {})) if run else ModelSection()


def _told(run: Run | None) -> dict[str, Any]:
    """Items, covariance and scores of a run, as far as its folder leads to them."""
    if run is None:
        return {}
    inputs = run.state().inputs
    told: dict[str, Any] = {}
    chain = list(batches(run.folder))[::-1]
    told["items"] = [item for batch in chain for item in _items(batch.data.parent / "tree.jsonl")]
    if covariance := inputs.get("covariance"):
        manifest = Path(covariance["path"]) / "manifest.json"
        label = read_json(manifest)["facts"].get("label") if manifest.is_file() else None
        told["covariance"] = {"label": label, "fingerprint": covariance.get("hash")}
    told["scores"] = _scores(run.evals)
    return told


def _items(tree: Path) -> list[dict[str, Any]]:
    from kore.data.read import read_records
    from kore.data.records import KnowledgeTree

    if not tree.is_file():
        return []
    items = [t.item for t in read_records(KnowledgeTree, tree)]
    return [{"title": i.title, "source": i.source, "date": i.date} for i in items]


def _scores(folder: Path) -> list[dict[str, Any]]:
    """Every label's headline figures from the run's evaluations."""
    rows = []
    for path in sorted(folder.glob("**/summary.json")):
        value = read_json(path)
        table = value.get("table") if isinstance(value, dict) else None
        rows += [
            {k: v for k, v in row.items() if isinstance(v, (str, int, float))}
            for row in table or []
            if isinstance(row, dict)
        ]
    return rows


def _prompts(run: Run | None) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts of the data of the run and of every earlier batch, spread over each; and of old samples."""
    if run is None:
        return [], []
    chain = [b for b in batches(run.folder) if b.data.is_file()]
    new = [p for b in chain for p in _spread(b.data, b.image_root, max(1, _CANDIDATES // len(chain)))]
    kept = [path for name in ("held_out", "protected") for path in run.folder.parent.glob(f"{name}-*.jsonl")]
    old = [prompt for path in kept[:1] for prompt in _spread(path, None, _CANDIDATES // 2)]
    return new, old


def _spread(path: Path, image_root: Path | None, count: int) -> list[Prompt]:
    """First prompts of samples spread evenly over a file."""
    from kore.data.read import read_records
    from kore.data.records import IMAGE_MARK, Sample
    from kore.io.images import open_image
    from kore.models.generate import Prompt

    samples = list(read_records(Sample, path, image_root=image_root, on_error=lambda error: None))
    found: list[Prompt] = []
    for sample in samples[:: max(1, len(samples) // count)][:count]:
        first = next(m for m in sample.conversations if m.from_ == "human")
        try:
            images = [open_image(p) for p in sample.images[: first.value.count(IMAGE_MARK)]]
        except KoreError:
            continue
        found.append(Prompt((first,), tuple(images)))
    return found
