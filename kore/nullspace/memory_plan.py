"""What a calibration will take, before it starts: bytes of covariances, hidden states and weights."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import UsageError
from kore.nullspace.accumulator import STRIPE, values_held

if TYPE_CHECKING:
    import torch

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}


def parse_bytes(text: str) -> int:
    """Bytes of ``8GiB``, ``500MB``, ``1073741824``.

    Raises:
        UsageError: not a size.
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?i?)b?\s*", text.lower())
    units = {**_UNITS, **_BINARY}
    if not match or match[2] not in units:
        raise UsageError(f"memory: {text!r} is not a size", hint="for example --memory 8GiB")
    try:
        return int(float(match[1]) * units[match[2]])
    except ValueError as error:
        raise UsageError(f"memory: {text!r} is not a size", hint="for example --memory 8GiB") from error


def human(size: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


@dataclass(frozen=True)
class Plan:
    """What a calibration takes.

    Attributes:
        layers: decoder layers that get covariances.
        at_once: decoder layers whose sums are held together.
        covariance_layer: bytes of one layer's running sums and their scratch.
        hidden: bytes of the hidden states and layer arguments of all batches; 0 when one group of
            layers holds all, so that nothing is kept.
        hidden_on: memory or disk.
        weights: bytes of model weights in memory at the peak.
        disk: bytes of the finished folder.
        memory: bytes held beside the weights at the peak.
    """

    layers: int
    at_once: int
    samples: int
    tokens: int
    covariance_layer: int
    hidden: int
    hidden_on: str
    weights: int
    disk: int
    memory: int

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        kept = f"{human(self.hidden)} on {self.hidden_on}" if self.hidden else "none kept"
        return [
            f"{self.samples} samples, {self.tokens:,} tokens; {self.layers} layers, {self.at_once} at a time",
            f"sums {human(self.covariance_layer * self.at_once)}, hidden states {kept}, "
            f"weights {human(self.weights)}, result {human(self.disk)} on disk",
        ]


def make_plan(
    *,
    widths: Sequence[Sequence[int]],
    samples: int,
    tokens: int,
    hidden: int,
    extra: int,
    weights: int,
    budget: int,
    item: int = 8,
    one_by_one: bool = False,
) -> Plan:
    """Choose how many layers to hold and where the hidden states go.

    Args:
        widths: d_in of each site, layer by layer.
        hidden: bytes of all hidden states; `extra`: of the layers' other arguments.
        weights: bytes of weights that are in memory.
        budget: bytes for sums, hidden states and arguments together.
        item: bytes per value of the running sum.
        one_by_one: weights come from disk layer by layer, so holding more layers' sums gains nothing
            and hidden states are kept between any two.

    Raises:
        UsageError: the sums of a single layer do not fit the budget.
    """
    layers = len(widths)
    sums = max(sum(values_held(d) for d in each) for each in widths) * item
    scratch = max(min(STRIPE, d) * d for each in widths for d in each) * 4  # one product in single precision
    if sums + scratch > budget:
        raise UsageError(
            f"memory: one decoder layer's sums take {human(sums + scratch)}, the budget is {human(budget)}",
            hint=f"give at least --memory {-(-(sums + scratch) // 2**20)}MiB",
        )
    disk = sum(d * (d + 1) // 2 for each in widths for d in each) * item
    everything = layers * sums + scratch
    if everything <= budget and not one_by_one:
        return Plan(layers, layers, samples, tokens, sums, 0, "memory", weights, disk, everything)
    in_memory = sums + scratch + hidden + extra <= budget
    room = budget - scratch - extra - (hidden if in_memory else 0)
    at_once = 1 if one_by_one else max(1, min(layers, room // sums))
    held = at_once * sums + scratch + extra + (hidden if in_memory else 0)
    where = "memory" if in_memory else "disk"
    return Plan(layers, at_once, samples, tokens, sums, hidden + extra, where, weights, disk, held)


def check_room(
    plan: Plan,
    out: Path,
    *,
    weights: int = 0,
    written: int = 0,
    processes: int = 1,
    device: torch.device | None = None,
) -> None:
    """Refuse before starting what could not finish.

    Args:
        weights: bytes of weights that are still to be read.
        written: bytes of the result that are on disk already.
        processes: how many on this machine need as much memory each.
        device: where sums, hidden states and weights lie; each process has a GPU of its own.

    Raises:
        UsageError: not enough free memory or disk, with the figures.
    """
    on_gpu = device is not None and device.type == "cuda"
    kind, together = ("GPU memory", 1) if on_gpu else ("memory", processes)
    free, needed = _free(device), together * (plan.memory + weights)
    if needed > free:
        what = f"{human(together * plan.memory)} of {kind} beside the weights"
        if weights:
            what = f"{human(needed)} of {kind}, {human(together * weights)} of it for weights"
        raise UsageError(
            f"needs {what}, {human(free)} are free",
            hint="give a smaller --memory, fewer samples, or fewer --layers",
        )
    parent = out
    while not parent.exists():
        parent = parent.parent
    kept = processes * plan.hidden if plan.hidden_on == "disk" else 0
    space = shutil.disk_usage(parent).free
    if max(plan.disk - written, 0) + kept > space:
        raise UsageError(
            f"needs {human(plan.disk - written + kept)} of disk, {human(space)} are free at {parent}",
            hint="choose another place with -o",
        )


def _free(device: torch.device | None) -> int:
    """Bytes that are free where the sums are held."""
    if device is None or device.type != "cuda":
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    torch.cuda.empty_cache()  # what planning let go of counts as free
    return int(torch.cuda.mem_get_info(device)[0])
