"""The captures that ship with the package are those of the code."""

from __future__ import annotations

import pytest
import torch

from hwsim.capture import ZooModel, find_model
from hwsim.errors import InputError
from hwsim.fold import fold, unfold
from hwsim.graphfile import dump_graph
from hwsim.models.ship import FOLDER, wanted
from hwsim.zoo import find_preset, presets

FOLDED = [
    ("llama-3.2-1b", {"layers": 3}, "train"),
    ("switch-base-8", {"layers": 6}, "prefill"),
    ("switch-base-8", {"layers": 6}, "train"),
    ("sambay-3.8b", {"layers": 12}, "decode"),
]


def test_every_capture_is_there_and_fresh():
    """`make captures` brings them up to date after a change of the zoo or the tracer."""
    assert {path.name for path in FOLDER.glob("*.json.gz")} == wanted().keys()


@pytest.mark.parametrize(("name", "phase"), [("llama-3.2-1b", "decode"), ("resnet-18", "train")])
def test_a_shipped_capture_is_what_tracing_gives(name, phase):
    model = ZooModel(find_preset(name), {})
    assert dump_graph(model.capture(phase)) == dump_graph(model.trace(phase))


@pytest.mark.parametrize("name", presets())
def test_a_shipped_capture_has_the_parameters_that_its_preset_states(name):
    model = find_model(name)
    phases = [phase for phase in model.phases if phase != "generate"]
    assert {phase: model.capture(phase).parameters for phase in phases} == dict.fromkeys(
        phases, find_preset(name).parameters
    )


@pytest.mark.parametrize(("name", "config", "phase"), FOLDED)
def test_folding_a_model_keeps_its_parameters(name, config, phase, monkeypatch):
    model = ZooModel(find_preset(name), config)
    monkeypatch.setattr("hwsim.capture.fold", lambda graph: graph)
    traced = model.trace(phase)
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in model.preset.build(config).parameters())
    small = fold(traced)
    assert len(small.ops) < len(traced.ops)
    assert small.parameters == unfold(small).parameters == traced.parameters == parameters
    sizes = {"batch": 2, "prompt": 640}
    assert small.bind(**sizes).flops == pytest.approx(traced.bind(**sizes).flops, rel=1e-12)


def test_a_changed_config_is_another_capture():
    plain, changed = (ZooModel(find_preset("llama-3.2-1b"), config) for config in ({}, {"layers": 2}))
    assert plain.identity != changed.identity
    assert changed.capture("decode").parameters < plain.capture("decode").parameters


def test_a_factory_has_the_phases_of_its_module(tmp_path, monkeypatch):
    (tmp_path / "made_here.py").write_text(
        "import torch\ndef linear():\n    return torch.nn.Linear(8, 4, bias=False), (torch.empty(3, 8),)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = find_model("made_here:linear")
    assert model.phases == ("forward", "train")
    assert model.capture("forward").matmul_flops == 2 * 3 * 8 * 4
    assert model.capture("train").matmul_flops == 2 * (2 * 3 * 8 * 4)  # no gradient of the input is needed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken_here:alone", "its code fails: TypeError: .*missing 1 required positional argument"),
        ("broken_here:narrow", "its code fails: RuntimeError"),
        ("broken_here:broken", "its code fails: ValueError: no weights here$"),
        ("broken_here:text", "what it makes; got 'text', expected a torch.nn.Module"),
        ("broken_here:nothing", "module 'broken_here' has no attribute 'nothing'"),
        (":", "expected package.module:factory"),
    ],
)
def test_what_is_wrong_with_a_factory_is_an_error_of_the_input(tmp_path, monkeypatch, name, said):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_here.py").write_text(
        "import torch\n"
        "def alone(): return torch.nn.Linear(4, 5)\n"
        "def narrow(): return torch.nn.Linear(4, 5), (torch.ones(2, 3),)\n"
        "def broken(): raise ValueError('no weights here')\n"
        "def text(): return 'text'\n"
    )
    with pytest.raises(InputError, match=rf"^model '{name}'.*{said}"):
        find_model(name).capture("forward")
