"""What every language model of the zoo promises: one forward for training, prefill and decode."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = list[list[Tensor]]
"""What one batch leaves behind in each layer: key/value caches, recurrent and convolution states."""


class Position(NamedTuple):
    """Where the tokens of a call stand: after `past` cached ones, at angles of (cos, sin) `rotation`."""

    past: int = 0
    rotation: tuple[Tensor, Tensor] | None = None


class Rotary(Protocol):
    """Gives (cos, sin) for `tokens` positions after `past`, once per forward for all layers."""

    def __call__(self, tokens: int, past: int) -> tuple[Tensor, Tensor]: ...


class Layer(Protocol):
    """A residual block: `x` [B, T, d] in and out; its own `state` is updated in place."""

    def __call__(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor: ...

    def make_state(self, batch: int, capacity: int) -> list[Tensor]: ...


class LanguageModel(nn.Module):
    """Embedding, residual layers, final norm and vocabulary head.

    logits = norm(layer_L(... layer_1(E[tokens]))) W_headᵀ, with W_head = E when `tied`.
    Each of `layers` is a `Layer`; `norm` maps [B, T, width] to itself; set `rotary` where layers rotate.
    A model whose layers pass more than the residual stream to each other overrides `mix`.
    """

    def __init__(self, vocab: int, width: int, layers: list[nn.Module], norm: nn.Module, tied: bool) -> None:
        super().__init__()
        self.vocab = vocab
        self.embedding = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = None if tied else nn.Linear(width, vocab, bias=False)
        self.rotary: Rotary | None = None

    def forward(self, tokens: Tensor, state: State | None = None, past: int = 0) -> Tensor:
        """Logits of `tokens` [B, T]: [B, T, V] without `state`; with it, of the last token, [B, 1, V]."""
        rotation = None if self.rotary is None else self.rotary(tokens.shape[1], past)
        x = self.mix(self.embedding(tokens), state, Position(past, rotation))
        if state is not None:
            x = x[:, -1:]
        head = self.embedding if self.head is None else self.head
        return F.linear(self.norm(x), head.weight)

    def mix(self, x: Tensor, state: State | None, position: Position) -> Tensor:
        """The residual stream [B, T, d] after all layers."""
        for index, layer in enumerate(self.layers):
            x = layer(x, None if state is None else state[index], position)
        return x

    def make_state(self, batch: int, capacity: int) -> State:
        """An empty state for `batch` sequences of at most `capacity` tokens, on the default device."""
        return [cast(Layer, layer).make_state(batch, capacity) for layer in self.layers]

    def example_inputs(self, phase: str, batch: int, prompt: int) -> dict[str, Any]:
        """Keyword arguments of `forward` in `phase`.

        'forward' and 'train' take `prompt` tokens, 'prefill' too, into an empty state; 'decode' takes the
        token after `prompt` cached ones.
        """
        if phase in ("forward", "train"):
            return {"tokens": torch.zeros(batch, prompt, dtype=torch.int64)}
        if phase == "prefill":
            tokens = torch.zeros(batch, prompt, dtype=torch.int64)
            return {"tokens": tokens, "state": self.make_state(batch, prompt), "past": 0}
        if phase == "decode":
            tokens = torch.zeros(batch, 1, dtype=torch.int64)
            return {"tokens": tokens, "state": self.make_state(batch, prompt + 1), "past": prompt}
        raise ValueError(f"phase {phase!r}: expected 'forward', 'train', 'prefill' or 'decode'")
