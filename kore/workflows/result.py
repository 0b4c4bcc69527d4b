"""What an injection ends with: the table, a verdict per item, some answers, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kore.data.records import IMAGE_MARK
from kore.workflows.retention_samples import PROTECTED

if TYPE_CHECKING:
    from kore.config.schema import Profile
    from kore.data.records import KnowledgeItem
    from kore.evaluation.types import Suite, Verdict

FITTED = 0.1  # mean loss of the last steps, in nats a token, below which the samples are memorised
KEPT = 0.9  # below this share of old knowledge a higher rate would do more harm


@dataclass(frozen=True)
class Missed:
    """A question on an item that was answered wrongly."""

    question: str
    expected: str
    given: str


@dataclass(frozen=True)
class ItemVerdict:
    """How one item fared.

    Attributes:
        verdict: learned: every question right; not asked: no question could be made of it; not taught: it
            does not fit the model.
        where: ``file:line``, if known.
    """

    id: str
    title: str
    verdict: Literal["learned", "partly", "not", "not asked", "not taught"]
    where: str | None = None
    failed: list[Missed] = field(default_factory=list)


@dataclass(frozen=True)
class Advice:
    """A command that teaches what was not learned, and why this one."""

    command: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """The end of a demo or an injection.

    Attributes:
        folder: the folder of all results.
        table: one row per method, the untouched base first: method, params, cem, f1, k_a, k_r,
            k_r_near, avg, hars, per_suite.
        legend: what the columns mean, with the count of suites behind K.R.
        retention: names of the old suites, each of which has its score in a row's per_suite.
        answers: questions with each method's answer: about, question (its first line), prompt (all of it),
            right, answers.
        items: number of items per verdict: learned, partly, not.
        verdicts: verdict per item, in the items' order. headline: both in one line.
        advice: what to run where not all items were learned.
        left_out: turns that the model cannot hold, each with its item.
        next: commands to try.
        seconds: how long each stage took.
    """

    folder: Path
    table: list[dict[str, Any]]
    legend: str
    retention: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    items: dict[str, int] = field(default_factory=dict)
    verdicts: list[ItemVerdict] = field(default_factory=list)
    headline: str = ""
    advice: Advice | None = None
    left_out: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain object with stable keys."""
        return {"v": 1, **asdict(self), "folder": str(self.folder)}


def item_verdicts(
    items: Sequence[KnowledgeItem],
    answers: Sequence[Verdict],
    places: Mapping[str, str],
    not_taught: Sequence[str] = (),
) -> list[ItemVerdict]:
    """The verdict of each item, by its questions."""
    by_item: dict[str, list[Verdict]] = {}
    for one in answers:
        by_item.setdefault(one.group or "", []).append(one)
    found = []
    for item in items:
        asked = by_item.get(item.id, [])
        failed = [
            Missed(
                one.question.replace("<image>", "").strip().split("\n")[0], one.answer, one.prediction or ""
            )
            for one in asked
            if (one.score or 0.0) < 1
        ]
        verdict: Literal["learned", "partly", "not", "not asked", "not taught"] = "learned"
        if item.id in not_taught:
            verdict = "not taught"
        elif not asked:
            verdict = "not asked"
        elif failed:
            verdict = "partly" if any(one.score for one in asked) else "not"
        found.append(ItemVerdict(item.id, item.title, verdict, places.get(item.id), failed))
    return found


def legend(suites: Sequence[Suite], counts: dict[str, int], before: int = 0, seen_pictures: int = 0) -> str:
    """What the table's columns are over, and how the items fared."""
    from kore.evaluation.agreement import AgreementSuite

    far = [s.name for s in suites[1:] if not getattr(s, "near", False)]
    old = f"mean over {len(far)} suites ({', '.join(far)})" if len(far) > 1 else ", ".join(far)
    pictures = f"; {seen_pictures} of {len(suites[0])} questions on pictures it trained on" * bool(
        seen_pictures
    )
    fared = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    fared += "; learned: every question right" if counts.get("partly") else ""
    agreed = any(isinstance(s, AgreementSuite) for s in suites)
    among = any(Path(str(s.facts.get("file", ""))).name.startswith(PROTECTED) for s in suites[1:])
    seen = ", the very ones that were protected: the sources hold no others" if among else ""
    return (
        f"K.A: your items, in phrasings that training does not use ({fared}{pictures}). K.R: {old}"
        + (f" (agreement: the same answers as the untouched base on old prompts{seen})" * agreed)
        + "."
        + (f" earlier: K.A of the {before} earlier batch{'es' * (before > 1)}." if before else "")
    )


def headline(verdicts: Sequence[ItemVerdict], kept: float | None) -> str:
    """All verdicts in one line.

    Args:
        kept: share of the base's score on old knowledge.
    """
    named = [one.verdict for one in verdicts]
    asked = len(named) - named.count("not asked")
    text = f"{named.count('learned')} of {asked} items learned"
    if unasked := named.count("not asked"):
        text += f" ({unasked} more without a question)"
    return text + ("" if kept is None else f", old knowledge {min(100, round(100 * kept))} % kept")


@dataclass(frozen=True)
class Measured:
    """What a run's end tells about its training.

    Attributes:
        steps: optimiser steps made. loss: mean over the last of them.
        kept: share of the base's score on old knowledge.
        small_base: the embedded base, which has not seen the like of these items.
    """

    steps: int
    loss: float
    kept: float | None
    small_base: bool


def changes(
    verdicts: Sequence[ItemVerdict], settings: Profile, measured: Measured
) -> tuple[dict[str, str], str] | None:
    """Settings (or the profile) to change so that more is learned, and why; None where all is learned."""
    named = {one.verdict for one in verdicts}
    train, loss, kept = settings.train, measured.loss, measured.kept
    if not named & {"partly", "not"}:
        if "not taught" not in named:
            return None
        return {"train.max_length": str(2 * train.max_length)}, "some items do not fit the model"
    longer = {"train.epochs": f"{2 * train.epochs:g}"}
    if train.max_steps is not None:
        longer["train.max_steps"] = str(2 * measured.steps)
    if kept is not None and kept < KEPT:
        slower = {"train.lr": f"{train.lr / 2:g}"}
        return longer | slower, f"only {kept:.0%} of old knowledge is kept: a lower rate and more steps"
    if loss > FITTED and not named & {"partly", "learned"}:
        return {"train.lr": f"{2 * train.lr:g}"}, f"nothing is learned, the loss is {loss:.2f}: a higher rate"
    if loss > FITTED:
        return longer, f"the loss is still {loss:.2f}: more steps"
    memorised = f"the samples are memorised (loss {loss:.2f}), not what they say"
    if measured.small_base:
        return {"profile": "smolvlm"}, f"{memorised}, and kore-tiny has seen little like them: another base"
    copies = {"augment.copies": str(2 * settings.augment.copies)}
    return longer | copies, f"{memorised}: more phrasings and more steps"


def advise(
    verdicts: Sequence[ItemVerdict],
    settings: Profile,
    measured: Measured,
    command: Sequence[str],
    folder: Path,
) -> Advice | None:
    """The command that teaches what was not learned; None where all is.

    Args:
        command: the one that ended now. folder: its results.
    """
    found = changes(verdicts, settings, measured)
    return Advice(command_with(command, found[0], folder), found[1]) if found else None


def command_with(command: Sequence[str], changed: Mapping[str, str], folder: Path) -> str:
    """A command line with settings changed and another output folder."""
    dropped = {"--restart", "--dry-run", "--json", "--quiet", "-q"}
    valued = {"--out", "-o", *(["--profile", "-p"] if "profile" in changed else [])}
    words, rest = [], list(command)
    while rest:
        word = rest.pop(0)
        if word in dropped or word.partition("=")[0] in valued:
            if word in valued and rest:
                rest.pop(0)
        elif word == "--set" and rest and rest[0].partition("=")[0] in changed:
            rest.pop(0)
        else:
            words.append(word)
    for key, value in changed.items():
        words += ["--profile", value] if key == "profile" else ["--set", f"{key}={value}"]
    return shlex.join([*words, "-o", str(_free(folder))])


def _first_line(question: str) -> str:
    return question.replace(IMAGE_MARK, "").strip().split("\n")[0]


def _free(folder: Path) -> Path:
    """A folder beside `folder` that is not there yet."""
    number = 2
    while (place := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return place
