"""Pretraining with hierarchical memories (arXiv 2510.02375): a small decoder that fetches MLP units for its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, Position, State
from hwsim.models.layers import Attention, AttentionConfig, Block, RotaryEmbedding, SwiGLU, project, rotate


@dataclass(frozen=True, slots=True)
class HierarchicalConfig:
    """Shape of an anchor with a bank: a tree of `branching` children a node, whose nodes at depth l hold
    `units[l - 1]` MLP units of every layer; 0 leaves a depth out."""

    layers: int = 24
    width: int = 2048
    heads: int = 16
    head_dim: int = 128
    hidden: int = 5632
    units: tuple[int, ...] = (768, 256, 16, 0)
    branching: int = 16
    vocab: int = 50432
    tied: bool = False
    rope_base: float = 10000.0
    eps: float = 1e-6


class JointNormAttention(Attention):
    """Attention that RMS-normalises all channels of q, and of k, together before it splits them into heads."""

    def __init__(self, config: AttentionConfig, eps: float) -> None:
        super().__init__(config)
        channels = config.heads * config.head_dim
        self.joint_norms = nn.ModuleList([nn.RMSNorm(channels, eps) for _ in range(2)])

    def heads(self, x: Tensor, position: Position) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [B, heads, T, head_dim], q and k normalised and rotated."""
        q, k, v = project(x, self.inputs, self.sizes)
        normed = (self.joint_norms[0](q), self.joint_norms[1](k), v)
        q, k, v = (part.view(*part.shape[:2], -1, self.config.head_dim).transpose(1, 2) for part in normed)
        assert position.rotation is not None
        return rotate(q, position.rotation), rotate(k, position.rotation), v


class Bank(nn.Module):
    """One layer's units of all nodes of the tree: per depth a table of [nodes, 3, units, width].

    The three matrices of a unit are its columns of W_g and W_u and its row of W_d.
    """

    def __init__(self, config: HierarchicalConfig) -> None:
        super().__init__()
        self.depths = [depth for depth, units in enumerate(config.units, start=1) if units]
        self.tables = nn.ParameterList(
            [
                nn.Parameter(torch.empty(config.branching**depth, 3, config.units[depth - 1], config.width))
                for depth in self.depths
            ]
        )
        for table in self.tables:
            nn.init.uniform_(table, -(config.width**-0.5), config.width**-0.5)

    def forward(self, path: Tensor) -> Tensor:
        """The units [B, 3, Σ units, width] of the nodes at `path` [B, depths]; one row of each table per sequence."""
        rows = [table.index_select(0, path[:, place]) for place, table in enumerate(self.tables)]
        return torch.cat(rows, dim=2)


def widened(x: Tensor, units: Tensor) -> Tensor:
    """What `units` [B, 3, R, d], W_g, W_u and W_dᵀ of each sequence, add to a SwiGLU MLP's output on x [B, T, d]."""
    gate, up, down = units.unbind(1)
    return (F.silu(x @ gate.transpose(1, 2)) * (x @ up.transpose(1, 2))) @ down


class RecallingBlock(Block):
    """A decoder block whose MLP is widened by the units that the context has fetched."""

    def __init__(self, config: HierarchicalConfig) -> None:
        attention = AttentionConfig(config.width, config.heads, config.heads, config.head_dim, merged=True)
        norms = [nn.RMSNorm(config.width, config.eps) for _ in range(2)]
        mlp = SwiGLU(config.width, config.hidden, merged=True)
        super().__init__(JointNormAttention(attention, config.eps), norms[0], mlp, norms[1])
        self.bank = Bank(config)
        self.fetched = (3, sum(config.units), config.width)

    def recall(self, x: Tensor, state: list[Tensor] | None, position: Position, path: Tensor | None) -> Tensor:
        """x [B, T, d] to the same; `path`, where given, says what to fetch (into `state`, if there is one)."""
        units = state[2] if path is None and state is not None else cast(Tensor, self.bank(path))
        if state is not None and path is not None:
            state[2].copy_(units)
        x = x + cast(Tensor, self.mixer(self.mixer_norm(x), None if state is None else state[:2], position))
        assert self.mlp is not None and self.mlp_norm is not None
        h = self.mlp_norm(x)
        return x + cast(Tensor, self.mlp(h)) + widened(h, units)

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """Empty keys and values, and room for the fetched units."""
        dtype = self.bank.tables[0].dtype
        return [*super().make_state(batch, capacity), torch.zeros(batch, *self.fetched, dtype=dtype)]


class HierarchicalMemories(LanguageModel):
    """Pre-norm decoder whose blocks recall: what a sequence fetches stays in its state.

    The retriever that finds the path from the context (a small encoder and 16 comparisons a depth) is not part of it.
    """

    def __init__(self, config: HierarchicalConfig) -> None:
        layers: list[nn.Module] = [RecallingBlock(config) for _ in range(config.layers)]
        norm = nn.RMSNorm(config.width, config.eps)
        super().__init__(config.vocab, config.width, layers, norm, config.tied)
        self.config = config
        self.angles = RotaryEmbedding(config.head_dim, config.rope_base)

    def forward(self, tokens: Tensor, state: State | None = None, past: int = 0, path: Tensor | None = None) -> Tensor:
        """Logits of `tokens`; `path` [B, depths] are the nodes to fetch, which a `state` once filled stands for."""
        if path is None and state is None:
            raise ValueError("a context needs the path of its memories or a state that holds them")
        position = Position(past, self.angles(tokens.shape[1], past))
        x = self.embedding(tokens)
        for index, layer in enumerate(self.layers):
            x = cast(RecallingBlock, layer).recall(x, None if state is None else state[index], position, path)
        if state is not None:
            x = x[:, -1:]
        head = self.embedding if self.head is None else self.head
        return F.linear(self.norm(x), head.weight)

    def example_inputs(self, phase: str, batch: int, prompt: int) -> dict[str, Any]:
        """As for every language model, with the path of what is fetched in all phases but decode."""
        inputs = super().example_inputs(phase, batch, prompt)
        if phase == "decode":
            return inputs
        depths = len(cast(RecallingBlock, self.layers[0]).bank.depths)
        return {**inputs, "path": torch.zeros(batch, depths, dtype=torch.int64)}
