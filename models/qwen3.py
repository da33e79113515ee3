"""Qwen3 (arXiv 2505.09388), and with TRIM-KV's gate, which foretells how long a token is worth keeping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, Position
from hwsim.models.layers import Attention, AttentionConfig, Block, RotaryEmbedding, SwiGLU


@dataclass(frozen=True, slots=True)
class Qwen3Config:
    """Shape of a Qwen3; `gate_hidden` > 0 gives each layer a retention gate of that inner size."""

    layers: int = 36
    width: int = 2560
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    hidden: int = 9728
    vocab: int = 151936
    tied: bool = True
    rope_base: float = 1000000.0
    eps: float = 1e-6
    merged: bool = True
    gate_hidden: int = 0


class RetentionGate(nn.Module):
    """log β = logσ(W2 SiLU(W1 x + b1) + b2), one per key/value head: x [B, T, width] to [B, kv_heads, T]."""

    def __init__(self, width: int, hidden: int, kv_heads: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, kv_heads)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, width] to [B, kv_heads, T]."""
        return F.logsigmoid(self.output(F.silu(self.input(x)))).transpose(1, 2)


class RetainedAttention(Attention):
    """Attention that notes with every cached token its log β and its position; a cache evicts least (t - j) log β_j.

    State: keys and values, log β [B, kv_heads, capacity] in float32, positions likewise in int64. How many tokens stay
    is the cache's affair, not the model's. Without a state the layer is plain attention: the loss that trains the gate
    is not modelled.
    """

    def __init__(self, config: AttentionConfig, gate_hidden: int) -> None:
        super().__init__(config)
        self.gate = RetentionGate(config.width, gate_hidden, config.kv_heads)

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d]."""
        if state is None:
            return super().forward(x, None, position)
        start, end = position.past, position.past + x.shape[1]
        state[2][:, :, start:end] = cast(Tensor, self.gate(x))
        state[3][:, :, start:end] = torch.arange(x.shape[1], device=x.device) + start
        return super().forward(x, state[:2], position)

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """Empty keys, values, log β and positions."""
        shape = (batch, self.config.kv_heads, capacity)
        notes = [torch.zeros(shape, dtype=kind) for kind in (torch.float32, torch.int64)]
        return [*super().make_state(batch, capacity), *notes]


class Qwen3(LanguageModel):
    """Pre-norm decoder of rotary grouped-query attention with RMS-normalised q and k heads, SwiGLU and RMSNorm."""

    def __init__(self, config: Qwen3Config) -> None:
        layers: list[nn.Module] = [_block(config) for _ in range(config.layers)]
        super().__init__(config.vocab, config.width, layers, nn.RMSNorm(config.width, config.eps), config.tied)
        self.config = config
        self.rotary = RotaryEmbedding(config.head_dim, config.rope_base)


def _block(config: Qwen3Config) -> Block:
    shape = AttentionConfig(
        config.width, config.heads, config.kv_heads, config.head_dim, merged=config.merged, qk_norm_eps=config.eps
    )
    mixer = RetainedAttention(shape, config.gate_hidden) if config.gate_hidden else Attention(shape)
    norms = [nn.RMSNorm(config.width, config.eps) for _ in range(2)]
    return Block(mixer, norms[0], SwiGLU(config.width, config.hidden, config.merged), norms[1])
