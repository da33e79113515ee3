"""Phi-2 (Microsoft 2023): attention and MLP side by side, a part of each head turned, biases everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, State
from hwsim.models.layers import Attention, AttentionConfig, RotaryEmbedding
from hwsim.models.mlp import Mlp, ParallelBlock


@dataclass(frozen=True, slots=True)
class PhiConfig:
    """Shape of a Phi; the first `rotary` channels of a head are turned; `activation` relu is the relufied one."""

    layers: int = 32
    width: int = 2560
    heads: int = 32
    rotary: int = 32
    hidden: int = 10240
    vocab: int = 51200
    activation: str = "gelu_tanh"
    rope_base: float = 10000.0
    eps: float = 1e-5


class Phi(LanguageModel):
    """Decoder of rotary attention and MLP side by side; the vocabulary head has a bias too."""

    def __init__(self, config: PhiConfig) -> None:
        layers: list[nn.Module] = [_block(config) for _ in range(config.layers)]
        super().__init__(config.vocab, config.width, layers, nn.LayerNorm(config.width, config.eps), tied=False)
        self.config = config
        self.rotary = RotaryEmbedding(config.rotary, config.rope_base)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab))

    def forward(self, tokens: Tensor, state: State | None = None, past: int = 0) -> Tensor:
        """Logits as of every language model."""
        return super().forward(tokens, state, past) + self.head_bias


def _block(config: PhiConfig) -> ParallelBlock:
    width, heads = config.width, config.heads
    attention = AttentionConfig(width, heads, heads, width // heads, bias=True, output_bias=True)
    mlp = Mlp(width, config.hidden, config.activation, bias=True)
    return ParallelBlock(Attention(attention), nn.LayerNorm(width, config.eps), mlp)
