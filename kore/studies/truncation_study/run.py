"""kore analyze capture: what a model can still do without its smallest components (paper, figure 4, table 8).

Each cell of the study is one decomposition, one covariance, one number of dropped components, scored by
kore eval's own engine. The weights on disk are never touched; those in memory are put back after each cell.
Everything is a folder that is found again: a killed study goes on at the cell, and within it at the answer.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kore.artifacts.manifest import claimed
from kore.evaluation.runner import BASE, Result, evaluate, generation
from kore.evaluation.target import load_target
from kore.io.files import hash_json, read_json, write_json
from kore.models.families import language_linears
from kore.models.generate import Engine
from kore.models.load import base_version
from kore.nullspace.calibrate import calibrate
from kore.nullspace.covariance import Covariance
from kore.progress import Progress, renamed, silent
from kore.studies.truncation_study.plan import KIND, CapturePlan, Cell, Group, Inputs, slug
from kore.studies.truncation_study.report import RESULT, write_report
from kore.studies.truncation_study.weight_truncation import Cut

if TYPE_CHECKING:
    from kore.evaluation.types import Scored
    from kore.models.load import Backbone


def run_capture(plan: CapturePlan, *, restart: bool = False, progress: Progress = silent) -> dict[str, Any]:
    """Make what is missing, cell by cell; a finished study is only read.

    Returns:
        What ``capture.json`` holds: see `kore.studies.truncation_study.report`.
    """
    with claimed(plan.out, plan.manifest, restart=restart) as state:
        if state == "done":
            value: dict[str, Any] = read_json(plan.out / RESULT)
            return value
        return _made(plan, progress)


def _made(plan: CapturePlan, progress: Progress) -> dict[str, Any]:
    """Every cell and the report, in a folder that is claimed."""
    target, profile = plan.planned.target, plan.planned.profile
    assert target is not None
    backbone = load_target(target, profile.model, download=plan.request.evaluation.download)
    measured = {i.name: _covariance(plan, i, backbone, progress) for i in plan.inputs}
    engine = Engine(backbone, batch=profile.eval.batch, max_new_tokens=profile.eval.max_new_tokens)
    plan.planned.judge.open()
    base = _row(_scored(plan, engine, None, progress).scored)
    rows = [row for group in plan.groups for row in _group(plan, engine, group, measured, progress)]
    embedded = base_version(backbone.path)
    version = {"version": embedded} if embedded else {}
    value = {
        "v": 1,
        "kind": KIND,
        "command": plan.request.command,
        "model": {"id": target.model, "fingerprint": backbone.fingerprint, **version},
        "settings": {**plan.manifest.settings, **generation(engine)},
        "covariances": [_told(i, measured[i.name]) for i in plan.inputs],
        "base": base,
        "rows": rows,
    }
    write_report(plan.out, value)
    plan.manifest.finished(cells=len(rows)).write(plan.out)
    return value


def _told(inputs: Inputs, covariance: Covariance) -> dict[str, Any]:
    return {
        "name": inputs.name,
        "source": inputs.source,
        "samples": len(covariance.manifest.facts.get("samples", [])) or None,
        "tokens": max(site.tokens for site in covariance.sites),
        "fingerprint": covariance.manifest.fingerprint,
    }


def _covariance(plan: CapturePlan, inputs: Inputs, backbone: Backbone, progress: Progress) -> Covariance:
    """The covariance of some inputs, summed into the study's folder where it is not there."""
    if inputs.covariance is not None:
        return inputs.covariance
    section = plan.planned.profile.calibrate.model_copy(update={"layers": "all"})
    stage = f"calibrate {inputs.name}"
    progress(stage, 0)
    return calibrate(
        backbone,
        inputs.samples,
        section,
        plan.out / "covariance" / slug(inputs.name),
        label=inputs.name,
        progress=renamed(progress, stage),
    )


def _group(
    plan: CapturePlan, engine: Engine, group: Group, measured: Mapping[str, Covariance], progress: Progress
) -> list[dict[str, Any]]:
    """The rows of one decomposition; its directions are on disk only while they are needed."""
    kept = {cell: plan.out / "cells" / f"{cell.name}.json" for cell in plan.cells(group)}
    folder = plan.out / "directions" / group.name
    if all(path.is_file() for path in kept.values()):
        shutil.rmtree(folder, ignore_errors=True)  # of a study that was killed just before
        return [read_json(path) for path in kept.values()]
    backbone = engine.backbone
    cut = Cut(
        folder,
        language_linears(backbone.model, backbone.family),
        backbone.family.layers,
        group.method,
        plan.request.drops,
        measured[group.inputs.name] if group.inputs else None,
        measured,
    )
    cut.make(renamed(progress, f"decompose {group.name}"))
    for cell, path in kept.items():
        if not path.is_file():
            with cut.applied(cell.drop):
                found = _scored(plan, engine, cell, progress)
            about = {
                "method": group.method,
                "covariance": group.inputs.name if group.inputs else None,
                "components": cell.drop.text,
            }
            write_json(path, {**about, **_row(found.scored), "lost": cut.lost(cell.drop)})
    shutil.rmtree(folder)
    return [read_json(path) for path in kept.values()]


def _scored(plan: CapturePlan, engine: Engine, cell: Cell | None, progress: Progress) -> Result:
    """Answers and scores of the model as it is in memory now."""
    suites, asked = plan.planned.suites, plan.planned.request
    everything = sum(map(len, suites))
    label = cell.name if cell else BASE
    name = f"evaluate {label}"
    progress(name, 0)
    before: dict[str, int] = {}

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        before[stage] = done
        progress(name, sum(before.values()), everything + 1, stage)

    base = engine.backbone.fingerprint
    found = evaluate(
        engine,
        suites,
        plan.out / "eval",
        label=label,
        adapter=False,
        fingerprint=hash_json([base, *cell.identity]) if cell else base,
        progress=report,
        protocol=plan.planned.form.protocol,
        notes=("subset of the samples",) if asked.limit or asked.ids else (),
    )
    score = _row(found.scored)["score"]
    progress(name, everything + 1, everything + 1, "not scored" if score is None else f"{score:.1f}")
    return found


def _row(scored: dict[str, Scored]) -> dict[str, Any]:
    """Each suite's headline figure, and the plain mean of the percentages."""
    scores = {name: s.headline for name, s in scored.items()}
    percent = [s.headline for s in scored.values() if s.headline is not None and s.unit == "percent"]
    return {
        "score": sum(percent) / len(percent) if percent else None,
        "scores": scores,
        "metrics": {name: dict(s.metrics) for name, s in scored.items()},
    }
