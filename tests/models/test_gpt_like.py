"""OPT, Falcon, Persimmon, Phi and Qwen3 against transformers: the same weights give the same logits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest
import torch
import transformers
from torch import Tensor

from hwsim.frontends.torch import trace_symbolic
from hwsim.graph import Kind, Role
from hwsim.models.falcon import Falcon, FalconConfig
from hwsim.models.language import LanguageModel
from hwsim.models.mlp import Mlp
from hwsim.models.opt import OPT, OPTConfig
from hwsim.models.persimmon import Persimmon, PersimmonConfig
from hwsim.models.phi import Phi, PhiConfig
from hwsim.models.qwen3 import Qwen3, Qwen3Config

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 61}
OURS: Mapping[str, Callable[[], LanguageModel]] = {
    "opt": lambda: OPT(OPTConfig(2, 32, 4, 48, 61)),
    "falcon": lambda: Falcon(FalconConfig(2, 32, 4, 1, 8, 128, 61)),
    "persimmon": lambda: Persimmon(PersimmonConfig(2, 32, 4, 4, 48, 61)),
    "phi": lambda: Phi(PhiConfig(2, 32, 4, 4, 48, 61)),
    "qwen3": lambda: Qwen3(Qwen3Config(2, 32, 4, 2, 8, 48, 61, merged=False)),
    "trim-kv": lambda: Qwen3(Qwen3Config(2, 32, 4, 2, 8, 48, 61, gate_hidden=12)),
}


def rotary(base: float, share: float = 1.0) -> dict[str, object]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base, "partial_rotary_factor": share}}


REFERENCES: Mapping[str, Callable[[], transformers.PretrainedConfig]] = {
    "opt": lambda: transformers.OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32),
    "falcon": lambda: transformers.FalconConfig(**SMALL, **rotary(10000.0)),
    "persimmon": lambda: transformers.PersimmonConfig(**SMALL, intermediate_size=48, **rotary(25000.0, 0.5)),
    "phi": lambda: transformers.PhiConfig(**SMALL, intermediate_size=48, **rotary(10000.0, 0.5)),
    "qwen3": lambda: transformers.Qwen3Config(
        **SMALL,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        tie_word_embeddings=True,
        **rotary(1000000.0),
    ),
}
NAMES = {
    r"^(model|transformer)\.(decoder\.)?": "",
    r"^(embed_tokens|word_embeddings)\.": "embedding.",
    r"^embed_positions\.": "positions.",
    r"^(final_layer_norm|final_layernorm|ln_f|norm)\.": "norm.",
    r"^lm_head\.bias": "head_bias",
    r"^lm_head\.": "head.",
    r"^h\.": "layers.",
    r"self_attn_layer_norm|input_layernorm": "mixer_norm",
    r"(\d)\.final_layer_norm|(\d)\.post_attention_layernorm": r"\1\2.mlp_norm",
    r"self_attention\.|self_attn\.": "mixer.",
    r"\.q_proj": ".inputs.0",
    r"\.k_proj": ".inputs.1",
    r"\.v_proj": ".inputs.2",
    r"query_key_value": "inputs.0",
    r"mixer\.(out_proj|o_proj|dense)": "mixer.output",
    r"(q_layernorm|q_norm)": "query_norm",
    r"(k_layernorm|k_norm)": "key_norm",
    r"(\d)\.fc1|mlp\.fc1|mlp\.dense_h_to_4h": r"\1.mlp.input",
    r"(\d)\.fc2|mlp\.fc2|mlp\.dense_4h_to_h": r"\1.mlp.output",
    r"gate_proj": "inputs.0",
    r"up_proj": "inputs.1",
    r"down_proj": "output",
}


def renamed(reference: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of a model of transformers under the names of ours."""
    found = {}
    for name, value in reference.items():
        for theirs, mine in NAMES.items():
            name = re.sub(theirs, mine, name)
        name = name.replace("..", ".")
        if name not in ours:
            name = name.replace(".mlp.", ".beside.")
        if name in ours:  # a head that is tied stands there twice
            found[name] = value
    return found


def by_kind(value: Tensor, heads: int) -> Tensor:
    """Rows of a merged projection that lie head by head (q, k, v of each), as all q, then all k, then all v."""
    return value.view(heads, 3, -1, *value.shape[1:]).transpose(0, 1).reshape(value.shape)


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_logits_equal_transformers(name: str) -> None:
    reference = transformers.AutoModelForCausalLM.from_config(REFERENCES[name]()).eval()
    for parameter in reference.parameters():
        parameter.normal_(std=0.3)
    model = OURS[name]()
    weights = renamed(reference.state_dict(), model.state_dict())
    if name == "persimmon":
        merged = [key for key in weights if ".mixer.inputs.0." in key]
        weights |= {key: by_kind(weights[key], 4) for key in merged}
    model.load_state_dict(weights)
    tokens = torch.randint(61, (2, 9))
    torch.testing.assert_close(model(tokens), reference(tokens).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", OURS)
def test_decode_continues_prefill(name: str, assert_decode_continues_prefill: Callable[[LanguageModel], None]) -> None:
    assert_decode_continues_prefill(OURS[name]())


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_batch_and_prompt_stay_free(name: str, phase: str) -> None:
    model = OURS[name]()
    hints = {"batch": 3, "prompt": 1531}
    graph = trace_symbolic(lambda batch, prompt: model.example_inputs(phase, batch, prompt), model, hints)
    assert not graph.unmodelled
    tokens = {"prefill": 100, "decode": 1}[phase]
    bound = graph.bind(batch=2, prompt=100)
    matrices = {key: p for key, p in model.named_parameters() if p.ndim == 2}
    weights = sum(p.numel() for key, p in matrices.items() if key.startswith("layers."))
    products = sum(op.size("m") * op.size("n") * op.size("k") for op in bound.ops if op.kind is Kind.MATMUL)
    assert products == 2 * (tokens * weights + 61 * 32)
    assert bound.bytes_of(Role.STATE) > 0


def test_the_gate_notes_what_a_cache_needs() -> None:
    torch.manual_seed(0)
    model = OURS["trim-kv"]()
    state = model.make_state(2, 6)
    with torch.no_grad():
        model(torch.randint(61, (2, 5)), state, 0)
        model(torch.randint(61, (2, 1)), state, 5)
    _, _, log_beta, positions = state[1]
    assert log_beta.shape == (2, 2, 6) and (log_beta < 0).all()
    assert positions.tolist() == [[list(range(6))] * 2] * 2


def test_an_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown activation 'swish'; one of relu, relu2, gelu, gelu_tanh"):
        Mlp(8, 8, "swish", bias=False)
