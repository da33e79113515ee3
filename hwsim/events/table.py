"""The task table: a schedule on a system as what the engines run, streams of tasks that use resources.

Both engines read the same table. A task takes its engine (a device runs one kernel at a time), waits out a latency,
then makes progress at a speed of at most 1, its speed alone. Of every memory and link it uses a share of the bandwidth
in proportion to its speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from hwsim.cost import Cost
from hwsim.device import estimate_run
from hwsim.errors import InputError
from hwsim.mapper import Kernel, Schedule, Step, Transfer, Wait
from hwsim.system import System

NO_ENGINE = -1


@dataclass(frozen=True, slots=True)
class Task:
    """What one step asks for. ``seconds`` at full speed; ``rate`` in B/s at full speed, by which fairness is measured;
    ``rank`` orders who is served first; ``uses`` are shares of resources at full speed. ``step`` is that of the
    schedule, and for the issue of a kernel by the host that of the kernel."""

    name: str
    step: int
    stream: int
    rank: int
    engine: int = NO_ENGINE
    latency: float = 0.0
    seconds: float = 0.0
    rate: float = 0.0
    uses: tuple[tuple[int, float], ...] = ()
    waits: tuple[Wait, ...] = ()
    issue: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """``tasks[start:stop]`` run ``count`` times."""

    start: int
    stop: int
    count: int


@dataclass(frozen=True)
class Table:
    """Tasks in the order of issue, cut into regions, and the names of what they use. ``waits`` of tasks name tasks."""

    tasks: tuple[Task, ...]
    regions: tuple[Region, ...]
    streams: tuple[str, ...]
    engines: tuple[str, ...]
    resources: tuple[str, ...]
    costs: tuple[Cost, ...]
    steady: bool = False

    def region_of(self, task: int) -> int:
        """The region that holds ``task``."""
        return next(number for number, region in enumerate(self.regions) if task < region.stop)

    def needed(self, waiting: int, wait: Wait, turn: int) -> int:
        """How often ``wait.step`` must have ended before iteration ``turn`` of the task ``waiting`` may start.

        Iterations are counted over all passes of a steady schedule.
        """
        own, other = self.region_of(waiting), self.region_of(wait.step)
        if own == other:
            return turn - wait.back + 1
        passed = turn // self.regions[own].count
        if other < own:
            return (passed + 1) * self.regions[other].count - wait.back
        return passed * self.regions[other].count - wait.back + 1


def make_table(schedule: Schedule, system: System) -> Table:
    """The table of ``schedule`` on ``system``; raises `InputError` for waits and names that cannot be."""
    return _Builder(schedule, system).table()


class _Builder:
    """Collects the names of streams, engines and resources while tasks are made."""

    def __init__(self, schedule: Schedule, system: System) -> None:
        self._schedule = schedule
        self._system = system
        self._streams: dict[str, int] = {}
        self._engines: dict[str, int] = {}
        self._resources: dict[str, int] = {}
        self._tasks: list[Task] = []
        self._place: list[int] = []  # of each step among the tasks
        ranks = sorted({_rank(step) for step in schedule.steps})
        self._ranks = {rank: number for number, rank in enumerate(ranks)}

    def table(self) -> Table:
        """Tasks of all steps."""
        costs = step_costs(self._schedule, self._system)
        for index, (step, cost) in enumerate(zip(self._schedule.steps, costs, strict=True)):
            if not (0 <= cost.seconds < inf and 0 <= step.nbytes < inf):
                raise InputError(
                    f"step {index} '{step.name}' moves {step.nbytes} B in {cost.seconds} s: not finite, or below 0"
                )
            if isinstance(step, Kernel):
                self._kernel(index, step, cost)
            else:
                self._transfer(index, step, cost)
        tasks = tuple(self._with_waits(number, task) for number, task in enumerate(self._tasks))
        names = tuple(self._streams), tuple(self._engines), tuple(self._resources)
        return Table(tasks, tuple(self._regions()), *names, tuple(costs), self._schedule.steady)

    def _kernel(self, index: int, kernel: Kernel, cost: Cost) -> None:
        device = kernel.device or self._system.main_name
        issued = self._system.host_seconds(kernel)
        waits = []
        if issued:
            host = f"{device} issue"
            place = len(self._tasks)
            before = kernel.waits if kernel.synced else ()
            stream = _number(self._streams, host)
            self._add(Task("issue", index, stream, 0, seconds=issued, waits=before, issue=True))
            waits.append(Wait(-1 - place))
        seconds = cost.seconds
        asked = self._asked(device, cost)
        task = Task(
            kernel.name,
            index,
            _number(self._streams, kernel.stream or device),
            self._ranks[_rank(kernel)],
            _number(self._engines, device),
            seconds=seconds,
            rate=max(asked.values(), default=(0.0, 0.0))[1] / seconds if seconds else 0.0,
            uses=tuple((_number(self._resources, name), min(1.0, busy / seconds)) for name, (busy, _) in asked.items()),
            waits=(*waits, *kernel.waits),
        )
        self._place.append(len(self._tasks))
        self._add(task)

    def _asked(self, device: str, cost: Cost) -> dict[str, tuple[float, float]]:
        """What a kernel asks of the memories and links that others may use too: seconds at full bandwidth, bytes."""
        asked: dict[str, tuple[float, float]] = {}
        card = self._system.device(device).card
        for memory in card.memories:
            name = self._system.place(f"{device}.{memory.name}").name
            if memory.kind != "cache" and cost.busy.get(name):
                asked[name] = cost.busy[name], cost.traffic.get(name, 0.0) or cost.busy[name] * memory.bandwidth
        for link in card.links:
            hop = self._system.port(device, link.name)
            busy = cost.busy.get(link.name if device == self._system.main_name else f"{device}.{link.name}")
            if busy and hop is not None:
                asked[hop.resource] = busy, busy * hop.bandwidth
        return asked

    def _transfer(self, index: int, transfer: Transfer, cost: Cost) -> None:
        latency = self._system.latency(transfer)
        seconds = max(0.0, cost.seconds - latency)
        task = Task(
            transfer.name,
            index,
            _number(self._streams, transfer.stream or f"{transfer.source} to {transfer.target}"),
            self._ranks[_rank(transfer)],
            latency=latency,
            seconds=seconds,
            rate=transfer.nbytes / seconds if seconds else 0.0,
            uses=tuple(
                (_number(self._resources, name), min(1.0, busy / seconds))
                for name, busy in cost.busy.items()
                if busy and transfer.nbytes
            ),
            waits=transfer.waits,
        )
        self._place.append(len(self._tasks))
        self._add(task)

    def _add(self, task: Task) -> None:
        self._tasks.append(task)

    def _with_waits(self, number: int, task: Task) -> Task:
        """The task with its waits naming tasks; those for its own issue do already, as negative numbers."""
        if not task.waits:
            return task
        waits = []
        for wait in task.waits:
            if wait.step < 0:
                waits.append(Wait(-1 - wait.step))
                continue
            waits.append(self._checked(number, task, wait))
        return replace(task, waits=tuple(waits))

    def _checked(self, number: int, task: Task, wait: Wait) -> Wait:
        if wait.step >= len(self._place) or wait.back < 0:
            raise InputError(
                f"step {task.step} '{task.name}' waits for step {wait.step} of {wait.back} iterations ago: "
                f"steps are 0 to {len(self._place) - 1}, iterations 0 or more"
            )
        other = self._place[wait.step]
        if wait.back == 0 and (other == number or self._region(other) > self._region(number)):
            raise InputError(
                f"step {task.step} '{task.name}' waits for step {wait.step} '{self._tasks[other].name}', which comes "
                "later: a wait is for an earlier step, one of the same repetition, or an iteration before (back)"
            )
        return Wait(other, wait.back)

    def _region(self, task: int) -> int:
        """The number of the region of a task."""
        return next(number for number, region in enumerate(self._regions()) if task < region.stop)

    def _regions(self) -> Iterator[Region]:
        at = [*self._first_tasks(), len(self._tasks)]
        position = 0
        for repeat in self._schedule.repeats:
            if repeat.start > position:
                yield Region(at[position], at[repeat.start], 1)
            yield Region(at[repeat.start], at[repeat.stop], repeat.count)
            position = repeat.stop
        if position < len(self._schedule.steps):
            yield Region(at[position], at[-1], 1)

    def _first_tasks(self) -> list[int]:
        """The first task of each step: the issue of a kernel, if it has one."""
        first: dict[int, int] = {}
        for number, task in enumerate(self._tasks):
            first.setdefault(task.step, number)
        return [first[index] for index in range(len(self._schedule.steps))]


def step_costs(schedule: Schedule, system: System) -> list[Cost]:
    """What each step takes alone; kernels of one device are estimated together."""
    costs: list[Cost] = [Cost()] * len(schedule.steps)
    counts = schedule.counts
    by_device: dict[str, list[int]] = {}
    for index, step in enumerate(schedule.steps):
        if isinstance(step, Transfer):
            costs[index] = system.transfer(step)
        else:
            by_device.setdefault(step.device or system.main_name, []).append(index)
    for name, places in by_device.items():
        for index, cost in zip(places, _kernel_costs(schedule.steps, places, counts, system, name), strict=True):
            costs[index] = cost
    return costs


def _kernel_costs(
    steps: Sequence[Step], places: Sequence[int], counts: Sequence[int], system: System, name: str
) -> list[Cost]:
    kernels = [step for step in (steps[index] for index in places) if isinstance(step, Kernel)]
    costs = estimate_run(system.device(name), kernels, [float(counts[index]) for index in places])
    return costs if name == system.main_name else [_renamed(cost, name) for cost in costs]


def _renamed(cost: Cost, device: str) -> Cost:
    """The cost with its resources named as those of ``device``."""
    traffic = {f"{device}.{name}": nbytes for name, nbytes in cost.traffic.items()}
    busy = {f"{device}.{name}": seconds for name, seconds in cost.busy.items()}
    return Cost(cost.seconds, cost.joules, traffic, busy, f"{device}.{cost.bound}")


def _rank(step: Step) -> tuple[bool, int]:
    """Smaller is served first."""
    return step.background, -step.priority


def _number(known: dict[str, int], name: str) -> int:
    return known.setdefault(name, len(known))
