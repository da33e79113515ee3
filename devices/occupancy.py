"""How much of a GPU a kernel keeps at work, and how fast memory answers that many units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from hwsim.card import Card, Memory
from hwsim.errors import CardError, Problem

PARAMETERS: Mapping[str, str] = {
    "launch_latency": "s",
    "graph_launch_latency": "s",
    "host_launch_overhead": "s",
    "max_bytes_in_flight_per_unit": "B",
    "shared_memory_per_unit": "B",
    "tile_m": "1",
    "tile_n": "1",
    "tile_k_latency": "s",
}
"""Figures without which a GPU cannot be estimated."""

# CUDA C++ Programming Guide: lanes of a warp, the widest load of a lane in bytes, warps of the largest block.
LANES, LOAD_BYTES, MAX_BLOCK_WARPS = 32, 16, 32
WARP_BYTES = float(LANES * LOAD_BYTES)
BLOCK_WARPS = 4  # of a block that gives each of a unit's four schedulers a warp
LANE_ELEMENTS = 4  # of a row that a lane loads at once


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kernel runs.

    Arithmetic takes ``stretch`` times what it would on all units at their peak, matrix, vector and special work at
    the same time unless it is ``serial``. ``units`` are at work and draw on the memories, with ``width`` of the 16
    bytes that a lane can load at once. ``latency`` in s is what nothing overlaps with, ``chain`` the steps that wait
    for each other while other rows or heads keep the memories busy. ``reread`` and ``refetch`` are bytes beyond each
    operand once that come from the cache and from main memory; ``launches`` counts the kernels behind this one.
    """

    stretch: float
    units: float
    latency: float = 0.0
    chain: float = 0.0
    width: float = 1.0
    reread: float = 0.0
    refetch: float = 0.0
    launches: int = 1
    serial: bool = False


@dataclass(frozen=True, slots=True)
class Chip:
    """The figures of a GPU that plans are made from, in bytes and seconds; operands come after ``source_latency``."""

    units: int
    cache: Memory
    main: Memory
    in_flight: float
    shared: float
    tile_m: int
    tile_n: int
    tile_latency: float
    source_latency: float
    launch_latency: float

    @classmethod
    def of(cls, card: Card, warm: bool) -> Chip:
        """The chip of ``card``, with operands in its cache where ``warm``; one `CardError` names all that it lacks."""
        missing = [f"parameters.{name}" for name in PARAMETERS if name not in card.parameters]
        missing += [] if card.main.latency else [f"memories.{card.main.name}.latency"]
        caches = [memory for memory in card.memories if memory.kind == "cache"]
        if not caches:
            missing.append("a memory of kind cache")
        elif not caches[-1].latency:
            missing.append(f"memories.{caches[-1].name}.latency")
        if missing:
            raise CardError(
                *(Problem(f"card '{card.name}' of family '{card.family}' lacks {name}") for name in missing)
            )
        return cls(
            units=int(card.units),
            cache=caches[-1],
            main=card.main,
            in_flight=card.parameter("max_bytes_in_flight_per_unit"),
            shared=card.parameter("shared_memory_per_unit"),
            tile_m=int(card.parameter("tile_m")),
            tile_n=int(card.parameter("tile_n")),
            tile_latency=card.parameter("tile_k_latency"),
            launch_latency=card.parameter("graph_launch_latency"),
            source_latency=(caches[-1] if warm else card.main).latency,
        )

    def waiting(self, memory: Memory, nbytes: float, plan: Plan) -> float:
        """Time that a plan's units wait for ``nbytes``, beyond the first answer, which is counted as latency, in s.

        Little's law: each latency brings what all units together have in flight.
        """
        answers = nbytes / (plan.units * plan.width * self.in_flight)
        return max(0.0, answers - 1) * memory.latency

    def seconds(self, memory: Memory, nbytes: float, plan: Plan) -> float:
        """Time to read ``nbytes`` into a plan's units: at the bandwidth, or as fast as they ask for it, in s."""
        return max(nbytes / memory.bandwidth, self.waiting(memory, nbytes, plan))

    def stream(self, nbytes: float) -> Plan:
        """The plan of a kernel whose bytes are spread over warps as they come."""
        units = min(self.units, max(1, ceil(nbytes / WARP_BYTES)))
        return Plan(self.units / units, units)

    def rows(self, rows: int, cols: int, read: float, warps: int = BLOCK_WARPS) -> Plan:
        """The plan of a kernel that gives each row ``warps``, which go over it twice: statistics, then results.

        They have one load a lane in flight, so each step waits for the memory; loads are of one element where rows
        do not start at whole loads. A row that overflows the unit's shared memory comes from the cache again, and
        from main memory where the rows in work together overflow the cache.
        """
        units = max(1, min(self.units, rows))
        again = read if read / rows > self.shared else 0.0
        lost = again if units * read / rows > self.cache.capacity else 0.0
        width = 1.0 if cols % LANE_ELEMENTS == 0 else 1 / LANE_ELEMENTS
        steps = ceil(cols / (warps * LANES * LANE_ELEMENTS * width))
        row = self.tile_latency + steps * (self.source_latency + self.cache.latency)
        at_once = self.units * max(1, self.resident_warps // warps)
        chain = ceil(rows / at_once) * row
        return Plan(self.units / units, units, chain=chain, width=width, reread=again, refetch=lost)

    def scan(self, rows: int, cols: int, read: float) -> Plan:
        """The plan of a running sum along rows: as `rows`, but each step waits for the sums of the one before.

        Blocks are of the largest size; short rows share one.
        """
        step = BLOCK_WARPS * LANES * LANE_ELEMENTS
        slots = self.units * max(1, self.resident_warps // MAX_BLOCK_WARPS) * max(1, step // cols)
        chain = ceil(rows / slots) * ceil(cols / step) * self.tile_latency
        return replace(self.rows(rows, cols, read), chain=chain)

    @property
    def resident_warps(self) -> int:
        """Warps that one unit holds: as many as its bytes in flight are loads of a warp."""
        return max(1, int(self.in_flight / WARP_BYTES))
