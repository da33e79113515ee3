"""What a case would gain from a better card: every figure raised a little, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from hwsim.card import Figure
from hwsim.engine import Usage
from hwsim.errors import HwsimError, InputError
from hwsim.result import Result
from hwsim.study.cases import Case, Plan, expand
from hwsim.study.results import StudyResults
from hwsim.study.solve import simulate
from hwsim.study.studyfile import study_from
from hwsim.study.targets import Target


@dataclass(frozen=True, slots=True)
class Change:
    """The relative change of latency and energy when one figure is raised."""

    figure: str
    before: Figure
    latency: float
    energy: float


def plan_of(results: StudyResults) -> Plan:
    """The plan that a results folder came from, made again with today's models and cards."""
    record = results.record
    return expand(study_from(record["study"], str(record["file"]), Path(record["folder"])))


def sensitivities(plan: Plan, case: Case, raised: float) -> Iterator[Change]:
    """One change per figure of the case's cards and links that can be raised by the factor ``raised``."""
    target = plan.targets[case.target]
    base = _result(plan, case, target, {})
    for path, figure in target.figures.items():
        if not figure.value or not isfinite(figure.value):
            continue
        value = repr(figure.value * raised)
        try:
            result = _result(plan, case, target, {path: value if figure.unit == "1" else f"{value} {figure.unit}"})
        except HwsimError:
            continue  # a figure that the family does not let go that far
        yield Change(path, figure, result.latency / base.latency - 1, result.energy / base.energy - 1)


def usage_of(plan: Plan, case: Case) -> dict[str, Usage]:
    """What the devices, memories and links of the case's system did in all, where its steps overlap."""
    result = _result(plan, case, plan.targets[case.target], {})
    found: dict[str, Usage] = {}
    for part in result.phases:
        for use in part.timeline.usage:
            was = found.get(use.name, Usage(use.name, 0.0, 0.0, 0.0))
            added = (part.weight * figure for figure in (use.busy, use.nbytes, use.waited))
            figures = zip((was.busy, was.nbytes, was.waited), added, strict=True)
            found[use.name] = Usage(use.name, *(before + more for before, more in figures))
    return found


def find_case(plan: Plan, number: int) -> Case:
    """The case with this number."""
    for case in plan.cases:
        if case.number == number:
            return case
    raise InputError(f"the study has no case {number} any more")


def _result(plan: Plan, case: Case, target: Target, change: dict[str, str]) -> Result:
    return simulate(case, plan.models[case.model], target.device(change), case.mapper.make())
