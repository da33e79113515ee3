"""The GPU family: units with tensor cores behind one cache and one main memory, told what to do kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, cast

import numpy as np

from hwsim.calibration import Constant
from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Replay, Tags
from hwsim.devices.gpu.chip import REQUIRED, Chip
from hwsim.devices.gpu.constants import CONSTANTS
from hwsim.devices.gpu.families import family_of
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.loads import Columns, Loads
from hwsim.devices.gpu.outside import Outside, Sent
from hwsim.devices.gpu.power import Drawn, Power
from hwsim.devices.gpu.timing import Array, Timing
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
        """The costs of ``kernels``, each run alone; those of one family are calculated together."""
        costs: list[Cost | None] = [None] * len(kernels)
        for batch in self.batches(kernels):
            for place, cost in zip(batch.places, self.times(batch).costs(), strict=True):
                costs[place] = cost
        return cast("list[Cost]", costs)

    def estimate_run(self, kernels: Sequence[Kernel], counts: Sequence[float]) -> list[Cost]:
        """The costs of ``kernels`` that run so many times each in one run and share its clock.

        Power is limited over milliseconds: what hungry kernels draw more than the limit, others save.
        """
        costs: list[Cost | None] = [None] * len(kernels)
        drawn = Drawn(*np.empty((len(Drawn._fields), len(kernels))))
        for batch in self.batches(kernels):
            times = self.times(batch, limited=False, passed=True)
            for column, values in zip(drawn, times.drawn, strict=True):
                column[list(batch.places)] = values
            for place, cost in zip(batch.places, times.costs(), strict=True):
                costs[place] = cost
        found = cast("list[Cost]", costs)
        clock, seconds, joules = self._power.settled(drawn, np.asarray(counts, float))
        if clock[0] == 1.0:
            return found
        return [
            replace(
                cost,
                seconds=taken,
                joules=spent,
                bound=cost.bound if wait > cost.seconds / 2 or clock[0] >= THROTTLED else "power",
            )
            for cost, taken, spent, wait in zip(found, seconds.tolist(), joules.tolist(), drawn.stalled, strict=True)
        ]

    def with_constants(self, values: Mapping[str, float]) -> Gpu:
        """The same GPU in the same state with other values of some `CONSTANTS`."""
        other = copy(self)
        other.chip = replace(self.chip, fitted={**self.chip.fitted, **values})
        other._power = Power(self.card, other.chip)
        return other

    def host_seconds(self, kernel: Kernel) -> float:
        """The host's time to issue ``kernel``: none where it is replayed from a graph."""
        return self.chip["host_launch_overhead"] if kernel.launch is Launch.EAGER else 0.0

    def batches(self, kernels: Sequence[Kernel]) -> list[Batch]:
        """``kernels`` by family, with all that does not depend on the fitted constants."""
        places: dict[Family, list[int]] = {}
        for index, kernel in enumerate(kernels):
            places.setdefault(family_of(kernel), []).append(index)
        return [self._batch(family, tuple(at), [kernels[index] for index in at]) for family, at in places.items()]

    def seconds(self, batches: Sequence[Batch]) -> Array:
        """Seconds of every kernel of ``batches``, in the order that they were given in."""
        return self._in_order(batches, lambda times: times.seconds)

    def joules(self, batches: Sequence[Batch], seconds: Array | None = None) -> Array:
        """Joules of every kernel of ``batches``, static power included, in its own or the given ``seconds``."""
        static = self.card.static_power
        return self._in_order(batches, lambda times: times.joules + static * times.seconds, seconds)

    def _in_order(self, batches: Sequence[Batch], of: Callable[[Times], Array], given: Array | None = None) -> Array:
        values = np.empty(sum(len(batch.places) for batch in batches))
        for batch in batches:
            places = list(batch.places)
            values[places] = of(self.times(batch, given=None if given is None else given[places]))
        return values

    def _batch(self, family: Family, places: tuple[int, ...], kernels: Sequence[Kernel]) -> Batch:
        shapes = [family.shape(kernel) for kernel in kernels]
        return Batch(
            family,
            places,
            type(shapes[0])(*np.array(shapes, dtype=float).T),
            self._loads.of(kernels),
            [self._outside.of(kernel) for kernel in kernels],
        )

    def times(self, batch: Batch, limited: bool = True, given: Array | None = None, passed: bool = False) -> Times:
        """Time (or those ``given``) and energy of a batch with the constants of this GPU, each kernel ``limited`` by
        power by itself."""
        chip = self.chip
        apart = batch.family.apart(batch.shape, batch.columns, chip) if batch.family.apart else 0.0
        load = batch.columns.load(chip, self.replay, passed, apart)
        if self.state is State.SINGLE:
            load = load._replace(evicted=chip.evicted(load.main_read))
        timing = batch.family.timing(batch.shape, load, chip)
        launch = chip["single_latency" if self.state is State.SINGLE else "graph_launch_latency"]
        copying = np.array([sent.seconds(chip) for sent in batch.outside])
        own = launch + (timing.launches - 1.0) * chip["graph_launch_latency"] + np.maximum(timing.seconds, copying)
        seconds = own if given is None else given
        cached = load.read + load.write + timing.cache_again
        served = load.main_read + load.main_write + timing.main_again
        drawn = Drawn(
            seconds,
            np.minimum(served / chip.main_bandwidth, seconds),
            np.minimum(timing.working, seconds),
            self._power.inside(load, timing),
            self._power.outside(load, served) + np.array([sent.joules for sent in batch.outside]),
        )
        clock = np.ones_like(seconds)
        joules = drawn.joules(1.0)
        if limited:
            clock, settled, joules = self._power.settled(drawn)
            if self.state is State.RUN:
                seconds = settled
            else:  # energies are of runs that last, times as far as their power settles
                late = np.clip(1.0 - SETTLING / (RUNS[self.state] * seconds), 0.0, 1.0)
                seconds = seconds + late * (settled - seconds) if given is None else given
                joules = joules + self.card.static_power * (settled - seconds)
        throttled = np.where(self.state is State.RUN, clock < THROTTLED, False).astype(float)
        return Times(chip, batch, timing, seconds, throttled, joules, drawn, cached, served)


@dataclass(frozen=True, slots=True)
class Batch:
    """Kernels of one family as columns; ``places`` are their indices in the list that they come from."""

    family: Family
    places: tuple[int, ...]
    shape: Any
    columns: Columns
    outside: Sequence[Sent]


@dataclass(frozen=True, slots=True)
class Times:
    """What the kernels of a batch take: seconds (``throttled`` where power lowers the clock), dynamic joules, what
    they draw at full clocks, bytes."""

    chip: Chip
    batch: Batch
    timing: Timing
    seconds: Array
    throttled: Array
    joules: Array
    drawn: Drawn
    cached: Array
    served: Array

    def costs(self) -> list[Cost]:
        """The costs of the kernels one by one."""
        cache, main = self.chip.cache.name, self.chip.main.name
        names = {"cache": cache, "main": main}
        busy = [(names.get(name, name), values.tolist()) for name, values in self.timing.busy.items()]
        columns = (self.seconds, self.throttled, self.joules, self.cached, self.served)
        costs = []
        for i, (sent, *row) in enumerate(zip(self.batch.outside, *(c.tolist() for c in columns), strict=True)):
            seconds, throttled, joules, cached, served = row
            spent = {name: values[i] for name, values in busy if values[i] > 0.0} | dict(sent.busy)
            traffic = {main: served, cache: cached, **sent.traffic}
            costs.append(Cost(seconds, joules, traffic, spent, "power" if throttled else _bound(spent, seconds)))
        return costs


def _bound(busy: Mapping[str, float], seconds: float) -> str:
    """What keeps a kernel from being done: its busiest resource, or latency where all of them wait half the time."""
    name = max(busy, key=busy.__getitem__, default="latency")
    return name if busy.get(name, 0.0) >= seconds / 2 else "latency"
