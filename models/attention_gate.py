"""A Llama with Attention-Gate (arXiv 2410.12876): a small attention decides which tokens each head forgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, Position
from hwsim.models.layers import Attention, AttentionConfig, Block, RotaryEmbedding, SwiGLU


@dataclass(frozen=True, slots=True)
class AttentionGateConfig:
    """Shape of a Llama with gates of `gate_heads` heads of `gate_dim`; what a gate gives `threshold` or less goes."""

    layers: int = 32
    width: int = 4096
    heads: int = 32
    kv_heads: int = 32
    head_dim: int = 128
    hidden: int = 11008
    vocab: int = 32000
    rope_base: float = 10000.0
    eps: float = 1e-5
    gate_heads: int = 4
    gate_dim: int = 64
    threshold: float = 0.5


class Gate(nn.Module):
    """p = σ(MHA'(x) W_o), one per head and token: x [B, T, width] to [B, heads, T]."""

    def __init__(self, config: AttentionGateConfig) -> None:
        super().__init__()
        inner = config.gate_heads * config.gate_dim
        self.heads = config.gate_heads
        self.inputs = nn.Linear(config.width, 3 * inner, bias=False)
        self.output = nn.Linear(inner, config.kv_heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, width] to [B, heads, T]."""
        parts = self.inputs(x).chunk(3, dim=-1)
        q, k, v = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return cast(Tensor, self.output(mixed)).sigmoid().transpose(1, 2)


class GatedAttention(Attention):
    """Attention that says of every token of the prompt and every head whether its key and value are kept.

    State: keys and values, and the decisions [B, kv_heads, capacity]. The gate looks at the prompt once; generated
    tokens are kept. How many stay is the cache's affair: the attention here is over all.
    """

    def __init__(self, config: AttentionConfig, gate: Gate, threshold: float) -> None:
        super().__init__(config)
        self.gate, self.threshold = gate, threshold

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d]."""
        if state is None:
            return super().forward(x, None, position)
        tokens, past = x.shape[1], position.past
        if tokens == 1:
            state[2][:, :, past : past + 1] = True
        else:
            state[2][:, :, past : past + tokens] = cast(Tensor, self.gate(x)) > self.threshold
        return super().forward(x, state[:2], position)

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """Empty keys, values and decisions."""
        kept = torch.zeros(batch, self.config.kv_heads, capacity, dtype=torch.bool)
        return [*super().make_state(batch, capacity), kept]


class AttentionGateLlama(LanguageModel):
    """Pre-norm decoder of gated rotary attention and SwiGLU, with RMSNorm."""

    def __init__(self, config: AttentionGateConfig) -> None:
        layers: list[nn.Module] = [_block(config) for _ in range(config.layers)]
        super().__init__(config.vocab, config.width, layers, nn.RMSNorm(config.width, config.eps), tied=False)
        self.config = config
        self.rotary = RotaryEmbedding(config.head_dim, config.rope_base)


def _block(config: AttentionGateConfig) -> Block:
    shape = AttentionConfig(config.width, config.heads, config.kv_heads, config.head_dim, merged=True)
    norms = [nn.RMSNorm(config.width, config.eps) for _ in range(2)]
    mixer = GatedAttention(shape, Gate(config), config.threshold)
    return Block(mixer, norms[0], SwiGLU(config.width, config.hidden, merged=True), norms[1])
