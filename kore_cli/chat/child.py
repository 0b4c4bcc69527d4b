"""A model in a child process, asked over pipes: the screen's process never loads torch."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

Event = dict[str, Any]
PATIENCE = 2.0  # seconds


class ChatClient:
    """Speaks ``kore chat --stream``.

    Args:
        argv: what follows ``kore chat``.
        on_event: told each line that comes back, in a thread; ``{"closed": code, "words": ...}`` last.
    """

    def __init__(self, argv: Sequence[str], on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._words: deque[str] = deque(maxlen=20)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kore_cli", "chat", *argv, "--stream", "--quiet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
        self._lock = threading.Lock()
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._other = threading.Thread(target=self._overhear, daemon=True)
        self._other.start()  # the first, since the ear waits for it in the end
        self._ear.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict):
                self._on_event(event)
            else:  # a library has printed something
                self._words.append(line.rstrip())
        code = self._process.wait()
        self._other.join(timeout=1.0)
        self._on_event({"closed": code, "words": "\n".join(self._words)})

    def _overhear(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._words.append(line.rstrip())

    def ask(self, question: Event) -> None:
        """Send one question; a child that is gone says so through `on_event`."""
        self._send(json.dumps(question, ensure_ascii=False))

    def stop(self) -> None:
        """Stop the answer that is being made."""
        self._send('{"stop": true}')

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the child, ever more firmly: an answer in the making is stopped."""
        self.stop()
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.close()
        for insist in (self._process.terminate, self._process.kill, None):
            try:
                self._process.wait(timeout=PATIENCE)
                break
            except subprocess.TimeoutExpired:
                if insist is not None:
                    insist()
        for thread, pipe in ((self._ear, self._process.stdout), (self._other, self._process.stderr)):
            thread.join(timeout=PATIENCE)
            if pipe is not None and not thread.is_alive():  # else a child of the child holds it open
                pipe.close()
