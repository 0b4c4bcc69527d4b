"""kore eval: what a model learned and what it kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli import options


def eval(
    target: Annotated[
        str, typer.Argument(help="A run folder, an adapter folder, or a model (folder, hub id, kore-tiny).")
    ],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            "-s",
            help="demo, evoke, benchmarks, NAME, FILE.jsonl[:retention], agreement:FILE, loss:FILE, "
            "FILE.tsv:KIND.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            envvar="KORE_DATA",
            help="Folder of benchmark files (default: $LMUData or ~/LMUData).",
        ),
    ] = None,
    out: options.Out = None,
    profile: options.AskedProfile = "",
    set_: options.Set = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="vlmeval or llava-native (four benchmarks).")
    ] = None,
    compat: Annotated[
        str, typer.Option("--compat", help="Option inference of vlmeval-688e9da or vlmeval-2026-06.")
    ] = "vlmeval-688e9da",
    judge: Annotated[
        str | None, typer.Option("--judge", help="none, openai:MODEL, hf:PATH or replay:FILE.")
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option("--judge-url", help="An OpenAI-compatible server for the judge.")
    ] = None,
    judge_prompts: Annotated[
        Path | None, typer.Option("--judge-prompts", help="TOML file with your own judge prompts.")
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="test or validation, where a suite has both.")
    ] = "test",
    image_root: Annotated[
        Path | None, typer.Option("--image-root", help="Where relative pictures of JSONL suites lie.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first N samples of each suite.")
    ] = None,
    ids: Annotated[str | None, typer.Option("--ids", help="Only these samples, comma separated.")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens", min=1, help="Longest answer; default: the profile's, 2048 for benchmarks."
        ),
    ] = None,
    base: Annotated[bool, typer.Option("--base/--no-base", help="Evaluate the untouched base too.")] = True,
    rag: options.Rag = None,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print the prompts and stop.")] = False,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score the answers in -o again, without a model.")
    ] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under", metavar="NAME=X", help="Exit 6 if below: k_r=0.95 (share of the base's), k_a=20."
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Also write VLMEvalKit's TSV and xlsx there.")
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also write report.html with pictures of flipped samples.")
    ] = False,
    download: options.Download = False,
    restart: options.Restart = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score what a model learned (CEM, F1) and what it kept (retention suites), beside its base.

    Example: kore eval runs/demo --suite demo,eval.jsonl -o results
    """
    from kore.api.evaluate import evaluate_requested
    from kore.distributed import launched
    from kore.evaluation.run_eval import Request, plan
    from kore_cli.output import Output

    request = Request(
        target=target,
        suites=options.names(suite),
        data=data_dir,
        out=out,
        profile=profile,
        settings=set_ or [],
        protocol=protocol,
        compat=compat,
        judge=judge,
        judge_url=judge_url,
        judge_prompts=judge_prompts,
        split=split,
        image_root=image_root,
        limit=limit,
        ids=frozenset(i.strip() for i in (ids or "").split(",") if i.strip()),
        max_new_tokens=max_new_tokens,
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
        return
    if show_prompt:
        for row in planned.prompts():
            output.record(row)
        return
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
