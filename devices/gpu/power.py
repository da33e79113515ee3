"""Energy of kernels, and the clock that falls so that a board stays within its power."""

from __future__ import annotations

from math import isfinite

import numpy as np

from hwsim.card import Card
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.traffic import Demand, Ports


class Power:
    """The energies of one card. ``sustained``: kernels follow each other until power and clocks have settled."""

    def __init__(self, card: Card, chip: Chip, sustained: bool) -> None:
        ports = Ports(card)
        self._cache = ports.joules(chip.cache.name, Demand(read=1.0))
        self._read = ports.joules(chip.main.name, Demand(read=1.0))
        self._write = ports.joules(chip.main.name, Demand(write=1.0))
        self._chip = chip
        self._spare = card.limit - card.static_power if sustained and isfinite(card.limit) else np.inf

    def joules(self, load: Load, timing: Timing, cached: Array, served: Array) -> Array:
        """Dynamic energy in J: every operation that is done, padding included, and every byte of each level."""
        arithmetic = (
            load.matmul * timing.padding * load.matmul_joules * self._chip["matmul_energy"]
            + load.vector * load.vector_joules
            + load.special * load.special_joules
        )
        main = (served - load.main_write) * self._read + load.main_write * self._write
        return arithmetic + cached * self._cache * self._chip["cache_energy"] + main * self._chip["main_energy"]

    def limited(self, seconds: Array, joules: Array) -> Array:
        """Time in s with dynamic and static power within the limit: at it, the clock falls until they are."""
        return np.maximum(seconds, joules / self._spare)
