"""How each kind of kernel is spread over a GPU: one short function a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, gcd, log, prod
from typing import TypeAlias

from hwsim.devices.flash import attention_plan
from hwsim.devices.occupancy import LANES, LOAD_BYTES, MAX_BLOCK_WARPS, WARP_BYTES, Chip, Plan
from hwsim.devices.rates import Rates
from hwsim.devices.tiles import MMA_SIDE, Product, best_plan
from hwsim.dtypes import dtype
from hwsim.graph import Kind
from hwsim.mapper import Kernel
from hwsim.work import SCAN_RULES

DIRECT_RATIO = 8  # FMA lanes over load lanes of a unit (128 / 32) times the two operands of each FMA
RADIX_BITS = 8  # of a key that one pass of a radix sort orders (Adinets and Merrill, Onesweep, arXiv 2206.01784)
WARP_COLUMNS = 32  # elements of a row that a lane keeps in registers
COMPLEX_BYTES = 8.0

Planner: TypeAlias = Callable[[Chip, Rates, Kernel], Plan]


def plan(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """How ``kernel`` runs on ``chip``."""
    return _PLANNERS.get(kernel.kind, _stream)(chip, rates, kernel)


def _stream(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    return chip.stream(kernel.nbytes)


def _matmul(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    m, n, k, batch = (kernel.size(name, 1) for name in ("m", "n", "k", "batch"))
    experts = kernel.size("experts")
    if experts:  # each touched expert's weights meet an equal share of the rows
        batch = max(1, round(experts * (1 - (1 - 1 / experts) ** m)))
        m = ceil(m / batch)
    return _product(chip, rates, kernel, (batch, m, n, k))


def _product(chip: Chip, rates: Rates, kernel: Kernel, shape: tuple[int, int, int, int]) -> Plan:
    """Operands that lie in memory more densely than they are calculated with are read as they lie.

    Rows of k (and of n, where there are several) that do not start at whole 16-byte loads take smaller ones.
    """
    batch, m, n, k = shape
    element = dtype(kernel.work.dtype).bytes_for(1)
    nominal = batch * float(m + n) * k * element
    density = min(1.0, kernel.read_bytes / nominal)
    rate = rates.matmul(kernel.work.dtype).flops
    width = min(_aligned(k * element), _aligned(n * element) if m > 1 else 1.0)
    return best_plan(chip, Product(batch, m, n, k, density * element, rate, width))


def _aligned(row_bytes: float) -> float:
    """The share of a 16-byte load that divides rows of so many bytes."""
    return gcd(max(1, int(row_bytes)), LOAD_BYTES) / LOAD_BYTES


def _conv(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """An implicit matrix product per group; with few channels a group, a direct loop on the vector lanes if faster.

    The matrix units want channels last and in multiples of 16: other layouts are copied there and back.
    """
    batch, m, n, k = conv_product(kernel)
    channels = min(kernel.size("in_channels", 1), kernel.size("out_channels", 1)) // kernel.size("groups", 1)
    name = kernel.work.dtype
    matmul, vector = rates.matmul(name).flops, rates.vector(name).flops
    tiled = _product(chip, rates, kernel, (batch, m, n, k))
    if channels < MMA_SIDE:
        direct = replace(chip.stream(kernel.nbytes), stretch=DIRECT_RATIO * matmul / vector)
        padded = tiled.stretch * MMA_SIDE / channels
        if direct.stretch < padded:
            return direct
        tiled = replace(tiled, stretch=padded)
    if kernel.attrs.get("layout") == "nchw" and matmul > vector:
        moved = 2 * kernel.nbytes
        tiled = replace(tiled, launches=3, reread=tiled.reread + moved, refetch=tiled.refetch + moved)
    return tiled


def conv_product(kernel: Kernel) -> tuple[int, int, int, int]:
    """(batch, m, n, k) of the matrix product that a convolution is."""
    groups, batch = kernel.size("groups", 1), kernel.size("batch", 1)
    inputs, outputs = kernel.size("in_channels", 1) // groups, kernel.size("out_channels", 1) // groups
    taps = prod(_sizes(kernel, "kernel"))
    in_positions, out_positions = batch * prod(_sizes(kernel, "in_size")), batch * prod(_sizes(kernel, "out_size"))
    if kernel.attrs.get("transposed"):
        in_positions, out_positions = out_positions, in_positions
        inputs, outputs = outputs, inputs
    match kernel.attrs.get("direction", "forward"):
        case "grad_weight":
            return groups, outputs, inputs * taps, out_positions
        case "grad_input":
            return groups, in_positions, inputs, outputs * taps
    return groups, out_positions, outputs, inputs * taps


def _sizes(kernel: Kernel, name: str) -> tuple[int, ...]:
    value = kernel.attrs.get(name, ())
    return tuple(size for size in value if isinstance(size, int)) if isinstance(value, tuple) else ()


def _attention(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    return attention_plan(chip, rates.matmul(kernel.work.dtype).flops, kernel)


def _recurrence(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """Chunk form: all chunks at once but for the state, which walks from chunk to chunk in steps of a tile's latency.

    Recurrent form: the state stays in registers, a warp per 32 values; each token waits for the one before through
    the cache, except where a parallel scan runs along the tokens.
    """
    sequences, tokens, chunk = (
        kernel.size("batch", 1) * kernel.size("heads", 1),
        kernel.size("tokens", 1),
        kernel.size("chunk"),
    )
    if chunk:
        chunks = ceil(tokens / chunk)
        waves = ceil(sequences * chunks / chip.units)
        padded = waves * chip.units * chunk / (float(sequences) * tokens)
        return Plan(padded, min(chip.units, sequences * chunks), chain=chunks * chip.tile_latency)
    pieces = sequences * ceil(kernel.size("d_v", 1) / LANES)
    units = min(chip.units, pieces)
    steps = 1 if kernel.attrs.get("rule") in SCAN_RULES else tokens
    return Plan(chip.units / units, units, chain=steps * chip.cache.latency)


def _rows(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    return chip.rows(kernel.size("rows", 1), kernel.size("cols", 1), kernel.read_bytes)


def _softmax(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """A warp for a row that its registers hold, else the largest block."""
    cols = kernel.size("cols", 1)
    warps = 1 if cols <= LANES * WARP_COLUMNS else MAX_BLOCK_WARPS
    return chip.rows(kernel.size("rows", 1), cols, kernel.read_bytes, warps)


def _scan(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    return chip.scan(kernel.size("rows", 1), kernel.size("cols", 1), kernel.read_bytes)


def _gather(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """A warp per run: short runs leave lanes idle, and runs that are no whole 16-byte loads take smaller ones.

    Runs below the cache's granularity cost as much as one of it: the traffic counts them as whole grains already.
    """
    flow = max((flow for flow in kernel.flows if flow.granule), key=lambda flow: flow.nbytes, default=None)
    if flow is None:
        return chip.stream(kernel.nbytes)
    run = max(flow.granule, chip.cache.granularity)
    filled = run / (ceil(run / WARP_BYTES) * WARP_BYTES)
    return replace(chip.stream(kernel.nbytes), width=_aligned(run) * filled)


def _reduce(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """Lanes stream whatever is theirs; at the end those of a block, or the blocks of a cut row, meet."""
    return replace(chip.stream(kernel.nbytes), latency=chip.tile_latency)


def _sort(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    return _passes(chip, kernel, ceil(dtype(kernel.work.dtype).bits / RADIX_BITS))


def _fft(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    points = max(2, kernel.size("cols", 2))
    return _passes(chip, kernel, ceil(log(points) / log(chip.shared / COMPLEX_BYTES)))


def _passes(chip: Chip, kernel: Kernel, passes: int) -> Plan:
    """All bytes go through the cache several times, and through main memory where they overflow the cache."""
    again = (passes - 1) * kernel.nbytes
    lost = again if kernel.nbytes > chip.cache.capacity else 0.0
    return replace(chip.stream(kernel.nbytes), latency=passes * chip.main.latency, reread=again, refetch=lost)


_PLANNERS: dict[Kind, Planner] = {
    Kind.MATMUL: _matmul,
    Kind.CONV: _conv,
    Kind.ATTENTION: _attention,
    Kind.RECURRENCE: _recurrence,
    Kind.SOFTMAX: _softmax,
    Kind.NORM: _rows,
    Kind.SCAN: _scan,
    Kind.GATHER: _gather,
    Kind.SCATTER: _gather,
    Kind.REDUCE: _reduce,
    Kind.SORT: _sort,
    Kind.FFT: _fft,
}
