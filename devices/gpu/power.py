"""Energy of kernels, and the clock that falls so that a board stays within its power."""

from __future__ import annotations

from math import isfinite

import numpy as np

from hwsim.card import Card
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.rates import FMA_FLOPS
from hwsim.devices.traffic import Demand, Ports

LOWEST_CLOCK = 0.1  # of the full clock
BISECTIONS = 24


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
        """Dynamic energy in J: arithmetic of matrix units (padding included) and special functions, instructions of the
        lanes (each as an FMA), every byte through the cache, through shared memory to matrix units, of main memory."""
        constants = self._chip.fitted
        matrix = load.matmul * timing.padding
        lanes = np.maximum(timing.issued, load.vector) * FMA_FLOPS * load.vector_joules
        arithmetic = (
            matrix * load.matmul_joules * constants["matmul_energy"]
            + lanes * constants["lane_energy"]
            + load.special * load.special_joules
        )
        read = load.read + timing.cache_again
        staged = np.where(matrix > 0.0, read * timing.fed, 0.0)
        cached = (read + load.write) * constants["cache_energy"] + staged * constants["tile_energy"]
        main = (served - load.main_write) * self._read + load.main_write * self._write
        return arithmetic + cached * self._cache + main * constants["main_energy"]

    def clock(self, stalled: Array, seconds: Array, joules: Array) -> Array:
        """The share f of the full clock at which static and dynamic power fit under the limit.

        At full clocks kernels take ``seconds``, of which main memory, whose clock is its own, keeps them ``stalled``;
        at f they take stalled + (seconds - stalled) / f. Voltage goes with the clock, so energy goes with f^2
        (Horowitz, ISSCC 2014): f solves joules f^2 = spare (stalled + (seconds - stalled) / f), by bisection.
        """
        low, high = np.full_like(joules, LOWEST_CLOCK), np.ones_like(joules)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            over = joules * middle**2 > self._spare * (stalled + (seconds - stalled) / middle)
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        fits = joules <= self._spare * seconds
        return np.where(fits, 1.0, low)
