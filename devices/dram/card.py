"""DRAM cards: a memory's organisation, timings and energies as YAML, every figure with its source.

A section names the mark and source of its figures once; a figure that differs brings its own:

    timing: {mark: paper, source: jesd79-4, tCK: 0.625 ns, tRCD: 22, tREFI: {value: 7.8 us, mark: assumed, source: me}}

Timings without a unit are clocks; those in seconds are rounded up to whole clocks, as memory controllers do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from hwsim.devices.dram.energy import CURRENTS, per_event
from hwsim.devices.dram.schema import ControllerFile, DramFile, OrganizationFile, Section, TimingFile
from hwsim.errors import CardError, InputError, Problem, UnknownNameError, nearest_name
from hwsim.figures import Figure, FigureFile
from hwsim.registry import data_files
from hwsim.units import parse
from hwsim.yamlfile import Marks, load_yaml, validate

SAME = {  # timings that are as another one where a card has no figure
    "tRCD_WR": "tRCD", "tCCD_L": "tCCD_S", "tCCD_S_WR": "tCCD_S", "tCCD_L_WR": "tCCD_L", "tRRD_L": "tRRD_S",
    "tWTR_L": "tWTR_S",
}  # fmt: skip
NONZERO = ("tBL", "tCCD_S", "tCL", "tRCD", "tRP", "tRAS")
NANOSECOND = 1e-9  # stands in for a clock that is wrong, so that the other timings are still checked
CARDS = "hwsim.devices.dram"
MAX_BANKS = 65_536
MAX_CLOCKS = 10**8  # of any timing: a tenth of a second at 1 GHz
COUNTS = ("channels", "pseudo_channels", "ranks", "stacks", "bank_groups", "banks", "rows", "columns", "burst_length")
TIMINGS = (
    "tCL", "tCWL", "tRCD", "tRP", "tRAS", "tCCD_S", "tRRD_S", "tFAW", "tWR", "tWTR_S", "tRTP", "tBL", "tRCD_WR", "tRC",
    "tCCD_L", "tCCD_S_WR", "tCCD_L_WR", "tCCD_R", "tRRD_L", "tWTR_L", "tRTW", "tCS", "tPPD", "tRFC", "tREFI", "tRFCpb",
    "tREFIpb", "tRREFD", "tWCKPST", "tAAD",
)  # fmt: skip
ENERGIES = {
    "VDD": "V", "IDD0": "A", "IDD2N": "A", "IDD3N": "A", "IDD4R": "A", "IDD4W": "A", "IDD5B": "A", "IDD5PB": "A",
    "bank_share": "1", "activate": "J", "read": "J/B", "write": "J/B", "refresh": "J", "refresh_bank": "J",
    "active": "W", "idle": "W", "io": "J/B",
}  # fmt: skip


@dataclass(frozen=True)
class Dram:
    """A DRAM card in SI units. ``clocks`` are timings in whole clocks of ``clock`` seconds; ``spans`` may be halves.

    ``organization`` counts what lies in one of the level above: channels, pseudo_channels, ranks, stacks, bank_groups,
    banks, rows and columns; ``width`` is bits of one pseudo-channel's data bus.
    """

    name: str
    title: str
    standard: str
    organization: Mapping[str, int]
    width: int
    devices: int
    clock: float
    clocks: Mapping[str, int]
    buses: int
    spans: Mapping[str, float]
    energies: Mapping[str, float]
    controller: ControllerFile
    figures: Mapping[str, Figure]
    sources: Mapping[str, str]

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst, the least that moves."""
        return self.width * self.organization["burst_length"] // 8

    @property
    def channel_bandwidth(self) -> float:
        """Bytes per second of the pins of one channel."""
        return self.organization["pseudo_channels"] * self.burst_bytes / (self.clocks["tBL"] * self.clock)

    @property
    def bandwidth(self) -> float:
        """Bytes per second of the pins of all channels."""
        return self.organization["channels"] * self.channel_bandwidth

    @property
    def row_bytes(self) -> int:
        """Bytes that one activation opens."""
        return self.organization["columns"] * self.width // 8

    @property
    def capacity(self) -> int:
        """Bytes of all channels."""
        counts = self.organization
        return math.prod(counts[name] for name in COUNTS[:7]) * self.row_bytes


def load_dram(name: str | Path) -> Dram:
    """The DRAM card that ships under a name, or the one in a file."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        return read_dram(path)
    shipped = data_files(CARDS, "cards")
    if str(name) not in shipped:
        raise UnknownNameError("DRAM card", str(name), shipped)
    return read_dram(shipped[str(name)])


def dram_names() -> tuple[str, ...]:
    """Names of the DRAM cards that ship."""
    return tuple(sorted(data_files(CARDS, "cards")))


class _Reader:
    """Turns a validated file into a card, gathering all problems."""

    def __init__(self, file: DramFile, where: str, marks: Marks) -> None:
        self.file, self.where, self.marks = file, where, marks
        self.problems: list[Problem] = []
        self.figures: dict[str, Figure] = {}

    def card(self) -> Dram:
        """The card, of use only where no problem was found."""
        organization = {name: self.count("organization", name) for name in COUNTS}
        width = self.bits("width", 0)
        clock = self.figure("timing", "tCK", "s", math.nan)
        if clock == 0:
            self.problem("timing.tCK", "must be above zero")
        clock = clock if clock > 0 else NANOSECOND
        file = self.file
        energies = {name: self.figure("energy", name, unit, math.nan) for name, unit in ENERGIES.items()}
        return Dram(
            name=file.dram,
            title=file.title,
            standard=file.standard,
            organization=organization,
            width=width,
            devices=max(width // (self.bits("device_width", width) or 1), 1),
            clock=clock,
            clocks=self.clocks(clock, organization["burst_length"]),
            buses=self.count("commands", "buses"),
            spans={name: self.figure("commands", name, "1", 1.0) for name in ("ACT", "PRE", "RD", "WR", "REF")},
            energies={name: value for name, value in energies.items() if not math.isnan(value)},
            controller=_with_queues(file.controller, organization["pseudo_channels"]),
            figures=self.figures,
            sources={key: source.title for key, source in file.sources.items()},
        )

    def problem(self, path: str, message: str, got: str = "", expected: str = "", nearest: str | None = None) -> None:
        """Note what is wrong with the figure at a dotted path."""
        line, column = self.marks.where(tuple(path.split(".")))
        self.problems.append(Problem(message, self.where, line, column, path, got, expected, nearest))

    def given(self, section: str, name: str) -> FigureFile | None:
        """A figure as it was written, with the mark and source of its section where it brings none."""
        part: Section | None = getattr(self.file, section)
        given = getattr(part, name, None)
        if part is None or given is None:
            return None
        figure = given if isinstance(given, FigureFile) else FigureFile(value=given, mark=part.mark, source=part.source)
        if figure.source not in self.file.sources:
            message = f"source '{figure.source}' is not among the card's sources"
            self.problem(f"{section}.{name}", message, nearest=nearest_name(figure.source, self.file.sources))
        return figure

    def figure(self, section: str, name: str, unit: str, default: float = 0.0) -> float:
        """A figure in ``unit``, kept with its source; ``default`` where there is none or it is wrong."""
        given = self.given(section, name)
        if given is None:
            return default
        try:
            value = parse(given.value, unit)
        except InputError as error:
            for one in error.problems:
                expected = "a number from 0" if unit == "1" else one.expected
                self.problem(f"{section}.{name}", one.message, one.got, expected)
            return default
        self.figures[f"{section}.{name}"] = Figure(value, unit, given.mark, given.source, given.note)
        return value

    def count(self, section: str, name: str) -> int:
        """A whole number from 1."""
        given = self.given(section, name)
        if given is None:
            return 1
        try:
            value = float(given.value)
        except ValueError:
            value = math.nan
        if not (value >= 1 and value.is_integer() and value < 2**40):
            self.problem(f"{section}.{name}", "must be a whole number from 1", got=str(given.value))
            return 1
        self.figures[f"{section}.{name}"] = Figure(value, "1", given.mark, given.source, given.note)
        return int(value)

    def bits(self, name: str, default: int) -> int:
        """A bus width, written as "64 bit" or as a plain number of bits."""
        given = self.given("organization", name)
        if given is None:
            return default
        plain = isinstance(given.value, int | float)
        value = given.value if plain else self.figure("organization", name, "B") * 8
        if isinstance(value, str) or not (value >= 1 and float(value).is_integer() and value <= 2**16):
            self.problem(f"organization.{name}", "must be whole bits from 1", got=str(given.value))
            return default
        self.figures[f"organization.{name}"] = Figure(value / 8, "B", given.mark, given.source, given.note)
        return int(value)

    def clocks(self, clock: float, burst_length: int) -> dict[str, int]:
        """All timings in clocks, those that follow from others filled in."""
        clocks = {name: value for name in TIMINGS if (value := self.timing(name, clock)) is not None}
        return filled(clocks, burst_length)

    def timing(self, name: str, clock: float) -> int | None:
        """One timing in whole clocks; plain numbers are clocks, times are rounded up."""
        given = self.given("timing", name)
        if given is None:
            return None
        path = f"timing.{name}"
        if isinstance(given.value, str):
            clocks = self.figure("timing", name, "s") / clock - 1e-6
        else:
            clocks = float(given.value)
            seconds = max(clocks, 0.0) * clock
            self.figures[path] = Figure(seconds, "s", given.mark, given.source, given.note or f"{clocks:g} clocks")
        if not 0 <= clocks + 1e-6 <= MAX_CLOCKS:
            self.problem(path, "must be a time of at most 10^8 clocks", got=str(given.value))
            return 0
        if name in NONZERO and clocks <= 0:
            self.problem(path, "must be above zero")
        return math.ceil(clocks - 1e-9)


def _with_queues(given: ControllerFile, pseudo_channels: int) -> ControllerFile:
    """A controller whose queues have their usual places for each pseudo-channel, where the card does not say."""
    usual = {name: getattr(given, name) * pseudo_channels for name in ("read_queue", "write_queue")}
    return given.model_copy(update={name: n for name, n in usual.items() if name not in given.model_fields_set})


def filled(clocks: Mapping[str, int], burst_length: int) -> dict[str, int]:
    """Timings with those that a card may leave out: equal to a neighbour, or what keeps two bursts apart."""
    known = dict(clocks)
    known.setdefault("tBL", max(burst_length // 2, 1))
    for name, like in SAME.items():
        known.setdefault(name, known.get(like, 0))
    known.setdefault("tRC", known["tRAS"] + known["tRP"])
    known.setdefault("tCS", 2)
    known.setdefault("tRTW", max(known["tCL"] + known["tBL"] + 2 - known["tCWL"], known["tBL"]))
    known.setdefault("tCCD_R", known["tBL"] + 1 if known["tCCD_S"] < known["tCCD_L"] else known["tCCD_S"])
    for name in ("tPPD", "tRFC", "tREFI", "tRFCpb", "tREFIpb", "tRREFD", "tWCKPST", "tAAD"):
        known.setdefault(name, 0)
    return known


def _check(card: Dram, reader: _Reader) -> None:
    """What single figures cannot tell."""
    clocks, counts = card.clocks, card.organization
    banks = math.prod(counts[name] for name in COUNTS[:6])
    if banks > MAX_BANKS:
        reader.problem("organization.banks", f"{banks} banks in all channels, at most {MAX_BANKS} can be simulated")
    if counts["columns"] < counts["burst_length"] or counts["columns"] % counts["burst_length"]:
        reader.problem("organization.columns", "must be a multiple of the burst length")
    if card.width * counts["burst_length"] % 8:
        reader.problem("organization.width", "a burst must be whole bytes")
    if clocks["tRFC"] and clocks["tREFI"] and clocks["tRFC"] >= clocks["tREFI"]:
        reader.problem("timing.tRFC", "a refresh must be shorter than the time between two")
    if card.buses > 2:
        reader.problem("commands.buses", "must be 1 or 2")
    for name, span in card.spans.items():
        if not (span * 2).is_integer() or not 0.5 <= span <= 16:
            reader.problem(f"commands.{name}", "must be clocks in halves from 0.5 to 16", got=f"{span:g}")


def _check_energy(card: Dram, reader: _Reader) -> None:
    """Currents must be enough to know every event's energy, and leave something beyond standby for each."""
    given = card.energies
    if not 0.0 <= given.get("bank_share", 1.0) <= 1.0:
        reader.problem("energy.bank_share", "must be from 0 to 1", got=f"{given['bank_share']:g}")
    missing = [name for name in CURRENTS if name not in given] if "VDD" in given else []
    for name in missing:
        reader.problem(f"energy.{name}", "missing key, which energies from VDD need")
    each = None if missing else per_event(card)
    if each is None:
        return
    used = {"activate": "IDD0", "read": "IDD4R", "write": "IDD4W", "refresh": "IDD5B", "refresh_bank": "IDD5PB"}
    for event, current in used.items():
        if each[event] < 0.0 or (event == "activate" and current in given and not each[event]):
            hint = "; with all banks open in IDD3N, give 'bank_share'" if event == "activate" else ""
            reader.problem(f"energy.{current}", f"nothing beyond standby is left for '{event}'{hint}")


def _others(data: Mapping[str | int, object], known: Sequence[Problem], where: str, marks: Marks) -> list[Problem]:
    """What is wrong with the figures of a card whose form is wrong too: found with the keys at fault replaced."""
    wrong = {tuple(problem.path.split(".")[:2]) for problem in known}
    mended = {str(key): value for key, value in data.items() if key in DramFile.model_fields}
    required: dict[str, type[Section]] = {"organization": OrganizationFile, "timing": TimingFile}
    for name in (*required, "commands", "energy"):
        section = mended.get(name)
        if isinstance(section, dict):
            mended[name] = {key: value for key, value in section.items() if (name, str(key)) not in wrong}
    for problem in known:
        name, _, key = problem.path.partition(".")
        section, model = mended.get(name), required.get(name)
        if model and isinstance(section, dict) and key in set(model.model_fields) - set(Section.model_fields):
            section[key] = "1 ns" if key == "tCK" else 1
    try:
        reader = _Reader(validate(DramFile, mended, marks, where, CardError), where, marks)
    except CardError:
        return []  # more than single keys are at fault
    reader.card()
    return [problem for problem in reader.problems if tuple(problem.path.split(".")[:2]) not in wrong]


def read_dram(source: Path | Traversable | str) -> Dram:
    """Read a DRAM card from a file or its text; `CardError` names everything that is wrong with its place."""
    where = "<text>" if isinstance(source, str) else str(source)
    try:
        data, marks = load_yaml(source)
    except InputError as error:
        raise CardError(*error.problems) from None
    if not isinstance(data, dict):
        raise CardError(Problem("a DRAM card is a mapping", where))
    try:
        reader = _Reader(validate(DramFile, data, marks, where, CardError), where, marks)
    except CardError as error:
        raise CardError(*error.problems, *_others(data, error.problems, where, marks)) from None
    card = reader.card()
    if not reader.problems:
        _check(card, reader)
        _check_energy(card, reader)
    if reader.problems:
        raise CardError(*reader.problems)
    return card
