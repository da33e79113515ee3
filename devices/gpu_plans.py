"""How each kind of kernel is spread over a GPU: one short function a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, log, prod
from typing import TypeAlias

from hwsim.devices.flash import attention_plan
from hwsim.devices.occupancy import Chip, Plan
from hwsim.devices.rates import Rates
from hwsim.devices.tiles import MMA_SIDE, Product, best_plan
from hwsim.dtypes import dtype
from hwsim.graph import Kind
from hwsim.mapper import Kernel
from hwsim.work import SCAN_RULES

LANES = 32  # threads of a warp (CUDA C++ Programming Guide)
RADIX_BITS = 8  # of a key that one pass of a radix sort orders (Adinets and Merrill, Onesweep, arXiv 2206.01784)
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
    """Operands that lie in memory more densely than they are calculated with are read as they lie."""
    batch, m, n, k = shape
    element = dtype(kernel.work.dtype).bytes_for(1)
    nominal = batch * float(m + n) * k * element
    density = min(1.0, kernel.read_bytes / nominal)
    rate = rates.matmul(kernel.work.dtype).flops
    return best_plan(chip, Product(batch, m, n, k, density * element, rate))


def _conv(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """An implicit matrix product per group; with few channels a group, a direct loop on the vector lanes if faster."""
    tiled = _product(chip, rates, kernel, conv_product(kernel))
    groups = kernel.size("groups", 1)
    narrow = min(kernel.size("in_channels", 1), kernel.size("out_channels", 1)) // groups < MMA_SIDE
    name = kernel.work.dtype
    direct = rates.matmul(name).flops / rates.vector(name).flops
    if narrow and direct < tiled.stretch:
        return replace(chip.stream(kernel.nbytes), stretch=direct)
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
        return Plan(padded, min(chip.units, sequences * chunks), chunks * chip.tile_latency)
    pieces = sequences * ceil(kernel.size("d_v", 1) / LANES)
    units = min(chip.units, pieces)
    steps = 1 if kernel.attrs.get("rule") in SCAN_RULES else tokens
    return Plan(chip.units / units, units, chip.main.latency + (steps - 1) * chip.cache.latency)


def _rows(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    rows = kernel.size("rows", 1)
    return chip.rows(rows, kernel.read_bytes / rows, kernel.read_bytes)


def _reduce(chip: Chip, rates: Rates, kernel: Kernel) -> Plan:
    """Rows are cut into pieces where there are few of them; the pieces meet in the cache."""
    spread = chip.stream(kernel.nbytes)
    if kernel.size("rows", 1) >= chip.units:
        return spread
    return replace(spread, latency=spread.latency + 2 * chip.cache.latency)


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
    Kind.SOFTMAX: _rows,
    Kind.NORM: _rows,
    Kind.SCAN: _rows,
    Kind.REDUCE: _reduce,
    Kind.SORT: _sort,
    Kind.FFT: _fft,
}
