"""Conformance of schedules with transfers: every byte has a way, what is read is there, nothing waits in a circle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite

from hwsim.engine import run
from hwsim.errors import HwsimError
from hwsim.graph import Graph, Role
from hwsim.mapper import Kernel, Placement, Schedule, Step, Transfer
from hwsim.system import System

KEPT = {Role.WEIGHT: "weights", Role.BUFFER: "weights", Role.STATE: "states"}
"""What lies somewhere before the run, weights and buffers together."""


def transfer_problems(graph: Graph, schedule: Schedule, system: System) -> Iterator[str]:
    """Transfers between memories that no links join, of no bytes; reads of memories where nothing of the kind lies or
    comes; waits that never end."""
    lost = False
    for step in schedule.transfers:
        if not (isfinite(step.nbytes) and step.nbytes >= 0):
            yield f"transfer '{step.name}' moves {step.nbytes} B"
        try:
            system.transfer(step)
        except HwsimError as error:
            lost = True
            yield f"transfer '{step.name}' from '{step.source}' to '{step.target}': {error}"
    if lost:
        return
    yield from _absent(graph, schedule, system)
    try:
        run(schedule, system, spans=False)
    except HwsimError as error:
        yield f"does not run: {error}"


def _absent(graph: Graph, schedule: Schedule, system: System) -> Iterator[str]:
    """Weights and states that a step reads where none are placed, written or brought."""
    held = set(_placed(graph, schedule.placement, system))
    grown = True
    while grown:
        found = {
            (place, kind)
            for step in schedule.steps
            for place, kind in _written(step, system)
            if isinstance(step, Kernel) or (_name(system, step.source), kind) in held
        }
        grown = not found <= held
        held |= found
    for step in schedule.steps:
        for place, kind in sorted(set(_read(step, system)) - held):
            yield f"'{step.name}' reads {kind} in {place}, where none are placed, written or brought"


def _placed(graph: Graph, placement: Placement, system: System) -> Iterator[tuple[str, str]]:
    for name in graph.structure.residents:
        role = graph.tensors[name].role
        for memory, share in placement.of(name).items():
            if share > 0:
                yield _name(system, memory), KEPT[role]


def _read(step: Step, system: System) -> Iterator[tuple[str, str]]:
    """Where a step reads which kind of what is kept."""
    if isinstance(step, Transfer):
        moved: Iterable[tuple[str, Role]] = [(step.source, step.role)] if step.nbytes else []
    else:
        moved = [(_full(step, flow.memory), flow.role) for flow in step.flows if not flow.write and flow.nbytes]
    yield from ((_name(system, memory), KEPT[role]) for memory, role in moved if role in KEPT)


def _written(step: Step, system: System) -> Iterator[tuple[str, str]]:
    """Where a step writes which kind of what is kept."""
    if isinstance(step, Transfer):
        moved: Iterable[tuple[str, Role]] = [(step.target, step.role)]
    else:
        moved = [(_full(step, flow.memory), flow.role) for flow in step.flows if flow.write]
    yield from ((_name(system, memory), KEPT[role]) for memory, role in moved if role in KEPT)


def _full(kernel: Kernel, memory: str) -> str:
    return f"{kernel.device}.{memory}" if kernel.device else memory


def _name(system: System, memory: str) -> str:
    """The one name of a memory; what no device has keeps its own."""
    try:
        return system.place(memory).name
    except HwsimError:
        return memory
