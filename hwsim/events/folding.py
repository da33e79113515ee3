"""Folding: iterations that begin in the same state as earlier ones need not be run.

When the slowest stream of a repetition begins an iteration, the state is compared with those of the iterations before:
how far every stream is, counted from the slowest, and what is left of its task. If one of them is the same, all that
follows until a stream reaches the end of the repetition is what followed then: it is skipped as often as it fits.
`hwsim.events.arrays` describes ``n`` and ``x``.
"""

from __future__ import annotations

from hwsim.compiled import compiled
from hwsim.events.arrays import (
    AT_DONE,
    AT_ITEM,
    AT_JUMP,
    AT_LOG,
    AT_OLD,
    AT_REGION,
    AT_SPAN,
    AT_STREAM,
    AT_TIMES,
    AT_TOTAL,
    AT_WAIT,
    AT_WAS,
    BACK,
    BLOCKER,
    COUNT,
    ENGINES,
    ENTRY,
    FINISHED,
    FLOW_WIDTH,
    FOCUS_PASS,
    FOCUS_REGION,
    FOCUS_TURN,
    FROM,
    ITEM,
    JUMP_WIDTH,
    JUMPED,
    KEPT,
    LEFT,
    LOCAL,
    LOGGED,
    LOGGING,
    NOW,
    PASS,
    PERIOD,
    PHASE,
    QUEUED,
    REGION,
    REGION_WIDTH,
    REGIONS,
    RESOURCES,
    SINCE,
    SNAPSHOTS,
    STREAM_WIDTH,
    STREAMS,
    TASK,
    TASKS,
    TIMES,
    TURN,
    UNTIL,
    WAIT,
    WAIT_END,
    WAIT_WIDTH,
    WAITING,
    Floats,
    Ints,
    flow_row,
    in_progress,
    needed,
    stream_row,
    task_row,
)

SAME = 1e-12
"""Of the period or of what is left: a smaller difference between states is rounding."""


@compiled
def fold(n: Ints, x: Floats) -> None:
    """Watch the repetition that the slowest streams are in; skip what would only repeat."""
    passed, region = slowest(n)
    if passed < 0:
        return
    row = n[AT_REGION] + REGION_WIDTH * region
    if n[row + COUNT] < 3:
        return
    if n[FOCUS_PASS] != passed or n[FOCUS_REGION] != region:
        n[FOCUS_PASS], n[FOCUS_REGION], n[FOCUS_TURN], n[SNAPSHOTS] = passed, region, -1, 0
        x[LOCAL] = 0.0
    low, high = turns(n, n[AT_STREAM])
    if low <= n[FOCUS_TURN]:
        return
    n[FOCUS_TURN] = low
    if low < n[row + BACK]:
        return
    for snapshot in range(min(n[SNAPSHOTS], KEPT)):
        period = low - turns(n, old_rows(n, snapshot))[0]
        times = fitting(n, period, (n[row + COUNT] - 1 - high) // period)
        if times > 0 and same(n, x, snapshot, period):
            skip(n, x, snapshot, period, times)
            return
    keep(n, x)


@compiled
def slowest(n: Ints) -> tuple[int, int]:
    """Pass and region of the stream that is least far; -1 where all have finished."""
    passed, region = -1, -1
    for stream in range(n[STREAMS]):
        row = stream_row(n, stream)
        if n[row + PHASE] != FINISHED:
            own, place = n[row + PASS], n[row + REGION]
            if passed < 0 or own < passed or (own == passed and place < region):
                passed, region = own, place
    return passed, region


@compiled
def turns(n: Ints, rows: int) -> tuple[int, int]:
    """The lowest and the highest iteration of the streams in the focus; ``rows`` is where streams are told of."""
    low, high = -1, -1
    for stream in range(n[STREAMS]):
        row = rows + STREAM_WIDTH * stream
        if inside(n, row):
            low = n[row + TURN] if low < 0 else min(low, n[row + TURN])
            high = max(high, n[row + TURN])
    return low, high


@compiled
def inside(n: Ints, row: int) -> bool:
    """Whether the stream in ``row`` is in the focus."""
    return bool(n[row + PASS] == n[FOCUS_PASS] and n[row + REGION] == n[FOCUS_REGION])


@compiled
def old_rows(n: Ints, snapshot: int) -> int:
    """Where a snapshot tells of the streams; after them stands how much was logged."""
    return n[AT_OLD] + snapshot * (STREAM_WIDTH * n[STREAMS] + 1)  # type: ignore[no-any-return]


@compiled
def old_flows(n: Ints, snapshot: int) -> int:
    """Where a snapshot tells of the flows; before them stands the time, after them the totals."""
    return n[AT_WAS] + snapshot * (1 + FLOW_WIDTH * n[STREAMS] + totals(n)) + 1  # type: ignore[no-any-return]


@compiled
def totals(n: Ints) -> int:
    """How many totals there are."""
    return n[TASKS] + 2 * n[ENGINES] + 2 * n[RESOURCES]  # type: ignore[no-any-return]


@compiled
def fitting(n: Ints, period: int, times: int) -> int:
    """How many of ``times`` periods may be skipped before a stream outside the focus would begin its task."""
    for stream in range(n[STREAMS]):
        row = stream_row(n, stream)
        if n[row + PHASE] != WAITING or inside(n, row):
            continue
        task = task_row(n, n[row + TASK])
        latest = 0
        for number in range(n[task + WAIT], n[task + WAIT_END]):
            wait = n[AT_WAIT] + WAIT_WIDTH * number
            missing = needed(n, row, wait) - n[n[AT_DONE] + n[wait + BLOCKER]]
            latest = max(latest, (missing - 1) // period)
        times = min(times, latest)
    return times


@compiled
def same(n: Ints, x: Floats, snapshot: int, period: int) -> bool:
    """Whether the state is that of a snapshot ``period`` iterations ago."""
    rows, flows = old_rows(n, snapshot), old_flows(n, snapshot)
    took = x[LOCAL] - x[flows - 1]
    for stream in range(n[STREAMS]):
        now, then = stream_row(n, stream), rows + STREAM_WIDTH * stream
        for column in (PASS, REGION, ITEM, PHASE):
            if n[now + column] != n[then + column]:
                return False
        if n[now + TURN] - n[then + TURN] != (period if inside(n, now) else 0):
            return False
        flow, was = flow_row(n, stream), flows + FLOW_WIDTH * stream
        if n[now + PHASE] == QUEUED:
            waited = x[NOW] - x[flow + SINCE]
            if abs(waited - x[was + SINCE]) > SAME * max(took, waited):
                return False
        elif in_progress(n[now + PHASE]) and abs(x[flow + LEFT] - x[was + LEFT]) > SAME * max(took, x[flow + LEFT]):
            return False
    return True


@compiled
def keep(n: Ints, x: Floats) -> None:
    """Take a snapshot in place of the oldest one. Of tasks in a queue it tells how long they have waited."""
    snapshot = n[SNAPSHOTS] % KEPT
    rows, flows = old_rows(n, snapshot), old_flows(n, snapshot)
    for place in range(STREAM_WIDTH * n[STREAMS]):
        n[rows + place] = n[n[AT_STREAM] + place]
    n[rows + STREAM_WIDTH * n[STREAMS]] = n[LOGGED]
    x[flows - 1] = x[LOCAL]
    for stream in range(n[STREAMS]):
        flow, was = flow_row(n, stream), flows + FLOW_WIDTH * stream
        x[was + LEFT] = x[flow + LEFT]
        x[was + SINCE] = x[NOW] - x[flow + SINCE]
    for place in range(totals(n)):
        x[flows + FLOW_WIDTH * n[STREAMS] + place] = x[n[AT_TOTAL] + place]
    n[SNAPSHOTS] += 1


@compiled
def skip(n: Ints, x: Floats, snapshot: int, period: int, times: int) -> None:
    """``times`` more of what happened since a snapshot, ``period`` iterations each."""
    flows = old_flows(n, snapshot)
    took = x[LOCAL] - x[flows - 1]
    for stream in range(n[STREAMS]):
        row, flow = stream_row(n, stream), flow_row(n, stream)
        if not inside(n, row):
            continue
        n[row + TURN] += times * period
        x[flow + SINCE] += times * took
        span = n[AT_SPAN] + stream * n[REGIONS] + n[row + REGION]
        for item in range(n[span], n[span + 1]):
            n[n[AT_DONE] + n[n[AT_ITEM] + item]] += times * period
    for place in range(totals(n)):
        total = n[AT_TOTAL] + place
        x[total] += times * (x[total] - x[flows + FLOW_WIDTH * n[STREAMS] + place])
    if n[LOGGING]:
        log(n, x, snapshot, times, took)
    x[NOW] += times * took
    n[FOCUS_TURN] += times * period
    n[SNAPSHOTS] = 0


@compiled
def log(n: Ints, x: Floats, snapshot: int, times: int, took: float) -> None:
    """What began since a snapshot runs ``times`` more; the last time is written out, as its ends may be others.

    What is in progress would end as what was in progress then, ``took`` later.
    """
    rows, start, stop = old_rows(n, snapshot), n[old_rows(n, snapshot) + STREAM_WIDTH * n[STREAMS]], n[LOGGED]
    for stream in range(n[STREAMS]):
        row = stream_row(n, stream)
        if inside(n, row) and in_progress(n[row + PHASE]):
            then = n[rows + STREAM_WIDTH * stream + ENTRY]
            x[n[AT_TIMES] + 2 * n[row + ENTRY] + 1] = x[n[AT_TIMES] + 2 * then + 1] + took
            n[row + ENTRY] += stop - start
    for line in range(start, stop):
        copy = stop + line - start
        n[n[AT_LOG] + copy] = n[n[AT_LOG] + line]
        for place in range(2):
            x[n[AT_TIMES] + 2 * copy + place] = x[n[AT_TIMES] + 2 * line + place] + times * took
    n[LOGGED] += stop - start
    jump = n[AT_JUMP] + JUMP_WIDTH * n[JUMPED]
    x[jump + FROM], x[jump + UNTIL], x[jump + TIMES], x[jump + PERIOD] = start, stop, times - 1, took
    n[JUMPED] += 1
