"""Kernels that pick rows of a table, or add rows to one: embedding, index_select, gather, scatter."""

from __future__ import annotations

from math import ceil

from hwsim.devices.gpu.blocks import DEPENDENT_CYCLES, Blocks, accesses, grid, spread
from hwsim.devices.gpu.chip import LANES
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.stream import arithmetic_of
from hwsim.dtypes import dtype
from hwsim.graph import Kind
from hwsim.mapper import Kernel

# ATen/native/cuda/IndexKernelUtils.cu, vectorized_gather_kernel: a block per index and 256 vectors of 16 bytes.
VECTOR, VECTOR_THREADS = 16, 256
VECTOR_INSTRUCTIONS, VECTOR_CYCLES = 54.0, 460.0  # of a warp: index, bounds check, two addresses, load and store
# ATen/native/cuda/Indexing.cu, indexSelectSmallIndex: up to 16 indices, which every thread goes through in turn.
FEW, ONE_BY_ONE_CYCLES = 16, 600.0
# ATen/native/cuda/ScatterGatherKernel.cu: 128 threads of 8 elements, each with its own index, one after the other.
THREADS, ELEMENTS = 128, 8
# vllm/csrc/cache_kernels.cu, reshape_and_cache_flash: a block per token, a thread per element of its keys up to 512.
PAGED_THREADS = 512
PAGED_CYCLES, PAGED_INSTRUCTIONS = 2300.0, 100.0
ADDRESS = 20.0  # instructions behind each of four addresses: a division of the element's number by the row's length
WORD = 4  # bytes of an element of raw rows


def shape(kernel: Kernel) -> Blocks:
    """The grid of a gather: whole vectors where rows are aligned to them, element by element otherwise."""
    picks = max(1, kernel.size("picks", 1))
    row = max((flow.granule for flow in kernel.flows), default=0.0) or kernel.write_bytes / picks or 1.0
    if row % VECTOR == 0 and kernel.kind is Kind.GATHER and picks > FEW:
        return vectors(picks, row)
    if kernel.attrs.get("paged"):
        return paged(picks, row / dtype(kernel.work.dtype).bytes_for(1))
    fmt = dtype(kernel.work.dtype)
    elements = picks * row / (fmt.bytes_for(1) if fmt.kind == "float" else WORD)
    if picks <= FEW:
        return one_by_one(picks, elements)
    return by_elements(elements, arithmetic_of(kernel) / elements)


def vectors(picks: int, row: float) -> Blocks:
    """Blocks that copy a vector a thread; each waits for its index, then for its row."""
    threads = min(VECTOR_THREADS, ceil(row / VECTOR / LANES) * LANES)
    blocks = picks * ceil(row / VECTOR / threads)
    warps = threads / LANES
    return grid(
        blocks,
        threads,
        instructions=warps * VECTOR_INSTRUCTIONS,
        queued=warps * accesses(2, VECTOR),
        cache_waits=1.0,
        cycles=VECTOR_CYCLES,
    )


def paged(tokens: int, elements: float) -> Blocks:
    """Blocks of a token: threads find its slot, divide it into page and offset, then copy keys and values."""
    threads = min(PAGED_THREADS, max(LANES, ceil(elements / 2 / LANES) * LANES))
    return grid(
        tokens, threads, instructions=PAGED_INSTRUCTIONS * threads / LANES, cache_waits=1.0, cycles=PAGED_CYCLES
    )


def one_by_one(picks: int, elements: float) -> Blocks:
    """A thread per element of a row walks through all indices."""
    row = elements / picks
    blocks = ceil(row / THREADS)
    cycles = ONE_BY_ONE_CYCLES + picks * 2 * ADDRESS * DEPENDENT_CYCLES
    instructions = picks * 3 * ADDRESS * THREADS / LANES
    return grid(blocks, THREADS, instructions=instructions, source_waits=picks, cache_waits=picks, cycles=cycles)


def by_elements(elements: float, each: float) -> Blocks:
    """Threads of eight elements: an index, an element, a store, eight times in a row."""
    blocks = ceil(elements / (THREADS * ELEMENTS))
    instructions = ELEMENTS * THREADS / LANES * (4 * ADDRESS + each)
    return grid(
        blocks,
        THREADS,
        instructions=instructions,
        source_waits=ELEMENTS,
        cache_waits=ELEMENTS,
        cycles=ELEMENTS * ADDRESS * DEPENDENT_CYCLES,
    )


GATHER = Family(shape, spread)
