"""What the chat says of itself: who answers, and with which pictures the next question is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textual.content import Content

from kore_cli.widgets.formatting import fit

BASE, EMBEDDED = "base", "kore-tiny"
_BRAND = (" KORE chat ", "bold $background on $primary")


def header(
    name: str,
    *,
    ready: bool,
    closed: str | None,
    answering: Sequence[str],
    source: str,
    coming: str | None,
    base: str,
    temperature: float,
    context: bool,
    busy: bool,
) -> Content:
    """The line.

    Args:
        name: what was opened. ready: whether the model is loaded. closed: why it has gone, if it has.
        answering: base, the adapter's label, or both. source: whose adapter that is.
        coming: the adapter that answers from the next question on.
        context: whether earlier turns are sent along.
    """
    if closed is not None:
        return Content.assemble(_BRAND, " ", (fit(f"the model has gone: {closed}", 140), "bold $error"))
    if not ready:
        return Content.assemble(_BRAND, " ", (name, "bold"), ("  loading", "$warning"))
    parts: list[Any] = [
        _BRAND,
        " ",
        ("answers: ", "$foreground 55%"),
        (" and ".join(answering), "bold $success"),
    ]
    if list(answering) != [BASE]:
        parts += [("   from ", "$foreground 55%"), fit(source, 24)]
    if coming is not None:
        parts.append((f"   {fit(coming, 24)} from the next question", "$warning"))
    parts += [("   on ", "$foreground 55%"), fit(base_name(base), 30)]
    if temperature:
        parts += [("   temperature ", "$foreground 55%"), f"{temperature:g}"]
    along = "earlier turns are sent along" if context else "each question on its own"
    parts.append((f"   {along}", "$foreground 45%"))
    if busy:
        parts.append(("   answering, ^c stops", "$warning"))
    return Content.assemble(*parts)


def why_gone(words: str, code: int) -> str:
    """Why a child has gone: its last error with the next step, else its last words, else its exit code."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("error:")]
    told = lines[errors[-1] :] if errors else lines[-1:]
    return "; ".join(told).removeprefix("error:").strip() or f"exit code {code}"


def base_name(base: str) -> str:
    """What a base is called, from its folder."""
    return EMBEDDED if base.endswith("demo/base") else base.rstrip("/").rpartition("/")[2]


def asked_with(pictures: Sequence[str]) -> Content:
    """The words beside the picture of the next questions."""
    names = ", ".join(Path(p).name for p in pictures)
    how = "\nasked with the next questions · ^o changes it · Backspace here drops it"
    return Content.assemble((names, "bold"), (how, "$foreground 50%"))
