"""The event engine in SimPy: one process per stream, as readable as we can make it. The fast engine must agree with it.

Everything that happens at one instant happens before anything is decided for what follows: engines are given away, and
speeds set, when no event of the instant is left. So the order of events of equal time does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

import simpy
from simpy.events import EventPriority

from hwsim.events.outcome import Execution, Outcome
from hwsim.events.shares import DONE, speeds
from hwsim.events.stall import Head, stalled
from hwsim.events.table import NO_ENGINE, Table, Task

Process: TypeAlias = "Generator[simpy.Event, None, None]"

LAST = EventPriority(2)  # after all events of the same instant: SimPy's own are urgent (0) or normal (1)


def run_reference(table: Table, passes: int = 1) -> Outcome:
    """Run every task of ``table``, repetitions written out; raises `StalledError` where nothing can go on."""
    return _Run(table, passes).outcome()


class _Run:
    """The state of a run."""

    def __init__(self, table: Table, passes: int) -> None:
        self.table = table
        self.passes = passes
        self.env = simpy.Environment()
        self.settling = False
        self.flows = _Flows(self)
        self.engines = [_Engine(self) for _ in table.engines]
        self.ended = [_Count(self.env) for _ in table.tasks]
        self.heads: list[Head | None] = [None] * len(table.streams)
        self.executions: list[Execution] = []

    def outcome(self) -> Outcome:
        """Run to the end."""
        streams = [self.env.process(self._stream(number)) for number in range(len(self.table.streams))]
        self.env.run()
        if any(stream.is_alive for stream in streams):
            raise stalled(self.table, [head for head in self.heads if head], [count.value for count in self.ended])
        seconds = max((execution.end for execution in self.executions), default=0.0)
        executions = sorted(self.executions, key=lambda item: (item.start, item.task))
        return Outcome(
            seconds,
            executions,
            self.flows.elapsed,
            [engine.busy for engine in self.engines],
            [engine.waited for engine in self.engines],
            self.flows.busy,
            self.flows.waited,
        )

    def _stream(self, stream: int) -> Process:
        """The tasks of one stream, one after the other."""
        for order, (number, turn) in enumerate(self._program()):
            task = self.table.tasks[number]
            if task.stream != stream:
                continue
            self.heads[stream] = Head(number, turn)
            for wait in task.waits:
                yield self.ended[wait.step].reaches(self.table.needed(number, wait, turn))
            if task.engine != NO_ENGINE:
                yield self.engines[task.engine].request((task.rank, self.env.now, order))
            start = self.env.now
            yield from self._execute(number, task)
            if task.engine != NO_ENGINE:
                self.engines[task.engine].release()
            self.executions.append(Execution(number, start, self.env.now))
            self.ended[number].add()
        self.heads[stream] = None

    def _execute(self, number: int, task: Task) -> Process:
        if task.latency:
            yield self.flows.go(_Flow(number, Task(task.name, task.step, task.stream, task.rank), task.latency))
        if task.seconds:
            yield self.flows.go(_Flow(number, task, task.seconds))

    def _program(self) -> Iterator[tuple[int, int]]:
        """Every task in the order of issue, with its iteration counted over all passes."""
        for number in range(self.passes):
            for region in self.table.regions:
                for turn in range(region.count):
                    for task in range(region.start, region.stop):
                        yield task, number * region.count + turn

    def settle(self) -> None:
        """Decide, once no event of this instant is left, who gets engines and bandwidth."""
        if not self.settling:
            self.settling = True
            self._last(0.0, self._settled)

    def _settled(self) -> None:
        self.settling = False
        granted = [engine.grant() for engine in self.engines]
        if any(granted):
            self.settle()
        else:
            self.flows.set_speeds()

    def _last(self, delay: float, call: Callable[[], None]) -> None:
        event = simpy.Event(self.env)
        event._ok, event._value = True, None
        event.callbacks.append(lambda _: call())
        self.env.schedule(event, LAST, delay)

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Call after ``delay`` seconds."""
        self.env.timeout(delay).callbacks.append(lambda _: call())


class _Count:
    """How often a task has ended, and who waits for it to reach a number."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._waiting: list[tuple[int, simpy.Event]] = []
        self.value = 0

    def reaches(self, number: int) -> simpy.Event:
        event = self._env.event()
        if self.value >= number:
            event.succeed()
        else:
            self._waiting.append((number, event))
        return event

    def add(self) -> None:
        self.value += 1
        for number, event in self._waiting:
            if number == self.value:
                event.succeed()
        self._waiting = [item for item in self._waiting if item[0] > self.value]


class _Engine:
    """Serves one task at a time: the lowest rank first, then who could start first, then the order of issue."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._queue: list[tuple[tuple[int, float, int], simpy.Event]] = []
        self._taken = -1.0  # since when
        self.busy = 0.0
        self.waited = 0.0

    def request(self, place: tuple[int, float, int]) -> simpy.Event:
        event = self._run.env.event()
        self._queue.append((place, event))
        self._run.settle()
        return event

    def release(self) -> None:
        self.busy += self._run.env.now - self._taken
        self._taken = -1.0
        self._run.settle()

    def grant(self) -> bool:
        """Give the engine to the first of the queue, if it is free."""
        if self._taken >= 0 or not self._queue:
            return False
        first = min(self._queue, key=lambda item: item[0])
        self._queue.remove(first)
        self._taken = self._run.env.now
        self.waited += self._taken - first[0][1]
        first[1].succeed()
        return True


class _Flow:
    """A task in progress: ``left`` seconds at full speed."""

    def __init__(self, number: int, task: Task, seconds: float) -> None:
        self.number = number
        self.task = task
        self.left = seconds
        self.seconds = seconds
        self.speed = 0.0
        self.held = -1
        self.event: simpy.Event | None = None


class _Flows:
    """All tasks in progress; their speeds change when one of them starts or ends."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._active: list[_Flow] = []
        count = len(run.table.resources)
        self.elapsed = [0.0] * len(run.table.tasks)
        self.busy = [0.0] * count
        self.waited = [0.0] * count

    def go(self, flow: _Flow) -> simpy.Event:
        """Start ``flow``; the event is its end."""
        flow.event = self._run.env.event()
        self._active.append(flow)
        self._run.settle()
        return flow.event

    def set_speeds(self) -> None:
        """Share the bandwidths, and come back when the first one ends."""
        self._active.sort(key=lambda flow: flow.number)
        found, held = speeds([flow.task for flow in self._active], len(self.busy))
        for flow, speed, resource in zip(self._active, found, held, strict=True):
            flow.speed, flow.held = speed, resource
        moving = [flow.left / flow.speed for flow in self._active if flow.speed > 0]
        if moving:
            span = min(moving)
            self._run.after(span, lambda: self._advance(span))

    def _advance(self, span: float) -> None:
        self._account(span)
        for flow in self._active:
            flow.left -= flow.speed * span
        for flow in self._active:
            if flow.left <= DONE * flow.seconds and flow.event is not None:
                flow.event.succeed()
        self._active = [flow for flow in self._active if flow.left > DONE * flow.seconds]
        self._run.settle()

    def _account(self, span: float) -> None:
        """Who used what; the time goes to the kernels in progress, else to the transfers, in equal parts."""
        working = [flow for flow in self._active if flow.task.engine != NO_ENGINE] or self._active
        for flow in working:
            self.elapsed[flow.number] += span / len(working)
        for flow in self._active:
            for resource, use in flow.task.uses:
                self.busy[resource] += use * flow.speed * span
            if flow.held >= 0:
                self.waited[flow.held] += (1.0 - flow.speed) * span
