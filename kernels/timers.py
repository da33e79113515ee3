"""How one call is timed: cold and warm, on a CUDA device or on the host. Seconds and joules of one call.

Cold: the last-level cache is evicted before each run by streaming through a buffer several times its size,
and the single run is timed. Warm: runs follow one another back to back, on a GPU as replays of a CUDA graph.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

Call = Callable[[], object]
Counter = Callable[[], float]

WARM_UP_CALLS = 3
REPEATS_MAX = 50
REGION_MIN_S = 5e-4  # a timed warm region is at least this long, so that event resolution does not show
ENERGY_LEAD_S, ENERGY_WINDOW_S, ENERGY_TIMEOUT_S = 0.15, 0.6, 2.0
ENERGY_CHUNK_S = 5e-3  # of runs queued at a time, one chunk ahead of the device
ENERGY_POLL_S = 1e-3
_LLC_FALLBACK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 10th and 90th percentile of repeated timings, in seconds."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """The spread of a list of timings (nearest rank)."""
        ranked = sorted(seconds)
        at = [ranked[round(share * (len(ranked) - 1))] for share in (0.5, 0.1, 0.9)]
        return cls(*at)


@dataclass(frozen=True, slots=True)
class Loop:
    """A repeatable unit of back-to-back work: `run` performs `calls` calls and lasts about `seconds`."""

    run: Call
    calls: int
    seconds: float

    def repeats(self, budget_s: float, least: int) -> int:
        """How many timed regions fit the budget: at least `least`, at most 50."""
        region = max(self.seconds, REGION_MIN_S)
        return max(min(round(budget_s / region), REPEATS_MAX), least)


class Timer(Protocol):
    """Times calls on one kind of device; `budget_s` is the warm time that one row is worth."""

    budget_s: float

    def loop(self, call: Call, per_graph: int, eager: bool) -> Loop:
        """Warm the call up and make it repeatable."""

    def cold(self, call: Call, repeats: int, before: Call | None = None) -> list[float]:
        """Seconds of single runs, before each the cache evicted and then `before` run."""

    def warm(self, loop: Loop, repeats: int) -> list[float]:
        """Seconds per call of runs back to back."""

    def joules(self, loop: Loop, counter: Counter) -> float | None:
        """Joules per call of runs back to back for more than half a second; None if the counter stood still."""

    def release(self) -> None:
        """Give back what the last row held; raises when the device no longer answers."""


class CudaTimer:
    """CUDA events around work that the host has queued well ahead, so that host time does not show."""

    budget_s = 0.08

    def __init__(self, device: torch.device) -> None:
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        self._flush = torch.empty(6 * l2_bytes // 4, dtype=torch.int32, device=device)

    def loop(self, call: Call, per_graph: int, eager: bool) -> Loop:
        """Three warm-up runs on a side stream, then `per_graph` calls captured into one CUDA graph."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        if eager:
            return Loop(call, 1, self._estimate(call))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(per_graph):
                call()
        return Loop(graph.replay, per_graph, self._estimate(graph.replay))

    def cold(self, call: Call, repeats: int, before: Call | None = None) -> list[float]:
        """Event to event around one run, the L2 overwritten before; events cost a few microseconds of it."""
        pairs = []
        for index in range(repeats):
            self._flush.fill_(index + 1)
            if before is not None:
                before()
            pairs.append(self._queue(call, 1))
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) * 1e-3 for start, stop in pairs]

    def warm(self, loop: Loop, repeats: int) -> list[float]:
        """Event to event around as many runs of the loop as half a millisecond holds, per call."""
        runs = max(1, round(REGION_MIN_S / loop.seconds))
        pairs = [self._queue(loop.run, runs) for _ in range(repeats)]
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) * 1e-3 / (runs * loop.calls) for start, stop in pairs]

    def joules(self, loop: Loop, counter: Counter) -> float | None:
        """Mean power times seconds per call over runs that never stop; None if the counter stood still.

        Power is the energy between two refreshes of the counter, at least 0.6 s apart, over that time.
        """
        runs = max(1, round(ENERGY_CHUNK_S / loop.seconds))
        chunks = [self._queue(loop.run, runs)]
        watch = _CounterWatch(counter)
        while watch.is_alive():
            chunks.append(self._queue(loop.run, runs))
            chunks[-2][1].synchronize()
        torch.cuda.synchronize()
        seconds = chunks[0][0].elapsed_time(chunks[-1][1]) * 1e-3 / (len(chunks) * runs * loop.calls)
        return None if watch.watts is None else watch.watts * seconds

    def release(self) -> None:
        """Return cached blocks to the driver, so that each row allocates afresh."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def _queue(self, run: Call, runs: int) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, stop = _event(), _event()
        start.record()
        for _ in range(runs):
            run()
        stop.record()
        return start, stop

    def _estimate(self, run: Call) -> float:
        run()
        start, stop = self._queue(run, 1)
        stop.synchronize()
        return float(start.elapsed_time(stop)) * 1e-3


class _CounterWatch(threading.Thread):
    """Notes when an energy counter in joules is refreshed, until the refreshes span the window.

    A thread, because a host that launches kernels one by one is blocked for as long as the launch queue is full.
    """

    def __init__(self, counter: Counter) -> None:
        super().__init__(daemon=True)
        self._counter = counter
        self._refreshes: list[tuple[float, float]] = []
        self.start()

    def run(self) -> None:
        """Poll, ignoring the lead in which power and clocks settle; give up when the counter stands still."""
        begin, last = time.perf_counter(), self._counter()
        while (now := time.perf_counter()) - begin < ENERGY_TIMEOUT_S:
            joules = self._counter()
            if joules != last and now - begin > ENERGY_LEAD_S:
                self._refreshes.append((now, joules))
                if now - self._refreshes[0][0] >= ENERGY_WINDOW_S:
                    return
            last = joules
            time.sleep(ENERGY_POLL_S)

    @property
    def watts(self) -> float | None:
        """Mean power between the first and the last refresh; None with fewer than two."""
        if len(self._refreshes) < 2:
            return None
        (begin, first), (end, last) = self._refreshes[0], self._refreshes[-1]
        return (last - first) / (end - begin)


class HostTimer:
    """time.perf_counter_ns around calls on the CPU."""

    budget_s = 0.2

    def __init__(self) -> None:
        self._flush = torch.ones(4 * last_level_cache_bytes() // 4)

    def loop(self, call: Call, per_graph: int, eager: bool) -> Loop:
        """Three warm-up runs, then loops of half a millisecond, of at most `per_graph` calls."""
        for _ in range(WARM_UP_CALLS):
            call()
        once = _host_seconds(call)
        calls = 1 if eager else min(max(round(REGION_MIN_S / once), 1), per_graph)

        def run() -> None:
            for _ in range(calls):
                call()

        return Loop(run, calls, calls * once)

    def cold(self, call: Call, repeats: int, before: Call | None = None) -> list[float]:
        """One run at a time, after reading and writing a buffer four times the last-level cache."""
        seconds = []
        for _ in range(repeats):
            self._flush.add_(1)
            if before is not None:
                before()
            seconds.append(_host_seconds(call))
        return seconds

    def warm(self, loop: Loop, repeats: int) -> list[float]:
        """Seconds per call of repeated loops."""
        return [_host_seconds(loop.run) / loop.calls for _ in range(repeats)]

    def joules(self, loop: Loop, counter: Counter) -> float | None:
        """The counter's advance over at least 0.6 s of runs, per call."""
        runs = max(1, math.ceil(ENERGY_WINDOW_S / loop.seconds))
        before = counter()
        for _ in range(runs):
            loop.run()
        spent = counter() - before
        return spent / (runs * loop.calls) if spent > 0 else None

    def release(self) -> None:
        """Nothing is held between rows."""


def last_level_cache_bytes() -> int:
    """The size of the last-level cache as Linux reports it, else a generous guess."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    known = [int(text[:-1]) << 10 for path in sizes if (text := path.read_text().strip()).endswith("K")]
    return max(known, default=_LLC_FALLBACK_BYTES)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _host_seconds(run: Call) -> float:
    begin = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - begin) * 1e-9
