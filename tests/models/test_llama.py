import torch
from transformers import LlamaConfig as ReferenceConfig
from transformers import LlamaForCausalLM

from hwsim.models.llama import Llama, LlamaConfig

SMALL = LlamaConfig(
    layers=2, width=32, heads=4, kv_heads=2, head_dim=8, hidden=48, vocab=61, rope_stretch=8, merged=False
)


def test_logits_equal_transformers() -> None:
    reference = LlamaForCausalLM(
        ReferenceConfig(
            num_hidden_layers=2,
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            vocab_size=61,
            rms_norm_eps=SMALL.eps,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": SMALL.rope_base,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            max_position_embeddings=65536,
        )
    )
    model = Llama(SMALL)
    model.load_state_dict({renamed(name): value for name, value in reference.state_dict().items()})
    tokens = torch.randint(61, (2, 9))
    positions = torch.arange(9)[None] + 20_000  # far enough out for the stretched frequencies to matter
    expected = reference(tokens, position_ids=positions).logits
    torch.testing.assert_close(model(tokens, past=20_000), expected, rtol=1e-4, atol=1e-4)


def renamed(name: str) -> str:
    """Our name of a parameter of transformers' Llama."""
    names = {
        "model.embed_tokens": "embedding",
        "model.": "",
        "lm_head": "head",
        "self_attn.q_proj": "mixer.inputs.0",
        "self_attn.k_proj": "mixer.inputs.1",
        "self_attn.v_proj": "mixer.inputs.2",
        "self_attn.o_proj": "mixer.output",
        "mlp.gate_proj": "mlp.inputs.0",
        "mlp.up_proj": "mlp.inputs.1",
        "mlp.down_proj": "mlp.output",
        "input_layernorm": "mixer_norm",
        "post_attention_layernorm": "mlp_norm",
    }
    for old, new in names.items():
        name = name.replace(old, new)
    return name


@torch.no_grad()
def test_decode_continues_prefill() -> None:
    model = Llama(LlamaConfig(2, 32, 4, 2, 8, 48, vocab=61))
    tokens = torch.randint(61, (2, 12))
    full = model(tokens)
    state = model.make_state(batch=2, capacity=12)
    torch.testing.assert_close(model(tokens[:, :7], state, 0), full[:, 6:7])
    for past in range(7, 12):
        torch.testing.assert_close(model(tokens[:, past : past + 1], state, past), full[:, past : past + 1])


def test_merged_matrices_change_no_shape() -> None:
    separate = sum(p.numel() for p in Llama(SMALL).parameters())
    merged = Llama(LlamaConfig(2, 32, 4, 2, 8, 48, vocab=61))
    assert sum(p.numel() for p in merged.parameters()) == separate
    assert [tuple(t.shape) for t in merged.make_state(3, 5)[0]] == [(3, 2, 5, 8)] * 2
