"""Convolutions on a GPU, as torch and cuDNN's heuristics run them.

Four ways: one tap without stride is a matrix product; several taps gather their operands step by step (an implicit
product); depthwise convolutions go output by output on the lanes; and 16-bit channels-first operands are copied to
channels-last and back around the gathering kernel, each copy a launch of its own.

A gathering kernel walks tiles of positions x filters in steps of one tap and a run of channels:

    seconds = start + max(walk + store, traffic)
    walk    = waves x steps x max(flops of a step / rate, operands of a step / gathered bandwidth)
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
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

PRODUCT, GATHERED, DIRECT = range(3)

# cuDNN's implicit products, by the names of its kernels for 1,470 shapes on two H100: tiles on matrix units and on
# lanes, channels of a step (a run of 32 fills half a line of the cache), slices of k where tiles are few.
UNIT_TILES = [(rows, columns) for rows in (64, 128, 256) for columns in (32, 64, 128, 256) if rows * columns <= 2**15]
LANE_TILES = [(32, 32), (128, 32), (256, 64)]
UNIT_CHANNELS, LANE_CHANNELS = (32, 64), (8,)
SLICES, GRADIENT_SLICES = (1, 2), (8, 32)
ROWS, COLUMNS, DEPTH, CUT = (
    np.array(column, dtype=float)
    for column in zip(
        *[
            (*tile, depth, cut)
            for tiles, depths in ((UNIT_TILES, UNIT_CHANNELS), (LANE_TILES, LANE_CHANNELS))
            for tile, depth, cut in product(tiles, depths, SLICES + GRADIENT_SLICES)
        ],
        strict=True,
    )
)
ON_UNITS = np.isin(DEPTH, UNIT_CHANNELS)
HALF_LINE = 0.62  # bandwidth for runs of half a line over that for whole ones
LANE_ROWS = 93.0  # rows of a tile on lanes that its operands take as long as (20, 31 and 41 TFLOP/s, see LANE_TILES)
TILE_ANSWERS = 1.0  # of memory, one after the other, before the first step of a tile and after its last
LEAST_STEPS = 16.0  # of a slice of k
PARTIAL_BYTES = 4.0  # of a partial sum in fp32
PORT_BYTES = 64.0  # a clock between the cache and one unit
# Runs of channels that neither fill half lines nor divide them take more lines and addresses; fewest are padded.
WHOLE_RUN, UNEVEN, UNEVEN_COPIED = 16, 1.5, 1.35
LANE_INDEXING = {"nchw": 0.75, "nhwc": 0.7}  # share of issue slots that addresses leave to fp32 products
RESIDENT = np.clip(2**15 / (ROWS * COLUMNS), 1.0, 8.0)  # blocks that a unit holds, by their results
# Of a step on lanes in a block that has a unit to itself (k of 360 to 5,600, 1 to 100 blocks, H100).
STEP_CYCLES = 400.0
LEAST_BYTES = 2
LEAST_CHANNELS = 8  # fewer are padded to these, in a launch of its own where channels lie last
# Most channels, taps with padding, and FLOPs of 16-bit products, channels first, that go on lanes as they are.
LANE_MOST, LANE_TAPS, LANE_FLOPS = 8, 9, 4e9
SINGLE = 32 * 32  # results of the only tile of these, and of fp32 with channels last
MANY_TAPS, WARP_SHARE = 49.0, 0.55  # cuDNN runs so many without warpgroups; share of the peak that mma.sync reaches
# Channels of fp32, channels last, from which operands are copied to channels first and back.
MANY_CHANNELS, MANY_ONE_TAP = 32, 96
COPY_SHARE, WIDE_COPY_SHARE = 0.65, 0.85  # of bandwidth, for copies that transpose through shared memory

# Instructions of a lane per output and per tap of it: DepthwiseConv2d.cu (a thread an output, blocks of 1,024, four
# divisions for its place; generic ones for other kernels than 1, 3 and 5) and cuDNN's, channels first or last; of the
# latter, on 16-bit numbers, ones for batches, and direct ones of groups for one tap of few channels or with a stride.
TORCH, FIRST, LAST_HALF, LAST_WIDE = (165.0, 14.5), (45.0, 6.6), (20.0, 8.0), (45.0, 7.6)
TORCH_GENERIC, LAST_HALF_GENERIC, LAST_WIDE_GENERIC = (165.0, 18.0), (20.0, 10.2), (20.0, 12.0)
LAST_BATCH, LAST_BATCH_STRIDED, LAST_DIRECT = (36.0, 3.8), (50.0, 8.0), (600.0, 0.0)
TORCH_THREADS, CUDNN_THREADS = 1024, 256
LAST_OUTPUTS, BATCH_OUTPUTS, TAP_CYCLES = 4.0, 16.0, 30.0  # of a thread, one after the other; of one tap of theirs
BATCHED, DIRECT_CHANNELS = 8, 16  # images, from which there are kernels for batches; channels, up to which direct ones
UNROLLED = (1, 9, 25)
STRIDES = range(1, 5)
FEWEST_CHANNELS = 32  # Convolution.cpp, use_cudnn_depthwise: below, and in other formats than fp16, torch's own kernel


class Convolution(NamedTuple):
    """``batch`` products of m positions x n filters over ``taps`` runs of ``channels``, elements of ``element`` bytes.

    Those on ``lanes`` reach that share of their rate, some with a ``single`` tile. ``unread`` are bytes that a stride
    leaves out, ``copied`` ones that change their layout in ``copies`` launches. A direct kernel has ``outputs`` of
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
    slow: Array
    cut: Array
    aligned: Array
    offsets: Array
    unread: Array
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
    narrow = element < 4
    gradient = kernel.attrs.get("direction") == "grad_weight"
    whole = channels < LEAST_CHANNELS or gcd(channels, WHOLE_RUN) in (channels, WHOLE_RUN) or gradient
    depthwise = batch > 1 and batch == kernel.size("in_channels", 1)
    strided = _positions(kernel, "in_size") != _positions(kernel, "out_size")
    pointwise = taps == 1 and batch == 1 and narrow and not strided
    row = _positions(kernel, "in_size") if first else gcd(channels, n)
    aligned = gcd(int(max(LEAST_BYTES, row * element)), LOAD_BYTES)
    few = not pointwise and first and _few(kernel, 2.0 * batch * m * n * taps * channels, taps, channels)
    on_lanes = not narrow or few
    turned = not first and not narrow and channels >= (MANY_CHANNELS if taps > 1 else MANY_ONE_TAP) and not depthwise
    single = on_lanes and (narrow or not (first or turned))
    copies, copied = 0.0, 0.0
    if turned or (first and not on_lanes and not pointwise):
        copies, copied = 3.0, kernel.nbytes
    elif channels < LEAST_CHANNELS and not on_lanes and not pointwise:
        copies, copied = 1.0, kernel.read_bytes
    lanes = LANE_INDEXING["nchw" if first or turned else "nhwc"] if on_lanes else 0.0
    slow = 1.0 if whole or on_lanes else UNEVEN_COPIED if first else UNEVEN
    cut = max(GRADIENT_SLICES) if gradient else max(SLICES)
    way = DIRECT if depthwise else PRODUCT if pointwise else GATHERED
    outputs = float(batch) * m * n
    direct = direct_kernel(kernel, first, taps, strided)
    offsets = float(way == GATHERED and not on_lanes and taps > 1)
    unread = _unread(kernel, first) if taps == 1 and not copies else 0.0
    sizes = (batch, m, n, taps, channels, element, lanes, single, slow, cut, aligned, offsets, unread)
    return Convolution._make((way, *sizes, copied, copies, outputs, *direct))


def _few(kernel: Kernel, flops: float, taps: int, channels: int) -> bool:
    """Whether cuDNN leaves 16-bit operands with channels first as they are, and multiplies on lanes."""
    return channels <= LANE_MOST and flops <= LANE_FLOPS and (taps <= LANE_TAPS or not _padded(kernel))


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
        each, outputs = _last(kernel, taps, strided)
        threads, cycles = CUDNN_THREADS, TAP_CYCLES * taps
    return each[0] + each[1] * taps, threads, outputs, cycles


def _last(kernel: Kernel, taps: int, strided: bool) -> tuple[tuple[float, float], float]:
    """Instructions of an output, and outputs of a thread, of cuDNN's direct kernels with channels last."""
    if taps == 1 and strided:
        return LAST_DIRECT, LAST_OUTPUTS
    if dtype(kernel.work.dtype).bytes_for(1) >= 4:
        return LAST_WIDE if taps in UNROLLED else LAST_WIDE_GENERIC, LAST_OUTPUTS
    if taps == 1 and kernel.size("in_channels") <= DIRECT_CHANNELS:
        return LAST_DIRECT, LAST_OUTPUTS
    if kernel.size("batch", 1) < BATCHED:
        return LAST_HALF if taps in UNROLLED else LAST_HALF_GENERIC, LAST_OUTPUTS
    skipped = any(target < source - tap + 1 for source, target, tap in _lengths(kernel))
    return LAST_BATCH_STRIDED if skipped else LAST_BATCH, BATCH_OUTPUTS


def _padded(kernel: Kernel) -> bool:
    """Whether no stride gives the output's sizes without padding."""
    return any(
        target not in {(source - tap) // stride + 1 for stride in STRIDES} for source, target, tap in _lengths(kernel)
    )


def _lengths(kernel: Kernel) -> Iterable[tuple[int, int, int]]:
    """Of every dimension: the input's length, the output's, the kernel's."""
    return zip(*(_sizes(kernel, name) for name in ("in_size", "out_size", "kernel")), strict=True)


def _unread(kernel: Kernel, first: bool) -> float:
    """Bytes of the input that one tap with a stride leaves out: rows, and the places between those of a row where a
    place has all its channels together."""
    if kernel.attrs.get("transposed") or kernel.attrs.get("direction", "forward") != "forward":
        return 0.0
    inputs = float(max(1, kernel.size("batch", 1))) * kernel.size("in_channels", 1) * _positions(kernel, "in_size")
    taken = [min(1.0, target / source) for source, target, _ in _lengths(kernel)]
    return inputs * dtype(kernel.work.dtype).bytes_for(1) * (1.0 - prod(taken[:-1] if first else taken))


def _sizes(kernel: Kernel, name: str) -> tuple[int, ...]:
    value = kernel.attrs.get(name, ())
    return tuple(size for size in value if isinstance(size, int)) if isinstance(value, tuple) else ()


def _positions(kernel: Kernel, name: str) -> int:
    return max(1, prod(_sizes(kernel, name)))


def timing(x: Convolution, load: Load, chip: Chip) -> Timing:
    """Each kernel by its way."""
    share = np.clip(1.0 - x.unread / np.maximum(load.read, 1.0), 0.0, 1.0)
    load = load._replace(read=load.read * share, main_read=load.main_read * share)
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
    walk, matmul_seconds, work, loaded = walked(x, load, chip)
    copying, lost = copied(x, load, chip)
    busy = traffic(load, chip, main_again=lost)
    bound = np.maximum(busy["cache"], traffic(load, chip)["main"])
    seconds = chip["conv_latency"] + np.maximum(walk, bound) + copying
    return Timing(
        np.maximum(seconds, busy["main"]),
        {"matmul": matmul_seconds, **busy},
        np.maximum(0.0, loaded - load.read) + 2 * x.copied,
        lost,
        np.maximum(1.0, work / np.maximum(load.matmul, 1.0)),
        1.0 + x.copies + x.offsets,
    )


def walked(x: Convolution, load: Load, chip: Chip) -> tuple[Array, Array, Array, Array]:
    """Of the best tiles: seconds of the walk, those of its products alone, its FLOPs and the bytes it loads."""
    b, m, n, taps, channels, element, lanes, single, slow, cut = (column[:, None] for column in x[1:11])
    on_lanes = lanes > 0
    group = chip["matmul_share"] * np.where(taps >= MANY_TAPS, WARP_SHARE if chip.warpgroups else 1.0, 1.0)
    share = np.where(on_lanes, lanes * chip["simt_share"] / _lane_cost(), group)
    whole = np.where(on_lanes, channels, np.maximum(channels, LEAST_CHANNELS))
    runs = np.where(on_lanes, taps * whole / DEPTH, taps * np.ceil(whole / DEPTH))
    steps = np.ceil(np.ceil(runs) / CUT)
    tiles = b * np.ceil(m / ROWS) * np.ceil(n / COLUMNS) * CUT
    waves = np.ceil(tiles / chip.units)
    lane = PORT_BYTES * chip.clock
    rate = np.where(on_lanes, 2.0 * load.vector_rate[:, None], load.matmul_rate[:, None])
    products = 2 * ROWS * COLUMNS * DEPTH * chip.units / (rate * share) * slow
    loads = (ROWS + COLUMNS) * DEPTH * element
    gathering = lane * chip["conv_share"] * np.where(min(UNIT_CHANNELS) == DEPTH, HALF_LINE, 1.0)
    step = np.maximum(products, loads / gathering * slow)
    source = np.asarray(chip.cache.latency + load.far * (chip.main.latency - chip.cache.latency))[:, None]
    turns = np.ceil(waves / RESIDENT)
    store = waves * ROWS * COLUMNS * element / (lane * chip["store_share"]) + turns * TILE_ANSWERS * source
    sums = chip["slice_latency"] + 2 * PARTIAL_BYTES * CUT * b * m * n / chip.cache_bandwidth
    alone = np.where(on_lanes, STEP_CYCLES / chip.clock, 0.0)
    walk = steps * np.maximum(waves * step, turns * alone) + store + np.where(CUT > 1, sums, 0.0)
    allowed = (on_lanes != ON_UNITS) & (cut >= CUT) & ((CUT == 1) | (steps >= LEAST_STEPS))
    allowed &= (single == 0) | (ROWS * COLUMNS == SINGLE)
    best = np.argmin(np.where(allowed, walk, np.inf), axis=1)
    at = np.arange(len(best)), best
    work = 2 * tiles * ROWS * COLUMNS * steps * DEPTH
    return walk[at], (waves * steps * products)[at], work[at], (tiles * steps * loads)[at]


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
    return x.copies * 2 * source + moving / np.where(x.element < 4, COPY_SHARE, WIDE_COPY_SHARE), lost


WAYS: Mapping[int, Callable[[Convolution, Load, Chip], Timing]] = {
    PRODUCT: as_product,
    GATHERED: gathered,
    DIRECT: direct,
}

CONV = Family(shape, timing)
