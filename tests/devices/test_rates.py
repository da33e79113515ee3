"""Rates of a card by number format, and what falls back to what."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from hwsim.card import Card
from hwsim.device import load_device
from hwsim.devices.rates import Rates, next_wider
from hwsim.errors import CardError


@pytest.mark.parametrize(
    ("wanted", "has", "found"),
    [
        ("bf16", ("bf16", "fp32"), "bf16"),
        ("bf16", ("fp16", "fp32"), "fp16"),
        ("bf16", ("fp32", "fp64"), "fp32"),
        ("bf16", ("int8", "fp32"), "fp32"),
        ("bf16", ("int8", "int16"), None),
        ("fp32", ("tf32",), None),
        ("tf32", ("bf16", "fp32"), "fp32"),
        ("int8", ("bf16", "fp32"), "bf16"),
        ("int8", ("fp8", "int16"), "int16"),
        ("int4", ("int8", "bf16"), "int8"),
        ("ternary", ("int8",), "int8"),
        ("int32", ("fp32",), "fp32"),
        ("complex64", ("fp32",), "fp32"),
        ("mxfp4", ("bf16", "fp8"), "fp8"),
    ],
)
def test_the_narrowest_format_that_holds_the_values(wanted, has, found):
    assert next_wider(wanted, dict.fromkeys(has, 1.0)) == found


@pytest.fixture
def card() -> Card:
    h200 = load_device("nvidia-h200").card
    return replace(
        h200,
        matmul={"int8": 8e12},
        vector={"fp32": 1e12},
        special=0.0,
        matmul_energy={"int8": 1e-12},
        vector_energy={},
        idle=50.0,
        limit=150.0,
    )


def test_a_product_without_a_matrix_format_runs_on_the_vector_lanes(card):
    assert Rates(card).matmul("bf16").flops == 1e12


def test_a_format_that_nothing_holds_is_an_error_that_names_it_and_what_there_is(card):
    with pytest.raises(CardError, match=r"nvidia-h200.*fp64.*matrix formats are int8, its vector formats fp32"):
        Rates(card).matmul("fp64")


def test_integers_wider_than_the_lanes_take_several_words(card):
    """64 bits are two words of 32: half the rate, twice the energy."""
    rate, word = Rates(card).vector("int64"), Rates(card).vector("int32")
    assert rate.flops == word.flops / 2
    assert rate.joules == pytest.approx(2 * word.joules)


def test_without_vector_lanes_the_matrix_units_do_vector_work(card):
    assert Rates(replace(card, vector={})).vector("fp32").flops == 8e12


def test_special_functions_are_never_free(card):
    assert Rates(card).special("fp32").flops == 1e12


def test_an_energy_that_is_not_given_is_bounded_by_the_power_limit(card):
    """(150 W - 50 W) / 1 TFLOP/s = 100 pJ/FLOP."""
    assert Rates(card).vector("fp32").joules == pytest.approx(100e-12)


def test_neither_energy_nor_limit_is_an_error(card):
    with pytest.raises(CardError, match=r"energy.vector or power.limit"):
        Rates(replace(card, limit=inf))
