"""Cases that claims simulate: each is a study of one case, and a measure of its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwsim.errors import InputError, UnknownNameError, lookup
from hwsim.result import PhaseResult, Result
from hwsim.study.cases import expand
from hwsim.study.schema import CaseFile
from hwsim.study.solve import simulate
from hwsim.study.studyfile import study_from

_WORKLOAD = ("phase", "batch", "prompt", "generate", "dtype")


class ClaimCase(CaseFile):
    """A case as a study has it, with ``spill``; of a second case only the keys that differ from the first."""

    spill: bool = False

    def changed(self, other: ClaimCase) -> ClaimCase:
        """This case with what ``other`` says instead."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})


def run_case(case: ClaimCase) -> Result:
    """The result of ``case``; raises what a study of it would."""
    return _run(case.model_dump_json(exclude_none=True))


@lru_cache(maxsize=32)
def _run(text: str) -> Result:
    """The result of a case given as JSON: figures of one claim often share their cases."""
    given = json.loads(text)
    data = {name: value for name, value in given.items() if name in ("mapper", "spill")}
    data |= {"study": "claim", "models": [given.get("model")], "systems": [given.get("system")]}
    data["workload"] = {name: given[name] for name in _WORKLOAD if name in given}
    plan = expand(study_from(data, "the case of a claim", Path()))
    (case,) = plan.cases
    return simulate(case, plan.models[case.model], plan.targets[case.target].device(), case.mapper.make())


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a result in an SI ``unit``: of the ``whole``, or of the part that is named after a dot."""

    unit: str
    whole: Callable[[Result], float]
    part: Callable[[Result, str], float] | None = None


def _throughput(result: Result) -> float:
    if result.tokens_per_second is None:
        raise InputError(f"the phase {result.workload.phase} makes no tokens")
    return result.tokens_per_second


def _of_phase(figure: Callable[[PhaseResult], float]) -> Callable[[Result, str], float]:
    """A figure summed over the parts of one phase: prefill or decode of a generation."""

    def of(result: Result, phase: str) -> float:
        parts = [part for part in result.phases if part.phase == phase]
        if not parts:
            raise UnknownNameError("phase", phase, {part.phase for part in result.phases})
        return sum(part.weight * figure(part) for part in parts)

    return of


def _rows_of(result: Result, name: str) -> list[dict[str, Any]]:
    """The rows of the steps of one kind, or below one module."""
    rows = (row for part in result.phases for row in part.rows())
    return [row for row in rows if name in (row["kind"], row["path"]) or row["path"].startswith(f"{name}.")]


def _seconds(result: Result, name: str) -> float:
    found = _rows_of(result, name)
    if not found:
        raise UnknownNameError("kind of step or module", name, _kinds(result))
    return float(sum(row["seconds"] for row in found))


def _busy(result: Result, name: str) -> float:
    """Seconds of full use of a resource, or of steps as if each ran alone."""
    uses = [(part.weight, use) for part in result.phases for use in part.timeline.usage]
    found = [weight * use.busy for weight, use in uses if use.name == name]
    found += [row["busy_seconds"] for row in _rows_of(result, name)]
    if not found:
        raise UnknownNameError("resource, kind of step or module", name, _kinds(result) | {use.name for _, use in uses})
    return float(sum(found))


def _kinds(result: Result) -> set[str]:
    return {row["kind"] for part in result.phases for row in part.rows()}


MEASURES: Mapping[str, Measure] = {
    "latency": Measure("s", lambda result: result.latency, _of_phase(lambda part: part.seconds)),
    "seconds": Measure("s", lambda result: result.latency, _seconds),
    "busy": Measure("s", lambda result: sum(row["busy_seconds"] for p in result.phases for row in p.rows()), _busy),
    "throughput": Measure("1/s", _throughput),
    "energy": Measure("J", lambda result: result.energy),
    "flops": Measure("FLOP", lambda result: result.flops),
    "bytes": Measure(
        "B", lambda result: sum(result.traffic.values()), lambda result, name: lookup("memory", name, result.traffic)
    ),
    "peak_memory": Measure(
        "B",
        lambda result: result.peak_memory,
        lambda result, name: lookup("memory", name, result.peak_by_memory),
    ),
}
"""`latency.decode`, `seconds.attention` and `seconds.layers.1.mlp`, `bytes.hbm`, `peak_memory.hbm` are parts."""


def find_measure(name: str) -> Measure:
    """The measure called ``name``, whatever part it names; `UnknownNameError` with the nearest."""
    head, _, part = name.partition(".")
    found = lookup("measure", head, MEASURES)
    if part and found.part is None:
        raise InputError(f"the measure '{head}' has no parts; got '{name}'")
    return found


def measured(result: Result, name: str) -> float:
    """The measure called ``name`` of ``result``."""
    found = find_measure(name)
    _, _, part = name.partition(".")
    return found.part(result, part) if part and found.part is not None else found.whole(result)
