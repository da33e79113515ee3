"""The mapper `auto`: what a user of the device would run in production."""

from __future__ import annotations

from hwsim.device import Device
from hwsim.graph import Graph
from hwsim.mapper import Policy, Schedule
from hwsim.mappers.eager import Eager, Recorded
from hwsim.mappers.fused import Fused

KERNELS: dict[str, type[Eager | Fused]] = {"fused": Fused, "recorded": Recorded, "eager": Eager}
"""Mappers that only say which ops make a kernel: what other mappers may build on."""


def kernels_of(name: str, device: Device) -> Eager | Fused:
    """The one of `KERNELS` called ``name``; `auto` is what a user of the device would run."""
    return KERNELS[name]() if name in KERNELS else Fused() if device.tags.graph_launch else Eager()


class Auto:
    """`fused` on devices that replay recorded graphs, `eager` on the others."""

    name = "auto"

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """The schedule of the mapper chosen by the device's tags."""
        return kernels_of("auto", device).schedule(graph, device, policy)
