"""The block family: a computer or a drive whose flash is seen from outside, by what a command and a byte take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hwsim.cost import Cost
from hwsim.devices.roofline import Roofline
from hwsim.mapper import Flow
from hwsim.serving import serve
from hwsim.work import Pattern


class Block(Roofline):
    """Peaks as of the roofline family, and storage that serves commands, many in flight at once.

    Scattered runs of bytes are a command each: seconds = max(bytes / bandwidth, commands x command_time + bytes /
    burst_bandwidth), where the bandwidth is that of long sequential requests and 1 / command_time the most commands
    per second.
    """

    parameters: ClassVar[Mapping[str, str]] = {"command_time": "s", "burst_bandwidth": "B/s"}

    def serve(self, flow: Flow) -> Cost:
        """What it takes to read or write the bytes of ``flow`` for others, the latency of the first byte aside."""
        memory = self.card.memory(flow.memory)
        plain = serve(memory, flow, max(0.0, self.card.limit - self.card.idle))
        if memory.kind != "storage" or flow.pattern is Pattern.STREAM or not flow.granule:
            return plain
        commands = flow.nbytes / flow.granule
        burst = flow.nbytes / self.card.parameter("burst_bandwidth")
        rate = memory.write_bandwidth if flow.write else memory.bandwidth
        seconds = max(flow.nbytes / rate, commands * self.card.parameter("command_time") + burst)
        return Cost(seconds, plain.joules, {memory.name: flow.nbytes}, {memory.name: seconds}, memory.name)
