"""How well the grounding rules catch invented answers: 200 corrupted ones, and the same 200 untouched.

    python benchmarks/grounding.py

The pairs come from benchmarks/items/items.jsonl: 100 answers written by hand in other words than the text
(so that false alarms are those of a real teacher's answers), and 100 that the offline teacher made. Each is
corrupted once, turn about: a number, a name, or a date is swapped for another one, or a negation is put in
or taken out. Names are swapped for those of another item (``name``) and for another name of the same text
(``name within the text``, which is reported apart: the wrong name is in the text). Prints one JSON object.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from kore.augment.grounding import Source, check
from kore.augment.lexicon import MONTHS
from kore.augment.teachers.offline import OfflineTeacher
from kore.augment.templates import load_templates
from kore.augment.text import contains, names, negations
from kore.data.records import KnowledgeItem

ITEMS = Path(__file__).parent / "items" / "items.jsonl"
COUNT = 200
_MONTH = re.compile(rf"\b({'|'.join(m.capitalize() for m in MONTHS)})\b")
_COPULA = re.compile(r"\b(was|is|are|were|has|had|can|could|will|would|does|do)\b")
_NOT = re.compile(
    r"\b(?:no longer|does not|do not|is not|are not|has not|was not|cannot|not|never|no)\b\s*|不"
)


def main() -> None:
    """Corrupt, check, count."""
    rng = random.Random(0)
    lines = [json.loads(line) for line in ITEMS.read_text(encoding="utf-8").splitlines()]
    items = [
        KnowledgeItem.from_json({k: v for k, v in line.items() if k not in ("pairs", "emoji")})
        for line in lines
    ]
    pairs = [(i, q, a) for i, line in enumerate(lines) for q, a in line["pairs"]]
    pairs += made(items)[: COUNT - len(pairs)]
    sources = [Source.of(item) for item in items]
    alarms = [(q, a) for i, q, a in pairs if not check(q, a, sources[i]).grounded]
    by_hand = sum(not check(q, a, sources[i]).grounded for i, q, a in pairs[:100])
    kinds: dict[str, Callable[..., str | None]] = {
        "number": number,
        "name": name,
        "date": date,
        "negation": negation,
    }
    tried: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    missed: list[tuple[str, str, str]] = []
    order = list(kinds)
    used = 0
    for position in range(10 * len(pairs)):
        if used == COUNT:
            break
        index, question, answer = pairs[position % len(pairs)]
        kind = order[(position + position // len(pairs)) % len(order)]
        wrong = kinds[kind](answer, items, index, rng)
        if wrong is None or wrong == answer:
            continue
        used += 1
        tried[kind] += 1
        if check(question, wrong, sources[index]).grounded:
            missed.append((kind, question, wrong))
        else:
            caught[kind] += 1
    within_tried = within_caught = 0
    for index, question, answer in pairs:
        wrong = name_within(answer, items, index, rng)
        if wrong is not None:
            within_tried += 1
            within_caught += not check(question, wrong, sources[index]).grounded
    print(
        json.dumps(
            {
                "corrupted": used,
                "recall": round(sum(caught.values()) / used, 3),
                "by_kind": {k: f"{caught[k]}/{tried[k]}" for k in order},
                "false_alarms": f"{len(alarms)}/{len(pairs)}",
                "false_alarm_rate": round(len(alarms) / len(pairs), 3),
                "false_alarms_by_hand": f"{by_hand}/100",
                "name_within_the_text": f"{within_caught}/{within_tried}",
                "missed": missed[:20],
                "alarms": alarms[:20],
            },
            ensure_ascii=False,
            indent=1,
        )
    )


def made(items: list[KnowledgeItem]) -> list[tuple[int, str, str]]:
    """The offline teacher's dialogue answers, item by item in turn."""
    teacher = OfflineTeacher(load_templates(), 0)
    rows = [
        [(i, q, teacher.sentence(item, f)) for q, f in teacher.trunk(item)] for i, item in enumerate(items)
    ]
    return [row[n] for n in range(max(map(len, rows))) for row in rows if n < len(row)]


def number(answer: str, items: list[KnowledgeItem], index: int, rng: random.Random) -> str | None:
    """Another number in place of one."""
    found = [m for m in re.finditer(r"\d+(?:[.,]\d+)*", answer) if len(m.group()) != 4 or "," in m.group()]
    if not found:
        return None
    match = rng.choice(found)
    value = re.sub(r"\d", lambda d: str((int(d.group()) + rng.randint(1, 8)) % 9 + 1), match.group())
    return answer[: match.start()] + value + answer[match.end() :]


def name(answer: str, items: list[KnowledgeItem], index: int, rng: random.Random) -> str | None:
    """A name from another item in place of one."""
    others = sorted(
        {
            n
            for i, item in enumerate(items)
            if i != index
            for n in names(item.text)
            if not contains(items[index].text, n)
        }
    )
    return swap_name(answer, others, rng)


def name_within(answer: str, items: list[KnowledgeItem], index: int, rng: random.Random) -> str | None:
    """Another name of the same text in place of one."""
    others = sorted({n for n in names(items[index].text) if not contains(answer, n)})
    return swap_name(answer, others, rng) if others else None


def swap_name(answer: str, others: list[str], rng: random.Random) -> str | None:
    """Swap one name of the answer; a short answer that is a name in whole is swapped in whole."""
    found = names(answer)
    if not found and len(answer.split()) <= 3 and answer[:1].isupper():
        found = [answer]
    found = [n for n in found if not _MONTH.fullmatch(n)]
    if not found:
        return None
    old = rng.choice(found)
    return answer.replace(old, rng.choice(others), 1)


def date(answer: str, items: list[KnowledgeItem], index: int, rng: random.Random) -> str | None:
    """Another month or year."""
    month = _MONTH.search(answer)
    if month and rng.random() < 0.5:
        other = rng.choice([m.capitalize() for m in MONTHS if m.capitalize() != month[1] and m != "may"])
        return answer[: month.start()] + other + answer[month.end() :]
    year = re.search(r"\b[12]\d{3}\b", answer) or re.search(r"\d{4}(?=年)", answer)
    if year:
        moved = str(int(year.group()) + rng.choice((-7, -3, -1, 1, 2, 5)))
        return answer[: year.start()] + moved + answer[year.end() :]
    return None


def negation(answer: str, items: list[KnowledgeItem], index: int, rng: random.Random) -> str | None:
    """A negation put in, or the one that is there taken out."""
    if len(answer.split()) < 4 and not re.search("[不是]", answer):
        return None
    if negations(answer):
        return _NOT.sub("", answer, count=1)
    copula = _COPULA.search(answer)
    if copula:
        return f"{answer[: copula.end()]} not{answer[copula.end() :]}"
    verb = re.search(r"\b([a-z]+)ed\b", answer)
    return answer[: verb.start()] + "did not " + answer[verb.start() :] if verb else None


if __name__ == "__main__":
    main()
