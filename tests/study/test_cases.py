"""Expansion: every combination once and in order, keys made of all that decides a result, models without a phase."""

from importlib.resources import files
from pathlib import Path

import pytest

import hwsim
from hwsim.errors import StudyError
from hwsim.study.cases import _simulating, expand
from hwsim.study.studyfile import read_study

HEAD = "study: s\nmodels: [llama-3.2-1b]\nsystems: [sn40l]\n"


def plan_of(path, *settings):
    return expand(read_study(path, settings))


def points(plan):
    return [
        (plan.names[case.model], plan.targets[case.target].label, case.workload.phase, case.workload.batch)
        for case in plan.cases
    ]


def test_the_matrix_is_a_product_whose_last_axis_varies_fastest(write):
    plan = plan_of(write())
    assert [(c.number, c.workload.batch, c.workload.prompt) for c in plan.cases] == [
        (1, 1, 128),
        (2, 1, 1024),
        (3, 2, 128),
        (4, 2, 1024),
        (5, 4, 128),
        (6, 4, 1024),
    ]


def test_without_a_phase_a_model_does_what_it_usually_does(write):
    plan = plan_of(write("study: s\nmodels: [llama-3.2-1b, resnet-18]\nsystems: [sn40l]"))
    assert [case.workload.phase for case in plan.cases] == ["decode", "forward"]


def test_phases_that_a_model_lacks_are_left_out_and_counted(write):
    text = "study: s\nmodels: [llama-3.2-1b, resnet-18]\nsystems: [sn40l, inst-csd]\n"
    plan = plan_of(write(text + "workload: {phase: [decode, forward]}\nmatrix: {batch: [1, 2, 3]}"))
    assert len(plan.cases) == (2 + 1) * 2 * 3
    assert plan.left_out == 1 * 2 * 3


def test_a_model_with_no_phase_left_is_an_error(write):
    with pytest.raises(StudyError, match=r"2:24: models\[1\]: the model has no phase prefill, decode; .*forward"):
        plan_of(
            write("study: s\nmodels: [llama-3.2-1b, resnet-18]\nsystems: [sn40l]\nworkload: {phase: [prefill, decode]}")
        )


def test_explicit_cases_come_after_the_matrix_and_repeat_nothing(write):
    plan = plan_of(write(HEAD + "cases:\n- {}\n- {batch: 7}\n- {model: resnet-18, system: inst-csd, phase: forward}\n"))
    assert points(plan) == [
        ("llama-3.2-1b", "sn40l", "decode", 1),
        ("llama-3.2-1b", "sn40l", "decode", 7),
        ("resnet-18", "inst-csd", "forward", 1),
    ]


def test_an_explicit_case_in_a_phase_that_the_model_lacks_is_an_error(write):
    with pytest.raises(StudyError, match=r"5:3: cases\[0\]: the model has no phase decode"):
        plan_of(write(HEAD + "cases:\n- {model: resnet-18, phase: decode}\n"))


def test_wrong_changes_of_a_card_stand_where_they_are_asked_for(write):
    text = "study: s\nmodels: [llama-3.2-1b, nowhere.onnx, no.module:net]\n"
    text += "systems: [{card: sn40l, set: {memories.hbn.bandwidth: 6 TB/s}}]"
    with pytest.raises(StudyError) as caught:
        plan_of(write(text))
    lines = str(caught.value)
    assert "2:24: models[1]: " in lines
    assert "2:38: models[2]: " in lines
    assert "3:11: systems[0].memories.hbn.bandwidth: no 'hbn' in the card" in lines
    assert "did you mean 'hbm'" in lines


def test_two_systems_of_one_name_need_a_label(write):
    twice = "study: s\nmodels: [llama-3.2-1b]\nsystems: [sn40l, {card: sn40l}]"
    with pytest.raises(
        StudyError, match=r"3:18: systems\[1\]: 'sn40l' is listed twice; expected one of them with a label"
    ):
        plan_of(write(twice))
    labelled = twice.replace("{card: sn40l}", "{card: sn40l, label: other}")
    assert [target.label for target in plan_of(write(labelled)).targets] == ["sn40l", "other"]


def test_the_baseline_is_one_of_the_systems(write):
    with pytest.raises(StudyError, match=r"4:11: baseline: no system is called 'sn40'; did you mean 'sn40l'"):
        plan_of(write(HEAD + "baseline: sn40"))


def test_too_many_cases_are_refused_before_they_are_made(write):
    sizes = list(range(1, 2001))
    with pytest.raises(StudyError, match=r"matrix: got 4000000 cases, expected at most 1000000"):
        plan_of(write(HEAD + f"matrix: {{batch: {sizes}, prompt: {sizes}}}"))


def test_paths_are_relative_to_the_study(write, tmp_path, monkeypatch):
    from hwsim.registry import data_files

    card = data_files("hwsim.devices", "cards")["sn40l"].read_text("utf-8").replace("card: sn40l", "card: mine", 1)
    (tmp_path / "mine.yaml").write_text(card, "utf-8")
    path = write("study: s\nmodels: [llama-3.2-1b]\nsystems: [mine.yaml]")
    monkeypatch.chdir("/")
    assert plan_of(path).targets[0].label == "mine"


def test_keys_change_with_everything_that_decides_a_result(write):
    base = plan_of(write(HEAD)).cases[0].key
    assert plan_of(write(HEAD + "title: other words\nreport: [summary]\n")).cases[0].key == base
    changes = [
        "workload.batch=2",
        "workload.dtype=int8",
        "workload.phase=prefill",
        "mapper=eager",
        "spill=true",
        "systems=[{card: sn40l, set: {power.idle: 1 W}}]",
        "systems=[{card: sn40l, label: other}]",
        "models=[{name: llama-3.2-1b, layers: 2}]",
    ]
    keys = {plan_of(write(HEAD), change).cases[0].key for change in changes}
    assert len(keys | {base}) == len(changes) + 1


def test_the_digest_of_the_code_covers_what_simulates_and_nothing_else():
    root = Path(hwsim.__file__).parent
    names = {str(file).removeprefix(f"{root}/") for file in _simulating(files("hwsim"))}
    assert {"engine.py", "study/cases.py", "devices/gpu/matmul.py", "mappers/fused.py"} <= names
    assert {f"devices/calibrations/{file.name}" for file in (root / "devices/calibrations").glob("*.yaml")} <= names
    assert not [name for name in names if name.startswith(("report", "commands", "models", "kernels", "studies"))]
