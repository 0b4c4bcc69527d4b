"""What the machine is doing: GPUs through NVML, processor and memory through psutil.

Used by training (which writes it as ``gpu`` events) and by the dashboard when it runs on the same
host. A machine without a usable GPU is an answer with one line of explanation, never an error.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

_MIB = 1 << 20


@dataclass(frozen=True)
class Device:
    """One GPU at one moment; None where the driver does not tell (MIG slices, old boards).

    Attributes:
        util: busy share in percent. mem_used, mem_total: bytes. power_w: watts. temp_c: Celsius.
    """

    index: int
    name: str
    util: float | None = None
    mem_used: int | None = None
    mem_total: int | None = None
    power_w: float | None = None
    temp_c: float | None = None


@dataclass(frozen=True)
class Telemetry:
    """One reading of the machine.

    Attributes:
        cpu_percent: of all cores together, since the reading before; None at the first.
        rss: bytes held by the process.
        why: one line that says why there are no devices.
    """

    devices: tuple[Device, ...] = ()
    cpu_percent: float | None = None
    rss: int | None = None
    why: str | None = None

    def values(self) -> dict[str, Any]:
        """The fields of a ``gpu`` event."""
        fields = {
            "devices": [asdict(d) for d in self.devices],
            "cpu_percent": self.cpu_percent,
            "rss": self.rss,
        }
        return {**fields, "why": self.why} if self.why else fields

    @classmethod
    def read(cls, event: dict[str, Any]) -> Self:
        """From the fields of a ``gpu`` event; what it does not know is left out."""
        known = Device.__dataclass_fields__.keys()
        devices = []
        for position, raw in enumerate(event.get("devices") or ()):
            if isinstance(raw, dict):
                fields = {"index": position, "name": "GPU", **{k: v for k, v in raw.items() if k in known}}
                devices.append(Device(**fields))
        return cls(tuple(devices), event.get("cpu_percent"), event.get("rss"), event.get("why"))


class Probe(Protocol):
    """Anything that can be asked how the machine is."""

    def sample(self) -> Telemetry:
        """Read the machine now."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class Monitor:
    """The machine this process runs on; the driver is called when it is first asked.

    Args:
        pid: whose memory to report; this process if not given.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid or os.getpid()
        self._nvml: Any = None
        self._why: str | None = None
        self._asked = False
        self._process: Any = None
        self._counting = False

    def _open(self) -> str | None:
        """Start NVML; returns why it could not be, in words."""
        try:
            import pynvml
        except ImportError:
            return "no GPU readings: nvidia-ml-py is not installed (pip install 'kore-inject[gpu]')"
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            return _explain(type(error).__name__, str(error))
        if not count:
            pynvml.nvmlShutdown()
            return "no GPU: the driver sees none (in a container, is it passed through?)"
        self._nvml = pynvml
        return None

    def sample(self) -> Telemetry:
        """Read the machine now; a device that stops answering keeps its name and loses its numbers."""
        devices: tuple[Device, ...] = ()
        if not self._asked:
            self._why, self._asked = self._open(), True
        why = self._why
        if self._nvml is not None:
            try:
                devices = tuple(self._device(i) for i in range(self._nvml.nvmlDeviceGetCount()))
            except self._nvml.NVMLError as error:
                why = _explain(type(error).__name__, str(error))
        cpu, rss = self._host()
        return Telemetry(devices, cpu, rss, why)

    def _device(self, index: int) -> Device:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)

        def ask(name: str, *args: Any) -> Any:
            try:
                return getattr(nvml, name)(handle, *args)
            except nvml.NVMLError:
                return None

        name = ask("nvmlDeviceGetName") or "GPU"
        use, memory = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetMemoryInfo")
        power = ask("nvmlDeviceGetPowerUsage")
        return Device(
            index=index,
            name=name.decode() if isinstance(name, bytes) else str(name),
            util=float(use.gpu) if use is not None else None,
            mem_used=int(memory.used) if memory is not None else None,
            mem_total=int(memory.total) if memory is not None else None,
            power_w=power / 1000 if power is not None else None,
            temp_c=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        )

    def _host(self) -> tuple[float | None, int | None]:
        try:
            import psutil
        except ImportError:
            return None, None
        busy = psutil.cpu_percent(None)
        cpu, self._counting = busy if self._counting else None, True
        try:
            self._process = self._process or psutil.Process(self._pid)
            return cpu, self._process.memory_info().rss
        except psutil.Error:
            self._process = None
            return cpu, None

    def close(self) -> None:
        """Let go of the driver."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None


def _explain(kind: str, text: str) -> str:
    reasons = {
        "NVMLError_LibraryNotFound": "no GPU: the NVIDIA driver is not installed here",
        "NVMLError_DriverNotLoaded": "no GPU: the NVIDIA driver is not loaded",
        "NVMLError_LibRmVersionMismatch": "no GPU readings: driver and library versions differ (reboot)",
        "NVMLError_NoPermission": "no GPU readings: not permitted for this user",
        "NVMLError_GpuIsLost": "a GPU has fallen off the bus (see dmesg)",
    }
    return reasons.get(kind, f"no GPU readings: {text}")


def gib(value: int | None) -> float | None:
    """Bytes as GiB."""
    return None if value is None else value / _MIB / 1024
