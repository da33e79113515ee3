"""Measures the machine at hand for a card: rates of its cores, bandwidths and latencies of its memories.

Best of several tries, since a busy machine can only look slower than it is. numpy does the arithmetic and the
streams (its loops release the interpreter lock), numba the pointer chase.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
TRY_S = 0.15  # least time of one measurement
HOPS = 200_000
TOO_LARGE = 1 << 28  # bytes that no cache holds


@dataclass(frozen=True, slots=True)
class CacheLevel:
    """A data cache: its level, bytes of one instance, and how many instances the machine has."""

    level: int
    nbytes: int
    instances: int


@dataclass(frozen=True, slots=True)
class Stream:
    """B/s of all cores together, reading and writing."""

    read: float
    write: float


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_levels(folder: Path = CACHES) -> tuple[CacheLevel, ...]:
    """Data caches as the kernel reports them, nearest first; none where it does not."""
    levels = []
    for index in sorted(folder.glob("index*")):
        kind, size, shared = ((index / name).read_text().strip() for name in ("type", "size", "shared_cpu_list"))
        if kind == "Instruction" or not size.endswith("K"):
            continue
        sharers = sum(int(last or first) - int(first) + 1 for first, _, last in _ranges(shared))
        level = int((index / "level").read_text())
        levels.append(CacheLevel(level, int(size[:-1]) * 1024, max(1, cores() // sharers)))
    return tuple(levels)


def _ranges(listed: str) -> list[tuple[str, str, str]]:
    return [part.partition("-") for part in listed.split(",")]


def best_seconds(call: Callable[[], object], least: float = TRY_S) -> float:
    """The shortest of the calls made within ``least`` seconds (and of three at least)."""
    best, until, tries = float("inf"), time.perf_counter() + least, 0
    while tries < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        tries += 1
    return best


def matmul_rate(fmt: str, side: int = 1024) -> float:
    """FLOP/s of a square matrix product on all cores."""
    a = np.ones((side, side), fmt)
    out = np.empty_like(a)
    return 2 * side**3 / best_seconds(lambda: np.matmul(a, a, out=out), 3 * TRY_S)


def special_rate() -> float:
    """Exponentials per second on all cores, operands in the nearest cache."""
    x, count = np.linspace(0, 1, 2048, dtype=np.float32), 200

    def exponentials() -> None:
        out = np.empty_like(x)
        for _ in range(count):
            np.exp(x, out=out)

    return cores() * count * x.size / best_seconds(lambda: _on_all_cores(exponentials))


def stream(nbytes: int) -> Stream:
    """Bandwidth of a working set of ``nbytes`` per core: dot products read it, filling writes it."""
    repeats = max(1, (1 << 24) // nbytes)
    arrays = [np.ones(nbytes // 4, np.float32) for _ in range(cores())]

    def read(array: np.ndarray) -> None:
        for _ in range(repeats):
            array.dot(array)

    def write(array: np.ndarray) -> None:
        for _ in range(repeats):
            array.fill(1)

    moved = repeats * sum(array.nbytes for array in arrays)
    with ThreadPoolExecutor(cores()) as pool:
        return Stream(
            moved / best_seconds(lambda: list(pool.map(read, arrays))),
            moved / best_seconds(lambda: list(pool.map(write, arrays))),
        )


def one_core_bandwidth() -> float:
    """B/s that one core reads from main memory."""
    array = np.ones(TOO_LARGE // 4, np.float32)
    return array.nbytes / best_seconds(lambda: np.maximum.reduce(array))


def latency(nbytes: int) -> float:
    """Seconds of one load that waits for the one before, in a random cycle through ``nbytes``."""
    from numba import njit

    line = 8  # of 8-byte words: one cache line a hop
    order = np.random.default_rng(0).permutation(max(2, nbytes // (8 * line))) * line
    chain = np.zeros(order.max() + line, np.int64)
    chain[order] = np.roll(order, -1)

    @njit
    def walk(links: np.ndarray, hops: int) -> int:
        place = 0
        for _ in range(hops):
            place = links[place]
        return place

    walk(chain, 10)
    return best_seconds(lambda: walk(chain, HOPS)) / HOPS


def thread_start() -> float:
    """Seconds to hand a task to every core and to hear back, less those of doing it on one."""
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(abs, range(cores())))
        return best_seconds(lambda: list(pool.map(abs, range(cores()))))


def op_overhead() -> float:
    """Seconds of a numpy call that has next to nothing to do."""
    x, count = np.ones(1, np.float32), 1000

    def calls() -> None:
        for _ in range(count):
            np.add(x, x)

    return best_seconds(calls) / count


def _on_all_cores(task: Callable[[], None]) -> None:
    with ThreadPoolExecutor(cores()) as pool:
        for done in [pool.submit(task) for _ in range(cores())]:
            done.result()
