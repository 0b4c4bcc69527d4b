"""The kore export command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kore_cli import options


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run (folder or name), or an adapter folder.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORM", help="peft, merged or vllm.", show_default=True)
    ] = "peft",
    out: options.Out = None,
    model: options.Model = None,
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", help="Type of merged weights: auto (as the base), float32, bfloat16, float16."
        ),
    ] = "auto",
    restart: options.Restart = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a run's adapter for other tools, checked, with a model card.

    Example: kore export RUN --to merged -o model/
    """
    from typing import cast

    from kore.api.export import export as export_run
    from kore.artifacts.run import locate
    from kore.errors import UsageError
    from kore_cli.output import Output

    if to not in ("peft", "merged", "vllm"):
        raise UsageError(f"--to {to}: one of peft, merged, vllm")
    form = cast("Literal['peft', 'merged', 'vllm']", to)
    output = Output(json_mode=as_json, quiet=quiet)
    made = export_run(locate(run), form, out, model=model, dtype=dtype, restart=restart)
    output.note(
        f"checked on {made.prompts} prompts: logits differ by up to {made.error:.2g}, "
        f"the adapter moves them by up to {made.moved:.2g}"
    )
    output.result(made.facts, text=f"{made.form} in {made.folder}")
