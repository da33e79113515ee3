"""Schedules that follow each other many times over: what one more of them takes in the middle of a long run."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hwsim.events.fast import run_fast
from hwsim.events.outcome import Execution, Outcome
from hwsim.events.table import Table

SETTLED = 1e-10  # relative change of the period from one pass to the next
PASSES = (3, 6, 12, 24)
LATE = 48  # passes, of which the later half is averaged where no two in a row take the same


def run_steady(table: Table, *, log: bool = True) -> Outcome:
    """What one more pass adds, once two passes in a row add the same; its executions are those of the last pass."""
    for passes in PASSES:
        runs = [run_fast(table, number, log=False) for number in (passes - 2, passes - 1, passes)]
        first, second = (after.seconds - before.seconds for before, after in pairwise(runs))
        if abs(second - first) <= SETTLED * second:
            return _between(runs[1], runs[2], 1, _last_pass(table, passes) if log else [])
    before, after = (run_fast(table, number, log=False) for number in (LATE // 2, LATE))
    return _between(before, after, LATE // 2, _last_pass(table, LATE) if log else [])


def _between(before: Outcome, after: Outcome, passes: int, executions: list[Execution]) -> Outcome:
    """What each of the ``passes`` between two runs adds."""

    def each(name: str) -> list[float]:
        pairs = zip(getattr(before, name), getattr(after, name), strict=True)
        return [max(0.0, late - early) / passes for early, late in pairs]

    return Outcome(
        (after.seconds - before.seconds) / passes,
        executions,
        each("elapsed"),
        each("engine_busy"),
        each("engine_waited"),
        each("resource_busy"),
        each("resource_waited"),
    )


def _last_pass(table: Table, passes: int) -> list[Execution]:
    """The executions of the last pass, from the start of its first one."""
    counts = [region.count for region in table.regions for _ in range(region.start, region.stop)]
    seen: Counter[int] = Counter()
    last = []
    for one in run_fast(table, passes, folding=False).executions:
        seen[one.task] += 1
        if seen[one.task] > (passes - 1) * counts[one.task]:
            last.append(one)
    begin = min((one.start for one in last), default=0.0)
    return [Execution(one.task, one.start - begin, one.end - begin) for one in last]
