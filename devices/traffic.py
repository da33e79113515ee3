"""What a kernel's flows ask of the memories and of the link to the host: bytes, time, energy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, isfinite

from hwsim.card import Card, Link, Memory
from hwsim.errors import CardError
from hwsim.mapper import Flow
from hwsim.work import Pattern

HOST = "host"
ON_CHIP = ("cache", "scratchpad")


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes read from and written to one memory."""

    read: float = 0.0
    write: float = 0.0

    @property
    def nbytes(self) -> float:
        """Bytes in both directions."""
        return self.read + self.write

    def plus(self, read: float = 0.0, write: float = 0.0) -> Demand:
        """The demand with more bytes."""
        return Demand(self.read + read, self.write + write)


def demands(flows: Iterable[Flow]) -> dict[str, Demand]:
    """The demand on each memory that ``flows`` name."""
    total: dict[str, Demand] = {}
    for flow in flows:
        read, write = (0.0, flow.nbytes) if flow.write else (flow.nbytes, 0.0)
        total[flow.memory] = total.get(flow.memory, Demand()).plus(read, write)
    return total


def in_grains(flow: Flow, grain: float, strided: bool = False) -> Flow:
    """A flow in whole grains of a memory: each run of a gather or scatter, and of a ``strided`` walk, by itself."""
    scattered = flow.pattern in (Pattern.GATHER, Pattern.SCATTER) or (strided and flow.pattern is Pattern.STRIDED)
    if not scattered or not flow.granule:
        return flow
    return replace(flow, nbytes=flow.nbytes / flow.granule * ceil(flow.granule / grain) * grain)


class Ports:
    """The memories of one card and its link to the host.

    Raises `CardError` for a card on which bytes would cost no energy: on-chip memories may leave theirs to the
    arithmetic, others need a figure, or a power limit that bounds it.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self.memories = {memory.name: memory for memory in card.memories}
        for memory in card.memories:
            for energy in ("read_energy", "write_energy"):
                if memory.kind not in ON_CHIP and getattr(memory, energy) is None and not isfinite(card.limit):
                    raise CardError(f"card '{card.name}' needs memories.{memory.name}.{energy} or power.limit")

    def resource(self, memory: str) -> str:
        """The resource that bytes of ``memory`` occupy: itself, or the link for those of the host."""
        return self.host_link().name if self._is_host(memory) else self._card.memory(memory).name

    def seconds(self, memory: str, demand: Demand) -> float:
        """Time at full bandwidth in s.

        read/bandwidth + write/write_bandwidth for a memory; for the host latency + the busier direction of the link.
        """
        if not demand.nbytes:
            return 0.0
        if self._is_host(memory):
            link = self.host_link()
            return link.latency + max(demand.read, demand.write) / link.bandwidth
        place = self._card.memory(memory)
        return demand.read / place.bandwidth + demand.write / place.write_bandwidth

    def joules(self, memory: str, demand: Demand) -> float:
        """Energy of the bytes in J."""
        if self._is_host(memory):
            return demand.nbytes * self.link_energy(self.host_link())
        place = self._card.memory(memory)
        read = self._memory_energy(place, place.read_energy, place.bandwidth)
        write = self._memory_energy(place, place.write_energy, place.write_bandwidth)
        return demand.read * read + demand.write * write

    def link_energy(self, link: Link) -> float:
        """J/B of a link; one without a figure is bounded by the card's power."""
        if link.energy is not None:
            return link.energy
        if not isfinite(self._card.limit):
            raise CardError(f"card '{self._card.name}' needs links.{link.name}.energy or power.limit")
        return self._dynamic_power() / link.bandwidth

    def host_link(self) -> Link:
        """The card's link to the host."""
        link = self._card.link(HOST)
        if link is None:
            raise CardError(f"card '{self._card.name}' has no link to the host, where tensors of this kernel live")
        return link

    def _is_host(self, memory: str) -> bool:
        return memory == HOST and HOST not in self.memories

    def _memory_energy(self, memory: Memory, energy: float | None, bandwidth: float) -> float:
        if energy is not None:
            return energy
        return 0.0 if memory.kind in ON_CHIP else self._dynamic_power() / bandwidth

    def _dynamic_power(self) -> float:
        return max(0.0, self._card.limit - self._card.idle)
