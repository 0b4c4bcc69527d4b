"""A prompt before it meets a model: user turns with their images. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskImage:
    """An image by path, or by its bytes where it lies inside a benchmark file.

    Attributes:
        path: the file, or the name that the image would have; read only where `data` is None.
        data: the encoded image.
        where: ``file:line`` that names the image, for errors.
    """

    path: str
    data: bytes | None = None
    where: str = ""


@dataclass(frozen=True)
class UserTurn:
    """One user turn: text with as many ``<image>`` marks as images."""

    text: str
    images: tuple[TaskImage, ...] = ()


@dataclass(frozen=True)
class Task:
    """One evaluation sample: one user turn, or several, each after the model's own earlier answers."""

    id: str
    turns: tuple[UserTurn, ...]

    @property
    def text(self) -> str:
        """All user turns as one text, for people."""
        return "\n".join(turn.text for turn in self.turns)
