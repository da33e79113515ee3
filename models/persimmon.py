"""Persimmon (Adept 2023): rotary attention with normalised queries and keys, and squared-ReLU MLPs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hwsim.models.language import LanguageModel
from hwsim.models.layers import Attention, AttentionConfig, Block, RotaryEmbedding
from hwsim.models.mlp import Mlp


@dataclass(frozen=True, slots=True)
class PersimmonConfig:
    """Shape of a Persimmon; the first `rotary` channels of a head are turned."""

    layers: int = 36
    width: int = 4096
    heads: int = 64
    rotary: int = 32
    hidden: int = 16384
    vocab: int = 262144
    rope_base: float = 25000.0
    eps: float = 1e-5


class NormedAttention(Attention):
    """Attention whose norms of q and k subtract the mean and have a bias."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        for name in ("query_norm", "key_norm"):
            self.add_module(name, nn.LayerNorm(config.head_dim, config.qk_norm_eps or 0.0))


class Persimmon(LanguageModel):
    """Pre-norm decoder with biases everywhere; input and output embedding are two."""

    def __init__(self, config: PersimmonConfig) -> None:
        layers: list[nn.Module] = [_block(config) for _ in range(config.layers)]
        super().__init__(config.vocab, config.width, layers, nn.LayerNorm(config.width, config.eps), tied=False)
        self.config = config
        self.rotary = RotaryEmbedding(config.rotary, config.rope_base)


def _block(config: PersimmonConfig) -> Block:
    width, heads = config.width, config.heads
    attention = AttentionConfig(
        width, heads, heads, width // heads, bias=True, output_bias=True, merged=True, qk_norm_eps=config.eps
    )
    norms = [nn.LayerNorm(width, config.eps) for _ in range(2)]
    mlp = Mlp(width, config.hidden, "relu2", bias=True)
    return Block(NormedAttention(attention), norms[0], mlp, norms[1])
