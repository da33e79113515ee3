"""What a run of the task table gives: spans, time per step, use of every resource."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a task, from its start (on its engine) to its end, in s."""

    task: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Replay:
    """``executions[start:stop]`` run ``times`` more, each time later by ``period`` seconds."""

    start: int
    stop: int
    times: int
    period: float


@dataclass(slots=True)
class Outcome:
    """Seconds of the run (the period of a steady schedule). Per task: seconds attributed to it; per engine and
    resource: seconds at full use, and seconds that tasks waited for it or ran slower because of it."""

    seconds: float
    executions: list[Execution] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)
    engine_busy: list[float] = field(default_factory=list)
    engine_waited: list[float] = field(default_factory=list)
    resource_busy: list[float] = field(default_factory=list)
    resource_waited: list[float] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)
