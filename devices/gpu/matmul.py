"""Matrix products on a GPU: cut into tiles and slices of k, the cut that takes least time chosen, as libraries do."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np

from hwsim.devices.gpu.chip import LOAD_BYTES, Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.dtypes import dtype
from hwsim.graph import Kind
from hwsim.mapper import Kernel

STEP_BYTES = 128.0  # of each operand row that a step of the main loop takes, one swizzled line of shared memory
PORT_BYTES = 64.0  # a clock between the cache and one unit
ASYNC = 0.25
MAXCUT, MINSTEP = 16, 4
PARTIAL_BYTES = 4.0  # of a partial sum in fp32
WIDE, NARROW = (64, 128, 192, 256), (8, 16, 32, 48, 64, 96, 128, 160, 192, 256)
SIDES = sorted({pair for w in WIDE for s in NARROW if w * s <= 128 * 256 for pair in ((w, s), (s, w))})
TM, TN = (np.array(column, dtype=float) for column in zip(*[side for side in SIDES for _ in range(3)], strict=True))
TRY = np.array([0, 1, 2] * len(SIDES))


class Product(NamedTuple):
    """``batch`` products of m x k by k x n, elements of operands and results in bytes, ``width`` the share of a
    16-byte access that the alignment of rows allows."""

    batch: Array
    m: Array
    n: Array
    k: Array
    element: Array
    result: Array
    width: Array
    integer: Array


def shape(kernel: Kernel) -> Product:
    m, n, k, batch = (kernel.size(name, 1) for name in ("m", "n", "k", "batch"))
    element = dtype(kernel.work.dtype).bytes_for(1)
    result = kernel.write_bytes / (batch * m * n)
    width = min(_aligned(k * element), _aligned(n * result))
    return Product(batch, m, n, k, element, result, width, float(kernel.work.dtype=='int8'))


def _aligned(row_bytes):
    return gcd(max(1, int(row_bytes)), LOAD_BYTES) / LOAD_BYTES


def blend(a, b, p):
    return np.maximum(a, b) + p * np.minimum(a, b)


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
    return np.where(np.minimum(a, b) <= chip.cache.capacity * chip["block_keep"], 0.0, again)


def timing(x: Product, load: Load, chip: Chip) -> Timing:
    b, m, n, k, element, result, width, integer = (column[:, None] for column in x)
    rate = load.matmul_rate[:, None] / chip.units
    simt = rate * chip.units <= 1.01 * 2 * load.vector_rate[:, None]
    legacy = ~simt & ((integer > 0) | (width < 1))
    pieces = b * np.ceil(m / TM) * np.ceil(n / TN)
    room = np.minimum(np.minimum(np.floor(chip.units / pieces), MAXCUT), np.floor(k * element / STEP_BYTES/MINSTEP))
    CUTS = np.maximum(1.0, np.where(TRY == 0, 1.0, np.where(TRY == 1, room, np.ceil(room / 2))))
    tiles = pieces * CUTS
    steps = np.ceil(k * element / (CUTS * STEP_BYTES))
    waves = np.maximum(1.0, tiles / chip.units)
    depth = STEP_BYTES / element
    share = np.where(simt, chip["simt_share"], np.where(width < 1, chip["narrow_share"] * np.where(width < ASYNC, 0.5, 1.0), np.where(legacy, chip["legacy_share"], chip["matmul_share"])))
    step = np.where(simt, chip["simt_step"], np.where(legacy, chip["legacy_step"], chip["step_latency"]))
    mma = waves * steps * 2 * TM * TN * depth / (rate * share)
    lane = PORT_BYTES * chip.clock
    port = waves * steps * (TM + TN) * STEP_BYTES / lane
    chain = steps * step * np.ceil(waves / 2)
    epilogue = waves * TM * TN * result / lane / chip["epilogue_share"]
    partial = np.where(CUTS > 1, 2 * PARTIAL_BYTES * CUTS * b * m * n, 0.0) / chip.cache_bandwidth
    again = refetched(x, chip)
    main = ((load.main_read + load.main_write + again) / chip.main_bandwidth)[:, None]
    through = ((load.read + load.write) / chip.cache_bandwidth)[:, None]
    fixed = chip["tile_latency"] + np.where(CUTS > 1, chip["slice_latency"], 0.0)
    total = fixed + partial + blend(np.maximum(np.maximum(mma, port), chain) + epilogue, np.maximum(main, through), chip['overlap'])
    forbidden = ((CUTS > 1) & ((b > 1) | (integer > 0))) | (simt & (TM * TN > 128 * 128)) | (legacy & (width < 1) & ((np.minimum(TM, TN) < 64) | (np.maximum(TM, TN) > 128)))
    total = np.where(forbidden, np.inf, total)
    best = np.argmin(total, axis=1)
    rows = np.arange(len(best))
    seconds = total[rows, best]
    return Timing(seconds, {"matmul": mma[rows, best], "cache": port[rows, best] , "main": main[:,0]}, cache_again=(tiles * steps * (TM + TN) * STEP_BYTES)[rows, best]-load.read, main_again=again)


MATMUL = Family(shape, timing)
