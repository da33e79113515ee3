"""Why a schedule does not advance: which step waits for which, and where that leads back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.errors import StalledError
from hwsim.events.table import NO_ENGINE, Table


@dataclass(frozen=True, slots=True)
class Head:
    """A task that its stream cannot get past, in iteration ``turn``."""

    task: int
    turn: int


def stalled(table: Table, heads: Sequence[Head], done: Sequence[int]) -> StalledError:
    """The error that follows the waits from the first blocked step until they come back, or lead no further."""
    by_stream = {table.tasks[head.task].stream: head for head in heads}
    path: list[Head] = []
    sentences: list[str] = []
    head = heads[0] if heads else None
    while head is not None and head not in path:
        path.append(head)
        blocker = _blocker(table, head, done)
        if blocker is None:
            sentences.append(_held(table, head))
            break
        sentences.append(f"{_named(table, head)} waits for {_step(table, blocker)}")
        stream = table.streams[table.tasks[blocker].stream]
        following = by_stream.get(table.tasks[blocker].stream)
        if following is None:
            sentences.append(f"stream '{stream}' has ended without it")
        elif following.task != blocker:
            sentences.append(f"{_step(table, blocker)} comes after {_named(table, following)} in stream '{stream}'")
        head = following
    return StalledError("the schedule does not advance: " + ("; ".join(sentences) or "no step is left"))


def _blocker(table: Table, head: Head, done: Sequence[int]) -> int | None:
    """The first task that a head waits for, if any."""
    for wait in table.tasks[head.task].waits:
        if done[wait.step] < table.needed(head.task, wait, head.turn):
            return wait.step
    return None


def _held(table: Table, head: Head) -> str:
    """What is said of a head all of whose waits have ended."""
    engine = table.tasks[head.task].engine
    if engine == NO_ENGINE:
        return f"{_named(table, head)} makes no progress"
    return f"{_named(table, head)} waits for engine '{table.engines[engine]}'"


def _named(table: Table, head: Head) -> str:
    return f"{_step(table, head.task)} (iteration {head.turn})"


def _step(table: Table, task: int) -> str:
    return f"step {table.tasks[task].step} '{table.tasks[task].name}'"
