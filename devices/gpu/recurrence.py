"""Recurrences with a matrix state on a GPU, as flash-linear-attention's Triton kernels run them.

The chunk form is a pipeline of kernels over chunks of tokens, each of whose intermediates go through memory. All
chunks are worked on at once, but for the kernels that pass the state on from chunk to chunk:

    seconds = sum over kernels of first program + max(bytes / bandwidth, chunks x step where the state is passed on)
              + lanes of the sub-chunks' diagonals

The recurrent form keeps the state in registers while it goes from token to token; a decode step reads and writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil, prod
from typing import NamedTuple

import numpy as np

from hwsim.devices.gpu.blocks import QUEUEING, SCHEDULERS, Blocks, grid, spread, together
from hwsim.devices.gpu.chip import LANES, Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.devices.gpu.ways import by_way
from hwsim.dtypes import dtype
from hwsim.errors import lookup
from hwsim.mapper import Kernel
from hwsim.work import SCAN_RULES

PIPELINE, BLOCKS = range(2)


class Stage(NamedTuple):
    """One kernel of a pipeline: bytes that it moves for a token and head, per element of d_k (``k``), d_v (``v``), of
    the chunk length (``c``: rows of products of tokens) and of a chunk's state over its tokens (``s``).

    A ``chain`` kernel walks from chunk to chunk, in so much of a `sequence_step` each. ``diagonal`` are the lane
    instructions that each element of d_k costs
    for each token of its sub-chunk; ``turns`` is how often a program goes through those one after the other.
    """

    k: float = 0.0
    v: float = 0.0
    s: float = 0.0
    c: float = 0.0
    chain: float = 0.0
    diagonal: float = 0.0
    turns: float = 0.0


# fla-core 0.6.0, fla/ops: bytes with 16-bit operands, cumulated gates (vectors of d_k) and gradients in fp32, states in
# the operands' format but for gla's backward. Zeros that are filled in are kernels too.
# Where the state meets one product only, its operands are there before it is.
ONE_PRODUCT = 0.35
SUM_GATES, FILL = Stage(k=6), Stage(c=2)
SUM_SCALARS = Stage()
PASS_STATE = Stage(k=2, v=2, s=2, chain=ONE_PRODUCT)  # common/chunk_h.py
PASS_GATED_STATE = Stage(k=6, v=2, s=2, chain=ONE_PRODUCT)
PASS_ERASED_STATE = Stage(k=4, v=4, s=2, chain=1.0)  # common/chunk_delta_h.py: keys, w, u in, new values out
OUTPUT, GATED_OUTPUT = Stage(k=4, v=4, s=2), Stage(k=6, v=4, s=2, c=2)
REPRESENT = Stage(k=4, v=4, c=2)  # the WY representation: w and u of keys and values
REPRESENT_GATED = Stage(k=10, v=4, c=2)
REPRESENT_WRITTEN = Stage(k=12, v=6, c=2)
FORWARD: dict[str, tuple[Stage, ...]] = {
    "ssd": (SUM_SCALARS, PASS_STATE, OUTPUT),
    "gla": (
        SUM_GATES, PASS_GATED_STATE, Stage(k=8, c=2), Stage(k=8, c=2, diagonal=7, turns=1), Stage(k=6, v=4, s=2, c=4),
    ),
    "delta_rule": (Stage(k=2, c=4), FILL, Stage(c=6), REPRESENT, FILL, PASS_ERASED_STATE, OUTPUT),
    "gated_delta_rule": (SUM_SCALARS, FILL, Stage(k=2, c=2), REPRESENT, FILL, PASS_ERASED_STATE, OUTPUT),
    "kda": (
        SUM_GATES, FILL, Stage(k=8, c=3, diagonal=7, turns=1), Stage(k=8, c=5, turns=1),
        REPRESENT_GATED, FILL, PASS_ERASED_STATE, GATED_OUTPUT,
    ),
    "gdn2": (
        SUM_GATES, FILL, Stage(k=10, c=3, diagonal=7, turns=1), Stage(k=10, c=5, turns=1),
        REPRESENT_WRITTEN, FILL, PASS_ERASED_STATE, GATED_OUTPUT,
    ),
}  # fmt: skip
PASS_SLOPE = Stage(k=6, v=6, s=2, chain=1.0)  # the state's gradient, from the last chunk to the first
CAST = Stage(k=6)
BACKWARD: dict[str, tuple[Stage, ...]] = {
    "ssd": (
        Stage(k=2, v=2, s=4, chain=ONE_PRODUCT), Stage(k=2, v=2, s=4, chain=ONE_PRODUCT), Stage(k=8, v=4, s=8),
        Stage(k=4, v=4, s=4), SUM_SCALARS,
    ),
    "gla": (
        Stage(k=6, v=2, s=4, chain=ONE_PRODUCT), Stage(k=6, v=2, s=4, chain=ONE_PRODUCT), Stage(k=6, v=4, s=4, c=4),
        Stage(v=4, c=4), Stage(k=16, c=4, diagonal=42, turns=2), Stage(k=26, v=4, s=8), CAST, CAST,
    ),
    "delta_rule": (
        REPRESENT, PASS_ERASED_STATE, Stage(k=4, v=4), PASS_SLOPE, Stage(k=10, v=6, s=4), Stage(k=6, v=6, c=2), CAST,
        SUM_SCALARS,
    ),
    "gated_delta_rule": (
        REPRESENT, PASS_ERASED_STATE, Stage(k=4, v=4), PASS_SLOPE, Stage(k=10, v=6, s=4), Stage(k=6, v=6, c=2), CAST,
        SUM_SCALARS, SUM_SCALARS,
    ),
    "kda": (
        Stage(k=14, v=4, c=2), PASS_ERASED_STATE, Stage(v=6, c=6), PASS_SLOPE, Stage(k=20, v=10, s=4, c=6),
        Stage(k=32, c=8, diagonal=120, turns=2), SUM_GATES, CAST, CAST, CAST, SUM_SCALARS,
    ),
    "gdn2": (
        Stage(k=16, v=6, c=2), PASS_ERASED_STATE, Stage(v=6, c=6), PASS_SLOPE, Stage(k=26, v=14, s=4, c=6),
        Stage(k=40, c=8, diagonal=120, turns=2), SUM_GATES, CAST, CAST, CAST, CAST,
    ),
}  # fmt: skip
SUB_CHUNK = 16  # tokens whose products with each other go through the gates one by one
LOOP_WAITS, LOOP_ELEMENTS = 1.5, 64  # answers of the cache that each of them takes, for so many elements of d_k
FIRST_STEPS = 2.0  # steps that the first program of a kernel lives for
OPERAND_BYTES = 2.0
# Rules without kernels of their own: fla/ops/linear_attn and fla/ops/retention call simple_gla, which ssd is.
RUNS_AS = {"linear": "ssd", "retention": "ssd", "simple_gla": "ssd"}


class Holding(NamedTuple):
    """How a recurrent kernel holds a state: columns in a program of so many threads, whose sums over rows take
    ``cycles`` and ``row_cycles`` a row; ``streams`` is the share of a stream's bandwidth that its pattern reaches."""

    columns: int
    threads: int
    cycles: float
    row_cycles: float
    streams: float


# The sizes are in fla's fused_recurrent.py of each rule, the rest shows in measured rows. Programs of 8 columns of fp32
# fetch sectors one by one. Those of common/fused_recurrent.py hold 64 x 64, and launches after them sum the outputs of
# every 64 of d_k and cast them; with a gate for each row (gla) it does not reach what it reaches without (ssd).
SQUARE = Holding(64, 128, 2500, 0, streams=0.95)
HELD: dict[str, Holding] = {
    "delta_rule": Holding(8, 32, 1000, 2, streams=0.8), "gated_delta_rule": Holding(8, 32, 1000, 2, streams=0.8),
    "kda": Holding(32, 128, 2800, 12, streams=1.0), "gdn2": Holding(32, 128, 2800, 12, streams=1.0),
    "gla": Holding(64, 128, 2500, 0, streams=0.69), "ssd": SQUARE,
    **{rule: Holding(1, 128, 0, 0, streams=1.0) for rule in SCAN_RULES},
}  # fmt: skip
SQUARES = 64
STATE_WAITS = 2.0  # answers of memory one after the other: the state, then the token
ELEMENT_INSTRUCTIONS = 6.0  # a load, a store, decay, update, product and sum of a state's element
# What they and the pipelines' bytes cost in lanes' instructions beyond those that take time: addresses, masks, formats,
# sums between lanes, layouts exchanged through shared memory (joules of 64 recurrences on an H100).
ELEMENT_WORK, BYTE_WORK = 6.0, 6.0
SCAN_TOKENS = 2048  # mamba's selective_scan_fwd_kernel: 16 tokens a thread at a time


# What torch copies around these kernels: queries and keys that heads share, to each of them (an element at a time, with
# three divisions for each address: 224 G elements a second on an H100), and the last state, which they return, to where
# a model keeps it.
SHARED_INSTRUCTIONS = 140.0
COPY_WAITS = 2.0  # answers of memory, for arguments and operands


IDLE = (1.0, 1.0, 0.0, 0.0, 0.0, 1.0)  # the grid of a pipeline


class Recurrence(NamedTuple):
    """A pipeline of ``launches`` kernels that move ``nbytes``, and ``chain_bytes`` in ``steps`` steps of a chain, with
    ``lane_work`` instructions of a lane and ``loops`` turns of sub-chunks; or a grid of blocks. Around it torch makes
    ``copies``, of ``shared`` elements to every head and of ``kept`` bytes of states.
    """

    way: Array
    launches: Array
    nbytes: Array
    chain_bytes: Array
    steps: Array
    lane_work: Array
    loops: Array
    blocks: Array
    threads: Array
    instructions: Array
    cycles: Array
    cache_waits: Array
    streams: Array
    copies: Array
    shared: Array
    kept: Array


def shape(kernel: Kernel) -> Recurrence:
    """The pipeline of the chunk form, the grid of the recurrent one; raises `UnknownNameError` for other rules."""
    return pipeline(kernel) if kernel.size("chunk") else recurrent(kernel)


def _rule(kernel: Kernel) -> str:
    """The rule whose kernels run."""
    rule = str(kernel.attrs.get("rule"))
    return RUNS_AS.get(rule, rule)


def stages_of(kernel: Kernel) -> tuple[Stage, ...]:
    """The kernels that one op launches: forward, backward, or both where it does the work of both (4 times the
    forward's, of which the gates' exponentials are the measure)."""
    forward, backward = (lookup("recurrence rule", _rule(kernel), table) for table in (FORWARD, BACKWARD))
    if not kernel.attrs.get("backward"):
        return forward
    once = float(kernel.size("batch", 1) * kernel.size("tokens", 1) * kernel.size("heads", 1) * kernel.size("d_k", 1))
    return forward + backward if kernel.work.special_ops > 3.5 * once else backward


def pipeline(kernel: Kernel) -> Recurrence:
    """The sums over the stages of a chunked recurrence."""
    chunk, d_k, d_v = (kernel.size(name, 1) for name in ("chunk", "d_k", "d_v"))
    tokens, sequences = kernel.size("tokens", 1), float(kernel.size("batch", 1) * kernel.size("heads", 1))
    scale = sequences * tokens * dtype(kernel.work.dtype).bytes_for(1) / OPERAND_BYTES
    nbytes = chain_bytes = chains = lanes = loops = 0.0
    stages = stages_of(kernel)
    for stage in stages:
        moved = scale * (stage.k * d_k + stage.v * d_v + stage.c * chunk + stage.s * d_k * d_v / chunk)
        nbytes, chain_bytes = nbytes + (not stage.chain) * moved, chain_bytes + (stage.chain > 0) * moved
        chains += stage.chain
        lanes += stage.diagonal * sequences * ceil(tokens / chunk) * chunk * SUB_CHUNK * d_k
        loops += stage.turns * SUB_CHUNK * d_k / LOOP_ELEMENTS
    steps = chains * ceil(tokens / chunk)
    return Recurrence._make((PIPELINE, len(stages), nbytes, chain_bytes, steps, lanes, loops, *IDLE, *copied(kernel)))


def recurrent(kernel: Kernel) -> Recurrence:
    """A program per head and part of the state, or per channel of a selective scan; tokens wait for one another."""
    rule, tokens = _rule(kernel), kernel.size("tokens", 1)
    d_k, d_v = kernel.size("d_k", 1), kernel.size("d_v", 1)
    sequences = float(kernel.size("batch", 1) * kernel.size("heads", 1))
    elements = sequences * tokens * d_k * d_v
    held = lookup("recurrence rule", rule, HELD)
    blocks, launches, turns = sequences * ceil(d_v / held.columns), 1.0, tokens - 1.0
    if rule in SCAN_RULES:
        blocks, turns = sequences, ceil(tokens / SCAN_TOKENS) - 1.0
    elif held.columns == SQUARE.columns:
        parts = ceil(d_k / SQUARES)
        blocks, launches = blocks * parts, 2.0 + (parts > 1)
    each = ELEMENT_INSTRUCTIONS * elements / LANES / blocks
    cycles = held.cycles + held.row_cycles * d_k
    program = (blocks, held.threads, each, cycles, turns, held.streams)
    return Recurrence._make((BLOCKS, launches, 0.0, 0.0, 0.0, 0.0, 0.0, *program, *copied(kernel)))


def copied(kernel: Kernel) -> tuple[float, float, float]:
    """Copies around a recurrence: launches, elements of queries and keys for all heads, bytes of a state that stays."""
    if _rule(kernel) in SCAN_RULES or kernel.attrs.get("backward"):
        return 0.0, 0.0, 0.0
    elements = float(prod(kernel.size(name, 1) for name in ("batch", "tokens", "heads", "d_k")))
    whole = elements * dtype(kernel.work.dtype).bytes_for(1)
    accesses = kernel.work.accesses
    read = [access for access in accesses if not access.write]
    shared = sum(access.nbytes < whole for access in read[:2])
    places = {access.tensor for access in read}
    kept = sum(access.nbytes for access in accesses if access.write and access.tensor in places)
    return shared + (kept > 0.0), shared * elements, kept


def piped(x: Recurrence, load: Load, chip: Chip) -> Timing:
    """Kernel after kernel: what overflows the cache goes through main memory."""
    moved = x.nbytes + x.chain_bytes
    operands = load.main_read + load.main_write
    missing = np.maximum(chip.missing(moved / x.launches), np.minimum(1.0, operands / np.maximum(moved, 1.0)))
    within = np.full_like(missing, 1.0 / (chip.cache.bandwidth * chip["sequence_share"]))
    per_byte = together(missing / chip.main_bandwidth, within, power=QUEUEING)
    lanes = x.lane_work / (load.vector_rate * chip["issue_share"])
    first = FIRST_STEPS * chip["sequence_step"] * x.launches + x.loops * LOOP_WAITS * chip.cache.latency
    chain = x.steps * chip["sequence_step"]
    products = load.matmul / load.matmul_rate
    seconds = first + np.maximum(x.nbytes * per_byte + lanes, products) + np.maximum(x.chain_bytes * per_byte, chain)
    busy = {
        "matmul": products,
        "vector": lanes,
        "special": np.minimum(load.special / load.special_rate, seconds),
        "cache": moved / chip.cache_bandwidth,
        "main": moved * missing / chip.main_bandwidth,
        "latency": first + chain,
    }
    again = np.maximum(0.0, moved - load.read - load.write)
    again_main = np.maximum(0.0, moved * missing - operands)
    return Timing(seconds, busy, again, again_main, launches=x.launches, issued=x.lane_work + BYTE_WORK * moved)


def stepped(x: Recurrence, load: Load, chip: Chip) -> Timing:
    """A grid of programs that hold the state: all read theirs before they write it."""
    written = load.write / chip["cache_write_share"]
    sizes = grid(1.0, 1.0, source_waits=STATE_WAITS)._replace(
        blocks=x.blocks, threads=x.threads, instructions=x.instructions, cycles=x.cycles, cache_waits=x.cache_waits,
        launches=x.launches, idle=(load.read + written) / x.streams - load.read,
    )  # fmt: skip
    rough = load._replace(main_read=load.main_read / x.streams, main_write=load.main_write / x.streams)
    found = spread(Blocks(*(np.zeros_like(x.blocks) + size for size in sizes)), rough, chip)
    return replace(found, issued=ELEMENT_WORK * found.issued, padding=0.0)


WAYS: Mapping[int, Callable[[Recurrence, Load, Chip], Timing]] = {PIPELINE: piped, BLOCKS: stepped}


def timing(x: Recurrence, load: Load, chip: Chip) -> Timing:
    """Each kernel by its form, with the copies around it."""
    found = by_way(x.way, WAYS, x, load, chip)
    return _with_copies(found, x, chip) if x.copies.any() else found


def _with_copies(found: Timing, x: Recurrence, chip: Chip) -> Timing:
    """Copies come one after the other, and find in the cache what fits there."""
    moved = OPERAND_BYTES * x.shared + 2.0 * x.kept
    missing = chip.missing(moved)
    work = SHARED_INSTRUCTIONS * x.shared
    waits = x.copies * COPY_WAITS * chip.main.latency
    working = {
        "vector": work / (LANES * SCHEDULERS * chip.units * chip.clock * chip["issue_share"]),
        "cache": moved / chip.cache_bandwidth,
        "main": moved * missing / chip.main_bandwidth,
    }
    busy = {**found.busy}
    for name, seconds in {**working, "latency": waits}.items():
        busy[name] = busy.get(name, 0.0) + seconds
    return replace(
        found,
        seconds=found.seconds + waits + together(*working.values()),
        busy=busy,
        cache_again=found.cache_again + moved,
        main_again=found.main_again + moved * missing,
        launches=found.launches + x.copies,
        issued=found.issued + work,
    )


RECURRENCE = Family(shape, timing)
