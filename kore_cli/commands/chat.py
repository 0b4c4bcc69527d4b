"""The kore chat command: a screen on a terminal, JSON lines in pipes, one answer with --once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli import options

TargetName = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN|ADAPTER|MODEL]",
        help="Who answers. Default: the newest finished run, else kore-tiny.",
    ),
]


def chat(
    ctx: typer.Context,
    target: TargetName = None,
    once: Annotated[str | None, typer.Option("--once", help="Ask this one question and leave.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", "-i", help="A picture for the question (may be repeated).")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="The base and the injected model, side by side.")
    ] = False,
    rag: options.Rag = None,
    model: Annotated[str | None, typer.Option("--who", help="Who answers: base, kore or rag.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer.")
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="More runs or adapters to switch between (may be repeated)."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="JSON lines with pieces of answers as they come.")
    ] = False,
    context: Annotated[
        bool | None,
        typer.Option("--context/--no-context", help="Send earlier turns along (default: not for kore-tiny)."),
    ] = None,
    images: Annotated[
        options.Images,
        typer.Option(
            "--images", envvar="KORE_IMAGES", help="auto: the terminal's best; blocks: half blocks; off."
        ),
    ] = options.Images.auto,
    theme: Annotated[str, typer.Option("--theme", envvar="KORE_THEME", help="A theme's name.")] = "kore-dark",
    profile: options.AskedProfile = "",
    set_: options.Set = None,
    download: options.Download = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask the base and the injected model about pictures.

    Piped: a question a line, as text or JSON, an answer a line. Example:
    echo '{"image": "x.png", "text": "Who is this?"}' | kore chat runs/demo --json
    """
    import sys

    from kore_cli.chat.stdio import Plan, answer_lines, answer_once

    plan = Plan(
        target=target,
        images=tuple(str(p) for p in image or []),
        compare=compare,
        rag=rag,
        model=model,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        profile=profile,
        settings=options.overrides(set_),
        download=download,
        json=json_,
        quiet=quiet,
        stream=stream,
    )
    if once is None and not stream and not json_ and sys.stdin and sys.stdin.isatty() and sys.stdout.isatty():
        from kore_cli.chat.start import open_chat

        open_chat(plan, adapters or [], context=context, theme=theme, images=images.value)
        return
    _refuse_idle(ctx)
    if once is not None:
        answer_once(plan, once)
    else:
        answer_lines(plan)


def _refuse_idle(ctx: typer.Context) -> None:
    """Refuse options of the command line that only the screen heeds.

    Raises:
        UsageError: names the option and what does the same for a question.
    """
    from kore.errors import UsageError

    for option, instead in (
        ("adapter", 'a line switches with "use"'),
        ("context", 'a line brings earlier turns as "history"'),
        ("theme", None),
        ("images", None),
    ):
        if options.on_command_line(ctx, "adapters" if option == "adapter" else option):
            raise UsageError(f"--{option} has no effect without the screen", hint=instead)
