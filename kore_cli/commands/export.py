"""The kore export command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kore_cli import options

if TYPE_CHECKING:
    from kore_cli.output import Output


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run (folder or name), or an adapter folder.")],
    to: Annotated[
        Literal["peft", "merged", "vllm"],
        typer.Option("--to", metavar="FORM", help="peft, merged or vllm.", show_default=True),
    ] = "peft",
    out: options.Out = None,
    model: options.Model = None,
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", help="Type of merged weights: auto (as the base), float32, bfloat16, float16."
        ),
    ] = "auto",
    check: Annotated[
        bool,
        typer.Option("--check", help="Check an export: RUN is its folder, reloaded with stock tools."),
    ] = False,
    restart: options.Restart = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a run's adapter for other tools, checked, with a model card.

    Example: kore export RUN --to merged -o model/
    """
    from kore.api.export import export as export_run
    from kore.artifacts.run import locate
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet)
    if check:
        _check(output, run, model)
        return
    made = export_run(locate(run), to, out, model=model, dtype=dtype, restart=restart)
    output.note(
        f"checked on {made.prompts} prompts: logits differ by up to {made.error:.2g}, "
        f"the adapter moves them by up to {made.moved:.2g}"
    )
    _describe_canaries(output, made.facts)
    output.result(made.facts, text=f"{made.form} in {made.folder}")


def _describe_canaries(output: Output, facts: dict[str, Any]) -> None:
    canaries = facts.get("canaries")
    if canaries is None:
        return  # an export of an earlier version
    output.note(f"{canaries['count']} canaries: base and adapter differ on {canaries['differ']}")
    if canaries["general"]:
        output.warn("the data of this adapter is not here: its canaries are general questions without images")
    if not canaries["differ"]:
        output.warn("no canary tells base and adapter apart, so kore check-server cannot judge a server")


def _check(output: Output, folder: Path, model: str | None) -> None:
    from kore.workflows.check_export import check_export, refuse_wrong

    found = check_export(folder, model)
    right = found.canaries - len(found.wrong)
    output.result(found.to_json(), text=f"{right} of {found.canaries} canaries are answered as exported")
    refuse_wrong(found, folder)
