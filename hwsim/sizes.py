"""Symbolic sizes: integer expressions over named symbols such as ``batch`` and ``past``.

A graph is captured once with symbolic sizes and bound per case. A `Size` is a plain ``int`` wherever the
value is known, so that concrete graphs never pay for the symbols. Expressions are trees of integer
operations, serialisable as nested lists: no text is ever evaluated.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hwsim.errors import GraphError

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "max": max,
    "min": min,
}


@dataclass(frozen=True, slots=True, eq=True)
class Expr:
    """A symbol (``operation == "symbol"``) or a binary integer operation on two sizes."""

    operation: str
    left: Size | str
    right: Size | str = 0

    def __add__(self, other: Size) -> Size:
        return combine("+", self, other)

    def __radd__(self, other: Size) -> Size:
        return combine("+", other, self)

    def __sub__(self, other: Size) -> Size:
        return combine("-", self, other)

    def __rsub__(self, other: Size) -> Size:
        return combine("-", other, self)

    def __mul__(self, other: Size) -> Size:
        return combine("*", self, other)

    def __rmul__(self, other: Size) -> Size:
        return combine("*", other, self)

    def __floordiv__(self, other: Size) -> Size:
        return combine("//", self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return combine("//", other, self)

    def __mod__(self, other: Size) -> Size:
        return combine("%", self, other)

    def __repr__(self) -> str:
        if self.operation == "symbol":
            return str(self.left)
        if self.operation in ("max", "min"):
            return f"{self.operation}({self.left!r}, {self.right!r})"
        return f"({self.left!r} {self.operation} {self.right!r})"


Size: TypeAlias = int | Expr


def symbol(name: str) -> Expr:
    """The free size called ``name``."""
    return Expr("symbol", name)


def combine(operation: str, left: Size, right: Size) -> Size:
    """``left operation right``, folded to an ``int`` when both sides are known."""
    if isinstance(left, int) and isinstance(right, int):
        return _OPERATIONS[operation](left, right)
    if operation in ("*", "//") and right == 1:
        return left
    if operation == "*" and left == 1:
        return right
    if operation == "*" and (left == 0 or right == 0):
        return 0
    if operation == "+" and left == 0:
        return right
    if operation in ("+", "-") and right == 0:
        return left
    return Expr(operation, left, right)


def product(sizes: Iterable[Size]) -> Size:
    """The product of ``sizes`` (1 when there is none), constants gathered in front."""
    constant = 1
    free: Size = 1
    for size in sizes:
        if isinstance(size, int):
            constant *= size
        else:
            free = combine("*", free, size)
    return combine("*", constant, free)


def symbols_of(size: Size) -> frozenset[str]:
    """Names of the free symbols in ``size``."""
    if isinstance(size, int):
        return frozenset()
    if size.operation == "symbol":
        return frozenset({str(size.left)})
    return symbols_of(_size(size.left)) | symbols_of(_size(size.right))


class Tape:
    """Many sizes as one list of integer operations, each different one of which is done once per assignment.

    `add` gives the place of a size; `run` gives the values of all places.
    """

    def __init__(self) -> None:
        self._values: list[int] = []  # the constants; what `run` fills in is 0 until then
        self._symbols: dict[str, int] = {}
        self._steps: list[tuple[int, Callable[[int, int], int], int, int]] = []
        self._places: dict[int | tuple[str, int, int], int] = {}
        # Keyed by identity, since hashing whole trees costs more; the expression is kept so that its id stays its own.
        self._known: dict[int, tuple[Expr, int]] = {}

    def add(self, size: Size) -> int:
        """The place of ``size``; those that are computed alike share one."""
        if isinstance(size, int):
            return self._place(size, size)
        known = self._known.get(id(size))
        if known is None:
            known = self._known[id(size)] = (size, self._added(size))
        return known[1]

    def run(self, values: Mapping[str, int]) -> list[int]:
        """The values of all places; every symbol needs one."""
        found = self._values.copy()
        for name, place in self._symbols.items():
            if name not in values:
                known = ", ".join(sorted(values)) or "none"
                raise GraphError(f"size '{name}' is free: give it a value (given: {known})")
            found[place] = values[name]
        for place, operation, left, right in self._steps:
            found[place] = operation(found[left], found[right])
        return found

    def _added(self, size: Expr) -> int:
        if size.operation == "symbol":
            name = str(size.left)
            if name not in self._symbols:
                self._symbols[name] = self._new(0)
            return self._symbols[name]
        left, right = self.add(_size(size.left)), self.add(_size(size.right))
        before = len(self._values)
        place = self._place((size.operation, left, right), 0)
        if place == before:
            self._steps.append((place, _OPERATIONS[size.operation], left, right))
        return place

    def _place(self, key: int | tuple[str, int, int], value: int) -> int:
        if key not in self._places:
            self._places[key] = self._new(value)
        return self._places[key]

    def _new(self, value: int) -> int:
        self._values.append(value)
        return len(self._values) - 1


def to_json(size: Size) -> int | list[Any]:
    """``size`` as an int or a nested list ``[operation, left, right]``."""
    if isinstance(size, int):
        return size
    if size.operation == "symbol":
        return ["symbol", size.left]
    return [size.operation, to_json(_size(size.left)), to_json(_size(size.right))]


def from_json(data: Any) -> Size:
    """The inverse of `to_json`; anything else raises `GraphError`."""
    if isinstance(data, int) and not isinstance(data, bool):
        return data
    if isinstance(data, list) and len(data) == 2 and data[0] == "symbol" and isinstance(data[1], str):
        return symbol(data[1])
    if isinstance(data, list) and len(data) == 3 and data[0] in _OPERATIONS:
        return Expr(data[0], from_json(data[1]), from_json(data[2]))
    raise GraphError(f"not a size: {data!r}")


def _size(side: Size | str) -> Size:
    if isinstance(side, str):
        raise GraphError(f"a symbol name '{side}' stands where a size is expected")
    return side
