"""What a memory takes to read or write bytes for somebody outside, from its figures alone."""

from __future__ import annotations

from math import ceil, isfinite

from hwsim.card import Memory
from hwsim.cost import Cost
from hwsim.mapper import Flow
from hwsim.work import Pattern


def serve(memory: Memory, flow: Flow, power: float) -> Cost:
    """The bytes of ``flow`` in whole grains at full bandwidth; latency not included.

    An energy that the card lacks is that of ``power`` (watts) at full bandwidth, 0 where that is unlimited.
    """
    nbytes = whole_grains(flow, memory.granularity)
    bandwidth = memory.write_bandwidth if flow.write else memory.bandwidth
    energy = memory.write_energy if flow.write else memory.read_energy
    if energy is None:
        energy = power / bandwidth if isfinite(power) else 0.0
    seconds = nbytes / bandwidth
    return Cost(seconds, nbytes * energy, {memory.name: nbytes}, {memory.name: seconds}, memory.name)


def whole_grains(flow: Flow, grain: float) -> float:
    """Bytes that the memory moves: each scattered run by itself, in grains."""
    if flow.pattern is Pattern.STREAM or not flow.granule:
        return flow.nbytes
    return flow.nbytes / flow.granule * ceil(flow.granule / grain) * grain
