"""Falcon (Almazrouei et al. 2023, arXiv 2311.16867): attention with one key and value head beside the MLP."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hwsim.models.language import LanguageModel
from hwsim.models.layers import Attention, AttentionConfig, RotaryEmbedding
from hwsim.models.mlp import Mlp, ParallelBlock


@dataclass(frozen=True, slots=True)
class FalconConfig:
    """Shape of a Falcon; `activation` relu is the relufied one (arXiv 2310.04564), whose MLP is sparse."""

    layers: int = 32
    width: int = 4544
    heads: int = 71
    kv_heads: int = 1
    head_dim: int = 64
    hidden: int = 18176
    vocab: int = 65024
    activation: str = "gelu"
    rope_base: float = 10000.0
    eps: float = 1e-5


class Falcon(LanguageModel):
    """Decoder of rotary multi-query attention and MLP side by side, without biases; one embedding for both ends."""

    def __init__(self, config: FalconConfig) -> None:
        attention = AttentionConfig(config.width, config.heads, config.kv_heads, config.head_dim, merged=True)
        layers: list[nn.Module] = [
            ParallelBlock(
                Attention(attention),
                nn.LayerNorm(config.width, config.eps),
                Mlp(config.width, config.hidden, config.activation, bias=False),
            )
            for _ in range(config.layers)
        ]
        super().__init__(config.vocab, config.width, layers, nn.LayerNorm(config.width, config.eps), tied=True)
        self.config = config
        self.rotary = RotaryEmbedding(config.head_dim, config.rope_base)
