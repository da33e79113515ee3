import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTConfig as ReferenceConfig
from transformers import ViTForImageClassification

from hwsim.models.vit import ViT, ViTConfig


def test_logits_equal_transformers() -> None:
    config = ViTConfig(layers=2, width=16, heads=4, hidden=24, patch=8, image_size=32, classes=5)
    reference = ViTForImageClassification(
        ReferenceConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=24,
            layer_norm_eps=config.eps,
            image_size=32,
            patch_size=8,
            num_labels=5,
        )
    ).eval()
    model = ViT(config).eval()
    model.load_state_dict(merged(reference.state_dict()))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), reference(images).logits)


def merged(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters of transformers' ViT under timm's names, with q, k and v in one matrix."""
    names = {
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "vit.layernorm": "norm",
        "vit.layers": "blocks",
        "attention.o_proj": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "classifier": "head",
    }
    result = {}
    for name, value in state.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            value = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            name = name.replace("attention.q_proj", "attn.qkv")
        for old, new in names.items():
            name = name.replace(old, new)
        result[name] = value
    return result


def test_flops_of_vit_b_16() -> None:
    with torch.device("meta"):
        model = ViT(ViTConfig())
        inputs = model.example_inputs("forward", batch=1, prompt=0)
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    tokens, width = 14 * 14 + 1, 768
    layer = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    patches, head = 2 * (tokens - 1) * 3 * 16 * 16 * width, 2 * width * 1000
    assert counter.get_total_flops() == 12 * layer + patches + head
