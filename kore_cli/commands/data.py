"""kore data: what benchmark data is here, and fetching it on request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli import options
from kore_cli.help import KoreGroup

app = typer.Typer(
    help="Benchmark data: check what is here, fetch what is asked for.",
    no_args_is_help=True,
    cls=KoreGroup,
    rich_markup_mode=None,
)
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data folder (default: $KORE_DATA, $LMUData, ~/LMUData)."),
]


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; default: the twelve.")] = None,
    data_dir: DataDir = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List path, rows, size and MD5 of every benchmark file, and what is missing.

    Example: kore data check --data-dir ~/LMUData
    """
    from kore.artifacts.run import data_root
    from kore.data.benchmarks import NAMES, known
    from kore.errors import DataError, UsageError
    from kore.evaluation import benchmark_files as library
    from kore_cli.output import Output

    output = Output(json_mode=json_, quiet=quiet)
    for name in names or []:
        if not known(name):
            raise UsageError(f"unknown benchmark: {name}", hint=", ".join(NAMES))
    data = data_dir or data_root()
    found = list(library.check(data, tuple(names) if names else NAMES))
    if output.human:
        columns = ("name", "state", "rows", "size", "md5", "path", "message")
        output.table([row.to_json() for row in found], columns, title=str(data))
    else:
        for row in found:
            output.record(row.to_json())
    for row in found:
        if row.state == "other":
            output.warn(f"{row.path}: MD5 {row.md5}, published {row.published}")
    missing = [row.name for row in found if row.state == "missing"]
    if missing:
        output.note(f"{len(missing)} of {len(found)} missing; fetch with: kore data fetch {missing[0]}")
    bad = [row for row in found if row.state == "bad"]
    if bad:
        raise DataError(bad[0].message, hint="fetch it again after removing the file")


@app.command()
def fetch(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(help="A benchmark, benchmarks, onevision, evoke, or ORG/MODEL.")
    ],
    data_dir: DataDir = None,
    max_size: Annotated[float, typer.Option("--max-size", help="Largest file in GiB.")] = 20.0,
    server: Annotated[str | None, typer.Option("--server", help="A mirror of the benchmark files.")] = None,
    hub: Annotated[
        str | None, typer.Option("--hub", envvar="HF_ENDPOINT", help="A mirror of the data set hub.")
    ] = None,
    allow_private: Annotated[
        bool,
        typer.Option("--allow-private", help="Allow mirrors on this machine or a private network, and http."),
    ] = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download data: the only command that does, and only what is named.

    Example: kore data fetch MME POPE
    """
    from kore.artifacts.run import data_root
    from kore.data.benchmarks import SERVER, find, known
    from kore.errors import UsageError
    from kore.evaluation import benchmark_files as library
    from kore.evaluation.benchmark_suite import md5_of
    from kore.io.download import GIB, Limits
    from kore_cli.output import Output

    output = Output(json_mode=json_, quiet=quiet)
    for option in ("data_dir", "max_size", "server", "hub", "allow_private"):
        model = next(filter(library.is_model, names), None)
        if model and options.on_command_line(ctx, option):
            raise UsageError(
                f"--{option.replace('_', '-')} has no effect on a model ({model})",
                hint="fetch models by themselves; HF_ENDPOINT and HF_HOME say from where and to where",
            )
    limits = Limits(size=int(max_size * GIB), private=allow_private)

    shown: dict[str, int] = {}

    def progress(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if stage not in shown:
            output.note(f"fetching {stage}")
        elif not output.live or done - shown[stage] < 64 << 20:
            return
        else:
            output.note(f"  {done / GIB:.2f} GiB" + (f" of {total / GIB:.2f}" if total else ""))
        shown[stage] = done

    data = data_dir or data_root()
    fetcher = library.Fetcher(data, limits, progress, server or SERVER, (hub or library.HUB).rstrip("/"))
    for name in names:
        for path in fetcher.fetch(name):
            output.record({"name": name, "path": str(path)}) if not output.human else output.line(str(path))
            if known(name) and path.suffix == ".tsv" and md5_of(path) != find(path.stem).md5:
                output.warn(f"{path}: MD5 differs from the published file's")
