"""Systems: devices joined by links. Bytes find their way from one memory to another and occupy all that lies between.

A memory is written ``device.memory``; one of the main device needs no device. A single device is a system of one, with
the ``host`` behind its link to the host: a memory without a figure of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite
from typing import ClassVar

from hwsim.card import Card, Figure, Link, Memory
from hwsim.cost import Cost
from hwsim.device import Device, Serving, Tags, estimate_run
from hwsim.errors import InputError, UnknownNameError, lookup
from hwsim.mapper import Flow, Kernel, Transfer
from hwsim.placement import HOST
from hwsim.serving import bounded, scattered, serve
from hwsim.work import Pattern


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection of two devices or switches: B/s in the direction as written and ``back``, seconds, J/B.

    ``half_duplex``: both directions share one bandwidth. ``port`` is the link of a card that it is: `gpu.pcie`.
    """

    name: str
    ends: tuple[str, str]
    bandwidth: float
    back: float
    latency: float = 0.0
    energy: float | None = 0.0
    half_duplex: bool = False
    port: str = ""

    def towards(self, end: str) -> Hop:
        """The wire as bytes see it that leave it at ``end``."""
        bandwidth = self.bandwidth if end == self.ends[1] else self.back
        return Hop(self.name if self.half_duplex else f"{self.name} to {end}", bandwidth, self.latency, self.energy)


@dataclass(frozen=True, slots=True)
class Hop:
    """One direction of a wire, the resource that transfers share."""

    resource: str
    bandwidth: float
    latency: float
    energy: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """A memory of a system: where it is, and the name that results carry."""

    node: str
    memory: Memory
    name: str


@dataclass(frozen=True, slots=True)
class Topology:
    """A system as data: a card per device (the first is the main one), wires, provenance of their figures, and the
    titles of ``sources``."""

    name: str
    cards: Mapping[str, Card]
    wires: tuple[Wire, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    title: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)


class System:
    """Devices that work together. Where one device is asked for it stands for the main one, whose ``card`` it has."""

    parameters: ClassVar[Mapping[str, str]] = {}

    def __init__(self, topology: Topology, devices: Mapping[str, Device]) -> None:
        self.topology = topology
        self.devices = dict(devices)
        self.main_name = next(iter(self.devices))
        self.card = self.main.card
        self._paths: dict[tuple[str, str], tuple[Hop, ...]] = {}

    @property
    def name(self) -> str:
        """The system's name."""
        return self.topology.name

    @property
    def main(self) -> Device:
        """The device that runs kernels which name none."""
        return self.devices[self.main_name]

    @property
    def tags(self) -> Tags:
        """What the main device can do."""
        return self.main.tags

    @property
    def static_power(self) -> float:
        """Watts drawn by all devices together, whatever they do."""
        return sum(device.card.static_power for device in self.devices.values())

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` on its device, alone."""
        return self.device(kernel.device).estimate(kernel)

    def estimate_run(self, kernels: Sequence[Kernel], counts: Sequence[float]) -> list[Cost]:
        """The costs of ``kernels`` of the main device in one run."""
        return estimate_run(self.main, kernels, counts)

    def host_seconds(self, kernel: Kernel) -> float:
        """The host's time to issue ``kernel``."""
        return self.device(kernel.device).host_seconds(kernel)

    def device(self, name: str) -> Device:
        """The device called ``name``; the main one for an empty name."""
        return lookup("device", name, self.devices) if name else self.main

    def place(self, memory: str) -> Place:
        """The memory written as ``device.memory``, or as ``memory`` of the main device."""
        node, dot, name = memory.rpartition(".")
        if not dot and memory == HOST and HOST in self._neighbours and HOST not in self.devices:
            return Place(HOST, Memory(HOST, "main", inf, inf, inf, read_energy=0.0, write_energy=0.0), HOST)
        device = self.device(node)
        try:
            found = device.card.memory(name)
        except UnknownNameError:
            raise UnknownNameError("memory", memory, self.memories) from None
        main = node in ("", self.main_name)
        return Place(node or self.main_name, found, name if main else f"{node}.{name}")

    @cached_property
    def memories(self) -> Mapping[str, Memory]:
        """All memories under their full names."""
        return {
            f"{name}.{memory.name}": memory for name, device in self.devices.items() for memory in device.card.memories
        }

    @property
    def host(self) -> str | None:
        """The memory of the host: the main one of the `cpu`, else the ``host`` of a system without one, if any."""
        if HOST in self._neighbours:
            return HOST
        return f"cpu.{self.devices['cpu'].card.main.name}" if "cpu" in self.devices else None

    def port(self, device: str, link: str) -> Hop | None:
        """The wire behind a card's own link, towards the device; None where nothing hangs there."""
        found = (wire for wire in self.topology.wires if wire.port == f"{device}.{link}")
        return next((wire.towards(device) for wire in found), None)

    def transfer(self, transfer: Transfer) -> Cost:
        """What ``transfer`` takes alone: the slowest of source, links and target, after the latency of all."""
        source, target = self.place(transfer.source), self.place(transfer.target)
        granule = transfer.granule
        writing = transfer.pattern if transfer.pattern is not Pattern.GATHER else Pattern.STREAM
        read = self._serve(source, _reading(transfer, source))
        write = self._serve(target, Flow(target.memory.name, transfer.nbytes, True, writing, granule, transfer.role))
        hops = self.path(source.node, target.node)
        latency = self.latency(transfer)
        busy = _added({source.name: read.busy_seconds}, {target.name: write.busy_seconds})
        busy |= {hop.resource: transfer.nbytes / hop.bandwidth for hop in hops}
        bound = max(busy, key=busy.__getitem__)
        flowing = max(busy[bound], read.seconds, write.seconds)
        links = sum(bounded(hop.energy, inf, hop.bandwidth, f"link '{hop.resource}'") for hop in hops)
        joules = read.joules + write.joules + transfer.nbytes * links
        traffic = _added({source.name: read.nbytes}, {target.name: write.nbytes})
        return Cost(latency + flowing, joules, traffic, busy, bound if flowing >= latency else "latency")

    def latency(self, transfer: Transfer) -> float:
        """Seconds before the first byte arrives: the source's, with the wait of runs in its queues, and all links'."""
        source, target = self.place(transfer.source), self.place(transfer.target)
        pace = scattered(source.memory, _reading(transfer, source))
        waited = source.memory.latency + (pace.wait if pace else 0.0)
        return waited + sum(hop.latency for hop in self.path(source.node, target.node))

    def path(self, source: str, target: str) -> tuple[Hop, ...]:
        """The links from one device or switch to another: fewest hops, of these the widest.

        Between the ends lie switches, CPUs and the host only: no other device passes on what is not its own.
        """
        key = (source, target)
        if key not in self._paths:
            self._paths[key] = self._search(source, target)
        return self._paths[key]

    @cached_property
    def _neighbours(self) -> Mapping[str, Mapping[str, Hop]]:
        """Where the wires of each node lead."""
        found: dict[str, dict[str, Hop]] = {name: {} for name in self.devices}
        for wire in self.topology.wires:
            for start, end in (wire.ends, wire.ends[::-1]):
                found.setdefault(start, {})[end] = wire.towards(end)
        return found

    def _search(self, source: str, target: str) -> tuple[Hop, ...]:
        """Breadth first; of paths equally short the one with the widest narrowest link, then the first as written."""
        best: dict[str, tuple[Hop, ...]] = {source: ()}
        reached = [source]
        while reached and target not in best:
            found: dict[str, tuple[Hop, ...]] = {}
            for node in reached:
                if node != source and not self._forwards(node):
                    continue
                for end, hop in self._neighbours[node].items():
                    path = (*best[node], hop)
                    if end not in best and (end not in found or _width(path) > _width(found[end])):
                        found[end] = path
            best |= found
            reached = list(found)
        if target not in best:
            raise InputError(
                f"system '{self.name}' has no path from '{source}' to '{target}': no link joins them, directly or "
                "through switches, a cpu or the host, and other devices do not pass on what is not theirs"
            )
        return best[target]

    def _forwards(self, node: str) -> bool:
        """Whether bytes pass through a node on their way: switches and the host are no devices, CPUs are."""
        return node not in self.devices or node == "cpu" or self.devices[node].card.family == "cpu"

    def _serve(self, place: Place, flow: Flow) -> Served:
        device = self.devices.get(place.node)
        cost = device.serve(flow) if isinstance(device, Serving) else serve(place.memory, flow, self._power(device))
        moved = cost.traffic.get(place.memory.name, flow.nbytes)
        return Served(cost.seconds, cost.busy.get(place.memory.name, 0.0), moved, cost.joules)

    def _power(self, device: Device | None) -> float:
        return max(0.0, device.card.limit - device.card.idle) if device is not None else 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """A memory's part of a transfer: seconds alone, of these at full bandwidth; bytes that it moves; joules."""

    seconds: float
    busy_seconds: float
    nbytes: float
    joules: float


def _reading(transfer: Transfer, source: Place) -> Flow:
    """How the source of a transfer is read."""
    pattern = transfer.pattern if transfer.pattern is not Pattern.SCATTER else Pattern.STREAM
    return Flow(source.memory.name, transfer.nbytes, False, pattern, transfer.granule, transfer.role)


def system_of(device: Device) -> System:
    """``device`` itself if it is a system, else a system of one, with the host behind its link to the host."""
    if isinstance(device, System):
        return device
    card = device.card
    link = card.link(HOST)
    wires = () if link is None else (wire_of(card, link, link.name, (card.name, HOST)),)
    return System(Topology(card.name, {card.name: card}, wires, title=card.title), {card.name: device})


def wire_of(card: Card, link: Link, name: str, ends: tuple[str, str]) -> Wire:
    """A wire with the figures of a card's own link, that of the first end; an energy that it lacks is bounded by the
    card's power."""
    power = max(0.0, card.limit - card.idle)
    energy = power / link.bandwidth if link.energy is None and isfinite(power) else link.energy
    port = f"{ends[0]}.{link.name}"
    return Wire(name, ends, link.bandwidth, link.bandwidth, link.latency, energy, port=port)


def _width(path: Sequence[Hop]) -> float:
    return min((hop.bandwidth for hop in path), default=inf)


def _added(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in {**left, **right}}
