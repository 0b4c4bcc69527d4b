"""``--samples neighbours:N``: old samples in the items' own phrasings, about things that the base knows.

They protect what lies near the new facts: the same questions about other things of the same kind, with the
untouched base's answers.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kore.data.read import read_records
from kore.data.records import IMAGE_MARK, KnowledgeItem, Message, Sample
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.files import hash_file, hash_json
from kore.io.jsonl import write_jsonl
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from kore.config.resolve import Profile
    from kore.models.generate import Engine

NAMES = 16  # asked of the base, per kind of item
APART = 4  # every fourth name is kept out of the covariance, for the suite "near"
LONGEST = 64  # tokens of an answer
_TEXT = re.compile(r"neighbours(?::(\d+))?")
_BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*•])?\s*")


@dataclass(frozen=True)
class Neighbours:
    """Files of samples about neighbours.

    Attributes:
        protected: for the covariance, `count` samples.
        near: about other names, to be asked.
    """

    protected: Path
    count: int
    near: Path


def split_neighbours(profile: Profile) -> tuple[Profile, int]:
    """The profile without ``neighbours[:N]`` among its sources of old samples, and N (0: not named).

    Raises:
        UsageError: they are the only source.
    """
    count, texts = 0, []
    for text in profile.calibrate.samples:
        if found := _TEXT.fullmatch(text):
            count += int(found[1] or profile.calibrate.count)
        else:
            texts.append(text)
    if count and not texts:
        raise UsageError(
            "neighbours protect only what is like the items",
            hint="name others too: --samples self:128,neighbours",
        )
    section = profile.calibrate.model_copy(update={"samples": texts})
    return profile.model_copy(update={"calibrate": section}), count


def with_neighbours(profile: Profile, neighbours: Neighbours) -> Profile:
    """The profile with these samples as one more source."""
    samples = [*profile.calibrate.samples, f"{neighbours.protected}:{neighbours.count}"]
    section = profile.calibrate.model_copy(update={"samples": samples})
    return profile.model_copy(update={"calibrate": section})


def write_neighbours(
    profile: Profile,
    items: Sequence[KnowledgeItem],
    samples: Path,
    count: int,
    folder: Path,
    progress: Progress = silent,
) -> Neighbours:
    """Write `count` samples, and some about other names, into files of `folder`; what is there is kept.

    Args:
        samples: the items' training samples, whose prompts are taken over.

    Raises:
        MissingArtefact: no such file of names. DataError: no prompt names its item, or no name is known.
    """
    from kore.models.load import fingerprint, model_folder

    listed = Path(profile.calibrate.neighbours) if profile.calibrate.neighbours else None
    if listed is not None and not listed.is_file():
        raise MissingArtefact(
            f"no such file of names: {listed}", hint="--set calibrate.neighbours=FILE: one name a line"
        )
    given = hash_file(listed) if listed else ""
    base = fingerprint(model_folder(profile.model.id))
    key = hash_json([hash_file(samples), base, profile.calibrate.seed, count, given])[:8]
    protected, near = folder / f"neighbours-{key}.jsonl", folder / f"near-{key}.jsonl"
    if not (protected.is_file() and near.is_file()):
        _write(profile, items, samples, count, listed, protected, near, progress)
    return Neighbours(protected, sum(1 for _ in read_records(Sample, protected)), near)


def _write(
    profile: Profile,
    items: Sequence[KnowledgeItem],
    samples: Path,
    count: int,
    listed: Path | None,
    protected: Path,
    near: Path,
    progress: Progress,
) -> None:
    from kore.models.generate import Engine, Prompt
    from kore.models.load import load

    stage = "neighbours"
    progress(stage, 0, count, "the base answers them")
    templates = templates_of(items, samples)
    engine = Engine(load(profile.model), batch=profile.eval.batch, max_new_tokens=LONGEST)
    new = {item.title.casefold() for item in items}
    known = _listed(listed, new) if listed else None
    names = {kind: known or _asked(engine, kind, new) for kind in templates}
    if not any(names.values()):
        raise DataError(
            "the base names nothing that is like the items",
            where=str(samples),
            hint="name some with --set calibrate.neighbours=FILE, or leave neighbours out of --samples",
        )
    apart = {name for mine in names.values() if len(mine) > 1 for name in mine[1::APART]}
    prompts = _prompts(templates, names, profile.calibrate.seed)
    done = 0

    def report(index: int, text: str) -> None:
        nonlocal done
        done += 1
        progress(stage, min(done, count - 1), count)

    for path, most in ((protected, count), (near, max(1, count // APART))):
        texts = [prompt for name, prompt in prompts if (name in apart) == (path == near)][:most]
        answers = engine.answer([Prompt.ask(text) for text in texts], on_done=report)
        pairs = [
            (question, answer)
            for question, answer in zip(texts, answers, strict=True)
            if answer and IMAGE_MARK not in answer and not any(title in answer.casefold() for title in new)
        ]
        if not pairs:
            raise DataError(
                "too few names of known things to protect some and to ask about others",
                where=str(samples),
                hint="name at least two of each kind with --set calibrate.neighbours=FILE (one a line)",
            )
        write_jsonl(path, [_sample(path.stem, n, *pair).to_json() for n, pair in enumerate(pairs)])
    progress(stage, count, count)


def _sample(stem: str, number: int, question: str, answer: str) -> Sample:
    turns = [Message(from_="human", value=question), Message(from_="gpt", value=answer)]
    return Sample(id=f"{stem}-{number}", conversations=turns)


def templates_of(items: Sequence[KnowledgeItem], samples: Path) -> dict[str, list[str]]:
    """Prompts of the training samples by the type of their item, its title replaced by ``{}``.

    Raises:
        DataError: no prompt names its item.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for sample in read_records(Sample, samples):
        for turn in sample.conversations:
            if turn.from_ != "human" or "{" in turn.value:
                continue
            text = turn.value.replace(IMAGE_MARK, "").strip()
            owner = next((item for item in items if item.title in text), None)
            if owner is None:
                continue
            template = text.replace(owner.title, "{}")
            if not any(item.title.casefold() in template.casefold() for item in items):
                found[owner.type][template] = None
    if not found:
        raise DataError(
            "no prompt names its item, so none can be asked of its neighbours", where=str(samples)
        )
    return {kind: list(texts) for kind, texts in found.items()}


def _listed(path: Path, new: set[str]) -> list[str]:
    return [n for line in path.read_text(encoding="utf-8-sig").splitlines() if (n := _name(line, new))]


def _asked(engine: Engine, kind: str, new: set[str]) -> list[str]:
    """Names of this kind that the base writes down."""
    from kore.models.generate import Prompt

    before = engine.max_new_tokens
    engine.max_new_tokens = 8 * NAMES
    try:
        prompt = Prompt.ask(f"List {NAMES} well-known names of the kind: {kind}. One name a line.")
        (text,) = engine.answer([prompt])
    finally:
        engine.max_new_tokens = before
    names = dict.fromkeys(name for line in text.splitlines() if (name := _name(line, new)))
    return list(names)[:NAMES]


def _name(line: str, new: set[str]) -> str:
    """A name from a line of a list; empty where it is none, or that of a new item."""
    text = re.split(r"\s+[-–—(:]|[:(]", _BULLET.sub("", line))[0].strip(" .,;*\"'")
    short = 0 < len(text.split()) <= 5 and text[:1].isalnum()
    return text if short and text.casefold() not in new else ""


def _prompts(
    templates: dict[str, list[str]], names: dict[str, list[str]], seed: int
) -> list[tuple[str, str]]:
    """Every phrasing with every name of its kind, as (name, prompt), in a seeded order."""
    pairs = [(n, t.replace("{}", n)) for kind, texts in templates.items() for n in names[kind] for t in texts]
    random.Random(seed).shuffle(pairs)
    return list(dict.fromkeys(pairs))
