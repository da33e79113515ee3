"""Access patterns: the bursts that a load asks for, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from hwsim.devices.dram.card import Dram
from hwsim.devices.dram.layout import L_ADDRESS, L_BANK, L_ROW, L_WRITE, Ints
from hwsim.devices.dram.mapping import address_map, divided

Pattern: TypeAlias = Literal["stream", "linear", "stride", "random", "chase"]
PATTERNS: tuple[str, ...] = get_args(Pattern)
MAX_BURSTS = 50_000_000
AT_ONCE = 1 << 13  # bursts placed together: larger arrays take most of their time to get memory


@dataclass(frozen=True)
class Requests:
    """A load, and the request that each of its bursts belongs to."""

    load: Ints
    request: Ints
    count: int


def requests_of(
    card: Dram,
    pattern: Pattern,
    mapping: str,
    channels: int,
    count: int,
    size: int,
    stride: int,
    read_share: float,
    seed: int,
) -> Requests:
    """``count`` requests of ``size`` bytes over ``channels`` of a card.

    stream: one after the other, dealt out to all channels and banks; linear: one after the other in the mapping's
    order; stride: ``stride`` bytes apart; random, chase: anywhere, aligned to their size. Writes lie half a memory away
    from reads and are spread evenly among them.
    """
    bursts = -(-size // card.burst_bytes)
    where = address_map("stream" if pattern == "stream" else mapping, field_sizes(card, channels))
    numbers = np.arange(count, dtype=np.int64)
    write = _written(numbers, read_share)
    if pattern in ("random", "chase"):
        chance = np.random.default_rng(seed)
        start = chance.integers(0, max(where.bursts // bursts, 1), count) * bursts
    else:
        step = -(-stride // card.burst_bytes) if pattern == "stride" else bursts
        place = np.where(write, np.cumsum(write), np.cumsum(~write)) - 1 if write.any() else numbers
        start = place * step + write * (where.bursts // 2)
    if bursts > 1:
        start = np.repeat(start, bursts) + np.tile(np.arange(bursts), count)
        write, numbers = np.repeat(write, bursts), np.repeat(numbers, bursts)
    load = np.empty((len(start), 4), np.int64)
    load[:, L_WRITE] = write
    for first in range(0, len(start), AT_ONCE):
        part = load[first : first + AT_ONCE]
        _, part[:, L_ADDRESS] = divided(start[first : first + AT_ONCE], where.bursts)
        found = where.place(part[:, L_ADDRESS])
        part[:, L_BANK], part[:, L_ROW] = found.bank, found.row
    return Requests(load, numbers, count)


def _written(numbers: Ints, read_share: float) -> NDArray[np.bool_]:
    """Which requests write, evenly spread: where the share of writes adds up to one more."""
    if read_share == 1.0:
        return np.zeros(len(numbers), np.bool_)
    share = 1.0 - read_share
    written: NDArray[np.bool_] = np.floor((numbers + 1) * share + 1e-9) > np.floor(numbers * share + 1e-9)
    return written


def field_sizes(card: Dram, channels: int) -> dict[str, int]:
    """How many values each field of an address has."""
    counts = card.organization
    return {
        "Ro": counts["rows"],
        "Co": counts["columns"] // counts["burst_length"],
        "Ba": counts["banks"],
        "Bg": counts["bank_groups"],
        "St": counts["stacks"],
        "Ra": counts["ranks"],
        "Pc": counts["pseudo_channels"],
        "Ch": channels,
    }
