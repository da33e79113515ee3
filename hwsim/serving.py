"""What a memory takes to read or write bytes for somebody outside: from its figures, and of runs of bytes that lie
anywhere from the DRAM behind it, where its card names one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, isfinite
from typing import Protocol, cast

from hwsim.card import Memory
from hwsim.cost import Cost
from hwsim.errors import CardError
from hwsim.mapper import Flow
from hwsim.registry import load_plugin
from hwsim.work import Pattern

ON_CHIP = ("cache", "scratchpad")


def serve(memory: Memory, flow: Flow, power: float) -> Cost:
    """The bytes of ``flow`` in whole grains at full bandwidth, or what its DRAM gives; latency not included.

    An energy that the card lacks is bounded by ``power`` (watts) at full bandwidth; raises `CardError` where that is
    unlimited too, but for memories on a chip, which may leave theirs to the arithmetic.
    """
    nbytes = whole_grains(flow, memory.granularity)
    bandwidth = memory.write_bandwidth if flow.write else memory.bandwidth
    energy = memory.write_energy if flow.write else memory.read_energy
    if energy is None and memory.kind in ON_CHIP:
        energy = 0.0
    pace = scattered(memory, flow)
    seconds = nbytes / bandwidth if pace is None else max(nbytes / bandwidth, flow.nbytes / pace.bandwidth)
    joules = nbytes * bounded(energy, power, bandwidth, f"memory '{memory.name}'")
    return Cost(seconds, joules, {memory.name: nbytes}, {memory.name: seconds}, memory.name)


@dataclass(frozen=True, slots=True)
class Pace:
    """B/s of the bytes asked for, and seconds that a read waits in the memory's queues when they are full."""

    bandwidth: float
    wait: float


def scattered(memory: Memory, flow: Flow) -> Pace | None:
    """How the DRAM behind a memory serves runs of bytes; None for streams and where the card names no DRAM."""
    if memory.chips is None or flow.pattern is Pattern.STREAM or not flow.granule:
        return None
    return Pace(*_drams().behind(memory, flow.granule, flow.write))


class _Drams(Protocol):
    """What the room of devices knows of DRAM."""

    def behind(self, memory: Memory, granule: float, write: bool) -> tuple[float, float]: ...


@cache
def _drams() -> _Drams:
    return cast("_Drams", load_plugin("hwsim.harnesses", "dram"))


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
