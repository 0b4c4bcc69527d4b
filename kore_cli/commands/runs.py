"""The kore runs command: every run with its state and scores."""

from __future__ import annotations

from kore_cli.options import Json


def runs(json_: Json = False) -> None:
    """List runs, newest first: state, method, K.A, K.R, age, folder. Piped: one JSON object a line.

    Example: kore runs
    """
    from kore.artifacts.run import home
    from kore_cli.output import Output
    from kore_cli.render.runs import list_runs, print_runs

    output = Output(json_mode=json_)
    listed = list_runs()
    if listed:
        print_runs(output, listed)
    else:
        output.note(f"no run in {home()} yet; start one with: kore demo")
