"""How long kernels take on a CPU: equations over columns, one entry a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwsim.devices.cpu.columns import Array, Row

# Packing reads rows that lie a page apart, which no prefetcher follows: from main memory it takes so much longer.
PACK_MISS = 4.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What times depend on beside the columns: cores, and how many of them a kernel may take; the share of main
    memory's bandwidth that one draws; the `CONSTANTS`; the overheads of a framework's modules and of a runtime's node;
    ``single``: all caches are empty."""

    cores: float
    most_cores: float
    one_core: float
    fitted: Mapping[str, float]
    module_overhead: float
    runtime_overhead: float
    single: bool

    def __getitem__(self, constant: str) -> float:
        """The value of one of the `CONSTANTS`."""
        return self.fitted[constant]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of every kernel, and the busy seconds by resource: matmul, vector, special, main, cache."""

    seconds: Array
    busy: Mapping[str, Array]


def times(row: Row, main: Array, cache: Array, others: Array, missed: Array, machine: Machine) -> Times:
    """seconds = calls + pages + min over one core and all cores p of (start(p) + body(p)).

    body(p) = the longest of calculation, traffic of caches and traffic of main memory, each divided among p cores, +
    exposed · the shorter of calculation and main memory, whose misses no core can look far enough ahead of.
    """
    overhead = call_seconds(row, machine) + row.fresh * machine["page_time"]
    spent = calculation(row, missed, machine)
    counts = (np.ones_like(main), np.clip(row.pieces, 1.0, machine.most_cores))
    runs = [_run(spent, main, cache, others, count, machine) for count in counts]
    alone = runs[0].seconds <= runs[1].seconds
    busy = {name: np.where(alone, runs[0].busy[name], runs[1].busy[name]) for name in runs[0].busy}
    return Times(overhead + np.where(alone, runs[0].seconds, runs[1].seconds), busy)


def call_seconds(row: Row, machine: Machine) -> Array:
    """What a call costs before any work: an eager framework's, or a runtime's node."""
    eager = row.calls * machine["op_overhead"] + machine.module_overhead + row.library * machine["library_overhead"]
    cold = row.cold * (machine["cold_start"] if machine.single else 0.0)
    seconds: Array = np.where(row.runtime > 0.0, machine.runtime_overhead, eager + cold)
    return seconds


def calculation(row: Row, missed: Array, machine: Machine) -> Mapping[str, Array]:
    """Core-seconds by unit: products at their share of the peak; vectors with the steps of loops; special functions."""
    share = np.where(row.conv > 0.0, machine["conv_share"], machine["matmul_share"])
    share = np.where(row.attention > 0.0, machine["attention_share"], share)
    emulated = np.where(row.int8 > 0.0, machine["int8_share"], 1.0)
    emulated = np.where((row.narrow > 0.0) & (row.attention == 0.0), machine["narrow_share"], emulated)
    steps = (
        row.packed * machine["pack_time"] * (1.0 + PACK_MISS * missed)
        + row.results * machine["result_time"] / emulated
        + row.converted * machine["convert_time"]
        + (row.scalar + row.reference * (1.0 - machine["narrow_share"])) * machine["scalar_time"]
        + row.rows * machine["row_time"]
        + row.blocks * machine["op_overhead"]
    )
    return {
        "matmul": machine.cores * row.matmul / (share * emulated),
        "vector": machine.cores * row.vector / machine["vector_share"] + steps,
        "special": machine.cores * row.special / machine["special_share"],
    }


def _run(spent: Mapping[str, Array], main: Array, cache: Array, others: Array, count: Array, machine: Machine) -> Times:
    """The work on ``count`` cores."""
    busy = {unit: seconds / count for unit, seconds in spent.items()}
    busy["main"] = main / (machine["main_share"] * np.minimum(1.0, count * machine.one_core))
    busy["cache"] = cache / machine["cache_share"] * machine.cores / count
    calculating = busy["matmul"] + busy["vector"] + busy["special"]
    moving = np.maximum(np.maximum(busy["main"], busy["cache"]), others)
    start = np.where(count > 1.0, machine["thread_start"], 0.0)
    body = np.maximum(calculating, moving) + machine["exposed"] * np.minimum(calculating, busy["main"])
    return Times(start + body, busy)
