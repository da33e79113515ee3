"""How concurrent tasks share memories and links, as compiled code; `hwsim.events.shares` says it in plain Python."""

from __future__ import annotations

import numpy as np

from hwsim.compiled import compiled
from hwsim.events.arrays import (
    AT_FREE,
    AT_LOAD,
    AT_RISING,
    AT_SHARE,
    AT_TOTAL,
    AT_USE,
    ENGINE,
    ENGINES,
    FLOWING,
    HELD,
    PHASE,
    RANK,
    RATE,
    RESOURCES,
    SPEED,
    STREAMS,
    TASK,
    TASKS,
    USE,
    USE_END,
    ZERO,
    Floats,
    Ints,
    cost_row,
    flow_row,
    in_progress,
    stream_row,
    task_row,
)
from hwsim.events.shares import FULL


@compiled
def share(n: Ints, x: Floats) -> None:
    """Set the speed of every task in progress: max-min fair in B/s, rank after rank."""
    x[n[AT_FREE] : n[AT_FREE] + n[RESOURCES]] = 1.0
    highest, lowest = -1, -1
    for stream in range(n[STREAMS]):
        row, flow = stream_row(n, stream), flow_row(n, stream)
        n[row + HELD] = -1
        x[flow + SPEED] = 1.0 if in_progress(n[row + PHASE]) else 0.0
        if moves(n, row):
            rank = n[task_row(n, n[row + TASK]) + RANK]
            highest = rank if highest < 0 else min(highest, rank)
            lowest = max(lowest, rank)
    if highest < 0:
        return
    for rank in range(highest, lowest + 1):
        count = ZERO
        for stream in range(n[STREAMS]):
            row = stream_row(n, stream)
            if moves(n, row) and n[task_row(n, n[row + TASK]) + RANK] == rank:
                n[n[AT_RISING] + count] = stream
                count += 1
        fill(n, x, count)


@compiled
def moves(n: Ints, row: int) -> bool:
    """Whether the head of the stream in ``row`` moves bytes now."""
    task = task_row(n, n[row + TASK])
    return bool(n[row + PHASE] == FLOWING and n[task + USE] < n[task + USE_END])


@compiled
def fill(n: Ints, x: Floats, count: int) -> None:
    """Progressive filling of one rank: the rates of ``count`` rising streams grow together until each is held."""
    level = 0.0
    free, load = n[AT_FREE], n[AT_LOAD]
    while count:
        x[load : load + n[RESOURCES]] = 0.0
        step = np.inf
        for place in range(count):
            number = n[stream_row(n, n[n[AT_RISING] + place]) + TASK]
            task, rate = task_row(n, number), x[cost_row(n, number) + RATE]
            step = min(step, rate - level)
            for use in range(n[task + USE], n[task + USE_END]):
                x[load + n[n[AT_USE] + use]] += x[n[AT_SHARE] + use] / rate
        for resource in range(n[RESOURCES]):
            if x[load + resource] > 0.0:
                step = min(step, x[free + resource] / x[load + resource])
        level += step
        for resource in range(n[RESOURCES]):
            x[free + resource] -= step * x[load + resource]
            if x[free + resource] <= FULL:
                x[free + resource] = 0.0
        count = still_rising(n, x, count, level)


@compiled
def still_rising(n: Ints, x: Floats, count: int, level: float) -> int:
    """Settle the streams that have all they can use or a full resource; returns how many go on."""
    kept = ZERO
    for place in range(count):
        stream = n[n[AT_RISING] + place]
        number = n[stream_row(n, stream) + TASK]
        task, rate = task_row(n, number), x[cost_row(n, number) + RATE]
        full = -1
        for use in range(n[task + USE], n[task + USE_END]):
            if full < 0 and x[n[AT_FREE] + n[n[AT_USE] + use]] == 0.0:
                full = n[n[AT_USE] + use]
        if level >= rate * (1.0 - FULL):
            continue
        if full >= 0:
            x[flow_row(n, stream) + SPEED] = level / rate
            n[stream_row(n, stream) + HELD] = full
        else:
            n[n[AT_RISING] + kept] = stream
            kept += 1
    return kept


@compiled
def account(n: Ints, x: Floats, span: float) -> None:
    """Who used what in ``span`` seconds; the time goes to kernels in progress, else to transfers, in equal parts."""
    kernels, active = 0, 0
    for stream in range(n[STREAMS]):
        row = stream_row(n, stream)
        if in_progress(n[row + PHASE]):
            active += 1
            if n[task_row(n, n[row + TASK]) + ENGINE] >= 0:
                kernels += 1
    total = n[AT_TOTAL]
    busy = total + n[TASKS] + 2 * n[ENGINES]
    for stream in range(n[STREAMS]):
        row = stream_row(n, stream)
        if not in_progress(n[row + PHASE]):
            continue
        number, speed = n[row + TASK], x[flow_row(n, stream) + SPEED]
        task = task_row(n, number)
        if n[task + ENGINE] >= 0:
            x[total + number] += span / kernels
            x[total + n[TASKS] + n[task + ENGINE]] += span
        elif kernels == 0:
            x[total + number] += span / active
        if n[row + PHASE] == FLOWING:
            for use in range(n[task + USE], n[task + USE_END]):
                x[busy + n[n[AT_USE] + use]] += x[n[AT_SHARE] + use] * speed * span
        if n[row + HELD] >= 0:
            x[busy + n[RESOURCES] + n[row + HELD]] += (1.0 - speed) * span
