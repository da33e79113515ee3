"""Matrix products on a GPU: cut into tiles and slices of k by the cut that takes least time, as libraries do.

A tile of rows x columns of the result walks its slice of k in steps of 128 bytes of every operand row:

    walk  = waves x steps x max(2 x rows x columns x depth / rate, operands of a step / loads, least step)
            (a sum in place of the maximum of the first two, where warps that multiply make the copies one by one)
    store = waves x rows x columns x result / (port x store share), half hidden behind the next tile's walk
    seconds = start + max(walk + store, traffic) + overlap x min(walk + store, traffic) + cost of slices

Libraries write the main loop in five ways, which differ in their tiles, in how they load operands and in the share of
the peak that they reach: with instructions of a warpgroup (wgmma and what follows it), of a warp (mma.sync, with copies
as wide as rows are aligned), and of lanes (fp32). Products with a vector, and of few rows on lanes, have kernels of
their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.devices.gpu.blocks import SCHEDULERS
from hwsim.devices.gpu.chip import LANES as WARP_LANES
from hwsim.devices.gpu.chip import LOAD_BYTES, Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.loads import Columns
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.gpu.ways import by_way
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

STEP_BYTES = 128.0  # of each operand row in a step: one swizzled line of shared memory (CUTLASS, Hopper main loops)
PORT_BYTES = 64.0  # a clock between the cache and one unit (NVIDIA A100 whitepaper: 5,120 B a clock for 80 read ports)
PARTIAL_BYTES = 4.0  # of a partial sum in fp32
STEP_CYCLES = 150.0  # of the smallest step of a warpgroup: a barrier and four dependent instructions (k = 128 to 2,048)
HALF_BYTES = 2.0  # of an element of fp16 or bf16
GROUP_SLICES, WARP_SLICES = 16.0, 128.0  # most slices that cuBLAS cuts k into (grids of its kernels)
SLICE_ANSWERS = 0.2  # of the cache, for each slice that a partial sum is met with (8 to 128 slices, H100)
START_ANSWERS = 2.0  # of memory, one after the other, before the first step: descriptors, then operands
STORES_HIDDEN = 0.5  # of a store behind the next tile of a warpgroup kernel that stays on its unit
# Rows that are not aligned: bytes of a copy into shared memory (PTX ISA, cp.async), or one element at a time; copies
# and stores that a unit makes in a cycle; a step of a block that has a unit to itself waits for one answer after the
# other, which several blocks do meanwhile (16 x 16 to 128 x 256 results, H100).
ASYNC_BYTES, NARROW_COPIES, NARROW_STORES = 4, 5.0, 3.0
NARROW_STEP_CYCLES, NARROW_BLOCKS = 650.0, 8.0
# Lanes' tiles pay for their operands' way from shared memory: rows of a tile that take as long as its results. And
# results that a unit needs in the making, or it waits for instructions; kernels that cut k need more (32 x 32 to 128 x
# 128, H100).
LANE_ROWS, LANE_RESULTS, SLICED_RESULTS = 15.5, 1200.0, 3000.0
# Few rows on lanes (cuBLAS's gemmSN, 209 shapes on an H100): instructions for a weight, and for each row that meets it;
# steps of k for an answer of memory; cycles of a block besides.
WEIGHT_INSTRUCTIONS, ROW_INSTRUCTIONS, ANSWERED, FEW_CYCLES = 12.0, 8.0, 56.0, 400.0
# MAGMA's kernel, which cuBLAS takes for batches of bf16 with few unaligned rows and many results (21 shapes on an
# H100): instructions for each result of a tile, full or not.
FIXED_INSTRUCTIONS, FIXED_COLUMNS, FIXED_RESULTS = 5.5, 512, 1e5
VECTOR_ELEMENTS = 6.5  # of a product with a vector that a unit takes in a cycle (2.2 TB/s of bf16 weights, H100)
VECTOR_CUT = 0.125  # of a unit: such products are cut finer than the others
SHORT_ROWS = 32  # of products for which libraries take warps' tiles with sides below 64
FED_ROWS = 64.0  # of the shorter side, from which operands cost their full way to matrix units (joules of decoding)
TIE = 0.02  # of the time to load operands: of cuts that are as fast, one that loads less
LARGEST = 128 * 256  # results of a tile, as accumulators fill the registers

# Main loops by the names of the kernels that cuBLAS 13 takes for 3,200 shapes on two H100: nvjet's; cutlass_80 with
# copies of 16 bytes, or of 4 where rows are aligned to these only; cutlass_75 for rows of odd length; lanes' (ffma,
# simt).
GROUP, WARP, NARROW, ROUGH, LANES = range(5)
_SIDES = (64, 128, 256)
_TILES: tuple[set[tuple[int, int]], ...] = (
    {pair for w in (64, 128, 192, 256) for s in (8, 16, 32, 64, 96, 128, 160, 192, 256) for pair in ((w, s), (s, w))},
    {(w, s) for w in _SIDES for s in _SIDES},
    {(w, s) for w in _SIDES for s in _SIDES} | {(32, 32), (16, 16)},
    {(64, 64), (128, 128), (32, 32), (16, 16)},
    {(w, s) for w in (32, 64, 128, 256) for s in (32, 64, 128, 256) if w * s <= 128 * 128},
)
# Share of the peak that their matrix instructions reach: mma.sync beside warpgroup instructions (arXiv 2402.13499,
# H100: 62.9 % on average), and less of k = 8 (tiles of 64 to 256 rows, H100).
_SHARES = {WARP: 0.63, NARROW: 0.63, ROUGH: 0.5}
_VECTORS = ((1, 4), (4, 1))  # of a product with a vector (cuBLAS gemv): a block reads its rows whole, nothing is cut
_FEW = (16, 8)  # of a product of few rows on lanes (cuBLAS gemmSN): as many rows as there are
_FIXED = (24, 64)  # of MAGMA's kernel
_WHOLE = {GROUP: 1.0, WARP: 1.0, NARROW: 0.5, ROUGH: 0.5, LANES: 0.25}  # parts of a step that a loop does whole
_LEAST_STEPS = {GROUP: 4.0, WARP: 4.0, NARROW: 4.0, ROUGH: 4.0, LANES: 1.0}  # of a slice
_MOST_ROWS = {ROUGH: 8, LANES: 16}  # for which cuBLAS has gemmSN
# Tries of a tile: whole, as many slices as units are free, half and twice as many, three however many are free.
_THIRDS = 3.0
_CUTS = (0.0, 1.0, 0.5, 2.0, _THIRDS)


TILE, VECTOR, FEW, FIXED = range(4)


class Tiles(NamedTuple):
    """The tiles that a main loop may take, each with its tries: sides, the share of free units that slices take, and
    which kind it is: an ordinary `TILE`, one of `_VECTORS`, the `_FEW` or the `_FIXED` one."""

    rows: Array
    columns: Array
    free: Array
    kind: npt.NDArray[np.int64]


def _tiles(loop: int) -> Tiles:
    shapes = [(*shape, TILE) for shape in sorted(_TILES[loop]) if shape[0] * shape[1] <= LARGEST]
    shapes += [] if loop == GROUP else [(*shape, VECTOR) for shape in _VECTORS]
    shapes += [(*_FEW, FEW)] if loop in (ROUGH, LANES) else []
    shapes += [(*_FIXED, FIXED)] if loop == ROUGH else []
    tries = [(*shape, free) for shape in shapes for free in (_CUTS if shape[2] == TILE else _CUTS[:1])]
    rows, columns, kind, free = np.array(tries).T
    return Tiles(rows, columns, free, kind.astype(int))


TILES = tuple(_tiles(loop) for loop in range(len(_TILES)))


class Product(NamedTuple):
    """``batch`` products of m x k by k x n; bytes of an operand's and of a result's element, the largest power of two
    up to 16 that divides all their rows in bytes, or the results' alone, and whether operands are integers, or fp16."""

    batch: Array
    m: Array
    n: Array
    k: Array
    element: Array
    result: Array
    aligned: Array
    stored: Array
    integer: Array
    fp16: Array


def shape(kernel: Kernel) -> Product:
    """The `Product` of one kernel; each expert that some row takes is a product of an equal share of the rows."""
    m, n, k, batch = (max(1, kernel.size(name, 1)) for name in ("m", "n", "k", "batch"))
    experts = kernel.size("experts")
    if experts:
        batch = max(1, round(experts * (1 - (1 - 1 / experts) ** m)))
        m = -(-m // batch)
    fmt = dtype(kernel.work.dtype)
    element = fmt.bytes_for(1)
    result = max(element, kernel.write_bytes / (float(batch) * m * n))
    stored = _aligned(n * result)
    aligned = min(_aligned(k * element), stored)
    kinds = fmt.kind == "int", kernel.work.dtype == "fp16"
    return Product._make((batch, m, n, k, element, result, aligned, stored, *kinds))


def _aligned(row_bytes: float) -> int:
    return gcd(max(1, int(row_bytes)), LOAD_BYTES)


def timing(x: Product, load: Load, chip: Chip) -> Timing:
    """Times of the best cuts."""
    return by_way(ways(x, load, chip), LOOPS, x, load, chip)


def cut(loop: int, x: Product, load: Load, chip: Chip) -> Timing:
    """Times of products of one main loop."""
    again = refetched(x, chip)
    main = (load.main_read + load.main_write + load.evicted + again) / chip.main_bandwidth
    cache = (load.read + load.write) / chip.cache.bandwidth
    cuts = _Cuts(loop, x, chip)
    tile = TILES[loop].kind == TILE
    lanes = (load.vector_rate * chip["simt_share"] / chip.units)[:, None]
    rates = np.where(TILES[loop].kind >= FEW, lanes, (load.matmul_rate * _share(loop, chip) / chip.units)[:, None])
    arithmetic = cuts.arithmetic(rates)
    source = np.asarray(chip.cache.latency + load.far * (chip.main.latency - chip.cache.latency))
    # Narrow copies are instructions of the warps that multiply, others are made beside them.
    side_by_side = np.maximum(arithmetic, cuts.loading)
    walk = np.where(tile, arithmetic + cuts.loading, side_by_side) if loop in (NARROW, ROUGH) else side_by_side
    walk = np.maximum(walk, cuts.least(source[:, None], rates))
    work, moved = walk + cuts.store - cuts.hidden(walk), np.maximum(main, cache / chip["cache_share"])[:, None]
    start = np.asarray(chip["tile_latency"] + START_ANSWERS * (source - chip.cache.latency))
    overlap = np.where(TILES[loop].kind == VECTOR, 0.0, chip["matmul_overlap"])
    seconds = start[:, None] + np.maximum(work, moved) + overlap * np.minimum(work, moved) + cuts.sliced
    best = np.argmin(np.where(cuts.allowed, seconds + TIE * cuts.loading, np.inf), axis=1)
    rows = np.arange(len(best))

    def at(values: Array) -> Array:
        picked: Array = values[rows, best]
        return picked

    taken, loaded = at(seconds), at(cuts.loaded)
    return Timing(
        taken,
        {
            "matmul": np.minimum(at(arithmetic), taken),
            "cache": np.minimum(np.maximum(at(cuts.loading), cache), taken),
            "main": main,
        },
        cache_again=np.maximum(0.0, loaded - load.read),
        main_again=again,
        padding=np.maximum(1.0, at(cuts.worked) / np.maximum(load.matmul, 1.0)),
        issued=loaded / narrow_copies(loop, x) * WARP_LANES * SCHEDULERS / NARROW_COPIES,
        fed=np.minimum(1.0, np.minimum(x.m, x.n) / FED_ROWS),
    )


def _share(loop: int, chip: Chip) -> float:
    """The share of the peak rate that a main loop reaches."""
    if loop == LANES:
        return chip["simt_share"]
    return chip["matmul_share"] * (_SHARES[loop] if loop != GROUP and chip.warpgroups else 1.0)


def ways(x: Product, load: Load | Columns, chip: Chip) -> npt.NDArray[np.int64]:
    """Which main loop each product gets: `GROUP`, `WARP`, `NARROW`, `ROUGH` (warps', rows not aligned) or `LANES`.

    cuBLAS has warpgroup kernels for aligned floats only.
    """
    lanes = load.matmul_rate <= 2.02 * load.vector_rate
    grouped = (x.integer == 0) if chip.warpgroups else np.zeros(len(x.m), bool)
    way: npt.NDArray[np.int64] = np.where(
        lanes,
        LANES,
        np.where(
            x.aligned < ASYNC_BYTES,
            ROUGH,
            np.where(x.aligned < LOAD_BYTES, NARROW, np.where(grouped, GROUP, WARP)),
        ),
    )
    return way


def apart(x: Product, columns: Columns, chip: Chip) -> Array:
    """The share of a product's bytes that one unit alone reads: results, and operands that one row of tiles meets.

    Warpgroup kernels have one block a unit, the same in every replay; others' blocks go to whichever unit is free.
    """
    a, b, results = x.batch * x.m * x.k * x.element, x.batch * x.n * x.k * x.element, x.batch * x.m * x.n * x.result
    shared = np.where(x.n > chip.tile_m, a, 0.0) + np.where(x.m > chip.tile_m, b, 0.0)
    return np.where(ways(x, columns, chip) == GROUP, 1.0 - shared / (a + b + results), 0.0)


def loads(loop: int, x: Product, chip: Chip) -> Array:
    """The bytes a second at which a unit loads operands.

    The copy engines of warpgroup kernels fill its port to the cache. Threads get what the cache gives a unit, and
    less where rows are not aligned: `NARROW_COPIES` a cycle of `ASYNC_BYTES`, or of single elements below that.
    """
    if loop == GROUP:
        return np.full_like(x.m, PORT_BYTES * chip.clock)
    return np.minimum(NARROW_COPIES * chip.clock * narrow_copies(loop, x), chip.cache.bandwidth / chip.units)


def narrow_copies(loop: int, x: Product) -> Array:
    """The bytes of a copy that takes instructions of its own; without end where rows are aligned."""
    return np.minimum(x.aligned, ASYNC_BYTES) if loop in (NARROW, ROUGH) else np.full_like(x.m, np.inf)


def refetched(x: Product, chip: Chip) -> Array:
    """Operand bytes that main memory delivers more than once.

    The tiles of a wave cover a block of about square shape; unless one operand stays in the cache, each block reads
    its rows and columns anew: A comes n / block_n times and B m / block_m times.
    """
    a, b = x.m * x.k * x.element, x.n * x.k * x.element
    area = float(chip.units * chip.tile_m * chip.tile_n)
    block_m = np.minimum(x.m, np.sqrt(area))
    block_n = np.minimum(x.n, area / block_m)
    block_m = np.minimum(x.m, area / block_n)
    again = x.batch * (a * (x.n / block_n - 1) + b * (x.m / block_m - 1))
    return np.where(np.minimum(a, b) <= chip.cache.capacity / 2, 0.0, again)


class _Cuts:
    """Every tile and number of slices of a main loop, for every product: arrays of products x cuts."""

    def __init__(self, loop: int, x: Product, chip: Chip) -> None:
        batch, m, n, k, element, result = (column[:, None] for column in x[:6])
        tiles, self.grouped = TILES[loop], loop == GROUP
        self._loop, self._clock = loop, chip.clock
        pieces = batch * np.ceil(m / tiles.rows) * np.ceil(n / tiles.columns)
        steps = np.ceil(k * element / (_WHOLE[loop] * STEP_BYTES)) * _WHOLE[loop]
        split = (batch == 1) & (x.integer[:, None] == 0)  # cuBLAS splits neither batches nor integer sums
        slices = _slices(loop, np.where(split & (tiles.kind == TILE), steps, 1.0), chip.units / pieces)
        self.steps = np.ceil(steps / slices / _WHOLE[loop]) * _WHOLE[loop]
        waves = np.maximum(np.where(tiles.kind == VECTOR, VECTOR_CUT, 1.0), pieces * slices / chip.units)
        # Warpgroup kernels stay on their unit and share what is left of the last wave, vectors need little of a unit;
        # others leave units idle.
        self.waves = waves if self.grouped else np.where(tiles.kind == VECTOR, waves, np.ceil(waves))
        self.allowed = _allowed(loop, x)
        rows, columns = np.minimum(m, tiles.rows), np.minimum(n, tiles.columns)
        # Pairs of warpgroup kernels load each half of their longer edge for both (CUTLASS, clusters and multicast).
        edge = rows + columns - (np.maximum(rows, columns) / 2 if self.grouped else 0.0)
        self.depth = STEP_BYTES / element
        results = np.where(tiles.kind == FEW, m, tiles.rows) * tiles.columns
        self.work = results * _cost(loop, m, self.waves, slices)
        self.loading = self.waves * self.steps * edge * STEP_BYTES / _rates(loop, x, chip)
        stored = results * result / _stores(loop, x, chip)
        stored = np.where(tiles.kind == FEW, FEW_CYCLES / chip.clock * (1 - 1 / self.waves), stored)
        self.store = self.waves * stored
        self.loaded = pieces * slices * self.steps * edge * STEP_BYTES
        self.worked = 2 * pieces * slices * self.steps * results * self.depth
        partial_sums = 2 * PARTIAL_BYTES * slices * batch * m * n / chip.cache_bandwidth
        met = chip["slice_latency"] + SLICE_ANSWERS * slices * chip.cache.latency
        self.sliced = np.where(slices > 1, met + partial_sums, 0.0)

    def arithmetic(self, rate: Array) -> Array:
        """Seconds of the matrix units at ``rate`` FLOP/s a unit, padding included."""
        seconds: Array = self.waves * self.steps * 2 * self.work * self.depth / rate
        return seconds

    def least(self, source: Array, rate: Array) -> Array | float:
        """Seconds of blocks that have a unit to themselves, and wait for answers of ``source`` seconds."""
        kind = TILES[self._loop].kind
        if self.grouped:
            return np.asarray(self.waves * self.steps * STEP_CYCLES / self._clock)
        if self._loop in (NARROW, ROUGH):
            turns = np.maximum(1.0, self.waves / NARROW_BLOCKS) * NARROW_STEP_CYCLES / self._clock
        else:
            turns = np.zeros_like(self.waves)
        few = self.depth * (2 * self.work / rate + source / ANSWERED)
        return np.asarray(self.steps * np.where(kind == TILE, turns, np.where(kind == FEW, few, 0.0)))

    def hidden(self, walk: Array) -> Array | float:
        """Seconds of stores that the walks of later tiles hide."""
        if not self.grouped:
            return 0.0
        hidden: Array = STORES_HIDDEN * np.minimum(walk, self.store) * (1.0 - 1.0 / self.waves)
        return hidden


def _slices(loop: int, steps: Array, free: Array) -> Array:
    """The slices of every try, of at least so many steps; ``free`` are the units for each piece."""
    tries = TILES[loop].free
    wanted = np.floor(np.where(tries == _THIRDS, _THIRDS, tries * free))
    most = np.minimum(GROUP_SLICES if loop == GROUP else WARP_SLICES, np.floor(steps / _LEAST_STEPS[loop]))
    return np.maximum(1.0, np.minimum(wanted, most))


def _rates(loop: int, x: Product, chip: Chip) -> Array:
    """The bytes a second at which a unit loads the operands of each tile."""
    tiles = TILES[loop]
    vector = VECTOR_ELEMENTS * x.element[:, None] * chip.clock
    rate = np.where(tiles.kind == VECTOR, vector, chip.cache.bandwidth / chip.units)
    ordinary = np.broadcast_to(loads(loop, x, chip)[:, None], rate.shape)
    if loop == ROUGH:  # bf16 has no small tiles that load one step while they multiply another
        alone = (np.minimum(tiles.rows, tiles.columns) <= SHORT_ROWS) & (x.fp16[:, None] == 0)
        ordinary = np.where(alone, ordinary / 2, ordinary)
    return np.where(tiles.kind == TILE, ordinary, rate)


def _stores(loop: int, x: Product, chip: Chip) -> Array | float:
    """The bytes a second at which a unit stores results."""
    port = PORT_BYTES * chip["store_share"] * chip.clock
    if loop not in (NARROW, ROUGH):
        return port
    return np.minimum(port, NARROW_STORES * chip.clock * x.stored[:, None])


def _allowed(loop: int, x: Product) -> npt.NDArray[np.bool_]:
    """Which tiles a library takes for each product, whatever they cost."""
    batch, m, n, fp16 = x.batch[:, None], x.m[:, None], x.n[:, None], x.fp16[:, None] > 0
    tiles, kind = TILES[loop], TILES[loop].kind
    vector = np.where(tiles.rows == 1, m == 1, n == 1)
    allowed: npt.NDArray[np.bool_] = (kind == TILE) | (kind == VECTOR) & vector
    allowed = allowed | (kind == FEW) & (m <= _MOST_ROWS.get(loop, 0))
    if loop in (NARROW, ROUGH):
        short = (m <= SHORT_ROWS) & (fp16 | (batch > 1) | (loop == NARROW))
        allowed = allowed & (short | (kind != TILE) | (np.minimum(tiles.rows, tiles.columns) > SHORT_ROWS))
    if loop in (NARROW, ROUGH, LANES):
        allowed = np.where(np.minimum(m, n) == 1, (kind == VECTOR) & vector, allowed)
    if loop == ROUGH:
        bf16 = ~fp16 & (x.integer[:, None] == 0) & (x.element[:, None] == HALF_BYTES)
        few = (batch > 1) & (m > 1) & (m <= _FIXED[0]) & (n >= FIXED_COLUMNS)
        allowed = np.where(bf16 & few & (batch * m * n >= FIXED_RESULTS), kind == FIXED, allowed)
    return allowed


def _cost(loop: int, m: Array, waves: Array, slices: Array) -> Array:
    """Time of a tile over that of its results at the rate of its units."""
    tiles = TILES[loop]
    few = (WEIGHT_INSTRUCTIONS / m + ROW_INSTRUCTIONS) / 2
    cost = np.where(tiles.kind == FEW, few, np.where(tiles.kind == FIXED, FIXED_INSTRUCTIONS / 2, 1.0))
    return np.where(tiles.kind == TILE, _lane_cost(tiles, waves, slices), cost) if loop == LANES else cost


def _lane_cost(tiles: Tiles, waves: Array, slices: Array) -> Array:
    """Time of a tile on lanes over that of its results."""
    operands = 1 + LANE_ROWS * (1 / tiles.rows + 1 / tiles.columns)
    waiting = 1 + np.where(slices > 1, SLICED_RESULTS, LANE_RESULTS) / (tiles.rows * tiles.columns * waves)
    return np.asarray(operands * waiting)


LOOPS: Mapping[int, Callable[[Product, Load, Chip], Timing]] = {loop: partial(cut, loop) for loop in range(len(_TILES))}
MATMUL = Family(shape, timing, apart)
