"""Energy of kernels, and the clock that falls so that a board stays within its power."""

from __future__ import annotations

from math import isfinite

import numpy as np

from hwsim.card import Card
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.rates import FMA_FLOPS
from hwsim.devices.traffic import Demand, Ports


class Power:
    """The energies and the power limit of one card."""

    def __init__(self, card: Card, chip: Chip) -> None:
        ports = Ports(card)
        self._cache = ports.joules(chip.cache.name, Demand(read=1.0))
        self._read = ports.joules(chip.main.name, Demand(read=1.0))
        self._write = ports.joules(chip.main.name, Demand(write=1.0))
        self._chip = chip
        self._spare = card.limit - card.static_power if isfinite(card.limit) else np.inf

    def joules(self, load: Load, timing: Timing, served: Array) -> Array:
        """Dynamic energy in J: matrix and special work, instructions of the lanes (each as an FMA), every operand's way
        through the cache once (what tiles read again belongs to matrix work), every byte of main memory."""
        arithmetic = (
            load.matmul * timing.padding * load.matmul_joules * self._chip["matmul_energy"]
            + self._chip["lane_energy"]
            * timing.busy.get("vector", 0.0)
            * load.vector_rate
            * FMA_FLOPS
            * load.vector_joules
            + load.special * load.special_joules
        )
        main = (served - load.main_write) * self._read + load.main_write * self._write
        return (
            arithmetic
            + (load.read + load.write) * self._cache * self._chip["cache_energy"]
            + main * self._chip["main_energy"]
        )

    def limited(self, seconds: Array, joules: Array) -> tuple[Array, Array]:
        """Time and dynamic energy of kernels that follow each other until power and clocks have settled.

        At the limit the clock falls to the share f at which static and dynamic power fit under it. Dynamic power goes
        with f x V^2, and the voltage with f: f^3 = spare / demanded, energy goes with f^2 (Horowitz, ISSCC 2014).
        """
        stretch = np.cbrt(np.maximum(1.0, joules / (seconds * self._spare)))
        return seconds * stretch, joules / stretch**2
