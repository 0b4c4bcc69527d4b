"""A run folder as a stream of snapshots: what is found, what is read of it, and what it is called."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from kore.artifacts.run import Run, boot_id, title_of
from kore.telemetry import Telemetry
from kore_cli.commands.dashboard import dashboard
from kore_cli.dashboard.event_reader import TAIL, EventReader
from kore_cli.dashboard.watcher import RunSource
from kore_cli.screens.machine import compact_machine, machine
from tests.tui.conftest import FakeProbe
from tests.tui.test_state import run_state, step, write_log


def test_a_run_begun_anew_in_the_same_folder_is_read_from_its_start(tmp_path: Path) -> None:
    def begin(name: str, steps: int, at: float) -> None:
        folder.mkdir(exist_ok=True)
        Run(folder).write(run_state(method=name))
        write_log(folder, [step(i, t=at + i) for i in range(1, steps + 1)])

    folder = tmp_path / "r"
    begin("lora", 30, 5e8)
    source = RunSource(folder, clock=lambda: 5e8)
    assert source.poll().state.step == 30
    for path in folder.glob("events-*.jsonl"):
        path.unlink()  # the system may well give its number to the next file, which may be longer
    begin("kore", 40, 5.001e8)
    seen = source.poll()
    assert seen.bad_lines == 0 and seen.run is not None and seen.run.method == "kore"
    assert seen.state.events == 40 and seen.state.curve("loss").x == tuple(range(1, 41))
    assert not seen.state.marks  # nothing was resumed
    assert source.poll().state.events == 40


def test_what_is_wrong_with_a_file_is_told_until_it_reads_well(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write_log(folder, [step(1)])
    run, source = Run(folder), RunSource(folder)
    run.write(run_state())
    source.poll()
    (folder / "run.json").write_text("{broken")
    run.spectra.write_text('{"sites": 5}')
    for _ in range(9):
        seen = source.poll()
    assert seen.problem is not None and "run.json" in seen.problem and "spectra.json" in seen.problem
    run.write(run_state(method="lora"))
    run.spectra.unlink()
    for _ in range(9):
        seen = source.poll()
    assert seen.problem is None and seen.run is not None and seen.run.method == "lora"


@pytest.mark.parametrize("index", [[1, 2, 3], [1, "x"], [1]], ids=str)
def test_ranks_that_do_not_go_with_their_eigenvalues_are_told(tmp_path: Path, index: list[object]) -> None:
    folder = tmp_path / "r"
    write_log(folder, [step(1)])
    Run(folder).write(run_state())
    site = {"name": "a", "index": index, "eigenvalues": [2.0, 1.0]}
    Run(folder).spectra.write_text(json.dumps({"sites": [site]}))
    seen = RunSource(folder).poll()
    assert seen.problem is not None and "spectra.json" in seen.problem and not seen.spectra


def test_the_memory_shown_is_that_of_the_run_and_not_of_who_asks(tmp_path: Path) -> None:
    class Asked:
        def sample(self) -> Telemetry:
            return Telemetry((), 1.0, 999)

        def close(self) -> None: ...

    source = RunSource(tmp_path / "r", probe=Asked(), memory={7: 5}.get, alive=lambda run: True)
    assert source.poll().readings[-1][1].rss is None
    write_log(tmp_path / "r", [])
    Run(tmp_path / "r").write(run_state(pid=7, started=time.time(), host=socket.gethostname()))
    source._local = ()
    assert source.poll().readings[-1][1].rss == 5


def test_a_snapshot_off_a_terminal_has_the_past_of_a_long_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    past = [{"kind": "warning", "t": 1.0, "text": "odd"}, {"kind": "checkpoint", "step": 1, "best": True}]
    path = write_log(tmp_path / "r", [*past, *(step(i, note="x" * 2000) for i in range(1, 1500))])
    assert path.stat().st_size > TAIL
    dashboard([str(tmp_path / "r")], once=True)
    told = json.loads(capsys.readouterr().out)
    assert told["events"] == 1501 and told["best"]["step"] == 1 and told["warnings"][0]["text"] == "odd"


def test_readings_count_as_events_in_a_long_log_as_in_a_short_one(tmp_path: Path) -> None:
    beats = [{"v": 1, "t": 1.0 + i, "kind": "gpu", "cpu_percent": 1.0} for i in range(99)]
    write_log(tmp_path / "r", [*beats, *(step(i, note="x" * 2000) for i in range(1, 1500))])
    assert RunSource(tmp_path / "r").whole().state.events == 1598


def test_the_machine_of_a_run_that_tells_no_readings_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "r", [step(1)])
    Run(tmp_path / "r").write(
        run_state(pid=os.getpid(), started=time.time(), host=socket.gethostname(), boot=boot_id())
    )
    dashboard([str(tmp_path / "r")], once=True)
    told = json.loads(capsys.readouterr().out)
    assert told["machine"]["rss"] > 1 << 20 and told["machine"]["cpu_percent"] is None


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"host": "node9"}, "no readings from node9, another machine"),
        ({"status": "finished", "ended": 2000.0}, "no readings: the run logged none"),
    ],
    ids=["elsewhere", "over"],
)
def test_why_there_are_no_readings_is_told(values: dict[str, Any], why: str, tmp_path: Path) -> None:
    write_log(tmp_path / "r", [step(1)])
    Run(tmp_path / "r").write(run_state(**values))
    probe = FakeProbe(Telemetry((), 1.0))
    (reading,) = RunSource(tmp_path / "r", probe=probe, clock=lambda: 1010.0).poll().readings
    assert reading[1].why == why and not reading[1].devices
    assert why in str(machine((reading,), 40, 4)) and why in str(compact_machine((reading,), 60)[0])


def test_runs_are_looked_for_only_once_the_one_watched_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr("kore.artifacts.run.all_runs", lambda: looked.append(1) or [Run(tmp_path / "r")])
    write_log(tmp_path / "r", [step(1)])
    Run(tmp_path / "r").write(run_state())
    now, alive = [0.0], [True]
    source = RunSource(None, clock=lambda: now[0], alive=lambda run: alive[0])
    for now[0] in (0.0, 5.0, 10.0, 15.0):
        source.poll()
    assert len(looked) == 1
    alive[0], now[0] = False, 20.0
    source.poll()
    assert len(looked) == 2


def test_events_that_could_not_be_opened_are_read_once_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "r", [step(i) for i in range(1, 9)])
    Run(tmp_path / "r").write(run_state())
    source, follow = RunSource(tmp_path / "r"), EventReader.follow

    def fails(reader: EventReader) -> bool:
        raise OSError("stale file handle")

    monkeypatch.setattr(EventReader, "follow", fails)
    assert "stale" in str(source.poll().problem)
    monkeypatch.setattr(EventReader, "follow", follow)
    assert source.whole().state.events == 8 and source.poll().problem is None


def test_a_past_that_cannot_be_read_is_not_waited_for(tmp_path: Path) -> None:
    path = write_log(tmp_path / "r", [step(i) for i in range(1, 1500)])
    source = RunSource(tmp_path / "r")
    source.poll()
    assert source._reader is not None
    source._reader._todo, source._reader._todo_bytes = [(path.with_name("gone.jsonl"), 0, 99)], 99
    seen = source.whole()
    assert seen.history == 0.0 and seen.problem is not None and "gone.jsonl" in seen.problem


def test_the_run_inside_an_injection_is_found_when_it_begins(tmp_path: Path) -> None:
    source = RunSource(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    assert source.poll().liveness.name == "waiting"
    inside = tmp_path / "mine" / "run"
    inside.mkdir()
    write_log(inside, [step(1)])
    Run(inside).write(run_state())
    seen = source.poll()
    assert seen.folder == inside and seen.run is not None and seen.state.step == 1


def test_runs_of_two_injections_have_two_names() -> None:
    assert title_of(Path("runs/a/run")) == "a/run" != title_of(Path("runs/b/run"))
    assert title_of(Path("runs/mine")) == "mine"
