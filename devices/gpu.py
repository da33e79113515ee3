"""The GPU family: units with tensor cores behind one cache and one main memory, told what to do kernel by kernel."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import ClassVar

from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Tags
from hwsim.devices.attention import needed_work
from hwsim.devices.collective import exchange
from hwsim.devices.gpu_plans import plan
from hwsim.devices.occupancy import PARAMETERS, Chip, Plan
from hwsim.devices.rates import FMA_FLOPS, Rate, Rates
from hwsim.devices.traffic import Demand, Ports, demands, in_grains
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel, Launch
from hwsim.work import Work

UNITS = ("matmul", "vector", "special")
ACCUMULATOR = "fp32"  # vector work on narrower floats is done in this format, as libraries do


class Gpu:
    """A GPU from its card alone.

    seconds = launches · launch latency + latency of the first bytes + max over units and memories of their busy time.
    ``warm``: operands that fit in the cache are there already, as in a kernel that is replayed back to back; otherwise
    they come from where the flows say. ``sustained``: kernels follow each other for so long that the clock drops
    until dynamic and static power fit under the board's limit.
    """

    parameters: ClassVar[Mapping[str, str]] = {
        **PARAMETERS,
        "registers_per_unit": "B",
        "active_static_power": "W",
    }
    tags: ClassVar[Tags] = Tags(graph_launch=True)

    def __init__(self, card: Card, warm: bool = False, sustained: bool = True) -> None:
        self.card = card
        self.warm = warm
        self.sustained = sustained
        self._rates = Rates(card)
        self._ports = Ports(card)
        self._chip = Chip.of(card, warm)

    def timed(self, warm: bool) -> Gpu:
        """The same GPU as a benchmark sees it: ``warm``, kernels back to back; else one launch on empty caches."""
        return Gpu(self.card, warm=warm, sustained=warm)

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` run alone; never less than the roofline of its flows."""
        how = plan(self._chip, self._rates, kernel)
        busy, joules = self._compute(needed_work(kernel), how)
        traffic = self._traffic(kernel, how)
        for memory, demand in traffic.items():
            resource = self._ports.resource(memory)
            busy[resource] = max(self._ports.seconds(memory, demand), self._waiting(memory, demand, how))
            joules += self._ports.joules(memory, demand)
        sent = exchange(self.card, kernel)
        if sent is not None:
            busy[sent.link.name] = busy.get(sent.link.name, 0.0) + sent.seconds
            joules += sent.nbytes * self._ports.link_energy(sent.link)
        moved = {memory: demand.nbytes for memory, demand in traffic.items()}
        return self._cost(self._latency(kernel, how), how, joules, moved, busy)

    def host_seconds(self, kernel: Kernel) -> float:
        """The host's time to issue ``kernel``: none where it is replayed from a graph."""
        return self.card.parameter("host_launch_overhead") if kernel.launch is Launch.EAGER else 0.0

    def _latency(self, kernel: Kernel, how: Plan) -> float:
        """Launches, which contain a first answer of the cache, the wait for main memory, and what the plan adds."""
        launch = "launch_latency" if kernel.launch is Launch.EAGER else "graph_launch_latency"
        waiting = self._missing(kernel) * (self._chip.main.latency - self._chip.cache.latency)
        return how.launches * self.card.parameter(launch) + max(0.0, waiting) + how.latency

    def _cost(
        self, latency: float, how: Plan, joules: float, traffic: Mapping[str, float], busy: Mapping[str, float]
    ) -> Cost:
        """Latency, then whatever takes longest; at the power limit everything slows down."""
        spans = {**busy, "latency": max(latency, how.chain)}
        bound = max(spans, key=spans.__getitem__)
        arithmetic = [busy.get(unit, 0.0) for unit in UNITS]
        seconds = latency + max(how.chain, sum(arithmetic) if how.serial else 0.0, *busy.values())
        if self.sustained and isfinite(self.card.limit):
            cooled = joules / (self.card.limit - self.card.static_power)
            if cooled > seconds:
                seconds, bound = cooled, "power"
        return Cost(seconds, joules, traffic, busy, bound)

    def _compute(self, work: Work, how: Plan) -> tuple[dict[str, float], float]:
        """Busy seconds by unit, and joules."""
        busy: dict[str, float] = {}
        joules = 0.0
        for unit, amount in zip(UNITS, (work.matmul_flops, work.vector_flops, work.special_ops), strict=True):
            if amount:
                rate = self._rate(unit, work.dtype)
                slots = FMA_FLOPS if unit == "vector" else 1
                busy[unit] = how.stretch * slots * rate.seconds(amount)
                joules += amount * rate.joules
        return busy, joules

    def _rate(self, unit: str, name: str) -> Rate:
        if unit == "matmul":
            return self._rates.matmul(name)
        fmt = dtype(name)
        name = ACCUMULATOR if fmt.kind in ("float", "block") and fmt.bits < dtype(ACCUMULATOR).bits else name
        return self._rates.vector(name) if unit == "vector" else self._rates.special(name)

    def _traffic(self, kernel: Kernel, how: Plan) -> dict[str, Demand]:
        """Bytes by memory: what the flows touch in whole grains, all through the cache, and what is read again.

        Runs of a strided walk lie side by side, so that only the cache is asked for a grain each time.
        """
        cache, main = self._chip.cache, self._chip.main
        grains = {memory.name: memory.granularity for memory in self.card.memories}
        traffic = demands([in_grains(flow, grains.get(flow.memory, 1.0)) for flow in kernel.flows])
        through = demands([in_grains(flow, cache.granularity, strided=True) for flow in kernel.flows])
        missing = self._missing(kernel)
        if main.name in traffic:
            demand = traffic[main.name]
            traffic[main.name] = Demand(missing * demand.read, missing * demand.write).plus(read=how.refetch)
        reads = sum(demand.read for demand in through.values()) + how.reread
        writes = sum(demand.write for demand in through.values())
        traffic[cache.name] = Demand(reads, writes)
        return traffic

    def _missing(self, kernel: Kernel) -> float:
        """The share of the bytes of main memory that the cache lacks.

        Cold: all. Warm: none up to the cache's capacity, all from twice of it, since what is over displaces as much.
        """
        if not self.warm:
            return 1.0
        footprint = sum(flow.nbytes for flow in kernel.flows if flow.memory == self._chip.main.name)
        return min(1.0, max(0.0, footprint / self._chip.cache.capacity - 1))

    def _waiting(self, memory: str, demand: Demand, how: Plan) -> float:
        """Time that the kernel's units wait for answers of a memory; the host's link copies by itself."""
        place = self._ports.memories.get(memory)
        return self._chip.waiting(place, demand.nbytes, how) if place is not None else 0.0
