"""The kore profiles commands: list, show, validate, copy, suggest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kore_cli import options
from kore_cli.help import KoreGroup

app = typer.Typer(
    help="Settings for models and machines: list, show, validate, copy, suggest.",
    no_args_is_help=True,
    cls=KoreGroup,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="A shipped profile's name, or a TOML file.")]


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """The profiles that ship with KORE.

    Example: kore profiles list
    """
    from kore.config.resolve import find, resolve, shipped_names
    from kore_cli.output import Output

    output = Output(json_mode=as_json)
    rows: list[dict[str, Any]] = []
    for name in shipped_names():
        profile = resolve(name, environ={}).profile
        rows.append(
            {
                "name": name,
                "model": profile.model.id,
                "description": profile.description,
                "file": str(find(name)),
            }
        )
    if output.human:
        output.table(rows, ["name", "model", "description"])
        return
    for row in rows:
        output.record(row)


@app.command()
def show(
    name: Name = "tiny",
    setting: options.Set = None,
    changed: Annotated[bool, typer.Option("--changed", help="Leave out what is a default.")] = False,
    as_json: options.Json = False,
) -> None:
    """Every setting, its value, and where the value comes from.

    Example: kore profiles show llava-v1.5-7b --changed
    """
    from kore.config.resolve import resolve
    from kore_cli.options import overrides
    from kore_cli.output import Output

    output = Output(json_mode=as_json)
    resolved = resolve(name, dict(overrides(setting)))
    rows = [
        {"key": key, "value": value, "origin": resolved.origin.get(key, "default")}
        for key, value in resolved.values().items()
    ]
    rows = [row for row in rows if not changed or row["origin"] != "default"]
    if not output.human:
        for row in rows:
            output.record(row)
        return
    shown = [{**row, "value": _toml(row["value"])} for row in rows]
    output.table(shown, ["key", "value", "origin"], title=f"{name} (fingerprint {resolved.fingerprint})")


@app.command()
def validate(name: Name, setting: options.Set = None, as_json: options.Json = False) -> None:
    """Check a profile: keys, types, the method and its settings, and that they go together.

    Example: kore profiles validate mine.toml
    """
    from kore.config.resolve import resolve
    from kore.workflows.validate import check
    from kore_cli.options import overrides
    from kore_cli.output import Output

    output = Output(json_mode=as_json)
    resolved = resolve(name, dict(overrides(setting)))
    found = check(resolved)
    text = "\n".join(f"{k.replace('_', ' ')}: {v}" for k, v in found.items())
    output.result(found, f"{name} is valid\n{text}")


@app.command()
def copy(
    name: Name,
    target: Annotated[Path, typer.Argument(help="The file to write, or a folder.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: options.Json = False,
) -> None:
    """A profile as a file of your own to edit.

    Example: kore profiles copy llava-v1.5-7b mine.toml
    """
    from kore.config.resolve import find
    from kore_cli.output import Output

    source = find(name)
    path = target / source.name if target.is_dir() else target
    _write(path, source.read_text(encoding="utf-8"), force)
    Output(json_mode=as_json).result({"file": str(path)}, f"{path}: use it with --profile {path}")


@app.command()
def suggest(
    model: Annotated[str, typer.Argument(help="A model folder or hub id.")],
    gpu: Annotated[str, typer.Option("--gpu", metavar="SIZE", help="The GPU's memory, e.g. 24GiB.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The TOML file to write.")
    ] = None,
    setting: options.Set = None,
    download: options.Download = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: options.Json = False,
) -> None:
    """A profile for a model on one GPU: quantisation, micro-batch and checkpointing by the memory estimate.

    The shapes come from config.json; no weights are read. Example: kore profiles suggest MODEL --gpu 24GiB
    """
    from kore.workflows.suggest import suggest as suggested
    from kore_cli.options import overrides
    from kore_cli.output import Output

    output = Output(json_mode=as_json)
    found = suggested(model, gpu, overrides(setting), download=download)
    if out is not None:
        _write(out, found.toml, force)
    if as_json or out is not None:
        value = {"profile": found.toml, "memory": found.memory, "file": str(out) if out else None}
        output.result(value, f"{out}: use it with --profile {out}")
    else:
        output.line(found.toml.rstrip())


def _write(path: Path, text: str, force: bool) -> None:
    """Write a profile.

    Raises:
        UsageError: the name does not end in .toml, or the file exists and is not to be replaced.
    """
    from kore.errors import UsageError
    from kore.io.files import atomic_write

    if path.suffix != ".toml":
        raise UsageError(f"a profile's name ends in .toml: {path}")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="overwrite it with --force")
    with atomic_write(path) as stream:
        stream.write(text)


def _toml(value: object) -> str:
    """A value as a profile would write it."""
    import json

    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
