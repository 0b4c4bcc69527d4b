"""A model in a child process, reached over pipes: the screen's process never loads torch."""

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
EXIT_TIMEOUT = 2.0  # seconds


class ChatClient:
    """Speaks ``kore chat --stream``.

    Args:
        argv: the arguments after ``kore chat``.
        on_event: called in a thread with each event; the last is ``{"closed": code, "words": text}``.
    """

    def __init__(self, argv: Sequence[str], on_event: Callable[[Event], object]) -> None:
        self._on_event = on_event
        self._output: deque[str] = deque(maxlen=20)
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
        self._stdout_thread = threading.Thread(target=self._read_events, daemon=True)
        self._stderr_thread = threading.Thread(target=self._read_stderr, daemon=True)
        self._stderr_thread.start()  # first: the other thread joins it at the end
        self._stdout_thread.start()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict):
                self._on_event(event)
            else:  # printed by a library
                self._output.append(line.rstrip())
        code = self._process.wait()
        self._stderr_thread.join(timeout=1.0)
        self._on_event({"closed": code, "words": "\n".join(self._output)})

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._output.append(line.rstrip())

    def ask(self, question: Event) -> None:
        """Send one question; a child that has exited reports it through `on_event`."""
        self._send(json.dumps(question, ensure_ascii=False))

    def stop(self) -> None:
        """Stop the current answer."""
        self._send('{"stop": true}')

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Stop the current answer and end the child: by closing its input, then SIGTERM, then SIGKILL."""
        self.stop()
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.close()
        for escalate in (self._process.terminate, self._process.kill, None):
            try:
                self._process.wait(timeout=EXIT_TIMEOUT)
                break
            except subprocess.TimeoutExpired:
                if escalate is not None:
                    escalate()
        pipes = (
            (self._stdout_thread, self._process.stdout),
            (self._stderr_thread, self._process.stderr),
        )
        for thread, pipe in pipes:
            thread.join(timeout=EXIT_TIMEOUT)
            if pipe is not None and not thread.is_alive():  # else a grandchild keeps it open
                pipe.close()
