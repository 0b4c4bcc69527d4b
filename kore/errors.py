"""What can go wrong, in words a user can act on, each with the exit code it ends a command with."""

from __future__ import annotations

from typing import ClassVar


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
        return f"{self.where}: {self.message}" if self.where else self.message

    def lines(self) -> list[str]:
        """One to three lines for a terminal: what (with where), then the next step."""
        return [str(self), *([self.hint] if self.hint else [])]


class UsageError(KoreError):
    """Options that do not go together."""

    exit_code = 2


class DataError(KoreError):
    """A bad record, picture, benchmark file or artefact."""

    exit_code = 3


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
