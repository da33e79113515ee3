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


def enveloped(shape: Callable[[Kernel], Blocks], size: str) -> Family:
    """The family of ``shape`` in which no kernel takes longer than one that is larger in ``size``."""

    def variants(kernel: Kernel) -> Variants:
        own = kernel.size(size, 1)
        grown = [replace(kernel, attrs={**kernel.attrs, size: factor * own}) for factor in FACTORS]
        return Variants(*(value for one in (kernel, *grown) for value in shape(one)))

    return Family(variants, _timing)


def _timing(x: Variants, load: Load, chip: Chip) -> Timing:
    own, *others = (Blocks(*x[start : start + FIELDS]) for start in range(0, len(x), FIELDS))
    timing = spread(own, load, chip)
    seconds = timing.seconds + timing.launches * chip["graph_launch_latency"]
    for factor, other in zip(FACTORS, others, strict=True):
        larger = spread(other, _larger(load, factor), chip)
        seconds = np.minimum(seconds, larger.seconds + larger.launches * chip["graph_launch_latency"])
    least = seconds - timing.launches * chip["graph_launch_latency"]
    busy = {name: np.minimum(values, least) for name, values in timing.busy.items()}
    return replace(timing, seconds=least, busy=busy)


def _larger(load: Load, factor: float) -> Load:
    """The load of kernels larger by ``factor``."""
    amounts = {"matmul", "vector", "special", "read", "write", "main_read", "main_write", "evicted"}
    return load._replace(**{name: factor * getattr(load, name) for name in amounts})
