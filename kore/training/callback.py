"""Everything that happens around a step: events, probes, checkpoints, the wish to stop."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from kore.artifacts.events import EventTail, EventWriter
from kore.distributed import any_rank, barrier, broadcast, current, on_first_rank, sum_over_ranks
from kore.progress import Progress
from kore.training import checkpoints as checkpoint
from kore.training.probes import Probing, Score
from kore.training.signals import Wish
from kore.training.trainer import Loop, Tally

if TYPE_CHECKING:
    from kore.models.generate import Engine


class Alarmed(Exception):
    """A resumed run stands at a checkpoint whose old probes are below the bar; the record says so."""


@dataclass
class Record:
    """What the run has come to.

    Attributes:
        losses: of the last steps, newest last.
        best: step, path and scores of the checkpoint with the best mean over the probes.
        alarm: why the run was stopped by its old probes.
    """

    step: int = 0
    loss: float = float("nan")
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    score: Score | None = None
    best: dict[str, Any] | None = None
    alarm: str | None = None


class Reporter(TrainerCallback):
    """Writes the events of a run and decides when to save and when to stop.

    Args:
        events: None on processes other than the first.
        seal: step and files are filled in; the rest is the same for all checkpoints of the run.
        epoch_samples: samples in one pass.
    """

    def __init__(
        self,
        events: EventWriter | None,
        folder: Path,
        seal: checkpoint.Seal,
        *,
        steps: int,
        save_steps: int,
        epoch_samples: int,
        wish: Wish,
        probing: Probing | None,
        engine: Engine | None,
        keep: float | None,
        progress: Progress,
    ) -> None:
        self.loop: Loop | None = None
        self.events = events
        self.folder = folder
        self.seal = seal
        self.steps = steps
        self.save_steps = save_steps
        self.epoch_samples = epoch_samples
        self.wish = wish
        self.probing = probing
        self.engine = engine
        self.keep = keep
        self.progress = progress
        self.record = Record()
        self.pace = 0.0  # seconds a step, smoothed
        self._mark = 0.0
        self._begun = 0
        self._sealed: list[tuple[Path, checkpoint.Seal]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The base answers the probes once.

        Raises:
            Alarmed: the run stopped here before; calling it again does not pass the gate.
        """
        self._begun = self.record.step = state.global_step
        self.record.losses = _losses_until(self.folder.parent, state.global_step)
        self._write(
            "status",
            phase="train",
            text=f"step {state.global_step} of {self.steps}",
            done=state.global_step,
            total=self.steps,
        )
        if self.probing and self.engine:
            assert self.loop is not None
            with self.loop.forward():
                self.probing.begin(self.engine)
            # answers may differ in a word between ranks, and all must decide alike
            self.probing.base_score = broadcast(self.probing.base_score)
            if state.global_step == 0:
                self._probe(0)
        self._recall(state.global_step)
        self._mark = time.monotonic()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The gradients are still there."""
        assert self.loop is not None
        self.loop.method.after_step(self.loop.model)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report, ask, save, stop."""
        assert self.loop is not None
        tally, self.loop.tally = self.loop.tally, Tally()
        now = time.monotonic()
        seconds = now - self._mark
        fresh = state.global_step - self._begun <= 3  # the first steps encode and warm up
        self.pace = seconds if fresh else 0.9 * self.pace + 0.1 * seconds
        self._report(_over_ranks(tally), state.global_step, seconds)
        last = state.global_step >= self.steps
        stop = any_rank(self.wish.signal is not None)
        control.should_save = last or stop or state.global_step % self.save_steps == 0
        control.should_training_stop = last or stop
        self._score = None
        if self.probing and (control.should_save or any_rank(self.probing.due(state.global_step, self.pace))):
            self._score = self._probe(state.global_step)
            if self._alarmed(self._score, state.global_step):
                control.should_save = control.should_training_stop = True
        if control.should_save:
            self._write("status", phase="saving", text="", step=state.global_step)
        self._mark = time.monotonic()

    _score: Score | None = None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint; it counts from here on."""
        assert self.loop is not None
        self.loop.method.check(self.loop.model)
        path = self.folder / f"{checkpoint.PREFIX}{state.global_step}"
        score = self._score
        barrier()  # every rank has written its part
        seal = replace(self.seal, step=state.global_step, score=score.values() if score else {})
        on_first_rank(lambda: checkpoint.seal(path, seal))
        better = score is not None and (self.record.best is None or score.avg > self.record.best["avg"])
        if score is not None and better and not self.record.alarm:
            self.record.best = {"step": state.global_step, "path": str(path), **score.values()}
        self._write(
            "checkpoint", step=state.global_step, path=str(path), **({"best": True} if better else {})
        )
        best = [Path(self.record.best["path"])] if self.record.best else []
        on_first_rank(lambda: checkpoint.thin(self.folder, best))
        self._mark = time.monotonic()

    def remember(self, found: checkpoint.Checkpoints) -> None:
        """Take over the scores of an interrupted run's checkpoints; judged once the base has answered."""
        self._sealed = found.scored()

    def _recall(self, step: int) -> None:
        """The best of the checkpoints before, and whether the one at `step` is below the bar."""
        for path, seal in self._sealed:
            score = Score(seal.score.get("new"), seal.score.get("old"))
            if seal.step == step:
                self.record.score = score
            better = self.record.best is None or score.avg > self.record.best["avg"]
            if better and not self._fallen(score):
                self.record.best = {"step": seal.step, "path": str(path), **score.values()}
        if self._sealed and self._alarmed(self.record.score, step):
            raise Alarmed

    def _report(self, tally: Tally, step: int, seconds: float) -> None:
        record = self.record
        record.step, record.loss = step, tally.loss
        record.tokens += tally.tokens
        record.losses = [*record.losses[-19:], tally.loss]
        self._write(
            "step",
            step=step,
            steps=self.steps,
            epoch=round(step * tally.samples / self.epoch_samples, 3),
            loss=tally.loss,
            **({} if tally.penalty is None else {"penalty": tally.penalty}),
            lr=tally.lr,
            grad_norm=tally.grad_norm,
            tokens_per_s=round(tally.tokens / seconds, 1),
            samples_per_s=round(tally.samples / seconds, 2),
            eta_s=round((self.steps - step) * self.pace, 1),
        )
        self.progress("train", step, self.steps, f"loss {tally.loss:.3f}")

    def _probe(self, step: int) -> Score | None:
        assert self.probing is not None and self.engine is not None and self.loop is not None
        self._write("status", phase="asking questions", text="", step=step)
        with self.loop.forward():
            events, score = self.probing.ask(self.engine, step)
        score = broadcast(score)
        for event in events:
            self._write("probe", **event)
        self.record.score = score
        return score

    def _base(self) -> float:
        """The base's share of right answers to old probes; 0 where there is none."""
        return (self.probing.base_score.old if self.probing else None) or 0.0

    def _fallen(self, score: Score | None) -> bool:
        """Whether the old probes are below what is to be kept."""
        if self.keep is None or score is None or score.old is None:
            return False
        return score.old < self.keep * self._base()

    def _alarmed(self, score: Score | None, step: int) -> bool:
        if score is None or not self._fallen(score):
            return False
        lost = f"old probes fell to {score.old:.0%} at step {step}"
        self.record.alarm = f"{lost}, below {self.keep:.0%} of the base's {self._base():.0%}"
        self._write("warning", text=self.record.alarm, step=step, code="alarm")
        return True

    def _write(self, kind: Any, **values: Any) -> None:
        if self.events is not None:
            self.events.write(kind, **values)


def _losses_until(run: Path, step: int) -> list[float]:
    """The last losses that a run logged up to a step, before it was stopped."""
    losses: dict[int, float] = {}
    for event in EventTail(run).read() if step else ():
        if event["kind"] == "step" and event["step"] <= step and event.get("loss") is not None:
            losses[event["step"]] = event["loss"]
    return [losses[number] for number in sorted(losses)][-20:]


def _over_ranks(tally: Tally) -> Tally:
    """The step's numbers over all ranks: mean loss and penalty, summed counts."""
    world = current().size
    own = [tally.loss / world, (tally.penalty or 0.0) / world, tally.tokens, tally.samples]
    loss, penalty, tokens, samples = sum_over_ranks(own)
    kept = None if tally.penalty is None else penalty
    return Tally(loss, kept, int(tokens), int(samples), tally.grad_norm, tally.lr)
