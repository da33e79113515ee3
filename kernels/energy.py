"""Energy counters: of an NVIDIA GPU through NVML (libnvidia-ml) with ctypes, of a CPU through Linux's powercap.

Reading only: nothing here sets a clock, a limit or a mode. Units: joules, watts, MHz as NVML reports clocks.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

_LIBRARY = "libnvidia-ml.so.1"
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0
_TEXT_BYTES = 96


class NvmlError(RuntimeError):
    """NVML is missing or refused a query."""


@dataclass(frozen=True, slots=True)
class GpuState:
    """What the card says about itself: clocks in MHz, power in watts, temperature in degrees Celsius."""

    driver: str
    sm_mhz: int
    sm_max_mhz: int
    memory_mhz: int
    memory_max_mhz: int
    power_w: float
    power_limit_w: float
    temperature_c: int

    def __str__(self) -> str:
        return (
            f"SM {self.sm_mhz} MHz (max {self.sm_max_mhz}), "
            f"memory {self.memory_mhz} MHz (max {self.memory_max_mhz}), "
            f"{self.power_w:.1f} W of {self.power_limit_w:.0f} W, {self.temperature_c} C"
        )


class GpuMonitor:
    """One GPU as NVML sees it, found by its UUID so that CUDA_VISIBLE_DEVICES cannot mislead it."""

    def __init__(self, uuid: str) -> None:
        try:
            self._nvml = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NvmlError(f"{_LIBRARY}: {error}") from error
        self._check("nvmlInit_v2")
        self._gpu = ctypes.c_void_p()
        self._check("nvmlDeviceGetHandleByUUID", f"GPU-{uuid}".encode(), ctypes.byref(self._gpu))

    def joules(self) -> float:
        """Energy since the driver was loaded; NVML counts millijoules and refreshes them now and then."""
        millijoules = ctypes.c_ulonglong()
        self._check("nvmlDeviceGetTotalEnergyConsumption", self._gpu, ctypes.byref(millijoules))
        return millijoules.value * 1e-3

    def state(self) -> GpuState:
        """Clocks, power and temperature at this moment."""
        driver = ctypes.create_string_buffer(_TEXT_BYTES)
        self._check("nvmlSystemGetDriverVersion", driver, ctypes.c_uint(_TEXT_BYTES))
        return GpuState(
            driver=driver.value.decode(),
            sm_mhz=self._number("nvmlDeviceGetClockInfo", _CLOCK_SM),
            sm_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", _CLOCK_SM),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", _CLOCK_MEMORY),
            memory_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", _CLOCK_MEMORY),
            power_w=self._number("nvmlDeviceGetPowerUsage") * 1e-3,
            power_limit_w=self._number("nvmlDeviceGetEnforcedPowerLimit") * 1e-3,
            temperature_c=self._number("nvmlDeviceGetTemperature", _TEMPERATURE_GPU),
        )

    def _number(self, query: str, *selector: int) -> int:
        value = ctypes.c_uint()
        self._check(query, self._gpu, *map(ctypes.c_uint, selector), ctypes.byref(value))
        return value.value

    def _check(self, function: str, *arguments: object) -> None:
        code = getattr(self._nvml, function)(*arguments)
        if code != 0:
            raise NvmlError(f"{function} returned NVML error {code}")


class RaplCounter:
    """Energy of all CPU packages as RAPL counts it (running average power limit, in Linux's powercap folder)."""

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        zones = sorted(path for path in root.glob("*-rapl:*") if path.name.count(":") == 1)  # packages, not their parts
        self._zones = [(zone / "energy_uj", _count(zone / "max_energy_range_uj")) for zone in zones]
        if not self._zones:
            raise OSError(f"{root}: no RAPL package")
        self._last = [_count(counter) for counter, _ in self._zones]
        self._microjoules = 0

    def joules(self) -> float:
        """Energy since this object was made; a counter may wrap around once between two calls."""
        for index, (counter, span) in enumerate(self._zones):
            now = _count(counter)
            self._microjoules += (now - self._last[index]) % (span + 1)
            self._last[index] = now
        return self._microjoules * 1e-6


def _count(path: Path) -> int:
    return int(path.read_text())
