"""Mamba-2 (Dao & Gu 2024, arXiv 2405.21060), as in state-spaces/mamba."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, Position
from hwsim.models.layers import Block, GatedRMSNorm, ShortConvolution, decay_rates, recur, step_biases


@dataclass(frozen=True, slots=True)
class Mamba2Config:
    """Shape of a Mamba-2; the inner width is `expand` · `width`, in heads of `head_dim` with `state` numbers each."""

    layers: int = 64
    width: int = 2560
    state: int = 128
    head_dim: int = 64
    expand: int = 2
    groups: int = 1
    kernel: int = 4
    vocab: int = 50288
    chunk: int = 256
    eps: float = 1e-5


class Mamba2Mixer(nn.Module):
    """y = W_o RMSNorm((SSD(C, B, Δ x; Δ A) + D ⊙ x) ⊙ SiLU(z)), with [z, x, B, C, Δ] = W_i u.

    x, B and C pass a short convolution together; Δ = softplus(Δ + δ). State: SSD's [B, heads, N, head_dim] in
    float32 and the last inputs of the convolution.
    """

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        inner = config.expand * config.width
        self.config, self.inner, self.heads = config, inner, inner // config.head_dim
        self.mixed = inner + 2 * config.groups * config.state
        self.inputs = nn.Linear(config.width, inner + self.mixed + self.heads, bias=False)
        self.convolution = ShortConvolution(self.mixed, config.kernel, bias=True, kept=config.kernel)
        self.rates, self.steps = decay_rates(self.heads), step_biases(self.heads)
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(inner, config.eps, before=True, groups=config.groups)
        self.output = nn.Linear(inner, config.width, bias=False)

    def forward(self, u: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """u [B, T, d] to [B, T, d]."""
        memory, tail = (None, None) if state is None else state
        z, mixed, step = self.inputs(u).split([self.inner, self.mixed, self.heads], dim=-1)
        y = self.scan(self.convolution(mixed, tail, position.past), step, memory)
        return cast(Tensor, self.output(self.norm(y.flatten(2), z)))

    def scan(self, mixed: Tensor, step: Tensor, memory: Tensor | None) -> Tensor:
        """SSD and skip: [x, B, C] [B, T, inner + 2 G N] and Δ [B, T, heads] to [B, T, heads, head_dim]."""
        config, (batch, tokens) = self.config, mixed.shape[:2]
        x = mixed[..., : self.inner].view(batch, tokens, self.heads, config.head_dim)
        shared = mixed[..., self.inner :].view(batch, tokens, 2 * config.groups, config.state)
        b, c = shared[:, :, : config.groups], shared[:, :, config.groups :]
        step = F.softplus(step.float() + self.steps)
        log_decay = step * -self.rates.float().exp()
        written = x * step[..., None].to(x.dtype)
        out = recur((c, b, written), [log_decay], memory, "ssd", config.chunk)
        return out + self.skip[:, None] * x

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """The state before the first token; it does not grow with `capacity`."""
        config = self.config
        memory = torch.zeros(batch, self.heads, config.state, config.head_dim, dtype=torch.float32)
        return [memory, self.convolution.make_state(batch)]


class Mamba2(LanguageModel):
    """Pre-norm stack of Mamba-2 mixers without MLPs, with tied embeddings."""

    def __init__(self, config: Mamba2Config) -> None:
        layers: list[nn.Module] = [
            Block(Mamba2Mixer(config), nn.RMSNorm(config.width, config.eps)) for _ in range(config.layers)
        ]
        super().__init__(config.vocab, config.width, layers, nn.RMSNorm(config.width, config.eps), tied=True)
        self.config = config
