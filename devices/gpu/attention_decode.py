"""Attention of single queries as cuDNN does it: warp instructions on small tiles, keys split over idle units.

Read off the names, grids and shared memory of cuDNN 9.19's kernels on an H100 (408 shapes): sm80 tiles of 16 x 128
scores whose warps share the keys, or 64 x 32 and 64 x 64 for few keys; values wider than 128 are cut.
"""

from __future__ import annotations

from typing import NamedTuple

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
from hwsim.devices.gpu.timing import Array, Load, Timing, clip

ROWS = 16
SHORT, SHORT_ROWS, SHORT_KEYS = 128, 64, 64  # keys up to which a tile has more rows and walks fewer keys at a time
SHORTEST = 32
SLICE = 128  # of the values
UNSPLIT, LEAST_SPLITS, MOST_SPLITS = 512, 4, 64  # keys that are never split; how often others are, in powers of two
BLOCKS_A_UNIT = 2  # of threads, up to which keys are split
BUFFERS = 4 / 3  # shared memory over one block of keys and values
# Kernels for few keys, for many, and for many that are split, along the first axis.
FEW = np.array([[True], [False], [False]])
TILE_ROWS, TILE_KEYS = np.where(FEW, SHORT_ROWS, float(ROWS)), np.where(FEW, SHORT_KEYS, float(KEYS))
SHORT_WIDTH = 256  # padded head size over which the registers of a unit hold one block of threads


def decode(x: Attention, load: Load, chip: Chip) -> Timing:
    """A unit holds several blocks of threads; each waits for the cache with every load, all share the unit's port.

    Keys are split where that is faster, and what lasts a while for few keys lasts no less for many: kernels for few and
    many, on tiles of their own, would have it otherwise by a tenth, the measured times of both do not.
    """
    ways = _ways(x, chip)
    splits, slices, walk = ways.splits, ways.slices, ways.walk
    one = step(x, load, chip, ways.cut, slices)
    wait = answer(load, chip)
    loads = slices + 1  # the first from where the operands are, later ones ahead of time into the cache
    each = loads * chip.cache.latency + one.matmul + one.softmax
    life = chip["attention_latency"] + loads * (wait - chip.cache.latency) + walk * each
    port = np.ceil(ways.parts / chip.units) * walk * ways.nbytes * chip.units / chip.cache_bandwidth
    again = np.maximum(0.0, x.pairs * x.kv_len * x.head_dim * x.element * (ways.tiles / x.pairs * slices - 1))
    cache = (load.read + load.write + again) / chip.cache_bandwidth
    main = main_seconds(load, chip)
    ready = chip["attention_latency"] + wait
    seconds = np.maximum(ways.waves * life + port, np.maximum(main, cache) + ready) + join(x, splits, chip)
    launches = np.where(splits > 1, 2.0, 1.0)
    split = seconds[2] + (launches[2] - 1) * chip["graph_launch_latency"] < seconds[1]
    way = np.where(x.kv_len <= SHORT, 0, 1 + split), np.arange(len(split))

    def chosen(values: Array) -> Array:
        one: Array = values[way]
        return one

    seconds = np.maximum(seconds[0], chosen(seconds))
    busy = {
        "matmul": np.minimum(chosen(ways.waves * walk * one.matmul), seconds),
        "special": load.special / load.special_rate,
        "cache": chosen(cache),
        "main": main,
    }
    padding, issued = tiled(x, load, ways.cut, ways.parts * walk, slices)
    spent = {"cache_again": again, "padding": padding, "launches": launches, "issued": issued}
    return Timing(seconds, busy, **{name: chosen(values) for name, values in spent.items()})


class _Ways(NamedTuple):
    """The ways to cut the work: ``tiles`` of queries, ``slices`` of the values, ``splits`` of the keys, ``parts``
    that walk so many blocks of keys, of ``nbytes`` each, in so many ``waves``."""

    cut: Cut
    tiles: Array
    slices: Array
    splits: Array
    walk: Array
    parts: Array
    nbytes: Array
    waves: Array


def _ways(x: Attention, chip: Chip) -> _Ways:
    """Tiles for few keys, for many, and for many that are split, along the first axis."""
    rows, keys, kv_len = _tiles(x)
    cut = Cut(rows, keys, x.group, WARPGROUP_WIDTH)
    tiles = x.pairs * np.ceil(x.group * x.q_len / rows)
    slices = np.ceil(x.v_dim / SLICE)
    splits = _splits(x, tiles, chip)
    parts = tiles * splits * slices
    wide, wide_v = (np.ceil(size / cut.width) * cut.width for size in (x.head_dim, x.v_dim))
    nbytes = keys * (wide + wide_v / slices) * x.element  # lanes beyond the head wait with the others
    walk = np.ceil(np.ceil(kv_len / keys) / splits)
    waves = np.ceil(parts / chip.units / _resident(wide, nbytes, keys, chip))
    return _Ways(cut, tiles, slices, splits, walk, parts, nbytes, waves)


def _tiles(x: Attention) -> tuple[Array, Array, Array]:
    """Rows and keys of tiles, and how many keys they walk, for few keys, many and split ones."""
    keys = np.where(FEW & (x.kv_len <= SHORTEST), SHORTEST, TILE_KEYS)
    return TILE_ROWS, keys, np.where(FEW, np.minimum(x.kv_len, SHORT), x.kv_len)


def _splits(x: Attention, tiles: Array, chip: Chip) -> Array:
    """Powers of two that leave no unit more than two parts and no part less than a block of keys; else one part."""
    most = np.minimum(BLOCKS_A_UNIT * chip.units / tiles, x.kv_len / KEYS)
    splits = 2.0 ** np.floor(np.log2(clip(most, 1.0, MOST_SPLITS)))
    splits = np.where((splits >= LEAST_SPLITS) & (x.kv_len > UNSPLIT), splits, 1.0)
    splits[:-1] = 1.0
    return splits


def _resident(wide: Array, nbytes: Array, keys: Array, chip: Chip) -> Array:
    """Blocks of threads that a unit holds: as its shared memory allows, or for few keys its registers."""
    held = np.where(keys < SHORT_KEYS, np.minimum(wide, SLICE), wide)
    by_shared = np.floor(chip.shared / (BUFFERS * nbytes))
    return np.maximum(1.0, np.where(keys < KEYS, SHORT_WIDTH / held, by_shared))
