from collections.abc import Callable
from functools import partial

import torch

from hwsim.frontends.torch import trace_symbolic
from hwsim.graph import Kind, Role
from hwsim.models.attention_gate import AttentionGateConfig, AttentionGateLlama
from hwsim.models.language import LanguageModel

SMALL = AttentionGateConfig(2, 32, 4, 2, 8, 48, 61, gate_heads=2, gate_dim=4)


def test_decode_continues_prefill(assert_decode_continues_prefill: Callable[[LanguageModel], None]) -> None:
    assert_decode_continues_prefill(AttentionGateLlama(SMALL))


@torch.no_grad()
def test_a_prompt_is_judged_and_generated_tokens_are_kept() -> None:
    model = AttentionGateLlama(SMALL)
    state = model.make_state(2, 8)
    model(torch.randint(61, (2, 7)), state, 0)
    model(torch.randint(61, (2, 1)), state, 7)
    kept = state[1][2]
    assert kept.shape == (2, 2, 8) and kept[:, :, 7].all()
    assert not kept[:, :, :7].all() and kept[:, :, :7].any()


def test_the_gate_costs_its_formula_in_prefill_and_nothing_in_decode() -> None:
    """Per layer and token: C·3n'd' for q, k, v, 2·N·n'd' for the attention, n'd'·H for the output."""
    model = AttentionGateLlama(SMALL)
    products, attentions = {}, {}
    for phase in ("prefill", "decode"):
        hints = {"batch": 3, "prompt": 1531}
        graph = trace_symbolic(partial(model.example_inputs, phase), model, hints).bind(batch=1, prompt=100)
        ops = [op for op in graph.ops if ".gate" in op.path]
        products[phase] = sum(op.size("m") * op.size("n") * op.size("k") for op in ops if op.kind is Kind.MATMUL)
        attentions[phase] = sum(op.kind is Kind.ATTENTION for op in ops)
        assert any(tensor.dtype == "bool" for tensor in graph.of_role(Role.STATE))
    assert products == {"prefill": 2 * 100 * (32 * 3 * 8 + 8 * 2), "decode": 0}
    assert attentions == {"prefill": 2, "decode": 0}
