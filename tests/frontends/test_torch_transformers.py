"""Architectures of transformers: matrix FLOPs equal torch's counter on the real, small model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import hwsim  # noqa: E402
from hwsim.frontends.torch import trace_symbolic  # noqa: E402
from hwsim.graph import Graph, Kind, Role  # noqa: E402
from hwsim.work import work_of  # noqa: E402

Inputs = dict[str, torch.Tensor]


def tokens(batch: int = 2, length: int = 24) -> torch.Tensor:
    return torch.zeros(batch, length, dtype=torch.int64)


LANGUAGE = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 112}
IMAGE = {"pixel_values": (2, 3, 32, 32)}

# Class, config class and config, shapes of the inputs (floats; a pair is a batch of tokens).
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**LANGUAGE, **HEADS}, {"input_ids": (2, 24)}),
    "mixtral": (
        "MixtralForCausalLM", "MixtralConfig",
        {**LANGUAGE, **HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}, {"input_ids": (2, 24)},
    ),
    "mamba2": (
        "Mamba2ForCausalLM", "Mamba2Config",
        {**LANGUAGE, "num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 16},
        {"input_ids": (2, 24)},
    ),
    "falcon-mamba": (
        "FalconMambaForCausalLM", "FalconMambaConfig", {**LANGUAGE, "state_size": 8}, {"input_ids": (2, 9)}
    ),
    "qwen3-next": (
        "Qwen3NextForCausalLM", "Qwen3NextConfig",
        {**LANGUAGE, **HEADS, "num_hidden_layers": 4, "head_dim": 16, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16, "num_experts": 8,
         "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
        {"input_ids": (2, 24)},
    ),
    "deepseek-v3": (
        "DeepseekV3ForCausalLM", "DeepseekV3Config",
        {**LANGUAGE, **HEADS, "num_key_value_heads": 4, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
         "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "kv_lora_rank": 16,
         "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16},
        {"input_ids": (2, 24)},
    ),
    "vit": (
        "ViTForImageClassification", "ViTConfig",
        {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
         "image_size": 32, "patch_size": 8}, IMAGE,
    ),
    "swin": (
        "SwinForImageClassification", "SwinConfig",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        IMAGE,
    ),
    "convnext": (
        "ConvNextForImageClassification", "ConvNextConfig",
        {"hidden_sizes": [16, 32], "depths": [2, 2], "num_stages": 2, "patch_size": 4, "image_size": 32}, IMAGE,
    ),
    "whisper": (
        "WhisperForConditionalGeneration", "WhisperConfig",
        {"vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 16,
         "max_source_positions": 20, "max_target_positions": 30, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2, "decoder_start_token_id": 1},
        {"input_features": (2, 16, 40), "decoder_input_ids": (2, 6)},
    ),
    "t5": (
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
        {"input_ids": (2, 12), "decoder_input_ids": (2, 6)},
    ),
}  # fmt: skip

# Where a mask learns or head sizes differ, torch's kernel for the CPU keeps the scores; the fused backward pass of an
# accelerator computes them again: 2 · layers · batch · heads · queries · keys · head size.
RECOMPUTED = {
    "deepseek-v3": 2 * 2 * 2 * 4 * 24 * 24 * 24,
    "swin": 2 * 2 * (2 * 16) * 2 * 16 * 16 * 8 + 2 * 2 * (2 * 4) * 4 * 16 * 16 * 8,
    "t5": 2 * 2 * 2 * 4 * (12 * 12 + 6 * 6) * 8,
}


def build(name: str) -> tuple[Any, Any, Inputs]:
    """The model on the CPU and on the meta device, and its inputs."""
    model_class, config_class, options, shapes = MODELS[name]
    config = getattr(transformers, config_class)(**options)
    real = getattr(transformers, model_class)(copy.deepcopy(config)).eval()
    with torch.device("meta"):
        meta = getattr(transformers, model_class)(config).eval()
    if "num_experts_per_tok" in options:
        real.set_experts_implementation("eager")  # torch's counter does not know the grouped product
    inputs = {key: tokens(*shape) if len(shape) == 2 else torch.zeros(shape) for key, shape in shapes.items()}
    return real, meta, inputs


@pytest.mark.parametrize("name", MODELS)
def test_forward_flops(name: str, counted_flops: Callable[..., int]) -> None:
    real, meta, inputs = build(name)
    graph = hwsim.trace(meta, kwargs=inputs)
    assert graph.matmul_flops == counted_flops(real, **inputs)
    assert graph.parameters == sum(p.numel() for p in meta.parameters())
    assert not graph.unmodelled


@pytest.mark.parametrize("name", MODELS)
def test_backward_flops(name: str, counted_flops: Callable[..., int]) -> None:
    real, meta, inputs = build(name)
    graph = hwsim.trace(meta, kwargs=inputs, backward=True)
    assert graph.matmul_flops == counted_flops(real, backward=True, **inputs) + RECOMPUTED.get(name, 0)
    assert not graph.unmodelled


def decode(name: str, past: int) -> tuple[Any, Graph]:
    """A decode step after ``past`` cached tokens."""
    _, meta, _ = build(name)
    cache = transformers.DynamicCache(config=meta.config)
    with torch.no_grad():
        meta(input_ids=tokens(2, past).to("meta"), past_key_values=cache)
    return meta, hwsim.trace(meta, kwargs={"input_ids": tokens(2, 1), "past_key_values": cache})


def test_a_dynamic_cache_is_appended_to() -> None:
    _, graph = decode("llama", past=24)
    caches = list(graph.of_role(Role.STATE))
    assert [t.shape for t in caches] == [(2, 2, 25, 16)] * 4
    writes = [op for op in graph.ops if op.kind is Kind.WRITE]
    assert {work_of(op, graph).write_bytes for op in writes} == {2 * 2 * 1 * 16 * 4}
    attention = [op for op in graph.ops if op.kind is Kind.ATTENTION]
    assert [op.inputs[1:3] for op in attention] == [
        (t.name, u.name) for t, u in zip(caches[::2], caches[1::2], strict=True)
    ]
    assert {(op.size("heads"), op.size("kv_heads"), op.size("kv_len")) for op in attention} == {(4, 2, 25)}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_decode_flops(implementation: str, counted_flops: Callable[..., int]) -> None:
    meta, graph = decode("llama", past=24)
    real, _, _ = build("llama")
    real.set_attn_implementation(implementation)
    cache = transformers.DynamicCache(config=meta.config)
    with torch.no_grad():
        real(input_ids=tokens(2, 24), past_key_values=cache)
    assert graph.matmul_flops == counted_flops(real, input_ids=tokens(2, 1), past_key_values=cache)


@pytest.mark.parametrize("name", ["llama", "mixtral", "deepseek-v3", "t5"])
def test_free_sizes_bind_to_the_concrete_trace(name: str) -> None:
    _, meta, shapes = build(name)

    def inputs(batch: int, length: int) -> dict[str, object]:
        return {key: torch.empty(batch, length, dtype=torch.int64, device="meta") for key in shapes}

    graph = trace_symbolic(inputs, meta, {"batch": 3, "length": 11})
    for batch, length in ((2, 5), (9, 40)):
        bound, concrete = graph.bind(batch=batch, length=length), hwsim.trace(meta, kwargs=inputs(batch, length))
        assert [(op.kind, op.path, dict(op.attrs)) for op in bound.ops] == [
            (op.kind, op.path, dict(op.attrs)) for op in concrete.ops
        ]
        for one, other in zip(bound.ops, concrete.ops, strict=True):
            assert work_of(one, bound).nbytes == work_of(other, concrete).nbytes
