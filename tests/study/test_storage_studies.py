"""The studies of memory tiers: valid, planned whole, and their first and last cases give figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.errors import DoesNotFitError
from hwsim.study.cases import expand
from hwsim.study.solve import simulate
from hwsim.study.studyfile import read_study

FOLDER = Path(__file__).parents[2] / "studies" / "storage"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_of_storage_is_planned_and_runs(file):
    assert file.read_text("utf-8").startswith("# yaml-language-server: $schema=../../schemas/study.schema.json\n")
    plan = expand(read_study(file))
    assert plan.study.file.study == file.stem
    done = 0
    for case in (plan.cases[0], plan.cases[-1]):
        device = plan.targets[case.target].device()
        try:
            result = simulate(case, plan.models[case.model], device, case.mapper.make())
        except DoesNotFitError:
            continue  # a row with its reason, as some studies want it
        assert result.latency > 0
        assert result.energy > 0
        done += 1
    assert done
