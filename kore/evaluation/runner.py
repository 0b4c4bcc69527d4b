"""Answer every question of some suites with a model, store the answers, score them, write the results.

The base and the tuned model share one copy of the weights (adapter off and on). Answers are stored as they
come; a rerun generates only what is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kore.distributed as distributed
from kore.data.records import Message
from kore.data.task import Task, TaskImage
from kore.errors import DataError
from kore.evaluation.agreement import AgreementSuite
from kore.evaluation.predictions import Key, Predictions, prompt_hash
from kore.evaluation.text_loss import LossSuite, dump_loss
from kore.evaluation.types import Answers, Scored, Suite
from kore.io.files import hash_json, read_json, write_json
from kore.io.jsonl import write_jsonl
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from kore.models.generate import Engine, Prompt

BASE = "base"
_WINDOW = 16  # batches handed to the engine at a time, as many as it sorts by length together


@dataclass(frozen=True)
class Result:
    """One model's results.

    Attributes:
        label: its name in tables (base, kore, ...).
        scored: empty in all processes but the first.
        model: fingerprint of base and adapter.
        facts: suite name -> what decides its result besides the model.
        generation: settings of its answers.
        answers: suite name -> its answers.
        generated: number of new answers.
        reused: number of answers that were stored before.
    """

    label: str
    model: str
    scored: dict[str, Scored]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)
    generated: int = 0
    reused: int = 0


@dataclass(frozen=True)
class _Run:
    """One model's run over a suite.

    Attributes:
        adapter: False answers as the untouched base.
        settings: what shapes an answer besides model and prompt.
    """

    engine: Engine
    label: str
    adapter: bool
    model: str
    settings: dict[str, Any]
    out: Path
    progress: Progress

    def as_base(self) -> _Run:
        """The untouched base on the same weights, without retrieval."""
        engine = self.engine.without_retrieval
        return replace(self, engine=engine, label=BASE, adapter=False, model=engine.backbone.fingerprint)

    def answer(self, suite: Suite) -> tuple[dict[str, list[str]], int, int]:
        """All answers to `suite`, generating those that are not stored; with counts of new and stored."""
        longest = suite.facts.get("max_new_tokens", self.engine.max_new_tokens)
        settings = hash_json({**self.settings, "max_new_tokens": longest})
        world = distributed.current()
        generated = done = turns = 0
        answers: dict[str, list[str]] = {}
        with Predictions(self.out / "answers" / self.label / suite.name, world.rank) as store:
            mine = (t for i, t in enumerate(suite.tasks()) if i % world.size == world.rank)
            for window in _windows(mine, self.engine.batch * _WINDOW):
                with _answer_length(self.engine, longest):
                    generated += self._answer_window(suite, window, store, settings)
                done += len(window)
                self.progress(suite.name, min(done * world.size, len(suite)), len(suite))
            distributed.barrier()
            store.reload()
            for task in suite.tasks():
                stored = _stored(store, task, self.model, settings)
                turns += len(stored)
                if stored:
                    answers[task.id] = stored
        return answers, generated, turns - generated if world.size == 1 else 0

    def _answer_window(self, suite: Suite, tasks: Sequence[Task], store: Predictions, settings: str) -> int:
        """Answer what is not stored, turn by turn, each turn after the model's own replies."""
        generated = 0
        replies: dict[str, list[str]] = {task.id: [] for task in tasks}
        for turn in range(max(len(task.turns) for task in tasks)):
            keys: list[Key] = []
            pending: list[Task] = []
            for task in tasks:
                if turn >= len(task.turns):
                    continue
                key = _key(store, task, replies[task.id], self.model, settings)
                text = store.get(key)
                if text is not None:
                    replies[task.id].append(text)
                    continue
                keys.append(key)
                pending.append(task)

            def keep(index: int, text: str, keys: list[Key] = keys) -> None:
                store.put(keys[index], text)
                replies[keys[index].sample].append(text)

            if pending and isinstance(suite, LossSuite):
                self._measure(suite, pending, keep)
            elif pending:
                prompts = [build_prompt(task, replies[task.id]) for task in pending]
                self.engine.answer(prompts, adapter=self.adapter, on_done=keep)
            generated += len(pending)
        return generated

    def _measure(self, suite: LossSuite, tasks: Sequence[Task], keep: Callable[[int, str], None]) -> None:
        from kore.evaluation.teacher_forcing import token_losses  # scoring stays free of torch

        texts = {text.id: text for text in suite.texts}
        token_losses(
            self.engine,
            [texts[task.id] for task in tasks],
            self.adapter,
            lambda index, loss, tokens: keep(index, dump_loss(loss, tokens)),
        )

    def score(self, suite: Suite, answers: Answers, base: Answers | None) -> Scored:
        """Score a model's answers, against the base's where the suite compares with them."""
        if base is None:
            return suite.score(answers)
        if isinstance(suite, LossSuite):
            scored = suite.against(answers, base)
            if self.engine.without_retrieval is not self.engine:
                return scored.noted("retrieval does not change the loss on given text")
            return scored
        assert isinstance(suite, AgreementSuite)
        if not self.adapter or not hasattr(self.engine.backbone.model, "disable_adapter"):
            scored = suite.against(answers, base, {})
            return scored.noted("KL not measured: the model has no adapter to switch off")
        from kore.evaluation.teacher_forcing import divergences  # scoring stays free of torch

        return suite.against(answers, base, divergences(self.engine, suite, base))


def evaluate(
    engine: Engine,
    suites: Sequence[Suite],
    out: Path,
    *,
    label: str,
    adapter: bool = True,
    fingerprint: str | None = None,
    progress: Progress = silent,
    protocol: str = "vlmeval",
    notes: tuple[str, ...] = (),
) -> Result:
    """Answer and score `suites` with one model.

    Args:
        out: results folder; answers go to ``answers/LABEL/SUITE/``, verdicts to
            ``samples/LABEL/SUITE.jsonl``, figures to ``scores/LABEL.json``.
        adapter: False answers as the untouched base.
        fingerprint: of the model; default: the base's, with the adapter's weights hashed in.
        progress: a stage for each suite.
        notes: added to every suite's result (subset of the samples, ...).

    Raises:
        DataError: an image that is missing or broken, with the sample's id.
    """
    model = fingerprint or model_fingerprint(engine, adapter)
    settings = {"protocol": protocol, **generation(engine)}
    run = _Run(engine, label, adapter, model, settings, out, progress)
    result = Result(label, model, {}, generation=settings)
    generated = reused = 0
    for suite in suites:
        answers, new, stored = run.answer(suite)
        generated, reused = generated + new, reused + stored
        base: Answers | None = None
        if isinstance(suite, (AgreementSuite, LossSuite)) and label != BASE:
            base, _, _ = run.as_base().answer(suite)
        # one process scores, so that a judge is called once
        distributed.on_first_rank(partial(_score, run, suite, answers, base, notes, result))
    return replace(result, generated=generated, reused=reused)


def _score(
    run: _Run, suite: Suite, answers: Answers, base: Answers | None, notes: tuple[str, ...], result: Result
) -> None:
    """Score one suite, add it to `result` and write it."""
    result.scored[suite.name] = run.score(suite, answers, base).noted(*notes)
    result.facts[suite.name] = dict(suite.facts)
    result.answers[suite.name] = answers
    write_result(result, suite.name, run.out)


def model_fingerprint(engine: Engine, adapter: bool) -> str:
    """The base's fingerprint; with the adapter on, its weights hashed in."""
    import torch  # scoring stays free of torch

    base = engine.backbone.fingerprint
    if not adapter or not hasattr(engine.backbone.model, "disable_adapter"):
        return base
    named = sorted(engine.backbone.model.named_parameters())
    own = [(n, p) for n, p in named if "lora_" in n or "modules_to_save" in n]
    digest = hashlib.sha256()
    for name, value in own or named:  # a method without a PEFT adapter may have changed any weight
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hash_json([base, digest.hexdigest()])


def generation(engine: Engine) -> dict[str, Any]:
    """What shapes an answer besides model and prompt; the batch size is not part of it."""
    from kore.models.generate import overruled  # scoring stays free of torch

    dtype = str(getattr(engine.backbone.model, "dtype", "")).removeprefix("torch.")
    reads = {"reads": engine.backbone.reads} if engine.backbone.reads else {}
    own = {"overruled": over} if (over := overruled(engine.backbone.model)) else {}
    return {"max_new_tokens": engine.max_new_tokens, "sampling": "greedy", "dtype": dtype, **reads, **own}


@contextmanager
def _answer_length(engine: Engine, longest: int) -> Iterator[None]:
    before = engine.max_new_tokens
    engine.max_new_tokens = longest
    try:
        yield
    finally:
        engine.max_new_tokens = before


def _key(store: Predictions, task: Task, replies: Sequence[str], model: str, settings: str) -> Key:
    """The key of the next turn, after `replies`."""
    turn = len(replies)
    prompt = prompt_hash(task.turns[: turn + 1], tuple(replies), store.image_hashes)
    return Key(task.id, turn, prompt, model, settings)


def _stored(store: Predictions, task: Task, model: str, settings: str) -> list[str]:
    replies: list[str] = []
    while len(replies) < len(task.turns):
        text = store.get(_key(store, task, replies, model, settings))
        if text is None:
            break
        replies.append(text)
    return replies


def build_prompt(task: Task, replies: Sequence[str]) -> Prompt:
    """The conversation up to the next unanswered turn; images in memory are opened."""
    from kore.models.generate import Prompt  # scoring stays free of torch

    messages: list[Message] = []
    images: list[Any] = []
    for turn, reply in zip(task.turns, [*replies, None], strict=False):
        messages.append(Message(from_="human", value=turn.text))
        images += [open_task_image(image, task.id) for image in turn.images]
        if reply is None:
            break
        messages.append(Message(from_="gpt", value=reply.replace("<image>", "<image >")))
    return Prompt(tuple(messages), tuple(images))


def open_task_image(image: TaskImage, sample: str) -> Any:
    """An image for the engine: its path where it is a file, else opened from memory, as VLMEvalKit does.

    Raises:
        DataError: missing or broken, with the sample's id.
    """
    where = image.where or f"sample {sample}"
    if image.data is not None:
        from kore.io.images import open_as_vlmevalkit  # scoring stays free of Pillow

        return open_as_vlmevalkit(image.data, image.path, where)
    if not Path(image.path).is_file():
        raise DataError(f"no such picture: {image.path}", where=where)
    return image.path


def write_result(result: Result, suite: str, out: Path) -> None:
    """Write a suite's verdicts, and the model's figures so far."""
    scored = result.scored[suite]
    write_jsonl(out / "samples" / result.label / f"{suite}.jsonl", (v.to_json() for v in scored.samples))
    if scored.items:
        lines = ({"item": item, "verdict": verdict} for item, verdict in scored.items.items())
        write_jsonl(out / "items" / result.label / f"{suite}.jsonl", lines)
    path = out / "scores" / f"{result.label}.json"
    own = {"label": result.label, "model": result.model, "generation": result.generation}
    earlier = read_json(path) if path.is_file() else {}
    # suites that an interrupted repetition has not scored again keep their figures
    suites = earlier["suites"] if all(earlier.get(key) == value for key, value in own.items()) else {}
    new = {n: {**s.summary(), "facts": result.facts.get(n, {})} for n, s in result.scored.items()}
    write_json(path, {**own, "suites": {**suites, **new}})


def _windows(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    iterator = iter(tasks)
    while window := list(islice(iterator, size)):
        yield window
