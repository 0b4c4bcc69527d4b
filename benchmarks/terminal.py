"""A program in a real terminal (tmux): keys in, what is seen out, as text or as a picture."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

BACKGROUND, FOREGROUND = (16, 21, 28), (214, 221, 230)
COLOURS = [
    (28, 37, 48),
    (239, 127, 134),
    (140, 207, 143),
    (240, 184, 102),
    (91, 141, 239),
    (185, 163, 227),
    (124, 199, 232),
    (214, 221, 230),
]
BRIGHT = [
    (77, 96, 114),
    (255, 150, 156),
    (165, 226, 168),
    (255, 205, 130),
    (130, 170, 255),
    (208, 190, 240),
    (160, 220, 245),
    (240, 244, 248),
]


class Terminal:
    """One program in a tmux server of its own, which ends with the `with` block.

    Args:
        command: what to run. size: columns and rows. env: besides this process's own.
    """

    def __init__(
        self, command: Sequence[str], size: tuple[int, int], *, env: Mapping[str, str] | None = None
    ) -> None:
        self.size = size
        self._socket = f"kore-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        told = {"COLORTERM": "truecolor", **(env or {})}
        words = [f"{key}={value}" for key, value in told.items()]
        line = shlex.join(["env", *words, *command])
        width, height = map(str, size)
        # the configuration is read before the first window opens; a pane that ended stays to be read
        options = "set -g status off\nset -g remain-on-exit on\nset -g default-terminal tmux-256color\n"
        options += "set -g escape-time 0\n"
        self._config = Path("/tmp") / f"{self._socket}.conf"
        self._config.write_text(options)
        self._tmux("-f", str(self._config), "new-session", "-d", "-x", width, "-y", height, line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")
        self._config.unlink(missing_ok=True)

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words], check=True, capture_output=True, encoding="utf-8"
        )
        return done.stdout

    def press(self, *keys: str, pause: float = 0.4) -> None:
        """Press keys, by tmux's names (C-p, Escape, F8, Space), one after the other."""
        for key in keys:
            self._tmux("send-keys", key)
            time.sleep(pause)

    def write(self, text: str, pause: float = 0.4) -> None:
        """Type a text."""
        self._tmux("send-keys", "-l", text)
        time.sleep(pause)

    def resize(self, width: int, height: int, pause: float = 1.0) -> None:
        """Another size, as if the window was dragged."""
        self.size = (width, height)
        self._tmux("resize-window", "-x", str(width), "-y", str(height))
        time.sleep(pause)

    def text(self) -> str:
        """What is seen, without colours; of a program that ended, also what its end scrolled away."""
        dead = self._tmux("display", "-p", "#{pane_dead}").strip() == "1"
        return self._tmux("capture-pane", "-p", "-J", *(["-S", "-"] if dead else []))

    @property
    def exit_code(self) -> int | None:
        """The program's exit code once it has ended."""
        server, dead, *code = self._tmux("display", "-p", "#{pid} #{pane_dead} #{pane_dead_status}").split()
        if dead == "1" and not code:  # tmux may miss the signal, and then never asks for the code
            os.kill(int(server), signal.SIGCHLD)
        return int(code[0]) if dead == "1" and code else None

    @property
    def pid(self) -> int:
        """The process in the terminal."""
        return int(self._tmux("display", "-p", "#{pane_pid}"))

    def wait_for(self, pattern: str, seconds: float = 60.0, *, every: float = 0.2) -> None:
        """Wait until a pattern is seen, looking once in `every` seconds.

        Raises:
            TimeoutError: it was not; the message holds what was seen instead.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if re.search(pattern, self.text()):
                return
            time.sleep(every)
        raise TimeoutError(f"{pattern!r} was not seen in {seconds:.0f} s:\n{self.text()}")

    def picture(self, path: Path, title: str) -> None:
        """Write what is seen as PNG (or as SVG, by the suffix)."""
        seen = self._tmux("capture-pane", "-p", "-e", "-N").rstrip("\n").split("\n")
        paper = Console(width=self.size[0], record=True, file=io.StringIO(), color_system="truecolor")
        for line in seen:
            paper.print(Text.from_ansi(line), no_wrap=True, crop=True, end="\n")
        theme = TerminalTheme(BACKGROUND, FOREGROUND, COLOURS, BRIGHT)
        svg = paper.export_svg(title=title, theme=theme)
        if path.suffix == ".svg":
            path.write_text(svg, encoding="utf-8")
            return
        import resvg_py

        path.write_bytes(
            bytes(
                resvg_py.svg_to_bytes(
                    svg_string=svg, font_family="DejaVu Sans Mono", monospace_family="DejaVu Sans Mono"
                )
            )
        )
