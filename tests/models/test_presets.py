"""Every preset of the zoo builds without weights and has exactly the parameters that it states."""

from importlib import import_module
from importlib.resources import files
from typing import Any

import pytest
import torch
import yaml


def presets() -> list[Any]:
    found = []
    for path in sorted(files("hwsim.models").iterdir(), key=str):
        if path.name.endswith(".yaml"):
            spec = yaml.safe_load(path.read_text())
            found += [pytest.param(path.name[:-5], spec, name, id=name) for name in spec["presets"]]
    return found


@pytest.mark.parametrize(("module", "spec", "name"), presets())
def test_parameter_count(module: str, spec: dict[str, Any], name: str) -> None:
    home, preset = import_module(f"hwsim.models.{module}"), spec["presets"][name]
    config = getattr(home, spec["config"])(**preset["config"])
    with torch.device("meta"):
        model = getattr(home, spec["class"])(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == preset["parameters"]
    assert preset["mark"] in ("published", "derived", "assumed")
    assert preset["source"] in spec["sources"]
