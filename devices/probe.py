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
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
TRY_S = 0.15  # least time of one measurement
STREAM_TRY_S = 0.7  # of a bandwidth, which others on the machine draw from too
SIDE = 768  # of a matrix product
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


def matmul_rate(fmt: str, one_core: bool = False) -> float:
    """FLOP/s of a square matrix product on all cores; with ``one_core``, where torch is installed, that of one times
    their number."""
    if one_core and find_spec("torch") is not None:
        return cores() * _one_core_matmul_rate(fmt)
    a = np.ones((SIDE, SIDE), fmt)
    out = np.empty_like(a)
    return 2 * SIDE**3 / best_seconds(lambda: np.matmul(a, a, out=out), 3 * TRY_S)


def _one_core_matmul_rate(fmt: str) -> float:
    import torch

    threads, x = torch.get_num_threads(), torch.ones(SIDE // 3, SIDE // 3, dtype=getattr(torch, fmt))
    out = torch.empty_like(x)
    torch.set_num_threads(1)
    try:
        flops: float = 2.0 * float(x.numel()) ** 1.5
        return flops / best_seconds(lambda: torch.mm(x, x, out=out), 3 * TRY_S)
    finally:
        torch.set_num_threads(threads)


def special_rate() -> float:
    """Exponentials per second on all cores, operands in the nearest cache."""
    x, count = np.linspace(0, 1, 2048, dtype=np.float32), 200

    def exponentials() -> None:
        out = np.empty_like(x)
        for _ in range(count):
            np.exp(x, out=out)

    return cores() * count * x.size / best_seconds(lambda: _on_all_cores(exponentials))


def stream(nbytes: int) -> Stream:
    """Bandwidth of a working set of ``nbytes`` per core: sums read it, filling writes it."""
    read, write = _stream_loops()
    repeats = max(1, (1 << 26) // nbytes)
    arrays = [np.ones(nbytes // 4, np.float32) for _ in range(cores())]
    moved = repeats * sum(array.nbytes for array in arrays)
    with ThreadPoolExecutor(cores()) as pool:

        def on_all(loop: Callable[[np.ndarray, int], object]) -> float:
            return best_seconds(lambda: list(pool.map(loop, arrays, [repeats] * len(arrays))), STREAM_TRY_S)

        return Stream(moved / on_all(read), moved / on_all(write))


@cache
def _stream_loops() -> tuple[Callable[[np.ndarray, int], object], Callable[[np.ndarray, int], object]]:
    """Compiled loops over an array, repeated, that hold no lock."""
    from numba import njit

    @njit(nogil=True, fastmath=True)
    def read(array: np.ndarray, repeats: int) -> None:
        for _ in range(repeats):
            total = np.float32(0.0)
            for i in range(array.size):
                total += array[i]
            array[0] = total  # so that no repetition is left out

    @njit(nogil=True, fastmath=True)
    def write(array: np.ndarray, repeats: int) -> None:
        for turn in range(repeats):
            for i in range(array.size):
                array[i] = turn

    for loop in (read, write):
        loop(np.ones(16, np.float32), 1)
    return read, write


def one_core_bandwidth() -> float:
    """B/s that one core reads from main memory."""
    read, _ = _stream_loops()
    array = np.ones(TOO_LARGE // 4, np.float32)
    return array.nbytes / best_seconds(lambda: read(array, 1))


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


def module_overhead() -> float:
    """Seconds of Python around the op of a layer of torch; 0 where torch is not installed."""
    if find_spec("torch") is None:
        return 0.0
    import torch

    layers, x, count = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(100)]), torch.ones(1), 10
    return best_seconds(lambda: [layers(x) for _ in range(count)]) / (100 * count)


def _on_all_cores(task: Callable[[], None]) -> None:
    with ThreadPoolExecutor(cores()) as pool:
        for done in [pool.submit(task) for _ in range(cores())]:
            done.result()
