from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer as ReferenceMixer

from hwsim.models.language import LanguageModel, Position
from hwsim.models.sambay import DifferentialAttention, MambaMixer, SambaY, SambaYConfig

SMALL = SambaYConfig(
    layers=8, width=32, heads=4, kv_heads=2, head_dim=8, hidden=48, vocab=61, window=5, state=4, rank=3
)


def test_mamba_layer_equals_transformers() -> None:
    reference = ReferenceMixer(
        MambaConfig(hidden_size=32, state_size=4, time_step_rank=3, conv_kernel=4, expand=2), layer_idx=0
    )
    names = {"in_proj": "input", "conv1d": "convolution", "x_proj": "select", "dt_proj": "step", "out_proj": "output"}
    renamed = {"A_log": "rates", "D": "skip"}
    mixer = MambaMixer(SMALL)
    weights = {}
    for name, value in reference.state_dict().items():
        module, _, rest = name.partition(".")
        weights[renamed.get(name, f"{names.get(module, module)}.{rest}")] = value
    mixer.load_state_dict(weights)
    x = torch.randn(2, 9, 32)
    torch.testing.assert_close(mixer(x, None, Position()), reference(x), rtol=1e-4, atol=1e-5)


def test_differential_attention_is_the_difference_of_two_maps() -> None:
    torch.manual_seed(0)
    layer = DifferentialAttention(SMALL, depth=3)
    x = torch.randn(2, 6, 32)
    q, k, v = layer.input(x).split([32, 16, 16], dim=-1)
    lambdas: Tensor = layer.share
    share = (lambdas[0] @ lambdas[1]).exp() - (lambdas[2] @ lambdas[3]).exp() + layer.first_share
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    pairs = []
    for pair in range(2):  # both pairs of query heads share the one pair of key heads and its 16 value channels
        maps = []
        for half in range(2):
            query = q[..., 8 * (2 * pair + half) :][..., :8]
            scores = query @ k[..., 8 * half :][..., :8].mT / 8**0.5
            maps.append(scores.masked_fill(future, float("-inf")).softmax(-1))
        mixed = (maps[0] - share * maps[1]) @ v
        pairs.append(F.rms_norm(mixed, [16], layer.norm.weight, 1e-5) * (1 - layer.first_share))
    torch.testing.assert_close(layer(x, None, Position()), layer.output(torch.cat(pairs, -1)), rtol=1e-4, atol=1e-5)


def test_decode_continues_prefill(assert_decode_continues_prefill: Callable[[LanguageModel], None]) -> None:
    assert_decode_continues_prefill(SambaY(SMALL))


def test_layer_plan_and_parameters() -> None:
    with torch.device("meta"):
        model = SambaY(SambaYConfig())
    sizes = [sum(p.numel() for p in layer.mixer.parameters()) for layer in model.layers]
    mamba, attention, unit, cross = 41_241_600, 19_668_480 + 384, 26_214_400, 13_112_320 + 384
    assert sizes == [mamba, attention] * 9 + [unit, cross] * 7
    assert {sum(p.numel() for p in layer.mlp.parameters()) for layer in model.layers} == {78_643_200}


def test_layers_come_in_fours() -> None:
    with pytest.raises(ValueError, match="multiple of 4 layers, got 6"):
        SambaY(SambaYConfig(layers=6))


def test_state_bytes() -> None:
    # One full cache of 5,120 B/token, 8 windows of 512 tokens (21.0 MB), 9 Mamba states.
    with torch.device("meta"):
        state = SambaY(SambaYConfig()).to(torch.bfloat16).make_state(1, 34_816)
    sizes = [sum(t.nbytes for t in layer) for layer in state]
    mamba, window = 4 * 5120 * 16 + 2 * 4 * 5120, 5_120 * 512
    assert sizes == [mamba, window] * 8 + [mamba, 5_120 * 34_816] + [0] * 14
    assert 8 * window == 20_971_520


def test_a_prompt_passes_half_of_the_model() -> None:
    # Matrices that see every token of a prompt: 9 Mamba, 8 windowed layers with their biases, 17 MLPs, and of the
    # full layer the keys and values (1,872,010,240 without the latter's biases). The rest sees the last token.
    with torch.device("meta"):
        model = SambaY(SambaYConfig())
        seen: dict[str, int] = {}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(
                    lambda module, inputs, name=name: seen.update({name: inputs[0].shape[1]})
                )
        model(**model.example_inputs("prefill", 1, 7))
    layers = {tokens: {int(name.split(".")[1]) for name in seen if seen[name] == tokens} for tokens in (1, 7)}
    assert layers == {7: set(range(17)), 1: set(range(17, 32))}
    whole = 9 * 41_241_600 + 8 * 19_668_480 + 17 * 78_643_200
    assert whole + 2560 * 2 * 20 * 64 == 1_872_010_240
