"""Where a kernel's bytes are on a CPU, and which memories they pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from hwsim.card import Card
from hwsim.device import Replay
from hwsim.devices.collective import exchange
from hwsim.devices.traffic import Demand, Ports, in_grains
from hwsim.dtypes import dtype
from hwsim.graph import Kind, Role
from hwsim.mapper import Flow, Kernel

# A cache full of other data keeps all that takes half of it and nothing of what takes one and a half: pseudo-LRU.
KEPT, LOST = 0.5, 1.5


class State(StrEnum):
    """What ran before: other kernels of a model, nothing (one call on empty caches), or the same kernel."""

    RUN = "run"
    SINGLE = "single"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Moved:
    """Demands by memory, through the caches between it and the cores; seconds at full bandwidth of main memory, of the
    caches and of whatever else; ``missed`` is the share of the kernel's bytes that main memory serves."""

    demands: Mapping[str, Demand]
    main: float
    cache: float
    others: Mapping[str, float]
    missed: float


class Traffic:
    """Follows the flows of one card's kernels."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._ports = Ports(card)
        self._caches = [memory for memory in card.memories if memory.kind == "cache"]

    def of(self, kernel: Kernel, state: State, replay: Replay | None, passes: float) -> Moved:
        """The bytes that ``kernel`` moves in ``state``, its operands ``passes`` times."""
        main = self._card.main.name
        total: dict[str, Demand] = {}
        misses = self._misses(kernel, state, replay)
        for flow in kernel.flows:
            if flow.memory != main:
                _add(total, self._ports.resource(flow.memory), flow, self._ports.memories, 1.0)
                continue
            lost = misses[flow.role is Role.WEIGHT] if _reusable(flow, state) else 1.0
            _add(total, main, flow, self._ports.memories, lost)
            for cache in self._path(kernel):
                _add(total, cache, flow, self._ports.memories, passes)
        again = self._reread(kernel) * misses[True]
        if again:
            total[main] = total.get(main, Demand()).plus(again)
        served = total.get(main, Demand())
        return Moved(
            total,
            self._ports.seconds(main, served),
            max(
                (self._ports.seconds(cache, total[cache]) for cache in self._path(kernel) if cache in total), default=0
            ),
            self._outside(kernel, main, total),
            min(1.0, served.nbytes / kernel.nbytes) if kernel.nbytes else 0.0,
        )

    def joules(self, demands: Mapping[str, Demand]) -> float:
        """Energy of the bytes in J."""
        return sum(self._ports.joules(memory, demand) for memory, demand in demands.items())

    def _misses(self, kernel: Kernel, state: State, replay: Replay | None) -> tuple[float, float]:
        """The shares of other operands and of weights that the last cache lacks.

        In a run, activations that the kernel before has made are still there where they fit; the rest is not.
        """
        if not self._caches or state is State.SINGLE:
            return 1.0, 1.0
        main = self._card.main.name
        weights = sum(flow.nbytes for flow in kernel.flows if flow.memory == main and flow.role is Role.WEIGHT)
        others = sum(flow.nbytes for flow in kernel.flows if flow.memory == main) - weights
        if state is State.RUN:
            return self._missing(others), 1.0
        copies = replay.copies if replay else 1
        held = copies * weights + others * (copies if replay and replay.all_operands else 1)
        return self._missing(weights + others), self._missing(held)

    def _missing(self, nbytes: float) -> float:
        share = nbytes / self._caches[-1].capacity
        return min(1.0, max(0.0, (share - KEPT) / (LOST - KEPT)))

    def _path(self, kernel: Kernel) -> Sequence[str]:
        """The caches between the cores and the nearest that holds all operands, that one included."""
        names: list[str] = []
        for cache in self._caches:
            names.append(cache.name)
            if cache.capacity >= 2 * kernel.nbytes:
                break
        return names

    def _reread(self, kernel: Kernel) -> float:
        """Operand bytes of a blocked matrix product beyond each once.

        2·m·n·k·e / sqrt(C / e) move between memories for a cache of C bytes (Hong and Kung, STOC 1981).
        """
        if kernel.kind is not Kind.MATMUL or not self._caches:
            return 0.0
        element = dtype(kernel.work.dtype).bytes_for(1)
        moved = kernel.work.matmul_flops * element / sqrt(self._caches[-1].capacity / element)
        return max(0.0, moved - kernel.read_bytes)

    def _outside(self, kernel: Kernel, main: str, total: Mapping[str, Demand]) -> dict[str, float]:
        """Seconds of memories that are neither main nor cache, and of links."""
        caches = {cache.name for cache in self._caches}
        known = {memory: demand for memory, demand in total.items() if memory != main and memory not in caches}
        seconds = {name: self._ports.seconds(name, demand) for name, demand in known.items()}
        sent = exchange(self._card, kernel)
        if sent is not None:
            seconds[sent.link.name] = seconds.get(sent.link.name, 0.0) + sent.seconds
        return seconds

    def exchange_joules(self, kernel: Kernel) -> float:
        """Energy of what a collective sends in J."""
        sent = exchange(self._card, kernel)
        return sent.nbytes * self._ports.link_energy(sent.link) if sent else 0.0


def _reusable(flow: Flow, state: State) -> bool:
    """Whether a cache may hold what ``flow`` moves: in a run, only what its kernels hand on to each other."""
    return state is not State.RUN or flow.role is Role.ACTIVATION


def _add(total: dict[str, Demand], name: str, flow: Flow, memories: Mapping[str, object], share: float) -> None:
    grain = getattr(memories.get(name), "granularity", 1.0)
    nbytes = share * in_grains(flow, grain).nbytes
    read, write = (0.0, nbytes) if flow.write else (nbytes, 0.0)
    total[name] = total.get(name, Demand()).plus(read, write)
