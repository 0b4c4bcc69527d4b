"""Score stored answers again, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kore.data.task import Task
from kore.errors import MissingArtefact
from kore.evaluation.agreement import AgreementSuite
from kore.evaluation.predictions import Predictions, prompt_hash
from kore.evaluation.runner import BASE, Result, write_result
from kore.evaluation.text_loss import LossSuite
from kore.evaluation.types import Suite
from kore.io.files import read_json
from kore.io.jsonl import read_log


def rescore(out: Path, suites: Sequence[Suite], notes: tuple[str, ...] = ()) -> dict[str, Result]:
    """Score the answers in `out` to `suites`, for every model.

    An answer counts only if its prompt is the one that the suite has now.

    Raises:
        MissingArtefact: no answers.
    """
    folders = sorted(p for p in (out / "answers").glob("*") if p.is_dir()) if out.is_dir() else []
    if not folders:
        raise MissingArtefact(
            f"no answers under {out}", hint="answer first: kore eval MODEL --suite ... -o " + str(out)
        )
    labels = sorted((f.name for f in folders), key=lambda name: name != BASE)
    results: dict[str, Result] = {}
    base: dict[str, dict[str, list[str]]] = {}
    for label in labels:
        path = out / "scores" / f"{label}.json"
        before = read_json(path) if path.is_file() else {}
        result = Result(label, before.get("model", "unknown"), {}, generation=before.get("generation", {}))
        for suite in suites:
            folder = out / "answers" / label / suite.name
            if not folder.is_dir():
                continue
            store = Predictions(folder)
            answers = {t.id: replies for t in suite.tasks() if (replies := _replies(store, t))}
            if label == BASE:
                base[suite.name] = answers
            if isinstance(suite, AgreementSuite):
                verdicts = read_log(out / "samples" / label / f"{suite.name}.jsonl")
                kl = {v["id"]: v["parts"]["kl"] for v in verdicts if "kl" in v["parts"]}
                scored = suite.against(answers, base.get(suite.name, {}), kl)
            elif isinstance(suite, LossSuite):
                scored = suite.against(answers, base.get(suite.name, {}))
            else:
                scored = suite.score(answers)
            result.scored[suite.name] = scored.noted(*notes)
            result.facts[suite.name] = dict(suite.facts)
            result.answers[suite.name] = answers
        for name in result.scored:
            write_result(result, name, out)
        results[label] = result
    return results


def _replies(store: Predictions, task: Task) -> list[str]:
    replies: list[str] = []
    for turn in range(len(task.turns)):
        latest = store.latest(task.id, turn)
        prompt = prompt_hash(task.turns[: turn + 1], tuple(replies), store.image_hashes)
        if latest is None or latest[0] != prompt:
            break
        replies.append(latest[1])
    return replies
