"""Train one adapter: from samples and a method to a run's ``adapter/``, resuming what was begun.

Knows nothing of covariances, profiles' files or terminals; `kore.workflows.train_run` puts it together.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.events import EventWriter
from kore.data.records import Sample
from kore.distributed import barrier, launched, on_first_rank
from kore.errors import GateNotMet, Interrupted, UsageError
from kore.io.files import hash_json
from kore.methods.base import Method, Setup, require
from kore.models.answer_loss import AnswerLoss
from kore.progress import Progress, silent
from kore.training import checkpoint_io as weights
from kore.training import checkpoints as checkpoint
from kore.training.dataset import Located, check_alike, data_hash, located
from kore.training.disk_cache import NAME as DISK_CACHE
from kore.training.estimate import Plan, plan
from kore.training.features import Collate, Features, Stream
from kore.training.hardware import tf32
from kore.training.hf_args import NO_EFFECT, Split, arguments, check_settings, sinks_in, split
from kore.training.master_weights import Wide, widen
from kore.training.micro_batch import micro_batch
from kore.training.result import TrainResult, finished, save
from kore.training.sampler import EMPTY, draw, placed, step_count
from kore.training.signals import Wish, listening

if TYPE_CHECKING:
    from torch import Tensor

    from kore.artifacts.run import Run
    from kore.config.resolve import TrainSection
    from kore.models.load import Backbone
    from kore.training.callback import Reporter
    from kore.training.probes import Probing


def train(
    backbone: Backbone,
    samples: Sequence[Located | Sample],
    settings: TrainSection,
    method: Method,
    run: Run,
    events: EventWriter | None,
    probes: Probing | None = None,
    *,
    factors: Mapping[str, Tensor] | None = None,
    rank: int | Mapping[str, int] = 16,
    old: Sequence[Sample] = (),
    identity: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    on_plan: Callable[[Plan], None] | None = None,
) -> TrainResult:
    """Train, or go on with the run's newest whole checkpoint, or find that all is done.

    Args:
        backbone: its model is replaced by the trained one (evaluation mode).
        events: the run's log; None on processes other than the first.
        factors: linear's full name -> frozen A (r, d_in), for kore.
        rank: KORE's rank; the trainable budget of every other low-rank method is counted from it.
        old: retention samples, for the methods that use them.
        identity: what the factors were made from (fingerprints); part of the run's identity, because A
            itself may differ in its last bits from machine to machine.
        facts: written to the adapter's kore.json.
        on_plan: told what will happen, before step 1.

    Raises:
        UsageError: inputs and method do not go together, or the run holds another run's checkpoints.
        DataError: a sample that cannot be encoded, with its place.
        NonFinite: the loss or gradient stopped being a number; the last checkpoint stays.
        Interrupted: stopped by a signal, after a checkpoint.
        GateNotMet: the old probes fell below `settings.keep` and `on_alarm` is stop.
    """
    work = prepare(
        backbone, samples, settings, method, probes, factors=factors, rank=rank, old=old, identity=identity
    )
    if (earlier := finished(run, work.fingerprint)) is not None:
        method.load(backbone, run.adapter)
        return earlier
    work.attach()
    work.fit_micro_batch()
    if on_plan:
        on_plan(work.plan())
    start = time.monotonic()
    reporter = work.go(run, events, probes, progress)
    record = reporter.record
    returned = work.settle(reporter)
    trainable = work.plan().trainable - method.held(backbone.model)
    work.wide.back()
    backbone.model.eval()
    if events and (text := method.note()):
        events.write("status", phase="train", text=text)
    result = TrainResult(
        steps=record.step,
        loss=sum(record.losses) / max(1, len(record.losses)),
        seconds=round(time.monotonic() - start, 2),
        trainable=trainable,
        samples=len(work.features),
        adapter=run.adapter,
        best=record.best,
        scores=record.score.values() if record.score else {},
        returned=returned,
    )
    told = {**dict(facts or {}), "train": work.fingerprint}
    if events:
        events.write("status", phase="saving", text="the adapter")
    save(method, backbone, run, told, result)
    return result


def prepare(
    backbone: Backbone,
    samples: Sequence[Located | Sample],
    settings: TrainSection,
    method: Method,
    probes: Probing | None = None,
    *,
    factors: Mapping[str, Tensor] | None = None,
    rank: int | Mapping[str, int] = 16,
    old: Sequence[Sample] = (),
    identity: Mapping[str, Any] | None = None,
) -> Work:
    """Check and put together what `train` needs; see there. Nothing is written, the model is as it was."""
    from kore.models.processing import Encoder

    require(
        method,
        zero=settings.zero,
        factors=factors is not None or not settings.constraint,
        old=bool(old),
        quantised="quantisation" in backbone.reads,
    )
    check_settings(settings, probes)
    parts = split(settings, launched().size)
    given = [s if isinstance(s, Located) else Located(f"sample {s.id}", s) for s in samples]
    places = {id(s.sample): s.where for s in given}
    mixed = method.mix([s.sample for s in given], old, settings.seed)
    chosen = [Located(places.get(id(s), f"{method.name}'s sample {s.id}"), s) for s in mixed]
    if parts.world > 1:
        learns = settings.projector != "off" and backbone.family.projector is not None
        check_alike(chosen, projector=learns, divided=settings.zero == 3)
    whole = {
        **{k: v for k, v in settings.model_dump(mode="json").items() if k not in NO_EFFECT},
        "method": {"name": method.name, **method.settings.model_dump(mode="json")},
        "rank": rank if isinstance(rank, int) else dict(rank),
        "gradient_checkpointing": settings.gradient_checkpointing is True,
        "base": backbone.fingerprint,
        "data": data_hash(chosen),
        "old": data_hash(located(old)) if old and method.traits.needs_old else None,
        **({"marks": backbone.reads["marks"]} if "marks" in backbone.reads else {}),
        **dict(identity or {}),
    }
    encoder = Encoder(backbone.processor, settings.max_length)
    setup = Setup(
        backbone,
        encoder,
        rank=rank,
        factors=factors,
        projector=settings.projector != "off",
        old=old,
        batch=parts.micro,
        seed=settings.seed,
    )
    steps = step_count(len(chosen), settings.epochs, settings.batch, settings.max_steps)
    features = Features(chosen, encoder, budget=int(settings.cache_gib * (1 << 30)), workers=settings.workers)
    return Work(backbone, settings, method, setup, features, parts, whole, steps)


@dataclass
class Work:
    """A prepared run."""

    backbone: Backbone
    settings: TrainSection
    method: Method
    setup: Setup
    features: Features
    parts: Split
    identity: dict[str, Any]
    steps: int
    wide: Wide = field(default_factory=Wide)

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that decides the result."""
        return hash_json(self.identity)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens per sample; encodes them where that decides the order."""
        return self.features.lengths()

    def attach(self) -> None:
        """Let the method take hold of the model."""
        import torch

        torch.manual_seed(self.settings.seed)
        self.method.attach(self.setup)
        self.method.check(self.backbone.model)
        if not self.settings.zero:
            self.wide = widen(self.backbone.model)
            self.setup.forward = lambda: self.wide.forward(self.backbone.device)

    @property
    def half(self) -> bool:
        """Whether the model computes in bfloat16."""
        return "torch.bfloat16" in (str(self.wide.dtype), str(self.backbone.model.dtype))

    def plan(self, parts: Split | None = None) -> Plan:
        """What will happen, once attached; with another division of the batch, if given."""
        return plan(
            self.backbone,
            self.settings,
            self.method.name,
            parts or self.parts,
            self.lengths,
            self.steps,
            self.wide,
            self.method.extra_memory,
        )

    def fit_micro_batch(self) -> None:
        """Find the micro-batch where the settings leave it to KORE."""
        if self.settings.micro_batch != "auto":
            return
        section = self.settings
        named = [self.identity[name] for name in ("base", "method", "rank")]
        read = [self.backbone.reads, str(self.backbone.model.dtype), max(self.lengths)]
        identity = [*named, *read, section.projector, section.gradient_checkpointing]
        attempt = None if self.settings.zero else self._attempt
        self.parts = micro_batch(self.parts, self.plan, attempt, self.backbone.device, identity)
        self.setup.batch = self.parts.micro

    def _attempt(self, parts: Split) -> None:
        """A forward and backward pass over the longest sample, as many times as a micro-batch has samples."""
        import torch

        model, device = self.backbone.model, self.backbone.device
        row = self.features[max(range(len(self.lengths)), key=self.lengths.__getitem__)]
        batch = Collate(self.features.encoder.pad_id)([row] * parts.micro)
        inputs = {name: value.to(device) for name, value in batch.items()}
        made = self.plan(parts)
        if made.hardware.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []), self.setup.forward():
                answers = AnswerLoss(model, keep_logits=self.method.traits.reads_logits)
                optimiser = torch.empty(made.memory["optimiser"], dtype=torch.uint8, device=device)
                answers.forward(model, inputs).loss.backward()
                del optimiser
        finally:
            model.zero_grad(set_to_none=True)
            model.eval()

    def go(
        self, run: Run, events: EventWriter | None, probes: Probing | None, progress: Progress
    ) -> Reporter:
        """Run the loop to its end, to a signal, or to an alarm."""
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config
        from transformers.trainer_callback import PrinterCallback

        from kore.training.callback import Alarmed
        from kore.training.trainer import Loop

        settings, model, parts, features = self.settings, self.backbone.model, self.parts, self.features
        folder = run.checkpoints
        cpu = self.backbone.device.type == "cpu"
        lengths = self.lengths if settings.group_by_length else None
        order = draw(len(features), self.steps, settings.batch, seed=settings.seed, lengths=lengths)
        order = placed(order, parts.batch, parts.empty)
        on_disk = run.folder / DISK_CACHE
        on_first_rank(partial(shutil.rmtree, on_disk, ignore_errors=True))
        features.keep_on_disk(on_disk, int(settings.disk_cache_gib * (1 << 30)))
        stream = Stream(features, order)
        hardware = self.plan().hardware
        checkpoints = checkpoint.Checkpoints(folder)
        found = checkpoint.newest(checkpoints, self.fingerprint, self.identity)
        if found and found[1].world != parts.world:
            raise UsageError(
                f"the run was begun on {found[1].world} processes, this is {parts.world}",
                hint="launch it as before, or discard it with --restart",
            )
        with listening() as wish, sinks_in(run.folder):
            reporter = self._reporter(run, events, probes, progress, wish)
            loop = Loop(
                model=model,
                args=arguments(
                    settings,
                    folder,
                    steps=self.steps,
                    parts=parts,
                    cpu=cpu,
                    # autocast on a CPU gains nothing; DeepSpeed needs one type for all parameters
                    bf16=self.half and (not cpu or settings.zero > 0),
                    workers=stream.workers,
                    checkpointing=hardware.checkpointing,
                ),
                train_dataset=stream,
                data_collator=Collate(features.encoder.pad_id),
                callbacks=[reporter],
                method=self.method,
                projector=self.backbone.family.projector,
                projector_lr=settings.projector if settings.projector != "off" else None,
                forward=self.setup.forward,
                fused=hardware.fused,
                ids=["" if i == EMPTY else features.samples[i].sample.id for i in order],
            )
            loop.remove_callback(PrinterCallback)
            reporter.loop = loop
            if found:
                reporter.remember(checkpoints)
            barrier()  # every rank has read the checkpoints before any is deleted
            on_first_rank(partial(checkpoint.clear, folder, keep=found[1].step if found else None))
            if found:
                if events:
                    events.write("status", phase="train", text=f"resumed at step {found[1].step}")
                if settings.zero:
                    loop.restore_method(found[0])
            else:
                self.method.begin(self.setup)
            model.train()
            try:
                with suppress(Alarmed), tf32(hardware.tf32):
                    loop.train(resume_from_checkpoint=str(found[0]) if found else None)
            finally:
                model.config.use_cache = True
                if launched().first:  # alone: after an error the others may not come here
                    shutil.rmtree(on_disk, ignore_errors=True)
                if settings.zero:  # transformers would load every later model of this process sharded
                    unset_hf_deepspeed_config()
        self._stopped(reporter, wish)
        return reporter

    def _reporter(
        self, run: Run, events: EventWriter | None, probes: Probing | None, progress: Progress, wish: Wish
    ) -> Reporter:
        from kore.models.generate import Engine
        from kore.training.callback import Reporter

        engine = None
        if probes and not probes.enabled:
            probes = None
        if probes:
            engine = Engine(self.backbone, batch=probes.batch, max_new_tokens=probes.max_new_tokens)
        return Reporter(
            events,
            run.checkpoints,
            checkpoint.Seal(0, self.fingerprint, self.identity, world=self.parts.world),
            steps=self.steps,
            save_steps=self.settings.save_steps,
            epoch_samples=len(self.features),
            wish=wish,
            probing=probes,
            engine=engine,
            keep=self.settings.keep,
            progress=progress,
        )

    def _stopped(self, reporter: Reporter, wish: Wish) -> None:
        record = reporter.record
        if record.step < self.steps and record.alarm is None:
            raise Interrupted(
                f"stopped by {wish.signal or 'another process'} after step {record.step} of {self.steps}, "
                "checkpoint written",
                hint="the same command resumes from there",
            )
        if record.alarm and self.settings.on_alarm == "stop":
            raise GateNotMet(
                record.alarm,
                hint="--set train.on_alarm=best takes the best checkpoint; a lower train.lr forgets less",
            )

    def settle(self, reporter: Reporter) -> int | None:
        """After an alarm: put the best checkpoint's weights back; its step is returned."""
        record = reporter.record
        if not record.alarm:
            self.method.finish(self.backbone.model)
            return None
        if record.best is None:
            raise GateNotMet(record.alarm, hint="there is no earlier checkpoint to go back to")
        weights.read(self.backbone.model, Path(record.best["path"]))
        return int(record.best["step"])
