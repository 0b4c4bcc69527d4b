"""What ``import kore`` offers: light, typed, and the same runs as the commands'."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import kore
from kore.artifacts.events import EventTail, EventWriter
from kore.config.resolve import ModelSection
from kore.data.records import Sample
from kore.demo.archive import demo_data
from kore.errors import DataError, UsageError
from kore.models.load import load
from kore.progress import Progress, both, event_log, lines, renamed, silent

ITEMS = demo_data() / "items.jsonl"


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, kore; print(kore.__version__, sorted({m.partition('.')[0] for m in sys.modules}))"
    printed = fresh(code)
    assert printed.startswith("0.")
    for module in ("torch", "pydantic", "numpy", "transformers", "peft", "rich", "typer"):
        assert f"'{module}'" not in printed


def test_every_name_is_there_also_after_its_namesake_package_was_imported() -> None:
    code = (
        "import kore.augment.run, kore.evaluation, kore; print([n for n in kore.__all__ "
        "if n != '__version__' and not callable(getattr(kore, n))], kore.augment.run.grow.__name__)"
    )
    assert fresh(code).strip() == "[] grow"
    assert set(kore.__all__) <= set(dir(kore))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kore.nothing  # noqa: B018


def items(count: int = 2) -> list[dict[str, object]]:
    found = [json.loads(line) for line in ITEMS.read_text().splitlines()[:count]]
    return [{**item, "image": str(ITEMS.parent / item["image"])} for item in found]


def test_items_go_through_every_verb(tmp_path: Path) -> None:
    stages: list[str] = []

    def note_stage(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if stage not in stages:
            stages.append(stage)

    tree = kore.augment(items(), tmp_path / "tree", teacher="offline", progress=note_stage)
    assert tree.values["statistics"]["items"] == 2 and tree.samples.is_file()
    backbone = load(ModelSection())
    covariance = kore.calibrate(backbone.model, backbone.processor, tree.samples, progress=note_stage)
    run = kore.train(
        tree.samples,
        covariance=covariance,
        output=tmp_path / "run",
        settings={"train.max_steps": 2, "train.batch": 4, "adapter.rank": 4},
        progress=note_stage,
    )
    assert (run.status, run.method, run.steps) == ("finished", "kore", 2)
    assert run.settings["adapter.rank"] == 4 and run.adapter is not None and run.adapter.is_dir()
    again = kore.load_run(tmp_path / "run")
    assert again == run and [e["step"] for e in again.events("step")] == [1, 2]
    found = kore.evaluate(
        run.folder, tree.questions, settings={"eval.max_new_tokens": 4}, progress=note_stage
    )
    assert [row["method"] for row in found.table] == ["base", "kore"]
    assert {row["model"] for row in found.suites()} == {"base", "kore"}
    assert [row["method"] for row in again.scores()] == ["base", "kore"]
    made = kore.export(run.folder, "peft", tmp_path / "peft")
    assert made.folder == tmp_path / "peft" and made.error < 1e-3
    assert stages == ["augment", "calibrate", "train kore", "eval"]


def test_samples_are_taken_in_any_of_their_forms(tiny_llava: Path, picture: Path, tmp_path: Path) -> None:
    backbone = load(ModelSection(id=str(tiny_llava)))
    llava = {
        "id": "a",
        "image": str(picture),
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Peru"}],
    }
    part = {"type": "image", "path": str(picture)}
    openai = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]}
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(llava) + "\n")
    made = kore.calibrate(
        backbone.model, backbone.processor, [llava, openai, Sample.from_json(llava), path], batch_size=2
    )
    first = kore.calibrate(backbone.model, backbone.processor, path, output=tmp_path / "c")
    assert [s.tokens for s in made.sites] == [4 * s.tokens for s in first.sites]
    assert kore.get_kore_model(backbone.model, first, rank=2).peft_config
    with pytest.raises(DataError, match=r"samples\[1\]: conversations is missing"):
        kore.calibrate(backbone.model, backbone.processor, [llava, {"text": "?"}])
    with pytest.raises(UsageError, match="batch=0"):
        kore.calibrate(backbone.model, backbone.processor, path, batch_size=0)


def test_a_peft_model_is_calibrated_as_it_answers(tiny_llava: Path) -> None:
    from peft import LoraConfig, get_peft_model

    backbone = load(ModelSection(id=str(tiny_llava)))
    samples = [{"messages": [{"role": "user", "content": "What is this?"}]}]
    plain = kore.calibrate(backbone.model, backbone.processor, samples)
    model = get_peft_model(
        backbone.model,
        LoraConfig(r=2, target_modules=r".*language_model.*down_proj", init_lora_weights=False),
    )
    tuned = kore.calibrate(model, backbone.processor, samples)
    assert [s.linears for s in plain.sites] == [s.linears for s in tuned.sites]
    assert (plain.matrix(plain.sites[0]) == tuned.matrix(tuned.sites[0])).all()
    assert (plain.matrix(plain.sites[-1]) != tuned.matrix(tuned.sites[-1])).any()
    assert kore.get_kore_model(model, tuned, rank=2).active_adapters == ["default", "kore"]


def test_a_bad_item_is_named_or_reported(tmp_path: Path) -> None:
    bad = [*items(1), {"id": "x"}]
    with pytest.raises(DataError, match=r"items\[1\]"):
        kore.augment(bad, tmp_path / "a", teacher="offline")
    skipped: list[str] = []
    made = kore.augment(bad, tmp_path / "b", teacher="offline", keep_going=True, on_skip=skipped.append)
    assert made.values["statistics"]["items"] == 1 and "items[1]" in skipped[0]


def test_the_sinks_of_progress(tmp_path: Path) -> None:
    stream = io.StringIO()
    with EventWriter(tmp_path) as events:
        sink: Progress = both(lines(stream), both(event_log(events), silent))
        sink("augment", 1, 2)
        sink("augment", 2, 2, "2 items")
        sink("null space", 1, 1)
        renamed(sink, "calibrate")("anything", 3, 3)
    assert stream.getvalue().splitlines() == ["augment (0 s): 2 items", "null space (0 s)", "calibrate (0 s)"]
    told = [(e["kind"], e["done"]) for e in EventTail(tmp_path).read()]
    assert told == [("augment", 1), ("augment", 2), ("calibrate", 3)]
