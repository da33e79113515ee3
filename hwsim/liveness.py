"""How much memory a graph has in use while it runs: weights, states and the activations alive at each op."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.graph import Graph, Repeat, Role

FloatArray: TypeAlias = npt.NDArray[np.float64]
RESIDENT = (Role.WEIGHT, Role.BUFFER, Role.STATE)


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident bytes by role, and the bytes of inputs, activations and outputs alive while each op runs."""

    resident: dict[str, float]
    alive: tuple[float, ...]

    @property
    def peak_activations(self) -> float:
        """The most bytes of activations alive at once."""
        return max(self.alive, default=0.0)

    @property
    def peak(self) -> float:
        """Resident bytes and the most activations."""
        return sum(self.resident.values()) + self.peak_activations


def usage(graph: Graph, absent: Collection[str] = ()) -> Usage:
    """The memory in use by a bound graph; storages in ``absent`` never reach memory (they stay in registers)."""
    resident = {str(role): graph.bytes_of(role) for role in RESIDENT}
    lives = _lives(graph, frozenset(absent)).values()
    views = [_alive(len(graph.ops), _spans(lives, last)) for last in (False, True)]
    return Usage(resident, tuple(float(value) for value in np.maximum(*views)))


def _alive(ops: int, spans: Iterable[_Span]) -> FloatArray:
    """Bytes alive while each of ``ops`` ops runs."""
    change = np.zeros(ops + 1)
    for span in spans:
        change[span.start] += span.nbytes
        change[span.stop] -= span.nbytes
    return np.cumsum(change)[:-1]


@dataclass(slots=True)
class _Life:
    """A storage from the op that makes it to its last reader; ``later`` readers see every iteration's copy."""

    nbytes: float
    birth: int
    death: int
    region: Repeat | None
    kept: bool  # all iterations' copies are alive after the region
    used_up: Repeat | None = None  # the region whose iterations read one copy each, for the last time


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    stop: int
    nbytes: float


def _spans(lives: Iterable[_Life], last: bool) -> Iterable[_Span]:
    """Intervals of ops during which bytes are alive, in the first or the last iteration of every region.

    A storage made once per iteration and read after its region (a saved activation, a gradient) exists count times:
    count-1 copies are there throughout the last iteration of the region that makes them, and throughout the first
    one of the region that uses them up.
    """
    for life in lives:
        yield _Span(life.birth, life.death + 1, life.nbytes)
        if life.kept and life.region is not None:
            start = life.region.start if last else life.region.stop
            stop = life.death + 1
            if life.used_up is not None:
                stop = life.used_up.start if last else life.used_up.stop
            yield _Span(start, max(start, stop), (life.region.count - 1) * life.nbytes)


def _lives(graph: Graph, absent: frozenset[str]) -> dict[str, _Life]:
    lives: dict[str, _Life] = {}
    regions = _regions(graph)
    for tensor in graph.of_role(Role.INPUT):
        lives[tensor.name] = _Life(tensor.nbytes, 0, 0, None, kept=False)
    for index, op in enumerate(graph.ops):
        region = regions[index]
        for name in op.inputs:
            _read(graph, lives, graph.storage(name), index, region)
        for name in op.outputs:
            storage = graph.storage(name)
            if storage in lives or storage in absent or graph.tensors[storage].role in RESIDENT:
                _read(graph, lives, storage, index, region)
                continue
            lives[storage] = _Life(graph.tensors[storage].nbytes, index, index, region, kept=False)
    for name, life in lives.items():
        if graph.tensors[name].role is Role.OUTPUT:
            life.death, life.kept, life.used_up = len(graph.ops) - 1, life.region is not None, None
    return lives


def _read(graph: Graph, lives: dict[str, _Life], storage: str, index: int, region: Repeat | None) -> None:
    life = lives.get(storage)
    if life is None:
        return
    life.death = index
    outside = life.region is not None and region is not life.region
    each = outside and region is not None and storage not in region.shared
    life.kept = life.kept or each
    life.used_up = region if each else None


def _regions(graph: Graph) -> list[Repeat | None]:
    """The repetition that each op belongs to."""
    regions: list[Repeat | None] = [None] * len(graph.ops)
    for repeat in graph.repeats:
        regions[repeat.start : repeat.stop] = [repeat] * (repeat.stop - repeat.start)
    return regions
