"""What `kore dashboard` opens: the run that is named, the newest, or the list where several are at work."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from kore.artifacts.run import Run, boot_id
from kore_cli.commands import dashboard
from kore_cli.dashboard.app import KoreApp
from tests.tui.test_state import run_state


def write(name: str, **values: Any) -> Path:
    """A run of this process, at work on this machine."""
    folder = Path("runs") / name
    here = {"pid": os.getpid(), "host": socket.gethostname(), "boot": boot_id(), "started": time.time()}
    Run(folder).write(run_state(**here | values))
    return folder


@pytest.mark.parametrize(
    ("values", "live"),
    [
        ({}, True),
        ({"host": "elsewhere"}, True),  # as far as can be told
        ({"status": "finished"}, False),
        ({"status": "interrupted"}, False),
        ({"boot": "before"}, False),
        ({"pid": 2**30}, False),
    ],
    ids=str,
)
def test_a_run_is_live_if_it_says_so_and_nothing_here_says_otherwise(
    values: dict[str, Any], live: bool
) -> None:
    assert dashboard.is_live(Run(write("a", **values))) is live


def test_what_cannot_be_read_is_not_live() -> None:
    folder = write("a")
    (folder / "run.json").write_text("{broken")
    assert not dashboard.is_live(Run(folder))


@pytest.mark.parametrize(
    ("statuses", "named", "choose"),
    [
        (("running", "running"), False, True),
        (("running", "finished"), False, False),
        (("running", "running"), True, False),
        ((), False, False),
    ],
    ids=["several", "one", "named", "none"],
)
def test_the_list_is_opened_where_several_runs_are_at_work(
    statuses: tuple[str, ...], named: bool, choose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write(f"r{i}", status=status) for i, status in enumerate(statuses)]
    opened: list[KoreApp] = []
    monkeypatch.setattr(KoreApp, "run", lambda app, mouse: opened.append(app))
    dashboard.open_dashboard(folders if named else [], theme="kore-dark", images="off")
    (app,) = opened
    assert app._choose is choose and app.images == "off"
    assert [app.source.folder, *(o.folder for o in app.others)] == (folders if named else [None])
