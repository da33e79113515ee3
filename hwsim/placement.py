"""Where the tensors of a graph live on a card: the nearest memories for what is used most, overflow outwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hwsim.card import Card, Memory
from hwsim.errors import DoesNotFitError
from hwsim.graph import Graph
from hwsim.liveness import Usage
from hwsim.mapper import Placement, Policy
from hwsim.units import format_quantity
from hwsim.work import Work

HOST = "host"


@dataclass(frozen=True, slots=True)
class Placed:
    """A placement with the peak bytes per memory, and notes on what overflowed."""

    placement: Placement
    peak: Mapping[str, float]
    notes: tuple[str, ...]


def place(graph: Graph, works: Iterable[tuple[Work, int]], card: Card, use: Usage, policy: Policy) -> Placed:
    """Put activations in the main memory (a scratchpad where they fit) and residents by their use per byte.

    ``works`` are the kernels' works with their counts. What the device's own memories cannot hold goes to the host
    when ``policy.spill`` allows it; else `DoesNotFitError`.
    """
    default = _home_of_activations(card, use)
    room = {memory.name: memory.capacity for memory in _tiers(card)}
    peak = dict.fromkeys(room, 0.0)
    _take(room, peak, default, min(use.peak_activations, room[default]))
    overflow = use.peak_activations - peak[default]
    elsewhere = {HOST: overflow / use.peak_activations} if overflow > 0 else {}
    shares: dict[str, Mapping[str, float]] = {}
    homes = _homes_of_residents(card)
    for storage, nbytes in _by_use(graph, works):
        shares[storage], left = _spread(nbytes, homes, room, peak)
        overflow += left
        if left:
            shares[storage] = {**shares[storage], HOST: left / nbytes}
    if overflow > 0:
        needed = sum(use.resident.values()) + use.peak_activations
        if not policy.spill or card.link("host") is None:
            advice = "the mappers tiered and offload use further memories, spill the host's"
            raise DoesNotFitError(graph.name, needed, needed - overflow, f"the memories of {card.name}", advice)
        peak[HOST] = overflow
    at_home = {default: 1.0} if not elsewhere else {}
    kept = {storage: share for storage, share in shares.items() if share != at_home}
    return Placed(Placement(default, kept, elsewhere), peak, tuple(_notes(peak, card)))


def _home_of_activations(card: Card, use: Usage) -> str:
    for memory in card.memories:
        if memory.kind == "scratchpad" and memory.capacity >= use.peak_activations:
            return memory.name
    return card.main.name


def _tiers(card: Card) -> list[Memory]:
    """The memories that software places data in, nearest first."""
    return [memory for memory in card.memories if memory.kind != "cache"]


def _homes_of_residents(card: Card) -> list[str]:
    """Weights and states live in main memories and storage; in scratchpads only where there is nothing else."""
    tiers = _tiers(card)
    return [memory.name for memory in tiers if memory.kind != "scratchpad"] or [memory.name for memory in tiers]


def _by_use(graph: Graph, works: Iterable[tuple[Work, int]]) -> list[tuple[str, float]]:
    """Resident storages with their bytes, most traffic per byte first (ties: in the order of the graph)."""
    traffic: dict[str, float] = {}
    for work, count in works:
        for access in work.accesses:
            traffic[access.tensor] = traffic.get(access.tensor, 0.0) + count * access.nbytes
    sizes = [(name, graph.nbytes[name] * graph.copies[name]) for name in graph.structure.residents]
    sizes = [(name, nbytes) for name, nbytes in sizes if nbytes > 0]
    return sorted(sizes, key=lambda item: -traffic.get(item[0], 0.0) / item[1])


def _spread(
    nbytes: float, homes: list[str], room: dict[str, float], peak: dict[str, float]
) -> tuple[dict[str, float], float]:
    """Fill the memories from the nearest outwards; returns the shares and the bytes that found no room."""
    shares: dict[str, float] = {}
    left = nbytes
    for memory in homes:
        taken = min(left, room[memory])
        if taken > 0:
            _take(room, peak, memory, taken)
            shares[memory] = taken / nbytes
            left -= taken
    return shares, left


def _take(room: dict[str, float], peak: dict[str, float], memory: str, nbytes: float) -> None:
    room[memory] -= nbytes
    peak[memory] += nbytes


def _notes(peak: Mapping[str, float], card: Card) -> Iterable[str]:
    main = card.main.name
    for memory, nbytes in peak.items():
        if memory == HOST:
            yield f"{format_quantity(nbytes, 'B')} spilled to the host"
        elif memory != main and nbytes and card.memory(memory).kind in ("main", "storage"):
            yield f"{format_quantity(nbytes, 'B')} overflowed from {main} to {memory}"
