"""The kore check-server command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli import options


def check_server(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="An OpenAI-compatible server, e.g. http://localhost:8000/v1.")
    ],
    adapter: Annotated[
        str, typer.Option("--adapter", metavar="NAME", help="The adapter's model name on the server.")
    ],
    export: Annotated[
        Path, options.data_option("--export", metavar="DIR", help="Folder written by kore export.")
    ],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check whether a server applies an exported adapter; exit with code 6 unless it does.

    Example: kore check-server http://localhost:8000/v1 --adapter knowledge --export adapter/
    """
    from kore.errors import GateNotMet
    from kore.workflows.check_server import MEANING, check_server
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet)
    check = check_server(url, adapter, export)
    meaning, remedy = MEANING[check.verdict]
    if output.human:
        rows = [
            {
                "prompt": one.canary.text,
                "answer": one.answer,
                "like": one.kind,
                "expected": "" if one.right else one.canary.adapter.text,
            }
            for one in check.answers
        ]
        output.table(rows, ("prompt", "answer", "like", "expected"))
        output.line(f"{check.verdict}: {meaning} ({check.detail})")
    else:
        output.record(check.to_json())
    if check.verdict != "applied":
        raise GateNotMet(f"{check.verdict}: {meaning}; {check.detail}", hint=remedy)
