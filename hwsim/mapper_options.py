"""Options of a mapper: the fields of a frozen dataclass, which say what users may set and what is valid.

    @dataclass(frozen=True, slots=True)
    class OffloadOptions:
        resident: float = option(0.5, "share of the weights that stays in fast memory", high=1)
        chunk: float = option(32768.0, "bytes of one read", unit="B", low=512)
        evict: str = option("lru", "which expert leaves first", choices=("lru", "lfu"))

    @dataclass(frozen=True, slots=True)
    class Offload:
        name: ClassVar[str] = "offload"
        Options: ClassVar[type] = OffloadOptions
        options: OffloadOptions = field(default_factory=OffloadOptions)

A field is an int, float, str, bool, a tuple of these, or one of them or None. Inside the code quantities are SI floats;
users write them with their unit. What several fields must hold together is checked in ``__post_init__``, which raises
`InputError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from math import inf, isfinite
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hwsim.errors import InputError, PluginError, Problem, UnitError, nearest_name, shown
from hwsim.units import format_quantity, parse, parse_count

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Value: TypeAlias = "bool | int | float | str | tuple[Value, ...] | None"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``kind`` is the type of its value, or of each of the values of a list (``many``, of ``length`` if
    that is not None); limits are in the SI unit ``unit``."""

    name: str
    kind: type
    optional: bool
    many: bool
    length: int | None
    default: Value
    doc: str
    unit: str
    low: float
    high: float
    choices: tuple[str, ...]

    def read(self, given: object) -> Value:
        """The value that ``given`` stands for; raises `InputError`."""
        if given is None and self.optional:
            return None
        if not self.many:
            return self._single(given)
        if not isinstance(given, list | tuple) or self.length not in (None, len(given)):
            raise self._refused(given)
        return tuple(self._single(one) for one in given)

    def written(self, value: Value) -> str:
        """A value as users write it, exactly."""
        if isinstance(value, tuple):
            return f"[{', '.join(map(self.written, value))}]"
        if isinstance(value, float) and self.unit != "1":
            texts = [format_quantity(value, self.unit, digits) for digits in (4, 12)]
            exact = (text for text in texts if parse(text, self.unit, negative=True) == value)
            return next(exact, f"{value!r} {self.unit}")
        return f"{value:.15g}" if isinstance(value, float) else value if isinstance(value, str) else shown(value)

    def _single(self, given: object) -> Value:
        try:
            value = _READERS[self.kind](given, self.unit)
        except UnitError as error:
            raise InputError(*(replace(problem, path=self.name) for problem in error.problems)) from None
        except ValueError:
            raise self._refused(given) from None
        if self.choices and value not in self.choices:
            raise self._refused(given)
        if self.kind in (int, float) and isinstance(value, int | float) and not self.low <= value <= self.high:
            raise self._refused(given)
        return value

    def _refused(self, given: object) -> InputError:
        nearest = nearest_name(given, self.choices) if isinstance(given, str) else None
        return InputError(Problem(path=self.name, got=shown(given), expected=self.valid, nearest=nearest))

    @property
    def valid(self) -> str:
        """What a value must be, in words."""
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        what = f"one of {', '.join(self.choices)}" if self.choices else words[self.kind]
        if self.kind in (int, float):
            bounds = (("at least", self.low), ("at most", self.high))
            limits = [f"{word} {self.written(float(bound))}" for word, bound in bounds if isfinite(bound)]
            what = " of ".join(filter(None, (what, " and ".join(limits))))
        if self.many:
            what = f"a list of {what}" if self.length is None else f"a list of {self.length}, each {what}"
        return f"{what}, or null" if self.optional else what


def _flag(given: object, unit: str) -> bool:
    if not isinstance(given, bool):
        raise ValueError
    return given


def _text(given: object, unit: str) -> str:
    if not isinstance(given, str):
        raise ValueError
    return given


def _count(given: object, unit: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise ValueError
    return given if isinstance(given, int) else parse_count(given)


def _number(given: object, unit: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError
    return parse(given, unit, negative=True)


_READERS: Mapping[type, Callable[[object, str], bool | int | float | str]] = {
    bool: _flag,
    int: _count,
    float: _number,
    str: _text,
}


def option(
    default: T, doc: str, *, unit: str = "1", low: float = 0.0, high: float = inf, choices: tuple[str, ...] = ()
) -> T:
    """A field of an options class: its default, what it does, the SI unit and the limits of a number, valid texts."""
    facts = {"doc": doc, "unit": unit, "low": low, "high": high, "choices": choices}
    made: T = field(default=default, metadata=facts)
    return made


def options_of(kind: type) -> tuple[Option, ...]:
    """The options that the mapper class ``kind`` declares, none where it has no ``Options``."""
    declared: type | None = getattr(kind, "Options", None)
    return () if declared is None else _declared(declared)


@lru_cache(maxsize=64)
def _declared(declared: type) -> tuple[Option, ...]:
    if not is_dataclass(declared):
        raise PluginError(f"{declared.__qualname__}: the options of a mapper are a frozen dataclass")
    hints = get_type_hints(declared)
    found = []
    for one in fields(declared):
        kind, optional, many, length = _form(hints[one.name])
        if kind not in _READERS or "doc" not in one.metadata:
            raise PluginError(f"{declared.__qualname__}.{one.name}: an option is made by option(), of a plain type")
        default = cast("Value", one.default)
        found.append(Option(one.name, kind, optional, many, length, default, **one.metadata))
    return tuple(found)


def _form(hint: Any) -> tuple[type, bool, bool, int | None]:
    """Type of the value or of its elements, whether it may be None, whether it is a list, and of how many."""
    optional = False
    if get_origin(hint) in (Union, UnionType):
        rest = [part for part in get_args(hint) if part is not NoneType]
        hint, optional = (rest[0] if len(rest) == 1 else None), True
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        length = None if others == [Ellipsis] else 1 + len(others)
        return first, optional, True, length
    return hint, optional, False, None


def read_options(name: str, kind: type, given: Mapping[str, object]) -> DataclassInstance | None:
    """The options of the mapper ``name`` with ``given`` ones set; raises `InputError` with all that is wrong."""
    known = {one.name: one for one in options_of(kind)}
    values: dict[str, Value] = {}
    problems: list[Problem] = []
    for key, value in given.items():
        try:
            values[key] = _known(name, key, known).read(value)
        except InputError as error:
            problems += error.problems
    declared: type[DataclassInstance] | None = getattr(kind, "Options", None)
    try:
        if not problems:
            return None if declared is None else declared(**values)
    except InputError as error:
        problems += error.problems
    raise InputError(*(replace(p, message=": ".join(filter(None, (f"mapper '{name}'", p.message)))) for p in problems))


def _known(name: str, key: str, known: Mapping[str, Option]) -> Option:
    if not known:
        raise InputError(Problem(f"no option '{key}', nor any other", path=key))
    if key not in known:
        nearest = nearest_name(key, known)
        expected = "" if nearest else f"one of {', '.join(known)}"
        raise InputError(Problem(f"no option '{key}'", path=key, expected=expected, nearest=nearest))
    return known[key]


def label(name: str, options: DataclassInstance | None) -> str:
    """A mapper's name with the options that differ from their defaults in brackets, as results carry it."""
    if options is None:
        return name
    known = {one: getattr(options, one.name) for one in _declared(type(options))}
    changed = [f"{one.name}={one.written(value)}" for one, value in known.items() if value != one.default]
    return f"{name}[{','.join(changed)}]" if changed else name


def as_text(options: DataclassInstance | None) -> str:
    """All options as JSON in SI units, "" of a mapper without options."""
    return "" if options is None else json.dumps(asdict(options), ensure_ascii=False)
