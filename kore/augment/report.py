"""What was made, counted as in the paper's Table 24 and set beside KORE-74K."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kore.augment.fact_templates import PROMPT as FACTS
from kore.data.records import KnowledgeTree, Question, Sample
from kore.data.text import length

KORE_74K: dict[str, Any] = {
    "items": 9422,
    "samples": 74734,
    "dialogue": 9422,
    "recognition": 9422,
    "caption": 9422,
    "vqa": 46468,
    "rounds": 75710,
    "images": 65312,
    "question_words_mean": 15.5,
    "question_words_max": 44,
    "answer_words_mean": 11.9,
    "answer_words_max": 143,
}
KINDS = ("dialogue", "recognition", "caption", "vqa", "hop")


@dataclass
class Lengths:
    """Running mean and maximum."""

    count: int = 0
    total: int = 0
    most: int = 0

    def add(self, size: int) -> None:
        """Count one text of `size` words."""
        self.count += 1
        self.total += size
        self.most = max(self.most, size)

    @property
    def mean(self) -> float:
        """Mean words, one decimal."""
        return round(self.total / self.count, 1) if self.count else 0.0


@dataclass
class Tally:
    """Adds up trees and samples as they pass."""

    items: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    yes: int = 0
    no: int = 0
    images: set[str] = field(default_factory=set)
    asked: Lengths = field(default_factory=Lengths)
    answered: Lengths = field(default_factory=Lengths)
    pairs: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unchecked: int = 0
    ungrounded: int = 0
    by_template: int = 0
    empty: list[str] = field(default_factory=list)
    fallback: int = 0
    found: int = 0
    copies: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    evaluation: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def tree(self, tree: KnowledgeTree, entry: dict[str, Any]) -> None:
        """Count a tree with what was thrown away for it."""
        self.items += 1
        made = [t.made for t in tree.trunk if t.origin == "dialogue"] + [b.made for b in tree.branches]
        verdicts = [m.verdict for m in made if m is not None and m.by != "template"]
        self.pairs += len(verdicts)
        self.by_template += sum(m is not None and m.prompt == FACTS for m in made)
        self.unchecked += verdicts.count("unchecked")
        self.ungrounded += verdicts.count("ungrounded")
        for rejected in entry.get("rejected", ()):
            self.rejected[rejected["task"]] += 1
            for reason in rejected["reasons"]:
                self.reasons[
                    reason.split(":")[0].split(" ", 2)[0] if reason[:4] == "only" else reason.split(":")[0]
                ] += 1
        if not any(m is not None and m.by != "template" for m in made):
            self.empty.append(tree.item.id)
        images = tree.extra.get("images", {})
        self.fallback += bool(images.get("fallback"))
        self.found += len(images.get("kept", ()))
        self.copies += len(images.get("copies", ()))
        for note in entry.get("notes", ()):
            self.notes[note.split(":")[0]] += 1
        usage = entry.get("usage", {})
        self.calls += usage.get("calls", 0)
        self.tokens_in += usage.get("tokens_in", 0)
        self.tokens_out += usage.get("tokens_out", 0)

    def sample(self, kind: str, sample: Sample, no: str) -> None:
        """Count a sample."""
        self.kinds[kind] += 1
        self.images.update(sample.images)
        turns = [m.value for m in sample.conversations]
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            self.asked.add(length(question.replace("<image>", "")))
            self.answered.add(length(answer))
        if kind == "dialogue":
            self.rounds += len(turns) // 2
        if kind == "recognition":
            self.no += turns[1] == no
            self.yes += turns[1] != no

    def question(self, question: Question) -> None:
        """Count an evaluation question."""
        self.evaluation[question.cnn_wiki_type or "other"] += 1


def report(
    tally: Tally, *, teacher: str, encoder: str, provider: str, overlap: int, strategy: str
) -> dict[str, Any]:
    """report.json: the statistics, beside KORE-74K's."""
    total = sum(tally.kinds.values())
    rejected = sum(tally.rejected.values())
    looked_at = tally.pairs + rejected - tally.ungrounded
    counts = {
        kind: tally.kinds[kind]
        for kind in (*KINDS, *sorted(set(tally.kinds) - set(KINDS)))
        if tally.kinds[kind]
    }
    ours = {
        "items": tally.items,
        "samples": total,
        **counts,
        "rounds": tally.rounds,
        "images": len(tally.images),
        "question_words_mean": tally.asked.mean,
        "question_words_max": tally.asked.most,
        "answer_words_mean": tally.answered.mean,
        "answer_words_max": tally.answered.most,
    }
    return {
        "strategy": strategy,
        "teacher": teacher,
        "statistics": ours,
        "shares": {kind: round(n / total, 4) for kind, n in counts.items()} if total else {},
        "kore_74k": {
            **KORE_74K,
            "shares": {
                k: round(KORE_74K[k] / KORE_74K["samples"], 4)
                for k in ("dialogue", "recognition", "caption", "vqa")
            },
        },
        "recognition": {
            "yes": tally.yes,
            "no": tally.no,
            "yes_rate": _share(tally.yes, tally.yes + tally.no),
        },
        "grounding": {
            "generated": looked_at,
            "rejected": rejected,
            "rate": _share(rejected, looked_at),
            "kept_though_ungrounded": tally.ungrounded,
            "unchecked": tally.unchecked,
            "by_template": tally.by_template,
            "by_task": dict(sorted(tally.rejected.items())),
            "reasons": dict(sorted(tally.reasons.items())),
        },
        "pictures": {
            "provider": provider,
            "encoder": encoder,
            "kept": tally.found,
            "copies_left_out": tally.copies,
            "items_with_own_pictures_only": tally.fallback,
        },
        "evaluation": {
            "questions": sum(tally.evaluation.values()),
            **dict(sorted(tally.evaluation.items())),
            "overlapping_left_out": overlap,
        },
        "usage": {"calls": tally.calls, "tokens_in": tally.tokens_in, "tokens_out": tally.tokens_out},
        "nothing_made_for": tally.empty,
        "notes": dict(sorted(tally.notes.items())),
    }


def teacher_line(grounding: Mapping[str, Any], teacher: str) -> tuple[str, bool]:
    """How good a teacher was, in one line; and whether fewer than half of its pairs could be used."""
    accepted = grounding["generated"] - grounding["rejected"]
    line = f"{teacher}: {accepted} of {grounding['generated']} pairs accepted"
    if grounding["by_template"]:
        line += f", {grounding['by_template']} more on facts by template"
    poor = accepted < grounding["rejected"]
    return line + ("; another teacher, or --teacher offline, gives better data" if poor else ""), poor


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
