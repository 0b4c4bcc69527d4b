"""kore eval and kore compare as a whole, on a tiny model with a real adapter."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kore.artifacts.resolve_target import resolve_target
from kore.config.resolve import ModelSection
from kore.errors import DataError, GateNotMet, MissingArtefact, ProviderError, UsageError
from kore.evaluation.compare import all_flips, compare, open_side
from kore.evaluation.report import item_words, suite_rows, table_notes
from kore.evaluation.run_eval import Outcome, Request, carry_out, plan
from kore.evaluation.scorers.judged import DIMENSIONS
from kore.evaluation.types import Verdict
from tests.held import held
from tests.tsv import write_all


@pytest.fixture(scope="module")
def adapter(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter folder whose adapter changes answers."""
    import torch

    from kore.adapters import lora as adapters
    from kore.models.load import load

    backbone = load(ModelSection(id=str(tiny_llava), device="cpu"))
    torch.manual_seed(1)
    model = adapters.attach(backbone.model, backbone.family, rank=4)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.5)
    folder = tmp_path_factory.mktemp("adapter") / "mine"
    adapters.save(model, folder, {"base": backbone.fingerprint, "method": "kore", "model": str(tiny_llava)})
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "eval.jsonl"
    rows = [{"question_id": i, "text": f"What is {i}?", "answer": "x", "item": f"i{i % 3}"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def request_(adapter: Path, questions: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Base and tuned model over own questions, agreement, and benchmarks of every kind of prompt."""
    return Request(
        target=str(adapter),
        suites=[str(questions), f"agreement:{questions}", "MME", "MMDU", "MMBench", "MMMU"],
        data=data,
        out=tmp_path_factory.mktemp("out") / "results",
        settings={"model.device": "cpu", "eval.batch": 8, "eval.max_new_tokens": 4},
        export=tmp_path_factory.mktemp("export"),
        html=True,
    )


@pytest.fixture(scope="module")
def outcome(request_: Request) -> Outcome:
    return carry_out(request_)


def test_base_and_tuned_stand_in_one_table_with_counts(outcome: Outcome) -> None:
    rows = {row["method"]: row for row in outcome.summary["table"]}
    assert list(rows) == ["base", "kore"]
    assert (rows["kore"]["suites"], rows["kore"]["of"]) == (3, 4)  # MMDU has no judge; agreement stays out
    told = outcome.summary["suites"]["MMDU"]["results"]["kore"]
    assert told["headline"] is None and "needs a judge" in told["notes"][0]
    assert outcome.summary["suites"]["agreement"]["results"]["kore"]["headline"] < 100
    assert outcome.summary["suites"]["eval"]["results"]["kore"]["items"] == {
        "i0": "not",
        "i1": "not",
        "i2": "not",
    }


def test_the_result_tells_protocol_data_and_models(outcome: Outcome) -> None:
    facts = outcome.summary["suites"]["MMBench_DEV_EN"]["facts"]
    assert (
        facts["protocol"] == "vlmeval" and facts["compat"] == "vlmeval-688e9da" and facts["style"] == "llava"
    )
    models = outcome.summary["models"]
    assert models["base"]["fingerprint"] != models["kore"]["fingerprint"]
    assert outcome.summary["suites"]["MME"]["facts"]["warnings"]


def test_items_tell_what_to_augment_again(outcome: Outcome) -> None:
    lines = (outcome.out / "items" / "kore" / "eval.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"item": "i0", "verdict": "not"}
    assert item_words(outcome.summary) == [
        "eval, items by kore: 0 learned, 0 partly, 3 not; augment again: i0, i1, i2"
    ]


def test_the_outputs_are_whole(outcome: Outcome, request_: Request) -> None:
    for name in ("summary.json", "summary.csv", "summary.md", "report.html", "manifest.json"):
        assert (outcome.out / name).stat().st_size > 100
    lines = (outcome.out / "samples" / "kore" / "eval.jsonl").read_text().splitlines()
    assert {"question", "answer", "prediction", "outcome", "why"} <= json.loads(lines[0]).keys() and len(
        lines
    ) == 6
    page = (outcome.out / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and "<table>" in page
    exported = sorted(p.name for p in request_.export.iterdir()) if request_.export else []
    assert "kore_MMBench_DEV_EN.tsv" in exported and "base_MMDU.tsv" in exported


def test_the_same_command_again_asks_nothing_and_rescoring_needs_no_model(
    outcome: Outcome, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kore.evaluation.run_eval as command

    again = carry_out(replace(request_, export=None))
    assert again.summary["table"] == outcome.summary["table"]
    made = json.loads((outcome.out / "manifest.json").read_text())
    assert made["facts"]["answers"]["kore"]["asked"] == 0

    def no_model(*args: object, **options: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(command, "load_target", no_model)
    scored = carry_out(replace(request_, rescore=True, export=None, suites=[]))
    assert scored.summary["table"] == outcome.summary["table"]
    assert scored.summary["suites"] == outcome.summary["suites"]


def test_other_settings_in_the_same_folder_are_refused(outcome: Outcome, request_: Request) -> None:
    with pytest.raises(UsageError, match="max_new_tokens"):
        carry_out(replace(request_, settings={**request_.settings, "eval.max_new_tokens": 5}))


def test_the_loss_on_old_text_rises_with_the_adapter(
    adapter: Path, request_: Request, tmp_path: Path
) -> None:
    plain, samples = tmp_path / "old.jsonl", tmp_path / "chats.jsonl"
    plain.write_text(
        "".join(json.dumps({"text": f"The {n} old lines <|im_end|> stay."}) + "\n" for n in range(5))
    )
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because it is."}]
    samples.write_text(json.dumps({"id": "s", "conversations": turns}) + "\n")
    suites = [f"loss:{plain}", f"loss:{samples}"]
    asked = replace(request_, suites=suites, export=None, out=tmp_path / "out")
    first = carry_out(asked)
    for name, rows in (("loss-old", 5), ("loss-chats", 1)):
        results = first.summary["suites"][name]["results"]
        base, tuned = results["base"]["metrics"], results["kore"]["metrics"]
        assert base["rise"] == 0 and tuned["base_loss"] == base["loss"] == results["base"]["headline"]
        assert tuned["rise"] == pytest.approx(tuned["loss"] - base["loss"]) and abs(tuned["rise"]) > 1e-3
        assert results["kore"]["counts"]["samples"] == rows and results["kore"]["counts"]["tokens"] > 0
        assert f"rise {tuned['rise']:+.4f}" in (first.out / "summary.md").read_text()
    table = {row["method"]: row for row in first.summary["table"]}
    assert table["kore"]["k_r"] is None and (table["kore"]["suites"], table["kore"]["of"]) == (0, 0)
    assert table["base"]["loss_rise"] == 0 and table["kore"]["loss_rise"] != 0
    assert (
        json.loads((first.out / "summary.json").read_text())["table"][1]["loss_rise"]
        == table["kore"]["loss_rise"]
    )
    again = carry_out(asked)
    assert again.summary["table"] == first.summary["table"]
    assert json.loads((first.out / "manifest.json").read_text())["facts"]["answers"]["kore"]["asked"] == 0
    rescored = carry_out(replace(asked, rescore=True))
    assert rescored.summary["suites"] == first.summary["suites"]
    alone = carry_out(replace(asked, base=False, out=tmp_path / "alone")).summary
    assert alone["suites"]["loss-old"]["results"]["kore"]["metrics"]["rise"] == pytest.approx(
        first.summary["suites"]["loss-old"]["results"]["kore"]["metrics"]["rise"]
    )
    rows = {row.suite: row for row in compare(open_side(f"{first.out}:base"), open_side(f"{first.out}:kore"))}
    assert set(rows) == {"loss-old", "loss-chats"} and rows["loss-old"].unit == "nats"
    tuned = first.summary["suites"]["loss-old"]["results"]["kore"]
    assert rows["loss-old"].second == pytest.approx(tuned["headline"])
    assert rows["loss-old"].difference == pytest.approx(tuned["metrics"]["rise"])


def test_a_loss_equals_that_of_the_model_itself(tiny_llava: Path, tmp_path: Path) -> None:
    import torch

    from kore.evaluation.teacher_forcing import token_losses
    from kore.evaluation.text_loss import load_losses
    from kore.models.generate import Engine
    from kore.models.load import load

    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps({"text": "Old words stay in place."}) + "\n")
    engine = Engine(load(ModelSection(id=str(tiny_llava), device="cpu")))
    measured: list[tuple[int, float, int]] = []
    token_losses(engine, load_losses(path).texts, True, lambda *values: measured.append(values))
    ids = engine.encoder.tokenizer("Old words stay in place.", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = engine.backbone.model(input_ids=ids, labels=ids).loss.item()
    assert measured == [(0, pytest.approx(expected, rel=1e-4), ids.shape[1] - 1)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"text": " "}, "must not be empty"),
        ({"question_id": 1, "text": "Who?", "answer": "x"}, "neither a sample nor"),
        ({"id": "0", "text": "again"}, "twice"),
    ],
)
def test_old_text_without_text_names_its_line(tmp_path: Path, line: dict[str, str], words: str) -> None:
    from kore.evaluation.text_loss import load_losses

    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ({"id": "0", "text": "old"}, line)))
    with pytest.raises(DataError, match=words) as caught:
        load_losses(path)
    assert caught.value.where == f"{path}:2"


def _rejudged(request_: Request, out: Path, folder: Path, lines: list[dict[str, object]]) -> Outcome:
    """MMDU and MMBench scored again with recorded replies."""
    shutil.copytree(out, folder / "results")
    replies = folder / "replies.jsonl"
    replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
    suites = ["MMDU", "MMBench"]
    return carry_out(
        replace(
            request_,
            rescore=True,
            out=folder / "results",
            settings={**request_.settings, "eval.judge": f"replay:{replies}"},
            suites=suites,
            export=None,
        )
    )


def test_a_judge_whose_calls_all_failed_gives_no_score_and_exit_code_5(
    outcome: Outcome, request_: Request, tmp_path: Path
) -> None:
    judged = _rejudged(request_, outcome.out, tmp_path, [{"sample": "nobody", "reply": "A"}])
    for suite in judged.summary["suites"].values():
        for result in suite["results"].values():
            assert result["headline"] is None and not result["metrics"]
            assert result["notes"][0].startswith("not scored: the judge replied to none of")
    with pytest.raises(ProviderError, match=r"MMDU \(base\)") as caught:
        judged.check()
    assert caught.value.exit_code == 5 and (judged.out / "summary.json").is_file()
    assert judged.summary["table"][1]["k_r"] is None


def test_a_judge_that_failed_in_part_says_so_in_table_summary_and_json(
    outcome: Outcome, request_: Request, tmp_path: Path
) -> None:
    reply = "{" + ", ".join(f"'{name}': 5" for name in DIMENSIONS) + "}"
    lines = [
        {"sample": "0#0", "reply": reply},
        {"sample": "1#0", "reply": "hm"},
        {"sample": "0", "reply": "Z"},
    ]
    judged = _rejudged(request_, outcome.out, tmp_path, lines)
    result = judged.summary["suites"]["MMDU"]["results"]["kore"]
    words = result["notes"][-1]
    needed = result["counts"]["judge_asked"]
    assert words == f"judge read 1 of {needed} ({needed - 2} failed, 1 unreadable)"
    assert result["headline"] is not None
    assert f"MMDU: {words}" in table_notes(judged.summary)
    assert any(words in row["notes"] for row in suite_rows(judged.summary))
    assert words in (judged.out / "summary.md").read_text()
    stored = json.loads((judged.out / "summary.json").read_text())
    assert f"MMDU: {words}" in stored["table"][1]["notes"]


def test_gates_fail_on_what_is_low_or_not_scored(outcome: Outcome, request_: Request) -> None:
    from kore.evaluation.gates import check_gates, parse_gates

    table = [
        {"method": "base", "k_r": 80.0, "k_a": 1.0, "per_suite": {"a": 50.0}},
        {"method": "kore", "k_r": 76.0, "k_a": 30.0, "per_suite": {"a": 40.0, "b": None}},
    ]
    check_gates({"table": table}, parse_gates(["k_r=0.95", "k_a=20"]))
    for bad, words in (
        ("k_r=0.96", "0.950, below"),
        ("a=0.9", "0.800, below"),
        ("b=0.5", "not scored"),
        ("hars=1", "not scored"),
    ):
        with pytest.raises(GateNotMet, match=words) as caught:
            check_gates({"table": table}, parse_gates([bad], ["a", "b"]))
        assert caught.value.exit_code == 6
    with pytest.raises(UsageError, match="is not one of"):
        parse_gates(["nonsense=1"])
    with pytest.raises(UsageError, match="share"):
        parse_gates(["k_r=95"])
    with pytest.raises(GateNotMet):
        replace(outcome, gates={"k_a": 99.0}).check()


def test_limit_and_ids_narrow_and_are_told(request_: Request, tmp_path: Path) -> None:
    narrowed = replace(
        request_, limit=2, suites=request_.suites[:1], export=None, html=False, out=tmp_path / "o"
    )
    told = carry_out(narrowed).summary
    assert told["subset"] and told["suites"]["eval"]["results"]["kore"]["counts"]["samples"] == 2
    assert "subset of the samples" in told["suites"]["eval"]["results"]["kore"]["notes"]
    one = plan(replace(narrowed, limit=None, ids=frozenset({"4"})))
    assert [p["id"] for p in one.prompts()] == ["4"]
    with pytest.raises(UsageError, match="none of these samples"):
        plan(replace(narrowed, ids=frozenset({"none"})))


def test_a_plan_says_what_would_be_asked_and_writes_nothing(request_: Request, tmp_path: Path) -> None:
    found = plan(replace(request_, out=tmp_path / "o")).to_json()
    assert found["answers"] == 2 * found["samples"] and not (tmp_path / "o").exists()


def test_bad_targets_and_suites_say_what_to_do(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(MissingArtefact):
        plan(replace(request_, target=str(tmp_path / "gone")))
        carry_out(replace(request_, target="./gone", out=tmp_path / "x"))
    with pytest.raises(MissingArtefact, match="not a run, an adapter or a model"):
        plan(replace(request_, target=str(tmp_path)))
    with pytest.raises(MissingArtefact, match="no such file"):
        plan(replace(request_, suites=["gone.jsonl"]))
    with pytest.raises(UsageError, match="named twice"):
        plan(replace(request_, suites=["MME", "MME"]))
    with pytest.raises(UsageError, match="name its kind"):
        (tmp_path / "x.tsv").write_text("x")
        plan(replace(request_, suites=[str(tmp_path / "x.tsv")]))


def _results(folder: Path, label: str, scores: list[float], **facts: object) -> None:
    told = {"role": "retention", "near": False, "label_free": False, "facts": {"metric": "mcq", **facts}}
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    (folder / "samples" / label).mkdir(parents=True, exist_ok=True)
    (folder / "scores" / f"{label}.json").write_text(json.dumps({"suites": {"s": told}, "generation": {}}))
    verdicts = [
        Verdict(str(i), f"q{i}", "a", "p", s, "right" if s else "wrong", "why").to_json()
        for i, s in enumerate(scores)
    ]
    (folder / "samples" / label / "s.jsonl").write_text("".join(json.dumps(v) + "\n" for v in verdicts))


def test_a_clear_difference_has_an_interval_without_zero_and_chance_does_not(tmp_path: Path) -> None:
    _results(tmp_path / "a", "x", [1.0] * 80 + [0.0] * 20)
    _results(tmp_path / "b", "x", [1.0] * 50 + [0.0] * 50)
    _results(tmp_path / "c", "x", [0.0] + [1.0] * 80 + [0.0] * 19)
    far = compare(open_side(str(tmp_path / "a")), open_side(f"{tmp_path / 'b'}:x"))
    assert [row.suite for row in far] == ["s", "K.R"]
    assert far[0].difference == pytest.approx(-30) and far[0].high < -20 and far[0].low > -40 and far[0].clear
    assert (far[0].forgotten, far[0].learned) == (30, 0)
    near = compare(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "c")))
    assert not near[0].clear and near[0].low < 0 < near[0].high
    flips = all_flips(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "c")))["s"]
    assert sorted((f.id, f.gained) for f in flips) == [("0", False), ("80", True)]


def test_an_interval_of_one_sample_or_of_rounding_noise_is_not_clear(tmp_path: Path) -> None:
    _results(tmp_path / "a", "x", [0.3] * 50)
    _results(tmp_path / "b", "x", [0.1 + 0.2] * 50)
    _results(tmp_path / "c", "x", [1.0])
    _results(tmp_path / "d", "x", [0.0])
    sides = [open_side(str(tmp_path / name)) for name in "abcd"]
    noise, single = compare(sides[0], sides[1]), compare(sides[2], sides[3])
    assert not any(row.clear for row in [*noise, *single])
    assert noise[0].low < 0 < noise[0].high and single[0].high - single[0].low >= 100


def test_the_means_count_what_their_suites_forgot_and_learned(tmp_path: Path) -> None:
    _results(tmp_path / "a", "x", [1.0, 0.0, 1.0, 1.0])
    _results(tmp_path / "b", "x", [0.0, 1.0, 0.0, 1.0])
    suite, mean = compare(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "b")))
    assert (mean.suite, mean.forgotten, mean.learned) == ("K.R", 2, 1)
    assert (suite.forgotten, suite.learned, suite.samples) == (mean.forgotten, mean.learned, mean.samples)
    assert mean.difference == pytest.approx(100 * (mean.learned - mean.forgotten) / mean.samples)


def test_pairing_narrows_the_interval(tmp_path: Path) -> None:
    _results(tmp_path / "a", "x", [1.0, 0.0] * 100)
    _results(tmp_path / "b", "x", [1.0, 0.0] * 99 + [0.0, 0.0])
    row = compare(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "b")))[0]
    assert row.high - row.low < 2.5  # unpaired it would be about 20


def test_unlike_protocols_other_samples_and_missing_results_are_refused(tmp_path: Path) -> None:
    _results(tmp_path / "a", "x", [1.0, 0.0], protocol="vlmeval")
    _results(tmp_path / "b", "x", [1.0, 0.0], protocol="llava-native")
    _results(tmp_path / "c", "x", [1.0], protocol="vlmeval")
    with pytest.raises(DataError, match="protocol: vlmeval and llava-native"):
        compare(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "b")))
    with pytest.raises(DataError, match="answered different samples"):
        compare(open_side(str(tmp_path / "a")), open_side(str(tmp_path / "c")))
    with pytest.raises(MissingArtefact, match="no results"):
        open_side(str(tmp_path))


@pytest.mark.parametrize(
    ("method", "folder", "label"),
    [
        ("kore", "mine", "kore"),
        (None, "mine", "mine"),
        ("../../../x", "mine", "mine"),
        ("/etc/x", "mine", "mine"),
        ("base", "mine", "mine"),
        (["a"], "mine", "mine"),
        ("a\nb", "rag", "adapter"),
        ("x" * 300, ".x", "adapter"),
    ],
)
def test_a_label_from_an_adapter_is_a_plain_name_that_is_not_taken(
    tmp_path: Path, method: object, folder: str, label: str
) -> None:
    place = tmp_path / folder
    place.mkdir()
    (place / "adapter_config.json").write_text("{}")
    (place / "kore.json").write_text(json.dumps({"method": method}))
    assert resolve_target(str(place)).label == label


@pytest.mark.parametrize("rescore", [False, True])
def test_results_that_another_process_writes_are_refused(
    outcome: Outcome, request_: Request, rescore: bool
) -> None:
    files = [p for p in outcome.out.rglob("*") if p.is_file() and p.name != ".lock"]
    before = {p: p.stat().st_mtime_ns for p in files}
    with held(outcome.out) as child:
        for restart in (False, True):
            with pytest.raises(DataError, match=f"in use by process {child.pid}"):
                carry_out(replace(request_, restart=restart, rescore=rescore))
    assert {p: p.stat().st_mtime_ns for p in before} == before
