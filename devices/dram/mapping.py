"""Address mappings: which bits of an address choose the channel, bank, row and column.

A mapping is written as its fields from the most to the least significant: `RoBaRaCoCh` keeps consecutive bursts of a
channel in one row, `RoCoBaRaCh` deals them out to the banks. Fields: Ro row, Co column, Ba bank, Bg bank group, St
stack (of HBM), Ra rank, Pc pseudo-channel, Ch channel. Without Bg, Ba stands for BaBg; without St and Pc, Ra for
StRaPc. A number behind Co leaves that many of its low bits there and the others at the other Co: `RoCoBaRaCo2Ch`. `Xor`
at the end flips the bits of bank fields by those of the column, so that rows that conflict spread out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.devices.dram.layout import Ints
from hwsim.errors import InputError, Problem, shown

FIELDS = ("Ro", "Co", "Ba", "Bg", "St", "Ra", "Pc", "Ch")
NAMED = {"MOP4CLXOR": "RoCoBaRaCo2ChXor", "stream": "RoCoBaStRaBgPcCh"}
_SPELLING = re.compile(r"((?:Ro|Co|Ba|Bg|St|Ra|Pc|Ch)\d*)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where bursts lie; ``bank`` counts through all channels."""

    bank: Ints
    row: Ints
    column: Ints


@dataclass(frozen=True)
class AddressMap:
    """A mapping for a memory of these ``sizes`` (values of each field)."""

    sizes: Mapping[str, int]
    fields: tuple[tuple[str, int], ...]  # from the least significant: the field and how many values of it
    xor: bool

    @property
    def bursts(self) -> int:
        """Bursts that the memory holds."""
        total = 1
        for size in self.sizes.values():
            total *= size
        return total

    def place(self, burst: NDArray[np.int64]) -> Place:
        """Where the bursts with these numbers lie; numbers beyond the memory begin again at 0."""
        _, rest = divided(burst, self.bursts)
        found = dict.fromkeys(FIELDS, np.zeros_like(rest))
        weight = dict.fromkeys(FIELDS, 1)
        for name, size in self.fields:
            if size > 1:
                rest, part = divided(rest, size)
                found[name] = found[name] + part * weight[name] if weight[name] > 1 else part
                weight[name] *= size
        if self.xor:
            self._flip(found)
        bank = found["Ch"]
        for name in ("Pc", "Ra", "St", "Bg", "Ba"):
            if self.sizes[name] > 1:
                bank = bank * self.sizes[name] + found[name]
        return Place(bank, found["Ro"], found["Co"])

    def _flip(self, found: dict[str, Ints]) -> None:
        """Exclusive-or the fields between row and channel with bits of the column, from its lowest."""
        column = found["Co"].copy()
        for name in ("Pc", "Ra", "St", "Bg", "Ba"):
            size = self.sizes[name]
            if size > 1 and not size & (size - 1):
                found[name] = found[name] ^ (column & (size - 1))
                column >>= size.bit_length() - 1


def divided(numbers: Ints, size: int) -> tuple[Ints, Ints]:
    """Quotient and rest; powers of two, as sizes of memories are, take a tenth of a division's time."""
    if size & (size - 1):
        quotient, rest = np.divmod(numbers, size)
        return quotient, rest
    return numbers >> size.bit_length() - 1, numbers & size - 1


def address_map(name: str, sizes: Mapping[str, int]) -> AddressMap:
    """The mapping of that name; `InputError` where it is none."""
    text = NAMED.get(name, name)
    xor = text.lower().endswith("xor")
    parts = _SPELLING.findall(text[:-3] if xor else text)
    if "".join(parts) != (text[:-3] if xor else text):
        raise _unreadable(name)
    fields = _expanded([(part[:2].capitalize(), part[2:]) for part in parts])
    plain = [field for field, low in fields if not low]
    if sorted(plain) != sorted(FIELDS) or any(field != "Co" for field, low in fields if low):
        raise _unreadable(name)
    low = 2 ** sum(int(bits) for _, bits in fields if bits)
    if low > sizes["Co"] or sizes["Co"] % low:
        raise InputError(Problem(f"mapping {shown(name)} takes more column bits than a row has"))
    order = [
        (field, 2 ** int(bits) if bits else sizes[field] // (low if field == "Co" else 1))
        for field, bits in reversed(fields)
    ]
    return AddressMap(sizes, tuple(order), xor)


def _expanded(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Fields with the levels that a name leaves out, each beside the one that stands for it."""
    known = {field for field, _ in fields}
    beside = {"Ba": ["Ba"] + ["Bg"] * ("Bg" not in known), "Ra": ["St"] * ("St" not in known) + ["Ra"]}
    beside["Ra"] += ["Pc"] * ("Pc" not in known)
    return [(one, bits) for field, bits in fields for one in beside.get(field, [field])]


def _unreadable(name: str) -> InputError:
    expected = f"fields {' '.join(FIELDS)} each once, such as RoBaRaCoCh or RoCoBaRaCh, or {', '.join(NAMED)}"
    return InputError(Problem("not an address mapping", got=shown(name), expected=expected))
