"""Does the item's text support a generated answer? Rules first; a judge may be asked on top.

The paper names invented training data as its first limitation. The rules look for what inventions get wrong:
numbers, dates and names that the source does not hold or holds elsewhere, a flipped negation, and answers whose
words are mostly not the source's. ``benchmarks/grounding.py`` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kore.augment.text import (
    NUMBER_WORDS,
    calendar_words,
    content_words,
    fold,
    names,
    negations,
    numbers,
    sentences,
    share,
    words,
)
from kore.records import KnowledgeItem

SUPPORT = 0.6  # share of an answer's content words that the source must hold
_YES_NO = frozenset({"yes", "no", "是", "否", "不是", "نعم", "لا"})


@dataclass(frozen=True)
class Source:
    """An item's (or two items') text, prepared for checking many answers."""

    sentences: tuple[str, ...]
    words: frozenset[str]
    stems: frozenset[str]
    numbers: frozenset[str]
    calendar: frozenset[str]

    @staticmethod
    def of(*items: KnowledgeItem) -> Source:
        """Title, text, date and facts of the items."""
        lines: list[str] = []
        for item in items:
            lines += sentences(item.text)
            lines.append(f"{item.title} ({item.type})")
            if item.date:
                lines.append(item.date)
            for key, value in item.facts.items():
                shown = ", ".join(value) if isinstance(value, list) else value
                lines.append(f"{key} {item.title}: {shown}")
        whole = "\n".join(lines)
        return Source(
            tuple(lines),
            frozenset(fold(w).removesuffix("'s") for w in words(whole)),
            frozenset(content_words(whole)),
            frozenset(numbers(whole, spelled=True)),
            frozenset(calendar_words(whole)),
        )


@dataclass(frozen=True)
class Checked:
    """The verdict on one answer, with the sentence that supports it best."""

    grounded: bool
    reasons: list[str] = field(default_factory=list)
    evidence: str | None = None


def check(question: str, answer: str, source: Source, *, support: float = SUPPORT) -> Checked:
    """Test an answer against its source.

    Args:
        question: gives context only: what it says need not be in the source.
        support: least share of content words.

    Returns:
        The verdict; reasons are in words, one per failed rule.
    """
    if not answer.strip():
        return Checked(False, ["empty answer"])
    if fold(answer).strip(" .!。") in _YES_NO:
        return _check_claim(question, answer, source)
    reasons = []
    missing = sorted(numbers(answer) - source.numbers)
    if missing:
        reasons.append(f"number not in the text: {', '.join(missing)}")
    months = sorted(calendar_words(answer) - source.calendar)
    if months:
        reasons.append(f"date not in the text: {', '.join(months)}")
    strange = [n for n in names(answer) if not _known_name(n, source)]
    if strange:
        reasons.append(f"name not in the text: {', '.join(strange)}")
    stems = content_words(answer)
    held = share(stems, source.stems | _number_stems(source))
    if held < support:
        reasons.append(f"only {held:.0%} of its words are in the text")
    said = sentences(answer)
    evidence = best_sentences(f"{question} {answer}" if len(said) == 1 else answer, source)
    if not reasons and len(said) == 1 and evidence:
        reasons += _check_place(answer, evidence[0], source)
    elif not reasons:
        for sentence in said:  # a summary draws on many sentences: each of its own is looked up by itself
            for best in best_sentences(sentence, source):
                reasons += _check_place(sentence, best, source)
    return Checked(not reasons, reasons, " ".join(evidence) or None)


def best_sentences(text: str, source: Source, count: int = 1) -> list[str]:
    """The source's sentences that share most content words with `text`, best first."""
    wanted = set(content_words(text))
    scored = []
    for position, sentence in enumerate(source.sentences):
        held = content_words(sentence)
        common = len(wanted & set(held))
        if common:
            scored.append((-common, len(held), position, sentence))
    return [s[3] for s in sorted(scored)[:count]]


def _known_name(name: str, source: Source) -> bool:
    parts = [fold(w).removesuffix("'s") for w in words(name)]
    return all(p in source.words or p in NUMBER_WORDS or p in source.calendar for p in parts)


def _number_stems(source: Source) -> set[str]:
    """Number words count as held when their digits are."""
    return {w for w, digits in NUMBER_WORDS.items() if digits in source.numbers} | set(source.numbers)


def _check_place(answer: str, best: str, source: Source) -> list[str]:
    """Rules on the best sentence: the answer's figures and names stand there or beside it, and it says yes where
    the text says yes."""
    reasons = []
    near = " ".join(_with_neighbours(best, source))
    apart = [n for n in names(answer) if not set(map(fold, words(n))) & set(map(fold, words(near)))]
    loose = sorted(numbers(answer) - numbers(near, spelled=True))
    if len(source.sentences) > 3 and loose and len(content_words(answer)) > 2:
        reasons.append(f"number stands elsewhere in the text: {', '.join(loose)}")
    if len(source.sentences) > 3 and apart and len(content_words(answer)) > 2:
        reasons.append(f"name stands elsewhere in the text: {', '.join(apart)}")
    said, meant = negations(best), negations(answer)
    if len(content_words(answer)) > 2 and bool(meant) != bool(said) and (meant or _restates(answer, best)):
        reasons.append("says no where the text says yes" if meant else "says yes where the text says no")
    return reasons


def _restates(answer: str, sentence: str) -> bool:
    """Whether the answer repeats most of the sentence, so that a missing 'not' changes its meaning."""
    return share(content_words(sentence), content_words(answer)) > 0.7


def _with_neighbours(sentence: str, source: Source) -> list[str]:
    index = source.sentences.index(sentence)
    return list(source.sentences[max(0, index - 1) : index + 2]) + list(source.sentences[-1:])


def _check_claim(question: str, answer: str, source: Source) -> Checked:
    """A yes/no answer: the question's own claim is what has to be in the source."""
    evidence = best_sentences(question, source)
    held = share(content_words(question), source.stems)
    says_no = fold(answer).strip(" .!。") in ("no", "否", "不是", "لا")
    if held >= SUPPORT and evidence and bool(negations(evidence[0])) == says_no:
        return Checked(True, [], evidence[0])
    return Checked(
        False, ["a bare yes or no that the text does not settle"], evidence[0] if evidence else None
    )
