"""Gates for pipelines: ``k_r=0.95`` is a share of the base's figure, ``k_a=20`` an absolute one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kore.errors import GateNotMet, UsageError
from kore.evaluation.runner import BASE

SHARES = ("k_r", "k_r_near", "k_r_dims")
ABSOLUTE = ("k_a", "avg", "hars", "cem", "f1")


def parse_gates(texts: Iterable[str], suites: Iterable[str] = ()) -> dict[str, float]:
    """``NAME=NUMBER`` each; a suite's name is a share of the base's figure.

    Raises:
        UsageError: not of that form, or an unknown name.
    """
    names = (*SHARES, *ABSOLUTE, *suites)
    gates = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in names:
            raise UsageError(f"--fail-under: {name!r} is not one of {', '.join(names)}")
        try:
            gates[name] = float(number)
        except ValueError as error:
            raise UsageError(
                f"--fail-under {text}: not a number", hint="e.g. --fail-under k_r=0.95"
            ) from error
        if name not in ABSOLUTE and not 0 <= gates[name] <= 2:
            raise UsageError(
                f"--fail-under {text}: a share of the base's figure", hint="e.g. --fail-under k_r=0.95"
            )
    return gates


def check_gates(summary: Mapping[str, Any], gates: Mapping[str, float]) -> None:
    """Raise GateNotMet, naming every figure below its bar; a figure that was not scored counts as below."""
    rows = {row["method"]: row for row in summary["table"]}
    base = rows.get(BASE)
    failed = []
    for label, row in rows.items():
        if label == BASE and len(rows) > 1:
            continue
        for name, bar in gates.items():
            failed += _failure(label, name, bar, row, base)
    if failed:
        raise GateNotMet("; ".join(failed))


def _failure(
    label: str, name: str, bar: float, row: Mapping[str, Any], base: Mapping[str, Any] | None
) -> list[str]:
    value = _figure(name, row)
    if value is None:
        return [f"{label}: {name} was not scored"]
    if name not in ABSOLUTE:
        other = None if base is None else _figure(name, base)
        if not other:
            value_of_base = "missing" if other is None else "0"
            return [f"{label}: the base's {name} is {value_of_base}, so there is no share of it"]
        value /= other
    return [] if value >= bar else [f"{label}: {name} is {value:.3f}, below {bar:g}"]


def _figure(name: str, row: Mapping[str, Any]) -> float | None:
    value = row.get(name) if name in (*SHARES, *ABSOLUTE) else row["per_suite"].get(name)
    return None if value is None else float(value)
