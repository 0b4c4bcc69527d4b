"""A run folder knows who works on it; a dead worker's lock is taken over; the newest run is found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kore.artifacts.run import NAME, Run, RunState, all_runs, home, leave_pointer, process_alive
from kore.errors import DataError, MissingArtefact
from kore.io.files import write_json
from tests.held import held


def state(**changes: object) -> RunState:
    values = {"status": "running", "method": "kore", "command": ["train"], "profile": {"train.lr": 0.01}}
    return RunState(**{**values, **changes})  # type: ignore[arg-type]


def test_a_state_is_read_as_it_was_written_and_can_be_changed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write(state())
    assert run.state() == state(started=run.state().started)
    run.update(status="finished", ended=5.0, result={"avg": 41.5})
    assert (run.state().status, run.state().result) == ("finished", {"avg": 41.5})


def test_no_run_names_the_command_that_starts_one(tmp_path: Path) -> None:
    with pytest.raises(MissingArtefact) as caught:
        Run(tmp_path).state()
    assert "kore train" in str(caught.value.hint)


@pytest.mark.parametrize("value", [[], {"status": "running"}, {"unknown": 1}, "text", None])
def test_a_file_that_is_no_run_is_a_data_error(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / NAME, value)
    with pytest.raises(DataError, match="not a run"):
        Run(tmp_path).state()


def test_a_live_run_is_locked_and_says_by_whom(tmp_path: Path) -> None:
    with held(tmp_path) as child:
        with (
            pytest.raises(DataError, match=f"in use by process {child.pid}") as caught,
            Run(tmp_path).locked(),
        ):
            pass
        assert "kore dashboard" in str(caught.value.hint)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with held(tmp_path) as child:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with Run(tmp_path).locked():
            assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def test_a_lock_is_free_again_after_its_block_even_when_that_failed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RuntimeError), run.locked():
        raise RuntimeError
    with run.locked():
        pass


def test_a_place_that_cannot_be_locked_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"), Run(tmp_path / "file" / "run").locked():
        pass


def test_dead_running_zombie_and_foreign_processes_are_told_apart() -> None:
    assert process_alive(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while process_alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process_alive(child.pid), "a zombie does not run"
    child.wait()
    assert not process_alive(child.pid)
    assert process_alive(1), "another user's process is alive, too"


def test_a_state_from_before_a_reboot_is_dead_and_one_from_another_host_does_not_claim_to_know() -> None:
    assert state().alive is True
    assert state(host="elsewhere").alive is None
    assert state(boot="before").alive is False
    assert state(boot="before", host="elsewhere").alive is None
    assert state(boot="").alive is None  # a system that does not tell


def test_the_newest_run_is_found_here_and_elsewhere(tmp_path: Path) -> None:
    assert all_runs() == []
    inside, outside = Run(home() / "a"), Run(tmp_path / "elsewhere" / "b")
    for age, run in ((20, inside), (10, outside)):
        run.write(state())
        leave_pointer(run)
        os.utime(run.folder / NAME, (time.time() - age,) * 2)
    assert [r.folder.name for r in all_runs()] == ["b", "a"]
    os.utime(inside.folder / NAME)
    assert all_runs()[0].folder.name == "a"


def test_runs_of_one_name_in_two_places_do_not_hide_each_other(tmp_path: Path) -> None:
    runs = [Run(tmp_path / place / "run") for place in ("x", "y")]
    for run in runs:
        run.write(state())
        leave_pointer(run)
        leave_pointer(run)
    assert {r.folder for r in all_runs()} == {r.folder for r in runs}
    assert len(list(home().glob("*.run"))) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"folder": 3}', '{"folder": "/nowhere"}'])
def test_a_broken_or_stale_pointer_is_passed_over(text: str) -> None:
    home().mkdir(parents=True)
    (home() / "x.run").write_text(text)
    assert all_runs() == []
