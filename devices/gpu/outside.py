"""What kernels move beyond the GPU: over the link to the host, and to peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.card import Card
from hwsim.devices.collective import exchange
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.traffic import Ports, demands
from hwsim.graph import Kind
from hwsim.mapper import Kernel


@dataclass(frozen=True, slots=True)
class Sent:
    """Busy seconds by link or memory, bytes by memory, and joules."""

    busy: Mapping[str, float] = field(default_factory=dict)
    traffic: Mapping[str, float] = field(default_factory=dict)
    joules: float = 0.0


NOTHING = Sent()


class Outside:
    """Times the flows of one card that neither its main memory nor its cache serves."""

    def __init__(self, card: Card, chip: Chip) -> None:
        self._card = card
        self._ports = Ports(card)
        self._inside = (card.main.name, chip.cache.name)

    def of(self, kernel: Kernel) -> Sent:
        """What ``kernel`` sends; raises `CardError` for memories that the card does not reach."""
        flows = [flow for flow in kernel.flows if flow.memory not in self._inside]
        if not flows and kernel.kind is not Kind.COLLECTIVE:
            return NOTHING
        busy: dict[str, float] = {}
        traffic: dict[str, float] = {}
        joules = 0.0
        for memory, demand in demands(flows).items():
            resource = self._ports.resource(memory)
            busy[resource] = busy.get(resource, 0.0) + self._ports.seconds(memory, demand)
            traffic[memory] = demand.nbytes
            joules += self._ports.joules(memory, demand)
        sent = exchange(self._card, kernel)
        if sent is not None:
            busy[sent.link.name] = busy.get(sent.link.name, 0.0) + sent.seconds
            joules += sent.nbytes * self._ports.link_energy(sent.link)
        return Sent(busy, traffic, joules)
