from collections.abc import Callable

import torch
from transformers import LlamaConfig as ReferenceConfig
from transformers import LlamaForCausalLM

from hwsim.models.language import LanguageModel
from hwsim.models.llama import Llama, LlamaConfig

SMALL = LlamaConfig(
    layers=2, width=32, heads=4, kv_heads=2, head_dim=8, hidden=48, vocab=61, rope_stretch=8, merged=False
)


def test_logits_equal_transformers(our_name: Callable[[str], str]) -> None:
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
    model.load_state_dict({our_name(name): value for name, value in reference.state_dict().items()})
    tokens = torch.randint(61, (2, 9))
    torch.testing.assert_close(model(tokens), reference(tokens).logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.get_buffer("rotary.frequency"), reference.model.rotary_emb.inv_freq)


def test_decode_continues_prefill(assert_decode_continues_prefill: Callable[[LanguageModel], None]) -> None:
    assert_decode_continues_prefill(Llama(LlamaConfig(2, 32, 4, 2, 8, 48, vocab=61)))


def test_merged_matrices_change_no_shape() -> None:
    separate = sum(p.numel() for p in Llama(SMALL).parameters())
    merged = Llama(LlamaConfig(2, 32, 4, 2, 8, 48, vocab=61))
    assert sum(p.numel() for p in merged.parameters()) == separate
    assert [tuple(t.shape) for t in merged.make_state(3, 5)[0]] == [(3, 2, 5, 8)] * 2
