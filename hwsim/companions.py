"""Kernels that are timed together with others, launched along with them: the seconds and joules are those of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hwsim.calibration import Constant
from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Device, Tags, estimate_all
from hwsim.fitting import Calibratable
from hwsim.mapper import Kernel

Array = npt.NDArray[np.float64]

BESIDE = "beside"
"""The attribute of a kernel that tells the bytes of others in the same replay, which share its caches."""


def together(kernel: Kernel, companions: Sequence[Kernel]) -> tuple[Kernel, tuple[Kernel, ...]]:
    """``kernel`` and its companions, each knowing how many bytes the others keep in the caches of a replay.

    What a companion writes is an operand of the kernel, or the other way round: only what it reads comes on top.
    """
    if not companions:
        return kernel, ()
    total = kernel.nbytes + sum(companion.read_bytes for companion in companions)

    def aware(one: Kernel) -> Kernel:
        return replace(one, attrs={**one.attrs, BESIDE: max(0, int(total - one.nbytes))})

    return aware(kernel), tuple(map(aware, companions))


class Accompanied:
    """A device that takes, for each of a list of kernels, the time and energy of its companions as well."""

    parameters: ClassVar[Mapping[str, str]] = {}
    tags: ClassVar[Tags] = Tags()

    def __init__(self, device: Device, companions: Sequence[Sequence[Kernel]]) -> None:
        self.device = device
        self.card: Card = device.card
        self._others = [other for others in companions for other in others]
        self._owners = np.repeat(np.arange(len(companions)), [len(others) for others in companions])

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` without companions."""
        return self.device.estimate(kernel)

    def estimate_all(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """The costs of ``kernels``, the companions of each included."""
        costs = estimate_all(self.device, [*kernels, *self._others])
        for owner, other in zip(self._owners.tolist(), costs[len(kernels) :], strict=True):
            costs[owner] += other
        return costs[: len(kernels)]

    def host_seconds(self, kernel: Kernel) -> float:
        """The host's time to issue ``kernel``."""
        return self.device.host_seconds(kernel)


class AccompaniedCalibratable(Accompanied):
    """The same for a device whose constants are being fitted."""

    def __init__(self, device: Calibratable, companions: Sequence[Sequence[Kernel]]) -> None:
        super().__init__(device, companions)
        self._fitted, self._companions = device, companions

    @property
    def constants(self) -> Mapping[str, Constant]:
        """The constants of the device."""
        return self._fitted.constants

    def with_constants(self, values: Mapping[str, float]) -> AccompaniedCalibratable:
        """The same kernels on the device with other values of some constants."""
        return AccompaniedCalibratable(self._fitted.with_constants(values), self._companions)

    def batches(self, kernels: Sequence[Kernel]) -> Any:
        """``kernels`` and their companions made ready."""
        return self._fitted.batches([*kernels, *self._others])

    def seconds(self, batches: Any) -> Array:
        """Seconds of every kernel with its companions."""
        return self._sum(self._fitted.seconds(batches))

    def joules(self, batches: Any, seconds: Array | None = None) -> Array:
        """Joules of every kernel with its companions."""
        return self._sum(self._fitted.joules(batches, seconds))

    def _sum(self, values: Array) -> Array:
        alone = len(values) - len(self._others)
        added: Array = values[:alone] + np.bincount(self._owners, values[alone:], alone)
        return added


def accompanied(device: Device, companions: Sequence[Sequence[Kernel]]) -> Device:
    """``device`` as it runs kernels that have these companions; itself where none has any."""
    if not any(companions):
        return device
    if isinstance(device, Calibratable):
        return AccompaniedCalibratable(device, companions)
    return Accompanied(device, companions)
