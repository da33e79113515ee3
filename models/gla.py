"""Gated linear attention transformers (Yang et al. 2023, arXiv 2312.06635), as in fla-org/flash-linear-attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, Position
from hwsim.models.layers import Block, GatedRMSNorm, SwiGLU, recur


@dataclass(frozen=True, slots=True)
class GLAConfig:
    """Shape of a GLA; keys have half the width, values all of it, decays come through `rank` channels."""

    layers: int = 24
    width: int = 2048
    heads: int = 4
    hidden: int = 5632
    vocab: int = 32000
    tied: bool = False
    rank: int = 16
    chunk: int = 64
    eps: float = 1e-6


class GLAMixer(nn.Module):
    """y = W_o (RMSNorm(GLA(q, k, v; log α)) ⊙ SiLU(W_g x)), with α = σ(W_2 W_1 x + b)^(1/16) per key channel.

    State: [B, heads, key_dim, value_dim] in float32.
    """

    def __init__(self, config: GLAConfig) -> None:
        super().__init__()
        width, keys = config.width, config.width // 2
        self.heads, self.chunk = config.heads, config.chunk
        self.key_dim, self.value_dim = keys // config.heads, width // config.heads
        self.query, self.key = (nn.Linear(width, keys, bias=False) for _ in range(2))
        self.value, self.gate = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.decay_down = nn.Linear(width, config.rank, bias=False)
        self.decay_up = nn.Linear(config.rank, keys)
        self.norm = GatedRMSNorm(self.value_dim, config.eps)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d]."""
        log_decay = F.logsigmoid(self.decay_up(self.decay_down(x))) / 16
        raw = (self.query(x), self.key(x), log_decay)
        q, k, g = (part.view(*x.shape[:2], self.heads, self.key_dim) for part in raw)
        v, gate = (part(x).view(*x.shape[:2], self.heads, self.value_dim) for part in (self.value, self.gate))
        out = recur((q, k, v), [g], None if state is None else state[0], "gla", self.chunk)
        return cast(Tensor, self.output(self.norm(out, gate).flatten(2)))

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """The state before the first token; it does not grow with `capacity`."""
        return [torch.zeros(batch, self.heads, self.key_dim, self.value_dim, dtype=torch.float32)]


class GLA(LanguageModel):
    """Pre-norm stack of gated linear attention and SwiGLU, with RMSNorm."""

    def __init__(self, config: GLAConfig) -> None:
        layers: list[nn.Module] = [
            Block(
                GLAMixer(config),
                nn.RMSNorm(config.width, config.eps),
                SwiGLU(config.width, config.hidden),
                nn.RMSNorm(config.width, config.eps),
            )
            for _ in range(config.layers)
        ]
        norm = nn.RMSNorm(config.width, config.eps)
        super().__init__(config.vocab, config.width, layers, norm, config.tied)
        self.config = config
