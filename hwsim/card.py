"""Cards: a device's datasheet as YAML, every figure with its source, units parsed once into SI floats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from hwsim.chips import Chips, ChipsFile, chips_of
from hwsim.errors import CardError, InputError, Problem, dotted, lookup, nearest_name
from hwsim.figures import MARKS as MARKS
from hwsim.figures import (
    Bytes,
    Count,
    FigureFile,
    Flops,
    Hertz,
    PerByte,
    PerFlop,
    Rate,
    Seconds,
    SourceFile,
    Strict,
    Watts,
)
from hwsim.figures import Figure as Figure
from hwsim.figures import Mark as Mark
from hwsim.units import parse
from hwsim.whatif import changed as changed
from hwsim.yamlfile import Marks, load_yaml, validate


class _ComputeFile(Strict):
    units: Count | None = None
    clock: Hertz | None = None
    matmul: dict[str, Flops] = Field(default_factory=dict)
    vector: dict[str, Flops] = Field(default_factory=dict)
    special: Flops | None = None


class _MemoryFile(Strict):
    name: str
    kind: Literal["cache", "scratchpad", "main", "storage"]
    capacity: Bytes
    bandwidth: Rate
    write_bandwidth: Rate | None = None
    latency: Seconds | None = None
    granularity: Bytes | None = None
    read_energy: PerByte | None = None
    write_energy: PerByte | None = None
    dram: ChipsFile | None = None


class _LinkFile(Strict):
    name: str
    to: Literal["host", "peer", "switch"]
    bandwidth: Rate
    latency: Seconds | None = None
    energy: PerByte | None = None


class _PowerFile(Strict):
    idle: Watts
    limit: Watts | None = None


class _EnergyFile(Strict):
    matmul: dict[str, PerFlop] = Field(default_factory=dict)
    vector: dict[str, PerFlop] = Field(default_factory=dict)


class CardFile(Strict):
    """The YAML form of a card; `hwsim schema card` prints its JSON Schema."""

    card: str
    title: str
    family: str
    drive: str | None = None
    generation: str | None = None
    first_form: bool = False
    released: int | None = None
    sources: dict[str, SourceFile]
    compute: _ComputeFile = _ComputeFile()
    memories: list[_MemoryFile] = Field(min_length=1)
    links: list[_LinkFile] = Field(default_factory=list)
    power: _PowerFile
    energy: _EnergyFile = _EnergyFile()
    parameters: dict[str, FigureFile] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """A level of memory, nearest to the compute units first in its card. Bytes, B/s, seconds, J/B."""

    name: str
    kind: str
    capacity: float
    bandwidth: float
    write_bandwidth: float
    latency: float = 0.0
    granularity: float = 1.0
    read_energy: float | None = None
    write_energy: float | None = None
    chips: Chips | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A connection to the host, a peer or a switch; ``bandwidth`` is one direction."""

    name: str
    to: str
    bandwidth: float
    latency: float = 0.0
    energy: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Bounds of measured over predicted that hold 90 % of the rows which a calibration did not see; ``origin``: whose
    rows told them, where they are not the card's own."""

    low: float
    high: float
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The calibration of a card: its name, whether it is the card's ``own`` or one of its generation, spreads by
    family of kernels, then by ``cold`` or ``warm`` (of whole models, by what sets their pace), and for each measurement
    file into how many parts it was divided to fit one."""

    name: str
    own: bool
    spreads: Mapping[str, Mapping[str, Spread]]
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What users should know; empty where the constants are the card's own."""
        if self.own:
            return ""
        return f"constants and intervals of {self.name}, a card of the same generation: this one is not calibrated"

    def spread(self, family: str, state: str) -> Spread | None:
        """The spread of a family in ``state``, else in any of its states, else of any family, with the origins of both
        its bounds; None without any."""
        found = self.spreads.get(family, {})
        if state in found:
            return found[state]
        told = [*found.values()] or [spread for states in self.spreads.values() for spread in states.values()]
        if not told:
            return None
        low, high = min(told, key=lambda one: one.low), max(told, key=lambda one: one.high)
        origins = dict.fromkeys(one.origin for one in (low, high) if one.origin)
        return Spread(low.low, high.high, ", ".join(origins))


@dataclass(frozen=True)
class Card:
    """A device's figures in SI units. ``figures`` holds each one's provenance under its dotted path.

    ``generation`` names the architecture where the family knows several, such as ``hopper``; ``drive`` the drive's card
    of the family ``storage``, where it is not of the card's own name.
    """

    name: str
    title: str
    family: str
    memories: tuple[Memory, ...]
    units: float
    clock: float
    matmul: Mapping[str, float]
    vector: Mapping[str, float]
    special: float
    idle: float
    limit: float
    figures: Mapping[str, Figure]
    links: tuple[Link, ...] = ()
    matmul_energy: Mapping[str, float] = field(default_factory=dict)
    vector_energy: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Figure] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    released: int | None = None
    first_form: bool = False
    generation: str | None = None
    drive: str | None = None
    calibration: Calibrated | None = None

    def memory(self, name: str) -> Memory:
        """The memory called ``name``."""
        return lookup("memory", name, {memory.name: memory for memory in self.memories})

    def link(self, to: str) -> Link | None:
        """The first link that leads ``to`` the host, a peer or a switch."""
        return next((link for link in self.links if link.to == to), None)

    @property
    def main(self) -> Memory:
        """The memory that holds a model: the nearest of kind main, else storage, else scratchpad."""
        for kind in ("main", "storage", "scratchpad"):
            for memory in self.memories:
                if memory.kind == kind:
                    return memory
        return self.memories[-1]

    @property
    def static_power(self) -> float:
        """Watts drawn while the device runs, whatever it does: parameters.active_static_power, else the idle power."""
        active = self.parameters.get("active_static_power")
        return self.idle if active is None else active.value

    def parameter(self, name: str, default: float | None = None) -> float:
        """The family's figure ``name`` in SI units; `CardError` where the card lacks it and there is no default."""
        figure = self.parameters.get(name)
        if figure is not None:
            return figure.value
        if default is None:
            raise CardError(f"card '{self.name}' of family '{self.family}' lacks the figure parameters.{name}")
        return default


def read_card(
    source: Path | Traversable | str,
    units_of: Callable[[str], Mapping[str, str]],
    changes: Mapping[str, object] | None = None,
) -> Card:
    """Read a card file (or its text); ``units_of(family)`` gives the SI units of its parameters.

    ``changes`` are what-if figures by dotted path, such as ``{"memories.hbm.bandwidth": "6 TB/s"}``; they are marked
    assumed, and another count or clock of units scales what follows from it (`hwsim.whatif`). Raises `CardError` naming
    file, line and field of everything that is wrong; what only a change makes wrong has no line in the file.
    """
    try:
        return _read(source, units_of, changes or {})
    except CardError as error:
        if not changes:
            raise
        _read(source, units_of, {})
        raise CardError(*(replace(one, file=None, line=None, column=None) for one in error.problems)) from None


def _read(
    source: Path | Traversable | str, units_of: Callable[[str], Mapping[str, str]], changes: Mapping[str, object]
) -> Card:
    where = "<text>" if isinstance(source, str) else str(source)
    try:
        data, marks = load_yaml(source)
    except InputError as error:
        raise CardError(*error.problems) from None
    if not isinstance(data, dict):
        raise CardError(Problem("a card is a mapping", where))
    place = Places(where, marks)
    file = validate(CardFile, changed(data, changes), marks, where, CardError)
    parameters = _parameters(file, units_of, place)
    check_figures(file, file.sources, place)
    _check_power(card := _card(file, parameters), place)
    beside = source.parent / file.drive if file.drive and isinstance(source, Path) else None
    return replace(card, drive=str(beside) if beside and beside.is_file() else file.drive)


@dataclass(frozen=True, slots=True)
class Places:
    """Makes problems that know where in the card's file they stand."""

    file: str
    marks: Marks

    def problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        line, column = self.marks.where(path)
        return Problem(message, self.file, line, column, dotted(path))


def _parameters(file: CardFile, units_of: Callable[[str], Mapping[str, str]], places: Places) -> dict[str, Figure]:
    try:
        known = units_of(file.family)
    except InputError as error:
        spot = places.problem(("family",), "")
        raise CardError(*(replace(spot, message=str(problem)) for problem in error.problems)) from None
    parameters: dict[str, Figure] = {}
    problems: list[Problem] = []
    for name, given in file.parameters.items():
        spot = places.problem(("parameters", name), f"family '{file.family}' has no such parameter")
        if name not in known:
            problems.append(replace(spot, nearest=nearest_name(name, known), expected=", ".join(known)))
            continue
        try:
            value = parse(given.value, known[name])
        except InputError as error:
            problems += [replace(spot, message=p.message, got=p.got, expected=p.expected) for p in error.problems]
            continue
        parameters[name] = Figure(value, known[name], given.mark, given.source, given.note)
    if problems:
        raise CardError(*problems)
    return parameters


def figures_in(value: object, path: str = "") -> Iterator[tuple[str, Figure]]:
    """All figures below a validated part of a card, by dotted path."""
    if isinstance(value, Figure):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from figures_in(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from figures_in(part, f"{path}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from figures_in(part, f"{path}.{part.name}")


def check_figures(file: BaseModel, sources: Collection[str], places: Places) -> None:
    """Every figure's source is among ``sources``, and what must be above zero is."""
    problems = []
    for path, figure in figures_in(file):
        spot = places.problem(tuple(path.split(".")), "")
        if figure.source not in sources:
            message = f"source '{figure.source}' is not among the card's sources"
            problems.append(replace(spot, message=message, nearest=nearest_name(figure.source, sources)))
        if figure.value == 0 and path.endswith(("bandwidth", "capacity", "clock", "units")):
            problems.append(replace(spot, message="must be above zero"))
    if problems:
        raise CardError(*problems)


def _check_power(card: Card, places: Places) -> None:
    """A device may draw more than it does at rest: work would take for ever."""
    if card.limit <= card.static_power:
        spot = places.problem(("power", "limit"), "leaves nothing for work")
        expected = f"more than the {card.static_power:g} W that are drawn whatever the device does"
        raise CardError(replace(spot, got=f"{card.limit:g} W", expected=expected))


def _card(file: CardFile, parameters: Mapping[str, Figure]) -> Card:
    compute = file.compute
    figures = dict(figures_in(file)) | {f"parameters.{name}": figure for name, figure in parameters.items()}
    return Card(
        name=file.card,
        title=file.title,
        family=file.family,
        memories=tuple(_memory(memory) for memory in file.memories),
        units=_value(compute.units, 1.0),
        clock=_value(compute.clock, 0.0),
        matmul=_values(compute.matmul),
        vector=_values(compute.vector),
        special=_value(compute.special, 0.0),
        idle=_value(file.power.idle, 0.0),
        limit=_value(file.power.limit, float("inf")),
        figures=figures,
        links=tuple(_link(link) for link in file.links),
        matmul_energy=_values(file.energy.matmul),
        vector_energy=_values(file.energy.vector),
        parameters=parameters,
        sources={key: source.title for key, source in file.sources.items()},
        released=file.released,
        first_form=file.first_form,
        generation=file.generation,
    )


def _memory(file: _MemoryFile) -> Memory:
    return Memory(
        name=file.name,
        kind=file.kind,
        capacity=_value(file.capacity, 0.0),
        bandwidth=_value(file.bandwidth, 0.0),
        write_bandwidth=_value(file.write_bandwidth, _value(file.bandwidth, 0.0)),
        latency=_value(file.latency, 0.0),
        granularity=_value(file.granularity, 1.0),
        read_energy=_optional(file.read_energy),
        write_energy=_optional(file.write_energy),
        chips=chips_of(file.dram),
    )


def _link(file: _LinkFile) -> Link:
    return Link(file.name, file.to, _value(file.bandwidth, 0.0), _value(file.latency, 0.0), _optional(file.energy))


def _optional(figure: object) -> float | None:
    return figure.value if isinstance(figure, Figure) else None


def _value(figure: object, default: float) -> float:
    return figure.value if isinstance(figure, Figure) else default


def _values(figures: Mapping[str, object]) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items() if isinstance(figure, Figure)}
