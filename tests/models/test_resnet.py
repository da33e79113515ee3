import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig as ReferenceConfig
from transformers import ResNetForImageClassification

from hwsim.models.resnet import ResNet, ResNetConfig


@pytest.mark.parametrize("bottleneck", [True, False])
def test_logits_equal_transformers(bottleneck: bool) -> None:
    config = ResNetConfig(blocks=(1, 2), bottleneck=bottleneck, width=8, classes=5, image_size=32)
    widths = [32, 64] if bottleneck else [8, 16]
    reference = ResNetForImageClassification(
        ReferenceConfig(
            embedding_size=8,
            hidden_sizes=widths,
            depths=[1, 2],
            layer_type="bottleneck" if bottleneck else "basic",
            num_labels=5,
        )
    ).eval()
    model = ResNet(config).eval()
    model.load_state_dict({renamed(name): value for name, value in reference.state_dict().items()})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), reference(images).logits)


def renamed(name: str) -> str:
    """The torchvision name of a parameter of transformers' ResNet."""
    name = name.replace("resnet.embedder.embedder.convolution", "conv1")
    name = name.replace("resnet.embedder.embedder.normalization", "bn1")
    name = name.replace("classifier.1", "fc")
    name = re.sub(r"resnet\.encoder\.stages\.(\d+)\.layers", lambda m: f"layer{int(m[1]) + 1}", name)
    name = name.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
    name = re.sub(r"layer\.(\d+)\.convolution", lambda m: f"conv{int(m[1]) + 1}", name)
    return re.sub(r"layer\.(\d+)\.normalization", lambda m: f"bn{int(m[1]) + 1}", name)


def test_flops_of_resnet_50() -> None:
    with torch.device("meta"):
        model = ResNet(ResNetConfig())
        inputs = model.example_inputs("forward", batch=1, prompt=0)
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    assert counter.get_total_flops() == 2 * 4_089_184_256  # 4.09 GMAC, torchvision's 4.09 "GFLOPS"


def test_language_phases_are_refused() -> None:
    with pytest.raises(ValueError, match="vision model"):
        ResNet(ResNetConfig(blocks=(1,), width=8)).example_inputs("decode", 1, 1)
