"""Simulating the cases of a study, wherever that happens: in this process, in a worker, on another machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from hwsim.device import Device
from hwsim.errors import HwsimError
from hwsim.graph import Graph
from hwsim.mapper import Mapper, Policy
from hwsim.result import Result
from hwsim.simulation import MapperChoice, Simulation
from hwsim.study.cases import Case
from hwsim.study.files import Journal
from hwsim.study.tables import Outcome, columns_of
from hwsim.study.targets import Hardware, device_of

BATCH_S = 1.0  # a batch hands back what it has not begun after this long


@dataclass(frozen=True)
class Captured:
    """A model with its graphs at hand; ``errors`` says of phases why they have none."""

    name: str
    phases: tuple[str, ...]
    identity: str
    graphs: Mapping[str, Graph]
    errors: Mapping[str, str] = field(default_factory=dict)

    def capture(self, phase: str) -> Graph:
        """The graph of ``phase``."""
        return self.graphs[phase]

    @property
    def unmodelled(self) -> tuple[str, ...]:
        """Ops without a formula, of all graphs."""
        return tuple(sorted({name for graph in self.graphs.values() for name in graph.unmodelled}))

    def error(self, phase: str) -> str:
        """Why cases of ``phase`` cannot be simulated ("" where they can)."""
        return next((self.errors[part] for part in parts_of(phase) if part in self.errors), "")


def parts_of(phase: str) -> tuple[str, ...]:
    """The graphs that a phase is made of."""
    return ("prefill", "decode") if phase == "generate" else (phase,)


@dataclass(frozen=True)
class Batch:
    """Cases with the models and the hardware that they need, complete for another process."""

    cases: Sequence[Case]
    models: Mapping[int, Captured]
    hardware: Mapping[int, Hardware]

    def after(self, count: int) -> Batch:
        """The same without the first ``count`` cases."""
        return Batch(self.cases[count:], self.models, self.hardware)


def solve(batch: Batch) -> Iterator[Outcome]:
    """The outcomes of the cases in order; whatever goes wrong in one becomes its error."""
    device = cache(lambda target: device_of(batch.hardware[target]))
    mapper = cache(MapperChoice.make)
    for case in batch.cases:
        model = batch.models[case.model]
        try:
            error = model.error(case.workload.phase)
            yield Outcome(case.key, error) if error else _solved(case, model, device(case.target), mapper(case.mapper))
        except HwsimError as problem:
            yield Outcome(case.key, str(problem))
        except Exception as problem:  # the study goes on; the error names its type, as it is nobody's input
            yield Outcome(case.key, f"{type(problem).__name__}: {problem}")


def solve_some(batch: Batch) -> Iterator[Outcome]:
    """The outcomes of the first cases, for about a second."""
    until = monotonic() + BATCH_S
    for outcome in solve(batch):
        yield outcome
        if monotonic() > until:
            break


def solve_into(batch: Batch, journal: Path) -> tuple[int, int]:
    """Journal the outcomes of the first cases; returns how many there were and how many of these failed."""
    done = failed = 0
    writer = Journal(journal)
    try:
        for outcome in solve_some(batch):
            writer.append(outcome.record())
            done += 1
            failed += bool(outcome.error)
    finally:
        writer.close()
    return done, failed


def simulate(case: Case, model: Any, device: Device, mapper: Mapper) -> Result:
    """The result of one case, without the executions that only a timeline needs."""
    return Simulation(model, device, mapper, case.workload, Policy(case.spill), spans=False).run()


def _solved(case: Case, model: Captured, device: Device, mapper: Mapper) -> Outcome:
    result = simulate(case, model, device, mapper)
    rows = [row for part in result.phases for row in part.rows()]
    return Outcome(case.key, figures=_figures(result), kernels=columns_of(rows, 0.0))


def _figures(result: Result) -> dict[str, Any]:
    """The headline figures, and per memory the bytes moved, the bytes in use at the peak, and the room."""
    summary = result.summary()
    inputs = ("model", "device", "mapper", "mapper_options", "phase", "batch", "prompt", "generate", "dtype")
    figures = {name: value for name, value in summary.items() if name not in inputs}
    figures["unmodelled"] = ", ".join(result.unmodelled)
    for memory, nbytes in result.traffic.items():
        figures[f"{memory}_traffic_bytes"] = nbytes
    for memory, nbytes in result.peak_by_memory.items():
        figures[f"{memory}_peak_bytes"] = nbytes
    return figures
