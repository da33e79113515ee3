"""The CPU family: cores with SIMD lanes behind a ladder of caches, called by a framework op by op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np

from hwsim.calibration import Constant
from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Replay, Tags
from hwsim.devices.attention import needed_work
from hwsim.devices.cpu.columns import Array, Row, one_core_share, passes, row_of
from hwsim.devices.cpu.constants import CONSTANTS
from hwsim.devices.cpu.timing import Machine, Times, times
from hwsim.devices.cpu.traffic import Moved, State, Traffic
from hwsim.devices.rates import Rate, Rates
from hwsim.errors import CardError, Problem
from hwsim.graph import Kind
from hwsim.mapper import Kernel, Launch

REQUIRED: Mapping[str, str] = {"simd_width": "B", "thread_start": "s"}


class Cpu:
    """A CPU from its card: seconds = call + the better of one core and all cores, which first must be started.

    The equations are in `timing.py`, what they are fed with in `columns.py` and `traffic.py`, the constants that
    measurements fit in `constants.py`. Kernels launched one by one are ops of an eager framework, each with
    ``module_overhead`` of its Python around it inside a model; recorded ones are nodes of a runtime that has planned
    them all, each at ``runtime_overhead``. A card without the constants is that of an ideal machine, and without
    ``max_bytes_in_flight_per_unit`` one core draws all of the main memory's bandwidth.
    """

    parameters: ClassVar[Mapping[str, str]] = {
        **REQUIRED,
        **{name: constant.unit for name, constant in CONSTANTS.items()},
        "module_overhead": "s",
        "runtime_overhead": "s",
        "max_bytes_in_flight_per_unit": "B",
        "cores": "1",
    }
    tags: ClassVar[Tags] = Tags()
    constants: ClassVar[Mapping[str, Constant]] = CONSTANTS

    def __init__(self, card: Card, state: State = State.RUN, replay: Replay | None = None) -> None:
        missing = [name for name in REQUIRED if name not in card.parameters]
        if missing:
            raise CardError(
                *(Problem(f"card '{card.name}' of family 'cpu' lacks parameters.{name}") for name in missing)
            )
        self.card = card
        self.state = state
        self.replay = replay
        self.most_cores = card.units
        self.fitted = {name: card.parameter(name, constant.neutral) for name, constant in CONSTANTS.items()}
        self._rates = Rates(card)
        self._traffic = Traffic(card)

    def timed(self, replay: Replay | None) -> Cpu:
        """The same CPU as a benchmark sees it: one call on empty caches, or with ``replay`` the call repeated."""
        other = copy(self)
        other.state, other.replay = State.REPLAY if replay else State.SINGLE, replay
        return other

    def on_one_core(self) -> Cpu:
        """The same CPU running every kernel on one of its cores."""
        other = copy(self)
        other.most_cores = 1.0
        return other

    def with_constants(self, values: Mapping[str, float]) -> Cpu:
        """The same CPU in the same state with other values of some `CONSTANTS`."""
        other = copy(self)
        other.fitted = {**self.fitted, **values}
        return other

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` run alone, its call included."""
        return self.estimate_all((kernel,))[0]

    def estimate_all(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """The costs of ``kernels``, each run alone."""
        batch = self.batches(kernels)
        found = self._times(batch)
        joules = self._joules(batch)
        return [self._cost(batch.moved[i], found, joules[i], i) for i in range(len(kernels))]

    def host_seconds(self, kernel: Kernel) -> float:
        """None: the CPU is its own host, and its estimates contain the call."""
        return 0.0

    def batches(self, kernels: Sequence[Kernel]) -> Batch:
        """``kernels`` as columns, with all that does not depend on the fitted constants."""
        planned, width = self.state is State.RUN, self.card.parameter("simd_width")
        rows = np.array([row_of(kernel, self._rates, width, planned) for kernel in kernels], dtype=float)
        moved = []
        for kernel in kernels:
            times_moved = passes(kernel, planned and kernel.launch is Launch.GRAPH)
            moved.append(self._traffic.of(kernel, self.state, self.replay, times_moved))
        return Batch(
            tuple(kernels),
            Row(*rows.reshape(-1, len(Row._fields)).T),
            tuple(moved),
            np.array([move.main for move in moved]),
            np.array([move.cache for move in moved]),
            np.array([max(move.others.values(), default=0.0) for move in moved]),
            np.array([move.missed for move in moved]),
        )

    def seconds(self, batches: Batch) -> Array:
        """Seconds of every kernel of ``batches``."""
        return self._times(batches).seconds

    def joules(self, batches: Batch, seconds: Array | None = None) -> Array:
        """Joules of every kernel of ``batches``, static power included, in its own or the given ``seconds``."""
        taken = self.seconds(batches) if seconds is None else seconds
        return self._joules(batches) + self.card.static_power * taken

    def _times(self, batch: Batch) -> Times:
        return times(batch.row, batch.main, batch.cache, batch.others, batch.missed, self._machine())

    def _machine(self) -> Machine:
        card, main = self.card, self.card.main
        in_flight = card.parameter("max_bytes_in_flight_per_unit", inf)
        running = self.state is State.RUN
        op = self.fitted["op_overhead"]
        return Machine(
            card.units,
            self.most_cores,
            one_core_share(main.latency, main.bandwidth, in_flight),
            self.fitted,
            card.parameter("module_overhead", 0.0) if running else 0.0,
            card.parameter("runtime_overhead", op),
            self.state is State.SINGLE,
        )

    def _joules(self, batch: Batch) -> Array:
        return np.array([self._energy(*pair) for pair in zip(batch.kernels, batch.moved, strict=True)])

    def _energy(self, kernel: Kernel, moved: Moved) -> float:
        """Dynamic joules: of the bytes by memory, and of the arithmetic by unit."""
        work = needed_work(kernel)
        joules = self._traffic.joules(moved.demands)
        arithmetic: tuple[tuple[float, Callable[[str], Rate]], ...] = (
            (work.matmul_flops, self._rates.matmul),
            (work.vector_flops, self._rates.vector),
            (work.special_ops, self._rates.special),
        )
        for amount, find in arithmetic:
            joules += amount * find(work.dtype).joules if amount else 0.0
        return joules + (self._traffic.exchange_joules(kernel) if kernel.kind is Kind.COLLECTIVE else 0.0)

    def _cost(self, moved: Moved, found: Times, joules: float, i: int) -> Cost:
        seconds = float(found.seconds[i])
        busy = {name: float(column[i]) for name, column in found.busy.items() if column[i] > 0.0}
        for place, name in (("main", self.card.main.name), ("cache", self._cache_name(moved))):
            if place in busy and name:
                busy[name] = busy.pop(place)
        busy |= moved.others
        bound = max(busy, key=busy.__getitem__, default="latency")
        traffic = {memory: demand.nbytes for memory, demand in moved.demands.items()}
        slack = seconds - busy.get(bound, 0.0)
        return Cost(seconds, float(joules), traffic, busy, bound if busy.get(bound, 0.0) >= slack else "latency")

    def _cache_name(self, moved: Moved) -> str:
        """The farthest cache that serves the kernel."""
        return next((m.name for m in reversed(self.card.memories) if m.kind == "cache" and m.name in moved.demands), "")


@dataclass(frozen=True, slots=True)
class Batch:
    """Kernels as columns: `Row`, seconds of memories at full bandwidth, the share that main memory serves."""

    kernels: tuple[Kernel, ...]
    row: Row
    moved: tuple[Moved, ...]
    main: Array
    cache: Array
    others: Array
    missed: Array
