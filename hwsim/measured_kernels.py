"""Rows of measurements as kernels of a device, ready to be predicted all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from hwsim.companions import accompanied, together
from hwsim.device import Device, Replay, estimate_all, timed
from hwsim.errors import HwsimError
from hwsim.kernel_family import kernel_family
from hwsim.kernel_spec import Cache, spec_kernel
from hwsim.mapper import Kernel, Launch
from hwsim.measurements import Measurement

MODEL = "model"  # the op of rows that time a whole model
QUANTITIES = ("seconds", "joules")

Launched: TypeAlias = tuple[Kernel, tuple[Kernel, ...]]


@dataclass(frozen=True, slots=True)
class MeasuredKernels:
    """Kernels of one family, all measured in the same way: cold, or replayed as ``replay`` says.

    Each was timed together with its ``companions``, if any.
    """

    family: str
    replay: Replay | None
    rows: tuple[Measurement, ...]
    kernels: tuple[Kernel, ...]
    companions: tuple[tuple[Kernel, ...], ...]

    @property
    def cache(self) -> Cache:
        """Whether the kernels ran with cold or with warm caches."""
        return Cache.COLD if self.replay is None else Cache.WARM

    def on(self, device: Device) -> Device:
        """``device`` in the state that these kernels were measured in, with their companions."""
        return accompanied(timed(device, self.replay), self.companions)

    def measured(self, quantity: str) -> tuple[float | None, ...]:
        """What was measured of each kernel: seconds, or joules of a warm call."""
        if quantity == "joules":
            return tuple(None if self.replay is None else row.joules_warm for row in self.rows)
        return tuple(row.seconds_cold if self.replay is None else row.seconds_warm for row in self.rows)

    def only(self, places: Iterable[int]) -> MeasuredKernels:
        """The kernels at some places."""
        picked = tuple(places)
        rows, kernels = tuple(self.rows[i] for i in picked), tuple(self.kernels[i] for i in picked)
        return MeasuredKernels(self.family, self.replay, rows, kernels, tuple(self.companions[i] for i in picked))


def measured_kernels(rows: Iterable[Measurement], device: Device) -> list[MeasuredKernels]:
    """The kernels of ``rows`` by family and state.

    Left out: whole models, and kernels that ``device`` cannot run (a number format that it lacks).
    """
    found: dict[tuple[str, Replay | None], list[tuple[Measurement, Kernel, tuple[Kernel, ...]]]] = {}
    for row in rows:
        for replay, launched in _states(row, device):
            found.setdefault((kernel_family(launched[0]), replay), []).append((row, *launched))
    gathered = (
        MeasuredKernels(family, replay, *zip(*measured, strict=True))
        for (family, replay), measured in sorted(found.items(), key=lambda item: str(item[0]))
    )
    able = (_able(kernels, kernels.on(device)) for kernels in gathered)
    return [kernels for kernels in able if kernels.kernels]


def _able(kernels: MeasuredKernels, device: Device) -> MeasuredKernels:
    """Those kernels that ``device`` can estimate."""

    def can(kernel: Kernel) -> bool:
        try:
            device.estimate(kernel)
        except HwsimError:
            return False
        return True

    try:
        estimate_all(device, kernels.kernels)
    except HwsimError:
        return kernels.only(i for i, kernel in enumerate(kernels.kernels) if can(kernel))
    return kernels


def _states(row: Measurement, device: Device) -> Iterator[tuple[Replay | None, Launched]]:
    """The states in which a row was measured, with the kernel and its companions launched accordingly."""
    if row.op == MODEL:
        return
    try:
        if row.seconds_cold is not None:
            yield None, _launched(row, device, Launch.EAGER)
        if row.seconds_warm is not None:
            yield Replay(row.rotation, row.rotates_inputs), _launched(row, device, Launch.GRAPH)
    except HwsimError:
        return


def _launched(row: Measurement, device: Device, launch: Launch) -> Launched:
    companions = [spec_kernel(spec, device, launch) for spec in row.companions]
    return together(spec_kernel(row.spec, device, launch), companions)
