"""kore eval: what a model learned and what it kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli import options
from kore_cli.options import data_option
from kore_cli.schema_options import with_settings

if TYPE_CHECKING:
    from kore.evaluation.run_eval import Plan, Request
    from kore_cli.output import Output


SUITES = "demo, evoke, benchmarks, NAME, FILE.jsonl[:retention], agreement:FILE, loss:FILE, FILE.tsv:KIND."


Target = Annotated[
    str, typer.Argument(help="A run folder, an adapter folder, or a model (folder, hub id, kore-tiny).")
]
Suite = Annotated[list[str] | None, data_option("--suite", "-s", help=SUITES)]
ImageRoot = Annotated[
    Path | None,
    data_option("--image-root", help="Folder that relative image paths of JSONL suites start from."),
]
Ids = Annotated[str | None, data_option("--ids", metavar="a,b,c", help="Evaluate only these samples.")]
Export = Annotated[
    Path | None,
    data_option("--export", metavar="DIR", help="Also write VLMEvalKit's TSV and xlsx files there."),
]
Html = Annotated[
    bool, data_option("--html", help="Also write report.html with the images of flipped samples.")
]
Compat = Annotated[
    str,
    typer.Option(
        "--compat",
        metavar="VERSION",
        help="VLMEvalKit's rules: vlmeval-688e9da or vlmeval-2026-06.",
    ),
]
JudgePrompts = Annotated[
    Path | None, typer.Option("--judge-prompts", metavar="FILE", help="Your own judge prompts (TOML).")
]
FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        metavar="NAME=X",
        help="Exit with code 6 if a score is below: k_r=0.95 (share of the base's), k_a=20.",
    ),
]
Rescore = Annotated[bool, typer.Option("--rescore", help="Score the answers in -o again, without a model.")]
Base = Annotated[bool, typer.Option("--base/--no-base", help="Evaluate the untouched base too.")]
ShowPrompt = Annotated[bool, typer.Option("--show-prompt", help="Print the prompts and stop.")]


@with_settings(
    "eval.protocol", "eval.judge", "eval.judge_base_url=--judge-url", "eval.batch", "eval.max_new_tokens"
)
def eval(
    target: Target,
    settings: dict[str, Any],
    suite: Suite = None,
    data_dir: options.DataDir = None,
    image_root: ImageRoot = None,
    limit: options.Limit = None,
    ids: Ids = None,
    split: options.Split = "test",
    out: options.Out = None,
    export: Export = None,
    html: Html = False,
    profile: options.AskedProfile = "",
    compat: Compat = "vlmeval-688e9da",
    judge_prompts: JudgePrompts = None,
    base: Base = True,
    rag: options.Rag = None,
    show_prompt: ShowPrompt = False,
    rescore: Rescore = False,
    fail_under: FailUnder = None,
    download: options.Download = False,
    restart: options.Restart = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score what a model learned (CEM, F1) and what it kept (retention suites), beside its base.

    Example: kore eval runs/demo --suite demo,eval.jsonl -o results
    """
    from kore.distributed import launched
    from kore.evaluation.run_eval import Request, plan
    from kore_cli.output import Output

    request = Request(
        target=target,
        suites=options.names(suite),
        data=data_dir,
        out=out,
        profile=profile,
        settings=settings,
        compat=compat,
        judge_prompts=judge_prompts,
        split=split,
        image_root=image_root,
        limit=limit,
        ids=frozenset(options.names([ids] if ids else None)),
        base=base,
        rag=rag,
        rescore=rescore,
        fail_under=fail_under or [],
        export=export,
        html=html,
        download=download,
        restart=restart,
    )
    output = Output(json_mode=json_, quiet=quiet or not launched().first)
    planned = plan(request)
    if dry_run:
        output.result(planned.to_json())
    elif show_prompt:
        for row in planned.prompts():
            output.record(row)
    else:
        _evaluate(output, request, planned)


def _evaluate(output: Output, request: Request, planned: Plan) -> None:
    from kore.api.evaluate import evaluate_requested

    with output.progress("eval", total=planned.answers) as advance:
        current, before = "", 0

        def progress(stage: str, done: int, total: int | None = None, note: str = "") -> None:
            nonlocal current, before
            before = before if stage == current and done >= before else 0
            advance(done - before, note=f"{stage} {done}/{total}")
            current, before = stage, done

        result = evaluate_requested(request, planned, progress=progress)
    if result.rank:
        return
    for warning in result.warnings:
        output.warn(warning)
    if output.human:
        from kore_cli.render.evaluation import print_summary

        print_summary(output, result.summary)
    else:
        output.record(result.summary)
    output.note(f"written to {result.out}")
    result.check()
