"""A few questions with every model's answers side by side: what a table cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kore.evaluation.runner import Result
    from kore.evaluation.types import Suite, Verdict


def side_by_side(
    suites: Sequence[Suite],
    results: Mapping[str, Result],
    shown: Sequence[str],
    count: int = 3,
    *,
    failures: int = 0,
) -> list[dict[str, Any]]:
    """Questions on which the models differ: first new knowledge, then old, at most `count` in all; and
    after them at most `failures` on new knowledge that was not learned.

    The last of `shown` is the one whose successes are looked for; questions are spread evenly over the
    file, in its order, so the choice is the same every time.
    """
    best, rival = shown[-1], shown[-2]
    found, failed = [], []
    for suite in suites:
        asked = {name: _by_id(results[name], suite.name) for name in shown}
        new = suite.role == "adaptation"
        for key, verdict in asked[best].items():
            loser = asked["base"] if new else asked[rival]
            if verdict.outcome == "right" and key in loser and loser[key].outcome == "wrong":
                found.append((not new, suite.name, key, {n: asked[n][key] for n in shown}))
            elif new and verdict.outcome == "wrong":
                failed.append((False, suite.name, key, {n: asked[n][key] for n in shown}))
    new_first = sorted(found, key=lambda f: f[0])
    fresh = [f for f in new_first if not f[0]]
    old = [f for f in new_first if f[0]]
    many = min(len(fresh), count - min(1, len(old)))
    take = [fresh[i * len(fresh) // many] for i in range(many)] + old[:1]
    return [
        {
            "about": name,
            "question": _asked(verdicts[best].question).split("\n")[0],
            "prompt": " ".join(_asked(verdicts[best].question).split()),
            "right": verdicts[best].answer,
            "image": _picture(suites, name, verdicts[best].id),
            "answers": {n: v.prediction for n, v in verdicts.items()},
        }
        for _, name, _, verdicts in [*take, *failed[:failures]]
    ]


def _asked(text: str) -> str:
    return text.replace("<image>", "").strip()


def _picture(suites: Sequence[Suite], name: str, key: str) -> str | None:
    for suite in suites:
        for question in getattr(suite, "questions", ()) if suite.name == name else ():
            if question.question_id == key and question.images:
                return str(question.images[0])
    return None


def _by_id(result: Result, suite: str) -> dict[str, Verdict]:
    return {v.id: v for v in result.scored[suite].samples}
