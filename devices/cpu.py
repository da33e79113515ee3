"""The CPU family: cores with SIMD lanes behind a ladder of caches."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf, prod, sqrt
from typing import ClassVar

from hwsim.card import Card, Memory
from hwsim.cost import Cost
from hwsim.device import Replay, Tags
from hwsim.devices.attention import needed_work
from hwsim.devices.collective import exchange
from hwsim.devices.rates import FMA_FLOPS, Rates
from hwsim.devices.traffic import Demand, Ports, demands, in_grains
from hwsim.dtypes import dtype
from hwsim.errors import CardError, Problem
from hwsim.graph import Kind
from hwsim.mapper import Kernel

REQUIRED: Mapping[str, str] = {"simd_width": "B", "thread_start": "s"}
ROW_KINDS = (Kind.SOFTMAX, Kind.NORM, Kind.SCAN, Kind.REDUCE, Kind.SORT, Kind.FFT)


class Cpu:
    """A CPU from its card.

    seconds = op overhead + the better of one core and all cores, which first must be started; a run takes the longest
    of matrix, vector and special work and of each memory. Operands come from main memory, or where ``warm`` from the
    nearest memory that holds all of them. A card without ``op_overhead`` is called at no cost; without
    ``max_bytes_in_flight_per_unit`` one core draws all of the main memory's bandwidth.
    """

    parameters: ClassVar[Mapping[str, str]] = {
        **REQUIRED,
        "op_overhead": "s",
        "max_bytes_in_flight_per_unit": "B",
        "cores": "1",
    }
    tags: ClassVar[Tags] = Tags()

    def __init__(self, card: Card, warm: bool = False) -> None:
        missing = [name for name in REQUIRED if name not in card.parameters]
        if missing:
            raise CardError(
                *(Problem(f"card '{card.name}' of family 'cpu' lacks parameters.{name}") for name in missing)
            )
        self.card = card
        self.warm = warm
        self._rates = Rates(card)
        self._ports = Ports(card)

    def timed(self, replay: Replay | None) -> Cpu:
        """The same CPU as a benchmark sees it: with ``replay``, operands are in the caches that hold them."""
        return Cpu(self.card, warm=replay is not None)

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` run alone, its call included."""
        traffic = self._traffic(kernel)
        cores = {1, max(1, min(int(self.card.units), pieces(kernel, self.card.parameter("simd_width"))))}
        runs = {count: self._busy(kernel, traffic, count) for count in cores}
        count = min(runs, key=lambda count: self._start(count) + max(runs[count].values(), default=0.0))
        busy = runs[count]
        overhead = self.card.parameter("op_overhead", 0.0) + self._start(count)
        bound = max(busy, key=busy.__getitem__, default="latency")
        longest = busy.get(bound, 0.0)
        moved = {memory: demand.nbytes for memory, demand in traffic.items()}
        name = bound if longest >= overhead else "latency"
        return Cost(overhead + longest, self._joules(kernel, traffic), moved, busy, name)

    def host_seconds(self, kernel: Kernel) -> float:
        """None: the CPU is its own host, and its estimates contain the call."""
        return 0.0

    def _start(self, cores: int) -> float:
        return self.card.parameter("thread_start") if cores > 1 else 0.0

    def _busy(self, kernel: Kernel, traffic: Mapping[str, Demand], cores: int) -> dict[str, float]:
        """Busy seconds by unit and memory with so many cores at work."""
        work, share = needed_work(kernel), cores / self.card.units
        busy: dict[str, float] = {}
        if work.matmul_flops:
            padding = lane_padding(kernel, self.card.parameter("simd_width"))
            busy["matmul"] = padding * self._rates.matmul(work.dtype).seconds(work.matmul_flops) / share
        if work.vector_flops:
            busy["vector"] = FMA_FLOPS * self._rates.vector(work.dtype).seconds(work.vector_flops) / share
        if work.special_ops:
            busy["special"] = self._rates.special(work.dtype).seconds(work.special_ops) / share
        for memory, demand in traffic.items():
            seconds = self._ports.seconds(memory, demand)
            busy[self._ports.resource(memory)] = seconds / self._share(memory, cores)
        sent = exchange(self.card, kernel)
        if sent is not None:
            busy[sent.link.name] = busy.get(sent.link.name, 0.0) + sent.seconds
        return busy

    def _share(self, memory: str, cores: int) -> float:
        """The share of a memory's bandwidth that so many cores draw: of caches their own part, else Little's law."""
        place = self._ports.memories.get(memory)
        if place is None:
            return 1.0
        if place.kind == "cache":
            return cores / self.card.units
        if not place.latency:
            return 1.0
        in_flight = self.card.parameter("max_bytes_in_flight_per_unit", inf)
        return min(1.0, cores * in_flight / (place.latency * place.bandwidth))

    def _traffic(self, kernel: Kernel) -> dict[str, Demand]:
        """Bytes by memory: from where they are through every cache nearer to the cores."""
        flows = [
            in_grains(
                flow, self._ports.memories[flow.memory].granularity if flow.memory in self._ports.memories else 1.0
            )
            for flow in kernel.flows
        ]
        traffic: dict[str, Demand] = {}
        for memory, demand in demands(flows).items():
            source = self._source(kernel, memory)
            again = self._reread(kernel) if memory == self.card.main.name and source == memory else 0.0
            for name in (source, *self._nearer(source)):
                extra = again if name == source else 0.0
                traffic[name] = traffic.get(name, Demand()).plus(demand.read + extra, demand.write)
        return traffic

    def _source(self, kernel: Kernel, memory: str) -> str:
        """Where bytes of ``memory`` are: warm, in the nearest cache that holds all that the kernel touches."""
        if not self.warm or memory != self.card.main.name:
            return memory
        fits = [cache.name for cache in self._caches() if cache.capacity >= kernel.nbytes]
        return fits[0] if fits else memory

    def _nearer(self, memory: str) -> list[str]:
        names = [cache.name for cache in self._caches()]
        return names[: names.index(memory)] if memory in names else names

    def _caches(self) -> list[Memory]:
        return [memory for memory in self.card.memories if memory.kind == "cache"]

    def _reread(self, kernel: Kernel) -> float:
        """Operand bytes of a blocked matrix product beyond each once.

        2·m·n·k·e / sqrt(C / e) move between memories for a cache of C bytes (Hong and Kung, STOC 1981).
        """
        caches = self._caches()
        if kernel.kind is not Kind.MATMUL or not caches:
            return 0.0
        element = dtype(kernel.work.dtype).bytes_for(1)
        moved = kernel.work.matmul_flops * element / sqrt(caches[-1].capacity / element)
        return max(0.0, moved - kernel.read_bytes)

    def _joules(self, kernel: Kernel, traffic: Mapping[str, Demand]) -> float:
        work = needed_work(kernel)
        joules = sum(self._ports.joules(memory, demand) for memory, demand in traffic.items())
        for amount, find in (
            (work.matmul_flops, self._rates.matmul),
            (work.vector_flops, self._rates.vector),
            (work.special_ops, self._rates.special),
        ):
            joules += amount * find(work.dtype).joules if amount else 0.0
        sent = exchange(self.card, kernel)
        return joules + (sent.nbytes * self._ports.link_energy(sent.link) if sent else 0.0)


def pieces(kernel: Kernel, simd_width: float) -> int:
    """Parts of a kernel that cores can do independently: rows, heads, or vectors of the output."""
    lanes = max(1, int(simd_width / dtype(kernel.work.dtype).bytes_for(1)))
    if kernel.kind in ROW_KINDS:
        return kernel.size("rows", 1)
    if kernel.kind is Kind.RECURRENCE:
        return kernel.size("batch", 1) * kernel.size("heads", 1)
    if kernel.kind is Kind.ATTENTION:
        return kernel.size("batch", 1) * kernel.size("heads", 1) * kernel.size("q_len", 1)
    if kernel.kind is Kind.MATMUL:
        return kernel.size("batch", 1) * kernel.size("m", 1) * ceil(kernel.size("n", 1) / lanes)
    return max(1, ceil(kernel.nbytes / simd_width))


def lane_padding(kernel: Kernel, simd_width: float) -> float:
    """Work done over work wanted, where the innermost outputs do not fill whole SIMD vectors."""
    lanes = max(1, int(simd_width / dtype(kernel.work.dtype).bytes_for(1)))
    if kernel.kind is Kind.MATMUL:
        inner = max(kernel.size("n", 1), kernel.size("m", 1))
    elif kernel.kind is Kind.CONV:
        sizes = kernel.attrs.get("out_size", ())
        positions = prod(size for size in sizes if isinstance(size, int)) if isinstance(sizes, tuple) else 1
        inner = max(positions, kernel.size("out_channels", 1) // kernel.size("groups", 1))
    else:
        return 1.0
    return ceil(inner / lanes) * lanes / inner
