"""What every language model of the zoo promises: one forward for training, prefill and decode."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = list[list[Tensor]]
"""Everything that one sequence batch leaves behind in each layer: key/value caches, recurrent and convolution states."""


class Layer(Protocol):
    """A residual block: `x` [B, T, d] in and out, its own `state` updated in place, `past` tokens already in it."""

    def __call__(self, x: Tensor, state: list[Tensor] | None, past: int) -> Tensor: ...

    def make_state(self, batch: int, capacity: int) -> list[Tensor]: ...


class LanguageModel(nn.Module):
    """Embedding, residual layers, final norm and vocabulary head.

    logits = norm(layer_L(... layer_1(E[tokens]))) W_headᵀ, with W_head = E when `tied`.
    Each of `layers` is a `Layer`; `norm` maps [B, T, width] to itself. A model whose layers pass more than the
    residual stream to each other overrides `mix`.
    """

    def __init__(self, vocab: int, width: int, layers: list[nn.Module], norm: nn.Module, tied: bool) -> None:
        super().__init__()
        self.vocab = vocab
        self.embedding = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = None if tied else nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor, state: State | None = None, past: int = 0) -> Tensor:
        """Logits of `tokens` [B, T]: [B, T, V] without state; with it (updated in place), of the last token, [B, 1, V]."""
        x = self.mix(self.embedding(tokens), state, past)
        if state is not None:
            x = x[:, -1:]
        head = self.embedding if self.head is None else self.head
        return F.linear(self.norm(x), cast(Tensor, head.weight))

    def mix(self, x: Tensor, state: State | None, past: int) -> Tensor:
        """The residual stream [B, T, d] after all layers."""
        for index, layer in enumerate(self.layers):
            x = layer(x, None if state is None else state[index], past)
        return x

    def make_state(self, batch: int, capacity: int) -> State:
        """An empty state for `batch` sequences of at most `capacity` tokens, on the default device."""
        return [cast(Layer, layer).make_state(batch, capacity) for layer in self.layers]

    def example_inputs(self, phase: str, batch: int, prompt: int) -> dict[str, Any]:
        """Keyword arguments of `forward` for the `phase` 'forward', 'train', 'prefill' or 'decode' (one token after
        `prompt` cached ones)."""
        if phase in ("forward", "train"):
            return {"tokens": torch.zeros(batch, prompt, dtype=torch.int64)}
        if phase == "prefill":
            tokens = torch.zeros(batch, prompt, dtype=torch.int64)
            return {"tokens": tokens, "state": self.make_state(batch, prompt), "past": 0}
        if phase == "decode":
            tokens = torch.zeros(batch, 1, dtype=torch.int64)
            return {"tokens": tokens, "state": self.make_state(batch, prompt + 1), "past": prompt}
        raise ValueError(f"phase {phase!r}: expected 'forward', 'train', 'prefill' or 'decode'")
