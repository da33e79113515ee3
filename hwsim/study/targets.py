"""The systems of a study made real: cards, system files, and devices named in the study itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from hwsim.card import Card
from hwsim.device import GROUP, Device, is_file, load_device
from hwsim.figures import Figure
from hwsim.registry import load_plugin
from hwsim.study.schema import DeviceChanges, DeviceEntry, SystemChanges, SystemDevices, SystemEntry
from hwsim.system import System, Topology
from hwsim.systemfile import is_system, load_file, load_system

Hardware: TypeAlias = Card | Topology
"""What a worker process makes a device of."""
Changes: TypeAlias = Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class Target:
    """A system of the study under the label that results carry; ``asked`` is how the study asks for it."""

    label: str
    hardware: Hardware
    asked: Mapping[str, Any]
    load: Callable[[Changes], Device] = field(repr=False, compare=False)

    @property
    def cards(self) -> Mapping[str, Card]:
        """The card of each device by its name, of a single one by no name."""
        return {"": self.hardware} if isinstance(self.hardware, Card) else self.hardware.cards

    @property
    def card(self) -> Card:
        """The card of the main device."""
        return next(iter(self.cards.values()))

    @property
    def figures(self) -> Mapping[str, Figure]:
        """All figures by dotted path, which `device` takes: those of cards, of several devices after their name, and
        those of links that are no card's."""
        found = {
            f"{name}.{path}" if name else path: figure
            for name, card in self.cards.items()
            for path, figure in card.figures.items()
        }
        if isinstance(self.hardware, Card):
            return found
        ports = {id(figure) for figure in found.values()}
        return found | {path: figure for path, figure in self.hardware.figures.items() if id(figure) not in ports}

    def device(self, changes: Changes | None = None) -> Device:
        """The system itself, with ``changes`` of figures beyond those of the study."""
        return self.load(changes or {})


def device_of(hardware: Hardware) -> Device:
    """The device of a card, or the system of several."""
    if isinstance(hardware, Card):
        return cast("Callable[[Card], Device]", load_plugin(GROUP, hardware.family))(hardware)
    return System(hardware, {name: device_of(card) for name, card in hardware.cards.items()})


def find_target(entry: SystemEntry, folder: Path) -> Target:
    """The system that ``entry`` of a study in ``folder`` asks for; raises `InputError`."""
    if isinstance(entry, SystemDevices):
        return _devices(entry, folder)
    if isinstance(entry, str) and is_system(_source(entry, folder)):
        return _file(_source(entry, folder))
    changes = dict(entry.set) if isinstance(entry, SystemChanges) else {}
    label = entry.label if isinstance(entry, SystemChanges) else None
    source = _source(entry if isinstance(entry, str) else entry.card, folder)

    def load(further: Changes) -> Device:
        return load_device(source, {**changes, **further})

    card = load({}).card
    listed = ",".join(f"{path}={value}" for path, value in changes.items())
    usual = f"{card.name}[{listed}]" if changes else card.name
    return Target(label or usual, card, {"card": source, "set": changes}, load)


def _file(source: str) -> Target:
    def load(further: Changes) -> Device:
        return load_file(source, changes=further)

    made = cast("System", load({}))
    return Target(made.name, made.topology, {"system": source}, load)


def _devices(entry: SystemDevices, folder: Path) -> Target:
    """The devices that the study names itself."""
    form = {name: _listed(given, folder) for name, given in (entry.model_extra or {}).items()}

    def load(further: Changes) -> Device:
        return load_system(_changed(form, further))

    made = cast("System", load({}))
    return Target(entry.label or made.name, made.topology, {"devices": form}, load)


def _listed(given: DeviceEntry | list[DeviceEntry], folder: Path) -> Any:
    """Devices as `load_system` takes them, each with its changes."""
    if isinstance(given, list):
        return [_listed(one, folder) for one in given]
    changes = dict(given.set) if isinstance(given, DeviceChanges) else {}
    return {"card": _source(given if isinstance(given, str) else given.card, folder), "set": changes}


def _changed(form: Mapping[str, Any], further: Changes) -> dict[str, Any]:
    """The form with figures changed, each named by its device and path."""

    def merged(name: str, given: Any) -> Any:
        if isinstance(given, list):
            return [merged(f"{name}{number}", one) for number, one in enumerate(given)]
        own = {path.partition(".")[2]: value for path, value in further.items() if path.partition(".")[0] == name}
        return {**given, "set": {**given["set"], **own}}

    return {name: merged(name, given) for name, given in form.items()}


def _source(name: str, folder: Path) -> str:
    return str(folder / name) if is_file(name) else name
