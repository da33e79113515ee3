"""Options of mappers: every form of value, one sentence per mistake, labels that tell apart what differs."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapper_plugin import Toy, ToyOptions, announce

import hwsim
from hwsim.cli import main
from hwsim.errors import InputError, PluginError, StudyError
from hwsim.mapper_options import as_text, label, options_of, read_options
from hwsim.registry import plugins
from hwsim.simulation import MAPPERS, choose_mapper, load_mapper, mapper_class
from hwsim.study.cases import expand
from hwsim.study.runner import run_study
from hwsim.study.studyfile import read_study, study_from

HEAD = "study: s\nmodels: [llama-3.2-1b]\nsystems: [sn40l]\n"


@pytest.fixture
def announced(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    announce(folder)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "study.yaml"
        path.write_text(HEAD + text)
        return path

    return written


def read(**given):
    return read_options("toy", Toy, given)


def test_defaults_are_those_of_the_class():
    assert read() == ToyOptions()


def test_every_form_is_read_in_si_units():
    given = {"resident": "25 %", "chunk": "4 KiB", "window": "2k", "evict": "lfu", "fetch": False, "limit": 7}
    assert read(**given, shares=[0.1, "20 %"]) == ToyOptions(0.25, 4096.0, 2048, "lfu", False, (0.1, 0.2), 7)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("resident", 2, "resident: mapper 'toy'; got 2, expected a number of at least 0 and at most 1"),
        ("resident", True, "resident: mapper 'toy'; got true, expected a number of at least 0 and at most 1"),
        ("chunk", 4096, "chunk: mapper 'toy': a number without a unit; got 4096, expected such as '80 GB'"),
        ("chunk", "4 B", "chunk: mapper 'toy'; got '4 B', expected a number of at least 512 B"),
        ("window", 1.5, "window: mapper 'toy'; got 1.5, expected a whole number of at least 1 and at most 4096"),
        ("window", None, "window: mapper 'toy'; got null, expected a whole number of at least 1 and at most 4096"),
        ("evict", "lruu", "evict: mapper 'toy'; got 'lruu', expected one of lru, lfu; did you mean 'lru'?"),
        ("fetch", 1, "fetch: mapper 'toy'; got 1, expected true or false"),
        ("shares", 0.5, "shares: mapper 'toy'; got 0.5, expected a list of a number of at least 0 and at most 1"),
        ("shares", [0.5, 7], "shares: mapper 'toy'; got 7, expected a list of a number of at least 0 and at most 1"),
        ("shares", [0.5, 0.6], "shares: mapper 'toy': the shares sum to more than 1"),
        ("limit", -1, "limit: mapper 'toy'; got -1, expected a whole number of at least 0, or null"),
        ("residnt", 1, "residnt: mapper 'toy': no option 'residnt'; did you mean 'resident'?"),
        ("xyz", 1, "xyz: mapper 'toy': no option 'xyz'; expected one of resident, chunk, window, evict, fetch, "),
    ],
)
def test_a_mistake_is_one_sentence(option, value, said):
    with pytest.raises(InputError) as caught:
        read(**{option: value})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_said_at_once():
    with pytest.raises(InputError) as caught:
        read(resident=2, windw=3)
    assert len(caught.value.problems) == 2


def test_a_mapper_without_options_says_so():
    with pytest.raises(InputError, match="x: mapper 'fused': no option 'x', nor any other"):
        load_mapper("fused", {"x": 1})
    assert choose_mapper("fused").label == "fused"
    assert choose_mapper("fused").settings == ""


def test_a_label_names_what_is_not_the_default():
    assert label("toy", ToyOptions()) == "toy"
    assert label("toy", ToyOptions(window=7, evict="lfu", shares=(0.25, 0.5))) == (
        "toy[window=7,evict=lfu,shares=[0.25, 0.5]]"
    )
    assert label("toy", ToyOptions(chunk=4096.0, fetch=False)) == "toy[chunk=4.096 kB,fetch=false]"


@given(st.floats(512, 1e12), st.floats(0, 1))
def test_what_is_written_is_read_as_the_same(chunk, resident):
    known = {one.name: one for one in options_of(Toy)}
    for name, value in (("chunk", chunk), ("resident", float(f"{resident:.12g}"))):
        assert known[name].read(known[name].written(value)) == value


def test_what_is_no_option_is_refused_before_any_use():
    @dataclass(frozen=True)
    class Bare:
        size: int = 3

    class Mapper:
        Options = Bare

    with pytest.raises(PluginError, match=r"Bare\.size"):
        options_of(Mapper)


@pytest.mark.parametrize("name", plugins(MAPPERS))
def test_options_of_our_mappers_are_documented_and_their_defaults_valid(name):
    for one in options_of(mapper_class(name)):
        assert one.doc
        written = one.default if one.default is None or one.unit == "1" else one.written(one.default)
        assert one.read(written) == one.default
    assert load_mapper(name).name == name


def test_estimates_carry_the_options(announced):
    result = hwsim.estimate("llama-3.2-1b", "sn40l", mapper="toy", mapper_options={"window": 7})
    assert result.mapper == "toy[window=7]"
    assert json.loads(result.summary()["mapper_options"])["window"] == 7
    assert result.latency == hwsim.estimate("llama-3.2-1b", "sn40l", mapper="fused").latency


def test_cases_differ_by_their_options_and_equal_ones_are_one_case(announced, write):
    text = "matrix: {mapper: [toy, {name: toy}, {name: toy, window: 4}, {name: toy, window: 7}, fused]}\n"
    plan = expand(read_study(write(text + "cases: [{mapper: {name: toy, resident: 25 %}}]\n")))
    rows = [plan.inputs(case) for case in plan.cases]
    assert [row["mapper"] for row in rows] == ["toy", "toy[window=7]", "fused", "toy[resident=0.25]"]
    assert [row["mapper_options"] for row in rows[::2]] == [as_text(ToyOptions()), ""]
    assert len({case.key for case in plan.cases}) == 4
    assert pickle.loads(pickle.dumps(plan.cases[1])) == plan.cases[1]


def test_a_study_says_where_an_option_is_wrong(announced, write):
    text = "mapper: {name: toy, residnt: 1}\nmatrix: {mapper: [{name: toy,\n  resident: 2}, {name: fused, x: 1}]}\n"
    with pytest.raises(StudyError) as caught:
        read_study(write(text))
    assert [str(problem).partition("study.yaml:")[2] for problem in caught.value.problems] == [
        "4:30: mapper.residnt: mapper 'toy': no option 'residnt'; did you mean 'resident'?",
        "6:13: matrix.mapper[0].resident: mapper 'toy'; got 2, expected a number of at least 0 and at most 1",
        "6:34: matrix.mapper[1].x: mapper 'fused': no option 'x', nor any other",
    ]


def test_a_run_keeps_the_options_in_its_record_and_its_rows(announced, write, tmp_path):
    text = "mapper: {name: toy, limit: null, chunk: 64 KiB}\n"
    done = run_study(write(text), tmp_path / "out", jobs=1)
    (row,) = done.to_frame().to_dict("records")
    assert (row["status"], row["mapper"]) == ("ok", "toy[chunk=65.536 kB]")
    assert json.loads(row["mapper_options"])["chunk"] == 65536.0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    again = expand(study_from(record["study"], "run.json", tmp_path))
    assert again.cases[0].key == row["key"]


def test_the_command_line_sets_options(announced, capsys):
    asked = ["estimate", "llama-3.2-1b", "--device", "sn40l", "--mapper", "toy"]
    assert main([*asked, "--json", "--mapper-set", "window=2k", "--mapper-set", "shares=[0.1, 0.2]"]) == 0
    options = json.loads(json.loads(capsys.readouterr().out)["mapper_options"])
    assert (options["window"], options["shares"]) == (2048, [0.1, 0.2])
    assert main([*asked, "--mapper-set", "window"]) == 2
    assert "expected OPTION=VALUE such as resident=0.5" in capsys.readouterr().err
    assert main([*asked, "--mapper-set", "windw=3"]) == 2
    assert "mapper 'toy': no option 'windw'; did you mean 'window'?" in capsys.readouterr().err


def test_the_command_line_shows_and_lists_options(announced, capsys):
    assert main(["show", "toy", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["option"] for row in shown["options"]] == [one.name for one in options_of(Toy)]
    assert main(["list", "mappers", "--json"]) == 0
    (listed,) = (row["options"] for row in json.loads(capsys.readouterr().out) if row["name"] == "toy")
    assert listed.startswith("resident=0.5, chunk=32.768 kB")
    assert main(["show", "fused"]) == 0
    assert "none" in capsys.readouterr().out
