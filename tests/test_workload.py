"""Workloads are checked when made; the integral over a growing context keeps its bound."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from hwsim.workload import DECODE_BOUND, Workload, integrate


def summed(cost, first, count):
    rule = integrate(cost, first, count)
    return sum(w * cost(p) for w, p in zip(rule.weights, rule.points, strict=True)), rule


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-6, 1e-2), st.floats(0, 1e-6), st.integers(1, 100_000), st.integers(1, 40_000))
def test_a_straight_line_is_exact(base, slope, first, count):
    total, rule = summed(lambda p: base + slope * p, first, count)
    exact = count * base + slope * (first * count + count * (count - 1) / 2)
    assert total == pytest.approx(exact, rel=1e-9)
    assert len(rule.points) <= 5


@pytest.mark.parametrize("tile", [16, 64, 128, 256, 512])
def test_steps_of_tiles_stay_within_the_bound(tile):
    def cost(p):
        return 1e-3 + 1e-5 * math.ceil(p / tile)

    total, rule = summed(cost, 2048, 8192)
    exact = sum(cost(p) for p in range(2048, 2048 + 8192))
    assert abs(total - exact) <= DECODE_BOUND * exact
    assert rule.error <= DECODE_BOUND


@pytest.mark.parametrize("kink", [2100, 4096, 7000, 10_000])
def test_a_kink_stays_within_the_bound(kink):
    """Where another resource starts to bind."""

    def cost(p):
        return max(1e-3, 1e-3 * p / kink)

    total, _ = summed(cost, 2048, 8192)
    exact = sum(cost(p) for p in range(2048, 2048 + 8192))
    assert abs(total - exact) <= DECODE_BOUND * exact


def test_weights_count_every_step():
    rule = integrate(lambda p: 1.0, 10, 1000)
    assert sum(rule.weights) == pytest.approx(1000)


@pytest.mark.parametrize(
    ("given_", "named"),
    [
        ({"phase": "decod"}, "decode"),
        ({"batch": 0}, "batch"),
        ({"batch": -3}, "batch"),
        ({"prompt": 2**60}, "prompt"),
        ({"generate": True}, "generate"),
        ({"dtype": "bf61"}, "bf16"),
    ],
)
def test_bad_workloads_name_the_field(given_, named):
    with pytest.raises(InputError, match=named):
        Workload(**given_)
