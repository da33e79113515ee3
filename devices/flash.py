"""Attention as one tiled kernel on a GPU (Dao, FlashAttention-2, arXiv 2307.08691): tiles of queries walk the keys.

The query heads of a group share their key-value head, so that their rows fill one tile (decode); with fewer tiles
than units the keys of single queries are cut into parts whose results a second kernel joins. A tile's scores, softmax
and output follow each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from hwsim.devices.attention import needed_scores
from hwsim.devices.occupancy import Chip, Plan
from hwsim.devices.tiles import MMA_SIDE, PARTIAL_BYTES
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel


@dataclass(frozen=True, slots=True)
class Heads:
    """One attention: ``pairs`` (batch x key-value heads), each with ``group`` query heads."""

    pairs: int
    group: int
    q_len: int
    kv_len: int
    dims: int
    causal: bool
    window: int
    element: float

    @classmethod
    def of(cls, kernel: Kernel) -> Heads:
        """The attributes of an attention kernel."""
        heads, kv_heads = kernel.size("heads", 1), kernel.size("kv_heads", 1)
        return cls(
            pairs=kernel.size("batch", 1) * kv_heads,
            group=heads // kv_heads,
            q_len=kernel.size("q_len", 1),
            kv_len=kernel.size("kv_len", 1),
            dims=kernel.size("head_dim", 1) + kernel.size("v_dim", 1),
            causal=bool(kernel.attrs.get("causal", False)),
            window=kernel.size("window"),
            element=dtype(kernel.work.dtype).bytes_for(1),
        )

    @property
    def scores(self) -> float:
        """Scores that are not masked, over all heads."""
        return self.pairs * self.group * needed_scores(self.q_len, self.kv_len, self.causal, self.window)

    def blocks(self, rows: int, keys: int) -> tuple[float, float, int]:
        """(sum, longest, count) of the key blocks that the query tiles of one pair walk; a tile has ``rows`` rows."""
        count = ceil(self.q_len * self.group / rows)
        last = np.minimum(np.ceil(np.arange(1, count + 1) * (rows / self.group)), self.q_len) - 1
        first = np.floor(np.arange(count) * (rows / self.group))
        offset = max(0, self.kv_len - self.q_len)
        end = np.minimum(offset + last + 1, self.kv_len) if self.causal else np.full(count, self.kv_len)
        start = np.zeros(count)
        if self.window:
            seen = np.minimum(offset + first, self.kv_len - 1) if self.causal else self.kv_len - 1
            start = np.maximum(0, seen + 1 - self.window)
        walked = np.maximum(1, np.ceil(end / keys) - np.floor(start / keys))
        return float(walked.sum()), float(walked.max()), count


def attention_plan(chip: Chip, rate: float, kernel: Kernel) -> Plan:
    """The plan of the query tile that takes least time."""
    heads = Heads.of(kernel)
    flops = kernel.work.matmul_flops * heads.scores / _square(heads)

    def seconds(plan: Plan) -> float:
        loaded = kernel.read_bytes + plan.reread
        return max(plan.stretch * flops / rate, chip.seconds(chip.cache, loaded, plan)) + plan.latency

    return min(_plans(chip, heads), key=lambda plan: (seconds(plan), plan.reread))


def _plans(chip: Chip, heads: Heads) -> Iterator[Plan]:
    rows = keys = min(chip.tile_m, chip.tile_n)
    while rows >= MMA_SIDE:
        yield _plan(chip, heads, rows, keys)
        rows //= 2


def _plan(chip: Chip, heads: Heads, rows: int, keys: int) -> Plan:
    """The unit with most blocks to walk sets the time: waves of equal tiles, or longest first for unequal ones."""
    total, longest, count = heads.blocks(rows, keys)
    tiles = heads.pairs * count
    parts = max(1, min(chip.units // tiles, int(longest))) if heads.q_len == 1 else 1
    if heads.causal and parts == 1:
        load = max(longest, heads.pairs * total / chip.units)
    else:
        load = ceil(tiles * parts / chip.units) * ceil(longest / parts)
    padding = ceil(heads.dims / MMA_SIDE) * MMA_SIDE / heads.dims
    keys_loaded = heads.pairs * total * keys * heads.dims * heads.element
    compulsory = heads.pairs * heads.kv_len * heads.dims * heads.element
    joined = 2 * PARTIAL_BYTES * parts * heads.pairs * heads.group * heads.q_len * heads.dims / 2 if parts > 1 else 0.0
    return Plan(
        stretch=padding * chip.units * load * rows * keys / heads.scores,
        units=min(tiles * parts, chip.units),
        latency=chip.tile_latency + (chip.main.latency if parts > 1 else 0.0),
        reread=max(0.0, keys_loaded - compulsory) + joined,
        launches=2 if parts > 1 else 1,
        serial=True,
    )


def _square(heads: Heads) -> float:
    return float(heads.pairs * heads.group) * heads.q_len * heads.kv_len
