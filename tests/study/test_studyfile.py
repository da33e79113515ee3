"""Study files: all problems at once, each with its place; hostile files; values from the command line; the schema."""

import json
from pathlib import Path

import pytest

from hwsim.errors import StudyError
from hwsim.study.schema import card_schema, study_schema, system_schema
from hwsim.study.studyfile import read_study

ROOT = Path(__file__).parents[2]

WRONG = """\
study: wrong
modles: [llama-3.2-1b]
models: [llama-3.2-1bb, {onnx: net.onnx, dms: {}}]
systems: [nvidia-h20, sn40l, {card: sn40l, sett: {}}]
workload: {phase: [decode, prefil], prompt: 2x, batch: 0, dtype: bf17}
matrix: {batch: [1, -8], dtyp: [bf16]}
mapper: autoo
spill: 3
report: [rooflin]
"""


def problems(path: Path, *settings: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        read_study(path, settings)
    return [str(problem).removeprefix(str(path)) for problem in caught.value.problems]


def test_all_problems_are_said_at_once_with_their_places(write):
    assert problems(write(WRONG)) == [
        ":2:1: modles: unknown key; did you mean 'models'?",
        ":3:10: models[0]: unknown model 'llama-3.2-1bb'; did you mean 'llama-3.2-1b'?",
        ":3:42: models[1].dms: unknown key; did you mean 'dims'?",
        ":4:11: systems[0]: unknown device 'nvidia-h20'; did you mean 'nvidia-h200'?",
        ":4:44: systems[2].sett: unknown key; did you mean 'set'?",
        ":5:28: workload.phase[1]: unknown phase 'prefil'; did you mean 'prefill'?",
        ":5:45: workload.prompt: not a count; got '2x', expected such as 512 or '2k' (= 2048)",
        ":5:56: workload.batch: got 0, expected a whole number from 1 to 1099511627776",
        ":5:66: workload.dtype: unknown dtype 'bf17'; did you mean 'bf16'?",
        ":6:21: matrix.batch[1]: not a count; got -8, expected such as 512 or '2k' (= 2048)",
        ":6:26: matrix.dtyp: unknown key; did you mean 'dtype'?",
        ":7:9: mapper: unknown mapper 'autoo'; did you mean 'auto'?",
        ":8:8: spill: got 3, expected a valid boolean, unable to interpret input",
        ":9:10: report[0]: got 'rooflin', expected 'summary', 'roofline', 'memory-wall', 'breakdown', 'timeline', "
        "'pareto' or 'provenance'; did you mean 'roofline'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a study is a mapping"),
        ("- 1", "a study is a mapping"),
        ("study: [", "not YAML"),
        ("study: !!python/object/apply:os.system [ls]", "is not allowed"),
        ("study: a\nstudy: b", "duplicate key"),
        ("study: x", "models: missing key"),
        ("study: ../../etc\nmodels: [llama-3.2-1b]\nsystems: [sn40l]", "it names a folder"),
        ("study: x\nmodels: []\nsystems: [sn40l]", "models"),
        ("study: x\nmodels: [5]\nsystems: [sn40l]", "models[0]"),
        ("study: x\nmodels: [llama-3.2-1b]\nsystems: [sn40l]\nmatrix: {batch: 8}", "expected a valid list"),
        ("study: x\nmodels: [llama-3.2-1b]\nsystems: [sn40l]\nworkload: {batch: 9999G}", "1099511627776"),
        ("study: x\nmodels: [llama-3.2-1b]\nsystems: [sn40l]\nworkload: {batch: 1.5}", "batch"),
        ("[" * 2000, "nested deeper"),
    ],
)
def test_malformed_files_are_refused(write, text, message):
    assert any(message in line for line in problems(write(text)))


def test_a_bomb_of_aliases_costs_nothing(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert any("aliases are expanded" in line for line in problems(write("\n".join(lines))))


def test_a_missing_file_names_its_neighbour(write):
    path = write()
    with pytest.raises(StudyError, match=r"no such file; did you mean 'study\.yaml'"):
        read_study(path.with_name("studi.yaml"))


def test_counts_are_powers_of_1024(write):
    assert read_study(write()).file.matrix.prompt == [128, 1024]


def test_settings_change_the_file(write):
    study = read_study(write(), ["workload.batch=8", "matrix.batch=[1, 2k]", "systems.0=inst-csd", "spill=true"])
    assert study.file.workload.batch == 8
    assert study.file.matrix.batch == [1, 2048]
    assert study.file.systems == ["inst-csd"]
    assert study.file.spill is True


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workload.batch", "--set: got 'workload.batch', expected key=value, such as workload.batch=8"),
        ("matrix.batch=[1,x]", "--set: matrix.batch[1]: not a count; got 'x', expected such as 512 or '2k' (= 2048)"),
        ("matrix.btch=[1]", "--set: matrix.btch: unknown key; did you mean 'batch'?"),
        ("models.7=x", "--set: models.7: '7' is no place in the list; expected 0 to 0"),
        ("study.name.x=3", "--set: study.name.x: 'name' lies below a value that is neither a mapping nor a list"),
        ("=3", "--set: got '=3', expected key=value, such as workload.batch=8"),
    ],
)
def test_a_wrong_setting_stands_at_the_option(write, setting, message):
    assert problems(write(), setting) == [message]


@pytest.mark.parametrize(
    ("name", "schema"), [("study", study_schema), ("card", card_schema), ("system", system_schema)]
)
def test_the_committed_schema_is_fresh_and_draft_7(name, schema):
    """If this fails: `hwsim schema study > schemas/study.schema.json`, and the same for card and system."""
    text = (ROOT / "schemas" / f"{name}.schema.json").read_text("utf-8")
    assert json.loads(text) == schema()
    assert "prefixItems" not in text
    assert "draft-07" in text


def test_every_study_that_ships_is_valid_and_names_its_schema():
    files = sorted((ROOT / "studies").glob("*.yaml"))
    assert files
    for file in files:
        assert file.read_text("utf-8").startswith("# yaml-language-server: $schema=../schemas/study.schema.json\n")
        assert read_study(file).file.study == file.stem


def test_every_card_that_ships_names_its_schema():
    for file in (ROOT / "devices" / "cards").glob("*.yaml"):
        first = file.read_text("utf-8").partition("\n")[0]
        assert first == "# yaml-language-server: $schema=../../schemas/card.schema.json", file
