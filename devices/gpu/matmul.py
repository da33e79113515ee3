"""Matrix products on a GPU: cut into tiles and slices of k by the cut that takes least time, as libraries do.

A tile of rows x columns of the result walks its slice of k in steps of 128 bytes of every operand row:

    walk  = waves x steps x max(2 x rows x columns x depth / rate, operands of a step / loads, least step)
    store = waves x rows x columns x result / (port x store share), half hidden behind the next tile's walk
    seconds = start + max(walk + store, traffic) + overlap x min(walk + store, traffic) + cost of slices

Libraries write the main loop in five ways, which differ in their tiles, in how they load operands and in the share of
the peak that they reach: with instructions of a warpgroup (wgmma and what follows it), of a warp (mma.sync, with copies
as wide as rows are aligned), and of lanes (fp32).
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
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.gpu.ways import by_way
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

STEP_BYTES = 128.0  # of each operand row in a step: one swizzled line of shared memory (CUTLASS, Hopper main loops)
PORT_BYTES = 64.0  # a clock between the cache and one unit (NVIDIA A100 whitepaper: 5,120 B a clock for 80 read ports)
PARTIAL_BYTES = 4.0  # of a partial sum in fp32
STEP_CYCLES = 150.0  # of the smallest step of a warpgroup: a barrier and four dependent instructions (k = 128 to 2,048)
# Share of the peak that mma.sync reaches beside warpgroup instructions (arXiv 2402.13499, H100: 62.9 % on average).
WARP_SHARE = 0.63
LEAST_STEPS = 4.0  # of a slice
GROUP_SLICES, WARP_SLICES = 16.0, 32.0  # most slices that cuBLAS cuts k into (time over k of products with few tiles)
ASYNC_BYTES = 4  # of a copy into shared memory where rows are not multiples of 16 bytes (PTX ISA, cp.async)
NARROW_COPIES = 3.0  # such copies, or element by element, that a unit makes in a cycle (large products on an H200)
# Lanes' tiles pay for their operands' way from shared memory: rows of a tile that take as long (128 x 128, 64 x 64 and
# 32 x 128 at 50, 38 and 26 TFLOP/s on an H200). Two warps, of a tile with a side of 32, keep half of a unit busy.
LANE_ROWS, LANE_WARPS, SMALL_SIDE, SMALL_WARPS = 30.0, 4.0, 32, 2.0
START_ANSWERS = 2.0  # of memory, one after the other, before the first step: descriptors, then operands
STORES_HIDDEN = 0.5  # of a store behind the next tile of a warpgroup kernel that stays on its unit
SKINNY = 6.0  # time of gemmSN's lanes over that of a square tile's (fp32, 2 to 14 rows, H200)
FED_ROWS = 64.0  # of the shorter side, from which operands cost their full way to matrix units (joules of decoding)
TIE = 0.02  # of the time to load operands: of cuts that are as fast, one that loads less
LARGEST = 128 * 256  # results of a tile, as accumulators fill the registers

# Main loops by the names of the kernels that cuBLAS 13 takes for 660 shapes on an H100: nvjet's; cutlass_80 with copies
# of 16 bytes, or of 4 where rows are aligned to these only; cutlass_75 for rows of odd length; lanes' (ffma, simt).
GROUP, WARP, NARROW, ROUGH, LANES = range(5)
_SIDES = (64, 128, 256)
_TILES: tuple[set[tuple[int, int]], ...] = (
    {pair for w in (64, 128, 192, 256) for s in (8, 16, 32, 64, 96, 128, 160, 192, 256) for pair in ((w, s), (s, w))},
    {(w, s) for w in _SIDES for s in _SIDES},
    {(w, s) for w in _SIDES for s in _SIDES} | {(32, 32), (16, 16)},
    {(64, 64), (128, 128), (128, 256), (32, 32)},
    {(w, s) for w in (32, 64, 128, 256) for s in (32, 64, 128, 256) if w * s <= 128 * 128},
)
_VECTORS = ((1, 4), (4, 1))  # of a product with a vector (cuBLAS gemv): a block reads its rows whole, nothing is cut
_SKINNY = (16, 8)  # of a product of few rows on lanes (cuBLAS gemmSN): as many rows as there are
_CUTS = (0.0, 1.0, 0.5)  # tries of a tile: whole, as many slices as units are free, half as many


class Tiles(NamedTuple):
    """The tiles that a main loop may take, each with its tries: sides, the share of free units that slices take, and
    whether it is one of `_VECTORS` or the `_SKINNY` one."""

    rows: Array
    columns: Array
    free: Array
    vector: npt.NDArray[np.bool_]
    few: npt.NDArray[np.bool_]


def _tiles(loop: int) -> Tiles:
    shapes = [shape for shape in sorted(_TILES[loop]) if shape[0] * shape[1] <= LARGEST]
    shapes += [] if loop == GROUP else list(_VECTORS)
    shapes += [_SKINNY] if loop in (ROUGH, LANES) else []
    rows, columns, free = np.array([(*shape, free) for shape in shapes for free in _CUTS]).T
    few = (rows == _SKINNY[0]) & (columns == _SKINNY[1])
    return Tiles(rows, columns, free, np.minimum(rows, columns) == 1, few)


TILES = tuple(_tiles(loop) for loop in range(len(_TILES)))


class Product(NamedTuple):
    """``batch`` products of m x k by k x n; bytes of an operand's and of a result's element, the largest power of two
    up to 16 that divides their rows in bytes, and whether the operands are integers."""

    batch: Array
    m: Array
    n: Array
    k: Array
    element: Array
    result: Array
    aligned: Array
    integer: Array


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
    return product(batch, m, n, k, element, result, fmt.kind == "int")


def product(batch: int, m: int, n: int, k: int, element: float, result: float, integer: bool) -> Product:
    """The numbers of a `Product`, its alignment worked out."""
    aligned = min(_aligned(k * element), _aligned(n * result))
    return Product._make((batch, m, n, k, element, result, aligned, integer))


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
    lanes = load.vector_rate * chip["simt_share"] / chip.units
    rates = np.where(TILES[loop].few, lanes[:, None], (load.matmul_rate * _share(loop, chip) / chip.units)[:, None])
    arithmetic = cuts.arithmetic(rates)
    walk = np.maximum(np.maximum(arithmetic, cuts.loading), cuts.least)
    work, moved = walk + cuts.store - cuts.hidden(walk), np.maximum(main, cache / chip["cache_share"])[:, None]
    start = np.asarray(chip["tile_latency"] + START_ANSWERS * load.far * (chip.main.latency - chip.cache.latency))
    seconds = start[:, None] + np.maximum(work, moved) + chip["matmul_overlap"] * np.minimum(work, moved) + cuts.sliced
    best = np.argmin(np.where(cuts.allowed, seconds + TIE * cuts.loading, np.inf), axis=1)[:, None]

    def at(values: Array) -> Array:
        picked: Array = np.take_along_axis(np.broadcast_to(values, seconds.shape), best, axis=1)[:, 0]
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
    return chip["matmul_share"] * (WARP_SHARE if loop != GROUP and chip.warpgroups else 1.0)


def ways(x: Product, load: Load, chip: Chip) -> npt.NDArray[np.int64]:
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
        whole = tiles.vector | tiles.few
        pieces = batch * np.ceil(m / tiles.rows) * np.ceil(n / tiles.columns)
        steps = np.ceil(k * element / STEP_BYTES)
        split = (batch == 1) & (x.integer[:, None] == 0)  # cuBLAS splits neither batches nor integer sums
        most = np.where(split & ~whole, GROUP_SLICES if self.grouped else WARP_SLICES, 1.0)
        room = np.minimum(np.floor(chip.units / pieces), most)
        slices = np.maximum(1.0, np.minimum(np.floor(tiles.free * room), np.floor(steps / LEAST_STEPS)))
        self.steps = np.ceil(steps / slices)
        waves = np.maximum(1.0, pieces * slices / chip.units)
        # Warpgroup kernels stay on their unit and share what is left of the last wave, vectors and few rows need little
        # of a unit; others leave units idle.
        self.waves = waves if self.grouped else np.where(whole, waves, np.ceil(waves))
        self.allowed = np.where(tiles.vector, np.where(tiles.rows == 1, m == 1, n == 1), True)
        self.allowed &= ~tiles.few | (m <= _SKINNY[0])
        rows, columns = np.minimum(m, tiles.rows), np.minimum(n, tiles.columns)
        # Pairs of warpgroup kernels load each half of their longer edge for both (CUTLASS, clusters and multicast).
        edge = rows + columns - (np.maximum(rows, columns) / 2 if self.grouped else 0.0)
        self.depth = STEP_BYTES / element
        results = np.where(tiles.few, m, tiles.rows) * tiles.columns
        cost = _lane_cost(tiles, self.waves) if loop == LANES else 1.0
        self.work = results * np.where(tiles.few, SKINNY, cost)
        self.loading = self.waves * self.steps * edge * STEP_BYTES / loads(loop, x, chip)[:, None]
        self.least = self.waves * self.steps * (STEP_CYCLES / chip.clock if self.grouped else 0.0)
        self.store = self.waves * results * result / (PORT_BYTES * chip.clock * chip["store_share"])
        self.loaded = pieces * slices * self.steps * edge * STEP_BYTES
        self.worked = 2 * pieces * slices * self.steps * results * self.depth
        partial_sums = 2 * PARTIAL_BYTES * slices * batch * m * n / chip.cache_bandwidth
        self.sliced = np.where(slices > 1, chip["slice_latency"] + partial_sums, 0.0)

    def arithmetic(self, rate: Array) -> Array:
        """Seconds of the matrix units at ``rate`` FLOP/s a unit, padding included."""
        seconds: Array = self.waves * self.steps * 2 * self.work * self.depth / rate
        return seconds

    def hidden(self, walk: Array) -> Array | float:
        """Seconds of stores that the walks of later tiles hide."""
        if not self.grouped:
            return 0.0
        hidden: Array = STORES_HIDDEN * np.minimum(walk, self.store) * (1.0 - 1.0 / self.waves)
        return hidden


def _lane_cost(tiles: Tiles, waves: Array) -> Array:
    """Time of a tile on lanes over that of its share of a square one of 128."""
    short = np.minimum(tiles.rows, tiles.columns)
    operands = (1 + LANE_ROWS / short) / (1 + LANE_ROWS / 128)
    warps = np.where(short <= SMALL_SIDE, SMALL_WARPS, LANE_WARPS)
    return np.where(tiles.vector, 1.0, operands * np.maximum(1.0, LANE_WARPS / (warps * waves)))


LOOPS: Mapping[int, Callable[[Product, Load, Chip], Timing]] = {loop: partial(cut, loop) for loop in range(len(_TILES))}
MATMUL = Family(shape, timing)
