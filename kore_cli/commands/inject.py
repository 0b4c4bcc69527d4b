"""The kore inject command: all stages on your own items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli.options import DryRun, Json, Out, ProfileName, Quiet, Restart, data_option, names, resolve
from kore_cli.schema_options import with_settings

if TYPE_CHECKING:
    from kore.config.resolve import Profile

NAMED = 20  # items that a dry run names


@with_settings(
    "model.id=--model",
    "augment.teacher",
    "augment.images",
    "calibrate.samples",
    "train.method=--method -m",
    "train.lr",
    "train.epochs",
    "train.max_steps",
    "train.seed",
)
def inject(
    settings: dict[str, Any],
    items: Annotated[str, typer.Argument(help="Knowledge items (JSONL), or - for stdin.")],
    profile: ProfileName = "",
    out: Out = None,
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="Suites of old knowledge, as in kore eval; agreement compares with the answers of the base.",
        ),
    ] = None,
    after: Annotated[
        Path | None,
        data_option(
            "--after",
            help="Finished run (folder or name): teach these items on top, and protect its items too.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        data_option("--data-dir", envvar="KORE_DATA", help="Folder of benchmark files."),
    ] = None,
    image_root: Annotated[
        Path | None,
        data_option("--image-root", help="Folder that relative image paths start from."),
    ] = None,
    restart: Restart = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teach a model your own items: augment, calibrate, train, evaluate.

    Example: kore inject items.jsonl -o runs/mine
    """
    import sys

    from kore.artifacts.run import locate
    from kore.workflows.inject import Request, plan
    from kore.workflows.injection import run_inject
    from kore_cli.output import Output
    from kore_cli.render.injection import print_outcome
    from kore_cli.render.progress_display import story

    output = Output(json_mode=json, quiet=quiet)
    if "train.seed" in settings:
        settings.setdefault("calibrate.seed", settings["train.seed"])
    after = locate(after) if after else None
    keys = ("augment.teacher", "adapter.rank", "train.lr")
    resolved = resolve(output, profile, settings, *keys, after=after)
    if resolved.profile.augment.names is None:
        resolved = resolved.changed("augment.names", True)
    request = Request(
        items=items,
        resolved=resolved,
        out=out,
        suites=_old(suites, resolved.profile),
        after=after,
        data_dir=data_dir,
        image_root=image_root,
        restart=restart,
        command=("kore", *sys.argv[1:]),
    )
    for note in (planned := plan(request)).notes:
        output.warn(note)
    if dry_run:
        value = planned.rehearse()
        output.result(value, _rehearsed(value))
        if output.human:
            from kore.models.linear_table import LinearRow, linear_lines

            names = LinearRow.__dataclass_fields__
            rows = [LinearRow(**{k: v for k, v in row.items() if k in names}) for row in value["linears"]]
            output.line("\n".join(linear_lines(rows)))
        return
    with story(output) as progress:
        outcome = run_inject(planned, progress)
    print_outcome(output, outcome)


def _rehearsed(value: dict[str, Any]) -> str:
    """The result of a dry run as text."""
    from kore.augment.fit import FitReport

    asked, drawn = value["augment"], value["samples_drawn"]
    told = {
        "items": f"{value['items']}, taught by {value['method']} to {value['model']}",
        "augment": f"{asked['calls']} calls of {value['teacher']}" + " (paid)" * bool(asked["paid"]),
        "old samples": f"{drawn} of {', '.join(value['samples'])}" * bool(drawn),
        "trains": f"{value['trainable']:,} parameters, rank {value['rank']}" * bool(value["trainable"]),
        "after": ", ".join(str(batch.get("run")) for batch in value["after"]),
        "folder": value["folder"],
    }
    fit = FitReport.from_json(asked["fit"])
    told["fits"] = fit.summary() or f"every sample has at most {fit.max_length} tokens"
    lines = [f"{name:<12} {text}" for name, text in told.items() if text]
    lines += [f"  {item}: {parts} samples" for item, parts in list(fit.split.items())[:NAMED]]
    lines += [f"  {one}" for one in fit.left_out[:NAMED]]
    lines += [f"  not taught: {item}" for item in fit.not_taught[:NAMED]]
    return "\n".join(lines)


def _old(named: list[str] | None, profile: Profile) -> list[str]:
    """The suites of old knowledge: those named, else the profile's, which are of new knowledge too; none
    stands for agreement."""
    words = names(named)
    if words == ["agreement"]:
        return []
    return words or [name for name in profile.eval.suites if name != "evoke"]
