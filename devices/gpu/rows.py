"""Kernels that go along the rows of a matrix: softmax, norms, reductions and running sums, as torch launches them."""

from __future__ import annotations

from math import ceil, log2

from hwsim.devices.gpu.blocks import LANES, Blocks, grid, spread
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.stream import OPERAND
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

# Cycles of a block that brings the values of its threads together: shuffles, shared memory, two barriers.
MEETING = 1100.0

# SoftMax.cu: a warp per row up to these columns; then 1,024 threads that keep up to nine elements each in registers
# (cunn_SoftMaxForwardReg), keep the row in 48 KiB of shared memory if it is whole vectors, or read it three times.
WARP_COLUMNS, WARP_ROW_BYTES = 2048, 8192
SOFTMAX_THREADS, SOFTMAX_REGISTERS, SOFTMAX_SHARED = 1024, 9, 48 * 1024
# Warp instructions per element of a row, and per row, of compiled softmax kernels: two exponentials, one division.
WARP_SOFTMAX, WARP_SOFTMAX_ROW, WARP_SOFTMAX_LONE = 48.0, 35.0, 2.5
REGISTER_SOFTMAX, VECTOR_SOFTMAX = 105.0, 56.0
SOFTMAX_SETUP = 150.0

# layer_norm_kernel.cu: 128 threads a row with vectors of four elements; where rows are no whole vectors, one kernel for
# the moments with 512 threads and one for the result, element by element.
NORM_THREADS, NORM_VECTOR, MOMENT_THREADS = 128, 4, 512
# Warp instructions per element and per warp: sums of squares, and Welford's mean and variance with a division each.
SQUARES, SQUARES_SETUP, SQUARES_CYCLES = 26.0, 95.0, 0.0
WELFORD, WELFORD_SETUP, WELFORD_CYCLES = 41.0, 225.0, 132.0
MOMENTS, MOMENTS_SETUP = 109.0, 310.0

# Reduce.cuh: 512 threads in vectors of four; a warp per row unless its lanes have 16 rows' worth of elements left.
REDUCE_THREADS, REDUCE_VECTOR, REDUCE_SPLIT, REDUCE_MOST = 512, 4, 16, 256
REDUCE, REDUCE_SETUP = 11.0, 230.0

# ScanUtils.cuh: 512 threads, rows x lanes; steps of two elements a lane through shared memory, a barrier per level.
SCAN_THREADS, SCAN_LEVEL, SCAN_STEP, SCAN_BARRIER = 512, 28.0, 50.0, 70.0


def sizes(kernel: Kernel) -> tuple[int, int, float]:
    """Rows, columns, and bytes of one element."""
    return max(1, kernel.size("rows", 1)), max(1, kernel.size("cols", 1)), dtype(kernel.work.dtype).bytes_for(1)


def extra(kernel: Kernel, operands: float) -> float:
    """Instructions per element of operands beyond those that the row's own kernel has: what is fused with it."""
    rows, cols, width = sizes(kernel)
    return max(0.0, OPERAND * (kernel.nbytes / width / (rows * cols) - operands))


def softmax(kernel: Kernel) -> Blocks:
    """A warp per short row, which is padded to a power of two; a block per long one."""
    rows, cols, width = sizes(kernel)
    if cols <= WARP_COLUMNS and cols * width <= WARP_ROW_BYTES:
        padded = 2 ** ceil(log2(cols))
        per_warp = 2 if padded <= 128 else 1
        each = max(1.0, padded / LANES) * per_warp * (WARP_SOFTMAX + extra(kernel, 2.0))
        setup = WARP_SOFTMAX_ROW * per_warp
        warps = 4
        blocks = ceil(rows / (warps * per_warp))
        cycles = WARP_SOFTMAX_LONE * (each + setup)
        return grid(blocks, warps * LANES, setup=warps * setup, instructions=warps * each, cycles=cycles)
    threads = SOFTMAX_THREADS
    setup = SOFTMAX_SETUP * threads / LANES
    row_bytes = cols * width
    if ceil(cols / threads) <= SOFTMAX_REGISTERS:
        elements = ceil(cols / threads) * threads
        work = elements / LANES * (REGISTER_SOFTMAX + extra(kernel, 2.0))
        return grid(rows, threads, setup=setup, instructions=work, cycles=MEETING)
    work = cols / LANES * (VECTOR_SOFTMAX + extra(kernel, 2.0))
    if row_bytes < SOFTMAX_SHARED and row_bytes % 16 == 0:
        return grid(rows, threads, setup=setup, instructions=work, cycles=MEETING)
    again = 2.0 * rows * row_bytes
    return grid(rows, threads, setup=setup, instructions=work, cycles=MEETING, again=again, held=2 * row_bytes)


def norm(kernel: Kernel) -> Blocks:
    """A block per row reads it twice, for its moments and for the result."""
    rows, cols, width = sizes(kernel)
    squares = kernel.attrs.get("function") in ("rmsnorm", "l2norm")
    row_bytes = cols * width
    again = rows * row_bytes
    if cols % NORM_VECTOR:
        work = cols / LANES * (MOMENTS + extra(kernel, 2.0))
        setup = MOMENTS_SETUP * MOMENT_THREADS / LANES
        steps = ceil(cols / MOMENT_THREADS)
        return grid(
            rows,
            MOMENT_THREADS,
            setup=setup,
            instructions=work,
            source_waits=steps,
            cache_waits=steps + 2.0,
            cycles=2 * MEETING,
            again=again,
            held=2 * row_bytes,
            launches=2.0,
        )
    each, setup, lone = (
        (SQUARES, SQUARES_SETUP, SQUARES_CYCLES) if squares else (WELFORD, WELFORD_SETUP, WELFORD_CYCLES)
    )
    steps = ceil(cols / (NORM_THREADS * NORM_VECTOR))
    return grid(
        rows,
        NORM_THREADS,
        setup=setup * NORM_THREADS / LANES,
        instructions=cols / LANES * (each + extra(kernel, 2.0)),
        source_waits=steps,
        cache_waits=steps,
        cycles=steps * NORM_VECTOR * lone + MEETING,
        again=again,
        held=2 * row_bytes,
    )


def reduce(kernel: Kernel) -> Blocks:
    """Lanes sum what is theirs of a row; warps or blocks share long rows."""
    rows, cols, width = sizes(kernel)
    vector = REDUCE_VECTOR if cols >= REDUCE_THREADS / 4 else 1
    across, down = _block(cols // vector, rows)
    each = ceil(cols / across)
    rows_per_block, cut = down, 1
    if each >= min(down * REDUCE_SPLIT, REDUCE_MOST):
        each, rows_per_block = ceil(each / down), 1
        cut = ceil(each / REDUCE_SPLIT) if each >= REDUCE_MOST else 1
    threads = across * down
    warps = max(1.0, threads / LANES)
    return grid(
        ceil(rows / rows_per_block),
        max(LANES, threads),
        setup=REDUCE_SETUP * warps,
        instructions=each * warps * (REDUCE + extra(kernel, 1.0)),
        source_waits=ceil(each / vector),
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
    rows, cols, width = sizes(kernel)
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
        instructions=steps * warps * (SCAN_LEVEL * (level + 1) + SCAN_STEP + extra(kernel, 2.0)),
        source_waits=steps,
        cycles=steps * (level + 2) * SCAN_BARRIER,
    )


SOFTMAX = Family(softmax, spread)
NORM = Family(norm, spread)
REDUCTION = Family(reduce, spread)
SCAN = Family(scan, spread)
