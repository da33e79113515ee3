"""Systems from YAML files, or from a few words: `{gpu: nvidia-a6000, storage: [inst-csd, inst-csd]}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Field, Tag

from hwsim.card import Card, Link
from hwsim.device import Device, is_file, load_device
from hwsim.errors import InputError, Problem, SystemFileError, dotted, lookup, nearest_name
from hwsim.figures import Figure, PerByte, Rate, Seconds, SourceFile, Strict
from hwsim.placement import HOST
from hwsim.registry import data_files
from hwsim.system import System, Topology, Wire, system_of, wire_of
from hwsim.whatif import changed
from hwsim.yamlfile import Marks, load_yaml, validate

FIGURES = ("bandwidth", "back", "latency", "energy")  # of a link
ROLES = ("gpu", "cpu", "npu", "rdu", "crossbar", "accelerator", "storage", "drive")
"""What devices are called that are named without a file; the `cpu` is the host, the others' names are only names."""
PEER = ("nvlink", "xgmi")  # links of a card that join two devices alike


class DeviceFile(Strict):
    """A device with figures of its card changed: `{card: inst-csd, set: {memories.nand.latency: 70 us}}`."""

    card: str
    set: dict[str, str | float] = Field(default_factory=dict)


class LinkFile(Strict):
    """A link between two devices or switches. ``card`` takes the figures of a device's own link, such as `gpu.pcie`;
    ``back`` is the bandwidth towards the first end where it differs."""

    name: str
    between: Annotated[list[str], Field(min_length=2, max_length=2)]
    card: str | None = None
    bandwidth: Rate | None = None
    back: Rate | None = None
    latency: Seconds | None = None
    energy: PerByte | None = None
    half_duplex: bool = False


def _device_form(given: object) -> str:
    return "name" if isinstance(given, str) else "changes"


Entry: TypeAlias = Annotated[
    Annotated[str, Tag("name")] | Annotated[DeviceFile, Tag("changes")], Discriminator(_device_form)
]


class SystemFile(Strict):
    """The YAML form of a system; `hwsim schema system` prints its JSON Schema. The first device is the main one."""

    system: str
    title: str = ""
    sources: dict[str, SourceFile] = Field(default_factory=dict)
    devices: Annotated[dict[str, Entry], Field(min_length=1)]
    switches: list[str] = Field(default_factory=list)
    links: list[LinkFile] = Field(default_factory=list)


Inline: TypeAlias = Mapping[str, object]


def load_system(source: str | Path | Inline, calibration: str | Path | None = "auto") -> System:
    """The system of a file (by path, or by name where it ships), of a card, or of an inline form.

    The inline form names devices by what they are (`ROLES`), the main one first, each a card, `{card: ..., set: {...}}`
    or a list of these: all hang on one host by their link to it, the `cpu` where there is one, and two alike are joined
    by their NVLink. Raises `SystemFileError` naming file, line and field of everything that is wrong.
    """
    if isinstance(source, Mapping):
        return _inline(source, calibration)
    if not is_system(source):
        return system_of(load_device(source, calibration=calibration))
    return load_file(source, calibration)


def load_file(
    source: str | Path, calibration: str | Path | None = "auto", changes: Mapping[str, str | float] | None = None
) -> System:
    """The system of a file with figures changed, by path: `links.uplink.bandwidth`, or a card's after the name of its
    device: `gpu.memories.hbm.bandwidth`."""
    found = shipped_systems().get(str(source), Path(source))
    data, marks = load_yaml(found)
    where = str(found)
    file = validate(SystemFile, data, marks, where, SystemFileError)
    if changes:
        file = validate(SystemFile, _changed(data, file, changes), marks, where, SystemFileError)
    return _Reader(file, marks, where, calibration).system()


def _changed(data: Any, file: SystemFile, changes: Mapping[str, str | float]) -> dict[Any, Any]:
    """The data of a system file with figures of its links and cards changed."""
    own: dict[str, str | float] = {}
    of_cards: dict[str, dict[str, str | float]] = {}
    for path, given in changes.items():
        name, _, rest = path.partition(".")
        if name in file.devices:
            of_cards.setdefault(name, {})[rest] = given
        else:
            own[path] = given
    devices = dict(data["devices"])
    for name, listed in of_cards.items():
        entry = {"card": devices[name]} if isinstance(devices[name], str) else devices[name]
        devices[name] = {**entry, "set": {**entry.get("set", {}), **listed}}
    return changed({**data, "devices": devices}, own)


def shipped_systems() -> Mapping[str, Traversable]:
    """The system files that ship, by name."""
    return data_files("hwsim.devices", "systems")


def is_system(source: str | Path) -> bool:
    """Whether a name or a file describes a system rather than a card."""
    if not is_file(source):
        return str(source) in shipped_systems()
    try:
        data, _ = load_yaml(Path(source))
    except InputError:
        return False
    return isinstance(data, dict) and "system" in data


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes a system of a file that is valid as far as its form goes."""

    file: SystemFile
    marks: Marks
    where: str
    calibration: str | Path | None

    def system(self) -> System:
        """The system; all that is wrong is raised at once."""
        problems: list[Problem] = []
        devices: dict[str, Device] = {}
        for name, entry in self.file.devices.items():
            try:
                devices[name] = _device(entry, Path(self.where).parent, self.calibration)
            except InputError as error:
                problems += [replace(self._problem(("devices", name), ""), message=str(p)) for p in error.problems]
        problems += self._names()
        problems += self._links(devices)
        if problems:
            raise SystemFileError(*problems)
        wires: list[Wire] = []
        figures: dict[str, Figure] = {}
        for link in self.file.links:
            given = _figures(link, devices)
            wires.append(_wire(link, given))
            figures |= {f"links.{link.name}.{what}": figure for what, figure in given.items()}
        self._check_joined(wires)
        cards = {name: device.card for name, device in devices.items()}
        sources = _sources(cards) | {key: source.title for key, source in self.file.sources.items()}
        return System(Topology(self.file.system, cards, tuple(wires), figures, self.file.title, sources), devices)

    def _problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        line, column = self.marks.where(path)
        return Problem(message, self.where, line, column, dotted(path))

    def _names(self) -> Iterator[Problem]:
        for name in self.file.devices:
            if "." in name or name == HOST:
                yield self._problem(("devices", name), f"a device is not called '{HOST}' and has no '.' in its name")
        for index, name in enumerate(self.file.switches):
            if name in self.file.devices or name in self.file.switches[:index]:
                yield self._problem(("switches", index), f"'{name}' is there already")

    def _links(self, devices: Mapping[str, Device]) -> Iterator[Problem]:
        nodes = [*self.file.devices, *self.file.switches, HOST]
        seen: dict[frozenset[str], str] = {}
        names: set[str] = set()
        for index, link in enumerate(self.file.links):
            place: tuple[str | int, ...] = ("links", index)
            lost = [end for end in link.between if end not in nodes]
            for end in lost:
                spot = self._problem((*place, "between"), f"a link to '{end}', which is no device and no switch")
                yield replace(spot, nearest=nearest_name(end, nodes), expected=", ".join(nodes))
            ends = frozenset(link.between)
            if len(ends) == 1:
                yield self._problem((*place, "between"), f"a link from '{link.between[0]}' to itself")
            elif ends in seen:
                other = f"link '{seen[ends]}' joins '{link.between[0]}' and '{link.between[1]}' already"
                yield self._problem((*place, "between"), f"{other}: give one link the bandwidth of both")
            if link.name in names:
                yield self._problem((*place, "name"), f"two links are called '{link.name}'")
            seen.setdefault(ends, link.name)
            names.add(link.name)
            yield from self._link_figures(place, link, devices)

    def _link_figures(
        self, place: tuple[str | int, ...], link: LinkFile, devices: Mapping[str, Device]
    ) -> Iterator[Problem]:
        found = _own_link(link.card, devices) if link.card is not None else None
        if link.card is not None and found is None:
            known = [f"{name}.{own.name}" for name, device in devices.items() for own in device.card.links]
            spot = self._problem((*place, "card"), f"no device has a link '{link.card}'")
            yield replace(spot, nearest=nearest_name(link.card, known), expected=", ".join(known))
        if found is not None and link.latency is None and "latency" not in card_figures(*found):
            yield self._problem((*place, "card"), f"the card has no latency of '{link.card}': the link needs its own")
        missing = [what for what in ("bandwidth", "latency", "energy") if getattr(link, what) is None]
        if link.card is None and missing:
            yield self._problem(place, f"a link needs {', '.join(missing)}, or the card that has it (card: gpu.pcie)")
        for what in FIGURES:
            figure = getattr(link, what)
            if figure is None:
                continue
            if what in ("bandwidth", "back") and figure.value == 0:
                yield self._problem((*place, what), "must be above zero: a link that is not there is left out")
            if figure.source not in self.file.sources:
                spot = self._problem((*place, what), f"source '{figure.source}' is not among the system's sources")
                yield replace(spot, nearest=nearest_name(figure.source, self.file.sources))

    def _check_joined(self, wires: list[Wire]) -> None:
        """Every device can be reached from the main one."""
        names = list(self.file.devices)
        reached, grown = {names[0]}, True
        while grown:
            found = {end for wire in wires for end in wire.ends if set(wire.ends) & reached}
            grown = not found <= reached
            reached |= found
        lost = [name for name in names if name not in reached]
        if lost:
            raise SystemFileError(
                *(self._problem(("devices", name), f"no link joins '{name}' to '{names[0]}'") for name in lost)
            )


def _device(entry: str | DeviceFile, folder: Path, calibration: str | Path | None) -> Device:
    card, changes = (entry, {}) if isinstance(entry, str) else (entry.card, entry.set)
    return load_device(folder / card if is_file(card) else card, changes, calibration)


def _own_link(name: str, devices: Mapping[str, Device]) -> tuple[Card, Link] | None:
    """The link of a card that ``device.link`` names."""
    device, _, link = name.partition(".")
    card = devices[device].card if device in devices else None
    return next(((card, own) for own in card.links if own.name == link), None) if card is not None else None


def _figures(link: LinkFile, devices: Mapping[str, Device]) -> dict[str, Figure]:
    """The figures of a link: its own, else those of the card that it names."""
    figures: dict[str, Figure] = {}
    found = _own_link(link.card, devices) if link.card is not None else None
    if found is not None:
        figures |= card_figures(*found)
    return figures | {what: getattr(link, what) for what in FIGURES if getattr(link, what) is not None}


def card_figures(card: Card, link: Link) -> dict[str, Figure]:
    """The figures of one link of a card with their provenance."""
    known = {what: card.figures.get(f"links.{link.name}.{what}") for what in FIGURES}
    return {what: figure for what, figure in known.items() if figure is not None}


def _wire(link: LinkFile, figures: Mapping[str, Figure]) -> Wire:
    value = {what: figure.value for what, figure in figures.items()}
    return Wire(
        link.name,
        (link.between[0], link.between[1]),
        value["bandwidth"],
        value.get("back", value["bandwidth"]),
        value["latency"],
        value.get("energy"),
        link.half_duplex,
        link.card or "",
    )


def _inline(form: Inline, calibration: str | Path | None) -> System:
    """The system of the inline form."""
    devices = {name: _device(entry, Path(), calibration) for name, entry in _named(form)}
    if not devices:
        raise SystemFileError("a system has at least one device, such as {gpu: nvidia-a6000, storage: [inst-csd]}")
    host = "cpu" if "cpu" in devices else HOST
    wires: list[Wire] = []
    figures: dict[str, Figure] = {}
    for name, device in devices.items():
        own = device.card.link(HOST)
        if name == host:
            continue
        if own is None:
            raise SystemFileError(f"card '{device.card.name}' has no link to the host: describe the system in a file")
        wires.append(_wire_of(name, host, device.card, own, figures))
    for first, second in _pairs(devices):
        own = next((link for link in devices[first].card.links if link.name in PEER), None)
        if own is not None:
            wires.append(_wire_of(first, second, devices[first].card, own, figures))
    cards = {name: device.card for name, device in devices.items()}
    return System(Topology(_label(form), cards, tuple(wires), figures, sources=_sources(cards)), devices)


def _sources(cards: Mapping[str, Card]) -> dict[str, str]:
    """The titles of all cards' sources."""
    return {key: title for card in cards.values() for key, title in card.sources.items()}


def _wire_of(name: str, end: str, card: Card, own: Link, figures: dict[str, Figure]) -> Wire:
    """A wire with the figures of a card's own link; their provenance goes into ``figures``."""
    wire = f"{name} {own.name}"
    known = card_figures(card, own)
    if "latency" not in known:
        raise SystemFileError(
            f"card '{card.name}' has no latency of its link '{own.name}': give the card one, or describe the system in "
            "a file, whose links have their own"
        )
    figures |= {f"links.{wire}.{what}": figure for what, figure in known.items()}
    return wire_of(card, own, wire, (name, end))


def _named(form: Inline) -> Iterator[tuple[str, str | DeviceFile]]:
    """Every device with its name: that of its key, numbered where there are several."""
    for key, given in form.items():
        lookup("kind of device", key, dict.fromkeys(ROLES))
        entries = given if isinstance(given, list) else [given]
        for number, entry in enumerate(entries):
            name = f"{key}{number}" if isinstance(given, list) else key
            if isinstance(entry, str):
                yield name, entry
            else:
                yield name, validate(DeviceFile, entry, Marks(), f"system {name}", SystemFileError)


def _pairs(devices: Mapping[str, Device]) -> list[tuple[str, str]]:
    """Two devices with the same card, if there are exactly two."""
    alike: dict[str, list[str]] = {}
    for name, device in devices.items():
        alike.setdefault(device.card.name, []).append(name)
    return [(names[0], names[1]) for names in alike.values() if len(names) == 2]


def _label(form: Inline) -> str:
    """A name of the cards: `nvidia-a6000+2x inst-csd`."""
    counts: dict[str, int] = {}
    for _, entry in _named(form):
        card = entry if isinstance(entry, str) else entry.card
        counts[card] = counts.get(card, 0) + 1
    return "+".join(f"{count}x {card}" if count > 1 else card for card, count in counts.items())
