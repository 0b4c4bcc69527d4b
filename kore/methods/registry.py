"""All training methods by name, loaded on use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from kore.errors import ProfileError
from kore.methods.base import Method

METHODS = {
    "kore": "kore.methods.kore:Kore",
    "lora": "kore.methods.lora:Lora",
    "full": "kore.methods.full:Full",
    "replay": "kore.methods.replay:Replay",
    "ewc": "kore.methods.ewc:Ewc",
    "lwf": "kore.methods.lwf:Lwf",
    "moelora": "kore.methods.moelora:MoeLora",
    "olora": "kore.methods.olora:OLora",
    "sefe": "kore.methods.sefe:Sefe",
    "cia": "kore.methods.cia:Cia",
}


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        ProfileError: no such method; names the nearest.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise ProfileError(
            f"no such method: {name}{guess}", where="train.method", hint="one of " + ", ".join(METHODS)
        )
    module, _, attribute = METHODS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, type) and issubclass(found, Method)
    return found


def make_method(
    name: str, values: Mapping[str, Any] | None = None, *, thaw_a: bool = False, constraint: bool = True
) -> Method:
    """A method with its settings; the ablations belong to kore alone.

    Raises:
        ProfileError: unknown method or setting, or an ablation of a method that has none.
    """
    found = method_class(name)
    if name == "kore":
        return found(values, thaw_a=thaw_a, constraint=constraint)  # type: ignore[call-arg]
    if thaw_a or not constraint:
        raise ProfileError(f"{name} has no frozen A to ablate", where="train.thaw_a, train.constraint")
    return found(values)
