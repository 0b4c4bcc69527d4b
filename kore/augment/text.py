"""Numbers, names and content words of a text, in any script; digits of every script count as digits."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

from kore.augment.lexicon import DAYS, MONTHS, NEGATIONS, NUMBER_WORDS, STOP_WORDS
from kore.data.text import WORD, is_unspaced, sentences, words

_NUMBER = re.compile(r"\d+(?:[.,  ]\d{3})*(?:[.,]\d+)?")


def fold(text: str) -> str:
    """Lower case, accents off, digits of every script as 0-9, typographic marks as plain ones."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", text.replace("’", "'").replace("‘", "'"))
    kept = []
    for letter in text:
        if unicodedata.category(letter) == "Mn":
            continue
        digit = unicodedata.digit(letter, None)
        kept.append(letter if digit is None else str(digit))
    return unicodedata.normalize("NFC", "".join(kept)).casefold()


def stem(word: str) -> str:
    """A crude English stem, enough to match 'attacked' with 'attack'."""
    for ending in (
        "ations",
        "ation",
        "ingly",
        "edly",
        "ings",
        "ing",
        "ies",
        "ied",
        "ers",
        "ed",
        "es",
        "ly",
        "er",
        "s",
    ):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def content_words(text: str) -> list[str]:
    """Folded, stemmed words that carry meaning."""
    return [key for word in words(text) if (key := _meaning(word))]


@functools.lru_cache(maxsize=1 << 16)
def _meaning(word: str) -> str:
    """A word's stem, empty for a word without meaning of its own."""
    folded = fold(word).removesuffix("'s")
    return "" if folded in STOP_WORDS or folded in NEGATIONS else stem(folded)


def negations(text: str) -> int:
    """How many negating words the text holds."""
    return sum(fold(w) in NEGATIONS or fold(w).endswith("n't") for w in words(text))


def numbers(text: str, *, spelled: bool = False) -> set[str]:
    """Numbers as plain digits ('1,200' is 1200, '٣' is 3); with `spelled`, number words too."""
    folded = fold(text)
    found = {_plain_number(m) for m in _NUMBER.findall(folded)}
    if spelled:
        found |= {
            NUMBER_WORDS[w]
            for w in re.split(r"[\s\-]+", re.sub(r"[^\w\s\-]", " ", folded))
            if w in NUMBER_WORDS
        }
    return found


def _plain_number(text: str) -> str:
    text = re.sub(r"[.,  ](?=\d{3}(?:\D|$))", "", text).replace(",", ".").rstrip(".")
    whole, _, part = text.partition(".")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{part}" if part.strip("0") else whole


def calendar_words(text: str) -> set[str]:
    """Month and weekday names in the text ('May' only when capitalised)."""
    found = set()
    for word in words(text):
        folded = fold(word)
        if folded in MONTHS or folded in DAYS:
            if folded in ("may", "march") and not word[0].isupper():
                continue
            found.add(folded)
    return found


def names(text: str) -> list[str]:
    """Capitalised words and runs of them, the first word of a sentence only within a run."""
    found: list[str] = []
    for sentence in sentences(text):
        run: list[str] = []
        end = 0
        for position, match in enumerate(WORD.finditer(sentence)):
            word = match.group()
            proper = word[0].isupper() and fold(word) not in STOP_WORDS
            if run and not (proper and sentence[end : match.start()] == " "):
                _close(run, found)
                run = []
            if proper:
                run.append(word if position else f"\0{word}")
            end = match.end()
        _close(run, found)
    return found


def _close(run: list[str], found: list[str]) -> None:
    if not run:
        return
    if len(run) == 1 and run[0].startswith("\0"):
        return  # a lone capital at the start of a sentence tells nothing
    found.append(" ".join(run).replace("\0", ""))


def word_limit(text: str, limit: int) -> int:
    """How many 'words' stand for `limit` words: two letters each in a script without spaces."""
    return 2 * limit if is_unspaced(text) else limit


def language(text: str) -> str:
    """zh, ar or en: whose templates suit a text, by its script; kana are no Chinese."""
    if text.isascii():  # most texts, and this is asked of each many times
        return "en"
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return "en"
    if any("\u3040" <= c <= "\u30ff" for c in letters):
        return "en"
    if sum("\u4e00" <= c <= "\u9fff" for c in letters) > 0.3 * len(letters):
        return "zh"
    if sum("\u0600" <= c <= "\u06ff" for c in letters) > 0.3 * len(letters):
        return "ar"
    return "en"


def contains(text: str, part: str) -> bool:
    """Whether `part` occurs in `text` as whole words, case and accents aside."""
    inner = [fold(w).removesuffix("'s") for w in words(part)]
    folded = fold(text)
    if not inner or not all(word in folded for word in inner):  # seen at a glance, and the usual case
        return False
    outer = [fold(w).removesuffix("'s") for w in words(text)]
    size = len(inner)
    return any(outer[i : i + size] == inner for i in range(len(outer) - size + 1))


def share(part: Iterable[str], whole: Iterable[str]) -> float:
    """Share of the words of `part` that occur in `whole`; 1 when there is none."""
    inner, outer = list(part), set(whole)
    return sum(w in outer for w in inner) / len(inner) if inner else 1.0
