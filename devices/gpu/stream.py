"""Kernels that stream their operands once: elementwise work, fused chains, copies, fills, transposes."""

from __future__ import annotations

from math import ceil

from hwsim.devices.gpu.blocks import DEPENDENT_CYCLES, LANES, Blocks, grid, spread
from hwsim.devices.gpu.family import Family
from hwsim.dtypes import dtype
from hwsim.graph import Kind
from hwsim.mapper import Kernel, Launch
from hwsim.work import Pattern

# ATen/native/cuda/thread_constants.h: threads of a block, elements of a thread in vectorised elementwise kernels.
THREADS, ELEMENTS = 128, 8
# Copy.cu through gpu_kernel on operands of different order: elements of a thread, by the width of one
# (CUDALoops.cuh, launch_legacy_kernel: 4 of up to two bytes, else 2). Each waits for the one before.
STRIDED_ELEMENTS, WIDE_STRIDED_ELEMENTS = 4, 2

# Instructions behind one unit of counted work (compiled kernels of torch 2.11): a FLOP that is no FMA and the
# selects around it; a special function with its range reduction; conversion, address and load or store of an operand.
FLOP, SPECIAL, OPERAND = 2.0, 8.0, 4.0
STRIDED_OPERAND = 20.0  # with the two divisions that find its address
LONE_ISSUE = 2.0  # cycles an instruction of a warp that is alone with its scheduler, independent ones side by side

# Copies by the driver: bytes that whole vectors need, instructions a byte otherwise, and where it splits a lone copy.
COPY_ALIGNMENT, BYTE_COPY, SPLIT_COPY_BYTES = 1024, 17.0, 2**20
# A cache slice serves 64 bytes a cycle, a lone sector of 32 as well (NVIDIA A100 whitepaper: 5,120 B/cycle, 80 slices).
SECTOR, LONE_SECTOR = 32.0, 64.0


def shape(kernel: Kernel) -> Blocks:
    """The grid of a streaming kernel."""
    if kernel.kind is Kind.COPY and "fused" not in kernel.attrs:
        strided = any(flow.pattern is Pattern.STRIDED for flow in kernel.flows)
        return transposed(kernel) if strided else copied(kernel)
    return elementwise(kernel)


def elements_of(kernel: Kernel) -> float:
    """Elements of the largest operand."""
    widest = max((flow.nbytes for flow in kernel.flows), default=0.0)
    return max(1.0, widest / dtype(kernel.work.dtype).bytes_for(1))


def arithmetic_of(kernel: Kernel) -> float:
    """Instructions of a kernel's arithmetic and operands, in lanes."""
    work = kernel.work
    operands = kernel.nbytes / dtype(work.dtype).bytes_for(1)
    return FLOP * work.vector_flops + SPECIAL * work.special_ops + OPERAND * operands


def elementwise(kernel: Kernel) -> Blocks:
    """Vectorised blocks of 1,024 elements; what is left over goes element by element, each after the last."""
    elements = elements_of(kernel)
    per_element = arithmetic_of(kernel) / elements
    work = THREADS * ELEMENTS
    blocks = ceil(elements / work)
    rest = elements - (blocks - 1) * work
    full = ELEMENTS * per_element * (LONE_ISSUE - 1.0) if elements >= work else 0.0
    tail = ceil(rest / THREADS) * per_element * DEPENDENT_CYCLES if rest < work else 0.0
    return grid(blocks, THREADS, instructions=arithmetic_of(kernel) / LANES / blocks, cycles=max(full, tail))


def copied(kernel: Kernel) -> Blocks:
    """A copy by the driver: 16-byte vectors, byte by byte in a graph where the size is not aligned."""
    nbytes = max(1.0, kernel.nbytes / 2)
    blocks = ceil(nbytes / (THREADS * ELEMENTS * 4))
    aligned = nbytes % COPY_ALIGNMENT == 0
    instructions = OPERAND * nbytes / 8 if aligned or kernel.launch is Launch.EAGER else BYTE_COPY * nbytes
    split = not aligned and kernel.launch is Launch.EAGER and nbytes > SPLIT_COPY_BYTES
    return grid(blocks, THREADS, instructions=instructions / LANES / blocks, launches=3.0 if split else 1.0)


def transposed(kernel: Kernel) -> Blocks:
    """Elements one after the other in the order of the result, each read from a sector of its own."""
    width = dtype(kernel.work.dtype).bytes_for(1)
    elements = elements_of(kernel)
    together = min(1.0, kernel.size("rows", LANES) / LANES)
    each = STRIDED_ELEMENTS if width <= 2 else WIDE_STRIDED_ELEMENTS
    blocks = ceil(elements / (THREADS * each))
    instructions = (2 * STRIDED_OPERAND + OPERAND) * elements / LANES / blocks
    cycles = each * STRIDED_OPERAND * DEPENDENT_CYCLES
    idle = elements * (LONE_SECTOR * together - SECTOR)
    return grid(blocks, THREADS, instructions=instructions, source_waits=each, cycles=cycles, idle=idle)


STREAM = Family(shape, spread)
