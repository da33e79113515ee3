"""Attention of single queries as cuDNN does it: warp instructions on small tiles, keys split over idle units.

Read off the names, grids and shared memory of cuDNN 9.19's kernels on an H100 (408 shapes): sm80 tiles of 16 x 128
scores whose warps share the keys, or 64 x 32 and 64 x 64 for few keys; values wider than 128 are cut.
"""

from __future__ import annotations

import numpy as np

from hwsim.devices.gpu.attention_tiles import (
    KEYS,
    WARPGROUP_WIDTH,
    Attention,
    Cut,
    answer,
    join,
    main_seconds,
    step,
    tiled,
)
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing

ROWS = 16
SHORT, SHORT_ROWS, SHORT_KEYS = 128, 64, 64  # keys up to which a tile has more rows and walks fewer keys at a time
SHORTEST = 32
SLICE = 128  # of the values
UNSPLIT, LEAST_SPLITS, MOST_SPLITS = 512, 4, 64  # keys that are never split; how often others are, in powers of two
BLOCKS_A_UNIT = 2  # of threads, up to which keys are split
BUFFERS = 4 / 3  # shared memory over one block of keys and values
SHORT_WIDTH = 256  # padded head size over which the registers of a unit hold one block of threads


def decode(x: Attention, load: Load, chip: Chip) -> Timing:
    """A unit holds several blocks of threads; each waits for the cache with every load, all share the unit's port."""
    short = x.kv_len <= SHORT
    rows = np.where(short, SHORT_ROWS, ROWS)
    keys = np.where(x.kv_len <= SHORTEST, SHORTEST, np.where(short, SHORT_KEYS, KEYS))
    cut = Cut(rows, keys, x.group, WARPGROUP_WIDTH)
    tiles = x.pairs * np.ceil(x.group * x.q_len / rows)
    slices = np.ceil(x.v_dim / SLICE)
    splits = _splits(x, tiles, chip)
    walk = np.ceil(np.ceil(x.kv_len / keys) / splits)
    count = tiles * splits * slices
    one = step(x, load, chip, cut, slices)
    wide, wide_v = (np.ceil(size / cut.width) * cut.width for size in (x.head_dim, x.v_dim))
    nbytes = keys * (wide + wide_v / slices) * x.element  # lanes beyond the head wait with the others
    waves = np.ceil(count / chip.units / _resident(wide, nbytes, keys, chip))
    wait = answer(load, chip)
    loads = slices + 1  # the first from where the operands are, later ones ahead of time into the cache
    each = loads * chip.cache.latency + one.matmul + one.softmax
    life = chip["attention_latency"] + loads * (wait - chip.cache.latency) + walk * each
    per_unit = np.ceil(count / chip.units)
    port = per_unit * walk * nbytes * chip.units / chip.cache_bandwidth
    again = np.maximum(0.0, x.pairs * x.kv_len * x.head_dim * x.element * (tiles / x.pairs * slices - 1))
    cache = (load.read + load.write + again) / chip.cache_bandwidth
    main = main_seconds(load, chip)
    ready = chip["attention_latency"] + wait
    seconds = np.maximum.reduce([waves * life + port, main + ready, cache + ready]) + join(x, splits, chip)
    busy = {
        "matmul": np.minimum(waves * walk * one.matmul, seconds),
        "special": load.special / load.special_rate,
        "cache": cache,
        "main": main,
    }
    launches = np.where(splits > 1, 2.0, 1.0)
    work = tiled(x, load, cut, count * walk, slices)
    return Timing(seconds, busy, cache_again=again, padding=work.padding, launches=launches, issued=work.issued)


def _splits(x: Attention, tiles: Array, chip: Chip) -> Array:
    """Powers of two that leave no unit more than two parts and no part less than a block of keys."""
    most = np.minimum(BLOCKS_A_UNIT * chip.units / tiles, x.kv_len / KEYS)
    splits = 2.0 ** np.floor(np.log2(np.clip(most, 1.0, MOST_SPLITS)))
    return np.where((splits >= LEAST_SPLITS) & (x.kv_len > UNSPLIT), splits, 1.0)


def _resident(wide: Array, nbytes: Array, keys: Array, chip: Chip) -> Array:
    """Blocks of threads that a unit holds: as its shared memory allows, or for few keys its registers."""
    held = np.where(keys < SHORT_KEYS, np.minimum(wide, SLICE), wide)
    by_shared = np.floor(chip.shared / (BUFFERS * nbytes))
    return np.maximum(1.0, np.where(keys < KEYS, SHORT_WIDTH / held, by_shared))
