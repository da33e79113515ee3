"""Matrix products on a GPU: cut into tiles and slices of k by the cut that takes least time, as libraries do.

A tile of rows x columns of the result walks its slice of k in steps of 128 bytes of every operand row:

    walk  = waves x steps x max(2 x rows x columns x depth / rate, operands of a step / loads, least step)
    store = waves x rows x columns x result / (port x store share)
    seconds = tile latency + max(walk + store, traffic) + overlap x min(walk + store, traffic) + cost of slices

Libraries write the main loop in three ways, which differ in their tiles, in how they load operands and in the share of
the peak that they reach: with instructions of a warpgroup (wgmma and what follows it), of a warp (mma.sync), and of
lanes (fp32).
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.devices.gpu.blocks import SCHEDULERS
from hwsim.devices.gpu.chip import LANES as WARP_LANES
from hwsim.devices.gpu.chip import LOAD_BYTES, Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

STEP_BYTES = 128.0  # of each operand row in a step: one swizzled line of shared memory (CUTLASS, Hopper main loops)
PORT_BYTES = 64.0  # a clock between the cache and one unit (NVIDIA A100 whitepaper: 5,120 B a clock for 80 read ports)
PARTIAL_BYTES = 4.0  # of a partial sum in fp32
STEP_CYCLES = 150.0  # of the smallest step of a warpgroup: a barrier and four dependent instructions (k = 128 to 2,048)
LEAST_STEPS = 4.0  # of a slice
GROUP_SLICES, WARP_SLICES = 16.0, 32.0  # most slices that cuBLAS cuts k into (time over k of products with few tiles)
ASYNC_BYTES = 4  # of a copy into shared memory where rows are not multiples of 16 bytes (PTX ISA, cp.async)
NARROW_COPIES = 3.5  # such copies, or element by element, that a unit makes in a cycle (large products on an H200)
TIE = 0.02  # of the time to load operands: of cuts that are as fast, one that loads less
LARGEST = 128 * 256  # results of a tile, as accumulators fill the registers

GROUP, WARP, NARROW, LANES = range(4)
_WARP_SIDES = (64, 128, 256)
_TILES: tuple[set[tuple[int, int]], ...] = (
    {pair for w in (64, 128, 192, 256) for s in (8, 16, 32, 64, 96, 128, 160, 192, 256) for pair in ((w, s), (s, w))},
    {(w, s) for w in _WARP_SIDES for s in _WARP_SIDES},
    {(w, s) for w in _WARP_SIDES[:2] for s in _WARP_SIDES[:2]},
    {(w, s) for w in (32, 64, 128) for s in (32, 64, 128)} - {(32, 32)},
)
_VECTORS = ((1, 4), (4, 1))  # of a product with a vector (cuBLAS gemv): a block reads its rows whole, nothing is cut
_SHAPES = sorted({*_VECTORS, *(pair for tiles in _TILES for pair in tiles if pair[0] * pair[1] <= LARGEST)})
_CUTS = 3  # tries of a tile: whole, as many slices as units are free, half as many
ROWS, COLUMNS = (np.repeat(np.array(side, dtype=float), _CUTS) for side in zip(*_SHAPES, strict=True))
_FREE = np.tile([0.0, 1.0, 0.5], len(_SHAPES))
_VECTOR = np.minimum(ROWS, COLUMNS) == 1
ALLOWED = np.array([np.repeat([shape in tiles for shape in _SHAPES], _CUTS) for tiles in _TILES])


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
    way = ways(x, load, chip)
    share = np.where(way == LANES, chip["simt_share"], chip["matmul_share"])
    rate = load.matmul_rate * share / chip.units
    again = refetched(x, chip)
    main = (load.main_read + load.main_write + load.evicted + again) / chip.main_bandwidth
    traffic = np.maximum(main, (load.read + load.write) / chip.cache_bandwidth)
    cut = _Cuts(x, way, chip)
    walk = cut.walk(rate[:, None])
    work, moved = walk + cut.store, traffic[:, None]
    seconds = (
        chip["tile_latency"] + np.maximum(work, moved) + chip["matmul_overlap"] * np.minimum(work, moved) + cut.sliced
    )
    best = np.argmin(np.where(cut.allowed, seconds + TIE * cut.loading, np.inf), axis=1)[:, None]
    busy = {
        "matmul": np.minimum(_at(cut.arithmetic(rate[:, None]), best), _at(seconds, best)),
        "cache": np.minimum(
            np.maximum(_at(cut.loading, best), (load.read + load.write) / chip.cache.bandwidth), _at(seconds, best)
        ),
        "main": main,
    }
    loaded, copies = _at(cut.loaded, best), narrow_copies(way, x)
    return Timing(
        _at(seconds, best),
        busy,
        cache_again=np.maximum(0.0, loaded - load.read),
        main_again=again,
        padding=np.maximum(1.0, _at(cut.worked, best) / np.maximum(load.matmul, 1.0)),
        issued=loaded / copies * WARP_LANES * SCHEDULERS / NARROW_COPIES,
    )


def _at(values: Array, best: npt.NDArray[np.int64]) -> Array:
    """The column ``best`` of each row."""
    picked: Array = np.take_along_axis(np.broadcast_to(values, (len(best), len(ROWS))), best, axis=1)[:, 0]
    return picked


def ways(x: Product, load: Load, chip: Chip) -> npt.NDArray[np.int64]:
    """Which main loop each product gets: `GROUP`, `WARP`, `NARROW` (a warp's, rows not aligned) or `LANES`.

    cuBLAS has warpgroup kernels for aligned floats only; a card whose tile is wider than high has warpgroups.
    """
    lanes = load.matmul_rate <= 2.02 * load.vector_rate
    grouped = (x.integer == 0) if _has_groups(chip) else np.zeros(len(x.m), bool)
    way: npt.NDArray[np.int64] = np.where(
        lanes, LANES, np.where(x.aligned < LOAD_BYTES, NARROW, np.where(grouped, GROUP, WARP))
    )
    return way


def _has_groups(chip: Chip) -> bool:
    return chip.tile_n > chip.tile_m


def loads(way: npt.NDArray[np.int64], x: Product, chip: Chip) -> Array:
    """The bytes a second at which a unit loads operands.

    The copy engines of warpgroup kernels fill its port to the cache. Threads get what the cache gives a unit, and
    less where rows are not aligned: `NARROW_COPIES` a cycle of `ASYNC_BYTES`, or of single elements below that.
    """
    threads = np.minimum(NARROW_COPIES * chip.clock * narrow_copies(way, x), chip.cache.bandwidth / chip.units)
    return np.where(way == GROUP, PORT_BYTES * chip.clock, threads)


def narrow_copies(way: npt.NDArray[np.int64], x: Product) -> Array:
    """The bytes of a copy that takes instructions of its own; without end where rows are aligned."""
    return np.where(way == NARROW, np.minimum(x.aligned, ASYNC_BYTES), np.inf)


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
    """Every tile and number of slices, for every product: arrays of products x cuts."""

    def __init__(self, x: Product, way: npt.NDArray[np.int64], chip: Chip) -> None:
        batch, m, n, k, element, result = (column[:, None] for column in x[:6])
        grouped = way[:, None] == GROUP
        pieces = batch * np.ceil(m / ROWS) * np.ceil(n / COLUMNS)
        steps = np.ceil(k * element / STEP_BYTES)
        split = (batch == 1) & (x.integer[:, None] == 0)  # cuBLAS splits neither batches nor integer sums
        most = np.where(split & ~_VECTOR, np.where(grouped, GROUP_SLICES, WARP_SLICES), 1.0)
        room = np.minimum(np.floor(chip.units / pieces), most)
        slices = np.maximum(1.0, np.minimum(np.floor(_FREE * room), np.floor(steps / LEAST_STEPS)))
        self.steps = np.ceil(steps / slices)
        self.tiles = pieces * slices
        waves = np.maximum(1.0, self.tiles / chip.units)
        # Warpgroup kernels stay on their unit and share what is left of the last wave, vectors need little of a unit;
        # others leave units idle.
        self.waves = np.where(grouped | _VECTOR, waves, np.ceil(waves))
        vector = _VECTOR & np.where(ROWS == 1, m == 1, n == 1) & ~grouped
        self.allowed = ALLOWED[way] | vector
        rows, columns = np.minimum(m, ROWS), np.minimum(n, COLUMNS)
        # Pairs of warpgroup kernels load each half of their longer edge for both (CUTLASS, clusters and multicast).
        edge = rows + columns - np.where(grouped, np.maximum(rows, columns) / 2, 0.0)
        least = np.where(grouped, STEP_CYCLES / chip.clock, 0.0)
        port = PORT_BYTES * chip.clock
        self.depth = STEP_BYTES / element
        self.loading = self.waves * self.steps * edge * STEP_BYTES / loads(way, x, chip)[:, None]
        self.least = self.waves * self.steps * least
        self.store = self.waves * ROWS * COLUMNS * result / (port * chip["store_share"])
        self.loaded = self.tiles * self.steps * edge * STEP_BYTES
        self.worked = 2 * self.tiles * self.steps * ROWS * COLUMNS * self.depth
        partial = 2 * PARTIAL_BYTES * slices * batch * m * n / chip.cache_bandwidth
        self.sliced = np.where(slices > 1, chip["slice_latency"] + partial, 0.0)

    def arithmetic(self, rate: Array) -> Array:
        """Seconds of the matrix units at ``rate`` FLOP/s a unit, padding included."""
        seconds: Array = self.waves * self.steps * 2 * ROWS * COLUMNS * self.depth / rate
        return seconds

    def walk(self, rate: Array) -> Array:
        """Seconds of the main loops."""
        seconds: Array = np.maximum(np.maximum(self.arithmetic(rate), self.loading), self.least)
        return seconds


MATMUL = Family(shape, timing)
