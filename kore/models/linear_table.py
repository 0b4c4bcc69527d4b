"""The table that tells which linears of a model are adapted and which are not, with the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from kore.models.families import Family, language_linears


@dataclass(frozen=True)
class LinearRow:
    """Linears of one kind: a line of the table that tells what is adapted.

    Attributes:
        pattern: their names, with ``*`` for the number of the layer.
        shape: (d_out, d_in), or the shape of a fused parameter.
        skipped: the reason, or nothing where they are adapted.
    """

    pattern: str
    count: int
    shape: tuple[int, ...]
    skipped: str

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return {**self.__dict__, "shape": list(self.shape), "adapted": not self.skipped}


def linear_lines(rows: Sequence[LinearRow]) -> list[str]:
    """The table of linears for people."""
    cells = [(row.pattern, f"{row.count} x", " x ".join(map(str, row.shape))) for row in rows]
    name, count, shape = (max(len(cell[i]) for cell in cells) for i in range(3))
    return [
        f"{a:<{name}}  {b:>{count}}  {c:<{shape}}  {f'skipped: {row.skipped}' if row.skipped else 'adapted'}"
        for (a, b, c), row in zip(cells, rows, strict=True)
    ]


def linear_rows(model: nn.Module, family: Family) -> list[LinearRow]:
    """Every linear of the language model, those alike in one row, the adapted ones first."""
    linears = language_linears(model, family)
    adapted = ((n, (m.out_features, m.in_features), "") for n, m in linears.items())
    others = ((s.name, s.shape, s.reason) for s in family.skipped)
    return [*_rows(adapted), *_rows(others)]


def _rows(linears: Iterable[tuple[str, tuple[int, ...], str]]) -> list[LinearRow]:
    counts = Counter((re.sub(r"\.\d+\.", ".*.", name), shape, reason) for name, shape, reason in linears)
    return [LinearRow(name, count, shape, reason) for (name, shape, reason), count in counts.items()]
