"""Convolutions on a GPU, as torch and cuDNN's heuristics run them.

Four ways: one tap without stride is a matrix product; several taps gather their operands step by step (an implicit
product); depthwise convolutions go output by output on the lanes; and 16-bit channels-first operands are copied to
channels-last and back around the gathering kernel, each copy a launch of its own.

A gathering kernel walks tiles of positions x filters in steps of one tap and a run of channels:

    seconds = start + max(walk + store, traffic)
    walk    = waves x steps x max(flops of a step / rate, operands of a step / gathered bandwidth)

It multiplies on the lanes, on matrix units warp by warp, or on those of Hopper and later by whole warpgroups, whose
operands a copy engine gathers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import product
from math import gcd, prod
from typing import NamedTuple

import numpy as np

from hwsim.devices.gpu import matmul
from hwsim.devices.gpu.blocks import Blocks, grid, spread, traffic
from hwsim.devices.gpu.chip import LANES, LOAD_BYTES, Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.gpu.ways import by_way
from hwsim.devices.rates import FMA_FLOPS
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

PRODUCT, GATHERED, DIRECT = range(3)

# cuDNN's implicit products, by the names, grids and times of its kernels for 1,231 shapes on an H100, and by those of
# 1,470 on two: tiles of rows x columns and channels of a step, of which these few come nearest to all; slices of k.
LANES_ONLY, WARPS, GROUPS = range(3)
TILES = {
    LANES_ONLY: [(32, 32, 8), (128, 32, 8), (256, 64, 8)],
    WARPS: [(64, 64, 32), (64, 64, 64), (128, 128, 32), (256, 32, 32), (256, 64, 32)],
    GROUPS: [(64, 64, 64), (128, 128, 64), (256, 64, 32), (256, 128, 64)],
}
WHOLE, GRADIENT_SLICES = 1, (8, 32)
ROWS, COLUMNS, DEPTH, CUT, ENGINE = (
    np.array(column, dtype=float)
    for column in zip(
        *[
            (*tile, cut, engine)
            for engine, tiles in TILES.items()
            for tile, cut in product(tiles, (WHOLE, *GRADIENT_SLICES))
        ],
        strict=True,
    )
)
ON_LANES, BY_GROUPS = ENGINE == LANES_ONLY, ENGINE == GROUPS
RESIDENT = np.where(BY_GROUPS, 1.0, np.clip(2**15 / (ROWS * COLUMNS), 1.0, 8.0))  # blocks of a unit, by their results
STARTS = np.select([BY_GROUPS, ENGINE == WARPS], [2.5e-6, 0.4e-6])  # seconds beyond `conv_latency`
HALF_LINE = np.where(BY_GROUPS & (DEPTH < 64), 0.5, 1.0)  # bandwidth for runs of half a line over that for whole ones
LANE_ROWS = 80.0  # rows of a tile on lanes that its operands take as long as (20, 31 and 41 TFLOP/s, see TILES)
TILE_ANSWERS = 2.0  # of memory, one after the other, before the first step of a tile and after its last
LEAST_STEPS = 16.0  # of a slice of k
PARTIAL_BYTES = 4.0  # of a partial sum in fp32
PORT_BYTES = 64.0  # a clock between the cache and one unit, which the copy engine fills
WHOLE_RUN = 16  # runs of channels that are no multiple of these take more lines and addresses, steps longer:
UNEVEN = np.select([BY_GROUPS, ENGINE == WARPS], [1.4, 1.2], 1.0)
MOST_WARPS = 4096.0  # positions, up to which one tap is left to warps where there are warpgroups
LANE_INDEXING = {"nchw": 0.78, "nhwc": 0.73}  # share of issue slots that addresses leave to fp32 products
STEP_CYCLES = 450.0  # of a step on lanes in a block that has a unit to itself (k of 360 to 31,000, 1 to 100 blocks)
LEAST_BYTES, WIDE = 2, 4
# Fewer channels, where they lie last, are padded to these: input and weights. fp16 has kernels for such, bf16 goes on
# lanes if they do not come in pairs.
LEAST_CHANNELS, PADDING_LAUNCHES = 8, 4.0
# Most channels of 16-bit operands, channels first, that go on lanes as they are; with padding, taps and FLOPs.
LANE_MOST, LANE_TAPS, LANE_FLOPS = 8, 9, 4e9
# Results of the only tile of these, of fp32 with channels last, of one tap of few channels first, and of many taps; and
# the share of the port that its stores reach.
SINGLE, SINGLE_CHANNELS, SINGLE_STORE = 32 * 32, 64, 0.14
MANY_TAPS, WARP_SHARE = 49.0, 0.55  # cuDNN runs so many without warpgroups; share of the peak that mma.sync reaches
# Channels of fp32, channels last, from which operands are copied to channels first and back.
MANY_CHANNELS, MANY_ONE_TAP = 32, 96
COPY_SHARE, WIDE_COPY_SHARE = 0.6, 0.95  # of bandwidth, for copies that transpose through shared memory

# Instructions of a lane per output and per tap of it: DepthwiseConv2d.cu (a thread an output, blocks of 1,024, four
# divisions for its place; generic ones for other kernels than 1, 3 and 5) and cuDNN's, channels first or last; of the
# latter, on 16-bit numbers, ones for batches, and direct ones of groups for one tap of few channels or with a stride.
TORCH, FIRST, LAST_HALF, LAST_WIDE = (165.0, 14.5), (45.0, 6.6), (1.0, 7.2), (30.0, 7.6)
TORCH_GENERIC, LAST_HALF_GENERIC, LAST_WIDE_GENERIC = (165.0, 18.0), (20.0, 7.9), (7.0, 11.3)
LAST_BATCH, LAST_BATCH_STRIDED, LAST_DIRECT, LAST_DIRECT_STRIDED = (37.0, 3.3), (68.0, 8.0), (430.0, 0.0), (720.0, 0.0)
TORCH_THREADS, CUDNN_THREADS = 1024, 256
LAST_OUTPUTS, BATCH_OUTPUTS = 4.0, 16.0  # of a thread, one after the other
# Cycles of one tap of theirs: fp32, 16 bits, batches of those; times that with a stride; of an output of a direct one.
TAP_WIDE, TAP_HALF, TAP_BATCH, TAP_STRIDED, DIRECT_CYCLES = 16.0, 71.0, 19.0, 1.6, 560.0
BATCHED, DIRECT_CHANNELS = 8, 16  # images, from which there are kernels for batches; channels, up to which direct ones
UNROLLED = (1, 9, 25)
STRIDES = range(1, 5)
FEWEST_CHANNELS = 32  # Convolution.cpp, use_cudnn_depthwise: below, and in other formats than fp16, torch's own kernel


class Convolution(NamedTuple):
    """``batch`` products of m positions x n filters over ``taps`` runs of ``channels``, elements of ``element`` bytes.

    Those on ``lanes`` reach that share of their rate, some with a ``single`` tile; ``uneven`` runs of channels fill no
    lines. ``copied`` bytes change their layout in ``copies`` launches. A direct kernel has ``outputs`` of
    ``instructions`` each in blocks of ``threads``, each of which makes so many in ``cycles``, one after the other.
    """

    way: Array
    batch: Array
    m: Array
    n: Array
    taps: Array
    channels: Array
    element: Array
    lanes: Array
    single: Array
    uneven: Array
    cut: Array
    aligned: Array
    copied: Array
    copies: Array
    outputs: Array
    instructions: Array
    threads: Array
    each: Array
    cycles: Array


def shape(kernel: Kernel) -> Convolution:
    """How a convolution is run, from its sizes, format and layout."""
    batch, m, n, taps, channels = product_of(kernel)
    element = dtype(kernel.work.dtype).bytes_for(1)
    first = kernel.attrs.get("layout") == "nchw"
    narrow = element < WIDE
    gradient = kernel.attrs.get("direction") == "grad_weight"
    depthwise = batch > 1 and batch == kernel.size("in_channels", 1)
    strided = _positions(kernel, "in_size") != _positions(kernel, "out_size")
    pointwise = taps == 1 and batch == 1 and narrow and not strided
    row = _positions(kernel, "in_size") if first else gcd(channels, n)
    aligned = gcd(int(max(LEAST_BYTES, row * element)), LOAD_BYTES)
    on_lanes = not narrow or (not pointwise and _few(kernel, 2.0 * batch * m * n * taps * channels, taps, channels))
    turned = not first and not narrow and channels >= (MANY_CHANNELS if taps > 1 else MANY_ONE_TAP) and not depthwise
    wide_tiles = not narrow and (first or turned) and taps < MANY_TAPS and (taps > 1 or channels > SINGLE_CHANNELS)
    copies, copied = 0.0, 0.0
    if turned or (first and not on_lanes and not pointwise):
        copies, copied = 3.0, kernel.nbytes
    elif channels < LEAST_CHANNELS and not on_lanes and not pointwise and kernel.work.dtype != "fp16":
        copies, copied = PADDING_LAUNCHES, kernel.read_bytes
    lanes = LANE_INDEXING["nchw" if first or turned else "nhwc"] if on_lanes else 0.0
    single = on_lanes and not wide_tiles and not gradient
    whole = on_lanes or gradient or channels < LEAST_CHANNELS or gcd(channels, WHOLE_RUN) in (channels, WHOLE_RUN)
    cut = max(GRADIENT_SLICES) if gradient else WHOLE
    way = DIRECT if depthwise else PRODUCT if pointwise else GATHERED
    sizes = (batch, m, n, taps, channels, element, lanes, single, not whole, cut, aligned)
    outputs = float(batch) * m * n
    return Convolution._make((way, *sizes, copied, copies, outputs, *direct_kernel(kernel, first, taps, strided)))


def _few(kernel: Kernel, flops: float, taps: int, channels: int) -> bool:
    """Whether cuDNN leaves 16-bit operands as they are and multiplies on lanes."""
    if kernel.attrs.get("layout") != "nchw":
        return channels < LEAST_CHANNELS and channels % 2 == 1 and kernel.work.dtype != "fp16"
    return channels <= LANE_MOST and (not _padded(kernel) or (taps <= LANE_TAPS and flops <= LANE_FLOPS))


def product_of(kernel: Kernel) -> tuple[int, int, int, int, int]:
    """(groups, m, n, taps, channels) of the products that a convolution is, k = taps x channels."""
    groups, batch = max(1, kernel.size("groups", 1)), max(1, kernel.size("batch", 1))
    inputs, outputs = (max(1, kernel.size(name, 1) // groups) for name in ("in_channels", "out_channels"))
    taps = prod(_sizes(kernel, "kernel"))
    sources, targets = batch * _positions(kernel, "in_size"), batch * _positions(kernel, "out_size")
    if kernel.attrs.get("transposed"):
        sources, targets, inputs, outputs = targets, sources, outputs, inputs
    match kernel.attrs.get("direction", "forward"):
        case "grad_weight":
            return groups, outputs, inputs * taps, 1, targets
        case "grad_input":
            return groups, sources, inputs, taps, outputs
    return groups, targets, outputs, taps, inputs


def direct_kernel(kernel: Kernel, first: bool, taps: int, strided: bool) -> tuple[float, float, float, float]:
    """Instructions of an output, threads of a block, outputs of a thread one after the other, and cycles of each, where
    each channel meets one filter of its own."""
    generic = taps not in UNROLLED
    half = kernel.work.dtype == "fp16" and kernel.size("in_channels") >= FEWEST_CHANNELS and not generic
    half = half and (kernel.size("batch", 1) == 1 or 2 * _positions(kernel, "out_size") > _positions(kernel, "in_size"))
    if first and not half:
        each, threads, outputs, cycles = TORCH_GENERIC if generic else TORCH, TORCH_THREADS, 1.0, 0.0
    elif first:
        each, threads, outputs, cycles = FIRST, CUDNN_THREADS, 1.0, 0.0
    else:
        return _last(kernel, taps, strided)
    return each[0] + each[1] * taps, threads, outputs, cycles


def _last(kernel: Kernel, taps: int, strided: bool) -> tuple[float, float, float, float]:
    """The same of cuDNN's direct kernels with channels last."""
    wide, few = dtype(kernel.work.dtype).bytes_for(1) >= WIDE, kernel.size("in_channels") <= DIRECT_CHANNELS
    if taps == 1 and (strided or (few and not wide)):
        return (LAST_DIRECT_STRIDED if strided else LAST_DIRECT)[0], TORCH_THREADS, 1.0, DIRECT_CYCLES
    skipped = any(target < source - tap + 1 for source, target, tap in _lengths(kernel))
    if wide:
        each, outputs, tap = LAST_WIDE if taps in UNROLLED else LAST_WIDE_GENERIC, LAST_OUTPUTS, TAP_WIDE
    elif kernel.size("batch", 1) < BATCHED:
        each, outputs, tap = LAST_HALF if taps in UNROLLED else LAST_HALF_GENERIC, LAST_OUTPUTS, TAP_HALF
    else:
        each, outputs, tap = LAST_BATCH_STRIDED if skipped else LAST_BATCH, BATCH_OUTPUTS, TAP_BATCH
    return each[0] + each[1] * taps, CUDNN_THREADS, outputs, tap * taps * (TAP_STRIDED if skipped else 1.0)


def _padded(kernel: Kernel) -> bool:
    """Whether no stride gives the output's sizes without padding."""
    return any(
        target not in {(source - tap) // stride + 1 for stride in STRIDES} for source, target, tap in _lengths(kernel)
    )


def _lengths(kernel: Kernel) -> Iterable[tuple[int, int, int]]:
    """Of every dimension: the input's length, the output's, the kernel's."""
    return zip(*(_sizes(kernel, name) for name in ("in_size", "out_size", "kernel")), strict=True)


def _sizes(kernel: Kernel, name: str) -> tuple[int, ...]:
    value = kernel.attrs.get(name, ())
    return tuple(size for size in value if isinstance(size, int)) if isinstance(value, tuple) else ()


def _positions(kernel: Kernel, name: str) -> int:
    return max(1, prod(_sizes(kernel, name)))


def timing(x: Convolution, load: Load, chip: Chip) -> Timing:
    """Each kernel by its way."""
    return by_way(x.way, WAYS, x, load, chip)


def as_product(x: Convolution, load: Load, chip: Chip) -> Timing:
    """One tap without stride, either layout: an ordinary matrix product."""
    k = np.maximum(x.channels, LEAST_CHANNELS)
    return matmul.timing(
        matmul.Product(x.batch, x.m, x.n, k, x.element, x.element, x.aligned, x.aligned, 0.0 * x.m, 0.0 * x.m),
        load,
        chip,
    )


def direct(x: Convolution, load: Load, chip: Chip) -> Timing:
    """A lane for each output, no matrix units."""
    blocks = np.ceil(x.outputs / (x.each * x.threads))
    sizes = grid(1.0, 1.0)._replace(
        blocks=blocks,
        threads=x.threads,
        instructions=x.instructions * x.outputs / LANES / blocks,
        cycles=x.each * x.cycles,
    )
    columns = Blocks(*(np.broadcast_to(np.asarray(size, dtype=float), x.m.shape) for size in sizes))
    return replace(spread(columns, load._replace(matmul=np.zeros_like(x.m)), chip), padding=0.0)


def gathered(x: Convolution, load: Load, chip: Chip) -> Timing:
    """An implicit product whose operands are gathered tap by tap, between copies to another layout and back."""
    walk = walked(x, load, chip)
    copying, lost = copied(x, load, chip)
    busy = traffic(load, chip, main_again=lost)
    bound = np.maximum(busy["cache"], traffic(load, chip)["main"])
    seconds = chip["conv_latency"] + np.maximum(walk.seconds, bound) + copying
    narrow = (x.lanes > 0) & (x.element < WIDE)  # energies of such products are those of matrix units
    return Timing(
        np.maximum(seconds, busy["main"]),
        {"matmul": walk.products, **busy},
        np.maximum(0.0, walk.loaded - load.read) + 2 * x.copied,
        lost,
        np.maximum(1.0, walk.work / np.maximum(load.matmul, 1.0)),
        1.0 + x.copies + walk.scheduled,
        np.where(narrow, walk.work / FMA_FLOPS / np.where(narrow, x.lanes, 1.0), 0.0),
    )


class Walk(NamedTuple):
    """A walk through tiles: its seconds, those of its products alone, its FLOPs, the bytes that it loads (what is there
    of its tiles), and whether a kernel before it sets up who takes which tile."""

    seconds: Array
    products: Array
    work: Array
    loaded: Array
    scheduled: Array


def walked(x: Convolution, load: Load, chip: Chip) -> Walk:
    """The walk by the tiles that take least, as those that cuDNN picks do as a rule."""
    b, m, n, taps, channels, element, lanes, single, uneven, cut = (column[:, None] for column in x[1:11])
    whole = np.where(ON_LANES, channels, np.maximum(channels, LEAST_CHANNELS))
    runs = np.where(ON_LANES, taps * whole / DEPTH, taps * np.ceil(whole / DEPTH))
    steps = np.ceil(np.ceil(runs) / CUT)
    tiles = b * np.ceil(m / ROWS) * np.ceil(n / COLUMNS) * CUT
    waves = np.ceil(tiles / chip.units)
    lane = PORT_BYTES * chip.clock
    rate = np.where(ON_LANES, 2.0 * load.vector_rate[:, None], load.matmul_rate[:, None])
    products = 2 * ROWS * COLUMNS * DEPTH * chip.units / (rate * _share(lanes, chip))
    loads = (ROWS + COLUMNS) * DEPTH * element
    gathering = lane * np.where(BY_GROUPS, HALF_LINE, chip["conv_share"])
    step = np.where(uneven > 0, UNEVEN, 1.0) * np.maximum(products, loads / gathering)
    source = np.asarray(chip.cache.latency + load.far * (chip.main.latency - chip.cache.latency))[:, None]
    turns = np.ceil(waves / RESIDENT)
    storing = lane * np.where(single > 0, SINGLE_STORE, chip["store_share"])
    store = waves * ROWS * COLUMNS * element / storing + turns * TILE_ANSWERS * source
    sums = chip["slice_latency"] + 2 * PARTIAL_BYTES * CUT * b * m * n / chip.cache_bandwidth
    alone = np.where(ON_LANES, STEP_CYCLES / chip.clock, 0.0)
    walk = STARTS + steps * np.maximum(waves * step, turns * alone) + store + np.where(CUT > 1, sums, 0.0)
    allowed = ((lanes > 0) == ON_LANES) & (cut >= CUT) & ((CUT == 1) | (steps >= LEAST_STEPS))
    allowed &= (single == 0) | (ROWS * COLUMNS == SINGLE)
    allowed &= np.where(BY_GROUPS, chip.warpgroups & (taps < MANY_TAPS), True)
    allowed &= (ENGINE != WARPS) | (not chip.warpgroups) | (taps > 1) | (m <= MOST_WARPS) | (cut > 1)
    scheduled = (BY_GROUPS & (waves > 1)).astype(float)
    launched = walk + scheduled * chip["graph_launch_latency"]
    best = np.argmin(np.where(allowed, launched, np.inf), axis=1)
    at = np.arange(len(best)), best
    work = 2 * tiles * ROWS * COLUMNS * steps * DEPTH
    loaded = b * steps * CUT * DEPTH * element * (m * np.ceil(n / COLUMNS) + n * np.ceil(m / ROWS))
    return Walk(walk[at], (waves * steps * products)[at], work[at], loaded[at], scheduled[at])


def _share(lanes: Array, chip: Chip) -> Array:
    """Of their peak rate that units sustain with each of `TILES`."""
    units = chip["matmul_share"] * np.where(BY_GROUPS | (not chip.warpgroups), 1.0, WARP_SHARE)
    return np.where(lanes > 0, lanes * chip["simt_share"] / _lane_cost(), units)


def _lane_cost() -> Array:
    """Time of a tile on lanes over that of its share of the largest one."""
    cost = 1 + LANE_ROWS * (1 / ROWS + 1 / COLUMNS) / 2
    return np.asarray(cost / cost.min())


def copied(x: Convolution, load: Load, chip: Chip) -> tuple[Array, Array]:
    """Seconds of copies to another layout, and the bytes that main memory serves for them."""
    served = np.clip(load.main_read / np.maximum(load.read, 1.0), 0.0, 1.0)
    source = chip.cache.latency + load.far * (chip.main.latency - chip.cache.latency)
    lost = 2 * x.copied * np.maximum(served, chip.missing(2 * x.copied))
    moving = np.maximum(2 * x.copied / chip.cache_bandwidth, lost / chip.main_bandwidth)
    return x.copies * 2 * source + moving / np.where(x.element < WIDE, COPY_SHARE, WIDE_COPY_SHARE), lost


WAYS: Mapping[int, Callable[[Convolution, Load, Chip], Timing]] = {
    PRODUCT: as_product,
    GATHERED: gathered,
    DIRECT: direct,
}

CONV = Family(shape, timing)
