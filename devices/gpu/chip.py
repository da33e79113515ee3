"""The figures of one GPU that kernel families calculate with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwsim.card import Card, Memory
from hwsim.devices.gpu.constants import CONSTANTS
from hwsim.devices.gpu.timing import Array, clip
from hwsim.errors import CardError, Problem

REQUIRED: Mapping[str, str] = {
    "launch_latency": "s",
    "graph_launch_latency": "s",
    "host_launch_overhead": "s",
    "shared_memory_per_unit": "B",
    "threads_per_unit": "1",
    "blocks_per_unit": "1",
    "registers_per_unit": "1",
    "tile_m": "1",
    "tile_n": "1",
}
"""Figures without which a GPU cannot be estimated."""

# CUDA C++ Programming Guide: lanes of a warp, the widest load of a lane in bytes.
LANES, LOAD_BYTES = 32, 16

ACCUMULATOR = "fp32"  # vector work on narrower floats is done in this format, as libraries do

PARTITIONS = 2.0  # of the cache, as from the A100 on (NVIDIA A100 whitepaper), unless the card says otherwise

# Of bytes that one unit alone reads: footprint over capacity from which a replay misses some, and growth until it
# misses all (weights of 8 to 88 MB that meet few rows, H100).
APART_KEEP, APART_RAMP = 0.74, 0.12

# Share of the lines of a cache full of writes that are still dirty: kernels of every family that read up to 60 MiB take
# so much longer after such a flush than in a replay (H200, H100).
DIRTY_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Chip:
    """A GPU's figures in SI units, sustained where they are bandwidths; ``fitted`` holds its `CONSTANTS`.

    A unit has so much ``shared`` memory, and holds so many ``threads``, ``blocks`` and ``registers``; ``warpgroups``:
    whether matrix instructions run beside the warps that issue them.
    """

    units: int
    clock: float
    cache: Memory
    main: Memory
    shared: float
    threads: int
    blocks: int
    registers: int
    warpgroups: bool
    tensor_memory: float
    partitions: float
    tile_m: int
    tile_n: int
    fitted: Mapping[str, float]

    @classmethod
    def of(cls, card: Card) -> Chip:
        """The chip of ``card``; one `CardError` names all that it lacks."""
        missing = [f"parameters.{name}" for name in REQUIRED if name not in card.parameters]
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
            clock=card.clock,
            cache=caches[-1],
            main=card.main,
            shared=card.parameter("shared_memory_per_unit"),
            threads=int(card.parameter("threads_per_unit")),
            blocks=int(card.parameter("blocks_per_unit")),
            registers=int(card.parameter("registers_per_unit")),
            warpgroups=card.parameter("warpgroups", 0.0) > 0.0,
            tensor_memory=card.parameter("tensor_memory_per_unit", 0.0),
            partitions=card.parameter("cache_partitions", PARTITIONS),
            tile_m=int(card.parameter("tile_m")),
            tile_n=int(card.parameter("tile_n")),
            fitted={name: card.parameter(name, constant.uncalibrated(card)) for name, constant in CONSTANTS.items()},
        )

    def __getitem__(self, constant: str) -> float:
        """The value of one of the `CONSTANTS`."""
        return self.fitted[constant]

    @property
    def main_bandwidth(self) -> float:
        """Sustained bandwidth of main memory in B/s."""
        return self.main.bandwidth * self["main_share"]

    @property
    def cache_bandwidth(self) -> float:
        """Sustained bandwidth of the cache in B/s."""
        return self.cache.bandwidth * self["cache_share"]

    def evicted(self, read: Array) -> Array:
        """The dirty bytes that ``read`` ones displace from a cache that was flushed by writing it full.

        Bytes that are written displace as many, but stay in their place.
        """
        return DIRTY_SHARE * np.minimum(read, self.cache.capacity)

    def missing(self, footprint: Array, apart: Array | float = 0.0) -> Array:
        """The share of bytes that the cache lacks when kernels of so many bytes are replayed back to back.

        None up to what a cache of two partitions keeps, each of which holds what its units read; a cache in one piece
        keeps twice as much. All from some way on, since what is over displaces as much. Bytes that one unit alone
        reads, each time the same, as far as a share ``apart`` of them, are held once and fill nearly the whole cache.
        """
        kept = self["keep"] * PARTITIONS / self.partitions
        first = kept + apart * (APART_KEEP - kept)
        ramp = self["keep_ramp"] + apart * (APART_RAMP - self["keep_ramp"])
        return clip((footprint / self.cache.capacity - first) / ramp, 0.0, 1.0)
