"""Free sizes: symbolic integers with the caller's names, and the check that none was fixed on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from hwsim.errors import GraphError
from hwsim.frontends.symbols import Sizes


class FreeSizes:
    """``values`` are the symbolic integers by name, ``mode`` runs tensors of such sizes, ``sizes`` converts them."""

    def __init__(self, hints: Mapping[str, int]) -> None:
        self._env = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self._env, allow_non_fake_inputs=True)
        self._symbols: dict[str, Any] = {}
        self.values: dict[str, torch.SymInt] = {}
        for name, hint in hints.items():
            if hint < 2:
                raise GraphError(f"the hint of the free size '{name}' must be at least 2 (1 broadcasts); got {hint}")
            source = ConstantSource(name)
            symbol = self._env.create_symbol(hint, source=source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
            self._symbols[name] = symbol
            self.values[name] = self._env.create_symintnode(symbol, hint=hint, source=source)  # type: ignore[assignment]
        self.sizes = Sizes({symbol: name for name, symbol in self._symbols.items()})

    def adopt(self, tensor: torch.Tensor) -> torch.Tensor:
        """A meta tensor of fixed sizes in the form that the mode works with."""
        return self.mode.from_tensor(tensor, static_shapes=True)

    def check(self) -> None:
        """Raise `GraphError` for every size that the traced code fixed to a value or tied to another."""
        for name, symbol in self._symbols.items():
            now = self._env.replace(symbol)
            if now != symbol:
                raise GraphError(
                    f"the size '{name}' cannot stay free: the module's code fixes it to {self._shown(now)}"
                )

    def _shown(self, expression: Any) -> str:
        return str(expression.xreplace({symbol: type(symbol)(name) for name, symbol in self._symbols.items()}))
