"""What kernels move beyond the GPU: over the link to the host, and to peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.card import Card
from hwsim.devices.collective import exchange
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.peers import Sending, sending
from hwsim.devices.traffic import HOST, Ports, demands
from hwsim.graph import Kind
from hwsim.mapper import Kernel, Launch


@dataclass(frozen=True, slots=True)
class Sent:
    """Busy seconds by link or memory at their datasheet's bandwidth, bytes by memory, and joules.

    ``host`` of those seconds are those of the ``host_link``, which answers after ``host_waits`` of its latency;
    ``peers`` is what a collective exchanges.
    """

    busy: Mapping[str, float] = field(default_factory=dict)
    traffic: Mapping[str, float] = field(default_factory=dict)
    joules: float = 0.0
    host: float = 0.0
    host_link: str = ""
    host_waits: float = 0.0
    peers: Sending | None = None

    def seconds(self, chip: Chip) -> float:
        """How long the kernel sends and receives: the slowest of its links, the host's at what it sustains, in s."""
        others = max((value for name, value in self.busy.items() if name != self.host_link), default=0.0)
        if self.peers is not None:
            others = max(others, self.peers.seconds(chip))
        if not self.host:
            return others
        return max(others, self.host / chip["link_share"] + self.host_waits * chip["link_latency"])


NOTHING = Sent()

# A copy engine that the host starts by itself first waits for the units' work to end and for its own start; one of a
# recorded graph is ready, and its writes need no answer. Up to so many bytes to the device travel with the
# command instead.
GRAPH_READ, GRAPH_WRITE, INLINE_BYTES = 0.41, 0.23, 1024


class Outside:
    """Times the flows of one card that neither its main memory nor its cache serves."""

    def __init__(self, card: Card, chip: Chip) -> None:
        self._card = card
        self._ports = Ports(card)
        self._inside = (card.main.name, chip.cache.name)

    def of(self, kernel: Kernel) -> Sent:
        """What ``kernel`` sends; raises `CardError` for memories that the card does not reach."""
        inside = self._inside
        flows = [flow for flow in kernel.flows if flow.memory not in inside]
        if not flows and kernel.kind is not Kind.COLLECTIVE:
            return NOTHING
        busy: dict[str, float] = {}
        traffic: dict[str, float] = {}
        joules = host = waits = 0.0
        host_link = ""
        for memory, demand in demands(flows).items():
            resource = self._ports.resource(memory)
            seconds = self._ports.seconds(memory, demand)
            if memory == HOST and resource != HOST:
                host_link, host = resource, seconds - self._ports.host_link().latency
                seconds = host
                inline = kernel.launch is Launch.EAGER and not demand.write and demand.read <= INLINE_BYTES
                recorded = GRAPH_WRITE if demand.write else GRAPH_READ
                waits = 0.0 if inline else recorded if kernel.launch is Launch.GRAPH else 1.0
            busy[resource] = busy.get(resource, 0.0) + seconds
            traffic[memory] = demand.nbytes
            joules += self._ports.joules(memory, demand)
        sent = exchange(self._card, kernel)
        if sent is not None:
            busy[sent.link.name] = busy.get(sent.link.name, 0.0) + sent.seconds
            joules += sent.nbytes * self._ports.link_energy(sent.link)
        return Sent(busy, traffic, joules, host, host_link, waits, sending(kernel, sent) if sent else None)
