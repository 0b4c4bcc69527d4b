"""Folds events into the dashboard's state: a pure reducer. No Textual, no torch, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kore.artifacts.run import LATEST
from kore.telemetry import Telemetry
from kore_cli.dashboard.store import (
    MARKS,
    METRICS,
    PROBE_HISTORY,
    READINGS,
    STORY,
    WARNINGS,
    DashboardState,
    EvalRow,
    Event,
    Mark,
    Phase,
    ProbeView,
    Tuned,
    number,
)
from kore_cli.widgets.curve import Curve

PROBING, SAVING = "asking questions", "saving"
BACKGROUND = ("gpu", "heartbeat")  # written by another thread, also while the work hangs


@dataclass
class _Draft:
    """The state while one batch of events is folded in; untouched parts are shared."""

    old: DashboardState
    values: dict[str, Any] = field(default_factory=dict)
    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    warnings: list[Mark] = field(default_factory=list)
    probes: dict[str, ProbeView] | None = None
    evals: dict[tuple[str, str, str], EvalRow] | None = None
    readings: list[tuple[float, Telemetry]] = field(default_factory=list)
    times: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    story: list[tuple[float, str]] = field(default_factory=list)
    top: float = -1.0
    odd: int = 0

    def get(self, name: str) -> Any:
        return self.values.get(name, getattr(self.old, name))


def reduce(state: DashboardState, events: Iterable[Event]) -> DashboardState:
    """Fold a batch of events, oldest first, into the state.

    Unknown kinds and fields are ignored, so that a newer writer does not break an older reader.
    """
    draft = _Draft(state, top=state.step if state.curves else -1)
    draft.times.extend(state.recent)
    count = 0
    for event in events:
        count += 1
        t = number(event.get("t"))
        t = t if t is not None and 0 <= t < LATEST else None
        if t is not None:
            draft.values["last_t"] = t
            if event.get("kind") not in BACKGROUND:
                draft.values["progress_t"] = t
        handler = _HANDLERS.get(str(event.get("kind")))
        if handler is not None:
            try:
                handler(draft, event, t or 0.0)
            except (TypeError, ValueError, AttributeError):
                draft.odd += 1
    return _close(draft, count) if count else state


def _close(draft: _Draft, count: int) -> DashboardState:
    old, values = draft.old, draft.values
    if draft.points:
        curves = dict(old.curves)
        for name, points in draft.points.items():
            curves[name] = curves.get(name, Curve()).extended(points)
        values["curves"] = curves
    if draft.marks:
        values["marks"] = (*old.marks, *draft.marks)[-MARKS:]
    if draft.warnings:
        values["warnings"] = (*old.warnings, *draft.warnings)[-WARNINGS:]
    if draft.story:
        values["story"] = (*old.story, *draft.story)[-STORY:]
    if draft.probes is not None:
        values["probes"] = draft.probes
    if draft.evals is not None:
        values["evals"] = draft.evals
    if draft.readings:
        values["readings"] = (*old.readings, *draft.readings)[-READINGS:]
    values["recent"] = tuple(draft.times)
    gaps = sorted(b - a for a, b in zip(draft.times, list(draft.times)[1:], strict=False) if b >= a)
    if gaps:
        values["step_seconds"] = gaps[len(gaps) // 2]
    return replace(old, events=old.events + count, odd=old.odd + draft.odd, **values)


def _step(draft: _Draft, event: Event, t: float) -> None:
    step = number(event.get("step"))
    if step is None:
        return
    if step <= draft.top:
        draft.marks.append(Mark(step, "resumed", f"resumed at step {step:,.0f}", t))
        draft.times.clear()
        draft.values["held_out"] = ()  # repeated questions are a new round
        draft.story.append((t, f"resumed at step {step:,.0f}"))
    draft.top = step
    draft.times.append(t)
    now: dict[str, float | None] = dict(draft.get("now"))
    for name in METRICS:
        if name not in event:
            continue
        value = number(event[name])
        now[name] = value
        if value is not None:
            draft.points.setdefault(name, []).append((step, value))
    values = draft.values
    values["now"] = now
    values["step"] = int(step)
    values["phase"] = Phase("train", t=t)
    for name in ("steps", "epoch", "eta_s"):
        if (value := number(event.get(name))) is not None:
            values[name] = int(value) if name == "steps" else value
    bad = [n for n in event.get("nonfinite") or () if n in METRICS]
    if "loss" in bad:
        mark = Mark(step, "warning", f"loss is not a number at step {step:,.0f}", t)
        draft.marks.append(mark)
        draft.warnings.append(mark)
        values["nonfinite"] = mark
    elif now.get("loss") is not None:
        values["nonfinite"] = None


def _gpu(draft: _Draft, event: Event, t: float) -> None:
    values = _numbers(event)
    values["devices"] = [_numbers(raw) for raw in event.get("devices") or ()]
    draft.readings.append((t, Telemetry.read(values)))


def _numbers(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what is not a number by None, except for the text fields."""
    plain = {name: value if number(value) is not None else None for name, value in raw.items()}
    texts = {name: str(raw[name]) for name in ("name", "why") if raw.get(name)}
    if not isinstance(raw.get("index"), int):
        plain.pop("index", None)
    return plain | texts


def _probe(draft: _Draft, event: Event, t: float) -> None:
    name = str(event.get("id", event.get("question", "?")))
    if draft.probes is None:
        draft.probes = dict(draft.old.probes)
    old = draft.probes.get(name)
    step = int(number(event.get("step")) or 0)
    history = tuple(h for h in old.history if h.step < step) if old else ()
    if event.get("tuned") is not None:
        history = (*history, Tuned(step, str(event["tuned"]), event.get("tuned_right")))[-PROBE_HISTORY:]
    _held_out(draft, event, step)
    if draft.get("phase").name == PROBING:  # the answers of a round come at its end
        draft.values["phase"] = Phase("train", t=t)
    expected = event.get("answer_known", old.expected if old else None)
    base = event.get("base")
    draft.probes[name] = ProbeView(
        id=name,
        kind=_probe_kind(event) or (old.kind if old else "new"),
        question=str(event.get("question") or (old.question if old else "")),
        image=str(event.get("image") or "") or (old.image if old else None),
        expected=None
        if expected is None
        else " | ".join(map(str, expected))
        if isinstance(expected, list)
        else str(expected),
        base=str(base) if base is not None else (old.base if old else ""),
        base_right=event.get("base_right", old.base_right if old else None),
        history=history,
    )


def _held_out(draft: _Draft, event: Event, step: int) -> None:
    """The mean loss of the new probes at a step is a point of the held-out curve."""
    loss = number(event.get("loss"))
    if loss is None or _probe_kind(event) != "new":
        return
    before = draft.get("held_out")
    losses = (*before[1:], loss) if before and before[0] == step else (loss,)
    draft.values["held_out"] = (step, *losses)
    mean = sum(losses) / len(losses)
    draft.values["now"] = {**draft.get("now"), "held_out_loss": mean}
    # a point at the same step replaces the one before
    draft.points.setdefault("held_out_loss", []).append((step, mean))


def _probe_kind(event: Event) -> str | None:
    # "kind" names the event, so new and old stand under another key
    for name in ("probe_kind", "knowledge", "probe", "group"):
        if event.get(name) in ("new", "old"):
            return str(event[name])
    return None


def _checkpoint(draft: _Draft, event: Event, t: float) -> None:
    step = number(event.get("step")) or 0.0
    mark = Mark(step, "checkpoint", str(event.get("path", "")), t)
    draft.marks.append(mark)
    draft.values["checkpoint"] = mark
    if draft.get("phase").name == SAVING:
        draft.values["phase"] = Phase("train", t=t)
    if event.get("best"):
        draft.values["best"] = mark
    best = ", the best probe score so far" if event.get("best") else ""
    draft.story.append((t, f"step {step:,.0f}: checkpoint written{best}"))


def _warning(draft: _Draft, event: Event, t: float) -> None:
    step = number(event.get("step"))
    mark = Mark(draft.get("step") if step is None else step, "warning", str(event.get("text", "")), t)
    draft.marks.append(mark)
    draft.warnings.append(mark)
    draft.story.append((t, f"▲ step {mark.step:,.0f}: {mark.text}"))


def _status(draft: _Draft, event: Event, t: float) -> None:
    name = str(event.get("phase", ""))
    text = str(event.get("text", ""))
    if text and event.get("done") in (None, 0):
        draft.story.append((t, f"{name}: {text}" if name else text))
    draft.values["phase"] = Phase(name, text, number(event.get("done")), number(event.get("total")), t)


def _stage(draft: _Draft, event: Event, t: float) -> None:
    name = str(event["kind"])
    layer = event.get("layer")
    text = str(event.get("text") or event.get("phase") or "")
    if layer is not None:
        text = f"{text} layer {layer}".strip()
    draft.values["phase"] = Phase(name, text, number(event.get("done")), number(event.get("total")), t)


def _eval(draft: _Draft, event: Event, t: float) -> None:
    if draft.evals is None:
        draft.evals = dict(draft.old.evals)
    suite, label = str(event.get("suite", "?")), str(event.get("label", "?"))
    dimension = str(event.get("dimension") or "")
    done, total = number(event.get("done")), number(event.get("total"))
    count = number(event.get("n"))
    old = draft.evals.get((suite, label, dimension))
    score = number(event.get("score"))
    draft.evals[suite, label, dimension] = EvalRow(
        suite=suite,
        label=label,
        dimension=dimension,
        metric=str(event.get("metric") or (old.metric if old else "")),
        score=score if score is not None else (old.score if old else None),
        n=int(count) if count is not None else None,
        done=int(done) if done is not None else None,
        total=int(total) if total is not None else None,
    )
    if score is not None and not dimension and (done is None or done == total):
        draft.story.append((t, f"{suite} ({label}): {score:.1f}"))
    draft.values["phase"] = Phase("eval", f"{suite} ({label})", done, total, t)


def joined(past: DashboardState, recent: DashboardState) -> DashboardState:
    """One state from an older part and a newer one."""
    names = past.curves.keys() | recent.curves.keys()
    curves = {n: past.curves.get(n, Curve()).joined(recent.curves.get(n, Curve())) for n in names}
    probes = dict(past.probes)
    for key, probe in recent.probes.items():
        old = probes.get(key)
        if old:
            first = probe.history[0].step if probe.history else float("inf")
            before = tuple(h for h in old.history if h.step < first)
            probe = replace(
                probe,
                history=(*before, *probe.history),
                base=probe.base or old.base,
                base_right=probe.base_right if probe.base_right is not None else old.base_right,
            )
        probes[key] = probe
    if not recent.recent:  # no step: only answers or readings
        held_out = recent.held_out or past.held_out
        recent = replace(
            recent, step=past.step, recent=past.recent, nonfinite=past.nonfinite, held_out=held_out
        )
    return replace(
        recent,
        events=past.events + recent.events,
        odd=past.odd + recent.odd,
        progress_t=past.progress_t if recent.progress_t is None else recent.progress_t,
        now={**past.now, **recent.now},
        phase=past.phase if recent.phase == Phase() else recent.phase,
        epoch=past.epoch if recent.epoch is None else recent.epoch,
        eta_s=past.eta_s if recent.eta_s is None else recent.eta_s,
        step_seconds=past.step_seconds if recent.step_seconds is None else recent.step_seconds,
        curves=curves,
        steps=recent.steps or past.steps,
        marks=(*past.marks, *recent.marks)[-MARKS:],
        story=(*past.story, *recent.story)[-STORY:],
        warnings=(*past.warnings, *recent.warnings)[-WARNINGS:],
        checkpoint=recent.checkpoint or past.checkpoint,
        best=recent.best or past.best,
        probes=probes,
        evals={**past.evals, **recent.evals},
    )


_HANDLERS = {
    "step": _step,
    "gpu": _gpu,
    "probe": _probe,
    "checkpoint": _checkpoint,
    "warning": _warning,
    "status": _status,
    "calibrate": _stage,
    "augment": _stage,
    "eval": _eval,
}
