"""Attention as FlashAttention and its kin run it: tiles of queries that several blocks of threads take turns with.

FlashAttention-2 (arXiv 2307.08691) on cards without warpgroups, FlashAttention-3 (arXiv 2407.08608) on those with, and
where products are summed in tensor memory TensorRT-LLM's kernels for caches and FlashAttention-4 without one. They
differ in how they cut the work, in the cycles that a tile and a block of keys cost beside arithmetic, and in what hides
behind what.

The cycles are common to all cards of a library; they were read off time over keys, queries and tiles in public tables
of paged caches (bf16, six GPUs, a sample of 1,500 shapes each).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.devices.gpu.attention_tiles import (
    PARTIAL_BYTES,
    Attention,
    Cut,
    again,
    main_seconds,
    missing,
    step,
    tiled,
    walked,
)
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing, clip

# FlashAttention csrc/flash_attn/src/flash_fwd_launch_template.h, hopper/tile_size.h; FlashInfer, CTA_TILE_Q.
WIDTH, LOOSE_WIDTH = 32, 64  # head sizes are padded to a multiple, the latter by FlashAttention-4
STAGE = 64 * 1024  # bytes of keys and values that a block of threads loads at once; half without a paged cache
ROWS = 64  # queries of one warpgroup, and of FlashAttention-2 with a paged cache
PAIR_ROWS = 256  # two tiles of 128 that share a unit's tensor memory
LEAST_ROWS = 8  # of a tile of single queries whose products are transposed
BLOCK_REGISTERS = 128 * 255  # of threads of a block whose warps hold the sums
BUSY_ENOUGH = 0.8  # of the chip, so that keys are not cut (num_splits_heuristic)
JOIN_CYCLES = 2000.0  # of the kernel that joins parts
SHARES = np.array([[1.0], [0.5], [0.25], [0.125]])
ANSWERS = 1.0  # of memory before the first product: block tables or descriptors
BURST = 0.4  # share of the queries' and outputs' way to main memory that no other work covers
KEYS = 128.0  # of a block


Number: TypeAlias = float | Array


class Library(NamedTuple):
    """What kernels cost beside arithmetic, in cycles, or in bytes a cycle between one unit and the cache.

    A tile takes ``turn`` cycles and its first keys and values at ``first`` B a cycle, a block of keys ``pause`` cycles
    of waits, a row of queries and outputs its bytes at ``ends``. ``overlap`` is the share of the shorter of products
    and softmax that hides, ``idle`` the share of tiles' turns in which main memory has nothing to do, ``exponentials``
    the share of them that special units calculate. Keys are cut into ``most`` parts at most; when these are joined,
    ``unrolled`` of them are on their way.
    """

    turn: Number
    first: Number
    pause: Number
    ends: Number
    overlap: Number
    idle: Number
    exponentials: Number
    unrolled: Number
    most: Number


FLASH2 = Library(2800.0, np.inf, 700.0, 19.0, 0.9, 0.0, 1.0, 1.0, 128.0)
FLASH3 = Library(3100.0, 43.0, 550.0, 19.0, 0.56, 0.7, 1.0, 4.0, 32.0)
FLASH4 = Library(4500.0, np.inf, 400.0, 25.0, 1.0, 0.0, 0.75, 4.0, 128.0)
TENSORRT = Library(1600.0, 90.0, 400.0, 25.0, 1.0, 0.0, 1.0, 4.0, 128.0)


class Plan(NamedTuple):
    """How a library cuts the work: its ``cut``, into how many ``loads`` a block of keys is cut again so that they fit
    shared memory, how many blocks of threads share a unit, which kernels may split their keys."""

    library: Library
    cut: Cut
    loads: Array
    residents: Array
    split: npt.NDArray[np.bool_]


def plan(x: Attention, chip: Chip, served: bool = True) -> Plan:
    """The plan of the library that belongs to the card; ``served`` as serving frameworks call it, with paged caches.

    FlashAttention-2 packs groups of heads for single queries only, and with paged caches splits keys for these only.
    """
    wide = np.ceil(x.head_dim / WIDTH) * WIDTH
    row_bytes = row(x, WIDTH)
    single, loose = x.q_len <= 1, (x.causal == 0) & (x.q_len > 1)
    everywhere = np.ones_like(single)
    if not chip.warpgroups:
        stage = np.where(loose, STAGE / 2, STAGE) / row_bytes
        held = 2.0 ** clip(np.floor(np.log2(stage)), 5.0, np.where(loose, 7.0, 8.0))
        rows = np.where(loose, 2.0 * ROWS, ROWS)
        shared = rows * wide * x.element + held * row_bytes
        residents = clip(np.floor(chip.shared / shared), 1.0, chip.registers // BLOCK_REGISTERS)
        split = single & ((x.group > 1) | (not served))
        packed = np.where(single, x.group, 1.0)
        return Plan(FLASH2, Cut(rows, held, packed, WIDTH), np.ones_like(held), residents, split)
    keys = np.full_like(row_bytes, KEYS)
    loads = KEYS / clip(np.floor(STAGE / row_bytes / 16.0) * 16.0, 48.0, KEYS)
    queries = x.q_len * x.group
    alone = np.ones_like(keys)
    if not chip.tensor_memory:
        rows = np.where(queries <= ROWS, ROWS, 2.0 * ROWS)
        return Plan(FLASH3, Cut(rows, keys, x.group, WIDTH), loads, alone, everywhere)
    few = 2.0 ** np.ceil(np.log2(clip(queries, LEAST_ROWS, 2 * ROWS)))
    rows = np.where(single, few, PAIR_ROWS)
    library = Library(*(np.where(loose, *pair) for pair in zip(FLASH4, TENSORRT, strict=True)))
    cut = Cut(rows, keys, np.where(single, x.group, 1.0), np.where(loose, LOOSE_WIDTH, WIDTH))
    return Plan(library, cut, loads, alone, everywhere)


def row(x: Attention, width: Number) -> Array:
    """Bytes of a key and its value, or of a query and its output, padded to a multiple of ``width``."""
    nbytes: Array = (np.ceil(x.head_dim / width) + np.ceil(x.v_dim / width)) * width * x.element
    return nbytes


class _Unit(NamedTuple):
    """Seconds on one unit: the ``work`` of a block of keys and the waits of it, of a tile and of its ends; the ``port``
    that a block's bytes keep busy."""

    matmul: Array
    work: Array
    pause: Array
    turn: Array
    ends: Array
    port: Array

    @property
    def lone(self) -> Array:
        """A block of a tile that has the unit to itself."""
        return np.maximum(self.work + self.pause, self.port)


def unit(x: Attention, load: Load, chip: Chip, plan: Plan, tiles: Array) -> _Unit:
    """The times of one unit.

    Warps that hold the sums wait with their unit, unless another block of threads is there. Warpgroups and tensor
    memory let a tile's halves take turns: the unit works for the slower of their chain and its busiest part. What
    warpgroups wait for is main memory.
    """
    library, cut = plan.library, plan.cut
    row_bytes = row(x, cut.width)
    one = step(x, load, chip, cut, exponentials=library.exponentials)
    both = one.matmul + one.softmax
    pause = plan.loads * library.pause / chip.clock
    hidden = library.overlap * np.minimum(one.matmul, one.softmax)
    if chip.warpgroups:
        strands = np.maximum(1.0, cut.rows / (2 * ROWS if chip.tensor_memory else ROWS))
        late = np.ones_like(both) if chip.tensor_memory else missing(load)
        work, pause = np.maximum(both - hidden, both / strands + pause * late), np.zeros_like(both)
    else:
        work = both - hidden * (plan.residents - 1)
    rows = np.minimum(cut.rows, np.ceil(x.q_len * cut.packed / tiles))
    main = BURST * missing(load) * chip.units / chip.main_bandwidth
    return _Unit(
        one.matmul,
        work,
        pause,
        (library.turn + KEYS * row_bytes / library.first) / chip.clock,
        rows * row_bytes * (1.0 / (library.ends * chip.clock) + main),
        cut.keys * row_bytes * chip.units / chip.cache.bandwidth,
    )


def flash(x: Attention, load: Load, chip: Chip, served: bool = True) -> Timing:
    """Tiles over the units: a unit's work adds up, the waits of its residents run side by side.

    Where tiles differ (causal), the busiest unit has half a longest tile more than its share. Main memory works beside
    the units, but a last round of tiles waits for its own walk, and so do turns that nothing covers.
    """
    planned = plan(x, chip, served)
    library, cut, residents = planned.library, planned.cut, planned.residents
    tiles, walk, longest = walked(x, cut.rows / cut.packed, cut.keys)
    heads = x.pairs * x.group / cut.packed
    count, blocks = heads * tiles, heads * walk
    one = unit(x, load, chip, planned, tiles)
    may = planned.split & (x.backward == 0)
    main = main_seconds(load, chip)
    splits, join = parts(x, np.where(may, count, np.inf), longest, one, main, chip, library)
    count, part = count * splits, np.ceil(longest / splits)
    rounds = np.ceil(count / chip.units)
    share = np.maximum(part, blocks / chip.units + part / 2)
    busiest = np.where(x.causal > 0, np.minimum(rounds * part, share), rounds * part)
    waits = np.maximum(part, busiest / np.minimum(residents, rounds)) * one.pause
    walking = np.maximum(busiest * one.work + waits, busiest * one.port)
    busy = walking + rounds * one.ends + np.ceil(rounds / residents) * one.turn
    more = again(x, cut, blocks)
    cache = (load.read + load.write + more) / chip.cache_bandwidth
    late = np.where(x.causal > 0, 0.0, _late(main, count, chip.units * residents, part * one.lone + one.turn))
    stalled = main + library.idle * rounds * (one.turn + one.lone)
    start = chip["attention_latency"] + ANSWERS * (chip.main.latency + chip.cache.latency)
    seconds = start + np.maximum(np.maximum(busy, cache), np.maximum(stalled, late)) + join
    used = {"matmul": np.minimum(busiest * one.matmul, seconds), "special": load.special / load.special_rate}
    launches = np.where(x.backward > 0, 3.0, np.where(splits > 1, 2.0, 1.0))
    work = tiled(x, load, cut, blocks)
    return Timing(
        seconds,
        {**used, "cache": cache, "main": main},
        cache_again=more,
        padding=work.padding,
        launches=launches,
        issued=work.issued,
    )


def _late(main: Array, count: Array, slots: Array, life: Array) -> Array:
    """Seconds of full rounds at the pace of main memory, and of the ``life`` of a tile of the last round."""
    full = np.floor(count / slots) * slots
    return main * full / count + np.where(full < count, life, 0.0)


def parts(
    x: Attention, count: Array, longest: Array, one: _Unit, main: Array, chip: Chip, library: Library
) -> tuple[Array, Array]:
    """Into how many parts keys are cut, and seconds to join them: as many as residents of units, or a half, a quarter,
    an eighth of that, or one, as is best.

    Libraries take the most, which costs them up to half of their time where one sequence is long.
    """
    room = chip.units * (1.0 if chip.warpgroups else chip.registers // BLOCK_REGISTERS)

    def walking(splits: Array | float, part: Array) -> Array:
        rounds = np.ceil(count * splits / chip.units)
        return np.maximum(rounds * (part * one.lone + one.turn), main)

    most = np.minimum(np.minimum(room / count, longest), library.most)
    shares = np.where(count < BUSY_ENOUGH * room, most, 1.0) * SHARES
    part = np.ceil(longest / np.maximum(np.floor(shares), 1.0))
    splits = np.ceil(longest / part)
    join = joined(x, splits, chip, library.unrolled)
    seconds = np.where(splits > 1, walking(splits, part) + join + chip["graph_launch_latency"], np.inf)
    best = np.argmin(seconds, axis=0), np.arange(len(longest))
    better = seconds[best] < walking(1.0, longest)
    return np.where(better, splits[best], 1.0), np.where(better, join[best], 0.0)


def joined(x: Attention, splits: Array, chip: Chip, unrolled: Number) -> Array:
    """Seconds of the kernel that joins what ``splits`` parts of the keys gave, in fp32; none for one part."""
    moved = 2 * splits * x.pairs * x.group * x.q_len * x.v_dim * PARTIAL_BYTES
    wait = JOIN_CYCLES / chip.clock + splits / unrolled * chip.cache.latency
    return np.where(splits > 1, moved / chip.cache_bandwidth + wait, 0.0)
