"""All stages in one: resumable, told as it goes, honest about what the base cannot understand."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from kore.artifacts.events import EventTail, segments
from kore.artifacts.run import Run, run_at
from kore.config.resolve import resolve
from kore.data.read import read_records
from kore.data.records import Sample
from kore.errors import DataError, KoreError, MissingArtefact, UsageError
from kore.evaluation.agreement import load_agreement
from kore.evaluation.suites import resolve_suites
from kore.workflows import inject
from kore.workflows.inject import Request, plan
from kore.workflows.injection import run_inject
from kore.workflows.injection_suites import suite_options
from kore.workflows.retention_samples import PROTECTED, old_samples
from kore_cli.main import app
from tests.held import held
from tests.tsv import picture as encoded
from tests.tsv import write_tsv


def write_items(folder: Path, count: int = 2) -> Path:
    lines = []
    for number in range(count):
        picture = folder / f"flag{number}.png"
        Image.new("RGB", (40, 30), (40 * number, 90, 200)).save(picture)
        lines.append(
            {
                "id": f"i{number}",
                "kind": "entity",
                "type": "country",
                "title": ("Peru", "Kenya", "Nepal")[number],
                "text": f"It is a country. Its capital is {('Lima', 'Nairobi', 'Kathmandu')[number]}.",
                "image": picture.name,
                "facts": {"capital": ("Lima", "Nairobi", "Kathmandu")[number]},
            }
        )
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def request(tmp_path: Path, model: Path, items: Path) -> Request:
    old = tmp_path / "old.jsonl"
    turns = [{"from": "human", "value": "Peru?"}, {"from": "gpt", "value": "Yes"}]
    old.write_text("".join(json.dumps({"id": str(n), "conversations": turns}) + "\n" for n in range(6)))
    flags = {
        "model.id": str(model),
        "calibrate.samples": [f"{old}:4"],
        "adapter.rank": 4,
        "train.max_steps": 2,
        "train.batch": 4,
        "eval.max_new_tokens": 4,
        "augment.copies": 1,
    }
    return Request(str(items), resolve("tiny", flags), tmp_path / "out", suites=())


def test_items_go_through_every_stage_and_a_second_run_does_nothing(tmp_path: Path, tiny_llava: Path) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    told: list[tuple[str, int, int | None]] = []
    outcome = run_inject(
        plan(wanted), lambda stage, done, total=None, note="": told.append((stage, done, total))
    )
    assert [row["method"] for row in outcome.table] == ["base", "kore"]
    assert outcome.table[0]["k_r"] == 100.0  # agreement of the base with itself
    assert sum(outcome.items.values()) == 2
    assert [s for s, done, total in told if done == total].count("train") >= 1
    adapter = Run(outcome.folder / "run").adapter / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns
    run = outcome.folder / "run"
    kinds = [event["kind"] for event in EventTail(run).read()]
    assert list(dict.fromkeys(k for k in kinds if k in ("augment", "calibrate", "step", "eval"))) == [
        "augment",
        "calibrate",
        "step",
        "eval",
    ]
    parts = len(segments(run))
    # an untrained model has learned nothing, and that is shown too
    assert {a["about"] for a in outcome.answers} == {"items"}
    assert plan(wanted).rehearse()["trainable"] == outcome.table[-1]["params"]
    again = run_inject(plan(wanted))
    assert adapter.stat().st_mtime_ns == before
    assert again.table == outcome.table
    assert len(segments(run)) == parts


def test_a_run_is_known_before_it_trains_and_says_what_stopped_it(tmp_path: Path, tiny_llava: Path) -> None:
    wanted = replace(request(tmp_path, tiny_llava, write_items(tmp_path)), command=("kore", "inject", "a b"))
    run = Run(tmp_path / "out" / "run")

    def stopped(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if stage == "calibrate":
            assert run.state().status == "starting"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_inject(plan(wanted), stopped)
    state = run.state()
    assert (state.status, state.again) == ("interrupted", "kore inject 'a b'")
    assert run_at(tmp_path / "out") == run
    assert run_inject(plan(wanted)).table and run.state().status == "finished"


def test_a_rehearsal_makes_the_checks_of_every_stage_and_writes_nothing(
    tmp_path: Path, tiny_llava: Path
) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    told = plan(wanted).rehearse()
    assert (told["items"], told["samples_drawn"], told["rank"]) == (2, 4, 4)
    assert told["trainable"] > 0 and told["augment"]["calls"] > 0
    for changes, error in (
        ({"calibrate.samples": ["demoo"]}, UsageError),
        ({"calibrate.samples": [str(tmp_path / "none.jsonl")]}, MissingArtefact),
        ({"augment.teacher": "nobody"}, UsageError),
        ({"augment.images": f"local:{tmp_path / 'nowhere'}"}, KoreError),
    ):
        flags = {"model.id": str(tiny_llava), "augment.copies": 1, **changes}
        with pytest.raises(error):
            plan(replace(wanted, resolved=resolve("tiny", flags))).rehearse()
    assert wanted.out is not None and not wanted.out.exists()
    by_energy = replace(
        wanted, resolved=resolve("tiny", {"model.id": str(tiny_llava), "adapter.rank": "auto"})
    )
    assert plan(by_energy).rehearse()["trainable"] is None


def test_a_finished_run_is_restarted_and_goes_on_without_being_told_again(
    tmp_path: Path, tiny_llava: Path
) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    first = run_inject(plan(wanted))
    run = Run(first.folder / "run")

    def stopped(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if stage == "calibrate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_inject(plan(replace(wanted, restart=True)), stopped)
    assert run.state().status == "interrupted" and not run.adapter.exists()
    assert "step" not in {event["kind"] for event in EventTail(run.folder).read()}
    told = run_inject(plan(wanted)).table
    assert [row["method"] for row in told] == ["base", "kore"] and run.state().status == "finished"
    kinds = {event["kind"] for event in EventTail(run.folder).read()}
    assert {"augment", "calibrate", "step", "eval"} <= kinds


def test_other_settings_leave_an_interrupted_run_as_it_was(tmp_path: Path, tiny_llava: Path) -> None:
    wanted = replace(request(tmp_path, tiny_llava, write_items(tmp_path)), command=("kore", "inject", "old"))

    def stopped(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if stage == "train" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_inject(plan(wanted), stopped)
    run = Run(tmp_path / "out" / "run")
    before = run.state()
    assert before.status == "interrupted"
    profile = wanted.resolved.profile
    changed = profile.model_copy(update={"train": profile.train.model_copy(update={"lr": 0.5})})
    refused = replace(wanted, resolved=replace(wanted.resolved, profile=changed), command=("kore", "new"))
    with pytest.raises(UsageError, match="other settings"):
        run_inject(plan(refused))
    assert run.state() == before
    assert run_inject(plan(wanted)).table


def test_an_item_without_a_picture_is_refused_before_anything_runs(tmp_path: Path, tiny_llava: Path) -> None:
    items = write_items(tmp_path, 1)
    (tmp_path / "flag0.png").unlink()
    with pytest.raises(DataError, match="no such picture"):
        plan(request(tmp_path, tiny_llava, items))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("images", ["none", "local:more"])
def test_a_folder_of_other_items_is_refused_with_the_way_to_teach_these_after_them(
    tmp_path: Path, tiny_llava: Path, images: str
) -> None:
    from kore.augment.inputs import input_hashes, manifest_of

    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    items = plan(wanted).items
    assert wanted.out is not None
    tree = wanted.out / "tree"
    tree.mkdir(parents=True)
    settings = wanted.resolved.profile.augment.model_copy(update={"images": images})
    manifest_of(settings, 0, None, input_hashes(items), {}).write(tree)
    assert plan(wanted).items == items
    write_items(tmp_path, 3)
    with pytest.raises(UsageError, match="holds other items") as caught:
        plan(wanted)
    assert f"--after {wanted.out}" in (caught.value.hint or "")
    assert len(plan(replace(wanted, restart=True)).items) == 3


def test_a_suite_that_is_not_there_is_refused_before_anything_runs(
    tmp_path: Path, tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    with pytest.raises(UsageError, match="did you mean demo"):
        plan(replace(wanted, suites=("demoo",)))
    monkeypatch.setenv("KORE_DATA", str(tmp_path))  # looked for where every other command looks
    with pytest.raises(MissingArtefact, match=str(tmp_path)):
        plan(replace(wanted, suites=("evoke",)))


def test_what_is_new_is_the_items_alone_and_a_question_file_is_of_old_knowledge(
    tmp_path: Path, tiny_llava: Path
) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    asked = {"question_id": "1", "image": None, "text": "Is it day?", "answer": "Yes"}
    (tmp_path / "mine.jsonl").write_text(json.dumps({**asked, "type": "x", "cnn_wiki_type": "wiki"}) + "\n")
    mine = str(tmp_path / "mine.jsonl")
    assert [s.role for s in resolve_suites([mine], suite_options(wanted.data_dir))] == ["retention"]
    plan(replace(wanted, suites=(mine,)))
    with pytest.raises(UsageError, match="asks for new knowledge") as caught:
        plan(replace(wanted, suites=(f"{mine}:adaptation",)))
    assert "kore eval RUN --suite" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ([], ["demo"]),
        (["--profile", "llava-v1.5-7b"], ["benchmarks"]),
        (["--suite", "agreement"], []),
        (["--suite", "choice,text", "--suite", "MME"], ["choice", "text", "MME"]),
    ],
)
def test_the_command_asks_the_suites_of_old_knowledge_that_are_named_else_the_profiles(
    given: list[str], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Request] = []
    monkeypatch.setattr(inject, "plan", lambda request: seen.append(request) or 1 / 0)
    CliRunner().invoke(app, ["inject", "items.jsonl", *given])
    assert list(seen[0].suites) == asked


def test_old_prompts_are_of_every_source_and_the_protected_ones_where_there_are_no_others(
    tmp_path: Path, tiny_llava: Path
) -> None:
    request(tmp_path, tiny_llava, write_items(tmp_path))
    old, other = tmp_path / "old.jsonl", tmp_path / "other.jsonl"
    other.write_text(old.read_text().replace("Peru", "Kenya"))  # the same ids
    for samples, kept, asked in (
        ([f"{old}:4", f"{other}:4"], "held_out", ["Peru?"] * 2 + ["Kenya?"] * 2),
        ([f"{old}:6"], PROTECTED, ["Peru?"] * 6),
    ):
        flags = {"model.id": str(tiny_llava), "calibrate.samples": samples}
        old_ = old_samples(resolve("tiny", flags).profile, tmp_path / kept, needed=False)
        assert old_.given is None and old_.asked.name.startswith(kept)
        assert [task.text for task in load_agreement(old_.asked).prompts] == asked


@pytest.mark.parametrize("count", [4, 6])  # of six: others are left, or none
def test_what_a_method_trains_with_is_never_asked(tmp_path: Path, tiny_llava: Path, count: int) -> None:
    old = tmp_path / "old.jsonl"
    lines = [
        {"id": "a", "conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "Yes"}]}
        for n in range(6)
    ]
    old.write_text("".join(json.dumps(line) + "\n" for line in lines))
    profile = resolve("tiny", {"calibrate.samples": [f"{old}:{count}"]}).profile
    drawn = old_samples(profile, tmp_path / "out", needed=True)
    assert drawn.given is not None and not drawn.asked.name.startswith(PROTECTED)
    given, asked = ({t.text for t in load_agreement(path).prompts} for path in (drawn.given, drawn.asked))
    assert given and asked and not given & asked and given | asked <= {f"{n}?" for n in range(6)}
    before = drawn.given.read_bytes()
    assert old_samples(profile, tmp_path / "out", needed=True) == drawn
    assert old_samples(profile, tmp_path / "out", needed=True, restart=True) == drawn
    assert drawn.given.read_bytes() == before


@pytest.mark.parametrize("needed", [False, True])
def test_a_changed_source_of_old_samples_is_drawn_again(tmp_path: Path, needed: bool) -> None:
    old = tmp_path / "old.jsonl"

    def write(answer: str, shade: int) -> None:
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / "old.png")
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": answer}]
        lines = [{"id": str(n), "image": "old.png", "conversations": turns} for n in range(6)]
        old.write_text("".join(json.dumps(line) + "\n" for line in lines))

    profile = resolve("tiny", {"calibrate.samples": [f"{old}:4"]}).profile
    seen = []
    for answer, shade in (("Yes", 0), ("No", 0), ("No", 99), ("Yes", 0)):
        write(answer, shade)
        drawn = old_samples(profile, tmp_path / "out", needed=needed)
        seen.append(drawn)
        assert answer in drawn.asked.read_text()
    assert seen[0] == seen[3] and len({found.asked for found in seen}) == 3


def test_a_benchmark_whose_images_changed_is_drawn_with_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_DATA", str(tmp_path))
    profile = resolve("tiny", {"calibrate.samples": ["bench:MME:2"]}).profile
    seen = []
    for first in (0, 10):
        rows = [
            {"index": str(n), "image": encoded(first + n), "question": "Is it?", "answer": "Yes"}
            for n in range(4)
        ]
        write_tsv(tmp_path / "MME.tsv", rows)
        drawn = old_samples(profile, tmp_path / "out", needed=False)
        seen.append(drawn.asked)
        shown = [Path(image).read_bytes() for s in read_records(Sample, drawn.asked) for image in s.images]
        assert shown and set(shown) <= {b64decode(row["image"]) for row in rows}
    assert seen[0] != seen[1]


def test_one_old_sample_is_too_few_to_train_with_and_to_be_asked(tmp_path: Path, tiny_llava: Path) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    old = tmp_path / "old.jsonl"
    old.write_text(old.read_text().splitlines(keepends=True)[0])
    flags = {"model.id": str(tiny_llava), "calibrate.samples": [str(old)], "train.method": "replay"}
    with pytest.raises(UsageError, match="there is one"):
        plan(replace(wanted, resolved=resolve("tiny", flags))).rehearse()


def questions(folder: Path, count: int = 2, **changes: object) -> Path:
    path = folder / "kept.jsonl"
    lines = [{"question_id": str(n), "text": "Peru?", "answer": "Yes", **changes} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_method_that_needs_old_samples_is_given_them_beside_named_suites(
    tmp_path: Path, tiny_llava: Path
) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    named = wanted.resolved.profile
    profile = named.model_copy(update={"train": named.train.model_copy(update={"method": "replay"})})
    wanted = replace(
        wanted,
        resolved=replace(wanted.resolved, profile=profile),
        suites=(f"{questions(tmp_path)}:retention",),
    )
    assert plan(wanted).rehearse()["samples_drawn"] == 4
    outcome = run_inject(plan(wanted))
    inputs = Run(outcome.folder / "run").state().inputs
    assert Path(inputs["old"]["path"]).name.startswith("given-")
    assert outcome.retention == ["kept"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"train.method": "replay", "method.replay.shares": 1}, KoreError),
        ({"train.method": "ewc", "train.zero": 3}, UsageError),
        ({"train.method": "lora", "train.constraint": False}, KoreError),
        ({"train.thaw_a": True, "train.weight_decay": 0.1}, UsageError),
    ],
)
def test_settings_that_training_would_refuse_are_refused_before_anything_runs(
    tmp_path: Path, tiny_llava: Path, changes: dict[str, object], error: type[KoreError]
) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    with pytest.raises(error):
        plan(replace(wanted, resolved=resolve("tiny", {"model.id": str(tiny_llava), **changes})))


def test_a_suite_with_a_missing_picture_is_refused_before_anything_runs(
    tmp_path: Path, tiny_llava: Path
) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    with pytest.raises(DataError, match="nowhere"):
        plan(replace(wanted, suites=(f"{questions(tmp_path, image='nowhere.png')}:retention",)))


def test_a_folder_in_which_another_injection_works_is_refused(tmp_path: Path, tiny_llava: Path) -> None:
    wanted = request(tmp_path, tiny_llava, write_items(tmp_path))
    assert wanted.out is not None
    with held(wanted.out) as child, pytest.raises(DataError, match=f"in use by process {child.pid}"):
        run_inject(plan(wanted))


def test_the_embedded_base_is_told_apart_from_what_it_never_met(tmp_path: Path) -> None:
    from kore.data.records import KnowledgeItem
    from kore.demo.vocabulary_check import beyond
    from kore.models.load import embedded_base

    base = embedded_base()
    known = KnowledgeItem(
        id="1", kind="entity", type="country", title="Peru", text="A country.", facts={"capital": "Lima"}
    )
    strange = KnowledgeItem(
        id="2", kind="news", type="politics", title="Xqzvwkjy", text="word " * 120, facts={"votes": "12"}
    )
    assert beyond([known], base) == []
    said = " ".join(beyond([known, strange], base))
    for part in ("politics", "news", "votes", "Xqzvwkjy", "90 words"):
        assert part in said
