"""OPT (Zhang et al. 2022, arXiv 2205.01068): decoders with learned positions and ReLU MLPs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, Position, State
from hwsim.models.layers import Attention, AttentionConfig, Block
from hwsim.models.mlp import Mlp

OFFSET = 2  # the first rows of the table of positions stand for padding


@dataclass(frozen=True, slots=True)
class OPTConfig:
    """Shape of an OPT; `positions` are those that it was trained on."""

    layers: int = 32
    width: int = 4096
    heads: int = 32
    hidden: int = 16384
    vocab: int = 50272
    positions: int = 2048
    eps: float = 1e-5


class OPT(LanguageModel):
    """Pre-norm decoder of attention and ReLU MLPs with biases everywhere; input and output embedding are one."""

    def __init__(self, config: OPTConfig) -> None:
        layers: list[nn.Module] = [_block(config) for _ in range(config.layers)]
        super().__init__(config.vocab, config.width, layers, nn.LayerNorm(config.width, config.eps), tied=True)
        self.config = config
        self.positions = nn.Embedding(config.positions + OFFSET, config.width)

    def mix(self, x: Tensor, state: State | None, position: Position) -> Tensor:
        """The residual stream [B, T, d] after all layers, which begins with word and position."""
        steps = torch.arange(x.shape[1], device=x.device) + (position.past + OFFSET)
        return super().mix(x + self.positions(steps), state, position)


def _block(config: OPTConfig) -> Block:
    width, heads = config.width, config.heads
    attention = AttentionConfig(width, heads, heads, width // heads, bias=True, output_bias=True, rotary=False)
    norms = [nn.LayerNorm(width, config.eps) for _ in range(2)]
    return Block(Attention(attention), norms[0], Mlp(width, config.hidden, "relu", bias=True), norms[1])
