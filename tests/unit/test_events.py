"""What a run writes down, its readers see once, in order, whatever happens to the writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kore.artifacts.events import EventTail, EventWriter, segments


def test_events_are_read_once_and_in_order_over_several_segments(tmp_path: Path) -> None:
    tail = EventTail(tmp_path)
    assert list(tail.read()) == []
    with EventWriter(tmp_path) as first:
        first.write("step", step=1)
        assert [e["step"] for e in tail.read()] == [1]
        first.write("step", step=2)
    with EventWriter(tmp_path) as second:
        second.write("step", step=3)
        assert [e["step"] for e in tail.read()] == [2, 3]
        assert list(tail.read()) == []
    assert [p.name for p in segments(tmp_path)] == ["events-0001.jsonl", "events-0002.jsonl"]
    assert [e["step"] for e in EventTail(tmp_path).read()] == [1, 2, 3]


def test_segments_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    for number in (2, 10, 9999, 10000):
        (tmp_path / f"events-{number:04d}.jsonl").write_text(json.dumps({"kind": "step", "n": number}) + "\n")
    (tmp_path / "events-backup.jsonl").write_text("not ours\n")
    assert [e["n"] for e in EventTail(tmp_path).read()] == [2, 10, 9999, 10000]
    with EventWriter(tmp_path) as writer:
        assert writer.path.name == "events-10001.jsonl"


def test_a_torn_line_is_kept_for_later_and_seen_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events-0001.jsonl"
    whole = json.dumps({"kind": "probe", "answer": "Ünïcode ☂"}, ensure_ascii=False).encode() + b"\n"
    tail = EventTail(tmp_path)
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(tail.read()) == []
    with path.open("ab") as stream:
        stream.write(whole[-1:])
    assert [e["answer"] for e in tail.read()] == ["Ünïcode ☂"]
    assert tail.bad_lines == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=12), st.lists(st.text(), min_size=1, max_size=8))
def test_however_the_bytes_arrive_the_events_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("events")
    events = [{"kind": "warning", "text": t.encode("utf-8", "replace").decode()} for t in texts]
    data = "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events).encode()
    tail, found, at = EventTail(folder), [], 0
    for size in [*sizes, len(data)]:
        with (folder / "events-0001.jsonl").open("ab") as stream:
            stream.write(data[at : at + size])
        at += size
        found += list(tail.read())
    assert found == events


def test_numbers_that_are_not_finite_are_null_and_named(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.write(
            "step", loss=float("nan"), lr=np.float32("inf"), gpu=[{"w": float("inf")}], ok=np.float64(2)
        )
    (event,) = EventTail(tmp_path).read()
    assert event["loss"] is None and event["lr"] is None and event["gpu"] == [{"w": None}]
    assert event["nonfinite"] == ["loss", "lr", "gpu.0.w"]
    assert event["ok"] == 2


@pytest.mark.parametrize(
    "junk", [b"not json", b"[1]", b'{"step": 1}', b'{"kind": NaN}', b"\xff\xfe", b"[" * 90_000]
)
def test_junk_lines_are_counted_and_passed_over(tmp_path: Path, junk: bytes) -> None:
    good = b'{"kind": "step", "step": 1}\n'
    (tmp_path / "events-0001.jsonl").write_bytes(good + junk + b"\n" + good)
    tail = EventTail(tmp_path)
    assert len(list(tail.read())) == 2
    assert tail.bad_lines == 1


def test_a_run_that_was_restarted_in_the_same_folder_is_read_from_its_start(tmp_path: Path) -> None:
    tail = EventTail(tmp_path)
    with EventWriter(tmp_path) as writer:
        for step in range(5):
            writer.write("step", step=step)
    assert len(list(tail.read())) == 5
    (tmp_path / "old").mkdir()
    writer.path.rename(tmp_path / "old" / "events-0001.jsonl")
    with EventWriter(tmp_path) as writer:
        for step in range(7):
            writer.write("step", step=step)
    assert [e["step"] for e in tail.read()] == list(range(7))


def test_two_writers_at_once_never_share_a_segment(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as one, EventWriter(tmp_path) as two:
        assert one.path != two.path
    code = (
        "import sys; from pathlib import Path; from kore.artifacts.events import EventWriter\n"
        "for i in range(20): EventWriter(Path(sys.argv[1])).write('step', step=i)"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [other.wait() for other in others] == [0, 0]
    assert len(list(EventTail(tmp_path).read())) == 40


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:

        def work(name: int) -> None:
            for step in range(100):
                writer.write("gpu", name=name, step=step, text="x" * 300)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tail = EventTail(tmp_path)
    events: list[dict[str, Any]] = list(tail.read())
    assert tail.bad_lines == 0
    for name in range(4):
        assert [e["step"] for e in events if e["name"] == name] == list(range(100))


def test_what_was_written_before_a_kill_is_there(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from kore.artifacts.events import EventWriter\n"
        "w = EventWriter(Path(sys.argv[1])); n = 0\n"
        "while True:\n"
        "    w.write('step', step=n); n += 1\n"
        "    if n == 200: print('going', flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"going\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    tail = EventTail(tmp_path)
    steps = [e["step"] for e in tail.read()]
    assert len(steps) >= 200 and steps == list(range(len(steps)))
    assert tail.bad_lines == 0


def test_a_segment_that_was_replaced_under_the_same_number_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "events-0001.jsonl"
    path.write_text('{"t": 1, "kind": "step", "step": 1}\n')
    tail, inode = EventTail(tmp_path), path.stat().st_ino
    assert [e["step"] for e in tail.read()] == [1]
    path.write_text("".join(f'{{"t": {t}, "kind": "step", "step": {t}}}\n' for t in (7, 8)))
    assert path.stat().st_ino == inode
    assert [e["step"] for e in tail.read()] == [7, 8]
    assert list(tail.read()) == []
