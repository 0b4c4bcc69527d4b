"""The kore inject command: all stages on your own items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli.options import DryRun, Json, Model, Out, ProfileName, Quiet, Restart, Seed, Set, given, names

if TYPE_CHECKING:
    from kore.config.resolve import Profile


def inject(
    items: Annotated[str, typer.Argument(help="KnowledgeItem records (JSONL), - for stdin.")],
    profile: ProfileName = "tiny",
    out: Out = None,
    model: Model = None,
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="Suites of old knowledge, with commas, as in kore eval; agreement: like the untouched base, "
            "for want of any. Default: the profile's.",
        ),
    ] = None,
    samples: Annotated[
        list[str] | None, typer.Option("--samples", help="Old samples to protect, as for kore calibrate.")
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(
            "--after", help="A finished run: teach these items after its own, protecting those as well."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", envvar="KORE_DATA", help="Where benchmark files lie.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option("--image-root", help="Folder of relative picture paths.")
    ] = None,
    set_: Set = None,
    seed: Seed = None,
    restart: Restart = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teach a model your own items: augment, calibrate, train, evaluate.

    Example: kore inject items.jsonl --profile tiny -o runs/mine
    """
    import sys

    from kore.config.resolve import resolve
    from kore.workflows.inject import Request, plan, run_inject
    from kore_cli.output import Output
    from kore_cli.render.injection import print_outcome
    from kore_cli.render.progress_display import story

    output = Output(json_mode=json, quiet=quiet)
    flags: dict[str, Any] = {
        "model.id": model,
        "train.seed": seed,
        "calibrate.seed": seed,
        "calibrate.samples": samples,
    }
    resolved = resolve(profile, given(set_, flags))
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
            from kore.models.families import LinearRow, linear_lines

            names = LinearRow.__dataclass_fields__
            rows = [LinearRow(**{k: v for k, v in row.items() if k in names}) for row in value["linears"]]
            output.line("\n".join(linear_lines(rows)))
        return
    with story(output) as progress:
        outcome = run_inject(planned, progress)
    print_outcome(output, outcome)


def _rehearsed(value: dict[str, Any]) -> str:
    """What a dry run found, in words."""
    asked, drawn = value["augment"], value["samples_drawn"]
    told = {
        "items": f"{value['items']}, taught by {value['method']} to {value['model']}",
        "augment": f"{asked['calls']} calls of {value['teacher']}" + " (paid)" * bool(asked["paid"]),
        "old samples": f"{drawn} of {', '.join(value['samples'])}" * bool(drawn),
        "trains": f"{value['trainable']:,} parameters, rank {value['rank']}" * bool(value["trainable"]),
        "after": ", ".join(str(batch.get("run")) for batch in value["after"]),
        "folder": value["folder"],
    }
    return "\n".join(f"{name:<12} {text}" for name, text in told.items() if text)


def _old(named: list[str] | None, profile: Profile) -> list[str]:
    """The suites of old knowledge: those named, else the profile's, which are of new knowledge too; none
    stands for agreement."""
    words = names(named)
    if words == ["agreement"]:
        return []
    return words or [name for name in profile.eval.suites if name != "evoke"]
