"""What a run of the task table takes at least, in closed form: no order, no sharing, no contention.

Two formulas, of which the larger counts: what the busiest engine, memory or link does at full use; and the longest
chain of steps that wait for each other, each alone at full speed, where a chain that leads from one iteration of a
repetition to the next goes on as often as the repetition does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from hwsim.events.table import NO_ENGINE, Region, Table, Task

WAITS = "waits"
"""What binds where the longest chain does."""


@dataclass(frozen=True, slots=True)
class Bound:
    """At least so many ``seconds``, because of the engine, memory or link ``by``, or of `WAITS`."""

    seconds: float
    by: str


def lower_bound(table: Table) -> Bound:
    """The bound of one pass of a table that can run; of a steady one, whose passes overlap, of the time between two."""
    chain = _in_streams(table) if table.steady else _Chains(table).longest()
    return max([*_uses(table), Bound(chain, WAITS)], key=lambda bound: bound.seconds)


def _uses(table: Table) -> Iterator[Bound]:
    """Seconds at full use of every engine and resource."""
    engines, resources = [0.0] * len(table.engines), [0.0] * len(table.resources)
    for task, count in _counted(table):
        if task.engine != NO_ENGINE:
            engines[task.engine] += count * _alone(task)
        for resource, use in task.uses:
            resources[resource] += count * use * task.seconds
    yield from map(Bound, [*engines, *resources], [*table.engines, *table.resources])


def _in_streams(table: Table) -> float:
    """Seconds of the longest stream, whose tasks follow each other."""
    seconds = [0.0] * len(table.streams)
    for task, count in _counted(table):
        seconds[task.stream] += count * _alone(task)
    return max(seconds, default=0.0)


def _counted(table: Table) -> Iterator[tuple[Task, int]]:
    for region in table.regions:
        for task in table.tasks[region.start : region.stop]:
            yield task, region.count


def _alone(task: Task) -> float:
    return task.latency + task.seconds


class _Chains:
    """Times that no task can be before, region by region: at the end of its first execution and of its last."""

    def __init__(self, table: Table) -> None:
        self._tasks = table.tasks
        self._regions = table.regions
        self._counts = [count for _, count in _counted(table)]
        self._first = [0.0] * len(table.tasks)
        self._last = [0.0] * len(table.tasks)
        self._streams = [0.0] * len(table.streams)  # the last end in each stream so far

    def longest(self) -> float:
        """Seconds of the longest chain."""
        for region in self._regions:
            self._region(region)
        return max(self._streams, default=0.0)

    def _region(self, region: Region) -> None:
        before, carried = self._edges(region)
        order = list(TopologicalSorter(before).static_order())
        starts = {number: self._ready(number, region) for number in order}
        self._sweep(order, before, starts, self._first)
        later = dict(starts)
        for number, ends in carried.items():
            grown = self._paths(number, order, before)
            at_first = self._first[number] - _alone(self._tasks[number])
            for blocker, back in ends:
                if blocker in grown:
                    times = (region.count - 1) // back
                    later[number] = max(later[number], at_first + times * grown[blocker])
        self._sweep(order, before, later, self._last)
        for number in order:
            stream = self._tasks[number].stream
            self._streams[stream] = max(self._streams[stream], self._last[number])

    def _edges(self, region: Region) -> tuple[dict[int, list[int]], dict[int, list[tuple[int, int]]]]:
        """What each task follows in its own iteration, and what in which iteration ``back`` before."""
        before: dict[int, list[int]] = {}
        carried: dict[int, list[tuple[int, int]]] = {}
        heads: dict[int, int] = {}  # of each stream
        tails: dict[int, int] = {}
        for number in range(region.start, region.stop):
            task = self._tasks[number]
            inside = [wait for wait in task.waits if region.start <= wait.step < region.stop]
            before[number] = [wait.step for wait in inside if not wait.back]
            if task.stream in tails:
                before[number].append(tails[task.stream])
            tails[task.stream] = number
            heads.setdefault(task.stream, number)
            if backs := [(wait.step, wait.back) for wait in inside if wait.back]:
                carried[number] = backs
        for stream, head in heads.items():
            carried.setdefault(head, []).append((tails[stream], 1))
        return before, carried if region.count > 1 else {}

    def _ready(self, number: int, region: Region) -> float:
        """The earliest start of a task for what comes before its region: its stream, and what it waits for there.

        Of all but the last execution of a step only the first one's end is known.
        """
        task = self._tasks[number]
        ready = self._streams[task.stream]
        for wait in task.waits:
            if wait.step < region.start and wait.back < self._counts[wait.step]:
                ready = max(ready, (self._first if wait.back else self._last)[wait.step])
        return ready

    def _sweep(
        self, order: Iterable[int], before: dict[int, list[int]], starts: dict[int, float], ends: list[float]
    ) -> None:
        for number in order:
            start = max((ends[other] for other in before[number]), default=0.0)
            ends[number] = max(start, starts[number]) + _alone(self._tasks[number])

    def _paths(self, source: int, order: Sequence[int], before: dict[int, list[int]]) -> dict[int, float]:
        """Seconds of the longest path from ``source`` to each task of an iteration that follows it, both included."""
        found = {source: _alone(self._tasks[source])}
        for number in order[order.index(source) + 1 :]:
            known = [found[other] for other in before[number] if other in found]
            if known:
                found[number] = max(known) + _alone(self._tasks[number])
        return found
