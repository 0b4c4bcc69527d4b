"""The chat's header, and the text beside the attached image."""

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
    """The header: who answers, from which run, on which base.

    Args:
        name: the target's name. ready: whether the model is loaded.
        closed: why the model process ended, if it did.
        answering: base, the adapter's label, or both. source: the run of that adapter.
        coming: the adapter that answers from the next question on.
        context: whether earlier turns are sent along.
    """
    if closed is not None:
        return Content.assemble(_BRAND, " ", (fit(f"the model process ended: {closed}", 140), "bold $error"))
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
    turns = "earlier turns are sent along" if context else "each question on its own"
    parts.append((f"   {turns}", "$foreground 45%"))
    if busy:
        parts.append(("   answering, ^c stops", "$warning"))
    return Content.assemble(*parts)


def exit_reason(output: str, code: int) -> str:
    """Why a child ended: its last error with the next step, else its last line, else its exit code."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("error:")]
    reason = lines[errors[-1] :] if errors else lines[-1:]
    return "; ".join(reason).removeprefix("error:").strip() or f"exit code {code}"


def base_name(base: str) -> str:
    """The base's name, from its folder."""
    return EMBEDDED if base.endswith("demo/base") else base.rstrip("/").rpartition("/")[2]


def attached(pictures: Sequence[str]) -> Content:
    """The text beside the image that goes with the next questions."""
    names = ", ".join(Path(p).name for p in pictures)
    how = "\nasked with the next questions · ^o changes it · Backspace here drops it"
    return Content.assemble((names, "bold"), (how, "$foreground 50%"))
