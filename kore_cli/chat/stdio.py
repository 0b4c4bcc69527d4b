"""Chat without a screen: questions from lines or an option, answers as lines in the same order.

A bad line is answered with an error object and does not stop the rest; the exit code reports it.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import DataError, Interrupted, KoreError
from kore_cli.errors import unforeseen
from kore_cli.output import Output, trace

if TYPE_CHECKING:
    from kore.chat import Ask, Reply, Session

BATCH = 8


@dataclass(frozen=True)
class Plan:
    """The options of the command."""

    target: str | None
    images: tuple[str, ...] = ()
    compare: bool = False
    rag: Path | None = None
    model: str | None = None
    temperature: float = 0.0
    max_new_tokens: int | None = None
    profile: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    download: bool = False
    json: bool = False
    quiet: bool = False
    stream: bool = False

    @property
    def name(self) -> str:
        """The target: the one named, else the newest run with an adapter, else the embedded base."""
        from kore.artifacts.run import ADAPTER, all_runs
        from kore.config.schema import ModelSection

        if self.target:
            return self.target
        finished = (run for run in all_runs() if (run.adapter / ADAPTER).is_file())
        return next((str(run.folder) for run in finished), ModelSection().id)

    def open(self) -> Session:
        """Load the model, which may take minutes, after checking the images and settings.

        Raises:
            KoreError: an image or a model is missing or broken.
        """
        from kore.chat import Session
        from kore.config.model_defaults import resolve_inference
        from kore.io.images import open_image

        for path in self.images:
            open_image(path)
        profile = resolve_inference(
            self.name, self.profile, dict(self.settings), download=self.download
        ).profile
        longest = self.max_new_tokens or profile.eval.max_new_tokens
        return Session.open(
            self.name,
            profile.model,
            batch=BATCH,
            max_new_tokens=longest,
            download=self.download,
            rag=self.rag,
        )

    def ask(self, value: dict[str, Any]) -> Ask:
        """A question with the command's own options as defaults."""
        from kore.chat import Ask

        return Ask.read(
            value, self.images, compare=self.compare, model=self.model, temperature=self.temperature
        )


class Stop:
    """Inside the block, Ctrl-C stops the current answer, or the program where there is none.

    Attributes:
        at: the number of the current question.
        before: questions with lower numbers must stop, even if they have not started.
    """

    def __init__(self) -> None:
        self.requested = False
        self.busy = False
        self.at = self.before = 0

    def __enter__(self) -> Stop:
        self._old = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *raised: object) -> None:
        signal.signal(signal.SIGINT, self._old)

    def _interrupt(self, number: int, frame: object) -> None:
        if not self.busy or self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __call__(self) -> bool:
        return self.requested or self.at < self.before


def answer_once(plan: Plan, text: str) -> None:
    """One question, one answer (two with --compare); streamed on a terminal.

    Raises:
        KoreError: bad image, missing model; Interrupted: Ctrl-C, after the answer so far.
    """
    with Stop() as stop:
        _answer_once(plan, text, stop, Output(json_mode=plan.json, quiet=plan.quiet))


def _answer_once(plan: Plan, text: str, stop: Stop, output: Output) -> None:
    session = plan.open()
    ask = plan.ask({"text": text})
    replies: list[Reply] = []
    stop.busy = True
    if output.human and not plan.stream:
        output.note(f"{' and '.join(session.who(ask))} of {plan.name}:")
        for name, piece in session.stream(ask, stop):
            if isinstance(piece, str):
                if not replies or replies[-1].model != name:
                    _label(session, ask, name, output)
                output.piece(piece)
                replies.append(_part(name, piece))
            else:
                output.line("")
                replies.append(piece)
                if piece.found:
                    output.note(f"looked up: {piece.found}")
    elif plan.stream:
        replies = _stream(session, ask, 0, stop, output)
    else:
        replies = [r for _, r in session.stream(ask, stop) if not isinstance(r, str)]
        output.record(record(ask, replies, 0))
    if stop.requested:
        raise Interrupted("stopped")


def _part(name: str, piece: str) -> Reply:
    from kore.chat import Reply

    return Reply(name, piece, 0.0)


def _label(session: Session, ask: Ask, name: str, output: Output) -> None:
    if len(session.who(ask)) > 1:
        output.piece(f"{name}: ")


def record(ask: Ask, replies: list[Reply], index: int) -> dict[str, Any]:
    """The answer as a JSON object: `answer` by `model`; with a comparison also `base`."""
    last = replies[-1]
    value: dict[str, Any] = {"v": 1, "index": index}
    if ask.id is not None:
        value["id"] = ask.id
    value |= {"text": ask.text, "image": _single(ask.images), "model": last.model, "answer": last.answer}
    if last.found:
        value["found"] = last.found
    if len(replies) > 2:
        value["answers"] = {r.model: r.answer for r in replies}
    if len(replies) > 1:
        value |= {"base": replies[0].answer, "same": replies[0].answer.strip() == last.answer.strip()}
    value["seconds"] = round(sum(r.seconds for r in replies), 3)
    if any(r.stopped for r in replies):
        value["stopped"] = True
    return value


def _single(images: tuple[str, ...]) -> str | list[str] | None:
    return None if not images else images[0] if len(images) == 1 else list(images)


def answer_lines(plan: Plan) -> None:
    """Answer the lines of standard input until it ends.

    Raises:
        DataError: at the end, if some lines could not be answered.
    """
    with Stop() as stop:
        bad = _answer_lines(plan, stop, Output(json_mode=True, quiet=plan.quiet))
    if bad:
        raise DataError(f"{bad} {'line' if bad == 1 else 'lines'} could not be answered")


def _answer_lines(plan: Plan, stop: Stop, output: Output) -> int:
    session = plan.open()
    if plan.stream:
        output.record({"v": 1, "ready": True, "models": session.models, "base": session.target.model})
    bad = 0
    for index, batch in _batches(1 if plan.stream else BATCH, stop, streamed=plan.stream):
        asks: list[tuple[int, str, Ask | KoreError]] = [
            (index + i, where, _read(plan, line, where)) for i, (where, line) in enumerate(batch)
        ]
        stop.busy, stop.requested, stop.at = plan.stream, False, index
        if plan.stream or any(isinstance(a, _ask_type()) and a.use for _, _, a in asks):
            for number, where, ask in asks:
                bad += _one(session, ask, number, where, stop, output, streamed=plan.stream)
        else:
            bad += _many(session, asks, output)
        stop.busy = False
    return bad


def _ask_type() -> type[Ask]:
    from kore.chat import Ask

    return Ask


def _many(session: Session, asks: list[tuple[int, str, Ask | KoreError]], output: Output) -> int:
    good = [(n, a) for n, _, a in asks if not isinstance(a, KoreError)]
    answers = dict(zip([n for n, _ in good], _answers(session, [a for _, a in good]), strict=True))
    bad = 0
    for number, where, ask in asks:
        result = ask if isinstance(ask, KoreError) else answers[number]
        if isinstance(result, KoreError):
            bad += 1
            _error(output, number, where, result, ask)
        elif not isinstance(ask, KoreError):
            output.record(record(ask, result, number))
    return bad


def _answers(session: Session, asks: list[Ask]) -> list[list[Reply] | KoreError]:
    """Answers in order. If the batch fails, each question is tried alone, to get its own error."""
    try:
        return [*session.answer(asks)]
    except Interrupted:
        raise
    except Exception as error:
        if len(asks) == 1:
            return [_as_kore_error(error)]
    return [answer for ask in asks for answer in _answers(session, [ask])]


def _as_kore_error(error: Exception) -> KoreError:
    """Any error that a model, a processor or a library raised, as a KoreError."""
    if isinstance(error, KoreError):
        return error
    trace(error)
    _, message, hint = unforeseen(error)
    return KoreError(message, hint=hint)


def _one(
    session: Session,
    ask: Ask | KoreError,
    number: int,
    where: str,
    stop: Stop,
    output: Output,
    *,
    streamed: bool,
) -> int:
    try:
        if isinstance(ask, KoreError):
            raise ask
        if ask.use:
            session.use(ask.use)
            if streamed:
                output.record({"v": 1, "ready": True, "models": session.models, "base": session.target.model})
        if streamed:
            _stream(session, ask, number, stop, output)
        else:
            replies = _answers(session, [ask])[0]
            if isinstance(replies, KoreError):
                raise replies
            output.record(record(ask, replies, number))
    except (Interrupted, BrokenPipeError):
        raise
    except Exception as error:
        _error(output, number, where, _as_kore_error(error), ask)
        return 1
    return 0


def _stream(session: Session, ask: Ask, number: int, stop: Stop, output: Output) -> list[Reply]:
    replies: list[Reply] = []
    for name, piece in session.stream(ask, stop):
        if isinstance(piece, str):
            output.record({"index": number, "model": name, "delta": piece})
        else:
            replies.append(piece)
            output.record(
                {"index": number, "model": name, "answer": piece.answer, "seconds": round(piece.seconds, 3)}
                | ({"stopped": True} if piece.stopped else {})
            )
    output.record({**record(ask, replies, number), "done": True})
    return replies


def _error(output: Output, number: int, where: str, error: KoreError, ask: Ask | KoreError) -> None:
    value: dict[str, Any] = {"v": 1, "index": number, "error": error.message, "where": error.where or where}
    if error.hint:
        value["hint"] = error.hint
    if not isinstance(ask, KoreError) and ask.id is not None:
        value["id"] = ask.id
    output.record(value)


def _read(plan: Plan, line: bytes, where: str) -> Ask | KoreError:
    """A line as a question: a JSON object, or the text itself."""
    try:
        text = line.decode("utf-8").strip()
        if not text.startswith("{"):
            return plan.ask({"text": text})
        value = json.loads(text)
    except UnicodeDecodeError:
        return DataError("not UTF-8 text", where=where)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        return DataError(f"not JSON: {reason}", where=where)
    except KoreError as error:
        return error
    try:
        return plan.ask(value)
    except KoreError as error:
        return error


def _stops(line: bytes) -> bool:
    """Whether a line is the stop command."""
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        return bool(json.loads(line) == {"stop": True})
    except (ValueError, RecursionError):
        return False


def _batches(size: int, stop: Stop, *, streamed: bool) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """Lines as they arrive, up to `size` of those already waiting, with the first one's number.

    Raises:
        DataError: standard input cannot be read.
    """
    # a stream is read ahead without limit: a stop command may follow
    waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(maxsize=0 if streamed else 4 * size)
    failed: list[OSError] = []

    def read() -> None:
        count = 0
        try:
            if sys.stdin is None:  # closed: descriptor 0 may belong to another file
                return
            # not sys.stdin: this thread would hold its lock, which the interpreter needs to exit
            stream = open(0, "rb", closefd=False)  # noqa: SIM115
            for number, line in enumerate(stream, start=1):
                if _stops(line):
                    stop.before = count
                elif line.strip():
                    waiting.put((f"stdin:{number}", line))
                    count += 1
        except OSError as error:
            failed.append(error)
        finally:
            waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    index = 0
    ended = False
    while not ended:
        first = waiting.get()
        if first is None:
            break
        batch = [first]
        while len(batch) < size:
            try:
                more = waiting.get_nowait()
            except queue.Empty:
                break
            if more is None:
                ended = True
                break
            batch.append(more)
        yield index, batch
        index += len(batch)
    if failed:
        raise DataError(f"cannot be read: {failed[0].strerror}", where="stdin") from failed[0]
