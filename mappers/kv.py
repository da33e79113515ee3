"""The mapper `kv`: what a model keeps of its past, in which format, and what keeping it costs.

Reads shrink with what is kept. Against that stand the notes of the policy and their reading, compactions (spread over
the steps between two), and where asked for the copies that frameworks make.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

from hwsim.device import Device
from hwsim.graph import Graph
from hwsim.mapper import Policy, Schedule
from hwsim.mappers.auto import KERNELS
from hwsim.mappers.kernels import folded
from hwsim.mappers.kv_graph import with_policy
from hwsim.mappers.kv_policy import KvOptions


@dataclass(frozen=True, slots=True)
class Kv:
    """A policy of the key/value cache over the kernels of another mapper."""

    name: ClassVar[str] = "kv"
    Options: ClassVar[type] = KvOptions
    options: KvOptions = field(default_factory=KvOptions)

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """The kernels of the graph that the policy makes of ``graph``."""
        changed, notes = _changed(folded(graph), self.options)
        schedule = KERNELS[self.options.kernels]().schedule(changed, device, policy)
        return replace(schedule, notes=(*schedule.notes, *notes))


@lru_cache(maxsize=64)
def _changed(graph: Graph, options: KvOptions) -> tuple[Graph, tuple[str, ...]]:
    return with_policy(graph, options)
