"""Claims: the expression language, and the shipped exact claims."""

from __future__ import annotations

import pytest

from hwsim.claims import calculate, check_claims, read_claims
from hwsim.errors import InputError

FIRST = {"LINA-1", "MV-2", "ML-1", "GD-6", "KD-1", "HP-1", "SY-PARAMETERS", "SY-CACHE"}


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
    assert set(read_claims()) >= FIRST
    assert all(claim.figures for claim in read_claims().values())


def test_exact_claims_reproduce():
    outcomes = check_claims()
    assert not [f"{o.claim} {o.figure}: {o.simulated} {o.error}" for o in outcomes if o.kind == "exact" and not o.holds]


def test_an_unknown_claim_names_the_nearest():
    with pytest.raises(InputError, match="LINA-1"):
        check_claims(["LINA-2"])
