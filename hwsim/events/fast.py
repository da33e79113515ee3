"""The event engine as compiled code: what `hwsim.events.reference` does, for large schedules.

A stream's tasks end in order, so all that a run must know is how far each stream is, and what is left of the task at
its head. At every instant all that can start is started, then bandwidth is shared, then time moves to the next end.
`hwsim.events.arrays` describes ``n`` and ``x``.
"""

from __future__ import annotations

import numpy as np

from hwsim.compiled import compiled
from hwsim.events import arrays as a
from hwsim.events.arrays import (
    AT_DONE,
    AT_ITEM,
    AT_OWNER,
    AT_REGION,
    AT_SPAN,
    AT_TOTAL,
    AT_WAIT,
    ENGINE,
    ENGINES,
    ENTRY,
    FINISHED,
    FIRST,
    FLOWING,
    ITEM,
    LATENCY,
    LEFT,
    LOCAL,
    LOGGED,
    LOGGING,
    NONE,
    NOW,
    PASS,
    PASSES,
    PHASE,
    QUEUED,
    RANK,
    REGION,
    REGIONS,
    SECONDS,
    SINCE,
    SPEED,
    STREAMS,
    TASK,
    TASKS,
    TURN,
    WAITING,
    ZERO,
    Arrays,
    Floats,
    Ints,
    cost_row,
    flow_row,
    in_progress,
    make_arrays,
    needed,
    stream_row,
    task_row,
)
from hwsim.events.fast_shares import account, share
from hwsim.events.folding import fold
from hwsim.events.outcome import Execution, Outcome, Replay
from hwsim.events.shares import DONE
from hwsim.events.stall import Head, stalled
from hwsim.events.table import Table


def run_fast(table: Table, passes: int = 1, *, folding: bool = True, log: bool = True) -> Outcome:
    """Run every task of ``table``; with ``folding``, iterations that are like those before are not run again.

    ``log=False`` leaves out the executions. Raises `StalledError` where nothing can go on.
    """
    lines = passes * sum(region.count * (region.stop - region.start) for region in table.regions) if log else 0
    run = make_arrays(table, passes, lines)
    simulate(run.n, run.x, folding)
    done = run.table(AT_DONE, 1, len(table.tasks))[:, 0].tolist()
    heads = _heads(run, table)
    if heads:
        raise stalled(table, heads, done)
    return _outcome(run, table)


def _heads(run: Arrays, table: Table) -> list[Head]:
    """The tasks that unfinished streams cannot get past."""
    rows = run.table(a.AT_STREAM, a.STREAM_WIDTH, len(table.streams)).tolist()
    return [
        Head(row[TASK], row[PASS] * table.regions[row[REGION]].count + row[TURN])
        for row in rows
        if row[PHASE] != FINISHED
    ]


def _outcome(run: Arrays, table: Table) -> Outcome:
    tasks, engines, resources = len(table.tasks), len(table.engines), len(table.resources)
    totals = run.floats(AT_TOTAL, 1, tasks + 2 * engines + 2 * resources)[:, 0]
    parts = np.split(totals, np.cumsum([tasks, engines, engines, resources]))
    elapsed, engine_busy, engine_waited, busy, waited = (part.tolist() for part in parts)
    logged = int(run.n[LOGGED])
    which = run.table(a.AT_LOG, 1, logged)[:, 0].tolist()
    times = run.floats(a.AT_TIMES, 2, logged).tolist()
    jumps = run.floats(a.AT_JUMP, a.JUMP_WIDTH, int(run.n[a.JUMPED])).tolist()
    return Outcome(
        float(run.x[NOW]),
        [Execution(task, start, end) for task, (start, end) in zip(which, times, strict=True)],
        elapsed,
        engine_busy,
        engine_waited,
        busy,
        waited,
        [Replay(int(start), int(stop), int(times), period) for start, stop, times, period in jumps],
    )


@compiled
def simulate(n: Ints, x: Floats, folding: bool) -> None:
    """Run until every stream has finished, or nothing moves."""
    for stream in range(n[STREAMS]):
        enter(n, stream, ZERO, ZERO)
    start_all(n, x)
    while True:
        if folding:
            fold(n, x)
        share(n, x)
        if not advance(n, x):
            return
        start_all(n, x)


@compiled
def enter(n: Ints, stream: int, passed: int, region: int) -> None:
    """Move a stream to its first task in ``region`` of pass ``passed``, or after it."""
    row = stream_row(n, stream)
    while passed < n[PASSES]:
        while region < n[REGIONS]:
            span = n[AT_SPAN] + stream * n[REGIONS] + region
            if n[span] < n[span + 1]:
                n[row + PASS], n[row + REGION], n[row + TURN], n[row + ITEM] = passed, region, 0, n[span]
                n[row + TASK] = n[n[AT_ITEM] + n[span]]
                n[row + PHASE] = WAITING
                return
            region += 1
        passed, region = passed + 1, ZERO
    n[row + PASS], n[row + REGION] = passed, n[REGIONS]
    n[row + PHASE] = FINISHED


@compiled
def proceed(n: Ints, stream: int) -> None:
    """Move a stream to its next task."""
    row = stream_row(n, stream)
    span = n[AT_SPAN] + stream * n[REGIONS] + n[row + REGION]
    n[row + PHASE] = WAITING
    n[row + ITEM] += 1
    if n[row + ITEM] == n[span + 1]:
        n[row + TURN] += 1
        n[row + ITEM] = n[span]
        if n[row + TURN] == n[n[AT_REGION] + a.REGION_WIDTH * n[row + REGION] + a.COUNT]:
            enter(n, stream, n[row + PASS], n[row + REGION] + 1)
            return
    n[row + TASK] = n[n[AT_ITEM] + n[row + ITEM]]


@compiled
def start_all(n: Ints, x: Floats) -> None:
    """Start all that can start at this instant: first what needs no engine, then the first in every engine's queue."""
    while True:
        moved = True
        while moved:
            moved = False
            for stream in range(n[STREAMS]):
                row = stream_row(n, stream)
                if n[row + PHASE] == WAITING and ready(n, row):
                    moved = True
                    x[flow_row(n, stream) + SINCE] = x[NOW]
                    if n[task_row(n, n[row + TASK]) + ENGINE] >= 0:
                        n[row + PHASE] = QUEUED
                    else:
                        begin(n, x, stream)
        granted = False
        for engine in range(n[ENGINES]):
            if n[n[AT_OWNER] + engine] < 0 and grant(n, x, engine):
                granted = True
        if not granted:
            return


@compiled
def ready(n: Ints, row: int) -> bool:
    """Whether all that the head of the stream in ``row`` waits for has ended."""
    task = task_row(n, n[row + TASK])
    for number in range(n[task + a.WAIT], n[task + a.WAIT_END]):
        wait = n[AT_WAIT] + a.WAIT_WIDTH * number
        if n[n[AT_DONE] + n[wait + a.BLOCKER]] < needed(n, row, wait):
            return False
    return True


@compiled
def grant(n: Ints, x: Floats, engine: int) -> bool:
    """Give a free engine to the first of its queue: lowest rank, then longest ready, then the order of issue."""
    first = NONE
    for stream in range(n[STREAMS]):
        row = stream_row(n, stream)
        queued = n[row + PHASE] == QUEUED and n[task_row(n, n[row + TASK]) + ENGINE] == engine
        if queued and (first < 0 or before(n, x, stream, first)):
            first = stream
    if first < 0:
        return False
    n[n[AT_OWNER] + engine] = first
    x[n[AT_TOTAL] + n[TASKS] + n[ENGINES] + engine] += x[NOW] - x[flow_row(n, first) + SINCE]
    begin(n, x, first)
    return True


@compiled
def before(n: Ints, x: Floats, one: int, other: int) -> bool:
    """Whether the head of stream ``one`` comes before that of ``other`` in the queue of an engine."""
    here, there = stream_row(n, one), stream_row(n, other)
    rank = n[task_row(n, n[here + TASK]) + RANK] - n[task_row(n, n[there + TASK]) + RANK]
    if rank != 0:
        return bool(rank < 0)
    since = x[flow_row(n, one) + SINCE] - x[flow_row(n, other) + SINCE]
    if since != 0.0:
        return bool(since < 0.0)
    for column in range(PASS, TURN + 1):
        if n[here + column] != n[there + column]:
            return bool(n[here + column] < n[there + column])
    return bool(n[here + TASK] < n[there + TASK])


@compiled
def begin(n: Ints, x: Floats, stream: int) -> None:
    """Start the head of a stream."""
    row, flow = stream_row(n, stream), flow_row(n, stream)
    cost = cost_row(n, n[row + TASK])
    if n[LOGGING]:
        line = n[LOGGED]
        n[n[a.AT_LOG] + line] = n[row + TASK]
        x[n[a.AT_TIMES] + 2 * line] = x[NOW]
        n[row + ENTRY] = line
        n[LOGGED] = line + 1
    if x[cost + FIRST] > 0.0:
        n[row + PHASE], x[flow + LEFT] = LATENCY, x[cost + FIRST]
    elif x[cost + SECONDS] > 0.0:
        n[row + PHASE], x[flow + LEFT] = FLOWING, x[cost + SECONDS]
    else:
        end(n, x, stream)


@compiled
def end(n: Ints, x: Floats, stream: int) -> None:
    """The head of a stream has ended."""
    row = stream_row(n, stream)
    n[n[AT_DONE] + n[row + TASK]] += 1
    engine = n[task_row(n, n[row + TASK]) + ENGINE]
    if engine >= 0:
        n[n[AT_OWNER] + engine] = -1
    if n[LOGGING]:
        x[n[a.AT_TIMES] + 2 * n[row + ENTRY] + 1] = x[NOW]
    proceed(n, stream)


@compiled
def advance(n: Ints, x: Floats) -> bool:
    """Move the time to the next end of a task or of its latency; False where nothing moves."""
    span = np.inf
    for stream in range(n[STREAMS]):
        flow = flow_row(n, stream)
        if x[flow + SPEED] > 0.0:
            span = min(span, x[flow + LEFT] / x[flow + SPEED])
    if span == np.inf:
        return False
    account(n, x, span)
    x[NOW] += span
    x[LOCAL] += span
    for stream in range(n[STREAMS]):
        row, flow = stream_row(n, stream), flow_row(n, stream)
        if not in_progress(n[row + PHASE]):
            continue
        cost = cost_row(n, n[row + TASK])
        flowing = n[row + PHASE] == FLOWING
        x[flow + LEFT] -= x[flow + SPEED] * span
        if x[flow + LEFT] > DONE * x[cost + (SECONDS if flowing else FIRST)]:
            continue
        if flowing or x[cost + SECONDS] <= 0.0:
            end(n, x, stream)
        else:
            n[row + PHASE], x[flow + LEFT] = FLOWING, x[cost + SECONDS]
    return True
