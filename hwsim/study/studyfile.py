"""Reading a study file, with values changed from the command line (`--set workload.batch=8`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwsim.errors import InputError, Problem, StudyError
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
        dotted = ".".join(map(str, place))
        line, column = self.marks.where(place)
        moved = []
        for problem in error.problems:
            if problem.file is None:
                inner = f"{dotted}.{problem.path}" if problem.path else dotted
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
    """Put one ``dotted.key=value`` into the data of a file; returns the key."""
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise StudyError(Problem(file=OPTION, got=f"'{setting}'", expected="key=value, such as workload.batch=8"))
    try:
        value, _ = load_yaml(text)
    except InputError as error:
        raise StudyError(*(replace(problem, file=OPTION, path=key) for problem in error.problems)) from None
    place: Any = data
    for part in parts[:-1]:
        place = _step(place, part, key)
    if isinstance(place, list):
        place[_index(place, parts[-1], key)] = value
    elif isinstance(place, dict):
        place[parts[-1]] = value
    else:
        raise _no_such(key, parts[-1])
    return key.strip()


def _step(place: Any, part: str, key: str) -> Any:
    """The value under ``part``; a mapping that does not exist yet is made."""
    if isinstance(place, list):
        return place[_index(place, part, key)]
    if not isinstance(place, dict):
        raise _no_such(key, part)
    if place.get(part) is None:
        place[part] = {}
    return place[part]


def _index(place: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        message = f"'{part}' is no place in the list"
        raise StudyError(Problem(message, OPTION, path=key, expected=f"0 to {len(place) - 1}"))
    return int(part)


def _no_such(key: str, part: str) -> StudyError:
    return StudyError(Problem(f"'{part}' lies below a value that is neither a mapping nor a list", OPTION, path=key))


def _from_options(problems: Sequence[Problem], changed: Sequence[str]) -> list[Problem]:
    """Problems of values that the command line gave stand at the option, not in the file."""

    def given(path: str) -> bool:
        return any(path == key or path.startswith(f"{key}.") for key in changed)

    return [replace(p, file=OPTION, line=None, column=None) if given(p.path) else p for p in problems]
