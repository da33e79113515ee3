"""Mixtures of experts (Shazeer et al., arXiv 1701.06538) and the Mixtral family (arXiv 2401.04088)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.kernels.grouped_matmul import grouped_matmul
from hwsim.models.language import LanguageModel
from hwsim.models.llama import LlamaConfig, StretchedRotary, decoder_block


@dataclass(frozen=True, slots=True)
class MoEConfig(LlamaConfig):
    """Shape of a Llama whose MLPs are `experts` SwiGLU MLPs of size `hidden`, `active` of them per token."""

    experts: int = 8
    active: int = 2


@dataclass(frozen=True, slots=True)
class MixtureConfig:
    """Shape of a mixture; `gated` experts are SwiGLU, else ReLU; `normalised` shares of a token sum to 1."""

    width: int
    hidden: int
    experts: int
    active: int
    gated: bool
    normalised: bool


class Mixture(nn.Module):
    """y_t = Σ_{e in top-k of p_t} p_te·expert_e(x_t), p = softmax(x W_rᵀ) in fp32; no token is dropped.

    The rows of all tokens are sorted by expert, so that all sizes depend on the number of tokens only and
    each matrix of the experts is one grouped matmul. x [B, T, width]; input weights [experts, hidden, width],
    gated [experts, 2·hidden, width] with the gate first; output weights [experts, width, hidden].
    """

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__()
        self.config = config
        self.router = nn.Linear(config.width, config.experts, bias=False)
        rows = 2 * config.hidden if config.gated else config.hidden
        self.inputs = nn.Parameter(torch.empty(config.experts, rows, config.width))
        self.output = nn.Parameter(torch.empty(config.experts, config.width, config.hidden))
        for weight in (self.inputs, self.output):
            nn.init.uniform_(weight, -(weight.shape[2] ** -0.5), weight.shape[2] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, width] to [B, T, width]."""
        tokens = x.flatten(0, 1)
        share, chosen = self.route(tokens)
        expert_of_row, order = chosen.flatten().sort(stable=True)
        token_of_row = order // self.config.active
        y = self.experts(tokens.index_select(0, token_of_row), expert_of_row)
        y = y * share.flatten().index_select(0, order)[:, None]
        return torch.zeros_like(tokens).index_add(0, token_of_row, y).view_as(x)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The shares and the numbers [N, active] of the experts of `tokens` [N, width]."""
        probability = F.softmax(self.router(tokens), dim=-1, dtype=torch.float32)
        share, chosen = probability.topk(self.config.active, dim=-1)
        if self.config.normalised:
            share = share / share.sum(dim=-1, keepdim=True)
        return share.to(tokens.dtype), chosen

    def experts(self, rows: Tensor, expert_of_row: Tensor) -> Tensor:
        """Each of `rows` [N·active, width], sorted by expert, through its expert."""
        hidden = grouped_matmul(rows, self.inputs, expert_of_row)
        if self.config.gated:
            gate, up = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * up
        else:
            hidden = F.relu(hidden)
        return cast(Tensor, grouped_matmul(hidden, self.output, expert_of_row))


class MoE(LanguageModel):
    """Pre-norm decoder of rotary grouped-query attention and mixtures of experts, with RMSNorm."""

    def __init__(self, config: MoEConfig) -> None:
        mixture = MixtureConfig(config.width, config.hidden, config.experts, config.active, True, True)
        layers: list[nn.Module] = [decoder_block(config, Mixture(mixture)) for _ in range(config.layers)]
        super().__init__(config.vocab, config.width, layers, nn.RMSNorm(config.width, config.eps), config.tied)
        self.config = config
        self.rotary = StretchedRotary(config.head_dim, config.rope_base, config.rope_stretch)
