"""No kernel takes longer than a larger one of its kind: a library's choice between kernels is read as if it were good.

Libraries switch kernels at fixed sizes, and some rows just below such a size take twice as long as longer ones. A model
that follows every such jump says that more work is faster, which misleads whoever compares designs; so the time of a
kernel is the least of its own and of those with a size doubled, up to four times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hwsim.devices.gpu.blocks import Blocks, spread
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.mapper import Kernel

FIELDS = len(Blocks._fields)
FACTORS = (2, 4, 8, 16)


class Variants(tuple[Array, ...]):
    """The fields of a kernel's `Blocks`, then those of the kernels that are larger by `FACTORS`."""

    def __new__(cls, *values: Array) -> Variants:
        return super().__new__(cls, values)


def enveloped(shape: Callable[[Kernel], Blocks], size: str, writes: bool = True) -> Family:
    """The family of ``shape`` in which no kernel takes longer than one that is larger in ``size``; ``writes``: results
    grow with it as operands do."""

    def variants(kernel: Kernel) -> Variants:
        own = kernel.size(size, 1)
        grown = [replace(kernel, attrs={**kernel.attrs, size: factor * own}) for factor in FACTORS]
        return Variants(*(value for one in (kernel, *grown) for value in shape(one)))

    def timing(x: Variants, load: Load, chip: Chip) -> Timing:
        own, *others = (Blocks(*x[start : start + FIELDS]) for start in range(0, len(x), FIELDS))
        best = spread(own, load, chip)
        for factor, other in zip(FACTORS, others, strict=True):
            best = _shorter(best, spread(other, _larger(load, factor, writes), chip), chip)
        return best

    return Family(variants, timing)


def _shorter(own: Timing, larger: Timing, chip: Chip) -> Timing:
    """``own`` with the time and launches of ``larger`` where that takes less, launches included."""
    launch = chip["graph_launch_latency"]
    less = larger.seconds + larger.launches * launch < own.seconds + own.launches * launch
    seconds = np.where(less, larger.seconds, own.seconds)
    busy = {name: np.minimum(values, seconds) for name, values in own.busy.items()}
    return replace(own, seconds=seconds, launches=np.where(less, larger.launches, own.launches), busy=busy)


def _larger(load: Load, factor: float, writes: bool) -> Load:
    """The load of kernels larger by ``factor``."""
    amounts = {"matmul", "vector", "special", "read", "main_read", "evicted"} | (
        {"write", "main_write"} if writes else set()
    )
    return load._replace(**{name: factor * getattr(load, name) for name in amounts})
