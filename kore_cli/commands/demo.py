"""The kore demo command: the whole method on the embedded model, in minutes."""

from __future__ import annotations

from kore_cli.options import Json, Out, Quiet, Restart, Seed


def demo(
    out: Out = None,
    seed: Seed = None,
    restart: Restart = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teach the embedded base new countries, three ways, and see what each way forgot.

    No GPU, no key, no network. Example: kore demo
    """
    from kore.workflows.demo import run_demo
    from kore_cli.output import Output
    from kore_cli.render.injection import print_outcome
    from kore_cli.render.progress_display import story

    output = Output(json_mode=json, quiet=quiet)
    output.note("KORE demo: 24 countries that the base has never seen, and what it knew before.")
    with story(output) as progress:
        outcome = run_demo(out, seed=seed or 0, restart=restart, progress=progress)
    print_outcome(output, outcome)
