"""Runs a study: what is stored already is not simulated again, and what fails does not stop the rest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from math import ceil
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from hwsim.errors import HwsimError, InputError, StudyError
from hwsim.graph import Graph
from hwsim.study.cases import Case, Plan, expand
from hwsim.study.pool import connect, run_cluster, run_here, run_processes
from hwsim.study.record import run_record
from hwsim.study.solve import Batch, Captured, parts_of, solve
from hwsim.study.store import CASES, KERNELS, Store, finished_keys
from hwsim.study.studyfile import read_study

if TYPE_CHECKING:
    import pandas as pd

FEW = 40  # fewer cases than these are not worth worker processes
LARGEST_BATCH = 64
BATCHES_PER_JOB = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: cases in all, of which cached, done in this run, and failed among these."""

    total: int
    cached: int = 0
    done: int = 0
    failed: int = 0
    doing: str = ""


Listener: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class StudyRun:
    """What a run left in its folder: cases with figures, failed ones, and how many were there before."""

    folder: Path
    ok: int
    failed: int
    cached: int
    left_out: int
    seconds: float

    def to_frame(self) -> pd.DataFrame:
        """One row per case."""
        import pandas as pd

        return pd.read_parquet(self.folder / CASES)

    def kernels(self) -> pd.DataFrame:
        """One row per kernel and phase of every case."""
        import pandas as pd

        return pd.read_parquet(self.folder / KERNELS)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: which cases are stored already, how long the others take, ops without a formula."""

    plan: Plan
    cached: frozenset[str]
    seconds: float
    unmodelled: dict[str, tuple[str, ...]]


def run_study(
    path: str | Path,
    out: str | Path | None = None,
    *,
    settings: Sequence[str] = (),
    jobs: int | None = None,
    cluster: str | None = None,
    force: bool = False,
    listener: Listener | None = None,
) -> StudyRun:
    """Simulate every case of the study in ``path`` into the folder ``out`` (default: out/<name of the study>).

    ``settings`` change the file (``workload.batch=8``). ``jobs`` worker processes, default one per CPU, or the dask
    ``cluster``. Cases that the folder holds are not simulated again unless ``force``. A case that fails is a row
    with an error. An interrupt stores what is done and is raised again; the same call resumes.
    """
    started, clock = datetime.now(UTC), monotonic()
    plan = expand(read_study(Path(path), settings))
    folder = folder_of(plan, out)
    workers = jobs or available_cpus()
    client = None if cluster is None else connect(cluster)
    with Store(folder) as store:
        if force:
            store.start_anew()
        todo = _missing(plan, set() if force else finished_keys(folder))
        tally = _Tally(len(plan.cases), len(plan.cases) - len(todo), listener)
        models = _capture(plan, todo, tally)
        batches = _batches(todo, models, plan, workers)
        try:
            if client is not None:
                run_cluster(batches, folder, tally.add, client)
            elif workers == 1 or len(todo) < FEW:
                run_here(batches, folder, tally.add)
            else:
                run_processes(batches, folder, tally.add, workers)
        finally:
            stored = store.compact(plan)
            seconds = monotonic() - clock
            store.write_run(run_record(plan, stored, tally.cached, started, seconds))
    return StudyRun(folder, stored.ok, stored.failed, tally.cached, plan.left_out, seconds)


def preview_study(
    path: str | Path, out: str | Path | None = None, *, settings: Sequence[str] = (), jobs: int | None = None
) -> Preview:
    """What `run_study` would do; one case is simulated to estimate the time, nothing is stored."""
    plan = expand(read_study(Path(path), settings))
    finished = finished_keys(folder_of(plan, out))
    todo = _missing(plan, finished)
    models = _capture(plan, todo, _Tally(len(plan.cases), len(plan.cases) - len(todo), None))
    clock = monotonic()
    for batch in _batches(todo[:1], models, plan, 1):
        deque(solve(batch), maxlen=0)
    seconds = (monotonic() - clock) * len(todo) / (jobs or available_cpus())
    unmodelled = {model.name: model.unmodelled for model in models.values() if model.unmodelled}
    return Preview(plan, frozenset(finished), seconds, unmodelled)


def folder_of(plan: Plan, out: str | Path | None) -> Path:
    """Where the results of a plan go: ``out``, else out/<name of the study>."""
    return Path(out) if out is not None else Path("out") / plan.study.file.study


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Tally:
    """Counts cases and tells the listener."""

    def __init__(self, total: int, cached: int, listener: Listener | None) -> None:
        self.cached = cached
        self._progress = Progress(total, cached)
        self._listener = listener

    def add(self, done: int, failed: int) -> None:
        """Count cases that ended."""
        now = self._progress
        self._tell(replace(now, done=now.done + done, failed=now.failed + failed, doing=""))

    def doing(self, what: str) -> None:
        """Say what is going on before the first case."""
        self._tell(replace(self._progress, doing=what))

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        if self._listener is not None:
            self._listener(progress)


def _missing(plan: Plan, finished: Collection[str]) -> list[Case]:
    return [case for case in plan.cases if case.key not in finished]


def _capture(plan: Plan, todo: Sequence[Case], tally: _Tally) -> dict[int, Captured]:
    """The models of the cases to do, captured once; a wrong setting of a model's config is a `StudyError`."""
    needed: dict[int, dict[str, None]] = {}
    for case in todo:
        needed.setdefault(case.model, {}).update(dict.fromkeys(parts_of(case.workload.phase)))
    captured: dict[int, Captured] = {}
    problems = []
    for index, phases in needed.items():
        model, name = plan.models[index], plan.names[index]
        graphs: dict[str, Graph] = {}
        errors: dict[str, str] = {}
        for phase in phases:
            tally.doing(f"capturing {name} {phase}")
            try:
                graphs[phase] = model.capture(phase)
            except HwsimError as error:
                if type(error) is InputError:  # not the graph's fault: what the study says of the model
                    problems += plan.study.located(error, *plan.places[index])
                    break
                errors[phase] = str(error)
        captured[index] = Captured(name, model.phases, model.identity, graphs, errors)
    if problems:
        raise StudyError(*problems)
    return captured


def _batches(todo: Sequence[Case], models: dict[int, Captured], plan: Plan, jobs: int) -> list[Batch]:
    """The cases in order, a few of one model together."""
    size = max(1, min(LARGEST_BATCH, ceil(len(todo) / (jobs * BATCHES_PER_JOB))))
    batches = []
    for index, group in groupby(todo, key=lambda case: case.model):
        cases = list(group)
        for start in range(0, len(cases), size):
            part = cases[start : start + size]
            hardware = {case.target: plan.targets[case.target].hardware for case in part}
            batches.append(Batch(part, {index: models[index]}, hardware))
    return batches
