"""The kore command: parses, calls the engine, turns its errors into exit codes.

Imports nothing heavy: torch, transformers, openai and textual are loaded by the command that needs them.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import Annotated, ClassVar, NoReturn

import typer

from kore_cli.help import LazyGroup


class Kore(LazyGroup):
    """Every command, by what it is for, in the order in which a newcomer meets them."""

    sections: ClassVar[dict[str, dict[str, str]]] = {
        "Start": {
            "demo": "Teach the built-in model new countries and compare methods.",
            "items": "Turn a table, images or Markdown files into items.",
            "inject": "Teach a model your own items, from data to scores.",
            "chat": "Ask the base and the taught model, with images.",
            "dashboard": "Watch a run: loss, answers, scores, knowledge, spectra.",
        },
        "Build": {
            "augment": "Turn items into knowledge trees and training samples.",
            "calibrate": "Collect the covariance of what the model already knows.",
            "train": "Train one adapter with KORE or another method.",
            "eval": "Score what a model learned and what it kept.",
            "export": "Write an adapter for PEFT, vLLM, or as a merged model.",
            "study": "Compare methods over seeds and rates on the same data.",
        },
        "Look": {
            "runs": "List runs with their state and scores.",
            "show": "Describe a run, a model, samples, or any other artifact.",
            "compare": "Compare evaluation results with confidence intervals.",
            "analyze": "Measure and draw what covariances capture.",
        },
        "Tools": {
            "profiles": "List, show, check and copy settings for models.",
            "data": "Check for benchmark files and download them.",
            "check-server": "Find out whether a server applies an exported adapter.",
            "combine": "Join augmentation shards or add covariances.",
        },
    }


app = typer.Typer(
    name="kore",
    cls=Kore,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Teach a vision-language model new facts without making it forget what it knows.",
    epilog="Start with: kore demo",
)


def _version(value: bool) -> None:
    if value:
        from kore.version import __version__
        from kore_cli.output import Output

        Output().line(f"kore {__version__} (python {sys.version.split()[0]})")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Teach a vision-language model new facts without making it forget what it knows."""


def main() -> None:
    """Run the command line; expected failures become one to three lines and an exit code."""
    from kore.distributed import launched
    from kore.errors import Interrupted
    from kore_cli.errors import ended
    from kore_cli.output import keep_stdout_clean

    keep_stdout_clean()
    code = ended(lambda: app(standalone_mode=False))
    if code == Interrupted.exit_code or launched().size > 1:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End without the interpreter's own end, which takes one to three seconds where torch is loaded: too long
    after Ctrl-C, and too long for one of several processes.

    gloo's threads outlive the process group where DeepSpeed still holds it; one that wants Python back
    while it is taken down aborts a process that has done all its work, and the launcher then ends the others.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # nobody listens, or it was closed from the beginning
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
