"""From a study to its cases: every combination that it asks for, each with a key of all that decides its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from hwsim import __version__
from hwsim.capture import Model, find_model
from hwsim.device import GROUP
from hwsim.errors import InputError, Problem, StudyError, nearest_name
from hwsim.registry import plugins
from hwsim.simulation import MAPPERS, MapperChoice, choose_mapper
from hwsim.study.schema import (
    CaseFile,
    MapperEntry,
    ModelEntry,
    ModelSettings,
    OnnxFile,
)
from hwsim.study.studyfile import Study
from hwsim.study.targets import Target, find_target
from hwsim.workload import Workload
from hwsim.yamlfile import Place

Entry = TypeVar("Entry")
Found = TypeVar("Found")

AXES = ("phase", "dtype", "mapper", "batch", "prompt", "generate")  # of the matrix; the last one varies fastest
MAX_CASES = 1_000_000
ASIDE = ("commands", "frontends", "kernels", "models", "report", "studies")  # of hwsim, what simulates nothing


@dataclass(frozen=True, slots=True)
class Case:
    """One point of a study. ``model`` and ``target`` index those of the plan; ``number`` counts from 1."""

    number: int
    key: str
    model: int
    target: int
    mapper: MapperChoice
    workload: Workload
    spill: bool


@dataclass(frozen=True)
class Plan:
    """Everything that a study asks for. ``places`` are those of the models in the file; ``left_out`` counts cases in
    phases that their model does not have."""

    study: Study
    names: tuple[str, ...]
    models: tuple[Model, ...]
    places: tuple[Place, ...]
    targets: tuple[Target, ...]
    cases: tuple[Case, ...]
    left_out: int

    def inputs(self, case: Case) -> dict[str, Any]:
        """The inputs of a case as columns of the results."""
        target = self.targets[case.target]
        load = asdict(case.workload)
        return {
            "case": case.number,
            "key": case.key,
            "model": self.names[case.model],
            "device": target.label,
            "card": target.card.name,
            "mapper": case.mapper.label,
            "mapper_options": case.mapper.settings,
            **load,
            "spill": case.spill,
        }


@dataclass(frozen=True, slots=True)
class _Point:
    """A case before its key: positions of model and system, and the settings of the axes."""

    model: int
    target: int
    settings: tuple[Any, ...]


_Wanted: TypeAlias = tuple[int, tuple[Any, ...]]  # a model and the values of the axes


def expand(study: Study) -> Plan:
    """The plan of ``study``; raises `StudyError` with all models, systems and phases that are wrong."""
    _check_size(study)
    models, targets = _entries(study, "model", study.file.models), _entries(study, "system", study.file.systems)
    problems: list[Problem] = []
    found = _resolved(study, models, lambda entry: _model(entry, study.folder), problems)
    placed = _resolved(study, targets, lambda entry: find_target(entry, study.folder), problems)
    names, labels = [name for name, _ in found], [target.label for target in placed]
    problems += _repeated(study, models, names) if len(names) == len(models) else []
    problems += _repeated(study, targets, labels) if len(labels) == len(targets) else []
    baseline = study.file.baseline
    if not problems and baseline is not None and baseline not in labels:
        problem = Problem(f"no system is called '{baseline}'", nearest=nearest_name(baseline, labels))
        problems += study.located(InputError(problem), "baseline")
    if problems:
        raise StudyError(*problems)
    points = _Points(study, [model.phases for _, model in found])
    cases = _cases(points.all(), found, placed, study.file.spill)
    return Plan(
        study=study,
        names=tuple(names),
        models=tuple(model for _, model in found),
        places=tuple(place for place, _ in models),
        targets=tuple(placed),
        cases=tuple(cases),
        left_out=points.left_out,
    )


def _entries(study: Study, kind: str, listed: Sequence[Entry]) -> list[tuple[Place, Entry]]:
    """The models or systems of the study with their places, those that only an explicit case names last."""
    entries: list[tuple[Place, Entry]] = [((f"{kind}s", index), entry) for index, entry in enumerate(listed)]
    for index, extra in enumerate(study.file.cases):
        entry = getattr(extra, kind)
        if entry is not None and all(entry != other for _, other in entries):
            entries.append((("cases", index, kind), entry))
    return entries


def _resolved(
    study: Study, entries: Sequence[tuple[Place, Entry]], resolve: Callable[[Entry], Found], problems: list[Problem]
) -> list[Found]:
    """Every entry made real; what is wrong with one is added to ``problems`` at its place."""
    found = []
    for place, entry in entries:
        try:
            found.append(resolve(entry))
        except InputError as error:
            problems += study.located(error, *place)
    return found


def _model(entry: ModelEntry, folder: Path) -> tuple[str, Model]:
    """A model under the name that results carry."""
    if isinstance(entry, ModelSettings):
        settings = entry.model_extra or {}
        model = find_model(entry.name, settings)
        return model.name, model
    if isinstance(entry, OnnxFile):
        dims = {name: int(size) for name, size in entry.dims.items()}
        model = _checked(find_model(str(folder / entry.onnx), dims=dims))
        listed = ",".join(f"{name}={size}" for name, size in sorted(dims.items()))
        return f"{model.name}[{listed}]" if dims else model.name, model
    path = str(folder / entry) if entry.endswith(".onnx") else entry
    model = _checked(find_model(path))
    return model.name, model


def _checked(model: Model) -> Model:
    """The model if it is there: a missing file or module is found now rather than in the run."""
    assert model.phases
    model.identity  # noqa: B018
    return model


def _repeated(study: Study, entries: Sequence[tuple[Place, object]], names: Sequence[str]) -> Iterator[Problem]:
    """Names that stand twice: results could not be told apart."""
    for index, (place, _) in enumerate(entries):
        if names[index] in names[:index]:
            advice = "one of them with a label" if "system" in str(place) else ""
            problem = Problem(f"'{names[index]}' is listed twice", expected=advice)
            yield from study.located(InputError(problem), *place)


def _check_size(study: Study) -> None:
    file = study.file
    axes = [len(getattr(file.matrix, axis) or [0]) for axis in AXES]
    count = prod(axes) * len(file.models) * len(file.systems)
    if count > MAX_CASES:
        problem = Problem(got=f"{count} cases", expected=f"at most {MAX_CASES}")
        raise StudyError(*study.located(InputError(problem), "matrix"))


class _Points:
    """The points of a study in order, each once; ``phases`` are those that each model has."""

    def __init__(self, study: Study, phases: Sequence[tuple[str, ...]]) -> None:
        self.left_out = 0
        self._study = study
        self._phases = phases
        self._models = [entry for _, entry in _entries(study, "model", study.file.models)]
        self._systems = [entry for _, entry in _entries(study, "system", study.file.systems)]
        self._problems: list[Problem] = []

    def all(self) -> list[_Point]:
        """The matrix, then the explicit cases; a model that has none of the phases asked for is a `StudyError`."""
        points = dict.fromkeys([*self._matrix(), *self._explicit()])
        if self._problems:
            raise StudyError(*self._problems)
        return list(points)

    def _matrix(self) -> Iterator[_Point]:
        systems = range(len(self._study.file.systems))
        for model in range(len(self._study.file.models)):
            wanted = [(model, settings) for settings in _combinations(self._study, self._phases[model])]
            able = self._able(wanted, len(systems), "models", model)
            yield from (_Point(model, system, settings) for system in systems for _, settings in able)

    def _explicit(self) -> Iterator[_Point]:
        file = self._study.file
        for index, extra in enumerate(file.cases):
            models = [self._models.index(extra.model)] if extra.model else range(len(file.models))
            systems = [self._systems.index(extra.system)] if extra.system else range(len(file.systems))
            wanted = [(model, _settings(self._study, extra, self._phases[model])) for model in models]
            able = self._able(wanted, len(systems), "cases", index)
            yield from (_Point(model, system, settings) for model, settings in able for system in systems)

    def _able(self, wanted: Sequence[_Wanted], times: int, *place: str | int) -> list[_Wanted]:
        """Without those whose model lacks the phase, which are counted; it is a problem if none is left."""
        able = [(model, settings) for model, settings in wanted if settings[0] in self._phases[model]]
        self.left_out += (len(wanted) - len(able)) * times
        if not able:
            asked = ", ".join(dict.fromkeys(str(settings[0]) for _, settings in wanted))
            has = ", ".join(dict.fromkeys(phase for model, _ in wanted for phase in self._phases[model]))
            problem = Problem(f"the model has no phase {asked}", expected=f"one of: {has}")
            self._problems += self._study.located(InputError(problem), *place)
        return able


def _combinations(study: Study, phases: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """The product of the matrix, in the order of `AXES`; an axis that it lacks has the workload's value."""
    defaults = _defaults(study, phases)
    return product(*(_values(axis, getattr(study.file.matrix, axis)) or defaults[axis] for axis in AXES))


def _settings(study: Study, extra: CaseFile, phases: tuple[str, ...]) -> tuple[Any, ...]:
    defaults = _defaults(study, phases)
    return tuple((_values(axis, getattr(extra, axis)) or defaults[axis])[0] for axis in AXES)


def _defaults(study: Study, phases: tuple[str, ...]) -> dict[str, list[Any]]:
    load = study.file.workload
    usual = "decode" if "decode" in phases else "forward"
    given = {axis: getattr(load, axis) for axis in ("dtype", "batch", "prompt", "generate")}
    given |= {"phase": load.phase or usual, "mapper": study.file.mapper}
    return {axis: _values(axis, value) for axis, value in given.items()}


def _values(axis: str, given: Any) -> list[Any]:
    """What a file gives for an axis, one value or several; mappers with all their options, so that equals are seen."""
    values = given if isinstance(given, list) else [] if given is None else [given]
    return [_mapper(entry) for entry in values] if axis == "mapper" else values


def _mapper(entry: MapperEntry) -> MapperChoice:
    return choose_mapper(entry) if isinstance(entry, str) else choose_mapper(entry.name, entry.model_extra)


def _cases(
    points: Sequence[_Point], models: Sequence[tuple[str, Model]], targets: Sequence[Target], spill: bool
) -> Iterator[Case]:
    """Points with their keys, which hold all that decides the result and the names that it carries."""
    identities = [(name, model.identity) for name, model in models]
    cards = [(target.label, sha256(repr(target.hardware).encode()).hexdigest()) for target in targets]
    for number, point in enumerate(points, start=1):
        given = dict(zip(AXES, point.settings, strict=True))
        mapper = given.pop("mapper")
        workload = Workload(**given)
        families = dict.fromkeys(card.family for card in targets[point.target].cards.values())
        decisive = [
            identities[point.model],
            cards[point.target],
            (mapper.name, mapper.settings),
            asdict(workload),
            spill,
            software(),
            [_origin(GROUP, family) for family in families],
            _origin(MAPPERS, mapper.name),
        ]
        key = sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        yield Case(number, key, point.model, point.target, mapper, workload, spill)


@cache
def _origin(group: str, name: str) -> str:
    """The package and version that a plug-in comes from."""
    entry = plugins(group)[name]
    return f"{entry.value} {entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


@cache
def software() -> str:
    """A digest of the code and the calibrations that simulate; results of other code are not taken for cached."""
    digest = sha256(__version__.encode())
    for file in _simulating(files("hwsim")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _simulating(folder: Traversable) -> Iterator[Traversable]:
    """Code and calibrations below ``folder`` that results depend on; graphs have digests of their own."""
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir() and item.name not in ASIDE:
            yield from _simulating(item)
        elif item.name.endswith(".py") or (folder.name == "calibrations" and item.name.endswith(".yaml")):
            yield item
