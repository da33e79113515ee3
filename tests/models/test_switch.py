import re

import torch
from transformers import SwitchTransformersConfig as ReferenceConfig
from transformers import SwitchTransformersForConditionalGeneration

from hwsim.models.switch import Switch, SwitchConfig

SMALL = SwitchConfig(layers=4, width=32, heads=4, head_dim=8, hidden=48, experts=4, vocab=61)
REFERENCE = ReferenceConfig(
    num_layers=4,
    num_decoder_layers=4,
    num_sparse_encoder_layers=2,
    num_sparse_decoder_layers=2,
    d_model=32,
    d_kv=8,
    num_heads=4,
    d_ff=48,
    num_experts=4,
    expert_capacity=1000,
    vocab_size=61,
)


@torch.no_grad()
def test_logits_equal_transformers() -> None:
    reference = SwitchTransformersForConditionalGeneration(REFERENCE).eval()
    for parameter in reference.parameters():
        parameter.normal_(std=0.3)
    model = Switch(SMALL)
    model.load_state_dict(renamed(reference.state_dict()))
    source, answer = torch.randint(61, (2, 150)), torch.randint(61, (2, 140))
    expected = reference(input_ids=source, decoder_input_ids=answer).logits
    torch.testing.assert_close(model(answer, source=source), expected, rtol=1e-3, atol=1e-3)


def renamed(reference: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters of transformers' Switch under our names, with merged projections and stacked experts."""
    names = {
        r"encoder\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias": "encoder_bias.table",
        r"decoder\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias": "bias.table",
        r"encoder\.final_layer_norm": "encoder_norm",
        r"decoder\.final_layer_norm": "norm",
        r"shared": "embedding",
        r"encoder\.block\.": "encoder.",
        r"decoder\.block\.": "layers.",
        r"layer\.(\d)\.layer_norm": r"norms.\1",
        r"layer\.\d\.SelfAttention\.o\.": "attention.output.",
        r"layer\.\d\.SelfAttention\.[qkv]\.": "attention.inputs.",
        r"layer\.\d\.EncDecAttention\.o\.": "cross.output.",
        r"layer\.\d\.EncDecAttention\.q\.": "cross.query.",
        r"layer\.\d\.EncDecAttention\.[kv]\.": "cross.memory.",
        r"layer\.\d\.mlp\.router\.classifier": "mlp.router",
        r"layer\.\d\.mlp\.experts\.expert_\d\.wi\.weight": "mlp.inputs",
        r"layer\.\d\.mlp\.experts\.expert_\d\.wo\.weight": "mlp.output",
        r"layer\.\d\.mlp\.wi": "mlp.input",
        r"layer\.\d\.mlp\.wo": "mlp.output",
    }
    parts: dict[str, list[torch.Tensor]] = {}
    for name, value in reference.items():
        if name in ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
            continue
        for old, new in names.items():
            name = re.sub(old, new, name)
        parts.setdefault(name, []).append(value)
    stacked = ("mlp.inputs", "mlp.output")
    return {name: torch.stack(p) if name.endswith(stacked) else torch.cat(p) for name, p in parts.items()}


def test_full_size_has_the_parameters_of_transformers() -> None:
    with torch.device("meta"):
        ours = Switch(SwitchConfig())
        theirs = SwitchTransformersForConditionalGeneration(
            ReferenceConfig(d_ff=3072, num_sparse_encoder_layers=6, num_sparse_decoder_layers=6)
        )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
def test_decode_continues_prefill() -> None:
    model = Switch(SMALL)
    source, answer = torch.randint(61, (2, 9)), torch.randint(61, (2, 6))
    full = model(answer, source=source)
    state = model.make_state(batch=2, capacity=6, source=9)
    torch.testing.assert_close(model(answer[:, :1], state, 0, source), full[:, :1])
    for past in range(1, 6):
        torch.testing.assert_close(model(answer[:, past : past + 1], state, past), full[:, past : past + 1])


@torch.no_grad()
def test_decode_attends_to_the_whole_context() -> None:
    inputs = Switch(SMALL).example_inputs("decode", batch=2, prompt=7)
    own, _, cross, _ = inputs["state"][0]
    assert own.shape[2] + cross.shape[2] == 7 + 2  # prompt, start token and the token itself
