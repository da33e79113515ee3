"""The vision transformer (Dosovitskiy et al., arXiv 2010.11929)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.vision import VisionModel


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """Shape of a ViT on square images cut into square patches."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    image_size: int = 224
    classes: int = 1000
    eps: float = 1e-6


class Attention(nn.Module):
    """Bidirectional multi-head attention with biases; `x` [B, N, d]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(y.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """y = W2 gelu(W1 x + b1) + b2; `x` [B, N, d]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class Block(nn.Module):
    """Pre-norm encoder block: x + attention(norm(x)), then x + mlp(norm(x)); `x` [B, N, d]."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, config.eps)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, config.eps)
        self.mlp = Mlp(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """One token per patch by a convolution whose stride is its kernel: [B, 3, H, W] to [B, HW/p², d]."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.proj(images).flatten(2).transpose(1, 2))


class ViT(VisionModel):
    """Patch embedding, class token, learned positions, encoder blocks, classifier on the class token.

    Parameter names are timm's, so that its checkpoints load.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config.image_size)
        self.config = config
        patches = (config.image_size // config.patch) ** 2
        self.patch_embed = PatchEmbedding(config.patch, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [B, classes] of `images` [B, 3, H, W]."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.head(self.norm(x[:, 0])))
