"""What the physics of a kernel family takes and gives: arrays with one entry a kernel, in SI units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
MAIN, LATENCY = "main", "latency"  # resources of `Timing` whose speed is not the chip's clock


class Load(NamedTuple):
    """What kernels ask of the chip, whatever their family.

    Arithmetic in operations, with the rate at which the card's peak would do them and the energy of one; ``read`` and
    ``write`` are the bytes that operands move through the cache, ``main_read`` and ``main_write`` those that main
    memory serves. ``evicted`` are dirty bytes of others that main memory takes back as these displace them; ``far`` is
    the share of answers that take as long as main memory's.
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
    main_read: Array
    main_write: Array
    evicted: Array | float = 0.0
    far: Array | float = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long kernels take at full clocks, without their launch.

    ``busy`` holds the seconds of work per resource (matmul, vector, special, cache, main, latency), never above
    ``seconds``. ``cache_again`` and ``main_again`` are bytes read beyond each operand once; ``padding`` is the matrix
    work that units do over the work that is wanted; ``issued`` are the lanes' instructions; ``fed`` is the share of
    their rows to which matrix units pass on the bytes that are read.
    """

    seconds: Array
    busy: Mapping[str, Array]
    cache_again: Array | float = 0.0
    main_again: Array | float = 0.0
    padding: Array | float = 1.0
    launches: Array | float = 1.0
    issued: Array | float = 0.0
    fed: Array | float = 1.0

    @property
    def working(self) -> Array:
        """Seconds of the busiest resource of the chip itself, main memory and waits aside."""
        most: Array | float = 0.0
        for name, values in self.busy.items():
            if name not in (MAIN, LATENCY):
                most = np.maximum(most, values)
        return np.asarray(most)


def clip(values: Array, low: Array | float, high: Array | float) -> Array:
    """`np.clip` without what it checks first, which takes most of its time for the few kernels of a model."""
    clipped: Array = np.minimum(np.maximum(values, low), high)
    return clipped
