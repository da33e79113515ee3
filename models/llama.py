"""The Llama family (Touvron et al., arXiv 2302.13971 and 2307.09288; Llama 3, arXiv 2407.21783)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwsim.models.language import LanguageModel
from hwsim.models.layers import Attention, AttentionConfig, Block, RotaryEmbedding, SwiGLU


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Shape of a Llama; `merged` keeps W_q, W_k, W_v in one matrix, and the two input matrices of an MLP too.

    `rope_stretch` > 1 divides the slow rotary frequencies of a model trained on 8,192 positions by it.
    """

    layers: int = 32
    width: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    hidden: int = 14336
    vocab: int = 128256
    tied: bool = False
    rope_base: float = 500000.0
    rope_stretch: float = 1.0
    eps: float = 1e-5
    merged: bool = True


class StretchedRotary(RotaryEmbedding):
    """Rotary positions of Llama 3.1: f' = (1 - s) f / stretch + s f, s = clamp((n f / 2π - 1) / 3, 0, 1).

    A frequency that turns 4 times or more within the n = 8192 trained positions stays, one that turns at most
    once is divided by `stretch` (`rope_scaling` of the published config.json: low factor 1, high factor 4).
    """

    def __init__(self, head_dim: int, base: float, stretch: float) -> None:
        super().__init__(head_dim, base)
        frequency: Tensor = self.get_buffer("frequency")
        share = ((8192 * frequency / (2 * math.pi) - 1) / 3).clamp(0, 1)
        self.register_buffer("frequency", torch.lerp(frequency / stretch, frequency, share), persistent=False)


def decoder_block(config: LlamaConfig, mlp: nn.Module) -> Block:
    """One layer of a Llama around its `mlp`."""
    attention = AttentionConfig(config.width, config.heads, config.kv_heads, config.head_dim, merged=config.merged)
    norms = [nn.RMSNorm(config.width, config.eps) for _ in range(2)]
    return Block(Attention(attention), norms[0], mlp, norms[1])


class Llama(LanguageModel):
    """Pre-norm decoder of rotary grouped-query attention and SwiGLU, with RMSNorm."""

    def __init__(self, config: LlamaConfig) -> None:
        layers: list[nn.Module] = [
            decoder_block(config, SwiGLU(config.width, config.hidden, config.merged)) for _ in range(config.layers)
        ]
        super().__init__(config.vocab, config.width, layers, nn.RMSNorm(config.width, config.eps), config.tied)
        self.config = config
        self.rotary = StretchedRotary(config.head_dim, config.rope_base, config.rope_stretch)
