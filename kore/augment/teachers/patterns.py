"""What can be asked about an item without a model: its facts, and what simple patterns find in its
sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kore.augment.lexicon import MONTHS
from kore.augment.text import (
    contains,
    content_words,
    fold,
    names,
    negations,
    word_limit,
)
from kore.data.records import KnowledgeItem
from kore.data.text import clip, is_unspaced, length, sentences

BLANK = "____"
_MONTH = "|".join(m.capitalize() for m in MONTHS)
_DATE = re.compile(
    rf"(?:\b(?:[Ii]n|[Oo]n|[Ss]ince)\s+)?(?P<value>(?:(?:{_MONTH})\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,\s*|\s+)\d{{4}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:{_MONTH})(?:\s+\d{{4}})?|(?:{_MONTH})\s+\d{{4}}|(?:{_MONTH})\s+\d{{1,2}}\b|\b[12]\d{{3}}\b(?!\s*(?:[%$€£]|\w+s\b))))"
)
_IN_DATE = re.compile(rf"\b(?:[Ii]n|[Oo]n|[Ss]ince)\s+(?:{_DATE.pattern})")
_HAN_DATE = re.compile(
    r"(?P<value>\d{2,4}\s*年(?:\s*\d{1,2}\s*月)?(?:\s*\d{1,2}\s*日)?|\d{1,2}\s*月\s*\d{1,2}\s*日)"
)
_LETTER = r"[A-Za-zÀ-ɏ\d]"  # a figure is not part of a word: 'X1', '1560s'
_FIGURE = re.compile(
    rf"(?<!{_LETTER})(?<!\d[.,])(?P<value>[$€£¥]?\d+(?:[.,]\d+)*(?:\s?%|\s+(?:percent|per cent|million|"
    r"billion|thousand|metres|meters|kilometres|kilometers|km|kg|miles|years|people|tonnes)\b(?![²³]))?)"
    rf"(?!{_LETTER})"
)
_QUOTED = re.compile(r"[《「『“\"«](?P<value>[^《》「」『』“”\"«»]{2,40})[》」』”\"»]")
_IS = re.compile(
    r"^(?P<subject>[^,;:()]{2,80}?)(?:\s+\([^()]*\))?\s+(?:is|was|are|were)\s+"
    r"(?P<value>(?:an?|the|one of)\s+[^;:()]{3,90}?)"
    r"(?=[,.;]|\s+(?:that|which|who|whose|where|and)\s|$)"
)
_IS_HAN = re.compile(r"^(?P<subject>[^,，。;；是]{2,20})是(?P<value>[^,，。;；]{2,30})")
_ATTRIBUTE = (
    r"^(?:The|Its|His|Her|Their) (?P<key>[a-z][a-z ]{{2,24}}?)(?: of (?:the )?{title})? "
    r"(?:is|was|are|were) (?P<value>[^.;:!?]{{2,60}})[.!?]?$"
)
_BEFORE_DATE = re.compile(
    r"(?:\b(?:from|to|until|till|by|before|after|between|and|of|at|through)\s+|[(–—-]\s*)$", re.IGNORECASE
)
_AFTER_DATE = re.compile(r"\s*(?:[–—-]|(?:,|and|or|to)\s*[12]\d{3}\b)")
_COMPLEMENT = re.compile(r"\b(?:is|was|are|were)\s+(?P<value>[^.;:!?]{3,60})[.!?]?$")
_PRONOUN = re.compile(r"^(?:It|He|She|They|This|The (?:\w+ )?(?P<noun>\w+))\b(?!')")


@dataclass(frozen=True)
class Finding:
    """Something to ask: which template family, the answer, and the sentence or fact that states it.

    Attributes:
        key: ``facts.NAME``, ``patterns.is``, ``patterns.when`` or ``patterns.gap``.
        sentence: what the template's ``{x}`` is filled with, the answer left out.
    """

    key: str
    answer: str
    evidence: str
    sentence: str = ""


def findings(item: KnowledgeItem) -> list[Finding]:
    """Facts first, then one finding at most per sentence; none repeats an answer of another."""
    found = [
        Finding(f"facts.{key}", ", ".join(v) if isinstance(v, list) else v, f"{key}: {v}")
        for key, v in item.facts.items()
        if v
    ]
    told = {fold(f.answer) for f in found}
    facts = [v for f in found for v in f.answer.split(", ")]
    for sentence in sentences(item.text):
        if not 4 <= length(sentence) <= 60 or any(contains(sentence, v) for v in facts):
            continue
        for finding in _in_sentence(with_subject(sentence, item), item):
            fresh = fold(finding.answer) not in told and not contains(item.title, finding.answer)
            if fresh and _worth_asking(finding):
                told.add(fold(finding.answer))
                found.append(finding)
                break
    return found


def with_subject(sentence: str, item: KnowledgeItem) -> str:
    """The sentence with the entity's name in place of a leading pronoun or 'The <type>'."""
    if item.kind != "entity" or contains(sentence, item.title):
        return sentence
    match = _PRONOUN.match(sentence)
    if not match or (match["noun"] and fold(match["noun"]) != fold(item.type)):
        return sentence
    return item.title + sentence[match.end() :]


def _in_sentence(sentence: str, item: KnowledgeItem) -> Iterator[Finding]:
    stated = re.match(_ATTRIBUTE.format(title=re.escape(item.title)), sentence)
    if stated and (item.title in sentence or not sentence.startswith("The ")) and item.kind == "entity":
        value = re.sub(r"^(?:the|a|an) ", "", stated["value"])
        yield Finding(f"facts.{stated['key']}", value, sentence)
    match = _IS.match(sentence) or _IS_HAN.match(sentence)
    if match and fold(match["subject"]).strip() in (fold(item.title), f"the {fold(item.title)}"):
        yield Finding("patterns.is", match["value"].strip(), sentence)
    for pattern in (_IN_DATE, _DATE, _HAN_DATE):
        if when := pattern.search(sentence):
            before, after = sentence[: when.start()], sentence[when.end() :]
            # 'from 1707 to 1708', '(1867–1934)' and 'in 1958, 1962 and 1970' cannot do without their dates
            bound = _BEFORE_DATE.search(before) or _AFTER_DATE.match(after)
            if bound or (pattern is _HAN_DATE and (before or not after.startswith(("，", ",", "、")))):
                yield _gap(sentence, when["value"], when.start("value"))
                return
            rest = before + after
            rest = re.sub(r"\s{2,}", " ", re.sub(r"^[\s,，]+|\s+(?=[,.])", "", rest)).strip()
            if length(rest) >= 3:
                yield Finding("patterns.when", when["value"], sentence, rest[:1].upper() + rest[1:])
            return
    for pattern in (_QUOTED, _FIGURE):
        if gap := pattern.search(sentence):
            yield _gap(sentence, gap["value"], gap.start("value"))
    for name in sorted(names(sentence), key=len, reverse=True):
        if not contains(item.title, name) and not contains(name, item.title):
            yield _gap(sentence, name, sentence.index(name))
            return
    complement = _COMPLEMENT.search(sentence)
    if complement and not negations(complement["value"]):
        yield _gap(sentence, complement["value"], complement.start("value"))
        return
    if tail := _last_phrase(sentence):
        yield _gap(sentence, tail, sentence.rindex(tail))


def _worth_asking(found: Finding) -> bool:
    """A gap needs something around it."""
    return not found.key.endswith(".gap") or len(content_words(found.sentence.replace(BLANK, " "))) >= 2


def _gap(sentence: str, answer: str, start: int) -> Finding:
    return Finding(
        "patterns.gap", answer, sentence, f"{sentence[:start]}{BLANK}{sentence[start + len(answer) :]}"
    )


def _last_phrase(sentence: str) -> str | None:
    """The end of the sentence: its last two words, or last clause in a script without spaces."""
    body = sentence.rstrip(' .!?。！？؟"”»')
    if is_unspaced(body):
        clause = re.split(r"[,，、;；]", body)[-1]
        return clause if 2 <= len(clause) <= 14 else (clause[-4:] if len(clause) > 4 else None)
    parts = body.split()
    return " ".join(parts[-2:]) if len(parts) >= 5 else None


def summary(item: KnowledgeItem, statements: list[str], limit: int = 25) -> str:
    """The first sentences of the text that fit, or of the facts' statements."""
    text = item.text.strip() or " ".join(statements)
    if not text:
        return ""
    resolved = [with_subject(s, item) for s in sentences(text)]
    gap = "" if is_unspaced(text) else " "
    return clip(gap.join(resolved), word_limit(text, limit))
