"""Judges: who reads an answer where no rule can. None, an OpenAI-compatible server, a local model, or
recorded replies.

A judge is asked about many samples at once; each reply is kept in an append-only file, so nothing is
asked twice. It never decides by itself what an unreadable reply means: that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kore.data.task import TaskImage
from kore.errors import MissingArtefact, ProviderError, UsageError
from kore.io.background import BackgroundLoop
from kore.io.files import hash_bytes, hash_file, hash_json
from kore.llm.cache import ReplyLog
from kore.llm.client import KEY, Client, api_key
from kore.llm.replay import ReplayFile
from kore.llm.request import Lasting, Reply, Request
from kore.llm.retry import Limits, Sender

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
    images: tuple[TaskImage, ...] = ()
    tries: int = 5
    max_tokens: int = 128

    def digest(self, attempt: int) -> str:
        """Names a reply: words, pictures, attempt."""
        pictures = [
            hash_bytes(p.data) if p.data is not None else hash_file(Path(p.path)) for p in self.images
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
        speak: requests and a temperature -> each request with its reply, as they come: None where the
            request cannot be answered, empty where it may be answered if it is asked again. None: only what
            is on record.
        record: append-only file of replies.
        open: fails if the judge is not there.
        close: closes connections after each round of questions.
    """

    name: str
    prompts: JudgePrompts
    record: Path | None = None
    speak: Speak | None = None
    open: Callable[[], None] = lambda: None
    there: bool = True
    close: Callable[[], None] = lambda: None
    known: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._log = ReplyLog(self.record, dict(self.known))

    @property
    def facts(self) -> dict[str, Any]:
        """Name and the prompts' hash."""
        return {"name": self.name, "prompts": self.prompts.digest, "own_wording": self.prompts.own}

    def ask(self, requests: Sequence[JudgeRequest]) -> Replies:
        """Ask, again where a reply could not be read, each attempt from the record where it is there."""
        readable: dict[str, str] = {}
        last: dict[str, str] = {}
        waiting = list(requests)
        attempt = 0
        try:
            while waiting:
                fresh = [r for r in waiting if self._log.get(r.digest(attempt)) is None]
                unanswered = self._put(attempt, fresh)
                left = []
                for request in waiting:
                    reply = self._log.get(request.digest(attempt))
                    if reply is None and request.key not in unanswered:
                        continue
                    if reply is not None:
                        last[request.key] = reply
                        if request.accept(reply):
                            readable[request.key] = reply
                            continue
                    if attempt + 1 < request.tries:
                        left.append(request)
                waiting, attempt = left, attempt + 1
        finally:
            self.close()
        failed = frozenset(r.key for r in requests if r.key not in last)
        return Replies(readable, last, failed)

    def _put(self, attempt: int, requests: Sequence[JudgeRequest]) -> set[str]:
        """Ask, and write down each reply as it comes: it may have been paid for, and the next may fail.

        Returns:
            Keys of the requests to which nothing usable came back.
        """
        unanswered: set[str] = set()
        if not requests or self.speak is None:
            return unanswered
        with self._log.appending():
            for request, reply in self.speak(requests, 0.5 * attempt):
                if reply:
                    self._log.put(request.digest(attempt), reply, sample=request.key, attempt=attempt)
                elif reply is not None:
                    unanswered.add(request.key)
        return unanswered


def make_judge(
    name: str = "none",
    *,
    base_url: str | None = None,
    prompts: Path | None = None,
    record: Path | None = None,
    section: ModelSection | None = None,
    longest_wait: float = 120.0,
) -> Judge:
    """The judge of that name: ``none``, ``openai:MODEL``, ``hf:PATH`` or ``replay:FILE``.

    Args:
        base_url: an OpenAI-compatible server; default: OpenAI's own.
        prompts: a TOML file with other judge prompts.
        record: folder for the replies.
        section: settings of a local judge's model beside its path.
        longest_wait: seconds to wait at most when the server asks for more.

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
        server = _Server(rest, base_url, Limits(concurrency=8, retries=5, longest_wait=longest_wait))
        return RecordedJudge(name, words, path, server.speak, close=server.close)
    if kind == "hf" and rest:
        local = _Local(rest, section)
        return RecordedJudge(name, words, path, local.speak, local.check)
    raise UsageError(f"unknown judge: {name}", hint="none, openai:MODEL, hf:PATH or replay:FILE")


def _replay(path: Path, words: JudgePrompts) -> RecordedJudge:
    """Replies recorded earlier, matched by the very words and pictures that they answer; lines without
    a ``key`` (written by hand) answer their ``sample``, whatever was asked about it."""
    file = ReplayFile(path, "reply", [("key",), ("sample",)], log=True)
    by_sample = file.replies("sample")

    def speak(requests: Sequence[JudgeRequest], temperature: float) -> Said:
        return [(request, by_sample.get(request.key)) for request in requests]

    return RecordedJudge(f"replay:{hash_file(path)}", words, None, speak, known=file.replies("key"))


class _Stopped(Exception):
    """Not sent, because another request failed for good."""


class _Server:
    """A model behind an OpenAI-compatible server; one client for a round of questions."""

    def __init__(self, model: str, base_url: str | None, limits: Limits) -> None:
        self.model = model
        self.base_url = base_url
        self.limits = limits
        self._connected: tuple[BackgroundLoop, Client, Sender] | None = None

    def speak(self, requests: Sequence[JudgeRequest], temperature: float) -> Said:
        """Replies as they come; after a failure those that are on their way still come.

        Raises:
            MissingArtefact: no key. ProviderError: the server failed after retries.
        """
        if self._connected is None:
            if not api_key() and not self.base_url:
                raise MissingArtefact(
                    f"the judge needs {KEY}", hint="or name your own server with --judge-url"
                )
            client = Client(self.model, base_url=self.base_url, timeout=120.0)
            self._connected = BackgroundLoop(), client, Sender(client.name, self.limits)
        loop, client, sender = self._connected
        failures: list[BaseException] = []

        async def one(request: JudgeRequest) -> Reply:
            async def attempt(repair: object) -> Reply:
                if failures:
                    raise _Stopped
                return await client.reply(_chat(request, temperature))

            return await sender.send(attempt, (len(request.text) // 4, request.max_tokens))

        asked: dict[Future[Reply], JudgeRequest] = {loop.submit(one(r)): r for r in requests}
        try:
            for future in as_completed(asked):
                error = future.exception()
                if error is None:
                    reply, request = future.result(), asked[future]
                    cut = reply.finish == "length" and not request.accept(reply.text)
                    yield request, "" if cut else reply.text
                elif isinstance(error, Lasting):
                    yield asked[future], None  # this one sample is refused: counted as failed
                elif not isinstance(error, _Stopped):
                    failures.append(error)
        finally:
            for future in asked:
                future.cancel()
        for error in failures[:1]:
            if not isinstance(error, ProviderError):
                raise error
            raise ProviderError(
                f"the judge failed: {error.message}",
                hint=error.hint or "what it judged before is kept; the same command resumes",
            ) from error

    def close(self) -> None:
        """Close the client."""
        if self._connected is not None:
            loop, client, _ = self._connected
            self._connected = None
            loop.submit(client.close()).result()
            loop.close()


def _chat(request: JudgeRequest, temperature: float) -> Request:
    content: str | list[dict[str, Any]] = request.text
    if request.images:
        content = [{"type": "text", "text": request.text}]
        content += [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in request.images]
    return Request(({"role": "user", "content": content},), temperature, request.max_tokens)


def data_url(picture: TaskImage) -> str:
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
            prompts = [Prompt.ask(r.text, [open_picture(p) for p in r.images]) for r in some]
            yield from zip(
                some, self.engine.answer(prompts, adapter=False, temperature=temperature), strict=True
            )


def open_picture(picture: TaskImage) -> Any:
    """A picture for the engine: its path, or opened from memory."""
    from kore.evaluation.runner import open_task_image

    return open_task_image(picture, "judge")
