"""Rows of measurements that time whole models, simulated as they were run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsim.capture import find_model
from hwsim.device import Device
from hwsim.errors import HwsimError
from hwsim.measurements import Measurement
from hwsim.result import Result
from hwsim.simulation import Simulation, load_mapper
from hwsim.workload import Workload

EAGER = "eager"  # the mode in which the host launches operator by operator
MAPPER_OF_MODE = {EAGER: "eager", "graph": "recorded", "compile": "fused", "onnxruntime": "fused"}


def measured_result(row: Measurement, device: Device) -> Result | None:
    """What ``device`` makes of the run that ``row`` timed; None where hwsim cannot simulate it there."""
    spec = row.spec
    overrides: Mapping[str, Any] | None = spec.get("overrides")
    workload = Workload(
        str(spec["phase"]), int(spec["batch"]), int(spec["prompt"]), dtype=str(spec.get("dtype", "bf16"))
    )
    mapper = load_mapper(MAPPER_OF_MODE.get(str(spec.get("mode")), "recorded"))
    try:
        model = find_model(str(spec["model"]), overrides)
        return Simulation(model, device, mapper, workload, spans=False).run()
    except HwsimError:
        return None
