"""The mappers `eager` and `recorded`: a kernel per op as torch launches it, by the host or from a recorded graph."""

from __future__ import annotations

from functools import lru_cache

from hwsim.device import Device
from hwsim.graph import Graph, Kind, Structure
from hwsim.mapper import Launch, Policy, Schedule
from hwsim.mappers.kernels import Group, folded, schedule_groups


class Eager:
    """One kernel per op that is not a view, each issued by the host."""

    name = "eager"
    launch = Launch.EAGER

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Every op on its own, in the order of capture."""
        graph = folded(graph)
        return schedule_groups(graph, self.groups(graph), device, policy, self.launch)

    def groups(self, graph: Graph) -> tuple[Group, ...]:
        """The ops of each kernel of a folded graph."""
        return _alone(graph.structure)


class Recorded(Eager):
    """The kernels of `eager` replayed from a recorded graph, as a CUDA graph does."""

    name = "recorded"
    launch = Launch.GRAPH


@lru_cache(maxsize=128)
def _alone(structure: Structure) -> tuple[Group, ...]:
    """Every op that is not a view in a group of its own."""
    return tuple(Group((index,)) for index, op in enumerate(structure.ops) if op.kind is not Kind.VIEW)
