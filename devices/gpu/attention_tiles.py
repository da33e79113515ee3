"""Tiles of queries that walk blocks of keys: the physics that all kernels of attention share.

Dao, FlashAttention-2, arXiv 2307.08691; Shah et al., FlashAttention-3, arXiv 2407.08608 (warpgroups: one's softmax runs
beside another's products). A library's kernels differ in how they cut the work, not in what a block of keys costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing, clip

# Queries of a tile and keys of a block of cuDNN 9.19, by the names of its kernels (sm90 .. wgmma .. 64x128x128).
ROWS = KEYS = 128
WARPGROUP_WIDTH = 64  # head sizes are padded to a multiple

VECTOR_OPS = 4.0  # of a score: scale and subtract the maximum, find it, sum, convert
OVERLAP = (
    0.5  # share of the shorter of products and softmax that hides, where warpgroups take turns (fitted, H200, H100)
)
SETUP_ANSWERS = (
    2.0  # memory answers, one after the other, before the first product: block tables or descriptors, queries
)
TURN_ANSWERS = 0.5  # that a unit waits for between two tiles
JOIN_ANSWERS, UNROLLED = 3.0, 4.0  # parts are written, their sums read, then they; loads that a thread has under way
PARTIAL_BYTES = 4.0


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


class Step(NamedTuple):
    """Seconds that one unit's matrix units and softmax take for one block of keys."""

    matmul: Array
    softmax: Array


class Cut(NamedTuple):
    """How a library cuts attention into tiles of ``rows`` queries of ``packed`` heads, ``keys`` at a time.

    Head sizes are padded to a multiple of ``width``.
    """

    rows: Array
    keys: Array
    packed: Array
    width: Array | float


class Tiled(NamedTuple):
    """Matrix work over the work that is wanted, and instructions of lanes."""

    padding: Array
    issued: Array


def walked(x: Attention, rows: Array, keys: Array) -> tuple[Array, Array, Array]:
    """(tiles of a head, blocks of keys that all of them walk, blocks of the longest).

    Tile i of n (from 0) ends within block min(c + (i + 1) rows/keys, most), c = keys before the first query in blocks.
    """
    tiles = np.ceil(x.q_len / rows)
    window = np.where(x.window > 0, x.window, np.inf)
    most = np.minimum(np.ceil(x.kv_len / keys), np.ceil((window + rows) / keys))
    first = np.ceil(np.maximum(x.kv_len - x.q_len, 0.0) / keys)
    ratio = rows / keys
    growing = np.where(x.causal > 0, clip(np.floor((most - first) / ratio), 0.0, tiles), 0.0)
    walk = growing * first + ratio * growing * (growing + 1) / 2 + (tiles - growing) * most
    longest = np.where(x.causal > 0, np.minimum(np.ceil(first + tiles * ratio), most), most)
    return tiles, clip(walk, tiles, tiles * most), np.maximum(longest, 1.0)


def step(
    x: Attention, load: Load, chip: Chip, cut: Cut, slices: Array | float = 1.0, exponentials: Array | float = 1.0
) -> Step:
    """One block of rows x keys scores: Q·Kᵀ and P·V (backward: five products), exponentials and vector work.

    With values in ``slices``, each block of threads makes all scores and one slice of the output. Special units make
    that share of the ``exponentials``.
    """
    scores = cut.rows * cut.keys
    matmul = 2 * scores * _depth(x, cut, slices) * chip.units / load.matmul_rate / chip["attention_share"]
    softmax = scores * (exponentials / load.special_rate + VECTOR_OPS / load.vector_rate) * chip.units
    return Step(matmul, softmax)


def missing(load: Load) -> Array:
    """The share of the operands that main memory serves."""
    return np.minimum(1.0, load.main_read / np.maximum(load.read, 1.0))


def answer(load: Load, chip: Chip) -> Array:
    """Seconds until operands arrive: from the cache, or from main memory as far as the cache lacks them."""
    return chip.cache.latency + missing(load) * (chip.main.latency - chip.cache.latency)


def main_seconds(load: Load, chip: Chip) -> Array:
    """Seconds of main memory for operands and for dirty bytes that they displace."""
    return (load.main_read + load.main_write + load.evicted) / chip.main_bandwidth


def join(x: Attention, splits: Array, chip: Chip) -> Array:
    """Seconds of the kernel that joins what ``splits`` parts of the keys gave, in fp32; none for one part."""
    joined = 2 * splits * x.pairs * x.group * x.q_len * x.v_dim * PARTIAL_BYTES
    wait = JOIN_ANSWERS * (chip.main.latency + chip.cache.latency) + splits / UNROLLED * chip.cache.latency
    return np.where(splits > 1, joined / chip.cache_bandwidth + wait, 0.0)


def whole(x: Attention, load: Load, chip: Chip) -> Timing:
    """cuDNN: persistent blocks of threads that load ahead, a tile of one head at a time.

    Rounds of tiles over the units, the largest first; memory works beside them but for queries and outputs. Where tiles
    differ (causal), the busiest unit has half a longest tile more than its share.
    """
    full = np.full_like(x.pairs, ROWS)
    cut = Cut(full, full, np.ones_like(x.pairs), WARPGROUP_WIDTH)
    tiles, walk, longest = walked(x, cut.rows, cut.keys)
    heads = x.pairs * x.group
    count, blocks = heads * tiles, heads * walk
    one = step(x, load, chip, cut)
    hidden = OVERLAP * np.minimum(one.matmul, one.softmax)
    block = one.matmul + one.softmax - hidden
    rounds = np.ceil(count / chip.units)
    share = np.maximum(longest, blocks / chip.units + longest / 2)
    busiest = np.where(x.causal > 0, np.minimum(rounds * longest, share), rounds * longest)
    wait = chip.main.latency + chip.cache.latency
    turns = (rounds - 1) * (TURN_ANSWERS * wait + hidden) + (1 - OVERLAP) * _ends(x, load, chip)
    more = again(x, cut, blocks)
    cache = (load.read + load.write + more) / chip.cache_bandwidth
    main = main_seconds(load, chip)
    start = chip["attention_latency"] + SETUP_ANSWERS * wait + one.matmul + one.softmax
    seconds = start + np.maximum.reduce([busiest * block + turns, cache, main])
    busy = {"matmul": busiest * one.matmul, "special": load.special / load.special_rate, "cache": cache, "main": main}
    launches = np.where(x.backward > 0, 3.0, 1.0)
    work = tiled(x, load, cut, blocks)
    return Timing(seconds, busy, cache_again=more, padding=work.padding, launches=launches, issued=work.issued)


def _depth(x: Attention, cut: Cut, slices: Array | float = 1.0) -> Array:
    """Products behind each score, heads padded, with values in ``slices``."""
    wide, wide_v = (np.ceil(size / cut.width) * cut.width for size in (x.head_dim, x.v_dim))
    return np.where(x.backward > 0, 3 * wide + 2 * wide_v, wide + wide_v / slices)


def tiled(x: Attention, load: Load, cut: Cut, blocks: Array, slices: Array | float = 1.0) -> Tiled:
    """What whole tiles do that walk so many ``blocks`` of keys in all, whatever of their scores is wanted."""
    scores = blocks * cut.rows * cut.keys
    done = 2 * scores * _depth(x, cut, slices)
    return Tiled(np.maximum(1.0, done / np.maximum(load.matmul, 1.0)), VECTOR_OPS * scores)


def _ends(x: Attention, load: Load, chip: Chip) -> Array:
    """Seconds to read queries and write outputs, from and to where the operands are."""
    nbytes = x.pairs * x.group * x.q_len * (x.head_dim + x.v_dim) * x.element
    lost = missing(load)
    return nbytes * (lost / chip.main_bandwidth + (1 - lost) / chip.cache_bandwidth)


def again(x: Attention, cut: Cut, blocks: Array) -> Array:
    """Bytes of keys and values that tiles after the first read; backward, sums of query gradients in fp32 besides."""
    read = blocks * cut.keys * (x.head_dim + x.v_dim) * x.element
    once = x.pairs * x.kv_len * (x.head_dim + x.v_dim) * x.element
    sums = blocks * cut.rows * x.head_dim * 2 * PARTIAL_BYTES
    return np.maximum(0.0, read - once) + np.where(x.backward > 0, sums, 0.0)
