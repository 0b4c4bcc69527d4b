"""Which decoder layers a setting means: all, 0-3, 0,5,7."""

from __future__ import annotations

from kore.errors import UsageError

AUTO = "auto"


def parse_layers(text: str, total: int, owner: str = "the model") -> list[int]:
    """Read a choice of layers.

    Args:
        text: ``all``, a range ``0-3`` (both ends included), or a comma list of numbers and ranges.
        total: how many decoder layers there are.
        owner: whose they are, for the message.

    Raises:
        UsageError: not such a choice, or beyond the owner's layers.
    """
    if text == "all":
        return list(range(total))
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not is_number(first) or (dash and not is_number(last)):
            raise UsageError(
                f"layers: {text!r} is not all, a range or a list", hint="for example --layers 0-3"
            )
        start, end = int(first), int(last or first)
        if end < start:
            raise UsageError(f"layers: {text}: {end} comes before {start}", hint=f"--layers {end}-{start}")
        if end >= total:
            raise UsageError(f"layers: {text} asks for layer {end}, {owner} has 0-{total - 1}")
        chosen.update(range(start, end + 1))
    return sorted(chosen)


def is_number(text: str) -> bool:
    """Whether `text` is a whole number in plain digits, which ``²`` and ``٣`` are not."""
    return text.isascii() and text.isdecimal()


def parse_share(text: str) -> float | None:
    """The share of ``auto[:SHARE]``, a half if not given; None when `text` is no such choice.

    Raises:
        UsageError: a share that is not above 0 and at most 1.
    """
    name, _, share = text.partition(":")
    if name != AUTO:
        return None
    try:
        value = float(share) if share else 0.5
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UsageError(
            f"layers: {text!r}: the share lies above 0 and at most at 1", hint="--layers auto:0.5"
        )
    return value
