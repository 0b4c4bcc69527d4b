"""kore inject --after: a batch after another, both protected and both told of; nonsense refused at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kore.adapters.lora_state import WEIGHTS
from kore.artifacts.run import Run
from kore.config.resolve import resolve
from kore.errors import DataError, KoreError, MissingArtefact, UsageError
from kore.io.files import read_json
from kore.models.lineage import adapter_fingerprint
from kore.nullspace.covariance import Covariance
from kore.progress import silent
from kore.workflows import export_run as exporting
from kore.workflows.export_run import export_run
from kore.workflows.inject import Request, plan
from kore.workflows.injection import run_inject
from kore.workflows.protect import protect
from kore.workflows.sequential import Batch, find_run

CAPITALS = {"Peru": "Lima", "Kenya": "Nairobi", "Nepal": "Kathmandu"}


def items(folder: Path, title: str) -> Path:
    picture = folder / f"{title}.png"
    Image.new("RGB", (40, 30), (len(title) * 20, 90, 200)).save(picture)
    item = {
        "id": title.lower(),
        "kind": "entity",
        "type": "country",
        "title": title,
        "text": f"{title} is a country. Its capital is {CAPITALS[title]}.",
        "image": picture.name,
        "facts": {"capital": CAPITALS[title]},
    }
    path = folder / f"{title}.jsonl"
    path.write_text(json.dumps(item) + "\n")
    return path


def request(folder: Path, model: Path, title: str, after: Path | None = None, **flags: object) -> Request:
    old = folder / "old.jsonl"
    turns = [{"from": "human", "value": "Peru?"}, {"from": "gpt", "value": "Yes"}]
    old.write_text("".join(json.dumps({"id": str(n), "conversations": turns}) + "\n" for n in range(6)))
    chosen = {
        "model.id": str(model),
        "calibrate.samples": [f"{old}:4"],
        "calibrate.with_answers": False,
        "adapter.rank": 4,
        "train.max_steps": 2,
        "train.batch": 4,
        "eval.max_new_tokens": 4,
        "augment.copies": 1,
        **flags,
    }
    path = items(folder, title)
    return Request(str(path), resolve("tiny", chosen), folder / f"out-{title}", after=after)


@pytest.fixture(scope="module")
def first(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a first, finished injection; its run folder is ``run`` inside."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KORE_HOME", str(folder / "runs"))
        return run_inject(plan(request(folder, tiny_llava, "Peru"))).folder


@pytest.mark.slow
def test_a_second_batch_protects_and_keeps_the_first(tiny_llava: Path, first: Path, tmp_path: Path) -> None:
    wanted = request(tmp_path, tiny_llava, "Kenya", first / "run")
    outcome = run_inject(plan(wanted))
    folder = outcome.folder
    assert [row["method"] for row in outcome.table] == ["base", "before", "kore"]
    assert all(isinstance(row["k_a_earlier"], float) for row in outcome.table)
    assert outcome.table[0]["per_suite"].keys() == {"items", "agreement"}
    assert "1 earlier batch" in outcome.legend

    total = Covariance(folder / "covariance")
    old, own = Covariance(first / "covariance"), Covariance(folder / "covariance-earlier")
    for site in total.sites:
        parts = old.matrix(old.site_of(site.linears[0])) + own.matrix(own.site_of(site.linears[0]))
        assert torch.allclose(total.matrix(site), parts, rtol=1e-12)
    assert own.manifest.settings["with_answers"]
    print_of_one = adapter_fingerprint(first / "run" / "adapter")
    assert total.lineage.chain == (print_of_one,)

    before, after = (load_file(f / "run" / "adapter" / WEIGHTS) for f in (first, folder))
    for name, value in before.items():
        rank = min(value.shape)
        assert after[name].numel() == 2 * value.numel()
        kept = after[name][:rank] if "lora_A" in name else after[name][:, :rank]
        assert torch.equal(kept, value)
    facts = read_json(folder / "run" / "adapter" / "kore.json")
    assert facts["chain"] == [print_of_one] and facts["covariance"] == total.manifest.fingerprint

    export_run(folder / "run", "peft", tmp_path / "peft")
    card = (tmp_path / "peft" / "README.md").read_text()
    assert "Peru" in card and "Kenya" in card

    again = run_inject(plan(wanted))
    assert again.table == outcome.table

    third = plan(request(tmp_path, tiny_llava, "Nepal", folder))  # the folder around the run will do
    assert [Path(batch["run"]).parent for batch in third.rehearse()["after"]] == [first, folder]


def test_lora_goes_on_from_kore_and_kore_from_lora(tiny_llava: Path, first: Path, tmp_path: Path) -> None:
    lora = {"train.method": "lora", "train.lr": 1e-3}
    outcome = run_inject(plan(request(tmp_path, tiny_llava, "Kenya", first, **lora)))
    assert not (outcome.folder / "covariance").exists()
    assert (
        load_file(outcome.folder / "run" / "adapter" / WEIGHTS).keys()
        == load_file(first / "run" / "adapter" / WEIGHTS).keys()
    )
    made = protect(resolve_of(tmp_path, tiny_llava), outcome.folder, tmp_path / "next", silent)
    chain = [adapter_fingerprint(f / "run" / "adapter") for f in (first, outcome.folder)]
    assert list(Covariance(made).lineage.chain) == chain
    assert (tmp_path / "next" / "covariance-old").is_dir()  # LoRA protected nothing


def resolve_of(folder: Path, model: Path):  # type: ignore[no-untyped-def]
    return request(folder, model, "Nepal").resolved


def refused(wanted: Request, kind: type[KoreError], match: str) -> None:
    with pytest.raises(kind, match=match):
        plan(wanted)
    assert wanted.out is not None and not wanted.out.exists()


def test_nonsense_is_refused_before_anything_is_written(
    tiny_llava: Path, tiny_qwen: Path, first: Path, tmp_path: Path
) -> None:
    refused(request(tmp_path, tiny_qwen, "Kenya", first), DataError, "belongs to base .* the model is")
    refused(request(tmp_path, tiny_llava, "Kenya", tmp_path), MissingArtefact, "no run here")
    refused(
        request(tmp_path, tiny_llava, "Kenya", first / "run" / "adapter"), MissingArtefact, "without its run"
    )
    for method in ("full", "moelora"):
        refused(
            request(tmp_path, tiny_llava, "Kenya", first, **{"train.method": method}),
            UsageError,
            f"{method} cannot go on from an earlier adapter: it",
        )
    with pytest.raises(UsageError, match="holds the earlier run"):
        plan(replace(request(tmp_path, tiny_llava, "Kenya", first), out=first))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(first / "run", unfinished)
    Run(unfinished).update(status="interrupted")
    refused(request(tmp_path, tiny_llava, "Kenya", unfinished), MissingArtefact, "not finished")


def test_samples_that_changed_since_cannot_be_protected(
    tiny_llava: Path, first: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(first, moved)
    run = find_run(moved)
    inputs = run.state().inputs
    inputs["data"]["path"] = str(moved / "tree" / "samples.jsonl")
    run.update(inputs=inputs)
    data = moved / "tree" / "samples.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="no longer the samples"):
        protect(resolve_of(tmp_path, tiny_llava), moved, tmp_path / "next", silent)


def test_an_export_is_checked_on_pictures_below_the_remembered_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    Image.new("RGB", (40, 30)).save(root / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": "Peru"}]
    data = tmp_path / "samples.jsonl"
    data.write_text(json.dumps({"id": "a", "image": "a.png", "conversations": turns}))
    batch = Batch(tmp_path / "run", "lora", data, None, None, 1, root)
    monkeypatch.setattr(exporting, "batches", lambda run: [batch])
    new, old = exporting._prompts(Run(tmp_path / "run"))
    assert [len(prompt.images) for prompt in new] == [1] and old == []
