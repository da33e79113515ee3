"""Kernels that pick rows of a table, or add rows to one: embedding, index_select, gather, scatter."""

from __future__ import annotations

from math import ceil

from hwsim.devices.gpu.blocks import DEPENDENT_CYCLES, LANES, Blocks, grid, spread
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.stream import STRIDED_OPERAND, arithmetic_of, elements_of
from hwsim.dtypes import dtype
from hwsim.graph import Kind
from hwsim.mapper import Kernel

# ATen/native/cuda/IndexKernelUtils.cu, vectorized_gather_kernel: a block per index and 256 vectors of 16 bytes.
VECTOR, VECTOR_THREADS = 16, 256
VECTOR_INSTRUCTIONS = 30.0  # of a warp: index, bounds check, two addresses, load and store
# ATen/native/cuda/Indexing.cu, indexSelectSmallIndex: up to 16 indices, which every thread goes through in turn.
FEW = 16
# ATen/native/cuda/ScatterGatherKernel.cu: 128 threads of 8 elements, each with its own index, one after the other.
THREADS, ELEMENTS = 128, 8
WORD = 4  # bytes of an element of raw rows


def shape(kernel: Kernel) -> Blocks:
    """The grid of a gather: whole vectors where rows are aligned to them, element by element otherwise."""
    picks = max(1, kernel.size("picks", 1))
    row = max((flow.granule for flow in kernel.flows), default=0.0) or kernel.write_bytes / picks or 1.0
    if row % VECTOR == 0 and kernel.kind is Kind.GATHER and picks > FEW:
        return vectors(picks, row)
    width = dtype(kernel.work.dtype).bytes_for(1)
    elements = picks * row / (WORD if width < 2 else width)
    if picks <= FEW:
        return one_by_one(picks, elements)
    return by_elements(elements, arithmetic_of(kernel) / max(1.0, elements_of(kernel)))


def vectors(picks: int, row: float) -> Blocks:
    """Blocks that copy a vector a thread; each waits for its index, then for its row."""
    threads = min(VECTOR_THREADS, ceil(row / VECTOR / LANES) * LANES)
    blocks = picks * ceil(row / VECTOR / threads)
    return grid(blocks, threads, instructions=VECTOR_INSTRUCTIONS * threads / LANES, source_waits=1.0, cache_waits=1.0)


def one_by_one(picks: int, elements: float) -> Blocks:
    """A thread per element of a row walks through all indices."""
    row = elements / picks
    blocks = ceil(row / THREADS)
    cycles = picks * 2 * STRIDED_OPERAND * DEPENDENT_CYCLES
    instructions = picks * 3 * STRIDED_OPERAND * THREADS / LANES
    return grid(blocks, THREADS, instructions=instructions, source_waits=picks, cache_waits=picks, cycles=cycles)


def by_elements(elements: float, each: float) -> Blocks:
    """Threads of eight elements: an index, an element, a store, eight times in a row."""
    blocks = ceil(elements / (THREADS * ELEMENTS))
    instructions = ELEMENTS * THREADS / LANES * (4 * STRIDED_OPERAND + each)
    return grid(blocks, THREADS, instructions=instructions, source_waits=ELEMENTS, cache_waits=ELEMENTS)


GATHER = Family(shape, spread)
