"""The blocks that several models of the zoo share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.kernels.attention import causal_attention
from hwsim.kernels.recurrence import recurrence
from hwsim.models.language import Layer, Position


class Block(nn.Module):
    """A pre-norm residual block: x + mixer(norm(x)), then x + mlp(norm(x)) where the block has an mlp."""

    def __init__(
        self,
        mixer: nn.Module,
        mixer_norm: nn.Module,
        mlp: nn.Module | None = None,
        mlp_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.mixer_norm = mixer_norm
        self.mixer = mixer
        self.mlp_norm = mlp_norm
        self.mlp = mlp

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d]."""
        return self.feed_forward(x + self.mixer(self.mixer_norm(x), state, position))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block, on x [B, T, d]."""
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self.mlp(self.mlp_norm(x))
        return x

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """The state of the mixer."""
        return cast(Layer, self.mixer).make_state(batch, capacity)


class SwiGLU(nn.Module):
    """y = (SiLU(x W_gᵀ) ⊙ x W_uᵀ) W_dᵀ (Shazeer 2020, arXiv 2002.05202); `merged`: W_g, W_u in one matrix.

    x [B, T, width], W_g and W_u [hidden, width], W_d [width, hidden].
    """

    def __init__(self, width: int, hidden: int, merged: bool = False) -> None:
        super().__init__()
        self.hidden = hidden
        sizes = [2 * hidden] if merged else [hidden, hidden]
        self.inputs = nn.ModuleList([nn.Linear(width, size, bias=False) for size in sizes])
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width] to [..., width]."""
        gate, up = project(x, self.inputs, [self.hidden, self.hidden])
        return cast(Tensor, self.output(F.silu(gate) * up))


def project(x: Tensor, linears: nn.ModuleList, sizes: list[int]) -> list[Tensor]:
    """The projections of `sizes` of x, from one merged linear or from one each."""
    if len(linears) == 1:
        return list(linears[0](x).split(sizes, dim=-1))
    return [linear(x) for linear in linears]


class RotaryEmbedding(nn.Module):
    """Angles t·base^(-2i/D) of rotary positions (Su et al. 2021, arXiv 2104.09864) on the first D of a head.

    Gives cos and sin, [T, D/2] each, in fp32, for positions past .. past+T-1.
    """

    def __init__(self, head_dim: int, base: float = 10000.0) -> None:
        super().__init__()
        frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, tokens: int, past: int) -> tuple[Tensor, Tensor]:
        """(cos, sin) for `tokens` positions after `past`."""
        frequency = cast(Tensor, self.frequency)
        steps = torch.arange(tokens, device=frequency.device) + past
        angles = torch.outer(steps.float(), frequency.float())
        return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (x_i, x_{i+R/2}) of the first R channels of x [B, H, T, D]; cos is [T, R/2]."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat(turned if x.shape[-1] == 2 * half else [*turned, rest], dim=-1)


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """Shape of a grouped-query attention layer.

    `window` 0 attends to everything; `merged` keeps q, k, v in one matrix; `rotary` turns q and k by the
    model's rotation; `qk_norm_eps` RMS-normalises each head of q and k first.
    """

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int = 0
    bias: bool = False
    output_bias: bool = False
    merged: bool = False
    rotary: bool = True
    qk_norm_eps: float | None = None


class Attention(nn.Module):
    """Causal grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) with a key/value cache.

    State: keys and values, [B, kv_heads, capacity, head_dim] each; a window keeps a ring of
    min(capacity, window) rows, where token t lies in row t mod window.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.sizes = [query, key, key]
        rows = [sum(self.sizes)] if config.merged else self.sizes
        self.inputs = nn.ModuleList([nn.Linear(config.width, size, bias=config.bias) for size in rows])
        self.output = nn.Linear(query, config.width, bias=config.output_bias)
        eps = config.qk_norm_eps
        self.query_norm = None if eps is None else nn.RMSNorm(config.head_dim, eps=eps)
        self.key_norm = None if eps is None else nn.RMSNorm(config.head_dim, eps=eps)

    def forward(self, x: Tensor, state: list[Tensor] | None, position: Position) -> Tensor:
        """x [B, T, d] to [B, T, d]."""
        q, k, v = self.heads(x, position)
        if state is not None:
            k, v = remember(state, k, v, position.past, self.config.window)
        out = attend(q, k, v, self.config.window)
        return cast(Tensor, self.output(out.transpose(1, 2).flatten(2)))

    def heads(self, x: Tensor, position: Position) -> tuple[Tensor, Tensor, Tensor]:
        """q [B, heads, T, head_dim] and k, v [B, kv_heads, T, head_dim], normalised and rotated."""
        parts = project(x, self.inputs, self.sizes)
        q, k, v = (part.view(*part.shape[:2], -1, self.config.head_dim).transpose(1, 2) for part in parts)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if self.config.rotary and position.rotation is not None:
            q, k = rotate(q, position.rotation), rotate(k, position.rotation)
        return q, k, v

    def make_state(self, batch: int, capacity: int) -> list[Tensor]:
        """Empty keys and values in the layer's dtype."""
        config = self.config
        shape = (batch, config.kv_heads, cache_rows(capacity, config.window), config.head_dim)
        return [torch.zeros(shape, dtype=self.output.weight.dtype) for _ in range(2)]


def cache_rows(capacity: int, window: int) -> int:
    """How many tokens a cache holds: `capacity`, at most `window` if that is > 0."""
    return smaller(capacity, window) if window > 0 else capacity


def smaller(a: int, b: int) -> int:
    """min(a, b), which stays symbolic for symbolic sizes."""
    return cast(int, torch.sym_min(a, b))  # type: ignore[no-untyped-call]


def attend(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Causal attention to what `remember` gave; a ring holds the window only: in decode it needs no mask."""
    return causal_attention(q, k, v, 0 if q.shape[2] == 1 else window)


def remember(cache: list[Tensor], k: Tensor, v: Tensor, past: int, window: int) -> tuple[Tensor, Tensor]:
    """Write k, v [B, H, T, D] after `past` tokens into `cache` in place; the keys and values to attend to."""
    if window > 0:
        return _remember_ring(cache, k, v, past, window)
    end = past + k.shape[2]
    for rows, new in zip(cache, (k, v), strict=True):
        rows[:, :, past:end] = new
    return cache[0][:, :, :end], cache[1][:, :, :end]


def _remember_ring(cache: list[Tensor], k: Tensor, v: Tensor, past: int, window: int) -> tuple[Tensor, Tensor]:
    tokens = k.shape[2]
    if tokens == 1:
        slot = past % window
        for rows, new in zip(cache, (k, v), strict=True):
            rows[:, :, slot : slot + 1] = new
        held = smaller(past + 1, window)
        return cache[0][:, :, :held], cache[1][:, :, :held]
    if past != 0:
        raise ValueError(f"a prefill into a sliding window starts empty, got {past} past tokens")
    kept = smaller(tokens, window)
    slots = (torch.arange(kept, device=k.device) + (tokens - kept)) % window
    for rows, new in zip(cache, (k, v), strict=True):
        rows.index_copy_(2, slots, new[:, :, tokens - kept :])
    return k, v


class ShortConvolution(nn.Module):
    """Causal depthwise convolution y_t = Σ_j w_j x_{t-c+1+j} (+ bias), then SiLU (Mamba, arXiv 2312.00752).

    x [B, T, channels]; weight [channels, 1, c]; state: the last `kept` inputs, [B, channels, kept]. It needs c-1
    of them; Mamba's kernels keep c.
    """

    def __init__(self, channels: int, kernel: int, bias: bool = False, kept: int | None = None) -> None:
        super().__init__()
        self.channels, self.overlap = channels, kernel - 1
        self.kept = kernel - 1 if kept is None else kept
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel).uniform_(-(kernel**-0.5), kernel**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor, tail: Tensor | None, past: int) -> Tensor:
        """x [B, T, channels] after `past` tokens, the last in `tail`, which is brought up to date, in place."""
        tokens, x = x.shape[1], x.transpose(1, 2)
        if tail is not None and (tokens == 1 or past != 0):
            joined = torch.cat([tail, x], dim=-1)
            tail.copy_(joined[:, :, -self.kept :])
            return F.silu(self.convolve(joined[:, :, self.kept - self.overlap :], 0)).transpose(1, 2)
        if tail is not None:
            tail.copy_(torch.cat([tail, x[:, :, -self.kept :]], dim=-1)[:, :, -self.kept :])
        return F.silu(self.convolve(x, self.overlap)[:, :, :tokens]).transpose(1, 2)

    def convolve(self, x: Tensor, padding: int) -> Tensor:
        """The convolution of x [B, channels, T] with `padding` zeros at both ends."""
        return F.conv1d(x, self.weight, self.bias, padding=padding, groups=self.channels)

    def make_state(self, batch: int) -> Tensor:
        """An empty tail in the layer's dtype."""
        return torch.zeros(batch, self.channels, self.kept, dtype=self.weight.dtype)


class GatedRMSNorm(nn.Module):
    """RMSNorm(x) ⊙ SiLU(gate), or RMSNorm(x ⊙ SiLU(gate)) where the gate comes `before`.

    Each of `groups` equal parts of the `size` channels is normalised on its own.
    """

    def __init__(self, size: int, eps: float, before: bool = False, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.before, self.groups = eps, before, groups

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """x and gate [..., size] to the same."""
        if self.before:
            return self.normalize(x * F.silu(gate))
        return self.normalize(x) * F.silu(gate)

    def normalize(self, x: Tensor) -> Tensor:
        """RMSNorm of x [..., size] by groups."""
        if self.groups == 1:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        parts = x.view(*x.shape[:-1], self.groups, x.shape[-1] // self.groups)
        return F.rms_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2) * self.weight


def l2_normalize(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(Σ x² + eps) over the last dimension D, which is RMSNorm without weight times D**-0.5."""
    size = x.shape[-1]
    return cast(Tensor, F.rms_norm(x, [size], eps=eps / size) * size**-0.5)


def recur(
    qkv: tuple[Tensor, Tensor, Tensor], gates: list[Tensor], state: Tensor | None, rule: str, chunk: int
) -> Tensor:
    """The outputs of `hwsim.kernels.recurrence`; `state`, if there is one, is brought up to date in place."""
    out: Tensor
    out, last = recurrence(*qkv, gates, state, rule, chunk)
    if state is not None:
        state.copy_(last)
    return out


def decay_rates(heads: int) -> nn.Parameter:
    """log A of decays exp(−A Δ), A uniform in [1, 16], as Mamba-2 begins."""
    return nn.Parameter(torch.empty(heads).uniform_(1, 16).log())


def step_biases(channels: int) -> nn.Parameter:
    """δ such that softplus(δ) is log-uniform in [0.001, 0.1], as Mamba begins."""
    steps = torch.empty(channels).uniform_(math.log(0.001), math.log(0.1)).exp()
    return nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
