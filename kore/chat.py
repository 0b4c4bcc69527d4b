"""Asking a model: the base and its adapter from one copy of the weights, whole or streamed.

Knows nothing of terminals; the command, its pipes and the chat screen are built on `Session`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.data.records import IMAGE_MARK, Message
from kore.errors import DataError, KoreError, UsageError

if TYPE_CHECKING:
    from kore.artifacts.resolve_target import Target
    from kore.config.resolve import ModelSection
    from kore.methods.rag import Retriever
    from kore.models.generate import Engine, Prompt
    from kore.models.load import Backbone

BASE, RAG = "base", "rag"


@dataclass(frozen=True)
class Past:
    """One exchange that came before a question.

    Attributes:
        answer: what was said, whoever is asked now.
        answers: what each said, by name; who said nothing then is not told of this exchange, unless
            there is an `answer`.
    """

    text: str
    answer: str | None
    images: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Past:
        """From a JSON object: text, answer or answers (an object by name), image.

        Raises:
            DataError: a field of the wrong type.
        """
        answers = value.get("answers") or {}
        if not isinstance(answers, dict):
            raise DataError(f"answers: expected an object by name, found {answers!r}")
        answer = value.get("answer", None if answers else "")
        return cls(
            str(value.get("text", "")),
            None if answer is None else str(answer),
            _images(value.get("image")),
            {name: str(said) for name, said in answers.items()},
        )

    def said_by(self, name: str) -> str | None:
        """The answer that `name` is to take for its own; None if it was not there."""
        return self.answers.get(name, self.answer)


@dataclass(frozen=True)
class Ask:
    """One question.

    Attributes:
        images: paths, relative ones to the working folder.
        model: who answers: ``base``, the adapter's label, or None for the best there is.
        compare: both answer.
        temperature: 0 is greedy.
        id: handed back with the answer.
        use: switch to this run or adapter first.
    """

    text: str
    images: tuple[str, ...] = ()
    model: str | None = None
    compare: bool = False
    temperature: float = 0.0
    past: tuple[Past, ...] = ()
    id: Any = None
    use: str | None = None

    @classmethod
    def read(cls, value: Mapping[str, Any], default_images: tuple[str, ...] = (), **defaults: Any) -> Ask:
        """From a JSON object: text (or question), image (path or list), model, compare, temperature,
        history (objects with text, image, and answer or answers by model), id, use.

        Raises:
            DataError: no text, or a field of the wrong type.
        """
        _encodable(value)
        text = value.get("text", value.get("question"))
        if not isinstance(text, str) or not text.strip():
            raise DataError('a question needs "text"')
        unknown = value.keys() - _FIELDS
        if unknown:
            raise DataError(
                f"unknown field {sorted(unknown)[0]!r}", hint=f"known: {', '.join(sorted(_FIELDS))}"
            )
        past = value.get("history") or []
        if not isinstance(past, list) or not all(isinstance(p, dict) for p in past):
            raise DataError("history: expected a list of objects with text and answer")
        return cls(
            text=text,
            images=_images(value["image"]) if "image" in value else default_images,
            model=_name("model", value.get("model", defaults.get("model"))),
            compare=_truth("compare", value.get("compare", defaults.get("compare", False))),
            temperature=_temperature(value.get("temperature", defaults.get("temperature", 0.0))),
            past=tuple(Past.read(p) for p in past),
            id=value.get("id"),
            use=_name("use", value.get("use")),
        )


_FIELDS = {"text", "question", "image", "model", "compare", "temperature", "history", "id", "use"}


def _encodable(value: object) -> None:
    """A lone surrogate can stand in JSON's escapes, but can neither be asked nor be written down."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError("text with a lone surrogate, which is not a character") from error
    except RecursionError as error:
        raise DataError("nested too deeply") from error


def _temperature(value: object) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)):
            found = float(value)
            if math.isfinite(found) and found >= 0:
                return found
    except OverflowError:
        pass
    raise DataError(f"temperature: expected a number from 0 on, found {value!r}")


def _truth(field_name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise DataError(f"{field_name}: expected true or false, found {value!r}")
    return value


def _name(field_name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{field_name}: expected a name, found {value!r}")
    return value


def _images(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(p, str) for p in value):
        return tuple(value)
    raise DataError(f"image: expected a path or a list of paths, found {value!r}")


@dataclass(frozen=True)
class Reply:
    """One answer and who gave it; with retrieval, the title of the item that it was given."""

    model: str
    answer: str
    seconds: float
    stopped: bool = False
    found: str | None = None


@dataclass
class Session:
    """A loaded model that answers as its base, as the injected model, and as its base with retrieval.

    Attributes:
        label: the adapter's name; `BASE` when there is no adapter.
        retriever: looks items up for the voice `RAG`, if there are any to look up.
    """

    backbone: Backbone
    engine: Engine
    target: Target
    section: ModelSection
    label: str = BASE
    retriever: Retriever | None = None

    @classmethod
    def open(
        cls,
        name: str,
        section: ModelSection,
        *,
        batch: int = 8,
        max_new_tokens: int = 128,
        download: bool = False,
        rag: Path | None = None,
    ) -> Session:
        """Load a run, an adapter folder or a model.

        Args:
            rag: items, or a folder of trees, that the voice `RAG` looks up.

        Raises:
            MissingArtefact, DataError: see `resolve_target`.
        """
        from kore.artifacts.resolve_target import resolve_target
        from kore.evaluation.target import load_target
        from kore.models.generate import Engine

        target = resolve_target(name, section.id)
        backbone = load_target(target, section, download=download)
        engine = Engine(backbone, batch=batch, max_new_tokens=max_new_tokens)
        retriever = None
        if rag is not None:
            from kore.methods.rag import Retriever, read_items

            retriever = Retriever(backbone, read_items(rag))
        label = target.label if target.adapter else BASE
        return cls(backbone, engine, target, section, label, retriever)

    @property
    def models(self) -> list[str]:
        """Who can answer, who is asked unless another is named first."""
        return [RAG] * (self.retriever is not None) + [self.label] * (self.label != BASE) + [BASE]

    def use(self, name: str) -> None:
        """Put another adapter of the same base on; the base's weights stay where they are.

        Raises:
            KoreError: it is not there, broken, or of another base. The old one is on again then.
        """
        from kore.artifacts.resolve_target import resolve_target

        try:
            target = resolve_target(name, self.section.id)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be looked at: {error}", where=name) from error
        if target.adapter is None:
            raise UsageError(
                f"{name} is neither a run nor an adapter", hint="open another model with: kore chat MODEL"
            )
        old = self.target
        try:
            self._put_on(target)
        except KoreError:
            self._put_on(old)
            raise

    def _put_on(self, target: Target) -> None:
        from kore.methods.load_adapter import load_adapter

        self._bare()
        if target.adapter is None:
            return
        try:
            load_adapter(self.backbone, target.adapter)
        except Exception as error:  # whatever a broken file makes torch, PEFT or safetensors say
            self._bare()
            if isinstance(error, KoreError):
                raise
            raise DataError(f"no adapter to put on: {error}", where=str(target.adapter)) from error
        self.target, self.label = target, target.label

    def _bare(self) -> None:
        from peft import PeftModel

        from kore.methods.switchable import Switched

        model = self.backbone.model
        if isinstance(model, (PeftModel, Switched)):
            self.backbone.model = model.unload()
        self.target, self.label = replace(self.target, adapter=None), BASE

    def prompt(self, ask: Ask, name: str) -> Prompt:
        """The question with its past, as `name` went through it, and opened pictures.

        Raises:
            DataError: a picture that is not there or broken, or a mark in the text without one.
        """
        from kore.io.images import open_image
        from kore.models.generate import Prompt

        turns: list[Message] = []
        images: list[Any] = []
        for past in ask.past:
            said = past.said_by(name)
            if said is None:
                continue
            turns.append(Message(from_="human", value=_with_marks(past.text, past.images)))
            turns.append(Message(from_="gpt", value=said.replace(IMAGE_MARK, "image")))
            images += [open_image(p) for p in past.images]
        turns.append(Message(from_="human", value=_with_marks(ask.text, ask.images)))
        images += [open_image(p) for p in ask.images]
        return Prompt(tuple(turns), tuple(images))

    def who(self, ask: Ask) -> list[str]:
        """Who is to answer, in the order of the answers.

        Raises:
            UsageError: a comparison without an adapter, or a model that is not loaded.
        """
        if ask.compare:
            if len(self.models) == 1:
                raise UsageError(
                    "nothing to compare: this model has no adapter",
                    hint="kore chat RUN --compare, or --rag ITEMS to compare with retrieval",
                )
            return self.models[::-1]
        if ask.model is None:
            return self.models[:1]
        if ask.model not in self.models and ask.model != "kore":
            raise UsageError(f"no model {ask.model!r} here", hint=f"there is: {', '.join(self.models)}")
        return [self.label if ask.model == "kore" else ask.model]

    def answer(self, asks: Sequence[Ask]) -> list[list[Reply] | DataError | UsageError]:
        """Answers to some questions, in order; one that cannot be asked has its error instead."""
        results: list[list[Reply] | DataError | UsageError] = [[] for _ in asks]
        work: dict[tuple[str, float], list[tuple[int, Prompt]]] = {}
        names: dict[int, list[str]] = {}
        for index, ask in enumerate(asks):
            try:
                names[index] = self.who(ask)
                prompts = {name: self.prompt(ask, name) for name in names[index]}
            except (DataError, UsageError) as error:
                results[index] = error
                continue
            for name, prompt in prompts.items():
                work.setdefault((name, ask.temperature), []).append((index, prompt))
        said: dict[tuple[int, str], Reply] = {}
        for (name, temperature), jobs in work.items():
            start = time.monotonic()
            given = [self._given(name, prompt) for _, prompt in jobs]
            texts = self.engine.answer(
                [p for p, _ in given], adapter=name == self.label, temperature=temperature
            )
            seconds = (time.monotonic() - start) / len(jobs)
            for (index, _), (_, found), text in zip(jobs, given, texts, strict=True):
                said[index, name] = Reply(name, text, seconds, found=found)
        for index, who in names.items():
            if isinstance(results[index], list):
                results[index] = [said[index, name] for name in who]
        return results

    def _given(self, name: str, prompt: Prompt) -> tuple[Prompt, str | None]:
        """The prompt as a voice gets it, and the title of the item that retrieval put into it."""
        if name != RAG or self.retriever is None:
            return prompt, None
        given, item = self.retriever.with_context(prompt)
        return given, item.title if item else None

    def stream(self, ask: Ask, stop: Callable[[], bool]) -> Iterator[tuple[str, str | Reply]]:
        """Pieces ``(model, text)`` as they come, then ``(model, Reply)``, for each who answers.

        Raises:
            DataError, UsageError: as in `answer`, before the first piece.
        """
        prompts = {name: self.prompt(ask, name) for name in self.who(ask)}
        for name, prompt in prompts.items():
            start = time.monotonic()
            pieces: list[str] = []
            found = None
            if not stop():
                given, found = self._given(name, prompt)
                for piece in self.engine.stream(
                    given, adapter=name == self.label, temperature=ask.temperature, stop=stop
                ):
                    pieces.append(piece)
                    yield name, piece
            seconds = time.monotonic() - start
            yield name, Reply(name, "".join(pieces).strip(), seconds, stopped=stop(), found=found)


def _with_marks(text: str, images: tuple[str, ...]) -> str:
    missing = len(images) - text.count(IMAGE_MARK)
    if missing < 0:
        raise DataError(
            f"{len(images) - missing} {IMAGE_MARK} in the text for {len(images)} pictures",
            hint="name a picture for each, or leave the marks out: pictures stand before the text",
        )
    return f"{IMAGE_MARK}\n" * missing + text
