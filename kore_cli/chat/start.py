"""Opens the chat screen: checks the target, starts the child that holds the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kore.errors import MissingArtefact

if TYPE_CHECKING:
    from kore_cli.chat.stdio import Plan


def child_argv(plan: Plan, name: str) -> list[str]:
    """The child's arguments: the plan's own, without those that are sent with each question."""
    argv = [name, *(("--profile", plan.profile) if plan.profile else ())]
    for key, value in plan.settings.items():
        argv += ["--set", f"{key}={value}"]
    if plan.max_new_tokens:
        argv += ["--max-new-tokens", str(plan.max_new_tokens)]
    if plan.rag:
        argv += ["--rag", str(plan.rag)]
    if plan.download:
        argv.append("--download")
    return argv


def open_chat(plan: Plan, adapters: list[str], *, context: bool | None, theme: str, images: str) -> None:
    """Run the chat until the user leaves it.

    Raises:
        UsageError: a folder of several runs.
        MissingArtefact: the model or run is not there (raised before the screen opens).
    """
    from kore.artifacts.run import locate, run_named, title_of
    from kore_cli.chat.header import EMBEDDED
    from kore_cli.widgets.image import prepare

    name = plan.name
    for given in [name, *adapters]:
        local = given == EMBEDDED or run_named(given) is not None or locate(given).exists()
        if not local and not _may_be_on_the_hub(given):
            raise MissingArtefact(
                f"no run, adapter or model here: {given}", hint="list the runs with: kore runs"
            )
    prepare(images)
    from kore_cli.chat.app import ChatApp
    from kore_cli.chat.child import ChatClient

    argv = child_argv(plan, name)
    app = ChatApp(
        lambda on_event: ChatClient(argv, on_event),
        title=title_of(name),
        target=name,
        pictures=[str(Path(p).resolve()) for p in plan.images],
        compare=plan.compare,
        who=plan.model,
        temperature=plan.temperature,
        adapters=adapters,
        context=context,
        theme=theme,
        images=images,
    )
    app.until_left()


def _may_be_on_the_hub(name: str) -> bool:
    """Whether it looks like ORG/NAME, and not like a missing file of an existing folder."""
    return name.count("/") == 1 and not name.startswith((".", "/")) and not Path(name).parent.is_dir()
