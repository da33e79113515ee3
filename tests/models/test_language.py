"""What every language model keeps of its promise: free sizes in a trace, the model's dtype, the phases."""

import pytest
import torch

from hwsim.frontends.torch import trace_symbolic
from hwsim.graph import Kind
from hwsim.models.gated_deltanet2 import GatedDeltaNet2, GatedDeltaNet2Config
from hwsim.models.gla import GLA, GLAConfig
from hwsim.models.language import LanguageModel
from hwsim.models.mamba2 import Mamba2, Mamba2Config
from hwsim.models.sambay import SambaY, SambaYConfig

DELTA = {"width": 32, "heads": 2, "key_dim": 8, "value_dim": 8, "hidden": 48, "vocab": 61, "attention_heads": 4}
SMALL = {
    "mamba2": lambda: Mamba2(Mamba2Config(2, 32, state=6, head_dim=8, vocab=61)),
    "gla": lambda: GLA(GLAConfig(2, 32, heads=2, hidden=48, vocab=61)),
    "gated_deltanet2": lambda: GatedDeltaNet2(GatedDeltaNet2Config(2, window=7, **DELTA)),
    "sambay": lambda: SambaY(SambaYConfig(8, 32, 4, 2, 8, 48, 61, window=7, state=4, rank=3)),
}


RECURRENT_LAYERS = {Mamba2: 2, GLA: 2, GatedDeltaNet2: 1, SambaY: 3}


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    built: LanguageModel = SMALL[request.param]()
    return built


@pytest.mark.parametrize("phase", ["train", "prefill", "decode"])
def test_batch_and_prompt_stay_free(model: LanguageModel, phase: str) -> None:
    graph = trace_symbolic(
        lambda batch, prompt: model.example_inputs(phase, batch, prompt),
        model,
        {"batch": 3, "prompt": 4099},
        backward=phase == "train",
    )
    names = [op.source for op in graph.ops if op.kind is Kind.RECURRENCE]
    layers, backward = RECURRENT_LAYERS[type(model)], [name for name in names if name.endswith("backward")]
    assert len(names) - len(backward) == layers
    assert len(backward) == (layers if phase == "train" else 0)


def test_bfloat16_follows_float32(model: LanguageModel) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(61, (2, 10))
    expected = model(tokens)[:, -1:]
    model.to(torch.bfloat16)
    state = model.make_state(2, 10)
    model(tokens[:, :9], state, 0)
    logits = model(tokens[:, 9:], state, 9)
    assert logits.dtype == torch.bfloat16
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()


def test_gradients_reach_every_parameter(model: LanguageModel) -> None:
    model(torch.randint(61, (2, 9))).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_unknown_phase_is_named(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="phase 'prefil': expected"):
        model.example_inputs("prefil", 1, 8)
