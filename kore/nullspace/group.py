"""Stretches of decoder layers that are run together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Consecutive layers; the inputs of `summed` are summed, the others are only run through."""

    layers: list[int]
    summed: list[int]

    @staticmethod
    def split(pending: list[int], at_once: int) -> list[Group]:
        """Cover layers 0 to the last pending one, at most `at_once` pending layers in each group."""
        groups, begin = [], 0
        for index in range(0, len(pending), at_once):
            summed = pending[index : index + at_once]
            groups.append(Group(list(range(begin, summed[-1] + 1)), summed))
            begin = summed[-1] + 1
        return groups
