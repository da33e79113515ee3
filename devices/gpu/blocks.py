"""How a grid of thread blocks fills a GPU: the physics that all kernels without matrix products share.

A kernel is described by one of its blocks: the instructions that its warps issue, and how long it lives when it has
a unit to itself. Resources work side by side, each block waits for its own loads, and units take new blocks as old
ones end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.devices.gpu.chip import LANES, Chip
from hwsim.devices.gpu.timing import Array, Load, Timing, clip

SCHEDULERS = 4  # of a unit (CUDA C++ Programming Guide, all compute capabilities from 7.0 on)

# Resources that are busy at once hinder each other a little, seconds = (sum of busy^P)^(1/P); waiting takes longer in
# the queue of a busy memory, so that waits and the busiest resource add up with a lower power.
OVERLAP, QUEUEING = 8.0, 2.0

# A unit's first cache: slots of its schedulers that a lane's byte takes, and each access of a warp at least (a cycle).
FIRST_CACHE, LEAST_ACCESS = 3.0, 4.0

# Cycles from an arithmetic instruction to one that needs its result (arXiv 1804.06826, all architectures since Volta).
DEPENDENT_CYCLES = 4.0


class Blocks(NamedTuple):
    """A grid of ``blocks`` of so many ``threads`` with so many ``registers`` each.

    Each block issues ``setup`` + ``instructions`` warp instructions, waits ``queued`` slots of its schedulers for the
    first cache, and lives for ``source_waits`` answers of the
    memory that its operands are in, ``cache_waits`` answers of the cache, of which ``shared_waits`` come from that
    memory too for the first blocks, since all read the same, and ``cycles`` of dependent instructions beyond those
    that issue in a row. A block can be cut into up to ``cut`` ones where the chip is empty otherwise, at ``setup``
    each. ``again`` bytes of all blocks are read more than once, from the cache as long as it holds ``kept`` bytes and
    the ``held`` ones of each block at work. ``idle`` bytes are those that the cache could have served besides while
    it served runs shorter than its own. Code and arguments come after ``fetches`` answers; ``launches`` kernels share
    the work.
    """

    blocks: Array
    threads: Array
    registers: Array
    setup: Array
    instructions: Array
    queued: Array
    source_waits: Array
    cache_waits: Array
    shared_waits: Array
    cycles: Array
    cut: Array
    again: Array
    held: Array
    kept: Array
    idle: Array
    fetches: Array
    launches: Array


def grid(
    blocks: float,
    threads: float,
    *,
    registers: float = 32.0,
    setup: float = 0.0,
    instructions: float = 0.0,
    queued: float = 0.0,
    source_waits: float = 1.0,
    cache_waits: float = 0.0,
    shared_waits: float = 0.0,
    cycles: float = 0.0,
    cut: float = 1.0,
    again: float = 0.0,
    held: float = 0.0,
    kept: float = 0.0,
    idle: float = 0.0,
    fetches: float = 1.0,
    launches: float = 1.0,
) -> Blocks:
    """`Blocks` of one kernel, before it becomes an entry of arrays."""
    waits = (source_waits, cache_waits, shared_waits, cycles)
    sizes = (
        blocks,
        threads,
        registers,
        setup,
        instructions,
        queued,
        *waits,
        cut,
        again,
        held,
        kept,
        idle,
        fetches,
        launches,
    )
    return Blocks._make(sizes)


def spread(x: Blocks, load: Load, chip: Chip) -> Timing:
    """The first answer, then as long as the resources work and the waves of blocks wait.

    Units hold as many blocks as their threads and registers allow; a wave of them lives as long as one block, and all
    blocks are started by one distributor at `blocks_per_cycle`.
    """
    held = np.minimum(chip.threads // x.threads, chip.registers // (x.threads * x.registers))
    resident = clip(held, 1.0, chip.blocks)
    slots = chip.units * resident
    pieces = clip(np.ceil(slots / x.blocks), 1.0, x.cut)
    blocks = x.blocks * pieces
    source = chip.cache.latency + load.far * (chip.main.latency - chip.cache.latency)
    life = x.source_waits / pieces * source + x.cache_waits * chip.cache.latency + x.cycles / pieces / chip.clock
    waves = np.ceil(blocks / slots)
    each = x.setup + x.instructions / pieces
    issued = np.ceil(blocks / chip.units) * (each + x.queued / pieces) / (SCHEDULERS * chip.clock * chip["issue_share"])
    main_again = x.again * chip.missing(x.kept + np.minimum(slots, blocks) * x.held)
    busy = {
        "matmul": load.matmul / load.matmul_rate,
        "vector": np.maximum(issued, load.vector / load.vector_rate),
        "special": load.special / load.special_rate,
        **traffic(load, chip, x.again, main_again, x.idle),
    }
    starting = blocks / (chip.clock * chip["blocks_per_cycle"])
    living = waves * life + x.shared_waits * (source - chip.cache.latency)
    first = np.minimum(source, life)
    fetched = x.fetches * source
    working = together(*busy.values())
    seconds = fetched + first + together(living - first, working, power=np.where(resident > 1.0, QUEUEING, 1.0))
    seconds = np.maximum(seconds, fetched + first + starting)
    busy["latency"] = fetched + living
    return Timing(seconds, busy, x.again, main_again, launches=x.launches, issued=LANES * blocks * each)


def traffic(
    load: Load, chip: Chip, again: Array | float = 0.0, main_again: Array | float = 0.0, idle: Array | float = 0.0
) -> dict[str, Array]:
    """Seconds of cache and main memory; reads and writes cross between units and cache in opposite directions."""
    reading = (load.read + again + idle) / chip.cache_bandwidth
    writing = load.write / (chip.cache_bandwidth * chip["cache_write_share"])
    return {
        "cache": np.maximum(reading, writing),
        "main": (load.main_read + load.main_write + load.evicted + main_again) / chip.main_bandwidth,
    }


def accesses(count: float, width: float) -> float:
    """Slots of schedulers that ``count`` accesses of a warp, ``width`` bytes a lane, wait for the first cache."""
    return count * max(LEAST_ACCESS, FIRST_CACHE * width)


def together(*busy: Array, power: Array | float = OVERLAP) -> Array:
    """The time of resources that work side by side, never below that of the busiest."""
    parts = np.array(busy)
    most = parts.max(axis=0)
    total = ((parts / np.where(most > 0.0, most, 1.0)) ** power).sum(axis=0)
    slower = np.maximum(1.0, total) ** (1.0 / power)
    return np.asarray(most * slower)
