"""Sizes of captured tensors: plain integers, or expressions of torch's symbolic integers turned into ours."""

from __future__ import annotations

from functools import reduce
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch

from hwsim.errors import GraphError
from hwsim.sizes import Size, combine, symbol

_BINARY = {"FloorDiv": "//", "CleanDiv": "//", "Mod": "%", "PythonMod": "%", "Max": "max", "Min": "min"}
_FOLDED = {"Add": "+", "Mul": "*"}


class Sizes:
    """Converts sizes; knows the name that each symbol of the shape environment was given by the caller.

    An expression is converted once: tensors of one graph share few different sizes.
    """

    def __init__(self, names: dict[Any, str] | None = None) -> None:
        self.symbolic = bool(names)
        self._names = names or {}
        self._known: dict[Any, Size] = {}

    def plain(self, value: Any) -> Any:
        """``value``, an integer or a tuple of them, in a form that can be hashed."""
        if isinstance(value, torch.SymInt):
            return value.node.expr
        return tuple(map(self.plain, value)) if isinstance(value, tuple) else value

    def __call__(self, value: int | torch.SymInt) -> Size:
        if not isinstance(value, torch.SymInt):
            return int(value)
        expression = value.node.expr
        known = self._known.get(expression)
        if known is None:
            known = self._known[expression] = self._convert(expression)
        return known

    def _convert(self, expression: Any) -> Size:
        if expression.is_Integer:
            return int(expression)
        if expression.is_Symbol:
            return self._symbol(expression)
        operation = type(expression).__name__
        if operation in _FOLDED:
            # Largest terms last in sympy's order: fold from the left, constants first.
            return reduce(lambda a, b: combine(_FOLDED[operation], a, b), map(self._convert, expression.args))
        if operation in _BINARY:
            return reduce(lambda a, b: combine(_BINARY[operation], a, b), map(self._convert, expression.args))
        if operation == "Pow" and expression.args[1].is_Integer and int(expression.args[1]) > 0:
            return reduce(
                lambda a, b: combine("*", a, b), [self._convert(expression.args[0])] * int(expression.args[1])
            )
        if operation == "ModularIndexing":
            base, divisor, modulus = map(self._convert, expression.args)
            return combine("%", combine("//", base, divisor), modulus)
        if operation in ("CeilToInt", "FloorToInt", "TruncToInt"):
            return self._rounded(expression.args[0], up=operation == "CeilToInt")
        raise GraphError(f"the size {expression} has no meaning as an integer expression ({operation})")

    def _symbol(self, expression: Any) -> Size:
        name = self._names.get(expression)
        if name is None:
            raise GraphError(f"the size {expression} depends on the values of a tensor, which a graph does not know")
        return symbol(name)

    def _rounded(self, quotient: Any, up: bool) -> Size:
        """``ceil(a / b)`` as ``(a + b - 1) // b``."""
        if type(quotient).__name__ not in ("IntTrueDiv", "FloatTrueDiv"):
            return self._convert(quotient)
        above, below = (self._convert(_integer(side)) for side in quotient.args)
        return combine("//", combine("+", above, combine("-", below, 1)) if up else above, below)


def _integer(expression: Any) -> Any:
    """``ToFloat(a)`` is ``a``, and a float that is whole is an integer."""
    if type(expression).__name__ == "ToFloat":
        return expression.args[0]
    return sympy.Integer(int(expression)) if expression.is_Float and expression == int(expression) else expression
