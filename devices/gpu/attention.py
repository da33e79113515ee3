"""Attention as one tiled kernel (Dao, FlashAttention-2, arXiv 2307.08691): tiles of queries walk blocks of keys.

Prefill gives tiles of queries of one head to units. Decode is in `attention_decode`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

ROWS = KEYS = 128
"""Queries of a tile and keys of a block: cuDNN's sm90 kernels 64x128 by two warpgroups; FlashAttention 128 x 64 to 192."""
WIDTH = 64
"""Head sizes are padded to a multiple of this (cuDNN: 64, 128, 256; FlashAttention-3: 64, 96, 128, 192, 256)."""
VECTOR_OPS = 4.0
"""Vector instructions per score: scale and subtract the maximum, find it, sum, convert."""
SHORT, SHORT_ROWS, ROWS_DECODE = 128, 64, 16
MOST_SPLITS = 64
RESIDENT = 2
SLICE = 128
SETUP_ANSWERS = 2
BUFFERS = 4 / 3


class Attention(NamedTuple):
    """``pairs`` are batch x key-value heads, each with ``group`` query heads."""

    pairs: Array
    group: Array
    q_len: Array
    kv_len: Array
    head_dim: Array
    v_dim: Array
    causal: Array
    window: Array
    element: Array
    backward: Array


def shape(kernel: Kernel) -> Attention:
    """The sizes of an attention kernel."""
    heads, kv_heads = kernel.size("heads", 1), kernel.size("kv_heads", 1)
    head_dim = kernel.size("head_dim", 1)
    return Attention(
        kernel.size("batch", 1) * kv_heads,
        heads / kv_heads,
        kernel.size("q_len", 1),
        kernel.size("kv_len", 1),
        head_dim,
        kernel.size("v_dim", head_dim),
        bool(kernel.attrs.get("causal", False)),
        kernel.size("window"),
        dtype(kernel.work.dtype).bytes_for(1),
        bool(kernel.attrs.get("backward", False)),
    )


def walked(x: Attention, rows: Array, keys: Array) -> tuple[Array, Array, Array]:
    """(tiles of a head, blocks that all of them walk, blocks of the longest).

    Tile i of n ends at key block min(c + (i + 1) rows/keys, most), c = first key of the first query in blocks.
    """
    tiles = np.ceil(x.q_len / rows)
    total = np.ceil(x.kv_len / keys)
    window = np.where(x.window > 0, x.window, np.inf)
    most = np.minimum(total, np.ceil((window + rows) / keys))
    first = np.ceil(np.maximum(x.kv_len - x.q_len, 0.0) / keys)
    ratio = rows / keys
    growing = np.where(x.causal > 0, np.clip(np.floor((most - first) / ratio), 0.0, tiles), 0.0)
    walk = growing * first + ratio * growing * (growing + 1) / 2 + (tiles - growing) * most
    longest = np.where(x.causal > 0, np.minimum(np.ceil(first + tiles * ratio), most), most)
    return tiles, np.maximum(walk, tiles), np.maximum(longest, 1.0)


class Step(NamedTuple):
    """Seconds of one unit for one block of keys: matrix work at peak, and softmax."""

    matmul: Array
    softmax: Array


def step(x: Attention, load: Load, chip: Chip, rows: Array, keys: Array, slices: Array | float = 1.0) -> Step:
    """One block of ``rows`` x ``keys`` scores: Q·Kᵀ and P·V (backward: five products), exponentials and vector work."""
    wide, wide_v = (np.ceil(d / WIDTH) * WIDTH for d in (x.head_dim, x.v_dim))
    products = np.where(x.backward > 0, 3 * wide + 2 * wide_v, wide + wide_v / slices)
    scores = rows * keys
    matmul = 2 * scores * products / (load.matmul_rate / chip.units)
    softmax = scores * (1 / load.special_rate + VECTOR_OPS / load.vector_rate) * chip.units
    return Step(matmul, softmax)


def latency(load: Load, chip: Chip) -> Array:
    """Seconds until operands arrive: from the cache, or from main memory as far as the cache lacks them."""
    missing = np.minimum(1.0, load.main_read / np.maximum(load.read, 1.0))
    return chip.cache.latency + missing * (chip.main.latency - chip.cache.latency)


def prefill(x: Attention, load: Load, chip: Chip) -> Timing:
    heads = x.pairs * x.group
    rows, keys = np.full_like(x.pairs, ROWS), np.full_like(x.pairs, KEYS)
    tiles, walk, longest = walked(x, rows, keys)
    s = step(x, load, chip, rows, keys)
    mm = s.matmul / chip["attention_share"]
    low, high = np.minimum(mm, s.softmax), np.maximum(mm, s.softmax)
    block = high + (1 - chip["attention_overlap"]) * low
    fill = mm + s.softmax
    blocks = heads * walk
    count = heads * tiles
    rounds = np.ceil(count / chip.units)
    even = rounds * longest
    uneven = np.minimum(even, np.maximum(longest, blocks / chip.units + longest / 2))
    busiest = np.where(x.causal > 0, uneven, even)
    compute = busiest * block
    lat = latency(load, chip)
    rate = chip.cache_bandwidth / chip.units
    turn = lat + rows * x.head_dim * x.element / rate
    read = blocks * keys * (x.head_dim + x.v_dim) * x.element
    cache = (read + load.read + load.write) / chip.cache_bandwidth
    main = (load.main_read + load.main_write + load.evicted) / chip.main_bandwidth
    base = chip["attention_latency"] + SETUP_ANSWERS * (chip.main.latency + chip.cache.latency) + fill
    seconds = base + np.maximum.reduce([compute + (rounds - 1) * turn, cache, main])
    busy = {"matmul": compute * s.matmul / block, "cache": cache, "main": main}
    return Timing(seconds, busy)


def decode(x: Attention, load: Load, chip: Chip) -> Timing:
    short = x.kv_len <= SHORT
    rows = np.where(short, SHORT_ROWS, ROWS_DECODE)
    keys = np.where(x.kv_len <= 32, 32, np.where(short, 64, KEYS))
    tiles = np.ceil(x.group * x.q_len / rows)
    slices = np.ceil(x.v_dim / SLICE)
    total = np.ceil(x.kv_len / keys)
    splits = 2.0 ** np.floor(np.log2(np.maximum(1, np.minimum(2 * chip.units / (x.pairs * tiles), x.kv_len / keys))))
    splits = np.where((splits >= 4) & (x.kv_len > 4 * KEYS), np.minimum(splits, MOST_SPLITS), 1.0)
    blocks = np.ceil(total / splits)
    count = x.pairs * tiles * splits * slices
    s = step(x, load, chip, rows, keys, slices)
    block = s.matmul / chip["attention_share"] + s.softmax
    nbytes = keys * (x.head_dim + x.v_dim / slices) * x.element
    per_unit = np.ceil(count / chip.units)
    registers = 2 * SLICE / np.minimum(SLICE, np.ceil(x.head_dim / WIDTH) * WIDTH)
    resident = np.where(short, registers, np.maximum(1, np.floor(chip.shared / (BUFFERS * nbytes))))
    waves = np.ceil(count / chip.units / resident)
    rate = chip.cache_bandwidth / chip.units
    lat = latency(load, chip)
    chunks = slices + 1
    chain = waves * (chip["attention_latency"] + lat + blocks * (chunks * chip.cache.latency + block))
    compute = per_unit * blocks * block
    unit = chain + per_unit * blocks * nbytes / rate
    main = (load.main_read + load.main_write + load.evicted) / chip.main_bandwidth
    cache = count * blocks * nbytes / chip.cache_bandwidth
    joined = 2 * splits * x.pairs * x.group * x.q_len * x.v_dim * 4
    join = np.where(splits > 1, joined / chip.cache_bandwidth + splits * chip.cache.latency / 4 + 0.3e-6, 0.0)
    seconds = np.maximum(unit, main + lat + chip["attention_latency"]) + join
    return Timing(seconds, {"matmul": compute, "cache": cache, "main": main}, launches=np.where(splits > 1, 2.0, 1.0))


def timing(x: Attention, load: Load, chip: Chip) -> Timing:
    """Decode for one query, else prefill."""
    a, b = prefill(x, load, chip), decode(x, load, chip)
    one = x.q_len * 1.0 == 1
    pick = lambda p, q: np.where(one, p, q)
    return Timing(pick(b.seconds, a.seconds), {k: pick(b.busy[k], a.busy[k]) for k in a.busy}, launches=pick(b.launches, 1.0))


ATTENTION = Family(shape, timing)
