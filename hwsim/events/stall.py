"""Why a schedule does not advance: which step waits for which, and where that leads back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.errors import StalledError
from hwsim.events.table import Table


@dataclass(frozen=True, slots=True)
class Head:
    """A task that its stream cannot get past, in iteration ``turn``."""

    task: int
    turn: int


def stalled(table: Table, heads: Sequence[Head], done: Sequence[int]) -> StalledError:
    """The error that follows the waits from the first blocked step until they come back."""
    by_stream = {table.tasks[head.task].stream: head for head in heads}
    path: list[Head] = []
    sentences: list[str] = []
    head = heads[0]
    while head not in path:
        path.append(head)
        blocker = next(
            (
                wait.step
                for wait in table.tasks[head.task].waits
                if done[wait.step] < table.needed(head.task, wait, head.turn)
            ),
            None,
        )
        if blocker is None:
            sentences.append(f"{_named(table, head)} waits for engine '{table.engines[table.tasks[head.task].engine]}'")
            break
        sentences.append(f"{_named(table, head)} waits for {_step(table, blocker)}")
        following = by_stream[table.tasks[blocker].stream]
        if following.task != blocker:
            stream = table.streams[table.tasks[blocker].stream]
            sentences.append(f"{_step(table, blocker)} comes after {_named(table, following)} in stream '{stream}'")
        head = following
    return StalledError("the schedule does not advance: " + "; ".join(sentences))


def _named(table: Table, head: Head) -> str:
    return f"{_step(table, head.task)} (iteration {head.turn})"


def _step(table: Table, task: int) -> str:
    return f"step {table.tasks[task].step} '{table.tasks[task].name}'"
