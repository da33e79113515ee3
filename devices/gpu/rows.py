"""Kernels that go along the rows of a matrix: softmax, norms, reductions and running sums, as torch launches them."""

from __future__ import annotations

from math import ceil, log2

from hwsim.devices.gpu.blocks import FIRST_CACHE, Blocks, grid, spread
from hwsim.devices.gpu.chip import LANES
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.stream import OPERAND
from hwsim.dtypes import dtype
from hwsim.graph import Role
from hwsim.mapper import Kernel

# Cycles of a block that brings the values of its threads together: shuffles, shared memory, two barriers.
MEETING = 1400.0

# SoftMax.cu: a warp per row up to these columns; then 1,024 threads that keep up to nine elements each in registers
# (cunn_SoftMaxForwardReg), keep the row in 48 KiB of shared memory if it is whole vectors, or read it three times.
WARP_COLUMNS, WARP_ROW_BYTES = 2048, 8192
SOFTMAX_THREADS, SOFTMAX_REGISTERS, SOFTMAX_SHARED = 1024, 9, 48 * 1024
# Up to six elements leave a thread with 32 registers, so that two blocks share a unit; all that one can have otherwise.
SHARED_ELEMENTS, SOFTMAX_FEW_REGISTERS, SOFTMAX_MOST_REGISTERS = 6, 32, 64
# Warp instructions per element of a row, and per row, of compiled softmax kernels: two exponentials, one division.
WARP_SOFTMAX, WARP_PADDED, WARP_SOFTMAX_ROW, WARP_SOFTMAX_LONE, SCARCE_REGISTERS = 10.0, 33.0, 45.0, 3.1, 1.6
REGISTER_SOFTMAX, NARROW, VECTOR_SOFTMAX, ROUGH_SOFTMAX = 75.0, 7.0, 52.0, 68.0
SOFTMAX_SETUP = 30.0
SOFTMAX_HELD = 1.6  # rows in the cache for each that is at work: its own, and part of what it writes

# layer_norm_kernel.cu: 128 threads a row with vectors of four elements; where rows are no whole vectors, one kernel for
# the moments with 512 threads and one for the result, element by element.
NORM_THREADS, NORM_VECTOR, MOMENT_THREADS = 128, 4, 512
# Warp instructions per element and per warp: sums of squares, and Welford's mean and variance with a division each.
SQUARES, SQUARES_SETUP, SQUARES_CYCLES, SQUARES_NARROW = 1.0, 30.0, 0.0, 45.0
WELFORD, WELFORD_SETUP, WELFORD_CYCLES = 3.0, 255.0, 127.0
SQUARES_WAIT, SQUARES_MEETING = (
    0.85,
    0.55,
)  # of answers and of meetings: loads overlap where one sum is all that is kept
MOMENTS, MOMENTS_SETUP, MOMENTS_CYCLES = 77.0, 210.0, 290.0

# Reduce.cuh: 512 threads in vectors of four; a warp per row unless its lanes have 16 rows' worth of elements left.
REDUCE_THREADS, REDUCE_VECTOR, REDUCE_SPLIT, REDUCE_MOST = 512, 4, 16, 256
REDUCE, REDUCE_SETUP, REDUCE_ACROSS, REDUCE_WAIT = 7.0, 150.0, 130.0, 0.67

# ScanUtils.cuh: 512 threads, rows x lanes; steps of two elements a lane through shared memory, a barrier per level.
SCAN_THREADS, SCAN_LEVEL, SCAN_STEP, SCAN_BARRIER = 512, 22.0, 118.0, 159.0
# cub/device/dispatch/tuning/tuning_scan.cuh: elements of a block, about 128 threads of 16.
SINGLE_SCAN = 2048


def sizes(kernel: Kernel) -> tuple[int, int, float]:
    """Rows, columns, and bytes of one element."""
    return max(1, kernel.size("rows", 1)), max(1, kernel.size("cols", 1)), dtype(kernel.work.dtype).bytes_for(1)


def extra(kernel: Kernel, operands: float) -> float:
    """Instructions per element of operands beyond those that the row's own kernel has: what is fused with it."""
    rows, cols, width = sizes(kernel)
    moved = sum(flow.nbytes for flow in kernel.flows if flow.role is not Role.WEIGHT)
    return max(0.0, OPERAND * (moved / width / (rows * cols) - operands))


def softmax(kernel: Kernel) -> Blocks:
    """A warp per short row, which is padded to a power of two; a block per long one."""
    rows, cols, width = sizes(kernel)
    more = extra(kernel, 2.0) + (NARROW if width < 4 else 0.0)
    if cols <= WARP_COLUMNS and cols * width <= WARP_ROW_BYTES:
        padded = 2 ** ceil(log2(cols))
        per_warp = 2 if padded <= 128 else 1
        scarce = SCARCE_REGISTERS if padded > LANES * LANES else 1.0
        each = max(1.0, padded / LANES) * WARP_PADDED + scarce * max(1.0, cols / LANES) * (WARP_SOFTMAX + more)
        each *= per_warp
        setup = WARP_SOFTMAX_ROW * per_warp
        warps = 4
        shared = LANES // min(padded, LANES)  # of a warp's lanes by rows shorter than it (PersistentSoftmax.cuh)
        blocks = ceil(rows / (warps * per_warp * shared))
        cycles = WARP_SOFTMAX_LONE * (each + setup)
        return grid(blocks, warps * LANES, setup=warps * setup, instructions=warps * each, cycles=cycles)
    threads, row_bytes = SOFTMAX_THREADS, cols * width
    setup = SOFTMAX_SETUP * threads / LANES
    elements = ceil(cols / threads)
    if elements <= SOFTMAX_REGISTERS:
        work = elements * threads / LANES * (REGISTER_SOFTMAX + more)
        registers = SOFTMAX_FEW_REGISTERS if elements <= SHARED_ELEMENTS else SOFTMAX_MOST_REGISTERS
        return grid(rows, threads, registers=registers, setup=setup, instructions=work, cycles=MEETING)
    aligned = row_bytes % 16 == 0
    work = cols / LANES * ((VECTOR_SOFTMAX if aligned else ROUGH_SOFTMAX) + more)
    if row_bytes < SOFTMAX_SHARED and aligned:
        return grid(rows, threads, setup=setup, instructions=work, cycles=MEETING)
    again, held = 2.0 * rows * row_bytes, SOFTMAX_HELD * row_bytes
    return grid(rows, threads, setup=setup, instructions=work, again=again, held=held, cycles=MEETING)


def norm(kernel: Kernel) -> Blocks:
    """A block per row reads it twice, for its moments and for the result."""
    rows, cols, width = sizes(kernel)
    squares = kernel.attrs.get("function") in ("rmsnorm", "l2norm")
    if cols % NORM_VECTOR:
        return _rough_norm(kernel)
    each, setup, lone = (
        (SQUARES, SQUARES_SETUP, SQUARES_CYCLES + (SQUARES_NARROW if width < 4 else 0.0))
        if squares
        else (WELFORD, WELFORD_SETUP, WELFORD_CYCLES)
    )
    waits = SQUARES_WAIT if squares else 1.0
    kernel_operands = 4.0 if squares else 5.0
    steps = ceil(cols / (NORM_THREADS * NORM_VECTOR))
    return grid(
        rows,
        NORM_THREADS,
        setup=setup * NORM_THREADS / LANES,
        instructions=cols / LANES * (each + FIRST_CACHE * kernel_operands * width + extra(kernel, 2.0)),
        source_waits=waits * steps,
        cache_waits=waits * steps,
        shared_waits=waits * steps,
        cycles=steps * NORM_VECTOR * lone + MEETING * (SQUARES_MEETING if squares else 1.0),
        again=rows * cols * width,
        held=2 * cols * width,
    )


def _rough_norm(kernel: Kernel) -> Blocks:
    """Rows that are no whole vectors: a kernel for the moments of all, then one for the result reads them again."""
    rows, cols, width = sizes(kernel)
    steps = ceil(cols / MOMENT_THREADS)
    return grid(
        rows,
        MOMENT_THREADS,
        setup=MOMENTS_SETUP * MOMENT_THREADS / LANES,
        instructions=cols / LANES * (MOMENTS + extra(kernel, 2.0)),
        source_waits=steps,
        cache_waits=2.0 * steps,
        shared_waits=2.0 * steps,
        cycles=2 * MEETING + steps * MOMENTS_CYCLES,
        again=rows * cols * width,
        kept=2 * rows * cols * width,
        launches=2.0,
    )


def reduce(kernel: Kernel) -> Blocks:
    """Lanes sum what is theirs of a row; warps or blocks share long rows."""
    rows, cols, width = sizes(kernel)
    vector = REDUCE_VECTOR if cols >= REDUCE_THREADS / 4 else 1
    across, down = _block(cols // vector, rows)
    each = ceil(cols / across)
    rows_per_block, cut, setup = down, 1, REDUCE_SETUP
    if each >= min(down * REDUCE_SPLIT, REDUCE_MOST):
        each, rows_per_block, setup = ceil(each / down), 1, REDUCE_SETUP + REDUCE_ACROSS
        cut = ceil(each / REDUCE_SPLIT) if each >= REDUCE_MOST else 1
    threads = across * down
    warps = max(1.0, threads / LANES)
    return grid(
        ceil(rows / rows_per_block),
        max(LANES, threads),
        setup=setup * warps,
        instructions=each * warps * (REDUCE + extra(kernel, 1.0)),
        source_waits=REDUCE_WAIT * ceil(each / vector) * vector * width / 8,
        cycles=MEETING,
        cut=cut,
    )


def _block(across: int, down: int) -> tuple[int, int]:
    """Reduce.cuh, set_block_dimension: powers of two below each side, at most 512 threads, a warp's width at first."""
    width, height = (min(2 ** int(log2(max(1, side))), REDUCE_THREADS) for side in (across, down))
    first = min(width, LANES)
    height = min(height, REDUCE_THREADS // first)
    return min(width, REDUCE_THREADS // height), height


def scan(kernel: Kernel) -> Blocks:
    """Lanes of a row go through it in steps; each step waits for the sum of the one before."""
    rows, cols, _ = sizes(kernel)
    if rows == 1:
        return single_scan(cols)
    wide, high = ceil(log2(cols)), ceil(log2(rows))
    level = (9 + wide - high) // 2
    # The source subtracts unsigned numbers: where rows are many and short, the difference wraps and takes all lanes.
    level = 9 if 9 + wide - high < 0 else min(max(4, level), 9)
    lanes = 2**level
    steps = ceil(cols / (2 * lanes))
    warps = SCAN_THREADS / LANES
    return grid(
        ceil(rows * lanes / SCAN_THREADS),
        SCAN_THREADS,
        setup=SCAN_STEP * warps,
        instructions=warps * (steps * SCAN_LEVEL * (level + 1) + cols / (2 * lanes) * (SCAN_STEP + extra(kernel, 2.0))),
        source_waits=steps,
        cycles=steps * (level + 2) * SCAN_BARRIER,
    )


def single_scan(cols: int) -> Blocks:
    """CUB's scan of one row, behind a kernel that prepares it: blocks look back at those before them."""
    blocks = ceil(cols / SINGLE_SCAN)
    behind = 1.5 * min(blocks, LANES)
    instructions = SINGLE_SCAN / LANES * SCAN_LEVEL
    return grid(blocks, 128, instructions=instructions, cache_waits=behind, cycles=MEETING, launches=2.0)


SOFTMAX = Family(softmax, spread)
NORM = Family(norm, spread)
REDUCTION = Family(reduce, spread)
SCAN = Family(scan, spread)
