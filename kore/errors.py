"""What can go wrong, in words a user can act on, each with the exit code it ends a command with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

_LONGEST = 600  # characters of one line of a message that are shown


class KoreError(Exception):
    """An expected failure: what happened, where, and what to do next.

    Args:
        message: what is wrong, one line, with the offending value.
        hint: the next step, usually a command.
        where: ``file:line``, a settings key or a site name.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        # data that is quoted may be of any length
        lines = (
            line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."
            for line in self.message.split("\n")
        )
        text = "\n".join(lines)
        return f"{self.where}: {text}" if self.where else text

    def lines(self) -> list[str]:
        """Lines for a terminal: what (with where), then the next step."""
        return [str(self), *([self.hint] if self.hint else [])]


class UsageError(KoreError):
    """Options that do not go together."""

    exit_code = 2


class DataError(KoreError):
    """A bad record, picture, benchmark file or artefact."""

    exit_code = 3


class DataWarning(UserWarning):
    """Something in the data that is perhaps not meant, e.g. a key that no field takes."""


class DataErrors(DataError):
    """Several faults of one input, reported together; message, place and hint are the first one's."""

    def __init__(self, first: Sequence[DataError], count: int) -> None:
        others = count - 1
        message = f"{first[0].message} (and {others} more fault{'s' * (others > 1)})"
        super().__init__(message, where=first[0].where, hint=first[0].hint)
        self.first = list(first)
        self.count = count

    def lines(self) -> list[str]:
        """The number of faults, a line for each of the first ones, then the distinct hints."""
        rest = self.count - len(self.first)
        hints = dict.fromkeys(error.hint for error in self.first if error.hint)
        return [
            f"{self.count} faults",
            *map(str, self.first),
            *([f"and {rest} more"] if rest else []),
            *hints,
        ]


class Faults:
    """Collects the faults of one input: keeps the first ones and counts the rest."""

    SHOWN: ClassVar[int] = 20

    def __init__(self) -> None:
        self.first: list[DataError] = []
        self.count = 0

    def add(self, error: DataError) -> None:
        """Record one fault."""
        self.count += 1
        if len(self.first) < self.SHOWN:
            self.first.append(error)

    def check(self) -> None:
        """Raise what was recorded.

        Raises:
            DataError: the only fault as it was recorded, several as `DataErrors`.
        """
        if self.count == 1:
            raise self.first[0]
        if self.count:
            raise DataErrors(self.first, self.count)


class ProfileError(KoreError):
    """A bad profile or setting."""

    exit_code = 3


class MissingArtefact(KoreError):
    """Something an earlier command makes is not there; the hint names that command."""

    exit_code = 4


class ProviderError(KoreError):
    """A teacher, judge or image provider failed after its retries; what was finished is kept."""

    exit_code = 5


class GateNotMet(KoreError):
    """A result fell below the bar that the caller set."""

    exit_code = 6


class Interrupted(KoreError):
    """Stopped by the user or by preemption, at a point from which the same command goes on."""

    exit_code = 130
