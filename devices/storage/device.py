"""The storage family: a drive behind its link, and what computes beside its channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from hwsim.card import Card, Memory
from hwsim.cost import Cost
from hwsim.device import Tags
from hwsim.devices.roofline import Roofline
from hwsim.devices.storage.card import drive_names, load_drive
from hwsim.devices.storage.inside import Rates
from hwsim.errors import CardError
from hwsim.mapper import Flow, Kernel
from hwsim.serving import serve, whole_grains
from hwsim.work import Pattern


class Storage:
    """A card of a drive, whose flash is as fast as its channels and dies make it for an access of that size.

    The drive's own card (`hwsim storage bench`) bears the same name, or is named by the key ``drive``. What computes
    beside the channels reads the flash at their rate, others at most at that of the link; both never faster than the
    card's figure for the memory.
    """

    parameters: ClassVar[Mapping[str, str]] = {}
    tags: ClassVar[Tags] = Tags(graph_launch=True)

    def __init__(self, card: Card) -> None:
        if card.drive is None and card.name not in drive_names():
            known = ", ".join(drive_names())
            expected = f"such as {known}, and its key 'drive' names no other one, nor a file beside the card"
            raise CardError(f"card '{card.name}' of family 'storage' has no drive's card of its name, {expected}")
        self.card = card
        self.drive = load_drive(card.drive or card.name)
        self._rates = Rates(self.drive)
        self._peaks = Roofline(card)
        self._flash = {memory.name: memory for memory in card.memories if memory.kind == "storage"}

    def estimate(self, kernel: Kernel) -> Cost:
        """The cost at the card's peaks, the flash at the rates of its accesses."""
        peaks = self._peaks.estimate(kernel)
        slower: dict[str, float] = {}
        for flow in kernel.flows:
            if flow.memory in self._flash:
                seconds = self._seconds(self._flash[flow.memory], flow, inside=True)
                slower[flow.memory] = slower.get(flow.memory, 0.0) + seconds
        busy = {name: max(seconds, slower.get(name, 0.0)) for name, seconds in peaks.busy.items()}
        bound = max(busy, key=busy.__getitem__, default="")
        return replace(peaks, seconds=busy.get(bound, 0.0), busy=busy, bound=bound)

    def host_seconds(self, kernel: Kernel) -> float:
        """The engine needs no host."""
        return 0.0

    def serve(self, flow: Flow) -> Cost:
        """The bytes of ``flow`` for somebody behind the link, without the latency of the first."""
        memory = self.card.memory(flow.memory)
        plain = serve(memory, flow, max(0.0, self.card.limit - self.card.idle))
        if flow.memory not in self._flash:
            return plain
        seconds = max(plain.seconds, self._seconds(memory, flow, inside=False))
        return replace(plain, seconds=seconds, busy={flow.memory: seconds})

    def _seconds(self, memory: Memory, flow: Flow, inside: bool) -> float:
        """Time of a flow at the flash's rate for its accesses, never above the card's bandwidth."""
        granule = 0.0 if flow.pattern is Pattern.STREAM else flow.granule
        rate = (self._rates.inside if inside else self._rates.outside)(granule, flow.write)
        peak = memory.write_bandwidth if flow.write else memory.bandwidth
        # A rate counts the data that is asked for; the card's peak counts whole grains.
        return max(flow.nbytes / rate, whole_grains(flow, memory.granularity) / peak)
