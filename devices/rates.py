"""How fast, and at what energy, a card calculates in a number format: in that format or the next wider one it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, isfinite

from hwsim.card import Card
from hwsim.dtypes import DType, dtype
from hwsim.errors import CardError

COMPLEX = {"complex64": "fp32", "complex128": "fp64"}  # work counts real operations
FMA_FLOPS = 2  # that a vector peak counts for one instruction, while most vector work is single operations
SIGNIFICANT_BITS = {"tf32": 19}  # stored in 32 bits, but no wider than this


@dataclass(frozen=True, slots=True)
class Rate:
    """FLOP/s and J/FLOP of arithmetic that is carried out in ``format``."""

    format: str
    flops: float
    joules: float

    def seconds(self, flops: float) -> float:
        """Time of ``flops`` at the full rate in s."""
        return flops / self.flops if flops else 0.0


class Rates:
    """The arithmetic of one card.

    Matrix products run on the matrix units, else on the vector lanes. Vector work runs on the vector lanes; on a card
    without vector rates it takes the matrix units at their widest format, so that it is never free. Special
    functions without a rate of their own run as one vector operation each. Raises `CardError` for a card with
    neither energies nor a power limit to bound them.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._known: dict[tuple[str, str], Rate] = {}
        unbounded = not isfinite(card.limit)
        for name, rates, energies in (
            ("matmul", card.matmul, card.matmul_energy),
            ("vector", card.vector, card.vector_energy),
        ):
            if rates and unbounded and not energies:
                raise CardError(f"card '{card.name}' needs energy.{name} or power.limit: it has {name} rates")

    def matmul(self, name: str) -> Rate:
        """The rate of matrix products of operands in the format ``name``."""
        return self._remembered("matmul", name)

    def vector(self, name: str) -> Rate:
        """The rate of vector operations in the format ``name``."""
        return self._remembered("vector", name)

    def special(self, name: str) -> Rate:
        """The rate of special functions in the format ``name``, each of the energy of a vector operation."""
        vector = self.vector(name)
        return Rate(vector.format, self._card.special or vector.flops, vector.joules)

    def _remembered(self, unit: str, name: str) -> Rate:
        key = (unit, name)
        if key not in self._known:
            self._known[key] = self._matmul(name) if unit == "matmul" else self._vector(name)
        return self._known[key]

    def _matmul(self, name: str) -> Rate:
        card = self._card
        for rates, energies in ((card.matmul, card.matmul_energy), (card.vector, card.vector_energy)):
            found = next_wider(name, rates)
            if found:
                return Rate(found, rates[found], self._joules(found, energies, rates[found]))
        raise self._cannot(name)

    def _vector(self, name: str) -> Rate:
        card = self._card
        if not card.vector:
            if not card.matmul:
                raise self._cannot(name)
            widest = max(card.matmul, key=lambda fmt: dtype(fmt).bits)
            rate = card.matmul[widest]
            return Rate(widest, rate, self._joules(widest, card.matmul_energy, rate))
        found = next_wider(name, card.vector)
        if found:
            return Rate(found, card.vector[found], self._joules(found, card.vector_energy, card.vector[found]))
        wanted = dtype(name)
        if wanted.kind == "float":
            raise self._cannot(name)
        widest = max(card.vector, key=lambda fmt: dtype(fmt).bits)
        words = ceil(wanted.bits / dtype(widest).bits)
        rate = card.vector[widest] / words
        return Rate(widest, rate, words * self._joules(widest, card.vector_energy, words * rate))

    def _joules(self, name: str, energies: Mapping[str, float], rate: float) -> float:
        """J/FLOP: the card's figure, the next wider format's, else the bound (limit - idle) / rate."""
        found = next_wider(name, energies)
        if found:
            return energies[found]
        if isfinite(self._card.limit):
            return max(0.0, self._card.limit - self._card.idle) / rate
        raise CardError(f"card '{self._card.name}' lacks the energy of {name} operations")

    def _cannot(self, name: str) -> CardError:
        matmul = ", ".join(self._card.matmul) or "none"
        vector = ", ".join(self._card.vector) or "none"
        return CardError(
            f"card '{self._card.name}' cannot calculate in {name} or wider: "
            f"its matrix formats are {matmul}, its vector formats {vector}"
        )


def next_wider(name: str, rates: Mapping[str, float]) -> str | None:
    """The narrowest format of ``rates`` that holds the values of the format ``name``; None where none does."""
    if name in rates:
        return name
    wanted = dtype(COMPLEX.get(name, name))
    able = [dtype(fmt) for fmt in rates if _holds(dtype(fmt), wanted)]
    if not able:
        return None
    return min(able, key=lambda fmt: (_bits(fmt), fmt.kind != wanted.kind)).name


def _holds(have: DType, wanted: DType) -> bool:
    """Whether ``have`` carries values of ``wanted``.

    A float holds integers and block formats of half its bits in its significand; the 32-bit lanes of a float unit
    do 32-bit integer work as well.
    """
    if wanted.kind == "float":
        return have.kind == "float" and _bits(have) >= _bits(wanted)
    if wanted.kind == "block":
        return _bits(have) >= (2 if have.kind == "float" else 1) * wanted.bits and have.kind != "int"
    if have.kind == "float":
        return have.bits >= 2 * wanted.bits or have.bits >= max(32, wanted.bits)
    return have.kind == "int" and have.bits >= wanted.bits


def _bits(fmt: DType) -> float:
    return SIGNIFICANT_BITS.get(fmt.name, fmt.bits)
