"""From a schedule whose steps overlap to its timeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hwsim.device import Device
from hwsim.engine import Span, Stretch, Timeline, Usage
from hwsim.events.bound import lower_bound
from hwsim.events.fast import run_fast
from hwsim.events.outcome import Execution, Outcome
from hwsim.events.steady import run_steady
from hwsim.events.table import Table, make_table
from hwsim.mapper import Schedule, Transfer
from hwsim.system import system_of


def run_events(schedule: Schedule, device: Device, spans: bool) -> Timeline:
    """The timeline of a schedule whose steps overlap; ``spans=False`` leaves out the executions."""
    table = make_table(schedule, system_of(device))
    outcome = run_steady(table, log=spans) if schedule.steady else run_fast(table, log=spans)
    elapsed = [0.0] * len(schedule.steps)
    for task, seconds in zip(table.tasks, outcome.elapsed, strict=True):
        elapsed[task.step] += seconds
    engines = zip(table.engines, outcome.engine_busy, outcome.engine_waited, strict=True)
    resources = zip(table.resources, outcome.resource_busy, outcome.resource_waited, strict=True)
    moved = _moved(schedule, table)
    bound = lower_bound(table)
    return Timeline(
        outcome.seconds,
        table.costs,
        tuple(elapsed),
        tuple(_stretches(table, outcome)) if spans else (),
        tuple(table.streams[task.stream] for task in table.tasks if not task.issue),
        (
            *(Usage(name, busy, 0.0, waited) for name, busy, waited in engines),
            *(Usage(name, busy, moved.get(name, 0.0), waited) for name, busy, waited in resources),
        ),
        bound.seconds,
        bound.by,
        _issue_seconds(schedule, table),
    )


def _issue_seconds(schedule: Schedule, table: Table) -> float:
    """What the slowest host needs to issue all kernels of its device."""
    hosts: dict[int, float] = {}
    for task in table.tasks:
        if task.issue:
            hosts[task.stream] = hosts.get(task.stream, 0.0) + schedule.counts[task.step] * task.seconds
    return max(hosts.values(), default=0.0)


def _stretches(table: Table, outcome: Outcome) -> Iterator[Stretch]:
    """The executions in the order of their start, those that were folded once."""
    position = 0
    for replay in outcome.replays:
        yield Stretch(_spans(table, outcome.executions[position : replay.start]))
        yield Stretch(_spans(table, outcome.executions[replay.start : replay.stop]), replay.times, replay.period)
        position = replay.stop
    yield Stretch(_spans(table, outcome.executions[position:]))


def _spans(table: Table, executions: Sequence[Execution]) -> tuple[Span, ...]:
    tasks = table.tasks
    return tuple([Span(tasks[one.task].step, one.start, one.end) for one in executions if not tasks[one.task].issue])


def _moved(schedule: Schedule, table: Table) -> dict[str, float]:
    """Bytes per memory and link."""
    moved: dict[str, float] = {}
    for task in table.tasks:
        if task.issue:
            continue
        step, traffic = schedule.steps[task.step], table.costs[task.step].traffic
        links = [table.resources[number] for number, _ in task.uses] if isinstance(step, Transfer) else []
        each = {**dict.fromkeys(links, step.nbytes), **traffic}
        for name, nbytes in each.items():
            moved[name] = moved.get(name, 0.0) + schedule.counts[task.step] * nbytes
    return moved
