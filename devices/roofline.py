"""The roofline family: any card with nothing but peaks."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import ClassVar

from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Tags
from hwsim.devices.attention import needed_work
from hwsim.devices.collective import exchange
from hwsim.devices.rates import Rates
from hwsim.devices.traffic import Ports, demands
from hwsim.mapper import Flow, Kernel
from hwsim.serving import scattered
from hwsim.work import Pattern


class Roofline:
    """A device whose units and memories all work at their peak and overlap perfectly.

    seconds = max(matmul FLOP / rate, vector FLOP / rate, special / rate, bytes / bandwidth of each memory and link)
    (Williams et al., Roofline, CACM 2009), where gathers and scatters have the bandwidth that the DRAM which a card
    names behind its memory gives for runs of their length; joules = J/FLOP and J/B of the card, at most its limit less
    its idle power.
    """

    parameters: ClassVar[Mapping[str, str]] = {}
    tags: ClassVar[Tags] = Tags(graph_launch=True)

    def __init__(self, card: Card) -> None:
        self.card = card
        self._rates = Rates(card)
        self._ports = Ports(card)

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost of ``kernel`` at the card's peaks; a masked attention score costs nothing."""
        compute, compute_joules = self._compute(kernel)
        moved, moved_joules = self._moved(kernel)
        busy = {**compute, **moved}
        bound = max(busy, key=busy.__getitem__, default="")
        seconds = busy.get(bound, 0.0)
        joules = compute_joules + moved_joules
        if isfinite(self.card.limit):
            joules = min(joules, max(0.0, self.card.limit - self.card.idle) * seconds)
        traffic = {memory: demand.nbytes for memory, demand in demands(kernel.flows).items()}
        return Cost(seconds, joules, traffic, busy, bound)

    def host_seconds(self, kernel: Kernel) -> float:
        """A roofline has no host."""
        return 0.0

    def _lost(self, flow: Flow) -> float:
        """Seconds that a gather or scatter takes beyond those of a stream of its bytes."""
        memory = self._ports.memories.get(flow.memory)
        if memory is None or flow.pattern not in (Pattern.GATHER, Pattern.SCATTER):
            return 0.0
        pace = scattered(memory, flow)
        full = memory.write_bandwidth if flow.write else memory.bandwidth
        return 0.0 if pace is None else flow.nbytes / pace.bandwidth - flow.nbytes / full

    def _compute(self, kernel: Kernel) -> tuple[dict[str, float], float]:
        """Busy seconds by unit, and joules."""
        work = needed_work(kernel)
        busy: dict[str, float] = {}
        joules = 0.0
        for unit, amount, find in (
            ("matmul", work.matmul_flops, self._rates.matmul),
            ("vector", work.vector_flops, self._rates.vector),
            ("special", work.special_ops, self._rates.special),
        ):
            if amount:
                rate = find(work.dtype)
                busy[unit] = rate.seconds(amount)
                joules += amount * rate.joules
        return busy, joules

    def _moved(self, kernel: Kernel) -> tuple[dict[str, float], float]:
        """Busy seconds by memory and link, and joules."""
        busy: dict[str, float] = {}
        joules = 0.0
        for memory, demand in demands(kernel.flows).items():
            busy[self._ports.resource(memory)] = self._ports.seconds(memory, demand)
            joules += self._ports.joules(memory, demand)
        for flow in kernel.flows:
            busy[self._ports.resource(flow.memory)] += self._lost(flow)
        sent = exchange(self.card, kernel)
        if sent is not None:
            busy[sent.link.name] = busy.get(sent.link.name, 0.0) + sent.seconds
            joules += sent.nbytes * self._ports.link_energy(sent.link)
        return busy, joules
