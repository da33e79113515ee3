"""Copies to a peer and collectives over the links between devices, by the formulas of ring algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwsim.card import Card, Link
from hwsim.errors import CardError, lookup
from hwsim.graph import Kind
from hwsim.mapper import Kernel

# Input bytes of one rank and ranks -> (bytes that each rank sends, steps one after the other); Thakur et al.,
# Optimization of collective communication operations in MPICH, IJHPCA 2005.
RING: dict[str, Callable[[float, int], tuple[float, int]]] = {
    "all_reduce": lambda nbytes, ranks: (2 * nbytes * (ranks - 1) / ranks, 2 * (ranks - 1)),
    "all_gather": lambda nbytes, ranks: (nbytes * (ranks - 1), ranks - 1),
    "reduce_scatter": lambda nbytes, ranks: (nbytes * (ranks - 1) / ranks, ranks - 1),
    "all_to_all": lambda nbytes, ranks: (nbytes * (ranks - 1) / ranks, ranks - 1),
    "broadcast": lambda nbytes, ranks: (nbytes, ranks - 1),
    "copy_peer": lambda nbytes, ranks: (nbytes, 1),
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """Bytes that one rank sends over ``link`` in ``steps``, and the time in s that it takes."""

    link: Link
    nbytes: float
    seconds: float
    steps: int = 1


def exchange(card: Card, kernel: Kernel) -> Exchange | None:
    """What a collective kernel sends to peers: steps x latency + bytes / bandwidth; None for other kernels."""
    if kernel.kind is not Kind.COLLECTIVE:
        return None
    link = card.link("peer") or card.link("switch")
    if link is None:
        raise CardError(f"card '{card.name}' has no link to a peer or a switch for '{kernel.name}'")
    formula = lookup("collective", str(kernel.attrs.get("function", "")), RING)
    nbytes, steps = formula(kernel.read_bytes, kernel.size("ranks", 2))
    return Exchange(link, nbytes, steps * link.latency + nbytes / link.bandwidth, steps)
