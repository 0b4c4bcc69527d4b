"""kore demo: the method on the embedded model and data, beside plain LoRA, in minutes."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.run import Run, home
from kore.config.resolve import resolve
from kore.demo.archive import demo_data
from kore.progress import Progress, silent
from kore.workflows import stages
from kore.workflows.example_answers import side_by_side
from kore.workflows.result import Outcome
from kore.workflows.trial import Trial, run_trial

if TYPE_CHECKING:
    from kore.evaluation.questions import QuestionSuite
    from kore.evaluation.types import Suite

PROFILE = "tiny"
HELD_OUT = 32  # old samples beside the covariance, on which the adapter's interference is measured


@dataclass(frozen=True)
class Bench:
    """The demo's data, prepared: what every trial on it shares.

    Attributes:
        tree: the new countries, augmented. raw: the same items without augmentation.
        covariance: of old inputs.
    """

    tree: Path
    raw: Path
    covariance: Path

    def trial(self, label: str, **flags: Any) -> Trial:
        """The trial of a row: base data and method by the label, other settings by `flags`."""
        data = (self.raw if label == "lora-raw" else self.tree) / "samples.jsonl"
        method = "lora" if label.startswith("lora") else label
        needed = self.covariance if method == "kore" else None
        return Trial(label, method, data, needed, flags=flags)


# learning rates, chosen by benchmarks/frontier.py on the validation split at seed 0
RATES = {"lora-raw": 2e-3, "lora": 4e-3, "kore": 4e-2}


def prepare(out: Path, seed: int, progress: Progress = silent, *, restart: bool = False) -> Bench:
    """Augment the new countries, keep them raw beside it, and calibrate on the old samples."""
    from kore.data.read import read_records
    from kore.data.records import KnowledgeItem

    path = demo_data() / "items.jsonl"
    items = list(read_records(KnowledgeItem, path))
    flags = {
        "augment.images": f"local:{demo_data() / 'images_more'}",
        "train.seed": seed,
        "calibrate.held_out": HELD_OUT,
    }
    kore = resolve(PROFILE, flags)
    sources = {"items": str(path)}
    stages.augment(items, kore.profile, out / "tree", progress, seed=seed, restart=restart, sources=sources)
    raw = resolve(PROFILE, {**flags, "augment.strategy": "none", "augment.copies": 1})
    stages.augment(items, raw.profile, out / "raw", silent, seed=seed, restart=restart, sources=sources)
    stages.calibrate(kore, out / "covariance", progress, restart=restart)
    return Bench(out / "tree", out / "raw", out / "covariance")


def suites_of(bench: Bench, split: str) -> list[Suite]:
    """The new countries' questions of one split, and the retention suites from far to near."""
    from kore.evaluation.demo_suites import demo_suites

    return [new_suite(bench.tree, split, "new countries"), *demo_suites(split)]


def new_suite(tree: Path, split: str, name: str) -> QuestionSuite:
    """One split of the questions on a tree's items."""
    from kore.evaluation.questions import half, load_questions

    return half(load_questions(tree / "eval.jsonl", name=name), split)


def run_demo(
    out: Path | None = None, *, seed: int = 0, restart: bool = False, progress: Progress = silent
) -> Outcome:
    """Base, LoRA on raw items, LoRA on augmented ones, KORE: trained, scored, side by side.

    Raises:
        DataError: another live demo holds the folder.
    """
    folder = out or home() / (f"demo-{seed}" if seed else "demo")
    with Run(folder).locked():  # before a restart discards what another process works on
        return _demo(folder, seed=seed, restart=restart, progress=progress)


def _demo(folder: Path, *, seed: int, restart: bool, progress: Progress) -> Outcome:
    from kore.evaluation.scores import table

    clock = time.monotonic()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = round(time.monotonic() - clock, 1)
        clock = time.monotonic()

    again = ("kore", "demo", "-o", str(folder), "--seed", str(seed))
    bench = prepare(folder, seed, progress, restart=restart)
    lap("prepare")
    suites = suites_of(bench, "test")
    evals = folder / "eval"
    base = stages.evaluate(resolve(PROFILE), None, suites, evals, stages.BASE, progress)
    lap("base")
    tuned = {}
    params: dict[str, int] = {}
    probes = write_probes(bench, folder)
    for label, rate in RATES.items():
        trial = bench.trial(label, **{"train.lr": rate, "train.seed": seed})
        run, result = run_trial(
            trial,
            PROFILE,
            folder / label,
            suites,
            evals,
            progress,
            probes=probes,
            restart=restart,
            command=again,
        )
        tuned[label] = result
        params[label] = int(run.state().result["trainable"])
        lap(label)
    rows = table(base.scored, {label: result.scored for label, result in tuned.items()})
    rows = [{**row, "params": params.get(row["method"])} for row in rows]
    far = [s.name for s in suites[1:] if not getattr(s, "near", False)]
    protected = resolve(PROFILE).profile.calibrate.count
    answers = side_by_side(suites, {"base": base, **tuned}, ("base", "lora", "kore"))
    return Outcome(
        folder=folder,
        table=rows,
        legend=(
            "K.A: new countries, in phrasings that training does not use. "
            f"K.R: mean over {len(far)} old suites ({', '.join(far)}). near: other countries. "
            f"KORE's A lies in the null space of {protected} other old samples of all these suites."
        ),
        retention=[s.name for s in suites[1:]],
        answers=answers,
        next=[
            *(_ask(folder / "kore", a) for a in answers[:1]),
            f"kore dashboard {folder / 'kore'}",
            f"kore show {bench.tree} --id country-pe",
            "kore inject your-items.jsonl --profile tiny",
        ],
        seconds=seconds,
    )


def _ask(run: Path, answer: dict[str, Any]) -> str:
    picture = f" --image {shlex.quote(answer['image'])}" if answer["image"] else ""
    return f"kore chat {run} --compare --once {shlex.quote(answer['prompt'])}{picture}"


def write_probes(bench: Bench, folder: Path) -> Path:
    """A few new and old questions that the runs ask while they train."""
    from kore.evaluation.demo_suites import demo_suites
    from kore.training.probes import Probe
    from kore.training.probes import write_probes as write

    new = suites_of(bench, "validation")[0].questions  # type: ignore[attr-defined]
    probes = [_probe("new", q) for q in _spread(new, 8)]
    for suite in demo_suites("validation"):
        probes += [_probe("old", q) for q in _spread(suite.questions, 2)]
    path = folder / "probes.jsonl"
    write(path, [Probe(**p) for p in probes])
    return path


def _probe(kind: str, question: Any) -> dict[str, Any]:
    image = question.images[0] if question.images else None
    return {
        "id": question.question_id,
        "kind": kind,
        "question": question.text,
        "answer": question.answers[0],
        "image": image,
    }


def _spread(values: Any, count: int) -> list[Any]:
    values = list(values)
    count = min(count, len(values))
    return [values[i * len(values) // count] for i in range(count)]
