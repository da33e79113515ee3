"""Checks that several language models share."""

from collections.abc import Callable

import pytest
import torch

from hwsim.models.language import LanguageModel

DECODER_NAMES = {
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
    "mlp.gate.": "mlp.router.",
    "mlp.experts.gate_up_proj": "mlp.inputs",
    "mlp.experts.down_proj": "mlp.output",
    "input_layernorm": "mixer_norm",
    "post_attention_layernorm": "mlp_norm",
}


@pytest.fixture
def our_name() -> Callable[[str], str]:
    """Our name of a parameter of a decoder of transformers (Llama, Mixtral)."""

    def rename(name: str) -> str:
        for theirs, ours in DECODER_NAMES.items():
            name = name.replace(theirs, ours)
        return name

    return rename


@pytest.fixture
def assert_decode_continues_prefill() -> Callable[[LanguageModel], None]:
    """Prefill of 7 tokens, then 5 decoded one by one, give the logits of one forward over all 12."""

    @torch.no_grad()
    def check(model: LanguageModel) -> None:
        tokens = torch.randint(model.vocab, (2, 12))
        full = model(tokens)
        state = model.make_state(batch=2, capacity=12)
        torch.testing.assert_close(model(tokens[:, :7], state, 0), full[:, 6:7])
        for past in range(7, 12):
            logits = model(tokens[:, past : past + 1], state, past)
            torch.testing.assert_close(logits, full[:, past : past + 1])

    return check
