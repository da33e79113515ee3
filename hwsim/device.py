"""What a device is to the rest of hwsim, and how to get one from a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import ClassVar, Protocol, cast, runtime_checkable

from hwsim.calibration import calibrated, find_calibration, read_calibration
from hwsim.card import Card, read_card
from hwsim.cost import Cost
from hwsim.errors import UnknownNameError
from hwsim.mapper import Flow, Kernel
from hwsim.registry import data_files, load_plugin, plugins

GROUP = "hwsim.devices"
CARD_GROUP = "hwsim.cards"
OUTLINE_GROUP = "hwsim.outlines"


@dataclass(frozen=True, slots=True)
class Tags:
    """What a device can do. ``graph_launch``: recorded kernels replay without the host."""

    graph_launch: bool = False


class Device(Protocol):
    """A family of devices made real by a card. ``parameters`` names the family's own figures and their SI units."""

    parameters: ClassVar[Mapping[str, str]]
    card: Card

    def __init__(self, card: Card) -> None: ...

    @property
    def tags(self) -> Tags:
        """What the device can do."""
        ...

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` run alone, from the figures of the card; never less than their roofline."""
        ...

    def host_seconds(self, kernel: Kernel) -> float:
        """The host's time to issue ``kernel`` (0 where the device needs no host)."""
        ...


@runtime_checkable
class Batched(Protocol):
    """A device that estimates many kernels at once faster than one by one."""

    def estimate_all(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """What ``estimate`` gives for each of ``kernels``."""
        ...


def estimate_all(device: Device, kernels: Sequence[Kernel]) -> list[Cost]:
    """The costs of ``kernels``, each run alone: at once where the device can, else one by one."""
    if isinstance(device, Batched):
        return device.estimate_all(kernels)
    return [device.estimate(kernel) for kernel in kernels]


@runtime_checkable
class Paced(Protocol):
    """A device whose kernels take another time together than alone, as they share its power."""

    def estimate_run(self, kernels: Sequence[Kernel], counts: Sequence[float]) -> list[Cost]:
        """The costs of ``kernels`` that run so many times each, one after the other."""
        ...


def estimate_run(device: Device, kernels: Sequence[Kernel], counts: Sequence[float]) -> list[Cost]:
    """The costs of ``kernels`` in a run of ``counts`` of each: alone, unless they depend on each other."""
    return device.estimate_run(kernels, counts) if isinstance(device, Paced) else estimate_all(device, kernels)


@runtime_checkable
class Serving(Protocol):
    """A device that knows more of its memories than their bandwidth, as a drive does of its flash."""

    def serve(self, flow: Flow) -> Cost:
        """What it takes to read or write the bytes of ``flow`` for others: seconds alone without the latency of the
        first byte, ``busy`` seconds of the memory's whole bandwidth, bytes in ``traffic``, joules."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A device on which a benchmark's kernels take another time than in a long run, as caches and clocks differ."""

    def timed(self, replay: Replay | None) -> Device:
        """The device as seen by one launch on empty caches, or by a kernel replayed back to back."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """How a benchmark repeats a kernel: ``copies`` of the weights take turns, of ``all_operands`` where it says so."""

    copies: int = 1
    all_operands: bool = False


def timed(device: Device, replay: Replay | None) -> Device:
    """``device`` as a benchmark sees it: with ``replay``, kernels follow each other and find in the caches what fits;
    without, each is launched once on empty ones. A device that does not tell such cases apart is returned as it is."""
    return device.timed(replay) if isinstance(device, Timed) else device


def load_device(
    name: str | Path, changes: Mapping[str, object] | None = None, calibration: str | Path | None = "auto"
) -> Device:
    """The device of a shipped card (by name), of a card file (by path), or of a card made on the spot (``cpu-local``).

    ``changes`` are what-if figures by dotted path: ``{"memories.hbm.bandwidth": "6 TB/s"}``. ``calibration`` is a file
    of fitted constants; "auto" takes what ships for this card or its generation, None takes the card's own figures.
    """
    card = read_card(_card_source(name), lambda family: _family(family).parameters, changes)
    found = find_calibration(card) if calibration == "auto" else calibration
    if found is not None:
        known = read_calibration(Path(found)) if isinstance(found, str | Path) else found
        card = calibrated(card, known, changes, getattr(_family(card.family), "constants", None))
    return _family(card.family)(card)


def plain_roofline(card: Card) -> Device:
    """The card's peaks and nothing else, whatever its family: what a roofline plot would say."""
    return _family("roofline")(card)


def _family(name: str) -> type[Device]:
    return cast("type[Device]", load_plugin(GROUP, name))


def card_names() -> tuple[str, ...]:
    """Names of the shipped cards and of those made on the spot."""
    return tuple(sorted({*data_files("hwsim.devices", "cards"), *plugins(CARD_GROUP)}))


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a card that is measured on first use before it is; ``seconds``: how long that takes."""

    title: str
    family: str
    seconds: float

    @property
    def note(self) -> str:
        """What there is to say instead of figures."""
        return f"not measured yet: the first estimate measures this machine, about {self.seconds:.0f} s"


def outline(name: str | Path) -> Outline | None:
    """What is known of the card ``name`` if to load it would have to measure first, else None."""
    if is_file(name) or str(name) not in plugins(OUTLINE_GROUP):
        return None
    return cast("Callable[[], Outline | None]", load_plugin(OUTLINE_GROUP, str(name)))()


def is_file(name: str | Path) -> bool:
    """Whether a card or system is given by its file rather than by its name."""
    path = Path(name)
    return path.suffix in (".yaml", ".yml") or path.parent != Path()


def _card_source(name: str | Path) -> Path | Traversable | str:
    """A card's file, or its text where a provider of the group ``hwsim.cards`` makes it."""
    if is_file(name):
        return Path(name)
    shipped = data_files("hwsim.devices", "cards")
    if str(name) in shipped:
        return shipped[str(name)]
    if str(name) in plugins(CARD_GROUP):
        return cast("Callable[[], str]", load_plugin(CARD_GROUP, str(name)))()
    raise UnknownNameError("device", str(name), card_names())
