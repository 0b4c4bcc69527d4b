"""GPUs, processor and memory in words and blocks."""

from __future__ import annotations

from textual.content import Content

from kore.telemetry import Device, Telemetry, gib
from kore_cli.glyphs import bar, fit, spark

Readings = tuple[tuple[float, Telemetry], ...]


def machine(readings: Readings, width: int) -> Content:
    """The machine now and over the last minute, some lines of `width` columns."""
    if not readings:
        return Content.styled("no readings", "$foreground 45%")
    last = readings[-1][1]
    rows: list[Content] = []
    if last.why and not last.devices:
        rows.append(Content.styled(last.why, "$foreground 60%"))
    for device in last.devices:
        rows += _device(device, readings, width)
    rows += _host(last, readings, width)
    return Content("\n").join(rows)


def _device(device: Device, readings: Readings, width: int) -> list[Content]:
    name = device.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    extras = []
    if device.power_w is not None:
        extras.append(f"{device.power_w:.0f}W")
    if device.temp_c is not None:
        extras.append(f"{device.temp_c:.0f}°C")
    tail = " ".join(extras)
    head = fit(f"{device.index} {name}", max(4, width - len(tail) - 1))
    rows = [
        Content.assemble(
            (head, "bold"), " " * max(1, width - len(head) - len(tail)), (tail, _heat(device.temp_c))
        )
    ]
    busy = [_of(reading, device.index, "util") for _, reading in readings]
    value = "-" if device.util is None else f"{device.util:.0f}%"
    rows.append(_row("use", spark(busy, width - 11, 0, 100), value, width))
    used, total = gib(device.mem_used), gib(device.mem_total)
    if used is not None and total:
        filled, empty = bar(used / total, max(4, width - 15))
        rows.append(_row("mem", filled, f"{used:.0f}/{total:.0f} GiB", width, empty))
    return rows


def _of(reading: Telemetry, index: int, name: str) -> float | None:
    return next((getattr(d, name) for d in reading.devices if d.index == index), None)


def _heat(celsius: float | None) -> str:
    if celsius is None or celsius < 80:
        return "$foreground 60%"
    return "$warning" if celsius < 88 else "$error"


def _host(last: Telemetry, readings: Readings, width: int) -> list[Content]:
    rows = []
    if last.cpu_percent is not None:
        busy = [r.cpu_percent for _, r in readings]
        rows.append(_row("cpu", spark(busy, width - 11, 0, 100), f"{last.cpu_percent:.0f}%", width))
    if last.rss is not None:
        rows.append(_row("ram", "", f"{gib(last.rss):.1f} GiB", width))
    return rows


def _row(label: str, blocks: str, value: str, width: int, rest: str = "") -> Content:
    gap = max(1, width - 4 - len(blocks) - len(rest) - len(value))
    return Content.assemble(
        (f"{label} ", "$foreground 55%"),
        (blocks, "$primary"),
        (rest, "$foreground 20%"),
        " " * gap,
        (value, "bold"),
    )


def compact_machine(readings: Readings, width: int) -> list[Content]:
    """One line per GPU, or one that says why there is none."""
    if not readings:
        return []
    last = readings[-1][1]
    rows = []
    for device in last.devices[:4]:
        used, total = gib(device.mem_used), gib(device.mem_total)
        memory = f" {used:.0f}/{total:.0f} GiB" if used is not None and total else ""
        value = "-" if device.util is None else f"{device.util:.0f}%"
        busy = [_of(reading, device.index, "util") for _, reading in readings]
        text = f"{value}{memory}"
        rows.append(
            Content.assemble(
                (f"gpu {device.index:<2}", "$foreground 55%"),
                (f"{text:<8}", "bold"),
                " ",
                (spark(busy, max(0, width - 8 - max(8, len(text))), 0, 100), "$primary"),
            )
        )
    if not last.devices:
        if last.why:
            rows.append(Content.styled(fit(last.why, width), "$foreground 55%"))
        if last.cpu_percent is not None:
            memory = "" if last.rss is None else f"  {gib(last.rss):.1f} GiB"
            rows.append(
                Content.assemble(("cpu   ", "$foreground 55%"), (f"{last.cpu_percent:.0f}%{memory}", "bold"))
            )
    return rows
