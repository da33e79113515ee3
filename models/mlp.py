"""The two-matrix MLP of GPT-like models, and the block in which it runs beside attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import Position
from hwsim.models.layers import Block


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)² (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu2": squared_relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class Mlp(nn.Module):
    """y = W2 a(W1 x + b1) + b2, without b1 and b2 where `bias` is False; x [B, T, width], W1 [hidden, width].

    `activation` names a, one of `ACTIVATIONS`.
    """

    def __init__(self, width: int, hidden: int, activation: str, bias: bool) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation '{activation}'; one of {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[activation]
        self.input = nn.Linear(width, hidden, bias=bias)
        self.output = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width] to [..., width]."""
        return cast(Tensor, self.output(self.activation(self.input(x))))


class ParallelBlock(Block):
    """A residual block whose halves read the same normalised input: x + mixer(norm(x)) + mlp(norm(x))."""

    def __init__(self, mixer: nn.Module, norm: nn.Module, mlp: nn.Module) -> None:
        super().__init__(mixer, norm)
        self.beside = mlp

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d]."""
        h = self.mixer_norm(x)
        return x + cast(Tensor, self.mixer(h, state, position)) + cast(Tensor, self.beside(h))
