"""The Switch Transformer: a T5 whose every second MLP is a top-1 mixture (Fedus et al., arXiv 2101.03961)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.language import LanguageModel, State
from hwsim.models.layers import remember
from hwsim.models.moe import Mixture, MixtureConfig


@dataclass(frozen=True, slots=True)
class SwitchConfig:
    """Shape of a Switch Transformer with `layers` in the encoder and as many in the decoder.

    One in `every` MLPs is a mixture; relative positions fall into `buckets`, the last of them from `distance` on.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    head_dim: int = 64
    hidden: int = 3072
    experts: int = 8
    every: int = 2
    vocab: int = 32128
    buckets: int = 32
    distance: int = 128
    eps: float = 1e-6


class RelativeBias(nn.Module):
    """b[h, i, j] = table[bucket(j - i), h] of T5 (arXiv 1910.10683): near distances singly, far ones by logarithm."""

    def __init__(self, config: SwitchConfig, causal: bool) -> None:
        super().__init__()
        self.causal, self.distance = causal, config.distance
        self.table = nn.Embedding(config.buckets, config.heads)

    def forward(self, queries: int, keys: int) -> Tensor:
        """Bias [1, heads, queries, keys] of the last `queries` of `keys` positions, -inf on what is masked."""
        places = torch.arange(keys, device=self.table.weight.device)
        step = places - places[keys - queries :, None]
        bias = cast(Tensor, self.table(self.bucket(step))).permute(2, 0, 1)[None]
        return bias.masked_fill(step > 0, -math.inf) if self.causal and queries > 1 else bias

    def bucket(self, step: Tensor) -> Tensor:
        """The bucket of key position minus query position; the upper half is for keys to come, if those are seen."""
        buckets = self.table.num_embeddings if self.causal else self.table.num_embeddings // 2
        single = buckets // 2
        length = (-step).clamp(min=0) if self.causal else step.abs()
        ratio = torch.log(length.clamp(min=1).float() / single) / math.log(self.distance / single)
        far = (single + (ratio * (buckets - single)).long()).clamp(max=buckets - 1)
        near_or_far = torch.where(length < single, length, far)
        return near_or_far if self.causal else near_or_far + buckets * (step > 0)


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ + bias) V without scaling; `x` [B, T, width]."""

    def __init__(self, config: SwitchConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.inputs = nn.Linear(config.width, 3 * config.heads * config.head_dim, bias=False)
        self.output = nn.Linear(config.heads * config.head_dim, config.width, bias=False)

    def forward(self, x: Tensor, bias: Tensor, cache: list[Tensor] | None, past: int) -> Tensor:
        """x [B, T, width] to the same; keys and values go into `cache` after `past` rows, in place."""
        q, k, v = (split_heads(part, self.heads) for part in self.inputs(x).chunk(3, dim=-1))
        if cache is not None:
            k, v = remember(cache, k, v, past, window=0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return cast(Tensor, self.output(y.transpose(1, 2).flatten(2)))


class CrossAttention(nn.Module):
    """softmax(Q Kᵀ) V without scaling, keys and values from the encoder; `x` [B, T, width]."""

    def __init__(self, config: SwitchConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.heads * config.head_dim, bias=False)
        self.memory = nn.Linear(config.width, 2 * config.heads * config.head_dim, bias=False)
        self.output = nn.Linear(config.heads * config.head_dim, config.width, bias=False)

    def forward(self, x: Tensor, memory: Tensor | None, cache: list[Tensor] | None) -> Tensor:
        """x [B, T, width] to the same; the encoder's `memory` [B, S, width] fills `cache`, which serves later."""
        if memory is not None:
            k, v = (split_heads(part, self.heads) for part in self.memory(memory).chunk(2, dim=-1))
            if cache is not None:
                k, v = remember(cache, k, v, 0, window=0)
        elif cache is not None:
            k, v = cache
        else:
            raise ValueError("a decoder needs the source tokens or a state that has seen them")
        y = F.scaled_dot_product_attention(split_heads(self.query(x), self.heads), k, v, scale=1.0)
        return cast(Tensor, self.output(y.transpose(1, 2).flatten(2)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads·head_dim] to [B, heads, T, head_dim]."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


class ReluMlp(nn.Module):
    """y = W2 relu(W1 x); `x` [B, T, width]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.output(F.relu(self.input(x))))


class SwitchLayer(nn.Module):
    """Pre-norm self-attention, in the decoder cross-attention, and the `index`-th MLP or mixture."""

    def __init__(self, config: SwitchConfig, index: int, decoder: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(config.width, config.eps) for _ in range(3 if decoder else 2))
        self.attention = SelfAttention(config)
        self.cross = CrossAttention(config) if decoder else None
        mixture = MixtureConfig(config.width, config.hidden, config.experts, 1, gated=False, normalised=False)
        sparse = index % config.every == config.every - 1
        self.mlp = Mixture(mixture) if sparse else ReluMlp(config.width, config.hidden)
        self.cache_shape = (config.heads, config.head_dim)

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor | None, state: list[Tensor] | None, past: int) -> Tensor:
        """x [B, T, width] to the same; `state`: own keys, own values, the encoder's keys and values."""
        x = x + self.attention(self.norms[0](x), bias, None if state is None else state[:2], past)
        if self.cross is not None:
            x = x + self.cross(self.norms[1](x), memory, None if state is None else state[2:])
        return x + cast(Tensor, self.mlp(self.norms[-1](x)))

    def make_state(self, batch: int, capacity: int, source: int) -> list[Tensor]:
        """Empty keys and values for `capacity` own tokens and `source` tokens of the encoder."""
        heads, head_dim = self.cache_shape
        dtype = self.attention.output.weight.dtype
        rows = (capacity, capacity, source, source)
        return [torch.zeros(batch, heads, count, head_dim, dtype=dtype) for count in rows]


class Switch(LanguageModel):
    """Encoder over the source, decoder over the answer; embedding and head share one matrix, scaled by width^-½."""

    def __init__(self, config: SwitchConfig) -> None:
        decoder: list[nn.Module] = [SwitchLayer(config, index, decoder=True) for index in range(config.layers)]
        super().__init__(config.vocab, config.width, decoder, nn.RMSNorm(config.width, config.eps), tied=True)
        self.config = config
        self.bias = RelativeBias(config, causal=True)
        self.encoder = nn.ModuleList(SwitchLayer(config, index, decoder=False) for index in range(config.layers))
        self.encoder_bias = RelativeBias(config, causal=False)
        self.encoder_norm = nn.RMSNorm(config.width, config.eps)

    def forward(
        self, tokens: Tensor, state: State | None = None, past: int = 0, source: Tensor | None = None
    ) -> Tensor:
        """Logits of the answer `tokens` [B, T] to `source` [B, S], which a `state` once filled stands for."""
        memory = None if source is None else self.encode(source)
        bias = self.bias(tokens.shape[1], past + tokens.shape[1])
        x = self.embedding(tokens)
        for index, layer in enumerate(self.layers):
            x = layer(x, bias, memory, None if state is None else state[index], past)
        if state is not None:
            x = x[:, -1:]
        return F.linear(self.norm(x) * self.config.width**-0.5, self.embedding.weight)

    def encode(self, source: Tensor) -> Tensor:
        """The encoder's output [B, S, width] over `source` [B, S]."""
        x = self.embedding(source)
        bias = self.encoder_bias(source.shape[1], source.shape[1])
        for layer in self.encoder:
            x = layer(x, bias, None, None, 0)
        return cast(Tensor, self.encoder_norm(x))

    def make_state(self, batch: int, capacity: int, source: int | None = None) -> State:
        """An empty state for `capacity` tokens of answer and `source` tokens (`capacity` of them if not given)."""
        rows = capacity if source is None else source
        return [cast(SwitchLayer, layer).make_state(batch, capacity, rows) for layer in self.layers]

    def example_inputs(self, phase: str, batch: int, prompt: int) -> dict[str, Any]:
        """As for every language model, with the prompt as source.

        Decode follows `prompt` tokens of source and answer together. A row of either cache costs the same, so all
        of them stand in the source's, but for the start token.
        """
        source = torch.zeros(batch, prompt, dtype=torch.int64)
        token = torch.zeros(batch, 1, dtype=torch.int64)
        if phase in ("forward", "train"):
            return {"tokens": source, "source": source}
        if phase == "prefill":
            return {"tokens": token, "state": self.make_state(batch, 1, prompt), "past": 0, "source": source}
        if phase == "decode":
            return {"tokens": token, "state": self.make_state(batch, 2, prompt), "past": 1}
        raise ValueError(f"phase {phase!r}: expected 'forward', 'train', 'prefill' or 'decode'")
