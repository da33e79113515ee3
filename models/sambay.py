"""SambaY (arXiv 2507.06607), the decoder-hybrid-decoder of Phi4-mini-Flash, as in microsoft/ArchScale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.kernels.selective_scan import selective_scan
from hwsim.models.language import LanguageModel, Position, State
from hwsim.models.layers import (
    Block,
    ShortConvolution,
    SwiGLU,
    attend,
    cache_rows,
    remember,
    step_biases,
)


@dataclass(frozen=True, slots=True)
class SambaYConfig:
    """Shape of a SambaY; `state`, `kernel`, `expand` and `rank` are those of its Mamba layers."""

    layers: int = 32
    width: int = 2560
    heads: int = 40
    kv_heads: int = 20
    head_dim: int = 64
    hidden: int = 10240
    vocab: int = 200064
    window: int = 512
    state: int = 16
    kernel: int = 4
    expand: int = 2
    rank: int = 160
    eps: float = 1e-5


class MambaMixer(nn.Module):
    """y = W_o (m ⊙ SiLU(z)), m = scan(x, Δ, A, B, C, D), [x, z] = W_i u (Gu & Dao 2023, arXiv 2312.00752).

    x passes a short convolution; [r, B, C] = W_x x; Δ = softplus(W_Δ r + δ). State: the scan's [B, inner, N] in
    float32 and the last inputs of the convolution.
    """

    def __init__(self, config: SambaYConfig) -> None:
        super().__init__()
        inner = config.expand * config.width
        self.inner, self.sizes = inner, [config.rank, config.state, config.state]
        self.input = nn.Linear(config.width, 2 * inner, bias=False)
        self.convolution = ShortConvolution(inner, config.kernel, bias=True, kept=config.kernel)
        self.select = nn.Linear(inner, sum(self.sizes), bias=False)
        self.step = nn.Linear(config.rank, inner)
        self.step.bias = step_biases(inner)
        rates = torch.arange(1, config.state + 1, dtype=torch.get_default_dtype()).log()
        self.rates = nn.Parameter(rates.repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.output = nn.Linear(inner, config.width, bias=False)

    def forward(self, u: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """u [B, T, d] to [B, T, d]."""
        return self.mix(u, state, position)[0]

    def mix(self, u: Tensor, state: list[Tensor] | None, position: Position) -> tuple[Tensor, Tensor]:
        """The output [B, T, d] and the memory m [B, T, inner]."""
        memory, tail = (None, None) if state is None else state
        x, z = self.input(u).split(self.inner, dim=-1)
        x = self.convolution(x, tail, position.past)
        raw, b, c = self.select(x).split(self.sizes, dim=-1)
        delta, rates = F.softplus(self.step(raw)), -self.rates.float().exp()
        m, last = selective_scan(x, delta, rates, b, c, self.skip, memory)
        if memory is not None:
            memory.copy_(last)
        return cast(Tensor, self.output(m * F.silu(z))), m

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """The state before the first token; it does not grow with `capacity`."""
        memory = torch.zeros(batch, *self.rates.shape, dtype=torch.float32)
        return [memory, self.convolution.make_state(batch)]


class DifferentialAttention(nn.Module):
    """y = W_o (1 − λ₀) RMSNorm(A₁ V − λ A₂ V), A_i = softmax(q_i k_iᵀ / √D), per pair of heads (arXiv 2410.05258).

    λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ₀, λ₀ = 0.8 − 0.6 exp(−0.3 depth); V has 2D channels per pair; no positions.
    A `cross` layer has queries only and reads another layer's keys and values. State: keys
    [B, kv_heads, rows, D] and values [B, kv_heads/2, rows, 2D].
    """

    def __init__(self, config: SambaYConfig, depth: int, window: int = 0, cross: bool = False) -> None:
        super().__init__()
        self.config, self.window = config, window
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.sizes = [query, 0 if cross else 2 * key]
        self.input = nn.Linear(config.width, sum(self.sizes))
        self.output = nn.Linear(query, config.width)
        self.first_share = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.share = nn.Parameter(torch.empty(4, config.head_dim).normal_(std=0.1))
        self.norm = nn.RMSNorm(2 * config.head_dim, eps=1e-5)

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d], with keys and values of its own."""
        q, kv = self.input(x).split(self.sizes, dim=-1)
        return self.attend(q, *self.keys(kv, state, position))

    def project(self, x: Tensor, part: int) -> Tensor:
        """The queries (part 0) or the keys and values (part 1) of x [B, T, d], not yet in heads."""
        rows = slice(self.sizes[0], None) if part else slice(self.sizes[0])
        return F.linear(x, self.input.weight[rows], self.input.bias[rows])

    def keys(self, kv: Tensor, state: list[Tensor] | None, position: Position) -> tuple[Tensor, Tensor]:
        """Keys [B, kv_heads, S, D] and values [B, kv_heads/2, S, 2D] to attend to, from their projection [B, T, *]."""
        batch, tokens = kv.shape[:2]
        key, value = kv.view(batch, tokens, 2, -1).unbind(2)
        k = key.view(batch, tokens, -1, self.config.head_dim).transpose(1, 2)
        v = value.view(batch, tokens, -1, 2 * self.config.head_dim).transpose(1, 2)
        return (k, v) if state is None else remember(state, k, v, position.past, self.window)

    def attend(self, query: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Projected queries [B, T, heads · D] to [B, T, d]; the even heads of q and k are the first of their pairs."""
        q = query.view(*query.shape[:2], -1, self.config.head_dim).transpose(1, 2)
        first, second = (attend(q[:, i::2], k[:, i::2], v, self.window) for i in range(2))
        one, two = (self.share[0::2] * self.share[1::2]).sum(-1).exp()
        mixed = self.norm(first - (one - two + self.first_share) * second) * (1 - self.first_share)
        return cast(Tensor, self.output(mixed.transpose(1, 2).flatten(2)))

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """Empty keys and values in the layer's dtype."""
        heads, head_dim = self.config.kv_heads, self.config.head_dim
        rows, dtype = cache_rows(capacity, self.window), self.output.weight.dtype
        shapes = [(batch, heads, rows, head_dim), (batch, heads // 2, rows, 2 * head_dim)]
        return [torch.zeros(shape, dtype=dtype) for shape in shapes]


class GatedMemoryUnit(nn.Module):
    """y = W₂ (SiLU(W₁ x) ⊙ m): one layer's Mamba memory m [B, T, inner] read again by a later layer."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x [B, T, width] to the same."""
        return cast(Tensor, self.output(F.silu(self.input(x)) * memory))


class SambaY(LanguageModel):
    """Self-decoder of Mamba and windowed attention, then a cross-decoder that keeps no state of its own.

    Of L layers the first L/2 alternate Mamba and windowed attention; layer L/2 is the Mamba whose memory the later
    even layers gate (GMU); layer L/2 + 1 is full attention whose keys and values the later odd layers read. So a
    prompt passes the layers up to L/2 + 1, of that one the keys and values only, and its last token the rest.
    """

    def __init__(self, config: SambaYConfig) -> None:
        if config.layers % 4:
            raise ValueError(f"a SambaY has a multiple of 4 layers, got {config.layers}")
        layers: list[nn.Module] = [
            Block(
                _mixer(config, index),
                nn.LayerNorm(config.width, config.eps),
                SwiGLU(config.width, config.hidden, merged=True),
                nn.LayerNorm(config.width, config.eps),
            )
            for index in range(config.layers)
        ]
        super().__init__(config.vocab, config.width, layers, nn.LayerNorm(config.width, config.eps), tied=True)
        self.config = config
        self.shared = config.layers // 2 + 1

    def mix(self, x: Tensor, state: State | None, position: Position) -> Tensor:
        """The residual stream after all layers, [B, T, d]; with `state`, of the last token only, [B, 1, d]."""
        states = [None] * (self.shared + 1) if state is None else state
        blocks = [cast(Block, layer) for layer in self.layers]
        for block, own in zip(blocks[: self.shared - 1], states, strict=False):
            x = block(x, own, position)
        source, reader = blocks[self.shared - 1], blocks[self.shared]
        scanned, memory = cast(MambaMixer, source.mixer).mix(source.mixer_norm(x), states[self.shared - 1], position)
        x = source.feed_forward(x + scanned)
        attention, normed = cast(DifferentialAttention, reader.mixer), reader.mixer_norm(x)
        k, v = attention.keys(attention.project(normed, 1), states[self.shared], position)
        if state is not None:
            x, normed, memory = x[:, -1:], normed[:, -1:], memory[:, -1:]
        x = reader.feed_forward(x + attention.attend(attention.project(normed, 0), k, v))
        return self.cross(x, memory, k, v)

    def cross(self, x: Tensor, memory: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The cross-decoder on x [B, T, d]: memory [B, T, inner], keys and values of all tokens."""
        for layer in list(self.layers)[self.shared + 1 :]:
            block = cast(Block, layer)
            normed = block.mixer_norm(x)
            if isinstance(block.mixer, DifferentialAttention):
                mixed = block.mixer.attend(block.mixer.project(normed, 0), k, v)
            else:
                mixed = block.mixer(normed, memory)
            x = block.feed_forward(x + mixed)
        return x

    def make_state(self, batch: int, capacity: int) -> State:
        """Mamba states, windows and the one full cache; the cross-decoder adds nothing."""
        blocks = [cast(Block, layer) for layer in self.layers]
        own = [block.make_state(batch, capacity) for block in blocks[: self.shared + 1]]
        return own + [[] for _ in blocks[self.shared + 1 :]]


def _mixer(config: SambaYConfig, index: int) -> nn.Module:
    shared = config.layers // 2 + 1
    if index % 2 == 0:
        inner = config.expand * config.width
        return MambaMixer(config) if index < shared else GatedMemoryUnit(config.width, inner)
    window = config.window if index < shared else 0
    return DifferentialAttention(config, index, window, cross=index > shared)
