"""How concurrent tasks share memories and links: max-min fairly in bytes per second, rank after rank."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.events.table import Task

FULL = 1e-12  # of a bandwidth: less is none
DONE = 1e-12  # of a task's seconds: one with less left has ended


def speeds(tasks: Sequence[Task], resources: int) -> tuple[list[float], list[int]]:
    """The speed of each task, and the resource that holds it below 1 (-1: none).

    Progressive filling: the byte rates of all tasks of a rank rise together, until a task reaches its speed alone or
    one of its resources is full; lower ranks take what is left.
    """
    speed = [1.0] * len(tasks)
    held = [-1] * len(tasks)
    left = [1.0] * resources
    for rank in sorted({task.rank for task in tasks if task.uses}):
        _fill(
            [number for number, task in enumerate(tasks) if task.uses and task.rank == rank], tasks, left, speed, held
        )
    return speed, held


def _fill(rising: list[int], tasks: Sequence[Task], left: list[float], speed: list[float], held: list[int]) -> None:
    """Fill one rank; ``left`` is the share of each resource that nobody uses."""
    level = 0.0  # B/s of every task that still rises
    while rising:
        load: dict[int, float] = {}  # share of each resource per B/s
        for number in rising:
            for resource, use in tasks[number].uses:
                load[resource] = load.get(resource, 0.0) + use / tasks[number].rate
        step = min(tasks[number].rate - level for number in rising)
        step = min(step, *(left[resource] / load[resource] for resource in load))
        level += step
        for resource in load:
            left[resource] -= step * load[resource]
            if left[resource] <= FULL:
                left[resource] = 0.0
        stays = []
        for number in rising:
            full = next((resource for resource, _ in tasks[number].uses if not left[resource]), -1)
            if level >= tasks[number].rate * (1 - FULL):
                speed[number] = 1.0
            elif full >= 0:
                speed[number], held[number] = level / tasks[number].rate, full
            else:
                stays.append(number)
        rising = stays
