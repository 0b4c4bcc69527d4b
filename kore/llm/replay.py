"""Recorded replies in a JSONL file, found by what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.errors import DataError
from kore.io.jsonl import read_jsonl, read_log


@dataclass
class ReplayFile:
    """A file of replies.

    Args:
        text: the field that holds a reply.
        keys: groups of fields, of which each line has one whole group; the first that it has names the line.
        log: an append-only log, whose last line may be torn.

    Raises:
        DataError: a line without text or without a key.
    """

    path: Path
    text: str
    keys: Sequence[tuple[str, ...]]
    log: bool = False
    _lines: dict[tuple[str, ...], list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        forms = ", or ".join(" and ".join(group) for group in self.keys)
        numbered = ((f"{self.path}:{n}", line) for n, line in enumerate(read_log(self.path), 1))
        for where, line in numbered if self.log else read_jsonl(self.path):
            group = next((g for g in self.keys if set(g) <= line.keys()), None)
            if group is None or not isinstance(line.get(self.text), str):
                raise DataError(f"a recorded reply has {self.text}, and {forms}", where=where)
            self._lines.setdefault((*group, *(str(line[name]) for name in group)), []).append(line)

    def find(self, **key: str) -> list[dict[str, Any]]:
        """The lines with these values of a group of fields, in the file's order."""
        return self._lines.get((*key.keys(), *key.values()), [])

    def replies(self, name: str) -> dict[str, str]:
        """The last reply for each value of a field that is a group of its own."""
        return {key[1]: lines[-1][self.text] for key, lines in self._lines.items() if key[0] == name}
