"""Gated DeltaNet-2 (arXiv 2605.22791), pure or alternating with sliding-window attention, as in its repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, Position
from hwsim.models.layers import (
    Attention,
    AttentionConfig,
    Block,
    GatedRMSNorm,
    RotaryEmbedding,
    ShortConvolution,
    SwiGLU,
    decay_rates,
    l2_normalize,
    recur,
    step_biases,
)


@dataclass(frozen=True, slots=True)
class GatedDeltaNet2Config:
    """Shape of a Gated DeltaNet-2; `window` > 0 makes every second layer sliding-window attention of that window."""

    layers: int = 18
    width: int = 2304
    heads: int = 16
    key_dim: int = 128
    value_dim: int = 128
    hidden: int = 6208
    vocab: int = 32000
    kernel: int = 4
    window: int = 0
    attention_heads: int = 18
    chunk: int = 64
    eps: float = 1e-5


class GatedDeltaNet2Mixer(nn.Module):
    """y = W_o (RMSNorm(GDN2(q, k, v; log α, b, w)) ⊙ SiLU(gate)); `hwsim.kernels.gated_delta` has the update.

    q, k, v = SiLU(conv(W x)), q and k then L2-normalised per head; erase b = σ(W_b x), write w = σ(W_w x);
    log α = −exp(A) softplus(W_f2 W_f1 x + δ); gate = W_g2 W_g1 x + bias.
    State: [B, heads, key_dim, value_dim] in float32 and the last inputs of the three convolutions.
    """

    def __init__(self, config: GatedDeltaNet2Config) -> None:
        super().__init__()
        self.config, width = config, config.width
        keys, values = config.heads * config.key_dim, config.heads * config.value_dim
        sizes = (keys, keys, values)
        self.inputs = nn.ModuleList([nn.Linear(width, size, bias=False) for size in sizes])
        self.convolutions = nn.ModuleList([ShortConvolution(size, config.kernel) for size in sizes])
        self.erase = nn.Linear(width, keys, bias=False)
        self.write = nn.Linear(width, values, bias=False)
        self.decay = nn.Sequential(
            nn.Linear(width, config.value_dim, bias=False), nn.Linear(config.value_dim, keys, bias=False)
        )
        self.rates, self.steps = decay_rates(config.heads), step_biases(keys)
        self.gate = nn.Sequential(nn.Linear(width, config.value_dim, bias=False), nn.Linear(config.value_dim, values))
        self.norm = GatedRMSNorm(config.value_dim, config.eps)
        self.output = nn.Linear(values, width, bias=False)

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d]."""
        memory, *tails = [None] * 4 if state is None else state
        q, k, v = (
            self.split(convolution(linear(x), tail, position.past))
            for linear, convolution, tail in zip(self.inputs, self.convolutions, tails, strict=True)
        )
        step = F.softplus(self.decay(x).float() + self.steps)
        log_decay = self.split(step) * -self.rates.float().exp()[:, None]
        gates = [log_decay, self.split(self.erase(x).sigmoid()), self.split(self.write(x).sigmoid())]
        out = recur((l2_normalize(q), l2_normalize(k), v), gates, memory, "gdn2", self.config.chunk)
        return cast(Tensor, self.output(self.norm(out, self.split(self.gate(x))).flatten(2)))

    def split(self, x: Tensor) -> Tensor:
        """[B, T, heads · size] as [B, T, heads, size]."""
        return x.view(*x.shape[:2], self.config.heads, x.shape[2] // self.config.heads)

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """The state before the first token; it does not grow with `capacity`."""
        config = self.config
        memory = torch.zeros(batch, config.heads, config.key_dim, config.value_dim, dtype=torch.float32)
        return [memory, *(cast(ShortConvolution, part).make_state(batch) for part in self.convolutions)]


class GatedDeltaNet2(LanguageModel):
    """Pre-norm stack of Gated DeltaNet-2 (or, in every second layer, windowed attention) and SwiGLU, with RMSNorm."""

    def __init__(self, config: GatedDeltaNet2Config) -> None:
        layers: list[nn.Module] = [
            Block(
                _mixer(config, index),
                nn.RMSNorm(config.width, config.eps),
                SwiGLU(config.width, config.hidden),
                nn.RMSNorm(config.width, config.eps),
            )
            for index in range(config.layers)
        ]
        norm = nn.RMSNorm(config.width, config.eps)
        super().__init__(config.vocab, config.width, layers, norm, tied=False)
        self.config = config
        if config.window > 0:
            self.rotary = RotaryEmbedding(config.width // config.attention_heads)


def _mixer(config: GatedDeltaNet2Config, index: int) -> nn.Module:
    if config.window == 0 or index % 2 == 0:
        return GatedDeltaNet2Mixer(config)
    heads, head_dim = config.attention_heads, config.width // config.attention_heads
    return Attention(AttentionConfig(config.width, heads, heads, head_dim, window=config.window, merged=True))
