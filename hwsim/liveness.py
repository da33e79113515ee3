"""How much memory a graph has in use while it runs: weights, states and the activations alive at each op."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.graph import RESIDENT, Graph, Repeat, Role, Structure

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.intp]


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


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Bytes of each storage of inputs, activations and outputs (columns) at each moment (rows): every op, in the first
    and in the last iteration of its repetition."""

    storages: tuple[str, ...]
    alive: FloatArray


def lifetimes(graph: Graph, absent: Collection[str] = ()) -> Lifetimes:
    """When the storages of a bound graph are in use; those in ``absent`` never reach memory."""
    spans = _spans(graph.structure, frozenset(absent))
    sizes = np.array([graph.nbytes[name] for name in spans.storages])
    change = np.zeros((2, len(graph.ops) + 1, len(sizes)))
    for view, changes in enumerate((spans.first, spans.last)):
        np.add.at(change[view], (changes.ops, changes.storages), changes.copies)
    alive = np.cumsum(change, axis=1)[:, :-1].reshape(-1, len(sizes)) * sizes
    return Lifetimes(spans.storages, alive)


def usage(graph: Graph, absent: Collection[str] = ()) -> Usage:
    """The memory in use by a bound graph; storages in ``absent`` never reach memory (they stay in registers)."""
    structure, nbytes = graph.structure, graph.nbytes
    resident: dict[str, float] = dict.fromkeys(map(str, RESIDENT), 0)
    for name in structure.residents:
        resident[structure.tensors[name].role] += nbytes[name] * structure.copies[name]
    spans = _spans(structure, frozenset(absent))
    sizes = np.array([nbytes[name] for name in spans.storages])
    views = [_alive(len(graph.ops), changes, sizes) for changes in (spans.first, spans.last)]
    return Usage(resident, tuple(np.maximum(*views).tolist()))


@dataclass(frozen=True, slots=True)
class _Changes:
    """At which ops which storages come (``copies`` above 0) and go (below), in the order of the storages."""

    ops: IntArray
    storages: IntArray
    copies: FloatArray


@dataclass(frozen=True, slots=True)
class _Spans:
    """When storages are alive, in the first or the last iteration of every region."""

    storages: tuple[str, ...]
    first: _Changes
    last: _Changes


def _alive(ops: int, changes: _Changes, sizes: FloatArray) -> FloatArray:
    """Bytes alive while each of ``ops`` ops runs."""
    change = np.zeros(ops + 1)
    np.add.at(change, changes.ops, changes.copies * sizes[changes.storages])
    return np.cumsum(change)[:ops]


@dataclass(slots=True)
class _Life:
    """A storage from the op that makes it to its last reader; ``later`` readers see every iteration's copy."""

    birth: int
    death: int
    region: Repeat | None
    kept: bool  # all iterations' copies are alive after the region
    used_up: Repeat | None = None  # the region whose iterations read one copy each, for the last time


@lru_cache(maxsize=256)
def _spans(structure: Structure, absent: frozenset[str]) -> _Spans:
    lives = _lives(structure, absent)
    return _Spans(tuple(lives), _changes(lives.values(), last=False), _changes(lives.values(), last=True))


def _changes(lives: Iterable[_Life], last: bool) -> _Changes:
    """Intervals of ops during which bytes are alive, in the first or the last iteration of every region.

    A storage made once per iteration and read after its region (a saved activation, a gradient) exists count times:
    count-1 copies are there throughout the last iteration of the region that makes them, and throughout the first
    one of the region that uses them up.
    """
    found: list[tuple[int, int, int]] = []
    for storage, life in enumerate(lives):
        found += (life.birth, storage, 1), (life.death + 1, storage, -1)
        if life.kept and life.region is not None:
            start = life.region.start if last else life.region.stop
            stop = life.death + 1
            if life.used_up is not None:
                stop = life.used_up.start if last else life.used_up.stop
            more = life.region.count - 1
            found += (start, storage, more), (max(start, stop), storage, -more)
    ops, storages, copies = np.array(found, dtype=np.intp).reshape(-1, 3).T
    return _Changes(ops, storages, copies.astype(np.float64))


def _lives(structure: Structure, absent: frozenset[str]) -> dict[str, _Life]:
    lives: dict[str, _Life] = {}
    for tensor in structure.tensors.values():
        if tensor.role is Role.INPUT and tensor.base is None:
            lives[tensor.name] = _Life(0, 0, None, kept=False)
    for index, op in enumerate(structure.ops):
        region = structure.regions[index]
        for name in op.inputs:
            _read(lives, structure.storages[name], index, region)
        for name in op.outputs:
            storage = structure.storages[name]
            if storage in lives or storage in absent or structure.tensors[storage].role in RESIDENT:
                _read(lives, storage, index, region)
                continue
            lives[storage] = _Life(index, index, region, kept=False)
    for name, life in lives.items():
        if structure.tensors[name].role is Role.OUTPUT:
            life.death, life.kept, life.used_up = len(structure.ops) - 1, life.region is not None, None
    return lives


def _read(lives: dict[str, _Life], storage: str, index: int, region: Repeat | None) -> None:
    life = lives.get(storage)
    if life is None:
        return
    life.death = index
    outside = life.region is not None and region is not life.region
    each = outside and region is not None and storage not in region.shared
    life.kept = life.kept or each
    life.used_up = region if each else None
