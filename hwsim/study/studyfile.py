"""Reading a study file, with values changed from the command line (`--set workload.batch=8`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwsim.errors import InputError, Problem, StudyError, dotted
from hwsim.study.schema import StudyFile
from hwsim.yamlfile import Marks, load_yaml, validate

OPTION = "--set"  # where the problems of a value given on the command line stand


@dataclass(frozen=True)
class Study:
    """A valid study file with the places of its values. Relative paths in it start at ``folder``."""

    file: StudyFile
    path: str
    folder: Path
    marks: Marks
    settings: tuple[str, ...] = ()

    def located(self, error: InputError, *place: str | int) -> list[Problem]:
        """The problems of ``error`` put where the value stands that caused them; those with a file keep theirs."""
        outer = dotted(place)
        line, column = self.marks.where(place)
        moved = []
        for problem in error.problems:
            if problem.file is None:
                inner = f"{outer}.{problem.path}" if problem.path else outer
                problem = replace(problem, file=self.path, line=line, column=column, path=inner)
            moved.append(problem)
        return _from_options(moved, self.settings)


def read_study(path: Path, settings: Sequence[str] = ()) -> Study:
    """The study in ``path`` with ``settings`` such as ``workload.batch=8`` applied; raises `StudyError`."""
    try:
        data, marks = load_yaml(path)
    except InputError as error:
        raise StudyError(*error.problems) from None
    if not isinstance(data, dict):
        raise StudyError(Problem("a study is a mapping", str(path), 1, 1, expected="the keys study, models, systems"))
    changed = [_apply(data, setting) for setting in settings]
    try:
        file = validate(StudyFile, data, marks, str(path), StudyError)
    except StudyError as error:
        raise StudyError(*_from_options(error.problems, changed)) from None
    return Study(file, str(path), path.parent, marks, tuple(changed))


def study_from(data: Any, path: str, folder: Path) -> Study:
    """A study from resolved data, as `run.json` keeps it."""
    return Study(validate(StudyFile, data, Marks(), path, StudyError), path, folder, Marks())


def _apply(data: dict[Any, Any], setting: str) -> str:
    """Put one ``dotted.key=value`` into the data of a file; returns the part of the key that is new or changed.

    An entry of a list is ``systems.0`` or ``systems[0]``.
    """
    key, equals, text = setting.partition("=")
    parts = _parts(key.strip())
    if not equals or not all(parts):
        raise StudyError(Problem(file=OPTION, got=f"'{setting}'", expected="key=value, such as workload.batch=8"))
    try:
        value, _ = load_yaml(text)
    except InputError as error:
        raise StudyError(*(replace(problem, file=OPTION, path=key) for problem in error.problems)) from None
    place: Any = data
    for depth, part in enumerate(parts[:-1], start=1):
        if isinstance(place, dict) and place.get(part) is None:
            place[part] = _nested(parts[depth:], value)
            return ".".join(parts[:depth])
        place = _inside(place, part, key)
    _inside(place, parts[-1], key)
    place[_index(place, parts[-1], key) if isinstance(place, list) else parts[-1]] = value
    return ".".join(parts)


def _parts(path: str) -> list[str]:
    """The keys and indices of a path."""
    return re.sub(r"\[(\d+)\]", r".\1", path).split(".")


def _nested(parts: Sequence[str], value: object) -> object:
    """The value below mappings of one key each."""
    for part in reversed(parts):
        value = {part: value}
    return value


def _inside(place: Any, part: str, key: str) -> Any:
    """The value under ``part`` (None where a mapping has none)."""
    if isinstance(place, list):
        return place[_index(place, part, key)]
    if isinstance(place, dict):
        return place.get(part)
    message = f"'{part}' lies below a value that is neither a mapping nor a list"
    raise StudyError(Problem(message, OPTION, path=key))


def _index(place: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        message = f"'{part}' is no place in the list"
        raise StudyError(Problem(message, OPTION, path=key, expected=f"0 to {len(place) - 1}"))
    return int(part)


def _from_options(problems: Sequence[Problem], changed: Sequence[str]) -> list[Problem]:
    """Problems of values that the command line gave stand at the option, not in the file."""

    def given(path: str) -> bool:
        return any(".".join([*_parts(path), ""]).startswith(f"{key}.") for key in changed)

    return [replace(p, file=OPTION, line=None, column=None) if given(p.path) else p for p in problems]
