"""The task table and the state of its run in two arrays, one of whole numbers and one of floats, for compiled code.

Both begin with what there is one of. Tables follow: constants ``AT_...`` say where the number is that says where, and a
table's row is its place plus so many widths (`n[stream_row(n, 2) + TURN]`). Lists of lists are flat, with their limits
in the row of their owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hwsim.compiled import compiled
from hwsim.events.table import Table

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

ZERO, NONE = cast("int", np.int64(0)), cast("int", np.int64(-1))
"""As arguments: for a literal a function would be compiled once more."""
WAITING, QUEUED, LATENCY, FLOWING, FINISHED = range(5)
"""Phases of the task at the head of a stream; a finished stream has none."""
KEPT = 4
"""Snapshots that are kept: the longest period, in iterations, that folding finds."""

# One of each, whole numbers. The focus is the repetition that folding watches, and the iteration of its slowest stream.
PASSES, STREAMS, REGIONS, TASKS, ENGINES, RESOURCES, LOGGING = range(7)
LOGGED, JUMPED, FOCUS_PASS, FOCUS_REGION, FOCUS_TURN, SNAPSHOTS = range(7, 13)
AT_TASK, AT_USE, AT_WAIT, AT_SPAN, AT_ITEM, AT_REGION, AT_STREAM, AT_DONE, AT_OWNER = range(13, 22)
AT_RISING, AT_OLD, AT_LOG = range(22, 25)
AT_COST, AT_SHARE, AT_FLOW, AT_FREE, AT_LOAD, AT_TOTAL, AT_WAS, AT_JUMP, AT_TIMES = range(25, 34)
ONES = 34
# One of each, floats: the time, and the time since the focus changed.
NOW, LOCAL, ONES_X = 0, 1, 2

# Rows of whole numbers.
RANK, ENGINE, USE, USE_END, WAIT, WAIT_END, TASK_WIDTH = range(7)
BLOCKER, PER_TURN, PER_PASS, PLUS, WAIT_WIDTH = range(5)
COUNT, BACK, REGION_WIDTH = range(3)
PASS, REGION, TURN, ITEM, PHASE, TASK, HELD, ENTRY, STREAM_WIDTH = range(9)
# Rows of floats. A flow is what a stream's head has left, in seconds at full speed.
FIRST, SECONDS, RATE, COST_WIDTH = range(4)
LEFT, SINCE, SPEED, FLOW_WIDTH = range(4)
FROM, UNTIL, TIMES, PERIOD, JUMP_WIDTH = range(5)


@compiled
def stream_row(n: Ints, stream: int) -> int:
    """Where the whole numbers of a stream are."""
    return n[AT_STREAM] + STREAM_WIDTH * stream  # type: ignore[no-any-return]


@compiled
def flow_row(n: Ints, stream: int) -> int:
    """Where the floats of a stream are."""
    return n[AT_FLOW] + FLOW_WIDTH * stream  # type: ignore[no-any-return]


@compiled
def task_row(n: Ints, task: int) -> int:
    """Where the whole numbers of a task are."""
    return n[AT_TASK] + TASK_WIDTH * task  # type: ignore[no-any-return]


@compiled
def cost_row(n: Ints, task: int) -> int:
    """Where the floats of a task are."""
    return n[AT_COST] + COST_WIDTH * task  # type: ignore[no-any-return]


@compiled
def in_progress(phase: int) -> bool:
    """Whether a task in ``phase`` has begun."""
    return LATENCY <= phase <= FLOWING


@compiled
def needed(n: Ints, row: int, wait: int) -> int:
    """How often the blocker of the wait at ``wait`` must have ended for the head of the stream in ``row``."""
    return n[wait + PER_TURN] * n[row + TURN] + n[wait + PER_PASS] * n[row + PASS] + n[wait + PLUS]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Arrays:
    """A run: whole numbers ``n`` and floats ``x``."""

    n: Ints
    x: Floats

    def table(self, where: int, width: int, rows: int) -> Ints:
        """The table of whole numbers whose place stands at ``where``."""
        start = int(self.n[where])
        return self.n[start : start + width * rows].reshape(rows, width)

    def floats(self, where: int, width: int, rows: int) -> Floats:
        """The table of floats whose place stands at ``where``."""
        start = int(self.n[where])
        return self.x[start : start + width * rows].reshape(rows, width)


def make_arrays(table: Table, passes: int, lines: int) -> Arrays:
    """The state of ``table`` before its run; the log has room for ``lines`` executions."""
    lists = _lists(table)
    made = _laid_out(table, lists, passes, lines)
    n, engines = made.n, len(table.engines)
    n[PASSES], n[STREAMS], n[REGIONS] = passes, len(table.streams), len(table.regions)
    n[TASKS], n[ENGINES], n[RESOURCES] = len(table.tasks), engines, len(table.resources)
    n[LOGGING] = lines > 0
    n[FOCUS_PASS : FOCUS_TURN + 1] = -1
    made.table(AT_OWNER, 1, engines)[:] = -1
    _fill_tasks(made, table)
    made.table(AT_USE, 1, len(lists.uses))[:, 0] = [resource for resource, _ in lists.uses]
    made.floats(AT_SHARE, 1, len(lists.uses))[:, 0] = [share for _, share in lists.uses]
    made.table(AT_WAIT, WAIT_WIDTH, len(lists.waits))[:] = np.array(lists.waits, np.int64).reshape(-1, WAIT_WIDTH)
    made.table(AT_SPAN, 1, len(lists.spans))[:, 0] = lists.spans
    made.table(AT_ITEM, 1, len(lists.items))[:, 0] = lists.items
    return made


@dataclass(frozen=True, slots=True)
class _Lists:
    """Uses and waits of all tasks; the tasks of each stream in each region, with the limits of these lists."""

    uses: list[tuple[int, float]]
    waits: list[tuple[int, int, int, int]]
    spans: list[int]
    items: list[int]


def _laid_out(table: Table, lists: _Lists, passes: int, lines: int) -> Arrays:
    """Room for everything, and where it is."""
    tasks, regions, streams = len(table.tasks), len(table.regions), len(table.streams)
    engines, resources = len(table.engines), len(table.resources)
    totals = tasks + 2 * engines + 2 * resources
    whole = {
        AT_TASK: TASK_WIDTH * tasks,
        AT_USE: len(lists.uses),
        AT_WAIT: WAIT_WIDTH * len(lists.waits),
        AT_SPAN: len(lists.spans),
        AT_ITEM: len(lists.items),
        AT_REGION: REGION_WIDTH * regions,
        AT_STREAM: STREAM_WIDTH * streams,
        AT_DONE: tasks,
        AT_OWNER: engines,
        AT_RISING: streams,
        AT_OLD: KEPT * (STREAM_WIDTH * streams + 1),
        AT_LOG: lines,
    }
    floats = {
        AT_COST: COST_WIDTH * tasks,
        AT_SHARE: len(lists.uses),
        AT_FLOW: FLOW_WIDTH * streams,
        AT_FREE: resources,
        AT_LOAD: resources,
        AT_TOTAL: totals,
        AT_WAS: KEPT * (1 + FLOW_WIDTH * streams + totals),
        AT_JUMP: JUMP_WIDTH * passes * regions * (streams + 1),
        AT_TIMES: 2 * lines,
    }
    n, x = np.zeros(ONES + sum(whole.values()), np.int64), np.zeros(ONES_X + sum(floats.values()))
    for sizes, first in ((whole, ONES), (floats, ONES_X)):
        n[list(sizes)] = list(accumulate(sizes.values(), initial=first))[:-1]
    return Arrays(n, x)


def _lists(table: Table) -> _Lists:
    region_of = [number for number, region in enumerate(table.regions) for _ in range(region.start, region.stop)]
    waits = [
        (wait.step, *_needed(table, region_of[number], region_of[wait.step], wait.back))
        for number, task in enumerate(table.tasks)
        for wait in task.waits
    ]
    placed: list[list[list[int]]] = [[[] for _ in table.regions] for _ in table.streams]
    for number, task in enumerate(table.tasks):
        placed[task.stream][region_of[number]].append(number)
    listed = [tasks for of_stream in placed for tasks in of_stream]
    spans = [0, *accumulate(len(tasks) for tasks in listed)]
    uses = [use for task in table.tasks for use in task.uses]
    return _Lists(uses, waits, spans, [task for part in listed for task in part])


def _needed(table: Table, own: int, other: int, back: int) -> tuple[int, int, int]:
    """`Table.needed` as factors of the iteration and of the pass, and a constant."""
    count = table.regions[other].count
    if own == other:
        return 1, count, 1 - back
    return (0, count, count - back) if other < own else (0, count, 1 - back)


def _fill_tasks(arrays: Arrays, table: Table) -> None:
    tasks = table.tasks
    rows = arrays.table(AT_TASK, TASK_WIDTH, len(tasks))
    rows[:, RANK] = [task.rank for task in tasks]
    rows[:, ENGINE] = [task.engine for task in tasks]
    for first, last, lengths in (
        (USE, USE_END, [len(task.uses) for task in tasks]),
        (WAIT, WAIT_END, [len(task.waits) for task in tasks]),
    ):
        rows[:, last] = np.cumsum(lengths)
        rows[:, first] = rows[:, last] - lengths
    arrays.floats(AT_COST, COST_WIDTH, len(tasks))[:] = [(task.latency, task.seconds, task.rate) for task in tasks]
    backs: Sequence[tuple[int, int]] = [
        (region.count, max((wait.back for task in tasks[region.start : region.stop] for wait in task.waits), default=0))
        for region in table.regions
    ]
    arrays.table(AT_REGION, REGION_WIDTH, len(backs))[:] = backs
