"""Run a study in its folder and write its report."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kore.artifacts.manifest import Manifest, claim, claimed
from kore.artifacts.run import home
from kore.io.files import write_json
from kore.progress import Progress, silent
from kore.studies.method_study.plan import StudyPlan
from kore.studies.method_study.report import write_report
from kore.studies.method_study.study import Study


def run_study(
    plan: StudyPlan,
    out: Path | None = None,
    *,
    progress: Progress = silent,
    jobs: int = 1,
    make: bool = True,
    command: str = "kore study",
) -> dict[str, Any]:
    """Run a study or go on with it.

    Args:
        jobs: trials side by side, each in a process of its own.
        make: False trains nothing and reports what there is.
        command: what makes the study, for its report.

    Returns:
        ``{table, tables, chosen, missing, files, ...}``: see `kore.studies.method_study.report`.

    Raises:
        DataError: the folder holds something else.
    """
    folder = out or home() / f"study-{plan.key}"
    # without settings: a plan may grow, and what two of them share is not trained again
    manifest = Manifest("study", {}, {}, facts={"command": command})
    # a report alone may be made while the study goes on
    with ExitStack() as held:
        if make:
            held.enter_context(claimed(folder, manifest, always=True))
        else:
            claim(folder, manifest)
        manifest.write(folder)
        write_json(folder / "plan.json", plan.model_dump(mode="json"))
        study = Study(plan, folder.resolve(), progress, jobs, make, command)
        study.prepare()
        try:
            study.run()
        finally:  # an interrupted study reports what it has
            value = write_report(study)
        if not value["missing"]:
            manifest.finished().write(folder)
    return value
