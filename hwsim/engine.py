"""Runs a schedule on a device or a system: when each step starts and ends, and what it costs.

The host issues kernels one after the other and may run ahead; the device runs them in order. A kernel starts when it
has been issued and the one before is done, so a lone kernel takes exactly its estimate plus its issue. Schedules with
transfers, several devices or streams are run by `hwsim.events`, where steps overlap and share bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from hwsim.cost import Cost
from hwsim.device import Device, estimate_run
from hwsim.graph import Repeat
from hwsim.mapper import Kernel, Schedule, Step
from hwsim.value import value

STEADY = 1e-12  # relative change of an iteration's time below which the repetition is steady


@value
class Span:
    """One execution of ``schedule.steps[step]`` from ``start`` to ``end`` (seconds)."""

    step: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Executions in order, which then run ``times`` more, each time later by ``period`` seconds."""

    spans: tuple[Span, ...]
    times: int = 0
    period: float = 0.0

    def __iter__(self) -> Iterator[Span]:
        yield from self.spans
        for later in range(1, self.times + 1):
            shift = later * self.period
            yield from [Span(span.step, span.start + shift, span.end + shift) for span in self.spans]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a resource did: an engine, a memory or one direction of a link. ``busy`` is seconds at full use, ``waited``
    seconds that steps waited for it or ran slower because others used it."""

    name: str
    busy: float
    nbytes: float
    waited: float


@dataclass(frozen=True)
class Timeline:
    """What ran when. ``elapsed`` is the time per step over all its executions, waiting for the host included: where
    steps overlap, that of the kernels that run, and of transfers only while no kernel does, so that it adds up.
    ``stretches`` hold the executions (none where they were not asked for), steady repetitions once.
    ``tracks`` (of each step) and ``usage`` are empty where one device runs kernel after kernel. Elsewhere the run takes
    at least ``bound_seconds``, as `hwsim.events.bound` finds in closed form, because of ``bound_by``. A host needs
    ``issue_seconds`` to issue all kernels (that of the slowest host)."""

    seconds: float
    costs: tuple[Cost, ...]
    elapsed: tuple[float, ...]
    stretches: tuple[Stretch, ...]
    tracks: tuple[str, ...] = ()
    usage: tuple[Usage, ...] = ()
    bound_seconds: float | None = None
    bound_by: str = ""
    issue_seconds: float = 0.0

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Every execution in order."""
        return tuple(span for stretch in self.stretches for span in stretch)


def run(schedule: Schedule, device: Device, spans: bool = True) -> Timeline:
    """Execute ``schedule`` on ``device``. ``spans=False`` leaves out the executions, which large sweeps do not need."""
    if schedule.steady or not all(_plain(step) for step in schedule.steps):
        from hwsim.events.run import run_events  # compiles: not for those who never need it

        return run_events(schedule, device, spans)
    costs, issues = _costs(schedule, device)
    clock = _Clock(costs, issues, spans)
    position = 0
    for repeat in schedule.repeats:
        clock.run(range(position, repeat.start))
        clock.repeat(repeat)
        position = repeat.stop
    clock.run(range(position, len(schedule.steps)))
    return Timeline(clock.device, tuple(costs), tuple(clock.elapsed), tuple(clock.stretches), issue_seconds=clock.host)


def _plain(step: Step) -> bool:
    """Whether a step is a kernel that follows the one before on the main device."""
    return isinstance(step, Kernel) and not (step.device or step.stream or step.waits)


def _costs(schedule: Schedule, device: Device) -> tuple[list[Cost], list[float]]:
    """Estimates of all kernels in this run; those alike are estimated once."""
    places: dict[object, int] = {}
    distinct: list[Kernel] = []
    counts: list[float] = []
    which = []
    for kernel, count in zip(schedule.kernels, schedule.counts, strict=True):
        place = places.setdefault(_signature(kernel), len(distinct))
        if place == len(distinct):
            distinct.append(kernel)
            counts.append(0.0)
        counts[place] += count
        which.append(place)
    costs = estimate_run(device, distinct, counts)
    issues = [device.host_seconds(kernel) for kernel in distinct]
    return [costs[place] for place in which], [issues[place] for place in which]


def _signature(kernel: Kernel) -> object:
    """All that a cost may depend on: everything but the names."""
    work = kernel.work
    arithmetic = (work.matmul_flops, work.vector_flops, work.special_ops, work.dtype)
    return kernel.kind, tuple(sorted(kernel.attrs.items())), kernel.flows, kernel.launch, arithmetic


class _Clock:
    """The times of host and device while kernels go by."""

    def __init__(self, costs: list[Cost], issues: list[float], spans: bool) -> None:
        self.host = 0.0
        self.device = 0.0
        self.elapsed = [0.0] * len(costs)
        self.stretches: list[Stretch] = []
        self._seconds = [cost.seconds for cost in costs]
        self._issues = issues
        self._record = spans

    def run(self, kernels: range, times: int = 1) -> None:
        """One pass over ``kernels``, its times counted ``times`` fold."""
        spans = []
        for index in kernels:
            self.host += self._issues[index]
            start = max(self.host, self.device)
            end = start + self._seconds[index]
            self.elapsed[index] += times * (end - self.device)
            spans.append(Span(index, start, end))
            self.device = end
        if self._record:
            self.stretches.append(Stretch(tuple(spans)))

    def repeat(self, repeat: Repeat) -> None:
        """The body until its iterations are steady, then the remaining ones as multiples.

        The host's lead over the device decides: once it no longer shrinks and the iteration's time has settled, all
        later iterations are alike.
        """
        body = range(repeat.start, repeat.stop)
        last = -1.0
        for done in range(repeat.count):
            before, lead = self.device, self.device - self.host
            self.run(body)
            took = self.device - before
            grown = (self.device - self.host) - lead
            steady = abs(took - last) <= STEADY * took and grown >= -STEADY * took
            if steady:
                self._skip(body, repeat.count - done - 1, took, took - grown)
                return
            last = took

    def _skip(self, body: range, times: int, took: float, issued: float) -> None:
        """``times`` more iterations, each a copy of the last one, later by ``took``."""
        if times == 0:
            return
        host, device, record = self.host, self.device, self._record
        self._record = False
        self.run(body, times)
        self.host, self.device, self._record = host + times * issued, device + times * took, record
        if record:
            self.stretches[-1] = replace(self.stretches[-1], times=times, period=took)


def unrolled(schedule: Schedule) -> Iterator[Step]:
    """Every step in the order of execution, repetitions written out."""
    position = 0
    for repeat in schedule.repeats:
        yield from schedule.steps[position : repeat.start]
        for _ in range(repeat.count):
            yield from schedule.steps[repeat.start : repeat.stop]
        position = repeat.stop
    yield from schedule.steps[position:]
