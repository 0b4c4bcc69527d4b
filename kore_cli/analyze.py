"""The kore analyze command."""

from __future__ import annotations

import typer

app = typer.Typer(help="(being built)", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root() -> None:
    """(being built)"""


@app.command()
def list() -> None:
    """(being built)"""
