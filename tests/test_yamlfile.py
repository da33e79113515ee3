"""YAML files: core scalars, places, hostile inputs, and all problems of a model at once."""

import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hwsim.errors import InputError, StudyError
from hwsim.units import parse
from hwsim.yamlfile import MAX_BYTES, MAX_DEPTH, Marks, load_yaml, validate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 1e9),
        ("3.35e12", 3.35e12),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("1_000", "1_000"),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("12:30:00", "12:30:00"),
        ("2026-11-23", "2026-11-23"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("1.2.3", "1.2.3"),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    data, _ = load_yaml(f"x: {text}\n")
    assert data == {"x": value}
    assert type(data["x"]) is type(value)  # type: ignore[index, call-overload]


def test_an_empty_text_is_null() -> None:
    assert load_yaml("")[0] is None


def test_places_are_lines_and_columns_from_one() -> None:
    _, marks = load_yaml("a: 1\nb:\n  - x\n  - {c: 3, d: 4}\n")
    assert marks.where(("a",)) == (1, 4)
    assert marks.where(("b", 1, "d")) == (4, 15)
    assert marks.where(("b", 1, "d"), key=True) == (4, 12)
    assert marks.where(("b", 1, "missing")) == (4, 5), "the closest ancestor"
    assert Marks().where(("x",)) == (1, 1)


def test_aliases_are_expanded_and_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("\ufeffa: &a {b: µ}\nc: *a\n", "utf-8")
    assert load_yaml(file)[0] == {"a": {"b": "µ"}, "c": {"b": "µ"}}


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "<text>:3:1: a: duplicate key, first given in line 1"),
        ("a: {b: 1, b: 2}", "<text>:1:11: a.b: duplicate key"),
        ("a: !!python/object/apply:os.system [ls]", "python/object/apply:os.system' is not allowed"),
        ("a: !thing 3", "1:4: a: tag '!thing' is not allowed"),
        ("a: !!int x", "is not allowed"),
        ("a: !!binary aGk=", "is not allowed"),
        ("a: &a [*a]", "an alias that contains itself"),
        ("a: &a {b: {c: *a}}", "an alias that contains itself"),
        ("a: *b", "1:4: not YAML: found undefined alias"),
        (_bomb(9), "values once aliases are expanded"),
        ("[" * 1_000_000, f"1:{MAX_DEPTH + 1}: nested deeper"),
        ("- " * 1_000_000, f"1:{2 * MAX_DEPTH + 1}: nested deeper"),
        ("{a: " * 100_000, "nested deeper"),
        ("a: " + "9" * 10_000, "number out of range"),
        ("a: 1e999", "number out of range"),
        ("? [1]\n: 2", "a key must be a text or a whole number"),
        ("1.5: 2", "a key must be a text or a whole number"),
        ("true: 2", "a key must be a text or a whole number"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: [1", "not YAML"),
        ("\ta: 1", "<text>:1:1: not YAML"),
        ("a: \x00", "control characters"),
        ("a: \ud800", "surrogates"),
        ("x" * (MAX_BYTES + 1), "file too large"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_hostile_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_yaml(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_several_duplicates_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        load_yaml("a: 1\na: 2\nb: 1\nb: 2\n")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: \xff\xfe", "not UTF-8 text at byte 3"), (b"x" * (MAX_BYTES + 1), "file too large")],
    ids=["bytes", "size"],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_yaml(file)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(InputError, match=r"qickstart.yaml: no such file; did you mean 'quickstart.yaml'"):
        load_yaml(tmp_path / "qickstart.yaml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_what_is_dumped_loads_back(data: object) -> None:
    assert load_yaml(yaml.safe_dump(data, allow_unicode=True, default_style='"'))[0] == data


@given(st.text(alphabet="abc:-[]{}&*!|>'\"#%@?,~ \n\t01.e"))
def test_any_text_loads_or_is_an_input_error(text: str) -> None:
    try:
        load_yaml(text)
    except InputError as error:
        assert error.problems


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


Bandwidth = Annotated[float, BeforeValidator(lambda value: parse(value, "B/s"))]


class Memory(Strict):
    name: str
    bandwidth: Bandwidth


class Gpu(Strict):
    kind: Literal["gpu"]
    memory: list[Memory]


class Cpu(Strict):
    kind: Literal["cpu"]
    cores: int = 1


class ModelRef(Strict):
    name: str
    layers: int | None = None


class Sample(Strict):
    devices: list[Annotated[Gpu | Cpu, Field(discriminator="kind")]]
    models: list[str | ModelRef] = []
    dtype: Literal["bf16", "int8"] = "bf16"
    matrix: dict[str, list[int | str]] = {}


WRONG = """\
devices:
- kind: gpu
  memory:
  - {name: hbm, bandwith: 3.35 TB/s}
  - {name: l2, bandwidth: 3.35 TX/s}
- {kind: cpuu}
- {kind: cpu, coresss: 2}
- {cores: many}
- {kind: cpu, cores: many}
models: [a, {name: x, layer: 3}, 5, {name: [1], layers: 3}]
dtype: bf17
matrix: {batch: 3}
zzz: auto
"""


def test_all_problems_of_a_file_at_their_places() -> None:
    data, marks = load_yaml(WRONG)
    with pytest.raises(StudyError) as caught:
        validate(Sample, data, marks, "s.yaml", StudyError)
    assert str(caught.value).splitlines() == [
        "s.yaml:4:5: devices[0].memory[0].bandwidth: missing key",
        "s.yaml:4:17: devices[0].memory[0].bandwith: unknown key; did you mean 'bandwidth'?",
        "s.yaml:5:27: devices[0].memory[1].bandwidth: unknown unit 'TX/s'; got '3.35 TX/s', expected such as "
        "'3.35 TB/s' (units B/s, bit/s, prefixes k M G T P E Ki Mi Gi Ti Pi)",
        "s.yaml:6:10: devices[1].kind: got 'cpuu', expected 'gpu', 'cpu'; did you mean 'cpu'?",
        "s.yaml:7:15: devices[2].coresss: unknown key; did you mean 'cores'?",
        "s.yaml:8:3: devices[3].kind: missing key",
        "s.yaml:9:22: devices[4].cores: got 'many', expected a valid integer",
        "s.yaml:10:23: models[1].layer: unknown key; did you mean 'layers'?",
        "s.yaml:10:34: models[2]: got 5, expected a text or a mapping",
        "s.yaml:10:44: models[3].name: got a list, expected a text",
        "s.yaml:11:8: dtype: got 'bf17', expected 'bf16' or 'int8'; did you mean 'bf16'?",
        "s.yaml:12:17: matrix.batch: got 3, expected a valid list",
        "s.yaml:13:1: zzz: unknown key; expected one of: devices, dtype, matrix, models",
    ]


def test_good_data_becomes_the_model() -> None:
    data, marks = load_yaml("devices: [{kind: gpu, memory: [{name: hbm, bandwidth: 3.35 TB/s}]}]")
    sample = validate(Sample, data, marks, "s.yaml")
    assert isinstance(sample.devices[0], Gpu)
    assert sample.devices[0].memory[0].bandwidth == 3.35e12
