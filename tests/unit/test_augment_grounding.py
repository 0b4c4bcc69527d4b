"""The grounding rules: what they catch, what they let through, and the measured benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kore.augment import grow
from kore.augment.grounding import Source, check
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem

ROOT = Path(__file__).parents[2]
ITEM = KnowledgeItem(
    id="v",
    kind="news",
    type="space",
    title="Voyager 1 talks sense again",
    text="NASA's Voyager 1 resumed sending data on 20 April 2024 after five months of gibberish. "
    "Engineers in Pasadena traced the fault to a single chip. "
    "The chip could not be repaired, so Linda Spilker's team moved its code. "
    "The probe is 24 billion kilometres away.",
)
SOURCE = Source.of(ITEM)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("When did it resume?", "It resumed sending data on 20 April 2024."),
        ("How long was it silent?", "5 months"),
        ("What was at fault?", "A single chip was at fault."),
        ("Could it be repaired?", "The chip could not be repaired."),
        ("Whose team moved the code?", "Linda Spilker's"),
        ("How far is the probe?", "24 billion kilometres"),
        ("Is the probe 24 billion kilometres away?", "Yes"),
    ],
)
def test_what_the_text_says_passes(question: str, answer: str) -> None:
    found = check(question, answer, SOURCE)
    assert found.grounded, found.reasons
    assert found.evidence


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("It resumed sending data on 21 April 2024.", "number not in the text: 21"),
        ("It resumed in May 2024.", "date not in the text: may"),
        ("Suzanne Dodd's team moved its code.", "name not in the text"),
        ("The chip could be repaired.", "says yes where the text says no"),
        ("Engineers did not trace the fault to a chip.", "says no where the text says yes"),
        ("A cosmic ray corrupted the antenna's receiver.", "of its words are in the text"),
        ("Engineers traced the fault 24 months ago to a chip.", "number stands elsewhere"),
        ("", "empty answer"),
        ("No", "a bare yes or no"),
    ],
)
def test_what_it_does_not_say_is_caught_with_a_reason(answer: str, reason: str) -> None:
    found = check("What happened?", answer, SOURCE)
    assert not found.grounded and any(reason in told for told in found.reasons), found.reasons


def test_facts_are_a_source_too() -> None:
    item = KnowledgeItem(
        id="k", kind="entity", type="country", title="Kenya", text="", facts={"capital": "Nairobi"}
    )
    assert check("What is its capital?", "Nairobi", Source.of(item)).grounded
    assert not check("What is its capital?", "Mombasa", Source.of(item)).grounded


@pytest.mark.parametrize("mode", ["drop", "flag", "off"])
def test_rejected_pairs_are_dropped_or_flagged_and_listed(
    tmp_path: Path, picture: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    item = ITEM.model_copy(update={"image": str(picture)})
    replies = {
        "questions": {"questions": ["When did it resume?", "Who repaired it?"]},
        "answers": {"answers": ["On 20 April 2024.", "Elon Musk repaired it in 1999."]},
        "summary": {"summary": "Voyager 1 resumed sending data."},
        "vqa": {"quadruplets": []},
    }
    path = tmp_path / "replies.jsonl"
    path.write_text(
        "".join(
            json.dumps({"item": "v", "task": k, "text": json.dumps(v)}) + "\n" for k, v in replies.items()
        )
    )
    report = grow(
        [item],
        AugmentSection.model_validate({"teacher": f"replay:{path}", "grounding": mode}),
        tmp_path / "out",
    )
    kept = "Elon Musk" in report.samples.read_text()
    rejected = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert kept == (mode != "drop")
    assert ("Elon Musk" in rejected) == (mode != "off")
    counts = report.values["grounding"]
    assert counts["kept_though_ungrounded"] == (mode == "flag")
    assert counts["rejected"] == (mode != "off") and counts["generated"] == 3


def test_the_benchmark_catches_most_corruptions_and_spares_true_answers() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "grounding.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    result = json.loads(done.stdout)
    assert result["corrupted"] == 200
    assert result["recall"] >= 0.95
    assert result["false_alarm_rate"] <= 0.03
