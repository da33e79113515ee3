"""The GPU family: units with tensor cores behind one cache and one main memory, told what to do kernel by kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hwsim.calibration import Constant
from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Replay, Tags
from hwsim.devices.gpu.chip import REQUIRED, Chip
from hwsim.devices.gpu.constants import CONSTANTS
from hwsim.devices.gpu.families import family_of
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.loads import Columns, Loads
from hwsim.devices.gpu.outside import NOTHING, Outside, Sent
from hwsim.devices.gpu.power import Drawn, Power
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.gpu.ways import Places, merged, picked
from hwsim.mapper import Kernel, Launch

THROTTLED = 0.97  # share of the full clock below which power is said to bind
# Seconds at full clocks before a card limits its power: products of 0.2 to 4 ms, once and in a row, on an H200; assumed
# of all cards.
SETTLING = 5e-3


class State(StrEnum):
    """What the device did before a kernel, as far as it matters to its time.

    ``run``: in the middle of a model, operands where the flows say, at clocks that power allows for ever. ``single``:
    one launch on empty caches, timed from event to event. ``replay``: back to back with itself, so that operands
    which fit in the cache are there already.
    """

    RUN = "run"
    SINGLE = "single"
    REPLAY = "replay"


# Of a kernel in a row that `hwsim measure` makes at least: repeats of a cold launch, calls of a recorded graph.
RUNS = {State.SINGLE: 7, State.REPLAY: 20}


class Gpu:
    """A GPU from its card: seconds = launch + what the kernel's family makes of its sizes, more at the power limit.

    The families' physics is in the modules beside this one, as functions of arrays, so that `estimate_all` takes
    thousands of kernels at once.
    """

    parameters: ClassVar[Mapping[str, str]] = {
        **REQUIRED,
        **{name: constant.unit for name, constant in CONSTANTS.items()},
        "tensor_memory_per_unit": "B",
        "warpgroups": "1",
        "cache_partitions": "1",
        "active_static_power": "W",
    }
    tags: ClassVar[Tags] = Tags(graph_launch=True)

    constants: ClassVar[Mapping[str, Constant]] = CONSTANTS

    def __init__(self, card: Card, state: State = State.RUN, replay: Replay | None = None) -> None:
        self.card = card
        self.state = state
        self.replay = replay
        self.chip = Chip.of(card)
        self._loads = Loads(card, self.chip)
        self._outside = Outside(card, self.chip)
        self._power = Power(card, self.chip)

    def timed(self, replay: Replay | None) -> Gpu:
        """The same GPU as a benchmark sees it."""
        return Gpu(self.card, State.REPLAY if replay else State.SINGLE, replay).with_constants(self.chip.fitted)

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` run alone; never less than the roofline of its flows."""
        return self.estimate_all((kernel,))[0]

    def estimate_all(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """The costs of ``kernels``, each run alone; they are calculated together."""
        return self.times(self.batches(kernels)).costs()

    def estimate_run(self, kernels: Sequence[Kernel], counts: Sequence[float]) -> list[Cost]:
        """The costs of ``kernels`` that run so many times each in one run and share its clock.

        Power is limited over milliseconds: what hungry kernels draw more than the limit, others save.
        """
        batches = self.batches(kernels)
        times = self.times(batches, limited=False, passed=True)
        clock, seconds, joules = self._power.settled(times.drawn, np.array(counts, float)[batches.places])
        if clock[0] == 1.0:
            return times.costs()
        throttled = (times.drawn.stalled <= times.alone / 2) & (clock < THROTTLED)
        return replace(times, seconds=seconds, joules=joules, throttled=throttled).costs()

    def with_constants(self, values: Mapping[str, float]) -> Gpu:
        """The same GPU in the same state with other values of some `CONSTANTS`."""
        other = copy(self)
        other.chip = replace(self.chip, fitted={**self.chip.fitted, **values})
        other._power = Power(self.card, other.chip)
        return other

    def host_seconds(self, kernel: Kernel) -> float:
        """The host's time to issue ``kernel``: none where it is replayed from a graph."""
        return self.chip["host_launch_overhead"] if kernel.launch is Launch.EAGER else 0.0

    def batches(self, kernels: Sequence[Kernel]) -> Batches:
        """``kernels`` by their formulas, with all that does not depend on the fitted constants."""
        families = list(map(family_of, kernels))
        alike: dict[object, list[int]] = {}
        for index, family in enumerate(families):
            alike.setdefault(family.formulas, []).append(index)
        parts = []
        order: list[int] = []
        for places in alike.values():
            rows = slice(len(order), len(order) + len(places))
            shapes = [families[index].shape(kernels[index]) for index in places]
            parts.append(Batch(families[places[0]], rows, type(shapes[0])(*np.array(shapes, dtype=float).T)))
            order += places
        kernels = [kernels[index] for index in order]
        sent = ((row, self._outside.of(kernel)) for row, kernel in enumerate(kernels))
        outside = {row: one for row, one in sent if one is not NOTHING}
        return Batches(parts, np.array(order, np.int64), self._loads.of(kernels), outside)

    def seconds(self, batches: Batches) -> Array:
        """Seconds of every kernel of ``batches``, in the order that they were given in."""
        return batches.in_order(self.times(batches).seconds)

    def joules(self, batches: Batches, seconds: Array | None = None) -> Array:
        """Joules of every kernel of ``batches``, static power included, in its own or the given ``seconds``."""
        times = self.times(batches, given=None if seconds is None else seconds[batches.places])
        return batches.in_order(times.joules + self.card.static_power * times.seconds)

    def times(self, batches: Batches, limited: bool = True, given: Array | None = None, passed: bool = False) -> Times:
        """Time (or those ``given``) and energy of kernels with the constants of this GPU, each kernel ``limited`` by
        power by itself; columns are in the order of ``batches``."""
        chip = self.chip
        apart = batches.apart(chip) if self.replay else 0.0
        load = batches.columns.load(chip, self.replay, passed, apart)
        if self.state is State.SINGLE:
            load = load._replace(evicted=chip.evicted(load.main_read))
        timing = batches.timing(load, chip)
        seconds = self._launched(batches, timing) if given is None else given
        cached = load.read + load.write + timing.cache_again
        served = load.main_read + load.main_write + timing.main_again
        outside = self._power.outside(load, served)
        for row, sent in batches.outside.items():
            outside[row] += sent.joules
        drawn = Drawn(
            seconds,
            np.minimum(served / chip.main_bandwidth, seconds),
            np.minimum(timing.working, seconds),
            self._power.inside(load, timing),
            outside,
        )
        joules, throttled = drawn.joules(1.0), np.zeros(len(seconds), bool)
        if limited:
            clock, settled, joules = self._power.settled(drawn)
            if self.state is State.RUN:
                seconds, throttled = settled, clock < THROTTLED
            else:  # energies are of runs that last, times as far as their power settles
                late = np.clip(1.0 - SETTLING / (RUNS[self.state] * seconds), 0.0, 1.0)
                seconds = seconds + late * (settled - seconds) if given is None else given
                joules = joules + self.card.static_power * (settled - seconds)
        return Times(chip, batches, timing, seconds, joules, seconds, throttled, drawn, cached, served)

    def _launched(self, batches: Batches, timing: Timing) -> Array:
        """Seconds at full clocks from the first launch on."""
        chip = self.chip
        launch = chip["single_latency" if self.state is State.SINGLE else "graph_launch_latency"]
        seconds = timing.seconds
        if batches.outside:
            copying = np.zeros_like(seconds)
            for row, sent in batches.outside.items():
                copying[row] = sent.seconds(chip)
            seconds = np.maximum(seconds, copying)
        return launch + (timing.launches - 1.0) * chip["graph_launch_latency"] + seconds


@dataclass(frozen=True, slots=True)
class Batch:
    """Kernels with the same formulas: the ``rows`` where they stand among all, and their sizes as columns."""

    family: Family
    rows: slice
    shape: Any


@dataclass(frozen=True, slots=True)
class Batches:
    """Kernels as columns, those with the same formulas side by side; ``places`` are their indices in the list that
    they come from, ``outside`` holds what some rows move beyond the GPU."""

    parts: Sequence[Batch]
    places: Places
    columns: Columns
    outside: Mapping[int, Sent]

    def timing(self, load: Load, chip: Chip) -> Timing:
        """What the formulas make of all kernels."""
        if len(self.parts) == 1:
            return self.parts[0].family.timing(self.parts[0].shape, load, chip)
        parts = [part.family.timing(part.shape, Load(*picked(load, part.rows)), chip) for part in self.parts]
        return merged([part.rows for part in self.parts], parts, len(self.places))

    def apart(self, chip: Chip) -> Array:
        """The shares of bytes that one unit alone reads."""
        shares = np.zeros(len(self.places))
        for part in self.parts:
            if part.family.apart:
                columns = Columns(*picked(self.columns, part.rows))
                shares[part.rows] = part.family.apart(part.shape, columns, chip)
        return shares

    def in_order(self, values: Array) -> Array:
        """A column in the order of the list that the kernels come from."""
        ordered = np.empty_like(values)
        ordered[self.places] = values
        return ordered


@dataclass(frozen=True, slots=True)
class Times:
    """What kernels take, in the order of their batches: seconds and dynamic joules, which power may raise over those
    that they take ``alone`` (``throttled`` where it lowers the clock), what they draw at full clocks, bytes."""

    chip: Chip
    batches: Batches
    timing: Timing
    seconds: Array
    joules: Array
    alone: Array
    throttled: npt.NDArray[np.bool_]
    drawn: Drawn
    cached: Array
    served: Array

    def costs(self) -> list[Cost]:
        """The costs of the kernels one by one, in the order that they were given in."""
        cache, main, outside = self.chip.cache.name, self.chip.main.name, self.batches.outside
        names = [{"cache": cache, "main": main}.get(name, name) for name in self.timing.busy]
        busy = zip(*(values.tolist() for values in self.timing.busy.values()), strict=True)
        columns = (self.batches.places, self.seconds, self.joules, self.alone, self.throttled, self.cached, self.served)
        rows = zip(busy, *(column.tolist() for column in columns), strict=True)
        costs = [Cost()] * len(self.seconds)
        for row, (spending, place, seconds, joules, alone, throttled, cached, served) in enumerate(rows):
            spent = {name: value for name, value in zip(names, spending, strict=True) if value > 0.0}
            traffic = {main: served, cache: cached}
            if row in outside:
                spent |= outside[row].busy
                traffic |= outside[row].traffic
            bound = "power" if throttled else _bound(spent, alone)
            costs[place] = Cost(seconds, joules, traffic, spent, bound)
        return costs


def _bound(busy: Mapping[str, float], seconds: float) -> str:
    """What keeps a kernel from being done: its busiest resource, or latency where all of them wait half the time."""
    name = max(busy, key=busy.__getitem__, default="latency")
    return name if busy.get(name, 0.0) >= seconds / 2 else "latency"
