"""GPUs, processor and memory in words and blocks."""

from __future__ import annotations

from textual.content import Content

from kore.telemetry import Device, Telemetry, gib
from kore_cli.widgets.formatting import fit, spark

Readings = tuple[tuple[float, Telemetry], ...]


def machine(readings: Readings, width: int, height: int) -> Content:
    """The machine now and over the last minute, in lines of `width` columns.

    Each device has a line each for use, memory, power and temperature where `height` lines suffice for
    all devices; otherwise two lines, with power and temperature beside its name.
    """
    if not readings:
        return Content.styled("no readings", "$foreground 45%")
    last = readings[-1][1]
    rows: list[Content] = []
    if last.why and not last.devices:
        rows.append(Content.styled(last.why, "$foreground 60%"))
    host = _host(last, readings, width)
    roomy = len(last.devices) * 5 + len(host) <= height
    for device in last.devices:
        rows += (_device if roomy else _short_device)(device, readings, width)
    return Content("\n").join(rows + host)


def _name(device: Device) -> str:
    return f"{device.index} {device.name.removeprefix('NVIDIA ').removeprefix('GeForce ')}"


def _device(device: Device, readings: Readings, width: int) -> list[Content]:
    def history(name: str) -> list[float | None]:
        return [_of(reading, device.index, name) for _, reading in readings]

    room = width - 15
    used, total = gib(device.mem_used), gib(device.mem_total)
    memory = "-" if used is None or not total else f"{used:.0f}/{total:.0f} GiB"
    power = [p for p in history("power_w") if p is not None]
    lines = (
        ("use", history("util"), 100.0, _unit(device.util, "%"), "$primary"),
        ("mem", history("mem_used"), device.mem_total, memory, "$secondary"),
        (
            "pow",
            history("power_w"),
            1.1 * max(power, default=1.0),
            _unit(device.power_w, " W"),
            "$accent 70%",
        ),
        ("temp", history("temp_c"), 100.0, _unit(device.temp_c, "°C"), _heat(device.temp_c)),
    )
    rows = [Content.styled(fit(_name(device), width), "bold")]
    return rows + [
        _row(label, spark(values, room, 0, high), value, width, tone)
        for label, values, high, value, tone in lines
    ]


def _unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f}{unit}"


def _short_device(device: Device, readings: Readings, width: int) -> list[Content]:
    extras = [_unit(v, unit) for v, unit in ((device.power_w, "W"), (device.temp_c, "°C")) if v is not None]
    tail = " ".join(extras)
    head = fit(_name(device), max(4, width - len(tail) - 1))
    rows = [
        Content.assemble(
            (head, "bold"), " " * max(1, width - len(head) - len(tail)), (tail, _heat(device.temp_c))
        )
    ]
    busy = [_of(reading, device.index, "util") for _, reading in readings]
    used, total = gib(device.mem_used), gib(device.mem_total)
    memory = "" if used is None or not total else f" {used:.0f}/{total:.0f} GiB"
    value = f"{_unit(device.util, '%')}{memory}"
    return [*rows, _row("use", spark(busy, width - 7 - len(value), 0, 100), value, width)]


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
        rows.append(_row("cpu", spark(busy, width - 15, 0, 100), f"{last.cpu_percent:.0f}%", width))
    if last.rss is not None:
        rows.append(_row("ram", "", f"{gib(last.rss):.1f} GiB", width))
    return rows


def _row(label: str, blocks: str, value: str, width: int, tone: str = "$primary") -> Content:
    gap = max(1, width - 5 - len(blocks) - len(value))
    return Content.assemble((f"{label:<5}", "$foreground 55%"), (blocks, tone), " " * gap, (value, "bold"))


def compact_machine(readings: Readings, width: int) -> list[Content]:
    """One line per GPU, or one with the reason why there is none."""
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
