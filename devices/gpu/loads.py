"""From kernels to the columns that families calculate with: arithmetic, rates, and bytes by level of memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

import numpy as np

from hwsim.card import Card
from hwsim.companions import BESIDE
from hwsim.device import Replay
from hwsim.devices.attention import needed_share
from hwsim.devices.gpu.chip import ACCUMULATOR, Chip
from hwsim.devices.gpu.timing import Array, Load, clip
from hwsim.devices.rates import FMA_FLOPS, Rate, Rates
from hwsim.dtypes import dtype
from hwsim.graph import Role
from hwsim.mapper import Flow, Kernel
from hwsim.work import Pattern

NONE = Rate("", 1.0, 0.0)
SCATTERED = (Pattern.GATHER, Pattern.SCATTER)


class Columns(NamedTuple):
    """What kernels ask for, whatever the cache holds: arithmetic as in `Load`, then bytes.

    ``read`` and ``write`` go through the cache. Main memory is asked for ``weights`` and for other operands to
    read (``main_read``) and to write (``main_write``), in whole grains, some of them activations (``passed_read``,
    ``passed_write``); ``weight_bytes`` and ``other_bytes`` of it are distinct.
    """

    matmul: Array
    vector: Array
    special: Array
    matmul_rate: Array
    vector_rate: Array
    special_rate: Array
    matmul_joules: Array
    vector_joules: Array
    special_joules: Array
    read: Array
    write: Array
    weights: Array
    main_read: Array
    main_write: Array
    weight_bytes: Array
    other_bytes: Array
    passed_read: Array
    passed_write: Array

    def load(self, chip: Chip, replay: Replay | None, passed: bool = False, apart: Array | float = 0.0) -> Load:
        """The load with an empty cache, or as kernels find it that are replayed, or to which others have ``passed``
        their activations: those come from the cache, and leave in it, as far as it holds a kernel's operands. A share
        ``apart`` of bytes is read by one unit alone."""
        if passed:
            held = 1.0 - chip.missing(self.weight_bytes + self.other_bytes)
            main_read, main_write = self.main_read - held * self.passed_read, self.main_write - held * self.passed_write
            return Load(*self[:11], self.weights + main_read, main_write, far=self._far(self.weights + self.main_read))
        lost: Array | float = 1.0
        kept: Array | float = 1.0
        if replay is not None:
            weights = replay.copies * self.weight_bytes
            others = self.other_bytes * (replay.copies if replay.all_operands else 1)
            lost, kept = (chip.missing(part + others, apart) for part in (weights, self.weight_bytes))
        main_read = lost * self.weights + kept * self.main_read
        return Load(*self[:11], main_read, kept * self.main_write, far=self._far(main_read))

    def _far(self, main_read: Array) -> Array:
        """The share of what is read that comes from main memory."""
        return clip(main_read / np.maximum(self.read, 1.0), 0.0, 1.0)


class Loads:
    """Makes columns for the kernels of one card."""

    def __init__(self, card: Card, chip: Chip) -> None:
        self._rates = Rates(card)
        self._main, self._cache = chip.main, chip.cache
        self._main_name = chip.main.name
        self._known: dict[tuple[str, bool], tuple[float, ...]] = {}

    def of(self, kernels: Sequence[Kernel]) -> Columns:
        """One entry of each column for each kernel."""
        return Columns(*np.array([self._row(kernel) for kernel in kernels]).reshape(-1, len(Columns._fields)).T)

    def _row(self, kernel: Kernel) -> tuple[float, ...]:
        work, share = kernel.work, needed_share(kernel)
        key = work.dtype, work.matmul_flops != 0.0
        return (
            share * work.matmul_flops,
            share * work.vector_flops,
            share * work.special_ops,
            *(self._known.get(key) or self._rates_of(*key)),
            *self._bytes(kernel),
        )

    def _rates_of(self, name: str, products: bool) -> tuple[float, ...]:
        """The rates and energies of products (where there are any), vector work and special functions on operands of a
        format."""
        fmt = dtype(name)
        wide = ACCUMULATOR if fmt.kind in ("float", "block") and fmt.bits < dtype(ACCUMULATOR).bits else name
        matmul = self._rates.matmul(name) if products else NONE
        vector, special = self._rates.vector(wide), self._rates.special(wide)
        rates = matmul.flops, vector.flops / FMA_FLOPS, special.flops, matmul.joules, vector.joules, special.joules
        self._known[name, products] = rates
        return rates

    def _bytes(self, kernel: Kernel) -> tuple[float, ...]:
        """The byte columns of `Columns`, in their order."""
        read = write = weights = main_read = main_write = weight_bytes = other_bytes = passed_read = passed_write = 0.0
        main = self._main_name
        for flow in kernel.flows:
            nbytes, role = flow.nbytes, flow.role
            through, served = (nbytes, nbytes) if flow.pattern is Pattern.STREAM else self._in_grains(flow)
            if flow.memory != main:
                served = 0.0
            if flow.write:
                write, main_write = write + through, main_write + served
            elif role is Role.WEIGHT:
                read, weights = read + through, weights + served
            else:
                read, main_read = read + through, main_read + served
            if not served:
                continue
            if role is Role.WEIGHT and not flow.write:
                weight_bytes += nbytes
                continue
            other_bytes += nbytes
            if role is Role.ACTIVATION and flow.write:
                passed_write += served
            elif role is Role.ACTIVATION:
                passed_read += served
        other_bytes += kernel.size(BESIDE)
        return read, write, weights, main_read, main_write, weight_bytes, other_bytes, passed_read, passed_write

    def _in_grains(self, flow: Flow) -> tuple[float, float]:
        """The bytes of a flow in whole grains of the cache, and of main memory."""
        scattered = flow.pattern in SCATTERED
        through = _in_grains(flow, self._cache.granularity, scattered or flow.pattern is Pattern.STRIDED)
        return through, _in_grains(flow, self._main.granularity, scattered)


def _in_grains(flow: Flow, grain: float, apart: bool) -> float:
    """The bytes of a flow in whole grains, where its runs lie ``apart``.

    Runs start at multiples of what divides both run and grain, so that one touches (run - that) / grain + 1 grains.
    """
    if not apart or not flow.granule:
        return flow.nbytes
    start = gcd(max(1, int(flow.granule)), max(1, int(grain)))
    return flow.nbytes / flow.granule * (flow.granule - start + grain)
