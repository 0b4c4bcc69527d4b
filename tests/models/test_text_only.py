"""Text-only models in every stage, and items without images on models that see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run
from kore.config.resolve import ModelSection, TrainSection, resolve
from kore.data.read import read_records
from kore.data.records import Sample
from kore.errors import DataError, UsageError
from kore.evaluation.agreement import load_agreement
from kore.evaluation.questions import load_questions
from kore.evaluation.text_only import without_images
from kore.io.jsonl import read_jsonl
from kore.methods.load_adapter import load_adapter
from kore.methods.registry import make_method
from kore.models.generate import Engine, Prompt
from kore.models.load import load
from kore.models.processing import IGNORED, Encoder
from kore.models.self_samples import LONGEST_ANSWER, self_samples
from kore.training.run import train
from kore.workflows.inject import Request, plan
from kore.workflows.injection import run_inject
from kore.workflows.self_samples import unwritten, with_self_samples
from tests.cli.command import kore, said
from tests.models.families import CASES


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CASES["llama"].build(tmp_path_factory.mktemp("models") / "llama")


def lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def sample(name: str, image: str | None = None) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "<image>\n" * bool(image) + "Peru?"},
        {"from": "gpt", "value": f"Yes {name}"},
    ]
    return {"id": name, "image": image, "conversations": turns}


def items(folder: Path, image: str | None = None) -> Path:
    return lines(
        folder / "items.jsonl",
        *(
            {
                "id": f"i{number}",
                "kind": "entity",
                "type": "country",
                "title": title,
                "text": f"{title} is a country. Its capital is {capital}.",
                "facts": {"capital": capital},
                **({"image": image} if image else {}),
            }
            for number, (title, capital) in enumerate([("Peru", "Lima"), ("Kenya", "Nairobi")])
        ),
    )


def flags(model: Path, old: Path) -> dict[str, Any]:
    return {
        "model.id": str(model),
        "calibrate.samples": [f"{old}:4"],
        "adapter.rank": 4,
        "train.max_steps": 2,
        "train.batch": 4,
        "eval.max_new_tokens": 4,
        "augment.copies": 1,
    }


@pytest.mark.parametrize("kind", ["text-only", "vision"])
@pytest.mark.parametrize("shown", [False, True])
def test_items_are_taught_with_and_without_images(
    kind: str, shown: bool, llama: Path, tiny_llava: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30), (9, 90, 200)).save(tmp_path / "flag.png")
    old = lines(
        tmp_path / "old.jsonl", *(sample(str(n), "flag.png" if n % 2 and shown else None) for n in range(8))
    )
    model = llama if kind == "text-only" else tiny_llava
    request = Request(
        str(items(tmp_path, "flag.png" if shown else None)),
        resolve("tiny", flags(model, old)),
        tmp_path / "out",
    )
    planned = plan(request)
    assert any("reads no images" in note for note in planned.notes) == (kind == "text-only" and shown)
    assert planned.rehearse()["linears"]
    outcome = run_inject(planned)
    assert sum(outcome.items.values()) == 2
    trained = [record for _, record in read_jsonl(tmp_path / "out" / "tree" / "samples.jsonl")]
    questions = [record for _, record in read_jsonl(tmp_path / "out" / "tree" / "eval.jsonl")]
    sees = kind == "vision" and shown
    assert any(record.get("image") for record in trained) == sees
    assert any(record.get("image") for record in questions) == sees


def test_a_text_only_model_goes_through_the_commands(llama: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (9, 90, 200)).save(tmp_path / "flag.png")
    lines(tmp_path / "old.jsonl", *map(sample, "abcdef"))
    settings = ["--set", "train.max_steps=1", "--set", "eval.max_new_tokens=3"]
    done = kore("calibrate", "--model", llama, "--samples", "old.jsonl", "-o", "c", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = kore("calibrate", "--model", llama, "--samples", "old.jsonl", "--offload", "-o", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = kore(
        "train",
        "--data",
        "old.jsonl",
        "--covariance",
        "c",
        "--model",
        llama,
        "--rank",
        "4",
        "-o",
        "run",
        *settings,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines(
        tmp_path / "eval.jsonl",
        {
            "question_id": "q",
            "image": "flag.png",
            "text": "Which?",
            "answer": "Lima",
            "type": "country",
            "cnn_wiki_type": "wiki",
        },
    )
    done = kore("eval", "run", "--suite", "eval.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 0 and "asked without their images" in done.stderr, done.stderr
    done = kore("chat", "run", "--json", stdin='{"text": "Peru?"}\n', cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[0]), done.stderr
    done = kore("chat", "run", "--json", stdin='{"text": "Peru?", "image": "flag.png"}\n', cwd=tmp_path)
    assert "reads no images" in done.stdout + done.stderr
    for form in ("peft", "merged", "vllm"):
        done = kore("export", "run", "--to", form, "-o", form, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "AutoModelForCausalLM" in card and "text-generation" in card
    done = kore("show", "--model", llama, "--json")
    rows = json.loads(done.stdout)["linears"]
    assert {row["pattern"].rpartition(".")[2]: row["adapted"] for row in rows}["lm_head"] is False


@pytest.mark.parametrize("name", ["lora", "full", "moelora", "olora", "cia", "lwf", "sefe", "ewc", "replay"])
def test_every_method_trains_a_text_only_model(name: str, llama: Path, tmp_path: Path) -> None:
    backbone = load(ModelSection(id=str(llama)))
    old = [Sample.model_validate(sample(n)) for n in "abcd"]
    run = Run(tmp_path / "run")
    settings = TrainSection(method=name, batch=2, max_steps=1)
    with EventWriter(run.folder) as events:
        result = train(backbone, old[:2], settings, make_method(name), run, events, rank=4, old=old[2:])
    assert result.steps == 1 and result.loss > 0
    again = load(ModelSection(id=str(llama)))
    load_adapter(again, run.adapter)
    assert Engine(again, max_new_tokens=2).answer([Prompt.ask("Peru?")])


def test_suites_are_asked_of_a_text_only_model_as_far_as_text_goes(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (9, 90, 200)).save(tmp_path / "flag.png")
    question = {"answer": "Lima", "type": "country", "cnn_wiki_type": "wiki"}
    path = lines(
        tmp_path / "eval.jsonl",
        {"question_id": "a", "image": "flag.png", "text": "<image>\nWhich?", **question},
        {"question_id": "b", "text": "What?", **question},
    )
    old = lines(tmp_path / "old.jsonl", sample("a"), sample("b", "flag.png"))
    suites, notes = without_images(
        [load_questions(path), load_questions(path, name="kept", role="retention"), load_agreement(old)]
    )
    assert [len(suite) for suite in suites] == [2, 1, 1] and len(notes) == 3
    assert not any(
        turn.images or "<image>" in turn.text for s in suites for t in s.tasks() for turn in t.turns
    )
    shown = lines(tmp_path / "shown.jsonl", sample("b", "flag.png"))
    with pytest.raises(UsageError, match="every suite asks about some"):
        without_images([load_agreement(shown)])


def test_a_model_without_a_chat_template_is_refused_with_the_remedy(llama: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "base"
    shutil.copytree(llama, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="no chat template") as caught:
        load(ModelSection(id=str(folder)))
    assert "instruct version" in str(caught.value.hint)
    done = kore("chat", folder, stdin="Hello\n")
    assert done.returncode and "no chat template" in "".join(said(done))


THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def test_labels_are_placed_where_the_template_writes_the_last_reply_otherwise(llama: Path) -> None:
    """As Qwen3's does: an empty thought stands before the last reply alone."""
    backbone = load(ModelSection(id=str(llama)))
    backbone.processor.chat_template = THINKING
    turns = [("human", "Lima?"), ("gpt", "Lima"), ("human", "Red?"), ("gpt", "Red")]
    record = {"id": "s", "conversations": [{"from": who, "value": text} for who, text in turns]}
    features = Encoder(backbone.processor).training(Sample.model_validate(record))
    learned = features["input_ids"][features["labels"] != IGNORED]
    assert backbone.processor.decode(learned) == "Lima<|im_end|>Red<|im_end|>"


def test_a_model_writes_its_own_old_samples_once(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", str(tmp_path / "home"))
    # a random model seldom ends its turns
    monkeypatch.setattr("kore.workflows.self_samples.SPARE", 1)
    monkeypatch.setattr("kore.models.self_samples._TRIES", 200)
    profile = resolve("tiny", {"model.id": str(llama), "calibrate.samples": ["self:2"]}).profile
    assert unwritten(profile) == 2
    reports: list[tuple[str, int]] = []
    written = with_self_samples(
        profile, lambda stage, done, total=None, note="": reports.append((stage, done))
    )
    (text,) = written.calibrate.samples
    path, _, count = text.rpartition(":")
    assert count == "2" and unwritten(profile) is None and reports[-1] == ("old samples", 3)
    samples = list(read_records(Sample, path))
    assert len({s.conversations[0].value for s in samples}) == len(samples) == 3
    backbone = load(ModelSection(id=str(llama)))
    engine = Engine(backbone, max_new_tokens=LONGEST_ANSWER)
    first = samples[0].conversations
    assert engine.answer([Prompt.ask(first[0].value)]) == [first[1].value]
    before = Path(path).read_bytes()
    assert with_self_samples(profile) == written and Path(path).read_bytes() == before
    with pytest.raises(DataError, match="usable conversations of 1000000"):
        self_samples(backbone, 1_000_000, tries=16)


def test_neighbours_of_the_items_are_protected_and_asked(llama: Path, tmp_path: Path) -> None:
    old = lines(tmp_path / "old.jsonl", *map(sample, "abcdefgh"))
    names = tmp_path / "names.txt"
    names.write_text("1. Chile\n- Ghana (Africa)\nPeru\nOman\n\nNepal - a country\nMali\nCuba\nFiji\nTogo\n")
    chosen = flags(llama, old) | {
        "calibrate.samples": [f"{old}:4", "neighbours:6"],
        "calibrate.neighbours": str(names),
    }
    request = Request(str(items(tmp_path)), resolve("tiny", chosen), tmp_path / "out")
    assert plan(request).rehearse()["neighbours"] == 6
    result = run_inject(plan(request))
    (protected,) = (tmp_path / "out").glob("neighbours-*.jsonl")
    (near,) = (tmp_path / "out").glob("near-*.jsonl")
    told = {
        path: [s.conversations[0].value for s in read_records(Sample, path)] for path in (protected, near)
    }
    assert (
        told[protected]
        and told[near]
        and not any("Peru" in q or "Kenya" in q for qs in told.values() for q in qs)
    )
    used = {
        path: {n for n in ("Chile", "Ghana", "Nepal", "Togo", "Mali") if any(n in q for q in told[path])}
        for path in told
    }
    assert not used[protected] & used[near]
    manifest = json.loads((tmp_path / "out" / "covariance" / "manifest.json").read_text())
    assert "neighbours" in manifest["facts"]["label"]
    assert result.table[-1]["k_r_near"] is not None and "near" in result.retention
    before = protected.read_bytes(), near.read_bytes()
    assert run_inject(plan(request)).table == result.table
    assert (protected.read_bytes(), near.read_bytes()) == before
    alone = chosen | {"calibrate.samples": ["neighbours"]}
    with pytest.raises(UsageError, match="neighbours protect only"):
        plan(Request(request.items, resolve("tiny", alone), tmp_path / "other")).rehearse()
