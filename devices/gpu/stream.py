"""Kernels that stream their operands once: elementwise work, copies, transposes, and what has no family of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.mapper import Kernel


class Stream(NamedTuple):
    """Nothing but the operands counts."""

    nbytes: Array


def shape(kernel: Kernel) -> tuple[float]:
    """The sizes of a streaming kernel."""
    return (kernel.nbytes,)


def timing(x: Stream, load: Load, chip: Chip) -> Timing:
    """The longest of arithmetic, cache and main memory, after the latency of the first answer."""
    busy = {
        "matmul": load.matmul / load.matmul_rate,
        "vector": load.vector / load.vector_rate,
        "special": load.special / load.special_rate,
        "cache": (load.read + load.write) / chip.cache_bandwidth,
        "main": (load.main_read + load.main_write) / chip.main_bandwidth,
    }
    return Timing(np.maximum.reduce(list(busy.values())), busy)


STREAM = Family(shape, timing)
