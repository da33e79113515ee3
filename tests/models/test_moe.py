from collections.abc import Callable

import torch
from transformers import MixtralConfig as ReferenceConfig
from transformers import MixtralForCausalLM

from hwsim.models.language import LanguageModel
from hwsim.models.moe import Mixture, MixtureConfig, MoE, MoEConfig

SMALL = MoEConfig(
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    hidden=48,
    vocab=61,
    rope_base=1e6,
    merged=False,
    experts=4,
    active=2,
)


def test_logits_equal_transformers(our_name: Callable[[str], str]) -> None:
    reference = MixtralForCausalLM(
        ReferenceConfig(
            num_hidden_layers=2,
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            vocab_size=61,
            rms_norm_eps=SMALL.eps,
            rope_parameters={"rope_type": "default", "rope_theta": SMALL.rope_base},
            num_local_experts=4,
            num_experts_per_tok=2,
        )
    )
    model = MoE(SMALL)
    model.load_state_dict({our_name(name): value for name, value in reference.state_dict().items()})
    tokens = torch.randint(61, (2, 9))
    torch.testing.assert_close(model(tokens), reference(tokens).logits, rtol=1e-4, atol=1e-4)


def test_decode_continues_prefill(assert_decode_continues_prefill: Callable[[LanguageModel], None]) -> None:
    assert_decode_continues_prefill(MoE(SMALL))


def test_every_expert_and_the_router_learn() -> None:
    mixture = Mixture(MixtureConfig(width=8, hidden=16, experts=4, active=2, gated=True, normalised=True))
    mixture(torch.randn(2, 20, 8)).square().sum().backward()
    for parameter in mixture.parameters():
        assert parameter.grad is not None
        assert (parameter.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_export_keeps_the_grouped_matmuls() -> None:
    model = MoE(SMALL).eval()
    inputs = model.example_inputs("decode", batch=2, prompt=7)
    program = torch.export.export(model, (), inputs, strict=False)
    calls = [node for node in program.graph.nodes if node.target is torch.ops.hwsim.grouped_matmul.default]
    assert len(calls) == 2 * SMALL.layers
