"""Symbolic sizes: integer expressions over named symbols such as ``batch`` and ``past``.

A graph is captured once with symbolic sizes and bound per case. A `Size` is a plain ``int`` wherever the
value is known, so that concrete graphs never pay for the symbols. Expressions are trees of integer
operations, serialisable as nested lists: no text is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hwsim.errors import GraphError

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
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


class Binder:
    """Evaluates sizes under one assignment of the symbols; equal expressions are computed once."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = dict(values)
        self._known: dict[int, tuple[Expr, int]] = {}

    def __call__(self, size: Size) -> int:
        if isinstance(size, int):
            return size
        # Keyed by identity, since hashing whole trees costs more; the expression is kept so that its id stays its own.
        known = self._known.get(id(size))
        if known is None:
            known = (size, self._evaluate(size))
            self._known[id(size)] = known
        return known[1]

    def _evaluate(self, size: Expr) -> int:
        if size.operation == "symbol":
            name = str(size.left)
            if name not in self._values:
                known = ", ".join(sorted(self._values)) or "none"
                raise GraphError(f"size '{name}' is free: give it a value (given: {known})")
            return self._values[name]
        return _OPERATIONS[size.operation](self(_size(size.left)), self(_size(size.right)))


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
