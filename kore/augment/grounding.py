"""Does the item's text support a generated answer? Rules first; a judge may be asked on top.

The paper names invented training data as its first limitation. The rules look for what inventions get wrong:
numbers, dates and names that the source does not hold or holds elsewhere, a flipped negation, and answers
whose words are mostly not the source's. ``benchmarks/grounding.py`` measures them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kore.augment.lexicon import NEGATIONS, NUMBER_WORDS, STOP_WORDS
from kore.augment.text import (
    calendar_words,
    content_words,
    fold,
    names,
    negations,
    numbers,
    share,
    stem,
)
from kore.data.records import KnowledgeItem
from kore.data.text import sentences, words

SUPPORT = 0.6  # share of an answer's content words that the source must hold
SAME_CLAIM = 0.5  # an answer that shares this much of a clause makes the same claim, or denies it
NEAR = 1  # sentences to either side that may still hold an answer's names
_CLAUSE = re.compile(r"[,;:，；、،]|\b(?:but|because|since|although|while|and|which|who)\b")
_OPENER = re.compile(
    r"(?:people|because|going|once|each|every|around|nearly|almost|roughly|both|another|today|researchers|scientists|"
    r"officials|someone|nobody|there|yes|only|over|under|more|less|most|several|many|few|one|two|three|part|mostly|"
    r"mainly|usually|often|later|earlier|currently|originally|being|having|like|unlike|together|instead|however)$"
)
_YES_NO = frozenset({"yes", "no", "是", "否", "不是", "نعم", "لا"})


@dataclass(frozen=True)
class Source:
    """An item's (or two items') text, prepared for checking many answers.

    Attributes:
        sentences: the text's sentences, then lines for title, date and facts.
        bags: the content words of each.
    """

    sentences: tuple[str, ...]
    bags: tuple[frozenset[str], ...]
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
        bags = tuple(frozenset(content_words(line)) for line in lines)
        found = frozenset(numbers(whole, spelled=True))
        # a number word counts as held when its digits are
        spelled = {word for word, digits in NUMBER_WORDS.items() if digits in found}
        return Source(
            tuple(lines),
            bags,
            frozenset(fold(w).removesuffix("'s") for w in words(whole)),
            frozenset().union(*bags, spelled, found),
            found,
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
    strange = [n for n in [*names(answer), *_first_word(answer, question)] if not _known_name(n, source)]
    if strange:
        reasons.append(f"name not in the text: {', '.join(strange)}")
    stems = content_words(answer)
    held = share(stems, source.stems)
    if held < support:
        reasons.append(f"only {held:.0%} of its words are in the text")
    said = sentences(answer)
    evidence = best_sentences(answer, source, question if len(said) == 1 else "")
    if not reasons and len(said) == 1 and evidence:
        reasons += _check_place(answer, evidence[0], source)
    elif not reasons:
        for sentence in said:  # a summary draws on many sentences: each of its own is looked up by itself
            for best in best_sentences(sentence, source):
                reasons += _check_place(sentence, best, source)
    return Checked(not reasons, reasons, " ".join(evidence) or None)


def best_sentences(text: str, source: Source, question: str = "", count: int = 1) -> list[str]:
    """The source's sentences that share most content words with `text`, best first; a word shared with the
    question counts half."""
    wanted, asked = set(content_words(text)), set(content_words(question))
    scored = []
    for position, held in enumerate(source.bags):
        common = 2 * len(wanted & held) + len((asked - wanted) & held)
        if common:
            scored.append((-common, len(held), position))
    return [source.sentences[position] for _, _, position in sorted(scored)[:count]]


def _first_word(answer: str, question: str) -> list[str]:
    """The first word of each sentence where it may be a name: not a common opener, an -ing form or a word of
    the
    question."""
    asked = {fold(w) for w in words(question)}
    found = []
    for sentence in sentences(answer):
        first = next(iter(words(sentence)), "")
        folded = fold(first).removesuffix("'s")
        known = folded in STOP_WORDS | NEGATIONS | asked or folded in NUMBER_WORDS or _OPENER.match(folded)
        if first[:1].isupper() and not known and not folded.endswith(("ing", "ly")):
            found.append(first)
    return found


def _known_name(name: str, source: Source) -> bool:
    parts = [fold(w).removesuffix("'s") for w in words(name)]
    return all(
        p in source.words or stem(p) in source.stems or p in NUMBER_WORDS or p in source.calendar
        for p in parts
    )


def _check_place(answer: str, best: str, source: Source) -> list[str]:
    """Rules on the best sentence: the answer's figures and names stand there or beside it, and it says yes
    where
    the text says yes."""
    reasons = []
    bag = content_words(answer)
    if len(source.sentences) > 3 and len(bag) > 2:
        near = " ".join(_with_neighbours(best, source))
        held = {fold(w).removesuffix("'s") for w in words(near)}
        apart = [n for n in names(answer) if not {fold(w).removesuffix("'s") for w in words(n)} & held]
        loose = sorted(numbers(answer) - numbers(near, spelled=True))
        if loose:
            reasons.append(f"number stands elsewhere in the text: {', '.join(loose)}")
        if apart:
            reasons.append(f"name stands elsewhere in the text: {', '.join(apart)}")
    return reasons + _check_claims(answer, best)


def _check_claims(answer: str, best: str) -> list[str]:
    """Clause by clause, does the answer deny what the sentence says, or say what it denies?"""
    theirs = [(content_words(part), negations(part)) for part in _CLAUSE.split(best)]
    for part in _CLAUSE.split(answer):
        bag, denied = content_words(part), negations(part)
        if not bag or (not denied and len(words(part)) < 4):
            continue  # a bare phrase claims nothing by itself
        clause, said = max(theirs, key=lambda pair: share(bag, pair[0]))
        near = share(bag, clause) >= SAME_CLAIM and (len(bag) > 1 or len(clause) <= 2)
        if near and bool(denied) != bool(said):
            return ["says no where the text says yes" if denied else "says yes where the text says no"]
    return []


def _with_neighbours(sentence: str, source: Source) -> list[str]:
    """The sentence, those beside it, and the line with the title."""
    index = source.sentences.index(sentence)
    title = [line for line in source.sentences if line.endswith(")") and "(" in line][-1:]
    return list(source.sentences[max(0, index - NEAR) : index + NEAR + 1]) + title


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
