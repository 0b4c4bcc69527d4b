"""Ask a model every question of some suites, keep the answers, score them, write the results.

Base and tuned model are answered from one copy of the weights (adapter off and on). Answers are kept as
they come; a rerun asks only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kore.distributed as distributed
from kore.errors import DataError
from kore.evaluation.agreement import AgreementSuite, divergences
from kore.evaluation.predictions import Key, Predictions, prompt_hash
from kore.evaluation.types import Answers, Ask, Picture, Scored, Suite, Task
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
        facts: suite name -> what decides its result beside the model.
        generation: settings that its answers were made with.
        answers: suite name -> its answers.
        asked: answers made now; `kept` ones were there before.
    """

    label: str
    model: str
    scored: dict[str, Scored]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)
    asked: int = 0
    kept: int = 0


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
        DataError: a picture that is missing or broken, with the sample's id.
    """
    model = fingerprint or model_fingerprint(engine, adapter)
    made = {"protocol": protocol, **generation(engine)}
    result = Result(label, model, {}, generation=made)
    asked = kept = 0
    for suite in suites:
        answers, new, old = _answer(engine, suite, out, label, adapter, model, made, progress)
        asked, kept = asked + new, kept + old
        base: Answers | None = None
        if isinstance(suite, AgreementSuite) and label != BASE:
            untouched = engine.backbone.fingerprint
            plain = engine.without_retrieval  # what is stored as the base's must be the base's
            base, _, _ = _answer(plain, suite, out, BASE, False, untouched, made, progress)
        # one process scores, so that a judge is prompted once
        distributed.on_first_rank(partial(_score, engine, suite, answers, base, adapter, notes, result, out))
    return replace(result, asked=asked, kept=kept)


def _score(
    engine: Engine,
    suite: Suite,
    answers: Answers,
    base: Answers | None,
    adapter: bool,
    notes: tuple[str, ...],
    result: Result,
    out: Path,
) -> None:
    """Score one suite, add it to `result` and write it."""
    if isinstance(suite, AgreementSuite) and base is not None:
        scored = _agree(engine, suite, answers, base, adapter)
    else:
        scored = suite.score(answers)
    result.scored[suite.name] = scored.noted(*notes)
    result.facts[suite.name] = dict(suite.facts)
    result.answers[suite.name] = answers
    write_result(result, suite.name, out)


def model_fingerprint(engine: Engine, adapter: bool) -> str:
    """The base's fingerprint; with the adapter on, its weights hashed in (no adapter: the base's)."""
    import hashlib

    import torch

    base = engine.backbone.fingerprint
    if not adapter or not hasattr(engine.backbone.model, "disable_adapter"):
        return base
    named = sorted(engine.backbone.model.named_parameters())
    own = [(n, p) for n, p in named if "lora_" in n or "modules_to_save" in n]
    digest = hashlib.sha256()
    for name, value in own or named:  # a method that is no PEFT adapter may have changed any weight
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hash_json([base, digest.hexdigest()])


def generation(engine: Engine) -> dict[str, Any]:
    """What shapes an answer beside model and prompt; the batch size is not among it."""
    from kore.models.generate import overruled

    dtype = str(getattr(engine.backbone.model, "dtype", "")).removeprefix("torch.")
    reads = {"reads": engine.backbone.reads} if engine.backbone.reads else {}
    own = {"overruled": over} if (over := overruled(engine.backbone.model)) else {}
    return {"max_new_tokens": engine.max_new_tokens, "sampling": "greedy", "dtype": dtype, **reads, **own}


def _answer(
    engine: Engine,
    suite: Suite,
    out: Path,
    label: str,
    adapter: bool,
    model: str,
    made: dict[str, Any],
    progress: Progress,
) -> tuple[dict[str, list[str]], int, int]:
    """All answers of `suite`, asking for those that are not stored; with counts of new and stored."""
    longest = suite.facts.get("max_new_tokens", engine.max_new_tokens)
    settings = hash_json({**made, "max_new_tokens": longest})
    world = distributed.current()
    asked = done = 0
    answers: dict[str, list[str]] = {}
    with Predictions(out / "answers" / label / suite.name, world.rank) as store:
        mine = (t for i, t in enumerate(suite.tasks()) if i % world.size == world.rank)
        for window in _windows(mine, engine.batch * _WINDOW):
            with _answer_length(engine, longest):
                asked += _ask_window(engine, window, store, adapter, model, settings)
            done += len(window)
            progress(suite.name, min(done * world.size, len(suite)), len(suite))
        distributed.barrier()
        store.reload()
        turns = 0
        for task in suite.tasks():
            found = _stored(store, task, model, settings)
            turns += len(found)
            if found:
                answers[task.id] = found
    return answers, asked, turns - asked if world.size == 1 else 0


@contextmanager
def _answer_length(engine: Engine, longest: int) -> Iterator[None]:
    before = engine.max_new_tokens
    engine.max_new_tokens = longest
    try:
        yield
    finally:
        engine.max_new_tokens = before


def _stored(store: Predictions, task: Task, model: str, settings: str) -> list[str]:
    replies: list[str] = []
    for turn in range(len(task.asks)):
        key = Key(
            task.id, turn, prompt_hash(task.asks[: turn + 1], tuple(replies), store.pictures), model, settings
        )
        text = store.get(key)
        if text is None:
            break
        replies.append(text)
    return replies


def _ask_window(
    engine: Engine, tasks: Sequence[Task], store: Predictions, adapter: bool, model: str, settings: str
) -> int:
    """Ask what is not stored, turn by turn, each turn with the model's own replies before it."""
    asked = 0
    replies: dict[str, list[str]] = {task.id: [] for task in tasks}
    for turn in range(max(len(task.asks) for task in tasks)):
        keys: list[Key] = []
        prompts: list[Prompt] = []
        for task in tasks:
            if turn >= len(task.asks):
                continue
            said = replies[task.id]
            key = Key(
                task.id,
                turn,
                prompt_hash(task.asks[: turn + 1], tuple(said), store.pictures),
                model,
                settings,
            )
            text = store.get(key)
            if text is not None:
                said.append(text)
                continue
            keys.append(key)
            prompts.append(build_prompt(task, said))

        def keep(index: int, text: str, keys: list[Key] = keys) -> None:
            store.put(keys[index], text)
            replies[keys[index].sample].append(text)

        if prompts:
            engine.answer(prompts, adapter=adapter, on_done=keep)
        asked += len(prompts)
    return asked


def build_prompt(task: Task, replies: Sequence[str]) -> Prompt:
    """The conversation up to the next unanswered turn, pictures opened where they lie in memory."""
    from kore.data.records import Message
    from kore.models.generate import Prompt

    turns: list[Message] = []
    pictures: list[Any] = []
    for ask, reply in zip(task.asks, [*replies, None], strict=False):
        turns.append(Message(from_="human", value=ask.text))
        pictures += [open_task_picture(p, task.id) for p in ask.pictures]
        if reply is None:
            break
        turns.append(Message(from_="gpt", value=reply.replace("<image>", "<image >")))
    return Prompt(tuple(turns), tuple(pictures))


def open_task_picture(picture: Picture, sample: str) -> Any:
    """A picture for the engine: its path where it is a file, else opened from memory.

    Images inside a benchmark's file are opened as VLMEvalKit does.

    Raises:
        DataError: missing or broken, with the sample's id.
    """
    if picture.data is None:
        if not Path(picture.path).is_file():
            raise DataError(f"no such picture: {picture.path}", where=picture.where or f"sample {sample}")
        return picture.path
    from kore.io.images import open_as_vlmevalkit

    return open_as_vlmevalkit(picture.data, picture.path, picture.where or f"sample {sample}")


def _agree(engine: Engine, suite: AgreementSuite, answers: Answers, base: Answers, adapter: bool) -> Scored:
    if not hasattr(engine.backbone.model, "disable_adapter") or not adapter:
        scored = suite.against(answers, base, {})
        return scored.noted("KL not measured: the model has no adapter to switch off")
    return suite.against(answers, base, divergences(engine, suite, base))


def write_result(result: Result, suite: str, out: Path) -> None:
    """Write a suite's verdicts, and the model's figures so far."""
    scored = result.scored[suite]
    write_jsonl(out / "samples" / result.label / f"{suite}.jsonl", (v.to_json() for v in scored.samples))
    if scored.items:
        lines = ({"item": item, "verdict": verdict} for item, verdict in scored.items.items())
        write_jsonl(out / "items" / result.label / f"{suite}.jsonl", lines)
    path = out / "scores" / f"{result.label}.json"
    own = {"label": result.label, "model": result.model, "generation": result.generation}
    there = read_json(path) if path.is_file() else {}
    # a killed repetition leaves what is not scored again as it was
    suites = there["suites"] if all(there.get(key) == value for key, value in own.items()) else {}
    told = {n: {**s.summary(), "facts": result.facts.get(n, {})} for n, s in result.scored.items()}
    write_json(path, {**own, "suites": {**suites, **told}})


def _windows(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    iterator = iter(tasks)
    while window := list(islice(iterator, size)):
        yield window


__all__ = ["BASE", "Ask", "Result", "build_prompt", "evaluate", "generation", "model_fingerprint"]
