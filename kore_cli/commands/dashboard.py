"""The kore dashboard command: the live view of a run, or one JSON snapshot when stdout is no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kore_cli.options import Images, Json

RunNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Run folders or names; the first is watched, the others drawn over it (covariance folders too: "
        "their spectra). Default: the newest.",
    ),
]
Theme = Annotated[
    str,
    typer.Option(
        "--theme", envvar="KORE_THEME", help="A theme's name; ansi-dark and ansi-light need 16 colours."
    ),
]
Pictures = Annotated[
    Images,
    typer.Option(
        "--images", envvar="KORE_IMAGES", help="auto: the terminal's best; blocks: half blocks; off."
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Print one JSON snapshot and leave, on a terminal too.")]


def dashboard(
    runs: RunNames = None,
    theme: Theme = "kore-dark",
    images: Pictures = Images.auto,
    once: Once = False,
    json: Json = False,
) -> None:
    """Watch a run: loss, spectra, answers, results, knowledge. Piped: one JSON snapshot.

    Waits for the run if it is not there yet. Example: kore dashboard runs/demo
    """
    import sys

    from kore.artifacts.run import locate, run_named
    from kore_cli.output import Output

    folders = [run.folder if (run := run_named(name)) else locate(name) for name in runs or []]
    if once or json or not sys.stdout.isatty():
        from kore.telemetry import Monitor
        from kore_cli.dashboard.snapshot import snapshot_json
        from kore_cli.dashboard.watcher import RunSource

        probe = Monitor()
        try:
            snapshot = RunSource(folders[0] if folders else None, probe=probe).whole()
        finally:
            probe.close()
        Output(json_mode=True).record(snapshot_json(snapshot))
        return
    open_dashboard(folders, theme=theme, images=images.value)


def open_dashboard(folders: list[Path], *, theme: str, images: str) -> None:
    """Run the app until the user leaves it."""
    import os

    from kore.artifacts.run import all_runs
    from kore.telemetry import Monitor
    from kore_cli.widgets.image import prepare

    prepare(images)
    from kore_cli.dashboard.app import KoreApp
    from kore_cli.dashboard.watcher import RunSource

    probe = Monitor()
    live = [r for r in all_runs() if is_live(r)] if not folders else []
    try:
        app = KoreApp(
            RunSource(folders[0] if folders else None, probe=probe),
            tuple(RunSource(f) for f in folders[1:]),
            images=images,
            theme=theme,
            choose=len(live) > 1,
            new_source=lambda folder: RunSource(folder, probe=probe),
        )
        app.until_left(mouse=os.environ.get("TERM") != "linux")
    finally:
        probe.close()


def watch(child_argv: Sequence[str], run_folder: Path) -> int:
    """Run a training command as a child and watch its run; see `kore_cli.dashboard.train_and_watch.watch`.

    Raises:
        UsageError: not on a terminal, or `KORE_IMAGES` of no such kind.
    """
    import os

    from kore.errors import UsageError
    from kore_cli.dashboard.train_and_watch import watch as watch_child

    images = os.environ.get("KORE_IMAGES") or Images.auto.value
    if images not in list(Images):
        raise UsageError(
            f"no such pictures: {images}", where="KORE_IMAGES", hint=f"one of {', '.join(Images)}"
        )
    return watch_child(
        child_argv, run_folder, theme=os.environ.get("KORE_THEME") or "kore-dark", images=images
    )


def is_live(run: object) -> bool:
    """Whether a run's process still works on it, as far as can be told from here."""
    from kore.artifacts.run import Run
    from kore.errors import KoreError

    assert isinstance(run, Run)
    try:
        state = run.state()
    except (KoreError, OSError):
        return False
    return state.working and not state.dead
