"""From kernels to columns of numbers: the arithmetic, loop steps and bytes that a CPU's time is made of."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.devices.attention import needed_share
from hwsim.devices.rates import FMA_FLOPS, Rates
from hwsim.dtypes import dtype
from hwsim.graph import Kind
from hwsim.mapper import Kernel, Launch

Array: TypeAlias = npt.NDArray[np.float64]

WIDE = dtype("fp32")  # what vector work on narrower floats is done in

ROW_KINDS = (Kind.SOFTMAX, Kind.NORM, Kind.SCAN, Kind.REDUCE, Kind.SORT, Kind.FFT)
PRODUCTS = (Kind.MATMUL, Kind.CONV, Kind.ATTENTION)
POOLS = ("max_pool", "avg_pool")

# torch/include/ATen/TensorIterator.h: elements below which a loop stays on one core.
GRAIN = 32768
ROW_ELEMENTS, PICK_ELEMENTS = 512, 4096  # that a row's own work is worth, and a look-up's
# Calls and views behind one op where torch has no kernel of its own (ATen/native/layer_norm.cpp: rms_norm_composite),
# and how often they read or write the operand: x², its mean, x·r, the scale and what new
# results cost; r itself is short.
RMS_CALLS, RMS_KERNELS, RMS_PASSES = 8.0, 3.0, 9.0
# F.linear: the transposed view of the weight, the product, and the library's choice of a kernel; attention checks its
# operands, picks a backend, takes views and plans its scratch; a look-up and a norm make views and scratch too.
OP_CALLS: Mapping[Kind, float] = {
    Kind.MATMUL: 3.0,
    Kind.ATTENTION: 8.0,
    **dict.fromkeys((Kind.GATHER, Kind.NORM, Kind.SOFTMAX), 2.0),
    Kind.REDUCE: 1.5,
    Kind.COPY: 0.7,
}
# Code and tables that a call touches, in those of an elementwise loop: reductions choose among loops, gathers look
# their rows up, products go through a library.
COLD_CODE: Mapping[Kind, float] = {
    **dict.fromkeys((Kind.SOFTMAX, Kind.NORM, Kind.REDUCE), 1.5),
    **dict.fromkeys((Kind.GATHER, Kind.SCATTER, *PRODUCTS), 3.0),
}
# Rows' worth of work: moments of a norm's row and the sum of a softmax's are merged across lanes; a row looked up
# starts in another page.
NORM_STEPS, GATHER_STEPS = 4.0, 2.0
# ATen/native/cpu/FlashAttentionKernel.cpp: keys that a block of queries meets at a time; the queries of a block by
# their number; each block makes two calls of a product and goes over its scores between them.
KEY_BLOCK, QUERY_BLOCKS = 512, ((768, 256), (192, 64), (0, 32))
BLOCK_CALLS, VECTOR_BLOCK_CALLS = 3.0, 1.0
# Conversions of bf16 that take as long as one of fp16, which is no shift; and as one in the products of a lone query.
FP16_CONVERSIONS, VECTOR_CONVERSIONS = 2.1, 1.35
# Steps of a scalar loop that copies one element: its load and its store, each with an address of its own.
STRIDED_STEPS = 2.0
SCAN_STEPS = 0.9  # of an element of a running sum, which waits for the one before
# Steps of a multiplication in convolutions that oneDNN has no vector kernel for, where it must emulate 16-bit formats:
# depthwise ones, and those of channels-first images.
DEPTHWISE_STEPS, PLANAR_STEPS = 6.0, 2.0
# Vector operations that widen or narrow an element of a 16-bit format.
CONVERSION = 1.0
# glibc's mallopt(3): above M_MMAP_THRESHOLD, which grows to 32 MiB at most, memory goes back to the kernel when freed.
MMAP_BYTES, PAGE_BYTES = 32 * 2**20, 4096


class Row(NamedTuple):
    """What one kernel asks of the cores, or with arrays many: calls, then seconds of all cores at the card's rates
    (``matmul``, ``vector``, ``special``), then steps of loops, then ``pieces`` that cores can take.

    ``conv``, ``attention``, ``narrow`` and ``int8`` tell which shares of the peak a product sustains; ``runtime``
    whether a runtime that has planned all kernels launches it, with weights already packed and results in its arena.
    """

    calls: Array
    cold: Array
    library: Array
    runtime: Array
    matmul: Array
    conv: Array
    attention: Array
    narrow: Array
    int8: Array
    vector: Array
    special: Array
    packed: Array
    results: Array
    converted: Array
    scalar: Array
    reference: Array
    rows: Array
    blocks: Array
    fresh: Array
    pieces: Array


def row_of(kernel: Kernel, rates: Rates, simd_width: float, planned: bool) -> tuple[float, ...]:
    """The columns of `Row` for one kernel; ``planned``: runtimes launch what is recorded."""
    work, share = kernel.work, needed_share(kernel)
    name = work.dtype
    runtime = planned and kernel.launch is Launch.GRAPH
    numbers = {
        "calls": _calls(kernel),
        "cold": COLD_CODE.get(kernel.kind, 1.0) * (RMS_KERNELS if kernel.attrs.get("function") == "rmsnorm" else 1.0),
        "runtime": float(runtime),
        "vector": FMA_FLOPS * _vector(kernel, share, rates),
        "special": rates.special(name).seconds(_special(kernel, share)) if work.special_ops else 0.0,
        "fresh": 0.0 if runtime else _fresh_pages(kernel),
        "pieces": float(pieces(kernel, simd_width)),
    }
    if work.matmul_flops:
        padding = lane_padding(kernel, simd_width)
        numbers["matmul"] = padding * rates.matmul(name).seconds(share * work.matmul_flops)
    numbers |= _steps(kernel, runtime)
    return tuple(numbers.get(field, 0.0) for field in Row._fields)


def _calls(kernel: Kernel) -> float:
    """Calls of an eager framework behind one op."""
    return RMS_CALLS if kernel.attrs.get("function") == "rmsnorm" else OP_CALLS.get(kernel.kind, 1.0)


def _vector(kernel: Kernel, share: float, rates: Rates) -> float:
    """Seconds of vector operations in fp32 or wider; narrower operands are converted on their way."""
    fmt = dtype(kernel.work.dtype)
    narrow = fmt.kind in ("float", "block") and fmt.bits < WIDE.bits
    flops = share * kernel.work.vector_flops
    if narrow and flops and kernel.kind not in PRODUCTS:
        flops += CONVERSION * passes(kernel, kernel.launch is Launch.GRAPH) * kernel.nbytes / fmt.bytes_for(1)
    return rates.vector(WIDE.name if narrow else fmt.name).seconds(flops) if flops else 0.0


def _special(kernel: Kernel, share: float) -> float:
    """Special operations; a softmax divides each element too."""
    return share * kernel.work.special_ops * (2.0 if kernel.kind is Kind.SOFTMAX else 1.0)


def _steps(kernel: Kernel, runtime: bool) -> Mapping[str, float]:
    """The loop steps of a kernel by its kind."""
    size = kernel.size
    if kernel.kind in PRODUCTS:
        return _product_steps(kernel, runtime)
    if kernel.kind is Kind.SCAN:
        return {"scalar": SCAN_STEPS * float(size("rows", 1) * size("cols", 1)), "rows": float(size("rows", 1))}
    if kernel.kind in ROW_KINDS:
        each = NORM_STEPS if kernel.kind in (Kind.NORM, Kind.SOFTMAX) else 1.0
        return {} if kernel.attrs.get("function") in POOLS else {"rows": each * size("rows", 1)}
    if kernel.kind in (Kind.GATHER, Kind.SCATTER):
        return {"rows": GATHER_STEPS * size("picks", 1)}
    if kernel.kind is Kind.COPY and kernel.attrs.get("strided") is True and size("run") == 1:
        return {"scalar": STRIDED_STEPS * size("numel", 1)}
    return {}


def _product_steps(kernel: Kernel, runtime: bool) -> Mapping[str, float]:
    """Elements that are packed and brought home, of a product; of attention, those converted and the rows."""
    fmt = dtype(kernel.work.dtype)
    steps = {
        "library": float(not runtime and kernel.kind is Kind.CONV),
        "narrow": float(fmt.bits < 32 and fmt.kind != "int"),
        "int8": float(fmt.kind == "int"),
    }
    read, written = (moved / fmt.bytes_for(1) for moved in (kernel.read_bytes, kernel.write_bytes))
    if kernel.kind is Kind.ATTENTION:
        return {**steps, **_attention_steps(kernel, runtime)}
    if kernel.kind is Kind.CONV:
        weights = read - float(kernel.size("batch", 1)) * _inputs(kernel)
        moved = read + written if kernel.attrs.get("layout") == "nchw" else max(0.0, weights)
        reference = 0.0 if runtime else steps["narrow"] * _reference_steps(kernel)
        return {**steps, "conv": 1.0, "packed": 0.0 if runtime else moved, "reference": reference}
    vector = min(kernel.size("m", 1), kernel.size("n", 1)) == 1
    packs = not (runtime or vector or steps["narrow"] or steps["int8"])
    return {**steps, "packed": read if packs else 0.0, "results": 0.0 if runtime or vector else written}


def _reference_steps(kernel: Kernel) -> float:
    """Steps of a convolution without a vector kernel."""
    depthwise = 1 < kernel.size("groups", 1) == kernel.size("out_channels", 1)
    each = DEPTHWISE_STEPS if depthwise else PLANAR_STEPS if kernel.attrs.get("layout") == "nchw" else 0.0
    return each * kernel.work.matmul_flops / 2.0


def _attention_steps(kernel: Kernel, runtime: bool) -> Mapping[str, float]:
    """Blocks of queries and keys, elements converted, and keys and values copied for grouped heads."""
    queries, keys, heads = (kernel.size(name, 1) for name in ("q_len", "kv_len", "heads"))
    groups = float(kernel.size("batch", 1) * heads)
    dim, blocks = kernel.size("head_dim", 1), query_blocks(queries)
    fmt = dtype(kernel.work.dtype)
    expanded = 2.0 * groups * keys * dim if kernel.size("kv_heads", heads) < heads else 0.0
    narrow = fmt.bits < WIDE.bits and fmt.kind != "int"
    each = FP16_CONVERSIONS if fmt.name == "fp16" else float(narrow)
    calls, each = (BLOCK_CALLS, each) if queries > 1 else (VECTOR_BLOCK_CALLS, VECTOR_CONVERSIONS * each)
    return {
        "attention": 1.0,
        "converted": each * groups * dim * 2.0 * (queries + blocks * keys),
        "blocks": calls * groups * blocks * ceil(keys / KEY_BLOCK),
        "scalar": 0.0 if runtime or narrow else STRIDED_STEPS * expanded,
    }


def query_blocks(queries: int) -> int:
    """Blocks that attention cuts its queries into; where longer blocks begin, no fewer than just before."""
    least, size = next((least, size) for least, size in QUERY_BLOCKS if queries >= least)
    return max(ceil(queries / size), query_blocks(least - 1) if least else 1)


def _inputs(kernel: Kernel) -> float:
    """Elements of one image of a convolution's input."""
    sides = kernel.attrs.get("in_size", ())
    area = 1
    for side in sides if isinstance(sides, tuple) else ():
        area *= side if isinstance(side, int) else 1
    return float(kernel.size("in_channels", 1) * area)


def _fresh_pages(kernel: Kernel) -> float:
    """Pages of results that the allocator asks the system for at every call."""
    large = sum(flow.nbytes for flow in kernel.flows if flow.write and flow.nbytes > MMAP_BYTES)
    return large / PAGE_BYTES


def passes(kernel: Kernel, runtime: bool) -> float:
    """How often a kernel moves its operands, over once."""
    composed = kernel.attrs.get("function") == "rmsnorm" and not runtime
    return RMS_PASSES / 2.0 if composed else 1.0


def pieces(kernel: Kernel, simd_width: float) -> float:
    """Parts of a kernel that cores can do independently: rows, heads, vectors of the output, or grains of elements."""
    lanes = max(1, int(simd_width / dtype(kernel.work.dtype).bytes_for(1)))
    if kernel.kind is Kind.RECURRENCE:
        return kernel.size("batch", 1) * kernel.size("heads", 1)
    if kernel.kind is Kind.ATTENTION:
        return kernel.size("batch", 1) * kernel.size("heads", 1) * query_blocks(kernel.size("q_len", 1))
    if kernel.kind is Kind.MATMUL:
        return kernel.size("batch", 1) * kernel.size("m", 1) * ceil(kernel.size("n", 1) / lanes)
    if kernel.kind is Kind.CONV:
        return max(1, ceil(kernel.write_bytes / simd_width))
    elements = max(kernel.read_bytes, kernel.write_bytes) / dtype(kernel.work.dtype).bytes_for(1)
    if kernel.kind in (Kind.GATHER, Kind.SCATTER):
        return max(1.0, PICK_ELEMENTS * kernel.size("picks") / GRAIN)
    if kernel.kind not in ROW_KINDS:
        return max(1.0, elements / GRAIN)
    rows = kernel.size("rows", 1)
    return max(1.0, min(rows, (elements + ROW_ELEMENTS * rows) / GRAIN))


def lane_padding(kernel: Kernel, simd_width: float) -> float:
    """Work done over work wanted, where the innermost outputs do not fill whole SIMD vectors."""
    lanes = max(1, int(simd_width / dtype(kernel.work.dtype).bytes_for(1)))
    if kernel.kind is Kind.MATMUL:
        inner = max(kernel.size("n", 1), kernel.size("m", 1))
    elif kernel.kind is Kind.CONV:
        inner = _outputs(kernel)
    else:
        return 1.0
    return ceil(inner / lanes) * lanes / inner


def _outputs(kernel: Kernel) -> int:
    """The longer of a convolution's positions and its channels per group."""
    sizes = kernel.attrs.get("out_size", ())
    positions = 1
    for size in sizes if isinstance(sizes, tuple) else ():
        positions *= size if isinstance(size, int) else 1
    return max(positions, kernel.size("out_channels", 1) // kernel.size("groups", 1), 1)


def one_core_share(memory_latency: float, bandwidth: float, in_flight: float) -> float:
    """The share of a memory's bandwidth that one core draws (Little's law): all where nothing is said of either."""
    if not memory_latency or in_flight == inf:
        return 1.0
    return min(1.0, in_flight / (memory_latency * bandwidth))
