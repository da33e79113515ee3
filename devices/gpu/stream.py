"""Kernels that stream their operands once: elementwise work, fused chains, copies, fills, transposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np

from hwsim.devices.gpu.blocks import DEPENDENT_CYCLES, Blocks, accesses, grid, spread
from hwsim.devices.gpu.chip import LANES
from hwsim.devices.gpu.family import Family
from hwsim.devices.traffic import HOST
from hwsim.dtypes import dtype
from hwsim.graph import Kind, Role
from hwsim.mapper import Kernel, Launch
from hwsim.work import Pattern

# ATen/native/cuda/thread_constants.h: threads of a block, elements of a thread in vectorised elementwise kernels.
THREADS, ELEMENTS = 128, 8
HALF_BYTES = 2  # of bf16 and fp16
# Copy.cu through gpu_kernel on operands of different order: elements of a thread, by the width of one
# (CUDALoops.cuh, launch_legacy_kernel: 4 of up to two bytes, else 2). Each waits for the one before.
STRIDED_ELEMENTS, WIDE_STRIDED_ELEMENTS = 4, 2

# Instructions behind one unit of counted work (compiled kernels of torch 2.11): a FLOP that is no FMA and the
# selects around it; a special function with its range reduction; conversion, address and load or store of an operand.
FLOP, SPECIAL, OPERAND = 2.0, 8.0, 4.0
STRIDED_OPERAND = 40.0  # with the two divisions that find its address
LONE_ISSUE = 2.0  # cycles an instruction of a warp that is alone with its scheduler, independent ones side by side

# Copies by the driver: bytes that whole vectors need, instructions a byte otherwise, and where it splits a lone copy.
COPY_BLOCK, COPY_ALIGNMENT, BYTE_COPY, SPLIT_COPY_BYTES = 4096, 1024, 14.0, 2**20
COPY_WORD, COPY_TAIL = 4, 400.0  # what is no whole word goes byte by byte at the end, cycles
# vllm/csrc/quantization/w8a8/fp8/common.cu, dynamic_per_token_scaled_fp8_quant: a block per row, which goes over it for
# the maximum and again to scale it; instructions of a warp, then for every four elements of its threads.
ROW_THREADS, ROW_SETUP, ROW_STEP, ROW_CYCLES = 512, 210.0, 245.0, 1500.0
# ATen/native/cuda/Normalization.cu, batch_norm_cuda_out: with known statistics, one launch brings the means to fp32 and
# one makes factors of the variances; each fetches its arguments and waits for its operands.
STATISTICS_LAUNCHES, STATISTICS_WAITS = 2.0, 2.0
# torch's AdamW on 16-bit weights: gradients are cast to fp32, new values from it, by kernels of their own (bytes).
ADAMW_CASTS, ADAMW_CAST_LAUNCHES = 12.0, 2.0
# A lone sector of 32 bytes crosses from the cache with a header of its own; neighbouring columns find it in a unit's
# first cache where fewer rows than about these lie between them.
SECTOR, LONE_SECTOR, NEAR_ROWS = 32.0, 44.0, 38.0
KEPT_ROWS = 96.0  # of 16 blocks at work, whose lines of 128 bytes fill a first cache of 192 KiB


def shape(kernel: Kernel) -> Blocks:
    """The grid of a streaming kernel."""
    if kernel.kind is Kind.COPY and "fused" not in kernel.attrs:
        strided = any(flow.pattern is Pattern.STRIDED for flow in kernel.flows) and kernel.size("rows", LANES) > 1
        return transposed(kernel) if strided else copied(kernel)
    function = kernel.attrs.get("function")
    if function == "quantize" and kernel.size("rows"):
        return quantized(kernel.size("rows"), kernel.size("cols", 1), kernel.read_bytes)
    beside = BESIDES.get(function) if isinstance(function, str) and "fused" not in kernel.attrs else None
    return beside(kernel) if beside else elementwise(kernel)


def scaled_and_shifted(kernel: Kernel) -> Blocks:
    """A batch norm with known statistics, which are brought to fp32 first and made factors."""
    launches = STATISTICS_LAUNCHES if _written_width(kernel) <= HALF_BYTES else 1.0
    sizes = elementwise(kernel)
    fetches = sizes.fetches + launches * STATISTICS_WAITS
    return sizes._replace(fetches=fetches, launches=sizes.launches + launches)


def optimised(kernel: Kernel) -> Blocks:
    """AdamW on fp32 masters; 16-bit gradients are cast to fp32 before, and 16-bit weights from the masters after it."""
    sizes, count = elementwise(kernel), elements_of(kernel)
    weights = sum(flow.nbytes for flow in kernel.flows if flow.write and flow.role is Role.WEIGHT)
    if not 0.0 < weights <= HALF_BYTES * count:
        return sizes
    casts = np.asarray(ADAMW_CASTS * count)
    return sizes._replace(again=casts, kept=kernel.nbytes + casts, launches=sizes.launches + ADAMW_CAST_LAUNCHES)


BESIDES: Mapping[str, Callable[[Kernel], Blocks]] = {"batchnorm": scaled_and_shifted, "adamw": optimised}
"""Functions that torch launches other kernels for."""


def _written_width(kernel: Kernel) -> float:
    """Bytes of an element of the result."""
    return max((flow.nbytes for flow in kernel.flows if flow.write), default=0.0) / elements_of(kernel)


def quantized(rows: int, cols: int, nbytes: float) -> Blocks:
    """A block per row with a scale of its own."""
    instructions = ROW_THREADS / LANES * (ROW_SETUP + ROW_STEP * ceil(cols / (4 * ROW_THREADS)))
    return grid(
        rows,
        ROW_THREADS,
        instructions=instructions,
        source_waits=1.0,
        cache_waits=2.0,
        cycles=ROW_CYCLES,
        again=nbytes,
        held=nbytes / rows,
    )


def elements_of(kernel: Kernel) -> float:
    """Elements that the main op is over; of its largest operand where it does not say."""
    if kernel.size("numel"):
        return float(kernel.size("numel"))
    widest = max((flow.nbytes for flow in kernel.flows), default=0.0)
    return max(1.0, widest / dtype(kernel.work.dtype).bytes_for(1))


def arithmetic_of(kernel: Kernel) -> float:
    """Instructions of a kernel's arithmetic and operands, in lanes."""
    work = kernel.work
    operands = kernel.nbytes / dtype(work.dtype).bytes_for(1)
    return FLOP * work.vector_flops + SPECIAL * work.special_ops + OPERAND * operands


def elementwise(kernel: Kernel) -> Blocks:
    """Vectorised blocks of 1,024 elements; what is left over goes element by element, each after the last.

    Operands with gaps or repeated elements are addressed one by one, 300 G elements a second on an H100. That is not
    charged: whole networks, whose matrix products draw less than those of random numbers, do not show it.
    """
    if "fused" not in kernel.attrs and kernel.attrs.get("across"):
        counted = dtype(kernel.work.dtype).bytes_for(1)
        return addressed(kernel, arithmetic_of(kernel), len(kernel.work.accesses), counted)
    elements = elements_of(kernel)
    per_element = arithmetic_of(kernel) / elements
    work = THREADS * ELEMENTS
    blocks = ceil(elements / work)
    rest = elements - (blocks - 1) * work
    full = ELEMENTS * per_element * (LONE_ISSUE - 1.0) if elements >= work else 0.0
    tail = ceil(rest / THREADS) * per_element * DEPENDENT_CYCLES if rest < work else 0.0
    return grid(blocks, THREADS, instructions=arithmetic_of(kernel) / LANES / blocks, cycles=max(full, tail))


def addressed(kernel: Kernel, arithmetic: float, operands: int, counted: float) -> Blocks:
    """Elements one after the other, the address of each operand found by divisions.

    One operand may be read across, each element from a sector of its own, of which ``counted`` bytes are in the flows.
    A block finds the sectors of neighbouring columns again that it reads itself, in the first cache of its unit, at the
    pace of the cache but without its bytes.
    """
    width = dtype(kernel.work.dtype).bytes_for(1)
    elements, rows = elements_of(kernel), kernel.size("rows")
    each = STRIDED_ELEMENTS if width <= 2 else WIDE_STRIDED_ELEMENTS
    blocks = ceil(elements / (THREADS * each))
    waits = min(each, ceil(elements / THREADS))  # threads take elements that lie a block apart
    apart = rows / (rows + NEAR_ROWS) if rows else 1.0
    found = min(1.0, KEPT_ROWS / rows) if rows else 0.0
    own = found * min(apart, rows / (THREADS * each)) + (1.0 - found) * apart
    paced, moved = (max(LONE_SECTOR * share, width) * elements for share in (apart, own))
    return grid(
        blocks,
        THREADS,
        instructions=(operands * STRIDED_OPERAND * elements + arithmetic) / LANES / blocks,
        source_waits=waits,
        cycles=waits * STRIDED_OPERAND * DEPENDENT_CYCLES,
        again=moved - counted * elements if counted else 0.0,
        idle=paced - moved if counted else 0.0,
    )


def copied(kernel: Kernel) -> Blocks:
    """A copy by the driver: whole vectors, but byte by byte in a graph where many bytes are not aligned, and in three
    launches outside of one. Its code and arguments are at hand."""
    nbytes = max(1.0, kernel.nbytes / 2)
    if any(flow.memory == HOST for flow in kernel.flows):
        return grid(1, THREADS, source_waits=0.0, fetches=0.0)  # by a copy engine, see outside.py
    blocks = ceil(nbytes / COPY_BLOCK)
    rough = nbytes % COPY_ALIGNMENT > 0 and nbytes > SPLIT_COPY_BYTES
    recorded = kernel.launch is Launch.GRAPH
    bytewise = rough and recorded
    each = BYTE_COPY if bytewise else OPERAND / 8
    tail = COPY_TAIL if nbytes % COPY_WORD else 0.0
    launches = 3.0 if rough and not recorded else 1.0
    steps = nbytes / LANES / blocks
    queued = steps * accesses(2, 1) if bytewise else 0.0
    return grid(blocks, THREADS, instructions=each * steps, queued=queued, cycles=tail, fetches=0.0, launches=launches)


def transposed(kernel: Kernel) -> Blocks:
    """Elements in the order of the result, each read from a sector of its own or from a longer run."""
    across = any(flow.pattern is Pattern.STRIDED and flow.granule > 0.0 for flow in kernel.flows)
    return addressed(kernel, OPERAND * elements_of(kernel), 2, SECTOR if across else 0.0)


STREAM = Family(shape, spread)
