"""What a memory takes to read or write bytes for somebody outside, from its figures alone."""

from __future__ import annotations

from math import ceil, isfinite

from hwsim.card import Memory
from hwsim.cost import Cost
from hwsim.errors import CardError
from hwsim.mapper import Flow
from hwsim.work import Pattern

ON_CHIP = ("cache", "scratchpad")


def serve(memory: Memory, flow: Flow, power: float) -> Cost:
    """The bytes of ``flow`` in whole grains at full bandwidth; latency not included.

    An energy that the card lacks is bounded by ``power`` (watts) at full bandwidth; raises `CardError` where that is
    unlimited too, but for memories on a chip, which may leave theirs to the arithmetic.
    """
    nbytes = whole_grains(flow, memory.granularity)
    bandwidth = memory.write_bandwidth if flow.write else memory.bandwidth
    energy = memory.write_energy if flow.write else memory.read_energy
    if energy is None and memory.kind in ON_CHIP:
        energy = 0.0
    seconds = nbytes / bandwidth
    joules = nbytes * bounded(energy, power, bandwidth, f"memory '{memory.name}'")
    return Cost(seconds, joules, {memory.name: nbytes}, {memory.name: seconds}, memory.name)


def bounded(energy: float | None, power: float, bandwidth: float, what: str) -> float:
    """J/B: the card's figure, else the bound that ``power`` sets at ``bandwidth``."""
    if energy is not None:
        return energy
    if not isfinite(power):
        raise CardError(f"{what} needs an energy per byte, or its card a power limit")
    return power / bandwidth


def whole_grains(flow: Flow, grain: float) -> float:
    """Bytes that the memory moves: each scattered run by itself, in grains."""
    if flow.pattern is Pattern.STREAM or not flow.granule:
        return flow.nbytes
    return flow.nbytes / flow.granule * ceil(flow.granule / grain) * grain
