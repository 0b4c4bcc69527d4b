"""The loopback server as a process of its own, and items that it can answer questions about."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kore.data.records import KnowledgeItem

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "loopback_server.py"
KEYS = ("price", "weight", "colour", "maker")


@dataclass(frozen=True)
class Loopback:
    """A running server."""

    port: int

    @property
    def url(self) -> str:
        """What base_url takes."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, int]:
        """What it has seen."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as answer:
            value: dict[str, int] = json.load(answer)
        return value


@contextmanager
def loopback(*options: str) -> Iterator[Loopback]:
    """Start the server with command line options, and end it."""
    process = subprocess.Popen([sys.executable, str(SCRIPT), *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Loopback(json.loads(process.stdout.readline())["port"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def gadgets(count: int, picture: Path | None = None) -> list[KnowledgeItem]:
    """Items of four facts each."""
    return [
        KnowledgeItem(
            id=f"g{i}",
            kind="entity",
            type="gadget",
            title=f"Gadget {i}",
            text=" ".join(f"The {key} of Gadget {i} is {key} {i}." for key in KEYS),
            image=str(picture) if picture else None,
        )
        for i in range(count)
    ]
