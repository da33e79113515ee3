"""End-to-end rows: Llama-shaped decoders with random weights, in plain torch as a model file writes them.

One call is one prefill of `prompt` tokens per sequence (logits of the last position only) or one decode step
of one token per sequence after `prompt` tokens (a static cache, its first prompt + 1 positions attended).
Weights and activations are bf16. Shapes: B batch, T tokens, D width, H heads, K key-value heads, E head size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

_DTYPE = torch.bfloat16
_WEIGHT_STD = 0.02
_EPSILON = 1e-5
_ROPE_BASE = 500_000.0

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Llama-like decoder."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool


SHAPES = {
    "llama-3.2-1b": Shape(16, 2048, 32, 8, 64, 8192, 128256, tied=True),
    "llama-3.1-8b": Shape(32, 4096, 32, 8, 128, 14336, 128256, tied=False),
}
DECODES = ((1, 128), (1, 2048), (1, 32768), (8, 2048), (16, 8192), (32, 1024), (64, 2048))
PREFILLS = ((1, 128), (1, 512), (1, 2048), (1, 8192), (4, 1024))


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block, each linear as (outputs, inputs)."""

    attention_norm: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    ffn_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


class Decoder:
    """A decoder with random weights: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

    def __init__(self, shape: Shape, device: torch.device, max_tokens: int) -> None:
        self.shape = shape
        self.embed = self._weight(device, shape.vocab, shape.width)
        self.head = self.embed if shape.tied else self._weight(device, shape.vocab, shape.width)
        self.norm = torch.ones(shape.width, dtype=_DTYPE, device=device)
        self.layers = [self._layer(device) for _ in range(shape.layers)]
        half = torch.arange(0, shape.head_dim, 2, device=device) / shape.head_dim
        angles = torch.outer(torch.arange(max_tokens, device=device), _ROPE_BASE**-half).repeat(1, 2)
        self.cos, self.sin = angles.cos().to(_DTYPE), angles.sin().to(_DTYPE)

    def new_cache(self, batch: int, max_tokens: int) -> Cache:
        """Keys and values of every layer, (B, K, max_tokens, E), filled with random data."""
        size = (batch, self.shape.kv_heads, max_tokens, self.shape.head_dim)
        device = self.embed.device
        pairs = range(self.shape.layers)
        return [
            (torch.randn(size, dtype=_DTYPE, device=device), torch.randn(size, dtype=_DTYPE, device=device))
            for _ in pairs
        ]

    def forward(self, tokens: Tensor, position: int, cache: Cache) -> Tensor:
        """Logits (B, 1, vocab) of the last of `tokens` (B, T), whose first stands at `position`."""
        x = F.embedding(tokens, self.embed)
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            x = x + self._attend(layer, self._normed(x, layer.attention_norm), position, keys, values)
            h = self._normed(x, layer.ffn_norm)
            x = x + F.linear(F.silu(F.linear(h, layer.gate)) * F.linear(h, layer.up), layer.down)
        return F.linear(self._normed(x[:, -1:], self.norm), self.head)

    def _attend(self, layer: Layer, h: Tensor, position: int, keys: Tensor, values: Tensor) -> Tensor:
        tokens, end = h.shape[1], position + h.shape[1]
        heads = (*h.shape[:2], -1, self.shape.head_dim)
        q, k, v = (F.linear(h, weight).view(heads) for weight in (layer.q, layer.k, layer.v))
        cos, sin = self.cos[position:end], self.sin[position:end]
        keys[:, :, position:end] = rotate(k.transpose(1, 2), cos, sin)
        values[:, :, position:end] = v.transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            rotate(q.transpose(1, 2), cos, sin),
            keys[:, :, :end],
            values[:, :, :end],
            is_causal=tokens > 1,
            enable_gqa=True,
        )
        return F.linear(attended.transpose(1, 2).flatten(2), layer.out)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, _EPSILON)

    def _weight(self, device: torch.device, *size: int) -> Tensor:
        return torch.randn(size, dtype=_DTYPE, device=device) * _WEIGHT_STD

    def _layer(self, device: torch.device) -> Layer:
        s = self.shape
        ones = torch.ones(s.width, dtype=_DTYPE, device=device)
        weight = partial(self._weight, device)
        return Layer(
            attention_norm=ones,
            q=weight(s.heads * s.head_dim, s.width),
            k=weight(s.kv_heads * s.head_dim, s.width),
            v=weight(s.kv_heads * s.head_dim, s.width),
            out=weight(s.width, s.heads * s.head_dim),
            ffn_norm=ones,
            gate=weight(s.ffn, s.width),
            up=weight(s.ffn, s.width),
            down=weight(s.width, s.ffn),
        )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split layout: x * cos + (-x2, x1) * sin."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def model_specs(device: torch.device) -> Iterator[dict[str, int | str | bool]]:
    """The end-to-end rows: both models, eager and under a CUDA graph; on a CPU the small model's shortest."""
    cuda = device.type == "cuda"
    for model in SHAPES if cuda else ("llama-3.2-1b",):
        for phase, points in (("decode", DECODES), ("prefill", PREFILLS)):
            for batch, prompt in points if cuda else points[:1]:
                for mode in ("eager", "graph") if cuda else ("eager",):
                    yield {"model": model, "phase": phase, "batch": batch, "prompt": prompt, "mode": mode}


@lru_cache(maxsize=1)
def decoder(model: str, device: torch.device) -> Decoder:
    """The model's decoder, kept while its rows are measured."""
    longest = max(prompt for _, prompt in DECODES + PREFILLS)
    return Decoder(SHAPES[model], device, longest + 1)


def build_model(
    device: torch.device, model: str, phase: str, batch: int, prompt: int, mode: str
) -> Callable[[], object]:
    """One prefill or one decode step; `mode` says how the call is timed and changes nothing here."""
    network = decoder(model, device)
    new_tokens, position = (prompt, 0) if phase == "prefill" else (1, prompt)
    tokens = torch.randint(network.shape.vocab, (batch, new_tokens), device=device)
    return partial(network.forward, tokens, position, network.new_cache(batch, position + new_tokens))
