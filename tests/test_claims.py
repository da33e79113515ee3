"""Claims: the expression language, figures of simulated cases, what a file may say, and the shipped exact claims."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import hwsim
from hwsim.claim_cases import measured
from hwsim.claims import calculate, check_claims, read_claims
from hwsim.engine import Usage
from hwsim.errors import InputError

ROOT = Path(__file__).parents[1]
CASE = {"model": "llama-3.2-1b", "system": "sn40l", "phase": "decode"}
SOURCE = {"paper": "p", "where": "w", "mark": "derived"}

FIRST = {"LINA-1", "MV-2", "ML-1", "GD-6", "KD-1", "HP-1", "SY-PARAMETERS", "SY-CACHE"}
TIERS = {
    *("LF10", "IN1", "IN2", "IN13", "IN14", "PG7", "PG8", "HM1", "HM2", "HM3", "HM4", "HM5", "HM6", "BFP-1", "AG-1"),
    *("SCIS-1", "SCIS-2", "SCIS-3", "TRIM-5"),
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2 + 3 * 4", 14), ("(a - 1) // 2", 3), ("2 ** 10 / b", 256), ("-a + b", -4), ("a\n  * b", 32)],
)
def test_arithmetic(expression, value):
    assert calculate(expression, {"a": 8, "b": 4}) == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "a.real",
        "(lambda: 1)()",
        "[1][0]",
        "c",
        "2 **",
        "1 / 0",
        "9 ** 9 ** 9",
        "True",
    ],
)
def test_anything_else_is_refused(expression):
    with pytest.raises(InputError):
        calculate(expression, {"a": 1})


def test_the_first_claims_are_there():
    assert set(read_claims()) >= FIRST | TIERS
    assert all(claim.figures for claim in read_claims().values())


def test_exact_claims_reproduce():
    exact = [name for name, claim in read_claims().items() if claim.kind == "exact"]
    outcomes = check_claims(exact)
    assert not [f"{o.claim} {o.figure}: {o.simulated} {o.error}" for o in outcomes if not o.holds]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("A1", {"A1"}),
        ("A", {"A1", "A1-X", "A10", "A-Y"}),
        ("B6", {"B6-CPU", "B6-IO"}),
        ("B", {"B6-CPU", "B6-IO", "B60"}),
        ("A1-X", {"A1-X"}),
    ],
)
def test_what_is_no_id_names_those_that_continue_it(tmp_path, name, named):
    ids = ("A1", "A1-X", "A10", "A-Y", "AB-1", "B6-CPU", "B6-IO", "B60")
    known = {one: claims_of(tmp_path, figure(1, expression="1"), id=one)[one] for one in ids}
    assert {outcome.claim for outcome in check_claims([name], known)} == named
    assert len(check_claims([name, *named], known)) == len(named)


@pytest.mark.parametrize("name", ["", "C", "A1-", "-"])
def test_part_of_a_word_or_number_names_nothing(tmp_path, name):
    known = claims_of(tmp_path, figure(1, expression="1"), id="CD1")
    with pytest.raises(InputError, match="unknown claim"):
        check_claims([name], known)


def test_claims_are_in_the_order_of_their_numbers():
    assert [name for name in read_claims() if re.fullmatch(r"IN\d+", name)] == [f"IN{n}" for n in range(1, 16)]


def test_progress_is_told_figure_by_figure(tmp_path):
    heard = []
    known = claims_of(tmp_path, figure(1, expression="1"), {**figure(2, expression="2"), "name": "g"})
    check_claims(claims=known, listener=lambda claim, part: heard.append((claim, part)))
    assert heard == [("X-1", 0), ("X-1", 0.5)]


def test_an_unknown_claim_names_the_nearest():
    with pytest.raises(InputError, match="LINA-1"):
        check_claims(["LINA-2"])


def claims_of(tmp_path, *figures, kind="timing", **more):
    claim = {"id": "X-1", "title": "t", "kind": kind, "source": SOURCE, "figures": list(figures), **more}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [claim]}))
    return read_claims([path])


def figure(published, **more):
    return {"name": "f", "published": published, "tolerance": "5 %", **more}


def outcomes_of(tmp_path, *figures, **more):
    return check_claims(claims=claims_of(tmp_path, *figures, **more))


def test_a_case_is_what_an_estimate_of_it_gives(tmp_path):
    result = hwsim.estimate("llama-3.2-1b", "sn40l", phase="generate", batch=3, prompt=1024, generate=16)
    case = {**CASE, "phase": "generate", "batch": 3, "prompt": "1k", "generate": 16}
    decode = sum(part.weight * part.seconds for part in result.phases if part.phase == "decode")
    wanted = {
        "latency": (result.latency, "s"),
        "latency.decode": (decode, "s"),
        "throughput": (result.tokens_per_second, "/s"),
        "energy": (result.energy, "J"),
        "flops": (result.flops, "FLOP"),
        "bytes.hbm": (result.traffic["hbm"], "B"),
        "peak_memory.hbm": (result.peak_by_memory["hbm"], "B"),
        "busy.attention": (float(result.to_frame().query("kind == 'attention'")["busy_seconds"].sum()), "s"),
        "seconds.attention": (float(result.to_frame().query("kind == 'attention'")["seconds"].sum()), "s"),
    }
    figures = [figure(f"{value!r} {unit}", measure=name, case=case) for name, (value, unit) in wanted.items()]
    for outcome in outcomes_of(tmp_path, *figures):
        assert outcome.ratio == pytest.approx(1, rel=1e-12)
        assert outcome.holds


def test_a_busy_resource_is_that_of_every_phase():
    uses = [[Usage("nand", 2.0, 8e9, 0.0), Usage("pcie to gpu", 1.0, 8e9, 0.5)], [Usage("nand", 3.0, 8e9, 0.0)]]
    parts = [
        SimpleNamespace(weight=weight, timeline=SimpleNamespace(usage=usage), rows=list)
        for weight, usage in zip((1.0, 10.0), uses, strict=True)
    ]
    result = SimpleNamespace(phases=parts)
    assert measured(result, "busy.nand") == 2.0 + 10 * 3.0
    with pytest.raises(InputError, match="did you mean 'pcie to gpu'"):
        measured(result, "busy.pcie to gp")


def test_a_second_case_differs_in_what_it_names(tmp_path):
    (outcome,) = outcomes_of(tmp_path, figure(1, measure="latency", case={**CASE, "batch": 64}, over={"batch": 1}))
    slow, fast = (hwsim.estimate("llama-3.2-1b", "sn40l", phase="decode", batch=batch).latency for batch in (64, 1))
    assert outcome.simulated == slow / fast
    assert not outcome.holds


def test_options_changes_of_a_card_and_settings_of_a_model_are_those_of_a_study(tmp_path):
    case = {
        "model": {"name": "llama-3.2-1b", "layers": 2},
        "system": {"card": "sn40l", "set": {"memories.hbm.bandwidth": "0.9 TB/s"}},
        "mapper": {"name": "eager"},
    }
    slow = hwsim.load_device("sn40l", {"memories.hbm.bandwidth": "0.9 TB/s"})
    wanted = hwsim.estimate("llama-3.2-1b", slow, mapper="eager", overrides={"layers": 2}).latency
    (outcome,) = outcomes_of(tmp_path, figure(f"{wanted!r} s", measure="latency", case=case))
    assert outcome.simulated == wanted


def test_a_case_may_be_of_a_system(tmp_path):
    system = {"gpu": "nvidia-a6000", "storage": [{"card": "inst-csd", "set": {"power.idle": "9 W"}}, "inst-csd"]}
    wanted = hwsim.estimate("llama-3.2-1b", system, phase="decode").energy
    case = {**CASE, "system": system}
    (outcome,) = outcomes_of(tmp_path, figure(f"{wanted!r} J", measure="energy", case=case))
    assert outcome.simulated == wanted


def test_cases_are_inputs_of_expressions(tmp_path):
    inputs = {"a": {"case": CASE, "measure": "latency"}, "b": {"case": CASE, "measure": "seconds.attention"}, "c": 2}
    (outcome,) = outcomes_of(tmp_path, figure(2, expression="c * a / (a - b + b)", inputs=inputs))
    assert outcome.simulated == pytest.approx(2)


def test_what_fails_says_so_in_the_table(tmp_path):
    large = {**CASE, "model": "llama-3.1-405b", "system": "nvidia-l4"}
    first, second = outcomes_of(
        tmp_path, figure("1 s", measure="latency", case=large), figure("1 B", measure="bytes.hbmm", case=CASE)
    )
    assert "does not fit in the memories of nvidia-l4" in first.error
    assert second.error == "unknown memory 'hbmm'; did you mean 'hbm'?"
    assert (first.holds, second.holds, first.ratio) == (False, False, None)


def test_quality_is_listed_and_never_computed(tmp_path):
    (outcome,) = outcomes_of(tmp_path, {"name": "f", "published": "77.4 %"}, kind="quality")
    assert (outcome.holds, outcome.simulated, outcome.error) == (None, None, "")


@pytest.mark.parametrize(
    ("given", "more", "said"),
    [
        ({"published": 1, "name": "f"}, {}, "all others are computed"),
        (figure(1, expression="1"), {"kind": "quality"}, "figures of the kind quality are listed only"),
        (figure(1, expression="1"), {"kind": "fitted"}, "says under 'fitted' what was fitted"),
        (figure(1, expression="1"), {"fitted": ["f"]}, "says under 'fitted' what was fitted"),
        ({"name": "f", "published": 1, "expression": "1"}, {}, "'f' needs a tolerance"),
        (figure(1, expression="1", measure="latency", case=CASE), {}, "a figure has an expression, or"),
        (figure(1, case=CASE), {}, "a figure has an expression, or"),
        (figure(1, expression="1", over=CASE), {}, "the first one is missing"),
        (
            figure("1 s", case=CASE, measure="latncy"),
            {},
            "unknown measure 'latncy'; did you mean 'latency'?",
        ),
        (figure(1, model="llama-3.2-1b", measure="latency"), {}, "unknown measure 'latency'"),
        (figure("1 s", case=CASE, measure="energy.hbm"), {}, "the measure 'energy' has no parts"),
        (figure("1 s", case={"model": "llama-3.2-1b"}, measure="latency"), {}, "a case needs a model and a system"),
        (figure("1 s", case={**CASE, "model": "lama-3.2-1b"}, measure="latency"), {}, "case.model: unknown model"),
        (figure("1 B", case=CASE, measure="latency"), {}, "unknown unit 'B'"),
    ],
)
def test_what_a_file_may_not_say(tmp_path, given, more, said):
    with pytest.raises(InputError, match=re.escape(said)):
        claims_of(tmp_path, given, **more)


def test_the_example_of_the_description_reproduces(tmp_path):
    text = (ROOT / "studies" / "claims" / "README.md").read_text("utf-8")
    (tmp_path / "example.yaml").write_text(re.findall(r"```yaml.*?\n(.*?)```", text, re.DOTALL)[0])
    outcomes = check_claims(claims=read_claims([tmp_path / "example.yaml"]))
    assert [outcome.holds for outcome in outcomes] == [True, True]
