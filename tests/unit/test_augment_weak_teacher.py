"""A teacher that echoes, asks nothing, or gives the title for an answer: what it writes is not trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kore.augment import grow
from kore.augment.pair_checks import pair_faults
from kore.augment.report import teacher_line
from kore.config.schema import AugmentSection
from kore.data.read import read_records
from kore.data.records import KnowledgeItem, Question, Sample

KENYA = KnowledgeItem(
    id="k",
    kind="entity",
    type="country",
    title="Kenya",
    text="Kenya is a country in Africa. Its capital is Nairobi. Its currency is the shilling.",
    facts={"capital": "Nairobi", "currency": "shilling"},
)


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("The capital of Kenya is Nairobi.", "The capital of Kenya is Nairobi.", "not a question"),
        ("What is the capital of Kenya?", "Kenya", "the answer is the title"),
        ("What is the capital of Kenya?", "The capital of Kenya", "repeats the question"),
        ("What is the capital of Kenya?", "What is the capital of Kenya?", "repeats the question"),
    ],
)
def test_what_a_weak_model_writes_is_rejected_with_the_reason(question: str, answer: str, fault: str) -> None:
    assert any(fault in text for text in pair_faults(question, answer, KENYA))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of Kenya?", "Nairobi"),
        ("What is the capital of Kenya?", "The capital of Kenya is Nairobi."),
        ("Which country is this?", "Kenya"),
        ("Name the currency of Kenya.", "shilling"),
        ("肯尼亚的首都是哪里", "内罗毕"),
    ],
)
def test_good_pairs_pass(question: str, answer: str) -> None:
    assert pair_faults(question, answer, KENYA) == []


def replies(folder: Path, **texts: object) -> str:
    path = folder / "replies.jsonl"
    lines = [{"item": "k", "task": task, "text": json.dumps(text)} for task, text in texts.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"replay:{path}"


def test_every_fact_is_taught_and_asked_whatever_the_teacher_writes(tmp_path: Path) -> None:
    teacher = replies(
        tmp_path,
        questions={"questions": ["What is the capital of Kenya?", "Kenya is a country."], "keys": ["", ""]},
        answers={"answers": ["Kenya", "Kenya is a country."]},
        summary={"summary": "A country in Africa."},
        vqa={"quadruplets": []},
    )
    report = grow(
        [KENYA], AugmentSection(teacher=teacher, images="none", questions=2, vqa=2), tmp_path / "tree"
    )
    grounding = report.values["grounding"]
    assert grounding["rejected"] == 2 and grounding["by_template"] >= 2
    taught = {
        m.value for s in read_records(Sample, report.samples) for m in s.conversations if m.from_ == "gpt"
    }
    assert {"Nairobi", "shilling"} <= {
        text.strip(".") for text in taught
    } and "Kenya is a country." not in taught
    asked = {q.answers[0] for q in read_records(Question, report.questions)}
    assert {"Nairobi", "shilling"} <= asked
    line, poor = teacher_line(grounding, "replay")
    assert poor and "0 of 2 pairs accepted" in line and "--teacher offline" in line
