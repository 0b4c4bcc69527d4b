"""Resolve the names of ``--suite`` to suites.

``demo`` (the embedded retention suites), ``evoke`` (under the data folder), ``FILE.jsonl`` (a user's own
questions: adaptation; ``FILE.jsonl:retention`` for old knowledge), ``agreement:FILE``, ``loss:FILE``, a
benchmark's name, ``benchmarks`` (all twelve), ``FILE.tsv:mcq|yorn|vqa``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from kore.data import benchmarks
from kore.data.objects import first_object, is_records
from kore.errors import DataError, Faults, MissingArtefact, UsageError
from kore.evaluation import benchmark_suite as bench
from kore.evaluation.agreement import AgreementSuite, load_agreement
from kore.evaluation.demo_suites import FAR, NEAR, demo_suites
from kore.evaluation.questions import QuestionSuite, load_questions
from kore.evaluation.suite_options import SuiteOptions
from kore.evaluation.text_loss import LossSuite, load_losses
from kore.evaluation.types import Role, Suite

EVOKE = "evoke_evaluation_data.jsonl"


def resolve_suites(names: Iterable[str], choice: SuiteOptions) -> list[Suite]:
    """Read every named suite.

    Raises:
        UsageError: an unknown name (with the nearest one), or a suite named twice.
        MissingArtefact: a missing file. DataError: a bad file.
    """
    suites: list[Suite] = []
    for name in names:
        suites += _resolve(name.strip(), choice)
    seen: set[str] = set()
    for suite in suites:
        if suite.name in seen:
            raise UsageError(f"suite {suite.name} is named twice", hint="rename one of the files")
        seen.add(suite.name)
    chosen = [narrow(suite, choice) for suite in suites]
    if choice.ids and not any(len(s) for s in chosen):
        raise UsageError("--ids: none of these samples is in the suites")
    return [s for s in chosen if len(s)]


def _resolve(name: str, choice: SuiteOptions) -> Sequence[Suite]:
    if name == "demo":
        return demo_suites(choice.split)
    if name in FAR + NEAR:
        return demo_suites(choice.split, (name,))
    if name == "evoke":
        evoke = _evoke(choice.data)
        return [load_questions(evoke, name="evoke", image_root=choice.image_root or _evoke_images(evoke))]
    if name.startswith("agreement:"):
        return [load_agreement(_present(Path(name.partition(":")[2])))]
    if name.startswith("loss:"):
        return [load_losses(_present(Path(name.partition(":")[2])))]
    if name == "benchmarks":
        return [bench.load_benchmark(benchmark, choice) for benchmark in benchmarks.NAMES]
    if benchmarks.known(name):
        return [bench.load_benchmark(name, choice)]
    path, _, kind = name.rpartition(":") if name.rsplit(":", 1)[-1] in _KINDS else (name, "", "")
    if path.endswith(".tsv"):
        return [bench.load_own(_present(Path(path)), kind, choice)]
    if is_records(Path(path)):
        roles: dict[str, Role] = {"": choice.role, "adaptation": "adaptation"}
        role = roles.get(kind, "retention")
        return [_questions(_present(Path(path)), role, kind == "near", choice)]
    names = ["demo", "evoke", "benchmarks", *FAR, *NEAR, *benchmarks.NAMES]
    close = difflib.get_close_matches(name, names, n=1)
    raise UsageError(
        f"unknown suite: {name}" + (f" (did you mean {close[0]}?)" if close else ""),
        hint="demo, evoke, FILE.jsonl, agreement:FILE, loss:FILE, FILE.tsv:mcq|yorn|vqa, or a benchmark "
        "(kore data check lists them)",
    )


_KINDS = ("mcq", "yorn", "vqa", "retention", "near", "adaptation")


def _questions(path: Path, role: Role, near: bool, choice: SuiteOptions) -> QuestionSuite:
    """The questions of the chosen split; of a file that has no such split, all."""
    suite = load_questions(path, role=role, near=near, image_root=choice.image_root)
    own = [q for q in suite.questions if q.extra.get("split") in (None, choice.split)]
    divided = any(q.extra.get("split") == choice.split for q in own)
    return replace(suite, questions=own, split=choice.split) if divided else suite


def _present(path: Path) -> Path:
    if not path.exists():
        raise MissingArtefact(
            f"no such file: {path}", hint="kore augment writes eval.jsonl beside its samples"
        )
    return path


def _evoke(base: Path) -> Path:
    for path in (base / EVOKE, base / "json" / "jsonl" / EVOKE, base / "evoke" / EVOKE):
        if path.is_file():
            return path
    raise MissingArtefact(
        f"no {EVOKE} under {base}", hint=f"fetch it with: kore data fetch evoke --data-dir {base}"
    )


def _evoke_images(path: Path) -> Path:
    """The folder of EVOKE's images: beside the questions, or as its own archive has them."""
    first = first_object(path).get("image")
    name = first[0] if isinstance(first, list) and first else first
    folders = [
        path.parent,
        path.parent / "imgs",
        *(p / "imgs" / "evaluation" for p in [path.parent, *path.parents[1:3]]),
    ]
    for folder in folders:
        if isinstance(name, str) and (folder / name).is_file():
            return folder
    return path.parent


def narrow(suite: Suite, choice: SuiteOptions) -> Suite:
    """The chosen samples of a suite; the result is then marked as a subset."""
    if choice.limit is None and not choice.ids:
        return suite
    if isinstance(suite, QuestionSuite):
        questions = [q for q in suite.questions if not choice.ids or q.question_id in choice.ids]
        return replace(suite, questions=questions[: choice.limit])
    if isinstance(suite, AgreementSuite):
        tasks = [t for t in suite.prompts if not choice.ids or t.id in choice.ids][: choice.limit]
        return replace(suite, prompts=tasks)
    if isinstance(suite, LossSuite):
        texts = [t for t in suite.texts if not choice.ids or t.id in choice.ids][: choice.limit]
        return replace(suite, texts=texts)
    return bench.narrow(suite, choice) if isinstance(suite, bench.BenchSuite) else suite


def check_images(suite: Suite) -> dict[str, str]:
    """Check image files before a model is loaded; returns them, each with the place that names it.

    Raises:
        DataError: every missing or broken image, with the place that names it.
    """
    from kore.io.images import check_image  # rescoring stays free of Pillow

    checked: dict[str, str] = {}
    faults = Faults()
    for task in suite.tasks():
        for image in (image for turn in task.turns for image in turn.images):
            if image.data is None and image.path not in checked:
                checked[image.path] = image.where or f"sample {task.id}"
                try:
                    check_image(image.path, checked[image.path])
                except DataError as error:
                    faults.add(error)
    faults.check()
    return checked
