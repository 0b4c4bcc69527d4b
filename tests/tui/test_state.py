"""The reducer, curves, liveness and the reader: pure, so tested without a screen."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kore.artifacts.run import RunState
from kore_cli.dashboard.event_reader import EventReader
from kore_cli.dashboard.reducer import reduce
from kore_cli.dashboard.run_status import judge
from kore_cli.dashboard.store import DashboardState
from kore_cli.dashboard.watcher import tail_lines
from kore_cli.widgets.curve import LIMIT, Curve

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def step(number: int, **values: Any) -> dict[str, Any]:
    """A step event."""
    return {
        "v": 1,
        "t": 1000.0 + number,
        "kind": "step",
        "step": number,
        "steps": 100,
        "loss": 1.0 / number,
        **values,
    }


def probe(number: int, right: bool, kind: str = "new", base_right: bool = False) -> dict[str, Any]:
    """A probe event."""
    return {
        "kind": "probe",
        "t": 1.0,
        "step": number,
        "id": "q",
        "probe_kind": kind,
        "question": "?",
        "base": "b",
        "base_right": base_right,
        "tuned": f"a{number}",
        "tuned_right": right,
    }


def test_a_state_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DashboardState().step = 3  # type: ignore[misc]


def test_reducing_in_batches_is_the_same_as_at_once() -> None:
    events = [step(i, lr=0.1 * i) for i in range(1, 60)]
    whole = reduce(DashboardState(), events)
    state = DashboardState()
    for i in range(0, len(events), 7):
        state = reduce(state, events[i : i + 7])
    assert state == whole and whole.step == 59 and whole.step_seconds == 1.0


def test_unknown_kinds_fields_and_types_are_passed_over() -> None:
    state = reduce(
        DashboardState(),
        [{"kind": "later"}, {"kind": "step", "step": "x"}, {"kind": "step"}, step(1, odd=[1])],
    )
    assert state.step == 1 and state.events == 4


def test_a_resumed_run_replaces_the_steps_it_did_again() -> None:
    state = reduce(DashboardState(), [step(i) for i in range(1, 31)])
    state = reduce(state, [step(i, loss=9.0) for i in range(21, 26)])
    curve = state.curve("loss")
    assert curve.x == tuple(float(i) for i in range(1, 26)) and curve.y[-5:] == (9.0,) * 5
    assert [m.kind for m in state.marks] == ["resumed"]


def test_a_loss_that_is_not_a_number_is_marked_and_forgotten_once_it_is_one_again() -> None:
    state = reduce(DashboardState(), [step(1), {**step(2), "loss": None, "nonfinite": ["loss"]}])
    assert state.nonfinite is not None and state.nonfinite.step == 2 and len(state.curve("loss")) == 1
    assert reduce(state, [step(3)]).nonfinite is None


@pytest.mark.parametrize(
    ("kind", "base_right", "right", "verdict"),
    [
        ("new", False, True, "adapted"),
        ("new", False, False, "not yet"),
        ("new", True, True, "known before"),
        ("new", True, False, "forgotten"),
        ("old", True, True, "kept"),
        ("old", True, False, "forgotten"),
        ("old", False, True, "gained"),
        ("old", False, False, "unknown"),
    ],
)
def test_a_probe_is_judged_by_its_kind_and_what_the_base_knew(
    kind: str, base_right: bool, right: bool, verdict: str
) -> None:
    state = reduce(DashboardState(), [probe(5, right, kind, base_right)])
    assert state.probes["q"].verdict() == verdict and state.counts() == {verdict: 1}


def test_questions_that_the_base_already_knew_do_not_count_as_adapted() -> None:
    events = [
        {**probe(5, True, "new", base_right), "id": name}
        for name, base_right in zip("ab", (True, False), strict=True)
    ]
    tally = reduce(DashboardState(), events).tally()
    assert (tally.adapted, tally.new, tally.known, tally.forgotten) == (1, 1, 1, 0)


def test_answers_of_a_later_run_from_an_earlier_checkpoint_replace_the_old_ones() -> None:
    state = reduce(DashboardState(), [probe(10, True), probe(20, True), probe(10, False)])
    assert [h.step for h in state.probes["q"].history] == [10]


@given(st.lists(FLOATS, min_size=3, max_size=300), st.integers(min_value=6, max_value=80))
def test_thinning_keeps_the_ends_and_the_extremes(values: list[float], count: int) -> None:
    curve = Curve(tuple(float(i) for i in range(len(values))), tuple(values))
    thin = curve.thinned(count)
    assert len(thin) <= max(count, 4)
    assert (thin.x[0], thin.x[-1]) == (curve.x[0], curve.x[-1])
    assert min(thin.y) == min(values) and max(thin.y) == max(values)
    assert list(thin.x) == sorted(set(thin.x))


@given(st.lists(FLOATS, min_size=3, max_size=100), st.floats(min_value=0.001, max_value=1))
def test_smoothing_stays_within_the_values_and_leaves_a_constant_alone(
    values: list[float], share: float
) -> None:
    curve = Curve(tuple(float(i) for i in range(len(values))), tuple(values))
    smooth = curve.smoothed(share)
    slack = 1e-6 * max(1.0, *(abs(v) for v in values))
    assert smooth.x == curve.x
    assert min(values) - slack <= min(smooth.y) and max(smooth.y) <= max(values) + slack


def test_smoothing_does_not_lag_behind_a_straight_line() -> None:
    xs = tuple(float(i) for i in range(201))
    smooth = Curve(xs, xs).smoothed(0.02)
    assert abs(smooth.y[100] - 100) < 1e-6


def test_a_curve_stays_small_and_keeps_a_spike() -> None:
    curve = Curve()
    for start in range(0, 60_000, 1000):
        points = [
            (float(i), 100.0 if i == 12_345 else 1.0 + (i % 7) / 10) for i in range(start, start + 1000)
        ]
        curve = curve.extended(points)
    assert len(curve) <= LIMIT and max(curve.y) == 100.0 and curve.x[-1] == 59_999


def run_state(**values: Any) -> RunState:
    """A run as run.json tells it."""
    base: dict[str, Any] = {
        "status": "running",
        "method": "kore",
        "command": ["kore", "train", "a b"],
        "profile": {},
        "started": 1000.0,
        "host": "h",
        "pid": 1,
        "boot": "",
    }
    return RunState(**{**base, **values})


RUNNING = reduce(DashboardState(), [step(i) for i in range(1, 20)])


@pytest.mark.parametrize(
    ("run", "state", "alive", "now", "name"),
    [
        (None, DashboardState(), None, 0.0, "waiting"),
        (run_state(), DashboardState(), True, 1010.0, "starting"),
        (run_state(), RUNNING, True, 1025.0, "running"),
        (run_state(), RUNNING, True, 1200.0, "stalled"),
        (run_state(), RUNNING, None, 1200.0, "stalled"),
        (run_state(), RUNNING, False, 1021.0, "dead"),
        (run_state(status="finished", ended=1100.0), RUNNING, False, 1200.0, "finished"),
        (run_state(status="failed", message="boom"), RUNNING, False, 1200.0, "failed"),
        (run_state(status="interrupted"), RUNNING, False, 1200.0, "interrupted"),
    ],
)
def test_every_condition_is_told_from_run_events_process_and_clock(
    run: RunState | None, state: DashboardState, alive: bool | None, now: float, name: str
) -> None:
    live = judge(Path("r"), run, state, alive=alive, now=now)
    assert live.name == name and live.words and live.command


def beats(start: float, stop: float) -> list[dict[str, Any]]:
    """What the thread beside the work writes."""
    times = [start + 3 * i for i in range(int((stop - start) / 3) + 1)]
    return [{"kind": "gpu", "t": t} for t in times] + [{"kind": "heartbeat", "t": times[-1]}]


def test_a_loop_that_hangs_beside_its_readings_has_stalled() -> None:
    state = reduce(RUNNING, beats(1020.0, 1200.0))
    live = judge(Path("r"), run_state(), state, alive=True, now=1201.0)
    assert live.name == "stalled" and "no progress for 3m02s" in live.words and live.age == 1.0
    assert (
        judge(Path("r"), run_state(), reduce(state, [step(20, t=1200.0)]), alive=True, now=1201.0).over
        is False
    )


@pytest.mark.parametrize(
    ("alive", "readings", "now", "name"),
    [
        (True, False, 1900.0, "starting"),
        (True, True, 1900.0, "starting"),
        (True, True, 2900.0, "stalled"),
        (None, True, 1900.0, "starting"),
        (None, False, 1900.0, "stalled"),
    ],
)
def test_a_model_that_loads_for_long_has_not_stalled(
    alive: bool | None, readings: bool, now: float, name: str
) -> None:
    loading = {"kind": "status", "t": 1001.0, "phase": "load", "text": "loading the model"}
    state = reduce(DashboardState(), [loading, *(beats(1001.0, now) if readings else [])])
    live = judge(Path("r"), run_state(), state, alive=alive, now=now)
    assert live.name == name
    if name == "starting":
        assert live.words == "starting · loading the model"


def test_a_long_round_of_questions_is_no_stall_and_its_answers_end_it() -> None:
    state = reduce(RUNNING, [{"kind": "status", "t": 1020.0, "phase": "asking questions", "step": 19}])
    live = judge(Path("r"), run_state(), state, alive=True, now=1200.0)
    assert (live.name, live.words) == ("running", "asking questions")
    state = reduce(state, [probe(19, True) | {"t": 1200.0}])
    assert judge(Path("r"), run_state(), state, alive=True, now=1210.0).words == "running"
    assert judge(Path("r"), run_state(), state, alive=True, now=1300.0).name == "stalled"


def test_a_resumed_run_starts_and_is_not_what_ended_it_before() -> None:
    ended = {"kind": "status", "t": 1020.0, "phase": "interrupted", "text": "stopped by SIGINT"}
    state, again = reduce(RUNNING, [ended]), run_state(started=1500.0)
    live = judge(Path("r"), again, state, alive=True, now=1510.0)
    assert (live.name, live.words) == ("starting", "starting")
    state = reduce(state, [{"kind": "status", "t": 1510.0, "phase": "null space", "text": "computing A"}])
    assert judge(Path("r"), again, state, alive=True, now=1900.0).words == "null space · computing A"
    state = reduce(state, [step(16, t=1900.0)])
    assert judge(Path("r"), again, state, alive=True, now=1901.0).words == "running"


def test_slow_steps_are_not_taken_for_a_stall() -> None:
    slow = reduce(DashboardState(), [{**step(i), "t": 1000.0 + 60 * i} for i in range(1, 9)])
    last = slow.last_t or 0.0
    assert judge(Path("r"), run_state(), slow, alive=True, now=last + 200).name == "running"
    assert judge(Path("r"), run_state(), slow, alive=True, now=last + 400).name == "stalled"


def test_one_step_says_nothing_of_the_pace_and_a_checkpoint_takes_its_time() -> None:
    one = reduce(DashboardState(), [{**step(1), "t": 1001.0}])
    assert judge(Path("r"), run_state(), one, alive=True, now=1301.0).name == "running"
    saving = reduce(RUNNING, [{"kind": "status", "t": 1020.0, "phase": "saving", "text": "", "step": 19}])
    assert judge(Path("r"), run_state(), saving, alive=True, now=1320.0).name == "running"
    saved = reduce(saving, [{"kind": "checkpoint", "t": 1021.0, "step": 19, "path": "c"}])
    assert judge(Path("r"), run_state(), saved, alive=True, now=1321.0).name == "stalled"


def test_a_finished_run_that_is_still_asked_is_evaluating() -> None:
    asked = {"kind": "eval", "t": 1100.0, "suite": "text", "label": "kore", "done": 3, "total": 9}
    state = reduce(RUNNING, [asked])
    done = run_state(status="finished", ended=1090.0)
    live = judge(Path("r"), done, state, alive=True, now=1101.0)
    assert (live.name, live.words) == ("running", "evaluating · text (kore) · 3 of 9")
    assert judge(Path("r"), done, state, alive=False, now=1101.0).name == "finished"
    over = reduce(state, [{"kind": "status", "t": 1102.0, "phase": "finished", "text": "evaluated"}])
    assert judge(Path("r"), done, over, alive=True, now=1103.0).name == "finished"


def test_the_command_that_resumes_is_quoted_for_a_shell() -> None:
    assert replace(run_state(), command=["/x/bin/kore", "train", "a b"]).again == "kore train 'a b'"
    assert replace(run_state(), command=["kore", "inject", "i", "--restart"]).again == "kore inject i"
    assert replace(run_state(), command=[]).again is None


def test_the_mean_loss_of_the_new_probes_asked_at_a_step_is_the_held_out_loss() -> None:
    asked = [
        *(probe(0, False) | {"loss": loss} for loss in (4.0, 2.0)),
        probe(0, True, kind="old") | {"loss": 100.0},
        step(1),
        *(probe(1, True) | {"loss": loss} for loss in (1.0, 0.5, 0.0)),
    ]
    whole = reduce(DashboardState(), asked)
    assert whole.curve("held_out_loss").x == (0, 1) and whole.curve("held_out_loss").y == (3.0, 0.5)
    assert whole.now["held_out_loss"] == 0.5
    piecewise = DashboardState()
    for event in asked:
        piecewise = reduce(piecewise, [event])
    assert piecewise == whole


def test_questions_asked_again_after_a_resume_are_a_round_of_their_own() -> None:
    def asked(loss: float) -> dict[str, Any]:
        return probe(20, True) | {"loss": loss}

    state = reduce(DashboardState(), [*(step(i) for i in range(1, 21)), asked(8.0), asked(6.0)])
    state = reduce(state, [step(i) for i in range(11, 21)])
    state = reduce(state, [asked(1.0), asked(3.0)])
    assert state.curve("held_out_loss").x == (20,) and state.curve("held_out_loss").y == (2.0,)


def write_log(folder: Path, events: list[dict[str, Any]], name: str = "events-0001.jsonl") -> Path:
    """An event file."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(e) + "\n" for e in events))
    return path


def test_a_large_log_shows_its_end_first_and_its_past_afterwards(tmp_path: Path) -> None:
    events = [step(i, loss=50.0 if i == 7 else 1.0) for i in range(1, 3001)]
    events.insert(100, probe(99, True))
    write_log(tmp_path / "r", events)
    reader = EventReader(tmp_path / "r", tail=20_000)
    reader.open()
    assert reader.state.step == 3000 and reader.history is not None and reader.state.curve("loss").x[0] > 2000
    while reader.history is not None:
        reader.look_back(0.01)
    whole = reduce(DashboardState(), events)
    assert reader.state.curve("loss").x[0] == 1.0 and max(reader.state.curve("loss").y) == 50.0
    assert reader.state.probes == whole.probes and reader.state.events == whole.events


def test_events_that_come_while_the_past_is_read_are_not_lost(tmp_path: Path) -> None:
    path = write_log(tmp_path / "r", [step(i) for i in range(1, 3001)])
    reader = EventReader(tmp_path / "r", tail=10_000)
    reader.open()
    with path.open("a") as stream:
        stream.write(json.dumps(step(3001)) + "\n")
    assert reader.follow() and reader.state.step == 3001
    reader.look_back(10.0)
    assert reader.history is None and reader.state.step == 3001 and reader.state.events == 3001
    with path.open("a") as stream:
        stream.write(json.dumps(step(3002)) + "\n")
    reader.follow()
    assert reader.state.step == 3002 and reader.state.curve("loss").x[0] == 1.0


def test_a_torn_last_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = write_log(tmp_path / "r", [step(1)])
    reader = EventReader(tmp_path / "r")
    reader.open()
    line = json.dumps(step(2)) + "\n"
    with path.open("a") as stream:
        stream.write(line[:20])
    assert not reader.follow()
    with path.open("a") as stream:
        stream.write(line[20:])
    assert reader.follow() and reader.state.step == 2 and reader.bad_lines == 0


def test_segments_are_read_in_order_and_bad_lines_counted(tmp_path: Path) -> None:
    write_log(tmp_path / "r", [step(i) for i in range(1, 10)])
    path = write_log(tmp_path / "r", [step(i) for i in range(5, 8)], "events-0002.jsonl")
    path.write_text("nonsense\n" + path.read_text() + '["list"]\n')
    reader = EventReader(tmp_path / "r")
    reader.open()
    assert reader.state.step == 7 and reader.bad_lines == 2 and reader.state.curve("loss").x[-1] == 7


def test_an_end_of_the_log_without_a_step_keeps_what_the_past_told(tmp_path: Path) -> None:
    said = [probe(50, True) | {"id": f"q{i}", "tuned": "x" * 200} for i in range(200)]
    events = [*(step(i, eta_s=9.0, epoch=0.5) for i in range(1, 51)), *said]
    write_log(tmp_path / "r", events)
    reader = EventReader(tmp_path / "r", tail=20_000)
    reader.open()
    while reader.history is not None:
        reader.look_back(1.0)
    whole, found = reduce(DashboardState(), events), reader.state
    for name in ("step", "now", "phase", "epoch", "eta_s", "step_seconds", "held_out", "recent"):
        assert getattr(found, name) == getattr(whole, name), name


@pytest.mark.parametrize(
    "odd",
    [
        {"kind": "step", "step": 1, "nonfinite": True},
        {"kind": "gpu", "devices": 5},
        {"kind": "gpu", "devices": ["x"]},
    ],
)
def test_a_malformed_event_is_counted_and_does_not_end_the_reading(odd: dict[str, Any]) -> None:
    state = reduce(DashboardState(), [odd, step(2)])
    assert state.step == 2 and state.odd == 1 and state.events == 2


def test_odd_numbers_in_an_event_are_not_shown(tmp_path: Path) -> None:
    device = {"index": "x", "name": "A100", "util": "much", "mem_used": 5, "mem_total": True}
    events = [
        {"kind": "gpu", "t": 1e300, "devices": [device], "cpu_percent": "low", "rss": 10**400},
        {"kind": "status", "t": 1e300, "text": "odd"},
        {"kind": "probe", "id": "q", "image": 5, "tuned": "x"},
    ]
    state = reduce(DashboardState(), events)
    (_, reading), (told, _) = state.readings[-1], state.story[-1]
    assert reading.devices[0].util is None and reading.devices[0].mem_used == 5 and reading.rss is None
    assert reading.devices[0].index == 0 and told == 0.0 and state.odd == 0
    assert state.probes["q"].image == "5"


def test_a_line_longer_than_a_piece_does_not_stop_the_reader(tmp_path: Path) -> None:
    long = probe(1, True) | {"tuned": "x" * (3 << 20)}
    write_log(tmp_path / "r", [step(1), long, step(2)])
    reader = EventReader(tmp_path / "r")
    reader.open()
    while reader.history is not None:
        reader.look_back(1.0)
    assert reader.state.step == 2 and len(reader.state.probes) == 1


def test_the_end_of_a_long_log_is_read_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("\n".join(f"line {i} {'x' * 80}" for i in range(20_000)) + "\n")
    lines = tail_lines(path, 5)
    assert [line.split()[1] for line in lines] == [str(i) for i in range(19_995, 20_000)]


def test_numbers_that_are_not_finite_never_reach_a_curve() -> None:
    state = reduce(DashboardState(), [step(1, loss=math.inf), step(2, loss=math.nan, grad_norm=True)])
    assert not state.curve("loss").x and not state.curve("grad_norm").x
