"""What the driver tells of GPUs, and in which words it is said that there are none."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from kore.telemetry import Device, Monitor, Telemetry


class NVMLError(Exception):
    """What the driver raises."""


class NVMLError_DriverNotLoaded(NVMLError):
    """No driver."""


class NVMLError_NotSupported(NVMLError):
    """A board that does not tell."""


class NVMLError_GpuIsLost(NVMLError):
    """A board that has gone."""


class Driver:
    """A driver of `count` boards; calls named in `failing` raise."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, count: int = 1, **failing: NVMLError) -> None:
        self.count, self.failing, self.closed = count, failing, 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            if name in self.failing:
                raise self.failing[name]
            return {
                "nvmlDeviceGetCount": self.count,
                "nvmlDeviceGetHandleByIndex": arguments[0] if arguments else None,
                "nvmlDeviceGetName": b"NVIDIA H200",
                "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=93),
                "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=5 << 30, total=140 << 30),
                "nvmlDeviceGetPowerUsage": 612_500,
                "nvmlDeviceGetTemperature": 63,
            }.get(name)

        if name == "nvmlShutdown":
            self.closed += 1
        return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a driver in place of the machine's."""

    def put(*arguments: Any, **failing: NVMLError) -> Driver:
        made = Driver(*arguments, **failing)
        monkeypatch.setitem(sys.modules, "pynvml", made)
        return made

    return put


def test_each_board_is_told_in_bytes_watts_and_degrees(driver: Any) -> None:
    made = driver(2)
    monitor = Monitor()
    told = monitor.sample()
    assert told.devices == tuple(
        Device(i, "NVIDIA H200", 93.0, 5 << 30, 140 << 30, 612.5, 63) for i in range(2)
    )
    assert told.why is None and Telemetry.read(told.values()) == told
    monitor.close()
    monitor.close()
    assert made.closed == 1


def test_what_a_board_does_not_tell_is_none(driver: Any) -> None:
    names = ("Name", "UtilizationRates", "MemoryInfo", "PowerUsage", "Temperature")
    driver(1, **{f"nvmlDeviceGet{name}": NVMLError_NotSupported() for name in names})
    assert Monitor().sample().devices == (Device(0, "GPU"),)


@pytest.mark.parametrize(
    ("failing", "why"),
    [
        ({"nvmlInit": NVMLError_DriverNotLoaded()}, "no GPU: the NVIDIA driver is not loaded"),
        ({"nvmlInit": NVMLError("strange")}, "no GPU readings: strange"),
        ({"nvmlDeviceGetHandleByIndex": NVMLError_GpuIsLost()}, "a GPU has fallen off the bus (see dmesg)"),
    ],
    ids=["not loaded", "other", "lost"],
)
def test_why_there_are_no_boards_is_said_in_words(
    failing: dict[str, NVMLError], why: str, driver: Any
) -> None:
    driver(1, **failing)
    told = Monitor().sample()
    assert told.why == why and not told.devices


def test_a_driver_without_boards_is_let_go_of(driver: Any) -> None:
    made = driver(0)
    assert "the driver sees none" in str(Monitor().sample().why) and made.closed == 1


def test_how_busy_the_processor_was_is_told_from_the_second_reading_on(driver: Any) -> None:
    driver(0)
    monitor = Monitor()
    first, second = monitor.sample(), monitor.sample()
    assert first.cpu_percent is None and second.cpu_percent is not None and first.rss
