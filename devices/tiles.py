"""Matrix products cut into tiles: which tile shape and how many slices of k suit a GPU best.

A tile of tm x tn outputs runs on one unit, which reads (tm + tn)·k operand elements for it from the cache. Tiles go
in waves over the units; with fewer tiles than units, k is cut into slices whose partial sums, in fp32, a second kernel
adds up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt

from hwsim.devices.occupancy import Chip, Plan

MMA_SIDE = 16  # rows of the smallest matrix instruction, m16n8 (PTX ISA, mma)
PARTIAL_BYTES = 4.0  # of a partial sum in fp32


@dataclass(frozen=True, slots=True)
class Product:
    """``batch`` products of m x k by k x n.

    ``element`` is the bytes of an operand's element as it lies in memory, ``rate`` the peak in FLOP/s, ``width`` the
    share of 16-byte loads that the alignment of rows allows.
    """

    batch: int
    m: int
    n: int
    k: int
    element: float
    rate: float
    width: float = 1.0

    @property
    def flops(self) -> float:
        """2 per multiply and add."""
        return 2.0 * self.batch * self.m * self.n * self.k

    @property
    def operand_bytes(self) -> float:
        """Each operand once."""
        return self.batch * float(self.m + self.n) * self.k * self.element


@dataclass(frozen=True, slots=True)
class Tiling:
    """A tile shape and the slices of k."""

    tm: int
    tn: int
    slices: int = 1

    def tiles(self, product: Product) -> int:
        """Tiles of all products and slices."""
        return product.batch * ceil(product.m / self.tm) * ceil(product.n / self.tn) * self.slices


def tile_shapes(chip: Chip) -> tuple[tuple[int, int], ...]:
    """The card's tile, halved along either side down to one matrix instruction, and the transposes."""
    sides = [_halved(side) for side in (chip.tile_m, chip.tile_n)]
    shapes = {(tm, tn) for tm in sides[0] for tn in sides[1]}
    return tuple(sorted(shapes | {(tn, tm) for tm, tn in shapes}, reverse=True))


def _halved(side: int) -> list[int]:
    sizes = [side]
    while sizes[-1] >= 2 * MMA_SIDE:
        sizes.append(sizes[-1] // 2)
    return sizes


@lru_cache(maxsize=4096)
def best_plan(chip: Chip, product: Product) -> Plan:
    """The plan of the tiling that takes least time, and of equals the one that reads least from the cache."""
    plans = (plan_of(chip, product, tiling) for tiling in _tilings(chip, product))
    return min(plans, key=lambda plan: (_seconds(chip, product, plan), plan.reread))


def _tilings(chip: Chip, product: Product) -> Iterator[Tiling]:
    for tm, tn in tile_shapes(chip):
        whole = Tiling(tm, tn)
        yield whole
        most = min(chip.units // whole.tiles(product), product.k // max(tm, tn))
        slices = 2
        while slices <= most:
            yield Tiling(tm, tn, slices)
            slices *= 2
        if most > 1:
            yield Tiling(tm, tn, most)


def plan_of(chip: Chip, product: Product, tiling: Tiling) -> Plan:
    """Tile and wave quantisation of one tiling.

    stretch = waves · units · tm · tn · k / slices / (batch · m · n · k).
    """
    tiles = tiling.tiles(product)
    waves = ceil(tiles / chip.units)
    depth = ceil(product.k / tiling.slices)
    done = 2.0 * waves * chip.units * tiling.tm * tiling.tn * depth
    loaded = tiles * float(tiling.tm + tiling.tn) * depth * product.element
    sliced = tiling.slices > 1
    partial = 2 * PARTIAL_BYTES * tiling.slices * product.batch * product.m * product.n if sliced else 0.0
    return Plan(
        stretch=done / product.flops,
        units=min(tiles, chip.units),
        latency=chip.tile_latency + (2 * chip.cache.latency if sliced else 0.0),  # partial sums out and in again
        width=product.width,
        reread=max(0.0, loaded - product.operand_bytes) + partial,
        refetch=_refetched(chip, product, tiling),
        launches=2 if sliced else 1,
    )


def _refetched(chip: Chip, product: Product, tiling: Tiling) -> float:
    """Operand bytes that main memory delivers more than once.

    The tiles of a wave cover a block of about square shape; unless one operand stays in the cache, each block reads
    its rows and columns anew: A comes n / block_n times and B m / block_m times.
    """
    a = float(product.m) * product.k * product.element
    b = float(product.n) * product.k * product.element
    if min(a, b) <= chip.cache.capacity:
        return 0.0
    area = float(chip.units * tiling.tm * tiling.tn)
    block_m = min(product.m, sqrt(area))
    block_n = min(product.n, area / block_m)
    block_m = min(product.m, area / block_n)
    return product.batch * (a * (product.n / block_n - 1) + b * (product.m / block_m - 1))


def _seconds(chip: Chip, product: Product, plan: Plan) -> float:
    operands = product.operand_bytes
    return (
        plan.latency
        + (plan.launches - 1) * chip.launch_latency
        + max(
            plan.stretch * product.flops / product.rate,
            chip.seconds(chip.cache, operands + plan.reread, plan),
            chip.seconds(chip.main, operands + plan.refetch, plan),
        )
    )
