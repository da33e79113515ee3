"""The captures that ship with the package are those of the code."""

from __future__ import annotations

import pytest

from hwsim.capture import ZooModel, find_model
from hwsim.graphfile import dump_graph
from hwsim.models.ship import FOLDER, wanted
from hwsim.zoo import find_preset


def test_every_capture_is_there_and_fresh():
    """`make captures` brings them up to date after a change of the zoo or the tracer."""
    assert {path.name for path in FOLDER.glob("*.json.gz")} == wanted().keys()


@pytest.mark.parametrize(("name", "phase"), [("llama-3.2-1b", "decode"), ("resnet-18", "train")])
def test_a_shipped_capture_is_what_tracing_gives(name, phase):
    model = ZooModel(find_preset(name), {})
    assert dump_graph(model.capture(phase)) == dump_graph(model.trace(phase))


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
