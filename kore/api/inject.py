"""All stages on the caller's own items: augment, calibrate, train, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kore.api.settings import resolved
from kore.progress import Progress, silent
from kore.workflows.inject import Request, plan
from kore.workflows.injection import run_inject
from kore.workflows.result import Outcome


def inject(
    items: str | Path,
    *,
    output: str | Path | None = None,
    model: str | None = None,
    samples: Sequence[str] | None = None,
    suites: Sequence[str] = (),
    after: str | Path | None = None,
    profile: str = "",
    settings: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    image_root: str | Path | None = None,
    restart: bool = False,
    progress: Progress = silent,
    on_note: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Teach a model new items and score what it learned and kept; a repeated call resumes.

    Args:
        items: KnowledgeItem records (JSONL or a JSON list).
        output: the folder of all stages. Default: one under the runs folder, named by the items.
        model: kore-tiny, a folder, or a hub id. Default: the profile's, else kore-tiny.
        samples: what to protect: demo, onevision, FILE.jsonl or bench:NAME, with :COUNT.
        suites: suites of old knowledge. Default: agreement with the untouched base on held-out samples.
        after: a finished run; teach these items after its own, and protect those as well.
        profile: a shipped profile's name, or a TOML file. Default: what suits the model.
        settings: settings by dotted key.
        on_note: called with each line that a person should read first.

    Returns:
        The table (`table`), answers side by side (`answers`), and where everything is (`folder`).

    Raises:
        KoreError: of the kind that says what is wrong.
    """
    request = Request(
        items=str(items),
        resolved=resolved(
            profile,
            settings,
            Path(after) if after else None,
            model__id=model,
            calibrate__samples=list(samples) if samples else None,
        ),
        out=Path(output) if output else None,
        suites=list(suites),
        after=Path(after) if after else None,
        data_dir=Path(data_dir) if data_dir else None,
        image_root=Path(image_root) if image_root else None,
        restart=restart,
    )
    planned = plan(request)
    for note in planned.notes:
        on_note(note)
    return run_inject(planned, progress)
