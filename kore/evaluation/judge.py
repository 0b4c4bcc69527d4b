"""Judges: who reads an answer where no rule can. None, an OpenAI-compatible server, a local model, or
recorded replies.

A judge is asked about many samples at once; each reply is kept in an append-only file, so nothing is
asked twice. It never decides by itself what an unreadable reply means: that is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from kore.errors import DataError, MissingArtefact, ProviderError, UsageError
from kore.evaluation.types import Picture
from kore.io.files import hash_bytes, hash_file, hash_json
from kore.io.jsonl import dump_line, mend_log, read_log

if TYPE_CHECKING:
    from kore.config.resolve import ModelSection
    from kore.evaluation.judge_prompts import JudgePrompts
    from kore.models.generate import Engine


@dataclass(frozen=True)
class JudgeRequest:
    """One question to a judge.

    Attributes:
        key: the sample (and turn) it is about, unique within a suite.
        accept: whether a reply can be read; if not, the judge is asked again.
        tries: how often at most; each further try is a little hotter.
    """

    key: str
    text: str
    accept: Callable[[str], bool]
    pictures: tuple[Picture, ...] = ()
    tries: int = 5
    max_tokens: int = 128

    def digest(self, attempt: int) -> str:
        """Names a reply: words, pictures, attempt."""
        pictures = [
            hash_bytes(p.data) if p.data is not None else hash_file(Path(p.path)) for p in self.pictures
        ]
        return hash_json([self.text, pictures, attempt])


@dataclass(frozen=True)
class Replies:
    """What a judge said.

    Attributes:
        readable: key -> the first reply that could be read.
        last: key -> the last reply, readable or not.
        failed: keys that got no reply at all.
    """

    readable: Mapping[str, str] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()

    def counts(self) -> dict[str, int]:
        """asked, failed (no reply), unparsed (replies, none readable)."""
        unread = len(self.last) - len(self.readable)
        return {"asked": len(self.last) + len(self.failed), "failed": len(self.failed), "unparsed": unread}


Said = Iterable[tuple[JudgeRequest, str | None]]
Speak = Callable[[Sequence[JudgeRequest], float], Said]


class Judge(Protocol):
    """Answers judge requests."""

    name: str
    prompts: JudgePrompts

    @property
    def facts(self) -> dict[str, Any]:
        """What goes into the result: who judged, with which prompts."""

    @property
    def there(self) -> bool:
        """False for `none`: benchmarks then use rules alone, or are not scored."""

    def open(self) -> None:
        """Fail now, and not after hours of answering, if the judge is not there."""

    def ask(self, requests: Sequence[JudgeRequest]) -> Replies:
        """Ask everything that is not on record."""


@dataclass
class RecordedJudge:
    """What all judges share: the record of replies, and asking again until one can be read.

    Attributes:
        speak: requests and a temperature -> each request with its reply (None where there was none), as
            they come; None: only what is on record.
        record: append-only file of replies.
        open: fails if the judge is not there.
    """

    name: str
    prompts: JudgePrompts
    record: Path | None = None
    speak: Speak | None = None
    open: Callable[[], None] = lambda: None
    there: bool = True
    _known: dict[str, str] | None = field(default=None, repr=False)

    @property
    def facts(self) -> dict[str, Any]:
        """Name and the prompts' hash."""
        return {"name": self.name, "prompts": self.prompts.digest, "own_wording": self.prompts.own}

    def ask(self, requests: Sequence[JudgeRequest]) -> Replies:
        """Ask, again where a reply could not be read, each attempt from the record where it is there."""
        known = self._load()
        readable: dict[str, str] = {}
        last: dict[str, str] = {}
        waiting = list(requests)
        attempt = 0
        while waiting:
            fresh = [r for r in waiting if r.digest(attempt) not in known]
            if fresh and self.speak is not None:
                self._keep(attempt, self.speak(fresh, 0.5 * attempt))
            left = []
            for request in waiting:
                reply = known.get(request.digest(attempt))
                if reply is None:
                    continue
                last[request.key] = reply
                if request.accept(reply):
                    readable[request.key] = reply
                elif attempt + 1 < request.tries:
                    left.append(request)
            waiting, attempt = left, attempt + 1
        failed = frozenset(r.key for r in requests if r.key not in last)
        return Replies(readable, last, failed)

    def _load(self) -> dict[str, str]:
        if self._known is None:
            lines = read_log(self.record) if self.record else []
            self._known = {line["key"]: line["reply"] for line in lines}
        return self._known

    def _keep(self, attempt: int, said: Said) -> None:
        """Write down each reply as it comes: they may have been paid for, and the next may fail."""
        known = self._load()
        with self._opened() as stream:
            for request, reply in said:
                if reply is None:
                    continue
                key = request.digest(attempt)
                known[key] = reply
                if stream is not None:
                    line = {"key": key, "sample": request.key, "attempt": attempt, "reply": reply}
                    stream.write(dump_line(line))
                    stream.flush()

    @contextmanager
    def _opened(self) -> Iterator[IO[str] | None]:
        """The record, to be added to; synced to disk at the end."""
        if self.record is None:
            yield None
            return
        self.record.parent.mkdir(parents=True, exist_ok=True)
        mend_log(self.record)
        with self.record.open("a", encoding="utf-8") as stream:
            try:
                yield stream
            finally:
                os.fsync(stream.fileno())


def make_judge(
    name: str = "none",
    *,
    base_url: str | None = None,
    prompts: Path | None = None,
    record: Path | None = None,
    section: ModelSection | None = None,
) -> Judge:
    """The judge of that name: ``none``, ``openai:MODEL``, ``hf:PATH`` or ``replay:FILE``.

    Args:
        base_url: an OpenAI-compatible server; default: OpenAI's own.
        prompts: a TOML file with other judge prompts.
        record: folder for the replies.
        section: settings of a local judge's model beside its path.

    Raises:
        UsageError: an unknown name; MissingArtefact: a replay file or key that is not there.
    """
    from kore.evaluation.judge_prompts import load_prompts

    words = load_prompts(prompts)
    kind, _, rest = name.partition(":")
    path = record / f"{hash_json(name)}.jsonl" if record else None
    if kind == "none":
        return RecordedJudge("none", words, there=False)
    if kind == "replay" and rest:
        if not Path(rest).is_file():
            raise MissingArtefact(f"no such replies: {rest}", hint="a judge's replies lie in OUT/judge/")
        return _replay(Path(rest), words)
    if kind == "openai" and rest:
        return RecordedJudge(name, words, path, _openai(rest, base_url))
    if kind == "hf" and rest:
        local = _Local(rest, section)
        return RecordedJudge(name, words, path, local.speak, local.check)
    raise UsageError(f"unknown judge: {name}", hint="none, openai:MODEL, hf:PATH or replay:FILE")


def _replay(path: Path, words: JudgePrompts) -> RecordedJudge:
    """Replies recorded earlier, matched by the very words and pictures that they answer; lines without
    a ``key`` (written by hand) answer their ``sample``, whatever was asked about it."""
    lines = read_log(path)
    for number, line in enumerate(lines, 1):
        if not isinstance(line.get("reply"), str) or not ({"key", "sample"} & line.keys()):
            raise DataError("a recorded reply has reply, and key or sample", where=f"{path}:{number}")
    by_sample = {str(line["sample"]): line["reply"] for line in lines if "key" not in line}

    def speak(requests: Sequence[JudgeRequest], temperature: float) -> Said:
        return [(request, by_sample.get(request.key)) for request in requests]

    known = {line["key"]: line["reply"] for line in lines if "key" in line}
    return RecordedJudge(f"replay:{hash_file(path)}", words, None, speak, _known=known)


def _openai(model: str, base_url: str | None) -> Speak:
    def speak(requests: Sequence[JudgeRequest], temperature: float) -> Said:
        import openai

        key = os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
        if key is None:
            raise MissingArtefact(
                "the judge needs OPENAI_API_KEY", hint="or name your own server with --judge-url"
            )
        client = openai.OpenAI(api_key=key, base_url=base_url, max_retries=5, timeout=120.0)

        def one(request: JudgeRequest) -> str | None:
            content: list[Any] = [{"type": "text", "text": request.text}]
            content += [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in request.pictures]
            try:
                answer = client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": content if request.pictures else request.text}],
                    temperature=temperature,
                    max_tokens=request.max_tokens,
                )
            except openai.BadRequestError:
                return None  # this one sample is refused: counted as failed
            return answer.choices[0].message.content if answer.choices else None

        failures: list[BaseException] = []
        with ThreadPoolExecutor(max_workers=8) as pool:
            asked = {pool.submit(one, request): request for request in requests}
            try:
                for future in as_completed(asked):
                    if future.cancelled():
                        continue
                    if error := future.exception():
                        failures.append(error)
                        for other in asked:  # what is on its way still comes, and is kept
                            other.cancel()
                    else:
                        yield asked[future], future.result()
            finally:
                for future in asked:
                    future.cancel()
        for error in failures[:1]:
            if not isinstance(error, openai.OpenAIError):
                raise error
            raise ProviderError(
                f"the judge {model} failed: {type(error).__name__}: {str(error).splitlines()[0]}",
                hint="what it judged before is kept; the same command goes on",
            ) from error

    return speak


def data_url(picture: Picture) -> str:
    """A picture as a data URL, as chat servers take it."""
    import base64

    data = picture.data if picture.data is not None else Path(picture.path).read_bytes()
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


class _Local:
    """A local model as judge, loaded on first use through the shared engine."""

    def __init__(self, path: str, section: ModelSection | None) -> None:
        self.path = path
        self.section = section
        self.engine: Engine | None = None

    def check(self) -> None:
        from kore.models.load import model_folder

        model_folder(self.path)

    def speak(self, requests: Sequence[JudgeRequest], temperature: float) -> Said:
        from kore.config.resolve import ModelSection
        from kore.models.generate import WINDOW, Engine, Prompt
        from kore.models.load import load

        if self.engine is None:
            section = (self.section or ModelSection()).model_copy(update={"id": self.path})
            self.engine = Engine(load(section), batch=8)
        self.engine.max_new_tokens = max(r.max_tokens for r in requests)
        window = self.engine.batch * WINDOW  # as many as it sorts by length together
        for start in range(0, len(requests), window):
            some = requests[start : start + window]
            prompts = [Prompt.ask(r.text, [open_picture(p) for p in r.pictures]) for r in some]
            yield from zip(
                some, self.engine.answer(prompts, adapter=False, temperature=temperature), strict=True
            )


def open_picture(picture: Picture) -> Any:
    """A picture for the engine: its path, or opened from memory."""
    from kore.evaluation.runner import open_task_picture

    return open_task_picture(picture, "judge")
