"""Energy of kernels, and the clock that falls so that a board stays within its power."""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.card import Card
from hwsim.devices.gpu.chip import ACCUMULATOR, Chip
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.rates import FMA_FLOPS, Rates
from hwsim.devices.traffic import Demand, Ports

LOWEST_CLOCK = 0.1  # of the full clock
BISECTIONS = 24
# Of the energy of matrix work on data: padding is zeros, which switch less (arXiv 2409.18324: inputs make 40 %).
PADDING = 0.6


class Drawn(NamedTuple):
    """What kernels draw at full clocks, and how that changes with the clock of the chip.

    Main memory and links have a clock and a voltage of their own: they keep kernels ``stalled`` for so many of their
    ``seconds``, and their bytes cost ``outside`` joules, whatever the chip's clock is. On the chip, energy goes with
    the square of the clock, as voltage goes with it (Horowitz, ISSCC 2014): ``inside`` joules at full clocks. Its
    busiest resource works for ``working`` seconds, which main memory does not hide once they are the longer ones.
    """

    seconds: Array
    stalled: Array
    working: Array
    inside: Array
    outside: Array

    def times(self, clock: Array | float) -> Array:
        """Seconds at a share of the full clock."""
        waiting = self.stalled + (self.seconds - self.stalled) / clock
        return np.maximum(waiting, self.working / clock)

    def joules(self, clock: Array | float) -> Array:
        """Dynamic joules at a share of the full clock."""
        return self.outside + self.inside * clock**2

    def of(self, which: npt.NDArray[np.bool_]) -> Drawn:
        """Some of the kernels."""
        return Drawn._make(column[which] for column in self)


class Power:
    """The energies and the power limit of one card."""

    def __init__(self, card: Card, chip: Chip) -> None:
        ports = Ports(card)
        self._cache = ports.joules(chip.cache.name, Demand(read=1.0))
        self._read = ports.joules(chip.main.name, Demand(read=1.0))
        self._write = ports.joules(chip.main.name, Demand(write=1.0))
        self._lane = FMA_FLOPS * Rates(card).vector(ACCUMULATOR).joules
        self._chip = chip
        self._spare = card.limit - card.static_power if isfinite(card.limit) else np.inf

    def inside(self, load: Load, timing: Timing) -> Array:
        """Dynamic energy of the chip in J: arithmetic of matrix units (padding included) and special functions,
        instructions of the lanes (each as an FMA), every byte through the cache, through shared memory to matrix
        units."""
        constants = self._chip.fitted
        matrix = load.matmul * (1.0 + PADDING * (timing.padding - 1.0))
        lanes = np.maximum(timing.issued * self._lane, load.vector * FMA_FLOPS * load.vector_joules)
        arithmetic = (
            matrix * load.matmul_joules * constants["matmul_energy"]
            + lanes * constants["lane_energy"]
            + load.special * load.special_joules
        )
        read = load.read + timing.cache_again
        staged = np.where(matrix > 0.0, read * timing.fed, 0.0)
        cached = (read + load.write) * constants["cache_energy"] + staged * constants["tile_energy"]
        return arithmetic + cached * self._cache

    def outside(self, load: Load, served: Array) -> Array:
        """Energy of the ``served`` bytes of main memory in J."""
        main = (served - load.main_write) * self._read + load.main_write * self._write
        return main * self._chip["main_energy"]

    def settled(self, drawn: Drawn, counts: Array | None = None) -> Settled:
        """Kernels at the clock at which static and dynamic power fit under the limit: each kernel's own, or one for
        all, of which a run has so many ``counts``.

        The share f of the full clock solves joules(f) = spare x times(f), by bisection. Where bytes of main memory
        alone draw more, they come as slowly as the limit has it.
        """

        def total(values: Array) -> Array:
            return values if counts is None else np.array([values @ counts])

        joules = drawn.joules(1.0)
        over = total(joules) > self._spare * total(drawn.seconds)
        clock = np.ones(len(over))
        if not over.any():
            return Settled(clock, drawn.seconds, joules)
        clock[over] = self._clocks(drawn.of(over)) if counts is None else self._clock(drawn, counts)
        seconds, joules = drawn.times(clock), drawn.joules(clock)
        late = np.maximum(1.0, total(joules) / (self._spare * total(seconds)))
        return Settled(clock, seconds * late, joules)

    def _clocks(self, drawn: Drawn) -> Array:
        """The clock of each kernel that draws too much."""
        low, high = np.full_like(drawn.seconds, LOWEST_CLOCK), np.ones_like(drawn.seconds)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            over = drawn.joules(middle) > self._spare * drawn.times(middle)
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        return low

    def _clock(self, drawn: Drawn, counts: Array) -> float:
        """The clock of a run that draws too much."""
        inside, outside = float(drawn.inside @ counts), float(drawn.outside @ counts)
        stalled, others, working = drawn.stalled, drawn.seconds - drawn.stalled, drawn.working
        low, high = LOWEST_CLOCK, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            seconds = float(np.maximum(stalled * middle + others, working) @ counts) / middle
            if outside + inside * middle**2 > self._spare * seconds:
                high = middle
            else:
                low = middle
        return low


class Settled(NamedTuple):
    """Kernels at a clock that the power limit allows."""

    clock: Array
    seconds: Array
    joules: Array
