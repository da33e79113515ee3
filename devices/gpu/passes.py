"""Kernels that go over their operands several times: radix sorts, Fourier transforms longer than a block holds."""

from __future__ import annotations

from math import ceil, log

from hwsim.devices.gpu.blocks import Blocks, grid, spread
from hwsim.devices.gpu.chip import LANES
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.stream import ELEMENTS, THREADS, arithmetic_of
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

RADIX_BITS = 8  # of a key that one pass of a radix sort orders (Adinets and Merrill, Onesweep, arXiv 2206.01784)
BLOCK_POINTS = (
    4096  # of a transform that one block does in shared memory (cuFFT documentation: up to 32 KiB of complex)
)


def sort(kernel: Kernel) -> Blocks:
    """A pass for every eight bits of the keys."""
    return passes(kernel, ceil(dtype(kernel.work.dtype).bits / RADIX_BITS))


def fft(kernel: Kernel) -> Blocks:
    """A pass for every factor of the length that a block can transform at once."""
    points = max(2, kernel.size("cols", 2))
    return passes(kernel, ceil(log(points) / log(BLOCK_POINTS) - 1e-9))


def passes(kernel: Kernel, count: int) -> Blocks:
    """All bytes cross the cache again with each pass, and come from main memory where they overflow the cache."""
    elements = max(1, kernel.size("rows", 1) * kernel.size("cols", 1))
    blocks = ceil(elements / (THREADS * ELEMENTS))
    again = (count - 1) * kernel.nbytes
    return grid(
        blocks,
        THREADS,
        instructions=count * arithmetic_of(kernel) / LANES / blocks,
        source_waits=count,
        again=again,
        kept=kernel.nbytes,
        launches=count,
    )


SORT = Family(sort, spread)
FFT = Family(fft, spread)
