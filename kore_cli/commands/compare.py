"""kore compare: evaluation results side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from kore_cli import options


def compare(
    results: Annotated[
        list[str],
        typer.Argument(
            help="Result folders of kore eval, FOLDER or FOLDER:LABEL; the first is the reference."
        ),
    ],
    flips: Annotated[bool, typer.Option("--flips", help="List the samples that flipped.")] = False,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Bootstrap resamples.")] = 10_000,
    seed: options.Seed = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Differences with 95 % intervals (paired bootstrap over samples), and what was forgotten or learned.

    One folder compares its tuned model with its base.

    Example: kore compare results-lora results-kore --flips
    """
    from kore.evaluation.compare import all_flips, open_side
    from kore.evaluation.compare import compare as differences
    from kore_cli.output import Output
    from kore_cli.render.scores import difference_rows

    output = Output(json_mode=json_, quiet=quiet)
    named = results if len(results) > 1 else [f"{results[0]}:base", results[0]]
    first, *others = [open_side(name) for name in named]
    columns = (
        "suite",
        "first",
        "second",
        "difference",
        "low",
        "high",
        "clear",
        "samples",
        "forgotten",
        "learned",
    )
    for other in others:
        rows = [row.to_json() for row in differences(first, other, resamples=resamples, seed=seed or 0)]
        found = all_flips(first, other) if flips else {}
        if not output.human:
            lines = [{"suite": n, **f.to_json()} for n, fs in found.items() for f in fs]
            output.record(
                {
                    "first": first.name,
                    "second": other.name,
                    "rows": rows,
                    **({"flips": lines} if flips else {}),
                }
            )
            continue
        output.table(difference_rows(rows), columns, title=f"{first.name} (first) and {other.name} (second)")
        for name, several in found.items():
            for flip in several:
                word = "learned" if flip.gained else "forgotten"
                output.line(f"{word} {name} {flip.id}: {flip.question!r}")
                output.line(f"  answer {flip.answer!r}; first {flip.before!r}; second {flip.after!r}")
