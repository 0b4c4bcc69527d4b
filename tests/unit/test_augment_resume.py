"""Killed at any moment, run again: nothing is paid twice and the files are those of a calm run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kore.augment import grow
from kore.augment.worklog import WorkLog
from kore.config.schema import AugmentSection
from kore.errors import DataError
from tests.augment_loopback import gadgets, loopback
from tests.held import held

FILES = ("tree.jsonl", "samples.jsonl", "eval.jsonl", "rejected.jsonl", "report.json")


def test_the_log_gives_entries_in_the_items_order_and_drops_a_torn_line(tmp_path: Path) -> None:
    with WorkLog(tmp_path) as log:
        for index in (2, 0, 1):
            log.add(index, {"name": f"item {index} é"})
    with log.path.open("ab") as stream:
        stream.write(b'{"index": 3, "na')
    with WorkLog(tmp_path) as log:
        assert log.indices() == [0, 1, 2] and 3 not in log
        assert [log.get(i)["name"] for i in log.indices()] == [f"item {i} é" for i in range(3)]
        assert (log.paid_in, log.paid_out) == (0, 0)
        log.pay(5, 7)
        log.add(3, {"name": "again"})
        log.pay(1, 2)
        assert log.get(3)["name"] == "again" and log.get(0)["name"] == "item 0 é"
    with WorkLog(tmp_path) as log:
        assert log.indices() == [0, 1, 2, 3] and (log.paid_in, log.paid_out) == (6, 9)


def test_a_folder_that_another_process_augments_into_is_refused(tmp_path: Path, picture: Path) -> None:
    with held(tmp_path / "out") as child, pytest.raises(DataError, match=f"process {child.pid}"):
        grow(gadgets(1, picture), AugmentSection(teacher="offline"), tmp_path / "out")
    assert grow(gadgets(1, picture), AugmentSection(teacher="offline"), tmp_path / "out").state == "fresh"


def test_a_run_that_stopped_half_way_goes_on_from_there(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    items = gadgets(6, picture)
    section = AugmentSection(teacher="offline", concurrency=1)
    seen: list[int] = []

    def stop_at_three(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        seen.append(done)
        if done == 3:
            raise DataError("the plug is pulled")

    with pytest.raises(DataError, match="plug"):
        grow(items, section, tmp_path / "out", progress=stop_at_three)
    assert not (tmp_path / "out" / "samples.jsonl").exists(), "nothing half-done under a final name"
    seen.clear()
    report = grow(
        items, section, tmp_path / "out", progress=lambda stage, done, total=None, note="": seen.append(done)
    )
    assert report.state == "resume" and 3 <= seen[0] < 6 and seen[-1] == 6
    grow(items, section, tmp_path / "calm")
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


@pytest.mark.slow
def test_kill_nine_anywhere_costs_no_finished_call(tmp_path: Path, picture: Path) -> None:
    items = gadgets(30, picture)
    source = tmp_path / "items.jsonl"
    source.write_text("".join(json.dumps(item.to_json()) + "\n" for item in items))

    def command(url: str, out: Path) -> list[str]:
        kore = Path(sys.executable).parent / "kore"
        options = ["--teacher", "openai:loopback", "--base-url", url, "--concurrency", "4", "-q"]
        return [str(kore), "augment", str(source), "-o", str(out), *options]

    def environment(name: str) -> dict[str, str]:
        return {**os.environ, "KORE_CACHE": str(tmp_path / name)}

    with loopback() as calm:
        subprocess.run(
            command(calm.url, tmp_path / "calm"),
            env=environment("calm cache"),
            check=True,
            capture_output=True,
        )
    kills = 0
    with loopback("--latency", "0.1") as server:
        while kills < 40:
            process = subprocess.Popen(
                command(server.url, tmp_path / "out"), env=environment("kept"), stdout=subprocess.DEVNULL
            )
            try:
                # counted from the first call on, so that every try gets somewhere and is cut at another place
                before = server.stats().get("requests", 0)
                deadline = time.monotonic() + 60
                while (
                    process.poll() is None
                    and server.stats().get("requests", 0) == before
                    and time.monotonic() < deadline
                ):
                    time.sleep(0.02)
                process.wait(timeout=0.2 + 0.07 * (kills % 7))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        assert process.returncode == 0
        replies = server.stats()["replies"]
    assert kills >= 3
    assert replies <= 4 * len(items) + 4 * kills, "at most the calls in flight at each kill are paid again"
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
