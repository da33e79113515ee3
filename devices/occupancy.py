"""How much of a GPU a kernel keeps at work, and how fast memory answers that many units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

WARP_BYTES = 32 * 16.0  # one 16-byte load of every lane (CUDA C++ Programming Guide)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kernel runs.

    Arithmetic takes ``stretch`` times what it would on all units at their peak; ``units`` are at work and draw on
    the memories; ``latency`` in s is what nothing overlaps with. ``reread`` and ``refetch`` are bytes beyond each
    operand once that come from the cache and from main memory; ``launches`` counts the kernels behind this one.
    """

    stretch: float
    units: float
    latency: float
    reread: float = 0.0
    refetch: float = 0.0
    launches: int = 1


@dataclass(frozen=True, slots=True)
class Chip:
    """The figures of a GPU that plans are made from. Bytes, seconds."""

    units: int
    cache: Memory
    main: Memory
    in_flight: float
    shared: float
    tile_m: int
    tile_n: int
    tile_latency: float

    @classmethod
    def of(cls, card: Card) -> Chip:
        """The chip of ``card``; one `CardError` names all that it lacks."""
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
        )

    def share(self, memory: Memory, units: float) -> float:
        """The share of a memory's bandwidth that ``units`` can draw.

        Little's law: bytes in flight / latency, at most the bandwidth.
        """
        return min(1.0, units * self.in_flight / (memory.latency * memory.bandwidth))

    def seconds(self, memory: Memory, nbytes: float, units: float) -> float:
        """Time to read ``nbytes`` into ``units`` at the bandwidth that they can draw, in s."""
        return nbytes / (memory.bandwidth * self.share(memory, units)) if nbytes else 0.0

    def stream(self, nbytes: float) -> Plan:
        """The plan of a kernel whose bytes are spread over warps as they come."""
        units = min(self.units, max(1, ceil(nbytes / WARP_BYTES)))
        return Plan(self.units / units, units, self.main.latency)

    def rows(self, rows: int, row_bytes: float, nbytes: float) -> Plan:
        """The plan of a kernel in which one unit holds a row at a time.

        A row that overflows the unit's shared memory is read again from the cache, and from main memory where the
        rows in work together overflow the cache.
        """
        units = max(1, min(self.units, rows))
        again = nbytes if row_bytes > self.shared else 0.0
        lost = again if units * row_bytes > self.cache.capacity else 0.0
        latency = self.main.latency + (self.main.latency if lost else self.cache.latency if again else 0.0)
        return Plan(self.units / units, units, latency, reread=again, refetch=lost)
