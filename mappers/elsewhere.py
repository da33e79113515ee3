"""Placing what stays on a device when some of a model lies elsewhere and comes through buffers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from hwsim.device import Device
from hwsim.errors import DoesNotFitError, InputError
from hwsim.graph import Role
from hwsim.liveness import Usage, usage
from hwsim.mapper import Placement, Policy
from hwsim.mappers.kernels import Draft
from hwsim.placement import Placed, place
from hwsim.system import System, system_of
from hwsim.systemfile import load_system, shipped_systems

NO_SPILL = "spill changes nothing: this mapper is told what lies where"
ROUNDING = 1e-12  # of sums of bytes


def no_drive(system: System, what: str, drive: str = "samsung-980-pro") -> InputError:
    """Says that a ``system`` lacks a drive for ``what``, and what has one."""
    topologies = {name: load_system(name).topology for name in shipped_systems()}
    having = [
        name
        for name, topology in topologies.items()
        if any(memory.kind == "storage" for card in topology.cards.values() for memory in card.memories)
    ]
    example = f"in a study {{gpu: nvidia-a6000, storage: [{drive}]}}"
    return InputError(f"'{system.name}' has no drive for {what}: take {', '.join(having)}, or {example}")


def place_rest(
    drawn: Draft, away: Collection[str], homes: Mapping[str, float], buffer: float, device: Device, policy: Policy
) -> Placed:
    """All but the storages ``away`` placed as ever, beside ``buffer`` bytes for what comes of them.

    Kernels find those storages in the main memory; ``homes`` are the memories where they lie, with the bytes in each.
    Raises `DoesNotFitError` where one of these or the device is too small.
    """
    graph, card = drawn.graph, device.card
    system = system_of(device)
    absent = {name: replace(graph.tensors[name], role=Role.ACTIVATION) for name in away}
    rest = replace(graph, tensors={**graph.tensors, **absent})
    use = usage(rest, drawn.absent | set(away))
    roomy = Usage(use.resident, tuple([alive + buffer for alive in use.alive]))
    placed = place(rest, zip(drawn.works, drawn.counts, strict=True), card, roomy, policy)
    shares = {**placed.placement.shares, **{name: {card.main.name: 1.0} for name in away}}
    peak = dict(placed.peak)
    for home, nbytes in homes.items():
        found = system.place(home)
        peak[found.name] = peak.get(found.name, 0.0) + nbytes
        if peak[found.name] > found.memory.capacity * (1 + ROUNDING):
            what = f"what {graph.name} keeps there"
            raise DoesNotFitError(what, peak[found.name], found.memory.capacity, found.name)
    return Placed(Placement(placed.placement.default, shares, placed.placement.elsewhere), peak, placed.notes)
