"""Gates for pipelines: ``k_r=0.95`` is a share of the base's figure, ``k_a=20`` an absolute one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kore.errors import GateNotMet, UsageError
from kore.evaluate.runner import BASE

SHARES = ("k_r", "k_r_near", "k_r_dims")
ABSOLUTE = ("k_a", "avg", "hars", "cem", "f1")


def parse_gates(texts: Iterable[str], suites: Iterable[str] = ()) -> dict[str, float]:
    """``NAME=NUMBER`` each; a suite's name is a share of the base's figure.

    Raises:
        UsageError: not of that form, or an unknown name.
    """
    known = (*SHARES, *ABSOLUTE, *suites)
    gates = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in known:
            raise UsageError(f"--fail-under knows {', '.join(known)}, not {name!r}")
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
    """Raise GateNotMet, naming every figure below its bar; a figure that was not scored is below it."""
    rows = {row["method"]: row for row in summary["table"]}
    base = rows.get(BASE)
    failed = []
    for label, row in rows.items():
        if label == BASE and len(rows) > 1:
            continue
        for name, bar in gates.items():
            value = _value(name, row, base)
            if value is None:
                failed.append(f"{label}: {name} was not scored")
            elif value < bar:
                failed.append(f"{label}: {name} is {value:.3f}, below {bar:g}")
    if failed:
        raise GateNotMet("; ".join(failed))


def _value(name: str, row: Mapping[str, Any], base: Mapping[str, Any] | None) -> float | None:
    if name in ABSOLUTE:
        value = row.get(name)
        return None if value is None else float(value)
    own, other = (_figure(name, r) if r else None for r in (row, base))
    return own / other if own is not None and other else None


def _figure(name: str, row: Mapping[str, Any]) -> float | None:
    value = row.get(name) if name in SHARES else row["per_suite"].get(name)
    return None if value is None else float(value)
