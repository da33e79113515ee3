"""Residual networks (He et al., arXiv 1512.03385), with the stride in the 3x3 convolution ("v1.5")."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.models.vision import VisionModel


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """Shape of a ResNet; bottleneck blocks put out `expansion` times their inner width."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    width: int = 64
    expansion: int = 4
    classes: int = 1000
    image_size: int = 224


class BasicBlock(nn.Module):
    """y = relu(F(x) + shortcut(x)), F of two 3x3 convolutions; `x` [B, C, H, W]."""

    def __init__(self, channels: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """y = relu(F(x) + shortcut(x)), F of 1x1, 3x3 and 1x1 convolutions; `x` [B, C, H, W]."""

    def __init__(self, channels: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


def shortcut(channels: int, out: int, stride: int) -> nn.Module:
    """The identity where the shape stays, else a strided 1x1 convolution with its norm."""
    if channels == out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(VisionModel):
    """Stem, four stages of residual blocks that halve the map and double the width, mean pool, classifier.

    Parameter names are torchvision's, so that its checkpoints load.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config.image_size)
        self.config = config
        self.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        block = Bottleneck if config.bottleneck else BasicBlock
        channels = config.width
        self.stages: list[str] = []
        for index, count in enumerate(config.blocks):
            inner = config.width * 2**index
            out = inner * config.expansion if config.bottleneck else inner
            stage = nn.Sequential()
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(block(channels, inner, out, stride))
                channels = out
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], stage)
        self.fc = nn.Linear(channels, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [B, classes] of `images` [B, 3, H, W]."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return F.linear(x, self.fc.weight, self.fc.bias)
