"""An NVIDIA GPU's clocks, temperature, power and throttle reasons, through NVML."""

from __future__ import annotations

from typing import Any

REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "too hot (driver)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
"""Bits of `nvmlClocksEventReasons` that mean slower than asked for; idle is none of them."""


class NvmlSource:
    """One GPU.

    Args:
        nvml: the module `pynvml` of nvidia-ml-py, initialised.
        index: which GPU.
    """

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self._nvml = nvml
        self._gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        # Drivers before 535 know the older name alone.
        self._reasons = getattr(
            nvml,
            "nvmlDeviceGetCurrentClocksEventReasons",
            getattr(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None),
        )

    @classmethod
    def open(cls) -> NvmlSource | None:
        """The first GPU; None without the package, a driver or a GPU."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            return cls(pynvml)
        except pynvml.NVMLError:
            return None

    def facts(self) -> dict[str, str]:
        """Name and driver."""
        name = self._ask(self._nvml.nvmlDeviceGetName, self._gpu)
        driver = self._ask(self._nvml.nvmlSystemGetDriverVersion)
        return {"gpu": _text(name), "gpu_driver": _text(driver)}

    def values(self) -> dict[str, float]:
        """Clocks, temperature and board power, as far as this GPU tells them."""
        nvml, gpu = self._nvml, self._gpu
        asked = {
            "gpu_mhz": self._ask(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_SM),
            "memory_mhz": self._ask(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_MEM),
            "hottest_c": self._ask(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU),
            "power_w": self._ask(nvml.nvmlDeviceGetPowerUsage, gpu),
        }
        told = {name: float(value) for name, value in asked.items() if value is not None}
        if "power_w" in told:
            told["power_w"] /= 1e3
        return told

    def joules(self) -> float | None:
        """Energy since the driver was loaded; None where this GPU (before Volta) does not count."""
        used = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._gpu)
        return None if used is None else float(used) / 1e3

    def throttled(self) -> list[str]:
        """The throttle reasons that hold now."""
        bits = 0 if self._reasons is None else self._ask(self._reasons, self._gpu) or 0
        return [f"GPU: {words}" for bit, words in REASONS.items() if bits & bit]

    def _ask(self, function: Any, *args: Any) -> Any:
        """None where this GPU does not support the question."""
        try:
            return function(*args)
        except self._nvml.NVMLError:
            return None


def _text(value: Any) -> str:
    if value is None:
        return "not readable"
    return value.decode() if isinstance(value, bytes) else str(value)
