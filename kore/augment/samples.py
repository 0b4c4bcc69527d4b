"""Trees to training samples, in LLaVA's form; several phrasings of each with `copies`."""

from __future__ import annotations

from collections.abc import Iterator

from kore.augment.branches import named, point_at
from kore.augment.fit import Fitter, Pair, to_sample
from kore.augment.teachers.offline import tier_of
from kore.augment.templates import Templates, draw, fill
from kore.augment.trunk import heuristic
from kore.data.records import Branch, KnowledgeItem, KnowledgeTree, Sample, Turn


def samples(
    tree: KnowledgeTree,
    templates: Templates,
    seed: int,
    copies: int = 1,
    fitter: Fitter | None = None,
    *,
    names: bool = False,
) -> Iterator[Sample]:
    """All samples of a tree: a dialogue, and one per branch; each in `copies` different phrasings.

    A copy takes the next phrasing and, for the item's own pictures, the next picture. A teacher's texts stay
    as they are; only how the picture's subject is pointed at changes.

    Args:
        fitter: splits what the model cannot hold, and leaves out what cannot be split.
        names: also ask for an entity's name alone, as a short answer.
    """
    if "plain" in tree.extra:
        yield from _plain(tree, fitter)
        return
    for copy in range(copies):
        yield from _dialogue(tree, templates, seed, copy, fitter)
    for copy in range(copies if names else 0):
        yield from _name(tree, templates, seed, copy, fitter)
    counts: dict[str, int] = {}
    for branch in tree.branches:
        counts[branch.task] = counts.get(branch.task, 0) + 1
        name = f"{tree.item.id}-{branch.task}" + (
            f"-{counts[branch.task]}" if branch.task in ("vqa", "hop") or counts[branch.task] > 1 else ""
        )
        told: set[tuple[str, str | None]] = set()
        made = 0
        for copy in range(copies):
            question, answer = reworded(branch, tree.item, templates, seed, copy)
            image = _next_picture(branch.image, tree, copy)
            if (question, image) not in told:
                told.add((question, image))
                for sample in _single(tree.item, _numbered(name, copy), image, (question, answer), fitter):
                    made += 1
                    yield sample
        if fitter and not made:
            fitter.drop(branch)


def _plain(tree: KnowledgeTree, fitter: Fitter | None) -> Iterator[Sample]:
    """The samples of a plain augmentation, as they were made."""
    strategy = tree.extra["plain"]["strategy"]
    for number, made in enumerate(tree.extra["plain"]["samples"]):
        name = _numbered(f"{tree.item.id}-{strategy.replace('-', '_')}", number)
        yield from _single(tree.item, name, made.get("image"), (made["question"], made["answer"]), fitter)


def _single(
    item: KnowledgeItem, name: str, image: str | None, pair: Pair, fitter: Fitter | None
) -> Iterator[Sample]:
    """One turn as a sample, or as several where its answer is too long for one."""
    kind = name.removeprefix(f"{item.id}-").split("-")[0]
    pairs = fitter.answer(item, kind, image, pair) if fitter else [pair]
    for number, part in enumerate(pairs):
        yield to_sample(_part_name(name, number), image, [part])


def _dialogue(
    tree: KnowledgeTree, templates: Templates, seed: int, copy: int, fitter: Fitter | None
) -> Iterator[Sample]:
    turns = [_turn(turn, tree.item, templates, seed, copy) for turn in tree.trunk]
    if not turns:
        return
    pictures = tree.extra.get("images", {}).get("own") or tree.item.images
    image = _next_picture(pictures[0] if pictures else None, tree, copy)
    pairs = [(t.question, t.answer) for t in turns]
    same = pairs == [(t.question, t.answer) for t in tree.trunk]
    if copy and same and image == (pictures[0] if pictures else None):
        return  # no other phrasing of this dialogue
    opening = pairs[0] if turns[0].origin == "heuristic" else None
    chunks = fitter.dialogue(tree.item, image, pairs, opening) if fitter else [pairs]
    for number, chunk in enumerate(chunks):
        yield to_sample(_part_name(_numbered(f"{tree.item.id}-dialogue", copy), number), image, chunk)


def _name(
    tree: KnowledgeTree, templates: Templates, seed: int, copy: int, fitter: Fitter | None
) -> Iterator[Sample]:
    """What an entity's picture shows, asked for its name alone."""
    item = tree.item
    pictures = tree.extra.get("images", {}).get("own") or item.images
    if item.kind != "entity" or not pictures:
        return
    image = _next_picture(pictures[0], tree, copy + 1)  # not the dialogue's, where there are several
    wording = draw(templates.entity.heuristic.questions, seed, item.id, "name", turn=copy)
    instruction = draw(templates.instructions.short, seed, item.id, "short", turn=copy)
    pair = _ask(fill(wording, type=item.type), instruction), item.title
    yield from _single(item, _numbered(f"{item.id}-name", copy), image, pair, fitter)


def _turn(turn: Turn, item: KnowledgeItem, templates: Templates, seed: int, copy: int) -> Turn:
    if not copy:
        return turn
    if turn.origin == "heuristic":
        return heuristic(item, templates, seed, copy)
    key = turn.extra.get("key", "")
    if not key.startswith("facts."):
        return turn
    tier = tier_of(templates, key)
    options = tier.follow_up if item.kind == "entity" and item.images and tier.follow_up else tier.train
    wording = draw(options, seed, item.id, key, "trunk", turn=copy)
    question = fill(wording, s=templates.spoken(item), k=key.partition(".")[2].replace("_", " "), h=item.type)
    return turn.model_copy(update={"question": question})


def reworded(
    branch: Branch, item: KnowledgeItem, templates: Templates, seed: int, copy: int
) -> tuple[str, str]:
    """Question, with its instruction, and answer of a branch in its `copy`-th wording."""
    asked = templates.instructions
    tables = templates.kind(item)
    if branch.task == "recognition":
        title, purpose = (
            branch.extra.get("not_title", item.title),
            ("recognition", branch.extra.get("not", item.id)),
        )
        wording = draw(tables.recognition.questions, seed, item.id, *purpose, turn=copy)
        question = fill(wording, title=title, type=item.type) if copy else branch.question
        return _ask(question, draw(asked.yes_no, seed, item.id, "yes_no", turn=copy)), branch.answer
    if branch.task == "caption":
        wording = draw(tables.caption.questions, seed, item.id, "caption", turn=copy)
        opener = draw(tables.caption.answers, seed, item.id, "caption answer", turn=copy)
        question = fill(wording, type=item.type) if copy else branch.question
        answer = (
            named(item, branch.extra["summary"], opener)
            if copy and "summary" in branch.extra
            else branch.answer
        )
        return _ask(question, draw(asked.paragraph, seed, item.id, "paragraph", turn=copy)), answer
    return _ask(
        _pointed(branch, item, templates, seed, copy), draw(asked.short, seed, item.id, "short", turn=copy)
    ), branch.answer


def _pointed(branch: Branch, item: KnowledgeItem, templates: Templates, seed: int, copy: int) -> str:
    pattern = branch.extra.get("pattern")
    if not copy or pattern is None:
        return branch.question
    if branch.key and branch.key.startswith("facts."):
        wording = draw(tier_of(templates, branch.key).train, seed, item.id, branch.key, "vqa", turn=copy)
        pattern = fill(wording, k=branch.key.partition(".")[2].replace("_", " "))
    shown = bool(branch.extra.get("shown", True))
    return point_at(
        pattern, templates, branch.subject or item.title, branch.hypernym or item.type, shown, copy
    )


def _ask(question: str, instruction: str) -> str:
    return f"{question}\n{instruction}"


def _numbered(name: str, copy: int) -> str:
    return f"{name}-c{copy + 1}" if copy else name


def _part_name(name: str, part: int) -> str:
    return f"{name}-p{part + 1}" if part else name


def _next_picture(image: str | None, tree: KnowledgeTree, copy: int) -> str | None:
    """For a picture of the item, the `copy`-th next of them; other subjects' pictures stay."""
    shown = tree.extra.get("images", {}).get("shown") or []
    if image in shown:
        return str(shown[(shown.index(image) + copy) % len(shown)])
    return image
