"""Everything that hwsim raises on purpose, in one tree. `exit_code` is what the command line returns.

    HwsimError                  2   anything below
    ├── InputError              2   what the user gave is wrong; one or several problems, also a ValueError
    │   ├── UnknownNameError    2   no such device, model, mapper, study...
    │   ├── UnitError           2   a quantity without a readable number or unit
    │   ├── CardError           2   a hardware card
    │   ├── SystemFileError     2   a system of devices
    │   ├── StudyError          2   a study file
    │   └── GraphError          2   a model that cannot become a graph
    │       └── UnsupportedOpError  2   an operation without a meaning here
    ├── PluginError             2   an entry point that does not load
    ├── DoesNotFitError         2   a tensor set larger than the memory that must hold it
    ├── StalledError            2   a simulation in which every step waits for another
    ├── CheckFailed             1   a check, claim or threshold failed
    └── PartialFailure          3   some cases of a study failed, the others are stored

An InputError carries all problems found in one go, so that a file is mended in one edit:

    study.yaml:4:51: devices[0].memory.bandwith: unknown key; did you mean 'bandwidth'?
    study.yaml:9:12: matrix.batch[1]: got 'x', expected a valid integer
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")

_SHOWN = 60  # characters of a value, and
_LISTED = 12  # names of a list, that an error message repeats


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input, and where. Lines and columns count from 1.

    `got` is the offending value as text (see `shown`), `expected` what would be valid, `nearest` the valid
    name that was probably meant, `path` the place inside the data (see `dotted`).
    """

    message: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: str = ""
    got: str = ""
    expected: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        place = [str(part) for part in (self.file, self.line, self.column) if part is not None]
        got = ", ".join(f"{word} {text}" for word, text in (("got", self.got), ("expected", self.expected)) if text)
        hint = f"did you mean '{self.nearest}'?" if self.nearest else ""
        body = "; ".join(part for part in (self.message, got, hint) if part)
        head = [":".join(place)] if place else []
        return ": ".join([*head, *([self.path] if self.path else []), body])


def shown(value: object) -> str:
    """A value as an error message repeats it: short, on one line, `null` for None."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def dotted(path: Iterable[str | int]) -> str:
    """A place inside data as its reader would write it: `memories[1].bandwidth`, entries of lists from 0."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, or None where none is close."""
    spellings = {candidate.casefold(): candidate for candidate in known}
    matches = get_close_matches(name.casefold(), spellings, n=1, cutoff=0.6)
    return spellings[matches[0]] if matches else None


class HwsimError(Exception):
    """Root of all errors that hwsim raises on purpose."""

    exit_code = 2

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process, whatever the signature of `__init__`."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[HwsimError], args: tuple[object, ...], state: dict[str, object]) -> HwsimError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InputError(HwsimError, ValueError):
    """The input is wrong: `problems` says what and where. A plain text makes a problem without a place."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem(p) if isinstance(p, str) else p for p in problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class UnknownNameError(InputError):
    """A name that nothing of its kind bears: `UnknownNameError("device", "h20", ["h200"])`."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = nearest_name(name, names)
        listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        expected = "" if nearest else f"one of: {listed}" if names else ""
        super().__init__(Problem(f"unknown {kind} {shown(name)}", expected=expected, nearest=nearest))


class UnitError(InputError):
    """A quantity that has no readable number or the wrong unit."""


class CardError(InputError):
    """A hardware card that is wrong or lacks a source."""


class SystemFileError(InputError):
    """A description of a system that is wrong: devices, links, figures without a source."""


class StudyError(InputError):
    """A study file that is wrong."""


class GraphError(InputError):
    """A model that cannot become a graph."""


class UnsupportedOpError(GraphError):
    """An operation that has no meaning in a graph."""


class PluginError(HwsimError):
    """An entry point that exists but does not load."""


class DoesNotFitError(HwsimError):
    """`what` needs more bytes than `where` (a memory) has left; sizes in bytes. ``advice``: what makes room."""

    def __init__(self, what: str, needed_bytes: float, available_bytes: float, where: str, advice: str = "") -> None:
        from hwsim.units import format_quantity  # units raises errors of this module

        self.what = what
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.where = where
        needed, available, short = (
            format_quantity(size, "B") for size in (needed_bytes, available_bytes, needed_bytes - available_bytes)
        )
        message = f"{what} does not fit in {where}: needs {needed}, has {available} ({short} short)"
        super().__init__(f"{message}; {advice}" if advice else message)


class StalledError(HwsimError):
    """A simulation that does not advance; the message says which step waits on which step or resource."""


class CheckFailed(HwsimError):
    """A check, claim or threshold failed."""

    exit_code = 1


class PartialFailure(HwsimError):
    """Some cases of a study failed; the results of the others are stored."""

    exit_code = 3


def lookup(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The entry called `name`, or an UnknownNameError with the nearest name."""
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]
